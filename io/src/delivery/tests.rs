//! The real writer and the real reader over a link that loses, doubles, delays and reorders, in
//! virtual time.

use super::reader::{Accepted, Next, Reader, ReaderSpec};
use super::writer::{Writer, WriterEvent, WriterSpec};
use crate::random::SplitMix64;
use crate::security::PeerIndex;
use crate::wire::report::{Entry, Heartbeat};
use crate::wire::{Class, Epoch, FRAME_MAX, SchemaId, Sequence, TopicId};
use proptest::prelude::*;
use sinew_rt::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};

const MS: Nanos = Nanos::from_millis(1);
const TICK: Nanos = Nanos::from_micros(100);
const START: Nanos = Nanos::from_secs(100);
const EPOCH: Epoch = Epoch::new(7);
const READER: PeerIndex = PeerIndex::new(0);
const LEN: usize = 400;

#[derive(Clone, Copy, Debug)]
struct Link {
    loss_percent: u64,
    double_percent: u64,
    /// One way.
    delay: Nanos,
    /// More than that, uniformly.
    jitter: Nanos,
    /// Whether each entry of a report travels by itself, so that one may be lost or late alone.
    parted: bool,
    random: SplitMix64,
}

impl Link {
    const ROUGH: Self = Self {
        loss_percent: 20,
        double_percent: 10,
        delay: Nanos::from_micros(100),
        jitter: Nanos::from_millis(20),
        parted: false,
        random: SplitMix64::new(0),
    };

    fn percent(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn mean_round_trip(&self) -> Nanos {
        self.delay * 2 + self.jitter
    }
}

#[derive(Clone, Debug)]
enum Packet {
    Data { sequence: u64, sent_at: Nanos, frame: Vec<u8> },
    Heartbeat(Heartbeat),
    Report(Vec<Entry>),
}

struct World {
    link: Link,
    writer: Writer,
    reader: Reader<Vec<u8>>,
    flying: BTreeMap<(Nanos, u64), Packet>,
    packets: u64,
    now: Nanos,
    /// When each was published; its place is its sequence less one.
    published: Vec<Nanos>,
    lost_at_first: BTreeSet<u64>,
    arrived: BTreeMap<u64, Nanos>,
    delivered: u64,
    gaps: u64,
    /// Publications that were refused when they were due; each was tried again in every tick.
    refused: u64,
    beyond: u64,
    lost_bytes: u64,
    resent_bytes: u64,
    /// Entries that told of more than 64.
    more: u64,
    /// How long it took to publish everything.
    took: Nanos,
}

fn writer_spec() -> WriterSpec {
    WriterSpec {
        topic: TopicId::of("arm/path"),
        schema: SchemaId::from_raw(5),
        class: Class::Stream,
        readers: 1,
        capacity: 256,
        frame_len: FRAME_MAX,
        lifespan: None,
        linger: MS * 5_000,
        patience: MS * 20,
        lease: MS * 3_000,
        heartbeat: MS * 100,
        resend_share_percent: 50,
    }
}

impl World {
    fn new(mut link: Link, writer: WriterSpec, hold: u16, reorder: Nanos) -> Self {
        let spec = ReaderSpec {
            topic: writer.topic,
            schema: writer.schema,
            class: writer.class,
            hold,
            reorder,
            gap_timeout: MS * 5_000,
            acknowledge_every: 16,
            acknowledge_within: MS,
            refresh: MS * 500,
            lifespan: writer.lifespan,
        };
        let mut reader = Reader::new(spec, link.random.next());
        reader.set_round_trip(link.mean_round_trip());
        reader.new_life(EPOCH, Sequence::FIRST, START);
        Self {
            link,
            writer: Writer::new(writer, START),
            reader,
            flying: BTreeMap::new(),
            packets: 0,
            now: START,
            published: Vec::new(),
            lost_at_first: BTreeSet::new(),
            arrived: BTreeMap::new(),
            delivered: 0,
            gaps: 0,
            refused: 0,
            beyond: 0,
            lost_bytes: 0,
            resent_bytes: 0,
            more: 0,
            took: Nanos::ZERO,
        }
    }

    /// Puts a packet on the link; `false` if it is lost.
    fn send(&mut self, packet: &Packet) -> bool {
        if self.link.percent(self.link.loss_percent) {
            return false;
        }
        for _ in 0..1 + u64::from(self.link.percent(self.link.double_percent)) {
            let jitter = self.link.random.up_to(self.link.jitter);
            let at = self.now + self.link.delay + jitter;
            self.packets += 1;
            self.flying.insert((at, self.packets), packet.clone());
        }
        true
    }

    fn arrive(&mut self, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::Data { sequence, sent_at, frame } => {
                match self.reader.accept(Sequence::new(sequence), sent_at, frame, now) {
                    Accepted::InOrder | Accepted::Held => {
                        assert!(self.arrived.insert(sequence, now).is_none(), "taken twice");
                    }
                    Accepted::Duplicate(_) => assert!(self.is_known(sequence)),
                    Accepted::Beyond(_) => self.beyond += 1,
                }
            }
            Packet::Heartbeat(heartbeat) => self.reader.heartbeat(&heartbeat, now).unwrap(),
            Packet::Report(entries) => {
                for entry in entries {
                    // What a report says is what was written into it.
                    match Entry::parse(&entry.to_bytes()).unwrap() {
                        Entry::Acknowledgement(entry) => {
                            self.writer.acknowledge(READER, EPOCH, &entry, now).unwrap();
                        }
                        Entry::MoreHeld(entry) => {
                            self.writer.more_held(READER, EPOCH, &entry, now);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }

    fn is_known(&self, sequence: u64) -> bool {
        self.arrived.contains_key(&sequence) || sequence <= self.reader.floor().get()
    }

    fn deliver(&mut self) {
        while let Some(next) = self.reader.next(self.now) {
            match next {
                Next::Frame(sequence, frame) => {
                    assert_eq!(sequence.get(), self.delivered + self.gaps + 1, "out of order");
                    assert_eq!(number(&frame), sequence.get(), "another message's frame");
                    self.delivered += 1;
                }
                Next::Gap { first, last } => self.gaps += last.get() - first.get() + 1,
            }
        }
        self.reader.room(1_000, self.now);
    }

    fn report(&mut self) {
        let entries: Vec<_> = std::iter::from_fn(|| self.reader.report(self.now)).collect();
        self.more += entries.iter().filter(|it| matches!(it, Entry::MoreHeld(_))).count() as u64;
        if entries.is_empty() {
            return;
        }
        match self.link.parted {
            false => _ = self.send(&Packet::Report(entries)),
            true => {
                for entry in entries {
                    self.send(&Packet::Report(vec![entry]));
                }
            }
        }
    }

    fn tick(&mut self, publishes: bool) {
        self.now += TICK;
        let now = self.now;
        while let Some(first) = self.flying.first_entry().filter(|first| first.key().0 <= now) {
            let packet = first.remove();
            self.arrive(packet);
        }
        self.deliver();
        self.report();
        while let Some((_, sequence, frame)) = self.writer.resend(now) {
            let frame = frame.to_vec();
            assert_eq!(number(&frame), sequence.get());
            self.resent_bytes += frame.len() as u64;
            self.put(sequence.get(), frame);
        }
        if publishes && self.writer.room(now) {
            self.publish();
        }
        while let Some((_, heartbeat)) = self.writer.heartbeat(now) {
            self.send(&Packet::Heartbeat(heartbeat));
        }
        while let Some(event) = self.writer.event() {
            assert!(!matches!(event, WriterEvent::Mismatch(_)), "{event:?}");
        }
    }

    fn publish(&mut self) {
        self.published.push(self.now);
        let sequence = self.published.len() as u64;
        let mut frame = vec![0xA5; LEN];
        frame[..8].copy_from_slice(&sequence.to_le_bytes());
        self.writer.keep(self.now, &frame);
        if self.writer.is_matched(READER) && !self.put(sequence, frame) {
            self.lost_at_first.insert(sequence);
        }
    }

    fn put(&mut self, sequence: u64, frame: Vec<u8>) -> bool {
        let (sent_at, len) = (self.published[sequence as usize - 1], frame.len() as u64);
        let sent = self.send(&Packet::Data { sequence, sent_at, frame });
        self.lost_bytes += if sent { 0 } else { len };
        sent
    }

    fn pause(&mut self, span: Nanos) {
        for _ in 0..span.as_nanos() / TICK.as_nanos() {
            self.tick(false);
        }
    }

    /// Publishes one each millisecond; what is refused is tried again in each tick.
    fn stream(&mut self, span: Nanos) {
        let (since, until, mut waiting) = (self.now, self.now + span, 0);
        while self.now < until || waiting > 0 {
            let is_due = self.now < until && (self.now - START).as_nanos() % MS.as_nanos() == 0;
            waiting += u64::from(is_due);
            let sent = self.sent();
            self.tick(waiting > 0);
            waiting -= self.sent() - sent;
            self.refused += u64::from(is_due && waiting > 0);
        }
        self.took = self.now - since;
    }

    /// From the first sending to the arrival, of messages whose first sending was lost: the value that
    /// a hundredth of them exceeds, and the longest.
    fn recovery(&self) -> (Nanos, Nanos) {
        let published = |sequence: u64| self.published[sequence as usize - 1];
        let mut all: Vec<_> = self
            .lost_at_first
            .iter()
            .filter_map(|sequence| Some(*self.arrived.get(sequence)? - published(*sequence)))
            .collect();
        all.sort_unstable();
        (all[all.len() * 99 / 100], all[all.len() - 1])
    }

    fn sent(&self) -> u64 {
        self.published.len() as u64
    }
}

fn number(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[..8].try_into().unwrap())
}

/// Twenty seconds of 1 kHz over the rough link.
fn rough(hold: u16, parted: bool, seed: u64) -> World {
    let link = Link { parted, random: SplitMix64::new(seed), ..Link::ROUGH };
    let mut world = World::new(link, writer_spec(), hold, MS * 20);
    // Until the reader is matched.
    world.pause(MS * 1_000);
    world.stream(MS * 20_000);
    world.pause(MS * 1_000);
    let (p99, longest) = world.recovery();
    println!(
        "hold {hold}, parted {parted}, seed {seed}: {} sent in {}, {} refused, {:.3} resent for each lost byte, \
         recovery p99 {p99}, at most {longest}, {} reports of more than 64, {} thrown away",
        world.sent(),
        world.took,
        world.refused,
        world.resent_bytes as f64 / world.lost_bytes as f64,
        world.more,
        world.beyond,
    );
    assert_eq!((world.delivered, world.gaps), (world.sent(), 0), "complete and in order");
    world
}

#[test]
fn a_kilohertz_stream_is_hardly_ever_held_up_by_heavy_loss_if_256_may_wait() {
    for seed in 1..=3 {
        let world = rough(256, false, seed);
        let round_trip = world.link.mean_round_trip();
        assert!(world.refused * 1_000 <= world.sent(), "{} refused", world.refused);
        assert!(world.recovery().0 <= round_trip * 5 + MS * 20, "{}", world.recovery().0);
        assert!(world.resent_bytes * 10 <= world.lost_bytes * 16);
        assert_eq!((world.beyond, world.writer.refused()), (0, 0));
        assert!(world.more > 0);
    }
}

#[test]
fn it_is_held_up_if_64_may_wait_and_still_complete() {
    let world = rough(64, false, 1);
    assert!(world.took > MS * 22_000, "the link is not rough: {}", world.took);
    assert_eq!((world.more, world.beyond), (0, 0));
}

#[test]
fn entries_that_are_lost_or_late_alone_cost_little() {
    for seed in 1..=3 {
        let world = rough(256, true, seed);
        assert!(world.refused * 100 <= world.sent(), "{} refused", world.refused);
        assert!(world.resent_bytes * 10 <= world.lost_bytes * 17);
        assert_eq!((world.beyond, world.writer.refused()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn in_any_weather_everything_arrives_or_is_a_gap(
        loss_percent in 0u64..45, double_percent in 0u64..30, delay_us in 50i64..30_000,
        jitter_us in 0i64..25_000, parted: bool, seed: u64, hold in 64u16..=256, capacity in 1usize..300,
    ) {
        let (delay, jitter) = (Nanos::from_micros(delay_us), Nanos::from_micros(jitter_us));
        let random = SplitMix64::new(seed);
        let link = Link { loss_percent, double_percent, delay, jitter, parted, random };
        let spec = WriterSpec { capacity, linger: MS * 400, ..writer_spec() };
        let mut world = World::new(link, spec, hold, jitter.max(MS));
        world.pause(MS * 300);
        world.stream(MS * 1_500);
        world.link.loss_percent = 0;
        world.pause(MS * 3_000);
        prop_assert_eq!(world.delivered + world.gaps, world.sent());
        prop_assert_eq!(world.writer.refused(), 0);
    }
}
