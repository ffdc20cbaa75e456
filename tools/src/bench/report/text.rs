//! Reports as people read them.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::super::baseline::BaselineReport;
use super::super::stats::{ComparisonReport, SideReport, Summary, Verdict};
use super::matrix::matrix_table;
use super::{Added, Longest, Measured, Report, ThreadReport};

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.write(f, &|_| String::new())
    }
}

impl Report {
    /// The report as people read it, with a plot below each table: `plot` draws that of what was
    /// measured by itself for 0, and that of a comparison for its place from 1.
    pub(super) fn text(&self, plot: &dyn Fn(usize) -> String) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, plot);
        text
    }

    fn write(
        &self,
        f: &mut dyn std::fmt::Write,
        plot: &dyn Fn(usize) -> String,
    ) -> std::fmt::Result {
        let host = &self.host;
        let clock = host.clock_source.as_deref().unwrap_or("unknown");
        let machine = host.hypervisor.as_deref().unwrap_or("bare metal");
        writeln!(f, "{}", self.command)?;
        writeln!(f, "host     {}, {} cores, {machine}", host.processor, host.cores_online)?;
        writeln!(
            f,
            "kernel   {} ({}), clock {clock}, isolated: {}",
            host.kernel_release,
            host.preemption,
            if host.cores_isolated.is_empty() { "none" } else { &host.cores_isolated }
        )?;
        if let Some(locked) = self.memory_locked_bytes {
            writeln!(f, "memory   {} KiB locked", locked / 1024)?;
        }
        for thread in &self.threads {
            let ThreadReport { name, scheduling, cores, refused } = thread;
            writeln!(f, "thread   {name}: {scheduling}, core {cores} (read back)")?;
            for refusal in refused {
                writeln!(f, "         refused: {refusal}")?;
            }
        }
        for reason in &self.not_real_time {
            writeln!(f, "NOT REAL-TIME: {reason}")?;
        }
        if !self.measured.is_empty() {
            writeln!(f, "\n{}", measured_table(&self.measured))?;
            write_plot(f, &plot(0))?;
        }
        if !self.matrix.is_empty() {
            writeln!(f, "\n{}", matrix_table(self))?;
        }
        for (place, comparison) in self.compared.iter().enumerate() {
            writeln!(f, "\n{}", comparison_text(comparison)?)?;
            write_plot(f, &plot(place + 1))?;
        }
        for figure in &self.figures {
            writeln!(f, "{figure}")?;
        }
        for added in &self.added {
            writeln!(f, "{added}")?;
        }
        if !self.longest.is_empty() {
            writeln!(f, "\n{}\n", longest_table(&self.longest))?;
        }
        if let Some(baseline) = &self.baseline {
            writeln!(f, "\n{}\n", baseline_text(baseline))?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if self.interrupted {
            writeln!(f, "INTERRUPTED: the figures are those up to then")?;
        }
        let judged =
            !(self.compared.is_empty() && self.added.is_empty() && self.figures.is_empty());
        if judged || self.verdict == Verdict::Exceeds {
            let brand = if self.not_real_time.is_empty() { "" } else { " (NOT REAL-TIME)" };
            writeln!(f, "verdict: {}{brand}", self.verdict)?;
        }
        Ok(())
    }
}

fn write_plot(f: &mut dyn std::fmt::Write, plot: &str) -> std::fmt::Result {
    if plot.is_empty() { Ok(()) } else { writeln!(f, "\n{plot}") }
}

fn baseline_text(baseline: &BaselineReport) -> String {
    let head = ["against the baseline", "", "then", "now", "ratio", "interval", "verdict"];
    let mut table = new_table(&head);
    for figure in &baseline.figures {
        let interval = figure.interval.map_or("too few samples".to_owned(), |interval| {
            format!("{}–{}", times(interval.low), times(interval.high))
        });
        table.add_row([
            figure.name.clone(),
            figure.quantile.clone(),
            span(figure.baseline_ns),
            span(figure.now_ns),
            times(figure.ratio),
            interval,
            figure.verdict.to_string(),
        ]);
    }
    let mut text = format!("{}\n{table}", baseline.headline());
    for name in &baseline.missing {
        let _ = write!(text, "\nin one of the two runs only: {name}");
    }
    text
}

const COLUMNS: [&str; 8] = ["", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max (at)"];

pub(super) fn new_table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, summary: &Summary) -> Vec<String> {
    let Summary { count, p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns, max_at_s, .. } =
        summary;
    let mut cells = vec![name.to_owned(), count.to_string()];
    cells.extend([p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns].map(|ns| span(*ns)));
    cells.push(match max_at_s {
        Some(at) => format!("{} ({at:.1} s)", span(*max_ns)),
        None => span(*max_ns),
    });
    cells
}

fn measured_table(measured: &[Measured]) -> Table {
    let mut table = new_table(&COLUMNS);
    for Measured { name, summary } in measured {
        table.add_row(row(name, summary));
    }
    table
}

fn longest_table(longest: &[Longest]) -> Table {
    let mut table = new_table(&["longest", "length", "at", "cause"]);
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    for Longest { what, length_ns, at_s, cause } in longest {
        let length = span(*length_ns as f64);
        table.add_row([what.clone(), length, format!("{at_s:.3} s"), cause.clone()]);
    }
    table
}

fn comparison_text(comparison: &ComparisonReport) -> Result<String, std::fmt::Error> {
    let ComparisonReport { name, base, subject, control, limits, ratio, .. } = comparison;
    let mut text = format!("{name}\n");
    let mut table = new_table(&COLUMNS);
    for SideReport { name, pooled, .. } in [base, control, subject] {
        table.add_row(row(&format!("  {name}"), pooled));
    }
    writeln!(text, "{table}")?;
    let added = comparison.added_to_base_ns;
    if added.p50 != 0.0 || added.p99 != 0.0 {
        let (p50, p99) = (span(added.p50), span(added.p99));
        writeln!(text, "  added to the base: p50 {p50}, p99 {p99}")?;
    }
    let control = comparison.control_ratio;
    let figures = [
        ("p50", ratio.p50, control.p50, limits.p50, comparison.verdict_p50),
        ("p99", ratio.p99, control.p99, limits.p99, comparison.verdict_p99),
    ];
    for (figure, ratio, control, limit, verdict) in figures {
        let [ratio, control] = [ratio, control].map(times);
        write!(text, "  {figure} ratio {ratio} (control {control}")?;
        let spread = |side: &SideReport| match figure {
            "p50" => side.p50_ns_of_rounds,
            _ => side.p99_ns_of_rounds,
        };
        if let (Some(base), Some(subject)) = (spread(base), spread(subject)) {
            let both = [base.lowest, base.highest, subject.lowest, subject.highest].map(span);
            let [base_lowest, base_highest, lowest, highest] = both;
            write!(text, "; rounds {base_lowest}–{base_highest} and {lowest}–{highest}")?;
        }
        match limit {
            Some(limit) => writeln!(text, "), limit {limit}: {verdict}")?,
            None => writeln!(text, "), no limit")?,
        }
    }
    Ok(text)
}

/// A ratio for people.
pub(crate) fn times(ratio: f64) -> String {
    // To a base of 0 ns, which a coarse clock can give, there is no ratio.
    if ratio < f64::MAX { format!("{ratio:.3}") } else { "undefined".to_owned() }
}

/// A span for people, with three digits or so.
pub(crate) fn span(ns: f64) -> String {
    match ns.abs() {
        below if below < 100.0 => format!("{ns:.1} ns"),
        below if below < 10_000.0 => format!("{ns:.0} ns"),
        below if below < 1e6 => format!("{:.1} µs", ns / 1e3),
        below if below < 1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

impl std::fmt::Display for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, median_ns, control_median_ns, limit_ns, verdict } = self;
        write!(f, "{name}: {} (median)", span(*median_ns))?;
        if let Some(control) = control_median_ns {
            write!(f, ", control {}", span(*control))?;
        }
        if let Some(limit) = limit_ns {
            write!(f, ", limit {}: {verdict}", span(*limit))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_about_three_digits() {
        let shown = [3.25, 161.4, 9_999.0, 12_345.0, 4.5e6, 2e9].map(span);
        assert_eq!(shown, ["3.2 ns", "161 ns", "9999 ns", "12.3 µs", "4.50 ms", "2.00 s"]);
    }
}
