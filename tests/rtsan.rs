//! Lanes under the real-time sanitizer: traffic of every kind makes no call that may block or
//! allocate, and a stage that makes one is found. `scripts/rtsan` runs this.

mod support;

use sinew::control::control_loop::ControlLoop;
use sinew::io::message::Message;
use sinew::io::node::{Auth, Layout, Node, NodeBuilder, TopicClass, TopicConfig};
use sinew::rt::clock::Nanos;
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::lane::Stage;
use std::net::{SocketAddr, UdpSocket};
use support::alone::{is_alone, run, variant};
use support::arena::{CLUSTER, CONTROLLER, ROBOT, UNLIMITED, peer};
use support::forge::{Forger, identity};
use support::{Sample, counter, fresh_address, until};

/// Exit code of a process that the sanitizer ended (its flag `exitcode`).
const VIOLATION: i32 = 43;

/// Unsigned messages that must get through, beside a fiftieth of that number of signed ones.
const MESSAGES: u64 = 10_000;

fn node(files: &tempfile::TempDir, name: &str, seed: u8, address: SocketAddr) -> NodeBuilder {
    let topic = |name: &str, auth| TopicConfig {
        auth,
        ..TopicConfig::new(name, Sample::NAME, TopicClass::Queue)
    };
    Node::builder(name)
        .development()
        .cluster(CLUSTER)
        .identity(identity(seed))
        .panel_dir(files.path())
        .admission(UNLIMITED)
        .udp(address)
        .topic(topic("signed", Auth::Signed))
        .topic(topic("open", Auth::Open))
}

#[test]
fn traffic_through_lanes_makes_no_call_that_may_block_or_allocate() {
    const NAME: &str = "traffic_through_lanes_makes_no_call_that_may_block_or_allocate";
    if is_alone() {
        let layout = match variant().as_str() {
            "split" => Layout::Split,
            "pipelined" => Layout::Pipelined,
            _ => Layout::Fused,
        };
        return pass_traffic(layout);
    }
    for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
        let ended = run(NAME, &layout.to_string());
        assert!(ended.status.success(), "{layout}: {}\n{}", ended.status, ended.output);
        assert!(!ended.output.contains("RealtimeSanitizer"), "{}", ended.output);
    }
}

fn pass_traffic(layout: Layout) {
    let files = tempfile::tempdir().unwrap();
    let (robot_at, controller_at) = (fresh_address(), fresh_address());
    let mut robot = node(&files, "robot", ROBOT, robot_at).layout(layout).peer(peer(
        "controller",
        CONTROLLER,
        controller_at,
        &["signed", "open"],
    ));
    let mut controller = node(&files, "controller", CONTROLLER, controller_at)
        .layout(layout)
        .peer(peer("robot", ROBOT, robot_at, &["state"]));
    let mut inputs = ["signed", "open"].map(|topic| robot.queue::<Sample>(topic, 1_024).unwrap());
    let mut outputs =
        ["signed", "open"].map(|topic| controller.publisher::<Sample>(topic).unwrap());
    let mut state = robot.publisher::<Sample>("state").unwrap();
    let mut newest = controller.latest::<Sample>("state").unwrap();
    let robot = robot.start().unwrap();
    let controller = controller.start().unwrap();

    // A loop publishes from its own thread, which is under the same rules.
    let mut number = 0;
    let arm = ControlLoop::new("arm")
        .rate_hz(1_000)
        .beside(&robot)
        // However late it is here: a loop in safe stop would publish nothing.
        .trip(LadderConfig::report_only())
        .hard_limit(Nanos::from_secs(10))
        .on_safe_stop(|_| {});
    let arm = arm
        .spawn(robot.panel(), move |_| {
            number += 1;
            let _ = state.publish(&Sample::new(number));
        })
        .unwrap();

    let stranger = UdpSocket::bind(fresh_address()).unwrap();
    stranger.connect(robot_at).unwrap();
    let mut forged = Forger::new(CONTROLLER, CLUSTER).sample("signed", 1, 1);
    forged[200] ^= 1;
    let noise = [forged, vec![0; 300], vec![], vec![1; 1_400]];
    let mut sent = 0;
    until("every kind of message has got through often enough", || {
        sent += 1;
        // A signature costs more than a hundred unsigned messages. What finds no room is not sent.
        let [signed, open] = &mut outputs;
        let _ = signed.publish(&Sample::new(sent));
        for _ in 0..32 {
            let _ = open.publish(&Sample::new(sent));
        }
        stranger.send(&noise[sent as usize % noise.len()]).unwrap();
        inputs.iter_mut().for_each(|input| while input.pop().is_some() {});
        let enough = counter(&robot, "delivered/open") >= MESSAGES
            && counter(&robot, "delivered/signed") >= MESSAGES / 50
            && newest.read().is_some_and(|state| state.value.number > 100);
        enough.then_some(())
    });
    arm.stop().unwrap();
    controller.stop().unwrap();
    robot.stop().unwrap();
}

/// Does one forbidden thing on its lane.
struct Offends(fn());

impl Stage for Offends {
    fn poll(&mut self, _now: Nanos) -> Execution {
        (self.0)();
        Execution::Idle
    }
}

#[test]
fn the_sanitizer_finds_a_stage_that_allocates_sleeps_or_prints() {
    const NAME: &str = "the_sanitizer_finds_a_stage_that_allocates_sleeps_or_prints";
    let offences: [(&str, &str, fn()); 3] = [
        ("allocates", "malloc", || drop(std::hint::black_box(Box::new(7_u64)))),
        ("sleeps", "nanosleep", || {
            let nap = libc::timespec { tv_sec: 0, tv_nsec: 1 };
            // SAFETY: reads a valid timespec; the remainder is not asked for.
            unsafe { libc::nanosleep(&raw const nap, std::ptr::null_mut()) };
        }),
        ("prints", "write", || eprintln!("from a lane")),
    ];
    if is_alone() {
        let (_, _, offence) = offences.into_iter().find(|known| known.0 == variant()).unwrap();
        let files = tempfile::tempdir().unwrap();
        let mut node = node(&files, "offends", ROBOT, fresh_address());
        let guard = GuardSpec {
            budget: Nanos::from_secs(1),
            hard_limit: Nanos::from_secs(10),
            ladder: LadderConfig::report_only(),
        };
        node.stage("offends", guard, Box::new(Offends(offence)));
        let node = node.start().unwrap();
        until("the sanitizer ends the process", || None::<()>);
        drop(node);
        return;
    }
    for (offence, call, _) in offences {
        let ended = run(NAME, offence);
        assert_eq!(ended.status.code(), Some(VIOLATION), "{offence}: {}", ended.output);
        assert!(ended.output.contains("RealtimeSanitizer"), "{offence}: {}", ended.output);
        assert!(ended.output.contains(call), "{offence}: {}", ended.output);
    }
}
