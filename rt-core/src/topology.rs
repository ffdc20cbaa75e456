//! Which cores this machine has, what they share, and which of them this process may use.
//!
//! Everything comes from `/sys/devices/system` and `/proc` (kernel documentation:
//! `admin-guide/cputopology.rst`, `ABI/testing/sysfs-devices-system-cpu`), under a root directory
//! of the caller's choice, so that a captured machine reads like the one we run on.

mod cores;

pub use cores::{CoreId, CoreList, CoreListError};
