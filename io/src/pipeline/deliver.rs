//! Deliver: puts each verified envelope where its subscriber reads it.

use super::verified::VerifiedFrame;
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::DropReason;
use crate::message::{MAX_MESSAGE, Message};
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::{Envelope, Epoch, KeyId, SchemaId, Sequence, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::latest::LatestWriter;
use sinew_rt::panel::{Counter, Gauge, Recorder};
use sinew_rt::ring::{Consumer, Producer};

/// Where the messages of one topic end.
pub(crate) trait Sink: Send {
    /// Takes one envelope with its times. Does not block or allocate.
    fn deliver(&mut self, envelope: &Envelope<'_>, times: Times) -> Result<(), DropReason>;
}

/// When an envelope was sent and received, on this node's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) sent_at: Nanos,
    pub(crate) received_at: Nanos,
}

/// One message of a queued topic, with its time of sending on this node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued<T> {
    /// The message.
    pub value: T,
    /// When it was sent.
    pub sent_at: Nanos,
}

/// The newest value only.
pub(crate) struct LatestSink<T> {
    pub(crate) writer: LatestWriter<T>,
}

impl<T: Message> Sink for LatestSink<T> {
    fn deliver(&mut self, envelope: &Envelope<'_>, times: Times) -> Result<(), DropReason> {
        let value = T::read_from_bytes(envelope.payload).map_err(|_| DropReason::SchemaMismatch)?;
        self.writer.publish(value, times.sent_at);
        Ok(())
    }
}

/// Every value, as long as the subscriber keeps up.
pub(crate) struct QueueSink<T> {
    pub(crate) producer: Producer<Queued<T>>,
}

impl<T: Message> Sink for QueueSink<T> {
    fn deliver(&mut self, envelope: &Envelope<'_>, times: Times) -> Result<(), DropReason> {
        let value = T::read_from_bytes(envelope.payload).map_err(|_| DropReason::SchemaMismatch)?;
        let queued = Queued { value, sent_at: times.sent_at };
        self.producer.push(queued).map_err(|_| DropReason::QueueFull)
    }
}

/// One message of an observed topic, of whatever type, with everything that its envelope says.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// The key id of the sender, whose signature was checked unless the topic is open.
    pub sender: KeyId,
    /// The sender's life.
    pub epoch: Epoch,
    /// The number in the stream.
    pub sequence: Sequence,
    /// The type of the payload.
    pub schema: SchemaId,
    /// When it was sent, on this node's clock.
    pub sent_at: Nanos,
    /// When it was received.
    pub received_at: Nanos,
    payload: [u8; MAX_MESSAGE],
    len: usize,
}

impl Observed {
    /// The message as it was on the wire.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload.get(..self.len).unwrap_or_default()
    }
}

/// Every envelope, of whatever type, as long as the observer keeps up.
pub(crate) struct ObserverSink {
    pub(crate) producer: Producer<Observed>,
}

impl Sink for ObserverSink {
    fn deliver(&mut self, envelope: &Envelope<'_>, times: Times) -> Result<(), DropReason> {
        let (header, len) = (envelope.header, envelope.payload.len());
        let mut payload = [0; MAX_MESSAGE];
        payload.get_mut(..len).ok_or(DropReason::SchemaMismatch)?.copy_from_slice(envelope.payload);
        let observed = Observed {
            sender: header.source(),
            epoch: header.epoch(),
            sequence: header.sequence(),
            schema: header.schema(),
            sent_at: times.sent_at,
            received_at: times.received_at,
            payload,
            len,
        };
        self.producer.push(observed).map_err(|_| DropReason::QueueFull)
    }
}

/// A topic, what its payloads are, and where they go.
pub(crate) struct Route {
    pub(crate) topic: TopicId,
    /// What the payloads must be; `None` where anything is welcome.
    pub(crate) schema: Option<SchemaId>,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) delivered: Counter,
    /// The schema that arrived instead; the panel shows ours as `schema/TOPIC` beside it.
    pub(crate) foreign_schema: Gauge,
    /// Time from sending to delivery.
    pub(crate) age: Recorder,
}

/// The third stage.
pub(crate) struct DeliverStage {
    pub(crate) input: Consumer<VerifiedFrame>,
    /// Sorted by topic.
    pub(crate) routes: Vec<Route>,
    pub(crate) drops: Drops,
}

/// Why the deliver stage drops envelopes.
pub(crate) const REASONS: &[DropReason] =
    &[DropReason::UnknownTopic, DropReason::SchemaMismatch, DropReason::QueueFull];

impl Stage for DeliverStage {
    fn poll(&mut self, now: Nanos) -> Execution {
        let mut released = None;
        for _ in 0..FRAMES_PER_POLL {
            let Some(envelope) = self.input.pop() else { break };
            released.get_or_insert(envelope.received_at());
            if let Err(reason) = deliver(&mut self.routes, &envelope, now) {
                self.drops.count(envelope.charged_to(), reason, now);
            }
        }
        released.map_or(Execution::Idle, |released| Execution::Worked { released })
    }
}

fn deliver(routes: &mut [Route], verified: &VerifiedFrame, now: Nanos) -> Result<(), DropReason> {
    let envelope = verified.envelope().ok_or(DropReason::UnknownTopic)?;
    let route = routes
        .binary_search_by_key(&envelope.header.topic(), |route| route.topic)
        .map_err(|_| DropReason::UnknownTopic)?;
    let route = &mut routes[route];
    let schema = envelope.header.schema();
    let foreign = route.schema.is_some_and(|wanted| wanted != schema);
    if foreign && !planted(Fault::SchemaNotChecked) {
        reached(Branch::SchemaMismatch);
        route.foreign_schema.set(schema.get() as i64);
        return Err(DropReason::SchemaMismatch);
    }
    let times = Times { sent_at: verified.sent_at(), received_at: verified.received_at() };
    route.sink.deliver(&envelope, times).inspect_err(|_| reached(Branch::SubscriberFull))?;
    route.delivered.increment();
    route.age.record(now - verified.sent_at(), now);
    Ok(())
}
