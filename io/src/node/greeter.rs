//! The greeter: answers and sends handshakes, and tells the verify stage whose life each peer is in.
//!
//! Housekeeping runs it on its thread; it needs nothing of that thread itself.

use crate::delivery::DropReason;
use crate::pipeline::Drops;
use crate::pipeline::receive::Unverified;
use crate::security::PeerIndex;
use crate::security::hello::{Handshake, Outcome, PeerLife, Received};
use crate::simulation::{Branch, reached};
use crate::transport::Transmit;
use crate::wire::{Sequence, StreamStart, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Counter, Gauge};
use sinew_rt::ring::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Handshake frames handled before others on the thread get their turn.
const FRAMES_PER_TURN: usize = 64;

/// Why the greeter drops handshake frames.
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
pub(crate) struct PeerGauges {
    pub(super) epoch: Gauge,
    pub(super) round_trip_ns: Gauge,
    pub(super) heard_at_ns: Gauge,
    /// When its last good Challenge was answered: from then on it can accept what we publish.
    pub(super) answered_at_ns: Gauge,
}

/// What speaks with peers about lives.
pub(crate) struct Greeter {
    pub(crate) handshake: Handshake,
    pub(crate) frames: Consumer<Unverified>,
    pub(crate) transport: Box<dyn Transmit>,
    pub(crate) lives: Producer<PeerLife>,
    /// This node's streams, with the number of the next envelope of each.
    pub(crate) streams: Vec<(TopicId, Arc<AtomicU64>)>,
    pub(crate) peers: Vec<PeerGauges>,
    pub(crate) handshakes: Counter,
    /// Handshake frames of ours that the transport did not take.
    pub(crate) lost: Counter,
    pub(crate) drops: Drops,
}

impl Greeter {
    /// Handles the frames that wait, sends the Challenges that are due, and says when the next one
    /// is. `random` fills bytes that nobody can guess.
    pub(crate) fn turn(&mut self, now: Nanos, random: &mut dyn FnMut(&mut [u8])) -> Option<Nanos> {
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.frames.pop() else { break };
            self.take_in(frame, now);
        }
        while let Some((peer, frame)) = self.handshake.poll(now, random) {
            self.send(peer, &frame);
        }
        self.handshake.next_deadline()
    }

    /// Whether no frame waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.frames.is_empty()
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
                    reached(Branch::LivesRingFull);
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
