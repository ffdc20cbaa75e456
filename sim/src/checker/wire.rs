//! What is on the wire: what nodes send, in whose name, how often; and what arrives.

use std::collections::VecDeque;

use sinew_io::wire::report::{Acknowledgement, Entry, entries};
use sinew_io::wire::{Envelope, Frame, HandshakeMessage, KeyId, Nonce, decode};
use sinew_rt::clock::Nanos;
use zerocopy::{FromBytes, IntoBytes};

use super::{Account, Checker, Rule, TOPIC_COUNT, tolerated};
use crate::host::{Address, Payload, STRANGERS};
use crate::plan::{CAPACITY, Kind, LINGER, RETAINED, TOPICS};

/// Hellos that one peer may draw within a second: its rate and its burst.
const HELLOS_MAX: u32 = 20 + 8;
/// Bytes of one topic that may be sent again within a second, however little is sent otherwise, and what a
/// second that is counted from its first frame may hold of the one before.
const SENT_AGAIN_MAX: u64 = 64 * 1_024 + 8 * 1_024;
/// Reports to one peer within a second: each reader has at most one thing to say every millisecond.
const REPORTS_MAX: u32 = 1_500;
/// The most that a reader holds beyond what its program has room for.
const HELD_MAX: u64 = 64;
/// How long a slow node may take to deliver what arrived.
const PATIENCE: Nanos = Nanos::from_millis(500);
/// Who gave a word within this needs not give another.
const SPOKEN_LATELY: Nanos = Nanos::from_millis(20);
/// Of what comes twice within this only the first counts.
const ONE_OF_A_PEER: Nanos = Nanos::from_millis(2);
/// How long a writer may go on to believe that a reader is late.
const BELIEVED_LATE: Nanos = Nanos::from_millis(1_500);
/// A message that comes a second time is acknowledged within this.
const ANSWER_MAX: Nanos = Nanos::from_millis(150);
/// Nonces that are remembered.
const NONCES: usize = 16;

/// What one node sent to another.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// By topic: the highest number.
    sent: [u64; TOPIC_COUNT],
    /// By topic: what the sender, as a reader, said.
    said: [Said; TOPIC_COUNT],
    nonces: VecDeque<Nonce>,
    hellos: PerSecond,
    /// The highest epoch in a Hello that arrived.
    greeted: u64,
    reports: PerSecond,
    again: [PerSecond; TOPIC_COUNT],
    /// By topic: since when the sender, as a reader, owes a word about a message that came twice.
    owed: [Option<Nanos>; TOPIC_COUNT],
    /// By topic: when it last gave a word.
    spoke_at: [Nanos; TOPIC_COUNT],
    /// When a message of any topic came twice.
    came_again_at: Nanos,
}

/// What arrived intact and has to be delivered before the node rests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: u16,
    from: u16,
    life: u32,
    topic: u8,
    sequence: u64,
    since: Nanos,
}

/// What a reader said of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The life of the writer.
    epoch: u64,
    /// Everything up to this is done.
    floor: u64,
    /// There is room up to this.
    limit: u64,
    /// What was received beyond the floor, as in the report with the highest floor.
    held: u64,
    /// The highest floor that reached the writer.
    arrived: u64,
    /// When it last said something for which the writer may have given it up before.
    late_at: Option<Nanos>,
}

impl Said {
    /// Whether the writer may have given the reader up, whatever it said since: it lacks something for longer
    /// than it is kept, or did a while ago, and its word is on its way.
    fn is_given_up(&self, published: &[Nanos], now: Nanos) -> bool {
        self.is_late(published, now) || self.late_at.is_some_and(|at| now - at < BELIEVED_LATE)
    }

    fn is_late(&self, published: &[Nanos], now: Nanos) -> bool {
        let lacks = published.get(self.arrived as usize);
        lacks.is_some_and(|lacks| tolerated(now - *lacks) >= LINGER)
    }

    /// Whether the reader said that it has this message.
    fn has(&self, sequence: u64) -> bool {
        let beyond = sequence.checked_sub(self.floor + 1).filter(|bit| *bit < 64);
        sequence <= self.floor || beyond.is_some_and(|bit| self.held >> bit & 1 == 1)
    }
}

impl Link {
    /// The sender begins a new life. What its last one said as a reader still holds for the writer.
    pub(super) fn restart(&mut self) {
        *self = Self { said: self.said, ..Self::default() };
    }
}

impl Link {
    /// The sender was stopped for a while: nobody may expect an answer.
    pub(super) fn forgive(&mut self) {
        self.owed = [None; TOPIC_COUNT];
    }
}

/// A sum over the second that began with its first part.
#[derive(Clone, Copy, Debug, Default)]
struct PerSecond {
    since: Nanos,
    sum: u64,
}

impl PerSecond {
    fn add(&mut self, now: Nanos, amount: u64) -> u64 {
        if now - self.since >= Nanos::from_secs(1) {
            (self.since, self.sum) = (now, 0);
        }
        self.sum += amount;
        self.sum
    }
}

impl Checker {
    /// A node sends a frame.
    pub fn on_wire(&mut self, now: Nanos, from: u16, to: Address, frame: &[u8]) {
        if frame.len() > sinew_io::wire::FRAME_MAX {
            self.accuse(now, from, Rule::TooLong, || format!("{} bytes", frame.len()));
        }
        if to >= STRANGERS {
            return self.owe(now, from, to, frame.len());
        }
        match decode(frame) {
            Err(error) => self.accuse(now, from, Rule::Wire, || format!("no frame: {error}")),
            Ok(Frame::Handshake(handshake)) => {
                self.sender(now, from, handshake.message.from());
                if let HandshakeMessage::Hello(hello) = handshake.message {
                    self.hello(now, from, to, hello.nonce());
                }
            }
            Ok(Frame::Clear(envelope)) => {
                self.sender(now, from, envelope.header.source());
                self.envelope(now, (from, to), &envelope);
            }
        }
    }

    fn sender(&mut self, now: Nanos, from: u16, named: KeyId) {
        if named.get() != self.key_of[usize::from(from)] {
            self.accuse(now, from, Rule::Wire, || "a frame in another name".to_owned());
        }
    }

    fn link(&mut self, from: u16, to: Address) -> &mut Link {
        &mut self.links[usize::from(from) * self.nodes + usize::from(to)]
    }

    fn hello(&mut self, now: Nanos, from: u16, to: Address, nonce: Nonce) {
        let link = self.link(from, to);
        let again = link.nonces.contains(&nonce);
        link.nonces.push_back(nonce);
        if link.nonces.len() > NONCES {
            link.nonces.pop_front();
        }
        let count = link.hellos.add(now, 1);
        if again || count > u64::from(HELLOS_MAX) {
            self.accuse(now, from, Rule::Answers, || match again {
                true => format!("a second Hello for one Challenge of n{to}"),
                false => format!("{count} Hellos to n{to} within a second"),
            });
        }
    }

    fn report(&mut self, now: Nanos, from: u16, to: Address, payload: &[u8]) {
        let count = self.link(from, to).reports.add(now, 1);
        if count > u64::from(REPORTS_MAX) {
            self.accuse(now, from, Rule::Storm, || {
                format!("{count} reports to n{to} within a second")
            });
        }
        let Ok(entries) = entries(payload) else {
            return self.accuse(now, from, Rule::Wire, || "a report that is none".to_owned());
        };
        for entry in entries {
            match entry {
                Ok(Entry::Acknowledgement(entry)) => self.acknowledgement(now, from, to, &entry),
                Ok(Entry::Heartbeat(entry)) => {
                    let Some(topic) = self.topics.iter().position(|topic| *topic == entry.topic)
                    else {
                        continue;
                    };
                    let life = self.lives[usize::from(from)].len() as u32 - 1;
                    let published = self.count_of(from, life, topic as u8);
                    let (first, last) = (entry.first.get(), entry.last.get());
                    if last > published || first > last + 1 || first == 0 {
                        self.accuse(now, from, Rule::Wire, || {
                            format!(
                                "a heartbeat of {first} to {last}, and {published} were published"
                            )
                        });
                    }
                }
                Ok(Entry::Outcomes(_) | Entry::MoreHeld(_)) => {}
                Err(error) => self.accuse(now, from, Rule::Wire, || format!("an entry: {error}")),
            }
        }
    }

    fn acknowledgement(&mut self, now: Nanos, from: u16, to: u16, entry: &Acknowledgement) {
        let Some(topic) = self.topics.iter().position(|topic| *topic == entry.topic) else {
            return;
        };
        let (epoch, floor, limit) = (entry.epoch.get(), entry.floor.get(), entry.limit.get());
        let link = self.link(from, to);
        (link.owed[topic], link.spoke_at[topic]) = (None, now);
        let said = &mut self.links[usize::from(from) * self.nodes + usize::from(to)].said[topic];
        if said.epoch != epoch {
            *said = Said { epoch, ..Said::default() };
        }
        let life = self.lives[usize::from(to)].last().filter(|life| life.epoch == epoch);
        if life.is_some_and(|life| said.is_late(&life.published[topic], now)) {
            said.late_at = Some(now);
        }
        said.held = if floor > said.floor { entry.held } else { said.held | entry.held };
        said.floor = said.floor.max(floor);
        said.limit = said.limit.max(limit);
        if self.is_liar(to) {
            return;
        }
        let Some(life) = self.life_of(to, epoch) else {
            return self
                .accuse(now, from, Rule::Acknowledged, || format!("epoch {epoch} of n{to}"));
        };
        let reads = self.reads[usize::from(from)];
        let ear = self.ear(from, to, topic as u8);
        if !ear.open || ear.life != life || !reads {
            return;
        }
        let done = ear.expected.saturating_sub(1);
        if floor > done || limit > done + CAPACITY as u64 + HELD_MAX {
            let name = TOPICS[topic].name;
            self.accuse(now, from, Rule::Acknowledged, || {
                format!("{name} of n{to} up to {floor}, room up to {limit}; its program had {done}")
            });
        }
    }

    fn envelope(&mut self, now: Nanos, (from, to): (u16, Address), envelope: &Envelope<'_>) {
        let header = envelope.header;
        let Some(life) = self.lives[usize::from(from)].last() else { return };
        let (epoch, sent) = (life.epoch, header.epoch().get());
        let number = self.lives[usize::from(from)].len() as u32 - 1;
        if sent != epoch {
            return self
                .accuse(now, from, Rule::Wire, || format!("sends as epoch {sent} in {epoch}"));
        }
        if header.topic() == self.reports {
            return self.report(now, from, to, envelope.payload);
        }
        let Some(topic) = self.topics.iter().position(|topic| *topic == header.topic()) else {
            return;
        };
        let sequence = header.sequence().get();
        let expected = Payload::new(self.seed, from, number, topic as u8, sequence);
        // An emergency stop's messages only count.
        let wanted = match TOPICS[topic].kind {
            Kind::EStop => &expected.number.to_le_bytes()[..],
            _ => expected.as_bytes(),
        };
        let body = envelope.payload.get(..wanted.len()).unwrap_or_default();
        let published = self.published_at(&expected);
        if published.is_none() || body != wanted {
            return self.accuse(now, from, Rule::Wire, || {
                let got = Payload::read_from_bytes(body);
                format!("sends {got:?} as {} {sequence} of life {number}", TOPICS[topic].name)
            });
        }
        let (kind, lifespan) = (TOPICS[topic].kind, TOPICS[topic].lifespan);
        let sent = &mut self.link(from, to).sent[topic];
        let again = sequence <= *sent;
        *sent = sequence.max(*sent);
        if kind.is_reliable() && self.speaks_reports {
            let epoch_said = self.link(to, from).said[topic].epoch;
            if epoch_said != epoch && !self.is_liar(to) {
                self.accuse(now, from, Rule::Wire, || {
                    format!(
                        "{} {sequence} to n{to}, which has not asked for it",
                        TOPICS[topic].name
                    )
                });
            }
            self.within_room(now, from, topic, (sequence, published), again);
        }
        self.counts.repeated += u64::from(again && kind.is_reliable());
        if let (true, Some(lifespan), Some(published)) = (kind.is_reliable(), lifespan, published)
            && now - published > tolerated(lifespan)
        {
            let age = now - published;
            self.accuse(now, from, Rule::SentLate, || {
                format!("{} {sequence} is sent {age} after it was published", TOPICS[topic].name)
            });
        }
    }

    /// Whether a message may be sent: one of the readers has room for it, or is given up, or none has spoken.
    fn somebody_has_room(&self, now: Nanos, from: u16, topic: usize, sequence: u64) -> bool {
        let Some(life) = self.lives[usize::from(from)].last() else { return true };
        let mut spoken = false;
        for &peer in &self.peers[usize::from(from)] {
            if self.is_liar(peer) {
                return true;
            }
            let place = usize::from(peer) * self.nodes + usize::from(from);
            let said = &self.links[place].said[topic];
            let Said { epoch, limit, .. } = *said;
            if epoch != life.epoch {
                continue;
            }
            let given_up = said.is_given_up(&life.published[topic], now);
            if sequence <= limit || given_up {
                return true;
            }
            spoken = true;
        }
        !spoken
    }

    /// Whether a message takes the place of one that could still be sent again, and that no reader has.
    fn all_lack_what_is_overwritten(
        &self,
        now: Nanos,
        from: u16,
        topic: usize,
        sequence: u64,
    ) -> bool {
        let Some(life) = self.lives[usize::from(from)].last() else { return false };
        let Some(old) = sequence.checked_sub(u64::from(RETAINED)).filter(|old| *old > 0) else {
            return false;
        };
        let keep = TOPICS[topic].lifespan.map_or(LINGER, |lifespan| lifespan.min(LINGER));
        let age = life.published[topic].get(old as usize - 1).map(|at| now - *at);
        if age.is_none_or(|age| tolerated(age) >= keep) {
            return false;
        }
        let mut spoken = false;
        for &peer in &self.peers[usize::from(from)] {
            let place = usize::from(peer) * self.nodes + usize::from(from);
            let said = &self.links[place].said[topic];
            let given_up = said.is_given_up(&life.published[topic], now);
            let speaks = said.epoch == life.epoch;
            if self.is_liar(peer) || (speaks && (given_up || said.has(old))) {
                return false;
            }
            spoken |= said.epoch == life.epoch;
        }
        spoken
    }

    fn within_room(
        &mut self,
        now: Nanos,
        from: u16,
        topic: usize,
        (sequence, published): (u64, Option<Nanos>),
        again: bool,
    ) {
        // The link to itself stands for all links of a node.
        let newest = &mut self.link(from, from).sent[topic];
        // What was published before is sent again to a reader that comes late, a little beyond its room.
        let first = sequence > *newest && published == Some(now);
        *newest = sequence.max(*newest);
        if first && self.all_lack_what_is_overwritten(now, from, topic, sequence) {
            self.accuse(now, from, Rule::Overwritten, || {
                format!(
                    "{} {sequence} takes the place of what all readers lack",
                    TOPICS[topic].name
                )
            });
        }
        if first && !self.somebody_has_room(now, from, topic, sequence) {
            self.accuse(now, from, Rule::Beyond, || {
                format!("{} {sequence}, for which no reader has room", TOPICS[topic].name)
            });
        }
        if again {
            // A frame of a message, its header and its signature.
            let sum = self.link(from, from).again[topic].add(now, 200);
            if sum > SENT_AGAIN_MAX {
                self.accuse(now, from, Rule::Storm, || {
                    format!("{sum} bytes of {} sent again within a second", TOPICS[topic].name)
                });
            }
        }
    }

    /// A stranger's frame arrives at a node.
    pub fn from_stranger(&mut self, node: u16, stranger: Address, len: usize) {
        self.account(node, stranger).received += len as u64;
    }

    fn owe(&mut self, now: Nanos, node: u16, stranger: Address, len: usize) {
        let account = self.account(node, stranger);
        account.sent += len as u64;
        let Account { received, sent } = *account;
        if sent > received {
            self.accuse(now, node, Rule::Amplified, || {
                format!("{sent} bytes to a stranger that sent {received}")
            });
        }
    }

    fn account(&mut self, node: u16, stranger: Address) -> &mut Account {
        let place = self.accounts.iter().position(|(n, s, _)| (*n, *s) == (node, stranger));
        let place = place.unwrap_or_else(|| {
            self.accounts.push((node, stranger, Account::default()));
            self.accounts.len() - 1
        });
        &mut self.accounts[place].2
    }

    /// An intact frame of `from` arrives. If the node has to take it (`due`), it is best effort and its stream is
    /// known, it has to be delivered at once.
    pub fn arrives(&mut self, now: Nanos, node: u16, from: u16, frame: &[u8], due: bool) {
        let envelope = match decode(frame) {
            Ok(Frame::Clear(envelope)) if due => envelope,
            Ok(Frame::Handshake(frame)) => return self.hello_arrives(node, from, frame.message),
            _ => return,
        };
        let named = envelope.header.topic();
        if named == self.reports {
            return self.report_arrives(node, from, envelope.payload);
        }
        let Some(topic) = self.topics.iter().position(|topic| *topic == named) else { return };
        if TOPICS[topic].kind.is_reliable() {
            if self.speaks_reports {
                self.comes_again(now, node, from, topic, &envelope);
            }
            return;
        }
        if TOPICS[topic].kind != Kind::Queue {
            return;
        }
        let (sequence, epoch) = (envelope.header.sequence().get(), envelope.header.epoch().get());
        let Some(life) = self.life_of(from, epoch) else { return };
        let payload = Payload::new(self.seed, from, life, topic as u8, sequence);
        let (Some(published), Some(lifespan)) =
            (self.published_at(&payload), TOPICS[topic].lifespan)
        else {
            return;
        };
        let ear = self.ear(node, from, topic as u8);
        // What was sent before the receiver's life began need not come.
        let begun = ear.newest != 0 && sequence > ear.newest;
        let known = ear.open && ear.life == life && begun && !ear.has_seen(sequence);
        // The node may think it as much older as the clocks may differ by what it knows.
        if known && !self.is_replaced(node, from, life) && now - published < lifespan / 4 {
            let topic = topic as u8;
            self.due.push(Due { at: node, from, life, topic, sequence, since: now });
        }
    }

    fn hello_arrives(&mut self, node: u16, from: u16, message: HandshakeMessage<'_>) {
        if let HandshakeMessage::Hello(hello) = message {
            let greeted = &mut self.link(from, node).greeted;
            *greeted = hello.epoch().get().max(*greeted);
        }
    }

    /// Whether a Hello of a later life has arrived. What is still on its way of the old one is then refused.
    fn is_replaced(&mut self, node: u16, from: u16, life: u32) -> bool {
        let epoch = self.lives[usize::from(from)][life as usize].epoch;
        epoch < self.link(from, node).greeted
    }

    /// A writer gets a report: what it knows of its readers.
    fn report_arrives(&mut self, node: u16, from: u16, payload: &[u8]) {
        let Ok(entries) = entries(payload) else { return };
        for entry in entries {
            let Ok(Entry::Acknowledgement(entry)) = entry else { continue };
            let topic = self.topics.iter().position(|topic| *topic == entry.topic);
            let Some(topic) = topic else { continue };
            let said = &mut self.link(from, node).said[topic];
            if said.epoch == entry.epoch.get() {
                said.arrived = said.arrived.max(entry.floor.get());
            }
        }
    }

    /// A message of a reliable topic that the node has makes an acknowledgement due.
    fn comes_again(
        &mut self,
        now: Nanos,
        node: u16,
        from: u16,
        topic: usize,
        envelope: &Envelope<'_>,
    ) {
        let (sequence, epoch) = (envelope.header.sequence().get(), envelope.header.epoch().get());
        let Some(life) = self.life_of(from, epoch) else { return };
        let ear = self.ear(node, from, topic as u8);
        if ear.open && ear.life == life && ear.has_seen(sequence) {
            let link = self.link(node, from);
            let last = std::mem::replace(&mut link.came_again_at, now);
            if now - link.spoke_at[topic] > SPOKEN_LATELY && now - last > ONE_OF_A_PEER {
                link.owed[topic].get_or_insert(now);
            }
        }
    }

    /// Whether somebody waits for a word about what came twice.
    pub(super) fn owes(&mut self, now: Nanos, node: u16, to: u16) {
        for (topic, plan) in TOPICS.iter().enumerate() {
            let owed = self.link(node, to).owed[topic];
            if owed.is_some_and(|since| now - since > ANSWER_MAX) {
                self.accuse(now, node, Rule::Unanswered, || {
                    format!("{} of n{to} came twice, and nothing was said", plan.name)
                });
            }
        }
    }

    /// The node has done what there was to do.
    ///
    /// One that is slow (`patiently`) gets a while for it.
    pub fn rests(&mut self, now: Nanos, node: u16, patiently: bool) {
        let mut place = 0;
        while let Some(&Due { at, from, life, topic, sequence, since }) = self.due.get(place) {
            if at != node {
                place += 1;
                continue;
            }
            let replaced = self.is_replaced(node, from, life);
            let ear = self.ear(node, from, topic);
            let done = replaced || ear.life != life || ear.has_seen(sequence);
            if !done && patiently && now - since < PATIENCE {
                place += 1;
                continue;
            }
            self.due.swap_remove(place);
            if !done {
                self.accuse(now, node, Rule::LostInside, || {
                    format!(
                        "{} {sequence} of n{from} arrived intact and was not delivered",
                        TOPICS[usize::from(topic)].name
                    )
                });
            }
        }
    }
}
