//! What arrived before its turn: slots above the floor of one stream.
//!
//! A frame lies in the slot of its sequence modulo their number until its turn comes, so nothing is
//! ever moved.

use super::{Accepted, READER_SLOTS};
use crate::delivery::held::Held;
use crate::simulation::{Fault, planted};

/// The frames that wait, and the floor below them.
#[derive(Debug)]
pub(super) struct GapBuffer<T> {
    floor: u64,
    held: Held,
    slots: Box<[Option<T>]>,
}

impl<T> GapBuffer<T> {
    /// An empty buffer of `size` slots, 1 to [`READER_SLOTS`]. Allocates them.
    pub(super) fn new(size: u64) -> Self {
        let size = size.clamp(1, READER_SLOTS);
        Self { floor: 0, held: Held::NONE, slots: (0..size).map(|_| None).collect() }
    }

    /// Drops what is held and begins above `floor`.
    pub(super) fn restart(&mut self, floor: u64) {
        self.slots.fill_with(|| None);
        self.held = Held::NONE;
        self.floor = floor;
    }

    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// How far above the floor a frame may be.
    pub(super) const fn size(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Place `n`: `floor + 1 + n` is here.
    pub(super) const fn held(&self) -> &Held {
        &self.held
    }

    /// The highest sequence that is here; the floor when none is.
    pub(super) fn highest(&self) -> u64 {
        self.floor + self.held.end()
    }

    /// Takes a frame that is neither done, nor here, nor too far above the floor.
    pub(super) fn insert(&mut self, sequence: u64, frame: T) -> Accepted<T> {
        let place = match sequence.checked_sub(self.floor) {
            None | Some(0) => return Accepted::Duplicate(frame),
            Some(above) if above > self.size() => return Accepted::Beyond(frame),
            Some(above) => above - 1,
        };
        if self.held.get(place) {
            return Accepted::Duplicate(frame);
        }
        self.held.set(place);
        let slot = self.slot(sequence);
        self.slots[slot] = Some(frame);
        if place == 0 { Accepted::InOrder } else { Accepted::Held }
    }

    /// The frame after the floor, which moves up to it.
    pub(super) fn take(&mut self) -> Option<(u64, T)> {
        if !self.held.get(0) {
            return None;
        }
        let sequence = self.floor + 1;
        let slot = self.slot(sequence);
        if planted(Fault::OrderLostAfterGap) && self.held.get(1) {
            let next = self.slot(sequence + 1);
            self.slots.swap(slot, next);
        }
        let frame = self.slots[slot].take()?;
        self.floor = sequence;
        self.held = self.held.fallen(1);
        Some((sequence, frame))
    }

    /// The last sequence before the first that is here; `None` when nothing is.
    pub(super) fn before_first(&self) -> Option<u64> {
        Some(self.floor + self.held.lowest()?)
    }

    /// Moves the floor up to `last`, over sequences of which none is here.
    pub(super) fn skip_to(&mut self, last: u64) {
        let by = last.saturating_sub(self.floor);
        debug_assert!(
            (self.held & Held::below(by)).is_empty(),
            "a frame that is here was given up"
        );
        self.held = self.held.fallen(by);
        self.floor += by;
    }

    fn slot(&self, sequence: u64) -> usize {
        (sequence % self.size()) as usize
    }
}
