//! What a run was, in 64 bits: a hash over every event, equal wherever and however the run is repeated.

/// FNV-1a's step over words of 64 bits instead of bytes, with a shift that brings high bits down: quick,
/// and no two different runs that we look at have ever agreed. It protects against nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
/// An odd multiplier with well-spread bits (2⁶⁴ over the golden ratio).
const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for TraceHash {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl TraceHash {
    /// Adds one word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        let h = (self.0 ^ word).wrapping_mul(PRIME);
        self.0 = h ^ (h >> 29);
    }

    /// Adds bytes, and their number.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The hash so far.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u64 {
        let mut hash = TraceHash::default();
        hash.bytes(bytes);
        hash.get()
    }

    #[test]
    fn every_byte_and_the_length_count() {
        assert_ne!(hash(b"12345678"), hash(b"12345679"));
        assert_ne!(hash(b"1"), hash(b"1\0"));
        assert_ne!(hash(b""), hash(b"\0\0\0\0\0\0\0\0"));
        assert_eq!(hash(b"the same"), hash(b"the same"));
    }
}
