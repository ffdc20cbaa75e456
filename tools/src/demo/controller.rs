//! The controller process: the pilot's loop, with a node beside it.

use sinew_control::control_loop::{Cycle, LoopBody};
use sinew_control::input::{Input, Reading};
use sinew_control::message::{Drive, Joint, JointSetpoint, JointState};
use sinew_control::safety::State;
use sinew_io::node::{Node, Publisher};
use sinew_rt::latest::LatestReader;
use sinew_rt::panel::{Gauge, Kind, Recorder};

use super::gauges;
use super::pilot::{Mode, Pilot, REPORT_AGE_MAX};
use super::plant::Body;
use super::process::{self, ProcessArgs};
use super::{SETPOINT, STATE};
use crate::exit::{Failure, Outcome};

pub(super) fn run(args: &ProcessArgs) -> Outcome {
    let signals = process::catch_signals()?;
    // What goes to the standard error ends the demo; the panel has what the log would say.
    let mut builder = Node::from_config(&args.config)?.log(|_| ());
    let state = builder.latest::<JointState>(STATE)?;
    let setpoint = builder.publisher::<JointSetpoint>(SETPOINT)?;
    let node = builder.start()?;
    let body = Body::default();
    let controller = Controller {
        pilot: Pilot::new(body).map_err(Failure::machine)?,
        body,
        state: Input::new(state, REPORT_AGE_MAX),
        setpoint,
        mode: node.panel().gauge(gauges::MODE).map_err(Failure::machine)?,
        not_sent: node.panel().gauge(gauges::NOT_SENT).map_err(Failure::machine)?,
        age: node.panel().recorder(gauges::AGE, Kind::Age).map_err(Failure::machine)?,
    };
    let pilot = process::control_loop(gauges::PILOT, args).beside(&node);
    let running = pilot.spawn_body(node.panel(), controller).map_err(Failure::machine)?;
    process::serve(node, running, signals)
}

struct Controller {
    pilot: Pilot,
    body: Body,
    state: Input<LatestReader<JointState>>,
    setpoint: Publisher<JointSetpoint>,
    mode: Gauge,
    not_sent: Gauge,
    age: Recorder,
}

impl LoopBody for Controller {
    fn cycle(&mut self, cx: &mut Cycle) {
        let tick = match cx.read(&mut self.state) {
            Reading::Fresh(state, age) => {
                self.age.record(age, cx.now());
                self.look(cx, &state, age);
                state.tick
            }
            // The pilot knows how old its last report is, and commands nothing on an old one.
            Reading::Stale(state, _) => state.tick,
            Reading::Never => 0,
        };
        let torque = self.pilot.command(cx.now());
        let balances = torque.is_some() && self.pilot.mode() == Mode::Balance;
        self.mode.set(i64::from(balances));
        self.send(tick, torque);
    }

    /// Tells the robot to let go. What it does then is not what the pilot had in mind.
    fn safe_stop(&mut self, _cx: &mut Cycle) {
        self.pilot.restart();
        self.send(0, None);
    }
}

impl Controller {
    fn look(&mut self, cx: &Cycle, state: &JointState, age: sinew_rt::clock::Nanos) {
        let mut joints = state.joints();
        let (Ok(()), Some(wheel), Some(pole)) = (state.check(), joints.next(), joints.next())
        else {
            return;
        };
        if State::from_code(state.safety).is_none_or(|safety| !safety.may_move()) {
            // The brake is on: what the model would predict from torques is wrong.
            self.pilot.restart();
            return;
        }
        // The robot waits for its cycle as this loop does: a report counts as arrived when it is
        // read, so that a torque is expected to take as long.
        self.pilot.observe(self.body.motion(wheel, pole), cx.now() - age, cx.now());
    }

    fn send(&mut self, tick: u64, torque: Option<f64>) {
        let (drive, effort) = match torque {
            Some(torque) => (Drive::Effort, torque),
            None => (Drive::Release, 0.0),
        };
        let wheel = Joint { position: 0.0, velocity: 0.0, effort };
        if let Ok(setpoint) = JointSetpoint::new(tick, drive, &[wheel])
            && self.setpoint.publish(&setpoint).is_err()
        {
            self.not_sent.set(self.not_sent.value() + 1);
        }
    }
}
