//! A node without threads: its real stages and greeter, polled by whoever holds it.

use super::port::Port;
use super::set_wall_clock;
use crate::delivery::DropReason;
use crate::node::simulated::{Simulated, connect};
use crate::node::{NodeBuilder, NodeError, StageName};
use crate::random::SplitMix64;
use crate::security::hello::{OwnLife, PeerStatus};
use crate::security::{DidError, PeerIndex, PublicKey};
use crate::wire::{BootId, Epoch, LifeId};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::panel::Panel;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Which life of a node begins, and where its randomness comes from.
#[derive(Clone, Copy, Debug)]
pub struct SimLife {
    /// The boot counter, which the simulator keeps.
    pub epoch: Epoch,
    /// What a real start draws at random.
    pub life: LifeId,
    /// The boot of the simulated host: nodes of one boot share a clock.
    pub boot: BootId,
    /// Of the generator behind nonces.
    pub seed: u64,
}

/// One node's real stages without threads. Dropping it is a crash.
pub struct SimNode {
    port: Port,
    node: Simulated,
    random: SplitMix64,
    challenge_due: Option<Nanos>,
    /// By stage; they are not polled.
    stalled: [bool; 4],
    /// How far its wall clock has jumped.
    wall_clock: Nanos,
}

impl std::fmt::Debug for SimNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimNode")
            .field("challenge_due", &self.challenge_due)
            .finish_non_exhaustive()
    }
}

impl SimNode {
    /// Begins a life of the node that `builder` describes, at `address`. It needs an identity; key
    /// file, state directory, transport and everything about threads count for nothing.
    ///
    /// # Errors
    /// What a real start says of the same configuration.
    pub fn start(
        builder: NodeBuilder,
        life: SimLife,
        address: SocketAddr,
        now: Nanos,
    ) -> Result<Self, NodeError> {
        let port = Port::default();
        let peers: Vec<_> = builder.config().peers.iter().map(|peer| peer.address).collect();
        let endpoint = port.endpoint(address, &peers);
        let own = OwnLife { epoch: life.epoch, life: life.life, boot: life.boot };
        let node = connect(builder, own, endpoint, admitted, now)?;
        let random = SplitMix64::new(life.seed);
        Ok(Self {
            port,
            node,
            random,
            challenge_due: Some(now),
            stalled: [false; 4],
            wall_clock: Nanos::ZERO,
        })
    }

    /// Puts a datagram into the socket's buffer; `false` when that is full and the datagram is lost.
    pub fn receive(&mut self, source: SocketAddr, bytes: &[u8]) -> bool {
        self.port.put(source, bytes)
    }

    /// Lets the greeter and each stage work once, in the order of a fused lane: `true` if any did, and
    /// may have more to do. A stage that stalls is left out.
    pub fn poll(&mut self, now: Nanos) -> bool {
        set_wall_clock(self.wall_clock);
        let Simulated { stages, programs, .. } = &mut self.node;
        let mut worked =
            !stages.greeter.is_idle() || self.challenge_due.is_some_and(|at| at <= now);
        let Self { random, stalled, .. } = self;
        self.challenge_due = stages.greeter.turn(now, &mut |bytes| fill(random, bytes));
        let mut run = |name: StageName, stage: &mut dyn Stage| {
            worked |= !stalled[name as usize] && stage.poll(now) != Execution::Idle;
        };
        run(StageName::Receive, &mut stages.receive);
        run(StageName::Verify, &mut stages.verify);
        run(StageName::Deliver, &mut stages.deliver);
        programs.iter_mut().for_each(|stage| run(StageName::Send, &mut **stage));
        run(StageName::Send, &mut stages.send);
        worked
    }

    /// Lets the node's wall clock jump, which must not matter.
    pub fn step_wall_clock(&mut self, by: Nanos) {
        self.wall_clock += by;
    }

    /// Lets a stage stand still from now on, or run again; the stages of the program's own stand with
    /// the one that sends.
    pub fn stall(&mut self, stage: StageName, stalled: bool) {
        self.stalled[stage as usize] = stalled;
    }

    /// When something is due though nothing comes. Datagrams, messages to publish and values that were
    /// read make work before that.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let Simulated { stages, programs, .. } = &self.node;
        let of = |name: StageName, stage: &dyn Stage| {
            stage.next_deadline().filter(|_| !self.stalled[name as usize])
        };
        let own = [
            of(StageName::Receive, &stages.receive),
            of(StageName::Verify, &stages.verify),
            of(StageName::Deliver, &stages.deliver),
            of(StageName::Send, &stages.send),
        ];
        let programs = programs.iter().filter_map(|stage| of(StageName::Send, &**stage));
        own.into_iter().flatten().chain(programs).chain(self.challenge_due).min()
    }

    /// Whether datagrams wait in the socket's buffer.
    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.port.is_waiting()
    }

    /// The oldest datagram that was sent and not yet taken from here, and to whom.
    pub fn sent(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.port.sent()
    }

    /// How many frames were dropped, by [`DropReason::index`], in all stages and by all senders.
    #[must_use]
    pub fn drops(&self) -> [u64; DropReason::COUNT] {
        let stages = &self.node.stages;
        let all = [
            &stages.receive.filter.drops,
            &stages.verify.drops,
            &stages.deliver.drops,
            &stages.greeter.drops,
        ];
        let mut counts = [0; DropReason::COUNT];
        for (reason, count) in all.into_iter().flat_map(|drops| drops.by_reason()) {
            counts[reason.index()] += count;
        }
        counts
    }

    /// The slots of the pool that are free, and all that there are.
    #[must_use]
    pub fn slots(&self) -> (usize, usize) {
        let pool = &self.node.stages.receive.pool;
        (pool.free(), pool.capacity())
    }

    /// What the handshake knows of the peer at this place in the configuration.
    #[must_use]
    pub fn peer(&self, index: u16) -> Option<PeerStatus> {
        self.node.stages.greeter.handshake.status(PeerIndex::new(index))
    }

    /// The panel, which is in no file.
    #[must_use]
    pub fn panel(&self) -> &Panel {
        &self.node.panel
    }
}

/// Keys that are remembered, so that a simulation admits each once and not for each life.
const KEYS: usize = 1_024;

thread_local! {
    static ADMITTED: RefCell<BTreeMap<String, PublicKey>> = const { RefCell::new(BTreeMap::new()) };
}

fn admitted(did: &str) -> Result<PublicKey, DidError> {
    ADMITTED.with_borrow_mut(|known| {
        if let Some(key) = known.get(did) {
            return Ok(*key);
        }
        let key = PublicKey::from_did(did)?;
        if known.len() < KEYS {
            known.insert(did.to_owned(), key);
        }
        Ok(key)
    })
}

/// What a real node asks the kernel for.
fn fill(random: &mut SplitMix64, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}
