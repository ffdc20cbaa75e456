//! What a poll of the send stage may do for reliable topics, however many read them.

use super::*;
use crate::delivery::writer::{Writer, WriterSpec};
use crate::pipeline::resend::{ReliableOutlet, ReliableSend, ReportOutlet, Way};
use crate::transport::BURST;
use crate::wire::envelope::frame_len;
use crate::wire::report::{Acknowledgement, REPORTS, schema};

const FLOW: &str = "flow";

/// A stage with one open stream that so many peers read, and 256 messages that wait.
fn flow(panel: &Panel, readers: u16, capacity: usize) -> ReliableSend {
    let (mut ring, source) = ring::channel(256);
    for number in 0..256 {
        ring.push(Outgoing { value: Word::new(number), at: NOW }).unwrap();
    }
    let fields = EnvelopeFields { class: Class::Stream, ..fields(FLOW, 1) };
    let spec = WriterSpec {
        topic: fields.topic,
        schema: fields.schema,
        class: Class::Stream,
        readers: readers.into(),
        capacity,
        frame_len: frame_len(size_of::<Word>(), false),
        lifespan: None,
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
    let mut reliable = flow(&panel, readers, capacity);
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
