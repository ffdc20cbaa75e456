//! What a writer has to say to its publisher: a bounded queue that keeps the oldest.

use crate::delivery::Outcome;
use crate::security::PeerIndex;
use crate::wire::{Class, SchemaId, Sequence, TopicId};
use std::collections::VecDeque;
use thiserror::Error;

/// Events that wait at most; those beyond are counted.
pub(super) const EVENTS_MAX: usize = 64;

/// A reader that expects another type or class than the writer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "peer {} reads topic {topic} as schema {their_schema}, class {their_class:?}, but it is published as \
     schema {our_schema}, class {our_class:?}; declare the same on both ends",
    peer.get()
)]
pub(crate) struct Mismatch {
    /// The reader.
    pub(crate) peer: PeerIndex,
    /// The topic.
    pub(crate) topic: TopicId,
    /// The type that is published.
    pub(crate) our_schema: SchemaId,
    /// The type that the reader expects.
    pub(crate) their_schema: SchemaId,
    /// The class that is published.
    pub(crate) our_class: Class,
    /// The class that the reader expects.
    pub(crate) their_class: Class,
}

/// Something that the publisher should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterEvent {
    /// What a reader lacked of these messages will not be sent to it again.
    Lagging {
        /// The reader.
        peer: PeerIndex,
        /// The first of them.
        first: Sequence,
        /// The last of them.
        last: Sequence,
    },
    /// The one word on what became of a command.
    Resolved {
        /// The command.
        sequence: Sequence,
        /// What became of it.
        outcome: Outcome,
    },
    /// A reader expects something else; told once until it matches.
    Mismatch(Mismatch),
}

#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<WriterEvent>,
    lost: u64,
}

impl Events {
    /// Allocates.
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::with_capacity(EVENTS_MAX), lost: 0 }
    }

    /// Adds an event, or counts it when the queue is full. What a peer lacks in addition to a range
    /// that still waits to be told lengthens that range.
    pub(super) fn push(&mut self, event: WriterEvent) {
        if let WriterEvent::Lagging { peer, first, last } = event {
            let joined = self.queue.iter_mut().any(|waiting| match waiting {
                WriterEvent::Lagging { peer: other, last: end, .. }
                    if *other == peer && end.next() == Some(first) =>
                {
                    *end = last;
                    true
                }
                _ => false,
            });
            if joined {
                return;
            }
        }
        if self.queue.len() == EVENTS_MAX {
            self.lost += 1;
            return;
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<WriterEvent> {
        self.queue.pop_front()
    }

    /// Events that found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}
