//! One cycle after another: the loop without its thread, on any clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sinew_rt::clock::{self, Clock, MonotonicClock, Nanos};
use sinew_rt::guard::{self, Execution, Guard};
use sinew_rt::health::{Health, Seen};
use sinew_rt::ladder::Level;
use sinew_rt::lane;
use sinew_rt::panel::{Counter, Gauge, Recorder};

use super::cycle::{Cycle, LoopBody};
use super::handle::Shared;
use crate::input::Freshness;
use crate::safety::{Event, RearmToken, Safety, State};
use crate::schedule::Schedule;

/// How long the permission to re-arm waits for what forbids it to go away.
const REARM_PATIENCE: Nanos = Nanos::from_secs(1);

/// A clock that can be waited for.
pub(super) trait Timer: Clock {
    /// Waits until shortly before `due`, on a core that others may use meanwhile.
    fn sleep_towards(&self, due: Nanos);

    /// Waits for the rest, and returns the instant at which it ended: `due` or later.
    fn arrive(&self, due: Nanos) -> Nanos;
}

/// The kernel's clock: sleep, then spin for the last `spin`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelTimer {
    pub(super) spin: Nanos,
}

impl Clock for KernelTimer {
    #[inline]
    fn now(&self) -> Nanos {
        MonotonicClock.now()
    }
}

impl Timer for KernelTimer {
    fn sleep_towards(&self, due: Nanos) {
        clock::sleep_until(due - self.spin);
    }

    /// Bounded by `spin`: the sleep before it ended at `due - spin` or later.
    #[inline]
    fn arrive(&self, due: Nanos) -> Nanos {
        loop {
            let now = self.now();
            if now >= due {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

/// What the loop shows on the panel besides its two guards.
#[derive(Debug)]
pub(super) struct Instruments {
    pub(super) wake_up: Recorder,
    pub(super) skipped: Counter,
    pub(super) safe_stops: Counter,
    pub(super) safe_stop_panics: Counter,
    pub(super) safety: Gauge,
    pub(super) stop_cause: Gauge,
}

/// A panic that happened where it could be caught; its message has gone to the panic hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// A re-arm that was authorised and waits for its conditions.
#[derive(Debug)]
struct PendingRearm {
    token: RearmToken,
    until: Nanos,
}

/// What an engine is made of.
#[derive(Debug)]
pub(super) struct Parts<B> {
    pub(super) body: B,
    pub(super) period: Nanos,
    pub(super) hard_limit: Nanos,
    /// Whether a cycle beyond the hard limit stops the loop, or is left to the guard.
    pub(super) stop_on_hang: bool,
    pub(super) guard: Guard,
    pub(super) stop_guard: Guard,
    pub(super) health: Arc<Health>,
    pub(super) instruments: Instruments,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Engine<B> {
    pub(super) parts: Parts<B>,
    pub(super) safety: Safety,
    /// What the safety states have heard of the health.
    seen: Seen,
    pub(super) tick: u64,
    rearm: Option<PendingRearm>,
    /// Something in the safe-stop path said that motion must not begin.
    unsafe_to_move: bool,
    degraded_told: bool,
}

impl<B: LoopBody> Engine<B> {
    pub(super) fn new(parts: Parts<B>) -> Self {
        Self {
            parts,
            safety: Safety::new(),
            seen: Seen::default(),
            tick: 0,
            rearm: None,
            unsafe_to_move: false,
            degraded_told: false,
        }
    }

    /// Runs the safe-stop path once, and says how long it took.
    pub(super) fn self_test(&mut self, timer: &impl Timer) -> Result<Nanos, Panicked> {
        let start = timer.now();
        self.make_safe(timer, &mut self.context(start, start, 0))?;
        Ok(timer.now() - start)
    }

    /// Cycles until somebody asks for the end.
    pub(super) fn run(&mut self, timer: &impl Timer) {
        self.apply(Event::Start);
        let mut now = timer.now();
        let mut schedule = Schedule::new(now + self.parts.period, self.parts.period);
        let mut skipped = 0;
        while !self.parts.shared.is_stopping() {
            let due = schedule.due();
            guard::before_park(now);
            timer.sleep_towards(due);
            guard::after_park(timer.now());
            let woke = timer.arrive(due);
            if lane::as_lane(|| self.cycle(timer, due, woke, skipped)) {
                break;
            }
            now = timer.now();
            skipped = schedule.advance(now);
            self.parts.instruments.skipped.add(skipped);
        }
        self.apply(Event::StopRequested);
        let now = timer.now();
        // A panic here is counted and reported like any other of the safe-stop path.
        let _counted = self.make_safe(timer, &mut self.context(now, now, 0));
    }

    /// One cycle; `true` when the body asks for the end.
    fn cycle(&mut self, timer: &impl Timer, due: Nanos, woke: Nanos, skipped: u64) -> bool {
        self.tick += 1;
        self.parts.instruments.wake_up.record(woke - due, woke);
        let start = timer.now();
        self.parts.guard.enter(start);
        if woke - due > self.parts.hard_limit && self.parts.stop_on_hang {
            self.apply(Event::Hang);
        }
        self.follow_health();
        self.follow_rearm(woke);
        let mut cx = self.context(due, woke, skipped);
        let moving = self.safety.state().may_move();
        if moving {
            self.move_on(&mut cx);
        }
        let end = timer.now();
        // Cycles without the body would fill histogram and ladder with executions of nothing.
        let execution = if moving { Execution::Worked { released: due } } else { Execution::Idle };
        self.parts.guard.exit(end, execution);
        if end - start > self.parts.hard_limit && self.parts.stop_on_hang {
            self.apply(Event::Hang);
        }
        self.follow_health();
        // Whatever it was that stopped the loop, outputs are safe before this cycle ends.
        if !self.safety.state().may_move() {
            cx.state = self.safety.state();
            let outcome = self.make_safe(timer, &mut cx);
            self.unsafe_to_move =
                outcome.is_err() || cx.tripped || cx.inputs == Some(Freshness::Lost);
        }
        if let Some(starved) = cx.starved {
            self.parts.guard.starved(cx.now, starved.age, starved.may_be);
        }
        cx.stop
    }

    /// The body's part of a cycle, and what follows from it.
    fn move_on(&mut self, cx: &mut Cycle) {
        let Self { parts: Parts { body, .. }, degraded_told, .. } = self;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if cx.state.is_degraded() && !std::mem::replace(degraded_told, true) {
                body.degraded(cx);
            }
            body.cycle(cx);
        }));
        // First: what else the cycle came to is nothing beside it.
        if outcome.is_err() {
            self.parts.health.set_panicked();
            self.apply(Event::Panic);
        }
        match cx.inputs {
            Some(Freshness::Fresh) => self.apply(Event::InputFresh),
            Some(Freshness::Stale) => self.apply(Event::InputStale),
            Some(Freshness::Lost) => self.apply(Event::InputLost),
            None => {}
        }
        if cx.tripped {
            self.apply(Event::Tripped);
        }
        self.degraded_told &= self.safety.state().is_degraded();
        (cx.tripped, cx.inputs) = (false, None);
    }

    /// The safe-stop path under its own guard.
    fn make_safe(&mut self, timer: &impl Timer, cx: &mut Cycle) -> Result<(), Panicked> {
        let start = timer.now();
        self.parts.stop_guard.enter(start);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.parts.body.safe_stop(cx)));
        self.parts.stop_guard.exit(timer.now(), Execution::Worked { released: start });
        outcome.map_err(|_| {
            self.parts.instruments.safe_stop_panics.increment();
            Panicked
        })
    }

    /// Tells the safety states what the guards of this loop, and of all that share its health,
    /// have come to.
    pub(super) fn follow_health(&mut self) {
        let seen = self.parts.health.seen();
        let before = std::mem::replace(&mut self.seen, seen);
        // News even where the latch is closed already: it can still get a worse reason.
        if seen.panicked_since(before) {
            self.apply(Event::Panic);
        } else if seen.hung_since(before) {
            self.apply(Event::Hang);
        } else if seen.level() != before.level() {
            self.apply(match seen.level() {
                Level::SafeStop => Event::TimingSafeStop,
                Level::Degraded => Event::TimingDegraded,
                Level::Late if before.level() == Level::Ok => Event::TimingLate,
                Level::Late | Level::Ok => Event::TimingRecovered,
            });
        }
    }

    /// Takes a permission that arrived, and uses one that waits once nothing forbids it.
    pub(super) fn follow_rearm(&mut self, now: Nanos) {
        if let Some(token) = self.parts.shared.take_rearm() {
            let meant =
                self.safety.state() == State::SafeStop && token.stop() == self.safety.stops();
            if meant {
                // What happened since `follow_health` looked has no number yet, and nobody's permission.
                self.parts.health.rearm(self.seen);
                self.rearm = Some(PendingRearm { token, until: now + REARM_PATIENCE });
            } else {
                self.apply(Event::Rearm(None));
            }
        }
        let Some(pending) = self.rearm.take() else { return };
        if self.seen.level() != Level::SafeStop && !self.unsafe_to_move {
            self.apply(Event::Rearm(Some(pending.token)));
            if self.seen.level() == Level::Degraded {
                self.apply(Event::TimingDegraded);
            }
        } else if now < pending.until {
            self.rearm = Some(pending);
        }
    }

    fn apply(&mut self, event: Event) {
        let stops = self.safety.stops();
        let before = self.safety.apply(event);
        let state = self.safety.state();
        if before == state && self.safety.stops() == stops {
            return;
        }
        if state == State::SafeStop {
            self.parts.instruments.safe_stops.increment();
        }
        let Parts { instruments, shared, .. } = &self.parts;
        instruments.safety.set(i64::from(state.code()));
        instruments.stop_cause.set(self.safety.cause().map_or(0, |c| i64::from(c.code())));
        shared.show(&self.safety);
    }

    fn context(&self, due: Nanos, now: Nanos, skipped: u64) -> Cycle {
        Cycle {
            tick: self.tick,
            due,
            now,
            period: self.parts.period,
            skipped,
            state: self.safety.state(),
            inputs: None,
            starved: None,
            tripped: false,
            stop: false,
        }
    }
}
