//! One way from core to core, one message after the other and at a robot's pace: what costs a
//! third of a microsecond in a busy loop costs more between two cores that waited a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::ring;
use sinew_rt::thread::Applied;
use sinew_rt::wait::Doorbell;

use super::pair::{BURST, Pair, spin};
use super::ping::park;
use crate::bench::evidence::Keeps;
use crate::bench::stats::Samples;
use crate::bench::worst::{Watcher, Worst};
use crate::exit::Failure;

/// 256 bytes; the first eight are the time of sending.
type Message = [u64; 32];
const CAPACITY: usize = 64;
/// Messages of a burst that are sent one after the other.
const BUSY_MESSAGES: u64 = 5_000;

/// When the next message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
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
pub(crate) enum Waiting {
    Spinning,
    Parked,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spinning => "spinning",
            Self::Parked => "parked",
        })
    }
}

/// What one burst found.
pub(crate) struct OneWay {
    /// From just before the ring to the receiver's hands.
    pub(crate) samples: Samples,
    /// The worst of them.
    pub(super) worst: Worst,
    /// What was granted to the sender and the receiver.
    pub(crate) applied: [Applied; 2],
}

/// One burst of messages from the near to the far end, through our ring. The first ones are not
/// counted: see [`warm_up`].
pub(super) fn one_way(
    pair: &Pair,
    pace: Pace,
    waiting: Waiting,
    messages: u64,
) -> Result<OneWay, Failure> {
    let warm_up = warm_up(pace, messages);
    let total = warm_up + messages;
    let bell = Arc::new(Doorbell::new());
    let (mut producer, mut consumer) = match waiting {
        Waiting::Spinning => ring::channel::<Message>(CAPACITY),
        Waiting::Parked => ring::channel_with_doorbell(CAPACITY, bell.clone()),
    };
    // A sender that parks too sleeps until its message has arrived.
    let (arrived, sender_bell) = (Arc::new(AtomicU64::new(0)), Arc::new(Doorbell::new()));
    let acknowledged = Arrivals { count: arrived.clone(), bell: sender_bell.clone(), waiting };
    let far_bell = bell.clone();
    let ((sent, (samples, worst)), applied) = pair.both(
        move || {
            let sent = send(total, pace, &acknowledged, &mut producer);
            // The receiver must not sleep on when this end gave up.
            drop(producer);
            bell.ring();
            sent
        },
        move || {
            let deadline = clock::now() + BURST;
            let mut samples = Samples::new();
            let mut watcher = Watcher::new(match waiting {
                Waiting::Spinning => Keeps::Core,
                Waiting::Parked => Keeps::Asleep,
            });
            for number in 0..total {
                let message = match waiting {
                    Waiting::Spinning => spin(deadline, || consumer.pop()),
                    Waiting::Parked => park(&far_bell, &mut consumer),
                };
                let Some(message) = message else { break };
                let now = clock::now();
                if number >= warm_up {
                    let took = now - Nanos::new(message[0].cast_signed());
                    samples.record(took, now);
                    watcher.see(took, now);
                } else if number + 1 == warm_up {
                    watcher.mark(now);
                }
                arrived.fetch_add(1, Ordering::Release);
                if waiting == Waiting::Parked {
                    sender_bell.ring();
                }
            }
            (samples, watcher.finish())
        },
    )?;
    match sent {
        Some(()) => Ok(OneWay { samples, worst, applied }),
        None => Err(Failure::machine(format!(
            "{pace}: only {} of {messages} messages arrived within {BURST}",
            samples.count()
        ))),
    }
}

/// Messages before those that are counted: both ends find each other and the code its caches.
pub(super) fn warm_up(pace: Pace, messages: u64) -> u64 {
    match pace {
        Pace::BackToBack => messages / 10,
        Pace::Every(_) => 5,
    }
}

/// How many messages of a pace fill most of a burst; the rest is for the ends to find each other.
pub(super) fn messages_of_a_burst(pace: Pace) -> u64 {
    match pace {
        Pace::BackToBack => BUSY_MESSAGES,
        Pace::Every(period) => ((BURST * 3 / 4 / period.as_nanos()).as_unsigned()).max(1),
    }
}

/// What the sender knows of its messages' arrival.
struct Arrivals {
    count: Arc<AtomicU64>,
    bell: Arc<Doorbell>,
    waiting: Waiting,
}

impl Arrivals {
    /// Waits until `sent` messages have arrived; `None` at `deadline`.
    fn wait_for(&self, sent: u64, deadline: Nanos) -> Option<()> {
        let there = || (self.count.load(Ordering::Acquire) == sent).then_some(());
        if self.waiting == Waiting::Spinning {
            return spin(deadline, there);
        }
        // A sender that kept its core would never let a receiver run that shares it.
        while there().is_none() {
            self.bell.announce_sleep();
            if there().is_some() {
                self.bell.awake();
                break;
            }
            self.bell.sleep(Some(deadline));
            if clock::now() >= deadline {
                return there();
            }
        }
        Some(())
    }
}

/// Sends `messages`, each after the one before it arrived; `None` when one did not.
fn send(
    messages: u64,
    pace: Pace,
    arrivals: &Arrivals,
    producer: &mut ring::Producer<Message>,
) -> Option<()> {
    let mut deadline = clock::now() + BURST;
    let mut due = clock::now();
    for sent in 0..messages {
        if arrivals.waiting == Waiting::Parked {
            // Nobody spins: the bound is for one message, not for the burst.
            deadline = clock::now() + BURST;
        }
        arrivals.wait_for(sent, deadline)?;
        if let Pace::Every(period) = pace {
            due += period;
            wait_until(due, arrivals.waiting);
        }
        let mut message = [7; 32];
        message[0] = clock::now().as_unsigned();
        producer.push(message).ok()?;
    }
    // The last one, too: the receiver counts what arrives within the burst.
    arrivals.wait_for(messages, deadline)
}

fn wait_until(due: Nanos, waiting: Waiting) {
    match waiting {
        // The receiver spins too: a sender that sleeps would measure its own wake-up as well.
        Waiting::Spinning => while clock::now() < due {},
        Waiting::Parked => clock::sleep_until(due),
    }
}
