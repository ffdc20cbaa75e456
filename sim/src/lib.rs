//! The simulator: whole nodes in virtual time, under faults that a seed draws, with every promise checked
//! after every event.
//!
//! ```text
//! seed → plan → world ─ nodes (the real stages), network, disks, clocks, programs, a liar
//!                 └──── checker: what was published, heard and on the wire, against what is promised
//! ```
//!
//! One seed is one run, everywhere: nothing in it depends on threads, on real time, on addresses or on the
//! order of a hash map, and the hash over all events says so ([`trace`]). A run that fails is made smaller until
//! nothing can be left out ([`shrink`]), drawn as a page ([`page`]), and kept ([`past`]).

pub mod campaign;
pub mod checker;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod host;
pub mod ledger;
pub mod liar;
pub mod memory;
pub mod network;
pub mod page;
pub mod past;
pub mod plan;
pub mod queue;
pub mod random;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod timeline;
pub mod trace;
pub mod world;
