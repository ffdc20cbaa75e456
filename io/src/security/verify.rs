//! The one place where a signature is checked, and the only maker of verified envelopes.

use std::hint::black_box;

use ed25519_dalek::Signature;
use sinew_rt::clock::Nanos;
use thiserror::Error;

use super::identity::{Identity, PublicKey};
use super::placement::{self, placed};
use crate::delivery::DropReason;
use crate::simulation::{Fault, cheap_signature, planted};
use crate::wire::{Envelope, EnvelopeHeader, SIGNATURE_LEN, SigningContext};

/// The longest message, over all its parts, that [`verify`] accepts, in bytes. The longest that the
/// protocol signs has 89 + 64 + 1,024.
pub const SIGNED_MAX: usize = 1_280;

/// Why a signature did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadSignature {
    /// The signature is not one of this key over this message.
    #[error("the signature is not valid for this key and message")]
    Invalid,
    /// The message is longer than anything the protocol signs.
    #[error("a message of {got} bytes; at most {SIGNED_MAX} are ever signed")]
    TooLong {
        /// Its length in bytes.
        got: usize,
    },
}

/// Checks that `signature` is `key`'s over the concatenation of `parts`, strictly: `S` must be
/// reduced and `R` canonical and not of small order (`verify_strict`), and `key` was admitted as
/// canonical and torsion-free.
///
/// Does not allocate; about 50 µs. The Wycheproof vectors go through this same function.
pub fn verify(
    key: &PublicKey,
    parts: &[&[u8]],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), BadSignature> {
    let mut message = [0; SIGNED_MAX];
    let mut len = 0;
    for part in parts {
        let Some(room) = message.get_mut(len..).and_then(|rest| rest.get_mut(..part.len())) else {
            return Err(BadSignature::TooLong { got: parts.iter().map(|part| part.len()).sum() });
        };
        room.copy_from_slice(part);
        len += part.len();
    }
    if let Some(cheap) = cheap_signature(key, &[&message[..len]]) {
        return if cheap == *signature { Ok(()) } else { Err(BadSignature::Invalid) };
    }
    let signature = Signature::from_bytes(signature);
    match placed(|| strict(key, &message[..len], &signature)) {
        true => Ok(()),
        false => Err(BadSignature::Invalid),
    }
}

/// Not inlined, so that its frame and those below lie alike under whoever calls it.
#[inline(never)]
fn strict(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    key.verifying().verify_strict(message, signature).is_ok()
}

/// Lets all later checks of this process run where the stack suits them best, by the time that
/// checks of a message signed with `identity` take at various positions. About 4 ms, once.
pub fn choose_stack(identity: &Identity, now: impl FnMut() -> Nanos) {
    let message = [0; 256];
    let signature = Signature::from_bytes(&identity.sign(&[&message]));
    placement::choose(now, || {
        black_box(strict(identity.public(), black_box(&message), &signature));
    });
}

/// Whether unsigned envelopes are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every envelope must be signed. The only choice in production.
    Signed,
    /// Unsigned envelopes pass too, and are marked; signed ones are still checked. Development only.
    Open,
}

/// An envelope that was checked. Only [`verify_envelope`] makes one:
///
/// ```
/// use sinew_io::delivery::DropReason;
/// use sinew_io::security::{PublicKey, Trust, Verified, verify_envelope};
/// use sinew_io::wire::{Envelope, SigningContext};
///
/// fn checked<'a>(
///     context: &SigningContext,
///     key: &PublicKey,
///     envelope: Envelope<'a>,
/// ) -> Result<Verified<'a>, DropReason> {
///     verify_envelope(Trust::Signed, context, key, envelope)
/// }
/// ```
///
/// Nobody else can, not even with the envelope at hand:
///
/// ```compile_fail,E0451
/// use sinew_io::security::Verified;
/// use sinew_io::wire::Envelope;
///
/// fn unchecked<'a>(envelope: Envelope<'a>) -> Verified<'a> {
///     Verified { envelope }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    envelope: Envelope<'a>,
}

impl<'a> Verified<'a> {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &'a EnvelopeHeader {
        self.envelope.header
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.envelope.payload
    }

    /// Whether a signature was checked; `false` only under [`Trust::Open`].
    #[must_use]
    pub fn was_signed(&self) -> bool {
        self.envelope.signature.is_some()
    }
}

/// Checks an envelope's signature with the key of its source.
///
/// Refuses with [`DropReason::UnknownKey`] when `key` is not the source's, [`DropReason::NotSigned`]
/// or [`DropReason::BadSignature`].
pub fn verify_envelope<'a>(
    trust: Trust,
    context: &SigningContext,
    key: &PublicKey,
    envelope: Envelope<'a>,
) -> Result<Verified<'a>, DropReason> {
    if envelope.header.source() != key.id() {
        return Err(DropReason::UnknownKey);
    }
    match (envelope.signature, trust) {
        (Some(signature), _) => {
            verify(key, &[context.as_bytes(), envelope.signed_bytes()], signature)
                .or_else(|bad| if planted(Fault::SignatureNotChecked) { Ok(()) } else { Err(bad) })
                .map_err(|_| DropReason::BadSignature)?;
        }
        (None, Trust::Open) => {}
        (None, Trust::Signed) if planted(Fault::UnsignedAccepted) => {}
        (None, Trust::Signed) => return Err(DropReason::NotSigned),
    }
    Ok(Verified { envelope })
}
