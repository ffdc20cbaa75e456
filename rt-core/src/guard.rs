//! The WCET guard: a budget on every execution of a stage or loop, a histogram of how long it took,
//! and a verdict whenever it took too long.
//!
//! The caller passes the instants in, since a lane reads the clock once per stage boundary and the
//! end of one stage is the start of the next. An execution within its budget costs no system call:
//! stores to the panel and two histogram updates.
//!
//! # Whose fault it was
//!
//! On a miss the guard reads the thread's CPU time and its context switches (two system calls, about
//! 0.5 µs) and compares them with a **baseline** that all guards on the thread share. Reading them on
//! every execution would cost ten times the guard itself, so the baseline is taken
//!
//! - after every miss,
//! - when the lane is about to sleep: [`before_park`] reads, [`after_park`] only moves the wall-clock
//!   anchor past the sleep, so that the wake-up path pays nothing; a sleep without `before_park`
//!   makes the baseline stale,
//! - by [`keep_baseline_fresh`], which a lane that never parks calls on idle polls.
//!
//! Since then the thread spent some time off the CPU: elapsed minus CPU time. Let *over* be the part
//! of the execution beyond its budget.
//!
//! | evidence | verdict |
//! |---|---|
//! | off-CPU time < *over*: on the CPU it would still have missed | `OwnOverrun` |
//! | off-CPU time that can only have passed inside this execution ≥ *over* | `NotOnCpu` |
//! | otherwise, or no baseline | `Unknown` |
//!
//! What may have passed *before* this execution is at most the age of the baseline at its start, and
//! at most the longest other execution since then for every context switch: a longer pause inside
//! any of them would have shown as that execution's duration.
//!
//! # The ladder
//!
//! Executions with work, and idle ones that overran, go up and down a [`Ladder`]; idle ones within
//! budget are not counted, for a spinning lane polls a million times a second and would drown every
//! "k in n". The same holds for the histograms.

use std::cell::Cell;
use std::sync::Arc;

use crate::clock::{self, Nanos};
use crate::health::Health;
use crate::ladder::{Ladder, LadderConfig, LadderError, Level};
use crate::panel::{Cause, Probe, Trip};

/// What one execution may take, and what happens when it takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSpec {
    /// Longer executions are overruns.
    pub budget: Nanos,
    /// Whoever is inside for longer than this hangs, says the [supervisor](crate::supervisor).
    pub hard_limit: Nanos,
    /// What overruns add up to.
    pub ladder: LadderConfig,
}

/// What an execution was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// Found nothing to do.
    Idle,
    /// Did work that was available since `released`.
    Worked {
        /// When the work became available.
        released: Nanos,
    },
}

/// Why a [`GuardSpec`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No execution could meet it.
    #[error("the budget is {budget}; use more than 0")]
    Budget {
        /// The budget.
        budget: Nanos,
    },
    /// A hang must be worse than an overrun.
    #[error("the hard limit of {hard_limit} is below the budget of {budget}; raise it")]
    HardLimit {
        /// The hard limit.
        hard_limit: Nanos,
        /// The budget.
        budget: Nanos,
    },
    /// The ladder makes no sense.
    #[error(transparent)]
    Ladder(#[from] LadderError),
}

/// The guard around one stage or loop. Owned by the thread that runs it.
#[derive(Debug)]
pub struct Guard {
    probe: Probe,
    ladder: Ladder,
    budget: Nanos,
    entered_at: Nanos,
    /// The level that panel and health know.
    shown: Level,
    /// Hangs that the ladder has heard of.
    hangs: u64,
    health: Option<Arc<Health>>,
    /// Re-arms of the health word that this guard has followed.
    rearms: u32,
}

impl Guard {
    /// A guard at [`Level::Ok`] that writes to `probe`. Allocates nothing; call before start.
    ///
    /// # Errors
    /// When the budget is not positive, the hard limit is below it, or the ladder is impossible.
    pub fn new(probe: Probe, spec: GuardSpec) -> Result<Self, GuardError> {
        let GuardSpec { budget, hard_limit, ladder } = spec;
        if budget <= Nanos::ZERO {
            return Err(GuardError::Budget { budget });
        }
        if hard_limit < budget {
            return Err(GuardError::HardLimit { hard_limit, budget });
        }
        let ladder = Ladder::new(ladder)?;
        probe.configure(budget, hard_limit, ladder.config().on_hang);
        let hangs = probe.hangs();
        let (entered_at, shown) = (Nanos::ZERO, Level::Ok);
        Ok(Self { probe, ladder, budget, entered_at, shown, hangs, health: None, rearms: 0 })
    }

    /// Adds this guard to the health of a node, and lets [`Health::rearm`] re-arm it.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        self.rearms = health.rearms();
        health.moved(Level::Ok, self.shown);
        self.health = Some(health);
        self
    }

    /// An execution begins. Wait-free.
    #[inline]
    pub fn enter(&mut self, now: Nanos) {
        self.entered_at = now;
        self.probe.enter(now);
    }

    /// The execution ended. Wait-free; after an overrun two system calls that do not block.
    #[inline]
    pub fn exit(&mut self, now: Nanos, execution: Execution) -> Level {
        self.probe.leave();
        let duration = now - self.entered_at;
        let release_latency = match execution {
            Execution::Worked { released } => {
                let latency = self.entered_at - released;
                self.probe.worked(duration, latency, now);
                latency
            }
            Execution::Idle => Nanos::ZERO,
        };
        if duration > self.budget {
            self.missed(now, duration, release_latency, execution);
        } else {
            note_execution(duration);
            if execution != Execution::Idle {
                self.ladder.clean();
            }
        }
        self.follow();
        self.ladder.level()
    }

    /// Runs `work` as one execution that is released now, reading the clock before and after.
    ///
    /// When `work` panics, the execution stays open: the panic is the caller's to catch, and the
    /// supervisor sees a stage that never came back.
    #[inline]
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> (T, Level) {
        let start = clock::now();
        self.enter(start);
        let result = work();
        let level = self.exit(clock::now(), Execution::Worked { released: start });
        (result, level)
    }

    /// The present level. Wait-free.
    #[inline]
    #[must_use]
    pub fn level(&self) -> Level {
        self.ladder.level()
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> Nanos {
        self.budget
    }

    /// The explicit re-arm: back to [`Level::Ok`] with an empty history. Wait-free.
    pub fn rearm(&mut self) {
        self.hangs = self.probe.hangs();
        self.probe.answered_hangs(self.hangs);
        self.ladder.rearm();
        self.probe.rearmed();
        self.show();
    }

    /// Does what others asked for since the last execution, and shows a level that changed.
    #[inline]
    fn follow(&mut self) {
        let rearms = self.health.as_ref().map_or(self.rearms, |health| health.rearms());
        let unchanged = self.hangs == self.probe.hangs() && self.rearms == rearms;
        if !unchanged || self.ladder.level() != self.shown {
            self.catch_up(rearms);
        }
    }

    #[cold]
    fn catch_up(&mut self, rearms: u32) {
        // The re-arm first: an execution that hung until now outlasts a re-arm that came meanwhile.
        if self.rearms != rearms {
            self.rearms = rearms;
            self.ladder.rearm();
            self.probe.rearmed();
        }
        let hangs = self.probe.hangs();
        if self.hangs != hangs {
            self.hangs = hangs;
            self.ladder.force(self.ladder.config().on_hang);
            self.probe.answered_hangs(hangs);
        }
        self.show();
    }

    fn show(&mut self) {
        let level = self.ladder.level();
        self.probe.show_level(level);
        if let Some(health) = &self.health {
            health.moved(self.shown, level);
        }
        self.shown = level;
    }

    #[cold]
    fn missed(&mut self, now: Nanos, duration: Nanos, release: Nanos, execution: Execution) {
        let level_after = self.ladder.overrun();
        let evidence = Evidence::gather(now);
        if execution == Execution::Idle {
            self.probe.idle_overran();
        }
        self.probe.tripped(&Trip {
            at: now,
            duration,
            budget: self.budget,
            release_latency: release,
            cause: evidence.map_or(Cause::Unknown, |e| e.cause(self.entered_at, now, self.budget)),
            level_after,
            cpu_time: evidence.map_or(Nanos::ZERO, |e| e.cpu_time),
            involuntary_switches: evidence.map_or(0, |e| e.involuntary_switches),
            voluntary_switches: evidence.map_or(0, |e| e.voluntary_switches),
        });
    }
}

impl Drop for Guard {
    /// Takes the guard out of the health word, except at [`Level::SafeStop`]: what stopped does not
    /// become healthy by being gone.
    fn drop(&mut self) {
        if let Some(health) = self.health.take().filter(|_| self.shown != Level::SafeStop) {
            health.moved(self.shown, Level::Ok);
        }
    }
}

/// What the kernel has counted for the calling thread so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_time: Nanos,
    involuntary_switches: u64,
    voluntary_switches: u64,
}

impl Usage {
    /// Two system calls, about 0.5 µs together; neither blocks.
    fn now() -> Self {
        // SAFETY: all-zero bytes are a valid `rusage`, which is plain integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is valid and writable for the call. RUSAGE_THREAD with a valid pointer
        // cannot fail (getrusage(2)); if it did, no switches would be reported.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        Self {
            cpu_time: clock::thread_cpu_time(),
            involuntary_switches: usage.ru_nivcsw.cast_unsigned(),
            voluntary_switches: usage.ru_nvcsw.cast_unsigned(),
        }
    }
}

/// What a later look at the counters is compared with.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    at: Nanos,
    usage: Usage,
    /// The lane sleeps, or slept without saying when it woke.
    stale: bool,
}

thread_local! {
    /// One per thread, for its counters are per thread. Plain data: no allocation, no destructor.
    static BASELINE: Cell<Option<Baseline>> = const { Cell::new(None) };
    /// The longest execution since the baseline that was within its budget.
    static LONGEST: Cell<Nanos> = const { Cell::new(Nanos::ZERO) };
}

#[inline]
fn note_execution(duration: Nanos) {
    LONGEST.with(|longest| {
        if duration > longest.get() {
            longest.set(duration);
        }
    });
}

fn set_baseline(at: Nanos, usage: Usage, stale: bool) {
    BASELINE.set(Some(Baseline { at, usage, stale }));
    LONGEST.set(Nanos::ZERO);
}

/// The lane is about to sleep: takes the baseline that [`after_park`] makes good. Two system calls
/// that do not block, at a moment when there is nothing else to do.
pub fn before_park() {
    set_baseline(Nanos::ZERO, Usage::now(), true);
}

/// The lane woke at `now`. Wait-free; without a [`before_park`] the baseline is forgotten, for it
/// could not tell sleep from pre-emption.
pub fn after_park(now: Nanos) {
    match BASELINE.get() {
        Some(Baseline { usage, stale: true, .. }) => set_baseline(now, usage, false),
        _ => BASELINE.set(None),
    }
}

/// Takes a new baseline when the last one is older than `max_age`; otherwise some nanoseconds. For
/// lanes that never park, on idle polls: every millisecond or so costs a twentieth of a per cent.
#[inline]
pub fn keep_baseline_fresh(now: Nanos, max_age: Nanos) {
    let fresh = BASELINE.get().is_some_and(|base| !base.stale && now - base.at <= max_age);
    if !fresh {
        set_baseline(now, Usage::now(), false);
    }
}

/// How the counters changed between the baseline and the end of an execution that overran.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    since: Nanos,
    longest: Nanos,
    cpu_time: Nanos,
    involuntary_switches: u64,
    voluntary_switches: u64,
}

impl Evidence {
    /// Reads the counters, compares them with the baseline and makes them the next baseline. `None`
    /// without a usable baseline.
    fn gather(now: Nanos) -> Option<Self> {
        let (base, longest) = (BASELINE.get(), LONGEST.get());
        let usage = Usage::now();
        set_baseline(now, usage, false);
        let base = base.filter(|base| !base.stale)?;
        Some(Self {
            since: base.at,
            longest,
            cpu_time: usage.cpu_time - base.usage.cpu_time,
            involuntary_switches: usage.involuntary_switches - base.usage.involuntary_switches,
            voluntary_switches: usage.voluntary_switches - base.usage.voluntary_switches,
        })
    }

    /// The verdict on an execution from `start` to `end`; the table in the module documentation.
    fn cause(&self, start: Nanos, end: Nanos, budget: Nanos) -> Cause {
        let over = (end - start) - budget;
        let off_cpu = (end - self.since) - self.cpu_time;
        if start < self.since {
            // The baseline was taken within the execution: it says nothing about its beginning.
            return Cause::Unknown;
        }
        if off_cpu < over {
            return Cause::OwnOverrun;
        }
        // A hypervisor or an interrupt takes the CPU without a switch; count it as one.
        let pauses = (self.involuntary_switches + self.voluntary_switches).max(1);
        let pauses = i64::try_from(pauses).unwrap_or(i64::MAX);
        // Too long to fit into earlier executions: at least one pause was in this one.
        let earlier_pauses = if off_cpu > self.longest * pauses { pauses - 1 } else { pauses };
        let before = (self.longest * earlier_pauses).min(start - self.since);
        if off_cpu - before >= over { Cause::NotOnCpu } else { Cause::Unknown }
    }
}
