//! The node: identity, transport, pipeline and housekeeping, assembled and started as one.
//!
//! ```no_run
//! use sinew_io::node::{Node, PeerConfig};
//! # use sinew_io::message::Message;
//! # fn example<Setpoint: Message, State: Message>(identity: sinew_io::security::Identity)
//! # -> Result<(), sinew_io::node::NodeError> {
//! let mut robot = Node::builder("robot")
//!     .development()
//!     .identity(identity)
//!     .udp("127.0.0.1:7401".parse().unwrap())
//!     .peer(PeerConfig {
//!         name: "controller".to_owned(),
//!         identity: "did:key:z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd".to_owned(),
//!         address: "127.0.0.1:7402".parse().unwrap(),
//!         publishes: vec!["arm/setpoint".to_owned()],
//!     });
//! let mut setpoint = robot.latest::<Setpoint>("arm/setpoint")?;
//! let mut state = robot.publisher::<State>("arm/state")?;
//! let robot = robot.start()?;
//! # let _ = (&mut setpoint, &mut state, robot);
//! # Ok(())
//! # }
//! ```

mod assemble;
mod builder;
mod config;
mod file;
mod greeter;
mod handles;
mod housekeeping;
mod log;
mod ownership;
mod place;
mod plan;
mod process;
mod recheck;
mod running;
mod seats;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod stages;
mod topics;
mod who;

pub use builder::NodeBuilder;
pub use config::{
    Auth, Budgets, DEFAULT_PRIORITY, Layout, MAX_PEER_NAME, MAX_TOPIC_NAME, Mode, NodeConfig,
    PeerConfig, RealTimeConfig, Reliability, TopicClass, TopicConfig, WRITER_CAPACITY_MAX,
};
pub use file::{load, parse};
pub use handles::{
    AllWell, CommandPublisher, CommandReader, DecisionsFull, EStop, EStopReader, Publisher,
    PublisherFull, REASON_MAX, StreamReader,
};
pub use place::ConfigError;
pub use plan::{LanePlan, Plan, StageName};
pub use running::{Node, StartReport};

pub use crate::delivery::Outcome;
pub use crate::pipeline::deliver::{Observed, Queued};
pub use crate::pipeline::reliable::{Delivery, Floor, GapCause, Received};
pub use crate::pipeline::watch::TopicEvent;

use crate::security::boot::BootError;
use crate::security::keyfile::KeyFileError;
use crate::transport::TransportError;
use sinew_rt::panel::PanelError;
use sinew_rt::thread::{Refusal, ThreadError};
use sinew_rt::topology::TopologyError;

/// Why a node did not start. Nothing of it is left: no thread, socket, mapping or file but the
/// raised boot counter.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The boot counter could not be raised.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The transport could not be bound.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The panel could not be made.
    #[error(transparent)]
    Panel(#[from] PanelError),
    /// The machine's cores could not be read.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A thread could not be made as required.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The kernel refused something that the configuration requires.
    #[error("the kernel refused what the configuration requires: {}", list(.0))]
    Refused(Vec<Refusal>),
    /// The system refused something else.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        error: std::io::Error,
    },
}

impl NodeError {
    /// Whether the configuration is at fault (exit code 2) rather than the machine (exit code 3).
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Key(_))
    }
}

fn list(refused: &[Refusal]) -> String {
    refused.iter().map(Refusal::to_string).collect::<Vec<_>>().join(" | ")
}
