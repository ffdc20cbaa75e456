//! `sinew bench`: what the parts and the whole cost on this machine, beside what they are compared
//! with, measured in the same seconds.

mod guard;
mod hop;
pub(crate) mod report;
pub(crate) mod stats;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use sinew_rt::thread::{Policy, Priority, Strictness, ThreadSpec};
use sinew_rt::topology::CoreId;

use crate::exit::{Failure, Outcome};

/// Measures this machine and this program on it, and judges the ratios that matter.
///
/// Ratios are formed from sides that ran in alternating rounds, and judged only where the machine
/// can resolve them: one side also runs against itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  measured, and no limit exceeded
  1  a limit was exceeded
  2  wrong usage
  3  a limit could not be judged on this machine, or (--require) the kernel refused something")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Guard(guard::GuardArgs),
    Hop(hop::HopArgs),
}

/// Runs one benchmark.
pub(crate) fn run(args: BenchArgs) -> Outcome {
    catch_interrupts()?;
    match &args.what {
        Bench::Guard(args) => guard::run(args),
        Bench::Hop(args) => hop::run(args),
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed: measuring ends, and what there is is reported.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn catch_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).map_err(Failure::machine)
}

/// A progress bar of `steps` on standard error; invisible when that is no terminal.
pub(crate) fn progress(what: &str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta} {msg}");
    let bar = ProgressBar::new(steps).with_prefix(what.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The options that every benchmark has.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Write the report as JSON to a file, or to standard output with `-` (the table then goes to
    /// standard error)
    #[arg(long, value_name = "PATH|-")]
    pub(crate) json: Option<PathBuf>,
    /// SCHED_FIFO priority of the measuring threads, 1 to 99; 0 measures on the normal scheduler
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub(crate) priority: u8,
    /// Exit with code 3 unless the kernel grants everything asked for
    #[arg(long)]
    pub(crate) require: bool,
}

impl Common {
    /// What a measuring thread on `core` should be.
    pub(crate) fn thread(&self, name: &str, core: u16) -> Result<ThreadSpec, Failure> {
        let policy = match self.priority {
            0 => Policy::Other,
            priority => Policy::Fifo(Priority::new(priority).map_err(Failure::usage)?),
        };
        let strictness = if self.require { Strictness::Require } else { Strictness::Report };
        Ok(ThreadSpec::new(name).core(CoreId::new(core)).policy(policy).strictness(strictness))
    }
}
