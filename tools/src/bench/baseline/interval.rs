//! Where the ratio of two runs' quantiles lies.
//!
//! Spans of one run depend on their neighbours, so formulas for independent samples would find
//! every run different from every other. Here a run is cut into consecutive blocks, and the quantile
//! of each block is one observation (Heidelberger and Lewis, "Quantile estimation in dependent
//! sequences", Operations Research 32(1), 1984). Two runs' blocks are compared by Welch's test
//! (Biometrika 34, 1947) on logarithms, which gives a ratio. What dependence is left between
//! neighbouring blocks widens the interval, as for a first-order autoregressive process.

use serde::{Deserialize, Serialize};

/// Both ends of where a ratio lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Fewer blocks than this say nothing about their scatter.
const BLOCKS_MIN: usize = 10;
/// More dependence than this would leave less than a twentieth of the blocks.
const DEPENDENCE_MAX: f64 = 0.9;

/// Where the ratio of `new` to `old` lies, each the quantiles of a run's blocks: below and above
/// with a chance of `tail` each. `None` when there are too few blocks.
pub(super) fn ratio(old: &[f64], new: &[f64], tail: f64) -> Option<Interval> {
    let (old, new) = (Mean::of_logs(old)?, Mean::of_logs(new)?);
    let difference = new.mean - old.mean;
    let variance = new.variance + old.variance;
    let half = if variance > 0.0 {
        let freedom = variance * variance / (old.welch() + new.welch());
        t_quantile(1.0 - tail, freedom) * variance.sqrt()
    } else {
        0.0
    };
    // A run that jumps by decades leaves everything open; JSON has no infinity.
    let end = |log: f64| log.exp().min(f64::MAX);
    Some(Interval { low: end(difference - half), high: end(difference + half) })
}

/// A mean of logarithms, and how far it can be trusted.
#[derive(Debug)]
struct Mean {
    mean: f64,
    /// Of the mean.
    variance: f64,
    /// Blocks as if they were independent.
    count: f64,
}

impl Mean {
    fn of_logs(blocks: &[f64]) -> Option<Self> {
        if blocks.len() < BLOCKS_MIN {
            return None;
        }
        // A clock can be coarser than what it measures; below 1 ns no ratio means anything.
        let logs: Vec<f64> = blocks.iter().map(|ns| ns.max(1.0).ln()).collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let products: f64 = logs.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum();
        let dependence = if squares > 0.0 { products / squares } else { 0.0 };
        let dependence = dependence.clamp(0.0, DEPENDENCE_MAX);
        let effective = (count * (1.0 - dependence) / (1.0 + dependence)).max(2.0);
        Some(Self { mean, variance: squares / (count - 1.0) / effective, count: effective })
    }

    fn welch(&self) -> f64 {
        self.variance * self.variance / (self.count - 1.0).max(1.0)
    }
}

/// Student's t with `freedom` degrees that a share of `probability` (above one half) lies below:
/// Abramowitz and Stegun 26.7.5, from the normal quantile of 26.2.23.
fn t_quantile(probability: f64, freedom: f64) -> f64 {
    let t = (-2.0 * (1.0 - probability).ln()).sqrt();
    let above = 2.515_517 + 0.802_853 * t + 0.010_328 * t * t;
    let below = 1.0 + 1.432_788 * t + 0.189_269 * t * t + 0.001_308 * t.powi(3);
    let z = t - above / below;
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let powers = [freedom, freedom.powi(2), freedom.powi(3)];
    z + terms.iter().zip(powers).map(|(term, power)| term / power).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (probability, freedom, wanted) in [
            (0.975, 38.0, 2.024),
            (0.975, 9.0, 2.262),
            (0.995, 20.0, 2.845),
            (0.999, 30.0, 3.385),
            (0.9995, 10.0, 4.587),
        ] {
            let found = t_quantile(probability, freedom);
            assert!((found / wanted - 1.0).abs() < 0.01, "{probability} {freedom}: {found}");
        }
    }

    #[test]
    fn equal_blocks_have_an_exact_ratio_and_few_have_none() {
        let exact = ratio(&[100.0; 20], &[150.0; 20], 0.01).unwrap();
        assert!((exact.low - 1.5).abs() < 1e-9 && (exact.high - 1.5).abs() < 1e-9);
        assert_eq!(ratio(&[100.0; 20], &[150.0; 9], 0.01), None);
        let zeros = ratio(&[0.0; 20], &[0.0; 20], 0.01).unwrap();
        assert_eq!((zeros.low, zeros.high), (1.0, 1.0));
    }

    #[test]
    fn an_interval_without_end_is_a_number_too() {
        let jumps: Vec<f64> = (0..20).map(|n| if n < 10 { 1.0 } else { 1e14 }).collect();
        let open = ratio(&jumps, &jumps, 1e-6).unwrap();
        assert!(open.low >= 0.0 && open.high.is_finite(), "{open:?}");
        let json = serde_json::to_string(&open).unwrap();
        assert_eq!(serde_json::from_str::<Interval>(&json).unwrap(), open, "{json}");
    }

    #[test]
    fn a_run_that_drifts_is_known_less_exactly_than_one_that_scatters() {
        let rising: Vec<f64> = (0..20).map(|n| 100.0 + f64::from(n)).collect();
        let mixed: Vec<f64> = (0..20).map(|n| 100.0 + f64::from(n * 7 % 20)).collect();
        let width = |blocks: &[f64]| {
            let interval = ratio(&[100.0; 20], blocks, 0.01).unwrap();
            interval.high - interval.low
        };
        assert!(width(&rising) > 2.0 * width(&mixed), "{} {}", width(&rising), width(&mixed));
    }
}
