//! What the kernel counted while a core was taken away.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::topology::CoreId;

use super::Cause;

/// The calling thread's CPU time and the time that it stood in the run queue.
///
/// The queue time is the second field of `/proc/thread-self/schedstat`, in ns (the kernel's
/// Documentation/scheduler/sched-stats.rst). Reading both takes some microseconds and allocates nothing.
pub(super) struct ThreadTrace {
    /// `None` where the kernel keeps no such account.
    schedstat: Option<File>,
    at: Nanos,
    counted: Counted,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    cpu: Nanos,
    queued: Nanos,
}

impl ThreadTrace {
    /// For the calling thread only. Opens a file.
    pub(super) fn new() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        Self { schedstat, at: clock::now(), counted: Counted::default() }
    }

    /// Starts a new account at `now`.
    pub(super) fn mark(&mut self, now: Nanos) {
        (self.at, self.counted) = (now, self.read());
    }

    /// Who had the core during a gap of `length` that ended at `now`; starts a new account.
    pub(super) fn cause(&mut self, length: Nanos, now: Nanos) -> Cause {
        let (since, before) = (self.at, self.counted);
        self.mark(now);
        let queued = self.counted.queued - before.queued;
        let off = (now - since) - (self.counted.cpu - before.cpu) - queued;
        judge(length, queued, off)
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
        Counted { cpu: clock::thread_cpu_time(), queued }
    }
}

/// The cause that explains more than half of a gap; there is at most one.
fn judge(length: Nanos, queued: Nanos, off: Nanos) -> Cause {
    if queued > length / 2 {
        Cause::OtherThread
    } else if off > length / 2 {
        Cause::OffTheCore
    } else {
        Cause::Unknown
    }
}

/// How often each interrupt came on each core, by `/proc/interrupts`.
pub(super) struct Interrupts {
    cores: Vec<CoreId>,
    /// By label and description; one count for each core.
    lines: BTreeMap<String, Vec<u64>>,
}

impl Interrupts {
    pub(super) fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/interrupts").map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let cores: Vec<_> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|name| name.strip_prefix("CPU")?.parse().ok().map(CoreId::new))
            .collect();
        let line = |line: &str| {
            let (label, rest) = line.trim_start().split_once(':')?;
            let mut words = rest.split_whitespace();
            let counts: Option<Vec<_>> =
                (0..cores.len()).map(|_| words.next()?.parse().ok()).collect();
            let words: Vec<_> = words.collect();
            // A device's name comes last, after its controller and line; an architecture's own
            // interrupts have a description of several words.
            let name = match label.parse::<u32>() {
                Ok(_) => words.last().copied().unwrap_or_default().to_owned(),
                Err(_) => words.join(" "),
            };
            // `ERR` and `MIS` have one count for all cores.
            Some((format!("{label} ({name})"), counts?))
        };
        let lines = lines.filter_map(line).collect();
        Self { cores, lines }
    }

    /// What came on `core` since `earlier`, the most frequent first.
    pub(super) fn since(&self, earlier: &Self, core: CoreId) -> Arrived {
        let Some(column) = self.cores.iter().position(|other| *other == core) else {
            return Arrived(Vec::new());
        };
        let before = |name| earlier.lines.get(name).map_or(0, |counts| counts[column]);
        let counts = self.lines.iter().map(|(name, counts)| (name, counts[column]));
        let mut arrived: Vec<_> = counts
            .map(|(name, count)| (name.clone(), count.saturating_sub(before(name))))
            .filter(|(_, count)| *count > 0)
            .collect();
        arrived.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Arrived(arrived)
    }
}

/// Interrupts by name, with how often they came.
pub(super) struct Arrived(Vec<(String, u64)>);

impl Arrived {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
           CPU0       CPU3
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
LOC:    8239656    6761472   Local timer interrupts
ERR:          0
";
    const AFTER: &str = "\
           CPU0       CPU3
 24:          1          7  IO-APIC   5-edge      ACPI:Ged
 25:          0          1  IO-APIC   6-edge      eth0-rx
LOC:    8239999    6762472   Local timer interrupts
ERR:          3
";

    #[test]
    fn interrupts_are_counted_for_the_core_that_had_them() {
        let (before, after) = (Interrupts::parse(BEFORE), Interrupts::parse(AFTER));
        let on = |core| after.since(&before, CoreId::new(core)).to_string();
        assert_eq!(on(3), "1000 LOC (Local timer interrupts), 7 24 (ACPI:Ged), 1 25 (eth0-rx)");
        assert_eq!(on(0), "343 LOC (Local timer interrupts)");
        assert_eq!(on(1), "", "a core that is not in the table");
    }

    #[test]
    fn a_cause_is_named_only_if_it_explains_most_of_the_gap() {
        let us = Nanos::from_micros;
        assert_eq!(judge(us(100), us(90), us(5)), Cause::OtherThread);
        assert_eq!(judge(us(100), us(0), us(90)), Cause::OffTheCore);
        assert_eq!(judge(us(100), us(50), us(50)), Cause::Unknown);
        assert_eq!(judge(us(100), us(0), us(-3)), Cause::Unknown);
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
            let mut trace = ThreadTrace::new();
            let give_up = clock::now() + Nanos::from_secs(10);
            trace.mark(clock::now());
            READY.store(true, Ordering::Release);
            let mut last = clock::now();
            while last < give_up {
                let now = clock::now();
                if now - last > Nanos::from_millis(15) {
                    return Some(trace.cause(now - last, now));
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
            let _ = writeln!(io::stderr(), "\nSKIPPED: a thread of higher priority: {why}");
            return;
        }
        hog.join().unwrap();
        assert_eq!(watched.join().unwrap(), Some(Cause::OtherThread));
    }
}
