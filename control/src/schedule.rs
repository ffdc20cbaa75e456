//! When the cycles of a loop are due: at whole periods after its first, whatever happened between.
//!
//! A cycle that ends after the next one was due has missed it. What was missed is skipped, never
//! run late in a burst, and the phase of those that follow does not move.

use sinew_rt::clock::Nanos;

/// The instants at which cycles are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    period: Nanos,
    due: Nanos,
}

impl Schedule {
    /// The first cycle is due at `first`, the others a whole number of `period`s later. A period
    /// below 1 ns counts as 1 ns.
    pub(crate) fn new(first: Nanos, period: Nanos) -> Self {
        Self { period: period.max(Nanos::new(1)), due: first }
    }

    /// When the present cycle is due.
    pub(crate) const fn due(&self) -> Nanos {
        self.due
    }

    /// Moves on to the first cycle that is due at `now` or later, and says how many before it were
    /// missed. Constant time, however long the gap.
    pub(crate) fn advance(&mut self, now: Nanos) -> u64 {
        self.due += self.period;
        let late = (now - self.due).as_nanos();
        if late <= 0 {
            return 0;
        }
        let period = self.period.as_nanos();
        // Rounded up without overflow: `late` is above zero.
        let missed = (late - 1) / period + 1;
        self.due += self.period * missed;
        missed.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_loop_in_time_runs_every_period() {
        let mut schedule = Schedule::new(Nanos::from_millis(10), Nanos::from_millis(1));
        for ms in 10..1_000 {
            assert_eq!(schedule.due(), Nanos::from_millis(ms));
            assert_eq!(schedule.advance(Nanos::new(ms * MS + 300_000)), 0);
        }
    }

    #[test]
    fn a_cycle_that_ends_exactly_when_the_next_is_due_has_missed_nothing() {
        let mut schedule = Schedule::new(Nanos::ZERO, Nanos::from_millis(1));
        assert_eq!(schedule.advance(Nanos::from_millis(1)), 0);
        assert_eq!(schedule.advance(Nanos::new(2 * MS + 1)), 1);
        assert_eq!(schedule.due(), Nanos::from_millis(3));
        assert_eq!(schedule.advance(Nanos::from_millis(7)), 3);
        assert_eq!(schedule.due(), Nanos::from_millis(7));
    }

    #[test]
    fn an_hour_in_the_debugger_is_skipped_at_once_and_the_phase_stays() {
        let mut schedule = Schedule::new(Nanos::new(123), Nanos::from_millis(1));
        assert_eq!(schedule.advance(Nanos::from_secs(3_600)), 3_599_999);
        assert_eq!(schedule.due(), Nanos::from_secs(3_600) + Nanos::new(123));
    }

    proptest! {
        #[test]
        fn the_next_cycle_is_the_first_one_not_yet_due_and_in_phase(
            first in -1_000_000_000_000_i64..1_000_000_000_000,
            period in 1_i64..2_000_000_000,
            after in -3_000_000_000_i64..10_000_000_000_000,
        ) {
            let now = first + after;
            let mut schedule = Schedule::new(Nanos::new(first), Nanos::new(period));
            let missed = schedule.advance(Nanos::new(now)) as i64;
            let due = schedule.due().as_nanos();
            prop_assert_eq!(due, first + (missed + 1) * period);
            prop_assert!(due >= now);
            prop_assert!(missed == 0 || due - period < now, "skipped one that was not missed");
        }
    }
}
