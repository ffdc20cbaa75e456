//! Whose fault a missed budget was, from what the kernel counted for the thread.
//!
//! The rules are in the documentation of [`super`].

use super::baseline::Executions;
use super::machine::Machine;
use crate::clock::Nanos;
use crate::panel::{Cause, Change};

/// How the counters changed between the baseline and the end of an execution that overran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) earlier: Executions,
    pub(super) change: Change,
    /// Parks that may have returned at once, and then were no voluntary switch.
    pub(super) brief_parks: u64,
}

impl Evidence {
    /// The verdict on an execution that took `duration`: the table in the module documentation.
    pub(super) fn cause(&self, duration: Nanos, budget: Nanos, machine: &Machine) -> Cause {
        let Change { awake, cpu_time, minor_faults, major_faults, slack, .. } = self.change;
        let over = duration - budget;
        // Awake time between the baseline and this execution.
        let age = awake - duration;
        if age < Nanos::ZERO {
            // The baseline was taken within the execution: it says nothing about its beginning.
            return Cause::Unknown;
        }
        // Some of the CPU time belongs to the sleeps, and hides as much of the time off the CPU.
        let off_cpu = awake - cpu_time;
        let faults = machine.longest(minor_faults, major_faults);
        if (off_cpu + slack).max(Nanos::ZERO) + faults < over {
            return Cause::OwnOverrun;
        }
        let Pauses { involuntary, voluntary, voluntary_perhaps } = self.pauses();
        let off_here =
            self.off_cpu_here(off_cpu, age, involuntary.saturating_add(voluntary_perhaps));
        // What happened before took time before.
        let mut absent = machine.shortest(minor_faults) - age;
        if major_faults > 0 && involuntary == 0 {
            // A thread that waits for its page gives up the core.
            absent = absent.max(Nanos::ZERO) + off_here;
        }
        // In the best case, that is; mostly faults take one and a half to two times as long.
        if absent >= over || absent > duration / 3 {
            return Cause::PageFault;
        }
        if off_here < over {
            return Cause::Unknown;
        }
        match (involuntary > 0, voluntary > 0, voluntary_perhaps > 0) {
            (true, false, false) => Cause::Preempted,
            (false, true, _) => Cause::Blocked,
            (false, false, false) => machine.without_switch,
            _ => Cause::Unknown,
        }
    }

    /// The switches that were not for a sleep between executions.
    fn pauses(&self) -> Pauses {
        let Change { involuntary_switches, voluntary_switches, parks, .. } = self.change;
        let slept = parks.saturating_sub(self.brief_parks);
        Pauses {
            involuntary: involuntary_switches,
            voluntary: voluntary_switches.saturating_sub(parks),
            voluntary_perhaps: voluntary_switches.saturating_sub(slept),
        }
    }

    /// The part of the time off the CPU that can only have passed inside this execution.
    fn off_cpu_here(&self, off_cpu: Nanos, age: Nanos, pauses: u64) -> Nanos {
        // A hypervisor or an interrupt takes the CPU without a switch; count it as one.
        let pauses = i64::try_from(pauses.max(1)).unwrap_or(i64::MAX);
        let unguarded = (age - self.earlier.total).max(Nanos::ZERO);
        let before = |pauses: i64| (self.earlier.longest * pauses + unguarded).min(age);
        // More than fits before: then at least one of the pauses was in this execution.
        let before = if off_cpu > before(pauses) { before(pauses - 1) } else { before(pauses) };
        (off_cpu - before).max(Nanos::ZERO)
    }
}

struct Pauses {
    involuntary: u64,
    /// If each park was a switch, ...
    voluntary: u64,
    /// ... and if no brief one was.
    voluntary_perhaps: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtual machine where a page fault takes 1 to 16 µs.
    const MACHINE: Machine = Machine {
        fault: Some((Nanos::from_micros(1), Nanos::from_micros(16))),
        without_switch: Cause::Stolen,
    };

    fn us(us: i64) -> Nanos {
        Nanos::from_micros(us)
    }

    /// An execution of 150 µs with a budget of 50, begun `age` after the baseline; the thread was
    /// off the CPU for `off` since then.
    fn verdict(age: i64, off: i64, switches: u64, longest: i64, guarded: i64) -> Cause {
        let change = Change {
            awake: us(age + 150),
            cpu_time: us(age + 150 - off),
            involuntary_switches: switches,
            ..Change::default()
        };
        let earlier = Executions { longest: us(longest), total: us(guarded) };
        Evidence { earlier, change, brief_parks: 0 }.cause(us(150), us(50), &MACHINE)
    }

    #[test]
    fn time_on_the_cpu_beyond_the_budget_is_the_codes_own_fault() {
        assert_eq!(verdict(0, 0, 0, 0, 0), Cause::OwnOverrun);
        assert_eq!(verdict(0, 99, 1, 0, 0), Cause::OwnOverrun);
        assert_eq!(verdict(900, 99, 5, 40, 0), Cause::OwnOverrun, "however old the baseline");
    }

    #[test]
    fn a_pause_that_can_only_have_been_here_and_explains_it_all_is_not() {
        assert_eq!(verdict(0, 100, 1, 0, 0), Cause::Preempted);
        assert_eq!(verdict(10, 110, 1, 0, 0), Cause::Preempted);
        assert_eq!(verdict(0, 120, 0, 0, 0), Cause::Stolen, "without a switch");
        // A spinning lane: 900 µs of short guarded polls cannot hide a pause of 100 µs.
        assert_eq!(verdict(900, 100, 1, 1, 900), Cause::Preempted);
        // Three pauses before of 40 µs each do not fit into an age of 50.
        assert_eq!(verdict(50, 150, 3, 40, 50), Cause::Preempted);
        // Two pauses, of which the earlier one took at most the longest poll.
        assert_eq!(verdict(900, 101, 2, 1, 900), Cause::Preempted);
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

    /// As [`verdict`], right after `parks` sleeps, which used `hidden` of CPU time and may have used
    /// 10 µs each.
    fn after_sleeps(parks: u32, hidden: i64, off: i64, switches: u64) -> Cause {
        let change = Change {
            awake: us(150),
            cpu_time: us(150 - off + hidden),
            involuntary_switches: switches,
            voluntary_switches: u64::from(parks),
            parks: u64::from(parks),
            slack: us(10) * i64::from(parks),
            ..Change::default()
        };
        let evidence = Evidence { earlier: Executions::NONE, change, brief_parks: 0 };
        evidence.cause(us(150), us(50), &MACHINE)
    }

    #[test]
    fn what_was_slept_is_not_time_off_the_cpu() {
        assert_eq!(after_sleeps(3, 0, 0, 0), Cause::OwnOverrun);
        assert_eq!(after_sleeps(3, 0, 120, 1), Cause::Preempted);
    }

    #[test]
    fn cpu_time_that_the_sleeps_may_have_used_leaves_the_verdict_open() {
        // Off the CPU for all of the 100 µs that are over, of which the way to sleep hides some.
        assert_eq!(after_sleeps(4, 4, 103, 1), Cause::Unknown, "the counters show 99 µs");
        assert_eq!(after_sleeps(4, 12, 120, 1), Cause::Preempted, "108 µs are enough to see");
        assert_eq!(after_sleeps(4, 8, 0, 0), Cause::OwnOverrun, "40 µs do not make up 100");
        assert_eq!(after_sleeps(9, 8, 0, 0), Cause::OwnOverrun, "nor do 90");
        assert_eq!(after_sleeps(10, 8, 0, 0), Cause::OwnOverrun, "8 of the 100 were seen");
        assert_eq!(after_sleeps(12, 8, 0, 0), Cause::Unknown, "12 parks may hide 120 µs");
    }

    /// An execution of 150 µs with a budget of 50, right after the baseline.
    fn of(change: Change) -> Cause {
        with_brief_parks(0, change)
    }

    /// The same, where so many of the parks were brief.
    fn with_brief_parks(brief_parks: u64, change: Change) -> Cause {
        let change = Change { awake: us(150), ..change };
        let evidence = Evidence { earlier: Executions::NONE, change, brief_parks };
        evidence.cause(us(150), us(50), &MACHINE)
    }

    #[test]
    fn the_kind_of_switch_tells_who_wanted_it() {
        let change = Change { cpu_time: us(40), ..Change::default() };
        assert_eq!(of(Change { involuntary_switches: 1, ..change }), Cause::Preempted);
        assert_eq!(of(Change { voluntary_switches: 1, ..change }), Cause::Blocked);
        assert_eq!(of(Change { voluntary_switches: 3, parks: 2, ..change }), Cause::Blocked);
        assert_eq!(of(Change { voluntary_switches: 2, parks: 2, ..change }), Cause::Stolen);
        let both = Change { involuntary_switches: 1, voluntary_switches: 1, ..change };
        assert_eq!(of(both), Cause::Unknown, "which of the two took 110 µs?");
    }

    #[test]
    fn a_park_that_returned_at_once_does_not_hide_that_the_code_waited() {
        let change =
            Change { cpu_time: us(40), voluntary_switches: 1, parks: 1, ..Change::default() };
        assert_eq!(with_brief_parks(0, change), Cause::Stolen, "the switch was the park's");
        assert_eq!(with_brief_parks(1, change), Cause::Unknown, "or that of a lock in here");
        let preempted = Change { involuntary_switches: 1, ..change };
        assert_eq!(with_brief_parks(0, preempted), Cause::Preempted);
        assert_eq!(with_brief_parks(1, preempted), Cause::Unknown);
        let none = Change { voluntary_switches: 0, ..change };
        assert_eq!(with_brief_parks(1, none), Cause::Stolen, "nobody gave up the core");
        let more = Change { voluntary_switches: 2, ..change };
        assert_eq!(
            with_brief_parks(1, more),
            Cause::Blocked,
            "one more than the parks, either way"
        );
    }

    #[test]
    fn faults_that_must_have_taken_what_is_over_are_the_cause() {
        let minor = |minor_faults| Change { cpu_time: us(150), minor_faults, ..Change::default() };
        assert_eq!(of(minor(100)), Cause::PageFault, "100 µs at the least");
        assert_eq!(of(minor(51)), Cause::PageFault, "more than a third of it all");
        assert_eq!(of(minor(50)), Cause::Unknown);
        assert_eq!(of(minor(7)), Cause::Unknown, "112 µs at the most");
        assert_eq!(of(minor(6)), Cause::OwnOverrun, "96 µs at the most");
    }

    #[test]
    fn faults_of_earlier_executions_do_not_count() {
        let change = Change {
            awake: us(150 + 80),
            cpu_time: us(150 + 80),
            minor_faults: 120,
            ..Change::default()
        };
        let verdict = |change| {
            let earlier = Executions { longest: us(20), total: us(80) };
            Evidence { earlier, change, brief_parks: 0 }.cause(us(150), us(50), &MACHINE)
        };
        assert_eq!(verdict(change), Cause::Unknown, "80 of the 120 may have been before");
        assert_eq!(verdict(Change { minor_faults: 131, ..change }), Cause::PageFault);
    }

    #[test]
    fn waiting_for_a_page_is_a_fault_and_not_a_lock() {
        let change = Change {
            cpu_time: us(40),
            voluntary_switches: 1,
            major_faults: 1,
            ..Change::default()
        };
        assert_eq!(of(change), Cause::PageFault);
        let preempted = Change { involuntary_switches: 1, voluntary_switches: 0, ..change };
        assert_eq!(of(preempted), Cause::Preempted);
        let here = Change { cpu_time: us(150), ..change };
        assert_eq!(of(here), Cause::Unknown, "the way to the disk may have taken it all");
    }

    #[test]
    fn where_the_cost_of_a_fault_is_not_known_faults_leave_it_open() {
        let machine = Machine { fault: None, ..MACHINE };
        let change = Change { awake: us(150), cpu_time: us(150), ..Change::default() };
        let evidence = |minor_faults| Evidence {
            earlier: Executions::NONE,
            change: Change { minor_faults, ..change },
            brief_parks: 0,
        };
        assert_eq!(evidence(0).cause(us(150), us(50), &machine), Cause::OwnOverrun);
        assert_eq!(evidence(1).cause(us(150), us(50), &machine), Cause::Unknown);
        assert_eq!(evidence(999).cause(us(150), us(50), &machine), Cause::Unknown);
    }
}
