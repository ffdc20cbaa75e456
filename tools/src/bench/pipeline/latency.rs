//! One-way latency of 256 bytes between two processes: ours against plain programs, leg by leg in
//! alternation.

use sinew_rt::clock::{self, Nanos};

use super::super::report::Run;
use super::super::stats::{Comparison, Limits, Pair, Samples};
use super::super::{interrupted, progress};
use super::PipelineArgs;
use super::crew::{Crew, LegFindings, Stopped};
use super::order::{Findings, Lanes, Leg, Pace, Program, Protection, Sleep, Waits};
use super::schedule::{Bursts, SPIN_MAX};
use crate::exit::Failure;

/// What `open` may cost: figures of the plain program times this.
const OPEN: (f64, f64) = (1.25, 1.5);
/// What `signed` may cost: plain program, signature and strict check together times this.
const SIGNED: f64 = 1.10;
/// Spans of one ping-pong leg.
const VOLLEY: usize = 5_000;
/// One leg at scheduled times, at most.
const PACED_LEG: Nanos = Nanos::from_secs(4);
/// Layouts that are only shown run in every so many rounds.
const SHOWN_EVERY: usize = 4;
/// The pace of signatures beside a ping-pong of signed messages: about that of the ping-pong.
const CRYPTO_BESIDE_PING_PONG: i64 = 200_000;

/// What runs alternately under one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    name: &'static str,
    program: Program,
    /// Whether it takes part in a judged ratio.
    judged: bool,
}

const fn case(name: &'static str, program: Program) -> Case {
    Case { name, program, judged: true }
}

const fn shown(name: &'static str, program: Program) -> Case {
    Case { name, program, judged: false }
}

use Protection::{Open, Signed};

const BASE: usize = 0;
const BASE_AGAIN: usize = 1;
const OPEN_FUSED: usize = 2;
const SIGNED_FUSED: usize = 3;
const PLAIN_SIGNED: usize = 4;
const PLAIN_SIGNED_AGAIN: usize = 5;
const CRYPTO: usize = 6;

/// One wait at one pace.
#[derive(Clone, Copy, Debug)]
struct Condition {
    waits: Waits,
    ping_pong: bool,
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

    fn cases(self, args: &PipelineArgs) -> Vec<Case> {
        let node = Program::Node;
        let base = |protection| Program::Bare(Sleep::Poll, protection);
        let bare = match self.waits {
            Waits::Spin => "bare UDP, spinning recv",
            Waits::Park => "bare UDP, mio poll + recv",
        };
        let mut cases = vec![
            case(bare, base(Open)),
            case("bare UDP again", base(Open)),
            case("open, fused", node(Lanes::Fused, Open)),
            case("signed, fused", node(Lanes::Fused, Signed)),
            case("bare UDP, signing and checking", base(Signed)),
            case("the same again", base(Signed)),
            case("crypto", Program::Crypto),
        ];
        if self.waits == Waits::Park {
            cases.push(case("bare UDP, blocking recv", Program::Bare(Sleep::Recv, Open)));
        }
        let cores = args.sender_cores.len().min(args.receiver_cores.len());
        for (lanes, need, open, signed) in [
            (Lanes::Split, 3, "open, split", "signed, split"),
            (Lanes::Pipelined, 4, "open, pipelined", "signed, pipelined"),
        ] {
            // A parked stage beside the lane that delivers is woken by nobody, so there the panel
            // measures, and nothing can be answered.
            if cores >= need || (self.waits == Waits::Park && !self.ping_pong) {
                cases.push(shown(open, node(lanes, Open)));
                cases.push(shown(signed, node(lanes, Signed)));
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
        let period = args.period_us[round % args.period_us.len()] * 1_000;
        let spins = self.waits == Waits::Spin;
        let (pace, bursts) = match self.ping_pong {
            false => {
                let total = if args.quick { Nanos::from_millis(400) } else { PACED_LEG };
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
            Pace::Every(interval) => (bursts.span().as_nanos() / interval) as usize + 16,
            _ if args.quick => VOLLEY / 10,
            _ => VOLLEY,
        };
        let (waits, priority) = (self.waits, args.priority);
        Leg { program: case.program, waits, pace, bursts, samples_max, batch: 1, priority }
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
    scheduled: u64,
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
            scheduled: 0,
            sent: 0,
            received: 0,
        }
    }

    fn add(&mut self, leg: &Leg, found: &LegFindings) -> Samples {
        let LegFindings { sender, receiver, .. } = found;
        let spans = samples(receiver);
        self.spans.pool(&spans);
        if let Pace::Every(interval) = leg.pace {
            self.scheduled += scheduled(leg, interval);
            let at = Nanos::new(receiver.max_at_ns);
            for (from_schedule, span) in receiver.from_schedule_ns.iter().zip(&receiver.spans_ns) {
                self.from_schedule.record_n(u64::from(*from_schedule), 1, at);
                self.lateness.record_n(u64::from(from_schedule.saturating_sub(*span)), 1, at);
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

/// How many send times the schedule of `leg` has.
fn scheduled(leg: &Leg, interval: i64) -> u64 {
    super::schedule::Ticks::new(leg.bursts, Nanos::ZERO, Nanos::new(interval)).count() as u64
}

/// The spans that one side kept.
pub(super) fn samples(findings: &Findings) -> Samples {
    let mut samples = Samples::new();
    for ns in &findings.spans_ns {
        samples.record_n(u64::from(*ns), 1, Nanos::new(findings.max_at_ns));
    }
    samples
}

/// Runs all conditions that were asked for and adds them to the report.
pub(super) fn measure(args: &PipelineArgs, run: &mut Run) -> Result<(), Failure> {
    let mut crew = match Crew::start(&args.sender_cores, &args.receiver_cores) {
        Ok(crew) => crew,
        Err(Stopped::Interrupted) => return Ok(()),
        Err(Stopped::Failed(failure)) => return Err(failure),
    };
    for condition in conditions(args) {
        if interrupted() {
            break;
        }
        let mut table = Table::new(condition, args);
        let outcome = table.fill(args, &mut crew, run);
        table.report(run);
        match outcome {
            Ok(()) => {}
            Err(Stopped::Interrupted) => break,
            Err(Stopped::Failed(failure)) => return Err(failure),
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
        paces.map(move |(_, ping_pong)| Condition { waits, ping_pong })
    };
    waits.flat_map(|(_, waits)| pace(waits)).collect()
}

/// Everything measured under one condition.
struct Table {
    condition: Condition,
    gathered: Vec<Gathered>,
    open: Comparison,
    signed: Comparison,
    signed_plain: Comparison,
    blocking: Option<Comparison>,
}

impl Table {
    fn new(condition: Condition, args: &PipelineArgs) -> Self {
        let gathered: Vec<_> = condition.cases(args).into_iter().map(Gathered::new).collect();
        let name = |what: &str| format!("{}: {what}", condition.name());
        let base = gathered[BASE].case.name;
        let plain_signed = gathered[PLAIN_SIGNED].case.name;
        let compare = |what: &str, base: &str, subject: &str, limits| {
            Comparison::new(&name(what), base, subject, limits)
        };
        let open = Limits::at_most(OPEN.0, OPEN.1);
        let signed = Limits::at_most(SIGNED, SIGNED);
        Self {
            open: compare("open", base, gathered[OPEN_FUSED].case.name, open),
            signed: compare(
                "signed against bare UDP + one signature + one strict check",
                base,
                gathered[SIGNED_FUSED].case.name,
                signed,
            ),
            signed_plain: compare(
                "signed against a plain program that signs and checks",
                plain_signed,
                gathered[SIGNED_FUSED].case.name,
                Limits::default(),
            ),
            blocking: (condition.waits == Waits::Park).then(|| {
                compare(
                    "open against blocking recv",
                    "bare UDP, blocking recv",
                    gathered[OPEN_FUSED].case.name,
                    Limits::default(),
                )
            }),
            gathered,
            condition,
        }
    }

    /// Measures round after round until every judged side has its samples.
    fn fill(&mut self, args: &PipelineArgs, crew: &mut Crew, run: &mut Run) -> Result<(), Stopped> {
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
        let leg = self.condition.leg(&self.gathered[BASE].case, 0, args);
        let spans = match leg.pace {
            Pace::Every(interval) => scheduled(&leg, interval),
            _ => leg.samples_max as u64,
        };
        (args.samples.div_ceil(spans.max(1)) as usize).max(1)
    }

    fn fewest(&self) -> u64 {
        let judged = self.gathered.iter().filter(|gathered| gathered.case.judged);
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
            if gathered.case.judged || round.is_multiple_of(SHOWN_EVERY) {
                let leg = self.condition.leg(&gathered.case, round, args);
                let found = crew.leg(&leg, run)?;
                spans[at] = Some(gathered.add(&leg, &found));
            }
            bar.inc(1);
        }
        let side = |n: usize| spans.get(n).and_then(Option::as_ref);
        if let (Some(base), Some(again), Some(open), Some(signed)) =
            (side(BASE), side(BASE_AGAIN), side(OPEN_FUSED), side(SIGNED_FUSED))
        {
            self.open.add(base, open, again);
            self.signed.add(base, signed, again);
            if let (Some(plain), Some(plain_again)) = (side(PLAIN_SIGNED), side(PLAIN_SIGNED_AGAIN))
            {
                self.signed_plain.add(plain, signed, plain_again);
            }
            if let (Some(blocking), Some(recv)) = (&mut self.blocking, side(CRYPTO + 1)) {
                blocking.add(recv, open, recv);
            }
        }
        Ok(())
    }

    fn report(&mut self, run: &mut Run) {
        let name = self.condition.name();
        let crypto = &self.gathered[CRYPTO];
        let sum = |q| crypto.signatures.quantile(q) + crypto.spans.quantile(q);
        if crypto.spans.count() > 0 {
            self.signed.add_to_base(Pair { p50: sum(0.5), p99: sum(0.99) });
            run.measured(format!("{name}: one signature"), &crypto.signatures);
            run.measured(format!("{name}: one strict check"), &crypto.spans);
        }
        for gathered in &self.gathered {
            let case = gathered.case.name;
            if matches!(gathered.case.program, Program::Node(..)) && gathered.age.count() > 0 {
                let what = format!("{name}: {case}, to the deliver stage");
                run.measured(what, &gathered.age);
            }
            if !self.condition.ping_pong
                && gathered.case.judged
                && gathered.from_schedule.count() > 0
            {
                run.measured(format!("{name}: {case}, from schedule"), &gathered.from_schedule);
            }
            self.warn(gathered, run);
        }
        run.compared(&self.open);
        run.compared(&self.signed);
        run.compared(&self.signed_plain);
        if let Some(blocking) = &self.blocking {
            run.compared(blocking);
        }
    }

    /// Says where messages were lost or a rate was not achieved.
    fn warn(&self, gathered: &Gathered, run: &mut Run) {
        if gathered.case.program == Program::Crypto {
            return;
        }
        let (name, case) = (self.condition.name(), gathered.case.name);
        let Gathered { scheduled, sent, received, .. } = gathered;
        if !self.condition.ping_pong && sent < scheduled {
            run.note(format!(
                "{name}: {case}: the rate was not achieved: {sent} of {scheduled} messages left"
            ));
        }
        if received < sent {
            run.note(format!("{name}: {case}: {received} of {sent} messages arrived"));
        }
        let late = gathered.lateness.quantile(0.99);
        if !self.condition.ping_pong && late > 500_000.0 {
            let late = super::super::report::span(late);
            run.note(format!("{name}: {case}: the rate was not achieved: p99 left {late} late"));
        }
    }
}
