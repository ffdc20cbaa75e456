//! The robot's body: a pole on a cart, driven by a motor's torque through a wheel.
//!
//! Equations of motion from the Lagrangian with both couplings between cart and pole (R. Tedrake,
//! *Underactuated Robotics*, chapter "Acrobots, Cart-Poles, and Quadrotors"; R. Florian, *Correct
//! equations for the dynamics of the cart-pole system*, 2007), with friction added, integrated by
//! the classical fourth-order Runge-Kutta method. The rail has end stops and the cart a brake.

use sinew_control::message::Joint;
use sinew_rt::clock::Nanos;

/// Standard gravity, m/s².
const GRAVITY: f64 = 9.806_65;

/// The longest integration step, s: a quarter of the loop's period. The tests hold the energy to
/// 1e-10 J over two seconds with it. The stiffest part is the brake near standstill, which decays
/// at brake / (mass · stiction speed) ≈ 5,000 per second: 1.2 of the 2.8 at which the method would
/// become unstable.
const STEP_S: f64 = 250e-6;

/// Below this speed dry friction fades, so that it holds without chattering, m/s.
const STICTION_SPEED: f64 = 5e-3;

/// What the machine is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    /// Cart with motor and wheel (their inertia as mass at the rail), kg.
    pub(crate) cart_kg: f64,
    /// Pole, a uniform rod, kg.
    pub(crate) pole_kg: f64,
    /// Whole length of the pole, m.
    pub(crate) pole_m: f64,
    /// Wheel radius: force on the rail is torque divided by this, m.
    pub(crate) wheel_m: f64,
    /// The motor's largest torque, N·m.
    pub(crate) torque_max: f64,
    /// The cart's centre can move this far to either side, m.
    pub(crate) rail_m: f64,
    /// Viscous friction of the cart, N·s/m.
    pub(crate) cart_viscous: f64,
    /// Dry friction of the cart, N.
    pub(crate) cart_dry: f64,
    /// Viscous friction of the pivot, N·m·s/rad.
    pub(crate) pivot_viscous: f64,
    /// Dry friction that the brake adds, N.
    pub(crate) brake: f64,
}

impl Default for Body {
    /// A desk-top machine: a 60 cm pole on a rail of 1.2 m, with a motor of 0.24 N·m.
    fn default() -> Self {
        Self {
            cart_kg: 0.6,
            pole_kg: 0.2,
            pole_m: 0.6,
            wheel_m: 0.02,
            torque_max: 0.24,
            rail_m: 0.6,
            cart_viscous: 0.2,
            cart_dry: 0.3,
            pivot_viscous: 2e-3,
            brake: 15.0,
        }
    }
}

/// Where the machine is and how it moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Motion {
    /// Cart, m from the middle of the rail.
    pub(crate) x: f64,
    /// Cart, m/s.
    pub(crate) v: f64,
    /// Pole, rad from upright, positive when it leans towards +x. Not wrapped.
    pub(crate) angle: f64,
    /// Pole, rad/s.
    pub(crate) rate: f64,
}

impl Motion {
    /// At rest in the middle of the rail, the pole at `angle` from upright.
    pub(crate) fn at_angle(angle: f64) -> Self {
        Self { angle, ..Self::default() }
    }

    pub(crate) fn to_array(self) -> [f64; 4] {
        [self.x, self.v, self.angle, self.rate]
    }

    pub(crate) fn from_array([x, v, angle, rate]: [f64; 4]) -> Self {
        Self { x, v, angle, rate }
    }

    /// `self + h * slope`.
    fn along(self, slope: Self, h: f64) -> Self {
        Self {
            x: self.x + h * slope.x,
            v: self.v + h * slope.v,
            angle: self.angle + h * slope.angle,
            rate: self.rate + h * slope.rate,
        }
    }

    /// The pole's angle from upright within (-π, π].
    pub(crate) fn lean(self) -> f64 {
        let turn = std::f64::consts::TAU;
        self.angle - turn * (self.angle / turn).round()
    }
}

impl Body {
    /// Distance from the pivot to the pole's centre of mass, m.
    fn reach(&self) -> f64 {
        self.pole_m / 2.0
    }

    /// The pole's inertia about the pivot, kg·m²: a rod about its end.
    pub(crate) fn pole_inertia(&self) -> f64 {
        self.pole_kg * self.pole_m * self.pole_m / 3.0
    }

    /// Coupling of cart and pole: mass times reach, kg·m.
    pub(crate) fn coupling(&self) -> f64 {
        self.pole_kg * self.reach()
    }

    /// The rates of change of `motion` under motor torque `torque` (N·m), as a `Motion` whose
    /// fields are the derivatives of the fields.
    pub(crate) fn derivative(&self, motion: Motion, torque: f64, braked: bool) -> Motion {
        let (sin, cos) = motion.angle.sin_cos();
        let (push, sway) = self.forces(motion, torque, braked);
        // [m_total  c·cos] [a    ]   [push]
        // [c·cos    J    ] [alpha] = [sway]
        let total = self.cart_kg + self.pole_kg;
        let cross = self.coupling() * cos;
        let inertia = self.pole_inertia();
        let push = push + self.coupling() * sin * motion.rate * motion.rate;
        let det = total * inertia - cross * cross;
        Motion {
            x: motion.v,
            v: (inertia * push - cross * sway) / det,
            angle: motion.rate,
            rate: (total * sway - cross * push) / det,
        }
    }

    /// The generalised forces on the cart (N) and around the pivot (N·m).
    fn forces(&self, motion: Motion, torque: f64, braked: bool) -> (f64, f64) {
        let dry = self.cart_dry + if braked { self.brake } else { 0.0 };
        let torque = torque.clamp(-self.torque_max, self.torque_max);
        let push = torque / self.wheel_m
            - self.cart_viscous * motion.v
            - dry * (motion.v / STICTION_SPEED).tanh();
        let weight = self.coupling() * GRAVITY * motion.angle.sin();
        (push, weight - self.pivot_viscous * motion.rate)
    }

    /// The motor torque that gives the cart the acceleration `a` (m/s²) whatever the pole does:
    /// collocated partial feedback linearisation (M. Spong, 1994). Not limited to the motor's.
    pub(crate) fn torque_for(&self, motion: Motion, a: f64) -> f64 {
        let (sin, cos) = motion.angle.sin_cos();
        let (drag, sway) = self.forces(motion, 0.0, false);
        let cross = self.coupling() * cos;
        let alpha = (sway - cross * a) / self.pole_inertia();
        let needed = (self.cart_kg + self.pole_kg) * a + cross * alpha
            - self.coupling() * sin * motion.rate * motion.rate;
        (needed - drag) * self.wheel_m
    }

    /// One step of the classical Runge-Kutta method, `h` seconds.
    pub(crate) fn advance(&self, motion: Motion, torque: f64, braked: bool, h: f64) -> Motion {
        let slope = |at| self.derivative(at, torque, braked);
        let k1 = slope(motion);
        let k2 = slope(motion.along(k1, h / 2.0));
        let k3 = slope(motion.along(k2, h / 2.0));
        let k4 = slope(motion.along(k3, h));
        let outer = motion.along(k1, h / 6.0).along(k4, h / 6.0);
        outer.along(k2, h / 3.0).along(k3, h / 3.0)
    }

    /// Energy of the pole alone as if its pivot stood still, J; `upright_energy` when it balances.
    pub(crate) fn pole_energy(&self, motion: Motion) -> f64 {
        let kinetic = self.pole_inertia() * motion.rate * motion.rate / 2.0;
        kinetic + self.coupling() * GRAVITY * motion.angle.cos()
    }

    /// The pole's energy at rest and upright, J.
    pub(crate) fn upright_energy(&self) -> f64 {
        self.coupling() * GRAVITY
    }

    /// What the robot's sensors report: the wheel (rad, rad/s, N·m) and the pole (rad, rad/s).
    pub(crate) fn joints(&self, motion: Motion, torque: f64) -> [Joint; 2] {
        let wheel = Joint {
            position: motion.x / self.wheel_m,
            velocity: motion.v / self.wheel_m,
            effort: torque,
        };
        [wheel, Joint { position: motion.angle, velocity: motion.rate, effort: 0.0 }]
    }

    /// The motion that [`joints`](Self::joints) reported.
    pub(crate) fn motion(&self, wheel: Joint, pole: Joint) -> Motion {
        Motion {
            x: wheel.position * self.wheel_m,
            v: wheel.velocity * self.wheel_m,
            angle: pole.position,
            rate: pole.velocity,
        }
    }
}

/// The machine as it moves through time.
#[derive(Clone, Debug)]
pub(crate) struct Plant {
    pub(crate) body: Body,
    pub(crate) motion: Motion,
    /// The brake on the cart; the pole still swings.
    pub(crate) braked: bool,
    torque: f64,
    bumps: u64,
}

impl Plant {
    pub(crate) fn new(body: Body, motion: Motion) -> Self {
        Self { body, motion, braked: false, torque: 0.0, bumps: 0 }
    }

    /// The pole hanging at rest.
    pub(crate) fn hanging(body: Body) -> Self {
        Self::new(body, Motion::at_angle(std::f64::consts::PI))
    }

    /// Lets `span` pass with the motor at `torque` (N·m). What is not a number counts as zero, and
    /// the motor gives no more than it can.
    pub(crate) fn step(&mut self, torque: f64, span: Nanos) {
        let limit = self.body.torque_max;
        self.torque = if torque.is_finite() { torque.clamp(-limit, limit) } else { 0.0 };
        let span_s = span.as_secs_f64().max(0.0);
        let steps = (span_s / STEP_S).ceil();
        for _ in 0..steps as u64 {
            self.motion = self.body.advance(self.motion, self.torque, self.braked, span_s / steps);
            self.stop_at_the_ends();
        }
    }

    /// An inelastic stop. The blow passes through the pivot: momentum of the pole along its free
    /// direction is kept.
    fn stop_at_the_ends(&mut self) {
        let Motion { x, v, angle, .. } = self.motion;
        let rail = self.body.rail_m;
        if x.abs() < rail {
            return;
        }
        self.motion.x = rail.copysign(x);
        if v * x > 0.0 {
            self.motion.v = 0.0;
            self.motion.rate += self.body.coupling() * angle.cos() * v / self.body.pole_inertia();
            self.bumps += 1;
        }
    }

    /// How often the cart ran into an end stop.
    pub(crate) fn bumps(&self) -> u64 {
        self.bumps
    }

    /// What the sensors report now.
    pub(crate) fn joints(&self) -> [Joint; 2] {
        self.body.joints(self.motion, self.torque)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    fn frictionless() -> Body {
        Body { cart_viscous: 0.0, cart_dry: 0.0, pivot_viscous: 0.0, ..Body::default() }
    }

    /// Kinetic and potential energy of cart and pole together, J.
    fn energy(body: &Body, motion: Motion) -> f64 {
        let total = body.cart_kg + body.pole_kg;
        let coupled = body.coupling() * motion.angle.cos() * motion.v * motion.rate;
        total * motion.v * motion.v / 2.0 + coupled + body.pole_energy(motion)
    }

    fn drift_of_energy(h: f64) -> f64 {
        let body = frictionless();
        let start = Motion { v: 0.4, ..Motion::at_angle(1.0) };
        let mut motion = start;
        for _ in 0..(2.0 / h) as u64 {
            motion = body.advance(motion, 0.0, false, h);
        }
        (energy(&body, motion) - energy(&body, start)).abs()
    }

    #[test]
    fn without_friction_energy_is_kept_to_the_order_of_the_method() {
        assert!(drift_of_energy(STEP_S) < 1e-10, "{} J in 2 s", drift_of_energy(STEP_S));
        let ratio = drift_of_energy(8e-3) / drift_of_energy(4e-3);
        assert!(ratio > 14.0, "halving the step divides the drift by {ratio}, not by 16 or more");
    }

    #[test]
    fn the_motors_work_becomes_the_machines_energy() {
        let mut plant = Plant::new(frictionless(), Motion::at_angle(PI));
        let (mut work, before) = (0.0, energy(&plant.body, plant.motion));
        for _ in 0..500 {
            let x = plant.motion.x;
            plant.step(0.02, Nanos::from_millis(1));
            work += 0.02 / plant.body.wheel_m * (plant.motion.x - x);
        }
        let gained = energy(&plant.body, plant.motion) - before;
        assert!(plant.bumps() == 0 && work > 0.05, "work {work} J");
        assert!((gained - work).abs() < 1e-9, "work {work} J, gained {gained} J");
    }

    #[test]
    fn friction_only_takes_energy() {
        let body = Body::default();
        let mut plant = Plant::new(body, Motion { v: 0.5, ..Motion::at_angle(2.0) });
        let mut last = energy(&body, plant.motion);
        for _ in 0..2_000 {
            plant.step(0.0, Nanos::from_millis(1));
            let next = energy(&body, plant.motion);
            assert!(next <= last + 1e-12, "{last} J became {next} J");
            last = next;
        }
    }

    #[test]
    fn without_control_the_pole_falls() {
        let mut plant = Plant::new(Body::default(), Motion::at_angle(0.01));
        let fell = (0..2_000).position(|_| {
            plant.step(0.0, Nanos::from_millis(1));
            plant.motion.lean().abs() > PI / 2.0
        });
        assert!(fell.is_some_and(|ms| ms > 300), "{fell:?} ms");
    }

    #[test]
    fn the_end_stops_hold_the_cart_and_pass_the_blow_to_the_pole() {
        let mut plant = Plant::hanging(Body::default());
        let mut fastest: f64 = 0.0;
        for _ in 0..1_000 {
            plant.step(1.0, Nanos::from_millis(1));
            assert!(plant.motion.x <= plant.body.rail_m);
            fastest = fastest.max(plant.motion.rate.abs());
        }
        assert!(plant.bumps() > 0 && fastest > 5.0, "{} bumps, {fastest} rad/s", plant.bumps());
    }

    #[test]
    fn a_blow_costs_the_energy_of_an_inelastic_impact_whichever_way_the_pole_swings() {
        let body = frictionless();
        for rate in [-8.0, 0.0, 8.0] {
            let before = Motion { x: body.rail_m, v: 1.2, angle: 0.4, rate };
            let mut plant = Plant::new(body, before);
            plant.stop_at_the_ends();
            // Only the cart's inertia that the free pole does not carry is stopped.
            let cross = body.coupling() * before.angle.cos();
            let stopped = body.cart_kg + body.pole_kg - cross * cross / body.pole_inertia();
            let lost = energy(&body, before) - energy(&body, plant.motion);
            assert!((lost - stopped * 1.2 * 1.2 / 2.0).abs() < 1e-12, "{rate} rad/s: {lost} J");
        }
    }

    #[test]
    fn the_brake_stops_the_cart_and_holds_it_under_a_swinging_pole() {
        let mut plant =
            Plant::new(Body::default(), Motion { v: 1.0, rate: 3.0, ..Motion::at_angle(2.0) });
        plant.braked = true;
        for _ in 0..100 {
            plant.step(0.0, Nanos::from_millis(1));
        }
        let held = plant.motion.x;
        for _ in 0..2_000 {
            plant.step(0.0, Nanos::from_millis(1));
        }
        let crept = (plant.motion.x - held).abs();
        assert!(held < 0.1 && crept < 5e-3, "held at {held} m, crept {crept} m");
        assert!(plant.motion.rate.abs() > 0.1, "the pole still swings");
    }

    #[test]
    fn a_torque_that_is_not_a_number_moves_nothing() {
        let mut plant = Plant::hanging(Body::default());
        plant.step(f64::NAN, Nanos::from_millis(1));
        assert!(plant.motion.v.abs() < 1e-9, "{} m/s", plant.motion.v);
        assert_eq!(plant.joints()[0].effort, 0.0);
    }

    #[test]
    fn torque_for_an_acceleration_gives_that_acceleration() {
        let body = Body::default();
        let motion = Motion { x: 0.1, v: -0.3, angle: 2.2, rate: -4.0 };
        let torque = body.torque_for(motion, 1.5);
        assert!(torque.abs() < body.torque_max);
        assert!((body.derivative(motion, torque, false).v - 1.5).abs() < 1e-12);
    }

    #[test]
    fn sensors_report_the_motion() {
        let body = Body::default();
        let motion = Motion { x: 0.1, v: -0.3, angle: 2.2, rate: -4.0 };
        let [wheel, pole] = body.joints(motion, 0.1);
        assert!((wheel.position - 5.0).abs() < 1e-12);
        let back = body.motion(wheel, pole);
        for (a, b) in back.to_array().into_iter().zip(motion.to_array()) {
            assert!((a - b).abs() < 1e-12);
        }
        assert!((Motion::at_angle(2.0 * PI + 0.1).lean() - 0.1).abs() < 1e-12);
    }
}
