//! What may be delivered: at most once, in its own life, and with a name for every refusal.

#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod drop_reason;
pub(crate) mod held;
pub mod outcome;
pub(crate) mod reader;
pub mod streams;
#[cfg(test)]
mod tests;
pub mod window;
pub(crate) mod writer;

pub use drop_reason::DropReason;
pub use outcome::Outcome;
pub use streams::{Pending, StreamTable, StreamTableError};
pub use window::{Verdict, Window};
