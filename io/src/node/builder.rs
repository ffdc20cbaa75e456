//! A node before it starts: what it is told, and what the program subscribes to and publishes.

use super::config::{
    Budgets, Layout, Mode, NodeConfig, PeerConfig, RealTimeConfig, TopicClass, TopicConfig,
};
use super::handles::{
    AllWell, CommandPublisher, CommandReader, EStopReader, Publisher, StreamReader,
};
use super::{Node, NodeError, assemble, file, log, recheck};
use crate::delivery::Outcome;
use crate::message::{Message, schema_id};
use crate::pipeline::deliver::{LatestSink, Observed, ObserverSink, QueueSink, Queued, Sink};
use crate::pipeline::reliable::{Floor, OrderedQueue, OrderedSink};
use crate::pipeline::send::Source;
use crate::pipeline::watch::TopicEvent;
use crate::security::{AdmissionLimits, Identity};
use crate::transport::BURST;
use crate::transport::memory::MemoryNetwork;
use crate::wire::{SchemaId, Sequence};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::GuardSpec;
use sinew_rt::lane::Stage;
use sinew_rt::latest::{self, LatestReader};
use sinew_rt::log::Line;
use sinew_rt::ring::{self, Consumer, Producer};
use sinew_rt::thread::Strictness;
use sinew_rt::topology::CoreId;
use sinew_rt::wait::{Doorbell, Wait};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Messages that a publisher may be ahead of the send stage.
const PUBLISHER_RING: usize = 64;
/// The same for a stream, which is there to send much: as many as leave in one system call at most.
const STREAM_RING: usize = BURST;

/// Decisions that may wait beyond one for each command that waits.
const DECISIONS_SPARE: usize = 64;

/// Events that a subscriber may leave unread; later ones are only counted.
const EVENTS: usize = 16;

/// What stands for the type of a topic that is only observed.
const ANY_SCHEMA: &str = "any";

/// Everything of a node that exists before it starts. [`NodeBuilder::start`] checks the rest and
/// makes it run.
pub struct NodeBuilder {
    pub(super) config: NodeConfig,
    pub(super) identity: Option<Identity>,
    pub(super) memory: Option<(MemoryNetwork, SocketAddr)>,
    pub(super) panel_dir: Option<PathBuf>,
    pub(super) loops: u16,
    pub(super) spins_in_bursts: bool,
    pub(super) observer: bool,
    /// Where the machine's files are that are looked at again while the node runs, and how often.
    pub(super) machine_root: PathBuf,
    pub(super) recheck_every: Nanos,
    /// Where the log goes; `None` to the standard error.
    pub(super) log: Option<log::Sink>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) publications: Vec<Publication>,
    pub(super) stages: Vec<(String, GuardSpec, Box<dyn Stage>)>,
    /// Where missed deadlines are told: by the topic's place in the list of topics.
    pub(super) events: Vec<(usize, Producer<TopicEvent>)>,
    /// Set at the start to the bell of the lane that sends, if that lane sleeps.
    pub(super) send_doorbell: Arc<OnceLock<Arc<Doorbell>>>,
    /// The same of the lane that delivers.
    pub(super) deliver_doorbell: Arc<OnceLock<Arc<Doorbell>>>,
}

/// A topic that the program reads.
pub(super) struct Subscription {
    /// Its place in the configuration's list of topics.
    pub(super) topic: usize,
    /// `None` takes any.
    pub(super) schema: Option<SchemaId>,
    pub(super) sink: Subscriber,
    /// Where an earlier life of the program stopped reading.
    pub(super) floors: Vec<Floor>,
}

/// Where what a subscription brings goes.
pub(super) enum Subscriber {
    /// Whatever comes, at once.
    Plain(Box<dyn Sink>),
    /// In order, without silent loss.
    Ordered(Box<dyn OrderedSink>),
}

/// A topic that the program writes.
pub(super) struct Publication {
    /// Its place in the configuration's list of topics.
    pub(super) topic: usize,
    pub(super) schema: SchemaId,
    pub(super) source: Box<dyn Source>,
    /// Where the outcomes of commands go.
    pub(super) outcomes: Option<Producer<(Sequence, Outcome)>>,
}

/// Control loops that a program has room for on the panel without saying so.
const DEFAULT_LOOPS: u16 = 2;

impl NodeBuilder {
    /// A production node called `name`, with defaults for everything else.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::from_parts(NodeConfig::new(name))
    }

    /// A node as `sinew.toml` describes it.
    ///
    /// # Errors
    /// The first problem in the file, with its line and what to do.
    pub fn from_config(path: impl AsRef<Path>) -> Result<Self, NodeError> {
        Ok(Self::from_parts(file::load(path.as_ref())?))
    }

    fn from_parts(config: NodeConfig) -> Self {
        Self {
            config,
            identity: None,
            memory: None,
            panel_dir: None,
            loops: DEFAULT_LOOPS,
            spins_in_bursts: false,
            observer: false,
            machine_root: PathBuf::from("/"),
            recheck_every: recheck::ROUND,
            log: None,
            subscriptions: Vec::new(),
            publications: Vec::new(),
            stages: Vec::new(),
            events: Vec::new(),
            send_doorbell: Arc::default(),
            deliver_doorbell: Arc::default(),
        }
    }

    /// What the node has been told so far.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Joins `cluster`: frames of another cluster are not understood.
    #[must_use]
    pub fn cluster(mut self, cluster: impl Into<String>) -> Self {
        self.config.cluster = cluster.into();
        self
    }

    /// Makes the node lax: see [`Mode::Development`].
    #[must_use]
    pub fn development(mut self) -> Self {
        self.config.mode = Mode::Development;
        self
    }

    /// Gives the node its identity, instead of a key file.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Takes the identity from a key file, as `sinew key new` makes them.
    #[must_use]
    pub fn key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.key = Some(path.into());
        self
    }

    /// Keeps the boot counter in `dir`, which only this node may use.
    #[must_use]
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.state_dir = Some(dir.into());
        self
    }

    /// Talks over UDP, bound to `address`.
    #[must_use]
    pub fn udp(mut self, address: SocketAddr) -> Self {
        self.config.bind = Some(address);
        self
    }

    /// Talks over a network inside this process.
    #[must_use]
    pub fn memory(mut self, network: &MemoryNetwork, address: SocketAddr) -> Self {
        self.memory = Some((network.clone(), address));
        self
    }

    /// Adds somebody whom the node knows.
    #[must_use]
    pub fn peer(mut self, peer: PeerConfig) -> Self {
        self.config.peers.push(peer);
        self
    }

    /// Declares a topic, to say more about it than its first use in code does.
    #[must_use]
    pub fn topic(mut self, topic: TopicConfig) -> Self {
        self.config.topics.push(topic);
        self
    }

    /// Sets threads and waits.
    #[must_use]
    pub fn realtime(mut self, realtime: RealTimeConfig) -> Self {
        self.config.realtime = realtime;
        self
    }

    /// Sets how the stages are spread over lanes.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.config.realtime.layout = layout;
        self
    }

    /// Keeps `cores` from halting while lanes run: see [`RealTimeConfig::keep_awake`].
    #[must_use]
    pub fn keep_awake(mut self, cores: impl Into<Vec<CoreId>>) -> Self {
        self.config.realtime.keep_awake = cores.into();
        self
    }

    /// Sets the execution times allowed.
    #[must_use]
    pub fn budgets(mut self, budgets: Budgets) -> Self {
        self.config.budgets = budgets;
        self
    }

    /// Sets how many signature checks a second each sender may cost.
    #[must_use]
    pub fn admission(mut self, limits: AdmissionLimits) -> Self {
        self.config.admission = limits;
        self
    }

    /// Puts the panel into `dir` instead of `/dev/shm/sinew` (of users other than root:
    /// `/dev/shm/sinew-UID`).
    #[must_use]
    pub fn panel_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.panel_dir = Some(dir.into());
        self
    }

    /// Makes room on the panel for the figures of so many control loops, and of some of the program's
    /// own beside each: two unless told. A histogram is 29 kB of locked memory, so a node without
    /// loops saves half a megabyte with 0.
    #[must_use]
    pub fn loops(mut self, loops: u16) -> Self {
        self.loops = loops;
        self
    }

    /// Promises that spinning lanes of this node run for less than 0.9 s at a time, so that they
    /// are let start on a kernel that throttles real-time threads: for benches and tests.
    #[must_use]
    pub fn spins_in_bursts(mut self) -> Self {
        self.spins_in_bursts = true;
        self
    }

    /// Makes the node one that looks on and disturbs nothing, whatever its configuration says of
    /// real-time: all stages on one thread at ordinary priority, on whatever core the kernel chooses,
    /// asleep while nothing comes, without locked memory and without a hold on idle states. What
    /// the kernel refuses is no error. Its figures are branded NOT REAL-TIME.
    #[must_use]
    pub fn observer(mut self) -> Self {
        self.observer = true;
        let realtime = &mut self.config.realtime;
        realtime.layout = Layout::Fused;
        realtime.cores = Vec::new();
        realtime.wait = Wait::Park;
        realtime.strictness = Some(Strictness::Report);
        realtime.lock_memory = false;
        realtime.cpu_latency_us = None;
        self
    }

    /// Looks for changes of the machine (governors, interrupts, tasks on the lanes' cores) under `root`
    /// instead of `/`, in a round that begins each `every`: for tests with files of their own.
    #[must_use]
    pub fn machine(mut self, root: impl Into<PathBuf>, every: Nanos) -> Self {
        self.machine_root = root.into();
        self.recheck_every = every;
        self
    }

    /// Gives the lines of the node's log to `sink` instead of printing them on the standard error: a
    /// stage that hangs, overruns, and the first drop for each reason and peer. Each kind of line is
    /// limited in its rate, and what was left out is counted in a line of its own.
    ///
    /// `sink` runs on the housekeeping thread: while it blocks, no handshake is answered and no hang
    /// is found.
    #[must_use]
    pub fn log(mut self, sink: impl FnMut(Line) + Send + 'static) -> Self {
        self.log = Some(Box::new(sink));
        self
    }

    /// Runs a stage of the program's own on the lane that sends, before the send stage: what it
    /// publishes leaves in the same pass, with no thread between. In the fused layout it also reads
    /// what that very pass received. See [`Stage`] for what it may do.
    pub fn stage(&mut self, name: impl Into<String>, guard: GuardSpec, stage: Box<dyn Stage>) {
        self.stages.push((name.into(), guard, stage));
    }

    /// Subscribes to the newest value of a topic.
    ///
    /// # Errors
    /// When the topic was declared with another message type or class, or is subscribed already.
    pub fn latest<T: Message>(&mut self, topic: &str) -> Result<LatestReader<T>, NodeError> {
        let (writer, reader) = latest::channel();
        let sink = Subscriber::Plain(Box::new(LatestSink { writer }));
        self.subscribe::<T>(topic, TopicClass::Control, sink)?;
        Ok(reader)
    }

    /// Subscribes to every message of a topic, up to `capacity` waiting ones; what does not fit is
    /// dropped and counted.
    ///
    /// # Errors
    /// When the topic was declared with another message type or class, or is subscribed already.
    pub fn queue<T: Message>(
        &mut self,
        topic: &str,
        capacity: usize,
    ) -> Result<Consumer<Queued<T>>, NodeError> {
        let (producer, consumer) = ring::channel(capacity);
        let sink = Subscriber::Plain(Box::new(QueueSink { producer }));
        self.subscribe::<T>(topic, TopicClass::Queue, sink)?;
        Ok(consumer)
    }

    /// Subscribes to a stream: each message in order and at most once, with room for `capacity`
    /// deliveries; a sender whose receivers have no room is told that publishing would block.
    ///
    /// # Errors
    /// When the topic was declared with another message type or class, or is subscribed already.
    pub fn stream<T: Message>(
        &mut self,
        topic: &str,
        capacity: usize,
    ) -> Result<StreamReader<T>, NodeError> {
        let (producer, deliveries) = ring::channel(capacity);
        let sink = Subscriber::Ordered(Box::new(OrderedQueue { producer, decisions: None }));
        self.subscribe::<T>(topic, TopicClass::Stream, sink)?;
        Ok(StreamReader { deliveries })
    }

    /// Subscribes to commands, with room for `capacity` of them. The topic must be declared before
    /// ([`topic`](Self::topic)), for a command needs a lifespan.
    ///
    /// # Errors
    /// When the topic was declared with another message type or class, or is subscribed already.
    pub fn commands<T: Message>(
        &mut self,
        topic: &str,
        capacity: usize,
    ) -> Result<CommandReader<T>, NodeError> {
        let (producer, deliveries) = ring::channel(capacity);
        let (decisions, decided) = ring::channel(capacity + DECISIONS_SPARE);
        let queue = OrderedQueue { producer, decisions: Some(decided) };
        self.subscribe::<T>(topic, TopicClass::Command, Subscriber::Ordered(Box::new(queue)))?;
        Ok(CommandReader { deliveries, decisions, doorbell: self.deliver_doorbell.clone() })
    }

    /// Goes on with a stream or with commands where an earlier life of this program stopped, as it
    /// stored it: what a sender still keeps of what came after is sent again, the rest is a gap.
    ///
    /// When the program stores a [`Floor`] decides what a crash costs: before it acts on the message,
    /// at most once (what it was about to do may be lost); after, at least once (what it did may come
    /// again, marked as [`possible_duplicate`](super::Received::possible_duplicate)); together with what it
    /// did, in one transaction, exactly once.
    ///
    /// # Errors
    /// When the topic is not subscribed as a stream or as commands.
    pub fn resume(&mut self, topic: &str, floors: &[Floor]) -> Result<(), NodeError> {
        let config = &self.config;
        let ordered = self.subscriptions.iter_mut().find(|subscription| {
            config.topics[subscription.topic].name == topic
                && matches!(subscription.sink, Subscriber::Ordered(_))
        });
        match ordered {
            Some(subscription) => {
                subscription.floors = floors.to_vec();
                Ok(())
            }
            None => {
                let problem = format!("`{topic}` is not read as a stream or as commands");
                let hint = "call stream() or commands() for it first";
                Err(config.error("topic", problem, hint).into())
            }
        }
    }

    /// Subscribes to an emergency stop: a guardian's "all is well", whose absence for longer than
    /// `deadline` is the stop.
    ///
    /// # Errors
    /// When the topic was declared as something else, or is subscribed already.
    pub fn estop(&mut self, topic: &str, deadline: Nanos) -> Result<EStopReader, NodeError> {
        let (writer, newest) = latest::channel();
        let sink = Subscriber::Plain(Box::new(LatestSink { writer }));
        let place = self.declare::<AllWell>(topic, Some(TopicClass::EStop))?;
        self.config.topics[place].deadline = Some(deadline);
        self.subscribe_at(place, Some(schema_id::<AllWell>()), sink)?;
        Ok(EStopReader { newest, deadline, armed: false })
    }

    /// Tells of missed deadlines of a topic that was declared with one, and of publishers that fall
    /// silent or are heard again.
    ///
    /// # Errors
    /// When the topic has no deadline.
    pub fn events(&mut self, topic: &str) -> Result<Consumer<TopicEvent>, NodeError> {
        let known = self.config.topics.iter().position(|known| known.name == topic);
        match known.filter(|n| self.config.topics[*n].deadline.is_some()) {
            Some(n) => {
                let (producer, consumer) = ring::channel(EVENTS);
                self.events.push((n, producer));
                Ok(consumer)
            }
            None => {
                let problem = format!("`{topic}` has no deadline that could be missed");
                let hint = "declare the topic with deadline_ms first";
                Err(self.config.error("topic", problem, hint).into())
            }
        }
    }

    /// Subscribes to every message of a topic as it is on the wire, of whatever type, up to
    /// `capacity` waiting ones of 1,096 bytes; what does not fit is dropped and counted. For tools
    /// that look on: a program that acts on messages wants [`latest`](Self::latest) or
    /// [`queue`](Self::queue), which check the type. What the topic was declared with beside type and
    /// class holds.
    ///
    /// Commands and streams cannot be observed: they are sent only to readers that acknowledge them, and
    /// one that only looks on would have a say in how fast they go and in what became of a command.
    ///
    /// # Errors
    /// When the topic is subscribed already, or was declared as a command or a stream.
    pub fn observe(
        &mut self,
        topic: &str,
        capacity: usize,
    ) -> Result<Consumer<Observed>, NodeError> {
        let (producer, consumer) = ring::channel(capacity);
        let topic = match self.config.topics.iter().position(|known| known.name == topic) {
            Some(known) if self.config.topics[known].class.is_reliable() => {
                let class = self.config.topics[known].class.as_str();
                let problem = format!(
                    "`{topic}` is a {class}, which is sent only to readers that acknowledge it"
                );
                let hint =
                    "subscribe with stream() or commands(); one that looks on would slow it down";
                return Err(self.config.error(&format!("topic.{known}"), problem, hint).into());
            }
            Some(known) => known,
            None => self.add_topic(topic, ANY_SCHEMA, TopicClass::Queue),
        };
        self.subscribe_at(topic, None, Subscriber::Plain(Box::new(ObserverSink { producer })))?;
        Ok(consumer)
    }

    /// Publishes a topic, of whatever class it was declared with. One that was not declared is a
    /// `control` topic, signed. Whoever publishes commands and wants to know what became of them
    /// takes [`command_publisher`](Self::command_publisher).
    ///
    /// # Errors
    /// When the topic was declared with another message type, or is published already.
    pub fn publisher<T: Message>(&mut self, topic: &str) -> Result<Publisher<T>, NodeError> {
        let topic = self.declare::<T>(topic, None)?;
        self.publish::<T>(topic, None)
    }

    /// Publishes commands. The topic must be declared before ([`topic`](Self::topic)), for a command
    /// needs a lifespan.
    ///
    /// # Errors
    /// When the topic was declared with another message type or class, or is published already.
    pub fn command_publisher<T: Message>(
        &mut self,
        topic: &str,
    ) -> Result<CommandPublisher<T>, NodeError> {
        let place = self.declare::<T>(topic, Some(TopicClass::Command))?;
        let kept = usize::from(self.config.topics[place].reliability.capacity);
        let (producer, outcomes) = ring::channel(kept + PUBLISHER_RING);
        let publisher = self.publish::<T>(place, Some(producer))?;
        Ok(CommandPublisher { publisher, next: Sequence::FIRST.get(), outcomes })
    }

    fn publish<T: Message>(
        &mut self,
        topic: usize,
        outcomes: Option<Producer<(Sequence, Outcome)>>,
    ) -> Result<Publisher<T>, NodeError> {
        if self.publications.iter().any(|publication| publication.topic == topic) {
            return Err(self.twice(topic, "published"));
        }
        let is_stream = self.config.topics[topic].class == TopicClass::Stream;
        let ahead = if is_stream { STREAM_RING } else { PUBLISHER_RING };
        let (ring, source) = ring::channel(ahead);
        let schema = schema_id::<T>();
        self.publications.push(Publication { topic, schema, source: Box::new(source), outcomes });
        Ok(Publisher { ring, doorbell: self.send_doorbell.clone() })
    }

    fn subscribe<T: Message>(
        &mut self,
        topic: &str,
        class: TopicClass,
        sink: Subscriber,
    ) -> Result<(), NodeError> {
        let topic = self.declare::<T>(topic, Some(class))?;
        self.subscribe_at(topic, Some(schema_id::<T>()), sink)
    }

    fn subscribe_at(
        &mut self,
        topic: usize,
        schema: Option<SchemaId>,
        sink: Subscriber,
    ) -> Result<(), NodeError> {
        if self.subscriptions.iter().any(|subscription| subscription.topic == topic) {
            return Err(self.twice(topic, "subscribed"));
        }
        self.subscriptions.push(Subscription { topic, schema, sink, floors: Vec::new() });
        Ok(())
    }

    fn twice(&self, topic: usize, how: &str) -> NodeError {
        let name = &self.config.topics[topic].name;
        let problem = format!("`{name}` is {how} twice in one node");
        let hint = "share the first handle's values inside the program";
        self.config.error(&format!("topic.{topic}"), problem, hint).into()
    }

    /// The place of a topic in the list, where it is put on its first use.
    fn declare<T: Message>(
        &mut self,
        name: &str,
        class: Option<TopicClass>,
    ) -> Result<usize, NodeError> {
        let known = self.config.topics.iter().position(|topic| topic.name == name);
        let Some(n) = known else {
            return Ok(self.add_topic(name, T::NAME, class.unwrap_or(TopicClass::Control)));
        };
        let topic = &self.config.topics[n];
        if topic.schema != T::NAME {
            let problem =
                format!("topic `{name}` is {} here and {} in the program", topic.schema, T::NAME);
            let hint = "a topic has one schema: change one of the two, or use another topic";
            return Err(self.config.error(&format!("topic.{n}.schema"), problem, hint).into());
        }
        if class.is_some_and(|class| class != topic.class) {
            let wanted = class.map_or("", TopicClass::as_str);
            let declared = topic.class.as_str();
            let problem = format!("topic `{name}` is {declared} here and {wanted} in the program");
            let hint = "the call must match the class: latest() control, queue() queue, stream() \
                        stream, commands() and command_publisher() command, estop() estop";
            return Err(self.config.error(&format!("topic.{n}"), problem, hint).into());
        }
        Ok(n)
    }

    fn add_topic(&mut self, name: &str, schema: &str, class: TopicClass) -> usize {
        self.config.topics.push(TopicConfig::new(name, schema, class));
        self.config.topics.len() - 1
    }

    /// Checks the rest and makes the node run: binds, raises the boot counter, maps the panel, locks
    /// memory, and starts the lanes with what the kernel granted read back.
    ///
    /// # Errors
    /// Whatever is wrong, before any lane runs; nothing of the node is left then.
    pub fn start(self) -> Result<Node, NodeError> {
        assemble::start(self)
    }
}
