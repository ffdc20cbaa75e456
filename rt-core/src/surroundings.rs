//! What went on around a trip, on its core: interrupts, stolen time, and who may have run there.
//!
//! The lane that missed keeps what its own counters say, and pays for no more. Housekeeping adds
//! this afterwards, from files that take tens of microseconds to read. It supports a verdict and
//! makes none: the window is longer than the trip, and says so.

use std::fs;
use std::path::Path;

use crate::clock::{self, Nanos};
use crate::files;

/// A sample older than this is taken anew, so that the window around a trip stays short.
const SAMPLE_AGE: Nanos = Nanos::from_secs(1);

/// Scans for the thread that ran are at least so far apart: each reads two files of some threads and
/// one of all.
const SCAN_EVERY: Nanos = Nanos::from_secs(1);

/// How exactly the time of a switch is known. The scheduler's clock leaves out what a hypervisor stole
/// and, on some kernels, interrupts: that much passes in the milliseconds until a look.
const CLOCK_SLACK: Nanos = Nanos::from_millis(1);

/// `USER_HZ` of every Linux architecture that this runs on.
const TICK: Nanos = Nanos::from_millis(10);

/// What the kernel counts for each core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sample {
    at: Nanos,
    /// By core; cores that are offline have nothing.
    interrupts: Vec<u64>,
    steal_ticks: Vec<u64>,
}

impl Sample {
    fn read(root: &Path, now: Nanos) -> Self {
        Self {
            at: now,
            interrupts: interrupts(&files::text(root, "proc/interrupts").unwrap_or_default()),
            steal_ticks: steal(&files::text(root, "proc/stat").unwrap_or_default()),
        }
    }
}

/// What was counted on one core in a window that ends when housekeeping looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Around {
    pub(crate) window: Nanos,
    pub(crate) interrupts: u64,
    pub(crate) steal: Nanos,
    pub(crate) thread: Option<Runner>,
}

/// The trip that is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) start: Nanos,
    pub(crate) end: Nanos,
    pub(crate) core: u16,
    /// The thread that tripped, when something may have run in its place.
    pub(crate) instead_of: Option<u32>,
}

/// A thread that could take the core, and did so since the trip began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runner {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) rt_priority: u32,
}

/// Keeps the earlier sample that a later one is compared with.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    earlier: Option<Sample>,
    /// That of the present look, for all trips that it finds.
    later: Option<Sample>,
    scanned_at: Option<Nanos>,
}

impl Surroundings {
    /// Takes a sample when the last one is too old. Reads files: housekeeping only.
    pub(crate) fn keep_fresh(&mut self, now: Nanos) {
        if self.earlier.as_ref().is_none_or(|sample| now - sample.at > SAMPLE_AGE) {
            self.earlier = Some(Sample::read(Path::new("/"), now));
        }
    }

    /// What went on around a trip; `None` before the first sample.
    pub(crate) fn of(&mut self, trip: About, now: Nanos) -> Option<Around> {
        let root = Path::new("/");
        let earlier = self.earlier.as_ref()?;
        let later = self.later.take().filter(|sample| sample.at == now);
        let later = &*self.later.insert(later.unwrap_or_else(|| Sample::read(root, now)));
        let core = usize::from(trip.core);
        let grown = |of: fn(&Sample) -> &Vec<u64>| {
            let count = |sample| of(sample).get(core).copied().unwrap_or(0);
            count(later).saturating_sub(count(earlier))
        };
        let steal_ticks = grown(|sample| &sample.steal_ticks);
        let may_scan = self.scanned_at.is_none_or(|at| now - at > SCAN_EVERY);
        let thread = trip.instead_of.filter(|_| may_scan).and_then(|thread| {
            self.scanned_at = Some(now);
            runner(root, &trip, thread)
        });
        Some(Around {
            window: now - earlier.at,
            interrupts: grown(|sample| &sample.interrupts),
            steal: TICK * i64::try_from(steal_ticks).unwrap_or(i64::MAX),
            thread,
        })
    }
}

/// The sum of each column of `/proc/interrupts`.
fn interrupts(text: &str) -> Vec<u64> {
    let mut lines = text.lines();
    let cores: Vec<usize> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|column| column.strip_prefix("CPU")?.parse().ok())
        .collect();
    let mut sums = vec![0; cores.iter().max().map_or(0, |last| last + 1)];
    for line in lines {
        let Some((_, counts)) = line.split_once(':') else { continue };
        let counts = counts.split_whitespace().map_while(|count| count.parse::<u64>().ok());
        // Lines with one figure for all cores, `ERR` and `MIS`, are no interrupts of one.
        let counts: Vec<u64> = counts.take(cores.len()).collect();
        if counts.len() == cores.len() {
            cores.iter().zip(counts).for_each(|(core, count)| sums[*core] += count);
        }
    }
    sums
}

/// The eighth figure of each core in `/proc/stat`: proc_stat(5).
fn steal(text: &str) -> Vec<u64> {
    let mut ticks = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let core = words.next().and_then(|word| word.strip_prefix("cpu")?.parse::<usize>().ok());
        let (Some(core), Some(steal)) = (core, words.nth(7).and_then(|word| word.parse().ok()))
        else {
            continue;
        };
        ticks.resize(ticks.len().max(core + 1), 0);
        ticks[core] = steal;
    }
    ticks
}

/// What `/proc/PID/task/TID/stat` says of a thread.
struct ThreadStat<'a> {
    name: &'a str,
    core: u16,
    rt_priority: u32,
}

impl<'a> ThreadStat<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // The name may hold anything, parentheses included.
        let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
        // The state, field 3 of proc_pid_stat(5), is the first here.
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        Some(Self { name, core: field(39)?.parse().ok()?, rt_priority: field(40)?.parse().ok()? })
    }
}

/// What `/proc/PID/task/TID/sched` says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadSched {
    /// When it was last on a core, on the scheduler's clock.
    ran_at: Nanos,
    /// How long it is on a core at a time, on average.
    slice: Nanos,
}

impl ThreadSched {
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find(|line| line.split([' ', ':']).next() == Some(key))?;
            Some(line.split_once(':')?.1.trim())
        };
        let span = |key: &str| {
            let (ms, fraction) = value(key)?.split_once('.')?;
            Some(Nanos::from_millis(ms.parse().ok()?) + Nanos::new(fraction.parse().ok()?))
        };
        let switches: i64 = value("nr_switches")?.parse().ok()?;
        let total = span("se.sum_exec_runtime")?;
        Some(Self { ran_at: span("se.exec_start")?, slice: total / switches.max(1) })
    }
}

/// Who could run in place of `thread` on its core, and did since the trip began: best one that was
/// last there during the trip, and among equals the one that is wont to run for longest at a time.
fn runner(root: &Path, trip: &About, thread: u32) -> Option<Runner> {
    let of_victim = |file| fs::read_to_string(root.join(format!("proc/self/task/{thread}/{file}")));
    let victim_priority = ThreadStat::parse(&of_victim("stat").ok()?)?.rt_priority;
    // Each core has a scheduler's clock of its own, seconds apart after some hours. That of the trip's
    // core is known by the thread that tripped: it ran there at the end of the trip or later.
    let offset = clock::now() - ThreadSched::parse(&of_victim("sched").ok()?)?.ran_at;
    let mut best = (false, Nanos::ZERO);
    let mut found = None;
    for process in fs::read_dir(root.join("proc")).ok()?.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Processes end while they are looked at.
        let Ok(tasks) = fs::read_dir(process.path().join("task")) else { continue };
        for task in tasks.flatten() {
            let id = task.file_name().to_str().and_then(|id| id.parse().ok());
            let text = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let (Some(id), Some(stat)) = (id, ThreadStat::parse(&text)) else { continue };
            if stat.core != trip.core || stat.rt_priority <= victim_priority {
                continue;
            }
            let text = fs::read_to_string(task.path().join("sched")).unwrap_or_default();
            let Some(sched) = ThreadSched::parse(&text) else { continue };
            let ran_at = sched.ran_at + offset;
            let rank = (ran_at <= trip.end + CLOCK_SLACK, sched.slice);
            if ran_at + CLOCK_SLACK >= trip.start && rank > best {
                best = rank;
                let name = stat.name.to_owned();
                found = Some(Runner { id, name, rt_priority: stat.rt_priority });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_summed_for_each_core_and_common_figures_left_out() {
        let text = "           CPU0       CPU2       \n 24:  1   10  IO-APIC   5-edge  ACPI:Ged\n\
                    LOC:  5  20   Local timer interrupts\nERR:   99\nMIS: 7\n";
        assert_eq!(interrupts(text), [6, 0, 30]);
        assert_eq!(interrupts(""), [0_u64; 0]);
    }

    #[test]
    fn steal_is_read_for_each_core() {
        let text = "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu2 1 2 3 4 5 6 7 12 0 0\n\
                    intr 5 6\ncpufreq 1\n";
        assert_eq!(steal(text), [8, 0, 12]);
    }

    #[test]
    fn a_threads_name_may_look_like_fields() {
        let fields = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let text = format!("77 (a) R (b) S {fields}");
        let stat = ThreadStat::parse(&text).expect("whole");
        assert_eq!((stat.name, stat.core, stat.rt_priority), ("a) R (b", 39, 40));
        assert!(ThreadStat::parse("77 (short) S 1 2").is_none());
    }

    #[test]
    fn the_schedulers_times_are_milliseconds_with_nanoseconds() {
        let text = "x (1, #threads: 1)\n---\nse.exec_start       :      23258143.709877\n\
                    se.sum_exec_runtime :  6.000300\nnr_switches :  3\nnr_switches_x : 9\n";
        let sched = ThreadSched::parse(text).expect("whole");
        assert_eq!(
            (sched.ran_at, sched.slice),
            (Nanos::new(23_258_143_709_877), Nanos::new(2_000_100))
        );
        assert_eq!(ThreadSched::parse(""), None);
    }

    /// A `/proc` with thread 7 on core 1 that tripped, and a thread of higher priority there;
    /// these two ran so long ago by the clock of their core.
    fn proc_with(victim_ran: Nanos, hog_ran: Nanos, now: Nanos) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: String| {
            let path = root.path().join("proc").join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        let sched = |at: Nanos| {
            let (ms, ns) = (at.as_nanos() / 1_000_000, at.as_nanos() % 1_000_000);
            format!(
                "se.exec_start : {ms}.{ns:06}\nse.sum_exec_runtime : 3.000000\nnr_switches : 1\n"
            )
        };
        let stat = |name: &str, priority: u32| {
            let zeros = "0 ".repeat(35);
            format!("7 ({name}) S {zeros}1 {priority} 1 0")
        };
        write("self/task/7/stat", stat("lane", 80));
        write("self/task/7/sched", sched(now - victim_ran));
        write("99/task/99/stat", stat("hog", 95));
        write("99/task/99/sched", sched(now - hog_ran));
        root
    }

    #[test]
    fn who_ran_is_told_by_the_clock_of_its_own_core() {
        let (ms, apart) = (Nanos::from_millis, Nanos::from_secs(5));
        let name = |victim_ran, hog_ran| {
            let now = clock::now();
            let (start, end) = (now - ms(20), now - ms(10));
            let root = proc_with(victim_ran, hog_ran, now);
            let trip = About { start, end, core: 1, instead_of: Some(7) };
            runner(root.path(), &trip, 7).map(|runner| runner.name)
        };
        assert_eq!(name(ms(0), ms(15)).as_deref(), Some("hog"));
        assert_eq!(name(ms(0), ms(500)), None, "it ran long before");
        // The core's clock is behind, or ahead: what was 15 ms before the victim ran last still was.
        for apart in [apart, -apart] {
            assert_eq!(name(apart, apart + ms(15)).as_deref(), Some("hog"));
            assert_eq!(name(apart, apart + ms(500)), None, "long before, by the same clock");
        }
    }

    #[test]
    fn trips_of_one_look_share_its_sample() {
        let mut surroundings = Surroundings::default();
        let now = clock::now();
        surroundings.keep_fresh(now);
        let trip = About { start: now, end: now, core: 0, instead_of: None };
        let later = now + Nanos::from_millis(1);
        let first = surroundings.of(trip, later);
        let kept = surroundings.later.clone();
        assert_eq!(surroundings.of(trip, later), first);
        assert_eq!(surroundings.later, kept);
        assert_eq!(kept.map(|sample| sample.at), Some(later));
    }

    #[test]
    fn this_machine_counts_interrupts() {
        let sample = Sample::read(Path::new("/"), Nanos::ZERO);
        assert!(
            sample.interrupts.iter().sum::<u64>() > 0
                || files::text(Path::new("/"), "proc/interrupts").is_none()
        );
    }
}
