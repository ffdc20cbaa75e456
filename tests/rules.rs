//! The rules on a lane, each with a control that shows that a breach would be seen: no allocation, no
//! silent death, and nobody starves. (That they make no system call is in `spinning.rs`.)

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::on_lanes;
use sinew::io::message::Message;
use sinew::io::node::Queued;
use sinew::io::node::{Auth, Layout, Node, Publisher, TopicClass, TopicConfig};
use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::{LadderConfig, Level};
use sinew::rt::lane::Stage;
use sinew::rt::panel::State;
use sinew::rt::ring::Consumer;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::alone::alone;
use support::arena::{Arena, CLUSTER, CONTROLLER, From, ROBOT, Rules, UNLIMITED, counts, peer};
use support::forge::{Forger, identity};
use support::inventory::Inventory;
use support::{AtTheEnd, Sample, counter, fresh_address, until};

const LAYOUTS: [Layout; 3] = [Layout::Fused, Layout::Split, Layout::Pipelined];

fn guard() -> GuardSpec {
    GuardSpec {
        budget: Nanos::from_secs(1),
        hard_limit: Nanos::from_secs(10),
        ladder: LadderConfig::report_only(),
    }
}

// No allocation.

/// Samples on their way at once: fewer than the smallest socket buffer holds.
const WINDOW: u64 = 96;

/// Publishes on the sending lane itself, as fast as its credit allows.
struct Source {
    publisher: Publisher<Sample>,
    number: u64,
    credit: Arc<AtomicU64>,
    again: Nanos,
}

impl Stage for Source {
    fn poll(&mut self, now: Nanos) -> Execution {
        let first = self.number;
        while self.number < self.credit.load(Ordering::Relaxed)
            && self.number < first + 32
            && self.publisher.publish(&Sample::new(self.number)).is_ok()
        {
            self.number += 1;
        }
        self.again = now + Nanos::from_micros(50);
        if self.number == first { Execution::Idle } else { Execution::Worked { released: now } }
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(self.again)
    }
}

/// Two nodes over UDP and a stranger who knows their addresses.
struct Traffic {
    robot: Node,
    controller: Node,
    samples: Consumer<Queued<Sample>>,
    credit: Arc<AtomicU64>,
    noise: Vec<Vec<u8>>,
    stranger: UdpSocket,
    _files: tempfile::TempDir,
}

impl Traffic {
    fn start(layout: Layout, auth: Auth) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (robot_at, controller_at) = (fresh_address(), fresh_address());
        let node = |name: &str, seed, address| {
            Node::builder(name)
                .development()
                .cluster(CLUSTER)
                .identity(identity(seed))
                .panel_dir(files.path())
                .layout(layout)
                .admission(UNLIMITED)
                .udp(address)
                .topic(TopicConfig {
                    auth,
                    ..TopicConfig::new("setpoint", Sample::NAME, TopicClass::Queue)
                })
        };
        let mut robot = node("robot", ROBOT, robot_at).peer(peer(
            "controller",
            CONTROLLER,
            controller_at,
            &["setpoint"],
        ));
        let mut controller =
            node("controller", CONTROLLER, controller_at).peer(peer("robot", ROBOT, robot_at, &[]));
        let samples = robot.queue::<Sample>("setpoint", 4_096).unwrap();
        let publisher = controller.publisher::<Sample>("setpoint").unwrap();
        let credit = Arc::new(AtomicU64::new(1));
        let source = Source { publisher, number: 0, credit: credit.clone(), again: Nanos::ZERO };
        controller.stage("source", guard(), Box::new(source));
        let stranger = UdpSocket::bind(fresh_address()).unwrap();
        stranger.connect(robot_at).unwrap();
        let forger = Forger::new(CONTROLLER, CLUSTER);
        let mut forged = forger.sample("setpoint", 1, 1);
        forged[200] ^= 1;
        let noise = vec![
            vec![0; 300],
            vec![],
            vec![7; 1_300],
            forged[..100].to_vec(),
            forged,
            Forger::new(99, CLUSTER).sample("setpoint", 1, 1),
        ];
        Self {
            robot: robot.start().unwrap(),
            controller: controller.start().unwrap(),
            samples,
            credit,
            noise,
            stranger,
            _files: files,
        }
    }

    /// Lets samples flow until `wanted` of them have been delivered, with noise in between, and says
    /// how often lanes called the allocator meanwhile.
    fn allocations_over(&mut self, wanted: u64) -> u64 {
        until("the first sample arrives", || {
            self.credit.fetch_add(1, Ordering::Relaxed);
            self.samples.pop()
        });
        let before = on_lanes();
        let mut noise = self.noise.iter().cycle();
        let (mut delivered, mut heard_at) = (0, clock::now());
        let give_up = clock::now() + Nanos::from_secs(90);
        self.credit.fetch_add(WINDOW, Ordering::Relaxed);
        while delivered < wanted {
            let mut new = 0;
            while self.samples.pop().is_some() {
                new += 1;
            }
            delivered += new;
            self.credit.fetch_add(new, Ordering::Relaxed);
            let now = clock::now();
            assert!(now < give_up, "{delivered} of {wanted} delivered");
            match new {
                // Some were lost, and their credit with them.
                0 if now - heard_at > Nanos::from_millis(100) => {
                    self.credit.fetch_add(WINDOW, Ordering::Relaxed);
                    heard_at = now;
                }
                0 => std::thread::sleep(std::time::Duration::from_micros(20)),
                _ => {
                    self.stranger.send(noise.next().unwrap()).unwrap();
                    heard_at = now;
                }
            }
        }
        on_lanes() - before
    }

    fn stop(self) {
        let strangers: u64 = counts(&self.robot)
            .iter()
            .filter(|(name, _)| name.ends_with("@stranger"))
            .map(|(_, count)| count)
            .sum();
        assert!(strangers > 0, "the noise came in");
        self.controller.stop().unwrap();
        self.robot.stop().unwrap();
    }
}

fn a_million_envelopes(layout: Layout) {
    let mut traffic = Traffic::start(layout, Auth::Open);
    assert_eq!(traffic.allocations_over(1_000_000), 0);
    assert!(counter(&traffic.robot, "delivered/setpoint") >= 1_000_000);
    traffic.stop();
    let mut traffic = Traffic::start(layout, Auth::Signed);
    assert_eq!(traffic.allocations_over(10_000), 0);
    assert!(counter(&traffic.robot, "verify.signatures_checked") >= 10_000);
    traffic.stop();
}

#[test]
fn a_fused_lane_does_not_allocate_over_a_million_envelopes() {
    alone("a_fused_lane_does_not_allocate_over_a_million_envelopes", || {
        a_million_envelopes(Layout::Fused);
    });
}

#[test]
fn split_lanes_do_not_allocate_over_a_million_envelopes() {
    alone("split_lanes_do_not_allocate_over_a_million_envelopes", || {
        a_million_envelopes(Layout::Split);
    });
}

/// Allocates and frees once in every poll.
struct Allocates;

impl Stage for Allocates {
    fn poll(&mut self, now: Nanos) -> Execution {
        drop(std::hint::black_box(Box::new(now)));
        Execution::Idle
    }
}

#[test]
fn the_counter_sees_a_stage_that_allocates() {
    alone("the_counter_sees_a_stage_that_allocates", || {
        let files = tempfile::tempdir().unwrap();
        let mut node = Node::builder("allocates")
            .development()
            .identity(identity(ROBOT))
            .panel_dir(files.path())
            .udp(fresh_address());
        node.stage("allocates", guard(), Box::new(Allocates));
        let before = on_lanes();
        let node = node.start().unwrap();
        until("the stage has been polled", || (on_lanes() >= before + 2).then_some(()));
        node.stop().unwrap();
    });
}

// A panic is a trip.

struct Panics {
    armed: Arc<AtomicBool>,
}

impl Stage for Panics {
    fn poll(&mut self, _now: Nanos) -> Execution {
        assert!(!self.armed.load(Ordering::Relaxed), "the stage has had enough");
        Execution::Idle
    }

    fn next_deadline(&self) -> Option<Nanos> {
        Some(clock::now() + Nanos::from_millis(1))
    }
}

#[test]
fn a_panic_on_a_lane_is_a_latched_safe_stop_and_stop_gives_its_message() {
    for layout in LAYOUTS {
        let files = tempfile::tempdir().unwrap();
        let mut node = Node::builder("panics")
            .development()
            .identity(identity(ROBOT))
            .panel_dir(files.path())
            .layout(layout)
            .udp(fresh_address());
        let armed = Arc::new(AtomicBool::new(false));
        node.stage("panics", guard(), Box::new(Panics { armed: armed.clone() }));
        let node = node.start().unwrap();
        assert_eq!(node.health().level(), Level::Ok);
        assert!(!node.is_broken());

        armed.store(true, Ordering::Relaxed);
        until("the node says that it is broken", || node.is_broken().then_some(()));
        assert_eq!(node.health().level(), Level::SafeStop);
        assert!(node.health().panicked());

        let (panel, health) = (node.panel().clone(), node.health().clone());
        let messages = node.stop().unwrap_err();
        assert_eq!(messages, ["the stage has had enough"], "{layout}");
        assert_eq!(panel.state(), State::Failed);
        health.rearm(health.seen());
        assert_eq!(health.level(), Level::SafeStop, "nobody re-arms a thread that is gone");
        // The evidence stays for whoever looks into it.
        drop(panel);
        assert!(files.path().join("panics.crashed.panel").exists());
    }
}

#[test]
fn a_node_that_panicked_and_is_dropped_leaves_no_thread_behind() {
    alone("a_node_that_panicked_and_is_dropped_leaves_no_thread_behind", || {
        // The usual hook maps files to find the names in its backtrace, and keeps them.
        std::panic::set_hook(Box::new(|_| {}));
        let files = tempfile::tempdir().unwrap();
        let before = Inventory::take(files.path());
        let mut node = Node::builder("panics")
            .development()
            .identity(identity(ROBOT))
            .panel_dir(files.path())
            .layout(Layout::Pipelined)
            .udp(fresh_address());
        node.stage("panics", guard(), Box::new(Panics { armed: Arc::new(true.into()) }));
        let node = node.start().unwrap();
        until("the node says that it is broken", || node.is_broken().then_some(()));
        drop(node);
        let mut after = Inventory::take(files.path());
        assert_eq!(after.files.remove("panics.crashed.panel"), Some(1));
        assert_eq!(before, after);
    });
}

// Nobody starves.

#[test]
fn a_flood_from_elsewhere_costs_the_peer_nothing() {
    for layout in LAYOUTS {
        let mut arena =
            Arena::udp(&format!("flood-{layout}"), Rules { layout, ..Rules::default() });
        let flood = UdpSocket::bind(fresh_address()).unwrap();
        flood.connect(arena.robot.report().address).unwrap();
        let mut forged = arena.controller.sample("setpoint", arena.epoch, 1);
        forged[200] ^= 1;
        let garbage = [forged, vec![0; 1_200]];
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0_usize.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    flood.send(&garbage[n % 2]).unwrap();
                }
            });
            let _end = AtTheEnd(&done);
            until("the flood has come in", || {
                counts(&arena.robot)
                    .get("verify.drop.bad_signature@stranger")
                    .filter(|n| **n > 100)
                    .copied()
            });
            // One after the other: that each arrives is the claim, not how fast.
            for number in 1..=500 {
                let frame = arena.controller.sample("setpoint", arena.epoch, number);
                arena.send_at_once(From::Home, &frame);
                let arrived = until("the peer's sample gets through", || arena.setpoints.pop());
                assert_eq!(arrived.value.number, number);
            }
        });
        let counted = counts(&arena.robot);
        assert_eq!(counted["delivered/setpoint"], 500);
        let against_the_peer: Vec<_> =
            counted.keys().filter(|name| name.ends_with("@controller")).collect();
        assert!(against_the_peer.is_empty(), "{against_the_peer:?}");
        arena.robot.stop().unwrap();
    }
}
