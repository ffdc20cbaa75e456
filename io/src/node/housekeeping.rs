//! Housekeeping: everything of a node that is not hard real time, on one normal thread.
//!
//! It answers and sends handshakes, tells the verify stage whose life each peer is in, looks for
//! stages that hang and for changes of the machine, makes the log's lines, and keeps the panel's
//! heartbeat. It talks to lanes only through rings.

use super::log::Log;
use super::recheck::Recheck;
use super::running::join_housekeeping;
use crate::delivery::DropReason;
use crate::pipeline::Drops;
use crate::pipeline::receive::Unverified;
use crate::security::PeerIndex;
use crate::security::hello::{Handshake, Outcome, PeerLife, Received};
use crate::transport::Transmit;
use crate::wire::{Sequence, StreamStart, TopicId};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::health::Health;
use sinew_rt::panel::{Counter, Gauge, Panel, State};
use sinew_rt::ring::{Consumer, Producer};
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{RtThread, ThreadError, ThreadSpec, spawn};
use sinew_rt::wait::Doorbell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often the supervisor looks at the stages, and so how late a hang is found, while a control loop
/// is beside the node or a lane spins.
const PERIOD: Nanos = Nanos::from_millis(20);

/// The same for stages alone on lanes that park. Nobody's hang stops a robot then, parked lanes wake
/// housekeeping for handshakes, and each turn costs a core some 40 µs with its way to sleep and back.
const PERIOD_WITHOUT_LOOPS: Nanos = Nanos::from_millis(100);

/// Handshake frames handled before the other duties get their turn.
const FRAMES_PER_TURN: usize = 64;

/// Why housekeeping drops handshake frames.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::Malformed,
    DropReason::NotForUs,
    DropReason::BadSignature,
    DropReason::ChallengeStale,
    DropReason::ChallengeLimited,
    DropReason::HelloUnasked,
    DropReason::OldEpoch,
    DropReason::LifeConflict,
    DropReason::BadTimestamps,
    DropReason::BadKind,
    DropReason::UnknownKey,
    DropReason::OtherCluster,
    DropReason::QueueFull,
];

/// What the panel shows about one peer.
pub(super) struct PeerGauges {
    pub(super) epoch: Gauge,
    pub(super) round_trip_ns: Gauge,
    pub(super) heard_at_ns: Gauge,
    /// When its last good Challenge was answered: from then on it can accept what we publish.
    pub(super) answered_at_ns: Gauge,
}

/// What housekeeping works with.
pub(super) struct Housekeeping {
    pub(super) handshake: Handshake,
    pub(super) frames: Consumer<Unverified>,
    pub(super) transport: Box<dyn Transmit>,
    pub(super) lives: Producer<PeerLife>,
    /// This node's streams, with the number of the next envelope of each.
    pub(super) streams: Vec<(TopicId, Arc<AtomicU64>)>,
    pub(super) supervisor: Supervisor,
    /// How many probes of the panel are those of the node's own stages.
    pub(super) own_probes: usize,
    /// Whether a lane never sleeps, and so never wakes housekeeping.
    pub(super) spins: bool,
    pub(super) panel: Panel,
    pub(super) health: Arc<Health>,
    pub(super) peers: Vec<PeerGauges>,
    pub(super) handshakes: Counter,
    /// Handshake frames of ours that the transport did not take.
    pub(super) lost: Counter,
    pub(super) hangs: Counter,
    pub(super) drops: Drops,
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
                if work.frames.is_empty() && !stop.load(Ordering::Acquire) {
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
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.frames.pop() else { break };
            self.take_in(frame, now);
        }
        while let Some((peer, frame)) = self.handshake.poll(now, &mut random) {
            self.send(peer, &frame);
        }
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
        self.handshake.next_deadline().map_or(next, |due| due.min(next))
    }

    fn take_in(&mut self, frame: Unverified, now: Nanos) {
        let slot = frame.into_slot();
        let streams: Vec<_> = self
            .streams
            .iter()
            .map(|(topic, next)| StreamStart {
                topic: *topic,
                next: Sequence::new(next.load(Ordering::Acquire)),
            })
            .collect();
        let received = Received { bytes: slot.frame(), at: slot.received_at };
        match self.handshake.handle(now, received, &streams) {
            Ok(Outcome::Reply { peer, frame }) => {
                self.send(peer, &frame);
                if let Some(gauges) = self.peers.get(peer.get()) {
                    gauges.answered_at_ns.set(now.as_nanos());
                }
                self.handshakes.increment();
            }
            Ok(Outcome::Life(life)) => {
                // The verify stage comes first: what the panel shows is already in force. When that
                // stage is behind, the next Hello, a second later, says it again.
                if self.lives.push(life).is_err() {
                    return self.drops.count(slot.charged_to(), DropReason::QueueFull, now);
                }
                self.show(&life, slot.received_at);
                self.handshakes.increment();
            }
            Err(reason) => self.drops.count(slot.charged_to(), reason, now),
        }
    }

    fn send(&mut self, peer: PeerIndex, frame: &[u8]) {
        if self.transport.send(peer, &[frame]) == 0 {
            self.lost.increment();
        }
    }

    fn show(&self, life: &PeerLife, heard_at: Nanos) {
        let Some(gauges) = self.peers.get(PeerIndex::get(life.peer)) else { return };
        gauges.epoch.set(life.epoch.get().cast_signed());
        gauges.round_trip_ns.set(life.clock.round_trip.as_nanos());
        gauges.heard_at_ns.set(heard_at.as_nanos());
    }
}

/// Bytes that nobody can guess. Without them no handshake is safe, so their absence ends the
/// thread by a panic, which is reported; Linux does not fail here once it has booted.
fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random generator works");
}
