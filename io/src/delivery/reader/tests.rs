//! The reader's promises, one by one; `model` holds them against a simple model, `lossy` against a link.

mod lossy;
mod model;

use std::collections::BTreeSet;

use super::*;
use crate::wire::{SchemaId, TopicId};

const MS: Nanos = Nanos::from_millis(1);
const EPOCH: Epoch = Epoch::new(7);

fn spec() -> ReaderSpec {
    ReaderSpec {
        topic: TopicId::of("arm/path"),
        schema: SchemaId::from_raw(11),
        class: Class::Stream,
        hold: 64,
        reorder: MS * 2,
        gap_timeout: MS * 100,
        acknowledge_every: 8,
        acknowledge_within: MS * 5,
        refresh: MS * 50,
        lifespan: None,
    }
}

/// A reader of `spec` in its first life, with room, whose announcement is out.
fn reader_of(spec: ReaderSpec) -> Reader<u64> {
    let mut reader = Reader::new(spec, 1);
    reader.new_life(EPOCH, Sequence::FIRST, Nanos::ZERO);
    reader.room(1_000, Nanos::ZERO);
    let announcement = acknowledgement(&mut reader, Nanos::ZERO).expect("announces itself");
    assert_eq!((announcement.floor.get(), announcement.limit.get()), (0, 64));
    reader
}

fn reader() -> Reader<u64> {
    reader_of(spec())
}

fn accept(reader: &mut Reader<u64>, sequence: u64, now: Nanos) -> Accepted<u64> {
    reader.accept(Sequence::new(sequence), Nanos::new(sequence.cast_signed()), sequence, now)
}

/// The same, where the answer is another claim's.
fn take(reader: &mut Reader<u64>, sequence: u64, now: Nanos) {
    drop(accept(reader, sequence, now));
}

fn acknowledgement<T>(reader: &mut Reader<T>, now: Nanos) -> Option<Acknowledgement> {
    match reader.report(now)? {
        Entry::Acknowledgement(entry) => Some(entry),
        other => panic!("{other:?}"),
    }
}

fn outcomes(reader: &mut Reader<u64>, now: Nanos) -> Option<(u64, Vec<u8>)> {
    match reader.report(now)? {
        Entry::Outcomes(entry) => {
            Some((entry.base.get(), entry.codes[..usize::from(entry.count)].to_vec()))
        }
        Entry::Acknowledgement(_) => None,
        other => panic!("{other:?}"),
    }
}

fn heartbeat(first: u64, last: u64) -> Heartbeat {
    Heartbeat {
        topic: spec().topic,
        schema: spec().schema,
        class: spec().class,
        first: Sequence::new(first),
        last: Sequence::new(last),
        unresolved: None,
        many: false,
    }
}

fn frame(sequence: u64) -> Option<Next<u64>> {
    Some(Next::Frame(Sequence::new(sequence), sequence))
}

fn gap(first: u64, last: u64) -> Option<Next<u64>> {
    Some(Next::Gap { first: Sequence::new(first), last: Sequence::new(last) })
}

#[test]
fn frames_out_of_order_are_given_in_order() {
    let mut reader = reader();
    assert_eq!(accept(&mut reader, 3, MS), Accepted::Held);
    assert_eq!(accept(&mut reader, 2, MS), Accepted::Held);
    assert_eq!(reader.next(MS), None);
    assert_eq!(accept(&mut reader, 1, MS), Accepted::InOrder);
    assert_eq!([1, 2, 3].map(frame), [reader.next(MS), reader.next(MS), reader.next(MS)]);
    assert_eq!(reader.next(MS), None);
    assert_eq!(reader.floor(), Sequence::new(3));
}

#[test]
fn a_frame_is_taken_once_whether_it_waits_or_is_done() {
    let mut reader = reader();
    assert_eq!(accept(&mut reader, 2, MS), Accepted::Held);
    assert_eq!(accept(&mut reader, 2, MS), Accepted::Duplicate(2));
    assert_eq!(accept(&mut reader, 1, MS), Accepted::InOrder);
    assert_eq!(accept(&mut reader, 1, MS), Accepted::Duplicate(1));
    assert_eq!(reader.next(MS), frame(1));
    assert_eq!(accept(&mut reader, 1, MS), Accepted::Duplicate(1));
    assert_eq!(accept(&mut reader, 0, MS), Accepted::Duplicate(0));
}

#[test]
fn sixty_four_above_the_floor_are_held_and_no_more() {
    let mut reader = reader();
    assert_eq!(accept(&mut reader, 64, MS), Accepted::Held);
    assert_eq!(accept(&mut reader, 65, MS), Accepted::Beyond(65));
    assert_eq!(accept(&mut reader, u64::MAX, MS), Accepted::Beyond(u64::MAX));
    take(&mut reader, 1, MS);
    reader.next(MS);
    assert_eq!(accept(&mut reader, 65, MS), Accepted::Held);
}

/// A reader that holds the most.
fn wide() -> Reader<u64> {
    let mut reader = Reader::new(ReaderSpec { hold: 256, ..spec() }, 1);
    reader.new_life(EPOCH, Sequence::FIRST, Nanos::ZERO);
    reader.room(1_000, Nanos::ZERO);
    assert_eq!(acknowledgement(&mut reader, Nanos::ZERO).unwrap().limit.get(), 256);
    reader
}

fn more(reader: &mut Reader<u64>, now: Nanos) -> (u64, [u64; 3], bool) {
    match reader.report(now) {
        Some(Entry::MoreHeld(entry)) => (entry.floor.get(), entry.held, entry.wanted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_made_for_256_holds_so_many() {
    let mut reader = wide();
    assert_eq!(accept(&mut reader, 256, MS), Accepted::Held);
    assert_eq!(accept(&mut reader, 257, MS), Accepted::Beyond(257));
    for sequence in 2..256 {
        assert_eq!(accept(&mut reader, sequence, MS), Accepted::Held);
    }
    take(&mut reader, 1, MS);
    assert_eq!((1..=256).find(|n| reader.next(MS) != frame(*n)), None);
}

#[test]
fn what_an_acknowledgement_has_no_room_for_follows_it() {
    let mut reader = wide();
    for sequence in [2, 64, 65, 256] {
        take(&mut reader, sequence, MS);
    }
    let first = acknowledgement(&mut reader, MS * 3).unwrap();
    assert_eq!((first.wanted, first.held), (true, 1 << 63 | 0b10));
    assert_eq!(reader.next_deadline(), Some(Nanos::MIN), "it is due at once");
    assert_eq!(more(&mut reader, MS * 3), (0, [1, 0, 1 << 63], true));
    assert_eq!(reader.report(MS * 3), None);
    // What the first 64 have room for needs no second entry.
    take(&mut reader, 1, MS * 4);
    while reader.next(MS * 4).is_some() {}
    take(&mut reader, 50, MS * 4);
    reader.new_life(Epoch::new(8), Sequence::FIRST, MS * 4);
    take(&mut reader, 64, MS * 4);
    assert_eq!(acknowledgement(&mut reader, MS * 9).unwrap().held, 1 << 63);
    assert!(!matches!(reader.report(MS * 9), Some(Entry::MoreHeld(_))));
}

#[test]
fn if_all_of_the_first_64_are_missing_the_second_entry_asks_for_them() {
    let mut reader = wide();
    take(&mut reader, 70, MS);
    let first = acknowledgement(&mut reader, MS * 3).unwrap();
    assert_eq!(
        (first.wanted, first.held),
        (false, 0),
        "else it would ask for what is after 70, too"
    );
    assert_eq!(more(&mut reader, MS * 3), (0, [1 << 5, 0, 0], true));
}

#[test]
fn a_second_entry_of_an_old_life_is_not_given_in_the_next() {
    let mut reader = wide();
    take(&mut reader, 70, MS);
    assert!(acknowledgement(&mut reader, MS * 3).is_some());
    reader.new_life(Epoch::new(8), Sequence::FIRST, MS * 3);
    assert_eq!(acknowledgement(&mut reader, MS * 3).unwrap().epoch, Epoch::new(8));
    assert_eq!(reader.report(MS * 3), None);
}

#[test]
fn nothing_is_taken_or_said_before_a_life_is_known() {
    let mut reader = Reader::new(spec(), 1);
    assert_eq!(accept(&mut reader, 1, MS), Accepted::Beyond(1));
    reader.room(64, MS);
    assert_eq!(reader.heartbeat(&heartbeat(1, 9), MS), Ok(()));
    assert_eq!((reader.next(MS), reader.report(MS), reader.next_deadline()), (None, None, None));
}

#[test]
fn a_hole_is_asked_for_after_the_reorder_delay_and_again_while_it_lasts() {
    let mut reader = reader();
    reader.set_round_trip(MS * 4);
    take(&mut reader, 1, MS);
    take(&mut reader, 4, MS);
    reader.next(MS);
    assert_eq!(reader.next_deadline(), Some(MS * 3));
    assert_eq!(reader.report(MS * 3 - Nanos::new(1)), None);
    let nak = acknowledgement(&mut reader, MS * 3).unwrap();
    assert_eq!((nak.wanted, nak.floor.get(), nak.held), (true, 1, 0b100));
    assert_eq!(reader.report(MS * 3), None);
    // 1.5 round trips.
    assert_eq!(reader.next_deadline(), Some(MS * 9));
    assert!(acknowledgement(&mut reader, MS * 9).unwrap().wanted);
    take(&mut reader, 2, MS * 10);
    take(&mut reader, 3, MS * 10);
    assert_eq!(reader.next_deadline(), Some(Nanos::MIN));
    while reader.next(MS * 10).is_some() {}
    assert_eq!(reader.next_deadline(), Some(MS * 15));
    assert!(!acknowledgement(&mut reader, MS * 15).unwrap().wanted);
}

#[test]
fn what_is_merely_reordered_is_not_asked_for() {
    let mut reader = reader();
    for pair in 0..1_000u64 {
        let now = MS * pair.cast_signed();
        take(&mut reader, pair * 2 + 2, now);
        take(&mut reader, pair * 2 + 1, now + Nanos::from_micros(1_999));
        while reader.next(now + Nanos::from_micros(1_999)).is_some() {}
        while let Some(report) = acknowledgement(&mut reader, now + Nanos::from_micros(1_999)) {
            assert!(!report.wanted, "pair {pair}");
        }
    }
}

#[test]
fn a_request_for_an_old_hole_does_not_ask_for_a_young_one() {
    let mut reader = reader();
    take(&mut reader, 2, MS);
    take(&mut reader, 4, MS * 2);
    let nak = acknowledgement(&mut reader, MS * 3).unwrap();
    assert_eq!((nak.wanted, nak.held), (true, 0b10));
    let nak = acknowledgement(&mut reader, MS * 4).unwrap();
    assert_eq!((nak.wanted, nak.held), (true, 0b1010));
}

#[test]
fn requests_become_rarer_when_none_helps() {
    let mut reader = reader_of(ReaderSpec { gap_timeout: Nanos::from_secs(100), ..spec() });
    take(&mut reader, 2, MS);
    let mut requests = 0;
    for at in 0..10_000 {
        if let Some(report) = acknowledgement(&mut reader, MS * at) {
            requests += u32::from(report.wanted);
        }
    }
    assert!((300..400).contains(&requests), "{requests}");
    // As soon as something comes they are quick again.
    take(&mut reader, 3, MS * 10_000);
    let soon = acknowledgement(&mut reader, MS * 10_001).unwrap();
    assert!(soon.wanted);
    assert_eq!(reader.next_deadline(), Some(MS * 10_002));
}

#[test]
fn tail_loss_is_found_by_a_heartbeat() {
    let mut reader = reader();
    take(&mut reader, 1, MS);
    reader.next(MS);
    assert_eq!(reader.heartbeat(&heartbeat(1, 3), MS * 2), Ok(()));
    let nak = acknowledgement(&mut reader, MS * 4).unwrap();
    assert_eq!((nak.wanted, nak.floor.get(), nak.held), (true, 1, 0));
    assert_eq!(reader.next(MS * 101), None);
    assert_eq!(reader.next(MS * 102), gap(2, 3));
}

#[test]
fn a_hole_that_lasts_becomes_one_gap_and_the_reader_goes_on() {
    let mut reader = reader();
    take(&mut reader, 4, MS);
    take(&mut reader, 7, MS * 5);
    assert_eq!(reader.next(MS * 101 - Nanos::new(1)), None);
    assert_eq!(reader.next(MS * 101), gap(1, 3));
    assert_eq!(reader.next(MS * 101), frame(4));
    assert_eq!(reader.next(MS * 105 - Nanos::new(1)), None);
    assert_eq!(reader.next(MS * 105), gap(5, 6));
    assert_eq!(reader.next(MS * 105), frame(7));
    assert_eq!(accept(&mut reader, 2, MS * 106), Accepted::Duplicate(2));
}

#[test]
fn each_part_of_a_hole_has_its_own_time() {
    let mut reader = reader();
    reader.heartbeat(&heartbeat(1, 2), MS).unwrap();
    reader.heartbeat(&heartbeat(1, 4), MS * 50).unwrap();
    assert_eq!(reader.next(MS * 101), gap(1, 2));
    assert_eq!(reader.next(MS * 149), None);
    assert_eq!(reader.next(MS * 150), gap(3, 4));
}

#[test]
fn an_end_that_could_not_be_asked_for_is_not_given_up_before_it_can_be() {
    let mut reader = reader();
    take(&mut reader, 2, MS);
    reader.heartbeat(&heartbeat(1, 4), MS).unwrap();
    assert_eq!(reader.next(MS * 101), gap(1, 1));
    assert_eq!(reader.next(MS * 101), frame(2));
    assert_eq!(reader.next(MS * 101), None);
    let nak = acknowledgement(&mut reader, MS * 103).unwrap();
    assert_eq!((nak.wanted, nak.floor.get(), nak.held), (true, 2, 0));
    assert_eq!(reader.next(MS * 201), gap(3, 4));

    // The same when the end was known before something in its midst arrived.
    reader.heartbeat(&heartbeat(1, 9), MS * 201).unwrap();
    take(&mut reader, 6, MS * 210);
    assert_eq!(reader.next(MS * 301), gap(5, 5));
    assert_eq!(reader.next(MS * 301), frame(6));
    assert_eq!(reader.next(MS * 400), None);
    assert_eq!(reader.next(MS * 401), gap(7, 9));
}

#[test]
fn messages_that_merely_arrive_in_order_do_not_put_off_the_gap_after_them() {
    let mut reader = reader();
    reader.heartbeat(&heartbeat(1, 4), MS).unwrap();
    for sequence in [1, 2] {
        take(&mut reader, sequence, MS * 50);
        assert_eq!(reader.next(MS * 50), frame(sequence));
    }
    assert_eq!(reader.next_deadline(), Some(MS * 3));
    assert_eq!(reader.next(MS * 101), gap(3, 4));
}

#[test]
fn what_the_writer_has_no_longer_is_a_gap_at_once_around_what_is_held() {
    let mut reader = reader();
    take(&mut reader, 3, MS);
    reader.heartbeat(&heartbeat(1_000_000, 2_000_000), MS).unwrap();
    assert_eq!(reader.next_deadline(), Some(Nanos::MIN));
    assert_eq!(reader.next(MS), gap(1, 2));
    assert_eq!(reader.next(MS), frame(3));
    assert_eq!(reader.next(MS), gap(4, 999_999));
    assert_eq!(reader.next(MS), None);
}

#[test]
fn an_older_heartbeat_takes_nothing_back() {
    let mut reader = reader();
    reader.heartbeat(&heartbeat(5, 6), MS).unwrap();
    reader.heartbeat(&heartbeat(1, 2), MS).unwrap();
    assert_eq!(reader.next(MS), gap(1, 4));
}

#[test]
fn a_heartbeat_that_contradicts_itself_or_the_subscriber_changes_nothing() {
    let mut reader = reader();
    let range = |first, last| Err(Mismatch::Range { first, last });
    assert_eq!(reader.heartbeat(&heartbeat(5, 3), MS), range(5, 3));
    assert_eq!(reader.heartbeat(&heartbeat(0, 3), MS), range(0, 3));
    assert_eq!(reader.heartbeat(&heartbeat(u64::MAX, u64::MAX), MS), range(u64::MAX, u64::MAX));
    let class = Heartbeat { class: Class::Command, ..heartbeat(1, 9) };
    let mismatch = Mismatch::Class { ours: Class::Stream, theirs: Class::Command };
    assert_eq!(reader.heartbeat(&class, MS), Err(mismatch));
    let schema = Heartbeat { schema: SchemaId::from_raw(12), ..heartbeat(1, 9) };
    let mismatch = Mismatch::Schema { ours: spec().schema, theirs: SchemaId::from_raw(12) };
    assert_eq!(reader.heartbeat(&schema, MS), Err(mismatch));
    assert_eq!(reader.next(MS * 1_000), None);
    assert_eq!(reader.heartbeat(&heartbeat(4, 3), MS), Ok(()));
    assert_eq!(reader.next(MS), gap(1, 3));
}

#[test]
fn a_liar_that_announces_everything_gets_gaps_of_what_it_was_allowed_to_send() {
    let mut reader = reader();
    reader.heartbeat(&heartbeat(1, u64::MAX), MS).unwrap();
    assert_eq!(reader.next(MS * 101), gap(1, 64));
    assert_eq!(reader.next(MS * 101), None);
    // Without a report nothing more was allowed, so nothing more is missing.
    reader.room(1_000, MS * 101);
    reader.heartbeat(&heartbeat(1, u64::MAX), MS * 101).unwrap();
    assert_eq!(reader.next(MS * 1_000_000), None);
}

#[test]
fn the_last_sequence_of_all_is_delivered_and_nothing_overflows() {
    let mut reader = reader();
    reader.new_life(Epoch::new(8), Sequence::new(u64::MAX - 1), MS);
    reader.room(64, MS);
    let report = acknowledgement(&mut reader, MS).unwrap();
    assert_eq!((report.floor.get(), report.limit.get()), (u64::MAX - 2, u64::MAX));
    assert_eq!(accept(&mut reader, u64::MAX, MS), Accepted::Held);
    reader.heartbeat(&heartbeat(u64::MAX, u64::MAX), MS).unwrap();
    assert_eq!(reader.next(MS), gap(u64::MAX - 1, u64::MAX - 1));
    assert_eq!(reader.next(MS), frame(u64::MAX));
    assert_eq!(reader.next(MS * 1_000), None);
    assert_eq!(accept(&mut reader, u64::MAX, MS), Accepted::Duplicate(u64::MAX));
    reader.heartbeat(&heartbeat(u64::MAX, u64::MAX), MS).unwrap();
    reader.room(64, MS);
    assert_eq!(acknowledgement(&mut reader, MS * 1_000).unwrap().floor.get(), u64::MAX);
}

#[test]
fn an_acknowledgement_is_due_after_some_messages_or_some_time_or_the_refresh() {
    let mut reader = reader();
    for sequence in 1..=7 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
    }
    assert_eq!(reader.report(MS), None);
    assert_eq!(reader.next_deadline(), Some(MS * 6));
    take(&mut reader, 8, MS * 2);
    reader.next(MS * 2);
    assert_eq!(acknowledgement(&mut reader, MS * 2).unwrap().floor.get(), 8);
    take(&mut reader, 9, MS * 3);
    reader.next(MS * 3);
    assert_eq!(reader.report(MS * 8 - Nanos::new(1)), None);
    assert_eq!(acknowledgement(&mut reader, MS * 8).unwrap().floor.get(), 9);
    assert_eq!(reader.next_deadline(), Some(MS * 58));
    assert_eq!(acknowledgement(&mut reader, MS * 58).unwrap().floor.get(), 9);
}

#[test]
fn a_duplicate_makes_an_acknowledgement_due_but_a_flood_of_them_one_a_millisecond() {
    let mut reader = reader();
    take(&mut reader, 1, MS);
    reader.next(MS);
    let mut reports = 0;
    for at in 0..10_000 {
        let now = MS + Nanos::from_micros(at);
        assert_eq!(accept(&mut reader, 1, now), Accepted::Duplicate(1));
        reports += u32::from(reader.report(now).is_some());
    }
    assert_eq!(reports, 10);
}

#[test]
fn a_duplicate_is_answered_at_once() {
    let mut reader = reader();
    take(&mut reader, 1, MS);
    reader.next(MS);
    assert_eq!(acknowledgement(&mut reader, MS * 6).unwrap().floor.get(), 1);
    take(&mut reader, 1, MS * 10);
    assert_eq!(acknowledgement(&mut reader, MS * 10).unwrap().floor.get(), 1);
}

#[test]
fn what_the_subscriber_takes_late_is_acknowledged_soon_after() {
    let mut reader = reader();
    reader.room(0, MS);
    take(&mut reader, 1, MS);
    assert_eq!(acknowledgement(&mut reader, MS * 6).unwrap().floor.get(), 0);
    reader.room(1, MS * 20);
    assert_eq!(reader.next(MS * 20), frame(1));
    assert_eq!(reader.next_deadline(), Some(MS * 25));
    assert_eq!(acknowledgement(&mut reader, MS * 25).unwrap().floor.get(), 1);
}

#[test]
fn a_report_says_when_the_newest_message_was_sent_and_how_long_ago_it_came() {
    let mut reader = reader();
    let _ = reader.accept(Sequence::new(2), Nanos::new(-77), 2, MS);
    let _ = reader.accept(Sequence::new(1), Nanos::new(-78), 1, MS * 2);
    let report = acknowledgement(&mut reader, MS * 6).unwrap();
    assert_eq!((report.echo, report.held_us), (Some(Nanos::new(-77)), 5_000));
}

#[test]
fn the_limit_is_what_the_queue_takes_and_64_at_most() {
    let mut reader = reader();
    reader.new_life(Epoch::new(8), Sequence::FIRST, MS);
    reader.room(3, MS);
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 64, "promised by new_life");

    let mut reader = Reader::new(spec(), 1);
    reader.new_life(EPOCH, Sequence::FIRST, MS);
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 0);
    reader.room(3, MS * 2);
    assert_eq!(acknowledgement(&mut reader, MS * 2).unwrap().limit.get(), 3);
    reader.room(1, MS * 3);
    assert_eq!(reader.report(MS * 3), None);
    take(&mut reader, 1, MS * 3);
    let report = acknowledgement(&mut reader, MS * 8).unwrap();
    assert_eq!(report.limit.get(), 3, "a promise is not taken back");
    reader.room(1_000, MS * 8);
    assert_eq!(acknowledgement(&mut reader, MS * 8).unwrap().limit.get(), 64);
}

#[test]
fn the_limit_is_never_below_the_floor() {
    let mut reader = Reader::new(spec(), 1);
    reader.new_life(EPOCH, Sequence::FIRST, MS);
    reader.room(2, MS);
    reader.heartbeat(&heartbeat(1_000, 1_000), MS).unwrap();
    assert_eq!(reader.next(MS), gap(1, 999));
    let report = acknowledgement(&mut reader, MS).unwrap();
    assert_eq!((report.floor.get(), report.limit.get()), (999, 999));
}

#[test]
fn the_writer_hears_at_once_when_the_room_opened_by_half_or_from_nothing() {
    let mut reader = Reader::new(ReaderSpec { acknowledge_every: 1_000, ..spec() }, 1);
    reader.new_life(EPOCH, Sequence::FIRST, MS);
    reader.room(8, MS);
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 8);
    for sequence in 1..=4 {
        assert_eq!(reader.report(MS), None);
        take(&mut reader, sequence, MS);
        reader.next(MS);
        reader.room(8, MS);
    }
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 12);
    for sequence in 5..=12 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
        reader.room(12 - sequence, MS);
    }
    assert_eq!(reader.report(MS), None);
    reader.room(1, MS);
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 13);
}

#[test]
fn a_subscriber_that_reads_nothing_for_long_finds_what_was_kept_and_one_gap() {
    let mut reader = Reader::new(spec(), 1);
    reader.new_life(EPOCH, Sequence::FIRST, MS);
    reader.room(4, MS);
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().limit.get(), 4);
    reader.room(0, MS);
    for sequence in [1, 2, 4] {
        take(&mut reader, sequence, MS * 2);
    }
    // The writer gives this reader up, and its ring moves on for an hour.
    for minute in 1..=60 {
        let now = Nanos::from_secs(60) * minute;
        let last = minute.cast_unsigned() * 60_000;
        reader.heartbeat(&heartbeat(last - 100, last), now).unwrap();
        while reader.report(now).is_some() {}
        let deadline = reader.next_deadline().unwrap();
        assert!(deadline > now, "nothing to wait for that the subscriber could not take");
    }
    let now = Nanos::from_secs(3_601);
    reader.room(64, now);
    assert_eq!([frame(1), frame(2)], [reader.next(now), reader.next(now)]);
    assert_eq!([gap(3, 3), frame(4)], [reader.next(now), reader.next(now)]);
    assert_eq!(reader.next(now), gap(5, 3_599_899));
    assert_eq!(reader.next(now), None);
    // The room that opens is asked for in the same breath: nothing there is merely late.
    reader.room(64, now);
    let report = acknowledgement(&mut reader, now).unwrap();
    assert_eq!((report.wanted, report.floor.get()), (true, 3_599_899));
    assert_eq!(report.limit.get(), 3_599_963);
}

#[test]
fn what_is_in_order_but_finds_no_room_is_never_bit_zero_of_a_report() {
    let mut reader = reader();
    take(&mut reader, 1, MS);
    take(&mut reader, 3, MS);
    let report = acknowledgement(&mut reader, MS * 3).unwrap();
    assert_eq!((report.wanted, report.floor.get(), report.held), (true, 0, 0b100));
    assert_eq!(reader.next_deadline(), Some(Nanos::MIN));
    reader.room(0, MS * 3);
    assert_eq!(reader.next_deadline(), Some(MS * 4));
}

#[test]
fn a_new_life_drops_what_was_held_and_starts_at_its_own_sequence() {
    let mut reader = reader();
    take(&mut reader, 2, MS);
    take(&mut reader, 5, MS);
    reader.heartbeat(&heartbeat(1, 9), MS).unwrap();
    reader.new_life(Epoch::new(8), Sequence::new(3), MS);
    assert_eq!(reader.floor(), Sequence::new(2));
    let report = acknowledgement(&mut reader, MS).unwrap();
    assert_eq!((report.epoch, report.held), (Epoch::new(8), 0));
    assert_eq!((report.wanted, report.echo), (false, None));
    assert_eq!(accept(&mut reader, 5, MS), Accepted::Held);
    assert_eq!(accept(&mut reader, 3, MS), Accepted::InOrder);
    assert_eq!(reader.next(MS), frame(3));
    assert_eq!(reader.next(MS), None);
    // An older life, or the same once more, changes nothing.
    reader.new_life(EPOCH, Sequence::FIRST, MS);
    reader.new_life(Epoch::new(8), Sequence::new(50), MS);
    assert_eq!((reader.epoch(), reader.floor()), (Epoch::new(8), Sequence::new(3)));
    assert_eq!(reader.next(MS), None);
    // Unless it went on unheard for longer than an outage explains.
    reader.new_life(Epoch::new(8), Sequence::new(1 << 40), MS);
    assert_eq!(reader.next(MS), gap(4, 4));
    assert_eq!(reader.next(MS), frame(5));
    assert_eq!(reader.next(MS), gap(6, (1 << 40) - 1));
}

#[test]
fn one_of_many_readers_asks_after_a_delay_of_its_own_and_acknowledges_rarely() {
    let delays: BTreeSet<_> = (0..20)
        .map(|seed| {
            let mut reader = Reader::new(spec(), seed);
            reader.set_round_trip(MS * 10);
            reader.new_life(EPOCH, Sequence::FIRST, Nanos::ZERO);
            reader.room(64, Nanos::ZERO);
            let many = Heartbeat { many: true, ..heartbeat(1, 0) };
            reader.heartbeat(&many, Nanos::ZERO).unwrap();
            assert!(reader.report(Nanos::ZERO).is_some());
            for sequence in 2..=20 {
                take(&mut reader, sequence, MS);
            }
            let asks = reader.next_deadline().unwrap();
            assert!((MS * 3..=MS * 13).contains(&asks), "{asks}");
            assert_eq!(reader.report(asks - Nanos::new(1)), None);
            assert!(acknowledgement(&mut reader, asks).unwrap().wanted);
            assert!(reader.next_deadline().unwrap() > asks);
            asks
        })
        .collect();
    assert_eq!(delays.len(), 20);
}

#[test]
fn a_reader_that_its_writer_has_not_answered_says_again_that_it_is_there() {
    let ms = Nanos::from_millis;
    let mut reader = reader_of(ReaderSpec { refresh: ms(500), ..spec() });
    reader.new_life(Epoch::new(9), Sequence::FIRST, ms(1_000));
    let mut said = Vec::new();
    for _ in 0..7 {
        let at = reader.next_deadline().unwrap();
        assert!(acknowledgement(&mut reader, at).is_some());
        said.push((at - ms(1_000)).as_nanos() / 1_000_000);
    }
    assert_eq!(said, [0, 20, 60, 140, 300, 620, 1_120]);
    let mut answered = reader_of(ReaderSpec { refresh: ms(500), ..spec() });
    answered.new_life(Epoch::new(9), Sequence::FIRST, ms(1_000));
    acknowledgement(&mut answered, ms(1_000));
    answered
        .heartbeat(&Heartbeat { last: Sequence::new(0), ..heartbeat(1, 0) }, ms(1_001))
        .unwrap();
    acknowledgement(&mut answered, ms(1_020));
    assert_eq!(answered.next_deadline(), Some(ms(1_520)));
}

fn commands() -> Reader<u64> {
    reader_of(ReaderSpec { class: Class::Command, ..spec() })
}

#[test]
fn a_decided_command_is_reported_unasked_once_with_the_acknowledgement() {
    let mut reader = commands();
    for sequence in 1..=3 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
    }
    reader.decide(Sequence::new(3), 1);
    reader.decide(Sequence::new(1), 16);
    reader.decide(Sequence::new(1), 1);
    reader.decide(Sequence::new(4), 1);
    assert_eq!(reader.next_deadline(), Some(Nanos::MIN));
    assert_eq!(outcomes(&mut reader, MS), Some((1, vec![16, 0, 1])));
    assert_eq!(acknowledgement(&mut reader, MS).unwrap().floor.get(), 3);
    assert_eq!(reader.report(MS), None);
    assert_eq!(reader.next_deadline(), Some(MS * 51), "a command to come is not decided");
}

#[test]
fn a_new_outcome_is_told_with_those_before_it() {
    let mut reader = commands();
    let mut told = [0; 40];
    for sequence in 1..=40 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
        reader.decide(Sequence::new(sequence), 1);
        let (base, codes) = outcomes(&mut reader, MS).unwrap();
        for n in 0..codes.len() {
            told[base as usize - 1 + n] += 1;
        }
    }
    assert_eq!(told[..9], [32; 9]);
    assert_eq!((told[38], told[39]), (2, 1));
}

#[test]
fn outcomes_are_sent_again_when_a_heartbeat_asks_for_them_but_not_in_a_flood() {
    let mut reader = commands();
    for sequence in 1..=1_200 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
        reader.decide(Sequence::new(sequence), 1);
        while reader.report(MS).is_some() {}
    }
    let ask = |unresolved| Heartbeat {
        class: Class::Command,
        unresolved: Some(Sequence::new(unresolved)),
        ..heartbeat(1, 1_200)
    };
    reader.heartbeat(&ask(1_199), MS * 2).unwrap();
    reader.heartbeat(&ask(1), MS * 2).unwrap();
    assert_eq!(outcomes(&mut reader, MS * 2), Some((1_169, vec![1; 32])));
    assert_eq!(reader.report(MS * 2), None);
    // The oldest kept is 1,200 − 1,023.
    reader.heartbeat(&ask(1), MS * 3).unwrap();
    assert_eq!(outcomes(&mut reader, MS * 3), Some((177, vec![1; 32])));
    reader.heartbeat(&ask(u64::MAX), MS * 9).unwrap();
    assert_eq!(reader.report(MS * 3), None);
}

#[test]
fn commands_of_a_gap_are_reported_as_never_arrived() {
    let mut reader = commands();
    let lost = Heartbeat { class: Class::Command, ..heartbeat(40, 40) };
    reader.heartbeat(&lost, MS).unwrap();
    assert_eq!(reader.next(MS), gap(1, 39));
    assert_eq!(outcomes(&mut reader, MS), Some((1, vec![3; 32])));
    assert_eq!(outcomes(&mut reader, MS), Some((8, vec![3; 32])));
    assert_eq!(reader.report(MS), None);
    reader.decide(Sequence::new(5), 1);
    assert_eq!(reader.report(MS), None, "what never arrived cannot be accepted");
}

#[test]
fn nothing_is_waited_for_longer_than_messages_live() {
    let mut reader = reader_of(ReaderSpec { lifespan: Some(MS * 20), ..spec() });
    take(&mut reader, 2, MS);
    assert_eq!(reader.next(MS * 21), gap(1, 1));
}
