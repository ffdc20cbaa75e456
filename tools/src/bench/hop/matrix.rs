//! From every core to every other one: spinning and parked, back-to-back and paced.

use std::collections::BTreeMap;
use std::str::FromStr;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread::ThreadSpec;
use sinew_rt::topology::CoreList;

use super::paced::{OneWay, Pace, Waiting, messages_of_a_burst, one_way, warm_up};
use super::pair::Pair;
use super::{HopArgs, REST};
use crate::bench::report::{MatrixCell, Run, span};
use crate::bench::stats::Samples;
use crate::bench::worst::Worst;
use crate::exit::Failure;

/// Messages of a parked burst that leave one after the other: some 10 ms.
const PARKED_BURST: u64 = 1_000;
/// Fewer paced messages than this say nothing.
const FEWEST_PACED: u64 = 50;
/// What it takes to start two threads and to collect them, about.
const OVERHEAD: Nanos = Nanos::from_millis(8);
/// What the bursts of back-to-back messages take, about.
const BUSY_BURST: Nanos = Nanos::from_millis(12);

/// What one message costs from the core of `from` to the core of `to`: `messages` of them in one
/// burst (fewer, if a burst does not hold as many), after a warm-up that is not counted.
///
/// Two threads that spin keep both cores for less than 0.6 s; as long as they did so, this function
/// rests afterwards, so that calling it again and again is safe.
pub(crate) fn measure_pair(
    from: ThreadSpec,
    to: ThreadSpec,
    waiting: Waiting,
    pace: Pace,
    messages: u64,
) -> Result<OneWay, Failure> {
    if waiting == Waiting::Spinning && (from.core.is_none() || from.core == to.core) {
        return Err(Failure::usage("two threads that spin need a core each"));
    }
    let begun = clock::now();
    let measured = one_way(
        &Pair { near: from, far: to },
        pace,
        waiting,
        messages.min(messages_of_a_burst(pace)),
    );
    let ended = clock::now();
    let rest = if waiting == Waiting::Spinning { (ended - begun).max(REST) } else { REST };
    clock::sleep_until(ended + rest);
    measured
}

/// Measures every pair of cores that was asked for, and adds it to the report.
pub(super) fn measure(args: &HopArgs, seconds: f64, run: &mut Run) -> Result<(), Failure> {
    let usable = CoreList::from_str(&run.host().cores_usable).map_err(Failure::machine)?;
    let cores = args.cores.as_ref().unwrap_or(&usable);
    let cores: Vec<u16> = cores.iter().map(|core| core.get()).collect();
    let plan = Plan::new(&cores, &args.paces(), seconds);
    let time = span(plan.time(&args.paces()).as_nanos() as f64);
    let bar = crate::bench::progress("matrix", plan.bursts());
    bar.println(format!("{} pairs of cores, about {time}", plan.pairs.len()));
    let mut cells: Vec<Measured> =
        plan.cells().into_iter().map(|cell| (cell, BTreeMap::new())).collect();
    let mut worst = Worst::new();
    let mut failed = None;
    // Rounds on the outside: what drifts meets every pair alike.
    for round in 0..plan.rounds {
        let period = args.paces()[round as usize % args.paces().len()];
        for (n, (cell, counts)) in cells.iter_mut().enumerate() {
            if crate::bench::interrupted() {
                break;
            }
            let thread = |name, core| args.common.thread(name, core);
            let (from, to) = (thread("bench-near", cell.from)?, thread("bench-far", cell.to)?);
            let (pace, messages) = match (cell.paced, cell.waiting) {
                (true, _) => (Pace::Every(period), plan.paced_messages),
                (false, Waiting::Spinning) => (Pace::BackToBack, u64::MAX),
                (false, Waiting::Parked) => (Pace::BackToBack, PARKED_BURST),
            };
            match measure_pair(from, to, cell.waiting, pace, messages) {
                Ok(measured) => {
                    measured.applied.iter().for_each(|applied| run.thread(applied));
                    worst.pool(&measured.worst, n);
                    for (ns, count) in measured.samples.recorded() {
                        *counts.entry(ns).or_default() += count;
                    }
                }
                // One burst that something else spoiled must not cost an hour's measurement.
                Err(failure) if failure.exit == crate::exit::Exit::Machine => {
                    run.note(format!("{cell}: a burst is missing: {}", failure.message));
                    failed = Some(failure);
                }
                Err(failure) => return Err(failure),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report(run, &plan, &cells, &worst);
    match failed {
        Some(failure) if cells.iter().all(|(_, counts)| counts.is_empty()) => Err(failure),
        _ => Ok(()),
    }
}

/// A cell, and how often each span came: histograms of all pairs of many cores would not fit.
type Measured = (Cell, BTreeMap<u64, u64>);

fn report(run: &mut Run, plan: &Plan, cells: &[Measured], worst: &Worst) {
    for (cell, counts) in cells.iter().filter(|(_, counts)| !counts.is_empty()) {
        let mut samples = Samples::new();
        counts.iter().for_each(|(ns, count)| samples.record_n(*ns, *count, Nanos::ZERO));
        let pace = if cell.paced { "paced" } else { "back-to-back" };
        let figures = samples.summary(Nanos::ZERO);
        run.cell(MatrixCell::new((cell.from, cell.to), &cell.waiting.to_string(), pace, &figures));
    }
    worst.report(run, |n| cells[n].0.to_string());
    let busy = warm_up(Pace::BackToBack, messages_of_a_burst(Pace::BackToBack));
    let parked = warm_up(Pace::BackToBack, PARKED_BURST);
    let paced = warm_up(Pace::Every(Nanos::from_millis(1)), plan.paced_messages);
    run.note(format!(
        "matrix: one way, 256 B, {} in each cell; before each, {busy} messages (parked: {parked}, \
         paced: {paced}) warm up and are not counted",
        if plan.rounds == 1 { "1 burst".to_owned() } else { format!("{} bursts", plan.rounds) }
    ));
}

/// One figure of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    from: u16,
    to: u16,
    waiting: Waiting,
    paced: bool,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pace = if self.paced { "paced" } else { "back-to-back" };
        write!(f, "core {} → {}, {}, {pace}", self.from, self.to, self.waiting)
    }
}

/// How much is measured in the time that there is.
#[derive(Debug)]
struct Plan {
    /// Ordered; both ends may be the same core.
    pairs: Vec<(u16, u16)>,
    rounds: u64,
    /// Paced messages of one burst.
    paced_messages: u64,
}

impl Plan {
    /// As many full rounds as fit into `seconds`; where not even one fits, one of shorter bursts.
    /// Many cores take longer than that even so: see [`Plan::time`].
    fn new(cores: &[u16], paces: &[Nanos], seconds: f64) -> Self {
        let pairs = cores.iter().flat_map(|from| cores.iter().map(move |to| (*from, *to)));
        let full = messages_of_a_burst(Pace::Every(longest(paces)));
        let mut plan = Self { pairs: pairs.collect(), rounds: 1, paced_messages: full };
        let one_round = plan.time(paces).as_secs_f64();
        if one_round <= seconds {
            plan.rounds = (seconds / one_round) as u64;
            return plan;
        }
        plan.paced_messages = 0;
        let fixed = plan.time(paces).as_secs_f64();
        let share = (seconds - fixed) / (one_round - fixed);
        plan.paced_messages = ((full as f64 * share) as u64).clamp(FEWEST_PACED.min(full), full);
        plan
    }

    fn kinds((from, to): (u16, u16)) -> impl Iterator<Item = (Waiting, bool)> {
        let all = [Waiting::Spinning, Waiting::Parked].into_iter();
        let all = all.flat_map(|waiting| [false, true].map(|paced| (waiting, paced)));
        // Two threads that spin on one core would only wait for each other.
        all.filter(move |(waiting, _)| from != to || *waiting == Waiting::Parked)
    }

    fn cells(&self) -> Vec<Cell> {
        let cells = self.pairs.iter().flat_map(|(from, to)| {
            let kinds = Self::kinds((*from, *to));
            kinds.map(|(waiting, paced)| Cell { from: *from, to: *to, waiting, paced })
        });
        cells.collect()
    }

    fn bursts(&self) -> u64 {
        self.cells().len() as u64 * self.rounds
    }

    /// How long all of it takes, about.
    fn time(&self, paces: &[Nanos]) -> Nanos {
        let paced = longest(paces) * (self.paced_messages as i64 + 5);
        let kind = |(waiting, is_paced): (Waiting, bool)| {
            let burst = if is_paced { paced } else { BUSY_BURST };
            // What spins rests for as long.
            let bursts = if waiting == Waiting::Spinning { 2 } else { 1 };
            (burst + OVERHEAD) * bursts + REST
        };
        let kinds = self.pairs.iter().flat_map(|pair| Self::kinds(*pair));
        kinds.map(kind).fold(Nanos::ZERO, |sum, time| sum + time) * self.rounds as i64
    }
}

fn longest(paces: &[Nanos]) -> Nanos {
    paces.iter().copied().max().unwrap_or(Nanos::from_millis(1))
}

#[cfg(test)]
mod tests {
    use sinew_rt::thread::Strictness;
    use sinew_rt::topology::{CoreId, Topology};

    use super::*;

    const PERIOD: [Nanos; 1] = [Nanos::from_micros(1_000)];

    fn plan(cores: u16, seconds: f64) -> Plan {
        Plan::new(&(0..cores).collect::<Vec<_>>(), &PERIOD, seconds)
    }

    #[test]
    fn every_ordered_pair_is_there_and_nobody_spins_against_itself() {
        let cells = plan(2, 10.0).cells();
        let spinning: Vec<_> =
            cells.iter().filter(|cell| cell.waiting == Waiting::Spinning).collect();
        assert_eq!((cells.len(), spinning.len()), (2 * 4 + 2 * 2, 2 * 2));
        assert!(spinning.iter().all(|cell| cell.from != cell.to));
        assert!(cells.iter().any(|cell| (cell.from, cell.to) == (1, 0) && cell.paced));
    }

    #[test]
    fn the_time_that_there_is_holds_up_to_what_says_something() {
        for (cores, seconds) in [(2, 20.0), (2, 2.0), (4, 10.0), (8, 60.0), (16, 120.0)] {
            let plan = plan(cores, seconds);
            let time = plan.time(&PERIOD).as_secs_f64();
            assert!(time <= seconds * 1.05, "{cores} cores: {time} of {seconds} s");
            assert!(time >= seconds / 3.0, "{cores} cores: {time} of {seconds} s");
        }
        assert!(plan(2, 60.0).rounds > plan(2, 20.0).rounds);
        let many = plan(64, 10.0);
        assert_eq!((many.rounds, many.paced_messages), (1, FEWEST_PACED));
        assert!(many.time(&PERIOD) < Nanos::from_secs(25 * 60), "{:?}", many.time(&PERIOD));
    }

    fn thread(core: u16) -> ThreadSpec {
        ThreadSpec::new("test").core(CoreId::new(core)).strictness(Strictness::Report)
    }

    #[test]
    fn two_threads_that_park_on_one_core_pass_every_message() {
        let core = Topology::read().unwrap().usable_cores().iter().next().unwrap().get();
        for pace in [Pace::BackToBack, Pace::Every(Nanos::from_micros(500))] {
            let measured =
                measure_pair(thread(core), thread(core), Waiting::Parked, pace, 40).unwrap();
            assert_eq!(measured.samples.count(), 40, "{pace}");
            assert_eq!(measured.worst.events().len(), 5);
        }
    }

    #[test]
    fn two_threads_that_spin_on_one_core_are_refused() {
        let refused = measure_pair(thread(0), thread(0), Waiting::Spinning, Pace::BackToBack, 9);
        assert_eq!(refused.err().unwrap().exit, crate::exit::Exit::Usage);
    }
}
