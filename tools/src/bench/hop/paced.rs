//! One way from core to core, one message after the other and at a robot's pace: what costs a
//! third of a microsecond in a busy loop costs more between two cores that waited a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::ring;
use sinew_rt::wait::Doorbell;

use super::pair::{BURST, Pair, spin};
use super::ping::park;
use crate::bench::report::Run;
use crate::bench::stats::Samples;
use crate::exit::Failure;

/// 256 bytes; the first eight are the time of sending.
type Message = [u64; 32];
const CAPACITY: usize = 64;
/// Messages of a burst that are sent one after the other.
const BUSY_MESSAGES: u64 = 5_000;

/// When the next message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As soon as the last one arrived.
    BackToBack,
    /// On the dot of a period.
    Every(Nanos),
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BackToBack => f.write_str("back-to-back"),
            Self::Every(period) => write!(f, "every {} µs", period.as_nanos() / 1_000),
        }
    }
}

/// Whether the receiver spins or parks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Spinning,
    Parked,
}

/// One burst of messages from the near to the far end, through our ring.
pub(super) fn one_way(
    run: &mut Run,
    pair: &Pair,
    pace: Pace,
    waiting: Waiting,
) -> Result<Samples, Failure> {
    let messages = match pace {
        Pace::BackToBack => BUSY_MESSAGES,
        // Most of a burst; the rest is for the ends to find each other.
        Pace::Every(period) => (BURST * 3 / 4 / period.as_nanos()).as_unsigned(),
    };
    let bell = Arc::new(Doorbell::new());
    let (mut producer, mut consumer) = match waiting {
        Waiting::Spinning => ring::channel::<Message>(CAPACITY),
        Waiting::Parked => ring::channel_with_doorbell(CAPACITY, bell.clone()),
    };
    let arrived = Arc::new(AtomicU64::new(0));
    let acknowledged = arrived.clone();
    let far_bell = bell.clone();
    let (sent, samples) = pair.run(
        run,
        move || {
            let sent = send(messages, pace, waiting, &acknowledged, &mut producer);
            // The receiver must not sleep on when this end gave up.
            drop(producer);
            bell.ring();
            sent
        },
        move || {
            let deadline = clock::now() + BURST;
            let mut samples = Samples::new();
            for _ in 0..messages {
                let message = match waiting {
                    Waiting::Spinning => spin(deadline, || consumer.pop()),
                    Waiting::Parked => park(&far_bell, &mut consumer),
                };
                let Some(message) = message else { break };
                let now = clock::now();
                samples.record(now - Nanos::new(message[0].cast_signed()), now);
                arrived.fetch_add(1, Ordering::Release);
            }
            samples
        },
    )?;
    match sent {
        Some(()) => Ok(samples),
        None => Err(Failure::machine(format!(
            "{pace}: only {} of {messages} messages arrived within {BURST}",
            samples.count()
        ))),
    }
}

/// Sends `messages`, each after the one before it arrived; `None` when one did not.
fn send(
    messages: u64,
    pace: Pace,
    waiting: Waiting,
    acknowledged: &AtomicU64,
    producer: &mut ring::Producer<Message>,
) -> Option<()> {
    let deadline = clock::now() + BURST;
    let mut due = clock::now();
    for sent in 0..messages {
        spin(deadline, || (acknowledged.load(Ordering::Acquire) == sent).then_some(()))?;
        if let Pace::Every(period) = pace {
            due += period;
            wait_until(due, waiting);
        }
        let mut message = [7; 32];
        message[0] = clock::now().as_unsigned();
        producer.push(message).ok()?;
    }
    Some(())
}

fn wait_until(due: Nanos, waiting: Waiting) {
    match waiting {
        // The receiver spins too: a sender that sleeps would measure its own wake-up as well.
        Waiting::Spinning => while clock::now() < due {},
        Waiting::Parked => clock::sleep_until(due),
    }
}
