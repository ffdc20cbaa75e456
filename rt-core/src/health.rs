//! One word that says how well all guarded stages of a node are doing, so that a control loop can
//! see a degraded pipeline with a single load.

use crate::ladder::Level;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The worst [`Level`] across the guards of a node, whether something panicked, and whether the
/// supervisor found a hang.
///
/// Guards that carry an `Arc<Health>` add themselves to a count per level and take themselves out
/// again when they recover. A guard that is dropped at [`Level::SafeStop`] stays counted: a lane that
/// died stopped does not become healthy by being gone.
///
/// Panics and hangs are counted and never uncounted: a re-arm remembers up to where its caller had
/// [seen](Self::seen) them, so that one that comes between that look and the re-arm stays latched.
///
/// All methods are wait-free on x86-64 and aarch64 with LSE atomics, except that re-arms which
/// coincide may wait for each other for some nanoseconds.
#[derive(Debug, Default)]
pub struct Health {
    /// 16 bits each: guards at Late, at Degraded, at SafeStop.
    guards: AtomicU64,
    /// What happened since the beginning: panics in the low half, hangs above, [`DEAD`]. It only
    /// grows. Four thousand million panics would carry over; nobody re-arms that often.
    latches: AtomicU64,
    /// The greatest value of `latches`, without [`DEAD`], that a re-arm has forgiven.
    forgiven: AtomicU64,
    /// Counts re-arms; every guard follows on its next execution.
    rearms: AtomicU32,
}

/// A thread ended by a panic: nothing brings it back, so no re-arm forgives it.
const DEAD: u64 = 1 << 63;
const HANG: u64 = 1 << 32;
const HANGS: u64 = DEAD - HANG;
const PANIC: u64 = 1;
const PANICS: u64 = HANG - PANIC;

const fn unit(level: Level) -> u64 {
    match level {
        Level::Ok => 0,
        Level::Late => 1,
        Level::Degraded => 1 << 16,
        Level::SafeStop => 1 << 32,
    }
}

/// What a [`Health`] showed at one moment. The default is that all is well and nothing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    guards: u64,
    latches: u64,
    forgiven: u64,
}

impl Seen {
    /// The worst level of all guards; [`Level::SafeStop`] after a panic or a stopping hang.
    #[inline]
    #[must_use]
    pub const fn level(self) -> Level {
        if self.latches > self.forgiven || self.guards & 0xffff << 32 != 0 {
            Level::SafeStop
        } else if self.guards & 0xffff << 16 != 0 {
            Level::Degraded
        } else if self.guards & 0xffff != 0 {
            Level::Late
        } else {
            Level::Ok
        }
    }

    /// Whether a loop panicked and no re-arm forgave it, or a thread ended by a panic.
    #[inline]
    #[must_use]
    pub const fn panicked(self) -> bool {
        self.latches & (DEAD | PANICS) > self.forgiven & PANICS
    }

    /// Whether a thread of the node ended by a panic, which nothing forgives.
    #[must_use]
    pub const fn dead(self) -> bool {
        self.latches & DEAD != 0
    }

    /// Whether the supervisor found a hang that stops, and no re-arm forgave it.
    #[inline]
    #[must_use]
    pub const fn hung(self) -> bool {
        self.latches & HANGS > self.forgiven & HANGS
    }

    /// Whether there is a panic here that `earlier` did not show.
    #[inline]
    #[must_use]
    pub const fn panicked_since(self, earlier: Self) -> bool {
        self.panicked() && self.latches & (DEAD | PANICS) > earlier.latches & (DEAD | PANICS)
    }

    /// Whether there is a hang here that `earlier` did not show.
    #[inline]
    #[must_use]
    pub const fn hung_since(self, earlier: Self) -> bool {
        self.hung() && self.latches & HANGS > earlier.latches & HANGS
    }
}

impl Health {
    /// Everything well, nothing counted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One look at everything, for [`rearm`](Self::rearm).
    #[inline]
    #[must_use]
    pub fn seen(&self) -> Seen {
        // First what is forgiven: it never exceeds what had happened by then, so whatever the
        // second load finds beyond it is latched.
        let forgiven = self.forgiven.load(Ordering::Acquire);
        let latches = self.latches.load(Ordering::Acquire);
        Seen { guards: self.guards.load(Ordering::Acquire), latches, forgiven }
    }

    /// The worst level of all guards; [`Level::SafeStop`] after a panic or a stopping hang.
    #[inline]
    #[must_use]
    pub fn level(&self) -> Level {
        self.seen().level()
    }

    /// Whether a loop panicked and no [`rearm`](Self::rearm) forgave it, or a thread ended by a
    /// panic.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.seen().panicked()
    }

    /// Whether a thread of the node ended by a panic, which nothing forgives.
    #[must_use]
    pub fn dead(&self) -> bool {
        self.seen().dead()
    }

    /// Whether the supervisor found a hang that stops, and no [`rearm`](Self::rearm) forgave it.
    #[must_use]
    pub fn hung(&self) -> bool {
        self.seen().hung()
    }

    /// Says that a thread of the node ended by a panic. The level stays [`Level::SafeStop`]: work
    /// that nobody does any more cannot be re-armed, only a new node can do it.
    pub fn set_dead(&self) {
        self.latches.fetch_or(DEAD, Ordering::AcqRel);
    }

    /// Latches "something panicked": the level is [`Level::SafeStop`] until a
    /// [`rearm`](Self::rearm) by somebody who saw it.
    pub fn set_panicked(&self) {
        self.latches.fetch_add(PANIC, Ordering::AcqRel);
    }

    /// Latches "something hangs", likewise. The supervisor calls it, since a stage that hangs
    /// cannot.
    pub fn set_hung(&self) {
        self.latches.fetch_add(HANG, Ordering::AcqRel);
    }

    /// The explicit re-arm of a whole node by somebody who looked at `seen`: forgives the panics
    /// and hangs that it shows and none since, and makes every guard that carries this `Health`
    /// re-arm itself on its next execution. Until they did, the level stays what it is, and after
    /// [`set_dead`](Self::set_dead) it stays [`Level::SafeStop`] for good.
    pub fn rearm(&self, seen: Seen) {
        // The known-broken variant, which forgives what nobody saw, is what the loom test must
        // catch.
        #[cfg(sinew_broken)]
        let seen = Seen { latches: self.latches.load(Ordering::Acquire), ..seen };
        self.forgiven.fetch_max(seen.latches & !DEAD, Ordering::AcqRel);
        self.rearms.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`rearm`](Self::rearm) was called.
    #[inline]
    pub(crate) fn rearms(&self) -> u32 {
        self.rearms.load(Ordering::Acquire)
    }

    /// Moves one guard from one level to another, in one atomic step.
    pub(crate) fn moved(&self, from: Level, to: Level) {
        self.guards.fetch_add(unit(to).wrapping_sub(unit(from)), Ordering::AcqRel);
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
        health.rearm(health.seen());
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
                assert_eq!(health.guards.into_inner(), 0, "{from} to {to}");
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
            health.rearm(health.seen());
            assert_eq!((health.level(), health.panicked()), (Level::Ok, false));
            assert_eq!(health.rearms(), 1);
        }
    }

    #[test]
    fn what_happened_since_the_look_outlasts_the_rearm() {
        for since in [Health::set_panicked as fn(&Health), Health::set_hung, Health::set_dead] {
            for before in [Health::set_panicked as fn(&Health), Health::set_hung] {
                let health = Health::new();
                before(&health);
                let seen = health.seen();
                since(&health);
                health.rearm(seen);
                assert_eq!(health.level(), Level::SafeStop);
                let now = health.seen();
                assert!(now.panicked_since(seen) || now.hung_since(seen));
            }
        }
    }

    #[test]
    fn an_old_look_takes_back_no_rearm_and_what_was_forgiven_is_no_news() {
        let health = Health::new();
        health.set_hung();
        let old = health.seen();
        health.set_panicked();
        health.rearm(health.seen());
        health.rearm(old);
        assert_eq!((health.level(), health.panicked(), health.hung()), (Level::Ok, false, false));
        assert!(!health.seen().panicked_since(Seen::default()));
        assert!(!health.seen().hung_since(Seen::default()));
    }
}
