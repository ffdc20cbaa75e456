//! Keys and signatures that a careless verifier takes: none of them passes here.
//!
//! The cases are those of Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs" (2020,
//! <https://eprint.iacr.org/2020/1244>, table 6c; the ed25519-speccheck set), each built here from
//! its definition, so that the test also shows that the case is what it claims to be.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as B, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity as _, IsIdentity as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha512};
use sinew_io::security::{BadSignature, DidError, Identity, KeyRefused, PublicKey, verify};
use zeroize::Zeroizing;

/// The order of the base point, little-endian (RFC 8032, section 5.1).
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

const MESSAGE: &[u8] = b"arm/setpoint 0.25";

fn scalar(label: &str, n: u64) -> Scalar {
    let hash = Sha512::new().chain_update(label).chain_update(n.to_le_bytes()).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn challenge(r: &[u8; 32], a: &[u8; 32]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(MESSAGE).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn signature(r: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(r);
    bytes[32..].copy_from_slice(s);
    bytes
}

/// y + p as an encoding, for y below 19: the non-canonical name of y.
fn beyond_p(y: u8, sign: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + y;
    bytes[31] = 0x7f | sign << 7;
    bytes
}

#[test]
fn points_of_small_order_are_refused() {
    for point in EIGHT_TORSION {
        assert_eq!(PublicKey::admit(point.compress().as_bytes()), Err(KeyRefused::SmallOrder));
    }
}

#[test]
fn encodings_that_are_not_canonical_are_refused_even_of_good_points() {
    let mut not_canonical = 0;
    for y in 0..19 {
        for sign in [0, 1] {
            match PublicKey::admit(&beyond_p(y, sign)) {
                Err(KeyRefused::NotCanonical) => not_canonical += 1,
                Err(KeyRefused::NotOnCurve) => {}
                other => panic!("y = p + {y}: {other:?}"),
            }
        }
    }
    assert!(not_canonical >= 20, "only {not_canonical} of the encodings were points");
    // y = 1 and y = -1 have x = 0, whose sign bit must be 0.
    let mut identity = [0; 32];
    (identity[0], identity[31]) = (1, 0x80);
    assert_eq!(PublicKey::admit(&identity), Err(KeyRefused::NotCanonical));
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    assert_eq!(PublicKey::admit(&minus_one), Err(KeyRefused::NotCanonical));
}

#[test]
fn bytes_that_are_no_point_are_refused() {
    let mut two = [0; 32];
    two[0] = 2;
    assert!(CompressedEdwardsY(two).decompress().is_none());
    assert_eq!(PublicKey::admit(&two), Err(KeyRefused::NotOnCurve));
}

#[test]
fn keys_of_mixed_order_are_refused_though_strict_verification_alone_would_take_their_signature() {
    let secret = scalar("mixed", 0);
    for torsion in &EIGHT_TORSION[1..] {
        let key = B * secret + torsion;
        let encoded = key.compress();
        assert_eq!(PublicKey::admit(encoded.as_bytes()), Err(KeyRefused::MixedOrder));

        // A signature that holds without the cofactor: R carries the torsion that cancels [h]T.
        let (r, s) = (0..)
            .find_map(|n| {
                let nonce = scalar("nonce", n);
                EIGHT_TORSION.iter().find_map(|part| {
                    let r = (B * nonce + part).compress();
                    let h = challenge(r.as_bytes(), encoded.as_bytes());
                    (part + torsion * h).is_identity().then(|| (r, nonce + h * secret))
                })
            })
            .unwrap();
        let signature = Signature::from_bytes(&signature(r.as_bytes(), s.as_bytes()));
        let lenient = VerifyingKey::from_bytes(encoded.as_bytes()).unwrap();
        assert!(
            lenient.verify_strict(MESSAGE, &signature).is_ok(),
            "the case is not what it claims"
        );
    }
}

/// A good key with its secret scalar, so that odd signatures can be made for it.
fn good_key() -> (Scalar, EdwardsPoint, PublicKey) {
    let secret = scalar("good", 0);
    let point = B * secret;
    (secret, point, PublicKey::admit(point.compress().as_bytes()).unwrap())
}

#[test]
fn signatures_whose_r_has_small_order_are_refused_though_the_equation_holds() {
    let (secret, point, key) = good_key();
    let r = EdwardsPoint::identity().compress();
    let h = challenge(r.as_bytes(), key.as_bytes());
    let s = h * secret;
    assert_eq!(B * s, point * h, "the case is not what it claims");
    let small = signature(r.as_bytes(), s.as_bytes());
    assert_eq!(verify(&key, &[MESSAGE], &small), Err(BadSignature::Invalid));

    // The same R under its second name, y = p + 1.
    let r = beyond_p(1, 0);
    let s = challenge(&r, key.as_bytes()) * secret;
    let other = signature(&r, s.as_bytes());
    assert_eq!(verify(&key, &[MESSAGE], &other), Err(BadSignature::Invalid));
}

#[test]
fn signatures_that_hold_only_with_the_cofactor_are_refused() {
    let (secret, point, key) = good_key();
    let nonce = scalar("nonce", 1);
    for torsion in &EIGHT_TORSION[1..] {
        let r = B * nonce + torsion;
        let encoded = r.compress();
        let h = challenge(encoded.as_bytes(), key.as_bytes());
        let s = nonce + h * secret;
        assert!(((B * s) - r - point * h).mul_by_cofactor().is_identity(), "not the case");
        let signature = signature(encoded.as_bytes(), s.as_bytes());
        assert_eq!(verify(&key, &[MESSAGE], &signature), Err(BadSignature::Invalid));
    }
}

#[test]
fn a_signature_with_s_plus_the_group_order_is_refused() {
    let identity = Identity::from_secret(&Zeroizing::new([9; 32])).unwrap();
    let good = identity.sign(&[MESSAGE]);
    assert_eq!(verify(identity.public(), &[MESSAGE], &good), Ok(()));
    let mut malleable = good;
    // S + L, 2L … 15L all satisfy the equation, and fit into 32 bytes.
    for multiple in 1..=14 {
        let mut carry = 0;
        for (byte, add) in malleable[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(carry, 0, "S + {multiple} L does not fit");
        let result = verify(identity.public(), &[MESSAGE], &malleable);
        assert_eq!(result, Err(BadSignature::Invalid), "S + {multiple} L");
    }
}

#[test]
fn one_flipped_bit_anywhere_in_a_signature_or_message_is_refused() {
    let identity = Identity::from_secret(&Zeroizing::new([9; 32])).unwrap();
    let good = identity.sign(&[MESSAGE]);
    for bit in 0..512 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(identity.public(), &[MESSAGE], &bad).is_err(), "bit {bit}");
    }
    let mut message = MESSAGE.to_vec();
    for bit in 0..message.len() * 8 {
        message[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(identity.public(), &[&message], &good).is_err(), "bit {bit}");
        message[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_message_longer_than_anything_that_is_signed_is_refused_not_cut() {
    let identity = Identity::from_secret(&Zeroizing::new([9; 32])).unwrap();
    let longest = [1; 1_280];
    let good = identity.sign(&[&longest]);
    assert_eq!(verify(identity.public(), &[&longest[..1_000], &longest[1_000..]], &good), Ok(()));
    let result = verify(identity.public(), &[&longest, &[0]], &good);
    assert_eq!(result, Err(BadSignature::TooLong { got: 1_281 }));
}

#[test]
fn a_did_names_one_key() {
    // The did:key of the all-zero seed, as in the test vectors of the did:key method.
    let identity = Identity::from_secret(&Zeroizing::new([0; 32])).unwrap();
    let did = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
    assert_eq!(identity.public().to_did(), did);
    assert_eq!(PublicKey::from_did(did).unwrap(), *identity.public());
    for seed in 1..=50 {
        let identity = Identity::from_secret(&Zeroizing::new([seed; 32])).unwrap();
        let did = identity.public().to_did();
        assert!(did.starts_with("did:key:z6Mk") && did.len() == 56, "{did}");
        assert_eq!(PublicKey::from_did(&did).unwrap(), *identity.public());
    }
}

#[test]
fn texts_that_are_no_did_of_a_good_key_are_refused_by_name() {
    let refused = |text: &str| PublicKey::from_did(text).unwrap_err();
    let good = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
    assert_eq!(refused(""), DidError::NotDidKey);
    assert_eq!(refused("did:web:example.org"), DidError::NotDidKey);
    assert_eq!(refused(&format!(" {good}")), DidError::NotDidKey);
    assert_eq!(refused(&format!("did:key:z{}", "1".repeat(100_000))), DidError::NotDidKey);
    assert_eq!(refused(&format!("{good}1")), DidError::NotDidKey);
    assert_eq!(refused(&good[..55]), DidError::NotDidKey);
    assert_eq!(refused(&good.replace('B', "0")), DidError::Base58);
    // A secp256k1-length value, an X25519 key, and the identity point.
    let multikey = |codec: [u8; 2], key: [u8; 32]| {
        let bytes: Vec<u8> = codec.into_iter().chain(key).collect();
        format!("did:key:z{}", bs58::encode(bytes).into_string())
    };
    let mut one = [0; 32];
    one[0] = 1;
    assert_eq!(refused(&multikey([0xec, 0x01], one)), DidError::NotEd25519 { got: [0xec, 1] });
    assert_eq!(refused(&multikey([0xed, 0x01], one)), DidError::Key(KeyRefused::SmallOrder));
}

#[test]
fn debug_output_shows_the_public_name_and_no_secret() {
    let secret = [0x5c; 32];
    let identity = Identity::from_secret(&Zeroizing::new(secret)).unwrap();
    let shown = format!("{identity:?} {identity:#?}");
    assert!(shown.contains(&identity.public().to_did()));
    assert!(!shown.contains("5c5c") && !shown.contains("92, 92"), "{shown}");
}

#[test]
fn new_identities_come_from_the_given_randomness_and_otherwise_differ() {
    let draw = |byte| Identity::draw(&mut |room: &mut [u8]| room.fill(byte)).unwrap();
    assert_eq!(draw(3).public(), draw(3).public());
    assert_ne!(draw(3).public(), draw(4).public());
    assert_ne!(Identity::generate().unwrap().public(), Identity::generate().unwrap().public());
}
