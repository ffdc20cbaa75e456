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
        // Future mappings too: a new block is resident before anybody touches it.
        let block: Vec<u8> = Vec::with_capacity(16 * 1024 * 1024);
        assert!(MemoryUsage::read(Path::new("/")).resident_bytes >= block.capacity() as u64);
    } else {
        println!("SKIPPED the lock itself: no CAP_IPC_LOCK and a finite RLIMIT_MEMLOCK");
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
