//! Quantiles and medians of what was measured.

use serde::{Deserialize, Serialize};

/// A latency, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p999_ns: f64,
    pub(crate) max_ns: f64,
}

impl Quantiles {
    /// Of these spans, in any order. All are 0 without spans.
    pub(crate) fn of(mut spans_ns: Vec<u32>) -> Self {
        spans_ns.sort_unstable();
        // The span that a share of `share` does not exceed.
        let at = |share: f64| {
            let rank = (share * spans_ns.len() as f64).ceil() as usize;
            spans_ns.get(rank.saturating_sub(1)).map_or(0.0, |ns| f64::from(*ns))
        };
        Self {
            count: spans_ns.len() as u64,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
        }
    }
}

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// Of these values; `None` without any.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Self { median, lowest, highest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_span_that_so_many_do_not_exceed() {
        let found = Quantiles::of((1..=1_000).rev().collect());
        assert_eq!((found.count, found.p50_ns, found.p99_ns), (1_000, 500.0, 990.0));
        assert_eq!((found.p999_ns, found.max_ns), (999.0, 1_000.0));
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }

    #[test]
    fn a_spread_has_the_middle_of_its_values() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]).map(|spread| spread.median), Some(3.0));
        let even = spread(&[4.0, 1.0, 2.0, 9.0]);
        assert_eq!(even, Some(Spread { median: 3.0, lowest: 1.0, highest: 9.0 }));
    }
}
