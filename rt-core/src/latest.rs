//! The newest value of a stream, handed from one writer to one reader without ever waiting.
//!
//! A triple buffer: the writer owns one slot, the reader owns one, and the third lies between them.
//! Publishing swaps the writer's slot with the middle one; reading swaps the reader's when the
//! middle one is newer. Each side takes one atomic exchange, so neither can delay or tear the other.
//! (A ring of capacity one would keep the *oldest* value, which is the wrong one for a set-point.)

use crate::clock::Nanos;
use crate::sync::{Arc, AtomicU8, Ordering, UnsafeCell};
use crossbeam::utils::CachePadded;

const INDEX: u8 = 0b011;
/// Set while the middle slot holds a value that the reader has not taken.
const UNREAD: u8 = 0b100;

struct Slot<T> {
    value: T,
    at: Nanos,
    /// 1 for the first value published; 0 while the slot has never been written.
    sequence: u64,
}

struct Shared<T> {
    slots: [CachePadded<UnsafeCell<Option<Slot<T>>>>; 3],
    middle: CachePadded<AtomicU8>,
}

// SAFETY: a slot is reached only through an index that one side owns at a time: the indices held by
// writer, reader and `middle` are always a permutation of 0, 1, 2, and they change hands only by
// `middle.swap`, with acquire and release ordering. `T: Send` because values cross threads; no `&T`
// is ever shared between them, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Makes a connected pair: the writer publishes, the reader sees the newest.
///
/// Allocates: call before the lanes start.
#[must_use]
pub fn channel<T: Send>() -> (LatestWriter<T>, LatestReader<T>) {
    let slot = || CachePadded::new(UnsafeCell::new(None));
    let shared = Arc::new(Shared {
        slots: [slot(), slot(), slot()],
        middle: CachePadded::new(AtomicU8::new(1)),
    });
    (
        LatestWriter { shared: shared.clone(), back: 0, sequence: 0 },
        LatestReader { shared, front: 2, seen: 0 },
    )
}

/// The publishing side. Not `Clone`: one writer.
pub struct LatestWriter<T> {
    shared: Arc<Shared<T>>,
    back: u8,
    sequence: u64,
}

impl<T: Send> LatestWriter<T> {
    /// Makes `value`, stamped `at`, the newest. Wait-free; the value that it displaces is dropped
    /// here, so `T` should be plain data.
    #[inline]
    pub fn publish(&mut self, value: T, at: Nanos) {
        self.sequence += 1;
        let slot = Slot { value, at, sequence: self.sequence };
        self.shared.slots[usize::from(self.back)].with_mut(|cell| {
            // SAFETY: `back` is owned by this writer alone (see `Shared`), and `&mut self` makes
            // this the only access through it.
            unsafe { *cell = Some(slot) }
        });
        let old = self.shared.middle.swap(self.back | UNREAD, HANDOVER);
        self.back = old & INDEX;
    }
}

/// Release hands the written slot over, acquire takes the other side's finished with.
#[cfg(not(sinew_broken))]
const HANDOVER: Ordering = Ordering::AcqRel;
/// The known-broken variant that the loom test must catch.
#[cfg(sinew_broken)]
const HANDOVER: Ordering = Ordering::Relaxed;

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub struct Newest<'a, T> {
    /// The newest value published before the read.
    pub value: &'a T,
    /// The stamp that its writer gave it.
    pub at: Nanos,
    /// Its number, counted from 1.
    pub sequence: u64,
    /// How many values were published and displaced unseen between the last read and this one.
    pub skipped: u64,
}

impl<T> Newest<'_, T> {
    /// Time since the stamp; negative when the stamp lies in the future.
    #[must_use]
    pub fn age(&self, now: Nanos) -> Nanos {
        now - self.at
    }
}

/// The reading side. Not `Clone`: one reader.
pub struct LatestReader<T> {
    shared: Arc<Shared<T>>,
    front: u8,
    seen: u64,
}

impl<T: Send> LatestReader<T> {
    /// The newest value, or `None` before the first. A value that was read stays readable until a
    /// newer one comes; its age says how old it is. Wait-free.
    #[inline]
    pub fn read(&mut self) -> Option<Newest<'_, T>> {
        if self.has_unread() {
            let old = self.shared.middle.swap(self.front, HANDOVER);
            self.front = old & INDEX;
        }
        let slot = self.shared.slots[usize::from(self.front)].with(|cell| {
            // SAFETY: `front` is owned by this reader alone (see `Shared`) until the next `read`,
            // which the borrow of `self` in the result keeps from happening.
            unsafe { &*cell }
        });
        let slot = slot.as_ref()?;
        let skipped = slot.sequence.saturating_sub(self.seen).saturating_sub(1);
        self.seen = slot.sequence;
        Some(Newest { value: &slot.value, at: slot.at, sequence: slot.sequence, skipped })
    }

    /// Whether a value came that no read has returned yet. Wait-free.
    #[inline]
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.shared.middle.load(Ordering::Relaxed) & UNREAD != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nothing_was_published_yet() {
        let (_writer, mut reader) = channel::<u32>();
        assert!(reader.read().is_none());
        assert!(!reader.has_unread());
    }

    #[test]
    fn a_read_gives_the_newest_and_counts_what_was_skipped() {
        let (mut writer, mut reader) = channel();
        for n in 1..=5_u32 {
            writer.publish(n, Nanos::new(i64::from(n) * 10));
        }
        let newest = reader.read().unwrap();
        assert_eq!((*newest.value, newest.sequence, newest.skipped), (5, 5, 4));
        assert_eq!(newest.age(Nanos::new(65)), Nanos::new(15));
        assert_eq!(newest.age(Nanos::new(45)), Nanos::new(-5));
    }

    #[test]
    fn a_value_stays_until_a_newer_one_comes_and_is_not_skipped_twice() {
        let (mut writer, mut reader) = channel();
        writer.publish(1, Nanos::ZERO);
        assert_eq!(reader.read().unwrap().skipped, 0);
        let again = reader.read().unwrap();
        assert_eq!((*again.value, again.skipped), (1, 0));
        writer.publish(2, Nanos::ZERO);
        writer.publish(3, Nanos::ZERO);
        let newest = reader.read().unwrap();
        assert_eq!((*newest.value, newest.skipped), (3, 1));
    }

    #[test]
    fn values_are_never_torn_and_never_go_back() {
        const ROUNDS: u64 = 200_000;
        let (mut writer, mut reader) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 1..=ROUNDS {
                    writer.publish([n; 32], Nanos::new(n as i64));
                }
            });
            let (mut last, mut skipped, mut reads) = (0, 0, 0);
            while last < ROUNDS {
                let Some(newest) = reader.read() else { continue };
                assert!(newest.value.iter().all(|word| *word == newest.sequence), "torn");
                assert!(newest.sequence >= last, "went back");
                reads += u64::from(newest.sequence > last);
                skipped += newest.skipped;
                last = newest.sequence;
            }
            assert_eq!(reads + skipped, ROUNDS, "every value was read or counted as skipped");
        });
    }
}
