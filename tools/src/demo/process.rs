//! What the demo's two processes have in common: their arguments, their loops, and how their parent
//! talks to them.
//!
//! The parent writes one order a line to standard input; the end of that stream is the order to
//! stop, so that no process outlives its parent. The process answers once, with what the kernel
//! granted it, as one line of JSON on standard output.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread::Builder;

use serde::{Deserialize, Serialize};
use signal_hook::iterator::Signals;
use sinew_control::control_loop::{ControlLoop, RunningLoop, Wake};
use sinew_control::safety::RearmToken;
use sinew_io::node::Node;
use sinew_rt::clock::Nanos;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::thread::{Applied, Priority, Strictness};
use sinew_rt::topology::CoreId;

use super::pilot::PERIOD;
use crate::exit::{Exit, Failure, Outcome};

/// What one cycle of either loop may take.
pub(super) const LOOP_BUDGET: Nanos = Nanos::from_micros(250);

/// Hides most wake-ups. A lane on the same core waits meanwhile, so it is shorter than the standard.
const LOOP_SPIN: Nanos = Nanos::from_micros(50);

/// Above the lanes' 75, with which a loop shares its core on small machines. The loop's wake-up is
/// when the actuator acts, and a cycle (with its spin) holds a message up for 0.1 ms at most; a
/// lane in front would hold the actuator up for two signatures.
const LOOP_PRIORITY: u8 = 80;

/// Of the threads that listen for orders: all of it is locked.
const LISTENER_STACK: usize = 64 * 1024;

/// How one of the demo's processes is started.
#[derive(Debug, clap::Args)]
pub(crate) struct ProcessArgs {
    /// The node's sinew.toml
    #[arg(long)]
    pub(super) config: PathBuf,
    /// The loop's core
    #[arg(long)]
    pub(super) core: u16,
    /// Wider limits, for a kernel that does not grant real-time scheduling
    #[arg(long)]
    pub(super) best_effort: bool,
}

/// The ages at which a setpoint is stale and lost, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A setpoint older than this is followed with decreasing torque.
    pub(crate) max_age: Nanos,
    /// One older than this is a safe stop.
    pub(crate) deadline: Nanos,
    /// From the deadline to torque off: one period until a cycle looks, and that cycle's budget.
    /// Without real-time scheduling nobody promises when a thread runs, and a bound that a busy
    /// machine breaks would judge the machine.
    pub(crate) reaction: Nanos,
}

impl Limits {
    pub(crate) fn new(best_effort: bool) -> Self {
        let (max_age, deadline, reaction) = match best_effort {
            false => (Nanos::from_millis(5), Nanos::from_millis(20), PERIOD + LOOP_BUDGET),
            true => (Nanos::from_millis(25), Nanos::from_millis(100), Nanos::from_millis(50)),
        };
        Self { max_age, deadline, reaction }
    }
}

impl ProcessArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits::new(self.best_effort)
    }
}

/// The loop of either process.
pub(super) fn control_loop(name: &str, args: &ProcessArgs) -> ControlLoop {
    let priority = Priority::new(LOOP_PRIORITY).unwrap_or(Priority::MIN);
    let deadline = args.limits().deadline;
    // What stops the demo's robot is the age of its setpoint, and a stall as long. Its ladder
    // reports only: on a shared virtual machine ten slow cycles in a second say nothing about
    // the robot.
    let ladder =
        LadderConfig { on_hang: LadderConfig::standard().on_hang, ..LadderConfig::report_only() };
    ControlLoop::new(name)
        .rate_hz(1_000)
        .wake(Wake::Hybrid { spin: LOOP_SPIN })
        .core(CoreId::new(args.core))
        .priority(priority)
        .strictness(Strictness::Report)
        .budget(LOOP_BUDGET)
        .hard_limit(deadline)
        .trip(ladder)
}

/// What the parent, or a signal, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Leave the safe stop of this number.
    Rearm(u64),
    /// End in good order.
    Stop,
}

impl Order {
    pub(super) fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "stop" => Some(Self::Stop),
            Some(("rearm", stop)) => stop.parse().ok().map(Self::Rearm),
            _ => None,
        }
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rearm(stop) => write!(f, "rearm {stop}"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

/// Signals that end a process in good order. They are caught from the beginning, and answered once
/// the process listens.
pub(super) fn catch_signals() -> Result<Signals, Failure> {
    // A parent that dies takes this process along, in good order, even while it starts up.
    // SAFETY: prctl with PR_SET_PDEATHSIG takes a number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    Signals::new([libc::SIGTERM, libc::SIGINT]).map_err(Failure::machine)
}

/// Listens for orders, on threads that are made after the node has settled how memory is used.
fn orders(mut signals: Signals) -> Result<Receiver<Order>, Failure> {
    let (to_main, orders) = mpsc::channel();
    let from_signals = to_main.clone();
    let thread = |name: &str| Builder::new().name(name.to_owned()).stack_size(LISTENER_STACK);
    let listening = thread("signals").spawn(move || {
        for _ in signals.forever() {
            if from_signals.send(Order::Stop).is_err() {
                return;
            }
        }
    });
    listening.map_err(Failure::machine)?;
    let listening = thread("orders").spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line.ok().and_then(|line| Order::parse(&line)).unwrap_or(Order::Stop);
            if to_main.send(order).is_err() {
                return;
            }
        }
        // The end of the stream. Nobody listens any more when the process has ended already.
        let _ = to_main.send(Order::Stop);
    });
    listening.map_err(Failure::machine)?;
    Ok(orders)
}

/// Says what was granted, and follows orders until one of them is to stop.
pub(super) fn serve(node: Node, running: RunningLoop, signals: Signals) -> Outcome {
    let orders = orders(signals)?;
    let started = Started::of(&node, &running);
    let mut line = serde_json::to_string(&started).map_err(Failure::machine)?;
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).map_err(Failure::machine)?;
    while let Ok(Order::Rearm(stop)) = orders.recv() {
        running.rearm(RearmToken::authorise(stop));
    }
    running.stop().map_err(Failure::machine)?;
    node.stop().map_err(|panics| Failure::machine(panics.join("; ")))?;
    Ok(Exit::Done)
}

/// What a process reports about its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Its identity.
    pub(crate) identity: String,
    /// The life that began.
    pub(crate) epoch: u64,
    /// Which stages run where, and why.
    pub(crate) layout: String,
    /// Every real-time thread.
    pub(crate) threads: Vec<Granted>,
    /// Locked memory of the process, in bytes; `None` when the kernel refused.
    pub(crate) memory_locked_bytes: Option<u64>,
    /// The wake-up latency held with the power management, in µs; `None` when the kernel refused.
    pub(crate) cpu_latency_us: Option<u32>,
    /// Why figures of this process are not real-time figures.
    pub(crate) not_real_time: Vec<String>,
}

/// One thread as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Granted {
    pub(crate) name: String,
    pub(crate) wanted: String,
    /// Read back.
    pub(crate) granted: String,
    /// The cores that it may run on, read back.
    pub(crate) cores: String,
    /// Each difference, with its reason and fix.
    pub(crate) refused: Vec<String>,
}

impl Granted {
    fn of(applied: &Applied) -> Self {
        let (wanted, effective) = (&applied.requested, &applied.effective);
        let core = wanted.core.map_or_else(|| "any core".to_owned(), |core| format!("core {core}"));
        Self {
            name: wanted.name.clone(),
            wanted: format!("{} on {core}", wanted.policy),
            granted: effective.scheduling.to_string(),
            cores: effective.affinity.to_string(),
            refused: applied.refused.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Started {
    fn of(node: &Node, running: &RunningLoop) -> Self {
        let report = node.report();
        let locked = report.memory.as_ref().map_or(0, |memory| memory.locked_bytes);
        let threads: Vec<&Applied> = running.applied().into_iter().chain(&report.lanes).collect();
        let mut not_real_time = report.not_real_time.clone();
        not_real_time.extend(running.applied().and_then(Applied::not_real_time));
        Self {
            identity: node.public_key().to_did(),
            epoch: report.epoch.get(),
            layout: report.plan.to_string(),
            threads: threads.into_iter().map(Granted::of).collect(),
            memory_locked_bytes: (locked > 0).then_some(locked),
            cpu_latency_us: report.cpu_latency_us,
            not_real_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written_and_nonsense_is_none() {
        for order in [Order::Stop, Order::Rearm(1), Order::Rearm(u64::MAX)] {
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
        for line in ["", "rearm", "rearm x", "rearm -1", "go"] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }
}
