//! `sinew bench`: what the parts and the whole cost on this machine, beside what they are compared
//! with, measured in the same seconds.

pub(crate) mod pipeline;
pub(crate) mod report;
pub(crate) mod stats;

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
    Pipeline(pipeline::PipelineArgs),
}

/// Runs one benchmark.
pub(crate) fn run(args: BenchArgs) -> Outcome {
    catch_interrupts()?;
    match args.what {
        Bench::Pipeline(args) => pipeline::run(args),
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

/// A measuring thread on `core`: `SCHED_FIFO` at `priority`, or the normal scheduler at 0.
pub(crate) fn measuring_thread(
    name: &str,
    core: CoreId,
    priority: u8,
    require: bool,
) -> Result<ThreadSpec, Failure> {
    let policy = match priority {
        0 => Policy::Other,
        _ => Policy::Fifo(Priority::new(priority).map_err(Failure::usage)?),
    };
    let strictness = if require { Strictness::Require } else { Strictness::Report };
    // Room for the closures of the measurements; all of it is touched in advance.
    Ok(ThreadSpec::new(name).core(core).policy(policy).strictness(strictness))
}
