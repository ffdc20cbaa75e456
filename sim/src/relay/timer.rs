//! A timer that ends a poll to the microsecond: a poll's own timeout has only whole milliseconds.

use sinew_rt::clock::Nanos;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A `timerfd` on CLOCK_MONOTONIC.
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sets the expiry, which also clears an earlier one that was not read.
    pub(super) fn arm(&self, deadline: Option<Nanos>) {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // A zero expiry disarms, so a deadline at or before the origin becomes the first instant.
        let it_value = deadline.map_or(zero, |at| at.max(Nanos::new(1)).to_timespec());
        let setting = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: `setting` is valid for the call and a null old value is allowed. It fails only
        // for values that `to_timespec` cannot give.
        unsafe {
            libc::timerfd_settime(
                self.raw(),
                libc::TFD_TIMER_ABSTIME,
                &raw const setting,
                std::ptr::null_mut(),
            );
        }
    }
}
