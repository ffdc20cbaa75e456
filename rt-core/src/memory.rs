//! Keeps the process's memory resident, so that real-time threads take no page fault.
//!
//! Three things, once per process: every page is locked (`mlockall`), the allocator keeps what it
//! has (no trimming, no mappings of its own, one arena), and a stretch of heap is touched in
//! advance. What came of it is read back and reported.
//!
//! Pages are locked **populated**, not on their first touch (`MCL_ONFAULT`): with the latter the
//! code of a path that has never run, such as the safe stop, would be fetched from disk the first
//! time it is needed. The price is that every mapping is resident in full, thread stacks included,
//! so threads need small explicit stacks: see [`crate::thread::DEFAULT_STACK_BYTES`].

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::files;
use crate::kernel::{CAP_IPC_LOCK, Privileges};
use crate::thread::Refusal;

/// Heap that is touched in advance unless the plan says otherwise: 512 KiB.
pub const DEFAULT_HEAP_PREFAULT_BYTES: usize = 512 * 1024;

/// What must be left of a finite `RLIMIT_MEMLOCK` after everything present is locked. Under
/// `MCL_FUTURE` an allocation that would exceed the limit fails, and a failed allocation aborts the
/// process: better not to lock at all, and say so.
const LOCK_HEADROOM_BYTES: u64 = 64 * 1024 * 1024;

/// What to do with the process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Lock all present and future pages.
    pub lock: bool,
    /// Bytes of heap to touch in advance.
    pub heap_prefault_bytes: usize,
}

impl Default for MemoryPlan {
    fn default() -> Self {
        Self { lock: true, heap_prefault_bytes: DEFAULT_HEAP_PREFAULT_BYTES }
    }
}

/// What came of a [`MemoryPlan`], read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// The plan.
    pub requested: MemoryPlan,
    /// Locked memory of the process (`VmLck`) in bytes.
    pub locked_bytes: u64,
    /// Resident memory of the process (`VmRSS`) in bytes.
    pub resident_bytes: u64,
    /// Memory of the process that is swapped out (`VmSwap`) in bytes.
    pub swapped_bytes: u64,
    /// Whether the allocator took its settings: no trimming, no mappings, one arena.
    pub allocator_keeps_memory: bool,
    /// Page faults that touching the pre-faulted heap a second time took: 0 when it stays.
    pub heap_faults_after_prefault: u64,
    /// Every difference between plan and outcome, with its fix.
    pub refused: Vec<Refusal>,
}

/// Locks memory and prepares the heap for the whole process, and reports what is in force.
///
/// Can be called any number of times, from any thread: everything it sets stays set for the life of
/// the process, and a second call finds it so. Call it before threads are made (one arena holds
/// only for arenas that do not exist yet) and before lanes run: it allocates and takes milliseconds.
#[must_use]
pub fn prepare(plan: &MemoryPlan) -> MemoryReport {
    // Two callers at once would see each other's page faults in the read-back.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let mut refused = Vec::new();
    let allocator_keeps_memory = keep_allocated_memory();
    if !allocator_keeps_memory {
        refused.push(Refusal {
            what: "allocator".to_owned(),
            wanted: "no trimming, no mappings, one arena".to_owned(),
            got: "the C library's defaults".to_owned(),
            reason: "mallopt refused, or this C library has none (it is a glibc interface)"
                .to_owned(),
            fix: "build for a gnu target, or set nothing and allocate before the lanes start"
                .to_owned(),
        });
    }
    let lock_error = if plan.lock { lock_all().err() } else { None };
    let heap_faults_after_prefault = prefault_heap(plan.heap_prefault_bytes);
    if heap_faults_after_prefault > 0 {
        refused.push(Refusal {
            what: "heap pre-fault".to_owned(),
            wanted: format!("{} bytes that stay resident", plan.heap_prefault_bytes),
            got: format!("{heap_faults_after_prefault} page faults when touched again"),
            reason: "the global allocator gives freed memory back to the kernel".to_owned(),
            fix: "use the system allocator in the real-time program, or configure yours to keep memory".to_owned(),
        });
    }
    let usage = MemoryUsage::read(Path::new("/"));
    if plan.lock {
        refused.extend(match lock_error {
            Some(error) => Some(lock_refusal(&usage, &error)),
            None if usage.locked_bytes == 0 => Some(lock_refusal(&usage, &LockError::NoEffect)),
            None => None,
        });
    }
    MemoryReport {
        requested: plan.clone(),
        locked_bytes: usage.locked_bytes,
        resident_bytes: usage.resident_bytes,
        swapped_bytes: usage.swapped_bytes,
        allocator_keeps_memory,
        heap_faults_after_prefault,
        refused,
    }
}

/// The refusal of the memory lock that [`prepare`] would report under the present limits, without
/// locking anything. `None` says that it should be granted; only trying proves it.
#[must_use]
pub fn foreseen_refusal(privileges: &Privileges, usage: &MemoryUsage) -> Option<Refusal> {
    let error = room_to_lock(privileges, usage.virtual_bytes).err()?;
    Some(lock_refusal(usage, &error))
}

fn lock_refusal(usage: &MemoryUsage, error: &LockError) -> Refusal {
    let fix = match error {
        LockError::NoEffect => "run outside the sandbox (gVisor and similar ignore mlockall)",
        _ => {
            "ulimit -l unlimited; or for good, in /etc/security/limits.d/99-sinew.conf: \"* - memlock unlimited\"; or setcap cap_ipc_lock+ep <binary>"
        }
    };
    Refusal {
        what: "memory lock".to_owned(),
        wanted: "all pages locked".to_owned(),
        got: format!("{} KiB locked", usage.locked_bytes / 1024),
        reason: error.to_string(),
        fix: fix.to_owned(),
    }
}

/// The process's memory as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Address space (`VmSize`) in bytes.
    pub virtual_bytes: u64,
    /// Locked (`VmLck`) in bytes.
    pub locked_bytes: u64,
    /// Resident (`VmRSS`) in bytes.
    pub resident_bytes: u64,
    /// Swapped out (`VmSwap`) in bytes.
    pub swapped_bytes: u64,
}

impl MemoryUsage {
    /// The calling process's usage, from `proc/self/status` under `root`; zeros where unreadable.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let status = files::text(root, "proc/self/status").unwrap_or_default();
        // The kernel writes kibibytes and calls them kB.
        let bytes = |key| -> u64 {
            files::field(&status, key)
                .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib.saturating_mul(1024))
        };
        Self {
            virtual_bytes: bytes("VmSize"),
            locked_bytes: bytes("VmLck"),
            resident_bytes: bytes("VmRSS"),
            swapped_bytes: bytes("VmSwap"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error(
        "RLIMIT_MEMLOCK is {limit_bytes} bytes, and {present_bytes} bytes of address space plus {LOCK_HEADROOM_BYTES} of headroom must fit (later allocations would fail)"
    )]
    LimitTooLow { limit_bytes: u64, present_bytes: u64 },
    #[error("mlockall failed: {0}")]
    Kernel(#[source] io::Error),
    #[error("mlockall reported success and VmLck is 0")]
    NoEffect,
}

fn lock_all() -> Result<(), LockError> {
    let privileges = Privileges::read(Path::new("/"));
    let present_bytes = MemoryUsage::read(Path::new("/")).virtual_bytes;
    room_to_lock(&privileges, present_bytes)?;
    // SAFETY: mlockall has no memory arguments; it changes residency, not content.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(LockError::Kernel(io::Error::last_os_error())),
    }
}

/// Whether locking everything leaves enough of the limit; pure, so that the bound has a test.
fn room_to_lock(privileges: &Privileges, present_bytes: u64) -> Result<(), LockError> {
    let limit_bytes = privileges.memlock_limit_bytes.unwrap_or(0);
    let needed = present_bytes.saturating_add(LOCK_HEADROOM_BYTES);
    if privileges.has(CAP_IPC_LOCK) || limit_bytes >= needed {
        Ok(())
    } else {
        Err(LockError::LimitTooLow { limit_bytes, present_bytes })
    }
}

/// Makes the allocator keep what it has, so that a later allocation finds resident memory.
#[cfg(target_env = "gnu")]
fn keep_allocated_memory() -> bool {
    // SAFETY: mallopt changes tuning parameters of the allocator and takes only numbers.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1
            && libc::mallopt(libc::M_MMAP_MAX, 0) == 1
            && libc::mallopt(libc::M_ARENA_MAX, 1) == 1
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_allocated_memory() -> bool {
    false
}

/// Allocates, touches and frees `bytes`, then does it again; returns the page faults of the second
/// round. It goes through the program's own allocator, whichever that is.
fn prefault_heap(bytes: usize) -> u64 {
    touch_heap(bytes);
    let before = minor_faults();
    touch_heap(bytes);
    minor_faults().saturating_sub(before)
}

#[inline(never)]
fn touch_heap(bytes: usize) {
    let mut block: Vec<u8> = Vec::with_capacity(bytes);
    // Writes every byte: zeroed allocations may be untouched pages.
    block.resize(bytes, 1);
    black_box(&mut block);
}

fn minor_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the buffer has the size of the structure that getrusage fills; zeroed is a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_minflt).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(capabilities: u64, memlock_limit_bytes: u64) -> Privileges {
        Privileges {
            user_id: Some(1000),
            capabilities,
            rtprio_limit: Some(0),
            memlock_limit_bytes: Some(memlock_limit_bytes),
            rttime_limit_us: None,
            rt_group: None,
        }
    }

    #[test]
    fn a_limit_that_later_allocations_would_hit_is_not_used() {
        let mib = 1024 * 1024;
        assert!(room_to_lock(&with(0, 8 * mib), 4 * mib).is_err());
        assert!(room_to_lock(&with(0, 67 * mib), 4 * mib).is_err());
        assert!(room_to_lock(&with(0, 68 * mib), 4 * mib).is_ok());
        assert!(room_to_lock(&with(0, u64::MAX), u64::MAX).is_ok());
        assert!(room_to_lock(&with(1 << CAP_IPC_LOCK, 0), 4 * mib).is_ok());
    }
}
