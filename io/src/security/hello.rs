//! The handshake: Challenge and Hello, which say whose life a peer's streams belong to.
//!
//! Sans-I/O: frames, `now` and randomness go in; frames to send, events and the next deadline come
//! out. Each node challenges every enrolled peer, again and again: at once, then after 50 ms and at
//! doubling intervals up to a second until the peer answers, and every second from then on, which
//! is also the sign of life and the measurement of the clock. A peer that shows a newer life than the
//! known one is challenged anew at once, but not within 50 ms of the last Challenge.
//!
//! - A Challenge draws one Hello if it is signed by an enrolled peer, addressed to us, and newer
//!   than the last one of that peer (by its epoch and clock, so a recording draws nothing).
//! - A Hello counts if it is signed by that peer, addressed to us, and echoes the one nonce that is
//!   outstanding for that peer. Its epoch must be higher than the one we know, or the same with the
//!   same life id. The same epoch with another life id is a cloned key, or a disk that was rolled
//!   back, and is refused.
//!
//! The caller charges [`Admission`](super::Admission) before [`Handshake::handle`], which costs one
//! signature check, and for a good Challenge one signature.

use std::sync::Arc;

use sinew_rt::clock::Nanos;

use super::bucket::TokenBucket;
use super::enrolment::{Enrolment, PeerIndex};
use super::identity::{Identity, PublicKey};
use super::peer_clock::PeerClock;
use super::verify::verify;
use crate::delivery::DropReason;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::hello::{
    HandshakeBytes, HelloFields, STREAMS_MAX, encode_challenge, encode_hello,
};
use crate::wire::{
    BootId, Challenge, ClusterName, ClusterTag, Domain, Epoch, Frame, HandshakeFrame,
    HandshakeMessage, Hello, LifeId, Nonce, RawFrame, Sequence, SigningContext, StreamStart,
    TopicId,
};

/// The first interval between Challenges to a peer that has not answered, and the shortest ever.
pub const RETRY_FIRST: Nanos = Nanos::from_millis(50);
/// The longest interval, and the one for peers that answer.
pub const RETRY_LAST: Nanos = Nanos::from_secs(1);
/// Hellos a second that one peer can draw; an honest one asks at most 20 times a second.
pub const ANSWERS_PER_S: u32 = 20;
/// Hellos at once that one peer can draw.
pub const ANSWERS_BURST: u32 = 8;

/// Whose life this node is in.
#[derive(Clone, Copy, Debug)]
pub struct OwnLife {
    /// The boot counter, already on disk.
    pub epoch: Epoch,
    /// Drawn at random for this life.
    pub life: LifeId,
    /// The kernel's boot id.
    pub boot: BootId,
}

/// A frame as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// When it arrived, on our clock: no later than now, and the nearer to the wire the better the
    /// estimate of the peer's clock.
    pub at: Nanos,
}

/// The streams that a peer announced: a list of at most [`STREAMS_MAX`], copied through rings.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    streams: [StreamStart; STREAMS_MAX],
    len: usize,
}

impl Announced {
    fn of(hello: &Hello) -> Self {
        let none = StreamStart { topic: TopicId::default(), next: Sequence::FIRST };
        let mut list = Self { streams: [none; STREAMS_MAX], len: 0 };
        for (slot, stream) in list.streams.iter_mut().zip(hello.streams()) {
            *slot = stream;
            list.len += 1;
        }
        list
    }

    /// The streams.
    #[must_use]
    pub fn as_slice(&self) -> &[StreamStart] {
        self.streams.get(..self.len).unwrap_or_default()
    }
}

/// What an accepted Hello established.
#[derive(Clone, Copy, Debug)]
pub struct PeerLife {
    /// The peer.
    pub peer: PeerIndex,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its life.
    pub life: LifeId,
    /// Whether this life was unknown before: every stream of the peer starts anew.
    pub is_new: bool,
    /// Whether the peer runs on our kernel, and so reads the same `CLOCK_MONOTONIC`.
    pub same_boot: bool,
    /// Where its streams go on.
    pub streams: Announced,
    /// The best estimate of its clock in this life.
    pub clock: PeerClock,
}

/// What a good frame led to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// A Challenge: send this Hello to the peer.
    Reply {
        /// To whom.
        peer: PeerIndex,
        /// The frame.
        frame: HandshakeBytes,
    },
    /// A Hello: this is what is known of the peer now.
    Life(PeerLife),
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its epoch, or [`Epoch::NONE`] before its first Hello.
    pub epoch: Epoch,
    /// When its last good Hello arrived.
    pub heard_at: Option<Nanos>,
    /// The estimate of its clock.
    pub clock: Option<PeerClock>,
}

#[derive(Debug)]
struct PeerState {
    /// The last Challenge sent, until it is answered.
    outstanding: Option<(Nonce, Nanos)>,
    challenged_at: Option<Nanos>,
    challenge_due: Nanos,
    retry: Nanos,
    /// Epoch and clock of the peer's last good Challenge.
    asked: Option<(Epoch, Nanos)>,
    answers: TokenBucket,
    epoch: Epoch,
    life: LifeId,
    heard_at: Option<Nanos>,
    clock: Option<PeerClock>,
}

/// The handshake of one node with all its peers.
#[derive(Debug)]
pub struct Handshake {
    identity: Arc<Identity>,
    enrolment: Arc<Enrolment>,
    own: OwnLife,
    tag: ClusterTag,
    challenges: SigningContext,
    hellos: SigningContext,
    peers: Box<[PeerState]>,
}

impl Handshake {
    /// The handshake of the node `identity` in its life `own`, with every peer in `enrolment`.
    /// The first Challenges are due at once. Allocates; nothing after does.
    #[must_use]
    pub fn new(
        identity: Arc<Identity>,
        enrolment: Arc<Enrolment>,
        cluster: &ClusterName,
        own: OwnLife,
        now: Nanos,
    ) -> Self {
        let fresh = |_| PeerState {
            outstanding: None,
            challenged_at: None,
            challenge_due: now,
            retry: RETRY_FIRST,
            asked: None,
            answers: TokenBucket::new(ANSWERS_PER_S, ANSWERS_BURST, now),
            epoch: Epoch::NONE,
            life: LifeId::default(),
            heard_at: None,
            clock: None,
        };
        let peers = enrolment.iter().map(fresh).collect();
        Self {
            identity,
            enrolment,
            own,
            tag: cluster.tag(),
            challenges: SigningContext::new(Domain::Challenge, cluster),
            hellos: SigningContext::new(Domain::Hello, cluster),
            peers,
        }
    }

    /// The next Challenge that is due, if any: call until it returns `None`. `random` fills bytes
    /// that nobody can guess.
    pub fn poll(
        &mut self,
        now: Nanos,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<(PeerIndex, HandshakeBytes)> {
        let due = self.peers.iter().position(|peer| peer.challenge_due <= now)?;
        let index = PeerIndex::new(due as u16);
        let to = self.enrolment.get(index)?.key.id();
        let peer = self.peers.get_mut(due)?;
        reached(Branch::ChallengeSent);
        let mut nonce = Nonce::default();
        random(&mut nonce.0);
        peer.outstanding = Some((nonce, now));
        peer.challenged_at = Some(now);
        peer.challenge_due = now + peer.retry;
        peer.retry = (peer.retry * 2).min(RETRY_LAST);
        let from = self.identity.public().id();
        let challenge = Challenge::new(from, to, nonce, self.own.epoch, now);
        let sign = |body: &[u8]| self.identity.sign(&[self.challenges.as_bytes(), body]);
        Some((index, encode_challenge(self.tag, &challenge, sign)))
    }

    /// When [`Handshake::poll`] has something next; `None` without peers.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.peers.iter().map(|peer| peer.challenge_due).min()
    }

    /// Takes in one handshake frame. `streams` says where this node's own streams go on, as of now:
    /// every envelope below those numbers has been sent. Errors are why the frame counts for nothing.
    pub fn handle(
        &mut self,
        now: Nanos,
        received: Received<'_>,
        streams: &[StreamStart],
    ) -> Result<Outcome, DropReason> {
        let raw = RawFrame::parse(received.bytes)?;
        if raw.header.cluster() != self.tag {
            return Err(DropReason::OtherCluster);
        }
        let Frame::Handshake(frame) = raw.contents()? else {
            return Err(DropReason::BadKind);
        };
        let enrolment = Arc::clone(&self.enrolment);
        let (index, peer) = enrolment.find(frame.message.from()).ok_or(DropReason::UnknownKey)?;
        let at = received.at.min(now);
        match frame.message {
            HandshakeMessage::Challenge(challenge) => {
                self.challenged(index, &peer.key, challenge, &frame, now)?;
                Ok(Outcome::Reply { peer: index, frame: self.answer(challenge, at, now, streams) })
            }
            HandshakeMessage::Hello(hello) => {
                self.greeted(index, &peer.key, hello, &frame, at).map(Outcome::Life)
            }
        }
    }

    /// What is known of a peer.
    #[must_use]
    pub fn status(&self, peer: PeerIndex) -> Option<PeerStatus> {
        let peer = self.peers.get(peer.get())?;
        Some(PeerStatus { epoch: peer.epoch, heard_at: peer.heard_at, clock: peer.clock })
    }

    fn challenged(
        &mut self,
        index: PeerIndex,
        key: &PublicKey,
        challenge: &Challenge,
        frame: &HandshakeFrame<'_>,
        now: Nanos,
    ) -> Result<(), DropReason> {
        if challenge.to() != self.identity.public().id() {
            return Err(DropReason::NotForUs);
        }
        let peer = self.peers.get_mut(index.get()).ok_or(DropReason::UnknownKey)?;
        let asked = (challenge.epoch_hint(), challenge.sent_at());
        if asked.0 < peer.epoch {
            reached(Branch::ChallengeOfOldLife);
            return Err(DropReason::OldEpoch);
        }
        if peer.asked.is_some_and(|last| asked <= last) && !planted(Fault::StaleChallengeAnswered) {
            reached(Branch::ChallengeStale);
            return Err(DropReason::ChallengeStale);
        }
        verify(key, &[self.challenges.as_bytes(), frame.signed_bytes()], frame.signature)
            .inspect_err(|_| reached(Branch::ChallengeForged))
            .map_err(|_| DropReason::BadSignature)?;
        let first_of_its_life = peer.asked.is_none_or(|(epoch, _)| asked.0 > epoch);
        peer.asked = Some(asked);
        if asked.0 > peer.epoch && first_of_its_life {
            reached(Branch::UnknownLifeSeen);
            // A life that we do not know: ask at once, but never more often than the first interval,
            // and only once. A Challenge for each of the peer's would replace the nonce before an
            // answer that takes longer than that interval could come back.
            let earliest = peer.challenged_at.map_or(now, |last| last + RETRY_FIRST);
            peer.challenge_due = peer.challenge_due.min(earliest.max(now));
            peer.retry = RETRY_FIRST;
        }
        match peer.answers.take(now) || planted(Fault::AnswersUnlimited) {
            true => Ok(()),
            false => {
                reached(Branch::ChallengeLimited);
                Err(DropReason::ChallengeLimited)
            }
        }
    }

    fn answer(
        &self,
        challenge: &Challenge,
        received_at: Nanos,
        now: Nanos,
        streams: &[StreamStart],
    ) -> HandshakeBytes {
        reached(Branch::ChallengeAnswered);
        let fields = HelloFields {
            from: self.identity.public().id(),
            epoch: self.own.epoch,
            life: self.own.life,
            boot: self.own.boot,
            received_at,
            sent_at: now,
            streams,
        };
        let hello = Hello::answer(challenge, &fields);
        encode_hello(self.tag, &hello, |body| self.identity.sign(&[self.hellos.as_bytes(), body]))
    }

    fn greeted(
        &mut self,
        index: PeerIndex,
        key: &PublicKey,
        hello: &Hello,
        frame: &HandshakeFrame<'_>,
        at: Nanos,
    ) -> Result<PeerLife, DropReason> {
        if hello.to() != self.identity.public().id() {
            return Err(DropReason::NotForUs);
        }
        let peer = self.peers.get_mut(index.get()).ok_or(DropReason::UnknownKey)?;
        let echoed = (hello.nonce(), hello.challenge_sent_at());
        if peer.outstanding != Some(echoed) && !planted(Fault::NonceNotChecked) {
            reached(Branch::HelloUnasked);
            return Err(DropReason::HelloUnasked);
        }
        verify(key, &[self.hellos.as_bytes(), frame.signed_bytes()], frame.signature)
            .inspect_err(|_| reached(Branch::HelloForged))
            .or_else(|bad| if planted(Fault::HelloNotChecked) { Ok(()) } else { Err(bad) })
            .map_err(|_| DropReason::BadSignature)?;
        let returns = planted(Fault::OldEpochAccepted) && hello.epoch() < peer.epoch;
        let is_new = hello.epoch() > peer.epoch || returns;
        if hello.epoch() < peer.epoch && !returns || hello.epoch() == Epoch::NONE {
            reached(Branch::HelloOfOldLife);
            return Err(DropReason::OldEpoch);
        }
        if !is_new && hello.life() != peer.life && !planted(Fault::LifeConflictAccepted) {
            reached(Branch::LifeConflict);
            return Err(DropReason::LifeConflict);
        }
        let measured = PeerClock::measure(echoed.1, hello.received_at(), hello.sent_at(), at)
            .ok_or(DropReason::BadTimestamps)
            .inspect_err(|_| reached(Branch::TimestampsRefused))?;
        let clock = match peer.clock {
            Some(known) if !is_new => known.better(measured, at),
            _ => measured,
        };
        reached(if is_new { Branch::HelloOfNewLife } else { Branch::HelloOfSameLife });
        peer.outstanding = None;
        peer.epoch = hello.epoch();
        peer.life = hello.life();
        peer.heard_at = Some(at);
        peer.clock = Some(clock);
        peer.retry = RETRY_LAST;
        peer.challenge_due = at + RETRY_LAST;
        Ok(PeerLife {
            peer: index,
            epoch: hello.epoch(),
            life: hello.life(),
            is_new,
            same_boot: hello.boot() == self.own.boot,
            streams: Announced::of(hello),
            clock,
        })
    }
}
