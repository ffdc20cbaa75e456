//! `sinew bench hop`: what a hand-off costs between two cores, and between every pair of them,
//! spinning and parked, busy and paced.

mod bare;
mod envelopes;
pub(crate) mod matrix;
mod options;
pub(crate) mod paced;
mod pair;
mod ping;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread;
use sinew_rt::topology::{CoreId, Topology};

use super::Length;
use super::report::Run;
use super::stats::{Comparison, Limits, Samples, Side};
use super::worst::Worst;
use crate::exit::{Failure, Outcome};
use envelopes::{
    Carrier, FUSED_BATCH, Handles, STREAM_BATCH, Values, WARM_UP, alone, framed, fused, stream,
};
pub(crate) use options::HopArgs;
use options::Part;
use paced::{Pace, Waiting, messages_of_a_burst, one_way, warm_up};

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
/// By which factor a hop of this bench and one of a bare program of two threads may differ: a bench
/// that reports less than the program sees is as wrong as one that reports more.
const BARE_LIMIT: f64 = 1.10;
/// How long the matrix is measured by itself, in seconds.
const MATRIX_SECONDS: f64 = 20.0;

pub(crate) fn run(args: &HopArgs) -> Outcome {
    // What cannot be measured is said before anything is.
    pair(args)?;
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

/// The two ends of what is not the matrix; `None` when nothing else was asked for.
fn pair(args: &HopArgs) -> Result<Option<Pair>, Failure> {
    if !args.wants_a_pair() {
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
        run.note(format!(
            "envelope: the first {WARM_UP} messages of a round one at a time, {STREAM_BATCH} of a stream \
             and {FUSED_BATCH} on one thread warm up and are not counted"
        ));
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
    let limits = Limits::within_factor(BARE_LIMIT);
    let name =
        "spinning hop as measured here, to a bare program of two threads (half a round trip)";
    let comparison =
        Comparison::new(name, "bare program, rtrb", "sinew ring", limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => bare::ping_pong(run, pair, SPINNING_ROUND),
        Side::Subject => ping::spinning_ring(run, pair, SPINNING_ROUND),
    })?;
    warmed_up(run, "bare", bare::WARM_UP as u64);
    Ok(())
}

/// Says what is not counted: of both sides the same.
fn warmed_up(run: &mut Run, part: &str, round_trips: u64) {
    run.note(format!(
        "{part}: the first {round_trips} round trips of each round warm up and are not counted"
    ));
}

fn spinning(run: &mut Run, pair: &Pair, length: Length) -> Result<(), Failure> {
    let limits = Limits::at_most(RING_LIMIT, RING_LIMIT);
    let name = "spinning hop, 256 B (half a round trip)";
    let comparison = Comparison::new(name, "bare rtrb", "sinew ring", limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => ping::spinning_rtrb(run, pair, SPINNING_ROUND),
        Side::Subject => ping::spinning_ring(run, pair, SPINNING_ROUND),
    })?;
    warmed_up(run, "spin", ping::WARM_UP);
    Ok(())
}

fn parked(run: &mut Run, pair: &Pair, length: Length) -> Result<(), Failure> {
    let limits = Limits::at_most(PARKED_LIMIT, PARKED_LIMIT);
    let name = "parked wake-up between cores (half a round trip)";
    let subject = "ring + doorbell, 256 B";
    let comparison = Comparison::new(name, "bare futex word", subject, limits).of_batches(2);
    compare(run, comparison, length, |run, side| match side {
        Side::Base => ping::parked_futex(run, pair, PARKED_ROUND),
        Side::Subject => ping::parked_ring(run, pair, PARKED_ROUND),
    })?;
    warmed_up(run, "park", ping::WARM_UP);
    Ok(())
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
    let warm_ups = paces.iter().map(|pace| {
        let messages = warm_up(*pace, messages_of_a_burst(*pace));
        format!("{messages} {pace}")
    });
    run.note(format!(
        "paced: the first messages of each burst warm up and are not counted: {}",
        warm_ups.collect::<Vec<_>>().join(", ")
    ));
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
