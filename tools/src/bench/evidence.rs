//! What the kernel counted for a thread while it was late, and what that says about the cause.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use sinew_rt::clock::{self, Nanos};

/// Who made a thread late, by what the kernel counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The thread stood in the run queue for so long: another thread ran.
    OtherThread { queued_ns: i64 },
    /// The thread waited for memory from a disk, so often.
    PageFault { faults: u64 },
    /// The thread neither ran nor waited by the kernel's account, for so long: an interrupt that is
    /// accounted apart, or the hypervisor.
    OffTheCore { off_ns: i64 },
    /// By the kernel's account the thread ran: an interrupt that is accounted to the thread,
    /// firmware, or a host that does not say what it takes.
    Unknown,
    /// It was due while an earlier one of these events was still on: that one's cause is its cause.
    Behind,
    /// The thread slept, and ran as soon as it was woken: what woke it came late.
    LateWake,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: &i64| *ns as f64 / 1e3;
        match self {
            Self::OtherThread { queued_ns } => {
                write!(f, "another thread ran ({:.1} µs in the run queue)", us(queued_ns))
            }
            Self::PageFault { faults } => write!(f, "page faults from a disk ({faults})"),
            Self::OffTheCore { off_ns } => write!(
                f,
                "stolen by the hypervisor, or an interrupt accounted apart ({:.1} µs)",
                us(off_ns)
            ),
            Self::Unknown => f.write_str("unknown: an interrupt, firmware or the host"),
            Self::Behind => f.write_str("waited behind an earlier one"),
            Self::LateWake => {
                f.write_str("unknown: a late timer or interrupt, an idle state or the host")
            }
        }
    }
}

/// What a measuring thread does between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// It spins: time that it neither ran nor queued was taken from it.
    Core,
    /// It sleeps: only what came between its waking and its running can be told.
    Asleep,
}

/// The counters of the calling thread, from a baseline on.
///
/// The queue time is the second field of `/proc/thread-self/schedstat`, in ns (the kernel's
/// Documentation/scheduler/sched-stats.rst). Reading them takes some microseconds and allocates
/// nothing.
pub(crate) struct Account {
    keeps: Keeps,
    /// `None` where the kernel keeps no such account.
    schedstat: Option<File>,
    at: Nanos,
    counted: Counted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    cpu: Nanos,
    queued: Nanos,
    major_faults: u64,
}

impl Account {
    /// For the calling thread only. Opens a file.
    pub(crate) fn new(keeps: Keeps) -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        Self { keeps, schedstat, at: clock::now(), counted: Counted::default() }
    }

    /// Starts a new account at `now`.
    pub(crate) fn mark(&mut self, now: Nanos) {
        (self.at, self.counted) = (now, self.read());
    }

    /// When the account was begun.
    pub(crate) fn marked_at(&self) -> Nanos {
        self.at
    }

    /// Who had the core during `length` that ended at `now`; starts a new account.
    pub(crate) fn cause(&mut self, length: Nanos, now: Nanos) -> Cause {
        let (since, before) = (self.at, self.counted);
        self.mark(now);
        let queued = self.counted.queued - before.queued;
        let off = match self.keeps {
            Keeps::Core => Some((now - since) - (self.counted.cpu - before.cpu) - queued),
            Keeps::Asleep => None,
        };
        let faults = self.counted.major_faults.saturating_sub(before.major_faults);
        match judge(length, queued, off, faults) {
            Cause::Unknown if self.keeps == Keeps::Asleep => Cause::LateWake,
            cause => cause,
        }
    }

    fn read(&self) -> Counted {
        // Three numbers of up to 20 digits, two blanks and a line feed.
        let mut bytes = [0; 63];
        let queued = self.schedstat.as_ref().and_then(|file| {
            let length = file.read_at(&mut bytes, 0).ok()?;
            let text = str::from_utf8(&bytes[..length]).ok()?;
            text.split_ascii_whitespace().nth(1)?.parse().ok()
        });
        let queued = queued.map_or(Nanos::ZERO, Nanos::new);
        Counted { cpu: clock::thread_cpu_time(), queued, major_faults: major_faults() }
    }
}

/// How often the calling thread waited for a page from a disk.
fn major_faults() -> u64 {
    // SAFETY: all-zero bytes are a valid `rusage`, which is plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid and writable for the call. RUSAGE_THREAD with a valid pointer cannot
    // fail (getrusage(2)); if it did, no faults would be reported.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_majflt.cast_unsigned()
}

/// The cause that explains more than half of a span; there is at most one. Who waits for a disk neither
/// runs nor queues: where that time is known, `off`, it has to be long enough for page faults, too.
fn judge(length: Nanos, queued: Nanos, off: Option<Nanos>, major_faults: u64) -> Cause {
    let most = |span: Nanos| span > length / 2;
    match (off, major_faults) {
        _ if most(queued) => Cause::OtherThread { queued_ns: queued.as_nanos() },
        (Some(off), _) if !most(off) => Cause::Unknown,
        (Some(off), 0) => Cause::OffTheCore { off_ns: off.as_nanos() },
        (None, 0) => Cause::Unknown,
        (_, faults) => Cause::PageFault { faults },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_named_only_if_it_explains_most_of_the_span() {
        let us = Nanos::from_micros;
        let judged = |queued, off, faults| judge(us(100), us(queued), Some(us(off)), faults);
        assert_eq!(judged(90, 5, 0), Cause::OtherThread { queued_ns: 90_000 });
        assert_eq!(judged(0, 90, 0), Cause::OffTheCore { off_ns: 90_000 });
        assert_eq!(judged(0, 90, 2), Cause::PageFault { faults: 2 });
        assert_eq!(judged(50, 50, 0), Cause::Unknown);
        assert_eq!(judged(0, -3, 0), Cause::Unknown);
        assert_eq!(judged(0, 20, 1), Cause::Unknown, "a fault, and not one that took so long");
        // How long a thread that slept was off its core is not known.
        assert_eq!(judge(us(100), us(0), None, 1), Cause::PageFault { faults: 1 });
        assert_eq!(judge(us(100), us(0), None, 0), Cause::Unknown);
    }

    #[test]
    fn sleep_is_not_taken_for_time_that_was_stolen() {
        let slept = |keeps| {
            let mut account = Account::new(keeps);
            account.mark(clock::now());
            clock::sleep_until(clock::now() + Nanos::from_millis(5));
            let now = clock::now();
            account.cause(Nanos::from_millis(4), now)
        };
        assert!(matches!(slept(Keeps::Core), Cause::OffTheCore { .. } | Cause::OtherThread { .. }));
        assert!(!matches!(slept(Keeps::Asleep), Cause::OffTheCore { .. }));
    }

    #[test]
    fn time_behind_another_thread_is_told_from_time_on_the_core() {
        use sinew_rt::thread::{Priority, Strictness, ThreadSpec, spawn};
        use sinew_rt::topology::Topology;
        use std::sync::atomic::{AtomicBool, Ordering};
        static READY: AtomicBool = AtomicBool::new(false);

        let core = Topology::read().unwrap().usable_cores().iter().next().unwrap();
        let spec = |name| ThreadSpec::new(name).core(core).strictness(Strictness::Report);
        // At normal priority, until a real-time thread on the same core takes it away.
        let watched = spawn(spec("watched"), || {
            let mut account = Account::new(Keeps::Core);
            let give_up = clock::now() + Nanos::from_secs(10);
            account.mark(clock::now());
            READY.store(true, Ordering::Release);
            let mut last = clock::now();
            while last < give_up {
                let now = clock::now();
                if now - last > Nanos::from_millis(15) {
                    return Some(account.cause(now - last, now));
                }
                last = now;
            }
            None
        })
        .unwrap();
        while !READY.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let hog = spawn(spec("hog").fifo(Priority::MIN), || {
            let until = clock::now() + Nanos::from_millis(60);
            while clock::now() < until {}
        })
        .unwrap();
        if let Some(why) = hog.applied().not_real_time() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: a thread of higher priority: {why}");
            return;
        }
        hog.join().unwrap();
        let cause = watched.join().unwrap();
        assert!(matches!(cause, Some(Cause::OtherThread { .. })), "{cause:?}");
    }
}
