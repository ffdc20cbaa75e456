//! The reader against a simple model of its promises, and against a peer that says anything.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

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
    /// The peer restarts with this next sequence.
    NewLife(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (-3i64..70).prop_map(Event::Frame),
        6 => (0i64..6).prop_map(Event::Frame),
        2 => (60i64..270).prop_map(Event::Frame),
        2 => (-20i64..12, prop_oneof![0u64..80, 0u64..400]).prop_map(|(first, more)| Event::Heartbeat(first, more)),
        2 => (0i64..3_000_000).prop_map(Event::Wait),
        1 => (0i64..200_000_000).prop_map(Event::Wait),
        2 => prop_oneof![0u64..100, 0u64..400].prop_map(Event::Room),
        5 => Just(Event::Deliver),
        3 => Just(Event::Report),
        2 => Just(Event::UntilDeadline),
        1 => (1u64..1_000).prop_map(Event::NewLife),
    ]
}

/// What a reader should do, without its cleverness: sets of everything.
struct Model {
    reader: Reader<Counted>,
    spec: ReaderSpec,
    epoch: u64,
    /// What heartbeats say of the number of readers.
    many: bool,
    alive: Rc<Cell<i64>>,
    now: Nanos,
    taken: BTreeSet<u64>,
    /// Since when each sequence could be known to have been sent.
    sent: BTreeMap<u64, Nanos>,
    /// What could not be sent before a report allowed it.
    unlocked: BTreeSet<u64>,
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
            epoch: EPOCH.get(),
            many: false,
            alive: Rc::default(),
            now: Nanos::ZERO,
            taken: BTreeSet::new(),
            sent: BTreeMap::new(),
            unlocked: BTreeSet::new(),
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
            Event::NewLife(next) => self.new_life(next),
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

    fn hold(&self) -> u64 {
        u64::from(self.spec.hold)
    }

    fn new_life(&mut self, next: u64) {
        self.epoch += 1;
        self.reader.new_life(Epoch::new(self.epoch), Sequence::new(next), self.now);
        self.taken.clear();
        self.sent.clear();
        self.unlocked.clear();
        (self.first, self.last, self.floor) = (next, next - 1, next - 1);
        (self.allowed, self.limit) = (self.floor + self.free.min(self.hold()), self.floor);
    }

    fn see(&mut self, last: u64) {
        for sequence in self.floor.saturating_add(1)..=last.min(self.floor.saturating_add(800)) {
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
            Accepted::Beyond(_) => assert!(sequence > self.floor + self.hold()),
            Accepted::InOrder | Accepted::Held => {
                assert!(sequence > self.floor && sequence - self.floor <= self.hold());
                assert_eq!(matches!(accepted, Accepted::InOrder), sequence == self.floor + 1);
                assert!(self.taken.insert(sequence), "taken twice");
                self.see(sequence);
            }
        }
    }

    fn heartbeat(&mut self, first: u64, last: u64) {
        let sound = Heartbeat { class: self.spec.class, many: self.many, ..heartbeat(first, last) };
        assert_eq!(self.reader.heartbeat(&sound, self.now), Ok(()));
        self.first = self.first.max(first);
        self.last = self.last.max(last);
        self.see(last);
    }

    fn room(&mut self, free: u64) {
        self.free = free;
        self.allowed = self.allowed.max(self.floor.saturating_add(free.min(self.hold())));
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
            let (more, wanted) = self.more_of(&report);
            let held = Held::from_places((1..256).filter(|n| {
                self.floor.checked_add(1 + n).is_some_and(|s| self.taken.contains(&s))
            }));
            assert_eq!(report.held & 1, 0, "in order, but without room");
            let shown = Held::from_wire(report.held, more);
            let limit = report.limit.get();
            assert_eq!(report.floor.get(), self.floor);
            assert_eq!(shown, held & Held::below(shown.end()), "what is held, up to its end");
            assert_eq!(report.epoch.get(), self.epoch);
            if held.is_empty() {
                // Sent to others before it was allowed to be sent here.
                self.unlocked.extend(self.limit.saturating_add(1)..=self.last.min(limit));
            }
            match wanted {
                true => self.check_request(shown),
                false => assert_eq!(shown, held),
            }
            assert_eq!(shown.is_empty(), held.is_empty());
            assert!(limit >= self.limit, "a promise was taken back");
            assert!(limit >= self.floor, "room for what is done");
            assert!(limit <= self.allowed && limit <= self.floor.saturating_add(self.hold()));
            self.limit = limit;
        }
    }

    /// The entry that follows when not all that is held finds room, and whether the two ask.
    fn more_of(&mut self, report: &Acknowledgement) -> ([u64; 3], bool) {
        let waits = self.reader.next_deadline().is_some_and(|at| at == Nanos::MIN);
        if self.reader.more.is_none() {
            return ([0; 3], report.wanted);
        }
        assert!(waits, "the second entry is due with the first");
        let Some(Entry::MoreHeld(more)) = self.reader.report(self.now) else {
            panic!("something came between the two");
        };
        assert_eq!((more.topic, more.epoch), (report.topic, report.epoch));
        assert_eq!(more.floor, report.floor);
        assert!(more.held != [0; 3]);
        // An acknowledgement that shows nothing asks for everything, so then the other one asks.
        assert_eq!(report.wanted, more.wanted && report.held != 0);
        (more.held, more.wanted)
    }

    /// Something that is asked for has been missing for as long as what is merely late, or could not
    /// have been sent before now.
    fn check_request(&self, shown: Held) {
        let end = match shown.end() {
            0 => self.last.min(self.allowed),
            end => self.floor + end,
        };
        let asked: Vec<_> =
            (self.floor + 1..=end).filter(|sequence| !self.taken.contains(sequence)).collect();
        let late = asked.iter().any(|sequence| self.now >= self.sent[sequence] + self.spec.reorder);
        let unlocked = asked.iter().any(|sequence| self.unlocked.contains(sequence));
        assert!(late || unlocked, "asked for what may merely be late");
        assert!(asked.iter().any(|sequence| *sequence >= self.first), "asked for what is lost");
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
        if !delivers {
            let first = self.reader.report(self.now).expect("nothing at the deadline");
            if let Entry::Acknowledgement(report) = first {
                self.more_of(&report);
            }
        }
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
        next in prop_oneof![Just(1u64), 1u64..1_000, u64::MAX - 520..u64::MAX],
        many in any::<bool>(),
        class in prop_oneof![Just(Class::Stream), Just(Class::Command)],
        hold in prop_oneof![Just(64u16), Just(256), 64u16..=256],
    ) {
        let mut model = Model::new(ReaderSpec { hold, class, ..spec() }, next);
        model.many = many;
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
        many in any::<bool>(),
        hold in prop_oneof![Just(64u16), 64u16..=256, any::<u16>()],
        start in number(),
    ) {
        let alive = Rc::default();
        let spec = ReaderSpec { hold, class: Class::Command, ..spec() };
        let mut reader = Reader::new(spec, 5);
        let mut now = Nanos::ZERO;
        let (mut floor, mut epoch) = (Sequence::default(), Epoch::NONE);
        reader.new_life(EPOCH, Sequence::new(start), now);
        for (kind, a, b, c, wait) in events {
            let near = reader.floor().get().wrapping_add(a % 300).wrapping_sub(10);
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
                    let heartbeat = Heartbeat { class, unresolved, many, ..heartbeat(first, last) };
                    let _ = reader.heartbeat(&heartbeat, now);
                }
                4 => reader.room(a, now),
                5 => reader.decide(Sequence::new(if b % 2 == 0 { a } else { near }), c as u8),
                6 => reader.set_round_trip(Nanos::new(a.cast_signed())),
                7 => reader.new_life(Epoch::new(a % 32), Sequence::new(b), now),
                _ => {
                    let frame = Counted::new(reader.floor().get(), &alive);
                    drop(reader.accept(reader.floor(), now, frame, now));
                }
            }
            now += Nanos::new(wait);
            prop_assert!(reader.epoch() >= epoch);
            prop_assert!(reader.epoch() > epoch || reader.floor() >= floor);
            let steps = std::iter::from_fn(|| reader.next(now)).take(1_000).count();
            prop_assert!(steps <= 520, "{steps} deliveries from one event");
            let steps = std::iter::from_fn(|| reader.report(now)).take(1_000).count();
            // A gap gives each command that is kept its outcome, 32 in a report.
            prop_assert!(steps <= 36, "{steps} reports from one event");
            prop_assert!(alive.get() <= i64::from(hold.clamp(1, 256)));
            (floor, epoch) = (reader.floor(), reader.epoch());
        }
        drop(reader);
        prop_assert_eq!(alive.get(), 0);
    }
}
