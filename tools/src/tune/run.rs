//! The order of a run: parts, placement, trials, the comparison, the file's text.

use indicatif::ProgressBar;
use sinew_io::node::NodeConfig;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::kernel::RtThrottling;
use sinew_rt::memory::{self, MemoryPlan};
use sinew_rt::topology::{CoreId, CoreList, Topology};

use super::candidates::{self, Candidate, predicted_ns};
use super::cores::{self, Cores};
use super::decide::{self, Beside, Noise, Ratio, Tried, median, spread};
use super::facts::{Demands, Machine};
use super::granted::Granted;
use super::report::{Budget, PartRatios, Report, TriedReport};
use super::trial::{self, Ground};
use super::{kernel_line, measure, write};
use crate::bench::report::span;
use crate::bench::stats::{Comparison, ComparisonReport, Limits, Samples, Side};
use crate::bench::{interrupted, progress};
use crate::exit::Failure;

/// Cores between which hops are measured: all pairs of more would take minutes.
const HOP_CORES: usize = 9;
/// Seconds for all of a kind, shared by the cores.
const NOISE_S: f64 = 4.0;
const NOISE_MAX_S: f64 = 0.4;
const WAKES_S: f64 = 4.0;
const WAKES_MAX_S: f64 = 1.0;
const PACED_HOPS_S: f64 = 2.0;
const PACED_HOP_MAX_S: f64 = 0.3;
/// Each round of wake-ups under one method.
const IDLE_ROUND_S: f64 = 0.2;
const IDLE_ROUNDS: u32 = 4;
/// Rounds of trials, and of the comparison at the end: as many as fit into the time, but no fewer than
/// a median takes.
const TRIAL_ROUNDS: u32 = 5;
const FINAL_ROUNDS: u32 = 7;
const FEWEST_ROUNDS: u32 = 3;
const TRIALS_UNTIL: Nanos = Nanos::from_secs(30);
const FINAL_UNTIL: Nanos = Nanos::from_secs(50);
/// Each of the two parts of a trial.
const PART: Nanos = Nanos::from_millis(300);

/// What the comparison at the end gave, idle and loaded.
type Compared = ([ComparisonReport; 2], [PartRatios; 2]);

struct Run<'a> {
    report: &'a mut Report,
    demands: Demands,
    granted: Granted,
    bar: ProgressBar,
    quick: bool,
    started: Nanos,
    /// Messages that did not arrive, for each configuration.
    lost: Vec<(String, u64)>,
}

/// Measures and decides; gives the text of the file, or nothing when Ctrl-C came first.
pub(super) fn measure(report: &mut Report, quick: bool) -> Result<Option<String>, Failure> {
    let topology = Topology::read().map_err(Failure::machine)?;
    let machine = Machine {
        spin: RtThrottling::current().spin_allowed(),
        command_line: report.host.command_line.clone(),
        topology,
    };
    let demands = report.demands;
    let mut granted = Granted::default();
    memory::prepare(&MemoryPlan::default())
        .refused
        .iter()
        .for_each(|refusal| granted.brand(refusal.to_string()));
    let (bar, started, lost) = (progress("tune", 1), clock::now(), Vec::new());
    let mut run = Run { report, demands, granted, bar, quick, started, lost };
    let text = run.all(&machine);
    run.bar.finish_and_clear();
    let Run { granted, lost, .. } = run;
    for (what, lost) in lost {
        report.notes.push(format!("{what}: {lost} messages did not arrive in time"));
    }
    report.threads = granted.threads;
    report.not_real_time = granted.not_real_time;
    text
}

impl Run<'_> {
    fn rounds(&self, rounds: u32) -> u32 {
        if self.quick { FEWEST_ROUNDS } else { rounds }
    }

    /// Whether there is no time for round `round` any more.
    fn too_late(&self, round: u32, until: Nanos) -> bool {
        round >= FEWEST_ROUNDS && clock::now() - self.started > until
    }

    fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
    }

    fn all(&mut self, machine: &Machine) -> Result<Option<String>, Failure> {
        let usable: Vec<CoreId> = machine.topology.usable_cores().iter().collect();
        let pairs = usable.len().min(HOP_CORES).pow(2);
        let idle = 8 * self.rounds(IDLE_ROUNDS) as usize + 1;
        let legs = 7 * self.rounds(TRIAL_ROUNDS) as usize + 3 * self.rounds(FINAL_ROUNDS) as usize;
        self.bar.set_length((usable.len() + pairs + idle + legs) as u64);

        self.cores(&usable)?;
        self.hops(machine)?;
        let measured = &self.report.measured;
        let Some(cores) = cores::choose(&machine.topology, measured, &self.demands) else {
            return Err(Failure::machine("this process may use no core; check its cpuset"));
        };
        self.idle(&cores)?;
        if interrupted() {
            return Ok(None);
        }
        let ground = Ground {
            rate_hz: self.demands.rate_hz,
            peer_core: cores.housekeeping.unwrap_or(cores.lanes[0]),
            busy: cores.housekeeping.into_iter().collect(),
            part: if self.quick { PART / 3 } else { PART },
        };
        let plain = default_candidate(machine)?;
        let Some((tried, noise)) = self.trials(machine, &cores, &plain, &ground)? else {
            return Ok(None);
        };
        self.report.noise = Some(noise);
        let Some(best) = decide::best(&tried, noise) else {
            return Err(Failure::machine("no configuration could be tried"));
        };
        let mut chosen = tried[best].candidate.clone();
        let Some(([idle, loaded], ratios)) = self.compare(&chosen, &ground)? else {
            return Ok(None);
        };
        // What is the default cannot differ from it but by noise.
        let is_plain = chosen == plain;
        let verdict = match is_plain {
            true => Beside::Equals,
            false => decide::beside(&ratios.map(|part| part.p50), &ratios.map(|part| part.p99)),
        };
        let mut rejected = None;
        // Of equals the simpler one.
        let simpler = plain.complexity() < chosen.complexity();
        let side = if verdict == Beside::Worse || (verdict == Beside::Equals && simpler) {
            self.report.notes.push(format!(
                "{chosen} did best in the trials and no better than the default in the comparison: \
                 the default's settings are written"
            ));
            rejected = Some(std::mem::replace(&mut chosen, plain));
            |one: &ComparisonReport| one.base.pooled.clone()
        } else {
            |one: &ComparisonReport| one.subject.pooled.clone()
        };
        let sides = [side(&idle), side(&loaded)];
        let p99_ns = sides.iter().map(|side| side.p99_ns).fold(0.0, f64::max);
        let max_ns = sides.iter().map(|side| side.max_ns).fold(0.0, f64::max);
        let budget_ns = self.demands.budget_ns();
        let budget = Budget { budget_ns, p99_ns, max_ns, met: p99_ns <= budget_ns };
        let measured = &self.report.measured;
        let choices = decide::choices(
            &chosen,
            &tried,
            machine,
            &cores,
            measured,
            &self.demands,
            rejected.as_ref(),
        );
        let spins = chosen.wait.holds_core();
        self.report.kernel_line = kernel_line::missing(machine, &cores, spins);
        self.report.is_default = rejected.is_some() || verdict == Beside::Equals && is_plain;
        self.report.chosen = Some(chosen.to_string());
        self.report.choices = choices;
        self.report.compared = vec![idle, loaded];
        self.report.ratios = ratios.to_vec();
        self.report.beside = Some(verdict);
        self.report.budget = Some(budget);
        let text = self.text(&chosen, &cores);
        Ok((!interrupted()).then_some(text))
    }

    fn cores(&mut self, usable: &[CoreId]) -> Result<(), Failure> {
        let share = |all: f64, most: f64| (all / usable.len().max(1) as f64).min(most);
        let watch = Nanos::new((share(NOISE_S, NOISE_MAX_S) * 1e9) as i64);
        let wakes = share(WAKES_S, WAKES_MAX_S) * f64::from(self.demands.rate_hz);
        let (watch, wakes) = if self.quick { (watch / 4, wakes / 4.0) } else { (watch, wakes) };
        for core in usable {
            if interrupted() {
                break;
            }
            self.step("noise and wake-ups of each core");
            let (rate_hz, wakes) = (self.demands.rate_hz, (wakes as u64).max(50));
            let measured = measure::core(*core, rate_hz, watch, wakes, &mut self.granted)?;
            self.report.measured.cores.push(measured);
        }
        Ok(())
    }

    fn hops(&mut self, machine: &Machine) -> Result<(), Failure> {
        // Those that the topology prefers, and one for housekeeping.
        let mut ends = machine.topology.real_time_cores();
        ends.truncate(HOP_CORES - 1);
        let others = machine.topology.housekeeping_candidates();
        ends.extend(others.into_iter().find(|core| !ends.contains(core)));
        let pairs = (ends.len() * ends.len().saturating_sub(1)).max(1);
        let seconds = (PACED_HOPS_S / pairs as f64).min(PACED_HOP_MAX_S);
        let period = Nanos::from_secs(1) / i64::from(self.demands.rate_hz);
        let paced = ((seconds * f64::from(self.demands.rate_hz)) as u64).max(20);
        let paced = if self.quick { paced.div_ceil(4) } else { paced };
        for from in &ends {
            for to in ends.iter().filter(|to| *to != from) {
                if interrupted() {
                    return Ok(());
                }
                self.step("hand-offs between cores");
                let hop = measure::hop(
                    *from,
                    *to,
                    period,
                    paced,
                    &mut self.granted,
                    &mut self.report.notes,
                )?;
                self.report.measured.hops.push(hop);
            }
        }
        Ok(())
    }

    fn idle(&mut self, cores: &Cores) -> Result<(), Failure> {
        let busy: Vec<CoreId> = cores.housekeeping.into_iter().collect();
        let rounds = self.rounds(IDLE_ROUNDS);
        let seconds = if self.quick { IDLE_ROUND_S / 3.0 } else { IDLE_ROUND_S };
        let wakes = (seconds * f64::from(self.demands.rate_hz)).max(20.0) as u64;
        let bar = self.bar.clone();
        let step = || {
            bar.set_message("what keeps a core awake");
            bar.inc(1);
        };
        let measured = measure::idle_costs(
            measure::Idle { core: cores.lanes[0], busy: &busy, rate_hz: self.demands.rate_hz },
            (rounds, wakes),
            &mut self.granted,
            &mut self.report.notes,
            step,
        )?;
        self.report.measured.idle = measured;
        Ok(())
    }

    /// Tries the default configuration, twice, and what the parts speak for, in turns.
    fn trials(
        &mut self,
        machine: &Machine,
        cores: &Cores,
        plain: &Candidate,
        ground: &Ground,
    ) -> Result<Option<(Vec<Tried>, Noise)>, Failure> {
        // What the stages take shows only when they run.
        let leg = trial::run(&write::admission(&self.demands), ground, &mut self.granted)?;
        self.report.measured.work = leg.work;
        let measured = &self.report.measured;
        let all = candidates::all(machine, cores, &self.demands);
        let mut tried = vec![plain.clone(), plain.clone()];
        let chosen = decide::to_try(all, measured, &self.demands);
        tried.extend(chosen.into_iter().filter(|candidate| candidate != plain));
        let mut parts: Vec<_> = tried.iter().map(|_| [Part::new(), Part::new()]).collect();
        let rounds = self.rounds(TRIAL_ROUNDS);
        for round in 0..rounds as usize {
            if self.too_late(round as u32, TRIALS_UNTIL) {
                break;
            }
            for n in 0..tried.len() {
                if interrupted() {
                    return Ok(None);
                }
                // Another one begins each round, so that what drifts meets all alike.
                let at = (round + n) % tried.len();
                self.step(&format!("trying {}", tried[at]));
                let text = write::settings(&tried[at], &self.demands, |_| String::new());
                let leg = trial::run(&text, ground, &mut self.granted)?;
                self.lost(&tried[at].to_string(), leg.lost);
                parts[at][0].add(&leg.idle);
                parts[at][1].add(&leg.loaded);
            }
        }
        // The default ran twice in each round: both count for it, and differ by the noise.
        let rounds_of = |at: usize, part: usize, of: fn(&Part) -> &[f64]| match at {
            0 | 1 => [of(&parts[0][part]), of(&parts[1][part])].concat(),
            at => of(&parts[at][part]).to_vec(),
        };
        let worst = |at: usize, of: fn(&Part) -> &[f64]| {
            median(&rounds_of(at, 0, of)).max(median(&rounds_of(at, 1, of)))
        };
        let figures = |at| (worst(at, |part| &part.p50_ns), worst(at, |part| &part.p99_ns));
        let differed = |of: fn(&Part) -> &[f64]| {
            spread(&rounds_of(0, 0, of)).max(spread(&rounds_of(0, 1, of)))
        };
        let noise =
            Noise { p50: differed(|part| &part.p50_ns), p99: differed(|part| &part.p99_ns) };
        for (at, candidate) in tried.iter().enumerate() {
            let predicted = predicted_ns(candidate, &self.report.measured, &self.demands);
            let again = if at == 1 { " again (control)" } else { "" };
            let first = if at == 0 { " (the default)" } else { "" };
            let [idle, loaded] = [&parts[at][0].pooled, &parts[at][1].pooled];
            self.report.tried.push(TriedReport {
                configuration: format!("{candidate}{first}{again}"),
                predicted_p99_ns: predicted.is_finite().then_some(predicted),
                idle: idle.summary(Nanos::ZERO),
                loaded: loaded.summary(Nanos::ZERO),
            });
        }
        let one = |(at, candidate): (usize, &Candidate)| {
            let (p50_ns, p99_ns) = figures(at);
            Tried { candidate: candidate.clone(), p50_ns, p99_ns }
        };
        // The control is in the default's figures.
        let tried = tried.iter().enumerate().filter(|(at, _)| *at != 1).map(one).collect();
        Ok(Some((tried, noise)))
    }

    fn lost(&mut self, what: &str, lost: u64) {
        match self.lost.iter_mut().find(|(known, _)| known == what) {
            Some((_, sum)) => *sum += lost,
            None if lost > 0 => self.lost.push((what.to_owned(), lost)),
            None => {}
        }
    }

    /// The chosen configuration beside the default one and the default one again, idle and loaded.
    fn compare(
        &mut self,
        chosen: &Candidate,
        ground: &Ground,
    ) -> Result<Option<Compared>, Failure> {
        let new = |name| Comparison::new(name, "default", "tuned", Limits::default());
        let (mut idle, mut loaded) = (new("idle"), new("loaded"));
        let tuned = write::settings(chosen, &self.demands, |_| String::new());
        let plain = write::admission(&self.demands);
        // Default and tuned, idle and loaded.
        let mut parts = [[Part::new(), Part::new()], [Part::new(), Part::new()]];
        for round in 0..self.rounds(FINAL_ROUNDS) {
            if self.too_late(round, FINAL_UNTIL) {
                break;
            }
            let mut of_loaded = Vec::new();
            let round = idle.round(|side| {
                if interrupted() {
                    return Err(None);
                }
                self.step("the default and the tuned configuration in turns");
                let text = if side == Side::Base { &plain } else { &tuned };
                let leg = trial::run(text, ground, &mut self.granted).map_err(Some)?;
                let name = if side == Side::Base { "the default" } else { "the tuned one" };
                self.lost(&format!("{name}, in the comparison"), leg.lost);
                let of_side = &mut parts[usize::from(side == Side::Subject)];
                of_side[0].add(&leg.idle);
                of_side[1].add(&leg.loaded);
                of_loaded.push((side, leg.loaded));
                Ok(leg.idle)
            });
            match round {
                Ok(()) => {}
                Err(None) => return Ok(None),
                Err(Some(failure)) => return Err(failure),
            }
            let mut bases = of_loaded.iter().filter(|(side, _)| *side == Side::Base);
            let subject = of_loaded.iter().find(|(side, _)| *side == Side::Subject);
            if let (Some(base), Some(control), Some(subject)) =
                (bases.next(), bases.next(), subject)
            {
                loaded.add(&base.1, &subject.1, &control.1);
            }
        }
        let [plain, tuned] = &parts;
        let ratios = |part: usize, name| PartRatios {
            part: name,
            p50: Ratio::of(&plain[part].p50_ns, &tuned[part].p50_ns),
            p99: Ratio::of(&plain[part].p99_ns, &tuned[part].p99_ns),
        };
        let ratios = [ratios(0, "idle"), ratios(1, "loaded")];
        Ok(Some(([idle.report(), loaded.report()], ratios)))
    }

    fn text(&self, chosen: &Candidate, cores: &Cores) -> String {
        let loops: CoreList = cores.loops.iter().copied().collect();
        let report = &*self.report;
        let host = &report.host;
        let host = format!(
            "On {}, {} cores, Linux {} ({}).",
            host.processor, host.cores_online, host.kernel_release, host.preemption
        );
        let page = write::Page {
            command: &report.command,
            host: &host,
            not_real_time: &self.granted.not_real_time,
            results: &report.results(),
            choices: &report.choices,
            loops: &loops.to_string(),
        };
        write::page(chosen, &self.demands, &page)
    }
}

/// What a node without settings does on this machine.
fn default_candidate(machine: &Machine) -> Result<Candidate, Failure> {
    let config = NodeConfig::new("default");
    let plan = config.plan(&machine.topology).map_err(Failure::machine)?;
    let mut cores: Vec<CoreId> = Vec::new();
    for lane in &plan.lanes {
        if !cores.contains(&lane.core) {
            cores.push(lane.core);
        }
    }
    let (wait, keep_awake) = (config.realtime.wait, config.realtime.keep_awake);
    Ok(Candidate { layout: plan.layout, wait, cores, keep_awake })
}

/// One part of the trials of one configuration.
struct Part {
    pooled: Samples,
    /// Of each round.
    p50_ns: Vec<f64>,
    p99_ns: Vec<f64>,
}

impl Part {
    fn new() -> Self {
        Self { pooled: Samples::new(), p50_ns: Vec::new(), p99_ns: Vec::new() }
    }

    fn add(&mut self, round: &Samples) {
        self.pooled.pool(round);
        self.p50_ns.push(round.quantile(0.5));
        self.p99_ns.push(round.quantile(0.99));
    }
}

impl Report {
    /// The outcome in sentences, for people and for the file.
    pub(super) fn results(&self) -> Vec<String> {
        let mut results = Vec::new();
        if let Some(beside) = self.beside {
            let verdict = match beside {
                Beside::Beats => "It beats the default configuration",
                Beside::Equals if self.is_default => {
                    "It equals the default configuration: it is what a node does here by itself, written \
                     down"
                }
                Beside::Equals => "It equals the default configuration",
                Beside::Worse => {
                    "It is the default configuration: what did best in the trials did worse"
                }
            };
            let ratios: Vec<_> = self.ratios.iter().map(ToString::to_string).collect();
            results.push(format!(
                "{verdict}. Ratios to it, of the medians of the rounds, and the default's own spread: \
                 {}.",
                ratios.join("; ")
            ));
        }
        if let Some(Budget { budget_ns, p99_ns, max_ns, met }) = &self.budget {
            let verdict = if *met { "The budget is met" } else { "THE BUDGET IS NOT MET" };
            results.push(format!(
                "{verdict}: p99 {} of {}, the longest {} (all rounds, the worse of idle and loaded).",
                span(*p99_ns),
                span(*budget_ns),
                span(*max_ns)
            ));
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_the_node_s_own_plan_says() {
        let machine = Machine {
            topology: Topology::read().unwrap(),
            spin: Ok(()),
            command_line: String::new(),
        };
        let candidate = default_candidate(&machine).unwrap();
        let plan = NodeConfig::new("default").plan(&machine.topology).unwrap();
        assert_eq!(candidate.layout, plan.layout);
        assert_eq!(candidate.cores[0], plan.lanes[0].core);
        assert!(candidate.keep_awake.is_empty());
    }
}
