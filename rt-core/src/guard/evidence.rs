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
    /// Taken before a sleep that has not ended yet, as far as we were told.
    asleep: bool,
}

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
}

/// Remembers an execution within its budget. Some nanoseconds.
#[inline]
pub(super) fn note_execution(duration: Nanos) {
    let Executions { longest, total } = EXECUTIONS.get();
    EXECUTIONS.set(Executions { longest: longest.max(duration), total: total + duration });
}

fn set_baseline(at: Nanos, usage: Usage, asleep: bool) {
    BASELINE.set(Some(Baseline { at, usage, asleep }));
    EXECUTIONS.set(Executions::NONE);
}

/// The lane is about to sleep: takes the baseline that [`after_park`] makes good. Two system calls
/// that do not block (about 0.8 µs), at a moment when there is nothing else to do.
pub fn before_park() {
    set_baseline(Nanos::ZERO, Usage::now(), true);
}

/// The lane woke at `now`. Wait-free, no system call. Without a [`before_park`] the baseline is
/// forgotten, for it could not tell sleep from pre-emption, and the next overrun's cause is
/// [`Cause::Unknown`].
///
/// The CPU time that going to sleep and waking took, some microseconds, counts as if it were spent
/// after `now`: overruns shorter than that may be called `OwnOverrun` or `Unknown` although the
/// thread was pre-empted.
pub fn after_park(now: Nanos) {
    match BASELINE.get() {
        Some(Baseline { usage, asleep: true, .. }) => set_baseline(now, usage, false),
        _ => BASELINE.set(None),
    }
}

/// Takes a new baseline when the last one is older than `max_age`; otherwise some nanoseconds. For
/// lanes that never park, on idle polls: every millisecond or so costs less than a tenth of a per cent.
#[inline]
pub fn keep_baseline_fresh(now: Nanos, max_age: Nanos) {
    let fresh = BASELINE.get().is_some_and(|base| !base.asleep && now - base.at <= max_age);
    if !fresh {
        set_baseline(now, Usage::now(), false);
    }
}

/// How the counters changed between the baseline and the end of an execution that overran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    since: Nanos,
    earlier: Executions,
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
        set_baseline(now, usage, false);
        let base = base.filter(|base| !base.asleep)?;
        Some(Self {
            since: base.at,
            earlier,
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
        let age = start - self.since;
        if age < Nanos::ZERO {
            // The baseline was taken within the execution: it says nothing about its beginning.
            return Cause::Unknown;
        }
        let off_cpu = (end - self.since) - self.cpu_time;
        if off_cpu < over {
            return Cause::OwnOverrun;
        }
        // A hypervisor or an interrupt takes the CPU without a switch; count it as one.
        let pauses = (self.involuntary_switches + self.voluntary_switches).max(1);
        let pauses = i64::try_from(pauses).unwrap_or(i64::MAX);
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

    #[test]
    fn a_sleep_without_notice_leaves_no_evidence_and_one_with_notice_does() {
        keep_baseline_fresh(us(10), us(5));
        assert!(Evidence::gather(us(11)).is_some());
        after_park(us(12));
        assert!(Evidence::gather(us(13)).is_none());
        before_park();
        assert!(Evidence::gather(us(14)).is_none(), "asleep, and never said awake");
        before_park();
        after_park(us(15));
        assert_eq!(Evidence::gather(us(16)).map(|e| e.since), Some(us(15)));
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
