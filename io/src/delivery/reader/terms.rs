//! The words between a reader and the deliver stage that owns it.

use sinew_rt::clock::Nanos;
use thiserror::Error;

use crate::wire::{Class, SchemaId, Sequence, TopicId};

/// What a reader reads, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderSpec {
    /// The topic.
    pub(crate) topic: TopicId,
    /// The type that the subscriber expects.
    pub(crate) schema: SchemaId,
    /// The class that the subscriber expects: `Command` or `Stream`.
    pub(crate) class: Class,
    /// Messages that it holds beyond one that is missing, 1 to
    /// [`READER_SLOTS`](super::READER_SLOTS); what lies outside is brought inside.
    pub(crate) hold: u16,
    /// For so long a missing message may merely be late; then it is asked for.
    pub(crate) reorder: Nanos,
    /// What is missing for so long is given up.
    pub(crate) gap_timeout: Nanos,
    /// New messages after which an acknowledgement is due at the latest.
    pub(crate) acknowledge_every: u32,
    /// Time after the first unacknowledged message after which one is due at the latest.
    pub(crate) acknowledge_within: Nanos,
    /// Time after which one is due although nothing happened; at least 1 ms.
    pub(crate) refresh: Nanos,
    /// The lifespan of messages, if there is one: nothing is waited for longer.
    pub(crate) lifespan: Option<Nanos>,
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is given back must go back to its pool"]
pub(crate) enum Accepted<T> {
    /// Its turn has come: [`Reader::next`](super::Reader::next) gives it.
    InOrder,
    /// It waits for one before it.
    Held,
    /// It is done, or is already held.
    Duplicate(T),
    /// Too far above the floor, or of no known life.
    Beyond(T),
}

/// What the subscriber gets next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// A message.
    Frame(Sequence, T),
    /// These never arrived, and will not be delivered any more.
    Gap {
        /// The first of them.
        first: Sequence,
        /// The last of them.
        last: Sequence,
    },
}

/// Why a heartbeat was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Mismatch {
    /// The two ends disagree about what the stream promises.
    #[error("published as {theirs:?}, subscribed as {ours:?}; give the topic one class")]
    Class {
        /// What the subscriber expects.
        ours: Class,
        /// What the publisher says.
        theirs: Class,
    },
    /// The two ends disagree about the type of the messages.
    #[error("published with schema {theirs}, subscribed with {ours}; build both ends alike")]
    Schema {
        /// What the subscriber expects.
        ours: SchemaId,
        /// What the publisher says.
        theirs: SchemaId,
    },
    /// No sound writer says this.
    #[error("a heartbeat offers {first} to {last}, which cannot be")]
    Range {
        /// The lowest that can be sent again, as the publisher says.
        first: u64,
        /// The highest that was sent, as the publisher says.
        last: u64,
    },
}
