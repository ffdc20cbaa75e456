//! A program that hangs: what becomes of the commands and messages that are meant for it, and what comes when
//! it reads again.
//!
//! Whole nodes in virtual time over a network that only takes time, so that each run repeats exactly.

mod net;

use net::{Net, Number, START, Way, builder, start};
use sinew_io::message::Message;
use sinew_io::node::{
    CommandPublisher, Delivery, NodeBuilder, Outcome, Reliability, TopicClass, TopicConfig,
};
use sinew_io::wire::{Class, Frame, decode};
use sinew_rt::clock::Nanos;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const PERIOD: Nanos = Nanos::from_millis(5);
const WAY: Nanos = Nanos::from_micros(300);
/// Deliveries that the program may leave unread.
const QUEUE: usize = 16;

/// A sender and a receiver of one reliable topic, and the numbers of its messages that were sent.
fn pair(topic: &TopicConfig) -> (NodeBuilder, NodeBuilder, Way, Rc<RefCell<Vec<u64>>>) {
    let sent = Rc::<RefCell<Vec<u64>>>::default();
    let seen = sent.clone();
    let way: Way = Box::new(move |_, _, bytes, _| {
        if let Ok(Frame::Clear(envelope)) = decode(bytes)
            && matches!(envelope.header.class(), Some(Class::Command | Class::Stream))
        {
            seen.borrow_mut().push(envelope.header.sequence().get());
        }
        vec![WAY]
    });
    (builder(0, [1], topic), builder(1, [0], topic), way, sent)
}

#[test]
fn while_a_program_hangs_its_commands_expire_unsent_and_the_first_after_it_comes_at_once() {
    const LIFESPAN: Nanos = Nanos::from_millis(60);
    let topic = TopicConfig {
        lifespan: Some(LIFESPAN),
        reliability: Reliability { linger: LIFESPAN, ..Reliability::default() },
        ..TopicConfig::new("setpoint", Number::NAME, TopicClass::Command)
    };
    let (mut sender, mut receiver, way, on_the_wire) = pair(&topic);
    let mut commander = sender.command_publisher::<Number>("setpoint").unwrap();
    let mut commands = receiver.commands::<Number>("setpoint", QUEUE).unwrap();
    let mut net = Net::new(vec![start(0, sender), start(1, receiver)], way);
    net.until(START + Nanos::from_secs(1));

    // One each period, for far longer than anything is kept.
    let (mut number, mut outcomes) = (0, Vec::new());
    let mut speak = |net: &mut Net| {
        number += 1;
        commander.send_at(&Number::new(number), net.now).expect("nothing holds it up for long");
        net.until(net.now + PERIOD);
        outcomes.extend(std::iter::from_fn(|| commander.outcome()));
        number
    };
    let hung: u64 = (0..400).map(|_| speak(&mut net)).last().unwrap();
    let sent = on_the_wire.borrow().iter().max().copied().unwrap();
    assert!((1..=QUEUE as u64).contains(&sent), "{sent} were sent, and there was room for {QUEUE}");
    // It reads again, at the period of the sender. What is new by then comes while it is new.
    let mut first = None;
    for _ in 0..40 {
        speak(&mut net);
        while let Some(next) = commands.next(net.now) {
            if let Delivery::Message(message) = next {
                first.get_or_insert((message.sequence.get(), net.now - message.sent_at));
                commands.accept(&message).unwrap();
            }
        }
    }
    let (first, age) = first.expect("commands come again");
    assert!(
        (hung - 12..=hung + 6).contains(&first) && age <= LIFESPAN,
        "{first} of {hung}, {age} old"
    );
    net.until(net.now + LIFESPAN * 3);
    outcomes.extend(std::iter::from_fn(|| commander.outcome()));
    assert_eq!(outcomes.len() as u64, number, "each has one");
    for (sequence, outcome) in outcomes {
        let wanted = match sequence.get() {
            of if of <= sent => Outcome::Unknown,
            of if of < first => Outcome::Expired,
            _ => Outcome::Accepted,
        };
        assert_eq!(outcome, wanted, "{sequence:?}");
    }
}

#[test]
fn what_a_stream_with_a_lifespan_could_not_send_in_time_is_in_a_few_gaps() {
    const LIFESPAN: Nanos = Nanos::from_millis(60);
    let topic = TopicConfig {
        lifespan: Some(LIFESPAN),
        ..TopicConfig::new("state", Number::NAME, TopicClass::Stream)
    };
    let (mut sender, mut receiver, way, on_the_wire) = pair(&topic);
    let mut publisher = sender.publisher::<Number>("state").unwrap();
    let mut stream = receiver.stream::<Number>("state", QUEUE).unwrap();
    let mut net = Net::new(vec![start(0, sender), start(1, receiver)], way);
    net.until(START + Nanos::from_secs(1));
    for number in 1..=400 {
        publisher.publish_at(&Number::new(number), net.now).expect("nothing holds it up for long");
        net.until(net.now + PERIOD);
    }
    let sent = on_the_wire.borrow().iter().max().copied().unwrap();
    assert!((1..=QUEUE as u64).contains(&sent), "{sent} were sent, and there was room for {QUEUE}");
    let (mut next, mut gaps) = (1, Vec::new());
    for number in 401..=500 {
        publisher.publish_at(&Number::new(number), net.now).unwrap();
        net.until(net.now + PERIOD);
        while let Some(delivery) = stream.next() {
            match delivery {
                Delivery::Started { .. } => {}
                Delivery::Message(message) => {
                    assert_eq!(message.sequence.get(), next, "in order");
                    next += 1;
                }
                Delivery::Gap { first, last, .. } => {
                    assert_eq!(first.get(), next, "in its place");
                    next = last.get() + 1;
                    gaps.push((first.get(), last.get()));
                }
            }
        }
    }
    let missing: u64 = gaps.iter().map(|(first, last)| last - first + 1).sum();
    assert!(next > 495 && (375..=400).contains(&missing) && gaps.len() <= 4, "{next} {gaps:?}");
}

#[test]
fn a_program_that_does_not_read_holds_the_sender_of_commands_back_until_they_expire() {
    const LIFESPAN: Nanos = Nanos::from_millis(500);
    const LINGER: Nanos = Nanos::from_millis(300);
    let topic = TopicConfig {
        lifespan: Some(LIFESPAN),
        reliability: Reliability { linger: LINGER, ..Reliability::default() },
        ..TopicConfig::new("setpoint", Number::NAME, TopicClass::Command)
    };
    let (mut sender, mut receiver, way, _) = pair(&topic);
    let mut commander = sender.command_publisher::<Number>("setpoint").unwrap();
    let mut commands = receiver.commands::<Number>("setpoint", QUEUE).unwrap();
    let mut net = Net::new(vec![start(0, sender), start(1, receiver)], way);
    net.until(START + Nanos::from_secs(1));

    let (mut sent, mut outcomes) = (0, BTreeMap::new());
    let mut hear = |commander: &mut CommandPublisher<Number>| {
        while let Some((sequence, outcome)) = commander.outcome() {
            assert_eq!(outcomes.insert(sequence.get(), outcome), None, "{sequence:?} twice");
        }
        outcomes.len() as u64
    };
    while commander.send_at(&Number::new(sent + 1), net.now).is_ok() {
        sent += 1;
        net.step();
    }
    assert!(sent < 2_000, "{sent} were taken");
    // Nobody reads for longer than any of them may wait, and all are decided nevertheless.
    net.until(net.now + LIFESPAN + LINGER + PERIOD);
    assert_eq!(hear(&mut commander), sent);
    let fresh = commander.send_at(&Number::new(sent + 1), net.now).expect("there is room again");
    for _ in 0..5_000 {
        net.step();
        if let Some(Delivery::Message(message)) = commands.next(net.now) {
            assert_eq!(message.sequence, fresh, "only what is not too old is given");
            commands.accept(&message).unwrap();
        }
        hear(&mut commander);
    }
    assert_eq!(outcomes.remove(&fresh.get()), Some(Outcome::Accepted));
    // What lay in the program's queue may have been carried out, for all that the sender knows.
    let unknown = outcomes.values().take_while(|outcome| **outcome == Outcome::Unknown).count();
    assert!((1..=QUEUE).contains(&unknown), "{unknown}");
    assert!(outcomes.into_values().skip(unknown).all(|outcome| outcome == Outcome::Expired));
}
