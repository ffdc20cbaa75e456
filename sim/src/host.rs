//! A node as the simulator sees it: frames in, frames out, a program that publishes and hears.

pub mod real;
pub mod toy;

use sinew_io::message::Message;
use sinew_io::wire::{BootId, ClusterTag, Domain, LifeId, SIGNATURE_LEN, Slot};
use sinew_rt::clock::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::plan::Plan;
use crate::random::split_mix;

/// Where somebody is: the number of a node, or from [`STRANGERS`] on of somebody who is none.
pub type Address = u16;

/// The first address that is no node's.
pub const STRANGERS: Address = 1_000;

/// What every program publishes: who, in which life, on what, the how manieth, and bytes that follow from it.
///
/// The checker believes none of it. It computes what a message with these numbers must be, and asks its own
/// book whether there ever was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Payload {
    /// The publishing node.
    pub node: u16,
    /// The topic, as an index of [`TOPICS`](crate::plan::TOPICS).
    pub topic: u16,
    /// The life of the node: how often it started before.
    pub life: u32,
    /// The how manieth message of that topic in that life, from 1.
    pub number: u64,
    /// Noise that only this message has.
    pub noise: [u64; 3],
}

impl Payload {
    /// The message with these numbers in the run of `seed`.
    #[must_use]
    pub fn new(seed: u64, node: u16, life: u32, topic: u8, number: u64) -> Self {
        let place = u64::from(node) << 40 | u64::from(topic) << 32 | u64::from(life);
        let noise = split_mix(seed ^ split_mix(place ^ split_mix(number)));
        let noise = [noise, !noise, noise.rotate_left(17) ^ number];
        Self { node, topic: u16::from(topic), life, number, noise }
    }
}

impl Message for Payload {
    const NAME: &'static str = "SimPayload@1";
}

/// What a program finds out from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The newest value of a topic changed.
    Value {
        /// The topic.
        topic: u8,
        /// The value.
        payload: Payload,
    },
    /// A message of a queue.
    Queued {
        /// The topic.
        topic: u8,
        /// The message.
        payload: Payload,
    },
    /// A message of a reliable topic.
    Message {
        /// The topic.
        topic: u8,
        /// Who sent it, as the node says.
        from: u16,
        /// In which life, as the node says.
        epoch: u64,
        /// Its number, as the node says.
        sequence: u64,
        /// What it says itself.
        payload: Payload,
        /// Whether an earlier life of this program may have had it, as the node says.
        possible_duplicate: bool,
    },
    /// A message of a topic that nobody may publish.
    Forbidden {
        /// What it says.
        payload: Payload,
    },
    /// Messages of a reliable topic will not come.
    Gap {
        /// The topic.
        topic: u8,
        /// Who sent them.
        from: u16,
        /// In which life.
        epoch: u64,
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// A sender of a reliable topic began a new life.
    NewLife {
        /// The topic.
        topic: u8,
        /// The sender.
        from: u16,
        /// Its new life.
        epoch: u64,
        /// The first message that is expected of it.
        first: u64,
    },
    /// What became of a command of this program's own.
    Outcome {
        /// The topic.
        topic: u8,
        /// The number of the command.
        sequence: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// The topic with values is silent for longer than its deadline, or no longer.
    Silence {
        /// Whether it is.
        silent: bool,
    },
    /// An emergency stop ended although nobody re-armed it.
    Unlatched,
    /// Whether "all is well" may be believed changed.
    Well {
        /// The topic.
        topic: u8,
        /// Whether it may.
        well: bool,
    },
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A reader's program took it.
    Accepted,
    /// A reader's program refused it for that reason.
    Rejected(u8),
    /// It was too old.
    Expired,
    /// It never arrived.
    NeverArrived,
    /// Nobody knows.
    Unknown,
}

/// Whether nodes sync what they write to the disk. They do.
#[must_use]
pub fn syncs() -> bool {
    true
}

/// How a node comes into a life.
#[derive(Debug)]
pub struct Birth<'a> {
    /// The run.
    pub plan: &'a Plan,
    /// The node.
    pub node: u16,
    /// How often it started before.
    pub life: u32,
    /// Its boot counter, already on disk.
    pub epoch: u64,
    /// The name of this life.
    pub life_id: LifeId,
    /// The name of its machine's life.
    pub boot: BootId,
    /// For everything that it draws itself.
    pub seed: u64,
    /// What its clock shows.
    pub now: Nanos,
    /// What its program stored: where its last life stopped to read.
    pub floors: &'a [StoredFloor],
}

/// A program had everything up to this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFloor {
    /// The topic.
    pub topic: u8,
    /// The sender.
    pub from: u16,
    /// The sender's life.
    pub epoch: u64,
    /// The message.
    pub sequence: u64,
}

/// Why a program could not publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has no room for another message")]
pub struct WouldBlock;

/// One node in one life. A killed node is dropped, with everything in it.
pub trait Host: Sized {
    /// Whether it speaks of reliable topics in the reports of the wire, and keeps deadlines: without, less is
    /// promised.
    const SPEAKS_REPORTS: bool;
    /// Whether it counts what it drops.
    const COUNTS_DROPS: bool;

    /// Starts a life.
    ///
    /// # Errors
    /// Why the node did not start.
    fn start(birth: &Birth<'_>) -> Result<Self, String>;

    /// A frame arrives in the node's socket: whether there was room for it.
    fn receive(&mut self, from: Address, frame: &[u8]) -> bool;

    /// Runs the node once at `now` of its own clock: whether there was anything to do.
    fn poll(&mut self, now: Nanos) -> bool;

    /// When the node wants to be run next, on its own clock.
    fn next_deadline(&self) -> Option<Nanos>;

    /// Takes every frame that the node wants to send.
    fn sent(&mut self, take: &mut dyn FnMut(Address, &[u8]));

    /// The program publishes.
    ///
    /// # Errors
    /// When there is no room, which the program has to bear.
    fn publish(&mut self, topic: u8, payload: &Payload, now: Nanos) -> Result<(), WouldBlock>;

    /// The program reads what is there for it: of reliable topics only if `reads_all`.
    fn hear(&mut self, now: Nanos, reads_all: bool, take: &mut dyn FnMut(Heard));

    /// The key id of a node: the same in each of its lives.
    fn key_id(node: u16) -> u64;

    /// The tag of the cluster of all nodes.
    fn cluster() -> ClusterTag;

    /// The life that the node is in.
    fn epoch(&self) -> u64;

    /// Signs the envelope that lies in `slot` with this node's key, and says the length of the frame. It is what
    /// a member can do that lies; `None` where nothing is signed.
    fn sign(&self, _slot: &mut Slot) -> Option<usize> {
        None
    }

    /// Signs the body of a handshake message with this node's key.
    fn sign_body(&self, _domain: Domain, _body: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
        None
    }

    /// The wall clock jumps, which must not matter.
    fn step_wall_clock(&mut self, _by: Nanos) {}

    /// Adds what the node dropped, by the index of its reason.
    fn add_drops(&self, _drops: &mut [u64]) {}

    /// The places for frames that are free, and all that there are.
    fn slots(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Makes this thread ready for nodes, with the fault of that name planted in each of them.
    ///
    /// # Errors
    /// When no fault has that name.
    fn prepare(plant: Option<&str>) -> Result<(), String> {
        plant.map_or(Ok(()), |name| Err(format!("no fault to plant is called `{name}`")))
    }

    /// The faults that can be planted.
    fn plants() -> Vec<&'static str> {
        Vec::new()
    }

    /// The branches of the protocol that are counted, with how often nodes of this thread came by since the
    /// last call.
    fn take_branches() -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
