//! What a running node does with frames out of their time or place: replayed, reflected, of another
//! life, too old, too far ahead. Nothing is delivered twice, and each frame is counted once, under its
//! reason and its source.
//!
//! The node is real, with its lanes, rings and panel. The controller is played by hand, with the real
//! key, so that each test decides every bit of what the node receives. After each attack the test
//! compares *all* counters of the panel, so that a frame counted twice or elsewhere fails it.

mod support;

use sinew::io::wire::TopicId;
use sinew::rt::clock::{self, Nanos};
use support::arena::{Arena, CLUSTER, CONTROLLER, From, ROBOT, Rules, over_each_transport};
use support::forge::{CLUSTER_AT, ENVELOPE_AT, Forger, SENDER_AT, TOPIC_AT, with};
use support::{Sample, counter, until};
use zerocopy::IntoBytes;

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
