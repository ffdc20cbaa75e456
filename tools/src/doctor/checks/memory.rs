//! Memory that stays, and what the kernel does with it in the background.

use sinew_rt::thread::Refusal;

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, seconds};

/// Seconds between two collections of memory statistics that disturb nobody.
const STAT_INTERVAL_S: u64 = 10;

pub(super) fn background_work(facts: &Facts) -> Check {
    let why = "timers, statistics and page moves of the kernel come to the lanes' cores";
    let name = "background memory work";
    let settings = &facts.settings;
    let all = [
        ("timer_migration", "/proc/sys/kernel/timer_migration", settings.timer_migration),
        ("numa_balancing", "/proc/sys/kernel/numa_balancing", settings.numa_balancing),
        ("ksm", "/sys/kernel/mm/ksm/run", settings.ksm_run.map(|run| u64::from(run == 1))),
    ];
    let mut writes = Vec::new();
    let mut shown = Vec::new();
    for (short, path, value) in all {
        let Some(value) = value else { continue };
        shown.push(format!("{short} {value}"));
        if value != 0 {
            writes.push(Write::new(path, 0, value));
        }
    }
    if let Some(interval_s) = settings.stat_interval_s {
        shown.push(format!("stat_interval {interval_s} s"));
        if interval_s < STAT_INTERVAL_S {
            let path = "/proc/sys/vm/stat_interval";
            writes.push(Write::new(path, STAT_INTERVAL_S, interval_s));
        }
    }
    if shown.is_empty() {
        return Check::new(name, "no setting readable", NotApplicable, why);
    }
    let verdict = if writes.is_empty() { Ok } else { Warn };
    Check::new(name, shown.join(", "), verdict, why).set(writes)
}

pub(super) fn huge_pages(facts: &Facts) -> Check {
    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let why = "merging pages into huge ones stops threads that touch them";
    let name = "transparent huge pages";
    let Some(mode) = facts.kernel.transparent_huge_pages.as_deref() else {
        return Check::new(name, "the kernel has none", NotApplicable, why);
    };
    let verdict = match mode {
        "never" => Ok,
        "madvise" => Warn,
        _ => Fail,
    };
    Check::new(name, mode, verdict, why).set(vec![Write::new(PATH, "never", mode)])
}

pub(super) fn locked(facts: &Facts) -> Check {
    let why = "a page fault in a control loop costs from microseconds to a disk access";
    let memory = &facts.memory;
    let name = "memory lock";
    if let Some(Refusal { what, got, reason, fix, .. }) = memory.refused.first() {
        let verdict = if what == name { Fail } else { Warn };
        return Check::new(name, format!("{what}: {got}; {reason}"), verdict, why)
            .remedy(fix, "remove the limits line or capability again");
    }
    if memory.usage.swapped_bytes > 0 {
        let value =
            format!("{} KiB of this process are swapped out", memory.usage.swapped_bytes / 1024);
        return Check::new(name, value, Fail, why).remedy("swapoff -a", "swapon -a");
    }
    if memory.usage.virtual_bytes == 0 {
        return Check::new(name, "the process's memory is not readable", NotApplicable, why);
    }
    if memory.usage.locked_bytes == 0 {
        return Check::new(name, "not locked yet; the limits allow it", Ok, why);
    }
    let value = format!("{} KiB locked, read back", memory.usage.locked_bytes / 1024);
    let faults = facts.window.as_ref().and_then(|window| {
        let faults = window.after.faults?.saturating_sub(window.before.faults?);
        Some((faults, window.millis))
    });
    match faults {
        None => Check::new(name, value, Ok, why),
        Some((0, millis)) => {
            Check::new(name, format!("{value}; no page fault in {}", seconds(millis)), Ok, why)
        }
        Some((faults, millis)) => {
            let value = format!("{value}, but {faults} page faults in {}", seconds(millis));
            Check::new(name, value, Warn, why).remedy(
                "switch off what reclaims or moves pages (ksm, NUMA balancing, memory limits of the cgroup)",
                "switch it on again",
            )
        }
    }
}
