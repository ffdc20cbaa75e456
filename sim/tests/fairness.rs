//! Nobody pays for another's weakness: of ten readers of one stream, one that is dead and one that is slow
//! cost the other eight nothing; a peer that sends ten times its contract costs the others no message.
//!
//! Whole nodes in virtual time over a network that only takes time, so the figures repeat exactly.

use sinew_io::message::Message;
use sinew_io::node::{
    Delivery, NodeBuilder, PeerConfig, Publisher, Queued, StreamReader, TopicClass, TopicConfig,
};
use sinew_io::security::{AdmissionLimits, Identity};
use sinew_io::simulation::{SimLife, SimNode, cheap_signatures};
use sinew_io::wire::{BootId, Epoch, LifeId};
use sinew_rt::clock::Nanos;
use sinew_rt::ring::Consumer;
use std::collections::VecDeque;
use std::net::SocketAddr;

type Word = zerocopy::little_endian::U64;

/// A number.
#[derive(
    Clone,
    Copy,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
struct Number(Word);

impl Message for Number {
    const NAME: &'static str = "Number@1";
}

const START: Nanos = Nanos::from_secs(100);
/// How finely time passes.
const STEP: Nanos = Nanos::from_micros(20);
/// From one node to another.
const WAY: Nanos = Nanos::from_micros(300);
const PERIOD: Nanos = Nanos::from_millis(1);

fn identity(node: u8) -> Identity {
    Identity::draw(&mut |secret| secret.fill(40 + node)).unwrap()
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 7_400))
}

fn builder(node: u8, peers: impl IntoIterator<Item = u8>, topic: &TopicConfig) -> NodeBuilder {
    let mut builder = NodeBuilder::new(format!("node-{node}"))
        .cluster("fairness")
        .loops(0)
        .identity(identity(node))
        .topic(topic.clone());
    for peer in peers {
        builder = builder.peer(PeerConfig {
            name: format!("node-{peer}"),
            identity: identity(peer).public().to_did(),
            address: address(peer),
            publishes: vec![topic.name.clone()],
        });
    }
    builder
}

fn start(node: u8, builder: NodeBuilder) -> SimNode {
    let life = SimLife {
        epoch: Epoch::new(1),
        life: LifeId([node; 16]),
        boot: BootId([9; 16]),
        seed: node.into(),
    };
    SimNode::start(builder, life, address(node), START).unwrap()
}

/// Nodes by number, `None` where one is dead, and datagrams on their way, in order of arrival.
struct Net {
    nodes: Vec<Option<SimNode>>,
    on_the_way: VecDeque<(Nanos, u8, u8, Vec<u8>)>,
    now: Nanos,
}

impl Net {
    fn new(nodes: Vec<SimNode>) -> Self {
        let nodes = nodes.into_iter().map(Some).collect();
        Self { nodes, on_the_way: VecDeque::new(), now: START }
    }

    /// Lets time pass by one step.
    fn step(&mut self) {
        self.now += STEP;
        while self.on_the_way.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, from, to, bytes)) = self.on_the_way.pop_front() else { break };
            if let Some(Some(node)) = self.nodes.get_mut(usize::from(to)) {
                node.receive(address(from), &bytes);
            }
        }
        for (from, node) in (0..).zip(&mut self.nodes) {
            let Some(node) = node else { continue };
            if node.has_datagrams() || node.next_deadline().is_some_and(|at| at <= self.now) {
                while node.poll(self.now) {}
            } else {
                node.poll(self.now);
            }
            while let Some((to, bytes)) = node.sent() {
                let SocketAddr::V4(to) = to else { continue };
                let to = to.ip().octets()[3];
                self.on_the_way.push_back((self.now + WAY, from, to, bytes));
            }
        }
    }
}

const READERS: u8 = 10;
const DEAD: u8 = 9;
const SLOW: u8 = 10;
/// The other eight.
const WELL: std::ops::RangeInclusive<u8> = 1..=8;

/// The p99, in ns, of the latency of the eight from publishing to reading.
fn p99_of_the_others(weak: bool) -> i64 {
    cheap_signatures(true);
    let topic = TopicConfig::new("state", Number::NAME, TopicClass::Stream);
    let mut source = builder(0, 1..=READERS, &topic);
    let mut publisher: Publisher<Number> = source.publisher("state").unwrap();
    let mut nodes = vec![start(0, source)];
    let mut readers: Vec<StreamReader<Number>> = Vec::new();
    for node in 1..=READERS {
        let mut builder = builder(node, [0], &topic);
        readers.push(builder.stream("state", 256).unwrap());
        nodes.push(start(node, builder));
    }
    let mut net = Net::new(nodes);
    while net.now < START + Nanos::from_secs(1) {
        net.step();
    }
    let begin = net.now;
    let (mut due, mut number, mut latencies) = (begin, 0_u64, Vec::new());
    let mut next_of_the_slow = begin;
    while net.now < begin + Nanos::from_secs(10) {
        if weak && net.now - begin > Nanos::from_secs(2) {
            net.nodes[usize::from(DEAD)] = None;
        }
        // What was due while publishing would have blocked keeps its date, so waiting counts.
        while due <= net.now && publisher.publish_at(&Number(Word::new(number)), due).is_ok() {
            number += 1;
            due += PERIOD;
        }
        net.step();
        for node in 1..=READERS {
            let reader = &mut readers[usize::from(node) - 1];
            if weak && node == SLOW {
                // A tenth of what comes.
                if net.now >= next_of_the_slow {
                    next_of_the_slow += PERIOD * 10;
                    reader.next();
                }
                continue;
            }
            while let Some(next) = reader.next() {
                match next {
                    Delivery::Message(message) if WELL.contains(&node) => {
                        latencies.push((net.now - message.sent_at).as_nanos());
                    }
                    Delivery::Gap { first, .. } if WELL.contains(&node) => {
                        panic!("{node}: a gap at {first:?}")
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(latencies.len() > 8 * 9_900, "only {} arrived", latencies.len());
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

#[test]
fn a_dead_and_a_slow_reader_cost_the_other_eight_nothing() {
    let (quiet, weak) = (p99_of_the_others(false), p99_of_the_others(true));
    let ratio = weak as f64 / quiet as f64;
    println!(
        "p99 of eight readers: {quiet} ns, beside a dead and a slow one {weak} ns, ratio {ratio:.3}"
    );
    assert!(ratio <= 1.15, "{ratio}");
}

/// What arrives of the streams of two peers at 200 Hz each while a third sends so many a second.
fn of_the_others(loud_hz: u64) -> (u64, u64) {
    cheap_signatures(true);
    const SENDERS: u8 = 3;
    let topics: Vec<_> = (1..=SENDERS)
        .map(|n| TopicConfig::new(format!("state-{n}"), Number::NAME, TopicClass::Queue))
        .collect();
    let mut sink = NodeBuilder::new("node-0").cluster("fairness").loops(0).identity(identity(0));
    // The contract: so many signature checks a second.
    sink =
        sink.admission(AdmissionLimits { peer_per_s: 400, peer_burst: 40, ..Default::default() });
    for (n, topic) in (1..).zip(&topics) {
        sink = sink.topic(topic.clone()).peer(PeerConfig {
            name: format!("node-{n}"),
            identity: identity(n).public().to_did(),
            address: address(n),
            publishes: vec![topic.name.clone()],
        });
    }
    let mut queues: Vec<Consumer<Queued<Number>>> =
        topics.iter().map(|topic| sink.queue(&topic.name, 256).unwrap()).collect();
    let mut nodes = vec![start(0, sink)];
    let mut publishers = Vec::new();
    for (n, topic) in (1..).zip(&topics) {
        let mut builder = builder(n, [0], topic);
        publishers.push(builder.publisher::<Number>(&topic.name).unwrap());
        nodes.push(start(n, builder));
    }
    let mut net = Net::new(nodes);
    while net.now < START + Nanos::from_secs(1) {
        net.step();
    }
    let begin = net.now;
    let rates = [loud_hz, 200, 200];
    let (mut sent, mut arrived) = ([0_u64; 3], [0_u64; 3]);
    while net.now < begin + Nanos::from_secs(10) {
        for n in 0..3 {
            let due = (net.now - begin).as_unsigned() * rates[n] / 1_000_000_000;
            while sent[n] < due
                && publishers[n].publish_at(&Number(Word::new(sent[n])), net.now).is_ok()
            {
                sent[n] += 1;
            }
        }
        net.step();
        for (queue, arrived) in queues.iter_mut().zip(&mut arrived) {
            while queue.pop().is_some() {
                *arrived += 1;
            }
        }
    }
    // What is still on its way.
    for _ in 0..100 {
        net.step();
    }
    for (queue, arrived) in queues.iter_mut().zip(&mut arrived) {
        while queue.pop().is_some() {
            *arrived += 1;
        }
    }
    println!("of {sent:?} sent arrived {arrived:?}");
    (sent[1] + sent[2], arrived[1] + arrived[2])
}

#[test]
fn a_peer_that_sends_ten_times_its_contract_costs_the_others_no_message() {
    let (sent, arrived) = of_the_others(200);
    assert_eq!(sent, arrived);
    let (sent, arrived) = of_the_others(4_000);
    assert_eq!(sent, arrived, "beside a peer at ten times its contract");
}
