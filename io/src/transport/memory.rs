//! A network inside one process: bounded queues between nodes, with the contract of a datagram
//! socket. For tests and for examples that need no ports.

use super::buffer::{Datagram, FramePool, FrameSlot};
use super::park::SocketPark;
use super::{BATCH, Endpoint, Receive, Received, Transmit, TransportError};
use crate::security::PeerIndex;
use crossbeam::queue::ArrayQueue;
use sinew_rt::clock::Nanos;
use sinew_rt::wait::Doorbell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Datagrams that wait for one node; what comes beyond that is lost, as in a socket's buffer.
const QUEUE_DATAGRAMS: usize = 256;

/// A network to which nodes bind by address. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    ports: Arc<Mutex<BTreeMap<SocketAddr, Weak<Port>>>>,
}

#[derive(Debug)]
struct Port {
    queue: ArrayQueue<Datagram>,
    doorbell: OnceLock<Arc<Doorbell>>,
}

impl MemoryNetwork {
    /// A network with no nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bind(
        &self,
        address: SocketAddr,
        peers: &[SocketAddr],
    ) -> Result<Endpoint, TransportError> {
        let port =
            Arc::new(Port { queue: ArrayQueue::new(QUEUE_DATAGRAMS), doorbell: OnceLock::new() });
        {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            if ports.get(&address).is_some_and(|port| port.strong_count() > 0) {
                return Err(TransportError::InUse { address });
            }
            ports.insert(address, Arc::downgrade(&port));
        }
        let transmitter = || {
            let links = peers
                .iter()
                .map(|peer| Link { network: self.clone(), peer: *peer, port: Weak::new() })
                .collect();
            Box::new(MemoryTransmitter { local: address, links })
        };
        Ok(Endpoint {
            local: address,
            lane_transmitter: transmitter(),
            housekeeping_transmitter: transmitter(),
            receiver: Box::new(MemoryReceiver { port }),
        })
    }

    /// Puts a datagram into the queue of the node at `to`, as anybody on a real network could:
    /// for tests of what a node refuses. Returns whether there was a node with room for it.
    pub fn inject(&self, source: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        self.find(to).upgrade().is_some_and(|port| port.put(source, bytes))
    }

    fn find(&self, address: SocketAddr) -> Weak<Port> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(&address).cloned().unwrap_or_default()
    }
}

impl Port {
    fn put(&self, source: SocketAddr, bytes: &[u8]) -> bool {
        let taken = self.queue.push(Datagram::new(source, bytes)).is_ok();
        if let (true, Some(doorbell)) = (taken, self.doorbell.get()) {
            doorbell.ring();
        }
        taken
    }
}

struct MemoryReceiver {
    port: Arc<Port>,
}

impl Receive for MemoryReceiver {
    fn receive(
        &mut self,
        pool: &FramePool,
        now: Nanos,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> Received {
        let mut frames = 0;
        while frames < BATCH {
            let Some(datagram) = self.port.queue.pop() else {
                return Received { frames, ..Received::default() };
            };
            frames += 1;
            let Some(mut slot) = datagram.into_slot(pool) else {
                *starved += 1;
                continue;
            };
            slot.received_at = now;
            accept(slot);
        }
        Received { frames, more: true, ..Received::default() }
    }

    fn attach(&mut self, park: &mut SocketPark) -> std::io::Result<()> {
        // A second lane cannot own the same receiver, so the cell is empty.
        let _ = self.port.doorbell.set(park.doorbell());
        Ok(())
    }
}

struct MemoryTransmitter {
    local: SocketAddr,
    links: Vec<Link>,
}

struct Link {
    network: MemoryNetwork,
    peer: SocketAddr,
    port: Weak<Port>,
}

impl Transmit for MemoryTransmitter {
    fn send(&mut self, peer: PeerIndex, frames: &[&[u8]]) -> usize {
        let Some(link) = self.links.get_mut(peer.get()) else { return 0 };
        let port = link.port.upgrade().or_else(|| {
            // The peer started later, or anew.
            link.port = link.network.find(link.peer);
            link.port.upgrade()
        });
        let Some(port) = port else { return 0 };
        frames.iter().take_while(|frame| port.put(self.local, frame)).count()
    }
}
