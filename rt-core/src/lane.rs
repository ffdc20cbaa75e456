//! A lane: one pinned real-time thread that runs stages in order, each under its guard.
//!
//! A stage does a bounded piece of work each time it is polled. A lane polls its stages in order,
//! reads the clock once at each boundary between them, and waits when none had work. Lanes of one
//! priority that share a core take turns. The same stages run on one lane or on
//! several, and in a simulator without any.

use crate::clock::{self, Nanos};
use crate::guard::{self, Execution, Guard};
use crate::health::Health;
use crate::ladder::Level;
use crate::log::{self, LogReader, LogSender, RateLimit, Severity, Template};
use crate::thread::{self, Applied, RtThread, ThreadError, ThreadSpec};
use crate::wait::{Doorbell, Wait};
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// One step of the work that lanes do.
///
/// A poll must do a bounded amount of work and neither block, lock, allocate, format nor make a
/// system call other than the stage's own input and output.
pub trait Stage: Send {
    /// Does up to one bounded piece of work. `now` is the time at which the lane came here.
    fn poll(&mut self, now: Nanos) -> Execution;

    /// When the stage wants to be polled although no input comes.
    fn next_deadline(&self) -> Option<Nanos> {
        None
    }
}

/// Where a lane sleeps when its wait says that it may.
pub trait Park: Send {
    /// Sleeps until the lane's doorbell rings or `deadline` passes; may return early. The lane has
    /// announced its sleep and found its inputs empty.
    fn park(&mut self, deadline: Option<Nanos>);

    /// Called before each poll of the stages that comes without a park, so that inputs which only
    /// a park would report are looked at.
    fn before_spin(&mut self) {}
}

/// Sleeps on the doorbell itself.
#[derive(Debug)]
pub struct FutexPark(pub Arc<Doorbell>);

impl Park for FutexPark {
    fn park(&mut self, deadline: Option<Nanos>) {
        self.0.sleep(deadline);
    }
}

/// Holds lanes back until all of them are set up, so that none spins on a core on which another
/// has yet to ask for its priority. Also tells them to stop.
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    stopping: AtomicBool,
    /// Instant by which a stopping lane ends even if its stages still have work.
    drain_until: AtomicI64,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets the lanes run.
    pub fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    /// Tells the lanes to finish the work at hand, for no longer than until `drain_until`, and
    /// to end. Sleeping lanes must be woken through their doorbells.
    pub fn stop(&self, drain_until: Nanos) {
        self.drain_until.store(drain_until.as_nanos(), Ordering::Relaxed);
        self.stopping.store(true, Ordering::Release);
        self.open();
    }

    /// Whether the lanes were told to end.
    #[inline]
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn drain_until(&self) -> Nanos {
        Nanos::new(self.drain_until.load(Ordering::Relaxed))
    }

    fn pass(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.opened.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

thread_local! {
    static ON_LANE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is a lane, from its first poll to its last: for a counting allocator
/// that checks the rule that lanes do not allocate. Wait-free.
#[inline]
#[must_use]
pub fn on_lane() -> bool {
    ON_LANE.get()
}

/// Runs `body` under the rules of a lane: [`on_lane`] is true, and with the `rtsan` feature the
/// real-time sanitizer reports whatever may block or allocate.
#[inline]
pub fn as_lane<R>(body: impl FnOnce() -> R) -> R {
    marked(|| {
        #[cfg(feature = "rtsan")]
        let _real_time = rtsan_standalone::ScopedSanitizeRealtime::default();
        body()
    })
}

/// Runs `body` with [`on_lane`] true.
fn marked<R>(body: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON_LANE.set(self.0);
        }
    }
    let _restore = Restore(ON_LANE.replace(true));
    body()
}

/// Makes a system call that a lane is there for: its own receive or send, or the wake of another
/// thread, none of which blocks. The real-time sanitizer, which knows calls only by name, looks
/// away from this one.
#[inline]
pub fn own_call<R>(call: impl FnOnce() -> R) -> R {
    #[cfg(feature = "rtsan")]
    let _unchecked = rtsan_standalone::ScopedDisabler::default();
    call()
}

struct Seat {
    stage: Box<dyn Stage>,
    guard: Guard,
    log: Option<LogSender>,
}

static OVERRAN: Template =
    Template::new(Severity::Warn, "took {ns} of {ns}; its level is now {name}");

/// Records of one stage that may wait for housekeeping.
const STAGE_LOG: usize = 16;

/// The ends through which a stage's overruns are told off the lane: one for [`Lane::push_logged`], one
/// for housekeeping. `source` names lane and stage. Allocates.
#[must_use]
pub fn stage_log(source: &str, limit: RateLimit) -> (LogSender, LogReader) {
    let (sender, reader) = log::channel(source, STAGE_LOG, limit);
    (sender, reader.with_names(Level::ALL.iter().map(ToString::to_string).collect()))
}

impl Seat {
    #[cold]
    fn overran(&mut self, now: Nanos, took: Nanos) {
        let (budget, level) = (self.guard.budget().as_nanos(), self.guard.level());
        if let Some(log) = &mut self.log {
            log.send(now, &OVERRAN, [took.as_nanos(), budget, level as i64, 0]);
        }
    }
}

/// A lane that has not started: a thread to be, a wait, and stages in order.
pub struct Lane {
    thread: ThreadSpec,
    wait: Wait,
    doorbell: Arc<Doorbell>,
    park: Box<dyn Park>,
    seats: Vec<Seat>,
}

impl Lane {
    /// A lane without stages that sleeps on a futex.
    #[must_use]
    pub fn new(thread: ThreadSpec, wait: Wait) -> Self {
        let doorbell = Arc::new(Doorbell::new());
        Self::with_park(thread, wait, doorbell.clone(), Box::new(FutexPark(doorbell)))
    }

    /// A lane that sleeps in `park`, which ringing `doorbell` ends.
    #[must_use]
    pub fn with_park(
        thread: ThreadSpec,
        wait: Wait,
        doorbell: Arc<Doorbell>,
        park: Box<dyn Park>,
    ) -> Self {
        Self { thread, wait, doorbell, park, seats: Vec::new() }
    }

    /// Appends a stage; stages are polled in the order in which they were added.
    pub fn push(&mut self, stage: Box<dyn Stage>, guard: Guard) {
        self.seats.push(Seat { stage, guard, log: None });
    }

    /// The same for a stage whose overruns shall be told through `log`, from [`stage_log`].
    pub fn push_logged(&mut self, stage: Box<dyn Stage>, guard: Guard, log: LogSender) {
        self.seats.push(Seat { stage, guard, log: Some(log) });
    }

    /// The bell that wakes this lane: give it to whoever feeds one of its stages.
    #[must_use]
    pub fn doorbell(&self) -> Arc<Doorbell> {
        self.doorbell.clone()
    }

    /// How the lane waits.
    #[must_use]
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// Starts the thread, which applies and reads back its settings and then waits at `gate`.
    ///
    /// A panic in a stage ends the lane, marks `health` as dead for good, and is reported by
    /// [`RunningLane::join`].
    ///
    /// # Errors
    /// Whatever [`thread::spawn`] reports.
    pub fn spawn(self, gate: &Arc<Gate>, health: &Arc<Health>) -> Result<RunningLane, ThreadError> {
        let Self { thread, wait, doorbell, park, seats } = self;
        let bell = doorbell.clone();
        let (gate, health) = (gate.clone(), health.clone());
        let thread = thread::spawn(thread, move || {
            let mut body = Body { wait, doorbell, park, seats, idle_since: None, busy_passes: 0 };
            gate.pass();
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| marked(|| body.run(&gate))));
            // First, so that the safe stop does not wait for what the stages do when they go, and a
            // panic in there finds it done.
            if outcome.is_err() {
                health.set_dead();
            }
            // The stages go here, on the thread that ran them, before anybody can join it.
            drop(body);
            outcome.map_err(|panic| thread::panic_message(&*panic))
        })?;
        Ok(RunningLane { thread, doorbell: bell })
    }
}

/// A lane whose thread runs.
#[derive(Debug)]
pub struct RunningLane {
    thread: RtThread<Result<(), String>>,
    doorbell: Arc<Doorbell>,
}

impl RunningLane {
    /// What the kernel granted.
    #[must_use]
    pub fn applied(&self) -> &Applied {
        self.thread.applied()
    }

    /// Wakes the lane so that it sees that its gate says stop.
    pub fn wake(&self) {
        self.doorbell.ring();
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread to end.
    ///
    /// # Errors
    /// The message of the panic that ended it.
    pub fn join(self) -> Result<(), String> {
        self.thread.join().unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// The lane's thread at work.
struct Body {
    wait: Wait,
    doorbell: Arc<Doorbell>,
    park: Box<dyn Park>,
    seats: Vec<Seat>,
    /// When the last poll that found work ended, while polls find none.
    idle_since: Option<Nanos>,
    /// Passes in a row that found work.
    busy_passes: u32,
}

/// Passes in a row after which a busy lane lets the others of its priority on its core run: often
/// enough that none waits for long, and never for a lane that sleeps between messages, which would
/// pay for a system call with each of them.
const TURN: u32 = 4;

impl Body {
    fn run(&mut self, gate: &Gate) {
        loop {
            let worked = as_lane(|| self.pass());
            if gate.is_stopping() && (!worked || clock::now() >= gate.drain_until()) {
                return;
            }
            if worked {
                self.idle_since = None;
                self.busy_passes = self.busy_passes.wrapping_add(1);
                if self.busy_passes.is_multiple_of(TURN) && !self.wait.holds_core() {
                    // A stage that always has work must not hide what only a park would report.
                    self.park.before_spin();
                    // SCHED_FIFO never takes the core from a lane in favour of one of the same
                    // priority: without this a flooded receive lane would starve the lane that
                    // verifies. To the end of the queue of equals (sched_yield(2)).
                    std::thread::yield_now();
                }
                continue;
            }
            self.busy_passes = 0;
            match self.wait {
                Wait::Spin => {
                    std::hint::spin_loop();
                }
                Wait::Park => self.park(gate),
                Wait::SpinThenPark { spin } => {
                    let now = clock::now();
                    if now - *self.idle_since.get_or_insert(now) < spin {
                        self.park.before_spin();
                    } else {
                        self.park(gate);
                        self.idle_since = None;
                    }
                }
            }
        }
    }

    /// Polls each stage once, and says whether any had work.
    #[inline]
    fn pass(&mut self) -> bool {
        let mut worked = false;
        let mut now = clock::now();
        for seat in &mut self.seats {
            seat.guard.enter(now);
            let execution = seat.stage.poll(now);
            let entered_at = std::mem::replace(&mut now, clock::now());
            seat.guard.leave(now, execution);
            if now - entered_at > seat.guard.budget() {
                seat.overran(now, now - entered_at);
            }
            worked |= execution != Execution::Idle;
        }
        for seat in &mut self.seats {
            seat.guard.settle();
        }
        worked
    }

    /// Sleeps, unless something came between the last pass and the announcement of the sleep.
    fn park(&mut self, gate: &Gate) {
        self.doorbell.announce_sleep();
        if as_lane(|| self.pass()) || gate.is_stopping() {
            self.doorbell.awake();
            return;
        }
        let deadline = self.seats.iter().filter_map(|seat| seat.stage.next_deadline()).min();
        guard::before_park(clock::now());
        self.park.park(deadline);
        guard::after_park(clock::now());
        self.doorbell.awake();
    }
}
