//! What a typed message is: plain bytes with a name and a layout that both ends must share.
//!
//! A schema is identified on the wire by 64 bits: a hash of the message's versioned name and the
//! fingerprint of its layout. Two programs that disagree about a message therefore disagree about
//! its schema, and say so when they link instead of misreading each other's bytes.

use crate::wire::SchemaId;
use crate::wire::names::hash64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// Messages are sent as they lie in memory, and the wire is little-endian.
#[cfg(target_endian = "big")]
compile_error!("sinew sends messages as they lie in memory, which must be little-endian");

/// The largest payload of one envelope, in bytes. Larger data belongs on a bulk stream.
pub const MAX_MESSAGE: usize = 1_024;

/// A fixed-size message that can cross the wire as it lies in memory.
///
/// Every pattern of bits must be a value (`FromBytes`), so decoding can fail only by length;
/// *meaning* (finite numbers, known modes) is for the receiver to check before it acts. The
/// derives of `zerocopy` refuse types with padding, pointers or invalid bit patterns:
///
/// ```
/// use sinew_io::message::{Message, schema_text};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Gripper {
///     /// Opening between the fingers, in metres.
///     opening: f64,
/// }
///
/// impl Message for Gripper {
///     const NAME: &'static str = "Gripper@1";
/// }
///
/// assert_eq!(schema_text::<Gripper>(), "Gripper@1 size=8 align=8");
/// ```
pub trait Message: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + 'static {
    /// The type's name and version, for example `"JointSetpoint@1"`. Raise the version whenever
    /// the meaning of any byte changes: the fingerprint sees only size and alignment.
    const NAME: &'static str;
}

/// What both ends must agree on, in words: the name and the layout fingerprint. Allocates; call it
/// at start-up.
#[must_use]
pub fn schema_text<M: Message>() -> String {
    const {
        assert!(
            size_of::<M>() <= MAX_MESSAGE,
            "a message must fit one envelope (1,024 bytes); larger data needs a bulk stream"
        );
    }
    format!("{} size={} align={}", M::NAME, size_of::<M>(), align_of::<M>())
}

/// The schema's identity on the wire: the first 64 bits, little-endian, of BLAKE3 over
/// [`schema_text`]. Allocates; call it at start-up.
#[must_use]
pub fn schema_id<M: Message>() -> SchemaId {
    SchemaId::from_raw(hash64(blake3::Hasher::new().update(schema_text::<M>().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! message {
        ($type:ident, $name:literal, $field:ty) => {
            #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            struct $type($field);
            impl Message for $type {
                const NAME: &'static str = $name;
            }
        };
    }
    message!(Pose, "Pose@1", [f64; 6]);
    message!(PoseNext, "Pose@2", [f64; 6]);
    message!(PoseLonger, "Pose@1", [f64; 7]);
    message!(PoseBytes, "Pose@1", [u8; 48]);
    message!(PoseElsewhere, "Pose@1", [f64; 6]);

    #[test]
    fn name_version_size_and_alignment_each_change_the_schema() {
        let pose = schema_id::<Pose>();
        assert_ne!(pose, schema_id::<PoseNext>());
        assert_ne!(pose, schema_id::<PoseLonger>());
        assert_ne!(pose, schema_id::<PoseBytes>());
        assert_eq!(pose, schema_id::<PoseElsewhere>(), "the Rust name of the type does not count");
    }

    #[test]
    fn the_identity_is_the_same_on_every_build() {
        // Held fixed because it is on the wire: a change breaks every node already deployed.
        assert_eq!(schema_text::<Pose>(), "Pose@1 size=48 align=8");
        assert_eq!(schema_id::<Pose>().get().to_le_bytes(), [88, 215, 36, 1, 194, 32, 74, 67]);
    }
}
