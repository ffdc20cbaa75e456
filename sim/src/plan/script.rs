//! A scenario as the plan of a run: its nodes, its links and its faults, and none that a seed draws.
//!
//! The links of the scenario itself carry the frames ([`crate::scenario::network`]), so a shape or a partition
//! means what it means between real processes. What is killed or stalled are nodes, and becomes a fault of the
//! plan. A seed is left what a file does not say: the links' draws, clocks, and when programs publish.

use std::sync::Arc;

use sinew_io::node::MAX_PEER_NAME;
use sinew_rt::clock::Nanos;

use super::{HEALING, Plan, SECONDS_MIN, SETTLING, TOPICS};
use crate::fault::{Fault, FaultKind};
use crate::random::split_mix;
use crate::scenario::{self, Chance, Delay, NodeIndex, Scenario, Shape, Transport};

/// How long a scenario runs that does not say so, in seconds.
const SECONDS: i64 = 60;

/// Every peer hears the other over links that carry so many of a hundred frames whole, and soon enough.
const PASSES_PERCENT: f64 = 50.0;
const WITHIN: Nanos = Nanos::from_millis(100);
const RATE_LEAST: u64 = 50_000;
/// The same of links on which, with what is sent again, nothing is lost.
const CALM_PASSES_PERCENT: f64 = 98.0;
const CALM_WITHIN: Nanos = Nanos::from_millis(30);
const CALM_RATE_LEAST: u64 = 1_000_000;

/// A scenario that can be run.
#[derive(Clone, Debug)]
pub struct Script {
    scenario: Arc<Scenario>,
    edges: Vec<(u16, u16)>,
    length: Nanos,
}

/// A scenario that cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// There is nobody to talk to.
    #[error("the scenario has {got} nodes; give it at least two, each as [[node]] with its name")]
    Nodes {
        /// So many.
        got: usize,
    },
    /// A node that no other node can be told about.
    #[error(
        "node {number} has a name that no peer can have; use 1 to {MAX_PEER_NAME} letters, digits, `-`, `_` or \
         `.`, and not `stranger`"
    )]
    Name {
        /// Its place among the nodes, from 1.
        number: usize,
    },
    /// There are paths, and all of them carry byte streams.
    #[error(
        "no [[path]] carries datagrams; add one with transport = \"udp\", or remove all, and every node \
         knows every other"
    )]
    Paths,
    /// More nodes are killed and stalled than a run can tell apart.
    #[error("{got} times a node is killed or stalled; {} are possible", u16::MAX)]
    Faults {
        /// So many.
        got: usize,
    },
    /// It would end before everything can have come back together.
    #[error(
        "{got_s} seconds; the last fault is over after {last_fault_ms} ms, and at least {needed_s} seconds are \
         needed to heal and settle"
    )]
    TooShort {
        /// As asked.
        got_s: i64,
        /// When the last fault is over.
        last_fault_ms: i64,
        /// The least.
        needed_s: i64,
    },
}

impl Script {
    /// What `scenario` means for the simulator. It runs for `seconds` or, without, for as long as the
    /// scenario says and its faults need.
    ///
    /// # Errors
    /// What makes no sense there, and what to do about it.
    pub fn new(scenario: Scenario, seconds: Option<i64>) -> Result<Self, ScriptError> {
        let nodes = scenario.nodes.len();
        if nodes < 2 {
            return Err(ScriptError::Nodes { got: nodes });
        }
        let is_bad = |name: &str| !(1..=MAX_PEER_NAME).contains(&name.len()) || name == "stranger";
        if let Some(place) = scenario.nodes.iter().position(|node| is_bad(&node.name)) {
            return Err(ScriptError::Name { number: place + 1 });
        }
        let edges = edges(&scenario);
        if edges.is_empty() {
            return Err(ScriptError::Paths);
        }
        let got = node_faults(&scenario).count();
        if got > usize::from(u16::MAX) {
            return Err(ScriptError::Faults { got });
        }
        let second = Nanos::from_secs(1).as_nanos();
        let last = scenario.faults.iter().map(|fault| ends(fault).unwrap_or(fault.at)).max();
        let last = last.unwrap_or(Nanos::ZERO);
        let needed = (last + HEALING + SETTLING).as_nanos();
        let needed_s = ((needed + second - 1) / second).max(SECONDS_MIN);
        let length_s = match seconds {
            Some(got_s) if got_s < needed_s => {
                let last_fault_ms = last.as_nanos() / 1_000_000;
                return Err(ScriptError::TooShort { got_s, last_fault_ms, needed_s });
            }
            Some(seconds) => seconds,
            None => {
                let said = scenario.duration.map_or(SECONDS, |said| said.as_nanos() / second);
                said.max(needed_s)
            }
        };
        Ok(Self { scenario: Arc::new(scenario), edges, length: Nanos::from_secs(length_s) })
    }

    /// The length of each run.
    #[must_use]
    pub fn length(&self) -> Nanos {
        self.length
    }

    /// The names of the nodes, in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.scenario.nodes.iter().map(|node| node.name.as_str())
    }

    /// The run of `seed`.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut scenario = Scenario::clone(&self.scenario);
        scenario.seed ^= split_mix(seed);
        let nodes = scenario.nodes.len();
        let quiet = self.length - SETTLING;
        let mut faults: Vec<Fault> = node_faults(&scenario).collect();
        faults.sort_by_key(|fault| fault.from);
        for (number, fault) in (0..).zip(&mut faults) {
            fault.number = number;
        }
        Plan {
            seed,
            nodes,
            machines: (0..nodes as u16).collect(),
            edges: self.edges.clone(),
            liar: None,
            faults,
            topics: (0..TOPICS.len() as u8).collect(),
            absent: Vec::new(),
            tolerated: Vec::new(),
            scenario: Some(Arc::new(scenario)),
            healed: quiet - HEALING,
            quiet,
            end: self.length,
        }
    }
}

/// Who knows whom: those that have a path between them or, where there are no paths at all, everyone.
fn edges(scenario: &Scenario) -> Vec<(u16, u16)> {
    let edge = |a: usize, b: usize| (a.min(b) as u16, a.max(b) as u16);
    let nodes = scenario.nodes.len();
    let mut edges: Vec<_> = match scenario.paths.as_slice() {
        [] => (0..nodes).flat_map(|a| (0..a).map(move |b| edge(a, b))).collect(),
        paths => {
            let paths = paths.iter().filter(|path| path.transport == Transport::Udp);
            paths.map(|path| edge(path.from.get(), path.to.get())).collect()
        }
    };
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// When a fault is over; `None` if it has no end, or is none that lasts.
fn ends(fault: &scenario::Fault) -> Option<Nanos> {
    match fault.kind {
        scenario::FaultKind::Partition { lasts, .. }
        | scenario::FaultKind::Shape { lasts, .. }
        | scenario::FaultKind::Stall { lasts, .. } => Some(fault.at + lasts),
        scenario::FaultKind::Kill { restart_after, .. } => {
            restart_after.map(|restart_after| fault.at + restart_after)
        }
        scenario::FaultKind::Reset { .. } => None,
    }
}

/// What happens to nodes, as faults of a plan that have no number yet.
fn node_faults(scenario: &Scenario) -> impl Iterator<Item = Fault> + '_ {
    scenario.faults.iter().filter_map(|fault| {
        let (kind, node) = match fault.kind {
            scenario::FaultKind::Kill { node, .. } => (FaultKind::Crash, node),
            scenario::FaultKind::Stall { node, .. } => (FaultKind::Stall, node),
            _ => return None,
        };
        Some(Fault {
            number: 0,
            kind,
            from: fault.at,
            until: ends(fault).unwrap_or(Nanos::MAX),
            node: node.get() as u16,
            other: None,
            strength: 1_000_000,
        })
    })
}

impl Plan {
    /// What `node` calls itself, and its peers it.
    #[must_use]
    pub fn name(&self, node: u16) -> String {
        let said = self.scenario.as_ref().map(|scenario| scenario.name(index(node)).to_owned());
        said.unwrap_or_else(|| format!("n{node}"))
    }

    /// Whether `node` is killed by a scenario and not yet to be started again. As with a real process, any
    /// start after a kill is one, also that of an earlier kill.
    #[must_use]
    pub fn is_held_down(&self, node: u16, now: Nanos) -> bool {
        let kills = || self.faults.iter().filter(|f| f.kind == FaultKind::Crash && f.node == node);
        let started_after = |at: Nanos| kills().any(|f| at < f.until && f.until <= now);
        let holds = |f: &Fault| f.from <= now && now < f.until && !started_after(f.from);
        self.scenario.is_some() && kills().any(holds)
    }

    /// Whether two peers hear each other once the faults are over: a scenario may have links that carry too
    /// little, or too late.
    #[must_use]
    pub fn connects(&self, a: u16, b: u16) -> bool {
        self.have_both_ways(a, b, |shape| carries(shape, PASSES_PERCENT, WITHIN, RATE_LEAST))
    }

    /// Whether nothing is lost between two peers once the faults are over.
    #[must_use]
    pub fn is_calm(&self, a: u16, b: u16) -> bool {
        let never_again =
            |fault: &Fault| fault.until > self.end && (fault.node == a || fault.node == b);
        !self.faults.iter().any(never_again)
            && self.have_both_ways(a, b, |shape| {
                carries(shape, CALM_PASSES_PERCENT, CALM_WITHIN, CALM_RATE_LEAST)
            })
    }

    fn have_both_ways(&self, a: u16, b: u16, holds: impl Fn(&Shape) -> bool) -> bool {
        self.scenario.as_ref().is_none_or(|scenario| {
            let shape = |from, to| scenario.shape(index(from), index(to));
            holds(&shape(a, b)) && holds(&shape(b, a))
        })
    }
}

fn index(node: u16) -> NodeIndex {
    NodeIndex::new(usize::from(node))
}

/// Whether enough arrives whole, soon, and at a rate that all topics together need.
fn carries(shape: &Shape, percent: f64, within: Nanos, rate: u64) -> bool {
    let longest = match shape.delay {
        Delay::Fixed(most) | Delay::Uniform { most, .. } | Delay::Normal { most, .. } => most,
    };
    let whole = |chance: Chance| 1.0 - chance.as_percent() / 100.0;
    let held = if shape.reorder == Chance::NEVER { Nanos::ZERO } else { shape.reorder_within };
    whole(shape.loss) * whole(shape.corrupt) * 100.0 >= percent
        && longest + held <= within
        && shape.rate.is_none_or(|clamp| clamp.bytes_per_s >= rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::parse;

    fn script(more: &str) -> Result<Script, ScriptError> {
        script_for(more, None)
    }

    fn script_for(more: &str, seconds: Option<i64>) -> Result<Script, ScriptError> {
        let nodes =
            "[[node]]\nname = \"arm\"\n[[node]]\nname = \"brain\"\n[[node]]\nname = \"eye\"\n";
        Script::new(parse(&format!("{nodes}{more}")).unwrap(), seconds)
    }

    #[test]
    fn peers_are_those_that_have_a_path_and_without_paths_all_are() {
        assert_eq!(script("").unwrap().plan(1).edges, [(0, 1), (0, 2), (1, 2)]);
        let paths =
            "[[path]]\nfrom = \"eye\"\nto = \"arm\"\n[[path]]\nfrom = \"arm\"\nto = \"eye\"\n";
        let plan = script(paths).unwrap().plan(1);
        assert_eq!(plan.edges, [(0, 2)]);
        assert_eq!((plan.name(0), plan.name(2)), ("arm".to_owned(), "eye".to_owned()));
        let streams = "[[path]]\nfrom = \"eye\"\nto = \"arm\"\ntransport = \"tcp\"\n";
        assert_eq!(script(streams).unwrap_err(), ScriptError::Paths);
    }

    #[test]
    fn kills_and_stalls_become_faults_at_their_times_and_what_is_not_restarted_stays_down() {
        let ms = Nanos::from_millis;
        let plan = script(
            "[[fault]]\nkind = \"stall\"\nat_ms = 900\nfor_ms = 50\nnode = \"eye\"\n\
             [[fault]]\nkind = \"kill\"\nat_ms = 500\nrestart_after_ms = 200\nnode = \"arm\"\n\
             [[fault]]\nkind = \"kill\"\nat_ms = 800\nnode = \"brain\"\n\
             [[fault]]\nkind = \"partition\"\nat_ms = 1\nfor_ms = 5\nfrom = \"*\"\nto = \"*\"\n",
        );
        let plan = plan.unwrap().plan(1);
        let faults: Vec<_> =
            plan.faults.iter().map(|f| (f.number, f.kind, f.node, f.from, f.until)).collect();
        let expected = [
            (0, FaultKind::Crash, 0, ms(500), ms(700)),
            (1, FaultKind::Crash, 1, ms(800), Nanos::MAX),
            (2, FaultKind::Stall, 2, ms(900), ms(950)),
        ];
        assert_eq!(faults, expected);
        assert!(plan.is_held_down(0, ms(699)) && !plan.is_held_down(0, ms(700)));
        assert!(plan.is_held_down(1, plan.end) && !plan.is_held_down(2, ms(920)));
        assert!(!plan.is_held_down(0, ms(499)));
        assert!(plan.is_calm(0, 2) && !plan.is_calm(0, 1));
    }

    #[test]
    fn a_run_is_as_long_as_its_last_fault_needs() {
        let fault = "[[fault]]\nkind = \"partition\"\nat_ms = 8_000\nfor_ms = 500\nfrom = \"*\"\nto = \"*\"\n";
        assert_eq!(script(fault).unwrap().length(), Nanos::from_secs(SECONDS));
        let short = script(&format!("{fault}[shape.unused]\n")).unwrap().scenario;
        let short = Scenario { duration: Some(Nanos::from_secs(9)), ..Scenario::clone(&short) };
        assert_eq!(Script::new(short, None).unwrap().length(), Nanos::from_secs(20));
        let error = script_for(fault, Some(19)).unwrap_err();
        let expected = ScriptError::TooShort { got_s: 19, last_fault_ms: 8_500, needed_s: 20 };
        assert_eq!(error, expected);
        assert_eq!(script_for("", Some(14)).unwrap().length(), Nanos::from_secs(14));
        assert!(script_for("", Some(13)).is_err());
    }

    #[test]
    fn what_a_link_carries_says_what_may_be_asked_of_it() {
        let between = |shape: &str| {
            let link = "[[link]]\nfrom = \"arm\"\nto = \"brain\"\nshape = \"it\"\n";
            let plan = script(&format!("[shape.it]\n{shape}\n{link}")).unwrap().plan(1);
            (plan.connects(1, 0), plan.is_calm(0, 1))
        };
        assert_eq!(between(""), (true, true));
        assert_eq!(between("loss_percent = 1"), (true, true));
        assert_eq!(between("loss_percent = 20"), (true, false));
        assert_eq!(between("loss_percent = 100"), (false, false));
        assert_eq!(between("loss_percent = 40\ncorrupt_percent = 40"), (false, false));
        assert_eq!(between("delay = { fixed_ms = 50 }"), (true, false));
        assert_eq!(between("delay = { fixed_ms = 150 }"), (false, false));
        let rate =
            |rate| between(&format!("rate = {{ bytes_per_s = {rate}, queue_bytes = 9_000 }}"));
        assert_eq!((rate(20_000), rate(100_000)), ((false, false), (true, false)));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let nodes = |names: &[&str]| {
            let text: String =
                names.iter().map(|n| format!("[[node]]\nname = \"{n}\"\n")).collect();
            Script::new(parse(&text).unwrap(), None).unwrap_err()
        };
        assert_eq!(nodes(&["alone"]), ScriptError::Nodes { got: 1 });
        assert_eq!(nodes(&["arm", "a-name-that-is-too-long"]), ScriptError::Name { number: 2 });
        assert_eq!(nodes(&["stranger", "arm"]), ScriptError::Name { number: 1 });
    }

    #[test]
    fn a_seed_changes_the_draws_and_nothing_of_what_the_file_says() {
        let script = script("").unwrap();
        let seed = |n| script.plan(n).scenario.map(|scenario| scenario.seed);
        assert_ne!(seed(1), seed(2));
        assert_eq!(seed(1), seed(1));
        assert_eq!(script.plan(1).edges, script.plan(2).edges);
    }
}
