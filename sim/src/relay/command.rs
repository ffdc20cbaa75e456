//! `sinew-sim relay`: the relay as a command.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use signal_hook::consts::{SIGINT, SIGTERM};
use sinew_rt::clock::Nanos;

use super::turn::{Relay, RelayError};
use crate::scenario::Scenario;
use crate::scenario::file;

/// Stand between real processes, and treat their traffic as a scenario says.
///
/// Tell each node the relay's address where its peer's should be: `listen` of the path from the one to
/// the other. What comes there is lost, delayed, reordered, doubled, corrupted, clamped or partitioned,
/// and leaves by the socket of the way back. Nodes with `run = […]` are started, and killed and stalled as
/// the scenario's faults say; other processes are never touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew-sim relay lossy.toml --seconds 30 --json report.json
  sinew-sim relay lossy.toml --node arm=127.0.0.1:7401 --listen arm:brain=127.0.0.1:7411

A scenario, with every key that there is:
  seed = 7                        # the same seed, the same decisions
  seconds = 30
  [[node]]
  name = \"arm\"
  address = \"127.0.0.1:7401\"      # where the node really is
  run = [\"sinew-sim\", \"peer\", \"arm.toml\", \"--stdin\"]
  [[node]]
  name = \"brain\"
  address = \"127.0.0.1:7402\"
  [shape.lossy]
  loss_percent = 20
  duplicate_percent = 10
  corrupt_percent = 0.1
  reorder_percent = 25            # so many are held back…
  reorder_ms = 20                 # …for up to so long
  delay = { fixed_ms = 5 }        # or { uniform_ms = [1, 20] },
                                  # or { normal_ms = [10, 3], bounds_ms = [0, 30] }
  rate = { bytes_per_s = 1_000_000, queue_bytes = 65_536 }
  [[link]]                        # the last one that matches holds; \"*\" is any node
  from = \"arm\"
  to = \"*\"
  shape = \"lossy\"
  [[path]]                        # one for each direction
  from = \"arm\"
  to = \"brain\"
  listen = \"127.0.0.1:7411\"       # what the arm is told is the brain's address
  transport = \"udp\"               # or \"tcp\": delay, rate, stalls and resets, and no loss
  [[path]]
  from = \"brain\"
  to = \"arm\"
  listen = \"127.0.0.1:7412\"
  [[fault]]
  kind = \"partition\"              # from, to, for_ms
  at_ms = 1_000
  for_ms = 500
  from = \"arm\"
  to = \"brain\"
  # kind = \"shape\"   shape, from, to, for_ms    links are of another shape for a while
  # kind = \"reset\"   from, to                   cuts TCP connections
  # kind = \"kill\"    node, restart_after_ms     kill -9 of a node with `run`
  # kind = \"stall\"   node, for_ms               SIGSTOP and SIGCONT

Exit codes:
  0  ran to its end, or to Ctrl-C
  2  the scenario or an option cannot be used
  3  an address is taken, or the system refused something")]
pub struct RelayArgs {
    /// The scenario
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// End after so many seconds, whatever the scenario says
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Use this seed instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where a node really is, instead of what the scenario says
    #[arg(long = "node", value_name = "NAME=ADDRESS")]
    nodes: Vec<String>,
    /// Where a node finds another, instead of what the scenario says
    #[arg(long = "listen", value_name = "FROM:TO=ADDRESS")]
    listens: Vec<String>,
    /// End when standard input ends, so that the relay does not outlive who started it
    #[arg(long)]
    stdin: bool,
    /// Write the report as JSON to a file, or to standard output with `-` (then without any text)
    #[arg(long, value_name = "PATH|-")]
    json: Option<PathBuf>,
}

/// Why the command failed, and with which exit code.
enum Failure {
    Usage(String),
    Machine(String),
}

/// Runs the relay.
#[must_use]
pub fn run(args: &RelayArgs) -> ExitCode {
    let (code, message) = match relay(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Machine(message)) => (3, message),
    };
    eprintln!("sinew-sim: {message}");
    ExitCode::from(code)
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Listen { .. } | RelayError::System { .. } => {
                Self::Machine(error.to_string())
            }
            _ => Self::Usage(error.to_string()),
        }
    }
}

fn relay(args: &RelayArgs) -> Result<(), Failure> {
    let scenario = scenario(args)?;
    let machine = |error: io::Error| Failure::Machine(error.to_string());
    // Kept open for as long as the relay runs.
    let (wakes, bell) = UnixStream::pair().map_err(machine)?;
    wakes.set_nonblocking(true).map_err(machine)?;
    for signal in [SIGTERM, SIGINT] {
        let bell = bell.try_clone().map_err(machine)?;
        signal_hook::low_level::pipe::register(signal, bell).map_err(machine)?;
    }
    let mut relay = Relay::bind(scenario)?;
    relay.end_on(wakes.as_raw_fd())?;
    if args.stdin {
        relay.end_on(io::stdin().as_raw_fd())?;
    }
    let json_only = args.json.as_deref() == Some(Path::new("-"));
    if !json_only {
        for (from, to, address) in relay.listens() {
            print(&format!("{from} finds {to} at {address}\n"))?;
        }
        print("running until Ctrl-C\n")?;
    }
    let report = relay.run()?;
    if !json_only {
        print(&report.text())?;
    }
    let Some(path) = &args.json else { return Ok(()) };
    let json = serde_json::to_string_pretty(&report).map_err(|error| machine(error.into()))? + "\n";
    if json_only {
        return print(&json);
    }
    std::fs::write(path, json).map_err(|error| {
        let path = path.display();
        Failure::Machine(format!("cannot write {path}: {error}; give a path that you may write"))
    })
}

/// Reads the scenario and puts into it what the command line says.
fn scenario(args: &RelayArgs) -> Result<Scenario, Failure> {
    let path = args.scenario.display();
    let text = std::fs::read_to_string(&args.scenario).map_err(|error| {
        Failure::Usage(format!("cannot read {path}: {error}; give the path of a scenario"))
    })?;
    let mut scenario = file::parse(&text).map_err(|error| {
        Failure::Usage(format!("{path}:{}: {}; {}", error.line, error.problem, error.hint))
    })?;
    if let Some(seed) = args.seed {
        scenario.seed = seed;
    }
    if let Some(seconds) = args.seconds {
        if !(0.0..=864_000.0).contains(&seconds) {
            let problem = format!("--seconds {seconds}: use a number from 0 to 864000");
            return Err(Failure::Usage(problem));
        }
        scenario.duration = Some(Nanos::new((seconds * 1e9) as i64));
    }
    for option in &args.nodes {
        let (name, address) = assignment("--node", "NAME=ADDRESS", option)?;
        let node = known(&scenario, name)?;
        if let Some(node) = scenario.nodes.get_mut(node.get()) {
            node.address = Some(address);
        }
    }
    for option in &args.listens {
        let (pair, address) = assignment("--listen", "FROM:TO=ADDRESS", option)?;
        let (from, to) = pair.split_once(':').ok_or_else(|| {
            Failure::Usage(format!("--listen {option}: write it as FROM:TO=ADDRESS"))
        })?;
        let (from, to) = (known(&scenario, from)?, known(&scenario, to)?);
        let path = scenario.paths.iter_mut().find(|path| path.from == from && path.to == to);
        match path {
            Some(path) => path.listen = Some(address),
            // A scenario that was made for the simulator has none.
            None => scenario.paths.push(crate::scenario::Path {
                from,
                to,
                listen: Some(address),
                transport: crate::scenario::Transport::Udp,
            }),
        }
    }
    Ok(scenario)
}

fn known(scenario: &Scenario, name: &str) -> Result<crate::scenario::NodeIndex, Failure> {
    scenario.node(name).ok_or_else(|| {
        let names: Vec<_> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
        Failure::Usage(format!("there is no node `{name}`; use one of: {}", names.join(", ")))
    })
}

fn assignment<'a>(
    option: &str,
    form: &str,
    given: &'a str,
) -> Result<(&'a str, SocketAddr), Failure> {
    given
        .split_once('=')
        .and_then(|(name, address)| Some((name, address.parse().ok()?)))
        .ok_or_else(|| {
            let example = "the address as 127.0.0.1:7401";
            Failure::Usage(format!("{option} {given}: write it as {form}, {example}"))
        })
}

/// Prints at once. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Machine(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
