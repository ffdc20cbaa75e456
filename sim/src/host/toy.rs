//! A node of a few lines that keeps the same promises on a network of honest members: what tests the
//! simulator itself. It knows no keys, so it is only for runs without liars, and no clocks but its own, so it
//! is only for runs without long delays.

use std::cell::Cell;
use std::collections::VecDeque;

use sinew_io::delivery::{Verdict, Window};
use sinew_io::wire::envelope::encode;
use sinew_io::wire::report::{Acknowledgement, ENTRY_LEN, Entry, Heartbeat};
use sinew_io::wire::{
    Class, ClusterTag, EnvelopeFields, Epoch, FRAME_MAX, Frame, KeyId, SchemaId, Sequence, TopicId,
    decode,
};
use sinew_rt::clock::Nanos;
use zerocopy::{FromBytes, IntoBytes};

use super::{Address, Birth, Heard, Host, Payload, WouldBlock};
use crate::plan::{Kind, TOPICS};
use crate::trace::TraceHash;

/// Between two repetitions of what was not acknowledged, and between two heartbeats.
const AGAIN: Nanos = Nanos::from_millis(40);
/// How long a message of a stream is repeated.
const LINGER: Nanos = Nanos::from_secs(3);
/// The most messages that wait for an acknowledgement.
const RETAINED: usize = 64;
/// Not the topic of real reports, which look otherwise.
const REPORTS: &str = "toy/report";
const CHECK: usize = 8;
const TOPIC_COUNT: usize = TOPICS.len();

/// A way to break every toy of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Messages of queues are delivered as often as they come.
    DeliversTwice,
    /// A reliable message that overtook others is delivered, and they are forgotten.
    SkipsInSilence,
    /// A gap begins one too early.
    GapsWhatItHas,
    /// One in a thousand messages is delivered with other bytes.
    ChangesBytes,
    /// A number is used twice.
    ReusesNumbers,
    /// A node stops to hear the peers that it knew before it heard of a new life.
    ForgetsPeers,
    /// A value counts whenever it comes.
    NewestGoesBack,
    /// A node wants to be run all the time.
    NeverRests,
    /// A node panics.
    Panics,
}

thread_local! {
    static BROKEN: Cell<Option<Broken>> = const { Cell::new(None) };
}

/// Breaks every toy of this thread from now on: `None` mends them.
pub fn break_toys(how: Option<Broken>) {
    BROKEN.set(how);
}

fn is_broken(how: Broken) -> bool {
    BROKEN.get() == Some(how)
}

/// The key id that stands for a node.
fn key(node: u16) -> KeyId {
    KeyId::from_raw(u64::from(node) + 1)
}

fn class(kind: Kind) -> Class {
    match kind {
        Kind::Command => Class::Command,
        Kind::Stream => Class::Stream,
        Kind::EStop => Class::EStop,
        Kind::Control | Kind::Queue => Class::Control,
    }
}

#[derive(Debug)]
struct Retained {
    sequence: u64,
    at: Nanos,
    sent: Nanos,
    payload: Payload,
}

#[derive(Debug, Default)]
struct Outlet {
    next: u64,
    retained: VecDeque<Retained>,
    fresh: VecDeque<(Payload, Nanos)>,
    /// By peer: what it acknowledged.
    floors: Vec<u64>,
    heartbeat: Nanos,
}

#[derive(Debug)]
struct Reader {
    epoch: u64,
    windows: Vec<Option<Window>>,
    /// By topic, of reliable ones: the next that is expected, 0 before the first heartbeat.
    expected: Vec<u64>,
}

/// The node.
#[derive(Debug)]
pub struct Toy {
    node: u16,
    epoch: u64,
    peers: Vec<u16>,
    outlets: Vec<Outlet>,
    reports: u64,
    readers: Vec<Reader>,
    heard: VecDeque<Heard>,
    inbox: VecDeque<Vec<u8>>,
    outbox: Vec<(Address, Vec<u8>)>,
    now: Nanos,
}

impl Toy {
    fn frame(
        &self,
        to: KeyId,
        topic: (TopicId, Class),
        sequence: u64,
        at: Nanos,
        body: &[u8],
    ) -> Vec<u8> {
        let fields = EnvelopeFields {
            source: key(self.node),
            destination: to,
            topic: topic.0,
            schema: SchemaId::from_raw(1),
            epoch: Epoch::new(self.epoch),
            sequence: Sequence::new(sequence),
            sent_at: at,
            lifespan_us: 0,
            class: topic.1,
        };
        let mut slot = [0; FRAME_MAX];
        let mut payload = body.to_vec();
        payload.extend(check(self.epoch, sequence, topic.0, body));
        let len = encode(&mut slot, ClusterTag::from_raw(7), &fields, &payload).unwrap_or(0);
        slot[..len].to_vec()
    }

    fn report(&mut self, to: u16, entry: &Entry) {
        self.reports += 1;
        let topic = (TopicId::of(REPORTS), Class::Control);
        let frame = self.frame(key(to), topic, self.reports, self.now, &entry.to_bytes());
        self.outbox.push((to, frame));
    }

    fn data(&self, topic: usize, retained: &Retained) -> Vec<u8> {
        let id = (TopicId::of(TOPICS[topic].name), class(TOPICS[topic].kind));
        let body = match TOPICS[topic].kind {
            Kind::EStop => &retained.payload.as_bytes()[8..16],
            _ => retained.payload.as_bytes(),
        };
        self.frame(KeyId::EVERYONE, id, retained.sequence, retained.at, body)
    }

    fn take_in(&mut self, frame: &[u8]) -> Option<()> {
        let Ok(Frame::Clear(envelope)) = decode(frame) else { return None };
        let header = envelope.header;
        let (body, given) =
            envelope.payload.split_at_checked(envelope.payload.len().checked_sub(CHECK)?)?;
        let sequence = header.sequence().get();
        if check(header.epoch().get(), sequence, header.topic(), body) != given {
            return None;
        }
        let from = u16::try_from(header.source().get().checked_sub(1)?).ok()?;
        let peer = self.peers.iter().position(|known| *known == from)?;
        let epoch = header.epoch().get();
        let reader = &mut self.readers[peer];
        if epoch < reader.epoch
            || (is_broken(Broken::ForgetsPeers) && reader.epoch > 0 && sequence > 60)
        {
            return None;
        }
        if epoch > reader.epoch {
            reader.epoch = epoch;
            reader.windows.fill(None);
            reader.expected.fill(0);
            self.outlets.iter_mut().for_each(|outlet| outlet.floors[peer] = 0);
        }
        if header.topic() == TopicId::of(REPORTS) {
            if header.destination() != key(self.node) {
                return None;
            }
            let entry = Entry::parse(<&[u8; ENTRY_LEN]>::try_from(body).ok()?).ok()?;
            return self.told(peer, &entry);
        }
        let topic = TOPICS.iter().position(|topic| TopicId::of(topic.name) == header.topic())?;
        let mut payload = Payload::read_from_bytes(body).ok()?;
        if is_broken(Broken::ChangesBytes) && sequence % 1_000 == 99 {
            payload.noise[1] ^= 1;
        }
        assert!(!is_broken(Broken::Panics) || sequence != 50, "broken on purpose");
        let reader = &mut self.readers[peer];
        if !TOPICS[topic].kind.is_reliable() {
            let window = reader.windows[topic].get_or_insert(Window::starting_at(Sequence::FIRST));
            let newest = sequence > window.highest().get();
            let fresh = window.commit(header.sequence()) == Verdict::Fresh;
            let stale = TOPICS[topic].kind == Kind::Control && is_broken(Broken::NewestGoesBack);
            if !fresh && !stale && !is_broken(Broken::DeliversTwice) {
                return None;
            }
            let topic_number = topic as u8;
            match TOPICS[topic].kind {
                Kind::Queue => self.heard.push_back(Heard::Queued { topic: topic_number, payload }),
                Kind::Control if newest || is_broken(Broken::NewestGoesBack) => {
                    self.heard.push_back(Heard::Value { topic: topic_number, payload });
                }
                _ => {}
            }
            return Some(());
        }
        let expected = reader.expected[topic];
        let skips = is_broken(Broken::SkipsInSilence) && sequence > expected;
        if expected != 0 && (sequence == expected || skips) {
            reader.expected[topic] = sequence + 1;
            self.heard.push_back(Heard::Message {
                topic: topic as u8,
                from,
                epoch,
                sequence,
                payload,
                possible_duplicate: false,
            });
        }
        self.acknowledge(peer, topic);
        Some(())
    }

    fn acknowledge(&mut self, peer: usize, topic: usize) {
        let reader = &self.readers[peer];
        if reader.expected[topic] == 0 {
            return;
        }
        let entry = Entry::Acknowledgement(Acknowledgement {
            topic: TopicId::of(TOPICS[topic].name),
            schema: SchemaId::from_raw(1),
            class: class(TOPICS[topic].kind),
            epoch: Epoch::new(reader.epoch),
            floor: Sequence::new(reader.expected[topic] - 1),
            held: 0,
            limit: Sequence::new(u64::MAX),
            wanted: false,
            echo: None,
            held_us: 0,
        });
        self.report(self.peers[peer], &entry);
    }

    fn told(&mut self, peer: usize, entry: &Entry) -> Option<()> {
        let topic = TOPICS.iter().position(|topic| TopicId::of(topic.name) == entry.topic())?;
        match entry {
            Entry::Acknowledgement(entry) if entry.epoch.get() == self.epoch => {
                let floor = &mut self.outlets[topic].floors[peer];
                *floor = entry.floor.get().max(*floor);
            }
            Entry::Heartbeat(entry) => {
                let (from, first) = (self.peers[peer], entry.first.get());
                let reader = &mut self.readers[peer];
                let (epoch, expected) = (reader.epoch, reader.expected[topic]);
                let topic_number = topic as u8;
                if expected == 0 {
                    reader.expected[topic] = first;
                    self.heard.push_back(Heard::NewLife {
                        topic: topic_number,
                        from,
                        epoch,
                        first,
                    });
                } else if first > expected {
                    reader.expected[topic] = first;
                    self.heard.push_back(Heard::Gap {
                        topic: topic_number,
                        from,
                        epoch,
                        first: expected - u64::from(is_broken(Broken::GapsWhatItHas)),
                        last: first - 1,
                    });
                }
                self.acknowledge(peer, topic);
            }
            _ => {}
        }
        Some(())
    }

    fn send_fresh(&mut self, topic: usize) {
        while let Some((payload, at)) = self.outlets[topic].fresh.pop_front() {
            let outlet = &mut self.outlets[topic];
            let retained = Retained { sequence: outlet.next, at, sent: self.now, payload };
            outlet.next += u64::from(!is_broken(Broken::ReusesNumbers) || outlet.next != 70);
            let frame = self.data(topic, &retained);
            self.outbox.extend(self.peers.iter().map(|peer| (*peer, frame.clone())));
            if TOPICS[topic].kind.is_reliable() {
                self.outlets[topic].retained.push_back(retained);
            }
        }
    }

    fn repeat(&mut self, topic: usize) {
        let now = self.now;
        let keep = TOPICS[topic].lifespan.map_or(LINGER, |lifespan| lifespan / 2);
        let outlet = &mut self.outlets[topic];
        let floor = outlet.floors.iter().copied().min().unwrap_or(0);
        while outlet.retained.front().is_some_and(|r| r.sequence <= floor || now - r.at > keep) {
            outlet.retained.pop_front();
        }
        let mut due = Vec::new();
        for (place, retained) in outlet.retained.iter_mut().enumerate() {
            if now - retained.sent >= AGAIN {
                retained.sent = now;
                due.push(place);
            }
        }
        for place in due {
            let frame = self.data(topic, &self.outlets[topic].retained[place]);
            let sequence = self.outlets[topic].retained[place].sequence;
            for (peer, to) in self.peers.iter().enumerate() {
                if self.outlets[topic].floors[peer] < sequence {
                    self.outbox.push((*to, frame.clone()));
                }
            }
        }
        if now >= self.outlets[topic].heartbeat {
            let outlet = &mut self.outlets[topic];
            outlet.heartbeat = now + AGAIN;
            let entry = Entry::Heartbeat(Heartbeat {
                topic: TopicId::of(TOPICS[topic].name),
                schema: SchemaId::from_raw(1),
                class: class(TOPICS[topic].kind),
                first: Sequence::new(outlet.retained.front().map_or(outlet.next, |r| r.sequence)),
                last: Sequence::new(outlet.next - 1),
                unresolved: None,
                many: false,
            });
            for to in self.peers.clone() {
                self.report(to, &entry);
            }
        }
    }
}

fn check(epoch: u64, sequence: u64, topic: TopicId, body: &[u8]) -> [u8; CHECK] {
    let mut hash = TraceHash::default();
    [epoch, sequence, topic.get()].iter().for_each(|word| hash.word(*word));
    hash.bytes(body);
    hash.get().to_le_bytes()
}

impl Host for Toy {
    const SPEAKS_REPORTS: bool = false;
    const COUNTS_DROPS: bool = false;

    fn start(birth: &Birth<'_>) -> Result<Self, String> {
        let peers: Vec<u16> = birth.plan.peers(birth.node).collect();
        let outlet = || Outlet { next: 1, floors: vec![0; peers.len()], ..Outlet::default() };
        let reader = || Reader {
            epoch: 0,
            windows: vec![None; TOPIC_COUNT],
            expected: vec![0; TOPIC_COUNT],
        };
        Ok(Self {
            node: birth.node,
            epoch: birth.epoch,
            outlets: TOPICS.iter().map(|_| outlet()).collect(),
            reports: 0,
            readers: peers.iter().map(|_| reader()).collect(),
            peers,
            heard: VecDeque::new(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            now: birth.now,
        })
    }

    fn key_id(node: u16) -> u64 {
        key(node).get()
    }

    fn cluster() -> ClusterTag {
        ClusterTag::from_raw(7)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn receive(&mut self, _from: Address, frame: &[u8]) -> bool {
        self.inbox.push_back(frame.to_vec());
        true
    }

    fn poll(&mut self, now: Nanos) -> bool {
        self.now = now;
        let before = self.outbox.len();
        let mut worked = false;
        while let Some(frame) = self.inbox.pop_front() {
            self.take_in(&frame);
            worked = true;
        }
        for (topic, plan) in TOPICS.iter().enumerate() {
            self.send_fresh(topic);
            if plan.kind.is_reliable() {
                self.repeat(topic);
            }
        }
        worked || self.outbox.len() > before
    }

    fn next_deadline(&self) -> Option<Nanos> {
        if is_broken(Broken::NeverRests) {
            return Some(self.now);
        }
        let again = |outlet: &Outlet| {
            let resend = outlet.retained.iter().map(|retained| retained.sent + AGAIN).min();
            resend.map_or(outlet.heartbeat, |at| at.min(outlet.heartbeat))
        };
        let reliable = self.outlets.iter().zip(TOPICS).filter(|(_, plan)| plan.kind.is_reliable());
        reliable.map(|(outlet, _)| again(outlet)).min()
    }

    fn sent(&mut self, take: &mut dyn FnMut(Address, &[u8])) {
        for (to, frame) in self.outbox.drain(..) {
            take(to, &frame);
        }
    }

    fn publish(&mut self, topic: u8, payload: &Payload, now: Nanos) -> Result<(), WouldBlock> {
        let outlet = &mut self.outlets[usize::from(topic)];
        if outlet.retained.len() + outlet.fresh.len() >= RETAINED {
            return Err(WouldBlock);
        }
        outlet.fresh.push_back((*payload, now));
        Ok(())
    }

    fn hear(&mut self, _now: Nanos, reads_all: bool, take: &mut dyn FnMut(Heard)) {
        // One queue for all: a program that does not read reads nothing.
        if reads_all {
            self.heard.drain(..).for_each(take);
        }
    }
}
