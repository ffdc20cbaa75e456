//! Real-time primitives for control software on Linux: pinned threads that prove what the kernel
//! granted, lock-free hand-off between them, and a budget with a histogram on every execution.

pub mod clock;
pub mod guard;
pub mod health;
pub mod histogram;
pub mod ladder;
pub mod log;
pub mod panel;
pub mod sequence_lock;
pub mod supervisor;
