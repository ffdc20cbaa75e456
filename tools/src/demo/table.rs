//! One process's figures as rows: the same in the live table, in the final report and in JSON.

use serde::Serialize;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, Kind, PanelSnapshot, ProbeSnapshot};

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

/// The heading over rows as [`Row::line`] writes them.
pub(crate) const HEADING: &str =
    "                      count      p50      p99    p99.9      max  budget  trips";

impl From<&Measured<'_>> for Row {
    fn from(measured: &Measured<'_>) -> Self {
        let Measured { name, histogram, guard } = measured;
        Self {
            name: name.clone(),
            what: histogram.kind.to_string(),
            count: histogram.count,
            p50: histogram.quantile(0.5).into(),
            p99: histogram.quantile(0.99).into(),
            p999: histogram.quantile(0.999).into(),
            max: histogram.max.into(),
            budget: guard.map(|guard| guard.budget.into()),
            trips: guard.map(|guard| guard.overruns),
        }
    }
}

impl Row {
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

/// The stages in the order of a message, the loop, and what is measured beside them.
const ORDER: [&str; 6] = ["receive", "verify", "deliver", gauges::CART, gauges::PILOT, "send"];

/// One distribution of a panel under the name that the demo gives it.
#[derive(Clone, Debug)]
pub(crate) struct Measured<'a> {
    pub(crate) name: String,
    pub(crate) histogram: &'a HistogramSnapshot,
    /// `None` for what has no budget.
    guard: Option<&'a ProbeSnapshot>,
}

/// What the live table shows: stages and loop in order, the wake-up, the age of messages.
pub(crate) fn measured(panel: &PanelSnapshot) -> Vec<Measured<'_>> {
    let stages = ORDER.into_iter().filter_map(|name| {
        let shown = match name {
            gauges::CART | gauges::PILOT => format!("{name} (loop)"),
            stage => stage.to_owned(),
        };
        guarded(panel, name, shown)
    });
    let others = [
        (gauges::CART, Kind::WakeUp, "loop wake-up"),
        (gauges::PILOT, Kind::WakeUp, "loop wake-up"),
        (gauges::AGE, Kind::Age, "message age"),
    ];
    let others =
        others.into_iter().filter_map(|(name, kind, shown)| span(panel, name, kind, shown));
    stages.chain(others).collect()
}

/// What the report shows besides: too rare, or too detailed, for the live table.
pub(crate) fn measured_besides(panel: &PanelSnapshot) -> Vec<Measured<'_>> {
    let stop = guarded(panel, &format!("{} stop", gauges::CART), "safe-stop path".to_owned());
    let round_trip = span(panel, gauges::ROUND_TRIP, Kind::Span, gauges::ROUND_TRIP);
    stop.into_iter().chain(round_trip).collect()
}

fn guarded<'a>(panel: &'a PanelSnapshot, probe: &str, name: String) -> Option<Measured<'a>> {
    let guard = panel.probe(probe)?;
    let histogram = panel.histograms.get(guard.execution_histogram?)?;
    Some(Measured { name, histogram, guard: Some(guard) })
}

fn span<'a>(
    panel: &'a PanelSnapshot,
    histogram: &str,
    kind: Kind,
    name: &str,
) -> Option<Measured<'a>> {
    let histogram = panel.histogram(histogram, kind)?;
    Some(Measured { name: name.to_owned(), histogram, guard: None })
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
