//! Verify: decides which envelopes are genuine, new and permitted.
//!
//! In this order: the envelope's form, the sender's life (epoch), the window without moving it, the
//! signature, and only then the window for good; last the permission. A poll checks at most one
//! signature, so that the socket is read again before the next one.

use super::receive::Unverified;
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::drop_reason::DropReason;
use crate::delivery::streams::Streams;
use crate::security::hello::PeerLife;
use crate::security::identity::PublicKey;
use crate::security::verify::verify;
use crate::transport::buffer::{FrameSlot, PeerIndex};
use crate::wire::envelope::Envelope;
use crate::wire::frame::{Frame, decode};
use crate::wire::names::{KeyId, SigningContext, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Progress;
use sinew_rt::lane::Stage;
use sinew_rt::panel::Counter;
use sinew_rt::ring::{Consumer, Producer};

/// An envelope that is genuine, new and permitted. Only this stage makes one.
#[derive(Debug)]
pub(crate) struct Verified {
    slot: FrameSlot,
    /// The time of sending on this node's clock, never later than the time of receipt.
    sent_at: Nanos,
}

impl Verified {
    /// The envelope; `None` cannot happen, since it decoded before, and is counted if it does.
    pub(crate) fn envelope(&self) -> Option<Envelope<'_>> {
        match decode(self.slot.frame()) {
            Ok(Frame::Clear(envelope)) => Some(envelope),
            _ => None,
        }
    }

    pub(crate) fn sent_at(&self) -> Nanos {
        self.sent_at
    }

    pub(crate) fn received_at(&self) -> Nanos {
        self.slot.received_at
    }

    pub(crate) fn peer(&self) -> PeerIndex {
        self.slot.peer
    }
}

/// What a subscribed topic demands of its envelopes.
#[derive(Clone, Debug)]
pub(crate) struct TopicRule {
    pub(crate) topic: TopicId,
    pub(crate) signed: bool,
    /// For each peer whether it may publish the topic.
    pub(crate) permitted: Vec<bool>,
}

/// A peer as the verify stage sees it.
#[derive(Debug)]
pub(crate) struct PeerKey {
    pub(crate) key: PublicKey,
    /// Whether its clock is ours: both run on one boot of one kernel.
    pub(crate) same_clock: bool,
}

/// The second stage.
pub(crate) struct VerifyStage {
    pub(crate) trusted: Consumer<Unverified>,
    pub(crate) strangers: Consumer<Unverified>,
    /// Lives that the handshake established.
    pub(crate) lives: Consumer<PeerLife>,
    pub(crate) output: Producer<Verified>,
    pub(crate) own_key: KeyId,
    pub(crate) context: SigningContext,
    pub(crate) peers: Vec<PeerKey>,
    pub(crate) rules: Vec<TopicRule>,
    pub(crate) streams: Streams,
    pub(crate) checked: Counter,
    pub(crate) drops: Drops,
}

/// Why the verify stage drops frames.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::Malformed,
    DropReason::NotForUs,
    DropReason::UnknownTopic,
    DropReason::NotSigned,
    DropReason::NoLife,
    DropReason::OldEpoch,
    DropReason::FutureEpoch,
    DropReason::Replay,
    DropReason::BelowWindow,
    DropReason::SequenceJump,
    DropReason::BadSignature,
    DropReason::NotPermitted,
    DropReason::Expired,
    DropReason::QueueFull,
];

impl Stage for VerifyStage {
    fn poll(&mut self, now: Nanos) -> Progress {
        let mut released = None;
        while let Some(life) = self.lives.pop() {
            released.get_or_insert(now);
            self.begin_life(&life);
        }
        for _ in 0..FRAMES_PER_POLL {
            let Some(frame) = self.trusted.pop().or_else(|| self.strangers.pop()) else { break };
            let slot = frame.into_slot();
            released.get_or_insert(slot.received_at);
            if self.judge(slot, now) == Cost::Signature {
                break;
            }
        }
        released.map_or(Progress::Idle, |released| Progress::Worked { released })
    }
}

/// Whether judging a frame took a signature check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    Cheap,
    Signature,
}

impl VerifyStage {
    /// Adopts the life of a peer that a Hello of this receiver's life proved.
    fn begin_life(&mut self, life: &PeerLife) {
        self.streams.new_life(life);
        if let Some(peer) = self.peers.get_mut(life.peer) {
            peer.same_clock = life.same_boot;
        }
    }

    fn judge(&mut self, slot: FrameSlot, now: Nanos) -> Cost {
        let peer = slot.peer;
        let mut cost = Cost::Cheap;
        if let Err(reason) = self.pass(slot, now, &mut cost) {
            self.drops.count(Some(peer), reason);
        }
        cost
    }

    fn pass(&mut self, slot: FrameSlot, now: Nanos, cost: &mut Cost) -> Result<(), DropReason> {
        let Ok(Frame::Clear(envelope)) = decode(slot.frame()) else {
            return Err(DropReason::Malformed);
        };
        let header = envelope.header;
        let destination = header.destination();
        if destination != KeyId::EVERYONE && destination != self.own_key {
            return Err(DropReason::NotForUs);
        }
        let topic = self
            .rules
            .binary_search_by_key(&header.topic(), |rule| rule.topic)
            .map_err(|_| DropReason::UnknownTopic)?;
        let rule = &self.rules[topic];
        let peer = &self.peers[slot.peer.get()];
        if rule.signed && envelope.signature.is_none() {
            return Err(DropReason::NotSigned);
        }
        let (stream, epoch, sequence) = (slot.peer.get(), header.epoch(), header.sequence());
        self.streams.peek(stream, topic, epoch, sequence)?;
        if let Some(signature) = envelope.signature {
            *cost = Cost::Signature;
            self.checked.increment();
            let parts = [self.context.as_bytes(), envelope.signed_bytes()];
            verify(&peer.key, &parts, signature).map_err(|_| DropReason::BadSignature)?;
        }
        self.streams.commit(stream, topic, sequence);
        if !rule.permitted[slot.peer.get()] {
            return Err(DropReason::NotPermitted);
        }
        let sent_at = if peer.same_clock {
            header.sent_at().min(slot.received_at)
        } else {
            // Another host's clock: until offsets are estimated within a bound, the age counts
            // from the receipt.
            slot.received_at
        };
        if header.lifespan().is_some_and(|lifespan| now - sent_at > lifespan) {
            return Err(DropReason::Expired);
        }
        self.output.push(Verified { slot, sent_at }).map_err(|_| DropReason::QueueFull)
    }
}
