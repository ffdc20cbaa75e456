//! `sinew demo` as its users run it: the real binary, real processes, real sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

const SINEW: &str = env!("CARGO_BIN_EXE_sinew");

/// A watchdog, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs that a stall of the machine may spoil before a test gives up.
const ATTEMPTS: usize = 3;

/// One demo at a time: each takes both cores of a small machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program with its temporary files in `temporary`.
fn program(path: impl AsRef<Path>, temporary: &Path) -> Command {
    let mut command = Command::new(path.as_ref());
    command.env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error} in {text}\nand said {}", String::from_utf8_lossy(&output.stderr))
    })
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no list {name} in {value:#}"))
}

fn nanos(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {value:#}"))
}

/// Runs until the demo passes. When it says that the machine stalled (exit code 3, with the length
/// of the stall) it is run again.
fn passing(mut run: impl FnMut() -> (Output, Value)) -> (Output, Value) {
    for _ in 0..ATTEMPTS {
        let (output, report) = run();
        if output.status.code() == Some(0) {
            return (output, report);
        }
        assert_eq!(output.status.code(), Some(3), "{report:#}");
        println!("the machine stalled for {} ns: once more", nanos(&report, "longest_stall_ns"));
    }
    panic!("the machine stalled in each of {ATTEMPTS} runs");
}

#[test]
fn a_killed_controller_stops_the_robot_in_time_and_its_next_life_balances_again() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let (output, report) = passing(|| {
        let mut command = program(SINEW, scratch.path());
        let output = command.args(["demo", "--seconds", "8", "--json", "-"]).output().unwrap();
        let report = json(&output);
        (output, report)
    });
    assert_eq!(report["version"], 1);
    assert_eq!(report["verdict"], "pass");
    assert_eq!(list(&report, "checks").len(), 8);
    for check in list(&report, "checks") {
        assert_eq!(check["finding"], "pass", "{check}");
    }

    let (limits, timeline) = (&report["limits"], &report["timeline"]);
    let took = nanos(timeline, "last_setpoint_to_safe_stop_ns");
    assert!(took > nanos(limits, "setpoint_deadline_ns"), "stopped too early: {took} ns");
    assert!(took <= nanos(limits, "safe_stop_limit_ns"), "stopped too late: {took} ns");
    assert!(nanos(timeline, "kill_to_safe_stop_ns") <= took);
    assert_eq!(timeline["stop_cause"], "an input is older than its deadline");
    assert_eq!(timeline["controller_epochs"], serde_json::json!([1, 2]));
    assert!(nanos(timeline, "rearm_to_balanced_ns") > 0);

    let processes = list(&report, "processes");
    let roles: Vec<_> = processes.iter().map(|process| process["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["robot", "controller", "controller"]);
    assert_eq!(processes[1]["identity"], processes[2]["identity"], "the same key");
    assert_ne!(processes[0]["identity"], processes[1]["identity"]);
    assert!(processes[1]["ended"].as_str().unwrap().contains("SIGKILL"));
    for process in processes {
        assert_eq!(list(process, "threads").len(), 2, "the loop and the fused lane");
        let row = |name: &str| {
            let found = list(process, "rows").iter().find(|row| row["name"] == name);
            found.unwrap_or_else(|| panic!("no row {name} in {process:#}"))
        };
        for name in ["receive", "verify", "deliver", "send"] {
            assert!(nanos(row(name), "budget_ns") > 0);
        }
        for name in ["receive", "verify", "deliver", "send", "loop wake-up", "message age"] {
            assert!(nanos(row(name), "count") > 100, "{name} of {process:#}");
        }
    }
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("killed with SIGKILL") && told.contains("epoch 2"), "{told}");
    assert_nothing_left(scratch.path(), &report);
}

/// Keeps every other thread from `core` for `length`. False where the kernel refuses the priority.
fn occupy(core: usize, length: Duration) -> bool {
    let set = |policy, priority| {
        let parameters = libc::sched_param { sched_priority: priority };
        // SAFETY: the parameters are valid for the call; 0 means this thread.
        unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
    };
    // SAFETY: all-zero bytes are a valid, empty set of cores.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core is within the set's size: see the assertion.
    unsafe { libc::CPU_SET(core, &mut cores) };
    assert!(core < libc::CPU_SETSIZE as usize);
    // SAFETY: the set is valid and as large as is said; 0 means this thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) } != 0 {
        return false;
    }
    if !set(libc::SCHED_FIFO, 99) {
        return false;
    }
    let until = Instant::now() + length;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    set(libc::SCHED_OTHER, 0)
}

#[test]
fn after_a_stall_that_stops_both_loops_the_pole_is_balanced_again() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let mut command = program(SINEW, scratch.path());
    command.args(["demo", "--no-kill", "--seconds", "4", "--json", "-"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    children_of(&running);
    std::thread::sleep(Duration::from_millis(500));
    // Longer than the deadline of 20 ms, and far below what the kernel's throttling allows.
    let occupiers: Vec<_> = (0..cores)
        .map(|core| std::thread::spawn(move || occupy(core, Duration::from_millis(40))))
        .collect();
    let occupied = occupiers.into_iter().all(|thread| thread.join().unwrap());
    let report = json(&running.wait_with_output().unwrap());
    if !occupied {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: the kernel grants no SCHED_FIFO to stall the machine with\n",
        );
        return;
    }
    let stops = list(&report["timeline"], "unplanned_safe_stops");
    let of = |role: &str| stops.iter().any(|stop| stop.as_str().unwrap().starts_with(role));
    assert!(of("robot: ") && of("controller: "), "both loops stopped: {report:#}");
    for check in list(&report, "checks") {
        let expected = match check["name"].as_str() {
            Some("no other safe stop") => "machine",
            _ => "pass",
        };
        assert_eq!(check["finding"], expected, "{check}");
    }
    assert_eq!(report["verdict"], "machine", "{report:#}");
}

#[test]
fn without_privileges_it_works_and_every_output_is_branded() {
    let _alone = alone();
    // SAFETY: geteuid takes nothing, cannot fail and touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    if root && Command::new("setpriv").arg("--version").output().is_err() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: run by root, and there is no setpriv to give privileges up with\n",
        );
        return;
    }
    // Where a stranger can run the program and write.
    let scratch = tempfile::tempdir().unwrap();
    let (sinew, temporary) = (scratch.path().join("sinew"), scratch.path().join("tmp"));
    std::fs::copy(SINEW, &sinew).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    for (path, mode) in [(scratch.path(), 0o755), (&temporary, 0o1777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let report_file = temporary.join("report.json");
    let run = || {
        let mut command = program(if root { Path::new("setpriv") } else { &sinew }, &temporary);
        if root {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(&sinew);
        }
        command.args(["demo", "--no-kill", "--seconds", "4", "--layout", "split", "--json"]);
        let output = command.arg(&report_file).output().unwrap();
        let report = std::fs::read_to_string(&report_file)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (output, serde_json::from_str::<Value>(&report).unwrap())
    };
    // Without priority a busy machine may stall every run: then the demo must say that it was the
    // machine, and the last one is still branded.
    let mut tried = run();
    for _ in 1..ATTEMPTS {
        if tried.0.status.success() {
            break;
        }
        tried = run();
    }
    let (output, report) = tried;
    match (output.status.code(), report["verdict"].as_str()) {
        (Some(0), Some("pass")) | (Some(3), Some("machine")) => {}
        other => panic!("{other:?}: {report:#}"),
    }
    let threads = list(&report, "processes").iter().flat_map(|process| list(process, "threads"));
    let granted: Vec<&str> = threads.map(|thread| thread["granted"].as_str().unwrap()).collect();
    assert_eq!(granted.len(), 2 * (1 + 3), "a loop and three lanes each");
    let refused = granted.contains(&"SCHED_OTHER");
    assert!(refused || !root, "without capabilities no thread is real-time: {granted:?}");
    let branded = !list(&report, "not_real_time").is_empty();
    assert!(branded || !refused, "{report:#}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.contains("NOT REAL-TIME"), branded, "{text}");
    std::fs::remove_file(&report_file).unwrap();
    assert_nothing_left(&temporary, &report);
}

#[test]
fn an_interrupt_ends_everything_and_reports_what_was_measured_so_far() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let mut command = program(SINEW, scratch.path());
    command.args(["demo", "--layout", "pipelined", "--json", "-"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children = children_of(&running);
    assert_eq!(children.len(), 2);
    signal(running.id(), libc::SIGINT);
    let output = running.wait_with_output().unwrap();
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["verdict"], "interrupted", "{report:#}");
    for process in list(&report, "processes") {
        assert!(children.contains(&(nanos(process, "pid") as u32)), "{process} of {children:?}");
        assert_eq!(process["ended"], "exit status: 0");
        assert!(process["layout"].as_str().unwrap().starts_with("pipelined: receive on core"));
    }
    assert_nothing_left(scratch.path(), &report);
}

#[test]
fn processes_do_not_outlive_a_parent_that_is_killed() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let mut command = program(SINEW, scratch.path());
    let mut running = command.arg("demo").stderr(Stdio::null()).spawn().unwrap();
    let children = children_of(&running);
    assert_eq!(children.len(), 2);
    running.kill().unwrap();
    running.wait().unwrap();
    until("the children are gone", || !children.iter().any(|pid| is_running(*pid)));
    // Nobody is left to remove the directory; the panels were removed by their own processes.
    assert_eq!(panels_of(running.id()), Vec::<PathBuf>::new());
}

#[test]
fn what_makes_no_sense_is_a_usage_error_that_says_what_would() {
    for (arguments, hint) in [
        (&["--seconds", "7"][..], "give 8 to 86400"),
        (&["--seconds", "3", "--no-kill"], "give 4 to 86400"),
        (&["--layout", "fast"], "fused, split, pipelined, auto"),
    ] {
        let output = Command::new(SINEW).arg("demo").args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(hint), "{arguments:?}: {told}");
    }
}

/// No process, no temporary file, no panel.
fn assert_nothing_left(temporary: &Path, report: &Value) {
    for process in list(report, "processes") {
        assert!(!is_running(nanos(process, "pid") as u32), "{process:#} is left");
    }
    let files: Vec<_> = std::fs::read_dir(temporary).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files, Vec::<PathBuf>::new());
    assert_eq!(panels_of(nanos(report, "pid") as u32), Vec::<PathBuf>::new());
}

/// The panels of a demo, whichever user ran it.
fn panels_of(demo: u32) -> Vec<PathBuf> {
    let directories = std::fs::read_dir("/dev/shm").unwrap().filter_map(Result::ok);
    let ours = directories.filter(|entry| entry.file_name().to_string_lossy().starts_with("sinew"));
    ours.filter_map(|directory| std::fs::read_dir(directory.path()).ok())
        .flat_map(|panels| panels.filter_map(Result::ok))
        .map(|panel| panel.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("demo-") && name.contains(&format!("-{demo}."))
        })
        .collect()
}

/// The processes of a demo, once both show their panels.
fn children_of(demo: &Child) -> Vec<u32> {
    until("both processes run", || panels_of(demo.id()).len() == 2);
    let path = format!("/proc/{0}/task/{0}/children", demo.id());
    let list = std::fs::read_to_string(path).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether a process runs; one that only waits to be collected does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: kill takes two numbers and touches no memory; the process is a child that has not
    // been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < give_up, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
