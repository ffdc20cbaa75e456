//! What a node is told: from `sinew.toml` or from a builder, checked before anything starts.

use super::place::{ConfigError, Places};
use crate::delivery::reader::READER_SLOTS;
use crate::pipeline::STRANGER;
use crate::security::AdmissionLimits;
use crate::wire::Class;
use crate::wire::report::{REPORTS, REPORTS_OPEN};
use sinew_rt::clock::Nanos;
use sinew_rt::thread::{Priority, Strictness};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Wait;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Whether this node may be lax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every envelope is signed, the boot counter is kept on disk, and what the kernel refuses is
    /// an error.
    #[default]
    Production,
    /// Topics may be `open` (unsigned), a node may live without a state directory, and what the
    /// kernel refuses brands every output NOT REAL-TIME.
    Development,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "production",
            Self::Development => "development",
        })
    }
}

/// How the four stages are spread over lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Chosen from the topology, and said with the reason.
    #[default]
    Auto,
    /// All four stages on one lane: the lowest latency for one message a period.
    Fused,
    /// Receive · verify and deliver · send: the socket drains even in a flood.
    Split,
    /// A lane for each stage: the highest rate, for five or more isolated cores.
    Pipelined,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fused => "fused",
            Self::Split => "split",
            Self::Pipelined => "pipelined",
        })
    }
}

/// What a topic's envelopes must carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Each envelope carries an Ed25519 signature.
    #[default]
    Signed,
    /// Envelopes carry no signature: development mode only.
    Open,
}

/// What a topic promises, and how its messages reach a subscriber. Both ends must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicClass {
    /// The newest value only (DDS: BEST_EFFORT, KEEP_LAST(1); Zenoh: RealTime, Drop).
    Control,
    /// A bounded queue, best effort: what does not fit is dropped and counted (DDS: BEST_EFFORT,
    /// KEEP_LAST(n)). On the wire it is `Control`.
    Queue,
    /// In order, at most once, always signed, never after its lifespan, with the outcome told to
    /// the sender (DDS: RELIABLE, KEEP_ALL, LIFESPAN; Zenoh: InteractiveHigh, Block).
    Command,
    /// In order, at most once, with back-pressure, and every loss reported as a gap (DDS: RELIABLE,
    /// KEEP_ALL; Zenoh: Data, Block).
    Stream,
    /// "All is well", again and again: its absence is the stop. The newest only, always signed.
    EStop,
}

impl TopicClass {
    /// What envelopes of such a topic carry.
    #[must_use]
    pub const fn on_the_wire(self) -> Class {
        match self {
            Self::Control | Self::Queue => Class::Control,
            Self::Command => Class::Command,
            Self::Stream => Class::Stream,
            Self::EStop => Class::EStop,
        }
    }

    /// Whether what is lost is sent again.
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::Command | Self::Stream)
    }

    /// As in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Queue => "queue",
            Self::Command => "command",
            Self::Stream => "stream",
            Self::EStop => "estop",
        }
    }
}

/// How reliable topics ([`TopicClass::Command`], [`TopicClass::Stream`]) are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reliability {
    /// Messages that the sender keeps for sending them again, 1 to 1,024; each takes its frame (payload,
    /// 80 bytes, and 64 if signed) and 24 bytes of locked memory. When it is full of what a receiver still
    /// lacks, publishing says so.
    pub capacity: u16,
    /// For how long after it was sent a message is kept for a receiver that lacks it. A receiver that
    /// is behind by more gets a gap, and no longer holds up the others.
    pub linger: Nanos,
    /// Of several receivers, for how long one that has no room or lacks what the sender would have to
    /// forget may hold up the others; it earns a millisecond of it back each second. Then the others go
    /// on, and it gets a gap. A lone receiver is waited for as long as `linger`.
    pub patience: Nanos,
    /// Messages that a receiver may hold beyond one that is missing, 64 to 256; each takes 1.3 KB of
    /// locked memory for each sender. The sender gets no further ahead than that, nor than there is
    /// room in the receiver's queue: it should cover what is sent while a message is lost several times.
    pub hold: u16,
    /// How long a receiver waits for a message that others have overtaken before it asks for it: the
    /// most that the network reorders.
    pub reorder: Nanos,
    /// After how long a receiver goes on without a message, and reports the gap.
    pub gap_timeout: Nanos,
}

impl Default for Reliability {
    fn default() -> Self {
        Self {
            capacity: 256,
            linger: Nanos::from_millis(500),
            patience: Nanos::from_millis(20),
            hold: 64,
            reorder: Nanos::from_micros(500),
            gap_timeout: Nanos::from_secs(1),
        }
    }
}

/// The threads and what they may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct RealTimeConfig {
    /// How stages are spread over lanes.
    pub layout: Layout,
    /// The cores for lanes, in the order in which lanes take them. Empty: chosen from the
    /// topology.
    pub cores: Vec<CoreId>,
    /// SCHED_FIFO priority of the lanes.
    pub priority: Priority,
    /// What a lane does when it has no work.
    pub wait: Wait,
    /// What happens when the kernel refuses something. `None`: as the mode says.
    pub strictness: Option<Strictness>,
    /// Whether the process locks its memory.
    pub lock_memory: bool,
    /// The wake-up latency to ask of the power management, in microseconds; `None` leaves
    /// `/dev/cpu_dma_latency` alone.
    pub cpu_latency_us: Option<u32>,
    /// The cores that a SCHED_IDLE thread keeps from halting while lanes run, at the price of full
    /// power ([`KeepAwake`](sinew_rt::keep_awake::KeepAwake)). Not with [`Wait::Spin`].
    pub keep_awake: Vec<CoreId>,
}

impl Default for RealTimeConfig {
    fn default() -> Self {
        Self {
            layout: Layout::Auto,
            cores: Vec::new(),
            priority: DEFAULT_PRIORITY,
            wait: Wait::Park,
            strictness: None,
            lock_memory: true,
            cpu_latency_us: Some(0),
            keep_awake: Vec::new(),
        }
    }
}

/// The SCHED_FIFO priority of lanes that are not told another: above the kernel's threaded interrupts
/// (50), below its watchdogs and migration threads (99).
pub const DEFAULT_PRIORITY: Priority = match Priority::new(75) {
    Ok(priority) => priority,
    Err(_) => Priority::MIN,
};

/// Worst-case execution times allowed for one poll of each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Up to a batch of frames from each socket.
    pub receive: Nanos,
    /// One signature, or a batch of frames that need none.
    pub verify: Nanos,
    /// A batch of envelopes into their subscribers' cells and queues.
    pub deliver: Nanos,
    /// One signature and the send, or a batch of unsigned envelopes: 128 frames, or 8 to each reader of a
    /// reliable topic.
    pub send: Nanos,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            receive: Nanos::from_micros(100),
            verify: Nanos::from_micros(250),
            deliver: Nanos::from_micros(100),
            send: Nanos::from_micros(250),
        }
    }
}

/// Somebody whom this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// What this node calls it.
    pub name: String,
    /// Its identity, `did:key:z6Mk…`.
    pub identity: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The topics that it may publish to us.
    pub publishes: Vec<String>,
}

/// A topic as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Its name, such as `arm/setpoint`.
    pub name: String,
    /// The name of its message type, such as `JointSetpoint@1`.
    pub schema: String,
    /// How its messages reach a subscriber.
    pub class: TopicClass,
    /// What its envelopes must carry.
    pub auth: Auth,
    /// For how long after it was sent a message may be delivered, from 1 µs to 2³² − 1 µs; `None`
    /// for ever. Publishers say it in each envelope; a subscriber applies the shorter of the two.
    pub lifespan: Option<Nanos>,
    /// How long the subscriber may be without a message before it is told, as an event.
    pub deadline: Option<Nanos>,
    /// How it is carried, if its class is a reliable one.
    pub reliability: Reliability,
}

impl TopicConfig {
    /// A signed topic without a lifespan or a deadline.
    #[must_use]
    pub fn new(name: impl Into<String>, schema: impl Into<String>, class: TopicClass) -> Self {
        Self {
            name: name.into(),
            schema: schema.into(),
            class,
            auth: Auth::Signed,
            lifespan: None,
            deadline: None,
            reliability: Reliability::default(),
        }
    }
}

/// Everything that a node is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name: of its panel, and in reports. Letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The cluster: frames of another one are not understood. At most 64 bytes.
    pub cluster: String,
    /// Whether it may be lax.
    pub mode: Mode,
    /// The file with its key.
    pub key: Option<PathBuf>,
    /// Where it keeps its boot counter.
    pub state_dir: Option<PathBuf>,
    /// The UDP address to bind.
    pub bind: Option<SocketAddr>,
    /// Threads and waits.
    pub realtime: RealTimeConfig,
    /// Execution times allowed.
    pub budgets: Budgets,
    /// Signature checks that each sender may cost.
    pub admission: AdmissionLimits,
    /// Whom it knows.
    pub peers: Vec<PeerConfig>,
    /// Topics declared up front; code may declare more.
    pub topics: Vec<TopicConfig>,
    /// Where each setting came from, for errors that are found later.
    pub(crate) places: Places,
}

impl NodeConfig {
    /// A production node with defaults for everything but its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cluster: "default".to_owned(),
            mode: Mode::Production,
            key: None,
            state_dir: None,
            bind: None,
            realtime: RealTimeConfig::default(),
            budgets: Budgets::default(),
            admission: AdmissionLimits::default(),
            peers: Vec::new(),
            topics: Vec::new(),
            places: Places::default(),
        }
    }

    /// What a refusal by the kernel leads to.
    #[must_use]
    pub fn strictness(&self) -> Strictness {
        self.realtime.strictness.unwrap_or(match self.mode {
            Mode::Production => Strictness::Require,
            Mode::Development => Strictness::Report,
        })
    }

    /// An error at the place where `key` was set, such as `peer.0.publishes`: for programs that
    /// find more to say about their configuration than [`validate`](Self::validate) does.
    #[must_use]
    pub fn error_at(&self, key: &str, problem: String, hint: String) -> ConfigError {
        self.places.error(key, problem, hint)
    }

    /// An error at the place where `key` was set.
    pub(crate) fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        self.places.error(key, problem, hint)
    }

    /// Finds what is wrong without looking at the machine.
    ///
    /// # Errors
    /// The first problem, with its place and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 48 || !self.name.chars().all(word) {
            return Err(self.error(
                "node.name",
                format!("`{}` cannot be a node's name", self.name),
                "use 1 to 48 letters, digits, `-`, `_` or `.`",
            ));
        }
        if self.cluster.is_empty() || self.cluster.len() > 64 {
            return Err(self.error(
                "node.cluster",
                format!("a cluster's name of {} bytes", self.cluster.len()),
                "use 1 to 64 bytes",
            ));
        }
        if self.mode == Mode::Production && self.state_dir.is_none() {
            return Err(self.error(
                "node.state_dir",
                "a production node needs a place for its boot counter",
                "set node.state_dir to a directory that only this node uses",
            ));
        }
        if self.realtime.wait.holds_core() && !self.realtime.keep_awake.is_empty() {
            return Err(self.error(
                "realtime.keep_awake",
                "a core with a lane that spins does not halt, and nothing below the lane would run",
                "remove keep_awake, or set realtime.wait = \"park\" or \"spin-then-park\"",
            ));
        }
        for (n, topic) in self.topics.iter().enumerate() {
            let key = |field| format!("topic.{n}.{field}");
            if topic.name.is_empty() || topic.name.len() > MAX_TOPIC_NAME {
                return Err(self.error(
                    &key("name"),
                    format!("a topic's name of {} bytes", topic.name.len()),
                    format!("use 1 to {MAX_TOPIC_NAME} bytes"),
                ));
            }
            if topic.name.chars().any(char::is_control) {
                return Err(self.error(
                    &key("name"),
                    format!("{:?} has control characters", topic.name),
                    "use a name that can be shown",
                ));
            }
            if topic.auth == Auth::Open && self.mode == Mode::Production {
                return Err(self.error(
                    &key("auth"),
                    format!("`{}` is open, and this node is in production mode", topic.name),
                    "set auth = \"signed\", or node.mode = \"development\" on a bench",
                ));
            }
            self.validate_class(n, topic)?;
            if let Some(lifespan) = topic.lifespan
                && !(SHORTEST_LIFESPAN..=LONGEST_LIFESPAN).contains(&lifespan)
            {
                return Err(self.error(
                    &key("lifespan_ms"),
                    format!("`{}` would live for {lifespan}", topic.name),
                    format!("use {SHORTEST_LIFESPAN} to {LONGEST_LIFESPAN}, or none for no limit"),
                ));
            }
            if let Some(first) = self.topics[..n].iter().find(|t| t.name == topic.name) {
                return Err(self.error(
                    &key("schema"),
                    format!(
                        "topic `{}` is declared twice, as {} and as {}",
                        topic.name, first.schema, topic.schema
                    ),
                    "a topic has one schema: remove one of the two, or give it another name",
                ));
            }
        }
        for (n, peer) in self.peers.iter().enumerate() {
            let fits = (1..=MAX_PEER_NAME).contains(&peer.name.len());
            if !fits || !peer.name.chars().all(word) || peer.name == STRANGER {
                return Err(self.error(
                    &format!("peer.{n}.name"),
                    format!("`{}` cannot be a peer's name", peer.name),
                    format!(
                        "use 1 to {MAX_PEER_NAME} letters, digits, `-`, `_` or `.`, and not \
                         `{STRANGER}`, which stands for everybody else"
                    ),
                ));
            }
            let earlier = &self.peers[..n];
            let twice = |what: &str, value: &str| {
                let key = format!("peer.{n}.{what}");
                self.error(&key, format!("two peers have the {what} {value}"), "remove one of them")
            };
            if earlier.iter().any(|p| p.name == peer.name) {
                return Err(twice("name", &peer.name));
            }
            if earlier.iter().any(|p| p.identity == peer.identity) {
                return Err(twice("identity", &peer.identity));
            }
            if earlier.iter().any(|p| p.address == peer.address) {
                return Err(twice("address", &peer.address.to_string()));
            }
        }
        Ok(())
    }
}

impl NodeConfig {
    /// What the class of a topic demands of its other settings.
    fn validate_class(&self, n: usize, topic: &TopicConfig) -> Result<(), ConfigError> {
        let key = |field| format!("topic.{n}.{field}");
        let class = topic.class.as_str();
        let TopicConfig { name, reliability, .. } = topic;
        if matches!(topic.class, TopicClass::Command | TopicClass::EStop)
            && topic.auth == Auth::Open
        {
            let problem = format!("`{name}` is open, and every {class} is signed");
            return Err(self.error(&key("auth"), problem, "remove auth, or use another class"));
        }
        if topic.class == TopicClass::Command && topic.lifespan.is_none() {
            let problem = format!("`{name}` is a command and would live for ever");
            let hint = "set lifespan_ms: an older command is never executed";
            return Err(self.error(&key("lifespan_ms"), problem, hint));
        }
        if topic.class == TopicClass::EStop && topic.deadline.is_none() {
            let problem = format!("`{name}` is an estop, and its absence would mean nothing");
            let hint = "set deadline_ms: after so long without a message the stop is in force";
            return Err(self.error(&key("deadline_ms"), problem, hint));
        }
        if RESERVED_TOPICS.contains(&name.as_str()) {
            let problem = format!("`{name}` is what nodes use among themselves");
            return Err(self.error(&key("name"), problem, "use another name"));
        }
        if !(1..=WRITER_CAPACITY_MAX).contains(&usize::from(reliability.capacity)) {
            let problem = format!("`{name}` would keep {} messages", reliability.capacity);
            let hint = format!("use 1 to {WRITER_CAPACITY_MAX}");
            return Err(self.error(&key("capacity"), problem, hint));
        }
        if !HOLD.contains(&reliability.hold) {
            let problem = format!("`{name}` would hold {} messages", reliability.hold);
            let hint = format!("use {} to {}", HOLD.start(), HOLD.end());
            return Err(self.error(&key("hold"), problem, hint));
        }
        let spans = [
            ("deadline_ms", topic.deadline),
            ("linger_ms", Some(reliability.linger)),
            ("gap_timeout_ms", Some(reliability.gap_timeout)),
        ];
        for (field, span) in spans {
            if span.is_some_and(|span| span <= Nanos::ZERO) {
                return Err(self.error(&key(field), "no time at all", "use at least 1 ms"));
            }
        }
        Ok(())
    }
}

/// The most messages that a sender keeps for sending them again.
pub const WRITER_CAPACITY_MAX: usize = 1_024;

/// What a receiver may hold beyond a message that is missing. With less than the least a loss would stop
/// most streams; reports tell of no more than the most.
const HOLD: RangeInclusive<u16> = 64..=READER_SLOTS as u16;

/// The names of topics that carry reports.
const RESERVED_TOPICS: [&str; 2] = [REPORTS, REPORTS_OPEN];

/// An envelope says its lifespan in microseconds, and 0 means for ever.
const SHORTEST_LIFESPAN: Nanos = Nanos::from_micros(1);
const LONGEST_LIFESPAN: Nanos = Nanos::from_micros(u32::MAX as i64);

/// Bytes of a topic's name, so that it fits a panel's labels.
pub const MAX_TOPIC_NAME: usize = 32;

/// Bytes of a peer's name, so that `handshake.drop.challenge_limited@NAME` fits the panel's labels.
pub const MAX_PEER_NAME: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::greeter;
    use crate::pipeline::{Drops, deliver, receive, verify};
    use sinew_rt::panel::{Panel, PanelSpec};

    fn with_peer(name: &str) -> NodeConfig {
        let mut config = NodeConfig::new("robot");
        config.mode = Mode::Development;
        config.peers.push(PeerConfig {
            name: name.to_owned(),
            identity: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            publishes: Vec::new(),
        });
        config
    }

    #[test]
    fn a_peer_s_name_must_fit_the_panel_and_be_nobody_else_s() {
        for name in ["", "a-name-that-is-too-long", "with space", "stranger", "a/b"] {
            let error = with_peer(name).validate().unwrap_err().to_string();
            assert!(error.starts_with("peer[0].name: "), "{error}");
        }
        with_peer("fifteen-letters").validate().unwrap();
    }

    #[test]
    fn the_longest_names_fit_every_counter() {
        let mut spec = PanelSpec::new("labels");
        spec.values = 400;
        let panel = Panel::anonymous(&spec).unwrap();
        let peers = ["p".repeat(MAX_PEER_NAME)];
        for (stage, reasons) in [
            ("receive", receive::REASONS),
            ("verify", verify::REASONS),
            ("deliver", deliver::REASONS),
            ("handshake", greeter::REASONS),
        ] {
            Drops::register(&panel, stage, reasons, &peers).unwrap();
        }
        for prefix in ["sent", "delivered", "schema", "foreign_schema"] {
            panel.gauge(&format!("{prefix}/{}", "t".repeat(MAX_TOPIC_NAME))).unwrap();
        }
    }
}
