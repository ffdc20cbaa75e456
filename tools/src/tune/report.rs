//! What a run found out, for people and for scripts.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::decide::{Beside, Choice, Noise, Ratio};
use super::facts::{Demands, Measurements};
use crate::bench::report::{ThreadReport, command_line, span};
use crate::bench::stats::{ComparisonReport, Summary};
use crate::host::{self, HostFingerprint};

/// The version of the JSON. Rises when a name changes its meaning or goes away.
const VERSION: u32 = 1;

/// Everything that one run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) version: u32,
    pub(super) report: &'static str,
    pub(super) command: String,
    pub(super) host: HostFingerprint,
    pub(super) demands: Demands,
    /// The scheduling of each measuring thread, read back.
    pub(super) threads: Vec<ThreadReport>,
    pub(super) not_real_time: Vec<String>,
    pub(super) interrupted: bool,
    pub(super) took_s: f64,
    pub(super) measured: Measurements,
    pub(super) tried: Vec<TriedReport>,
    /// By which factors the rounds of the default differed in the trials.
    pub(super) noise: Option<Noise>,
    pub(super) chosen: Option<String>,
    /// Whether those are the default's settings.
    pub(super) is_default: bool,
    pub(super) choices: Vec<Choice>,
    /// What the kernel's command line lacks.
    pub(super) kernel_line: Vec<String>,
    /// Default, tuned, and default again: idle, and loaded.
    pub(super) compared: Vec<ComparisonReport>,
    /// What the verdict is formed from.
    pub(super) ratios: Vec<PartRatios>,
    pub(super) beside: Option<Beside>,
    pub(super) budget: Option<Budget>,
    pub(super) notes: Vec<String>,
    /// The file.
    pub(super) written: Option<String>,
}

/// One configuration in the trials.
#[derive(Debug, Serialize)]
pub(super) struct TriedReport {
    pub(super) configuration: String,
    /// From the measured parts; absent where a core would have had more to do than it can.
    pub(super) predicted_p99_ns: Option<f64>,
    pub(super) idle: Summary,
    pub(super) loaded: Summary,
}

/// The tuned configuration beside the default one, in one part.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct PartRatios {
    pub(super) part: &'static str,
    pub(super) p50: Ratio,
    pub(super) p99: Ratio,
}

impl fmt::Display for PartRatios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, p50, p99 } = self;
        write!(f, "{part} p50 {:.2} (spread {:.2})", p50.ratio, p50.noise)?;
        write!(f, ", p99 {:.2} (spread {:.2})", p99.ratio, p99.noise)
    }
}

/// What was asked for, and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Budget {
    pub(super) budget_ns: f64,
    /// The worse of idle and loaded.
    pub(super) p99_ns: f64,
    pub(super) max_ns: f64,
    pub(super) met: bool,
}

impl Report {
    pub(super) fn new(demands: Demands) -> Self {
        let host = host::fingerprint();
        let mut notes = Vec::new();
        if let Some(hypervisor) = &host.hypervisor {
            notes.push(format!("virtual machine ({hypervisor}): the host adds pauses of its own"));
        }
        Self {
            version: VERSION,
            report: "tune",
            command: command_line(),
            host,
            demands,
            threads: Vec::new(),
            not_real_time: Vec::new(),
            interrupted: false,
            took_s: 0.0,
            measured: Measurements::default(),
            tried: Vec::new(),
            noise: None,
            chosen: None,
            is_default: false,
            choices: Vec::new(),
            kernel_line: Vec::new(),
            compared: Vec::new(),
            ratios: Vec::new(),
            beside: None,
            budget: None,
            notes,
            written: None,
        }
    }

    fn parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = &self.measured;
        if !measured.cores.is_empty() {
            let mut table = table(&["core", "time lost", "longest gap", "wake p50", "wake p99"]);
            for core in &measured.cores {
                table.add_row([
                    core.core.to_string(),
                    format!("{:.0} ppm", core.gaps_ppm),
                    span(core.longest_gap_ns),
                    span(core.wake_p50_ns),
                    span(core.wake_p99_ns),
                ]);
            }
            writeln!(f, "\n{table}")?;
        }
        if !measured.hops.is_empty() {
            let mut table = table(&["hand-off", "spinning", "parked, paced"]);
            let shown = |ns: Option<f64>| ns.map_or("not measured".to_owned(), span);
            for hop in &measured.hops {
                let pair = format!("{} → {}", hop.from, hop.to);
                table.add_row([pair, shown(hop.spinning_ns), shown(hop.parked_ns)]);
            }
            writeln!(f, "\n{table}")?;
        }
        if !measured.idle.is_empty() {
            let mut table = table(&["wake-up with", "", "count", "p50", "p99", "max"]);
            for cost in &measured.idle {
                table.add_row([
                    cost.method.name().to_owned(),
                    if cost.loaded { "loaded" } else { "idle" }.to_owned(),
                    cost.count.to_string(),
                    span(cost.p50_ns),
                    span(cost.p99_ns),
                    span(cost.max_ns),
                ]);
            }
            writeln!(f, "\n{table}")?;
        }
        Ok(())
    }

    fn trials(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tried.is_empty() {
            return Ok(());
        }
        let columns = ["tried", "count", "p50", "p99", "loaded p50", "p99", "p99 predicted"];
        let mut table = table(&columns);
        for tried in &self.tried {
            let TriedReport { configuration, predicted_p99_ns, idle, loaded } = tried;
            table.add_row([
                configuration.clone(),
                (idle.count + loaded.count).to_string(),
                span(idle.p50_ns),
                span(idle.p99_ns),
                span(loaded.p50_ns),
                span(loaded.p99_ns),
                predicted_p99_ns.map_or("too much to do".to_owned(), span),
            ]);
        }
        writeln!(f, "\n{table}")?;
        if let Some(noise) = self.noise {
            writeln!(
                f,
                "rounds of the default differ by a factor of {:.2} at p50 and {:.2} at p99",
                noise.p50, noise.p99
            )?;
        }
        Ok(())
    }

    fn decisions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Choice { what, value, why, runner_up } in &self.choices {
            writeln!(f, "\n{what}: {value}\n  {why}")?;
            if let Some(other) = runner_up {
                writeln!(f, "  runner-up {}: {}", other.value, other.cost)?;
            }
        }
        if !self.compared.is_empty() {
            let mut table = table(&["", "", "count", "p50", "p99", "p99.9", "max"]);
            for one in &self.compared {
                for side in [&one.base, &one.control, &one.subject] {
                    let summary = &side.pooled;
                    table.add_row([
                        one.name.clone(),
                        side.name.clone(),
                        summary.count.to_string(),
                        span(summary.p50_ns),
                        span(summary.p99_ns),
                        span(summary.p999_ns),
                        span(summary.max_ns),
                    ]);
                }
            }
            writeln!(f, "\n{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        let machine = host.hypervisor.as_deref().unwrap_or("bare metal");
        let isolated =
            if host.cores_isolated.is_empty() { "none" } else { host.cores_isolated.as_str() };
        writeln!(f, "{}", self.command)?;
        writeln!(f, "host     {}, {} cores, {machine}", host.processor, host.cores_online)?;
        let (release, preemption) = (&host.kernel_release, &host.preemption);
        writeln!(f, "kernel   {release} ({preemption}), isolated: {isolated}")?;
        for reason in &self.not_real_time {
            writeln!(f, "NOT REAL-TIME: {reason}")?;
        }
        self.parts(f)?;
        self.trials(f)?;
        self.decisions(f)?;
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if self.interrupted {
            return writeln!(
                f,
                "INTERRUPTED: the figures are those up to then; nothing was written"
            );
        }
        if !self.kernel_line.is_empty() {
            writeln!(f, "add to the kernel's command line: {}", self.kernel_line.join(" "))?;
        }
        for result in self.results() {
            writeln!(f, "{result}")?;
        }
        if !self.not_real_time.is_empty() {
            writeln!(f, "NOT REAL-TIME: no ground to choose on; run it again with the rights")?;
        }
        if let Some(path) = &self.written {
            writeln!(f, "written to {path} after {:.0} s", self.took_s)?;
        }
        Ok(())
    }
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
