//! One-way latency of 256 bytes between two processes: ours against plain programs, leg by leg in
//! alternation.

mod condition;
mod gathered;

use sinew_rt::clock::Nanos;

use super::super::length::Length;
use super::super::report::{Run, span};
use super::super::stats::{Comparison, Limit, Limits, Pair, Samples};
use super::super::worst::Worst;
use super::super::{interrupted, progress};
use super::crew::{Crew, Stopped};
use super::order::{Pace, Program};
use super::schedule::WARM_UP;
use super::{Cores, PipelineArgs};
use crate::exit::Failure;
use condition::{Condition, Part, conditions};
pub(super) use gathered::samples;
use gathered::{Gathered, scheduled};

/// What `open` may cost: figures of the plain program times this.
const OPEN: (f64, f64) = (1.25, 1.5);
/// What `signed` may cost: plain program, signature and strict check together times this at the
/// median, and a plain program that signs and checks times this at p99.
const SIGNED: f64 = 1.10;
/// What a reader of the comparison with a sum must know.
const SUMMED: &str = "the sum of separately measured parts adds their p99s too, which hardly ever meet \
                      in one message: the ratio to it at p99 looks better than it is and is not \
                      judged; the one to a plain program that signs and checks is";
/// A rate counts as achieved from this share of the messages on.
const ACHIEVED: f64 = 0.999;
/// Layouts that are only shown run in every so many rounds.
const SHOWN_EVERY: usize = 4;

/// Runs all conditions that were asked for and adds them to the report.
pub(super) fn measure(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Failure> {
    let mut crew = match Crew::start(&cores.sender, &cores.receiver) {
        Ok(crew) => Some(crew),
        Err(Stopped::Interrupted) => None,
        Err(Stopped::Failed(failure)) => return Err(failure),
    };
    for condition in conditions(args) {
        let mut table = Table::new(condition, args, cores);
        // After Ctrl-C the report still hears of what was asked for and not measured.
        let outcome = match &mut crew {
            Some(crew) if !interrupted() => table.fill(args, crew, run),
            _ => Err(Stopped::Interrupted),
        };
        table.report(run);
        if let Err(Stopped::Failed(failure)) = outcome {
            return Err(failure);
        }
    }
    Ok(())
}

/// Everything measured under one condition.
struct Table {
    condition: Condition,
    gathered: Vec<Gathered>,
    compared: Vec<Compared>,
}

/// Two parts that are compared, and the part that is the first once more.
struct Compared {
    base: Part,
    subject: Part,
    control: Part,
    /// Whether the base also stands for one signature and one strict check.
    plus_crypto: bool,
    comparison: Comparison,
}

impl Table {
    fn new(condition: Condition, args: &PipelineArgs, cores: &Cores) -> Self {
        let gathered = condition.cases(args, cores).into_iter().map(Gathered::new).collect();
        let mut table = Self { condition, gathered, compared: Vec::new() };
        let at_most = Limits::at_most;
        let (open, none) = (at_most(OPEN.0, OPEN.1), Limits::default());
        // The parts were measured apart. Their medians nearly add up to the median of a message that
        // has all of them. Their p99s do not: they hardly ever meet in one message, so their sum is
        // more than the p99 of such messages, and a ratio to it looks better than it is. At p99,
        // what is judged is the ratio to a program in which the parts do meet.
        let signed = Limits { p50: Some(Limit::AtMost(SIGNED)), p99: None };
        let signed_p99 = Limits { p50: None, p99: Some(Limit::AtMost(SIGNED)) };
        table.compare("open", Part::Base, Part::Open, Part::BaseAgain, open);
        table.compare("open", Part::Blocking, Part::Open, Part::BlockingAgain, none);
        let sum = "signed against bare UDP + one signature + one strict check";
        table.compare(sum, Part::Base, Part::Signed, Part::BaseAgain, signed);
        if let Some(compared) = table.compared.last_mut() {
            compared.plus_crypto = compared.subject == Part::Signed;
        }
        let plain = "signed against a plain program that signs and checks";
        table.compare(plain, Part::PlainSigned, Part::Signed, Part::PlainSignedAgain, signed_p99);
        table
    }

    /// Adds a comparison of parts that this condition has.
    fn compare(&mut self, what: &str, base: Part, subject: Part, control: Part, limits: Limits) {
        let name = |part| self.part(part).map(|gathered| gathered.case.name);
        if let (Some(base_name), Some(subject_name)) = (name(base), name(subject)) {
            let what = format!("{}: {what}", self.condition.name());
            let comparison = Comparison::new(&what, base_name, subject_name, limits);
            let plus_crypto = false;
            self.compared.push(Compared { base, subject, control, plus_crypto, comparison });
        }
    }

    fn part(&self, part: Part) -> Option<&Gathered> {
        self.gathered.iter().find(|gathered| gathered.case.part == part)
    }

    /// Measures round after round until every judged side has its samples.
    fn fill(&mut self, args: &PipelineArgs, crew: &mut Crew, run: &mut Run) -> Result<(), Stopped> {
        if let Some(seconds) = self.condition.seconds {
            let mut length = Length::new(1, Some(seconds));
            let bar = length.progress(&self.condition.name());
            let mut round = 0;
            while length.goes_on(&bar) {
                self.round(round, args, crew, run, &bar)?;
                round += 1;
            }
            bar.finish_and_clear();
            return Ok(());
        }
        let rounds = self.rounds(args);
        let bar = progress(&self.condition.name(), (rounds * self.gathered.len()) as u64);
        let mut round = 0;
        while round < rounds || (round < rounds * 2 && !args.quick && self.fewest() < args.samples)
        {
            self.round(round, args, crew, run, &bar)?;
            round += 1;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn rounds(&self, args: &PipelineArgs) -> usize {
        if args.quick {
            return 1;
        }
        let Some(base) = self.part(Part::Base) else { return 1 };
        let leg = self.condition.leg(&base.case, 0, args);
        let spans = match leg.pace {
            Pace::Every(interval) => scheduled(&leg, interval).saturating_sub(leg.warm_up),
            _ => leg.samples_max as u64,
        };
        (args.samples.div_ceil(spans.max(1)) as usize).max(1)
    }

    fn fewest(&self) -> u64 {
        let judged = self.gathered.iter().filter(|gathered| gathered.case.part != Part::Shown);
        judged.map(|gathered| gathered.spans.count()).min().unwrap_or(0)
    }

    /// One round of all cases, beginning with another one each time.
    fn round(
        &mut self,
        round: usize,
        args: &PipelineArgs,
        crew: &mut Crew,
        run: &mut Run,
        bar: &indicatif::ProgressBar,
    ) -> Result<(), Stopped> {
        let cases = self.gathered.len();
        let mut spans: Vec<Option<Samples>> = vec![None; cases];
        for n in 0..cases {
            if interrupted() {
                return Err(Stopped::Interrupted);
            }
            let at = (round + n) % cases;
            let gathered = &mut self.gathered[at];
            bar.set_message(gathered.case.name);
            if gathered.case.part != Part::Shown || round.is_multiple_of(SHOWN_EVERY) {
                let leg = self.condition.leg(&gathered.case, round, args);
                let found = crew.leg(&leg, run)?;
                spans[at] = Some(gathered.add(&leg, &found));
            }
            bar.inc(1);
        }
        let parts = || self.gathered.iter().map(|gathered| gathered.case.part);
        let measured = |wanted: Part| spans[parts().position(|part| part == wanted)?].as_ref();
        for Compared { base, subject, control, comparison, .. } in &mut self.compared {
            if let (Some(base), Some(subject), Some(control)) =
                (measured(*base), measured(*subject), measured(*control))
            {
                comparison.add(base, subject, control);
            }
        }
        Ok(())
    }

    fn report(&mut self, run: &mut Run) {
        let name = self.condition.name();
        let crypto = self.part(Part::Crypto).filter(|crypto| crypto.spans.count() > 0);
        if let Some(crypto) = crypto {
            run.measured(format!("{name}: one signature"), &crypto.signatures);
            run.measured(format!("{name}: one strict check"), &crypto.spans);
        }
        let sum = |q| crypto.map_or(0.0, |c| c.signatures.quantile(q) + c.spans.quantile(q));
        let added = Pair { p50: sum(0.5), p99: sum(0.99) };
        let has_crypto = crypto.is_some();
        for gathered in &self.gathered {
            let case = gathered.case.name;
            if matches!(gathered.case.program, Program::Node(..)) && gathered.age.count() > 0 {
                let what = format!("{name}: {case}, to the deliver stage");
                run.measured(what, &gathered.age);
            }
            if gathered.from_schedule.count() > 0 && gathered.case.part != Part::Crypto {
                run.measured(format!("{name}: {case}, from schedule"), &gathered.from_schedule);
            }
            self.warn(gathered, run);
        }
        let mut worst = Worst::new();
        for (n, gathered) in self.gathered.iter().enumerate() {
            if matches!(gathered.case.program, Program::Node(..)) {
                worst.pool(&gathered.worst, n);
            }
        }
        worst.report(run, |n| format!("{name}: {}, from schedule", self.gathered[n].case.name));
        self.rates(run);
        if self.gathered.iter().any(|gathered| gathered.received > 0) {
            run.note(format!(
                "{name}: the first {WARM_UP} messages of each leg warm up and are not counted"
            ));
        }
        for compared in &mut self.compared {
            if compared.plus_crypto && has_crypto {
                compared.comparison.add_to_base(added);
                run.note(format!("{name}: {SUMMED}"));
            }
            run.compared(&compared.comparison);
        }
    }

    /// Says where messages were lost or a rate was not achieved.
    fn warn(&self, gathered: &Gathered, run: &mut Run) {
        if gathered.case.part == Part::Crypto {
            return;
        }
        let (name, case) = (self.condition.name(), gathered.case.name);
        let Gathered { scheduled, sent, received, .. } = gathered;
        if !self.condition.ping_pong && (*sent as f64) < *scheduled as f64 * ACHIEVED {
            let [achieved, asked] = [*sent, *scheduled].map(|messages| gathered.rate_hz(messages));
            run.note(format!(
                "{name}: {case}: the rate was not achieved: {achieved:.1} Hz of {asked:.1} Hz: {sent} \
                 of {scheduled} messages left in time; ask for a lower rate, or read the figures as \
                 those of an overload"
            ));
        }
        let waited = &gathered.waited;
        if waited.count() > 0 {
            let (count, figures) = (waited.count(), waited.summary(Nanos::ZERO));
            let (from, to) = (span(figures.min_ns), span(figures.max_ns));
            run.note(format!(
                "{name}: {case}: {count} messages waited longer than one period, from {from} to {to}"
            ));
            let name = format!("{name}: {case}: messages that waited longer than one period");
            run.figure(&name, count as f64, "", None);
        }
        if received < sent {
            run.note(format!("{name}: {case}: {received} of {sent} messages arrived"));
        }
        let late = gathered.lateness.quantile(0.99);
        if !self.condition.ping_pong && late > 500_000.0 {
            let late = span(late);
            run.note(format!("{name}: {case}: the rate was not achieved: p99 left {late} late"));
        }
    }

    /// What was asked for, and what the slowest sender came to.
    fn rates(&self, run: &mut Run) {
        if self.condition.ping_pong {
            return;
        }
        let messages = self
            .gathered
            .iter()
            .filter(|gathered| gathered.case.part != Part::Crypto && gathered.scheduled > 0);
        let share = |gathered: &&Gathered| gathered.sent as f64 / gathered.scheduled as f64;
        let slowest = messages.min_by(|a, b| share(a).total_cmp(&share(b)));
        let Some(slowest) = slowest else { return };
        let name = self.condition.name();
        let (asked, sent) = (slowest.rate_hz(slowest.scheduled), slowest.rate_hz(slowest.sent));
        run.figure(&format!("{name}: rate asked for"), asked, "Hz", None);
        let slowest = slowest.case.name;
        run.figure(&format!("{name}: rate achieved, the lowest: {slowest}"), sent, "Hz", None);
    }
}
