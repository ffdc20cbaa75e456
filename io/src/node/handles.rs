//! What a program holds of its topics: publishers, readers of commands and streams, and the emergency stop.

use crate::delivery::{Outcome, outcome};
use crate::message::Message;
use crate::pipeline::reliable::{Decision, Delivery, GapCause, Received};
use crate::pipeline::send::Outgoing;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::Sequence;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::latest::LatestReader;
use sinew_rt::ring::{Consumer, Producer};
use sinew_rt::wait::Doorbell;
use std::sync::{Arc, OnceLock};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Sends messages of one topic to all peers.
///
/// A topic has one publisher in a node: it can be handed on to another thread, and it cannot be
/// doubled.
///
/// ```
/// fn can_be_sent<T: Send>() {}
/// can_be_sent::<sinew_io::node::Publisher<u64>>();
/// ```
///
/// ```compile_fail,E0277
/// fn can_be_cloned<T: Clone>() {}
/// can_be_cloned::<sinew_io::node::Publisher<u64>>();
/// ```
#[derive(Debug)]
pub struct Publisher<T> {
    pub(super) ring: Producer<Outgoing<T>>,
    pub(super) doorbell: Arc<OnceLock<Arc<Doorbell>>>,
}

/// The send stage has not kept up, or on a reliable topic the receivers: the message was not sent, and
/// sending it would have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the send stage or a receiver has not kept up; the message was not sent")]
pub struct PublisherFull;

impl<T: Message> Publisher<T> {
    /// Hands `value` to the send stage, dated now. Wait-free; one system call when the lane that
    /// sends is asleep. What the topic's class promises is in `docs/delivery.md`; the panel counts what the
    /// network did not take.
    ///
    /// # Errors
    /// [`PublisherFull`] when the send stage or, on a reliable topic, a receiver is behind; never a wait.
    #[inline]
    pub fn publish(&mut self, value: &T) -> Result<(), PublisherFull> {
        self.publish_at(value, clock::now())
    }

    /// The same for a message that was made at `at`.
    ///
    /// # Errors
    /// [`PublisherFull`] when the send stage or, on a reliable topic, a receiver is behind; never a wait.
    #[inline]
    pub fn publish_at(&mut self, value: &T, at: Nanos) -> Result<(), PublisherFull> {
        self.ring.push_with(|| Outgoing { value: *value, at }).map_err(|_| PublisherFull)?;
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.ring();
        }
        Ok(())
    }
}

/// Reads a [`Stream`](super::TopicClass::Stream) topic: each message of each sender in order, at most
/// once, and a gap for each that will not come.
#[derive(Debug)]
pub struct StreamReader<T> {
    pub(super) deliveries: Consumer<Delivery<T>>,
}

impl<T> StreamReader<T> {
    /// The next delivery. Wait-free. A subscriber that does not read holds its senders back: their
    /// `publish` says that it would block, and nothing is lost but what outlives its lifespan meanwhile.
    // Not an iterator: `None` means "not yet".
    #[expect(clippy::should_implement_trait, reason = "the next may come after a None")]
    pub fn next(&mut self) -> Option<Delivery<T>> {
        self.deliveries.pop()
    }

    /// What `read` makes of the next delivery, where it lies: saves large messages a copy. Wait-free.
    pub fn next_with<R>(&mut self, read: impl FnOnce(&Delivery<T>) -> R) -> Option<R> {
        self.deliveries.pop_with(read)
    }

    /// How many deliveries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}

/// The highest reason that [`CommandReader::reject`] can give.
pub const REASON_MAX: u8 = outcome::REASON_MAX;

/// The deliver stage has not kept up with decisions; this one was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deliver stage has not kept up; the decision was not taken, so tell it again")]
pub struct DecisionsFull;

/// Reads a [`Command`](super::TopicClass::Command) topic. Every command that it gives must be decided
/// by [`accept`](Self::accept) or [`reject`](Self::reject): the sender is waiting for that.
#[derive(Debug)]
pub struct CommandReader<T> {
    pub(super) deliveries: Consumer<Delivery<T>>,
    pub(super) decisions: Producer<Decision>,
    pub(super) doorbell: Arc<OnceLock<Arc<Doorbell>>>,
}

impl<T> CommandReader<T> {
    /// The next delivery at `now`. A command that grew older than its lifespan while it waited is not
    /// given: its sender is told that it expired, and this reader gets a gap. Wait-free.
    pub fn next(&mut self, now: Nanos) -> Option<Delivery<T>> {
        let delivery = self.deliveries.pop()?;
        let Delivery::Message(command) = &delivery else { return Some(delivery) };
        let fresh = command.expires_at.is_none_or(|at| now <= at);
        if fresh || planted(Fault::ExpiredCommandDelivered) {
            return Some(delivery);
        }
        reached(Branch::ExpiredInQueue);
        let Received { from, epoch, sequence, .. } = *command;
        // Without room the sender hears nothing, and takes the outcome as unknown.
        let _ = self.decide(command, Outcome::Expired);
        let (first, last, cause) = (sequence, sequence, GapCause::Expired);
        Some(Delivery::Gap { from, epoch, first, last, cause })
    }

    /// Tells the sender that the command is carried out.
    ///
    /// # Errors
    /// [`DecisionsFull`]: nobody was told.
    pub fn accept(&mut self, command: &Received<T>) -> Result<(), DecisionsFull> {
        self.decide(command, Outcome::Accepted)
    }

    /// Tells the sender that the command is not carried out, and why: a number from 0 to
    /// [`REASON_MAX`] whose meaning is the topic's; a higher one counts as that.
    ///
    /// # Errors
    /// [`DecisionsFull`]: nobody was told.
    pub fn reject(&mut self, command: &Received<T>, reason: u8) -> Result<(), DecisionsFull> {
        self.decide(command, Outcome::Rejected(reason.min(REASON_MAX)))
    }

    fn decide(&mut self, command: &Received<T>, outcome: Outcome) -> Result<(), DecisionsFull> {
        let Received { peer, epoch, sequence, .. } = *command;
        let decision = Decision { peer, epoch, sequence, outcome };
        self.decisions.push(decision).map_err(|_| DecisionsFull)?;
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.ring();
        }
        Ok(())
    }
}

/// Sends commands, and hears what became of each.
#[derive(Debug)]
pub struct CommandPublisher<T> {
    pub(super) publisher: Publisher<T>,
    /// The number of the next command: the send stage numbers in the order of sending.
    pub(super) next: u64,
    pub(super) outcomes: Consumer<(Sequence, Outcome)>,
}

impl<T: Message> CommandPublisher<T> {
    /// Hands a command to the send stage, dated now, and gives its number, under which
    /// [`outcome`](Self::outcome) will report. Wait-free; one system call when the lane that sends
    /// is asleep.
    ///
    /// # Errors
    /// [`PublisherFull`] when the receivers, or the send stage, are behind: it would have to wait.
    pub fn send(&mut self, command: &T) -> Result<Sequence, PublisherFull> {
        self.send_at(command, clock::now())
    }

    /// The same for a command that was made at `at`, from which its lifespan counts.
    ///
    /// # Errors
    /// [`PublisherFull`] when the receivers, or the send stage, are behind: it would have to wait.
    pub fn send_at(&mut self, command: &T, at: Nanos) -> Result<Sequence, PublisherFull> {
        self.publisher.publish_at(command, at)?;
        let sequence = Sequence::new(self.next);
        self.next += 1;
        Ok(sequence)
    }

    /// The next command whose outcome is known, in no particular order. Each command has one outcome,
    /// [`Outcome::Unknown`] if its lifespan and the topic's linger passed without a word: it may
    /// have been carried out or not.
    pub fn outcome(&mut self) -> Option<(Sequence, Outcome)> {
        self.outcomes.pop()
    }
}

/// "All is well": what an emergency stop's guardian says again and again.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllWell {
    /// Counts up, for whoever looks on.
    pub count: U64,
}

impl Message for AllWell {
    const NAME: &'static str = "AllWell@1";
}

/// What an emergency stop says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EStop {
    /// The guardian said that all is well, so long ago.
    Well {
        /// From its sending to now.
        age: Nanos,
    },
    /// Stop. It stays so until [`EStopReader::rearm`], whatever comes.
    Stop,
}

/// The receiving end of an emergency stop: silence for longer than the deadline is the stop, and so
/// is the time before the first word. It latches.
pub struct EStopReader {
    pub(super) newest: LatestReader<AllWell>,
    pub(super) deadline: Nanos,
    pub(super) armed: bool,
}

impl EStopReader {
    /// What holds at `now`. Wait-free: for every cycle of a control loop.
    pub fn check(&mut self, now: Nanos) -> EStop {
        let age = self.newest.read().map(|newest| newest.age(now));
        match age.filter(|age| self.armed && *age <= self.deadline) {
            Some(age) => EStop::Well { age },
            None => {
                self.armed = planted(Fault::EStopNotLatched);
                EStop::Stop
            }
        }
    }

    /// Ends a stop, if the guardian says that all is well at `now`; whether it did.
    pub fn rearm(&mut self, now: Nanos) -> bool {
        let age = self.newest.read().map(|newest| newest.age(now));
        self.armed = age.is_some_and(|age| age <= self.deadline);
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::latest;

    #[test]
    fn silence_is_the_stop_and_it_latches() {
        let (mut guardian, newest) = latest::channel();
        let ms = Nanos::from_millis;
        let mut stop = EStopReader { newest, deadline: ms(10), armed: false };
        assert_eq!(stop.check(ms(0)), EStop::Stop);
        assert!(!stop.rearm(ms(0)), "nobody has said that all is well");
        guardian.publish(AllWell::default(), ms(1));
        assert_eq!(stop.check(ms(2)), EStop::Stop, "a word alone does not end a stop");
        assert!(stop.rearm(ms(2)));
        assert_eq!(stop.check(ms(11)), EStop::Well { age: ms(10) });
        assert_eq!(stop.check(ms(12)), EStop::Stop);
        guardian.publish(AllWell::default(), ms(12));
        assert_eq!(stop.check(ms(12)), EStop::Stop);
        assert!(stop.rearm(ms(13)));
        assert_eq!(stop.check(ms(13)), EStop::Well { age: ms(1) });
    }
}
