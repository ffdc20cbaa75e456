//! What travels between nodes: frames, envelopes and handshake messages, as fixed byte layouts.
//!
//! Everything here is pure: bytes in, meaning out, and back. Decoding never panics, never allocates
//! and never trusts a length. Read it in the order in which a packet meets it: [`frame`] (is this
//! ours at all?), [`envelope`] (one message of one stream), [`hello`] (whose life is this?), with
//! the vocabulary of all three in [`names`].

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod envelope;
pub mod frame;
pub mod hello;
pub mod names;
pub mod report;

pub use envelope::{Class, Envelope, EnvelopeFields, EnvelopeHeader, FrameTooLong};
pub use frame::{
    FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind, Malformed, RawFrame, Slot, decode,
};
pub use hello::{Challenge, HandshakeFrame, HandshakeMessage, Hello, StreamStart};
pub use names::{
    BootId, ClusterName, ClusterNameError, ClusterTag, Domain, Epoch, KeyId, LifeId, Nonce,
    SchemaId, Sequence, SigningContext, TopicId,
};

/// The longest frame, in bytes: what IPv6 guarantees to carry (1,280) less its own header (40) and
/// UDP's (8).
pub const FRAME_MAX: usize = 1_232;
/// The longest payload of one envelope, in bytes. Larger data does not belong on this path.
pub const PAYLOAD_MAX: usize = 1_024;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

/// Keeps the ban on clocks, threads, sockets and ambient randomness in force.
#[cfg(test)]
mod purity {
    // Under clippy an expectation that no finding fulfils is an error: these two say that the lists
    // in `clippy.toml` are read and match.
    #[expect(clippy::disallowed_types, reason = "proves that the list is in force")]
    type _Banned = std::collections::HashMap<u8, u8>;

    #[expect(clippy::disallowed_methods, reason = "proves that the list is in force")]
    fn _banned() -> sinew_rt::clock::Nanos {
        sinew_rt::clock::now()
    }

    /// The lists are allowed workspace-wide, so each pure module has to deny them itself.
    #[test]
    fn every_pure_module_denies_what_clippy_lists() {
        const DENY: &str = "\n#![deny(clippy::disallowed_types, clippy::disallowed_methods)]\n";
        for (name, source) in [
            ("wire", include_str!("mod.rs")),
            ("security", include_str!("../security/mod.rs")),
            ("delivery", include_str!("../delivery/mod.rs")),
        ] {
            assert!(source.contains(DENY), "{name} does not deny them");
        }
    }
}
