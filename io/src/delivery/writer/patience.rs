//! How long one reader may hold up the others.
//!
//! A reader without room, or that lacks what the ring would have to forget, holds the publisher up. If
//! others could go on, it may do so for a span that it earns back slowly, so that the others lose at most
//! that part of the time to it, however often it falls behind.

use sinew_rt::clock::Nanos;

/// Of the time in which a reader holds nobody up, the part that it may hold others up for later: low
/// enough that the 99th percentile of what the others get does not show it.
const EARNED: i64 = 1_000;

/// The span that is left to one reader.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    /// At `since`; earned from then on unless it is used.
    left: Nanos,
    since: Nanos,
    holding: bool,
}

impl Patience {
    /// All of `most`, from `now` on.
    pub(super) fn full(most: Nanos, now: Nanos) -> Self {
        Self { left: most, since: now, holding: false }
    }

    /// The reader holds the others up at `now`: whether it still may.
    pub(super) fn holds(&mut self, most: Nanos, now: Nanos) -> bool {
        if !self.holding {
            self.earn(most, now);
            self.holding = true;
        }
        now < self.since + self.left
    }

    /// The reader holds nobody up at `now`.
    pub(super) fn lets_go(&mut self, now: Nanos) {
        if std::mem::take(&mut self.holding) {
            self.left = (self.left - (now - self.since)).max(Nanos::ZERO);
            self.since = now;
        }
    }

    /// When it has to let go, if it holds somebody up.
    pub(super) fn until(&self) -> Option<Nanos> {
        self.holding.then(|| self.since + self.left)
    }

    fn earn(&mut self, most: Nanos, now: Nanos) {
        let idle = (now - self.since).max(Nanos::ZERO);
        self.left = (self.left + idle / EARNED).min(most);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: i64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn what_was_used_is_earned_back_slowly_and_never_beyond_the_most() {
        let most = ms(20);
        let mut patience = Patience::full(most, ms(0));
        assert!(patience.holds(most, ms(100)));
        assert_eq!(patience.until(), Some(ms(120)));
        assert!(patience.holds(most, ms(119)));
        assert!(!patience.holds(most, ms(120)));
        patience.lets_go(ms(120));
        assert_eq!(patience.until(), None);
        assert!(!patience.holds(most, ms(120)), "nothing is left");
        patience.lets_go(ms(120));
        assert!(patience.holds(most, ms(5_120)), "a second earns 1 ms");
        assert_eq!(patience.until(), Some(ms(5_125)));
        patience.lets_go(ms(5_123));
        assert!(patience.holds(most, ms(100_000)));
        assert_eq!(patience.until(), Some(ms(100_020)));
    }
}
