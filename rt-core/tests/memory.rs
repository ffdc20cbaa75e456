//! Locked memory on the real kernel. One test: the setting is the whole process's.

use std::path::Path;

use sinew_rt::kernel::{CAP_IPC_LOCK, Privileges};
use sinew_rt::memory::{MemoryPlan, MemoryUsage, prepare};

#[test]
fn memory_is_locked_as_reported_or_the_refusal_names_the_fix() {
    let plan = MemoryPlan { lock: true, ..MemoryPlan::default() };
    let before = MemoryUsage::read(Path::new("/"));
    let report = prepare(&plan);
    let after = MemoryUsage::read(Path::new("/"));
    println!("before {before:?}\nafter {after:?}\n{report:?}");
    let privileges = Privileges::read(Path::new("/"));
    let may_lock = privileges.has(CAP_IPC_LOCK) || privileges.memlock_limit_bytes == Some(u64::MAX);
    if may_lock {
        assert_eq!(report.refused, []);
        assert!(after.locked_bytes > 0 && report.locked_bytes > 0);
        // Future mappings too: resident before anybody touches them. Not through the allocator: the
        // heap's mapping exists already, and grows locked with the present ones.
        let bytes = 16 * 1024 * 1024;
        // SAFETY: a new anonymous mapping that nobody accesses, removed with the size it was made.
        unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let mapping = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            let with_mapping = MemoryUsage::read(Path::new("/"));
            assert_eq!(libc::munmap(mapping, bytes), 0);
            assert!(with_mapping.resident_bytes >= bytes as u64, "{with_mapping:?}");
        }
    } else {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: the lock itself: no CAP_IPC_LOCK and a finite RLIMIT_MEMLOCK\n",
        );
        let refusal = report.refused.iter().find(|refusal| refusal.what == "memory lock").unwrap();
        assert!(refusal.fix.contains("ulimit -l"));
        assert_eq!(after.locked_bytes, 0, "a lock that later allocations break was kept");
    }
    assert!(report.allocator_keeps_memory);
    assert_eq!(report.heap_faults_after_prefault, 0);
    // Again, with more heap: nothing breaks, and the report is fresh.
    let again = prepare(&MemoryPlan { heap_prefault_bytes: 1024 * 1024, ..plan });
    assert_eq!(again.requested.heap_prefault_bytes, 1024 * 1024);
    assert_eq!(again.heap_faults_after_prefault, 0);
    assert_eq!(again.refused.len(), report.refused.len());
}
