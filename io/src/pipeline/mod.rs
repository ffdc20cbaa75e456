//! The four stages of a node, in the order in which a message meets them.
//!
//! ```text
//! socket → receive → [ring] → verify → [ring] → deliver → subscriber (newest-value cell or queue)
//! publisher ring → send → socket
//! ```
//!
//! A stage owns its state alone. Stages talk through rings, so the same code runs on one lane, on
//! four, and in a test without any thread.

mod counters;
pub(crate) mod deliver;
pub(crate) mod link;
pub(crate) mod receive;
pub(crate) mod reliable;
pub(crate) mod resend;
pub(crate) mod send;
#[cfg(test)]
mod tests;
mod verified;
pub(crate) mod verify;
pub(crate) mod watch;

pub(crate) use counters::{Drops, STRANGER};

/// Most frames that one poll of a stage takes from its input: the bound behind its budget. (The send stage has
/// its own for reliable topics, counted in frames that leave.)
pub(crate) const FRAMES_PER_POLL: usize = 32;
