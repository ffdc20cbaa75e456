//! The envelope: one message of one stream, as stages hand it to each other.
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | source | u64 | key id of the sender |
//! | 8 | destination | u64 | key id of the receiver, 0 = everyone |
//! | 16 | topic | u64 | [`TopicId`] |
//! | 24 | schema | u64 | [`SchemaId`] |
//! | 32 | epoch | u64 | the sender's life |
//! | 40 | sequence | u64 | number in the stream, from 1 |
//! | 48 | sent_at | i64 | the sender's `CLOCK_MONOTONIC`, ns |
//! | 56 | lifespan_us | u32 | older than this must not be delivered, µs; 0 = no limit |
//! | 60 | class | u8 | [`Class`] |
//! | 61 | flags | u8 | [`SIGNED`] |
//! | 62 | payload_len | u16 | 0 to 1,024 |
//! | 64 | payload | bytes | `payload_len` of them |
//! | 64 + payload_len | signature | 64 bytes | only if flagged: Ed25519 over context ‖ header ‖ payload |
//!
//! All numbers are little-endian; offsets count from the end of the frame header.

use std::mem::{offset_of, size_of};

use sinew_rt::clock::Nanos;
use thiserror::Error;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind, Malformed};
use super::names::{ClusterTag, Epoch, KeyId, SchemaId, Sequence, TopicId};
use super::{FRAME_MAX, PAYLOAD_MAX, SIGNATURE_LEN};

/// Bytes of the envelope's header.
pub const ENVELOPE_HEADER_LEN: usize = size_of::<EnvelopeHeader>();
/// Flag: a signature follows the payload.
pub const SIGNED: u8 = 0x01;

const HEADER_AT: usize = FRAME_HEADER_LEN;
const PAYLOAD_AT: usize = FRAME_HEADER_LEN + ENVELOPE_HEADER_LEN;
const _: () = assert!(PAYLOAD_AT + PAYLOAD_MAX + SIGNATURE_LEN <= FRAME_MAX);

/// What the sender promises for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Best effort; whether a subscriber keeps the newest value or queues what comes is its choice.
    Control = 1,
    /// In order, at most once, with the outcome reported.
    Command = 2,
    /// Reliable and in order, with back-pressure.
    Stream = 3,
    /// Stored before it is acknowledged. Reserved: this release drops it as a class that is not served.
    Durable = 4,
    /// "All is well", periodic; its absence is the stop.
    EStop = 5,
}

impl Class {
    /// The names, in the order of the numbers.
    pub const NAMES: [&'static str; 5] = ["control", "command", "stream", "durable", "estop"];

    /// The class with this number on the wire.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Control,
            2 => Self::Command,
            3 => Self::Stream,
            4 => Self::Durable,
            5 => Self::EStop,
            _ => return None,
        })
    }
}

/// What a publisher says about an envelope; the rest of the header follows from it.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeFields {
    /// The sender's key id.
    pub source: KeyId,
    /// The receiver's key id, or [`KeyId::EVERYONE`].
    pub destination: KeyId,
    /// The topic.
    pub topic: TopicId,
    /// The type of the payload.
    pub schema: SchemaId,
    /// The sender's life.
    pub epoch: Epoch,
    /// The number in the stream.
    pub sequence: Sequence,
    /// The sender's `CLOCK_MONOTONIC`.
    pub sent_at: Nanos,
    /// The age beyond which it must not be delivered, in µs; 0 is no limit.
    pub lifespan_us: u32,
    /// The delivery class.
    pub class: Class,
}

/// The 64 bytes before the payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EnvelopeHeader {
    source: U64,
    destination: U64,
    topic: U64,
    schema: U64,
    epoch: U64,
    sequence: U64,
    sent_at: I64,
    lifespan_us: U32,
    class: u8,
    flags: u8,
    payload_len: U16,
}

impl EnvelopeHeader {
    fn new(fields: &EnvelopeFields, payload_len: u16) -> Self {
        Self {
            source: U64::new(fields.source.get()),
            destination: U64::new(fields.destination.get()),
            topic: U64::new(fields.topic.get()),
            schema: U64::new(fields.schema.get()),
            epoch: U64::new(fields.epoch.get()),
            sequence: U64::new(fields.sequence.get()),
            sent_at: I64::new(fields.sent_at.as_nanos()),
            lifespan_us: U32::new(fields.lifespan_us),
            class: fields.class as u8,
            flags: 0,
            payload_len: U16::new(payload_len),
        }
    }

    /// The key id of the sender.
    #[must_use]
    pub fn source(&self) -> KeyId {
        KeyId::from_raw(self.source.get())
    }

    /// The key id of the receiver, or [`KeyId::EVERYONE`].
    #[must_use]
    pub fn destination(&self) -> KeyId {
        KeyId::from_raw(self.destination.get())
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        TopicId::from_raw(self.topic.get())
    }

    /// The type of the payload.
    #[must_use]
    pub fn schema(&self) -> SchemaId {
        SchemaId::from_raw(self.schema.get())
    }

    /// The sender's life.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.get())
    }

    /// The number in the stream.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        Sequence::new(self.sequence.get())
    }

    /// The sender's `CLOCK_MONOTONIC` when it sent. The receiver's clock may be another one.
    #[must_use]
    pub fn sent_at(&self) -> Nanos {
        Nanos::new(self.sent_at.get())
    }

    /// The greatest age at delivery, or `None` when there is no limit.
    #[must_use]
    pub fn lifespan(&self) -> Option<Nanos> {
        match self.lifespan_us.get() {
            0 => None,
            us => Some(Nanos::from_micros(i64::from(us))),
        }
    }

    /// The delivery class, or `None` for a number that names none (never so in a decoded envelope).
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        Class::from_wire(self.class)
    }

    /// Whether a signature follows the payload.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.flags & SIGNED != 0
    }

    /// Bytes of payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(self.payload_len.get())
    }
}

/// A well-formed envelope, in place in the received bytes. Nothing in it is proven yet.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The header.
    pub header: &'a EnvelopeHeader,
    /// The payload.
    pub payload: &'a [u8],
    /// The signature, if the envelope is flagged as signed.
    pub signature: Option<&'a [u8; SIGNATURE_LEN]>,
    signed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Decodes the body of a clear frame. Every byte must be accounted for.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let Ok((header, rest)) = EnvelopeHeader::ref_from_prefix(body) else {
            return Err(Malformed::TooShort { need: ENVELOPE_HEADER_LEN, got: body.len() });
        };
        let payload_len = header.payload_len();
        if payload_len > PAYLOAD_MAX {
            return Err(Malformed::PayloadTooLong { declared: payload_len });
        }
        if header.flags & !SIGNED != 0 {
            return Err(Malformed::UnknownFlags { got: header.flags });
        }
        if header.class().is_none() {
            return Err(Malformed::UnknownClass { got: header.class });
        }
        let signature_len = if header.is_signed() { SIGNATURE_LEN } else { 0 };
        let declared = payload_len + signature_len;
        let mismatch = Malformed::LengthMismatch { declared, got: rest.len() };
        if rest.len() != declared {
            return Err(mismatch);
        }
        let (payload, signature) = rest.split_at_checked(payload_len).ok_or(mismatch)?;
        let signed = body.get(..ENVELOPE_HEADER_LEN + payload_len).ok_or(mismatch)?;
        Ok(Self { header, payload, signature: signature.try_into().ok(), signed })
    }

    /// Header and payload as they lie in the frame: what a signature covers, after its context.
    #[must_use]
    pub fn signed_bytes(&self) -> &'a [u8] {
        self.signed
    }
}

/// A frame that does not fit the room that was given for it, or is longer than any frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of {need} bytes does not fit: there is room for {room}")]
pub struct FrameTooLong {
    /// The bytes of the frame, headers and signature included.
    pub need: usize,
    /// The bytes that there are for it: of the room that was given, what such a frame has at most.
    pub room: usize,
}

/// Whether a frame around `payload_len` bytes fits; its length.
fn fitting(room: &[u8], payload_len: usize, signed: bool) -> Result<usize, FrameTooLong> {
    let need = frame_len(payload_len, signed);
    let room = room.len().min(frame_len(PAYLOAD_MAX, signed));
    if need <= room { Ok(need) } else { Err(FrameTooLong { need, room }) }
}

/// Writes an unsigned clear frame into `room` and returns its length. Wait-free.
pub fn encode(
    room: &mut [u8],
    cluster: ClusterTag,
    fields: &EnvelopeFields,
    payload: &[u8],
) -> Result<usize, FrameTooLong> {
    let end = fitting(room, payload.len(), false)?;
    room[PAYLOAD_AT..end].copy_from_slice(payload);
    encode_in_place(room, cluster, fields, payload.len())
}

/// The length of a clear frame around a payload of so many bytes.
#[must_use]
pub const fn frame_len(payload_len: usize, signed: bool) -> usize {
    payload_len.saturating_add(PAYLOAD_AT + if signed { SIGNATURE_LEN } else { 0 })
}

/// Where the payload lies in the room of a frame, for a publisher that writes it there itself: as many
/// bytes as the room has beyond the headers, at most [`PAYLOAD_MAX`].
#[must_use]
pub fn payload_mut(room: &mut [u8]) -> &mut [u8] {
    let end = room.len().min(PAYLOAD_AT + PAYLOAD_MAX);
    room.get_mut(PAYLOAD_AT..end).unwrap_or_default()
}

/// Writes the headers before a payload that already lies in `room`; returns the frame's length.
pub fn encode_in_place(
    room: &mut [u8],
    cluster: ClusterTag,
    fields: &EnvelopeFields,
    payload_len: usize,
) -> Result<usize, FrameTooLong> {
    let len = fitting(room, payload_len, false)?;
    let frame = FrameHeader::new(FrameKind::Clear, cluster, fields.source);
    room[..HEADER_AT].copy_from_slice(frame.as_bytes());
    // What fits is at most `PAYLOAD_MAX`.
    let header = EnvelopeHeader::new(fields, payload_len as u16);
    room[HEADER_AT..PAYLOAD_AT].copy_from_slice(header.as_bytes());
    Ok(len)
}

/// Flags the envelope in `room` as signed, lets `sign` sign header and payload, appends the
/// signature, and returns the length of the frame.
///
/// `sign` gets the bytes that [`Envelope::signed_bytes`] will give the receiver.
pub fn append_signature(
    room: &mut [u8],
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> Result<usize, FrameTooLong> {
    fitting(room, 0, true)?;
    let header = EnvelopeHeader::ref_from_bytes(&room[HEADER_AT..PAYLOAD_AT]);
    let header = header.expect("the slice has the header's length");
    let end = fitting(room, header.payload_len(), true)?;
    let (signed, signature) = room[..end].split_at_mut(end - SIGNATURE_LEN);
    signed[HEADER_AT + offset_of!(EnvelopeHeader, flags)] |= SIGNED;
    signature.copy_from_slice(&sign(&signed[HEADER_AT..]));
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_documentation_is_the_layout() {
        assert_eq!(offset_of!(EnvelopeHeader, source), 0);
        assert_eq!(offset_of!(EnvelopeHeader, destination), 8);
        assert_eq!(offset_of!(EnvelopeHeader, topic), 16);
        assert_eq!(offset_of!(EnvelopeHeader, schema), 24);
        assert_eq!(offset_of!(EnvelopeHeader, epoch), 32);
        assert_eq!(offset_of!(EnvelopeHeader, sequence), 40);
        assert_eq!(offset_of!(EnvelopeHeader, sent_at), 48);
        assert_eq!(offset_of!(EnvelopeHeader, lifespan_us), 56);
        assert_eq!(offset_of!(EnvelopeHeader, class), 60);
        assert_eq!(offset_of!(EnvelopeHeader, flags), 61);
        assert_eq!(offset_of!(EnvelopeHeader, payload_len), 62);
        assert_eq!(ENVELOPE_HEADER_LEN, 64);
        assert_eq!(PAYLOAD_AT, 80);
    }
}
