//! What `control`, `queue` and `estop` promise under each fault, whose messages are not sent again.
//!
//! Whole nodes in virtual time over a network that only takes time, so that each run repeats exactly.

mod net;

use net::{Net, Number, START, Way, address, begin_life, identity, start};
use sinew_io::delivery::DropReason;
use sinew_io::message::Message;
use sinew_io::node::{
    AllWell, EStop, EStopReader, NodeBuilder, PeerConfig, Publisher, Queued, TopicClass,
    TopicConfig,
};
use sinew_io::security::AdmissionLimits;
use sinew_io::wire::{Class, Frame, decode};
use sinew_rt::clock::Nanos;
use sinew_rt::latest::LatestReader;
use sinew_rt::ring::Consumer;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

const PERIOD: Nanos = Nanos::from_millis(5);
const WAY: Nanos = Nanos::from_micros(300);
/// Of the emergency stop.
const DEADLINE: Nanos = Nanos::from_millis(20);
const QUEUE: usize = 16;

const ROBOT: u8 = 0;
const GUARDIAN: u8 = 1;
const NEIGHBOUR: u8 = 2;
/// Robots that hear the same guardian.
const OTHERS: [u8; 2] = [3, 4];

fn topics() -> [TopicConfig; 4] {
    let topic = |name, class| TopicConfig::new(name, Number::NAME, class);
    [
        topic("state", TopicClass::Control),
        topic("events", TopicClass::Queue),
        TopicConfig {
            deadline: Some(DEADLINE),
            ..TopicConfig::new("stop", AllWell::NAME, TopicClass::EStop)
        },
        topic("noise", TopicClass::Queue),
    ]
}

fn node(number: u8, peers: &[u8]) -> NodeBuilder {
    let node = NodeBuilder::new(format!("node-{number}")).cluster("virtual").loops(0);
    let node = topics().into_iter().fold(node.identity(identity(number)), NodeBuilder::topic);
    let publishes = |peer| match peer {
        GUARDIAN => vec!["state".to_owned(), "events".to_owned(), "stop".to_owned()],
        NEIGHBOUR => vec!["noise".to_owned()],
        _ => Vec::new(),
    };
    peers.iter().fold(node, |node, &peer| {
        node.peer(PeerConfig {
            name: format!("node-{peer}"),
            identity: identity(peer).public().to_did(),
            address: address(peer),
            publishes: publishes(peer),
        })
    })
}

/// What a robot's program reads.
struct Robot {
    state: LatestReader<Number>,
    events: Consumer<Queued<Number>>,
    stop: EStopReader,
    noise: Consumer<Queued<Number>>,
}

impl Robot {
    fn prepare(number: u8) -> (NodeBuilder, Self) {
        // Twice what the guardian says, and a little more.
        let contract =
            AdmissionLimits { peer_per_s: 1_200, peer_burst: 64, ..AdmissionLimits::default() };
        let mut node = node(number, &[GUARDIAN, NEIGHBOUR]).admission(contract);
        let robot = Self {
            state: node.latest("state").unwrap(),
            events: node.queue("events", QUEUE).unwrap(),
            stop: node.estop("stop", DEADLINE).unwrap(),
            noise: node.queue("noise", 1_024).unwrap(),
        };
        (node, robot)
    }

    /// All numbers that wait in the queue.
    fn events(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.events.pop()).map(|event| event.value.number.get()).collect()
    }

    fn newest(&mut self) -> Option<u64> {
        self.state.read().map(|newest| newest.value.number.get())
    }
}

/// What the guardian's program says.
struct Guardian {
    state: Publisher<Number>,
    events: Publisher<Number>,
    stop: Publisher<AllWell>,
}

impl Guardian {
    fn prepare() -> (NodeBuilder, Self) {
        let mut node = node(GUARDIAN, &[ROBOT, OTHERS[0], OTHERS[1]]);
        let guardian = Self {
            state: node.publisher("state").unwrap(),
            events: node.publisher("events").unwrap(),
            stop: node.publisher("stop").unwrap(),
        };
        (node, guardian)
    }
}

/// A guardian that speaks of everything once in a period, and robots that hear it.
struct Scene {
    net: Net,
    robot: Robot,
    others: Vec<Robot>,
    guardian: Option<Guardian>,
    /// What the guardian said last, and when it speaks next.
    number: u64,
    due: Nanos,
    neighbour: Publisher<Number>,
    noise_per_s: u64,
    noise: u64,
    /// Whether the network loses everything.
    cut: Rc<Cell<bool>>,
    /// By class and number: how often a message was sent to the robot.
    sent: Rc<RefCell<BTreeMap<(u8, u64), u32>>>,
}

impl Scene {
    /// One in which the robot was armed, and is well.
    fn set() -> Self {
        let cut = Rc::<Cell<bool>>::default();
        let sent = Rc::<RefCell<BTreeMap<_, _>>>::default();
        let way: Way = {
            let (cut, sent) = (cut.clone(), sent.clone());
            Box::new(move |_, to, bytes, _| {
                if let Ok(Frame::Clear(envelope)) = decode(bytes)
                    && let Some(class) = envelope.header.class()
                    && to == ROBOT
                {
                    let message = (class as u8, envelope.header.sequence().get());
                    *sent.borrow_mut().entry(message).or_default() += 1;
                }
                if cut.get() { Vec::new() } else { vec![WAY] }
            })
        };
        let (robot_node, robot) = Robot::prepare(ROBOT);
        let (guardian_node, guardian) = Guardian::prepare();
        let mut neighbour_node = node(NEIGHBOUR, &[ROBOT]);
        let neighbour = neighbour_node.publisher("noise").unwrap();
        let mut nodes = vec![
            start(ROBOT, robot_node),
            start(GUARDIAN, guardian_node),
            start(NEIGHBOUR, neighbour_node),
        ];
        let mut others = Vec::new();
        for number in OTHERS {
            let (node, robot) = Robot::prepare(number);
            nodes.push(start(number, node));
            others.push(robot);
        }
        let mut scene = Self {
            net: Net::new(nodes, way),
            robot,
            others,
            guardian: Some(guardian),
            number: 0,
            due: START,
            neighbour,
            noise_per_s: 0,
            noise: 0,
            cut,
            sent,
        };
        scene.pass(Nanos::from_secs(1));
        let now = scene.net.now;
        assert!(scene.robot.stop.rearm(now), "it hears the guardian");
        scene.robot.events();
        scene
    }

    /// Lets time pass by one step, in which the guardian says what is due.
    fn step(&mut self) {
        let now = self.net.now;
        if let Some(guardian) = &mut self.guardian
            && self.due <= now
        {
            self.number += 1;
            guardian.state.publish_at(&Number::new(self.number), now).unwrap();
            guardian.events.publish_at(&Number::new(self.number), now).unwrap();
            guardian.stop.publish_at(&AllWell::default(), now).unwrap();
            self.due = now + PERIOD;
        }
        let due = (now - START).as_unsigned() * self.noise_per_s / 1_000_000_000;
        while self.noise < due && self.neighbour.publish_at(&Number::new(self.noise), now).is_ok() {
            self.noise += 1;
        }
        self.net.step();
        while self.robot.noise.pop().is_some() {}
    }

    fn pass(&mut self, time: Nanos) {
        let end = self.net.now + time;
        while self.net.now < end {
            self.step();
        }
    }

    /// Whether the robot may move now.
    fn is_well(&mut self) -> bool {
        let now = self.net.now;
        matches!(self.robot.stop.check(now), EStop::Well { .. })
    }

    /// The same, at every step of a while.
    fn stays_well(&mut self, time: Nanos) -> bool {
        let end = self.net.now + time;
        while self.net.now < end {
            self.step();
            if !self.is_well() {
                return false;
            }
        }
        true
    }

    fn rearm(&mut self) -> bool {
        let now = self.net.now;
        self.robot.stop.rearm(now)
    }

    fn dropped(&self, node: u8, reason: DropReason) -> u64 {
        self.net.nodes[usize::from(node)].as_ref().unwrap().drops()[reason.index()]
    }

    /// Waits for as long as the guardian takes to be heard again, and sees that the robot stays stopped.
    fn stays_stopped_until_it_is_armed(&mut self) {
        let end = self.net.now + Nanos::from_secs(3);
        let before = self.number;
        while self.robot.newest().is_none_or(|number| number <= before) {
            assert!(self.net.now < end, "the guardian is not heard");
            assert!(!self.is_well());
            self.step();
        }
        self.pass(DEADLINE);
        assert!(!self.is_well(), "all is well, and nobody has armed it");
        assert!(self.rearm());
        assert!(self.stays_well(Nanos::from_secs(1)));
    }
}

#[test]
fn what_is_best_effort_is_sent_once_whatever_became_of_it() {
    let mut scene = Scene::set();
    scene.cut.set(true);
    let last_heard = scene.robot.newest();
    scene.pass(Nanos::from_secs(1));
    scene.cut.set(false);
    scene.guardian = None;
    scene.pass(Nanos::from_secs(2));
    assert_eq!(scene.robot.newest(), last_heard, "what was lost did not come");
    assert_eq!(scene.robot.events(), []);
    for class in [Class::Control, Class::EStop] {
        let sent = scene.sent.borrow();
        let times: Vec<u32> = sent
            .iter()
            .filter(|((of, _), _)| *of == class as u8)
            .map(|(_, times)| *times)
            .collect();
        assert!(times.len() > 300, "{class:?}: only {} were sent", times.len());
        // State and events are of one class on the wire, and begin with the same number.
        let once = if class == Class::Control { 2 } else { 1 };
        assert!(times.iter().all(|times| *times == once), "{class:?}: {times:?}");
    }
}

#[test]
fn a_guardian_that_restarts_does_not_end_a_stop() {
    let mut scene = Scene::set();
    assert!(scene.stays_well(Nanos::from_secs(1)));
    scene.net.nodes[usize::from(GUARDIAN)] = None;
    scene.guardian = None;
    let heard = scene.net.now;
    while scene.is_well() {
        scene.step();
    }
    let took = scene.net.now - heard;
    assert!(took <= DEADLINE + PERIOD, "it took {took} to stop");
    let (node, guardian) = Guardian::prepare();
    let now = scene.net.now;
    scene.net.nodes[usize::from(GUARDIAN)] = Some(begin_life(GUARDIAN, 2, node, now));
    (scene.guardian, scene.due) = (Some(guardian), now);
    scene.stays_stopped_until_it_is_armed();
}

#[test]
fn a_robot_that_restarts_is_stopped_until_it_is_armed() {
    let mut scene = Scene::set();
    let (node, robot) = Robot::prepare(ROBOT);
    scene.net.nodes[usize::from(ROBOT)] = Some(begin_life(ROBOT, 2, node, scene.net.now));
    scene.robot = robot;
    assert!(!scene.rearm(), "it has heard nothing yet");
    scene.stays_stopped_until_it_is_armed();
}

#[test]
fn when_a_cut_network_heals_the_newest_comes_and_the_stop_stays() {
    let mut scene = Scene::set();
    scene.cut.set(true);
    assert!(!scene.stays_well(DEADLINE + PERIOD + WAY));
    scene.pass(Nanos::from_secs(1));
    let missed = scene.number;
    scene.robot.events();
    scene.cut.set(false);
    scene.pass(PERIOD + WAY + WAY);
    assert_eq!(scene.robot.newest(), Some(scene.number), "at most a period after the healing");
    assert!(scene.robot.events().iter().all(|number| *number > missed), "nothing of before it");
    scene.stays_stopped_until_it_is_armed();
}

#[test]
fn a_program_that_did_not_read_finds_the_newest_and_a_queue_what_came_first() {
    let mut scene = Scene::set();
    // The end of what the robot had when it looked away.
    let last = scene.number;
    let dropped = scene.dropped(ROBOT, DropReason::QueueFull);
    scene.pass(PERIOD * 100);
    assert_eq!(scene.robot.newest(), Some(scene.number));
    assert!(scene.is_well(), "the newest word is there");
    let events: Vec<u64> = (last + 1..).take(QUEUE).collect();
    assert_eq!(scene.robot.events(), events);
    let lost = scene.number - last - QUEUE as u64;
    assert_eq!(scene.dropped(ROBOT, DropReason::QueueFull) - dropped, lost, "each is counted");
    // It goes on with what comes from now on.
    let next = scene.number + 1;
    scene.pass(PERIOD + WAY * 2);
    assert_eq!(scene.robot.events().first(), Some(&next));
}

#[test]
fn a_dead_and_a_slow_reader_of_best_effort_cost_the_others_nothing() {
    /// The longest age at which the robot first sees a value, and how many it saw.
    fn seen(scene: &mut Scene) -> (Nanos, u64) {
        let end = scene.net.now + Nanos::from_secs(2);
        let (mut oldest, mut seen, mut last) = (Nanos::ZERO, 0, scene.robot.newest());
        while scene.net.now < end {
            scene.step();
            let now = scene.net.now;
            if let Some(newest) = scene.robot.state.read()
                && last != Some(newest.value.number.get())
            {
                last = Some(newest.value.number.get());
                oldest = oldest.max(newest.age(now));
                seen += 1;
            }
            scene.robot.events();
        }
        (oldest, seen)
    }
    let mut scene = Scene::set();
    let quiet = seen(&mut scene);
    assert!(quiet.1 >= 395, "a value each period for two seconds: {quiet:?}");
    scene.net.nodes[usize::from(OTHERS[0])] = None;
    // Nobody has read the queue of the other since its start.
    assert_eq!(scene.others[1].events.len(), QUEUE);
    assert_eq!(seen(&mut scene), quiet);
    assert!(scene.is_well());
}

#[test]
fn a_flood_of_one_peer_neither_stops_the_robot_nor_delays_another_s_values() {
    let mut scene = Scene::set();
    // Eight times its contract.
    scene.noise_per_s = 10_000;
    scene.noise = (scene.net.now - START).as_unsigned() * scene.noise_per_s / 1_000_000_000;
    let (flood, last) = (scene.noise, scene.number);
    let end = scene.net.now + Nanos::from_secs(3);
    let mut events = Vec::new();
    while scene.net.now < end {
        assert!(scene.stays_well(PERIOD), "all was well");
        events.extend(scene.robot.events());
    }
    assert!(events.iter().copied().eq(last + 1..=last + events.len() as u64), "one was lost");
    assert!(scene.number - last - events.len() as u64 <= 1, "the last may be on its way");
    let limited = scene.dropped(ROBOT, DropReason::RateLimited);
    assert!(scene.noise - flood > 29_000 && limited > 20_000, "{limited} of {}", scene.noise);
}
