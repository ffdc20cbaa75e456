//! A subscriber's watch over one topic: whether messages come as often as they must, and whether their
//! publishers are there.
//!
//! The deliver stage looks; the events go to the subscriber through a ring of its own, so that a stage
//! or a loop that reads messages need not ask the clock. DDS calls these DEADLINE and LIVELINESS.

use crate::security::PeerIndex;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::{KeyId, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::Counter;
use sinew_rt::ring::Producer;

/// Something about a topic that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicEvent {
    /// No message came for longer than the topic's deadline. Told once, until one comes.
    DeadlineMissed {
        /// When the last one came, or the watch began, on this node's clock.
        since: Nanos,
    },
    /// A message came after a deadline was missed.
    Recovered {
        /// How long there was none.
        after: Nanos,
    },
    /// A publisher that had been heard has said nothing for three seconds: neither a message nor a
    /// Hello, of which it owes one each second.
    Silent {
        /// The key id of the publisher.
        from: KeyId,
    },
    /// A publisher is heard, for the first time or again.
    Alive {
        /// The key id of the publisher.
        from: KeyId,
    },
}

/// The silence after which a publisher counts as gone: three Hellos.
const LEASE: Nanos = Nanos::from_secs(3);

/// A peer that may publish the topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publisher {
    pub(crate) peer: PeerIndex,
    pub(crate) key: KeyId,
    /// When it was last heard, while it counts as alive.
    pub(crate) heard_at: Option<Nanos>,
}

/// The watch over one topic with a deadline.
pub(crate) struct Watch {
    topic: TopicId,
    deadline: Nanos,
    heard_at: Nanos,
    missed: bool,
    publishers: Vec<Publisher>,
    events: Option<Producer<TopicEvent>>,
    misses: Counter,
}

impl Watch {
    /// A watch that begins at `now`, as if a message had come.
    pub(crate) fn new(
        topic: TopicId,
        deadline: Nanos,
        publishers: Vec<Publisher>,
        events: Option<Producer<TopicEvent>>,
        misses: Counter,
        now: Nanos,
    ) -> Self {
        Self { topic, deadline, heard_at: now, missed: false, publishers, events, misses }
    }

    /// Takes note of a sign of life of a peer.
    pub(crate) fn alive(&mut self, peer: PeerIndex, now: Nanos) {
        let Some(publisher) = self.publishers.iter_mut().find(|known| known.peer == peer) else {
            return;
        };
        let from = publisher.key;
        if publisher.heard_at.replace(now).is_none() {
            self.tell(TopicEvent::Alive { from });
        }
    }

    /// Takes note of a message of `peer` that was delivered.
    pub(crate) fn delivered(&mut self, topic: TopicId, peer: PeerIndex, now: Nanos) {
        if topic != self.topic {
            return;
        }
        self.alive(peer, now);
        if std::mem::take(&mut self.missed) {
            reached(Branch::DeadlineRecovered);
            let after = now - self.heard_at;
            self.tell(TopicEvent::Recovered { after });
        }
        self.heard_at = now;
    }

    /// Looks whether the deadline has passed, and who has fallen silent.
    pub(crate) fn turn(&mut self, now: Nanos) {
        for n in 0..self.publishers.len() {
            let publisher = &mut self.publishers[n];
            let from = publisher.key;
            if publisher.heard_at.is_some_and(|at| now - at > LEASE) {
                publisher.heard_at = None;
                self.tell(TopicEvent::Silent { from });
            }
        }
        if !self.missed && now - self.heard_at > self.deadline {
            reached(Branch::DeadlineMissed);
            self.missed = true;
            self.misses.increment();
            self.tell(TopicEvent::DeadlineMissed { since: self.heard_at });
        }
    }

    /// When to look again.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let deadline = (!self.missed).then(|| self.heard_at + self.deadline);
        let leases = self.publishers.iter().filter_map(|publisher| publisher.heard_at);
        let next = leases.map(|at| at + LEASE).chain(deadline).min();
        next.map(|at| at + Nanos::new(1))
    }

    fn tell(&mut self, event: TopicEvent) {
        if let Some(events) = &mut self.events
            && !planted(Fault::DeadlineNotTold)
        {
            // A subscriber that reads no events has the counter.
            let _ = events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::panel::{Panel, PanelSpec};
    use sinew_rt::ring;

    const PEER: PeerIndex = PeerIndex::new(0);

    #[test]
    fn a_publisher_that_falls_silent_is_told_and_so_is_its_return() {
        let panel = Panel::anonymous(&PanelSpec::new("watch")).unwrap();
        let (producer, mut events) = ring::channel(8);
        let (topic, secs) = (TopicId::of("state"), Nanos::from_secs);
        let misses = panel.counter("misses").unwrap();
        let key = KeyId::from_raw(7);
        let publishers = vec![Publisher { peer: PEER, key, heard_at: None }];
        let long = secs(1_000);
        let mut watch = Watch::new(topic, long, publishers, Some(producer), misses, secs(0));
        watch.turn(secs(10));
        assert_eq!(events.pop(), None, "who was never heard is not missed");
        watch.alive(PeerIndex::new(1), secs(10));
        watch.alive(PEER, secs(10));
        watch.alive(PEER, secs(11));
        assert_eq!(events.pop(), Some(TopicEvent::Alive { from: key }));
        assert_eq!(watch.next_deadline(), Some(secs(14) + Nanos::new(1)));
        watch.turn(secs(14));
        assert_eq!(events.pop(), None);
        watch.turn(secs(15));
        watch.turn(secs(16));
        assert_eq!(events.pop(), Some(TopicEvent::Silent { from: key }));
        watch.delivered(topic, PEER, secs(20));
        assert_eq!(events.pop(), Some(TopicEvent::Alive { from: key }));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn a_missed_deadline_is_told_once_and_its_end_too() {
        let panel = Panel::anonymous(&PanelSpec::new("watch")).unwrap();
        let (producer, mut events) = ring::channel(8);
        let (topic, ms) = (TopicId::of("state"), Nanos::from_millis);
        let misses = panel.counter("misses").unwrap();
        let mut watch = Watch::new(topic, ms(10), Vec::new(), Some(producer), misses, ms(0));
        watch.turn(ms(10));
        assert_eq!(events.pop(), None);
        assert_eq!(watch.next_deadline(), Some(ms(10) + Nanos::new(1)));
        watch.turn(ms(11));
        watch.turn(ms(12));
        assert_eq!(events.pop(), Some(TopicEvent::DeadlineMissed { since: ms(0) }));
        assert_eq!((events.pop(), watch.next_deadline()), (None, None));
        watch.delivered(TopicId::of("another"), PEER, ms(14));
        assert_eq!(events.pop(), None);
        watch.delivered(topic, PEER, ms(15));
        assert_eq!(events.pop(), Some(TopicEvent::Recovered { after: ms(15) }));
        watch.turn(ms(20));
        assert_eq!(events.pop(), None);
        assert_eq!(panel.snapshot().unwrap().counter("misses"), Some(1));
    }
}
