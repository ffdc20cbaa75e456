//! How spans went over time: from the shortest to the longest of each bucket, the median, and the
//! longest one by one.

use std::fmt::Write as _;

use super::super::stats::Series;
use super::draw::{Area, Hover, Lines, figure, legend};
use super::span;
use crate::plot::Frame;

const HEIGHT: f64 = 240.0;
/// About so many labels along the time.
const LABELS: f64 = 8.0;

/// The plot of all `series`; each after the first lies over those before it.
pub(super) fn plot(name: &str, series: &[Lines<'_>]) -> String {
    let times = || series.iter().flat_map(|lines| lines.of.at_s.iter().copied());
    let half = series.iter().map(|lines| lines.of.bucket_s / 2.0).fold(0.0, f64::max);
    let begin = times().fold(f64::INFINITY, f64::min) - half;
    let end = times().fold(f64::NEG_INFINITY, f64::max) + half;
    if end <= begin || times().count() == 0 {
        return String::new();
    }
    let lowest =
        series.iter().flat_map(|lines| &lines.of.min_ns).copied().fold(f64::INFINITY, f64::min);
    let highest = series.iter().flat_map(|lines| &lines.of.max_ns).copied().fold(0.0, f64::max);
    let frame = Frame::between(2.0, log(lowest), log(highest));
    let area = Area { height: HEIGHT, x: (begin, end), y: (frame.lowest, frame.highest) };
    let mut svg = area.axes(&seconds(begin, end), &frame.latencies(), "seconds into the run");
    for lines in series {
        svg.push_str(&one(lines, &area));
    }
    let hover: Vec<_> = series.iter().map(|lines| hover(lines, &area)).collect();
    let width_s = series.iter().map(|lines| lines.of.bucket_s).fold(0.0, f64::max);
    let caption = format!(
        "{name}, over time: shortest to longest and median of each {}; the longest are marked",
        span(width_s * 1e9)
    );
    let mut html = figure("over-time", &caption, HEIGHT, &svg, &hover);
    if series.len() > 1 {
        html.push_str(&legend(series.iter().map(|lines| (lines.name, lines.colour))));
    }
    html
}

fn log(ns: f64) -> f64 {
    ns.max(1.0).log10()
}

fn one(lines: &Lines<'_>, area: &Area) -> String {
    let Lines { colour, of: series, .. } = lines;
    let (mut band, mut median) = (String::new(), String::new());
    let mut before = f64::NEG_INFINITY;
    for (index, at) in series.at_s.iter().enumerate() {
        let x = area.x(*at);
        let [low, high] = [series.min_ns[index], series.max_ns[index]].map(|ns| area.y(log(ns)));
        // A bucket of equal spans is a dot and not nothing.
        let _ = write!(band, "M{x:.1} {:.1}V{:.1}", low + 0.5, high - 0.5);
        let Some(p50) = series.p50_ns[index] else { continue };
        // A line across a pause would show what nobody measured.
        let joined = at - before < 1.5 * series.bucket_s;
        let y = area.y(log(p50));
        let _ = match joined {
            true => write!(median, "L{x:.1} {y:.1}"),
            false => write!(median, "M{x:.1} {y:.1}h.01"),
        };
        before = *at;
    }
    let wide = area.wide(series.bucket_s).clamp(1.5, 12.0);
    let mut svg = format!(
        "<path class=\"band c{colour}\" stroke-width=\"{wide:.1}\" d=\"{band}\"/>\
         <path class=\"curve c{colour}\" d=\"{median}\"/>"
    );
    for (at, ns) in outliers(series) {
        let (x, y) = (area.x(at), area.y(log(ns)));
        let _ = write!(
            svg,
            "<circle class=\"outlier c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{} at {at:.3} s</title></circle>",
            span(ns)
        );
    }
    svg
}

fn outliers(series: &Series) -> impl Iterator<Item = (f64, f64)> {
    series.outlier_at_s.iter().copied().zip(series.outlier_ns.iter().copied())
}

fn hover(lines: &Lines<'_>, area: &Area) -> Hover {
    let series = lines.of;
    let points = series.at_s.iter().enumerate().map(|(index, at)| {
        let p50 = series.p50_ns[index];
        let [x, y] = [area.x(*at), area.y(log(p50.unwrap_or(series.max_ns[index])))]
            .map(|at| (at * 10.0).round() / 10.0);
        let middle = p50.map_or(String::new(), |ns| format!(" p50 {},", span(ns)));
        let [min, max] = [series.min_ns[index], series.max_ns[index]].map(span);
        (x, y, format!("{at:.2} s: min {min},{middle} max {max}"))
    });
    Hover { name: lines.name.to_owned(), colour: lines.colour, points: points.collect() }
}

/// Round numbers of seconds from `begin` to `end`.
fn seconds(begin: f64, end: f64) -> Vec<(f64, String)> {
    let rough = ((end - begin) / LABELS).max(1e-9);
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|figure| figure * decade);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * decade);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let first = (begin / step).ceil();
    let marks = (0..32).map(|n| (first + f64::from(n)) * step).take_while(|at| *at <= end);
    // Zero may come out as -0.
    marks.map(|at| (at, format!("{:.digits$}", at + 0.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round_numbers_of_seconds() {
        let labels = |begin, end| {
            seconds(begin, end).into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(labels(-0.2, 10.1), "0 2 4 6 8 10");
        assert_eq!(labels(3.01, 3.09), "3.02 3.04 3.06 3.08");
        assert_eq!(labels(0.0, 3_600.0), "0 500 1000 1500 2000 2500 3000 3500");
    }

    #[test]
    fn a_pause_interrupts_the_median_and_every_outlier_is_a_point() {
        let series = Series {
            bucket_s: 1.0,
            at_s: vec![0.5, 1.5, 8.5],
            min_ns: vec![100.0, 100.0, 100.0],
            p50_ns: vec![Some(200.0), Some(210.0), None],
            max_ns: vec![900.0, 5_000.0, 100.0],
            outlier_at_s: vec![1.25],
            outlier_ns: vec![5_000.0],
        };
        let html = plot("x", &[Lines { name: "x", colour: 0, of: &series }]);
        let path = |class: &str| {
            let from = html.split(&format!("class=\"{class} c0\"")).nth(1).unwrap();
            from.split(" d=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
        };
        assert_eq!(path("band").matches('M').count(), 3);
        assert_eq!(
            (path("curve").matches('M').count(), path("curve").matches('L').count()),
            (1, 1)
        );
        assert!(html.contains("<title>5000 ns at 1.250 s</title>"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("inf"));
        assert_eq!(plot("none", &[]), "");
    }
}
