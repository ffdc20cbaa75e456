//! A loop that runs, and how it went.

use std::fmt;

use sinew_rt::clock::Nanos;
use sinew_rt::thread::{Applied, RtThread};

use super::{LoopError, LoopHandle, Status};
use crate::safety::RearmToken;

/// How a loop went. The distributions are on the panel.
#[derive(Clone, Debug)]
pub struct Report {
    /// The loop.
    pub name: String,
    /// Cycles that ran.
    pub cycles: u64,
    /// Periods that were missed and skipped.
    pub skipped: u64,
    /// Panics of the safe-stop path: each left the outputs as they were.
    pub safe_stop_panics: u64,
    /// The latest wake-up.
    pub wake_up_max: Nanos,
    /// How long the safe-stop path took in its self-test.
    pub self_test: Nanos,
    /// What it may take.
    pub safe_stop_budget: Nanos,
    /// Where the loop stood when it ended: idle, or in the safe stop that nobody left.
    pub status: Status,
    /// What the kernel granted.
    pub applied: Applied,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cycles, skipped, wake_up_max, status, .. } = self;
        write!(
            f,
            "loop {name}: {cycles} cycles, {skipped} skipped, latest wake-up {wake_up_max}, \
             {} safe stops, ended in state {}",
            status.stops, status.state
        )?;
        if let Some(cause) = status.cause {
            write!(f, " ({cause})")?;
        }
        if self.safe_stop_panics > 0 {
            write!(f, "; THE SAFE-STOP PATH PANICKED {} times", self.safe_stop_panics)?;
        }
        if self.self_test > self.safe_stop_budget {
            let (took, budget) = (self.self_test, self.safe_stop_budget);
            write!(f, "; safe-stop self-test took {took}, budget {budget}")?;
        }
        if let Some(reason) = self.applied.not_real_time() {
            write!(f, "; NOT REAL-TIME: {reason}")?;
        }
        Ok(())
    }
}

/// What the loop's thread leaves: a report that lacks what the kernel granted.
pub(super) type Finish = Box<dyn FnOnce(Applied) -> Report + Send>;

/// A loop on its own thread. Dropping it stops the loop and waits for its thread.
#[derive(Debug)]
pub struct RunningLoop {
    pub(super) handle: LoopHandle,
    pub(super) name: String,
    pub(super) thread: Option<RtThread<Result<Finish, LoopError>>>,
}

impl RunningLoop {
    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Where the loop stands. Wait-free.
    #[must_use]
    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// Hands the loop the permission to leave a safe stop; see [`LoopHandle::rearm`].
    pub fn rearm(&self, token: RearmToken) {
        self.handle.rearm(token);
    }

    /// What the kernel granted.
    #[must_use]
    pub fn applied(&self) -> Option<&Applied> {
        self.thread.as_ref().map(RtThread::applied)
    }

    /// Stops the loop and waits for its end.
    ///
    /// # Errors
    /// When the thread ended otherwise.
    pub fn stop(self) -> Result<Report, LoopError> {
        self.handle.stop();
        self.join()
    }

    /// Waits for the loop's end, which the body or a handle has to ask for.
    ///
    /// # Errors
    /// When the thread ended otherwise.
    pub fn join(mut self) -> Result<Report, LoopError> {
        let thread = self.thread.take().expect("only `join` and `drop` take the thread");
        let applied = thread.applied().clone();
        let name = self.name.clone();
        let finish = thread.join().map_err(|source| LoopError::Thread { name, source })??;
        Ok(finish(applied))
    }
}

impl Drop for RunningLoop {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.handle.stop();
        // Whoever drops a loop instead of joining it has no use for its report.
        drop(thread.join());
    }
}
