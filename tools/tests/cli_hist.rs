//! `sinew hist` reads the panel of a process that runs and of one that was killed, and changes
//! neither; what it exports has the same quantiles.

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Kind, Panel, PanelReader, PanelSpec, State};
use support::{Process, Ran, json, run, sinew, until};

/// Tells the process of its own where its panel goes.
const DIRECTORY: &str = "SINEW_TEST_PANEL_DIR";
/// And what it is called, if not `loop`.
const NAME: &str = "SINEW_TEST_PANEL_NAME";

/// The process that the tests look at: a guarded loop that records thousands of executions with a
/// long tail and some overruns, says so, and goes on until its standard input ends.
#[test]
#[ignore = "a process of its own, which the other tests start"]
fn a_guarded_loop() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let name = std::env::var(NAME).unwrap_or("loop".to_owned());
    let panel = Panel::create(&PanelSpec::new(name).in_dir(dir)).unwrap();
    panel.set_layout("one loop");
    panel.set_not_real_time(&["a test"]);
    let spec = GuardSpec {
        budget: Nanos::from_micros(500),
        hard_limit: Nanos::from_secs(1),
        ladder: LadderConfig::report_only(),
    };
    let mut guard = Guard::new(panel.probe("work/step", Some(0)).unwrap(), spec).unwrap();
    let wake_up = panel.recorder("work/step", Kind::WakeUp).unwrap();
    panel.set_state(State::Running);
    // Instants that the loop made up: exact values, and 20,000 of them in no time.
    let mut step = |n: i64| {
        let begin = clock::now();
        let tail = if n % 1_000 == 999 { 400_000 + n * 10 } else { 0 };
        guard.enter(begin);
        guard.exit(
            begin + Nanos::new(10_000 + 13 * (n % 500) + tail),
            Execution::Worked { released: begin - Nanos::from_micros(n % 70) },
        );
        wake_up.record(Nanos::new(n % 3_000), begin);
        panel.heartbeat(begin);
    };
    (0..20_000).for_each(&mut step);
    println!("\nready");
    let (ended, input_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let mut n = 20_000;
    while input_ended.recv_timeout(std::time::Duration::from_millis(1)).is_err() {
        step(n);
        n += 1;
    }
}

fn guarded_loop(dir: &Path) -> Process {
    named_loop(dir, "loop")
}

fn named_loop(dir: &Path, name: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_guarded_loop", "--ignored", "--nocapture"]);
    command.env(DIRECTORY, dir).env(NAME, name).stdin(Stdio::piped());
    let mut process = Process::start(&mut command);
    process.line("ready");
    process
}

/// A guarded loop that was killed in the middle, and the directory of its panel.
fn killed_loop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let process = guarded_loop(dir.path());
    process.signal("KILL");
    assert_eq!(process.end().code, None, "killed");
    dir
}

fn hist(dir: &Path, args: &[&str]) -> Ran {
    run(&[&["hist", "--panel-dir", dir.to_str().unwrap()], args].concat())
}

const QUANTILES: [f64; 9] = [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0];

fn assert_same_quantiles(what: &str, one: &Histogram<u64>, other: &Histogram<u64>) {
    assert_eq!(one.len(), other.len(), "{what}");
    for quantile in QUANTILES {
        let (one, other) = (one.value_at_quantile(quantile), other.value_at_quantile(quantile));
        assert_eq!(one, other, "{what} at {quantile}");
    }
}

#[test]
fn a_running_process_is_shown_and_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let process = guarded_loop(dir.path());
    // Stopped, so that whatever changes the panel or the process can only be the reader.
    process.signal("STOP");
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // Each of its threads: they stop one after the other.
    let tasks = format!("/proc/{}/task", process.id());
    let is_stopped = || {
        std::fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        })
    };
    until("the process is stopped", || is_stopped().then_some(()));
    let panel = dir.path().join("loop.panel");
    let facts = || {
        let meta = panel.metadata().unwrap();
        let tracer = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        (std::fs::read(&panel).unwrap(), meta.modified().unwrap(), state(), tracer)
    };
    let before = facts();
    let text = hist(dir.path(), &["loop", "--plot"]).good();
    let report = json(&hist(dir.path(), &["loop", "--json", "-"]).good());
    let after = facts();
    assert!(before == after, "panel, process or its tracer changed by being looked at");
    assert!(after.3.contains("TracerPid:\t0"));

    assert!(text.starts_with("NOT REAL-TIME: a test\n"), "{text}");
    assert!(text.contains("loop · running (process "), "{text}");
    assert!(text.contains("work/step") && text.contains("500.0 µs"), "{text}");
    assert!(text.contains("Last trips:\n  work/step #"), "{text}");
    assert!(text.contains("99.9 %") && text.contains("a work/step execution"), "{text}");
    assert!(!text.contains('\x1b'), "no colours without a terminal");
    let shown = &report["panels"][0];
    assert_eq!((&shown["alive"], &shown["state"]), (&true.into(), &"running".into()));
    assert_eq!(shown["pid"], process.id());

    process.signal("CONT");
    let count = || {
        let report = json(&hist(dir.path(), &["loop", "--json", "-"]).good());
        report["panels"][0]["histograms"][0]["count"].as_u64().unwrap()
    };
    let first = count();
    until("the process has gone on", || (count() > first).then_some(()));
}

#[test]
fn the_panel_is_opened_for_reading_only() {
    let dir = killed_loop();
    let panel = dir.path().join("loop.panel");
    // A file that nobody may write: whoever asked for more than reading would be refused, unless
    // it is root; so root gives up its rights first.
    let mut permissions = panel.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    std::fs::set_permissions(&panel, permissions).unwrap();
    let mut open = std::fs::metadata(dir.path()).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let plain = sinew().args(["hist", panel.to_str().unwrap()]).output().unwrap();
    Ran::of(plain).good();
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if me != 0 {
        return;
    }
    let binary = copy_for_everybody(dir.path());
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    other.arg(binary).arg("hist").arg(&panel);
    let text = Ran::of(other.output().expect("setpriv(1) exists")).good();
    assert!(text.contains("killed or crashed"), "{text}");
}

/// The command where other users can execute it: the build's directory may be closed to them.
fn copy_for_everybody(dir: &Path) -> std::path::PathBuf {
    let copy = dir.join("sinew");
    std::fs::copy(env!("CARGO_BIN_EXE_sinew"), &copy).unwrap();
    copy
}

#[test]
fn a_killed_process_still_shows_its_last_figures_by_name_and_by_path() {
    let dir = killed_loop();
    let path = dir.path().join("loop.panel");
    for wanted in ["loop", path.to_str().unwrap()] {
        let text = hist(dir.path(), &[wanted]).good();
        assert!(text.contains("killed or crashed, these are its last figures"), "{text}");
    }
    let reader = PanelReader::open(&path).unwrap();
    let snapshot = reader.snapshot().unwrap();
    let report = json(&hist(dir.path(), &["loop", "--json", "-"]).good());
    assert_eq!((&report["version"], &report["report"]), (&1.into(), &"hist".into()));
    let shown = &report["panels"][0];
    assert_eq!((&shown["alive"], &shown["state"]), (&false.into(), &"killed".into()));
    assert_eq!(shown["not_real_time"][0], "a test");
    assert!(shown["uptime_ns"].as_i64().unwrap() > 0);
    let histograms = shown["histograms"].as_array().unwrap();
    assert_eq!(histograms.len(), snapshot.histograms.len());
    for (shown, real) in histograms.iter().zip(&snapshot.histograms) {
        assert_eq!(shown["name"], real.name);
        assert_eq!(shown["count"], real.count);
        for (name, quantile) in [
            ("p50_ns", 0.5),
            ("p90_ns", 0.9),
            ("p99_ns", 0.99),
            ("p99_9_ns", 0.999),
            ("p99_99_ns", 0.9999),
        ] {
            assert_eq!(shown[name], real.quantile(quantile).as_nanos(), "{name} of {}", real.name);
        }
        assert_eq!(shown["max_ns"], real.max.as_nanos());
    }
    let probe = snapshot.probe("work/step").unwrap();
    assert!(probe.overruns > 0, "the test is about overruns too");
    assert_eq!(histograms[0]["overruns"], probe.overruns);
    assert_eq!(histograms[0]["budget_ns"], 500_000);
    let trips = shown["trips"].as_array().unwrap();
    assert_eq!(trips.len(), snapshot.trips.len());
    assert_eq!(trips.last().unwrap()["number"], probe.overruns);

    // The next process of that name moves the panel aside; the evidence keeps its name.
    let next = guarded_loop(dir.path());
    let listed = json(&hist(dir.path(), &["--json", "-"]).good());
    let states: Vec<_> =
        listed["panels"].as_array().unwrap().iter().map(|p| (&p["name"], &p["state"])).collect();
    assert_eq!(states, [(&"loop".into(), &"killed".into()), (&"loop".into(), &"running".into())]);
    assert!(hist(dir.path(), &["loop"]).good().contains("loop · running"));
    let crashed = dir.path().join("loop.crashed.panel");
    assert!(hist(dir.path(), &[crashed.to_str().unwrap()]).good().contains("killed or crashed"));
    let table = hist(dir.path(), &[]).good();
    assert!(table.contains("NOT REAL-TIME") && table.contains("loop.crashed.panel"), "{table}");
    drop(next);
    std::fs::remove_file(&path).unwrap();
    assert!(hist(dir.path(), &["loop"]).good().contains("killed or crashed"), "found by name");
}

#[test]
fn hgrm_files_have_the_quantiles_of_the_panel() {
    let dir = killed_loop();
    let out = dir.path().join("out");
    hist(dir.path(), &["loop", "--hgrm", out.to_str().unwrap()]).good();
    let snapshot = PanelReader::open(dir.path().join("loop.panel")).unwrap().snapshot().unwrap();
    let names: Vec<_> = support::files(&out)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "loop-work_step-execution.hgrm",
            "loop-work_step-release.hgrm",
            "loop-work_step-wake-up.hgrm"
        ]
    );
    for (name, kind) in names.iter().zip([Kind::Execution, Kind::ReleaseLatency, Kind::WakeUp]) {
        let real = &snapshot.histogram("work/step", kind).unwrap().hdr;
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        let (read, rows) = read_hgrm(&text);
        assert_eq!(read.len(), real.len());
        assert!(real.equivalent(read.max(), real.max()));
        assert!(rows.len() > 20, "{text}");
        let (first, rows) = rows.split_first().unwrap();
        assert_eq!(first.1, 0.0);
        assert!(real.equivalent(first.0, real.min()), "the crate gives its lower end at 0");
        for &(value, quantile) in rows {
            // What the line says, and what the crate makes of all lines together. A quantile is
            // written with twelve digits, which may round it over the edge of a bucket.
            for histogram in [real, &read] {
                let from = histogram.value_at_quantile(quantile - 1e-9);
                let to = histogram.value_at_quantile(quantile + 1e-9);
                assert!((from..=to).contains(&value), "{name} at {quantile}: {value}, {from}-{to}");
            }
        }
        let foot = format!("Total count    = {:>12}]", real.len());
        assert!(text.contains(&foot), "{text}");
    }

    let one = dir.path().join("one.hgrm");
    let error = hist(dir.path(), &["loop", "--hgrm", one.to_str().unwrap()]).error(2);
    assert!(error.contains("3 histograms; give a directory"), "{error}");
}

/// A histogram of the crate that was filled from the lines of a percentile distribution, and the
/// lines' values and quantiles.
fn read_hgrm(text: &str) -> (Histogram<u64>, Vec<(u64, f64)>) {
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
    let (mut histogram, mut rows, mut total) = (sinew_rt::histogram::empty(), Vec::new(), 0);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [value, quantile, count, inverse] = fields[..] else { panic!("{line}") };
        let (value, quantile) = (value.parse().unwrap(), quantile.parse().unwrap());
        let count: u64 = count.parse().unwrap();
        histogram.record_n(value, count - total).unwrap();
        total = count;
        rows.push((value, quantile));
        let inverse: f64 = inverse.parse().unwrap();
        assert!(inverse >= 1.0 && (inverse.is_finite() == (quantile < 1.0)), "{line}");
    }
    (histogram, rows)
}

/// The intervals of a log by tag, in order.
fn read_hlog(path: &Path) -> Vec<(String, f64, Histogram<u64>)> {
    let bytes = std::fs::read(path).unwrap();
    let mut deserializer = Deserializer::new();
    let mut intervals = Vec::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(interval) = entry.expect("the crate reads the log") else {
            continue;
        };
        let encoded = decode_base64(interval.encoded_histogram());
        let histogram = deserializer.deserialize(&mut &encoded[..]).expect("and its histograms");
        let tag = interval.tag().expect("tagged").as_str().to_owned();
        intervals.push((tag, interval.duration().as_secs_f64(), histogram));
    }
    intervals
}

fn decode_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|byte| *byte != b'=');
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).expect("base64") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn an_interval_log_has_the_quantiles_of_the_panel() {
    let dir = killed_loop();
    let log = dir.path().join("loop.hlog");
    hist(dir.path(), &["loop", "--hlog", log.to_str().unwrap()]).good();
    let snapshot = PanelReader::open(dir.path().join("loop.panel")).unwrap().snapshot().unwrap();
    let intervals = read_hlog(&log);
    let tags: Vec<_> = intervals.iter().map(|(tag, ..)| tag.as_str()).collect();
    assert_eq!(tags, ["work_step-execution", "work_step-release", "work_step-wake-up"]);
    for ((tag, seconds, read), real) in intervals.iter().zip(&snapshot.histograms) {
        assert_same_quantiles(tag, read, &real.hdr);
        assert!(*seconds > 0.0, "as long as the process lived");
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("#loop: NOT REAL-TIME: a test"), "{text}");
}

#[test]
fn following_redraws_ends_by_itself_or_with_ctrl_c_and_logs_what_happened_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = guarded_loop(dir.path());
    let log = dir.path().join("follow.hlog");
    let follow = |args: &[&str]| {
        let mut command = sinew();
        command.args(["hist", "loop", "--follow", "--panel-dir", dir.path().to_str().unwrap()]);
        Process::start(command.args(args))
    };
    let mut by_hand = follow(&[]);
    by_hand.line("loop · running");
    by_hand.signal("INT");
    by_hand.end().good();

    let mut logging = follow(&["--hlog", log.to_str().unwrap()]);
    for _ in 0..3 {
        logging.line("loop · running");
    }
    // The end of its input ends the loop without a farewell: a process that failed.
    drop(process.child.stdin.take());
    process.end();
    logging.line("loop · failed");
    logging.end().good();
    let intervals = read_hlog(&log);
    assert!(intervals.len() >= 2 * 3, "{} intervals", intervals.len());
    let executions =
        intervals.iter().filter(|(tag, ..)| tag == "work_step-execution").collect::<Vec<_>>();
    assert!(executions.iter().all(|(_, seconds, _)| *seconds > 0.5));
    let recorded: u64 = executions.iter().map(|(.., histogram)| histogram.len()).sum();
    assert!((1..20_000).contains(&recorded), "only what came while following: {recorded}");
}

/// Values of the execution histogram of the only, or first, panel of a report.
fn count_of(report: &serde_json::Value) -> u64 {
    report["panels"][0]["histograms"][0]["count"].as_u64().unwrap()
}

#[test]
fn two_moments_of_a_process_differ_by_what_came_between() {
    let dir = tempfile::tempdir().unwrap();
    let process = guarded_loop(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (before, after) = (path("before.saved"), path("after.saved"));
    let saved = |file: &str| hist(dir.path(), &["loop", "--save", file]);
    assert!(saved(&before).good().contains("loop · running"));
    let of = |file: &str| count_of(&json(&hist(dir.path(), &[file, "--json", "-"]).good()));
    let first = of(&before);
    assert!(first >= 20_000);
    let live = || count_of(&json(&hist(dir.path(), &["loop", "--json", "-"]).good()));
    until("something has come", || (live() > first + 100).then_some(()));
    assert_eq!(of(&before), first, "a copy stands still");
    // Found by its plain name, too, where it lies.
    let mut beside = sinew();
    beside.current_dir(dir.path()).args(["hist", "before.saved"]);
    assert!(Ran::of(beside.output().unwrap()).good().contains("loop · running"));
    saved(&after).good();
    let error = saved(&after).error(2);
    assert!(error.contains("after.saved exists, and a saved panel replaces nothing"), "{error}");
    // Least of all a panel that is in use.
    saved(&path("loop.panel")).error(2);
    process.signal("KILL");
    process.end();

    let hlog = path("diff.hlog");
    let args = ["--diff", &before, &after, "--hlog", &hlog, "--json", "-"];
    let report = json(&hist(dir.path(), &args).good());
    let between = of(&after) - first;
    assert!((100..20_000).contains(&between), "{between}");
    assert_eq!(count_of(&report), between);
    let interval = report["panels"][0]["interval_ns"].as_i64().unwrap();
    assert!(interval > 0);
    let executions = &read_hlog(Path::new(&hlog))[0];
    assert_eq!((executions.0.as_str(), executions.2.len()), ("work_step-execution", between));
    assert!((executions.1 * 1e9 - interval as f64).abs() < 2e6, "{} s", executions.1);
    // The dead process's own panel is a moment, too.
    let report = json(&hist(dir.path(), &["--diff", &before, "loop", "--json", "-"]).good());
    assert!(count_of(&report) >= between);
    let trips = report["panels"][0]["trips"].as_array().unwrap().len() as u64;
    let overruns = report["panels"][0]["histograms"][0]["overruns"].as_u64().unwrap();
    assert!(trips <= overruns, "{trips} of {overruns}: none from before");

    let error = hist(dir.path(), &["--diff", &after, &before]).error(2);
    assert!(error.contains("give the earlier moment first"), "{error}");
    let error = hist(dir.path(), &["--diff", "loop"]).error(2);
    assert!(error.contains("--diff compares two moments, and 1 panels are given"), "{error}");
    std::fs::rename(path("loop.panel"), path("old.saved")).unwrap();
    let _other = guarded_loop(dir.path());
    let error = hist(dir.path(), &["--diff", &before, "loop"]).error(2);
    assert!(error.contains("two processes side by side"), "{error}");
}

#[test]
fn only_what_comes_from_now_on_is_recorded_until_the_time_is_over_or_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let _process = guarded_loop(dir.path());
    let args = ["loop", "--during-seconds", "1", "--json", "-"];
    let report = json(&hist(dir.path(), &args).good());
    assert!((1..20_000).contains(&count_of(&report)), "none of those before: {report}");
    assert!(report["panels"][0]["interval_ns"].as_i64().unwrap() >= 1_000_000_000);

    let mut command = sinew();
    command.args(["hist", "loop", "--during-seconds", "86400", "--panel-dir"]).arg(dir.path());
    let recording = Process::start(&mut command);
    // Once its handler is there, the signal is caught.
    let status = format!("/proc/{}/status", recording.id());
    until("it waits for Ctrl-C", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        (u64::from_str_radix(caught, 16).unwrap() & 0b10 != 0).then_some(())
    });
    recording.signal("INT");
    let text = recording.end().good();
    assert!(text.contains("after the start\n") && text.contains("work/step"), "{text}");
}

#[test]
fn several_nodes_stand_in_one_table_or_are_added_up() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["arm1", "arm2"] {
        let process = named_loop(dir.path(), name);
        process.signal("KILL");
        process.end();
    }
    let text = hist(dir.path(), &["arm1", "arm2"]).good();
    assert!(
        text.starts_with("NOT REAL-TIME: arm1: a test\nNOT REAL-TIME: arm2: a test\n"),
        "{text}"
    );
    let rows: Vec<Vec<_>> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("work/step  "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let nodes =
        rows.iter().map(|row| (row[1], *row.iter().find(|w| w.starts_with("arm")).unwrap()));
    let kinds = ["execution", "release", "wake-up"];
    let expected: Vec<_> =
        kinds.iter().flat_map(|kind| [(*kind, "arm1"), (*kind, "arm2")]).collect();
    assert_eq!(nodes.collect::<Vec<_>>(), expected, "each kind of both nodes together: {text}");
    assert!(text.contains("\n  arm2 work/step #"), "{text}");

    let out = dir.path().join("out");
    let hlog = dir.path().join("merged.hlog");
    let args = ["arm1", "arm2", "--merge", "--json", "-", "--hgrm", out.to_str().unwrap()];
    let report =
        json(&hist(dir.path(), &[&args[..], &["--hlog", hlog.to_str().unwrap()]].concat()).good());
    let count = |panel: usize| report["panels"][panel]["histograms"][0]["count"].as_u64().unwrap();
    assert_eq!(report["merged"][0]["count"], count(0) + count(1));
    assert_eq!(report["merged"][0]["budget_ns"], 500_000);
    let logged = read_hlog(&hlog);
    assert_eq!((logged.len(), logged[0].2.len()), (3, count(0) + count(1)));
    assert!(out.join("arm1_arm2-work_step-execution.hgrm").exists());
    let text = hist(dir.path(), &["arm1", "arm2", "--merge", "--plot"]).good();
    assert_eq!(text.matches("work/step   execution").count(), 1, "{text}");
    let error = hist(dir.path(), &["arm1", "--merge"]).error(2);
    assert!(error.contains("--merge adds up several panels"), "{error}");

    let saved = dir.path().join("saved");
    hist(dir.path(), &["arm1", "arm2", "--save", saved.to_str().unwrap()]).good();
    assert!(hist(&saved, &["arm2"]).good().contains("arm2 · killed or crashed"));
}

#[test]
fn intervals_of_a_log_add_up_to_what_came_and_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let _process = guarded_loop(dir.path());
    let log = dir.path().join("ends.hlog");
    let follow = |seconds: &str| {
        let mut command = sinew();
        command.args(["hist", "loop", "--follow", "--interval-seconds", seconds, "--hlog"]);
        command.arg(&log).arg("--panel-dir").arg(dir.path());
        Process::start(&mut command)
    };
    let executions = || {
        let all = read_hlog(&log);
        all.into_iter().filter(|(tag, ..)| tag == "work_step-execution").collect::<Vec<_>>()
    };
    let live = || count_of(&json(&hist(dir.path(), &["loop", "--json", "-"]).good()));
    // What came until Ctrl-C is an interval, too.
    let mut long = follow("86400");
    long.line("loop · running");
    let first = live();
    until("something has come", || (live() > first).then_some(()));
    long.signal("INT");
    long.end().good();
    assert!(matches!(executions().as_slice(), [(_, _, histogram)] if !histogram.is_empty()));

    let mut following = follow("1");
    for _ in 0..3 {
        following.line("loop · running");
    }
    following.signal("INT");
    following.end().good();
    assert!(executions().len() >= 3, "two whole ones, and what came until Ctrl-C");
    let text = std::fs::read_to_string(&log).unwrap();
    let times: Vec<(f64, f64)> = text
        .lines()
        .filter(|line| line.starts_with("Tag=work_step-execution"))
        .map(|line| {
            let mut fields = line.split(',').skip(1).map(|field| field.parse().unwrap_or(0.0));
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect();
    for pair in times.windows(2) {
        let end = pair[0].0 + pair[0].1;
        assert!((pair[1].0 - end).abs() < 0.005, "no hole between {pair:?}");
    }
    let error = hist(dir.path(), &["loop", "--interval-seconds", "2"]);
    assert_eq!(error.code, Some(2), "only with --follow: {error:?}");
}

#[test]
fn ctrl_c_ends_following_also_where_it_was_ignored_as_in_the_background_of_a_script() {
    let dir = tempfile::tempdir().unwrap();
    let _process = guarded_loop(dir.path());
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$0\" hist loop --follow --panel-dir \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_sinew")).arg(dir.path());
    let mut following = Process::start(&mut command);
    following.line("loop · running");
    following.signal("INT");
    following.end().good();
}

#[test]
fn an_svg_is_branded_and_stages_can_be_chosen() {
    let dir = killed_loop();
    let svg = dir.path().join("loop.svg");
    hist(dir.path(), &["loop", "--stage", "work/step", "--svg", svg.to_str().unwrap()]).good();
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(text.contains("NOT REAL-TIME") && text.contains("work/step wake-up: p50"), "{text}");

    let error = hist(dir.path(), &["loop", "--stage", "nothing"]).error(2);
    assert!(error.contains("no stage `nothing` in loop; there is work/step"), "{error}");
    let error = hist(dir.path(), &["--stage", "work/step"]).error(2);
    assert!(error.contains("--stage needs a panel"), "{error}");
}

#[test]
fn what_is_not_a_panel_is_an_error_of_one_line() {
    let dir = killed_loop();
    let error = hist(dir.path(), &["nobody"]).error(3);
    assert!(error.contains("no panel of `nobody`") && error.contains("there is loop"), "{error}");
    let text = dir.path().join("text.panel");
    std::fs::write(&text, "hello").unwrap();
    let error = hist(dir.path(), &[text.to_str().unwrap()]).error(3);
    assert!(error.contains("text.panel: the panel is 5 bytes long"), "{error}");
    // In the list it stands beside the others, with its error.
    let listed = json(&hist(dir.path(), &["--json", "-"]).good());
    let texts = listed["panels"].as_array().unwrap();
    assert_eq!((texts.len(), &texts[1]["state"]), (2, &serde_json::Value::Null));
    assert!(texts[1]["error"].as_str().unwrap().contains("5 bytes"));
    let empty = tempfile::tempdir().unwrap();
    assert!(hist(empty.path(), &[]).good().contains("There are no panels"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = killed_loop();
    let mut command = sinew();
    command.args(["hist", "loop", "--panel-dir", dir.path().to_str().unwrap()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn following_ends_when_its_reader_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let _process = guarded_loop(dir.path());
    let mut command = sinew();
    command.args(["hist", "loop", "--follow", "--panel-dir", dir.path().to_str().unwrap()]);
    let mut following = Process::start(&mut command);
    following.line("loop · running");
    following.close();
    following.end().good();
}
