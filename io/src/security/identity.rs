//! Identities: an Ed25519 key pair, and the public half as admitted once and written as `did:key`.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::ed25519::signature::MultipartSigner;
use ed25519_dalek::{SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::simulation::cheap_signature;
use crate::wire::envelope::append_signature;
use crate::wire::{FrameTooLong, KeyId, SIGNATURE_LEN, SigningContext};

/// Why the bytes of a public key were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyRefused {
    /// No point of the curve has this encoding.
    #[error("the public key is not a point of the curve")]
    NotOnCurve,
    /// The point has another, canonical encoding: one key would have two names.
    #[error("the public key is not in its canonical encoding")]
    NotCanonical,
    /// The point has small order: anyone can sign for it.
    #[error("the public key has small order, so that anyone could sign for it")]
    SmallOrder,
    /// The point has a small-order part: verifiers disagree about its signatures.
    #[error("the public key has a torsion component, so that verifiers would disagree")]
    MixedOrder,
    /// Its key id is the one that means everyone.
    #[error("the key id of this public key is reserved; make a new key")]
    ReservedId,
}

/// Why a `did:key` text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DidError {
    /// Another kind of text.
    #[error("not an Ed25519 did:key; it starts with `did:key:z6Mk` and has 56 characters")]
    NotDidKey,
    /// Base58 that does not decode to a 34-byte value.
    #[error("the part after `did:key:z` is not base58 of 34 bytes; copy it again in full")]
    Base58,
    /// A key of another type.
    #[error("multicodec prefix {got:02x?} instead of [ed, 01]: not an Ed25519 key")]
    NotEd25519 {
        /// The two bytes in its place.
        got: [u8; 2],
    },
    /// The key itself is not acceptable.
    #[error(transparent)]
    Key(#[from] KeyRefused),
}

const DID_PREFIX: &str = "did:key:z";
const ED25519_MULTICODEC: [u8; 2] = [0xed, 0x01];
const MULTIKEY_LEN: usize = 34;
/// What 34 bytes that begin with `ed 01` always take: the decoder's work is bounded before it starts.
const BASE58_LEN: usize = 47;

/// An Ed25519 public key that was admitted: canonical, of prime order, decompressed once.
///
/// [`Display`](fmt::Display) writes its `did:key`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    id: KeyId,
}

impl PublicKey {
    /// Admits a key, or says why not. Costs some 40 µs: call it at start or enrolment, not on a
    /// lane.
    pub fn admit(bytes: &[u8; 32]) -> Result<Self, KeyRefused> {
        let point = CompressedEdwardsY(*bytes).decompress().ok_or(KeyRefused::NotOnCurve)?;
        if point.compress().as_bytes() != bytes {
            return Err(KeyRefused::NotCanonical);
        }
        if point.is_small_order() {
            return Err(KeyRefused::SmallOrder);
        }
        if !point.is_torsion_free() {
            return Err(KeyRefused::MixedOrder);
        }
        let id = KeyId::of(bytes);
        if id == KeyId::EVERYONE {
            return Err(KeyRefused::ReservedId);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyRefused::NotOnCurve)?;
        Ok(Self { key, id })
    }

    /// Reads `did:key:z6Mk…`.
    pub fn from_did(text: &str) -> Result<Self, DidError> {
        let digits = text.strip_prefix(DID_PREFIX).ok_or(DidError::NotDidKey)?;
        if digits.len() != BASE58_LEN {
            return Err(DidError::NotDidKey);
        }
        let mut multikey = [0; MULTIKEY_LEN];
        match bs58::decode(digits).onto(&mut multikey) {
            Ok(MULTIKEY_LEN) => {}
            _ => return Err(DidError::Base58),
        }
        let (codec, bytes) = multikey.split_at(ED25519_MULTICODEC.len());
        if codec != ED25519_MULTICODEC {
            return Err(DidError::NotEd25519 { got: [codec[0], codec[1]] });
        }
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| DidError::Base58)?;
        Ok(Self::admit(bytes)?)
    }

    /// The public name, `did:key:z6Mk…`. Allocates.
    #[must_use]
    pub fn to_did(&self) -> String {
        let mut multikey = [0; MULTIKEY_LEN];
        multikey[..2].copy_from_slice(&ED25519_MULTICODEC);
        multikey[2..].copy_from_slice(self.as_bytes());
        format!("{DID_PREFIX}{}", bs58::encode(multikey).into_string())
    }

    /// The short id that frames carry.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    pub(super) fn verifying(&self) -> &VerifyingKey {
        &self.key
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_did())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A key pair: what this node signs with. The secret is wiped from memory on drop and never shown.
pub struct Identity {
    signing: SigningKey,
    public: PublicKey,
}

impl Identity {
    /// The identity of a 32-byte secret (the seed of RFC 8032). The caller's copy stays with the
    /// caller, so it comes in a wrapper that wipes it.
    pub fn from_secret(secret: &Zeroizing<[u8; 32]>) -> Result<Self, KeyRefused> {
        let signing = SigningKey::from_bytes(secret);
        let public = PublicKey::admit(signing.verifying_key().as_bytes())?;
        Ok(Self { signing, public })
    }

    /// A new identity from the secret that `random` fills in.
    pub fn draw(random: &mut dyn FnMut(&mut [u8])) -> Result<Self, KeyRefused> {
        let mut secret = Zeroizing::new([0; 32]);
        random(&mut *secret);
        Self::from_secret(&secret)
    }

    /// A new identity from the operating system's randomness: an edge, for start-up and tools.
    #[expect(clippy::disallowed_methods, reason = "key generation is where randomness comes in")]
    pub fn generate() -> Result<Self, getrandom::Error> {
        loop {
            let mut secret = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *secret)?;
            // Refused only for the reserved key id, once in 2⁶⁴ draws.
            if let Ok(identity) = Self::from_secret(&secret) {
                return Ok(identity);
            }
        }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs the concatenation of `parts`. Does not allocate; about 25 µs hot, 35 paced.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        if let Some(cheap) = cheap_signature(&self.public, parts) {
            return cheap;
        }
        self.signing.multipart_sign(parts).to_bytes()
    }

    /// Signs the envelope that lies in `room` and appends the signature; returns the frame's length.
    pub fn sign_envelope(
        &self,
        context: &SigningContext,
        room: &mut [u8],
    ) -> Result<usize, FrameTooLong> {
        append_signature(room, |signed| self.sign(&[context.as_bytes(), signed]))
    }

    pub(super) fn secret(&self) -> &[u8; 32] {
        self.signing.as_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}
