//! Deliveries that are timed together, because one of them is too short.

use sinew_rt::clock::Nanos;

/// The time that so many deliveries in a row took.
pub(super) struct Batch {
    size: u64,
    count: u64,
    since: Option<Nanos>,
}

impl Batch {
    pub(super) fn new(size: u64) -> Self {
        Self { size, count: 0, since: None }
    }

    /// Whether spans between deliveries are wanted at all.
    #[inline]
    pub(super) fn spans(&self) -> bool {
        self.size > 1
    }

    /// A pause: what comes after it does not end a batch from before it.
    #[inline]
    pub(super) fn interrupt(&mut self) {
        self.since = None;
    }

    /// One more delivery; every `size`th gives the time since the one that many before, and its
    /// own. Only then the clock is read: a delivery may take less than a reading.
    #[inline]
    pub(super) fn delivered(&mut self, clock: impl FnOnce() -> Nanos) -> Option<(Nanos, Nanos)> {
        let Some(since) = self.since else {
            (self.since, self.count) = (Some(clock()), 0);
            return None;
        };
        self.count += 1;
        if self.count < self.size {
            return None;
        }
        let at = clock();
        (self.since, self.count) = (Some(at), 0);
        Some((at - since, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lasts_from_its_first_delivery_to_that_many_later_and_never_over_a_pause() {
        let mut batch = Batch::new(3);
        let mut times = 0..;
        let mut deliver = |batch: &mut Batch| batch.delivered(|| Nanos::new(times.next().unwrap()));
        let found: Vec<_> = (0..7).map(|_| deliver(&mut batch)).collect();
        // The clock was read three times for seven deliveries.
        let span = |at: i64| Some((Nanos::new(1), Nanos::new(at)));
        assert_eq!(found, [None, None, None, span(1), None, None, span(2)]);
        deliver(&mut batch);
        batch.interrupt();
        let after: Vec<_> = (0..4).map(|_| deliver(&mut batch)).collect();
        assert_eq!(after, [None, None, None, span(4)]);
    }
}
