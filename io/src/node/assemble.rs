//! The start: from a checked description to running lanes, in an order in which every failure
//! leaves nothing behind.

use super::NodeError;
use super::builder::{NodeBuilder, Publication, Subscription};
use super::config::{Auth, Mode, NodeConfig, TopicConfig};
use super::housekeeping::{self, Housekeeping, HousekeepingThread, PeerGauges};
use super::log::{self, Log};
use super::plan::{self, Plan, StageName};
use super::running::{LaneSet, Node, StartReport};
use crate::delivery::{DropReason, StreamTable};
use crate::pipeline::deliver::{self, DeliverStage, Route};
use crate::pipeline::receive::{self, Filter, ReceiveOutputs, ReceiveStage};
use crate::pipeline::send::{Outlet, SendStage};
use crate::pipeline::verify::{self, SenderClock, TopicRule, VerifyInputs, VerifyStage};
use crate::pipeline::{Drops, FRAMES_PER_POLL};
use crate::security::boot::{BootCounter, BootError};
use crate::security::hello::{Handshake, OwnLife};
use crate::security::{Admission, Enrolment, Identity, Peer, PublicKey, Publishes, Trust, keyfile};
use crate::transport::buffer::{FrameBuffer, FramePool};
use crate::transport::park::SocketPark;
use crate::transport::{self, BATCH, Endpoint};
use crate::wire::hello::STREAMS_MAX;
use crate::wire::{
    BootId, Class, ClusterName, Domain, EnvelopeFields, Epoch, FRAME_MAX, KeyId, LifeId, Sequence,
    SigningContext, TopicId,
};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::kernel::{RtThrottling, SpinRefused};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::{Lane, Stage};
use sinew_rt::memory::{self, MemoryPlan, MemoryReport};
use sinew_rt::panel::{Kind, Panel, PanelSpec, State};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::ring::{self, Consumer, Producer};
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{Applied, Policy, Refusal, Strictness, ThreadSpec};
use sinew_rt::topology::Topology;
use sinew_rt::wait::Doorbell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Frames from peers' own addresses that may wait for the verify stage, shared out among the peers
/// ahead of time: what one peer does not use is no other's.
const PEERS_RINGS: usize = 256;
/// The least that a peer gets of them, however many peers there are. Each frame takes a slot of the
/// pool and a handle in the ring, so this is 83 kB a peer.
const PEER_RING_MIN: usize = 64;
/// Verified frames that may wait for a deliver stage on another lane, which may come to run only when
/// the verify stage has no more work.
const VERIFIED_RING_BETWEEN_LANES: usize = 256;
/// Frames from elsewhere that may wait for the verify stage: more would mean that strangers spend
/// faster than their bucket fills.
const STRANGERS_RING: usize = 64;
/// Verified frames that may wait for a deliver stage on the same lane, which takes in each pass as
/// many as the verify stage gives in one.
const VERIFIED_RING: usize = 64;
const _: () = assert!(VERIFIED_RING >= FRAMES_PER_POLL);
/// Handshake frames that may wait for housekeeping.
const HANDSHAKE_RING: usize = 64;
/// Lives that may wait for the verify stage.
const LIVES_RING: usize = 64;
/// A stage that is inside for this many budgets hangs.
const HARD_LIMIT_BUDGETS: i64 = 100;

/// Starts the node that `builder` describes.
pub(super) fn start(mut builder: NodeBuilder) -> Result<Node, NodeError> {
    builder.config.validate()?;
    let topology = Topology::read()?;
    let plan = plan::plan(&builder.config, &topology, builder.spins_in_bursts)?;
    let who = Who::new(&mut builder)?;
    let config = &builder.config;
    let addresses: Vec<_> = config.peers.iter().map(|peer| peer.address).collect();
    let endpoint = bind(&builder, &addresses)?;
    let address = endpoint.local;
    let panel = panel(&builder)?;
    panel.set_identity(&who.identity.public().to_did());
    panel.set_layout(&plan.to_string());

    let process = Process::prepare(config, builder.spins_in_bursts)?;
    let strictness = config.strictness();
    if strictness == Strictness::Require && !process.refused.is_empty() {
        return Err(NodeError::Refused(process.refused));
    }
    let epoch = who.own.epoch;
    let wait = config.realtime.wait;
    let public = *who.identity.public();
    let health = Arc::new(Health::new());
    let housekeeping_bell = Arc::new(Doorbell::new());
    let (lanes, housekeeping) =
        wire_up(builder, who, endpoint, &plan, &panel, &health, &housekeeping_bell)?;

    // From here on threads run. They wait at the gate until the last of them is set up, and end
    // when `lanes` is dropped.
    let mut running = LaneSet::default();
    for lane in lanes {
        running.spawn(lane, &health)?;
    }
    let granted: Vec<_> = running.iter().map(|lane| lane.applied().clone()).collect();
    let mut not_real_time: Vec<_> = granted.iter().filter_map(Applied::not_real_time).collect();
    not_real_time.extend(process.refused.iter().map(ToString::to_string));
    panel.set_not_real_time(&not_real_time);
    let spec = housekeeping_spec(&topology, &plan);
    let housekeeping = HousekeepingThread::spawn(spec, housekeeping_bell, housekeeping)?;
    panel.set_state(State::Running);
    running.open();
    Ok(Node {
        lanes: running,
        housekeeping: Some(housekeeping),
        health,
        wait,
        report: StartReport {
            plan,
            lanes: granted,
            memory: process.memory,
            cpu_latency_us: process.power.as_ref().map(CpuLatencyHold::effective_us),
            not_real_time,
            address,
            epoch,
        },
        public,
        panel,
        _power: process.power,
    })
}

/// Who this node is, whom it knows, and which of its lives begins.
struct Who {
    identity: Arc<Identity>,
    peers: Arc<Enrolment>,
    cluster: ClusterName,
    own: OwnLife,
}

impl Who {
    fn new(builder: &mut NodeBuilder) -> Result<Self, NodeError> {
        let given = builder.identity.take();
        let config = &builder.config;
        let cluster = ClusterName::new(&config.cluster)
            .map_err(|error| config.error("node.cluster", error.to_string(), ""))?;
        let identity = match (given, &config.key) {
            (Some(identity), _) => identity,
            (None, Some(path)) => keyfile::load(path)?,
            (None, None) => {
                let hint = "make one with `sinew key new FILE` and set node.key";
                return Err(config.error("node.key", "the node has no identity", hint).into());
            }
        };
        let peers = Arc::new(enrolment(config, identity.public())?);
        let own = own_life(config)?;
        Ok(Self { identity: Arc::new(identity), peers, cluster, own })
    }
}

fn enrolment(config: &NodeConfig, own: &PublicKey) -> Result<Enrolment, NodeError> {
    let mut peers = Vec::with_capacity(config.peers.len());
    for (n, peer) in config.peers.iter().enumerate() {
        let key = format!("peer.{n}.identity");
        let public = PublicKey::from_did(&peer.identity).map_err(|error| {
            config.error(&key, error.to_string(), "`sinew key show FILE` prints an identity")
        })?;
        if public.id() == own.id() {
            let hint = "give the peer's identity, not this node's";
            return Err(config.error(&key, "this is the node itself", hint).into());
        }
        let publishes = peer.publishes.iter().map(|topic| TopicId::of(topic)).collect();
        peers.push(Peer {
            name: peer.name.clone(),
            key: public,
            publishes: Publishes::Only(publishes),
        });
    }
    Enrolment::new(peers).map_err(|error| config.error("peer", error.to_string(), "").into())
}

/// Begins a life: from the boot counter on disk, or in development mode without a state directory
/// from the wall clock, which grows from one start to the next unless somebody sets it back.
fn own_life(config: &NodeConfig) -> Result<OwnLife, NodeError> {
    let epoch = match &config.state_dir {
        Some(dir) => {
            private_dir(dir).map_err(|(problem, hint)| {
                config.error("node.state_dir", format!("{}: {problem}", dir.display()), hint)
            })?;
            BootCounter::advance(&dir.join("boot")).map_err(|error| match error {
                BootError::File(error) => {
                    NodeError::Config(config.error("node.state_dir", error.to_string(), ""))
                }
                error => error.into(),
            })?
        }
        None => Epoch::new(clock::wall().as_unsigned()),
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot = boot.map_err(|error| NodeError::System { action: "read the boot id", error })?;
    let boot = BootId::parse(boot.trim()).ok_or_else(|| NodeError::System {
        action: "read the boot id",
        error: std::io::Error::other("it is not a UUID"),
    })?;
    let mut life = LifeId::default();
    getrandom::fill(&mut life.0).map_err(|error| NodeError::System {
        action: "draw random bytes",
        error: std::io::Error::other(error.to_string()),
    })?;
    Ok(OwnLife { epoch, life, boot })
}

/// Makes the directory, or checks that nobody else could put another boot counter into it; otherwise
/// says what is wrong and what to do.
fn private_dir(dir: &std::path::Path) -> Result<(), (String, String)> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let facts = made.and_then(|()| std::fs::metadata(dir)).map_err(|error| {
        (format!("cannot be used: {error}"), "name a directory that this node may make".to_owned())
    })?;
    // SAFETY: geteuid(2) takes nothing, touches no memory and cannot fail.
    let us = unsafe { libc::geteuid() };
    if facts.uid() != us {
        let problem = format!("belongs to user {}, and this process is user {us}", facts.uid());
        return Err((problem, format!("run `chown {us} {}`", dir.display())));
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let problem = format!("mode {mode:04o} lets others write");
        return Err((problem, format!("run `chmod go-w {}`", dir.display())));
    }
    Ok(())
}

fn bind(builder: &NodeBuilder, peers: &[SocketAddr]) -> Result<Endpoint, NodeError> {
    match (&builder.memory, builder.config.bind) {
        (Some((network, address)), _) => Ok(network.bind(*address, peers)?),
        (None, Some(address)) => Ok(transport::udp::bind(address, peers)?),
        (None, None) => {
            let hint = "set transport.bind, for example to \"127.0.0.1:7400\"";
            Err(builder.config.error("transport", "the node has no address", hint).into())
        }
    }
}

/// A panel with room for everything that this node will show, and for a control loop's figures.
fn panel(builder: &NodeBuilder) -> Result<Panel, NodeError> {
    let sources = builder.config.peers.len() + 1;
    let reasons = receive::REASONS.len()
        + verify::REASONS.len()
        + deliver::REASONS.len()
        + housekeeping::REASONS.len();
    let topics = builder.config.topics.len();
    let mut spec = PanelSpec::new(&builder.config.name);
    if let Some(dir) = &builder.panel_dir {
        spec = spec.in_dir(dir);
    }
    spec.probes = (4 + builder.stages.len() + 4) as u32;
    spec.histograms = 2 * spec.probes + topics as u32 + 8;
    spec.values = (sources * (reasons + 5) + 4 * topics + 64) as u32;
    Ok(Panel::create(&spec)?)
}

/// What was prepared for the whole process.
struct Process {
    memory: Option<MemoryReport>,
    power: Option<CpuLatencyHold>,
    refused: Vec<Refusal>,
}

impl Process {
    /// Whatever the strictness, a lane may not spin for good where the kernel would stop it for a
    /// part of each second.
    fn prepare(config: &NodeConfig, spins_in_bursts: bool) -> Result<Self, NodeError> {
        if config.realtime.wait.holds_core()
            && !spins_in_bursts
            && let Err(SpinRefused { reason, fix }) = RtThrottling::current().spin_allowed()
        {
            return Err(NodeError::Refused(vec![Refusal {
                what: "realtime.wait".to_owned(),
                wanted: "spin".to_owned(),
                got: "throttled".to_owned(),
                reason,
                fix: format!("{fix}, or set realtime.wait = \"spin-then-park\""),
            }]));
        }
        let memory = config.realtime.lock_memory.then(|| memory::prepare(&MemoryPlan::default()));
        let mut refused: Vec<_> =
            memory.iter().flat_map(|report| report.refused.iter().cloned()).collect();
        let power = config.realtime.cpu_latency_us.and_then(|us| {
            CpuLatencyHold::acquire(us)
                .map_err(|error| {
                    refused.push(Refusal {
                        what: "idle states".to_owned(),
                        wanted: format!("wake-up latency of {us} µs"),
                        got: "the system's default".to_owned(),
                        reason: error.to_string(),
                        fix: "run as root, or set realtime.cpu_latency_us = \"off\"".to_owned(),
                    });
                })
                .ok()
        });
        Ok(Self { memory, power, refused })
    }
}

/// Housekeeping runs at normal priority, on a core without a lane if there is one.
fn housekeeping_spec(topology: &Topology, plan: &Plan) -> ThreadSpec {
    let free = |core: &_| !plan.lanes.iter().any(|lane| lane.core == *core);
    let spec = ThreadSpec::new("housekeeping").policy(Policy::Other).strictness(Strictness::Report);
    match topology.housekeeping_candidates().into_iter().find(free) {
        Some(core) => spec.core(core),
        None => spec,
    }
}

/// The lanes of the plan while stages are put on them.
struct Lanes<'a> {
    lanes: Vec<Lane>,
    plan: &'a Plan,
    panel: &'a Panel,
    health: &'a Arc<Health>,
    log: Log,
}

impl Lanes<'_> {
    fn of(&self, stage: StageName) -> usize {
        self.plan.lanes.iter().position(|lane| lane.stages.contains(&stage)).unwrap_or(0)
    }

    /// The bell that work for `stage` must ring, when its lane may be asleep.
    fn doorbell(&self, stage: StageName) -> Option<Arc<Doorbell>> {
        let lane = &self.lanes[self.of(stage)];
        (!lane.wait().holds_core()).then(|| lane.doorbell())
    }

    /// A ring from one stage to another, which rings the other's lane if that is another lane.
    fn ring<T>(
        &self,
        from: StageName,
        to: StageName,
        capacity: usize,
    ) -> (Producer<T>, Consumer<T>) {
        match self.doorbell(to) {
            Some(doorbell) if self.of(from) != self.of(to) => {
                ring::channel_with_doorbell(capacity, doorbell)
            }
            _ => ring::channel(capacity),
        }
    }

    fn seat(
        &mut self,
        on: StageName,
        name: &str,
        spec: GuardSpec,
        stage: Box<dyn Stage>,
    ) -> Result<(), NodeError> {
        let lane = self.of(on);
        let probe = self.panel.probe(name, Some(self.plan.lanes[lane].core.get()))?;
        let guard = Guard::new(probe, spec).map_err(|error| super::ConfigError {
            file: None,
            key: format!("budget of stage {name}"),
            problem: error.to_string(),
            hint: String::new(),
        })?;
        let log = self.log.stage(self.plan.lanes[lane].name, name);
        self.lanes[lane].push_logged(stage, guard.with_health(self.health.clone()), log);
        Ok(())
    }

    /// The drop counters of a stage, which tell of the first drop of each kind.
    fn drops(
        &mut self,
        on: StageName,
        reasons: &'static [DropReason],
        peers: &[String],
    ) -> Result<Drops, NodeError> {
        let source = format!("{}/{on}", self.plan.lanes[self.of(on)].name);
        let log = self.log.drops(&source, reasons, peers);
        Ok(Drops::register(self.panel, &on.to_string(), reasons, peers)?.logged(log))
    }
}

fn pipeline_guard(budget: Nanos) -> GuardSpec {
    GuardSpec {
        budget,
        hard_limit: budget * HARD_LIMIT_BUDGETS,
        ladder: LadderConfig::report_only(),
    }
}

/// Frames of one peer that may wait for the verify stage.
const fn peer_ring(peers: usize) -> usize {
    let share = PEERS_RINGS / if peers == 0 { 1 } else { peers };
    if share < PEER_RING_MIN { PEER_RING_MIN } else { share }
}

/// Makes the stages, puts them on their lanes, and connects everything with everything.
fn wire_up(
    builder: NodeBuilder,
    who: Who,
    mut endpoint: Endpoint,
    plan: &Plan,
    panel: &Panel,
    health: &Arc<Health>,
    housekeeping_bell: &Arc<Doorbell>,
) -> Result<(Vec<Lane>, Housekeeping), NodeError> {
    use StageName::{Deliver, Receive, Send, Verify};
    let config = &builder.config;
    let names: Vec<String> = config.peers.iter().map(|peer| peer.name.clone()).collect();
    let lanes = make_lanes(config, plan, &mut endpoint)?;
    let sink = match builder.log {
        Some(sink) => sink,
        None => log::stderr(config.name.clone(), panel.counter("log.lost")?),
    };
    let mut lanes = Lanes { lanes, plan, panel, health, log: Log::new(sink) };
    let now = clock::now();

    // All rings may be full at once, and each socket holds a batch ready.
    let one_lane = lanes.of(Verify) == lanes.of(Deliver);
    let verified_ring = if one_lane { VERIFIED_RING } else { VERIFIED_RING_BETWEEN_LANES };
    let peer_ring = peer_ring(names.len());
    let rings = names.len() * peer_ring + STRANGERS_RING + verified_ring + HANDSHAKE_RING;
    let slots = rings + (names.len() + 1) * BATCH;
    let (from_peers, from_peers_in) =
        names.iter().map(|_| lanes.ring(Receive, Verify, peer_ring)).unzip();
    let (strangers, strangers_in) = lanes.ring(Receive, Verify, STRANGERS_RING);
    let (verified, verified_in) = lanes.ring(Verify, Deliver, verified_ring);
    // A lane that spins makes no system call, not even to wake housekeeping, which looks by itself
    // every 20 ms. The handshake's clock samples are taken on the lane, so they stay exact.
    let (handshakes, handshakes_in) = match lanes.doorbell(Receive) {
        Some(_) => ring::channel_with_doorbell(HANDSHAKE_RING, housekeeping_bell.clone()),
        None => ring::channel(HANDSHAKE_RING),
    };
    let (lives, lives_in) = match lanes.doorbell(Verify) {
        Some(doorbell) => ring::channel_with_doorbell(LIVES_RING, doorbell),
        None => ring::channel(LIVES_RING),
    };

    let homes: Vec<_> = config.peers.iter().map(|peer| peer.address).collect();
    let admission = Admission::new(config.admission, homes.len(), now);
    let receive = ReceiveStage {
        transport: endpoint.receiver,
        pool: FramePool::new(slots, FrameBuffer::new),
        filter: Filter {
            cluster: who.cluster.tag(),
            peers: who.peers.clone(),
            homes,
            admission,
            outputs: ReceiveOutputs { peers: from_peers, strangers, handshakes },
            frames: panel.counter("receive.frames")?,
            errors: panel.counter("receive.errors")?,
            drops: lanes.drops(Receive, receive::REASONS, &names)?,
        },
    };
    lanes.seat(Receive, "receive", pipeline_guard(config.budgets.receive), Box::new(receive))?;

    let (rules, routes) = subscriptions(builder.subscriptions, config, panel)?;
    let topics: Vec<_> = rules.iter().map(|rule| rule.topic).collect();
    let verify = VerifyStage {
        inputs: VerifyInputs::new(from_peers_in, strangers_in),
        lives: lives_in,
        output: verified,
        own_key: who.identity.public().id(),
        context: SigningContext::new(Domain::Envelope, &who.cluster),
        clocks: vec![SenderClock::Unknown; names.len()],
        streams: StreamTable::new(names.len(), &topics)
            .map_err(|error| config.error("topic", error.to_string(), ""))?,
        rules,
        peers: who.peers.clone(),
        checked: panel.counter("verify.signatures_checked")?,
        drops: lanes.drops(Verify, verify::REASONS, &names)?,
    };
    lanes.seat(Verify, "verify", pipeline_guard(config.budgets.verify), Box::new(verify))?;

    let deliver = DeliverStage {
        input: verified_in,
        routes,
        drops: lanes.drops(Deliver, deliver::REASONS, &names)?,
    };
    lanes.seat(Deliver, "deliver", pipeline_guard(config.budgets.deliver), Box::new(deliver))?;

    for (name, guard, stage) in builder.stages {
        lanes.seat(Send, &name, guard, stage)?;
    }
    let outlets = publications(builder.publications, config, &who, panel)?;
    let streams: Vec<_> =
        outlets.iter().map(|outlet| (outlet.fields.topic, outlet.next_sequence.clone())).collect();
    let lost = names.iter().map(|name| panel.counter(&format!("send.lost@{name}")));
    let send = SendStage {
        outlets,
        transport: endpoint.lane_transmitter,
        identity: who.identity.clone(),
        cluster: who.cluster.tag(),
        context: SigningContext::new(Domain::Envelope, &who.cluster),
        lost: lost.collect::<Result<_, _>>()?,
        frames: Box::new([[0; FRAME_MAX]; BATCH]),
        lens: [0; BATCH],
        turn: 0,
    };
    lanes.seat(Send, "send", pipeline_guard(config.budgets.send), Box::new(send))?;
    if let Some(doorbell) = lanes.doorbell(Send) {
        // Nobody else sets it: a builder starts once.
        let _ = builder.send_doorbell.set(doorbell);
    }

    let gauges = |name: &String| -> Result<PeerGauges, NodeError> {
        Ok(PeerGauges {
            epoch: panel.gauge(&format!("peer.epoch@{name}"))?,
            round_trip_ns: panel.gauge(&format!("peer.round_trip_ns@{name}"))?,
            heard_at_ns: panel.gauge(&format!("peer.heard_at_ns@{name}"))?,
        })
    };
    let supervisor = Supervisor::new(panel).map_err(|error| NodeError::System {
        action: "supervise the stages",
        error: std::io::Error::other(error),
    })?;
    let Lanes { lanes, mut log, .. } = lanes;
    let housekeeping = Housekeeping {
        handshake: Handshake::new(who.identity, who.peers, &who.cluster, who.own, now),
        frames: handshakes_in,
        transport: endpoint.housekeeping_transmitter,
        lives,
        streams,
        supervisor: supervisor.with_health(health.clone()),
        panel: panel.clone(),
        health: health.clone(),
        peers: names.iter().map(gauges).collect::<Result<_, _>>()?,
        handshakes: panel.counter("handshake.frames")?,
        lost: panel.counter("handshake.lost")?,
        hangs: panel.counter("supervisor.hangs")?,
        drops: Drops::register(panel, "handshake", housekeeping::REASONS, &names)?
            .logged(log.drops("housekeeping/handshake", housekeeping::REASONS, &names)),
        log,
    };
    Ok((lanes, housekeeping))
}

/// The lanes without stages; the one that receives sleeps in the transport's poll.
fn make_lanes(
    config: &NodeConfig,
    plan: &Plan,
    endpoint: &mut Endpoint,
) -> Result<Vec<Lane>, NodeError> {
    let wait = config.realtime.wait;
    let failed = |error| NodeError::System { action: "make the poll of a lane", error };
    let mut lanes = Vec::with_capacity(plan.lanes.len());
    for lane in &plan.lanes {
        let spec = ThreadSpec::new(lane.name)
            .core(lane.core)
            .fifo(config.realtime.priority)
            .strictness(config.strictness());
        if lane.stages.contains(&StageName::Receive) && !wait.holds_core() {
            let mut park = SocketPark::new().map_err(failed)?;
            endpoint.receiver.attach(&mut park).map_err(failed)?;
            lanes.push(Lane::with_park(spec, wait, park.doorbell(), Box::new(park)));
        } else {
            lanes.push(Lane::new(spec, wait));
        }
    }
    Ok(lanes)
}

/// The rules by which envelopes of the subscribed topics are judged, and where they go; both sorted
/// by topic.
fn subscriptions(
    subscriptions: Vec<Subscription>,
    config: &NodeConfig,
    panel: &Panel,
) -> Result<(Vec<TopicRule>, Vec<Route>), NodeError> {
    let mut rules = Vec::new();
    let mut routes = Vec::new();
    for Subscription { topic, schema, sink } in subscriptions {
        let TopicConfig { name, auth, lifespan, .. } = &config.topics[topic];
        let topic = TopicId::of(name);
        // Beside `foreign_schema`, so that a mismatch shows both.
        panel.gauge(&format!("schema/{name}"))?.set(schema.get().cast_signed());
        rules.push(TopicRule { topic, trust: trust(*auth, config.mode), lifespan: *lifespan });
        routes.push(Route {
            topic,
            schema,
            sink,
            delivered: panel.counter(&format!("delivered/{name}"))?,
            foreign_schema: panel.gauge(&format!("foreign_schema/{name}"))?,
            age: panel.recorder(name, Kind::Age)?,
        });
    }
    rules.sort_unstable_by_key(|rule: &TopicRule| rule.topic);
    routes.sort_unstable_by_key(|route: &Route| route.topic);
    Ok((rules, routes))
}

/// Unsigned envelopes pass only where both the topic and the mode say so.
fn trust(auth: Auth, mode: Mode) -> Trust {
    match (auth, mode) {
        (Auth::Open, Mode::Development) => Trust::Open,
        _ => Trust::Signed,
    }
}

fn publications(
    publications: Vec<Publication>,
    config: &NodeConfig,
    who: &Who,
    panel: &Panel,
) -> Result<Vec<Outlet>, NodeError> {
    if publications.len() > STREAMS_MAX {
        let problem = format!("{} topics are published", publications.len());
        let hint = format!("a node publishes at most {STREAMS_MAX}: split it into two nodes");
        return Err(config.error("topic", problem, hint).into());
    }
    let outlet = |Publication { topic, schema, source }| -> Result<Outlet, NodeError> {
        let TopicConfig { name, auth, lifespan, .. } = &config.topics[topic];
        let lifespan_us = lifespan.map_or(0, |span| span.as_unsigned() / 1_000);
        Ok(Outlet {
            source,
            fields: EnvelopeFields {
                source: who.identity.public().id(),
                destination: KeyId::EVERYONE,
                topic: TopicId::of(name),
                schema,
                epoch: who.own.epoch,
                sequence: Sequence::FIRST,
                sent_at: Nanos::ZERO,
                lifespan_us: u32::try_from(lifespan_us).unwrap_or(u32::MAX),
                class: Class::Control,
            },
            signed: trust(*auth, config.mode) == Trust::Signed,
            next_sequence: Arc::new(AtomicU64::new(Sequence::FIRST.get())),
            sent: panel.counter(&format!("sent/{name}"))?,
        })
    };
    publications.into_iter().map(outlet).collect()
}
