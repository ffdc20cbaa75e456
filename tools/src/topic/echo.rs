//! `sinew topic echo`: the messages of a topic, decoded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use sinew_io::node::Observed;
use sinew_io::wire::{Epoch, KeyId};
use sinew_rt::clock::{self, Nanos};

use super::missed;
use super::observer::{Observer, ObserverArgs, check_published};
use super::show;
use crate::exit::{Exit, Failure, Outcome};
use crate::messages::MessageType;
use crate::output::JsonArgs;

/// Show the messages of a topic, decoded.
///
/// Takes part as an observer, whose configuration names its key, its address, and each peer that it
/// hears with the topic in `publishes`; the publisher has to have the observer among its peers, too.
/// Types that this command does not know are shown as hexadecimal bytes. When nothing arrives, the
/// reason is said after two seconds, and waiting goes on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew topic echo arm/state --config observer.toml
  sinew topic echo arm/state --config observer.toml --count 1
  sinew topic echo arm/state --config observer.toml --json - | jq .fields.position

Exit codes:
  0  at least one message was shown
  1  nothing arrived until the end (--seconds, Ctrl-C), and why
  2  wrong usage or configuration
  3  this machine cannot: the observer's port or panel is in use, …")]
pub(super) struct EchoArgs {
    /// The topic, such as arm/state
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, in seconds; otherwise at Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    #[command(flatten)]
    observer: ObserverArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Messages that may wait to be printed.
pub(super) const QUEUE: usize = 1_024;
/// How often the queue is looked at while it is empty.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// For how long nothing may arrive before the reason is said.
pub(super) const PATIENCE: Nanos = Nanos::from_secs(2);

pub(super) fn run(args: &EchoArgs) -> Outcome {
    let mut builder = args.observer.builder()?;
    check_published(builder.config(), &args.topic)?;
    let mut messages = builder.observe(&args.topic, QUEUE)?;
    let mut lines = args.json.lines()?;
    let observer = args.observer.start(builder)?;
    let mut records = Records { senders: observer.senders(), last: BTreeMap::new() };
    let mut watch = Watch::new(&args.topic, args.seconds);
    while !watch.is_over(&observer)? {
        let Some(message) = messages.pop() else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let record = records.record(&args.topic, &message);
        lines.hand_out(|| record.text(&message), &record)?;
        watch.count += 1;
        if args.count == Some(watch.count) {
            break;
        }
    }
    watch.end(observer)
}

/// Waits for messages: says why none come, and how it ended.
pub(super) struct Watch<'a> {
    topic: &'a str,
    begin: Nanos,
    until: Option<Nanos>,
    pub(super) count: u64,
    told: Vec<String>,
    next_look: Nanos,
}

impl<'a> Watch<'a> {
    pub(super) fn new(topic: &'a str, seconds: Option<u32>) -> Self {
        let begin = clock::now();
        let until = seconds.map(|seconds| begin + Nanos::from_secs(i64::from(seconds)));
        Self { topic, begin, until, count: 0, told: Vec::new(), next_look: begin + PATIENCE }
    }

    /// Whether it is time to end. Every two seconds, says what keeps messages from coming, if that is
    /// another reason than before.
    pub(super) fn is_over(&mut self, observer: &Observer) -> Result<bool, Failure> {
        let now = clock::now();
        if super::is_over() || self.until.is_some_and(|until| now >= until) {
            return Ok(true);
        }
        if observer.is_broken() {
            return Err(Failure::machine("a thread of the observer ended by a panic"));
        }
        if now >= self.next_look {
            self.next_look = now + PATIENCE;
            let situation = observer.situation()?;
            let reasons = match self.count {
                0 => situation.why_nothing_on(self.topic),
                _ => situation.silent_peers(),
            };
            // Figures in the text grow; that is no news.
            let gist = |reasons: &[String]| -> Vec<String> {
                reasons.iter().map(|r| r.replace(|c: char| c.is_ascii_digit(), "")).collect()
            };
            if gist(&reasons) != gist(&self.told) {
                let waited = now - self.begin;
                let heading = match self.count {
                    0 => format!("nothing on `{}` after {waited}", self.topic),
                    _ => "somebody has gone silent".to_owned(),
                };
                if !reasons.is_empty() {
                    eprintln!("sinew: {heading}:\n{}", reasons.join("\n"));
                }
                self.told = reasons;
            }
        }
        Ok(false)
    }

    /// Ends the observer. That nothing came is the verdict.
    pub(super) fn end(self, observer: Observer) -> Outcome {
        let reasons = match (self.count, self.told.is_empty()) {
            (0, true) => observer.situation()?.why_nothing_on(self.topic),
            _ => Vec::new(),
        };
        let waited = clock::now() - self.begin;
        observer.stop()?;
        if self.count > 0 {
            return Ok(Exit::Done);
        }
        let mut message = format!("nothing arrived on `{}` within {waited}", self.topic);
        if !reasons.is_empty() {
            let _ = write!(message, ":\n{}", reasons.join("\n"));
        }
        Err(Failure { exit: Exit::Failed, message })
    }
}

/// What is known of the senders and their streams.
struct Records {
    senders: BTreeMap<KeyId, (String, String)>,
    /// The last number of each sender's life.
    last: BTreeMap<KeyId, (Epoch, u64)>,
}

/// One message, in the words of its JSON.
#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    report: &'static str,
    topic: &'a str,
    /// What this observer calls the sender.
    sender: String,
    sender_did: String,
    epoch: u64,
    sequence: u64,
    /// Numbers left out since the last message of this life that was shown.
    missed: u64,
    /// From sending to receipt.
    age_ns: i64,
    /// In CLOCK_MONOTONIC of this machine, as the next.
    sent_at_ns: i64,
    received_at_ns: i64,
    #[serde(rename = "type")]
    type_name: Option<&'static str>,
    schema_id: String,
    size_bytes: usize,
    /// Why a receiver must not act on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Json>,
    /// The bytes, of a type that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip)]
    known: Option<&'static MessageType>,
}

impl Records {
    fn record<'a>(&mut self, topic: &'a str, message: &Observed) -> Record<'a> {
        let (epoch, sequence) = (message.epoch, message.sequence.get());
        let last = self.last.insert(message.sender, (epoch, sequence));
        let last = last.filter(|(last, _)| *last == epoch);
        let missed = last.map_or(0, |(_, last)| missed(last, sequence));
        // Only enrolled senders pass the checks.
        let (sender, sender_did) = self.senders.get(&message.sender).cloned().unwrap_or_default();
        let known = MessageType::with_schema(message.schema);
        let payload = message.payload();
        Record {
            version: 1,
            report: "topic echo",
            topic,
            sender,
            sender_did,
            epoch: epoch.get(),
            sequence,
            missed,
            age_ns: (message.received_at - message.sent_at).as_nanos(),
            sent_at_ns: message.sent_at.as_nanos(),
            received_at_ns: message.received_at.as_nanos(),
            type_name: known.map(|known| known.name),
            schema_id: message.schema.to_string(),
            size_bytes: payload.len(),
            problem: known.and_then(|known| (known.validate)(payload).err()),
            fields: known.map(|known| show::json(known, payload)),
            hex: known.is_none().then(|| show::hex(payload)),
            known,
        }
    }
}

impl Record<'_> {
    fn text(&self, message: &Observed) -> String {
        let Self { sender, sender_did, sequence, missed, schema_id, size_bytes, .. } = self;
        let age = Nanos::new(self.age_ns);
        let missed = if *missed > 0 { format!(" ({missed} missed)") } else { String::new() };
        let type_name = self.type_name.map_or_else(|| format!("type {schema_id}"), str::to_owned);
        let mut text =
            format!("{sender} #{sequence}{missed} · {type_name} · age {age} · {sender_did}\n");
        match self.known {
            Some(known) => text.push_str(&show::text(known, message.payload())),
            None => {
                let hex = show::hex(message.payload());
                let _ = writeln!(text, "  {size_bytes} bytes of a type that is not known here:");
                for line in hex.as_bytes().chunks(64) {
                    let _ = writeln!(text, "  {}", String::from_utf8_lossy(line));
                }
            }
        }
        if let Some(problem) = &self.problem {
            let _ = writeln!(text, "  NOT USABLE: {problem}");
        }
        text
    }
}
