//! What a peer sends and receives: one interface for topics of every class.

use std::io;

use sinew_io::message::Message;
use sinew_io::node::{
    AllWell, CommandPublisher, CommandReader, Delivery, NodeBuilder, NodeError, Observed, Outcome,
    Publisher, PublisherFull, Received, StreamReader, TopicClass, TopicConfig,
};
use sinew_rt::clock;
use sinew_rt::ring::Consumer;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ledger::record::{Promise, Record, Told, digest};
use crate::ledger::write::LedgerWriter;

/// The schema that a configuration names for topics of every class but an emergency stop's.
pub const SCHEMA: &str = Entry::NAME;

/// Messages that may wait for the peer on each topic.
const QUEUE: usize = 1_024;

/// Every tenth command is refused, for this reason.
const REFUSED_EVERY: u64 = 10;
const REASON: u8 = 7;

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
        TopicClass::Control | TopicClass::Queue | TopicClass::EStop => Promise::BestEffort,
        TopicClass::Command | TopicClass::Stream => Promise::Reliable,
    }
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::Accepted => Told::Accepted,
        Outcome::Rejected(_) => Told::Rejected,
        Outcome::Expired => Told::Expired,
        Outcome::NeverArrived => Told::NeverArrived,
        Outcome::Unknown => Told::Unknown,
    }
}

/// What a topic of some class is published with.
enum Publishes {
    Entries(Publisher<Entry>),
    Commands(CommandPublisher<Entry>),
    AllWell(Publisher<AllWell>),
}

impl Publishes {
    fn payload(&self, identity: Identity, topic: &str, number: u64) -> Vec<u8> {
        match self {
            Self::AllWell(_) => AllWell { count: number.into() }.as_bytes().to_vec(),
            _ => Entry::new(identity, topic, number).as_bytes().to_vec(),
        }
    }

    /// Hands on what [`Publishes::payload`] made.
    fn publish(&mut self, payload: &[u8], number: u64) -> io::Result<Result<(), PublisherFull>> {
        let wrong = || io::Error::other("a payload of another length than its message");
        let entry = || Entry::read_from_bytes(payload).map_err(|_| wrong());
        Ok(match self {
            Self::Entries(publisher) => publisher.publish(&entry()?),
            Self::AllWell(publisher) => {
                let well = AllWell::read_from_bytes(payload).map_err(|_| wrong())?;
                publisher.publish(&well)
            }
            Self::Commands(publisher) => match publisher.send(&entry()?) {
                Ok(sequence) if sequence.get() != number => {
                    let got = sequence.get();
                    return Err(io::Error::other(format!("the node numbers {number} as {got}")));
                }
                sent => sent.map(drop),
            },
        })
    }
}

/// One topic that is published.
pub(super) struct Outbox {
    topic: String,
    promise: Promise,
    publishes: Publishes,
    /// The number of the last message that was written down.
    last: u64,
    /// That message, when it was not taken yet.
    waiting: Option<Vec<u8>>,
}

impl Outbox {
    pub(super) fn new(builder: &mut NodeBuilder, topic: &TopicConfig) -> Result<Self, NodeError> {
        let name = &topic.name;
        let publishes = match topic.class {
            TopicClass::Command => Publishes::Commands(builder.command_publisher::<Entry>(name)?),
            TopicClass::EStop => Publishes::AllWell(builder.publisher::<AllWell>(name)?),
            _ => Publishes::Entries(builder.publisher::<Entry>(name)?),
        };
        let promise = promise(topic.class);
        Ok(Self { topic: name.clone(), promise, publishes, last: 0, waiting: None })
    }

    pub(super) fn declares(&self) -> Record {
        Record::Writes { promise: self.promise, topic: self.topic.clone() }
    }

    /// Its topic, if that is sent until it arrives.
    pub(super) fn reliable(&self) -> Option<&str> {
        (self.promise == Promise::Reliable).then_some(&self.topic)
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
            let payload = match self.waiting.take() {
                Some(payload) => payload,
                None => {
                    self.last += 1;
                    let payload = self.publishes.payload(identity, &self.topic, self.last);
                    ledger.write(&Record::Sent {
                        topic: self.topic.clone(),
                        sequence: self.last,
                        digest: digest(&payload),
                        at: clock::now().as_nanos(),
                    })?;
                    payload
                }
            };
            if let Err(PublisherFull) = self.publishes.publish(&payload, self.last)? {
                self.waiting = Some(payload);
                break;
            }
        }
        Ok(())
    }

    /// Writes down what was heard of commands.
    pub(super) fn hear(&mut self, count: u64, ledger: &mut LedgerWriter) -> io::Result<()> {
        let Publishes::Commands(publisher) = &mut self.publishes else { return Ok(()) };
        for _ in 0..count {
            let Some((sequence, outcome)) = publisher.outcome() else { break };
            ledger.write(&Record::Outcome {
                topic: self.topic.clone(),
                sequence: sequence.get(),
                told: told(outcome),
            })?;
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

/// What a topic of some class is received with.
enum Receives {
    /// As it is on the wire: the ledger names the wire's own numbers.
    Any(Consumer<Observed>),
    Stream(StreamReader<Entry>),
    Commands {
        reader: CommandReader<Entry>,
        /// A command whose decision was not taken yet.
        undecided: Option<Box<Received<Entry>>>,
    },
}

/// One topic that is received.
pub(super) struct Inbox {
    topic: String,
    promise: Promise,
    receives: Receives,
}

impl Inbox {
    pub(super) fn new(builder: &mut NodeBuilder, topic: &TopicConfig) -> Result<Self, NodeError> {
        let name = &topic.name;
        let receives = match topic.class {
            TopicClass::Stream => Receives::Stream(builder.stream::<Entry>(name, QUEUE)?),
            TopicClass::Command => {
                let reader = builder.commands::<Entry>(name, QUEUE)?;
                Receives::Commands { reader, undecided: None }
            }
            _ => Receives::Any(builder.observe(name, QUEUE)?),
        };
        Ok(Self { topic: name.clone(), promise: promise(topic.class), receives })
    }

    pub(super) fn declares(&self) -> Record {
        Record::Reads { promise: self.promise, topic: self.topic.clone() }
    }

    /// Takes up to `count` messages, writes each down, and decides about commands.
    pub(super) fn drain(&mut self, count: u64, ledger: &mut LedgerWriter) -> io::Result<()> {
        let topic = &self.topic;
        for _ in 0..count {
            let record = match &mut self.receives {
                Receives::Any(source) => source.pop().map(|observed| Record::Got {
                    from: observed.sender.get(),
                    epoch: observed.epoch.get(),
                    topic: topic.clone(),
                    sequence: observed.sequence.get(),
                    digest: digest(observed.payload()),
                    at: clock::now().as_nanos(),
                }),
                Receives::Stream(reader) => reader.next().map(|delivery| told_by(delivery, topic)),
                Receives::Commands { reader, undecided } => {
                    if let Some(command) = undecided.take()
                        && !decide(reader, &command)
                    {
                        *undecided = Some(command);
                        return Ok(());
                    }
                    let delivery = reader.next(clock::now());
                    if let Some(Delivery::Message(command)) = &delivery {
                        *undecided = Some(Box::new(*command));
                    }
                    delivery.map(|delivery| told_by(delivery, topic))
                }
            };
            let Some(record) = record else { break };
            ledger.write(&record)?;
            if let (Receives::Commands { .. }, Record::Got { from, epoch, sequence, .. }) =
                (&self.receives, &record)
            {
                ledger.write(&Record::Decided {
                    from: *from,
                    epoch: *epoch,
                    topic: topic.clone(),
                    sequence: *sequence,
                    told: if is_refused(*sequence) { Told::Rejected } else { Told::Accepted },
                })?;
            }
        }
        Ok(())
    }
}

fn is_refused(sequence: u64) -> bool {
    sequence.is_multiple_of(REFUSED_EVERY)
}

/// Whether the sender will hear of it.
fn decide(reader: &mut CommandReader<Entry>, command: &Received<Entry>) -> bool {
    match is_refused(command.sequence.get()) {
        true => reader.reject(command, REASON).is_ok(),
        false => reader.accept(command).is_ok(),
    }
}

/// What a reliable topic gave, as a record.
fn told_by(delivery: Delivery<Entry>, topic: &str) -> Record {
    let topic = topic.to_owned();
    match delivery {
        Delivery::Message(message) => Record::Got {
            from: message.from.get(),
            epoch: message.epoch.get(),
            topic,
            sequence: message.sequence.get(),
            digest: digest(message.value.as_bytes()),
            at: clock::now().as_nanos(),
        },
        Delivery::Gap { from, epoch, first, last, .. } => Record::Gap {
            from: from.get(),
            epoch: epoch.get(),
            topic,
            first: first.get(),
            last: last.get(),
        },
        Delivery::Started { from, epoch, first } => {
            Record::NewLife { from: from.get(), epoch: epoch.get(), topic, first: first.get() }
        }
    }
}
