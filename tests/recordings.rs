//! Restarts, and what an attacker can do with a recording from before one: real frames, handshakes
//! included, taken off the wire between two real nodes and played back.

mod support;

use sinew::io::node::{Node, NodeBuilder, Publisher, Queued};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::rt::ring::Consumer;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use support::arena::{CLUSTER, CONTROLLER, Counts, ROBOT, UNLIMITED, counts, peer, since};
use support::forge::{Seen, identity, kind_of};
use support::{Sample, counter, fresh_address, until};

/// Sits between the two nodes, passes on what they send, and keeps a copy of what the robot got.
struct Relay {
    to_robot: UdpSocket,
    to_controller: UdpSocket,
    recorded: Vec<Vec<u8>>,
    /// Frames sent to the robot in its present life.
    passed: u64,
}

impl Relay {
    fn between(robot: SocketAddr, controller: SocketAddr) -> Self {
        let socket = |peer| {
            let socket = UdpSocket::bind(fresh_address()).unwrap();
            socket.connect(peer).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            to_robot: socket(robot),
            to_controller: socket(controller),
            recorded: Vec::new(),
            passed: 0,
        }
    }

    /// Passes on what has come so far.
    fn pump(&mut self) {
        for frame in waiting(&self.to_controller) {
            // An error is the answer to an earlier frame: the robot is not up.
            self.passed += u64::from(self.to_robot.send(&frame).is_ok());
            self.recorded.push(frame);
        }
        for frame in waiting(&self.to_robot) {
            let _ = self.to_controller.send(&frame);
        }
    }

    /// Forgets what has come so far and was not passed on.
    fn drain(&self) {
        waiting(&self.to_controller).for_each(drop);
        waiting(&self.to_robot).for_each(drop);
    }

    fn recorded(&self, kind: Seen) -> u64 {
        self.recorded.iter().filter(|frame| kind_of(frame) == kind).count() as u64
    }

    /// Plays the whole recording to `robot`, as fast as its queues take it, and says where the
    /// frames went.
    fn replay(&mut self, robot: &Node) -> Counts {
        let before = counts(robot);
        let frames = |counts: &Counts| counts.get("receive.frames").copied().unwrap_or(0);
        for (n, frame) in (1..).zip(&self.recorded) {
            self.to_robot.send(frame).unwrap();
            self.passed += 1;
            until("the robot has counted the frame", || {
                let now = since(&before, &counts(robot));
                let ended = support::arena::accounted(&now);
                (frames(&now) >= n && ended == frames(&now)).then_some(())
            });
        }
        let mut went = since(&before, &counts(robot));
        went.remove("receive.frames");
        went
    }
}

fn waiting(socket: &UdpSocket) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut bytes = [0; 2_048];
    std::iter::from_fn(move || socket.recv(&mut bytes).ok().map(|len| bytes[..len].to_vec()))
}

/// A robot and a controller that live on through restarts: keys, addresses and boot counters stay.
struct World {
    relay: Relay,
    robot_at: SocketAddr,
    controller_at: SocketAddr,
    files: tempfile::TempDir,
    name: &'static str,
}

type Robot = (Node, Consumer<Queued<Sample>>);
type Controller = (Node, Publisher<Sample>);

impl World {
    fn new(name: &'static str) -> Self {
        let (robot_at, controller_at) = (fresh_address(), fresh_address());
        Self {
            relay: Relay::between(robot_at, controller_at),
            robot_at,
            controller_at,
            files: tempfile::tempdir().unwrap(),
            name,
        }
    }

    fn robot(&mut self) -> Robot {
        self.relay.passed = 0;
        let home = self.relay.to_robot.local_addr().unwrap();
        let node = robot(self.name, self.files.path(), home).udp(self.robot_at);
        start_robot(node)
    }

    fn controller(&self) -> Controller {
        let home = self.relay.to_controller.local_addr().unwrap();
        let node = controller(self.name, self.files.path(), home).udp(self.controller_at);
        start_controller(node)
    }

    /// Publishes until `wanted` more samples have arrived.
    fn deliver(&mut self, wanted: usize, robot: &mut Robot, controller: &mut Controller) {
        let mut arrived = 0;
        let mut number = 0;
        let mut published = counter(&controller.0, "sent/setpoint");
        until("the samples arrive", || {
            number += 1;
            // Full on a machine so busy that the lane did not run: the next one comes anyway.
            published += u64::from(controller.1.publish(&Sample::new(number)).is_ok());
            self.relay.pump();
            while robot.1.pop().is_some() {
                arrived += 1;
            }
            (arrived >= wanted).then_some(())
        });
        // What is still on its way comes in, too.
        until("every sample that was sent has arrived or been counted", || {
            self.relay.pump();
            let sent = counter(&controller.0, "sent/setpoint");
            let passed = self.relay.recorded(Seen::Envelope);
            let now = counts(&robot.0);
            let received = now.get("receive.frames").copied().unwrap_or(0);
            let on_its_way = sent < published || passed < sent || received < self.relay.passed;
            (!on_its_way && received == support::arena::accounted(&now)).then_some(())
        });
        while robot.1.pop().is_some() {}
    }
}

fn robot(name: &str, files: &Path, controller: SocketAddr) -> NodeBuilder {
    Node::builder(format!("{name}-robot"))
        .development()
        .cluster(CLUSTER)
        .identity(identity(ROBOT))
        .panel_dir(files)
        .state_dir(files.join("robot"))
        .admission(UNLIMITED)
        .peer(peer("controller", CONTROLLER, controller, &["setpoint"]))
}

fn controller(name: &str, files: &Path, robot: SocketAddr) -> NodeBuilder {
    Node::builder(format!("{name}-controller"))
        .development()
        .cluster(CLUSTER)
        .identity(identity(CONTROLLER))
        .panel_dir(files)
        .state_dir(files.join("controller"))
        .peer(peer("robot", ROBOT, robot, &[]))
}

fn start_robot(mut node: NodeBuilder) -> Robot {
    let samples = node.queue::<Sample>("setpoint", 4_096).unwrap();
    (node.start().unwrap(), samples)
}

fn start_controller(mut node: NodeBuilder) -> Controller {
    let publisher = node.publisher::<Sample>("setpoint").unwrap();
    (node.start().unwrap(), publisher)
}

fn expected(drops: &[(&str, u64)]) -> Counts {
    drops.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn a_recording_from_before_the_receiver_s_restart_delivers_nothing() {
    let mut world = World::new("restart");
    let (mut robot, mut controller) = (world.robot(), world.controller());
    assert_eq!(robot.0.report().epoch.get(), 1);
    world.deliver(50, &mut robot, &mut controller);
    controller.0.stop().unwrap();
    robot.0.stop().unwrap();
    world.relay.drain();

    let envelopes = world.relay.recorded(Seen::Envelope);
    let challenges = world.relay.recorded(Seen::Challenge);
    let hellos = world.relay.recorded(Seen::Hello);
    assert!(envelopes >= 50 && challenges >= 1 && hellos >= 1);
    assert!(challenges <= 8, "as many as are answered at once: {challenges}");

    // The restarted robot knows nobody's life yet. It answers the old Challenges, which are genuine,
    // and so tells its peer that it has restarted; it believes nothing else of the recording.
    let mut robot = world.robot();
    assert_eq!(robot.0.report().epoch.get(), 2);
    let went = world.relay.replay(&robot.0);
    assert_eq!(
        went,
        expected(&[
            ("verify.drop.no_life@controller", envelopes),
            ("handshake.drop.hello_unasked@controller", hellos),
            ("handshake.frames", challenges),
        ])
    );
    assert!(robot.1.pop().is_none());

    // With the controller back, in a new life, the old one's frames are refused as such.
    let recording = std::mem::take(&mut world.relay.recorded);
    world.relay.drain();
    let mut controller = world.controller();
    assert_eq!(controller.0.report().epoch.get(), 2);
    world.deliver(10, &mut robot, &mut controller);
    controller.0.stop().unwrap();
    world.relay.drain();
    world.relay.recorded = recording;
    let went = world.relay.replay(&robot.0);
    assert_eq!(
        went,
        expected(&[
            ("verify.drop.old_epoch@controller", envelopes),
            ("handshake.drop.hello_unasked@controller", hellos),
            ("handshake.drop.old_epoch@controller", challenges),
        ])
    );
    assert!(robot.1.pop().is_none());
    robot.0.stop().unwrap();
}

#[test]
fn a_receiver_that_restarts_alone_takes_only_what_is_sent_after_its_hello() {
    let mut world = World::new("alone");
    let (mut robot, mut controller) = (world.robot(), world.controller());
    world.deliver(50, &mut robot, &mut controller);
    robot.0.stop().unwrap();
    world.relay.drain();
    let recording = std::mem::take(&mut world.relay.recorded);
    let envelopes = recording.iter().filter(|frame| kind_of(frame) == Seen::Envelope).count();

    // The controller's life goes on: the epoch is the same, and only its Hello says from where.
    let mut robot = world.robot();
    until("the robot has the controller's Hello", || {
        world.relay.pump();
        let known = robot.0.panel().snapshot().unwrap().gauge("peer.epoch@controller");
        (known == Some(1)).then_some(())
    });
    world.relay.recorded =
        recording.into_iter().filter(|frame| kind_of(frame) == Seen::Envelope).collect();
    let went = world.relay.replay(&robot.0);
    assert_eq!(went.get("verify.drop.below_window@controller"), Some(&(envelopes as u64)));
    assert!(robot.1.pop().is_none());

    world.relay.recorded.clear();
    let already = counter(&controller.0, "sent/setpoint");
    controller.1.publish(&Sample::new(7)).unwrap();
    let next = until("the next sample arrives", || {
        world.relay.pump();
        robot.1.pop()
    });
    assert_eq!(next.value, Sample::new(7));
    assert_eq!(counter(&controller.0, "sent/setpoint"), already + 1);
    controller.0.stop().unwrap();
    robot.0.stop().unwrap();
}

#[test]
fn a_sender_that_restarts_goes_on_after_its_new_hello() {
    let mut world = World::new("sender");
    let (mut robot, mut controller) = (world.robot(), world.controller());
    for life in 1..=3 {
        world.relay.recorded.clear();
        world.deliver(20, &mut robot, &mut controller);
        let snapshot = robot.0.panel().snapshot().unwrap();
        assert_eq!(snapshot.gauge("peer.epoch@controller"), Some(life));
        assert_eq!(controller.0.report().epoch.get(), life.cast_unsigned());
        controller.0.stop().unwrap();
        world.relay.drain();
        controller = world.controller();
    }
    controller.0.stop().unwrap();
    robot.0.stop().unwrap();
}

#[test]
fn whichever_of_two_nodes_starts_later_is_found() {
    for memory in [false, true] {
        for robot_first in [false, true] {
            let files = tempfile::tempdir().unwrap();
            let network = MemoryNetwork::new();
            let (robot_at, controller_at) = (fresh_address(), fresh_address());
            let on = |node: NodeBuilder, address| match memory {
                true => node.memory(&network, address),
                false => node.udp(address),
            };
            let robot = || start_robot(on(robot("late", files.path(), controller_at), robot_at));
            let controller =
                || start_controller(on(controller("late", files.path(), robot_at), controller_at));
            // The one that is alone asks in vain at least once.
            let alone = |node: &Node, peer: &str| {
                until("it has asked a peer that is not there", || {
                    let snapshot = node.panel().snapshot().unwrap();
                    assert_eq!(snapshot.gauge(&format!("peer.epoch@{peer}")), Some(0));
                    snapshot.heartbeat_at
                });
            };
            let ((robot, mut samples), (controller, mut publisher)) = if robot_first {
                let robot = robot();
                alone(&robot.0, "controller");
                (robot, controller())
            } else {
                let controller = controller();
                alone(&controller.0, "robot");
                (robot(), controller)
            };
            let mut number = 0;
            let first = until("a sample arrives", || {
                number += 1;
                let _ = publisher.publish(&Sample::new(number));
                samples.pop()
            });
            assert_eq!(first.value, Sample::new(first.value.number));
            controller.stop().unwrap();
            robot.stop().unwrap();
        }
    }
}
