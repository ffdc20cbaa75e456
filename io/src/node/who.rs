//! Who a node is, whom it knows, and which of its lives begins with this start.

use super::NodeError;
use super::builder::NodeBuilder;
use super::config::NodeConfig;
use super::ownership;
use crate::security::boot::{BootCounter, BootError};
use crate::security::hello::OwnLife;
use crate::security::{DidError, Enrolment, Identity, Peer, PublicKey, Publishes, keyfile};
use crate::wire::{BootId, ClusterName, Epoch, LifeId, TopicId};
use sinew_rt::clock;
use sinew_rt::panel::ProcessIdentity;
use std::sync::Arc;

/// Who this node is, whom it knows, and which of its lives begins.
pub(super) struct Who {
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Enrolment>,
    pub(super) cluster: ClusterName,
    pub(super) own: OwnLife,
}

impl Who {
    pub(super) fn new(builder: &mut NodeBuilder) -> Result<Self, NodeError> {
        Self::living(builder, PublicKey::from_did, own_life)
    }

    /// The same with `admit` to read identities and `begin` to begin a life.
    pub(super) fn living(
        builder: &mut NodeBuilder,
        admit: impl Fn(&str) -> Result<PublicKey, DidError>,
        begin: impl FnOnce(&NodeConfig) -> Result<OwnLife, NodeError>,
    ) -> Result<Self, NodeError> {
        let given = builder.identity.take();
        let config = &builder.config;
        let cluster = ClusterName::new(&config.cluster)
            .map_err(|error| config.error("node.cluster", error.to_string(), ""))?;
        let identity = match (given, &config.key) {
            (Some(identity), _) => identity,
            (None, Some(path)) => keyfile::load(path)?,
            (None, None) => {
                let hint = "make one with `sinew key new FILE` and set node.key";
                return Err(config.error("node.key", "the node has no identity", hint).into());
            }
        };
        let peers = Arc::new(enrolment(config, identity.public(), admit)?);
        let own = begin(config)?;
        Ok(Self { identity: Arc::new(identity), peers, cluster, own })
    }
}

fn enrolment(
    config: &NodeConfig,
    own: &PublicKey,
    admit: impl Fn(&str) -> Result<PublicKey, DidError>,
) -> Result<Enrolment, NodeError> {
    let mut peers = Vec::with_capacity(config.peers.len());
    for (n, peer) in config.peers.iter().enumerate() {
        let key = format!("peer.{n}.identity");
        let public = admit(&peer.identity).map_err(|error| {
            config.error(&key, error.to_string(), "`sinew key show FILE` prints an identity")
        })?;
        if public.id() == own.id() {
            let hint = "give the peer's identity, not this node's";
            return Err(config.error(&key, "this is the node itself", hint).into());
        }
        let publishes = peer.publishes.iter().map(|topic| TopicId::of(topic)).collect();
        peers.push(Peer {
            name: peer.name.clone(),
            key: public,
            publishes: Publishes::Only(publishes),
        });
    }
    Enrolment::new(peers).map_err(|error| config.error("peer", error.to_string(), "").into())
}

/// Begins a life: from the boot counter on disk, or in development mode without a state directory
/// from the wall clock, which grows from one start to the next unless somebody sets it back.
fn own_life(config: &NodeConfig) -> Result<OwnLife, NodeError> {
    let epoch = match &config.state_dir {
        Some(dir) => {
            private_dir(dir).map_err(|(problem, hint)| {
                config.error("node.state_dir", format!("{}: {problem}", dir.display()), hint)
            })?;
            BootCounter::advance(&dir.join("boot")).map_err(|error| match error {
                BootError::File(error) => {
                    NodeError::Config(config.error("node.state_dir", error.to_string(), ""))
                }
                error => error.into(),
            })?
        }
        None => Epoch::new(clock::wall().as_unsigned()),
    };
    // Of this process as its panel has it, so that both say the same.
    let boot =
        BootId::new(ProcessIdentity::current().boot_id).ok_or_else(|| NodeError::System {
            action: "read /proc/sys/kernel/random/boot_id",
            error: std::io::Error::other("there is none, or it is not a UUID"),
        })?;
    let mut life = LifeId::default();
    getrandom::fill(&mut life.0).map_err(|error| NodeError::System {
        action: "draw random bytes",
        error: std::io::Error::other(error.to_string()),
    })?;
    Ok(OwnLife { epoch, life, boot })
}

/// Makes the directory, or checks that nobody else could put another boot counter into it; otherwise
/// says what is wrong and what to do.
fn private_dir(dir: &std::path::Path) -> Result<(), (String, String)> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let facts = made.and_then(|()| std::fs::metadata(dir)).map_err(|error| {
        (format!("cannot be used: {error}"), "name a directory that this node may make".to_owned())
    })?;
    ownership::check(&facts, dir, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Mode;

    #[test]
    fn a_life_names_the_boot_that_the_kernel_names() {
        let mut config = NodeConfig::new("robot");
        config.mode = Mode::Development;
        let printed = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let digits: String =
            own_life(&config).unwrap().boot.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, printed.trim().replace('-', ""));
    }
}
