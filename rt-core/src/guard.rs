//! The WCET guard: a budget on every execution of a stage or loop, a histogram of how long it took,
//! and a verdict whenever it took too long.
//!
//! The caller passes the instants in, since a lane reads the clock once per stage boundary and the
//! end of one stage is the start of the next. An execution within its budget costs no system call:
//! stores to the panel and two histogram updates.
//!
//! # Whose fault it was
//!
//! On a miss the guard reads the thread's CPU time, context switches and page faults (two system
//! calls, about 0.8 µs; a thread's first record asks for its id with a third) and compares them with a
//! **baseline** that all guards on the thread share.
//! Reading them on every execution would cost a hundred times the guard itself, so the baseline is
//! taken
//!
//! - after every miss,
//! - when the lane is about to sleep and has time: [`before_park`] reads where the lane has not been
//!   there for a while, and otherwise at one park in 128; [`after_park`] adds the sleep to those since
//!   the baseline, so that the wake-up path pays nothing; a sleep without `before_park` makes the
//!   baseline stale,
//! - by [`keep_baseline_fresh`], for a thread of one's own that never parks. Spinning lanes do not
//!   call it, since they make no system call but their own input and output: there the baseline is
//!   the last miss, and the first verdict after long quiet is `Unknown`.
//!
//! Since then the thread spent some time *off* the CPU: elapsed minus slept minus CPU time. Going to
//! sleep and waking take CPU time too, up to 50 µs a park (*slack* in all), and hide as much of the
//! time off the CPU. A park of up to 50 µs may have returned at once, and then was no switch. Let
//! *over* be the part of the execution beyond its budget. The first line that holds decides:
//!
//! | evidence | verdict |
//! |---|---|
//! | no baseline, or one from within the execution | `Unknown` |
//! | *off* + *slack* + the faults, in a bad case, < *over*: it would still have missed | `OwnOverrun` |
//! | the faults of this execution, in the best case, with the wait for major ones unless pre-empted, ≥ *over* or > a third of it all | `PageFault` |
//! | *off* that can only have passed inside this execution < *over* | `Unknown` |
//! | switches: involuntary ones alone | `Preempted` |
//! | switches: voluntary ones alone, beyond one for each park | `Blocked` |
//! | voluntary switches beyond one for each park that surely slept | `Unknown` |
//! | no switch, not in a virtual machine: interrupts | `Preempted` |
//! | no switch, in a virtual machine whose kernel does not take interrupts out of the CPU time | `Stolen` |
//! | otherwise | `Unknown` |
//!
//! How much *off* may have passed *before* this execution is bounded: by the age of the baseline at
//! its start; and, as far as that time was covered by guarded executions, by the longest of them for
//! every context switch, since a longer pause would have shown as a longer execution. Faults before it
//! took time before it. What a fault costs is measured once, at the first guard of a process.
//! All this rests on instants of CLOCK_MONOTONIC and on guards that are not nested; under a virtual
//! clock causes mean nothing.
//!
//! A hypervisor that does not tell its guest what it steals, and the firmware of the machine, take
//! time that the kernel counts as the thread's own: it comes out as `OwnOverrun`.
//!
//! An input that is late or absent is no overrun. Whoever reads it says so with [`Guard::starved`], as
//! control loops do.
//!
//! # Work that was released late
//!
//! A budget bounds what the code takes, and says nothing about when it began. With a
//! [deadline](Guard::with_deadline), which counts from the release, an execution that ends too late is
//! an overrun too. One that kept its budget then has the cause `LateRelease`: the thread was woken, or
//! the stage reached, too late.
//!
//! # The ladder
//!
//! Executions with work, and idle ones that overran, go up and down a [`Ladder`]; idle ones within
//! budget are not counted, for a spinning lane polls a million times a second and would drown every
//! "k in n". The same holds for the histograms.

mod baseline;
mod machine;
mod verdict;

use std::sync::Arc;

use crate::clock::{self, Nanos};
use crate::health::Health;
use crate::ladder::{Ladder, LadderConfig, LadderError, Level};
use crate::panel::{Cause, Change, Probe, Trip};

use baseline::note_execution;
pub use baseline::{after_park, before_park, keep_baseline_fresh};
use machine::Machine;

/// What one execution may take, and what happens when it takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSpec {
    /// Longer executions are overruns; for those that end late see [`Guard::with_deadline`].
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
    /// Then no execution could use up its budget.
    #[error("the deadline of {deadline} is below the budget of {budget}; raise it")]
    Deadline {
        /// The deadline.
        deadline: Nanos,
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
    /// From release to end; [`Nanos::MAX`] for none.
    deadline: Nanos,
    entered_at: Nanos,
    /// The end and the outcome of an execution whose figures are not written yet.
    left: Option<(Nanos, Execution)>,
    /// The level that panel and health know.
    shown: Level,
    /// Hangs that the ladder has heard of.
    hangs: u64,
    health: Option<Arc<Health>>,
    /// Re-arms of the health word that this guard has followed.
    rearms: u32,
    machine: &'static Machine,
}

impl Guard {
    /// A guard at [`Level::Ok`] that writes to `probe`. The first of a process finds out what page
    /// faults cost here, which takes a millisecond: call before start.
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
        Ok(Self {
            probe,
            ladder,
            budget,
            deadline: Nanos::MAX,
            entered_at: Nanos::ZERO,
            left: None,
            shown: Level::Ok,
            hangs,
            health: None,
            rearms: 0,
            machine: Machine::here(),
        })
    }

    /// Adds this guard to the health of a node, and lets [`Health::rearm`] re-arm it.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        self.rearms = health.rearms();
        health.moved(Level::Ok, self.shown);
        self.health = Some(health);
        self
    }

    /// Counts an execution with work as an overrun, too, when it ends later than this after the work
    /// was released. Without it only the budget counts.
    ///
    /// # Errors
    /// When it is below the budget.
    pub fn with_deadline(mut self, deadline: Nanos) -> Result<Self, GuardError> {
        let budget = self.budget;
        if deadline < budget {
            return Err(GuardError::Deadline { deadline, budget });
        }
        self.deadline = deadline;
        Ok(self)
    }

    /// An execution begins. Wait-free.
    #[inline]
    pub fn enter(&mut self, now: Nanos) {
        self.entered_at = now;
        self.probe.enter(now);
    }

    /// The execution ended. Wait-free; after an overrun two system calls that do not block, and one more
    /// at the first of a thread.
    #[inline]
    pub fn exit(&mut self, now: Nanos, execution: Execution) -> Level {
        self.leave(now, execution);
        self.settle()
    }

    /// The execution ended, as in [`exit`](Self::exit), but its figures are written by
    /// [`settle`](Self::settle), unless it overran. A lane has them written when its last stage is
    /// done: a message does not wait for the histograms of the stages behind it.
    #[inline]
    pub fn leave(&mut self, now: Nanos, execution: Execution) {
        self.probe.leave();
        self.left = Some((now, execution));
        if self.overran(now, execution) {
            self.settle();
        } else {
            note_execution(now - self.entered_at);
        }
    }

    /// Writes the figures of the execution that was left last, if that was not done. Wait-free.
    #[inline]
    pub fn settle(&mut self) -> Level {
        if let Some((now, execution)) = self.left.take() {
            let duration = now - self.entered_at;
            let release_latency = match execution {
                Execution::Worked { released } => {
                    let latency = self.entered_at - released;
                    self.probe.worked(duration, latency, now);
                    latency
                }
                Execution::Idle => Nanos::ZERO,
            };
            if self.overran(now, execution) {
                self.missed(now, duration, release_latency, execution);
            } else if execution != Execution::Idle {
                self.ladder.clean();
            }
            self.follow();
        }
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

    #[inline]
    fn overran(&self, now: Nanos, execution: Execution) -> bool {
        let too_late =
            matches!(execution, Execution::Worked { released } if now - released > self.deadline);
        too_late || now - self.entered_at > self.budget
    }

    /// An input was older than it may be, or did not come at all: leaves a record with the cause
    /// [`StarvedInput`](Cause::StarvedInput). It is no overrun, and does not move the ladder; what
    /// follows from it is the caller's to decide. Call it once for each silence, not at every look.
    /// Wait-free; a system call that does not block at the first record of a thread.
    #[cold]
    pub fn starved(&mut self, now: Nanos, age: Nanos, may_be: Nanos) {
        self.probe.starved(&Trip {
            at: now,
            duration: age,
            budget: may_be,
            release_latency: Nanos::ZERO,
            cause: Cause::StarvedInput,
            level_after: self.ladder.level(),
            change: Change::default(),
            thread: baseline::thread_id(),
        });
    }

    #[cold]
    fn missed(&mut self, now: Nanos, duration: Nanos, release: Nanos, execution: Execution) {
        let level_after = self.ladder.overrun();
        let evidence = baseline::gather(now);
        if execution == Execution::Idle {
            self.probe.idle_overran();
        }
        // Whoever keeps the budget and misses the deadline, which is no shorter, began too late.
        let cause = if duration <= self.budget {
            Cause::LateRelease
        } else {
            evidence.map_or(Cause::Unknown, |e| e.cause(duration, self.budget, self.machine))
        };
        self.probe.tripped(&Trip {
            at: now,
            duration,
            budget: self.budget,
            release_latency: release,
            cause,
            level_after,
            change: evidence.map_or_else(Change::default, |e| e.change),
            thread: baseline::thread_id(),
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
