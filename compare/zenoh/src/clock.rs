//! `CLOCK_MONOTONIC`, which two processes of one machine share.

/// Now, in ns.
pub(crate) fn now_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec on this stack.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "Linux has had CLOCK_MONOTONIC since 2.6");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Sleeps until `at_ns`.
pub(crate) fn sleep_until(at_ns: i64) {
    let at = libc::timespec { tv_sec: at_ns / 1_000_000_000, tv_nsec: at_ns % 1_000_000_000 };
    // A signal ends the sleep early: the next call sleeps on.
    while now_ns() < at_ns {
        // SAFETY: the pointer is to a timespec on this stack; null for what remains is allowed.
        unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const at,
                std::ptr::null_mut(),
            );
        }
    }
}
