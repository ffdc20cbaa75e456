//! One word that says how well all guarded stages of a node are doing, so that a control loop can
//! see a degraded pipeline with a single load.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::ladder::Level;

/// The worst [`Level`] across the guards of a node, whether something panicked, and whether the
/// supervisor found a hang.
///
/// Guards that carry an `Arc<Health>` add themselves to a count per level and take themselves out
/// again when they recover. A guard that is dropped at [`Level::SafeStop`] stays counted: a lane that
/// died stopped does not become healthy by being gone.
///
/// All methods are wait-free on x86-64 and aarch64 with LSE atomics.
#[derive(Debug, Default)]
pub struct Health {
    /// 16 bits each: guards at Late, at Degraded, at SafeStop; then the latched bits.
    word: AtomicU64,
    /// Counts re-arms; every guard follows on its next execution.
    rearms: AtomicU32,
}

/// A thread ended by a panic: nothing brings it back, so no re-arm clears it.
const DEAD: u64 = 1 << 61;
const HUNG: u64 = 1 << 62;
const PANICKED: u64 = 1 << 63;
/// What a re-arm clears.
const LATCHED: u64 = HUNG | PANICKED;

const fn unit(level: Level) -> u64 {
    match level {
        Level::Ok => 0,
        Level::Late => 1,
        Level::Degraded => 1 << 16,
        Level::SafeStop => 1 << 32,
    }
}

impl Health {
    /// Everything well, nothing counted.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: AtomicU64::new(0), rearms: AtomicU32::new(0) }
    }

    /// The worst level of all guards; [`Level::SafeStop`] after a panic or a stopping hang.
    #[inline]
    #[must_use]
    pub fn level(&self) -> Level {
        let word = self.word.load(Ordering::Acquire);
        if word & (LATCHED | DEAD | 0xffff << 32) != 0 {
            Level::SafeStop
        } else if word & 0xffff << 16 != 0 {
            Level::Degraded
        } else if word & 0xffff != 0 {
            Level::Late
        } else {
            Level::Ok
        }
    }

    /// Whether a loop panicked since the last [`rearm`](Self::rearm), or a thread ended by a panic.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.word.load(Ordering::Acquire) & (PANICKED | DEAD) != 0
    }

    /// Whether a thread of the node ended by a panic, which nothing forgives.
    #[must_use]
    pub fn dead(&self) -> bool {
        self.word.load(Ordering::Acquire) & DEAD != 0
    }

    /// Whether the supervisor found a hang that stops, since the last [`rearm`](Self::rearm).
    #[must_use]
    pub fn hung(&self) -> bool {
        self.word.load(Ordering::Acquire) & HUNG != 0
    }

    /// Says that a thread of the node ended by a panic. The level stays [`Level::SafeStop`]: work
    /// that nobody does any more cannot be re-armed, only a new node can do it.
    pub fn set_dead(&self) {
        self.word.fetch_or(DEAD, Ordering::AcqRel);
    }

    /// Latches "something panicked": the level is [`Level::SafeStop`] until [`rearm`](Self::rearm).
    pub fn set_panicked(&self) {
        self.word.fetch_or(PANICKED, Ordering::AcqRel);
    }

    /// Latches "something hangs", likewise. The supervisor calls it, since a stage that hangs
    /// cannot.
    pub fn set_hung(&self) {
        self.word.fetch_or(HUNG, Ordering::AcqRel);
    }

    /// The explicit re-arm of a whole node: clears the latches of panic and hang, and makes every
    /// guard that carries this `Health` re-arm itself on its next execution. Until they did, the
    /// level stays what it is, and after [`set_dead`](Self::set_dead) it stays
    /// [`Level::SafeStop`] for good.
    pub fn rearm(&self) {
        self.word.fetch_and(!LATCHED, Ordering::AcqRel);
        self.rearms.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`rearm`](Self::rearm) was called.
    #[inline]
    pub(crate) fn rearms(&self) -> u32 {
        self.rearms.load(Ordering::Acquire)
    }

    /// Moves one guard from one level to another, in one atomic step.
    pub(crate) fn moved(&self, from: Level, to: Level) {
        self.word.fetch_add(unit(to).wrapping_sub(unit(from)), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rearm_forgives_a_dead_thread() {
        let health = Health::new();
        health.set_dead();
        assert!(health.dead());
        health.rearm();
        assert_eq!((health.level(), health.panicked()), (Level::SafeStop, true));
    }

    #[test]
    fn the_worst_level_of_all_guards_shows() {
        let health = Health::new();
        assert_eq!(health.level(), Level::Ok);
        health.moved(Level::Ok, Level::Late);
        health.moved(Level::Ok, Level::Degraded);
        assert_eq!(health.level(), Level::Degraded);
        health.moved(Level::Ok, Level::SafeStop);
        assert_eq!(health.level(), Level::SafeStop);
        health.moved(Level::SafeStop, Level::Ok);
        health.moved(Level::Degraded, Level::Late);
        assert_eq!(health.level(), Level::Late);
        health.moved(Level::Late, Level::Ok);
        assert_eq!(health.level(), Level::Late, "one of two late guards recovered");
        health.moved(Level::Late, Level::Ok);
        assert_eq!(health.level(), Level::Ok);
    }

    #[test]
    fn every_move_and_back_leaves_nothing_behind() {
        for from in Level::ALL {
            for to in Level::ALL {
                let health = Health::new();
                health.moved(from, to);
                health.moved(to, from);
                assert_eq!(health.word.into_inner(), 0, "{from} to {to}");
            }
        }
    }

    #[test]
    fn panic_and_hang_latch_until_the_node_is_rearmed() {
        for (latch, panicked) in
            [(Health::set_panicked as fn(&Health), true), (Health::set_hung, false)]
        {
            let health = Health::new();
            latch(&health);
            health.moved(Level::Ok, Level::Late);
            health.moved(Level::Late, Level::Ok);
            assert_eq!((health.level(), health.panicked()), (Level::SafeStop, panicked));
            assert!(!health.dead());
            health.rearm();
            assert_eq!((health.level(), health.panicked()), (Level::Ok, false));
            assert_eq!(health.rearms(), 1);
        }
    }
}
