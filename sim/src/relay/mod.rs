//! Real processes under the faults of a scenario: a relay that stands between them, and a peer that
//! sends, receives and keeps a ledger.
//!
//! Each node is told an address of the relay where its peer's should be. The relay has one UDP socket for
//! each direction: what comes there goes through the link's model and leaves by the socket of the way
//! back, so that the receiver sees it come from where it believes the sender to be. TCP connections are
//! accepted, opened anew to the other side, and their bytes delayed, clamped, stalled or cut.

mod children;
pub mod command;
pub mod peer;
mod report;
mod tcp;
mod timer;
mod turn;
mod udp;

pub use report::{LinkReport, RelayReport};
pub use turn::{Relay, RelayError};
