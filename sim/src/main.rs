//! `sinew-sim`: runs seeds, and makes failures small enough to look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sinew_rt::clock::Nanos;
use sinew_sim::campaign::{self, Campaign, run_one};
use sinew_sim::checker::Rule;
use sinew_sim::fault::FaultKind;
use sinew_sim::host::Host;
use sinew_sim::host::real::Real;
use sinew_sim::memory::CountingAllocator;
use sinew_sim::plan::{Cut, Script, Settings};
use sinew_sim::report::{self, Report, command};
use sinew_sim::shrink::shrink;
use sinew_sim::{page, past};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Runs whole nodes in virtual time under faults that a seed draws, and checks every promise after every event.
#[derive(Debug, Parser)]
#[command(name = "sinew-sim", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sinew-sim run --seeds 500                      what a change is tested with
  sinew-sim run --first 17 --seeds 1 --html 17.html   one seed, as a page
  sinew-sim run --seeds 50 --faults loss,crash   only these faults
  sinew-sim run --seeds 500 --plant nak_storm    does the simulator see it?
  sinew-sim run --scenario lossy.toml --seeds 20  what a file says, as between real processes
  sinew-sim list                                 faults, promises, what can be planted

Exit codes: 0 no promise was broken; 1 one was; 2 usage; 3 a report could not be written.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs seeds; the seeds that failed once come first.
    Run(Box<Run>),
    /// Lists the kinds of faults, the promises, and what can be planted.
    List,
    #[command(about = "Stand between real processes, and treat their traffic as a scenario says")]
    Relay(sinew_sim::relay::command::RelayArgs),
    #[command(about = "Run a real node that publishes at a rate and keeps a ledger")]
    Peer(sinew_sim::relay::peer::PeerArgs),
    #[command(about = "Compare the ledgers of real nodes, and say which promises were broken")]
    Check(sinew_sim::ledger::command::CheckArgs),
}

#[derive(Debug, Args)]
struct Run {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs what this file says instead of what a seed draws: its nodes, links and timed faults, as
    /// `sinew-sim relay` has them between real processes. A run lasts as long as the file says, and at least
    /// 11 seconds beyond its last fault.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "nodes", "faults", "without_nodes", "only_faults", "without_faults", "healed_at_ns",
    ])]
    scenario: Option<PathBuf>,
    /// How many nodes a run has: `8..16`, or one number.
    #[arg(long, default_value = "8..16", value_parser = past::nodes)]
    nodes: (usize, usize),
    /// The length of each run, in virtual seconds (at least 14) [default: 60, or what the scenario says]
    #[arg(long)]
    seconds: Option<u32>,
    /// The same in virtual hours.
    #[arg(long, conflicts_with = "seconds")]
    hours: Option<u32>,
    /// The kinds of faults: `all`, `none`, or names with commas between.
    #[arg(long, default_value = "all")]
    faults: String,
    /// Runs at once; 0 is one for each core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Writes the report as JSON to this file, or to the standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page about one run: the first failure, made small, or the only seed.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Breaks every node in this way, to see whether it shows.
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
    /// Does not make a failure smaller.
    #[arg(long)]
    no_shrink: bool,
    /// Does not run the seeds that failed once.
    #[arg(long)]
    no_past: bool,
    /// Leaves these nodes out.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    without_nodes: Vec<u16>,
    /// Leaves all faults out but these.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    only_faults: Option<Vec<u16>>,
    /// Leaves all faults out, though they are drawn.
    #[arg(long, conflicts_with = "only_faults")]
    without_faults: bool,
    /// Publishes only these topics.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    only_topics: Option<Vec<u8>>,
    /// Looks away from these promises, to find breaches of others.
    #[arg(long, value_delimiter = ',', value_name = "PROMISE,…", value_parser = promise)]
    tolerate: Vec<Rule>,
    /// Begins the healing earlier.
    #[arg(long, value_name = "NS")]
    healed_at_ns: Option<i64>,
}

fn promise(name: &str) -> Result<Rule, String> {
    Rule::from_name(name).ok_or_else(|| format!("`{name}` is no promise: see `sinew-sim list`"))
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => match run(&options) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            Err(Failure::Usage(message)) => fail(2, &message),
            Err(Failure::Machine(message)) => fail(3, &message),
        },
        Command::List => {
            list();
            ExitCode::SUCCESS
        }
        Command::Relay(options) => sinew_sim::relay::command::run(&options),
        Command::Peer(options) => sinew_sim::relay::peer::run(&options),
        Command::Check(options) => sinew_sim::ledger::command::run(&options),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("sinew-sim: {message}");
    ExitCode::from(code)
}

enum Failure {
    Usage(String),
    Machine(String),
}

fn list() {
    println!("faults (--faults):");
    for kind in FaultKind::ALL {
        println!("  {:<12} {}", kind.as_str(), kind.description());
    }
    println!("\npromises:");
    for rule in sinew_sim::checker::Rule::ALL {
        println!("  {:<14} {}", rule.as_str(), rule.description());
    }
    println!("\nto plant (--plant):");
    for name in Real::plants() {
        println!("  {name}");
    }
}

fn campaign(options: &Run) -> Result<Campaign, Failure> {
    let kinds = past::kinds(&options.faults).map_err(Failure::Usage)?;
    let hours = options.hours.map(|hours| i64::from(hours) * 3_600);
    let said = hours.or(options.seconds.map(i64::from));
    let script = options.scenario.as_deref().map(|path| script(path, said)).transpose()?;
    let seconds = match &script {
        Some((_, script)) => script.length().as_nanos() / 1_000_000_000,
        None => said.unwrap_or(60),
    };
    let nodes = match &script {
        Some((_, script)) => (script.names().count(), script.names().count()),
        None => options.nodes,
    };
    if seconds < sinew_sim::plan::SECONDS_MIN {
        let least = sinew_sim::plan::SECONDS_MIN;
        return Err(Failure::Usage(format!(
            "{seconds} seconds; at least {least} are needed to heal and settle"
        )));
    }
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Campaign {
        first: options.first,
        seeds: options.seeds,
        settings: Settings {
            nodes_min: nodes.0,
            nodes_max: nodes.1,
            length: Nanos::from_secs(seconds),
            kinds,
        },
        script,
        cut: Cut {
            absent: options.without_nodes.clone(),
            faults: if options.without_faults {
                Some(Vec::new())
            } else {
                options.only_faults.clone()
            },
            topics: options.only_topics.clone(),
            healed: options.healed_at_ns.map(Nanos::new),
            tolerated: options.tolerate.clone(),
        },
        plant: options.plant.clone(),
        jobs: if options.jobs == 0 { cores() } else { options.jobs },
    })
}

/// Reads a scenario, and says why it cannot be run.
fn script(path: &Path, seconds: Option<i64>) -> Result<(String, Script), Failure> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::Usage(format!("cannot read {name}: {error}; give a file that you may read"))
    })?;
    let scenario = sinew_sim::scenario::file::parse(&text).map_err(|error| {
        let (line, problem, hint) = (error.line, error.problem, error.hint);
        Failure::Usage(format!("{name}:{line}: {problem}; {hint}"))
    })?;
    let script = Script::new(scenario, seconds)
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    Ok((name.to_string(), script))
}

fn run(options: &Run) -> Result<bool, Failure> {
    if options.scenario.is_some() && options.html.is_some() {
        let words = "--html draws faults that a seed drew, and a scenario's are in its file; \
                     leave one of --html and --scenario out";
        return Err(Failure::Usage(words.to_owned()));
    }
    let campaign = campaign(options)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| Failure::Machine(format!("cannot take Ctrl-C: {error}")))?;
    // What nodes say when they panic would stand between the lines of the progress; the report says it.
    std::panic::set_hook(Box::new(|_| {}));

    let mut good = true;
    let is_drawn = campaign.script.is_none();
    if is_drawn && !options.no_past && campaign.plant.is_none() && campaign.cut == Cut::default() {
        good &= again(&stop)?;
    }
    let bar = ProgressBar::new(campaign.seeds);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} seeds {elapsed} (left {eta}) {msg}")
    {
        bar.set_style(style);
    }
    let failures = AtomicU64::new(0);
    let summary = campaign::run::<Real>(&campaign, &stop, &|outcome| {
        bar.inc(1);
        if let Some(violation) = &outcome.violation {
            failures.fetch_add(1, Ordering::Relaxed);
            bar.set_message(format!("{} broken", failures.load(Ordering::Relaxed)));
            bar.suspend(|| eprintln!("seed {}: {violation}", outcome.seed));
        }
    });
    bar.finish_and_clear();
    let summary = summary.map_err(Failure::Usage)?;
    let report = Report::new(&campaign, &summary);
    good &= summary.failures.is_empty();
    let to_stdout = options.json.as_deref() == Some(Path::new("-"));
    match to_stdout {
        true => eprint!("{}", report.text()),
        false => print!("{}", report.text()),
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Machine(error.to_string()))?;
        match to_stdout {
            true => println!("{json}"),
            false => write(path, &json)?,
        }
    }
    look_closer(options, &campaign, &summary, &stop)?;
    Ok(good)
}

/// Makes the first failure smaller, and draws it, or the only seed.
fn look_closer(
    options: &Run,
    campaign: &Campaign,
    summary: &campaign::Summary,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    if campaign.script.is_some() {
        if !summary.failures.is_empty() {
            eprintln!("\nA scenario is not made smaller: take faults out of its file.");
        }
        return Ok(());
    }
    Real::prepare(campaign.plant.as_deref()).map_err(Failure::Usage)?;
    let (outcome, command) = match summary.failures.first() {
        Some(failure) if !options.no_shrink && !stop.load(Ordering::Relaxed) => {
            let shrunk = shrink::<Real>(campaign, failure);
            eprint!("\n{}", report::shrunk(campaign, failure.seed, &shrunk));
            (shrunk.outcome, command(campaign, &shrunk.cut, failure.seed))
        }
        first if options.html.is_some() => {
            let seed = first.map_or(campaign.first, |failure| failure.seed);
            let outcome = run_one::<Real>(campaign, &campaign.cut, seed, true);
            (outcome, command(campaign, &campaign.cut, seed))
        }
        _ => return Ok(()),
    };
    match &options.html {
        Some(path) => write(path, &page::page(&outcome, &command)),
        None => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::Machine(format!("{}: {error}", path.display())))
}

/// Runs the seeds that failed once.
fn again(stop: &AtomicBool) -> Result<bool, Failure> {
    let cases = past::parse(past::FILE).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut good = true;
    for case in &cases {
        let summary = campaign::run::<Real>(case, stop, &|_| {}).map_err(Failure::Usage)?;
        for failure in &summary.failures {
            good = false;
            println!("past seed {}: {}", failure.seed, failure.violation);
            println!("  {}", command(case, &case.cut, failure.seed));
        }
    }
    Ok(good)
}
