//! What happens to nodes and to the links between them, and when: the same description for the
//! simulator and for real processes behind the relay.
//!
//! Everything here is pure. [`mod@file`] reads a scenario from the text of a TOML file, [`link`] says what
//! becomes of each datagram of one direction, [`stream`] of the bytes of a TCP connection, and
//! [`network`] is all links of a scenario with its timed faults. Who has sockets, or a virtual clock,
//! passes `now` and bytes in and takes due bytes out; one seed gives the same decisions always.

pub mod draws;
pub mod file;
pub mod link;
pub mod network;
pub mod stream;

use sinew_rt::clock::Nanos;
use std::net::SocketAddr;

/// Nodes that a scenario can have.
pub const NODES_MAX: usize = 64;
/// Rules for links that a scenario can have.
pub const LINKS_MAX: usize = 4_096;
/// Faults that a scenario can have.
pub const FAULTS_MAX: usize = 65_536;

/// Nodes, the links between them, and what goes wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// All that is random follows from it.
    pub seed: u64,
    /// For how long it runs; `None` until somebody ends it.
    pub duration: Option<Nanos>,
    /// At most [`NODES_MAX`].
    pub nodes: Vec<Node>,
    /// At most [`LINKS_MAX`]. The last one that matches a pair of nodes holds for it; a pair that none
    /// matches has a perfect link.
    pub links: Vec<LinkRule>,
    /// Where the relay stands between real processes. To the simulator they say who knows whom.
    pub paths: Vec<Path>,
    /// At most [`FAULTS_MAX`].
    pub faults: Vec<Fault>,
}

/// A node's place in [`Scenario::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(usize);

impl NodeIndex {
    /// The node at place `n`.
    #[must_use]
    pub const fn new(n: usize) -> Self {
        Self(n)
    }

    /// Its place.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What the rest of the scenario calls it.
    pub name: String,
    /// Where the real process is.
    pub address: Option<SocketAddr>,
    /// The program and its arguments that make the real process; empty when somebody else starts it.
    pub run: Vec<String>,
}

/// One end of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Any node: `"*"`.
    Anyone,
    /// This one.
    Node(NodeIndex),
}

impl Who {
    /// Whether `node` is meant.
    #[must_use]
    pub fn is(self, node: NodeIndex) -> bool {
        match self {
            Self::Anyone => true,
            Self::Node(one) => one == node,
        }
    }
}

/// What holds for the traffic from some nodes to some others. Directed: the way back has a rule of its
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRule {
    /// Who sends.
    pub from: Who,
    /// Who receives.
    pub to: Who,
    /// What the link does.
    pub shape: Shape,
}

/// What one direction of a link does to what it carries. The default is a perfect link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// How many datagrams are lost.
    pub loss: Chance,
    /// How many come twice.
    pub duplicate: Chance,
    /// How many have bits flipped.
    pub corrupt: Chance,
    /// How many are held back for longer than the delay says, so that others overtake them.
    pub reorder: Chance,
    /// For how long at most.
    pub reorder_within: Nanos,
    /// How long everything takes. It keeps the order.
    pub delay: Delay,
    /// How much passes.
    pub rate: Option<Rate>,
}

/// A probability in steps of 2⁻³², so that decisions are made with whole numbers and are the same on
/// every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u64);

impl Chance {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(1 << 32);

    /// `percent` of all cases, from 0 to 100; values outside are the nearest of these, NaN is 0.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        // The cast takes NaN and what is negative to 0.
        Self(((percent / 100.0 * (1_u64 << 32) as f64) as u64).min(1 << 32))
    }

    /// Whether it happens, given 32 random bits.
    #[must_use]
    pub(crate) const fn holds(self, bits: u32) -> bool {
        (bits as u64) < self.0
    }

    /// For people.
    #[must_use]
    pub fn as_percent(self) -> f64 {
        self.0 as f64 * 100.0 / (1_u64 << 32) as f64
    }
}

/// How long a link takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// Always the same.
    Fixed(Nanos),
    /// Anything between the two, each as likely.
    Uniform {
        /// The shortest.
        least: Nanos,
        /// The longest.
        most: Nanos,
    },
    /// Around a mean, and never outside the bounds.
    Normal {
        /// The middle.
        mean: Nanos,
        /// The standard deviation.
        deviation: Nanos,
        /// The shortest.
        least: Nanos,
        /// The longest.
        most: Nanos,
    },
}

impl Default for Delay {
    fn default() -> Self {
        Self::Fixed(Nanos::ZERO)
    }
}

/// What passes a link in a second, and what may wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From 1.
    pub bytes_per_s: u64,
    /// What finds more than this waiting is dropped.
    pub queue_bytes: u64,
}

/// Where the relay stands in for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Whoever sends here…
    pub from: NodeIndex,
    /// …means this node.
    pub to: NodeIndex,
    /// The relay's own address: what `from` is told is the address of `to`. `None` is said on the
    /// command line.
    pub listen: Option<SocketAddr>,
    /// What is carried.
    pub transport: Transport,
}

/// What the relay carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// Byte streams, in which nothing is lost: they are late, slow, stalled or cut.
    Tcp,
}

/// Something that goes wrong at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long after the start.
    pub at: Nanos,
    /// What happens.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing passes from the one to the other. Byte streams stall.
    Partition {
        /// Who is not heard.
        from: Who,
        /// Who does not hear.
        to: Who,
        /// For how long.
        lasts: Nanos,
    },
    /// Links are of another shape for a while.
    Shape {
        /// Who sends.
        from: Who,
        /// Who receives.
        to: Who,
        /// What the links do meanwhile.
        shape: Shape,
        /// For how long.
        lasts: Nanos,
    },
    /// Byte streams that the one opened to the other are reset. Nothing happens to datagrams.
    Reset {
        /// Who opened them.
        from: Who,
        /// Who accepted them.
        to: Who,
    },
    /// A node dies at once, with all that it has not on disk.
    Kill {
        /// Which.
        node: NodeIndex,
        /// How long after that it starts again; `None` for never.
        restart_after: Option<Nanos>,
    },
    /// A node stands still, as by SIGSTOP, and goes on.
    Stall {
        /// Which.
        node: NodeIndex,
        /// For how long.
        lasts: Nanos,
    },
}

impl Scenario {
    /// The node with this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.iter().position(|node| node.name == name).map(NodeIndex)
    }

    /// The name of a node; empty for one that the scenario does not have.
    #[must_use]
    pub fn name(&self, node: NodeIndex) -> &str {
        self.nodes.get(node.get()).map_or("", |node| &node.name)
    }

    /// What the link from one node to the other does while no fault changes it.
    #[must_use]
    pub fn shape(&self, from: NodeIndex, to: NodeIndex) -> Shape {
        let holds = |rule: &&LinkRule| rule.from.is(from) && rule.to.is(to);
        self.links.iter().rev().find(holds).map_or_else(Shape::default, |rule| rule.shape)
    }
}
