//! What may still wait inside a node whose processor is slow.

use crate::host::Address;

/// Frames of all peers that may wait in a simulated node, and the least that one may have, as `sinew-io`
/// makes it.
const PEERS_RINGS: u32 = 256;
const PEER_RING_MIN: u32 = 16;
/// By how much what is counted here may be less than what waits: a node's turns do not begin where they are
/// counted from, and some go to what still lies in its socket.
const SLACK: u32 = 4;

/// The most that may wait in a node, by sender: what came, less what a node that serves its peers in turn has
/// done since. A peer that sent more than there is room for (as when it sends again what the node missed in
/// a stall) loses something of its own to nobody else's harm.
#[derive(Debug)]
pub(super) struct Backlog {
    of: Vec<u32>,
    peers: u32,
    turns: u32,
}

impl Backlog {
    /// Of a node with so many peers among `nodes`.
    pub(super) fn new(nodes: usize, peers: usize) -> Self {
        Self { of: vec![0; nodes], peers: peers.max(1) as u32, turns: 0 }
    }

    /// A frame came in the name of this peer.
    pub(super) fn came(&mut self, from: Address) {
        if let Some(count) = self.of.get_mut(usize::from(from)) {
            *count += 1;
        }
    }

    /// Whether there was room for all that came of this peer.
    pub(super) fn fits(&self, from: Address) -> bool {
        let room = (PEERS_RINGS / self.peers).max(PEER_RING_MIN);
        self.of.get(usize::from(from)).is_none_or(|count| *count <= room - SLACK)
    }

    /// The node had a turn in which it checked one signature: after as many as it has peers, and one for
    /// strangers and one for handshakes, each peer had its own.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        if self.turns >= self.peers + 2 {
            self.turns = 0;
            self.of.iter_mut().for_each(|count| *count = count.saturating_sub(1));
        }
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.of.fill(0);
        self.turns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_room_and_gets_it_back_by_turns() {
        for (peers, room) in [(3, 81), (16, 12), (30, 12)] {
            let mut backlog = Backlog::new(31, peers);
            (0..room).for_each(|_| backlog.came(1));
            assert!(backlog.fits(1), "{room} with {peers}");
            backlog.came(1);
            assert!(!backlog.fits(1) && backlog.fits(0));
            (0..=peers).for_each(|_| backlog.turn());
            assert!(!backlog.fits(1), "the peers, strangers and handshakes come before it again");
            backlog.turn();
            assert!(backlog.fits(1));
            backlog.came(1);
            backlog.clear();
            assert!(backlog.fits(1));
        }
    }
}
