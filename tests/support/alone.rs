//! Runs the body of a test in a process of its own: for what a whole process has only once, such as
//! its threads, its mappings, its allocator, and its death.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set in the process that runs the body.
const ALONE: &str = "SINEW_TEST_ALONE";

/// How long a body may take before it is given up as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of such a process.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Everything that it printed, on both streams.
    pub(crate) output: String,
}

impl Ended {
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Runs `body` of the test called `test` in a process of its own, and passes on how it ended: its
/// failure is this test's failure, and what it prints is printed here.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_alone() {
        return body();
    }
    let ended = run(test, "");
    print!("{}", ended.output);
    pass_on(&ended);
    assert!(ended.status.success(), "{test} alone: {}\n{}", ended.status, ended.output);
}

/// Repeats what the process said about the machine, so that it is seen here.
pub(crate) fn pass_on(ended: &Ended) {
    for line in ended.output.lines() {
        if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            super::skipped(reason);
        } else if let Some(what) = line.strip_prefix("GRANTED: ") {
            super::granted(what);
        }
    }
}

/// Whether this process was made by [`run`].
pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Which variant this process was told to be.
pub(crate) fn variant() -> String {
    std::env::var(ALONE).unwrap_or_default()
}

/// Starts this test binary again with only `test`, told to be `variant`, and waits for its end.
pub(crate) fn run(test: &str, variant: &str) -> Ended {
    // Output goes to a file: a pipe that nobody empties would stop the child.
    let file = tempfile::NamedTempFile::new().unwrap();
    let sink = || Stdio::from(file.as_file().try_clone().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, variant)
        .stdin(Stdio::null())
        .stdout(sink())
        .stderr(sink())
        .spawn()
        .unwrap();
    let give_up = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            child.wait().unwrap();
            let output = std::fs::read_to_string(file.path()).unwrap_or_default();
            panic!("{test} {variant} did not end within {PATIENCE:?}:\n{output}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let output = std::fs::read(file.path()).unwrap();
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(!output.contains("running 0 tests"), "there is no test called {test}");
    Ended { status, output }
}
