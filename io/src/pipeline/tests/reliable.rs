//! What a poll of the send and the deliver stage may do for reliable topics, however many peers there are.

use super::*;
use crate::delivery::reader::{Reader, ReaderSpec};
use crate::delivery::writer::{Writer, WriterSpec};
use crate::pipeline::reliable::{Delivery, OrderedQueue, PeerStream, ReliableRoute};
use crate::pipeline::resend::{ReliableOutlet, ReliableSend, ReportOutlet, Way};
use crate::transport::BURST;
use crate::wire::envelope::frame_len;
use crate::wire::report::{Acknowledgement, REPORTS, schema};

const FLOW: &str = "flow";

/// A stage with one open stream that so many peers read, and 256 messages that wait.
fn flow(panel: &Panel, readers: u16, capacity: usize) -> ReliableSend {
    flow_of(panel, readers, capacity, None, &[NOW; 256])
}

/// The same with messages of these dates.
fn flow_of(
    panel: &Panel,
    readers: u16,
    capacity: usize,
    lifespan: Option<Nanos>,
    published_at: &[Nanos],
) -> ReliableSend {
    let (mut ring, source) = ring::channel(published_at.len());
    for (number, at) in (0..).zip(published_at) {
        ring.push(Outgoing { value: Word::new(number), at: *at }).unwrap();
    }
    let fields = EnvelopeFields { class: Class::Stream, ..fields(FLOW, 1) };
    let spec = WriterSpec {
        topic: fields.topic,
        schema: fields.schema,
        class: Class::Stream,
        readers: readers.into(),
        capacity,
        frame_len: frame_len(size_of::<Word>(), false),
        lifespan,
        linger: NOW,
        patience: NOW,
        lease: NOW,
        heartbeat: NOW,
        resend_share_percent: 50,
    };
    let mut writer = Writer::new(spec, NOW);
    for peer in 0..readers {
        let entry = Acknowledgement {
            topic: fields.topic,
            schema: fields.schema,
            class: Class::Stream,
            epoch: fields.epoch,
            floor: Sequence::new(0),
            held: 0,
            limit: Sequence::new(256),
            wanted: false,
            echo: None,
            held_us: 0,
        };
        writer.acknowledge(PeerIndex::new(peer), fields.epoch, &entry, NOW).unwrap();
    }
    let outlet = ReliableOutlet {
        outlet: Outlet {
            source: Box::new(source),
            fields,
            signed: false,
            next_sequence: Arc::new(AtomicU64::new(1)),
            sent: panel.counter("sent").unwrap(),
        },
        writer,
        open: true,
        outcomes: None,
        resent: panel.counter("resent").unwrap(),
        refused: panel.gauge("refused").unwrap(),
        events_lost: panel.gauge("events_lost").unwrap(),
        outcomes_lost: panel.counter("outcomes_lost").unwrap(),
        readers: panel.gauge("readers").unwrap(),
        outlived: panel.counter("outlived").unwrap(),
        given_up: panel.counter("given_up").unwrap(),
        mismatches: panel.counter("mismatches").unwrap(),
    };
    let report = |signed| ReportOutlet {
        fields: EnvelopeFields { topic: TopicId::of(REPORTS), schema: schema(), ..fields },
        signed,
        next_sequence: Arc::new(AtomicU64::new(1)),
    };
    let keys = (0..u64::from(readers)).map(KeyId::from_raw).collect();
    let reports = [report(true), report(false)];
    ReliableSend::new(
        vec![outlet],
        ring::channel(1).1,
        keys,
        reports,
        panel.counter("late").unwrap(),
    )
}

/// Frames that one poll sends.
fn burst(readers: u16, capacity: usize) -> usize {
    let panel = panel();
    send_once(&mut flow(&panel, readers, capacity))
}

fn send_once(reliable: &mut ReliableSend) -> usize {
    let (identity, context) = (identity(), SigningContext::new(Domain::Envelope, &cluster()));
    let sent = Arc::new(AtomicUsize::new(0));
    let mut way = Way {
        now: NOW,
        transport: &mut Counts(sent.clone()),
        cluster: cluster().tag(),
        signer: (&identity, &context),
        lost: &[],
        signed: false,
    };
    let _ = reliable.send_new(&mut way);
    sent.load(Ordering::Relaxed)
}

#[test]
fn a_burst_is_bounded_by_the_frames_that_leave_over_all_readers_and_each_gets_some() {
    for (readers, frames) in [(1, BURST), (2, BURST), (4, BURST), (16, BURST), (30, 30 * 8)] {
        assert_eq!(burst(readers, 1_024), frames, "{readers} readers");
    }
    assert_eq!(burst(0, 1_024), 0, "without a reader they are kept, not sent");
    assert_eq!(burst(1, 5), 5, "no more than are kept");
}

#[test]
fn what_outlived_its_lifespan_is_not_sent_though_there_is_room_and_however_much_it_is() {
    let panel = panel();
    let lifespan = Nanos::from_millis(10);
    let old = NOW - lifespan;
    // The last ones of a publisher whose dates go back are no better.
    let dates = [vec![old; 20], vec![NOW - lifespan / 2; 3], vec![old; 2], vec![NOW; 4]].concat();
    let mut reliable = flow_of(&panel, 1, 1_024, Some(lifespan), &dates);
    let sent: Vec<usize> = (0..8).map(|_| send_once(&mut reliable)).collect();
    assert_eq!(
        sent,
        [0, 0, 3, 4, 0, 0, 0, 0],
        "8, 8 and 4 are given up, then 3 sent; 2, and then 4"
    );
    assert_eq!((counter(&panel, "outlived"), counter(&panel, "sent")), (22, 7));
    let writer = &reliable.outlets[0].writer;
    assert_eq!(writer.next(), Sequence::new(30), "each had its number");
    assert_eq!(reliable.outlets[0].outlet.next_sequence.load(Ordering::Relaxed), 30);
}

#[test]
fn what_waits_is_looked_at_when_it_outlives_its_lifespan() {
    let lifespan = Nanos::from_millis(10);
    let due = |lifespan| flow_of(&panel(), 0, 64, lifespan, &[NOW]).next_deadline();
    assert_eq!((due(Some(lifespan)), due(None)), (Some(NOW + lifespan), None));
}

/// A route to which so many peers have begun a life.
fn begun(panel: &Panel, peers: usize, room: usize) -> (ReliableRoute, Consumer<Delivery<Word>>) {
    let (topic, class) = (TopicId::of(FLOW), Class::Stream);
    let spec = ReaderSpec {
        topic,
        schema: schema_id::<Word>(),
        class,
        hold: 64,
        reorder: NOW,
        gap_timeout: NOW,
        acknowledge_every: 16,
        acknowledge_within: NOW,
        refresh: NOW,
        lifespan: None,
    };
    let stream = |peer| PeerStream {
        reader: Reader::new(spec, 1),
        key: KeyId::from_raw(peer),
        epoch: Epoch::new(1),
        resume: None,
        fresh_from: Sequence::FIRST,
        floor: Arc::default(),
        started: Some(Sequence::FIRST),
        gap: None,
    };
    let (producer, deliveries) = ring::channel(room);
    let route = ReliableRoute {
        topic,
        schema: spec.schema,
        open: true,
        is_command: false,
        lifespan: None,
        sink: Box::new(OrderedQueue { producer, decisions: None }),
        streams: (0..peers as u64).map(stream).collect(),
        delivered: panel.counter("delivered").unwrap(),
        missing: panel.counter("missing").unwrap(),
        foreign_schema: panel.gauge("foreign_schema").unwrap(),
        age: panel.recorder("age", Kind::Age).unwrap(),
        turn: 0,
        due: Some(NOW),
    };
    (route, deliveries)
}

#[test]
fn a_peer_whose_turn_did_not_come_in_one_poll_has_it_in_the_next() {
    let panel = panel();
    let (mut route, mut deliveries) = begun(&panel, 40, 64);
    let mut polls = 0;
    while route.is_due(NOW) && polls < 10 {
        let _ = route.serve(NOW);
        route.report(NOW, |_| true);
        polls += 1;
    }
    let mut began: Vec<u64> = std::iter::from_fn(|| deliveries.pop())
        .map(|delivery| match delivery {
            Delivery::Started { from, .. } => from.get(),
            other => panic!("{other:?}"),
        })
        .collect();
    began.sort_unstable();
    assert_eq!((began, polls), ((0..40).collect(), 2));
}

#[test]
fn a_queue_with_little_room_gives_each_peer_its_turn() {
    let panel = panel();
    let (mut route, mut deliveries) = begun(&panel, 3, 1);
    let mut began = Vec::new();
    for _ in 0..3 {
        let _ = route.serve(NOW);
        route.report(NOW, |_| true);
        assert!(!route.is_due(NOW), "while there is no room, nothing is due at once");
        let Some(Delivery::Started { from, .. }) = deliveries.pop() else { panic!("nobody began") };
        began.push(from.get());
    }
    assert_eq!(began, [0, 1, 2]);
}
