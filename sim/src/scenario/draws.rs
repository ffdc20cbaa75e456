//! Randomness that is a function of what it is for: the same question always has the same answer.
//!
//! A generator with a state would make every decision depend on all earlier ones, and taking one fault
//! out of a scenario would change all others. Here each decision has its own number, so a scenario can
//! be shrunk and what is left stays as it was.

use sinew_rt::clock::Nanos;

use super::{Chance, Delay};
use crate::random::split_mix;

/// What a draw decides.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum For {
    Loss = 1,
    Duplicate,
    Corrupt,
    FlippedBit,
    Reorder,
    HoldBack,
    Delay,
}

/// The draws of one copy of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draws(u64);

impl Draws {
    /// Those of copy `copy` of the datagram numbered `index` on the link with this seed.
    pub(crate) fn of(seed: u64, index: u64, copy: u64) -> Self {
        Self(split_mix(split_mix(seed ^ split_mix(index)).wrapping_add(copy)))
    }

    /// 64 random bits: the `n`th of what is drawn for one purpose.
    pub(crate) fn bits(self, purpose: For, n: u64) -> u64 {
        split_mix(self.0 ^ split_mix((purpose as u64) << 32 | n))
    }

    pub(crate) fn holds(self, purpose: For, chance: Chance) -> bool {
        chance.holds((self.bits(purpose, 0) >> 32) as u32)
    }

    /// From 0 to `most`, each as likely.
    pub(crate) fn up_to(self, purpose: For, n: u64, most: u64) -> u64 {
        let wide = u128::from(self.bits(purpose, n)) * (u128::from(most) + 1);
        (wide >> 64) as u64
    }

    pub(crate) fn delay(self, delay: Delay) -> Nanos {
        match delay {
            Delay::Fixed(span) => span,
            Delay::Uniform { least, most } => {
                let span = self.up_to(For::Delay, 0, (most - least).as_unsigned());
                least + Nanos::new(span as i64)
            }
            Delay::Normal { mean, deviation, least, most } => {
                let off = (i128::from(deviation.as_nanos()) * i128::from(self.deviate())) >> 32;
                let off = i64::try_from(off).unwrap_or(i64::MAX);
                (mean + Nanos::new(off)).max(least).min(most)
            }
        }
    }

    /// A number around 0 with a standard deviation of 2³²: the sum of twelve uniform ones, which is
    /// normal enough to 3 deviations and, unlike a logarithm, the same on every machine.
    fn deviate(self) -> i64 {
        let sum: i64 = (0..12).map(|n| (self.bits(For::Delay, n) >> 32) as i64).sum();
        sum - 6 * (1 << 32)
    }
}

/// The seed of the link between two names, whatever other nodes there are.
pub(crate) fn link_seed(seed: u64, from: &str, to: &str) -> u64 {
    let name = |hash: u64, name: &str| {
        name.bytes().fold(hash, |hash, byte| split_mix(hash ^ u64::from(byte)))
    };
    split_mix(name(split_mix(name(split_mix(seed), from)), to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_the_same_on_every_machine() {
        // Held fixed: seeds of past failures must find the same decisions for ever.
        assert_eq!(split_mix(0), 0xe220_a839_7b1d_cdaf, "the first output of SplitMix64 from 0");
        assert_eq!(Draws::of(1, 2, 0).bits(For::Loss, 0), Draws::of(1, 2, 0).bits(For::Loss, 0));
        let all: Vec<u64> = (0..1_000)
            .flat_map(|n| [For::Loss, For::Delay].map(|what| Draws::of(7, n, 0).bits(what, 0)))
            .collect();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_normal_delay_has_its_mean_its_deviation_and_its_bounds() {
        let ms = Nanos::from_millis;
        let delay = Delay::Normal { mean: ms(10), deviation: ms(2), least: ms(5), most: ms(15) };
        let drawn: Vec<f64> =
            (0..20_000).map(|n| Draws::of(3, n, 0).delay(delay).as_nanos() as f64 / 1e6).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let squares = drawn.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>();
        let deviation = (squares / drawn.len() as f64).sqrt();
        assert!((9.9..10.1).contains(&mean), "{mean}");
        assert!((1.9..2.1).contains(&deviation), "{deviation}");
        assert!(drawn.iter().all(|delay| (5.0..=15.0).contains(delay)));
    }

    #[test]
    fn a_uniform_delay_reaches_both_ends_and_nothing_beyond() {
        let delay = Delay::Uniform { least: Nanos::new(10), most: Nanos::new(14) };
        let mut seen: Vec<i64> =
            (0..500).map(|n| Draws::of(1, n, 0).delay(delay).as_nanos()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [10, 11, 12, 13, 14]);
    }
}
