//! The vocabulary of the wire: identifiers, epochs, sequences, and what a signature is bound to.
//!
//! Names are hashed once, at start, to 64 bits: the first eight bytes of BLAKE3, read as a
//! little-endian number. Two names of one system collide with a probability of about n²/2⁶⁵; the
//! places that collect names (enrolment, the topic table) refuse a collision when they see one, so
//! it is an error at start and never a mixed-up stream.

use std::fmt;

use thiserror::Error;

/// The longest cluster name, in bytes.
pub const CLUSTER_NAME_MAX: usize = 64;

/// The first 64 bits, little-endian: every id on the wire is one of these.
pub(crate) fn hash64(hasher: &blake3::Hasher) -> u64 {
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

macro_rules! id64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The identifier with these 64 bits, as read from the wire.
            #[must_use]
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// The 64 bits, as written to the wire.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }
    };
}

id64! {
    /// A topic: the hash of its name, such as `arm/setpoint`.
    TopicId
}

id64! {
    /// A message type: [`schema_id`](crate::message::schema_id) makes it from the type's name and
    /// version (`JointSetpoint@1`) and its layout.
    SchemaId
}

id64! {
    /// A node: the hash of its Ed25519 public key.
    ///
    /// It finds the key; it proves nothing. Enrolment refuses two keys with one id, and a key whose
    /// id is the reserved [`KeyId::EVERYONE`].
    KeyId
}

impl TopicId {
    /// The topic called `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(hash64(blake3::Hasher::new().update(name.as_bytes())))
    }
}

impl KeyId {
    /// As a destination: every peer. Never a source, and no key can be enrolled under it.
    pub const EVERYONE: Self = Self(0);

    /// The id of the Ed25519 public key with these bytes.
    #[must_use]
    pub fn of(public_key: &[u8; 32]) -> Self {
        Self(hash64(blake3::Hasher::new().update(public_key)))
    }
}

/// One life of a sender: the boot counter that was on its disk before it sent anything. 0 is no life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// No life yet: what a receiver knows of a peer before the first Hello.
    pub const NONE: Self = Self(0);

    /// The epoch with this boot counter.
    #[must_use]
    pub const fn new(counter: u64) -> Self {
        Self(counter)
    }

    /// The boot counter.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an envelope in its stream: 1, 2, 3 … within one epoch. 0 is never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// The first envelope of a life.
    pub const FIRST: Self = Self(1);

    /// The sequence with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after this, or `None` at the end of the numbers: the stream then needs a new epoch.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! bytes16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; 16]);
    };
}

bytes16! {
    /// A random number that makes one Challenge unlike every other.
    Nonce
}

bytes16! {
    /// A random number drawn once per process life: two lives that claim one epoch differ here.
    LifeId
}

bytes16! {
    /// The kernel's boot id: two nodes that report the same one read the same `CLOCK_MONOTONIC`.
    BootId
}

impl BootId {
    /// The boot id that the kernel prints with these hexadecimal digits; `None` for 0, which is none.
    #[must_use]
    pub fn new(number: u128) -> Option<Self> {
        (number != 0).then_some(Self(number.to_be_bytes()))
    }
}

/// Why a cluster name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClusterNameError {
    /// The name has no bytes.
    #[error("the cluster name is empty; give it 1 to {CLUSTER_NAME_MAX} bytes")]
    Empty,
    /// The name has too many bytes.
    #[error("the cluster name has {got} bytes; {CLUSTER_NAME_MAX} is the most")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
    /// The name holds a control character, which a terminal would hide or obey.
    #[error("the cluster name has a control character at byte {at}; remove it")]
    Control {
        /// The offset of the character, in bytes.
        at: usize,
    },
}

/// The name of a cluster: 1 to 64 bytes of UTF-8, no control characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterName {
    bytes: [u8; CLUSTER_NAME_MAX],
    len: u8,
}

impl ClusterName {
    /// Checks `name`.
    pub fn new(name: &str) -> Result<Self, ClusterNameError> {
        if name.is_empty() {
            return Err(ClusterNameError::Empty);
        }
        if let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(ClusterNameError::Control { at });
        }
        let mut bytes = [0; CLUSTER_NAME_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(name.as_bytes());
                Ok(Self { bytes, len })
            }
            _ => Err(ClusterNameError::TooLong { got: name.len() }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("constructed from a str")
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The cheap filter that every clear frame carries.
    #[must_use]
    pub fn tag(&self) -> ClusterTag {
        let hash = blake3::hash(self.as_bytes());
        let mut first = [0; 4];
        first.copy_from_slice(&hash.as_bytes()[..4]);
        ClusterTag(u32::from_le_bytes(first))
    }
}

impl fmt::Debug for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterName({:?})", self.as_str())
    }
}

/// The first 32 bits of BLAKE3(cluster name): a filter against a neighbour's traffic, and nothing
/// more. What binds a message to its cluster is the full name under the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTag(u32);

impl ClusterTag {
    /// The tag with these bits, as read from the wire.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The bits, as written to the wire.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What kind of statement a signature makes. One kind never verifies as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// An envelope: header and payload.
    Envelope,
    /// A Challenge of the handshake.
    Challenge,
    /// A Hello of the handshake.
    Hello,
}

impl Domain {
    /// Bytes of every domain string, so that none can be the beginning of another.
    pub const LEN: usize = 24;

    /// The string that begins what is signed, padded with zeros.
    #[must_use]
    pub const fn bytes(self) -> &'static [u8; Self::LEN] {
        match self {
            Self::Envelope => b"sinew/1 envelope\0\0\0\0\0\0\0\0",
            Self::Challenge => b"sinew/1 challenge\0\0\0\0\0\0\0",
            Self::Hello => b"sinew/1 hello\0\0\0\0\0\0\0\0\0\0\0",
        }
    }
}

/// The prefix of everything that is signed for one purpose in one cluster, computed once:
/// `domain (24) ‖ length of the name (1) ‖ cluster name (1 to 64)`.
///
/// The length byte keeps two clusters apart of which one name begins the other.
#[derive(Clone, Copy)]
pub struct SigningContext {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl SigningContext {
    /// The longest prefix, in bytes.
    pub const MAX: usize = Domain::LEN + 1 + CLUSTER_NAME_MAX;

    /// The prefix for `domain` in `cluster`.
    #[must_use]
    pub fn new(domain: Domain, cluster: &ClusterName) -> Self {
        let mut bytes = [0; Self::MAX];
        let name = cluster.as_bytes();
        bytes[..Domain::LEN].copy_from_slice(domain.bytes());
        bytes[Domain::LEN] = cluster.len;
        bytes[Domain::LEN + 1..][..name.len()].copy_from_slice(name);
        Self { bytes, len: Domain::LEN as u8 + 1 + cluster.len }
    }

    /// The prefix.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for SigningContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningContext({})", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_first_bytes_of_blake3() {
        // BLAKE3("abc") begins 6437b3ac38465133.
        assert_eq!(
            TopicId::of("abc").get().to_le_bytes(),
            [0x64, 0x37, 0xb3, 0xac, 0x38, 0x46, 0x51, 0x33]
        );
        assert_eq!(
            ClusterName::new("abc").unwrap().tag().get().to_le_bytes(),
            [0x64, 0x37, 0xb3, 0xac]
        );
    }

    #[test]
    fn cluster_names_are_bounded_and_printable() {
        assert_eq!(ClusterName::new(""), Err(ClusterNameError::Empty));
        assert_eq!(ClusterName::new(&"x".repeat(65)), Err(ClusterNameError::TooLong { got: 65 }));
        assert_eq!(ClusterName::new("a\nb"), Err(ClusterNameError::Control { at: 1 }));
        let longest = "é".repeat(32);
        assert_eq!(ClusterName::new(&longest).unwrap().as_str(), longest);
    }

    #[test]
    fn contexts_of_clusters_where_one_name_begins_the_other_differ_before_the_message() {
        let short = SigningContext::new(Domain::Hello, &ClusterName::new("plant").unwrap());
        let long = SigningContext::new(Domain::Hello, &ClusterName::new("plant2").unwrap());
        assert!(!long.as_bytes().starts_with(short.as_bytes()));
        let longest = ClusterName::new(&"x".repeat(CLUSTER_NAME_MAX)).unwrap();
        assert_eq!(
            SigningContext::new(Domain::Envelope, &longest).as_bytes().len(),
            SigningContext::MAX
        );
    }

    #[test]
    fn a_boot_id_is_sent_as_the_kernel_prints_it() {
        let id = BootId::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).unwrap();
        assert_eq!(id.0[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(BootId::new(0), None);
    }

    #[test]
    fn the_last_sequence_has_no_successor() {
        assert_eq!(Sequence::new(u64::MAX).next(), None);
        assert_eq!(Sequence::FIRST.next(), Some(Sequence::new(2)));
    }
}
