//! Measures Zenoh's reliable TCP put/subscribe between two processes on loopback, and Sinew's reliable
//! path in turn with it.

mod child;
mod clock;
mod figures;
mod load;
mod ours;
mod pair;
mod placement;
mod publish;
mod report;
mod session;
mod subscribe;
mod verdict;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pair::Leg;
use placement::Placement;
use report::Report;

/// Zenoh's reliable TCP put/subscribe beside Sinew's reliable path
#[derive(Debug, Parser)]
#[command(version, long_about = None, after_help = "\
Examples:
  sinew-compare-zenoh run                                 Zenoh alone, one round
  sinew-compare-zenoh run --rounds 7 --sinew ../../target/release/sinew --json zenoh.json
  sinew-compare-zenoh subscribe throughput                in one terminal
  sinew-compare-zenoh publish throughput                  in another

Exit codes of `run`:
  0  measured, and with --sinew both limits hold
  1  a limit does not hold
  2  wrong usage
  3  a measurement did not come about, or a limit cannot be resolved on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publishes, and ends by itself
    Publish {
        #[command(flatten)]
        end: EndArgs,
    },
    /// Subscribes, writes one line of JSON when it has measured, and ends
    Subscribe {
        #[command(flatten)]
        end: EndArgs,
    },
    /// Runs both processes, round after round, and with --sinew ours in turn
    Run(RunArgs),
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Messages delivered per second, published as fast as Zenoh takes them
    Throughput,
    /// One way, one message a period, whatever became of earlier ones
    Latency,
}

#[derive(Clone, Debug, Args)]
struct EndArgs {
    what: What,
    /// Where the subscriber listens and the publisher connects to
    #[arg(long, default_value = "tcp/127.0.0.1:17447", value_parser = loopback)]
    endpoint: String,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Between two messages of the latency, in µs
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    period_us: u32,
    /// SCHED_FIFO priority of all threads of the process; without it normal priority
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=98))]
    fifo: Option<u8>,
    /// The only core of the process; without it any
    #[arg(long)]
    core: Option<usize>,
    /// Let Zenoh gather messages of the latency in batches where it can
    #[arg(long)]
    batched: bool,
}

#[derive(Clone, Debug, Args)]
struct RunArgs {
    /// How often everything is measured, side after side in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// How long each measurement of a round takes, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The `sinew` to measure in turn, a release build; without it Zenoh alone
    #[arg(long, value_name = "PATH")]
    sinew: Option<PathBuf>,
    /// How Zenoh's processes are scheduled; each is measured, the best counts
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = placement::ALL)]
    placement: Vec<Placement>,
    /// SCHED_FIFO priority of a placement that has one
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    priority: u8,
    /// Distances between messages of the latency in µs, used in turn
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 997, 1_013],
          value_parser = clap::value_parser!(u32).range(50..=100_000))]
    period_us: Vec<u32>,
    /// Let Zenoh gather messages of the latency in batches where it can
    #[arg(long)]
    batched: bool,
    /// Write everything as JSON to a file, or to standard output with `-` (then without the table)
    #[arg(long, value_name = "PATH|-")]
    json: Option<PathBuf>,
}

/// Nothing leaves this machine.
fn loopback(text: &str) -> Result<String, String> {
    match text.strip_prefix("tcp/127.0.0.1:").map(str::parse::<u16>) {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("tcp/127.0.0.1:PORT is needed".to_owned()),
    }
}

/// Why something was not measured.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("zenoh: {0}")]
    Zenoh(String),
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
    #[error("the {0} did not answer within {1:?}")]
    Silent(&'static str, Duration),
    #[error("the {0} ended before it had measured")]
    Ended(&'static str),
    #[error("the {who} answered something else: {answer}")]
    Confused { who: &'static str, answer: String },
    #[error("{path}: {why}")]
    Sinew { path: PathBuf, why: String },
    #[error("the subscriber got {received} of {sent} messages; a reliable path loses none")]
    Lost { received: u64, sent: u64 },
}

impl Failure {
    fn zenoh(error: impl std::fmt::Display) -> Self {
        Self::Zenoh(error.to_string())
    }

    fn system(what: &'static str) -> Self {
        Self::System { what, source: std::io::Error::last_os_error() }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Publish { end } => publish::run(&end).map(|()| 0),
        Command::Subscribe { end } => subscribe::run(&end).map(|()| 0),
        Command::Run(args) => run(&args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("sinew-compare-zenoh: {failure}");
            ExitCode::from(3)
        }
    }
}

/// Round after round: every placement of Zenoh, then ours; the next round begins with another side.
fn run(args: &RunArgs) -> Result<u8, Failure> {
    let sinew = args.sinew.as_deref().map(ours::Sinew::find).transpose()?;
    let mut report = Report::new(args, sinew.as_ref());
    let sides = args.placement.len() + usize::from(sinew.is_some());
    for number in 0..args.rounds as usize {
        let mut round = report::Round::default();
        for n in 0..sides {
            let side = (number + n) % sides;
            match (args.placement.get(side), &sinew) {
                (Some(placement), _) => {
                    eprintln!("round {} of {}: Zenoh, {placement}", number + 1, args.rounds);
                    let leg = |what| Leg {
                        what,
                        seconds: args.seconds,
                        period_us: args.period_us[number % args.period_us.len()],
                        placement: *placement,
                        priority: args.priority,
                        batched: args.batched,
                    };
                    round.zenoh.push(report::Zenoh {
                        placement: *placement,
                        throughput: pair::throughput(&leg(What::Throughput))?,
                        latency: pair::latency(&leg(What::Latency))?,
                    });
                }
                (None, Some(sinew)) => {
                    eprintln!("round {} of {}: Sinew", number + 1, args.rounds);
                    round.sinew = Some(sinew.measure(args.seconds, args.priority)?);
                }
                (None, None) => {}
            }
        }
        report.rounds.push(round);
    }
    report.judge();
    report.hand_out(args.json.as_deref())?;
    Ok(report.exit_code())
}
