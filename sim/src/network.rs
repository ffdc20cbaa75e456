//! The network: for each pair of nodes and direction a link that delays, and loses, doubles, changes, holds up
//! and overtakes as the faults of the moment say.

use sinew_rt::clock::Nanos;

use crate::fault::{Fault, FaultKind};
use crate::host::Address;
use crate::random::Random;
use crate::scenario::link::Passage;
use crate::scenario::{self, NodeIndex, Scenario};

/// The longest frame that the network carries; a longer one is a bug of the node.
pub const CARRIED_MAX: usize = 1_472;
/// Bytes a second of a link without faults: 100 Mbit/s.
const RATE: u64 = 12_500_000;
/// Bytes a second of the narrowest link: 128 kbit/s.
const RATE_LEAST: u64 = 16_000;
/// Bytes that wait before a narrow link; what comes on top is dropped.
const QUEUE: u64 = 64 * 1_024;
/// Headers of Ethernet, IP and UDP.
const OVERHEAD: u64 = 66;
/// Frames lost and doubled on a link without faults, of a million.
const LOSS: u32 = 500;
const DUPLICATES: u32 = 200;
/// Frames lost, doubled and overtaken after the healing: what a good radio does, and what must cost nothing.
const LOSS_HEALED: u32 = 10_000;
/// The most that a link delays under a fault of that kind.
const DELAY_MAX: Nanos = Nanos::from_millis(300);
/// How far a frame may fall behind others.
const OVERTAKEN_MAX: Nanos = Nanos::from_millis(20);
/// How much later the copy of a frame comes at most.
const COPY_MAX: Nanos = Nanos::from_millis(250);

/// What a link does to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weather {
    loss: u32,
    duplicates: u32,
    corrupted: u32,
    overtaken: u32,
    delay: Nanos,
    jitter: Nanos,
    cut: bool,
    rate: u64,
}

/// One direction between two nodes.
#[derive(Debug)]
struct Link {
    /// Without faults.
    latency: Nanos,
    jitter: Nanos,
    now: Weather,
    /// When everything that was sent so far is on its way.
    busy_until: Nanos,
    /// When the last frame that was not overtaken arrives.
    last_arrival: Nanos,
    random: Random,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When it arrives.
    pub arrival: Option<Nanos>,
    /// When its copy arrives.
    pub copy: Option<Nanos>,
    /// Whether bits of it change, and the number that says which.
    pub corruption: Option<u64>,
}

/// Frames by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Frames handed to the network.
    pub sent: u64,
    /// Lost at random.
    pub lost: u64,
    /// Sent into a partition.
    pub cut: u64,
    /// Dropped before a narrow link.
    pub overflowed: u64,
    /// Doubled.
    pub doubled: u64,
    /// Changed.
    pub corrupted: u64,
    /// Put behind others.
    pub overtaken: u64,
    /// Bytes handed to the network.
    pub bytes: u64,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    links: Vec<Link>,
    counts: NetworkCounts,
    healed: bool,
    /// The links, if they are those of a scenario.
    scenario: Option<scenario::network::Network>,
}

const PURPOSE: u64 = 0x6e65_7477_6f72;

impl Network {
    /// The network of `nodes` nodes, each link with a latency of its own.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        let link = |place: usize| {
            let mut random = Random::new(seed, PURPOSE ^ (place as u64) << 8);
            let latency = Nanos::from_micros(random.within(40, 1_500));
            let jitter = Nanos::from_micros(random.within(5, 300));
            let mut link = Link {
                latency,
                jitter,
                now: Weather {
                    loss: 0,
                    duplicates: 0,
                    corrupted: 0,
                    overtaken: 0,
                    delay: latency,
                    jitter,
                    cut: false,
                    rate: RATE,
                },
                busy_until: Nanos::MIN,
                last_arrival: Nanos::MIN,
                random,
            };
            link.fair(false);
            link
        };
        let links = (0..nodes * nodes).map(link).collect();
        Self { nodes, links, counts: NetworkCounts::default(), healed: false, scenario: None }
    }

    /// The network of a scenario, with its faults.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let links = scenario::network::Network::new(scenario, Nanos::ZERO);
        Self { scenario: Some(links), ..Self::new(scenario.seed, 0) }
    }

    /// Whether the links are those of a scenario: then [`Network::pass`] carries frames, not
    /// [`Network::send`].
    #[must_use]
    pub fn is_of_scenario(&self) -> bool {
        self.scenario.is_some()
    }

    /// Takes a frame that goes over a link of a scenario: the copies of it that arrive.
    pub fn pass(
        &mut self,
        now: Nanos,
        from: Address,
        to: Address,
        bytes: &[u8],
    ) -> [Option<Passage>; 2] {
        let Some(links) = &mut self.scenario else { return [None; 2] };
        // What concerns nodes is in the plan.
        while links.advance(now).is_some() {}
        // Whoever has the frames is told when they arrive, and takes them from nobody.
        while links.poll(now).is_some() {}
        let index = |node: Address| NodeIndex::new(usize::from(node));
        links.offer(now, index(from), index(to), bytes).copies
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        let Some(links) = &self.scenario else { return self.counts };
        let mut sum = NetworkCounts::default();
        for link in links.all_counts() {
            sum.sent += link.offered;
            sum.lost += link.lost;
            sum.cut += link.partitioned;
            sum.overflowed += link.queue_full;
            sum.doubled += link.duplicated;
            sum.corrupted += link.corrupted;
            sum.overtaken += link.held_back;
            sum.bytes += link.offered_bytes;
        }
        sum
    }

    /// The faults of a scenario that took effect so far.
    #[must_use]
    pub fn applied(&self) -> scenario::network::Applied {
        self.scenario.as_ref().map(scenario::network::Network::applied).unwrap_or_default()
    }

    /// Makes every link good, or as bad as `active` says.
    pub fn set_weather<'a>(
        &mut self,
        healed: bool,
        active: impl Iterator<Item = &'a Fault> + Clone,
    ) {
        self.healed = healed;
        for (place, link) in self.links.iter_mut().enumerate() {
            let (from, to) = ((place / self.nodes) as u16, (place % self.nodes) as u16);
            let before = link.now.rate;
            link.fair(healed);
            for fault in active.clone().filter(|fault| fault.kind.is_of_link()) {
                let forward = fault.node == from && fault.other.is_none_or(|other| other == to);
                let back = fault.node == to && fault.other.is_none_or(|other| other == from);
                if forward || (back && fault.kind == FaultKind::Partition) {
                    link.suffer(fault);
                }
            }
            if link.now.rate > before {
                // As if the route had changed: what waits before the narrow link comes when it comes, and
                // what is sent from now on overtakes it.
                (link.busy_until, link.last_arrival) = (Nanos::MIN, Nanos::MIN);
            }
        }
    }

    /// Whether nothing is wrong with the link, so that a frame can be lost only by rare chance.
    #[must_use]
    pub fn is_cut(&self, from: u16, to: u16) -> bool {
        self.link(from, to).is_some_and(|link| self.links[link].now.cut)
    }

    fn link(&self, from: Address, to: Address) -> Option<usize> {
        let (from, to) = (usize::from(from), usize::from(to));
        (from < self.nodes && to < self.nodes).then_some(from * self.nodes + to)
    }

    /// What becomes of a frame of `len` bytes that is sent at `now`. Strangers have perfect links.
    pub fn send(&mut self, now: Nanos, from: Address, to: Address, len: usize) -> Fate {
        let Some(link) = self.link(from, to) else {
            return Fate { arrival: Some(now + Nanos::from_micros(200)), ..Fate::default() };
        };
        let counts = &mut self.counts;
        counts.sent += 1;
        counts.bytes += len as u64;
        let link = &mut self.links[link];
        let Weather { loss, duplicates, corrupted, overtaken, delay, jitter, cut, rate } = link.now;
        if cut {
            counts.cut += 1;
            return Fate::default();
        }
        let waiting = (link.busy_until - now).as_unsigned();
        if rate < RATE && waiting.saturating_mul(rate) / 1_000_000_000 > QUEUE {
            counts.overflowed += 1;
            return Fate::default();
        }
        let length = Nanos::new((((len as u64 + OVERHEAD) * 1_000_000_000) / rate).cast_signed());
        link.busy_until = link.busy_until.max(now) + length;
        let random = &mut link.random;
        // One draw decides about loss and the jitter of most frames: low bits here, high bits there.
        if random.chance(loss) {
            counts.lost += 1;
            return Fate::default();
        }
        let mut arrival = link.busy_until + delay + Nanos::new(random.within(0, jitter.as_nanos()));
        if random.chance(overtaken) {
            counts.overtaken += 1;
            arrival += Nanos::new(random.within(0, OVERTAKEN_MAX.as_nanos()));
        } else {
            arrival = arrival.max(link.last_arrival);
            link.last_arrival = arrival;
        }
        let copy = random.chance(duplicates).then(|| {
            counts.doubled += 1;
            arrival + Nanos::new(random.within(0, COPY_MAX.as_nanos()))
        });
        let corruption = random.chance(corrupted).then(|| {
            counts.corrupted += 1;
            random.bits()
        });
        Fate { arrival: Some(arrival), copy, corruption }
    }
}

impl Link {
    fn fair(&mut self, healed: bool) {
        self.now = Weather {
            loss: if healed { LOSS_HEALED } else { LOSS },
            duplicates: if healed { LOSS_HEALED } else { DUPLICATES },
            corrupted: 0,
            overtaken: if healed { LOSS_HEALED } else { 0 },
            delay: self.latency,
            jitter: self.jitter,
            cut: false,
            rate: RATE,
        };
    }

    fn suffer(&mut self, fault: &Fault) {
        let Fault { strength, .. } = *fault;
        let now = &mut self.now;
        let part = |whole: Nanos| whole / 1_000 * i64::from(strength / 1_000);
        match fault.kind {
            // Up to 60 %.
            FaultKind::Loss => now.loss = now.loss.max(strength / 10 * 6),
            FaultKind::Delay => {
                now.delay += part(DELAY_MAX);
                now.jitter += part(DELAY_MAX) / 8;
            }
            FaultKind::Reorder => now.overtaken = now.overtaken.max(strength / 2),
            FaultKind::Duplicate => now.duplicates = now.duplicates.max(strength / 2),
            FaultKind::Corrupt => now.corrupted = now.corrupted.max(strength / 4),
            FaultKind::Partition | FaultKind::OneWay => now.cut = true,
            FaultKind::Clamp => {
                let left = u64::from(1_000_000 - strength.min(1_000_000));
                now.rate = now.rate.min(RATE_LEAST + RATE / 100 * left / 1_000_000);
            }
            _ => {}
        }
    }
}

/// Changes one to three bits of `frame` as `draw` says; rarely one and the same twice.
pub fn corrupt(frame: &mut [u8], draw: u64) {
    if frame.is_empty() {
        return;
    }
    let mut random = Random::new(draw, 1);
    for _ in 0..=random.below(3) {
        let place = random.index(frame.len());
        frame[place] ^= 1 << random.below(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, node: u16, other: Option<u16>, strength: u32) -> Fault {
        Fault { number: 0, kind, from: Nanos::ZERO, until: Nanos::MAX, node, other, strength }
    }

    fn fates(network: &mut Network, from: u16, to: u16) -> Vec<Fate> {
        let at = |n: i64| Nanos::from_millis(n);
        (0..2_000).map(|n| network.send(at(n), from, to, 200)).collect()
    }

    #[test]
    fn a_healed_network_loses_one_frame_in_a_hundred() {
        let mut network = Network::new(1, 3);
        network.set_weather(true, [].iter());
        let lost = fates(&mut network, 0, 1).iter().filter(|fate| fate.arrival.is_none()).count();
        assert!((5..60).contains(&lost), "{lost}");
    }

    #[test]
    fn a_partition_cuts_both_ways_and_a_one_way_fault_one() {
        let mut network = Network::new(1, 3);
        let cut = |network: &mut Network, from, to| {
            network.send(Nanos::ZERO, from, to, 9).arrival.is_none()
        };
        network.set_weather(false, [fault(FaultKind::Partition, 0, Some(1), 1)].iter());
        assert!(cut(&mut network, 0, 1) && cut(&mut network, 1, 0));
        assert!(!network.is_cut(0, 2));
        network.set_weather(false, [fault(FaultKind::OneWay, 0, None, 1)].iter());
        assert!(cut(&mut network, 0, 1) && cut(&mut network, 0, 2));
        assert!(!network.is_cut(1, 0));
    }

    #[test]
    fn each_kind_of_link_fault_does_what_it_says() {
        let share = |kind, strength| {
            let mut network = Network::new(1, 2);
            network.set_weather(false, [fault(kind, 0, Some(1), strength)].iter());
            let fates = fates(&mut network, 0, 1);
            (network.counts, fates)
        };
        assert!((1_000..1_400).contains(&share(FaultKind::Loss, 1_000_000).0.lost));
        assert!((900..1_100).contains(&share(FaultKind::Duplicate, 1_000_000).0.doubled));
        assert!((400..600).contains(&share(FaultKind::Corrupt, 1_000_000).0.corrupted));
        let (counts, fates) = share(FaultKind::Reorder, 1_000_000);
        assert!(counts.overtaken > 900);
        let arrivals: Vec<_> = fates.iter().filter_map(|fate| fate.arrival).collect();
        assert!(!arrivals.is_sorted());
        let (counts, _) = share(FaultKind::Clamp, 1_000_000);
        assert!(counts.overflowed > 1_000, "{counts:?}");
        let (_, fates) = share(FaultKind::Delay, 1_000_000);
        assert!(fates[0].arrival.unwrap() >= Nanos::from_millis(290));
    }

    #[test]
    fn corruption_changes_at_least_one_bit_nearly_always() {
        let same = (0..1_000).filter(|draw| {
            let mut frame = [0; 100];
            corrupt(&mut frame, *draw);
            frame == [0; 100]
        });
        assert!(same.count() < 5);
        corrupt(&mut [], 1);
    }
}
