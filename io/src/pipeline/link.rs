//! What the deliver stage tells the send stage about reliable streams, over one ring.

use crate::security::PeerIndex;
use crate::wire::Epoch;
use crate::wire::report::Entry;

/// Entries that may wait for the send stage.
pub(crate) const LINK_RING: usize = 256;

/// An entry of a report, and whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// The other end.
    pub(crate) peer: PeerIndex,
    /// Whether it is about an open topic, and so travels unsigned.
    pub(crate) open: bool,
    pub(crate) entry: Entry,
}

/// One thing for the send stage to act on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ToSend {
    /// An entry of ours, due now.
    Due(About),
    /// An entry that the peer sent in this life of its.
    Heard(Epoch, About),
}
