//! The life of a panel's file: who may create it, who reads it, what a crash leaves behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::histogram;
use sinew_rt::ladder::Level;
use sinew_rt::panel::{
    Kind, Panel, PanelError, PanelReader, PanelSpec, ProcessIdentity, State, Table,
};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn spec(dir: &TempDir, name: &str) -> PanelSpec {
    PanelSpec::new(name).in_dir(dir.path())
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_reader_sees_everything_that_was_written() {
    let dir = dir();
    let before = clock::now();
    let panel = Panel::create(&spec(&dir, "robot")).expect("created");
    let path = panel.path().expect("a file").to_owned();
    assert_eq!(path, dir.path().join("robot.panel"));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let reader = PanelReader::open(&path).expect("a panel");

    let empty = reader.snapshot().expect("whole");
    assert_eq!((empty.name.as_str(), empty.state), ("robot", State::Starting));
    assert_eq!(empty.process, ProcessIdentity::current());
    assert!(empty.is_alive());
    assert!(before <= empty.started_at && empty.started_at <= empty.taken_at);
    assert_eq!((empty.heartbeat_at, empty.layout.as_str(), empty.torn), (None, "", 0));
    assert!(empty.not_real_time.is_empty());

    // Registered and written after the reader came.
    let frames = panel.counter("frames").expect("room");
    let depth = panel.gauge("depth").expect("room");
    let age = panel.recorder("arm/setpoint", Kind::Age).expect("room");
    frames.add(41);
    frames.increment();
    depth.set(-7);
    let spans = [0, 1, 255, 256, 1_000, 123_456, 9_999_999_999, 10_000_000_001, i64::MAX];
    for (at, span) in (1..).zip(spans) {
        age.record(Nanos::new(span), Nanos::new(at));
    }
    age.record(Nanos::new(-5), Nanos::new(100));
    panel.set_state(State::Running);
    panel.heartbeat(Nanos::new(77));
    panel.set_layout("fused: lane 0 on core 1");
    panel.set_identity("did:key:z6MkExample");
    panel.set_not_real_time(&["SCHED_FIFO refused", "memory is not locked"]);

    let shown = reader.snapshot().expect("whole");
    assert_eq!((shown.counter("frames"), shown.gauge("depth")), (Some(42), Some(-7)));
    assert_eq!((shown.counter("depth"), shown.gauge("nothing")), (None, None));
    assert_eq!((shown.state, shown.heartbeat_at), (State::Running, Some(Nanos::new(77))));
    assert_eq!(shown.layout, "fused: lane 0 on core 1");
    assert_eq!(shown.identity, "did:key:z6MkExample");
    assert_eq!(shown.not_real_time, ["SCHED_FIFO refused", "memory is not locked"]);
    let age = shown.histogram("arm/setpoint", Kind::Age).expect("registered");
    assert_eq!((age.count, age.overflow), (10, 2));
    assert_eq!((age.min, age.max), (Nanos::ZERO, Nanos::MAX));
    assert_eq!(age.max_at, Some(Nanos::new(9)));
    assert_eq!(age.hdr.len(), 10);
    assert_eq!(age.hdr.count_at(0), 2, "a negative span counts as 0");
    assert_eq!(age.quantile(1.0).as_unsigned(), age.hdr.max(), "10 s or more");
    let expected_sum = spans.iter().map(|span| span.cast_unsigned()).fold(0, u64::wrapping_add);
    assert_eq!(age.sum_ns, expected_sum);

    // What the process itself sees is the same.
    let own = panel.snapshot().expect("whole");
    assert_eq!(own.histograms[0].hdr, age.hdr);
    panel.set_state(State::Stopped);
}

#[test]
fn quantiles_of_the_panel_are_those_of_a_real_histogram() {
    let panel = Panel::anonymous(&PanelSpec::new("test")).expect("memory");
    let recorder = panel.recorder("span", Kind::Span).expect("room");
    let mut direct = histogram::empty();
    // A fixed pseudo-random sequence over all magnitudes below 10 s.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50_000 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let value = (noise >> 31) >> (noise % 33);
        recorder.record(Nanos::new(value.cast_signed()), Nanos::ZERO);
        direct.record(value).expect("below 10 s");
    }
    let shown = panel.snapshot().expect("whole");
    let histogram = &shown.histograms[0];
    assert_eq!(histogram.hdr, direct);
    for quantile in [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999] {
        let exact = Nanos::new(direct.value_at_quantile(quantile).cast_signed());
        assert_eq!(histogram.quantile(quantile), exact.max(histogram.min).min(histogram.max));
    }
    assert_eq!(histogram.mean().as_unsigned(), histogram.sum_ns / 50_000);
}

#[test]
fn long_texts_are_cut_at_a_character_and_too_many_reasons_are_counted() {
    let panel = Panel::anonymous(&PanelSpec::new("test")).expect("memory");
    let long = "µ".repeat(150); // 300 bytes
    panel.set_layout(&format!("x{long}"));
    let reasons: Vec<String> = (0..11).map(|i| format!("reason {i}")).collect();
    panel.set_not_real_time(&reasons);
    let shown = panel.snapshot().expect("whole");
    assert_eq!(shown.layout, format!("x{}", "µ".repeat(99)));
    assert_eq!(shown.not_real_time.len(), 8);
    assert_eq!(shown.not_real_time[6..], ["reason 6", "and 4 more reasons"]);
    panel.set_not_real_time(&reasons[..8]);
    assert_eq!(panel.snapshot().expect("whole").not_real_time, reasons[..8]);
    panel.set_not_real_time::<&str>(&[]);
    assert!(panel.snapshot().expect("whole").not_real_time.is_empty());
}

#[test]
fn full_tables_and_taken_names_are_refused_by_name() {
    let spec = PanelSpec { probes: 2, histograms: 5, values: 2, ..PanelSpec::new("small") };
    let panel = Panel::anonymous(&spec).expect("memory");
    let _first = panel.counter("frames").expect("room");
    let error = panel.gauge("frames").expect_err("taken");
    assert_eq!(
        error.to_string(),
        "panel `small` already has an entry `frames` in values; names are registered once"
    );
    let _second = panel.gauge("depth").expect("room");
    let error = panel.counter("more").expect_err("full");
    assert_eq!(
        error.to_string(),
        "panel `small` is full: `more` would be entry 3 of 2 values; raise `PanelSpec`'s capacity, or tell \
         `NodeBuilder::loops` of the loop"
    );
    let _a = panel.probe("a", None).expect("room");
    assert!(matches!(
        panel.probe("a", None),
        Err(PanelError::NameTaken { table: Table::Probes, .. })
    ));
    let _b = panel.probe("b", None).expect("room");
    assert!(matches!(
        panel.probe("c", None),
        Err(PanelError::Full { table: Table::Probes, capacity: 2, .. })
    ));
    // The same name for another kind is another histogram.
    let _age = panel.recorder("a", Kind::Age).expect("the fifth");
    assert!(matches!(
        panel.recorder("z", Kind::Age),
        Err(PanelError::Full { table: Table::Histograms, capacity: 5, .. })
    ));
    for label in ["", "line\nbreak", &"x".repeat(49)] {
        assert!(matches!(panel.recorder(label, Kind::Age), Err(PanelError::Name { .. })));
    }
    assert_eq!(panel.snapshot().expect("whole").probes.len(), 2, "failures leave nothing behind");
}

#[test]
fn names_that_are_no_plain_file_names_and_absurd_capacities_are_refused() {
    let dir = dir();
    let long = "x".repeat(49);
    for name in ["", ".hidden", "a/b", "..", "a b", "x.crashed", "é", &long] {
        let error = Panel::create(&spec(&dir, name)).expect_err("refused");
        assert!(matches!(error, PanelError::Name { .. }), "{name}: {error}");
    }
    let spec = PanelSpec { histograms: 4_097, ..spec(&dir, "big") };
    let error = Panel::create(&spec).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "a panel with room for 4097 histograms was asked for; the limit is 4096"
    );
    assert!(names(&dir).is_empty());
}

#[test]
fn a_live_name_is_refused_and_a_stopped_one_is_free_again() {
    let dir = dir();
    let panel = Panel::create(&spec(&dir, "robot")).expect("created");
    let error = Panel::create(&spec(&dir, "robot")).expect_err("in use");
    let pid = std::process::id();
    assert!(matches!(error, PanelError::InUse { pid: found, .. } if found == pid), "{error}");
    let frames = panel.counter("frames").expect("room");
    panel.set_state(State::Stopped);
    drop(panel);
    frames.increment();
    assert_eq!(names(&dir), ["robot.panel"], "a handle keeps the panel");
    drop(frames);
    assert!(names(&dir).is_empty());
    drop(Panel::create(&spec(&dir, "robot")).expect("free"));
    assert!(names(&dir).is_empty(), "never ran, so there is nothing to keep");
}

/// The panel of a process, as a program of another version would lay it out: the same up to the
/// writer's identity, and nothing known behind.
fn of_version(version: u32, start_ticks: u64) -> Vec<u8> {
    let dir = dir();
    let panel = Panel::create(&spec(&dir, "robot")).expect("created");
    let mut bytes = fs::read(panel.path().expect("a file")).expect("readable");
    bytes[8..12].copy_from_slice(&version.to_ne_bytes());
    bytes[12..24].fill(0x5a);
    bytes[32..40].copy_from_slice(&start_ticks.to_ne_bytes());
    bytes[56..].fill(0xa5);
    bytes
}

#[test]
fn a_live_process_of_another_version_keeps_its_name_and_is_not_called_dead() {
    let me = ProcessIdentity::current();
    for version in [0, 1, u32::MAX] {
        let dir = dir();
        let path = dir.path().join("robot.panel");
        let theirs = of_version(version, me.start_ticks);
        fs::write(&path, &theirs).expect("written");

        let error = Panel::create(&spec(&dir, "robot")).expect_err("in use");
        assert!(matches!(error, PanelError::InUseByOther { pid, .. } if pid == me.pid), "{error}");
        let says = format!("layout version {version}; this program reads version 2");
        assert!(error.to_string().contains(&says), "{error}");
        assert_eq!(names(&dir), ["robot.panel"]);
        assert!(fs::read(&path).expect("readable") == theirs, "nobody touched it");

        let listed = PanelReader::list(dir.path()).expect("readable");
        assert!(listed[0].is_alive());
        let unknown = listed[0].unknown_version.expect("of another version");
        assert_eq!(unknown.to_string(), says);
        let error = PanelReader::open(&path).expect_err("unknown layout");
        assert_eq!(error.to_string(), format!("the panel has {says}"));
    }
}

#[test]
fn a_dead_process_of_another_version_leaves_evidence_and_its_name() {
    let dir = dir();
    let another_life = ProcessIdentity::current().start_ticks + 1;
    let theirs = of_version(1, another_life);
    fs::write(dir.path().join("robot.panel"), &theirs).expect("written");
    assert!(!PanelReader::list(dir.path()).expect("readable")[0].is_alive());
    let _panel = Panel::create(&spec(&dir, "robot")).expect("the name is free");
    assert_eq!(names(&dir), ["robot.crashed.panel", "robot.panel"]);
    let kept = fs::read(dir.path().join("robot.crashed.panel")).expect("readable");
    assert!(kept == theirs);
}

#[test]
fn a_panel_dropped_while_running_is_kept_as_evidence_and_frees_its_name() {
    let dir = dir();
    let panel = Panel::create(&spec(&dir, "robot")).expect("created");
    panel.set_state(State::Running);
    drop(panel);
    assert_eq!(names(&dir), ["robot.crashed.panel"]);
    let reader = PanelReader::open(dir.path().join("robot.crashed.panel")).expect("readable");
    assert_eq!(reader.snapshot().expect("whole").state, State::Failed);
    let _again = Panel::create(&spec(&dir, "robot")).expect("free");
    let listed = PanelReader::list(dir.path()).expect("readable");
    let alive: Vec<_> = listed.iter().map(|l| (l.crashed, l.is_alive())).collect();
    assert_eq!(alive, [(true, false), (false, true)]);
}

#[test]
fn somebody_elses_file_is_not_removed() {
    let dir = dir();
    let panel = Panel::create(&spec(&dir, "robot")).expect("created");
    let path = panel.path().expect("a file").to_owned();
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "other").expect("written");
    panel.set_state(State::Stopped);
    drop(panel);
    assert_eq!(fs::read(&path).expect("still there"), b"other");
}

#[test]
fn unsafe_directories_and_symlinks_are_refused() {
    let dir = dir();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("changed");
    let error = Panel::create(&PanelSpec::new("x").in_dir(&shared)).expect_err("refused");
    assert!(matches!(error, PanelError::UnsafeDirectory { mode: 0o777, .. }), "{error}");

    let link = dir.path().join("link");
    symlink(dir.path(), &link).expect("made");
    let error = Panel::create(&PanelSpec::new("x").in_dir(&link)).expect_err("refused");
    assert!(matches!(error, PanelError::Io { .. }), "{error}");

    // A link in place of the panel is moved aside, not followed.
    let target = dir.path().join("target");
    fs::write(&target, "precious").expect("written");
    symlink(&target, dir.path().join("x.panel")).expect("made");
    assert!(PanelReader::open(dir.path().join("x.panel")).is_err());
    let _panel = Panel::create(&spec(&dir, "x")).expect("created");
    assert_eq!(fs::read(&target).expect("there"), b"precious");
}

#[test]
fn a_missing_directory_is_made_for_this_user_alone() {
    let dir = dir();
    let inner = dir.path().join("a/b");
    let panel = Panel::create(&PanelSpec::new("x").in_dir(&inner)).expect("created");
    assert_eq!(fs::metadata(&inner).expect("there").permissions().mode() & 0o777, 0o700);
    drop(panel);
    assert!(PanelReader::list(dir.path().join("none")).expect("no error").is_empty());
}

/// Environment of the child process below: the directory to put its panel into.
const CHILD_DIR: &str = "SINEW_TEST_PANEL_DIR";

/// Not a test of its own: the process that [`start_child`] runs and that is killed.
#[test]
#[ignore = "child process of other tests"]
fn child() {
    let dir = std::env::var(CHILD_DIR).expect("started by another test");
    let panel = Panel::create(&PanelSpec::new("victim").in_dir(dir)).expect("created");
    let frames = panel.counter("frames").expect("room");
    let span = panel.recorder("span", Kind::Span).expect("room");
    for i in 0..1_000 {
        frames.increment();
        span.record(Nanos::from_micros(i), Nanos::new(i));
    }
    panel.set_state(State::Running);
    println!("\nready");
    // Until the parent kills this process, or is gone itself.
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    panel.set_state(State::Stopped);
}

/// The child, ready, and its output, which stays open until it has ended.
fn start_child(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let ready = output.by_ref().lines().map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "the child ended early: {:?}", child.wait());
    (child, output)
}

#[test]
fn the_panel_of_a_killed_process_is_read_and_kept() {
    let dir = dir();
    let (mut child, _output) = start_child(dir.path());
    let path = dir.path().join("victim.panel");
    let reader = PanelReader::open(&path).expect("readable");
    assert!(reader.snapshot().expect("whole").is_alive());
    let error = Panel::create(&spec(&dir, "victim")).expect_err("in use");
    assert!(matches!(error, PanelError::InUse { pid, .. } if pid == child.id()), "{error}");

    child.kill().expect("killed");
    // Not yet waited for, it may be a zombie; that is dead too.
    let status = child.wait().expect("waited");
    assert!(!status.success());
    for reader in [reader, PanelReader::open(&path).expect("still there")] {
        let left = reader.snapshot().expect("whole");
        assert!(!left.is_alive());
        assert_eq!((left.process.pid, left.state), (child.id(), State::Running));
        assert_eq!(left.counter("frames"), Some(1_000));
        let span = left.histogram("span", Kind::Span).expect("there");
        assert_eq!((span.count, span.max), (1_000, Nanos::from_micros(999)));
        assert_eq!(span.max_at, Some(Nanos::new(999)));
        assert_eq!(left.level(), Level::Ok);
    }

    let _next = Panel::create(&spec(&dir, "victim")).expect("free");
    assert_eq!(names(&dir), ["victim.crashed.panel", "victim.panel"]);
    let kept = PanelReader::open(dir.path().join("victim.crashed.panel")).expect("readable");
    assert_eq!(kept.snapshot().expect("whole").counter("frames"), Some(1_000));
}

#[test]
fn a_process_that_ends_as_asked_leaves_no_file() {
    let dir = dir();
    let (mut child, _output) = start_child(dir.path());
    assert_eq!(names(&dir), ["victim.panel"]);
    drop(child.stdin.take());
    assert!(child.wait().expect("waited").success());
    assert!(names(&dir).is_empty());
}

#[test]
fn a_hundred_panels_leave_no_descriptor_mapping_or_file() {
    let dir = dir();
    let count = || {
        let mapped = fs::read_to_string("/proc/self/maps").expect("readable");
        let here = dir.path().to_str().expect("UTF-8");
        let open = fs::read_dir("/proc/self/fd").expect("readable").filter_map(|entry| {
            fs::read_link(entry.ok()?.path()).ok().filter(|target| target.starts_with(here))
        });
        (mapped.matches(here).count(), open.count())
    };
    for round in 0..100 {
        let panel = Panel::create(&spec(&dir, "robot")).expect("created");
        let probe = panel.probe("stage", None).expect("room");
        let reader = PanelReader::open(panel.path().expect("a file")).expect("readable");
        if round == 0 {
            assert_eq!(count(), (2, 1), "mapped twice; only the reader keeps a descriptor");
        }
        panel.set_state(State::Stopped);
        drop((panel, probe, reader));
    }
    assert_eq!(count(), (0, 0));
    assert!(names(&dir).is_empty());
}
