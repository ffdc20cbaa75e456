//! The controller: swings the pole up by its energy, catches it, and balances it.
//!
//! Swing-up after K. Åström and K. Furuta, *Swinging up a pendulum by energy control* (Automatica,
//! 2000), with the cart's acceleration as the input. Balancing by a linear-quadratic regulator that
//! is computed at start-up. Both act on where the machine *will be* when the torque arrives: the
//! last report is carried forward through the model with the torques that were sent since, so that
//! delay and lost messages cost accuracy, not stability (a Smith predictor in state space).

use sinew_rt::clock::Nanos;

use super::lqr::{Linear, NoGain};
use super::plant::{Body, Motion};

/// The loop's period, and the step of prediction.
pub(crate) const PERIOD: Nanos = Nanos::from_millis(1);

/// A report older than this says too little about a falling pole to act upon.
pub(crate) const REPORT_AGE_MAX: Nanos = Nanos::from_millis(50);

/// Torques remembered: more than `REPORT_AGE_MAX` holds at 1 kHz.
const SENT_MAX: usize = 64;

/// Catch the pole when it leans less than this, rad; let go beyond twice as much.
const CATCH: f64 = 0.35;

/// The fastest pole that is caught, rad/s.
const CATCH_RATE: f64 = 3.0;

/// The cart's acceleration in a swing-up, m/s².
const SWING: f64 = 5.0;

/// Energy error at which the swing-up uses all of [`SWING`], as a share of the upright energy.
const SWING_BAND: f64 = 0.15;

/// How strongly the swing-up pulls the cart back to the middle, 1/s² and 1/s.
const CENTRE: (f64, f64) = (10.0, 3.0);

/// What the controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Adding or removing energy.
    SwingUp,
    /// Holding the pole upright.
    Balance,
}

/// The controller and its model of the machine.
#[derive(Debug)]
pub(crate) struct Pilot {
    body: Body,
    gain: [f64; 4],
    mode: Mode,
    report: Option<(Motion, Nanos)>,
    /// How long a torque takes to reach the motor: assumed to be what a report takes to reach us.
    outbound: Nanos,
    sent: [(Nanos, f64); SENT_MAX],
    next: usize,
}

impl Pilot {
    /// Linearises `body` around upright and computes the gain.
    pub(crate) fn new(body: Body) -> Result<Self, NoGain> {
        // Dry friction has no linear part worth having: close to standstill it looks like glue.
        let smooth = Body { cart_dry: 0.0, ..body };
        let h = PERIOD.as_secs_f64();
        let step =
            |state, torque| smooth.advance(Motion::from_array(state), torque, false, h).to_array();
        // Bryson's rule: one over the square of what each may reach at once.
        let weight = |largest: f64| 1.0 / (largest * largest);
        let state = [weight(0.2), weight(0.8), weight(0.15), weight(1.0)];
        let gain = Linear::of(step, [0.0; 4]).regulator(state, weight(body.torque_max))?;
        Ok(Self {
            body,
            gain,
            mode: Mode::SwingUp,
            report: None,
            outbound: Nanos::ZERO,
            sent: [(Nanos::MIN, 0.0); SENT_MAX],
            next: 0,
        })
    }

    /// The machine was seen in `motion` at `sampled_at`; the report arrived at `arrived_at` (both
    /// on this process's clock). An older report than the last one, or one with numbers that are
    /// none, is ignored.
    pub(crate) fn observe(&mut self, motion: Motion, sampled_at: Nanos, arrived_at: Nanos) {
        let newer = self.report.is_none_or(|(_, last)| sampled_at > last);
        if !newer || !motion.to_array().iter().all(|v| v.is_finite()) {
            return;
        }
        self.report = Some((motion, sampled_at));
        // Smoothed over 16 reports; the bound keeps a wrong clock from moving the prediction far.
        let inbound = (arrived_at - sampled_at).clamp(Nanos::ZERO, REPORT_AGE_MAX / 2);
        self.outbound += (inbound - self.outbound) / 16;
    }

    /// The torque to send at `now`, N·m; `None` without a report recent enough to act upon.
    pub(crate) fn command(&mut self, now: Nanos) -> Option<f64> {
        let (motion, sampled_at) = self.report?;
        if now - sampled_at > REPORT_AGE_MAX {
            return None;
        }
        let ahead = self.carried_forward(motion, sampled_at, now + self.outbound);
        let limit = self.body.torque_max;
        let torque = self.torque(ahead).clamp(-limit, limit);
        self.sent[self.next % SENT_MAX] = (now, torque);
        self.next += 1;
        Some(torque)
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Forgets reports, torques and mode: after a safe stop the machine moved without us.
    pub(crate) fn restart(&mut self) {
        self.mode = Mode::SwingUp;
        self.report = None;
        self.sent = [(Nanos::MIN, 0.0); SENT_MAX];
        self.next = 0;
    }

    /// Where the machine will be at `until`. At most 64 steps: the age and the delay are bounded.
    fn carried_forward(&self, mut motion: Motion, from: Nanos, until: Nanos) -> Motion {
        let mut at = from;
        while at < until {
            let step = PERIOD.min(until - at);
            let torque = self.torque_at_motor(at);
            motion = self.body.advance(motion, torque, false, step.as_secs_f64());
            at += step;
        }
        motion
    }

    /// The torque that the motor applies at `at`: the newest one sent early enough to be there.
    fn torque_at_motor(&self, at: Nanos) -> f64 {
        let newest_first = (0..SENT_MAX.min(self.next)).map(|back| self.next - 1 - back);
        newest_first
            .map(|i| self.sent[i % SENT_MAX])
            .find(|(sent_at, _)| *sent_at + self.outbound <= at)
            .map_or(0.0, |(_, torque)| torque)
    }

    fn torque(&mut self, motion: Motion) -> f64 {
        let lean = motion.lean();
        self.mode = match self.mode {
            Mode::SwingUp if lean.abs() < CATCH && motion.rate.abs() < CATCH_RATE => Mode::Balance,
            Mode::Balance if lean.abs() > 2.0 * CATCH => Mode::SwingUp,
            mode => mode,
        };
        match self.mode {
            Mode::SwingUp => self.body.torque_for(motion, self.swing(motion)),
            Mode::Balance => {
                let error = Motion { angle: lean, ..motion }.to_array();
                -error.iter().zip(self.gain).map(|(e, k)| e * k).sum::<f64>()
            }
        }
    }

    /// The cart's acceleration that brings the pole's energy to that of upright, m/s².
    fn swing(&self, motion: Motion) -> f64 {
        let upright = self.body.upright_energy();
        let excess = (self.body.pole_energy(motion) - upright) / (SWING_BAND * upright);
        // The energy changes by -coupling · a · rate · cos(angle).
        let direction = if motion.rate * motion.angle.cos() < 0.0 { -1.0 } else { 1.0 };
        let pump = SWING * excess.clamp(-1.0, 1.0) * direction;
        pump - CENTRE.0 * motion.x - CENTRE.1 * motion.v
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::demo::plant::Plant;

    /// Robot and controller at 1 kHz in virtual time, joined by two delay lines with loss.
    struct Rig {
        plant: Plant,
        pilot: Pilot,
        now: Nanos,
        delay: Nanos,
        /// Messages lost in either direction, per thousand.
        loss: u64,
        random: u64,
        to_pilot: VecDeque<(Nanos, Motion)>,
        to_motor: VecDeque<(Nanos, f64)>,
        torque: f64,
        farthest: f64,
        /// Whether the controller learns how old reports are.
        clock_told: bool,
    }

    impl Rig {
        fn new(plant: Plant, delay: Nanos, loss: u64) -> Self {
            Self {
                pilot: Pilot::new(Body::default()).unwrap(),
                plant,
                now: Nanos::from_secs(1_000),
                delay,
                loss,
                random: 0x9e37_79b9_7f4a_7c15,
                to_pilot: VecDeque::new(),
                to_motor: VecDeque::new(),
                torque: 0.0,
                farthest: 0.0,
                clock_told: true,
            }
        }

        fn lost(&mut self) -> bool {
            // xorshift64 (G. Marsaglia, 2003).
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % 1_000 < self.loss
        }

        /// One period: the robot reports, the controller answers what has arrived, the plant moves.
        fn tick(&mut self) {
            if !self.lost() {
                self.to_pilot.push_back((self.now, self.plant.motion));
            }
            while let Some(&(sent, motion)) = self.to_pilot.front() {
                if sent + self.delay > self.now {
                    break;
                }
                self.to_pilot.pop_front();
                let sampled_at = if self.clock_told { sent } else { self.now };
                self.pilot.observe(motion, sampled_at, self.now);
            }
            if let Some(torque) = self.pilot.command(self.now)
                && !self.lost()
            {
                self.to_motor.push_back((self.now, torque));
            }
            while let Some(&(sent, torque)) = self.to_motor.front() {
                if sent + self.delay > self.now {
                    break;
                }
                self.to_motor.pop_front();
                self.torque = torque;
            }
            self.plant.step(self.torque, PERIOD);
            self.farthest = self.farthest.max(self.plant.motion.x.abs());
            self.now += PERIOD;
        }

        /// Milliseconds until the pole has stood within 3° for a whole second, if it does so
        /// within `limit_ms`.
        fn settle(&mut self, limit_ms: u64) -> Option<u64> {
            let mut upright = 0;
            for ms in 0..limit_ms {
                self.tick();
                let good = self.plant.motion.lean().abs() < 3_f64.to_radians();
                upright = if good { upright + 1 } else { 0 };
                if upright == 1_000 {
                    return Some(ms - 999);
                }
            }
            None
        }

        /// The largest lean within the next `ms` milliseconds, rad.
        fn worst_lean(&mut self, ms: u64) -> f64 {
            (0..ms).fold(0.0, |worst, _| {
                self.tick();
                worst.max(self.plant.motion.lean().abs())
            })
        }
    }

    fn leaning(degrees: f64) -> Plant {
        Plant::new(Body::default(), Motion::at_angle(degrees.to_radians()))
    }

    #[test]
    fn a_leaning_pole_is_balanced_despite_delay_and_loss() {
        for degrees in [15.0, -15.0] {
            for delay_ms in 0..=3 {
                for loss in [0, 200] {
                    let mut rig = Rig::new(leaning(degrees), Nanos::from_millis(delay_ms), loss);
                    let settled = rig.settle(3_000);
                    let case = format!("{degrees}°, {delay_ms} ms, {loss} ‰ lost");
                    assert!(settled.is_some_and(|ms| ms < 1_000), "{case}: {settled:?}");
                    assert!(rig.farthest < 0.4, "{case}: {} m", rig.farthest);
                    let worst = rig.worst_lean(10_000).to_degrees();
                    assert!(worst < 2.0, "{case}: {worst}° afterwards");
                }
            }
        }
    }

    #[test]
    fn a_hanging_pole_is_swung_up_within_six_seconds_and_within_the_rail() {
        for delay_ms in 0..=3 {
            for loss in [0, 50, 200] {
                let plant = Plant::hanging(Body::default());
                let mut rig = Rig::new(plant, Nanos::from_millis(delay_ms), loss);
                let settled = rig.settle(8_000);
                let case = format!("{delay_ms} ms, {loss} ‰ lost");
                assert!(settled.is_some_and(|ms| ms < 6_000), "{case}: {settled:?}");
                assert_eq!(rig.plant.bumps(), 0, "{case}: reached {} m", rig.farthest);
                assert_eq!(rig.pilot.mode(), Mode::Balance);
            }
        }
    }

    #[test]
    fn the_pole_is_recovered_from_wherever_a_safe_stop_left_it() {
        for x in [-0.55, -0.2, 0.0, 0.3, 0.55] {
            for degrees in [30.0_f64, 90.0, 135.0, 180.0, 225.0, 300.0] {
                for rate in [-6.0, 0.0, 3.0, 9.0] {
                    let angle = degrees.to_radians();
                    let plant = Plant::new(Body::default(), Motion { x, v: 0.0, angle, rate });
                    let settled = Rig::new(plant, Nanos::from_millis(1), 0).settle(13_000);
                    assert!(settled.is_some(), "from {x} m, {degrees}°, {rate} rad/s");
                }
            }
        }
    }

    #[test]
    fn a_machine_ten_percent_off_the_model_is_balanced_too() {
        for factor in [0.9, 1.1] {
            let body = Body::default();
            let body = Body {
                cart_kg: body.cart_kg * factor,
                pole_kg: body.pole_kg / factor,
                pole_m: body.pole_m * factor,
                cart_dry: body.cart_dry * factor,
                ..body
            };
            let mut rig = Rig::new(Plant::hanging(body), Nanos::from_millis(2), 50);
            assert!(rig.settle(10_000).is_some(), "{factor}");
            assert!(rig.worst_lean(10_000).to_degrees() < 3.0, "{factor}");
        }
    }

    #[test]
    fn a_silence_shorter_than_the_age_limit_is_survived() {
        let mut rig = Rig::new(leaning(5.0), Nanos::from_millis(2), 0);
        assert!(rig.settle(3_000).is_some());
        rig.loss = 1_000;
        rig.worst_lean(40);
        rig.loss = 0;
        assert!(rig.worst_lean(5_000).to_degrees() < 10.0);
        assert!(rig.settle(3_000).is_some());
    }

    #[test]
    fn carrying_the_report_forward_is_what_defeats_the_delay() {
        let settled_with_delay = |told: bool| {
            let mut rig = Rig::new(leaning(10.0), Nanos::from_millis(25), 0);
            rig.clock_told = told;
            rig.settle(6_000)
        };
        assert!(settled_with_delay(true).is_some());
        assert_eq!(settled_with_delay(false), None, "the delay alone must be too much");
    }

    #[test]
    fn torques_are_assumed_to_travel_as_long_as_reports_do() {
        let mut pilot = Pilot::new(Body::default()).unwrap();
        for n in 1..=200 {
            let sampled_at = PERIOD * n;
            pilot.observe(Motion::default(), sampled_at, sampled_at + PERIOD * 4);
        }
        assert!((pilot.outbound - PERIOD * 4).as_nanos().abs() < 50, "{}", pilot.outbound);
        // A clock that is a second off moves it to the bound and no further.
        for n in 201..=400 {
            pilot.observe(Motion::default(), PERIOD * n, PERIOD * n + Nanos::from_secs(1));
        }
        assert!(pilot.outbound <= REPORT_AGE_MAX / 2);
    }

    #[test]
    fn without_a_recent_report_nothing_is_commanded() {
        let mut pilot = Pilot::new(Body::default()).unwrap();
        let start = Nanos::from_secs(5);
        assert_eq!(pilot.command(start), None);
        pilot.observe(Motion::at_angle(0.1), start, start);
        assert!(pilot.command(start).is_some_and(|torque| torque > 0.0));
        assert!(pilot.command(start + REPORT_AGE_MAX).is_some());
        assert_eq!(pilot.command(start + REPORT_AGE_MAX + Nanos::new(1)), None);
        pilot.restart();
        assert_eq!(pilot.command(start), None);
    }

    #[test]
    fn reports_from_the_past_and_reports_that_are_not_numbers_are_ignored() {
        let mut pilot = Pilot::new(Body::default()).unwrap();
        let start = Nanos::from_secs(5);
        let seen = Motion::at_angle(0.1);
        pilot.observe(seen, start, start);
        pilot.observe(Motion::at_angle(-0.1), start - PERIOD, start);
        pilot.observe(Motion::at_angle(f64::NAN), start + PERIOD, start + PERIOD);
        assert_eq!(pilot.report, Some((seen, start)));
    }
}
