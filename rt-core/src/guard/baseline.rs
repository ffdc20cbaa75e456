//! What the kernel has counted for a thread, and the moment that a later look is compared with.

use std::cell::Cell;

use super::verdict::Evidence;
use crate::clock::{self, Nanos};
use crate::panel::Change;

/// What the kernel has counted for the calling thread so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_time: Nanos,
    involuntary_switches: u64,
    voluntary_switches: u64,
    minor_faults: u64,
    major_faults: u64,
}

impl Usage {
    /// Two system calls, about 0.8 µs together; neither blocks.
    fn now() -> Self {
        // SAFETY: all-zero bytes are a valid `rusage`, which is plain integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is valid and writable for the call. RUSAGE_THREAD with a valid pointer
        // cannot fail (getrusage(2)); if it did, no switches would be reported.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        Self {
            cpu_time: clock::thread_cpu_time(),
            involuntary_switches: usage.ru_nivcsw.cast_unsigned(),
            voluntary_switches: usage.ru_nvcsw.cast_unsigned(),
            minor_faults: usage.ru_minflt.cast_unsigned(),
            major_faults: usage.ru_majflt.cast_unsigned(),
        }
    }
}

/// What a later look at the counters is compared with.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    at: Nanos,
    usage: Usage,
    /// What the thread has slept since.
    sleep: Sleep,
    /// When the sleep began that has not ended yet, as far as we were told.
    asleep_since: Option<Nanos>,
}

/// The sleeps since the baseline.
#[derive(Clone, Copy, Debug, Default)]
struct Sleep {
    total: Nanos,
    parks: u32,
    /// Of them, those so short that they may have returned at once, without giving up the core.
    brief: u32,
    /// CPU time that may have passed within `total`: going to sleep and waking are work.
    slack: Nanos,
}

/// A park that finds its reason to wake there already returns at once, and is no switch; in a virtual
/// machine setting its timer may take so long. A longer one has been off the core.
const BRIEF: Nanos = Nanos::from_micros(50);

/// Most CPU time that one park takes for going to sleep and waking: in a virtual machine, where setting
/// the timer is a call of the hypervisor, 30 µs were seen. What it takes beyond this counts as if the
/// thread had slept.
const PARK_CPU_MAX: Nanos = Nanos::from_micros(50);

/// After this many parks the counters are read again: at 30 µs from park to park, 0.8 µs in 4 ms.
const PARKS_MAX: u32 = 128;

/// A lane that was last about to sleep longer ago than this can afford to read the counters each time.
const UNHURRIED: Nanos = Nanos::from_micros(250);

/// The guarded executions since the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executions {
    pub(super) longest: Nanos,
    pub(super) total: Nanos,
}

impl Executions {
    pub(super) const NONE: Self = Self { longest: Nanos::ZERO, total: Nanos::ZERO };
}

thread_local! {
    /// One per thread, for the kernel counts per thread. Plain data: no allocation, no destructor.
    static BASELINE: Cell<Option<Baseline>> = const { Cell::new(None) };
    static EXECUTIONS: Cell<Executions> = const { Cell::new(Executions::NONE) };
    /// When the thread was last about to sleep.
    static LAST_PARK: Cell<Nanos> = const { Cell::new(Nanos::MIN) };
    /// 0 before it was asked for.
    static THREAD_ID: Cell<u32> = const { Cell::new(0) };
}

/// Remembers an execution within its budget. Some nanoseconds.
#[inline]
pub(super) fn note_execution(duration: Nanos) {
    let Executions { longest, total } = EXECUTIONS.get();
    EXECUTIONS.set(Executions { longest: longest.max(duration), total: total + duration });
}

fn set_baseline(at: Nanos, usage: Usage) {
    BASELINE.set(Some(Baseline { at, usage, sleep: Sleep::default(), asleep_since: None }));
    EXECUTIONS.set(Executions::NONE);
}

/// The lane is about to sleep at `now`: from here to [`after_park`] it sleeps, and is not kept from
/// its core. Some nanoseconds; and two system calls that do not block (about 0.8 µs) where they do
/// not matter, to take a new baseline: when the thread has not been here for a quarter of a
/// millisecond, or 128 times since the last one.
pub fn before_park(now: Nanos) {
    let unhurried = now - LAST_PARK.replace(now) > UNHURRIED;
    let kept = BASELINE
        .get()
        .filter(|base| !unhurried && base.sleep.parks < PARKS_MAX && base.asleep_since.is_none());
    let base = kept.unwrap_or_else(|| {
        EXECUTIONS.set(Executions::NONE);
        Baseline { at: now, usage: Usage::now(), sleep: Sleep::default(), asleep_since: None }
    });
    BASELINE.set(Some(Baseline { asleep_since: Some(now), ..base }));
}

/// The lane woke at `now`. Wait-free, no system call. Without a [`before_park`] the baseline is
/// forgotten, for it could not tell sleep from pre-emption, and the next overrun's cause is
/// [`Unknown`](crate::panel::Cause::Unknown).
///
/// Going to sleep and waking take CPU time, some microseconds, which the counters have and the time
/// awake has not. How much is not known, so a verdict stands only when it is the same for all that it
/// may be.
pub fn after_park(now: Nanos) {
    BASELINE.set(BASELINE.get().and_then(|base| {
        let slept = (now - base.asleep_since?).max(Nanos::ZERO);
        let sleep = Sleep {
            total: base.sleep.total + slept,
            parks: base.sleep.parks.saturating_add(1),
            brief: base.sleep.brief.saturating_add(u32::from(slept <= BRIEF)),
            slack: base.sleep.slack + slept.min(PARK_CPU_MAX),
        };
        Some(Baseline { sleep, asleep_since: None, ..base })
    }));
}

/// Takes a new baseline when the last one is older than `max_age`; otherwise some nanoseconds. For
/// lanes that never park, on idle polls: every millisecond or so costs less than a tenth of a per cent.
#[inline]
pub fn keep_baseline_fresh(now: Nanos, max_age: Nanos) {
    let fresh =
        BASELINE.get().is_some_and(|base| base.asleep_since.is_none() && now - base.at <= max_age);
    if !fresh {
        set_baseline(now, Usage::now());
    }
}

/// What the kernel calls this thread: a system call that does not block, about 0.1 µs, at a thread's
/// first call, and none later.
pub(super) fn thread_id() -> u32 {
    if THREAD_ID.get() == 0 {
        // SAFETY: gettid(2) has no arguments and cannot fail.
        THREAD_ID.set(unsafe { libc::gettid() }.cast_unsigned());
    }
    THREAD_ID.get()
}

/// How the counters changed between the baseline and `now`, the end of an execution that missed,
/// which becomes the next baseline. `None` without a usable one.
pub(super) fn gather(now: Nanos) -> Option<Evidence> {
    let (base, earlier) = (BASELINE.get(), EXECUTIONS.get());
    let usage = Usage::now();
    set_baseline(now, usage);
    let Baseline { at, usage: before, sleep, .. } =
        base.filter(|base| base.asleep_since.is_none())?;
    let change = Change {
        // Zero says that there is no evidence.
        awake: ((now - at) - sleep.total).max(Nanos::new(1)),
        cpu_time: usage.cpu_time - before.cpu_time,
        involuntary_switches: usage
            .involuntary_switches
            .saturating_sub(before.involuntary_switches),
        voluntary_switches: usage.voluntary_switches.saturating_sub(before.voluntary_switches),
        parks: u64::from(sleep.parks),
        minor_faults: usage.minor_faults.saturating_sub(before.minor_faults),
        major_faults: usage.major_faults.saturating_sub(before.major_faults),
        slack: sleep.slack,
    };
    Some(Evidence { earlier, change, brief_parks: u64::from(sleep.brief) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: i64) -> Nanos {
        Nanos::from_micros(us)
    }

    #[test]
    fn a_sleep_without_notice_leaves_no_evidence_and_one_with_notice_does() {
        keep_baseline_fresh(us(10), us(5));
        assert!(gather(us(11)).is_some());
        after_park(us(12));
        assert!(gather(us(13)).is_none());
        before_park(us(13));
        assert!(gather(us(14)).is_none(), "asleep, and never said awake");
        before_park(us(14));
        after_park(us(15));
        assert_eq!(gather(us(16)).map(|e| e.change.awake), Some(us(1)));
        before_park(us(17));
        before_park(us(18));
        after_park(us(20));
        let evidence = gather(us(21)).expect("a baseline");
        let Change { awake, parks, .. } = evidence.change;
        assert_eq!((awake, parks), (us(1), 1), "that of the second");
    }

    /// Parks at `now` for 2 µs; when the baseline is from.
    fn park(now: Nanos) -> Nanos {
        before_park(now);
        after_park(now + us(2));
        BASELINE.get().expect("a baseline").at
    }

    #[test]
    fn a_lane_in_a_hurry_reads_the_counters_at_one_park_in_128() {
        let start = us(1_000);
        let read: Vec<i64> =
            (0..400).filter(|n| park(start + us(30 * n)) == start + us(30 * n)).collect();
        assert_eq!(read, [0, 128, 256, 384]);
        let Some(Baseline { sleep, .. }) = BASELINE.get() else { panic!("a baseline") };
        assert_eq!((sleep.parks, sleep.total, sleep.slack), (16, us(32), us(32)));
    }

    #[test]
    fn a_lane_that_is_not_reads_them_at_every_park() {
        for n in 1..10 {
            let now = us(251 * n);
            assert_eq!(park(now), now);
        }
        assert_eq!(park(us(251 * 9 + 250)), us(251 * 9), "just in a hurry");
    }

    #[test]
    fn a_long_sleep_hides_only_what_going_to_sleep_and_waking_take() {
        before_park(us(0));
        after_park(us(5_000));
        let Some(Baseline { sleep, .. }) = BASELINE.get() else { panic!("a baseline") };
        assert_eq!((sleep.total, sleep.slack), (us(5_000), PARK_CPU_MAX));
    }

    #[test]
    fn a_park_that_may_have_returned_at_once_is_told_from_one_that_slept() {
        before_park(us(0));
        after_park(us(300));
        before_park(us(310));
        after_park(us(312));
        let evidence = gather(us(320)).expect("a baseline");
        assert_eq!((evidence.change.parks, evidence.brief_parks), (1, 1), "a new one at leisure");
        before_park(us(330));
        after_park(us(500));
        before_park(us(510));
        after_park(us(511));
        let evidence = gather(us(520)).expect("a baseline");
        assert_eq!((evidence.change.parks, evidence.brief_parks), (2, 1));
    }

    #[test]
    fn a_baseline_is_taken_anew_when_it_is_too_old_and_forgets_earlier_executions() {
        keep_baseline_fresh(us(0), us(1_000));
        note_execution(us(3));
        note_execution(us(2));
        keep_baseline_fresh(us(1_000), us(1_000));
        let evidence = gather(us(1_000)).expect("a baseline");
        let Executions { longest, total } = evidence.earlier;
        assert_eq!((evidence.change.awake, longest, total), (us(1_000), us(3), us(5)));
        keep_baseline_fresh(us(2_000), us(999));
        let evidence = gather(us(2_000)).expect("a baseline");
        assert_eq!((evidence.change.awake, evidence.earlier.total), (Nanos::new(1), us(0)));
    }
}
