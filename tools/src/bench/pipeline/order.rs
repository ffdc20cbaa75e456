//! What the parent and its two children say to each other: one JSON value a line, over pipes.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::super::evidence::Cause;
use super::super::report::ThreadReport;
use super::schedule::{Bursts, Stall};

/// What a child is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Sends, and in a ping-pong receives the answers.
    Sender,
    /// Receives, and in a ping-pong answers.
    Receiver,
    /// Sends as fast as it can what the receiver must withstand.
    Flooder,
    /// Runs a node that has nothing to do.
    Idler,
}

impl Role {
    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
            Self::Flooder => "flooder",
            Self::Idler => "idler",
        }
    }
}

/// Whether threads keep their core while they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Waits {
    Spin,
    Park,
}

/// Whether messages carry signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protection {
    Open,
    Signed,
}

/// How the lanes of a node are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lanes {
    Fused,
    Split,
    Pipelined,
}

/// How a plain program sleeps; spinning needs no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sleep {
    /// In `recv`.
    Recv,
    /// In a mio poll.
    Poll,
}

/// When the next message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// At scheduled times, this many ns apart, whatever became of earlier ones: an open loop.
    Every(i64),
    /// When the answer to the one before has come: a ping-pong.
    PingPong,
    /// As soon as the node takes it.
    Saturated,
}

/// What runs in the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Program {
    /// A plain program with one connected socket on each side.
    Bare(Sleep, Protection),
    /// Two nodes, whose stages of this bench's own send and receive on the lanes.
    Node(Lanes, Protection),
    /// The same with a topic that is reliable and in order.
    Stream(Lanes, Protection),
    /// One signature a message at the sender, one strict check at the receiver, no network.
    Crypto,
    /// Strict checks one after the other at the receiver, one signature a message at the sender, no
    /// network.
    VerifyLoop,
}

/// One stretch of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) program: Program,
    pub(crate) waits: Waits,
    pub(crate) pace: Pace,
    pub(crate) bursts: Bursts,
    /// Most spans that are kept; a ping-pong ends there.
    pub(crate) samples_max: usize,
    /// Spans before those that are kept.
    pub(crate) warm_up: u64,
    /// Operations that each span covers.
    pub(crate) batch: u64,
    pub(crate) stall: Option<Stall>,
    pub(crate) priority: u8,
}

/// One end as the other must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) identity: String,
    pub(crate) address: SocketAddr,
}

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FloodKind {
    /// Bytes that are no frame.
    Garbage,
    /// Frames as the sender would send them, with its key id, from another address and with a
    /// signature that is not its own.
    Forged,
}

/// A flood of the receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flood {
    pub(crate) kind: FloodKind,
    pub(crate) bursts: Bursts,
    /// Whose frames to forge.
    pub(crate) victim: End,
    pub(crate) victim_epoch: u64,
    pub(crate) target: SocketAddr,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Prepare this leg with that peer, and answer [`Answer::Ready`].
    Prepare { leg: Leg, peer: End },
    /// Prepare this flood, and answer [`Answer::Ready`].
    PrepareFlood(Flood),
    /// Run what was prepared, from this instant of `CLOCK_MONOTONIC` on, and answer
    /// [`Answer::Done`].
    Go { start_ns: i64 },
}

/// From a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It runs, and this is who it is.
    Hello(End),
    /// It is prepared.
    Ready {
        threads: Vec<ThreadReport>,
        /// Why its figures are not real-time figures.
        not_real_time: Vec<String>,
        /// The life of its node, if it is one.
        epoch: u64,
    },
    /// It is done.
    Done(Findings),
    /// It could not do it.
    Failed(String),
}

/// What one process measured in one leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Messages handed to the socket or the publisher.
    pub(crate) sent: u64,
    /// Messages that came in.
    pub(crate) received: u64,
    /// The spans in ns: one-way for messages, or the duration of an operation.
    pub(crate) spans_ns: Vec<u32>,
    /// The same messages, counted from the time that the schedule set for them.
    pub(crate) from_schedule_ns: Vec<u32>,
    /// When the longest span ended.
    pub(crate) max_at_ns: i64,
    /// The longest spans from the schedule, where there is one.
    pub(crate) worst: Vec<LateMessage>,
    /// Time from publishing to the deliver stage, by the node's panel: (ns, count).
    pub(crate) age_ns: Vec<(u64, u64)>,
    /// Envelopes that the node sent, received, and dropped by reason, by its panel.
    pub(crate) counters: Vec<(String, u64)>,
}

/// One of the messages that took longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LateMessage {
    pub(crate) length_ns: i64,
    /// When it was due.
    pub(crate) at_ns: i64,
    pub(crate) cause: Cause,
}

impl Findings {
    /// The counter called `name`.
    pub(crate) fn counter(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The sum of all counters whose name starts with `prefix`.
    pub(crate) fn counted(&self, prefix: &str) -> u64 {
        let named = self.counters.iter().filter(|(name, _)| name.starts_with(prefix));
        named.map(|(_, value)| value).sum()
    }
}
