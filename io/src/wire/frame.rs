//! The frame: what one datagram carries, and the first questions that a packet meets.
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | magic | u16 | [`MAGIC`] |
//! | 2 | version | u8 | [`VERSION`]; anything else is dropped and counted |
//! | 3 | kind | u8 | [`FrameKind`] |
//! | 4 | session | u32 | the cluster's tag ([`ClusterTag`]), a cheap filter |
//! | 8 | counter | u64 | the key id of the sender ([`KeyId`]) |
//!
//! All numbers are little-endian. (For `Sealed` frames, `session` will be the receiver's session
//! index and `counter` a nonce; this release refuses that kind.)

use std::mem::size_of;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::envelope::Envelope;
use super::hello::HandshakeFrame;
use super::names::{ClusterTag, KeyId};
use super::{FRAME_MAX, PAYLOAD_MAX};

/// The first two bytes of every frame, little-endian: `0x4e 0x53`.
pub const MAGIC: u16 = 0x534e;
/// The only version of the format.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const FRAME_HEADER_LEN: usize = size_of::<FrameHeader>();

/// Room for any frame. Encoders write into it in place.
pub type Slot = [u8; FRAME_MAX];

/// The first 16 bytes of every frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    magic: U16,
    version: u8,
    kind: u8,
    session: U32,
    counter: U64,
}

impl FrameHeader {
    /// The header of a clear frame or a handshake frame, sent by `sender` in `cluster`.
    #[must_use]
    pub fn new(kind: FrameKind, cluster: ClusterTag, sender: KeyId) -> Self {
        Self {
            magic: U16::new(MAGIC),
            version: VERSION,
            kind: kind as u8,
            session: U32::new(cluster.get()),
            counter: U64::new(sender.get()),
        }
    }

    /// The cluster that the frame claims to belong to.
    #[must_use]
    pub fn cluster(&self) -> ClusterTag {
        ClusterTag::from_raw(self.session.get())
    }

    /// The sender that the frame claims to come from.
    #[must_use]
    pub fn sender(&self) -> KeyId {
        KeyId::from_raw(self.counter.get())
    }
}

/// What the body of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// An envelope in the clear.
    Clear = 1,
    /// An envelope under AEAD. Reserved: refused by this release.
    Sealed = 2,
    /// Membership. Reserved: refused by this release.
    Membership = 3,
    /// A Challenge or a Hello.
    Handshake = 4,
}

/// What is wrong with a frame, with the numbers that show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Fewer bytes than the fixed parts need.
    #[error("{got} bytes, but this part of the format needs {need}")]
    TooShort {
        /// Bytes needed.
        need: usize,
        /// Bytes present.
        got: usize,
    },
    /// More bytes than any frame may have.
    #[error("{got} bytes; a frame has at most {FRAME_MAX}")]
    TooLong {
        /// Bytes present.
        got: usize,
    },
    /// Not one of our frames.
    #[error("magic {got:#06x} instead of {MAGIC:#06x}")]
    BadMagic {
        /// The first two bytes.
        got: u16,
    },
    /// A version that this release does not speak.
    #[error("version {got} instead of {VERSION}")]
    BadVersion {
        /// The version byte.
        got: u8,
    },
    /// A kind that this release does not accept.
    #[error("frame kind {got} is not accepted")]
    BadKind {
        /// The kind byte.
        got: u8,
    },
    /// The payload length is beyond what an envelope may carry.
    #[error("payload of {declared} bytes declared; {PAYLOAD_MAX} is the most")]
    PayloadTooLong {
        /// The length in the header.
        declared: usize,
    },
    /// The lengths in the headers and the length of the frame disagree: bytes are missing or left.
    #[error("the headers say {declared} bytes, the frame has {got}")]
    LengthMismatch {
        /// Bytes by the headers.
        declared: usize,
        /// Bytes present.
        got: usize,
    },
    /// A flag that this release does not know.
    #[error("unknown flags in {got:#04x}")]
    UnknownFlags {
        /// The flags byte.
        got: u8,
    },
    /// A delivery class that does not exist.
    #[error("unknown delivery class {got}")]
    UnknownClass {
        /// The class byte.
        got: u8,
    },
    /// The frame and what it carries name different senders.
    #[error("the frame names sender {frame}, its content {content}")]
    SenderMismatch {
        /// The sender in the frame header.
        frame: KeyId,
        /// The source of the envelope or handshake message.
        content: KeyId,
    },
    /// A handshake message that does not exist.
    #[error("unknown handshake message {got}")]
    UnknownMessage {
        /// The message byte.
        got: u8,
    },
    /// A Hello that lists more streams than it has room for.
    #[error("{got} streams listed; a hello has room for {max}")]
    TooManyStreams {
        /// The count in the message.
        got: u8,
        /// The room.
        max: usize,
    },
    /// Reserved bytes that are not zero: they could otherwise carry what a later release means.
    #[error("reserved bytes are not zero")]
    Reserved,
}

/// A frame of which only the header was looked at: ours, of a known version and kind.
#[derive(Clone, Copy, Debug)]
pub struct RawFrame<'a> {
    /// The header.
    pub header: &'a FrameHeader,
    /// What the body is: [`FrameKind::Clear`] or [`FrameKind::Handshake`].
    pub kind: FrameKind,
    body: &'a [u8],
}

impl<'a> RawFrame<'a> {
    /// The first filters: length, then magic, version and kind. Wait-free, a few nanoseconds.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > FRAME_MAX {
            return Err(Malformed::TooLong { got: bytes.len() });
        }
        let Ok((header, body)) = FrameHeader::ref_from_prefix(bytes) else {
            return Err(Malformed::TooShort { need: FRAME_HEADER_LEN, got: bytes.len() });
        };
        if header.magic.get() != MAGIC {
            return Err(Malformed::BadMagic { got: header.magic.get() });
        }
        if header.version != VERSION {
            return Err(Malformed::BadVersion { got: header.version });
        }
        let kind = match header.kind {
            kind if kind == FrameKind::Clear as u8 => FrameKind::Clear,
            kind if kind == FrameKind::Handshake as u8 => FrameKind::Handshake,
            got => return Err(Malformed::BadKind { got }),
        };
        Ok(Self { header, kind, body })
    }

    /// Decodes the body, in place.
    pub fn contents(self) -> Result<Frame<'a>, Malformed> {
        if self.kind != FrameKind::Handshake {
            return self.envelope().map(Frame::Clear);
        }
        let handshake = HandshakeFrame::parse(self.body)?;
        self.is_from(handshake.message.from())?;
        Ok(Frame::Handshake(handshake))
    }

    /// Decodes the body of a clear frame, in place; of any other it is [`Malformed::BadKind`].
    #[inline]
    pub fn envelope(self) -> Result<Envelope<'a>, Malformed> {
        if self.kind != FrameKind::Clear {
            return Err(Malformed::BadKind { got: self.kind as u8 });
        }
        let envelope = Envelope::parse(self.body)?;
        self.is_from(envelope.header.source())?;
        Ok(envelope)
    }

    #[inline]
    fn is_from(&self, content: KeyId) -> Result<(), Malformed> {
        let frame = self.header.sender();
        if frame == content { Ok(()) } else { Err(Malformed::SenderMismatch { frame, content }) }
    }
}

/// A whole frame whose structure is right. Nothing in it is proven yet.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// An envelope in the clear.
    Clear(Envelope<'a>),
    /// A Challenge or a Hello.
    Handshake(HandshakeFrame<'a>),
}

/// Decodes a whole frame in place: no copy, no allocation, no panic, whatever the bytes are.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, Malformed> {
    RawFrame::parse(bytes)?.contents()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_table_in_the_documentation_is_the_layout() {
        assert_eq!(offset_of!(FrameHeader, magic), 0);
        assert_eq!(offset_of!(FrameHeader, version), 2);
        assert_eq!(offset_of!(FrameHeader, kind), 3);
        assert_eq!(offset_of!(FrameHeader, session), 4);
        assert_eq!(offset_of!(FrameHeader, counter), 8);
        assert_eq!(FRAME_HEADER_LEN, 16);
    }
}
