//! The streams that a node receives: one replay window per enrolled peer and subscribed topic.
//!
//! The verify stage owns the table. Before a signature is checked it asks [`StreamTable::peek`];
//! after, it spends what it got on [`StreamTable::commit`]. Nothing passes before the handshake
//! said whose life the peer is in ([`StreamTable::new_life`]).

use thiserror::Error;

use super::DropReason;
use super::window::{JUMP_MAX, Verdict, Window};
use crate::security::{PeerIndex, PeerLife};
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::{Epoch, Sequence, StreamStart, TopicId};

/// The most topics that one node subscribes to.
pub const TOPICS_MAX: usize = 64;

/// Why a table was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamTableError {
    /// More topics than the table is made for.
    #[error("{got} subscribed topics; {TOPICS_MAX} is the most")]
    TooManyTopics {
        /// Their number.
        got: usize,
    },
    /// One id twice: the same topic twice, or two names that collide.
    #[error("topic id {topic} appears twice; remove one, or rename it if the names differ")]
    SameTopic {
        /// The id.
        topic: TopicId,
    },
}

/// Permission to commit one envelope, from a peek that found it fresh. Used up by the commit.
#[derive(Debug)]
#[must_use = "without a commit the same envelope would be delivered again"]
pub struct Pending {
    stream: usize,
    epoch: Epoch,
    sequence: Sequence,
}

/// The windows of all streams, allocated once.
#[derive(Debug)]
pub struct StreamTable {
    topics: Box<[TopicId]>,
    epochs: Box<[Epoch]>,
    /// By peer, then topic; `None` until the peer's Hello announced the stream.
    windows: Box<[Option<Window>]>,
}

impl StreamTable {
    /// A table for `peers` peers and the topics that this node subscribes to. Allocates about 150
    /// bytes per pair.
    pub fn new(peers: usize, topics: &[TopicId]) -> Result<Self, StreamTableError> {
        if topics.len() > TOPICS_MAX {
            return Err(StreamTableError::TooManyTopics { got: topics.len() });
        }
        let mut topics: Box<[TopicId]> = topics.into();
        topics.sort_unstable();
        if let Some(same) = topics.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(StreamTableError::SameTopic { topic: same[0] });
        }
        let windows = vec![None; peers * topics.len()].into();
        Ok(Self { topics, epochs: vec![Epoch::NONE; peers].into(), windows })
    }

    /// The life that the handshake last established for `peer`.
    #[must_use]
    pub fn epoch(&self, peer: PeerIndex) -> Epoch {
        self.epochs.get(peer.get()).copied().unwrap_or(Epoch::NONE)
    }

    /// Takes what a Hello established: a new life, or more about the present one.
    pub fn hello(&mut self, life: &PeerLife) {
        let streams = life.streams.as_slice().iter().copied();
        let returns = planted(Fault::OldEpochAccepted) && life.epoch < self.epoch(life.peer);
        match life.epoch > self.epoch(life.peer) || returns {
            true => self.new_life(life.peer, life.epoch, streams),
            false => self.same_life(life.peer, life.epoch, streams),
        }
    }

    /// Starts a new life of `peer`: its old windows end, and each announced stream that this node
    /// subscribes to starts at its next sequence. Streams that were not announced stay closed.
    ///
    /// The handshake has made sure that the life is new; a lower or equal epoch is ignored here too.
    pub fn new_life(
        &mut self,
        peer: PeerIndex,
        epoch: Epoch,
        streams: impl IntoIterator<Item = StreamStart>,
    ) {
        let Some(known) = self.epochs.get_mut(peer.get()) else { return };
        if epoch <= *known && !planted(Fault::OldEpochAccepted) {
            return;
        }
        *known = epoch;
        let first = peer.get() * self.topics.len();
        if !planted(Fault::LifeNotReset) {
            self.windows[first..first + self.topics.len()].fill(None);
        }
        self.same_life(peer, epoch, streams);
    }

    /// Takes what a further Hello of the same life announced: streams that were closed open, streams
    /// that went on by more than [`JUMP_MAX`] unheard go on from there, all others stay as they are.
    pub fn same_life(
        &mut self,
        peer: PeerIndex,
        epoch: Epoch,
        streams: impl IntoIterator<Item = StreamStart>,
    ) {
        if epoch == Epoch::NONE || epoch != self.epoch(peer) {
            return;
        }
        for start in streams {
            let Some(stream) = self.stream(peer, start.topic) else { continue };
            let window = &mut self.windows[stream];
            let lost = |window: &Window| {
                start.next.get().saturating_sub(window.highest().get()) > JUMP_MAX
            };
            if window.as_ref().is_none_or(lost) {
                if window.is_some() {
                    reached(Branch::StreamReopened);
                }
                *window = Some(Window::starting_at(start.next));
            }
        }
    }

    /// Whether an envelope could be delivered, before anything about it is proven. Wait-free.
    ///
    /// Refuses with `UnknownTopic`, `NoLife`, `OldEpoch`, `FutureEpoch`, `Replay`, `BelowWindow` or
    /// `TooFarAhead`.
    pub fn peek(
        &self,
        peer: PeerIndex,
        topic: TopicId,
        epoch: Epoch,
        sequence: Sequence,
    ) -> Result<Pending, DropReason> {
        let (stream, window) = self.open(peer, topic, epoch)?;
        refuse(window.peek(sequence))?;
        Ok(Pending { stream, epoch, sequence })
    }

    /// Whether the stream is open in this life of the peer, for streams whose sequences are judged
    /// elsewhere. Wait-free; refuses with `UnknownTopic`, `NoLife`, `OldEpoch` or `FutureEpoch`.
    pub fn peek_life(
        &self,
        peer: PeerIndex,
        topic: TopicId,
        epoch: Epoch,
    ) -> Result<(), DropReason> {
        self.open(peer, topic, epoch).map(|_| ())
    }

    /// The window of a stream that is open in this life.
    fn open(
        &self,
        peer: PeerIndex,
        topic: TopicId,
        epoch: Epoch,
    ) -> Result<(usize, &Window), DropReason> {
        let stream = self.stream(peer, topic).ok_or(DropReason::UnknownTopic)?;
        let known = self.epoch(peer);
        if known == Epoch::NONE {
            reached(Branch::NoLife);
            return Err(DropReason::NoLife);
        }
        let epoch = if planted(Fault::EpochNotChecked) { known } else { epoch };
        if epoch < known {
            reached(Branch::OldEpoch);
            return Err(DropReason::OldEpoch);
        }
        if epoch > known {
            reached(Branch::FutureEpoch);
            return Err(DropReason::FutureEpoch);
        }
        let window = self.windows[stream].as_ref().ok_or(DropReason::NoLife)?;
        Ok((stream, window))
    }

    /// Notes a verified envelope as done. Refuses if the peer began a new life since the peek, or if
    /// the same sequence was committed since. Wait-free.
    pub fn commit(&mut self, pending: Pending) -> Result<(), DropReason> {
        let peer = pending.stream / self.topics.len().max(1);
        let present = self.epochs.get(peer) == Some(&pending.epoch);
        if !present && !planted(Fault::EpochNotChecked) {
            return Err(DropReason::OldEpoch);
        }
        match self.windows.get_mut(pending.stream) {
            Some(Some(window)) => match refuse(window.commit(pending.sequence)) {
                Err(_) if planted(Fault::WindowBeforeAuthentication) => Ok(()),
                committed => committed,
            },
            _ => Err(DropReason::NoLife),
        }
    }

    fn stream(&self, peer: PeerIndex, topic: TopicId) -> Option<usize> {
        let column = self.topics.binary_search(&topic).ok()?;
        let row = if planted(Fault::WindowWithoutSender) { 0 } else { peer.get() };
        (peer.get() < self.epochs.len()).then(|| row * self.topics.len() + column)
    }
}

fn refuse(verdict: Verdict) -> Result<(), DropReason> {
    match verdict {
        Verdict::Fresh => Ok(()),
        Verdict::Replay => {
            reached(Branch::Replay);
            Err(DropReason::Replay)
        }
        Verdict::BelowWindow => {
            reached(Branch::BelowWindow);
            Err(DropReason::BelowWindow)
        }
        Verdict::TooFarAhead => {
            reached(Branch::TooFarAhead);
            Err(DropReason::TooFarAhead)
        }
    }
}
