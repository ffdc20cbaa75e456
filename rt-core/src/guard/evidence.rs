//! Whose fault a missed budget was, from what the kernel counts for the thread.
//!
//! The rules are in the documentation of [`super`].

use std::cell::Cell;

use crate::clock::{self, Nanos};
use crate::panel::Cause;

/// What the kernel has counted for the calling thread so far.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_time: Nanos,
    involuntary_switches: u64,
    voluntary_switches: u64,
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
    /// CPU time that may have passed within `total`: going to sleep and waking are work.
    slack: Nanos,
}

/// Most CPU time that one park takes for going to sleep and waking. Futex and epoll sleeps were seen
/// to take 2 to 6 µs (`sinew bench hop`); beyond this constant they count as if the thread had slept.
const PARK_CPU_MAX: Nanos = Nanos::from_micros(10);

/// After this many parks the counters are read again: at 30 µs from park to park, 0.8 µs in 4 ms.
const PARKS_MAX: u32 = 128;

/// A lane that was last about to sleep longer ago than this can afford to read the counters each time.
const UNHURRIED: Nanos = Nanos::from_micros(250);

/// The guarded executions since the baseline.
#[derive(Clone, Copy, Debug)]
struct Executions {
    longest: Nanos,
    total: Nanos,
}

impl Executions {
    const NONE: Self = Self { longest: Nanos::ZERO, total: Nanos::ZERO };
}

thread_local! {
    /// One per thread, for the kernel counts per thread. Plain data: no allocation, no destructor.
    static BASELINE: Cell<Option<Baseline>> = const { Cell::new(None) };
    static EXECUTIONS: Cell<Executions> = const { Cell::new(Executions::NONE) };
    /// When the thread was last about to sleep.
    static LAST_PARK: Cell<Nanos> = const { Cell::new(Nanos::MIN) };
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
/// [`Cause::Unknown`].
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

/// How the counters changed between the baseline and the end of an execution that overran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    since: Nanos,
    earlier: Executions,
    sleep: Sleep,
    pub(super) cpu_time: Nanos,
    pub(super) involuntary_switches: u64,
    pub(super) voluntary_switches: u64,
}

impl Evidence {
    /// Reads the counters, compares them with the baseline and makes them the next baseline. `None`
    /// without a usable baseline.
    pub(super) fn gather(now: Nanos) -> Option<Self> {
        let (base, earlier) = (BASELINE.get(), EXECUTIONS.get());
        let usage = Usage::now();
        set_baseline(now, usage);
        let base = base.filter(|base| base.asleep_since.is_none())?;
        Some(Self {
            since: base.at,
            earlier,
            sleep: base.sleep,
            cpu_time: usage.cpu_time - base.usage.cpu_time,
            involuntary_switches: usage
                .involuntary_switches
                .saturating_sub(base.usage.involuntary_switches),
            voluntary_switches: usage
                .voluntary_switches
                .saturating_sub(base.usage.voluntary_switches),
        })
    }

    /// The verdict on an execution from `start` to `end`: the table in the module documentation.
    pub(super) fn cause(&self, start: Nanos, end: Nanos, budget: Nanos) -> Cause {
        let over = (end - start) - budget;
        // Awake time only: all sleeps ended before this execution began.
        let age = (start - self.since) - self.sleep.total;
        if age < Nanos::ZERO {
            // The baseline was taken within the execution: it says nothing about its beginning.
            return Cause::Unknown;
        }
        // Some of the CPU time belongs to the sleeps, and what belongs to them hides as much of the
        // time off the CPU while awake.
        let off_cpu = age + (end - start) - self.cpu_time;
        if off_cpu + self.sleep.slack < over {
            return Cause::OwnOverrun;
        }
        // A hypervisor or an interrupt takes the CPU without a switch; count it as one.
        let asleep = u64::from(self.sleep.parks);
        let awake_switches =
            self.involuntary_switches + self.voluntary_switches.saturating_sub(asleep);
        let pauses = i64::try_from(awake_switches.max(1)).unwrap_or(i64::MAX);
        let unguarded = (age - self.earlier.total).max(Nanos::ZERO);
        let before = |pauses: i64| (self.earlier.longest * pauses + unguarded).min(age);
        // More than fits before: then at least one of the pauses was in this execution.
        let before = if off_cpu > before(pauses) { before(pauses - 1) } else { before(pauses) };
        if off_cpu - before >= over { Cause::NotOnCpu } else { Cause::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: i64) -> Nanos {
        Nanos::from_micros(us)
    }

    /// An execution of 150 µs with a budget of 50, begun `age` after the baseline; the thread was
    /// off the CPU for `off` since then.
    fn verdict(age: i64, off: i64, switches: u64, longest: i64, guarded: i64) -> Cause {
        let evidence = Evidence {
            since: us(1_000),
            earlier: Executions { longest: us(longest), total: us(guarded) },
            sleep: Sleep::default(),
            cpu_time: us(age + 150 - off),
            involuntary_switches: switches,
            voluntary_switches: 0,
        };
        evidence.cause(us(1_000 + age), us(1_150 + age), us(50))
    }

    #[test]
    fn time_on_the_cpu_beyond_the_budget_is_the_codes_own_fault() {
        assert_eq!(verdict(0, 0, 0, 0, 0), Cause::OwnOverrun);
        assert_eq!(verdict(0, 99, 1, 0, 0), Cause::OwnOverrun);
        assert_eq!(verdict(900, 99, 5, 40, 0), Cause::OwnOverrun, "however old the baseline");
    }

    #[test]
    fn a_pause_that_can_only_have_been_here_and_explains_it_all_is_not() {
        assert_eq!(verdict(0, 100, 1, 0, 0), Cause::NotOnCpu);
        assert_eq!(verdict(10, 110, 1, 0, 0), Cause::NotOnCpu);
        assert_eq!(verdict(0, 120, 0, 0, 0), Cause::NotOnCpu, "stolen without a switch");
        // A spinning lane: 900 µs of short guarded polls cannot hide a pause of 100 µs.
        assert_eq!(verdict(900, 100, 1, 1, 900), Cause::NotOnCpu);
        // Three pauses before of 40 µs each do not fit into an age of 50.
        assert_eq!(verdict(50, 150, 3, 40, 50), Cause::NotOnCpu);
        // Two pauses, of which the earlier one took at most the longest poll.
        assert_eq!(verdict(900, 101, 2, 1, 900), Cause::NotOnCpu);
    }

    #[test]
    fn what_may_have_passed_before_does_not_decide() {
        assert_eq!(verdict(10, 105, 1, 10, 0), Cause::Unknown, "unguarded time before");
        assert_eq!(verdict(900, 100, 1, 1, 700), Cause::Unknown, "200 µs were unguarded");
        assert_eq!(verdict(900, 100, 3, 40, 900), Cause::Unknown, "could be three pauses of 40");
        assert_eq!(verdict(900, 100, 2, 1, 900), Cause::Unknown, "1 µs short of explaining it");
    }

    #[test]
    fn a_baseline_from_within_the_execution_does_not_decide() {
        assert_eq!(verdict(-10, 0, 0, 0, 0), Cause::Unknown);
    }

    /// As [`verdict`], right after `parks` sleeps of a millisecond each: the counters say that the
    /// thread used `hidden` of CPU time for going to sleep and waking.
    fn after_sleeps(parks: u32, hidden: i64, off: i64, switches: u64) -> Cause {
        let slept = us(1_000) * i64::from(parks);
        let evidence = Evidence {
            since: us(1_000),
            earlier: Executions::NONE,
            sleep: Sleep { total: slept, parks, slack: PARK_CPU_MAX * i64::from(parks) },
            cpu_time: us(150 - off + hidden),
            involuntary_switches: switches,
            voluntary_switches: u64::from(parks),
        };
        evidence.cause(us(1_000) + slept, us(1_150) + slept, us(50))
    }

    #[test]
    fn what_was_slept_is_not_time_off_the_cpu() {
        assert_eq!(after_sleeps(3, 0, 0, 0), Cause::OwnOverrun);
        assert_eq!(after_sleeps(3, 0, 120, 1), Cause::NotOnCpu);
    }

    #[test]
    fn cpu_time_that_the_sleeps_may_have_used_leaves_the_verdict_open() {
        // Off the CPU for all of the 100 µs that are over, of which the way to sleep hides some.
        assert_eq!(after_sleeps(4, 4, 103, 1), Cause::Unknown, "the counters show 99 µs");
        assert_eq!(after_sleeps(4, 12, 120, 1), Cause::NotOnCpu, "108 µs are enough to see");
        assert_eq!(after_sleeps(4, 8, 0, 0), Cause::OwnOverrun, "40 µs do not make up 100");
        assert_eq!(after_sleeps(9, 8, 0, 0), Cause::OwnOverrun, "90 µs less the 8 that were seen");
        assert_eq!(after_sleeps(12, 8, 0, 0), Cause::Unknown, "12 parks may hide 120 µs");
    }

    #[test]
    fn a_sleep_without_notice_leaves_no_evidence_and_one_with_notice_does() {
        keep_baseline_fresh(us(10), us(5));
        assert!(Evidence::gather(us(11)).is_some());
        after_park(us(12));
        assert!(Evidence::gather(us(13)).is_none());
        before_park(us(13));
        assert!(Evidence::gather(us(14)).is_none(), "asleep, and never said awake");
        before_park(us(14));
        after_park(us(15));
        assert_eq!(Evidence::gather(us(16)).map(|e| e.sleep.total), Some(us(1)));
        before_park(us(17));
        before_park(us(18));
        after_park(us(20));
        let evidence = Evidence::gather(us(21)).expect("a baseline");
        assert_eq!((evidence.since, evidence.sleep.total), (us(18), us(2)), "that of the second");
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
    fn a_baseline_is_taken_anew_when_it_is_too_old_and_forgets_earlier_executions() {
        keep_baseline_fresh(us(0), us(1_000));
        note_execution(us(3));
        note_execution(us(2));
        keep_baseline_fresh(us(1_000), us(1_000));
        let evidence = Evidence::gather(us(1_000)).expect("a baseline");
        let Executions { longest, total } = evidence.earlier;
        assert_eq!((evidence.since, longest, total), (us(0), us(3), us(5)));
        keep_baseline_fresh(us(2_000), us(999));
        let evidence = Evidence::gather(us(2_000)).expect("a baseline");
        assert_eq!((evidence.since, evidence.earlier.total), (us(2_000), us(0)));
    }
}
