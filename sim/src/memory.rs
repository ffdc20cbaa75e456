//! How much memory a node holds: an allocator that counts, thread by thread, what was taken and given back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

static COUNTED: AtomicBool = AtomicBool::new(false);

/// The system's allocator with a count of the bytes that each thread holds. A program that wants its nodes'
/// memory judged makes it its global allocator.
#[derive(Debug)]
pub struct CountingAllocator;

/// Bytes that this thread took less those that it gave back; only differences mean something.
#[inline]
#[must_use]
pub fn held() -> i64 {
    HELD.with(Cell::get)
}

/// Whether the program counts.
#[must_use]
pub fn is_counted() -> bool {
    COUNTED.load(Ordering::Relaxed)
}

fn add(bytes: i64) {
    if !COUNTED.load(Ordering::Relaxed) {
        COUNTED.store(true, Ordering::Relaxed);
    }
    // A thread that ends has no count any more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call goes to `System` with the arguments as they came, and the count neither allocates nor
// touches the memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
