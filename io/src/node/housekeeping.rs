//! Housekeeping: everything of a node that is not hard real time, on one normal thread.
//!
//! It runs the greeter, looks for stages that hang and for changes of the machine, makes the log's
//! lines, and keeps the panel's heartbeat. It talks to lanes only through rings.

use super::greeter::Greeter;
use super::log::Log;
use super::recheck::Recheck;
use super::running::join_housekeeping;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::health::Health;
use sinew_rt::panel::{Counter, Panel, State};
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{RtThread, ThreadError, ThreadSpec, spawn};
use sinew_rt::wait::Doorbell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the supervisor looks at the stages, and so how late a hang is found, while a control loop
/// is beside the node or a lane spins.
const PERIOD: Nanos = Nanos::from_millis(20);

/// The same for stages alone on lanes that park. Nobody's hang stops a robot then, parked lanes wake
/// housekeeping for handshakes, and each turn costs a core some 40 µs with its way to sleep and back.
const PERIOD_WITHOUT_LOOPS: Nanos = Nanos::from_millis(100);

/// What housekeeping works with.
pub(super) struct Housekeeping {
    pub(super) greeter: Greeter,
    pub(super) supervisor: Supervisor,
    /// How many probes of the panel are those of the node's own stages.
    pub(super) own_probes: usize,
    /// Whether a lane never sleeps, and so never wakes housekeeping.
    pub(super) spins: bool,
    pub(super) panel: Panel,
    pub(super) health: Arc<Health>,
    pub(super) hangs: Counter,
    pub(super) recheck: Recheck,
    pub(super) log: Log,
}

/// The thread, until it is stopped.
#[derive(Debug)]
pub(super) struct HousekeepingThread {
    thread: RtThread<()>,
    doorbell: Arc<Doorbell>,
    stopping: Arc<AtomicBool>,
}

impl HousekeepingThread {
    pub(super) fn spawn(
        spec: ThreadSpec,
        doorbell: Arc<Doorbell>,
        mut work: Housekeeping,
    ) -> Result<Self, ThreadError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (bell, stop) = (doorbell.clone(), stopping.clone());
        let health = work.health.clone();
        let body = move || {
            while !stop.load(Ordering::Acquire) {
                bell.announce_sleep();
                let deadline = work.turn(clock::now());
                if work.greeter.is_idle() && !stop.load(Ordering::Acquire) {
                    bell.sleep(Some(deadline));
                } else {
                    bell.awake();
                }
            }
            work.log.finish(clock::now());
        };
        let thread = spawn(spec, move || {
            // Nobody would answer handshakes or find hangs: as bad as the loss of a lane.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                health.set_dead();
                resume_unwind(panic);
            }
        })?;
        Ok(Self { thread, doorbell, stopping })
    }

    /// Whether the thread has ended, which by itself it does only by a panic.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread, and waits for that for a second at most.
    pub(super) fn stop(self) -> Result<(), String> {
        self.stopping.store(true, Ordering::Release);
        self.doorbell.ring();
        join_housekeeping(self.thread)
    }
}

impl Housekeeping {
    /// Does what is due, and says when something is due next.
    fn turn(&mut self, now: Nanos) -> Nanos {
        let challenge_due = self.greeter.turn(now, &mut random);
        let hangs = self.supervisor.check(now);
        self.supervisor.look_around(now);
        self.hangs.add(hangs.len() as u64);
        hangs.iter().for_each(|hang| self.log.hang(hang, now));
        self.recheck.turn(now, &mut |line| self.log.tell(line));
        self.log.drain(now);
        self.panel.heartbeat(now);
        // A loop's panic is not the end: it stops its robot, and can be re-armed.
        if self.health.dead() {
            self.panel.set_state(State::Failed);
        }
        let loops = self.supervisor.probes() > self.own_probes;
        let next = now + if loops || self.spins { PERIOD } else { PERIOD_WITHOUT_LOOPS };
        challenge_due.map_or(next, |due| due.min(next))
    }
}

/// Bytes that nobody can guess. Without them no handshake is safe, so their absence ends the
/// thread by a panic, which is reported; Linux does not fail here once it has booted.
fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random generator works");
}
