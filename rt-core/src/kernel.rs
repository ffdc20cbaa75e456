//! What kernel this is, how it schedules, and what it lets this process do.

mod privileges;

pub use privileges::{CAP_IPC_LOCK, CAP_SYS_NICE, Privileges, RtGroup};
