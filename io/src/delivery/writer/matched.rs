//! What a writer knows of one reader: what it has, what it asked for, and when it was last heard.

use super::commands::Bits;
use super::patience::Patience;
use super::ring::Ring;
use super::round_trip::RoundTrip;
use super::share::SlidingSecond;
use crate::delivery::held::Held;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::report::Acknowledgement;
use sinew_rt::clock::Nanos;

/// The most that a reader holds out of order, and the only messages worth sending it again: from its
/// floor on. What it holds indeed it tells by its limit.
pub(super) const REACH: u64 = Held::PLACES;

/// What was asked for is repeated unasked for so many times the reader's patience since it was heard.
const REPEATS: i64 = 4;

/// One reader. Places count from `floor + 1`.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) matched: bool,
    pub(super) mismatch_told: bool,
    pub(super) matched_at: Nanos,
    pub(super) heard_at: Nanos,
    /// The floor with which it matched: it never gets, nor speaks of, what lies before.
    pub(super) joined: u64,
    /// New messages went to it from here on.
    sent_from: u64,
    pub(super) floor: u64,
    pub(super) held: Held,
    /// The highest sequence for which it ever had room.
    limit: u64,
    /// It said that something is missing.
    incomplete: bool,
    /// This and everything before it is not sent to it again.
    pub(super) given_up: u64,
    pub(super) lagging: bool,
    /// How long it may hold up the others.
    pub(super) patience: Patience,
    /// Asked for at least once: any later acknowledgement that still lacks it asks again.
    named: Held,
    /// To be sent again as soon as the share allows.
    pub(super) asked: Held,
    /// Has had one of the two copies that a message gets from the second resending on.
    copied: Held,
    /// When each of the [`REACH`] messages beyond the floor was last sent again.
    resent_at: [Option<Nanos>; REACH as usize],
    /// When the next of those that were sent again may have to be repeated.
    pub(super) repeat_at: Option<Nanos>,
    pub(super) trip: RoundTrip,
    /// When the last message is sent again unasked.
    pub(super) probe_at: Option<Nanos>,
    pub(super) probes: u32,
    pub(super) heartbeat_at: Nanos,
    pub(super) heartbeat_sent: Nanos,
    /// Since then less can be sent again to it than it knows.
    pub(super) has_news: bool,
    pub(super) resent: SlidingSecond,
    /// Commands that it says it will not execute.
    pub(super) denied: Bits,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            matched: false,
            mismatch_told: false,
            matched_at: Nanos::ZERO,
            heard_at: Nanos::ZERO,
            joined: 0,
            sent_from: 0,
            floor: 0,
            held: Held::NONE,
            limit: 0,
            incomplete: false,
            given_up: 0,
            lagging: false,
            patience: Patience::default(),
            named: Held::NONE,
            asked: Held::NONE,
            copied: Held::NONE,
            resent_at: [None; REACH as usize],
            repeat_at: None,
            trip: RoundTrip::default(),
            probe_at: None,
            probes: 0,
            heartbeat_at: Nanos::MAX,
            heartbeat_sent: Nanos::ZERO,
            has_news: false,
            resent: SlidingSecond::new(),
            denied: Bits::default(),
        }
    }

    /// Begins with what its first acknowledgement says. What was sent again to it in the past second
    /// still counts: else a reader that comes and goes would have a share each time.
    pub(super) fn join(&mut self, floor: u64, next: u64, now: Nanos) {
        let resent = self.resent.clone();
        *self = Self {
            matched: true,
            matched_at: now,
            heard_at: now,
            joined: floor,
            sent_from: next,
            floor,
            given_up: floor,
            heartbeat_at: now,
            heartbeat_sent: now,
            resent,
            ..Self::new()
        };
    }

    /// Whether the reader has `sequence` or is done with it.
    pub(super) fn has(&self, sequence: u64) -> bool {
        match sequence.checked_sub(self.floor.saturating_add(1)) {
            None => true,
            Some(place) => self.held.get(place),
        }
    }

    /// The lowest message that it lacks and may still get.
    pub(super) fn lacks(&self) -> u64 {
        self.floor.max(self.given_up).saturating_add(1)
    }

    /// The highest sequence that may be sent as new. While something is missing no further than the
    /// reader can hold out of order: the rest would be sent in vain.
    pub(super) fn limit(&self) -> u64 {
        match self.incomplete {
            true => self.reach(),
            false => self.limit,
        }
    }

    /// The highest sequence that it can hold.
    pub(super) fn reach(&self) -> u64 {
        self.limit.min(self.floor.saturating_add(REACH))
    }

    /// Takes what an acknowledgement says, which does not reach beyond what was sent. Says whether it
    /// covers anything new; `None` for one that a later one has overtaken.
    pub(super) fn take(&mut self, entry: &Acknowledgement) -> Option<bool> {
        let floor = entry.floor.get();
        // Room only ever grows: a lower limit is an older one.
        self.limit = self.limit.max(entry.limit.get());
        if floor < self.floor {
            reached(Branch::AcknowledgementOvertaken);
            return None;
        }
        let before = (self.floor, self.held);
        self.move_floor(floor);
        self.hold(Held::from_wire(entry.held, [0; 3]));
        self.incomplete = !self.held.is_empty() || entry.wanted;
        Some(before != (self.floor, self.held))
    }

    /// Takes what lies beyond the first 64 of `floor`; `false` if that floor was not heard of.
    pub(super) fn take_more(&mut self, floor: u64, held: Held) -> bool {
        let Some(moved) = self.floor.checked_sub(floor) else { return false };
        self.hold(held.fallen(moved));
        self.incomplete |= !self.held.is_empty();
        true
    }

    fn hold(&mut self, held: Held) {
        self.held = self.held | held;
        // What is held right above the floor would have moved it, if there was room for it.
        self.held.clear(0);
        self.named = self.named & !self.held;
        self.asked = self.asked & !self.held;
    }

    /// Shifts everything that counts from the floor.
    fn move_floor(&mut self, floor: u64) {
        let moved = floor - self.floor;
        for sequence in self.floor..self.floor.saturating_add(moved.min(REACH)) {
            self.resent_at[slot(sequence.saturating_add(1))] = None;
        }
        self.held = self.held.fallen(moved);
        self.named = self.named.fallen(moved);
        self.asked = self.asked.fallen(moved);
        self.copied = self.copied.fallen(moved);
        self.floor = floor;
    }

    /// Notes what an acknowledgement asks for that says that `held` is there.
    ///
    /// A hole below the highest held was waited for by the reader itself, so it is believed at once,
    /// unless it was sent again so lately that the reader cannot know yet. What lies beyond the
    /// highest held may be on its way; then its first sending must be old enough too. What was asked
    /// for once needs no further asking: that it is still missing is enough, so that a lost
    /// acknowledgement costs no round.
    pub(super) fn ask(&mut self, wanted: bool, held: Held, ring: &Ring, now: Nanos) {
        if planted(Fault::ResendNever) {
            return;
        }
        let spacing = self.trip.spacing();
        let sent = Held::below(ring.last().saturating_sub(self.floor));
        let (wanted, tail) = match held.highest() {
            _ if !wanted => (Held::NONE, false),
            // No more than it can hold: it would throw the rest away.
            None => (Held::below(self.reach().saturating_sub(self.floor)), true),
            Some(highest) => (Held::below(highest), false),
        };
        for place in ((wanted | self.named) & sent & !self.held).places() {
            let sequence = self.floor + 1 + place;
            let first =
                || ring.retained_at(sequence).filter(|_| tail && sequence >= self.sent_from);
            let last_sending = self.resent_at[slot(sequence)].or_else(first);
            if last_sending.is_none_or(|at| at + spacing <= now) {
                self.named.set(place);
                self.asked.set(place);
            }
        }
    }

    /// Asks in the reader's place for what was sent again and should have been acknowledged by now:
    /// the resending or the acknowledgement was lost, and either costs less than a round more. Not
    /// for a reader that has become silent; that one must ask by itself.
    pub(super) fn repeat(&mut self, now: Nanos) {
        if self.repeat_at.is_none_or(|at| at > now) {
            return;
        }
        self.repeat_at = None;
        let patience = self.trip.patience();
        let silent = self.heard_at + patience * REPEATS <= now;
        if silent {
            return;
        }
        for place in (self.named & !self.asked).places() {
            let Some(resent_at) = self.resent_at[slot(self.floor + 1 + place)] else { continue };
            let at = resent_at + patience;
            if at <= now {
                self.asked.set(place);
            } else {
                self.repeat_at = Some(self.repeat_at.map_or(at, |other| other.min(at)));
            }
        }
    }

    /// What was never sent is not lacked: what outlived its lifespan makes no reader late. A lagging one
    /// gets there by heartbeats: it would never catch up with a number that moves on by itself.
    pub(super) fn pass_unsent(&mut self, ring: &Ring) {
        let unsent = ring.last_sent() + 1..=ring.last();
        if !self.lagging && unsent.contains(&self.lacks()) {
            self.given_up = ring.last();
        }
    }

    /// It should hear soon of what will not come any more, but not of each message that goes by; one that
    /// lags already no sooner than when nothing else is sent, for each heartbeat gives up more.
    pub(super) fn tell_soon(&mut self, now: Nanos, heartbeat: Nanos) {
        let soon = now.max(self.heartbeat_sent + heartbeat / 8);
        self.heartbeat_at = self.heartbeat_at.min(soon);
        self.has_news |= !self.lagging;
    }

    /// Whether it asks for something before `first`.
    pub(super) fn asks_in_vain(&self, first: u64) -> bool {
        !(self.asked & self.before(first)).is_empty()
    }

    /// The places of what lies before `first`.
    fn before(&self, first: u64) -> Held {
        Held::below(first.saturating_sub(self.floor.saturating_add(1)))
    }

    /// The lowest message that it asked for, from `first` on.
    pub(super) fn next_asked(&mut self, first: u64) -> Option<u64> {
        let gone = self.before(first);
        self.asked = self.asked & !gone;
        self.named = self.named & !gone;
        self.asked.lowest().map(|place| self.floor + 1 + place)
    }

    /// Whether `sequence` was never sent to this reader, which came later.
    pub(super) fn is_first(&self, sequence: u64) -> bool {
        sequence < self.sent_from && self.resent_at[slot(sequence)].is_none()
    }

    /// Forgets that `sequence` was asked for.
    pub(super) fn withdraw(&mut self, sequence: u64) {
        if let Some(place) = self.place(sequence) {
            self.asked.clear(place);
        }
    }

    /// Notes that `sequence` was sent again.
    ///
    /// From the second time on it goes twice, since every round that fails is felt by all that wait
    /// behind it: with a fifth lost, all but one in a hundred are there after two rounds instead of
    /// three, for a tenth more bytes. `copies` says whether the share is so little used that it can
    /// bear that.
    pub(super) fn resent(&mut self, sequence: u64, bytes: u64, copies: bool, now: Nanos) {
        self.resent.add(bytes, now);
        let Some(place) = self.place(sequence) else { return };
        let at = &mut self.resent_at[slot(sequence)];
        if copies && at.is_some() && self.asked.get(place) && !self.copied.get(place) {
            self.copied.set(place);
        } else {
            self.copied.clear(place);
            self.asked.clear(place);
        }
        *at = Some(now);
        let overdue = now + self.trip.patience();
        self.repeat_at = Some(self.repeat_at.map_or(overdue, |other| other.min(overdue)));
    }

    /// The place of `sequence` beyond the floor.
    fn place(&self, sequence: u64) -> Option<u64> {
        let beyond = sequence.checked_sub(self.floor)?;
        (1..=REACH).contains(&beyond).then(|| beyond - 1)
    }
}

fn slot(sequence: u64) -> usize {
    (sequence % REACH) as usize
}
