//! Replay windows and the stream table, against models that remember everything.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sinew_io::delivery::window::{JUMP_MAX, WINDOW};
use sinew_io::delivery::{DropReason, StreamTable, StreamTableError, Verdict, Window};
use sinew_io::security::PeerIndex;
use sinew_io::wire::{Epoch, Sequence, StreamStart, TopicId};

fn seq(n: u64) -> Sequence {
    Sequence::new(n)
}

/// Every sequence ever committed.
struct Model {
    floor: u64,
    highest: u64,
    done: BTreeSet<u64>,
}

impl Model {
    fn new(next: u64) -> Self {
        let floor = next.saturating_sub(1);
        Self { floor, highest: floor, done: BTreeSet::new() }
    }

    fn commit(&mut self, n: u64) -> Verdict {
        let (wide, highest) = (u128::from(n), u128::from(self.highest));
        if n <= self.floor || wide + u128::from(WINDOW) <= highest {
            Verdict::BelowWindow
        } else if wide > highest + u128::from(JUMP_MAX) {
            Verdict::TooFarAhead
        } else if !self.done.insert(n) {
            Verdict::Replay
        } else {
            self.highest = self.highest.max(n);
            Verdict::Fresh
        }
    }
}

/// Steps relative to the highest sequence: close, at the edges of words and window, and far.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -70i64..70,
        3 => -1_100i64..1_100,
        1 => prop_oneof![Just(63), Just(64), Just(65), Just(1_023), Just(1_024), Just(1_025)],
        1 => prop_oneof![Just(-1_022), Just(-1_023), Just(-1_024), Just(-1_025)],
        1 => any::<i64>(),
        1 => prop_oneof![Just(1i64 << 32), Just((1i64 << 32) + 1)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_window_agrees_with_a_set_that_remembers_everything(
        start in prop_oneof![0u64..3_000, (u64::MAX - 3_000)..=u64::MAX, any::<u64>()],
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let (mut window, mut model) = (Window::starting_at(seq(start)), Model::new(start));
        for step in steps {
            let n = model.highest.saturating_add_signed(step);
            let peeked = window.peek(seq(n));
            prop_assert_eq!(window.peek(seq(n)), peeked, "a peek changed something");
            let want = model.commit(n);
            prop_assert_eq!(peeked, want, "peek {} above floor {}", n, start);
            prop_assert_eq!(window.commit(seq(n)), want);
            prop_assert_eq!(window.highest(), seq(model.highest));
        }
    }
}

#[test]
fn every_sequence_passes_exactly_once_in_any_order_within_the_window() {
    let mut window = Window::starting_at(Sequence::FIRST);
    let (mut fresh, mut replays) = (0, 0);
    for block in 0..20u64 {
        for round in 0..2 {
            for n in (0..WINDOW).rev() {
                match window.commit(seq(block * WINDOW + n + 1)) {
                    Verdict::Fresh => fresh += 1,
                    Verdict::Replay => replays += 1,
                    other => panic!("{other:?} in round {round}"),
                }
            }
        }
    }
    assert_eq!((fresh, replays), (20 * WINDOW, 20 * WINDOW));
}

#[test]
fn sequence_zero_and_what_came_before_the_hello_never_pass() {
    for next in [0, 1] {
        assert_eq!(Window::starting_at(seq(next)).commit(seq(0)), Verdict::BelowWindow);
        assert_eq!(Window::starting_at(seq(next)).commit(seq(1)), Verdict::Fresh);
    }
    let mut window = Window::starting_at(seq(500));
    assert_eq!(window.commit(seq(499)), Verdict::BelowWindow);
    assert_eq!(window.commit(seq(501)), Verdict::Fresh);
    assert_eq!(window.commit(seq(500)), Verdict::Fresh, "a late first envelope is still fresh");
}

#[test]
fn the_end_of_the_numbers_neither_wraps_nor_panics() {
    let mut window = Window::starting_at(seq(u64::MAX - 1));
    assert_eq!(window.commit(seq(u64::MAX)), Verdict::Fresh);
    assert_eq!(window.commit(seq(u64::MAX)), Verdict::Replay);
    assert_eq!(window.commit(seq(u64::MAX - 1)), Verdict::Fresh);
    assert_eq!(window.commit(seq(0)), Verdict::BelowWindow);
    assert_eq!(window.commit(seq(1)), Verdict::BelowWindow);
}

#[test]
fn a_huge_jump_is_refused_and_moves_nothing() {
    let mut window = Window::starting_at(Sequence::FIRST);
    assert_eq!(window.commit(seq(10)), Verdict::Fresh);
    assert_eq!(window.commit(seq(u64::MAX)), Verdict::TooFarAhead);
    assert_eq!(window.commit(seq(10 + JUMP_MAX + 1)), Verdict::TooFarAhead);
    assert_eq!(window.highest(), seq(10));
    assert_eq!(window.commit(seq(10 + JUMP_MAX)), Verdict::Fresh);
}

const PEER: PeerIndex = PeerIndex::new(1);

fn topic(n: u64) -> TopicId {
    TopicId::from_raw(n)
}

fn start(n: u64, next: u64) -> StreamStart {
    StreamStart { topic: topic(n), next: seq(next) }
}

/// Peek and commit, as for an envelope whose signature is good.
fn deliver(table: &mut StreamTable, n: u64, epoch: u64, sequence: u64) -> Result<(), DropReason> {
    let pending = table.peek(PEER, topic(n), Epoch::new(epoch), seq(sequence))?;
    table.commit(pending)
}

fn table() -> StreamTable {
    StreamTable::new(3, &[topic(30), topic(10), topic(20)]).unwrap()
}

#[test]
fn nothing_passes_before_a_hello_and_then_only_what_it_announced() {
    let mut table = table();
    assert_eq!(deliver(&mut table, 10, 5, 1), Err(DropReason::NoLife));
    assert_eq!(deliver(&mut table, 99, 5, 1), Err(DropReason::UnknownTopic));
    table.new_life(PEER, Epoch::new(5), [start(10, 7), start(77, 1)]);
    assert_eq!(deliver(&mut table, 10, 5, 6), Err(DropReason::BelowWindow));
    assert_eq!(deliver(&mut table, 10, 5, 7), Ok(()));
    assert_eq!(deliver(&mut table, 10, 5, 7), Err(DropReason::Replay));
    assert_eq!(deliver(&mut table, 20, 5, 1), Err(DropReason::NoLife), "not announced");
    assert_eq!(deliver(&mut table, 77, 5, 1), Err(DropReason::UnknownTopic), "not subscribed");
    assert_eq!(deliver(&mut table, 10, 4, 8), Err(DropReason::OldEpoch));
    assert_eq!(deliver(&mut table, 10, 6, 8), Err(DropReason::FutureEpoch));
    let ahead = deliver(&mut table, 10, 5, 8 + JUMP_MAX);
    assert_eq!(ahead, Err(DropReason::TooFarAhead));
}

#[test]
fn a_new_life_ends_the_old_one_and_starts_every_stream_anew() {
    let mut table = table();
    table.new_life(PEER, Epoch::new(5), [start(10, 1), start(20, 1)]);
    assert_eq!(deliver(&mut table, 10, 5, 100), Ok(()));
    table.new_life(PEER, Epoch::new(6), [start(10, 1)]);
    assert_eq!(deliver(&mut table, 10, 5, 101), Err(DropReason::OldEpoch));
    assert_eq!(deliver(&mut table, 10, 6, 1), Ok(()));
    assert_eq!(deliver(&mut table, 20, 6, 1), Err(DropReason::NoLife));
    // Neither the same nor an older life can be started again.
    table.new_life(PEER, Epoch::new(6), [start(10, 1)]);
    table.new_life(PEER, Epoch::new(5), [start(10, 1)]);
    assert_eq!(table.epoch(PEER), Epoch::new(6));
    assert_eq!(deliver(&mut table, 10, 6, 1), Err(DropReason::Replay));
}

#[test]
fn a_later_hello_opens_new_streams_and_leaves_open_ones_alone() {
    let mut table = table();
    table.new_life(PEER, Epoch::new(5), [start(10, 1)]);
    assert_eq!(deliver(&mut table, 10, 5, 3), Ok(()));
    table.same_life(PEER, Epoch::new(5), [start(10, 9), start(20, 4)]);
    assert_eq!(deliver(&mut table, 10, 5, 3), Err(DropReason::Replay));
    assert_eq!(deliver(&mut table, 10, 5, 2), Ok(()), "an envelope in flight was cut off");
    assert_eq!(deliver(&mut table, 20, 5, 3), Err(DropReason::BelowWindow));
    assert_eq!(deliver(&mut table, 20, 5, 4), Ok(()));
    table.same_life(PEER, Epoch::new(4), [start(30, 1)]);
    assert_eq!(deliver(&mut table, 30, 5, 1), Err(DropReason::NoLife), "from another life");
    // Unheard for longer than a jump may be: the Hello says where the stream is now.
    let far = 10 + 2 * JUMP_MAX;
    assert_eq!(deliver(&mut table, 10, 5, far), Err(DropReason::TooFarAhead));
    table.same_life(PEER, Epoch::new(5), [start(10, far)]);
    assert_eq!(deliver(&mut table, 10, 5, far), Ok(()));
    assert_eq!(deliver(&mut table, 10, 5, 4), Err(DropReason::BelowWindow));
}

#[test]
fn a_life_that_begins_between_peek_and_commit_refuses_the_commit() {
    let mut table = table();
    table.new_life(PEER, Epoch::new(5), [start(10, 1)]);
    let (first, second) = (
        table.peek(PEER, topic(10), Epoch::new(5), seq(1)).unwrap(),
        table.peek(PEER, topic(10), Epoch::new(5), seq(1)).unwrap(),
    );
    assert_eq!(table.commit(first), Ok(()));
    assert_eq!(table.commit(second), Err(DropReason::Replay));
    let pending = table.peek(PEER, topic(10), Epoch::new(5), seq(2)).unwrap();
    table.new_life(PEER, Epoch::new(6), [start(10, 1)]);
    assert_eq!(table.commit(pending), Err(DropReason::OldEpoch));
    assert_eq!(deliver(&mut table, 10, 6, 2), Ok(()));
}

#[test]
fn streams_of_different_peers_and_topics_do_not_touch_each_other() {
    let topics = [topic(1), topic(2)];
    let mut table = StreamTable::new(2, &topics).unwrap();
    for peer in 0..2 {
        table.new_life(PeerIndex::new(peer), Epoch::new(1), [start(1, 1), start(2, 1)]);
    }
    for (peer, topic) in (0..2).flat_map(|peer| topics.map(|topic| (peer, topic))) {
        let pending = table.peek(PeerIndex::new(peer), topic, Epoch::new(1), seq(1));
        assert_eq!(table.commit(pending.unwrap()), Ok(()), "peer {peer}, topic {topic}");
    }
}

#[test]
fn peers_and_topics_that_do_not_exist_are_refused_without_panic() {
    let mut table = table();
    let nobody = PeerIndex::new(3);
    table.new_life(nobody, Epoch::new(1), [start(10, 1)]);
    assert_eq!(table.epoch(nobody), Epoch::NONE);
    let unknown = table.peek(nobody, topic(10), Epoch::new(1), seq(1)).unwrap_err();
    assert_eq!(unknown, DropReason::UnknownTopic);
    let mut empty = StreamTable::new(0, &[]).unwrap();
    empty.new_life(PEER, Epoch::new(1), [start(10, 1)]);
    assert!(empty.peek(PEER, topic(10), Epoch::new(1), seq(1)).is_err());
    let twice = StreamTable::new(1, &[topic(1), topic(2), topic(1)]).unwrap_err();
    assert_eq!(twice, StreamTableError::SameTopic { topic: topic(1) });
    let many: Vec<_> = (0..65).map(topic).collect();
    let error = StreamTable::new(1, &many).unwrap_err();
    assert_eq!(error, StreamTableError::TooManyTopics { got: 65 });
}
