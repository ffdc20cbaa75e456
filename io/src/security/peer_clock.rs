//! What one Challenge/Hello exchange says about a peer's clock.
//!
//! As in NTP (RFC 5905, section 8): the Challenge left at `t0` on our clock, arrived at `t1` and was
//! answered at `t2` on the peer's, and the Hello arrived at `t3` on ours. The round trip is
//! `(t3 − t0) − (t2 − t1)`, the offset `((t1 − t0) + (t2 − t3)) / 2`, and however unequal the two
//! ways were, the offset is wrong by at most half the round trip.

use sinew_rt::clock::Nanos;

use crate::simulation::{Fault, planted};

/// How fast two clocks may drift apart: 200 µs per second, twice what a crystal may be off.
const DRIFT_PPM: i64 = 200;

/// The estimate of a peer's clock against ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerClock {
    /// The round trip of the exchange that the estimate comes from, without the peer's own time.
    pub round_trip: Nanos,
    /// The peer's clock less ours.
    pub offset: Nanos,
    /// Our clock when it was measured.
    pub measured_at: Nanos,
}

impl PeerClock {
    /// The estimate from one exchange, or `None` if the four instants contradict each other: an
    /// answer before its question, longer in the making than we waited for it, or out of range.
    pub(super) fn measure(t0: Nanos, t1: Nanos, t2: Nanos, t3: Nanos) -> Option<Self> {
        let [t0, t1, t2, t3] = [t0, t1, t2, t3].map(|t| i128::from(t.as_nanos()));
        let (waited, held) = (t3 - t0, t2 - t1);
        if held < 0 || held > waited {
            return None;
        }
        let nanos = |value: i128| i64::try_from(value).ok().map(Nanos::new);
        Some(Self {
            round_trip: nanos(waited - held)?,
            offset: nanos(((t1 - t0) + (t2 - t3)) / 2)?,
            measured_at: nanos(t3)?,
        })
    }

    /// By how much [`PeerClock::offset`] may be wrong at `now`: half the round trip (rounded up),
    /// and the drift since.
    #[must_use]
    pub fn error_bound(&self, now: Nanos) -> Nanos {
        let age = Nanos::new((now - self.measured_at).as_nanos().max(0));
        (self.round_trip + Nanos::new(1)) / 2 + Nanos::new(1) + age / (1_000_000 / DRIFT_PPM)
    }

    /// Our clock when the peer's showed `theirs`.
    #[must_use]
    pub fn to_ours(&self, theirs: Nanos) -> Nanos {
        if planted(Fault::ForeignClockBelieved) {
            return theirs;
        }
        theirs - self.offset
    }

    /// The one of the two that is better known at `now`.
    pub(super) fn better(self, other: Self, now: Nanos) -> Self {
        match other.error_bound(now) <= self.error_bound(now) {
            true => other,
            false => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ns(value: i64) -> Nanos {
        Nanos::new(value)
    }

    proptest! {
        #[test]
        fn the_true_offset_is_within_the_bound(
            t0 in 0i64..1 << 50, offset in -(1i64 << 50)..1 << 50,
            there in 0i64..1 << 40, held in 0i64..1 << 40, back in 0i64..1 << 40,
        ) {
            let (t1, t2, t3) = (t0 + there + offset, t0 + there + held + offset, t0 + there + held + back);
            let clock = PeerClock::measure(ns(t0), ns(t1), ns(t2), ns(t3)).unwrap();
            prop_assert_eq!(clock.round_trip, ns(there + back));
            let error = (clock.offset - ns(offset)).as_nanos().abs();
            prop_assert!(error <= clock.error_bound(ns(t3)).as_nanos());
        }

        #[test]
        fn hostile_instants_never_panic(t in any::<[i64; 4]>(), now in any::<i64>()) {
            let [t0, t1, t2, t3] = t.map(ns);
            if let Some(clock) = PeerClock::measure(t0, t1, t2, t3) {
                prop_assert!(clock.round_trip >= Nanos::ZERO);
                prop_assert!(clock.error_bound(ns(now)) >= Nanos::ZERO);
                let _ = clock.to_ours(ns(now));
            }
        }
    }

    #[test]
    fn an_answer_before_its_question_is_no_measurement() {
        assert_eq!(PeerClock::measure(ns(0), ns(10), ns(9), ns(100)), None);
        assert_eq!(PeerClock::measure(ns(0), ns(10), ns(111), ns(100)), None);
        assert_eq!(PeerClock::measure(ns(0), ns(i64::MIN), ns(i64::MIN), ns(100)), None);
    }

    #[test]
    fn a_worse_measurement_wins_only_once_the_better_one_has_aged() {
        let good = PeerClock { round_trip: ns(10_000), offset: ns(1), measured_at: ns(0) };
        let worse = |at| PeerClock { round_trip: ns(100_000), offset: ns(2), measured_at: at };
        let soon = Nanos::from_millis(100);
        assert_eq!(good.better(worse(soon), soon).offset, ns(1));
        let later = Nanos::from_secs(1);
        assert_eq!(good.better(worse(later), later).offset, ns(2));
    }
}
