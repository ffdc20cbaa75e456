//! `sinew bench noise`: what takes a core from a thread that never sleeps: oslat's measurement.
//!
//! A thread reads the clock as fast as it can. Where two readings lie further apart than the
//! threshold, something else had the core. How often, for how long and when is counted; of the
//! longest gaps it is also said what the kernel counted meanwhile, as far as that tells who it was.

mod interrupts;

use std::str::FromStr;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread;
use sinew_rt::topology::{CoreId, CoreList, Topology};

use super::Common;
use super::evidence::Keeps;
use super::load::LoadArgs;
use super::report::Run;
use super::stats::Samples;
use super::worst::Watcher;
use crate::exit::{Failure, Outcome};
use interrupts::Interrupts;

/// How long a core is taken at a time, and how long it is left to others then: real-time throttling,
/// which would look like one long gap, begins at 0.95 s in a second.
const BURST: Nanos = Nanos::from_millis(800);
const REST: Nanos = Nanos::from_millis(200);

/// What takes a core from a thread that never sleeps: oslat's measurement.
///
/// Interrupts, other threads, firmware and the host of a virtual machine all show as gaps between
/// two readings of the clock. One core is measured after the other, in bursts of 0.8 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench noise                                every core for 8 s
  sinew bench noise --cores 1 --seconds 60         one core for a minute
  sinew bench noise --threshold-us 20              only gaps that a 1 kHz loop would notice

What to do about it: `sinew doctor` finds interrupts, threads and kernel work that can be moved away.")]
pub(crate) struct NoiseArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: LoadArgs,
    /// Cores to measure, one after the other: 1 or 1-3,5 [default: all that may be used]
    #[arg(short = 'a', long, value_parser = CoreList::from_str)]
    cores: Option<CoreList>,
    /// Spinning time on each core, in seconds
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Shorter gaps than this are not counted, in µs
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    threshold_us: u32,
}

pub(crate) fn run(args: &NoiseArgs) -> Outcome {
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

/// Measures and adds it to the report.
pub(crate) fn measure(args: &NoiseArgs, run: &mut Run) -> Result<(), Failure> {
    args.load.idle_and_loaded(run, |run| measure_once(args, run))
}

fn measure_once(args: &NoiseArgs, run: &mut Run) -> Result<(), Failure> {
    let cores = match &args.cores {
        Some(cores) => cores.clone(),
        None => Topology::read().map_err(Failure::machine)?.usable_cores(),
    };
    let threshold = Nanos::from_micros(args.threshold_us.into());
    let spinning = Nanos::from_secs(args.seconds.into());
    let bursts = (spinning.as_nanos() as u64).div_ceil(BURST.as_nanos() as u64);
    let bar = super::progress("noise", bursts * cores.iter().count() as u64);
    for core in cores.iter() {
        if super::interrupted() {
            break;
        }
        let spec = args.common.thread("bench-noise", core.get())?;
        let before = Interrupts::read();
        let ticks = bar.clone();
        let watcher = thread::spawn(spec, move || {
            let mut watch = Watch::new(threshold);
            while watch.watched < spinning && !super::interrupted() {
                watch.burst(BURST.min(spinning - watch.watched));
                ticks.inc(1);
                clock::sleep_until(clock::now() + REST);
            }
            watch
        });
        let watcher = watcher.map_err(super::thread_failure)?;
        run.thread(watcher.applied());
        let watch = watcher.join().map_err(Failure::machine)?;
        let after = Interrupts::read();
        watch.report(run, core, threshold);
        // Also those of the rests: a hint at who could be moved away, not a count of gaps.
        match (before, after) {
            (Ok(before), Ok(after)) => {
                let since = after.since(&before, core);
                if !since.is_empty() {
                    run.note(format!("core {core}: interrupts meanwhile, rests included: {since}"));
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                run.note(format!("core {core}: interrupts not known: /proc/interrupts: {error}"));
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// One thread that watches the clock.
struct Watch {
    threshold: Nanos,
    gaps: Samples,
    watched: Nanos,
    lost: Nanos,
    longest: Watcher,
}

impl Watch {
    /// Allocates; a burst does not.
    fn new(threshold: Nanos) -> Self {
        Self {
            threshold,
            gaps: Samples::new(),
            watched: Nanos::ZERO,
            lost: Nanos::ZERO,
            longest: Watcher::new(Keeps::Core),
        }
    }

    /// Reads the clock for `span`.
    fn burst(&mut self, span: Nanos) {
        let start = clock::now();
        let mut accounted = Nanos::ZERO;
        self.longest.mark(start);
        let mut last = clock::now();
        while last - start < span {
            let now = clock::now();
            let gap = now - last;
            last = if gap < self.threshold {
                now
            } else {
                self.note(gap, now);
                // What noting it took is neither a gap nor watched.
                let resumed = clock::now();
                accounted += resumed - now;
                resumed
            };
        }
        self.watched += (last - start) - accounted;
    }

    fn note(&mut self, length: Nanos, end: Nanos) {
        self.gaps.record(length, end);
        self.lost += length;
        self.longest.see(length, end);
    }

    fn report(self, run: &mut Run, core: CoreId, threshold: Nanos) {
        let watched = self.watched.as_secs_f64();
        if watched == 0.0 {
            return;
        }
        run.measured(format!("core {core}: gaps of {threshold} and more"), &self.gaps);
        let name = |what: &str| format!("core {core}: {what}");
        run.figure(&name("watched for"), watched, "s", None);
        run.figure(&name("gaps per second"), self.gaps.count() as f64 / watched, "Hz", None);
        let share = self.lost.as_secs_f64() / watched;
        run.figure(&name("share of the time in gaps"), share * 1e6, "ppm", None);
        self.longest.finish().report(run, |_| format!("core {core}: gap"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::worst::WORST;
    use super::*;

    #[test]
    fn a_core_is_watched_for_as_long_as_asked_and_gaps_are_no_longer_than_that() {
        let mut watch = Watch::new(Nanos::new(1));
        watch.burst(Nanos::from_millis(20));
        assert!(watch.watched <= Nanos::from_millis(20) + watch.lost, "{:?}", watch.watched);
        assert!(watch.gaps.count() > 0, "with a threshold of 1 ns every reading is a gap");
        assert!(watch.lost <= watch.watched);
        assert_eq!(watch.longest.finish().events().len(), WORST);
    }
}
