//! `sinew bench guard`: what the guard and its histograms add to the execution of a stage.
//!
//! The same four stages, the same way a lane calls them, in turns of some microseconds each:
//!
//! - *untimed*: polled one after the other with a time that never changes;
//! - *unguarded*: as a lane without guards would do it, which reads the clock once a pass, because
//!   stages are told the time;
//! - *clocked*: with a clock read at each boundary, five for four stages;
//! - *guarded*: clock reads and guards, as lanes run stages, panel writes included.
//!
//! Guarded less unguarded is what a lane pays for a budget on every execution: one clock read and
//! the guard. That is judged. Guarded less clocked is the guard itself. The turns alternate, so what
//! the machine does meets all of them alike, and a second set of unguarded turns shows by how much
//! equals differ.

use std::hint::black_box;
use std::sync::Arc;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::Stage;
use sinew_rt::panel::{Panel, PanelSpec};
use sinew_rt::thread;

use super::Common;
use super::report::{Added, Run};
use super::stats::Samples;
use crate::exit::{Failure, Outcome};

/// Most that guard and histograms may add to one execution, in ns (median).
const LIMIT_NS: f64 = 35.0;
/// Stages of a fused lane.
const STAGES: usize = 4;
/// Passes over the stages in one turn: a turn of some 10 µs is hardly ever interrupted, and its two
/// clock reads are a tenth of a nanosecond per execution.
const PASSES: usize = 64;
const EXECUTIONS: u64 = (STAGES * PASSES) as u64;
/// Turns of each kind in one burst on the core; about 0.05 s, so that real-time throttling, which
/// begins at 0.95 s, never bites.
const TURNS: usize = 2_000;
/// How long the core is left to others between bursts.
const REST: Nanos = Nanos::from_millis(50);

/// What guard and histograms add to the execution of a stage.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench guard                     60 bursts, 120,000 turns of each kind, about 7 s")]
pub(crate) struct GuardArgs {
    #[command(flatten)]
    common: Common,
    /// The core to measure on, by default the first real-time core
    #[arg(long)]
    core: Option<u16>,
    /// Bursts of 2,000 turns of each kind; 50 and more are judged
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..10_000))]
    bursts: u32,
}

pub(crate) fn run(args: &GuardArgs) -> Outcome {
    let mut run = Run::start(&args.common.output)?;
    let spec = args.common.thread("bench-guard", super::core_or_default(args.core)?)?;
    let panel = Panel::anonymous(&PanelSpec::new("bench-guard")).map_err(Failure::machine)?;
    let bursts = u64::from(args.bursts);
    let bar = super::progress("guard", bursts);
    let ticks = bar.clone();
    let health = Arc::new(Health::new());
    let mut lane = Lane::new(&panel, &health)?;
    let worker = thread::spawn(spec, move || {
        let mut turns = Turns::new();
        for _ in 0..bursts {
            if super::interrupted() {
                break;
            }
            turns.burst(&mut lane);
            ticks.inc(1);
            clock::sleep_until(clock::now() + REST);
        }
        turns
    });
    let worker = worker.map_err(super::thread_failure)?;
    run.thread(worker.applied());
    let turns = worker.join().map_err(Failure::machine)?;
    bar.finish_and_clear();
    let Turns { untimed, unguarded, control, clocked, guarded } = &turns;
    run.measured("untimed", untimed);
    run.measured("unguarded", unguarded);
    run.measured("unguarded again", control);
    run.measured("clocked", clocked);
    run.measured("guarded", guarded);
    let name = "guard, histograms and their clock read";
    run.added(Added::limited(name, unguarded, guarded, control, LIMIT_NS));
    run.added(Added::shown("guard and histograms alone", clocked, guarded));
    run.added(Added::shown("with the clock read of the lane itself", untimed, guarded));
    run.note(format!(
        "per execution, from turns of {EXECUTIONS}: {PASSES} passes over {STAGES} stages; guarded and \
         clocked passes read the clock {} times, unguarded ones once",
        STAGES + 1
    ));
    run.finish(&args.common.output)
}

/// The least that a stage can do: the cost of the guard does not hide behind the work.
struct Smallest(u64);

impl Stage for Smallest {
    fn poll(&mut self, now: Nanos) -> Execution {
        self.0 = black_box(self.0.wrapping_add(1));
        Execution::Worked { released: now }
    }
}

struct Seat {
    stage: Box<dyn Stage>,
    guard: Guard,
}

struct Lane(Vec<Seat>);

impl Lane {
    fn new(panel: &Panel, health: &Arc<Health>) -> Result<Self, Failure> {
        let spec = GuardSpec {
            budget: Nanos::from_millis(100),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::standard(),
        };
        let seat = |n: usize| {
            let probe = panel.probe(&format!("stage {n}"), None).map_err(Failure::machine)?;
            let guard = Guard::new(probe, spec).map_err(Failure::machine)?;
            Ok(Seat { stage: Box::new(Smallest(0)), guard: guard.with_health(health.clone()) })
        };
        (0..STAGES).map(seat).collect::<Result<_, _>>().map(Self)
    }

    #[inline(never)]
    fn untimed(&mut self) -> bool {
        let mut worked = false;
        for seat in &mut self.0 {
            worked |= seat.stage.poll(Nanos::ZERO) != Execution::Idle;
        }
        worked
    }

    #[inline(never)]
    fn unguarded(&mut self) -> bool {
        let mut worked = false;
        let now = clock::now();
        for seat in &mut self.0 {
            worked |= seat.stage.poll(now) != Execution::Idle;
        }
        worked
    }

    #[inline(never)]
    fn clocked(&mut self) -> bool {
        let mut worked = false;
        let mut now = clock::now();
        for seat in &mut self.0 {
            let execution = seat.stage.poll(now);
            now = clock::now();
            worked |= execution != Execution::Idle;
        }
        black_box(now);
        worked
    }

    /// As `sinew_rt::lane` does it.
    #[inline(never)]
    fn guarded(&mut self) -> bool {
        let mut worked = false;
        let mut now = clock::now();
        for seat in &mut self.0 {
            seat.guard.enter(now);
            let execution = seat.stage.poll(now);
            now = clock::now();
            seat.guard.leave(now, execution);
            worked |= execution != Execution::Idle;
        }
        for seat in &mut self.0 {
            seat.guard.settle();
        }
        worked
    }
}

struct Turns {
    untimed: Samples,
    unguarded: Samples,
    control: Samples,
    clocked: Samples,
    guarded: Samples,
}

impl Turns {
    fn new() -> Self {
        let samples = || Samples::of_batches(EXECUTIONS);
        Self {
            untimed: samples(),
            unguarded: samples(),
            control: samples(),
            clocked: samples(),
            guarded: samples(),
        }
    }

    fn burst(&mut self, lane: &mut Lane) {
        for _ in 0..TURNS {
            turn(&mut self.unguarded, || lane.unguarded());
            turn(&mut self.guarded, || lane.guarded());
            turn(&mut self.control, || lane.unguarded());
            turn(&mut self.clocked, || lane.clocked());
            turn(&mut self.untimed, || lane.untimed());
        }
    }
}

#[inline]
fn turn(samples: &mut Samples, mut pass: impl FnMut() -> bool) {
    // Once untimed: the turn before left other code and data in the caches.
    black_box(pass());
    let start = clock::now();
    for _ in 0..PASSES {
        black_box(pass());
    }
    let end = clock::now();
    samples.record(end - start, end);
}
