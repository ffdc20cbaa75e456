//! What may still wait inside a node whose processor is slow.

use crate::host::Address;

/// Frames of one peer that may wait in a simulated node at least: the least of its rings, as `sinew-io` has
/// it for simulated nodes.
const ROOM_OF_A_PEER: u32 = 16;

/// The most that may wait in a node, by sender: what came, less what a node that serves its peers in turn has
/// done since. A peer that sent more than there is room for (as when it sends again what the node missed in
/// a stall) loses something of its own to nobody else's harm.
#[derive(Debug)]
pub(super) struct Backlog {
    of: Vec<u32>,
    turns: usize,
}

impl Backlog {
    pub(super) fn new(peers: usize) -> Self {
        Self { of: vec![0; peers], turns: 0 }
    }

    /// A frame came in the name of this peer.
    pub(super) fn came(&mut self, from: Address) {
        if let Some(count) = self.of.get_mut(usize::from(from)) {
            *count += 1;
        }
    }

    /// Whether there was room for all that came of this peer.
    pub(super) fn fits(&self, from: Address) -> bool {
        self.of.get(usize::from(from)).is_none_or(|count| *count <= ROOM_OF_A_PEER)
    }

    /// The node had a turn in which it checked one signature: after as many as it has peers, and one for
    /// strangers and one for handshakes, each peer had its own.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        if self.turns >= self.of.len() + 2 {
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
        let mut backlog = Backlog::new(3);
        (0..ROOM_OF_A_PEER).for_each(|_| backlog.came(1));
        assert!(backlog.fits(1));
        backlog.came(1);
        assert!(!backlog.fits(1) && backlog.fits(0));
        (0..4).for_each(|_| backlog.turn());
        assert!(!backlog.fits(1), "three peers, strangers and handshakes come before it again");
        backlog.turn();
        assert!(backlog.fits(1));
        backlog.came(1);
        backlog.clear();
        assert!(backlog.fits(1));
    }
}
