//! Deliver: puts each verified envelope where its subscriber reads it.

use super::link::{About, ToSend};
use super::reliable::ReliableRoute;
use super::verified::{Contents, VerifiedFrame};
use super::watch::Watch;
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::DropReason;
use crate::message::{MAX_MESSAGE, Message};
use crate::security::PeerLife;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::report::{self, Entry};
use crate::wire::{Epoch, KeyId, SchemaId, Sequence, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::latest::LatestWriter;
use sinew_rt::panel::{Counter, Gauge, Recorder};
use sinew_rt::ring::{Consumer, Producer};

/// Where the messages of one topic end.
pub(crate) trait Sink: Send {
    /// Takes one envelope with its times. Does not block or allocate.
    fn deliver(&mut self, contents: Contents<'_>, times: Times) -> Result<(), DropReason>;
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
    fn deliver(&mut self, contents: Contents<'_>, times: Times) -> Result<(), DropReason> {
        let value = T::read_from_bytes(contents.payload).map_err(|_| DropReason::SchemaMismatch)?;
        self.writer.publish(value, times.sent_at);
        Ok(())
    }
}

/// Every value, as long as the subscriber keeps up.
pub(crate) struct QueueSink<T> {
    pub(crate) producer: Producer<Queued<T>>,
}

impl<T: Message> Sink for QueueSink<T> {
    fn deliver(&mut self, contents: Contents<'_>, times: Times) -> Result<(), DropReason> {
        let value = T::read_from_bytes(contents.payload).map_err(|_| DropReason::SchemaMismatch)?;
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
    fn deliver(&mut self, contents: Contents<'_>, times: Times) -> Result<(), DropReason> {
        let (header, len) = (contents.header, contents.payload.len());
        let mut payload = [0; MAX_MESSAGE];
        payload.get_mut(..len).ok_or(DropReason::SchemaMismatch)?.copy_from_slice(contents.payload);
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
    /// By peer, where only the newest value counts: which one the subscriber has.
    pub(crate) newest: Option<Box<[(Epoch, Sequence)]>>,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) delivered: Counter,
    /// The schema that arrived instead; the panel shows ours as `schema/TOPIC` beside it.
    pub(crate) foreign_schema: Gauge,
    /// Time from sending to delivery.
    pub(crate) age: Recorder,
}

/// What the node does with reports, if it carries reliable topics.
pub(crate) struct Reports {
    pub(crate) signed: TopicId,
    pub(crate) open: TopicId,
    pub(crate) to_send: Producer<ToSend>,
    /// Entries for which the send stage had no room; they come again.
    pub(crate) late: Counter,
}

/// The third stage.
pub(crate) struct DeliverStage {
    pub(crate) input: Consumer<VerifiedFrame>,
    /// Sorted by topic.
    pub(crate) routes: Vec<Route>,
    /// Sorted by topic.
    pub(crate) reliable: Vec<ReliableRoute>,
    pub(crate) watches: Vec<Watch>,
    /// Lives that the verify stage adopted, each before the first frame of it, and every Hello after;
    /// only where somebody asks for them.
    pub(crate) lives: Option<Consumer<PeerLife>>,
    pub(crate) reports: Option<Reports>,
    pub(crate) drops: Drops,
}

/// Why the deliver stage drops envelopes.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::Malformed,
    DropReason::UnknownTopic,
    DropReason::SchemaMismatch,
    DropReason::QueueFull,
    DropReason::Overtaken,
    DropReason::OldEpoch,
    DropReason::FutureEpoch,
    DropReason::Replay,
    DropReason::TooFarAhead,
    DropReason::QosMismatch,
    DropReason::NotSubscribed,
    DropReason::UnknownKey,
];

impl Stage for DeliverStage {
    fn poll(&mut self, now: Nanos) -> Execution {
        let mut released = None;
        self.adopt_lives(now);
        for _ in 0..FRAMES_PER_POLL {
            let Some(frame) = self.input.pop() else { break };
            released.get_or_insert(frame.received_at());
            // The life that this frame may belong to was pushed before it.
            self.adopt_lives(now);
            let charged_to = frame.charged_to();
            if let Err(reason) = self.deliver(frame, now) {
                self.drops.count(charged_to, reason, now);
            }
        }
        if self.turn(now) {
            released.get_or_insert(now);
        }
        released.map_or(Execution::Idle, |released| Execution::Worked { released })
    }

    fn next_deadline(&self) -> Option<Nanos> {
        let reliable = self.reliable.iter().filter_map(|route| route.due);
        reliable.chain(self.watches.iter().filter_map(Watch::next_deadline)).min()
    }
}

impl DeliverStage {
    fn adopt_lives(&mut self, now: Nanos) {
        let Some(lives) = &mut self.lives else { return };
        while let Some(life) = lives.pop() {
            for route in &mut self.reliable {
                route.hello(&life, now);
            }
            for watch in &mut self.watches {
                watch.alive(life.peer, now);
            }
        }
    }

    fn deliver(&mut self, frame: VerifiedFrame, now: Nanos) -> Result<(), DropReason> {
        let contents = frame.contents().ok_or(DropReason::Malformed)?;
        let header = contents.header;
        let (topic, epoch, peer) = (header.topic(), header.epoch(), frame.peer());
        if let Ok(place) = self.reliable.binary_search_by_key(&topic, |route| route.topic) {
            self.reliable[place].accept(frame, now)?;
            self.watches.iter_mut().for_each(|watch| watch.delivered(topic, peer, now));
            return Ok(());
        }
        if let Ok(place) = self.routes.binary_search_by_key(&topic, |route| route.topic) {
            let route = &mut self.routes[place];
            deliver(route, contents, &frame, now)?;
            self.watches.iter_mut().for_each(|watch| watch.delivered(topic, peer, now));
            return Ok(());
        }
        let Some(reports) = &mut self.reports else { return Err(DropReason::UnknownTopic) };
        let open = topic == reports.open;
        if !open && topic != reports.signed {
            return Err(DropReason::UnknownTopic);
        }
        let mut outcome = Ok(());
        for entry in report::entries(contents.payload).map_err(DropReason::from)? {
            let entry = entry.map_err(DropReason::from)?;
            let heard = match &entry {
                Entry::Heartbeat(heartbeat) => {
                    let topic = heartbeat.topic;
                    match self.reliable.binary_search_by_key(&topic, |route| route.topic) {
                        Ok(place) if self.reliable[place].open == open => {
                            self.reliable[place].heartbeat(peer, epoch, heartbeat, now)
                        }
                        _ => Err(DropReason::NotSubscribed),
                    }
                }
                Entry::Acknowledgement(_) | Entry::MoreHeld(_) | Entry::Outcomes(_) => {
                    let heard = ToSend::Heard(epoch, About { peer, open, entry });
                    reports.to_send.push(heard).map_err(|_| DropReason::QueueFull)
                }
            };
            // The other entries are none the worse for it.
            outcome = outcome.and(heard);
        }
        outcome
    }

    /// Everything that is due although nothing came. Whether a subscriber got something.
    fn turn(&mut self, now: Nanos) -> bool {
        for watch in &mut self.watches {
            watch.turn(now);
        }
        let Some(reports) = &mut self.reports else { return false };
        let mut worked = false;
        for route in &mut self.reliable {
            if route.is_due(now) {
                worked |= route.serve(now);
                route.report(now, |about| {
                    let pushed = reports.to_send.push(ToSend::Due(about)).is_ok();
                    if !pushed {
                        reports.late.increment();
                    }
                    pushed
                });
            }
        }
        worked
    }
}

fn deliver(
    route: &mut Route,
    contents: Contents<'_>,
    verified: &VerifiedFrame,
    now: Nanos,
) -> Result<(), DropReason> {
    let schema = contents.header.schema();
    let foreign = route.schema.is_some_and(|wanted| wanted != schema);
    if foreign && !planted(Fault::SchemaNotChecked) {
        reached(Branch::SchemaMismatch);
        route.foreign_schema.set(schema.get() as i64);
        return Err(DropReason::SchemaMismatch);
    }
    let newest = route.newest.as_mut().and_then(|all| all.get_mut(verified.peer().get()));
    let this = (contents.header.epoch(), contents.header.sequence());
    if newest.as_ref().is_some_and(|newest| this <= **newest) {
        return Err(DropReason::Overtaken);
    }
    let times = Times { sent_at: verified.sent_at(), received_at: verified.received_at() };
    route.sink.deliver(contents, times).inspect_err(|_| reached(Branch::SubscriberFull))?;
    if let Some(newest) = newest {
        *newest = this;
    }
    route.delivered.increment();
    route.age.record(now - verified.sent_at(), now);
    Ok(())
}
