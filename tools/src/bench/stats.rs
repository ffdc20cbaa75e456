//! Pooled samples, and ratios that are judged only where this machine can resolve them.
//!
//! A figure of one run says little on a machine that others share, so nothing here is judged by
//! itself. Two sides run in alternating rounds, and the first of them runs twice: base, subject,
//! control, where control is the base again. What base and control differ by is what the machine
//! adds to any ratio; a limit below that cannot be judged, and is not.

use serde::{Deserialize, Serialize};
use std::fmt;

use sinew_rt::clock::{self, Nanos};

pub(crate) use super::samples::{Samples, Series, Summary};

/// Fewer pooled samples than this on any side, and a ratio is shown but not judged.
pub(crate) const JUDGED_SAMPLES: u64 = 100_000;

/// The two figures that are judged; everything above them is only shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// How a measured ratio must lie to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// The subject takes at most so many times as long as the base.
    AtMost(f64),
    /// The subject takes at least so many times as long as the base.
    AtLeast(f64),
    /// Neither takes more than so many times as long as the other.
    WithinFactor(f64),
}

impl Limit {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
            Self::WithinFactor(limit) => ratio <= limit && ratio >= 1.0 / limit,
        }
    }

    /// By which factor base and control may differ for this limit to be judged: a limit of 1.1 or
    /// of 1/1.1 is lost in noise that moves a figure by a factor of more than 1.1.
    fn resolution(self) -> f64 {
        let (Self::AtMost(limit) | Self::AtLeast(limit) | Self::WithinFactor(limit)) = self;
        limit.max(1.0 / limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit:.2}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit:.2}"),
            Self::WithinFactor(limit) => write!(f, "{:.2}–{limit:.2}", 1.0 / limit),
        }
    }
}

/// What is demanded of a comparison; a figure without a limit is shown and not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) p50: Option<Limit>,
    pub(crate) p99: Option<Limit>,
}

impl Limits {
    /// Both figures at most `p50` and `p99` times those of the base.
    pub(crate) fn at_most(p50: f64, p99: f64) -> Self {
        Self { p50: Some(Limit::AtMost(p50)), p99: Some(Limit::AtMost(p99)) }
    }

    /// Both figures those of the base, up to `factor` in either direction.
    pub(crate) fn within_factor(factor: f64) -> Self {
        let limit = Some(Limit::WithinFactor(factor));
        Self { p50: limit, p99: limit }
    }
}

/// What a comparison found, for one figure or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The limit holds.
    Within,
    /// Too few samples, or no limit.
    NotJudged,
    /// Base and control differ by more than the limit allows for.
    NotResolvableHere,
    /// The limit does not hold.
    Exceeds,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Within => "within",
            Self::NotJudged => "not judged",
            Self::NotResolvableHere => "not resolvable here",
            Self::Exceeds => "exceeds",
        })
    }
}

/// Which of the two sides a round is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What is compared with; also measured as the control.
    Base,
    /// What is judged.
    Subject,
}

/// One of the three sets of rounds.
#[derive(Clone, Debug)]
struct Rounds {
    pooled: Samples,
    each: Vec<Pair>,
}

impl Rounds {
    fn new(operations: u64) -> Self {
        Self { pooled: Samples::of_batches(operations), each: Vec::new() }
    }

    fn add(&mut self, round: &Samples) {
        self.pooled.pool(round);
        self.each.push(pair(|quantile| round.quantile(quantile)));
    }

    fn report(&self, name: &str, started: Nanos) -> SideReport {
        let spread = |figure: fn(&Pair) -> f64| {
            let values = self.each.iter().map(figure);
            Spread {
                lowest: values.clone().fold(f64::INFINITY, f64::min),
                highest: values.fold(0.0, f64::max),
            }
        };
        let rounds = self.each.len();
        let spreads = (rounds > 0).then(|| (spread(|pair| pair.p50), spread(|pair| pair.p99)));
        SideReport {
            name: name.to_owned(),
            pooled: self.pooled.summary(started),
            rounds,
            p50_ns_of_rounds: spreads.map(|both| both.0),
            p99_ns_of_rounds: spreads.map(|both| both.1),
        }
    }
}

fn pair(figure: impl Fn(f64) -> f64) -> Pair {
    Pair { p50: figure(0.5), p99: figure(0.99) }
}

/// Two sides and the control, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    name: String,
    base_name: String,
    subject_name: String,
    limits: Limits,
    /// Added to the base before the ratio is formed: for limits such as "base + one signature".
    added_ns: Pair,
    started: Nanos,
    base: Rounds,
    subject: Rounds,
    control: Rounds,
}

impl Comparison {
    /// An empty comparison of `subject_name` with `base_name`.
    pub(crate) fn new(name: &str, base_name: &str, subject_name: &str, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            base_name: base_name.to_owned(),
            subject_name: subject_name.to_owned(),
            limits,
            added_ns: Pair { p50: 0.0, p99: 0.0 },
            started: clock::now(),
            base: Rounds::new(1),
            subject: Rounds::new(1),
            control: Rounds::new(1),
        }
    }

    /// What is compared.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The same for spans that cover `operations` operations each.
    pub(crate) fn of_batches(self, operations: u64) -> Self {
        let rounds = || Rounds::new(operations);
        Self { base: rounds(), subject: rounds(), control: rounds(), ..self }
    }

    /// The origin of "when the maximum was", where that is not the making of this comparison.
    pub(crate) fn started_at(self, started: Nanos) -> Self {
        Self { started, ..self }
    }

    /// Adds `added_ns` to the base (and the control) before ratios are formed.
    pub(crate) fn add_to_base(&mut self, added_ns: Pair) {
        self.added_ns = added_ns;
    }

    /// Measures base, subject and control once each through `measure`. The order changes with
    /// every round, so that what drifts during a run does not always meet the same side. An error
    /// leaves the comparison as it was: rounds count as a whole.
    pub(crate) fn round<E>(
        &mut self,
        mut measure: impl FnMut(Side) -> Result<Samples, E>,
    ) -> Result<(), E> {
        const SIDES: [Side; 3] = [Side::Base, Side::Subject, Side::Base];
        let first = self.base.each.len() % SIDES.len();
        let mut measured = [None, None, None];
        for n in 0..SIDES.len() {
            let at = (first + n) % SIDES.len();
            measured[at] = Some(measure(SIDES[at])?);
        }
        let [Some(base), Some(subject), Some(control)] = measured else { return Ok(()) };
        self.add(&base, &subject, &control);
        Ok(())
    }

    /// Adds one round that was measured elsewhere.
    pub(crate) fn add(&mut self, base: &Samples, subject: &Samples, control: &Samples) {
        self.base.add(base);
        self.subject.add(subject);
        self.control.add(control);
    }

    /// The samples of base, control and subject.
    pub(crate) fn pooled(&self) -> [&Samples; 3] {
        [&self.base, &self.control, &self.subject].map(|rounds| &rounds.pooled)
    }

    /// Forms the ratios and judges them.
    pub(crate) fn report(&self) -> ComparisonReport {
        let all = [&self.base, &self.subject, &self.control];
        let fewest = all.map(|rounds| rounds.pooled.count()).into_iter().min().unwrap_or(0);
        let added = |quantile: f64| match quantile {
            0.5 => self.added_ns.p50,
            _ => self.added_ns.p99,
        };
        let base = |quantile| self.base.pooled.quantile(quantile) + added(quantile);
        let ratio = pair(|quantile| ratio(self.subject.pooled.quantile(quantile), base(quantile)));
        let control = pair(|quantile| {
            self::ratio(self.control.pooled.quantile(quantile) + added(quantile), base(quantile))
        });
        let judge = |limit, ratio, control| judge(limit, ratio, control, fewest);
        let verdict_p50 = judge(self.limits.p50, ratio.p50, control.p50);
        let verdict_p99 = judge(self.limits.p99, ratio.p99, control.p99);
        let limits = [(self.limits.p50, verdict_p50), (self.limits.p99, verdict_p99)];
        let judged = limits.into_iter().filter(|(limit, _)| limit.is_some());
        ComparisonReport {
            name: self.name.clone(),
            base: self.base.report(&self.base_name, self.started),
            subject: self.subject.report(&self.subject_name, self.started),
            control: self.control.report(&format!("{} again", self.base_name), self.started),
            added_to_base_ns: self.added_ns,
            limits: self.limits,
            ratio,
            control_ratio: control,
            verdict_p50,
            verdict_p99,
            verdict: judged.map(|(_, verdict)| verdict).max().unwrap_or(Verdict::NotJudged),
        }
    }
}

fn ratio(subject: f64, base: f64) -> f64 {
    // Spans of 0 ns are possible where a clock is coarser than what it measures.
    if base > 0.0 { subject / base } else { f64::MAX }
}

fn judge(limit: Option<Limit>, ratio: f64, control: f64, fewest: u64) -> Verdict {
    let Some(limit) = limit else { return Verdict::NotJudged };
    if fewest < JUDGED_SAMPLES {
        return Verdict::NotJudged;
    }
    if control <= 0.0 || control.max(1.0 / control) > limit.resolution() {
        return Verdict::NotResolvableHere;
    }
    if limit.holds(ratio) { Verdict::Within } else { Verdict::Exceeds }
}

/// The lowest and the highest value of a figure over all rounds, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// One side of a comparison, as reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SideReport {
    pub(crate) name: String,
    pub(crate) pooled: Summary,
    pub(crate) rounds: usize,
    /// Absent before the first round.
    pub(crate) p50_ns_of_rounds: Option<Spread>,
    pub(crate) p99_ns_of_rounds: Option<Spread>,
}

/// A comparison, as reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ComparisonReport {
    pub(crate) name: String,
    pub(crate) base: SideReport,
    pub(crate) subject: SideReport,
    /// The base once more: what the machine does to a ratio of equals.
    pub(crate) control: SideReport,
    pub(crate) added_to_base_ns: Pair,
    pub(crate) limits: Limits,
    /// Subject to base.
    pub(crate) ratio: Pair,
    /// Control to base.
    pub(crate) control_ratio: Pair,
    pub(crate) verdict_p50: Verdict,
    pub(crate) verdict_p99: Verdict,
    /// The worse of the two, among those that have a limit.
    pub(crate) verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ns: u64, count: u64) -> Samples {
        let mut samples = Samples::new();
        samples.record_n(ns, count, Nanos::ZERO);
        samples
    }

    fn compared(base: u64, subject: u64, control: u64, limits: Limits) -> ComparisonReport {
        let mut comparison = Comparison::new("test", "a", "b", limits);
        let count = JUDGED_SAMPLES;
        comparison.add(&spans(base, count), &spans(subject, count), &spans(control, count));
        comparison.report()
    }

    #[test]
    fn a_ratio_below_its_limit_is_within_and_one_above_exceeds() {
        let limits = Limits::at_most(1.10, 1.10);
        assert_eq!(compared(1_000, 1_090, 1_000, limits).verdict, Verdict::Within);
        assert_eq!(compared(1_000, 1_120, 1_000, limits).verdict, Verdict::Exceeds);
    }

    #[test]
    fn a_control_beyond_the_limit_makes_every_ratio_unresolvable() {
        let limits = Limits::at_most(1.10, 1.10);
        for control in [1_120, 890] {
            for subject in [500, 1_000, 5_000] {
                let report = compared(1_000, subject, control, limits);
                assert_eq!(report.verdict, Verdict::NotResolvableHere, "{control} {subject}");
            }
        }
    }

    #[test]
    fn a_limit_below_one_needs_a_control_within_its_inverse() {
        let limits = Limits { p50: None, p99: Some(Limit::AtMost(0.3)) };
        assert_eq!(compared(1_000, 290, 1_500, limits).verdict, Verdict::Within);
        assert_eq!(compared(1_000, 320, 1_500, limits).verdict, Verdict::Exceeds);
        assert_eq!(compared(1_000, 290, 3_500, limits).verdict, Verdict::NotResolvableHere);
    }

    #[test]
    fn a_lower_limit_is_a_limit_too() {
        let limits = Limits { p50: Some(Limit::AtLeast(2.0)), p99: None };
        assert_eq!(compared(1_000, 2_100, 1_000, limits).verdict, Verdict::Within);
        assert_eq!(compared(1_000, 1_900, 1_000, limits).verdict, Verdict::Exceeds);
    }

    #[test]
    fn a_limit_in_both_directions_is_exceeded_by_what_is_too_fast_too() {
        let limits = Limits::within_factor(1.10);
        for (subject, verdict) in [
            (890, Verdict::Exceeds),
            (920, Verdict::Within),
            (1_090, Verdict::Within),
            (1_120, Verdict::Exceeds),
        ] {
            assert_eq!(compared(1_000, subject, 1_000, limits).verdict, verdict, "{subject}");
        }
        for control in [890, 1_120] {
            let report = compared(1_000, 1_000, control, limits);
            assert_eq!(report.verdict, Verdict::NotResolvableHere, "{control}");
        }
        assert_eq!(Limit::WithinFactor(1.10).to_string(), "0.91–1.10");
    }

    #[test]
    fn too_few_samples_on_any_side_are_not_judged() {
        let limits = Limits::at_most(1.10, 1.10);
        let mut comparison = Comparison::new("test", "a", "b", limits);
        let (enough, few) = (spans(10, JUDGED_SAMPLES), spans(10, JUDGED_SAMPLES - 1));
        comparison.add(&enough, &enough, &few);
        assert_eq!(comparison.report().verdict, Verdict::NotJudged);
        comparison.add(&few, &few, &few);
        assert_eq!(comparison.report().verdict, Verdict::Within);
    }

    #[test]
    fn the_worse_figure_decides_and_a_figure_without_limit_does_not() {
        let mut comparison = Comparison::new("test", "a", "b", Limits::at_most(1.1, 1.1));
        let mut subject = spans(1_000, JUDGED_SAMPLES);
        subject.record_n(9_000, JUDGED_SAMPLES / 50, Nanos::ZERO);
        let base = spans(1_000, JUDGED_SAMPLES);
        comparison.add(&base, &subject, &base);
        let report = comparison.report();
        assert_eq!(
            (report.verdict_p50, report.verdict_p99, report.verdict),
            (Verdict::Within, Verdict::Exceeds, Verdict::Exceeds)
        );
        comparison.limits.p99 = None;
        assert_eq!(comparison.report().verdict, Verdict::Within);
    }

    #[test]
    fn what_is_added_to_the_base_counts_for_base_and_control() {
        let mut comparison = Comparison::new("test", "a", "b", Limits::at_most(1.1, 1.1));
        comparison.add_to_base(Pair { p50: 1_000.0, p99: 1_000.0 });
        let n = JUDGED_SAMPLES;
        comparison.add(&spans(1_000, n), &spans(2_100, n), &spans(1_100, n));
        let report = comparison.report();
        assert!((report.ratio.p50 - 1.05).abs() < 0.001, "{:?}", report.ratio);
        assert!((report.control_ratio.p50 - 1.05).abs() < 0.001, "{:?}", report.control_ratio);
        assert_eq!(report.verdict, Verdict::Within);
    }

    #[test]
    fn rounds_measure_the_base_twice_and_never_in_the_same_order() {
        let mut comparison = Comparison::new("test", "a", "b", Limits::default());
        let mut orders = Vec::new();
        for _ in 0..3 {
            let mut order = Vec::new();
            comparison
                .round(|side| {
                    order.push(side);
                    Ok::<_, ()>(spans(if side == Side::Base { 10 } else { 20 }, 1))
                })
                .unwrap();
            orders.push(order);
        }
        assert!(orders.iter().all(|order| order.iter().filter(|s| **s == Side::Base).count() == 2));
        assert!(orders[0] != orders[1] && orders[1] != orders[2], "{orders:?}");
        let report = comparison.report();
        assert_eq!((report.ratio.p50, report.control_ratio.p50), (2.0, 1.0));
        assert_eq!((report.base.rounds, report.control.pooled.count), (3, 3));
    }

    #[test]
    fn a_failed_round_leaves_no_half_of_itself() {
        let mut comparison = Comparison::new("test", "a", "b", Limits::default());
        let failed = comparison.round(|side| match side {
            Side::Base => Ok(spans(1, 1)),
            Side::Subject => Err("interrupted"),
        });
        assert_eq!(failed, Err("interrupted"));
        assert_eq!(comparison.report().base.pooled.count, 0);
    }
}
