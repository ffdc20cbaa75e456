//! Both panels at one moment, and what the demo reads from them.

use sinew_control::safety::{State, StopCause};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::PanelSnapshot;

use super::gauges;

/// How long the pole has to stand before it counts as balanced.
pub(crate) const BALANCED_AFTER: Nanos = Nanos::from_secs(1);

/// Both processes at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) robot: PanelSnapshot,
    /// `None` while there is no controller.
    pub(crate) controller: Option<PanelSnapshot>,
}

/// What a panel says of one control loop's safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopSafety {
    pub(crate) state: State,
    /// How often it went to safe stop: the number that a re-arm has to name.
    pub(crate) stops: u64,
    /// Why it stands, while it does.
    pub(crate) cause: Option<StopCause>,
}

impl LoopSafety {
    fn of(panel: &PanelSnapshot, name: &str) -> Self {
        let code = |what: &str| panel.gauge(&format!("{name} {what}"));
        let code = |what| code(what).and_then(|code| u32::try_from(code).ok());
        Self {
            state: code("safety").and_then(State::from_code).unwrap_or(State::SafeStop),
            stops: panel.counter(&format!("{name} safe stops")).unwrap_or(0),
            cause: code("stop cause").and_then(StopCause::from_code),
        }
    }
}

impl Look {
    pub(crate) fn at(&self) -> Nanos {
        self.robot.taken_at
    }

    fn gauge(&self, name: &str) -> i64 {
        self.robot.gauge(name).unwrap_or(0)
    }

    fn instant(&self, name: &str) -> Option<Nanos> {
        Some(Nanos::new(self.gauge(name))).filter(|at| *at != Nanos::ZERO)
    }

    /// How safe the robot's loop is.
    pub(crate) fn robot_safety(&self) -> LoopSafety {
        LoopSafety::of(&self.robot, gauges::CART)
    }

    /// How safe the controller's loop is, while there is a controller.
    pub(crate) fn controller_safety(&self) -> Option<LoopSafety> {
        self.controller.as_ref().map(|panel| LoopSafety::of(panel, gauges::PILOT))
    }

    /// The robot's safety state.
    pub(crate) fn safety(&self) -> State {
        self.robot_safety().state
    }

    /// The pole's angle from upright, rad.
    pub(crate) fn angle(&self) -> f64 {
        self.gauge(gauges::ANGLE) as f64 / 1e6
    }

    /// The cart's position, m.
    pub(crate) fn cart(&self) -> f64 {
        self.gauge(gauges::CART_POSITION) as f64 / 1e6
    }

    /// The motor's torque, N·m.
    pub(crate) fn torque(&self) -> f64 {
        self.gauge(gauges::TORQUE) as f64 / 1e6
    }

    /// Since when the pole has been balanced, if it has been for long enough.
    pub(crate) fn balanced_since(&self) -> Option<Nanos> {
        let since = self.instant(gauges::UPRIGHT_SINCE)?;
        (self.safety().may_move() && self.at() - since >= BALANCED_AFTER).then_some(since)
    }

    /// Whether the pilot balances rather than swings up.
    pub(crate) fn pilot_balances(&self) -> bool {
        self.controller.as_ref().and_then(|panel| panel.gauge(gauges::MODE)) == Some(1)
    }

    /// When the newest setpoint that the robot read was sent.
    pub(crate) fn setpoint_sent_at(&self) -> Option<Nanos> {
        self.instant(gauges::SETPOINT_SENT_AT)
    }

    /// When the first cycle since the last stop began.
    pub(crate) fn moving_since(&self) -> Option<Nanos> {
        self.instant(gauges::MOVING_SINCE)
    }

    /// The epoch of the controller that the robot accepted, and when its last Hello came.
    pub(crate) fn controller_epoch(&self) -> (u64, Option<Nanos>) {
        let epoch = self.gauge("peer.epoch@controller");
        (epoch.unsigned_abs(), self.instant("peer.heard_at_ns@controller"))
    }

    /// The last safe stop, as the robot measured it.
    pub(crate) fn last_stop(&self) -> Option<Stop> {
        Some(Stop {
            setpoint_sent_at: self.instant(gauges::STOP_SETPOINT_SENT_AT)?,
            due_at: self.instant(gauges::STOP_DUE_AT)?,
            torque_off_at: self.instant(gauges::STOPPED_AT)?,
        })
    }
}

/// One safe stop, in instants of CLOCK_MONOTONIC, which both processes and their parent share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// When the last setpoint was sent.
    pub(crate) setpoint_sent_at: Nanos,
    /// When the cycle that noticed was due.
    pub(crate) due_at: Nanos,
    /// When torque was off and the brake on.
    pub(crate) torque_off_at: Nanos,
}
