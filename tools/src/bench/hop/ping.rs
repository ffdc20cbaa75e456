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
const WARM_UP: u64 = 500;

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
    let (samples, ()) = pair.run(
        run,
        move || {
            let receive = || Some(park(&near_bell, || from_far.pop()));
            ping(round_trips, |m| there.push(m).is_ok(), receive)
        },
        move || {
            let receive = || Some(park(&far_bell, || from_near.pop()));
            pong(round_trips, |m| back.push(m).is_ok(), receive);
        },
    )?;
    complete(samples, round_trips)
}

/// Waits as a lane does that parks at once.
#[inline]
pub(super) fn park<T>(bell: &Doorbell, mut ready: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = ready() {
            return value;
        }
        bell.announce_sleep();
        if let Some(value) = ready() {
            bell.awake();
            return value;
        }
        bell.sleep(None);
    }
}
