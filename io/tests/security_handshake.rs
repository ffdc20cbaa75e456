//! The handshake, run between nodes in virtual time.

use std::sync::Arc;

use sinew_io::delivery::{DropReason, StreamTable};
use sinew_io::security::hello::{ANSWERS_BURST, RETRY_FIRST, RETRY_LAST};
use sinew_io::security::{
    Enrolment, Handshake, Identity, Outcome, OwnLife, Peer, PeerIndex, PeerLife, Publishes,
    Received,
};
use sinew_io::wire::hello::{
    HANDSHAKE_FRAME_LEN, HandshakeBytes, HandshakeMessage, HelloFields, encode_challenge,
    encode_hello,
};
use sinew_io::wire::{
    BootId, Challenge, ClusterName, Domain, Epoch, Frame, Hello, LifeId, Nonce, Sequence,
    SigningContext, StreamStart, TopicId, decode,
};
use sinew_rt::clock::Nanos;
use zeroize::Zeroizing;

const PEER: PeerIndex = PeerIndex::new(0);

fn ms(n: i64) -> Nanos {
    Nanos::from_millis(n)
}

fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_secret(&Zeroizing::new([seed; 32])).unwrap())
}

fn cluster() -> ClusterName {
    ClusterName::new("plant").unwrap()
}

fn streams(next: u64) -> [StreamStart; 1] {
    [StreamStart { topic: TopicId::of("arm/state"), next: Sequence::new(next) }]
}

/// One node with one peer, whose clock is ahead of the test's by `ahead`.
struct Node {
    handshake: Handshake,
    ahead: Nanos,
    next: u64,
    seed: u64,
}

impl Node {
    fn new(seed: u8, peer: u8, epoch: u64, life: u8, at: Nanos) -> Self {
        Self::with_clock(seed, peer, epoch, life, at, Nanos::ZERO)
    }

    fn with_clock(seed: u8, peer: u8, epoch: u64, life: u8, at: Nanos, ahead: Nanos) -> Self {
        let key = *identity(peer).public();
        let peer = Peer { name: "peer".into(), key, publishes: Publishes::Anything };
        let enrolment = Arc::new(Enrolment::new(vec![peer]).unwrap());
        let boot = BootId([if ahead == Nanos::ZERO { 1 } else { seed }; 16]);
        let own = OwnLife { epoch: Epoch::new(epoch), life: LifeId([life; 16]), boot };
        let identity = identity(seed);
        let handshake = Handshake::new(identity, enrolment, &cluster(), own, at + ahead);
        Self { handshake, ahead, next: 1, seed: u64::from(seed) << 32 | u64::from(life) << 16 }
    }

    fn challenge(&mut self, at: Nanos) -> Option<HandshakeBytes> {
        let seed = &mut self.seed;
        let mut random = |room: &mut [u8]| {
            for byte in room {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (*seed >> 56) as u8;
            }
        };
        let sent = self.handshake.poll(at + self.ahead, &mut random)?;
        assert_eq!(sent.0, PEER);
        Some(sent.1)
    }

    fn handle(&mut self, at: Nanos, bytes: &[u8]) -> Result<Outcome, DropReason> {
        let at = at + self.ahead;
        self.handshake.handle(at, Received { bytes, at }, &streams(self.next))
    }

    #[track_caller]
    fn answer(&mut self, at: Nanos, bytes: &[u8]) -> HandshakeBytes {
        match self.handle(at, bytes) {
            Ok(Outcome::Reply { peer: PEER, frame }) => frame,
            other => panic!("no answer: {other:?}"),
        }
    }

    #[track_caller]
    fn accept(&mut self, at: Nanos, bytes: &[u8]) -> PeerLife {
        match self.handle(at, bytes) {
            Ok(Outcome::Life(life)) => life,
            other => panic!("no life: {other:?}"),
        }
    }

    #[track_caller]
    fn refuses(&mut self, at: Nanos, bytes: &[u8], why: DropReason) {
        match self.handle(at, bytes) {
            Err(reason) => assert_eq!(reason, why),
            Ok(outcome) => panic!("accepted: {outcome:?}"),
        }
    }

    fn epoch(&self) -> Epoch {
        self.handshake.status(PEER).unwrap().epoch
    }
}

/// Robot (key 1) and controller (key 2), both in their first life.
fn pair() -> (Node, Node) {
    (Node::new(1, 2, 1, 0x11, ms(0)), Node::new(2, 1, 1, 0x22, ms(0)))
}

/// `asker` learns the life of `other`, at one instant.
#[track_caller]
fn meet(asker: &mut Node, other: &mut Node, at: Nanos) -> PeerLife {
    let challenge = asker.challenge(at).expect("no challenge is due");
    let hello = other.answer(at, &challenge);
    asker.accept(at, &hello)
}

#[test]
fn one_exchange_establishes_the_life_its_streams_and_its_clock() {
    let ahead = Nanos::from_secs(1_000);
    let mut robot = Node::new(1, 2, 4, 0x11, ms(0));
    let mut controller = Node::with_clock(2, 1, 9, 0x22, ms(0), ahead);
    controller.next = 55;
    let challenge = robot.challenge(ms(0)).unwrap();
    let hello = controller.answer(ms(3), &challenge);
    let life = robot.accept(ms(4), &hello);
    assert_eq!((life.peer, life.epoch, life.life), (PEER, Epoch::new(9), LifeId([0x22; 16])));
    assert!(life.is_new && !life.same_boot);
    assert_eq!(life.streams.as_slice(), streams(55));
    // 3 ms there and 1 ms back look like 2 and 2: 1 ms off, within half the round trip.
    assert_eq!(life.clock.round_trip, ms(4));
    assert_eq!(life.clock.offset, ahead + ms(1));
    assert!(life.clock.error_bound(ms(4)) >= ms(2));
    assert!(life.clock.error_bound(ms(4)) < ms(2) + Nanos::from_micros(1));
    let status = robot.handshake.status(PEER).unwrap();
    assert_eq!((status.epoch, status.heard_at), (Epoch::new(9), Some(ms(4))));
}

#[test]
fn nodes_on_one_kernel_see_that_they_share_a_clock() {
    let (mut robot, mut controller) = pair();
    assert!(meet(&mut robot, &mut controller, ms(0)).same_boot);
}

#[test]
fn unanswered_challenges_double_their_interval_up_to_a_second() {
    let (mut robot, _) = pair();
    let mut gaps = Vec::new();
    let mut last = robot.handshake.next_deadline().unwrap();
    for _ in 0..8 {
        let due = robot.handshake.next_deadline().unwrap();
        assert!(robot.challenge(due - Nanos::new(1)).is_none(), "early");
        assert!(robot.challenge(due).is_some());
        assert!(robot.challenge(due).is_none(), "twice");
        gaps.push((due - last).as_nanos() / 1_000_000);
        last = due;
    }
    assert_eq!(gaps, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
}

#[test]
fn an_answered_peer_is_asked_once_a_second_with_a_new_nonce() {
    let (mut robot, mut controller) = pair();
    let mut nonces = Vec::new();
    for round in 0..5 {
        let at = ms(round * 1_000);
        let challenge = robot.challenge(at).expect("not due");
        let Ok(Frame::Handshake(frame)) = decode(&challenge) else { panic!() };
        let HandshakeMessage::Challenge(asked) = frame.message else { panic!() };
        nonces.push(asked.nonce().0);
        let hello = controller.answer(at, &challenge);
        assert_eq!(robot.accept(at, &hello).is_new, round == 0);
        assert_eq!(robot.handshake.next_deadline(), Some(at + RETRY_LAST));
    }
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 5);
}

#[test]
fn a_hello_counts_once_and_only_for_the_nonce_that_is_outstanding() {
    let (mut robot, mut controller) = pair();
    let first = robot.challenge(ms(0)).unwrap();
    let late = controller.answer(ms(1), &first);
    let second = robot.challenge(ms(50)).unwrap();
    let hello = controller.answer(ms(51), &second);
    robot.refuses(ms(52), &late, DropReason::HelloUnasked);
    assert_eq!(robot.epoch(), Epoch::NONE);
    robot.accept(ms(52), &hello);
    robot.refuses(ms(53), &hello, DropReason::HelloUnasked);
}

#[test]
fn yesterdays_recording_starts_no_stream_after_the_receiver_restarted() {
    let (mut robot, mut controller) = pair();
    let challenge = robot.challenge(ms(0)).unwrap();
    let recorded = controller.answer(ms(0), &challenge);
    let mut table = StreamTable::new(1, &[TopicId::of("arm/state")]).unwrap();
    table.hello(&robot.accept(ms(0), &recorded));
    assert_eq!(table.epoch(PEER), Epoch::new(1));

    let mut restarted = Node::new(1, 2, 2, 0x12, ms(100));
    restarted.refuses(ms(100), &recorded, DropReason::HelloUnasked);
    restarted.challenge(ms(100)).unwrap();
    restarted.refuses(ms(101), &recorded, DropReason::HelloUnasked);
    // Its own recorded challenge comes back: not from a peer, and not for us.
    restarted.refuses(ms(101), &challenge, DropReason::UnknownKey);
    assert_eq!(restarted.epoch(), Epoch::NONE);
}

#[test]
fn a_restarted_peer_is_noticed_by_its_own_challenge_and_asked_at_once() {
    let (mut robot, mut controller) = pair();
    meet(&mut robot, &mut controller, ms(0));
    let mut restarted = Node::new(2, 1, 2, 0x23, ms(300));
    assert!(robot.challenge(ms(300)).is_none(), "the next challenge is due after a second");
    let asked = restarted.challenge(ms(300)).unwrap();
    robot.answer(ms(300), &asked);
    assert_eq!(robot.handshake.next_deadline(), Some(ms(300)));
    let life = meet(&mut robot, &mut restarted, ms(300));
    assert!(life.is_new);
    assert_eq!((life.epoch, life.life), (Epoch::new(2), LifeId([0x23; 16])));
    assert_eq!(life.streams.as_slice(), streams(1));
}

#[test]
fn being_asked_never_makes_a_node_ask_more_often_than_the_first_interval() {
    let (mut robot, _) = pair();
    let context = SigningContext::new(Domain::Challenge, &cluster());
    let (peer, own) = (identity(2), identity(1));
    let mut sent = 0;
    for step in 0..1_000 {
        let at = ms(step);
        let (from, to) = (peer.public().id(), own.public().id());
        let nonce = Nonce([step as u8; 16]);
        let challenge = Challenge::new(from, to, nonce, Epoch::new(step as u64 + 1), at);
        let sign = |body: &[u8]| peer.sign(&[context.as_bytes(), body]);
        let _ = robot.handle(at, &encode_challenge(cluster().tag(), &challenge, sign));
        sent += i64::from(robot.challenge(at).is_some());
    }
    assert!(sent <= ms(1_000).as_nanos() / RETRY_FIRST.as_nanos(), "{sent} in a second");
}

#[test]
fn an_older_life_and_a_second_life_of_one_epoch_are_refused() {
    let (mut robot, _) = pair();
    let mut current = Node::new(2, 1, 5, 0x22, ms(0));
    meet(&mut robot, &mut current, ms(0));

    let mut older = Node::new(2, 1, 4, 0x21, ms(0));
    let challenge = robot.challenge(ms(1_000)).unwrap();
    let hello = older.answer(ms(1_000), &challenge);
    robot.refuses(ms(1_000), &hello, DropReason::OldEpoch);
    let asked = older.challenge(ms(1_000)).unwrap();
    robot.refuses(ms(1_000), &asked, DropReason::OldEpoch);

    let mut clone = Node::new(2, 1, 5, 0x99, ms(0));
    let hello = clone.answer(ms(1_000), &challenge);
    robot.refuses(ms(1_000), &hello, DropReason::LifeConflict);
    assert_eq!(robot.epoch(), Epoch::new(5));

    let hello = current.answer(ms(1_001), &robot.challenge(ms(2_000)).unwrap());
    assert!(!robot.accept(ms(2_001), &hello).is_new, "the rightful life is locked out");
}

#[test]
fn a_life_without_an_epoch_is_none() {
    let (mut robot, _) = pair();
    let mut nobody = Node::new(2, 1, 0, 0x22, ms(0));
    let hello = nobody.answer(ms(0), &robot.challenge(ms(0)).unwrap());
    robot.refuses(ms(0), &hello, DropReason::OldEpoch);
}

#[test]
fn a_recorded_challenge_draws_one_answer_and_no_more() {
    let (mut robot, mut controller) = pair();
    let first = robot.challenge(ms(0)).unwrap();
    controller.answer(ms(0), &first);
    controller.refuses(ms(1), &first, DropReason::ChallengeStale);
    let second = robot.challenge(ms(50)).unwrap();
    let third = robot.challenge(ms(150)).unwrap();
    controller.answer(ms(150), &third);
    controller.refuses(ms(151), &second, DropReason::ChallengeStale);
}

#[test]
fn a_peer_that_asks_too_often_is_answered_at_a_bounded_rate() {
    let (mut robot, _) = pair();
    let context = SigningContext::new(Domain::Challenge, &cluster());
    let (peer, own) = (identity(2), identity(1));
    let ask = |n: i64| {
        let (from, to) = (peer.public().id(), own.public().id());
        let challenge = Challenge::new(from, to, Nonce([0; 16]), Epoch::new(1), Nanos::new(n));
        encode_challenge(cluster().tag(), &challenge, |body| peer.sign(&[context.as_bytes(), body]))
    };
    let mut limited = 0;
    for n in 0..50 {
        match robot.handle(ms(0), &ask(n)) {
            Ok(Outcome::Reply { frame, .. }) => assert_eq!(frame.len(), HANDSHAKE_FRAME_LEN),
            Err(DropReason::ChallengeLimited) => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(limited, 50 - ANSWERS_BURST);
    assert!(robot.handle(ms(50), &ask(50)).is_ok(), "and it recovers");
}

#[test]
fn nothing_forged_misdirected_or_foreign_is_answered_or_believed() {
    let (mut robot, mut controller) = pair();
    let challenge = robot.challenge(ms(0)).unwrap();
    let hello = controller.answer(ms(0), &challenge);

    for frame in [&challenge, &hello] {
        let (node, at) = if frame == &challenge {
            (&mut Node::new(2, 1, 1, 0x22, ms(0)), ms(1))
        } else {
            (&mut robot, ms(1))
        };
        // The last byte of the signature; and a byte that is signed.
        for place in [HANDSHAKE_FRAME_LEN - 1, 16 + 40] {
            let mut forged = *frame;
            forged[place] ^= 1;
            node.refuses(at, &forged, DropReason::BadSignature);
        }
        let mut other = *frame;
        other[4] ^= 1;
        node.refuses(at, &other, DropReason::OtherCluster);
        let mut cut = frame.to_vec();
        cut.pop();
        node.refuses(at, &cut, DropReason::Malformed);
    }

    // A node of another key: neither known to us nor addressed by what is meant for others.
    let mut third = Node::new(3, 1, 1, 0x33, ms(0));
    robot.refuses(ms(1), &third.challenge(ms(1)).unwrap(), DropReason::UnknownKey);
    third.refuses(ms(1), &challenge, DropReason::NotForUs);

    // The same key in another cluster of the same tag would still sign another context.
    let own = SigningContext::new(Domain::Challenge, &ClusterName::new("plant2").unwrap());
    let (from, to) = (identity(2), identity(1));
    let foreign =
        Challenge::new(from.public().id(), to.public().id(), Nonce([1; 16]), Epoch::new(1), ms(1));
    let sign = |body: &[u8]| from.sign(&[own.as_bytes(), body]);
    let frame = encode_challenge(cluster().tag(), &foreign, sign);
    robot.refuses(ms(1), &frame, DropReason::BadSignature);

    // Whatever was refused above, the true answer still counts.
    robot.accept(ms(2), &hello);
}

#[test]
fn a_challenge_cannot_be_passed_off_as_a_hello() {
    let (mut robot, _) = pair();
    let challenge = robot.challenge(ms(0)).unwrap();
    let Ok(Frame::Handshake(frame)) = decode(&challenge) else { panic!() };
    let HandshakeMessage::Challenge(asked) = frame.message else { panic!() };
    let fields = HelloFields {
        from: identity(2).public().id(),
        epoch: Epoch::new(1),
        life: LifeId([1; 16]),
        boot: BootId([1; 16]),
        received_at: ms(0),
        sent_at: ms(0),
        streams: &[],
    };
    let hello = Hello::answer(asked, &fields);
    let context = SigningContext::new(Domain::Challenge, &cluster());
    let sign = |body: &[u8]| identity(2).sign(&[context.as_bytes(), body]);
    let frame = encode_hello(cluster().tag(), &hello, sign);
    robot.refuses(ms(0), &frame, DropReason::BadSignature);
}

#[test]
fn clock_samples_that_contradict_each_other_are_refused() {
    let (mut robot, _) = pair();
    let challenge = robot.challenge(ms(0)).unwrap();
    let Ok(Frame::Handshake(frame)) = decode(&challenge) else { panic!() };
    let HandshakeMessage::Challenge(asked) = frame.message else { panic!() };
    let context = SigningContext::new(Domain::Hello, &cluster());
    let hello = |received_at, sent_at| {
        let fields = HelloFields {
            from: identity(2).public().id(),
            epoch: Epoch::new(1),
            life: LifeId([1; 16]),
            boot: BootId([1; 16]),
            received_at,
            sent_at,
            streams: &[],
        };
        let sign = |body: &[u8]| identity(2).sign(&[context.as_bytes(), body]);
        encode_hello(cluster().tag(), &Hello::answer(asked, &fields), sign)
    };
    for (received_at, sent_at) in
        [(ms(5), ms(4)), (ms(0), ms(11)), (Nanos::MIN, Nanos::MAX), (Nanos::MAX, Nanos::MIN)]
    {
        robot.refuses(ms(10), &hello(received_at, sent_at), DropReason::BadTimestamps);
    }
    robot.accept(ms(10), &hello(Nanos::MAX, Nanos::MAX));
}

#[test]
fn the_streams_of_a_hello_open_the_table_and_only_those() {
    let (mut robot, mut controller) = pair();
    let (known, other) = (TopicId::of("arm/state"), TopicId::of("arm/other"));
    let mut table = StreamTable::new(1, &[known, other]).unwrap();
    controller.next = 10;
    table.hello(&meet(&mut robot, &mut controller, ms(0)));
    let epoch = Epoch::new(1);
    let peek = |table: &StreamTable, topic, epoch, n| {
        table.peek(PEER, topic, epoch, Sequence::new(n)).map(drop)
    };
    assert_eq!(peek(&table, known, epoch, 10), Ok(()));
    assert_eq!(peek(&table, known, epoch, 9), Err(DropReason::BelowWindow));
    assert_eq!(peek(&table, other, epoch, 1), Err(DropReason::NoLife));

    let mut restarted = Node::new(2, 1, 2, 0x23, ms(1_000));
    table.hello(&meet(&mut robot, &mut restarted, ms(1_000)));
    assert_eq!(peek(&table, known, epoch, 11), Err(DropReason::OldEpoch));
    assert_eq!(peek(&table, known, Epoch::new(2), 1), Ok(()));
}

#[test]
fn every_peer_is_challenged_and_one_that_is_silent_holds_up_no_other() {
    let peers = (2..=4).map(|seed| Peer {
        name: format!("peer{seed}"),
        key: *identity(seed).public(),
        publishes: Publishes::Anything,
    });
    let enrolment = Arc::new(Enrolment::new(peers.collect()).unwrap());
    let own = OwnLife { epoch: Epoch::new(1), life: LifeId([1; 16]), boot: BootId([1; 16]) };
    let mut hub = Handshake::new(identity(1), enrolment, &cluster(), own, ms(0));
    let mut counter = 0;
    let mut random = |room: &mut [u8]| {
        counter += 1;
        room.fill(counter);
    };
    let mut answers = 0;
    while let Some((peer, frame)) = hub.poll(ms(0), &mut random) {
        if peer.get() == 1 {
            continue;
        }
        let mut node = Node::new(peer.get() as u8 + 2, 1, 1, 0x40, ms(0));
        let bytes = node.answer(ms(0), &frame);
        let received = Received { bytes: &bytes, at: ms(0) };
        let Ok(Outcome::Life(life)) = hub.handle(ms(0), received, &[]) else { panic!() };
        assert_eq!(life.peer, peer);
        answers += 1;
    }
    assert_eq!(answers, 2);
    assert_eq!(hub.next_deadline(), Some(RETRY_FIRST), "the silent one is asked again first");
    assert_eq!(hub.poll(RETRY_FIRST, &mut random).unwrap().0.get(), 1);
}

#[test]
fn a_node_without_peers_has_nothing_to_do() {
    let own = OwnLife { epoch: Epoch::new(1), life: LifeId([1; 16]), boot: BootId([1; 16]) };
    let nobody = Arc::new(Enrolment::default());
    let mut handshake = Handshake::new(identity(1), nobody, &cluster(), own, ms(0));
    assert_eq!(handshake.next_deadline(), None);
    assert!(handshake.poll(ms(5_000), &mut |_| panic!("drew randomness")).is_none());
    assert!(handshake.status(PEER).is_none());
}

#[test]
fn two_nodes_meet_however_long_a_frame_is_on_its_way() {
    for way_ms in [1, 20, 40, 80, 150, 400] {
        let mut nodes = [Node::new(1, 2, 7, 1, Nanos::ZERO), Node::new(2, 1, 9, 2, Nanos::ZERO)];
        let mut on_their_way: Vec<(Nanos, usize, HandshakeBytes)> = Vec::new();
        let mut met = [false; 2];
        for at in (0..10_000).map(ms) {
            for (n, node) in nodes.iter_mut().enumerate() {
                while let Some(challenge) = node.challenge(at) {
                    on_their_way.push((at + ms(way_ms), 1 - n, challenge));
                }
            }
            while let Some(due) = on_their_way.iter().position(|(due, ..)| *due <= at) {
                let (_, to, frame) = on_their_way.remove(due);
                match nodes[to].handle(at, &frame) {
                    Ok(Outcome::Reply { frame, .. }) => {
                        on_their_way.push((at + ms(way_ms), 1 - to, frame));
                    }
                    Ok(Outcome::Life(_)) => met[to] = true,
                    Err(_) => {}
                }
            }
        }
        assert_eq!(met, [true; 2], "frames take {way_ms} ms");
    }
}
