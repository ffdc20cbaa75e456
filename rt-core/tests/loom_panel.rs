//! The sequence lock under the model checker, and broken variants of it that the model catches.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p sinew-rt --release --test loom_panel`
#![cfg(loom)]

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;
use sinew_rt::sequence_lock;

/// Two words that always hold the same number when nobody writes.
struct Record {
    sequence: AtomicU64,
    words: [AtomicU64; 2],
}

type Write = fn(&Record, u64);
type Read = fn(&Record) -> Option<[u64; 2]>;

fn write(record: &Record, value: u64) {
    sequence_lock::write(&record.sequence, &record.words, &[value; 2]);
}

fn read(record: &Record) -> Option<[u64; 2]> {
    let mut copy = [0; 2];
    sequence_lock::try_read(&record.sequence, &record.words, &mut copy).then_some(copy)
}

/// Every interleaving of a writer of two records with one attempt to read: what is accepted is
/// whole, and what was accepted later is not older.
fn check(write: Write, read: Read) {
    loom::model(move || {
        let record = Arc::new(Record {
            sequence: AtomicU64::new(0),
            words: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let writer = {
            let record = Arc::clone(&record);
            thread::spawn(move || {
                write(&record, 1);
                write(&record, 2);
            })
        };
        let mut last = 0;
        for _ in 0..2 {
            if let Some([first, second]) = read(&record) {
                assert_eq!(first, second, "torn");
                assert!(first >= last, "went back");
                last = first;
            }
        }
        writer.join().unwrap();
        assert_eq!(read(&record), Some([2, 2]), "a finished write is readable");
    });
}

#[test]
fn accepted_copies_are_whole() {
    check(write, read);
}

fn read_without_second_look(record: &Record) -> Option<[u64; 2]> {
    let before = record.sequence.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let copy = [0, 1].map(|i| record.words[i].load(Ordering::Relaxed));
    (before & 1 == 0).then_some(copy)
}

#[test]
#[should_panic(expected = "torn")]
fn a_reader_that_does_not_look_twice_is_caught() {
    check(write, read_without_second_look);
}

fn read_without_fence(record: &Record) -> Option<[u64; 2]> {
    let before = record.sequence.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    let copy = [0, 1].map(|i| record.words[i].load(Ordering::Relaxed));
    let after = record.sequence.load(Ordering::Relaxed);
    (before & 1 == 0 && before == after).then_some(copy)
}

#[test]
#[should_panic(expected = "torn")]
fn a_reader_without_its_fence_is_caught() {
    check(write, read_without_fence);
}

fn write_without_fence(record: &Record, value: u64) {
    let odd = record.sequence.load(Ordering::Relaxed) | 1;
    record.sequence.store(odd, Ordering::Relaxed);
    for word in &record.words {
        word.store(value, Ordering::Relaxed);
    }
    record.sequence.store(odd + 1, Ordering::Release);
}

#[test]
#[should_panic(expected = "torn")]
fn a_writer_without_its_fence_is_caught() {
    check(write_without_fence, read);
}

fn write_with_relaxed_end(record: &Record, value: u64) {
    let odd = record.sequence.load(Ordering::Relaxed) | 1;
    record.sequence.store(odd, Ordering::Relaxed);
    fence(Ordering::Release);
    for word in &record.words {
        word.store(value, Ordering::Relaxed);
    }
    record.sequence.store(odd + 1, Ordering::Relaxed);
}

#[test]
#[should_panic(expected = "torn")]
fn a_writer_whose_end_does_not_publish_is_caught() {
    check(write_with_relaxed_end, read);
}
