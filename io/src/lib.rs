//! Envelopes, identities and verified delivery between nodes.

pub mod delivery;
pub mod security;
pub mod wire;
