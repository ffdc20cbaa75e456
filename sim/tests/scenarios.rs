//! Scenario files in the simulator: what they say happens there too, and breaks no promise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use sinew_sim::campaign::{self, Campaign, Summary};
use sinew_sim::host::real::Real;
use sinew_sim::memory::CountingAllocator;
use sinew_sim::plan::Script;
use sinew_sim::scenario::file::parse;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn files() -> Vec<PathBuf> {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(scenarios).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn run(text: &str, first: u64, seeds: u64) -> Summary {
    let script = Script::new(parse(text).unwrap(), None).unwrap();
    let script = Some(("scenario.toml".to_owned(), script));
    let campaign = Campaign { first, seeds, script, jobs: 1, ..Campaign::default() };
    campaign::run::<Real>(&campaign, &AtomicBool::new(false), &|_| {}).unwrap()
}

#[test]
fn every_scenario_that_comes_with_the_sources_breaks_no_promise_in_the_simulator() {
    let files = files();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let summary = run(&std::fs::read_to_string(&file).unwrap(), 1, 5);
        assert!(summary.failures.is_empty(), "{}: {:#?}", file.display(), summary.failures);
        assert!(summary.messages["delivered"] > 5_000, "{}", file.display());
    }
}

const PAIR: &str = "seconds = 20\n[[node]]\nname = \"arm\"\n[[node]]\nname = \"brain\"\n";

#[test]
fn one_seed_gives_one_trace() {
    let faults = "[shape.bad]\nloss_percent = 10\n[[link]]\nfrom = \"*\"\nto = \"*\"\nshape = \"bad\"\n\
                  [[fault]]\nkind = \"kill\"\nat_ms = 2_000\nrestart_after_ms = 500\nnode = \"arm\"\n";
    let trace = |seed| run(&format!("{PAIR}{faults}"), seed, 1).trace;
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn a_link_that_loses_everything_delivers_nothing() {
    let delivered = |percent: u32| {
        let link = format!(
            "[shape.dead]\nloss_percent = {percent}\n\
             [[link]]\nfrom = \"*\"\nto = \"*\"\nshape = \"dead\"\n"
        );
        let summary = run(&format!("{PAIR}{link}"), 1, 2);
        assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
        assert!(summary.messages["published"] > 1_000);
        summary.messages["delivered"]
    };
    assert_eq!(delivered(100), 0);
    assert!(delivered(0) > 1_000);
}

#[test]
fn kills_stalls_partitions_and_shapes_happen_once_in_each_run() {
    let faults = "[shape.narrow]\nrate = { bytes_per_s = 50_000, queue_bytes = 20_000 }\n\
        [[fault]]\nkind = \"kill\"\nat_ms = 2_000\nrestart_after_ms = 500\nnode = \"arm\"\n\
        [[fault]]\nkind = \"kill\"\nat_ms = 6_000\nnode = \"arm\"\n\
        [[fault]]\nkind = \"stall\"\nat_ms = 3_500\nfor_ms = 300\nnode = \"brain\"\n\
        [[fault]]\nkind = \"partition\"\nat_ms = 4_000\nfor_ms = 700\nfrom = \"*\"\nto = \"brain\"\n\
        [[fault]]\nkind = \"shape\"\nat_ms = 5_000\nfor_ms = 500\nfrom = \"*\"\nto = \"*\"\nshape = \"narrow\"\n";
    let summary = run(&format!("{PAIR}{faults}"), 1, 3);
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    let happened = ["crash", "stall", "partition", "shape"].map(|kind| summary.faults[kind]);
    assert_eq!(happened, [6, 3, 3, 3]);
    assert_eq!(summary.faults.values().sum::<u64>(), 15, "and nothing else");
    assert!(summary.network["cut"] > 0);
}

fn refused(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sinew-sim")).arg("run").args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    said
}

#[test]
fn what_makes_no_sense_with_a_scenario_is_refused() {
    let file = files().into_iter().find(|file| file.ends_with("partitions.toml")).unwrap();
    let scenario = format!("--scenario={}", file.display());
    for (more, words) in [
        ("--html=x.html", "leave one of --html and --scenario out"),
        ("--faults=loss", "cannot be used with"),
        ("--nodes=8", "cannot be used with"),
        ("--seconds=20", "at least 27 seconds are needed to heal and settle"),
    ] {
        let said = refused(&[&scenario, more]);
        assert!(said.contains(words), "{more}: {said}");
    }
    assert!(refused(&["--scenario=/nowhere.toml"]).contains("give a file that you may read"));
}
