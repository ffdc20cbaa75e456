//! Percentile curves, as an SVG for reports and as characters for the terminal.
//!
//! The axes are those of HdrHistogram's plots: the horizontal one gives every further nine of the
//! percentile the same room, so that the tail is as wide as the middle, and the vertical one is the
//! logarithm of the latency.

mod svg;
mod terminal;

use hdrhistogram::Histogram;
use sinew_rt::clock::Nanos;

pub(crate) use svg::percentiles;
pub(crate) use terminal::{Style, in_terminal};

/// One line of a plot.
#[derive(Clone, Debug)]
pub(crate) struct Curve<'a> {
    /// What the legend calls it.
    pub(crate) name: String,
    /// Its values, in nanoseconds.
    pub(crate) histogram: &'a Histogram<u64>,
    /// The greatest value, where it is known more exactly than the histogram has it.
    pub(crate) max: Option<Nanos>,
}

impl<'a> Curve<'a> {
    pub(crate) fn new(name: impl Into<String>, histogram: &'a Histogram<u64>) -> Self {
        Self { name: name.into(), histogram, max: None }
    }
}

/// The quantile function as a line of steps: nines of the percentile against log10 of the latency
/// in nanoseconds. Empty for a histogram without values.
fn steps(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let total = histogram.len() as f64;
    let mut below = 0;
    let mut line = Vec::new();
    for bucket in histogram.iter_recorded() {
        let value = histogram.highest_equivalent(bucket.value_iterated_to());
        let height = (value.max(1) as f64).log10();
        line.push((nines(below, total), height));
        below += bucket.count_since_last_iteration();
        line.push((nines(below, total), height));
    }
    line
}

/// How many nines the share of `below` in `total` has: 0.9 has one, 0.99 two. The greatest value
/// alone is drawn half a value wide, as the last share would have no end.
pub(crate) fn nines(below: u64, total: f64) -> f64 {
    (total / (total - below as f64).max(0.5)).log10()
}

/// What both kinds of plot show of a set of curves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame {
    /// Right end, in nines.
    pub(crate) nines: f64,
    /// Bottom, as log10 of nanoseconds.
    pub(crate) lowest: f64,
    /// Top, likewise.
    pub(crate) highest: f64,
}

impl Frame {
    /// Around all curves, with ends at 1, 2 or 5 of a decade. The lowest 1 % may lie below the
    /// bottom, and zeros always do: one lucky value would otherwise flatten everything else.
    fn around(curves: &[Curve<'_>]) -> Self {
        let filled = || curves.iter().map(|curve| curve.histogram).filter(|h| !h.is_empty());
        let log = |value: u64| (value.max(1) as f64).log10();
        let lowest = |h: &Histogram<u64>| match h.value_at_quantile(0.01) {
            0 => h.min_nz(),
            value => value,
        };
        let lowest = filled().filter(|h| h.max() > 0).map(|h| log(lowest(h)));
        let lowest = lowest.fold(f64::INFINITY, f64::min);
        let highest = filled().map(|h| log(h.max())).fold(f64::NEG_INFINITY, f64::max);
        let nines = filled().map(|h| nines(h.len(), h.len() as f64)).fold(2.0, f64::max);
        let lowest = if lowest.is_finite() { lowest } else { highest.max(3.0) };
        Self::between(nines, lowest, highest)
    }

    /// Around values between `lowest` and `highest`, as log10 of nanoseconds.
    pub(crate) fn between(nines: f64, lowest: f64, highest: f64) -> Self {
        let lowest = round_figure(lowest, f64::floor);
        Self { nines, lowest, highest: round_figure(highest + 0.02, f64::ceil).max(lowest + 1.0) }
    }

    /// The percentiles that are labelled, in nines.
    pub(crate) fn percentiles(&self) -> Vec<(f64, String)> {
        let mut marks = vec![(0.0, "0 %".to_owned()), (0.5_f64.recip().log10(), "50 %".to_owned())];
        for nines in 1..=self.nines.floor() as u32 {
            let label = match nines {
                1 => "90 %".to_owned(),
                2 => "99 %".to_owned(),
                more => format!("99.{} %", "9".repeat(more as usize - 2)),
            };
            marks.push((f64::from(nines), label));
        }
        marks
    }

    /// The latencies that are labelled, as log10 of nanoseconds: whole decades, and halves where
    /// there are few.
    pub(crate) fn latencies(&self) -> Vec<(f64, String)> {
        let few = self.highest - self.lowest < 2.5;
        let figures: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        (0..=10)
            .flat_map(|decade| figures.iter().map(move |figure| (decade, *figure)))
            .map(|(decade, figure)| (f64::from(decade) + figure.log10(), decade, figure))
            .filter(|(log, ..)| (self.lowest - 1e-9..=self.highest + 1e-9).contains(log))
            .map(|(log, decade, figure)| (log, latency_label(decade, figure)))
            .collect()
    }
}

/// `figure` × 10^`decade` ns in the unit that people use for it.
fn latency_label(decade: u32, figure: f64) -> String {
    let unit = ["ns", "µs", "ms", "s"][(decade as usize / 3).min(3)];
    let decade = decade - 3 * (decade / 3).min(3);
    format!("{:.0} {unit}", figure * 10_f64.powi(decade as i32))
}

/// The nearest logarithm of 1, 2 or 5 times a power of ten, in the direction of `round`.
fn round_figure(log: f64, round: fn(f64) -> f64) -> f64 {
    let figures = [1.0_f64, 2.0, 5.0, 10.0].map(f64::log10);
    let (decade, rest) = (log.floor(), log - log.floor());
    let up = round(0.5) > 0.5;
    let figure = if up {
        figures.into_iter().find(|figure| *figure >= rest - 1e-9)
    } else {
        figures.into_iter().rev().find(|figure| *figure <= rest + 1e-9)
    };
    decade + figure.unwrap_or(0.0)
}

#[cfg(test)]
pub(crate) fn example(values: impl IntoIterator<Item = (u64, u64)>) -> Histogram<u64> {
    let mut histogram = sinew_rt::histogram::empty();
    for (value, count) in values {
        histogram.record_n(value, count).expect("a value below 10 s");
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_passes_through_the_quantiles_of_its_histogram() {
        let histogram = example([(1_000, 900), (2_000, 90), (50_000, 9), (700_000, 1)]);
        let line = steps(&histogram);
        for quantile in [0.5, 0.89, 0.95, 0.985, 0.995] {
            let x = -f64::log10(1.0 - quantile);
            let step = line.chunks(2).find(|step| (step[0].0..=step[1].0).contains(&x));
            let value = 10_f64.powf(step.expect("the line covers every quantile")[0].1);
            let wanted = histogram.value_at_quantile(quantile) as f64;
            assert!((value / wanted - 1.0).abs() < 1e-9, "{quantile}: {value} not {wanted}");
        }
        assert!((line[5].0 - 3.0).abs() < 1e-9, "999 of 1,000 are three nines");
        assert!(line.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }

    #[test]
    fn histograms_without_or_with_one_value_are_drawn_too() {
        assert!(steps(&example([])).is_empty());
        let one = steps(&example([(0, 1)]));
        assert_eq!(one[0], (0.0, 0.0));
        assert!(one[1].0 > 0.0, "wide enough to be seen");
    }

    #[test]
    fn the_frame_holds_all_curves_between_round_figures() {
        let fast = example([(130, 1_000), (9_000, 1)]);
        let slow = example([(30_000, 1_000_000), (700_000, 1)]);
        let curves = [Curve::new("fast", &fast), Curve::new("slow", &slow)];
        let frame = Frame::around(&curves);
        assert!((frame.lowest - 2.0).abs() < 1e-9, "100 ns");
        assert!((frame.highest - 6.0).abs() < 1e-9, "1 ms");
        assert!((6.0..6.4).contains(&frame.nines), "a million values have six nines");
        let labels: Vec<_> = frame.percentiles().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels[..4], ["0 %", "50 %", "90 %", "99 %"]);
        assert_eq!(labels.last().map(String::as_str), Some("99.9999 %"));
        let labels: Vec<_> = frame.latencies().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms"]);
    }

    #[test]
    fn round_figures_are_one_two_and_five() {
        let round = |value: f64, how| 10_f64.powf(round_figure(value.log10(), how)).round();
        for (value, below, above) in
            [(130.0, 100.0, 200.0), (300.0, 200.0, 500.0), (700.0, 500.0, 1_000.0)]
        {
            assert_eq!((round(value, f64::floor), round(value, f64::ceil)), (below, above));
        }
        assert_eq!((round(100.0, f64::floor), round(100.0, f64::ceil)), (100.0, 100.0));
    }
}
