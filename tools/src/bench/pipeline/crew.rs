//! The parent's hold on its children: started, ordered, waited for within a bound, and killed on
//! every way out.

use serde::Serialize;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::topology::CoreId;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

use super::super::interrupted;
use super::super::report::Run;
use super::order::{Answer, End, Findings, Flood, Leg, Order, Role};
use crate::exit::Failure;

/// How long a child may take beyond the time that its order takes anyhow.
const PATIENCE: Nanos = Nanos::from_secs(20);
/// From the parent's word to the first burst: by then both children sleep until it begins.
const COUNTDOWN: Nanos = Nanos::from_millis(30);

/// Why a measurement did not come about.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Ctrl-C: report what there is.
    Interrupted,
    /// It went wrong.
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One child process.
pub(crate) struct Agent {
    role: Role,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
    /// Who it is.
    pub(crate) end: End,
    /// Where its nodes keep their panels: it is killed, so it cannot tidy up itself. Removed after
    /// it has ended.
    _panels: TempDir,
}

impl Agent {
    /// Starts this program again, as a child with `role` on `cores`.
    pub(crate) fn start(role: Role, cores: &[CoreId]) -> Result<Self, Stopped> {
        let program = std::env::current_exe().map_err(Failure::machine)?;
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        let panels = panel_dir().map_err(Failure::machine)?;
        let mut child = Command::new(program)
            .args(["bench", "pipeline", "--agent", role.as_str(), "--agent-cores"])
            .arg(cores.join(","))
            .arg("--panel-dir")
            .arg(panels.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Failure::machine)?;
        let (Some(orders), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::machine("the pipes to a child are missing").into());
        };
        let (line, answers) = channel();
        std::thread::spawn(move || {
            for answer in BufReader::new(out).lines().map_while(Result::ok) {
                if line.send(answer).is_err() {
                    return;
                }
            }
        });
        let nobody = End { identity: String::new(), address: ([0, 0, 0, 0], 0).into() };
        let mut agent = Self { role, child, orders, answers, end: nobody, _panels: panels };
        match agent.answer(Nanos::ZERO)? {
            Answer::Hello(end) => agent.end = end,
            other => return Err(agent.confused(&other)),
        }
        Ok(agent)
    }

    fn order(&mut self, order: &impl Serialize) -> Result<(), Stopped> {
        let mut line = serde_json::to_vec(order).map_err(Failure::machine)?;
        line.push(b'\n');
        self.orders.write_all(&line).map_err(|error| {
            Failure::machine(format!("the {} is gone: {error}", self.role.as_str())).into()
        })
    }

    fn answer(&mut self, expected_in: Nanos) -> Result<Answer, Stopped> {
        let give_up = clock::now() + expected_in + PATIENCE;
        let role = self.role.as_str();
        loop {
            match self.answers.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let answer = serde_json::from_str(&line).map_err(|error| {
                        Failure::machine(format!("the {role} answers `{line}`: {error}"))
                    })?;
                    return match answer {
                        Answer::Failed(why) => {
                            Err(Failure::machine(format!("the {role}: {why}")).into())
                        }
                        answer => Ok(answer),
                    };
                }
                Err(RecvTimeoutError::Timeout) if interrupted() => {
                    return Err(Stopped::Interrupted);
                }
                Err(RecvTimeoutError::Timeout) if clock::now() < give_up => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::machine(format!("the {role} does not answer")).into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::machine(format!("the {role} ended early")).into());
                }
            }
        }
    }

    fn confused(&self, answer: &Answer) -> Stopped {
        let role = self.role.as_str();
        Failure::machine(format!("the {role} gives an answer to another question: {answer:?}"))
            .into()
    }

    /// Waits until it is prepared; reports its threads. Gives the life of its node.
    pub(super) fn ready(&mut self, run: &mut Run) -> Result<u64, Stopped> {
        match self.answer(Nanos::ZERO)? {
            Answer::Ready { threads, not_real_time, epoch } => {
                threads.into_iter().for_each(|thread| run.add_thread(thread));
                not_real_time.into_iter().for_each(|reason| run.brand(reason));
                Ok(epoch)
            }
            other => Err(self.confused(&other)),
        }
    }

    fn done(&mut self, expected_in: Nanos) -> Result<Findings, Stopped> {
        match self.answer(expected_in)? {
            Answer::Done(findings) => Ok(findings),
            other => Err(self.confused(&other)),
        }
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// A private directory in shared memory, or else among the temporary files. Its name keeps it out of
/// sight of those who look for panels of nodes.
fn panel_dir() -> io::Result<TempDir> {
    let mut named = tempfile::Builder::new();
    named.prefix("bench-sinew-");
    named.tempdir_in("/dev/shm").or_else(|_| named.tempdir())
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Killed rather than asked: it may be in the middle of a leg. An error means that it has
        // already ended, and then the wait collects it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sender and receiver.
pub(crate) struct Crew {
    sender: Agent,
    receiver: Agent,
    /// Pause after a leg in which threads spun, before anything spins again.
    rested_at: Nanos,
}

/// Makes a flood's order of the sender, its node's life, and the receiver.
type MakeFlood<'a> = &'a dyn Fn(&End, u64, &End) -> Flood;

/// What both ends found in one leg.
#[derive(Debug, Default)]
pub(crate) struct LegFindings {
    pub(crate) sender: Findings,
    pub(crate) receiver: Findings,
    /// Of the flood, if there was one.
    pub(crate) flooder: Findings,
}

impl Crew {
    /// Starts both children.
    pub(crate) fn start(sender: &[CoreId], receiver: &[CoreId]) -> Result<Self, Stopped> {
        Ok(Self {
            sender: Agent::start(Role::Sender, sender)?,
            receiver: Agent::start(Role::Receiver, receiver)?,
            rested_at: Nanos::ZERO,
        })
    }

    /// Runs one leg.
    pub(crate) fn leg(&mut self, leg: &Leg, run: &mut Run) -> Result<LegFindings, Stopped> {
        self.leg_under(leg, run, None)
    }

    /// Runs one leg while `flooder` does what `flood` makes of the sender's life.
    pub(crate) fn leg_under(
        &mut self,
        leg: &Leg,
        run: &mut Run,
        flood: Option<(&mut Agent, MakeFlood<'_>)>,
    ) -> Result<LegFindings, Stopped> {
        let Self { sender, receiver, .. } = self;
        let (from, to) = (sender.end.clone(), receiver.end.clone());
        sender.order(&Order::Prepare { leg: *leg, peer: to.clone() })?;
        receiver.order(&Order::Prepare { leg: *leg, peer: from.clone() })?;
        let epoch = sender.ready(run)?;
        receiver.ready(run)?;
        let mut flooder = match flood {
            None => None,
            Some((flooder, flood)) => {
                flooder.order(&Order::PrepareFlood(flood(&from, epoch, &to)))?;
                flooder.ready(run)?;
                Some(flooder)
            }
        };
        let start = (clock::now() + COUNTDOWN).max(self.rested_at);
        let go = Order::Go { start_ns: start.as_nanos() };
        sender.order(&go)?;
        receiver.order(&go)?;
        if let Some(flooder) = &mut flooder {
            flooder.order(&go)?;
        }
        let span = leg.bursts.span();
        self.rested_at = start + span + super::schedule::PAUSE_MIN;
        let expected_in = start + span - clock::now();
        Ok(LegFindings {
            sender: sender.done(expected_in)?,
            receiver: receiver.done(expected_in)?,
            flooder: flooder
                .map(|flooder| flooder.done(expected_in))
                .transpose()?
                .unwrap_or_default(),
        })
    }
}
