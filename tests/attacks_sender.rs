//! What a running node does with senders that may not do what they do: who is unknown, says what it
//! has no right to say, claims another life, or says too much. Each frame is counted once, under its
//! reason and its source.
//!
//! The node is real, with its lanes, rings and panel. The controller is played by hand, with the real
//! key, so that each test decides every bit of what the node receives. After each attack the test
//! compares *all* counters of the panel, so that a frame counted twice or elsewhere fails it.

mod support;

use sinew::io::message::{Message, schema_id};
use sinew::io::wire::{Class, KeyId};
use sinew::rt::clock::{self, Nanos};
use support::arena::{
    Arena, CLUSTER, EPOCH, From, LIFE, ROBOT, Rules, UNLIMITED, over_each_transport,
};
use support::forge::{Forger, Seen, identity, kind_of};
use support::{Sample, until};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
fn a_delivery_class_that_is_not_the_topic_s_is_dropped() {
    over_each_transport("class", |arena| {
        let sample = Sample::new(1);
        let classes = [Class::Command, Class::Stream, Class::Durable, Class::EStop];
        for (sequence, class) in (1..).zip(classes) {
            let mut fields = arena.controller.fields("setpoint", arena.epoch, sequence);
            fields.class = class;
            arena.send(From::Home, &arena.controller.signed(&fields, sample.as_bytes()));
        }
        let dropped = [
            ("verify.drop.class_mismatch@controller", 3),
            ("verify.drop.class_not_served@controller", 1),
        ];
        arena.expect(0, &dropped);
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
