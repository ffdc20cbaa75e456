//! `sinew tune`: measures this machine and writes the configuration that the measurements speak for.
//!
//! What decides is pure ([`cores`], [`candidates`], [`decide`], [`kernel_line`]): a topology,
//! measurements and demands go in, choices with reasons come out. Around it stand the measurements of
//! the parts ([`measure`]) and of whole configurations ([`trial`]), and what is written at the end.

mod candidates;
mod cores;
mod decide;
mod facts;
mod granted;
mod kernel_line;
mod measure;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod trial;
mod write;

use std::path::PathBuf;

use sinew_rt::clock::{self, Nanos};

use crate::bench;
use crate::exit::{Exit, Outcome};
use crate::output::JsonArgs;
use facts::Demands;
use report::Report;

/// Measures this machine and writes a sinew.toml with the settings that did best, and why.
///
/// First the parts: what takes each core away, how late it wakes, what a hand-off between cores
/// costs, and what keeps a core awake. Then whole configurations, two nodes over loopback UDP with
/// signed messages at your rate, idle and while another core copies memory. At last the best of them
/// beside the default one, in turns, with the default against itself as control. Spins for less than
/// 0.9 s at a time. While it measures pm_qos_resume_latency_us it sets that of one core, and then sets
/// it back; otherwise it changes nothing but the file that it writes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew tune                                   for 1 kHz and 150 µs, into ./sinew.toml
  sinew tune --rate-hz 4000 --budget-us 80 --out fast.toml
  sinew tune --quick --json -                  a first look of some 15 s, for a script

What the file says is explained in docs/tune.md. Ctrl-C prints what was measured and writes no file.

Exit codes:
  0  written, and the budget is met
  2  wrong usage, or the file exists already (--force replaces it)
  3  written, but this machine does not meet the budget; or it could not be measured or written, or
     Ctrl-C came first")]
pub(crate) struct TuneArgs {
    /// Messages a second from each peer, and cycles a second of the control loop
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=20_000))]
    rate_hz: u32,
    /// From publishing to the subscriber in the other process, at p99, in µs
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    budget_us: u32,
    /// Control loops of the program, each to get a core if there are enough
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
    loops: u16,
    /// The file to write
    #[arg(long, default_value = "sinew.toml", value_name = "PATH")]
    out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// A third of the measurements: a first look, with more noise
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: TuneArgs) -> Outcome {
    write::check(&args.out, args.force)?;
    args.json.check_writable()?;
    bench::catch_interrupts()?;
    let demands = Demands { rate_hz: args.rate_hz, budget_us: args.budget_us, loops: args.loops };
    let started = clock::now();
    let mut report = Report::new(demands);
    let text = run::measure(&mut report, args.quick)?;
    report.interrupted = text.is_none();
    report.took_s = (clock::now() - started).max(Nanos::ZERO).as_secs_f64();
    if let Some(text) = text {
        write::write(&args.out, &text, args.force)?;
        report.written = Some(args.out.display().to_string());
    }
    args.json.hand_out(|| report.to_string(), &report)?;
    Ok(match &report.budget {
        Some(budget) if budget.met && report.written.is_some() => Exit::Done,
        _ => Exit::Machine,
    })
}
