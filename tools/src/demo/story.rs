//! What happens in a run, in order: swing up, balance, kill, safe stop, restart, re-arm, balance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sinew_control::safety::{State, StopCause};
use sinew_rt::clock::{self, Nanos};

use super::child::{Child, Life};
use super::live::{Live, Scene};
use super::look::{Look, LoopSafety, Stop};
use super::process::{Limits, Order};
use super::scratch::{Role, Scratch};
use crate::exit::Failure;

/// How often the panels are looked at. What is measured comes from instants on the panels, so the
/// cadence only decides how soon the demo goes on.
const CADENCE: Nanos = Nanos::from_millis(50);

/// By how much each half is extended while the pole does not balance yet.
pub(super) const GRACE: Nanos = Nanos::from_secs(5);

/// Watchdogs over steps that take milliseconds, on a machine that does something else as well.
const STEP_LIMIT: Nanos = Nanos::from_secs(10);

/// How often an unanswered permission to re-arm is repeated: it lapses after a second.
const REARM_AGAIN: Nanos = Nanos::from_millis(1_200);

/// The pole has visibly fallen, rad; and how long that is waited for: from a degree it takes a second.
const FALLEN: f64 = std::f64::consts::FRAC_PI_2;
const FALL_LIMIT: Nanos = Nanos::from_secs(2);

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) length: Nanos,
    pub(crate) kill: bool,
    pub(crate) best_effort: bool,
}

/// What happened. Instants are of CLOCK_MONOTONIC; what was not reached is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    pub(crate) began_at: Nanos,
    pub(crate) ended_at: Nanos,
    /// Since when the pole stood for the first time.
    pub(crate) balanced_at: Option<Nanos>,
    /// Whether it stood when the controller was killed.
    pub(crate) balanced_before_kill: Option<bool>,
    pub(crate) killed_at: Option<Nanos>,
    pub(crate) stop: Option<Stop>,
    pub(crate) stop_cause: Option<StopCause>,
    pub(crate) restarted_at: Option<Nanos>,
    pub(crate) epochs: Vec<u64>,
    pub(crate) hello_at: Option<Nanos>,
    pub(crate) rearmed_at: Option<Nanos>,
    pub(crate) moving_at: Option<Nanos>,
    pub(crate) balanced_again_at: Option<Nanos>,
    pub(crate) balanced_at_end: Option<bool>,
    /// Safe stops that nobody caused on purpose.
    pub(crate) unplanned: Vec<Unplanned>,
    pub(crate) interrupted: bool,
    /// What ended the run early.
    pub(crate) broken: Option<String>,
}

/// A safe stop that nobody caused on purpose. It was entered at some time from `from` until `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unplanned {
    /// Whose loop stopped.
    pub(crate) role: Role,
    pub(crate) cause: StopCause,
    pub(crate) from: Nanos,
    pub(crate) until: Nanos,
}

/// What is known of one loop's safe stops. The demo's rule: a loop that stopped by itself may go on as
/// soon as what it depends upon is there again; the verdict knows that it stopped.
#[derive(Clone, Copy, Debug, Default)]
struct Stops {
    known: u64,
    rearm_asked_at: Option<Nanos>,
}

impl Stops {
    /// How many are new.
    fn count(&mut self, safety: &LoopSafety) -> u64 {
        let new = safety.stops.saturating_sub(self.known);
        self.known = safety.stops;
        new
    }

    /// Whether to give the permission to go on, for the first time or because the last one lapsed.
    fn may_ask(&self, safety: &LoopSafety, now: Nanos) -> bool {
        let again = self.rearm_asked_at.is_none_or(|asked| now - asked > REARM_AGAIN);
        self.known > 0 && safety.state == State::SafeStop && again
    }
}

/// Why a run ends before its script does.
enum End {
    Interrupted,
    Broken(String),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure.message)
    }
}

/// A run of the demo.
pub(crate) struct Story {
    script: Script,
    limits: Limits,
    // Processes before files: they end before their files go.
    robot: Option<Child>,
    controller: Option<Child>,
    scratch: Scratch,
    lives: Vec<Life>,
    events: Events,
    live: Live,
    interrupt: Arc<AtomicBool>,
    phase: &'static str,
    looked_at: Nanos,
    next_look: Nanos,
    robot_stops: Stops,
    /// Of the controller's present life.
    controller_stops: Stops,
    stop_expected: bool,
    /// Whether the stop that the kill causes has been counted.
    planned_stop_seen: bool,
}

impl Story {
    /// Starts both processes.
    pub(crate) fn begin(
        script: Script,
        scratch: Scratch,
        live: Live,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let robot = Child::spawn(Role::Robot, &scratch, script.best_effort)?;
        let controller = Child::spawn(Role::Controller, &scratch, script.best_effort)?;
        let now = clock::now();
        Ok(Self {
            script,
            limits: Limits::new(script.best_effort),
            robot: Some(robot),
            controller: Some(controller),
            scratch,
            lives: Vec::new(),
            events: Events { began_at: now, ..Events::default() },
            live,
            interrupt,
            phase: "starting",
            looked_at: now,
            next_look: now,
            robot_stops: Stops::default(),
            controller_stops: Stops::default(),
            stop_expected: false,
            planned_stop_seen: false,
        })
    }

    /// Plays the script, ends the processes, and says what happened and what is left of each life.
    pub(crate) fn play(mut self) -> Result<(Events, Vec<Life>), Failure> {
        match self.run() {
            Ok(()) => {}
            Err(End::Interrupted) => self.events.interrupted = true,
            Err(End::Broken(why)) => self.events.broken = Some(why),
        }
        self.events.ended_at = clock::now();
        self.live.clear();
        // The robot first: it would rightly stop when its controller goes.
        for child in [self.robot.take(), self.controller.take()].into_iter().flatten() {
            let life = child.stop()?;
            self.lives.push(life);
        }
        // The robot, then the controller's lives in their order.
        self.lives.sort_by_key(|life| life.role);
        Ok((self.events, self.lives))
    }

    fn run(&mut self) -> Result<(), End> {
        let half = self.script.length / 2;
        self.phase = "swinging up";
        if self.script.kill {
            let balanced = self.until_balanced(half)?;
            self.events.balanced_before_kill = Some(balanced);
            self.kill()?;
            self.restart()?;
            self.rearm()?;
        }
        let balanced = self.until_balanced(self.script.length)?;
        self.events.balanced_at_end = Some(balanced);
        Ok(())
    }

    /// Goes on until `elapsed` is over and the pole stands, or for the grace longer.
    fn until_balanced(&mut self, elapsed: Nanos) -> Result<bool, End> {
        let due = self.events.began_at + elapsed;
        let balanced = |look: &Look| look.at() >= due && look.balanced_since().is_some();
        let wait = due + GRACE - clock::now();
        self.wait(wait, balanced)
    }

    fn kill(&mut self) -> Result<(), End> {
        let Some(controller) = self.controller.take() else { return Ok(()) };
        self.stop_expected = true;
        let (at, life) = controller.kill()?;
        self.events.killed_at = Some(at);
        self.events.epochs.push(life.started.epoch);
        self.phase = "controller killed";
        self.note(format!("controller {} killed with SIGKILL", life.pid));
        self.lives.push(life);
        self.step("the robot did not go to safe stop", |look| {
            look.safety() == State::SafeStop && look.last_stop().is_some()
        })?;
        // Once more: the first look may have met the robot in the middle of its notes.
        let look = self.look()?;
        let stop = look.last_stop();
        (self.events.stop, self.events.stop_cause) = (stop, look.robot_safety().cause);
        if let Some(stop) = stop {
            let age = stop.torque_off_at - stop.setpoint_sent_at;
            self.note(format!("safe stop {age} after the last setpoint"));
        }
        self.phase = "safe stop";
        // Nobody balances the pole, and the brake holds the cart: it falls.
        self.wait(FALL_LIMIT, |look| look.angle().abs() > FALLEN)?;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), End> {
        let (old, _) = self.look()?.controller_epoch();
        let best_effort = self.script.best_effort;
        let controller = Child::spawn(Role::Controller, &self.scratch, best_effort)?;
        self.events.restarted_at = Some(controller.spawned_at);
        let (pid, epoch) = (controller.pid(), controller.started.epoch);
        self.controller = Some(controller);
        self.controller_stops = Stops::default();
        self.events.epochs.push(epoch);
        self.phase = "controller restarted";
        self.note(format!("controller {pid} started: same key, epoch {epoch}"));
        self.step("the robot did not accept the new epoch", |look| {
            look.controller_epoch().0 > old
        })?;
        let (accepted, heard_at) = self.look()?.controller_epoch();
        self.events.hello_at = heard_at;
        self.note(format!("robot accepted the Hello of epoch {accepted}"));
        Ok(())
    }

    fn rearm(&mut self) -> Result<(), End> {
        let deadline = self.limits.max_age;
        self.step("the new controller's setpoints did not arrive", |look| {
            look.setpoint_sent_at().is_some_and(|sent_at| look.at() - sent_at < deadline)
        })?;
        let give_up = clock::now() + STEP_LIMIT;
        self.phase = "re-arming";
        loop {
            self.allow_motion()?;
            self.events.rearmed_at = self.robot_stops.rearm_asked_at;
            if self.wait(REARM_AGAIN, |look| look.safety().may_move())? {
                break;
            }
            if clock::now() > give_up {
                return Err(End::Broken("the robot could not be re-armed".to_owned()));
            }
        }
        self.events.moving_at = self.look()?.moving_since();
        self.stop_expected = false;
        self.phase = "swinging up";
        self.note(format!("re-armed: leaves safe stop {}", self.robot_stops.known));
        Ok(())
    }

    /// Gives the permission to leave the safe stop that the robot stands in. The demo's rule: a
    /// controller is there, and its setpoints arrive.
    fn allow_motion(&mut self) -> Result<(), End> {
        Ok(rearm(self.robot.as_mut(), &mut self.robot_stops)?)
    }

    /// Waits for what must happen.
    fn step(&mut self, otherwise: &str, until: impl Fn(&Look) -> bool) -> Result<(), End> {
        match self.wait(STEP_LIMIT, until)? {
            true => Ok(()),
            false => Err(End::Broken(otherwise.to_owned())),
        }
    }

    /// Watches until something is the case (`true`) or `limit` is over (`false`).
    fn wait(&mut self, limit: Nanos, until: impl Fn(&Look) -> bool) -> Result<bool, End> {
        let give_up = clock::now() + limit;
        loop {
            let look = self.look()?;
            if until(&look) {
                return Ok(true);
            }
            if look.at() >= give_up {
                return Ok(false);
            }
            self.next_look = (self.next_look + CADENCE).max(look.at());
            clock::sleep_until(self.next_look.min(give_up));
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(End::Interrupted);
            }
        }
    }

    /// One look at everything, with what follows from it whatever the script is at.
    fn look(&mut self) -> Result<Look, End> {
        for child in [&mut self.robot, &mut self.controller].into_iter().flatten() {
            if child.is_gone() {
                return Err(End::Broken(format!("the {} ended by itself", child.role.name())));
            }
        }
        let Some(robot) = &mut self.robot else { return Err(End::Interrupted) };
        let controller = self.controller.as_mut().map(Child::look).transpose()?;
        let look = Look { robot: robot.look()?, controller };
        self.follow(&look)?;
        let scene = Scene {
            elapsed: look.at() - self.events.began_at,
            length: self.script.length,
            phase: match self.phase {
                "swinging up" if look.pilot_balances() => "balancing",
                phase => phase,
            },
        };
        self.live.show(&look, &scene);
        Ok(look)
    }

    /// Keeps the events up to date, and lets both loops out of stops that nobody planned, so that
    /// the run goes on; they are counted, and the verdict knows them.
    fn follow(&mut self, look: &Look) -> Result<(), End> {
        let now = look.at();
        let robot = look.robot_safety();
        let mut unplanned = self.robot_stops.count(&robot);
        if unplanned > 0 && self.stop_expected && !self.planned_stop_seen {
            self.planned_stop_seen = true;
            unplanned -= 1;
        }
        // The robot says when its last stop was; of several, that is the last.
        let at = look.last_stop().map_or(now, |stop| stop.torque_off_at);
        self.count_unplanned(unplanned, Role::Robot, robot.cause, at.min(self.looked_at), at);
        let fresh = |sent_at| now - sent_at < self.limits.max_age;
        let heard = look.setpoint_sent_at().is_some_and(fresh);
        if !self.stop_expected && heard && self.robot_stops.may_ask(&robot, now) {
            self.allow_motion()?;
        }
        if let Some(controller) = look.controller_safety() {
            let unplanned = self.controller_stops.count(&controller);
            let cause = controller.cause;
            self.count_unplanned(unplanned, Role::Controller, cause, self.looked_at, now);
            if self.controller_stops.may_ask(&controller, now) {
                rearm(self.controller.as_mut(), &mut self.controller_stops)?;
            }
        }
        self.looked_at = now;
        let Some(since) = look.balanced_since() else { return Ok(()) };
        let events = &mut self.events;
        let slot = match events.rearmed_at {
            _ if events.killed_at.is_none() => &mut events.balanced_at,
            Some(rearmed_at) if since > rearmed_at => &mut events.balanced_again_at,
            _ => return Ok(()),
        };
        if slot.is_none() {
            *slot = Some(since);
            self.note("the pole balances".to_owned());
        }
        Ok(())
    }

    fn count_unplanned(
        &mut self,
        new: u64,
        role: Role,
        cause: Option<StopCause>,
        from: Nanos,
        until: Nanos,
    ) {
        let cause = cause.unwrap_or(StopCause::Tripped);
        for _ in 0..new {
            self.events.unplanned.push(Unplanned { role, cause, from, until });
            self.note(format!("unplanned safe stop of the {}: {cause}", role.name()));
        }
    }

    fn note(&mut self, text: String) {
        self.live.note(clock::now() - self.events.began_at, text);
    }
}

/// Gives the permission to leave the last safe stop that is known.
fn rearm(child: Option<&mut Child>, stops: &mut Stops) -> Result<(), Failure> {
    stops.rearm_asked_at = Some(clock::now());
    child.map_or(Ok(()), |child| child.order(Order::Rearm(stops.known)))
}
