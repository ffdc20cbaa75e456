//! How frames leave and reach a node. Two transports share one contract: `memory` within a
//! process, `udp` between processes and hosts.

pub(crate) mod buffer;
pub mod memory;
mod mmsg;
pub(crate) mod park;
mod segments;
pub(crate) mod udp;

use crate::security::PeerIndex;
use buffer::{FramePool, FrameSlot};
use sinew_rt::clock::Nanos;
use std::io;
use std::net::SocketAddr;

/// Most frames that one call to [`Receive::receive`] gives, and that leave without `UDP_SEGMENT` in one.
pub(crate) const BATCH: usize = 32;

/// Most frames that leave in one system call: what `UDP_SEGMENT` takes (`UDP_MAX_SEGMENTS` in
/// include/linux/udp.h; older kernels take [`BURST_OF_OLD`]).
pub(crate) const BURST: usize = 128;
/// What every kernel takes that knows `UDP_SEGMENT`.
pub(crate) const BURST_OF_OLD: usize = 64;

/// What one call to [`Receive::receive`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Frames handed to `accept`.
    pub(crate) frames: usize,
    /// Whether more may be waiting. A lane may park only after a call that said no.
    pub(crate) more: bool,
    /// Reads that failed for a reason that is not part of normal traffic.
    pub(crate) errors: u64,
    /// Answers of the network that nothing listens where we sent something, or that no way leads there.
    pub(crate) unreachable: u64,
}

/// The receiving half of a transport, owned by the receive stage. Does not block or allocate.
pub(crate) trait Receive: Send {
    /// Takes up to [`BATCH`] frames in all into slots of `pool` and hands each to `accept`. When the pool
    /// is empty, frames are read and thrown away, counted as `starved`: a queue that stands still
    /// would only make what comes later old.
    fn receive(
        &mut self,
        pool: &FramePool,
        now: Nanos,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> Received;

    /// Makes a parked lane wake when a frame comes. Before the lanes start.
    fn attach(&mut self, park: &mut park::SocketPark) -> io::Result<()>;
}

/// The sending half, for one thread. A node has one for its send stage and one for housekeeping.
pub(crate) trait Transmit: Send {
    /// Sends each frame as one datagram to `peer`. Never blocks: what the transport does not take
    /// is lost, and the result says how many were taken.
    fn send(&mut self, peer: PeerIndex, frames: &[&[u8]]) -> usize;
}

/// Both halves of a transport that was bound.
pub(crate) struct Endpoint {
    pub(crate) local: SocketAddr,
    pub(crate) receiver: Box<dyn Receive>,
    pub(crate) lane_transmitter: Box<dyn Transmit>,
    pub(crate) housekeeping_transmitter: Box<dyn Transmit>,
}

/// Why a transport could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another socket has the port.
    #[error(
        "{address} is in use: choose another port, or end the process that holds it (ss -ulpn)"
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("{address}: cannot {action}: {error}")]
    System {
        /// The address asked for, or of the peer.
        address: SocketAddr,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        error: io::Error,
    },
}
