//! Keeps the machine's cores out of deep idle states, from which waking takes long.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The kernel's interface (`power/pm_qos_interface.rst`).
const DEVICE: &str = "dev/cpu_dma_latency";

/// Holds every core's idle wake-up latency at or below a bound while this value lives.
///
/// The kernel takes the lowest bound of all holders and drops ours when the file is closed, also
/// when the process dies. At 0 the cores do not halt at all: fastest, and the most heat.
#[derive(Debug)]
pub struct CpuLatencyHold {
    /// Kept open: closing it gives up the bound.
    _device: File,
    requested_us: u32,
    effective_us: u32,
}

/// Why the bound could not be held.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// The kernel has no such interface.
    #[error(
        "{path} does not exist: this kernel or container has no PM QoS; idle states stay as they are (in a container: --device=/dev/cpu_dma_latency)"
    )]
    Unsupported {
        /// The device.
        path: PathBuf,
    },
    /// This user may not open the device.
    #[error(
        "{path} may not be opened for writing by this user; fix: chgrp realtime {path} && chmod 660 {path}, for good with the udev rule KERNEL==\"cpu_dma_latency\", GROUP=\"realtime\", MODE=\"0660\""
    )]
    Denied {
        /// The device.
        path: PathBuf,
    },
    /// The kernel refused or did not confirm the bound.
    #[error("{path}: asked for {wanted_us} µs, {what}: {source}")]
    Failed {
        /// The device.
        path: PathBuf,
        /// The bound asked for, in microseconds.
        wanted_us: u32,
        /// What was being done.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The bound in force, read back, is above the one asked for.
    #[error("{path}: asked for {wanted_us} µs, and {got_us} µs is in force")]
    NotInForce {
        /// The device.
        path: PathBuf,
        /// The bound asked for, in microseconds.
        wanted_us: u32,
        /// The bound read back, in microseconds.
        got_us: u32,
    },
}

impl CpuLatencyHold {
    /// Bounds the wake-up latency of all cores to `max_us` microseconds, and reads the bound in
    /// force back. Opens a file: call before lanes run, and keep the value as long as they do.
    pub fn acquire(max_us: u32) -> Result<Self, PowerError> {
        Self::acquire_at(Path::new("/"), max_us)
    }

    fn acquire_at(root: &Path, max_us: u32) -> Result<Self, PowerError> {
        let path = root.join(DEVICE);
        let wanted_us = max_us.min(i32::MAX as u32);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let mut device = opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => PowerError::Unsupported { path: path.clone() },
            io::ErrorKind::PermissionDenied => PowerError::Denied { path: path.clone() },
            _ => PowerError::Failed { path: path.clone(), wanted_us, what: "opening", source },
        })?;
        let failed = |what| {
            let path = path.clone();
            move |source| PowerError::Failed { path, wanted_us, what, source }
        };
        // A signed 32-bit number in the machine's byte order.
        device.write_all(&wanted_us.to_ne_bytes()).map_err(failed("writing"))?;
        let effective_us = read_bound(&mut device).map_err(failed("reading back"))?;
        if effective_us > wanted_us {
            return Err(PowerError::NotInForce { path, wanted_us, got_us: effective_us });
        }
        Ok(Self { _device: device, requested_us: max_us, effective_us })
    }

    /// The bound that was asked for, in microseconds.
    #[must_use]
    pub fn requested_us(&self) -> u32 {
        self.requested_us
    }

    /// The bound that was in force right after, in microseconds: the lowest of all holders.
    #[must_use]
    pub fn effective_us(&self) -> u32 {
        self.effective_us
    }
}

/// The bound in force, in microseconds, without asking for one; `None` when the device cannot be
/// read. Without any holder the kernel's default is 2,000,000,000.
#[must_use]
pub fn latency_bound_us(root: &Path) -> Option<u32> {
    read_bound(&mut File::open(root.join(DEVICE)).ok()?).ok()
}

/// Whether this process may hold a bound. Opens the device and writes nothing, which holds none.
#[must_use]
pub fn may_hold(root: &Path) -> bool {
    OpenOptions::new().read(true).write(true).open(root.join(DEVICE)).is_ok()
}

fn read_bound(device: &mut File) -> io::Result<u32> {
    let mut bytes = [0u8; 4];
    device.read_exact(&mut bytes)?;
    u32::try_from(i32::from_ne_bytes(bytes))
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a negative bound"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_lives_exactly_as_long_as_the_hold() {
        let root = Path::new("/");
        let hold = match CpuLatencyHold::acquire(7) {
            Ok(hold) => hold,
            Err(error @ (PowerError::Denied { .. } | PowerError::Unsupported { .. })) => {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("\nSKIPPED: {error}\n").as_bytes(),
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(hold.effective_us() <= 7);
        assert!(latency_bound_us(root).unwrap() <= 7);
        let tighter = CpuLatencyHold::acquire(3).unwrap();
        assert!(latency_bound_us(root).unwrap() <= 3);
        let before = open_devices();
        drop(tighter);
        assert_eq!(open_devices(), before - 1);
    }

    /// How many descriptors of this process are the device. Other processes may hold bounds too, so
    /// the value in force alone does not show that ours is gone.
    fn open_devices() -> usize {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let is_device = |target: PathBuf| target == Path::new("/").join(DEVICE);
        descriptors
            .filter(|entry| {
                let path = entry.as_ref().unwrap().path();
                std::fs::read_link(path).is_ok_and(is_device)
            })
            .count()
    }

    #[test]
    fn a_missing_device_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = CpuLatencyHold::acquire_at(root.path(), 0).unwrap_err();
        assert!(matches!(error, PowerError::Unsupported { .. }), "{error}");
        assert_eq!(latency_bound_us(root.path()), None);
    }

    #[test]
    fn a_device_that_does_not_confirm_is_an_error() {
        // A plain file: what was written is behind the read position, so nothing is read back.
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        std::fs::write(root.path().join(DEVICE), b"").unwrap();
        let error = CpuLatencyHold::acquire_at(root.path(), 0).unwrap_err();
        assert!(matches!(error, PowerError::Failed { what: "reading back", .. }), "{error}");
        // A value in force that is higher than ours.
        let bytes = [0_i32.to_ne_bytes(), 50_i32.to_ne_bytes()].concat();
        std::fs::write(root.path().join(DEVICE), bytes).unwrap();
        let error = CpuLatencyHold::acquire_at(root.path(), 0).unwrap_err();
        assert!(matches!(error, PowerError::NotInForce { got_us: 50, .. }), "{error}");
    }
}
