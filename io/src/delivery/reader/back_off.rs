//! Random delays, so that many readers do not ask for the same thing at the same instant.

use sinew_rt::clock::Nanos;

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for delays that should differ between readers.
#[derive(Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A span from zero to `most`, both included.
    pub(super) fn up_to(&mut self, most: Nanos) -> Nanos {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let span = (mixed ^ mixed >> 31) % most.as_unsigned().saturating_add(1);
        Nanos::new(span.cast_signed())
    }
}
