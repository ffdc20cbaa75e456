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
//!
//! Besides, what is paid less often: the end of an execution that missed its budget, with its cause and
//! evidence, less the end of one that did not; and what a lane pays for its baseline around a sleep,
//! in a hurry (the counters are read at one park in 128) and not (they are read at each).

use std::hint::black_box;
use std::sync::Arc;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{self, Execution, Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::Stage;
use sinew_rt::panel::{Panel, PanelSpec};
use sinew_rt::thread;

use super::report::{Added, Run};
use super::stats::Samples;
use super::{Common, Length};
use crate::exit::{Failure, Outcome};

/// Most that guard and histograms may add to one execution, in ns (median).
const LIMIT_NS: f64 = 35.0;
/// Most that an attributed trip may add to the execution that tripped, in ns (median).
const TRIP_LIMIT_NS: f64 = 3_000.0;
/// Parks in a hurry that are timed together: as many as share one reading of the counters.
const PARKS: u64 = 128;
/// From one park to the next, in a hurry and not.
const HURRIED: Nanos = Nanos::from_micros(30);
const UNHURRIED: Nanos = Nanos::from_millis(1);
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
    /// Measure for so long instead, in seconds
    #[arg(short, long, conflicts_with = "bursts",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
}

pub(crate) fn run(args: &GuardArgs) -> Outcome {
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

/// Measures and adds it to the report.
pub(crate) fn measure(args: &GuardArgs, run: &mut Run) -> Result<(), Failure> {
    let spec = args.common.thread("bench-guard", super::core_or_default(args.core)?)?;
    let panel = Panel::anonymous(&PanelSpec::new("bench-guard")).map_err(Failure::machine)?;
    let mut length = Length::new(args.bursts.into(), args.seconds.map(f64::from));
    let bar = length.progress("guard");
    let ticks = bar.clone();
    let health = Arc::new(Health::new());
    let mut lane = Lane::new(&panel, &health)?;
    let mut rare = Rare::new(&panel)?;
    let worker = thread::spawn(spec, move || {
        let mut turns = Turns::new();
        while length.goes_on(&ticks) {
            turns.burst(&mut lane);
            rare.burst();
            clock::sleep_until(clock::now() + REST);
        }
        (turns, rare)
    });
    let worker = worker.map_err(super::thread_failure)?;
    run.thread(worker.applied());
    let (turns, rare) = worker.join().map_err(Failure::machine)?;
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
    run.measured("end within budget", &rare.kept);
    run.measured("end with a trip", &rare.tripped);
    run.measured("park in a hurry", &rare.hurried);
    run.measured("park with time", &rare.unhurried);
    let (kept, tripped, control) = (&rare.kept, &rare.tripped, &rare.control);
    run.added(Added::limited("an attributed trip", kept, tripped, control, TRIP_LIMIT_NS));
    run.note(format!(
        "a trip is timed from the end of the execution until everything is on the panel; parks are \
         timed without the sleep, those in a hurry in groups of {PARKS}"
    ));
    run.note(format!(
        "per execution, from turns of {EXECUTIONS}: {PASSES} passes over {STAGES} stages; guarded and \
         clocked passes read the clock {} times, unguarded ones once",
        STAGES + 1
    ));
    run.note("before each turn, one pass that is not timed warms up");
    Ok(())
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

/// What is not paid at every execution.
struct Rare {
    keeps: Guard,
    trips: Guard,
    kept: Samples,
    control: Samples,
    tripped: Samples,
    hurried: Samples,
    unhurried: Samples,
    /// When the next park is said to be.
    park_at: Nanos,
}

impl Rare {
    fn new(panel: &Panel) -> Result<Self, Failure> {
        let guard = |name: &str, budget| {
            let hard_limit = Nanos::from_secs(1);
            let spec = GuardSpec { budget, hard_limit, ladder: LadderConfig::report_only() };
            Guard::new(panel.probe(name, None).map_err(Failure::machine)?, spec)
                .map_err(Failure::machine)
        };
        Ok(Self {
            keeps: guard("keeps", Nanos::from_millis(100))?,
            trips: guard("trips", Nanos::new(1))?,
            kept: Samples::new(),
            control: Samples::new(),
            tripped: Samples::new(),
            hurried: Samples::of_batches(PARKS),
            unhurried: Samples::new(),
            park_at: Nanos::ZERO,
        })
    }

    fn burst(&mut self) {
        for _ in 0..TURNS {
            end(&mut self.kept, &mut self.keeps);
            end(&mut self.tripped, &mut self.trips);
            end(&mut self.control, &mut self.keeps);
        }
        for _ in 0..TURNS / 10 {
            self.park_at += UNHURRIED;
            self.park_at = parks(&mut self.hurried, self.park_at, HURRIED, PARKS);
            for _ in 0..10 {
                self.park_at = parks(&mut self.unhurried, self.park_at, UNHURRIED, 1);
            }
        }
    }
}

/// An execution of nothing, which takes more than a nanosecond.
#[inline(never)]
fn end(samples: &mut Samples, guard: &mut Guard) {
    let start = clock::now();
    guard.enter(start);
    let ended = clock::now();
    black_box(guard.exit(ended, Execution::Worked { released: start }));
    let end = clock::now();
    samples.record(end - ended, end);
}

/// Parks as a lane does, each so long after the one before, and gives the instant of the next.
#[inline(never)]
fn parks(samples: &mut Samples, first: Nanos, apart: Nanos, count: u64) -> Nanos {
    let mut at = first;
    let start = clock::now();
    for _ in 0..count {
        guard::before_park(at);
        guard::after_park(at + HURRIED / 2);
        at += apart;
    }
    let end = clock::now();
    samples.record(end - start, end);
    at
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
