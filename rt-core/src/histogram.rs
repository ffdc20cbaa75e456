//! The bucket arithmetic of HdrHistogram as pure functions: which of 3,584 counts a duration
//! belongs to, and which durations a count stands for.
//!
//! Two significant decimal digits over 1 ns to 10 s: values up to 255 ns have a bucket each, and
//! above that every power of two is cut into 128 equal parts, so a bucket is at most 1/128 (0.8 %)
//! of its value wide. The layout is the one of Gil Tene's HdrHistogram with
//! `lowest = 1, highest = 10^10, digits = 2`, and a property test holds every boundary against the
//! `hdrhistogram` crate, so that panel data becomes a real [`hdrhistogram::Histogram`] without loss.

use hdrhistogram::Histogram;

/// Counts in one histogram: 28 powers of two (from 128 up), 128 counts each.
pub const COUNTS_LEN: usize = 3_584;

/// The greatest duration that has a bucket: 10 s. Longer ones are counted as overflow.
pub const HIGHEST_NS: u64 = 10_000_000_000;

/// Significant decimal digits that a bucket keeps.
pub const SIGNIFICANT_DIGITS: u8 = 2;

/// log2 of the number of counts per power of two.
const HALF_BITS: u32 = 7;
/// Leading zeros of the greatest value of bucket 0 (255).
const BASE_ZEROS: u32 = u64::BITS - HALF_BITS - 1;

/// The count that `value_ns` belongs to, or `None` above [`HIGHEST_NS`]. Wait-free.
#[inline]
#[must_use]
pub const fn index_of(value_ns: u64) -> Option<usize> {
    if value_ns > HIGHEST_NS {
        return None;
    }
    // `| 255`: everything up to 255 shares bucket 0, whose resolution is one nanosecond.
    let bucket = BASE_ZEROS - (value_ns | 0xff).leading_zeros();
    Some(((bucket << HALF_BITS) as usize) + (value_ns >> bucket) as usize)
}

/// The smallest duration of the count at `index`. Meaningful below [`COUNTS_LEN`].
#[must_use]
pub const fn lowest_of(index: usize) -> u64 {
    let (bucket, part) = split(index);
    part << bucket
}

/// The greatest duration of the count at `index`. Meaningful below [`COUNTS_LEN`].
#[must_use]
pub const fn highest_of(index: usize) -> u64 {
    let (bucket, part) = split(index);
    ((part + 1) << bucket) - 1
}

/// The power of two that a count's width is, and its place in units of that width.
const fn split(index: usize) -> (u32, u64) {
    let index = index as u64;
    let bucket = (index >> HALF_BITS).saturating_sub(1);
    (bucket as u32, index - (bucket << HALF_BITS))
}

/// An empty histogram of the `hdrhistogram` crate with exactly this layout. Allocates.
#[must_use]
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS)
        .expect("1 <= lowest, 2 * lowest <= highest and digits <= 5 hold for these constants")
}

/// The same distribution as a histogram of the `hdrhistogram` crate. Allocates.
///
/// `overflow` values enter at [`HIGHEST_NS`]: a quantile that falls among them then says "10 s"
/// (with the exact maximum kept beside it) instead of hiding them. Counts beyond [`COUNTS_LEN`]
/// are ignored, and totals saturate at `u64::MAX`, which only a corrupt panel can reach.
#[must_use]
pub fn to_hdr(counts: &[u64], overflow: u64) -> Histogram<u64> {
    let mut histogram = empty();
    let mut left = u64::MAX;
    let mut add = |value: u64, count: u64| {
        let count = count.min(left);
        left -= count;
        if count > 0 {
            histogram.saturating_record_n(value, count);
        }
    };
    for (index, &count) in counts.iter().take(COUNTS_LEN).enumerate() {
        add(lowest_of(index), count);
    }
    add(HIGHEST_NS, overflow);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_boundary_is_where_the_hdrhistogram_crate_has_it() {
        let hdr = empty();
        assert_eq!(hdr.distinct_values(), COUNTS_LEN);
        let mut expected_lowest = 0;
        for index in 0..COUNTS_LEN {
            let (lowest, highest) = (lowest_of(index), highest_of(index));
            assert_eq!(lowest, expected_lowest, "no gap and no overlap before {index}");
            assert_eq!(hdr.lowest_equivalent(lowest), lowest);
            assert_eq!(hdr.highest_equivalent(lowest), highest);
            for value in [lowest, lowest.midpoint(highest), highest] {
                let expected = (value <= HIGHEST_NS).then_some(index);
                assert_eq!(index_of(value), expected, "{value} ns");
            }
            expected_lowest = highest + 1;
        }
        // The crate counts up to the end of the power of two; we stop at what is documented.
        assert_eq!(expected_lowest, 1 << 34);
        assert!(index_of(HIGHEST_NS).is_some());
        assert_eq!(index_of(HIGHEST_NS + 1), None);
        assert_eq!(index_of(u64::MAX), None);
    }

    #[test]
    fn what_is_counted_at_an_index_is_counted_there_by_the_crate() {
        let all: Vec<u64> = (0..COUNTS_LEN as u64).map(|index| index % 3).collect();
        let hdr = to_hdr(&all, 0);
        assert_eq!(hdr.len(), all.iter().sum::<u64>());
        for (index, count) in all.iter().enumerate() {
            assert_eq!(hdr.count_at(lowest_of(index)), *count);
        }
    }

    #[test]
    fn absurd_counts_of_a_corrupt_panel_saturate() {
        let hdr = to_hdr(&[u64::MAX; COUNTS_LEN + 5], u64::MAX);
        assert_eq!(hdr.len(), u64::MAX);
        assert_eq!(hdr.value_at_quantile(0.5), 0);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_a_histogram_that_saw_the_values(
            values in prop::collection::vec(
                (0u32..36, any::<u64>()).prop_map(|(bits, noise)| noise & ((1 << bits) - 1)),
                1..300,
            ),
        ) {
            let (mut counts, mut overflow) = (vec![0; COUNTS_LEN], 0);
            let mut direct = empty();
            for &value in &values {
                match index_of(value) {
                    Some(index) => counts[index] += 1,
                    None => overflow += 1,
                }
                direct.record(value.min(HIGHEST_NS)).expect("in range");
            }
            let converted = to_hdr(&counts, overflow);
            prop_assert_eq!(&converted, &direct);
            for percent in 0..=100 {
                let quantile = f64::from(percent) / 100.0;
                prop_assert_eq!(
                    converted.value_at_quantile(quantile),
                    direct.value_at_quantile(quantile)
                );
            }
        }
    }
}
