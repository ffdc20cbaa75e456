//! A child of the bench: prepares what it is ordered to, runs it at the instant it is given, answers
//! what it found. It ends when its parent does.

use sinew_rt::clock::{self, Nanos};
use sinew_rt::memory::{self, MemoryPlan};
use sinew_rt::thread::{Applied, Policy, Priority, RtThread, ThreadSpec, spawn};
use sinew_rt::topology::CoreId;
use std::fmt::Display;
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::report::ThreadReport;
use super::bare::{Bare, Stop};
use super::flooder::Flooder;
use super::mesh::{Mesh, Seat, identity};
use super::order::{Answer, End, Findings, Flood, Leg, Order, Program, Role, Waits};
use super::recording::Recording;
use super::{crypto, idle};
use crate::exit::{Exit, Failure, Outcome};

/// How much later than the last burst a child looks what came of it.
const SETTLE: Nanos = Nanos::from_millis(60);

/// Serves the parent until it closes the pipe.
pub(crate) fn run(role: Role, cores: &[CoreId], panels: &Path) -> Outcome {
    die_with_parent()?;
    if role == Role::Idler {
        return idle::serve(panels);
    }
    let memory = memory::prepare(&MemoryPlan::default());
    let refused = memory.refused.iter().map(ToString::to_string).collect();
    let secret = secret(role);
    let own = End {
        identity: identity(&secret).map_err(Failure::machine)?.public().to_did(),
        address: free_address().map_err(Failure::machine)?,
    };
    answer(&Answer::Hello(own.clone()))?;
    let (cores, panels) = (cores.to_vec(), panels.to_owned());
    let agent = Agent { role, cores, panels, secret, own, refused };
    let mut prepared = None;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(Failure::machine)?;
        let order: Order = serde_json::from_str(&line).map_err(Failure::machine)?;
        let reply = match order {
            Order::Prepare { leg, peer } => agent.prepare(&leg, &peer).map(|(run, ready)| {
                prepared = Some(run);
                ready
            }),
            Order::PrepareFlood(flood) => agent.prepare_flood(flood).map(|(run, ready)| {
                prepared = Some(run);
                ready
            }),
            Order::Go { start_ns } => match prepared.take() {
                Some(run) => run.go(Nanos::new(start_ns)).map(Answer::Done),
                None => Err("told to go with nothing prepared".to_owned()),
            },
        };
        answer(&reply.unwrap_or_else(Answer::Failed))?;
    }
    Ok(Exit::Done)
}

pub(super) fn answer(answer: &Answer) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(answer).map_err(Failure::machine)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(Failure::machine)
}

/// The kernel kills this process when the thread that started it ends, however it ends; Ctrl-C by
/// itself does not end it.
fn die_with_parent() -> Result<(), Failure> {
    // SAFETY: no pointers; the kernel reads one signal number.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result != 0 {
        return Err(Failure::machine(io::Error::last_os_error()));
    }
    // Ctrl-C reaches the whole group: it is for the parent to hear.
    // SAFETY: SIG_IGN installs no function of ours.
    if unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(Failure::machine(io::Error::last_os_error()));
    }
    // A parent that was gone before now leaves the pipe closed: the first read ends the process.
    Ok(())
}

/// Keys that guard nothing: two processes of one measurement, on loopback.
fn secret(role: Role) -> [u8; 32] {
    [1 + role as u8; 32]
}

/// A loopback port that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    UdpSocket::bind(("127.0.0.1", 0))?.local_addr()
}

struct Agent {
    role: Role,
    cores: Vec<CoreId>,
    panels: PathBuf,
    secret: [u8; 32],
    own: End,
    /// What the kernel refused to the process.
    refused: Vec<String>,
}

/// A thread of a plain program, held until it is told when to start.
struct Held {
    thread: RtThread<()>,
    start: std::sync::mpsc::Sender<Nanos>,
    recording: Arc<Recording>,
    span: Nanos,
    stop: Option<Stop>,
}

/// What was prepared and waits for its start.
enum Run {
    Thread(Held),
    Mesh(Box<Mesh>, Nanos),
}

impl Run {
    /// Runs it, and waits until it is over.
    fn go(self, start: Nanos) -> Result<Findings, String> {
        match self {
            Self::Mesh(mesh, span) => {
                mesh.go(start);
                clock::sleep_until(start + span + SETTLE);
                mesh.finish().map_err(text)
            }
            Self::Thread(held) => {
                held.start.send(start).map_err(|_| "the measuring thread is gone".to_owned())?;
                clock::sleep_until(start + held.span + SETTLE);
                if let Some(stop) = held.stop {
                    stop.stop();
                }
                held.thread.join().map_err(text)?;
                Ok(held.recording.findings())
            }
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Agent {
    fn prepare(&self, leg: &Leg, peer: &End) -> Result<(Run, Answer), String> {
        let recording = Recording::new(leg.samples_max, leg.warm_up);
        let span = leg.bursts.span();
        let (leg, role) = (*leg, self.role);
        match leg.program {
            Program::Node(lanes, protection) | Program::Stream(lanes, protection) => {
                let Self { cores, panels, secret, own, .. } = self;
                let seat = Seat { role, cores, secret, own, peer, panels };
                let mesh = Mesh::start(&leg, lanes, protection, &seat, recording).map_err(text)?;
                let report = mesh.node().report();
                let ready = Answer::Ready {
                    threads: report.lanes.iter().map(thread_report).collect(),
                    not_real_time: report.not_real_time.clone(),
                    epoch: report.epoch.get(),
                };
                Ok((Run::Mesh(Box::new(mesh), span), ready))
            }
            Program::Bare(sleep, protection) => {
                let (own, peer, kept) = (self.own.address, peer.address, recording.clone());
                let (bare, stop) =
                    Bare::new(&leg, sleep, protection, own, peer, recording).map_err(text)?;
                let receives =
                    role == Role::Receiver || !matches!(leg.pace, super::order::Pace::Every(_));
                let parks = receives && leg.waits == Waits::Park;
                let stop = parks.then_some(stop);
                self.hold(leg.priority, span, kept, stop, move |start| bare.run(role, start))
            }
            Program::VerifyLoop if role == Role::Receiver => {
                let kept = recording.clone();
                let body = move |start| crypto::verify_loop(&leg, start, &recording);
                self.hold(leg.priority, span, kept, None, body)
            }
            // Beside the loop, the other core signs as many messages as it would send.
            Program::Crypto | Program::VerifyLoop => {
                let kept = recording.clone();
                let body = move |start| crypto::paced(&leg, role, start, &recording);
                self.hold(leg.priority, span, kept, None, body)
            }
        }
    }

    /// The flooder is no real-time thread: an attacker has no priority here.
    fn prepare_flood(&self, flood: Flood) -> Result<(Run, Answer), String> {
        let recording = Recording::new(0, 0);
        let span = flood.bursts.span();
        let flooder = Flooder::new(flood)?;
        let kept = recording.clone();
        self.hold(0, span, kept, None, move |start| flooder.run(start, &recording))
    }

    /// Starts the thread, which reads back its settings and waits for its start.
    fn hold(
        &self,
        priority: u8,
        span: Nanos,
        recording: Arc<Recording>,
        stop: Option<Stop>,
        body: impl FnOnce(Nanos) + Send + 'static,
    ) -> Result<(Run, Answer), String> {
        let policy = match priority {
            0 => Policy::Other,
            _ => Policy::Fifo(Priority::new(priority).map_err(text)?),
        };
        let core = *self.cores.first().ok_or("no core was given")?;
        let name = format!("bench-{}", self.role.as_str());
        let spec = ThreadSpec::new(name).core(core).policy(policy);
        let (start, begins) = std::sync::mpsc::channel();
        let thread = spawn(spec, move || {
            // Without a start there is nothing to run: the parent gave up.
            if let Ok(start) = begins.recv() {
                body(start);
            }
        });
        let thread = thread.map_err(text)?;
        let applied = thread.applied();
        let mut not_real_time = self.refused.clone();
        if priority > 0 {
            not_real_time.extend(applied.not_real_time());
        }
        let ready =
            Answer::Ready { threads: vec![thread_report(applied)], not_real_time, epoch: 0 };
        Ok((Run::Thread(Held { thread, start, recording, span, stop }), ready))
    }
}

pub(super) fn thread_report(applied: &Applied) -> ThreadReport {
    let effective = &applied.effective;
    ThreadReport {
        name: effective.name.clone(),
        scheduling: effective.scheduling.to_string(),
        cores: effective.affinity.to_string(),
        refused: applied.refused.iter().map(ToString::to_string).collect(),
    }
}
