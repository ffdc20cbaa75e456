//! The clock of one machine: it starts somewhere, runs a little too fast or too slow, and starts anew when
//! the machine does.

use sinew_rt::clock::Nanos;

use crate::random::Random;

/// The most by which a clock's rate is off, in parts per million. Two such clocks drift apart by at most twice
/// as much, which is what a node allows for.
pub const DRIFT_PPM_MAX: i64 = 100;

const MILLION: i64 = 1_000_000;

/// A `CLOCK_MONOTONIC`: straight between the instants at which its rate changes.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock {
    /// True time from which the present line holds.
    since: Nanos,
    /// What the clock showed then.
    showed: Nanos,
    /// How much too fast it runs.
    drift_ppm: i64,
}

impl MachineClock {
    /// The clock of a machine that was switched on some time before `now`, from seconds to months.
    #[must_use]
    pub fn draw(random: &mut Random, now: Nanos) -> Self {
        let days = random.within(0, 120);
        let showed = Nanos::from_secs(days * 86_400 + random.within(1, 86_400))
            + Nanos::new(random.within(0, 999_999_999));
        Self { since: now, showed, drift_ppm: random.within(-DRIFT_PPM_MAX, DRIFT_PPM_MAX) }
    }

    /// What it shows at the true time `now`.
    #[inline]
    #[must_use]
    pub fn show(&self, now: Nanos) -> Nanos {
        let elapsed = (now - self.since).as_nanos();
        self.showed + Nanos::new(elapsed + drifted(elapsed, self.drift_ppm))
    }

    /// The first true time at which it shows at least `shown`.
    #[inline]
    #[must_use]
    pub fn when(&self, shown: Nanos) -> Nanos {
        let ahead = (shown - self.showed).as_nanos();
        if ahead >= i64::MAX / 2 {
            return Nanos::MAX;
        }
        let rate = MILLION + self.drift_ppm;
        let estimate = match ahead.checked_mul(MILLION) {
            Some(product) => product / rate,
            None => (i128::from(ahead) * i128::from(MILLION) / i128::from(rate)) as i64,
        };
        let mut at = self.since + Nanos::new(estimate - 1);
        // The division is off by a nanosecond or two.
        while self.show(at) < shown {
            at += Nanos::new(1);
        }
        at
    }

    /// Changes the rate at `now`; what it shows does not jump.
    pub fn turn(&mut self, now: Nanos, drift_ppm: i64) {
        let showed = self.show(now);
        *self = Self { since: now, showed, drift_ppm };
    }
}

fn drifted(elapsed: i64, ppm: i64) -> i64 {
    // Without overflow for 2.9 years at 100 ppm.
    elapsed.saturating_mul(ppm).div_euclid(MILLION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_instant_that_shows_it() {
        let mut random = Random::new(3, 3);
        for _ in 0..2_000 {
            let start = Nanos::new(random.within(0, 1 << 40));
            let clock = MachineClock::draw(&mut random, start);
            let shown = clock.show(start) + Nanos::new(random.within(0, 1 << 45));
            let at = clock.when(shown);
            assert!(clock.show(at) >= shown);
            assert!(clock.show(at - Nanos::new(1)) < shown);
        }
    }

    #[test]
    fn a_change_of_rate_is_no_jump() {
        let mut clock = MachineClock::draw(&mut Random::new(1, 1), Nanos::ZERO);
        let now = Nanos::from_secs(100);
        let before = clock.show(now);
        clock.turn(now, -100);
        assert_eq!(clock.show(now), before);
        let second = clock.show(now + Nanos::from_secs(1)) - before;
        assert_eq!(second, Nanos::from_secs(1) - Nanos::from_micros(100));
    }
}
