//! What is known to be missing: since when, when to ask for it, and when to go on without it.
//!
//! Each missing sequence has its own times, so a hole that is filled in part, or that grows at the
//! end of the stream, needs no bookkeeping of ranges. A sequence is known to be missing when a
//! later one is known to have been sent; so of two, the lower was never seen missing after the higher.

use sinew_rt::clock::Nanos;

use super::READER_SLOTS;
use crate::delivery::held::Held;
use crate::simulation::{Fault, planted};

/// Between two requests at least: a request costs a signature here and one there.
pub(super) const ASK_SPACING: Nanos = Nanos::from_millis(1);
/// Requests without a new message after which they become rarer, twofold each time: there is a
/// partition, or a writer that announces what it never sent.
const FRUITLESS: u32 = 8;
/// How far that goes, unless one round trip takes longer.
const FRUITLESS_INTERVAL_MAX: Nanos = Nanos::from_millis(32);

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// Since when it can be asked for: from here its time runs.
    since: Nanos,
    /// Before this it may merely be late.
    ripe_at: Nanos,
    asked_at: Nanos,
}

/// The times of what is missing above the floor.
#[derive(Debug)]
pub(super) struct Holes {
    /// What is not here up to this sequence is known to be missing; at most what a reader holds.
    seen_to: u64,
    /// In the places of their sequences modulo their number.
    times: Box<[Missing]>,
    asked_at: Nanos,
    /// Requests since the last new message.
    fruitless: u32,
    round_trip: Nanos,
}

impl Holes {
    /// For a reader that holds `size` messages, 1 to [`READER_SLOTS`]. Allocates.
    pub(super) fn new(size: u64) -> Self {
        let never = Missing { since: Nanos::MAX, ripe_at: Nanos::MAX, asked_at: Nanos::MIN };
        Self {
            seen_to: 0,
            times: vec![never; size.clamp(1, READER_SLOTS) as usize].into(),
            asked_at: Nanos::MIN,
            fruitless: 0,
            round_trip: Nanos::ZERO,
        }
    }

    pub(super) const fn restart(&mut self, floor: u64) {
        self.seen_to = floor;
        self.asked_at = Nanos::MIN;
        self.fruitless = 0;
    }

    pub(super) const fn set_round_trip(&mut self, round_trip: Nanos) {
        self.round_trip = round_trip;
    }

    /// A message came that was not here before.
    pub(super) const fn fruit(&mut self) {
        self.fruitless = 0;
    }

    /// Whether something up to `top` was not yet known to be missing.
    pub(super) fn is_news(&self, floor: u64, top: u64) -> bool {
        top > self.seen_to.max(floor)
    }

    /// What is not here up to `top`, at most as far as can be held, is missing from now on.
    pub(super) fn see(&mut self, floor: u64, top: u64, now: Nanos, ripe_at: Nanos) {
        let top = top.min(floor.saturating_add(self.times.len() as u64));
        if !self.is_news(floor, top) {
            return;
        }
        for sequence in self.seen_to.max(floor) + 1..=top {
            *self.at_mut(sequence) = Missing { since: now, ripe_at, asked_at: Nanos::MIN };
        }
        self.seen_to = top;
    }

    /// Lets the time of all that is missing run from now on.
    pub(super) fn restart_clocks(&mut self, floor: u64, now: Nanos) {
        for sequence in floor.saturating_add(1)..=self.seen_to {
            self.at_mut(sequence).since = now;
        }
    }

    /// When to ask for something that is missing. `held`: place `n` for `floor + 1 + n`; what is not
    /// held up to `lost` will never come.
    pub(super) fn ask_at(&self, floor: u64, held: Held, lost: u64) -> Option<Nanos> {
        let askable = self.askable(floor, held, lost);
        if planted(Fault::NakStorm) {
            return (!askable.is_empty()).then(|| self.asked_at + ASK_SPACING / 20);
        }
        let again = self.interval();
        askable
            .places()
            .map(|place| self.at(floor, place))
            .map(|one| one.ripe_at.max(one.asked_at + again))
            .min()
            .map(|at| at.max(self.asked_at + ASK_SPACING))
    }

    /// What a request says is held; it is noted as made. A writer sends again what is missing below
    /// the highest of that, so it ends, if it can, before the first that may merely be late.
    pub(super) fn ask(&mut self, floor: u64, held: Held, lost: u64, now: Nanos) -> Held {
        let askable = self.askable(floor, held, lost);
        let is_ripe = |place: &u64| self.at(floor, *place).ripe_at <= now;
        let ripe_end = askable.places().filter(is_ripe).last().map_or(0, |last| last + 1);
        let young = askable & !Held::below(ripe_end);
        let held = on_the_wire(held);
        let certain = held & Held::below(young.lowest().unwrap_or(Held::PLACES));
        // One above what is asked for must remain, even if something young lies between.
        let above = (held & !Held::below(ripe_end)).lowest().map_or(0, |place| place + 1);
        let shown = held & Held::below(certain.end().max(above));
        for place in (askable & Held::below(asked_below(shown))).places() {
            self.at_mut(floor + 1 + place).asked_at = now;
        }
        self.asked_at = now;
        self.fruitless = self.fruitless.saturating_add(1);
        shown
    }

    /// Place `n`: `floor + 1 + n` is known to be missing.
    fn missing(&self, floor: u64, held: Held) -> Held {
        held.missing_below(self.seen_to.saturating_sub(floor))
    }

    /// What is missing and would be sent again if asked for: not what is lost, and below something
    /// held on the wire unless nothing is.
    fn askable(&self, floor: u64, held: Held, lost: u64) -> Held {
        let lost = Held::below(lost.saturating_sub(floor));
        self.missing(floor, held) & Held::below(asked_below(on_the_wire(held))) & !lost
    }

    /// When the sequence after the floor is given up, if it is missing.
    pub(super) fn given_up_at(&self, floor: u64, held: Held, timeout: Nanos) -> Option<Nanos> {
        let front = self.missing(floor, held).get(0);
        front.then(|| self.at(floor, 0).since + timeout)
    }

    /// The last sequence of those after `last` that have been missing for `timeout`; `last` if none.
    pub(super) fn given_up(
        &self,
        floor: u64,
        held: Held,
        mut last: u64,
        timeout: Nanos,
        now: Nanos,
    ) -> u64 {
        let missing = self.missing(floor, held);
        // As many steps as there are places: beyond the last nothing is seen missing.
        while missing.get(last - floor) && self.at(floor, last - floor).since + timeout <= now {
            last += 1;
        }
        last
    }

    fn at(&self, floor: u64, place: u64) -> &Missing {
        &self.times[((floor + 1 + place) % self.times.len() as u64) as usize]
    }

    fn at_mut(&mut self, sequence: u64) -> &mut Missing {
        let slot = (sequence % self.times.len() as u64) as usize;
        &mut self.times[slot]
    }

    fn interval(&self) -> Nanos {
        let once = (self.round_trip * 3 / 2).max(ASK_SPACING);
        let doublings = (self.fruitless / FRUITLESS).min(5);
        once.max((once * (1 << doublings)).min(FRUITLESS_INTERVAL_MAX))
    }
}

/// What reports say is held. Place 0 is never said: it would be a message that is in order, but for
/// which the subscriber has no room yet.
pub(super) fn on_the_wire(mut held: Held) -> Held {
    held.clear(0);
    held
}

/// A request that says that `shown` is held asks for what is missing below this.
fn asked_below(shown: Held) -> u64 {
    shown.highest().unwrap_or(Held::PLACES)
}
