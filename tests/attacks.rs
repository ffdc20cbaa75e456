//! What a running node does with hostile frames: nothing is delivered that should not be, and each
//! frame is counted once, under its reason and its source.
//!
//! The node is real, with its lanes, rings and panel. The controller is played by hand, with the real
//! key, so that each test decides every bit of what the node receives. After each attack the test
//! compares *all* counters of the panel, so that a frame counted twice or elsewhere fails it.

mod support;

use sinew::io::message::{Message, schema_id};
use sinew::io::wire::{Class, KeyId, TopicId};
use sinew::rt::clock::{self, Nanos};
use support::arena::over_each_transport;
use support::arena::{Arena, CLUSTER, CONTROLLER, EPOCH, From, LIFE, ROBOT, Rules, UNLIMITED};
use support::forge::{Forger, Seen, identity, kind_of};
use support::{Sample, counter, until};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offsets in a frame, as wire.rs documents them.
const VERSION_AT: usize = 2;
const KIND_AT: usize = 3;
const CLUSTER_AT: usize = 4;
const SENDER_AT: usize = 8;
const ENVELOPE_AT: usize = 16;
const TOPIC_AT: usize = ENVELOPE_AT + 16;
const CLASS_AT: usize = ENVELOPE_AT + 60;
const FLAGS_AT: usize = ENVELOPE_AT + 61;
const PAYLOAD_AT: usize = ENVELOPE_AT + 64;
const SIGNATURE_LEN: usize = 64;

fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

// Replay.

#[test]
fn a_replayed_frame_is_delivered_once_and_dropped_ninety_nine_times() {
    over_each_transport("replay", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        for _ in 0..100 {
            arena.send(From::Home, &frame);
        }
        arena.expect(1, &[("verify.drop.replay@controller", 99)]);
        assert_eq!(counter(&arena.robot, "verify.signatures_checked"), 1, "cheap to refuse");
    });
}

#[test]
fn a_frame_replayed_from_another_address_is_not_counted_against_the_peer() {
    over_each_transport("replay-elsewhere", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        arena.send(From::Home, &frame);
        for _ in 0..10 {
            arena.send(From::Elsewhere, &frame);
        }
        arena.expect(1, &[("verify.drop.replay@stranger", 10)]);
    });
}

#[test]
fn a_frame_replayed_after_more_than_a_window_of_others_is_dropped() {
    over_each_transport("replay-late", |arena| {
        let frames: Vec<_> =
            (1..=1_025).map(|n| arena.controller.sample("setpoint", arena.epoch, n)).collect();
        for frame in &frames {
            arena.send(From::Home, frame);
        }
        arena.expect(1_025, &[]);
        for frame in &frames {
            arena.send(From::Home, frame);
        }
        let drops = [("verify.drop.replay@controller", 1_024)];
        arena.expect(0, &[&drops[..], &[("verify.drop.below_window@controller", 1)]].concat());
    });
}

#[test]
fn a_frame_replayed_on_another_topic_is_a_bad_signature() {
    over_each_transport("replay-topic", |arena| {
        let frame = arena.controller.sample("setpoint", arena.epoch, 1);
        let elsewhere = with(&frame, TOPIC_AT, &TopicId::of("limits").get().to_le_bytes());
        arena.send(From::Home, &elsewhere);
        arena.expect(0, &[("verify.drop.bad_signature@controller", 1)]);
    });
}

#[test]
fn a_frame_of_another_cluster_is_dropped_and_so_is_one_relabelled_as_ours() {
    over_each_transport("replay-cluster", |arena| {
        let other = Forger::new(CONTROLLER, "test-2");
        let frame = other.sample("setpoint", arena.epoch, 1);
        arena.send(From::Home, &frame);
        arena.expect(0, &[("receive.drop.other_cluster@stranger", 1)]);
        // The tag is only a filter: what binds a message to its cluster is under the signature.
        let tag = arena.controller.cluster.tag().get().to_le_bytes();
        arena.send(From::Home, &with(&frame, CLUSTER_AT, &tag));
        arena.expect(0, &[("verify.drop.bad_signature@controller", 1)]);
    });
}

#[test]
fn a_node_s_own_frames_reflected_at_it_are_dropped() {
    over_each_transport("reflection", |arena| {
        let robot = Forger::new(ROBOT, CLUSTER);
        let frame = robot.sample("setpoint", arena.epoch, 1);
        arena.send(From::Home, &frame);
        arena.expect(0, &[("receive.drop.unknown_key@stranger", 1)]);
        // The frame names the controller now, the signed envelope in it still the robot.
        let relabelled = with(&frame, SENDER_AT, &arena.controller.key().get().to_le_bytes());
        arena.send(From::Home, &relabelled);
        arena.expect(0, &[("verify.drop.malformed@controller", 1)]);
        // And now both, which the signature does not survive.
        let key = arena.controller.key().get().to_le_bytes();
        arena.send(From::Home, &with(&relabelled, ENVELOPE_AT, &key));
        arena.expect(0, &[("verify.drop.bad_signature@controller", 1)]);
    });
}

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

// Who.

#[test]
fn a_key_that_is_not_enrolled_is_dropped() {
    over_each_transport("unknown-key", |arena| {
        let somebody = Forger::new(99, CLUSTER);
        for number in 1..=10 {
            arena.send(From::Home, &somebody.sample("setpoint", arena.epoch, number));
            arena.send(From::Elsewhere, &somebody.sample("setpoint", arena.epoch, number));
        }
        arena.expect(0, &[("receive.drop.unknown_key@stranger", 20)]);
    });
}

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

// When.

#[test]
fn envelopes_of_an_ended_and_of_an_unannounced_life_are_dropped() {
    over_each_transport("epochs", |arena| {
        for number in 1..=5 {
            for epoch in [0, 1, arena.epoch - 1] {
                arena.send(From::Home, &arena.controller.sample("setpoint", epoch, number));
            }
            for epoch in [arena.epoch + 1, u64::MAX] {
                arena.send(From::Home, &arena.controller.sample("setpoint", epoch, number));
            }
        }
        let future = ("verify.drop.future_epoch@controller", 10);
        arena.expect(0, &[("verify.drop.old_epoch@controller", 15), future]);
        assert_eq!(counter(&arena.robot, "verify.signatures_checked"), 0, "cheap to refuse");
    });
}

#[test]
fn nothing_is_delivered_before_a_hello() {
    let mut arena = Arena::udp_before_hello("no-hello", Rules::default());
    for number in 1..=10 {
        arena.sample(number);
    }
    arena.expect(0, &[("verify.drop.no_life@controller", 10)]);
    arena.robot.stop().unwrap();
}

#[test]
fn a_sequence_too_far_ahead_is_dropped_and_does_not_move_the_window() {
    over_each_transport("far-ahead", |arena| {
        arena.sample(1);
        for sequence in [1 + (1 << 32) + 1, u64::MAX - 1, u64::MAX] {
            arena.sample(sequence);
        }
        arena.sample(2);
        arena.sample(0);
        let below = ("verify.drop.below_window@controller", 1);
        arena.expect(2, &[("verify.drop.too_far_ahead@controller", 3), below]);
    });
}

#[test]
fn a_forged_sequence_does_not_move_the_window() {
    over_each_transport("window-poison", |arena| {
        arena.sample(1);
        let mut forged = arena.controller.sample("setpoint", arena.epoch, 1_000_000);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        arena.send(From::Home, &forged);
        arena.sample(2);
        arena.expect(2, &[("verify.drop.bad_signature@controller", 1)]);
    });
}

#[test]
fn an_envelope_older_than_its_lifespan_is_dropped() {
    over_each_transport("expired", |arena| {
        let sample = Sample::new(1);
        let mut fields = arena.controller.fields("setpoint", arena.epoch, 1);
        fields.lifespan_us = 1_000;
        fields.sent_at = clock::now() - Nanos::from_millis(2);
        arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        arena.expect(0, &[("verify.drop.expired@controller", 1)]);
        // Its number is used up: a copy that is re-dated is a replay, not a second chance.
        fields.sent_at = clock::now();
        arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        arena.expect(0, &[("verify.drop.replay@controller", 1)]);
        // A date in the future, or at the ends of time, makes nothing younger than its receipt.
        for (sequence, sent_at) in
            [(2, clock::now() + Nanos::from_secs(3_600)), (3, Nanos::new(i64::MAX))]
        {
            fields = arena.controller.fields("setpoint", arena.epoch, sequence);
            fields.sent_at = sent_at;
            arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        }
        arena.settle();
        for _ in 0..2 {
            let queued = until("a set-point arrives", || arena.setpoints.pop());
            assert!(queued.sent_at <= clock::now(), "dated {} by its sender", queued.sent_at);
        }
        fields = arena.controller.fields("setpoint", arena.epoch, 4);
        fields.sent_at = Nanos::new(i64::MIN);
        fields.lifespan_us = u32::MAX;
        arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        let before = arena.counts()["delivered/setpoint"];
        arena.settle();
        assert_eq!(arena.counts()["delivered/setpoint"], before);
        assert_eq!(arena.counts()["verify.drop.expired@controller"], 2);
    });
}

// What.

#[test]
fn a_genuine_envelope_on_a_topic_that_its_sender_may_not_publish_is_dropped() {
    over_each_transport("not-permitted", |arena| {
        for number in 1..=3 {
            let frame = arena.controller.sample("limits", arena.epoch, number);
            arena.send(From::Home, &frame);
        }
        arena.expect(0, &[("verify.drop.not_permitted@controller", 3)]);
        assert!(arena.limits.pop().is_none());
    });
}

#[test]
fn a_topic_that_nobody_subscribes_to_is_dropped() {
    over_each_transport("unknown-topic", |arena| {
        arena.send(From::Home, &arena.controller.sample("nothing", arena.epoch, 1));
        arena.expect(0, &[("verify.drop.unknown_topic@controller", 1)]);
    });
}

#[test]
fn an_envelope_for_somebody_else_is_dropped() {
    over_each_transport("destination", |arena| {
        let sample = Sample::new(1);
        for (sequence, destination) in [
            (1, Forger::new(99, CLUSTER).key()),
            (2, arena.controller.key()),
            (3, identity(ROBOT).public().id()),
            (4, KeyId::EVERYONE),
        ] {
            let mut fields = arena.controller.fields("setpoint", arena.epoch, sequence);
            fields.destination = destination;
            arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        }
        arena.expect(2, &[("verify.drop.not_for_us@controller", 2)]);
    });
}

#[test]
fn a_delivery_class_that_is_not_served_is_dropped() {
    over_each_transport("class", |arena| {
        let sample = Sample::new(1);
        let classes = [Class::Command, Class::Stream, Class::Durable, Class::EStop];
        for (sequence, class) in (1..).zip(classes) {
            let mut fields = arena.controller.fields("setpoint", arena.epoch, sequence);
            fields.class = class;
            arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        }
        arena.expect(0, &[("verify.drop.class_not_served@controller", 4)]);
    });
}

/// As long as a `Sample`, and something else.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Impostor([u8; 256]);

impl Message for Impostor {
    const NAME: &'static str = "Impostor@1";
}

#[test]
fn another_schema_is_dropped_and_the_panel_names_both() {
    over_each_transport("schema", |arena| {
        let mut fields = arena.controller.fields("setpoint", arena.epoch, 1);
        fields.schema = schema_id::<Impostor>();
        let frame = arena.controller.signed(&fields, Impostor([1; 256]).as_bytes());
        arena.send(From::Home, &frame);
        // The right schema's name over a payload of another length.
        let fields = arena.controller.fields("setpoint", arena.epoch, 2);
        arena.send(From::Home, &arena.controller.signed(&fields, &[1; 255]));
        arena.expect(0, &[("deliver.drop.schema_mismatch@controller", 2)]);
        let snapshot = arena.robot.panel().snapshot().unwrap();
        let gauge = |name: &str| snapshot.gauge(name).map(i64::cast_unsigned);
        assert_eq!(gauge("foreign_schema/setpoint"), Some(schema_id::<Impostor>().get()));
        assert_eq!(gauge("schema/setpoint"), Some(schema_id::<Sample>().get()));
    });
}

// The handshake.

#[test]
fn a_hello_that_nobody_asked_for_changes_nothing() {
    let mut arena = Arena::udp("unasked", Rules::default());
    // A Challenge that the robot never sent: the answer is signed all right.
    let robot = Forger::new(ROBOT, CLUSTER);
    for epoch in [EPOCH, EPOCH + 1, u64::MAX] {
        let challenge = robot.challenge(arena.controller.key(), [9; 16], 1, clock::now());
        let hello = arena.controller.hello(&challenge, epoch, [8; 16], &["setpoint"]).unwrap();
        arena.send(From::Home, &hello);
    }
    arena.expect(0, &[("handshake.drop.hello_unasked@controller", 3)]);
    arena.sample(1);
    arena.expect(1, &[]);
    arena.robot.stop().unwrap();
}

#[test]
fn a_hello_is_refused_when_forged_of_an_ended_life_or_of_a_cloned_key() {
    let mut arena = Arena::udp("refused-hellos", Rules::default());
    let challenge = until("the robot asks again", || {
        arena.receive(From::Home).filter(|frame| kind_of(frame) == Seen::Challenge)
    });
    let hello = |epoch, life| arena.controller.hello(&challenge, epoch, life, &["setpoint"]);
    let mut forged = hello(EPOCH + 1, [8; 16]).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let ended = hello(EPOCH - 1, LIFE).unwrap();
    let cloned = hello(EPOCH, [8; 16]).unwrap();
    let none = hello(0, LIFE).unwrap();
    for frame in [&forged, &ended, &none, &cloned] {
        arena.send(From::Home, frame);
    }
    arena.expect(
        0,
        &[
            ("handshake.drop.bad_signature@controller", 1),
            ("handshake.drop.old_epoch@controller", 2),
            ("handshake.drop.life_conflict@controller", 1),
        ],
    );
    arena.sample(1);
    arena.expect(1, &[]);
    arena.robot.stop().unwrap();
}

#[test]
fn a_challenge_is_answered_once_and_only_if_it_is_ours_and_genuine() {
    let mut arena = Arena::udp("challenges", Rules::default());
    let robot = identity(ROBOT).public().id();
    let now = clock::now();
    let fresh = arena.controller.challenge(robot, [1; 16], EPOCH, now);
    let older = arena.controller.challenge(robot, [2; 16], EPOCH, now - Nanos::new(1));
    let ended = arena.controller.challenge(robot, [3; 16], EPOCH - 1, now + Nanos::new(1));
    let for_other = arena.controller.challenge(KeyId::from_raw(5), [4; 16], EPOCH, now);
    let mut forged = arena.controller.challenge(robot, [5; 16], EPOCH, now + Nanos::new(2));
    forged[439] ^= 1;
    let elsewhere = Forger::new(99, CLUSTER).challenge(robot, [6; 16], EPOCH, now);
    for frame in [&fresh, &fresh, &older, &ended, &for_other, &forged, &elsewhere] {
        arena.send(From::Home, frame);
    }
    arena.expect(
        0,
        &[
            ("handshake.frames", 1),
            ("handshake.drop.challenge_stale@controller", 2),
            ("handshake.drop.old_epoch@controller", 1),
            ("handshake.drop.not_for_us@controller", 1),
            ("handshake.drop.bad_signature@controller", 1),
            ("receive.drop.unknown_key@stranger", 1),
        ],
    );
    let hellos = std::iter::from_fn(|| arena.receive(From::Home))
        .filter(|frame| kind_of(frame) == Seen::Hello)
        .count();
    assert_eq!(hellos, 1);
    arena.robot.stop().unwrap();
}

#[test]
fn a_new_life_of_the_sender_is_accepted_after_its_hello_and_ends_the_old_one() {
    let mut arena = Arena::udp("new-life", Rules::default());
    for number in 1..=10 {
        arena.sample(number);
    }
    arena.expect(10, &[]);
    arena.greet(EPOCH + 1, [8; 16]);
    arena.expect(0, &[("handshake.frames", 1)]);
    // Numbers start again, and what the old life had signed is worth nothing now.
    for number in 1..=20 {
        arena.sample(number);
        let old = arena.controller.sample("setpoint", EPOCH, 100 + number);
        arena.send(From::Home, &old);
    }
    arena.expect(20, &[("verify.drop.old_epoch@controller", 20)]);
    arena.robot.stop().unwrap();
}

#[test]
fn nobody_gets_more_bytes_out_than_went_in() {
    let mut arena = Arena::udp("amplification", Rules::default());
    let robot = identity(ROBOT).public().id();
    let mut sent = 0;
    let now = clock::now();
    for n in 1..=50 {
        let challenge =
            arena.controller.challenge(robot, [n; 16], EPOCH, now + Nanos::new(n.into()));
        let sample = arena.controller.sample("setpoint", EPOCH, n.into());
        let stranger = Forger::new(99, CLUSTER);
        let unknown = stranger.challenge(robot, [n; 16], EPOCH, now);
        for frame in [&challenge, &sample, &unknown, &vec![n; 400], &vec![]] {
            arena.send(From::Elsewhere, frame);
            sent += frame.len();
        }
    }
    arena.settle();
    // Hellos go where the peer is known to be, never to whoever asked in its name.
    assert_eq!(arena.receive(From::Elsewhere), None);
    let hellos: Vec<_> = std::iter::from_fn(|| arena.receive(From::Home))
        .filter(|frame| kind_of(frame) == Seen::Hello)
        .collect();
    assert!(!hellos.is_empty(), "genuine challenges draw answers");
    let out: usize = hellos.iter().map(Vec::len).sum();
    assert!(out <= sent, "{out} bytes drawn by {sent}");
    let counts = arena.counts();
    let limited = counts["handshake.drop.challenge_limited@stranger"];
    assert_eq!(hellos.len() as u64 + limited, 50, "each was answered or refused by the rate");
    arena.robot.stop().unwrap();
}

// Too much.

#[test]
fn strangers_together_get_no_more_than_their_share_and_the_peer_loses_nothing() {
    let limits = sinew::io::security::AdmissionLimits {
        strangers_per_s: 0,
        strangers_burst: 16,
        ..UNLIMITED
    };
    let rules = || Rules { limits, ..Rules::default() };
    for mut arena in [Arena::udp("share-udp", rules()), Arena::memory("share-memory", rules())] {
        // In the memory arena one byte from a stranger came before; it cost no share.
        for number in 1..=100 {
            let mut forged = arena.controller.sample("setpoint", arena.epoch, 1_000 + number);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            arena.send(From::Elsewhere, &forged);
            arena.sample(number);
        }
        arena.expect(
            100,
            &[
                ("verify.drop.bad_signature@stranger", 16),
                ("receive.drop.rate_limited@stranger", 84),
            ],
        );
        arena.robot.stop().unwrap();
    }
}

#[test]
fn a_peer_beyond_its_rate_is_limited_under_its_own_name() {
    let limits =
        sinew::io::security::AdmissionLimits { peer_per_s: 0, peer_burst: 20, ..UNLIMITED };
    let mut arena = Arena::memory("rate", Rules { limits, ..Rules::default() });
    let already = arena.counts()["handshake.frames"]
        + arena.counts().get("handshake.drop.hello_unasked@controller").copied().unwrap_or(0);
    for number in 1..=50 {
        arena.sample(number);
    }
    let passed = 20 - already;
    arena.expect(passed, &[("receive.drop.rate_limited@controller", 50 - passed)]);
    arena.robot.stop().unwrap();
}
