//! Round trips between two cores, spinning and parked: our ring beside what it is made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;
use sinew_rt::clock;
use sinew_rt::ring;
use sinew_rt::wait::Doorbell;

use super::pair::{BURST, Pair, spin};
use crate::bench::report::Run;
use crate::bench::stats::Samples;
use crate::exit::Failure;

/// What travels: 256 bytes, of which the first eight are the number of the round trip.
type Message = [u64; 32];
/// Slots in a ring: 16 KiB of messages.
const CAPACITY: usize = 64;
/// Round trips that are not recorded, at the start of each round.
pub(super) const WARM_UP: u64 = 500;

const fn message(number: u64) -> Message {
    let mut message = [7; 32];
    message[0] = number;
    message
}

/// Sends `round_trips` messages one after the other and records each time until the answer. A
/// sample is a round trip, so two hops. `receive` gives up when the burst must end.
fn ping(
    round_trips: u64,
    mut send: impl FnMut(Message) -> bool,
    mut receive: impl FnMut() -> Option<Message>,
) -> Samples {
    let mut samples = Samples::of_batches(2);
    for number in 0..round_trips + WARM_UP {
        let start = clock::now();
        if !send(message(number)) {
            break;
        }
        let Some(back) = receive() else { break };
        let end = clock::now();
        if back[0] != number {
            break;
        }
        if number >= WARM_UP {
            samples.record(end - start, end);
        }
    }
    samples
}

/// Sends back what comes, as often as `ping` sends.
fn pong(
    round_trips: u64,
    mut send: impl FnMut(Message) -> bool,
    mut receive: impl FnMut() -> Option<Message>,
) {
    for _ in 0..round_trips + WARM_UP {
        let Some(message) = receive() else { break };
        if !send(message) {
            break;
        }
    }
}

/// A round that lost messages, or ran into the end of its burst, is not a measurement.
fn complete(samples: Samples, round_trips: u64) -> Result<Samples, Failure> {
    match samples.count() == round_trips {
        true => Ok(samples),
        false => Err(Failure::machine(format!(
            "only {} of {round_trips} round trips within {BURST}: is the core taken by something \
             of a higher priority?",
            samples.count()
        ))),
    }
}

/// Spinning, through bare `rtrb` rings.
pub(super) fn spinning_rtrb(
    run: &mut Run,
    pair: &Pair,
    round_trips: u64,
) -> Result<Samples, Failure> {
    let (mut there, mut from_near) = rtrb::RingBuffer::<Message>::new(CAPACITY);
    let (mut back, mut from_far) = rtrb::RingBuffer::<Message>::new(CAPACITY);
    let (samples, ()) = pair.run(
        run,
        move || {
            let deadline = clock::now() + BURST;
            let receive = || spin(deadline, || from_far.pop().ok());
            ping(round_trips, |m| there.push(m).is_ok(), receive)
        },
        move || {
            let deadline = clock::now() + BURST;
            let receive = || spin(deadline, || from_near.pop().ok());
            pong(round_trips, |m| back.push(m).is_ok(), receive);
        },
    )?;
    complete(samples, round_trips)
}

/// Spinning, through our rings.
pub(super) fn spinning_ring(
    run: &mut Run,
    pair: &Pair,
    round_trips: u64,
) -> Result<Samples, Failure> {
    let (mut there, mut from_near) = ring::channel::<Message>(CAPACITY);
    let (mut back, mut from_far) = ring::channel::<Message>(CAPACITY);
    let (samples, ()) = pair.run(
        run,
        move || {
            let deadline = clock::now() + BURST;
            let receive = || spin(deadline, || from_far.pop());
            ping(round_trips, |m| there.push(m).is_ok(), receive)
        },
        move || {
            let deadline = clock::now() + BURST;
            let receive = || spin(deadline, || from_near.pop());
            pong(round_trips, |m| back.push(m).is_ok(), receive);
        },
    )?;
    complete(samples, round_trips)
}

/// Parked, with nothing but a futex word for each direction: the number is the message.
pub(super) fn parked_futex(
    run: &mut Run,
    pair: &Pair,
    round_trips: u64,
) -> Result<Samples, Failure> {
    let words = Arc::new([const { CachePadded::new(AtomicU32::new(0)) }; 2]);
    let far_words = words.clone();
    let (samples, ()) = pair.run(
        run,
        move || {
            let [there, back] = &*words;
            let mut number = 0;
            let receive = || {
                number += 1;
                Some(message(u64::from(take(back, number) - 1)))
            };
            ping(round_trips, |m| give(there, m), receive)
        },
        move || {
            let [there, back] = &*far_words;
            let mut number = 0;
            let receive = || {
                number += 1;
                Some(message(u64::from(take(there, number) - 1)))
            };
            pong(round_trips, |m| give(back, m), receive);
        },
    )?;
    complete(samples, round_trips)
}

/// Leaves a message, counted from 1, and wakes who waits for it.
fn give(word: &AtomicU32, message: Message) -> bool {
    word.store(message[0] as u32 + 1, Ordering::Release);
    // SAFETY: `word` is a valid, aligned u32 for the whole call; FUTEX_WAKE only uses its address
    // (futex(2)).
    let woken = unsafe {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1)
    };
    woken >= 0
}

/// Sleeps until the message `number` is there.
fn take(word: &AtomicU32, number: u32) -> u32 {
    while word.load(Ordering::Acquire) != number {
        // SAFETY: `word` is a valid, aligned u32 for the whole call and a null timeout means none
        // (futex(2)). Why it returned does not matter: the word is looked at again.
        unsafe {
            let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
            let forever = std::ptr::null::<libc::timespec>();
            libc::syscall(libc::SYS_futex, word.as_ptr(), operation, number - 1, forever);
        }
    }
    number
}

/// Parked, through our rings and the doorbell of each end.
pub(super) fn parked_ring(
    run: &mut Run,
    pair: &Pair,
    round_trips: u64,
) -> Result<Samples, Failure> {
    let (near_bell, far_bell) = (Arc::new(Doorbell::new()), Arc::new(Doorbell::new()));
    let (mut there, mut from_near) =
        ring::channel_with_doorbell::<Message>(CAPACITY, far_bell.clone());
    let (mut back, mut from_far) =
        ring::channel_with_doorbell::<Message>(CAPACITY, near_bell.clone());
    let (wake_far, wake_near) = (far_bell.clone(), near_bell.clone());
    let (samples, ()) = pair.run(
        run,
        move || {
            let receive = || park(&near_bell, &mut from_far);
            let samples = ping(round_trips, |m| there.push(m).is_ok(), receive);
            // Whoever gives up must not leave the other asleep.
            drop(there);
            wake_far.ring();
            samples
        },
        move || {
            let receive = || park(&far_bell, &mut from_near);
            pong(round_trips, |m| back.push(m).is_ok(), receive);
            drop(back);
            wake_near.ring();
        },
    )?;
    complete(samples, round_trips)
}

/// The next message, waited for as a lane waits that parks at once; `None` when there is none and
/// the sender is gone, which rings once more as it goes.
#[inline]
pub(super) fn park<T>(bell: &Doorbell, consumer: &mut ring::Consumer<T>) -> Option<T> {
    loop {
        if let Some(message) = consumer.pop() {
            return Some(message);
        }
        bell.announce_sleep();
        if let Some(message) = consumer.pop() {
            bell.awake();
            return Some(message);
        }
        if consumer.is_abandoned() {
            bell.awake();
            return consumer.pop();
        }
        bell.sleep(None);
    }
}

#[cfg(test)]
mod tests {
    use sinew_rt::thread::ThreadSpec;

    use super::*;

    /// On the normal scheduler and any core: only that they end, and count what they should.
    #[test]
    fn every_kind_of_round_trip_gives_as_many_samples_as_asked() {
        let spec = ThreadSpec::new("test");
        let pair = Pair { near: spec.clone(), far: spec };
        let mut run = Run::elsewhere();
        for kind in [parked_futex, parked_ring] {
            assert_eq!(kind(&mut run, &pair, 20).unwrap().count(), 20);
        }
    }

    #[test]
    fn a_parked_end_learns_that_the_other_is_gone() {
        let bell = Arc::new(Doorbell::new());
        let (mut producer, mut consumer) = ring::channel_with_doorbell::<u8>(2, bell.clone());
        producer.push(1).unwrap();
        let waker = bell.clone();
        let sender = std::thread::spawn(move || {
            drop(producer);
            waker.ring();
        });
        assert_eq!(park(&bell, &mut consumer), Some(1));
        assert_eq!(park(&bell, &mut consumer), None);
        sender.join().unwrap();
    }
}
