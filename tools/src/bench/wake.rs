//! `sinew bench wake`: cyclictest's measurement, from the release of a periodic loop to its running.
//!
//! What is measured is a [`ControlLoop`] with a body that only counts: the wait is the one that
//! robots use, and the figures are those that the loop itself writes to its panel. Instants are
//! absolute and a whole number of periods apart; what was missed is skipped and counted, as
//! cyclictest does it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sinew_control::control_loop::{ControlLoop, Cycle, LoopBody, LoopError, RATE_MAX_HZ, Wake};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{HistogramSnapshot, Kind, Panel, PanelSpec};
use sinew_rt::thread::{Policy, ThreadSpec};

use super::Common;
use super::report::{Run, ThreadReport};
use super::stats::Samples;
use crate::exit::{Failure, Outcome};
use crate::output;

const NAME: &str = "bench-wake";
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

cyclictest's names: -a core, -i interval in µs, -p priority, -l loops.")]
pub(crate) struct WakeArgs {
    #[command(flatten)]
    common: Common,
    /// The core to measure on, by default the first real-time core
    #[arg(short = 'a', long)]
    core: Option<u16>,
    /// Period in µs; rounded so that a whole number of periods makes a second
    #[arg(short, long, default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    interval_us: u32,
    /// Wake-ups to measure
    #[arg(short, long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    loops: u64,
    /// Spin for the last so many µs before each release: the hybrid wait; 0 sleeps all the way
    #[arg(long, default_value_t = 0)]
    spin_us: u32,
    /// Also write `NANOSECONDS COUNT` lines, in the form of cyclictest -N -h, for `bench compare`
    #[arg(long, value_name = "PATH")]
    histogram: Option<PathBuf>,
}

pub(crate) fn run(args: &WakeArgs) -> Outcome {
    let mut run = Run::start(&args.common.output)?;
    args.histogram.as_deref().map_or(Ok(()), output::check_writable)?;
    let panel = Panel::anonymous(&PanelSpec::new(NAME)).map_err(Failure::machine)?;
    let rate_hz = rate_hz(args.interval_us);
    let done = Arc::new(AtomicU64::new(0));
    let body = Counting { left: args.loops, done: done.clone() };
    let spec = args.common.thread(NAME, super::core_or_default(args.core)?)?;
    let running = control_loop(spec, rate_hz, args.spin_us).spawn_body(&panel, body);
    let running = running.map_err(failure)?;
    let bar = super::progress("wake", args.loops);
    while done.load(Ordering::Relaxed) < args.loops && !super::interrupted() {
        clock::sleep_until(clock::now() + LOOK);
        bar.set_position(done.load(Ordering::Relaxed));
    }
    let report = running.stop().map_err(failure)?;
    bar.finish_and_clear();
    run.thread(&report.applied);

    let snapshot = panel.snapshot().map_err(Failure::machine)?;
    let wake_up = snapshot.histograms.iter().find(|h| h.kind == Kind::WakeUp);
    let wake_up = wake_up.ok_or_else(|| Failure::machine("the loop left no wake-up times"))?;
    let wait = match args.spin_us {
        0 => "plain sleep".to_owned(),
        us => format!("sleep, then spin {us} µs"),
    };
    let period_ns = 1e9 / f64::from(rate_hz);
    run.measured(format!("{wait}, every {:.3} µs", period_ns / 1e3), &Samples::from_panel(wake_up));
    run.note(format!("{} periods were missed and skipped", report.skipped));
    if let Some(path) = &args.histogram {
        output::write_file(path, histogram(wake_up, &run).as_bytes())?;
    }
    run.finish(&args.common.output)
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

/// Counts its cycles and ends after the last.
struct Counting {
    left: u64,
    done: Arc<AtomicU64>,
}

impl LoopBody for Counting {
    fn cycle(&mut self, cx: &mut Cycle) {
        self.done.store(cx.tick(), Ordering::Relaxed);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            cx.stop();
        }
    }

    fn safe_stop(&mut self, _cx: &mut Cycle) {}
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
        let body = Counting { left: 20, done: done.clone() };
        let spec = ThreadSpec::new("test").strictness(Strictness::Report);
        let report = control_loop(spec, 10_000, 0).run_body(&panel, body).unwrap();
        assert_eq!((report.cycles, done.load(Ordering::Relaxed)), (20, 20));
        let snapshot = panel.snapshot().unwrap();
        let wake_up = snapshot.histograms.iter().find(|h| h.kind == Kind::WakeUp).unwrap();
        let samples = Samples::from_panel(wake_up);
        assert_eq!(samples.count(), 20);
        assert_eq!(samples.summary(Nanos::ZERO).max_ns, wake_up.max.as_nanos() as f64);
    }
}
