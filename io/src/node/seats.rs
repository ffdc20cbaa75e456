//! The lanes of a node while stages are seated on them and connected.

use super::config::NodeConfig;
use super::log::Log;
use super::plan::{Plan, StageName};
use super::stages::{Seat, Seats};
use super::{ConfigError, NodeError};
use crate::delivery::DropReason;
use crate::pipeline::resend::ReliableSend;
use crate::transport::Endpoint;
use crate::transport::park::SocketPark;
use sinew_rt::clock::Nanos;
use sinew_rt::guard::{Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::{Lane, Stage};
use sinew_rt::log::LogSender;
use sinew_rt::panel::Panel;
use sinew_rt::thread::{Policy, ThreadSpec};
use sinew_rt::wait::Doorbell;
use std::sync::Arc;

/// A stage that is inside for this many budgets hangs.
const HARD_LIMIT_BUDGETS: i64 = 100;

/// The lanes of the plan while stages are put on them.
pub(super) struct Lanes<'a> {
    pub(super) lanes: Vec<Lane>,
    plan: &'a Plan,
    panel: &'a Panel,
    health: &'a Arc<Health>,
    observer: bool,
    pub(super) log: Log,
}

impl<'a> Lanes<'a> {
    /// The lanes of `plan` without stages; those of an observer at ordinary priority on any core.
    pub(super) fn new(
        config: &NodeConfig,
        observer: bool,
        plan: &'a Plan,
        endpoint: &mut Endpoint,
        panel: &'a Panel,
        health: &'a Arc<Health>,
        log: Log,
    ) -> Result<Self, NodeError> {
        let lanes = make_lanes(config, observer, plan, endpoint)?;
        Ok(Self { lanes, plan, panel, health, observer, log })
    }

    pub(super) fn of(&self, stage: StageName) -> usize {
        self.plan.lanes.iter().position(|lane| lane.stages.contains(&stage)).unwrap_or(0)
    }

    /// The bell that work for `stage` must ring, when its lane may be asleep.
    pub(super) fn doorbell(&self, stage: StageName) -> Option<Arc<Doorbell>> {
        let lane = &self.lanes[self.of(stage)];
        (!lane.wait().holds_core()).then(|| lane.doorbell())
    }

    /// Where the stages run, and what wakes the housekeeping thread, for the rings between them. A
    /// lane that receives and spins makes no system call, not even to wake housekeeping, which looks
    /// by itself every 20 ms then. The handshake's clock samples are taken on the lane, so they stay
    /// exact.
    pub(super) fn seats(&self, housekeeping: &Arc<Doorbell>) -> Seats {
        use StageName::{Deliver, Receive, Send, Verify};
        let seat = |stage| Seat { thread: self.of(stage), doorbell: self.doorbell(stage) };
        let wakes = self.doorbell(Receive).is_some();
        Seats {
            stages: [Receive, Verify, Deliver, Send].map(seat),
            greeter: Seat {
                thread: self.lanes.len(),
                doorbell: wakes.then(|| housekeeping.clone()),
            },
        }
    }

    pub(super) fn seat(
        &mut self,
        on: StageName,
        name: &str,
        spec: GuardSpec,
        stage: Box<dyn Stage>,
    ) -> Result<(), NodeError> {
        let lane = self.of(on);
        let core = (!self.observer).then(|| self.plan.lanes[lane].core.get());
        let probe = self.panel.probe(name, core)?;
        let guard = Guard::new(probe, spec).map_err(|error| ConfigError {
            file: None,
            key: format!("budget of stage {name}"),
            problem: error.to_string(),
            hint: String::new(),
        })?;
        let log = self.log.stage(self.plan.lanes[lane].name, name);
        self.lanes[lane].push_logged(stage, guard.with_health(self.health.clone()), log);
        Ok(())
    }

    /// Where a stage tells of the first drop of each kind.
    pub(super) fn drop_log(
        &mut self,
        on: StageName,
        reasons: &'static [DropReason],
        peers: &[String],
    ) -> LogSender {
        let source = format!("{}/{on}", self.plan.lanes[self.of(on)].name);
        self.log.drops(&source, reasons, peers)
    }

    /// Lets a stage tell of readers that disagree about a topic.
    pub(super) fn report_log(
        &mut self,
        on: StageName,
        peers: &[String],
        topics: Vec<String>,
        reliable: &mut ReliableSend,
    ) {
        let source = format!("{}/{on}", self.plan.lanes[self.of(on)].name);
        self.log.reports(&source, peers, topics, reliable);
    }
}

pub(super) fn pipeline_guard(budget: Nanos) -> GuardSpec {
    GuardSpec {
        budget,
        hard_limit: budget * HARD_LIMIT_BUDGETS,
        ladder: LadderConfig::report_only(),
    }
}

/// The lanes without stages; the one that receives sleeps in the transport's poll.
fn make_lanes(
    config: &NodeConfig,
    observer: bool,
    plan: &Plan,
    endpoint: &mut Endpoint,
) -> Result<Vec<Lane>, NodeError> {
    let wait = config.realtime.wait;
    let failed = |error| NodeError::System { action: "make the poll of a lane", error };
    let mut lanes = Vec::with_capacity(plan.lanes.len());
    for lane in &plan.lanes {
        let spec = ThreadSpec::new(lane.name).strictness(config.strictness());
        let spec = match observer {
            true => spec.policy(Policy::Other),
            false => spec.core(lane.core).fifo(config.realtime.priority),
        };
        if lane.stages.contains(&StageName::Receive) && !wait.holds_core() {
            let mut park = SocketPark::new().map_err(failed)?;
            endpoint.receiver.attach(&mut park).map_err(failed)?;
            lanes.push(Lane::with_park(spec, wait, park.doorbell(), Box::new(park)));
        } else {
            lanes.push(Lane::new(spec, wait));
        }
    }
    Ok(lanes)
}
