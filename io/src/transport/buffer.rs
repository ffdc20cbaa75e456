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

    /// Takes in a datagram of `len` bytes, of which `bytes` are the first that matter.
    #[inline]
    pub(crate) fn take_in(&mut self, source: SocketAddr, bytes: &[u8], len: usize) {
        let kept = bytes.len().min(FRAME_MAX);
        self.bytes[..kept].copy_from_slice(&bytes[..kept]);
        self.len = u16::try_from(len).unwrap_or(u16::MAX);
        self.source = source;
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

/// A datagram that waits in memory instead of in a socket.
pub(crate) struct Datagram {
    source: SocketAddr,
    /// The length that was sent, which may exceed what is kept.
    len: usize,
    bytes: [u8; FRAME_MAX],
}

impl Datagram {
    /// What `source` sent, cut off where no frame is that long.
    pub(crate) fn new(source: SocketAddr, sent: &[u8]) -> Self {
        let mut bytes = [0; FRAME_MAX];
        let kept = sent.len().min(FRAME_MAX);
        bytes[..kept].copy_from_slice(&sent[..kept]);
        Self { source, len: sent.len(), bytes }
    }

    /// The same in a slot, if there is one.
    pub(crate) fn into_slot(self, pool: &FramePool) -> Option<FrameSlot> {
        let mut slot = pool.take()?;
        slot.take_in(self.source, &self.bytes[..self.len.min(FRAME_MAX)], self.len);
        Some(slot)
    }
}

/// The slots of a node.
pub(crate) type FramePool = Pool<FrameBuffer>;
/// One lent slot.
pub(crate) type FrameSlot = Slot<FrameBuffer>;
