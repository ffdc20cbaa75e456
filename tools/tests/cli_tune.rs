//! `sinew tune`: what it writes is what a node accepts, it replaces nothing unasked, Ctrl-C leaves
//! nothing behind, and without the rights of a robot it says so everywhere.
//!
//! No figure is looked at, but that it is there: the machine that runs the tests is busy.

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Process, Ran, json, run, sinew, until};

/// A short run that writes `out` and prints JSON.
fn quick(out: &Path, more: &[&str]) -> Command {
    let mut command = sinew();
    command.args(["tune", "--quick", "--json", "-", "--out"]).arg(out).args(more);
    command
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_run_by_a_node_and_never_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sinew.toml");
    // A budget that any machine meets.
    let ran = Ran::of(quick(&out, &["--budget-us", "1000000"]).output().unwrap());
    let report = json(&ran.good());
    assert_eq!((&report["version"], &report["report"]), (&1.into(), &"tune".into()));
    assert_eq!((&report["interrupted"], &report["budget"]["met"]), (&false.into(), &true.into()));
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(names(dir.path()), ["sinew.toml"]);

    // Every choice has its reason, and the file says it too.
    let choices = report["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 8, "{choices:?}");
    for choice in choices {
        let (what, why) = (choice["what"].as_str().unwrap(), choice["why"].as_str().unwrap());
        assert!(!why.is_empty(), "{choice}");
        assert!(text.contains(&format!("# {what}: ")), "{what} is not in\n{text}");
    }
    // Idle and loaded, default and tuned, and what keeps a core awake.
    for part in report["compared"].as_array().unwrap() {
        for side in ["base", "subject", "control"] {
            assert!(part[side]["pooled"]["count"].as_u64().unwrap() > 100, "{part}");
        }
    }
    let usable = report["host"]["cores_usable"].as_str().unwrap();
    let parts = if usable == "0" { 1 } else { 2 };
    let methods = |method: &str| {
        let all = report["measured"]["idle"].as_array().unwrap();
        all.iter().filter(|cost| cost["method"] == method).count()
    };
    assert_eq!((methods("plain"), methods("keep_awake")), (parts, parts), "{report}");
    let verdict = report["beside"].as_str().unwrap();
    assert!(["beats", "equals", "worse"].contains(&verdict), "{verdict}");
    assert!(text.contains("the default configuration"), "{text}");

    // A node takes it as it is: only the port, which another test may have, is changed.
    run(&["key", "new", dir.path().join("robot.key").to_str().unwrap()]).good();
    let moved = text.replace("127.0.0.1:7401", "127.0.0.1:0");
    let moved = match report["not_real_time"].as_array().unwrap().is_empty() {
        true => moved,
        // Production requires what this machine does not grant.
        false => moved.replace("[realtime]\n", "[realtime]\nstrictness = \"report\"\n"),
    };
    let config = dir.path().join("moved.toml");
    std::fs::write(&config, moved).unwrap();
    let mut command = sinew();
    command.args(["node", "run"]).arg(&config).args(["--json", "-", "--panel-dir"]);
    let mut node = Process::start(command.arg(dir.path()));
    let started = json(&node.line("{"));
    assert_eq!(started["event"], "started");
    let chosen = report["chosen"].as_str().unwrap();
    assert!(chosen.starts_with(started["layout"].as_str().unwrap()), "{chosen}: {started}");
    node.signal("TERM");
    node.end().good();

    // The same again finds the file, and leaves it.
    let error = Ran::of(quick(&out, &[]).output().unwrap()).error(2);
    assert!(error.contains("exists already") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text);
}

#[test]
fn ctrl_c_writes_no_file_and_says_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sinew.toml");
    let mut command = sinew();
    command.args(["tune", "--json", "-", "--out"]).arg(&out).process_group(0);
    let process = Process::start(&mut command);
    // A trial runs when there is a lane: the parts have been measured by then.
    until("two nodes talk", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).ok()?.flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "lane").then_some(())
    });
    process.signal("INT");
    let ran = process.end();
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let report = json(&ran.out);
    assert_eq!((&report["interrupted"], &report["written"]), (&true.into(), &Value::Null));
    assert!(!report["measured"]["cores"].as_array().unwrap().is_empty(), "{report}");
    assert!(!report["measured"]["idle"].as_array().unwrap().is_empty(), "{report}");
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn a_budget_that_no_machine_meets_and_rights_that_are_missing_are_said_in_the_file() {
    const NOBODY: u32 = 65_534;
    // SAFETY: no arguments, no memory.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: only root can become another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Where everybody may run it.
    let copy = dir.path().join("sinew");
    std::fs::copy(env!("CARGO_BIN_EXE_sinew"), &copy).unwrap();
    let out = dir.path().join("tuned.toml");
    let mut command = Command::new(&copy);
    command.args(["tune", "--quick", "--budget-us", "1", "--out"]).arg(&out);
    let ran = Ran::of(command.uid(NOBODY).gid(NOBODY).output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.out.contains("THE BUDGET IS NOT MET: p99 "), "{}", ran.out);
    assert!(ran.out.contains("NOT REAL-TIME: "), "{}", ran.out);
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("# THE BUDGET IS NOT MET") && text.contains("# NOT REAL-TIME"), "{text}");
}
