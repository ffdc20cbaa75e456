//! Real-time primitives for control software on Linux: pinned threads that prove what the kernel
//! granted, lock-free hand-off between them, and a budget with a histogram on every execution.

pub mod clock;
pub mod files;
pub mod guard;
pub mod health;
pub mod histogram;
pub mod keep_awake;
pub mod kernel;
pub mod ladder;
pub mod lane;
pub mod latest;
pub mod log;
pub mod memory;
pub mod panel;
pub mod pool;
pub mod power;
pub mod ring;
#[cfg(loom)]
pub mod sequence_lock;
#[cfg(not(loom))]
#[expect(unreachable_pub, reason = "public only for the tests under the model checker")]
mod sequence_lock;
pub mod stack;
pub mod supervisor;
mod surroundings;
mod sync;
pub mod thread;
pub mod topology;
pub mod wait;
