//! The real node: its stages as they are in a robot, without threads, sockets and files.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use sinew_io::delivery::DropReason;
use sinew_io::message::Message;
use sinew_io::node::{
    AllWell, CommandPublisher, CommandReader, Delivery, EStop, EStopReader, Floor, NodeBuilder,
    PeerConfig, Publisher, Queued, Received, Reliability, StreamReader, TopicClass, TopicConfig,
    TopicEvent,
};
use sinew_io::security::{AdmissionLimits, Identity};
use sinew_io::simulation::{
    Branch, Fault, SimLife, SimNode, branches, cheap_signatures, clear_branches, plant,
};
use sinew_io::wire::{
    ClusterName, ClusterTag, Domain, Epoch, KeyId, SIGNATURE_LEN, Sequence, SigningContext, Slot,
};
use sinew_rt::clock::Nanos;
use sinew_rt::latest::LatestReader;
use sinew_rt::ring::Consumer;
use zerocopy::little_endian::U64;
use zeroize::Zeroizing;

use super::{Address, Birth, Heard, Host, Outcome, Payload, STRANGERS, WouldBlock};
use crate::plan::{
    CAPACITY, ESTOP_DEADLINE, FORBIDDEN, GAP_TIMEOUT, Kind, LINGER, PEER_BURST, PEER_PER_S,
    RETAINED, STATE_DEADLINE, TOPICS, TopicPlan,
};

const CLUSTER: &str = "simulated";
const PORT: u16 = 7_000;
/// Looks at a stop before it is re-armed.
const REARM_AFTER: u32 = 20;
/// One command of so many is rejected, with its number as the reason.
pub const REJECTED_EVERY: u64 = 5;

const ADMISSION: AdmissionLimits = AdmissionLimits {
    peer_per_s: PEER_PER_S,
    peer_burst: PEER_BURST,
    strangers_per_s: 100,
    strangers_burst: 16,
};

/// A key with everything that follows from it.
struct Member {
    identity: Identity,
    did: String,
    key: KeyId,
}

thread_local! {
    /// By node; made once for each thread.
    static MEMBERS: RefCell<Vec<Rc<Member>>> = const { RefCell::new(Vec::new()) };
}

fn secret(node: u16) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*blake3::hash(&node.to_le_bytes()).as_bytes())
}

fn member(node: u16) -> Rc<Member> {
    MEMBERS.with_borrow_mut(|members| {
        while members.len() <= usize::from(node) {
            let identity = identity(members.len() as u16);
            let (did, key) = (identity.public().to_did(), identity.public().id());
            members.push(Rc::new(Member { identity, did, key }));
        }
        members[usize::from(node)].clone()
    })
}

#[expect(clippy::expect_used, reason = "the secrets are fixed, and a test uses each of them")]
fn identity(node: u16) -> Identity {
    Identity::from_secret(&secret(node)).expect("hashes of small numbers are good secrets")
}

fn cluster() -> ClusterName {
    static NAME: std::sync::OnceLock<ClusterName> = std::sync::OnceLock::new();
    #[expect(clippy::expect_used, reason = "the name is fixed")]
    *NAME.get_or_init(|| ClusterName::new(CLUSTER).expect("a good name"))
}

fn address(node: Address) -> SocketAddr {
    let net = if node >= STRANGERS { 99 } else { 1 };
    let [high, low] = node.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, net, high, low)), PORT)
}

fn node_at(address: SocketAddr) -> Address {
    match address.ip() {
        IpAddr::V4(ip) => u16::from_be_bytes([ip.octets()[2], ip.octets()[3]]),
        IpAddr::V6(_) => STRANGERS,
    }
}

fn class(kind: Kind) -> TopicClass {
    match kind {
        Kind::Control => TopicClass::Control,
        Kind::Queue => TopicClass::Queue,
        Kind::Command => TopicClass::Command,
        Kind::Stream => TopicClass::Stream,
        Kind::EStop => TopicClass::EStop,
    }
}

fn config(topic: &TopicPlan) -> TopicConfig {
    let schema = if topic.kind == Kind::EStop { AllWell::NAME } else { Payload::NAME };
    TopicConfig {
        lifespan: topic.lifespan,
        deadline: (topic.kind == Kind::Control).then_some(STATE_DEADLINE),
        reliability: Reliability {
            capacity: RETAINED,
            linger: LINGER,
            patience: LINGER,
            gap_timeout: GAP_TIMEOUT,
            ..Reliability::default()
        },
        ..TopicConfig::new(topic.name, schema, class(topic.kind))
    }
}

/// What a program reads of one topic.
enum Reading {
    Newest(LatestReader<Payload>),
    Queue(Consumer<Queued<Payload>>),
    Commands(CommandReader<Payload>),
    Stream(StreamReader<Payload>),
    Stop { reader: EStopReader, well: bool, stopped: u32 },
}

/// What it writes.
enum Writing {
    Messages(Publisher<Payload>),
    Commands(CommandPublisher<Payload>),
    Well(Publisher<AllWell>),
}

/// A node with its program.
pub struct Real {
    node: SimNode,
    me: u16,
    epoch: u64,
    peers: Vec<(KeyId, u16)>,
    readings: Vec<Reading>,
    writings: Vec<Writing>,
    forbidden: Consumer<Queued<Payload>>,
    silences: Consumer<TopicEvent>,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Real").field("node", &self.me).finish_non_exhaustive()
    }
}

fn handles(
    builder: &mut NodeBuilder,
    topic: &TopicPlan,
) -> Result<(Reading, Writing), sinew_io::node::NodeError> {
    Ok(match topic.kind {
        Kind::Control => (
            Reading::Newest(builder.latest(topic.name)?),
            Writing::Messages(builder.publisher(topic.name)?),
        ),
        Kind::Queue => (
            Reading::Queue(builder.queue(topic.name, CAPACITY)?),
            Writing::Messages(builder.publisher(topic.name)?),
        ),
        Kind::Command => (
            Reading::Commands(builder.commands(topic.name, CAPACITY)?),
            Writing::Commands(builder.command_publisher(topic.name)?),
        ),
        Kind::Stream => (
            Reading::Stream(builder.stream(topic.name, CAPACITY)?),
            Writing::Messages(builder.publisher(topic.name)?),
        ),
        Kind::EStop => (
            Reading::Stop {
                reader: builder.estop(topic.name, ESTOP_DEADLINE)?,
                well: false,
                stopped: 0,
            },
            Writing::Well(builder.publisher(topic.name)?),
        ),
    })
}

impl Real {
    fn from(&self, key: KeyId) -> u16 {
        self.peers.iter().find(|(known, _)| *known == key).map_or(u16::MAX, |(_, node)| *node)
    }
}

fn outcome(outcome: sinew_io::node::Outcome) -> Outcome {
    match outcome {
        sinew_io::node::Outcome::Accepted => Outcome::Accepted,
        sinew_io::node::Outcome::Rejected(reason) => Outcome::Rejected(reason),
        sinew_io::node::Outcome::Expired => Outcome::Expired,
        sinew_io::node::Outcome::NeverArrived => Outcome::NeverArrived,
        sinew_io::node::Outcome::Unknown => Outcome::Unknown,
    }
}

impl Host for Real {
    const SPEAKS_REPORTS: bool = true;
    const COUNTS_DROPS: bool = true;

    fn start(birth: &Birth<'_>) -> Result<Self, String> {
        let Birth { plan, node: me, epoch, life_id, boot, seed, now, .. } = *birth;
        let mut builder = NodeBuilder::new(plan.name(me))
            .cluster(CLUSTER)
            .identity(identity(me))
            .admission(ADMISSION)
            .loops(0);
        for topic in TOPICS {
            builder = builder.topic(config(topic));
        }
        builder = builder.topic(TopicConfig::new(FORBIDDEN, Payload::NAME, TopicClass::Queue));
        let mut peers = Vec::new();
        for peer in plan.peers(me) {
            let member = member(peer);
            peers.push((member.key, peer));
            builder = builder.peer(PeerConfig {
                name: plan.name(peer),
                identity: member.did.clone(),
                address: address(peer),
                publishes: TOPICS.iter().map(|topic| topic.name.to_owned()).collect(),
            });
        }
        let words = |error: sinew_io::node::NodeError| error.to_string();
        let (mut readings, mut writings) = (Vec::new(), Vec::new());
        for topic in TOPICS {
            let (reading, writing) = handles(&mut builder, topic).map_err(words)?;
            readings.push(reading);
            writings.push(writing);
        }
        for (topic, plan) in (0..).zip(TOPICS) {
            let of_topic = birth.floors.iter().filter(|floor| floor.topic == topic);
            let floors: Vec<Floor> = of_topic
                .map(|floor| Floor {
                    from: member(floor.from).key,
                    epoch: Epoch::new(floor.epoch),
                    sequence: Sequence::new(floor.sequence),
                })
                .collect();
            if !floors.is_empty() {
                builder.resume(plan.name, &floors).map_err(words)?;
            }
        }
        let silences = builder.events(TOPICS[0].name).map_err(words)?;
        let forbidden = builder.queue(FORBIDDEN, CAPACITY).map_err(words)?;
        // The liar announces the closed topic, so that only its lack of permission stands before it.
        let _announced = match plan.liar == Some(me) {
            true => Some(builder.publisher::<Payload>(FORBIDDEN).map_err(words)?),
            false => None,
        };
        let life = SimLife { epoch: Epoch::new(epoch), life: life_id, boot, seed };
        let node = SimNode::start(builder, life, address(me), now).map_err(words)?;
        Ok(Self { node, me, epoch, peers, readings, writings, forbidden, silences })
    }

    fn receive(&mut self, from: Address, frame: &[u8]) -> bool {
        self.node.receive(address(from), frame)
    }

    fn poll(&mut self, now: Nanos) -> bool {
        self.node.poll(now)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.node.next_deadline()
    }

    fn sent(&mut self, take: &mut dyn FnMut(Address, &[u8])) {
        while let Some((to, frame)) = self.node.sent() {
            take(node_at(to), &frame);
        }
    }

    fn publish(&mut self, topic: u8, payload: &Payload, now: Nanos) -> Result<(), WouldBlock> {
        match &mut self.writings[usize::from(topic)] {
            Writing::Messages(publisher) => {
                publisher.publish_at(payload, now).map_err(|_| WouldBlock)
            }
            Writing::Commands(publisher) => match publisher.send_at(payload, now) {
                Ok(_) => Ok(()),
                Err(_) => Err(WouldBlock),
            },
            Writing::Well(publisher) => {
                let well = AllWell { count: U64::new(payload.number) };
                publisher.publish_at(&well, now).map_err(|_| WouldBlock)
            }
        }
    }

    fn hear(&mut self, now: Nanos, reads_all: bool, take: &mut dyn FnMut(Heard)) {
        let mut readings = std::mem::take(&mut self.readings);
        for (topic, reading) in (0..).zip(&mut readings) {
            match reading {
                Reading::Newest(reader) => {
                    if reader.has_unread()
                        && let Some(newest) = reader.read()
                    {
                        take(Heard::Value { topic, payload: *newest.value });
                    }
                }
                Reading::Queue(queue) => {
                    while let Some(queued) = queue.pop() {
                        take(Heard::Queued { topic, payload: queued.value });
                    }
                }
                Reading::Commands(reader) if reads_all => {
                    while let Some(delivery) = reader.next(now) {
                        if let Delivery::Message(command) = &delivery {
                            let number = command.value.number;
                            // Without room for the decision the sender hears that it is unknown.
                            let _ = match number % REJECTED_EVERY {
                                0 => reader.reject(command, (number % 200) as u8),
                                _ => reader.accept(command),
                            };
                        }
                        take(self.heard(topic, &delivery));
                    }
                }
                Reading::Stream(reader) if reads_all => {
                    while let Some(delivery) = reader.next() {
                        take(self.heard(topic, &delivery));
                    }
                }
                Reading::Commands(_) | Reading::Stream(_) => {}
                Reading::Stop { reader, well, stopped } => {
                    let mut state = reader.check(now);
                    if state != EStop::Stop && *stopped > 0 {
                        take(Heard::Unlatched);
                    }
                    *stopped = if state == EStop::Stop { *stopped + 1 } else { 0 };
                    // A person who looks takes a while, in which a word that comes must not end the stop.
                    if *stopped > REARM_AFTER && reader.rearm(now) {
                        *stopped = 0;
                        state = reader.check(now);
                    }
                    let is_well = state != EStop::Stop;
                    if is_well || *well {
                        take(Heard::Well { topic, well: is_well });
                    }
                    *well = is_well;
                }
            }
        }
        self.readings = readings;
        for (topic, writing) in (0..).zip(&mut self.writings) {
            if let Writing::Commands(publisher) = writing {
                while let Some((sequence, became)) = publisher.outcome() {
                    take(Heard::Outcome {
                        topic,
                        sequence: sequence.get(),
                        outcome: outcome(became),
                    });
                }
            }
        }
        while let Some(event) = self.silences.pop() {
            take(Heard::Silence { silent: matches!(event, TopicEvent::DeadlineMissed { .. }) });
        }
        while let Some(queued) = self.forbidden.pop() {
            take(Heard::Forbidden { payload: queued.value });
        }
    }

    fn key_id(node: u16) -> u64 {
        member(node).key.get()
    }

    fn cluster() -> ClusterTag {
        cluster().tag()
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn sign(&self, slot: &mut Slot) -> Option<usize> {
        let context = SigningContext::new(Domain::Envelope, &cluster());
        member(self.me).identity.sign_envelope(&context, slot).ok()
    }

    fn sign_body(&self, domain: Domain, body: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
        let context = SigningContext::new(domain, &cluster());
        Some(member(self.me).identity.sign(&[context.as_bytes(), body]))
    }

    fn step_wall_clock(&mut self, by: Nanos) {
        self.node.step_wall_clock(by);
    }

    fn add_drops(&self, drops: &mut [u64]) {
        for (sum, count) in drops.iter_mut().zip(self.node.drops()) {
            *sum += count;
        }
    }

    fn slots(&self) -> (usize, usize) {
        self.node.slots()
    }

    fn prepare(planted: Option<&str>) -> Result<(), String> {
        let fault =
            planted.map(str::parse::<Fault>).transpose().map_err(|error| error.to_string())?;
        cheap_signatures(true);
        clear_branches();
        plant(fault);
        Ok(())
    }

    fn plants() -> Vec<&'static str> {
        Fault::ALL.iter().map(|fault| fault.as_str()).collect()
    }

    fn take_branches() -> Vec<(&'static str, u64)> {
        let reached = branches();
        clear_branches();
        Branch::ALL
            .iter()
            .map(|branch| (branch.as_str(), u64::from(reached.contains(*branch))))
            .collect()
    }
}

impl Real {
    fn heard(&self, topic: u8, delivery: &Delivery<Payload>) -> Heard {
        match *delivery {
            Delivery::Message(Received {
                value,
                from,
                epoch,
                sequence,
                possible_duplicate,
                ..
            }) => Heard::Message {
                topic,
                from: self.from(from),
                epoch: epoch.get(),
                sequence: sequence.get(),
                payload: value,
                possible_duplicate,
            },
            Delivery::Gap { from, epoch, first, last, .. } => Heard::Gap {
                topic,
                from: self.from(from),
                epoch: epoch.get(),
                first: first.get(),
                last: last.get(),
            },
            Delivery::Started { from, epoch, first } => Heard::NewLife {
                topic,
                from: self.from(from),
                epoch: epoch.get(),
                first: first.get(),
            },
        }
    }
}

const _: () = assert!(DropReason::COUNT > 0);
