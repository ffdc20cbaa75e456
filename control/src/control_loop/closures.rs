//! Loops whose body is written as closures.

use sinew_rt::panel::Panel;

use super::running::{Report, RunningLoop};
use super::{ControlLoop, Cycle, LoopBody, LoopError, LoopHandle};

/// A loop with its closures, all but the cycle itself.
#[derive(Debug)]
pub struct ClosureLoop<D, S> {
    pub(super) control_loop: ControlLoop,
    pub(super) degraded: D,
    pub(super) safe_stop: S,
}

impl<D: FnMut(&mut Cycle), S: FnMut(&mut Cycle)> ClosureLoop<D, S> {
    /// What to do once each time the loop degrades; see [`LoopBody::degraded`].
    #[must_use]
    pub fn on_degrade<F: FnMut(&mut Cycle)>(self, degraded: F) -> ClosureLoop<F, S> {
        let Self { control_loop, safe_stop, .. } = self;
        ClosureLoop { control_loop, degraded, safe_stop }
    }

    /// A handle to the loop, for other threads; it works before the start, too.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        self.control_loop.handle()
    }

    /// Runs `cycle` on the calling thread; see [`ControlLoop::run_body`].
    ///
    /// # Errors
    /// [`LoopError`], before the first cycle.
    pub fn run(self, panel: &Panel, cycle: impl FnMut(&mut Cycle)) -> Result<Report, LoopError> {
        let Self { control_loop, degraded, safe_stop } = self;
        control_loop.run_body(panel, Closures { cycle, degraded, safe_stop })
    }

    /// Runs `cycle` on a thread of its own; see [`ControlLoop::spawn_body`].
    ///
    /// # Errors
    /// [`LoopError`]; no thread is left behind.
    pub fn spawn(
        self,
        panel: &Panel,
        cycle: impl FnMut(&mut Cycle) + Send + 'static,
    ) -> Result<RunningLoop, LoopError>
    where
        D: Send + 'static,
        S: Send + 'static,
    {
        let Self { control_loop, degraded, safe_stop } = self;
        control_loop.spawn_body(panel, Closures { cycle, degraded, safe_stop })
    }
}

/// A body from closures.
#[derive(Debug)]
struct Closures<C, D, S> {
    cycle: C,
    degraded: D,
    safe_stop: S,
}

impl<C, D, S> LoopBody for Closures<C, D, S>
where
    C: FnMut(&mut Cycle),
    D: FnMut(&mut Cycle),
    S: FnMut(&mut Cycle),
{
    fn cycle(&mut self, cx: &mut Cycle) {
        (self.cycle)(cx);
    }

    fn degraded(&mut self, cx: &mut Cycle) {
        (self.degraded)(cx);
    }

    fn safe_stop(&mut self, cx: &mut Cycle) {
        (self.safe_stop)(cx);
    }
}
