//! Topics that promise more than best effort, between whole nodes: order, back-pressure, outcomes, lives,
//! disagreement about a class, deadlines and the emergency stop.

mod support;

use sinew::io::message::Message;
use sinew::io::node::{
    AllWell, CommandReader, Delivery, EStop, GapCause, Layout, Node, NodeBuilder, Outcome,
    PeerConfig, Publisher, Received, Reliability, StreamReader, TopicClass, TopicConfig,
    TopicEvent,
};
use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::lane::Stage;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use support::arena::{ROBOT, UNLIMITED};
use support::forge::identity;
use support::{Pair, Sample, counter, fresh_address, until};

const LAYOUTS: [Layout; 3] = [Layout::Fused, Layout::Split, Layout::Pipelined];

/// Long enough that a machine that stands still for a second changes nothing.
fn patient() -> Reliability {
    Reliability {
        linger: Nanos::from_secs(15),
        gap_timeout: Nanos::from_secs(15),
        ..Reliability::default()
    }
}

fn topic(name: &str, class: TopicClass) -> TopicConfig {
    TopicConfig { reliability: patient(), ..TopicConfig::new(name, Sample::NAME, class) }
}

fn command(lifespan: Nanos) -> TopicConfig {
    TopicConfig { lifespan: Some(lifespan), ..topic("setpoint", TopicClass::Command) }
}

/// A robot and a controller whose topics are declared alike at both ends.
fn builders(test: &str, layout: Layout, topics: &[TopicConfig]) -> (NodeBuilder, NodeBuilder) {
    let (mut robot, mut controller) = Pair::on_loopback().builders(test);
    for topic in topics {
        robot = robot.topic(topic.clone());
        controller = controller.topic(topic.clone());
    }
    let node = |node: NodeBuilder| node.layout(layout).admission(UNLIMITED);
    (node(robot), node(controller))
}

/// The next message, past the notice that the sender's life begins.
fn message<T: Copy>(reader: &mut StreamReader<T>) -> Received<T> {
    until("a message comes", || {
        loop {
            match reader.next()? {
                Delivery::Message(message) => return Some(message),
                Delivery::Started { .. } => {}
                Delivery::Gap { first, last, cause, .. } => {
                    panic!("a gap {first:?}–{last:?}: {cause:?}")
                }
            }
        }
    })
}

fn command_of<T: Copy>(reader: &mut CommandReader<T>) -> Received<T> {
    until("a command comes", || {
        loop {
            match reader.next(clock::now())? {
                Delivery::Message(message) => return Some(message),
                Delivery::Started { .. } => {}
                Delivery::Gap { first, last, cause, .. } => {
                    panic!("a gap {first:?}–{last:?}: {cause:?}")
                }
            }
        }
    })
}

fn publish(publisher: &mut Publisher<Sample>, number: u64) {
    until("there is room to publish", || publisher.publish(&Sample::new(number)).ok());
}

/// Publishes until the other end reads: what is said before a reader is known may begin its stream.
fn wait_for_reader(node: &Node, topic: &str) {
    until("the reader is known", || {
        let readers = node.panel().snapshot().unwrap().gauge(&format!("readers/{topic}"));
        (readers == Some(1)).then_some(())
    });
}

#[test]
fn a_stream_arrives_whole_and_in_order_in_every_layout() {
    const MESSAGES: u64 = 3_000;
    for layout in LAYOUTS {
        let (mut robot, mut controller) =
            builders("stream", layout, &[topic("state", TopicClass::Stream)]);
        let mut publisher = robot.publisher::<Sample>("state").unwrap();
        let mut reader = controller.stream::<Sample>("state", 128).unwrap();
        let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
        wait_for_reader(&robot, "state");
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=MESSAGES).for_each(|number| publish(&mut publisher, number)));
            for number in 1..=MESSAGES {
                let got = message(&mut reader);
                assert_eq!(got.value, Sample::new(number), "{layout}");
                assert_eq!(got.sequence.get(), number, "{layout}");
            }
        });
        assert_eq!(counter(&controller, "delivered/state"), MESSAGES);
        assert_eq!(counter(&controller, "missing/state"), 0);
        robot.stop().unwrap();
        controller.stop().unwrap();
    }
}

#[test]
fn a_subscriber_that_does_not_read_holds_the_publisher_back_and_nothing_is_lost() {
    let (mut robot, mut controller) =
        builders("slow", Layout::Fused, &[topic("state", TopicClass::Stream)]);
    let mut publisher = robot.publisher::<Sample>("state").unwrap();
    let mut reader = controller.stream::<Sample>("state", 16).unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    wait_for_reader(&robot, "state");
    // The subscriber's queue, what its reader holds, what the sender keeps and its ring: all of
    // that fits, and no more.
    let mut sent = 0;
    let blocked =
        until("publishing would block", || match publisher.publish(&Sample::new(sent + 1)) {
            Ok(()) => {
                sent += 1;
                None
            }
            Err(full) => Some(full),
        });
    assert!(blocked.to_string().contains("was not sent"));
    assert!(sent < 1_000, "{sent} messages fitted somewhere");
    for number in 1..=sent {
        assert_eq!(message(&mut reader).value.number, number);
    }
    publish(&mut publisher, sent + 1);
    assert_eq!(message(&mut reader).value.number, sent + 1);
    robot.stop().unwrap();
    controller.stop().unwrap();
}

/// Publishes a signed message in each pass of the lane that sends, for a while: less than the kernel's
/// throttling allows a real-time thread.
struct Busy {
    publisher: Publisher<Sample>,
    until: Arc<AtomicI64>,
}

impl Stage for Busy {
    fn poll(&mut self, now: Nanos) -> Execution {
        if now.as_nanos() >= self.until.load(Ordering::Relaxed) {
            return Execution::Idle;
        }
        let _ = self.publisher.publish(&Sample::new(0));
        Execution::Worked { released: now }
    }
}

#[test]
fn a_node_that_signs_without_a_pause_still_acknowledges() {
    let topics = [topic("state", TopicClass::Stream), topic("setpoint", TopicClass::Control)];
    let (mut robot, mut controller) = builders("busy", Layout::Fused, &topics);
    let mut publisher = robot.publisher::<Sample>("state").unwrap();
    let mut reader = controller.stream::<Sample>("state", 1_024).unwrap();
    // Nobody subscribes to what keeps the controller busy, so that it keeps only the controller busy.
    let until = Arc::new(AtomicI64::new(0));
    let busy = Busy { publisher: controller.publisher("setpoint").unwrap(), until: until.clone() };
    let guard = GuardSpec {
        budget: Nanos::from_secs(1),
        hard_limit: Nanos::from_secs(10),
        ladder: LadderConfig::report_only(),
    };
    controller.stage("busy", guard, Box::new(busy));
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    wait_for_reader(&robot, "state");
    let end = clock::now() + Nanos::from_millis(500);
    until.store(end.as_nanos(), Ordering::Relaxed);
    let (mut number, mut came) = (0, 0);
    // One that is published wakes the lane.
    while clock::now() < end {
        if publisher.publish(&Sample::new(number)).is_ok() {
            number += 1;
        }
        while let Some(next) = reader.next() {
            came += u64::from(matches!(next, Delivery::Message(_)));
        }
    }
    // Without acknowledgements no more leaves than a reader can hold.
    assert!(came > 200, "only {came} of {number} came while the node was busy");
    robot.stop().unwrap();
    controller.stop().unwrap();
}

#[test]
fn every_command_has_one_outcome() {
    const COMMANDS: u64 = 200;
    let (robot, controller) = builders("outcome", Layout::Fused, &[command(Nanos::from_secs(15))]);
    let (mut robot, mut controller) = (robot, controller);
    let mut commands = robot.commands::<Sample>("setpoint", 64).unwrap();
    let mut publisher = controller.command_publisher::<Sample>("setpoint").unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    wait_for_reader(&controller, "setpoint");
    let mut outcomes = BTreeMap::new();
    for number in 1..=COMMANDS {
        let sequence = until("there is room", || publisher.send(&Sample::new(number)).ok());
        assert_eq!(sequence.get(), number);
        let got = command_of(&mut commands);
        assert_eq!((got.sequence, got.value.number), (sequence, number));
        match number % 3 {
            0 => commands.reject(&got, 7).unwrap(),
            _ => commands.accept(&got).unwrap(),
        }
        while let Some((sequence, outcome)) = publisher.outcome() {
            assert_eq!(outcomes.insert(sequence.get(), outcome), None, "{sequence:?} twice");
        }
    }
    until("every outcome is known", || {
        while let Some((sequence, outcome)) = publisher.outcome() {
            assert_eq!(outcomes.insert(sequence.get(), outcome), None, "{sequence:?} twice");
        }
        (outcomes.len() as u64 == COMMANDS).then_some(())
    });
    for (number, outcome) in outcomes {
        let expected = if number % 3 == 0 { Outcome::Rejected(7) } else { Outcome::Accepted };
        assert_eq!(outcome, expected, "{number}");
    }
    robot.stop().unwrap();
    controller.stop().unwrap();
}

#[test]
fn a_command_that_waited_beyond_its_lifespan_is_not_given_and_its_sender_hears_so() {
    let lifespan = Nanos::from_millis(300);
    let (mut robot, mut controller) = builders("expired", Layout::Fused, &[command(lifespan)]);
    let mut commands = robot.commands::<Sample>("setpoint", 8).unwrap();
    let mut publisher = controller.command_publisher::<Sample>("setpoint").unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    wait_for_reader(&controller, "setpoint");
    let sequence = publisher.send(&Sample::new(1)).unwrap();
    until("it is delivered", || (counter(&robot, "delivered/setpoint") == 1).then_some(()));
    clock::sleep_until(clock::now() + lifespan);
    let gap = until("the reader speaks of it", || {
        commands.next(clock::now()).filter(|next| !matches!(next, Delivery::Started { .. }))
    });
    assert!(
        matches!(gap, Delivery::Gap { first, last, cause: GapCause::Expired, .. }
            if first == sequence && last == sequence),
        "{gap:?}"
    );
    let outcome = until("the outcome is known", || publisher.outcome());
    assert_eq!(outcome, (sequence, Outcome::Expired));
    robot.stop().unwrap();
    controller.stop().unwrap();
}

#[test]
fn a_command_without_a_receiver_is_unknown_in_time() {
    let (mut robot, mut controller) = builders(
        "unknown",
        Layout::Fused,
        &[TopicConfig {
            reliability: Reliability { linger: Nanos::from_millis(50), ..Reliability::default() },
            ..command(Nanos::from_millis(50))
        }],
    );
    let commands = robot.commands::<Sample>("setpoint", 8).unwrap();
    let mut publisher = controller.command_publisher::<Sample>("setpoint").unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    wait_for_reader(&controller, "setpoint");
    robot.stop().unwrap();
    let sequence = publisher.send(&Sample::new(1)).unwrap();
    let outcome = until("the sender gives up", || publisher.outcome());
    assert_eq!(outcome, (sequence, Outcome::Unknown));
    drop(commands);
    controller.stop().unwrap();
}

#[test]
fn two_ends_that_disagree_about_the_class_both_say_so() {
    let (robot, controller) = Pair::on_loopback().builders("class");
    let (to, lines) = mpsc::channel();
    let mut robot = robot
        .topic(topic("state", TopicClass::Stream))
        .log(move |line| to.send(line.to_string()).unwrap_or_default());
    let mut controller = controller.topic(TopicConfig {
        lifespan: Some(Nanos::from_secs(1)),
        ..topic("state", TopicClass::Command)
    });
    let mut publisher = robot.publisher::<Sample>("state").unwrap();
    let reader = controller.commands::<Sample>("state", 8).unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    publish(&mut publisher, 1);
    until("the publisher refuses the reader", || {
        (counter(&robot, "mismatches/state") > 0).then_some(())
    });
    let said =
        until("the log names both", || lines.try_iter().find(|line| line.contains("reads state")));
    assert!(said.contains("controller reads state as class command, but here it is class stream"));
    assert_eq!(counter(&controller, "delivered/state"), 0);
    drop(reader);
    robot.stop().unwrap();
    controller.stop().unwrap();
}

#[test]
fn a_missed_deadline_is_an_event_and_so_are_its_end_and_a_publisher_s_silence() {
    let deadline = Nanos::from_millis(200);
    let with_deadline =
        TopicConfig { deadline: Some(deadline), ..topic("state", TopicClass::Control) };
    let (mut robot, mut controller) = builders("deadline", Layout::Fused, &[with_deadline]);
    let mut publisher = robot.publisher::<Sample>("state").unwrap();
    let reader = controller.latest::<Sample>("state").unwrap();
    let mut events = controller.events("state").unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    let key = *robot.public_key();
    let mut alive = 0;
    // The Hello of the publisher comes somewhere between.
    let mut of_deadlines = |event: TopicEvent| match event {
        TopicEvent::Alive { from } => {
            assert_eq!(from, key.id());
            alive += 1;
            None
        }
        event => Some(event),
    };
    let missed = until("the deadline is missed", || events.pop().and_then(&mut of_deadlines));
    assert!(matches!(missed, TopicEvent::DeadlineMissed { .. }), "{missed:?}");
    let recovered = until("messages come", || {
        publish(&mut publisher, 1);
        events.pop().and_then(&mut of_deadlines)
    });
    assert!(
        matches!(recovered, TopicEvent::Recovered { after } if after > deadline),
        "{recovered:?}"
    );
    assert_eq!(counter(&controller, "missed/state"), 1);
    robot.stop().unwrap();
    let silent = until("its silence is noticed", || {
        events.pop().filter(|event| !matches!(event, TopicEvent::DeadlineMissed { .. }))
    });
    assert_eq!((silent, alive), (TopicEvent::Silent { from: key.id() }, 1));
    drop(reader);
    controller.stop().unwrap();
}

#[test]
fn the_silence_of_its_guardian_stops_the_robot() {
    let deadline = Nanos::from_millis(500);
    let stop = TopicConfig {
        deadline: Some(deadline),
        ..TopicConfig::new("setpoint", AllWell::NAME, TopicClass::EStop)
    };
    let (mut robot, mut controller) = builders("estop", Layout::Fused, &[stop]);
    let mut guardian = controller.publisher::<AllWell>("setpoint").unwrap();
    let mut stop = robot.estop("setpoint", deadline).unwrap();
    let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
    assert_eq!(stop.check(clock::now()), EStop::Stop, "before the first word");
    until("all is well", || {
        let _ = guardian.publish(&AllWell::default());
        stop.rearm(clock::now()).then_some(())
    });
    controller.stop().unwrap();
    until("silence stops it", || (stop.check(clock::now()) == EStop::Stop).then_some(()));
    robot.stop().unwrap();
}

#[test]
fn a_sender_that_starts_anew_begins_a_new_life_of_its_stream() {
    let directory = tempfile::tempdir().unwrap();
    let Pair { controller, .. } = Pair::on_loopback();
    let robot_identity = || identity(ROBOT);
    let robot_address = fresh_address();
    let peer = |name: &str, did: String, address, publishes: &[&str]| PeerConfig {
        name: name.to_owned(),
        identity: did,
        address,
        publishes: publishes.iter().map(|topic| (*topic).to_owned()).collect(),
    };
    let mut receiver = Node::builder(format!("life-controller-{}", std::process::id()))
        .development()
        .cluster("test")
        .peer(peer("robot", robot_identity().public().to_did(), robot_address, &["state"]))
        .topic(topic("state", TopicClass::Stream));
    let controller_did = controller.identity.public().to_did();
    receiver = receiver.identity(controller.identity).udp(controller.address);
    let mut reader = receiver.stream::<Sample>("state", 128).unwrap();
    let receiver = receiver.start().unwrap();
    let mut epochs = Vec::new();
    for life in 0..2 {
        let mut sender = Node::builder(format!("life-robot-{}", std::process::id()))
            .development()
            .cluster("test")
            .identity(robot_identity())
            .state_dir(directory.path().join("state"))
            .udp(robot_address)
            .peer(peer("controller", controller_did.clone(), controller.address, &[]))
            .topic(topic("state", TopicClass::Stream));
        let mut publisher = sender.publisher::<Sample>("state").unwrap();
        let sender = sender.start().unwrap();
        wait_for_reader(&sender, "state");
        for number in 1..=10 {
            publish(&mut publisher, life * 100 + number);
        }
        let epoch = until("the life begins", || match reader.next()? {
            Delivery::Started { epoch, first, .. } => {
                assert_eq!(first.get(), 1);
                Some(epoch)
            }
            other => panic!("{other:?} before the life began"),
        });
        for number in 1..=10 {
            let got = message(&mut reader);
            assert_eq!((got.epoch, got.value.number), (epoch, life * 100 + number));
        }
        epochs.push(epoch);
        sender.stop().unwrap();
    }
    assert!(epochs[0] < epochs[1], "{epochs:?}");
    receiver.stop().unwrap();
}
