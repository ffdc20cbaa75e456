//! Whether what several processes say agrees with what was promised. Knows the promises and the ledgers
//! and nothing of the protocol.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{Ledger, Life};
use super::record::{Promise, Record, Told};
use super::report::{Report, TopicReport, Violation};

/// Violations that a report lists one by one; it counts all.
pub const LISTED_MAX: usize = 100;

/// What is checked beside what always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What a receiver that was alive before the sender missed of the beginning of the sender's life
    /// must be reported as a gap.
    pub strict_join: bool,
    /// A message may come once more after the receiver restarted.
    pub again_after_restart: bool,
    /// Both ends must have ended in good order, with nothing left to be delivered.
    pub complete: bool,
}

/// Compares ledgers.
#[must_use]
pub fn check(ledgers: &[Ledger], options: Options) -> Report {
    let mut checker = Checker { options, report: Report::default(), ..Checker::default() };
    for ledger in ledgers {
        checker.file(ledger);
    }
    for ledger in ledgers {
        checker.senders(ledger);
    }
    for ledger in ledgers {
        Receiver::default().read(ledger, &mut checker);
    }
    checker.outcomes();
    checker.finish(ledgers);
    checker.report
}

/// A stream: who sends, in which life, and the topic.
type StreamKey = (u64, u64, String);

/// What a sender says it sent in one stream, in the order of the sequence.
#[derive(Debug, Default)]
struct Sent {
    promise: Option<Promise>,
    /// Digest and time of each, from sequence 1; `None` for a number that was given up.
    messages: Vec<Option<(u64, i64)>>,
    /// Who got it, as ledgers of receivers.
    told: Vec<(String, usize, u64, Told)>,
    /// Which somebody says that it got.
    got: BTreeSet<u64>,
    /// What somebody says that it decided.
    decided: BTreeMap<u64, Told>,
    began_at: i64,
    /// The life ended in good order and is the sender's last.
    ended: bool,
}

impl Sent {
    fn last(&self) -> u64 {
        let last = self.messages.iter().rposition(Option::is_some);
        last.map_or(0, |place| place as u64 + 1)
    }
}

#[derive(Debug, Default)]
struct Checker {
    options: Options,
    report: Report,
    streams: BTreeMap<StreamKey, Sent>,
    /// Which ledger speaks for a sender.
    owners: BTreeMap<u64, String>,
    /// How many ledgers read a topic.
    readers: BTreeMap<String, u64>,
    /// Reliable streams that a receiver had got to the end of, or to where.
    done: Vec<Done>,
}

/// How far a receiver's last life came in a stream.
#[derive(Debug)]
struct Done {
    ledger: String,
    topic: String,
    ended: bool,
    /// Up to here, by sender and epoch.
    upto: BTreeMap<(u64, u64), u64>,
}

impl Checker {
    fn violation(&mut self, violation: Violation) {
        self.report.violations += 1;
        if self.report.listed.len() < LISTED_MAX {
            self.report.listed.push(violation);
        }
    }

    fn topic(&mut self, topic: &str) -> &mut TopicReport {
        self.report.topics.entry(topic.to_owned()).or_default()
    }

    /// What is wrong with a ledger by itself.
    fn file(&mut self, ledger: &Ledger) {
        self.report.ledgers += 1;
        self.report.lives += ledger.lives.len() as u64;
        self.report.torn += ledger.lives.iter().filter(|life| life.torn).count() as u64;
        for line in &ledger.damaged {
            let (ledger, line) = (ledger.name.clone(), *line);
            self.violation(Violation::Damaged { ledger, line });
        }
        for pair in ledger.lives.windows(2) {
            let [before, after] = pair else { continue };
            let (ledger, line) = (ledger.name.clone(), after.line);
            if after.epoch <= before.epoch {
                let (before, after) = (before.epoch, after.epoch);
                self.violation(Violation::EpochDidNotGrow { ledger, line, before, after });
            } else if after.key != before.key {
                self.violation(Violation::AnotherKey { ledger, line });
            }
        }
        let reads: BTreeSet<&String> = ledger
            .lives
            .iter()
            .flat_map(|life| &life.records)
            .filter_map(|(_, record)| match record {
                Record::Reads { topic, .. } => Some(topic),
                _ => None,
            })
            .collect();
        for topic in reads {
            *self.readers.entry(topic.clone()).or_default() += 1;
        }
    }

    /// Takes down what was sent.
    fn senders(&mut self, ledger: &Ledger) {
        for (n, life) in ledger.lives.iter().enumerate() {
            let is_last = n + 1 == ledger.lives.len();
            self.owners.insert(life.key, ledger.name.clone());
            for (line, record) in &life.records {
                self.sender_says(ledger, life, is_last, *line, record);
            }
        }
    }

    fn sender_says(
        &mut self,
        ledger: &Ledger,
        life: &Life,
        is_last: bool,
        line: usize,
        record: &Record,
    ) {
        let name = || ledger.name.clone();
        let stream = |topic: &str| (life.key, life.epoch, topic.to_owned());
        match record {
            Record::Writes { promise, topic } => {
                let sent = self.streams.entry(stream(topic)).or_default();
                sent.promise = Some(*promise);
                sent.began_at = life.at;
                sent.ended = life.ended && is_last;
            }
            Record::Sent { topic, sequence, digest, at } => {
                let sent = self.streams.entry(stream(topic)).or_default();
                let expected = sent.messages.len() as u64 + 1;
                // One number left out is one violation: those after it are as they should be. A jump
                // beyond any ledger is only noted.
                let skipped = sequence.checked_sub(expected).filter(|skipped| *skipped < 1 << 20);
                if let Some(skipped) = skipped {
                    sent.messages.extend((0..skipped).map(|_| None));
                    sent.messages.push(Some((*digest, *at)));
                    self.topic(topic).sent += 1;
                }
                if *sequence != expected {
                    let (topic, sequence) = (topic.clone(), *sequence);
                    let ledger = name();
                    self.violation(Violation::Misnumbered {
                        ledger,
                        line,
                        topic,
                        sequence,
                        expected,
                    });
                }
            }
            Record::Refused { topic, sequence } => {
                let sent = self.streams.entry(stream(topic)).or_default();
                let last = sent.messages.len() as u64;
                if *sequence == last
                    && let Some(message) = sent.messages.last_mut()
                {
                    *message = None;
                    self.topic(topic).sent -= 1;
                } else {
                    let (topic, sequence, expected) = (topic.clone(), *sequence, last);
                    let ledger = name();
                    self.violation(Violation::Misnumbered {
                        ledger,
                        line,
                        topic,
                        sequence,
                        expected,
                    });
                }
            }
            Record::Outcome { topic, sequence, told } => {
                let sent = self.streams.entry(stream(topic)).or_default();
                sent.told.push((name(), line, *sequence, *told));
                *self.topic(topic).outcomes.entry(*told).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Whether outcomes that senders were told agree with what receivers did.
    fn outcomes(&mut self) {
        let mut found = Vec::new();
        for ((_, epoch, topic), sent) in &self.streams {
            let one_reader = self.readers.get(topic) == Some(&1);
            let mut before = BTreeSet::new();
            for (ledger, line, sequence, told) in &sent.told {
                let was_got = sent.got.contains(sequence);
                let decided = sent.decided.get(sequence);
                let contradicts = match told {
                    Told::Accepted | Told::Rejected => !was_got || decided != Some(told),
                    Told::Expired | Told::NeverArrived => was_got && one_reader,
                    Told::Unknown => false,
                };
                let twice = one_reader && !before.insert(*sequence);
                if contradicts || twice {
                    found.push(Violation::Outcome {
                        ledger: ledger.clone(),
                        line: *line,
                        topic: topic.clone(),
                        epoch: *epoch,
                        sequence: *sequence,
                        told: *told,
                        twice,
                    });
                }
            }
        }
        found.into_iter().for_each(|violation| self.violation(violation));
    }

    /// Counts what was lost without a word, and finds what should have come and did not.
    fn finish(&mut self, ledgers: &[Ledger]) {
        if self.options.complete {
            for ledger in ledgers {
                if !ledger.lives.last().is_some_and(|life| life.ended) {
                    self.violation(Violation::NotEnded { ledger: ledger.name.clone() });
                }
            }
        }
        for ((_, _, topic), sent) in &self.streams {
            let lost = sent.messages.iter().flatten().count() as u64
                - (1..).zip(&sent.messages).filter(|(n, _)| sent.got.contains(n)).count() as u64;
            self.report.topics.entry(topic.clone()).or_default().undelivered += lost;
        }
        let mut found = Vec::new();
        for ((key, epoch, topic), sent) in &self.streams {
            if sent.promise != Some(Promise::Reliable) || !sent.ended {
                continue;
            }
            for done in self.done.iter().filter(|done| done.ended && done.topic == *topic) {
                let upto = done.upto.get(&(*key, *epoch)).copied().unwrap_or(0);
                if upto < sent.last() {
                    found.push(Violation::Unfinished {
                        ledger: done.ledger.clone(),
                        topic: topic.clone(),
                        epoch: *epoch,
                        first: upto + 1,
                        last: sent.last(),
                    });
                }
            }
        }
        found.into_iter().for_each(|violation| self.violation(violation));
        for topic in self.report.topics.values_mut() {
            topic.latencies_ns.sort_unstable();
        }
    }
}

/// What one ledger says it got, as it is read from its beginning.
#[derive(Debug, Default)]
struct Receiver {
    /// The highest epoch of each sender, over all lives.
    epochs: BTreeMap<u64, u64>,
    /// Everything it got, with the number of its own life.
    seen: BTreeMap<StreamKey, BTreeMap<u64, usize>>,
    /// Up to where each reliable stream is done in this life: got or reported as missing.
    floors: BTreeMap<StreamKey, u64>,
    promises: BTreeMap<String, Promise>,
}

/// Where a record stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    ledger: &'a Ledger,
    life: &'a Life,
    /// The number of the life.
    n: usize,
    line: usize,
}

impl Place<'_> {
    fn name(self) -> String {
        self.ledger.name.clone()
    }
}

impl Receiver {
    fn read(&mut self, ledger: &Ledger, checker: &mut Checker) {
        for (n, life) in ledger.lives.iter().enumerate() {
            self.floors.clear();
            self.promises.clear();
            for (line, record) in &life.records {
                let place = Place { ledger, life, n, line: *line };
                self.says(place, record, checker);
            }
            if n + 1 == ledger.lives.len() {
                self.done(ledger, life, checker);
            }
        }
    }

    fn says(&mut self, place: Place<'_>, record: &Record, checker: &mut Checker) {
        match record {
            Record::Reads { promise, topic } => {
                self.promises.insert(topic.clone(), *promise);
            }
            Record::Got { from, epoch, topic, sequence, digest, at } => {
                let stream = (*from, *epoch, topic.clone());
                self.epoch(place, *from, *epoch, checker);
                if checker.was_sent(place, &stream, *sequence, *digest, *at) {
                    self.once(place, &stream, *sequence, checker);
                }
                if self.promises.get(topic) == Some(&Promise::Reliable) {
                    self.in_order(place, &stream, *sequence, checker);
                }
            }
            Record::Gap { from, epoch, topic, first, last } => {
                let stream = (*from, *epoch, topic.clone());
                self.epoch(place, *from, *epoch, checker);
                self.gap(place, &stream, *first, *last, checker);
            }
            Record::NewLife { from, epoch, topic, first } => {
                self.epoch(place, *from, *epoch, checker);
                self.begin(place, &(*from, *epoch, topic.clone()), *first, checker);
            }
            Record::Decided { from, epoch, topic, sequence, told } => {
                let stream = (*from, *epoch, topic.clone());
                if let Some(sent) = checker.streams.get_mut(&stream) {
                    sent.decided.insert(*sequence, *told);
                }
            }
            _ => {}
        }
    }

    fn epoch(&mut self, place: Place<'_>, from: u64, epoch: u64, checker: &mut Checker) {
        let highest = self.epochs.entry(from).or_insert(epoch);
        if epoch < *highest {
            let (ledger, line, before) = (place.name(), place.line, *highest);
            checker.violation(Violation::EpochWentBack { ledger, line, from, before, epoch });
        }
        *highest = epoch.max(*highest);
    }

    fn once(&mut self, place: Place<'_>, stream: &StreamKey, sequence: u64, checker: &mut Checker) {
        let before = self.seen.entry(stream.clone()).or_default().insert(sequence, place.n);
        let Some(before) = before else { return };
        let after_restart = before != place.n;
        if after_restart && checker.options.again_after_restart {
            checker.topic(&stream.2).again_after_restart += 1;
            return;
        }
        checker.violation(Violation::Duplicate {
            ledger: place.name(),
            line: place.line,
            topic: stream.2.clone(),
            epoch: stream.1,
            sequence,
            after_restart,
        });
    }

    fn in_order(
        &mut self,
        place: Place<'_>,
        stream: &StreamKey,
        sequence: u64,
        checker: &mut Checker,
    ) {
        if self.goes_on(place, stream, sequence, checker) {
            self.floors.insert(stream.clone(), sequence);
        }
    }

    /// A stream begins, or begins anew, with a message that the receiver was told.
    fn begin(&mut self, place: Place<'_>, stream: &StreamKey, first: u64, checker: &mut Checker) {
        if self.goes_on(place, stream, first, checker) {
            self.floors.insert(stream.clone(), first.saturating_sub(1));
        }
    }

    /// Whether `sequence` does not lie behind what the receiver has; what it leaves out without a word is
    /// a breach.
    fn goes_on(
        &self,
        place: Place<'_>,
        stream: &StreamKey,
        sequence: u64,
        checker: &mut Checker,
    ) -> bool {
        let (ledger, line) = (place.name(), place.line);
        let (topic, epoch) = (stream.2.clone(), stream.1);
        match self.floors.get(stream).copied() {
            None => self.join(place, stream, sequence, checker),
            Some(floor) if sequence <= floor => {
                checker.violation(Violation::OutOfOrder {
                    ledger,
                    line,
                    topic,
                    epoch,
                    sequence,
                    floor,
                });
                return false;
            }
            Some(floor) if sequence > floor + 1 => {
                let (first, last) = (floor + 1, sequence - 1);
                checker.violation(Violation::SilentGap { ledger, line, topic, epoch, first, last });
            }
            Some(_) => {}
        }
        true
    }

    /// A stream that is not heard from its beginning, in this life of the receiver.
    fn join(&self, place: Place<'_>, stream: &StreamKey, sequence: u64, checker: &mut Checker) {
        let was_alive_before =
            checker.streams.get(stream).is_some_and(|sent| place.life.at < sent.began_at);
        if !was_alive_before || sequence <= 1 {
            return;
        }
        checker.topic(&stream.2).missed_at_join += sequence - 1;
        if checker.options.strict_join {
            checker.violation(Violation::SilentGap {
                ledger: place.name(),
                line: place.line,
                topic: stream.2.clone(),
                epoch: stream.1,
                first: 1,
                last: sequence - 1,
            });
        }
    }

    fn gap(
        &mut self,
        place: Place<'_>,
        stream: &StreamKey,
        first: u64,
        last: u64,
        checker: &mut Checker,
    ) {
        let (topic, epoch) = (stream.2.clone(), stream.1);
        let sent = checker.streams.get(stream).map_or(0, |sent| sent.messages.len() as u64);
        let floor = self.floors.get(stream).copied();
        let in_life = |sequence: &u64| {
            let seen = self.seen.get(stream).and_then(|seen| seen.get(sequence));
            seen == Some(&place.n)
        };
        // A stream's beginning may be reported as missing from wherever the receiver knows of.
        let follows = floor.is_none_or(|floor| first == floor + 1);
        let reason = if first == 0 || last < first {
            Some("it is no range")
        } else if last > sent {
            Some("it names messages that were never sent")
        } else if self
            .seen
            .get(stream)
            .is_some_and(|seen| seen.range(first..=last).any(|(sequence, _)| in_life(sequence)))
        {
            Some("a message of it was delivered")
        } else if !follows {
            Some("it does not follow on what came before")
        } else {
            None
        };
        if let Some(reason) = reason {
            let (ledger, line) = (place.name(), place.line);
            checker.violation(Violation::FalseGap {
                ledger,
                line,
                topic,
                epoch,
                first,
                last,
                reason: reason.to_owned(),
            });
            return;
        }
        let report = checker.topic(&topic);
        report.gaps += 1;
        report.reported_missing += last - first + 1;
        self.floors.insert(stream.clone(), last);
    }

    /// How far the last life came, for streams that a sender finished.
    fn done(&self, ledger: &Ledger, life: &Life, checker: &mut Checker) {
        for (topic, promise) in &self.promises {
            if *promise != Promise::Reliable {
                continue;
            }
            let upto = self
                .floors
                .iter()
                .filter(|((_, _, of), _)| of == topic)
                .map(|((from, epoch, _), floor)| ((*from, *epoch), *floor))
                .collect();
            let (ledger, topic) = (ledger.name.clone(), topic.clone());
            checker.done.push(Done { ledger, topic, ended: life.ended, upto });
        }
    }
}

impl Checker {
    /// Whether a message that was got is one that was sent, unchanged.
    fn was_sent(
        &mut self,
        place: Place<'_>,
        stream: &StreamKey,
        sequence: u64,
        digest: u64,
        at: i64,
    ) -> bool {
        let (ledger, line) = (place.name(), place.line);
        let (from, epoch, topic) = stream.clone();
        let message = sequence.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let sent = self.streams.get_mut(stream);
        let known = message.and_then(|place| sent.as_ref()?.messages.get(place).copied().flatten());
        let Some((sent_digest, sent_at)) = known else {
            let no_ledger = !self.owners.contains_key(&from);
            self.violation(Violation::NeverSent {
                ledger,
                line,
                topic,
                from,
                epoch,
                sequence,
                no_ledger,
            });
            return false;
        };
        if sent_digest != digest {
            self.violation(Violation::Altered { ledger, line, topic, epoch, sequence });
            return false;
        }
        if let Some(sent) = sent {
            sent.got.insert(sequence);
        }
        let report = self.topic(&topic);
        report.delivered += 1;
        report.latencies_ns.push(at - sent_at);
        true
    }
}
