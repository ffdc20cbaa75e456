//! Token buckets, admission by peer, and the enrolment table.

use proptest::prelude::*;
use sinew_io::security::enrolment::{PEERS_MAX, TOPICS_MAX};
use sinew_io::security::{
    Admission, AdmissionLimits, Enrolment, EnrolmentError, Identity, Peer, PeerIndex, Publishes,
    TokenBucket,
};
use sinew_io::wire::{KeyId, TopicId};
use sinew_rt::clock::Nanos;
use zeroize::Zeroizing;

const LIMITS: AdmissionLimits =
    AdmissionLimits { peer_per_s: 10, peer_burst: 5, strangers_per_s: 10, strangers_burst: 3 };

fn ms(n: i64) -> Nanos {
    Nanos::from_millis(n)
}

/// How many checks in a row a sender gets at one instant.
fn drain(admission: &mut Admission, at_home: Option<PeerIndex>, now: Nanos) -> usize {
    (0..1_000).take_while(|_| admission.admit(at_home, now)).count()
}

fn peer(name: &str, seed: u8, publishes: Publishes) -> Peer {
    let identity = Identity::from_secret(&Zeroizing::new([seed; 32])).unwrap();
    Peer { name: name.into(), key: *identity.public(), publishes }
}

#[test]
fn a_bucket_gives_its_burst_then_its_exact_rate() {
    let mut bucket = TokenBucket::new(3, 2, Nanos::ZERO);
    assert_eq!((0..10).filter(|_| bucket.take(Nanos::ZERO)).count(), 2);
    // A third of a second is no whole number of nanoseconds: the third token comes at the second.
    assert!(!bucket.take(Nanos::new(333_333_333)));
    assert!(bucket.take(Nanos::new(333_333_334)));
    assert!(!bucket.take(Nanos::new(666_666_666)));
    assert!(bucket.take(Nanos::new(666_666_667)));
    assert!(!bucket.take(Nanos::new(999_999_999)));
    assert!(bucket.take(Nanos::from_secs(1)));
}

#[test]
fn a_clock_that_goes_back_earns_nothing_the_second_time() {
    let mut bucket = TokenBucket::new(10, 1, Nanos::from_secs(1));
    assert!(bucket.take(Nanos::from_secs(1)));
    for _ in 0..3 {
        assert!(!bucket.take(Nanos::ZERO));
        assert!(!bucket.take(Nanos::from_secs(1)));
    }
    assert!(bucket.take(Nanos::from_millis(1_100)));
}

#[test]
fn a_bucket_never_drifts_over_a_day_of_odd_steps() {
    // Room for a second token, so that nothing is lost between two steps.
    let mut bucket = TokenBucket::new(7, 2, Nanos::ZERO);
    assert!(bucket.take(Nanos::ZERO) && bucket.take(Nanos::ZERO));
    let (mut now, mut taken) = (0i64, 0);
    while now < 86_400_000_000_000 {
        now += 9_999_991;
        taken += i64::from(bucket.take(Nanos::new(now)));
    }
    assert_eq!(taken, now * 7 / 1_000_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_of_time_ever_gets_more_than_burst_plus_rate(
        rate in 0u32..=u32::MAX, burst in 0u32..=u32::MAX, start in any::<i64>(),
        steps in proptest::collection::vec(prop_oneof![any::<i64>(), -1_000i64..2_000_000_000], 1..60),
    ) {
        let mut bucket = TokenBucket::new(rate, burst, Nanos::new(start));
        let (mut now, mut latest, mut taken) = (start, start, 0u128);
        for step in steps {
            now = now.saturating_add(step);
            latest = latest.max(now);
            taken += u128::from(bucket.take(Nanos::new(now)));
            let elapsed = (i128::from(latest) - i128::from(start)).unsigned_abs();
            let allowed = u128::from(burst) + elapsed * u128::from(rate) / 1_000_000_000;
            prop_assert!(taken <= allowed, "{taken} of {allowed}");
        }
    }

    #[test]
    fn a_bucket_agrees_with_rational_arithmetic(
        rate in 1u32..5_000, burst in 1u32..300,
        steps in proptest::collection::vec(0u64..400_000_000, 1..200),
    ) {
        let mut bucket = TokenBucket::new(rate, burst, Nanos::ZERO);
        let full = u128::from(burst) * 1_000_000_000;
        let (mut model, mut now) = (full, 0u64);
        for step in steps {
            now += step;
            model = full.min(model + u128::from(step) * u128::from(rate));
            let want = model >= 1_000_000_000;
            if want {
                model -= 1_000_000_000;
            }
            prop_assert_eq!(bucket.take(Nanos::new(i64::try_from(now).unwrap())), want);
        }
    }
}

#[test]
fn a_flood_that_claims_a_known_key_from_elsewhere_takes_nothing_from_its_owner() {
    let mut admission = Admission::new(LIMITS, 2, Nanos::ZERO);
    let peers = [0, 1].map(PeerIndex::new);
    assert_eq!(drain(&mut admission, None, Nanos::ZERO), 3);
    for peer in peers {
        assert_eq!(drain(&mut admission, Some(peer), Nanos::ZERO), 5, "its own burst");
    }
    assert_eq!(drain(&mut admission, None, ms(100)), 1, "ten a second");
    assert_eq!(drain(&mut admission, Some(peers[1]), ms(200)), 2);
}

#[test]
fn a_peer_that_is_not_in_the_table_is_a_stranger() {
    let mut admission = Admission::new(LIMITS, 1, Nanos::ZERO);
    assert_eq!(drain(&mut admission, Some(PeerIndex::new(1)), Nanos::ZERO), 3);
}

#[test]
fn every_enrolled_peer_is_found_by_its_key_id_and_nobody_else_is() {
    let names: Vec<_> = (0..PEERS_MAX as u8).map(|n| format!("peer{n}")).collect();
    let peers = (1..).zip(&names).map(|(seed, name)| peer(name, seed, Publishes::Anything));
    let enrolment = Enrolment::new(peers.collect()).unwrap();
    assert_eq!(enrolment.len(), PEERS_MAX);
    for (index, peer) in enrolment.iter() {
        let (found, same) = enrolment.find(peer.key.id()).unwrap();
        assert_eq!((found, &same.name), (index, &peer.name));
        assert_eq!(enrolment.get(index).unwrap().name, names[index.get()]);
        assert!(enrolment.find(KeyId::from_raw(peer.key.id().get() ^ 1)).is_none());
    }
    assert!(enrolment.find(KeyId::EVERYONE).is_none());
    assert!(enrolment.get(PeerIndex::new(PEERS_MAX as u16)).is_none());
}

#[test]
fn permission_to_publish_is_by_topic() {
    let (own, other) = (TopicId::of("arm/state"), TopicId::of("arm/setpoint"));
    let limited = peer("arm", 1, Publishes::Only(vec![own]));
    assert!(limited.may_publish(own) && !limited.may_publish(other));
    assert!(!peer("mute", 2, Publishes::Only(vec![])).may_publish(own));
    assert!(peer("free", 3, Publishes::Anything).may_publish(other));
}

#[test]
fn lists_that_contradict_themselves_are_refused_with_the_names() {
    let twice = vec![peer("a", 1, Publishes::Anything), peer("b", 1, Publishes::Anything)];
    let same = EnrolmentError::SameKey { first: "a".into(), second: "b".into() };
    assert_eq!(Enrolment::new(twice).unwrap_err(), same);
    let many = (0..=PEERS_MAX as u8).map(|seed| peer("x", seed, Publishes::Anything)).collect();
    assert_eq!(Enrolment::new(many).unwrap_err(), EnrolmentError::TooManyPeers { got: 65 });
    let topics = (0..=TOPICS_MAX as u64).map(TopicId::from_raw).collect();
    let wide = vec![peer("wide", 1, Publishes::Only(topics))];
    let error = EnrolmentError::TooManyTopics { peer: "wide".into(), got: 65 };
    assert_eq!(Enrolment::new(wide).unwrap_err(), error);
}
