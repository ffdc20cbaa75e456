//! The share of the bandwidth that retransmissions may use, counted over a sliding second.

use sinew_rt::clock::Nanos;

/// Bytes a second that retransmissions may use however little is sent otherwise.
pub(super) const FLOOR_BYTES: u64 = 64 * 1_024;
/// What one reader may use however many there are: else a frame would never fit into its part.
pub(super) const READER_FLOOR_BYTES: u64 = 4 * crate::wire::FRAME_MAX as u64;

const BUCKET_NS: i64 = 62_500_000;
/// Sixteen make a second; the seventeenth is the one that is being filled, so that what is counted
/// covers a whole second at every moment.
const BUCKETS: usize = 17;

/// Bytes of the past second.
#[derive(Clone, Debug)]
pub(super) struct SlidingSecond {
    buckets: [u64; BUCKETS],
    /// The number of the bucket that is being filled, since the origin of the clock.
    current: i64,
    total: u64,
}

impl SlidingSecond {
    pub(super) fn new() -> Self {
        Self { buckets: [0; BUCKETS], current: i64::MIN, total: 0 }
    }

    /// Forgets what is older than a second. A clock that goes back changes nothing.
    fn roll(&mut self, now: Nanos) {
        let number = now.as_nanos().div_euclid(BUCKET_NS);
        if number <= self.current {
            return;
        }
        let steps = number.saturating_sub(self.current).min(BUCKETS as i64);
        for step in 0..steps {
            let place = (number - step).rem_euclid(BUCKETS as i64) as usize;
            self.total -= self.buckets[place];
            self.buckets[place] = 0;
        }
        self.current = number;
    }

    pub(super) fn add(&mut self, bytes: u64, now: Nanos) {
        self.roll(now);
        let place = self.current.rem_euclid(BUCKETS as i64) as usize;
        self.buckets[place] = self.buckets[place].saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }

    pub(super) fn bytes(&mut self, now: Nanos) -> u64 {
        self.roll(now);
        self.total
    }

    /// When the next bucket will be forgotten.
    pub(super) fn rolls_at(&self) -> Nanos {
        Nanos::new(self.current.saturating_add(1).saturating_mul(BUCKET_NS))
    }
}

/// What was sent and what was sent again, to all readers together.
#[derive(Debug)]
pub(super) struct Share {
    percent: u64,
    sent: SlidingSecond,
    resent: SlidingSecond,
}

impl Share {
    pub(super) fn new(percent: u8) -> Self {
        Self {
            percent: u64::from(percent),
            sent: SlidingSecond::new(),
            resent: SlidingSecond::new(),
        }
    }

    /// Notes new data.
    pub(super) fn sent(&mut self, bytes: u64, now: Nanos) {
        self.sent.add(bytes, now);
    }

    /// Notes a retransmission.
    pub(super) fn resent(&mut self, bytes: u64, now: Nanos) {
        self.resent.add(bytes, now);
    }

    /// Bytes that may be sent again in a second, at present.
    pub(super) fn allowed(&mut self, now: Nanos) -> u64 {
        (self.sent.bytes(now).saturating_mul(self.percent) / 100).max(FLOOR_BYTES)
    }

    /// Whether `bytes` more are within the share of all.
    pub(super) fn admits(&mut self, bytes: u64, now: Nanos) -> bool {
        self.resent.bytes(now).saturating_add(bytes) <= self.allowed(now)
    }

    /// Whether at least a quarter of it is unused.
    pub(super) fn is_ample(&mut self, now: Nanos) -> bool {
        self.resent.bytes(now).saturating_mul(4) < self.allowed(now).saturating_mul(3)
    }

    /// When more may be allowed.
    pub(super) fn rolls_at(&self) -> Nanos {
        self.resent.rolls_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn with_nothing_else_sent_the_floor_is_what_may_be_sent_again() {
        let mut share = Share::new(25);
        let now = Nanos::from_secs(5);
        assert!(share.admits(FLOOR_BYTES, now));
        share.resent(FLOOR_BYTES, now);
        assert!(!share.admits(1, now));
        assert!(!share.admits(1, now + Nanos::from_millis(999)));
        assert!(share.admits(FLOOR_BYTES, now + Nanos::from_millis(1_063)));
    }

    #[test]
    fn a_stream_that_sends_much_may_send_its_share_again() {
        let mut share = Share::new(25);
        let now = Nanos::from_secs(5);
        share.sent(1_000_000, now);
        assert!(share.admits(250_000, now));
        assert!(!share.admits(250_001, now));
    }

    proptest! {
        #[test]
        fn whatever_is_added_a_second_is_counted_whole(steps in prop::collection::vec((0i64..200, 0u64..2_000), 1..200)) {
            let mut second = SlidingSecond::new();
            let mut all = Vec::new();
            let mut now = Nanos::from_secs(-3);
            for (wait_ms, bytes) in steps {
                now += Nanos::from_millis(wait_ms);
                second.add(bytes, now);
                all.push((now, bytes));
                let since = |span: Nanos| -> u64 {
                    all.iter().filter(|(at, _)| now - *at < span).map(|(_, bytes)| *bytes).sum()
                };
                prop_assert!(second.bytes(now) >= since(Nanos::from_secs(1)));
                prop_assert!(second.bytes(now) <= since(Nanos::from_micros(1_062_500)));
            }
        }
    }
}
