//! A fixed set of slots, allocated and touched once, lent out by handle.
//!
//! The free list is a stack of slot numbers threaded through an array (Treiber, 1986) with a
//! change count beside the top, so that a slot that left and came back between a load and its
//! compare-exchange is noticed (the ABA problem). Lending and returning are lock-free: a retry
//! means that another thread succeeded.

use crate::sync::{Arc, AtomicU32, AtomicU64, Ordering, UnsafeCell};
use crossbeam::utils::CachePadded;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// The number that ends the free list.
const NONE: u32 = u32::MAX;

struct Shared<T> {
    /// Upper half: change count. Lower half: the number of the first free slot, or `NONE`.
    top: CachePadded<AtomicU64>,
    /// For each free slot the number of the next free one.
    next: Box<[AtomicU32]>,
    slots: Box<[UnsafeCell<T>]>,
}

// SAFETY: the free list gives each slot number to one handle at a time (the compare-exchange in
// `take` removes it), and a slot is reached only through its handle. Values move between threads
// with their handle, hence `T: Send`; they are never shared, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the pool owns its values.
unsafe impl<T: Send> Send for Shared<T> {}

/// A pool of a fixed number of `T`, shared by clones of this value.
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T: Send> Pool<T> {
    /// Makes `capacity` slots, each filled by `init`, which also touches their memory.
    ///
    /// Allocates: call before the lanes start.
    ///
    /// # Panics
    /// When `capacity` is 0 or does not fit in 31 bits.
    #[must_use]
    pub fn new(capacity: usize, mut init: impl FnMut() -> T) -> Self {
        assert!(capacity > 0 && capacity < (1 << 31), "a pool has 1 to 2^31 - 1 slots");
        let last = capacity as u32 - 1;
        let next = (0..=last).map(|n| AtomicU32::new(if n == last { NONE } else { n + 1 }));
        Self {
            shared: Arc::new(Shared {
                top: CachePadded::new(AtomicU64::new(0)),
                next: next.collect(),
                slots: (0..capacity).map(|_| UnsafeCell::new(init())).collect(),
            }),
        }
    }

    /// Borrows a free slot with whatever its last user left in it, or `None` when all are lent:
    /// a counted drop for the caller, never a wait. Lock-free, does not allocate.
    #[inline]
    #[must_use]
    pub fn take(&self) -> Option<Slot<T>> {
        let shared = &*self.shared;
        let mut top = shared.top.load(Ordering::Acquire);
        loop {
            let number = top as u32;
            if number == NONE {
                return None;
            }
            let next = shared.next[number as usize].load(Ordering::Relaxed);
            match shared.top.compare_exchange_weak(
                top,
                changed(top, next),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(Slot { shared: self.shared.clone(), number }),
                Err(newer) => top = newer,
            }
        }
    }
}

impl<T> Pool<T> {
    /// How many slots the pool has, lent or free.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// How many slots are free, counted by walking the list: for tests and shutdown reports, while
    /// nobody takes or returns.
    #[must_use]
    pub fn free(&self) -> usize {
        let mut number = self.shared.top.load(Ordering::Acquire) as u32;
        let mut count = 0;
        while number != NONE && count < self.capacity() {
            count += 1;
            number = self.shared.next[number as usize].load(Ordering::Acquire);
        }
        count
    }
}

/// The list's top after a change: the next count with `number` as first free slot.
#[cfg(not(sinew_broken))]
const fn changed(top: u64, number: u32) -> u64 {
    ((top >> 32).wrapping_add(1) << 32) | number as u64
}

/// The known-broken variant that the loom test must catch: no change count.
#[cfg(sinew_broken)]
const fn changed(_top: u64, number: u32) -> u64 {
    number as u64
}

/// One borrowed slot. It goes back to its pool when dropped, from any thread.
///
/// A slot has one holder: it can be handed on to another thread, and it cannot be doubled.
///
/// ```
/// fn can_be_sent<T: Send>() {}
/// can_be_sent::<sinew_rt::pool::Slot<u64>>();
/// ```
///
/// ```compile_fail,E0277
/// fn can_be_cloned<T: Clone>() {}
/// can_be_cloned::<sinew_rt::pool::Slot<u64>>();
/// ```
pub struct Slot<T> {
    shared: Arc<Shared<T>>,
    number: u32,
}

impl<T> Deref for Slot<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this handle is the only one for its slot (see `Shared`), and the borrow of
        // `self` keeps it lent for as long as the result is used.
        self.shared.slots[self.number as usize].with(|cell| unsafe { &*cell })
    }
}

impl<T> DerefMut for Slot<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` is the only borrow.
        self.shared.slots[self.number as usize].with_mut(|cell| unsafe { &mut *cell })
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.number).finish()
    }
}

impl<T> Drop for Slot<T> {
    #[inline]
    fn drop(&mut self) {
        let shared = &*self.shared;
        let mut top = shared.top.load(Ordering::Relaxed);
        loop {
            shared.next[self.number as usize].store(top as u32, Ordering::Relaxed);
            // Release: what this handle wrote happens before the next one's reads.
            match shared.top.compare_exchange_weak(
                top,
                changed(top, self.number),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(newer) => top = newer,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_says_so_and_a_dropped_slot_comes_back() {
        let pool = Pool::new(2, || 0_u32);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_eq!(pool.free(), 0);
        drop(first);
        assert_eq!(pool.free(), 1);
        drop(second);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_slot_keeps_what_was_written_and_outlives_its_pool() {
        let pool = Pool::new(1, || [0_u8; 64]);
        let mut slot = pool.take().unwrap();
        slot[7] = 9;
        drop(pool);
        assert_eq!(slot[7], 9);
    }

    #[test]
    fn slots_taken_and_returned_on_many_threads_are_never_lent_twice() {
        const ROUNDS: u32 = 20_000;
        let pool = Pool::new(3, || 0_u64);
        std::thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let Some(mut slot) = pool.take() else { continue };
                        let mark = thread << 32 | u64::from(round);
                        *slot = mark;
                        std::hint::spin_loop();
                        assert_eq!(*slot, mark, "another thread wrote into a lent slot");
                    }
                });
            }
        });
        assert_eq!(pool.free(), 3);
    }
}
