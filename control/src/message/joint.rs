//! What joints do, and what they are asked to do.

use sinew_io::message::Message;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fields::{Described, Field, fields};
use super::{Invalid, SAFETY, all_finite};

/// Joints in one message. An arm with more publishes two groups.
pub const MAX_JOINTS: usize = 8;

/// One joint's position, velocity and effort, as state or as target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Joint {
    /// rad, or m for a joint that slides.
    pub position: f64,
    /// rad/s, or m/s.
    pub velocity: f64,
    /// N·m, or N.
    pub effort: f64,
}

/// What the joints of one group do at one instant.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct JointState {
    /// The robot loop's cycle in which this was sampled. A controller echoes it, so that the robot
    /// can measure the whole round trip in cycles without comparing clocks.
    pub tick: u64,
    /// When it was sampled: ns of the sender's `CLOCK_MONOTONIC`. Comparable only on its host.
    pub sampled_at_ns: i64,
    /// Joints in use; at most [`MAX_JOINTS`].
    pub count: u32,
    /// The sender's safety state, as in [`crate::safety::State::code`].
    pub safety: u32,
    /// rad or m.
    pub position: [f64; MAX_JOINTS],
    /// rad/s or m/s.
    pub velocity: [f64; MAX_JOINTS],
    /// The effort applied when this was sampled: N·m or N.
    pub effort: [f64; MAX_JOINTS],
}

impl Message for JointState {
    const NAME: &'static str = "JointState@1";
}

impl Described for JointState {
    const FIELDS: &'static [Field] = fields!(JointState {
        tick: "cycles";
        sampled_at_ns: "ns";
        count: "joints";
        safety: "" codes SAFETY;
        position: "rad or m", used count;
        velocity: "rad/s or m/s", used count;
        effort: "N·m or N", used count;
    });

    fn validate(&self) -> Result<(), Invalid> {
        self.check()
    }
}

impl JointState {
    /// The state of `joints`, sampled in cycle `tick` at `sampled_at_ns`; safety code 0 (idle).
    ///
    /// # Errors
    /// [`Invalid::TooManyJoints`] above [`MAX_JOINTS`].
    pub fn new(tick: u64, sampled_at_ns: i64, joints: &[Joint]) -> Result<Self, Invalid> {
        let columns = Columns::of(joints)?;
        Ok(Self {
            tick,
            sampled_at_ns,
            count: columns.count,
            safety: 0,
            position: columns.position,
            velocity: columns.velocity,
            effort: columns.effort,
        })
    }

    /// The joints in use. A count above [`MAX_JOINTS`] is cut to it; [`check`](Self::check)
    /// reports it.
    pub fn joints(&self) -> impl ExactSizeIterator<Item = Joint> + '_ {
        joints(self.count, &self.position, &self.velocity, &self.effort)
    }

    /// Whether every number in use is finite and the count is possible. Wait-free.
    ///
    /// # Errors
    /// The first [`Invalid`] found.
    pub fn check(&self) -> Result<(), Invalid> {
        check(self.count, &self.position, &self.velocity, &self.effort)
    }
}

/// Which target the drive follows. The others are feed-forward, or ignored by drives without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Drive {
    /// Apply no effort; the joint moves freely. Zero, so that an all-zero message is harmless.
    Release = 0,
    /// Apply the given effort.
    Effort = 1,
    /// Reach and hold the given velocity; effort is feed-forward.
    Velocity = 2,
    /// Reach and hold the given position; velocity and effort are feed-forward.
    Position = 3,
}

/// What the joints of one group shall do.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct JointSetpoint {
    /// The [`JointState::tick`] that this was computed from; 0 when from none.
    pub tick: u64,
    /// Joints in use; at most [`MAX_JOINTS`].
    pub count: u32,
    /// The code of a [`Drive`]; read it with [`drive`](Self::drive).
    pub drive: u32,
    /// rad or m.
    pub position: [f64; MAX_JOINTS],
    /// rad/s or m/s.
    pub velocity: [f64; MAX_JOINTS],
    /// N·m or N.
    pub effort: [f64; MAX_JOINTS],
}

impl Message for JointSetpoint {
    const NAME: &'static str = "JointSetpoint@1";
}

impl Described for JointSetpoint {
    const FIELDS: &'static [Field] = fields!(JointSetpoint {
        tick: "cycles";
        count: "joints";
        drive: "" codes &["release", "effort", "velocity", "position"];
        position: "rad or m", used count;
        velocity: "rad/s or m/s", used count;
        effort: "N·m or N", used count;
    });

    fn validate(&self) -> Result<(), Invalid> {
        self.check()
    }
}

impl JointSetpoint {
    /// Targets for `joints`, computed from the state of cycle `tick`.
    ///
    /// # Errors
    /// [`Invalid::TooManyJoints`] above [`MAX_JOINTS`].
    pub fn new(tick: u64, drive: Drive, joints: &[Joint]) -> Result<Self, Invalid> {
        let columns = Columns::of(joints)?;
        Ok(Self {
            tick,
            count: columns.count,
            drive: drive as u32,
            position: columns.position,
            velocity: columns.velocity,
            effort: columns.effort,
        })
    }

    /// Which target the drive shall follow.
    ///
    /// # Errors
    /// [`Invalid::UnknownCode`] for a code of another version.
    pub fn drive(&self) -> Result<Drive, Invalid> {
        match self.drive {
            0 => Ok(Drive::Release),
            1 => Ok(Drive::Effort),
            2 => Ok(Drive::Velocity),
            3 => Ok(Drive::Position),
            code => Err(Invalid::UnknownCode { field: "drive", code }),
        }
    }

    /// The joints in use. A count above [`MAX_JOINTS`] is cut to it; [`check`](Self::check)
    /// reports it.
    pub fn joints(&self) -> impl ExactSizeIterator<Item = Joint> + '_ {
        joints(self.count, &self.position, &self.velocity, &self.effort)
    }

    /// Whether the drive mode is known, every number in use is finite and the count is possible.
    /// Wait-free. Limits of the particular robot are for the robot to apply.
    ///
    /// # Errors
    /// The first [`Invalid`] found.
    pub fn check(&self) -> Result<(), Invalid> {
        self.drive()?;
        check(self.count, &self.position, &self.velocity, &self.effort)
    }
}

/// Joints as the arrays of a message, unused elements zero.
struct Columns {
    count: u32,
    position: [f64; MAX_JOINTS],
    velocity: [f64; MAX_JOINTS],
    effort: [f64; MAX_JOINTS],
}

impl Columns {
    fn of(joints: &[Joint]) -> Result<Self, Invalid> {
        if joints.len() > MAX_JOINTS {
            return Err(Invalid::TooManyJoints { count: joints.len(), max: MAX_JOINTS });
        }
        let mut columns = Self {
            count: joints.len() as u32,
            position: [0.0; MAX_JOINTS],
            velocity: [0.0; MAX_JOINTS],
            effort: [0.0; MAX_JOINTS],
        };
        for (i, joint) in joints.iter().enumerate() {
            columns.position[i] = joint.position;
            columns.velocity[i] = joint.velocity;
            columns.effort[i] = joint.effort;
        }
        Ok(columns)
    }
}

fn in_use(count: u32) -> usize {
    usize::try_from(count).unwrap_or(MAX_JOINTS).min(MAX_JOINTS)
}

fn joints<'a>(
    count: u32,
    position: &'a [f64; MAX_JOINTS],
    velocity: &'a [f64; MAX_JOINTS],
    effort: &'a [f64; MAX_JOINTS],
) -> impl ExactSizeIterator<Item = Joint> + 'a {
    (0..in_use(count)).map(|i| Joint {
        position: position[i],
        velocity: velocity[i],
        effort: effort[i],
    })
}

fn check(
    count: u32,
    position: &[f64; MAX_JOINTS],
    velocity: &[f64; MAX_JOINTS],
    effort: &[f64; MAX_JOINTS],
) -> Result<(), Invalid> {
    let used = in_use(count);
    if count as usize > used {
        return Err(Invalid::TooManyJoints { count: count as usize, max: MAX_JOINTS });
    }
    all_finite("position", &position[..used])?;
    all_finite("velocity", &velocity[..used])?;
    all_finite("effort", &effort[..used])
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    const CART_AND_POLE: [Joint; 2] = [
        Joint { position: 0.1, velocity: -0.2, effort: 0.3 },
        Joint { position: -1.5, velocity: 2.5, effort: 0.0 },
    ];

    #[test]
    fn the_layout_on_the_wire_is_fixed() {
        assert_eq!((size_of::<JointState>(), align_of::<JointState>()), (216, 8));
        assert_eq!(offset_of!(JointState, tick), 0);
        assert_eq!(offset_of!(JointState, sampled_at_ns), 8);
        assert_eq!(offset_of!(JointState, count), 16);
        assert_eq!(offset_of!(JointState, safety), 20);
        assert_eq!(offset_of!(JointState, position), 24);
        assert_eq!(offset_of!(JointState, velocity), 88);
        assert_eq!(offset_of!(JointState, effort), 152);
        assert_eq!((size_of::<JointSetpoint>(), align_of::<JointSetpoint>()), (208, 8));
        assert_eq!(offset_of!(JointSetpoint, tick), 0);
        assert_eq!(offset_of!(JointSetpoint, count), 8);
        assert_eq!(offset_of!(JointSetpoint, drive), 12);
        assert_eq!(offset_of!(JointSetpoint, position), 16);
        assert_eq!(offset_of!(JointSetpoint, velocity), 80);
        assert_eq!(offset_of!(JointSetpoint, effort), 144);
    }

    #[test]
    fn numbers_are_little_endian_on_the_wire() {
        let state = JointState::new(0x0102, 0, &CART_AND_POLE).unwrap();
        assert_eq!(state.as_bytes()[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(state.as_bytes()[24..32], 0.1_f64.to_le_bytes());
    }

    #[test]
    fn joints_survive_the_wire() {
        let state = JointState::new(7, -3, &CART_AND_POLE).unwrap();
        let state = JointState::read_from_bytes(state.as_bytes()).unwrap();
        assert_eq!((state.tick, state.sampled_at_ns), (7, -3));
        assert!(state.joints().eq(CART_AND_POLE));
        let setpoint = JointSetpoint::new(7, Drive::Effort, &CART_AND_POLE).unwrap();
        let setpoint = JointSetpoint::read_from_bytes(setpoint.as_bytes()).unwrap();
        assert_eq!(setpoint.drive(), Ok(Drive::Effort));
        assert!(setpoint.joints().eq(CART_AND_POLE));
        assert_eq!((state.check(), setpoint.check()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_ninth_joint_is_refused_when_made_and_when_received() {
        let too_many = Invalid::TooManyJoints { count: 9, max: 8 };
        assert_eq!(JointState::new(0, 0, &[Joint::default(); 9]), Err(too_many));
        let mut state = JointState::new(0, 0, &[]).unwrap();
        state.count = 9;
        assert_eq!(state.check(), Err(too_many));
        assert_eq!(state.joints().len(), MAX_JOINTS);
    }

    #[test]
    fn only_numbers_in_use_must_be_finite() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut setpoint = JointSetpoint::new(0, Drive::Effort, &CART_AND_POLE).unwrap();
            setpoint.velocity[2] = bad;
            assert_eq!(setpoint.check(), Ok(()));
            setpoint.velocity[1] = bad;
            assert_eq!(
                setpoint.check(),
                Err(Invalid::NotFinite { field: "velocity", index: 1 }),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_all_zero_setpoint_releases_and_an_unknown_mode_is_refused() {
        let mut setpoint = JointSetpoint::read_from_bytes(&[0; 208]).unwrap();
        assert_eq!(setpoint.drive(), Ok(Drive::Release));
        setpoint.drive = 4;
        let unknown = Err(Invalid::UnknownCode { field: "drive", code: 4 });
        assert_eq!(setpoint.check(), unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled_and_what_passes_the_check_is_usable(
            bytes in prop::collection::vec(any::<u8>(), 208),
            count in 0_u32..12,
            drive in 0_u32..6,
        ) {
            let mut setpoint = JointSetpoint::read_from_bytes(&bytes).unwrap();
            prop_assert!(setpoint.joints().len() <= MAX_JOINTS);
            (setpoint.count, setpoint.drive) = (count, drive);
            let usable = count <= 8
                && drive <= 3
                && setpoint.joints().all(|j| {
                    j.position.is_finite() && j.velocity.is_finite() && j.effort.is_finite()
                });
            prop_assert_eq!(setpoint.check().is_ok(), usable);
            prop_assert_eq!(setpoint.joints().len(), count.min(8) as usize);
        }
    }
}
