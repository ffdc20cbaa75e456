//! The message that is measured: 256 bytes with the times that its latency is counted from.

use sinew_io::message::Message;
use sinew_rt::clock::Nanos;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the message.
pub(crate) const LOAD_LEN: usize = size_of::<Load>();
const _: () = assert!(LOAD_LEN == 256);

/// The message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Load {
    /// `CLOCK_MONOTONIC` just before it was sent.
    sent_at_ns: i64,
    /// When the schedule wanted it sent.
    due_at_ns: i64,
    number: u64,
    padding: [u8; 232],
}

impl Load {
    pub(crate) fn new(number: u64, due_at: Nanos, sent_at: Nanos) -> Self {
        Self {
            sent_at_ns: sent_at.as_nanos(),
            due_at_ns: due_at.as_nanos(),
            number,
            padding: [number as u8; 232],
        }
    }

    pub(crate) fn sent_at(&self) -> Nanos {
        Nanos::new(self.sent_at_ns)
    }

    pub(crate) fn due_at(&self) -> Nanos {
        Nanos::new(self.due_at_ns)
    }
}

impl Message for Load {
    const NAME: &'static str = "BenchLoad@1";
}
