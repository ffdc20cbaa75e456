//! The simulator of Sinew, and what puts real processes through the same faults: scenarios, a relay,
//! ledgers and their checker.

pub mod ledger;
pub mod relay;
pub mod scenario;
