//! What a process says it sent and got, written so that a kill at any instant leaves it readable, and
//! an independent checker of what several processes say.
//!
//! A ledger is a text file that is only ever appended to, one record a line:
//!
//! ```text
//! 0 life arm 8f3a19d2c47b60e1 3 1200450917 #5d0c9a11
//! 1 writes reliable cmd #90ab12cd
//! 2 sent cmd 1 77e1c0ffee120a34 1200460023 #c3d2e1f0
//! ```
//!
//! First the record's number in this life of the process, then what happened, and at last the first 32
//! bits of BLAKE3 over all before it. A line is one `write`; what a kill tore off is the last line of a
//! life, and nothing else may be damaged or missing. Nothing here shares code with the protocol.

pub mod check;
pub mod command;
pub mod read;
pub mod record;
pub mod report;
pub mod write;

#[cfg(test)]
mod tests;
