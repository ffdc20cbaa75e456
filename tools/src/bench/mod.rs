//! `sinew bench`: what the parts and the whole cost on this machine, beside what they are compared
//! with, measured in the same seconds.

mod all;
mod baseline;
mod compare;
mod crypto;
mod evidence;
mod forms;
mod guard;
pub(crate) mod hop;
mod html;
mod length;
pub(crate) mod load;
mod noise;
mod pipeline;
pub(crate) mod report;
mod samples;
pub(crate) mod stats;
mod wake;
mod worst;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use sinew_rt::thread::{Policy, Priority, Strictness, ThreadError, ThreadSpec};
use sinew_rt::topology::{CoreId, Topology};

use crate::exit::{Failure, Outcome};
use forms::Checked;
use length::Length;
use report::OutputArgs;

/// Measures this machine and this program on it, and judges the ratios that matter.
///
/// Ratios are formed from sides that ran in alternating rounds, and judged only where the machine
/// can resolve them: one side also runs against itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench wake                       cyclictest's question
  sinew bench noise                      oslat's question
  sinew bench pipeline --json run.json   one-way latency between two processes

Exit codes:
  0  measured, and no limit exceeded
  1  a limit was exceeded
  2  wrong usage
  3  a limit could not be judged on this machine or before Ctrl-C, or (--require) the kernel refused something")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    All(all::AllArgs),
    Wake(wake::WakeArgs),
    Compare(compare::CompareArgs),
    Crypto(crypto::CryptoArgs),
    Guard(guard::GuardArgs),
    Hop(Checked<hop::HopArgs>),
    Noise(noise::NoiseArgs),
    Pipeline(Checked<pipeline::PipelineArgs>),
}

/// Runs one benchmark.
pub(crate) fn run(args: BenchArgs) -> Outcome {
    match &args.what {
        // A child of a benchmark ends with its parent, which is the one that hears of Ctrl-C.
        Bench::Pipeline(args) if args.is_child() => return pipeline::run(args),
        _ => catch_interrupts()?,
    }
    match &args.what {
        Bench::All(args) => all::run(args),
        Bench::Wake(args) => wake::run(args),
        Bench::Compare(args) => compare::run(args),
        Bench::Crypto(args) => crypto::run(args),
        Bench::Guard(args) => guard::run(args),
        Bench::Hop(args) => hop::run(args),
        Bench::Noise(args) => noise::run(args),
        Bench::Pipeline(args) => pipeline::run(args),
    }
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether Ctrl-C was pressed or the end asked for: measuring ends, and what there is is reported.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

pub(crate) fn catch_interrupts() -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, INTERRUPTED.clone()).map_err(Failure::machine)?;
    }
    Ok(())
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

/// The options of benchmarks that start measuring threads.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// SCHED_FIFO priority of the measuring threads, 1 to 99; 0 measures on the normal scheduler
    #[arg(short, long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub(crate) priority: u8,
}

impl Common {
    /// What a measuring thread on `core` should be.
    pub(crate) fn thread(&self, name: &str, core: u16) -> Result<ThreadSpec, Failure> {
        let policy = match self.priority {
            0 => Policy::Other,
            priority => Policy::Fifo(Priority::new(priority).map_err(Failure::usage)?),
        };
        let strictness = if self.output.require { Strictness::Require } else { Strictness::Report };
        Ok(ThreadSpec::new(name).core(CoreId::new(core)).policy(policy).strictness(strictness))
    }
}

/// The cores to measure on, the best first: those for real-time threads, and behind them the others
/// that this process may use.
fn measuring_cores(topology: &Topology) -> Vec<CoreId> {
    let mut cores = topology.real_time_cores();
    for core in topology.usable_cores().iter() {
        if !cores.contains(&core) {
            cores.push(core);
        }
    }
    cores
}

/// The core that was asked for, or else the first real-time core.
pub(crate) fn core_or_default(asked: Option<u16>) -> Result<u16, Failure> {
    if let Some(core) = asked {
        return Ok(core);
    }
    let topology = Topology::read().map_err(Failure::machine)?;
    let first = measuring_cores(&topology).first().map(|core| core.get());
    first.ok_or_else(|| Failure::machine("this process may use no core; check its cpuset"))
}

/// Why a measuring thread could not be started: a core that this machine has not is a wrong
/// command line, everything else is the machine's.
pub(crate) fn thread_failure(error: ThreadError) -> Failure {
    match error {
        ThreadError::NoSuchCore { .. } | ThreadError::CoreOffline { .. } => Failure::usage(error),
        _ => Failure::machine(error),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<BenchArgs, clap::Error> {
        let command = BenchArgs::augment_args(Command::new("bench")).no_binary_name(true);
        let matches = command.try_get_matches_from(arguments)?;
        clap::FromArgMatches::from_arg_matches(&matches)
    }

    #[test]
    fn the_options_do_not_contradict_each_other() {
        BenchArgs::augment_args(Command::new("bench")).debug_assert();
    }

    #[test]
    fn cyclictests_names_mean_what_they_mean_there() {
        let args = parse(&["wake", "-a", "0", "-i", "250", "-p", "90", "-l", "100"]).unwrap();
        let shown = format!("{args:?}");
        for expected in ["core: Some(0)", "interval_us: 250", "priority: 90", "loops: 100"] {
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
    }

    #[test]
    fn impossible_numbers_are_usage_errors() {
        for wrong in [
            &["wake", "-p", "100"][..],
            &["wake", "-i", "0"],
            &["wake", "-l", "0"],
            &["guard", "--bursts", "0"],
            &["hop", "--rounds", "0"],
            &["pipeline", "--idle", "--seconds", "0"],
            &["hop", "--part", "everything"],
            &["compare", "--base", "a", "--control", "b", "--subject", "c", "--limit-p50", "-1"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn options_that_would_do_nothing_are_refused() {
        for wrong in [
            &["wake", "--seconds", "5", "--loops", "10"][..],
            &["wake", "--rate-hz", "500", "--interval-us", "1000"],
            &["wake", "--load", "cpu", "--histogram", "/dev/null"],
            &["wake", "--load", "gpu"],
            &["pipeline", "--stall-at-ms", "50"],
            &["pipeline", "--stall-ms", "50", "--back-to-back"],
            &["pipeline", "--rate-hz", "500", "--back-to-back"],
            &["pipeline", "--quick", "--seconds", "5"],
            &["hop", "--rounds", "4", "--seconds", "5"],
            &["all", "--quick", "--seconds", "60"],
            &["wake", "--tolerance", "5"],
            &["pipeline", "--agent-cores", "0"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_option_that_another_form_has_is_refused_with_the_forms_that_have_it() {
        let pair = "bare, spin, park, paced, envelope";
        let latency = "without --throughput, --reliable, --flood and --idle";
        let busy = "every form but --idle";
        for (line, said) in [
            ("hop --part spin --cores 0-1", "add `matrix` to --part"),
            ("hop --part matrix --near 1", pair),
            ("hop --part matrix --far 1", pair),
            ("hop --part matrix,matrix --rounds 8", pair),
            ("hop --part spin,park --paced-us 500", "matrix, paced"),
            ("hop --part bare --rate-hz 500", "matrix, paced"),
            ("pipeline --throughput --spin", latency),
            ("pipeline --throughput --park", latency),
            ("pipeline --reliable --open", latency),
            ("pipeline --flood --paced", latency),
            ("pipeline --flood --back-to-back", latency),
            ("pipeline --idle --open", latency),
            ("pipeline --back-to-back --period-us 1000", "paced messages, --reliable and --flood"),
            ("pipeline --back-to-back --rate-hz 500", "paced messages, --reliable and --flood"),
            ("pipeline --throughput --period-us 997", "paced messages, --reliable and --flood"),
            ("pipeline --idle --rate-hz 500", "paced messages, --reliable and --flood"),
            ("pipeline --idle --samples 5", busy),
            ("pipeline --idle --quick", busy),
            ("pipeline --idle --priority 80", busy),
            ("pipeline --idle --sender-cores 0", busy),
        ] {
            let refused = parse(&line.split(' ').collect::<Vec<_>>());
            let error = refused.err().unwrap_or_else(|| panic!("{line} is accepted"));
            assert_eq!(error.exit_code(), 2, "{line}");
            let option = line.split(' ').rev().find(|word| word.starts_with("--")).unwrap();
            let text = error.to_string();
            assert!(text.contains(option) && text.contains(said), "{line}: {text}");
        }
        for line in [
            "hop --near 1 --rounds 8 --cores 0-1 --rate-hz 500",
            "hop --part matrix --rate-hz 500",
            "hop --part paced --paced-us 500 --near 1",
            "pipeline --rate-hz 500",
            "pipeline --paced --back-to-back --period-us 1000",
            "pipeline --flood --rate-hz 500 --quick --priority 70",
            "pipeline --reliable --period-us 997 --samples 5",
            "pipeline --throughput --samples 5 --sender-cores 0",
            "pipeline --idle --seconds 5 --receiver-cores 0",
        ] {
            assert!(parse(&line.split(' ').collect::<Vec<_>>()).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_plot_has_no_place_where_the_tables_are_left_out() {
        let Bench::Wake(args) = parse(&["wake", "--plot", "--json", "-"]).unwrap().what else {
            unreachable!()
        };
        let failure = wake::run(&args).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains("--json - leaves those out"), "{}", failure.message);
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused_before_anything_is_measured() {
        for command in ["guard", "wake"] {
            let args = parse(&[command, "--core", "9999"]).unwrap();
            let failure = match args.what {
                Bench::Guard(args) => guard::run(&args).unwrap_err(),
                Bench::Wake(args) => wake::run(&args).unwrap_err(),
                _ => unreachable!(),
            };
            assert_eq!(failure.exit, crate::exit::Exit::Usage);
            assert!(failure.message.contains("core 9999 does not exist"), "{}", failure.message);
        }
    }
}
