//! A control loop without any messages: a joint that is brought to its target at 1 kHz, a limit switch
//! that stops it, and a person who lets it go on.
//!
//! ```sh
//! cargo run --release --example control_loop           # 3 s, then a report
//! cargo run --release --bin sinew -- hist joint        # meanwhile, in another terminal
//! ```

use std::time::Duration;

use sinew::control::safety::State;
use sinew::prelude::*;
use sinew::rt::panel::{self, Panel, PanelSpec};
use sinew::rt::topology::Topology;

/// The joint with its drive. Cycle and safe-stop path share it, so it is one body, not two closures.
struct Joint {
    angle: f64,
    speed: f64,
    torque: f64,
    target: f64,
}

/// rad.
const LIMIT_SWITCH: f64 = 1.5;

impl LoopBody for Joint {
    fn cycle(&mut self, cx: &mut Cycle) {
        // There and back each second. Once, by mistake, the target lies beyond the limit switch.
        self.target = match cx.tick() {
            1_500..1_700 => 2.0,
            tick => (tick / 500 % 2) as f64,
        };
        if self.angle > LIMIT_SWITCH && self.speed > 0.0 {
            cx.trip(); // the safe-stop path runs within this very cycle
        }
        self.torque = 400.0 * (self.target - self.angle) - 40.0 * self.speed;
        self.move_on(cx);
    }

    fn safe_stop(&mut self, cx: &mut Cycle) {
        self.torque = -40.0 * self.speed; // the brake
        self.move_on(cx);
        if self.speed.abs() > 0.01 {
            cx.trip(); // still moving: nobody may re-arm yet
        } else {
            self.speed = 0.0;
        }
    }
}

impl Joint {
    /// What the world does in one period, and in those that were missed.
    fn move_on(&mut self, cx: &Cycle) {
        let span = cx.period().as_secs_f64() * (1 + cx.skipped()) as f64;
        self.speed += self.torque * span;
        self.angle += self.speed * span;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let panel = Panel::create(&PanelSpec::new("joint"))?;
    let core = Topology::read()?.real_time_cores()[0];
    let joint = ControlLoop::new("joint")
        .rate_hz(1_000)
        .core(core)
        .priority(Priority::new(80)?)
        .strictness(Strictness::Report)
        .budget(Nanos::from_micros(100));
    let body = Joint { angle: 0.0, speed: 0.0, torque: 0.0, target: 0.0 };
    let running = joint.spawn_body(&panel, body)?;
    panel.set_state(panel::State::Running);

    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(250));
        let status = running.status();
        println!("{}", status.state);
        if status.state == State::SafeStop {
            // Here a person would look at the machine, and at the cause.
            println!("stop {}: {}", status.stops, status.cause.ok_or("a stop has a cause")?);
            running.rearm(RearmToken::authorise(status.stops));
        }
    }
    println!("{}", running.stop()?);
    panel.set_state(panel::State::Stopped);
    Ok(())
}
