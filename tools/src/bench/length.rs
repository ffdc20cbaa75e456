//! How long something is measured: for so many rounds, or for so many seconds.

use indicatif::ProgressBar;
use sinew_rt::clock::{self, Nanos};

use super::{interrupted, progress};

/// Steps of a progress bar in a second.
const STEPS_PER_S: f64 = 10.0;

/// How long something is measured. The time begins with the progress bar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    rounds: u64,
    seconds: Option<f64>,
    begun: u64,
    started: Option<Nanos>,
}

impl Length {
    /// `rounds`, unless there is a time instead.
    pub(crate) fn new(rounds: u64, seconds: Option<f64>) -> Self {
        Self { rounds, seconds, begun: 0, started: None }
    }

    /// The time, if it is that.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// A progress bar for it.
    pub(crate) fn progress(&self, what: &str) -> ProgressBar {
        progress(what, self.seconds.map_or(self.rounds, |seconds| (seconds * STEPS_PER_S) as u64))
    }

    /// Whether another round begins; moves the bar. The first one always does, unless Ctrl-C came.
    pub(crate) fn goes_on(&mut self, bar: &ProgressBar) -> bool {
        self.goes_on_at(clock::now(), bar) && !interrupted()
    }

    fn goes_on_at(&mut self, now: Nanos, bar: &ProgressBar) -> bool {
        let passed = (now - *self.started.get_or_insert(now)).as_secs_f64();
        let over = match self.seconds {
            Some(seconds) => {
                bar.set_position((passed.min(seconds) * STEPS_PER_S) as u64);
                self.begun > 0 && passed >= seconds
            }
            None => {
                bar.set_position(self.begun);
                self.begun >= self.rounds
            }
        };
        self.begun += u64::from(!over);
        !over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_counted_and_seconds_are_kept_from_the_first_round_on() {
        let bar = ProgressBar::hidden();
        let at = |seconds: f64| Nanos::new((100.0 + seconds) as i64 * 1_000_000_000);
        let mut three = Length::new(3, None);
        assert_eq!(
            [1.0, 2.0, 3.0, 4.0].map(|t| three.goes_on_at(at(t), &bar)),
            [true, true, true, false]
        );
        let mut timed = Length::new(3, Some(5.0));
        let goes_on = [7.0, 9.0, 10.0, 11.0, 12.0].map(|t| timed.goes_on_at(at(t), &bar));
        assert_eq!(goes_on, [true, true, true, true, false]);
        let mut short = Length::new(3, Some(0.0));
        assert_eq!([1.0, 1.0].map(|t| short.goes_on_at(at(t), &bar)), [true, false]);
    }
}
