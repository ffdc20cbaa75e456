//! Where on the stack signatures are checked.
//!
//! A strict check keeps tables of points on its stack, and takes up to a third longer where these share
//! the lower bits of their addresses with constants of the program ([`sinew_rt::stack`]). Which positions
//! are good is settled when the program is linked, so a node measures it once, before its lanes start.

use std::sync::OnceLock;

use sinew_rt::clock::Nanos;
use sinew_rt::stack;

/// Positions that are tried, evenly over the period.
const POSITIONS: usize = 16;

/// Times that each position is tried: the fastest counts, for an interrupt only makes one slower.
const TRIES: usize = 6;

/// How much slower than the best position, in percent, one may be that is as good.
const AS_GOOD_PERCENT: i64 = 4;

static CHOSEN: OnceLock<usize> = OnceLock::new();

/// Runs `check` at the position that [`choose`] found, or where the caller is if it never ran.
#[inline]
pub(super) fn placed<R>(check: impl FnOnce() -> R) -> R {
    match CHOSEN.get() {
        Some(&offset) => stack::at_offset(offset, check),
        None => check(),
    }
}

/// Finds a good position for `check`, which must run the same code as what is placed later, by the
/// time that it takes; keeps the first choice of the process. About 4 ms for a check of 40 µs.
pub(crate) fn choose(mut now: impl FnMut() -> Nanos, mut check: impl FnMut()) {
    CHOSEN.get_or_init(|| {
        let mut fastest = [Nanos::MAX; POSITIONS];
        // Round after round and not place after place: the first of all find cold caches.
        for _ in 0..TRIES {
            for (position, fastest) in fastest.iter_mut().enumerate() {
                let took = stack::at_offset(offset_of(position), || {
                    let begun = now();
                    check();
                    now() - begun
                });
                *fastest = (*fastest).min(took);
            }
        }
        offset_of(middle_of_the_best(&fastest))
    });
}

fn offset_of(position: usize) -> usize {
    position * (stack::PERIOD / POSITIONS)
}

/// The middle of the longest run of positions that are as good as the best. The positions form a
/// circle.
fn middle_of_the_best(fastest: &[Nanos; POSITIONS]) -> usize {
    let best = fastest.iter().min().copied().unwrap_or(Nanos::ZERO);
    let enough = best.as_nanos() * (100 + AS_GOOD_PERCENT) / 100;
    let good = |position: usize| fastest[position % POSITIONS].as_nanos() <= enough;
    let run = |from: usize| (0..POSITIONS).take_while(|step| good(from + step)).count();
    // The first of the longest, so that equal measurements choose alike.
    let (from, length) = (0..POSITIONS)
        .map(|from| (from, run(from)))
        .fold((0, 0), |best, next| if next.1 > best.1 { next } else { best });
    (from + length / 2) % POSITIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_slow(slow: &[usize]) -> [Nanos; POSITIONS] {
        let mut times = [Nanos::from_micros(35); POSITIONS];
        for position in slow {
            times[*position] = Nanos::from_micros(42);
        }
        times
    }

    #[test]
    fn the_position_lies_far_from_the_slow_ones() {
        assert_eq!(middle_of_the_best(&with_slow(&[0, 1, 14, 15])), 8);
        assert_eq!(middle_of_the_best(&with_slow(&[6, 7, 8, 9])), 0);
        assert_eq!(middle_of_the_best(&with_slow(&[0, 8, 9])), 4);
        assert_eq!(middle_of_the_best(&with_slow(&[0, 4, 8, 9])), 13);
    }

    #[test]
    fn one_good_position_is_found_and_all_alike_are_fine() {
        let mut times = [Nanos::from_micros(42); POSITIONS];
        times[11] = Nanos::from_micros(35);
        assert_eq!(middle_of_the_best(&times), 11);
        assert!(middle_of_the_best(&with_slow(&[])) < POSITIONS);
    }

    #[test]
    fn noise_below_the_tolerance_does_not_cut_a_run() {
        let mut times = with_slow(&[0, 1, 2, 3]);
        times[9] = Nanos::new(36_200);
        assert_eq!(middle_of_the_best(&times), 10);
    }
}
