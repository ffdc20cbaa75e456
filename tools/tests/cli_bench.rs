//! `sinew bench`: a short run of the pipeline says what it measured, Ctrl-C ends a long one with what
//! there is and leaves nothing behind, and a machine with one core is told what can be done on it.
//!
//! Everything here parks: nothing spins, and no figure is looked at.

mod support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Process, Ran, json, sinew, until};

/// The shortest measurement between two processes, in which nothing spins.
const PARKED: [&str; 5] = ["bench", "pipeline", "--park", "--paced", "--open"];

#[test]
fn a_short_pipeline_reports_both_sides_and_ends_by_itself() {
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
    for args in [&["wake", "--loops", "10"][..], &["guard", "--bursts", "1"]] {
        let ran = on_one_core(&[args, &["--priority", "0", "--json", "-"]].concat());
        let report = json(&ran.good());
        assert_eq!(report["threads"][0]["cores"], "0", "{args:?}: {report}");
    }
    let error = on_one_core(&["hop", "--rounds", "1"]).error(3);
    assert!(error.contains("a hop takes two cores") && error.contains("only core 0"), "{error}");
}
