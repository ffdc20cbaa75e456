//! What arrived before its turn: 64 slots above the floor of one stream.
//!
//! A frame lies in the slot of its sequence modulo 64 until its turn comes, so nothing is ever moved.

use super::Accepted;
use crate::simulation::{Fault, planted};

/// How far above the floor a frame may be.
pub(super) const SLOTS: u64 = 64;

/// The lowest `count` bits; all for 64 and more.
pub(super) const fn ones(count: u64) -> u64 {
    match count {
        0 => 0,
        1..SLOTS => u64::MAX >> (SLOTS - count),
        _ => u64::MAX,
    }
}

/// The frames that wait, and the floor below them.
#[derive(Debug)]
pub(super) struct GapBuffer<T> {
    floor: u64,
    /// Bit `n`: `floor + 1 + n` is here.
    held: u64,
    slots: Box<[Option<T>]>,
}

impl<T> GapBuffer<T> {
    /// An empty buffer. Allocates its slots.
    pub(super) fn new() -> Self {
        Self { floor: 0, held: 0, slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// Drops what is held and begins above `floor`.
    pub(super) fn restart(&mut self, floor: u64) {
        self.slots.fill_with(|| None);
        self.held = 0;
        self.floor = floor;
    }

    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// Bit `n`: `floor + 1 + n` is here.
    pub(super) const fn held(&self) -> u64 {
        self.held
    }

    /// The highest sequence that is here; the floor when none is.
    pub(super) const fn highest(&self) -> u64 {
        self.floor + (SLOTS - self.held.leading_zeros() as u64)
    }

    /// Takes a frame that is neither done, nor here, nor too far above the floor.
    pub(super) fn insert(&mut self, sequence: u64, frame: T) -> Accepted<T> {
        let place = match sequence.checked_sub(self.floor) {
            None | Some(0) => return Accepted::Duplicate(frame),
            Some(above) if above > SLOTS => return Accepted::Beyond(frame),
            Some(above) => above - 1,
        };
        if self.held & 1 << place != 0 {
            return Accepted::Duplicate(frame);
        }
        self.held |= 1 << place;
        self.slots[slot(sequence)] = Some(frame);
        if place == 0 { Accepted::InOrder } else { Accepted::Held }
    }

    /// The frame after the floor, which moves up to it.
    pub(super) fn take(&mut self) -> Option<(u64, T)> {
        if self.held & 1 == 0 {
            return None;
        }
        let sequence = self.floor + 1;
        if planted(Fault::OrderLostAfterGap) && self.held & 0b10 != 0 {
            self.slots.swap(slot(sequence), slot(sequence + 1));
        }
        let frame = self.slots[slot(sequence)].take()?;
        self.floor = sequence;
        self.held >>= 1;
        Some((sequence, frame))
    }

    /// The last sequence before the first that is here; `None` when nothing is.
    pub(super) const fn before_first(&self) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        Some(self.floor + self.held.trailing_zeros() as u64)
    }

    /// Moves the floor up to `last`, over sequences of which none is here.
    pub(super) fn skip_to(&mut self, last: u64) {
        let by = last.saturating_sub(self.floor);
        debug_assert!(self.held & ones(by) == 0, "a frame that is here was given up");
        self.held = if by < SLOTS { self.held >> by } else { 0 };
        self.floor += by;
    }
}

const fn slot(sequence: u64) -> usize {
    (sequence % SLOTS) as usize
}
