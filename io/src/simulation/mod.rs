//! What a simulator needs of this crate: a node's real stages without threads, signatures that cost
//! next to nothing, faults that can be planted, and which branches of the protocol were reached.
//!
//! All of it exists under the cargo feature `simulation` only, which no default build has. Without it
//! `planted` is a constant `false`, `reached` does nothing, and the compiler removes both.
//!
//! What is set here (cheap signatures, a planted fault, reached branches) is set for the thread that
//! sets it, so simulations may run on as many threads as there are.

#![cfg_attr(not(feature = "simulation"), allow(unreachable_pub, dead_code))]

mod branch;
mod fault;
#[cfg(feature = "simulation")]
mod node;
#[cfg(feature = "simulation")]
mod port;
#[cfg(all(test, feature = "simulation"))]
mod tests;

pub use branch::Branch;
pub use fault::Fault;
#[cfg(feature = "simulation")]
pub use fault::NoSuchFault;

#[cfg(feature = "simulation")]
pub use node::{SimLife, SimNode};
#[cfg(not(feature = "simulation"))]
pub(crate) use switched_off::{cheap_signature, lifetime_clock, planted, reached};
#[cfg(feature = "simulation")]
pub use switched_on::{Branches, branches, cheap_signatures, clear_branches, plant, planted};
#[cfg(feature = "simulation")]
pub(crate) use switched_on::{cheap_signature, lifetime_clock, reached, set_wall_clock};

#[cfg(not(feature = "simulation"))]
mod switched_off {
    use super::{Branch, Fault};
    use crate::security::PublicKey;
    use crate::wire::SIGNATURE_LEN;
    use sinew_rt::clock::Nanos;

    #[inline(always)]
    pub(crate) const fn planted(_: Fault) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn reached(_: Branch) {}

    /// The clock by which messages grow old.
    #[inline(always)]
    pub(crate) const fn lifetime_clock(now: Nanos) -> Nanos {
        now
    }

    #[inline(always)]
    pub(crate) const fn cheap_signature(_: &PublicKey, _: &[&[u8]]) -> Option<[u8; SIGNATURE_LEN]> {
        None
    }
}

#[cfg(feature = "simulation")]
mod switched_on {
    use super::{Branch, Fault};
    use crate::security::PublicKey;
    use crate::wire::SIGNATURE_LEN;
    use sinew_rt::clock::Nanos;
    use std::cell::Cell;

    thread_local! {
        /// How far the wall clock of the node that runs has jumped.
        static WALL_CLOCK: Cell<Nanos> = const { Cell::new(Nanos::ZERO) };
        static CHEAP: Cell<bool> = const { Cell::new(false) };
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
        static REACHED: Cell<Branches> = const { Cell::new(Branches(0)) };
    }

    /// Lets identities sign by a keyed BLAKE3 instead of Ed25519 from now on, and checks accept that
    /// and nothing else: a microsecond instead of some 75. The key is the public one, so anybody could
    /// forge: whoever simulates liars gives them their own identity only.
    pub fn cheap_signatures(on: bool) {
        CHEAP.set(on);
    }

    /// The cheap signature over the concatenation of `parts`, if signatures are cheap.
    #[inline]
    pub(crate) fn cheap_signature(key: &PublicKey, parts: &[&[u8]]) -> Option<[u8; SIGNATURE_LEN]> {
        CHEAP.get().then(|| {
            let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
            // So that it is no other keyed hash of the same bytes.
            hasher.update(b"sinew simulated signature\0");
            for part in parts {
                hasher.update(part);
            }
            let mut signature = [0; SIGNATURE_LEN];
            hasher.finalize_xof().fill(&mut signature);
            signature
        })
    }

    /// Breaks this crate in the way that `fault` says, until told otherwise.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Whether `fault` is planted: the simulator asks for those that are its own to commit.
    #[inline]
    #[must_use]
    pub fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// What the wall clock of the node that runs from now on has jumped by.
    pub(crate) fn set_wall_clock(jumped: Nanos) {
        WALL_CLOCK.set(jumped);
    }

    /// The clock by which messages grow old.
    #[inline]
    pub(crate) fn lifetime_clock(now: Nanos) -> Nanos {
        if planted(Fault::WallClockLifetime) { now + WALL_CLOCK.get() } else { now }
    }

    /// Notes that the code came through here.
    #[inline]
    pub(crate) fn reached(branch: Branch) {
        REACHED.set(REACHED.get().with(branch));
    }

    /// The branches that were reached since they were last cleared.
    #[must_use]
    pub fn branches() -> Branches {
        REACHED.get()
    }

    /// Forgets which branches were reached.
    pub fn clear_branches() {
        REACHED.set(Branches(0));
    }

    /// A set of branches.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Branches(u128);

    const _: () = assert!(Branch::COUNT <= u128::BITS as usize);

    impl Branches {
        /// This set and `branch`.
        #[must_use]
        pub const fn with(self, branch: Branch) -> Self {
            Self(self.0 | 1 << branch as u32)
        }

        /// What is in either.
        #[must_use]
        pub const fn or(self, other: Self) -> Self {
            Self(self.0 | other.0)
        }

        /// Whether `branch` is in the set.
        #[must_use]
        pub const fn contains(self, branch: Branch) -> bool {
            self.0 >> branch as u32 & 1 == 1
        }

        /// The number of branches in the set.
        #[must_use]
        pub const fn len(self) -> usize {
            self.0.count_ones() as usize
        }

        /// Whether no branch is in the set.
        #[must_use]
        pub const fn is_empty(self) -> bool {
            self.0 == 0
        }

        /// The branches in the set, in their order.
        pub fn iter(self) -> impl Iterator<Item = Branch> {
            Branch::ALL.iter().copied().filter(move |branch| self.contains(*branch))
        }
    }
}
