//! The rules on a lane, each with a control that shows that a breach would be seen: no allocation, no
//! system call but its own, a panic is a trip, and a flood starves nobody.

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::on_lanes;
use sinew::io::message::Message;
use sinew::io::node::Queued;
use sinew::io::node::{Auth, Layout, Node, Publisher, RealTimeConfig, TopicClass, TopicConfig};
use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::{LadderConfig, Level};
use sinew::rt::lane::Stage;
use sinew::rt::panel::State;
use sinew::rt::ring::Consumer;
use sinew::rt::wait::Wait;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::alone::alone;
use support::arena::{Arena, CLUSTER, CONTROLLER, From, ROBOT, Rules, UNLIMITED, counts, peer};
use support::forge::{Forger, identity};
use support::{Sample, counter, fresh_address, until};

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
                    name: "setpoint".to_owned(),
                    schema: Sample::NAME.to_owned(),
                    class: TopicClass::Queue,
                    auth,
                    lifespan: None,
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
