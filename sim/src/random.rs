//! Random numbers that are the same on every machine and in every build.
//!
//! The generator is xoshiro256++ 1.0, seeded through SplitMix64, both by Blackman and Vigna ("Scrambled
//! linear pseudorandom number generators", ACM TOMS 47(4), 2021; public-domain code at
//! <https://prng.di.unimi.it/>). It is ours because the numbers must never change with a version of a
//! library: a seed that is written down has to mean the same run for ever. Only integers are drawn.

/// A stream of random numbers. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

/// The next value of SplitMix64, which also mixes whatever shall be spread over 64 bits.
#[must_use]
pub const fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The stream of `seed` for one purpose: streams of different purposes are independent, so that a draw
    /// more for one does not change what another draws.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut mixed = split_mix(seed) ^ split_mix(purpose ^ 0x5157_4157_5349_4d21);
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            split_mix(mixed)
        });
        Self { state }
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound` (0 for a bound of 0), with a bias below `bound`/2⁶⁴.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` if they are in the wrong order.
    #[inline]
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        if high <= low {
            return low;
        }
        low.wrapping_add(self.below(high.abs_diff(low).saturating_add(1)).cast_signed())
    }

    /// Whether something happens that happens `per_million` times in a million. Draws nothing for 0.
    #[inline]
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million != 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of the indices of a list of `len` things.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of xoshiro256++ from the state 1, 2, 3, 4, as in the test of the crate
        // `rand_xoshiro`, which has them from the authors' C code.
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected: [u64; 5] =
            [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205];
        assert_eq!(std::array::from_fn(|_| random.bits()), expected);
        // SplitMix64 from 1234567, as on Rosetta Code.
        assert_eq!(split_mix(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::new(7, 7);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((-5..=5).contains(&random.within(-5, 5)));
        }
        assert_eq!(random.below(0), 0);
        assert_eq!(random.within(3, 2), 3);
        assert!(!random.chance(0));
        assert!(random.chance(1_000_000));
        let mut all = [false; 4];
        (0..200).for_each(|_| all[random.index(4)] = true);
        assert_eq!(all, [true; 4]);
    }

    #[test]
    fn purposes_have_streams_of_their_own() {
        let first = |seed, purpose| Random::new(seed, purpose).bits();
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(0, 1), first(1, 0));
        assert_eq!(first(1, 1), first(1, 1));
    }
}
