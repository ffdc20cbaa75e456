//! Inputs that cannot be read without being told how old they are.
//!
//! Acting on an old command is the fault that hurts people, so [`Reading`] has no accessor that
//! ignores its age: whoever wants the value writes the arm for `Stale` and the one for `Never`.

use sinew_rt::clock::Nanos;
use sinew_rt::latest::LatestReader;
use sinew_rt::panel::Recorder;

/// What an input holds at the moment it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "the age decides whether the value may be acted upon"]
pub enum Reading<T> {
    /// A value no older than the input's maximum age, and its age.
    Fresh(T, Nanos),
    /// The newest value, but older than the maximum age, or from so far in the future that its
    /// stamp cannot be believed; and its age, negative for the future.
    Stale(T, Nanos),
    /// Nothing has come yet.
    Never,
}

/// A newest value and when it was true.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamped<T> {
    /// The value.
    pub value: T,
    /// When it was sent or sampled, on this process's `CLOCK_MONOTONIC`.
    pub at: Nanos,
    /// How many values it displaced that nobody read.
    pub skipped: u64,
}

/// Where an [`Input`] takes its values from. Reading must be wait-free, and must return the last
/// value again when nothing newer has come.
pub trait Source {
    /// What comes out.
    type Value: Copy;

    /// The newest value; `None` before the first.
    fn newest(&mut self) -> Option<Stamped<Self::Value>>;
}

impl<T: Copy + Send> Source for LatestReader<T> {
    type Value = T;

    #[inline]
    fn newest(&mut self) -> Option<Stamped<T>> {
        let newest = self.read()?;
        Some(Stamped { value: *newest.value, at: newest.at, skipped: newest.skipped })
    }
}

/// How trustworthy an input was when it was read, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// No older than the maximum age.
    Fresh,
    /// Older than the maximum age, or never received.
    Stale,
    /// Received once, and now older than the deadline.
    Lost,
}

/// An input that came late, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Starved {
    /// How old its newest value is, or for how long a first one has been waited for.
    pub(crate) age: Nanos,
    /// How old it may be.
    pub(crate) may_be: Nanos,
}

impl Starved {
    pub(crate) fn over(&self) -> Nanos {
        self.age - self.may_be
    }
}

/// A source with the ages that its user accepts. One reader, one thread.
#[derive(Debug)]
pub struct Input<S> {
    source: S,
    max_age: Nanos,
    deadline: Nanos,
    ages: Option<Recorder>,
    skipped: u64,
    /// When a value was first asked for.
    asked_since: Option<Nanos>,
    /// What was last said of the present silence.
    told: Freshness,
}

impl<S: Source> Input<S> {
    /// Values of `source` count as fresh up to the age `max_age`, and the input as lost never:
    /// see [`deadline`](Self::deadline). A `max_age` below zero makes every value stale.
    pub const fn new(source: S, max_age: Nanos) -> Self {
        Self {
            source,
            max_age,
            deadline: Nanos::MAX,
            ages: None,
            skipped: 0,
            asked_since: None,
            told: Freshness::Fresh,
        }
    }

    /// A control loop that reads a value older than `deadline` goes to safe stop. An input that
    /// never received anything is stale, not lost: before the first command there is nothing to
    /// stop.
    #[must_use]
    pub fn deadline(mut self, deadline: Nanos) -> Self {
        self.deadline = deadline;
        self
    }

    /// Records the age of what is read, at each read, in `ages`.
    #[must_use]
    pub fn record_ages(mut self, ages: Recorder) -> Self {
        self.ages = Some(ages);
        self
    }

    /// The newest value as of `now`. Within a control loop use
    /// [`Cycle::read`](crate::control_loop::Cycle::read), which also tells the safety states.
    /// Wait-free.
    #[inline]
    pub fn read(&mut self, now: Nanos) -> Reading<S::Value> {
        self.read_and_judge(now).0
    }

    #[inline]
    pub(crate) fn read_and_judge(&mut self, now: Nanos) -> (Reading<S::Value>, Freshness) {
        let Some(Stamped { value, at, skipped }) = self.source.newest() else {
            return (Reading::Never, Freshness::Stale);
        };
        self.skipped = self.skipped.saturating_add(skipped);
        let age = now - at;
        if let Some(ages) = &self.ages {
            ages.record(age, now);
        }
        if age > self.deadline {
            (Reading::Stale(value, age), Freshness::Lost)
        } else if age <= self.max_age && age >= -self.max_age {
            (Reading::Fresh(value, age), Freshness::Fresh)
        } else {
            (Reading::Stale(value, age), Freshness::Stale)
        }
    }

    /// What is new about the silence of this input after a reading: once when it has become older than
    /// its maximum age, and once more when it is lost.
    #[inline]
    pub(crate) fn starved<T>(
        &mut self,
        now: Nanos,
        reading: &Reading<T>,
        freshness: Freshness,
    ) -> Option<Starved> {
        let age = match reading {
            Reading::Fresh(..) => {
                self.told = Freshness::Fresh;
                return None;
            }
            Reading::Stale(_, age) => *age,
            Reading::Never => now - *self.asked_since.get_or_insert(now),
        };
        let may_be = if freshness == Freshness::Lost { self.deadline } else { self.max_age };
        let news = freshness > self.told && age > may_be;
        news.then(|| {
            self.told = freshness;
            Starved { age, may_be }
        })
    }

    /// How many values came and were displaced by newer ones before they were read.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sinew_rt::latest;

    use super::*;

    const MS: Nanos = Nanos::from_millis(1);

    #[test]
    fn an_input_without_a_value_is_never_and_counts_as_stale_however_long_it_waits() {
        let (_writer, reader) = latest::channel::<u32>();
        let mut input = Input::new(reader, MS * 5).deadline(MS * 20);
        let judged = input.read_and_judge(Nanos::from_secs(1_000));
        assert_eq!(judged, (Reading::Never, Freshness::Stale));
    }

    #[test]
    fn a_value_grows_stale_and_then_lost_without_anything_new() {
        let (mut writer, reader) = latest::channel();
        let mut input = Input::new(reader, MS * 5).deadline(MS * 20);
        let sent = Nanos::from_secs(7);
        writer.publish(42, sent);
        let nano = Nanos::new(1);
        for (age, expected) in [
            (Nanos::ZERO, (Reading::Fresh(42, Nanos::ZERO), Freshness::Fresh)),
            (MS * 5, (Reading::Fresh(42, MS * 5), Freshness::Fresh)),
            (MS * 5 + nano, (Reading::Stale(42, MS * 5 + nano), Freshness::Stale)),
            (MS * 20, (Reading::Stale(42, MS * 20), Freshness::Stale)),
            (MS * 20 + nano, (Reading::Stale(42, MS * 20 + nano), Freshness::Lost)),
        ] {
            assert_eq!(input.read_and_judge(sent + age), expected);
        }
        writer.publish(43, sent + MS * 21);
        assert_eq!(input.read(sent + MS * 21), Reading::Fresh(43, Nanos::ZERO));
    }

    #[test]
    fn a_stamp_from_the_far_future_is_not_fresh_for_ever() {
        let (mut writer, reader) = latest::channel();
        let mut input = Input::new(reader, MS * 5);
        writer.publish(1, Nanos::MAX);
        let (reading, freshness) = input.read_and_judge(Nanos::from_secs(1));
        assert!(matches!(reading, Reading::Stale(1, age) if age < Nanos::ZERO));
        assert_eq!(freshness, Freshness::Stale);
    }

    #[test]
    fn displaced_values_are_counted_once() {
        let (mut writer, reader) = latest::channel();
        let mut input = Input::new(reader, MS * 5);
        for n in 0..4 {
            writer.publish(n, MS);
        }
        for _ in 0..3 {
            assert_eq!(input.read(MS), Reading::Fresh(3, Nanos::ZERO));
        }
        assert_eq!(input.skipped(), 3);
    }

    proptest! {
        #[test]
        fn fresh_means_within_the_maximum_age_for_any_stamps(
            at in any::<i64>(),
            now in any::<i64>(),
            max_age in -10_i64..1_000_000_000,
        ) {
            let (mut writer, reader) = latest::channel();
            writer.publish((), Nanos::new(at));
            let mut input = Input::new(reader, Nanos::new(max_age)).deadline(Nanos::from_secs(2));
            let age = i128::from(now) - i128::from(at);
            let (reading, freshness) = input.read_and_judge(Nanos::new(now));
            let fresh = age.abs() <= i128::from(max_age);
            prop_assert_eq!(freshness == Freshness::Fresh, fresh);
            prop_assert_eq!(matches!(reading, Reading::Fresh(..)), fresh);
            prop_assert_eq!(freshness == Freshness::Lost, age > 2_000_000_000);
        }
    }
}
