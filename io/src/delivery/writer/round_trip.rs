//! The round trip to one reader, as RFC 6298 estimates it, and the patience that follows from it.

use sinew_rt::clock::Nanos;

/// What is assumed until the first sample.
const UNKNOWN: Nanos = Nanos::from_millis(20);
/// Never shorter than this between two sendings of one message to one reader.
const SPACING_MIN: Nanos = Nanos::from_micros(500);
/// The range of the retransmission time.
const TIMEOUT_MIN: Nanos = Nanos::from_millis(2);
pub(super) const TIMEOUT_MAX: Nanos = Nanos::from_millis(200);
/// Longer than this no reader keeps an acknowledgement back; what seems so is one that was lost.
const HELD_BACK_MAX: Nanos = Nanos::from_millis(20);
/// What a steady round trip gets on top: lanes look in their time, not when a message comes.
const MARGIN: Nanos = Nanos::from_millis(1);
/// A sample above this is an outage or a lie, not a round trip.
const SAMPLE_MAX: Nanos = Nanos::from_secs(2);

/// Smoothed round trip, its mean deviation, and how long the reader keeps acknowledgements back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Nanos>,
    deviation: Nanos,
    held_back: Nanos,
}

impl RoundTrip {
    /// Takes the time from sending to the acknowledgement, of which the reader held it `held`. What
    /// comes out negative (clocks that were rounded, or a reader that lies) is no sample.
    pub(super) fn sample(&mut self, total: Nanos, held: Nanos) {
        let sample = total - held;
        if sample < Nanos::ZERO || sample > SAMPLE_MAX {
            return;
        }
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.deviation = sample / 2;
            }
            Some(smoothed) => {
                let away = Nanos::new((smoothed - sample).as_nanos().abs());
                self.deviation = (self.deviation * 3 + away) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// Learns from an acknowledgement of something new how long the reader kept it back: a timeout
    /// that does not allow for that would send again what has long arrived.
    pub(super) fn held_back(&mut self, held: Nanos) {
        self.held_back = (self.held_back * 15 / 16).max(held.min(HELD_BACK_MAX));
    }

    #[cfg(test)]
    pub(super) fn smoothed(&self) -> Option<Nanos> {
        self.smoothed
    }

    /// How long after a sending an acknowledgement can be trusted to know of it: a quarter more than
    /// the round trip where that is steady, and twice its deviation where it is not.
    pub(super) fn spacing(&self) -> Nanos {
        let Some(smoothed) = self.smoothed else { return UNKNOWN };
        (smoothed + (smoothed / 4).max(self.deviation * 2)).max(SPACING_MIN)
    }

    /// How long after a sending its acknowledgement is overdue.
    pub(super) fn patience(&self) -> Nanos {
        self.spacing() + self.held_back.max(TIMEOUT_MIN)
    }

    /// The retransmission time after `doublings` in vain.
    pub(super) fn timeout(&self, doublings: u32) -> Nanos {
        let once = match self.smoothed {
            None => UNKNOWN * 2,
            Some(smoothed) => smoothed + (self.deviation * 4).max(MARGIN) + self.held_back,
        };
        (once.max(TIMEOUT_MIN) * (1 << doublings.min(10))).min(TIMEOUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(i64) -> Nanos = Nanos::from_millis;

    #[test]
    fn what_the_reader_held_back_is_not_round_trip() {
        let mut trip = RoundTrip::default();
        trip.sample(MS(15), MS(5));
        assert_eq!(trip.smoothed(), Some(MS(10)));
    }

    #[test]
    fn a_negative_sample_is_none() {
        let mut trip = RoundTrip::default();
        trip.sample(MS(5), MS(6));
        assert_eq!(trip.smoothed(), None);
    }

    #[test]
    fn a_steady_trip_is_waited_for_a_quarter_longer() {
        let mut trip = RoundTrip::default();
        (0..100).for_each(|_| trip.sample(MS(40), MS(0)));
        assert_eq!(trip.spacing(), MS(50));
    }

    #[test]
    fn the_timeout_doubles_from_its_floor_to_its_ceiling() {
        let mut trip = RoundTrip::default();
        (0..100).for_each(|_| trip.sample(Nanos::from_micros(100), MS(0)));
        assert_eq!(trip.timeout(0), TIMEOUT_MIN);
        assert_eq!(trip.timeout(1), TIMEOUT_MIN * 2);
        assert_eq!(trip.timeout(40), TIMEOUT_MAX);
    }

    proptest! {
        #[test]
        fn no_sample_leads_out_of_the_ranges(samples in prop::collection::vec((any::<i64>(), any::<u32>()), 0..50)) {
            let mut trip = RoundTrip::default();
            for (total, held_us) in samples {
                trip.sample(Nanos::new(total), Nanos::from_micros(i64::from(held_us)));
                prop_assert!((SPACING_MIN..=SAMPLE_MAX * 4).contains(&trip.spacing()));
                prop_assert!((TIMEOUT_MIN..=TIMEOUT_MAX).contains(&trip.timeout(0)));
            }
        }
    }
}
