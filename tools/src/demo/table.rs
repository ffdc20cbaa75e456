//! One process's figures as rows: the same in the live table, in the final report and in JSON.

use serde::Serialize;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, Kind, PanelSnapshot};

use super::gauges;

/// A distribution with what it is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) count: u64,
    #[serde(rename = "p50_ns")]
    pub(crate) p50: Nanoseconds,
    #[serde(rename = "p99_ns")]
    pub(crate) p99: Nanoseconds,
    #[serde(rename = "p999_ns")]
    pub(crate) p999: Nanoseconds,
    #[serde(rename = "max_ns")]
    pub(crate) max: Nanoseconds,
    /// `None` for what has no budget.
    #[serde(rename = "budget_ns")]
    pub(crate) budget: Option<Nanoseconds>,
    /// Budgets missed.
    pub(crate) trips: Option<u64>,
}

/// A span that is a plain number in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Nanoseconds(i64);

impl From<Nanoseconds> for Nanos {
    fn from(span: Nanoseconds) -> Self {
        Self::new(span.0)
    }
}

impl From<Nanos> for Nanoseconds {
    fn from(span: Nanos) -> Self {
        Self(span.as_nanos())
    }
}

/// The stages in the order of a message, the loop, and what is measured beside them.
const ORDER: [&str; 6] = ["receive", "verify", "deliver", gauges::CART, gauges::PILOT, "send"];

/// The heading over rows as [`Row::line`] writes them.
pub(crate) const HEADING: &str =
    "                      count      p50      p99    p99.9      max  budget  trips";

impl Row {
    fn new(name: &str, what: &str, histogram: &HistogramSnapshot) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            count: histogram.count,
            p50: histogram.quantile(0.5).into(),
            p99: histogram.quantile(0.99).into(),
            p999: histogram.quantile(0.999).into(),
            max: histogram.max.into(),
            budget: None,
            trips: None,
        }
    }

    /// 78 columns, as long as no number is out of the ordinary.
    pub(crate) fn line(&self) -> String {
        let span = |span: Nanoseconds| short(span.into());
        let budget = self.budget.map_or_else(|| "-".to_owned(), span);
        let trips = self.trips.map_or_else(|| "-".to_owned(), |trips| trips.to_string());
        format!(
            "  {:<17}{:>8}{:>9}{:>9}{:>9}{:>9}{:>8}{:>7}",
            self.name,
            self.count,
            span(self.p50),
            span(self.p99),
            span(self.p999),
            span(self.max),
            budget,
            trips,
        )
    }
}

/// A span in at most eight columns: `850 ns`, `12.4 µs`, `3.10 ms`.
pub(crate) fn short(span: Nanos) -> String {
    let ns = span.as_nanos() as f64;
    match span.as_nanos().unsigned_abs() {
        0..1_000 => format!("{ns} ns"),
        1_000..100_000 => format!("{:.1} µs", ns / 1e3),
        100_000..1_000_000 => format!("{:.0} µs", ns / 1e3),
        1_000_000..100_000_000 => format!("{:.2} ms", ns / 1e6),
        100_000_000..1_000_000_000 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// The rows that the live table shows.
pub(crate) fn rows(panel: &PanelSnapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in ORDER {
        let Some(probe) = panel.probe(name) else { continue };
        let Some(histogram) = probe.execution_histogram.and_then(|at| panel.histograms.get(at))
        else {
            continue;
        };
        let shown = match name {
            gauges::CART | gauges::PILOT => format!("{name} (loop)"),
            stage => stage.to_owned(),
        };
        let mut row = Row::new(&shown, "execution", histogram);
        row.budget = Some(probe.budget.into());
        row.trips = Some(probe.overruns);
        rows.push(row);
    }
    let others = [
        (gauges::CART, Kind::WakeUp, "loop wake-up"),
        (gauges::PILOT, Kind::WakeUp, "loop wake-up"),
        (gauges::AGE, Kind::Age, "message age"),
    ];
    for (name, kind, shown) in others {
        if let Some(histogram) = panel.histogram(name, kind) {
            rows.push(Row::new(shown, &kind.to_string(), histogram));
        }
    }
    rows
}

/// The rows of the report: also what the live table has no room for.
pub(crate) fn all_rows(panel: &PanelSnapshot) -> Vec<Row> {
    let mut rows = rows(panel);
    let stop = panel.probe(&format!("{} stop", gauges::CART));
    let stop = stop.filter(|probe| probe.executions > 0);
    if let Some(probe) = stop
        && let Some(histogram) = probe.execution_histogram.and_then(|at| panel.histograms.get(at))
    {
        let mut row = Row::new("safe-stop path", "execution", histogram);
        (row.budget, row.trips) = (Some(probe.budget.into()), Some(probe.overruns));
        rows.push(row);
    }
    if let Some(histogram) = panel.histogram(gauges::ROUND_TRIP, Kind::Span) {
        rows.push(Row::new(gauges::ROUND_TRIP, "span", histogram));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_wide_as_its_heading_and_fits_a_terminal() {
        let row = Row {
            name: "state to setpoint".to_owned(),
            what: "span".to_owned(),
            count: 12_345_678,
            p50: Nanos::from_micros(999).into(),
            p99: Nanos::new(99_949).into(),
            p999: Nanos::new(99_994_000).into(),
            max: Nanos::from_millis(9_999).into(),
            budget: Some(Nanos::from_micros(250).into()),
            trips: Some(123_456),
        };
        assert_eq!(row.line().chars().count(), 78, "{}", row.line());
        assert_eq!(HEADING.chars().count(), 78);
    }

    #[test]
    fn spans_are_short_at_every_size() {
        for (ns, text) in [
            (0, "0 ns"),
            (850, "850 ns"),
            (12_440, "12.4 µs"),
            (250_000, "250 µs"),
            (3_104_000, "3.10 ms"),
            (823_000_000, "823 ms"),
            (2_500_000_000, "2.50 s"),
        ] {
            assert_eq!(short(Nanos::new(ns)), text);
        }
    }
}
