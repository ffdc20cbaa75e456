//! What the user's code is called with, and what it has to provide.

use sinew_rt::clock::Nanos;

use crate::input::{Freshness, Input, Reading, Source, Starved};
use crate::safety::State;

/// One cycle of a loop, as its body sees it. Every method is wait-free.
#[derive(Debug)]
pub struct Cycle {
    pub(super) tick: u64,
    pub(super) due: Nanos,
    pub(super) now: Nanos,
    pub(super) period: Nanos,
    pub(super) skipped: u64,
    pub(super) state: State,
    pub(super) inputs: Option<Freshness>,
    /// The worst of the inputs whose silence began, or grew worse, in this cycle.
    pub(super) starved: Option<Starved>,
    pub(super) tripped: bool,
    pub(super) stop: bool,
}

impl Cycle {
    /// The number of this cycle, from 1. Skipped periods are not counted.
    #[must_use]
    pub const fn tick(&self) -> u64 {
        self.tick
    }

    /// When this cycle began: the same instant throughout, so that what a body computes depends on
    /// its inputs alone.
    #[must_use]
    pub const fn now(&self) -> Nanos {
        self.now
    }

    /// When this cycle should have begun.
    #[must_use]
    pub const fn due(&self) -> Nanos {
        self.due
    }

    /// The loop's period.
    #[must_use]
    pub const fn period(&self) -> Nanos {
        self.period
    }

    /// How many periods were missed and skipped right before this cycle: time has advanced by
    /// `period · (1 + skipped)` since the last one.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The loop's safety state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Reads `input`, and lets the loop know how fresh it was: stale degrades, lost stops.
    #[inline]
    pub fn read<S: Source>(&mut self, input: &mut Input<S>) -> Reading<S::Value> {
        let (reading, freshness) = input.read_and_judge(self.now);
        self.inputs = self.inputs.max(Some(freshness));
        if let Some(starved) = input.starved(self.now, &reading, freshness)
            && self.starved.is_none_or(|worst| worst.over() < starved.over())
        {
            self.starved = Some(starved);
        }
        reading
    }

    /// Asks for safe stop: the body saw something that must not go on (a limit switch, a drive that
    /// faulted). The safe-stop path runs within this cycle. Called from the safe-stop path itself,
    /// it holds off a re-arm.
    pub const fn trip(&mut self) {
        self.tripped = true;
    }

    /// Asks the loop to end after this cycle, with outputs made safe.
    pub const fn stop(&mut self) {
        self.stop = true;
    }
}

/// What a loop runs. The methods are called on the loop's thread and must neither block, lock,
/// allocate nor run unbounded. A panic in any of them is a safe stop.
///
/// A closure serves as a body whose safe-stop path shares no state with it: see
/// [`ControlLoop::on_safe_stop`](super::ControlLoop::on_safe_stop).
pub trait LoopBody {
    /// One cycle of motion: read inputs, compute, command. Called while running or degraded.
    fn cycle(&mut self, cx: &mut Cycle);

    /// Called once each time the loop degrades, before the next use of
    /// [`cycle`](Self::cycle), which goes on being called: slow down, hold the position.
    fn degraded(&mut self, _cx: &mut Cycle) {}

    /// Puts the outputs into their safe state. Called once at start-up as a self-test, in the cycle
    /// in which safe stop is entered, in every cycle until the re-arm (so that state can still be
    /// published), and when the loop ends. It has a budget of its own and must not depend on
    /// anything that can be missing.
    fn safe_stop(&mut self, cx: &mut Cycle);
}
