//! What makes executions miss: busy threads, absent memory; and what really happened.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread::{self, Priority, RtThread, ThreadSpec};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Doorbell;

/// Uses so much CPU time.
pub(crate) fn burn(cpu: Nanos) {
    let end = clock::thread_cpu_time() + cpu;
    while clock::thread_cpu_time() < end {}
}

/// What the kernel counts for the calling thread, read by the test itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    at: Nanos,
    pub(crate) cpu_time: Nanos,
    pub(crate) involuntary: i64,
    pub(crate) major_faults: i64,
}

impl Truth {
    pub(crate) fn now() -> Self {
        // SAFETY: all-zero bytes are a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is writable for the call.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
        Self {
            at: clock::now(),
            cpu_time: clock::thread_cpu_time(),
            involuntary: usage.ru_nivcsw,
            major_faults: usage.ru_majflt,
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            at: self.at - before.at,
            cpu_time: self.cpu_time - before.cpu_time,
            involuntary: self.involuntary - before.involuntary,
            major_faults: self.major_faults - before.major_faults,
        }
    }

    pub(crate) fn off_cpu(&self) -> Nanos {
        self.at - self.cpu_time
    }
}

/// A thread that takes a core from others when it is told to.
pub(crate) struct CoreHog {
    orders: Arc<Orders>,
    _thread: RtThread<()>,
}

#[derive(Default)]
struct Orders {
    bell: Doorbell,
    from: AtomicI64,
    until: AtomicI64,
    given: AtomicBool,
    stop: AtomicBool,
}

impl CoreHog {
    pub(crate) fn start(core: CoreId, priority: Priority) -> Self {
        let orders = Arc::<Orders>::default();
        let taken = orders.clone();
        let spec = ThreadSpec::new("hog").core(core).fifo(priority);
        let thread = thread::spawn(spec, move || {
            while !taken.stop.load(Ordering::Acquire) {
                taken.bell.announce_sleep();
                if !taken.given.load(Ordering::Acquire) && !taken.stop.load(Ordering::Acquire) {
                    taken.bell.sleep(None);
                }
                taken.bell.awake();
                if taken.given.swap(false, Ordering::AcqRel) {
                    clock::sleep_until(Nanos::new(taken.from.load(Ordering::Relaxed)));
                    let until = Nanos::new(taken.until.load(Ordering::Relaxed));
                    while clock::now() < until {}
                }
            }
        })
        .unwrap();
        Self { orders, _thread: thread }
    }

    /// Takes the core from one instant to the other. At once means: before this returns.
    pub(crate) fn take(&self, from: Nanos, until: Nanos) {
        self.orders.from.store(from.as_nanos(), Ordering::Relaxed);
        self.orders.until.store(until.as_nanos(), Ordering::Relaxed);
        self.orders.given.store(true, Ordering::Release);
        self.orders.bell.ring();
    }
}

impl Drop for CoreHog {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        self.orders.bell.ring();
    }
}

/// A mapping whose pages can be made absent.
struct Pages {
    start: *mut u8,
    page: usize,
    bytes: usize,
}

// SAFETY: plain memory that belongs to no thread; the tests use it from one at a time.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn map(pages: usize, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: reads no memory.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let bytes = pages * page;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), page, bytes })
    }

    fn advise(&self, advice: i32) {
        // SAFETY: about our own mapping; the tests expect no contents in it.
        let done = unsafe { libc::madvise(self.start.cast(), self.bytes, advice) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    fn touch(&self) {
        for offset in (0..self.bytes).step_by(self.page) {
            // SAFETY: within the mapping.
            unsafe { self.start.add(offset).write_volatile(black_box(1)) };
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nobody refers any more.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// Memory that is not resident until it is touched.
pub(crate) struct AbsentPages(Pages);

impl AbsentPages {
    /// As many pages as take about so long to fault in.
    pub(crate) fn worth(span: Nanos) -> Self {
        let trial = Self::of(256);
        // The quickest of some: with pauses of the machine in it, too few pages would seem enough.
        let quickest = (0..8).map(|_| {
            trial.discard();
            let start = clock::now();
            trial.touch();
            clock::now() - start
        });
        let each = (quickest.min().unwrap() / 256).max(Nanos::new(100));
        Self::of(usize::try_from(span.as_nanos() / each.as_nanos()).unwrap())
    }

    fn of(pages: usize) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages = Pages::map(pages, flags, -1).unwrap();
        // Kernels without huge pages refuse, and need not be asked.
        // SAFETY: advice about our own mapping.
        unsafe { libc::madvise(pages.start.cast(), pages.bytes, libc::MADV_NOHUGEPAGE) };
        Self(pages)
    }

    pub(crate) fn discard(&self) {
        self.0.advise(libc::MADV_DONTNEED);
    }

    pub(crate) fn touch(&self) {
        self.0.touch();
    }
}

/// A page of a file that has to be read from its disk.
pub(crate) struct FilePage {
    pages: Pages,
    file: File,
}

impl FilePage {
    /// Fails where the file's system keeps its pages in memory.
    pub(crate) fn new() -> io::Result<Self> {
        let dir = env!("CARGO_TARGET_TMPDIR");
        let path = format!("{dir}/absent-page-{}", std::process::id());
        let mut file = File::options().create_new(true).read(true).write(true).open(&path)?;
        std::fs::remove_file(&path)?;
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        let pages = Pages::map(1, libc::MAP_SHARED, file.as_raw_fd())?;
        let this = Self { pages, file };
        this.discard();
        let before = Truth::now();
        this.touch();
        if Truth::now().since(&before).major_faults == 0 {
            return Err(io::Error::other("the file system under target/ keeps it in memory"));
        }
        Ok(this)
    }

    pub(crate) fn discard(&self) {
        self.file.sync_all().unwrap();
        self.pages.advise(libc::MADV_DONTNEED);
        // SAFETY: concerns the page cache of an open file of ours alone.
        let done =
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(done, 0);
    }

    pub(crate) fn touch(&self) {
        // SAFETY: the first byte of the mapping.
        black_box(unsafe { self.pages.start.read_volatile() });
    }
}
