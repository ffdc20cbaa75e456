//! One direction of a TCP connection: bytes that are late, slow or stalled, and never lost or out of
//! their order.

use std::collections::VecDeque;

use sinew_rt::clock::Nanos;

use super::draws::Draws;
use super::link::clamp;
use super::{Rate, Shape};

/// Bytes that wait in one direction where no rate says another bound.
pub const STREAM_BYTES_MAX: usize = 256 * 1024;

/// Bytes that travel together.
const CHUNK: usize = 16 * 1024;

/// One direction of a connection. What finds it full is not taken, which is how TCP slows its sender.
#[derive(Clone, Debug)]
pub struct Stream {
    seed: u64,
    shape: Shape,
    stalled: bool,
    chunks: u64,
    free_at: Nanos,
    last_due: Nanos,
    queue: VecDeque<(Nanos, Vec<u8>)>,
    queued_bytes: usize,
    /// Bytes of the first chunk that have been taken away.
    taken: usize,
}

impl Stream {
    /// A connection's direction with its own seed.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self {
            seed,
            shape,
            stalled: false,
            chunks: 0,
            free_at: Nanos::MIN,
            last_due: Nanos::MIN,
            queue: VecDeque::new(),
            queued_bytes: 0,
            taken: 0,
        }
    }

    /// Changes the delay and the rate of what comes from now on.
    pub fn set_shape(&mut self, shape: Shape) {
        self.shape = shape;
    }

    /// Lets nothing out, or lets it out again.
    pub fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// How many bytes [`Stream::offer`] would take.
    #[must_use]
    pub fn room(&self) -> usize {
        let bound = self.shape.rate.map_or(STREAM_BYTES_MAX, |rate| {
            usize::try_from(rate.queue_bytes).unwrap_or(STREAM_BYTES_MAX).clamp(1, STREAM_BYTES_MAX)
        });
        bound.saturating_sub(self.queued_bytes)
    }

    /// Takes as many of `bytes` as there is room for, and says how many.
    pub fn offer(&mut self, now: Nanos, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.room());
        for chunk in bytes[..accepted].chunks(CHUNK) {
            let unbounded = |rate: Rate| Rate { queue_bytes: u64::MAX, ..rate };
            let departs = self.shape.rate.map_or(Some(now), |rate| {
                clamp(unbounded(rate), &mut self.free_at, now, chunk.len() as u64)
            });
            let delay = Draws::of(self.seed, self.chunks, 0).delay(self.shape.delay);
            self.chunks += 1;
            self.last_due = (departs.unwrap_or(now) + delay).max(self.last_due);
            self.queue.push_back((self.last_due, chunk.to_vec()));
        }
        self.queued_bytes += accepted;
        accepted
    }

    /// The next bytes that have arrived by `now`. They stay until [`Stream::take`].
    #[must_use]
    pub fn due(&self, now: Nanos) -> Option<&[u8]> {
        if self.next_deadline()? > now {
            return None;
        }
        self.queue.front().and_then(|(_, chunk)| chunk.get(self.taken..))
    }

    /// Takes the first `count` of the bytes that [`Stream::due`] gave.
    pub fn take(&mut self, count: usize) {
        let Some((_, chunk)) = self.queue.front() else { return };
        let count = count.min(chunk.len() - self.taken);
        self.taken += count;
        self.queued_bytes -= count;
        if self.taken == chunk.len() {
            self.queue.pop_front();
            self.taken = 0;
        }
    }

    /// When the next bytes arrive; `None` while nothing is on its way, and in a stall.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let due = self.queue.front().map(|(due, _)| *due);
        due.filter(|_| !self.stalled)
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chance, Delay};
    use super::*;

    fn ms(ms: i64) -> Nanos {
        Nanos::from_millis(ms)
    }

    fn drain(stream: &mut Stream, now: Nanos) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = stream.due(now) {
            // In pieces, as a socket takes them.
            let piece = bytes[..bytes.len().min(7)].to_vec();
            stream.take(piece.len());
            all.extend(piece);
        }
        all
    }

    #[test]
    fn a_stream_loses_nothing_and_keeps_its_order_whatever_the_shape() {
        let shape = Shape {
            loss: Chance::percent(50.0),
            duplicate: Chance::percent(50.0),
            corrupt: Chance::ALWAYS,
            reorder: Chance::percent(50.0),
            reorder_within: ms(50),
            delay: Delay::Uniform { least: ms(1), most: ms(30) },
            ..Shape::default()
        };
        let mut stream = Stream::new(9, shape);
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        for n in 0..200 {
            let bytes: Vec<u8> = (0..100).map(|i| (n * 31 + i) as u8).collect();
            assert_eq!(stream.offer(ms(n), &bytes), 100);
            sent.extend(bytes);
            came.extend(drain(&mut stream, ms(n)));
        }
        assert!(came.len() < sent.len(), "the last are still on their way");
        came.extend(drain(&mut stream, Nanos::MAX));
        assert!(came == sent && stream.is_empty());
        assert_eq!(stream.room(), STREAM_BYTES_MAX);
    }

    #[test]
    fn a_full_stream_takes_no_more_until_something_left_it() {
        let rate = Some(Rate { bytes_per_s: 1_000, queue_bytes: 50 });
        let mut stream = Stream::new(1, Shape { rate, ..Shape::default() });
        assert_eq!(stream.offer(Nanos::ZERO, &[1; 80]), 50);
        assert_eq!(stream.offer(Nanos::ZERO, &[1; 80]), 0);
        assert_eq!(stream.due(ms(49)), None);
        assert_eq!(drain(&mut stream, ms(50)).len(), 50);
        assert_eq!(stream.offer(ms(50), &[1; 80]), 50);
    }

    #[test]
    fn a_stalled_stream_is_silent_until_the_stall_ends() {
        let mut stream = Stream::new(1, Shape::default());
        stream.stall(true);
        stream.offer(ms(1), b"held");
        assert_eq!((stream.due(ms(9)), stream.next_deadline()), (None, None));
        stream.stall(false);
        assert_eq!(stream.due(ms(9)), Some(&b"held"[..]));
    }
}
