//! One writer, any readers, words that belong together: a sequence lock over shared atomic words.
//!
//! The writer makes the sequence odd, writes the words, and makes it even again; it never waits. A
//! reader copies the words and keeps the copy only when the sequence was even and the same before
//! and after. The fences are those of Boehm, "Can seqlocks get along with programming language
//! memory models?" (MSPC 2012): all data accesses are relaxed atomics, so that there is no data
//! race even while a copy is thrown away.
//!
//! The algorithm is generic over [`Word`], because the panel runs it on atomics in mapped memory
//! while the model checker (`tests/loom_panel.rs`) runs the very same code on its own atomics.

use std::sync::atomic::Ordering;

/// A 64-bit atomic word of one memory model: the standard library's, or the model checker's.
pub trait Word {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
    /// A fence of the same memory model.
    fn fence(order: Ordering);
}

impl Word for std::sync::atomic::AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
    #[inline]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

#[cfg(loom)]
impl Word for loom::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }
    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

/// Writes `values` into `words` as one unit. Wait-free.
///
/// There must be one writer at a time per `sequence`; that is the caller's to see to. When the two
/// slices differ in length, the common part is written.
#[inline]
pub fn write<W: Word>(sequence: &W, words: &[W], values: &[u64]) {
    // A writer that died half-way leaves an odd value behind; `| 1` heals it on the next write.
    let odd = sequence.load(Ordering::Relaxed) | 1;
    sequence.store(odd, Ordering::Relaxed);
    // Orders the odd sequence before the data: whoever sees new data also sees the odd number.
    W::fence(Ordering::Release);
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
    // Orders the data before the even sequence.
    sequence.store(odd.wrapping_add(1), Ordering::Release);
}

/// Copies `words` into `copy` and says whether they belong together; one attempt, wait-free. After
/// `false` the copy is worthless.
#[inline]
#[must_use]
pub fn try_read<W: Word>(sequence: &W, words: &[W], copy: &mut [u64]) -> bool {
    // A relaxed load and a fence instead of an acquire load: only relaxed loads are defined on memory
    // that is mapped read-only (documentation of `std::sync::atomic`).
    let before = sequence.load(Ordering::Relaxed);
    W::fence(Ordering::Acquire);
    if before & 1 == 1 {
        return false;
    }
    for (word, value) in words.iter().zip(copy.iter_mut()) {
        *value = word.load(Ordering::Relaxed);
    }
    // Orders the data before the second look at the sequence.
    W::fence(Ordering::Acquire);
    sequence.load(Ordering::Relaxed) == before
}

/// How often [`read`] tries. A live writer holds the sequence odd for some nanoseconds; one that
/// was killed half-way holds it odd for ever.
pub const READ_ATTEMPTS: u32 = 256;

/// Copies `words` into `copy`, trying up to [`READ_ATTEMPTS`] times. `false` means that the writer
/// was always in the middle, or died there. Bounded; meant for readers off the real-time threads.
#[must_use]
pub fn read<W: Word>(sequence: &W, words: &[W], copy: &mut [u64]) -> bool {
    (0..READ_ATTEMPTS).any(|_| {
        let whole = try_read(sequence, words, copy);
        if !whole {
            std::hint::spin_loop();
        }
        whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn what_was_written_is_read_back() {
        let sequence = AtomicU64::new(0);
        let words = [const { AtomicU64::new(0) }; 3];
        write(&sequence, &words, &[1, 2, 3]);
        let mut copy = [0; 3];
        assert!(read(&sequence, &words, &mut copy));
        assert_eq!((copy, sequence.into_inner()), ([1, 2, 3], 2));
    }

    #[test]
    fn a_writer_that_died_half_way_makes_the_read_fail_and_the_next_write_heals_it() {
        let sequence = AtomicU64::new(7);
        let words = [const { AtomicU64::new(5) }; 2];
        let mut copy = [0; 2];
        assert!(!read(&sequence, &words, &mut copy));
        write(&sequence, &words, &[8, 9]);
        assert!(read(&sequence, &words, &mut copy));
        assert_eq!((copy, sequence.into_inner()), ([8, 9], 8));
    }
}
