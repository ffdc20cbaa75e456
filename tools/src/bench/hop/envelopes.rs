//! Slot handles against envelopes by value: the whole way of one message, not only its hop.
//!
//! What a socket gives is copied in, the message hops, every byte of it is read, and its memory is
//! given back. With handles it is written into a slot of the pool and the handle hops; by value it
//! is written into a buffer and copied through the ring. Between two cores, as in the split layout,
//! one message at a time and as a stream; and on one thread, as in the fused layout.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::pool::{Pool, Slot};
use sinew_rt::ring;

use super::pair::{BURST, Pair, spin};
use crate::bench::report::Run;
use crate::bench::stats::Samples;
use crate::exit::Failure;

/// Bytes of frame header and envelope header, which travel with each payload.
const HEADERS: usize = 80;
/// Bytes of the slots of a node's pool.
const SLOT: usize = 1_280;
const SLOTS: usize = 256;
const CAPACITY: usize = 128;
/// Messages of a stream that make one sample.
pub(super) const STREAM_BATCH: u64 = 100;
/// Messages on one thread that make one sample.
pub(super) const FUSED_BATCH: u64 = 16;

/// Messages one at a time that are not counted, at the start of each round; of a stream and on one thread
/// it is one batch.
pub(super) const WARM_UP: u64 = 500;

#[derive(Debug)]
#[repr(C, align(64))]
struct Buffer([u8; SLOT]);

/// An envelope as it would be if it hopped by value: no larger than it must be, which favours it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Value<const N: usize>([u8; N]);

/// How messages get from one end to the other.
pub(super) trait Carrier: Send + 'static {
    type Out: Outlet;
    type In: Inlet;
    /// A fresh pair of ends.
    fn ends() -> (Self::Out, Self::In);
}

pub(super) trait Outlet: Send + 'static {
    /// Writes a frame as a socket would and sends it on; `false` when there is no room.
    fn send(&mut self, frame: &[u8], stamp: Nanos) -> bool;
}

pub(super) trait Inlet: Send + 'static {
    /// Takes a frame if there is one, reads all of it, gives its memory back, and gives its stamp
    /// and the sum of its words.
    fn receive(&mut self) -> Option<(Nanos, u64)>;
}

/// Slot handles: the frame stays where it was written. `N` is its length.
#[derive(Debug)]
pub(super) struct Handles<const N: usize>;
#[derive(Debug)]
pub(super) struct HandlesOut<const N: usize> {
    pool: Pool<Buffer>,
    ring: ring::Producer<Slot<Buffer>>,
}
#[derive(Debug)]
pub(super) struct HandlesIn<const N: usize>(ring::Consumer<Slot<Buffer>>);

impl<const N: usize> Carrier for Handles<N> {
    type Out = HandlesOut<N>;
    type In = HandlesIn<N>;
    fn ends() -> (Self::Out, Self::In) {
        let pool = Pool::new(SLOTS, || Buffer([0; SLOT]));
        let (ring, consumer) = ring::channel(CAPACITY);
        (HandlesOut { pool, ring }, HandlesIn(consumer))
    }
}

impl<const N: usize> Outlet for HandlesOut<N> {
    #[inline]
    fn send(&mut self, frame: &[u8], stamp: Nanos) -> bool {
        if self.ring.free() == 0 {
            return false;
        }
        let Some(mut slot) = self.pool.take() else { return false };
        write(&mut slot.0[..N], frame, stamp);
        self.ring.push(slot).is_ok()
    }
}

impl<const N: usize> Inlet for HandlesIn<N> {
    #[inline]
    fn receive(&mut self) -> Option<(Nanos, u64)> {
        let slot = self.0.pop()?;
        Some(read(&slot.0[..N]))
    }
}

/// By value: the frame is copied into the ring and out of it.
#[derive(Debug)]
pub(super) struct Values<const N: usize>;
#[derive(Debug)]
pub(super) struct ValuesOut<const N: usize> {
    /// Where the socket writes: it cannot write into the ring.
    received: Box<Value<N>>,
    ring: ring::Producer<Value<N>>,
}
#[derive(Debug)]
pub(super) struct ValuesIn<const N: usize>(ring::Consumer<Value<N>>);

impl<const N: usize> Carrier for Values<N> {
    type Out = ValuesOut<N>;
    type In = ValuesIn<N>;
    fn ends() -> (Self::Out, Self::In) {
        let (ring, consumer) = ring::channel(CAPACITY);
        (ValuesOut { received: Box::new(Value([0; N])), ring }, ValuesIn(consumer))
    }
}

impl<const N: usize> Outlet for ValuesOut<N> {
    #[inline]
    fn send(&mut self, frame: &[u8], stamp: Nanos) -> bool {
        if self.ring.free() == 0 {
            return false;
        }
        write(&mut self.received.0, frame, stamp);
        // The kernel wrote it, so the compiler may not forward what was written.
        self.ring.push(*black_box(&*self.received)).is_ok()
    }
}

impl<const N: usize> Inlet for ValuesIn<N> {
    #[inline]
    fn receive(&mut self) -> Option<(Nanos, u64)> {
        let value = self.0.pop()?;
        Some(read(&value.0))
    }
}

#[inline]
fn write(into: &mut [u8], frame: &[u8], stamp: Nanos) {
    into.copy_from_slice(black_box(frame));
    into[..8].copy_from_slice(&stamp.as_nanos().to_le_bytes());
    black_box(into);
}

#[inline]
fn read(bytes: &[u8]) -> (Nanos, u64) {
    let (words, _) = black_box(bytes).as_chunks::<8>();
    let stamp = words.first().map_or(0, |word| i64::from_le_bytes(*word));
    let sum = words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add);
    (Nanos::new(stamp), black_box(sum))
}

/// From before the frame is written to after its memory was given back, between two cores, one
/// message at a time.
pub(super) fn alone<C: Carrier, const N: usize>(
    run: &mut Run,
    pair: &Pair,
    messages: u64,
) -> Result<Samples, Failure> {
    let total = WARM_UP + messages;
    let (mut outlet, mut inlet) = C::ends();
    let arrived = Arc::new(CachePadded::new(AtomicU64::new(0)));
    let acknowledged = arrived.clone();
    let (sent, samples) = pair.run(
        run,
        move || {
            let deadline = clock::now() + BURST;
            let frame = [3; N];
            (0..total).all(|sent| {
                let there = || (acknowledged.load(Ordering::Acquire) == sent).then_some(());
                spin(deadline, there).is_some() && outlet.send(&frame, clock::now())
            })
        },
        move || {
            let deadline = clock::now() + BURST;
            let mut samples = Samples::new();
            for number in 1..=total {
                let Some((stamp, _)) = spin(deadline, || inlet.receive()) else { break };
                let now = clock::now();
                if number > WARM_UP {
                    samples.record(now - stamp, now);
                }
                arrived.store(number, Ordering::Release);
            }
            samples
        },
    )?;
    complete(samples, messages, sent)
}

/// A stream between two cores that never waits: time per message, seen by the receiver.
pub(super) fn stream<C: Carrier, const N: usize>(
    run: &mut Run,
    pair: &Pair,
    batches: u64,
) -> Result<Samples, Failure> {
    let messages = (batches + 1) * STREAM_BATCH;
    let (mut outlet, mut inlet) = C::ends();
    let (sent, samples) = pair.run(
        run,
        move || {
            let deadline = clock::now() + BURST;
            let frame = [3; N];
            (0..messages).all(|_| {
                spin(deadline, || outlet.send(&frame, Nanos::ZERO).then_some(())).is_some()
            })
        },
        move || {
            let deadline = clock::now() + BURST;
            let mut samples = Samples::of_batches(STREAM_BATCH);
            let mut start = None;
            for _ in 0..=batches {
                for _ in 0..STREAM_BATCH {
                    if spin(deadline, || inlet.receive()).is_none() {
                        return samples;
                    }
                }
                let now = clock::now();
                // The first batch waited for the sender to begin.
                if let Some(start) = start.replace(now) {
                    samples.record(now - start, now);
                }
            }
            samples
        },
    )?;
    complete(samples, batches, sent)
}

/// On one thread, as between the stages of a fused lane.
pub(super) fn fused<C: Carrier, const N: usize>(batches: u64) -> Samples {
    let (mut outlet, mut inlet) = C::ends();
    let frame = [3; N];
    let mut samples = Samples::of_batches(FUSED_BATCH);
    for batch in 0..=batches {
        let start = clock::now();
        for _ in 0..FUSED_BATCH {
            let sent = outlet.send(&frame, start);
            black_box((sent, inlet.receive()));
        }
        let end = clock::now();
        // The first one warms up.
        if batch > 0 {
            samples.record(end - start, end);
        }
    }
    samples
}

fn complete(samples: Samples, wanted: u64, sent: bool) -> Result<Samples, Failure> {
    match sent && samples.count() == wanted {
        true => Ok(samples),
        false => Err(Failure::machine(format!(
            "only {} of {wanted} samples within {BURST}: is a core taken by something of a higher \
             priority?",
            samples.count()
        ))),
    }
}

/// The length of a frame with a payload of `N` bytes.
pub(super) const fn framed(payload: usize) -> usize {
    HEADERS + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carries<C: Carrier>() {
        let (mut outlet, mut inlet) = C::ends();
        assert!(inlet.receive().is_none());
        for n in 0..CAPACITY as i64 {
            assert!(outlet.send(&[1; 208], Nanos::new(n)));
        }
        assert!(!outlet.send(&[1; 208], Nanos::ZERO), "the ring is full");
        for n in 0..CAPACITY as i64 {
            let (stamp, sum) = inlet.receive().unwrap();
            let words = u64::from_le_bytes([1; 8]).wrapping_mul(25);
            assert_eq!((stamp, sum), (Nanos::new(n), words.wrapping_add(n as u64)));
        }
        assert!(inlet.receive().is_none());
    }

    #[test]
    fn the_batch_that_warms_up_is_not_counted() {
        assert_eq!(fused::<Handles<208>, 208>(4).count(), 4);
        assert_eq!(fused::<Values<208>, 208>(4).count(), 4);
    }

    #[test]
    fn both_carriers_carry_every_byte_in_order() {
        carries::<Handles<208>>();
        carries::<Values<208>>();
    }
}
