//! `sinew node status`: how a node is, from its panel alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sinew_rt::clock::Nanos;
use sinew_rt::ladder::Level;
use sinew_rt::panel::PanelSnapshot;

use crate::exit::{Exit, Failure, Outcome};
use crate::hist;
use crate::output::JsonArgs;
use crate::panels::{Look, OpenPanel, PanelDir};

/// Say how a node is, from its panel alone.
///
/// The process is not asked and does not notice; it may be dead. Without NODE, every node on this
/// machine is shown, except what is kept of earlier crashes; a panel that cannot be read is listed
/// with the reason and hides none of the others.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew node status                  every node here
  sinew node status robot
  sinew node status robot --json -   for a script or a health check

Exit codes:
  0  all of them run, and no stage is in safe stop
  1  one is dead, failed or stopped, is in safe stop, or its housekeeping is silent
  2  wrong usage
  3  there is no such panel; or one of this user, or in --panel-dir, cannot be read, so that nobody
     knows how its node is. Those of other users are listed and do not decide")]
pub(crate) struct StatusArgs {
    /// Name of the node, or path of its panel
    #[arg(value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

pub(crate) fn run(args: StatusArgs) -> Outcome {
    let status = match &args.node {
        Some(wanted) => Status::new(vec![look(&args.dir.find(wanted)?)?], Vec::new()),
        None => Status::of_all(&args.dir)?,
    };
    args.json.hand_out(|| status.text(), &status)?;
    Ok(status.exit())
}

#[derive(Serialize, Deserialize)]
struct Status {
    version: u32,
    report: String,
    nodes: Vec<NodeStatus>,
    unreadable: Vec<Unreadable>,
}

/// A panel, or a directory of panels, that nothing can be said about.
#[derive(Debug, Serialize, Deserialize)]
struct Unreadable {
    path: String,
    error: String,
    /// Whether it belongs to this user, or to the directory that was asked about.
    own: bool,
}

fn look(path: &Path) -> Result<NodeStatus, Failure> {
    OpenPanel::open(path)?.look().map(|look| NodeStatus::of(&look))
}

impl Status {
    fn new(nodes: Vec<NodeStatus>, unreadable: Vec<Unreadable>) -> Self {
        Self { version: 1, report: "node status".to_owned(), nodes, unreadable }
    }

    /// Every node on this machine, and what could not be read.
    fn of_all(dir: &PanelDir) -> Result<Self, Failure> {
        let (panels, closed) = dir.list();
        let unreadable = |path: &Path, error| Unreadable {
            path: path.display().to_string(),
            error,
            own: dir.is_own(path),
        };
        let (mut nodes, mut unread) = (Vec::new(), Vec::new());
        for path in panels.iter().filter(|panel| !panel.crashed).map(|panel| &panel.path) {
            match look(path) {
                Ok(node) => nodes.push(node),
                // Its node ended after it was listed.
                Err(_) if !path.exists() => {}
                Err(failure) => unread.push(unreadable(path, failure.message)),
            }
        }
        unread.extend(closed.into_iter().map(|closed| unreadable(&closed.dir, closed.why)));
        if nodes.is_empty() && unread.is_empty() {
            return Err(Failure::machine(
                "there is no panel of a node; start one with `sinew node run CONFIG`",
            ));
        }
        Ok(Self::new(nodes, unread))
    }

    fn exit(&self) -> Exit {
        if self.nodes.iter().any(|node| !node.healthy) {
            Exit::Failed
        } else if self.nodes.is_empty() || self.unreadable.iter().any(|panel| panel.own) {
            Exit::Machine
        } else {
            Exit::Done
        }
    }

    fn text(&self) -> String {
        let mut texts: Vec<_> = self.nodes.iter().map(NodeStatus::text).collect();
        if !self.unreadable.is_empty() {
            texts.push(self.unreadable.iter().map(Unreadable::text).collect());
        }
        texts.join("\n")
    }
}

impl Unreadable {
    fn text(&self) -> String {
        let whose = if self.own { "" } else { " (of another user)" };
        format!("NOT READABLE{whose}: {}\n", self.error)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct NodeStatus {
    name: String,
    path: String,
    state: String,
    alive: bool,
    healthy: bool,
    /// Why it is not healthy.
    problems: Vec<String>,
    pid: u32,
    started_at_unix_ns: i64,
    uptime_ns: i64,
    heartbeat_age_ns: Option<i64>,
    identity: String,
    layout: String,
    level: String,
    not_real_time: Vec<String>,
    stages: Vec<StageStatus>,
    peers: Vec<PeerStatus>,
    #[serde(flatten)]
    traffic: Traffic,
    #[serde(skip)]
    headline: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StageStatus {
    name: String,
    core: Option<u16>,
    level: String,
    budget_ns: i64,
    executions: u64,
    overruns: u64,
    hangs: u64,
    /// For how long it has been inside its present execution.
    inside_ns: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) name: String,
    /// `None` before the first Hello.
    epoch: Option<u64>,
    heard_ago_ns: Option<i64>,
    round_trip_ns: Option<i64>,
}

/// What came and went, and what was dropped.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    frames_received: u64,
    signatures_checked: u64,
    delivered: BTreeMap<String, u64>,
    sent: BTreeMap<String, u64>,
    /// Frames that the network did not take, by peer.
    send_lost: BTreeMap<String, u64>,
    pub(crate) drops: Vec<Drop>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drop {
    pub(crate) stage: String,
    pub(crate) reason: String,
    pub(crate) source: String,
    pub(crate) count: u64,
}

impl Traffic {
    pub(crate) fn of(snapshot: &PanelSnapshot) -> Self {
        let mut traffic = Self {
            frames_received: snapshot.counter("receive.frames").unwrap_or(0),
            signatures_checked: snapshot.counter("verify.signatures_checked").unwrap_or(0),
            ..Self::default()
        };
        for (name, count) in &snapshot.counters {
            if let Some(topic) = name.strip_prefix("delivered/") {
                traffic.delivered.insert(topic.to_owned(), *count);
            } else if let Some(topic) = name.strip_prefix("sent/") {
                traffic.sent.insert(topic.to_owned(), *count);
            } else if let Some(peer) = name.strip_prefix("send.lost@") {
                traffic.send_lost.insert(peer.to_owned(), *count);
            } else if let Some(drop) = Drop::of(name, *count).filter(|drop| drop.count > 0) {
                traffic.drops.push(drop);
            }
        }
        traffic
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let frames = format!(
            "{} frames, {} signatures checked",
            self.frames_received, self.signatures_checked
        );
        let _ = writeln!(text, "  {:<9} {frames}", "received");
        let mut list = |name: &str, counts: &BTreeMap<String, u64>, zeros: bool| {
            let counts: Vec<_> = counts
                .iter()
                .filter(|(_, count)| zeros || **count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            if !counts.is_empty() {
                let _ = writeln!(text, "  {name:<9} {}", counts.join(" · "));
            }
        };
        list("delivered", &self.delivered, true);
        list("sent", &self.sent, true);
        list("send lost", &self.send_lost, false);
        for Drop { stage, reason, source, count } in &self.drops {
            let _ = writeln!(text, "  {:<9} {count} {reason} from {source} ({stage})", "dropped");
        }
        text
    }
}

impl Drop {
    /// From `STAGE.drop.REASON@SOURCE`.
    pub(crate) fn of(name: &str, count: u64) -> Option<Self> {
        let (stage, rest) = name.split_once(".drop.")?;
        let (reason, source) = rest.split_once('@')?;
        let [stage, reason, source] = [stage, reason, source].map(str::to_owned);
        Some(Self { stage, reason, source, count })
    }
}

impl NodeStatus {
    fn of(look: &Look) -> Self {
        let snapshot = &look.snapshot;
        let now = snapshot.taken_at;
        let runs = look.life.runs();
        let level = snapshot.level();
        let heartbeat = snapshot.heartbeat_at.map(|at| now - at);
        let mut problems = Vec::new();
        if !runs {
            problems.push(look.life.to_string());
        }
        if look.silence().is_some() {
            problems.push("housekeeping is silent: it hangs, or gets no CPU".to_owned());
        }
        for probe in &snapshot.probes {
            if probe.level == Level::SafeStop {
                problems.push(format!("{} is in safe stop", probe.name));
            }
        }
        let stages = snapshot.probes.iter().map(|probe| StageStatus {
            name: probe.name.clone(),
            core: probe.core,
            level: probe.level.to_string(),
            budget_ns: probe.budget.as_nanos(),
            executions: probe.executions,
            overruns: probe.overruns,
            hangs: probe.hangs,
            inside_ns: probe.entered_at.filter(|_| runs).map(|at| (now - at).as_nanos()),
        });
        Self {
            name: snapshot.name.clone(),
            path: look.path.display().to_string(),
            state: look.life.word().to_owned(),
            alive: runs,
            healthy: problems.is_empty(),
            problems,
            pid: snapshot.process.pid,
            started_at_unix_ns: snapshot.started_at_wall.as_nanos(),
            uptime_ns: look.uptime().as_nanos(),
            heartbeat_age_ns: heartbeat.map(Nanos::as_nanos),
            identity: snapshot.identity.clone(),
            layout: snapshot.layout.clone(),
            level: level.to_string(),
            not_real_time: snapshot.not_real_time.clone(),
            stages: stages.collect(),
            peers: peers(snapshot),
            traffic: Traffic::of(snapshot),
            headline: look.headline(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        hist::brand(&mut text, &self.not_real_time, io::stdout().is_terminal());
        let _ = writeln!(text, "{}", self.headline);
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name:<9} {value}");
            }
        };
        for problem in &self.problems {
            line("PROBLEM", problem);
        }
        line("identity", &self.identity);
        line("layout", &self.layout);
        for stage in &self.stages {
            let StageStatus { name, level, executions, overruns, hangs, .. } = stage;
            let core = stage.core.map_or_else(String::new, |core| format!(", core {core}"));
            let hangs = if *hangs > 0 { format!(", {hangs} hangs") } else { String::new() };
            let budget = Nanos::new(stage.budget_ns);
            let counts = format!("{executions} executions, {overruns} over {budget}{hangs}");
            line("stage", &format!("{name}: {level}{core}, {counts}"));
        }
        for peer in &self.peers {
            line("peer", &peer.text());
        }
        text.push_str(&self.traffic.text());
        text
    }
}

impl PeerStatus {
    /// `controller: epoch 3, heard 12.1 ms ago, round trip 40.0 µs`
    pub(crate) fn text(&self) -> String {
        let Some((epoch, heard)) = self.epoch.zip(self.heard_ago_ns) else {
            return format!("{}: never heard of", self.name);
        };
        let trip = self
            .round_trip_ns
            .map_or_else(String::new, |ns| format!(", round trip {}", Nanos::new(ns)));
        format!("{}: epoch {epoch}, heard {} ago{trip}", self.name, Nanos::new(heard))
    }
}

/// The peers, in the order in which they were registered.
pub(crate) fn peers(snapshot: &PanelSnapshot) -> Vec<PeerStatus> {
    let names = snapshot.gauges.iter().filter_map(|(name, _)| name.strip_prefix("peer.epoch@"));
    let peer = |name: &str| {
        let gauge = |what: &str| snapshot.gauge(&format!("peer.{what}@{name}"));
        let heard_at = gauge("heard_at_ns").filter(|at| *at != 0);
        PeerStatus {
            name: name.to_owned(),
            epoch: heard_at.and(gauge("epoch")).map(i64::cast_unsigned),
            heard_ago_ns: heard_at.map(|at| (snapshot.taken_at - Nanos::new(at)).as_nanos()),
            round_trip_ns: heard_at.and(gauge("round_trip_ns")),
        }
    };
    names.map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::panel::{Panel, PanelSpec};

    fn node(healthy: bool) -> NodeStatus {
        let panel = Panel::anonymous(&PanelSpec::new("example")).unwrap();
        let (path, life) = (std::path::PathBuf::new(), crate::panels::Life::Ended);
        let look = Look { path, snapshot: panel.snapshot().unwrap(), life, interval: None };
        NodeStatus { healthy, ..NodeStatus::of(&look) }
    }

    #[test]
    fn what_cannot_be_read_decides_only_where_it_is_the_users_own_and_nothing_is_worse() {
        let exit = |nodes: &[bool], unreadable: &[bool]| {
            let nodes = nodes.iter().map(|healthy| node(*healthy)).collect();
            let unreadable = unreadable.iter().map(|own| Unreadable {
                path: "x.panel".to_owned(),
                error: "x.panel: no panel".to_owned(),
                own: *own,
            });
            Status::new(nodes, unreadable.collect()).exit()
        };
        assert_eq!(exit(&[true, true], &[]), Exit::Done);
        assert_eq!(exit(&[true], &[false]), Exit::Done, "another user's");
        assert_eq!(exit(&[true], &[false, true]), Exit::Machine);
        assert_eq!(exit(&[true, false], &[true]), Exit::Failed);
        assert_eq!(exit(&[], &[false]), Exit::Machine, "nothing is known of any node");
    }

    #[test]
    fn traffic_and_peers_are_read_from_the_names_on_the_panel() {
        let panel = Panel::anonymous(&PanelSpec::new("example")).unwrap();
        for (name, count) in [
            ("receive.frames", 9),
            ("verify.signatures_checked", 7),
            ("delivered/arm/setpoint", 5),
            ("sent/arm/state", 4),
            ("send.lost@robot", 3),
            ("verify.drop.bad_signature@robot", 2),
            ("verify.drop.replay@robot", 0),
            ("receive.drop.too_short@stranger", 1),
        ] {
            panel.counter(name).unwrap().add(count);
        }
        for (name, value) in [
            ("peer.epoch@robot", 3),
            ("peer.round_trip_ns@robot", 40_000),
            ("peer.heard_at_ns@robot", 1),
            ("peer.epoch@quiet", 0),
            ("peer.round_trip_ns@quiet", 0),
            ("peer.heard_at_ns@quiet", 0),
        ] {
            panel.gauge(name).unwrap().set(value);
        }
        let snapshot = panel.snapshot().unwrap();
        let traffic = Traffic::of(&snapshot);
        assert_eq!((traffic.frames_received, traffic.signatures_checked), (9, 7));
        assert_eq!(traffic.delivered["arm/setpoint"], 5);
        assert_eq!(traffic.sent["arm/state"], 4);
        assert_eq!(traffic.send_lost["robot"], 3);
        let drops: Vec<_> =
            traffic.drops.iter().map(|d| (d.reason.as_str(), d.source.as_str(), d.count)).collect();
        assert_eq!(drops, [("bad_signature", "robot", 2), ("too_short", "stranger", 1)]);
        let peers = peers(&snapshot);
        assert_eq!(peers[0].epoch, Some(3));
        assert_eq!(peers[0].round_trip_ns, Some(40_000));
        assert_eq!(peers[0].heard_ago_ns, Some(snapshot.taken_at.as_nanos() - 1));
        assert_eq!(peers[1].text(), "quiet: never heard of");
    }
}
