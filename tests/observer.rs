//! A node that looks on: it gets every message with all that the envelope says, of whatever type, and asks
//! nothing of the machine.

mod support;

use sinew::io::message::{Message, schema_id};
use sinew::io::node::{Layout, Node, RealTimeConfig, TopicClass, TopicConfig};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::rt::thread::Strictness;
use sinew::rt::wait::Wait;
use support::arena::{CLUSTER, CONTROLLER, ROBOT, peer};
use support::forge::identity;
use support::{Sample, fresh_address, until};

#[test]
fn an_observer_gets_everything_that_the_envelope_says_and_asks_nothing_of_the_machine() {
    let files = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::new();
    let addresses = [fresh_address(), fresh_address()];
    let node = |name: &str, own, other, publishes: &[&str]| {
        let at = usize::from(own == CONTROLLER);
        Node::builder(name)
            .development()
            .cluster(CLUSTER)
            .identity(identity(own))
            .panel_dir(files.path())
            .memory(&network, addresses[at])
            .peer(peer("other", other, addresses[1 - at], publishes))
    };
    let mut robot = node("robot", ROBOT, CONTROLLER, &[]).observer();
    let mut publisher = robot.publisher::<Sample>("state").unwrap();
    let robot = robot.start().unwrap();

    // Whatever its configuration asks for.
    let realtime = RealTimeConfig {
        layout: Layout::Split,
        wait: Wait::Spin,
        strictness: Some(Strictness::Require),
        ..RealTimeConfig::default()
    };
    let mut observer =
        node("observer", CONTROLLER, ROBOT, &["state"]).realtime(realtime).observer();
    let mut seen = observer.observe("state", 64).unwrap();
    assert!(observer.observe("state", 64).is_err(), "a topic is observed once");
    let stream = TopicConfig::new("track", Sample::NAME, TopicClass::Stream);
    let refused = node("observer", CONTROLLER, ROBOT, &[]).topic(stream).observe("track", 64);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("`track` is a stream, which is sent only to readers"), "{refused}");
    let observer = observer.start().unwrap();
    let report = observer.report();
    assert_eq!(report.lanes.len(), 1);
    assert!(!report.lanes[0].effective.scheduling.is_real_time(), "{report:?}");
    assert!(report.lanes[0].refused.is_empty(), "{report:?}");
    assert!(report.memory.is_none() && report.cpu_latency_us.is_none(), "{report:?}");
    assert!(observer.held_cores().is_empty());
    assert!(!report.not_real_time.is_empty(), "and its figures say so");

    let linked = || {
        let panel = robot.panel().snapshot().unwrap();
        let told = |name: &str| panel.gauge(&format!("peer.{name}@other")).is_some_and(|at| at > 0);
        (told("heard_at_ns") && told("answered_at_ns")).then_some(())
    };
    until("both know of each other's lives", linked);
    let message = until("a message is seen", || {
        publisher.publish(&Sample::new(7)).unwrap();
        seen.pop()
    });
    assert_eq!(message.sender, robot.public_key().id());
    assert_eq!(message.epoch, robot.report().epoch);
    assert_eq!(message.schema, schema_id::<Sample>());
    assert_eq!(message.payload().len(), size_of::<Sample>());
    assert_eq!(message.payload()[..9], [7, 0, 0, 0, 0, 0, 0, 0, 7]);
    assert!(message.sent_at <= message.received_at);
    let first = message.sequence.get();
    let next = until("another one is seen", || {
        publisher.publish(&Sample::new(8)).unwrap();
        seen.pop()
    });
    assert!(next.sequence.get() > first);
    let panel = robot.panel().snapshot().unwrap();
    let schema = panel.gauge("schema/state").map(i64::cast_unsigned);
    assert_eq!(schema, Some(schema_id::<Sample>().get()), "also what is published shows its type");
}
