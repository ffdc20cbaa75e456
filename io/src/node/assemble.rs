//! The start: from a checked description to running lanes, in an order in which every failure
//! leaves nothing behind.

use super::NodeError;
use super::builder::NodeBuilder;
use super::greeter;
use super::housekeeping::{Housekeeping, HousekeepingThread};
use super::log::{self, Log};
use super::plan::{self, Plan, StageName};
use super::process::Process;
use super::recheck::Recheck;
use super::running::{LaneSet, Node, StartReport};
use super::seats::{Lanes, pipeline_guard};
use super::stages::{Parts, Room, Stages};
use super::who::Who;
use crate::pipeline::{deliver, receive, verify};
use crate::security;
use crate::transport::udp::Coalescing;
use crate::transport::{self, Endpoint};
use crate::wire::TopicId;
use sinew_rt::clock;
use sinew_rt::health::Health;
use sinew_rt::keep_awake::KeepAwake;
use sinew_rt::lane::Lane;
use sinew_rt::panel::{Panel, PanelSpec, State};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{Applied, Policy, Strictness, ThreadSpec};
use sinew_rt::topology::Topology;
use sinew_rt::wait::Doorbell;
use std::net::SocketAddr;
use std::sync::Arc;

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
        (None, Some(address)) => {
            // Streams come in bursts; a set-point comes alone.
            let reliable = builder.config.topics.iter().any(|topic| topic.class.is_reliable());
            let coalescing = if reliable { Coalescing::On } else { Coalescing::Off };
            Ok(transport::udp::bind(address, peers, coalescing)?)
        }
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
        + greeter::REASONS.len();
    let topics = builder.config.topics.len();
    let mut spec = PanelSpec::new(&builder.config.name);
    if let Some(dir) = &builder.panel_dir {
        spec = spec.in_dir(dir);
    }
    let loops = u32::from(builder.loops);
    spec.probes = (4 + builder.stages.len()) as u32 + LOOP_PROBES * loops;
    spec.histograms = 2 * spec.probes + topics as u32 + LOOP_HISTOGRAMS * loops;
    let reliable = builder.config.topics.iter().filter(|topic| topic.class.is_reliable()).count();
    spec.values = (sources * (reasons + 5) + 5 * topics + 8 * reliable + 64) as u32;
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

/// Makes the stages, connected with each other, and puts them on their lanes.
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
    let spins = lanes.doorbell(Receive).is_none();
    let one_lane = lanes.of(Verify) == lanes.of(Deliver);
    let Stages { mut receive, mut verify, mut deliver, mut send, mut greeter } = Parts {
        config,
        who,
        subscriptions: builder.subscriptions,
        publications: builder.publications,
        events: builder.events,
        endpoint,
        panel,
        seats: lanes.seats(housekeeping_bell),
        room: Room::of_node(names.len(), one_lane),
        names: &names,
        now: clock::now(),
    }
    .connect()?;

    receive.filter.drops.log_to(lanes.drop_log(Receive, receive::REASONS, &names));
    lanes.seat(Receive, "receive", pipeline_guard(config.budgets.receive), Box::new(receive))?;
    verify.drops.log_to(lanes.drop_log(Verify, verify::REASONS, &names));
    lanes.seat(Verify, "verify", pipeline_guard(config.budgets.verify), Box::new(verify))?;
    deliver.drops.log_to(lanes.drop_log(Deliver, deliver::REASONS, &names));
    lanes.seat(Deliver, "deliver", pipeline_guard(config.budgets.deliver), Box::new(deliver))?;
    let own_probes = 4 + builder.stages.len();
    for (name, guard, stage) in builder.stages {
        lanes.seat(Send, &name, guard, stage)?;
    }
    if let Some(reliable) = &mut send.reliable {
        let topic = |id| config.topics.iter().find(|topic| TopicId::of(&topic.name) == id);
        let topics = reliable.outlets.iter().filter_map(|it| topic(it.outlet.fields.topic));
        let topics = topics.map(|topic| topic.name.clone()).collect();
        lanes.report_log(Send, &names, topics, reliable);
    }
    lanes.seat(Send, "send", pipeline_guard(config.budgets.send), Box::new(send))?;
    if let Some(doorbell) = lanes.doorbell(Send) {
        // Nobody else sets it: a builder starts once.
        let _ = builder.send_doorbell.set(doorbell);
    }

    if let Some(doorbell) = lanes.doorbell(Deliver) {
        let _ = builder.deliver_doorbell.set(doorbell);
    }

    let supervisor = Supervisor::new(panel).map_err(|error| NodeError::System {
        action: "supervise the stages",
        error: std::io::Error::other(error),
    })?;
    let Lanes { lanes, mut log, .. } = lanes;
    greeter.drops.log_to(log.drops("housekeeping/handshake", greeter::REASONS, &names));
    let housekeeping = Housekeeping {
        greeter,
        supervisor: supervisor.with_health(health.clone()),
        own_probes,
        spins,
        panel: panel.clone(),
        health: health.clone(),
        hangs: panel.counter("supervisor.hangs")?,
        recheck: Recheck::new(
            builder.machine_root,
            builder.recheck_every,
            plan,
            panel.counter("machine.changes")?,
        ),
        log,
    };
    Ok((lanes, housekeeping))
}
