//! Signatures checked per second on one lane, against a bare loop that does nothing else.
//!
//! The sender signs and sends somewhat faster than the bare loop checks: the receiving lane always has
//! work, and what it cannot take is lost before it. A flood is another measurement. Beside the bare loop
//! the other core signs as many messages, so that the two cores are equally busy on both sides.

use sinew_rt::clock::Nanos;

use super::super::length::Length;
use super::super::report::Run;
use super::super::stats::{Comparison, Limit, Limits, Samples, Side};
use super::crew::Crew;
use super::order::{Findings, Lanes, Leg, Pace, Program, Protection, Waits};
use super::schedule::{Bursts, SPIN_MAX, WARM_UP};
use super::turns::compare;
use super::{Cores, PipelineArgs};
use crate::exit::Failure;

/// How much of the bare loop's throughput the lane must have.
const SHARE: f64 = 0.92;
/// How much faster messages come than the bare loop checks signatures.
const OFFERED: f64 = 1.15;
/// From one message to the next before a loop was measured: faster than any core here checks.
const FIRST_INTERVAL: Nanos = Nanos::from_micros(25);
/// Checks that one span covers: enough for every kind of pass of the lane to be in it.
const BATCH: u64 = 8;
/// Time of measurement in one leg.
const LEG: Nanos = Nanos::from_millis(1_600);

/// Measures loop, lane and loop again, round after round, and adds them to the report.
pub(super) fn measure(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Failure> {
    let loop_name = "bare verify_strict loop";
    // A throughput of at least so much is a time per check of at most so much more.
    let limits = Limits { p50: Some(Limit::AtMost(1.0 / SHARE)), p99: None };
    let name = "time per signed message on one verify lane (fused)";
    let comparison =
        Comparison::new(name, loop_name, "signed messages, delivered", limits).of_batches(BATCH);
    let total = if args.quick { LEG / 4 } else { LEG };
    // A check takes about 50 µs: so many rounds give every side its samples.
    let per_leg = total.as_nanos() / 50_000 / BATCH as i64;
    let rounds = if args.quick { 1 } else { args.samples.div_ceil(per_leg.unsigned_abs().max(1)) };
    let start = || Crew::start(&cores.sender, &cores.receiver);
    let mut rates = Rates::default();
    let outcome = compare(
        run,
        "signed throughput",
        Length::new(rounds, args.seconds()),
        comparison,
        start,
        |crew, run, _, side| {
            let leg = Leg {
                program: match side {
                    Side::Base => Program::VerifyLoop,
                    Side::Subject => Program::Node(Lanes::Fused, Protection::Signed),
                },
                waits: Waits::Spin,
                pace: Pace::Every(rates.interval().as_nanos()),
                bursts: Bursts::spinning(SPIN_MAX, total),
                // No check takes less than 10 µs.
                samples_max: (total.as_nanos() / 10_000) as usize,
                warm_up: WARM_UP,
                batch: BATCH,
                stall: None,
                priority: args.priority,
            };
            let found = crew.leg(&leg, run)?;
            rates.add(side == Side::Subject, &found.receiver, &leg);
            Ok(batches(&found.receiver))
        },
    );
    rates.report(run);
    run.note(format!(
        "the first {} checks of each leg warm up and are not counted",
        WARM_UP * BATCH
    ));
    outcome
}

fn batches(found: &Findings) -> Samples {
    let mut samples = Samples::of_batches(BATCH);
    for ns in &found.spans_ns {
        samples.record(Nanos::new((*ns).into()), Nanos::new(found.max_at_ns));
    }
    samples
}

/// Checks and the time that they took, pauses of the host included.
#[derive(Default)]
struct Rates {
    lane: (u64, u64),
    bare: (u64, u64),
    dropped: u64,
}

impl Rates {
    fn add(&mut self, is_lane: bool, found: &Findings, leg: &Leg) {
        let side = if is_lane { &mut self.lane } else { &mut self.bare };
        side.0 += found.spans_ns.len() as u64 * leg.batch;
        side.1 += found.spans_ns.iter().map(|ns| u64::from(*ns)).sum::<u64>();
        if is_lane {
            self.dropped += found.counted("receive.drop.") + found.counted("verify.drop.");
        }
    }

    /// From one offered message to the next.
    fn interval(&self) -> Nanos {
        match self.bare {
            (0, _) => FIRST_INTERVAL,
            (checks, ns) => Nanos::new((ns as f64 / checks as f64 / OFFERED) as i64),
        }
    }

    /// The rates over everything, pauses of the host included.
    fn report(&self, run: &mut Run) {
        let rate = |(count, ns): (u64, u64)| count as f64 * 1e9 / ns.max(1) as f64;
        let (lane, bare) = (rate(self.lane), rate(self.bare));
        run.figure("signed messages verified and delivered by one lane", lane, "per second", None);
        run.figure("strict checks by a bare loop", bare, "per second", None);
        run.figure("ratio of the two, pauses of the host included", lane / bare.max(1.0), "", None);
        run.figure("frames dropped by the lane for want of time", self.dropped as f64, "", None);
    }
}
