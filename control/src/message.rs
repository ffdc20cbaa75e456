//! The first robot messages: fixed-size values with their units and frames.
//!
//! Units and axes follow [ROS REP-103](https://www.ros.org/reps/rep-0103.html): SI units throughout
//! (m, rad, s, N, N·m), right-handed frames, and for a body x forward, y left, z up. The
//! per-joint fields mean what they mean in `sensor_msgs/JointState`: radians and newton metres for
//! a joint that turns, metres and newtons for one that slides.
//!
//! Every pattern of bits decodes to a value, so a received message can hold a count above
//! [`MAX_JOINTS`], an unknown mode, a NaN or an infinity. Each type therefore has `check()`, and
//! nothing should reach an actuator that has not passed it. The accessors that return slices are
//! safe on any value: they clamp the count.

mod fields;
mod joint;
mod status;
mod twist;

pub use fields::{Described, Field, FieldKind, Unfit, Value};
pub use joint::{Drive, Joint, JointSetpoint, JointState, MAX_JOINTS};
pub use status::{Fault, Heartbeat, Severity};
pub use twist::Twist;

use thiserror::Error;

/// Why a received message must not be acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// More joints than the message has room for.
    #[error("{count} joints, but a message holds at most {max}; split the robot into groups")]
    TooManyJoints {
        /// Joints claimed or asked for.
        count: usize,
        /// [`MAX_JOINTS`].
        max: usize,
    },
    /// A NaN or an infinity where a physical quantity belongs.
    #[error("{field}[{index}] is not a finite number; check the sender's arithmetic")]
    NotFinite {
        /// The field's name.
        field: &'static str,
        /// The element within the field; 0 for a scalar.
        index: usize,
    },
    /// A code that this version does not know.
    #[error("{field} has the unknown code {code}; the sender runs another version")]
    UnknownCode {
        /// The field's name.
        field: &'static str,
        /// The code received.
        code: u32,
    },
    /// A span that must not be negative or zero.
    #[error("{field} is {value}, but must be above zero")]
    NotPositive {
        /// The field's name.
        field: &'static str,
        /// The value received.
        value: i64,
    },
}

/// The words for the codes of [`crate::safety::State`].
const SAFETY: &[&str] = &[
    "idle",
    "running",
    "degraded-timing",
    "degraded-input",
    "degraded-timing-and-input",
    "safe-stop",
];

/// `Err` at the first element that is NaN or infinite.
fn all_finite(field: &'static str, values: &[f64]) -> Result<(), Invalid> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(Invalid::NotFinite { field, index }),
        None => Ok(()),
    }
}
