//! The subscribing process: says on standard output that it is ready, then what it measured.

use serde::{Deserialize, Serialize};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use zenoh::Wait;
use zenoh::sample::Sample;

use crate::load::{KEY, LEN, Stamp, WARM_UP, WARM_UP_NS, all_of};
use crate::session::{Side, open};
use crate::{EndArgs, Failure, What, clock};

/// Messages of the throughput between two looks at the clock.
const STRIDE: u64 = 64;
/// How much longer than the measurement itself the last message may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// One line of what the subscriber says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Publishers may come; what Zenoh says of its version.
    Ready {
        zenoh: String,
    },
    Throughput(Throughput),
    Latency(Latency),
}

/// What arrived, and in which time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Throughput {
    pub(crate) delivered: u64,
    pub(crate) span_ns: i64,
}

/// One way, message by message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) spans_ns: Vec<u32>,
}

/// Subscribes and measures what was asked for.
pub(crate) fn run(end: &EndArgs) -> Result<(), Failure> {
    let session = open(end, Side::Listens)?;
    let (done, measured) = sync_channel(1);
    let subscriber = session.declare_subscriber(KEY);
    let _subscriber = match end.what {
        What::Throughput => {
            let mut counting = Counting::new(i64::from(end.seconds) * 1_000_000_000, done);
            subscriber.callback_mut(move |sample| counting.take(&sample)).wait()
        }
        What::Latency => {
            let mut timing = Timing::new(end, done);
            subscriber.callback_mut(move |sample| timing.take(&sample)).wait()
        }
    }
    .map_err(Failure::zenoh)?;
    say(&Line::Ready { zenoh: zenoh::GIT_VERSION.to_owned() })?;
    let within = Duration::from_secs(end.seconds.into()) + PATIENCE;
    let line =
        measured.recv_timeout(within).map_err(|_| Failure::Silent("publisher", within))??;
    say(&line)
}

fn say(line: &Line) -> Result<(), Failure> {
    let text = serde_json::to_string(line).map_err(Failure::zenoh)?;
    println!("{text}");
    Ok(())
}

type Done = SyncSender<Result<Line, Failure>>;

/// Counts what arrives in a stretch of time, after a warm-up.
struct Counting {
    span_ns: i64,
    first_at: Option<i64>,
    since: Option<i64>,
    delivered: u64,
    /// All messages, for the stride.
    taken: u64,
    done: Option<Done>,
}

impl Counting {
    fn new(span_ns: i64, done: Done) -> Self {
        Self { span_ns, first_at: None, since: None, delivered: 0, taken: 0, done: Some(done) }
    }

    #[inline]
    fn take(&mut self, sample: &Sample) {
        self.delivered += u64::from(sample.payload().len() == LEN);
        self.taken += 1;
        if self.taken.is_multiple_of(STRIDE) {
            self.look(clock::now_ns());
        }
    }

    fn look(&mut self, now: i64) {
        let Some(since) = self.since else {
            let first_at = *self.first_at.get_or_insert(now);
            if now - first_at >= WARM_UP_NS {
                (self.since, self.delivered) = (Some(now), 0);
            }
            return;
        };
        let span_ns = now - since;
        if span_ns >= self.span_ns
            && let Some(done) = self.done.take()
        {
            let throughput = Throughput { delivered: self.delivered, span_ns };
            // Nobody waits any more: the process is about to end.
            let _ = done.try_send(Ok(Line::Throughput(throughput)));
        }
    }
}

/// Takes the time of each message.
struct Timing {
    spans_ns: Vec<u32>,
    received: u64,
    done: Option<Done>,
}

impl Timing {
    fn new(end: &EndArgs, done: Done) -> Self {
        let count = u64::from(end.seconds) * 1_000_000 / u64::from(end.period_us);
        Self { spans_ns: Vec::with_capacity(count as usize), received: 0, done: Some(done) }
    }

    #[inline]
    fn take(&mut self, sample: &Sample) {
        let now = clock::now_ns();
        if let Some(stamp) = Stamp::read(&sample.payload().to_bytes()) {
            self.time(stamp, now);
        }
    }

    fn time(&mut self, stamp: Stamp, now: i64) {
        self.received += 1;
        // Pushing never allocates unless the other end was started with other options.
        if stamp.number >= WARM_UP && self.spans_ns.len() < self.spans_ns.capacity() {
            let span_ns = (now - stamp.sent_at_ns).clamp(0, u32::MAX.into());
            self.spans_ns.push(span_ns as u32);
        }
        if stamp.number + 1 == stamp.count
            && let Some(done) = self.done.take()
        {
            let latency = Latency { spans_ns: std::mem::take(&mut self.spans_ns) };
            let line = all_of(self.received, stamp.count).map(|()| Line::Latency(latency));
            let _ = done.try_send(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_the_warm_up_is_not_counted_and_the_span_is_the_one_that_passed() {
        let (done, measured) = sync_channel(1);
        let mut counting = Counting::new(1_000, done);
        for (delivered, at) in [(100, 0), (50, WARM_UP_NS), (1, WARM_UP_NS + 500)] {
            counting.delivered += delivered;
            counting.look(at);
        }
        assert!(measured.try_recv().is_err());
        counting.delivered += 1;
        counting.look(WARM_UP_NS + 1_200);
        let Ok(Ok(Line::Throughput(found))) = measured.try_recv() else { panic!("nothing found") };
        assert_eq!(found, Throughput { delivered: 2, span_ns: 1_200 });
    }

    #[test]
    fn a_message_that_is_missing_at_the_last_one_is_an_error() {
        for (missing, ok) in [(None, true), (Some(1), false)] {
            let (done, measured) = sync_channel(1);
            let mut timing =
                Timing { spans_ns: Vec::with_capacity(4), received: 0, done: Some(done) };
            let count = WARM_UP + 2;
            for number in (0..count).filter(|number| Some(*number) != missing) {
                timing.time(Stamp { sent_at_ns: 100, number, count }, 107);
            }
            match measured.try_recv() {
                Ok(Ok(Line::Latency(found))) => {
                    assert!(ok);
                    assert_eq!(found.spans_ns, [7, 7]);
                }
                Ok(Err(Failure::Lost { received, sent })) => {
                    assert!(!ok);
                    assert_eq!((received, sent), (count - 1, count));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
