//! One direction of a link: what becomes of each datagram, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sinew_rt::clock::Nanos;

use super::draws::{Draws, For};
use super::{Rate, Shape};

/// Datagrams that one direction can carry at once; what finds it full is dropped, and counted with
/// what a rate's queue dropped.
pub const IN_FLIGHT_MAX: usize = 8_192;

/// One direction of a link. Its decisions follow from its seed and the number of the datagram alone.
#[derive(Clone, Debug)]
pub struct Link {
    seed: u64,
    shape: Shape,
    /// Partitions that are in force: they may overlap.
    cuts: u32,
    offered: u64,
    /// When the clamp has passed everything that waits.
    free_at: Nanos,
    /// When the last datagram arrives that keeps its place.
    last_due: Nanos,
    serial: u64,
    in_flight: BinaryHeap<Reverse<Datagram>>,
    counts: Counts,
}

/// Bytes that are on their way. Ordered by when they arrive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    /// When it arrives.
    pub due: Nanos,
    serial: u64,
    /// What arrives.
    pub bytes: Vec<u8>,
}

/// What was decided about a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Whether it went on.
    pub fate: Fate,
    /// The copies that arrive: the second one is a duplicate.
    pub copies: [Option<Passage>; 2],
}

/// Whether a datagram went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It does, if any of its copies found room.
    #[default]
    Carried,
    /// It was lost.
    Lost,
    /// A partition was in force.
    Partitioned,
}

/// How one copy travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When it arrives.
    pub due: Nanos,
    /// Whether bits were flipped.
    pub corrupted: bool,
    /// Whether it was held back, so that others overtake it.
    pub held_back: bool,
    draws: Draws,
}

impl Passage {
    /// Does to a copy of what was offered what the link does to this one: for who has virtual time, and
    /// does not wait for [`Link::poll`].
    pub fn damage(&self, bytes: &mut [u8]) {
        if self.corrupted && !bytes.is_empty() {
            corrupt(bytes, self.draws);
        }
    }
}

/// What a link did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Datagrams that came.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Datagrams handed on, duplicates among them.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// Carried twice.
    pub duplicated: u64,
    /// Copies that were held back.
    pub held_back: u64,
    /// Copies with flipped bits.
    pub corrupted: u64,
    /// Dropped because of a partition.
    pub partitioned: u64,
    /// Copies that found the queue of the clamp full.
    pub queue_full: u64,
}

impl Link {
    /// A link with its own seed: see [`Network`](super::network::Network) for those of a scenario.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self {
            seed,
            shape,
            cuts: 0,
            offered: 0,
            free_at: Nanos::MIN,
            last_due: Nanos::MIN,
            serial: 0,
            in_flight: BinaryHeap::new(),
            counts: Counts::default(),
        }
    }

    /// Changes what the link does to what comes from now on.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// Begins a partition: what comes is dropped, and what is on its way arrives.
    pub fn cut(&mut self) {
        self.cuts += 1;
    }

    /// Ends one.
    pub fn heal(&mut self) {
        self.cuts = self.cuts.saturating_sub(1);
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes a datagram and decides about it.
    pub fn offer(&mut self, now: Nanos, bytes: &[u8]) -> Decisions {
        let (index, len) = (self.offered, bytes.len() as u64);
        self.offered += 1;
        self.counts.offered += 1;
        self.counts.offered_bytes += len;
        let draws = Draws::of(self.seed, index, 0);
        let mut decided = Decisions::default();
        if self.cuts > 0 {
            self.counts.partitioned += 1;
            decided.fate = Fate::Partitioned;
        } else if draws.holds(For::Loss, self.shape.loss) {
            self.counts.lost += 1;
            self.counts.lost_bytes += len;
            decided.fate = Fate::Lost;
        } else {
            decided.copies[0] = self.carry(now, bytes, draws);
            if draws.holds(For::Duplicate, self.shape.duplicate) {
                self.counts.duplicated += 1;
                decided.copies[1] = self.carry(now, bytes, Draws::of(self.seed, index, 1));
            }
        }
        decided
    }

    /// Puts one copy on its way, if there is room.
    fn carry(&mut self, now: Nanos, bytes: &[u8], draws: Draws) -> Option<Passage> {
        let departs = match self.shape.rate {
            _ if self.in_flight.len() >= IN_FLIGHT_MAX => None,
            None => Some(now),
            Some(rate) => clamp(rate, &mut self.free_at, now, bytes.len() as u64),
        };
        let Some(departs) = departs else {
            self.counts.queue_full += 1;
            return None;
        };
        let mut due = departs + draws.delay(self.shape.delay);
        let held_back = draws.holds(For::Reorder, self.shape.reorder);
        if held_back {
            let most = self.shape.reorder_within.as_unsigned();
            due += Nanos::new(draws.up_to(For::HoldBack, 0, most) as i64);
            self.counts.held_back += 1;
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        let mut bytes = bytes.to_vec();
        let corrupted = draws.holds(For::Corrupt, self.shape.corrupt) && !bytes.is_empty();
        if corrupted {
            corrupt(&mut bytes, draws);
            self.counts.corrupted += 1;
        }
        self.serial += 1;
        self.in_flight.push(Reverse(Datagram { due, serial: self.serial, bytes }));
        Some(Passage { due, corrupted, held_back, draws })
    }

    /// The next datagram that has arrived by `now`; call until there is none.
    pub fn poll(&mut self, now: Nanos) -> Option<Datagram> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse(datagram) = self.in_flight.pop()?;
        self.counts.delivered += 1;
        self.counts.delivered_bytes += datagram.bytes.len() as u64;
        Some(datagram)
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.in_flight.peek().map(|Reverse(datagram)| datagram.due)
    }
}

/// When the clamp has passed `len` more bytes, or `None` when they find its queue full. A datagram
/// always passes an empty queue, however small that is.
pub(super) fn clamp(rate: Rate, free_at: &mut Nanos, now: Nanos, len: u64) -> Option<Nanos> {
    let per_s = u128::from(rate.bytes_per_s.max(1));
    let waits = (*free_at - now).as_unsigned();
    let waiting = u128::from(waits) * per_s / 1_000_000_000;
    if waits > 0 && waiting + u128::from(len) > u128::from(rate.queue_bytes) {
        return None;
    }
    let takes = (u128::from(len) * 1_000_000_000).div_ceil(per_s);
    *free_at = now.max(*free_at) + Nanos::new(i64::try_from(takes).unwrap_or(i64::MAX));
    Some(*free_at)
}

/// Flips one to three bits, anywhere.
fn corrupt(bytes: &mut [u8], draws: Draws) {
    let flips = 1 + draws.up_to(For::FlippedBit, 0, 2);
    for n in 1..=flips {
        let bit = draws.up_to(For::FlippedBit, n, bytes.len() as u64 * 8 - 1);
        if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chance, Delay};
    use super::*;

    fn ms(ms: i64) -> Nanos {
        Nanos::from_millis(ms)
    }

    /// Everything that arrives of `count` datagrams, one offered each millisecond, with its time.
    fn carried(shape: Shape, count: u64) -> (Vec<(Nanos, u64)>, Counts) {
        let mut link = Link::new(11, shape);
        let mut arrived = Vec::new();
        for n in 0..count as i64 {
            let now = ms(n);
            while let Some(datagram) = link.poll(now) {
                arrived.push(datagram);
            }
            link.offer(now, &n.to_le_bytes());
        }
        while let Some(datagram) = link.poll(Nanos::MAX) {
            arrived.push(datagram);
        }
        let number = |datagram: Datagram| {
            (datagram.due, u64::from_le_bytes(datagram.bytes.try_into().unwrap()))
        };
        (arrived.into_iter().map(number).collect(), *link.counts())
    }

    #[test]
    fn a_perfect_link_hands_everything_on_at_once() {
        let (arrived, counts) = carried(Shape::default(), 100);
        let expected: Vec<_> = (0..100).map(|n| (ms(n), n.cast_unsigned())).collect();
        assert_eq!(arrived, expected);
        assert_eq!((counts.offered, counts.delivered, counts.delivered_bytes), (100, 100, 800));
    }

    #[test]
    fn as_many_are_lost_and_doubled_as_the_shape_says() {
        let shape = Shape {
            loss: Chance::percent(20.0),
            duplicate: Chance::percent(10.0),
            ..Shape::default()
        };
        let (arrived, counts) = carried(shape, 20_000);
        assert!((3_800..4_200).contains(&counts.lost), "{counts:?}");
        assert!((1_480..1_720).contains(&counts.duplicated), "{counts:?}");
        assert_eq!(arrived.len() as u64, 20_000 - counts.lost + counts.duplicated);
        assert_eq!(counts.lost_bytes, counts.lost * 8);
    }

    #[test]
    fn only_what_is_held_back_is_overtaken_and_only_by_as_much_as_allowed() {
        let jitter = Delay::Uniform { least: ms(1), most: ms(30) };
        let (arrived, _) = carried(Shape { delay: jitter, ..Shape::default() }, 2_000);
        assert!(arrived.is_sorted_by_key(|(_, number)| *number), "delay alone keeps the order");

        let shape = Shape {
            reorder: Chance::percent(25.0),
            reorder_within: ms(20),
            delay: Delay::Fixed(ms(5)),
            ..Shape::default()
        };
        let (arrived, counts) = carried(shape, 2_000);
        assert!(!arrived.is_sorted_by_key(|(_, number)| *number));
        assert!(arrived.is_sorted_by_key(|(due, _)| *due));
        let late = |(due, number): &(Nanos, u64)| *due - ms(number.cast_signed()) - ms(5);
        assert!(arrived.iter().map(late).all(|late| (Nanos::ZERO..=ms(20)).contains(&late)));
        assert!((400..600).contains(&counts.held_back), "{counts:?}");
    }

    #[test]
    fn a_corrupted_datagram_has_its_length_and_other_bits() {
        let mut link = Link::new(5, Shape { corrupt: Chance::ALWAYS, ..Shape::default() });
        let mut different = 0;
        for n in 0..200 {
            let passage = link.offer(ms(n), &[0; 64]).copies[0].unwrap();
            assert!(passage.corrupted);
            let bytes = link.poll(ms(n)).unwrap().bytes;
            let mut copy = [0; 64];
            passage.damage(&mut copy);
            assert_eq!(bytes, copy, "who asks the passage gets the same");
            assert_eq!(bytes.len(), 64);
            let flipped: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
            assert!(flipped <= 3);
            // Two flips of the same bit leave it as it was: rare, and so is an equal checksum.
            different += u32::from(flipped > 0);
        }
        assert!(different > 190);
        assert_eq!(link.offer(ms(200), &[]).copies[0].unwrap().due, ms(200), "nothing to flip");
    }

    #[test]
    fn a_clamp_passes_its_rate_and_drops_what_its_queue_cannot_hold() {
        // Ten bytes a millisecond, and room for a hundred.
        let rate = Some(Rate { bytes_per_s: 10_000, queue_bytes: 100 });
        let mut link = Link::new(1, Shape { rate, ..Shape::default() });
        for _ in 0..100 {
            link.offer(Nanos::ZERO, &[0; 10]);
        }
        let mut due = Vec::new();
        while let Some(datagram) = link.poll(Nanos::MAX) {
            due.push(datagram.due);
        }
        assert_eq!(due, (1..=10).map(ms).collect::<Vec<_>>());
        assert_eq!(link.counts().queue_full, 90);
        let late = link.offer(ms(500), &[0; 1_000]).copies[0].unwrap();
        assert_eq!(late.due, ms(600), "an empty queue takes anything");
    }

    #[test]
    fn a_partition_drops_what_comes_and_ends_with_the_last_that_overlaps() {
        let mut link = Link::new(1, Shape { delay: Delay::Fixed(ms(5)), ..Shape::default() });
        link.offer(ms(0), b"before");
        link.cut();
        link.cut();
        assert_eq!(link.offer(ms(1), b"within").fate, Fate::Partitioned);
        link.heal();
        assert_eq!(link.offer(ms(2), b"within").fate, Fate::Partitioned);
        link.heal();
        assert_eq!(link.offer(ms(3), b"after").fate, Fate::Carried);
        assert_eq!(link.next_deadline(), Some(ms(5)));
        assert_eq!(link.poll(ms(4)), None);
        assert_eq!(link.poll(ms(5)).unwrap().bytes, b"before");
        assert_eq!(link.poll(ms(8)).unwrap().bytes, b"after");
        assert_eq!(link.counts().partitioned, 2);
    }

    #[test]
    fn what_is_in_flight_is_bounded() {
        let mut link = Link::new(1, Shape { delay: Delay::Fixed(ms(1_000)), ..Shape::default() });
        for _ in 0..IN_FLIGHT_MAX + 10 {
            link.offer(Nanos::ZERO, b"x");
        }
        assert_eq!(link.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(link.counts().queue_full, 10);
    }

    #[test]
    fn one_fault_less_leaves_the_others_as_they_were() {
        let all = Shape {
            loss: Chance::percent(20.0),
            duplicate: Chance::percent(10.0),
            reorder: Chance::percent(10.0),
            reorder_within: ms(20),
            ..Shape::default()
        };
        let fates = |shape| {
            let mut link = Link::new(77, shape);
            (0..500).map(|n| link.offer(ms(n), b"x").fate).collect::<Vec<_>>()
        };
        let fewer = Shape { duplicate: Chance::NEVER, reorder: Chance::NEVER, ..all };
        assert_eq!(fates(all), fates(fewer));
    }
}
