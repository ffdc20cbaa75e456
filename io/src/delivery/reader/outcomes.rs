//! What became of the last commands, until their sender knows it.
//!
//! Each report repeats the outcomes before those that are new, as far as it has room: at a kilohertz each is
//! said some thirty times, so that the loss of reports costs neither time nor questions.

use sinew_rt::clock::Nanos;

use crate::delivery::writer::COMMANDS_MAX;
use crate::wire::report::OUTCOMES_MAX;

/// Outcomes that are kept: as many as a writer waits for, so whatever it asks for is here.
const KEPT: u64 = COMMANDS_MAX;
/// The code of a command that was given up as part of a gap.
pub(super) const NEVER_ARRIVED: u8 = 3;
/// Answers to heartbeats: at most one in this time.
const ASKED_SPACING: Nanos = Nanos::from_millis(1);

#[derive(Debug)]
pub(super) struct Decisions {
    /// Commands at or below were done before this life was heard.
    start: u64,
    /// The newest command that was delivered or given up.
    newest: u64,
    /// By sequence modulo [`KEPT`]; 0: not decided.
    codes: [u8; KEPT as usize],
    /// By sequence modulo 256: decided, and to be sent.
    unsent: [bool; KEPT as usize],
    unsent_count: usize,
    answered_at: Nanos,
}

impl Decisions {
    pub(super) const fn new() -> Self {
        Self {
            start: 0,
            newest: 0,
            codes: [0; KEPT as usize],
            unsent: [false; KEPT as usize],
            unsent_count: 0,
            answered_at: Nanos::MIN,
        }
    }

    pub(super) const fn restart(&mut self, floor: u64) {
        *self = Self::new();
        self.start = floor;
        self.newest = floor;
    }

    pub(super) const fn are_due(&self) -> bool {
        self.unsent_count > 0
    }

    /// The command after the newest was delivered; its outcome is open.
    pub(super) fn delivered(&mut self, sequence: u64) {
        self.newest = sequence;
        self.set(sequence, 0);
    }

    /// The commands after the newest, up to `last`, were given up.
    pub(super) fn gap(&mut self, first: u64, last: u64) {
        self.newest = last;
        for sequence in first.max(last.saturating_sub(KEPT - 1))..=last {
            self.set(sequence, NEVER_ARRIVED);
        }
    }

    /// Decides a delivered command. The first decision stands: the sender may know it already.
    pub(super) fn decide(&mut self, sequence: u64, code: u8) {
        if self.kept().contains(&sequence) && self.codes[slot(sequence)] == 0 {
            self.set(sequence, code);
        }
    }

    /// The sender does not know the outcome of `unresolved` and perhaps of those after it.
    pub(super) fn asked(&mut self, unresolved: u64, now: Nanos) {
        if now < self.answered_at + ASKED_SPACING {
            return;
        }
        self.answered_at = now;
        let from = unresolved.max(*self.kept().start());
        for sequence in (from..=self.newest).take(OUTCOMES_MAX) {
            let code = self.codes[slot(sequence)];
            self.set(sequence, code);
        }
    }

    /// The first command of a report, with the codes from it on and their number: the lowest that is to
    /// be sent and those around it.
    pub(super) fn take(&mut self) -> Option<(u64, u8, [u8; OUTCOMES_MAX])> {
        if self.unsent_count == 0 {
            return None;
        }
        let lowest = self.kept().find(|sequence| self.unsent[slot(*sequence)])?;
        let room = (lowest..=self.newest).take(OUTCOMES_MAX);
        let highest = room.filter(|sequence| self.unsent[slot(*sequence)]).last()?;
        let before = highest.saturating_sub(OUTCOMES_MAX as u64 - 1);
        let base = before.max(*self.kept().start()).min(lowest);
        let mut codes = [0; OUTCOMES_MAX];
        let mut count = 0;
        for (sequence, (at, code)) in (base..=self.newest).zip((1..).zip(&mut codes)) {
            *code = self.codes[slot(sequence)];
            if *code != 0 {
                count = at;
                self.unsent_count -= usize::from(self.unsent[slot(sequence)]);
                self.unsent[slot(sequence)] = false;
            }
        }
        Some((base, count, codes))
    }

    fn kept(&self) -> std::ops::RangeInclusive<u64> {
        let oldest = self.newest.saturating_sub(KEPT - 1).max(self.start.saturating_add(1));
        oldest..=self.newest
    }

    fn set(&mut self, sequence: u64, code: u8) {
        let unsent = &mut self.unsent[slot(sequence)];
        self.unsent_count -= usize::from(*unsent);
        *unsent = code != 0;
        self.unsent_count += usize::from(*unsent);
        self.codes[slot(sequence)] = code;
    }
}

const fn slot(sequence: u64) -> usize {
    (sequence % KEPT) as usize
}
