//! Envelopes, identities, verified delivery and transports on pinned real-time lanes.

pub mod message;
