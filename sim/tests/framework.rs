//! The simulator itself, on nodes of a few lines: it sees what is broken, is quiet about what is not, and
//! repeats itself exactly.

use sinew_rt::clock::Nanos;
use sinew_sim::campaign::{self, Campaign, run_one};
use sinew_sim::checker::Rule;
use sinew_sim::fault::FaultKind;
use sinew_sim::host::toy::{Broken, Toy, break_toys};
use sinew_sim::plan::{Cut, Settings};
use sinew_sim::report::{Report, command};
use sinew_sim::shrink::shrink;
use sinew_sim::{page, past};
use std::sync::atomic::AtomicBool;

/// What the toy bears: it has no keys, no clocks but its own, and one queue for everything that it hears.
const BEARABLE: &[FaultKind] = &[
    FaultKind::Loss,
    FaultKind::Reorder,
    FaultKind::Duplicate,
    FaultKind::Corrupt,
    FaultKind::Partition,
    FaultKind::OneWay,
    FaultKind::Crash,
    FaultKind::Torn,
];

fn campaign(seeds: u64) -> Campaign {
    Campaign {
        first: 1,
        seeds,
        settings: Settings {
            nodes_min: 4,
            nodes_max: 7,
            length: Nanos::from_secs(20),
            kinds: BEARABLE.to_vec(),
        },
        // A toy knows nobody's clock.
        cut: Cut { tolerated: vec![Rule::Late], ..Cut::default() },
        jobs: 1,
        ..Campaign::default()
    }
}

fn run(campaign: &Campaign) -> campaign::Summary {
    campaign::run::<Toy>(campaign, &AtomicBool::new(false), &|_| {}).unwrap()
}

#[test]
fn honest_toys_break_no_promise() {
    let summary = run(&campaign(30));
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
    assert!(summary.messages["published"] > 100_000);
    assert!(summary.messages["delivered"] > 200_000);
    assert!(BEARABLE.iter().all(|kind| summary.faults[kind.as_str()] > 0), "{:?}", summary.faults);
}

#[test]
fn the_same_seed_is_the_same_run_on_any_number_of_threads() {
    let one = run(&campaign(6));
    let three = run(&Campaign { jobs: 3, ..campaign(6) });
    assert_eq!(one.trace, three.trace);
    assert_eq!(one.messages, three.messages);
    let trace = |seed| run_one::<Toy>(&campaign(1), &Cut::default(), seed, false).trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn looking_on_changes_nothing() {
    let run = |timeline| run_one::<Toy>(&campaign(1), &Cut::default(), 9, timeline);
    assert_eq!(run(true).trace, run(false).trace);
}

#[track_caller]
fn is_seen(broken: Broken, rules: &[Rule]) {
    break_toys(Some(broken));
    let summary = run(&campaign(20));
    break_toys(None);
    let failure = summary.failures.first().unwrap_or_else(|| panic!("{broken:?} is not seen"));
    assert!(rules.contains(&failure.violation.rule), "{broken:?}: {}", failure.violation);
}

#[test]
fn what_is_broken_is_seen() {
    is_seen(Broken::DeliversTwice, &[Rule::Duplicate]);
    is_seen(Broken::SkipsInSilence, &[Rule::SilentLoss]);
    is_seen(Broken::GapsWhatItHas, &[Rule::FalseGap]);
    is_seen(Broken::ChangesBytes, &[Rule::Forged]);
    is_seen(Broken::ReusesNumbers, &[Rule::Wire]);
    is_seen(Broken::ForgetsPeers, &[Rule::Unheard, Rule::LostInside]);
    is_seen(Broken::NewestGoesBack, &[Rule::Backwards, Rule::Duplicate]);
    is_seen(Broken::NeverRests, &[Rule::Restless]);
    is_seen(Broken::Panics, &[Rule::Panic]);
}

#[test]
fn a_failure_is_made_smaller_and_its_command_repeats_it() {
    break_toys(Some(Broken::SkipsInSilence));
    let campaign = campaign(20);
    let summary = run(&campaign);
    let failure = &summary.failures[0];
    let shrunk = shrink::<Toy>(&campaign, failure);
    let again = run_one::<Toy>(&campaign, &shrunk.cut, failure.seed, false);
    break_toys(None);
    assert_eq!(again.trace, shrunk.outcome.trace);
    assert_eq!(again.violation.unwrap().rule, Rule::SilentLoss);
    let (nodes, faults, topics) = shrunk.left;
    assert!(nodes <= 3 && faults <= 2 && topics == 1, "{:?}", shrunk.left);
    let command = command(&campaign, &shrunk.cut, failure.seed);
    assert!(command.contains("--only-topics") && command.contains("--without-nodes"), "{command}");

    let html = page::page(&shrunk.outcome, &command);
    assert!(html.contains("silent-loss") && html.contains("<svg") && !html.contains("<script"));
    assert_eq!(html.matches("<g class=\"node\">").count(), nodes);
}

#[test]
fn the_report_can_be_read_back() {
    let campaign = campaign(2);
    let report = Report::new(&campaign, &run(&campaign));
    let json = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(read.trace, report.trace);
    assert_eq!(read.seeds, 2);
    assert!(report.text().contains("no promise was broken"));
}

#[test]
fn stopping_leaves_a_report_of_what_was_done() {
    let stop = AtomicBool::new(false);
    let after_two = std::sync::atomic::AtomicU64::new(0);
    let summary = campaign::run::<Toy>(&campaign(50), &stop, &|_| {
        use std::sync::atomic::Ordering::Relaxed;
        stop.store(after_two.fetch_add(1, Relaxed) == 1, Relaxed);
    })
    .unwrap();
    assert_eq!((summary.seeds, summary.interrupted), (2, true));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(past::nodes("1..4").is_err());
    assert_eq!(past::nodes("8..16"), Ok((8, 16)));
    assert_eq!(past::nodes("5"), Ok((5, 5)));
    assert!(past::kinds("loss,rain").is_err());
}

#[test]
fn one_seed_is_one_run_on_every_machine_and_in_every_build() {
    let trace = run_one::<Toy>(&campaign(1), &Cut::default(), 3, false).trace;
    assert_eq!(format!("{trace:016x}"), "cbab5fa5972f8626");
}
