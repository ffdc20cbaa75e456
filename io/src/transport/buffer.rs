//! The slot in which one frame lives from the socket to the subscriber.

use crate::security::PeerIndex;
use crate::wire::FRAME_MAX;
use sinew_rt::clock::Nanos;
use sinew_rt::pool::{Pool, Slot};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// One received frame and what this node knows about it: 1,280 bytes, 20 cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct FrameBuffer {
    /// The frame's bytes; only the first `len` mean anything.
    pub(crate) bytes: [u8; FRAME_MAX],
    pub(crate) source: SocketAddr,
    /// When the receive stage took it from the transport.
    pub(crate) received_at: Nanos,
    pub(crate) len: u16,
    /// Which enrolled peer claims to have sent it: set by the receive stage, proven by the
    /// verify stage.
    pub(crate) peer: PeerIndex,
    /// Whether it came from that peer's own address: set by the receive stage.
    pub(crate) at_home: bool,
}

const _: () = assert!(size_of::<FrameBuffer>() == 1_280, "the slot size that the design names");

impl FrameBuffer {
    /// An empty buffer, all of whose memory has been written (and so is resident).
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; FRAME_MAX],
            source: NOWHERE,
            received_at: Nanos::ZERO,
            len: 0,
            peer: PeerIndex::new(0),
            at_home: false,
        }
    }

    /// The frame.
    #[must_use]
    pub(crate) fn frame(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(FRAME_MAX)]
    }

    /// Whom a refusal of this frame is counted against: the peer, if the frame came from the peer's
    /// own address. A name alone is a claim that anybody can make.
    #[must_use]
    pub(crate) fn charged_to(&self) -> Option<PeerIndex> {
        self.at_home.then_some(self.peer)
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// The source of a buffer that holds no frame yet.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// The slots of a node.
pub(crate) type FramePool = Pool<FrameBuffer>;
/// One lent slot.
pub(crate) type FrameSlot = Slot<FrameBuffer>;
