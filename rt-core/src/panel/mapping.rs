//! Memory shared with other processes, and the only place where it becomes references.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use zerocopy::{FromBytes, IntoBytes};

use super::layout::{Header, HistogramCell, ProbeCell, TripCell, ValueCell};

/// A type that may be referred to inside shared memory.
///
/// # Safety
/// Implementors consist of atomics only, through and through. Other processes may then change the
/// memory at any time without a data race; `FromBytes` makes every bit pattern that they leave there
/// a valid value, and `IntoBytes` rules out padding.
pub(crate) unsafe trait Cell: FromBytes + IntoBytes {}

// SAFETY: atomics and arrays of atomics only (layout.rs).
unsafe impl Cell for Header {}
// SAFETY: as above.
unsafe impl Cell for ProbeCell {}
// SAFETY: as above.
unsafe impl Cell for HistogramCell {}
// SAFETY: as above.
unsafe impl Cell for ValueCell {}
// SAFETY: as above.
unsafe impl Cell for TripCell {}

/// A shared mapping, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that belongs to no thread, and all access goes through
// references to atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` zeroed bytes without a file.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS, -1)
    }

    /// The first `len` bytes of `file`, for reading and writing.
    pub(crate) fn read_write(file: &File, len: usize) -> io::Result<Self> {
        Self::new(len, libc::PROT_READ | libc::PROT_WRITE, 0, file.as_raw_fd())
    }

    /// The first `len` bytes of `file`, for reading. Stores through the references that it gives
    /// out would fault; readers only load.
    pub(crate) fn read_only(file: &File, len: usize) -> io::Result<Self> {
        Self::new(len, libc::PROT_READ, 0, file.as_raw_fd())
    }

    fn new(len: usize, protection: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: a null hint and no MAP_FIXED: the kernel picks unused addresses, so no memory of
        // this process is replaced. The kernel checks `len` and `fd`.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED | flags, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The cell at `offset`, or `None` where it would reach beyond the mapping or be misaligned.
    pub(crate) fn at<T: Cell>(&self, offset: usize) -> Option<&T> {
        self.slice(offset, 1)?.first()
    }

    /// `count` cells from `offset` on, or `None` where they would reach beyond the mapping or be
    /// misaligned.
    pub(crate) fn slice<T: Cell>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset <= end <= len`, so the result stays within the mapping.
        let first = unsafe { self.start.add(offset) }.cast::<T>();
        if !first.is_aligned() {
            return None;
        }
        // SAFETY: in bounds and aligned as just checked; mapped for as long as `self` is borrowed;
        // `Cell` makes any bytes valid and changes by others no data race.
        Some(unsafe { std::slice::from_raw_parts(first.as_ptr(), count) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `mmap` returned, and nobody borrows from `self` any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
