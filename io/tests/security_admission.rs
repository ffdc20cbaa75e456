//! Token buckets, admission by pair, and the enrolment table.

use proptest::prelude::*;
use sinew_io::security::bucket::{PAIRS_MAX, PAIRS_PER_KEY};
use sinew_io::security::enrolment::{PEERS_MAX, TOPICS_MAX};
use sinew_io::security::{
    Admission, AdmissionLimits, Enrolment, EnrolmentError, Identity, Peer, PeerIndex, Publishes,
    TokenBucket,
};
use sinew_io::wire::{KeyId, TopicId};
use sinew_rt::clock::Nanos;
use zeroize::Zeroizing;

const LIMITS: AdmissionLimits =
    AdmissionLimits { pair_per_s: 10, pair_burst: 5, strangers_per_s: 10, strangers_burst: 3 };

fn key(n: u64) -> KeyId {
    KeyId::from_raw(n)
}

fn ms(n: i64) -> Nanos {
    Nanos::from_millis(n)
}

/// How many checks in a row a pair gets at one instant.
fn drain(admission: &mut Admission, source: u64, key: KeyId, now: Nanos) -> usize {
    (0..1_000).take_while(|_| admission.admit(source, key, now)).count()
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

    #[test]
    fn the_table_keeps_its_bounds_whatever_happens(
        events in proptest::collection::vec((0u8..3, 0u64..100, 0u64..8, 0i64..50), 1..400),
    ) {
        let mut admission = Admission::new(LIMITS, Nanos::ZERO);
        let (mut now, mut reserved) = (0, std::collections::BTreeSet::new());
        for (event, source, owner, step) in events {
            now += step;
            match event {
                0 => { let _ = admission.admit(source, key(owner), ms(now)); }
                1 => admission.authenticated(source, key(owner), ms(now)),
                _ => {
                    if admission.reserve(source, key(owner), ms(now)) {
                        reserved.insert((source, owner));
                    }
                }
            }
            prop_assert!(reserved.len() <= PAIRS_MAX);
        }
        // After a rest every reserved pair has its whole burst, the strangers' bucket being empty.
        let later = ms(now + 10_000);
        while admission.admit(9_999, key(9_999), later) {}
        for (source, owner) in reserved {
            prop_assert_eq!(drain(&mut admission, source, key(owner), later), 5);
        }
    }
}

#[test]
fn a_flood_that_claims_a_known_key_from_elsewhere_takes_nothing_from_its_owner() {
    let (mut admission, now) = (Admission::new(LIMITS, Nanos::ZERO), ms(1));
    admission.authenticated(1, key(7), now);
    assert_eq!(drain(&mut admission, 666, key(7), now), 3, "strangers share one small bucket");
    assert_eq!(drain(&mut admission, 667, key(7), now), 0, "also from another address");
    assert_eq!(drain(&mut admission, 1, key(8), now), 0, "also the owner's address, another key");
    assert_eq!(drain(&mut admission, 1, key(7), now), 5, "the pair's own share is untouched");
    assert_eq!(drain(&mut admission, 1, key(7), now), 0, "and bounded");
}

#[test]
fn a_reserved_pair_has_its_share_before_it_ever_authenticated() {
    let (mut admission, now) = (Admission::new(LIMITS, Nanos::ZERO), ms(1));
    assert!(admission.reserve(1, key(7), now));
    while admission.admit(666, key(7), now) {}
    assert_eq!(drain(&mut admission, 1, key(7), now), 5);
}

#[test]
fn authenticating_again_does_not_refill_a_share() {
    let (mut admission, now) = (Admission::new(LIMITS, Nanos::ZERO), ms(1));
    admission.authenticated(1, key(7), now);
    assert_eq!(drain(&mut admission, 1, key(7), now), 5);
    admission.authenticated(1, key(7), now);
    assert!(admission.reserve(1, key(7), now));
    assert!(!admission.admit(1, key(7), now));
}

#[test]
fn the_pair_that_authenticated_longest_ago_gives_way_and_reserved_ones_never() {
    let mut admission = Admission::new(LIMITS, Nanos::ZERO);
    assert!(admission.reserve(1_000, key(1_000), ms(0)));
    for n in 1..PAIRS_MAX as u64 {
        admission.authenticated(n, key(n), ms(n as i64));
    }
    admission.authenticated(1, key(1), ms(100));
    admission.authenticated(500, key(500), ms(101));
    let now = ms(102);
    while admission.admit(9_999, key(9_999), now) {}
    let has_share = |admission: &mut Admission, n| drain(admission, n, key(n), now) == 5;
    assert!(!has_share(&mut admission, 2), "the oldest stayed");
    for n in [1, 3, 63, 500, 1_000] {
        assert!(has_share(&mut admission, n), "{n} was evicted");
    }
}

#[test]
fn a_peer_that_moves_about_evicts_its_own_pairs_only() {
    let mut admission = Admission::new(LIMITS, Nanos::ZERO);
    admission.authenticated(1, key(1), ms(0));
    for source in 100..1_000 {
        admission.authenticated(source, key(2), ms(source as i64));
    }
    let now = ms(2_000);
    while admission.admit(9_999, key(9_999), now) {}
    assert_eq!(drain(&mut admission, 1, key(1), now), 5);
    let kept = (100..1_000).filter(|source| admission.admit(*source, key(2), now)).count();
    assert_eq!(kept, PAIRS_PER_KEY);
}

#[test]
fn a_table_full_of_reserved_pairs_takes_no_more() {
    let mut admission = Admission::new(LIMITS, Nanos::ZERO);
    for n in 0..PAIRS_MAX as u64 {
        assert!(admission.reserve(n, key(n), ms(0)));
    }
    assert!(!admission.reserve(500, key(500), ms(0)));
    admission.authenticated(500, key(500), ms(0));
    assert_eq!(drain(&mut admission, 500, key(500), ms(0)), 3, "only the strangers' share is left");
}

fn peer(name: &str, seed: u8, publishes: Publishes) -> Peer {
    let identity = Identity::from_secret(&Zeroizing::new([seed; 32])).unwrap();
    Peer { name: name.into(), key: *identity.public(), publishes }
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
