//! A node for the simulator: connected as every other, without threads, sockets and files.

use super::NodeError;
use super::builder::NodeBuilder;
use super::stages::{Parts, Room, Seats, Stages};
use super::who::Who;
use crate::security::hello::OwnLife;
use crate::security::{DidError, PublicKey};
use crate::transport::Endpoint;
use sinew_rt::clock::Nanos;
use sinew_rt::lane::Stage;
use sinew_rt::panel::{Panel, PanelSpec};
use std::path::PathBuf;

/// Frames of all peers that may wait for the verify stage, and the least that one may have: less than
/// in a real node with many peers, so that thousands of nodes are made quickly.
const PEERS_RINGS: usize = 256;
const PEER_RING_MIN: usize = 16;

/// Frames that wait in all readers together: 640 kB. A real node has room for 64 in each.
const HELD: usize = 512;

/// What there is of such a node.
pub(crate) struct Simulated {
    pub(crate) stages: Stages,
    /// The program's own stages.
    pub(crate) programs: Vec<Box<dyn Stage>>,
    pub(crate) panel: Panel,
}

/// Makes the stages of `builder`'s node in its life `own`. `admit` reads identities.
pub(crate) fn connect(
    mut builder: NodeBuilder,
    own: OwnLife,
    endpoint: Endpoint,
    admit: impl Fn(&str) -> Result<PublicKey, DidError>,
    now: Nanos,
) -> Result<Simulated, NodeError> {
    // The simulator keeps the boot counter.
    builder.config.state_dir.get_or_insert_with(PathBuf::new);
    builder.config.validate()?;
    let who = Who::living(&mut builder, admit, |_| Ok(own))?;
    let config = &builder.config;
    let peers = config.peers.len();
    // Memory that is never touched costs next to nothing, so there is room for whatever registers.
    let mut spec = PanelSpec::new(&config.name);
    spec.probes = 0;
    spec.histograms = 4 * config.topics.len() as u32 + 16;
    spec.values = 1_024;
    let panel = Panel::anonymous(&spec)?;
    let mut room = Room::of_node(peers, true);
    room.peer = (PEERS_RINGS / peers.max(1)).max(PEER_RING_MIN);
    room.ready = 0;
    room.held = HELD;
    let stages = Parts {
        config,
        who,
        subscriptions: builder.subscriptions,
        publications: builder.publications,
        events: builder.events,
        endpoint,
        panel: &panel,
        seats: Seats::default(),
        room,
        // By reason is enough: a thousand counters more would take longer to make than all the rest.
        names: &[],
        now,
    }
    .connect()?;
    let programs = builder.stages.into_iter().map(|(_, _, stage)| stage).collect();
    Ok(Simulated { stages, programs, panel })
}
