//! The yardstick of `hop`: two threads, two rings and nothing else, written as anybody would to find
//! out what a hop costs on a machine. It shares no code with the measurement that it is there to check.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::time::Instant;

use rtrb::{Consumer, Producer, RingBuffer};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread::{Applied, apply_to_current};

use super::pair::Pair;
use crate::bench::report::Run;
use crate::bench::stats::Samples;
use crate::bench::thread_failure;
use crate::exit::Failure;

type Message = [u64; 32];
/// Round trips that are not counted.
pub(super) const WARM_UP: usize = 500;
/// Looks at an empty ring after which a plain program would still look; this one must end. Some
/// 0.1 s.
const LOOKS_MAX: u32 = 50_000_000;

/// Round trips between two spinning threads; a sample is a round trip, so two hops.
pub(super) fn ping_pong(run: &mut Run, pair: &Pair, round_trips: u64) -> Result<Samples, Failure> {
    let trips = round_trips as usize;
    let (there, from_near) = RingBuffer::<Message>::new(64);
    let (back, from_far) = RingBuffer::<Message>::new(64);
    let ready = Barrier::new(2);
    let (near, far) = std::thread::scope(|scope| {
        let near = scope.spawn(|| {
            let applied = apply_to_current(&pair.near);
            ready.wait();
            (applied, ping(trips, there, from_far))
        });
        let far = scope.spawn(|| {
            let applied = apply_to_current(&pair.far);
            ready.wait();
            pong(trips, back, from_near);
            applied
        });
        (near.join(), far.join())
    });
    let panicked = |_| Failure::machine("a thread of the bare program panicked");
    let ((near, trips_ns), far) = (near.map_err(panicked)?, far.map_err(panicked)?);
    let applied: [Applied; 2] = [near.map_err(thread_failure)?, far.map_err(thread_failure)?];
    applied.iter().for_each(|applied| run.thread(applied));
    if trips_ns.len() < trips + WARM_UP {
        return Err(Failure::machine(format!(
            "the bare program made only {} of {} round trips: is a core taken by something of a \
             higher priority?",
            trips_ns.len(),
            trips + WARM_UP
        )));
    }
    let mut samples = Samples::of_batches(2);
    let now = clock::now();
    for ns in &trips_ns[WARM_UP..] {
        samples.record(Nanos::new(*ns), now);
    }
    Ok(samples)
}

fn ping(trips: usize, mut there: Producer<Message>, mut back: Consumer<Message>) -> Vec<i64> {
    let mut took = Vec::with_capacity(trips + WARM_UP);
    let mut message = [7; 32];
    for number in 0..trips + WARM_UP {
        message[0] = number as u64;
        let start = Instant::now();
        if there.push(message).is_err() || pop(&mut back).is_none() {
            break;
        }
        took.push(start.elapsed().as_nanos() as i64);
    }
    took
}

fn pong(trips: usize, mut back: Producer<Message>, mut from_near: Consumer<Message>) {
    for _ in 0..trips + WARM_UP {
        let Some(message) = pop(&mut from_near) else { return };
        if back.push(message).is_err() {
            return;
        }
    }
}

fn pop(ring: &mut Consumer<Message>) -> Option<Message> {
    for _ in 0..LOOKS_MAX {
        if let Ok(message) = ring.pop() {
            return Some(message);
        }
        spin_loop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_in_the_number_that_was_asked_for() {
        let (there, from_near) = RingBuffer::<Message>::new(64);
        let (back, from_far) = RingBuffer::<Message>::new(64);
        let far = std::thread::spawn(move || pong(20, back, from_near));
        let took = ping(20, there, from_far);
        far.join().unwrap();
        assert_eq!(took.len(), 20 + WARM_UP);
        assert!(took.iter().all(|ns| *ns > 0));
    }

    #[test]
    fn a_partner_that_is_gone_ends_the_program() {
        let (there, _from_near) = RingBuffer::<Message>::new(64);
        let (mut back, from_far) = RingBuffer::<Message>::new(64);
        back.push([1; 32]).unwrap();
        assert_eq!(ping(20, there, from_far).len(), 1);
    }
}
