//! `sinew bench wake`: cyclictest's measurement, from the release of a periodic loop to its running.
//!
//! What is measured is a [`ControlLoop`] with a body that only counts: the wait is the one that
//! robots use, and the figures are the lateness that the loop tells its body and its panel. Instants are
//! absolute and a whole number of periods apart; what was missed is skipped and counted, as
//! cyclictest does it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use sinew_control::control_loop::{
    ControlLoop, Cycle, LoopBody, LoopError, RATE_MAX_HZ, Report, Wake,
};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{HistogramSnapshot, Kind, Panel, PanelSpec};
use sinew_rt::thread::{Policy, ThreadSpec};

use super::Common;
use super::evidence::Keeps;
use super::load::LoadArgs;
use super::report::{Run, ThreadReport};
use super::stats::Samples;
use super::worst::{Watcher, Worst};
use crate::exit::{Failure, Outcome};
use crate::output;

const NAME: &str = "bench-wake";
/// Above this rate the causes of late wake-ups are not looked for: looking takes some microseconds
/// of each period.
const WATCHED_MAX_HZ: u32 = 5_000;
/// A rate counts as achieved from this share of the wake-ups on.
const ACHIEVED: f64 = 0.999;
/// How often the progress bar moves, and Ctrl-C is looked at.
const LOOK: Nanos = Nanos::from_millis(100);

/// How late a periodic loop wakes up: cyclictest's measurement, on the loop that robots use.
///
/// scripts/compare-wake runs it in turn with cyclictest and judges the ratio.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench wake                                10,000 wake-ups at 1 kHz, plain sleep
  sinew bench wake --core 1 --spin-us 100         on core 1; sleep until 100 µs before, then spin
  sinew bench wake --interval-us 997 --json -     out of step with ticks of 1 ms
  sinew bench wake --rate-hz 500 --seconds 60     a loop of 500 Hz, for a minute
  sinew bench wake --load cpu,memory,net,disk     idle, and under load of our own

cyclictest's names: -a core, -i interval in µs, -p priority, -l loops.")]
pub(crate) struct WakeArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: LoadArgs,
    /// The core to measure on, by default the first real-time core
    #[arg(short = 'a', long)]
    core: Option<u16>,
    /// Period in µs; rounded so that a whole number of periods makes a second
    #[arg(short, long, default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    interval_us: u32,
    /// Wake-ups a second, instead of --interval-us
    #[arg(long, conflicts_with = "interval_us",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX_HZ)))]
    rate_hz: Option<u32>,
    /// Wake-ups to measure
    #[arg(short, long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    loops: u64,
    /// Measure for so long instead, in seconds
    #[arg(short, long, conflicts_with = "loops",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// Spin for the last so many µs before each release: the hybrid wait; 0 sleeps all the way
    #[arg(long, default_value_t = 0)]
    spin_us: u32,
    /// Also write `NANOSECONDS COUNT` lines, in the form of cyclictest -N -h, for `bench compare`
    #[arg(long, value_name = "PATH", conflicts_with = "load")]
    histogram: Option<PathBuf>,
}

pub(crate) fn run(args: &WakeArgs) -> Outcome {
    args.histogram.as_deref().map_or(Ok(()), output::check_writable)?;
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

impl WakeArgs {
    fn rate_hz(&self) -> u32 {
        self.rate_hz.unwrap_or_else(|| rate_hz(self.interval_us))
    }

    /// How many wake-ups are counted.
    fn loops(&self) -> u64 {
        match self.seconds {
            Some(seconds) => u64::from(seconds) * u64::from(self.rate_hz()),
            None => self.loops,
        }
    }
}

/// Measures and adds it to the report.
pub(crate) fn measure(args: &WakeArgs, run: &mut Run) -> Result<(), Failure> {
    args.load.idle_and_loaded(run, |run| measure_once(args, run))
}

fn measure_once(args: &WakeArgs, run: &mut Run) -> Result<(), Failure> {
    let spec = args.common.thread(NAME, super::core_or_default(args.core)?)?;
    once(args, spec.clone(), warm_up(args))?;
    let Found { report, woken, wake_up, worst } = once(args, spec, args.loops())?;
    run.thread(&report.applied);
    let wait = match args.spin_us {
        0 => "plain sleep".to_owned(),
        us => format!("sleep, then spin {us} µs"),
    };
    let period_us = 1e6 / f64::from(args.rate_hz());
    let name = format!("{wait}, every {period_us:.3} µs");
    run.measured(&name, &woken);
    worst.report(run, |_| "wake-up".to_owned());
    achieved(args, &report, &wake_up, run);
    run.note(format!("{} periods were missed and skipped", report.skipped));
    run.note(format!("{} wake-ups before warm up and are not counted", warm_up(args)));
    if let Some(path) = &args.histogram {
        output::write_file(path, histogram(&wake_up, run).as_bytes())?;
    }
    Ok(())
}

/// What was asked for, and what the loop came to.
fn achieved(args: &WakeArgs, report: &Report, wake_up: &HistogramSnapshot, run: &mut Run) {
    let (woken, asked) = (wake_up.hdr.len(), args.rate_hz());
    let periods = woken + report.skipped;
    if periods == 0 {
        return;
    }
    let achieved = f64::from(asked) * woken as f64 / periods as f64;
    run.figure("rate asked for", asked.into(), "Hz", None);
    run.figure("rate achieved", achieved, "Hz", None);
    if achieved < f64::from(asked) * ACHIEVED {
        run.note(format!(
            "the rate was not achieved: {achieved:.1} Hz of {asked} Hz; ask for a lower rate, or read \
             the figures as those of an overload"
        ));
    }
}

/// What one run of the loop left.
struct Found {
    report: Report,
    woken: Samples,
    wake_up: HistogramSnapshot,
    worst: Worst,
}

/// Wake-ups before those that are counted: a tenth of a second.
fn warm_up(args: &WakeArgs) -> u64 {
    u64::from(args.rate_hz()).div_ceil(10)
}

fn once(args: &WakeArgs, spec: ThreadSpec, loops: u64) -> Result<Found, Failure> {
    let panel = Panel::anonymous(&PanelSpec::new(NAME)).map_err(Failure::machine)?;
    let rate_hz = args.rate_hz();
    let done = Arc::new(AtomicU64::new(0));
    let woken = Arc::new(Mutex::new(Samples::new()));
    let (left, seen) = channel();
    let body = Counting::new(loops, rate_hz, done.clone(), woken.clone(), left);
    let running = control_loop(spec, rate_hz, args.spin_us).spawn_body(&panel, body);
    let running = running.map_err(failure)?;
    let bar = super::progress("wake", loops);
    while done.load(Ordering::Relaxed) < loops && !super::interrupted() {
        clock::sleep_until(clock::now() + LOOK);
        bar.set_position(done.load(Ordering::Relaxed));
    }
    let report = running.stop().map_err(failure)?;
    bar.finish_and_clear();
    let snapshot = panel.snapshot().map_err(Failure::machine)?;
    let wake_up = snapshot.histograms.into_iter().find(|h| h.kind == Kind::WakeUp);
    let wake_up = wake_up.ok_or_else(|| Failure::machine("the loop left no wake-up times"))?;
    // Left behind when the body was dropped, at the end of the loop.
    let worst = seen.recv().map_err(Failure::machine)?;
    let woken = Arc::into_inner(woken).and_then(|woken| woken.into_inner().ok());
    let woken = woken.ok_or_else(|| Failure::machine("the loop did not let go of its figures"))?;
    Ok(Found { report, woken, wake_up, worst })
}

/// The loop, with the thread's settings, that wakes up `rate_hz` times a second.
fn control_loop(spec: ThreadSpec, rate_hz: u32, spin_us: u32) -> ControlLoop {
    let wake = match spin_us {
        0 => Wake::Sleep,
        us => Wake::Hybrid { spin: Nanos::from_micros(us.into()) },
    };
    // A late wake-up is a result here, never a reason to stop.
    let mut made = ControlLoop::new(spec.name)
        .rate_hz(rate_hz)
        .wake(wake)
        .trip(LadderConfig::report_only())
        .strictness(spec.strictness);
    if let Some(core) = spec.core {
        made = made.core(core);
    }
    match spec.policy {
        Policy::Fifo(priority) => made.priority(priority),
        Policy::Other | Policy::Idle => made,
    }
}

fn rate_hz(interval_us: u32) -> u32 {
    ((1_000_000 + interval_us / 2) / interval_us).clamp(1, RATE_MAX_HZ)
}

fn failure(error: LoopError) -> Failure {
    match error {
        LoopError::Thread { source, .. } => super::thread_failure(source),
        LoopError::Panel { .. } => Failure::machine(error),
        _ => Failure::usage(error),
    }
}

/// Counts its cycles, keeps how late each began and the worst of them with their causes, and ends after
/// the last.
struct Counting {
    left: u64,
    done: Arc<AtomicU64>,
    /// Read when the loop is over: nobody else locks it before.
    woken: Arc<Mutex<Samples>>,
    /// Begins on the loop's own thread.
    watcher: Option<Watcher>,
    watches: bool,
    worst: Option<Sender<Worst>>,
}

impl Counting {
    fn new(
        loops: u64,
        rate_hz: u32,
        done: Arc<AtomicU64>,
        woken: Arc<Mutex<Samples>>,
        worst: Sender<Worst>,
    ) -> Self {
        let watches = rate_hz <= WATCHED_MAX_HZ;
        Self { left: loops, done, woken, watcher: None, watches, worst: Some(worst) }
    }

    /// After the wake-up was measured: the next one finds a fresh baseline.
    fn watch(&mut self, cx: &Cycle) {
        match &mut self.watcher {
            Some(watcher) => {
                watcher.see(cx.now() - cx.due(), cx.now());
                watcher.mark(clock::now());
            }
            None => self.watcher = Some(Watcher::new(Keeps::Asleep)),
        }
    }
}

impl LoopBody for Counting {
    fn cycle(&mut self, cx: &mut Cycle) {
        if let Ok(mut woken) = self.woken.try_lock() {
            woken.record(cx.now() - cx.due(), cx.now());
        }
        if self.watches {
            self.watch(cx);
        }
        self.done.store(cx.tick(), Ordering::Relaxed);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            cx.stop();
        }
    }

    fn safe_stop(&mut self, _cx: &mut Cycle) {}
}

impl Drop for Counting {
    fn drop(&mut self) {
        let worst = self.watcher.take().map_or_else(Worst::new, Watcher::finish);
        if let Some(kept) = self.worst.take() {
            // Nobody listens when the loop did not come about.
            let _ = kept.send(worst);
        }
    }
}

/// All wake-up times in the form of cyclictest -N -h.
fn histogram(wake_up: &HistogramSnapshot, run: &Run) -> String {
    let mut text = "# Histogram\n".to_owned();
    for step in wake_up.hdr.iter_recorded() {
        let ns = wake_up.hdr.median_equivalent(step.value_iterated_to());
        let _ = writeln!(text, "{ns:06} {:06}", step.count_at_value());
    }
    let _ = writeln!(text, "# Max Latencies: {}", wake_up.max.as_nanos());
    for thread in run.threads() {
        let ThreadReport { name, scheduling, cores, .. } = thread;
        let _ = writeln!(text, "# Read back: {name}, {scheduling}, core {cores}");
    }
    for reason in run.not_real_time() {
        let _ = writeln!(text, "# NOT REAL-TIME: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use sinew_rt::thread::Strictness;

    use super::*;

    #[test]
    fn intervals_become_the_nearest_whole_rate() {
        assert_eq!([1_000, 997, 1_013, 250, 10].map(rate_hz), [1_000, 1_003, 987, 4_000, 100_000]);
    }

    #[test]
    fn the_loop_counts_exactly_as_often_as_asked_and_its_panel_has_each_wake_up() {
        let panel = Panel::anonymous(&PanelSpec::new("wake-test")).unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let woken = Arc::new(Mutex::new(Samples::new()));
        let (left, worst) = channel();
        let body = Counting::new(20, 1_000, done.clone(), woken.clone(), left);
        let spec = ThreadSpec::new("test").strictness(Strictness::Report);
        let report = control_loop(spec, 1_000, 0).run_body(&panel, body).unwrap();
        assert_eq!((report.cycles, done.load(Ordering::Relaxed)), (20, 20));
        let worst = worst.recv().unwrap();
        let longest = worst.events().iter().map(|event| event.length).max();
        assert_eq!(worst.events().len(), 5);
        let snapshot = panel.snapshot().unwrap();
        let wake_up = snapshot.histograms.iter().find(|h| h.kind == Kind::WakeUp).unwrap();
        let summary = woken.lock().unwrap().summary(Nanos::ZERO);
        assert_eq!((summary.count, wake_up.hdr.len()), (20, 20));
        assert_eq!(summary.max_ns, wake_up.max.as_nanos() as f64, "the panel has the same");
        // The first one begins the watch and is not among the worst.
        assert!(longest <= Some(wake_up.max), "{longest:?}");
    }
}
