//! Ledgers written by hand, good ones and bad ones: each breach must be recognised.

use super::check::{Options, check};
use super::read::{Ledger, read};
use super::record::{Promise, Record, Told, digest};
use super::report::{Report, Violation};
use super::write::LedgerWriter;

const ARM: u64 = 0xa;
const BRAIN: u64 = 0xb;

/// A ledger as text, life by life.
struct Book {
    name: &'static str,
    key: u64,
    text: String,
    next: u64,
}

impl Book {
    fn new(name: &'static str, key: u64) -> Self {
        Self { name, key, text: String::new(), next: 0 }
    }

    fn life(mut self, epoch: u64, at: i64) -> Self {
        self.next = 0;
        let (owner, key) = (self.name.to_owned(), self.key);
        self.push(Record::Life { owner, key, epoch, at })
    }

    fn push(mut self, record: Record) -> Self {
        self.text.push_str(&record.line(self.next));
        self.next += 1;
        self
    }

    fn writes(self, promise: Promise) -> Self {
        self.push(Record::Writes { promise, topic: topic() })
    }

    fn reads(self, promise: Promise) -> Self {
        self.push(Record::Reads { promise, topic: topic() })
    }

    fn sends(mut self, sequences: impl IntoIterator<Item = u64>) -> Self {
        for sequence in sequences {
            let (digest, at) = (digest_of(sequence), sequence.cast_signed() * 1_000);
            self = self.push(Record::Sent { topic: topic(), sequence, digest, at });
        }
        self
    }

    fn gets(mut self, epoch: u64, sequences: impl IntoIterator<Item = u64>) -> Self {
        for sequence in sequences {
            let digest = digest_of(sequence);
            self = self.push(got(epoch, sequence, digest));
        }
        self
    }

    fn gap(self, epoch: u64, first: u64, last: u64) -> Self {
        self.push(Record::Gap { from: ARM, epoch, topic: topic(), first, last })
    }

    fn decides(self, epoch: u64, sequence: u64, told: Told) -> Self {
        self.push(Record::Decided { from: ARM, epoch, topic: topic(), sequence, told })
    }

    fn begins(self, epoch: u64, first: u64) -> Self {
        self.push(Record::NewLife { from: ARM, epoch, topic: topic(), first })
    }

    fn told(self, sequence: u64, told: Told) -> Self {
        self.push(Record::Outcome { topic: topic(), sequence, told })
    }

    fn end(self) -> Self {
        self.push(Record::End { at: 99 })
    }

    fn read(&self) -> Ledger {
        read(self.name, self.text.as_bytes())
    }
}

fn topic() -> String {
    "cmd".to_owned()
}

fn digest_of(sequence: u64) -> u64 {
    digest(&sequence.to_le_bytes())
}

fn got(epoch: u64, sequence: u64, digest: u64) -> Record {
    let at = sequence.cast_signed() * 1_000 + 500;
    Record::Got { from: ARM, epoch, topic: topic(), sequence, digest, at }
}

/// A sender that is in its first life and sent ten.
fn arm() -> Book {
    Book::new("arm", ARM).life(1, 10).writes(Promise::Reliable).sends(1..=10)
}

/// A receiver that was there before.
fn brain() -> Book {
    Book::new("brain", BRAIN).life(7, 5).reads(Promise::Reliable)
}

fn compare(books: &[&Book]) -> Report {
    let ledgers: Vec<Ledger> = books.iter().map(|book| book.read()).collect();
    check(&ledgers, Options::default())
}

/// The one thing that is wrong.
fn only(books: &[&Book]) -> Violation {
    let report = compare(books);
    assert_eq!(report.violations, 1, "{}", report.text());
    report.listed[0].clone()
}

#[test]
fn ledgers_that_agree_break_no_promise() {
    let (arm, brain) = (arm().end(), brain().gets(1, 1..=4).gap(1, 5, 6).gets(1, 7..=10).end());
    let report = compare(&[&arm, &brain]);
    assert_eq!(report.violations, 0, "{}", report.text());
    let topic = &report.topics["cmd"];
    assert_eq!((topic.sent, topic.delivered, topic.undelivered), (10, 8, 2));
    assert_eq!((topic.gaps, topic.reported_missing), (1, 2));
    assert_eq!(topic.latency(1.0).unwrap().as_nanos(), 500);
}

#[test]
fn a_kill_between_sending_and_getting_is_no_breach() {
    // The sender is killed and comes back; the receiver is killed and misses what came meanwhile.
    let arm = arm().life(2, 50).writes(Promise::Reliable).sends(1..=20).end();
    let brain = brain().gets(1, 1..=7).gets(2, 1..=5);
    let brain = brain.life(8, 60).reads(Promise::Reliable).gets(2, 9..=20).end();
    let report = compare(&[&arm, &brain]);
    assert_eq!(report.violations, 0, "{}", report.text());
    assert_eq!((report.lives, report.topics["cmd"].missed_at_join), (4, 0));
}

#[test]
fn a_message_got_twice_is_found_in_one_life_and_over_a_restart() {
    let brain_twice = brain().gets(1, [1, 2, 2]);
    let report = compare(&[&arm(), &brain_twice]);
    let duplicate = |violation: &Violation| {
        matches!(violation, Violation::Duplicate { sequence: 2, after_restart: false, line: 5, .. })
    };
    assert!(report.listed.iter().any(duplicate), "{}", report.text());

    let again = brain().gets(1, 1..=3).life(8, 60).reads(Promise::Reliable).gets(1, 3..=4);
    let found = only(&[&arm(), &again]);
    assert!(matches!(found, Violation::Duplicate { sequence: 3, after_restart: true, .. }));
    let ledgers = [arm().read(), again.read()];
    let allowed = Options { again_after_restart: true, ..Options::default() };
    let report = check(&ledgers, allowed);
    assert_eq!((report.violations, report.topics["cmd"].again_after_restart), (0, 1));
}

#[test]
fn duplicates_count_on_best_effort_topics_too_and_order_and_gaps_do_not() {
    let arm = Book::new("arm", ARM).life(1, 10).writes(Promise::BestEffort).sends(1..=10).end();
    let brain = || Book::new("brain", BRAIN).life(7, 5).reads(Promise::BestEffort);
    assert_eq!(compare(&[&arm, &brain().gets(1, [3, 2, 9]).end()]).violations, 0);
    let found = only(&[&arm, &brain().gets(1, [3, 2, 3])]);
    assert!(matches!(found, Violation::Duplicate { sequence: 3, .. }));
}

#[test]
fn a_message_after_a_later_one_is_out_of_order() {
    let report = compare(&[&arm(), &brain().gets(1, [1, 3, 2, 4])]);
    assert!(
        matches!(
            report.listed[..],
            [
                Violation::SilentGap { first: 2, last: 2, .. },
                Violation::OutOfOrder { sequence: 2, floor: 3, .. }
            ]
        ),
        "{}",
        report.text()
    );
}

#[test]
fn a_message_after_it_was_reported_missing_is_out_of_order() {
    let found = only(&[&arm(), &brain().gets(1, [1]).gap(1, 2, 4).gets(1, [3, 5])]);
    assert!(matches!(found, Violation::OutOfOrder { sequence: 3, floor: 4, .. }), "{found}");
}

#[test]
fn a_loss_that_nobody_reported_is_found() {
    let found = only(&[&arm(), &brain().gets(1, [1, 2, 6, 7])]);
    assert!(matches!(found, Violation::SilentGap { first: 3, last: 5, line: 5, .. }), "{found}");
    let partly = only(&[&arm(), &brain().gets(1, [1, 2]).gap(1, 3, 4).gets(1, [6])]);
    assert!(matches!(partly, Violation::SilentGap { first: 5, last: 5, .. }), "{partly}");
}

#[test]
fn a_gap_that_is_not_true_is_found() {
    let reason = |book: Book| match only(&[&arm(), &book]) {
        Violation::FalseGap { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason(brain().gets(1, [1, 2]).gap(1, 2, 3)), "a message of it was delivered");
    assert_eq!(
        reason(brain().gets(1, [1]).gap(1, 2, 11)),
        "it names messages that were never sent"
    );
    assert_eq!(reason(brain().gets(1, [1]).gap(1, 4, 5)), "it does not follow on what came before");
    assert_eq!(reason(brain().gets(1, [1]).gap(1, 5, 4)), "it is no range");
}

#[test]
fn a_stream_begins_where_the_receiver_was_told() {
    assert_eq!(compare(&[&arm(), &brain().begins(1, 1).gets(1, 1..=10)]).violations, 0);
    let found = only(&[&arm(), &brain().begins(1, 3).gets(1, 5..=10)]);
    assert!(matches!(found, Violation::SilentGap { first: 3, last: 4, .. }), "{found}");
    let found = only(&[&arm(), &brain().begins(1, 3).gets(1, [2])]);
    assert!(matches!(found, Violation::OutOfOrder { sequence: 2, floor: 2, .. }), "{found}");
    // Once more in the same life: only where the receiver stands.
    assert_eq!(compare(&[&arm(), &brain().gets(1, 1..=4).begins(1, 5).gets(1, [5])]).violations, 0);
    let found = only(&[&arm(), &brain().gets(1, 1..=4).begins(1, 7).gets(1, [7])]);
    assert!(matches!(found, Violation::SilentGap { first: 5, last: 6, .. }), "{found}");
    let found = only(&[&arm(), &brain().gets(1, 1..=4).begins(1, 4)]);
    assert!(matches!(found, Violation::OutOfOrder { sequence: 4, floor: 4, .. }), "{found}");
}

#[test]
fn a_message_that_nobody_sent_is_found_and_so_is_one_that_was_changed() {
    let found = only(&[&arm(), &brain().gets(1, 1..=11)]);
    assert!(matches!(found, Violation::NeverSent { sequence: 11, no_ledger: false, .. }));
    let found = only(&[&arm(), &brain().push(got(1, 1, 0xbad))]);
    assert!(matches!(found, Violation::Altered { sequence: 1, .. }));
    let found = only(&[&arm(), &brain().gets(9, [1])]);
    assert!(matches!(found, Violation::NeverSent { epoch: 9, .. }));
    let found = only(&[&brain().gets(1, [1])]);
    assert!(matches!(found, Violation::NeverSent { no_ledger: true, .. }));
    let refused = arm().push(Record::Refused { topic: topic(), sequence: 10 });
    let found = only(&[&refused, &brain().gets(1, 1..=10)]);
    assert!(matches!(found, Violation::NeverSent { sequence: 10, .. }));
}

#[test]
fn epochs_that_do_not_grow_are_found_at_both_ends() {
    for epoch in [1, 0] {
        let found = only(&[&arm().life(epoch, 50).writes(Promise::Reliable)]);
        assert!(matches!(found, Violation::EpochDidNotGrow { before: 1, .. }), "{found}");
    }
    let arm = arm().life(2, 50).writes(Promise::Reliable).sends(1..=3);
    let back = brain().gets(1, [1]).gets(2, [1]).gets(1, [2]);
    let found = only(&[&arm, &back]);
    assert!(matches!(found, Violation::EpochWentBack { before: 2, epoch: 1, .. }), "{found}");
    let over_restart = brain().gets(2, [1]).life(8, 60).reads(Promise::Reliable).gets(1, [2]);
    let found = only(&[&arm, &over_restart]);
    assert!(matches!(found, Violation::EpochWentBack { .. }), "{found}");
}

#[test]
fn a_process_that_comes_back_as_somebody_else_is_found() {
    let mut book = arm();
    book.key = 0xc;
    let found = only(&[&book.life(2, 50)]);
    assert!(matches!(found, Violation::AnotherKey { .. }), "{found}");
}

#[test]
fn a_sender_that_reuses_or_leaves_out_a_number_is_found() {
    let writes = || Book::new("arm", ARM).life(1, 10).writes(Promise::Reliable);
    for (sequences, sequence, expected) in [([1, 2, 2], 2, 3), ([1, 2, 4], 4, 3)] {
        match only(&[&writes().sends(sequences)]) {
            Violation::Misnumbered { sequence: s, expected: e, .. } => {
                assert_eq!((s, e), (sequence, expected));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_outcome_that_is_not_so_is_found() {
    let command = |told| arm().told(3, told);
    let (with, without) = (brain().gets(1, 1..=3), brain().gets(1, 1..=2));
    for told in [Told::Accepted, Told::Rejected] {
        let decided = brain().gets(1, 1..=3).decides(1, 3, told);
        assert_eq!(compare(&[&command(told), &decided]).violations, 0);
        for wrong in [&without, &with] {
            let found = only(&[&command(told), wrong]);
            assert!(matches!(found, Violation::Outcome { sequence: 3, twice: false, .. }));
        }
    }
    let refused = brain().gets(1, 1..=3).decides(1, 3, Told::Rejected);
    let found = only(&[&command(Told::Accepted), &refused]);
    assert!(matches!(found, Violation::Outcome { sequence: 3, .. }), "{found}");
    for told in [Told::Expired, Told::NeverArrived] {
        assert_eq!(compare(&[&command(told), &without]).violations, 0);
        assert!(matches!(only(&[&command(told), &with]), Violation::Outcome { sequence: 3, .. }));
    }
    for receiver in [&with, &without] {
        assert_eq!(compare(&[&command(Told::Unknown), receiver]).violations, 0);
    }
    let twice = command(Told::Accepted).told(3, Told::Accepted);
    let decided = brain().gets(1, 1..=3).decides(1, 3, Told::Accepted);
    assert!(matches!(only(&[&twice, &decided]), Violation::Outcome { twice: true, .. }));
}

#[test]
fn what_never_came_is_found_when_both_ends_ended_in_good_order() {
    let short = brain().gets(1, 1..=8).end();
    let found = only(&[&arm().end(), &short]);
    assert!(matches!(found, Violation::Unfinished { first: 9, last: 10, .. }), "{found}");
    let nothing = brain().end();
    let found = only(&[&arm().end(), &nothing]);
    assert!(matches!(found, Violation::Unfinished { first: 1, last: 10, .. }), "{found}");
    assert_eq!(compare(&[&arm(), &short]).violations, 0, "the sender was killed");
    assert_eq!(compare(&[&arm().end(), &brain().gets(1, 1..=8)]).violations, 0, "the receiver was");
}

#[test]
fn a_ledger_that_must_be_complete_and_is_not_is_found() {
    let options = Options { complete: true, ..Options::default() };
    let report = check(&[arm().end().read(), brain().gets(1, 1..=10).read()], options);
    assert_eq!(report.violations, 1);
    assert!(matches!(report.listed[0], Violation::NotEnded { .. }));
}

#[test]
fn what_a_receiver_missed_of_a_beginning_is_counted_and_is_a_breach_when_asked_for() {
    let late = brain().gets(1, 4..=10);
    let report = compare(&[&arm(), &late]);
    assert_eq!((report.violations, report.topics["cmd"].missed_at_join), (0, 3));
    let strict = Options { strict_join: true, ..Options::default() };
    let report = check(&[arm().read(), late.read()], strict);
    assert!(matches!(report.listed[..], [Violation::SilentGap { first: 1, last: 3, .. }]));
    let told = brain().gap(1, 1, 3).gets(1, 4..=10);
    let from_the_first = brain().begins(1, 1).gets(1, 1..=10);
    for brain in [told, from_the_first] {
        let report = check(&[arm().read(), brain.read()], strict);
        assert_eq!(report.violations, 0, "{}", report.text());
    }
}

#[test]
fn a_torn_last_line_is_no_damage_and_any_other_unreadable_line_is() {
    let whole = arm().text;
    let lines = whole.lines().count();
    for cut in 2..40 {
        // The next life begins on a line of its own.
        let torn = whole[..whole.len() - cut].to_owned();
        for text in
            [torn.clone(), format!("{torn}\n{}", arm().life(2, 50).text.split_at(whole.len()).1)]
        {
            let ledger = read("arm", text.as_bytes());
            assert_eq!(ledger.damaged, [0; 0], "{text}");
            assert!(ledger.lives[0].torn);
        }
    }
    for line in 1..lines {
        let mut damaged: Vec<String> = whole.lines().map(str::to_owned).collect();
        let missing: String = whole
            .lines()
            .enumerate()
            .filter(|(n, _)| *n != line - 1)
            .map(|(_, l)| format!("{l}\n"))
            .collect();
        damaged[line - 1].insert(3, 'x');
        for text in [damaged.join("\n") + "\n", missing] {
            assert!(!read("arm", text.as_bytes()).damaged.is_empty(), "{line}\n{text}");
        }
    }
    let report = compare(&[&Book { text: whole.replacen("sent cmd 4", "sent cmd 5", 1), ..arm() }]);
    assert!(matches!(
        report.listed[..],
        [
            Violation::Damaged { line: 6, .. },
            Violation::Misnumbered { line: 7, sequence: 5, expected: 4, .. }
        ]
    ));
}

#[test]
fn a_life_that_was_killed_while_it_began_leaves_a_readable_ledger() {
    let whole = arm().end().text;
    let next = Book::new("arm", ARM).life(2, 50).writes(Promise::Reliable).text;
    for cut in 1..next.lines().next().unwrap().len() {
        let text = format!("{whole}{}\n{next}", &next[..cut]);
        let ledger = read("arm", text.as_bytes());
        assert_eq!((ledger.damaged.len(), ledger.lives.len()), (0, 2), "{text}");
    }
}

#[test]
fn a_writer_goes_on_after_a_torn_line_and_starts_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("arm.ledger");
    let torn = &arm().text[..arm().text.len() - 10];
    std::fs::write(&path, torn).unwrap();
    let mut writer = LedgerWriter::open(&path).unwrap();
    let (owner, key, epoch, at) = ("arm".to_owned(), ARM, 2, 50);
    writer.write(&Record::Life { owner, key, epoch, at }).unwrap();
    writer.write(&Record::End { at: 60 }).unwrap();
    let ledger = read("arm", &std::fs::read(&path).unwrap());
    assert_eq!(ledger.damaged, [0; 0]);
    let lives: Vec<_> =
        ledger.lives.iter().map(|life| (life.epoch, life.torn, life.ended)).collect();
    assert_eq!(lives, [(1, true, false), (2, false, true)]);
}

#[test]
fn the_report_counts_all_violations_and_lists_the_first() {
    let report = compare(&[&arm(), &brain().gets(1, (1..=300).map(|_| 11))]);
    // Each was never sent, and all but the first are out of order.
    assert!(report.violations > 500, "{}", report.violations);
    assert_eq!(report.listed.len(), super::check::LISTED_MAX);
    assert!(report.text().contains("more violations"));
    assert!(report.json().unwrap().contains("\"never-sent\""));
}
