//! A simulated node does what a real one does, the same each time; and each planted fault shows.

mod reliable;

use super::*;
use crate::delivery::DropReason;
use crate::message::schema_id;
use crate::node::{
    NodeBuilder, PeerConfig, Publisher, Queued, Reliability, StageName, TopicClass, TopicConfig,
};
use crate::security::hello::OwnLife;
use crate::security::{BootCounter, Identity};
use crate::wire::envelope::encode;
use crate::wire::hello::{HelloFields, encode_challenge, encode_hello};
use crate::wire::{
    BootId, Challenge, Class, ClusterName, Domain, EnvelopeFields, Epoch, FRAME_MAX, Frame,
    HandshakeMessage, Hello, KeyId, LifeId, Nonce, SchemaId, Sequence, SigningContext, StreamStart,
    TopicId, decode,
};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ring::{self, Consumer};
use std::fmt::Write;
use std::net::SocketAddr;

/// As in the tests of the pipeline, which make it a message.
type Word = zerocopy::little_endian::U64;

const START: Nanos = Nanos::from_secs(100);
const STATE: &str = "state";
const OTHER: &str = "other";
/// The robot, which the tests look at, and its two peers.
const ROBOT: u8 = 0;
const FRIEND: u8 = 1;
const SECOND: u8 = 2;

fn identity(node: u8) -> Identity {
    Identity::draw(&mut |secret| secret.fill(40 + node)).unwrap()
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 7400))
}

fn cluster() -> ClusterName {
    ClusterName::new("simulated").unwrap()
}

fn life(node: u8, epoch: u64) -> SimLife {
    let seed = u64::from(node) << 32 | epoch;
    let mut life = [node; 16];
    life[0] = epoch as u8;
    SimLife { epoch: Epoch::new(epoch), life: LifeId(life), boot: BootId([9; 16]), seed }
}

/// A node that knows `peers`, of which each may publish [`STATE`].
fn builder(node: u8, peers: &[u8]) -> NodeBuilder {
    let mut builder = NodeBuilder::new(format!("node-{node}")).cluster("simulated").loops(0);
    builder = builder.identity(identity(node));
    for peer in peers {
        builder = builder.peer(PeerConfig {
            name: format!("node-{peer}"),
            identity: identity(*peer).public().to_did(),
            address: address(*peer),
            publishes: vec![STATE.to_owned()],
        });
    }
    builder
}

/// The robot and what it has read.
struct Robot {
    node: SimNode,
    state: Consumer<Queued<Word>>,
    other: Consumer<Queued<Word>>,
    now: Nanos,
}

impl Robot {
    /// A robot that has heard from no peer.
    fn alone() -> Self {
        let mut builder = builder(ROBOT, &[FRIEND, SECOND]);
        let state = builder.queue::<Word>(STATE, 64).unwrap();
        let other = builder.queue::<Word>(OTHER, 64).unwrap();
        let node = SimNode::start(builder, life(ROBOT, 1), address(ROBOT), START).unwrap();
        Self { node, state, other, now: START }
    }

    /// The same over a node with other topics.
    fn over(node: SimNode) -> Self {
        let [state, other] = [(); 2].map(|()| ring::channel(1).1);
        Self { node, state, other, now: START }
    }

    /// A robot that both peers have greeted in their first life, with streams from 1 on.
    fn greeted() -> Self {
        let mut robot = Self::alone();
        for (challenge, peer) in robot.challenges().into_iter().zip([FRIEND, SECOND]) {
            robot.put(peer, &hello(peer, 1, &challenge, robot.now));
        }
        robot.settle();
        robot
    }

    /// Moves the time on and takes the Challenges that are sent by then.
    fn challenges(&mut self) -> Vec<Challenge> {
        self.settle();
        let mut found = Vec::new();
        while let Some((_, frame)) = self.node.sent() {
            if let Ok(Frame::Handshake(frame)) = decode(&frame)
                && let HandshakeMessage::Challenge(challenge) = frame.message
            {
                found.push(*challenge);
            }
        }
        found
    }

    fn put(&mut self, peer: u8, frame: &[u8]) {
        assert!(self.node.receive(address(peer), frame));
    }

    fn settle(&mut self) {
        while self.node.poll(self.now) {}
    }

    /// Everything about the robot that shows.
    fn seen(&mut self) -> String {
        self.settle();
        let mut seen = String::new();
        let values = |ring: &mut Consumer<Queued<Word>>| {
            std::iter::from_fn(|| ring.pop()).map(|queued| queued.value.get()).collect::<Vec<_>>()
        };
        let (state, other) = (values(&mut self.state), values(&mut self.other));
        write!(seen, "state {state:?} other {other:?}").unwrap();
        for (reason, count) in DropReason::ALL.iter().zip(self.node.drops()) {
            if count > 0 {
                write!(seen, " {}={count}", reason.as_str()).unwrap();
            }
        }
        let epochs = [0, 1].map(|peer| self.node.peer(peer).unwrap().epoch);
        let sent = std::iter::from_fn(|| self.node.sent()).count();
        write!(seen, " lives {epochs:?} sent {sent} slots {:?}", self.node.slots()).unwrap();
        seen
    }
}

fn hello(peer: u8, epoch: u64, challenge: &Challenge, now: Nanos) -> Vec<u8> {
    let SimLife { epoch, life, boot, .. } = life(peer, epoch);
    hello_of(peer, OwnLife { epoch, life, boot }, challenge, now)
}

fn hello_of(peer: u8, own: OwnLife, challenge: &Challenge, now: Nanos) -> Vec<u8> {
    hello_about(peer, own, challenge, now, [STATE, OTHER])
}

fn hello_with(peer: u8, challenge: &Challenge, now: Nanos, topics: [&str; 2]) -> Vec<u8> {
    let SimLife { epoch, life, boot, .. } = life(peer, 1);
    hello_about(peer, OwnLife { epoch, life, boot }, challenge, now, topics)
}

fn hello_about(
    peer: u8,
    own: OwnLife,
    challenge: &Challenge,
    now: Nanos,
    topics: [&str; 2],
) -> Vec<u8> {
    let identity = identity(peer);
    let streams =
        topics.map(|name| StreamStart { topic: TopicId::of(name), next: Sequence::FIRST });
    let fields = HelloFields {
        from: identity.public().id(),
        epoch: own.epoch,
        life: own.life,
        boot: own.boot,
        received_at: now,
        sent_at: now,
        streams: &streams,
    };
    let context = SigningContext::new(Domain::Hello, &cluster());
    let hello = Hello::answer(challenge, &fields);
    encode_hello(cluster().tag(), &hello, |body| identity.sign(&[context.as_bytes(), body]))
        .to_vec()
}

fn fields(peer: u8, sequence: u64) -> EnvelopeFields {
    EnvelopeFields {
        source: identity(peer).public().id(),
        destination: KeyId::EVERYONE,
        topic: TopicId::of(STATE),
        schema: schema_id::<Word>(),
        epoch: Epoch::new(1),
        sequence: Sequence::new(sequence),
        sent_at: START,
        lifespan_us: 0,
        class: Class::Control,
    }
}

/// An envelope of `peer` with the payload `value`.
fn envelope(peer: u8, fields: &EnvelopeFields, value: u64) -> Vec<u8> {
    envelope_with(peer, fields, &value.to_le_bytes())
}

fn envelope_with(peer: u8, fields: &EnvelopeFields, payload: &[u8]) -> Vec<u8> {
    let mut slot = [0; FRAME_MAX];
    encode(&mut slot, cluster().tag(), fields, payload).unwrap();
    let context = SigningContext::new(Domain::Envelope, &cluster());
    let len = identity(peer).sign_envelope(&context, &mut slot).unwrap();
    slot[..len].to_vec()
}

fn forged(mut frame: Vec<u8>) -> Vec<u8> {
    *frame.last_mut().unwrap() ^= 1;
    frame
}

fn challenge(peer: u8, sent_at: Nanos) -> Vec<u8> {
    let (from, to) = (identity(peer), identity(ROBOT).public().id());
    let nonce = Nonce([7; 16]);
    let challenge = Challenge::new(from.public().id(), to, nonce, Epoch::new(1), sent_at);
    let context = SigningContext::new(Domain::Challenge, &cluster());
    encode_challenge(cluster().tag(), &challenge, |body| from.sign(&[context.as_bytes(), body]))
        .to_vec()
}

/// Puts things back as they were, whatever happens.
struct Switches;

impl Switches {
    fn cheap() -> Self {
        cheap_signatures(true);
        Self
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        cheap_signatures(false);
        plant(None);
        clear_branches();
    }
}

/// What shows after `scenario` without and with `fault`.
fn both(fault: Fault, scenario: impl Fn() -> String) -> [String; 2] {
    let _switches = Switches::cheap();
    [None, Some(fault)].map(|planted| {
        plant(planted);
        scenario()
    })
}

#[track_caller]
fn shows(fault: Fault, scenario: impl Fn() -> String) {
    let [honest, broken] = both(fault, scenario);
    assert_ne!(honest, broken, "{fault}");
    println!("{fault}:\n  honest {honest}\n  broken {broken}");
}

#[test]
fn nodes_greet_each_other_and_messages_arrive_without_a_thread() {
    let _switches = Switches::cheap();
    let mut robot = builder(ROBOT, &[FRIEND]);
    let mut state = robot.latest::<Word>(STATE).unwrap();
    let mut friend = builder(FRIEND, &[ROBOT]);
    let mut publisher: Publisher<Word> = friend.publisher(STATE).unwrap();
    let mut nodes = [(ROBOT, robot), (FRIEND, friend)].map(|(node, builder)| {
        SimNode::start(builder, life(node, 1), address(node), START).unwrap()
    });
    let mut now = START;
    for _ in 0..20 {
        while nodes.iter_mut().any(|node| node.poll(now)) {}
        for from in 0..2 {
            while let Some((to, frame)) = nodes[from].sent() {
                assert_eq!(to, address(1 - from as u8));
                nodes[1 - from].receive(address(from as u8), &frame);
            }
        }
        now += Nanos::from_micros(100);
    }
    assert_eq!(nodes[0].peer(0).unwrap().epoch, Epoch::new(1));
    assert!(branches().contains(Branch::HelloOfNewLife));
    // Nothing is left to do before the next Challenge, a second after the last Hello.
    assert!(nodes.iter().all(|node| node.next_deadline() > Some(now + Nanos::from_millis(900))));

    publisher.publish_at(&Word::new(17), now).unwrap();
    while nodes[1].poll(now) {}
    let (_, frame) = nodes[1].sent().unwrap();
    nodes[0].receive(address(FRIEND), &frame);
    while nodes[0].poll(now) {}
    assert_eq!(state.read().map(|newest| (newest.value.get(), newest.at)), Some((17, now)));
    assert_eq!(nodes[0].drops(), [0; DropReason::COUNT]);
    let (free, all) = nodes[0].slots();
    assert_eq!(free, all);
}

#[test]
fn the_same_seed_gives_the_same_frames_and_another_seed_others() {
    let _switches = Switches::cheap();
    let frames = |seed| {
        let life = SimLife { seed, ..life(ROBOT, 1) };
        let mut node =
            SimNode::start(builder(ROBOT, &[FRIEND]), life, address(ROBOT), START).unwrap();
        while node.poll(START) {}
        std::iter::from_fn(|| node.sent()).collect::<Vec<_>>()
    };
    assert_eq!(frames(1).len(), 1);
    assert_eq!(frames(1), frames(1));
    assert_ne!(frames(1), frames(2));
}

#[test]
fn a_stage_that_stalls_leaves_its_work_and_does_it_later() {
    let _switches = Switches::cheap();
    let mut robot = Robot::greeted();
    robot.node.stall(StageName::Verify, true);
    robot.put(FRIEND, &envelope(FRIEND, &fields(FRIEND, 1), 5));
    assert!(robot.seen().starts_with("state [] "));
    robot.node.stall(StageName::Verify, false);
    assert!(robot.seen().starts_with("state [5] "));
}

#[test]
fn a_socket_s_buffer_is_bounded() {
    let _switches = Switches::cheap();
    let mut node = Robot::alone().node;
    let taken = (0..1_000).filter(|_| node.receive(address(FRIEND), &[0; 2_000])).count();
    assert_eq!(taken, 256);
    assert!(node.has_datagrams());
    while node.poll(START) {}
    assert!(!node.has_datagrams());
    assert_eq!(node.drops()[DropReason::TooLong.index()], 256);
}

#[test]
fn a_cheap_signature_is_of_one_key_and_one_message_and_no_real_one() {
    let real = identity(1).sign(&[b"a", b"b"]);
    let _switches = Switches::cheap();
    let (one, other) = (identity(1), identity(2));
    let cheap = one.sign(&[b"a", b"b"]);
    let verify = crate::security::verify;
    assert!(verify(one.public(), &[b"ab"], &cheap).is_ok());
    assert!(verify(other.public(), &[b"ab"], &cheap).is_err());
    assert!(verify(one.public(), &[b"ac"], &cheap).is_err());
    assert!(verify(one.public(), &[b"ab"], &real).is_err());
    cheap_signatures(false);
    assert!(verify(one.public(), &[b"ab"], &cheap).is_err());
    assert!(verify(one.public(), &[b"ab"], &real).is_ok());
}

#[test]
fn names_of_faults_and_branches_are_unique_and_can_be_read() {
    for fault in Fault::ALL {
        assert_eq!(fault.as_str().parse(), Ok(*fault));
        assert!(fault.description().ends_with('.'));
    }
    assert!("no_such".parse::<Fault>().is_err());
    let names: std::collections::BTreeSet<_> = Branch::ALL.iter().map(|b| b.as_str()).collect();
    assert_eq!(names.len(), Branch::COUNT);
    let all = Branch::ALL.iter().fold(Branches::default(), |set, branch| set.with(*branch));
    assert_eq!((all.len(), all.iter().count()), (Branch::COUNT, Branch::COUNT));
}

/// Prints what a node costs: `cargo test -p sinew-io --features simulation costs -- --nocapture`.
#[test]
fn a_node_costs_little_to_make_and_drop() {
    const NODES: u8 = 16;
    const ROUNDS: i64 = 20;
    let _switches = Switches::cheap();
    let dids: Vec<_> = (0..NODES).map(|node| identity(node).public().to_did()).collect();
    let described = |node: u8, reliable: bool| {
        let mut builder =
            NodeBuilder::new(format!("node-{node}")).identity(identity(node)).loops(0);
        for peer in (0..NODES).filter(|peer| *peer != node) {
            builder = builder.peer(PeerConfig {
                name: format!("node-{peer}"),
                identity: dids[usize::from(peer)].clone(),
                address: address(peer),
                publishes: vec![STATE.to_owned()],
            });
        }
        for n in 0..4 {
            let _ = builder.latest::<Word>(&format!("in-{n}")).unwrap();
            let _ = builder.publisher::<Word>(&format!("out-{n}")).unwrap();
        }
        if reliable {
            let reliability = Reliability { capacity: 64, ..Reliability::default() };
            for name in ["flow-in", "flow-out"] {
                let topic = TopicConfig::new(name, "Word@1", TopicClass::Stream);
                builder = builder.topic(TopicConfig { reliability, ..topic });
            }
            let _ = builder.stream::<Word>("flow-in", 64).unwrap();
            let _ = builder.publisher::<Word>("flow-out").unwrap();
        }
        builder
    };
    for reliable in [false, true] {
        let (mut made, mut dropped) = (Nanos::ZERO, Nanos::ZERO);
        for round in 0..=ROUNDS {
            let builders: Vec<_> = (0..NODES).map(|node| described(node, reliable)).collect();
            let begun = clock::now();
            let nodes: Vec<_> = (0..)
                .zip(builders)
                .map(|(n, builder)| SimNode::start(builder, life(n, 1), address(n), START).unwrap())
                .collect();
            let built = clock::now();
            drop(nodes);
            // The first round admits the keys.
            if round > 0 {
                made += built - begun;
                dropped += clock::now() - built;
            }
        }
        let each = |sum: Nanos| sum / (ROUNDS * i64::from(NODES));
        println!(
            "a node with {} peers and 8 topics{}: made in {}, dropped in {}",
            NODES - 1,
            if reliable { " and a stream in each direction" } else { "" },
            each(made),
            each(dropped)
        );
    }
}

#[test]
fn faults_of_envelopes_show() {
    let one = || fields(FRIEND, 1);
    let after = |frames: &dyn Fn() -> Vec<Vec<u8>>| {
        let mut robot = Robot::greeted();
        for frame in frames() {
            robot.put(FRIEND, &frame);
        }
        robot.seen()
    };
    shows(Fault::SignatureNotChecked, || after(&|| vec![forged(envelope(FRIEND, &one(), 1))]));
    shows(Fault::UnsignedAccepted, || {
        after(&|| {
            let mut slot = [0; FRAME_MAX];
            let len = encode(&mut slot, cluster().tag(), &one(), &[1; 8]).unwrap();
            vec![slot[..len].to_vec()]
        })
    });
    shows(Fault::EpochNotChecked, || {
        after(&|| vec![envelope(FRIEND, &EnvelopeFields { epoch: Epoch::new(7), ..one() }, 1)])
    });
    shows(Fault::PermissionNotChecked, || {
        let topic = TopicId::of(OTHER);
        after(&|| vec![envelope(FRIEND, &EnvelopeFields { topic, ..one() }, 1)])
    });
    shows(Fault::DestinationNotChecked, || {
        let destination = identity(SECOND).public().id();
        after(&|| vec![envelope(FRIEND, &EnvelopeFields { destination, ..one() }, 1)])
    });
    shows(Fault::SchemaNotChecked, || {
        let schema = SchemaId::from_raw(5);
        after(&|| vec![envelope(FRIEND, &EnvelopeFields { schema, ..one() }, 1)])
    });
    shows(Fault::WindowOffByOne, || {
        after(&|| vec![envelope(FRIEND, &one(), 1), envelope(FRIEND, &one(), 1)])
    });
    shows(Fault::WindowBeforeAuthentication, || {
        after(&|| vec![forged(envelope(FRIEND, &one(), 1)), envelope(FRIEND, &one(), 1)])
    });
    shows(Fault::LifespanIgnored, || {
        let sent_at = START - Nanos::from_secs(1);
        after(&|| {
            vec![envelope(FRIEND, &EnvelopeFields { sent_at, lifespan_us: 1_000, ..one() }, 1)]
        })
    });
    shows(Fault::WallClockLifetime, || {
        let mut robot = Robot::greeted();
        robot.node.step_wall_clock(Nanos::from_secs(3_600));
        let fresh = EnvelopeFields { sent_at: START, lifespan_us: 1_000_000, ..one() };
        robot.put(FRIEND, &envelope(FRIEND, &fresh, 1));
        robot.seen()
    });
    shows(Fault::SlotsLeaked, || after(&|| vec![forged(envelope(FRIEND, &one(), 1))]));
    shows(Fault::DropsNotCounted, || after(&|| vec![forged(envelope(FRIEND, &one(), 1))]));
    shows(Fault::WindowWithoutSender, || {
        let mut robot = Robot::greeted();
        for peer in [FRIEND, SECOND] {
            robot.put(peer, &envelope(peer, &fields(peer, 1), peer.into()));
        }
        robot.seen()
    });
    shows(Fault::PeersTurnsOff, || {
        let mut robot = Robot::greeted();
        for sequence in 1..=3 {
            robot.put(FRIEND, &envelope(FRIEND, &fields(FRIEND, sequence), sequence));
        }
        robot.put(SECOND, &envelope(SECOND, &fields(SECOND, 1), 100));
        robot.seen()
    });
    shows(Fault::AdmissionOff, || {
        let mut robot = Robot::greeted();
        for sequence in 1..=300 {
            robot.put(FRIEND, &envelope(FRIEND, &fields(FRIEND, 1), sequence));
            robot.settle();
        }
        robot.seen()
    });
}

#[test]
fn faults_of_the_handshake_show() {
    let greeting = |frame: &dyn Fn(&Challenge) -> Vec<u8>| {
        let mut robot = Robot::greeted();
        robot.now += Nanos::from_secs(2);
        let challenge = robot.challenges()[0];
        robot.put(FRIEND, &frame(&challenge));
        robot.seen()
    };
    let now = START + Nanos::from_secs(2);
    shows(Fault::HelloNotChecked, || greeting(&|asked| forged(hello(FRIEND, 2, asked, now))));
    shows(Fault::NonceNotChecked, || {
        greeting(&|asked| {
            let (from, to) = (asked.from(), asked.to());
            let other = Challenge::new(from, to, Nonce([1; 16]), Epoch::new(1), asked.sent_at());
            hello(FRIEND, 2, &other, now)
        })
    });
    shows(Fault::LifeConflictAccepted, || {
        greeting(&|asked| {
            let boot = BootId([9; 16]);
            let own = OwnLife { epoch: Epoch::new(1), life: LifeId([99; 16]), boot };
            hello_of(FRIEND, own, asked, now)
        })
    });
    shows(Fault::OldEpochAccepted, || {
        let mut robot = Robot::greeted();
        for epoch in [5, 4] {
            robot.now += Nanos::from_secs(2);
            let challenge = robot.challenges()[0];
            robot.put(FRIEND, &hello(FRIEND, epoch, &challenge, robot.now));
            robot.settle();
        }
        let old = EnvelopeFields { epoch: Epoch::new(4), ..fields(FRIEND, 1) };
        robot.put(FRIEND, &envelope(FRIEND, &old, 1));
        robot.seen()
    });
    shows(Fault::StaleChallengeAnswered, || {
        let mut robot = Robot::greeted();
        robot.put(FRIEND, &challenge(FRIEND, START));
        robot.put(FRIEND, &challenge(FRIEND, START));
        robot.seen()
    });
    shows(Fault::AnswersUnlimited, || {
        let mut robot = Robot::greeted();
        for n in 0..12 {
            robot.put(FRIEND, &challenge(FRIEND, START + Nanos::new(n)));
        }
        robot.seen()
    });
    shows(Fault::LifeNotReset, || {
        let mut robot = Robot::greeted();
        robot.put(FRIEND, &envelope(FRIEND, &fields(FRIEND, 1), 1));
        robot.now += Nanos::from_secs(2);
        let challenge = robot.challenges()[0];
        robot.put(FRIEND, &hello(FRIEND, 2, &challenge, robot.now));
        robot.settle();
        let again = EnvelopeFields { epoch: Epoch::new(2), ..fields(FRIEND, 1) };
        robot.put(FRIEND, &envelope(FRIEND, &again, 2));
        robot.seen()
    });
    shows(Fault::EpochReused, || format!("{:?}", BootCounter::new(Epoch::new(3)).next()));
}

#[test]
fn a_foreign_clock_that_is_believed_shows() {
    shows(Fault::ForeignClockBelieved, || {
        let mut robot = Robot::alone();
        let challenge = robot.challenges()[0];
        let theirs = robot.now - Nanos::from_secs(50);
        let SimLife { epoch, life, .. } = life(FRIEND, 1);
        let own = OwnLife { epoch, life, boot: BootId([8; 16]) };
        robot.put(FRIEND, &hello_of(FRIEND, own, &challenge, theirs));
        robot.settle();
        let dated = EnvelopeFields { sent_at: theirs, lifespan_us: 1_000_000, ..fields(FRIEND, 1) };
        robot.put(FRIEND, &envelope(FRIEND, &dated, 1));
        robot.seen()
    });
}
