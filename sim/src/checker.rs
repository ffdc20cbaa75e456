//! The invariants: what must be true after every event, whatever the network and the liar do.
//!
//! The checker is told what each program published, what each heard and what was on the wire. It knows true
//! time, and keeps its own book: a node's word is never taken for anything.

use std::fmt;

use sinew_io::delivery::DropReason;
use sinew_io::wire::{Envelope, Frame, KeyId, TopicId, decode};
use sinew_rt::clock::Nanos;
use zerocopy::{FromBytes, IntoBytes};

use crate::host::real::REJECTED_EVERY;
use crate::host::{Address, Heard, Outcome, Payload, STRANGERS};
use crate::plan::{ESTOP_DEADLINE, HEALING, Kind, Plan, TOPICS};

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

const _: () = assert!(UNHEARD_MAX.as_nanos() < HEALING.as_nanos());

macro_rules! rules {
    ($($name:ident $text:literal $why:literal,)*) => {
        /// A promise that was broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $why] $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The promise of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.as_str() == name)
            }

            /// The promise, in a sentence.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $why,)*
                }
            }
        }
    };
}

rules! {
    Duplicate "duplicate" "A message is delivered at most once.",
    Order "order" "Messages of a reliable stream come in their order.",
    SilentLoss "silent-loss" "Every message of a reliable stream that is not delivered is in a gap.",
    FalseGap "false-gap" "A gap names only messages that were sent and not delivered.",
    NeedlessGap "needless-gap" "Without faults nothing is lost.",
    Forged "forged" "What is delivered was sent by that sender, with those bytes.",
    Forbidden "forbidden" "What is delivered was permitted.",
    Backwards "backwards" "A newest value is never older than the one before it.",
    Late "late" "Nothing is delivered after its lifespan.",
    Epoch "epoch" "A node's epochs only grow.",
    Wire "wire" "A node sends in its own life, each number once with the same bytes.",
    Repeated "repeated-late" "Nothing is sent again after its lifespan.",
    Unheard "unheard" "After the healing every living node is heard by its peers.",
    Blocked "blocked" "After the healing publishers are not refused for long.",
    LostInside "lost-inside" "What arrives intact from a peer within its contract is delivered.",
    Amplified "amplified" "A stranger gets no more bytes than it sent.",
    TooLong "too-long" "No frame is longer than a frame may be.",
    Memory "memory" "A node holds no more memory than after its start.",
    Outcome "outcome" "The outcome of a command is what became of it.",
    EStop "estop" "Without \"all is well\" in time there is a stop.",
    Start "start" "A node starts whatever the crash did to its disk.",
    Restless "restless" "A node that has nothing to do does not ask to be run.",
    Panic "panic" "A node does not panic.",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A broken promise with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Nanos,
    /// The node at which it showed.
    pub node: u16,
    /// Which.
    pub rule: Rule,
    /// The circumstances, for a person.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, node, rule, text } = self;
        write!(f, "{rule} at {:.6} s on n{node}: {text}", at.as_secs_f64())
    }
}

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
    /// By receiver, sender: when it was heard last.
    heard_at: Vec<Nanos>,
    /// By node, topic: since when the publisher is refused.
    blocked: Vec<[Option<Nanos>; TOPIC_COUNT]>,
    /// By node and stranger.
    accounts: Vec<(u16, Address, Account)>,
    /// What arrived intact and has to be delivered before the node rests: receiver, sender, life, number.
    due: Vec<(u16, u32, u8, u64)>,
    key_of: Vec<u64>,
    /// By sender, receiver, topic: the highest number that was on the wire in this life.
    sent: Vec<[u64; TOPIC_COUNT]>,
    /// Whether nodes tell what became of commands.
    knows_outcomes: bool,
    /// By node: whom it knows.
    peers: Vec<Vec<u16>>,
    /// The counts.
    pub counts: CheckerCounts,
    violation: Option<Violation>,
    tolerated: Vec<Rule>,
}

impl Checker {
    /// The judge of the run that `plan` describes. `key_of` gives the key id of each node.
    #[must_use]
    pub fn new(plan: &Plan, knows_outcomes: bool, key_of: impl Fn(u16) -> u64) -> Self {
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
            heard_at: vec![Nanos::MIN; n * n],
            blocked: vec![[None; TOPIC_COUNT]; n],
            accounts: Vec::new(),
            due: Vec::new(),
            key_of: (0..n as u16).map(key_of).collect(),
            sent: vec![[0; TOPIC_COUNT]; n * n],
            knows_outcomes,
            peers: (0..n as u16).map(|node| plan.peers(node).collect()).collect(),
            counts: CheckerCounts::default(),
            violation: None,
            tolerated: plan.tolerated.clone(),
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
    pub fn born(&mut self, now: Nanos, node: u16, epoch: u64) {
        let n = usize::from(node);
        let last = self.lives[n].last().map_or(0, |life| life.epoch);
        if epoch <= last {
            self.accuse(now, node, Rule::Epoch, || {
                format!("epoch {epoch} begins after epoch {last}")
            });
        }
        self.lives[n].push(Life {
            epoch,
            published: Default::default(),
            resolved: Vec::new(),
            resolved_count: 0,
        });
        self.up[n] = true;
        for sender in 0..self.nodes {
            for ear in &mut self.ears[n * self.nodes + sender] {
                ear.begin(0);
                ear.open = false;
            }
            self.heard_at[n * self.nodes + sender] = now;
        }
        self.blocked[n].fill(None);
        self.sent[n * self.nodes..][..self.nodes].fill([0; TOPIC_COUNT]);
    }

    /// A node is killed.
    pub fn died(&mut self, node: u16) {
        self.up[usize::from(node)] = false;
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
        let kind = TOPICS[usize::from(topic)].kind;
        let begin = since.max(self.healed);
        let beside_liar = self.liar.is_some();
        if now - begin > UNHEARD_MAX || (!kind.is_reliable() && !beside_liar && now > self.healed) {
            let for_ns = now - begin;
            self.accuse(now, node, Rule::Blocked, || {
                format!("{} is refused for {for_ns}", TOPICS[usize::from(topic)].name)
            });
        }
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
            Heard::Message { topic, from, epoch, sequence, payload } => {
                self.message(now, node, topic, (from, epoch, sequence), &payload);
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

    fn hears(&mut self, now: Nanos, node: u16, sender: u16) {
        self.counts.delivered += 1;
        self.heard_at[usize::from(node) * self.nodes + usize::from(sender)] = now;
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

    fn value(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) {
        if Some(payload.node) == self.liar {
            return;
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
        self.hears(now, node, payload.node);
    }

    fn queued(&mut self, now: Nanos, node: u16, topic: u8, payload: &Payload) {
        if Some(payload.node) == self.liar {
            return;
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
        self.hears(now, node, payload.node);
    }

    fn new_life(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch): (u16, u64),
        first: u64,
    ) {
        let Some(life) = self.life_of(from, epoch) else {
            let text = || format!("epoch {epoch} of n{from} never was");
            return self.accuse(now, node, Rule::Forged, text);
        };
        let published = self.count_of(from, life, topic);
        let liar = self.is_liar(from);
        let ear = self.ear(node, from, topic);
        if ear.open && life <= ear.life && ear.expected != 0 {
            let known = ear.life;
            return self.accuse(now, node, Rule::Epoch, || {
                format!("life {life} of n{from} is announced after life {known}")
            });
        }
        ear.begin(life);
        ear.expected = first;
        if (first == 0 || first > published + 1) && !liar {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!(
                    "life {life} of n{from} is to begin at {first}, and {published} were published"
                )
            });
        }
    }

    /// Whether the checker can hold the sender's word against what was published.
    fn is_liar(&self, node: u16) -> bool {
        Some(node) == self.liar
    }

    fn enter(&mut self, now: Nanos, node: u16, topic: u8, from: u16, epoch: u64) -> bool {
        let Some(life) = self.life_of(from, epoch) else {
            self.accuse(now, node, Rule::Forged, || format!("epoch {epoch} of n{from} never was"));
            return false;
        };
        let ear = self.ear(node, from, topic);
        let (open, known) = (ear.open, ear.life);
        if !open || life > known {
            ear.begin(life);
            self.accuse(now, node, Rule::Epoch, || {
                format!("life {life} of n{from} was not announced")
            });
            return false;
        }
        if life < known {
            self.accuse(now, node, Rule::Duplicate, || {
                format!("life {life} of n{from} goes on after life {known} began")
            });
        }
        life == known
    }

    fn message(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch, sequence): (u16, u64, u64),
        payload: &Payload,
    ) {
        if !self.enter(now, node, topic, from, epoch) {
            return;
        }
        let name = TOPICS[usize::from(topic)].name;
        if !self.is_liar(from) {
            let Some(published) = self.genuine(now, node, topic, payload) else { return };
            let life = self.ear(node, from, topic).life;
            if (payload.node, payload.life, payload.number) != (from, life, sequence) {
                return self.accuse(now, node, Rule::Forged, || {
                    format!("{payload:?} is given out as {name} {sequence} of n{from}, life {life}")
                });
            }
            self.in_time(now, node, topic, payload, published);
        }
        let ear = self.ear(node, from, topic);
        let expected = ear.expected;
        let first_time = ear.see(sequence);
        ear.expected = sequence.saturating_add(1).max(expected);
        if !first_time {
            self.accuse(now, node, Rule::Duplicate, || {
                format!("{name} {sequence} of n{from} comes again")
            });
        } else if sequence < expected {
            self.accuse(now, node, Rule::Order, || {
                format!("{name} {sequence} of n{from} after {}", expected - 1)
            });
        } else if sequence > expected {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{name} {sequence} of n{from}, and {expected} was neither delivered nor in a gap")
            });
        }
        self.hears(now, node, from);
    }

    fn gap(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch): (u16, u64),
        (first, last): (u64, u64),
    ) {
        self.counts.gaps += 1;
        self.counts.missing += last.saturating_sub(first).saturating_add(1);
        if !self.enter(now, node, topic, from, epoch) {
            return;
        }
        let liar = self.is_liar(from) || self.is_liar(node);
        let name = TOPICS[usize::from(topic)].name;
        let life = self.ear(node, from, topic).life;
        let published = self.count_of(from, life, topic);
        let ear = self.ear(node, from, topic);
        let expected = ear.expected;
        ear.expected = last.saturating_add(1).max(expected);
        let what = || format!("gap {first}..={last} of {name} of n{from}");
        if first > last || first == 0 {
            return self.accuse(now, node, Rule::FalseGap, || format!("{} is no range", what()));
        }
        if first < expected {
            self.accuse(now, node, Rule::FalseGap, || format!("{} after {}", what(), expected - 1));
        } else if first > expected {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{}, and {expected} was neither delivered nor in a gap", what())
            });
        }
        if liar {
            return;
        }
        if last > published {
            return self.accuse(now, node, Rule::FalseGap, || {
                format!("{}, but only {published} were sent", what())
            });
        }
        let newest = self.lives[usize::from(from)][life as usize].published[usize::from(topic)]
            [(last - 1) as usize];
        if newest > self.healed + LOSSLESS_AFTER {
            self.accuse(now, node, Rule::NeedlessGap, || {
                format!("{}, the last of which was sent at {newest}", what())
            });
        }
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

    fn outcome(&mut self, now: Nanos, node: u16, topic: u8, sequence: u64, outcome: Outcome) {
        let place = match outcome {
            Outcome::Accepted => 0,
            Outcome::Rejected(_) => 1,
            Outcome::Expired => 2,
            Outcome::NeverArrived => 3,
            Outcome::Unknown => 4,
        };
        self.counts.outcomes[place] += 1;
        let life = self.lives[usize::from(node)].len().saturating_sub(1) as u32;
        let published = self.count_of(node, life, topic);
        let rejected = sequence % REJECTED_EVERY == 0;
        let wrong = match outcome {
            Outcome::Accepted => rejected,
            Outcome::Rejected(reason) => !rejected || u64::from(reason) != sequence % 200,
            _ => false,
        };
        let liar_may_have_said_it =
            self.liar.is_some_and(|liar| self.peers[usize::from(node)].contains(&liar));
        if wrong && !liar_may_have_said_it {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} is said to be {outcome:?}, which no program decided")
            });
        }
        if sequence == 0 || sequence > published {
            return self.accuse(now, node, Rule::Outcome, || {
                format!("an outcome of command {sequence}, and {published} were sent")
            });
        }
        if let Some(own) = self.lives[usize::from(node)].last_mut() {
            let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
            if own.resolved.len() <= word {
                own.resolved.resize(word + 1, 0);
            }
            let again = own.resolved[word] & bit != 0;
            own.resolved[word] |= bit;
            own.resolved_count += 1;
            if again {
                self.accuse(now, node, Rule::Outcome, || {
                    format!("a second outcome of command {sequence}: {outcome:?}")
                });
            }
        }
        let taken = |receiver: usize| {
            let ear = &self.ears[receiver * self.nodes + usize::from(node)][usize::from(topic)];
            ear.open && ear.life == life && ear.has_seen(sequence)
        };
        // A reader that was killed since cannot be asked any more, so only its absence clears it.
        let all_up_since_start = (0..self.nodes).all(|other| self.lives[other].len() == 1);
        let said_so = matches!(outcome, Outcome::Accepted | Outcome::Rejected(_));
        if said_so && self.liar.is_none() && all_up_since_start && !(0..self.nodes).any(taken) {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} is said to be {outcome:?}, and nobody got it")
            });
        }
    }

    /// A node sends a frame.
    pub fn on_wire(&mut self, now: Nanos, from: u16, to: Address, frame: &[u8]) {
        if frame.len() > sinew_io::wire::FRAME_MAX {
            self.accuse(now, from, Rule::TooLong, || format!("{} bytes", frame.len()));
        }
        if to >= STRANGERS {
            self.owe(now, from, to, frame.len());
        }
        match decode(frame) {
            Err(error) => self.accuse(now, from, Rule::Wire, || format!("no frame: {error}")),
            Ok(Frame::Handshake(handshake)) => self.sender(now, from, handshake.message.from()),
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

    fn envelope(&mut self, now: Nanos, (from, to): (u16, Address), envelope: &Envelope<'_>) {
        let header = envelope.header;
        let Some(life) = self.lives[usize::from(from)].last() else { return };
        let (epoch, sent) = (life.epoch, header.epoch().get());
        let number = self.lives[usize::from(from)].len() as u32 - 1;
        if sent != epoch {
            return self
                .accuse(now, from, Rule::Wire, || format!("sends as epoch {sent} in {epoch}"));
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
        let sent = &mut self.sent[usize::from(from) * self.nodes + usize::from(to)][topic];
        let again = sequence <= *sent;
        *sent = sequence.max(*sent);
        self.counts.repeated += u64::from(again && kind.is_reliable());
        if let (true, Some(lifespan), Some(published)) =
            (kind.is_reliable() && again, lifespan, published)
            && now - published > tolerated(lifespan)
        {
            let age = now - published;
            self.accuse(now, from, Rule::Repeated, || {
                format!(
                    "{} {sequence} is sent again {age} after it was published",
                    TOPICS[topic].name
                )
            });
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

    /// An intact frame of `from` arrives at a node that runs: if it is best effort and its stream is known, it
    /// has to be delivered at once.
    pub fn arrives(&mut self, now: Nanos, node: u16, from: u16, frame: &[u8]) {
        let Some(topic) = TOPICS.iter().position(|topic| topic.kind == Kind::Queue) else { return };
        let Ok(Frame::Clear(envelope)) = decode(frame) else { return };
        if envelope.header.topic() != self.topics[topic] {
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
        if known && now - published < lifespan / 4 {
            self.due.push((from, life, topic as u8, sequence));
        }
    }

    /// The node has done what there was to do.
    pub fn rests(&mut self, now: Nanos, node: u16) {
        while let Some((from, life, topic, sequence)) = self.due.pop() {
            let ear = self.ear(node, from, topic);
            if ear.life == life && !ear.has_seen(sequence) {
                self.accuse(now, node, Rule::LostInside, || {
                    format!(
                        "{} {sequence} of n{from} arrived intact and was not delivered",
                        TOPICS[usize::from(topic)].name
                    )
                });
            }
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
                let last = self.heard_at[usize::from(node) * self.nodes + usize::from(sender)];
                let since = now - last.max(self.healed);
                if since > UNHEARD_MAX {
                    self.accuse(now, node, Rule::Unheard, || {
                        format!("nothing from n{sender} for {since}")
                    });
                }
            }
        }
    }

    fn judges(&self, plan: &Plan, node: u16, sender: u16) -> bool {
        let honest = !self.is_liar(node) && !self.is_liar(sender);
        let up = self.up[usize::from(node)] && self.up[usize::from(sender)];
        honest && up && plan.is_present(node) && plan.is_present(sender)
    }

    /// The run is over: every message of a reliable topic was delivered or is in a gap.
    pub fn end(&mut self, now: Nanos, plan: &Plan) {
        if self.knows_outcomes {
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

    /// Every command of the last lives has an outcome.
    fn resolved(&mut self, now: Nanos, node: u16) {
        for (topic, plan) in TOPICS.iter().enumerate() {
            if plan.kind != Kind::Command || !self.up[usize::from(node)] {
                continue;
            }
            let Some(life) = self.lives[usize::from(node)].last() else { continue };
            let (published, resolved) = (life.published[topic].len() as u64, life.resolved_count);
            if resolved < published {
                self.accuse(now, node, Rule::Outcome, || {
                    format!("{published} commands, and {resolved} outcomes at the end")
                });
            }
        }
    }

    fn complete(&mut self, now: Nanos, node: u16, sender: u16, topic: u8) {
        let life = self.lives[usize::from(sender)].len() as u32 - 1;
        let published = self.count_of(sender, life, topic);
        let ear = self.ear(node, sender, topic);
        let done = if ear.open && ear.life == life { ear.expected.saturating_sub(1) } else { 0 };
        if done < published {
            let name = TOPICS[usize::from(topic)].name;
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{name} of n{sender}, life {life}: {published} published, {done} accounted for at the end")
            });
        }
    }
}

/// The names of the reasons for drops, for reports.
#[must_use]
pub fn drop_reasons() -> Vec<&'static str> {
    DropReason::ALL.iter().map(|reason| reason.as_str()).collect()
}
