//! Control loops beside a node: what they share with it, and what is refused.

mod support;

use sinew::control::control_loop::{ControlLoop, LoopError};
use sinew::io::node::{Layout, RealTimeConfig};
use sinew::rt::clock::{self, Nanos};
use sinew::rt::thread::{Policy, ThreadSpec, spawn};
use sinew::rt::topology::Topology;
use sinew::rt::wait::Wait;
use std::time::Duration;
use support::{Pair, Sample};

#[test]
fn a_loop_on_a_core_that_a_spinning_lane_holds_is_refused() {
    let core = Topology::read().unwrap().real_time_cores()[0];
    let (robot, _controller) = Pair::on_loopback().builders("held");
    let mut robot = robot.spins_in_bursts().realtime(RealTimeConfig {
        layout: Layout::Fused,
        wait: Wait::Spin,
        cores: vec![core],
        ..RealTimeConfig::default()
    });
    let _setpoint = robot.latest::<Sample>("setpoint").unwrap();
    let robot = robot.start().unwrap();
    let arm = ControlLoop::new("arm").core(core).beside(&robot).on_safe_stop(|_| {});
    let refused = arm.spawn(robot.panel(), |_| {});
    robot.stop().unwrap();
    let error = refused.expect_err("the lane and the loop would starve each other");
    assert!(matches!(error, LoopError::CoreHeld { core: held, .. } if held == core), "{error}");
}

#[test]
fn a_loop_that_the_kernel_did_not_make_real_time_brands_the_panel() {
    let (robot, _controller) = Pair::on_loopback().builders("brand");
    let robot = robot.start().unwrap();
    let before = robot.panel().snapshot().unwrap().not_real_time;
    // A loop without a priority is not real-time on any kernel.
    let arm = ControlLoop::new("arm").beside(&robot).on_safe_stop(|_| {});
    let arm = arm.spawn(robot.panel(), |_| {}).unwrap();
    let after = robot.panel().snapshot().unwrap().not_real_time;
    arm.stop().unwrap();
    robot.stop().unwrap();
    assert_eq!(after.len(), before.len() + 1);
    assert!(after.last().unwrap().contains("arm"), "{after:?}");
    let plain = ThreadSpec::new("plain").policy(Policy::Other);
    let plain = spawn(plain, || ()).unwrap();
    assert!(plain.applied().not_real_time().is_some());
    plain.join().unwrap();
}

#[test]
fn the_panel_has_room_for_as_many_loops_as_were_announced() {
    let (robot, _controller) = Pair::on_loopback().builders("room");
    let robot = robot.loops(1).start().unwrap();
    let spawn = |name: &str| {
        let arm = ControlLoop::new(name).beside(&robot).on_safe_stop(|_| {});
        arm.spawn(robot.panel(), |_| {})
    };
    let arm = spawn("arm").expect("there is room for one");
    let second = spawn("leg").expect_err("and for no other").to_string();
    arm.stop().unwrap();
    robot.stop().unwrap();
    assert!(second.contains("full") && second.contains("NodeBuilder::loops"), "{second}");
}

#[test]
fn housekeeping_looks_more_often_once_there_is_a_loop_whose_hang_would_stop_a_robot() {
    let (robot, _controller) = Pair::on_loopback().builders("often");
    let robot = robot.start().unwrap();
    let heartbeat = || robot.panel().snapshot().unwrap().heartbeat_at;
    // The middle one of some times between heartbeats, which show when housekeeping looks.
    let between = || {
        let (mut gaps, mut last) = (Vec::new(), heartbeat());
        let give_up = clock::now() + Nanos::from_secs(30);
        while gaps.len() < 9 {
            assert!(clock::now() < give_up, "no heartbeats");
            std::thread::sleep(Duration::from_millis(2));
            let next = heartbeat();
            if let (Some(last), Some(next)) = (last, next)
                && next > last
            {
                gaps.push(next - last);
            }
            last = next;
        }
        gaps.sort();
        gaps[gaps.len() / 2]
    };
    let limit = Nanos::from_millis(60);
    assert!(between() > limit, "a node of parked lanes alone sleeps for 100 ms");
    let arm = ControlLoop::new("arm").beside(&robot).on_safe_stop(|_| {});
    let arm = arm.spawn(robot.panel(), |_| {}).unwrap();
    let soon = (0..20).any(|_| between() < limit);
    arm.stop().unwrap();
    robot.stop().unwrap();
    assert!(soon, "it looks every 20 ms beside a loop");
}
