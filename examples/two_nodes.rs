//! A robot that follows a controller's set-points, and stops when they stop. Two nodes in one process,
//! joined by a network in memory; [`Node::from_config`] and two processes are the next step.
//!
//! ```sh
//! cargo run --release --example two_nodes              # 3 s, then both reports
//! cargo run --release --bin sinew -- node status       # meanwhile, in another terminal
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use sinew::control::message::{Drive, Joint};
use sinew::io::transport::memory::MemoryNetwork;
use sinew::prelude::*;

const SETPOINT: &str = "arm/setpoint";
const STATE: &str = "arm/state";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let network = MemoryNetwork::new();
    let (robot_at, controller_at) = ("127.0.0.1:7401".parse()?, "127.0.0.1:7402".parse()?);
    let (robot_key, controller_key) = (Identity::generate()?, Identity::generate()?);
    // Each knows the other by its key, and grants it one topic.
    let robot_peer = peer("robot", &robot_key, robot_at, STATE);
    let controller_peer = peer("controller", &controller_key, controller_at, SETPOINT);
    let node = |name, key, address, peer| {
        Node::builder(name).development().identity(key).memory(&network, address).peer(peer)
    };
    let mut robot = node("robot", robot_key, robot_at, controller_peer);
    let mut controller = node("controller", controller_key, controller_at, robot_peer);

    // The robot: reads set-points, publishes its state, and stops 20 ms after the last set-point.
    let mut setpoint = Input::new(robot.latest::<JointSetpoint>(SETPOINT)?, Nanos::from_millis(5))
        .deadline(Nanos::from_millis(20));
    let mut state = robot.publisher::<JointState>(STATE)?;
    let robot = robot.start()?;
    let mut angle = 0.0;
    let arm =
        control_loop("arm")?.beside(&robot).on_safe_stop(|_cx| { /* torque off, brake on */ });
    let arm = arm.spawn(robot.panel(), move |cx| {
        match cx.read(&mut setpoint) {
            Reading::Fresh(target, _age) if target.check().is_ok() => {
                angle += target.joints().next().map_or(0.0, |joint| joint.velocity * 1e-3);
            }
            Reading::Fresh(..) => cx.trip(), // nonsense from a proven sender
            Reading::Stale(..) | Reading::Never => {} // hold
        }
        let joint = Joint { position: angle, velocity: 0.0, effort: 0.0 };
        if let Ok(sample) = JointState::new(cx.tick(), cx.now().as_nanos(), &[joint]) {
            let _full = state.publish(&sample); // never blocks
        }
    })?;

    // The controller: turns the joint to 1 rad.
    let mut measured = Input::new(controller.latest::<JointState>(STATE)?, Nanos::from_millis(5));
    let mut command = controller.publisher::<JointSetpoint>(SETPOINT)?;
    let controller = controller.start()?;
    let pilot = control_loop("pilot")?.beside(&controller).on_safe_stop(|_cx| {});
    let pilot = pilot.spawn(controller.panel(), move |cx| {
        let (tick, drive, velocity) = match cx.read(&mut measured) {
            Reading::Fresh(state, _age) => {
                let angle = state.joints().next().map_or(1.0, |joint| joint.position);
                (state.tick, Drive::Velocity, 5.0 * (1.0 - angle))
            }
            Reading::Stale(..) | Reading::Never => (0, Drive::Release, 0.0),
        };
        let joint = Joint { position: 0.0, velocity, effort: 0.0 };
        if let Ok(target) = JointSetpoint::new(tick, drive, &[joint]) {
            let _full = command.publish(&target);
        }
    })?;

    std::thread::sleep(Duration::from_secs(2));
    println!("after 2 s: arm {}", arm.status().state);
    println!("{}", pilot.stop()?); // no more set-points
    std::thread::sleep(Duration::from_secs(1));
    let snapshot = robot.panel().snapshot()?;
    println!("{} set-points arrived", snapshot.counter("delivered/arm/setpoint").unwrap_or(0));
    println!("{}", arm.stop()?);
    for node in [robot, controller] {
        node.stop().map_err(|panics| panics.join("; "))?;
    }
    Ok(())
}

fn peer(name: &str, key: &Identity, address: SocketAddr, publishes: &str) -> PeerConfig {
    PeerConfig {
        name: name.to_owned(),
        identity: key.public().to_did(),
        address,
        publishes: vec![publishes.to_owned()],
    }
}

/// 1 kHz, in front of the lanes, and started anyway where the kernel refuses.
fn control_loop(name: &str) -> Result<ControlLoop, Box<dyn std::error::Error>> {
    let core = sinew::rt::topology::Topology::read()?.real_time_cores()[0];
    Ok(ControlLoop::new(name)
        .rate_hz(1_000)
        .core(core)
        .priority(Priority::new(80)?)
        .strictness(Strictness::Report)
        .budget(Nanos::from_micros(150)))
}
