//! Threads that prove what the kernel granted: apply, read back, report each difference.
//!
//! Most runtimes ask for `SCHED_FIFO`, ignore the error and go on. Here every setting is read back
//! from the kernel after it was made, and each difference is a [`Refusal`] with the command that
//! removes its cause. [`Strictness`] says whether a difference ends the start or is only reported.
//!
//! A thread is not real-time until its settings are made: it starts with the scheduling of the
//! thread that made it. Behind a `SCHED_FIFO` thread that already spins on the same core it
//! may not run at all, so start all threads first, and let none of them spin before the last
//! [`spawn`] has returned.

mod explain;
pub(crate) mod setup;
mod spec;

use std::any::Any;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub use setup::{Applied, Effective, Scheduling, SchedulingError, scheduling_of_current};
pub use spec::{
    DEFAULT_STACK_BYTES, MIN_STACK_BYTES, Policy, Priority, PriorityError, Strictness, ThreadSpec,
};

use crate::topology::{CoreId, CoreList};

/// How long [`spawn`] waits for a new thread to make its settings. Only a thread that never gets
/// to run (behind a spinning real-time thread of the same or a higher priority) takes this long.
pub const SETUP_LIMIT: Duration = Duration::from_secs(10);

/// One setting that the kernel did not grant as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The setting: `scheduling`, `affinity`, `timer slack`, ...
    pub what: String,
    /// What was asked for.
    pub wanted: String,
    /// What the kernel says is in force.
    pub got: String,
    /// Why, as far as the evidence goes.
    pub reason: String,
    /// A command or a line of configuration that removes the cause.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, wanted, got, reason, fix } = self;
        write!(f, "{what}: wanted {wanted}, got {got}: {reason}; fix: {fix}")
    }
}

/// Why a thread could not be started, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The name cannot be given to a thread.
    #[error(
        "thread name {name:?} is empty or contains a NUL byte; give it a name of 1 to 15 bytes"
    )]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The stack is too small to start a thread on.
    #[error("thread {name}: a stack of {got} bytes is too small; it needs at least {need}")]
    StackTooSmall {
        /// Name of the thread.
        name: String,
        /// Bytes asked for.
        got: usize,
        /// The least number of bytes, [`MIN_STACK_BYTES`].
        need: usize,
    },
    /// The machine has no such core.
    #[error("thread {name}: core {core} does not exist; this machine has cores {possible}")]
    NoSuchCore {
        /// Name of the thread.
        name: String,
        /// The core asked for.
        core: CoreId,
        /// The cores that could exist.
        possible: CoreList,
    },
    /// The core exists and is switched off.
    #[error(
        "thread {name}: core {core} is offline (online: {online}); fix: echo 1 > /sys/devices/system/cpu/cpu{core}/online"
    )]
    CoreOffline {
        /// Name of the thread.
        name: String,
        /// The core asked for.
        core: CoreId,
        /// The cores that are online.
        online: CoreList,
    },
    /// The kernel did not make the thread.
    #[error(
        "thread {name} could not be made: {source}; fix: raise the limits on tasks and locked memory (ulimit -u, ulimit -l)"
    )]
    NotMade {
        /// Name of the thread.
        name: String,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// The thread did not get to run within [`SETUP_LIMIT`].
    #[error(
        "thread {name} did not get to run within {} s; fix: free its core of spinning real-time threads, or start it before they spin",
        SETUP_LIMIT.as_secs()
    )]
    Starved {
        /// Name of the thread.
        name: String,
    },
    /// [`Strictness::Require`], and at least one setting was refused.
    #[error("thread {name} was not granted what it requires: {}", list(refused))]
    Refused {
        /// Name of the thread.
        name: String,
        /// Every setting that differs, with the fix.
        refused: Vec<Refusal>,
    },
    /// The kernel's answer could not be read back.
    #[error("thread {name}: {what} could not be read back: {source}")]
    ReadBack {
        /// Name of the thread.
        name: String,
        /// What was being read.
        what: &'static str,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// The closure panicked.
    #[error("thread {name} panicked: {message}")]
    Panicked {
        /// Name of the thread.
        name: String,
        /// The panic's message.
        message: String,
    },
}

fn list(refused: &[Refusal]) -> String {
    refused.iter().map(Refusal::to_string).collect::<Vec<_>>().join(" | ")
}

/// A running thread whose settings were read back. Dropping it detaches the thread: join it.
#[must_use = "a thread that nobody joins can fail unseen"]
pub struct RtThread<T> {
    applied: Applied,
    handle: JoinHandle<Option<T>>,
}

impl<T> RtThread<T> {
    /// What was asked for, what the kernel granted, and what it refused.
    #[must_use]
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The kernel's thread id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.applied.effective.tid
    }

    /// Whether the closure has returned or panicked.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the closure and gives its result, or [`ThreadError::Panicked`] with the message.
    pub fn join(self) -> Result<T, ThreadError> {
        let name = self.applied.requested.name;
        match self.handle.join() {
            Ok(Some(value)) => Ok(value),
            // The closure is skipped only when spawn fails, and then there is no RtThread.
            Ok(None) => Err(ThreadError::Panicked { name, message: "never ran".to_owned() }),
            Err(payload) => Err(ThreadError::Panicked { name, message: panic_message(&*payload) }),
        }
    }
}

impl<T> fmt::Debug for RtThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtThread").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// The message of a panic, for whoever caught it.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// Starts a thread, and returns once it has made **and read back** its settings: signals blocked,
/// name, stack pre-faulted, scheduling, affinity, timer slack. Only then does `body` run.
///
/// With [`Strictness::Require`] any [`Refusal`] makes this fail, and `body` never runs. The core
/// is checked against the machine before a thread is made. Allocates; call before lanes run.
///
/// ```
/// use sinew_rt::thread::{Policy, Priority, Strictness, ThreadSpec, spawn};
///
/// let spec = ThreadSpec::new("worker").fifo(Priority::new(80)?).strictness(Strictness::Report);
/// let thread = spawn(spec, || 6 * 7)?;
/// for refusal in &thread.applied().refused {
///     eprintln!("{refusal}");
/// }
/// assert_eq!(thread.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn spawn<T, F>(spec: ThreadSpec, body: F) -> Result<RtThread<T>, ThreadError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    setup::check(&spec)?;
    let name = spec.name.clone();
    let strictness = spec.strictness;
    // A rendezvous: either this thread has taken the answer, or the new one learns that nobody
    // waits for it any more and does not run the closure.
    let (answer, answered) = sync_channel::<Result<Applied, ThreadError>>(0);
    let handle = std::thread::Builder::new()
        .name(setup::kernel_name(&spec.name).to_owned())
        .stack_size(spec.stack_bytes)
        .spawn(move || {
            let applied = setup::apply(spec);
            let run = match &applied {
                Ok(applied) => strictness == Strictness::Report || applied.refused.is_empty(),
                Err(_) => false,
            };
            let taken = answer.send(applied).is_ok();
            drop(answer);
            (taken && run).then(body)
        })
        .map_err(|source| ThreadError::NotMade { name: name.clone(), source })?;
    match answered.recv_timeout(SETUP_LIMIT) {
        Ok(Ok(applied)) if strictness == Strictness::Require && !applied.refused.is_empty() => {
            join_silent(handle, name.clone())?;
            Err(ThreadError::Refused { name, refused: applied.refused })
        }
        Ok(Ok(applied)) => Ok(RtThread { applied, handle }),
        Ok(Err(error)) => {
            join_silent(handle, name)?;
            Err(error)
        }
        // The thread cannot be killed; it ends by itself, without running the closure, as soon
        // as it gets to run.
        Err(RecvTimeoutError::Timeout) => Err(ThreadError::Starved { name }),
        Err(RecvTimeoutError::Disconnected) => {
            join_silent(handle, name.clone())?;
            Err(ThreadError::Panicked { name, message: "ended during its set-up".to_owned() })
        }
    }
}

fn join_silent<T>(handle: JoinHandle<Option<T>>, name: String) -> Result<(), ThreadError> {
    handle
        .join()
        .map(drop)
        .map_err(|payload| ThreadError::Panicked { name, message: panic_message(&*payload) })
}

/// Makes the settings of `spec` on the calling thread, and reads them back.
///
/// With [`Strictness::Require`] a refusal is an error; what the kernel did grant stays in force.
/// The stack is pre-faulted for `stack_bytes` below the present depth, as far as it reaches.
/// Allocates; call before real-time work begins.
pub fn apply_to_current(spec: &ThreadSpec) -> Result<Applied, ThreadError> {
    setup::check(spec)?;
    setup::set_name(&spec.name);
    let applied = setup::apply(spec.clone())?;
    if spec.strictness == Strictness::Require && !applied.refused.is_empty() {
        return Err(ThreadError::Refused { name: spec.name.clone(), refused: applied.refused });
    }
    Ok(applied)
}
