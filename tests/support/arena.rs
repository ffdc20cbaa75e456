//! One running node, a peer that is played by hand, and a count of everything that was sent in.
//!
//! Every frame must end under one counter: `expect` compares the whole panel, so a frame that is
//! counted twice, under another reason or not at all fails the test.

use super::forge::{Forger, identity};
use super::{PATIENCE, Sample, fresh_address, until};
use sinew::io::message::Message;
use sinew::io::node::{
    Auth, Layout, Node, NodeBuilder, PeerConfig, Queued, RealTimeConfig, TopicClass, TopicConfig,
};
use sinew::io::security::AdmissionLimits;
use sinew::io::transport::memory::MemoryNetwork;
use sinew::rt::clock;
use sinew::rt::panel::Panel;
use sinew::rt::ring::Consumer;
use sinew::rt::topology::CoreId;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

pub(crate) const CLUSTER: &str = "test";
/// Who the robot and the controller are.
pub(crate) const ROBOT: u8 = 1;
pub(crate) const CONTROLLER: u8 = 2;
/// The life that the hand-played controller is in.
pub(crate) const EPOCH: u64 = 1_000;
/// The random number of that life.
pub(crate) const LIFE: [u8; 16] = [7; 16];
/// What the controller announces. It may publish the first two.
pub(crate) const TOPICS: [&str; 3] = ["setpoint", "notes", "limits"];
/// Frames that may be on their way at once: far below any queue of the node.
const IN_FLIGHT: u64 = 16;

/// Everybody may cost any number of signature checks.
pub(crate) const UNLIMITED: AdmissionLimits = AdmissionLimits {
    peer_per_s: 1_000_000_000,
    peer_burst: 1_000_000_000,
    strangers_per_s: 1_000_000_000,
    strangers_burst: 1_000_000_000,
};

/// From where a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The address that the robot knows as the controller's.
    Home,
    /// Any other.
    Elsewhere,
}

enum Wire {
    Udp { peer: UdpSocket, stranger: UdpSocket },
    Memory { network: MemoryNetwork, peer: SocketAddr, stranger: SocketAddr },
}

/// Counters by name, those that are zero left out.
pub(crate) type Counts = BTreeMap<String, u64>;

pub(crate) struct Arena {
    pub(crate) robot: Node,
    pub(crate) setpoints: Consumer<Queued<Sample>>,
    pub(crate) notes: Consumer<Queued<Sample>>,
    pub(crate) limits: Consumer<Queued<Sample>>,
    pub(crate) controller: Forger,
    pub(crate) epoch: u64,
    address: SocketAddr,
    wire: Wire,
    sent: u64,
    before: Counts,
    _files: tempfile::TempDir,
}

/// How an arena differs from the usual one.
pub(crate) struct Rules {
    pub(crate) layout: Layout,
    /// Cores for the lanes; empty for the node's own choice.
    pub(crate) cores: Vec<CoreId>,
    pub(crate) limits: AdmissionLimits,
    pub(crate) queue: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { layout: Layout::Fused, cores: Vec::new(), limits: UNLIMITED, queue: 4_096 }
    }
}

/// Runs `test` over UDP and over the memory network, on a node that knows the controller's life.
pub(crate) fn over_each_transport(name: &str, test: impl Fn(&mut Arena)) {
    for memory in [false, true] {
        let mut arena = if memory {
            Arena::memory(&format!("{name}-memory"), Rules::default())
        } else {
            Arena::udp(&format!("{name}-udp"), Rules::default())
        };
        test(&mut arena);
        arena.robot.stop().unwrap();
    }
}

impl Arena {
    /// A robot on UDP that has taken the hand-played controller's Hello.
    pub(crate) fn udp(name: &str, rules: Rules) -> Self {
        let mut arena = Self::udp_before_hello(name, rules);
        arena.greet(EPOCH, LIFE);
        arena.before = arena.counts();
        arena.sent = 0;
        arena
    }

    /// The same before the Hello.
    pub(crate) fn udp_before_hello(name: &str, rules: Rules) -> Self {
        let (address, home) = (fresh_address(), fresh_address());
        let peer = UdpSocket::bind(home).unwrap();
        peer.connect(address).unwrap();
        peer.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let stranger = UdpSocket::bind(fresh_address()).unwrap();
        stranger.connect(address).unwrap();
        stranger.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let wire = Wire::Udp { peer, stranger };
        Self::start(name, rules, address, home, wire, |builder| builder.udp(address))
    }

    /// A robot on a memory network. A real controller gives its Hello there and then goes, so that
    /// every later frame is one of the test's.
    pub(crate) fn memory(name: &str, rules: Rules) -> Self {
        let network = MemoryNetwork::new();
        let (address, home, other) = (fresh_address(), fresh_address(), fresh_address());
        let wire = Wire::Memory { network: network.clone(), peer: home, stranger: other };
        let mut arena = Self::start(name, rules, address, home, wire, |builder| {
            builder.memory(&network, address)
        });
        let files = tempfile::tempdir().unwrap();
        let mut controller = Node::builder(format!("{name}-controller"))
            .development()
            .cluster(CLUSTER)
            .identity(identity(CONTROLLER))
            .panel_dir(files.path())
            .memory(&network, home)
            .peer(peer("robot", ROBOT, address, &["state"]));
        let _publishers = TOPICS.map(|topic| controller.publisher::<Sample>(topic).unwrap());
        let controller = controller.start().unwrap();
        arena.epoch = controller.report().epoch.get();
        arena.wait_for_life();
        controller.stop().unwrap();
        arena.forget_what_came();
        arena
    }

    fn start(
        name: &str,
        rules: Rules,
        address: SocketAddr,
        home: SocketAddr,
        wire: Wire,
        transport: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut robot = transport(
            Node::builder(format!("{name}-robot"))
                .development()
                .cluster(CLUSTER)
                .identity(identity(ROBOT))
                .panel_dir(files.path())
                .admission(rules.limits)
                .realtime(RealTimeConfig {
                    layout: rules.layout,
                    cores: rules.cores,
                    ..RealTimeConfig::default()
                })
                .topic(TopicConfig {
                    auth: Auth::Open,
                    ..TopicConfig::new("notes", Sample::NAME, TopicClass::Queue)
                })
                .peer(peer("controller", CONTROLLER, home, &["setpoint", "notes"])),
        );
        let [setpoints, notes, limits] =
            TOPICS.map(|topic| robot.queue::<Sample>(topic, rules.queue).unwrap());
        let robot = robot.start().unwrap();
        Self {
            robot,
            setpoints,
            notes,
            limits,
            controller: Forger::new(CONTROLLER, CLUSTER),
            epoch: EPOCH,
            address,
            wire,
            sent: 0,
            before: Counts::new(),
            _files: files,
        }
    }

    /// Answers the robot's Challenges until the robot is in the life that the answer names.
    pub(crate) fn greet(&mut self, epoch: u64, life: [u8; 16]) {
        self.epoch = epoch;
        until("the robot accepts the controller's Hello", || {
            if let Some(challenge) = self.receive(From::Home)
                && let Some(hello) = self.controller.hello(&challenge, epoch, life, &TOPICS)
            {
                self.send(From::Home, &hello);
            }
            (self.known_epoch() == epoch).then_some(())
        });
        self.settle();
    }

    fn known_epoch(&self) -> u64 {
        let snapshot = self.robot.panel().snapshot().unwrap();
        snapshot.gauge("peer.epoch@controller").unwrap().cast_unsigned()
    }

    fn wait_for_life(&self) {
        until("the robot knows the controller's life", || {
            (self.known_epoch() == self.epoch).then_some(())
        });
    }

    /// Waits until every frame that came so far has been counted, and starts counting anew.
    fn forget_what_came(&mut self) {
        // The network is first in, first out: once this last one is counted, all are in.
        self.send(From::Elsewhere, b"x");
        until("the frames of the real controller have been counted", || {
            let counts = self.counts();
            let last = counts.contains_key("receive.drop.too_short@stranger");
            (last && counts["receive.frames"] == accounted(&counts)).then_some(())
        });
        self.before = self.counts();
        self.sent = 0;
    }

    /// Sends one frame, and waits now and then, so that no queue of the node fills up.
    pub(crate) fn send(&mut self, from: From, frame: &[u8]) {
        if self.sent > 0 && self.sent.is_multiple_of(IN_FLIGHT) {
            self.settle();
        }
        self.send_at_once(from, frame);
    }

    /// Sends one frame without waiting for those before it.
    pub(crate) fn send_at_once(&mut self, from: From, frame: &[u8]) {
        match (&self.wire, from) {
            (Wire::Udp { peer, .. }, From::Home) => {
                assert_eq!(peer.send(frame).unwrap(), frame.len());
            }
            (Wire::Udp { stranger, .. }, From::Elsewhere) => {
                assert_eq!(stranger.send(frame).unwrap(), frame.len());
            }
            (Wire::Memory { network, peer, stranger }, from) => {
                let source = if from == From::Home { *peer } else { *stranger };
                assert!(network.inject(source, self.address, frame), "the queue had room");
            }
        }
        self.sent += 1;
    }

    /// A way to put frames into the robot's queue from any thread, which says whether there was
    /// room. Memory only; nothing is counted here.
    pub(crate) fn injector(&self, from: From) -> impl Fn(&[u8]) -> bool + Send + Sync + use<> {
        let Wire::Memory { network, peer, stranger } = &self.wire else {
            panic!("a real network does not say whether there was room")
        };
        let source = if from == From::Home { *peer } else { *stranger };
        let (network, address) = (network.clone(), self.address);
        move |frame| network.inject(source, address, frame)
    }

    /// The next frame that the robot sent to the controller or to the stranger. UDP only.
    pub(crate) fn receive(&self, at: From) -> Option<Vec<u8>> {
        let Wire::Udp { peer, stranger } = &self.wire else {
            panic!("nobody can listen on a memory network")
        };
        let socket = if at == From::Home { peer } else { stranger };
        let mut bytes = [0; 2_048];
        let len = socket.recv(&mut bytes).ok()?;
        Some(bytes[..len].to_vec())
    }

    /// Sends a signed sample from the controller's own address.
    pub(crate) fn sample(&mut self, number: u64) {
        let frame = self.controller.sample("setpoint", self.epoch, number);
        self.send(From::Home, &frame);
    }

    /// Waits until everything that was sent has been counted under something.
    pub(crate) fn settle(&mut self) {
        let (sent, before) = (self.sent, &self.before);
        let give_up = clock::now() + PATIENCE;
        loop {
            let counted = since(before, &self.counts());
            let received = counted.get("receive.frames").copied().unwrap_or(0);
            if received == sent && accounted(&counted) == sent {
                return;
            }
            assert!(clock::now() < give_up, "sent {sent} frames, and counted are {counted:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until every frame since the last call is counted, and checks where: `delivered` to the
    /// subscriber of the set-points, and `drops` under their reasons, and nothing anywhere else.
    pub(crate) fn expect(&mut self, delivered: u64, drops: &[(&str, u64)]) {
        self.settle();
        let now = self.counts();
        let mut counted = since(&self.before, &now);
        counted.remove("receive.frames");
        let expected: Counts = [("delivered/setpoint", delivered)]
            .iter()
            .chain(drops)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        assert_eq!(counted, expected, "left: what the panel counted, right: what was sent in");
        let mut popped = 0;
        while self.setpoints.pop().is_some() {
            popped += 1;
        }
        assert_eq!(popped, delivered, "what the subscriber got is what the panel says");
        self.before = now;
        self.sent = 0;
    }

    /// Every counter of the panel that says where a frame went.
    pub(crate) fn counts(&self) -> Counts {
        counts(&self.robot)
    }
}

pub(crate) fn counts(node: &Node) -> Counts {
    counts_of(node.panel())
}

pub(crate) fn counts_of(panel: &Panel) -> Counts {
    let snapshot = panel.snapshot().unwrap();
    let counted = |name: &str| {
        name.contains(".drop.")
            || name.starts_with("delivered/")
            || ["receive.frames", "handshake.frames"].contains(&name)
    };
    snapshot.counters.into_iter().filter(|(name, value)| counted(name) && *value > 0).collect()
}

/// Frames that ended somewhere.
pub(crate) fn accounted(counts: &Counts) -> u64 {
    counts.iter().filter(|(name, _)| *name != "receive.frames").map(|(_, count)| count).sum()
}

/// What was counted between two looks.
pub(crate) fn since(before: &Counts, now: &Counts) -> Counts {
    now.iter()
        .map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

pub(crate) fn peer(name: &str, seed: u8, address: SocketAddr, publishes: &[&str]) -> PeerConfig {
    PeerConfig {
        name: name.to_owned(),
        identity: identity(seed).public().to_did(),
        address,
        publishes: publishes.iter().map(|topic| (*topic).to_owned()).collect(),
    }
}
