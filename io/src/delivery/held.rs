//! Which messages above a floor are meant: a set of places, of which place `n` is `floor + 1 + n`.
//!
//! Readers and writers count everything from the floor of a stream, and the floor only grows: then
//! every place falls by as much.

use std::ops::{BitAnd, BitOr, Not};

const WORDS: usize = 4;

/// A set of the places 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held([u64; WORDS]);

impl Held {
    /// So many places there are, and so far above its floor a stream is of interest.
    pub(crate) const PLACES: u64 = 64 * WORDS as u64;
    /// No place.
    pub(crate) const NONE: Self = Self([0; WORDS]);

    /// All places below `count`.
    pub(crate) fn below(count: u64) -> Self {
        Self(std::array::from_fn(|word| match count.saturating_sub(64 * word as u64) {
            0 => 0,
            bits @ 1..64 => u64::MAX >> (64 - bits),
            _ => u64::MAX,
        }))
    }

    /// As the two entries of a report carry it. Place 0 is never said there: it would be a message
    /// that is in order, but for which the subscriber has no room yet.
    pub(crate) const fn from_wire(first: u64, more: [u64; 3]) -> Self {
        Self([first & !1, more[0], more[1], more[2]])
    }

    #[cfg(test)]
    pub(crate) fn from_places(places: impl IntoIterator<Item = u64>) -> Self {
        let mut held = Self::NONE;
        places.into_iter().for_each(|place| held.set(place));
        held
    }

    /// Places 0 to 63, for the acknowledgement.
    pub(crate) const fn first(self) -> u64 {
        self.0[0]
    }

    /// Places 64 to 255, for the entry that follows it.
    pub(crate) const fn more(self) -> [u64; 3] {
        [self.0[1], self.0[2], self.0[3]]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.has_only(0)
    }

    /// Whether no place but place 0 is in it.
    pub(crate) fn is_empty_beyond_first(&self) -> bool {
        self.has_only(1)
    }

    // By reference, and the first word by itself: it was most likely just written, and a wider read of it,
    // such as a copy of the set begins with, would have to wait for that (no store forwarding).
    fn has_only(&self, of_first: u64) -> bool {
        self.0[0] & !of_first == 0 && self.0[1..] == [0; WORDS - 1]
    }

    /// Whether `place` is in it; beyond the last place nothing is.
    pub(crate) fn get(self, place: u64) -> bool {
        word(place).is_some_and(|word| self.0[word] & bit(place) != 0)
    }

    /// Puts `place` in, if there is such a place.
    pub(crate) fn set(&mut self, place: u64) {
        if let Some(word) = word(place) {
            self.0[word] |= bit(place);
        }
    }

    /// Takes `place` out.
    pub(crate) fn clear(&mut self, place: u64) {
        if let Some(word) = word(place) {
            self.0[word] &= !bit(place);
        }
    }

    /// The same messages after the floor has grown by `by`: those that it passed are left out.
    pub(crate) fn fallen(self, by: u64) -> Self {
        let (words, bits) = ((by / 64).min(WORDS as u64) as usize, by % 64);
        let word = |n: usize| self.0.get(n).copied().unwrap_or(0);
        Self(std::array::from_fn(|n| match bits {
            0 => word(n + words),
            _ => word(n + words) >> bits | word(n + words + 1) << (64 - bits),
        }))
    }

    /// The lowest place in it.
    pub(crate) fn lowest(self) -> Option<u64> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(64 * word as u64 + u64::from(self.0[word].trailing_zeros()))
    }

    /// The highest place in it.
    pub(crate) fn highest(self) -> Option<u64> {
        let word = self.0.iter().rposition(|word| *word != 0)?;
        Some(64 * word as u64 + 63 - u64::from(self.0[word].leading_zeros()))
    }

    /// All up to the highest place in it are below this: 0 when it is empty.
    pub(crate) fn end(self) -> u64 {
        self.highest().map_or(0, |highest| highest + 1)
    }

    /// The places that are not in it, below `end`.
    pub(crate) fn missing_below(self, end: u64) -> Self {
        Self::below(end) & !self
    }

    /// The places in it, from the lowest.
    pub(crate) fn places(mut self) -> impl Iterator<Item = u64> {
        std::iter::from_fn(move || {
            let place = self.lowest()?;
            self.clear(place);
            Some(place)
        })
    }
}

impl BitAnd for Held {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl BitOr for Held {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl Not for Held {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

fn word(place: u64) -> Option<usize> {
    (place < Held::PLACES).then_some((place / 64) as usize)
}

const fn bit(place: u64) -> u64 {
    1 << (place % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Places = BTreeSet<u64>;

    fn held(places: &Places) -> Held {
        Held::from_places(places.iter().copied())
    }

    fn places(held: Held) -> Vec<u64> {
        held.places().collect()
    }

    /// Few, many and bordering places.
    fn some() -> impl Strategy<Value = Places> {
        let place = || prop_oneof![0u64..256, 60u64..70, Just(0), Just(255), Just(127), Just(192)];
        prop_oneof![
            prop::collection::btree_set(place(), 0..4),
            prop::collection::btree_set(place(), 0..200),
        ]
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..300, 62u64..67, Just(256), Just(u64::MAX), any::<u64>()]
    }

    #[test]
    fn a_place_that_does_not_exist_is_never_in_it() {
        let mut held = Held::NONE;
        held.set(256);
        held.set(u64::MAX);
        assert!(held.is_empty() && !held.get(256) && !held.get(u64::MAX));
        held = Held::below(u64::MAX);
        held.clear(256);
        assert_eq!((held, held.end()), (Held::below(256), 256));
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_places(all in some(), place in number()) {
            let mut set = held(&all);
            prop_assert_eq!(places(set), all.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.get(place), all.contains(&place));
            prop_assert_eq!(set.lowest(), all.first().copied());
            prop_assert_eq!(set.highest(), all.last().copied());
            prop_assert_eq!(set.end(), all.last().map_or(0, |last| last + 1));
            prop_assert_eq!(set.is_empty(), all.is_empty());
            prop_assert_eq!(set.is_empty_beyond_first(), all.iter().all(|place| *place == 0));
            set.clear(place);
            prop_assert_eq!(places(set), all.into_iter().filter(|n| *n != place).collect::<Vec<_>>());
        }

        #[test]
        fn when_the_floor_grows_every_place_falls_by_as_much(all in some(), by in number()) {
            let fallen: Vec<_> = all.iter().filter_map(|place| place.checked_sub(by)).collect();
            prop_assert_eq!(places(held(&all).fallen(by)), fallen);
        }

        #[test]
        fn two_sets_meet_and_join(one in some(), other in some(), end in number()) {
            let (a, b) = (held(&one), held(&other));
            prop_assert_eq!(places(a & b), one.intersection(&other).copied().collect::<Vec<_>>());
            prop_assert_eq!(places(a | b), one.union(&other).copied().collect::<Vec<_>>());
            prop_assert_eq!(places(Held::below(end)), (0..end.min(256)).collect::<Vec<_>>());
            let missing: Vec<_> = (0..end.min(256)).filter(|place| !one.contains(place)).collect();
            prop_assert_eq!(places(a.missing_below(end)), missing);
        }

        #[test]
        fn the_two_entries_carry_all_but_place_0(all in some()) {
            let set = held(&all);
            let (first, more) = (set.first(), set.more());
            prop_assert_eq!(set.get(63), first >> 63 == 1);
            prop_assert_eq!(set.get(64), more[0] & 1 == 1);
            let said: Vec<_> = all.into_iter().filter(|place| *place != 0).collect();
            prop_assert_eq!(places(Held::from_wire(first, more)), said);
        }
    }
}
