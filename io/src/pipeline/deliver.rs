//! Deliver: puts each verified envelope where its subscriber reads it.

use super::verified::VerifiedFrame;
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::DropReason;
use crate::message::Message;
use crate::wire::{SchemaId, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::latest::LatestWriter;
use sinew_rt::panel::{Counter, Gauge, Recorder};
use sinew_rt::ring::{Consumer, Producer};

/// Where the messages of one topic end.
pub(crate) trait Sink: Send {
    /// Takes one payload that was sent at `sent_at`. Does not block or allocate.
    fn deliver(&mut self, payload: &[u8], sent_at: Nanos) -> Result<(), DropReason>;
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
    fn deliver(&mut self, payload: &[u8], sent_at: Nanos) -> Result<(), DropReason> {
        let value = T::read_from_bytes(payload).map_err(|_| DropReason::SchemaMismatch)?;
        self.writer.publish(value, sent_at);
        Ok(())
    }
}

/// Every value, as long as the subscriber keeps up.
pub(crate) struct QueueSink<T> {
    pub(crate) producer: Producer<Queued<T>>,
}

impl<T: Message> Sink for QueueSink<T> {
    fn deliver(&mut self, payload: &[u8], sent_at: Nanos) -> Result<(), DropReason> {
        let value = T::read_from_bytes(payload).map_err(|_| DropReason::SchemaMismatch)?;
        self.producer.push(Queued { value, sent_at }).map_err(|_| DropReason::QueueFull)
    }
}

/// A topic, what its payloads are, and where they go.
pub(crate) struct Route {
    pub(crate) topic: TopicId,
    pub(crate) schema: SchemaId,
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
    if schema != route.schema {
        route.foreign_schema.set(schema.get() as i64);
        return Err(DropReason::SchemaMismatch);
    }
    route.sink.deliver(envelope.payload, verified.sent_at())?;
    route.delivered.increment();
    route.age.record(now - verified.sent_at(), now);
    Ok(())
}
