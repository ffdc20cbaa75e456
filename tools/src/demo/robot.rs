//! The robot process: the actuator loop around the plant, with a node beside it.

use sinew_control::control_loop::{Cycle, LoopBody};
use sinew_control::input::{Input, Reading};
use sinew_control::message::{Drive, JointSetpoint, JointState};
use sinew_control::safety::State;
use sinew_io::node::{Node, Publisher};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::latest::LatestReader;
use sinew_rt::panel::{Gauge, Kind, Panel, PanelError, Recorder};

use super::gauges;
use super::plant::{Body, Plant};
use super::process::{self, ProcessArgs};
use super::{SETPOINT, STATE};
use crate::exit::{Failure, Outcome};

/// The pole counts as upright while it leans less than this, rad: 5°.
const UPRIGHT: f64 = 5.0 * std::f64::consts::PI / 180.0;

/// Cycles whose instants are remembered, to tell how old the state is that a setpoint answers.
const REMEMBERED: usize = 128;

pub(super) fn run(args: &ProcessArgs) -> Outcome {
    let signals = process::catch_signals()?;
    // What goes to the standard error ends the demo; the panel has what the log would say.
    let mut builder = Node::from_config(&args.config)?.log(|_| ());
    let setpoint = builder.latest::<JointSetpoint>(SETPOINT)?;
    let state = builder.publisher::<JointState>(STATE)?;
    let node = builder.start()?;
    let limits = args.limits();
    let body = Robot {
        plant: Plant::hanging(Body::default()),
        setpoint: Input::new(setpoint, limits.max_age).deadline(limits.deadline),
        state,
        deadline: limits.deadline,
        show: Show::register(node.panel()).map_err(Failure::machine)?,
        sampled: [Nanos::ZERO; REMEMBERED],
        last_tick: 0,
        answered: 0,
        upright_since: None,
        moving: false,
    };
    let cart = process::control_loop(gauges::CART, args).beside(&node);
    let running = cart.spawn_body(node.panel(), body).map_err(Failure::machine)?;
    process::serve(node, running, signals)
}

/// What the robot shows on the panel besides its loop.
#[derive(Debug)]
struct Show {
    angle: Gauge,
    cart: Gauge,
    torque: Gauge,
    bumps: Gauge,
    upright_since: Gauge,
    moving_since: Gauge,
    setpoint_sent_at: Gauge,
    stopped_at: Gauge,
    stop_due_at: Gauge,
    stop_setpoint_sent_at: Gauge,
    not_sent: Gauge,
    age: Recorder,
    round_trip: Recorder,
}

impl Show {
    fn register(panel: &Panel) -> Result<Self, PanelError> {
        Ok(Self {
            angle: panel.gauge(gauges::ANGLE)?,
            cart: panel.gauge(gauges::CART_POSITION)?,
            torque: panel.gauge(gauges::TORQUE)?,
            bumps: panel.gauge(gauges::BUMPS)?,
            upright_since: panel.gauge(gauges::UPRIGHT_SINCE)?,
            moving_since: panel.gauge(gauges::MOVING_SINCE)?,
            setpoint_sent_at: panel.gauge(gauges::SETPOINT_SENT_AT)?,
            stopped_at: panel.gauge(gauges::STOPPED_AT)?,
            stop_due_at: panel.gauge(gauges::STOP_DUE_AT)?,
            stop_setpoint_sent_at: panel.gauge(gauges::STOP_SETPOINT_SENT_AT)?,
            not_sent: panel.gauge(gauges::NOT_SENT)?,
            age: panel.recorder(gauges::AGE, Kind::Age)?,
            round_trip: panel.recorder(gauges::ROUND_TRIP, Kind::Span)?,
        })
    }
}

/// The machine and its drive.
struct Robot {
    plant: Plant,
    setpoint: Input<LatestReader<JointSetpoint>>,
    state: Publisher<JointState>,
    deadline: Nanos,
    show: Show,
    /// When each of the last cycles sampled its state, by tick.
    sampled: [Nanos; REMEMBERED],
    last_tick: u64,
    /// The tick that the newest setpoint answers.
    answered: u64,
    upright_since: Option<Nanos>,
    moving: bool,
}

impl LoopBody for Robot {
    fn cycle(&mut self, cx: &mut Cycle) {
        if !std::mem::replace(&mut self.moving, true) {
            self.show.moving_since.set(cx.now().as_nanos());
        }
        self.plant.braked = false;
        let torque = match cx.read(&mut self.setpoint) {
            Reading::Fresh(setpoint, age) => self.follow(cx, &setpoint, age),
            // The motor fades out with the trust in what it was told.
            Reading::Stale(setpoint, age) => {
                let trust = 1.0 - age.as_secs_f64() / self.deadline.as_secs_f64();
                self.follow(cx, &setpoint, age) * trust.clamp(0.0, 1.0)
            }
            Reading::Never => 0.0,
        };
        self.pass_time(cx, torque);
    }

    /// Torque off, brake on. Time passes for the machine all the same, and its state is published,
    /// so that whoever decides about the re-arm sees it.
    fn safe_stop(&mut self, cx: &mut Cycle) {
        self.plant.braked = true;
        if cx.state() == State::SafeStop {
            let sent_at = match cx.read(&mut self.setpoint) {
                Reading::Fresh(_, age) | Reading::Stale(_, age) => cx.now() - age,
                Reading::Never => Nanos::ZERO,
            };
            if std::mem::replace(&mut self.moving, false) {
                self.show.stop_due_at.set(cx.due().as_nanos());
                self.show.stop_setpoint_sent_at.set(sent_at.as_nanos());
                self.show.stopped_at.set(clock::now().as_nanos());
            }
            self.show.setpoint_sent_at.set(sent_at.as_nanos());
        }
        self.pass_time(cx, 0.0);
    }
}

impl Robot {
    /// The torque of a setpoint, N·m. One that this drive cannot follow is a safe stop.
    fn follow(&mut self, cx: &mut Cycle, setpoint: &JointSetpoint, age: Nanos) -> f64 {
        self.show.age.record(age, cx.now());
        self.show.setpoint_sent_at.set((cx.now() - age).as_nanos());
        if setpoint.tick > self.answered && setpoint.tick <= cx.tick() {
            self.answered = setpoint.tick;
            if cx.tick() - setpoint.tick < REMEMBERED as u64 {
                let sampled = self.sampled[setpoint.tick as usize % REMEMBERED];
                self.show.round_trip.record(cx.now() - sampled, cx.now());
            }
        }
        match (setpoint.check(), setpoint.drive(), setpoint.joints().next()) {
            (Ok(()), Ok(Drive::Release), _) => 0.0,
            (Ok(()), Ok(Drive::Effort), Some(wheel)) => wheel.effort,
            _ => {
                cx.trip();
                0.0
            }
        }
    }

    /// Moves the machine on to this cycle and reports it. The cycle in which a stop is entered runs
    /// both paths, and its time passes once.
    fn pass_time(&mut self, cx: &Cycle, torque: f64) {
        if cx.tick() == self.last_tick {
            return;
        }
        self.last_tick = cx.tick();
        // Bounded, like everything on this thread: after a stall of a second the machine is
        // wherever it is.
        let periods = (1 + cx.skipped()).min(1_000) as i64;
        self.plant.step(torque, cx.period() * periods);
        self.sampled[cx.tick() as usize % REMEMBERED] = cx.now();
        let joints = self.plant.joints();
        let state = JointState::new(cx.tick(), cx.now().as_nanos(), &joints);
        if let Ok(mut state) = state {
            state.safety = cx.state().code();
            if self.state.publish_at(&state, cx.now()).is_err() {
                self.show.not_sent.set(self.show.not_sent.value() + 1);
            }
        }
        self.show_machine(cx.now(), joints[0].effort);
    }

    fn show_machine(&mut self, now: Nanos, torque: f64) {
        let lean = self.plant.motion.lean();
        self.show.angle.set((lean * 1e6) as i64);
        self.show.cart.set((self.plant.motion.x * 1e6) as i64);
        self.show.torque.set((torque * 1e6) as i64);
        self.show.bumps.set(self.plant.bumps() as i64);
        self.upright_since = match self.upright_since {
            _ if lean.abs() > UPRIGHT => None,
            None => Some(now),
            since => since,
        };
        self.show.upright_since.set(self.upright_since.map_or(0, Nanos::as_nanos));
    }
}
