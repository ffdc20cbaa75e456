//! A frame whose envelope was verified, and the one way to get one.

use super::receive::Unverified;
use crate::delivery::DropReason;
use crate::security::{PeerIndex, Verified};
use crate::simulation::{Fault, planted};
use crate::transport::buffer::FrameSlot;
use crate::wire::{Envelope, EnvelopeHeader, FRAME_HEADER_LEN, Frame, decode};
use sinew_rt::clock::Nanos;
use zerocopy::FromBytes;

/// A frame whose envelope is genuine. Only [`VerifiedFrame::prove`] makes one.
#[derive(Debug)]
pub(crate) struct VerifiedFrame {
    slot: FrameSlot,
    /// The time of sending on this node's clock, never later than the time of receipt.
    sent_at: Nanos,
}

impl VerifiedFrame {
    /// The frame, if `judge` lets its envelope pass: with the verifier's proof, which the lifetime
    /// binds to this very envelope, and the time of sending on this node's clock.
    pub(super) fn prove(
        frame: Unverified,
        judge: impl for<'a> FnOnce(Envelope<'a>) -> Result<(Verified<'a>, Nanos), DropReason>,
    ) -> Result<Self, DropReason> {
        let slot = frame.into_slot();
        let Ok(Frame::Clear(envelope)) = decode(slot.frame()) else {
            return Err(DropReason::Malformed);
        };
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

    /// The envelope's header; `None` cannot happen, and is counted if it does.
    pub(crate) fn header(&self) -> Option<&EnvelopeHeader> {
        let body = self.slot.frame().get(FRAME_HEADER_LEN..)?;
        EnvelopeHeader::ref_from_prefix(body).ok().map(|(header, _)| header)
    }

    /// The envelope; `None` cannot happen, since it decoded before, and is counted if it does.
    pub(crate) fn envelope(&self) -> Option<Envelope<'_>> {
        match decode(self.slot.frame()) {
            Ok(Frame::Clear(envelope)) => Some(envelope),
            _ => None,
        }
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
