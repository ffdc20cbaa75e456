//! Real-time primitives for control software on Linux: pinned threads that prove what the kernel
//! granted, lock-free hand-off between them, and a budget with a histogram on every execution.

pub mod clock;
mod files;
pub mod kernel;
pub mod latest;
pub mod memory;
pub mod pool;
pub mod power;
pub mod ring;
mod sync;
pub mod thread;
pub mod topology;
pub mod wait;
