//! What a node tells about itself: which stage hangs, what overran, and why frames of whom are dropped.

mod support;

use sinew::io::node::{Layout, Node, NodeBuilder};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::rt::clock::Nanos;
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::lane::Stage;
use sinew::rt::log::{Line, Severity};
use sinew::rt::panel::State;
use std::sync::mpsc::{self, Receiver};
use support::arena::{CLUSTER, CONTROLLER, ROBOT, counts, peer};
use support::forge::{Forger, identity};
use support::{Sample, fresh_address, until};

fn node(name: &str, files: &tempfile::TempDir) -> (NodeBuilder, Receiver<Line>) {
    let (sink, lines) = mpsc::channel();
    let node = Node::builder(name)
        .development()
        .cluster(CLUSTER)
        .identity(identity(ROBOT))
        .panel_dir(files.path())
        .layout(Layout::Fused)
        .log(move |line| drop(sink.send(line)));
    (node, lines)
}

fn guard(budget: Nanos, hard_limit: Nanos) -> GuardSpec {
    GuardSpec { budget, hard_limit, ladder: LadderConfig::report_only() }
}

/// Hangs in its first poll, until it is released.
struct Hangs(Receiver<()>);

impl Stage for Hangs {
    fn poll(&mut self, _now: Nanos) -> Execution {
        // The end of the sender is the release.
        let _ = self.0.recv();
        Execution::Idle
    }
}

#[test]
fn a_stage_that_hangs_is_named_with_its_lane_while_it_still_hangs() {
    let files = tempfile::tempdir().unwrap();
    let (release, hangs) = mpsc::channel();
    let (mut node, lines) = node("hangs", &files);
    let limits = guard(Nanos::from_millis(1), Nanos::from_millis(10));
    node.stage("mine", limits, Box::new(Hangs(hangs)));
    let node = node.udp(fresh_address()).start().unwrap();
    let line = until("the hang is told", || {
        lines.try_iter().find(|line| line.text.starts_with("hangs: inside for "))
    });
    assert_eq!((line.source.as_str(), line.severity), ("lane/mine", Severity::Error));
    assert!(line.text.contains(", since ") && line.text.contains("may be for 10.000 ms"), "{line}");
    drop(release);
    node.stop().unwrap();
}

#[test]
fn whoever_takes_the_log_and_hangs_does_not_keep_a_node_from_stopping() {
    let files = tempfile::tempdir().unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    let (told, lines) = mpsc::channel();
    let (node, _) = node("stuck", &files);
    let mut node = node.log(move |line| {
        drop(told.send(line));
        // A watchdog: the node shall not wait for it.
        let _ = hangs.recv_timeout(std::time::Duration::from_secs(10));
    });
    node.stage("mine", guard(Nanos::new(1), Nanos::from_secs(10)), Box::new(Overruns(Nanos::ZERO)));
    let node = node.udp(fresh_address()).start().unwrap();
    lines.recv().unwrap();
    let panel = node.panel().clone();
    let errors = node.stop().unwrap_err();
    let stuck = |only: &String| only.starts_with("housekeeping did not end within ");
    assert!(matches!(&*errors, [only] if stuck(only)), "{errors:?}");
    assert_eq!(panel.state(), State::Failed);
    drop(release);
}

/// Does nothing, a thousand times a second, which is too slow for a budget of one nanosecond.
struct Overruns(Nanos);

impl Stage for Overruns {
    fn poll(&mut self, now: Nanos) -> Execution {
        self.0 = now + Nanos::from_millis(1);
        Execution::Idle
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.0)
    }
}

#[test]
fn overruns_are_told_once_and_the_others_are_counted() {
    let files = tempfile::tempdir().unwrap();
    let (mut node, lines) = node("overruns", &files);
    node.stage("mine", guard(Nanos::new(1), Nanos::from_secs(10)), Box::new(Overruns(Nanos::ZERO)));
    let node = node.udp(fresh_address()).start().unwrap();
    let first =
        until("the overrun is told", || lines.try_iter().find(|line| line.source == "lane/mine"));
    assert!(first.text.starts_with("took ") && first.text.contains(" of 1 ns; "), "{first}");
    node.stop().unwrap();
    let rest: Vec<_> = lines.iter().filter(|line| line.source == "lane/mine").collect();
    assert!(rest.iter().any(|line| line.text.contains(" more in ")), "{rest:?}");
    assert!(rest.iter().all(|line| !line.text.starts_with("took ")), "{rest:?}");
}

#[test]
fn the_first_drop_for_each_reason_and_peer_is_told_and_no_other() {
    let files = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::new();
    let (address, home, other) = (fresh_address(), fresh_address(), fresh_address());
    let (node, lines) = node("drops", &files);
    let mut node =
        node.memory(&network, address).peer(peer("controller", CONTROLLER, home, &["setpoint"]));
    let _setpoints = node.latest::<Sample>("setpoint").unwrap();
    let node = node.start().unwrap();
    let unknown_life = Forger::new(CONTROLLER, CLUSTER).sample("setpoint", 1, 1);
    for _ in 0..3 {
        assert!(network.inject(other, address, b"x"));
        assert!(network.inject(home, address, &unknown_life));
    }
    until("all of them are counted", || {
        let counts = counts(&node);
        let count = |name| counts.get(name).copied();
        (count("receive.drop.too_short@stranger") == Some(3)
            && count("verify.drop.no_life@controller") == Some(3))
        .then_some(())
    });
    node.stop().unwrap();
    let mut told: Vec<_> = lines
        .iter()
        .filter(|line| line.text.starts_with("first frame of "))
        .map(|line| format!("{}: {}", line.source, line.text))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "lane/receive: first frame of stranger dropped as too_short; the panel counts them",
            "lane/verify: first frame of controller dropped as no_life; the panel counts them",
        ]
    );
}

#[test]
fn a_machine_that_changes_under_a_running_node_is_told_and_counted() {
    let (files, machine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, lines) = node("machine", &files);
    let node = node.udp(fresh_address()).machine(machine.path(), Nanos::from_millis(50));
    let node = node.start().unwrap();
    let core = node.report().plan.lanes[0].core;
    let dir = machine.path().join(format!("sys/devices/system/cpu/cpu{core}/cpufreq"));
    std::fs::create_dir_all(&dir).unwrap();
    // Another one at each look, so that any two rounds differ.
    let mut n = 0;
    let line = until("a change is told", || {
        n += 1;
        std::fs::write(dir.join("scaling_governor"), format!("governor-{n}\n")).unwrap();
        lines.try_iter().find(|line| line.source == "machine")
    });
    assert_eq!(line.severity, Severity::Warn);
    assert!(line.text.starts_with(&format!("the governor of core {core} is now ")), "{line}");
    assert!(node.panel().snapshot().unwrap().counter("machine.changes").unwrap() >= 1);
    node.stop().unwrap();
}
