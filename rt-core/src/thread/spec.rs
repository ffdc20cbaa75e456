//! What is asked of a thread.

use std::fmt;

use crate::topology::CoreId;

/// Stack of a thread unless the specification says otherwise: 128 KiB. With locked memory every
/// byte of it is resident, so a default of 8 MiB would be a waste that shows.
pub const DEFAULT_STACK_BYTES: usize = 128 * 1024;

/// The smallest stack that a thread is started on: 64 KiB.
pub const MIN_STACK_BYTES: usize = 64 * 1024;

/// A real-time priority, 1 (lowest) to 99 (highest).
///
/// 99 is shared with the kernel's own migration and watchdog threads: stay below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Priority(u8);

/// A number that is not a real-time priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} is not a real-time priority; give a number from 1 (lowest) to 99 (highest)")]
pub struct PriorityError {
    /// The number given.
    pub got: u8,
}

impl Priority {
    /// The lowest real-time priority.
    pub const MIN: Self = Self(1);
    /// The highest real-time priority.
    pub const MAX: Self = Self(99);

    /// Priority `value`, or an error when it is not within 1..=99.
    pub const fn new(value: u8) -> Result<Self, PriorityError> {
        if value >= Self::MIN.0 && value <= Self::MAX.0 {
            Ok(Self(value))
        } else {
            Err(PriorityError { got: value })
        }
    }

    /// The kernel's number, 1..=99.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The scheduling policy asked for (sched(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The normal time-sharing scheduler.
    #[default]
    Other,
    /// First in, first out, at a real-time priority: runs until it waits.
    Fifo(Priority),
    /// Below every normal thread, whatever its nice value: runs when the core has nothing else to do.
    Idle,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => write!(f, "SCHED_OTHER"),
            Self::Fifo(priority) => write!(f, "SCHED_FIFO {priority}"),
            Self::Idle => write!(f, "SCHED_IDLE"),
        }
    }
}

/// What a refused setting means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strictness {
    /// The start fails, with every refusal and its fix: for production.
    Require,
    /// The thread runs, and the refusals are handed back to be shown: for development.
    Report,
}

/// What a thread should be. [`ThreadSpec::new`] gives a normal, unpinned thread that reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSpec {
    /// The name that `top -H` and `ps -L` show; the kernel keeps the first 15 bytes.
    pub name: String,
    /// The core to pin to; `None` leaves the affinity as inherited from the starting thread.
    pub core: Option<CoreId>,
    /// Scheduling policy and priority.
    pub policy: Policy,
    /// Stack size in bytes, all of it pre-faulted; at least [`MIN_STACK_BYTES`].
    pub stack_bytes: usize,
    /// Whether a refused setting ends the start.
    pub strictness: Strictness,
}

impl ThreadSpec {
    /// A thread of the normal scheduler on any core, with the default stack, that reports refusals.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            core: None,
            policy: Policy::Other,
            stack_bytes: DEFAULT_STACK_BYTES,
            strictness: Strictness::Report,
        }
    }

    /// Pins the thread to `core`.
    #[must_use]
    pub fn core(mut self, core: CoreId) -> Self {
        self.core = Some(core);
        self
    }

    /// Runs the thread under `policy`.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Runs the thread under `SCHED_FIFO` at `priority`.
    #[must_use]
    pub fn fifo(self, priority: Priority) -> Self {
        self.policy(Policy::Fifo(priority))
    }

    /// Gives the thread a stack of `bytes`.
    #[must_use]
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Says what a refused setting means.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }
}
