//! Spans of time, pooled over rounds, and the figures that reports show of them.

mod course;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::HistogramSnapshot;

pub(crate) use course::{Blocks, Series};
use course::{Course, rounded};

/// The longest span that has a bucket of its own: 60 s. Longer ones count as this.
const HIGHEST_NS: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Points of a percentile curve for each halving of the distance to 100 %, as HdrHistogram's own
/// plots have them.
const TICKS_PER_HALF: u32 = 5;

/// Spans in nanoseconds, in buckets of three significant digits, with the exact maximum and when it
/// was, and their course over time. Adding does not allocate, so a real-time thread may do it between two measurements.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    histogram: Histogram<u64>,
    /// How many operations each recorded span covers; quantiles are per operation.
    operations: u64,
    max_ns: u64,
    /// `None` when those who measured did not say.
    max_at: Option<Nanos>,
    course: Course,
}

impl Samples {
    /// An empty set of spans, each of which covers one operation. Allocates.
    pub(crate) fn new() -> Self {
        Self::of_batches(1)
    }

    /// An empty set of spans that each cover `operations` operations: what is too short to be timed
    /// alone is timed in batches, and shown divided by `operations`.
    pub(crate) fn of_batches(operations: u64) -> Self {
        let histogram = Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
            .expect("1 <= lowest, 2 * lowest <= highest and digits <= 5 hold for these constants");
        let operations = operations.max(1);
        Self { histogram, operations, max_ns: 0, max_at: None, course: Course::new() }
    }

    /// Adds one span that ended at `at`. Negative spans count as 0.
    #[inline]
    pub(crate) fn record(&mut self, span: Nanos, at: Nanos) {
        self.record_n(span.as_unsigned(), 1, at);
        self.course.record(span.as_unsigned(), at);
    }

    /// Adds `count` spans of `ns`, the last of which ended at `at`. They have no place in the course
    /// over time, because nobody knows when the others were.
    #[inline]
    pub(crate) fn record_n(&mut self, ns: u64, count: u64, at: Nanos) {
        self.histogram.saturating_record_n(ns.min(HIGHEST_NS), count);
        if ns > self.max_ns && count > 0 {
            self.max_ns = ns;
            self.max_at = Some(at);
        }
    }

    /// Corrects the maximum, where the spans were already in buckets when they were added.
    pub(crate) fn set_max(&mut self, ns: u64, at: Option<Nanos>) {
        (self.max_ns, self.max_at) = (ns, at);
    }

    /// The spans of a histogram of an instrument panel, which keeps two significant digits and no
    /// course over time.
    pub(crate) fn from_panel(histogram: &HistogramSnapshot) -> Self {
        let mut samples = Self::new();
        for step in histogram.hdr.iter_recorded() {
            let ns = histogram.hdr.median_equivalent(step.value_iterated_to());
            samples.record_n(ns, step.count_at_value(), Nanos::ZERO);
        }
        samples.set_max(histogram.max.as_unsigned(), histogram.max_at);
        samples
    }

    /// Adds everything that `other` holds; both must cover as many operations a span.
    pub(crate) fn pool(&mut self, other: &Self) {
        assert_eq!(self.operations, other.operations, "spans of different meaning");
        self.histogram.add(&other.histogram).expect("both have the same bounds");
        self.course.pool(&other.course);
        if other.max_ns > self.max_ns {
            (self.max_ns, self.max_at) = (other.max_ns, other.max_at);
        }
    }

    /// How many spans there are.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Every recorded span, to the precision of its bucket, with how often it came.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    /// The span that a share of `quantile` (0 to 1) does not exceed, in ns per operation.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        // A bucket ends above the greatest span in it, which is known exactly.
        self.per_operation(self.histogram.value_at_quantile(quantile).min(self.max_ns))
    }

    /// The spans in whole ns per operation, for plots and files that know no batches.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        if self.operations == 1 {
            return self.histogram.clone();
        }
        let mut scaled = Histogram::new_from(&self.histogram);
        for step in self.histogram.iter_recorded() {
            let ns = self.per_operation(step.value_iterated_to()).round() as u64;
            scaled.saturating_record_n(ns, step.count_at_value());
        }
        scaled
    }

    /// The greatest span, in ns per operation.
    pub(crate) fn max_ns(&self) -> f64 {
        self.per_operation(self.max_ns)
    }

    fn curve(&self) -> Curve {
        let mut curve = Curve::default();
        for step in self.histogram.iter_quantiles(TICKS_PER_HALF) {
            let ns = step.value_iterated_to().min(self.max_ns);
            curve.share.push(rounded(step.quantile_iterated_to(), 1e9));
            curve.value_ns.push(rounded(self.per_operation(ns), 1e3));
        }
        // The last bucket's end is not the greatest span, which is known exactly.
        if let Some(last) = curve.value_ns.last_mut() {
            *last = rounded(self.per_operation(self.max_ns), 1e3);
        }
        curve
    }

    fn per_operation(&self, ns: u64) -> f64 {
        ns as f64 / self.operations as f64
    }

    /// The figures that reports show. `started` is the origin of `max_at_s`.
    pub(crate) fn summary(&self, started: Nanos) -> Summary {
        let at = |quantile| self.quantile(quantile);
        Summary {
            count: self.count(),
            operations_per_sample: self.operations,
            mean_ns: self.histogram.mean() / self.operations as f64,
            min_ns: self.per_operation(self.histogram.min()),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: self.per_operation(self.max_ns),
            max_at_s: self.max_at.map(|at| (at - started).as_secs_f64()),
            curve: self.curve(),
            series: self.course.series(
                started,
                self.operations,
                self.histogram.value_at_quantile(0.99),
            ),
            blocks: self.course.blocks(self.operations),
        }
    }
}

/// A distribution in the figures that reports show, in ns per operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Spans recorded.
    pub(crate) count: u64,
    /// Operations that each span covers; above 1 the quantiles are of means over that many.
    pub(crate) operations_per_sample: u64,
    pub(crate) mean_ns: f64,
    pub(crate) min_ns: f64,
    pub(crate) p50_ns: f64,
    pub(crate) p90_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p999_ns: f64,
    pub(crate) p9999_ns: f64,
    pub(crate) max_ns: f64,
    /// When the maximum was, in seconds after the start of the run, if that is known.
    pub(crate) max_at_s: Option<f64>,
    #[serde(default)]
    pub(crate) curve: Curve,
    /// The course over time, where instants are known.
    #[serde(default)]
    pub(crate) series: Option<Series>,
    #[serde(default)]
    pub(crate) blocks: Blocks,
}

/// A percentile curve: the value that each share of the spans does not exceed. The points lie as
/// HdrHistogram's do, closer to each other towards the tail; both columns are as long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve {
    /// 0 to 1.
    pub(crate) share: Vec<f64>,
    /// In ns per operation.
    pub(crate) value_ns: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_shown_per_operation() {
        let mut samples = Samples::of_batches(100);
        samples.record(Nanos::new(2_550), Nanos::from_secs(3));
        let summary = samples.summary(Nanos::from_secs(1));
        assert!((summary.p50_ns - 25.5).abs() < 0.02, "{summary:?}");
        assert_eq!((summary.max_ns, summary.max_at_s), (25.5, Some(2.0)));
    }

    #[test]
    fn the_curve_passes_through_the_quantiles_and_ends_at_the_exact_maximum() {
        let mut samples = Samples::of_batches(2);
        for n in 1..=100_000 {
            samples.record(Nanos::new(2 * n + 1), Nanos::new(n));
        }
        let summary = samples.summary(Nanos::ZERO);
        let Curve { share, value_ns } = &summary.curve;
        assert!(share.len() > 50 && share.len() == value_ns.len(), "{}", share.len());
        assert!(share.is_sorted() && value_ns.is_sorted());
        for (share, value) in share.iter().zip(value_ns) {
            assert!((value / (share * 100_000.0).max(1.0) - 1.0).abs() < 0.6 || *share == 0.0);
        }
        let at = |wanted| value_ns[share.iter().position(|share| *share == wanted).unwrap()];
        assert_eq!(at(0.5), summary.p50_ns);
        assert_eq!(at(1.0), 100_000.5);
    }

    #[test]
    fn spans_in_buckets_have_no_course_and_timed_ones_have() {
        let mut samples = Samples::new();
        samples.record_n(7, 5_000, Nanos::from_secs(3));
        let summary = samples.summary(Nanos::ZERO);
        assert_eq!((summary.series, summary.blocks), (None, Blocks::default()));
        samples.record(Nanos::new(9), Nanos::from_secs(3));
        assert_eq!(samples.summary(Nanos::ZERO).series.unwrap().max_ns, [9.0]);
    }

    #[test]
    fn batches_are_plotted_per_operation() {
        let mut samples = Samples::of_batches(100);
        samples.record_n(2_500, 3, Nanos::ZERO);
        let histogram = samples.histogram();
        assert_eq!((histogram.len(), histogram.max()), (3, 25));
    }

    #[test]
    fn the_exact_maximum_and_its_time_survive_pooling() {
        let (mut early, mut late) = (Samples::new(), Samples::new());
        early.record(Nanos::new(123_457), Nanos::from_secs(5));
        late.record(Nanos::new(10), Nanos::from_secs(9));
        late.pool(&early);
        let summary = late.summary(Nanos::from_secs(4));
        assert_eq!((summary.count, summary.max_ns), (2, 123_457.0));
        assert_eq!(summary.max_at_s, Some(1.0));
    }
}
