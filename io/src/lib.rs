//! Envelopes, identities and verified delivery between nodes.

pub mod delivery;
pub mod message;
mod named;
pub mod node;
mod pipeline;
mod random;
pub mod security;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(not(feature = "simulation"))]
mod simulation;
pub mod transport;
pub mod wire;
