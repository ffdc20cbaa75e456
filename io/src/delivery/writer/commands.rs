//! Which commands still wait for a word on what became of them.
//!
//! A command is decided by the first reader whose application accepts or rejects it. That it expired
//! or never arrived is believed only when every reader that it went to says so (one that was lost may
//! have executed it), or when it was never sent. Everything else is [`Outcome::Unknown`] in the end.

use crate::delivery::Outcome;
use crate::simulation::{Branch, Fault, planted, reached};
use sinew_rt::clock::Nanos;

/// Commands that can wait for a word at once.
pub(crate) const WAITING_MAX: u64 = 1_024;

const WORDS: usize = (WAITING_MAX / 64) as usize;

/// One bit for each of the last [`WAITING_MAX`] sequences.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    fn word_and_bit(sequence: u64) -> (usize, u64) {
        let place = sequence % WAITING_MAX;
        ((place / 64) as usize, 1 << (place % 64))
    }

    pub(super) fn get(&self, sequence: u64) -> bool {
        let (word, bit) = Self::word_and_bit(sequence);
        self.0[word] & bit != 0
    }

    pub(super) fn set(&mut self, sequence: u64) {
        let (word, bit) = Self::word_and_bit(sequence);
        self.0[word] |= bit;
    }

    pub(super) fn clear(&mut self, sequence: u64) {
        let (word, bit) = Self::word_and_bit(sequence);
        self.0[word] &= !bit;
    }

    fn add(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word |= other;
        }
    }

    /// The first sequence from `from` to `from + WAITING_MAX - 1` whose bit is set.
    fn first_from(&self, from: u64) -> Option<u64> {
        let start = from % WAITING_MAX;
        let (first_word, within) = ((start / 64) as usize, start % 64);
        for step in 0..=WORDS {
            let mask = match step {
                0 => !0 << within,
                // Round once: what lies before `from` in the word that the search began with.
                WORDS => !(!0 << within),
                _ => !0,
            };
            let word = (first_word + step) % WORDS;
            let found = self.0[word] & mask;
            if found != 0 {
                let place = word as u64 * 64 + u64::from(found.trailing_zeros());
                return Some(from + (place + WAITING_MAX - start) % WAITING_MAX);
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Nanos,
    outcome: Outcome,
}

/// The last [`WAITING_MAX`] commands.
#[derive(Debug)]
pub(super) struct Commands {
    entries: Box<[Entry]>,
    next: u64,
    /// No word yet.
    waiting: Bits,
    /// Decided, and the publisher was not told yet.
    decided: Bits,
    /// A reader that may have executed it will not speak of it any more.
    doubtful: Bits,
}

impl Commands {
    /// Allocates 16 KiB.
    pub(super) fn new() -> Self {
        let entry = Entry { deadline: Nanos::MAX, outcome: Outcome::Unknown };
        Self {
            entries: vec![entry; WAITING_MAX as usize].into(),
            next: 1,
            waiting: Bits::default(),
            decided: Bits::default(),
            doubtful: Bits::default(),
        }
    }

    /// Whether the place of the next command is taken by one that still waits.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.get(self.next)
    }

    /// Notes the next command. Gives back the one whose place it takes, if the publisher was not
    /// told of that yet.
    pub(super) fn sent(&mut self, deadline: Nanos) -> Option<(u64, Outcome)> {
        let sequence = self.next;
        let untold = self.waiting.get(sequence) || self.decided.get(sequence);
        let at = (sequence % WAITING_MAX) as usize;
        let old = self.entries[at].outcome;
        let deadline = if planted(Fault::UnresolvedForever) { Nanos::MAX } else { deadline };
        self.entries[at] = Entry { deadline, outcome: Outcome::Unknown };
        self.waiting.set(sequence);
        self.decided.clear(sequence);
        self.doubtful.clear(sequence);
        self.next = sequence.saturating_add(1);
        let before = sequence.checked_sub(WAITING_MAX)?;
        untold.then_some((before, old))
    }

    /// Whether `sequence` was sent and still waits.
    pub(super) fn is_waiting(&self, sequence: u64) -> bool {
        (self.oldest()..self.next).contains(&sequence) && self.waiting.get(sequence)
    }

    /// The lowest command that still waits.
    pub(super) fn first_waiting(&self) -> Option<u64> {
        self.waiting.first_from(self.oldest())
    }

    /// When that one is given up.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.first_waiting().map(|sequence| self.entry(sequence).deadline)
    }

    /// Ends the wait for `sequence`. "Expired" and "never arrived" of a doubtful one are not known.
    pub(super) fn decide(&mut self, sequence: u64, outcome: Outcome) {
        if !self.is_waiting(sequence) {
            return;
        }
        let doubt = self.doubtful.get(sequence) && !outcome.is_decided_by_application();
        if doubt {
            reached(Branch::OutcomeDoubted);
        }
        if outcome == Outcome::Unknown {
            reached(Branch::OutcomeUnknown);
        }
        let at = (sequence % WAITING_MAX) as usize;
        self.entries[at].outcome = if doubt { Outcome::Unknown } else { outcome };
        self.waiting.clear(sequence);
        self.decided.set(sequence);
    }

    /// A reader that may have executed what waits is gone.
    pub(super) fn doubt_all(&mut self) {
        let waiting = self.waiting.clone();
        self.doubtful.add(&waiting);
    }

    /// Nobody is left who could say: what waits is unknown.
    pub(super) fn give_up_all(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.decided.add(&waiting);
    }

    /// Gives up those whose deadline has passed, at most 64 a call.
    pub(super) fn expire(&mut self, now: Nanos) {
        for _ in 0..64 {
            match self.first_waiting() {
                Some(sequence) if self.entry(sequence).deadline <= now => {
                    self.decide(sequence, Outcome::Unknown);
                }
                _ => return,
            }
        }
    }

    /// The next decision that the publisher was not told yet.
    pub(super) fn tell(&mut self) -> Option<(u64, Outcome)> {
        let sequence = self.decided.first_from(self.oldest())?;
        self.decided.clear(sequence);
        Some((sequence, self.entry(sequence).outcome))
    }

    fn oldest(&self) -> u64 {
        self.next.saturating_sub(WAITING_MAX).max(1)
    }

    fn entry(&self, sequence: u64) -> Entry {
        self.entries[(sequence % WAITING_MAX) as usize]
    }
}
