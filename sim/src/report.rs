//! The report of many runs: as JSON for programs, as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::campaign::{Campaign, Failure, Summary};
use crate::fault::FaultKind;
use crate::plan::{Cut, Settings};
use crate::shrink::Shrunk;

/// The version of the form of the JSON report.
pub const VERSION: u32 = 1;

/// What was run, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The first seed.
    pub first_seed: u64,
    /// Runs asked for.
    pub seeds_asked: u64,
    /// Runs done.
    pub seeds: u64,
    /// The scenario that said what happens, if one did.
    pub scenario: Option<ScenarioReport>,
    /// The fewest and the most nodes of a run.
    pub nodes: (usize, usize),
    /// Nodes of all runs.
    pub nodes_total: u64,
    /// Virtual length of a run, in seconds.
    pub seconds_each: f64,
    /// The fault that was planted.
    pub planted: Option<String>,
    /// Whether it was stopped early.
    pub interrupted: bool,
    /// Virtual time of all runs, in seconds.
    pub virtual_s: f64,
    /// Real time, in seconds.
    pub real_s: f64,
    /// Virtual seconds for each real one.
    pub virtual_s_per_s: f64,
    /// Events of all runs.
    pub events: u64,
    /// Messages published, refused, delivered; gaps, messages in gaps.
    pub messages: BTreeMap<String, u64>,
    /// Frames by what the network did, and bytes.
    pub network: BTreeMap<String, u64>,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// How often runs came by each counted branch of the protocol.
    pub branches: BTreeMap<String, u64>,
    /// Branches that no run came by.
    pub never_reached: Vec<String>,
    /// One hash for all runs: 16 hexadecimal digits.
    pub trace: String,
    /// The seeds that broke a promise.
    pub failures: Vec<FailureReport>,
}

/// A scenario that was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// Its file.
    pub file: String,
    /// What it calls the nodes: the first is n0.
    pub nodes: Vec<String>,
}

/// One seed that broke a promise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureReport {
    /// The seed.
    pub seed: u64,
    /// The hash over its events.
    pub trace: String,
    /// The promise.
    pub rule: String,
    /// When it was broken, in virtual seconds.
    pub at_s: f64,
    /// On which node.
    pub node: u16,
    /// The circumstances.
    pub text: String,
    /// The command that repeats it.
    pub command: String,
}

fn owned(map: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    map.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

impl Report {
    /// The report of what `campaign` came to.
    #[must_use]
    pub fn new(campaign: &Campaign, summary: &Summary) -> Self {
        let failure = |failure: &Failure| FailureReport {
            seed: failure.seed,
            trace: format!("{:016x}", failure.trace),
            rule: failure.violation.rule.to_string(),
            at_s: failure.violation.at.as_secs_f64(),
            node: failure.violation.node,
            text: failure.violation.text.clone(),
            command: command(campaign, &campaign.cut, failure.seed),
        };
        Self {
            version: VERSION,
            first_seed: campaign.first,
            seeds_asked: campaign.seeds,
            seeds: summary.seeds,
            scenario: campaign.script.as_ref().map(|(file, script)| ScenarioReport {
                file: file.clone(),
                nodes: script.names().map(str::to_owned).collect(),
            }),
            nodes: (campaign.settings.nodes_min, campaign.settings.nodes_max),
            nodes_total: summary.nodes,
            seconds_each: campaign.settings.length.as_secs_f64(),
            planted: campaign.plant.clone(),
            interrupted: summary.interrupted,
            virtual_s: summary.simulated.as_secs_f64(),
            real_s: summary.took.as_secs_f64(),
            virtual_s_per_s: summary.speed(),
            events: summary.events,
            messages: owned(&summary.messages),
            network: owned(&summary.network),
            faults: owned(&summary.faults),
            branches: summary.branches.clone(),
            never_reached: summary.never_reached().map(str::to_owned).collect(),
            trace: format!("{:016x}", summary.trace),
            failures: summary.failures.iter().map(failure).collect(),
        }
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let interrupted = if self.interrupted { " (stopped early)" } else { "" };
        let _ = writeln!(
            text,
            "{} of {} seeds from {}{interrupted}: {} nodes, {:.0} virtual seconds in {:.1} s, {:.0} a second",
            self.seeds,
            self.seeds_asked,
            self.first_seed,
            self.nodes_total,
            self.virtual_s,
            self.real_s,
            self.virtual_s_per_s,
        );
        let line = |map: &BTreeMap<String, u64>| {
            let words: Vec<_> = map.iter().map(|(name, count)| format!("{name} {count}")).collect();
            words.join(" · ")
        };
        if let Some(ScenarioReport { file, nodes }) = &self.scenario {
            let nodes = nodes.iter().enumerate().map(|(n, name)| format!("n{n} {name}"));
            let _ = writeln!(text, "scenario  {file}: {}", nodes.collect::<Vec<_>>().join(" · "));
        }
        let _ = writeln!(text, "events    {}", self.events);
        let _ = writeln!(text, "messages  {}", line(&self.messages));
        let _ = writeln!(text, "network   {}", line(&self.network));
        let _ = writeln!(text, "faults    {}", line(&self.faults));
        let _ = writeln!(text, "trace     {}", self.trace);
        let outcomes: Vec<_> =
            self.branches.iter().filter(|(name, _)| name.starts_with("outcome/")).collect();
        let outcomes: Vec<_> =
            outcomes.iter().map(|(name, count)| format!("{} {count}", &name[8..])).collect();
        let _ = writeln!(text, "commands  {}", outcomes.join(" · "));
        if !self.never_reached.is_empty() {
            let _ = writeln!(text, "never reached: {}", self.never_reached.join(", "));
        }
        match self.failures.as_slice() {
            [] => {
                let _ = writeln!(text, "no promise was broken");
            }
            failures => {
                for failure in failures {
                    let FailureReport { seed, rule, at_s, node, text: what, command, .. } = failure;
                    let _ =
                        writeln!(text, "\nseed {seed}: {rule} at {at_s:.6} s on n{node}: {what}");
                    let _ = writeln!(text, "  {command}");
                }
            }
        }
        text
    }
}

/// The command that repeats one run.
#[must_use]
pub fn command(campaign: &Campaign, cut: &Cut, seed: u64) -> String {
    let Settings { nodes_min, nodes_max, length, kinds } = &campaign.settings;
    let seconds = length.as_nanos() / 1_000_000_000;
    let mut command = match &campaign.script {
        Some((file, _)) => {
            format!("sinew-sim run --scenario {file} --first {seed} --seeds 1 --seconds {seconds}")
        }
        None => format!(
            "sinew-sim run --first {seed} --seeds 1 --nodes {nodes_min}..{nodes_max} --seconds {seconds}"
        ),
    };
    if kinds.len() < FaultKind::COUNT && campaign.script.is_none() {
        let names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        let _ = write!(command, " --faults {names}");
    }
    if let Some(plant) = &campaign.plant {
        let _ = write!(command, " --plant {plant}");
    }
    let list = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(",");
    if !cut.absent.is_empty() {
        let _ = write!(
            command,
            " --without-nodes {}",
            list(&mut cut.absent.iter().map(u16::to_string))
        );
    }
    match &cut.faults {
        Some(faults) if faults.is_empty() => command.push_str(" --without-faults"),
        Some(faults) => {
            let _ =
                write!(command, " --only-faults {}", list(&mut faults.iter().map(u16::to_string)));
        }
        None => {}
    }
    if let Some(topics) = &cut.topics {
        let _ = write!(command, " --only-topics {}", list(&mut topics.iter().map(u8::to_string)));
    }
    if !cut.tolerated.is_empty() {
        let names: Vec<_> = cut.tolerated.iter().map(|rule| rule.as_str()).collect();
        let _ = write!(command, " --tolerate {}", names.join(","));
    }
    if let Some(healed) = cut.healed {
        let _ = write!(command, " --healed-at-ns {}", healed.as_nanos());
    }
    command
}

/// What shrinking a failure came to, for people.
#[must_use]
pub fn shrunk(campaign: &Campaign, seed: u64, shrunk: &Shrunk) -> String {
    let (nodes, faults, topics) = shrunk.left;
    let mut text = format!(
        "seed {seed} still fails with {nodes} nodes, {faults} faults and {topics} topics ({} runs):\n",
        shrunk.runs
    );
    if let Some(violation) = &shrunk.outcome.violation {
        let _ = writeln!(text, "  {violation}");
    }
    if let Some(timeline) = &shrunk.outcome.timeline {
        for fault in &timeline.faults {
            let _ = writeln!(text, "  fault {fault}");
        }
    }
    let _ = writeln!(text, "  {}", command(campaign, &shrunk.cut, seed));
    text
}
