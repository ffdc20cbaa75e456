//! What a running node does with frames that somebody made up or changed: of no form, or under no
//! valid signature. Nothing of them is delivered, and each is counted once, under its reason and its
//! source.
//!
//! The node is real, with its lanes, rings and panel. The controller is played by hand, with the real
//! key, so that each test decides every bit of what the node receives. After each attack the test
//! compares *all* counters of the panel, so that a frame counted twice or elsewhere fails it.

mod support;

use sinew::rt::clock;
use support::Sample;
use support::arena::{Arena, From, ROBOT, over_each_transport};
use support::forge::{
    CLASS_AT, ENVELOPE_AT, FLAGS_AT, KIND_AT, PAYLOAD_AT, SIGNATURE_LEN, VERSION_AT, identity, with,
};
use zerocopy::IntoBytes;

// Form.

#[test]
fn bad_magic_and_every_other_version_are_dropped() {
    over_each_transport("magic", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        arena.send(From::Home, &with(&frame, 0, b"SN"));
        arena.send(From::Elsewhere, &with(&frame, 0, &[0, 0]));
        for version in (0..=u8::MAX).filter(|version| *version != 1) {
            arena.send(From::Home, &with(&frame, VERSION_AT, &[version]));
        }
        let versions = ("receive.drop.bad_version@stranger", 255);
        arena.expect(0, &[("receive.drop.bad_magic@stranger", 2), versions]);
    });
}

#[test]
fn every_kind_that_this_release_does_not_accept_is_dropped() {
    over_each_transport("kind", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        for kind in (0..=u8::MAX).filter(|kind| ![1, 4].contains(kind)) {
            arena.send(From::Home, &with(&frame, KIND_AT, &[kind]));
        }
        // A clear frame that calls itself a handshake is none.
        arena.send(From::Home, &with(&frame, KIND_AT, &[4]));
        let malformed = ("handshake.drop.malformed@controller", 1);
        arena.expect(0, &[("receive.drop.bad_kind@stranger", 254), malformed]);
    });
}

#[test]
fn a_frame_truncated_at_any_length_is_dropped() {
    over_each_transport("truncated", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        assert_eq!(frame.len(), 16 + 64 + 256 + 64);
        for len in 0..frame.len() {
            arena.send(From::Home, &frame[..len]);
        }
        let short = ("receive.drop.too_short@stranger", 16);
        arena.expect(0, &[short, ("verify.drop.malformed@controller", 384)]);
        arena.send(From::Home, &frame);
        arena.expect(1, &[]);
    });
}

#[test]
fn a_challenge_truncated_at_any_length_is_dropped() {
    over_each_transport("truncated-challenge", |arena| {
        let robot = identity(ROBOT).public().id();
        let frame = arena.controller.challenge(robot, [1; 16], arena.epoch, clock::now());
        for len in 16..frame.len() {
            arena.send(From::Home, &frame[..len]);
        }
        arena.expect(0, &[("handshake.drop.malformed@controller", 440 - 16)]);
    });
}

#[test]
fn a_frame_with_bytes_after_its_end_is_dropped_at_any_length() {
    over_each_transport("oversized", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let longer = |len| [&frame[..], &vec![0; len - frame.len()]].concat();
        for len in [401, 402, 1_231, 1_232] {
            arena.send(From::Home, &longer(len));
        }
        arena.expect(0, &[("verify.drop.malformed@controller", 4)]);
        for len in [1_233, 1_234, 1_500, 9_000, 65_507] {
            arena.send(From::Home, &longer(len));
        }
        arena.expect(0, &[("receive.drop.too_long@stranger", 5)]);
    });
}

#[test]
fn a_payload_length_that_lies_is_dropped() {
    over_each_transport("lying-length", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let lengths = [0_u16, 1, 255, 257, 1_024, 1_025, u16::MAX];
        for length in lengths {
            arena.send(From::Home, &with(&frame, ENVELOPE_AT + 62, &length.to_le_bytes()));
        }
        arena.expect(0, &[("verify.drop.malformed@controller", lengths.len() as u64)]);
    });
}

#[test]
fn unknown_flags_and_unknown_classes_are_dropped() {
    over_each_transport("flags", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        for bit in 1..8 {
            arena.send(From::Home, &with(&frame, FLAGS_AT, &[1 | 1 << bit]));
        }
        for class in [0, 6, 7, 255] {
            arena.send(From::Home, &with(&frame, CLASS_AT, &[class]));
        }
        arena.expect(0, &[("verify.drop.malformed@controller", 7 + 4)]);
    });
}

// Signature.

#[test]
fn a_signature_with_any_byte_changed_is_dropped() {
    over_each_transport("bad-signature", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let signature = frame.len() - SIGNATURE_LEN;
        for at in signature..frame.len() {
            arena.send(From::Home, &with(&frame, at, &[frame[at] ^ 0x10]));
        }
        arena.expect(0, &[("verify.drop.bad_signature@controller", 64)]);
        arena.send(From::Home, &frame);
        arena.expect(1, &[]);
    });
}

#[test]
fn a_payload_with_any_byte_changed_is_dropped() {
    over_each_transport("changed-payload", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        for at in PAYLOAD_AT..PAYLOAD_AT + 256 {
            arena.send(From::Home, &with(&frame, at, &[frame[at] ^ 1]));
        }
        arena.expect(0, &[("verify.drop.bad_signature@controller", 256)]);
    });
}

#[test]
fn a_malleated_signature_is_dropped() {
    // The order of the group, little-endian (RFC 8032, 5.1): S + L verifies the same equation.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    over_each_transport("malleable", |arena| {
        let mut frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let s = frame.len() - 32;
        let mut carry = 0;
        for (byte, order) in frame[s..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        arena.send(From::Home, &frame);
        arena.expect(0, &[("verify.drop.bad_signature@controller", 1)]);
    });
}

#[test]
fn a_signature_made_for_a_handshake_does_not_sign_an_envelope() {
    over_each_transport("domain", |arena| {
        use sinew::io::wire::{Domain, SigningContext};
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let end = frame.len() - SIGNATURE_LEN;
        for domain in [Domain::Hello, Domain::Challenge] {
            let context = SigningContext::new(domain, &arena.controller.cluster);
            let parts = [context.as_bytes(), &frame[ENVELOPE_AT..end]];
            let signature = arena.controller.identity.sign(&parts);
            arena.send(From::Home, &with(&frame, end, &signature));
        }
        arena.expect(0, &[("verify.drop.bad_signature@controller", 2)]);
    });
}

#[test]
fn an_unsigned_envelope_is_dropped_where_signatures_are_required() {
    over_each_transport("unsigned", |arena| {
        let sample = Sample::new(1);
        let fields = arena.controller.fields("setpoint", arena.epoch, 1);
        let unsigned = arena.controller.unsigned(&fields, sample.as_bytes());
        arena.send(From::Home, &unsigned);
        // The same, made by stripping the signature off a genuine one.
        let signed = arena.controller.signed(&fields, sample.as_bytes());
        let stripped = with(&signed[..signed.len() - SIGNATURE_LEN], FLAGS_AT, &[0]);
        arena.send(From::Home, &stripped);
        // The flag without the signature is a lie about the length.
        arena.send(From::Home, &signed[..signed.len() - SIGNATURE_LEN]);
        let malformed = ("verify.drop.malformed@controller", 1);
        arena.expect(0, &[("verify.drop.not_signed@controller", 2), malformed]);
    });
}

#[test]
fn an_open_topic_takes_unsigned_envelopes_and_still_refuses_a_wrong_signature() {
    over_each_transport("open", |arena| {
        let sample = Sample::new(1);
        let fields = |arena: &Arena, n| arena.controller.fields("notes", arena.epoch, n);
        let unsigned = arena.controller.unsigned(&fields(arena, 1), sample.as_bytes());
        let signed = arena.controller.signed(&fields(arena, 2), sample.as_bytes());
        let last = signed.len() - 1;
        arena.send(From::Home, &with(&signed, last, &[signed[last] ^ 1]));
        arena.send(From::Home, &unsigned);
        arena.send(From::Home, &signed);
        let bad = ("verify.drop.bad_signature@controller", 1);
        arena.expect(0, &[bad, ("delivered/notes", 2)]);
    });
}
