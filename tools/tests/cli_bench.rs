//! `sinew bench`: a short run of the pipeline says what it measured, Ctrl-C ends a long one with what
//! there is and leaves nothing behind, and a machine with one core is told what can be done on it.
//!
//! Everything here parks or spins in short bursts, and no figure is held against an absolute limit.

mod support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use support::{Process, Ran, json, sinew, until};

/// These tests measure on real-time threads, which would take the cores from each other.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shortest measurement between two processes, in which nothing spins.
const PARKED: [&str; 5] = ["bench", "pipeline", "--park", "--paced", "--open"];

#[test]
fn a_short_pipeline_reports_both_sides_and_ends_by_itself() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let mut command = sinew();
    command.args(PARKED).args(["--quick", "--json"]).arg(&file);
    let text = Process::start(&mut command).end().good();
    let report = json(&std::fs::read_to_string(file).unwrap());

    assert_eq!((&report["version"], &report["interrupted"]), (&1.into(), &false.into()));
    assert!(report["command"].as_str().unwrap().starts_with("sinew bench pipeline --park"));
    let compared = report["compared"].as_array().unwrap();
    let open = compared.iter().find(|one| one["subject"]["name"] == "open, fused");
    let open = open.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(open["name"], "parked, paced: open");
    for side in ["base", "subject", "control"] {
        assert_eq!(open[side]["rounds"], 1, "{side}");
        assert!(open[side]["pooled"]["count"].as_u64().unwrap() > 0, "{side}: {open}");
    }
    assert!(open["ratio"]["p50"].as_f64().unwrap() > 0.0);
    assert_eq!(open["verdict"], "not_judged", "so few samples judge nothing");
    assert_eq!(report["verdict"], "not_judged");
    let names: Vec<_> = names(&report["measured"]);
    assert!(names.iter().any(|name| name.contains("open, fused, from schedule")), "{names:?}");
    // What was granted was read back on both sides; where it was refused, everything is branded.
    let threads = report["threads"].as_array().unwrap();
    for side in ["bench-sender", "bench-receiver"] {
        assert!(threads.iter().any(|thread| thread["name"] == side), "{side}: {threads:?}");
    }
    let refused = threads.iter().any(|thread| thread["scheduling"] != "SCHED_FIFO 80");
    let branded = !report["not_real_time"].as_array().unwrap().is_empty();
    assert!(branded || !refused, "{report}");
    assert_eq!(text.contains("NOT REAL-TIME: "), branded, "{text}");
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn ctrl_c_ends_a_pipeline_with_what_there_is_and_leaves_nothing_behind() {
    let _turn = alone();
    let mut command = sinew();
    // The whole group hears of Ctrl-C, as on a terminal.
    command.args(PARKED).args(["--json", "-"]).process_group(0);
    let process = Process::start(&mut command);
    let children = until("both sides measure", || {
        let children = children(process.id());
        let measure =
            |child: &u32| thread_names(*child).iter().any(|name| name.starts_with("bench-"));
        (children.len() == 2 && children.iter().all(measure)).then_some(children)
    });
    let panels: Vec<PathBuf> = children.iter().map(|child| panel_dir(*child)).collect();
    assert!(panels.iter().all(|dir| dir.is_dir()), "{panels:?}");
    let group = format!("-{}", process.id());
    let sent = Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap();
    assert!(sent.success());

    let ran = process.end();
    assert_eq!(ran.code, Some(3), "what has a limit was not judged: {ran:?}");
    let report = json(&ran.out);
    assert_eq!((&report["interrupted"], &report["verdict"]), (&true.into(), &"not_judged".into()));
    assert!(!report["threads"].as_array().unwrap().is_empty(), "{report}");
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "child {child} is left");
    }
    for dir in panels {
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

/// The processes that `pid` has started and not yet waited for.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<_> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).map(|id| id.parse().unwrap()).collect()
}

fn thread_names(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
}

/// How often the thread of this name has slept; 0 when there is none.
fn sleeps(pid: u32, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        let mut lines = status.lines();
        lines.next()?.strip_prefix("Name:\t").filter(|found| *found == name)?;
        lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t")?.parse().ok())
    };
    status.filter_map(count).max().unwrap_or(0)
}

/// Where the child was told to keep its panels.
fn panel_dir(child: u32) -> PathBuf {
    let line = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap();
    let mut words = line.split('\0').skip_while(|word| *word != "--panel-dir");
    words.nth(1).unwrap_or_else(|| panic!("{line}")).into()
}

/// Runs `sinew bench` on the one core 0.
fn on_one_core(args: &[&str]) -> Ran {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_sinew"), "bench"]).args(args);
    Process::start(&mut command).end()
}

#[test]
fn one_core_is_enough_for_what_one_thread_measures_and_a_hop_says_that_it_takes_two() {
    let _turn = alone();
    for args in [&["wake", "--loops", "10"][..], &["guard", "--bursts", "1"]] {
        let ran = on_one_core(&[args, &["--priority", "0", "--json", "-"]].concat());
        let report = json(&ran.good());
        assert_eq!(report["threads"][0]["cores"], "0", "{args:?}: {report}");
    }
    let error = on_one_core(&["hop", "--rounds", "1"]).error(3);
    assert!(error.contains("a hop takes two cores") && error.contains("only core 0"), "{error}");
}

fn notes(report: &Value) -> Vec<&str> {
    report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect()
}

/// The value of the one figure whose name ends so.
#[track_caller]
fn figure(report: &Value, ending: &str) -> f64 {
    let mut named = report["figures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|figure| figure["name"].as_str().unwrap().ends_with(ending));
    let value = named.next().unwrap_or_else(|| panic!("no {ending}: {report}"))["value"].as_f64();
    value.unwrap()
}

#[test]
fn every_message_behind_a_stalled_receiver_is_in_the_report_with_how_long_it_waited() {
    let _turn = alone();
    let stall = ["--quick", "--period-us", "1000", "--stall-ms", "50", "--json", "-"];
    let report = json(&support::run(&[&PARKED[..], &stall].concat()).good());
    let waited = figure(&report, "open, fused: messages that waited longer than one period");
    // Others can only be late too. A closed loop would show one.
    assert!(waited >= 45.0, "{waited}");
    let note = notes(&report).into_iter().find(|note| note.contains("open, fused")).unwrap();
    let text = format!("{waited} messages waited longer than one period, from ");
    assert!(note.contains(&text), "{note}");
    let measured = report["measured"].as_array().unwrap().iter();
    let fused = |one: &&Value| one["name"] == "parked, paced: open, fused, from schedule";
    let max_ns = measured.clone().find(fused).unwrap()["max_ns"].as_f64().unwrap();
    assert!(max_ns >= 45e6, "the first one waited for all of the stall: {max_ns}");
    let longest = report["longest"].as_array().unwrap();
    assert_eq!(longest.len(), 5, "{longest:?}");
    assert!(
        longest.iter().any(|one| one["cause"] == "waited behind an earlier one"),
        "{longest:?}"
    );
}

#[test]
fn a_rate_that_cannot_be_achieved_is_said() {
    let _turn = alone();
    let rate = ["--quick", "--rate-hz", "1000000", "--json", "-"];
    let report = json(&support::run(&[&PARKED[..], &rate].concat()).good());
    let asked = figure(&report, "rate asked for");
    let achieved = report["figures"].as_array().unwrap().iter();
    let mut achieved =
        achieved.filter(|figure| figure["name"].as_str().unwrap().contains("rate achieved"));
    let achieved = achieved.next().unwrap()["value"].as_f64().unwrap();
    assert!(asked == 1e6 && achieved > 0.0 && achieved < 0.9 * asked, "{achieved} of {asked}");
    let said =
        |note: &&str| note.contains("the rate was not achieved: ") && note.contains(" Hz of ");
    assert!(notes(&report).iter().any(said), "{report}");
}

#[test]
fn what_warms_up_is_said_in_every_form() {
    let _turn = alone();
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: two ends that spin need two cores");
        return;
    }
    for (said, args) in [
        (3, &["hop", "--part", "bare,spin,park", "--rounds", "1"][..]),
        (1, &["hop", "--part", "envelope", "--rounds", "1"]),
        (1, &["pipeline", "--park", "--back-to-back", "--open", "--quick"]),
        (1, &["pipeline", "--throughput", "--quick"]),
        (1, &["pipeline", "--reliable", "--quick"]),
        (1, &["pipeline", "--flood", "--quick"]),
    ] {
        // Whether a limit holds on a busy machine is not what is asked here.
        let report = json(&support::run(&[&["bench"][..], args, &["--json", "-"]].concat()).out);
        let notes = notes(&report);
        let warm = notes.iter().filter(|note| note.ends_with("warm up and are not counted"));
        assert_eq!(warm.count(), said, "{args:?}: {notes:?}");
    }
}

#[test]
fn a_stream_is_measured_beside_best_effort_and_all_of_it_arrives() {
    let _turn = alone();
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: two ends that spin need two cores");
        return;
    }
    let args = ["bench", "pipeline", "--reliable", "--quick", "--json", "-"];
    let report = json(&support::run(&args).out);
    let compared = report["compared"].as_array().unwrap();
    // The package in compare/zenoh asks for the first two by their names.
    let names = [
        "spinning, saturated: time per delivered message",
        "parked, paced: one way",
        "spinning, paced: one way",
    ];
    for (name, compared) in names.iter().zip(compared) {
        assert_eq!(compared["name"], *name);
        for side in ["base", "subject", "control"] {
            let pooled = &compared[side]["pooled"];
            assert!(pooled["count"].as_u64() > Some(0), "{name}: {side}: {compared}");
            assert!(pooled["mean_ns"].as_f64() > Some(0.0), "{name}: {side}: {compared}");
        }
        assert_eq!(compared["subject"]["name"], "reliable, in order");
    }
    assert_eq!(compared.len(), names.len());
    assert_eq!(compared[0]["limits"]["p50"]["at_most"], 1.3);
    assert!(figure(&report, "messages delivered, reliable, in order") > 0.0);
    assert_eq!(figure(&report, "messages missing, reliable"), 0.0);
}

#[test]
fn an_option_that_would_do_nothing_is_wrong_usage() {
    for (said, args) in [
        (
            "--quick would do nothing here: it is for every form but --idle",
            &["pipeline", "--idle", "--quick"][..],
        ),
        (
            "--rate-hz would do nothing here: it is for the parts matrix, paced",
            &["hop", "--part=spin", "--rate-hz=500"],
        ),
    ] {
        let ran = support::run(&[&["bench"][..], args].concat());
        assert!(ran.code == Some(2) && ran.err.contains(said), "{ran:?}");
    }
}

#[test]
fn one_core_has_a_matrix_of_parked_hops_to_itself() {
    let _turn = alone();
    let matrix = ["hop", "--part", "matrix", "--seconds", "2", "--priority", "0", "--json", "-"];
    let report = json(&on_one_core(&matrix).good());
    let cells = report["matrix"].as_array().unwrap();
    assert_eq!(cells.len(), 2, "{cells:?}");
    for (cell, pace) in cells.iter().zip(["back-to-back", "paced"]) {
        assert_eq!((&cell["from_core"], &cell["to_core"]), (&0.into(), &0.into()));
        assert_eq!((&cell["wait"], &cell["pace"]), (&"parked".into(), &pace.into()));
        let [p50, p99] = ["p50_ns", "p99_ns"].map(|name| cell[name].as_f64().unwrap());
        assert!(p50 > 0.0 && p99 >= p50 && cell["count"].as_u64() >= Some(50), "{cell}");
    }
}

#[test]
fn wake_ups_are_measured_idle_and_under_a_load_that_is_seen_to_run() {
    let _turn = alone();
    let args = ["bench", "wake", "--loops", "200", "--load", "cpu,memory,net,disk", "--json", "-"];
    let report = json(&support::run(&args).good());
    let names = names(&report["measured"]);
    assert!(
        names[0].starts_with("idle: ") && names[1].starts_with("under load (cpu,"),
        "{names:?}"
    );
    for load in ["load cpu", "load memory", "load net", "load disk"] {
        assert!(figure(&report, load) >= 0.0);
    }
    let longest = report["longest"].as_array().unwrap();
    assert_eq!(longest.len(), 10, "five idle and five under load: {longest:?}");
    for one in longest {
        assert!(one["at_s"].as_f64() > Some(0.0) && !one["cause"].as_str().unwrap().is_empty());
    }
}

#[test]
fn ctrl_c_ends_all_benchmarks_with_those_that_there_are() {
    let _turn = alone();
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_sinew")]);
    command.args(["bench", "all", "--priority", "1", "--seconds", "60", "--json", "-"]);
    let process = Process::start(&mut command);
    // The thread that warms up sleeps 100 times.
    until("the first one measures, past its warm-up", || {
        (sleeps(process.id(), "bench-wake") > 200).then_some(())
    });
    process.signal("INT");
    let ran = process.end();
    let report = json(&ran.out);
    assert_eq!(report["interrupted"], true);
    let names = names(&report["measured"]);
    assert!(names.len() == 1 && names[0].starts_with("wake: plain sleep"), "{names:?}");
    let notes = notes(&report);
    for part in ["noise", "hop", "crypto", "guard", "pipeline"] {
        assert!(notes.contains(&format!("{part}: not measured").as_str()), "{part}: {notes:?}");
    }
    assert!(notes.contains(&"wake: measured by sinew bench wake --seconds=9 --priority=1"));
}
