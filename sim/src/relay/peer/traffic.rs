//! What a peer sends and receives: one interface for topics of every class.

use std::io;

use sinew_io::message::Message;
use sinew_io::node::{
    NodeBuilder, NodeError, Observed, Publisher, PublisherFull, TopicClass, TopicConfig,
};
use sinew_rt::clock;
use sinew_rt::ring::Consumer;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ledger::record::{Promise, Record, digest};
use crate::ledger::write::LedgerWriter;

/// The schema that a configuration names.
pub const SCHEMA: &str = Entry::NAME;

/// Messages that may wait for the peer on each topic.
const QUEUE: usize = 4_096;

/// Who sends, in which life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) key: u64,
    pub(super) epoch: u64,
}

/// A message that says itself which it is, so that no two are alike.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    key: u64,
    epoch: u64,
    number: u64,
    topic: u64,
    fill: [u64; 28],
}

impl Message for Entry {
    const NAME: &'static str = "Entry@1";
}

impl Entry {
    fn new(identity: Identity, topic: &str, number: u64) -> Self {
        let Identity { key, epoch } = identity;
        Self { key, epoch, number, topic: digest(topic.as_bytes()), fill: [number; 28] }
    }
}

fn promise(class: TopicClass) -> Promise {
    match class {
        TopicClass::Control | TopicClass::Queue => Promise::BestEffort,
    }
}

/// One topic that is published.
pub(super) struct Outbox {
    topic: String,
    promise: Promise,
    publisher: Publisher<Entry>,
    /// The number of the last message that was written down.
    last: u64,
    /// That message, when it was not taken yet.
    waiting: Option<Entry>,
}

impl Outbox {
    pub(super) fn new(builder: &mut NodeBuilder, topic: &TopicConfig) -> Result<Self, NodeError> {
        let publisher = builder.publisher::<Entry>(&topic.name)?;
        let promise = promise(topic.class);
        Ok(Self { topic: topic.name.clone(), promise, publisher, last: 0, waiting: None })
    }

    pub(super) fn declares(&self) -> Record {
        Record::Writes { promise: self.promise, topic: self.topic.clone() }
    }

    /// Sends up to `count` messages, each written down before. One that finds no room waits for the
    /// next call, with its number.
    pub(super) fn publish(
        &mut self,
        identity: Identity,
        count: u64,
        ledger: &mut LedgerWriter,
    ) -> io::Result<()> {
        for _ in 0..count.max(u64::from(self.waiting.is_some())) {
            let entry = match self.waiting.take() {
                Some(entry) => entry,
                None => {
                    self.last += 1;
                    let entry = Entry::new(identity, &self.topic, self.last);
                    ledger.write(&Record::Sent {
                        topic: self.topic.clone(),
                        sequence: self.last,
                        digest: digest(entry.as_bytes()),
                        at: clock::now().as_nanos(),
                    })?;
                    entry
                }
            };
            if let Err(PublisherFull) = self.publisher.publish(&entry) {
                self.waiting = Some(entry);
                break;
            }
        }
        Ok(())
    }

    /// Writes down that a message which still waits will not be sent.
    pub(super) fn finish(&mut self, ledger: &mut LedgerWriter) -> io::Result<()> {
        match self.waiting.take() {
            None => Ok(()),
            Some(_) => {
                ledger.write(&Record::Refused { topic: self.topic.clone(), sequence: self.last })
            }
        }
    }
}

/// One topic that is received.
pub(super) struct Inbox {
    topic: String,
    promise: Promise,
    source: Consumer<Observed>,
}

impl Inbox {
    pub(super) fn new(builder: &mut NodeBuilder, topic: &TopicConfig) -> Result<Self, NodeError> {
        // The message with what its envelope says: the ledger names the wire's own numbers.
        let source = builder.observe(&topic.name, QUEUE)?;
        Ok(Self { topic: topic.name.clone(), promise: promise(topic.class), source })
    }

    pub(super) fn declares(&self) -> Record {
        Record::Reads { promise: self.promise, topic: self.topic.clone() }
    }

    /// Takes up to `count` messages, and writes each down.
    pub(super) fn drain(&mut self, count: u64, ledger: &mut LedgerWriter) -> io::Result<()> {
        for _ in 0..count {
            let Some(observed) = self.source.pop() else { break };
            ledger.write(&Record::Got {
                from: observed.sender.get(),
                epoch: observed.epoch.get(),
                topic: self.topic.clone(),
                sequence: observed.sequence.get(),
                digest: digest(observed.payload()),
                at: clock::now().as_nanos(),
            })?;
        }
        Ok(())
    }
}
