//! `sinew bench hop`: what a hand-off between two cores costs, spinning and parked, busy and paced.

mod envelopes;
mod paced;
mod pair;
mod ping;

use clap::ValueEnum;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread;

use super::Common;
use super::report::Run;
use super::stats::{Comparison, Limits, Samples, Side};
use crate::exit::{Failure, Outcome};
use envelopes::{
    Carrier, FUSED_BATCH, Handles, STREAM_BATCH, Values, alone, framed, fused, stream,
};
use paced::{Pace, Waiting, one_way};
use pair::Pair;

/// What a hop through our ring may take, as a multiple of bare rtrb.
const RING_LIMIT: f64 = 1.10;
/// What a parked wake-up through ring and doorbell may take, as a multiple of a bare futex.
const PARKED_LIMIT: f64 = 1.15;
/// Round trips of one round, spinning: some 5 ms.
const SPINNING_ROUND: u64 = 5_000;
/// Round trips of one round, parked: some 10 ms.
const PARKED_ROUND: u64 = 1_000;
/// Rounds of parked round trips for each of the others: they are short, so that a disturbance of
/// some 10 ms meets both sides.
const PARKED_ROUNDS: u32 = 3;
const ENVELOPE_ROUND: u64 = 5_000;
const STREAM_ROUND: u64 = 500;
const FUSED_ROUND: u64 = 5_000;
/// How long both cores are left to others after each burst, so that real-time throttling, which
/// counts over whole seconds, stays far away.
const REST: Nanos = Nanos::from_millis(5);
/// The same after the long bursts of paced traffic.
const LONG_REST: Nanos = Nanos::from_millis(400);
/// A robot's millisecond, and two that do not keep step with ticks of 1 ms elsewhere.
const PERIODS: [Nanos; 3] =
    [Nanos::from_micros(1_000), Nanos::from_micros(997), Nanos::from_micros(1_013)];

/// What a hand-off between two cores costs.
///
/// Spinning through our ring beside bare rtrb; parked with ring and doorbell beside a bare futex;
/// one way in both directions, back-to-back and paced; slot handles beside envelopes by value.
/// Both cores are taken in bursts of less than 0.6 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench hop                            everything, between cores 0 and 1, about 1 minute
  sinew bench hop --part spin,park           only what is judged
  sinew bench hop --rounds 4 --json -        a first look, for a script")]
pub(crate) struct HopArgs {
    #[command(flatten)]
    common: Common,
    /// The core of the end that measures
    #[arg(long, default_value_t = 0)]
    near: u16,
    /// The core of the other end
    #[arg(long, default_value_t = 1)]
    far: u16,
    /// Rounds of each side; 40 and more are judged
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..10_000))]
    rounds: u32,
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Spinning: our ring and bare rtrb
    Spin,
    /// Parked: ring and doorbell, and a bare futex
    Park,
    /// One way, in both directions, back-to-back and paced
    Paced,
    /// Slot handles and envelopes by value
    Envelope,
}

impl HopArgs {
    fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }
}

pub(crate) fn run(args: &HopArgs) -> Outcome {
    if args.near == args.far {
        return Err(Failure::usage(format!(
            "--near and --far are both core {}; a hop takes two cores",
            args.near
        )));
    }
    let mut run = Run::start(&args.common.output)?;
    let pair = Pair {
        near: args.common.thread("bench-near", args.near)?,
        far: args.common.thread("bench-far", args.far)?,
    };
    if args.wants(Part::Spin) {
        spinning(&mut run, &pair, args.rounds)?;
    }
    if args.wants(Part::Park) {
        parked(&mut run, &pair, args.rounds)?;
    }
    if args.wants(Part::Paced) {
        paced(&mut run, &pair, args.rounds.div_ceil(8))?;
    }
    if args.wants(Part::Envelope) {
        envelope::<{ framed(128) }>(&mut run, &pair, args.rounds, 128)?;
        envelope::<{ framed(256) }>(&mut run, &pair, args.rounds, 256)?;
        envelope::<{ framed(1_024) }>(&mut run, &pair, args.rounds, 1_024)?;
    }
    run.finish(&args.common.output)
}

/// Alternates the two sides for `rounds` rounds, or until Ctrl-C.
fn compare(
    run: &mut Run,
    mut comparison: Comparison,
    rounds: u32,
    mut measure: impl FnMut(&mut Run, Side) -> Result<Samples, Failure>,
) -> Result<(), Failure> {
    let bar = super::progress(comparison.name(), u64::from(rounds));
    for _ in 0..rounds {
        if super::interrupted() {
            break;
        }
        comparison.round(|side| {
            let samples = measure(run, side);
            clock::sleep_until(clock::now() + REST);
            samples
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    run.compared(&comparison);
    Ok(())
}

fn spinning(run: &mut Run, pair: &Pair, rounds: u32) -> Result<(), Failure> {
    let limits = Limits::at_most(RING_LIMIT, RING_LIMIT);
    let name = "spinning hop, 256 B (half a round trip)";
    let comparison = Comparison::new(name, "bare rtrb", "sinew ring", limits).of_batches(2);
    compare(run, comparison, rounds, |run, side| match side {
        Side::Base => ping::spinning_rtrb(run, pair, SPINNING_ROUND),
        Side::Subject => ping::spinning_ring(run, pair, SPINNING_ROUND),
    })
}

fn parked(run: &mut Run, pair: &Pair, rounds: u32) -> Result<(), Failure> {
    let limits = Limits::at_most(PARKED_LIMIT, PARKED_LIMIT);
    let name = "parked wake-up between cores (half a round trip)";
    let subject = "ring + doorbell, 256 B";
    let comparison = Comparison::new(name, "bare futex word", subject, limits).of_batches(2);
    compare(run, comparison, rounds * PARKED_ROUNDS, |run, side| match side {
        Side::Base => ping::parked_futex(run, pair, PARKED_ROUND),
        Side::Subject => ping::parked_ring(run, pair, PARKED_ROUND),
    })
}

/// Shown, not judged: how far busy and paced traffic are apart.
fn paced(run: &mut Run, pair: &Pair, bursts: u32) -> Result<(), Failure> {
    let paces = [Pace::BackToBack].into_iter().chain(PERIODS.map(Pace::Every));
    let ways = [(pair.clone(), "→"), (pair.reversed(), "←")];
    let kinds = [(Waiting::Spinning, "spinning"), (Waiting::Parked, "parked")];
    let runs: Vec<_> = kinds
        .into_iter()
        .flat_map(|kind| ways.iter().map(move |way| (kind, way)))
        .flat_map(|(kind, way)| paces.clone().map(move |pace| (kind, way, pace)))
        // The next message would be there before the receiver sleeps: that is no wake-up.
        .filter(|((waiting, _), _, pace)| (*waiting, *pace) != (Waiting::Parked, Pace::BackToBack))
        .collect();
    let bar = super::progress("one way", runs.len() as u64 * u64::from(bursts));
    let mut pooled: Vec<Samples> = runs.iter().map(|_| Samples::new()).collect();
    // Rounds on the outside: what drifts meets every kind alike.
    for _ in 0..bursts {
        for ((kind, (pair, _), pace), pooled) in runs.iter().zip(&mut pooled) {
            if super::interrupted() {
                break;
            }
            pooled.pool(&one_way(run, pair, *pace, kind.0)?);
            bar.inc(1);
            rest(*pace);
        }
    }
    bar.finish_and_clear();
    for (((_, kind), (_, arrow), pace), samples) in runs.iter().zip(&pooled) {
        run.measured(format!("{kind}, near {arrow} far, {pace}"), samples);
    }
    Ok(())
}

fn rest(pace: Pace) {
    let rest = if pace == Pace::BackToBack { REST } else { LONG_REST };
    clock::sleep_until(clock::now() + rest);
}

/// Shown, not judged: the decision is for people, and in `docs/decisions`.
fn envelope<const N: usize>(
    run: &mut Run,
    pair: &Pair,
    rounds: u32,
    payload: usize,
) -> Result<(), Failure> {
    let comparison = |what: &str| {
        let name = format!("{payload} B payload, {what}: write, hop, read, free");
        Comparison::new(&name, "slot handles", "by value", Limits::default())
    };
    compare(run, comparison("two cores, one at a time"), rounds, |run, side| match side {
        Side::Base => alone::<Handles<N>, N>(run, pair, ENVELOPE_ROUND),
        Side::Subject => alone::<Values<N>, N>(run, pair, ENVELOPE_ROUND),
    })?;
    let streamed = comparison("two cores, a stream").of_batches(STREAM_BATCH);
    compare(run, streamed, rounds, |run, side| match side {
        Side::Base => stream::<Handles<N>, N>(run, pair, STREAM_ROUND),
        Side::Subject => stream::<Values<N>, N>(run, pair, STREAM_ROUND),
    })?;
    let together = comparison("one thread").of_batches(FUSED_BATCH);
    compare(run, together, rounds, |run, side| match side {
        Side::Base => on_one_thread::<Handles<N>, N>(run, pair),
        Side::Subject => on_one_thread::<Values<N>, N>(run, pair),
    })
}

fn on_one_thread<C: Carrier, const N: usize>(
    run: &mut Run,
    pair: &Pair,
) -> Result<Samples, Failure> {
    let thread = thread::spawn(pair.far.clone(), || fused::<C, N>(FUSED_ROUND));
    let thread = thread.map_err(super::thread_failure)?;
    run.thread(thread.applied());
    thread.join().map_err(Failure::machine)
}
