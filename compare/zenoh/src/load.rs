//! The message: 256 bytes, as the one that `sinew bench pipeline` sends, with the same times in it.

use crate::Failure;

/// Bytes of the message.
pub(crate) const LEN: usize = 256;
/// Messages of a latency before those that are counted.
pub(crate) const WARM_UP: u64 = 200;
/// Seconds of a throughput before those that are counted.
pub(crate) const WARM_UP_NS: i64 = 500_000_000;
/// What is published on.
pub(crate) const KEY: &str = "bench/ping";

/// What a message of the latency says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// `CLOCK_MONOTONIC` just before it was handed to Zenoh.
    pub(crate) sent_at_ns: i64,
    /// From 0.
    pub(crate) number: u64,
    /// How many there will be.
    pub(crate) count: u64,
}

impl Stamp {
    /// Into the message.
    pub(crate) fn write(self, message: &mut [u8; LEN]) {
        message[..8].copy_from_slice(&self.sent_at_ns.to_le_bytes());
        message[8..16].copy_from_slice(&self.number.to_le_bytes());
        message[16..24].copy_from_slice(&self.count.to_le_bytes());
    }

    /// Out of the message; `None` if it is not of that length.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let message: &[u8; LEN] = message.try_into().ok()?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&message[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Some(Self { sent_at_ns: number(0).cast_signed(), number: number(8), count: number(16) })
    }
}

/// Everything arrived, or an error that says how much.
pub(crate) fn all_of(received: u64, sent: u64) -> Result<(), Failure> {
    if received == sent { Ok(()) } else { Err(Failure::Lost { received, sent }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_only_from_a_whole_message() {
        let stamp = Stamp { sent_at_ns: -7, number: 3, count: u64::MAX };
        let mut message = [0xAA; LEN];
        stamp.write(&mut message);
        assert_eq!(Stamp::read(&message), Some(stamp));
        assert_eq!(Stamp::read(&message[..LEN - 1]), None);
    }
}
