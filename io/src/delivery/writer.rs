//! The sending end of one reliable stream: what it keeps, who has it, and what to send again.
//!
//! Pure: it takes `now`, frames that are made in its ring and what readers report, and says which
//! frame or heartbeat goes to whom. Nothing allocates after [`Writer::new`]; a call takes time in
//! proportion to the readers, to 256 messages, or to the logarithm of the ring.
//!
//! A reader is *matched* from its first acknowledgement until it is silent for its lease. A matched
//! reader holds what it lacks in the ring until it has it, until the message expires, or until
//! `linger` has passed: then the reader is *lagging*, and neither its lacks nor its room bind the
//! publisher, until it reports a floor beyond what was given up.

mod commands;
mod events;
mod matched;
mod patience;
mod resend;
mod ring;
mod round_trip;
mod share;
#[cfg(test)]
mod tests;

pub(crate) use commands::WAITING_MAX as COMMANDS_MAX;
pub(crate) use events::{Mismatch, WriterEvent};

use crate::delivery::Outcome;
use crate::delivery::held::Held;
use crate::security::PeerIndex;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::report::{Acknowledgement, Heartbeat, MoreHeld, Outcomes};
use crate::wire::{Class, Epoch, SchemaId, Sequence, TopicId};
use commands::Commands;
use events::Events;
use matched::Reader;
use patience::Patience;
use ring::Ring;
use share::Share;
use sinew_rt::clock::Nanos;

/// The most slots of a retransmit ring.
pub(crate) const CAPACITY_MAX: usize = 1_024;
/// With more matched readers than this the writer sends nothing again unasked, and lets them acknowledge
/// rarely.
const PROBED_READERS_MAX: usize = 8;
/// How far behind the newest a lagging reader is taken up again: half of what every reader can hold
/// out of order, so that new messages still reach it while it catches up.
const TAKEN_UP_BEHIND: u64 = 32;

/// What a writer is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterSpec {
    /// The topic.
    pub(crate) topic: TopicId,
    /// The type of its messages.
    pub(crate) schema: SchemaId,
    /// Its class: `Command` or `Stream`.
    pub(crate) class: Class,
    /// Peers that can read it.
    pub(crate) readers: usize,
    /// Slots of the retransmit ring, 1 to [`CAPACITY_MAX`]; what lies outside is brought inside.
    pub(crate) capacity: usize,
    /// The length of the longest frame, at most [`FRAME_MAX`](crate::wire::FRAME_MAX).
    pub(crate) frame_len: usize,
    /// The age, from `sent_at`, at which a message is not sent any more.
    pub(crate) lifespan: Option<Nanos>,
    /// How long after its sending a message is kept for a reader that lacks it.
    pub(crate) linger: Nanos,
    /// For how long one reader may hold up the publisher while another could go on.
    pub(crate) patience: Nanos,
    /// The silence after which a reader is lost.
    pub(crate) lease: Nanos,
    /// Between two heartbeats to one reader.
    pub(crate) heartbeat: Nanos,
    /// Bytes sent again for each hundred bytes sent, over a sliding second; at least 64 KiB.
    pub(crate) resend_share_percent: u8,
}

/// The sending end of one reliable stream.
pub(crate) struct Writer {
    spec: WriterSpec,
    ring: Ring,
    readers: Box<[Reader]>,
    /// How many of them are matched.
    matched: usize,
    /// The reader to look at first when something can be sent again, so that each has its turn.
    turn: usize,
    share: Share,
    commands: Option<Commands>,
    events: Events,
    /// Nothing ends by itself before this.
    attend_at: Nanos,
    /// When a reader that holds up the others has to let go.
    held_until: Option<Nanos>,
    /// When the share may admit what it refused.
    blocked_until: Option<Nanos>,
    /// The latest `now` that a caller gave.
    now: Nanos,
    refused: u64,
}

impl Writer {
    /// A writer without readers. Allocates `capacity` × (`frame_len` + 24 B) and about 4.7 KB for each reader.
    pub(crate) fn new(spec: WriterSpec, now: Nanos) -> Self {
        Self {
            spec,
            ring: Ring::new(spec.capacity.clamp(1, CAPACITY_MAX), spec.frame_len),
            readers: vec![Reader::new(); spec.readers].into(),
            matched: 0,
            turn: 0,
            share: Share::new(spec.resend_share_percent),
            commands: (spec.class == Class::Command).then(Commands::new),
            events: Events::new(),
            attend_at: now,
            held_until: None,
            blocked_until: None,
            now,
            refused: 0,
        }
    }

    /// The sequence of the next message.
    pub(crate) fn next(&self) -> Sequence {
        Sequence::new(self.ring.next())
    }

    /// How many messages it keeps.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// The frame of `sequence`, while it is kept.
    pub(crate) fn frame(&self, sequence: Sequence) -> Option<&[u8]> {
        self.ring.frame(sequence.get())
    }

    /// For how long a message is worth sending, if that ends.
    pub(crate) fn lifespan(&self) -> Option<Nanos> {
        self.spec.lifespan
    }

    /// How many readers get new messages.
    pub(crate) fn matched(&self) -> usize {
        self.matched
    }

    /// Whether `peer` gets new messages.
    pub(crate) fn is_matched(&self, peer: PeerIndex) -> bool {
        self.readers.get(peer.get()).is_some_and(|reader| reader.matched)
    }

    /// Acknowledgements and outcomes that contradict what was sent, or are about another life.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Events that were not told, for want of room.
    pub(crate) fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    /// Whether the next message, which waits, may be sent; if not, the publisher would block. A reader
    /// that is silent makes it `false` for no longer than `linger`, or than its patience if another
    /// could go on.
    pub(crate) fn room(&mut self, now: Nanos) -> bool {
        self.attend(now);
        let next = self.ring.next();
        if next == u64::MAX {
            return false;
        }
        let overwritten = self.ring.overwritten_next().filter(|old| !self.is_expired(*old, now));
        let binds = |reader: &Reader| {
            let over_its_room = next > reader.limit() && !planted(Fault::LimitIgnored);
            let holds = |old: u64| old >= reader.lacks() && !reader.has(old);
            let held = overwritten.is_some_and(holds) && !planted(Fault::RingOverwritten);
            if over_its_room {
                reached(Branch::WriterWithoutRoom);
            }
            if held {
                reached(Branch::WriterRingHeld);
            }
            over_its_room || held
        };
        if self.is_held_up(binds, now) {
            return false;
        }
        // As many commands as can wait for a word do; each of them gets one, or its time is over.
        let full = self.commands_are_full();
        if full {
            reached(Branch::CommandsFull);
        }
        !full
    }

    /// Whether readers that bind hold the publisher up. All together they do; one of several only as
    /// long as its patience lasts, and then it is lagging.
    fn is_held_up(&mut self, binds: impl Fn(&Reader) -> bool, now: Nanos) -> bool {
        self.held_until = None;
        let waits = planted(Fault::LaggingReaderHoldsRing);
        let waited_for = |reader: &Reader| reader.matched && (waits || !reader.lagging);
        let others = self.readers.iter().any(|reader| waited_for(reader) && !binds(reader));
        let mut held_up = false;
        for reader in self.readers.iter_mut().filter(|reader| waited_for(reader)) {
            if !binds(reader) {
                reader.patience.lets_go(now);
            } else if !others {
                held_up = true;
            } else if reader.patience.holds(self.spec.patience, now) || waits {
                held_up = true;
                self.held_until =
                    [self.held_until, reader.patience.until()].into_iter().flatten().min();
            } else {
                reached(Branch::PatienceSpent);
                reader.patience.lets_go(now);
                reader.lagging = true;
                reader.heartbeat_at = reader.heartbeat_at.min(now);
            }
        }
        held_up
    }

    /// Where the frame of the sequence [`Writer::next`] is made: as many bytes as the spec says that a
    /// frame has at most. Call it only after [`Writer::room`], and then [`Writer::retain`]: the oldest frame
    /// may be gone.
    pub(crate) fn room_for_next(&mut self) -> &mut [u8] {
        self.ring.room_for_next()
    }

    /// Keeps the finished frame of the sequence [`Writer::next`], the first `len` bytes of
    /// [`Writer::room_for_next`], which the caller sends to all matched readers now.
    pub(crate) fn retain(&mut self, now: Nanos, sent_at: Nanos, len: usize) {
        self.attend(now);
        let sequence = self.ring.next();
        self.ring.push(now, sent_at, len);
        self.share.sent(len as u64 * self.matched as u64, now);
        self.attend_by(now + self.spec.linger);
        if let Some(commands) = &mut self.commands {
            let begun = now.min(sent_at);
            let deadline = begun + self.spec.lifespan.unwrap_or(Nanos::ZERO) + self.spec.linger;
            if let Some((sequence, outcome)) = commands.sent(deadline) {
                let sequence = Sequence::new(sequence);
                self.events.push(WriterEvent::Resolved { sequence, outcome });
            }
            self.attend_by(deadline);
        }
        let probed = self.matched <= PROBED_READERS_MAX;
        for reader in &mut self.readers {
            reader.denied.clear(sequence);
            if reader.matched {
                reader.probe_at = probed.then(|| now + reader.trip.timeout(reader.probes));
                let regular = reader.heartbeat_sent + self.spec.heartbeat;
                let after_the_last = (now + self.spec.heartbeat / 8).min(regular);
                reader.heartbeat_at = match reader.has_news {
                    true => reader.heartbeat_at.min(after_the_last),
                    false => after_the_last,
                };
            }
        }
    }

    /// Uses up the sequence [`Writer::next`] for a message that outlived its lifespan before there was
    /// [`Writer::room`] for it: it is never sent, and readers get a gap in its place.
    pub(crate) fn outlive(&mut self, now: Nanos, sent_at: Nanos) {
        let sequence = self.ring.next();
        self.retain(now, sent_at, 0);
        if let Some(commands) = &mut self.commands {
            commands.decide(sequence, Outcome::Expired);
        }
        for reader in self.readers.iter_mut().filter(|reader| reader.matched) {
            // At the moment nothing waits for it.
            reader.patience.lets_go(now);
            reader.pass_unsent(&self.ring);
            if !reader.lagging {
                reader.tell_soon(now, self.spec.heartbeat);
            }
        }
    }

    /// Whether readers owe a word about as many commands as can wait for one.
    pub(crate) fn commands_are_full(&self) -> bool {
        self.matched > 0 && self.commands.as_ref().is_some_and(Commands::is_full)
    }

    /// Takes what a reader says it has. `own_epoch` is this node's life; entries about another one,
    /// or that claim what was never sent, are counted and change nothing.
    pub(crate) fn acknowledge(
        &mut self,
        peer: PeerIndex,
        own_epoch: Epoch,
        entry: &Acknowledgement,
        now: Nanos,
    ) -> Result<(), Mismatch> {
        self.attend(now);
        let Some(reader) = self.readers.get_mut(peer.get()) else { return Ok(()) };
        let of_this_life = entry.epoch == own_epoch || planted(Fault::AcknowledgementOfAnyLife);
        if entry.topic != self.spec.topic || !of_this_life {
            reached(Branch::AcknowledgementOfOldLife);
            self.refused += 1;
            return Ok(());
        }
        if entry.schema != self.spec.schema || entry.class != self.spec.class {
            let mismatch = Mismatch {
                peer,
                topic: self.spec.topic,
                our_schema: self.spec.schema,
                their_schema: entry.schema,
                our_class: self.spec.class,
                their_class: entry.class,
            };
            if !std::mem::replace(&mut reader.mismatch_told, true) {
                reached(Branch::ReaderMismatched);
                self.events.push(WriterEvent::Mismatch(mismatch));
            }
            return Err(mismatch);
        }
        let held = Held::from_wire(entry.held, [0; 3]);
        if !claims_only_what_was_sent(entry.floor, held, self.ring.last()) {
            reached(Branch::AcknowledgementOverclaims);
            self.refused += 1;
            return Ok(());
        }
        let floor = entry.floor.get();
        if !reader.matched {
            reader.join(floor, self.ring.next(), now);
            reader.patience = Patience::full(self.spec.patience, now);
            self.matched += 1;
            reached(Branch::ReaderMatched);
            // What left the ring before it came is lost to it, and it holds up nobody with that.
            let oldest = self.ring.oldest();
            if reader.lacks() < oldest {
                let (first, last) = (Sequence::new(reader.lacks()), Sequence::new(oldest - 1));
                reader.given_up = oldest - 1;
                self.events.push(WriterEvent::Lagging { peer, first, last });
            }
        }
        self.blocked_until = None;
        reader.heard_at = now;
        if let Some(news) = reader.take(entry) {
            let held_back = Nanos::from_micros(i64::from(entry.held_us));
            if let Some(sent) = entry.echo.and_then(|echo| self.ring.echoed(echo)) {
                reader.trip.sample(now - sent, held_back);
            }
            if news {
                reader.trip.held_back(held_back);
            }
            reader.ask(entry.wanted, held, &self.ring, now);
            reader.probes = 0;
            let complete = reader.has(self.ring.last());
            reader.probe_at = (!complete && self.matched <= PROBED_READERS_MAX)
                .then(|| now + reader.trip.timeout(0));
            if floor >= reader.given_up && floor.saturating_add(1) >= self.ring.oldest() {
                if reader.lagging {
                    reached(Branch::ReaderCaughtUp);
                }
                reader.lagging = false;
                reader.pass_unsent(&self.ring);
            }
        }
        self.attend_by(now + self.spec.lease.min(self.spec.linger));
        Ok(())
    }

    /// Takes what the acknowledgement before it had no room for. Of a floor that was not heard of it
    /// tells nothing that could be placed, so it changes nothing: the reader says it again. When the
    /// floor has grown since, it is as true as it was.
    pub(crate) fn more_held(
        &mut self,
        peer: PeerIndex,
        own_epoch: Epoch,
        entry: &MoreHeld,
        now: Nanos,
    ) {
        self.attend(now);
        let of_this_life = entry.epoch == own_epoch || planted(Fault::AcknowledgementOfAnyLife);
        let held = Held::from_wire(0, entry.held);
        if entry.topic != self.spec.topic
            || !of_this_life
            || !claims_only_what_was_sent(entry.floor, held, self.ring.last())
        {
            self.refused += 1;
            return;
        }
        let Some(reader) = self.readers.get_mut(peer.get()) else { return };
        if reader.matched && reader.take_more(entry.floor.get(), held) {
            self.blocked_until = None;
            let held = held.fallen(reader.floor - entry.floor.get());
            reader.ask(entry.wanted, held, &self.ring, now);
        }
    }

    /// Takes what a matched reader says became of commands. Words about commands that do not wait,
    /// codes without a meaning and entries about another life change nothing.
    pub(crate) fn outcomes(
        &mut self,
        peer: PeerIndex,
        own_epoch: Epoch,
        entry: &Outcomes,
        now: Nanos,
    ) {
        self.attend(now);
        if entry.topic != self.spec.topic || entry.epoch != own_epoch || !self.is_matched(peer) {
            self.refused += 1;
            return;
        }
        let Some(commands) = &mut self.commands else { return };
        for (n, code) in entry.codes.iter().take(usize::from(entry.count)).enumerate() {
            let Some(sequence) = entry.base.get().checked_add(n as u64) else { return };
            let Some(outcome) = Outcome::from_code(*code) else { continue };
            if !commands.is_waiting(sequence) {
                continue;
            }
            if outcome.is_decided_by_application() {
                commands.decide(sequence, outcome);
                continue;
            }
            self.readers[peer.get()].denied.set(sequence);
            let may_execute = |reader: &Reader| {
                reader.matched && reader.joined < sequence && !reader.denied.get(sequence)
            };
            if !self.readers.iter().any(may_execute) {
                commands.decide(sequence, outcome);
            }
        }
    }

    /// The peer began a new life: it is unmatched until it acknowledges again.
    pub(crate) fn reader_restarted(&mut self, peer: PeerIndex) {
        if !planted(Fault::RestartedReaderKept) {
            self.unmatch(peer.get());
        }
    }

    /// The next heartbeat that is due, and to whom.
    pub(crate) fn heartbeat(&mut self, now: Nanos) -> Option<(PeerIndex, Heartbeat)> {
        self.attend(now);
        let due = |reader: &Reader| reader.matched && reader.heartbeat_at <= now;
        let place = self.readers.iter().position(due)?;
        let peer = PeerIndex::new(u16::try_from(place).ok()?);
        let last = self.ring.last();
        if self.readers[place].lagging {
            // It moves on only with a heartbeat that says so: a reader that chased a moving range
            // would never catch up.
            self.give_up(place, last.saturating_sub(TAKEN_UP_BEHIND));
        }
        let first = self.first_for(place, now);
        let reader = &mut self.readers[place];
        reader.heartbeat_sent = now;
        reader.has_news = false;
        reader.heartbeat_at = now + self.spec.heartbeat.max(Nanos::new(1));
        let unresolved = self.commands.as_ref().and_then(Commands::first_waiting);
        let heartbeat = Heartbeat {
            topic: self.spec.topic,
            schema: self.spec.schema,
            class: self.spec.class,
            first: Sequence::new(first),
            last: Sequence::new(last),
            unresolved: unresolved.map(Sequence::new),
            many: self.matched > PROBED_READERS_MAX,
        };
        Some((peer, heartbeat))
    }

    /// The next thing that the publisher should know; the outcome of a command exactly once.
    pub(crate) fn event(&mut self) -> Option<WriterEvent> {
        self.events.pop().or_else(|| {
            let (sequence, outcome) = self.commands.as_mut()?.tell()?;
            Some(WriterEvent::Resolved { sequence: Sequence::new(sequence), outcome })
        })
    }

    /// When something becomes due without any further input; in the past when it is due.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let mut next = self.held_until.unwrap_or(Nanos::MAX);
        for reader in self.readers.iter().filter(|reader| reader.matched) {
            next = next.min(reader.heartbeat_at);
            let resend = match reader.asked.is_empty() {
                true => [reader.probe_at, reader.repeat_at].into_iter().flatten().min(),
                false => Some(self.now),
            };
            if let Some(resend) = resend {
                next = next.min(self.blocked_until.map_or(resend, |until| resend.max(until)));
            }
        }
        let waiting = self.commands.as_ref().is_some_and(|all| all.first_waiting().is_some());
        if self.matched > 0 || waiting {
            next = next.min(self.attend_at);
        }
        (next < Nanos::MAX).then_some(next)
    }

    /// Ends what has ended: leases, lingering, the wait for a word on commands.
    fn attend(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        self.held_until = self.held_until.filter(|until| *until > now);
        if now < self.attend_at {
            return;
        }
        let lingered = self.ring.retained_until(now - self.spec.linger);
        let mut next = Nanos::MAX;
        for place in 0..self.readers.len() {
            let reader = &mut self.readers[place];
            if !reader.matched {
                continue;
            }
            if reader.heard_at + self.spec.lease <= now {
                self.unmatch(place);
                continue;
            }
            // It may have got what it lacked before that since.
            reader.pass_unsent(&self.ring);
            // To a reader that came late everything counts as sent when it came.
            let since = reader.matched_at;
            if since + self.spec.linger <= now {
                self.give_up(place, lingered);
            }
            let reader = &self.readers[place];
            next = next.min(reader.heard_at + self.spec.lease);
            if let Some(sent) = self.ring.retained_at(reader.lacks().max(self.ring.oldest())) {
                next = next.min(sent.max(since) + self.spec.linger);
            }
        }
        if let Some(commands) = &mut self.commands {
            commands.expire(now);
            next = next.min(commands.next_deadline().unwrap_or(Nanos::MAX));
        }
        self.attend_at = next;
    }

    fn attend_by(&mut self, at: Nanos) {
        self.attend_at = self.attend_at.min(at);
    }

    /// What a reader lacks up to `until` is not sent to it any more.
    fn give_up(&mut self, place: usize, until: u64) {
        let reader = &mut self.readers[place];
        let first = reader.lacks();
        if until < first {
            return;
        }
        reader.given_up = until;
        reader.tell_soon(self.now, self.spec.heartbeat);
        reader.lagging = true;
        reached(Branch::ReaderLagging);
        let peer = PeerIndex::new(place as u16);
        let (first, last) = (Sequence::new(first), Sequence::new(until));
        self.events.push(WriterEvent::Lagging { peer, first, last });
    }

    fn unmatch(&mut self, place: usize) {
        let Some(reader) = self.readers.get_mut(place).filter(|reader| reader.matched) else {
            return;
        };
        reader.matched = false;
        reader.asked = Held::NONE;
        reader.probe_at = None;
        self.matched -= 1;
        reached(Branch::ReaderLost);
        if let Some(commands) = &mut self.commands {
            commands.doubt_all();
            if self.matched == 0 {
                commands.give_up_all();
            }
        }
    }

    /// The lowest sequence that can still be sent again to this reader; `last + 1`: none.
    fn first_for(&self, place: usize, now: Nanos) -> u64 {
        let lifespan = self.spec.lifespan.filter(|_| !planted(Fault::ResendAfterExpiry));
        let expired = lifespan.map_or(0, |lifespan| self.ring.sent_until(now - lifespan));
        let given_up = self.readers[place].given_up.max(expired).saturating_add(1);
        given_up.max(self.ring.oldest()).min(self.ring.next())
    }

    fn is_expired(&self, sequence: u64, now: Nanos) -> bool {
        let age = self.ring.sent_at(sequence).map(|sent_at| now - sent_at);
        let lifespan = self.spec.lifespan.filter(|_| !planted(Fault::ResendAfterExpiry));
        matches!((age, lifespan), (Some(age), Some(lifespan)) if age >= lifespan)
    }
}

/// No honest reader is done with, or holds, what was never sent.
fn claims_only_what_was_sent(floor: Sequence, held: Held, last: u64) -> bool {
    // Place `n` is `floor + 1 + n`: there are as many as were sent beyond the floor.
    last.checked_sub(floor.get()).is_some_and(|beyond| held.end() <= beyond)
}
