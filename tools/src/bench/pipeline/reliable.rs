//! What it costs that a topic is reliable and in order: messages as fast as the sender can publish them,
//! and paced ones, each beside the same on a best-effort queue.
//!
//! `compare/zenoh` reads the names of the comparisons.

use sinew_rt::clock::Nanos;

use super::super::interrupted;
use super::super::length::Length;
use super::super::report::Run;
use super::super::stats::{Comparison, Limit, Limits, Samples, Side};
use super::crew::{Crew, LegFindings};
use super::latency::samples;
use super::mesh::PING;
use super::order::{Findings, Lanes, Leg, Pace, Program, Protection, Waits};
use super::schedule::{Bursts, SPIN_MAX, WARM_UP};
use super::turns::compare;
use super::{Cores, PipelineArgs};
use crate::exit::Failure;

/// How much longer a delivered message may take than on the best-effort path.
const LONGER: f64 = 1.3;
const BEST_EFFORT: &str = "best effort, delivered";
const RELIABLE: &str = "reliable, in order";

/// Deliveries that one span covers: some passes of the lane, each of which takes up to 32 messages.
const BATCH: u64 = 128;
/// Time in which messages leave as fast as they can, in one leg.
const SATURATED_LEG: Nanos = Nanos::from_millis(1_600);
/// A delivery takes about so long at most: so many rounds give every side its samples.
const DELIVERY: Nanos = Nanos::from_micros(3);
/// Spans of one leg, at most.
const SPANS_MAX: usize = 50_000;

/// Time of paced messages in one leg.
const PACED_LEG: Nanos = Nanos::from_millis(1_600);
/// Paced messages on each side, where there is no time instead: enough to show p99.
const PACED_SAMPLES: u64 = 10_000;

/// Measures three parts, each with a third of the time if there is one, and adds them to the report.
pub(super) fn measure(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Failure> {
    let seconds = args.seconds().map(|seconds| seconds / 3.0);
    saturated(args, cores, seconds, run)?;
    for waits in [Waits::Park, Waits::Spin] {
        if !interrupted() {
            paced(args, cores, waits, seconds, run)?;
        }
    }
    run.note(format!(
        "the first {} deliveries of each saturated leg and the first {WARM_UP} messages of each paced \
         leg warm up and are not counted",
        WARM_UP * BATCH
    ));
    Ok(())
}

fn program(side: Side) -> Program {
    match side {
        Side::Base => Program::Node(Lanes::Fused, Protection::Open),
        Side::Subject => Program::Stream(Lanes::Fused, Protection::Open),
    }
}

fn shortened(leg: Nanos, args: &PipelineArgs) -> Nanos {
    if args.quick { leg / 4 } else { leg }
}

/// Both ends spin, and the sender publishes whenever the node takes a message.
fn saturated(
    args: &PipelineArgs,
    cores: &Cores,
    seconds: Option<f64>,
    run: &mut Run,
) -> Result<(), Failure> {
    let limits = Limits { p50: Some(Limit::AtMost(LONGER)), p99: None };
    let name = "spinning, saturated: time per delivered message";
    let comparison = Comparison::new(name, BEST_EFFORT, RELIABLE, limits).of_batches(BATCH);
    let total = shortened(SATURATED_LEG, args);
    let per_leg = total.as_nanos() / DELIVERY.as_nanos() / BATCH as i64;
    let rounds = match args.quick {
        true => 1,
        false => args.samples.div_ceil(per_leg.unsigned_abs().max(1)),
    };
    let mut tally = Tally::default();
    let outcome = compare(
        run,
        "reliable, saturated",
        Length::new(rounds, seconds),
        comparison,
        || Crew::start(&cores.sender, &cores.receiver),
        |crew, run, _, side| {
            let leg = Leg {
                program: program(side),
                waits: Waits::Spin,
                pace: Pace::Saturated,
                bursts: Bursts::spinning(SPIN_MAX, total),
                samples_max: SPANS_MAX,
                warm_up: WARM_UP,
                batch: BATCH,
                stall: None,
                priority: args.priority,
            };
            let found = crew.leg(&leg, run)?;
            tally.add(side, &found);
            Ok(batches(&found.receiver))
        },
    );
    tally.report(run);
    outcome
}

fn batches(found: &Findings) -> Samples {
    let mut samples = Samples::of_batches(BATCH);
    for ns in &found.spans_ns {
        samples.record(Nanos::new((*ns).into()), Nanos::new(found.max_at_ns));
    }
    samples
}

/// One message a period, whatever became of earlier ones.
fn paced(
    args: &PipelineArgs,
    cores: &Cores,
    waits: Waits,
    seconds: Option<f64>,
    run: &mut Run,
) -> Result<(), Failure> {
    let waiting = match waits {
        Waits::Spin => "spinning",
        Waits::Park => "parked",
    };
    let name = format!("{waiting}, paced: one way");
    let comparison = Comparison::new(&name, BEST_EFFORT, RELIABLE, Limits::default());
    let total = shortened(PACED_LEG, args);
    let bursts = match waits {
        Waits::Spin => Bursts::spinning(SPIN_MAX, total),
        Waits::Park => Bursts::single(total),
    };
    let wanted = args.samples.min(PACED_SAMPLES);
    let per_leg = (total.as_nanos() / args.period_ns(0)).max(1);
    let rounds = if args.quick { 1 } else { wanted.div_ceil(per_leg.unsigned_abs()) + 1 };
    let mut unheard = 0;
    let outcome = compare(
        run,
        &format!("reliable, paced, {waiting}"),
        Length::new(rounds, seconds),
        comparison,
        || Crew::start(&cores.sender, &cores.receiver),
        |crew, run, round, side| {
            let period = args.period_ns(round as usize);
            let leg = Leg {
                program: program(side),
                waits,
                pace: Pace::Every(period),
                bursts,
                samples_max: (bursts.span().as_nanos() / period) as usize + 16,
                warm_up: WARM_UP,
                batch: 1,
                stall: None,
                priority: args.priority,
            };
            let found = crew.leg(&leg, run)?;
            if side == Side::Subject {
                unheard += found.sender.sent.saturating_sub(found.receiver.received);
            }
            Ok(samples(&found.receiver))
        },
    );
    let name = format!("{waiting}, paced: {RELIABLE}: messages that did not arrive");
    run.figure(&name, unheard as f64, "", Some(Limit::AtMost(0.0)));
    outcome
}

/// What became of the messages of both sides, by the panels, and how fast they came.
#[derive(Default)]
struct Tally {
    best_effort: Rate,
    reliable: Rate,
    lost: u64,
    sent_by_best_effort: u64,
    resent: u64,
    sent_by_reliable: u64,
    /// Of the stream: numbers in gaps.
    missing: u64,
}

/// Deliveries and the time that they took, pauses of the host included.
#[derive(Default)]
struct Rate {
    delivered: u64,
    ns: u64,
}

impl Rate {
    fn add(&mut self, found: &Findings) {
        self.delivered += found.spans_ns.len() as u64 * BATCH;
        self.ns += found.spans_ns.iter().map(|ns| u64::from(*ns)).sum::<u64>();
    }

    fn per_s(&self) -> f64 {
        self.delivered as f64 * 1e9 / self.ns.max(1) as f64
    }
}

impl Tally {
    fn add(&mut self, side: Side, found: &LegFindings) {
        let LegFindings { sender, receiver, .. } = found;
        let of = |findings: &Findings, what| findings.counter(&format!("{what}/{PING}"));
        let sent = of(sender, "sent").unwrap_or(0);
        match side {
            Side::Base => {
                self.best_effort.add(receiver);
                self.sent_by_best_effort += sent;
                self.lost += sent.saturating_sub(of(receiver, "delivered").unwrap_or(0));
            }
            Side::Subject => {
                self.reliable.add(receiver);
                self.sent_by_reliable += sent;
                self.resent += of(sender, "resent").unwrap_or(0);
                self.missing += of(receiver, "missing").unwrap_or(0);
            }
        }
    }

    fn report(&self, run: &mut Run) {
        let (best_effort, reliable) = (self.best_effort.per_s(), self.reliable.per_s());
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        run.figure("messages delivered, best effort", best_effort, "per second", None);
        run.figure("messages delivered, reliable, in order", reliable, "per second", None);
        let ratio = best_effort / reliable.max(1.0);
        run.figure("ratio of the two, pauses of the host included", ratio, "", None);
        let lost = share(self.lost, self.sent_by_best_effort);
        run.figure("share of the messages lost by best effort", lost, "", None);
        let again = share(self.resent, self.sent_by_reliable);
        run.figure("messages sent again for each one, reliable", again, "", None);
        let missing = self.missing as f64;
        run.figure("messages missing, reliable", missing, "", Some(Limit::AtMost(0.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sender: &[(&str, u64)], receiver: &[(&str, u64)], spans_ns: Vec<u32>) -> LegFindings {
        let counters = |of: &[(&str, u64)]| {
            of.iter().map(|(what, count)| (format!("{what}/{PING}"), *count)).collect()
        };
        LegFindings {
            sender: Findings { counters: counters(sender), ..Findings::default() },
            receiver: Findings { counters: counters(receiver), spans_ns, ..Findings::default() },
            flooder: Findings::default(),
        }
    }

    #[test]
    fn what_best_effort_lost_does_not_count_as_delivered_and_a_gap_of_the_stream_is_missing() {
        let mut tally = Tally::default();
        let spans = vec![1_000, 3_000];
        tally.add(Side::Base, &found(&[("sent", 900)], &[("delivered", 256)], spans));
        let stream = found(&[("sent", 300), ("resent", 3)], &[("missing", 2)], vec![4_000]);
        tally.add(Side::Subject, &stream);
        // Two batches in 4 µs, and one.
        assert_eq!(tally.best_effort.per_s(), 2.0 * BATCH as f64 / 4e-6);
        assert_eq!(tally.reliable.per_s(), BATCH as f64 / 4e-6);
        assert_eq!((tally.lost, tally.resent, tally.missing), (644, 3, 2));
        let mut run = Run::elsewhere();
        tally.report(&mut run);
    }
}
