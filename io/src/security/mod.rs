//! Who may speak, and how that is proven: identities, key files, enrolment, signatures, admission,
//! and the handshake that tells one life of a peer from the next.
//!
//! Pure protocol except for three edges, each used at start only and marked as such: reading and
//! writing a key file, advancing the boot counter, and drawing a new key.

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod bucket;
pub mod enrolment;
pub mod identity;
pub mod verify;

pub use bucket::{Admission, AdmissionLimits, TokenBucket};
pub use enrolment::{Enrolment, EnrolmentError, Peer, PeerIndex, Publishes};
pub use identity::{DidError, Identity, KeyRefused, PublicKey};
pub use verify::{BadSignature, Trust, Verified, verify, verify_envelope};
