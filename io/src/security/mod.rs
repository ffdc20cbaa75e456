//! Who may speak, and how that is proven: identities, key files, enrolment, signatures, admission,
//! and the handshake that tells one life of a peer from the next.
//!
//! Pure protocol except for two edges, used at start only and marked as such: `private_file`, under
//! key files and the boot counter, and [`Identity::generate`].

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod boot;
pub mod bucket;
pub mod enrolment;
pub mod hello;
pub mod identity;
pub mod keyfile;
mod peer_clock;
mod placement;
mod private_file;
pub mod verify;

pub use boot::{BootCounter, BootError};
pub use bucket::{Admission, AdmissionLimits, TokenBucket};
pub use enrolment::{Enrolment, EnrolmentError, Peer, PeerIndex, Publishes};
pub use hello::{Announced, Handshake, Outcome, OwnLife, PeerLife, PeerStatus, Received};
pub use identity::{DidError, Identity, KeyRefused, PublicKey};
pub use keyfile::{KeyFileError, KeyTextError};
pub use peer_clock::PeerClock;
pub use private_file::PrivateFileError;
pub use verify::{BadSignature, Trust, Verified, choose_stack, verify, verify_envelope};
