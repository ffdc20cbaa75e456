//! The invariants: what must be true after every event, whatever the network and the liar do.
//!
//! The checker is told what each program published, what each heard and what was on the wire. It knows true
//! time, and keeps its own book: a node's word is never taken for anything.

mod ordered;
mod rule;
mod wire;

use sinew_io::delivery::DropReason;
use sinew_io::wire::TopicId;
use sinew_io::wire::report::REPORTS;
use sinew_rt::clock::Nanos;

pub use rule::{Rule, Violation};
use wire::{Due, Link};

use crate::host::{Address, Heard, Payload};
use crate::plan::{ESTOP_DEADLINE, HEALING, Kind, Plan, STATE_DEADLINE, TOPICS};

/// After the healing a living node must be heard by its peers at least this often.
pub const UNHEARD_MAX: Nanos = Nanos::from_secs(3);
/// This long after the healing nothing is lost any more.
pub const LOSSLESS_AFTER: Nanos = Nanos::from_secs(4);
/// What a span may be longer in true time, because clocks run too slow: 100 ppm, and the span of one event.
const fn tolerated(span: Nanos) -> Nanos {
    Nanos::new(span.as_nanos() + span.as_nanos() / 9_000 + 2_000)
}
/// Numbers below this are remembered one by one.
const SEEN_MAX: u64 = 1 << 26;
const TOPIC_COUNT: usize = TOPICS.len();

/// A publisher that its node refuses is let in again after this, whatever its receivers do.
pub const BLOCKED_MAX: Nanos = Nanos::from_millis(2_500);
/// The most that a member may get in within a second: its contract's rate, and its burst.
const LET_IN_MAX: u32 = 1_000 + 256;
/// The life that stands in messages of a liar that nobody may deliver.
pub const NEVER: u32 = u32::MAX - 1;

const _: () = assert!(UNHEARD_MAX.as_nanos() < HEALING.as_nanos());

/// What the checker counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckerCounts {
    /// Messages published.
    pub published: u64,
    /// Messages that a node had no room for.
    pub refused: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Gaps reported.
    pub gaps: u64,
    /// Messages in those gaps.
    pub missing: u64,
    /// Data frames that were sent again.
    pub repeated: u64,
    /// Outcomes of commands: accepted, rejected, expired, never arrived, unknown.
    pub outcomes: [u64; 5],
}

/// A node between two crashes.
#[derive(Debug)]
struct Life {
    epoch: u64,
    /// When it ended, if it did.
    ended: Option<Nanos>,
    /// By topic: when each message was published, the first first.
    published: [Vec<Nanos>; TOPIC_COUNT],
    /// One bit for each command that has an outcome.
    resolved: Vec<u64>,
    /// Commands that have one.
    resolved_count: u64,
}

/// What one node knows of one topic of one peer.
#[derive(Debug, Default)]
struct Ear {
    /// The life of the sender that is heard, as its number.
    life: u32,
    /// Whether any life of it was heard.
    open: bool,
    /// The next number that is due, of reliable topics.
    expected: u64,
    /// Messages below this were there before the receiver: what it resumes may be gone.
    fresh_from: u64,
    /// The newest value, or the first of a queue's messages.
    newest: u64,
    /// One bit for each message delivered.
    seen: Vec<u64>,
}

impl Ear {
    fn begin(&mut self, life: u32) {
        self.seen.clear();
        (self.life, self.open) = (life, true);
        (self.expected, self.newest) = (0, 0);
    }

    /// Whether this is the first time.
    fn see(&mut self, number: u64) -> bool {
        // Only a liar gets so far, and its numbers need no book.
        if number >= SEEN_MAX {
            return true;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let first = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        first
    }

    fn has_seen(&self, number: u64) -> bool {
        self.seen.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// The bytes that went to a stranger and came from it.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    received: u64,
    sent: u64,
}

/// The judge of one run.
#[derive(Debug)]
pub struct Checker {
    seed: u64,
    nodes: usize,
    liar: Option<u16>,
    healed: Nanos,
    quiet: Nanos,
    topics: [TopicId; TOPIC_COUNT],
    lives: Vec<Vec<Life>>,
    up: Vec<bool>,
    /// By receiver, sender, topic.
    ears: Vec<[Ear; TOPIC_COUNT]>,
    /// By receiver, sender, topic: what earlier lives of the receiver had of the sender's life of that number.
    had: Vec<[(u32, Vec<u64>); TOPIC_COUNT]>,
    /// By receiver, sender: when it was heard last, best effort and reliably.
    heard_at: Vec<[Nanos; 2]>,
    /// By receiver, sender, topic: the highest epoch that was heard.
    epoch_heard: Vec<[u64; TOPIC_COUNT]>,
    /// By node: when its life began.
    born_at: Vec<Nanos>,
    /// By node: messages of a queue in this second that the liar got in.
    let_in: Vec<(Nanos, u32)>,
    /// By sender, receiver: what was on the wire.
    links: Vec<Link>,
    /// Whether the program of a node reads what is there.
    reads: Vec<bool>,
    reports: TopicId,
    /// By node: when the topic with a deadline was heard last, and whether its silence was told since.
    silent_since: Vec<Option<(Nanos, bool)>>,
    /// When it last was stopped for a while.
    stopped_at: Vec<Nanos>,
    /// By node, topic: since when the publisher is refused.
    blocked: Vec<[Option<Nanos>; TOPIC_COUNT]>,
    /// By node and stranger.
    accounts: Vec<(u16, Address, Account)>,
    /// What arrived intact and has to be delivered.
    due: Vec<Due>,
    key_of: Vec<u64>,
    /// Whether nodes speak in reports, and so promise what those are for.
    speaks_reports: bool,
    /// By node: whom it knows.
    peers: Vec<Vec<u16>>,
    /// The counts.
    pub counts: CheckerCounts,
    violation: Option<Violation>,
    tolerated: Vec<Rule>,
    /// By receiver, sender: whether they hear each other after the healing, and whether nothing is lost then.
    connects: Vec<bool>,
    is_calm: Vec<bool>,
}

impl Checker {
    /// The judge of the run that `plan` describes. `key_of` gives the key id of each node.
    #[must_use]
    pub fn new(plan: &Plan, speaks_reports: bool, key_of: impl Fn(u16) -> u64) -> Self {
        let n = plan.nodes;
        Self {
            seed: plan.seed,
            nodes: n,
            liar: plan.liar,
            healed: plan.healed,
            quiet: plan.quiet,
            topics: std::array::from_fn(|topic| TopicId::of(TOPICS[topic].name)),
            lives: (0..n).map(|_| Vec::new()).collect(),
            up: vec![false; n],
            ears: (0..n * n).map(|_| Default::default()).collect(),
            had: (0..n * n).map(|_| Default::default()).collect(),
            heard_at: vec![[Nanos::MIN; 2]; n * n],
            epoch_heard: vec![[0; TOPIC_COUNT]; n * n],
            born_at: vec![Nanos::MIN; n],
            let_in: vec![(Nanos::MIN, 0); n],
            links: (0..n * n).map(|_| Link::default()).collect(),
            reads: vec![true; n],
            reports: TopicId::of(REPORTS),
            silent_since: vec![None; n],
            stopped_at: vec![Nanos::MIN; n],
            blocked: vec![[None; TOPIC_COUNT]; n],
            accounts: Vec::new(),
            due: Vec::new(),
            key_of: (0..n as u16).map(key_of).collect(),
            speaks_reports,
            peers: (0..n as u16).map(|node| plan.peers(node).collect()).collect(),
            counts: CheckerCounts::default(),
            violation: None,
            tolerated: plan.tolerated.clone(),
            connects: pairs(n, |a, b| plan.connects(a, b)),
            is_calm: pairs(n, |a, b| plan.is_calm(a, b)),
        }
    }

    /// The first broken promise, if any.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes a broken promise; only the first counts.
    pub fn accuse(&mut self, at: Nanos, node: u16, rule: Rule, text: impl FnOnce() -> String) {
        if self.violation.is_none() && !self.tolerated.contains(&rule) {
            self.violation = Some(Violation { at, node, rule, text: text() });
        }
    }

    /// A node starts.
    ///
    /// An operator who puts an old disk into a node (`rolled_back`) breaks the promise himself.
    pub fn born(&mut self, now: Nanos, node: u16, epoch: u64, rolled_back: bool) {
        let n = usize::from(node);
        let last = self.lives[n].last().map_or(0, |life| life.epoch);
        if epoch <= last && !rolled_back {
            self.accuse(now, node, Rule::Epoch, || {
                format!("epoch {epoch} begins after epoch {last}")
            });
        }
        self.lives[n].push(Life {
            epoch,
            ended: None,
            published: Default::default(),
            resolved: Vec::new(),
            resolved_count: 0,
        });
        self.up[n] = true;
        for sender in 0..self.nodes {
            self.remember(n * self.nodes + sender);
            for ear in &mut self.ears[n * self.nodes + sender] {
                ear.begin(0);
                ear.open = false;
            }
            self.heard_at[n * self.nodes + sender] = [now; 2];
            self.epoch_heard[n * self.nodes + sender] = [0; TOPIC_COUNT];
            self.links[n * self.nodes + sender].restart();
        }
        self.born_at[n] = now;
        self.blocked[n].fill(None);
    }

    /// What the last life of a receiver had.
    fn remember(&mut self, pair: usize) {
        for (ear, (life, seen)) in self.ears[pair].iter().zip(&mut self.had[pair]) {
            if !ear.open {
                continue;
            }
            if *life != ear.life {
                (*life, *seen) = (ear.life, Vec::new());
            }
            seen.resize(seen.len().max(ear.seen.len()), 0);
            seen.iter_mut().zip(&ear.seen).for_each(|(had, new)| *had |= new);
        }
    }

    /// What an earlier life of the program had comes again only if it asked for that, and with a mark.
    fn again_after_restart(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, sequence): (u16, u64),
        marked: bool,
    ) {
        let pair = usize::from(node) * self.nodes + usize::from(from);
        let life = self.ears[pair][usize::from(topic)].life;
        let (had_life, seen) = &self.had[pair][usize::from(topic)];
        let word = seen.get((sequence / 64) as usize).copied().unwrap_or(0);
        let had = *had_life == life && word >> (sequence % 64) & 1 == 1;
        // A toy tells no programs of an earlier life.
        if had && !marked && self.speaks_reports && !self.is_liar(from) {
            self.accuse(now, node, Rule::Duplicate, || {
                let name = TOPICS[usize::from(topic)].name;
                format!(
                    "{name} {sequence} of n{from} was delivered in an earlier life, and has no mark"
                )
            });
        }
    }

    /// A node is killed.
    pub fn died(&mut self, now: Nanos, node: u16) {
        if let Some(life) = self.lives[usize::from(node)].last_mut() {
            life.ended = Some(now);
        }
        self.up[usize::from(node)] = false;
        self.rested(now, node);
        self.blocked[usize::from(node)].fill(None);
    }

    /// The next message that a program publishes.
    #[must_use]
    pub fn next_payload(&self, node: u16, topic: u8) -> Payload {
        let lives = &self.lives[usize::from(node)];
        let number = lives.last().map_or(0, |life| life.published[usize::from(topic)].len());
        let life = lives.len().saturating_sub(1) as u32;
        Payload::new(self.seed, node, life, topic, number as u64 + 1)
    }

    /// The node took it.
    pub fn published(&mut self, now: Nanos, node: u16, topic: u8) {
        self.counts.published += 1;
        self.blocked[usize::from(node)][usize::from(topic)] = None;
        if let Some(life) = self.lives[usize::from(node)].last_mut() {
            life.published[usize::from(topic)].push(now);
        }
    }

    /// The node had no room for it.
    pub fn refused(&mut self, now: Nanos, node: u16, topic: u8) {
        self.counts.refused += 1;
        let since = *self.blocked[usize::from(node)][usize::from(topic)].get_or_insert(now);
        let for_ns = now - since;
        if for_ns > BLOCKED_MAX {
            self.accuse(now, node, Rule::Blocked, || {
                format!("{} is refused for {for_ns}", TOPICS[usize::from(topic)].name)
            });
        }
    }

    /// A node's program reads, or stops to.
    pub fn reads(&mut self, node: u16, reads: bool) {
        self.reads[usize::from(node)] = reads;
    }

    /// Something was done to a node that stops it for a while, so what it was asked for waits.
    pub fn rested(&mut self, now: Nanos, node: u16) {
        self.stopped_at[usize::from(node)] = now;
        self.due.retain(|due| due.at != node);
        self.silent_since[usize::from(node)] = None;
        for peer in 0..self.nodes {
            self.links[usize::from(node) * self.nodes + peer].forgive();
        }
        self.blocked[usize::from(node)].fill(None);
    }

    fn life_of(&self, node: u16, epoch: u64) -> Option<u32> {
        let lives = self.lives.get(usize::from(node))?;
        lives.iter().rposition(|life| life.epoch == epoch).map(|life| life as u32)
    }

    fn published_at(&self, payload: &Payload) -> Option<Nanos> {
        let life = self.lives.get(usize::from(payload.node))?.get(payload.life as usize)?;
        let topic = life.published.get(usize::from(payload.topic))?;
        topic.get(payload.number.checked_sub(1)? as usize).copied()
    }

    fn count_of(&self, node: u16, life: u32, topic: u8) -> u64 {
        self.lives[usize::from(node)][life as usize].published[usize::from(topic)].len() as u64
    }

    /// Whether the message was ever published; when.
    fn genuine(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) -> Option<Nanos> {
        let Payload { node: sender, life, number, .. } = *payload;
        let expected = Payload::new(self.seed, sender, life, topic, number);
        let published = self.published_at(payload).filter(|_| expected == *payload);
        if published.is_none() {
            self.accuse(now, node, Rule::Forged, || {
                format!(
                    "{} heard {payload:?}, which nobody published",
                    TOPICS[usize::from(topic)].name
                )
            });
        }
        published
    }

    fn in_time(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload, published: Nanos) {
        let Some(lifespan) = TOPICS[usize::from(topic)].lifespan else { return };
        let age = now - published;
        if age > tolerated(lifespan) {
            self.accuse(now, node, Rule::Late, || {
                let Payload { node, life, number, .. } = payload;
                let name = TOPICS[usize::from(topic)].name;
                format!(
                    "{name} {number} of n{node} (life {life}) is {age} old, its lifespan {lifespan}"
                )
            });
        }
    }

    /// A program heard something.
    pub fn heard(&mut self, now: Nanos, node: u16, heard: &Heard) {
        match *heard {
            Heard::Value { topic, payload } => self.value(now, node, topic, &payload),
            Heard::Queued { topic, payload } => self.queued(now, node, topic, &payload),
            Heard::Message { topic, from, epoch, sequence, payload, possible_duplicate } => {
                self.message(now, node, topic, (from, epoch, sequence), &payload);
                self.again_after_restart(now, node, topic, (from, sequence), possible_duplicate);
            }
            Heard::Gap { topic, from, epoch, first, last } => {
                self.gap(now, node, topic, (from, epoch), (first, last));
            }
            Heard::NewLife { topic, from, epoch, first } => {
                self.new_life(now, node, topic, (from, epoch), first);
            }
            Heard::Outcome { topic, sequence, outcome } => {
                self.outcome(now, node, topic, sequence, outcome);
            }
            Heard::Silence { silent } => self.silence(now, node, silent),
            Heard::Unlatched => self.accuse(now, node, Rule::EStop, || {
                "a stop ended without having been re-armed".to_owned()
            }),
            Heard::Forbidden { payload } => {
                self.accuse(now, node, Rule::Forbidden, || {
                    format!("{payload:?} on a closed topic")
                });
            }
            Heard::Well { topic, well } => self.well(now, node, topic, well),
        }
    }

    fn ear(&mut self, node: u16, sender: u16, topic: u8) -> &mut Ear {
        &mut self.ears[usize::from(node) * self.nodes + usize::from(sender)][usize::from(topic)]
    }

    fn hears(&mut self, now: Nanos, node: u16, sender: u16, life: u32, topic: u8) {
        self.counts.delivered += 1;
        let pair = usize::from(node) * self.nodes + usize::from(sender);
        let reliably = TOPICS[usize::from(topic)].kind.is_reliable();
        self.heard_at[pair][usize::from(reliably)] = now;
        self.living(now, node, sender, life, topic);
    }

    /// A life that is heard must have been there in the receiver's own, and lives come in their order.
    fn living(&mut self, now: Nanos, node: u16, sender: u16, life: u32, topic: u8) {
        let pair = usize::from(node) * self.nodes + usize::from(sender);
        let Some(Life { epoch, ended, .. }) = self.lives[usize::from(sender)].get(life as usize)
        else {
            return;
        };
        let (epoch, ended) = (*epoch, *ended);
        let (born, known) =
            (self.born_at[usize::from(node)], self.epoch_heard[pair][usize::from(topic)]);
        if ended.is_some_and(|ended| ended < born) {
            self.accuse(now, node, Rule::Yesterday, || {
                format!(
                    "life {life} of n{sender} ended at {ended:?}, before this node began at {born}"
                )
            });
        }
        if epoch < known {
            self.accuse(now, node, Rule::Epoch, || {
                format!("epoch {epoch} of n{sender} is heard after epoch {known}")
            });
        }
        self.epoch_heard[pair][usize::from(topic)] = epoch.max(known);
    }

    /// What the liar says in its own name: the checker has no book of it.
    fn hears_liar(&mut self, now: Nanos, node: u16, payload: &Payload) {
        if payload.life == NEVER {
            return self.accuse(now, node, Rule::Forbidden, || {
                format!("{payload:?}, which nobody should have taken")
            });
        }
        let (second, count) = &mut self.let_in[usize::from(node)];
        if now - *second > Nanos::from_secs(1) {
            (*second, *count) = (now, 0);
        }
        *count += 1;
        let count = *count;
        if count > LET_IN_MAX {
            self.accuse(now, node, Rule::Contract, || {
                format!("{count} messages of the liar within a second")
            });
        }
    }

    /// Values and queues do not say whose life a message is of: the message does.
    fn adopt(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) -> bool {
        let life = payload.life;
        let ear = self.ear(node, payload.node, topic);
        if !ear.open || life > ear.life {
            ear.begin(life);
        }
        let known = ear.life;
        if life < known {
            self.accuse(now, node, Rule::Duplicate, || {
                format!("{payload:?} is of a life that ended; life {known} was heard")
            });
        }
        life == known
    }

    /// A program is told that the topic with a deadline is silent, or no longer.
    fn silence(&mut self, now: Nanos, node: u16, silent: bool) {
        if let (Some((since, told)), true) = (&mut self.silent_since[usize::from(node)], silent) {
            *told = true;
            let silence = now - *since;
            if tolerated(silence) < STATE_DEADLINE {
                self.accuse(now, node, Rule::Deadline, || {
                    format!("told of a silence of {silence}")
                });
            }
        }
    }

    /// A value comes after a silence that must have been told.
    fn breaks_silence(&mut self, now: Nanos, node: u16) {
        let before = self.silent_since[usize::from(node)].replace((now, false));
        if let Some((since, false)) = before
            && now - since > tolerated(STATE_DEADLINE) + Nanos::from_millis(1)
        {
            self.accuse(now, node, Rule::Deadline, || format!("nothing was told since {since}"));
        }
    }

    fn value(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) {
        if self.speaks_reports {
            self.breaks_silence(now, node);
        }
        if Some(payload.node) == self.liar {
            return self.hears_liar(now, node, payload);
        }
        let Some(published) = self.genuine(now, node, topic, payload) else { return };
        self.in_time(now, node, topic, payload, published);
        if self.adopt(now, node, topic, payload) {
            let ear = self.ear(node, payload.node, topic);
            let newest = ear.newest;
            ear.newest = newest.max(payload.number);
            if payload.number <= newest {
                let rule = if payload.number == newest { Rule::Duplicate } else { Rule::Backwards };
                self.accuse(now, node, rule, || format!("{payload:?} after number {newest}"));
            }
        }
        self.hears(now, node, payload.node, payload.life, topic);
    }

    fn queued(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) {
        if Some(payload.node) == self.liar {
            return self.hears_liar(now, node, payload);
        }
        let Some(published) = self.genuine(now, node, topic, payload) else { return };
        self.in_time(now, node, topic, payload, published);
        if self.adopt(now, node, topic, payload) {
            let ear = self.ear(node, payload.node, topic);
            if ear.newest == 0 {
                ear.newest = payload.number;
            }
            if !ear.see(payload.number) {
                self.accuse(now, node, Rule::Duplicate, || {
                    format!("{payload:?} is delivered again")
                });
            }
        }
        self.hears(now, node, payload.node, payload.life, topic);
    }

    /// Whether the checker can hold the sender's word against what was published.
    fn is_liar(&self, node: u16) -> bool {
        Some(node) == self.liar
    }

    /// "All is well" must have been said in time by one that the node knows.
    fn well(&mut self, now: Nanos, node: u16, topic: u8, well: bool) {
        if !well {
            return;
        }
        let guardians = &self.peers[usize::from(node)];
        let said = guardians.iter().flat_map(|peer| &self.lives[usize::from(*peer)]);
        // Only the last lives of each can have said it lately, and the last word of each counts.
        let last = said.filter_map(|life| life.published[usize::from(topic)].last().copied()).max();
        if last.is_none_or(|last| now - last > tolerated(ESTOP_DEADLINE)) {
            self.accuse(now, node, Rule::EStop, || {
                format!("all is said to be well, and the last to say so did at {last:?}")
            });
        }
    }

    /// Looks at what does not happen, from time to time.
    pub fn tick(&mut self, now: Nanos, plan: &Plan) {
        if now < self.healed + UNHEARD_MAX || now > self.quiet {
            return;
        }
        for &(a, b) in &plan.edges {
            for (node, sender) in [(a, b), (b, a)] {
                if !self.judges(plan, node, sender) {
                    continue;
                }
                self.owes(now, node, sender);
                let last = self.heard_at[usize::from(node) * self.nodes + usize::from(sender)];
                for (last, way) in last.into_iter().zip(["best effort", "reliable"]) {
                    let since = now - last.max(self.healed);
                    let published = plan.topics.iter().any(|topic| {
                        let kind = TOPICS[usize::from(*topic)].kind;
                        kind.is_reliable() == (way == "reliable") && kind != Kind::EStop
                    });
                    if since > UNHEARD_MAX && published {
                        self.accuse(now, node, Rule::Unheard, || {
                            format!("nothing {way} from n{sender} for {since}")
                        });
                    }
                }
            }
        }
    }

    fn judges(&self, plan: &Plan, node: u16, sender: u16) -> bool {
        let honest = !self.is_liar(node) && !self.is_liar(sender);
        let up = self.up[usize::from(node)] && self.up[usize::from(sender)];
        let connects = self.connects[usize::from(node) * self.nodes + usize::from(sender)];
        honest && up && connects && plan.is_present(node) && plan.is_present(sender)
    }

    /// The run is over: every message of a reliable topic was delivered or is in a gap.
    pub fn end(&mut self, now: Nanos, plan: &Plan) {
        if self.speaks_reports {
            (0..self.nodes as u16).for_each(|node| self.resolved(now, node));
        }
        for &(a, b) in &plan.edges {
            for (node, sender) in [(a, b), (b, a)] {
                if !self.judges(plan, node, sender) {
                    continue;
                }
                for &topic in &plan.topics {
                    if TOPICS[usize::from(topic)].kind.is_reliable() {
                        self.complete(now, node, sender, topic);
                    }
                }
            }
        }
    }
}

/// What holds for each pair of nodes.
fn pairs(nodes: usize, holds: impl Fn(u16, u16) -> bool) -> Vec<bool> {
    (0..nodes * nodes).map(|pair| holds((pair / nodes) as u16, (pair % nodes) as u16)).collect()
}

/// The names of the reasons for drops, for reports.
#[must_use]
pub fn drop_reasons() -> Vec<&'static str> {
    DropReason::ALL.iter().map(|reason| reason.as_str()).collect()
}
