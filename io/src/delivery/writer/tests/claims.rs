//! One claim each, by hand.

use super::*;
use share::FLOOR_BYTES;

const NOW: Nanos = Nanos::from_secs(50);

/// A writer that reader 0 has matched at [`NOW`].
fn matched(spec: WriterSpec) -> Writer {
    let mut writer = Writer::new(spec, NOW);
    writer.acknowledge(peer(0), EPOCH, &acknowledgement(0), NOW).unwrap();
    assert_eq!((writer.matched(), events(&mut writer)), (1, vec![]));
    writer
}

fn send(writer: &mut Writer, count: u64, now: Nanos) {
    for _ in 0..count {
        assert!(writer.room(now));
        writer.keep(now, &frame(writer.next().get(), 100));
    }
}

fn wanted(floor: u64, held: u64) -> Acknowledgement {
    Acknowledgement { held, wanted: true, ..acknowledgement(floor) }
}

fn tell(writer: &mut Writer, reader: usize, entry: &Acknowledgement, now: Nanos) {
    writer.acknowledge(peer(reader), EPOCH, entry, now).unwrap();
}

fn heartbeats(writer: &mut Writer, now: Nanos) -> Vec<(usize, u64, u64)> {
    std::iter::from_fn(|| writer.heartbeat(now))
        .map(|(peer, entry)| (peer.get(), entry.first.get(), entry.last.get()))
        .collect()
}

fn words(base: u64, codes: &[u8]) -> Outcomes {
    let mut all = [0; OUTCOMES_MAX];
    all[..codes.len()].copy_from_slice(codes);
    let (topic, epoch) = (spec().topic, EPOCH);
    Outcomes { topic, epoch, base: Sequence::new(base), count: codes.len() as u8, codes: all }
}

fn resolved(sequence: u64, outcome: Outcome) -> WriterEvent {
    WriterEvent::Resolved { sequence: Sequence::new(sequence), outcome }
}

fn lagging(reader: usize, first: u64, last: u64) -> WriterEvent {
    let (first, last) = (Sequence::new(first), Sequence::new(last));
    WriterEvent::Lagging { peer: peer(reader), first, last }
}

#[test]
fn a_reader_is_matched_by_its_first_acknowledgement_and_lost_when_it_falls_silent() {
    let mut writer = matched(spec());
    assert!(writer.is_matched(peer(0)) && !writer.is_matched(peer(1)));
    writer.room(NOW + ms(2_999));
    assert!(writer.is_matched(peer(0)));
    writer.room(NOW + ms(3_000));
    assert!(!writer.is_matched(peer(0)));
    assert_eq!((writer.matched(), events(&mut writer)), (0, vec![]));
}

#[test]
fn a_reader_that_expects_something_else_is_told_once_with_both_names_and_not_matched() {
    let mut writer = Writer::new(spec(), NOW);
    let other = Acknowledgement { schema: SchemaId::from_raw(6), ..acknowledgement(0) };
    let mismatch = writer.acknowledge(peer(0), EPOCH, &other, NOW).unwrap_err();
    assert_eq!((mismatch.our_schema, mismatch.their_schema), (spec().schema, other.schema));
    let class = Acknowledgement { class: Class::Control, ..acknowledgement(0) };
    assert!(writer.acknowledge(peer(0), EPOCH, &class, NOW).is_err());
    assert!(!writer.is_matched(peer(0)));
    assert_eq!(events(&mut writer), [WriterEvent::Mismatch(mismatch)]);
    assert!(mismatch.to_string().contains("schema 0000000000000006"));
}

#[test]
fn what_is_about_another_life_or_was_never_sent_changes_nothing() {
    let mut writer = Writer::new(spec(), NOW);
    send(&mut writer, 5, NOW);
    for entry in [
        Acknowledgement { epoch: Epoch::new(6), ..acknowledgement(0) },
        Acknowledgement { topic: TopicId::of("leg/path"), ..acknowledgement(0) },
        acknowledgement(6),
        acknowledgement(u64::MAX),
        wanted(3, 1 << 2),
        wanted(0, 1 << 63),
    ] {
        writer.acknowledge(peer(0), EPOCH, &entry, NOW).unwrap();
        assert!(!writer.is_matched(peer(0)), "{entry:?}");
    }
    writer.acknowledge(peer(9), EPOCH, &acknowledgement(0), NOW).unwrap();
    assert_eq!(writer.refused(), 6);
    assert_eq!(events(&mut writer), []);
}

#[test]
fn without_a_reader_the_ring_overwrites_and_a_late_one_gets_what_is_left() {
    let mut writer = Writer::new(spec(), NOW);
    send(&mut writer, 20, NOW);
    let late = NOW + Nanos::from_secs(60);
    tell(&mut writer, 1, &wanted(10, 0), late);
    assert!(writer.is_matched(peer(1)));
    assert_eq!(events(&mut writer), [lagging(1, 11, 12)]);
    assert_eq!(heartbeats(&mut writer, late), [(1, 13, 20)]);
    assert_eq!(resends(&mut writer, late), (13..=20).map(|n| (1, n)).collect::<Vec<_>>());
}

#[test]
fn a_full_ring_blocks_until_the_reader_has_its_oldest() {
    let mut writer = matched(spec());
    send(&mut writer, 8, NOW);
    assert!(!writer.room(NOW));
    tell(&mut writer, 0, &acknowledgement(1), NOW);
    send(&mut writer, 1, NOW);
    assert!(!writer.room(NOW));
}

#[test]
fn a_silent_reader_blocks_for_its_linger_and_no_longer() {
    let mut writer = matched(spec());
    send(&mut writer, 8, NOW + ms(1));
    assert!(!writer.room(NOW + ms(1_000)));
    assert!(writer.room(NOW + ms(1_001)));
    assert_eq!(events(&mut writer), [lagging(0, 1, 8)]);
    send(&mut writer, 100, NOW + ms(1_002));
}

#[test]
fn a_lagging_reader_binds_again_once_it_is_back_in_the_ring() {
    let mut writer = matched(spec());
    send(&mut writer, 8, NOW);
    assert!(writer.room(NOW + ms(1_000)));
    assert_eq!(heartbeats(&mut writer, NOW + ms(1_000)), [(0, 9, 8)]);
    send(&mut writer, 2, NOW + ms(1_000));
    tell(&mut writer, 0, &acknowledgement(7), NOW + ms(1_001));
    assert!(writer.readers[0].lagging, "it does not know yet that 8 is lost");
    tell(&mut writer, 0, &acknowledgement(8), NOW + ms(1_002));
    assert!(!writer.readers[0].lagging);
    send(&mut writer, 6, NOW + ms(1_003));
    assert!(!writer.room(NOW + ms(1_004)));
}

#[test]
fn what_was_given_up_is_not_sent_again_and_heartbeats_say_so() {
    let mut writer = matched(WriterSpec { capacity: 100, ..spec() });
    send(&mut writer, 2, NOW);
    send(&mut writer, 2, NOW + ms(900));
    tell(&mut writer, 0, &wanted(0, 0), NOW + ms(1_100));
    assert_eq!(resends(&mut writer, NOW + ms(1_100)), [(0, 3), (0, 4)]);
    assert_eq!(heartbeats(&mut writer, NOW + ms(1_100)), [(0, 3, 4)]);
}

#[test]
fn a_publisher_goes_no_further_than_the_reader_has_room_and_a_lower_limit_is_an_older_one() {
    let mut writer = matched(spec());
    let limit = |limit| Acknowledgement { limit: Sequence::new(limit), ..acknowledgement(0) };
    let mut writer_2 = Writer::new(spec(), NOW);
    tell(&mut writer_2, 0, &limit(3), NOW);
    tell(&mut writer_2, 0, &limit(1), NOW);
    send(&mut writer_2, 3, NOW);
    assert!(!writer_2.room(NOW));
    tell(&mut writer_2, 0, &limit(4), NOW);
    send(&mut writer_2, 1, NOW);
    send(&mut writer, 8, NOW);
}

#[test]
fn while_something_is_missing_nothing_is_sent_beyond_what_the_reader_can_hold() {
    let mut writer = matched(WriterSpec { capacity: 400, ..spec() });
    send(&mut writer, 10, NOW);
    tell(&mut writer, 0, &Acknowledgement { held: 0b10, ..acknowledgement(4) }, NOW);
    send(&mut writer, 250, NOW);
    assert!(!writer.room(NOW), "261 is the 257th beyond the floor");
    tell(&mut writer, 0, &acknowledgement(10), NOW);
    send(&mut writer, 60, NOW);
}

/// Holds 70 and 200 of what is beyond `floor`, and nothing of the first 64.
fn more(floor: u64) -> MoreHeld {
    let held = Held::from_places([69, 199]).more();
    let (topic, epoch, floor) = (spec().topic, EPOCH, Sequence::new(floor));
    MoreHeld { topic, epoch, floor, held, wanted: true }
}

fn wide() -> Writer {
    let mut writer = matched(WriterSpec { capacity: 400, ..spec() });
    send(&mut writer, 250, NOW);
    writer
}

#[test]
fn what_is_missing_beyond_the_first_64_is_asked_for_by_the_second_entry() {
    let mut writer = wide();
    tell(&mut writer, 0, &acknowledgement(0), NOW + ms(5));
    assert_eq!(resends(&mut writer, NOW + ms(5)), []);
    writer.more_held(peer(0), EPOCH, &more(0), NOW + ms(5));
    let missing = (1..200).filter(|n| *n != 70).map(|n| (0, n));
    assert_eq!(resends(&mut writer, NOW + ms(5)), missing.collect::<Vec<_>>());
    assert!(writer.readers[0].has(70) && writer.readers[0].has(200));
}

#[test]
fn a_second_entry_without_a_request_asks_for_nothing_but_is_taken() {
    let mut writer = wide();
    let entry = MoreHeld { wanted: false, ..more(0) };
    writer.more_held(peer(0), EPOCH, &entry, NOW + ms(5));
    assert_eq!(resends(&mut writer, NOW + ms(5)), []);
    tell(&mut writer, 0, &wanted(0, 0b10), NOW + ms(6));
    assert_eq!(resends(&mut writer, NOW + ms(6)), [(0, 1)]);
    assert!(writer.readers[0].has(70) && !writer.readers[0].has(71));
}

#[test]
fn a_second_entry_that_was_overtaken_counts_from_its_own_floor() {
    let mut writer = wide();
    tell(&mut writer, 0, &acknowledgement(100), NOW + ms(5));
    writer.more_held(peer(0), EPOCH, &more(0), NOW + ms(6));
    let reader = &writer.readers[0];
    assert!(reader.has(200) && !reader.has(199) && !reader.has(170));
    assert_eq!(resends(&mut writer, NOW + ms(6)).last(), Some(&(0, 199)));
    // One that says nothing new any more asks for nothing either.
    tell(&mut writer, 0, &acknowledgement(220), NOW + ms(7));
    writer.more_held(peer(0), EPOCH, &more(0), NOW + ms(8));
    assert_eq!(resends(&mut writer, NOW + ms(8)), []);
}

#[test]
fn a_second_entry_of_an_unheard_floor_waits_for_the_next_report() {
    let mut writer = wide();
    writer.more_held(peer(0), EPOCH, &more(10), NOW + ms(5));
    assert!(!writer.readers[0].has(80) && !writer.readers[0].has(210));
    assert_eq!((resends(&mut writer, NOW + ms(5)), writer.refused()), (vec![], 0));
    tell(&mut writer, 0, &acknowledgement(10), NOW + ms(6));
    writer.more_held(peer(0), EPOCH, &more(10), NOW + ms(6));
    assert!(writer.readers[0].has(80) && writer.readers[0].has(210));
}

#[test]
fn a_second_entry_about_another_life_or_of_what_was_never_sent_changes_nothing() {
    let mut writer = wide();
    for entry in [
        MoreHeld { epoch: Epoch::new(6), ..more(0) },
        MoreHeld { topic: TopicId::of("leg/path"), ..more(0) },
        MoreHeld { floor: Sequence::new(51), ..more(0) },
        MoreHeld { floor: Sequence::new(u64::MAX), ..more(0) },
    ] {
        writer.more_held(peer(0), EPOCH, &entry, NOW);
        assert!(writer.readers[0].held.is_empty(), "{entry:?}");
    }
    assert_eq!(writer.refused(), 4);
    writer.more_held(peer(1), EPOCH, &more(0), NOW);
    writer.more_held(peer(9), EPOCH, &more(0), NOW);
    assert!(!writer.is_matched(peer(1)), "an acknowledgement comes first");
}

#[test]
fn nothing_is_sent_unasked_that_the_reader_could_not_hold() {
    let mut writer = Writer::new(WriterSpec { capacity: 400, ..spec() }, NOW);
    send(&mut writer, 300, NOW);
    let entry = Acknowledgement { limit: Sequence::new(164), ..wanted(100, 0) };
    tell(&mut writer, 0, &entry, NOW + ms(50));
    let all: Vec<_> = (101..=164).map(|n| (0, n)).collect();
    assert_eq!(resends(&mut writer, NOW + ms(50)), all);
    let probe = NOW + ms(50) + round_trip::TIMEOUT_MAX;
    assert!(resends(&mut writer, probe).iter().all(|(_, sequence)| *sequence <= 164));
}

#[test]
fn a_hole_is_sent_again_when_it_is_asked_for_and_only_then() {
    let mut writer = matched(spec());
    send(&mut writer, 6, NOW);
    // 1, 3 and 6 are missing; 6 may be on its way.
    let entry = Acknowledgement { held: 0b1_1010, ..acknowledgement(0) };
    tell(&mut writer, 0, &entry, NOW + ms(5));
    assert_eq!(resends(&mut writer, NOW + ms(5)), []);
    tell(&mut writer, 0, &wanted(0, 0b1_1010), NOW + ms(6));
    assert_eq!(resends(&mut writer, NOW + ms(6)), [(0, 1), (0, 3)]);
}

#[test]
fn it_is_not_sent_again_before_the_reader_can_know_of_it_and_then_twice() {
    let mut writer = matched(spec());
    send(&mut writer, 2, NOW);
    let echo = Acknowledgement { echo: Some(NOW), ..wanted(0, 0b10) };
    tell(&mut writer, 0, &echo, NOW + ms(40));
    assert_eq!(resends(&mut writer, NOW + ms(40)), [(0, 1)]);
    tell(&mut writer, 0, &wanted(0, 0b10), NOW + ms(41));
    tell(&mut writer, 0, &wanted(0, 0b10), NOW + ms(79));
    assert_eq!(resends(&mut writer, NOW + ms(79)), []);
    // 40 ms, and twice the deviation of a first sample, which is its half.
    let known = NOW + ms(40) + ms(80);
    tell(&mut writer, 0, &acknowledgement(0), known);
    assert_eq!(resends(&mut writer, known), [(0, 1), (0, 1)]);
    assert_eq!(resends(&mut writer, known), []);
}

#[test]
fn what_may_still_be_on_its_way_is_not_sent_again() {
    let mut writer = matched(spec());
    send(&mut writer, 2, NOW);
    let at = NOW + ms(10);
    tell(&mut writer, 0, &wanted(0, 0), at);
    assert_eq!(resends(&mut writer, at), []);
    tell(&mut writer, 0, &wanted(0, 0), NOW + ms(20));
    assert_eq!(resends(&mut writer, NOW + ms(20)), [(0, 1), (0, 2)]);
}

#[test]
fn what_has_expired_is_not_sent_again_and_holds_nobody_up() {
    let mut writer = matched(WriterSpec { lifespan: Some(ms(30)), ..spec() });
    send(&mut writer, 8, NOW);
    assert!(!writer.room(NOW + ms(29)));
    tell(&mut writer, 0, &wanted(0, 0b1000_0000), NOW + ms(29));
    assert_eq!(resends(&mut writer, NOW + ms(30)), []);
    assert!(writer.room(NOW + ms(30)));
    assert_eq!(heartbeats(&mut writer, NOW + ms(30)), [(0, 9, 8)]);
}

#[test]
fn the_last_message_is_sent_again_unasked_after_a_time_that_doubles() {
    let mut writer = matched(spec());
    send(&mut writer, 3, NOW);
    let mut sent = Vec::new();
    for at in 0..700 {
        for (_, sequence) in resends(&mut writer, NOW + ms(at)) {
            sent.push((at, sequence));
        }
    }
    assert_eq!(sent, [(40, 3), (120, 3), (280, 3), (480, 3), (680, 3)]);
    tell(&mut writer, 0, &acknowledgement(3), NOW + ms(700));
    assert_eq!(resends(&mut writer, NOW + ms(999)), []);
}

#[test]
fn with_more_than_eight_readers_nothing_is_sent_again_unasked() {
    let mut writer = Writer::new(WriterSpec { readers: 9, ..spec() }, NOW);
    (0..9).for_each(|reader| tell(&mut writer, reader, &acknowledgement(0), NOW));
    send(&mut writer, 2, NOW);
    assert_eq!(resends(&mut writer, NOW + ms(900)), []);
    tell(&mut writer, 3, &wanted(0, 0b10), NOW + ms(900));
    tell(&mut writer, 5, &wanted(0, 0b10), NOW + ms(900));
    assert_eq!(resends(&mut writer, NOW + ms(900)), [(3, 1), (5, 1)]);
}

#[test]
fn a_heartbeat_follows_soon_after_a_burst_and_then_in_its_period() {
    let mut writer = matched(spec());
    assert_eq!(heartbeats(&mut writer, NOW), [(0, 1, 0)]);
    send(&mut writer, 3, NOW);
    send(&mut writer, 1, NOW + ms(5));
    assert_eq!(writer.next_deadline(), Some(NOW + ms(15)));
    assert_eq!(heartbeats(&mut writer, NOW + ms(14)), []);
    assert_eq!(heartbeats(&mut writer, NOW + ms(15)), [(0, 1, 4)]);
    assert_eq!(heartbeats(&mut writer, NOW + ms(94)), []);
    assert_eq!(heartbeats(&mut writer, NOW + ms(95)), [(0, 1, 4)]);
    for n in 0..20 {
        let last = writer.next().get() - 1;
        tell(&mut writer, 0, &acknowledgement(last), NOW + ms(100 + 4 * n));
        send(&mut writer, 1, NOW + ms(100 + 4 * n));
    }
    assert_eq!(heartbeats(&mut writer, NOW + ms(175)).len(), 1, "a stream that never pauses");
}

#[test]
fn an_echo_of_what_was_sent_twice_or_never_says_nothing_about_the_round_trip() {
    let mut writer = matched(spec());
    send(&mut writer, 1, NOW);
    send(&mut writer, 1, NOW + ms(1));
    let echo = |at| Acknowledgement { echo: Some(at), ..wanted(0, 0b10) };
    tell(&mut writer, 0, &echo(NOW + us(500)), NOW + ms(20));
    assert_eq!(writer.readers[0].trip.smoothed(), None);
    assert_eq!(resends(&mut writer, NOW + ms(20)), [(0, 1)]);
    tell(&mut writer, 0, &echo(NOW), NOW + ms(30));
    assert_eq!(writer.readers[0].trip.smoothed(), None);
    let held = Acknowledgement { held_us: 9_000, ..echo(NOW + ms(1)) };
    tell(&mut writer, 0, &held, NOW + ms(30));
    assert_eq!(writer.readers[0].trip.smoothed(), Some(ms(20)));
}

#[test]
fn a_greedy_reader_leaves_the_others_their_part_of_the_share() {
    let spec = WriterSpec { capacity: 1_024, resend_share_percent: 0, ..spec() };
    let mut writer = matched(spec);
    tell(&mut writer, 1, &acknowledgement(0), NOW);
    for _ in 0..64 {
        writer.keep(NOW, &frame(writer.next().get(), 1_000));
    }
    let mut sent = [0; 2];
    for n in 1..20 {
        let at = NOW + ms(40 * n);
        tell(&mut writer, 0, &wanted(0, 1 << 63), at);
        for (reader, _) in resends(&mut writer, at) {
            sent[reader] += 1_000;
        }
    }
    assert!(sent[0] <= FLOOR_BYTES / 2, "{sent:?}");
    tell(&mut writer, 1, &wanted(0, 1 << 40), NOW + ms(800));
    let other = resends(&mut writer, NOW + ms(800));
    assert!(other.iter().all(|(reader, _)| *reader == 1), "{other:?}");
    assert!(sent[1] / 1_000 + other.len() as u64 >= 31, "{other:?}");
}

#[test]
fn a_refusal_of_the_share_has_an_end_that_is_a_deadline() {
    let mut writer = matched(WriterSpec { capacity: 1_024, resend_share_percent: 0, ..spec() });
    for _ in 0..64 {
        writer.keep(NOW, &frame(writer.next().get(), 1_200));
    }
    tell(&mut writer, 0, &wanted(0, 1 << 63), NOW + ms(30));
    let first = resends(&mut writer, NOW + ms(30)).len();
    assert_eq!(first as u64, FLOOR_BYTES / 1_200);
    writer.readers[0].heartbeat_at = Nanos::MAX;
    let mut now = NOW + ms(30);
    let mut again = 0;
    for _ in 0..40 {
        tell(&mut writer, 0, &wanted(0, 1 << 63), now);
        again += resends(&mut writer, now).len();
        if again > 0 || now > NOW + ms(990) {
            break;
        }
        let next = writer.next_deadline().unwrap();
        assert!(next > now, "a deadline that does not move");
        now = next;
    }
    assert!(now > NOW + ms(990));
}

fn commands() -> WriterSpec {
    WriterSpec { class: Class::Command, lifespan: Some(ms(100)), linger: ms(200), ..spec() }
}

fn command_reader(floor: u64) -> Acknowledgement {
    Acknowledgement { class: Class::Command, ..acknowledgement(floor) }
}

fn commanding(readers: usize) -> Writer {
    let mut writer = Writer::new(commands(), NOW);
    (0..readers).for_each(|reader| tell(&mut writer, reader, &command_reader(0), NOW));
    events(&mut writer);
    writer
}

#[test]
fn each_command_has_one_outcome() {
    let mut writer = commanding(1);
    send(&mut writer, 5, NOW);
    writer.outcomes(peer(0), EPOCH, &words(1, &[1, 2, 3, 20, 0]), NOW);
    let all = [
        resolved(1, Outcome::Accepted),
        resolved(2, Outcome::Expired),
        resolved(3, Outcome::NeverArrived),
        resolved(4, Outcome::Rejected(4)),
    ];
    assert_eq!(events(&mut writer), all);
    assert_eq!(writer.heartbeat(NOW + ms(10)).unwrap().1.unresolved, Some(Sequence::new(5)));
    writer.outcomes(peer(0), EPOCH, &words(1, &[20, 1, 1, 1, 7]), NOW);
    assert_eq!(events(&mut writer), [], "a second word, and a code without a meaning");
}

#[test]
fn a_command_without_a_word_is_unknown_after_lifespan_and_linger() {
    let mut writer = commanding(1);
    send(&mut writer, 1, NOW);
    writer.room(NOW + ms(299));
    assert!(!events(&mut writer).iter().any(|e| matches!(e, WriterEvent::Resolved { .. })));
    writer.room(NOW + ms(300));
    assert_eq!(events(&mut writer).last(), Some(&resolved(1, Outcome::Unknown)));
    writer.outcomes(peer(0), EPOCH, &words(1, &[1]), NOW + ms(301));
    assert_eq!(events(&mut writer), []);
}

#[test]
fn what_outlived_its_lifespan_before_there_was_room_is_expired_and_never_sent() {
    let mut writer = commanding(1);
    send(&mut writer, 1, NOW);
    let later = NOW + ms(100);
    writer.outlive(later, NOW);
    let expired = resolved(2, Outcome::Expired);
    assert_eq!(events(&mut writer), [expired]);
    assert_eq!((writer.next().get(), writer.frame(Sequence::new(2))), (3, None));
    // Whatever the reader asks for, it is told of what there is, and gets no more than that.
    tell(&mut writer, 0, &Acknowledgement { wanted: true, ..command_reader(0) }, later);
    assert!(resends(&mut writer, later).iter().all(|(_, number)| *number != 2));
    assert_eq!(heartbeats(&mut writer, later + ms(100)), [(0, 3, 2)]);
}

#[test]
fn what_was_never_sent_makes_no_reader_late() {
    let mut writer = Writer::new(commands(), NOW);
    let full = Acknowledgement { limit: Sequence::new(4), ..command_reader(4) };
    tell(&mut writer, 0, &Acknowledgement { floor: Sequence::new(0), ..full }, NOW);
    send(&mut writer, 4, NOW);
    // Its program hangs: for longer than anything is kept it says that it has all, and no room.
    for step in 10..100 {
        let now = NOW + ms(10 * step);
        tell(&mut writer, 0, &full, now);
        assert!(!writer.room(now), "after {step} steps");
        writer.outlive(now, now - ms(100));
        let lagging = events(&mut writer)
            .into_iter()
            .find(|event| matches!(event, WriterEvent::Lagging { .. }));
        assert_eq!(lagging, None);
    }
    // With room it goes on at once.
    let now = NOW + ms(1_000);
    tell(&mut writer, 0, &Acknowledgement { limit: Sequence::new(200), ..full }, now);
    assert!(writer.room(now));
}

#[test]
fn what_was_never_sent_makes_no_reader_late_that_gets_what_was_sent_before_it_later() {
    let mut writer = commanding(1);
    send(&mut writer, 1, NOW);
    writer.outlive(NOW + ms(10), NOW - ms(90));
    tell(&mut writer, 0, &command_reader(1), NOW + ms(20));
    // For longer than anything is kept.
    for step in 1..10 {
        tell(&mut writer, 0, &command_reader(1), NOW + ms(100 * step));
        writer.room(NOW + ms(100 * step));
    }
    let lagging = |event: &WriterEvent| matches!(event, WriterEvent::Lagging { .. });
    assert!(!events(&mut writer).iter().any(lagging));
}

#[test]
fn a_reader_that_was_away_catches_up_with_what_outlives_while_another_s_program_hangs() {
    let spec = WriterSpec {
        capacity: 64,
        lifespan: Some(ms(50)),
        linger: ms(100),
        patience: ms(20),
        ..spec()
    };
    let mut writer = Writer::new(spec, NOW);
    // The second has room for no more than the first two.
    let limited = |floor| Acknowledgement { limit: Sequence::new(2), ..acknowledgement(floor) };
    tell(&mut writer, 0, &acknowledgement(0), NOW);
    tell(&mut writer, 1, &limited(0), NOW);
    send(&mut writer, 2, NOW);
    // The first hears and says nothing for longer than anything is kept, and every millisecond another
    // message outlives its lifespan. Then it is back, and each of its words is 2 ms old when it arrives.
    let (mut floor, mut words) = (0, std::collections::VecDeque::from([0, 0]));
    let mut caught_up = None;
    for step in 1..600 {
        let now = NOW + ms(step);
        if step % 10 == 0 {
            tell(&mut writer, 1, &limited(2), now);
        }
        for (reader, first, _) in heartbeats(&mut writer, now) {
            if reader == 0 && step > 200 {
                floor = first - 1;
            }
        }
        words.push_back(floor);
        let word = words.pop_front().unwrap();
        if step > 200 {
            tell(&mut writer, 0, &acknowledgement(word), now);
        }
        // Others wait behind it.
        writer.outlive(now, now - ms(50));
        writer.room(now);
        assert!(step != 200 || writer.readers[0].lagging, "it was away");
        if step > 200 && !writer.readers[0].lagging {
            caught_up.get_or_insert(step);
        }
    }
    let caught_up = caught_up.expect("it catches up");
    assert!(caught_up < 200 + 2 * 80 + 10, "by its second heartbeat, not after {caught_up} ms");
}

#[test]
fn who_asks_for_what_has_expired_hears_soon_that_it_has() {
    let mut writer = commanding(1);
    assert_eq!(heartbeats(&mut writer, NOW).len(), 1);
    send(&mut writer, 2, NOW + ms(1));
    let later = NOW + ms(101);
    assert_eq!(heartbeats(&mut writer, later - ms(1)).len(), 1);
    let wanted = Acknowledgement { wanted: true, ..command_reader(0) };
    tell(&mut writer, 0, &wanted, later);
    assert_eq!(resends(&mut writer, later), []);
    assert_eq!(heartbeats(&mut writer, later), []);
    assert_eq!(
        heartbeats(&mut writer, later + ms(9)),
        [(0, 3, 2)],
        "an eighth of the regular time"
    );
}

#[test]
fn of_what_was_never_sent_a_reader_hears_soon_however_much_is_sent_after_it() {
    let heartbeat = ms(80);
    let mut writer = Writer::new(WriterSpec { capacity: 64, ..commands() }, NOW);
    tell(&mut writer, 0, &command_reader(0), NOW);
    assert_eq!(heartbeats(&mut writer, NOW).len(), 1);
    writer.outlive(NOW + ms(1), NOW - ms(100));
    for step in 2..10 {
        send(&mut writer, 1, NOW + ms(step));
        assert_eq!(heartbeats(&mut writer, NOW + ms(step)), [], "not more often than that");
    }
    send(&mut writer, 1, NOW + heartbeat / 8);
    assert_eq!(heartbeats(&mut writer, NOW + heartbeat / 8), [(0, 2, 10)]);
}

#[test]
fn when_the_reader_restarts_what_waits_is_unknown() {
    let mut writer = commanding(1);
    send(&mut writer, 2, NOW);
    writer.reader_restarted(peer(0));
    let unknown = |n| resolved(n, Outcome::Unknown);
    assert_eq!(events(&mut writer), [unknown(1), unknown(2)]);
    assert!(!writer.is_matched(peer(0)));
    tell(&mut writer, 0, &command_reader(2), NOW);
    assert!(writer.is_matched(peer(0)));
}

#[test]
fn that_a_command_never_arrived_is_believed_when_all_readers_say_so() {
    let mut writer = commanding(2);
    send(&mut writer, 3, NOW);
    writer.outcomes(peer(0), EPOCH, &words(1, &[3, 3, 3]), NOW);
    assert_eq!(events(&mut writer), []);
    writer.outcomes(peer(1), EPOCH, &words(1, &[3, 1]), NOW);
    let all = [resolved(1, Outcome::NeverArrived), resolved(2, Outcome::Accepted)];
    assert_eq!(events(&mut writer), all);
    writer.reader_restarted(peer(1));
    writer.outcomes(peer(0), EPOCH, &words(3, &[3]), NOW);
    assert!(!writer.is_matched(peer(1)));
    assert_eq!(events(&mut writer), [resolved(3, Outcome::Unknown)], "it may have executed it");
}

#[test]
fn words_of_strangers_and_about_another_life_decide_nothing() {
    let mut writer = commanding(1);
    send(&mut writer, 1, NOW);
    writer.outcomes(peer(1), EPOCH, &words(1, &[1]), NOW);
    writer.outcomes(peer(7), EPOCH, &words(1, &[1]), NOW);
    writer.outcomes(peer(0), Epoch::new(8), &words(1, &[1]), NOW);
    writer.outcomes(peer(0), EPOCH, &words(u64::MAX, &[1, 1]), NOW);
    assert_eq!(events(&mut writer), []);
    assert_eq!(writer.refused(), 3);
}

#[test]
fn no_more_commands_go_out_than_can_wait_for_a_word() {
    let mut writer = commanding(1);
    for n in 0..1_024 {
        tell(&mut writer, 0, &command_reader(n), NOW);
        send(&mut writer, 1, NOW);
    }
    tell(&mut writer, 0, &command_reader(1_024), NOW);
    assert!(!writer.room(NOW));
    writer.outcomes(peer(0), EPOCH, &words(1, &[1]), NOW);
    send(&mut writer, 1, NOW);
    assert!(!writer.room(NOW));
    // 64 are given up in a call.
    let later = NOW + ms(300);
    for _ in 0..17 {
        writer.room(later);
    }
    assert!(writer.room(later));
    let told =
        events(&mut writer).iter().filter(|e| matches!(e, WriterEvent::Resolved { .. })).count();
    assert_eq!(told, 1_025);
}

/// A writer with two readers and 20 ms of patience, after which reader 1 has room for 4 only.
fn with_a_slow_reader() -> Writer {
    let mut writer = matched(WriterSpec { patience: ms(20), ..spec() });
    tell(&mut writer, 1, &Acknowledgement { limit: Sequence::new(4), ..acknowledgement(0) }, NOW);
    send(&mut writer, 4, NOW);
    tell(&mut writer, 0, &acknowledgement(4), NOW);
    writer
}

#[test]
fn one_slow_reader_of_two_holds_the_other_up_for_its_patience_and_no_longer() {
    let mut writer = with_a_slow_reader();
    assert!(!writer.room(NOW));
    assert!(writer.next_deadline().is_some_and(|at| at <= NOW + ms(20)));
    assert!(!writer.room(NOW + ms(19)));
    let later = NOW + ms(20);
    assert!(writer.room(later));
    send(&mut writer, 4, later);
    let told = heartbeats(&mut writer, later + ms(80));
    assert!(told.iter().any(|(reader, ..)| *reader == 1), "it hears what it lacks: {told:?}");
}

#[test]
fn a_slow_reader_that_used_its_patience_up_holds_nobody_up_any_more() {
    let mut writer = with_a_slow_reader();
    let mut now = NOW;
    assert!(!writer.room(now));
    now += ms(20);
    assert!(writer.room(now));
    for n in 5..100 {
        send(&mut writer, 1, now);
        tell(&mut writer, 0, &acknowledgement(n), now);
        let slow = Acknowledgement { limit: Sequence::new(n), ..acknowledgement(4.max(n - 5)) };
        tell(&mut writer, 1, &slow, now);
        assert!(writer.room(now), "held up at {n}");
    }
}

#[test]
fn when_nobody_can_go_on_the_publisher_waits_however_long() {
    let mut writer = with_a_slow_reader();
    let full = Acknowledgement { limit: Sequence::new(4), ..acknowledgement(4) };
    // The other is full as well, from the start.
    let mut alone = Writer::new(WriterSpec { patience: ms(20), ..spec() }, NOW);
    for reader in [0, 1] {
        tell(&mut alone, reader, &Acknowledgement { floor: Sequence::new(0), ..full }, NOW);
    }
    send(&mut alone, 4, NOW);
    for after in [0, 20, 500] {
        for reader in [0, 1] {
            tell(&mut alone, reader, &full, NOW + ms(after));
        }
        assert!(!alone.room(NOW + ms(after)));
    }
    assert!(!writer.room(NOW), "the first has room, and the second its patience");
}

#[test]
fn what_a_late_reader_gets_for_the_first_time_is_not_charged_to_the_share() {
    const LARGE: usize = 1_000;
    let mut writer = matched(WriterSpec { capacity: 256, ..spec() });
    for n in 1..=200 {
        assert!(writer.room(NOW));
        writer.keep(NOW, &frame(n, LARGE));
        tell(&mut writer, 0, &acknowledgement(n), NOW);
    }
    // 200 kB, where the share is the half of what was sent: 100 kB.
    let mut got = 0;
    while got < 200 {
        tell(&mut writer, 1, &wanted(got, 0), NOW);
        let all = resends(&mut writer, NOW);
        assert!(!all.is_empty(), "the share was charged after {got}");
        got += all.len() as u64;
    }
}
