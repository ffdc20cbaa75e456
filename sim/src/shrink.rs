//! Makes a failing run smaller: first nodes, then faults, then messages, then time, as long as the same promise
//! is still broken.

use sinew_rt::clock::Nanos;

use crate::campaign::{Campaign, Failure, run_one};
use crate::host::Host;
use crate::plan::Cut;
use crate::world::Outcome;

/// The most runs that one failure is worth.
pub const RUNS_MAX: usize = 150;

/// The smallest run that still fails, as far as the search came.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What can be left out.
    pub cut: Cut,
    /// What is left, run once more, with its timeline.
    pub outcome: Outcome,
    /// Nodes, faults and topics that are left.
    pub left: (usize, usize, usize),
    /// Runs that the search took.
    pub runs: usize,
}

struct Search<'a> {
    campaign: &'a Campaign,
    failure: &'a Failure,
    cut: Cut,
    runs: usize,
}

impl Search<'_> {
    /// Adopts `cut` if the run still fails with it.
    fn try_cut<H: Host>(&mut self, cut: Cut) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let outcome = run_one::<H>(self.campaign, &cut, self.failure.seed, false);
        let same = outcome.violation.is_some_and(|v| v.rule == self.failure.violation.rule);
        if same {
            self.cut = cut;
        }
        same
    }
}

/// Shrinks `failure`. Deterministic; at most [`RUNS_MAX`] runs.
#[must_use]
pub fn shrink<H: Host>(campaign: &Campaign, failure: &Failure) -> Shrunk {
    let plan = campaign.plan(failure.seed);
    let mut search = Search { campaign, failure, cut: campaign.cut.clone(), runs: 0 };
    let faults = |cut: &Cut| -> Vec<u16> {
        plan.clone().cut(cut).faults.iter().map(|fault| fault.number).collect()
    };

    // Faults that begin after the failure cannot matter.
    let at = failure.violation.at;
    let mut cut = search.cut.clone();
    let before = plan.faults.iter().filter(|fault| fault.from <= at).map(|fault| fault.number);
    cut.faults = Some(before.filter(|number| faults(&search.cut).contains(number)).collect());
    search.try_cut::<H>(cut);

    for node in (0..plan.nodes as u16).rev() {
        if plan.nodes - search.cut.absent.len() > 2 && plan.is_present(node) {
            let mut cut = search.cut.clone();
            cut.absent.push(node);
            search.try_cut::<H>(cut);
        }
    }
    // Halves, then quarters, down to single ones.
    let mut size = faults(&search.cut).len().div_ceil(2);
    while size > 0 {
        let mut first = 0;
        while first < faults(&search.cut).len() {
            let mut left = faults(&search.cut);
            left.drain(first..(first + size).min(left.len()));
            let cut = Cut { faults: Some(left), ..search.cut.clone() };
            if !search.try_cut::<H>(cut) {
                first += size;
            }
        }
        size /= 2;
    }
    for topic in plan.topics.clone() {
        let left = search.cut.topics.clone().unwrap_or_else(|| plan.topics.clone());
        let left: Vec<u8> = left.into_iter().filter(|kept| *kept != topic).collect();
        if !left.is_empty() {
            search.try_cut::<H>(Cut { topics: Some(left), ..search.cut.clone() });
        }
    }
    let last = plan.clone().cut(&search.cut).faults.iter().map(|fault| fault.until).max();
    let mut healed = last.unwrap_or(Nanos::from_secs(1));
    for _ in 0..4 {
        if !search.try_cut::<H>(Cut { healed: Some(healed), ..search.cut.clone() }) {
            break;
        }
        healed = healed / 2;
    }
    let cut = search.cut.clone();
    let outcome = run_one::<H>(campaign, &cut, failure.seed, true);
    let left = plan.clone().cut(&cut);
    Shrunk {
        left: (left.nodes - left.absent.len(), left.faults.len(), left.topics.len()),
        cut,
        outcome,
        runs: search.runs,
    }
}
