//! The writer against single acknowledgements, against a lossy network with honest readers, and
//! against readers that lie.

mod claims;
mod hostile;
mod lossy;

use super::*;
use crate::wire::FRAME_MAX;
use crate::wire::report::OUTCOMES_MAX;

const EPOCH: Epoch = Epoch::new(7);

fn ms(ms: i64) -> Nanos {
    Nanos::from_millis(ms)
}

fn us(us: i64) -> Nanos {
    Nanos::from_micros(us)
}

fn peer(index: usize) -> PeerIndex {
    PeerIndex::new(index as u16)
}

fn spec() -> WriterSpec {
    WriterSpec {
        topic: TopicId::of("arm/path"),
        schema: SchemaId::from_raw(5),
        class: Class::Stream,
        readers: 2,
        capacity: 8,
        frame_len: FRAME_MAX,
        lifespan: None,
        linger: ms(1_000),
        lease: ms(3_000),
        // Long: one reader holds the others up, unless a test says otherwise.
        patience: Nanos::from_secs(3_600),
        heartbeat: ms(80),
        resend_share_percent: 50,
    }
}

impl Writer {
    /// Keeps a finished frame, which was published at `now` as well.
    pub(crate) fn keep(&mut self, now: Nanos, frame: &[u8]) {
        self.room_for_next()[..frame.len()].copy_from_slice(frame);
        self.retain(now, now, frame.len());
    }
}

fn frame(sequence: u64, len: usize) -> Vec<u8> {
    let mut frame = vec![0xA5; len];
    frame[..8].copy_from_slice(&sequence.to_le_bytes());
    frame
}

fn number(frame: &[u8]) -> u64 {
    u64::from_le_bytes(frame[..8].try_into().unwrap())
}

fn acknowledgement(floor: u64) -> Acknowledgement {
    Acknowledgement {
        topic: spec().topic,
        schema: spec().schema,
        class: spec().class,
        epoch: EPOCH,
        floor: Sequence::new(floor),
        held: 0,
        limit: Sequence::new(u64::MAX),
        wanted: false,
        echo: None,
        held_us: 0,
    }
}

fn events(writer: &mut Writer) -> Vec<WriterEvent> {
    std::iter::from_fn(|| writer.event()).collect()
}

/// What is sent again at `now`: to whom, and which.
fn resends(writer: &mut Writer, now: Nanos) -> Vec<(usize, u64)> {
    let mut all = Vec::new();
    while let Some((peer, sequence, frame)) = writer.resend(now) {
        assert_eq!(number(frame), sequence.get(), "another message's frame");
        all.push((peer.get(), sequence.get()));
        assert!(all.len() <= 4_096, "it never ends");
    }
    all
}
