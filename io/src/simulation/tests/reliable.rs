//! Planted faults of reliable topics and of safe state, seen between two nodes on a network that loses
//! what the test says.

use super::*;
use crate::delivery::Outcome;
use crate::delivery::writer::{Writer, WriterSpec};
use crate::node::{
    AllWell, CommandPublisher, CommandReader, Delivery, EStopReader, Floor, Received, StreamReader,
    TopicEvent,
};
use crate::security::PeerIndex;
use crate::wire::report::Acknowledgement;
use std::collections::BTreeMap;

/// The node that publishes, and the one that reads.
const SENDER: usize = 0;
const READER: usize = 1;
const FLOW: &str = "flow";
const ORDERS: &str = "orders";
const GUARD: &str = "guard";
const WAY: Nanos = Nanos::from_micros(200);
const MS: Nanos = Nanos::from_millis(1);

type Big = [u8; 1_000];

impl crate::message::Message for Big {
    const NAME: &'static str = "Big@1";
}

/// What may happen to a data frame on its way.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Lost,
    /// Once, and again after 10 ms.
    Twice,
}

/// Both ends' handles.
struct Handles {
    flow: Option<Publisher<Big>>,
    orders: Option<CommandPublisher<Word>>,
    guard: Option<Publisher<AllWell>>,
    flow_in: Option<StreamReader<Big>>,
    orders_in: Option<CommandReader<Word>>,
    guard_in: Option<EStopReader>,
    events: Option<Consumer<TopicEvent>>,
}

struct Settings {
    capacity: u16,
    queue: usize,
    lifespan: Nanos,
    linger: Nanos,
    gap_timeout: Nanos,
    floors: Vec<Floor>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 128,
            queue: 128,
            lifespan: MS * 50,
            linger: MS * 100,
            gap_timeout: MS * 60,
            floors: Vec::new(),
        }
    }
}

impl Settings {
    fn builder(&self, node: usize, peer: usize) -> NodeBuilder {
        let reliability = Reliability {
            capacity: self.capacity,
            linger: self.linger,
            gap_timeout: self.gap_timeout,
            ..Reliability::default()
        };
        let flow = TopicConfig::new(FLOW, "Big@1", TopicClass::Stream);
        let orders = TopicConfig::new(ORDERS, "Word@1", TopicClass::Command);
        let mut builder = NodeBuilder::new(format!("node-{node}"))
            .cluster("simulated")
            .loops(0)
            .identity(identity(node as u8))
            .topic(TopicConfig { reliability, ..flow })
            .topic(TopicConfig { reliability, lifespan: Some(self.lifespan), ..orders })
            .topic(TopicConfig {
                deadline: Some(MS * 20),
                ..TopicConfig::new(GUARD, "AllWell@1", TopicClass::EStop)
            });
        builder = builder.peer(PeerConfig {
            name: format!("node-{peer}"),
            identity: identity(peer as u8).public().to_did(),
            address: address(peer as u8),
            publishes: [FLOW, ORDERS, GUARD].map(str::to_owned).to_vec(),
        });
        builder
    }
}

struct Pair {
    nodes: [SimNode; 2],
    handles: Handles,
    settings: Settings,
    now: Nanos,
    /// On their way, by arrival.
    flying: BTreeMap<(Nanos, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// Frames of each node so far, and of them those with data of reliable topics.
    frames: [u64; 2],
    data: u64,
    highest: u64,
    outcomes: Vec<(u64, Outcome)>,
}

impl Pair {
    /// Two nodes whose streams are open and whose reader is matched.
    fn greeted(settings: Settings) -> Self {
        let (sender, flow, orders, guard) = Self::sender(&settings, 1);
        let (reader, flow_in, orders_in, guard_in, events) = Self::reader(&settings, 1, START);
        let mut pair = Self {
            nodes: [sender(START), reader],
            handles: Handles { flow, orders, guard, flow_in, orders_in, guard_in, events },
            settings,
            now: START,
            flying: BTreeMap::new(),
            sent: 0,
            frames: [0; 2],
            data: 0,
            highest: 0,
            outcomes: Vec::new(),
        };
        pair.run(MS * 30, |_| Fate::Arrives);
        let readers = pair.nodes[SENDER].panel().snapshot().unwrap();
        assert_eq!(readers.gauge("readers/flow"), Some(1));
        (pair.frames, pair.data) = ([0; 2], 0);
        let _ = pair.read();
        pair
    }

    #[expect(clippy::type_complexity, reason = "the handles of one node")]
    fn sender(
        settings: &Settings,
        epoch: u64,
    ) -> (
        impl FnOnce(Nanos) -> SimNode + use<>,
        Option<Publisher<Big>>,
        Option<CommandPublisher<Word>>,
        Option<Publisher<AllWell>>,
    ) {
        let mut builder = settings.builder(SENDER, READER);
        let flow = builder.publisher(FLOW).ok();
        let orders = builder.command_publisher(ORDERS).ok();
        let guard = builder.publisher(GUARD).ok();
        let start = move |now| {
            SimNode::start(builder, life(SENDER as u8, epoch), address(SENDER as u8), now).unwrap()
        };
        (start, flow, orders, guard)
    }

    #[expect(clippy::type_complexity, reason = "the handles of one node")]
    fn reader(
        settings: &Settings,
        epoch: u64,
        now: Nanos,
    ) -> (
        SimNode,
        Option<StreamReader<Big>>,
        Option<CommandReader<Word>>,
        Option<EStopReader>,
        Option<Consumer<TopicEvent>>,
    ) {
        let mut builder = settings.builder(READER, SENDER);
        let flow_in = builder.stream(FLOW, settings.queue).ok();
        let orders_in = builder.commands(ORDERS, settings.queue).ok();
        let guard_in = builder.estop(GUARD, MS * 20).ok();
        let events = builder.events(GUARD).ok();
        builder.resume(FLOW, &settings.floors).unwrap();
        let life = life(READER as u8, epoch);
        let node = SimNode::start(builder, life, address(READER as u8), now).unwrap();
        (node, flow_in, orders_in, guard_in, events)
    }

    fn restart_sender(&mut self) {
        let (start, flow, orders, guard) = Self::sender(&self.settings, 2);
        self.nodes[SENDER] = start(self.now);
        (self.handles.flow, self.handles.orders, self.handles.guard) = (flow, orders, guard);
    }

    fn restart_reader(&mut self) {
        let (node, flow_in, orders_in, guard_in, events) =
            Self::reader(&self.settings, 2, self.now);
        self.nodes[READER] = node;
        (self.handles.flow_in, self.handles.orders_in) = (flow_in, orders_in);
        (self.handles.guard_in, self.handles.events) = (guard_in, events);
    }

    /// Lets time pass; `fate` judges the data frames of reliable topics by their sequences.
    fn run(&mut self, span: Nanos, mut fate: impl FnMut(u64) -> Fate) {
        self.run_with(span, |_, sequence| sequence.map_or(Fate::Arrives, &mut fate));
    }

    /// The same for all frames: who sent it, and the sequence if it is data of a reliable topic.
    fn run_with(&mut self, span: Nanos, mut fate: impl FnMut(usize, Option<u64>) -> Fate) {
        let end = self.now + span;
        loop {
            for _ in 0..10_000 {
                let [a, b] = &mut self.nodes;
                if !(a.poll(self.now) | b.poll(self.now)) {
                    break;
                }
            }
            for from in [SENDER, READER] {
                while let Some((_, frame)) = self.nodes[from].sent() {
                    let sequence = data_sequence(&frame);
                    self.frames[from] += 1;
                    self.data += u64::from(sequence.is_some());
                    self.highest = self.highest.max(sequence.unwrap_or(0));
                    let copies = match fate(from, sequence) {
                        Fate::Lost => 0,
                        Fate::Arrives => 1,
                        Fate::Twice => 2,
                    };
                    for copy in 0..copies {
                        self.sent += 1;
                        let arrival = (self.now + WAY + MS * 10 * copy, self.sent);
                        self.flying.insert(arrival, (1 - from, frame.clone()));
                    }
                }
            }
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let due = self.nodes.iter().filter_map(SimNode::next_deadline).min();
            // What says that it is due and then does nothing must not stop the time.
            let later = self.now + Nanos::from_micros(10);
            let next = [arrival, due].into_iter().flatten().min().unwrap_or(end).max(later);
            if next > end {
                self.now = end;
                break;
            }
            self.now = next;
            while let Some(first) = self.flying.first_entry() {
                if first.key().0 > self.now {
                    break;
                }
                let (to, frame) = first.remove();
                self.nodes[to].receive(address(1 - to as u8), &frame);
            }
        }
        while let Some((sequence, outcome)) =
            self.handles.orders.as_mut().and_then(CommandPublisher::outcome)
        {
            self.outcomes.push((sequence.get(), outcome));
        }
    }

    /// Publishes so many messages of the stream, as far as there is room.
    fn publish(&mut self, count: u8) -> usize {
        let publisher = self.handles.flow.as_mut().unwrap();
        (0..count).take_while(|n| publisher.publish_at(&[*n; 1_000], self.now).is_ok()).count()
    }

    fn order(&mut self, value: u64) {
        self.handles.orders.as_mut().unwrap().send_at(&Word::new(value), self.now).unwrap();
    }

    /// What the subscribers have got since.
    fn read(&mut self) -> String {
        let Handles { flow_in, orders_in, .. } = &mut self.handles;
        let mut seen = String::new();
        seen += &read_flow(flow_in.as_mut().unwrap());
        while let Some(delivery) = orders_in.as_mut().unwrap().next(self.now) {
            tell(&mut seen, delivery);
        }
        seen
    }

    fn command(&mut self) -> Received<Word> {
        let orders = self.handles.orders_in.as_mut().unwrap();
        loop {
            if let Delivery::Message(command) = orders.next(self.now).unwrap() {
                return command;
            }
        }
    }
}

fn tell<T>(seen: &mut String, delivery: Delivery<T>) {
    match delivery {
        Delivery::Message(message) => {
            let again = if message.possible_duplicate { "?" } else { "" };
            write!(seen, " {}{again}", message.sequence.get()).unwrap();
        }
        Delivery::Gap { first, last, cause, .. } => {
            write!(seen, " gap {}-{} {cause:?}", first.get(), last.get()).unwrap();
        }
        Delivery::Started { epoch, first, .. } => {
            write!(seen, " started {} at {}", epoch.get(), first.get()).unwrap();
        }
    }
}

fn data_sequence(frame: &[u8]) -> Option<u64> {
    let Ok(Frame::Clear(envelope)) = decode(frame) else { return None };
    let topic = envelope.header.topic();
    [FLOW, ORDERS]
        .iter()
        .any(|name| TopicId::of(name) == topic)
        .then_some(envelope.header.sequence().get())
}

/// Loses the message of this sequence `times` times.
fn loses(sequence: u64, mut times: u32) -> impl FnMut(u64) -> Fate {
    move |of| {
        let lost = of == sequence && times > 0;
        times -= u32::from(lost);
        if lost { Fate::Lost } else { Fate::Arrives }
    }
}

const FOR_EVER: u32 = u32::MAX;

/// Four messages of which the network loses the second so often.
fn four(times: u32) -> String {
    let mut pair = Pair::greeted(Settings::default());
    pair.publish(4);
    pair.run(MS * 40, loses(2, times));
    let early = pair.read();
    pair.run(MS * 200, |_| Fate::Arrives);
    format!("early{early} then{}", pair.read())
}

#[test]
fn an_honest_stream_is_whole_or_says_what_is_missing() {
    let _switches = Switches::cheap();
    assert_eq!(four(0), "early 1 2 3 4 then");
    assert_eq!(four(1), "early 1 2 3 4 then");
    let mut pair = Pair::greeted(Settings::default());
    pair.publish(4);
    pair.run(MS * 300, loses(2, FOR_EVER));
    assert_eq!(pair.read(), " 1 gap 2-2 Lost 3 4");
    let (free, all) = pair.nodes[READER].slots();
    assert_eq!(free, all);
}

#[test]
fn faults_of_holes_and_gaps_show() {
    let lost_for_ever = || {
        let mut pair = Pair::greeted(Settings::default());
        pair.publish(4);
        pair.run(MS * 300, loses(2, FOR_EVER));
        pair.read()
    };
    shows(Fault::AcknowledgedUnheard, || four(1));
    shows(Fault::GapNotReported, lost_for_ever);
    shows(Fault::GapReportedTwice, lost_for_ever);
    shows(Fault::OrderLostAfterGap, || four(1));
    shows(Fault::ResendNever, || four(1));
    shows(Fault::ResendWrongSlot, || four(1));
    shows(Fault::HeartbeatIgnored, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.publish(2);
        pair.run(MS * 300, loses(2, FOR_EVER));
        pair.read()
    });
    shows(Fault::NakStorm, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.publish(4);
        pair.run(MS * 40, loses(2, FOR_EVER));
        format!("{} frames of the reader", pair.frames[READER])
    });
    shows(Fault::DuplicateNotAcknowledged, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.publish(1);
        pair.run(MS * 20, |_| Fate::Twice);
        format!("{} frames of the reader", pair.frames[READER])
    });
}

/// The robot as the reader of two peers' streams, whose frames the test makes.
fn reads_from_two(queue: usize) -> (Robot, StreamReader<Big>) {
    let mut builder = Settings::default().builder(usize::from(ROBOT), usize::from(FRIEND));
    let peer = builder.config().peers[0].clone();
    builder = builder.peer(PeerConfig {
        name: "second".to_owned(),
        identity: identity(SECOND).public().to_did(),
        address: address(SECOND),
        ..peer
    });
    let flow = builder.stream(FLOW, queue).unwrap();
    let node = SimNode::start(builder, life(ROBOT, 1), address(ROBOT), START).unwrap();
    let mut robot = Robot::over(node);
    for (challenge, peer) in robot.challenges().into_iter().zip([FRIEND, SECOND]) {
        robot.put(peer, &hello_with(peer, &challenge, START, [FLOW, ORDERS]));
    }
    robot.settle();
    (robot, flow)
}

fn big(peer: u8, sequence: u64) -> Vec<u8> {
    let (class, topic, schema) = (Class::Stream, TopicId::of(FLOW), schema_id::<Big>());
    let fields = EnvelopeFields { topic, schema, class, ..fields(peer, sequence) };
    envelope_with(peer, &fields, &[peer; 1_000])
}

fn read_flow(flow: &mut StreamReader<Big>) -> String {
    let mut seen = String::new();
    while let Some(delivery) = flow.next() {
        tell(&mut seen, delivery);
    }
    seen
}

#[test]
fn faults_of_room_show() {
    shows(Fault::SubscriberOverrun, || {
        let (mut robot, mut flow) = reads_from_two(2);
        let mut seen = read_flow(&mut flow);
        for sequence in 1..=5 {
            robot.put(FRIEND, &big(FRIEND, sequence));
        }
        for _ in 0..5 {
            robot.now += MS;
            robot.settle();
            seen += &read_flow(&mut flow);
        }
        seen
    });
    shows(Fault::LimitIgnored, || {
        let mut pair = Pair::greeted(Settings { queue: 4, ..Settings::default() });
        pair.publish(20);
        pair.run(MS * 20, |_| Fate::Arrives);
        format!("sent up to {}", pair.highest)
    });
    shows(Fault::RingOverwritten, || {
        let long = Nanos::from_secs(2);
        let settings =
            Settings { capacity: 8, linger: long, gap_timeout: long, ..Settings::default() };
        let mut pair = Pair::greeted(settings);
        pair.publish(30);
        pair.run(MS * 100, loses(1, FOR_EVER));
        format!("sent up to {}", pair.highest)
    });
    shows(Fault::ResendUnbounded, || {
        let mut pair =
            Pair::greeted(Settings { gap_timeout: Nanos::from_secs(5), ..Settings::default() });
        pair.publish(60);
        pair.run(MS * 90, |_| Fate::Lost);
        format!("{} messages sent", pair.data)
    });
    shows(Fault::LaggingReaderHoldsRing, || {
        let mut pair = Pair::greeted(Settings::default());
        for _ in 0..200 {
            pair.publish(1);
            pair.run_with(MS * 5, |_, _| Fate::Lost);
        }
        format!("sent up to {}", pair.highest)
    });
}

#[test]
fn faults_of_commands_show() {
    shows(Fault::ExpiredCommandDelivered, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.order(7);
        pair.run(MS * 70, |_| Fate::Arrives);
        pair.read()
    });
    let decided = || {
        let mut pair = Pair::greeted(Settings::default());
        pair.order(7);
        pair.run(MS * 5, |_| Fate::Arrives);
        let command = pair.command();
        pair.handles.orders_in.as_mut().unwrap().reject(&command, 3).unwrap();
        pair.run(MS * 20, |_| Fate::Arrives);
        format!("{:?}", pair.outcomes)
    };
    shows(Fault::RejectionLost, decided);
    shows(Fault::OutcomeLost, decided);
    shows(Fault::ResendAfterExpiry, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.order(7);
        pair.run(MS * 60, |_| Fate::Lost);
        let before = pair.data;
        pair.run(MS * 30, |_| Fate::Lost);
        format!("{} sent after the lifespan", pair.data - before)
    });
    shows(Fault::UnresolvedForever, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.order(7);
        pair.run_with(Nanos::from_secs(1), |_, _| Fate::Lost);
        format!("{:?}", pair.outcomes)
    });
    shows(Fault::OutlivedKept, || {
        let mut pair = Pair::greeted(Settings { queue: 2, ..Settings::default() });
        (0..20).for_each(|number| pair.order(number));
        pair.run(MS * 300, |_| Fate::Arrives);
        format!("{:?}", pair.outcomes)
    });
    shows(Fault::RestartedReaderKept, || {
        let lifespan = Nanos::from_secs(60);
        let mut pair = Pair::greeted(Settings { lifespan, ..Settings::default() });
        pair.order(7);
        pair.run(MS * 5, |_| Fate::Arrives);
        pair.restart_reader();
        pair.run(Nanos::from_secs(2), |_| Fate::Arrives);
        format!("{:?}", pair.outcomes)
    });
}

#[test]
fn faults_of_lives_show() {
    shows(Fault::ReaderKeepsOldLife, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.publish(4);
        pair.run(MS * 5, |_| Fate::Arrives);
        pair.restart_sender();
        pair.run(Nanos::from_secs(2), |_| Fate::Arrives);
        pair.publish(2);
        pair.run(MS * 50, |_| Fate::Arrives);
        pair.read()
    });
    shows(Fault::PossibleDuplicateUnmarked, || {
        let linger = Nanos::from_secs(10);
        let mut pair = Pair::greeted(Settings { linger, ..Settings::default() });
        pair.publish(4);
        pair.run(MS * 5, |_| Fate::Arrives);
        let (from, epoch) = (identity(SENDER as u8).public().id(), Epoch::new(1));
        pair.settings.floors = vec![Floor { from, epoch, sequence: Sequence::new(2) }];
        pair.restart_reader();
        pair.run(Nanos::from_secs(2), |_| Fate::Arrives);
        pair.read()
    });
    shows(Fault::GapBufferShared, || {
        let (mut robot, mut flow) = reads_from_two(16);
        for peer in [FRIEND, SECOND] {
            robot.put(peer, &big(peer, 1));
        }
        robot.settle();
        read_flow(&mut flow)
    });
    shows(Fault::AcknowledgementOfAnyLife, || {
        let (topic, schema) = (TopicId::of(FLOW), schema_id::<Big>());
        let spec = WriterSpec {
            topic,
            schema,
            class: Class::Stream,
            readers: 1,
            capacity: 8,
            frame_len: crate::wire::FRAME_MAX,
            lifespan: None,
            linger: MS * 100,
            patience: MS * 50,
            lease: Nanos::from_secs(3),
            heartbeat: MS * 100,
            resend_share_percent: 50,
        };
        let mut writer = Writer::new(spec, START);
        let entry = Acknowledgement {
            topic,
            schema,
            class: Class::Stream,
            epoch: Epoch::new(1),
            floor: Sequence::new(0),
            held: 0,
            limit: Sequence::new(64),
            wanted: false,
            echo: None,
            held_us: 0,
        };
        let peer = PeerIndex::new(0);
        let said = writer.acknowledge(peer, Epoch::new(2), &entry, START);
        format!("{said:?} matched {}", writer.is_matched(peer))
    });
}

#[test]
fn faults_of_safe_state_show() {
    shows(Fault::DeadlineNotTold, || {
        let mut pair = Pair::greeted(Settings::default());
        pair.run(MS * 50, |_| Fate::Arrives);
        let events = pair.handles.events.as_mut().unwrap();
        format!("{:?}", std::iter::from_fn(|| events.pop()).count())
    });
    shows(Fault::EStopNotLatched, || {
        let mut pair = Pair::greeted(Settings::default());
        let first = pair.handles.guard_in.as_mut().unwrap().check(pair.now);
        pair.handles.guard.as_mut().unwrap().publish_at(&AllWell::default(), pair.now).unwrap();
        pair.run(MS * 5, |_| Fate::Arrives);
        let then = pair.handles.guard_in.as_mut().unwrap().check(pair.now);
        format!("{first:?} {then:?}")
    });
}

#[test]
fn every_fault_has_a_test_that_sees_it() {
    let tests = concat!(include_str!("../tests.rs"), include_str!("reliable.rs"));
    for fault in Fault::ALL {
        assert!(tests.contains(&format!("shows(Fault::{fault:?},")), "{fault:?}");
    }
}
