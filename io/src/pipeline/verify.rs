//! Verify: decides which envelopes are genuine, new and permitted.
//!
//! In this order: the envelope's form, the sender's life (epoch), the window without moving it, the
//! signature, and only then the window for good; last the permission. A poll checks at most one
//! signature, so that the socket is read again before the next one, and peers take turns, so that
//! one peer's burst does not stand before another's set-point.

use super::receive::Unverified;
use super::verified::VerifiedFrame;
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::{DropReason, StreamTable};
use crate::security::{Enrolment, PeerIndex, Trust, Verified, verify_envelope};
use crate::security::{PeerClock, PeerLife};
use crate::simulation::{Branch, Fault, lifetime_clock, planted, reached};
use crate::wire::{Class, Envelope, KeyId, SigningContext, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::panel::Counter;
use sinew_rt::ring::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a subscribed topic demands of its envelopes.
#[derive(Clone, Debug)]
pub(crate) struct TopicRule {
    pub(crate) topic: TopicId,
    pub(crate) class: Class,
    pub(crate) trust: Trust,
    /// How envelopes of the topic are told from those that came before.
    pub(crate) dedup: Dedup,
    /// How old a message may be at most, whatever longer life its sender gives it.
    pub(crate) lifespan: Option<Nanos>,
}

/// Where it is known what was delivered.
#[derive(Clone, Debug)]
pub(crate) enum Dedup {
    /// In this stage's windows: whatever is new goes on, in any order.
    Window,
    /// The same for reports, which every peer may send.
    Reports,
    /// In the deliver stage's readers, whose floors are here, by peer. A message of theirs counts as
    /// delivered only when it is, so it may pass this stage more than once.
    Readers(Vec<Arc<AtomicU64>>),
}

/// How far above a floor an envelope of a reliable topic may be: what a reader holds, and more than
/// can be on the way between the two stages.
const AHEAD_MAX: u64 = 4_096;

/// At most one duplicate of a peer in this time costs a signature check and draws an
/// acknowledgement: whoever repeats a recording gets no more than that.
const DUPLICATE_EVERY: Nanos = Nanos::from_millis(1);

/// What this node knows about the clock by which a peer dates its envelopes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SenderClock {
    /// Nothing yet.
    Unknown,
    /// It is this node's own: both run on one boot of one kernel.
    Ours,
    /// It is another host's, measured by the handshake.
    Theirs(PeerClock),
}

impl SenderClock {
    /// A time of sending on our clock, never later than the receipt, whatever the sender says. For
    /// another host it is earlier by what the two clocks may disagree about: a frame that was held
    /// back on the way looks as old as it is, and a sender that lies can only look older than the
    /// receipt makes it.
    fn to_ours(self, sent_at: Nanos, received_at: Nanos, now: Nanos) -> Nanos {
        match self {
            Self::Ours => sent_at.min(received_at),
            Self::Theirs(clock) => received_at.min(clock.to_ours(sent_at)) - clock.error_bound(now),
            Self::Unknown => received_at,
        }
    }
}

/// Frames that wait to be verified.
///
/// The peers take turns, one frame each: a frame waits for those of its own peer before it, and for
/// each of them and itself at most one of every other peer. Strangers come when no peer waits.
pub(crate) struct VerifyInputs {
    /// By peer.
    peers: Vec<Consumer<Unverified>>,
    strangers: Consumer<Unverified>,
    /// The peer to look at first.
    turn: usize,
}

impl VerifyInputs {
    pub(crate) fn new(peers: Vec<Consumer<Unverified>>, strangers: Consumer<Unverified>) -> Self {
        Self { peers, strangers, turn: 0 }
    }

    /// The next frame. Wait-free; looks at each ring once at most.
    pub(super) fn next(&mut self) -> Option<Unverified> {
        let (before, from) = self.peers.split_at_mut(self.turn);
        let mut in_turn = (self.turn..).zip(from).chain((0..).zip(before));
        match in_turn.find_map(|(peer, ring)| Some((peer, ring.pop()?))) {
            Some((peer, frame)) => {
                let next = if planted(Fault::PeersTurnsOff) { 0 } else { peer + 1 };
                self.turn = next % self.peers.len();
                Some(frame)
            }
            None => self.strangers.pop(),
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.peers.iter().chain([&self.strangers]).map(Consumer::len).sum()
    }
}

/// The second stage.
pub(crate) struct VerifyStage {
    pub(crate) inputs: VerifyInputs,
    /// Lives that the handshake established.
    pub(crate) lives: Consumer<PeerLife>,
    pub(crate) output: Producer<VerifiedFrame>,
    pub(crate) own_key: KeyId,
    pub(crate) context: SigningContext,
    pub(crate) peers: Arc<Enrolment>,
    /// By peer.
    pub(crate) clocks: Vec<SenderClock>,
    /// Sorted by topic.
    pub(crate) rules: Vec<TopicRule>,
    pub(crate) streams: StreamTable,
    /// For the deliver stage, if the node carries reliable topics: the lives that this stage adopts.
    pub(crate) adopted: Option<Producer<PeerLife>>,
    /// When the last duplicate of each peer was passed on.
    pub(crate) duplicate_at: Vec<Option<Nanos>>,
    pub(crate) checked: Counter,
    pub(crate) drops: Drops,
}

/// Lives that one poll adopts, each of which touches a window for every topic.
const LIVES_PER_POLL: usize = 8;

/// Why the verify stage drops frames.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::Malformed,
    DropReason::UnknownKey,
    DropReason::NotForUs,
    DropReason::ClassNotServed,
    DropReason::ClassMismatch,
    DropReason::UnknownTopic,
    DropReason::NotSigned,
    DropReason::NoLife,
    DropReason::OldEpoch,
    DropReason::FutureEpoch,
    DropReason::Replay,
    DropReason::BelowWindow,
    DropReason::TooFarAhead,
    DropReason::BadSignature,
    DropReason::NotPermitted,
    DropReason::Expired,
    DropReason::QueueFull,
];

impl Stage for VerifyStage {
    fn poll(&mut self, now: Nanos) -> Execution {
        let mut released = None;
        for _ in 0..LIVES_PER_POLL {
            let Some(life) = self.lives.pop() else { break };
            released.get_or_insert(now);
            self.begin_life(&life, now);
        }
        for _ in 0..FRAMES_PER_POLL {
            let Some(frame) = self.inputs.next() else { break };
            released.get_or_insert(frame.slot().received_at);
            if self.judge(frame, now) == Cost::Signature {
                break;
            }
        }
        released.map_or(Execution::Idle, |released| Execution::Worked { released })
    }
}

/// Whether judging a frame took a signature check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    Cheap,
    Signature,
}

impl VerifyStage {
    /// Adopts what a Hello that answers this receiver proved.
    fn begin_life(&mut self, life: &PeerLife, now: Nanos) {
        // The deliver stage must have it before any frame that this stage lets pass for it. If it is
        // behind, the next Hello, a second later, says it again.
        if let Some(adopted) = &mut self.adopted
            && adopted.push(*life).is_err()
        {
            return self.drops.count(Some(life.peer), DropReason::QueueFull, now);
        }
        if life.epoch > self.streams.epoch(life.peer) {
            self.reset_floors(life);
        }
        self.streams.hello(life);
        if let Some(clock) = self.clocks.get_mut(life.peer.get()) {
            *clock = match life.same_boot {
                true => SenderClock::Ours,
                false => SenderClock::Theirs(life.clock),
            };
        }
    }

    /// Floors of a life that ended say nothing about the one that begins.
    fn reset_floors(&self, life: &PeerLife) {
        for rule in &self.rules {
            if let Dedup::Readers(floors) = &rule.dedup
                && let Some(floor) = floors.get(life.peer.get())
            {
                floor.store(0, Ordering::Relaxed);
            }
        }
    }

    fn judge(&mut self, frame: Unverified, now: Nanos) -> Cost {
        let source = frame.slot().charged_to();
        let mut cost = Cost::Cheap;
        if let Err(reason) = self.pass(frame, now, &mut cost) {
            self.drops.count(source, reason, now);
        }
        cost
    }

    fn pass(&mut self, frame: Unverified, now: Nanos, cost: &mut Cost) -> Result<(), DropReason> {
        let (claimed, received_at) = (frame.slot().peer, frame.slot().received_at);
        let verified = VerifiedFrame::prove(frame, |envelope| {
            self.check(envelope, claimed, received_at, now, cost)
        })?;
        self.output.push(verified).map_err(|_| {
            reached(Branch::VerifiedRingFull);
            DropReason::QueueFull
        })
    }

    /// The proof that an envelope in the name of `claimed` is genuine, new and permitted, and when it
    /// was sent.
    fn check<'a>(
        &mut self,
        envelope: Envelope<'a>,
        claimed: PeerIndex,
        received_at: Nanos,
        now: Nanos,
        cost: &mut Cost,
    ) -> Result<(Verified<'a>, Nanos), DropReason> {
        let header = envelope.header;
        let destination = header.destination();
        let ours = destination == KeyId::EVERYONE || destination == self.own_key;
        if !ours && !planted(Fault::DestinationNotChecked) {
            reached(Branch::NotForUs);
            return Err(DropReason::NotForUs);
        }
        if header.class() == Some(Class::Durable) {
            return Err(DropReason::ClassNotServed);
        }
        let topic = self
            .rules
            .binary_search_by_key(&header.topic(), |rule| rule.topic)
            .map_err(|_| DropReason::UnknownTopic)?;
        let rule = &self.rules[topic];
        if header.class() != Some(rule.class) {
            return Err(DropReason::ClassMismatch);
        }
        let peer = self.peers.get(claimed).ok_or(DropReason::UnknownKey)?;
        let unsigned = envelope.signature.is_none() && !planted(Fault::UnsignedAccepted);
        if rule.trust == Trust::Signed && unsigned {
            reached(Branch::NotSigned);
            return Err(DropReason::NotSigned);
        }
        let sequence = header.sequence();
        let pending = match &rule.dedup {
            Dedup::Window | Dedup::Reports => {
                Some(self.streams.peek(claimed, rule.topic, header.epoch(), sequence)?)
            }
            Dedup::Readers(floors) => {
                self.streams.peek_life(claimed, rule.topic, header.epoch())?;
                let floor = floors.get(claimed.get()).ok_or(DropReason::UnknownKey)?;
                let floor = floor.load(Ordering::Relaxed);
                if sequence.get().saturating_sub(floor) > AHEAD_MAX {
                    return Err(DropReason::TooFarAhead);
                }
                let last = &mut self.duplicate_at[claimed.get()];
                if sequence.get() <= floor {
                    if last.is_some_and(|last| now - last < DUPLICATE_EVERY) {
                        reached(Branch::DuplicateUnchecked);
                        return Err(DropReason::Replay);
                    }
                    reached(Branch::DuplicateChecked);
                    *last = Some(now);
                }
                None
            }
        };
        if planted(Fault::WindowBeforeAuthentication) && pending.is_some() {
            let early = self.streams.peek(claimed, rule.topic, header.epoch(), sequence)?;
            self.streams.commit(early)?;
        }
        if envelope.signature.is_some() {
            *cost = Cost::Signature;
            self.checked.increment();
        }
        let verified = verify_envelope(rule.trust, &self.context, &peer.key, envelope)
            .inspect_err(|_| reached(Branch::BadSignature))?;
        if let Some(pending) = pending {
            self.streams.commit(pending)?;
        }
        if !matches!(rule.dedup, Dedup::Reports) && !peer.may_publish(rule.topic) {
            reached(Branch::NotPermitted);
            return Err(DropReason::NotPermitted);
        }
        let sent_at = self.clocks[claimed.get()].to_ours(header.sent_at(), received_at, now);
        let lifespan = [header.lifespan(), rule.lifespan].into_iter().flatten().min();
        let expired = lifespan.is_some_and(|lifespan| lifetime_clock(now) - sent_at > lifespan);
        // A reader goes on without a message that is too old, and says so; it must know of it.
        let judged_later = matches!(rule.dedup, Dedup::Readers(_));
        if expired && !judged_later && !planted(Fault::LifespanIgnored) {
            reached(Branch::Expired);
            return Err(DropReason::Expired);
        }
        Ok((verified, sent_at))
    }
}
