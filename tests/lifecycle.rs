//! How nodes begin and end: whatever way one ends, nothing of it stays behind, and a stop finishes
//! what had come in.

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::live_bytes;
use sinew::io::node::{Layout, Node, NodeBuilder, NodeError, RealTimeConfig};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, Guard, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::lane::{Gate, Lane, Stage};
use sinew::rt::panel::{Panel, PanelSpec, State};
use sinew::rt::thread::{Priority, Strictness, ThreadSpec};
use sinew::rt::topology::{CoreId, Topology};
use sinew::rt::wait::Wait;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::alone::alone;
use support::arena::{Arena, CLUSTER, CONTROLLER, From, ROBOT, Rules, UNLIMITED};
use support::arena::{accounted, counts, peer};
use support::forge::identity;
use support::inventory::{Inventory, anonymous_bytes};
use support::{AtTheEnd, Pair, Sample, counter, fresh_address, until};

const LAYOUTS: [Layout; 3] = [Layout::Fused, Layout::Split, Layout::Pipelined];

/// Nodes that live at the same time.
const NODES: u8 = 50;

/// Fifty nodes of every kind, each with a neighbour to look for, all alive at once; then all gone,
/// half of them by `stop` and half by `drop`.
fn fifty_lives(files: &Path, lock_memory: bool) {
    let network = MemoryNetwork::new();
    let addresses: Vec<_> = (0..=NODES).map(|_| fresh_address()).collect();
    let mut nodes = Vec::new();
    for n in 0..NODES {
        let at = usize::from(n);
        let layout = LAYOUTS[at % LAYOUTS.len()];
        let mut node = Node::builder(format!("life-{n}"))
            .development()
            .cluster(CLUSTER)
            .identity(identity(n + 1))
            .panel_dir(files.join("panels"))
            .realtime(RealTimeConfig { layout, lock_memory, ..RealTimeConfig::default() })
            .peer(peer("next", n + 2, addresses[at + 1], &["setpoint"]));
        if n % 5 == 0 {
            node = node.state_dir(files.join(format!("state-{n}")));
        }
        node = match n % 2 {
            0 => node.udp(addresses[at]),
            _ => node.memory(&network, addresses[at]),
        };
        let samples = node.latest::<Sample>("setpoint").unwrap();
        let publisher = node.publisher::<Sample>("state").unwrap();
        nodes.push((node.start().unwrap(), samples, publisher));
    }
    for (n, (node, _samples, mut publisher)) in nodes.into_iter().enumerate() {
        publisher.publish(&Sample::new(1)).unwrap();
        match n % 4 {
            0 | 1 => node.stop().unwrap(),
            _ => drop(node),
        }
    }
}

fn fifty_nodes_leave_nothing(lock_memory: bool) {
    let files = tempfile::tempdir().unwrap();
    let before = Inventory::take(files.path());
    fifty_lives(files.path(), lock_memory);
    let mut after = Inventory::take(files.path());
    let boots: Vec<_> = (0..NODES).step_by(5).map(|n| format!("state-{n}/boot")).collect();
    for boot in &boots {
        assert_eq!(after.files.remove(boot), Some(1), "the boot counter is what shall stay");
    }
    assert_eq!(before, after);

    // From one time to the next not a byte of the heap may be lost. What the C library keeps for
    // later (stacks, arenas) may grow, but never by what fifty nodes hold.
    let (heap, memory) = (live_bytes(), anonymous_bytes());
    fifty_lives(files.path(), lock_memory);
    let (heap_after, memory_after) = (live_bytes(), anonymous_bytes());
    fifty_lives(files.path(), lock_memory);
    let (heap_last, memory_last) = (live_bytes(), anonymous_bytes());
    println!("heap: {heap} B, then {heap_after}, {heap_last}");
    println!("memory: {memory} B, then {memory_after}, {memory_last}");
    assert_eq!((heap_after, heap_last), (heap, heap));
    let pools = u64::from(NODES) * 1_000_000;
    assert!(memory_last < memory_after + pools / 5);
}

#[test]
fn fifty_nodes_with_locked_memory_leave_nothing_behind() {
    alone("fifty_nodes_with_locked_memory_leave_nothing_behind", || {
        fifty_nodes_leave_nothing(true);
    });
}

#[test]
fn fifty_nodes_without_locked_memory_leave_nothing_behind() {
    alone("fifty_nodes_without_locked_memory_leave_nothing_behind", || {
        fifty_nodes_leave_nothing(false);
    });
}

struct Nothing;

impl Stage for Nothing {
    fn poll(&mut self, _now: Nanos) -> Execution {
        Execution::Idle
    }
}

fn guard(budget: Nanos) -> GuardSpec {
    let hard_limit = Nanos::from_secs(10);
    GuardSpec { budget, hard_limit, ladder: LadderConfig::report_only() }
}

/// Hangs in its first poll, until it is released, but no longer than 5 s.
struct Hangs(std::sync::mpsc::Receiver<()>);

impl Stage for Hangs {
    fn poll(&mut self, _now: Nanos) -> Execution {
        // The end of the sender releases it too.
        let _ = self.0.recv_timeout(std::time::Duration::from_secs(5));
        Execution::Idle
    }
}

#[test]
fn a_stage_that_hangs_does_not_keep_a_node_from_stopping() {
    let files = tempfile::tempdir().unwrap();
    let (release, hangs) = std::sync::mpsc::channel();
    let mut node = Node::builder("hangs")
        .development()
        .identity(identity(ROBOT))
        .panel_dir(files.path())
        .layout(Layout::Fused)
        .udp(fresh_address());
    node.stage("hangs", guard(Nanos::from_millis(1)), Box::new(Hangs(hangs)));
    let node = node.start().unwrap();
    let panel = node.panel().clone();
    let errors = node.stop().unwrap_err();
    let [error] = &*errors else { panic!("{errors:?}") };
    assert!(error.starts_with("lane lane did not end within"), "{error}");
    assert!(error.contains("one of its stages hangs"), "{error}");
    assert_eq!(panel.state(), State::Failed);
    drop(release);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind_wherever_it_fails() {
    alone("a_start_that_fails_leaves_nothing_behind_wherever_it_fails", || {
        let files = tempfile::tempdir().unwrap();
        let address = fresh_address();
        let node = |name: &str| {
            Node::builder(name)
                .development()
                .identity(identity(ROBOT))
                .panel_dir(files.path())
                .layout(Layout::Pipelined)
                .udp(address)
                .peer(peer("controller", CONTROLLER, fresh_address(), &[]))
        };
        // Once for good, so that everything that a process has only once is there.
        node("first").start().unwrap().stop().unwrap();

        let before = Inventory::take(files.path());
        let fails = |why: &str, node: NodeBuilder| {
            let error = node.start().expect_err(why);
            assert_eq!(Inventory::take(files.path()), before, "after {error}");
            error
        };

        let missing = files.path().join("no.key");
        let keyless = Node::builder("keyless").development().udp(address);
        let error = fails("there is no such key file", keyless.key_file(&missing));
        assert!(matches!(error, NodeError::Key(_)), "{error}");
        assert!(error.to_string().contains("no.key"), "{error}");

        let keyless = Node::builder("keyless").development().udp(address);
        let error = fails("there is no key at all", keyless);
        assert!(matches!(error, NodeError::Config(_)), "{error}");

        let nowhere = RealTimeConfig { cores: vec![CoreId::new(999)], ..RealTimeConfig::default() };
        let error = fails("there is no core 999", node("core").realtime(nowhere));
        assert!(error.to_string().contains("999"), "{error}");

        let holder = UdpSocket::bind(address).unwrap();
        let error = node("port").start().expect_err("the port is taken");
        assert!(matches!(error, NodeError::Transport(_)), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(holder);
        assert_eq!(Inventory::take(files.path()), before);

        let error = fails("a budget of nothing", {
            let mut node = node("budget");
            node.stage("mine", guard(Nanos::ZERO), Box::new(Nothing));
            node
        });
        assert!(error.to_string().contains("mine"), "{error}");

        let error = fails("a name that is too long for the panel", {
            let mut node = node("label");
            node.stage("m".repeat(41), guard(Nanos::from_secs(1)), Box::new(Nothing));
            node
        });
        assert!(matches!(error, NodeError::Panel(_)), "{error}");

        let twice = MemoryNetwork::new();
        let memory = |name| node(name).memory(&twice, address);
        let first = memory("memory").start().unwrap();
        let with_first = Inventory::take(files.path());
        let error = memory("memory-2").start().expect_err("the address is taken");
        assert!(matches!(error, NodeError::Transport(_)), "{error}");
        let error = node("memory").start().expect_err("the panel's name is taken");
        assert!(matches!(error, NodeError::Panel(_)), "{error}");
        assert_eq!(Inventory::take(files.path()), with_first);
        first.stop().unwrap();
        assert_eq!(Inventory::take(files.path()), before);

        // Last, for there is no way back: without privileges the kernel refuses the lanes' priority.
        drop_privileges();
        let strict = node("strict").realtime(RealTimeConfig {
            layout: Layout::Pipelined,
            strictness: Some(Strictness::Require),
            lock_memory: false,
            cpu_latency_us: None,
            ..RealTimeConfig::default()
        });
        let error = fails("the kernel refuses SCHED_FIFO", strict);
        assert!(matches!(error, NodeError::Thread(_)), "{error}");
    });
}

/// Gives up what allows real-time priorities.
fn drop_privileges() {
    /// `_LINUX_CAPABILITY_VERSION_3`: low and high words of three sets (capset(2)).
    const VERSION: u32 = 0x2008_0522;
    const CAP_SYS_NICE: u32 = 1 << 23;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let mut header = [VERSION, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: the three calls read and write structures of the documented layout that live until
    // they return.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const none), 0);
        let mut call = |number, sets: *mut u32| libc::syscall(number, header.as_mut_ptr(), sets);
        assert_eq!(call(libc::SYS_capget, sets.as_mut_ptr()), 0);
        sets[..3].iter_mut().for_each(|set| *set &= !CAP_SYS_NICE);
        assert_eq!(call(libc::SYS_capset, sets.as_mut_ptr()), 0);
    }
}

/// As many frames as the smallest ring between two lanes holds.
const BURST: u64 = 64;

#[test]
fn a_stopping_node_delivers_everything_that_it_had_received() {
    // Lanes side by side, where there are cores for it, so that one can end before another.
    let cores: Vec<_> = Topology::read().unwrap().usable_cores().iter().collect();
    for layout in LAYOUTS {
        for round in 0..3 {
            let name = format!("drain-{layout}-{round}");
            let rules = Rules { layout, cores: cores.clone(), ..Rules::default() };
            let mut arena = Arena::memory(&name, rules);
            let frames: Vec<_> = (1..=BURST)
                .map(|number| arena.controller.sample("setpoint", arena.epoch, number))
                .collect();
            for frame in &frames {
                arena.send_at_once(From::Home, frame);
            }
            let Arena { robot, mut setpoints, .. } = arena;
            robot.stop().unwrap();
            let numbers = std::iter::from_fn(|| setpoints.pop()).map(|queued| queued.value.number);
            assert!(numbers.eq(1..=BURST), "{name}: some were received and not delivered");
        }
    }
}

#[test]
fn a_stopping_node_sends_everything_that_was_published() {
    for layout in LAYOUTS {
        let (_robot, controller) = Pair::on_loopback().builders(&format!("send-off-{layout}"));
        let mut controller = controller.layout(layout);
        let mut publisher = controller.publisher::<Sample>("setpoint").unwrap();
        let controller = controller.start().unwrap();
        let panel = controller.panel().clone();
        for number in 1..=64 {
            publisher.publish(&Sample::new(number)).unwrap();
        }
        controller.stop().unwrap();
        assert_eq!(panel.snapshot().unwrap().counter("sent/setpoint"), Some(64));
        assert_eq!(panel.state(), State::Stopped);
    }
}

#[test]
fn a_node_stops_while_traffic_flows_and_every_frame_is_accounted_for() {
    for layout in LAYOUTS {
        let name = format!("under-way-{layout}");
        let (robot, controller) = Pair::on_loopback().builders(&name);
        let mut robot = robot.layout(layout).admission(UNLIMITED);
        let mut controller = controller.layout(layout);
        let mut setpoints = robot.queue::<Sample>("setpoint", 64).unwrap();
        let mut publisher = controller.publisher::<Sample>("setpoint").unwrap();
        let robot = robot.start().unwrap();
        let controller = controller.start().unwrap();
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0;
                while !stopped.load(Ordering::Relaxed) {
                    number += 1;
                    if publisher.publish(&Sample::new(number)).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            let _end = AtTheEnd(&stopped);
            until("traffic flows", || setpoints.pop());
            let panel = robot.panel().clone();
            until("much of it", || (counter(&robot, "receive.frames") > 500).then_some(()));
            let path = panel.path().unwrap().to_owned();
            robot.stop().unwrap();
            assert_eq!(panel.state(), State::Stopped);
            let counted = support::arena::counts_of(&panel);
            // Housekeeping ends first, so the last handshake frames may have found it gone.
            let unanswered = counted["receive.frames"] - accounted(&counted);
            assert!(unanswered <= 2, "{layout}: {counted:?}");
            drop(panel);
            drop(setpoints);
            assert!(!path.exists(), "the panel of a node that stopped is gone");
            // The sender notices nothing, and can be stopped in the middle of it, too.
            let sent = counter(&controller, "sent/setpoint");
            until("it goes on sending", || {
                (counter(&controller, "sent/setpoint") > sent + 100).then_some(())
            });
            controller.stop().unwrap();
        });
    }
}

#[test]
fn a_flood_does_not_keep_a_node_from_stopping() {
    for layout in LAYOUTS {
        let arena =
            Arena::memory(&format!("flooded-{layout}"), Rules { layout, ..Rules::default() });
        let flood = arena.injector(From::Elsewhere);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    flood(&[0; 64]);
                }
            });
            let _end = AtTheEnd(&stopped);
            until("the flood has come in", || {
                counts(&arena.robot)
                    .get("receive.drop.bad_magic@stranger")
                    .filter(|n| **n > 1_000)
                    .copied()
            });
            // Would hang for as long as the flood lasts, which is until this returns.
            arena.robot.stop().unwrap();
        });
    }
}

/// Says that it had work until its time is over.
struct NeverIdle {
    until: Option<Nanos>,
    over: Arc<AtomicBool>,
}

impl Stage for NeverIdle {
    fn poll(&mut self, now: Nanos) -> Execution {
        // Below what the kernel allows a real-time thread at a time.
        if now < *self.until.get_or_insert(now + Nanos::from_millis(800)) {
            return Execution::Worked { released: now };
        }
        self.over.store(true, Ordering::Relaxed);
        Execution::Idle
    }
}

#[test]
fn a_stage_that_never_runs_out_of_work_does_not_keep_its_lane_from_ending() {
    let panel = Panel::anonymous(&PanelSpec::new("never-idle")).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let stage = NeverIdle { until: None, over: over.clone() };
    let spec = ThreadSpec::new("lane").fifo(Priority::MIN).strictness(Strictness::Report);
    let mut lane = Lane::new(spec, Wait::Park);
    let probe = panel.probe("never-idle", None).unwrap();
    lane.push(Box::new(stage), Guard::new(probe, guard(Nanos::from_secs(1))).unwrap());
    let gate = Gate::new();
    let lane = lane.spawn(&gate, &Arc::default()).unwrap();
    // Told to end before it begins: what it does from there on is to finish the work at hand.
    gate.stop(clock::now() + Nanos::from_millis(20));
    lane.join().unwrap();
    assert!(!over.load(Ordering::Relaxed), "the lane waited for the stage, not for its limit");
}
