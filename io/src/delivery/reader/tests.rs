//! The reader's promises, one by one, and then against a simple model of them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const MS: Nanos = Nanos::from_millis(1);
const EPOCH: Epoch = Epoch::new(7);

fn spec() -> ReaderSpec {
    ReaderSpec {
        topic: TopicId::of("arm/path"),
        schema: SchemaId::from_raw(11),
        class: Class::Stream,
        reorder: MS * 2,
        gap_timeout: MS * 100,
        acknowledge_every: 8,
        acknowledge_within: MS * 5,
        refresh: MS * 50,
        lifespan: None,
        nak_only: false,
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

#[test]
fn nothing_is_taken_or_said_before_a_life_is_known() {
    let mut reader = Reader::new(spec(), 1);
    assert_eq!(accept(&mut reader, 1, MS), Accepted::Beyond(1));
    reader.room(64, MS);
    reader.duplicate(MS);
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
        match at % 2 {
            0 => assert_eq!(accept(&mut reader, 1, now), Accepted::Duplicate(1)),
            _ => reader.duplicate(now),
        }
        reports += u32::from(reader.report(now).is_some());
    }
    assert_eq!(reports, 10);
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
            let mut reader = Reader::new(ReaderSpec { nak_only: true, ..spec() }, seed);
            reader.set_round_trip(MS * 10);
            reader.new_life(EPOCH, Sequence::FIRST, Nanos::ZERO);
            reader.room(64, Nanos::ZERO);
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
}

#[test]
fn outcomes_are_sent_again_when_a_heartbeat_asks_for_them_but_not_in_a_flood() {
    let mut reader = commands();
    for sequence in 1..=300 {
        take(&mut reader, sequence, MS);
        reader.next(MS);
        reader.decide(Sequence::new(sequence), 1);
        while reader.report(MS).is_some() {}
    }
    let ask = |unresolved| Heartbeat {
        class: Class::Command,
        unresolved: Some(Sequence::new(unresolved)),
        ..heartbeat(1, 300)
    };
    reader.heartbeat(&ask(299), MS * 2).unwrap();
    reader.heartbeat(&ask(1), MS * 2).unwrap();
    assert_eq!(outcomes(&mut reader, MS * 2), Some((299, vec![1, 1])));
    assert_eq!(reader.report(MS * 2), None);
    // The oldest kept is 300 − 255.
    reader.heartbeat(&ask(1), MS * 3).unwrap();
    assert_eq!(outcomes(&mut reader, MS * 3), Some((45, vec![1; 32])));
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
    assert_eq!(outcomes(&mut reader, MS), Some((33, vec![3; 7])));
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

/// A writer that keeps everything and resends exactly what a report asks for, over links that lose.
fn lossy_run(seed: u64, loss_percent: i64) -> (u64, u64) {
    let mut random = SplitMix64(seed);
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

/// A frame that counts those that live.
#[derive(Debug)]
struct Counted(u64, Rc<Cell<i64>>);

impl Counted {
    fn new(sequence: u64, alive: &Rc<Cell<i64>>) -> Self {
        alive.set(alive.get() + 1);
        Self(sequence, Rc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A frame this far above the floor (or below it).
    Frame(i64),
    /// `first` this far from the floor, and so many after it.
    Heartbeat(i64, u64),
    Wait(i64),
    Room(u64),
    Deliver,
    Report,
    UntilDeadline,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (-3i64..70).prop_map(Event::Frame),
        6 => (0i64..6).prop_map(Event::Frame),
        2 => (-20i64..12, 0u64..80).prop_map(|(first, more)| Event::Heartbeat(first, more)),
        2 => (0i64..3_000_000).prop_map(Event::Wait),
        1 => (0i64..200_000_000).prop_map(Event::Wait),
        2 => (0u64..100).prop_map(Event::Room),
        5 => Just(Event::Deliver),
        3 => Just(Event::Report),
        2 => Just(Event::UntilDeadline),
    ]
}

/// What a reader should do, without its cleverness: sets of everything.
struct Model {
    reader: Reader<Counted>,
    spec: ReaderSpec,
    alive: Rc<Cell<i64>>,
    now: Nanos,
    taken: BTreeSet<u64>,
    /// Since when each sequence could be known to have been sent.
    sent: BTreeMap<u64, Nanos>,
    first: u64,
    last: u64,
    floor: u64,
    free: u64,
    /// The highest limit that the rooms so far allow.
    allowed: u64,
    limit: u64,
}

impl Model {
    fn new(spec: ReaderSpec, next: u64) -> Self {
        let mut reader = Reader::new(spec, 3);
        reader.new_life(EPOCH, Sequence::new(next), Nanos::ZERO);
        Self {
            reader,
            spec,
            alive: Rc::default(),
            now: Nanos::ZERO,
            taken: BTreeSet::new(),
            sent: BTreeMap::new(),
            first: next,
            last: next - 1,
            floor: next - 1,
            free: 0,
            allowed: next - 1,
            limit: next - 1,
        }
    }

    fn step(&mut self, event: &Event) {
        match *event {
            Event::Frame(above) => self.frame(self.floor.saturating_add_signed(above)),
            Event::Heartbeat(first, more) => {
                let first = self.floor.saturating_add_signed(first).max(1);
                self.heartbeat(first, (first - 1).saturating_add(more));
            }
            Event::Wait(ns) => self.now += Nanos::new(ns),
            Event::Room(free) => self.room(free),
            Event::Deliver => self.deliver(),
            Event::Report => self.report(),
            Event::UntilDeadline => {
                self.deliver();
                self.report();
                self.until_deadline();
            }
        }
        assert_eq!(self.reader.floor().get(), self.floor);
        let waiting = self.taken.range(self.floor.saturating_add(1)..).count();
        let waiting = if self.floor == u64::MAX { 0 } else { waiting };
        assert_eq!(self.alive.get(), waiting as i64, "frames are neither lost nor kept");
    }

    fn see(&mut self, last: u64) {
        for sequence in self.floor.saturating_add(1)..=last.min(self.floor.saturating_add(200)) {
            self.sent.entry(sequence).or_insert(self.now);
        }
    }

    fn frame(&mut self, sequence: u64) {
        let frame = Counted::new(sequence, &self.alive);
        let accepted = self.reader.accept(Sequence::new(sequence), self.now, frame, self.now);
        match accepted {
            Accepted::Duplicate(_) => {
                assert!(sequence <= self.floor || self.taken.contains(&sequence));
            }
            Accepted::Beyond(_) => assert!(sequence > self.floor + 64),
            Accepted::InOrder | Accepted::Held => {
                assert!(sequence > self.floor && sequence - self.floor <= 64);
                assert_eq!(matches!(accepted, Accepted::InOrder), sequence == self.floor + 1);
                assert!(self.taken.insert(sequence), "taken twice");
                self.see(sequence);
            }
        }
    }

    fn heartbeat(&mut self, first: u64, last: u64) {
        let sound = Heartbeat { class: self.spec.class, ..heartbeat(first, last) };
        assert_eq!(self.reader.heartbeat(&sound, self.now), Ok(()));
        self.first = self.first.max(first);
        self.last = self.last.max(last);
        self.see(last);
    }

    fn room(&mut self, free: u64) {
        self.free = free;
        self.allowed = self.allowed.max(self.floor.saturating_add(free.min(64)));
        self.reader.room(free, self.now);
    }

    fn deliver(&mut self) {
        while self.free > 0 && self.deliver_one() {}
        self.room(self.free);
    }

    fn deliver_one(&mut self) -> bool {
        let Some(next) = self.reader.next(self.now) else { return false };
        self.free -= 1;
        match next {
            Next::Frame(sequence, frame) => {
                assert_eq!((sequence.get(), frame.0), (self.floor + 1, self.floor + 1));
                assert!(self.taken.contains(&sequence.get()));
                self.floor += 1;
            }
            Next::Gap { first, last } => {
                let (first, last) = (first.get(), last.get());
                assert_eq!(first, self.floor + 1);
                assert!(last >= first);
                assert_eq!(self.taken.range(first..=last).next(), None, "in a gap, yet taken");
                for sequence in first.max(self.first)..=last {
                    let sent = self.sent.get(&sequence).expect("given up, yet never seen");
                    assert!(self.now >= *sent + self.spec.gap_timeout, "given up too early");
                }
                self.floor = last;
            }
        }
        self.allowed = self.allowed.max(self.floor);
        true
    }

    fn report(&mut self) {
        let mut reports = 0;
        while let Some(entry) = self.reader.report(self.now) {
            reports += 1;
            assert!(reports <= 16, "reports have no end");
            let Entry::Acknowledgement(report) = entry else {
                assert_eq!(self.spec.class, Class::Command, "{entry:?}");
                continue;
            };
            let bits = (1..64u64)
                .filter(|n| self.floor.checked_add(1 + n).is_some_and(|s| self.taken.contains(&s)))
                .fold(0u64, |bits, n| bits | 1 << n);
            let shown = report.held;
            assert_eq!(report.floor.get(), self.floor);
            let ends = 64 - shown.leading_zeros();
            let below = u64::MAX.checked_shr(64 - ends).unwrap_or(0);
            assert_eq!(shown, bits & below, "the bitmap is what is held, up to its end");
            if !report.wanted {
                assert_eq!(shown, bits);
            }
            assert_eq!(shown == 0, bits == 0);
            let limit = report.limit.get();
            assert!(limit >= self.limit, "a promise was taken back");
            assert!(limit <= self.allowed && limit <= self.floor.saturating_add(64));
            self.limit = limit;
        }
    }

    /// Goes to the next deadline; nothing is due just before, something is then.
    fn until_deadline(&mut self) {
        let deadline = self.reader.next_deadline().expect("a refresh is always ahead");
        let before = deadline - Nanos::new(1);
        if before > self.now {
            self.now = before;
            assert!(self.reader.report(self.now).is_none(), "a report before the deadline");
            let early = self.free > 0 && self.deliver_one();
            assert!(!early, "a delivery before the deadline");
        }
        self.now = self.now.max(deadline);
        let delivers = self.free > 0 && self.deliver_one();
        assert!(delivers || self.reader.report(self.now).is_some(), "nothing at the deadline");
    }

    /// Lets time pass until everything that was allowed to be sent is done.
    fn finish(mut self) {
        self.room(1_000);
        let highest = self.taken.last().copied().unwrap_or(0);
        for _ in 0..5_000 {
            self.deliver();
            if self.floor >= highest && self.floor >= self.last {
                assert!(self.taken.iter().all(|sequence| *sequence <= self.floor));
                drop(self.reader);
                assert_eq!(self.alive.get(), 0);
                return;
            }
            self.room(1_000);
            self.report();
            self.until_deadline();
        }
        panic!("stuck at {} of {} and {}", self.floor, highest, self.last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_reader_does_what_a_simple_model_does(
        events in prop::collection::vec(event(), 1..200),
        next in prop_oneof![Just(1u64), 1u64..1_000, u64::MAX - 120..u64::MAX],
        nak_only in any::<bool>(),
        class in prop_oneof![Just(Class::Stream), Just(Class::Command)],
    ) {
        let mut model = Model::new(ReaderSpec { nak_only, class, ..spec() }, next);
        for event in &events {
            model.step(event);
        }
        model.finish();
    }
}

/// Small, large and any numbers, with those around a present floor the most telling.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..200, any::<u64>(), u64::MAX - 200..=u64::MAX, Just(1 << 32), Just(1 << 63)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_a_peer_says_nothing_panics_and_every_call_ends(
        events in prop::collection::vec((0u8..9, number(), number(), number(), 0i64..50_000_000), 1..150),
        nak_only in any::<bool>(),
        start in number(),
    ) {
        let alive = Rc::default();
        let spec = ReaderSpec { nak_only, class: Class::Command, ..spec() };
        let mut reader = Reader::new(spec, 5);
        let mut now = Nanos::ZERO;
        let (mut floor, mut epoch) = (Sequence::default(), Epoch::NONE);
        reader.new_life(EPOCH, Sequence::new(start), now);
        for (kind, a, b, c, wait) in events {
            let near = reader.floor().get().wrapping_add(a % 130).wrapping_sub(10);
            match kind {
                0 | 1 => {
                    let sequence = if kind == 0 { a } else { near };
                    let sent_at = Nanos::new(b.cast_signed());
                    let frame = Counted::new(sequence, &alive);
                    drop(reader.accept(Sequence::new(sequence), sent_at, frame, now));
                }
                2 | 3 => {
                    let unresolved = Some(Sequence::new(c));
                    let (first, last) = if kind == 2 { (a, b) } else { (near, b) };
                    let class = Class::Command;
                    let heartbeat = Heartbeat { class, unresolved, ..heartbeat(first, last) };
                    let _ = reader.heartbeat(&heartbeat, now);
                }
                4 => reader.room(a, now),
                5 => reader.decide(Sequence::new(if b % 2 == 0 { a } else { near }), c as u8),
                6 => reader.set_round_trip(Nanos::new(a.cast_signed())),
                7 => reader.new_life(Epoch::new(a % 32), Sequence::new(b), now),
                _ => reader.duplicate(now),
            }
            now += Nanos::new(wait);
            prop_assert!(reader.epoch() >= epoch);
            prop_assert!(reader.epoch() > epoch || reader.floor() >= floor);
            let steps = std::iter::from_fn(|| reader.next(now)).take(1_000).count();
            prop_assert!(steps <= 130, "{steps} deliveries from one event");
            let steps = std::iter::from_fn(|| reader.report(now)).take(1_000).count();
            prop_assert!(steps <= 12, "{steps} reports from one event");
            prop_assert!(alive.get() <= 64);
            (floor, epoch) = (reader.floor(), reader.epoch());
        }
        drop(reader);
        prop_assert_eq!(alive.get(), 0);
    }
}
