//! `sinew node run`: start with read-back, run until a signal, drain.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use sinew_io::node::{Node, NodeConfig, NodeError};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ladder::Level;
use sinew_rt::panel::PanelSnapshot;
use sinew_rt::thread::Applied;

use super::status::Traffic;
use super::topics::Topics;
use crate::exit::{Exit, Failure, Outcome};
use crate::hist;
use crate::output::JsonArgs;
use crate::panels::PanelDir;

/// Start the node of a sinew.toml and run it until SIGTERM or Ctrl-C.
///
/// The node verifies and receives every declared topic that some peer's `publishes` list names, of
/// the message types that this command knows: Fault@1, Heartbeat@1, JointSetpoint@1, JointState@1,
/// Twist@1. What arrives is counted and timed in the panel (`sinew node status`, `sinew hist`);
/// what to do with it is a program's business, with the same configuration through
/// `Node::from_config`. At the start it is said what the kernel granted, by read-back.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew key new robot.key
  sinew node run sinew.toml
  sinew node run sinew.toml --json run.json   one line at the start and one at the end

Exit codes:
  0  stopped as asked, by SIGTERM or SIGINT
  1  a lane ended by a panic, or a stage is in safe stop
  2  the configuration or the key file cannot be used
  3  the machine refused: a port in use, real-time rights that strictness = \"require\" asks for")]
pub(crate) struct RunArgs {
    /// The configuration, usually sinew.toml
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

/// How often queues are drained and lanes looked after while no signal comes.
const TURN: Duration = Duration::from_millis(200);

pub(crate) fn run(args: RunArgs) -> Outcome {
    // The daemon has no control loop: its memory is all locked, so it makes no room for one.
    let mut builder = Node::from_config(&args.config)?.loops(0);
    let mut topics = Topics::subscribe(&mut builder)?;
    if let Some(dir) = args.dir.given() {
        builder = builder.panel_dir(dir);
    }
    let config = builder.config().clone();
    let mut reports = args.json.lines()?;
    // Before any thread exists: lanes and housekeeping block these signals, so they come here.
    let signals = Signals::register()
        .map_err(|error| Failure::machine(format!("cannot wait for signals: {error}")))?;
    let node = builder.start().map_err(|error| placed(&config, error))?;
    let started_at = clock::now();

    let started = Started::of(&config, &node, &topics);
    reports.hand_out(|| started.text(&node), &started)?;
    let signal = loop {
        if let Some(signal) = signals.wait(TURN) {
            break Some(signal);
        }
        topics.drain();
        if node.is_broken() {
            break None;
        }
    };
    // The last figures stand in the panel, which goes with the node.
    let last = node.panel().snapshot();
    let mut end = End {
        signal,
        uptime: clock::now() - started_at,
        level: node.health().level(),
        not_real_time: node.report().not_real_time.clone(),
        panics: Vec::new(),
    };
    end.panics = node.stop().err().unwrap_or_default();
    let stopped = Stopped::of(&last.map_err(Failure::machine)?, end);
    reports.hand_out(|| stopped.text(), &stopped)?;
    for panic in &stopped.panics {
        eprintln!("sinew: {panic}");
    }
    Ok(if stopped.failed { Exit::Failed } else { Exit::Done })
}

/// Says where in the configuration something stands that only the start found unusable.
pub(crate) fn placed(config: &NodeConfig, error: NodeError) -> Failure {
    let key = match &error {
        NodeError::Key(_) => "node.key",
        NodeError::Transport(_) => "transport.bind",
        NodeError::Boot(_) => "node.state_dir",
        _ => return error.into(),
    };
    let message = config.error_at(key, error.to_string(), String::new()).to_string();
    Failure { message, ..Failure::from(error) }
}

/// SIGTERM and SIGINT, which this process takes note of instead of dying.
struct Signals {
    wakes: UnixStream,
    came: Arc<AtomicUsize>,
}

impl Signals {
    fn register() -> io::Result<Self> {
        let (wakes, bell) = UnixStream::pair()?;
        let came = Arc::new(AtomicUsize::new(0));
        for signal in [SIGTERM, SIGINT] {
            // The number before the bell, for handlers run in the order of their registration.
            signal_hook::flag::register_usize(signal, came.clone(), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
        }
        Ok(Self { wakes, came })
    }

    /// The name of the signal that came, at the latest after `limit`.
    fn wait(&self, limit: Duration) -> Option<&'static str> {
        // A time-out and an interruption both mean: look.
        let _ = self.wakes.set_read_timeout(Some(limit));
        let _ = (&self.wakes).read(&mut [0]);
        match self.came.load(Ordering::SeqCst) as i32 {
            SIGTERM => Some("SIGTERM"),
            SIGINT => Some("SIGINT"),
            _ => None,
        }
    }
}

/// What is known when the lanes run.
#[derive(Serialize)]
struct Started {
    version: u32,
    report: &'static str,
    event: &'static str,
    node: String,
    pid: u32,
    identity: String,
    cluster: String,
    mode: String,
    address: String,
    epoch: u64,
    panel: String,
    layout: String,
    layout_reason: String,
    lanes: Vec<LaneReport>,
    memory: Option<Memory>,
    cpu_latency_us: Option<u32>,
    /// The cores that a SCHED_IDLE thread keeps from halting.
    keep_awake_cores: Vec<String>,
    topics: Vec<String>,
    topics_without_publisher: Vec<String>,
    not_real_time: Vec<String>,
}

#[derive(Serialize)]
struct LaneReport {
    name: String,
    stages: Vec<String>,
    core: u16,
    requested: String,
    effective: String,
    effective_cores: String,
    refused: Vec<String>,
}

#[derive(Serialize)]
struct Memory {
    locked_bytes: u64,
    resident_bytes: u64,
    refused: Vec<String>,
}

impl Started {
    fn of(config: &NodeConfig, node: &Node, topics: &Topics) -> Self {
        let report = node.report();
        let strings = |refused: &[sinew_rt::thread::Refusal]| {
            refused.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let lane = |(plan, applied): (&sinew_io::node::LanePlan, &Applied)| LaneReport {
            name: plan.name.to_owned(),
            stages: plan.stages.iter().map(ToString::to_string).collect(),
            core: plan.core.get(),
            requested: applied.requested.policy.to_string(),
            effective: applied.effective.scheduling.to_string(),
            effective_cores: applied.effective.affinity.to_string(),
            refused: strings(&applied.refused),
        };
        Self {
            version: 1,
            report: "node run",
            event: "started",
            node: config.name.clone(),
            pid: std::process::id(),
            identity: node.public_key().to_did(),
            cluster: config.cluster.clone(),
            mode: config.mode.to_string(),
            address: report.address.to_string(),
            epoch: report.epoch.get(),
            panel: node.panel().path().map(|path| path.display().to_string()).unwrap_or_default(),
            layout: report.plan.layout.to_string(),
            layout_reason: report.plan.reason.clone(),
            lanes: report.plan.lanes.iter().zip(&report.lanes).map(lane).collect(),
            memory: report.memory.as_ref().map(|memory| Memory {
                locked_bytes: memory.locked_bytes,
                resident_bytes: memory.resident_bytes,
                refused: strings(&memory.refused),
            }),
            cpu_latency_us: report.cpu_latency_us,
            keep_awake_cores: report
                .keep_awake
                .iter()
                .map(|thread| thread.effective.affinity.to_string())
                .collect(),
            topics: topics.received.clone(),
            topics_without_publisher: topics.without_publisher.clone(),
            not_real_time: report.not_real_time.clone(),
        }
    }

    fn text(&self, node: &Node) -> String {
        let mut text = String::new();
        hist::brand(&mut text, &self.not_real_time, io::stdout().is_terminal());
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<9} {value}");
        };
        line("node", &format!("{} (process {}, {} mode)", self.node, self.pid, self.mode));
        line("identity", &self.identity);
        line("address", &format!("{}, cluster {}", self.address, self.cluster));
        line("epoch", &self.epoch.to_string());
        line("layout", &node.report().plan.to_string());
        for lane in &self.lanes {
            let granted = if lane.refused.is_empty() { "granted" } else { "NOT granted" };
            let wanted = format!("{} on core {}: {granted}", lane.requested, lane.core);
            let got = format!("in force {} on {}", lane.effective, lane.effective_cores);
            line("lane", &format!("{}: {wanted}, {got}", lane.name));
        }
        match &self.memory {
            Some(memory) => line(
                "memory",
                &format!(
                    "{:.1} MB locked, {:.1} MB resident",
                    memory.locked_bytes as f64 / 1e6,
                    memory.resident_bytes as f64 / 1e6
                ),
            ),
            None => line("memory", "not locked, as configured"),
        }
        match self.cpu_latency_us {
            Some(us) => line("idle", &format!("cores wake within {us} µs, held")),
            None => line("idle", "states as the system has them"),
        }
        if !self.keep_awake_cores.is_empty() {
            let cores = self.keep_awake_cores.join(", ");
            line("awake", &format!("a SCHED_IDLE thread spins on core {cores} (read back)"));
        }
        line("panel", &self.panel);
        match self.topics.as_slice() {
            [] => line("topics", "none: no peer's `publishes` names a declared topic"),
            topics => line("topics", &topics.join(", ")),
        }
        if !self.topics_without_publisher.is_empty() {
            let topics = self.topics_without_publisher.join(", ");
            line("unused", &format!("{topics}: in no peer's `publishes`"));
        }
        line("running", "until SIGTERM or Ctrl-C");
        text
    }
}

/// How a run ended.
struct End {
    signal: Option<&'static str>,
    uptime: Nanos,
    level: Level,
    not_real_time: Vec<String>,
    panics: Vec<String>,
}

/// What is known when the lanes have ended.
#[derive(Serialize)]
struct Stopped {
    version: u32,
    report: &'static str,
    event: &'static str,
    node: String,
    signal: Option<&'static str>,
    failed: bool,
    uptime_ns: i64,
    level: String,
    overruns: u64,
    panics: Vec<String>,
    not_real_time: Vec<String>,
    #[serde(flatten)]
    traffic: Traffic,
}

impl Stopped {
    fn of(last: &PanelSnapshot, end: End) -> Self {
        let End { signal, uptime, level, not_real_time, panics } = end;
        Self {
            version: 1,
            report: "node run",
            event: "stopped",
            node: last.name.clone(),
            signal,
            failed: signal.is_none() || !panics.is_empty() || level == Level::SafeStop,
            uptime_ns: uptime.as_nanos(),
            level: level.to_string(),
            overruns: last.probes.iter().map(|probe| probe.overruns).sum(),
            panics,
            not_real_time,
            traffic: Traffic::of(last),
        }
    }

    fn text(&self) -> String {
        let why = self.signal.unwrap_or("a lane that ended by itself");
        let mut text = String::new();
        let _ = writeln!(
            text,
            "stopped by {why} after {}: level {}, {} overruns",
            Nanos::new(self.uptime_ns),
            self.level,
            self.overruns
        );
        text.push_str(&self.traffic.text());
        hist::brand(&mut text, &self.not_real_time, io::stdout().is_terminal());
        text
    }
}
