//! Hard-latency robot control: pinned real-time threads, authenticated messages between nodes, and
//! a time budget with a histogram on every stage.
//!
//! A robot that follows a controller's set-points, and stops when they stop:
//!
//! ```no_run
//! use sinew::prelude::*;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut node = Node::from_config("robot.toml")?;
//!     let setpoint = node.latest::<JointSetpoint>("arm/setpoint")?;
//!     let mut setpoint = Input::new(setpoint, Nanos::from_millis(5)).deadline(Nanos::from_millis(20));
//!     let mut state = node.publisher::<JointState>("arm/state")?;
//!     let node = node.start()?; // with what the kernel granted read back, or an error
//!
//!     let arm = ControlLoop::new("arm").rate_hz(1_000).budget(Nanos::from_micros(150)).beside(&node);
//!     let arm = arm.core(CoreId::new(1)).priority(Priority::new(80)?).strictness(Strictness::Require);
//!     let report = arm.on_safe_stop(|_cx| torque_off()).run(node.panel(), |cx| {
//!         match cx.read(&mut setpoint) {
//!             Reading::Fresh(target, _age) => drive(target),
//!             Reading::Stale(..) | Reading::Never => torque_off(),
//!         }
//!         let _full = state.publish(&measure()); // never blocks
//!     })?;
//!     println!("{report}");
//!     Ok(())
//! }
//! # fn torque_off() {}
//! # fn drive(_: JointSetpoint) {}
//! # fn measure() -> JointState { std::process::abort() }
//! ```
//!
//! The parts stand alone: [`rt`] has the threads, guards and histograms and no messages; [`io`] the
//! nodes; [`control`] the loops, the safety states and the robot messages.
//!
//! A software stop is not a certified safety function: see [`control::safety`].

pub use sinew_control as control;
pub use sinew_io as io;
pub use sinew_rt as rt;

/// What most programs begin with.
pub mod prelude {
    pub use sinew_control::control_loop::{ControlLoop, Cycle, LoopBody, Wake};
    pub use sinew_control::input::{Input, Reading};
    pub use sinew_control::message::{Fault, Heartbeat, JointSetpoint, JointState, Twist};
    pub use sinew_control::safety::RearmToken;
    pub use sinew_io::message::Message;
    pub use sinew_io::node::{Layout, Node, NodeBuilder, PeerConfig, Publisher};
    pub use sinew_io::security::Identity;
    pub use sinew_rt::clock::Nanos;
    pub use sinew_rt::thread::{Priority, Strictness};
    pub use sinew_rt::topology::CoreId;
    pub use sinew_rt::wait::Wait;
}
