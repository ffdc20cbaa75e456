//! `sinew topic hz`: how regularly messages come, and how old they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::Serialize;
use sinew_io::node::Observed;
use sinew_io::wire::{Epoch, KeyId};
use sinew_rt::clock::{self, Nanos};

use super::echo::{PAUSE, QUEUE, Watch};
use super::missed;
use super::observer::{ObserverArgs, check_published};
use super::panels::{Age, End, Nodes, end, topics};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{JsonArgs, Lines};
use crate::panels::PanelDir;

/// Measure the rate of a topic, the age of its messages, and its jitter.
///
/// Without --config, from the panels of the nodes on this machine: the rate at every end, and the age
/// on delivery. No identity is needed, and no node notices. With --config, from an observer's own
/// subscription as in `sinew topic echo`: also the intervals between messages, by the sender's clock
/// and on arrival, and the messages missed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew topic hz arm/state                          at the nodes on this machine
  sinew topic hz arm/state --seconds 10 --json -
  sinew topic hz arm/state --config observer.toml   what arrives at an observer

Exit codes:
  0  measured
  1  no message came until the end (--seconds, Ctrl-C), and why
  2  wrong usage or configuration
  3  no node here has this topic, or this machine cannot run the observer")]
pub(super) struct HzArgs {
    /// The topic, such as arm/state
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The configuration of an observer (see docs/topic.md); without it, panels are read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End after this time, in seconds; otherwise at Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

/// A line is given for each of these, and one for the whole.
const WINDOW: Nanos = Nanos::from_secs(1);

pub(super) fn run(args: &HzArgs) -> Outcome {
    match &args.config {
        None => from_panels(args),
        Some(config) => {
            observed(args, &ObserverArgs { config: config.clone(), dir: args.dir.clone() })
        }
    }
}

/// What the ends on this machine did in some time.
#[derive(Serialize)]
struct AtEnds<'a> {
    version: u32,
    report: &'static str,
    event: &'static str,
    topic: &'a str,
    window_ns: i64,
    ends: Vec<End>,
}

fn from_panels(args: &HzArgs) -> Outcome {
    let topic = args.topic.as_str();
    let mut nodes = Nodes::open(&args.dir);
    let mut all = Vec::new();
    nodes.open.retain(|open| {
        let look = open.look().ok();
        let mut names: Vec<_> =
            look.iter().flat_map(|look| topics(&look.snapshot)).map(|t| t.0.to_owned()).collect();
        let keep = names.iter().any(|name| name == topic);
        all.append(&mut names);
        keep
    });
    if nodes.open.is_empty() {
        all.sort();
        all.dedup();
        let there = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        let why = nodes.unreadable.first().map_or_else(String::new, |why| format!(" ({why})"));
        return Err(Failure::machine(format!(
            "no node on this machine publishes or receives `{topic}`{why}; topics here: {there}; for a \
             node elsewhere give --config observer.toml"
        )));
    }
    let mut lines = args.json.lines()?;
    let first = nodes.look()?;
    let begin = clock::now();
    let until = args.seconds.map(|seconds| begin + Nanos::from_secs(i64::from(seconds)));
    let ends_between = |before: &[sinew_rt::panel::PanelSnapshot], after: &[_]| {
        let pairs = before.iter().zip(after);
        let ends = pairs.flat_map(|(before, after): (_, &sinew_rt::panel::PanelSnapshot)| {
            let roles = topics(after).filter(|(name, _)| *name == topic);
            roles.map(move |(_, role)| end(before, after, topic, role))
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|a, b| (a.role, &a.node).cmp(&(b.role, &b.node)));
        ends
    };
    let mut before = first.clone();
    let mut before_at = begin;
    let mut next = begin + WINDOW;
    loop {
        let over = super::is_over() || until.is_some_and(|until| clock::now() >= until);
        let now = clock::now();
        if now >= next {
            let after = nodes.look()?;
            let ends = ends_between(&before, &after);
            let report = AtEnds {
                version: 1,
                report: "topic hz",
                event: "window",
                topic,
                window_ns: (now - before_at).as_nanos(),
                ends,
            };
            lines.hand_out(|| report.text(), &report)?;
            (before, before_at, next) = (after, now, next + WINDOW);
        }
        if over {
            break;
        }
        clock::sleep_until((now + Nanos::from_millis(20)).min(next));
    }
    let last = nodes.look()?;
    let ends = ends_between(&first, &last);
    let idle = ends.iter().all(|end| end.rate_hz == 0.0);
    let report = AtEnds {
        version: 1,
        report: "topic hz",
        event: "summary",
        topic,
        window_ns: (clock::now() - begin).as_nanos(),
        ends,
    };
    lines.hand_out(|| report.text(), &report)?;
    if idle {
        let message = format!("no message of `{topic}` was sent or delivered meanwhile");
        return Err(Failure { exit: Exit::Failed, message });
    }
    Ok(Exit::Done)
}

impl AtEnds<'_> {
    fn text(&self) -> String {
        let mut text = match self.event {
            "summary" => format!("in all, {}:\n", Nanos::new(self.window_ns)),
            _ => String::new(),
        };
        for End { node, role, rate_hz, age, .. } in &self.ends {
            let _ = write!(text, "{node} {} {rate_hz:.1} Hz", role.word());
            if let Some(age) = age {
                let _ = write!(text, ", {}", age.text());
            }
            text.push('\n');
        }
        text
    }
}

impl Age {
    fn text(&self) -> String {
        let [p50, p99, max] = [self.p50_ns, self.p99_ns, self.max_ns].map(Nanos::new);
        format!("age p50 {p50}, p99 {p99}, max {max}")
    }
}

fn observed(args: &HzArgs, who: &ObserverArgs) -> Outcome {
    let mut builder = who.builder()?;
    check_published(builder.config(), &args.topic)?;
    let mut messages = builder.observe(&args.topic, QUEUE)?;
    let mut lines = args.json.lines()?;
    let observer = who.start(builder)?;
    let mut watch = Watch::new(&args.topic, args.seconds);
    let (mut window, mut whole) = (Arrivals::new()?, Arrivals::new()?);
    let mut next = clock::now() + WINDOW;
    while !watch.is_over(&observer)? {
        match messages.pop() {
            Some(message) => {
                watch.count += 1;
                window.add(&message);
                whole.add(&message);
            }
            None => std::thread::sleep(PAUSE),
        }
        if clock::now() >= next {
            next += WINDOW;
            if window.count > 0 {
                give(&mut lines, &args.topic, "window", &window)?;
            }
            window = window.next()?;
        }
    }
    if whole.count > 0 {
        give(&mut lines, &args.topic, "summary", &whole)?;
    }
    watch.end(observer)
}

fn give(lines: &mut Lines, topic: &str, event: &'static str, of: &Arrivals) -> Result<(), Failure> {
    let report = of.report(topic, event);
    lines.hand_out(|| report.text(), &report)
}

/// Numbers with their mean and spread, as they come (Welford's method).
#[derive(Clone, Copy)]
struct Spread {
    count: u64,
    mean: f64,
    squares: f64,
    min: i64,
    max: i64,
}

impl Spread {
    const NONE: Self = Self { count: 0, mean: 0.0, squares: 0.0, min: i64::MAX, max: i64::MIN };

    fn add(&mut self, value: i64) {
        self.count += 1;
        let off = value as f64 - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value as f64 - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn intervals(self) -> Option<Intervals> {
        (self.count > 0).then(|| Intervals {
            mean_ns: self.mean as i64,
            min_ns: self.min,
            max_ns: self.max,
            std_dev_ns: (self.squares / self.count as f64).sqrt() as i64,
        })
    }
}

/// The messages of some time.
struct Arrivals {
    count: u64,
    missed: u64,
    sent: Spread,
    received: Spread,
    age: Histogram<u64>,
    age_max: i64,
    /// Of each sender: its life, the last number, and when it was sent and received.
    last: BTreeMap<KeyId, (Epoch, u64, Nanos, Nanos)>,
    /// Who sent some of them.
    senders: BTreeSet<KeyId>,
}

impl Arrivals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            count: 0,
            missed: 0,
            sent: Spread::NONE,
            received: Spread::NONE,
            age: Histogram::new_with_bounds(1, 3_600_000_000_000, 2).map_err(Failure::machine)?,
            age_max: 0,
            last: BTreeMap::new(),
            senders: BTreeSet::new(),
        })
    }

    /// The time after this one: its first interval begins here.
    fn next(self) -> Result<Self, Failure> {
        Ok(Self { last: self.last, ..Self::new()? })
    }

    fn add(&mut self, message: &Observed) {
        let (epoch, number) = (message.epoch, message.sequence.get());
        let (sent_at, received_at) = (message.sent_at, message.received_at);
        let last = self.last.insert(message.sender, (epoch, number, sent_at, received_at));
        if let Some((_, last, sent_before, received_before)) = last.filter(|last| last.0 == epoch) {
            self.missed += missed(last, number);
            self.sent.add((sent_at - sent_before).as_nanos());
            self.received.add((received_at - received_before).as_nanos());
        }
        self.count += 1;
        self.senders.insert(message.sender);
        let age = (received_at - sent_at).as_nanos().max(0);
        self.age.saturating_record(age.unsigned_abs());
        self.age_max = self.age_max.max(age);
    }

    fn report<'a>(&self, topic: &'a str, event: &'static str) -> HzReport<'a> {
        let ns = |quantile| self.age.value_at_quantile(quantile).cast_signed().min(self.age_max);
        let received = self.received.intervals();
        // The intervals are between messages of one sender, and the senders' rates add up.
        let senders = self.senders.len() as f64;
        HzReport {
            version: 1,
            report: "topic hz",
            event,
            topic,
            messages: self.count,
            missed: self.missed,
            rate_hz: received
                .filter(|of| of.mean_ns > 0)
                .map(|of| senders * 1e9 / of.mean_ns as f64),
            received,
            sent: self.sent.intervals(),
            age: Age { p50_ns: ns(0.5), p99_ns: ns(0.99), max_ns: self.age_max },
        }
    }
}

#[derive(Serialize)]
struct HzReport<'a> {
    version: u32,
    report: &'static str,
    event: &'static str,
    topic: &'a str,
    messages: u64,
    missed: u64,
    /// `None` of a single message.
    rate_hz: Option<f64>,
    /// Between arrivals at the observer.
    received: Option<Intervals>,
    /// Between the times of sending: the publisher's own jitter.
    sent: Option<Intervals>,
    age: Age,
}

#[derive(Clone, Copy, Serialize)]
struct Intervals {
    mean_ns: i64,
    min_ns: i64,
    max_ns: i64,
    std_dev_ns: i64,
}

impl Intervals {
    fn text(&self) -> String {
        let [min, max, spread] = [self.min_ns, self.max_ns, self.std_dev_ns].map(Nanos::new);
        format!("{min} to {max}, std dev {spread}")
    }
}

impl HzReport<'_> {
    fn text(&self) -> String {
        let Self { messages, missed, event, .. } = self;
        let rate = self.rate_hz.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.1} Hz"));
        let mut text = if *event == "summary" { "in all: ".to_owned() } else { String::new() };
        let _ =
            writeln!(text, "{rate} · {messages} messages, {missed} missed · {}", self.age.text());
        for (what, intervals) in [("sent", &self.sent), ("received", &self.received)] {
            if let Some(intervals) = intervals {
                let _ = writeln!(text, "  {what:<9} every {}", intervals.text());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_intervals_is_that_of_the_textbook() {
        let mut spread = Spread::NONE;
        assert!(spread.intervals().is_none(), "of nothing there are no figures");
        [2, 4, 4, 4, 5, 5, 7, 9].into_iter().for_each(|value| spread.add(value * 1_000));
        let of = spread.intervals().unwrap();
        let figures = (of.mean_ns, of.min_ns, of.max_ns, of.std_dev_ns);
        assert_eq!(figures, (5_000, 2_000, 9_000, 2_000));
    }
}
