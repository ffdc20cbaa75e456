//! `sinew top` on a real terminal, by keys: what is on the screen, and how the terminal is given
//! back. tmux is the terminal; where it is missing these tests say SKIPPED.

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Kind, Panel, PanelSpec, State};
use support::{Process, Ran, json, run, sinew, until};

/// Tells the process of its own where its panel goes, and what it is called.
const DIRECTORY: &str = "SINEW_TEST_PANEL_DIR";
const NAME: &str = "SINEW_TEST_PANEL_NAME";

/// The process that the tests look at: a loop, a topic and drops, until its standard input ends.
#[test]
#[ignore = "a process of its own, which the other tests start"]
fn a_robot() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let name = std::env::var(NAME).unwrap();
    let panel = Panel::create(&PanelSpec::new(name).in_dir(dir)).unwrap();
    panel.set_not_real_time(&["a test"]);
    let spec = GuardSpec {
        budget: Nanos::from_micros(500),
        hard_limit: Nanos::from_secs(1),
        ladder: LadderConfig::report_only(),
    };
    let mut guard = Guard::new(panel.probe("cart", Some(0)).unwrap(), spec).unwrap();
    let wake_up = panel.recorder("cart", Kind::WakeUp).unwrap();
    let safety = panel.gauge("cart safety").unwrap();
    safety.set(1);
    let delivered = panel.counter("delivered/arm/setpoint").unwrap();
    let age = panel.recorder("arm/setpoint", Kind::Age).unwrap();
    panel.counter("verify.drop.bad_signature@stranger").unwrap().add(3);
    panel.set_state(State::Running);
    println!("\nready");
    let (ended, input_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let mut n = 0;
    while input_ended.recv_timeout(std::time::Duration::from_millis(2)).is_err() {
        let begin = clock::now();
        guard.enter(begin);
        // One in 500 overruns, by instants that the loop made up.
        let took = if n % 500 == 499 { 700 } else { 40 };
        guard.exit(begin + Nanos::from_micros(took), Execution::Worked { released: begin });
        wake_up.record(Nanos::from_micros(3), begin);
        age.record(Nanos::from_micros(150), begin);
        delivered.increment();
        panel.heartbeat(begin);
        n += 1;
    }
    panel.set_state(State::Stopped);
}

fn robot(dir: &Path, name: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_robot", "--ignored", "--nocapture"]);
    command.env(DIRECTORY, dir).env(NAME, name).stdin(Stdio::piped());
    let mut process = Process::start(&mut command);
    process.line("ready");
    process
}

/// A terminal of 80 columns and 24 lines, with a shell in it, from a tmux server of its own.
struct Screen {
    socket: String,
}

impl Screen {
    /// `None`, visibly, where there is no tmux.
    fn open() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("SKIPPED: there is no tmux(1) here");
            return None;
        }
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let screen = Self { socket: format!("sinew-test-{}-{next}", std::process::id()) };
        // A shell that reads no profile: its prompt is known, and tells that a program has ended.
        let shell = ["env", "PS1=at the prompt> ", "sh"];
        screen.tmux(&[&["new-session", "-d", "-x", "80", "-y", "24"], &shell[..]].concat());
        screen.wait("at the prompt>");
        Some(screen)
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.socket, "-f", "/dev/null"]).args(args).env_remove("TMUX");
        let output = tmux.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    fn text(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types `sinew top` with its arguments.
    fn top(&self, dir: &Path, args: &str) {
        let sinew = env!("CARGO_BIN_EXE_sinew");
        let command = format!("{sinew} top --panel-dir {} {args}", dir.display());
        self.keys(&["clear; ", &command, "; echo ended with $?", "Enter"]);
    }

    /// Waits until something is on the screen, and gives all of it.
    #[track_caller]
    fn wait(&self, what: &str) -> String {
        self.wait_for(&[what])
    }

    /// The same for several things: a screen may be looked at while it is being drawn.
    #[track_caller]
    fn wait_for(&self, all: &[&str]) -> String {
        self.until(&all.join("` and `"), |text| all.iter().all(|what| text.contains(what)))
    }

    #[track_caller]
    fn until(&self, what: &str, ready: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.text();
                ready(&last).then(|| last.clone())
            })
        }));
        seen.unwrap_or_else(|_| panic!("no `{what}` on the screen:\n{last}"))
    }

    /// The process that runs in the terminal's shell.
    fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).stdout;
        let shell = String::from_utf8(shell).unwrap().trim().to_owned();
        let children = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(children).unwrap();
        children.split_whitespace().next().expect("sinew runs").parse().unwrap()
    }

    /// Whether what a shell needs is as before: echo and line editing, no alternate screen.
    #[track_caller]
    fn is_given_back(&self) {
        self.wait("ended with 0");
        let state = "#{alternate_on} #{cursor_flag}";
        let state = self.tmux(&["display-message", "-p", state]).stdout;
        assert_eq!(String::from_utf8(state).unwrap().trim(), "0 1", "screen and cursor");
        self.keys(&["stty -a", "Enter"]);
        let modes = self.wait("iexten");
        for mode in ["icanon", "echo", "isig", "opost", "icrnl"] {
            let on = modes.split_whitespace().any(|word| word.trim_end_matches(';') == mode);
            assert!(on, "{mode} is off:\n{modes}");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}

#[test]
fn keys_show_views_a_nodes_page_help_and_totals() {
    let Some(screen) = Screen::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _robot = robot(dir.path(), "robot");
    screen.top(dir.path(), "--interval-ms 200");

    let nodes = ["cart", "NOT REAL-TIME  robot: a test", "running"];
    let nodes = screen.wait_for(&nodes);
    assert!(nodes.starts_with("sinew top  1 node  last 200 ms  by node"), "{nodes}");

    screen.keys(&["2"]);
    // The recent p99 is drawn once there were intervals.
    screen.wait_for(&["p99 of it", "██", "µs", "robot", "cart"]);

    screen.keys(&["Tab"]);
    screen.wait_for(&["late p99", "3.0 µs", "running"]);

    screen.keys(&["4"]);
    screen.wait_for(&["arm/setpoint", "bad_signature", "150 µs"]);

    screen.keys(&["5"]);
    screen.wait_for(&["began late", "cause", "700 µs"]);

    screen.keys(&["1", "Enter"]);
    screen.wait_for(&["one node (esc: back)", "robot: running, process "]);
    screen.keys(&["Escape"]);
    screen.until("the nodes again", |text| !text.contains("one node"));

    screen.keys(&["t"]);
    screen.wait("since the start");
    screen.keys(&["s"]);
    screen.wait("worst first");
    screen.keys(&["-"]);
    screen.keys(&["t"]);
    screen.wait("last 400 ms");
    screen.keys(&["p"]);
    screen.wait("PAUSED");

    screen.keys(&["?"]);
    screen.wait_for(&["keys and signs", "Panels are only read"]);
    screen.keys(&["?", "q"]);
    screen.is_given_back();
}

#[test]
fn nodes_come_and_go_and_a_killed_one_keeps_its_figures() {
    let Some(screen) = Screen::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    screen.top(dir.path(), "--interval-ms 100");
    screen.wait("There are no panels");
    std::fs::write(dir.path().join("broken.panel"), "not a panel at all").unwrap();
    screen.wait("broken.panel: the panel is 18 bytes long");

    let mut short = robot(dir.path(), "short");
    screen.wait("short came: running");
    drop(short.child.stdin.take());
    assert_eq!(short.end().code, Some(0));
    screen.wait("short ended, its panel is gone");

    let long = robot(dir.path(), "long");
    screen.wait("long came: running");
    long.signal("KILL");
    long.end();
    screen.wait_for(&["dead: killed", "long"]);
    screen.keys(&["2"]);
    // Its last figures.
    screen.wait_for(&["long (dead)", "40."]);

    // Its successor takes the name, and the old panel moves aside.
    let _next = robot(dir.path(), "long");
    screen.until("the successor", |text| text.contains("long") && !text.contains("(dead)"));
    screen.keys(&["q"]);
    screen.is_given_back();
}

#[test]
fn any_size_is_drawn_and_the_terminal_may_change_it() {
    let Some(screen) = Screen::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    let _robot = robot(dir.path(), "robot");
    screen.top(dir.path(), "--interval-ms 100");
    screen.wait("robot");
    screen.keys(&["2"]);
    screen.wait("p99 of it");
    for (width, height) in [(150, 40), (20, 6), (7, 3), (1, 1), (80, 24)] {
        let (width, height) = (width.to_string(), height.to_string());
        screen.tmux(&["resize-window", "-x", &width, "-y", &height]);
        let begin = &"sinew top"[..9.min(width.parse().unwrap())];
        screen.until("the title", |text| text.starts_with(begin));
        if width == "150" {
            screen.wait("last cause");
        }
    }
    screen.until("all columns", |text| text.contains("p99 of it"));
    screen.keys(&["q"]);
    screen.is_given_back();
}

#[test]
fn ctrl_c_and_signals_give_the_terminal_back() {
    let Some(screen) = Screen::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    screen.top(dir.path(), "");
    screen.wait("There are no panels");
    screen.keys(&["C-c"]);
    screen.is_given_back();
    for signal in ["TERM", "INT"] {
        screen.top(dir.path(), "");
        screen.wait("There are no panels");
        let pid = screen.program().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success());
        screen.is_given_back();
    }
}

#[test]
fn a_terminal_that_goes_away_is_the_end_and_leaves_nothing_that_spins() {
    let Some(screen) = Screen::open() else { return };
    let dir = tempfile::tempdir().unwrap();
    screen.top(dir.path(), "");
    screen.wait("There are no panels");
    let pid = screen.program().to_string();
    screen.tmux(&["kill-server"]);
    let stat = format!("/proc/{pid}/stat");
    let ended = || match std::fs::read_to_string(&stat) {
        Err(_) => Some(()),
        Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with('Z').then_some(()),
    };
    let seen = std::panic::catch_unwind(|| until("it has ended", ended));
    if let Err(panic) = seen {
        let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        std::panic::resume_unwind(panic);
    }
}

fn top(dir: &Path, args: &[&str]) -> Ran {
    run(&[&["top", "--panel-dir", dir.to_str().unwrap()], args].concat())
}

#[test]
fn without_a_terminal_it_says_what_to_do_instead() {
    let dir = tempfile::tempdir().unwrap();
    let error = top(dir.path(), &[]).error(2);
    assert!(error.contains("`--once`") && error.contains("`--json -`"), "{error}");
    let error = top(dir.path(), &["--interval-ms", "5"]);
    assert_eq!(error.code, Some(2), "{error:?}");
}

#[test]
fn one_frame_is_printed_for_scripts_and_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    assert!(top(dir.path(), &["--once", "--total"]).good().contains("There are no panels"));
    let error = top(dir.path(), &["nobody", "--once"]).error(3);
    assert!(error.contains("no panel of `nobody`"), "{error}");

    let robot = robot(dir.path(), "robot");
    let text = top(dir.path(), &["--once", "--interval-ms", "300"]).good();
    assert!(text.starts_with("NOT REAL-TIME: robot: a test\n"), "{text}");
    assert!(text.contains("\nStages\n") && text.contains("\nLoops\n"), "{text}");
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.trim_end() == line), "{text}");

    let report = json(&top(dir.path(), &["robot", "--json", "-", "--interval-ms", "300"]).good());
    let node = &report["nodes"][0];
    assert_eq!((&report["report"], &node["name"]), (&"top".into(), &"robot".into()));
    let interval = node["interval_ns"].as_u64().unwrap();
    assert!(interval >= 300_000_000, "{interval}");
    let count = |node: &serde_json::Value| node["stages"][0]["count"].as_u64().unwrap();
    let since = json(&top(dir.path(), &["--total", "--json", "-"]).good());
    assert_eq!(since["nodes"][0]["interval_ns"], serde_json::Value::Null);
    assert!(count(node) > 0 && count(node) < count(&since["nodes"][0]), "{node} {since}");

    // Dead: by name and by path, also where only what was kept of the crash is left.
    robot.signal("KILL");
    robot.end();
    let panel = dir.path().join("robot.panel");
    for wanted in ["robot", panel.to_str().unwrap()] {
        let text = top(dir.path(), &[wanted, "--once", "--total"]).good();
        assert!(text.contains("dead: killed") && text.contains("robot (dead)"), "{text}");
    }
    // By the name of a copy where we are, which need not look like a panel's.
    for copy in ["kept.panel", "kept"] {
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::copy(&panel, elsewhere.path().join(copy)).unwrap();
        let mut beside = sinew();
        beside.current_dir(elsewhere.path()).args(["top", copy, "--once", "--total"]);
        beside.arg("--panel-dir").arg(dir.path());
        let text = Ran::of(beside.output().unwrap()).good();
        assert!(text.contains("dead: killed"), "{copy}: {text}");
    }
    std::fs::rename(&panel, dir.path().join("robot.crashed.panel")).unwrap();
    assert!(top(dir.path(), &["robot", "--once", "--total"]).good().contains("dead: killed"));
    assert!(top(dir.path(), &["--once", "--total"]).good().contains("There are no panels"));
}
