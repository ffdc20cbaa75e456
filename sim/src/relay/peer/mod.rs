//! `sinew-sim peer`: a real node that publishes at a rate, and writes down what it sends before it
//! sends it and what it gets before it acts on it.
//!
//! It looks like an observer to the machine (ordinary priority, no locked memory, nothing spins), so any
//! user can run many of them.

mod traffic;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use sinew_io::node::{Node, NodeBuilder, NodeError};
use sinew_rt::clock::{self, Nanos};

use crate::ledger::record::Record;
use crate::ledger::write::LedgerWriter;
use traffic::{Identity, Inbox, Outbox};

/// The name that a configuration gives as `schema` of every topic that peers exchange.
pub use traffic::SCHEMA;

/// How long a turn sleeps.
const TURN: Duration = Duration::from_micros(250);

/// Messages that one turn publishes on each topic, and takes from each.
const PER_TURN: u64 = 64;

/// How far the rate is caught up with after a stall.
const DEBT: Nanos = Nanos::from_millis(250);

/// Run a node that publishes at a rate and keeps a ledger.
///
/// The configuration is an ordinary sinew.toml whose topics have schema = "Entry@1". Every topic that some
/// peer publishes is received. Whatever the configuration says of real-time, the node runs at ordinary
/// priority. With --stdin, a line `quiet` on standard input ends publishing, and `go` begins it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew-sim peer arm.toml --ledger arm.ledger --publish cmd --publish state --rate-hz 200
  sinew-sim peer brain.toml --ledger brain.ledger
  sinew-sim check arm.ledger brain.ledger

Exit codes:
  0  ended as asked
  1  the node ended by a panic
  2  the configuration cannot be used
  3  the machine refused: a port in use, a ledger that cannot be written")]
pub struct PeerArgs {
    /// The configuration, a sinew.toml
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// The ledger, which is appended to
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Publish this topic; may be given more than once
    #[arg(long, value_name = "TOPIC")]
    publish: Vec<String>,
    /// Messages a second on each published topic
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate_hz: u32,
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Take orders from standard input, and end with it, so that the node does not outlive who started it
    #[arg(long)]
    stdin: bool,
    /// Publish nothing before a line `go` on standard input (with --stdin); a line with `matched` on
    /// standard output says when every reliable topic has a reader
    #[arg(long, requires = "stdin")]
    quiet: bool,
    /// Put the panel into this directory instead of the usual one
    #[arg(long, value_name = "DIR")]
    panel_dir: Option<PathBuf>,
}

/// Why a peer ended otherwise than asked.
enum Failure {
    Panic(Vec<String>),
    Node(NodeError),
    Machine(String),
}

/// Runs the peer.
#[must_use]
pub fn run(args: &PeerArgs) -> ExitCode {
    let (code, message) = match live(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Panic(messages)) => (1, messages.join("; ")),
        Err(Failure::Node(error)) => (if error.is_config() { 2 } else { 3 }, error.to_string()),
        Err(Failure::Machine(message)) => (3, message),
    };
    eprintln!("sinew-sim: {message}");
    ExitCode::from(code)
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

fn live(args: &PeerArgs) -> Result<(), Failure> {
    let machine = |error: io::Error| Failure::Machine(error.to_string());
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, stopped.clone()).map_err(machine)?;
    }
    let mut builder = Node::from_config(&args.config)?.observer().loops(0);
    if let Some(dir) = &args.panel_dir {
        builder = builder.panel_dir(dir);
    }
    let (mut outboxes, mut inboxes) = traffic(&mut builder, &args.publish)?;
    let cannot = |error: io::Error| {
        let path = args.ledger.display();
        Failure::Machine(format!("cannot write {path}: {error}; give a path that you may write"))
    };
    let mut ledger = LedgerWriter::open(&args.ledger).map_err(cannot)?;
    let owner = builder.config().name.clone();
    let node = builder.start()?;

    let epoch = node.report().epoch.get();
    let identity = Identity { key: node.public_key().id().get(), epoch };
    let at = clock::now().as_nanos();
    let mut first = vec![Record::Life { owner, key: identity.key, epoch, at }];
    first.extend(outboxes.iter().map(Outbox::declares));
    first.extend(inboxes.iter().map(Inbox::declares));
    first.iter().try_for_each(|record| ledger.write(record)).map_err(cannot)?;
    say(&serde_json::json!({
        "version": 1, "report": "peer", "event": "started",
        "pid": std::process::id(), "epoch": epoch, "address": node.report().address.to_string(),
    }));

    let orders = args.stdin.then(listen);
    let started_at = clock::now();
    let end = args.seconds.map(|seconds| started_at + Nanos::new((seconds * 1e9) as i64));
    let mut pace = Pace::new(args.rate_hz);
    if !args.quiet {
        pace.go(started_at);
    }
    let (mut broken, mut matched) = (false, false);
    while !stopped.load(Ordering::Relaxed) && end.is_none_or(|end| clock::now() < end) && !broken {
        match orders.as_ref().map(Receiver::try_recv) {
            Some(Ok(Order::Go)) => pace.go(clock::now()),
            Some(Ok(Order::Quiet)) => pace.stop(),
            Some(Err(TryRecvError::Disconnected)) => break,
            None | Some(Err(TryRecvError::Empty)) => {}
        }
        let due = pace.due(clock::now());
        for outbox in &mut outboxes {
            outbox.publish(identity, due, &mut ledger).map_err(cannot)?;
            outbox.hear(PER_TURN, &mut ledger).map_err(cannot)?;
        }
        for inbox in &mut inboxes {
            inbox.drain(PER_TURN, &mut ledger).map_err(cannot)?;
        }
        if args.quiet && !matched {
            matched = are_matched(&node, &outboxes);
            if matched {
                say(&serde_json::json!({ "version": 1, "report": "peer", "event": "matched" }));
            }
        }
        broken = node.is_broken();
        std::thread::sleep(TURN);
    }

    let counters = node.panel().snapshot().map(|panel| panel.counters).unwrap_or_default();
    let ended = node.stop();
    // What the lanes still delivered while they ended.
    for inbox in &mut inboxes {
        inbox.drain(u64::MAX, &mut ledger).map_err(cannot)?;
    }
    for outbox in &mut outboxes {
        outbox.hear(u64::MAX, &mut ledger).map_err(cannot)?;
        outbox.finish(&mut ledger).map_err(cannot)?;
    }
    ended.map_err(Failure::Panic)?;
    ledger.write(&Record::End { at: clock::now().as_nanos() }).map_err(cannot)?;
    let counters: serde_json::Map<String, serde_json::Value> = counters
        .into_iter()
        .filter(|(_, value)| *value > 0)
        .map(|(name, value)| (name, value.into()))
        .collect();
    say(&serde_json::json!({
        "version": 1, "report": "peer", "event": "ended", "counters": counters,
    }));
    Ok(())
}

/// Whether every reliable topic that is published has a reader that said so.
fn are_matched(node: &Node, outboxes: &[Outbox]) -> bool {
    let Ok(panel) = node.panel().snapshot() else { return false };
    let readers = |topic: &str| panel.gauge(&format!("readers/{topic}")).unwrap_or(0);
    outboxes.iter().filter_map(Outbox::reliable).all(|topic| readers(topic) > 0)
}

/// What the peer sends and what it receives, as the configuration declares it.
fn traffic(
    builder: &mut NodeBuilder,
    publish: &[String],
) -> Result<(Vec<Outbox>, Vec<Inbox>), NodeError> {
    let config = builder.config().clone();
    let mut outboxes = Vec::with_capacity(publish.len());
    for name in publish {
        let declared = config.topics.iter().find(|topic| topic.name == *name);
        let topic = declared.ok_or_else(|| {
            let problem = format!("--publish {name}: the configuration declares no such topic");
            let hint = format!("add [[topic]] with name = \"{name}\"");
            config.error_at("topic", problem, hint)
        })?;
        outboxes.push(Outbox::new(builder, topic)?);
    }
    let mut inboxes = Vec::new();
    for topic in &config.topics {
        if config.peers.iter().any(|peer| peer.publishes.contains(&topic.name)) {
            inboxes.push(Inbox::new(builder, topic)?);
        }
    }
    Ok((outboxes, inboxes))
}

/// How many messages are due on each topic.
struct Pace {
    period: Nanos,
    /// When the next one is due; `None` while nothing is published.
    next: Option<Nanos>,
}

impl Pace {
    fn new(rate_hz: u32) -> Self {
        let period = match rate_hz {
            0 => Nanos::MAX,
            rate => (Nanos::from_secs(1) / i64::from(rate)).max(Nanos::new(1)),
        };
        Self { period, next: None }
    }

    fn go(&mut self, now: Nanos) {
        self.next = Some(now + self.period);
    }

    fn stop(&mut self) {
        self.next = None;
    }

    /// Those that became due since the last call, up to [`PER_TURN`].
    fn due(&mut self, now: Nanos) -> u64 {
        let Some(next) = &mut self.next else { return 0 };
        *next = (*next).max(now - DEBT);
        let mut due = 0;
        while due < PER_TURN && *next <= now {
            *next += self.period;
            due += 1;
        }
        due
    }
}

/// What a line of standard input asks for. Its end asks for the end.
enum Order {
    Go,
    Quiet,
}

fn listen() -> Receiver<Order> {
    let (given, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let order = match line.as_str() {
                "go" => Order::Go,
                "quiet" => Order::Quiet,
                _ => continue,
            };
            if given.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

/// Prints a line of JSON at once. Nobody may be reading, which is no failure.
fn say(line: &serde_json::Value) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
