//! One run: nodes, network, disks, clocks, programs and faults in virtual time.

mod backlog;
mod contract;
mod faults;
mod frames;

use std::marker::PhantomData;

use sinew_io::wire::{BootId, Epoch, KeyId, LifeId};
use sinew_rt::clock::Nanos;

use crate::checker::{Checker, CheckerCounts, Rule, Violation};
use crate::clock::MachineClock;
use crate::disk::{Disk, DiskError, STEPS};
use crate::fault::FaultKind;
use crate::host::{Address, Birth, Heard, Host, Payload, STRANGERS, StoredFloor};
use crate::liar::{Liar, Recordings};
use crate::memory;
use crate::network::{Network, NetworkCounts};
use crate::plan::{Plan, TOPICS};
use crate::queue::EventQueue;
use crate::random::Random;
use crate::scenario::network::Applied;
use crate::timeline::{Mark, Timeline};
use crate::trace::TraceHash;
use backlog::Backlog;
use contract::Contract;
use frames::{Frames, carry};

/// How often a node is run in a row before others get their turn.
const POLLS_MAX: usize = 256;
/// The least time between two turns of a node that asked for the second itself.
const TURN_LEAST: Nanos = Nanos::from_micros(50);
/// The same for a node that always finds something to do.
const BUSY_TURN: Nanos = Nanos::from_micros(20);
/// What a turn takes that finds something to do, while the processor is slow.
const SLOW_TURN: Nanos = Nanos::from_micros(700);
/// Turns between two ticks that a node may ask for without having anything to do.
const IDLE_TURNS_MAX: u32 = 1_000;
const TICK: Nanos = Nanos::from_millis(100);
/// A program stores every so manieth message's place.
const STORED_EVERY: u32 = 5;
/// Bytes by which a node's memory may differ from what it was after its start.
const MEMORY_SLACK: i64 = 600_000;

#[derive(Debug)]
enum Event {
    /// A frame arrives.
    Arrive {
        frame: u32,
    },
    /// A node wants to be run.
    Wake {
        node: u16,
    },
    /// A program publishes.
    Publish {
        node: u16,
        topic: u8,
    },
    Begin {
        fault: u16,
    },
    End {
        fault: u16,
    },
    /// A node starts, unless it runs.
    Start {
        node: u16,
        killed: u8,
    },
    Lie {
        fault: u16,
    },
    Healed,
    Tick,
    Over,
}

#[derive(Debug)]
struct Node<H> {
    host: Option<H>,
    lives: u32,
    disk: Disk,
    machine: usize,
    /// When it is run next, as far as that is decided.
    wake: Nanos,
    stalls: u16,
    /// Whether frames waited for the node to run again.
    was_stalled: bool,
    slow: u16,
    /// Floods that are directed at it, each of which keeps its processor busy otherwise; when it is free again.
    floods: u16,
    free_at: Nanos,
    /// What may wait in it meanwhile.
    backlog: Backlog,
    contract: Contract,
    idle_turns: u32,
    /// What its program stored, if it does, and messages since.
    floors: Vec<StoredFloor>,
    unstored: u32,
    /// The highest epoch that it ever had, and whether an old disk is in it.
    epoch_max: u64,
    rolled_back: bool,
    /// Bytes of memory that the present life has taken since its start.
    memory: i64,
    random: Random,
}

impl<H> Node<H> {
    /// Every third program stores how far it read, now and then and after it acted: what came since comes again.
    fn store(&mut self, node: u16, heard: &Heard) {
        let Heard::Message { topic, from, epoch, sequence, .. } = *heard else { return };
        if !node.is_multiple_of(3) {
            return;
        }
        self.unstored += 1;
        if !self.unstored.is_multiple_of(STORED_EVERY) {
            return;
        }
        let floor = StoredFloor { topic, from, epoch, sequence };
        match self.floors.iter_mut().find(|known| (known.topic, known.from) == (topic, from)) {
            Some(known) => *known = floor,
            None => self.floors.push(floor),
        }
    }
}

#[derive(Debug)]
struct Machine {
    clock: MachineClock,
    boot: u64,
}

/// What a run was.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash over every event.
    pub trace: u64,
    /// The broken promise that ended it.
    pub violation: Option<Violation>,
    /// How far it came.
    pub reached: Nanos,
    /// Nodes that took part.
    pub nodes: usize,
    /// Events.
    pub events: u64,
    /// Faults that took effect, by kind.
    pub faults: [u64; FaultKind::COUNT],
    /// What the checker counted.
    pub counts: CheckerCounts,
    /// What the network counted.
    pub network: NetworkCounts,
    /// What a scenario did to links.
    pub applied: Applied,
    /// What the nodes dropped, by reason.
    pub drops: Vec<u64>,
    /// Branches of the protocol, with how often nodes came by.
    pub branches: Vec<(&'static str, u64)>,
    /// What happened when, if that was asked for.
    pub timeline: Option<Timeline>,
}

impl Outcome {
    /// A run of `plan` that never began.
    #[must_use]
    pub fn empty(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            trace: 0,
            violation: None,
            reached: Nanos::ZERO,
            nodes: plan.nodes - plan.absent.len(),
            events: 0,
            faults: [0; FaultKind::COUNT],
            counts: CheckerCounts::default(),
            network: NetworkCounts::default(),
            applied: Applied::default(),
            drops: vec![0; sinew_io::delivery::DropReason::COUNT],
            branches: Vec::new(),
            timeline: None,
        }
    }
}

/// The run.
#[derive(Debug)]
pub struct World<'p, H> {
    plan: &'p Plan,
    now: Nanos,
    queue: EventQueue<Event>,
    nodes: Vec<Node<H>>,
    machines: Vec<Machine>,
    network: Network,
    frames: Frames,
    checker: Checker,
    trace: TraceHash,
    events: u64,
    active: Vec<u16>,
    faults: [u64; FaultKind::COUNT],
    liar: Liar,
    recordings: Recordings,
    drops: Vec<u64>,
    timeline: Option<Timeline>,
    random: Random,
    over: bool,
    host: PhantomData<H>,
}

/// Runs what `plan` describes, and says what it was.
#[must_use]
pub fn run<H: Host>(plan: &Plan, with_timeline: bool) -> Outcome {
    let mut world = World::<H>::new(plan, with_timeline);
    world.run();
    world.outcome()
}

const PURPOSE: u64 = 0x0077_6f72_6c64;

impl<'p, H: Host> World<'p, H> {
    fn new(plan: &'p Plan, with_timeline: bool) -> Self {
        let mut random = Random::new(plan.seed, PURPOSE);
        let machines = (0..plan.nodes as u64)
            .map(|machine| {
                let mut random = Random::new(plan.seed, PURPOSE ^ 1 << 20 ^ machine << 24);
                Machine { clock: MachineClock::draw(&mut random, Nanos::ZERO), boot: random.bits() }
            })
            .collect();
        let node = |node: usize| Node {
            host: None,
            lives: 0,
            disk: Disk::default(),
            machine: usize::from(plan.machines[node]),
            wake: Nanos::MAX,
            stalls: 0,
            was_stalled: false,
            slow: 0,
            floods: 0,
            free_at: Nanos::MIN,
            backlog: Backlog::new(plan.nodes, plan.peers(node as u16).count()),
            contract: Contract::new(plan.nodes),
            idle_turns: 0,
            floors: Vec::new(),
            unstored: 0,
            epoch_max: 0,
            rolled_back: false,
            memory: 0,
            random: Random::new(plan.seed, PURPOSE ^ 2 << 20 ^ (node as u64) << 24),
        };
        let mut world = Self {
            plan,
            now: Nanos::ZERO,
            queue: EventQueue::with_room(4_096),
            nodes: (0..plan.nodes).map(node).collect(),
            machines,
            network: match &plan.scenario {
                Some(scenario) => Network::of(scenario),
                None => Network::new(plan.seed, plan.nodes),
            },
            frames: Frames::default(),
            checker: Checker::new(plan, H::SPEAKS_REPORTS, H::key_id),
            trace: TraceHash::default(),
            events: 0,
            active: Vec::new(),
            faults: [0; FaultKind::COUNT],
            liar: Liar::new(plan.seed),
            recordings: Recordings::default(),
            drops: vec![0; sinew_io::delivery::DropReason::COUNT],
            timeline: with_timeline.then(|| Timeline::new(plan)),
            random: random.clone(),
            over: false,
            host: PhantomData,
        };
        for node in 0..plan.nodes as u16 {
            // Nodes have lived before, so that there are epochs to fall back to.
            let epoch = random.within(3, 9).cast_unsigned();
            world.node(node).disk.replace(epoch);
            world.node(node).epoch_max = epoch - 1;
            let at = Nanos::from_micros(random.within(0, 400_000));
            if plan.is_present(node) {
                world.queue.push(at, Event::Start { node, killed: 0 });
            }
            for topic in 0..TOPICS.len() as u8 {
                let at = at + Nanos::from_micros(random.within(0, 500_000));
                if plan.is_present(node) && plan.topics.contains(&topic) {
                    world.queue.push(at, Event::Publish { node, topic });
                }
            }
        }
        for (place, fault) in plan.faults.iter().enumerate() {
            world.queue.push(fault.from, Event::Begin { fault: place as u16 });
            world.queue.push(fault.until, Event::End { fault: place as u16 });
        }
        world.queue.push(plan.healed, Event::Healed);
        world.queue.push(TICK, Event::Tick);
        world.queue.push(plan.end, Event::Over);
        world
    }

    fn run(&mut self) {
        while let Some((at, event)) = self.queue.pop() {
            debug_assert!(at >= self.now, "time does not go back");
            self.now = at;
            self.events += 1;
            self.trace.word(at.as_nanos().cast_unsigned());
            self.happen(event);
            if self.over || self.checker.violation().is_some() {
                break;
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        for node in &mut self.nodes {
            if let Some(host) = node.host.take() {
                host.add_drops(&mut self.drops);
            }
        }
        let violation = self.checker.violation().cloned();
        if let (Some(timeline), Some(violation)) = (&mut self.timeline, &violation) {
            timeline.violation(violation);
        }
        Outcome {
            seed: self.plan.seed,
            trace: self.trace.get(),
            violation,
            reached: self.now,
            nodes: self.plan.nodes - self.plan.absent.len(),
            events: self.events,
            faults: self.faults,
            counts: self.checker.counts,
            network: self.network.counts(),
            applied: self.network.applied(),
            drops: self.drops,
            branches: H::take_branches(),
            timeline: self.timeline,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { frame } => self.arrive(frame),
            Event::Wake { node } => {
                // Only the wake that was asked for last counts.
                let now = self.now;
                if self.node(node).wake == now {
                    self.node(node).wake = Nanos::MAX;
                    self.serve(node, true);
                }
            }
            Event::Publish { node, topic } => self.publish(node, topic),
            Event::Begin { fault } => self.begin(fault),
            Event::End { fault } => self.end(fault),
            Event::Start { node, killed } => self.start(node, killed),
            Event::Lie { fault } => self.lie(fault),
            Event::Healed => self.heal(),
            Event::Tick => {
                self.checker.tick(self.now, self.plan);
                self.nodes.iter_mut().for_each(|node| node.idle_turns = 0);
                self.queue.push(self.now + TICK, Event::Tick);
            }
            Event::Over => {
                self.checker.end(self.now, self.plan);
                self.over = true;
            }
        }
    }

    fn node(&mut self, node: u16) -> &mut Node<H> {
        &mut self.nodes[usize::from(node)]
    }

    fn mark(&mut self, node: u16, mark: Mark) {
        if let Some(timeline) = &mut self.timeline {
            timeline.mark(self.now, node, mark);
        }
    }

    fn local(&self, node: u16) -> Nanos {
        self.machines[self.nodes[usize::from(node)].machine].clock.show(self.now)
    }

    fn start(&mut self, node: u16, killed: u8) {
        let held_down = self.plan.is_held_down(node, self.now);
        if self.node(node).host.is_some() || self.over || held_down {
            return;
        }
        let this = &mut self.nodes[usize::from(node)];
        let killed_after = (killed > 0).then(|| this.random.index(STEPS.len()));
        let epoch = match this.disk.advance(killed_after, crate::host::syncs()) {
            Ok(epoch) => epoch,
            Err(DiskError::Killed) => {
                this.disk.crash(&mut this.random);
                let again = self.now + Nanos::from_micros(this.random.within(1_000, 60_000));
                self.queue.push(again, Event::Start { node, killed: killed - 1 });
                return;
            }
            Err(error) => {
                return self.checker.accuse(self.now, node, Rule::Start, || error.to_string());
            }
        };
        if this.rolled_back && epoch >= this.epoch_max {
            // One epoch in two lives is what receivers cannot tell apart: it stays down until it has its disk.
            return;
        }
        let mut life_id = LifeId::default();
        this.random.fill(&mut life_id.0);
        let mut boot = BootId::default();
        let machine = &self.machines[this.machine];
        Random::new(machine.boot, 0).fill(&mut boot.0);
        let birth = Birth {
            plan: self.plan,
            node,
            life: this.lives,
            epoch,
            life_id,
            boot,
            seed: this.random.bits(),
            now: machine.clock.show(self.now),
            floors: &this.floors,
        };
        match H::start(&birth) {
            Ok(host) => {
                this.host = Some(host);
                this.epoch_max = this.epoch_max.max(epoch);
                this.lives += 1;
                this.memory = 0;
            }
            Err(error) => return self.checker.accuse(self.now, node, Rule::Start, || error),
        }
        self.trace.word(0x0053_5441_5254 ^ u64::from(node) << 48 ^ epoch);
        let rolled_back = this.rolled_back;
        if rolled_back {
            self.recordings.forget(KeyId::from_raw(H::key_id(node)), Epoch::new(epoch));
        }
        self.checker.born(self.now, node, epoch, rolled_back);
        self.mark(node, Mark::Start);
        self.greet_falsely(node);
        self.serve(node, false);
    }

    /// Whoever listens knows what peers once said to this node: it hears that again before they say more.
    fn greet_falsely(&mut self, node: u16) {
        let lies = |place: &u16| self.plan.faults[usize::from(*place)].kind == FaultKind::Lie;
        if !self.active.iter().any(lies) {
            return;
        }
        let peers: Vec<u16> = self.plan.peers(node).collect();
        for peer in peers {
            if let Some(hello) = self.recordings.hello(peer, node).map(<[u8]>::to_vec) {
                self.inject(peer, self.plan.liar.unwrap_or(peer), node, &hello);
            }
        }
    }

    fn kill(&mut self, node: u16) -> bool {
        let Some(host) = self.node(node).host.take() else { return false };
        host.add_drops(&mut self.drops);
        drop(host);
        self.node(node).wake = Nanos::MAX;
        self.node(node).backlog.clear();
        self.node(node).contract.clear();
        self.trace.word(0x4b49_4c4c ^ u64::from(node) << 48);
        self.checker.died(self.now, node);
        self.mark(node, Mark::Kill);
        true
    }

    fn wake_at(&mut self, node: u16, at: Nanos) {
        let this = self.node(node);
        if at < this.wake {
            this.wake = at;
            self.queue.push(at, Event::Wake { node });
        }
    }

    /// Runs a node until it has nothing more to do, and takes what it sends and says.
    fn serve(&mut self, node: u16, asked: bool) {
        let now = self.now;
        let n = usize::from(node);
        let this = &mut self.nodes[n];
        if this.stalls > 0 {
            this.was_stalled = true;
            return;
        }
        if this.floods > 0 && now < this.free_at {
            let at = this.free_at;
            return self.wake_at(node, at);
        }
        let Some(mut host) = this.host.take() else { return };
        if std::mem::take(&mut this.was_stalled) {
            this.contract.runs_again(now);
        }
        let reads_all = this.slow == 0;
        let clock = self.machines[this.machine].clock;
        let local = clock.show(now);
        let before = memory::held();
        // What the simulator itself takes meanwhile.
        let mut own = 0;
        let mut busy = true;
        let mut worked = false;
        let slow_cpu = self.nodes[n].floods > 0;
        for _ in 0..if slow_cpu { 1 } else { POLLS_MAX } {
            busy = host.poll(local);
            worked |= busy;
            let Self {
                nodes, network, frames, queue, checker, trace, recordings, timeline, ..
            } = self;
            // The program reads before the network takes what its node says about that.
            host.hear(local, reads_all, &mut |heard| {
                let before = memory::held();
                note(trace, node, &heard);
                checker.heard(now, node, &heard);
                nodes[n].store(node, &heard);
                if let Some(timeline) = timeline {
                    timeline.heard(now, node, &heard);
                }
                own += memory::held() - before;
            });
            host.sent(&mut |to, bytes| {
                let before = memory::held();
                checker.on_wire(now, node, to, bytes);
                trace.word(u64::from(node) << 32 | u64::from(to));
                trace.bytes(bytes);
                recordings.record(node, to, bytes);
                carry(network, frames, queue, now, (node, node, to), bytes);
                own += memory::held() - before;
            });
            if !busy {
                break;
            }
        }
        let held = memory::held() - before - own;
        let next = if busy { Some(local) } else { host.next_deadline() };
        let this = &mut self.nodes[n];
        this.memory += held;
        if slow_cpu && worked {
            this.free_at = now + SLOW_TURN;
            this.backlog.turn();
        } else if !busy {
            this.backlog.clear();
        }
        this.host = Some(host);
        this.idle_turns += u32::from(asked && !worked);
        if this.idle_turns > IDLE_TURNS_MAX {
            let text = || format!("asked {IDLE_TURNS_MAX} times in {TICK} to be run, for nothing");
            self.checker.accuse(now, node, Rule::Restless, text);
        }
        let this = &self.nodes[n];
        if memory::is_counted() && this.memory > MEMORY_SLACK {
            let grown = this.memory;
            self.checker.accuse(now, node, Rule::Memory, || {
                format!("{grown} bytes more than at its start")
            });
        }
        if let Some(next) = next {
            let least = match (busy, slow_cpu) {
                (true, true) => SLOW_TURN,
                (true, false) => BUSY_TURN,
                (false, _) => TURN_LEAST,
            };
            let at = clock.when(next).max(now + least);
            self.wake_at(node, at);
        }
        self.checker.rests(now, node, slow_cpu || busy);
    }

    fn arrive(&mut self, place: u32) {
        let frame = self.frames.take(place);
        let (node, now) = (frame.to, self.now);
        let this = &mut self.nodes[usize::from(node)];
        let runs = this.stalls == 0 && !this.was_stalled;
        let before = memory::held();
        let mut counted = None;
        if let Some(host) = &mut this.host {
            let taken = host.receive(frame.from, &frame.bytes);
            if taken {
                this.backlog.came(frame.from);
                this.contract.came(now, frame.from, runs);
            }
            if runs && taken && !frame.intact && this.floods == 0 {
                counted = Some(dropped(host));
            }
            this.memory += memory::held() - before;
            self.trace.word(0x4152_5249_5645 ^ u64::from(node) << 48 ^ frame.bytes.len() as u64);
            if frame.from >= STRANGERS {
                self.checker.from_stranger(node, frame.from, frame.bytes.len());
            } else if frame.intact && frame.from == frame.by {
                let due = runs
                    && this.backlog.fits(frame.from)
                    && this.contract.is_kept(frame.from)
                    && Some(frame.by) != self.plan.liar;
                self.checker.arrives(now, node, frame.from, &frame.bytes, due);
            }
        }
        self.frames.give_back(place, frame);
        self.serve(node, false);
        let after = self.nodes[usize::from(node)].host.as_ref().map(dropped);
        if let (Some(before), Some(after)) = (counted, after)
            && after == before
            && H::COUNTS_DROPS
        {
            let text = || "a frame with changed bits arrived, and no drop was counted".to_owned();
            self.checker.accuse(now, node, Rule::Uncounted, text);
        }
    }

    fn publish(&mut self, node: u16, topic: u8) {
        if self.now >= self.plan.quiet {
            return;
        }
        let plan = &TOPICS[usize::from(topic)];
        let this = &mut self.nodes[usize::from(node)];
        let period = plan.period.as_nanos();
        let again = self.now + Nanos::new(this.random.within(period / 2, period / 2 * 3));
        let burst = 1 + this.random.below(u64::from(plan.burst));
        self.queue.push(again, Event::Publish { node, topic });
        if this.host.is_none() || this.stalls > 0 {
            return;
        }
        let local = self.local(node);
        for _ in 0..burst {
            let payload = self.checker.next_payload(node, topic);
            let this = &mut self.nodes[usize::from(node)];
            let Some(host) = &mut this.host else { return };
            match host.publish(topic, &payload, local) {
                Ok(()) => self.checker.published(self.now, node, topic),
                Err(_) => {
                    self.checker.refused(self.now, node, topic);
                    break;
                }
            }
        }
        self.serve(node, false);
    }

    /// Puts a frame on the network that no node's own stages sent.
    fn inject(&mut self, from: Address, by: Address, to: u16, bytes: &[u8]) {
        if !self.plan.is_present(to) || bytes.is_empty() {
            return;
        }
        let Self { network, frames, queue, trace, now, .. } = self;
        trace.bytes(bytes);
        carry(network, frames, queue, *now, (from, by, to), bytes);
    }
}

/// What a node dropped in its life.
fn dropped<H: Host>(host: &H) -> u64 {
    let mut drops = [0; sinew_io::delivery::DropReason::COUNT];
    host.add_drops(&mut drops);
    drops.iter().sum()
}

/// Adds what a program heard to the hash.
fn note(trace: &mut TraceHash, node: u16, heard: &Heard) {
    let of = |payload: &Payload| payload.noise[0] ^ payload.number;
    let words = match heard {
        Heard::Value { topic, payload } => [1, u64::from(*topic), of(payload), 0],
        Heard::Queued { topic, payload } => [2, u64::from(*topic), of(payload), 0],
        Heard::Message { topic, from, epoch, sequence, payload, .. } => {
            [3 | u64::from(*from) << 8 | epoch << 32, u64::from(*topic), *sequence, of(payload)]
        }
        Heard::Gap { topic, from, epoch, first, last } => {
            [4 | u64::from(*from) << 8 | epoch << 32, u64::from(*topic), *first, *last]
        }
        Heard::NewLife { topic, from, epoch, first } => {
            [5 | u64::from(*topic) << 8, u64::from(*from), *epoch, *first]
        }
        Heard::Outcome { topic, sequence, outcome } => {
            let number = match outcome {
                crate::host::Outcome::Accepted => 0,
                crate::host::Outcome::Rejected(reason) => 256 + u64::from(*reason),
                crate::host::Outcome::Expired => 1,
                crate::host::Outcome::NeverArrived => 2,
                crate::host::Outcome::Unknown => 3,
            };
            [6, u64::from(*topic), *sequence, number]
        }
        Heard::Silence { silent } => [9, u64::from(*silent), 0, 0],
        Heard::Unlatched => [10, 0, 0, 0],
        Heard::Forbidden { payload } => [8, of(payload), 0, 0],
        Heard::Well { topic, well } => [7, u64::from(*topic), u64::from(*well), 0],
    };
    trace.word(u64::from(node));
    words.iter().for_each(|word| trace.word(*word));
}
