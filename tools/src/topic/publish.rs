//! `sinew topic pub`: messages of a known type, for tests.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use sinew_rt::clock::{self, Nanos};

use super::assign;
use super::diagnosis::Situation;
use super::echo::PATIENCE;
use super::observer::{Observer, ObserverArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::messages::MessageType;
use crate::output::JsonArgs;

/// Publish messages of a known type, for tests.
///
/// Takes part with an identity of its own, which each subscriber must have among its peers with the
/// topic in `publishes`. FIELDS are `name = value`, with commas between; what is not given is zero, and
/// a `count` follows the longest list. Every message is the same. It waits until a subscriber answers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew topic pub arm/setpoint JointSetpoint 'drive = effort, effort = [0.5]' --config observer.toml --count 1
  sinew topic pub base/twist Twist 'linear = [0.2, 0, 0]' --config observer.toml --rate-hz 50
  sinew topic pub arm/fault Fault 'severity = error, text = \"too hot\", value = 81.5' --config observer.toml
  sinew topic pub arm/state JointState 'help' --config observer.toml   the fields with their units

Exit codes:
  0  published
  1  no subscriber answered; or one on this machine delivered none of the messages, and why
  2  wrong usage or configuration
  3  this machine cannot: the observer's port or panel is in use, …")]
pub(super) struct PubArgs {
    /// The topic, such as arm/setpoint
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The message type: Fault, Heartbeat, JointSetpoint, JointState or Twist, with or without `@1`
    #[arg(value_name = "TYPE")]
    type_name: String,
    /// Values by field, or `help`
    #[arg(value_name = "FIELDS", default_value = "")]
    fields: String,
    /// Messages a second
    #[arg(long, value_name = "HZ", default_value_t = 1.0)]
    rate_hz: f64,
    /// End after so many messages; otherwise at Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long to wait until a subscriber answers, in seconds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    wait_seconds: u32,
    #[command(flatten)]
    observer: ObserverArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// The fastest rate: sleeping between two messages takes some tens of microseconds.
const RATE_HZ_MAX: f64 = 10_000.0;
/// After a subscriber was answered its lanes still have to take that in.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Published<'a> {
    version: u32,
    report: &'static str,
    topic: &'a str,
    #[serde(rename = "type")]
    type_name: &'static str,
    published: u64,
    /// Messages that the send stage did not take.
    not_sent: u64,
    duration_ns: i64,
    /// Peers that answered.
    to: Vec<String>,
    /// What became of them at peers on this machine.
    local: Vec<AtPeer>,
}

#[derive(Serialize)]
struct AtPeer {
    peer: String,
    node: String,
    delivered: u64,
    /// What the node dropped meanwhile, of every sender, by `STAGE.drop.REASON@SOURCE`.
    dropped: Vec<(String, u64)>,
}

pub(super) fn run(args: &PubArgs) -> Outcome {
    let Some(of) = MessageType::named(&args.type_name) else {
        let known = MessageType::names();
        let unknown = &args.type_name;
        return Err(Failure::usage(format!(
            "no message type `{unknown}` is known; use one of {known}"
        )));
    };
    if args.fields.trim() == "help" {
        return Err(Failure::usage(format!("{} has {}", of.name, assign::describe(of))));
    }
    let message = assign::message(of, &args.fields).map_err(Failure::usage)?;
    if !(args.rate_hz > 0.0 && args.rate_hz <= RATE_HZ_MAX) {
        let rate = args.rate_hz;
        return Err(Failure::usage(format!(
            "--rate-hz {rate}: give more than 0 and at most {RATE_HZ_MAX}"
        )));
    }
    args.json.check_writable()?;
    let mut builder = args.observer.builder()?;
    if builder.config().peers.is_empty() {
        let config = builder.config();
        let hint = "add a [[peer]] for each subscriber".to_owned();
        let error = config.error_at("peer", "nobody is there to publish to".to_owned(), hint);
        return Err(Failure::usage(error));
    }
    let mut publisher = (of.publisher)(&mut builder, &args.topic)?;
    let observer = args.observer.start(builder)?;
    let to = wait_for_subscribers(&observer, args.wait_seconds)?;
    if to.is_empty() {
        let reasons = observer.situation()?.silent_peers().join("\n");
        observer.stop()?;
        let message = format!("nothing was published, for no subscriber answers:\n{reasons}");
        return Err(Failure { exit: Exit::Failed, message });
    }

    let begin = clock::now();
    let (mut published, mut not_sent) = (0, 0);
    for n in 0..args.count.unwrap_or(u64::MAX) {
        let due = begin + Nanos::new((n as f64 * 1e9 / args.rate_hz) as i64);
        if !sleep_until(due) {
            break;
        }
        match publisher.publish(&message) {
            Ok(()) => published += 1,
            Err(_) => not_sent += 1,
        }
    }
    let duration_ns = (clock::now() - begin).as_nanos();
    std::thread::sleep(SETTLE);
    let local = at_peers(&observer.situation()?, &args.topic);
    observer.stop()?;
    let report = Published {
        version: 1,
        report: "topic pub",
        topic: &args.topic,
        type_name: of.name,
        published,
        not_sent,
        duration_ns,
        to,
        local,
    };
    args.json.hand_out(|| report.text(), &report)?;
    let lost = |peer: &AtPeer| published > 0 && peer.delivered == 0;
    Ok(if report.local.iter().any(lost) { Exit::Failed } else { Exit::Done })
}

/// The peers that answer within the time: all of them, if they do.
fn wait_for_subscribers(observer: &Observer, seconds: u32) -> Result<Vec<String>, Failure> {
    let begin = clock::now();
    let until = begin + Nanos::from_secs(i64::from(seconds));
    loop {
        let situation = observer.situation()?;
        let peers = &situation.config.peers;
        let linked: Vec<_> = peers.iter().filter(|peer| situation.is_linked(peer)).collect();
        let names = || linked.iter().map(|peer| peer.name.clone()).collect();
        let now = clock::now();
        // For the others no longer than a healthy one takes.
        let enough = !linked.is_empty() && now - begin > PATIENCE;
        if linked.len() == peers.len() || enough {
            std::thread::sleep(SETTLE);
            return Ok(names());
        }
        if now >= until || super::is_over() {
            return Ok(names());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sleeps, and says whether to go on.
fn sleep_until(due: Nanos) -> bool {
    const TURN: Nanos = Nanos::from_millis(50);
    loop {
        let now = clock::now();
        if super::is_over() {
            return false;
        }
        if now >= due {
            return true;
        }
        clock::sleep_until(due.min(now + TURN));
    }
}

fn at_peers(situation: &Situation<'_>, topic: &str) -> Vec<AtPeer> {
    let peers = situation.config.peers.iter().zip(&situation.local);
    let at = peers.filter_map(|(peer, local)| {
        let local = local.as_ref()?;
        let drops = local.drops().map(|(name, count)| (name.to_owned(), count));
        Some(AtPeer {
            peer: peer.name.clone(),
            node: local.now.name.clone(),
            delivered: local.risen(&format!("delivered/{topic}")),
            dropped: drops.collect(),
        })
    });
    at.collect()
}

impl Published<'_> {
    fn text(&self) -> String {
        let Self { topic, type_name, published, not_sent, .. } = self;
        let mut text = String::new();
        let duration = Nanos::new(self.duration_ns);
        let to = self.to.join(", ");
        let _ =
            writeln!(text, "published {published} {type_name} on {topic} to {to} in {duration}");
        if *not_sent > 0 {
            let _ =
                writeln!(text, "  {not_sent} more were not sent: the send stage did not keep up");
        }
        for AtPeer { peer, node, delivered, dropped } in &self.local {
            let _ =
                writeln!(text, "  {peer} (node `{node}` on this machine) delivered {delivered}");
            for (name, count) in dropped {
                let _ = writeln!(text, "  it dropped {count} meanwhile: {name}{}", meaning(name));
            }
        }
        text
    }
}

/// What the commonest drops of a publisher's messages mean.
fn meaning(drop: &str) -> &'static str {
    match drop {
        _ if drop.contains("unknown_topic") => " (it does not subscribe to the topic)",
        _ if drop.contains("not_permitted") => {
            " (the topic is not in its `publishes` of the sender)"
        }
        _ if drop.contains("schema_mismatch") => " (it takes another message type)",
        _ if drop.contains("rate_limited") => " (its token bucket: admission.peer_checks_per_s)",
        _ => "",
    }
}
