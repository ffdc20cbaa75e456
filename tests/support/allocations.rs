//! A global allocator that counts: what is alive, and what lanes did to the heap.
//!
//! A test binary that wants it says `#[path = "support/allocations.rs"] mod allocations;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static COUNTING: Counting = Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static ON_LANES: AtomicU64 = AtomicU64::new(0);

/// Bytes that are allocated and not freed.
#[allow(dead_code, reason = "not every test file looks at it")]
pub(crate) fn live_bytes() -> i64 {
    LIVE_BYTES.load(Relaxed)
}

/// Calls of the allocator, to get, change or give back memory, that lanes have made so far.
#[allow(dead_code, reason = "not every test file looks at it")]
pub(crate) fn on_lanes() -> u64 {
    ON_LANES.load(Relaxed)
}

struct Counting;

impl Counting {
    fn note(bytes: i64) {
        LIVE_BYTES.fetch_add(bytes, Relaxed);
        if sinew::rt::lane::on_lane() {
            ON_LANES.fetch_add(1, Relaxed);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only atomics and a
// thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::note(-signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::note(signed(new_size) - signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
