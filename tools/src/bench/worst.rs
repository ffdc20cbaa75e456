//! The worst five events of a measurement: when, how long, and why as far as the kernel's counters
//! tell.

use sinew_rt::clock::Nanos;

use super::evidence::{Account, Cause, Keeps};
use super::report::Run;

/// How many of the longest events are told one by one.
pub(crate) const WORST: usize = 5;
/// How old the baseline of a thread that spins may become: what is older tells too little about one
/// event. Taking it costs some microseconds.
const BASELINE_AGE: Nanos = Nanos::from_millis(1);

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) length: Nanos,
    /// When it began.
    pub(crate) at: Nanos,
    pub(crate) cause: Cause,
    /// In which of several measurements.
    pub(crate) measurement: usize,
}

/// The longest events, sorted, the longest first. Never more than [`WORST`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Worst(Vec<Event>);

impl Worst {
    /// Allocates; adding does not.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(WORST + 1))
    }

    /// Whether an event of `length` would be among the longest.
    #[inline]
    pub(crate) fn admits(&self, length: Nanos) -> bool {
        self.0.len() < WORST || self.0.last().is_some_and(|last| length > last.length)
    }

    pub(crate) fn add(&mut self, event: Event) {
        let place = self.0.partition_point(|known| known.length >= event.length);
        if place < WORST {
            self.0.truncate(WORST - 1);
            self.0.insert(place, event);
        }
    }

    /// Adds those of the measurement with this number.
    pub(crate) fn pool(&mut self, other: &Self, measurement: usize) {
        other.0.iter().for_each(|event| self.add(Event { measurement, ..*event }));
    }

    pub(crate) fn events(&self) -> &[Event] {
        &self.0
    }

    /// Hands them to the report, with the name of each one's measurement.
    pub(crate) fn report(&self, run: &mut Run, what: impl Fn(usize) -> String) {
        for Event { length, at, cause, measurement } in self.events() {
            run.longest(&what(*measurement), *length, *at, cause.to_string());
        }
    }
}

/// Keeps the worst events of the calling thread with their causes.
pub(crate) struct Watcher {
    worst: Worst,
    account: Account,
    keeps: Keeps,
    /// When the last of the events ended that were among the worst.
    busy_until: Nanos,
}

impl Watcher {
    /// For the calling thread only. Opens a file and allocates.
    pub(crate) fn new(keeps: Keeps) -> Self {
        let account = Account::new(keeps);
        Self { worst: Worst::new(), account, keeps, busy_until: Nanos::MIN }
    }

    /// Takes a new baseline: at `now` begins what may become an event. Some microseconds.
    pub(crate) fn mark(&mut self, now: Nanos) {
        self.account.mark(now);
    }

    /// Sees an event of `length` that ended at `end`, and says whether it is one of the worst so far.
    /// Afterwards the baseline is fresh: a thread that sleeps gets a new one each time, one that
    /// spins each millisecond.
    #[inline]
    pub(crate) fn see(&mut self, length: Nanos, end: Nanos) -> bool {
        if self.worst.admits(length) {
            let counted = self.account.cause(length, end);
            let behind = end - length < self.busy_until;
            let cause = if behind { Cause::Behind } else { counted };
            self.busy_until = end;
            self.worst.add(Event { length, at: end - length, cause, measurement: 0 });
            return true;
        }
        if self.keeps == Keeps::Asleep || end - self.account.marked_at() > BASELINE_AGE {
            self.account.mark(end);
        }
        false
    }

    pub(crate) fn worst(&self) -> &Worst {
        &self.worst
    }

    pub(crate) fn finish(self) -> Worst {
        self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_events_are_kept_in_order_and_no_others() {
        let mut watcher = Watcher::new(Keeps::Core);
        for length in [5, 900, 3, 70, 900, 1, 42, 8] {
            watcher.see(Nanos::new(length), Nanos::from_secs(1));
        }
        let worst = watcher.finish();
        let kept: Vec<_> = worst.events().iter().map(|event| event.length.as_nanos()).collect();
        assert_eq!(kept, [900, 900, 70, 42, 8]);
        assert_eq!(worst.events()[0].at, Nanos::from_secs(1) - Nanos::new(900));
    }

    #[test]
    fn what_was_due_during_an_earlier_event_waited_behind_it() {
        let ms = Nanos::from_millis;
        let mut watcher = Watcher::new(Keeps::Asleep);
        // Due at 100, 101 and 102 ms, and read at 150 ms; then one that was late by itself.
        for (length, end) in [(50, 150), (49, 150), (48, 150), (10, 300)] {
            watcher.see(ms(length), ms(end));
        }
        let causes: Vec<_> = watcher.worst().events().iter().map(|event| event.cause).collect();
        assert_ne!(causes[0], Cause::Behind);
        assert_eq!(causes[1..3], [Cause::Behind; 2]);
        assert_ne!(causes[3], Cause::Behind);
    }

    #[test]
    fn the_worst_of_two_measurements_are_the_worst_of_both() {
        let of = |lengths: [i64; 3]| {
            let mut worst = Worst::new();
            for length in lengths.map(Nanos::new) {
                let (at, cause) = (Nanos::ZERO, Cause::Unknown);
                worst.add(Event { length, at, cause, measurement: 0 });
            }
            worst
        };
        let mut both = of([1, 5, 9]);
        both.pool(&of([2, 6, 10]), 7);
        let kept: Vec<_> = both.events().iter().map(|event| event.length.as_nanos()).collect();
        assert_eq!(kept, [10, 9, 6, 5, 2]);
        assert_eq!([0, 1].map(|n| both.events()[n].measurement), [7, 0]);
    }
}
