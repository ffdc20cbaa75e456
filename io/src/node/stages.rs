//! The four stages of a node and its greeter, made and connected without a thread: `assemble` seats
//! them on lanes.

use super::NodeError;
use super::builder::{Publication, Subscription};
use super::config::NodeConfig;
use super::greeter::{self, Greeter, PeerGauges};
use super::plan::StageName::{self, Deliver, Receive, Send, Verify};
use super::topics::{
    Published, Subscribed, publications, report_outlets, report_rules, subscriptions,
};
use super::who::Who;
use crate::delivery::StreamTable;
use crate::pipeline::deliver::{self, DeliverStage, Reports};
use crate::pipeline::link::LINK_RING;
use crate::pipeline::receive::{self, Filter, ReceiveOutputs, ReceiveStage, Unverified};
use crate::pipeline::resend::ReliableSend;
use crate::pipeline::send::SendStage;
use crate::pipeline::verify::{self, SenderClock, VerifyInputs, VerifyStage};
use crate::pipeline::watch::TopicEvent;
use crate::pipeline::{Drops, FRAMES_PER_POLL};
use crate::security::Admission;
use crate::security::hello::Handshake;
use crate::transport::buffer::{FrameBuffer, FramePool};
use crate::transport::udp::STRANGERS_BATCH;
use crate::transport::{BATCH, Endpoint};
use crate::wire::report::{REPORTS, REPORTS_OPEN};
use crate::wire::{Domain, FRAME_MAX, SigningContext, TopicId};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::Panel;
use sinew_rt::ring::{self, Consumer, Producer};
use sinew_rt::wait::Doorbell;
use std::sync::Arc;

/// Frames from peers' own addresses that may wait for the verify stage, shared out among the peers
/// ahead of time: what one peer does not use is no other's.
const PEERS_RINGS: usize = 192;
/// The least that a peer gets of them, however many peers there are. Each frame takes a slot of the
/// pool and a handle in the ring, so this is 83 kB a peer (64 × (1,280 + 16) bytes).
const PEER_RING_MIN: usize = 64;
/// Verified frames that may wait for a deliver stage on another lane, which may come to run only when
/// the verify stage has no more work.
const VERIFIED_RING_BETWEEN_LANES: usize = 256;
/// Frames from elsewhere that may wait for the verify stage: more would mean that strangers spend
/// faster than their bucket fills, which holds 16 checks.
const STRANGERS_RING: usize = 24;
/// Verified frames that may wait for a deliver stage on the same lane, which takes in each pass as
/// many as the verify stage gives in one.
const VERIFIED_RING: usize = FRAMES_PER_POLL;
/// Handshake frames that may wait for housekeeping: a Challenge and a Hello of each peer twice over, and
/// some of whoever claims to be one.
const fn handshake_ring(peers: usize) -> usize {
    16 + 4 * if peers < 64 { peers } else { 64 }
}
/// Lives that may wait for the verify stage.
const LIVES_RING: usize = 64;

/// Frames of one peer that may wait for the verify stage.
const fn peer_ring(peers: usize) -> usize {
    let share = PEERS_RINGS / if peers == 0 { 1 } else { peers };
    if share < PEER_RING_MIN { PEER_RING_MIN } else { share }
}

// What docs/message-path.md says of a peer's memory.
const _: () = assert!(peer_ring(1) == 192 && peer_ring(3) == 64 && peer_ring(64) == 64);
const _: () = assert!(size_of::<Unverified>() == 16 && BATCH * size_of::<FrameBuffer>() == 40_960);

/// How much may wait in each ring, and so how many slots the pool has.
pub(super) struct Room {
    /// Frames of one peer for the verify stage.
    pub(super) peer: usize,
    /// Frames from elsewhere for the verify stage.
    pub(super) strangers: usize,
    /// Verified frames for the deliver stage.
    pub(super) verified: usize,
    /// Handshake frames for the greeter.
    pub(super) handshakes: usize,
    /// Lives for the verify stage.
    pub(super) lives: usize,
    /// Frames that the transport holds ready.
    pub(super) ready: usize,
    /// Frames that wait in readers for those before them, at most.
    pub(super) held: usize,
}

impl Room {
    /// What a node with so many peers has; `one_lane` says whether one lane verifies and delivers.
    pub(super) fn of_node(peers: usize, one_lane: bool) -> Self {
        Self {
            peer: peer_ring(peers),
            strangers: STRANGERS_RING,
            verified: if one_lane { VERIFIED_RING } else { VERIFIED_RING_BETWEEN_LANES },
            handshakes: handshake_ring(peers),
            lives: LIVES_RING,
            // Each peer's socket holds a batch, and the strangers' a part of one.
            ready: peers * BATCH + STRANGERS_BATCH,
            held: usize::MAX,
        }
    }

    /// All rings may be full at once, and all readers, which together hold `held`.
    fn slots(&self, peers: usize, held: usize) -> usize {
        let held = held.min(self.held);
        peers * self.peer + self.strangers + self.verified + self.handshakes + self.ready + held
    }
}

/// One that takes part in a ring, as far as rings care.
#[derive(Clone, Default)]
pub(super) struct Seat {
    /// The thread that it runs on.
    pub(super) thread: usize,
    /// What wakes that thread, if it may be asleep.
    pub(super) doorbell: Option<Arc<Doorbell>>,
}

/// Where each stage and the greeter run: this says which pushes into a ring have to wake somebody.
/// The default is one thread that does not sleep.
#[derive(Default)]
pub(super) struct Seats {
    /// By stage.
    pub(super) stages: [Seat; 4],
    pub(super) greeter: Seat,
}

impl Seats {
    fn of(&self, stage: StageName) -> &Seat {
        &self.stages[stage as usize]
    }
}

/// A ring from one seat to another, which wakes the other's thread if that is another one.
fn between<T>(from: &Seat, to: &Seat, capacity: usize) -> (Producer<T>, Consumer<T>) {
    match &to.doorbell {
        Some(doorbell) if from.thread != to.thread => {
            ring::channel_with_doorbell(capacity, doorbell.clone())
        }
        _ => ring::channel(capacity),
    }
}

/// What stages are made from.
pub(super) struct Parts<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) who: Who,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) publications: Vec<Publication>,
    pub(super) events: Vec<(usize, Producer<TopicEvent>)>,
    pub(super) endpoint: Endpoint,
    pub(super) panel: &'a Panel,
    pub(super) seats: Seats,
    pub(super) room: Room,
    /// The names under which drops are counted.
    pub(super) names: &'a [String],
    pub(super) now: Nanos,
}

/// Everything of a node that messages pass, ready to run.
pub(crate) struct Stages {
    pub(crate) receive: ReceiveStage,
    pub(crate) verify: VerifyStage,
    pub(crate) deliver: DeliverStage,
    pub(crate) send: SendStage,
    pub(crate) greeter: Greeter,
}

impl Parts<'_> {
    /// Makes the stages and connects them with each other. Allocates.
    pub(super) fn connect(self) -> Result<Stages, NodeError> {
        let Self { config, who, endpoint, panel, seats, room, names, now, .. } = self;
        let peers = config.peers.len();
        let drops = |stage: &str, reasons| Drops::register(panel, stage, reasons, names);

        let (from_peers, from_peers_in) =
            (0..peers).map(|_| between(seats.of(Receive), seats.of(Verify), room.peer)).unzip();
        let (strangers, strangers_in) =
            between(seats.of(Receive), seats.of(Verify), room.strangers);
        let (verified, verified_in) = between(seats.of(Verify), seats.of(Deliver), room.verified);
        let (handshakes, handshakes_in) =
            between(seats.of(Receive), &seats.greeter, room.handshakes);
        let (lives, lives_in) = between(&seats.greeter, seats.of(Verify), room.lives);

        let subscribed = subscriptions(self.subscriptions, self.events, config, &who, panel, now)?;
        let published = publications(self.publications, config, &who, panel, now)?;
        let Subscribed { mut rules, routes, reliable, watches } = subscribed;
        // Nodes without reliable topics pay for none of this.
        let has_reliable = !reliable.is_empty() || !published.reliable.is_empty();
        if has_reliable {
            rules.extend(report_rules(config.mode));
            rules.sort_unstable_by_key(|rule| rule.topic);
        }
        let streams = reliable.iter().flat_map(|route| &route.streams);
        let held = streams.map(|stream| stream.reader.size()).sum();

        let homes: Vec<_> = config.peers.iter().map(|peer| peer.address).collect();
        let admission = Admission::new(config.admission, homes.len(), now);
        let receive = ReceiveStage {
            transport: endpoint.receiver,
            pool: FramePool::new(room.slots(peers, held), FrameBuffer::new),
            filter: Filter {
                cluster: who.cluster.tag(),
                peers: who.peers.clone(),
                homes,
                admission,
                outputs: ReceiveOutputs { peers: from_peers, strangers, handshakes },
                frames: panel.counter("receive.frames")?,
                errors: panel.counter("receive.errors")?,
                unreachable: panel.counter("receive.unreachable")?,
                drops: drops("receive", receive::REASONS)?,
            },
        };

        let asks_for_lives = has_reliable || !watches.is_empty();
        let (adopted, adopted_in) = match asks_for_lives {
            true => Some(between(seats.of(Verify), seats.of(Deliver), room.lives)).unzip(),
            false => (None, None),
        };
        let topics: Vec<_> = rules.iter().map(|rule| rule.topic).collect();
        let verify = VerifyStage {
            inputs: VerifyInputs::new(from_peers_in, strangers_in),
            lives: lives_in,
            output: verified,
            own_key: who.identity.public().id(),
            context: SigningContext::new(Domain::Envelope, &who.cluster),
            clocks: vec![SenderClock::Unknown; peers],
            streams: StreamTable::new(peers, &topics)
                .map_err(|error| config.error("topic", error.to_string(), ""))?,
            rules,
            adopted,
            duplicate_at: vec![None; peers],
            peers: who.peers.clone(),
            checked: panel.counter("verify.signatures_checked")?,
            drops: drops("verify", verify::REASONS)?,
        };
        let (to_send, heard) = match has_reliable {
            true => Some(between(seats.of(Deliver), seats.of(Send), LINK_RING)).unzip(),
            false => (None, None),
        };
        let reports = match to_send {
            Some(to_send) => Some(Reports {
                signed: TopicId::of(REPORTS),
                open: TopicId::of(REPORTS_OPEN),
                to_send,
                late: panel.counter("reports.late_in_deliver")?,
            }),
            None => None,
        };
        let deliver = DeliverStage {
            input: verified_in,
            routes,
            reliable,
            watches,
            lives: adopted_in,
            reports,
            drops: drops("deliver", deliver::REASONS)?,
        };

        let Published { outlets, reliable } = published;
        let report_outlets = report_outlets(&who);
        let all = outlets.iter().chain(reliable.iter().map(|reliable| &reliable.outlet));
        let mut streams: Vec<_> =
            all.map(|outlet| (outlet.fields.topic, outlet.next_sequence.clone())).collect();
        if has_reliable {
            let reports = report_outlets.iter();
            streams.extend(reports.map(|it| (it.fields.topic, it.next_sequence.clone())));
        }
        let keys = who.peers.iter().map(|(_, peer)| peer.key.id()).collect();
        let reliable = match heard {
            Some(heard) => {
                let late = panel.counter("reports.late_in_send")?;
                Some(Box::new(ReliableSend::new(reliable, heard, keys, report_outlets, late)))
            }
            None => None,
        };
        let lost =
            config.peers.iter().map(|peer| panel.counter(&format!("send.lost@{}", peer.name)));
        // A node that publishes nothing needs no room for it.
        let room_to_send = if outlets.is_empty() { 0 } else { BATCH };
        let send = SendStage {
            outlets,
            transport: endpoint.lane_transmitter,
            identity: who.identity.clone(),
            cluster: who.cluster.tag(),
            context: SigningContext::new(Domain::Envelope, &who.cluster),
            lost: lost.collect::<Result<_, _>>()?,
            frames: vec![[0; FRAME_MAX]; room_to_send].into(),
            lens: [0; BATCH],
            turn: 0,
            reliable,
            first_part: 0,
        };

        let gauges = |name: &String| -> Result<PeerGauges, NodeError> {
            Ok(PeerGauges {
                epoch: panel.gauge(&format!("peer.epoch@{name}"))?,
                round_trip_ns: panel.gauge(&format!("peer.round_trip_ns@{name}"))?,
                heard_at_ns: panel.gauge(&format!("peer.heard_at_ns@{name}"))?,
                answered_at_ns: panel.gauge(&format!("peer.answered_at_ns@{name}"))?,
            })
        };
        let greeter = Greeter {
            handshake: Handshake::new(who.identity, who.peers, &who.cluster, who.own, now),
            frames: handshakes_in,
            transport: endpoint.housekeeping_transmitter,
            lives,
            streams,
            peers: names.iter().map(gauges).collect::<Result<_, _>>()?,
            handshakes: panel.counter("handshake.frames")?,
            lost: panel.counter("handshake.lost")?,
            drops: drops("handshake", greeter::REASONS)?,
        };
        Ok(Stages { receive, verify, deliver, send, greeter })
    }
}
