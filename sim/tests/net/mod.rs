//! A few whole nodes in virtual time, without the simulator's faults: what a test says of the network is
//! all that happens.

#![allow(dead_code, reason = "each test file uses its part")]

use sinew_io::message::Message;
use sinew_io::node::{NodeBuilder, PeerConfig, TopicConfig};
use sinew_io::security::Identity;
use sinew_io::simulation::{SimLife, SimNode, cheap_signatures};
use sinew_io::wire::{BootId, Epoch, LifeId};
use sinew_rt::clock::Nanos;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A number, and room to make it 256 bytes long.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Number {
    pub(crate) number: U64,
    padding: [u8; 248],
}

impl Number {
    pub(crate) fn new(number: u64) -> Self {
        Self { number: U64::new(number), padding: [number as u8; 248] }
    }
}

impl Message for Number {
    const NAME: &'static str = "Number@1";
}

pub(crate) const START: Nanos = Nanos::from_secs(100);
/// How finely time passes.
const STEP: Nanos = Nanos::from_micros(20);

pub(crate) fn identity(node: u8) -> Identity {
    Identity::draw(&mut |secret| secret.fill(40 + node)).unwrap()
}

pub(crate) fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 7_400))
}

/// A node that knows `peers`, each of which may publish `topic`.
pub(crate) fn builder(
    node: u8,
    peers: impl IntoIterator<Item = u8>,
    topic: &TopicConfig,
) -> NodeBuilder {
    let mut builder = NodeBuilder::new(format!("node-{node}"))
        .cluster("virtual")
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

pub(crate) fn start(node: u8, builder: NodeBuilder) -> SimNode {
    begin_life(node, 1, builder, START)
}

/// A life of a node, the `epoch`th one, from `now` on.
pub(crate) fn begin_life(node: u8, epoch: u8, builder: NodeBuilder, now: Nanos) -> SimNode {
    cheap_signatures(true);
    let life = SimLife {
        epoch: Epoch::new(epoch.into()),
        life: LifeId([node + (epoch - 1) * 16; 16]),
        boot: BootId([9; 16]),
        seed: node.into(),
    };
    SimNode::start(builder, life, address(node), now).unwrap()
}

/// What the network does with a datagram from one node to another at a time: how long each copy takes.
pub(crate) type Way = Box<dyn FnMut(u8, u8, &[u8], Nanos) -> Vec<Nanos>>;

/// Nodes by number, `None` where one is dead, and what is on its way between them.
pub(crate) struct Net {
    pub(crate) nodes: Vec<Option<SimNode>>,
    way: Way,
    /// By time of arrival, then in the order of sending.
    under_way: BTreeMap<(Nanos, u64), (u8, u8, Vec<u8>)>,
    sent: u64,
    pub(crate) now: Nanos,
}

impl Net {
    pub(crate) fn new(nodes: Vec<SimNode>, way: Way) -> Self {
        let nodes = nodes.into_iter().map(Some).collect();
        Self { nodes, way, under_way: BTreeMap::new(), sent: 0, now: START }
    }

    /// Lets time pass until `end`.
    pub(crate) fn until(&mut self, end: Nanos) {
        while self.now < end {
            self.step();
        }
    }

    /// Lets time pass by one step.
    pub(crate) fn step(&mut self) {
        self.now += STEP;
        while let Some(next) = self.under_way.first_entry() {
            if next.key().0 > self.now {
                break;
            }
            let (from, to, bytes) = next.remove();
            if let Some(Some(node)) = self.nodes.get_mut(usize::from(to)) {
                node.receive(address(from), &bytes);
            }
        }
        for (from, node) in (0..).zip(&mut self.nodes) {
            let Some(node) = node else { continue };
            while node.poll(self.now) {}
            while let Some((to, bytes)) = node.sent() {
                let SocketAddr::V4(to) = to else { continue };
                let to = to.ip().octets()[3];
                for takes in (self.way)(from, to, &bytes, self.now) {
                    self.sent += 1;
                    let arrival = (self.now + takes, self.sent);
                    self.under_way.insert(arrival, (from, to, bytes.clone()));
                }
            }
        }
    }
}
