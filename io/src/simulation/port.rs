//! The socket of a simulated node: a bounded queue of datagrams in each direction.

use crate::security::PeerIndex;
use crate::transport::buffer::{Datagram, FramePool, FrameSlot};
use crate::transport::park::SocketPark;
use crate::transport::{BATCH, Endpoint, Receive, Received, Transmit};
use sinew_rt::clock::Nanos;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Datagrams that wait for the node; what comes beyond that is lost, as in a socket's buffer.
const INBOX: usize = 256;

/// Datagrams that wait for the network: more than a poll sends.
const OUTBOX: usize = BATCH * crate::security::enrolment::PEERS_MAX;

#[derive(Default)]
struct Queues {
    inbox: VecDeque<Datagram>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// The network's side of the socket. The lock is never contended: transports must be `Send`, and
/// this one is used on one thread.
#[derive(Clone, Default)]
pub(super) struct Port(Arc<Mutex<Queues>>);

impl Port {
    /// The node's side of the socket at `local`, with these peers.
    pub(super) fn endpoint(&self, local: SocketAddr, peers: &[SocketAddr]) -> Endpoint {
        let transmitter = || Box::new(Outward { port: self.clone(), peers: peers.to_vec() });
        Endpoint {
            local,
            lane_transmitter: transmitter(),
            housekeeping_transmitter: transmitter(),
            receiver: Box::new(Inward(self.clone())),
        }
    }

    /// Puts a datagram into the inbox; `false` when it is full.
    pub(super) fn put(&self, source: SocketAddr, sent: &[u8]) -> bool {
        let mut queues = self.queues();
        if queues.inbox.len() >= INBOX {
            return false;
        }
        queues.inbox.push_back(Datagram::new(source, sent));
        true
    }

    /// The oldest datagram that the node has sent, and to whom.
    pub(super) fn sent(&self) -> Option<(SocketAddr, Vec<u8>)> {
        self.queues().outbox.pop_front()
    }

    /// Whether datagrams wait for the node.
    pub(super) fn is_waiting(&self) -> bool {
        !self.queues().inbox.is_empty()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inward(Port);

impl Receive for Inward {
    fn receive(
        &mut self,
        pool: &FramePool,
        now: Nanos,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> Received {
        let mut queues = self.0.queues();
        let mut frames = 0;
        while frames < BATCH {
            let Some(datagram) = queues.inbox.pop_front() else {
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
        Received { frames, more: !queues.inbox.is_empty(), ..Received::default() }
    }

    fn attach(&mut self, _: &mut SocketPark) -> io::Result<()> {
        Ok(())
    }
}

struct Outward {
    port: Port,
    peers: Vec<SocketAddr>,
}

impl Transmit for Outward {
    fn send(&mut self, peer: PeerIndex, frames: &[&[u8]]) -> usize {
        let Some(peer) = self.peers.get(peer.get()) else { return 0 };
        let outbox = &mut self.port.queues().outbox;
        let room = OUTBOX.saturating_sub(outbox.len());
        let taken = frames.iter().take(room);
        outbox.extend(taken.map(|frame| (*peer, frame.to_vec())));
        room.min(frames.len())
    }
}
