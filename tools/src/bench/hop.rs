//! `sinew bench hop`: what a hand-off costs between two cores, and between every pair of them,
//! spinning and parked, busy and paced.

mod bare;
mod envelopes;
pub(crate) mod matrix;
pub(crate) mod paced;
mod pair;
mod ping;

use std::str::FromStr;

use clap::ValueEnum;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread;
use sinew_rt::topology::{CoreId, CoreList, Topology};

use super::load::LoadArgs;
use super::report::Run;
use super::stats::{Comparison, Limits, Samples, Side};
use super::worst::Worst;
use super::{Common, Length};
use crate::exit::{Failure, Outcome};
use envelopes::{
    Carrier, FUSED_BATCH, Handles, STREAM_BATCH, Values, alone, framed, fused, stream,
};
use paced::{Pace, Waiting, messages_of_a_burst, one_way};

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
/// What a hop of this bench may take, as a multiple of a bare program of two threads.
const BARE_LIMIT: f64 = 1.10;
/// How long the matrix is measured by itself, in seconds.
const MATRIX_SECONDS: f64 = 20.0;

/// What a hand-off between two cores costs.
///
/// From every core to every other one, spinning and parked, back-to-back and paced. Between two of
/// them also: spinning through our ring beside bare rtrb and beside a bare program; parked with ring
/// and doorbell beside a bare futex; one way in both directions at several paces; slot handles beside
/// envelopes by value. Both cores are taken in bursts of less than 0.6 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench hop                            everything, about 2 minutes
  sinew bench hop --part matrix              every pair of cores, 20 seconds
  sinew bench hop --part matrix --cores 2-5 --rate-hz 500 --seconds 60
  sinew bench hop --part bare                the same as a bare program of two threads, judged
  sinew bench hop --part spin,park           ring and doorbell, judged
  sinew bench hop --rounds 4 --json -        a first look, for a script")]
pub(crate) struct HopArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: LoadArgs,
    /// The core of the end that measures, by default the second real-time core or else another one
    #[arg(long)]
    near: Option<u16>,
    /// The core of the other end, by default the first real-time core
    #[arg(long)]
    far: Option<u16>,
    /// Cores of the matrix: 0-3,6 [default: all that may be used]
    #[arg(long, value_parser = CoreList::from_str)]
    cores: Option<CoreList>,
    /// Rounds of each side, for all but the matrix; 40 and more are judged
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..10_000))]
    rounds: u32,
    /// Measure for so long instead, in seconds, shared by all parts
    #[arg(short, long, conflicts_with = "rounds", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// From one paced message to the next, in µs, used in turn: a period of exactly 1,000 µs alone
    /// would keep step with ticks of 1 ms elsewhere
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 997, 1_013],
          value_parser = clap::value_parser!(u32).range(100..=10_000))]
    paced_us: Vec<u32>,
    /// Paced messages per second, instead of --paced-us
    #[arg(long, conflicts_with = "paced_us", value_parser = clap::value_parser!(u32).range(100..=10_000))]
    rate_hz: Option<u32>,
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every pair of cores
    Matrix,
    /// Spinning: our ring as measured here, and a bare program of two threads
    Bare,
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

    /// Refuses options that would do nothing.
    fn check(&self) -> Result<(), Failure> {
        if self.cores.is_some() && !self.wants(Part::Matrix) {
            return Err(Failure::usage("--cores are those of the matrix; add `matrix` to --part"));
        }
        if self.part == [Part::Matrix] && (self.near.is_some() || self.far.is_some()) {
            return Err(Failure::usage(
                "--near and --far are for the other parts; the matrix has --cores",
            ));
        }
        Ok(())
    }

    /// From one paced message to the next, in turn.
    fn paces(&self) -> Vec<Nanos> {
        match self.rate_hz {
            Some(rate) => vec![Nanos::new(1_000_000_000 / i64::from(rate))],
            None => self.paced_us.iter().map(|us| Nanos::from_micros((*us).into())).collect(),
        }
    }

    /// How many comparisons and groups of them share the time.
    fn parts(&self) -> u32 {
        let parts = [
            (Part::Matrix, 1),
            (Part::Bare, 1),
            (Part::Spin, 1),
            (Part::Park, 1),
            (Part::Paced, 1),
            (Part::Envelope, 9),
        ];
        parts.iter().filter(|(part, _)| self.wants(*part)).map(|(_, comparisons)| comparisons).sum()
    }

    /// How long one of them is measured, if it would by itself have `rounds` rounds.
    fn length(&self, rounds: u32) -> Length {
        Length::new(
            rounds.into(),
            self.seconds.map(|seconds| f64::from(seconds) / f64::from(self.parts())),
        )
    }
}

pub(crate) fn run(args: &HopArgs) -> Outcome {
    // What cannot be measured is said before anything is.
    args.check()?;
    pair(args)?;
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

/// The two ends of what is not the matrix; `None` when nothing else was asked for.
fn pair(args: &HopArgs) -> Result<Option<Pair>, Failure> {
    if args.part == [Part::Matrix] {
        return Ok(None);
    }
    let topology = Topology::read().map_err(Failure::machine)?;
    let (near, far) = ends(args.near, args.far, &super::measuring_cores(&topology))?;
    let thread = |name, core| args.common.thread(name, core);
    Ok(Some(Pair { near: thread("bench-near", near)?, far: thread("bench-far", far)? }))
}

/// Measures what was asked for and adds it to the report.
pub(crate) fn measure(args: &HopArgs, run: &mut Run) -> Result<(), Failure> {
    args.load.loaded(run, |run| measure_parts(args, run))
}

fn measure_parts(args: &HopArgs, run: &mut Run) -> Result<(), Failure> {
    if args.wants(Part::Matrix) {
        let seconds = args.length(args.rounds).seconds().unwrap_or(MATRIX_SECONDS);
        matrix::measure(args, seconds, run)?;
    }
    let Some(pair) = pair(args)? else { return Ok(()) };
    let length = || args.length(args.rounds);
    if args.wants(Part::Bare) {
        bare(run, &pair, length())?;
    }
    if args.wants(Part::Spin) {
        spinning(run, &pair, length())?;
    }
    if args.wants(Part::Park) {
        parked(run, &pair, args.length(args.rounds * PARKED_ROUNDS))?;
    }
    if args.wants(Part::Paced) {
        paced(run, &pair, &args.paces(), args.length(args.rounds.div_ceil(8)))?;
    }
    if args.wants(Part::Envelope) {
        envelope::<{ framed(128) }>(run, &pair, &length, 128)?;
        envelope::<{ framed(256) }>(run, &pair, &length, 256)?;
        envelope::<{ framed(1_024) }>(run, &pair, &length, 1_024)?;
    }
    Ok(())
}

/// The two ends' cores: those that were asked for, and for the others the best of `cores`.
fn ends(near: Option<u16>, far: Option<u16>, cores: &[CoreId]) -> Result<(u16, u16), Failure> {
    let best_but = |taken: Option<u16>| {
        let mut free = cores.iter().map(|core| core.get()).filter(|core| Some(*core) != taken);
        free.next().ok_or_else(|| {
            Failure::machine(format!(
                "a hop takes two cores, and this process may use only {}",
                taken.map_or("none".to_owned(), |core| format!("core {core}"))
            ))
        })
    };
    let far = far.map_or_else(|| best_but(near), Ok)?;
    let near = near.map_or_else(|| best_but(Some(far)), Ok)?;
    if near == far {
        return Err(Failure::usage(format!(
            "--near and --far are both core {near}; a hop takes two cores"
        )));
    }
    Ok((near, far))
}

/// Alternates the two sides for as long as `length` says, or until Ctrl-C.
fn compare(
    run: &mut Run,
    mut comparison: Comparison,
    mut length: Length,
    mut measure: impl FnMut(&mut Run, Side) -> Result<Samples, Failure>,
) -> Result<(), Failure> {
    let bar = length.progress(comparison.name());
    while length.goes_on(&bar) {
        comparison.round(|side| {
            let samples = measure(run, side);
            clock::sleep_until(clock::now() + REST);
            samples
        })?;
    }
    bar.finish_and_clear();
    run.compared(&comparison);
    Ok(())
}

/// Whether the harness adds anything of its own: what it says of a hop beside a program that has
/// nothing but the hop.
fn bare(run: &mut Run, pair: &Pair, length: Length) -> Result<(), Failure> {
    let limits = Limits::at_most(BARE_LIMIT, BARE_LIMIT);
    let name =
        "spinning hop as measured here, to a bare program of two threads (half a round trip)";
    let comparison =
        Comparison::new(name, "bare program, rtrb", "sinew ring", limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => bare::ping_pong(run, pair, SPINNING_ROUND),
        Side::Subject => ping::spinning_ring(run, pair, SPINNING_ROUND),
    })
}

fn spinning(run: &mut Run, pair: &Pair, length: Length) -> Result<(), Failure> {
    let limits = Limits::at_most(RING_LIMIT, RING_LIMIT);
    let name = "spinning hop, 256 B (half a round trip)";
    let comparison = Comparison::new(name, "bare rtrb", "sinew ring", limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => ping::spinning_rtrb(run, pair, SPINNING_ROUND),
        Side::Subject => ping::spinning_ring(run, pair, SPINNING_ROUND),
    })
}

fn parked(run: &mut Run, pair: &Pair, length: Length) -> Result<(), Failure> {
    let limits = Limits::at_most(PARKED_LIMIT, PARKED_LIMIT);
    let name = "parked wake-up between cores (half a round trip)";
    let subject = "ring + doorbell, 256 B";
    let comparison = Comparison::new(name, "bare futex word", subject, limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => ping::parked_futex(run, pair, PARKED_ROUND),
        Side::Subject => ping::parked_ring(run, pair, PARKED_ROUND),
    })
}

/// Shown, not judged: how far busy and paced traffic are apart.
fn paced(run: &mut Run, pair: &Pair, periods: &[Nanos], mut length: Length) -> Result<(), Failure> {
    let periods = periods.iter().copied().map(Pace::Every);
    let paces: Vec<_> = [Pace::BackToBack].into_iter().chain(periods).collect();
    let ways = [(pair.clone(), "→"), (pair.reversed(), "←")];
    let kinds = [(Waiting::Spinning, "spinning"), (Waiting::Parked, "parked")];
    let runs: Vec<_> = kinds
        .into_iter()
        .flat_map(|kind| ways.iter().map(move |way| (kind, way)))
        .flat_map(|(kind, way)| paces.iter().map(move |pace| (kind, way, *pace)))
        // The next message would be there before the receiver sleeps: that is no wake-up.
        .filter(|((waiting, _), _, pace)| (*waiting, *pace) != (Waiting::Parked, Pace::BackToBack))
        .collect();
    let bar = length.progress("one way");
    let mut pooled: Vec<Samples> = runs.iter().map(|_| Samples::new()).collect();
    let mut worst = Worst::new();
    // Rounds on the outside: what drifts meets every kind alike.
    while length.goes_on(&bar) {
        for (n, (((waiting, _), (pair, _), pace), pooled)) in
            runs.iter().zip(&mut pooled).enumerate()
        {
            if super::interrupted() {
                break;
            }
            let found = one_way(pair, *pace, *waiting, messages_of_a_burst(*pace))?;
            found.applied.iter().for_each(|applied| run.thread(applied));
            pooled.pool(&found.samples);
            worst.pool(&found.worst, n);
            rest(*pace);
        }
    }
    bar.finish_and_clear();
    let name = |n: usize| {
        let ((_, kind), (_, arrow), pace) = &runs[n];
        format!("{kind}, near {arrow} far, {pace}")
    };
    for (n, samples) in pooled.iter().enumerate() {
        run.measured(name(n), samples);
    }
    worst.report(run, name);
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
    length: &impl Fn() -> Length,
    payload: usize,
) -> Result<(), Failure> {
    let comparison = |what: &str| {
        let name = format!("{payload} B payload, {what}: write, hop, read, free");
        Comparison::new(&name, "slot handles", "by value", Limits::default())
    };
    compare(run, comparison("two cores, one at a time"), length(), |run, side| match side {
        Side::Base => alone::<Handles<N>, N>(run, pair, ENVELOPE_ROUND),
        Side::Subject => alone::<Values<N>, N>(run, pair, ENVELOPE_ROUND),
    })?;
    let streamed = comparison("two cores, a stream").of_batches(STREAM_BATCH);
    compare(run, streamed, length(), |run, side| match side {
        Side::Base => stream::<Handles<N>, N>(run, pair, STREAM_ROUND),
        Side::Subject => stream::<Values<N>, N>(run, pair, STREAM_ROUND),
    })?;
    let together = comparison("one thread").of_batches(FUSED_BATCH);
    compare(run, together, length(), |run, side| match side {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_the_best_two_cores_unless_somebody_says_otherwise() {
        let cores = |numbers: &[u16]| numbers.iter().map(|n| CoreId::new(*n)).collect::<Vec<_>>();
        let three = cores(&[2, 5, 0]);
        let good = |near, far| ends(near, far, &three).unwrap();
        assert_eq!(good(None, None), (5, 2));
        assert_eq!(good(Some(2), None), (2, 5));
        assert_eq!(good(None, Some(5)), (2, 5));
        assert_eq!(good(Some(7), Some(8)), (7, 8), "the thread's start knows which cores exist");
        let same = ends(Some(2), Some(2), &three).unwrap_err();
        assert_eq!(same.exit, crate::exit::Exit::Usage);
        let single = ends(None, None, &cores(&[3])).unwrap_err();
        assert_eq!(single.exit, crate::exit::Exit::Machine);
        assert!(single.message.contains("two cores") && single.message.contains("only core 3"));
    }
}
