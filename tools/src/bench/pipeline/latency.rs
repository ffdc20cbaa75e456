//! One-way latency of 256 bytes between two processes: ours against plain programs, leg by leg in
//! alternation.

use sinew_rt::clock::{self, Nanos};

use super::super::length::Length;
use super::super::report::{Run, span};
use super::super::stats::{Comparison, Limit, Limits, Pair, Samples};
use super::super::worst::{Event, Worst};
use super::super::{interrupted, progress};
use super::crew::{Crew, LegFindings, Stopped};
use super::order::{Findings, Lanes, LateMessage, Leg, Pace, Program, Protection, Sleep, Waits};
use super::schedule::{Bursts, SPIN_MAX, WARM_UP};
use super::{Cores, PipelineArgs};
use crate::exit::Failure;

/// What `open` may cost: figures of the plain program times this.
const OPEN: (f64, f64) = (1.25, 1.5);
/// What `signed` may cost: plain program, signature and strict check together times this at the
/// median, and a plain program that signs and checks times this at p99.
const SIGNED: f64 = 1.10;
/// What a reader of the comparison with a sum must know.
const SUMMED: &str = "the sum of separately measured parts adds their p99s too, which hardly ever meet \
                      in one message: the ratio to it at p99 looks better than it is and is not \
                      judged; the one to a plain program that signs and checks is";
/// Spans of one ping-pong leg.
const VOLLEY: usize = 5_000;
/// Spans that one leg keeps, at most, and the parent receives as text. One leg alone judges nothing.
const SPANS_MAX: usize = 50_000;
/// Parked threads that wake more often than this hardly park: they get bursts like those that spin.
const PARKS_ABOVE: i64 = 100_000;
/// A rate counts as achieved from this share of the messages on.
const ACHIEVED: f64 = 0.999;
/// The shortest leg at scheduled times.
const PACED_LEG_MIN: Nanos = Nanos::from_millis(400);
/// One leg at scheduled times, at most.
const PACED_LEG: Nanos = Nanos::from_secs(4);
/// Layouts that are only shown run in every so many rounds.
const SHOWN_EVERY: usize = 4;
/// The pace of signatures beside a ping-pong of signed messages: about that of the ping-pong.
const CRYPTO_BESIDE_PING_PONG: i64 = 200_000;

/// The part that a case plays in the comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Base,
    BaseAgain,
    Open,
    Signed,
    PlainSigned,
    PlainSignedAgain,
    Crypto,
    Blocking,
    BlockingAgain,
    /// None: it is only shown.
    Shown,
}

/// What runs alternately under one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    part: Part,
    name: &'static str,
    program: Program,
}

use Protection::{Open, Signed};

/// One wait at one pace.
#[derive(Clone, Copy, Debug)]
struct Condition {
    waits: Waits,
    ping_pong: bool,
    /// How long it is measured, if not for a number of samples.
    seconds: Option<f64>,
}

impl Condition {
    fn name(self) -> String {
        let waits = match self.waits {
            Waits::Spin => "spinning",
            Waits::Park => "parked",
        };
        let pace = if self.ping_pong { "back-to-back" } else { "paced" };
        format!("{waits}, {pace}")
    }

    fn cases(self, args: &PipelineArgs, cores: &Cores) -> Vec<Case> {
        let node = Program::Node;
        let base = |protection| Program::Bare(Sleep::Poll, protection);
        let bare = match self.waits {
            Waits::Spin => "bare UDP, spinning recv",
            Waits::Park => "bare UDP, mio poll + recv",
        };
        let case = |part, name, program| Case { part, name, program };
        let mut cases = vec![
            case(Part::Base, bare, base(Open)),
            case(Part::BaseAgain, "bare UDP again", base(Open)),
            case(Part::Open, "open, fused", node(Lanes::Fused, Open)),
        ];
        if self.waits == Waits::Park {
            let recv = Program::Bare(Sleep::Recv, Open);
            cases.push(case(Part::Blocking, "bare UDP, blocking recv", recv));
            cases.push(case(Part::BlockingAgain, "bare UDP, blocking recv again", recv));
        }
        if !args.open {
            cases.extend([
                case(Part::Signed, "signed, fused", node(Lanes::Fused, Signed)),
                case(Part::PlainSigned, "bare UDP, signing and checking", base(Signed)),
                case(Part::PlainSignedAgain, "the same again", base(Signed)),
                case(Part::Crypto, "crypto", Program::Crypto),
            ]);
        }
        let cores = cores.sender.len().min(cores.receiver.len());
        for (lanes, need, open, signed) in [
            (Lanes::Split, 3, "open, split", "signed, split"),
            (Lanes::Pipelined, 4, "open, pipelined", "signed, pipelined"),
        ] {
            // A parked stage beside the lane that delivers is woken by nobody, so there the panel
            // measures, and nothing can be answered.
            if cores >= need || (self.waits == Waits::Park && !self.ping_pong) {
                cases.push(case(Part::Shown, open, node(lanes, Open)));
                if !args.open {
                    cases.push(case(Part::Shown, signed, node(lanes, Signed)));
                }
            }
        }
        cases
    }

    /// The leg of `case` in round `round`.
    fn leg(self, case: &Case, round: usize, args: &PipelineArgs) -> Leg {
        let protected = matches!(
            case.program,
            Program::Bare(_, Signed) | Program::Node(_, Signed) | Program::Crypto
        );
        let period = args.period_ns(round);
        let spins = self.waits == Waits::Spin || period < PARKS_ABOVE;
        let (pace, bursts) = match self.ping_pong {
            false => {
                let total = match self.seconds {
                    _ if args.quick => PACED_LEG_MIN,
                    // Some legs of each of the cases.
                    Some(seconds) => Nanos::new((seconds * 1e9) as i64 / 24),
                    None => PACED_LEG,
                };
                let total = total.clamp(PACED_LEG_MIN, PACED_LEG);
                let bursts =
                    if spins { Bursts::spinning(SPIN_MAX, total) } else { Bursts::single(total) };
                (Pace::Every(period), bursts)
            }
            true => {
                // About twice what the exchanges take; the sender stops at the last one.
                let exchange = match (protected, self.waits) {
                    (true, _) => Nanos::from_micros(400),
                    (false, Waits::Spin) => Nanos::from_micros(20),
                    (false, Waits::Park) => Nanos::from_micros(60),
                };
                let volley = if args.quick { VOLLEY / 10 } else { VOLLEY };
                let total = exchange * volley as i64;
                let pace = match case.program {
                    Program::Crypto => Pace::Every(CRYPTO_BESIDE_PING_PONG),
                    _ => Pace::PingPong,
                };
                (pace, Bursts::spinning(SPIN_MAX, total))
            }
        };
        let samples_max = match pace {
            Pace::Every(interval) => {
                ((bursts.span().as_nanos() / interval) as usize + 16).min(SPANS_MAX)
            }
            _ if args.quick => VOLLEY / 10,
            _ => VOLLEY,
        };
        let (waits, priority) = (self.waits, args.priority);
        let (program, warm_up, stall) = (case.program, WARM_UP, args.stall());
        Leg { program, waits, pace, bursts, samples_max, warm_up, batch: 1, stall, priority }
    }
}

/// What one case has gathered.
struct Gathered {
    case: Case,
    spans: Samples,
    from_schedule: Samples,
    /// Signatures at the sender, for the crypto case.
    signatures: Samples,
    /// Publishing to the deliver stage, by the panel.
    age: Samples,
    /// How late messages left.
    lateness: Samples,
    /// Those that waited longer than one period.
    waited: Samples,
    worst: Worst,
    scheduled: u64,
    /// Time of the schedule: its messages times their distance.
    schedule_ns: i64,
    sent: u64,
    received: u64,
}

impl Gathered {
    fn new(case: Case) -> Self {
        Self {
            case,
            spans: Samples::new(),
            from_schedule: Samples::new(),
            signatures: Samples::new(),
            age: Samples::new(),
            lateness: Samples::new(),
            waited: Samples::new(),
            worst: Worst::new(),
            scheduled: 0,
            schedule_ns: 0,
            sent: 0,
            received: 0,
        }
    }

    fn add(&mut self, leg: &Leg, found: &LegFindings) -> Samples {
        let LegFindings { sender, receiver, .. } = found;
        let spans = samples(receiver);
        self.spans.pool(&spans);
        if let Pace::Every(interval) = leg.pace {
            let due = scheduled(leg, interval);
            self.scheduled += due;
            self.schedule_ns += due as i64 * interval;
            let at = Nanos::new(receiver.max_at_ns);
            for (from_schedule, span) in receiver.from_schedule_ns.iter().zip(&receiver.spans_ns) {
                self.from_schedule.record_n(u64::from(*from_schedule), 1, at);
                self.lateness.record_n(u64::from(from_schedule.saturating_sub(*span)), 1, at);
                if i64::from(*from_schedule) > interval {
                    self.waited.record_n(u64::from(*from_schedule), 1, at);
                }
            }
            for LateMessage { length_ns, at_ns, cause } in &receiver.worst {
                let (length, at) = (Nanos::new(*length_ns), Nanos::new(*at_ns));
                self.worst.add(Event { length, at, cause: *cause, measurement: 0 });
            }
        }
        if self.case.program == Program::Crypto {
            self.signatures.pool(&samples(sender));
        }
        for (ns, count) in &receiver.age_ns {
            self.age.record_n(*ns, *count, clock::now());
        }
        self.sent += sender.sent;
        self.received += receiver.received;
        spans
    }
}

impl Gathered {
    /// The rate of `messages` on the time of the schedule.
    fn rate_hz(&self, messages: u64) -> f64 {
        messages as f64 * 1e9 / self.schedule_ns.max(1) as f64
    }
}

/// How many send times the schedule of `leg` has.
fn scheduled(leg: &Leg, interval: i64) -> u64 {
    super::schedule::Ticks::new(leg.bursts, Nanos::ZERO, Nanos::new(interval)).count() as u64
}

/// The spans that one side kept.
pub(super) fn samples(findings: &Findings) -> Samples {
    let mut samples = Samples::new();
    for ns in &findings.spans_ns {
        samples.record(Nanos::new((*ns).into()), Nanos::new(findings.max_at_ns));
    }
    samples
}

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

fn conditions(args: &PipelineArgs) -> Vec<Condition> {
    let (all_waits, all_paces) = (!(args.spin || args.park), !(args.paced || args.back_to_back));
    let waits = [(args.spin, Waits::Spin), (args.park, Waits::Park)];
    let paces = [(args.paced, false), (args.back_to_back, true)];
    let waits = waits.into_iter().filter(|(asked, _)| *asked || all_waits);
    let pace = |waits| {
        let paces = paces.into_iter().filter(|(asked, _)| *asked || all_paces);
        // What has a stall has a schedule.
        let paces = paces.filter(|(_, ping_pong)| !ping_pong || args.stall().is_none());
        paces.map(move |(_, ping_pong)| Condition { waits, ping_pong, seconds: None })
    };
    let mut conditions: Vec<_> = waits.flat_map(|(_, waits)| pace(waits)).collect();
    let share = args.seconds().map(|seconds| seconds / conditions.len() as f64);
    conditions.iter_mut().for_each(|condition| condition.seconds = share);
    conditions
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
        run.note(format!(
            "{name}: the first {WARM_UP} messages of each leg warm up and are not counted"
        ));
    }
}
