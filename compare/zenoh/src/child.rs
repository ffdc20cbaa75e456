//! A child process: waited for within a bound, and ended on every way out.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::Failure;

/// A child whose standard output is read line by line.
pub(crate) struct Running {
    who: &'static str,
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts `command`, which dies by `signal` if this process does.
    pub(crate) fn start(
        who: &'static str,
        command: &mut Command,
        signal: libc::c_int,
    ) -> Result<Self, Failure> {
        let die_with_us = move || {
            // SAFETY: no pointers; the kernel reads one signal number. Allowed after fork.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes one system call and touches no lock and no heap.
        unsafe { command.pre_exec(die_with_us) };
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|source| Failure::System { what: who, source })?;
        let out = child.stdout.take();
        let (line, lines) = channel();
        std::thread::spawn(move || {
            let Some(out) = out else { return };
            for read in BufReader::new(out).lines().map_while(Result::ok) {
                if line.send(read).is_err() {
                    return;
                }
            }
        });
        Ok(Self { who, child, lines })
    }

    /// Its next line, if it comes within `within`.
    pub(crate) fn line(&self, within: Duration) -> Result<String, Failure> {
        self.lines.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => Failure::Silent(self.who, within),
            RecvTimeoutError::Disconnected => Failure::Ended(self.who),
        })
    }

    /// Everything that it still writes, and its exit code, if it ends within `within`.
    pub(crate) fn end(mut self, within: Duration) -> Result<(String, Option<i32>), Failure> {
        let give_up = Instant::now() + within;
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => return Err(Failure::Silent(self.who, within)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        loop {
            let ended = self.child.try_wait();
            match ended.map_err(|source| Failure::System { what: self.who, source })? {
                Some(status) => return Ok((text, status.code())),
                None if Instant::now() > give_up => return Err(Failure::Silent(self.who, within)),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has already ended, and then the wait collects it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        Running::start("shell", Command::new("sh").args(["-c", script]), libc::SIGKILL).unwrap()
    }

    #[test]
    fn lines_come_and_then_the_rest_with_the_exit_code() {
        let child = shell("echo one; echo two; echo three; exit 7");
        assert_eq!(child.line(Duration::from_secs(20)).unwrap(), "one");
        let (rest, code) = child.end(Duration::from_secs(20)).unwrap();
        assert_eq!((rest.as_str(), code), ("two\nthree\n", Some(7)));
    }

    #[test]
    fn a_child_that_says_nothing_is_given_up_and_ended() {
        let child = shell("echo $$; exec sleep 1000");
        let pid = child.line(Duration::from_secs(20)).unwrap();
        let silent = child.line(Duration::from_millis(1));
        assert!(matches!(silent, Err(Failure::Silent("shell", _))));
        assert!(matches!(child.end(Duration::from_millis(1)), Err(Failure::Silent("shell", _))));
        // It was killed and collected, so nobody has its number.
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_child_that_ends_without_a_word_is_named() {
        let ended = shell("exit 0").line(Duration::from_secs(20));
        assert!(matches!(ended, Err(Failure::Ended("shell"))));
    }
}
