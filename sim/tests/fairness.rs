//! Nobody pays for another's weakness: of ten readers of one stream, one that is dead and one that is slow
//! cost the other eight nothing; a peer that sends ten times its contract costs the others no message.
//!
//! Whole nodes in virtual time over a network that only takes time, so the figures repeat exactly.

mod net;

use net::{Net, Number, START, Way, address, builder, identity, start};
use sinew_io::message::Message;
use sinew_io::node::{
    Delivery, NodeBuilder, PeerConfig, Publisher, Queued, StreamReader, TopicClass, TopicConfig,
};
use sinew_io::security::AdmissionLimits;
use sinew_rt::clock::Nanos;
use sinew_rt::ring::Consumer;

const PERIOD: Nanos = Nanos::from_millis(1);

/// A network that takes 300 µs for everything.
fn calm() -> Way {
    Box::new(|_, _, _, _| vec![Nanos::from_micros(300)])
}

const READERS: u8 = 10;
const DEAD: u8 = 9;
const SLOW: u8 = 10;
/// The other eight.
const WELL: std::ops::RangeInclusive<u8> = 1..=8;

/// The p99, in ns, of the latency of the eight from publishing to reading.
fn p99_of_the_others(weak: bool) -> i64 {
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
    let mut net = Net::new(nodes, calm());
    net.until(START + Nanos::from_secs(1));
    let begin = net.now;
    let (mut due, mut number, mut latencies) = (begin, 0_u64, Vec::new());
    let mut next_of_the_slow = begin;
    while net.now < begin + Nanos::from_secs(10) {
        if weak && net.now - begin > Nanos::from_secs(2) {
            net.nodes[usize::from(DEAD)] = None;
        }
        // What was due while publishing would have blocked keeps its date, so waiting counts.
        while due <= net.now && publisher.publish_at(&Number::new(number), due).is_ok() {
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
    const SENDERS: u8 = 3;
    let topics: Vec<_> = (1..=SENDERS)
        .map(|n| TopicConfig::new(format!("state-{n}"), Number::NAME, TopicClass::Queue))
        .collect();
    let mut sink = NodeBuilder::new("node-0").cluster("virtual").loops(0).identity(identity(0));
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
    let mut net = Net::new(nodes, calm());
    net.until(START + Nanos::from_secs(1));
    let begin = net.now;
    let rates = [loud_hz, 200, 200];
    let (mut sent, mut arrived) = ([0_u64; 3], [0_u64; 3]);
    while net.now < begin + Nanos::from_secs(10) {
        for n in 0..3 {
            let due = (net.now - begin).as_unsigned() * rates[n] / 1_000_000_000;
            while sent[n] < due && publishers[n].publish_at(&Number::new(sent[n]), net.now).is_ok()
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
