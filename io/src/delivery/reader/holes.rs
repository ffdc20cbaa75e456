//! What is known to be missing: since when, when to ask for it, and when to go on without it.
//!
//! Each missing sequence has its own times, so a hole that is filled in part, or that grows at the
//! end of the stream, needs no bookkeeping of ranges. A sequence is known to be missing when a
//! later one is known to have been sent; so of two, the lower was never seen missing after the higher.

use sinew_rt::clock::Nanos;

use super::gap_buffer::{SLOTS, ones};
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
    /// What is not here up to this sequence is known to be missing; at most floor + 64.
    seen_to: u64,
    times: [Missing; SLOTS as usize],
    asked_at: Nanos,
    /// Requests since the last new message.
    fruitless: u32,
    round_trip: Nanos,
}

impl Holes {
    pub(super) const fn new() -> Self {
        let never = Missing { since: Nanos::MAX, ripe_at: Nanos::MAX, asked_at: Nanos::MIN };
        Self {
            seen_to: 0,
            times: [never; SLOTS as usize],
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

    /// What is not here up to `top`, at most floor + 64, is missing from now on.
    pub(super) fn see(&mut self, floor: u64, top: u64, now: Nanos, ripe_at: Nanos) {
        let top = top.min(floor.saturating_add(SLOTS));
        if !self.is_news(floor, top) {
            return;
        }
        for sequence in self.seen_to.max(floor) + 1..=top {
            self.times[slot(sequence)] = Missing { since: now, ripe_at, asked_at: Nanos::MIN };
        }
        self.seen_to = top;
    }

    /// Lets the time of all that is missing run from now on.
    pub(super) fn restart_clocks(&mut self, floor: u64, now: Nanos) {
        for sequence in floor.saturating_add(1)..=self.seen_to {
            self.times[slot(sequence)].since = now;
        }
    }

    /// When to ask for something that is missing. `held`: bit `n` for `floor + 1 + n`; what is not
    /// held up to `lost` will never come.
    pub(super) fn ask_at(&self, floor: u64, held: u64, lost: u64) -> Option<Nanos> {
        if planted(Fault::NakStorm) {
            let missing = self.askable(floor, held, lost) != 0;
            return missing.then(|| self.asked_at + ASK_SPACING / 20);
        }
        let again = self.interval();
        bits(self.askable(floor, held, lost))
            .map(|bit| self.at(floor, bit))
            .map(|one| one.ripe_at.max(one.asked_at + again))
            .min()
            .map(|at| at.max(self.asked_at + ASK_SPACING))
    }

    /// The bitmap of a request, which is noted as made. A writer sends again what is missing below
    /// the highest bit, so the bitmap ends, if it can, before the first that may merely be late.
    pub(super) fn ask(&mut self, floor: u64, held: u64, lost: u64, now: Nanos) -> u64 {
        let askable = self.askable(floor, held, lost);
        let ripe = bits(askable)
            .filter(|bit| self.at(floor, *bit).ripe_at <= now)
            .fold(0, |ripe, bit| ripe | 1 << bit);
        let young = askable & !up_to_highest(ripe);
        let held = on_the_wire(held);
        let certain = held & ones(u64::from(young.trailing_zeros()));
        // One bit above what is asked for must remain, even if something young lies between.
        let above = held & !up_to_highest(ripe);
        let shown = held & up_to_highest(certain | above & above.wrapping_neg());
        for bit in bits(askable & below_highest(shown)) {
            self.times[slot(floor + 1 + bit)].asked_at = now;
        }
        self.asked_at = now;
        self.fruitless = self.fruitless.saturating_add(1);
        shown
    }

    /// Bit `n`: `floor + 1 + n` is known to be missing.
    const fn missing(&self, floor: u64, held: u64) -> u64 {
        ones(self.seen_to.saturating_sub(floor)) & !held
    }

    /// What is missing and would be sent again if asked for: not what is lost, and below something
    /// held on the wire unless nothing is.
    const fn askable(&self, floor: u64, held: u64, lost: u64) -> u64 {
        let lost = ones(lost.saturating_sub(floor));
        self.missing(floor, held) & !lost & below_highest(on_the_wire(held))
    }

    /// When the sequence after the floor is given up, if it is missing.
    pub(super) fn given_up_at(&self, floor: u64, held: u64, timeout: Nanos) -> Option<Nanos> {
        let front = self.missing(floor, held) & 1 != 0;
        front.then(|| self.at(floor, 0).since + timeout)
    }

    /// The last sequence of those after `last` that have been missing for `timeout`; `last` if none.
    pub(super) fn given_up(
        &self,
        floor: u64,
        held: u64,
        mut last: u64,
        timeout: Nanos,
        now: Nanos,
    ) -> u64 {
        let missing = self.missing(floor, held);
        // At most 64 steps: nothing is seen missing beyond floor + 64.
        while last < self.seen_to {
            let bit = last - floor;
            if missing & 1 << bit == 0 || self.at(floor, bit).since + timeout > now {
                break;
            }
            last += 1;
        }
        last
    }

    fn at(&self, floor: u64, bit: u64) -> &Missing {
        &self.times[slot(floor + 1 + bit)]
    }

    fn interval(&self) -> Nanos {
        let once = (self.round_trip * 3 / 2).max(ASK_SPACING);
        let doublings = (self.fruitless / FRUITLESS).min(5);
        once.max((once * (1 << doublings)).min(FRUITLESS_INTERVAL_MAX))
    }
}

/// The bitmap as reports carry it. Bit 0 is never set there: it would be a message that is in order,
/// but for which the subscriber has no room yet.
pub(super) const fn on_the_wire(held: u64) -> u64 {
    held & !1
}

/// All bits up to the highest of `mask`; none if it is empty.
const fn up_to_highest(mask: u64) -> u64 {
    ones(u64::BITS as u64 - mask.leading_zeros() as u64)
}

/// All bits below the highest of `mask`; all if it is empty.
const fn below_highest(mask: u64) -> u64 {
    match mask {
        0 => u64::MAX,
        _ => up_to_highest(mask) >> 1,
    }
}

/// The numbers of the bits that are set, from the lowest.
fn bits(mut mask: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < u64::BITS).then_some(u64::from(bit))
    })
}

const fn slot(sequence: u64) -> usize {
    (sequence % SLOTS) as usize
}
