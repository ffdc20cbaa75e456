//! A kilohertz of reliable messages through a bad wireless link: every fifth datagram is lost both ways, every
//! tenth comes twice, and a quarter is held back for up to 20 ms while others overtake it.
//!
//! Whole nodes in virtual time, so the figures repeat exactly. The same over real sockets is in `relay.rs`.

mod net;

use net::{Net, Number, START, Way, builder, start};
use sinew_io::message::Message;
use sinew_io::node::{Delivery, Outcome, Reliability, TopicClass, TopicConfig};
use sinew_io::wire::{Class, Frame, decode};
use sinew_rt::clock::Nanos;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const PERIOD: Nanos = Nanos::from_millis(1);
/// What the link takes for what it does not hold back, one way.
const WAY: Nanos = Nanos::from_millis(1);
const HELD_BACK_MAX_US: u64 = 20_000;
const LOSS_PERCENT: u64 = 20;
const TWICE_PERCENT: u64 = 10;
const HELD_BACK_PERCENT: u64 = 25;
/// Of what is held back, and of what is not: 1 ms and a quarter of 10 ms, there and back.
const ROUND_TRIP: Nanos = Nanos::from_micros(7_000);
const REORDER: Nanos = Nanos::from_millis(20);

/// What the link did to the messages themselves.
#[derive(Default)]
struct Seen {
    /// By number, how often it was sent.
    sent: BTreeMap<u64, u64>,
    /// Messages whose first sending was lost.
    lost_at_first: BTreeSet<u64>,
    bytes_lost: u64,
    bytes_again: u64,
}

fn bad_link(seed: u64, seen: Rc<RefCell<Seen>>) -> Way {
    // xorshift64* (Vigna, 2016).
    let mut state = seed;
    let mut draw = move |below: u64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    };
    Box::new(move |_, _, bytes, _| {
        let lost = draw(100) < LOSS_PERCENT;
        if let Ok(Frame::Clear(envelope)) = decode(bytes)
            && matches!(envelope.header.class(), Some(Class::Command | Class::Stream))
        {
            let mut seen = seen.borrow_mut();
            let number = envelope.header.sequence().get();
            let times = seen.sent.entry(number).or_default();
            *times += 1;
            let (first, len) = (*times == 1, bytes.len() as u64);
            seen.bytes_again += if first { 0 } else { len };
            seen.bytes_lost += if lost { len } else { 0 };
            if first && lost {
                seen.lost_at_first.insert(number);
            }
        }
        if lost {
            return Vec::new();
        }
        let copies = if draw(100) < TWICE_PERCENT { 2 } else { 1 };
        (0..copies)
            .map(|_| match draw(100) < HELD_BACK_PERCENT {
                true => WAY + Nanos::from_micros(draw(HELD_BACK_MAX_US).cast_signed()),
                false => WAY,
            })
            .collect()
    })
}

fn through_the_bad_link(class: TopicClass, seed: u64) {
    const SECONDS: i64 = 10;
    let topic = TopicConfig {
        lifespan: (class == TopicClass::Command).then_some(Nanos::from_secs(5)),
        reliability: Reliability {
            capacity: 1_024,
            linger: Nanos::from_secs(2),
            gap_timeout: Nanos::from_secs(2),
            reorder: REORDER,
            ..Reliability::default()
        },
        ..TopicConfig::new("state", Number::NAME, class)
    };
    let (mut sender, mut receiver) = (builder(0, [1], &topic), builder(1, [0], &topic));
    let command = class == TopicClass::Command;
    let mut commander = command.then(|| sender.command_publisher::<Number>("state").unwrap());
    let mut publisher = (!command).then(|| sender.publisher::<Number>("state").unwrap());
    let mut commands = command.then(|| receiver.commands::<Number>("state", 256).unwrap());
    let mut stream = (!command).then(|| receiver.stream::<Number>("state", 256).unwrap());
    let seen = Rc::<RefCell<Seen>>::default();
    let nodes = vec![start(0, sender), start(1, receiver)];
    let mut net = Net::new(nodes, bad_link(seed, seen.clone()));
    net.until(START + Nanos::from_secs(3));

    let begin = net.now;
    let (mut due, mut sent, mut held_up) = (begin, 0_u64, 0_u64);
    let (mut next, mut recoveries, mut accepted) = (1, Vec::new(), 0);
    while net.now < begin + Nanos::from_secs(SECONDS + 3) {
        while due <= net.now && due < begin + Nanos::from_secs(SECONDS) {
            let number = Number::new(sent + 1);
            let taken = match (&mut commander, &mut publisher) {
                (Some(commander), _) => commander.send_at(&number, due).is_ok(),
                (_, Some(publisher)) => publisher.publish_at(&number, due).is_ok(),
                _ => false,
            };
            if !taken {
                held_up += 1;
                break;
            }
            sent += 1;
            due += PERIOD;
        }
        net.step();
        loop {
            let delivery = match (&mut commands, &mut stream) {
                (Some(commands), _) => commands.next(net.now),
                (_, Some(stream)) => stream.next(),
                _ => None,
            };
            match delivery {
                None => break,
                Some(Delivery::Started { .. }) => {}
                Some(Delivery::Gap { first, last, .. }) => panic!("a gap {first:?} to {last:?}"),
                Some(Delivery::Message(message)) => {
                    assert_eq!(message.value.number.get(), next, "out of order");
                    next += 1;
                    if seen.borrow().lost_at_first.contains(&message.sequence.get()) {
                        recoveries.push((net.now - message.sent_at).as_nanos());
                    }
                    if let Some(commands) = &mut commands {
                        commands.accept(&message).unwrap();
                    }
                }
            }
        }
        while let Some((_, outcome)) = commander.as_mut().and_then(|it| it.outcome()) {
            assert_eq!(outcome, Outcome::Accepted);
            accepted += 1;
        }
    }
    assert_eq!(next - 1, sent, "not all of them came");
    assert!(!command || accepted == sent, "{accepted} outcomes of {sent}");
    recoveries.sort_unstable();
    let p99 = Nanos::new(recoveries[recoveries.len() * 99 / 100]);
    let limit = ROUND_TRIP * 5 + REORDER;
    let seen = seen.borrow();
    let again = seen.bytes_again as f64 / seen.bytes_lost as f64;
    println!(
        "{class:?}, seed {seed}: {sent} sent in {SECONDS} s, {} lost at first; recovery p99 {p99} (limit {limit}); \
         sent again {again:.2} bytes for each byte lost (limit 1.6); publishing would have blocked {held_up} times",
        seen.lost_at_first.len(),
    );
    assert!(sent as i64 == SECONDS * 1_000, "only {sent}");
    assert!(p99 <= limit, "{p99}");
    assert!(again <= 1.6, "{again}");
}

#[test]
fn a_kilohertz_of_commands_arrives_whole_in_order_and_soon() {
    (1..=3).for_each(|seed| through_the_bad_link(TopicClass::Command, seed));
}

#[test]
fn a_kilohertz_stream_arrives_whole_in_order_and_soon() {
    (1..=3).for_each(|seed| through_the_bad_link(TopicClass::Stream, seed));
}
