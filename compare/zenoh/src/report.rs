//! What is handed out: every round, the medians over the rounds, the two ratios and what became of
//! their limits.

use serde::Serialize;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use crate::figures::{Quantiles, Spread};
use crate::ours::{Ours, Sinew};
use crate::placement::Placement;
use crate::subscribe::{Latency, Throughput};
use crate::verdict::{self, Limit, Verdict, judge};
use crate::{Failure, RunArgs};

/// Everything that one run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    zenoh_version: String,
    /// What Zenoh was built with.
    zenoh_features: String,
    sinew_version: Option<String>,
    kernel: String,
    processor: String,
    cores: usize,
    message_bytes: usize,
    seconds: u32,
    priority: u8,
    express_latency: bool,
    pub(crate) rounds: Vec<Round>,
    medians: Vec<Row>,
    ratios: Vec<Ratio>,
    notes: Vec<String>,
}

/// One round.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) zenoh: Vec<Zenoh>,
    pub(crate) sinew: Option<Ours>,
}

/// One placement of Zenoh in one round.
#[derive(Debug, Serialize)]
pub(crate) struct Zenoh {
    pub(crate) placement: Placement,
    pub(crate) throughput: Throughput,
    #[serde(serialize_with = "quantiles")]
    pub(crate) latency: Latency,
}

/// The spans of a round are too many for the report; their quantiles are not.
fn quantiles<S: serde::Serializer>(latency: &Latency, serializer: S) -> Result<S::Ok, S::Error> {
    latency.quantiles().serialize(serializer)
}

impl Latency {
    fn quantiles(&self) -> Quantiles {
        Quantiles::of(self.spans_ns.clone())
    }
}

impl Throughput {
    fn per_s(&self) -> f64 {
        self.delivered as f64 * 1e9 / self.span_ns.max(1) as f64
    }
}

/// One side over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    delivered_per_s: Spread,
    p50_ns: Spread,
    p99_ns: Spread,
    p999_ns: Spread,
    max_ns: f64,
    /// Of the latency, in all rounds.
    count: u64,
}

impl Row {
    fn new(name: String, rounds: &[(f64, Quantiles)]) -> Option<Self> {
        let spread = |figure: fn(&Quantiles) -> f64| {
            Spread::of(rounds.iter().map(|(_, quantiles)| figure(quantiles)))
        };
        Some(Self {
            name,
            delivered_per_s: Spread::of(rounds.iter().map(|(rate, _)| *rate))?,
            p50_ns: spread(|quantiles| quantiles.p50_ns)?,
            p99_ns: spread(|quantiles| quantiles.p99_ns)?,
            p999_ns: spread(|quantiles| quantiles.p999_ns)?,
            max_ns: spread(|quantiles| quantiles.max_ns)?.highest,
            count: rounds.iter().map(|(_, quantiles)| quantiles.count).sum(),
        })
    }
}

/// Sinew to Zenoh, the median over the ratios of single rounds.
#[derive(Debug, Serialize)]
struct Ratio {
    name: String,
    /// Of Zenoh; `None`: the best of all in each round, which is what is judged.
    placement: Option<Placement>,
    ratio: Spread,
    /// Our best effort against itself in the same rounds.
    control: Spread,
    limit: Option<Limit>,
    verdict: Option<Verdict>,
}

impl Report {
    pub(crate) fn new(args: &RunArgs, sinew: Option<&Sinew>) -> Self {
        let mut notes = vec![
            "one publisher, one subscriber, two processes, loopback; reliable, block on congestion; no \
             multicast scouting"
                .to_owned(),
        ];
        if sinew.is_some() {
            notes.push(
                "p50 to p99.9 are medians over the rounds; both sides sleep while they wait for the \
                 latency; Sinew's throughput is measured in bursts of 0.8 s with both ends spinning"
                    .to_owned(),
            );
        }
        if cfg!(debug_assertions) {
            notes.push("this is a debug build: Zenoh's figures are worth nothing".to_owned());
        }
        Self {
            version: 1,
            zenoh_version: zenoh::GIT_VERSION.to_owned(),
            zenoh_features: zenoh::FEATURES.trim().to_owned(),
            sinew_version: sinew.map(|sinew| sinew.version.clone()),
            kernel: first_line("/proc/sys/kernel/osrelease", |line| Some(line.to_owned())),
            processor: first_line("/proc/cpuinfo", |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == "model name").then(|| value.trim().to_owned())
            }),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            message_bytes: crate::load::LEN,
            seconds: args.seconds,
            priority: args.priority,
            express_latency: !args.batched,
            rounds: Vec::new(),
            medians: Vec::new(),
            ratios: Vec::new(),
            notes,
        }
    }

    /// Forms the medians and the ratios.
    pub(crate) fn judge(&mut self) {
        let placements = self.placements();
        let mut medians = Vec::new();
        for placement in &placements {
            let rounds = self.rounds.iter().flat_map(|round| &round.zenoh);
            let rounds = rounds.filter(|zenoh| zenoh.placement == *placement);
            let rounds: Vec<_> =
                rounds.map(|zenoh| (zenoh.throughput.per_s(), zenoh.latency.quantiles())).collect();
            medians.extend(Row::new(format!("Zenoh, {placement}"), &rounds));
        }
        let ours: Vec<&Ours> =
            self.rounds.iter().filter_map(|round| round.sinew.as_ref()).collect();
        for (name, side) in SIDES {
            let rounds: Vec<_> = ours.iter().map(|ours| side(ours)).collect();
            medians.extend(Row::new(format!("Sinew, {name}"), &rounds));
        }
        for reason in ours.iter().flat_map(|ours| &ours.not_real_time) {
            let note = format!("Sinew, NOT REAL-TIME: {reason}");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        if ours.iter().any(|ours| ours.build != "release") {
            self.notes.push("sinew is a debug build: its figures are worth nothing".to_owned());
        }
        self.medians = medians;
        self.ratios = self.compared(None);
        if placements.len() > 1 {
            let each = placements.iter().flat_map(|placement| self.compared(Some(*placement)));
            let each: Vec<_> = each.collect();
            self.ratios.extend(each);
        }
    }

    /// Those that were measured, in order.
    fn placements(&self) -> Vec<Placement> {
        let mut placements = Vec::new();
        for zenoh in self.rounds.iter().flat_map(|round| &round.zenoh) {
            if !placements.contains(&zenoh.placement) {
                placements.push(zenoh.placement);
            }
        }
        placements
    }

    /// The ratios to Zenoh so placed, or to the best of all placements in each round.
    fn compared(&self, placement: Option<Placement>) -> Vec<Ratio> {
        let counts = |zenoh: &&Zenoh| placement.is_none_or(|wanted| zenoh.placement == wanted);
        let rates: Vec<_> = self.each(|zenoh, ours| {
            let of = zenoh.iter().filter(counts).map(|zenoh| zenoh.throughput.per_s());
            let again = ours.best_effort_again_per_s / ours.best_effort_per_s;
            (ours.reliable_per_s / of.fold(0.0, f64::max), again)
        });
        let latency = |figure: fn(&Quantiles) -> f64| {
            self.each(move |zenoh, ours| {
                let of = zenoh.iter().filter(counts);
                let of = of.map(|zenoh| figure(&zenoh.latency.quantiles()));
                let again = figure(&ours.best_effort_again) / figure(&ours.best_effort);
                (figure(&ours.reliable) / of.fold(f64::INFINITY, f64::min), again)
            })
        };
        let (p50, p99) = (latency(|found| found.p50_ns), latency(|found| found.p99_ns));
        [
            ("delivered per second", rates, Some(verdict::THROUGHPUT)),
            ("one way at 1 kHz, p50", p50, None),
            ("one way at 1 kHz, p99", p99, Some(verdict::LATENCY)),
        ]
        .into_iter()
        .filter_map(|(name, rounds, limit)| {
            let ratio = Spread::of(rounds.iter().map(|(ratio, _)| *ratio))?;
            let control = Spread::of(rounds.iter().map(|(_, control)| *control))?;
            let limit = limit.filter(|_| placement.is_none());
            let verdict = limit.map(|limit| judge(limit, ratio.median, control.median));
            Some(Ratio { name: name.to_owned(), placement, ratio, control, limit, verdict })
        })
        .collect()
    }

    /// `figure` of each round that has both sides.
    fn each(&self, figure: impl Fn(&[Zenoh], &Ours) -> (f64, f64)) -> Vec<(f64, f64)> {
        let both = self.rounds.iter().filter_map(|round| {
            let ours = round.sinew.as_ref()?;
            (!round.zenoh.is_empty()).then(|| figure(&round.zenoh, ours))
        });
        both.collect()
    }

    /// 1 where a limit does not hold, 3 where one cannot be resolved, else 0.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.ratios.iter().filter_map(|ratio| ratio.verdict).max() {
            Some(Verdict::Exceeds) => 1,
            Some(Verdict::NotResolvableHere) => 3,
            Some(Verdict::Within) | None => 0,
        }
    }

    /// The table on standard output, and the JSON where it was asked for.
    pub(crate) fn hand_out(&self, json: Option<&Path>) -> Result<(), Failure> {
        let to_stdout = json == Some(Path::new("-"));
        if !to_stdout {
            print!("{self}");
        }
        let Some(path) = json else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(self).map_err(Failure::zenoh)?;
        text.push('\n');
        if to_stdout {
            print!("{text}");
            return Ok(());
        }
        fs::write(path, text).map_err(|source| Failure::System { what: "the JSON", source })
    }
}

/// The name of a side of ours, and its rate and latency.
type OurSide = (&'static str, fn(&Ours) -> (f64, Quantiles));
const SIDES: [OurSide; 3] = [
    ("best effort", |ours| (ours.best_effort_per_s, ours.best_effort)),
    ("best effort again", |ours| (ours.best_effort_again_per_s, ours.best_effort_again)),
    ("reliable, in order", |ours| (ours.reliable_per_s, ours.reliable)),
];

/// What `wanted` finds first in a file of the kernel; `unknown` if nothing.
fn first_line(path: &str, wanted: impl Fn(&str) -> Option<String>) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(wanted).unwrap_or_else(|| "unknown".to_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "zenoh {} ({})", self.zenoh_version, self.zenoh_features)?;
        if let Some(version) = &self.sinew_version {
            writeln!(f, "{version}")?;
        }
        let Self { kernel, processor, cores, rounds, seconds, message_bytes, .. } = self;
        writeln!(f, "{processor}, {cores} cores, Linux {kernel}")?;
        let rounds = rounds.len();
        writeln!(f, "{message_bytes} B, {rounds} rounds, {seconds} s each side and figure\n")?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: [String; 5]| {
            write!(f, "{name:<28}")?;
            for cell in cells {
                write!(f, " {cell:>12}")?;
            }
            writeln!(f)
        };
        let head = ["delivered/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs"];
        line(f, "medians", head.map(str::to_owned))?;
        for row in &self.medians {
            let us = |ns: f64| format!("{:.1}", ns / 1e3);
            let rate = thousands(row.delivered_per_s.median);
            let spans = [row.p50_ns.median, row.p99_ns.median, row.p999_ns.median, row.max_ns];
            let [p50, p99, p999, max] = spans.map(us);
            line(f, &row.name, [rate, p50, p99, p999, max])?;
        }
        let mut shown = None;
        for Ratio { name, placement, ratio, control, limit, verdict } in &self.ratios {
            if shown != Some(*placement) {
                shown = Some(*placement);
                let to =
                    placement.map_or("the best of Zenoh's".to_owned(), |to| format!("Zenoh, {to}"));
                writeln!(f, "\nSinew, reliable, to {to}: ratio (lowest–highest round; control)")?;
            }
            let Spread { median, lowest, highest } = ratio;
            write!(
                f,
                "{name:<28} {median:>6.2} ({lowest:.2}–{highest:.2}; {:.2})",
                control.median
            )?;
            if let (Some(limit), Some(verdict)) = (limit, verdict) {
                write!(f, "  limit {limit}: {verdict}")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))
    }
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = text.write_char(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rounds: Vec<Round>) -> Report {
        let args = RunArgs {
            rounds: 1,
            seconds: 1,
            sinew: None,
            placement: Vec::new(),
            priority: 80,
            period_us: Vec::new(),
            batched: false,
            json: None,
        };
        let mut report = Report::new(&args, None);
        report.rounds = rounds;
        report.judge();
        report
    }

    fn zenoh(placement: Placement, delivered: u64, span_ns: u32) -> Zenoh {
        let throughput = Throughput { delivered, span_ns: 1_000_000_000 };
        Zenoh { placement, throughput, latency: Latency { spans_ns: vec![span_ns; 10] } }
    }

    fn sinew(reliable_per_s: f64, p99_ns: f64) -> Ours {
        let same = Quantiles { count: 10, p50_ns: 5.0, p99_ns: 10.0, p999_ns: 10.0, max_ns: 10.0 };
        Ours {
            build: "release".to_owned(),
            best_effort_per_s: 1_000.0,
            best_effort_again_per_s: 1_000.0,
            reliable_per_s,
            best_effort: same,
            best_effort_again: same,
            reliable: Quantiles { p99_ns, ..same },
            not_real_time: Vec::new(),
        }
    }

    #[test]
    fn each_round_is_compared_with_the_best_that_zenoh_had_in_it() {
        let report = report(vec![Round {
            // One placement delivers more, the other one sooner.
            zenoh: vec![zenoh(Placement::Plain, 500, 90), zenoh(Placement::Fifo, 400, 40)],
            sinew: Some(sinew(600.0, 10.0)),
        }]);
        let ratios: Vec<_> = report.ratios.iter().map(|ratio| ratio.ratio.median).collect();
        let (judged, plain) = (&ratios[..3], &ratios[3..6]);
        assert_eq!(judged, [1.2, 0.125, 0.25]);
        assert_eq!(plain, [1.2, 5.0 / 90.0, 10.0 / 90.0]);
        assert!(report.ratios[3..].iter().all(|shown| shown.verdict.is_none()));
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn a_limit_that_does_not_hold_is_the_exit_code_and_zenoh_alone_has_none() {
        let with = |ours| {
            report(vec![Round { zenoh: vec![zenoh(Placement::Plain, 500, 90)], sinew: ours }])
                .exit_code()
        };
        assert_eq!(with(Some(sinew(400.0, 10.0))), 1);
        assert_eq!(with(Some(sinew(600.0, 60.0))), 1);
        assert_eq!(with(None), 0);
    }

    #[test]
    fn the_table_names_every_side_and_both_limits() {
        let report = report(vec![Round {
            zenoh: vec![zenoh(Placement::Plain, 1_234_567, 90)],
            sinew: Some(sinew(2_000_000.0, 10.0)),
        }]);
        let text = report.to_string();
        for wanted in ["Zenoh, plain", "1,234,567", "Sinew, best effort again", "≥ 1.00", "≤ 0.50"]
        {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
    }
}
