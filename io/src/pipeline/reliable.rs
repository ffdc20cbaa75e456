//! The deliver stage's part of one reliable topic: a reader for each peer, and the subscriber's queue.

use super::FRAMES_PER_POLL;
use super::deliver::Times;
use super::link::About;
use super::verified::{Contents, VerifiedFrame};
use crate::delivery::reader::{Accepted, Next, Reader};
use crate::delivery::{DropReason, Outcome};
use crate::message::Message;
use crate::security::{PeerIndex, PeerLife};
use crate::simulation::{Branch, Fault, lifetime_clock, planted, reached};
use crate::wire::report::Heartbeat;
use crate::wire::{Epoch, KeyId, SchemaId, Sequence, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Counter, Gauge, Recorder};
use sinew_rt::ring::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) peer: PeerIndex,
    pub(crate) from: KeyId,
    pub(crate) epoch: Epoch,
    /// No earlier life of the subscriber can have had this message or a later one.
    pub(crate) fresh_from: Sequence,
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// They did not arrive in time, and the stream went on without them.
    Lost,
    /// They arrived after their lifespan.
    Expired,
}

/// What a reliable topic gives its subscriber, in order for each sender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delivery<T> {
    /// A message.
    Message(Received<T>),
    /// These messages will not come: every one from `first` to `last`, which are never delivered.
    Gap {
        /// The key id of the sender.
        from: KeyId,
        /// The life of the sender.
        epoch: Epoch,
        /// The first that is missing.
        first: Sequence,
        /// The last that is missing.
        last: Sequence,
        /// Why.
        cause: GapCause,
    },
    /// A life of the sender begins for this subscriber, with the message of this number. What it
    /// sent before that is not delivered here.
    Started {
        /// The key id of the sender.
        from: KeyId,
        /// Its life.
        epoch: Epoch,
        /// The first message that this subscriber expects.
        first: Sequence,
    },
}

/// One message of a reliable topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received<T> {
    /// The message.
    pub value: T,
    /// The key id of the sender.
    pub from: KeyId,
    /// The life of the sender.
    pub epoch: Epoch,
    /// Its number in the stream.
    pub sequence: Sequence,
    /// When it was sent, on this node's clock.
    pub sent_at: Nanos,
    /// Whether an earlier life of this subscriber may have had it: it was sent before the resumed
    /// stream was there ([`Floor`]).
    pub possible_duplicate: bool,
    /// After this it must not be acted on, on this node's clock.
    pub(crate) expires_at: Option<Nanos>,
    pub(crate) peer: PeerIndex,
}

/// Where an earlier life of a subscriber stopped: it had everything up to this message of this life of
/// this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The key id of the sender.
    pub from: KeyId,
    /// The sender's life.
    pub epoch: Epoch,
    /// The last message that needs not come again.
    pub sequence: Sequence,
}

impl<T> Received<T> {
    /// What to store with the work that this message led to.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor { from: self.from, epoch: self.epoch, sequence: self.sequence }
    }
}

/// What the subscriber decided about a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub(crate) peer: PeerIndex,
    pub(crate) epoch: Epoch,
    pub(crate) sequence: Sequence,
    pub(crate) outcome: Outcome,
}

/// Something that is no message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    Gap { first: Sequence, last: Sequence, cause: GapCause },
    Started { first: Sequence },
}

/// The subscriber's end, without its type.
pub(crate) trait OrderedSink: Send {
    /// How many deliveries it has room for.
    fn free(&self) -> usize;
    /// Takes a message; there is room.
    fn deliver(
        &mut self,
        origin: Origin,
        contents: Contents<'_>,
        times: Times,
        expires_at: Option<Nanos>,
    ) -> Result<(), DropReason>;
    /// Takes a note; there is room.
    fn note(&mut self, origin: Origin, note: Note) -> Result<(), DropReason>;
    /// The next decision about a command.
    fn decision(&mut self) -> Option<Decision>;
    /// Whether there is one.
    fn has_decision(&self) -> bool;
}

/// A queue of typed deliveries, and for commands the way back.
pub(crate) struct OrderedQueue<T> {
    pub(crate) producer: Producer<Delivery<T>>,
    pub(crate) decisions: Option<Consumer<Decision>>,
}

impl<T: Message> OrderedSink for OrderedQueue<T> {
    fn free(&self) -> usize {
        self.producer.free()
    }

    fn deliver(
        &mut self,
        origin: Origin,
        contents: Contents<'_>,
        times: Times,
        expires_at: Option<Nanos>,
    ) -> Result<(), DropReason> {
        if contents.payload.len() != size_of::<T>() {
            return Err(DropReason::SchemaMismatch);
        }
        let sequence = contents.header.sequence();
        let marked = !planted(Fault::PossibleDuplicateUnmarked);
        let made = self.producer.push_with(|| {
            let value = T::read_from_bytes(contents.payload);
            Delivery::Message(Received {
                // It has that length, so this is never another value.
                value: value.unwrap_or_else(|_| T::new_zeroed()),
                from: origin.from,
                epoch: origin.epoch,
                sequence,
                sent_at: times.sent_at,
                possible_duplicate: sequence < origin.fresh_from && marked,
                expires_at,
                peer: origin.peer,
            })
        });
        made.map_err(|_| DropReason::QueueFull)
    }

    fn note(&mut self, origin: Origin, note: Note) -> Result<(), DropReason> {
        let Origin { from, epoch, .. } = origin;
        let delivery = match note {
            Note::Gap { first, last, cause } => Delivery::Gap { from, epoch, first, last, cause },
            Note::Started { first } => Delivery::Started { from, epoch, first },
        };
        if planted(Fault::GapReportedTwice) && matches!(delivery, Delivery::Gap { .. }) {
            let _ = self.producer.push(delivery);
        }
        self.producer.push(delivery).map_err(|_| DropReason::QueueFull)
    }

    fn decision(&mut self) -> Option<Decision> {
        self.decisions.as_mut()?.pop()
    }

    fn has_decision(&self) -> bool {
        self.decisions.as_ref().is_some_and(|decisions| !decisions.is_empty())
    }
}

/// The stream of one peer on one topic.
pub(crate) struct PeerStream {
    pub(crate) reader: Reader<VerifiedFrame>,
    pub(crate) key: KeyId,
    /// The life that the reader is in.
    pub(crate) epoch: Epoch,
    /// Where an earlier life of the subscriber stopped.
    pub(crate) resume: Option<Floor>,
    /// The first message that none of its earlier lives can have had.
    pub(crate) fresh_from: Sequence,
    /// The reader's floor, for the verify stage, which drops what is below it unchecked.
    pub(crate) floor: Arc<AtomicU64>,
    /// A life began and the subscriber has not been told yet.
    pub(crate) started: Option<Sequence>,
    /// A gap for which the subscriber had no room.
    pub(crate) gap: Option<(Sequence, Sequence, GapCause)>,
}

/// A reliable topic, its streams, and where they go.
pub(crate) struct ReliableRoute {
    pub(crate) topic: TopicId,
    pub(crate) schema: SchemaId,
    /// Whether its envelopes and the reports about them are unsigned.
    pub(crate) open: bool,
    pub(crate) is_command: bool,
    /// The greatest age at delivery, whatever longer life a sender gives.
    pub(crate) lifespan: Option<Nanos>,
    pub(crate) sink: Box<dyn OrderedSink>,
    /// By peer.
    pub(crate) streams: Box<[PeerStream]>,
    pub(crate) delivered: Counter,
    /// Messages that were reported as missing.
    pub(crate) missing: Counter,
    pub(crate) foreign_schema: Gauge,
    pub(crate) age: Recorder,
    /// The peer whose stream is served first.
    pub(crate) turn: usize,
    /// When a stream of this topic has to be looked at although nothing came.
    pub(crate) due: Option<Nanos>,
}

/// Deliveries that one peer may make on a topic before the next peer's turn: the quantum of a round robin.
/// (With messages of one size the deficits of Shreedhar and Varghese, 1995, are always zero.)
const QUANTUM: usize = 8;

/// How soon a full queue is looked at again: nobody tells the lane that the subscriber read.
const LOOK_AGAIN: Nanos = Nanos::from_millis(1);

impl ReliableRoute {
    /// Adopts what a Hello of `life.peer` established.
    pub(crate) fn hello(&mut self, life: &PeerLife, now: Nanos) {
        let Some(stream) = self.streams.get_mut(life.peer.get()) else { return };
        stream.reader.set_round_trip(life.clock.round_trip);
        let announced = life.streams.as_slice().iter().find(|start| start.topic == self.topic);
        let Some(start) = announced else { return };
        if life.epoch > stream.epoch {
            stream.epoch = life.epoch;
            stream.fresh_from = start.next;
            let resumed = stream.resume.take().filter(|floor| floor.epoch == life.epoch);
            let after = resumed.and_then(|floor| floor.sequence.next());
            let first = after.map_or(start.next, |after| after.min(start.next));
            reached(if after.is_some() { Branch::StreamResumed } else { Branch::StreamStarted });
            stream.reader.new_life(life.epoch, first, now);
            stream.started = Some(first);
            stream.gap = None;
            stream.floor.store(stream.reader.floor().get(), Ordering::Relaxed);
            self.due = Some(now);
        }
    }

    /// Whether something may be done at `now`.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        self.due.is_some_and(|due| due <= now) || self.sink.has_decision()
    }

    /// Takes in an authenticated frame. What is refused counts under the reason.
    pub(crate) fn accept(&mut self, frame: VerifiedFrame, now: Nanos) -> Result<(), DropReason> {
        let header = frame.contents().ok_or(DropReason::Malformed)?.header;
        let (schema, epoch) = (header.schema(), header.epoch());
        let (sequence, sent_at) = (header.sequence(), header.sent_at());
        if schema != self.schema {
            self.foreign_schema.set(schema.get().cast_signed());
            return Err(DropReason::SchemaMismatch);
        }
        let place = if planted(Fault::GapBufferShared) { 0 } else { frame.peer().get() };
        let stream = self.streams.get_mut(place).ok_or(DropReason::UnknownKey)?;
        if epoch != stream.epoch && !planted(Fault::EpochNotChecked) {
            let old = epoch < stream.epoch;
            return Err(if old { DropReason::OldEpoch } else { DropReason::FutureEpoch });
        }
        let accepted = stream.reader.accept(sequence, sent_at, frame, now);
        self.look_by(now);
        match accepted {
            Accepted::InOrder | Accepted::Held => Ok(()),
            Accepted::Duplicate(_) => Err(DropReason::Replay),
            Accepted::Beyond(_) => Err(DropReason::TooFarAhead),
        }
    }

    /// Takes in what the writer says about its stream.
    pub(crate) fn heartbeat(
        &mut self,
        peer: PeerIndex,
        epoch: Epoch,
        heartbeat: &Heartbeat,
        now: Nanos,
    ) -> Result<(), DropReason> {
        let stream = self.streams.get_mut(peer.get()).ok_or(DropReason::UnknownKey)?;
        if epoch != stream.epoch {
            return Err(DropReason::OldEpoch);
        }
        let heard = stream.reader.heartbeat(heartbeat, now);
        self.look_by(now);
        heard.map_err(|_| DropReason::QosMismatch)
    }

    /// Gives the subscriber what is due, as far as it has room; every peer gets its turn. Whether
    /// there was anything.
    pub(crate) fn serve(&mut self, now: Nanos) -> bool {
        let mut worked = false;
        while let Some(decision) = self.sink.decision() {
            worked = true;
            let Some(stream) = self.streams.get_mut(decision.peer.get()) else { continue };
            if stream.epoch == decision.epoch {
                let rejected = matches!(decision.outcome, Outcome::Rejected(_));
                let outcome = match rejected && planted(Fault::RejectionLost) {
                    true => Outcome::Accepted,
                    false => decision.outcome,
                };
                stream.reader.decide(decision.sequence, outcome.code());
            }
        }
        let peers = self.streams.len();
        let (mut left, mut idle) = (FRAMES_PER_POLL, 0);
        // Until as many streams after each other had nothing as there are.
        while idle < peers && left >= QUANTUM {
            let before = left;
            while left > before.saturating_sub(QUANTUM) && self.may_deliver() {
                if !self.serve_one(self.turn, now) {
                    break;
                }
                left -= 1;
            }
            idle = if left < before { 0 } else { idle + 1 };
            self.turn = (self.turn + 1) % peers;
        }
        worked |= left < FRAMES_PER_POLL;
        let free = self.sink.free() as u64;
        if free == 0 {
            reached(Branch::NoRoomToDeliver);
        }
        let lives = self.streams.iter().filter(|stream| stream.epoch != Epoch::NONE).count();
        // A queue that is nearly full still has one place for whoever comes first: what is promised to
        // the others as well waits in their readers.
        let share = (free / lives.max(1) as u64).max(free.min(1));
        for stream in &mut self.streams {
            stream.reader.room(share, now);
            stream.floor.store(stream.reader.floor().get(), Ordering::Relaxed);
        }
        worked
    }

    fn may_deliver(&self) -> bool {
        self.sink.free() > 0 || planted(Fault::SubscriberOverrun)
    }

    /// Delivers the next of one peer's stream; `false` when there is nothing.
    fn serve_one(&mut self, peer: usize, now: Nanos) -> bool {
        let Some(stream) = self.streams.get_mut(peer) else { return false };
        let origin = Origin {
            peer: PeerIndex::new(peer as u16),
            from: stream.key,
            epoch: stream.epoch,
            fresh_from: stream.fresh_from,
        };
        if let Some(first) = stream.started.take() {
            return self.sink.note(origin, Note::Started { first }).is_ok();
        }
        if let Some((first, last, cause)) = stream.gap.take() {
            self.missing.add((last.get() - first.get()).saturating_add(1));
            return self.sink.note(origin, Note::Gap { first, last, cause }).is_ok();
        }
        match stream.reader.next(now) {
            None => false,
            Some(Next::Gap { .. }) if planted(Fault::GapNotReported) => self.serve_one(peer, now),
            Some(Next::Gap { first, last }) => {
                stream.gap = Some((first, last, GapCause::Lost));
                self.serve_one(peer, now)
            }
            Some(Next::Frame(sequence, frame)) => {
                let cause = match deliver(&mut *self.sink, origin, &frame, self.lifespan, now) {
                    Ok(()) => {
                        self.delivered.increment();
                        self.age.record(now - frame.sent_at(), now);
                        return true;
                    }
                    Err(DropReason::Expired) => GapCause::Expired,
                    Err(_) => GapCause::Lost,
                };
                if self.is_command {
                    let outcome = match cause {
                        GapCause::Expired => Outcome::Expired,
                        GapCause::Lost => Outcome::NeverArrived,
                    };
                    stream.reader.decide(sequence, outcome.code());
                }
                stream.gap = Some((sequence, sequence, cause));
                self.serve_one(peer, now)
            }
        }
    }

    /// Hands over the entries that are due, and plans when to look again.
    pub(crate) fn report(&mut self, now: Nanos, mut push: impl FnMut(About) -> bool) {
        let mut due = None;
        for (peer, stream) in self.streams.iter_mut().enumerate() {
            while stream.reader.next_deadline().is_some_and(|at| at <= now) {
                let Some(entry) = stream.reader.report(now) else { break };
                let peer = PeerIndex::new(peer as u16);
                if !push(About { peer, open: self.open, entry }) {
                    // The send stage is behind; the reader says it again by itself.
                    break;
                }
            }
            // Its turn did not come yet.
            let waits = stream.started.is_some() && self.sink.free() > 0;
            let next = if waits { Some(now) } else { stream.reader.next_deadline() };
            due = [due, next].into_iter().flatten().min();
        }
        let again = (self.sink.free() == 0).then_some(now + LOOK_AGAIN);
        self.due = [due, again].into_iter().flatten().min();
    }

    fn look_by(&mut self, at: Nanos) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// Hands one message over, unless it is too old.
fn deliver(
    sink: &mut dyn OrderedSink,
    origin: Origin,
    frame: &VerifiedFrame,
    lifespan: Option<Nanos>,
    now: Nanos,
) -> Result<(), DropReason> {
    let contents = frame.contents().ok_or(DropReason::Malformed)?;
    let lifespan = [contents.header.lifespan(), lifespan].into_iter().flatten().min();
    let expires_at = lifespan.map(|lifespan| frame.sent_at() + lifespan);
    if expires_at.is_some_and(|at| lifetime_clock(now) > at)
        && !planted(Fault::ExpiredCommandDelivered)
    {
        reached(Branch::ExpiredInOrder);
        return Err(DropReason::Expired);
    }
    let times = Times { sent_at: frame.sent_at(), received_at: frame.received_at() };
    sink.deliver(origin, contents, times, expires_at)
}
