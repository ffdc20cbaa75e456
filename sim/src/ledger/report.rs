//! What a comparison of ledgers found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;
use sinew_rt::clock::Nanos;

use super::record::Told;

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Ledgers that were compared.
    pub ledgers: u64,
    /// Lives of processes in them.
    pub lives: u64,
    /// Lives whose last line a kill tore off.
    pub torn: u64,
    /// What happened, by topic.
    pub topics: BTreeMap<String, TopicReport>,
    /// How often a promise was broken.
    pub violations: u64,
    /// The first of them.
    pub listed: Vec<Violation>,
}

/// What happened on one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// Messages sent.
    pub sent: u64,
    /// Messages got, duplicates among them.
    pub delivered: u64,
    /// Messages sent that nobody got, whether that was reported or not.
    pub undelivered: u64,
    /// Reports of missing messages.
    pub gaps: u64,
    /// Messages in them.
    pub reported_missing: u64,
    /// Messages of the beginning of a sender's life that a receiver missed which was there before.
    pub missed_at_join: u64,
    /// Messages that came once more after the receiver restarted, where that is allowed.
    pub again_after_restart: u64,
    /// How commands ended, as their senders were told.
    pub outcomes: BTreeMap<Told, u64>,
    /// From before the sending to after the receipt, sorted.
    #[serde(skip)]
    pub latencies_ns: Vec<i64>,
}

impl TopicReport {
    /// The latency that `share` (from 0 to 1) of all messages did not exceed.
    #[must_use]
    pub fn latency(&self, share: f64) -> Option<Nanos> {
        let last = self.latencies_ns.len().checked_sub(1)?;
        // Rounding a share of a count; both ends are within.
        let place = ((last as f64 * share).ceil() as usize).min(last);
        self.latencies_ns.get(place).copied().map(Nanos::new)
    }
}

/// A promise that was broken, and where it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are a place and the numbers in the message")]
pub enum Violation {
    /// A line in the middle of a life cannot be read, is missing or is out of its order.
    Damaged { ledger: String, line: usize },
    /// A life has no higher epoch than the one before it.
    EpochDidNotGrow { ledger: String, line: usize, before: u64, after: u64 },
    /// A process came back as somebody else.
    AnotherKey { ledger: String, line: usize },
    /// A sender left out a number, or used one twice.
    Misnumbered { ledger: String, line: usize, topic: String, sequence: u64, expected: u64 },
    /// A receiver heard from an earlier life after a later one.
    EpochWentBack { ledger: String, line: usize, from: u64, before: u64, epoch: u64 },
    /// A message was got twice.
    Duplicate {
        ledger: String,
        line: usize,
        topic: String,
        epoch: u64,
        sequence: u64,
        after_restart: bool,
    },
    /// A message was got that nobody sent.
    NeverSent {
        ledger: String,
        line: usize,
        topic: String,
        from: u64,
        epoch: u64,
        sequence: u64,
        no_ledger: bool,
    },
    /// A message was got with another payload.
    Altered { ledger: String, line: usize, topic: String, epoch: u64, sequence: u64 },
    /// A message was got after a later one, or after it was reported as missing.
    OutOfOrder { ledger: String, line: usize, topic: String, epoch: u64, sequence: u64, floor: u64 },
    /// Messages did not come, and nobody said so.
    SilentGap { ledger: String, line: usize, topic: String, epoch: u64, first: u64, last: u64 },
    /// A report of missing messages is wrong.
    FalseGap {
        ledger: String,
        line: usize,
        topic: String,
        epoch: u64,
        first: u64,
        last: u64,
        reason: String,
    },
    /// A sender was told something about a command that is not so, or was told twice.
    Outcome {
        ledger: String,
        line: usize,
        topic: String,
        epoch: u64,
        sequence: u64,
        told: Told,
        twice: bool,
    },
    /// Both ends ended in good order, and messages neither came nor were reported as missing.
    Unfinished { ledger: String, topic: String, epoch: u64, first: u64, last: u64 },
    /// A ledger that should be complete does not end in good order.
    NotEnded { ledger: String },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { ledger, line } => {
                write!(f, "{ledger}:{line}: the line is damaged, or lines before it are missing")
            }
            Self::EpochDidNotGrow { ledger, line, before, after } => {
                write!(f, "{ledger}:{line}: epoch {after} follows epoch {before}")
            }
            Self::AnotherKey { ledger, line } => {
                write!(f, "{ledger}:{line}: the life has another key than the one before it")
            }
            Self::Misnumbered { ledger, line, topic, sequence, expected } => {
                write!(f, "{ledger}:{line}: {topic}: number {sequence} where {expected} was due")
            }
            Self::EpochWentBack { ledger, line, from, before, epoch } => {
                write!(f, "{ledger}:{line}: epoch {epoch} of {from:016x} after epoch {before}")
            }
            Self::Duplicate { ledger, line, topic, epoch, sequence, after_restart } => {
                let when = if *after_restart { " after a restart" } else { "" };
                write!(f, "{ledger}:{line}: {topic}: {sequence} of epoch {epoch} got twice{when}")
            }
            Self::NeverSent { ledger, line, topic, from, epoch, sequence, no_ledger } => {
                let hint = match no_ledger {
                    true => " (there is no ledger of it: give that of every sender)",
                    false => "",
                };
                write!(
                    f,
                    "{ledger}:{line}: {topic}: {sequence} of epoch {epoch} was never sent by \
                     {from:016x}{hint}"
                )
            }
            Self::Altered { ledger, line, topic, epoch, sequence } => {
                write!(
                    f,
                    "{ledger}:{line}: {topic}: {sequence} of epoch {epoch} is not what was sent"
                )
            }
            Self::OutOfOrder { ledger, line, topic, epoch, sequence, floor } => write!(
                f,
                "{ledger}:{line}: {topic}: {sequence} of epoch {epoch} after {floor} was done"
            ),
            Self::SilentGap { ledger, line, topic, epoch, first, last } => write!(
                f,
                "{ledger}:{line}: {topic}: {first} to {last} of epoch {epoch} did not come, and no gap \
                 was reported"
            ),
            Self::FalseGap { ledger, line, topic, epoch, first, last, reason } => write!(
                f,
                "{ledger}:{line}: {topic}: a gap from {first} to {last} of epoch {epoch}: {reason}"
            ),
            Self::Outcome { ledger, line, topic, epoch, sequence, told, twice } => {
                let why = match (twice, told) {
                    (true, _) => "it had an outcome already",
                    (_, Told::Accepted | Told::Rejected) => "nobody got it and decided so",
                    _ => "it was delivered",
                };
                write!(
                    f,
                    "{ledger}:{line}: {topic}: {sequence} of epoch {epoch} is {told:?}, and {why}"
                )
            }
            Self::Unfinished { ledger, topic, epoch, first, last } => write!(
                f,
                "{ledger}: {topic}: {first} to {last} of epoch {epoch} neither came nor were reported \
                 as missing"
            ),
            Self::NotEnded { ledger } => {
                write!(f, "{ledger}: the last life does not end in good order")
            }
        }
    }
}

/// A topic as it is in JSON.
#[derive(Serialize)]
struct TopicJson<'a> {
    #[serde(flatten)]
    counts: &'a TopicReport,
    latency_ns_p50: Option<i64>,
    latency_ns_p99: Option<i64>,
    latency_ns_max: Option<i64>,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    version: u32,
    report: &'static str,
    ledgers: u64,
    lives: u64,
    torn: u64,
    topics: BTreeMap<&'a str, TopicJson<'a>>,
    violations: u64,
    listed: &'a [Violation],
}

impl Report {
    /// The report as JSON.
    ///
    /// # Errors
    /// None that is known: the report is plain data.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let topic = |(name, topic)| {
            let topic: &TopicReport = topic;
            let latency = |share| topic.latency(share).map(Nanos::as_nanos);
            let json = TopicJson {
                counts: topic,
                latency_ns_p50: latency(0.5),
                latency_ns_p99: latency(0.99),
                latency_ns_max: latency(1.0),
            };
            (String::as_str(name), json)
        };
        serde_json::to_string_pretty(&ReportJson {
            version: 1,
            report: "check",
            ledgers: self.ledgers,
            lives: self.lives,
            torn: self.torn,
            topics: self.topics.iter().map(topic).collect(),
            violations: self.violations,
            listed: &self.listed,
        })
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(format!(
            "{} ledgers, {} lives, {} of them with a torn last line",
            self.ledgers, self.lives, self.torn
        ));
        for (name, topic) in &self.topics {
            line(format!(
                "{name}: {} sent, {} delivered, {} not delivered; {} gaps reported with {} messages",
                topic.sent, topic.delivered, topic.undelivered, topic.gaps, topic.reported_missing
            ));
            if let [Some(p50), Some(p99), Some(most)] = [0.5, 0.99, 1.0].map(|s| topic.latency(s)) {
                line(format!("    latency p50 {p50}, p99 {p99}, longest {most}"));
            }
            if topic.missed_at_join + topic.again_after_restart > 0 {
                line(format!(
                    "    {} missed at the beginning of a sender's life, {} again after a restart",
                    topic.missed_at_join, topic.again_after_restart
                ));
            }
            if !topic.outcomes.is_empty() {
                let outcomes: Vec<_> = topic
                    .outcomes
                    .iter()
                    .map(|(told, count)| format!("{count} {told:?}"))
                    .collect();
                line(format!("    outcomes: {}", outcomes.join(", ")));
            }
        }
        for violation in &self.listed {
            line(format!("VIOLATION {violation}"));
        }
        let unlisted = self.violations - self.listed.len() as u64;
        if unlisted > 0 {
            line(format!("and {unlisted} more violations"));
        }
        line(match self.violations {
            0 => "every promise was kept".to_owned(),
            1 => "1 violation".to_owned(),
            n => format!("{n} violations"),
        });
        text
    }
}
