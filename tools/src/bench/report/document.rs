//! What is written as JSON: everything that one run found out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MatrixCell;
use crate::bench::baseline::BaselineReport;
use crate::bench::stats::{ComparisonReport, JUDGED_SAMPLES, Limit, Samples, Summary, Verdict};
use crate::host::HostFingerprint;

/// The version of the JSON. Rises when a name changes its meaning or goes away.
pub(crate) const VERSION: u32 = 1;

/// Everything that one run found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    /// The command line that reproduces the run.
    pub(crate) command: String,
    /// What decides the figures: every option and its value, defaults included, without those that
    /// only say where the report goes.
    #[serde(default)]
    pub(crate) parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) program: Program,
    /// When the run began: ns since 1970.
    pub(crate) started_at_unix_ns: i64,
    pub(crate) host: HostFingerprint,
    /// The scheduling of each measuring thread, read back.
    pub(crate) threads: Vec<ThreadReport>,
    /// Locked memory, read back, in bytes; absent where others measured.
    pub(crate) memory_locked_bytes: Option<u64>,
    /// The bound on the cores' idle wake-up latency that was held; absent when refused.
    pub(crate) cpu_latency_bound_us: Option<u32>,
    /// Why these are not real-time figures; empty when they are.
    pub(crate) not_real_time: Vec<String>,
    /// Whether the run was cut short by a signal: the figures are those up to then.
    pub(crate) interrupted: bool,
    pub(crate) measured: Vec<Measured>,
    pub(crate) compared: Vec<ComparisonReport>,
    pub(crate) added: Vec<Added>,
    /// Figures that are no distributions.
    #[serde(default)]
    pub(crate) figures: Vec<Figure>,
    /// The longest single events, with what is known of their causes.
    #[serde(default)]
    pub(crate) longest: Vec<Longest>,
    /// Hand-offs from core to core.
    #[serde(default)]
    pub(crate) matrix: Vec<MatrixCell>,
    /// What a reader must know to read the figures rightly.
    pub(crate) notes: Vec<String>,
    /// The comparison with a stored run.
    #[serde(default)]
    pub(crate) baseline: Option<BaselineReport>,
    /// The worst verdict of all comparisons that have a limit; a regression exceeds one.
    pub(crate) verdict: Verdict,
}

/// The program that measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) version: String,
    /// `release` or `debug`.
    pub(crate) build: String,
}

impl Program {
    pub(super) fn this() -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), build: build.to_owned() }
    }
}

/// One thread that measured or was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ThreadReport {
    pub(crate) name: String,
    /// Policy and priority in force.
    pub(crate) scheduling: String,
    /// Cores in force.
    pub(crate) cores: String,
    /// What was asked for and not granted, with the fix.
    pub(crate) refused: Vec<String>,
}

/// One distribution by itself: shown, never judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// How much longer one thing takes than another, as the difference of their medians.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Added {
    pub(crate) name: String,
    pub(crate) median_ns: f64,
    /// The same between equals: what the machine adds to a difference.
    pub(crate) control_median_ns: Option<f64>,
    pub(crate) limit_ns: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Added {
    /// What `with` takes beyond `without`, to be at most `limit_ns`; `control` is `without` again.
    pub(crate) fn limited(
        name: &str,
        without: &Samples,
        with: &Samples,
        control: &Samples,
        limit_ns: f64,
    ) -> Self {
        let median_ns = with.quantile(0.5) - without.quantile(0.5);
        let control_ns = control.quantile(0.5) - without.quantile(0.5);
        let fewest = [without, with, control].map(Samples::count).into_iter().min();
        let verdict = if fewest < Some(JUDGED_SAMPLES) {
            Verdict::NotJudged
        } else if control_ns.abs() > limit_ns {
            Verdict::NotResolvableHere
        } else if median_ns <= limit_ns {
            Verdict::Within
        } else {
            Verdict::Exceeds
        };
        Self {
            name: name.to_owned(),
            median_ns,
            control_median_ns: Some(control_ns),
            limit_ns: Some(limit_ns),
            verdict,
        }
    }

    /// What `with` takes beyond `without`, only shown.
    pub(crate) fn shown(name: &str, without: &Samples, with: &Samples) -> Self {
        Self {
            name: name.to_owned(),
            median_ns: with.quantile(0.5) - without.quantile(0.5),
            control_median_ns: None,
            limit_ns: None,
            verdict: Verdict::NotJudged,
        }
    }
}

/// One figure that is no distribution: a count, a share, a rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Of the value; empty for counts and ratios.
    pub(crate) unit: String,
    pub(crate) limit: Option<Limit>,
    pub(crate) verdict: Verdict,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, value, unit, limit, verdict } = self;
        let number = |value: f64| match value.abs() {
            whole if whole.fract() == 0.0 && whole < 1e15 => format!("{value:.0}"),
            small if small < 0.1 => format!("{value:.5}"),
            _ => format!("{value:.3}"),
        };
        write!(f, "{name}: {} {unit}", number(*value))?;
        match limit {
            Some(Limit::AtMost(limit)) => write!(f, ", limit ≤ {}: {verdict}", number(*limit)),
            Some(Limit::AtLeast(limit)) => write!(f, ", limit ≥ {}: {verdict}", number(*limit)),
            Some(Limit::WithinFactor(limit)) => {
                let (least, most) = (number(1.0 / limit), number(*limit));
                write!(f, ", limit {least}–{most}: {verdict}")
            }
            None => Ok(()),
        }
    }
}

/// One of the longest events of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Longest {
    pub(crate) what: String,
    pub(crate) length_ns: i64,
    /// When it began, in seconds after the start of the run.
    pub(crate) at_s: f64,
    pub(crate) cause: String,
}
