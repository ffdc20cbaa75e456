//! A small honest reader and a network that loses, doubles, delays and reorders.

use super::*;
use crate::random::SplitMix64;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TICK: Nanos = Nanos::from_micros(100);
const LEN: usize = 400;
/// What the readers here hold: the least that one may, so that a report needs one entry only.
const HOLD: u64 = 64;

#[derive(Clone, Copy)]
struct Weather {
    loss_percent: u64,
    double_percent: u64,
    /// One way.
    delay: Nanos,
    /// More than that, at random.
    jitter: Nanos,
    random: SplitMix64,
}

#[derive(Clone, Copy)]
enum Packet {
    Data { to: usize, sequence: u64, sent_at: Nanos },
    Heartbeat { to: usize, entry: Heartbeat },
    Report { from: usize, entry: Acknowledgement },
}

#[derive(Default)]
struct Reader {
    floor: u64,
    received: BTreeSet<u64>,
    holes: BTreeMap<u64, Nanos>,
    fresh: u32,
    fresh_since: Option<Nanos>,
    duplicate: bool,
    asked_at: Option<Nanos>,
    reported_at: Option<Nanos>,
    echo: Option<(Nanos, Nanos)>,
    arrived: BTreeMap<u64, Nanos>,
    gaps: Vec<u64>,
    beyond: u64,
    cut_off: bool,
}

impl Reader {
    fn data(&mut self, sequence: u64, sent_at: Nanos, now: Nanos) {
        self.echo = Some((sent_at, now));
        if sequence <= self.floor || self.received.contains(&sequence) {
            self.duplicate = true;
            return;
        }
        if sequence > self.floor + HOLD {
            self.beyond += 1;
            return;
        }
        self.received.insert(sequence);
        assert!(self.arrived.insert(sequence, now).is_none());
        self.fresh += 1;
        self.fresh_since.get_or_insert(now);
        self.see_holes(sequence, now);
        self.advance();
    }

    fn see_holes(&mut self, below: u64, now: Nanos) {
        for hole in self.floor + 1..below.min(self.floor + HOLD + 1) {
            if !self.received.contains(&hole) {
                self.holes.entry(hole).or_insert(now);
            }
        }
    }

    fn advance(&mut self) {
        while self.received.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
        self.holes.retain(|hole, _| *hole > self.floor && !self.received.contains(hole));
    }

    fn heartbeat(&mut self, entry: &Heartbeat, now: Nanos) {
        while self.floor + 1 < entry.first.get() {
            if !self.received.remove(&(self.floor + 1)) {
                self.gaps.push(self.floor + 1);
                self.fresh_since.get_or_insert(now);
                self.fresh += 8;
            }
            self.floor += 1;
        }
        self.advance();
        self.see_holes(entry.last.get() + 1, now);
    }

    fn report(&mut self, world: &World, now: Nanos) -> Option<Acknowledgement> {
        let due = |seen: Nanos| now - seen >= world.reorder;
        let since = |at: Option<Nanos>| at.map_or(Nanos::MAX, |at| now - at);
        let overdue = self.holes.values().any(|seen| due(*seen));
        let wanted = overdue && since(self.asked_at) >= world.ask_every;
        let is_due = wanted
            || self.duplicate && since(self.reported_at) >= ms(1)
            || self.fresh >= 8
            || self.fresh_since.is_some_and(|at| now - at >= ms(2))
            || since(self.reported_at) >= ms(100);
        if !is_due {
            return None;
        }
        let wanted = wanted || overdue;
        if wanted {
            self.asked_at = Some(now);
        }
        // Only holes that waited long enough are asked for: they lie below what is reported.
        let young = self.holes.iter().find(|(_, seen)| wanted && !due(**seen));
        let until = young.map_or(u64::MAX, |(hole, _)| *hole);
        let mut entry = acknowledgement(self.floor);
        for sequence in self.received.range(..until) {
            entry.held |= 1 << (sequence - self.floor - 1);
        }
        entry.limit = Sequence::new(self.floor + HOLD);
        entry.wanted = wanted;
        if let Some((echo, at)) = self.echo {
            entry.echo = Some(echo);
            entry.held_us = ((now - at).as_nanos() / 1_000) as u32;
        }
        (self.fresh, self.fresh_since, self.duplicate) = (0, None, false);
        self.reported_at = Some(now);
        Some(entry)
    }
}

struct World {
    weather: Weather,
    reorder: Nanos,
    ask_every: Nanos,
    writer: Writer,
    readers: Vec<Reader>,
    wire: BTreeMap<(Nanos, u64), Packet>,
    packets: u64,
    now: Nanos,
    first_sent: BTreeMap<u64, Nanos>,
    lost_at_first: BTreeSet<(usize, u64)>,
    lost_bytes: u64,
    resent_bytes: u64,
    resent: Vec<Nanos>,
    publish_every: Nanos,
    refused: u64,
}

impl World {
    fn new(spec: WriterSpec, weather: Weather, reorder: Nanos, publish_every: Nanos) -> Self {
        let now = Nanos::from_secs(100);
        let mean = weather.delay * 2 + weather.jitter;
        Self {
            weather,
            reorder,
            ask_every: (mean / 2).max(ms(1)),
            writer: Writer::new(spec, now),
            readers: (0..spec.readers).map(|_| Reader::default()).collect(),
            wire: BTreeMap::new(),
            packets: 0,
            now,
            first_sent: BTreeMap::new(),
            lost_at_first: BTreeSet::new(),
            lost_bytes: 0,
            resent_bytes: 0,
            resent: Vec::new(),
            publish_every,
            refused: 0,
        }
    }

    /// Puts a packet on the wire; `false` if it is lost.
    fn send(&mut self, packet: Packet) -> bool {
        let (Packet::Data { to: reader, .. }
        | Packet::Heartbeat { to: reader, .. }
        | Packet::Report { from: reader, .. }) = packet;
        if self.readers[reader].cut_off
            || self.weather.random.below(100) < self.weather.loss_percent
        {
            return false;
        }
        let copies = 1 + u64::from(self.weather.random.below(100) < self.weather.double_percent);
        for _ in 0..copies {
            let jitter = self.weather.random.up_to(self.weather.jitter);
            let at = self.now + self.weather.delay + jitter;
            self.packets += 1;
            self.wire.insert((at, self.packets), packet);
        }
        true
    }

    fn tick(&mut self, publish: bool) {
        self.now += TICK;
        let now = self.now;
        while let Some(first) = self.wire.first_entry().filter(|first| first.key().0 <= now) {
            match first.remove() {
                Packet::Data { to, sequence, sent_at } => {
                    self.readers[to].data(sequence, sent_at, now);
                }
                Packet::Heartbeat { to, entry } => self.readers[to].heartbeat(&entry, now),
                Packet::Report { from, entry } => {
                    self.writer.acknowledge(peer(from), EPOCH, &entry, now).unwrap();
                }
            }
        }
        for place in 0..self.readers.len() {
            let mut reader = std::mem::take(&mut self.readers[place]);
            let report = reader.report(self, now);
            self.readers[place] = reader;
            if let Some(entry) = report {
                self.send(Packet::Report { from: place, entry });
            }
        }
        while let Some((to, sequence, frame)) = self.writer.resend(now) {
            let (to, sequence, bytes) = (to.get(), sequence.get(), frame.len() as u64);
            self.resent_bytes += bytes;
            self.resent.push(now);
            let sent_at = self.first_sent[&sequence];
            if !self.send(Packet::Data { to, sequence, sent_at }) {
                self.lost_bytes += bytes;
            }
        }
        if publish && (now.as_nanos() % self.publish_every.as_nanos()) < TICK.as_nanos() {
            match self.writer.room(now) {
                true => self.publish(),
                false => self.refused += 1,
            }
        }
        while let Some((to, entry)) = self.writer.heartbeat(now) {
            self.send(Packet::Heartbeat { to: to.get(), entry });
        }
    }

    fn publish(&mut self) {
        let sequence = self.writer.next().get();
        self.writer.keep(self.now, &frame(sequence, LEN));
        self.first_sent.insert(sequence, self.now);
        for to in 0..self.readers.len() {
            let sent_at = self.now;
            if self.writer.is_matched(peer(to))
                && !self.send(Packet::Data { to, sequence, sent_at })
            {
                self.lost_bytes += LEN as u64;
                self.lost_at_first.insert((to, sequence));
            }
        }
    }

    fn run(&mut self, span: Nanos, publish: bool) {
        let end = self.now + span;
        while self.now < end {
            self.tick(publish);
        }
    }

    /// From the first sending to the arrival, of messages whose first sending was lost.
    fn recovery_p99(&self, reader: usize) -> Nanos {
        let mut all: Vec<Nanos> = self
            .lost_at_first
            .iter()
            .filter(|(to, _)| *to == reader)
            .filter_map(|(_, n)| Some(*self.readers[reader].arrived.get(n)? - self.first_sent[n]))
            .collect();
        all.sort_unstable();
        all[all.len() * 99 / 100]
    }
}

fn rough(delay: Nanos, jitter: Nanos, seed: u64) -> Weather {
    Weather { loss_percent: 20, double_percent: 10, delay, jitter, random: SplitMix64::new(seed) }
}

fn kilohertz() -> WriterSpec {
    WriterSpec {
        readers: 1,
        capacity: 512,
        linger: Nanos::from_secs(5),
        lease: Nanos::from_secs(5),
        ..spec()
    }
}

#[test]
fn a_kilohertz_stream_comes_through_heavy_loss_whole_soon_and_with_little_sent_in_vain() {
    for (delay, jitter) in [(us(100), ms(20)), (ms(5), ms(20)), (ms(20), ms(0)), (us(100), ms(0))] {
        for seed in 1..=3 {
            let reorder = jitter.max(ms(1));
            let mut world = World::new(kilohertz(), rough(delay, jitter, seed), reorder, ms(1));
            // Until the reader is matched; what it missed before that is another claim.
            world.run(Nanos::from_secs(1), false);
            world.run(Nanos::from_secs(20), true);
            world.run(Nanos::from_secs(1), false);
            let last = world.writer.next().get() - 1;
            let p99 = world.recovery_p99(0);
            let ratio = world.resent_bytes as f64 / world.lost_bytes as f64;
            println!(
                "delay {delay}, jitter {jitter}: {last} sent, {} refused, {ratio:.3} resent for each lost, p99 {p99}",
                world.refused
            );
            let reader = &world.readers[0];
            assert_eq!((reader.floor, reader.arrived.len() as u64), (last, last));
            assert!(reader.gaps.is_empty());
            assert!(ratio <= 1.6, "{ratio}");
            // A trip of a fifth of the period is found out by the messages that follow instead.
            let round_trip = (delay * 2 + jitter).max(ms(2));
            assert!(p99 <= round_trip * 5 + reorder, "{p99}");
        }
    }
}

#[test]
fn a_stream_without_loss_sends_nothing_again() {
    for (delay, jitter) in [(us(100), ms(0)), (ms(20), ms(0)), (ms(5), ms(20))] {
        let weather = Weather {
            loss_percent: 0,
            double_percent: 10,
            delay,
            jitter,
            random: SplitMix64::new(9),
        };
        for period in [ms(1), ms(7), ms(300)] {
            let mut world = World::new(kilohertz(), weather, jitter.max(ms(1)), period);
            world.run(Nanos::from_secs(5), true);
            world.run(Nanos::from_secs(1), false);
            let last = world.writer.next().get() - 1;
            let sent_again = world.resent_bytes / LEN as u64;
            println!("delay {delay}, jitter {jitter}, period {period}: {sent_again} of {last}");
            assert!(sent_again * 100 <= last * 2, "{sent_again} of {last}");
        }
    }
}

#[test]
fn when_a_partition_heals_the_reader_gets_what_is_left_without_a_storm() {
    for outage in [ms(300), ms(2_000), ms(8_000)] {
        let spec = WriterSpec { readers: 2, linger: ms(1_000), ..kilohertz() };
        let weather = Weather { loss_percent: 0, ..rough(ms(5), ms(0), 4) };
        let mut world = World::new(spec, weather, ms(1), ms(1));
        world.run(ms(500), true);
        world.readers[1].cut_off = true;
        world.run(outage, true);
        world.readers[1].cut_off = false;
        world.resent.clear();
        world.run(ms(4_000), true);
        world.run(ms(1_500), false);
        let last = world.writer.next().get() - 1;
        for reader in &world.readers {
            assert_eq!(reader.floor, last, "it does not catch up");
        }
        let there = world.readers[1].arrived.len() + world.readers[1].gaps.len();
        assert_eq!(there as u64, last, "a loss without a gap");
        // A second has at most a thousand frames of LEN bytes, of which half may be sent again.
        let most = (1_000 * 2 * LEN as u64 / 2).max(share::FLOOR_BYTES) / LEN as u64;
        for (n, at) in world.resent.iter().enumerate() {
            let second = world.resent[n..].iter().take_while(|other| **other - *at < ms(1_000));
            assert!(second.count() as u64 <= most);
        }
        println!(
            "outage {outage}: {} again, {} gaps",
            world.resent.len(),
            world.readers[1].gaps.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn in_any_weather_every_message_arrives_or_is_a_gap(
        loss_percent in 0u64..45, double_percent in 0u64..30, delay_us in 50i64..30_000,
        jitter_us in 0i64..25_000, seed: u64, readers in 1usize..12, linger_ms in 100i64..2_000,
        capacity in 1usize..200,
    ) {
        let (delay, jitter) = (us(delay_us), us(jitter_us));
        let random = SplitMix64::new(seed);
        let weather = Weather { loss_percent, double_percent, delay, jitter, random };
        let spec = WriterSpec { readers, linger: ms(linger_ms), capacity, ..kilohertz() };
        let mut world = World::new(spec, weather, jitter.max(ms(1)), ms(2));
        world.run(ms(2_000), true);
        world.weather.loss_percent = 0;
        world.run(ms(4_000), false);
        let last = world.writer.next().get() - 1;
        for reader in &world.readers {
            prop_assert_eq!(reader.floor, last);
            let accounted = reader.arrived.len() + reader.gaps.len();
            prop_assert_eq!(accounted as u64, last);
        }
    }
}
