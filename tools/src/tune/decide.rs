//! From trials to choices, each with its reason and what the runner-up cost: pure.

use serde::Serialize;
use sinew_io::node::{DEFAULT_PRIORITY, Layout};
use sinew_rt::topology::{CoreId, CoreList};
use sinew_rt::wait::Wait;

use super::candidates::{Candidate, lanes, predicted_ns, spin_refused};
use super::cores::Cores;
use super::facts::{Demands, IdleMethod, Machine, Measurements};
use super::kernel_line;
use crate::bench::report::span;

/// Differences below this are none, however quiet the machine.
const EQUAL: f64 = 1.10;

/// What a candidate came to: the worse of idle and loaded.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) candidate: Candidate,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
}

/// By which factors the rounds of one configuration differed from each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Noise {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A figure of each round. Its median is what counts: a stop of the host spoils one round, and with
/// it the p99 of all rounds pooled.
pub(crate) fn median(rounds: &[f64]) -> f64 {
    quantile(rounds, 0.5)
}

/// By which factor the rounds differ without the outermost 15 % on either side.
pub(crate) fn spread(rounds: &[f64]) -> f64 {
    let (low, high) = (quantile(rounds, 0.15), quantile(rounds, 0.85));
    if low > 0.0 { high / low } else { 1.0 }
}

/// Between the two nearest of the sorted values; 0 of none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().saturating_sub(1) as f64;
    match (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize)) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => 0.0,
    }
}

/// One thing that was decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Choice {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    pub(crate) why: String,
    pub(crate) runner_up: Option<RunnerUp>,
}

/// What else there was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RunnerUp {
    pub(crate) value: String,
    /// In words, measured or predicted.
    pub(crate) cost: String,
}

fn runner_up(value: impl Into<String>, cost: impl Into<String>) -> Option<RunnerUp> {
    Some(RunnerUp { value: value.into(), cost: cost.into() })
}

/// The candidates to try: the one that the parts speak for, and for each thing that is to be chosen the
/// best that differs from it there, so that each choice has a measured runner-up.
pub(crate) fn to_try(
    mut candidates: Vec<Candidate>,
    measured: &Measurements,
    demands: &Demands,
) -> Vec<Candidate> {
    let cost = |candidate: &Candidate| predicted_ns(candidate, measured, demands);
    candidates.sort_by(|one, other| {
        cost(one).total_cmp(&cost(other)).then(one.complexity().cmp(&other.complexity()))
    });
    let Some(best) = candidates.first().cloned() else { return candidates };
    let mut chosen = vec![best.clone()];
    let differs: [fn(&Candidate, &Candidate) -> bool; 3] = [
        |one, other| one.layout != other.layout,
        |one, other| kind(one.wait) != kind(other.wait),
        |one, other| one.keep_awake.is_empty() != other.keep_awake.is_empty(),
    ];
    for differs in differs {
        // Only there, if such a one exists: otherwise two differences would be measured as one.
        let others = || nearest_other(&best, &candidates, differs);
        if let Some(other) = others()
            && !chosen.contains(other)
        {
            chosen.push(other.clone());
        }
    }
    // A prediction is no measurement: the simplest always has its chance.
    if let Some(simplest) = candidates.iter().min_by_key(|candidate| candidate.complexity())
        && !chosen.contains(simplest)
    {
        chosen.push(simplest.clone());
    }
    chosen
}

/// The cheapest candidate that differs from `best` in the way of `differs`, and else as little as
/// possible.
fn nearest_other<'a>(
    best: &Candidate,
    candidates: &'a [Candidate],
    differs: fn(&Candidate, &Candidate) -> bool,
) -> Option<&'a Candidate> {
    let others = candidates.iter().filter(|candidate| differs(best, candidate));
    // `candidates` are in the order of their cost, and `min_by_key` keeps the first of equals.
    others.min_by_key(|other| differences(best, other))
}

/// In how many of the things that are chosen two candidates differ.
fn differences(one: &Candidate, other: &Candidate) -> usize {
    let differ = [
        one.layout != other.layout,
        kind(one.wait) != kind(other.wait),
        one.keep_awake.is_empty() != other.keep_awake.is_empty(),
    ];
    differ.into_iter().filter(|differs| *differs).count()
}

fn kind(wait: Wait) -> std::mem::Discriminant<Wait> {
    std::mem::discriminant(&wait)
}

/// The place of the best: the lowest p99, then the lowest p50, and of what the noise cannot tell apart
/// the simplest. `None` where nothing was tried.
pub(crate) fn best(tried: &[Tried], noise: Noise) -> Option<usize> {
    let least = |figure: fn(&Tried) -> f64, places: &[usize]| {
        places.iter().map(|place| figure(&tried[*place])).fold(f64::INFINITY, f64::min)
    };
    let all: Vec<usize> = (0..tried.len()).collect();
    let limit = least(|one| one.p99_ns, &all) * noise.p99.max(EQUAL);
    let good: Vec<usize> = all.into_iter().filter(|n| tried[*n].p99_ns <= limit).collect();
    let limit = least(|one| one.p50_ns, &good) * noise.p50.max(EQUAL);
    let good = good.into_iter().filter(|n| tried[*n].p50_ns <= limit);
    good.min_by(|one, other| {
        let (one, other) = (&tried[*one], &tried[*other]);
        let complexity = one.candidate.complexity().cmp(&other.candidate.complexity());
        complexity.then(one.p99_ns.total_cmp(&other.p99_ns))
    })
}

/// All choices, with their reasons.
pub(crate) fn choices(
    chosen: &Candidate,
    tried: &[Tried],
    machine: &Machine,
    cores: &Cores,
    measured: &Measurements,
    demands: &Demands,
    rejected: Option<&Candidate>,
) -> Vec<Choice> {
    let reason = Reasons { chosen, tried, machine, cores, measured, demands, rejected };
    vec![
        reason.housekeeping(),
        reason.lanes(),
        reason.loops(),
        reason.layout(),
        reason.wait(),
        reason.keep_awake(),
        reason.priority(),
        reason.kernel_line(),
    ]
}

struct Reasons<'a> {
    chosen: &'a Candidate,
    tried: &'a [Tried],
    machine: &'a Machine,
    cores: &'a Cores,
    measured: &'a Measurements,
    demands: &'a Demands,
    /// What did best in the trials and no better than the default in the comparison.
    rejected: Option<&'a Candidate>,
}

impl Reasons<'_> {
    /// What a core is like, in words.
    fn core(&self, core: CoreId) -> String {
        match self.measured.core(core) {
            Some(core) => format!(
                "wakes within {} at p99 and loses {:.0} ppm of its time, {} at most",
                span(core.wake_p99_ns),
                core.gaps_ppm,
                span(core.longest_gap_ns)
            ),
            None => "not measured".to_owned(),
        }
    }

    fn housekeeping(&self) -> Choice {
        let what = "housekeeping core";
        let Some(core) = self.cores.housekeeping else {
            let why = "this process may use one core, which everything shares".to_owned();
            return Choice { what, value: "none".to_owned(), why, runner_up: None };
        };
        let why = match self.cores.housekeeping_by_noise {
            true => format!("core {core} is the noisiest: it {}", self.core(core)),
            false => {
                "most devices interrupt the lowest core, and of unequal kinds the slow one is \
                      enough"
                    .to_owned()
            }
        };
        let other = self.cores.ranked.first();
        let runner_up = other.and_then(|other| {
            let cost = format!(
                "real-time threads would get core {core}, which {}; core {other} {}",
                self.core(core),
                self.core(*other)
            );
            runner_up(format!("core {other}"), cost)
        });
        Choice { what, value: core.to_string(), why, runner_up }
    }

    fn lanes(&self) -> Choice {
        let used = &self.chosen.cores;
        let list: CoreList = used.iter().copied().collect();
        let first = used[0];
        let isolated = self.machine.topology.isolated.contains(first);
        let rule = match (isolated, self.cores.housekeeping) {
            (true, _) => "isolated",
            (false, Some(_)) => "not the housekeeping core",
            (false, None) => "the only core",
        };
        let mut why = format!("{rule}; core {first} {}", self.core(first));
        if !self.cores.left_idle.is_empty() {
            let idle = &self.cores.left_idle;
            why.push_str(&format!("; cores {idle} are their hardware siblings and stay idle"));
        }
        let other = self.cores.ranked.iter().find(|core| !used.contains(core));
        let other = other.copied().or(self.cores.housekeeping);
        let runner_up = other.and_then(|other| {
            runner_up(format!("core {other}"), format!("it {}", self.core(other)))
        });
        Choice { what: "lane cores", value: list.to_string(), why, runner_up }
    }

    fn loops(&self) -> Choice {
        let what = "control loop cores";
        if self.cores.loops.is_empty() {
            let why = "none was asked for".to_owned();
            return Choice { what, value: "none".to_owned(), why, runner_up: None };
        }
        let list: CoreList = self.cores.loops.iter().copied().collect();
        let (own, busy_ns) = (self.demands.loops, self.measured.work().sum_ns());
        let (why, runner_up) = if self.cores.shared() {
            let why = "there is no core to spare: the loop shares it with the lanes, at a higher \
                       priority, and delays them, never the reverse";
            let other = self.cores.housekeeping.and_then(|core| {
                runner_up(
                    format!("core {core}"),
                    format!("with everything that is not real-time: it {}", self.core(core)),
                )
            });
            (why, other)
        } else {
            let cost = format!(
                "a message in and one out keep the lane busy for {} of each {} period, and the \
                 loop's caches with it",
                span(busy_ns),
                span(self.demands.period_ns())
            );
            let why = "the best core for the loop, and none of the lanes beside it";
            (why, runner_up("a core together with a lane", cost))
        };
        let counted = if usize::from(own) > list.len() { " (shared by several loops)" } else { "" };
        Choice { what, value: format!("{list}{counted}"), why: why.to_owned(), runner_up }
    }

    /// The cheapest of the tried, or else of all, that `differs` from the choice, and by how much.
    fn against(
        &self,
        differs: impl Fn(&Candidate) -> bool,
        name: impl Fn(&Candidate) -> String,
        all: &[Candidate],
    ) -> Option<RunnerUp> {
        let of =
            |candidate: &Candidate| self.tried.iter().find(|tried| tried.candidate == *candidate);
        let far = |candidate: &Candidate| differences(self.chosen, candidate);
        // What differs elsewhere too says less, and then its whole name.
        let name = |candidate: &Candidate| match far(candidate) {
            0 | 1 => name(candidate),
            _ => candidate.to_string(),
        };
        let others = self.tried.iter().filter(|tried| differs(&tried.candidate));
        let measured = others.min_by(|one, other| {
            let far = far(&one.candidate).cmp(&far(&other.candidate));
            far.then(one.p99_ns.total_cmp(&other.p99_ns))
        });
        if let (Some(other), Some(own)) = (measured, of(self.chosen)) {
            let more_ns = other.p99_ns - own.p99_ns;
            let but = match self.rejected == Some(&other.candidate) {
                true => ", but no better than the default in the comparison at the end",
                false if more_ns < 0.0 => ", within the noise of the trials",
                false => "",
            };
            let cost = format!(
                "{} at p99 and {} at p50, measured{but}",
                signed(more_ns),
                signed(other.p50_ns - own.p50_ns)
            );
            return runner_up(name(&other.candidate), cost);
        }
        let cost = |candidate: &Candidate| predicted_ns(candidate, self.measured, self.demands);
        let others = all.iter().filter(|candidate| differs(candidate));
        let other = others.min_by(|one, other| {
            far(one).cmp(&far(other)).then(cost(one).total_cmp(&cost(other)))
        })?;
        let more = cost(other) - cost(self.chosen);
        let more = match more.is_finite() {
            true => format!("{} at p99, by the measured parts", signed(more)),
            false => "a core would have more to do than it can".to_owned(),
        };
        runner_up(name(other), more)
    }

    fn all(&self) -> Vec<Candidate> {
        super::candidates::all(self.machine, self.cores, self.demands)
    }

    fn layout(&self) -> Choice {
        let layout = self.chosen.layout;
        let busy = self.measured.work().sum_ns() / self.demands.period_ns() * 100.0;
        let cores = self.chosen.cores.len();
        let why = match layout {
            Layout::Fused | Layout::Auto => format!(
                "a message in and one out take {busy:.0} % of one core at this rate, and each \
                 hand-off to a lane that sleeps costs a wake-up"
            ),
            Layout::Split | Layout::Pipelined => format!(
                "a message in and one out take {busy:.0} % of one core at this rate, which {} lanes \
                 share on {cores} core{}",
                lanes(layout),
                if cores == 1 { "" } else { "s" }
            ),
        };
        let runner_up = self.against(
            |other| other.layout != layout,
            |other| other.layout.to_string(),
            &self.all(),
        );
        Choice { what: "layout", value: layout.to_string(), why, runner_up }
    }

    fn wait(&self) -> Choice {
        let wait = self.chosen.wait;
        let refused = spin_refused(self.machine, self.cores, self.chosen.layout);
        let why = match (wait, refused) {
            (Wait::Spin, _) => "a core of its own, and the kernel leaves it alone".to_owned(),
            (_, Some(refused)) => format!("spinning for good is refused here: {refused}"),
            (_, None) => "the least processor time of what does as well".to_owned(),
        };
        let runner_up = self.against(
            |other| kind(other.wait) != kind(wait),
            |other| other.wait.to_string(),
            &self.all(),
        );
        Choice { what: "wait", value: wait.to_string(), why, runner_up }
    }

    fn keep_awake(&self) -> Choice {
        let on = !self.chosen.keep_awake.is_empty();
        let core = self.chosen.cores[0];
        let wake = |loaded| {
            let of = |method| self.measured.idle(method, loaded).map(|cost| span(cost.p99_ns));
            let (bound, awake) = (of(IdleMethod::LatencyBound)?, of(IdleMethod::KeepAwake)?);
            let when = if loaded { "with load beside it" } else { "idle" };
            Some(format!("p99 of a wake-up on core {core} {when}: {bound} without, {awake} with"))
        };
        let wakes: Vec<_> = [wake(false), wake(true)].into_iter().flatten().collect();
        let mut why = match on {
            true => "it gained more than the noise, for the full power of the core",
            false if self.rejected.is_some_and(|other| !other.keep_awake.is_empty()) => {
                "its gain did not last: see the runner-up"
            }
            false => "no gain beyond the noise that would be worth the full power of a core",
        }
        .to_owned();
        if !wakes.is_empty() {
            why.push_str(&format!("; {}", wakes.join("; ")));
        }
        let list: CoreList = self.chosen.keep_awake.iter().copied().collect();
        let runner_up = self.against(
            |other| other.keep_awake.is_empty() == on,
            |other| if other.keep_awake.is_empty() { "off" } else { "on" }.to_owned(),
            &self.all(),
        );
        let value = if on { format!("on, core {list}") } else { "off".to_owned() };
        Choice { what: "keep-awake", value, why, runner_up }
    }

    fn priority(&self) -> Choice {
        let lanes = DEFAULT_PRIORITY;
        let value = match self.cores.loops.is_empty() {
            true => format!("lanes {lanes}"),
            false => format!("lanes {lanes}, loops {LOOP_PRIORITY}"),
        };
        let why = "above the kernel's threaded interrupts (50), below its watchdogs and migration \
                   threads (99); a loop goes before the lanes that feed it";
        let runner_up = runner_up(
            "50 and below",
            "every threaded interrupt would come first; not measured, a rule of the kernel's",
        );
        Choice { what: "priority", value, why: why.to_owned(), runner_up }
    }

    fn kernel_line(&self) -> Choice {
        let missing = kernel_line::missing(self.machine, self.cores, self.chosen.wait.holds_core());
        let what = "kernel command line";
        let first = self.chosen.cores[0];
        if missing.is_empty() {
            let why = match self.cores.housekeeping {
                Some(_) => "everything that helps is there",
                None => "with one core there is nowhere to move other work to",
            };
            return Choice {
                what,
                value: "as it is".to_owned(),
                why: why.to_owned(),
                runner_up: None,
            };
        }
        let why = "keeps other threads, interrupts and RCU's callbacks off the real-time cores";
        let today = format!("today core {first} {}", self.core(first));
        let runner_up =
            runner_up("as it is", format!("{today}; what is gained shows after a boot"));
        Choice { what, value: missing.join(" "), why: why.to_owned(), runner_up }
    }
}

/// Of control loops, which go before the lanes.
pub(crate) const LOOP_PRIORITY: u8 = DEFAULT_PRIORITY.get() + 5;

/// A difference with its sign.
fn signed(ns: f64) -> String {
    let sign = if ns < 0.0 { '−' } else { '+' };
    format!("{sign}{}", span(ns.abs()))
}

/// How the tuned configuration does beside the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Beside {
    /// Faster by more than the default differs from itself.
    Beats,
    /// No difference beyond that.
    Equals,
    /// Slower by more than that.
    Worse,
}

/// One figure of the tuned configuration as a multiple of the default's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    /// Of the medians over all rounds.
    pub(crate) ratio: f64,
    /// By which factor the rounds of the default, which ran twice in each, differ from each other.
    pub(crate) noise: f64,
}

impl Ratio {
    /// From a figure of each round.
    pub(crate) fn of(default: &[f64], tuned: &[f64]) -> Self {
        let base = median(default);
        let ratio = if base > 0.0 { median(tuned) / base } else { 1.0 };
        Self { ratio, noise: spread(default) }
    }

    fn beside(self) -> Beside {
        let noise = self.noise.max(EQUAL);
        match self.ratio {
            ratio if ratio * noise < 1.0 => Beside::Beats,
            ratio if ratio > noise => Beside::Worse,
            _ => Beside::Equals,
        }
    }
}

/// The verdict over both parts: p99 decides, and p50 where p99 shows no difference.
pub(crate) fn beside(p50: &[Ratio], p99: &[Ratio]) -> Beside {
    let of = |figures: &[Ratio]| {
        let all: Vec<_> = figures.iter().map(|ratios| ratios.beside()).collect();
        match (all.contains(&Beside::Worse), all.contains(&Beside::Beats)) {
            (true, _) => Beside::Worse,
            (false, true) => Beside::Beats,
            (false, false) => Beside::Equals,
        }
    };
    match of(p99) {
        Beside::Equals => of(p50),
        decided => decided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::candidates;
    use crate::tune::tests::{DEMANDS, PLAIN, Written, measured};

    const QUIET: Noise = Noise { p50: 1.0, p99: 1.0 };

    fn tried(layout: Layout, awake: bool, p50_us: f64, p99_us: f64) -> Tried {
        let core = CoreId::new(1);
        let candidate = Candidate {
            layout,
            wait: Wait::Park,
            cores: vec![core],
            keep_awake: if awake { vec![core] } else { Vec::new() },
        };
        Tried { candidate, p50_ns: p50_us * 1e3, p99_ns: p99_us * 1e3 }
    }

    #[test]
    fn the_lowest_p99_wins_and_of_equals_the_simplest() {
        let fused = tried(Layout::Fused, false, 50.0, 100.0);
        let split = tried(Layout::Split, false, 50.0, 80.0);
        let awake = tried(Layout::Fused, true, 50.0, 99.0);
        let all = [awake.clone(), fused.clone(), split];
        assert_eq!(best(&all, QUIET), Some(2));
        // The same figures on a machine that differs from itself by more.
        assert_eq!(best(&all, Noise { p50: 1.0, p99: 1.5 }), Some(1));
        assert_eq!(best(&[awake, fused], QUIET), Some(1));
        assert_eq!(best(&[], QUIET), None);
    }

    #[test]
    fn where_p99_is_lost_in_noise_p50_decides() {
        let fused = tried(Layout::Fused, false, 50.0, 100.0);
        let awake = tried(Layout::Fused, true, 20.0, 101.0);
        assert_eq!(best(&[fused.clone(), awake.clone()], QUIET), Some(1));
        assert_eq!(best(&[fused, awake], Noise { p50: 3.0, p99: 3.0 }), Some(0));
    }

    #[test]
    fn one_part_that_got_worse_is_worse_and_the_control_is_the_measure() {
        let ratios = |ratio, noise| Ratio { ratio, noise };
        let same = [ratios(1.0, 1.0); 2];
        assert_eq!(beside(&same, &same), Beside::Equals);
        assert_eq!(beside(&same, &[ratios(0.5, 1.0), ratios(1.0, 1.0)]), Beside::Beats);
        assert_eq!(beside(&same, &[ratios(0.5, 1.0), ratios(1.4, 1.0)]), Beside::Worse);
        assert_eq!(beside(&same, &[ratios(0.5, 2.5), ratios(1.4, 2.0)]), Beside::Equals);
        assert_eq!(beside(&[ratios(0.5, 1.0), ratios(0.9, 1.0)], &same), Beside::Beats);
        assert_eq!(beside(&[ratios(1.5, 1.0), ratios(0.5, 1.0)], &same), Beside::Worse);
    }

    #[test]
    fn one_spoiled_round_changes_neither_the_figure_nor_the_noise() {
        let quiet = [100.0, 102.0, 98.0, 101.0, 99.0, 100.0, 100.0, 101.0];
        let spoiled = [100.0, 102.0, 98.0, 9_000.0, 99.0, 100.0, 100.0, 101.0];
        assert_eq!((median(&quiet), median(&spoiled)), (100.0, 100.0));
        assert!(spread(&spoiled) < 1.1, "{}", spread(&spoiled));
        assert_eq!(Ratio::of(&quiet, &spoiled).beside(), Beside::Equals);
        assert_eq!(Ratio::of(&spoiled, &[80.0, 81.0, 9_000.0]).beside(), Beside::Beats);
        assert_eq!(Ratio::of(&quiet, &[120.0; 8]).beside(), Beside::Worse);
        assert_eq!(Ratio::of(&[100.0, 150.0], &[120.0]).beside(), Beside::Equals);
        assert_eq!((median(&[]), spread(&[])), (0.0, 1.0));
    }

    #[test]
    fn what_did_worse_in_the_end_is_said_with_the_runner_up() {
        let machine = Written { cores: 2, ..PLAIN }.machine();
        let figures = Measurements::default();
        let cores = crate::tune::cores::choose(&machine.topology, &figures, &DEMANDS).unwrap();
        let tried =
            [tried(Layout::Fused, false, 50.0, 100.0), tried(Layout::Fused, true, 20.0, 50.0)];
        let (plain, awake) = (&tried[0].candidate, &tried[1].candidate);
        let choices = choices(plain, &tried, &machine, &cores, &figures, &DEMANDS, Some(awake));
        let choice = choices.iter().find(|choice| choice.what == "keep-awake").unwrap();
        let cost = &choice.runner_up.as_ref().unwrap().cost;
        assert!(
            cost.starts_with("−50") && cost.ends_with("in the comparison at the end"),
            "{cost}"
        );
        assert!(choice.why.contains("did not last"), "{}", choice.why);
    }

    #[test]
    fn what_is_tried_differs_from_the_best_in_one_thing_at_a_time() {
        let written = Written { cores: 8, ..PLAIN };
        let machine = written.machine();
        let measured = Measurements::default();
        let cores = crate::tune::cores::choose(&machine.topology, &measured, &DEMANDS).unwrap();
        let all = candidates::all(&machine, &cores, &DEMANDS);
        let chosen = to_try(all, &measured, &DEMANDS);
        let best = &chosen[0];
        // Between lanes that spin a hand-off costs next to nothing.
        assert_eq!((best.layout, best.wait), (Layout::Split, Wait::Spin), "{chosen:?}");
        let distances: Vec<_> = chosen.iter().map(|other| differences(best, other)).collect();
        // Beside a lane that spins there is no keep-awake, so that one differs in two things.
        assert_eq!(distances, [0, 1, 1, 2, 2], "{chosen:?}");
        let simplest = chosen.last().unwrap();
        assert_eq!((simplest.layout, simplest.wait), (Layout::Fused, Wait::Park));
        assert!(simplest.keep_awake.is_empty());
    }

    #[test]
    fn every_choice_says_why_and_what_the_runner_up_cost() {
        let written = Written { cores: 2, ..PLAIN };
        let machine = written.machine();
        let figures = Measurements {
            cores: vec![measured(0, 300.0, 60e3), measured(1, 20.0, 30e3)],
            ..Measurements::default()
        };
        let cores = crate::tune::cores::choose(&machine.topology, &figures, &DEMANDS).unwrap();
        let tried = [
            tried(Layout::Fused, false, 50.0, 100.0),
            tried(Layout::Split, false, 70.0, 140.0),
            tried(Layout::Fused, true, 49.0, 97.5),
        ];
        let chosen = &tried[best(&tried, QUIET).unwrap()].candidate;
        let choices = choices(chosen, &tried, &machine, &cores, &figures, &DEMANDS, None);
        assert_eq!(choices.len(), 8);
        for choice in &choices {
            assert!(!choice.value.is_empty() && !choice.why.is_empty(), "{choice:?}");
            let cost = &choice.runner_up.as_ref().unwrap_or_else(|| panic!("{choice:?}")).cost;
            assert!(!cost.is_empty() && !cost.contains("NaN") && !cost.contains("inf"), "{cost}");
        }
        let of = |what: &str| choices.iter().find(|choice| choice.what == what).unwrap();
        let cost = |what: &str| of(what).runner_up.as_ref().unwrap().cost.clone();
        assert_eq!(of("layout").value, "fused");
        assert!(cost("layout").starts_with("+40"), "{}", cost("layout"));
        assert!(cost("keep-awake").starts_with("−2500 ns at p99"), "{}", cost("keep-awake"));
        assert!(of("kernel command line").value.contains("isolcpus=managed_irq,domain,1"));
        assert!(cost("wait").contains("by the measured parts"), "{}", cost("wait"));
    }
}
