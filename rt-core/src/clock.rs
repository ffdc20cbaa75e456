//! Time as signed nanoseconds, and the two clocks it comes from: the kernel's and a virtual one.
//!
//! One type serves for instants (nanoseconds of `CLOCK_MONOTONIC`) and for spans, and it is signed:
//! a message that seems to come from the future has a negative age, not an age of 584 years.

use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};
use std::sync::atomic::{AtomicI64, Ordering};

/// Signed nanoseconds: an instant of a [`Clock`], or a span between two instants.
///
/// Arithmetic saturates, so that a hostile timestamp can neither wrap nor panic on a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Nanos(i64);

impl Nanos {
    /// The zero span, and the origin of the clock.
    pub const ZERO: Self = Self(0);
    /// The latest instant; as a span about 292 years.
    pub const MAX: Self = Self(i64::MAX);
    /// The earliest instant.
    pub const MIN: Self = Self(i64::MIN);

    /// `ns` nanoseconds.
    #[must_use]
    pub const fn new(ns: i64) -> Self {
        Self(ns)
    }

    /// `us` microseconds, saturating.
    #[must_use]
    pub const fn from_micros(us: i64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// `ms` milliseconds, saturating.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// `s` seconds, saturating.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }

    /// The signed count of nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The count of nanoseconds, with negative values as 0: what a histogram records.
    #[must_use]
    pub const fn as_unsigned(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0.unsigned_abs() }
    }

    /// Microseconds with their fraction, for people.
    #[must_use]
    pub fn as_micros_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// Seconds with their fraction.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The kernel's form of the same instant. Negative values become zero: the kernel refuses them.
    #[must_use]
    pub fn to_timespec(self) -> libc::timespec {
        let ns = self.as_unsigned();
        libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        }
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(span: std::time::Duration) -> Self {
        Self(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl From<Nanos> for std::time::Duration {
    /// Negative spans become zero.
    fn from(span: Nanos) -> Self {
        Self::from_nanos(span.as_unsigned())
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Nanos {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Nanos {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Mul<i64> for Nanos {
    type Output = Self;
    fn mul(self, factor: i64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Div<i64> for Nanos {
    type Output = Self;
    /// Truncates towards zero; division by zero gives zero rather than a panic on a lane.
    fn div(self, divisor: i64) -> Self {
        Self(self.0.checked_div(divisor).unwrap_or(0))
    }
}

impl fmt::Display for Nanos {
    /// A length that people can read: `850 ns`, `12.4 µs`, `3.000 ms`, `2.500 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0 as f64;
        match self.0.unsigned_abs() {
            0..1_000 => write!(f, "{} ns", self.0),
            1_000..1_000_000 => write!(f, "{:.1} µs", ns / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.3} ms", ns / 1e6),
            _ => write!(f, "{:.3} s", ns / 1e9),
        }
    }
}

/// A source of instants that never goes backwards.
pub trait Clock {
    /// The present instant.
    fn now(&self) -> Nanos;
}

/// `CLOCK_MONOTONIC`: one origin for every process on the host, slewed but never stepped.
///
/// Reading it is wait-free and, with the vDSO and a stable TSC, no system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Nanos {
        now()
    }
}

/// The present instant of `CLOCK_MONOTONIC`. Wait-free.
#[inline]
#[must_use]
pub fn now() -> Nanos {
    read(libc::CLOCK_MONOTONIC)
}

/// The CPU time that the calling thread has used so far. A system call (about 0.2 µs): for the
/// moment after a missed budget, not for every execution.
#[must_use]
pub fn thread_cpu_time() -> Nanos {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Wall-clock time as nanoseconds since 1970: for reports, never for ages or deadlines.
#[must_use]
pub fn wall() -> Nanos {
    read(libc::CLOCK_REALTIME)
}

#[inline]
fn read(clock: libc::clockid_t) -> Nanos {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the whole call. The three clock ids used in
    // this file exist on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut ts) };
    Nanos::new(ts.tv_sec * 1_000_000_000 + ts.tv_nsec)
}

/// Sleeps until `deadline` of `CLOCK_MONOTONIC` (absolute, so a late wake does not move the next
/// one). Returns at once when the deadline has passed. Signals do not end the sleep early.
pub fn sleep_until(deadline: Nanos) {
    let ts = deadline.to_timespec();
    // SAFETY: `ts` is a valid timespec, and a null remainder is allowed with TIMER_ABSTIME
    // (clock_nanosleep(2)).
    while unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const ts,
            std::ptr::null_mut(),
        )
    } == libc::EINTR
    {}
}

/// A clock that moves only when told to, shared by whoever holds a reference: for tests and
/// simulation.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Nanos) -> Self {
        Self(AtomicI64::new(start.as_nanos()))
    }

    /// Moves the clock forward by `span`; a negative span is ignored, since clocks never go back.
    pub fn advance(&self, span: Nanos) {
        let span = i64::try_from(span.as_unsigned()).unwrap_or(i64::MAX);
        self.0.fetch_add(span, Ordering::Relaxed);
    }

    /// Moves the clock forward to `instant`, or leaves it when it is already later.
    pub fn advance_to(&self, instant: Nanos) {
        self.0.fetch_max(instant.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Nanos::MAX + Nanos::new(1), Nanos::MAX);
        assert_eq!(Nanos::MIN - Nanos::new(1), Nanos::MIN);
        assert_eq!(-Nanos::MIN, Nanos::MAX);
        assert_eq!(Nanos::new(7) / 0, Nanos::ZERO);
        assert_eq!(Nanos::new(-5).as_unsigned(), 0);
    }

    #[test]
    fn the_kernel_clock_never_goes_back() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn a_sleep_into_the_past_returns_and_one_into_the_future_does_not_return_early() {
        sleep_until(now() - Nanos::from_secs(1));
        sleep_until(Nanos::new(-1));
        let deadline = now() + Nanos::from_millis(2);
        sleep_until(deadline);
        assert!(now() >= deadline);
    }

    #[test]
    fn a_virtual_clock_moves_only_forward() {
        let clock = VirtualClock::new(Nanos::new(100));
        clock.advance(Nanos::new(-50));
        assert_eq!(clock.now(), Nanos::new(100));
        clock.advance_to(Nanos::new(40));
        assert_eq!(clock.now(), Nanos::new(100));
        clock.advance(Nanos::new(5));
        assert_eq!(clock.now(), Nanos::new(105));
    }

    #[test]
    fn spans_are_shown_in_the_unit_that_people_would_use() {
        assert_eq!(Nanos::new(850).to_string(), "850 ns");
        assert_eq!(Nanos::new(-12_400).to_string(), "-12.4 µs");
        assert_eq!(Nanos::from_millis(3).to_string(), "3.000 ms");
        assert_eq!(Nanos::from_secs(2).to_string(), "2.000 s");
    }
}
