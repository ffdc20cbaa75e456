//! What a poll of each stage may do: a bounded amount, of which at most one signature, whatever waits;
//! and what does not fit into the next ring is counted.

mod reliable;

use super::deliver::{self, DeliverStage, QueueSink, Queued, Route};
use super::receive::{self, Filter, ReceiveOutputs, ReceiveStage, Unverified};
use super::send::{Outgoing, Outlet, SendStage};
use super::verified::VerifiedFrame;
use super::verify::{self, Dedup, SenderClock, TopicRule, VerifyInputs, VerifyStage};
use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::StreamTable;
use crate::message::{Message, schema_id};
use crate::security::{
    Admission, AdmissionLimits, Enrolment, Identity, Peer, PeerClock, PeerIndex, Publishes, Trust,
};
use crate::transport::buffer::{FrameBuffer, FramePool};
use crate::transport::memory::MemoryNetwork;
use crate::transport::{BATCH, Endpoint, Transmit};
use crate::wire::envelope::encode;
use crate::wire::{
    Class, ClusterName, Domain, EnvelopeFields, Epoch, FRAME_MAX, KeyId, Sequence, SigningContext,
    StreamStart, TopicId,
};
use proptest::prelude::*;
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::panel::{Kind, Panel, PanelSpec};
use sinew_rt::ring::{self, Consumer, Producer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

type Word = zerocopy::little_endian::U64;

impl Message for Word {
    const NAME: &'static str = "Word@1";
}

const OPEN: &str = "open";
const SIGNED: &str = "signed";
const NOW: Nanos = Nanos::from_secs(1);

fn panel() -> Panel {
    let mut spec = PanelSpec::new("pipeline");
    spec.values = 400;
    Panel::anonymous(&spec).unwrap()
}

fn counter(panel: &Panel, name: &str) -> u64 {
    panel.snapshot().unwrap().counter(name).unwrap()
}

/// The sum of a stage's drops, under whatever reason.
fn dropped(panel: &Panel, stage: &str) -> u64 {
    let prefix = format!("{stage}.drop.");
    let counters = panel.snapshot().unwrap().counters;
    counters.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, count)| count).sum()
}

fn identity() -> Identity {
    identity_of(0)
}

fn identity_of(peer: u8) -> Identity {
    Identity::draw(&mut |secret| secret.fill(2 + peer)).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("test").unwrap()
}

fn enrolment(peers: u8) -> Arc<Enrolment> {
    let peer = |(peer, name): (u8, String)| {
        let key = *identity_of(peer).public();
        Peer { name, key, publishes: Publishes::Anything }
    };
    Arc::new(Enrolment::new((0..).zip(names(peers)).map(peer).collect()).unwrap())
}

fn names(peers: u8) -> Vec<String> {
    (0..peers).map(|n| if n == 0 { "peer".to_owned() } else { format!("peer-{n}") }).collect()
}

fn fields(topic: &str, sequence: u64) -> EnvelopeFields {
    EnvelopeFields {
        source: identity().public().id(),
        destination: KeyId::EVERYONE,
        topic: TopicId::of(topic),
        schema: schema_id::<Word>(),
        epoch: Epoch::new(1),
        sequence: Sequence::new(sequence),
        sent_at: Nanos::ZERO,
        lifespan_us: 0,
        class: Class::Control,
    }
}

/// What may wait at a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Waiting {
    Garbage,
    Unsigned,
    Genuine,
    Forged,
}

fn frame(what: Waiting, sequence: u64) -> Vec<u8> {
    frame_of(0, what, sequence)
}

fn frame_of(peer: u8, what: Waiting, sequence: u64) -> Vec<u8> {
    let mut slot = [0; FRAME_MAX];
    let topic = if what == Waiting::Unsigned { OPEN } else { SIGNED };
    let identity = identity_of(peer);
    let fields = EnvelopeFields { source: identity.public().id(), ..fields(topic, sequence) };
    let mut len = encode(&mut slot, cluster().tag(), &fields, &[peer; 8]).unwrap();
    if what != Waiting::Unsigned {
        let context = SigningContext::new(Domain::Envelope, &cluster());
        len = identity.sign_envelope(&context, &mut slot).unwrap();
    }
    match what {
        Waiting::Forged => slot[len - 1] ^= 1,
        Waiting::Garbage => len -= 1,
        Waiting::Unsigned | Waiting::Genuine => {}
    }
    slot[..len].to_vec()
}

fn waiting() -> impl Strategy<Value = Vec<Waiting>> {
    let one = prop_oneof![
        4 => Just(Waiting::Garbage),
        8 => Just(Waiting::Unsigned),
        1 => Just(Waiting::Genuine),
        1 => Just(Waiting::Forged),
    ];
    prop::collection::vec(one, 0..150)
}

/// A verify stage for one peer behind a ring of 256, in front of one of `room`.
fn verify_stage(
    panel: &Panel,
    room: usize,
) -> (VerifyStage, Producer<Unverified>, Consumer<VerifiedFrame>) {
    let (input, input_in) = ring::channel(256);
    let (stage, verified) = verify_stage_behind(panel, vec![input_in], room);
    (stage, input, verified)
}

/// A verify stage behind these rings of its peers, in front of one of `room`.
fn verify_stage_behind(
    panel: &Panel,
    inputs: Vec<Consumer<Unverified>>,
    room: usize,
) -> (VerifyStage, Consumer<VerifiedFrame>) {
    let peers = inputs.len() as u8;
    let (_, strangers_in) = ring::channel(1);
    let (_, lives_in) = ring::channel(1);
    let (output, verified) = ring::channel(room);
    let mut rules = [(OPEN, Trust::Open), (SIGNED, Trust::Signed)]
        .map(|(topic, trust)| TopicRule {
            topic: TopicId::of(topic),
            class: Class::Control,
            trust,
            dedup: Dedup::Window,
            lifespan: None,
        })
        .to_vec();
    rules.sort_unstable_by_key(|rule| rule.topic);
    let topics = [OPEN, SIGNED].map(TopicId::of);
    let mut streams = StreamTable::new(inputs.len(), &topics).unwrap();
    let starts = topics.map(|topic| StreamStart { topic, next: Sequence::FIRST });
    for peer in 0..peers {
        streams.new_life(PeerIndex::new(peer.into()), Epoch::new(1), starts);
    }
    let stage = VerifyStage {
        inputs: VerifyInputs::new(inputs, strangers_in),
        lives: lives_in,
        output,
        own_key: KeyId::from_raw(1),
        context: SigningContext::new(Domain::Envelope, &cluster()),
        peers: enrolment(peers),
        clocks: vec![SenderClock::Unknown; peers.into()],
        rules,
        streams,
        adopted: None,
        duplicate_at: vec![None; peers.into()],
        checked: panel.counter("checked").unwrap(),
        drops: Drops::register(panel, "verify", verify::REASONS, &names(peers)).unwrap(),
    };
    (stage, verified)
}

/// A receive stage with these homes of its peers and the ring behind each.
fn receive_stage(
    panel: &Panel,
    endpoint: Endpoint,
    slots: usize,
    peers: Vec<(SocketAddr, Producer<Unverified>)>,
) -> ReceiveStage {
    let count = peers.len() as u8;
    let (homes, peers) = peers.into_iter().unzip();
    let (strangers, _) = ring::channel(1);
    let (handshakes, _) = ring::channel(1);
    let limits = AdmissionLimits { peer_burst: 1_000, ..AdmissionLimits::default() };
    ReceiveStage {
        transport: endpoint.receiver,
        pool: FramePool::new(slots, FrameBuffer::new),
        filter: Filter {
            cluster: cluster().tag(),
            peers: enrolment(count),
            homes,
            admission: Admission::new(limits, count.into(), NOW),
            outputs: ReceiveOutputs { peers, strangers, handshakes },
            frames: panel.counter("frames").unwrap(),
            errors: panel.counter("errors").unwrap(),
            unreachable: panel.counter("unreachable").unwrap(),
            drops: Drops::register(panel, "receive", receive::REASONS, &names(count)).unwrap(),
        },
    }
}

fn unverified(pool: &FramePool, bytes: &[u8]) -> Unverified {
    let mut slot = pool.take().unwrap();
    slot.bytes[..bytes.len()].copy_from_slice(bytes);
    slot.len = bytes.len() as u16;
    slot.peer = PeerIndex::new(0);
    slot.at_home = true;
    Unverified(slot)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_poll_of_verify_is_bounded_and_no_input_can_hold_it_up(waiting in waiting()) {
        let panel = panel();
        let pool = FramePool::new(256, FrameBuffer::new);
        let (mut stage, mut input, mut output) = verify_stage(&panel, 256);
        for (sequence, what) in (1..).zip(&waiting) {
            input.push(unverified(&pool, &frame(*what, sequence))).unwrap();
        }
        let mut left = waiting.len();
        while left > 0 {
            let checked = counter(&panel, "checked");
            prop_assert_ne!(stage.poll(NOW), Execution::Idle);
            let taken = left - stage.inputs.waiting();
            prop_assert!((1..=FRAMES_PER_POLL).contains(&taken), "took {taken}");
            prop_assert!(counter(&panel, "checked") - checked <= 1, "more than one signature");
            left -= taken;
        }
        prop_assert_eq!(stage.poll(NOW), Execution::Idle);
        // Each came out, in order, or was counted.
        let good = |what: &Waiting| [Waiting::Unsigned, Waiting::Genuine].contains(what);
        let expected: Vec<u64> =
            (1..).zip(&waiting).filter(|(_, what)| good(what)).map(|(n, _)| n).collect();
        let came: Vec<u64> = std::iter::from_fn(|| output.pop())
            .map(|verified| verified.contents().unwrap().header.sequence().get())
            .collect();
        prop_assert_eq!(dropped(&panel, "verify"), (waiting.len() - expected.len()) as u64);
        prop_assert_eq!(came, expected);
        drop(output);
        prop_assert_eq!(pool.free(), 256);
    }

    #[test]
    fn a_poll_of_deliver_is_bounded_and_a_full_queue_is_counted(count in 0_u64..200, room in 1_usize..100) {
        let panel = panel();
        let pool = FramePool::new(256, FrameBuffer::new);
        let (mut verify, mut input, verified) = verify_stage(&panel, 256);
        for sequence in 1..=count {
            input.push(unverified(&pool, &frame(Waiting::Unsigned, sequence))).unwrap();
        }
        while verify.poll(NOW) != Execution::Idle {}
        let (producer, mut consumer) = ring::channel(room);
        let mut stage = deliver_stage(&panel, 1, OPEN, verified, producer);
        let mut left = stage.input.len();
        prop_assert_eq!(left as u64, count);
        while stage.poll(NOW) != Execution::Idle {
            let taken = left - stage.input.len();
            prop_assert!((1..=FRAMES_PER_POLL).contains(&taken), "took {taken}");
            left -= taken;
        }
        let fits = count.min(room as u64);
        prop_assert_eq!(counter(&panel, "delivered"), fits);
        prop_assert_eq!(counter(&panel, "deliver.drop.queue_full@peer"), count - fits);
        prop_assert_eq!(std::iter::from_fn(|| consumer.pop()).count() as u64, fits);
        prop_assert_eq!(pool.free(), 256);
    }

    #[test]
    fn a_poll_of_receive_is_bounded_and_full_rings_and_an_empty_pool_are_counted(
        count in 0_u64..250,
        room in 1_usize..100,
        slots in 1_usize..100,
    ) {
        let panel = panel();
        let network = MemoryNetwork::new();
        let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let endpoint = network.bind(address(1), &[address(2)]).unwrap();
        let (input, mut passed) = ring::channel(room);
        let mut stage = receive_stage(&panel, endpoint, slots, vec![(address(2), input)]);
        for sequence in 1..=count {
            let frame = frame(Waiting::Unsigned, sequence);
            prop_assert!(network.inject(address(2), address(1), &frame));
        }
        let mut frames = 0;
        while stage.poll(NOW) != Execution::Idle {
            let taken = counter(&panel, "frames") - frames;
            prop_assert!(taken <= FRAMES_PER_POLL as u64, "took {taken}");
            frames += taken;
        }
        prop_assert_eq!(frames, count);
        // A frame that the ring does not take gives its slot back, so only the ring's own can run out.
        let fits = count.min(room as u64).min(slots as u64);
        prop_assert_eq!(passed.len() as u64, fits);
        prop_assert_eq!(dropped(&panel, "receive"), count - fits);
        let reason = if slots <= room { "pool_empty@stranger" } else { "queue_full@peer" };
        prop_assert_eq!(counter(&panel, &format!("receive.drop.{reason}")), count - fits);
        while passed.pop().is_some() {}
        prop_assert_eq!(stage.pool.free(), slots);
    }

    #[test]
    fn a_poll_of_send_is_bounded_and_every_outlet_gets_its_turn(
        waiting in prop::collection::vec((any::<bool>(), 0_usize..64), 1..6),
    ) {
        let panel = panel();
        let (mut stage, rings, sent) = send_stage(&panel, &waiting);
        let total: usize = waiting.iter().map(|(_, count)| count).sum();
        let mut left: Vec<usize> = waiting.iter().map(|(_, count)| *count).collect();
        let mut starved = vec![0; waiting.len()];
        while stage.poll(NOW) != Execution::Idle {
            let now: Vec<usize> = (0..waiting.len())
                .map(|n| waiting[n].1 - counter(&panel, &format!("sent/{n}")) as usize)
                .collect();
            let gone: Vec<usize> = left.iter().zip(&now).map(|(left, now)| left - now).collect();
            let signed: usize = (0..waiting.len()).filter(|n| waiting[*n].0).map(|n| gone[n]).sum();
            prop_assert!(gone.iter().sum::<usize>() <= BATCH && signed <= 1, "{gone:?}");
            for n in 0..waiting.len() {
                starved[n] = if left[n] > 0 && gone[n] == 0 { starved[n] + 1 } else { 0 };
                // Every other outlet may have a whole ring before it, at most a batch at a time.
                let most = waiting.len() * (64 / BATCH + 1);
                prop_assert!(starved[n] <= most, "outlet {n} waited {} polls", starved[n]);
            }
            left = now;
        }
        prop_assert_eq!(left, vec![0; waiting.len()]);
        prop_assert_eq!(sent.load(Ordering::Relaxed), total);
        drop(rings);
    }
}

/// The stage's verdict on frames that were sent at each of these times, all received at `NOW`, when
/// its clock reads `clock`.
fn expired(
    clock: SenderClock,
    lifespan_us: u32,
    lifespan: Option<Nanos>,
    sent_at: &[Nanos],
) -> Vec<bool> {
    let panel = panel();
    let pool = FramePool::new(8, FrameBuffer::new);
    let (mut stage, mut input, mut output) = verify_stage(&panel, 8);
    stage.clocks = vec![clock];
    stage.rules.iter_mut().for_each(|rule| rule.lifespan = lifespan);
    let judge = |(sequence, sent_at): (u64, &Nanos)| {
        let fields = EnvelopeFields { sent_at: *sent_at, lifespan_us, ..fields(OPEN, sequence) };
        let mut bytes = [0; FRAME_MAX];
        let len = encode(&mut bytes, cluster().tag(), &fields, &[1; 8]).unwrap();
        let mut frame = unverified(&pool, &bytes[..len]);
        frame.0.received_at = NOW;
        input.push(frame).unwrap();
        while stage.poll(NOW) != Execution::Idle {}
        let dropped = dropped(&panel, "verify");
        assert_eq!(counter(&panel, "verify.drop.expired@peer"), dropped);
        output.pop().is_none()
    };
    (1..).zip(sent_at).map(judge).collect()
}

#[test]
fn a_frame_that_was_held_back_between_two_hosts_is_as_old_as_it_is() {
    let offset = Nanos::from_secs(1_000);
    let clock = PeerClock { round_trip: Nanos::from_micros(100), offset, measured_at: NOW };
    let theirs = |before: i64| NOW + offset - Nanos::from_millis(before);
    let frames = [theirs(1), theirs(9), theirs(11), theirs(-500), theirs(60_000)];
    let verdicts = [false, false, true, false, true];
    assert_eq!(expired(SenderClock::Theirs(clock), 10_000, None, &frames), verdicts);
    // What the clocks may disagree about counts against the message, also when it seems to come
    // from the future.
    let vague = PeerClock { round_trip: Nanos::from_millis(30), ..clock };
    assert_eq!(expired(SenderClock::Theirs(vague), 10_000, None, &frames), [true; 5]);
    let ours = [1, 9, 11, -500].map(|before| NOW - Nanos::from_millis(before));
    assert_eq!(expired(SenderClock::Ours, 10_000, None, &ours), [false, false, true, false]);
}

#[test]
fn the_shorter_of_the_sender_s_and_the_subscriber_s_lifespan_counts() {
    let sent = [1, 9, 11].map(|before| NOW - Nanos::from_millis(before));
    let (short, long) = (Some(Nanos::from_millis(5)), Some(Nanos::from_secs(1)));
    assert_eq!(expired(SenderClock::Ours, 0, None, &sent), [false; 3]);
    assert_eq!(expired(SenderClock::Ours, 0, short, &sent), [false, true, true]);
    assert_eq!(expired(SenderClock::Ours, 10_000, short, &sent), [false, true, true]);
    assert_eq!(expired(SenderClock::Ours, 10_000, long, &sent), [false, false, true]);
}

/// A deliver stage with one queued topic.
fn deliver_stage(
    panel: &Panel,
    peers: u8,
    topic: &str,
    input: Consumer<VerifiedFrame>,
    producer: Producer<Queued<Word>>,
) -> DeliverStage {
    DeliverStage {
        input,
        routes: vec![Route {
            topic: TopicId::of(topic),
            schema: Some(schema_id::<Word>()),
            newest: None,
            sink: Box::new(QueueSink::<Word> { producer }),
            delivered: panel.counter("delivered").unwrap(),
            foreign_schema: panel.gauge("foreign").unwrap(),
            age: panel.recorder("age", Kind::Age).unwrap(),
        }],
        reliable: Vec::new(),
        watches: Vec::new(),
        lives: None,
        reports: None,
        drops: Drops::register(panel, "deliver", deliver::REASONS, &names(peers)).unwrap(),
    }
}

/// What a program gets of numbers 1, 3, 2 and 4, and how many were dropped because others had overtaken them.
fn overtaken(newest_only: bool) -> (Vec<Word>, u64) {
    let panel = panel();
    let (mut verify, verified) = {
        let (mut input, waiting) = ring::channel(8);
        let pool = FramePool::new(8, FrameBuffer::new);
        for sequence in [1, 3, 2, 4] {
            let mut slot = pool.take().unwrap();
            let (fields, payload) = (fields(OPEN, sequence), sequence.to_le_bytes());
            let len = encode(&mut slot.bytes, cluster().tag(), &fields, &payload).unwrap();
            (slot.len, slot.at_home) = (len as u16, true);
            input.push(Unverified(slot)).unwrap();
        }
        verify_stage_behind(&panel, vec![waiting], 8)
    };
    while verify.poll(NOW) != Execution::Idle {}
    let (producer, mut values) = ring::channel(8);
    let mut deliver = deliver_stage(&panel, 1, OPEN, verified, producer);
    if newest_only {
        deliver.routes[0].newest = Some([(Epoch::NONE, Sequence::default())].into());
    }
    let _ = deliver.poll(NOW);
    let values = std::iter::from_fn(|| values.pop()).map(|queued| queued.value).collect();
    (values, counter(&panel, "deliver.drop.overtaken@peer"))
}

#[test]
fn where_only_the_newest_counts_an_overtaken_value_is_dropped() {
    assert_eq!(overtaken(true), ([1, 3, 4].map(Word::new).to_vec(), 1));
}

#[test]
fn a_queue_gives_what_comes_in_the_order_in_which_it_comes() {
    assert_eq!(overtaken(false), ([1, 3, 2, 4].map(Word::new).to_vec(), 0));
}

#[test]
fn a_peer_s_burst_lets_one_frame_of_every_other_peer_pass_each_round() {
    const PEERS: u8 = 3;
    const BURST: u64 = 100;
    const ROOM: usize = 64;
    let panel = panel();
    let network = MemoryNetwork::new();
    let address = |n: u8| SocketAddr::from(([127, 0, 0, 1], 2 + u16::from(n)));
    let homes: Vec<_> = (0..PEERS).map(address).collect();
    let endpoint = network.bind(address(PEERS), &homes).unwrap();
    let (rings, inputs): (Vec<_>, Vec<_>) = (0..PEERS).map(|_| ring::channel(ROOM)).unzip();
    let slots = usize::from(PEERS) * ROOM + BATCH;
    let mut receive =
        receive_stage(&panel, endpoint, slots, homes.into_iter().zip(rings).collect());
    let (mut verify, verified) = verify_stage_behind(&panel, inputs, 256);
    let (producer, mut delivered) = ring::channel(256);
    let mut deliver = deliver_stage(&panel, PEERS, SIGNED, verified, producer);

    // The first peer's burst is in the node before the others send their one frame each.
    for sequence in 1..=BURST {
        let frame = frame_of(0, Waiting::Genuine, sequence);
        assert!(network.inject(address(0), address(PEERS), &frame));
    }
    for peer in 1..PEERS {
        let frame = frame_of(peer, Waiting::Genuine, 1);
        assert!(network.inject(address(peer), address(PEERS), &frame));
    }
    while receive.poll(NOW) != Execution::Idle {}
    // The burst found its own ring full, and nobody else's.
    assert_eq!(counter(&panel, "receive.drop.queue_full@peer"), BURST - ROOM as u64);
    assert_eq!(dropped(&panel, "receive"), BURST - ROOM as u64);

    // A frame of each peer, one signature a poll: after as many polls as there are peers, each of the
    // others has its frame delivered.
    let mut came = Vec::new();
    for _ in 0..PEERS {
        let _ = (verify.poll(NOW), deliver.poll(NOW));
        came.extend(std::iter::from_fn(|| delivered.pop()).map(|queued| queued.value.to_bytes()));
    }
    assert_eq!(came, [[0; 8], [1; 8], [2; 8]], "the payloads say whose they are");
    assert_eq!(verify.inputs.waiting(), ROOM - 1);
    // What waited behind the burst did not cost the burst more than its place.
    while verify.poll(NOW) != Execution::Idle {
        let _ = deliver.poll(NOW);
    }
    assert_eq!(counter(&panel, "delivered"), ROOM as u64 + u64::from(PEERS) - 1);
    assert_eq!(dropped(&panel, "verify"), 0);
}

#[test]
fn strangers_are_verified_when_no_peer_waits() {
    let pool = FramePool::new(8, FrameBuffer::new);
    let (mut peer, peer_in) = ring::channel(4);
    let (mut strangers, strangers_in) = ring::channel(4);
    let mut inputs = VerifyInputs::new(vec![peer_in], strangers_in);
    let numbered = |number: u8| unverified(&pool, &[number]);
    strangers.push(numbered(9)).unwrap();
    peer.push(numbered(1)).unwrap();
    peer.push(numbered(2)).unwrap();
    let order: Vec<_> =
        std::iter::from_fn(|| inputs.next()).map(|frame| frame.into_slot().bytes[0]).collect();
    assert_eq!(order, [1, 2, 9]);
    let (mut strangers, strangers_in) = ring::channel(4);
    let mut alone = VerifyInputs::new(Vec::new(), strangers_in);
    strangers.push(numbered(9)).unwrap();
    assert!(alone.next().is_some() && alone.next().is_none(), "a node without peers");
}

/// Counts frames.
struct Counts(Arc<AtomicUsize>);

impl Transmit for Counts {
    fn send(&mut self, _peer: PeerIndex, frames: &[&[u8]]) -> usize {
        self.0.fetch_add(frames.len(), Ordering::Relaxed);
        frames.len()
    }
}

/// A send stage with an outlet for each of `waiting`: whether it signs, and how many messages wait.
fn send_stage(
    panel: &Panel,
    waiting: &[(bool, usize)],
) -> (SendStage, Vec<Producer<Outgoing<Word>>>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let mut rings = Vec::new();
    let mut outlets = Vec::new();
    for (n, (signed, count)) in waiting.iter().enumerate() {
        let (mut producer, consumer) = ring::channel(64);
        for number in 0..*count {
            producer.push(Outgoing { value: Word::new(number as u64), at: NOW }).unwrap();
        }
        rings.push(producer);
        outlets.push(Outlet {
            source: Box::new(consumer),
            fields: fields(&n.to_string(), 1),
            signed: *signed,
            next_sequence: Arc::new(AtomicU64::new(1)),
            sent: panel.counter(&format!("sent/{n}")).unwrap(),
        });
    }
    let stage = SendStage {
        outlets,
        transport: Box::new(Counts(sent.clone())),
        identity: Arc::new(identity()),
        cluster: cluster().tag(),
        context: SigningContext::new(Domain::Envelope, &cluster()),
        lost: vec![panel.counter("lost").unwrap()],
        frames: vec![[0; FRAME_MAX]; BATCH].into(),
        lens: [0; BATCH],
        turn: 0,
        reliable: None,
        first_part: 0,
    };
    (stage, rings, sent)
}

#[test]
fn an_outlet_that_is_never_empty_does_not_starve_another() {
    for floods_signed in [false, true] {
        for waits_signed in [false, true] {
            let panel = panel();
            let (mut stage, mut rings, _) =
                send_stage(&panel, &[(floods_signed, 64), (waits_signed, 1), (waits_signed, 1)]);
            for _ in 0..6 {
                while rings[0].push(Outgoing { value: Word::new(0), at: NOW }).is_ok() {}
                let _ = stage.poll(NOW);
            }
            let sent = [1, 2].map(|n| counter(&panel, &format!("sent/{n}")));
            assert_eq!(sent, [1, 1], "flood signed: {floods_signed}, others: {waits_signed}");
        }
    }
}
