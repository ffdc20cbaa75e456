//! How the kernel schedules the two processes of Zenoh. Sinew's lanes run under SCHED_FIFO on one core
//! each; Zenoh is measured as it comes and with the same favours, and the better figure counts.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::Failure;

/// How a process of Zenoh is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// As any program: normal priority, every core
    Plain,
    /// All threads SCHED_FIFO, every core
    Fifo,
    /// Normal priority, each process on a core of its own
    Pinned,
    /// All threads SCHED_FIFO, each process on a core of its own
    PinnedFifo,
}

/// All of them.
pub(crate) const ALL: [Placement; 4] =
    [Placement::Plain, Placement::Fifo, Placement::Pinned, Placement::PinnedFifo];

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Fifo => "fifo",
            Self::Pinned => "pinned",
            Self::PinnedFifo => "pinned-fifo",
        })
    }
}

impl Placement {
    /// Whether threads have a real-time priority.
    pub(crate) fn is_fifo(self) -> bool {
        matches!(self, Self::Fifo | Self::PinnedFifo)
    }

    /// Whether each process has one core.
    pub(crate) fn is_pinned(self) -> bool {
        matches!(self, Self::Pinned | Self::PinnedFifo)
    }
}

/// Applies to this thread, and to all that it starts from now on.
pub(crate) fn apply(fifo: Option<u8>, core: Option<usize>) -> Result<(), Failure> {
    if let Some(core) = core {
        // SAFETY: all bits zero is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        if core >= libc::CPU_SETSIZE as usize {
            return Err(Failure::Zenoh(format!("core {core} is beyond what the kernel can name")));
        }
        // SAFETY: the core lies within the set.
        unsafe { libc::CPU_SET(core, &mut set) };
        // SAFETY: pointer and length are those of the set on this stack.
        if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
            return Err(Failure::system("the core was refused"));
        }
    }
    if let Some(priority) = fifo {
        let param = libc::sched_param { sched_priority: priority.into() };
        // SAFETY: the pointer is to a parameter on this stack.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } != 0 {
            return Err(Failure::system(
                "SCHED_FIFO was refused (root, or an rtprio limit, is needed)",
            ));
        }
    }
    Ok(())
}
