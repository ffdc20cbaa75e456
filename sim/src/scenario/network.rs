//! All links of a scenario, and its faults as time comes to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sinew_rt::clock::Nanos;

use super::draws::link_seed;
use super::link::{Counts, Datagram, Decisions, Link};
use super::{FaultKind, NodeIndex, Scenario, Shape};

/// Every directed pair of a scenario's nodes, and what is still to go wrong between them.
#[derive(Clone, Debug)]
pub struct Network {
    nodes: usize,
    links: Vec<Pair>,
    /// When something arrives, and on which link. Equal times in the order of their offers.
    due: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    serial: u64,
    /// In the order of time, and at equal times in the order of the scenario, ends first.
    timeline: Vec<(Nanos, Turn)>,
    next: usize,
    applied: Applied,
}

#[derive(Clone, Debug)]
struct Pair {
    link: Link,
    seed: u64,
    shape: Shape,
    /// Shapes of faults that are in force, with their place in the scenario: the latest holds.
    faults: Vec<(usize, Shape)>,
    cuts: u32,
}

/// Faults that were applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Partitions begun.
    pub partitions: u64,
    /// Changes of shape begun.
    pub shapes: u64,
    /// Resets of byte streams.
    pub resets: u64,
    /// Nodes killed.
    pub kills: u64,
    /// Nodes stalled.
    pub stalls: u64,
}

/// What a fault, or its end, means for whoever runs the nodes. What it means for links, the network has
/// done by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A fault's place in the scenario begins. The network keeps to itself what concerns links alone,
    /// but for a reset.
    Begins(usize, FaultKind),
    /// It ends: a killed node starts again, a stalled one goes on.
    Ends(usize, FaultKind),
}

impl Network {
    /// The scenario's links, with its faults counted from `start`.
    #[must_use]
    pub fn new(scenario: &Scenario, start: Nanos) -> Self {
        let nodes = scenario.nodes.len();
        let pair = |n: usize| {
            let (from, to) = (NodeIndex::new(n / nodes), NodeIndex::new(n % nodes));
            let seed = link_seed(scenario.seed, scenario.name(from), scenario.name(to));
            let shape = scenario.shape(from, to);
            Pair { link: Link::new(seed, shape), seed, shape, faults: Vec::new(), cuts: 0 }
        };
        let mut timeline = Vec::with_capacity(scenario.faults.len() * 2);
        for (n, fault) in scenario.faults.iter().enumerate() {
            timeline.push((start + fault.at, Turn::Begins(n, fault.kind)));
            let lasts = match fault.kind {
                FaultKind::Partition { lasts, .. }
                | FaultKind::Shape { lasts, .. }
                | FaultKind::Stall { lasts, .. } => Some(lasts),
                FaultKind::Kill { restart_after, .. } => restart_after,
                FaultKind::Reset { .. } => None,
            };
            let ends = lasts.map(|lasts| (start + fault.at + lasts, Turn::Ends(n, fault.kind)));
            timeline.extend(ends);
        }
        let order = |(at, turn): &(Nanos, Turn)| {
            let began = start + scenario.faults[turn.place()].at;
            let phase = match turn {
                // A fault without a length is over after it began.
                Turn::Ends(..) => {
                    if began < *at {
                        0
                    } else {
                        2
                    }
                }
                Turn::Begins(..) => 1,
            };
            (*at, phase, turn.place())
        };
        timeline.sort_by_key(order);
        Self {
            nodes,
            links: (0..nodes * nodes).map(pair).collect(),
            due: BinaryHeap::new(),
            serial: 0,
            timeline,
            next: 0,
            applied: Applied::default(),
        }
    }

    /// Applies the next fault, or the next end of one, that is due by `now`, and gives it if it concerns
    /// nodes or byte streams; call until there is none.
    pub fn advance(&mut self, now: Nanos) -> Option<Turn> {
        while let Some((at, turn)) = self.timeline.get(self.next).copied()
            && at <= now
        {
            self.next += 1;
            self.apply(turn);
            if !matches!(turn.kind(), FaultKind::Partition { .. } | FaultKind::Shape { .. }) {
                return Some(turn);
            }
        }
        None
    }

    fn apply(&mut self, turn: Turn) {
        let begins = matches!(turn, Turn::Begins(..));
        if begins {
            let applied = &mut self.applied;
            *match turn.kind() {
                FaultKind::Partition { .. } => &mut applied.partitions,
                FaultKind::Shape { .. } => &mut applied.shapes,
                FaultKind::Reset { .. } => &mut applied.resets,
                FaultKind::Kill { .. } => &mut applied.kills,
                FaultKind::Stall { .. } => &mut applied.stalls,
            } += 1;
        }
        let (FaultKind::Partition { from, to, .. } | FaultKind::Shape { from, to, .. }) =
            turn.kind()
        else {
            return;
        };
        let nodes = self.nodes;
        let is_meant =
            |n: &usize| from.is(NodeIndex::new(n / nodes)) && to.is(NodeIndex::new(n % nodes));
        for n in (0..self.links.len()).filter(is_meant) {
            let pair = &mut self.links[n];
            match (turn.kind(), begins) {
                (FaultKind::Shape { shape, .. }, true) => pair.faults.push((turn.place(), shape)),
                (FaultKind::Shape { .. }, false) => {
                    pair.faults.retain(|(place, _)| *place != turn.place());
                }
                (_, true) => pair.cut(),
                (_, false) => pair.heal(),
            }
            pair.link.set_shape(pair.shape());
        }
    }

    /// Takes a datagram of one node to another.
    pub fn offer(&mut self, now: Nanos, from: NodeIndex, to: NodeIndex, bytes: &[u8]) -> Decisions {
        let Some(n) = self.place(from, to) else { return Decisions::default() };
        let decided = self.links[n].link.offer(now, bytes);
        for passage in decided.copies.iter().flatten() {
            self.serial += 1;
            self.due.push(Reverse((passage.due, self.serial, n)));
        }
        decided
    }

    /// The next datagram that has arrived by `now`, with whom it is from and for; call until there is
    /// none.
    pub fn poll(&mut self, now: Nanos) -> Option<(NodeIndex, NodeIndex, Datagram)> {
        let Reverse((due, _, n)) = *self.due.peek()?;
        if due > now {
            return None;
        }
        self.due.pop();
        let datagram = self.links[n].link.poll(now)?;
        Some((NodeIndex::new(n / self.nodes), NodeIndex::new(n % self.nodes), datagram))
    }

    /// When the next datagram arrives or the next fault begins or ends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let due = self.due.peek().map(|Reverse((due, ..))| *due);
        let fault = self.timeline.get(self.next).map(|(at, _)| *at);
        due.into_iter().chain(fault).min()
    }

    /// What the link from one node to the other does now, and how many partitions are in force: for
    /// byte streams between the two, whose bytes do not come by [`Network::offer`].
    #[must_use]
    pub fn condition(&self, from: NodeIndex, to: NodeIndex) -> (Shape, u32) {
        self.place(from, to).map_or_else(Default::default, |n| {
            let pair = &self.links[n];
            (pair.shape(), pair.cuts)
        })
    }

    /// The seed of a link, for byte streams between the two.
    #[must_use]
    pub fn seed(&self, from: NodeIndex, to: NodeIndex) -> u64 {
        self.place(from, to).map_or(0, |n| self.links[n].seed)
    }

    /// What the link from one node to the other did so far.
    #[must_use]
    pub fn counts(&self, from: NodeIndex, to: NodeIndex) -> Counts {
        self.place(from, to).map_or_else(Counts::default, |n| *self.links[n].link.counts())
    }

    /// What each link did so far.
    pub fn all_counts(&self) -> impl Iterator<Item = &Counts> {
        self.links.iter().map(|pair| pair.link.counts())
    }

    /// The faults that were applied so far.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    fn place(&self, from: NodeIndex, to: NodeIndex) -> Option<usize> {
        let (from, to) = (from.get(), to.get());
        (from < self.nodes && to < self.nodes).then_some(from * self.nodes + to)
    }
}

impl Pair {
    fn shape(&self) -> Shape {
        self.faults.last().map_or(self.shape, |(_, shape)| *shape)
    }

    fn cut(&mut self) {
        self.cuts += 1;
        self.link.cut();
    }

    fn heal(&mut self) {
        self.cuts = self.cuts.saturating_sub(1);
        self.link.heal();
    }
}

impl Turn {
    /// The fault.
    #[must_use]
    pub fn kind(self) -> FaultKind {
        let (Self::Begins(_, kind) | Self::Ends(_, kind)) = self;
        kind
    }

    /// Its place in [`Scenario::faults`].
    #[must_use]
    pub fn place(self) -> usize {
        let (Self::Begins(place, _) | Self::Ends(place, _)) = self;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Fate;
    use super::super::{Chance, Delay, Fault, LinkRule, Node, Who};
    use super::*;

    fn ms(ms: i64) -> Nanos {
        Nanos::from_millis(ms)
    }

    const A: NodeIndex = NodeIndex::new(0);
    const B: NodeIndex = NodeIndex::new(1);
    const C: NodeIndex = NodeIndex::new(2);

    fn scenario(faults: Vec<Fault>) -> Scenario {
        let node = |name: &str| Node { name: name.to_owned(), ..Node::default() };
        let lossy = Shape { loss: Chance::percent(50.0), ..Shape::default() };
        Scenario {
            seed: 1,
            nodes: ["a", "b", "c"].map(node).to_vec(),
            links: vec![
                LinkRule { from: Who::Anyone, to: Who::Anyone, shape: lossy },
                LinkRule { from: Who::Node(A), to: Who::Node(B), shape: Shape::default() },
            ],
            faults,
            ..Scenario::default()
        }
    }

    #[test]
    fn the_last_rule_that_matches_holds_for_a_pair() {
        let mut network = Network::new(&scenario(Vec::new()), Nanos::ZERO);
        for n in 0..200 {
            network.offer(ms(n), A, B, b"x");
            network.offer(ms(n), B, A, b"x");
        }
        assert_eq!(network.counts(A, B).lost, 0);
        assert!(network.counts(B, A).lost > 50);
    }

    #[test]
    fn links_draw_independently_and_keep_their_draws_when_other_nodes_go() {
        let fates = |scenario: &Scenario, from: &str, to: &str| {
            let (from, to) = (scenario.node(from).unwrap(), scenario.node(to).unwrap());
            let mut network = Network::new(scenario, Nanos::ZERO);
            (0..200).map(|n| network.offer(ms(n), from, to, b"x").fate).collect::<Vec<_>>()
        };
        let all = scenario(Vec::new());
        assert_ne!(fates(&all, "b", "c"), fates(&all, "c", "b"));
        let mut fewer = all.clone();
        fewer.nodes.remove(0);
        fewer.links.truncate(1);
        assert_eq!(fates(&all, "b", "c"), fates(&fewer, "b", "c"));
    }

    #[test]
    fn what_arrives_comes_in_the_order_of_time_over_all_links() {
        let mut scenario = scenario(Vec::new());
        let slow = Shape { delay: Delay::Fixed(ms(7)), ..Shape::default() };
        scenario.links.push(LinkRule { from: Who::Node(A), to: Who::Anyone, shape: slow });
        scenario.links.push(LinkRule {
            from: Who::Node(C),
            to: Who::Anyone,
            shape: Shape::default(),
        });
        let mut network = Network::new(&scenario, Nanos::ZERO);
        network.offer(ms(0), A, B, b"1");
        network.offer(ms(5), C, B, b"2");
        network.offer(ms(7), C, A, b"3");
        assert_eq!(network.next_deadline(), Some(ms(5)));
        let mut came = Vec::new();
        while let Some((from, to, datagram)) = network.poll(ms(10)) {
            came.push((from, to, datagram.due));
        }
        assert_eq!(came, [(C, B, ms(5)), (A, B, ms(7)), (C, A, ms(7))]);
    }

    #[test]
    fn faults_begin_and_end_at_their_times_and_say_what_concerns_nodes() {
        let (a, b) = (Who::Node(A), Who::Node(B));
        let dead = Shape { loss: Chance::ALWAYS, ..Shape::default() };
        let mut network = Network::new(
            &scenario(vec![
                Fault { at: ms(10), kind: FaultKind::Partition { from: a, to: b, lasts: ms(10) } },
                Fault {
                    at: ms(30),
                    kind: FaultKind::Shape { from: a, to: b, shape: dead, lasts: ms(10) },
                },
                Fault {
                    at: ms(15),
                    kind: FaultKind::Kill { node: C, restart_after: Some(ms(20)) },
                },
            ]),
            ms(100),
        );
        let mut turns = Vec::new();
        let mut fates = Vec::new();
        for t in [105, 112, 125, 132, 145] {
            while let Some(turn) = network.advance(ms(t)) {
                turns.push((t, matches!(turn, Turn::Begins(..)), turn.place()));
            }
            fates.push(network.offer(ms(t), A, B, b"x").fate);
        }
        let expected = [Fate::Carried, Fate::Partitioned, Fate::Carried, Fate::Lost, Fate::Carried];
        assert_eq!(fates, expected);
        assert_eq!(turns, [(125, true, 2), (145, false, 2)]);
        let applied = network.applied();
        assert_eq!((applied.partitions, applied.shapes, applied.kills), (1, 1, 1));
    }

    #[test]
    fn the_other_direction_of_a_partition_goes_on() {
        let lasts = ms(10);
        let kind = FaultKind::Partition { from: Who::Node(A), to: Who::Node(B), lasts };
        let mut network = Network::new(&scenario(vec![Fault { at: ms(0), kind }]), Nanos::ZERO);
        assert_eq!(network.advance(ms(1)), None);
        assert_eq!((network.condition(A, B).1, network.condition(B, A).1), (1, 0));
        assert_eq!(network.offer(ms(1), A, B, b"x").fate, Fate::Partitioned);
        assert_ne!(network.offer(ms(1), B, A, b"x").fate, Fate::Partitioned);
    }

    #[test]
    fn a_fault_without_a_length_is_over_after_it_began() {
        let kind = FaultKind::Kill { node: C, restart_after: Some(Nanos::ZERO) };
        let mut network = Network::new(&scenario(vec![Fault { at: ms(5), kind }]), Nanos::ZERO);
        let turns: Vec<_> = std::iter::from_fn(|| network.advance(ms(5))).collect();
        assert_eq!(turns, [Turn::Begins(0, kind), Turn::Ends(0, kind)], "the node runs at the end");
    }

    #[test]
    fn at_one_instant_a_fault_ends_before_the_next_begins() {
        let kill =
            |at| Fault { at, kind: FaultKind::Kill { node: C, restart_after: Some(ms(10)) } };
        let mut network = Network::new(&scenario(vec![kill(ms(20)), kill(ms(10))]), Nanos::ZERO);
        let mut turns = Vec::new();
        while let Some(turn) = network.advance(ms(20)) {
            turns.push((matches!(turn, Turn::Begins(..)), turn.place()));
        }
        assert_eq!(turns, [(true, 1), (false, 1), (true, 0)], "the node is dead at the end");
    }
}
