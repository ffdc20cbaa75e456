//! What the relay did.

use std::fmt::Write as _;

use crate::scenario::Transport;
use crate::scenario::link::Counts;
use crate::scenario::network::Applied;

use super::tcp::GateCounts;
use super::udp::PortCounts;

/// What the relay did until now.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayReport {
    /// Of this format: 1.
    pub version: u32,
    /// `relay`.
    pub report: String,
    /// The scenario's.
    pub seed: u64,
    /// How long it ran.
    pub seconds: f64,
    /// One for each path.
    pub links: Vec<LinkReport>,
    /// The faults that were applied.
    pub faults: Applied,
    /// Kills and stalls of nodes that somebody else started.
    pub not_ours: u64,
    /// Nodes that ended although nobody asked them to.
    pub ended_by_themselves: Vec<String>,
}

/// What one direction did.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkReport {
    /// Who sends, or opens connections.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// What is carried.
    pub transport: Transport,
    /// The relay's address: what `from` is told of `to`.
    pub listen: std::net::SocketAddr,
    /// What the link did to datagrams.
    pub datagrams: Counts,
    /// What the socket saw beside.
    pub port: PortCounts,
    /// What became of connections.
    pub connections: GateCounts,
}

impl RelayReport {
    /// The link between two nodes.
    #[must_use]
    pub fn link(&self, from: &str, to: &str) -> Option<&LinkReport> {
        self.links.iter().find(|link| link.from == from && link.to == to)
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(format!("relay of {:.1} s, seed {}", self.seconds, self.seed));
        for link in &self.links {
            let (counts, port) = (&link.datagrams, &link.port);
            match link.transport {
                Transport::Udp => line(format!(
                    "{} → {}: {} came, {} handed on; {} lost, {} doubled, {} held back, {} corrupted, \
                     {} partitioned, {} found the queue full; {} from strangers, {} not taken by the \
                     kernel",
                    link.from,
                    link.to,
                    counts.offered,
                    counts.delivered,
                    counts.lost,
                    counts.duplicated,
                    counts.held_back,
                    counts.corrupted,
                    counts.partitioned,
                    counts.queue_full,
                    port.strangers,
                    port.not_sent
                )),
                Transport::Tcp => {
                    let counts = &link.connections;
                    line(format!(
                        "{} → {}: {} connections, {} reset, {} failed; {} bytes out, {} back",
                        link.from,
                        link.to,
                        counts.opened,
                        counts.reset,
                        counts.failed,
                        counts.bytes_out,
                        counts.bytes_back
                    ));
                }
            }
        }
        let faults = &self.faults;
        line(format!(
            "faults: {} partitions, {} changes of shape, {} resets, {} kills, {} stalls",
            faults.partitions, faults.shapes, faults.resets, faults.kills, faults.stalls
        ));
        if self.not_ours > 0 {
            line(format!(
                "{} kills or stalls were of nodes that the relay did not start: give them `run = […]`",
                self.not_ours
            ));
        }
        for node in &self.ended_by_themselves {
            line(format!("ended by itself: {node}"));
        }
        text
    }
}
