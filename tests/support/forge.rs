//! Somebody who holds a key and builds any frame with it: an honest peer, played by hand, or an
//! attacker.

use super::Sample;
use sinew::io::message::schema_id;
use sinew::io::security::Identity;
use sinew::io::wire::hello::{HelloFields, encode_challenge, encode_hello};
use sinew::io::wire::{
    BootId, Challenge, Class, ClusterName, Domain, EnvelopeFields, Epoch, FRAME_MAX, Frame,
    HandshakeMessage, KeyId, LifeId, Nonce, Sequence, SigningContext, StreamStart, TopicId, decode,
    envelope,
};
use sinew::rt::clock::{self, Nanos};
use zerocopy::IntoBytes;

/// Offsets in a frame, as wire.rs documents them.
pub(crate) const VERSION_AT: usize = 2;
pub(crate) const KIND_AT: usize = 3;
pub(crate) const CLUSTER_AT: usize = 4;
pub(crate) const SENDER_AT: usize = 8;
pub(crate) const ENVELOPE_AT: usize = 16;
pub(crate) const TOPIC_AT: usize = ENVELOPE_AT + 16;
pub(crate) const CLASS_AT: usize = ENVELOPE_AT + 60;
pub(crate) const FLAGS_AT: usize = ENVELOPE_AT + 61;
pub(crate) const PAYLOAD_AT: usize = ENVELOPE_AT + 64;
pub(crate) const SIGNATURE_LEN: usize = 64;

/// The frame with other bytes at one place.
pub(crate) fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The same identity for the same number: a node and a forger can hold one key.
pub(crate) fn identity(seed: u8) -> Identity {
    Identity::draw(&mut |secret| secret.fill(seed)).unwrap()
}

/// The boot id of this machine: frames from "another process on this host" carry it.
pub(crate) fn this_boot() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let digits = text.trim().replace('-', "");
    BootId(u128::from_str_radix(&digits, 16).unwrap().to_be_bytes())
}

pub(crate) struct Forger {
    pub(crate) identity: Identity,
    pub(crate) cluster: ClusterName,
}

impl Forger {
    pub(crate) fn new(seed: u8, cluster: &str) -> Self {
        Self { identity: identity(seed), cluster: ClusterName::new(cluster).unwrap() }
    }

    pub(crate) fn key(&self) -> KeyId {
        self.identity.public().id()
    }

    /// An envelope header that a receiver of `Sample` on `topic` has no objection to.
    pub(crate) fn fields(&self, topic: &str, epoch: u64, sequence: u64) -> EnvelopeFields {
        EnvelopeFields {
            source: self.key(),
            destination: KeyId::EVERYONE,
            topic: TopicId::of(topic),
            schema: schema_id::<Sample>(),
            epoch: Epoch::new(epoch),
            sequence: Sequence::new(sequence),
            sent_at: clock::now(),
            lifespan_us: 0,
            class: Class::Control,
        }
    }

    /// A frame with an unsigned envelope.
    pub(crate) fn unsigned(&self, fields: &EnvelopeFields, payload: &[u8]) -> Vec<u8> {
        let mut slot = [0; FRAME_MAX];
        let len = envelope::encode(&mut slot, self.cluster.tag(), fields, payload).unwrap();
        slot[..len].to_vec()
    }

    /// A frame with a signed envelope.
    pub(crate) fn signed(&self, fields: &EnvelopeFields, payload: &[u8]) -> Vec<u8> {
        let mut slot = [0; FRAME_MAX];
        envelope::encode(&mut slot, self.cluster.tag(), fields, payload).unwrap();
        let context = SigningContext::new(Domain::Envelope, &self.cluster);
        let len = self.identity.sign_envelope(&context, &mut slot).unwrap();
        slot[..len].to_vec()
    }

    /// A signed envelope with the sample `number`, which is also its sequence.
    pub(crate) fn sample(&self, topic: &str, epoch: u64, number: u64) -> Vec<u8> {
        self.signed(&self.fields(topic, epoch, number), Sample::new(number).as_bytes())
    }

    pub(crate) fn challenge(&self, to: KeyId, nonce: [u8; 16], epoch: u64, at: Nanos) -> Vec<u8> {
        let challenge = Challenge::new(self.key(), to, Nonce(nonce), Epoch::new(epoch), at);
        let context = SigningContext::new(Domain::Challenge, &self.cluster);
        let sign = |body: &[u8]| self.identity.sign(&[context.as_bytes(), body]);
        encode_challenge(self.cluster.tag(), &challenge, sign).to_vec()
    }

    /// The Hello that answers `challenge`, or `None` when those bytes are no Challenge.
    pub(crate) fn hello(
        &self,
        challenge: &[u8],
        epoch: u64,
        life: [u8; 16],
        topics: &[&str],
    ) -> Option<Vec<u8>> {
        let Ok(Frame::Handshake(frame)) = decode(challenge) else { return None };
        let HandshakeMessage::Challenge(challenge) = frame.message else { return None };
        let start = |topic: &&str| StreamStart { topic: TopicId::of(topic), next: Sequence::FIRST };
        let now = clock::now();
        let fields = HelloFields {
            from: self.key(),
            epoch: Epoch::new(epoch),
            life: LifeId(life),
            boot: this_boot(),
            received_at: now,
            sent_at: now,
            streams: &topics.iter().map(start).collect::<Vec<_>>(),
        };
        let hello = sinew::io::wire::Hello::answer(challenge, &fields);
        let context = SigningContext::new(Domain::Hello, &self.cluster);
        let sign = |body: &[u8]| self.identity.sign(&[context.as_bytes(), body]);
        Some(encode_hello(self.cluster.tag(), &hello, sign).to_vec())
    }
}

/// What kind of handshake message a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Challenge,
    Hello,
    Envelope,
}

pub(crate) fn kind_of(frame: &[u8]) -> Seen {
    match decode(frame).expect("a node sends well-formed frames") {
        Frame::Clear(_) => Seen::Envelope,
        Frame::Handshake(frame) => match frame.message {
            HandshakeMessage::Challenge(_) => Seen::Challenge,
            HandshakeMessage::Hello(_) => Seen::Hello,
        },
    }
}
