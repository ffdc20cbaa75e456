//! What a seed means: the nodes, who knows whom, what is published, and which faults come when.
//!
//! Everything is drawn before the run begins, so that a part can be left out afterwards (to find the smallest
//! run that still fails) without another part becoming a different one.

mod script;

use std::sync::Arc;

use sinew_rt::clock::Nanos;

use crate::checker::Rule;
use crate::fault::{Fault, FaultKind};
use crate::random::Random;
use crate::scenario::Scenario;

pub use script::{Script, ScriptError};

/// The most nodes of a run.
pub const NODES_MAX: usize = 64;
/// Between the end of the last fault and the end of publishing everything has to find together again.
pub const HEALING: Nanos = Nanos::from_secs(6);
/// Between the end of publishing and the end of the run everything has to arrive.
pub const SETTLING: Nanos = Nanos::from_secs(5);
/// The shortest run.
pub const SECONDS_MIN: i64 = 14;

/// What a topic promises, as the simulator needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The newest value.
    Control,
    /// Best effort, every value that arrives.
    Queue,
    /// In order, at most once, with an outcome, and never late.
    Command,
    /// In order, complete but for gaps that are reported.
    Stream,
    /// "All is well"; its absence is the stop.
    EStop,
}

impl Kind {
    /// Whether every loss has to be reported.
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::Command | Self::Stream)
    }
}

/// A topic that every node publishes and every node reads.
#[derive(Clone, Copy, Debug)]
pub struct TopicPlan {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it promises.
    pub kind: Kind,
    /// The age beyond which a message must not be delivered.
    pub lifespan: Option<Nanos>,
    /// Between two publications, on average.
    pub period: Nanos,
    /// The most messages of one publication.
    pub burst: u8,
}

const fn ms(ms: i64) -> Nanos {
    Nanos::from_millis(ms)
}

/// The topics of every run: 66 messages a second from each node.
pub const TOPICS: &[TopicPlan] = &[
    TopicPlan {
        name: "arm/state",
        kind: Kind::Control,
        lifespan: Some(ms(100)),
        period: ms(40),
        burst: 1,
    },
    TopicPlan {
        name: "arm/events",
        kind: Kind::Queue,
        lifespan: Some(ms(2_000)),
        period: ms(200),
        burst: 3,
    },
    TopicPlan {
        name: "arm/command",
        kind: Kind::Command,
        lifespan: Some(ms(400)),
        period: ms(125),
        burst: 2,
    },
    TopicPlan { name: "arm/track", kind: Kind::Stream, lifespan: None, period: ms(450), burst: 10 },
    TopicPlan {
        name: "arm/alive",
        kind: Kind::EStop,
        lifespan: Some(ms(150)),
        period: ms(125),
        burst: 1,
    },
];

/// For how long a message of a reliable topic is kept for sending it again.
pub const LINGER: Nanos = ms(600);
/// After how long a reader goes on without a message.
pub const GAP_TIMEOUT: Nanos = ms(900);
/// Messages that a reliable publisher keeps.
pub const RETAINED: u16 = 10;
/// Deliveries that a program leaves unread before its senders are held back.
pub const CAPACITY: usize = 16;
/// Signature checks a second that a node has for each peer: some five times what an honest one needs, and a tenth
/// of a flood.
pub const PEER_PER_S: u32 = 1_000;
/// Signature checks at once that a node has for each peer.
pub const PEER_BURST: u32 = 256;

/// Silence of the topic with values for longer than this is told.
pub const STATE_DEADLINE: Nanos = ms(200);

/// Silence of all guardians for longer than this is the stop.
pub const ESTOP_DEADLINE: Nanos = ms(300);

/// The topic that nobody may publish, and that everybody reads.
pub const FORBIDDEN: &str = "arm/forbidden";

/// What to draw.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The fewest nodes.
    pub nodes_min: usize,
    /// The most nodes.
    pub nodes_max: usize,
    /// The length of the run.
    pub length: Nanos,
    /// The kinds of faults.
    pub kinds: Vec<FaultKind>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes_min: 8,
            nodes_max: 16,
            length: Nanos::from_secs(60),
            kinds: FaultKind::ALL.to_vec(),
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// The number of nodes.
    pub nodes: usize,
    /// The machine of each node: two nodes on one machine have one clock and fall together.
    pub machines: Vec<u16>,
    /// Who knows whom: pairs with the lower number first, sorted.
    pub edges: Vec<(u16, u16)>,
    /// The member that lies.
    pub liar: Option<u16>,
    /// The faults in the order of their beginning.
    pub faults: Vec<Fault>,
    /// The topics that are published, as indices of [`TOPICS`].
    pub topics: Vec<u8>,
    /// Nodes that take no part, though they were drawn.
    pub absent: Vec<u16>,
    /// Promises whose breach does not end the run.
    pub tolerated: Vec<Rule>,
    /// What has the links, if they are those of a scenario, and what happens to them.
    pub scenario: Option<Arc<Scenario>>,
    /// When all faults are over and all links are good.
    pub healed: Nanos,
    /// When nobody publishes any more.
    pub quiet: Nanos,
    /// When it ends.
    pub end: Nanos,
}

const PURPOSE: u64 = 0x706c_616e;

impl Plan {
    /// What `seed` means under `settings`.
    #[must_use]
    pub fn draw(seed: u64, settings: &Settings) -> Self {
        let random = &mut Random::new(seed, PURPOSE);
        let most = settings.nodes_max.clamp(2, NODES_MAX);
        let least = settings.nodes_min.clamp(2, most);
        let nodes = random.within(least as i64, most as i64) as usize;
        let length = settings.length.max(Nanos::from_secs(SECONDS_MIN));
        let quiet = length - SETTLING;
        let healed = quiet - HEALING;
        let edges = edges(nodes, random);
        let machines = machines(nodes, random);
        let lies = |kind: &FaultKind| matches!(kind, FaultKind::Lie | FaultKind::Flood);
        let liar =
            (nodes >= 4 && settings.kinds.iter().any(lies)).then(|| random.index(nodes) as u16);
        let faults = faults(nodes, &edges, liar, &settings.kinds, healed, random);
        let topics = (0..TOPICS.len() as u8).collect();
        Self {
            seed,
            nodes,
            machines,
            edges,
            liar,
            faults,
            topics,
            absent: Vec::new(),
            tolerated: Vec::new(),
            scenario: None,
            healed,
            quiet,
            end: length,
        }
    }

    /// Whether `node` takes part.
    #[must_use]
    pub fn is_present(&self, node: u16) -> bool {
        usize::from(node) < self.nodes && !self.absent.contains(&node)
    }

    /// Whom `node` knows.
    pub fn peers(&self, node: u16) -> impl Iterator<Item = u16> + '_ {
        let other = move |(a, b): &(u16, u16)| match node {
            n if n == *a => Some(*b),
            n if n == *b => Some(*a),
            _ => None,
        };
        self.edges.iter().filter_map(other)
    }
}

/// What is left out of a run, as its shrinking found it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Nodes that take no part.
    pub absent: Vec<u16>,
    /// The numbers of the faults that are left; `None` is all.
    pub faults: Option<Vec<u16>>,
    /// The topics that are left; `None` is all.
    pub topics: Option<Vec<u8>>,
    /// When the healing begins, if earlier.
    pub healed: Option<Nanos>,
    /// Promises whose breach does not end the run: to look for others while one is being mended.
    pub tolerated: Vec<Rule>,
}

impl Plan {
    /// The same run without what `cut` leaves out.
    #[must_use]
    pub fn cut(mut self, cut: &Cut) -> Self {
        self.absent.clone_from(&cut.absent);
        self.tolerated.clone_from(&cut.tolerated);
        if let Some(left) = &cut.faults {
            self.faults.retain(|fault| left.contains(&fault.number));
        }
        if let Some(left) = &cut.topics {
            self.topics.retain(|topic| left.contains(topic));
        }
        if let Some(healed) = cut.healed.filter(|healed| *healed < self.healed) {
            (self.healed, self.quiet) = (healed, healed + HEALING);
            self.end = self.quiet + SETTLING;
            self.faults.retain(|fault| fault.from < healed);
            self.faults.iter_mut().for_each(|fault| fault.until = fault.until.min(healed));
        }
        self
    }
}

/// A ring, so that all hang together, and chords until each has three peers on average.
fn edges(nodes: usize, random: &mut Random) -> Vec<(u16, u16)> {
    let mut edges = Vec::new();
    let add = |edges: &mut Vec<(u16, u16)>, a: usize, b: usize| {
        let edge = (a.min(b) as u16, a.max(b) as u16);
        if a != b && !edges.contains(&edge) {
            edges.push(edge);
        }
    };
    for n in 0..nodes {
        add(&mut edges, n, (n + 1) % nodes);
    }
    let wanted = (nodes * 3 / 2).min(nodes * (nodes - 1) / 2);
    // Draws that hit what exists are repeated; the bound is for graphs that are nearly full.
    for _ in 0..20 * nodes {
        if edges.len() >= wanted {
            break;
        }
        let (a, b) = (random.index(nodes), random.index(nodes));
        add(&mut edges, a, b);
    }
    edges.sort_unstable();
    edges
}

/// Mostly one machine for each node; some pairs share one.
fn machines(nodes: usize, random: &mut Random) -> Vec<u16> {
    let mut machines: Vec<u16> = (0..nodes as u16).collect();
    for n in (1..nodes).step_by(2) {
        if random.chance(300_000) {
            machines[n] = machines[n - 1];
        }
    }
    machines
}

fn faults(
    nodes: usize,
    edges: &[(u16, u16)],
    liar: Option<u16>,
    kinds: &[FaultKind],
    healed: Nanos,
    random: &mut Random,
) -> Vec<Fault> {
    if kinds.is_empty() {
        return Vec::new();
    }
    // Six to 24 a minute, and never fewer than five.
    let minute = Nanos::from_secs(60).as_nanos();
    let count = (healed.as_nanos() * random.within(8, 32) / minute).clamp(5, 10_000);
    let first = ms(500).as_nanos();
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..count {
        let kind = kinds[random.index(kinds.len())];
        let from = random.within(first, healed.as_nanos() - first);
        let (least, most) = span(kind);
        // Short ones more often than long ones: the square of an even share.
        let share = random.below(1 << 16).pow(2) >> 16;
        let wide = (most - least).as_nanos() / 65_536 * share.cast_signed();
        let until = (from + least.as_nanos() + wide).min(healed.as_nanos());
        let (a, b) = edges[random.index(edges.len())];
        let (a, b) = if random.chance(500_000) { (a, b) } else { (b, a) };
        let of_all = random.chance(250_000);
        let (node, other) = match kind {
            kind if kind.is_of_link() => (a, (!of_all).then_some(b)),
            FaultKind::Lie | FaultKind::Flood => match liar {
                Some(liar) => (liar, None),
                None => continue,
            },
            _ => (random.index(nodes) as u16, None),
        };
        let strength = (random.below(1_000) * 1_000) as u32 + 1_000;
        faults.push(Fault {
            number: 0,
            kind,
            from: Nanos::new(from),
            until: Nanos::new(until),
            node,
            other,
            strength,
        });
    }
    faults.sort_by_key(|fault| fault.from);
    for (number, fault) in faults.iter_mut().enumerate() {
        fault.number = number as u16;
    }
    faults
}

/// How long a fault lasts, at least and at most.
fn span(kind: FaultKind) -> (Nanos, Nanos) {
    match kind {
        FaultKind::Stall => (ms(2), ms(1_500)),
        FaultKind::Crash | FaultKind::Torn | FaultKind::Reboot => (ms(1), ms(4_000)),
        FaultKind::Partition | FaultKind::OneWay => (ms(20), ms(6_000)),
        FaultKind::SlowReader => (ms(50), ms(4_000)),
        FaultKind::Clock | FaultKind::Lie | FaultKind::Stranger => (ms(200), ms(10_000)),
        FaultKind::Flood => (ms(200), ms(3_000)),
        _ => (ms(100), ms(10_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans() -> impl Iterator<Item = Plan> {
        (0..300).map(|seed| Plan::draw(seed, &Settings::default()))
    }

    #[test]
    fn a_seed_always_means_the_same() {
        let words = |seed| format!("{:?}", Plan::draw(seed, &Settings::default()));
        assert_eq!(words(5), words(5));
        assert_ne!(words(5), words(6));
    }

    #[test]
    fn every_run_has_8_to_16_nodes_that_hang_together_with_three_peers_each() {
        for plan in plans() {
            assert!((8..=16).contains(&plan.nodes));
            let peers: usize = (0..plan.nodes as u16).map(|n| plan.peers(n).count()).sum();
            assert_eq!(peers, plan.nodes * 3 / 2 * 2, "three each on average");
            assert!((0..plan.nodes as u16).all(|n| plan.peers(n).count() >= 2));
        }
    }

    #[test]
    fn every_run_has_five_faults_a_minute_that_end_before_the_healing() {
        for plan in plans() {
            assert!(plan.faults.len() >= 5, "{}", plan.faults.len());
            assert!(plan.faults.is_sorted_by_key(|fault| fault.from));
            for fault in &plan.faults {
                assert!(fault.from < fault.until && fault.until <= plan.healed, "{fault}");
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let mut seen = [0; FaultKind::COUNT];
        for plan in plans() {
            plan.faults.iter().for_each(|fault| seen[fault.kind as usize] += 1);
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }

    #[test]
    fn each_node_publishes_more_than_fifty_messages_a_second() {
        let per_second: f64 = TOPICS
            .iter()
            .map(|topic| (1.0 + f64::from(topic.burst)) / 2.0 / topic.period.as_secs_f64())
            .sum();
        assert!(per_second >= 60.0, "{per_second}");
    }
}
