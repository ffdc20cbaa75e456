//! What a writer knows of one reader: what it has, what it asked for, and when it was last heard.

use super::commands::Bits;
use super::patience::Patience;
use super::ring::Ring;
use super::round_trip::RoundTrip;
use super::share::SlidingSecond;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::report::Acknowledgement;
use sinew_rt::clock::Nanos;

/// What a reader holds out of order, and the only messages worth sending it again: from its floor on.
pub(super) const REACH: u64 = 64;

/// What was asked for is repeated unasked for so many times the reader's patience since it was heard.
const REPEATS: i64 = 4;

/// One reader. Bitmaps count from `floor + 1`.
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
    pub(super) held: u64,
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
    named: u64,
    /// To be sent again as soon as the share allows.
    pub(super) asked: u64,
    /// Has had one of the two copies that a message gets from the second resending on.
    copied: u64,
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
            held: 0,
            limit: 0,
            incomplete: false,
            given_up: 0,
            lagging: false,
            patience: Patience::default(),
            named: 0,
            asked: 0,
            copied: 0,
            resent_at: [None; REACH as usize],
            repeat_at: None,
            trip: RoundTrip::default(),
            probe_at: None,
            probes: 0,
            heartbeat_at: Nanos::MAX,
            heartbeat_sent: Nanos::ZERO,
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
            Some(bit) => bit < REACH && self.held & (1 << bit) != 0,
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
            true => self.limit.min(self.floor.saturating_add(REACH)),
            false => self.limit,
        }
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
        self.held |= entry.held & !1;
        self.incomplete = self.held != 0 || entry.wanted;
        self.named &= !self.held;
        self.asked &= !self.held;
        Some(before != (self.floor, self.held))
    }

    /// Shifts everything that counts from the floor.
    fn move_floor(&mut self, floor: u64) {
        let moved = floor - self.floor;
        for sequence in self.floor..self.floor.saturating_add(moved.min(REACH)) {
            self.resent_at[place(sequence.saturating_add(1))] = None;
        }
        let shift = |bits: u64| u32::try_from(moved).ok().and_then(|by| bits.checked_shr(by));
        // What was held right above the new floor would have moved the floor.
        self.held = shift(self.held).unwrap_or(0) & !1;
        self.named = shift(self.named).unwrap_or(0);
        self.asked = shift(self.asked).unwrap_or(0);
        self.copied = shift(self.copied).unwrap_or(0);
        self.floor = floor;
    }

    /// Notes what an acknowledgement asks for.
    ///
    /// A hole below the highest held was waited for by the reader itself, so it is believed at once,
    /// unless it was sent again so lately that the reader cannot know yet. What lies beyond the
    /// highest held may be on its way; then its first sending must be old enough too. What was asked
    /// for once needs no further asking: that it is still missing is enough, so that a lost
    /// acknowledgement costs no round.
    pub(super) fn ask(&mut self, entry: &Acknowledgement, ring: &Ring, now: Nanos) {
        if planted(Fault::ResendNever) {
            return;
        }
        let spacing = self.trip.spacing();
        let sent = ring.last().saturating_sub(self.floor).min(REACH);
        let below = |count: u64| if count >= 64 { !0 } else { (1 << count) - 1 };
        let held = entry.held & !1;
        let (wanted, tail) = match (entry.wanted, held) {
            (false, _) => (0, false),
            (true, 0) => (below(sent), true),
            (true, _) => (below(63 - u64::from(held.leading_zeros())), false),
        };
        let mut open = (wanted | self.named) & !self.held & below(sent);
        while open != 0 {
            let bit = u64::from(open.trailing_zeros());
            open &= open - 1;
            let sequence = self.floor + 1 + bit;
            let first =
                || ring.retained_at(sequence).filter(|_| tail && sequence >= self.sent_from);
            let last_sending = self.resent_at[place(sequence)].or_else(first);
            if last_sending.is_none_or(|at| at + spacing <= now) {
                self.named |= 1 << bit;
                self.asked |= 1 << bit;
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
        let mut open = self.named & !self.asked;
        while open != 0 && !silent {
            let bit = u64::from(open.trailing_zeros());
            open &= open - 1;
            let Some(resent_at) = self.resent_at[place(self.floor + 1 + bit)] else { continue };
            let at = resent_at + patience;
            if at <= now {
                self.asked |= 1 << bit;
            } else {
                self.repeat_at = Some(self.repeat_at.map_or(at, |other| other.min(at)));
            }
        }
    }

    /// The lowest message that it asked for, from `first` on.
    pub(super) fn next_asked(&mut self, first: u64) -> Option<u64> {
        let gone = first.saturating_sub(self.floor.saturating_add(1)).min(REACH) as u32;
        let kept = u64::MAX.checked_shl(gone).unwrap_or(0);
        self.asked &= kept;
        self.named &= kept;
        (self.asked != 0).then(|| self.floor + 1 + u64::from(self.asked.trailing_zeros()))
    }

    /// Forgets that `sequence` was asked for.
    pub(super) fn withdraw(&mut self, sequence: u64) {
        if let Some(bit) = self.bit(sequence) {
            self.asked &= !bit;
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
        let Some(bit) = self.bit(sequence) else { return };
        let at = &mut self.resent_at[place(sequence)];
        if copies && at.is_some() && self.asked & !self.copied & bit != 0 {
            self.copied |= bit;
        } else {
            self.copied &= !bit;
            self.asked &= !bit;
        }
        *at = Some(now);
        let overdue = now + self.trip.patience();
        self.repeat_at = Some(self.repeat_at.map_or(overdue, |other| other.min(overdue)));
    }

    /// The place of `sequence` in the bitmaps.
    fn bit(&self, sequence: u64) -> Option<u64> {
        let beyond = sequence.checked_sub(self.floor)?;
        (1..=REACH).contains(&beyond).then(|| 1 << (beyond - 1))
    }
}

fn place(sequence: u64) -> usize {
    (sequence % REACH) as usize
}
