//! How spans went over time, in bounded memory: extremes by time, the longest one by one, and a
//! random part of all in their order.
//!
//! Nothing here allocates while spans are added, so a real-time thread may do it between two
//! measurements. What does not fit is made coarser: buckets of time join in pairs, and of the part
//! every second span goes.

use serde::{Deserialize, Serialize};
use sinew_rt::clock::Nanos;

/// Buckets of time at most; between half of them and all are in use after a long run.
const BUCKETS: usize = 512;
/// A bucket is this power of two of ns wide at first: about 1 µs.
const FINEST: u32 = 10;
/// How many of the longest spans are kept one by one.
const LONGEST: usize = 32;
/// Spans of the random part at most.
const PART: usize = 32_768;
/// Blocks of a run for the scatter of its quantiles: enough for a t interval, and long enough that
/// neighbours hardly depend on each other.
const BLOCKS: usize = 20;
/// Spans of a block below which its median says too little, and the same for the 99th percentile.
const BLOCK_P50: usize = 10;
const BLOCK_P99: usize = 100;

/// The shortest and the longest span of a bucket of time.
#[derive(Clone, Copy, Debug)]
struct Extremes {
    min_ns: u64,
    max_ns: u64,
}

impl Extremes {
    const NONE: Self = Self { min_ns: u64::MAX, max_ns: 0 };

    fn join(&mut self, other: Self) {
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    fn is_none(self) -> bool {
        self.min_ns > self.max_ns
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    at_ns: u64,
    ns: u64,
}

/// What is kept of spans and their instants.
#[derive(Clone, Debug)]
pub(super) struct Course {
    buckets: Vec<Extremes>,
    /// The number of the first bucket: its beginning divided by the width.
    first: u64,
    /// The width of a bucket is this power of two, in ns.
    shift: u32,
    longest: Vec<Point>,
    part: Part,
}

impl Course {
    /// Room for everything. Allocates.
    pub(super) fn new() -> Self {
        Self {
            buckets: Vec::with_capacity(BUCKETS),
            first: 0,
            shift: FINEST,
            longest: Vec::with_capacity(LONGEST),
            part: Part::new(),
        }
    }

    /// Adds a span of `ns` that ended at `at`.
    #[inline]
    pub(super) fn record(&mut self, ns: u64, at: Nanos) {
        let point = Point { at_ns: at.as_unsigned(), ns };
        self.place(point.at_ns, Extremes { min_ns: ns, max_ns: ns });
        self.offer(point);
        self.part.offer(point);
    }

    /// Adds all of `other`. Allocates.
    pub(super) fn pool(&mut self, other: &Self) {
        while self.shift < other.shift {
            self.coarsen();
        }
        for (number, extremes) in (other.first..).zip(&other.buckets) {
            if !extremes.is_none() {
                self.place(number << other.shift, *extremes);
            }
        }
        other.longest.iter().for_each(|point| self.offer(*point));
        self.part.pool(&other.part);
    }

    #[inline]
    fn place(&mut self, at_ns: u64, extremes: Extremes) {
        loop {
            let number = at_ns >> self.shift;
            if self.buckets.is_empty() {
                self.first = number;
            }
            let len = self.buckets.len() as u64;
            let before = self.first.saturating_sub(number);
            let needed = (number + 1).saturating_sub(self.first).max(len).saturating_add(before);
            if needed > BUCKETS as u64 {
                self.coarsen();
                continue;
            }
            if needed > len {
                self.buckets.resize(needed as usize, Extremes::NONE);
                self.buckets.rotate_right(before as usize);
                self.first -= before;
            }
            self.buckets[(number - self.first) as usize].join(extremes);
            return;
        }
    }

    /// Joins the buckets in pairs.
    fn coarsen(&mut self) {
        let first = self.first >> 1;
        let mut used = 0;
        for index in 0..self.buckets.len() {
            let to = (((self.first + index as u64) >> 1) - first) as usize;
            let extremes = self.buckets[index];
            if to < used {
                self.buckets[to].join(extremes);
            } else {
                self.buckets[to] = extremes;
                used = to + 1;
            }
        }
        self.buckets.truncate(used);
        (self.first, self.shift) = (first, self.shift + 1);
    }

    /// Keeps `point` if it is one of the longest. These are in order, the longest first.
    #[inline]
    fn offer(&mut self, point: Point) {
        if self.longest.len() == LONGEST {
            if self.longest.last().is_some_and(|shortest| point.ns <= shortest.ns) {
                return;
            }
            self.longest.pop();
        }
        let place = self.longest.partition_point(|longer| longer.ns >= point.ns);
        self.longest.insert(place, point);
    }

    /// The course as reports have it, in ns per operation, with seconds after `started`; of the
    /// longest spans those above `outliers_above_ns`. `None` when no instants are known.
    pub(super) fn series(
        &self,
        started: Nanos,
        operations: u64,
        outliers_above_ns: u64,
    ) -> Option<Series> {
        if self.buckets.is_empty() {
            return None;
        }
        let started = started.as_unsigned() as f64;
        let seconds = |ns: f64| rounded((ns - started) / 1e9, 1e6);
        let per_operation = |ns: u64| rounded(ns as f64 / operations as f64, 1e3);
        let width_ns = (1_u64 << self.shift) as f64;
        let mut series = Series { bucket_s: width_ns / 1e9, ..Series::default() };
        let mut medians = self.part.by_bucket(self.first, self.shift, self.buckets.len());
        for ((number, extremes), spans) in (self.first..).zip(&self.buckets).zip(&mut medians) {
            if extremes.is_none() {
                continue;
            }
            series.at_s.push(seconds((number as f64 + 0.5) * width_ns));
            series.min_ns.push(per_operation(extremes.min_ns));
            spans.sort_unstable();
            series.p50_ns.push(quantile(spans, 0.5).map(per_operation));
            series.max_ns.push(per_operation(extremes.max_ns));
        }
        let outliers = self.longest.iter().filter(|point| point.ns > outliers_above_ns);
        for point in outliers {
            series.outlier_at_s.push(seconds(point.at_ns as f64));
            series.outlier_ns.push(per_operation(point.ns));
        }
        Some(series)
    }

    /// The quantiles of consecutive blocks of the run, in ns per operation.
    pub(super) fn blocks(&self, operations: u64) -> Blocks {
        let points = &self.part.points;
        let mut blocks = Blocks::default();
        if points.len() < BLOCKS * BLOCK_P50 {
            return blocks;
        }
        let has_p99 = points.len() >= BLOCKS * BLOCK_P99;
        let per_operation = |ns: u64| rounded(ns as f64 / operations as f64, 1e3);
        for block in 0..BLOCKS {
            let ends = [block, block + 1].map(|edge| edge * points.len() / BLOCKS);
            let mut spans: Vec<_> = points[ends[0]..ends[1]].iter().map(|point| point.ns).collect();
            spans.sort_unstable();
            blocks.p50_ns.extend(quantile(&spans, 0.5).map(per_operation));
            if has_p99 {
                blocks.p99_ns.extend(quantile(&spans, 0.99).map(per_operation));
            }
        }
        blocks
    }
}

/// A part of all spans, in their order: of each `stride` that came one after the other, one that
/// was chosen at random. A fixed one would keep step with whatever comes periodically.
#[derive(Clone, Debug)]
struct Part {
    points: Vec<Point>,
    stride: u64,
    /// How many of the present stride came, and which of them is kept.
    came: u64,
    chosen: u64,
    random: u64,
}

impl Part {
    fn new() -> Self {
        let random = 0x9e37_79b9_7f4a_7c15;
        Self { points: Vec::with_capacity(PART), stride: 1, came: 0, chosen: 0, random }
    }

    #[inline]
    fn offer(&mut self, point: Point) {
        if self.came == self.chosen {
            if self.points.len() == PART {
                self.thin();
            }
            self.points.push(point);
        }
        self.came += 1;
        if self.came >= self.stride {
            self.came = 0;
            self.chosen = self.random() % self.stride;
        }
    }

    /// Xorshift (Marsaglia 2003): the same choice in every run with the same spans.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Keeps one of each two.
    fn thin(&mut self) {
        let kept = self.points.len() / 2;
        for index in 0..kept {
            let second = usize::from(self.random() & (1 << 32) != 0);
            self.points[index] = self.points[2 * index + second];
        }
        self.points.truncate(kept);
        self.stride *= 2;
    }

    fn pool(&mut self, other: &Self) {
        let mut other = other.clone();
        loop {
            let fits = self.points.len() + other.points.len() <= PART;
            match self.stride.cmp(&other.stride) {
                std::cmp::Ordering::Less => self.thin(),
                std::cmp::Ordering::Greater => other.thin(),
                std::cmp::Ordering::Equal if fits => break,
                std::cmp::Ordering::Equal => {
                    self.thin();
                    other.thin();
                }
            }
        }
        self.points.append(&mut other.points);
    }

    /// The spans of each of `count` buckets.
    fn by_bucket(&self, first: u64, shift: u32, count: usize) -> Vec<Vec<u64>> {
        let mut buckets = vec![Vec::new(); count];
        for point in &self.points {
            let index = (point.at_ns >> shift).checked_sub(first);
            if let Some(bucket) = index.and_then(|index| buckets.get_mut(index as usize)) {
                bucket.push(point.ns);
            }
        }
        buckets
    }
}

/// The value that a share of `quantile` of `sorted` does not exceed.
fn quantile(sorted: &[u64], quantile: f64) -> Option<u64> {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// `value` in whole parts of one `per`-th: reports stay short, and read back as they are.
pub(super) fn rounded(value: f64, per: f64) -> f64 {
    (value * per).round() / per
}

/// How spans went over time, in ns per operation. The columns of buckets are as long as each other;
/// buckets without spans are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// The width of each bucket.
    pub(crate) bucket_s: f64,
    /// The middle of each bucket, in seconds after the start of the run.
    pub(crate) at_s: Vec<f64>,
    pub(crate) min_ns: Vec<f64>,
    /// Of the part that was kept; `None` where nothing was.
    pub(crate) p50_ns: Vec<Option<f64>>,
    pub(crate) max_ns: Vec<f64>,
    /// The longest spans above the 99th percentile, at most 32, the longest first.
    pub(crate) outlier_at_s: Vec<f64>,
    pub(crate) outlier_ns: Vec<f64>,
}

/// Quantiles of 20 consecutive blocks of a run, in ns per operation: how much they scatter says how
/// far the quantiles of the whole can be trusted. Empty where there are too few spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Blocks {
    pub(crate) p50_ns: Vec<f64>,
    pub(crate) p99_ns: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(spans: impl IntoIterator<Item = (u64, i64)>) -> Course {
        let mut course = Course::new();
        spans.into_iter().for_each(|(ns, at)| course.record(ns, Nanos::new(at)));
        course
    }

    #[test]
    fn a_long_run_fits_with_its_extremes_where_they_were() {
        let spans = (0..200_000_u64)
            .map(|n| (if n == 150_000 { 90 } else { 50 + u64::from(n % 10 > 0) }, n));
        let course = course(spans.map(|(ns, n)| (ns, n as i64 * 100_000)));
        let series = course.series(Nanos::ZERO, 1, 60).unwrap();
        assert!((BUCKETS / 2 - 1..=BUCKETS).contains(&series.at_s.len()), "{}", series.at_s.len());
        assert!(series.min_ns.iter().all(|ns| *ns == 50.0));
        assert!(series.p50_ns.iter().all(|ns| *ns == Some(51.0)));
        let worst: Vec<_> = (0..series.at_s.len()).filter(|n| series.max_ns[*n] == 90.0).collect();
        assert_eq!(worst.len(), 1);
        assert!((series.at_s[worst[0]] - 15.0).abs() <= series.bucket_s / 2.0);
        assert_eq!((series.outlier_at_s, series.outlier_ns), (vec![15.0], vec![90.0]));
    }

    #[test]
    fn instants_may_come_in_any_order_and_far_apart() {
        let second = 1_000_000_000;
        let course = course([(5, 3_600 * second), (7, second), (9, 1_800 * second)]);
        let series = course.series(Nanos::from_secs(1), 1, 6).unwrap();
        assert_eq!(series.max_ns, [7.0, 9.0, 5.0], "in the order of time");
        assert_eq!(series.outlier_ns, [9.0, 7.0], "the longest first");
        assert_eq!(series.outlier_at_s, [1_799.0, 0.0]);
    }

    #[test]
    fn pooled_rounds_are_as_if_recorded_by_one() {
        let spans: Vec<_> =
            (0..90_000_u64).map(|n| (n * 7_919 % 1_000, n as i64 * 10_000)).collect();
        let whole = course(spans.iter().copied());
        let mut pooled = Course::new();
        for round in spans.chunks(10_000) {
            pooled.pool(&course(round.iter().copied()));
        }
        assert_eq!((pooled.shift, pooled.first), (whole.shift, whole.first));
        assert_eq!(pooled.longest.iter().map(|p| p.ns).collect::<Vec<_>>(), [999; LONGEST]);
        let [ours, theirs] = [&pooled, &whole].map(|one| one.series(Nanos::ZERO, 1, 0).unwrap());
        assert_eq!((ours.at_s, ours.max_ns), (theirs.at_s, theirs.max_ns));
        assert_eq!(pooled.part.stride, whole.part.stride);
        assert!(pooled.part.points.is_sorted_by_key(|point| point.at_ns));
    }

    #[test]
    fn the_part_does_not_keep_step_with_what_comes_periodically() {
        let course = course((0..1_000_000_u64).map(|n| (u64::from(n % 64 == 0), n as i64)));
        let points = &course.part.points;
        assert!((PART / 2..=PART).contains(&points.len()));
        let share =
            points.iter().filter(|point| point.ns == 1).count() as f64 / points.len() as f64;
        assert!((share * 64.0 - 1.0).abs() < 0.25, "{share}");
    }

    #[test]
    fn blocks_show_a_run_that_drifts_and_need_enough_spans() {
        let drifting = course((0..4_000_u64).map(|n| (1_000 + n, n as i64)));
        let blocks = drifting.blocks(10);
        assert_eq!((blocks.p50_ns.len(), blocks.p99_ns.len()), (BLOCKS, BLOCKS));
        assert_eq!((blocks.p50_ns[0], blocks.p50_ns[19]), (109.9, 489.9));
        assert_eq!(blocks.p99_ns[0], 119.7);
        let few = course((0..1_999_u64).map(|n| (n, n as i64))).blocks(1);
        assert_eq!((few.p50_ns.len(), few.p99_ns.len()), (BLOCKS, 0));
        assert_eq!(course((0..199).map(|n| (n, 0))).blocks(1), Blocks::default());
    }
}
