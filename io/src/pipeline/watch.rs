//! A subscriber's watch over one topic: whether messages come as often as they must.
//!
//! The deliver stage looks; the events go to the subscriber through a ring of its own, so that a stage
//! or a loop that reads messages need not ask the clock. DDS calls the first DEADLINE.

use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::TopicId;
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
}

/// The watch over one topic with a deadline.
pub(crate) struct Watch {
    topic: TopicId,
    deadline: Nanos,
    heard_at: Nanos,
    missed: bool,
    events: Option<Producer<TopicEvent>>,
    misses: Counter,
}

impl Watch {
    /// A watch that begins at `now`, as if a message had come.
    pub(crate) fn new(
        topic: TopicId,
        deadline: Nanos,
        events: Option<Producer<TopicEvent>>,
        misses: Counter,
        now: Nanos,
    ) -> Self {
        Self { topic, deadline, heard_at: now, missed: false, events, misses }
    }

    /// Takes note of a message that was delivered.
    pub(crate) fn delivered(&mut self, topic: TopicId, now: Nanos) {
        if topic != self.topic {
            return;
        }
        if std::mem::take(&mut self.missed) {
            reached(Branch::DeadlineRecovered);
            let after = now - self.heard_at;
            self.tell(TopicEvent::Recovered { after });
        }
        self.heard_at = now;
    }

    /// Looks whether the deadline has passed.
    pub(crate) fn turn(&mut self, now: Nanos) {
        if !self.missed && now - self.heard_at > self.deadline {
            reached(Branch::DeadlineMissed);
            self.missed = true;
            self.misses.increment();
            self.tell(TopicEvent::DeadlineMissed { since: self.heard_at });
        }
    }

    /// When to look again.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        (!self.missed).then(|| self.heard_at + self.deadline + Nanos::new(1))
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

    #[test]
    fn a_missed_deadline_is_told_once_and_its_end_too() {
        let panel = Panel::anonymous(&PanelSpec::new("watch")).unwrap();
        let (producer, mut events) = ring::channel(8);
        let (topic, ms) = (TopicId::of("state"), Nanos::from_millis);
        let misses = panel.counter("misses").unwrap();
        let mut watch = Watch::new(topic, ms(10), Some(producer), misses, ms(0));
        watch.turn(ms(10));
        assert_eq!(events.pop(), None);
        assert_eq!(watch.next_deadline(), Some(ms(10) + Nanos::new(1)));
        watch.turn(ms(11));
        watch.turn(ms(12));
        assert_eq!(events.pop(), Some(TopicEvent::DeadlineMissed { since: ms(0) }));
        assert_eq!((events.pop(), watch.next_deadline()), (None, None));
        watch.delivered(TopicId::of("another"), ms(14));
        assert_eq!(events.pop(), None);
        watch.delivered(topic, ms(15));
        assert_eq!(events.pop(), Some(TopicEvent::Recovered { after: ms(15) }));
        watch.turn(ms(20));
        assert_eq!(events.pop(), None);
        assert_eq!(panel.snapshot().unwrap().counter("misses"), Some(1));
    }
}
