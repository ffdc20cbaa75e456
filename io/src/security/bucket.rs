//! Admission: how many signature checks each sender may cost, before any is made.
//!
//! A check costs about 50 µs, so a flood of forgeries must meet a counter first. Frames from a peer's
//! own address have a bucket of that peer's; frames that claim a known key from any other address
//! share one small bucket. A forger elsewhere so takes nothing from the peer whose name it uses.

use sinew_rt::clock::Nanos;

use super::PeerIndex;
use crate::simulation::{Fault, planted};

/// One token in the bucket's unit: the unit is a nanosecond at one token a second.
const TOKEN: u64 = 1_000_000_000;

/// A token bucket in exact integers: `rate` tokens a second, at most `burst` at once.
///
/// Credit is kept in units of a billionth of a token, which `rate` adds per nanosecond: nothing is
/// rounded, so the long-run rate is exact, and `burst` bounds every product.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    credit: u64,
    filled_at: Nanos,
    rate_per_s: u32,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate_per_s: u32, burst: u32, now: Nanos) -> Self {
        Self { credit: burst as u64 * TOKEN, filled_at: now, rate_per_s, burst }
    }

    /// Takes one token, or says that there is none. A clock that goes back adds nothing. Wait-free.
    pub fn take(&mut self, now: Nanos) -> bool {
        if now > self.filled_at {
            let elapsed = (now - self.filled_at).as_unsigned();
            let full = u64::from(self.burst) * TOKEN;
            let earned = elapsed.saturating_mul(u64::from(self.rate_per_s));
            self.credit = self.credit.saturating_add(earned).min(full);
            self.filled_at = now;
        }
        match self.credit.checked_sub(TOKEN) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

/// How many checks a second are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Checks a second for each peer: more than its topics' rates together. It also bounds what
    /// someone who spoofs the peer's very address can cost.
    pub peer_per_s: u32,
    /// Checks at once for each peer.
    pub peer_burst: u32,
    /// Checks a second for all strangers together.
    pub strangers_per_s: u32,
    /// Checks at once for all strangers together.
    pub strangers_burst: u32,
}

impl Default for AdmissionLimits {
    /// 4,000 a second (burst 256) for each peer, 100 a second (burst 16) for all strangers. The burst
    /// is what a peer at 1 kHz sends while a stalled lane does not look for a quarter of a second.
    fn default() -> Self {
        Self { peer_per_s: 4_000, peer_burst: 256, strangers_per_s: 100, strangers_burst: 16 }
    }
}

/// Decides, per frame and before any signature check, whether its sender has a check left. Nothing
/// allocates after [`Admission::new`].
#[derive(Debug)]
pub struct Admission {
    strangers: TokenBucket,
    /// By peer.
    peers: Box<[TokenBucket]>,
}

impl Admission {
    /// Full buckets for `peers` peers and the strangers. Allocates.
    #[must_use]
    pub fn new(limits: AdmissionLimits, peers: usize, now: Nanos) -> Self {
        let peer = TokenBucket::new(limits.peer_per_s, limits.peer_burst, now);
        let strangers = TokenBucket::new(limits.strangers_per_s, limits.strangers_burst, now);
        Self { strangers, peers: vec![peer; peers].into() }
    }

    /// Charges one check to the peer at whose own address the frame came from, or to the strangers;
    /// `false` means drop it unchecked. Wait-free.
    #[inline]
    pub fn admit(&mut self, at_home: Option<PeerIndex>, now: Nanos) -> bool {
        if planted(Fault::AdmissionOff) {
            return true;
        }
        match at_home.and_then(|peer| self.peers.get_mut(peer.get())) {
            Some(bucket) => bucket.take(now),
            None => self.strangers.take(now),
        }
    }
}
