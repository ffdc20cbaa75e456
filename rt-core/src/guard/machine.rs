//! What a verdict has to know of this machine, found out once per process.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::clock::{self, Nanos};
use crate::files;
use crate::kernel::{self, KernelConfig};
use crate::panel::Cause;

/// What page faults cost here, and what takes the CPU without a switch of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// What one page fault takes in the best case and in a bad one; `None` where it could not be
    /// measured.
    pub(super) fault: Option<(Nanos, Nanos)>,
    pub(super) without_switch: Cause,
}

/// Pages that are touched to find out what a fault costs: some 200 µs once.
const PAGES: usize = 64;

/// A bad case is this many times the usual one.
const BAD: i64 = 8;

/// CPU time that a fault takes, in a bad case, when it has to wait: the file system's and the block
/// device's part of it. 100 µs were seen in a virtual machine whose disk is the host's.
const MAJOR: Nanos = Nanos::from_millis(1);

impl Machine {
    /// This machine, found out at the first call: a millisecond or two in a virtual machine, where
    /// the kernel's configuration is read. Not on a lane.
    pub(super) fn here() -> &'static Self {
        static HERE: OnceLock<Machine> = OnceLock::new();
        HERE.get_or_init(|| {
            let root = Path::new("/");
            Self { fault: fault_cost().ok(), without_switch: without_switch(root) }
        })
    }

    /// What so many faults took at least.
    pub(super) fn shortest(&self, faults: u64) -> Nanos {
        self.fault.map_or(Nanos::ZERO, |(shortest, _)| shortest * count(faults))
    }

    /// The CPU time that so many faults took at most; without end when that is not known.
    pub(super) fn longest(&self, minor: u64, major: u64) -> Nanos {
        let minor = match (minor, self.fault) {
            (0, _) => Nanos::ZERO,
            (_, None) => Nanos::MAX,
            (_, Some((_, longest))) => longest * count(minor),
        };
        minor + MAJOR * count(major)
    }
}

fn count(faults: u64) -> i64 {
    i64::try_from(faults).unwrap_or(i64::MAX)
}

/// Who takes the CPU from a thread that the scheduler leaves on it, such that the kernel does not
/// count it as the thread's CPU time. Interrupts, where their time is accounted for, and the
/// hypervisor, where it reports what it stole. Everything else counts as the thread's own.
fn without_switch(root: &Path) -> Cause {
    let cpu_info = files::text(root, "proc/cpuinfo").unwrap_or_default();
    if kernel::hypervisor(root, &cpu_info).is_none() {
        return Cause::Preempted;
    }
    let release = files::text(root, "proc/sys/kernel/osrelease").unwrap_or_default();
    let config = KernelConfig::read(root, &release);
    match config.map(|config| config.has("CONFIG_IRQ_TIME_ACCOUNTING")) {
        Some(false) => Cause::Stolen,
        Some(true) | None => Cause::Unknown,
    }
}

/// What the fault on one page takes in the best case, which the fastest tenth of first touches is, and
/// in a bad one. Where the kernel hands out huge pages unasked, a fault may have 512 pages to clear.
fn fault_cost() -> io::Result<(Nanos, Nanos)> {
    let pages = AbsentPages::new(PAGES)?;
    let mut touches: Vec<Nanos> = (0..PAGES)
        .map(|page| {
            let start = clock::now();
            pages.touch(page);
            clock::now() - start
        })
        .collect();
    touches.sort_unstable();
    let (fast, median) = (touches[PAGES / 10], touches[PAGES / 2]);
    let huge = files::text(Path::new("/"), "sys/kernel/mm/transparent_hugepage/enabled")
        .is_some_and(|modes| modes.contains("[always]"));
    Ok((fast, median * if huge { 512 } else { BAD }))
}

/// Memory of our own that is not there yet.
struct AbsentPages {
    start: NonNull<u8>,
    page_bytes: usize,
    bytes: usize,
}

impl AbsentPages {
    fn new(pages: usize) -> io::Result<Self> {
        // SAFETY: sysconf(3) reads no memory of ours.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_bytes = usize::try_from(page_bytes).map_err(|_| io::Error::last_os_error())?;
        let bytes = pages * page_bytes;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        let this = Self { start, page_bytes, bytes };
        // Ordinary pages only. Kernels without huge ones refuse, and do not have to be asked.
        // SAFETY: advice about the mapping made above, of which nobody holds a reference.
        let _refused = unsafe { libc::madvise(this.address(), bytes, libc::MADV_NOHUGEPAGE) };
        // Under mlockall(MCL_FUTURE) the mapping is populated already: let go, and empty it.
        // SAFETY: both calls are about the mapping made above, of which nobody holds a reference.
        let emptied = unsafe {
            libc::munlock(this.address(), bytes) == 0
                && libc::madvise(this.address(), bytes, libc::MADV_DONTNEED) == 0
        };
        if emptied { Ok(this) } else { Err(io::Error::last_os_error()) }
    }

    fn address(&self) -> *mut libc::c_void {
        self.start.as_ptr().cast()
    }

    fn touch(&self, page: usize) {
        assert!(page * self.page_bytes < self.bytes, "page {page} of {} bytes", self.bytes);
        // SAFETY: within the mapping, which is writable and lives as long as `self`; nobody else
        // knows of it.
        unsafe { self.start.as_ptr().add(page * self.page_bytes).write_volatile(black_box(1)) };
    }
}

impl Drop for AbsentPages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more.
        unsafe { libc::munmap(self.address(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_costs_more_than_a_store_and_less_than_a_disk() {
        let (shortest, longest) = fault_cost().expect("memory");
        assert!(shortest > Nanos::new(50), "{shortest}");
        assert!(longest > shortest, "{shortest} to {longest}");
    }

    #[test]
    fn counts_beyond_all_measure_do_not_wrap() {
        let machine =
            Machine { fault: Some((Nanos::new(1), Nanos::new(8))), without_switch: Cause::Unknown };
        assert_eq!(machine.longest(u64::MAX, u64::MAX), Nanos::MAX);
        assert_eq!(machine.longest(0, 0), Nanos::ZERO);
        let unmeasured = Machine { fault: None, ..machine };
        assert_eq!((unmeasured.shortest(9), unmeasured.longest(9, 0)), (Nanos::ZERO, Nanos::MAX));
    }
}
