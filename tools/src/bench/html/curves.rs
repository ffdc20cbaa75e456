//! Percentile curves of distributions, on the axes of HdrHistogram's plots.

use std::fmt::Write as _;

use super::super::stats::Summary;
use super::draw::{Area, Hover, figure};
use super::span;
use crate::plot::{Frame, nines};

const HEIGHT: f64 = 330.0;

/// The curves of all `rows` in one plot. Which colour is whose stands in their table.
pub(super) fn plot<'a>(rows: impl Iterator<Item = (&'a str, &'a Summary)>) -> String {
    let rows: Vec<_> = rows.filter(|(_, summary)| !summary.curve.share.is_empty()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let lowest = rows.iter().map(|(_, summary)| low_end(summary)).fold(f64::INFINITY, f64::min);
    let highest = rows.iter().map(|(_, summary)| summary.max_ns).fold(0.0, f64::max);
    let widest = rows.iter().map(|(_, summary)| nines(summary.count, summary.count as f64));
    let frame = Frame::between(widest.fold(2.0, f64::max), log(lowest), log(highest));
    let area = Area { height: HEIGHT, x: (0.0, frame.nines), y: (frame.lowest, frame.highest) };
    let mut svg = area.axes(&frame.percentiles(), &frame.latencies(), "percentile");
    let mut hover = Vec::new();
    for (colour, (name, summary)) in rows.iter().enumerate() {
        let points = points(summary, &area);
        let mut path = String::new();
        for (x, y, _) in &points {
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        let _ = write!(svg, "<path class=\"curve c{colour}\" d=\"{path}\"/>");
        if let Some((x, y, label)) = points.last() {
            let _ = write!(
                svg,
                "<circle class=\"end c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{label}</title></circle>"
            );
        }
        hover.push(Hover { name: (*name).to_owned(), colour, points });
    }
    figure("percentiles", "Latency by percentile", HEIGHT, &svg, &hover)
}

fn log(ns: f64) -> f64 {
    ns.max(1.0).log10()
}

/// The lowest 1 % may lie below the plot: one lucky value would flatten everything else.
fn low_end(summary: &Summary) -> f64 {
    let curve = summary.curve.share.iter().zip(&summary.curve.value_ns);
    let end = curve.filter(|(share, ns)| **share >= 0.01 && **ns > 0.0).map(|(_, ns)| *ns).next();
    end.unwrap_or(summary.max_ns)
}

/// Where the curve runs, and what it says there.
fn points(summary: &Summary, area: &Area) -> Vec<(f64, f64, String)> {
    let total = summary.count as f64;
    let points = summary.curve.share.iter().zip(&summary.curve.value_ns).map(|(share, ns)| {
        let right = if *share < 1.0 { -(1.0 - share).log10() } else { nines(summary.count, total) };
        // Rounded, the file is half as large.
        let [x, y] = [area.x(right), area.y(log(*ns))].map(|at| (at * 10.0).round() / 10.0);
        (x, y, format!("{} {}", percentile(*share), span(*ns)))
    });
    points.collect()
}

fn percentile(share: f64) -> String {
    if share >= 1.0 {
        return "max".to_owned();
    }
    // One digit more than there are nines.
    let digits = ((-(1.0 - share).log10()) as usize).saturating_sub(1) + usize::from(share > 0.9);
    format!("{:.digits$} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_as_many_digits_as_they_need() {
        let shown = [0.0, 0.5, 0.9, 0.95, 0.999, 0.99995, 1.0].map(percentile);
        assert_eq!(shown, ["0 %", "50 %", "90 %", "95.0 %", "99.90 %", "99.9950 %", "max"]);
    }
}
