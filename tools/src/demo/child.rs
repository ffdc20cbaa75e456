//! One of the demo's processes, as its parent sees it: started, ordered about through a pipe, watched
//! through its panel, and never left behind.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::panel::{PanelReader, PanelSnapshot};

use super::process::{Limits, Order, Started};
use super::scratch::{Role, Scratch};
use super::stall::{Stall, Watch};
use crate::exit::{Exit, Failure};

/// How long a process may take to start: keys, memory, threads.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a process may take to end in good order: a node drains for 0.2 s.
const STOP_LIMIT: Nanos = Nanos::from_secs(3);

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) role: Role,
    pub(crate) started: Started,
    pub(crate) spawned_at: Nanos,
    process: std::process::Child,
    orders: Option<ChildStdin>,
    errors: Option<JoinHandle<String>>,
    panel: PanelReader,
    watch: Watch,
}

/// A life of a process that is over.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) role: Role,
    pub(crate) pid: u32,
    pub(crate) started: Started,
    /// How it ended, as the system says.
    pub(crate) ended: String,
    /// Whether it ended as asked: by itself with code 0, or killed by us.
    pub(crate) as_asked: bool,
    /// What it wrote to standard error.
    pub(crate) errors: String,
    /// Its panel after the end.
    pub(crate) panel: PanelSnapshot,
    /// When its threads were kept from their cores for longer than half the deadline: a stall of
    /// each process adds up.
    pub(crate) stalls: Vec<Stall>,
}

impl Child {
    /// Starts a process and waits until it says what it was granted.
    pub(crate) fn spawn(role: Role, scratch: &Scratch, best_effort: bool) -> Result<Self, Failure> {
        let spawned_at = clock::now();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("sinew")
            .args(["demo", role.name(), "--config"])
            .arg(scratch.config(role))
            .args(["--core", &scratch.place(role).control.to_string()])
            .args(best_effort.then_some("--best-effort"))
            // Ctrl-C on the terminal is for the parent, which ends its children in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            Failure::machine(format!("cannot {what} the {} process: {error}", role.name()))
        };
        let mut process = command.spawn().map_err(|error| cannot("start", &error))?;
        let (orders, output) = (process.stdin.take(), process.stdout.take());
        let errors = process.stderr.take().map(|mut stream| {
            std::thread::spawn(move || {
                let mut text = String::new();
                // What is not text any more ends the collection.
                let _ = stream.read_to_string(&mut text);
                text
            })
        });
        let first_line = first_line(output).and_then(|line| {
            serde_json::from_str::<Started>(&line).map_err(|error| error.to_string())
        });
        let panel = first_line.and_then(|started| {
            let panel =
                PanelReader::open(scratch.panel(role)).map_err(|error| error.to_string())?;
            Ok((started, panel))
        });
        match panel {
            Ok((started, panel)) => {
                let watch = Watch::new(Limits::new(best_effort).deadline / 2);
                Ok(Self { role, started, spawned_at, process, orders, errors, panel, watch })
            }
            Err(reason) => {
                let status = end(&mut process, orders);
                let said = errors.map(collect).unwrap_or_default();
                let message = if said.is_empty() { reason } else { said };
                let mut failure = cannot("start", &message.trim().trim_start_matches("sinew: "));
                if status.is_ok_and(|status| status.code() == Some(Exit::Usage as i32)) {
                    failure.exit = Exit::Usage;
                }
                Err(failure)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything that the process shows now.
    pub(crate) fn look(&mut self) -> Result<PanelSnapshot, Failure> {
        let panel = self.panel.snapshot().map_err(Failure::machine)?;
        self.watch.look(&panel);
        Ok(panel)
    }

    /// Whether the process has ended without having been asked to.
    pub(crate) fn is_gone(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: Order) -> Result<(), Failure> {
        let written = match &mut self.orders {
            Some(pipe) => pipe.write_all(format!("{order}\n").as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| {
            Failure::machine(format!("the {} takes no order: {error}", self.role.name()))
        })
    }

    /// Kills the process, and says when the signal had been sent and what is left of it.
    pub(crate) fn kill(mut self) -> Result<(Nanos, Life), Failure> {
        self.process.kill().map_err(Failure::machine)?;
        let at = clock::now();
        let status = self.process.wait().map_err(Failure::machine)?;
        let killed = status.signal() == Some(libc::SIGKILL);
        Ok((at, self.life(status, killed)?))
    }

    /// Ends the process in good order, or else by force.
    pub(crate) fn stop(mut self) -> Result<Life, Failure> {
        let orders = self.orders.take();
        let status = end(&mut self.process, orders).map_err(Failure::machine)?;
        self.life(status, status.success())
    }

    fn life(mut self, status: ExitStatus, as_asked: bool) -> Result<Life, Failure> {
        Ok(Life {
            role: self.role,
            pid: self.pid(),
            ended: status.to_string(),
            as_asked,
            errors: self.errors.take().map(collect).unwrap_or_default(),
            panel: self.look()?,
            stalls: self.watch.clone().stalls(),
            started: std::mem::take(&mut self.started),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After `kill` and `stop` the process has been waited for, and this does nothing.
        let orders = self.orders.take();
        if let Err(error) = end(&mut self.process, orders) {
            eprintln!("sinew: cannot end the {} process: {error}", self.role.name());
        }
    }
}

/// The first line that a process writes, or why there is none.
fn first_line(output: Option<impl Read + Send + 'static>) -> Result<String, String> {
    let Some(output) = output else { return Err("no standard output".to_owned()) };
    let (told, tells) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line).map(|_| line);
        // Nobody waits any more when the start took too long.
        let _ = told.send(read);
    });
    match tells.recv_timeout(START_LIMIT) {
        Ok(Ok(line)) if !line.is_empty() => Ok(line),
        Ok(Ok(_)) => Err("it ended without a word".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(format!("it said nothing within {} s", START_LIMIT.as_secs()))
        }
    }
}

/// Asks a process to end by closing its standard input, and kills it when it does not.
fn end(process: &mut std::process::Child, orders: Option<ChildStdin>) -> io::Result<ExitStatus> {
    drop(orders);
    let give_up = clock::now() + STOP_LIMIT;
    while clock::now() < give_up {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    process.kill()?;
    process.wait()
}

fn collect(errors: JoinHandle<String>) -> String {
    errors.join().unwrap_or_default()
}
