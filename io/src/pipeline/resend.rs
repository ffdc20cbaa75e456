//! The send stage's part of reliable topics: new messages as far as receivers have room, lost ones
//! again, and the reports to each peer.
//!
//! What is due goes out in this order: what peers said is taken in, then a bounded number of messages
//! again, then new ones, then one report. Of all that at most one takes a signature.

use super::link::{About, LINK_RING, ToSend};
use super::send::Outlet;
use crate::delivery::Outcome;
use crate::delivery::writer::{Writer, WriterEvent};
use crate::security::{Identity, PeerIndex};
use crate::simulation::{Branch, Fault, planted, reached};
use crate::transport::{BURST, Transmit};
use crate::wire::envelope::{encode_in_place, payload_mut};
use crate::wire::report::{ENTRIES_MAX, ENTRY_LEN, Entry};
use crate::wire::{
    Class, ClusterTag, EnvelopeFields, Epoch, FRAME_MAX, KeyId, Sequence, SigningContext, Slot,
};
use sinew_rt::clock::Nanos;
use sinew_rt::log::{self, LogReader, LogSender, RateLimit, Severity, Template};
use sinew_rt::panel::{Counter, Gauge};
use sinew_rt::ring::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Messages that one poll sends again at most.
const RESENDS_PER_POLL: usize = 8;
/// New messages of one poll that each reader may get, however many readers there are; few of them get as
/// many as make [`BURST`] frames together.
const FRAMES_EACH: usize = 8;
/// Things that one poll takes in at most.
const HEARD_PER_POLL: usize = 32;
/// Heartbeats that one poll makes at most.
const HEARTBEATS_PER_POLL: usize = 16;
/// Events of a writer that one poll acts on at most.
const EVENTS_PER_POLL: usize = 16;

static OTHER_CLASS: Template = Template::new(
    Severity::Warn,
    "{name} reads {name} as class {name}, but here it is class {name}: declare the same at both ends",
);
static OTHER_SCHEMA: Template = Template::new(
    Severity::Warn,
    "{name} reads {name} with another message type; build both ends from the same one",
);

/// Kinds of lines that may wait for housekeeping, one for each peer and topic.
const LOG: usize = 32;

/// One published reliable topic.
pub(crate) struct ReliableOutlet {
    pub(crate) outlet: Outlet,
    pub(crate) writer: Writer,
    /// Whether its envelopes and the reports about it are unsigned.
    pub(crate) open: bool,
    /// Where the outcomes of commands go.
    pub(crate) outcomes: Option<Producer<(Sequence, Outcome)>>,
    /// Messages sent again.
    pub(crate) resent: Counter,
    /// Acknowledgements and outcomes that contradict what was sent.
    pub(crate) refused: Gauge,
    /// Events of the writer that found no room.
    pub(crate) events_lost: Gauge,
    /// Outcomes that the program did not read in time.
    pub(crate) outcomes_lost: Counter,
    /// Peers that read it now.
    pub(crate) readers: Gauge,
    /// Messages whose lifespan was over before readers had room for them, and that were never sent.
    pub(crate) outlived: Counter,
    /// Messages that were given up for a reader that lacked them for too long.
    pub(crate) given_up: Counter,
    /// Peers whose class or message type is another one: how often they were refused.
    pub(crate) mismatches: Counter,
}

impl ReliableOutlet {
    /// When the message that waits first has outlived its lifespan. While as many commands wait for a word
    /// as can, the next has to wait for its place.
    fn outlives_at(&self) -> Option<Nanos> {
        let lifespan = self.writer.lifespan().filter(|_| !planted(Fault::OutlivedKept))?;
        let at = self.outlet.source.published_at()? + lifespan;
        (!self.writer.commands_are_full()).then_some(at)
    }

    /// Whether the message that waits first, if one does, may be sent.
    fn may_send(&mut self, now: Nanos) -> bool {
        // A reader holds nobody up while nothing waits to be sent.
        !self.outlet.source.is_empty()
            && self.outlives_at().is_none_or(|at| at > now)
            && self.writer.room(now)
    }

    /// Gives up what has outlived its lifespan while readers had no room for it, so that it holds up nothing
    /// that is still worth sending. When the first of it was published.
    fn give_up_outlived(&mut self, now: Nanos) -> Option<Nanos> {
        let mut first = None;
        for _ in 0..FRAMES_EACH {
            if self.outlives_at().is_none_or(|at| at > now) {
                break;
            }
            let Some(at) = self.outlet.source.published_at() else { break };
            reached(Branch::OutlivedUnsent);
            first.get_or_insert(at);
            self.outlet.skip();
            self.writer.outlive(now, at);
            self.outlived.increment();
        }
        first
    }
}

/// What a part of a poll sends with.
pub(crate) struct Way<'a> {
    pub(crate) now: Nanos,
    pub(crate) transport: &'a mut dyn Transmit,
    pub(crate) cluster: ClusterTag,
    pub(crate) signer: (&'a Identity, &'a SigningContext),
    /// For each peer the frames that the transport did not take.
    pub(crate) lost: &'a [Counter],
    /// Whether this poll has made its signature.
    pub(crate) signed: bool,
}

/// The entries that wait for one peer, of signed or of open topics.
struct Waiting {
    entries: [[u8; ENTRY_LEN]; ENTRIES_MAX],
    count: usize,
}

impl Waiting {
    const EMPTY: Self = Self { entries: [[0; ENTRY_LEN]; ENTRIES_MAX], count: 0 };

    /// Takes an entry; without room it is left out, and its author says it again.
    fn push(&mut self, entry: &Entry) -> bool {
        let Some(slot) = self.entries.get_mut(self.count) else {
            reached(Branch::ReportFull);
            return false;
        };
        *slot = entry.to_bytes();
        self.count += 1;
        true
    }
}

/// The stream on which reports about signed, or open, topics leave.
pub(crate) struct ReportOutlet {
    /// Header of every report but for destination, number and date.
    pub(crate) fields: EnvelopeFields,
    pub(crate) signed: bool,
    pub(crate) next_sequence: Arc<AtomicU64>,
}

/// Reliable topics, and the reports about those that this node publishes and reads.
pub(crate) struct ReliableSend {
    pub(crate) outlets: Vec<ReliableOutlet>,
    heard: Consumer<ToSend>,
    /// The life of each peer as its reports had it.
    epochs: Vec<Epoch>,
    keys: Vec<KeyId>,
    /// For each peer what waits about signed topics, then about open ones.
    waiting: Vec<[Waiting; 2]>,
    /// Signed, then open.
    reports: [ReportOutlet; 2],
    /// Where reports are made.
    report: Box<Slot>,
    /// The outlet, and the peer, to look at first.
    turn: usize,
    peer_turn: usize,
    /// Entries for which no report had room.
    late: Counter,
    log: Option<LogSender>,
}

impl ReliableSend {
    /// The part of a node whose peers have these keys. Allocates everything.
    pub(crate) fn new(
        outlets: Vec<ReliableOutlet>,
        heard: Consumer<ToSend>,
        keys: Vec<KeyId>,
        reports: [ReportOutlet; 2],
        late: Counter,
    ) -> Self {
        Self {
            outlets,
            heard,
            epochs: vec![Epoch::NONE; keys.len()],
            waiting: keys.iter().map(|_| [Waiting::EMPTY; 2]).collect(),
            keys,
            reports,
            report: Box::new([0; FRAME_MAX]),
            turn: 0,
            peer_turn: 0,
            late,
            log: None,
        }
    }

    /// The ends through which disagreements with readers are told off the lane. `topics` are the names of
    /// the outlets.
    pub(crate) fn make_log(
        &mut self,
        source: &str,
        limit: RateLimit,
        peers: &[String],
        topics: Vec<String>,
    ) -> LogReader {
        let (sender, reader) = log::channel(source, LOG, limit);
        self.log = Some(sender);
        let classes = Class::NAMES.map(str::to_owned);
        reader.with_names(peers.iter().cloned().chain(topics).chain(classes).collect())
    }

    /// When something is due although nothing comes.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let outlets = self.outlets.iter();
        outlets
            .flat_map(|outlet| [outlet.writer.next_deadline(), outlet.outlives_at()])
            .flatten()
            .min()
    }

    /// Takes in what peers said and what this node has to say, and sends again what is due. Whether
    /// there was anything.
    pub(crate) fn prepare(
        &mut self,
        now: Nanos,
        transport: &mut dyn Transmit,
        lost: &[Counter],
    ) -> bool {
        let mut worked = self.take_in(now);
        worked |= self.send_again(now, transport, lost);
        worked |= self.act_on_events(now);
        self.take_heartbeats(now);
        worked
    }

    fn take_in(&mut self, now: Nanos) -> bool {
        for n in 0..HEARD_PER_POLL {
            let Some(next) = self.heard.pop() else { return n > 0 };
            match next {
                ToSend::Due(about) => wait(&mut self.waiting, &self.late, &about),
                ToSend::Heard(epoch, about) => self.hear(epoch, &about, now),
            }
        }
        true
    }

    fn hear(&mut self, epoch: Epoch, about: &About, now: Nanos) {
        let About { peer, open, entry } = about;
        let Some(known) = self.epochs.get_mut(peer.get()) else { return };
        if epoch > *known {
            *known = epoch;
            for outlet in &mut self.outlets {
                outlet.writer.reader_restarted(*peer);
            }
        }
        let topic = entry.topic();
        let Some(outlet) =
            self.outlets.iter_mut().find(|outlet| outlet.outlet.fields.topic == topic)
        else {
            return;
        };
        // What is said without a signature counts for nothing on a signed topic.
        if outlet.open != *open {
            return;
        }
        let own_epoch = outlet.outlet.fields.epoch;
        match entry {
            Entry::Acknowledgement(entry) => {
                if outlet.writer.acknowledge(*peer, own_epoch, entry, now).is_err() {
                    outlet.mismatches.increment();
                }
            }
            Entry::MoreHeld(entry) => outlet.writer.more_held(*peer, own_epoch, entry, now),
            Entry::Outcomes(entry) => outlet.writer.outcomes(*peer, own_epoch, entry, now),
            Entry::Heartbeat(_) => {}
        }
    }

    fn send_again(&mut self, now: Nanos, transport: &mut dyn Transmit, lost: &[Counter]) -> bool {
        let mut sent = 0;
        for outlet in &mut self.outlets {
            while sent < RESENDS_PER_POLL {
                let Some((peer, _, frame)) = outlet.writer.resend(now) else { break };
                send(transport, lost, peer, &[frame]);
                outlet.resent.increment();
                sent += 1;
            }
        }
        sent > 0
    }

    /// Sends new messages of one topic, as far as its readers have room. Says when the first of them was
    /// published, and whether that took a signature.
    pub(crate) fn send_new(&mut self, way: &mut Way<'_>) -> (Option<Nanos>, bool) {
        let now = way.now;
        let outlets = self.outlets.len();
        // Whoever gave up messages has news for the program, in the next poll.
        let mut outlived = None;
        for n in 0..outlets {
            let place = (self.turn + n) % outlets;
            let topic = &mut self.outlets[place];
            outlived = outlived.or(topic.give_up_outlived(now));
            if topic.outlet.signed && way.signed {
                continue;
            }
            let each = (BURST / topic.writer.matched().max(1)).max(FRAMES_EACH);
            let batch = if topic.outlet.signed { 1 } else { each.min(topic.writer.capacity()) };
            let (first, mut count, mut released) = (topic.writer.next(), 0, None);
            while count < batch && topic.may_send(now) {
                let frame = topic.writer.room_for_next();
                let filled = topic.outlet.fill(frame, way.cluster, way.signer);
                debug_assert!(
                    filled.is_some(),
                    "a message waits, and the room is as long as its frame"
                );
                let Some((len, at)) = filled else { break };
                topic.writer.retain(now, at, len);
                released.get_or_insert(at);
                count += 1;
            }
            if count == 0 {
                continue;
            }
            let ReliableOutlet { outlet, writer, .. } = topic;
            let kept = |n| writer.frame(Sequence::new(first.get() + n as u64));
            debug_assert!((0..count).all(|n| kept(n).is_some()), "what was just kept is there");
            let mut frames: [&[u8]; BURST] = [&[]; BURST];
            frames[..count]
                .iter_mut()
                .enumerate()
                .for_each(|(n, to)| *to = kept(n).unwrap_or_default());
            for peer in 0..self.keys.len() {
                let peer = PeerIndex::new(peer as u16);
                if writer.is_matched(peer) {
                    send(way.transport, way.lost, peer, &frames[..count]);
                }
            }
            self.turn = (place + 1) % outlets;
            return (released, outlet.signed);
        }
        (outlived, false)
    }

    /// Whether there may be more of them.
    fn act_on_events(&mut self, now: Nanos) -> bool {
        let (peers, outlets) = (self.keys.len(), self.outlets.len());
        let mut more = false;
        for (place, outlet) in self.outlets.iter_mut().enumerate() {
            outlet.readers.set(outlet.writer.matched() as i64);
            outlet.refused.set(outlet.writer.refused().cast_signed());
            outlet.events_lost.set(outlet.writer.events_lost().cast_signed());
            for n in 1..=EVENTS_PER_POLL {
                let Some(event) = outlet.writer.event() else { break };
                more |= n == EVENTS_PER_POLL;
                match event {
                    WriterEvent::Resolved { sequence, outcome } => {
                        let told = outlet.outcomes.as_mut().map(|to| to.push((sequence, outcome)));
                        if matches!(told, Some(Err(_))) {
                            outlet.outcomes_lost.increment();
                        }
                    }
                    WriterEvent::Lagging { first, last, .. } => {
                        outlet.given_up.add(last.get().saturating_sub(first.get()) + 1);
                    }
                    WriterEvent::Mismatch(mismatch) => {
                        let Some(log) = &mut self.log else { continue };
                        let (peer, topic) = (mismatch.peer.get() as i64, (peers + place) as i64);
                        // Numbers of classes begin with 1.
                        let class = |class: Class| (peers + outlets + class as usize - 1) as i64;
                        let (theirs, ours) = (mismatch.their_class, mismatch.our_class);
                        match theirs == ours {
                            true => log.send(now, &OTHER_SCHEMA, [peer, topic, 0, 0]),
                            false => {
                                let classes = [class(theirs), class(ours)];
                                log.send(now, &OTHER_CLASS, [peer, topic, classes[0], classes[1]])
                            }
                        };
                    }
                }
            }
        }
        more
    }

    fn take_heartbeats(&mut self, now: Nanos) {
        let mut made = 0;
        for outlet in &mut self.outlets {
            while made < HEARTBEATS_PER_POLL {
                let Some((peer, heartbeat)) = outlet.writer.heartbeat(now) else { break };
                made += 1;
                let about = About { peer, open: outlet.open, entry: Entry::Heartbeat(heartbeat) };
                wait(&mut self.waiting, &self.late, &about);
            }
        }
    }

    /// Sends one report: to the next peer for which entries wait. Says whether that took a signature.
    pub(crate) fn send_report(&mut self, way: &mut Way<'_>) -> (Option<Nanos>, bool) {
        let now = way.now;
        let queues = self.waiting.len() * 2;
        let next = (0..queues).map(|n| (self.peer_turn + n) % queues).find(|queue| {
            let may = !(way.signed && self.reports[queue % 2].signed);
            may && self.waiting[queue / 2][queue % 2].count > 0
        });
        let Some(queue) = next else { return (None, false) };
        self.peer_turn = (queue + 1) % queues;
        let (peer, report) = (queue / 2, &mut self.reports[queue % 2]);
        let waiting = &mut self.waiting[peer][queue % 2];
        let slot = &mut *self.report;
        let payload = waiting.entries[..waiting.count].as_flattened();
        payload_mut(slot)[..payload.len()].copy_from_slice(payload);
        let sequence = report.next_sequence.load(Ordering::Relaxed);
        report.next_sequence.store(sequence + 1, Ordering::Relaxed);
        report.fields.sequence = Sequence::new(sequence);
        report.fields.sent_at = now;
        report.fields.destination = self.keys[peer];
        let length = payload.len();
        waiting.count = 0;
        let Ok(mut len) = encode_in_place(slot, way.cluster, &report.fields, length) else {
            return (Some(now), false);
        };
        let signed = report.signed;
        if signed {
            let (identity, context) = way.signer;
            let Ok(whole) = identity.sign_envelope(context, slot) else {
                return (Some(now), false);
            };
            len = whole;
        }
        send(way.transport, way.lost, PeerIndex::new(peer as u16), &[&self.report[..len]]);
        (Some(now), signed)
    }
}

/// Puts an entry among those that wait for its peer.
///
/// An acknowledgement and what it had no room for come one right after the other, so they nearly
/// always leave in one envelope. Nothing depends on it: they are parted when a poll ends between
/// them, or when only one finds room in a report.
fn wait(waiting: &mut [[Waiting; 2]], late: &Counter, about: &About) {
    let waiting = waiting.get_mut(about.peer.get());
    let taken = waiting.is_some_and(|waiting| waiting[usize::from(about.open)].push(&about.entry));
    if !taken {
        late.increment();
    }
}

/// Sends `frames` to one peer and counts what the transport did not take.
fn send(transport: &mut dyn Transmit, lost: &[Counter], peer: PeerIndex, frames: &[&[u8]]) {
    let sent = transport.send(peer, frames);
    if let (true, Some(lost)) = (sent < frames.len(), lost.get(peer.get())) {
        lost.add((frames.len() - sent) as u64);
    }
}

const _: () = assert!(HEARD_PER_POLL <= LINK_RING);
