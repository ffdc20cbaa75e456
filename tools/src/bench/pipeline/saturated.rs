//! Both ends of a topic whose sender never waits: it publishes whenever the node takes a message, and the
//! receiver takes the time of many deliveries together.

use sinew_io::node::{Delivery, Publisher, Queued, Reliability, StreamReader};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::ring::Consumer;
use std::hint::black_box;
use std::sync::Arc;

use super::batch::Batch;
use super::load::Load;
use super::mesh::BurstClock;
use super::recording::Recording;

/// Messages that may wait for the receiver's stage.
pub(super) const QUEUE: usize = 1_024;
/// Messages that the sender keeps for sending them again, where it does.
const KEPT: u16 = 1_024;
/// Messages that a stage publishes, or takes, at a time.
const PER_POLL: usize = 256;

/// How a stream of the bench is carried: with room for as much as a node can have.
pub(super) fn reliability() -> Reliability {
    // A spinning lane sleeps between bursts: nothing is given up meanwhile.
    let (linger, gap_timeout) = (Nanos::from_secs(2), Nanos::from_secs(2));
    // As much under way as a receiver can be told to hold: what a fast stream is declared with.
    let hold = 256;
    Reliability { capacity: KEPT, hold, linger, gap_timeout, ..Reliability::default() }
}

/// Where messages of either class come out.
pub(super) enum Pings {
    /// Best effort.
    Queue(Consumer<Queued<Load>>),
    /// Each in order, or a gap, which the panel counts.
    Stream(StreamReader<Load>),
}

impl Pings {
    /// The next message.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Load> {
        self.read(|ping| *ping)
    }

    /// What `read` makes of the next message, where it lies.
    #[inline]
    pub(super) fn read<R>(&mut self, mut read: impl FnMut(&Load) -> R) -> Option<R> {
        match self {
            Self::Queue(queue) => queue.pop_with(|ping| read(&ping.value)),
            Self::Stream(stream) => loop {
                // Bounded: a life begins once, and a gap is followed by a message.
                let read = stream.next_with(|delivery| match delivery {
                    Delivery::Message(ping) => Some(read(&ping.value)),
                    Delivery::Gap { .. } | Delivery::Started { .. } => None,
                })?;
                if read.is_some() {
                    return read;
                }
            },
        }
    }
}

/// Publishes until the node takes no more, whenever it is its turn.
pub(super) struct Sender {
    pub(super) clock: BurstClock,
    pub(super) pings: Publisher<Load>,
    pub(super) recording: Arc<Recording>,
    pub(super) number: u64,
}

impl Stage for Sender {
    #[inline]
    fn poll(&mut self, now: Nanos) -> Execution {
        if self.clock.running(now).is_none() {
            return Execution::Idle;
        }
        let sent_at = clock::now();
        let mut execution = Execution::Idle;
        for _ in 0..PER_POLL {
            let load = Load::new(self.number, sent_at, sent_at);
            if self.pings.publish_at(&load, sent_at).is_err() {
                break;
            }
            self.number += 1;
            self.recording.sent();
            execution = Execution::Worked { released: now };
        }
        execution
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }
}

/// Takes whatever came.
pub(super) struct Receiver {
    pub(super) clock: BurstClock,
    pub(super) pings: Pings,
    pub(super) recording: Arc<Recording>,
    pub(super) batch: Batch,
}

impl Stage for Receiver {
    #[inline]
    fn poll(&mut self, now: Nanos) -> Execution {
        if self.clock.running(now).is_none() {
            self.batch.interrupt();
            return Execution::Idle;
        }
        let mut execution = Execution::Idle;
        for _ in 0..PER_POLL {
            // All of it is read, as a program would.
            let Some(()) = self.pings.read(|ping| _ = black_box(*ping)) else { break };
            self.recording.received();
            if let Some((span, at)) = self.batch.delivered(clock::now) {
                self.recording.record(span, span, at);
            }
            execution = Execution::Worked { released: now };
        }
        execution
    }
}
