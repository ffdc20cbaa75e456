//! A frame whose envelope was verified, and the one way to get one.

use super::receive::Unverified;
use crate::delivery::DropReason;
use crate::security::{PeerIndex, Verified};
use crate::simulation::{Fault, planted};
use crate::transport::buffer::FrameSlot;
use crate::wire::{Envelope, EnvelopeHeader, FRAME_HEADER_LEN, RawFrame};
use sinew_rt::clock::Nanos;
use zerocopy::FromBytes;

/// A frame whose envelope is genuine. Only [`VerifiedFrame::prove`] makes one.
#[derive(Debug)]
pub(crate) struct VerifiedFrame {
    slot: FrameSlot,
    /// The time of sending on this node's clock, never later than the time of receipt.
    sent_at: Nanos,
}

/// What a verified frame says, where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(super) header: &'a EnvelopeHeader,
    pub(super) payload: &'a [u8],
}

impl VerifiedFrame {
    /// The frame, if `judge` lets its envelope pass: with the verifier's proof, which the lifetime
    /// binds to this very envelope, and the time of sending on this node's clock.
    pub(super) fn prove(
        frame: Unverified,
        judge: impl for<'a> FnOnce(Envelope<'a>) -> Result<(Verified<'a>, Nanos), DropReason>,
    ) -> Result<Self, DropReason> {
        let slot = frame.into_slot();
        let envelope = RawFrame::parse(slot.frame()).and_then(RawFrame::envelope);
        let envelope = envelope.map_err(|_| DropReason::Malformed)?;
        let (_proof, sent_at) = match judge(envelope) {
            Ok(judged) => judged,
            Err(reason) => {
                if planted(Fault::SlotsLeaked) {
                    std::mem::forget(slot);
                }
                return Err(reason);
            }
        };
        Ok(Self { slot, sent_at })
    }

    /// The genuine part of the frame; `None` cannot happen, since it decoded before, and is counted if
    /// it does.
    #[inline]
    pub(crate) fn contents(&self) -> Option<Contents<'_>> {
        let body = self.slot.frame().get(FRAME_HEADER_LEN..)?;
        let (header, rest) = EnvelopeHeader::ref_from_prefix(body).ok()?;
        Some(Contents { header, payload: rest.get(..header.payload_len())? })
    }

    pub(crate) fn sent_at(&self) -> Nanos {
        self.sent_at
    }

    pub(crate) fn received_at(&self) -> Nanos {
        self.slot.received_at
    }

    /// The enrolled peer whose envelope it is.
    pub(crate) fn peer(&self) -> PeerIndex {
        self.slot.peer
    }

    pub(crate) fn charged_to(&self) -> Option<PeerIndex> {
        self.slot.charged_to()
    }
}
