//! Numbers that look random and repeat: for delays that should differ between nodes, and for tests and
//! simulations. Never for secrets.

use sinew_rt::clock::Nanos;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A span from zero to `most`, both included.
    pub(crate) fn up_to(&mut self, most: Nanos) -> Nanos {
        Nanos::new(self.below(most.as_unsigned().saturating_add(1)).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper_s_code() {
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<_> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn bounds_hold_at_their_ends() {
        let mut random = SplitMix64::new(1);
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert_eq!(random.up_to(Nanos::ZERO), Nanos::ZERO);
        let drawn: Vec<_> = (0..100).map(|_| random.up_to(Nanos::new(3)).as_nanos()).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&3)));
    }
}
