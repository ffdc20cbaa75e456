//! A node that looks on: started from its own configuration, at ordinary priority, asleep while nothing
//! comes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sinew_io::node::{Node, NodeBuilder, NodeConfig};
use sinew_io::security::PublicKey;
use sinew_io::wire::KeyId;
use sinew_rt::panel::PanelSnapshot;

use super::diagnosis::{Local, Situation};
use crate::exit::Failure;
use crate::node::run::placed;
use crate::panels::{OpenPanel, PanelDir};

/// Who looks on.
#[derive(clap::Args)]
pub(super) struct ObserverArgs {
    /// The observer's configuration: its key, its address, and whom it hears (see docs/topic.md)
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    #[command(flatten)]
    pub(super) dir: PanelDir,
}

/// An observer that has been started.
pub(super) struct Observer {
    node: Node,
    config: NodeConfig,
    /// By peer: its node, where that runs on this machine, as it was when the observer started.
    before: Vec<Option<(OpenPanel, PanelSnapshot)>>,
}

impl ObserverArgs {
    /// The node before it starts, ready for subscriptions and publishers.
    pub(super) fn builder(&self) -> Result<NodeBuilder, Failure> {
        let mut builder = Node::from_config(&self.config)?.observer();
        if let Some(dir) = self.dir.given() {
            builder = builder.panel_dir(dir);
        }
        // The first drop of each kind is no news here: what matters of them is in the diagnosis.
        Ok(builder.log(|_| ()))
    }

    /// Lets the node run.
    pub(super) fn start(&self, builder: NodeBuilder) -> Result<Observer, Failure> {
        let config = builder.config().clone();
        let before = config.peers.iter().map(|peer| node_of(&self.dir, &peer.identity)).collect();
        let node = builder.start().map_err(|error| placed(&config, error))?;
        Ok(Observer { node, config, before })
    }
}

/// The panel of the node with this identity, if it is on this machine and can be read.
fn node_of(dir: &PanelDir, identity: &str) -> Option<(OpenPanel, PanelSnapshot)> {
    let (panels, _) = dir.list();
    panels.iter().filter(|panel| !panel.crashed).find_map(|panel| {
        let open = OpenPanel::open(&panel.path).ok()?;
        let look = open.look().ok()?;
        (look.snapshot.identity == identity).then_some((open, look.snapshot))
    })
}

impl Observer {
    /// What is known of the traffic with the peers.
    pub(super) fn situation(&self) -> Result<Situation<'_>, Failure> {
        let local = |before: &Option<(OpenPanel, PanelSnapshot)>| {
            let (open, before) = before.as_ref()?;
            let look = open.look().ok()?;
            Some(Local { before: before.clone(), now: look.snapshot, life: look.life })
        };
        Ok(Situation {
            config: &self.config,
            identity: self.node.public_key().to_did(),
            address: self.node.report().address,
            own: self.node.panel().snapshot().map_err(Failure::machine)?,
            local: self.before.iter().map(local).collect(),
        })
    }

    /// The peers' names and identities, by what envelopes carry of them.
    pub(super) fn senders(&self) -> BTreeMap<KeyId, (String, String)> {
        let peers = self.config.peers.iter();
        let sender = |peer: &sinew_io::node::PeerConfig| {
            let key = PublicKey::from_did(&peer.identity).ok()?;
            Some((key.id(), (peer.name.clone(), peer.identity.clone())))
        };
        peers.filter_map(sender).collect()
    }

    /// A thread of the node has ended by a panic.
    pub(super) fn is_broken(&self) -> bool {
        self.node.is_broken()
    }

    /// Sends what is in its rings, and ends.
    pub(super) fn stop(self) -> Result<(), Failure> {
        self.node.stop().map_err(|panics| Failure::machine(panics.join("; ")))
    }
}

/// Refuses a topic that no peer may publish to this observer.
pub(super) fn check_published(config: &NodeConfig, topic: &str) -> Result<(), Failure> {
    if config.peers.iter().any(|peer| peer.publishes.iter().any(|name| name == topic)) {
        return Ok(());
    }
    let (key, hint) = match config.peers.as_slice() {
        [] => ("peer", "add a [[peer]] for the node that publishes it".to_owned()),
        [_] => ("peer.0", format!("add \"{topic}\" to the list")),
        _ => ("peer", format!("add \"{topic}\" to the list of the peer that publishes it")),
    };
    let problem = format!("`{topic}` is in no peer's `publishes`");
    Err(Failure::usage(config.error_at(key, problem, hint)))
}
