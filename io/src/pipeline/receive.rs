//! Receive: takes frames from the transport and drops what can be recognised cheaply.
//!
//! The filters, cheapest first: length, magic, version and kind, cluster, known key id, token
//! bucket. What passes is still unverified.

use super::{Drops, FRAMES_PER_POLL};
use crate::delivery::DropReason;
use crate::security::{Admission, Enrolment, PeerIndex};
use crate::simulation::{Branch, reached};
use crate::transport::Receive;
use crate::transport::buffer::{FramePool, FrameSlot};
use crate::wire::{ClusterTag, FRAME_MAX, FrameKind, RawFrame};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::panel::Counter;
use sinew_rt::ring::Producer;
use std::net::SocketAddr;
use std::sync::Arc;

/// A frame that passed the cheap filters: it has the form of one of ours, and it names an enrolled
/// peer as its sender. Whether that is true is for the verify stage to say.
#[derive(Debug)]
pub(crate) struct Unverified(pub(super) FrameSlot);

impl Unverified {
    pub(crate) fn slot(&self) -> &FrameSlot {
        &self.0
    }

    pub(crate) fn into_slot(self) -> FrameSlot {
        self.0
    }
}

/// Where frames go that passed.
pub(crate) struct ReceiveOutputs {
    /// By peer, from that peer's own address: verified first, each peer in its turn.
    pub(crate) peers: Vec<Producer<Unverified>>,
    /// In a peer's name from another address: verified when nothing else waits.
    pub(crate) strangers: Producer<Unverified>,
    /// Challenges and hellos, for housekeeping.
    pub(crate) handshakes: Producer<Unverified>,
}

/// The first stage.
pub(crate) struct ReceiveStage {
    pub(crate) transport: Box<dyn Receive>,
    pub(crate) pool: FramePool,
    pub(crate) filter: Filter,
}

/// Everything that one frame is judged by.
pub(crate) struct Filter {
    pub(crate) cluster: ClusterTag,
    pub(crate) peers: Arc<Enrolment>,
    /// Where each peer is, by the configuration, and what that hashes to.
    pub(crate) homes: Vec<SocketAddr>,
    pub(crate) admission: Admission,
    pub(crate) outputs: ReceiveOutputs,
    pub(crate) frames: Counter,
    pub(crate) errors: Counter,
    pub(crate) unreachable: Counter,
    pub(crate) drops: Drops,
}

/// Why the receive stage drops frames.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::TooShort,
    DropReason::TooLong,
    DropReason::BadMagic,
    DropReason::BadVersion,
    DropReason::BadKind,
    DropReason::OtherCluster,
    DropReason::UnknownKey,
    DropReason::RateLimited,
    DropReason::PoolEmpty,
    DropReason::QueueFull,
];

impl Stage for ReceiveStage {
    fn poll(&mut self, now: Nanos) -> Execution {
        let Self { transport, pool, filter } = self;
        let mut starved = 0;
        let mut accept = |slot| filter.judge(slot, now);
        let received = transport.receive(pool, now, &mut accept, &mut starved);
        if starved > 0 {
            reached(Branch::PoolEmpty);
            filter.frames.add(starved);
            filter.drops.add(None, DropReason::PoolEmpty, starved, now);
        }
        if received.errors > 0 {
            filter.errors.add(received.errors);
        }
        if received.unreachable > 0 {
            filter.unreachable.add(received.unreachable);
        }
        match received.frames {
            0 if !received.more => Execution::Idle,
            _ => Execution::Worked { released: now },
        }
    }
}

impl Filter {
    /// Sends a frame on, or counts why not.
    pub(crate) fn judge(&mut self, slot: FrameSlot, now: Nanos) {
        self.frames.increment();
        if let Err((source, reason)) = self.pass(slot, now) {
            self.drops.count(source, reason, now);
        }
    }

    fn pass(
        &mut self,
        mut slot: FrameSlot,
        now: Nanos,
    ) -> Result<(), (Option<PeerIndex>, DropReason)> {
        if usize::from(slot.len) > FRAME_MAX {
            return Err((None, DropReason::TooLong));
        }
        let frame = RawFrame::parse(slot.frame()).map_err(|error| (None, error.into()))?;
        if frame.header.cluster() != self.cluster {
            return Err((None, DropReason::OtherCluster));
        }
        let (key, kind) = (frame.header.sender(), frame.kind);
        let (peer, _) = self.peers.find(key).ok_or((None, DropReason::UnknownKey))?;
        let at_home = self.homes[peer.get()] == slot.source;
        (slot.peer, slot.at_home) = (peer, at_home);
        let source = slot.charged_to();
        if !at_home {
            reached(Branch::FromElsewhere);
        }
        if !self.admission.admit(source, now) {
            reached(match source {
                Some(_) => Branch::RateLimitedPeer,
                None => Branch::RateLimitedStranger,
            });
            return Err((source, DropReason::RateLimited));
        }
        let output = match (kind, at_home) {
            (FrameKind::Handshake, _) => &mut self.outputs.handshakes,
            (_, true) => &mut self.outputs.peers[peer.get()],
            (_, false) => &mut self.outputs.strangers,
        };
        output.push(Unverified(slot)).map_err(|_| {
            reached(Branch::ReceiveRingFull);
            (source, DropReason::QueueFull)
        })
    }
}

const _: () = assert!(crate::transport::BATCH <= FRAMES_PER_POLL);
