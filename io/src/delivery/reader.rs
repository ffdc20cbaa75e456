//! The receiving end of one reliable stream: each message once, in order, or a gap that names it.
//!
//! A reader takes what the verify stage let through and says four things: what the subscriber gets
//! next, what became of commands, what its writer should send again, and when it wants to be called.
//! Everything at or below its *floor* is done; of the messages above as many as its size allows wait
//! for those before them.
//!
//! What is missing is first given time to be merely late (`reorder`), then asked for, again and
//! again, and after `gap_timeout` given up. A peer that lies in its heartbeats can make gaps in its
//! own stream and nothing else: each call does a bounded amount of work, whatever the numbers are.

mod acknowledging;
mod gap_buffer;
mod holes;
mod outcomes;
mod terms;
#[cfg(test)]
mod tests;

use sinew_rt::clock::Nanos;

use super::held::Held;
use super::window::JUMP_MAX;
use crate::random::SplitMix64;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::report::{Acknowledgement, Entry, Heartbeat, MoreHeld, Outcomes};
use crate::wire::{Class, Epoch, Sequence};

pub(crate) use terms::{Accepted, Mismatch, Next, ReaderSpec};

use acknowledging::Acknowledging;
use gap_buffer::GapBuffer;
use holes::{Holes, on_the_wire};
use outcomes::Decisions;

/// The most messages above the floor that a reader may hold: reports tell of no more.
pub(crate) const READER_SLOTS: u64 = Held::PLACES;
/// A longer round trip than this is not believed.
const ROUND_TRIP_MAX: Nanos = Nanos::from_secs(1);
/// "At once", among deadlines.
const AT_ONCE: Nanos = Nanos::MIN;

/// The newest message received, for the writer's estimate of the round trip.
#[derive(Clone, Copy, Debug)]
struct Echo {
    sequence: u64,
    sent_at_raw: Nanos,
    received_at: Nanos,
}

/// The receiving end of one stream: of one peer, on one subscribed topic.
#[derive(Debug)]
pub(crate) struct Reader<T> {
    spec: ReaderSpec,
    gap_timeout: Nanos,
    /// [`Epoch::NONE`] until the handshake said whose life the peer is in.
    epoch: Epoch,
    buffer: GapBuffer<T>,
    holes: Holes,
    acknowledging: Acknowledging,
    /// Of commands only.
    decisions: Option<Box<Decisions>>,
    /// The lowest sequence that can still come, as far as heartbeats told.
    first: u64,
    /// The highest that was sent, as far as heartbeats told.
    last: u64,
    /// What the subscriber's queue can take.
    free: u64,
    /// The highest sequence that there is room for; at least the floor, and above it no more
    /// than can be held.
    limit: u64,
    /// What the writer was told of it.
    reported_limit: u64,
    /// What the acknowledgement that was just given had no room for.
    more: Option<MoreHeld>,
    /// What is missing at the end of the stream could not be asked for, because of what is held: a
    /// request names holes below something held, or everything when nothing is.
    end_waits: bool,
    echo: Option<Echo>,
    round_trip: Nanos,
    /// Whether its writer said that there are many readers.
    many: bool,
    random: SplitMix64,
}

impl<T> Reader<T> {
    /// A reader that knows no life yet. `seed` drives the random delays of one among many readers.
    /// Allocates a slot for each message that it may hold.
    #[must_use]
    pub(crate) fn new(spec: ReaderSpec, seed: u64) -> Self {
        Self {
            gap_timeout: spec.lifespan.map_or(spec.gap_timeout, |span| span.min(spec.gap_timeout)),
            epoch: Epoch::NONE,
            buffer: GapBuffer::new(u64::from(spec.hold)),
            holes: Holes::new(u64::from(spec.hold)),
            acknowledging: Acknowledging::new(
                spec.acknowledge_every,
                spec.acknowledge_within,
                spec.refresh,
            ),
            decisions: (spec.class == Class::Command).then(|| Box::new(Decisions::new())),
            first: 1,
            last: 0,
            free: 0,
            limit: 0,
            reported_limit: 0,
            more: None,
            end_waits: false,
            echo: None,
            round_trip: Nanos::ZERO,
            many: false,
            random: SplitMix64::new(seed),
            spec,
        }
    }

    /// The handshake said that the peer is in the life `epoch`, and that `next` is the next message
    /// of this stream.
    ///
    /// A higher epoch begins anew above `next − 1`, and drops what was held of the old life. Within
    /// the present life only a `next` that no outage explains (`JUMP_MAX` above what is known) has an
    /// effect: what lies before it is lost, and becomes a gap. A lower epoch has none.
    pub(crate) fn new_life(&mut self, epoch: Epoch, next: Sequence, now: Nanos) {
        let next = next.get().max(1);
        if epoch == self.epoch && next - 1 > self.known_lost().saturating_add(JUMP_MAX) {
            self.first = next;
            self.last = self.last.max(next - 1);
        }
        if epoch <= self.epoch {
            return;
        }
        let floor = next - 1;
        self.epoch = epoch;
        if !planted(Fault::ReaderKeepsOldLife) {
            self.buffer.restart(floor);
        }
        self.holes.restart(floor);
        if let Some(decisions) = &mut self.decisions {
            decisions.restart(floor);
        }
        self.acknowledging.restart(now);
        self.first = next;
        self.last = floor;
        self.limit = floor.saturating_add(self.free.min(self.buffer.size()));
        self.reported_limit = floor;
        self.more = None;
        self.end_waits = false;
        self.echo = None;
    }

    /// How many messages it may hold.
    #[must_use]
    pub(crate) const fn size(&self) -> usize {
        self.buffer.size() as usize
    }

    /// The life of the writer that everything here is about.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// This and everything before it is done: given by [`Self::next`], as a frame or in a gap. Within
    /// a life it only grows.
    #[must_use]
    pub(crate) const fn floor(&self) -> Sequence {
        Sequence::new(self.buffer.floor())
    }

    /// Takes an authenticated frame of the present life. `sent_at_raw` is the time of sending as the
    /// writer wrote it. Bounded, allocates nothing.
    pub(crate) fn accept(
        &mut self,
        sequence: Sequence,
        sent_at_raw: Nanos,
        frame: T,
        now: Nanos,
    ) -> Accepted<T> {
        if self.epoch == Epoch::NONE {
            return Accepted::Beyond(frame);
        }
        let accepted = self.buffer.insert(sequence.get(), frame);
        match accepted {
            Accepted::InOrder | Accepted::Held => {
                self.acknowledging.heard();
                let sequence = sequence.get();
                if self.echo.is_none_or(|newest| newest.sequence < sequence) {
                    self.echo = Some(Echo { sequence, sent_at_raw, received_at: now });
                }
                if matches!(accepted, Accepted::Held) {
                    reached(Branch::HeldBehindHole);
                }
                self.end_waits |= !self.buffer.held().is_empty_beyond_first();
                self.holes.fruit();
                self.acknowledging.message(now);
                self.see_missing(now);
            }
            Accepted::Duplicate(_) => {
                reached(Branch::DuplicateInReader);
                self.acknowledging.duplicate(now);
            }
            Accepted::Beyond(_) => reached(Branch::BeyondBuffer),
        }
        accepted
    }

    /// What the subscriber gets next. To be called until it gives `None`, but only while the
    /// subscriber's queue has room for one more; then [`Self::room`] is to be called.
    pub(crate) fn next(&mut self, now: Nanos) -> Option<Next<T>> {
        let floor = self.buffer.floor();
        let next = match self.buffer.take() {
            Some((sequence, frame)) => {
                if let Some(decisions) = &mut self.decisions {
                    decisions.delivered(sequence);
                }
                if self.buffer.held().is_empty() && std::mem::take(&mut self.end_waits) {
                    self.holes.restart_clocks(sequence, now);
                }
                Next::Frame(Sequence::new(sequence), frame)
            }
            None => {
                let last = self.gap_end(now);
                let first = floor.checked_add(1).filter(|first| *first <= last)?;
                reached(match self.buffer.held().is_empty() {
                    true => Branch::GapGivenUp,
                    false => Branch::GapWhileHolding,
                });
                self.buffer.skip_to(last);
                if let Some(decisions) = &mut self.decisions {
                    decisions.gap(first, last);
                }
                Next::Gap { first: Sequence::new(first), last: Sequence::new(last) }
            }
        };
        let floor = self.buffer.floor();
        self.free = self.free.saturating_sub(1);
        self.limit = self.limit.max(floor);
        self.acknowledging.soon(now);
        self.see_missing(now);
        Some(next)
    }

    /// The subscriber's queue can take `free` messages and gaps. The writer is told at once when it
    /// thinks that at most half of that room is left.
    ///
    /// What was once promised stays promised: if `free` shrinks for another reason than this stream
    /// (several writers share one queue), messages up to the promise are still accepted and held.
    pub(crate) fn room(&mut self, free: u64, now: Nanos) {
        self.free = free;
        if self.epoch == Epoch::NONE {
            return;
        }
        let floor = self.buffer.floor();
        self.limit = self.limit.max(floor.saturating_add(free.min(self.buffer.size())));
        let left = self.reported_limit.saturating_sub(floor);
        if self.limit > self.reported_limit && left * 2 <= self.limit - floor {
            self.acknowledging.at_once(now);
        }
    }

    /// Takes what the writer says of its stream: what it has sent is missing if it is not here, and
    /// what it has no longer is lost. Refuses what contradicts itself or the subscriber.
    pub(crate) fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Nanos) -> Result<(), Mismatch> {
        if heartbeat.class != self.spec.class {
            return Err(Mismatch::Class { ours: self.spec.class, theirs: heartbeat.class });
        }
        if heartbeat.schema != self.spec.schema {
            return Err(Mismatch::Schema { ours: self.spec.schema, theirs: heartbeat.schema });
        }
        if self.epoch == Epoch::NONE {
            return Ok(());
        }
        let (first, last) = (heartbeat.first.get(), heartbeat.last.get());
        let before = first.checked_sub(1).filter(|before| *before <= last);
        if before.is_none_or(|before| before > self.known_lost().saturating_add(JUMP_MAX)) {
            reached(Branch::HeartbeatRefused);
            return Err(Mismatch::Range { first, last });
        }
        if planted(Fault::HeartbeatIgnored) {
            return Ok(());
        }
        if last > self.last.max(self.buffer.highest()) {
            reached(Branch::TailMissing);
        }
        self.acknowledging.heard();
        self.many = heartbeat.many;
        self.acknowledging.set_routine(!heartbeat.many);
        self.first = self.first.max(first);
        self.last = self.last.max(last);
        self.see_missing(now);
        if let Some(unresolved) = heartbeat.unresolved
            && let Some(decisions) = &mut self.decisions
        {
            reached(Branch::OutcomesAsked);
            decisions.asked(unresolved.get(), now);
        }
        Ok(())
    }

    /// The outcome of a command that [`Self::next`] gave in the present life: a code of the wire. The
    /// first decision stands; about anything but the last 1,024 commands it comes too late.
    pub(crate) fn decide(&mut self, sequence: Sequence, code: u8) {
        if let Some(decisions) = &mut self.decisions
            && !planted(Fault::OutcomeLost)
        {
            decisions.decide(sequence.get(), code);
        }
    }

    /// The next entry that is due; to be called until it gives `None`.
    pub(crate) fn report(&mut self, now: Nanos) -> Option<Entry> {
        if self.epoch == Epoch::NONE {
            return None;
        }
        if let Some(more) = self.more.take() {
            return Some(Entry::MoreHeld(more));
        }
        if let Some(outcomes) = self.outcomes() {
            self.acknowledging.ride_along(now);
            return Some(Entry::Outcomes(outcomes));
        }
        let asks = self.ask_at().is_some_and(|at| at <= now);
        if !asks && now < self.acknowledging.due_at() {
            return None;
        }
        let unlocked = self.open(now);
        let wanted = asks || unlocked;
        if asks {
            reached(Branch::HoleAskedFor);
        }
        let (floor, held) = (self.buffer.floor(), *self.buffer.held());
        let held = match wanted {
            true => self.holes.ask(floor, held, self.known_lost(), now),
            false => on_the_wire(held),
        };
        let (floor, held) = match planted(Fault::AcknowledgedUnheard) {
            true => (self.buffer.highest(), Held::NONE),
            false => (floor, held),
        };
        self.acknowledging.sent(now);
        if held.more() != [0; 3] {
            let (topic, epoch) = (self.spec.topic, self.epoch);
            let (floor, held) = (Sequence::new(floor), held.more());
            self.more = Some(MoreHeld { topic, epoch, floor, held, wanted });
        }
        // A request that shows nothing would ask for everything: the entry that follows asks.
        let wanted = wanted && (held.first() != 0 || self.more.is_none());
        let echo = self.echo.and_then(|echo| {
            let held_us = (now - echo.received_at).as_unsigned() / 1_000;
            Some((echo.sent_at_raw, u32::try_from(held_us).ok()?))
        });
        Some(Entry::Acknowledgement(Acknowledgement {
            topic: self.spec.topic,
            schema: self.spec.schema,
            class: self.spec.class,
            epoch: self.epoch,
            floor: Sequence::new(floor),
            held: held.first(),
            limit: Sequence::new(self.limit),
            wanted,
            // 0 on the wire is no echo.
            echo: echo.map(|(sent_at, _)| sent_at).filter(|sent_at| *sent_at != Nanos::ZERO),
            held_us: echo.map_or(0, |(_, held_us)| held_us),
        }))
    }

    /// What the writer measured, or the handshake: how soon asking again makes sense.
    pub(crate) fn set_round_trip(&mut self, round_trip: Nanos) {
        self.round_trip = round_trip.clamp(Nanos::ZERO, ROUND_TRIP_MAX);
        self.holes.set_round_trip(self.round_trip);
    }

    /// When [`Self::next`] or [`Self::report`] has something to say if nothing comes before; an
    /// instant in the past is "at once". What the subscriber has no room for is not waited for.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        if self.epoch == Epoch::NONE {
            return None;
        }
        let decided = self.decisions.as_ref().is_some_and(|decisions| decisions.are_due());
        let report = match decided || self.more.is_some() {
            true => Some(AT_ONCE),
            false => self.ask_at(),
        };
        let delivery = if self.free == 0 { None } else { self.delivery_at() };
        let others = report.into_iter().chain(delivery).min();
        Some(others.map_or(self.acknowledging.due_at(), |at| at.min(self.acknowledging.due_at())))
    }

    /// When the subscriber gets something.
    fn delivery_at(&self) -> Option<Nanos> {
        let (floor, held) = (self.buffer.floor(), *self.buffer.held());
        if held.get(0) || self.known_lost() > floor {
            return Some(AT_ONCE);
        }
        self.holes.given_up_at(floor, held, self.gap_timeout)
    }

    /// Everything up to here is done, or lost unless it is held.
    fn known_lost(&self) -> u64 {
        self.buffer.floor().max(self.first - 1)
    }

    /// The last of the messages after the floor that are given up now; the floor if none is.
    fn gap_end(&self, now: Nanos) -> u64 {
        let (floor, held) = (self.buffer.floor(), *self.buffer.held());
        let lost = self.known_lost().min(self.buffer.before_first().unwrap_or(u64::MAX));
        self.holes.given_up(floor, held, lost, self.gap_timeout, now)
    }

    /// Finds out what is missing. What a heartbeat named counts only while nothing is held, and only
    /// if the writer was allowed to send it: else it could not be asked for, or never was sent here.
    fn see_missing(&mut self, now: Nanos) {
        let floor = self.buffer.floor();
        let top = match self.buffer.held().is_empty() {
            true => self.last.min(self.reported_limit),
            false => self.buffer.highest(),
        };
        if self.holes.is_news(floor, top) {
            let mut ripe_at = now + self.spec.reorder;
            if self.many {
                ripe_at += self.random.up_to(self.round_trip);
            }
            self.holes.see(floor, top, now, ripe_at);
        }
    }

    /// Notes that the writer is being told the present limit. Says whether that unlocks messages
    /// that were sent to others meanwhile: they are not merely late, so they are wanted at once.
    fn open(&mut self, now: Nanos) -> bool {
        self.reported_limit = self.limit;
        let (floor, top) = (self.buffer.floor(), self.last.min(self.limit));
        let unlocked = self.buffer.held().is_empty() && self.holes.is_news(floor, top);
        if unlocked {
            self.holes.see(floor, top, now, now);
        }
        unlocked && top > self.known_lost()
    }

    fn ask_at(&self) -> Option<Nanos> {
        self.holes.ask_at(self.buffer.floor(), *self.buffer.held(), self.known_lost())
    }

    fn outcomes(&mut self) -> Option<Outcomes> {
        let (base, count, codes) = self.decisions.as_mut()?.take()?;
        reached(Branch::OutcomesReported);
        let (topic, epoch) = (self.spec.topic, self.epoch);
        Some(Outcomes { topic, epoch, base: Sequence::new(base), count, codes })
    }
}
