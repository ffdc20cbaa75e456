//! The subject: a node whose stages of this bench's own send and receive on the lane, with no thread
//! between them and the pipeline.

use sinew_io::message::Message;
use sinew_io::node::{
    Auth, Layout, Node, NodeBuilder, NodeError, PeerConfig, Publisher, RealTimeConfig, TopicClass,
    TopicConfig,
};
use sinew_io::security::{AdmissionLimits, Identity};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::Stage;
use sinew_rt::latest::LatestReader;
use sinew_rt::panel::{HistogramSnapshot, Kind};
use sinew_rt::thread::{Priority, PriorityError};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Wait;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::batch::Batch;
use super::load::Load;
use super::order::{End, Findings, Lanes, Leg, Pace, Program, Protection, Role, Waits};
use super::recording::{Late, Recording};
use super::saturated::{self, Pings};
use super::schedule::{Bursts, Stall, Ticks, Volleys, Window};

/// What the sender publishes.
pub(crate) const PING: &str = "bench/ping";
/// What the receiver answers in a ping-pong.
const PONG: &str = "bench/pong";
/// What each node calls the other.
const PEER: &str = "peer";
/// The cluster of the two.
pub(crate) const CLUSTER: &str = "bench";

/// Messages that may wait for the receiver's stage: none does unless the host stops the machine.
const QUEUE: usize = 64;
/// Messages that the receiver's stage takes at a time.
const PER_POLL: usize = 32;

/// How long a spinning lane sleeps at a time outside bursts, and how soon a parked one sees that
/// the start was set.
const NAP: Nanos = Nanos::from_millis(1);
/// Nodes on one machine know each other's life within this, or something is wrong.
const HANDSHAKE_LIMIT: Nanos = Nanos::from_secs(10);

/// One node, ready to take part.
pub(crate) struct Mesh {
    node: Node,
    start: Arc<AtomicI64>,
    recording: Arc<Recording>,
    age_before: Option<HistogramSnapshot>,
}

/// Why a node of the bench does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Priority(#[from] PriorityError),
    #[error("{0}")]
    Identity(String),
    #[error("the two nodes did not come to know each other within {HANDSHAKE_LIMIT}")]
    NoHandshake,
    #[error("a lane of the node panicked")]
    Broken,
}

/// Which node to build.
pub(crate) struct Seat<'a> {
    pub(crate) role: Role,
    pub(crate) cores: &'a [CoreId],
    /// The secret of its identity.
    pub(crate) secret: &'a [u8; 32],
    pub(crate) own: &'a End,
    pub(crate) peer: &'a End,
    /// Where its panel goes.
    pub(crate) panels: &'a Path,
}

impl Mesh {
    /// Starts the node and waits until it and its peer know each other.
    pub(crate) fn start(
        leg: &Leg,
        lanes: Lanes,
        protection: Protection,
        seat: &Seat<'_>,
        recording: Arc<Recording>,
    ) -> Result<Self, MeshError> {
        let mut node =
            Node::builder(format!("bench-{}-{}", seat.role.as_str(), std::process::id()))
                .development()
                // Lines would stand in the progress bar; what is judged is in the report.
                .log(|_| ())
                .cluster(CLUSTER)
                .identity(identity(seat.secret)?)
                .udp(seat.own.address)
                .panel_dir(seat.panels)
                .spins_in_bursts()
                .peer(PeerConfig {
                    name: PEER.to_owned(),
                    identity: seat.peer.identity.clone(),
                    address: seat.peer.address,
                    publishes: vec![PING.to_owned(), PONG.to_owned()],
                })
                .realtime(realtime(leg, lanes, seat.cores)?);
        let robots_pace = matches!(leg.pace, Pace::Every(ns) if ns >= ROBOTS_PERIOD_NS);
        if !robots_pace {
            // A measurement at full speed is what the limits are there to stop.
            node = node.admission(AdmissionLimits {
                peer_per_s: 10_000_000,
                peer_burst: 10_000,
                ..AdmissionLimits::default()
            });
        }
        let class = match leg.program {
            Program::Stream(..) => TopicClass::Stream,
            _ => TopicClass::Queue,
        };
        for topic in [PING, PONG] {
            node = node.topic(TopicConfig {
                auth: match protection {
                    Protection::Open => Auth::Open,
                    Protection::Signed => Auth::Signed,
                },
                reliability: saturated::reliability(),
                ..TopicConfig::new(
                    topic,
                    Load::NAME,
                    if topic == PING { class } else { TopicClass::Control },
                )
            });
        }
        let start = Arc::new(AtomicI64::new(0));
        let clock = BurstClock {
            start: start.clone(),
            started: None,
            bursts: leg.bursts,
            spins: leg.waits == Waits::Spin,
        };
        let ping_pong = leg.pace == Pace::PingPong;
        // Beside the lane that delivers nobody may read in time: there the panel measures.
        let waiting = match (lanes, leg.stall) {
            (Lanes::Fused, None) => 0,
            _ => leg.samples_max,
        };
        let queue = QUEUE + waiting;
        let stage: Box<dyn Stage> = match (seat.role, leg.pace) {
            (Role::Receiver, Pace::Saturated) => Box::new(saturated::Receiver {
                clock,
                pings: pings(&mut node, class, saturated::QUEUE)?,
                recording: recording.clone(),
                batch: Batch::new(leg.batch),
            }),
            (Role::Receiver, _) => Box::new(Receiver {
                clock,
                pings: pings(&mut node, class, queue)?,
                pongs: ping_pong.then(|| node.publisher(PONG)).transpose()?,
                recording: recording.clone(),
                batch: Batch::new(leg.batch),
                stall: leg.stall,
                late: Late::new(leg.waits, robots_pace && !ping_pong),
            }),
            (_, Pace::Saturated) => Box::new(saturated::Sender {
                clock,
                pings: node.publisher(PING)?,
                recording: recording.clone(),
                number: 0,
            }),
            _ => Box::new(Sender {
                clock,
                pings: node.publisher(PING)?,
                pongs: ping_pong.then(|| node.latest(PONG)).transpose()?,
                pace: leg.pace,
                script: None,
                recording: recording.clone(),
                number: 0,
            }),
        };
        node.stage("bench", patient_guard(), stage);
        let node = node.start()?;
        let mesh = Self { node, start, recording, age_before: None };
        mesh.await_gauge(&format!("peer.epoch@{PEER}"))?;
        if class == TopicClass::Stream && seat.role == Role::Sender {
            // What is published before the receiver is known may not be kept for it.
            mesh.await_gauge(&format!("readers/{PING}"))?;
        }
        Ok(Self { age_before: mesh.age(), ..mesh })
    }

    /// Waits until a gauge of the node is no longer 0.
    fn await_gauge(&self, name: &str) -> Result<(), MeshError> {
        let give_up = clock::now() + HANDSHAKE_LIMIT;
        while clock::now() < give_up {
            if self.node.is_broken() {
                return Err(MeshError::Broken);
            }
            let snapshot = self.node.panel().snapshot().map_err(NodeError::from)?;
            if snapshot.gauge(name).is_some_and(|value| value != 0) {
                return Ok(());
            }
            clock::sleep_until(clock::now() + NAP * 5);
        }
        Err(MeshError::NoHandshake)
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Lets the stages begin at `start`. They end by themselves.
    pub(crate) fn go(&self, start: Nanos) {
        self.start.store(start.as_nanos(), Relaxed);
    }

    /// Stops the node and gives what was measured.
    pub(crate) fn finish(self) -> Result<Findings, MeshError> {
        let mut findings = self.recording.findings();
        if let (Some(before), Some(after)) = (&self.age_before, self.age()) {
            let mut hdr = after.hdr.clone();
            // Subtracting what the same histogram held earlier cannot fail.
            if hdr.subtract(&before.hdr).is_ok() {
                let recorded = hdr.iter_recorded();
                findings.age_ns = recorded
                    .map(|value| (value.value_iterated_to(), value.count_at_value()))
                    .collect();
            }
        }
        findings.counters = self.node.panel().snapshot().map_err(NodeError::from)?.counters;
        if let Some(delivered) = findings.counter(&format!("delivered/{PING}")) {
            findings.received = findings.received.max(delivered);
        }
        findings.counters.retain(|(_, value)| *value > 0);
        self.node.stop().map_err(|_| MeshError::Broken)?;
        Ok(findings)
    }

    fn age(&self) -> Option<HistogramSnapshot> {
        self.node.panel().snapshot().ok()?.histogram(PING, Kind::Age).cloned()
    }
}

/// Subscribes to what the sender publishes.
fn pings(node: &mut NodeBuilder, class: TopicClass, room: usize) -> Result<Pings, NodeError> {
    match class {
        TopicClass::Stream => node.stream(PING, room).map(Pings::Stream),
        _ => node.queue(PING, room).map(Pings::Queue),
    }
}

/// The identity of a secret.
pub(crate) fn identity(secret: &[u8; 32]) -> Result<Identity, MeshError> {
    Identity::from_secret(&(*secret).into()).map_err(|error| MeshError::Identity(error.to_string()))
}

fn realtime(leg: &Leg, lanes: Lanes, cores: &[CoreId]) -> Result<RealTimeConfig, PriorityError> {
    let layout = match lanes {
        Lanes::Fused => Layout::Fused,
        Lanes::Split => Layout::Split,
        Lanes::Pipelined => Layout::Pipelined,
    };
    let wait = match leg.waits {
        Waits::Spin => Wait::Spin,
        Waits::Park => Wait::Park,
    };
    let (cores, priority) = (cores.to_vec(), Priority::new(leg.priority)?);
    Ok(RealTimeConfig { layout, cores, priority, wait, ..RealTimeConfig::default() })
}

/// The bench's stages sleep between bursts, which is no overrun.
pub(crate) fn patient_guard() -> GuardSpec {
    GuardSpec {
        budget: Nanos::from_secs(10),
        hard_limit: Nanos::from_secs(1_000),
        ladder: LadderConfig::report_only(),
    }
}

/// Messages that are no further apart than this are no robot's traffic.
const ROBOTS_PERIOD_NS: i64 = 250_000;

/// Tells a stage where among the bursts it is, and makes a spinning lane sleep outside of them.
pub(super) struct BurstClock {
    start: Arc<AtomicI64>,
    started: Option<Nanos>,
    bursts: Bursts,
    spins: bool,
}

impl BurstClock {
    /// The start, once it is set and, for a spinning lane, while a burst is on.
    #[inline]
    pub(super) fn running(&mut self, now: Nanos) -> Option<Nanos> {
        if self.started.is_none() {
            match self.start.load(Relaxed) {
                0 if self.spins => clock::sleep_until(now + NAP),
                0 => {}
                ns => self.started = Some(Nanos::new(ns)),
            }
        }
        let start = self.started?;
        if self.spins {
            match self.bursts.window(start, now) {
                Window::Burst(_) => {}
                Window::Pause(next) => {
                    clock::sleep_until(next.min(now + NAP));
                    return None;
                }
                Window::Over => {
                    clock::sleep_until(now + NAP);
                    return None;
                }
            }
        }
        Some(start)
    }
}

/// What the sender does when.
enum Script {
    Scheduled { ticks: Ticks, due: Option<Nanos> },
    Volleys { volleys: Volleys, next: Option<(Nanos, Nanos)>, until: Nanos },
}

impl Script {
    fn new(pace: Pace, bursts: Bursts, start: Nanos) -> Self {
        match pace {
            Pace::Every(interval) => {
                let mut ticks = Ticks::new(bursts, start, Nanos::new(interval));
                let due = ticks.next();
                Self::Scheduled { ticks, due }
            }
            // A saturated sender is another stage, without a script.
            Pace::PingPong | Pace::Saturated => {
                let mut volleys = Volleys::new(bursts, start);
                let next = volleys.next();
                Self::Volleys { volleys, next, until: Nanos::MIN }
            }
        }
    }
}

/// Publishes on schedule, or after each answer.
struct Sender {
    clock: BurstClock,
    pings: Publisher<Load>,
    pongs: Option<LatestReader<Load>>,
    pace: Pace,
    script: Option<Script>,
    recording: Arc<Recording>,
    number: u64,
}

impl Sender {
    /// Takes an answer that came, and says when.
    #[inline]
    fn take_pong(&mut self) -> Option<Nanos> {
        let pongs = self.pongs.as_mut().filter(|pongs| pongs.has_unread())?;
        let pong = pongs.read()?;
        let (sent_at, due_at) = (pong.value.sent_at(), pong.value.due_at());
        let now = clock::now();
        self.recording.record(now - sent_at, now - due_at, now);
        self.recording.received();
        Some(now)
    }

    /// The time for which a message is due now, if one is.
    #[inline]
    fn due(&mut self, now: Nanos) -> Option<Nanos> {
        let start = self.clock.running(now)?;
        let bursts = self.clock.bursts;
        let ponged = self.take_pong();
        let full = self.recording.is_full();
        match self.script.get_or_insert_with(|| Script::new(self.pace, bursts, start)) {
            Script::Scheduled { ticks, due } => {
                let at = due.filter(|at| now >= *at)?;
                // What is too late even for its burst does not leave: a rate that cannot be
                // achieved must not keep the core for good.
                let window = bursts.window(start, now);
                *due = if window == Window::Over { None } else { ticks.next() };
                matches!(window, Window::Burst(_)).then_some(at)
            }
            Script::Volleys { until, .. } if ponged.is_some() => {
                ponged.filter(|now| now < until && !full)
            }
            Script::Volleys { volleys, next, until } => {
                // A ping or pong that was lost ends its burst; the next one begins anew.
                let (from, end) = next.filter(|(from, _)| now >= *from && !full)?;
                *until = end;
                *next = volleys.next();
                Some(from)
            }
        }
    }
}

impl Stage for Sender {
    #[inline]
    fn poll(&mut self, now: Nanos) -> Execution {
        let Some(due) = self.due(now) else { return Execution::Idle };
        let sent_at = clock::now();
        let load = Load::new(self.number, due, sent_at);
        if self.pings.publish_at(&load, sent_at).is_ok() {
            self.number += 1;
            self.recording.sent();
        }
        Execution::Worked { released: due }
    }

    fn next_deadline(&self) -> Option<Nanos> {
        match &self.script {
            Some(Script::Scheduled { due, .. }) => *due,
            Some(Script::Volleys { next, .. }) => next.map(|(from, _)| from),
            None => Some(clock::now() + NAP),
        }
    }
}

/// Takes the time of every message, and answers it in a ping-pong.
struct Receiver {
    clock: BurstClock,
    pings: Pings,
    pongs: Option<Publisher<Load>>,
    recording: Arc<Recording>,
    batch: Batch,
    stall: Option<Stall>,
    late: Late,
}

impl Receiver {
    #[inline]
    fn take(&mut self, ping: &Load) {
        self.recording.received();
        if self.batch.spans() {
            if let Some((span, at)) = self.batch.delivered(clock::now) {
                self.recording.record(span, span, at);
            }
            return;
        }
        let at = clock::now();
        self.recording.record(at - ping.sent_at(), at - ping.due_at(), at);
        if let Some(pongs) = &mut self.pongs {
            let answered_at = clock::now();
            if pongs.publish_at(&Load::new(0, at, answered_at), answered_at).is_ok() {
                self.recording.sent();
            }
        }
        self.late.see(&self.recording, at - ping.due_at(), at);
    }
}

impl Stage for Receiver {
    #[inline]
    fn poll(&mut self, now: Nanos) -> Execution {
        let Some(start) = self.clock.running(now) else {
            self.batch.interrupt();
            return Execution::Idle;
        };
        Stall::pause(&mut self.stall, start, now);
        let mut execution = Execution::Idle;
        for _ in 0..PER_POLL {
            let Some(ping) = self.pings.pop() else { break };
            self.take(&ping);
            execution = Execution::Worked { released: now };
        }
        execution
    }
}
