use sinew_rt::clock::Nanos;

use super::super::report::Run;
use super::super::stats::{Comparison, Limits, Samples};
use super::*;

/// A run as the wake-up bench has it: latencies that depend on their neighbours, with a tail.
struct Simulated {
    state: u64,
    /// For how many spans a disturbance lasts, about, and how far it moves them.
    memory: f64,
    drift: f64,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        Self { state: seed, memory: 50.0, drift: 0.1 }
    }

    fn uniform(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn samples(&mut self, factor: f64) -> Samples {
        let mut samples = Samples::new();
        let mut slow = self.drift * self.normal();
        for n in 0..10_000 {
            let kept = 1.0 - 1.0 / self.memory;
            slow = kept * slow + (1.0 - kept * kept).sqrt() * self.drift * self.normal();
            let tail = if self.uniform() < 0.02 { 3.0 + 5.0 * self.uniform() } else { 1.0 };
            let ns = 9_000.0 * factor * tail * (slow + 0.2 * self.normal()).exp();
            samples.record(Nanos::new(ns as i64), Nanos::from_millis(n));
        }
        samples
    }

    fn run(&mut self, factor: f64) -> Report {
        report(|run| run.measured("wake-up", &self.samples(factor)))
    }
}

fn report(fill: impl FnOnce(&mut Run)) -> Report {
    thread_local!(static HOST: HostFingerprint = crate::host::fingerprint());
    let mut run = Run::on(HOST.with(Clone::clone));
    fill(&mut run);
    run.into_report()
}

fn baseline(report: Report) -> Baseline {
    Baseline { path: "stored.json".into(), report, tolerance_percent: 10.0 }
}

#[test]
fn equal_runs_are_hardly_ever_called_slower_and_slower_ones_nearly_always() {
    const PAIRS: usize = 120;
    let mut simulated = Simulated::new(1);
    let mut slower_found = |factor: f64| {
        let pairs = (0..PAIRS).map(|_| (simulated.run(1.0), simulated.run(factor)));
        let found = pairs
            .filter(|(old, new)| baseline(old.clone()).compare(new).verdict == Verdict::Exceeds);
        found.count()
    };
    assert!(slower_found(1.0) <= 1, "equal");
    assert!(slower_found(0.8) == 0, "faster");
    assert!(slower_found(1.05) <= 3, "slower, but less than counts");
    assert!(slower_found(1.2) >= PAIRS * 9 / 10, "a fifth slower");
}

#[test]
fn a_machine_whose_disturbances_last_hardly_raises_false_alarms_either() {
    const PAIRS: usize = 120;
    for memory in [500.0, 3_000.0] {
        let mut simulated = Simulated { memory, drift: 0.15, ..Simulated::new(6) };
        let pairs = (0..PAIRS).map(|_| (simulated.run(1.0), simulated.run(1.0)));
        let alarms = pairs
            .filter(|(old, new)| baseline(old.clone()).compare(new).verdict == Verdict::Exceeds);
        let alarms = alarms.count();
        assert!(alarms <= PAIRS / 20, "{memory}: {alarms} of {PAIRS}");
    }
}

#[test]
fn without_a_tolerance_the_interval_alone_keeps_its_promise() {
    const PAIRS: usize = 200;
    let mut simulated = Simulated::new(2);
    let alarms = (0..PAIRS).filter(|_| {
        let strict = Baseline { tolerance_percent: 0.0, ..baseline(simulated.run(1.0)) };
        strict.compare(&simulated.run(1.0)).verdict == Verdict::Exceeds
    });
    let alarms = alarms.count() as f64 / PAIRS as f64;
    assert!(alarms <= 0.08, "{alarms} where 0.05 were promised");
}

#[test]
fn what_became_slower_together_with_its_base_is_not_the_programs_fault() {
    let mut simulated = Simulated::new(3);
    let mut run = |base: f64, subject: f64| {
        let mut comparison = Comparison::new("hop", "bare", "ring", Limits::default());
        let (base, subject) = (simulated.samples(base), simulated.samples(subject));
        comparison.add(&base, &subject, &base);
        report(|run| run.compared(&comparison))
    };
    let old = run(1.0, 1.0);
    let alone = baseline(old.clone()).compare(&run(1.0, 1.5));
    assert_eq!(alone.figures[0].name, "hop: ring");
    assert_eq!(alone.verdict, Verdict::Exceeds);
    assert_eq!(baseline(old).compare(&run(1.5, 1.5)).verdict, Verdict::NotResolvableHere);
}

#[test]
fn short_runs_are_not_judged_and_what_is_missing_is_named() {
    let few = |name: &str| {
        let mut samples = Samples::new();
        (1..50).for_each(|n| samples.record(Nanos::new(n), Nanos::from_millis(n)));
        report(|run| run.measured(name, &samples))
    };
    let same = baseline(few("one")).compare(&few("one"));
    assert_eq!((same.verdict, same.missing.len()), (Verdict::NotJudged, 0));
    assert_eq!(same.figures.len(), 2);
    let other = baseline(few("one")).compare(&few("other"));
    assert_eq!(other.missing, ["one", "other"]);
}

#[test]
fn another_machine_build_command_or_scheduling_is_refused_with_each_difference() {
    let old = baseline(Simulated::new(4).run(1.0));
    let same = old.report.clone();
    assert!(old.accept(&same).is_ok() && old.accept_measured(&same).is_ok());
    let mut other = same.clone();
    other.host.processor = "Cortex-A78".to_owned();
    other.host.kernel_release = "6.1.0-rt".to_owned();
    other.host.command_line = "isolcpus=1".to_owned();
    other.program.build = "other".to_owned();
    other.parameters.insert("interval-us".to_owned(), "250".to_owned());
    let refused = old.accept(&other).unwrap_err();
    assert_eq!(refused.exit, crate::exit::Exit::Machine);
    for part in
        ["Cortex-A78", "6.1.0-rt", "isolcpus=1", "the build", "option interval-us was \"unset\""]
    {
        assert!(refused.message.contains(part), "{part} in {}", refused.message);
    }
    let mut demoted = same.clone();
    demoted.threads.push(ThreadReport {
        name: "wake".to_owned(),
        scheduling: "SCHED_OTHER".to_owned(),
        cores: "1".to_owned(),
        refused: Vec::new(),
    });
    assert!(old.accept(&demoted).is_ok(), "known only at the end");
    let refused = old.accept_measured(&demoted).unwrap_err();
    assert!(refused.message.contains("only now there is wake: SCHED_OTHER, core 1"), "{refused:?}");
    let mut doctored = same;
    doctored.host.doctor.warn += 1;
    assert!(old.accept_measured(&doctored).is_ok(), "counts of verdicts decide nothing");
}

#[test]
fn what_is_no_report_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stored.json");
    for (text, part) in [
        (None, "No such file"),
        (Some("{"), "not JSON"),
        (Some("{}"), "no version"),
        (Some(r#"{"version": 99}"#), "version 99"),
        (Some(r#"{"version": 1}"#), "not a report"),
    ] {
        text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let failure = Baseline::read(&path, 10.0).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    let report = Simulated::new(5).run(1.0);
    std::fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(Baseline::read(&path, 10.0).unwrap().report, report);
}
