//! Admission: how many signature checks each sender may cost, before any is made.
//!
//! A check costs about 50 µs, so a flood of forgeries must meet a counter first. The counter hangs
//! on the *pair* of source address and claimed key: a pair that has authenticated keeps a share of
//! its own, and everybody else shares one small bucket. A forger who claims a peer's key from
//! another address so takes nothing from that peer.

use sinew_rt::clock::Nanos;

use crate::wire::KeyId;

/// The most pairs with a share of their own.
pub const PAIRS_MAX: usize = 64;
/// The most pairs of one key among them that were not reserved: a peer that shows up from many
/// addresses evicts its own older pairs, never another peer's.
pub const PAIRS_PER_KEY: usize = 4;

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
    /// Checks a second for each pair of its own: more than its topics' rates together. It also
    /// bounds what someone who spoofs that very address can cost.
    pub pair_per_s: u32,
    /// Checks at once for each pair.
    pub pair_burst: u32,
    /// Checks a second for all strangers together.
    pub strangers_per_s: u32,
    /// Checks at once for all strangers together.
    pub strangers_burst: u32,
}

impl Default for AdmissionLimits {
    /// 4,000 a second (burst 256) for each known pair, 100 a second (burst 16) for all strangers.
    fn default() -> Self {
        Self { pair_per_s: 4_000, pair_burst: 256, strangers_per_s: 100, strangers_burst: 16 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    source: u64,
    key: KeyId,
    bucket: TokenBucket,
    authenticated_at: Nanos,
    reserved: bool,
}

/// Decides, per frame and before any signature check, whether its sender has a check left.
///
/// `source` is a hash of the sender's address, made by the transport. The table is fixed: nothing
/// allocates after [`Admission::new`].
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    strangers: TokenBucket,
    pairs: Box<[Option<Pair>; PAIRS_MAX]>,
}

impl Admission {
    /// An admission that knows nobody. Allocates its table.
    #[must_use]
    pub fn new(limits: AdmissionLimits, now: Nanos) -> Self {
        let strangers = TokenBucket::new(limits.strangers_per_s, limits.strangers_burst, now);
        Self { limits, strangers, pairs: Box::new([None; PAIRS_MAX]) }
    }

    /// Gives a pair its share before it ever authenticated, and for good: for peers whose address
    /// is in the configuration, so that a flood cannot hide their first handshake. Returns `false`
    /// when the table is full of such pairs.
    pub fn reserve(&mut self, source: u64, key: KeyId, now: Nanos) -> bool {
        self.insert(source, key, now, true)
    }

    /// Charges one check to whoever sent this frame; `false` means drop it unchecked. Wait-free, at
    /// most [`PAIRS_MAX`] comparisons.
    pub fn admit(&mut self, source: u64, key: KeyId, now: Nanos) -> bool {
        match self.find(source, key) {
            Some(pair) => pair.bucket.take(now),
            None => self.strangers.take(now),
        }
    }

    /// Notes that a *fresh* frame of this pair verified: from now on it has a share of its own.
    /// When the table is full, the pair that authenticated longest ago gives way.
    pub fn authenticated(&mut self, source: u64, key: KeyId, now: Nanos) {
        match self.find(source, key) {
            Some(pair) => pair.authenticated_at = pair.authenticated_at.max(now),
            None => {
                self.insert(source, key, now, false);
            }
        }
    }

    fn find(&mut self, source: u64, key: KeyId) -> Option<&mut Pair> {
        self.pairs.iter_mut().flatten().find(|pair| pair.source == source && pair.key == key)
    }

    fn insert(&mut self, source: u64, key: KeyId, now: Nanos, reserved: bool) -> bool {
        if let Some(pair) = self.find(source, key) {
            pair.reserved |= reserved;
            return true;
        }
        let bucket = TokenBucket::new(self.limits.pair_per_s, self.limits.pair_burst, now);
        match self.place(key) {
            Some(place) => {
                *place = Some(Pair { source, key, bucket, authenticated_at: now, reserved });
                true
            }
            None => false,
        }
    }

    fn place(&mut self, key: KeyId) -> Option<&mut Option<Pair>> {
        let evictable = |pair: &Option<Pair>| pair.as_ref().is_some_and(|pair| !pair.reserved);
        let own = |pair: &Option<Pair>| pair.as_ref().is_some_and(|pair| pair.key == key);
        let of_key = self.pairs.iter().filter(|pair| evictable(pair) && own(pair)).count();
        let only_own = of_key >= PAIRS_PER_KEY;
        // Empty places sort before every instant, so they are taken first.
        self.pairs
            .iter_mut()
            .filter(|pair| {
                if only_own {
                    evictable(pair) && own(pair)
                } else {
                    pair.is_none() || evictable(pair)
                }
            })
            .min_by_key(|pair| pair.as_ref().map(|pair| pair.authenticated_at))
    }
}
