//! The member that lies, and the stranger: frames that no honest node sends.
//!
//! The liar has a key that all its peers know, records everything that passes, and can put any address on what
//! it sends. What it signs is in its own name, or worthless.

use std::collections::VecDeque;

use sinew_io::wire::envelope::encode;
use sinew_io::wire::hello::{HelloFields, encode_challenge, encode_hello};
use sinew_io::wire::report::{
    Acknowledgement, Entry, Heartbeat, OUTCOMES_MAX, Outcomes, REPORTS, schema,
};
use sinew_io::wire::{
    BootId, Challenge, Class, Domain, EnvelopeFields, Epoch, FRAME_MAX, Frame, FrameKind,
    HandshakeMessage, Hello, KeyId, LifeId, Nonce, SchemaId, Sequence, StreamStart, TopicId,
    decode,
};
use sinew_rt::clock::Nanos;
use zerocopy::IntoBytes;

use crate::checker::NEVER;
use crate::host::{Address, Host, Payload};
use crate::network::corrupt;
use crate::plan::{FORBIDDEN, Kind, Plan, TOPICS};
use crate::random::Random;

const RECENT: usize = 128;
const OLDER: usize = 512;
/// One frame of so many is kept longer.
const OLDER_EVERY: u64 = 61;
/// One of so many of those for as long as a run lasts.
const OLDEST_EVERY: u64 = 16;
/// Handshakes of a minute or more.
const HANDSHAKES: usize = 8_192;
/// Where a frame says its kind, and a handshake which message it is.
const KIND_AT: usize = 3;
const MESSAGE_AT: usize = 16;
const PURPOSE: u64 = 0x6c69_6172;

/// A frame that passed.
#[derive(Clone, Debug, Default)]
struct Recorded {
    from: Address,
    to: Address,
    bytes: Vec<u8>,
}

/// What somebody who listens has: the last frames, and some of long ago.
#[derive(Debug, Default)]
pub struct Recordings {
    recent: Vec<Recorded>,
    older: Vec<Recorded>,
    oldest: Vec<Recorded>,
    /// Challenges and Hellos, the newest last.
    handshakes: VecDeque<Recorded>,
    seen: u64,
}

impl Recordings {
    /// Keeps a frame.
    #[inline]
    pub fn record(&mut self, from: Address, to: Address, bytes: &[u8]) {
        let place = (self.seen % RECENT as u64) as usize;
        keep(&mut self.recent, place, from, to, bytes);
        if self.seen.is_multiple_of(OLDER_EVERY) {
            let place = (self.seen / OLDER_EVERY % OLDER as u64) as usize;
            keep(&mut self.older, place, from, to, bytes);
            if (self.seen / OLDER_EVERY).is_multiple_of(OLDEST_EVERY) {
                let place = (self.seen / OLDER_EVERY / OLDEST_EVERY % OLDER as u64) as usize;
                keep(&mut self.oldest, place, from, to, bytes);
            }
        }
        if bytes.get(KIND_AT) == Some(&(FrameKind::Handshake as u8)) {
            let mut recorded = match self.handshakes.len() >= HANDSHAKES {
                true => self.handshakes.pop_front().unwrap_or_default(),
                false => Recorded::default(),
            };
            (recorded.from, recorded.to) = (from, to);
            recorded.bytes.clear();
            recorded.bytes.extend_from_slice(bytes);
            self.handshakes.push_back(recorded);
        }
        self.seen += 1;
    }

    /// Forgets what `source` said in its life `epoch`. With an old disk it lives that epoch again, and a receiver
    /// that has begun since has no means to tell the two lives apart.
    pub fn forget(&mut self, source: KeyId, epoch: Epoch) {
        for recorded in [&mut self.recent, &mut self.older, &mut self.oldest].into_iter().flatten()
        {
            let Ok(Frame::Clear(envelope)) = decode(&recorded.bytes) else { continue };
            if (envelope.header.source(), envelope.header.epoch()) == (source, epoch) {
                recorded.bytes.clear();
            }
        }
    }

    /// The newest Challenge.
    fn challenge(&self) -> Option<&Recorded> {
        let is_challenge = |recorded: &&Recorded| recorded.bytes.get(MESSAGE_AT) == Some(&1);
        self.handshakes.iter().rev().find(is_challenge)
    }

    /// An old Hello of `from` to `to`.
    #[must_use]
    pub fn hello(&self, from: Address, to: Address) -> Option<&[u8]> {
        let wanted = |recorded: &&Recorded| {
            (recorded.from, recorded.to) == (from, to) && recorded.bytes.get(MESSAGE_AT) == Some(&2)
        };
        self.handshakes.iter().find(wanted).map(|recorded| recorded.bytes.as_slice())
    }

    fn oldest(&self, random: &mut Random) -> Option<&Recorded> {
        self.oldest.get(random.index(self.oldest.len()))
    }

    fn draw(&self, random: &mut Random) -> Option<&Recorded> {
        let list = if random.chance(500_000) { &self.recent } else { &self.older };
        list.get(random.index(list.len()))
    }
}

fn keep(list: &mut Vec<Recorded>, place: usize, from: Address, to: Address, bytes: &[u8]) {
    if list.len() <= place {
        list.push(Recorded::default());
    }
    if let Some(recorded) = list.get_mut(place) {
        (recorded.from, recorded.to) = (from, to);
        recorded.bytes.clear();
        recorded.bytes.extend_from_slice(bytes);
    }
}

/// The mind of the liar, and of the stranger.
#[derive(Debug)]
pub struct Liar {
    random: Random,
    /// Numbers for messages of its own that its honest part did not send.
    numbers: u64,
}

/// A frame with the address that it claims to come from.
#[derive(Debug)]
pub struct Lie {
    /// The address on it.
    pub from: Address,
    /// To whom.
    pub to: u16,
    /// The frame.
    pub bytes: Vec<u8>,
}

const KINDS: u64 = 18;
/// Challenges of one burst: more than anybody gets answers for.
const CHALLENGES: i64 = 40;

impl Liar {
    /// A liar for the run of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, PURPOSE), numbers: 0 }
    }

    /// One lie of the node `me`, which had lives up to `highest_epoch`, about anything, mostly to `to`: a frame, or a
    /// few.
    pub fn lie<H: Host>(
        &mut self,
        host: &H,
        recordings: &Recordings,
        plan: &Plan,
        (me, to): (u16, u16),
        highest_epoch: u64,
        now: Nanos,
    ) -> Vec<Lie> {
        let kind = self.random.below(KINDS);
        let random = &mut self.random;
        let lie = match kind {
            // Recordings, as they were or changed, from where they came or in its own address.
            0..=3 => recordings.draw(random).map(|recorded| {
                let mut bytes = recorded.bytes.clone();
                if kind >= 2 {
                    corrupt(&mut bytes, random.bits());
                }
                let at_home = kind.is_multiple_of(2);
                let original = if plan.is_present(recorded.to) { recorded.to } else { to };
                let from = if at_home { recorded.from } else { me };
                Lie { from, to: if at_home { original } else { to }, bytes }
            }),
            4 | 5 => self.in_another_name::<H>(host, recordings, plan, me, to),
            6 => self.data(host, to, me, now, |fields, random| {
                let jump = [1, 3, 64, 1_000, 1 << 20, 1 << 33, u64::MAX / 2][random.index(7)];
                fields.sequence = Sequence::new(fields.sequence.get().saturating_add(jump));
                false
            }),
            7 => self.data(host, to, me, now, |fields, random| {
                let epoch = fields.epoch.get();
                let other = [epoch.wrapping_sub(1), epoch + 1, 0, u64::MAX][random.index(4)];
                fields.epoch = Epoch::new(other);
                // An epoch that it had may be the one that a receiver knows of it.
                other == 0 || other > highest_epoch
            }),
            8 => self.data(host, to, me, now, |fields, _| {
                fields.topic = TopicId::of(FORBIDDEN);
                fields.class = Class::Control;
                true
            }),
            9 => self.data(host, to, me, now, |fields, random| {
                match random.below(4) {
                    0 => fields.class = Class::Durable,
                    1 => fields.schema = SchemaId::from_raw(random.bits()),
                    2 => fields.destination = KeyId::from_raw(random.bits()),
                    _ => {
                        fields.sent_at =
                            if random.chance(500_000) { Nanos::MAX } else { Nanos::MIN };
                        return false;
                    }
                }
                true
            }),
            10 => self.heartbeat(host, to, me, now),
            11 | 12 => self.acknowledgement(host, to, me, now),
            13 => self.outcomes(host, to, me, now),
            14 => self.handshake(host, to, me, now),
            15 => {
                let each = |n| self.challenge(host, (me, to), now + Nanos::new(n));
                return (0..CHALLENGES).map(each).collect();
            }
            16 => self.false_greeting(host, recordings),
            // An old life's word, as it was.
            _ => recordings.oldest(random).map(|recorded| Lie {
                from: recorded.from,
                to: recorded.to,
                bytes: recorded.bytes.clone(),
            }),
        };
        lie.into_iter().collect()
    }

    /// An envelope that goes on where a recorded one ends, in its sender's name, signed with the wrong key or
    /// not at all.
    fn in_another_name<H: Host>(
        &mut self,
        host: &H,
        recordings: &Recordings,
        plan: &Plan,
        me: u16,
        to: u16,
    ) -> Option<Lie> {
        let recorded = recordings.draw(&mut self.random)?;
        let Ok(Frame::Clear(envelope)) = decode(&recorded.bytes) else { return None };
        let header = envelope.header;
        let mut fields = EnvelopeFields {
            source: header.source(),
            destination: header.destination(),
            topic: header.topic(),
            schema: header.schema(),
            epoch: header.epoch(),
            sequence: Sequence::new(header.sequence().get() + self.random.below(12)),
            sent_at: header.sent_at(),
            lifespan_us: header.lifespan().map_or(0, |span| (span.as_nanos() / 1_000) as u32),
            class: header.class()?,
        };
        if self.random.chance(100_000) {
            fields.epoch = Epoch::new(header.epoch().get() + 1);
        }
        let mut payload = envelope.payload.to_vec();
        if let Some(last) = payload.last_mut() {
            *last ^= 0x5a;
        }
        let bytes = match self.random.chance(500_000) {
            true => signed(host, &fields, &payload)?,
            false => unsigned::<H>(&fields, &payload)?,
        };
        let at_home = self.random.chance(700_000);
        let original = if plan.is_present(recorded.to) { recorded.to } else { to };
        Some(Lie { from: if at_home { recorded.from } else { me }, to: original, bytes })
    }

    /// The Hello to a Challenge that was overheard, in the name of the one who was asked.
    fn false_greeting<H: Host>(&mut self, host: &H, recordings: &Recordings) -> Option<Lie> {
        let recorded = recordings.challenge()?;
        let Ok(Frame::Handshake(handshake)) = decode(&recorded.bytes) else { return None };
        let HandshakeMessage::Challenge(challenge) = handshake.message else { return None };
        let mut life = LifeId::default();
        self.random.fill(&mut life.0);
        let hello = Hello::answer(
            challenge,
            &HelloFields {
                from: challenge.to(),
                epoch: Epoch::new(2 + self.random.below(5)),
                life,
                boot: BootId(life.0),
                received_at: challenge.sent_at(),
                sent_at: challenge.sent_at(),
                streams: &[],
            },
        );
        let none = [0; sinew_io::wire::SIGNATURE_LEN];
        let bytes = encode_hello(H::cluster(), &hello, |body| {
            host.sign_body(Domain::Hello, body).unwrap_or(none)
        });
        Some(Lie { from: recorded.to, to: recorded.from, bytes: bytes.to_vec() })
    }

    /// One of many genuine Challenges.
    fn challenge<H: Host>(&mut self, host: &H, (me, to): (u16, u16), sent_at: Nanos) -> Lie {
        let (mine, theirs) = (KeyId::from_raw(H::key_id(me)), KeyId::from_raw(H::key_id(to)));
        let mut nonce = Nonce::default();
        self.random.fill(&mut nonce.0);
        let challenge = Challenge::new(mine, theirs, nonce, Epoch::new(host.epoch()), sent_at);
        let none = [0; sinew_io::wire::SIGNATURE_LEN];
        let bytes = encode_challenge(H::cluster(), &challenge, |body| {
            host.sign_body(Domain::Challenge, body).unwrap_or(none)
        });
        Lie { from: me, to, bytes: bytes.to_vec() }
    }

    fn fields<H: Host>(&mut self, host: &H, me: u16, now: Nanos, topic: &str) -> EnvelopeFields {
        self.numbers += 1;
        EnvelopeFields {
            source: KeyId::from_raw(H::key_id(me)),
            destination: KeyId::EVERYONE,
            topic: TopicId::of(topic),
            schema: sinew_io::message::schema_id::<Payload>(),
            epoch: Epoch::new(host.epoch()),
            sequence: Sequence::new(self.numbers),
            sent_at: now,
            lifespan_us: 0,
            class: Class::Control,
        }
    }

    /// A message of its own that it should not send, as `change` says.
    fn data<H: Host>(
        &mut self,
        host: &H,
        to: u16,
        me: u16,
        now: Nanos,
        change: impl FnOnce(&mut EnvelopeFields, &mut Random) -> bool,
    ) -> Option<Lie> {
        // Reliable topics say what is in them only in order, so most lies are about the others.
        let topic = self.random.index(TOPICS.len() + 2) % TOPICS.len();
        let mut fields = self.fields(host, me, now, TOPICS[topic].name);
        fields.class = class(TOPICS[topic].kind);
        // What nobody may believe must be seen if anybody does.
        let never = change(&mut fields, &mut self.random);
        let mut payload = self.payload(me, topic as u8);
        if never {
            payload.life = NEVER;
        }
        Some(Lie { from: me, to, bytes: signed(host, &fields, payload.as_bytes())? })
    }

    /// Noise in its own name: the checker must be able to tell it from what others published.
    fn payload(&mut self, me: u16, topic: u8) -> Payload {
        let mut payload = Payload::new(self.random.bits(), me, 0, topic, self.numbers);
        payload.life = u32::MAX;
        payload
    }

    fn report<H: Host>(
        &mut self,
        host: &H,
        to: u16,
        me: u16,
        now: Nanos,
        entry: &Entry,
    ) -> Option<Lie> {
        let mut fields = self.fields(host, me, now, REPORTS);
        // Ahead of what its honest part sends, but within the window: both are heard.
        fields.sequence = Sequence::new(self.random.below(40_000));
        fields.schema = schema();
        fields.destination = KeyId::from_raw(H::key_id(to));
        Some(Lie { from: me, to, bytes: signed(host, &fields, &entry.to_bytes())? })
    }

    fn number(&mut self) -> u64 {
        let random = &mut self.random;
        match random.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => random.bits(),
            _ => random.below(600),
        }
    }

    fn reliable(&mut self) -> (TopicId, Class) {
        let reliable: Vec<_> = TOPICS.iter().filter(|topic| topic.kind.is_reliable()).collect();
        let topic = reliable[self.random.index(reliable.len())];
        (TopicId::of(topic.name), class(topic.kind))
    }

    fn heartbeat<H: Host>(&mut self, host: &H, to: u16, me: u16, now: Nanos) -> Option<Lie> {
        let (topic, class) = self.reliable();
        let entry = Entry::Heartbeat(Heartbeat {
            topic,
            schema: sinew_io::message::schema_id::<Payload>(),
            class,
            first: Sequence::new(self.number()),
            last: Sequence::new(self.number()),
            unresolved: Some(self.number()).filter(|n| *n != 0).map(Sequence::new),
            many: false,
        });
        self.report(host, to, me, now, &entry)
    }

    fn acknowledgement<H: Host>(&mut self, host: &H, to: u16, me: u16, now: Nanos) -> Option<Lie> {
        let (topic, class) = self.reliable();
        let entry = Entry::Acknowledgement(Acknowledgement {
            topic,
            schema: sinew_io::message::schema_id::<Payload>(),
            class,
            epoch: Epoch::new(1 + self.random.below(3)),
            floor: Sequence::new(self.number()),
            held: self.number() & !1,
            limit: Sequence::new(self.number()),
            wanted: self.random.chance(700_000),
            echo: Some(Nanos::new(self.number().cast_signed())).filter(|at| *at != Nanos::ZERO),
            held_us: self.random.bits() as u32,
        });
        self.report(host, to, me, now, &entry)
    }

    fn outcomes<H: Host>(&mut self, host: &H, to: u16, me: u16, now: Nanos) -> Option<Lie> {
        let command = TOPICS.iter().find(|topic| topic.kind == Kind::Command)?;
        let count = 1 + self.random.index(OUTCOMES_MAX);
        let mut codes = [0; OUTCOMES_MAX];
        codes[..count].fill_with(|| self.random.below(256) as u8);
        let entry = Entry::Outcomes(Outcomes {
            topic: TopicId::of(command.name),
            epoch: Epoch::new(1 + self.random.below(3)),
            base: Sequence::new(self.number()),
            count: count as u8,
            codes,
        });
        self.report(host, to, me, now, &entry)
    }

    fn handshake<H: Host>(&mut self, host: &H, to: u16, me: u16, now: Nanos) -> Option<Lie> {
        let (mine, theirs) = (KeyId::from_raw(H::key_id(me)), KeyId::from_raw(H::key_id(to)));
        let mut nonce = Nonce::default();
        self.random.fill(&mut nonce.0);
        let epoch = host.epoch() + self.random.below(2);
        let later = Nanos::from_millis(self.random.within(-50, 50));
        let challenge = Challenge::new(mine, theirs, nonce, Epoch::new(epoch), now + later);
        let none = [0; sinew_io::wire::SIGNATURE_LEN];
        let bytes = match self.random.below(2) {
            0 => encode_challenge(H::cluster(), &challenge, |body| {
                host.sign_body(Domain::Challenge, body).unwrap_or(none)
            }),
            _ => {
                let streams = [StreamStart {
                    topic: TopicId::of(TOPICS[0].name),
                    next: Sequence::new(self.number()),
                }];
                let asked = Challenge::new(theirs, mine, nonce, Epoch::new(1), now);
                let hello = Hello::answer(
                    &asked,
                    &HelloFields {
                        from: mine,
                        epoch: Epoch::new(epoch + 1),
                        life: LifeId(nonce.0),
                        boot: BootId(nonce.0),
                        received_at: now,
                        sent_at: now,
                        streams: &streams,
                    },
                );
                encode_hello(H::cluster(), &hello, |body| {
                    host.sign_body(Domain::Hello, body).unwrap_or(none)
                })
            }
        };
        Some(Lie { from: me, to, bytes: bytes.to_vec() })
    }
}

const fn class(kind: Kind) -> Class {
    match kind {
        Kind::Control | Kind::Queue => Class::Control,
        Kind::Command => Class::Command,
        Kind::Stream => Class::Stream,
        Kind::EStop => Class::EStop,
    }
}

fn unsigned<H: Host>(fields: &EnvelopeFields, payload: &[u8]) -> Option<Vec<u8>> {
    let mut slot = [0; FRAME_MAX];
    let len = encode(&mut slot, H::cluster(), fields, payload).ok()?;
    slot.get(..len).map(<[u8]>::to_vec)
}

fn signed<H: Host>(host: &H, fields: &EnvelopeFields, payload: &[u8]) -> Option<Vec<u8>> {
    let mut slot = [0; FRAME_MAX];
    encode(&mut slot, H::cluster(), fields, payload).ok()?;
    let len = host.sign(&mut slot)?;
    slot.get(..len).map(<[u8]>::to_vec)
}

/// One of very many genuine messages of a member that sends more than it may.
pub fn flood_frame<H: Host>(liar: &mut Liar, host: &H, me: u16, now: Nanos) -> Option<Vec<u8>> {
    let topic = TOPICS.iter().position(|topic| topic.kind == Kind::Queue)?;
    let mut fields = liar.fields(host, me, now, TOPICS[topic].name);
    fields.sequence = Sequence::new(1_000_000 + liar.numbers);
    let payload = liar.payload(me, topic as u8);
    signed(host, &fields, payload.as_bytes())
}

/// What a stranger sends: noise, recordings, parts of recordings.
pub fn stranger_frame(liar: &mut Liar, recordings: &Recordings) -> Vec<u8> {
    let random = &mut liar.random;
    let recorded =
        recordings.draw(random).map(|recorded| recorded.bytes.clone()).unwrap_or_default();
    match random.below(4) {
        0 => {
            let mut noise = vec![0; random.index(FRAME_MAX + 40)];
            random.fill(&mut noise);
            noise
        }
        1 => recorded,
        2 => recorded[..random.index(recorded.len() + 1)].to_vec(),
        _ => {
            let mut changed = recorded;
            corrupt(&mut changed, random.bits());
            changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::real::Real;

    fn said(source: u64, epoch: u64) -> Vec<u8> {
        let fields = EnvelopeFields {
            source: KeyId::from_raw(source),
            destination: KeyId::EVERYONE,
            topic: TopicId::of(TOPICS[0].name),
            schema: SchemaId::from_raw(1),
            epoch: Epoch::new(epoch),
            sequence: Sequence::new(1),
            sent_at: Nanos::ZERO,
            lifespan_us: 0,
            class: Class::Control,
        };
        unsigned::<Real>(&fields, b"payload").unwrap()
    }

    #[test]
    fn what_one_life_said_is_forgotten_and_nothing_else() {
        let mut recordings = Recordings::default();
        let others = [said(7, 4), said(8, 3), b"noise".to_vec()];
        recordings.record(7, 8, &said(7, 3));
        for bytes in &others {
            recordings.record(7, 8, bytes);
        }
        assert_eq!(recordings.oldest.len(), 1, "the first is kept for long");
        recordings.forget(KeyId::from_raw(7), Epoch::new(3));
        let kept = |list: &[Recorded]| -> Vec<Vec<u8>> {
            list.iter().map(|recorded| recorded.bytes.clone()).collect()
        };
        assert_eq!(kept(&recordings.recent)[1..], others);
        for list in [&recordings.recent, &recordings.older, &recordings.oldest] {
            assert_eq!(kept(list)[0], b"");
        }
    }
}
