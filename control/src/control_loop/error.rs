//! Why loops fail to start.

use sinew_rt::clock::Nanos;
use sinew_rt::guard::GuardError;
use sinew_rt::panel::PanelError;
use sinew_rt::thread::ThreadError;
use sinew_rt::topology::CoreId;
use thiserror::Error;

use super::RATE_MAX_HZ;

/// Why a loop did not start, or how its thread ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoopError {
    /// No such rate.
    #[error("loop {name}: {rate_hz} Hz; use 1 to {RATE_MAX_HZ} Hz")]
    Rate {
        /// The loop.
        name: String,
        /// Rate asked for.
        rate_hz: u32,
    },
    /// The budget does not fit the period.
    #[error("loop {name}: a budget of {budget} does not fit a period of {period}; lower one")]
    Budget {
        /// The loop.
        name: String,
        /// Budget asked for.
        budget: Nanos,
        /// Period asked for.
        period: Nanos,
    },
    /// The wait would mostly spin.
    #[error(
        "loop {name}: spinning {spin} of each period of {period}; use 0 to {} or Wake::Sleep",
        *period / 2
    )]
    Spin {
        /// The loop.
        name: String,
        /// Spin asked for.
        spin: Nanos,
        /// Period asked for.
        period: Nanos,
    },
    /// A lane that never gives up its core would starve the loop, or the loop the lane.
    #[error(
        "loop {name}: a spinning lane of node {node} holds core {core}; give the loop another core, \
         or let the node park"
    )]
    CoreHeld {
        /// The loop.
        name: String,
        /// The node.
        node: String,
        /// The core.
        core: CoreId,
    },
    /// Budgets, hard limits or ladder make no sense.
    #[error("loop {name}: {source}")]
    Guard {
        /// The loop.
        name: String,
        /// What is wrong.
        source: GuardError,
    },
    /// The loop's instruments could not be registered.
    #[error("loop {name}: {source}")]
    Panel {
        /// The loop.
        name: String,
        /// What is wrong.
        source: PanelError,
    },
    /// The thread could not be started as required, or did not end as it should.
    #[error("loop {name}: {source}")]
    Thread {
        /// The loop.
        name: String,
        /// What is wrong.
        source: ThreadError,
    },
    /// The safe-stop path panicked when it was tried.
    #[error("loop {name}: the safe-stop path panicked in its self-test; nothing was started")]
    SelfTestPanicked {
        /// The loop.
        name: String,
    },
    /// The safe-stop path took too long when it was tried, under
    /// [`Strictness::Require`](sinew_rt::thread::Strictness::Require).
    #[error(
        "loop {name}: the safe-stop path took {took} in its self-test, its budget is {budget}; \
         make it shorter, or raise safe_stop_budget"
    )]
    SelfTestTooSlow {
        /// The loop.
        name: String,
        /// How long it took.
        took: Nanos,
        /// What it may take.
        budget: Nanos,
    },
}
