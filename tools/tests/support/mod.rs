//! What the command's tests share: running it, waiting for what must happen, and a process of its
//! own with a guarded loop.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// An address that no other test uses, whether it runs in this process or beside it: all of
/// 127.0.0.0/8 is this host, so the process id makes the network and a counter the port.
pub(crate) fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(7_400);
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, high, low, 1), NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// The command, ready for arguments.
pub(crate) fn sinew() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub(crate) fn run(args: &[&str]) -> Ran {
    Ran::of(sinew().args(args).output().expect("the command starts"))
}

/// What a run of the command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("errors are UTF-8"),
        }
    }

    /// The output, of a run that ended well.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The one line of error of a run that failed with `code`.
    #[track_caller]
    pub(crate) fn error(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.err.trim_end_matches('\n').to_owned();
        assert!(!line.contains('\n') && line.starts_with("sinew: "), "one line, not\n{line}");
        line
    }
}

#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A watchdog, not a measurement: how long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls `ready` until it gives something; panics with `what` when the patience is over.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A child that does not outlive the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let out = BufReader::new(child.stdout.take().expect("output is piped"));
        Self { child, out: Some(out) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads lines of its output until one that starts with `begin`; panics with everything that
    /// it wrote when there is none.
    pub(crate) fn line(&mut self, begin: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            let out = self.out.as_mut().expect("not closed");
            let read = out.read_line(&mut line).expect("output is UTF-8");
            if line.starts_with(begin) {
                return line;
            }
            all.push_str(&line);
            if read == 0 {
                let mut err = String::new();
                let errors = self.child.stderr.take();
                errors.map(|mut pipe| pipe.read_to_string(&mut err));
                panic!("no line `{begin}` in:\n{all}\n{err}");
            }
        }
    }

    /// Closes our end of its output, as `| head` does.
    pub(crate) fn close(&mut self) {
        self.out = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill(1) exists");
        assert!(sent.success(), "kill -s {name} {pid}");
    }

    /// Waits for its end: the exit code, and the rest of its output and errors. Both are read
    /// meanwhile: a pipe holds less than a long report, and a process that cannot write does not end.
    pub(crate) fn end(mut self) -> Ran {
        let errors = self.child.stderr.take();
        let (child, out) = (&mut self.child, &mut self.out);
        let (mut text, mut err) = (String::new(), String::new());
        let code = std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(pipe) = out else { return };
                pipe.read_to_string(&mut text).expect("output is UTF-8");
            });
            scope.spawn(|| errors.map(|mut pipe| pipe.read_to_string(&mut err)));
            let begin = Instant::now();
            loop {
                if let Some(status) = child.try_wait().expect("it is our child") {
                    break status.code();
                }
                if begin.elapsed() > PATIENCE {
                    // Its end lets the readers end, so that this can be told.
                    let _ = child.kill();
                    panic!("gave up waiting until the process ends");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ran { code, out: text, err }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which files the tests made, by name, in order.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).expect("readable").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
