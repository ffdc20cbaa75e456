//! Whether a peer keeps to its contract with a node, by when its frames arrive.

use sinew_rt::clock::Nanos;

use crate::host::Address;
use crate::plan::{PEER_BURST, PEER_PER_S};

const FRAME: u64 = 1_000_000_000;
/// By how many frames a node may think otherwise: its clock has a rate of its own.
const SLACK: u64 = 4;

/// What a node has taken of each peer lately: a link that held many frames back and lets all of them go at once
/// makes a burst of what was sent evenly, and what is beyond the contract may be dropped. Counted here once more, not
/// with the bucket that nodes have: what a broken one drops has to be seen.
#[derive(Debug)]
pub(super) struct Contract {
    /// In billionths of a frame, and since when.
    spent: Vec<(u64, Nanos)>,
    /// What came while the node did not run, which it takes all at once when it does.
    waiting: Vec<u64>,
}

impl Contract {
    /// Of a node among `nodes`.
    pub(super) fn new(nodes: usize) -> Self {
        Self { spent: vec![(0, Nanos::ZERO); nodes], waiting: vec![0; nodes] }
    }

    /// A frame came in the name of this peer.
    pub(super) fn came(&mut self, now: Nanos, from: Address, runs: bool) {
        match self.waiting.get_mut(usize::from(from)) {
            Some(waiting) if !runs => *waiting += 1,
            _ => self.take(now, from, 1),
        }
    }

    /// The node takes what waited.
    pub(super) fn runs_again(&mut self, now: Nanos) {
        for from in 0..self.waiting.len() {
            let waiting = std::mem::take(&mut self.waiting[from]);
            self.take(now, from as Address, waiting);
        }
    }

    fn take(&mut self, now: Nanos, from: Address, frames: u64) {
        let Some((spent, at)) = self.spent.get_mut(usize::from(from)) else { return };
        let earned = (now - *at).as_unsigned().saturating_mul(PEER_PER_S.into());
        // What finds nothing left is dropped, and costs nothing.
        *spent = (spent.saturating_sub(earned) + frames * FRAME).min(u64::from(PEER_BURST) * FRAME);
        *at = now;
    }

    /// Whether all that came last was within the contract.
    pub(super) fn is_kept(&self, from: Address) -> bool {
        let most = (u64::from(PEER_BURST) - SLACK) * FRAME;
        self.spent.get(usize::from(from)).is_none_or(|(spent, _)| *spent <= most)
    }

    /// A node that starts has taken nothing of anybody.
    pub(super) fn clear(&mut self) {
        self.spent.fill((0, Nanos::ZERO));
        self.waiting.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: u64 = PEER_BURST as u64 - SLACK;

    #[test]
    fn a_burst_is_within_the_contract_once_and_each_peer_has_its_own() {
        let mut contract = Contract::new(2);
        let now = Nanos::from_secs(5);
        (0..WITHIN).for_each(|_| contract.came(now, 1, true));
        assert!(contract.is_kept(1));
        contract.came(now, 1, true);
        assert!(!contract.is_kept(1) && contract.is_kept(0));
        // However much more came, it is as if the burst were just spent.
        (0..10_000).for_each(|_| contract.came(now, 1, true));
        let frame = Nanos::new(1_000_000_000 / i64::from(PEER_PER_S));
        let earned = Nanos::new(frame.as_nanos() * (SLACK as i64 + 1));
        contract.came(now + earned - Nanos::new(1), 1, true);
        assert!(!contract.is_kept(1));
        (0..SLACK).for_each(|_| contract.came(now + earned + earned, 1, true));
        assert!(contract.is_kept(1));
        contract.clear();
        assert!(contract.is_kept(1));
    }

    #[test]
    fn what_came_while_the_node_stood_still_counts_when_it_runs_again() {
        let mut contract = Contract::new(2);
        (0..WITHIN).for_each(|n| contract.came(Nanos::from_millis(4 * n as i64), 1, false));
        assert!(contract.is_kept(1));
        let now = Nanos::from_secs(5);
        contract.runs_again(now);
        assert!(contract.is_kept(1));
        contract.came(now, 1, true);
        assert!(!contract.is_kept(1));
    }
}
