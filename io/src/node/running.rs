//! A node that runs, and how it ends.

use super::NodeError;
use super::builder::NodeBuilder;
use super::housekeeping::HousekeepingThread;
use super::plan::Plan;
use crate::security::PublicKey;
use crate::wire::Epoch;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::health::Health;
use sinew_rt::keep_awake::KeepAwake;
use sinew_rt::lane::{Gate, Lane, RunningLane};
use sinew_rt::memory::MemoryReport;
use sinew_rt::panel::{Panel, State};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::thread::{Applied, RtThread, ThreadError};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Wait;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// How long a stopping node finishes what is in its rings.
const DRAIN_LIMIT: Nanos = Nanos::from_millis(200);

/// How long after its part of that a lane may take to leave the poll that it is in, and housekeeping
/// to end its turn.
const GRACE: Nanos = Nanos::from_secs(1);

/// How often a stopping node looks whether a thread has ended.
const LOOK: std::time::Duration = std::time::Duration::from_millis(1);

/// What the machine granted, as read back at the start.
#[derive(Clone, Debug)]
pub struct StartReport {
    /// Which stages run where, and why.
    pub plan: Plan,
    /// For each lane what was asked for and what is in force.
    pub lanes: Vec<Applied>,
    /// The process's memory; `None` when locking was not asked for.
    pub memory: Option<MemoryReport>,
    /// The wake-up latency that power management keeps, in microseconds, if it is held.
    pub cpu_latency_us: Option<u32>,
    /// What was granted to the threads that keep cores awake; empty when none was asked for.
    pub keep_awake: Vec<Applied>,
    /// Why figures of this process are not real-time figures; empty when they are.
    pub not_real_time: Vec<String>,
    /// The bound address.
    pub address: SocketAddr,
    /// The life that this start began.
    pub epoch: Epoch,
}

/// A running node. Dropping it stops it: lanes finish what is in their rings for up to 200 ms, and
/// every thread, socket, slot, mapping and file of it is gone when the drop returns. Only a thread that
/// hangs, in a stage or in what takes the log, is left behind after another second: it ends by itself if
/// that ever returns.
#[derive(Debug)]
pub struct Node {
    pub(super) lanes: LaneSet,
    pub(super) housekeeping: Option<HousekeepingThread>,
    pub(super) panel: Panel,
    pub(super) health: Arc<Health>,
    pub(super) report: StartReport,
    pub(super) wait: Wait,
    pub(super) public: PublicKey,
    /// Held for as long as lanes run.
    pub(super) _power: Option<CpuLatencyHold>,
    /// Spin for as long as lanes run.
    pub(super) _keep_awake: KeepAwake,
}

impl Node {
    /// A production node called `name`, with defaults for everything else.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> NodeBuilder {
        NodeBuilder::new(name)
    }

    /// A node as `sinew.toml` describes it, ready for subscriptions and publishers.
    ///
    /// # Errors
    /// The first problem in the file, with its line and what to do.
    pub fn from_config(path: impl AsRef<Path>) -> Result<NodeBuilder, NodeError> {
        NodeBuilder::from_config(path)
    }

    /// What the machine granted.
    #[must_use]
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// The panel on which everything about the node shows. A control loop adds its own figures.
    #[must_use]
    pub fn panel(&self) -> &Panel {
        &self.panel
    }

    /// How well the stages are doing, for a control loop to watch.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// The cores that spinning lanes never give up: nothing else that is real-time may run there.
    #[must_use]
    pub fn held_cores(&self) -> Vec<CoreId> {
        match self.wait.holds_core() {
            true => self.report.plan.lanes.iter().map(|lane| lane.core).collect(),
            false => Vec::new(),
        }
    }

    /// Who the node is.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Whether one of its threads ended by a panic: the node then no longer does its work.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.lanes.iter().any(RunningLane::is_finished)
            || self.housekeeping.as_ref().is_some_and(HousekeepingThread::is_finished)
    }

    /// Stops the node and says how its threads ended.
    ///
    /// # Errors
    /// The messages of the panics that ended threads, and which did not end because they hang.
    pub fn stop(mut self) -> Result<(), Vec<String>> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Vec<String>> {
        self.panel.set_state(State::Draining);
        // Housekeeping first: nothing may answer a handshake for a node that ends.
        let housekeeping = self.housekeeping.take().map_or(Ok(()), HousekeepingThread::stop);
        let mut panics = self.lanes.stop();
        panics.extend(housekeeping.err());
        let state = if panics.is_empty() { State::Stopped } else { State::Failed };
        self.panel.set_state(state);
        if panics.is_empty() { Ok(()) } else { Err(panics) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Panics were latched in `health` and the panel when they happened; whoever wants their
        // messages calls `stop`.
        if self.housekeeping.is_some() {
            let _ = self.end();
        }
    }
}

/// The lanes that have been started, which stop when this is dropped: also when the rest of the
/// start fails.
#[derive(Debug, Default)]
pub(super) struct LaneSet {
    /// Each behind a gate of its own, in the order in which a message passes them.
    lanes: Vec<(Arc<Gate>, RunningLane)>,
}

impl LaneSet {
    /// Starts the thread of `lane`, which then waits for [`LaneSet::open`].
    pub(super) fn spawn(&mut self, lane: Lane, health: &Arc<Health>) -> Result<(), ThreadError> {
        let gate = Gate::new();
        let lane = lane.spawn(&gate, health)?;
        self.lanes.push((gate, lane));
        Ok(())
    }

    /// Lets all lanes run.
    pub(super) fn open(&self) {
        self.lanes.iter().for_each(|(gate, _)| gate.open());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RunningLane> {
        self.lanes.iter().map(|(_, lane)| lane)
    }

    /// Ends the lanes one after the other, so that each finds what the one before it has still put
    /// into its ring, and gives the messages of those that panicked or did not end. Each has its part of the limit.
    fn stop(&mut self) -> Vec<String> {
        let (start, share) = (clock::now(), DRAIN_LIMIT / self.lanes.len().max(1) as i64);
        let mut panics = Vec::new();
        for ((gate, lane), n) in self.lanes.drain(..).zip(1..) {
            let drain_until = start + share * n;
            gate.stop(drain_until);
            lane.wake();
            if ends_by(drain_until + GRACE, || lane.is_finished()) {
                panics.extend(lane.join().err());
            } else {
                // Dropping its handle detaches the thread; a join would hang with it.
                let (name, waited) = (&lane.applied().requested.name, clock::now() - start);
                panics.push(format!(
                    "lane {name} did not end within {waited}: one of its stages hangs, or another \
                     real-time thread does not give up the core"
                ));
            }
        }
        panics
    }
}

/// Waits until `is_finished`, but no longer than until `limit`, and says whether it is.
fn ends_by(limit: Nanos, is_finished: impl Fn() -> bool) -> bool {
    while !is_finished() && clock::now() < limit {
        std::thread::sleep(LOOK);
    }
    is_finished()
}

/// Joins the housekeeping thread, which was told to stop, if it ends.
pub(super) fn join_housekeeping(thread: RtThread<()>) -> Result<(), String> {
    let start = clock::now();
    if ends_by(start + GRACE, || thread.is_finished()) {
        return thread.join().map_err(|error| error.to_string());
    }
    // Dropping its handle detaches the thread, as with a lane.
    let waited = clock::now() - start;
    Err(format!(
        "housekeeping did not end within {waited}: what takes the log hangs, or real-time threads do \
         not give up the core"
    ))
}

impl Drop for LaneSet {
    fn drop(&mut self) {
        self.stop();
    }
}
