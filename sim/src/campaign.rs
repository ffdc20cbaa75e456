//! Many seeds: run on several threads, added up, with the same sums whatever thread ran which.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sinew_io::delivery::DropReason;
use sinew_rt::clock::Nanos;

use crate::checker::{Rule, Violation};
use crate::fault::FaultKind;
use crate::host::Host;
use crate::plan::{Cut, Plan, Script, Settings};
use crate::random::split_mix;
use crate::world::{self, Outcome};

/// After so many failures no further seed is begun.
pub const FAILURES_MAX: usize = 10;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// What each draws from.
    pub settings: Settings,
    /// A scenario that says what happens, instead of draws, and the name of its file.
    pub script: Option<(String, Script)>,
    /// What is left out of each.
    pub cut: Cut,
    /// The fault that is planted in every node.
    pub plant: Option<String>,
    /// Threads.
    pub jobs: usize,
}

impl Campaign {
    /// What `seed` means.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        match &self.script {
            Some((_, script)) => script.plan(seed),
            None => Plan::draw(seed, &self.settings),
        }
    }
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The hash over its events.
    pub trace: u64,
    /// The promise.
    pub violation: Violation,
}

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that were done.
    pub seeds: u64,
    /// Of them those that broke a promise, by seed.
    pub failures: Vec<Failure>,
    /// Virtual time of all runs.
    pub simulated: Nanos,
    /// Real time.
    pub took: std::time::Duration,
    /// Nodes of all runs.
    pub nodes: u64,
    /// Events.
    pub events: u64,
    /// Messages published, refused, delivered; gaps, messages in gaps.
    pub messages: BTreeMap<&'static str, u64>,
    /// Frames by what the network did.
    pub network: BTreeMap<&'static str, u64>,
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Everything that is counted at one place of the protocol.
    pub branches: BTreeMap<String, u64>,
    /// One number for the hashes of all runs, whatever their order was.
    pub trace: u64,
    /// Whether it was stopped before all seeds were done.
    pub interrupted: bool,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += outcome.reached;
        self.nodes += outcome.nodes as u64;
        self.events += outcome.events;
        self.trace = self.trace.wrapping_add(split_mix(outcome.trace ^ split_mix(outcome.seed)));
        let c = &outcome.counts;
        for (name, count) in [
            ("published", c.published),
            ("refused", c.refused),
            ("delivered", c.delivered),
            ("sent_again", c.repeated),
            ("gaps", c.gaps),
            ("missing_in_gaps", c.missing),
        ] {
            *self.messages.entry(name).or_default() += count;
        }
        let n = &outcome.network;
        for (name, count) in [
            ("sent", n.sent),
            ("lost", n.lost),
            ("cut", n.cut),
            ("overflowed", n.overflowed),
            ("doubled", n.doubled),
            ("corrupted", n.corrupted),
            ("overtaken", n.overtaken),
            ("bytes", n.bytes),
        ] {
            *self.network.entry(name).or_default() += count;
        }
        for (kind, count) in FaultKind::ALL.iter().zip(outcome.faults) {
            *self.faults.entry(kind.as_str()).or_default() += count;
        }
        let applied = &outcome.applied;
        for (name, count) in [("partition", applied.partitions), ("shape", applied.shapes)] {
            if count > 0 {
                *self.faults.entry(name).or_default() += count;
            }
        }
        let mut branch =
            |name: String, count: u64| *self.branches.entry(name).or_default() += count;
        for (reason, count) in DropReason::ALL.iter().zip(&outcome.drops) {
            branch(format!("drop/{}", reason.as_str()), *count);
        }
        let outcomes = ["accepted", "rejected", "expired", "never_arrived", "unknown"];
        for (name, count) in outcomes.iter().zip(c.outcomes) {
            branch(format!("outcome/{name}"), count);
        }
        for (name, count) in &outcome.branches {
            branch((*name).to_owned(), *count);
        }
        if let Some(violation) = outcome.violation.clone() {
            self.failures.push(Failure { seed: outcome.seed, trace: outcome.trace, violation });
            self.failures.sort_by_key(|failure| failure.seed);
        }
    }

    /// Virtual seconds for each real one.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.took.as_secs_f64().max(1e-9)
    }

    /// Branches that no run came by.
    pub fn never_reached(&self) -> impl Iterator<Item = &str> {
        self.branches.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name.as_str())
    }
}

/// Runs one seed as `campaign` says; a panic of a node is a broken promise like any other.
#[must_use]
pub fn run_one<H: Host>(campaign: &Campaign, cut: &Cut, seed: u64, with_timeline: bool) -> Outcome {
    let plan = campaign.plan(seed).cut(cut);
    let run = || world::run::<H>(&plan, with_timeline);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| panicked(&plan, &*panic))
}

fn panicked(plan: &Plan, panic: &(dyn Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|| "a panic without words".to_owned());
    let violation = Violation { at: Nanos::ZERO, node: 0, rule: Rule::Panic, text };
    Outcome { violation: Some(violation), ..Outcome::empty(plan) }
}

/// Runs all seeds, tells `progress` of each run that is done, and stops early when `stop` is set.
///
/// # Errors
/// When there is no such fault to plant.
pub fn run<H: Host>(
    campaign: &Campaign,
    stop: &AtomicBool,
    progress: &(dyn Fn(&Outcome) + Sync),
) -> Result<Summary, String> {
    H::prepare(campaign.plant.as_deref())?;
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let summary = Mutex::new(Summary::default());
    let failures = AtomicU64::new(0);
    let work = || {
        // Only known names come here: the same call has passed above.
        if H::prepare(campaign.plant.as_deref()).is_err() {
            return;
        }
        while !stop.load(Ordering::Relaxed)
            && failures.load(Ordering::Relaxed) < FAILURES_MAX as u64
        {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= campaign.seeds {
                break;
            }
            let seed = campaign.first.wrapping_add(number);
            let outcome = run_one::<H>(campaign, &campaign.cut, seed, false);
            failures.fetch_add(u64::from(outcome.violation.is_some()), Ordering::Relaxed);
            progress(&outcome);
            summary.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..campaign.jobs {
            scope.spawn(work);
        }
        work();
    });
    H::prepare(None)?;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = begun.elapsed();
    summary.interrupted = summary.seeds < campaign.seeds;
    Ok(summary)
}
