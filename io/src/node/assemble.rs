//! The start: from a checked description to running lanes, in an order in which every failure
//! leaves nothing behind.

use super::NodeError;
use super::builder::NodeBuilder;
use super::housekeeping::{self, Housekeeping, HousekeepingThread, PeerGauges};
use super::log::{self, Log};
use super::plan::{self, Plan, StageName};
use super::process::Process;
use super::recheck::Recheck;
use super::running::{LaneSet, Node, StartReport};
use super::seats::{Lanes, pipeline_guard};
use super::topics::{publications, subscriptions};
use super::who::Who;
use crate::delivery::StreamTable;
use crate::pipeline::deliver::{self, DeliverStage};
use crate::pipeline::receive::{self, Filter, ReceiveOutputs, ReceiveStage, Unverified};
use crate::pipeline::send::SendStage;
use crate::pipeline::verify::{self, SenderClock, VerifyInputs, VerifyStage};
use crate::pipeline::{Drops, FRAMES_PER_POLL};
use crate::security::hello::Handshake;
use crate::security::{self, Admission};
use crate::transport::buffer::{FrameBuffer, FramePool};
use crate::transport::{self, BATCH, Endpoint};
use crate::wire::{Domain, FRAME_MAX, SigningContext};
use sinew_rt::clock;
use sinew_rt::health::Health;
use sinew_rt::keep_awake::KeepAwake;
use sinew_rt::lane::Lane;
use sinew_rt::panel::{Panel, PanelSpec, State};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::ring;
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{Applied, Policy, Strictness, ThreadSpec};
use sinew_rt::topology::Topology;
use sinew_rt::wait::Doorbell;
use std::net::SocketAddr;
use std::sync::Arc;

/// Frames from peers' own addresses that may wait for the verify stage, shared out among the peers
/// ahead of time: what one peer does not use is no other's.
const PEERS_RINGS: usize = 256;
/// The least that a peer gets of them, however many peers there are. Each frame takes a slot of the
/// pool and a handle in the ring, so this is 83 kB a peer (64 × (1,280 + 16) bytes).
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
    match builder.observer {
        true => {
            panel.set_layout("observer: all stages on one thread at ordinary priority, any core")
        }
        false => panel.set_layout(&plan.to_string()),
    }

    let process = Process::prepare(config, builder.spins_in_bursts)?;
    let strictness = config.strictness();
    if strictness == Strictness::Require && !process.refused.is_empty() {
        return Err(NodeError::Refused(process.refused));
    }
    security::choose_stack(&who.identity, clock::now);
    let epoch = who.own.epoch;
    let wait = config.realtime.wait;
    let keep_awake_cores = config.realtime.keep_awake.clone();
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
    // Below every other thread, so before any of them has work; they end with the node.
    let keep_awake = KeepAwake::on(&keep_awake_cores, strictness)?;
    let awake: Vec<_> = keep_awake.applied().cloned().collect();
    not_real_time.extend(awake.iter().flat_map(|thread| &thread.refused).map(ToString::to_string));
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
            keep_awake: awake,
            not_real_time,
            address,
            epoch,
        },
        public,
        panel,
        _power: process.power,
        _keep_awake: keep_awake,
    })
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

/// What a control loop shows: itself and its safe-stop path; and how late it woke up, with three
/// histograms more for the program.
const LOOP_PROBES: u32 = 2;
const LOOP_HISTOGRAMS: u32 = 4;

/// A panel with room for everything that this node and the loops beside it will show.
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
    let loops = u32::from(builder.loops);
    spec.probes = (4 + builder.stages.len()) as u32 + LOOP_PROBES * loops;
    spec.histograms = 2 * spec.probes + topics as u32 + LOOP_HISTOGRAMS * loops;
    spec.values = (sources * (reasons + 5) + 4 * topics + 64) as u32;
    Ok(Panel::create(&spec)?)
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

/// Frames of one peer that may wait for the verify stage.
const fn peer_ring(peers: usize) -> usize {
    let share = PEERS_RINGS / if peers == 0 { 1 } else { peers };
    if share < PEER_RING_MIN { PEER_RING_MIN } else { share }
}

// What docs/message-path.md says of a peer's memory.
const _: () = assert!(peer_ring(1) == 256 && peer_ring(4) == 64 && peer_ring(64) == 64);
const _: () = assert!(size_of::<Unverified>() == 16 && BATCH * size_of::<FrameBuffer>() == 40_960);

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
    let sink = match builder.log {
        Some(sink) => sink,
        None => log::stderr(config.name.clone(), panel.counter("log.lost")?),
    };
    let log = Log::new(sink);
    let mut lanes = Lanes::new(config, builder.observer, plan, &mut endpoint, panel, health, log)?;
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
    // every 20 ms then. The handshake's clock samples are taken on the lane, so they stay exact.
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
            unreachable: panel.counter("receive.unreachable")?,
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

    let own_probes = 4 + builder.stages.len();
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
            answered_at_ns: panel.gauge(&format!("peer.answered_at_ns@{name}"))?,
        })
    };
    let supervisor = Supervisor::new(panel).map_err(|error| NodeError::System {
        action: "supervise the stages",
        error: std::io::Error::other(error),
    })?;
    let spins = lanes.doorbell(Receive).is_none();
    let Lanes { lanes, mut log, .. } = lanes;
    let housekeeping = Housekeeping {
        handshake: Handshake::new(who.identity, who.peers, &who.cluster, who.own, now),
        frames: handshakes_in,
        transport: endpoint.housekeeping_transmitter,
        lives,
        streams,
        supervisor: supervisor.with_health(health.clone()),
        own_probes,
        spins,
        panel: panel.clone(),
        health: health.clone(),
        peers: names.iter().map(gauges).collect::<Result<_, _>>()?,
        handshakes: panel.counter("handshake.frames")?,
        lost: panel.counter("handshake.lost")?,
        hangs: panel.counter("supervisor.hangs")?,
        recheck: Recheck::new(
            builder.machine_root,
            builder.recheck_every,
            plan,
            panel.counter("machine.changes")?,
        ),
        drops: Drops::register(panel, "handshake", housekeeping::REASONS, &names)?
            .logged(log.drops("housekeeping/handshake", housekeeping::REASONS, &names)),
        log,
    };
    Ok((lanes, housekeeping))
}
