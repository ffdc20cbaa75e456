//! What a node needs it has at its start: a million frames that claim a million senders, topics, lives and
//! places in a stream do not make it larger.

mod support;

use sinew::io::message::Message;
use sinew::io::node::{Auth, Delivery, Node, NodeBuilder, PeerConfig, TopicClass, TopicConfig};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::io::wire::{Class, Epoch, KeyId, Sequence, TopicId};
use std::net::SocketAddr;
use support::arena::{CLUSTER, CONTROLLER, ROBOT, UNLIMITED};
use support::forge::{Forger, identity};
use support::{Sample, counter, until};
use zerocopy::IntoBytes;

const FORGED: u64 = 1_000_000;
/// The limit of the design, in bytes.
const GROWTH_MAX: i64 = 1_000_000;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7_400))
}

/// A node with an open stream that its peer publishes.
fn node(network: &MemoryNetwork, name: &str, own: (u8, u8), other: (&str, u8, u8)) -> NodeBuilder {
    let (peer, seed, host) = other;
    Node::builder(format!("memory-{name}-{}", std::process::id()))
        .development()
        .log(|_| ())
        .cluster(CLUSTER)
        .identity(identity(own.0))
        .memory(network, address(own.1))
        .admission(UNLIMITED)
        .topic(TopicConfig {
            auth: Auth::Open,
            ..TopicConfig::new("notes", Sample::NAME, TopicClass::Stream)
        })
        .peer(PeerConfig {
            name: peer.to_owned(),
            identity: identity(seed).public().to_did(),
            address: address(host),
            publishes: vec!["notes".to_owned()],
        })
}

/// Resident bytes of this process.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[test]
fn a_million_forged_senders_topics_and_gaps_leave_the_memory_as_it_was() {
    let network = MemoryNetwork::new();
    let mut robot = node(&network, "robot", (ROBOT, 1), ("controller", CONTROLLER, 2));
    let mut notes = robot.stream::<Sample>("notes", 64).unwrap();
    let robot = robot.start().unwrap();
    let mut controller = node(&network, "controller", (CONTROLLER, 2), ("robot", ROBOT, 1));
    let mut publisher = controller.publisher::<Sample>("notes").unwrap();
    let controller = controller.start().unwrap();
    until("the stream flows", || {
        let _ = publisher.publish(&Sample::new(0));
        notes.next().filter(|next| matches!(next, Delivery::Message(_)))
    });
    let epoch = controller.report().epoch.get();
    controller.stop().unwrap();

    // Frames in the controller's name and unsigned, as the open topic lets them pass.
    let forger = Forger::new(CONTROLLER, CLUSTER);
    let mut flood = |from: u64, to: u64| {
        let (mut gaps, mut injected) = (0, 0);
        for n in from..to {
            let mut fields = forger.fields("notes", epoch, n * 7 + 1);
            fields.class = Class::Stream;
            match n % 4 {
                0 => fields.source = KeyId::from_raw(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                1 => fields.topic = TopicId::from_raw(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                2 => fields.epoch = Epoch::new(epoch + 1 + n),
                // Above the floor, so that each is held beyond a gap of its own, or too far ahead.
                _ => fields.sequence = Sequence::new(n / 4 * 3 + 40),
            }
            let frame = forger.unsigned(&fields, Sample::new(n).as_bytes());
            let source = if n % 8 == 0 { address(99) } else { address(2) };
            // A full queue loses frames as a socket does; the test wants all of them judged.
            while !network.inject(source, address(1), &frame) {
                std::thread::yield_now();
            }
            injected += 1;
            while let Some(next) = notes.next() {
                gaps += u64::from(matches!(next, Delivery::Gap { .. }));
            }
        }
        (injected, gaps)
    };
    // Whatever is allocated once, such as a log's first lines, is there after the first part.
    let warm = flood(0, FORGED / 10);
    let before = resident();
    let (injected, gaps) = flood(FORGED / 10, FORGED);
    until("all of them were judged", || {
        (counter(&robot, "receive.frames") >= warm.0 + injected).then_some(())
    });
    let growth = resident() - before;
    println!("{} forged frames, {} gaps: {growth} bytes more", warm.0 + injected, warm.1 + gaps);
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    // The flood went where it should.
    for reason in ["verify.drop.future_epoch", "verify.drop.unknown_topic"] {
        assert!(counter(&robot, &format!("{reason}@controller")) > FORGED / 10, "{reason}");
    }
    assert!(counter(&robot, "receive.drop.unknown_key@stranger") > FORGED / 10);
    assert!(!robot.is_broken());
    robot.stop().unwrap();
}
