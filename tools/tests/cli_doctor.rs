//! The doctor on written machines, on captured ones, on this one; and what it changes when told to.

mod support;
mod trees;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Ran, json, run, sinew};

fn report(root: &Path) -> Value {
    let config = root.join("sinew.toml");
    let mut command = sinew();
    command.args(["doctor", "--json", "-", "--root"]).arg(root);
    if config.exists() {
        command.arg("--for").arg(config);
    }
    let ran = Ran::of(command.output().unwrap());
    assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    json(&ran.out)
}

fn check(report: &Value, number: u64) -> &Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["number"] == number).unwrap()
}

#[test]
fn every_check_gives_each_written_tree_the_verdict_that_it_deserves() {
    let trees = trees::written();
    let mut wrong = Vec::new();
    for tree in &trees {
        let root = tree.unpack();
        let report = report(root.path());
        let check = check(&report, tree.number);
        if check["verdict"] != *tree.verdict {
            wrong.push(format!("{} {}: {check:#}", tree.number, tree.what));
        }
        let finding = ["warn", "fail"].contains(&&*tree.verdict);
        assert_eq!(check["fix"].is_string() && check["undo"].is_string(), finding, "{check}");
        assert!(!check["value"].as_str().unwrap().is_empty(), "{check}");
        assert!(!check["why"].as_str().unwrap().contains('\n'), "{check}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for number in (1..=31).filter(|number| *number != 20) {
        let has = |passes: bool| {
            let mut of = trees.iter().filter(|tree| tree.number == number);
            of.any(|tree| match passes {
                true => tree.verdict == "ok",
                false => ["warn", "fail"].contains(&&*tree.verdict),
            })
        };
        assert!(
            has(true) && has(false),
            "check {number} needs a tree that passes and one that fails"
        );
    }
}

#[test]
fn management_interrupts_must_not_grow() {
    let root = trees::base();
    assert_eq!(check(&report(root.path()), 20)["verdict"], "n/a");
    trees::management_interrupts(root.path(), "", 3);
    std::fs::create_dir(root.path().join("probed")).unwrap();
    std::fs::write(root.path().join("probed/window_ms"), "500").unwrap();
    for (count, verdict) in [(3, "ok"), (4, "fail")] {
        trees::management_interrupts(root.path(), "later", count);
        let report = report(root.path());
        assert_eq!(check(&report, 20)["verdict"], verdict, "{report:#}");
    }
}

#[test]
fn a_machine_on_which_all_is_well_passes_every_check() {
    let root = trees::tuned();
    let report = report(root.path());
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 31);
    for (check, number) in checks.iter().zip(1..) {
        assert_eq!(
            (&check["number"], &check["verdict"]),
            (&number.into(), &"ok".into()),
            "{check}"
        );
    }
    assert_eq!(report["summary"], "0 fail, 0 warn, 31 ok, 0 n/a: nothing to fix");
}

#[test]
fn an_empty_machine_is_not_guessed_at() {
    let root = trees::base();
    let report = report(root.path());
    let known = ["isolation", "rights"];
    for check in report["checks"].as_array().unwrap() {
        let says = |word: &str| check["value"].as_str().unwrap().contains(word);
        let name = check["name"].as_str().unwrap();
        match check["verdict"].as_str().unwrap() {
            "n/a" => {}
            // What is unknown and could be bad is warned of, and said to be unknown.
            "warn" => assert!(
                says("unreadable")
                    || says("unknown")
                    || says("does not tell")
                    || says("?")
                    || says("run on"),
                "{check}"
            ),
            "ok" => assert!(known.contains(&name) || says("judge with --for"), "{check}"),
            other => panic!("{other}: {check}"),
        }
    }
}

#[test]
fn a_configuration_is_judged_by_its_own_cores_and_priority() {
    let root = trees::tuned();
    let config = |cores: &str, priority: u8| {
        let text = format!(
            "[node]\nname = \"robot\"\nmode = \"development\"\n\n[transport]\nbind = \"127.0.0.1:7400\"\n\n\
             [realtime]\nlayout = \"fused\"\ncores = [{cores}]\npriority = {priority}\n"
        );
        std::fs::write(root.path().join("sinew.toml"), text).unwrap();
        report(root.path())
    };
    let fine = config("2", 80);
    assert_eq!(fine["judged"]["cores"], "2");
    assert_eq!(fine["judged"]["priority"], 80);
    assert_eq!(fine["judged"]["spins"], false);
    assert_eq!(check(&fine, 5)["verdict"], "ok");
    // Core 1 is not isolated, workqueues use it, and callbacks run on it.
    let other = config("1", 80);
    for number in [5, 13] {
        assert_eq!(check(&other, number)["verdict"], "warn", "{number}");
    }
    let error = |text: &str| {
        let path = root.path().join("bad.toml");
        std::fs::write(&path, text).unwrap();
        let root = root.path().to_str().unwrap();
        run(&["doctor", "--root", root, "--for", path.to_str().unwrap()]).error(2)
    };
    let text = std::fs::read_to_string(root.path().join("sinew.toml")).unwrap();
    assert!(error(&text.replace("[1]", "[9]")).contains("core 9 does not exist"));
}

/// The writes of `--apply`, the reading back, and the way back, in a tree of files.
#[test]
fn what_is_applied_is_read_back_and_undone_by_its_script() {
    let (root, here) = (trees::tuned(), tempfile::tempdir().unwrap());
    let governor = |core: u8| {
        root.path().join(format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))
    };
    let watchdog = root.path().join("proc/sys/kernel/soft_watchdog");
    let queue = root.path().join("sys/devices/virtual/workqueue/cpumask");
    std::fs::write(governor(2), "schedutil\n").unwrap();
    std::fs::write(governor(0), "schedutil\n").unwrap();
    std::fs::write(&watchdog, "1\n").unwrap();
    std::fs::write(&queue, "f\n").unwrap();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let apply = |more: &[&str]| {
        let mut command = sinew();
        command.args(["doctor", "--json", "-", "--apply", "--root"]).arg(root.path()).args(more);
        Ran::of(command.current_dir(here.path()).output().unwrap())
    };

    // Nobody can be asked: nothing happens.
    let ran = apply(&[]);
    assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:?}");
    assert!(ran.err.contains("add --yes"), "{ran:?}");
    assert_eq!(read(&watchdog), "1");
    assert!(support::files(here.path()).is_empty());

    let ran = apply(&["--yes"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = "soft_watchdog 1 -> 0";
    let position = |text: &str| ran.err.find(text).unwrap_or_else(|| panic!("{text}: {ran:?}"));
    assert!(position(line) < position("wrote "), "each write is shown beforehand");
    assert_eq!(
        (read(&governor(2)), read(&watchdog), read(&queue)),
        ("performance".into(), "0".into(), "3".into())
    );
    assert_eq!(read(&governor(0)), "schedutil", "no lane runs there");
    let report = json(&ran.out);
    assert_eq!(report["host"]["doctor"]["warn"], 0, "{:#}", report["checks"]);
    assert_eq!(report["applied"]["writes"].as_array().unwrap().len(), 3);

    let script = support::files(here.path());
    let [script] = script.as_slice() else { panic!("{script:?}") };
    let name = script.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("sinew-doctor-undo-20") && name.ends_with(".sh"), "{name}");
    assert_eq!(report["applied"]["undo_script"], script.to_str().unwrap());
    assert!(Command::new("sh").arg(script).status().unwrap().success());
    assert_eq!(
        (read(&governor(2)), read(&watchdog), read(&queue)),
        ("schedutil".into(), "1".into(), "f".into())
    );
}

/// The kernel takes no value for a core that is switched off.
#[test]
fn siblings_go_after_everything_else_and_come_back_before_it() {
    let (root, here) = (trees::tuned(), tempfile::tempdir().unwrap());
    let write = |path: &str, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("sys/devices/system/cpu/smt/active", "1\n");
    write("sys/devices/system/cpu/smt/control", "on\n");
    write("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3\n");
    let irq = "proc/irq/9/smp_affinity_list";
    write(irq, "0-3\n");
    write("proc/irq/9/effective_affinity_list", "2\n");
    let mut command = sinew();
    command.args(["doctor", "--json", "-", "--apply", "--yes", "--root"]).arg(root.path());
    let ran = Ran::of(command.current_dir(here.path()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let applied = &json(&ran.out)["applied"];
    let writes = applied["writes"].as_array().unwrap();
    assert_eq!(writes.len(), 2, "{applied:#}");
    assert_eq!(writes[1]["path"], "/sys/devices/system/cpu/smt/control", "{applied:#}");
    let script = applied["undo_script"].as_str().unwrap();
    let text = std::fs::read_to_string(script).unwrap();
    assert!(text.find("smt/control") < text.find("smp_affinity_list"), "{text}");
    assert!(Command::new("sh").arg(script).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(root.path().join(irq)).unwrap(), "0-3\n");
    // What cannot be put back is said by the exit code, wherever it stands in the script.
    let control = root.path().join("sys/devices/system/cpu/smt/control");
    std::fs::remove_file(&control).unwrap();
    std::fs::create_dir(&control).unwrap();
    assert!(!Command::new("sh").arg(script).output().unwrap().status.success());
}

#[test]
fn a_fix_that_is_refused_is_an_error_and_the_others_are_made() {
    let (root, here) = (trees::tuned(), tempfile::tempdir().unwrap());
    let run = root.path().join("sys/kernel/mm/ksm/run");
    std::fs::write(&run, "1\n").unwrap();
    let tracer = root.path().join("sys/kernel/tracing/current_tracer");
    std::fs::write(&tracer, "function\n").unwrap();
    let as_user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if as_user != 0 {
        return skipped("only root can become a user who may not write");
    }
    let mut permissions = std::fs::metadata(&run).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    std::fs::set_permissions(&run, permissions).unwrap();
    let open = |path: &Path| {
        let mut permissions = std::fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o777);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    open(root.path());
    open(here.path());
    open(&tracer);
    let binary = here.path().join("sinew");
    std::fs::copy(env!("CARGO_BIN_EXE_sinew"), &binary).unwrap();
    let mut command = unprivileged(&binary);
    command.args(["doctor", "--apply", "--yes", "--root"]).arg(root.path());
    let ran = Ran::of(command.current_dir(here.path()).output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("1 of the fixes were refused"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&tracer).unwrap(), "nop\n", "the other one is made");
    assert_eq!(std::fs::read_to_string(&run).unwrap(), "1\n");
}

fn skipped(why: &str) {
    let line = format!("\nSKIPPED: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// A user without any right, as which `binary` is run.
fn unprivileged(binary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.args(["--bounding-set=-all", "prlimit", "--rtprio=0", "--memlock=65536"]).arg(binary);
    command.stdin(std::process::Stdio::null());
    command
}

#[test]
fn a_user_without_rights_gets_a_report_that_marks_what_could_not_be_read() {
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if me != 0 {
        return skipped("only root can become a user without rights");
    }
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("sinew");
    std::fs::copy(env!("CARGO_BIN_EXE_sinew"), &binary).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
    let output = unprivileged(&binary).args(["doctor", "--json", "-"]).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!((ran.code, &*ran.err), (Some(1), ""), "{ran:?}");
    let report = json(&ran.out);
    assert_eq!(report["checks"].as_array().unwrap().len(), 31);
    let rights = check(&report, 18);
    assert_eq!(rights["verdict"], "fail");
    assert!(rights["value"].as_str().unwrap().contains("RTPRIO 0 < 75"), "{rights}");
    assert_eq!(check(&report, 19)["verdict"], "fail", "memory cannot be locked");
    let unread = report["unread"].to_string();
    assert!(unread.contains("/dev/cpu_dma_latency") || unread.contains("fair_server"), "{unread}");
}

#[test]
fn a_look_at_this_machine_watches_for_as_long_as_it_was_told_and_says_how_long_it_took() {
    let ran = run(&["doctor", "--watch", "0.2", "--json", "-"]);
    assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    let report = json(&ran.out);
    let window_ms = report["judged"]["window_ms"].as_u64().unwrap();
    let took_ms = report["took_ms"].as_u64().unwrap();
    assert!(window_ms >= 200, "{window_ms}");
    assert!(took_ms >= window_ms, "{took_ms} of which {window_ms}");
    assert!(report["judged"]["root"].is_null());

    // Without a window, what must not grow cannot be judged, and that takes no time.
    let report = json(&run(&["doctor", "--watch", "0", "--json", "-"]).out);
    assert!(report["judged"]["window_ms"].is_null());
    assert_eq!(check(&report, 22)["verdict"], "n/a", "one look shows no growth");
    for bad in ["-1", "x", "1e9", "nan"] {
        let watch = format!("--watch={bad}");
        assert_eq!(run(&["doctor", &watch]).code, Some(2), "{bad}");
    }
}

#[test]
fn a_capture_of_this_machine_gets_the_verdicts_that_the_machine_gets() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["here.tar", "here.tar.gz"] {
        let path = dir.path().join(name);
        let said = run(&["doctor", "--watch", "0.05", "--capture", path.to_str().unwrap()]).good();
        assert!(said.contains("sinew doctor --root "), "{said}");
        let there = report(&path);
        let here = json(&run(&["doctor", "--watch", "0.05", "--json", "-"]).out);
        // Verdicts on settings, which do not change by themselves. What only trying shows may differ.
        for number in [1, 2, 4, 5, 6, 7, 10, 11, 13, 14, 15, 16, 17, 23, 24, 25, 26, 28, 30] {
            let (there, here) = (check(&there, number), check(&here, number));
            assert_eq!(there["verdict"], here["verdict"], "{name}: {there} {here}");
        }
        assert!(there["judged"]["window_ms"].as_u64().unwrap() >= 50);
        assert!(there["unread"].to_string().contains("what only trying shows"));
        assert!(there["host"]["scheduling"].as_array().unwrap().is_empty());
        let error = run(&["doctor", "--apply", "--yes", "--root", path.to_str().unwrap()]).error(2);
        assert!(error.contains("unpack it"), "{error}");
    }
    let error = run(&["doctor", "--root", "/dev/null"]).error(2);
    assert!(error.contains("give a directory"), "{error}");
}

/// Archives that `sinew doctor --capture` wrote on one machine, a virtual one with two cores: by root; by
/// root in a PID namespace and a CPU cgroup of version 1 with a quota of half a core and no real-time
/// runtime; and by a user without any right.
#[test]
fn captured_machines_are_judged_as_they_were() {
    let judged = |name: &str| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trees/captured");
        report(&path.join(name).with_extension("tar.gz"))
    };
    let verdicts = |report: &Value, numbers: &[u64]| -> Vec<String> {
        let verdict = |number| check(report, number)["verdict"].as_str().unwrap().to_owned();
        numbers.iter().map(|number| verdict(*number)).collect()
    };
    let begins = |report: &Value, text: &str| {
        let summary = report["summary"].as_str().unwrap();
        assert!(summary.starts_with(text), "{summary}");
    };
    let settings = [1, 2, 3, 4, 5, 8, 10, 13, 14, 16, 17, 20, 24, 28];
    let expected = "warn n/a ok ok warn warn warn warn warn warn ok n/a n/a warn";

    let root = judged("2-core-vm-root");
    assert_eq!(verdicts(&root, &settings).join(" "), expected);
    assert_eq!(verdicts(&root, &[9, 18, 19, 29]), ["ok", "ok", "ok", "ok"]);
    begins(&root, "0 fail, ");
    assert!(
        root["summary"].as_str().unwrap().contains("first fix 1 kernel type: install a PREEMPT_RT")
    );

    let container = judged("2-core-vm-container");
    assert_eq!(verdicts(&container, &settings).join(" "), expected);
    assert_eq!(verdicts(&container, &[9, 12, 18, 29]), ["n/a", "n/a", "fail", "n/a"]);
    begins(&container, "1 fail, ");
    let fix = "first fix 18 rights: echo 950000 > /sys/fs/cgroup/cpu/robot/cpu.rt_runtime_us";
    assert!(container["summary"].as_str().unwrap().ends_with(fix), "{}", container["summary"]);
    assert!(container["unread"].to_string().contains("outside a container"));

    let user = judged("2-core-vm-unprivileged");
    assert_eq!(verdicts(&user, &settings).join(" "), expected);
    assert_eq!(verdicts(&user, &[18, 19]), ["fail", "fail"]);
    begins(&user, "2 fail, ");
    assert!(user["unread"].to_string().contains("/sys/kernel/tracing/current_tracer"));
    assert!(!root["unread"].to_string().contains("/sys/kernel/tracing/current_tracer"));
}
