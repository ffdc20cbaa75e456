//! The reader and the simplest writer, over a link that loses.

use std::collections::BTreeMap;

use super::*;

/// A writer that keeps everything and resends exactly what a report asks for, over links that lose.
fn lossy_run(seed: u64, loss_percent: i64) -> (u64, u64) {
    let mut random = SplitMix64::new(seed);
    let mut lost = || random.up_to(Nanos::new(99)).as_nanos() < loss_percent;
    let mut reader = reader_of(ReaderSpec { gap_timeout: Nanos::from_secs(60), ..spec() });
    let (mut last, mut limit, mut resent, mut expected) = (0, 64, 0, 1);
    let delay = MS / 2;
    let (mut to_reader, mut to_writer) = (BTreeMap::new(), BTreeMap::new());
    let mut id = 0u64;
    for step in 0..60_000 {
        let now = Nanos::from_micros(50) * step;
        if step % 20 == 0 && last < limit.min(2_000) {
            last += 1;
            id += 1;
            if !lost() {
                to_reader.insert((now + delay, id), Some(last));
            }
        }
        if step % 400 == 0 && !lost() {
            id += 1;
            to_reader.insert((now + delay, id), None);
        }
        while let Some(arrival) = to_reader.first_entry().filter(|a| a.key().0 <= now) {
            match arrival.remove() {
                Some(sequence) => take(&mut reader, sequence, now),
                None => reader.heartbeat(&heartbeat(1, last), now).unwrap(),
            }
        }
        while let Some(next) = reader.next(now) {
            assert_eq!(Some(next), frame(expected));
            expected += 1;
        }
        reader.room(64, now);
        while let Some(report) = acknowledgement(&mut reader, now) {
            id += 1;
            if !lost() {
                to_writer.insert((now + delay, id), report);
            }
        }
        while let Some(arrival) = to_writer.first_entry().filter(|a| a.key().0 <= now) {
            let report = arrival.remove();
            limit = limit.max(report.limit.get());
            let above = match report.held {
                0 => last.saturating_sub(report.floor.get()).min(64),
                held => 63 - u64::from(held.leading_zeros()),
            };
            for place in (0..above).filter(|place| report.wanted && report.held >> place & 1 == 0) {
                resent += 1;
                id += 1;
                if !lost() {
                    to_reader.insert((now + delay, id), Some(report.floor.get() + 1 + place));
                }
            }
        }
        if expected == 2_001 {
            break;
        }
    }
    (expected - 1, resent)
}

#[test]
fn everything_arrives_in_order_over_a_link_that_loses_a_fifth() {
    for seed in 0..20 {
        let (delivered, resent) = lossy_run(seed, 20);
        assert_eq!(delivered, 2_000, "seed {seed}");
        // About 400 losses, and a fifth of what is resent is lost again.
        assert!(resent < 900, "seed {seed}: {resent}");
    }
    assert_eq!(lossy_run(1, 0), (2_000, 0));
}
