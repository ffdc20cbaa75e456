//! A periodic control loop on a real-time thread: absolute periods, a budget, a trip ladder, and a
//! safe stop that latches.
//!
//! ```no_run
//! use sinew_control::control_loop::{ControlLoop, Wake};
//! use sinew_control::input::{Input, Reading};
//! use sinew_control::message::JointSetpoint;
//! use sinew_rt::clock::Nanos;
//! use sinew_rt::panel::{Panel, PanelSpec};
//! use sinew_rt::thread::Priority;
//! use sinew_rt::topology::CoreId;
//! # fn drive(_: f64) {}
//! # fn torque_off() {}
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let panel = Panel::create(&PanelSpec::new("robot"))?;
//! let (_publisher, reader) = sinew_rt::latest::channel::<JointSetpoint>();
//! let mut setpoint = Input::new(reader, Nanos::from_millis(5)).deadline(Nanos::from_millis(20));
//!
//! let report = ControlLoop::new("arm")
//!     .rate_hz(1_000)
//!     .core(CoreId::new(1))
//!     .priority(Priority::new(80)?)
//!     .budget(Nanos::from_micros(150))
//!     .wake(Wake::Hybrid { spin: Nanos::from_micros(100) })
//!     .on_safe_stop(|_cx| torque_off())
//!     .run(&panel, |cx| match cx.read(&mut setpoint) {
//!         Reading::Fresh(target, _age) if target.check().is_ok() => drive(target.effort[0]),
//!         Reading::Fresh(..) => cx.trip(),
//!         Reading::Stale(target, age) => drive(target.effort[0] / (1.0 + age.as_secs_f64())),
//!         Reading::Never => drive(0.0),
//!     })?;
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # Timing
//!
//! Cycles are due at whole periods after the first. A cycle that ends after the next one was due
//! has missed it: the missed ones are skipped and counted, the phase of those that follow does not
//! move, and nothing catches up in a burst. A cycle that is woken late runs once, late.
//!
//! Two limits make overruns, and overruns climb the trip ladder: the [budget](ControlLoop::budget)
//! on what a cycle takes, and the [deadline](ControlLoop::deadline) on when it ends, counted from
//! the instant at which it was due. So a late wake-up counts as much as a long computation: the
//! plant does not care why its command is late. A cycle that misses both is one overrun.
//!
//! # Safe stop
//!
//! What leads to safe stop: the trip ladder of the loop's guard (or of any guard that shares its
//! [`Health`]), an input past its deadline, a cycle beyond the hard limit, a panic, or
//! [`Cycle::trip`]. A cycle that is still inside beyond its hard limit is found only where a
//! supervisor looks, as beside a node; a loop by itself notices when the cycle ends. Then the safe-stop path runs within the same cycle, and in every cycle
//! until somebody authorises the re-arm of that very stop.
//!
//! **This is software, not a certified safety function.** A body that never returns keeps its own
//! thread from running the safe-stop path, and a dead kernel everything: drives need a command
//! timeout of their own.

mod closures;
mod cycle;
mod engine;
mod error;
mod handle;
mod prepare;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc;

use sinew_io::node::Node;
use sinew_rt::clock::Nanos;
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::Panel;
use sinew_rt::thread::{self, Applied, Policy, Priority, Strictness, ThreadSpec};
use sinew_rt::topology::CoreId;

pub use closures::ClosureLoop;
pub use cycle::{Cycle, LoopBody};
pub use error::LoopError;
pub use handle::{LoopHandle, Status};
pub use running::{Report, RunningLoop};

use handle::Shared;
use running::Finish;

/// The highest rate: a period of 10 µs leaves nothing for a body on any kernel.
pub const RATE_MAX_HZ: u32 = 100_000;

/// How a loop waits for its next cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// `clock_nanosleep` to the absolute instant. Cheapest; the wake-up costs what the kernel and
    /// the idle state of the core cost.
    Sleep,
    /// Sleep until `spin` before the instant, and spin for the rest: hides the cost of waking up
    /// for `spin / period` of a core.
    Hybrid {
        /// How long to spin; at most half the period.
        spin: Nanos,
    },
}

impl Wake {
    /// Spins for the last 100 µs, or a quarter of a period that is shorter than 400 µs.
    fn standard(period: Nanos) -> Self {
        Self::Hybrid { spin: Nanos::from_micros(100).min(period / 4) }
    }

    fn spin(self) -> Nanos {
        match self {
            Self::Sleep => Nanos::ZERO,
            Self::Hybrid { spin } => spin,
        }
    }
}

/// A loop to be. Start it with [`run_body`](Self::run_body) or [`spawn_body`](Self::spawn_body), or
/// give it closures by way of [`on_safe_stop`](Self::on_safe_stop).
#[derive(Debug)]
pub struct ControlLoop {
    thread: ThreadSpec,
    rate_hz: u32,
    budget: Option<Nanos>,
    deadline: Option<Nanos>,
    hard_limit: Option<Nanos>,
    safe_stop_budget: Option<Nanos>,
    wake: Option<Wake>,
    ladder: LadderConfig,
    health: Option<Arc<Health>>,
    /// Cores on which lanes of a node spin, with the node's name.
    held: Option<(String, Vec<CoreId>)>,
    shared: Arc<Shared>,
}

impl ControlLoop {
    /// A loop at 1 kHz on the normal scheduler and any core, with a hybrid wait and the standard
    /// ladder, that reports what the kernel refuses and starts anyway. `name` is that of its thread
    /// (the kernel keeps 15 bytes) and of its instruments (at most 30 bytes).
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            thread: ThreadSpec::new(name),
            rate_hz: 1_000,
            budget: None,
            deadline: None,
            hard_limit: None,
            safe_stop_budget: None,
            wake: None,
            ladder: LadderConfig::standard(),
            health: None,
            held: None,
            shared: Arc::default(),
        }
    }

    /// Cycles per second, 1 to [`RATE_MAX_HZ`]. The period is rounded to a nanosecond.
    #[must_use]
    pub fn rate_hz(mut self, rate_hz: u32) -> Self {
        self.rate_hz = rate_hz;
        self
    }

    /// Pins the loop to `core`.
    #[must_use]
    pub fn core(mut self, core: CoreId) -> Self {
        self.thread = self.thread.core(core);
        self
    }

    /// Runs the loop under `SCHED_FIFO` at `priority`.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.thread = self.thread.policy(Policy::Fifo(priority));
        self
    }

    /// Whether a setting that the kernel refuses, or a safe-stop path beyond its budget, ends the
    /// start.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.thread = self.thread.strictness(strictness);
        self
    }

    /// The stack of a spawned loop, all of it pre-faulted.
    #[must_use]
    pub fn stack_bytes(mut self, bytes: usize) -> Self {
        self.thread = self.thread.stack_bytes(bytes);
        self
    }

    /// What one cycle may take, from its beginning to its end; longer ones are overruns. Half the
    /// period unless told otherwise; at most the period.
    #[must_use]
    pub fn budget(mut self, budget: Nanos) -> Self {
        self.budget = Some(budget);
        self
    }

    /// How long after it was due a cycle may end, however late it was woken; later ones are
    /// overruns, even within their budget. The period unless told otherwise; at least the budget.
    /// One period catches the cycles that cost the next one; less bounds the jitter of outputs.
    #[must_use]
    pub fn deadline(mut self, deadline: Nanos) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// A cycle that takes longer than this, or is woken later than this, is a hang. Twenty
    /// periods unless told otherwise.
    #[must_use]
    pub fn hard_limit(mut self, hard_limit: Nanos) -> Self {
        self.hard_limit = Some(hard_limit);
        self
    }

    /// What the safe-stop path may take. As much as a cycle unless told otherwise.
    #[must_use]
    pub fn safe_stop_budget(mut self, budget: Nanos) -> Self {
        self.safe_stop_budget = Some(budget);
        self
    }

    /// How the loop waits for its next cycle. Unless told otherwise it spins for the last 100 µs,
    /// or for a quarter of a period shorter than 400 µs.
    #[must_use]
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = Some(wake);
        self
    }

    /// What overruns add up to. A ladder whose `on_hang` is below [`SafeStop`](sinew_rt::ladder::Level::SafeStop) also takes
    /// away the stop at the hard limit.
    #[must_use]
    pub fn trip(mut self, ladder: LadderConfig) -> Self {
        self.ladder = ladder;
        self
    }

    /// Shares the health of a node: the loop degrades and stops with the lanes that feed it, and
    /// re-arms them with itself.
    #[must_use]
    pub fn health(mut self, health: Arc<Health>) -> Self {
        self.health = Some(health);
        self
    }

    /// Runs the loop beside a node in one process: shares its [`health`](Self::health), and is
    /// refused on a core that one of its spinning lanes holds.
    #[must_use]
    pub fn beside(mut self, node: &Node) -> Self {
        self.held = Some((node.panel().name().to_owned(), node.held_cores()));
        self.health(node.health().clone())
    }

    /// A handle to the loop, for other threads; it works before the start, too.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        LoopHandle { shared: self.shared.clone() }
    }

    /// Gives the loop a safe-stop path as a closure; see [`LoopBody::safe_stop`] for when it runs.
    /// Where cycle and safe-stop path share state, implement [`LoopBody`] instead.
    #[must_use]
    pub fn on_safe_stop<S: FnMut(&mut Cycle)>(
        self,
        safe_stop: S,
    ) -> ClosureLoop<fn(&mut Cycle), S> {
        ClosureLoop { control_loop: self, degraded: |_cx| {}, safe_stop }
    }

    /// Runs `body` on the calling thread, which takes on the loop's scheduling and keeps it, until
    /// the body or a [`handle`](Self::handle) asks for the end.
    ///
    /// # Errors
    /// [`LoopError`], before the first cycle.
    pub fn run_body(self, panel: &Panel, body: impl LoopBody) -> Result<Report, LoopError> {
        let mut prepared = self.prepare(panel, body)?;
        let name = prepared.name.clone();
        let applied = thread::apply_to_current(&prepared.thread)
            .map_err(|source| LoopError::Thread { name, source })?;
        brand(panel, &applied);
        prepared.self_test()?;
        Ok(prepared.run()(applied))
    }

    /// Runs `body` on a thread of its own. Returns when that thread has applied and read back its
    /// settings and the self-test of the safe-stop path is done.
    ///
    /// # Errors
    /// [`LoopError`]; no thread is left behind.
    pub fn spawn_body(
        self,
        panel: &Panel,
        body: impl LoopBody + Send + 'static,
    ) -> Result<RunningLoop, LoopError> {
        let prepared = self.prepare(panel, body)?;
        let name = prepared.name.clone();
        let handle = LoopHandle { shared: prepared.engine.parts.shared.clone() };
        let (passed, self_test) = mpsc::sync_channel(1);
        let thread = thread::spawn(prepared.thread.clone(), move || {
            let mut prepared = prepared;
            prepared.self_test()?;
            // Fails only when nobody waits any more, and then the handle says stop.
            let _told = passed.send(());
            Ok(Box::new(prepared.run()) as Finish)
        });
        let thread = thread.map_err(|source| LoopError::Thread { name: name.clone(), source })?;
        brand(panel, thread.applied());
        let running = RunningLoop { handle, name, thread: Some(thread) };
        match self_test.recv() {
            Ok(()) => Ok(running),
            // The thread ended instead; joining says why.
            Err(mpsc::RecvError) => Err(running.join().expect_err("a loop that runs has said so")),
        }
    }
}

/// Shows on the panel that the loop's figures are not real-time figures, if they are not.
fn brand(panel: &Panel, applied: &Applied) {
    if let Some(reason) = applied.not_real_time() {
        panel.add_not_real_time(&reason);
    }
}
