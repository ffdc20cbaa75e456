//! Velocity of a body.

use sinew_io::message::Message;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fields::{Described, Field, fields};
use super::{Invalid, all_finite};

/// Velocity of a body in its own frame (`base_link` of
/// [REP-105](https://www.ros.org/reps/rep-0105.html)): x forward, y left, z up; a positive
/// rotation is counter-clockwise seen from the tip of its axis. The meaning of
/// `geometry_msgs/Twist` as mobile bases use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Twist {
    /// m/s along x, y, z.
    pub linear: [f64; 3],
    /// rad/s around x, y, z.
    pub angular: [f64; 3],
}

impl Message for Twist {
    const NAME: &'static str = "Twist@1";
}

impl Described for Twist {
    const FIELDS: &'static [Field] = fields!(Twist {
        linear: "m/s";
        angular: "rad/s";
    });

    fn validate(&self) -> Result<(), Invalid> {
        self.check()
    }
}

impl Twist {
    /// Standing still.
    pub const ZERO: Self = Self { linear: [0.0; 3], angular: [0.0; 3] };

    /// Whether every number is finite. Wait-free.
    ///
    /// # Errors
    /// [`Invalid::NotFinite`] with the first element that is not.
    pub fn check(&self) -> Result<(), Invalid> {
        all_finite("linear", &self.linear)?;
        all_finite("angular", &self.angular)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_on_the_wire_is_fixed() {
        assert_eq!((size_of::<Twist>(), align_of::<Twist>()), (48, 8));
        let twist = Twist { linear: [1.0, 2.0, 3.0], angular: [4.0, 5.0, 6.0] };
        let expected: Vec<u8> = (1..=6).flat_map(|v| f64::from(v).to_le_bytes()).collect();
        assert_eq!(twist.as_bytes(), expected);
        assert_eq!(Twist::read_from_bytes(&expected), Ok(twist));
    }

    #[test]
    fn a_twist_that_is_not_a_number_is_refused_by_name() {
        assert_eq!(Twist::ZERO.check(), Ok(()));
        let twist = Twist { angular: [0.0, f64::NAN, 0.0], ..Twist::ZERO };
        assert_eq!(twist.check(), Err(Invalid::NotFinite { field: "angular", index: 1 }));
    }
}
