//! The replay window of one stream: a floor, the highest sequence, and 1,024 bits below it.
//!
//! The idea is RFC 6479's (bits stay in place and are addressed modulo the window, so advancing
//! clears words instead of shifting all of them), without its spare word: the bits between the old
//! and the new highest are cleared exactly, so the window is 1,024 wide at every moment.

use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::Sequence;

/// Sequences below the highest that are still told apart.
pub const WINDOW: u64 = 1_024;
/// The farthest that one envelope may move the window: 49 days of a 1 kHz stream. A jump beyond it
/// cannot be an outage, and would use up the numbers of the stream; a new Hello says where it is.
pub const JUMP_MAX: u64 = 1 << 32;

const WORDS: usize = (WINDOW / 64) as usize;

/// What the window says of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never committed.
    Fresh,
    /// Committed before.
    Replay,
    /// At or below the floor, or more than [`WINDOW`] below the highest.
    BelowWindow,
    /// More than [`JUMP_MAX`] above the highest.
    TooFarAhead,
}

/// Which sequences of one stream were delivered.
#[derive(Clone, Debug)]
pub struct Window {
    floor: u64,
    highest: u64,
    bits: [u64; WORDS],
}

impl Window {
    /// A window in which everything before `next` is done and nothing from it on. (`next` of 0
    /// counts as 1: sequences start there.)
    #[must_use]
    pub const fn starting_at(next: Sequence) -> Self {
        let floor = next.get().saturating_sub(1);
        Self { floor, highest: floor, bits: [0; WORDS] }
    }

    /// The highest sequence committed, or the floor.
    #[must_use]
    pub const fn highest(&self) -> Sequence {
        Sequence::new(self.highest)
    }

    /// What committing `sequence` would say, without doing it: for the time before the signature is
    /// checked. Wait-free, a few nanoseconds.
    #[must_use]
    pub fn peek(&self, sequence: Sequence) -> Verdict {
        let sequence = sequence.get();
        if sequence <= self.floor {
            return Verdict::BelowWindow;
        }
        match sequence.checked_sub(self.highest) {
            Some(0) if !planted(Fault::WindowOffByOne) => Verdict::Replay,
            Some(ahead) if ahead > JUMP_MAX => Verdict::TooFarAhead,
            Some(_) => Verdict::Fresh,
            None if self.highest - sequence >= WINDOW => Verdict::BelowWindow,
            None if self.bits[word(sequence)] & bit(sequence) != 0 => Verdict::Replay,
            None => Verdict::Fresh,
        }
    }

    /// Notes `sequence` as done if it is [`Verdict::Fresh`], and says what it was. Only for
    /// sequences that were authenticated. Wait-free, at most 16 words are touched.
    pub fn commit(&mut self, sequence: Sequence) -> Verdict {
        let verdict = self.peek(sequence);
        if verdict == Verdict::Fresh {
            let sequence = sequence.get();
            if sequence > self.highest {
                self.clear_after(self.highest, sequence);
                self.highest = sequence;
            } else {
                reached(Branch::OutOfOrder);
            }
            self.bits[word(sequence)] |= bit(sequence);
        }
        verdict
    }

    /// Clears the bits of `old + 1 ..= new`, whose places may still hold bits of a window ago.
    fn clear_after(&mut self, old: u64, new: u64) {
        if new - old >= WINDOW {
            reached(Branch::WindowJumped);
            self.bits = [0; WORDS];
            return;
        }
        // Fewer than 1,024 bits, so at most 17 steps: first part of a word, whole words, last part.
        let mut next = old + 1;
        loop {
            let last = (next | 63).min(new);
            let ones = u64::MAX >> (63 - (last - next));
            self.bits[word(next)] &= !(ones << (next % 64));
            if last == new {
                return;
            }
            next = last + 1;
        }
    }
}

const fn word(sequence: u64) -> usize {
    (sequence % WINDOW / 64) as usize
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % 64)
}
