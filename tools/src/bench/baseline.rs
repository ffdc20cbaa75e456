//! `--baseline`: whether this run is slower than a stored one, beyond what both runs scatter.
//!
//! Runs are compared only where nothing else differs that decides figures: the machine, its kernel
//! and settings, what the threads were granted, the options, the build. Program versions may differ:
//! that is what is looked for.

mod interval;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::report::{OutputArgs, Report, ThreadReport, VERSION, date};
use super::stats::{Summary, Verdict};
use crate::exit::Failure;
use crate::host::HostFingerprint;
pub(crate) use interval::Interval;
use interval::ratio;

/// How often one run of equal programs may be called slower, over all its figures, in percent.
const FALSE_ALARMS_PERCENT: f64 = 5.0;
/// A report of every benchmark is far smaller.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// A stored run.
#[derive(Debug)]
pub(crate) struct Baseline {
    path: PathBuf,
    report: Report,
    tolerance_percent: f64,
}

/// What the comparison with a stored run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BaselineReport {
    pub(crate) path: String,
    /// When that run began: ns since 1970.
    pub(crate) started_at_unix_ns: i64,
    pub(crate) program_version: String,
    /// How much slower is no regression yet.
    pub(crate) tolerance_percent: f64,
    pub(crate) figures: Vec<BaselineFigure>,
    /// What only one of the two runs measured.
    pub(crate) missing: Vec<String>,
    /// The worst of the figures.
    pub(crate) verdict: Verdict,
}

/// One quantile of one distribution, then and now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BaselineFigure {
    pub(crate) name: String,
    /// `p50` or `p99`.
    pub(crate) quantile: String,
    pub(crate) baseline_ns: f64,
    pub(crate) now_ns: f64,
    /// Now to then.
    pub(crate) ratio: f64,
    /// Where the ratio of the typical blocks of both runs lies; absent for runs that are too short.
    pub(crate) interval: Option<Interval>,
    pub(crate) verdict: Verdict,
}

impl BaselineReport {
    pub(crate) fn headline(&self) -> String {
        let Self { path, tolerance_percent, program_version, .. } = self;
        let when = date(self.started_at_unix_ns);
        format!(
            "baseline {path} of {when}, sinew {program_version}; slower by more than \
             {tolerance_percent} % is a regression: {}",
            self.verdict
        )
    }
}

impl Baseline {
    /// The run that was asked to be compared with, if one was.
    pub(crate) fn asked_for(output: &OutputArgs) -> Result<Option<Self>, Failure> {
        let read = |path: &PathBuf| Self::read(path, output.tolerance.0);
        output.baseline.as_ref().map(read).transpose()
    }

    fn read(path: &Path, tolerance_percent: f64) -> Result<Self, Failure> {
        let report = read(path).map_err(|what| {
            Failure::usage(format!(
                "--baseline {}: {what}; give a report that `sinew bench … --json PATH` wrote",
                path.display()
            ))
        })?;
        Ok(Self { path: path.to_owned(), report, tolerance_percent })
    }

    /// Refuses when another machine, build or command measured.
    pub(crate) fn accept(&self, now: &Report) -> Result<(), Failure> {
        self.refuse(before(&self.report, now))
    }

    /// The same, and when the threads were granted something else.
    pub(crate) fn accept_measured(&self, now: &Report) -> Result<(), Failure> {
        let mut differences = before(&self.report, now);
        differences.extend(granted(&self.report, now));
        self.refuse(differences)
    }

    fn refuse(&self, differences: Vec<String>) -> Result<(), Failure> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::machine(format!(
            "{} says nothing about this run: {}; measure a baseline under the same conditions",
            self.path.display(),
            differences.join("; ")
        )))
    }

    /// Judges each p50 and p99 that both runs have.
    pub(crate) fn compare(&self, now: &Report) -> BaselineReport {
        let (old, new) = (distributions(&self.report), distributions(now));
        let names = |all: &[Distribution<'_>]| -> BTreeSet<String> {
            all.iter().map(|one| one.name.clone()).collect()
        };
        let missing = names(&old).symmetric_difference(&names(&new)).cloned().collect();
        let both: Vec<_> = new
            .iter()
            .filter_map(|new| old.iter().find(|old| old.name == new.name).map(|old| (old, new)))
            .collect();
        // Bonferroni: with so many figures one is by chance beyond any interval made for itself.
        let figures = (2 * both.len()).max(1) as f64;
        let tail = FALSE_ALARMS_PERCENT / 100.0 / figures;
        let judge = |old: &Summary, new: &Summary| {
            [
                (
                    "p50",
                    old.p50_ns,
                    new.p50_ns,
                    ratio(&old.blocks.p50_ns, &new.blocks.p50_ns, tail),
                ),
                (
                    "p99",
                    old.p99_ns,
                    new.p99_ns,
                    ratio(&old.blocks.p99_ns, &new.blocks.p99_ns, tail),
                ),
            ]
        };
        let mut report = BaselineReport {
            path: self.path.display().to_string(),
            started_at_unix_ns: self.report.started_at_unix_ns,
            program_version: self.report.program.version.clone(),
            tolerance_percent: self.tolerance_percent,
            figures: Vec::new(),
            missing,
            verdict: Verdict::NotJudged,
        };
        for (old, new) in both {
            let bases = old.base.zip(new.base).map(|(old, new)| judge(old, new));
            for (index, figure) in judge(old.summary, new.summary).into_iter().enumerate() {
                let (quantile, baseline_ns, now_ns, interval) = figure;
                let base = bases.as_ref().and_then(|bases| bases[index].3);
                report.figures.push(BaselineFigure {
                    name: new.name.clone(),
                    quantile: quantile.to_owned(),
                    baseline_ns,
                    now_ns,
                    ratio: if baseline_ns > 0.0 { now_ns / baseline_ns } else { f64::MAX },
                    interval,
                    verdict: self.verdict(interval, base),
                });
            }
        }
        let worst = report.figures.iter().map(|figure| figure.verdict).max();
        report.verdict = worst.unwrap_or(Verdict::NotJudged);
        report
    }

    /// `base` is what the same comparison's base did meanwhile: where that became slower too, the
    /// machine did, and not what was judged.
    fn verdict(&self, interval: Option<Interval>, base: Option<Interval>) -> Verdict {
        let limit = 1.0 + self.tolerance_percent / 100.0;
        match interval {
            None => Verdict::NotJudged,
            Some(Interval { high, .. }) if high <= limit => Verdict::Within,
            Some(Interval { low, .. }) if low <= limit => Verdict::NotResolvableHere,
            _ if base.is_some_and(|base| base.low > limit) => Verdict::NotResolvableHere,
            _ => Verdict::Exceeds,
        }
    }
}

fn read(path: &Path) -> Result<Report, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_MAX_BYTES {
        return Err(format!("{size} bytes are no report"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?;
    match value["version"].as_u64() {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(format!("version {version}, where {VERSION} is understood")),
        None => return Err("it has no version".to_owned()),
    }
    serde_json::from_value(value).map_err(|error| format!("not a report of a benchmark: {error}"))
}

fn differ(name: &str, then: impl Debug + PartialEq, now: impl Debug + PartialEq) -> Option<String> {
    let (then, now) = (format!("{then:?}"), format!("{now:?}"));
    (then != now).then(|| format!("{name} was {then} and is {now}"))
}

/// What differs and is known before anything is measured.
fn before(then: &Report, now: &Report) -> Vec<String> {
    let mut all = vec![differ("the build", &then.program.build, &now.program.build)];
    let names: BTreeSet<_> = then.parameters.keys().chain(now.parameters.keys()).collect();
    for name in names {
        let [then, now] = [then, now].map(|report| report.parameters.get(name));
        let shown = |value: Option<&String>| value.map_or("unset".to_owned(), Clone::clone);
        all.push(differ(&format!("option {name}"), shown(then), shown(now)));
    }
    all.extend(hosts(&then.host, &now.host));
    all.into_iter().flatten().collect()
}

fn hosts(then: &HostFingerprint, now: &HostFingerprint) -> Vec<Option<String>> {
    vec![
        differ("the processor", &then.processor, &now.processor),
        differ("the number of cores", then.cores_online, now.cores_online),
        differ("the usable cores", &then.cores_usable, &now.cores_usable),
        differ("the isolated cores", &then.cores_isolated, &now.cores_isolated),
        differ("the kernel", &then.kernel_release, &now.kernel_release),
        differ("the kernel's build", &then.kernel_version, &now.kernel_version),
        differ("preemption", &then.preemption, &now.preemption),
        differ("the kernel's command line", &then.command_line, &now.command_line),
        differ("the governors", &then.governors, &now.governors),
        differ("the hypervisor", &then.hypervisor, &now.hypervisor),
        differ("the clock source", &then.clock_source, &now.clock_source),
        differ("sched_rt_runtime_us", then.rt_runtime_us, now.rt_runtime_us),
        differ("sched_rt_period_us", then.rt_period_us, now.rt_period_us),
    ]
}

/// What differs of what the measuring threads were granted.
fn granted(then: &Report, now: &Report) -> Vec<String> {
    let threads = |report: &Report| -> BTreeSet<String> {
        let one = |thread: &ThreadReport| {
            format!("{}: {}, core {}", thread.name, thread.scheduling, thread.cores)
        };
        report.threads.iter().map(one).collect()
    };
    let (old, new) = (threads(then), threads(now));
    let gone = old.difference(&new).map(|thread| format!("only then there was {thread}"));
    let came = new.difference(&old).map(|thread| format!("only now there is {thread}"));
    let real = |report: &Report| report.not_real_time.is_empty();
    let real = differ("real-time", real(then), real(now));
    let held =
        differ("the idle latency bound", then.cpu_latency_bound_us, now.cpu_latency_bound_us);
    gone.chain(came).chain(real).chain(held).collect()
}

/// A distribution that is judged, and what it was compared with in its own run.
struct Distribution<'a> {
    name: String,
    summary: &'a Summary,
    base: Option<&'a Summary>,
}

fn distributions(report: &Report) -> Vec<Distribution<'_>> {
    let alone = report.measured.iter().map(|measured| Distribution {
        name: measured.name.clone(),
        summary: &measured.summary,
        base: None,
    });
    let compared = report.compared.iter().map(|comparison| Distribution {
        name: format!("{}: {}", comparison.name, comparison.subject.name),
        summary: &comparison.subject.pooled,
        base: Some(&comparison.base.pooled),
    });
    alone.chain(compared).collect()
}

#[cfg(test)]
mod tests;
