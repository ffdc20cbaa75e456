//! Challenge and Hello: the two messages that say whose life a stream belongs to.
//!
//! Both bodies have the same length, so an answer is never larger than the question that drew it.
//! Each is followed by an Ed25519 signature over its own context ‖ body.
//!
//! Challenge:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | message | u8 | 1 |
//! | 1 | reserved | 7 bytes | 0 |
//! | 8 | from | u64 | key id of the challenger |
//! | 16 | to | u64 | key id of the peer that shall answer |
//! | 24 | nonce | 16 bytes | random, new for every Challenge |
//! | 40 | epoch_hint | u64 | the challenger's own epoch: a peer that knows a lower one challenges back at once |
//! | 48 | sent_at | i64 | the challenger's clock, ns |
//! | 56 | padding | 304 bytes | 0 |
//!
//! Hello:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | message | u8 | 2 |
//! | 1 | stream_count | u8 | 0 to 16 |
//! | 2 | reserved | 6 bytes | 0 |
//! | 8 | from | u64 | key id of the one who answers |
//! | 16 | to | u64 | key id of the challenger |
//! | 24 | nonce | 16 bytes | echoed |
//! | 40 | epoch | u64 | boot counter, on disk before the first send of this life |
//! | 48 | challenge_sent_at | i64 | echoed |
//! | 56 | received_at | i64 | own clock when the Challenge arrived, ns |
//! | 64 | sent_at | i64 | own clock when this Hello was made, ns |
//! | 72 | life | 16 bytes | random per life |
//! | 88 | boot | 16 bytes | the kernel's boot id |
//! | 104 | streams | 16 × (topic u64, next_sequence u64) | the first `stream_count` count, the rest is 0 |

use std::mem::size_of;

use sinew_rt::clock::Nanos;
use zerocopy::little_endian::{I64, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::SIGNATURE_LEN;
use super::frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind, Malformed};
use super::names::{BootId, ClusterTag, Epoch, KeyId, LifeId, Nonce, Sequence, TopicId};

/// The most streams that one node may announce, and so publish.
pub const STREAMS_MAX: usize = 16;
/// Bytes of a Challenge and of a Hello, without frame header and signature.
pub const HANDSHAKE_BODY_LEN: usize = size_of::<Hello>();
/// Bytes of every handshake frame.
pub const HANDSHAKE_FRAME_LEN: usize = FRAME_HEADER_LEN + HANDSHAKE_BODY_LEN + SIGNATURE_LEN;

/// A whole handshake frame.
pub type HandshakeBytes = [u8; HANDSHAKE_FRAME_LEN];

const CHALLENGE: u8 = 1;
const HELLO: u8 = 2;
const PADDING: usize = 304;
const _: () = assert!(size_of::<Challenge>() == size_of::<Hello>());

/// Where a stream goes on: the sequence that its next envelope will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The topic.
    pub topic: TopicId,
    /// The sequence of the next envelope on it, at least 1.
    pub next: Sequence,
}

/// Topic and next sequence, as they lie in a Hello.
type WireStream = [U64; 2];
const NO_STREAM: WireStream = [U64::ZERO; 2];

/// "Who are you now? Prove it with this nonce."
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Challenge {
    message: u8,
    reserved: [u8; 7],
    from: U64,
    to: U64,
    nonce: [u8; 16],
    epoch_hint: U64,
    sent_at: I64,
    padding: [u8; PADDING],
}

impl Challenge {
    /// The challenge of `from` to `to`.
    #[must_use]
    pub fn new(from: KeyId, to: KeyId, nonce: Nonce, own_epoch: Epoch, sent_at: Nanos) -> Self {
        Self {
            message: CHALLENGE,
            reserved: [0; 7],
            from: U64::new(from.get()),
            to: U64::new(to.get()),
            nonce: nonce.0,
            epoch_hint: U64::new(own_epoch.get()),
            sent_at: I64::new(sent_at.as_nanos()),
            padding: [0; PADDING],
        }
    }

    /// The challenger.
    #[must_use]
    pub fn from(&self) -> KeyId {
        KeyId::from_raw(self.from.get())
    }

    /// The peer that shall answer.
    #[must_use]
    pub fn to(&self) -> KeyId {
        KeyId::from_raw(self.to.get())
    }

    /// What the answer has to echo.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        Nonce(self.nonce)
    }

    /// The challenger's own epoch.
    #[must_use]
    pub fn epoch_hint(&self) -> Epoch {
        Epoch::new(self.epoch_hint.get())
    }

    /// The challenger's clock.
    #[must_use]
    pub fn sent_at(&self) -> Nanos {
        Nanos::new(self.sent_at.get())
    }
}

/// What a [`Hello`] says, before it is laid out.
#[derive(Clone, Copy, Debug)]
pub struct HelloFields<'a> {
    /// The one who answers.
    pub from: KeyId,
    /// Own boot counter.
    pub epoch: Epoch,
    /// Own life.
    pub life: LifeId,
    /// The kernel's boot id.
    pub boot: BootId,
    /// Own clock when the Challenge arrived.
    pub received_at: Nanos,
    /// Own clock now.
    pub sent_at: Nanos,
    /// Where own streams go on, at most [`STREAMS_MAX`].
    pub streams: &'a [StreamStart],
}

/// "This is my life, and these are my streams."
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Hello {
    message: u8,
    stream_count: u8,
    reserved: [u8; 6],
    from: U64,
    to: U64,
    nonce: [u8; 16],
    epoch: U64,
    challenge_sent_at: I64,
    received_at: I64,
    sent_at: I64,
    life: [u8; 16],
    boot: [u8; 16],
    streams: [WireStream; STREAMS_MAX],
}

impl Hello {
    /// The answer to `challenge`. Streams beyond [`STREAMS_MAX`] are left out, and so never
    /// accepted by the receiver; a node bounds its publishers before it comes to that.
    #[must_use]
    pub fn answer(challenge: &Challenge, fields: &HelloFields<'_>) -> Self {
        let mut streams = [NO_STREAM; STREAMS_MAX];
        let mut stream_count = 0;
        for (slot, stream) in streams.iter_mut().zip(fields.streams) {
            *slot = [U64::new(stream.topic.get()), U64::new(stream.next.get())];
            stream_count += 1;
        }
        Self {
            message: HELLO,
            stream_count,
            reserved: [0; 6],
            from: U64::new(fields.from.get()),
            to: challenge.from,
            nonce: challenge.nonce,
            epoch: U64::new(fields.epoch.get()),
            challenge_sent_at: challenge.sent_at,
            received_at: I64::new(fields.received_at.as_nanos()),
            sent_at: I64::new(fields.sent_at.as_nanos()),
            life: fields.life.0,
            boot: fields.boot.0,
            streams,
        }
    }

    /// The one who answers.
    #[must_use]
    pub fn from(&self) -> KeyId {
        KeyId::from_raw(self.from.get())
    }

    /// The challenger.
    #[must_use]
    pub fn to(&self) -> KeyId {
        KeyId::from_raw(self.to.get())
    }

    /// The echoed nonce.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        Nonce(self.nonce)
    }

    /// The boot counter of the one who answers.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.get())
    }

    /// The echoed clock of the challenger.
    #[must_use]
    pub fn challenge_sent_at(&self) -> Nanos {
        Nanos::new(self.challenge_sent_at.get())
    }

    /// The answerer's clock when the Challenge arrived.
    #[must_use]
    pub fn received_at(&self) -> Nanos {
        Nanos::new(self.received_at.get())
    }

    /// The answerer's clock when it made this Hello.
    #[must_use]
    pub fn sent_at(&self) -> Nanos {
        Nanos::new(self.sent_at.get())
    }

    /// The answerer's life.
    #[must_use]
    pub fn life(&self) -> LifeId {
        LifeId(self.life)
    }

    /// The boot id of the answerer's kernel.
    #[must_use]
    pub fn boot(&self) -> BootId {
        BootId(self.boot)
    }

    /// Where the answerer's streams go on: at most [`STREAMS_MAX`].
    pub fn streams(&self) -> impl Iterator<Item = StreamStart> + '_ {
        self.streams.iter().take(usize::from(self.stream_count)).map(|[topic, next]| StreamStart {
            topic: TopicId::from_raw(topic.get()),
            next: Sequence::new(next.get()),
        })
    }
}

/// One of the two messages, in place in the received bytes.
#[derive(Clone, Copy, Debug)]
pub enum HandshakeMessage<'a> {
    /// A question.
    Challenge(&'a Challenge),
    /// An answer.
    Hello(&'a Hello),
}

impl HandshakeMessage<'_> {
    /// The sender that the message claims.
    #[must_use]
    pub fn from(&self) -> KeyId {
        match self {
            Self::Challenge(challenge) => challenge.from(),
            Self::Hello(hello) => hello.from(),
        }
    }
}

/// A well-formed handshake message with its signature. Nothing in it is proven yet.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeFrame<'a> {
    /// The message.
    pub message: HandshakeMessage<'a>,
    /// Its signature.
    pub signature: &'a [u8; SIGNATURE_LEN],
    body: &'a [u8],
}

impl<'a> HandshakeFrame<'a> {
    /// Decodes the body of a handshake frame. Its length is fixed; unused bytes must be zero.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let declared = HANDSHAKE_BODY_LEN + SIGNATURE_LEN;
        let mismatch = Malformed::LengthMismatch { declared, got: body.len() };
        let (body, signature) = body.split_at_checked(HANDSHAKE_BODY_LEN).ok_or(mismatch)?;
        let signature = signature.try_into().map_err(|_| mismatch)?;
        let message = match body.first() {
            Some(&CHALLENGE) => HandshakeMessage::Challenge(Self::challenge(body, mismatch)?),
            Some(&HELLO) => HandshakeMessage::Hello(Self::hello(body, mismatch)?),
            got => return Err(Malformed::UnknownMessage { got: got.copied().unwrap_or(0) }),
        };
        Ok(Self { message, signature, body })
    }

    fn challenge(body: &'a [u8], mismatch: Malformed) -> Result<&'a Challenge, Malformed> {
        let challenge = Challenge::ref_from_bytes(body).map_err(|_| mismatch)?;
        if challenge.reserved != [0; 7] || challenge.padding != [0; PADDING] {
            return Err(Malformed::Reserved);
        }
        Ok(challenge)
    }

    fn hello(body: &'a [u8], mismatch: Malformed) -> Result<&'a Hello, Malformed> {
        let hello = Hello::ref_from_bytes(body).map_err(|_| mismatch)?;
        let count = usize::from(hello.stream_count);
        let Some(unused) = hello.streams.get(count..) else {
            return Err(Malformed::TooManyStreams { got: hello.stream_count, max: STREAMS_MAX });
        };
        if hello.reserved != [0; 6] || unused.iter().any(|stream| *stream != NO_STREAM) {
            return Err(Malformed::Reserved);
        }
        Ok(hello)
    }

    /// The message as it lies in the frame: what the signature covers, after its context.
    #[must_use]
    pub fn signed_bytes(&self) -> &'a [u8] {
        self.body
    }
}

fn encode(
    cluster: ClusterTag,
    from: KeyId,
    body: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> HandshakeBytes {
    const BODY_END: usize = FRAME_HEADER_LEN + HANDSHAKE_BODY_LEN;
    let mut frame = [0; HANDSHAKE_FRAME_LEN];
    let header = FrameHeader::new(FrameKind::Handshake, cluster, from);
    frame[..FRAME_HEADER_LEN].copy_from_slice(header.as_bytes());
    frame[FRAME_HEADER_LEN..BODY_END].copy_from_slice(body);
    frame[BODY_END..].copy_from_slice(&sign(body));
    frame
}

/// Writes a Challenge as a frame; `sign` signs its body.
#[must_use]
pub fn encode_challenge(
    cluster: ClusterTag,
    challenge: &Challenge,
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> HandshakeBytes {
    encode(cluster, challenge.from(), challenge.as_bytes(), sign)
}

/// Writes a Hello as a frame; `sign` signs its body.
#[must_use]
pub fn encode_hello(
    cluster: ClusterTag,
    hello: &Hello,
    sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
) -> HandshakeBytes {
    encode(cluster, hello.from(), hello.as_bytes(), sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_tables_in_the_documentation_are_the_layouts() {
        assert_eq!(offset_of!(Challenge, message), 0);
        assert_eq!(offset_of!(Challenge, reserved), 1);
        assert_eq!(offset_of!(Challenge, from), 8);
        assert_eq!(offset_of!(Challenge, to), 16);
        assert_eq!(offset_of!(Challenge, nonce), 24);
        assert_eq!(offset_of!(Challenge, epoch_hint), 40);
        assert_eq!(offset_of!(Challenge, sent_at), 48);
        assert_eq!(offset_of!(Challenge, padding), 56);
        assert_eq!(offset_of!(Hello, message), 0);
        assert_eq!(offset_of!(Hello, stream_count), 1);
        assert_eq!(offset_of!(Hello, reserved), 2);
        assert_eq!(offset_of!(Hello, from), 8);
        assert_eq!(offset_of!(Hello, to), 16);
        assert_eq!(offset_of!(Hello, nonce), 24);
        assert_eq!(offset_of!(Hello, epoch), 40);
        assert_eq!(offset_of!(Hello, challenge_sent_at), 48);
        assert_eq!(offset_of!(Hello, received_at), 56);
        assert_eq!(offset_of!(Hello, sent_at), 64);
        assert_eq!(offset_of!(Hello, life), 72);
        assert_eq!(offset_of!(Hello, boot), 88);
        assert_eq!(offset_of!(Hello, streams), 104);
        assert_eq!(size_of::<Challenge>(), 360);
        assert_eq!(size_of::<Hello>(), 360);
        assert_eq!(HANDSHAKE_FRAME_LEN, 440);
    }
}
