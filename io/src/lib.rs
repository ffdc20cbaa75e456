//! Envelopes, identities and verified delivery between nodes.

pub mod delivery;
pub mod message;
pub mod node;
mod pipeline;
pub mod security;
pub mod transport;
pub mod wire;
