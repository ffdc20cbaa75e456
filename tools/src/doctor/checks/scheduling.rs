//! Whether lanes get their priority, keep their cores, and share them with nobody.

use std::collections::BTreeSet;

use sinew_rt::kernel::{CAP_IPC_LOCK, CAP_SYS_NICE, Task, TaskPolicy, Tasks};
use sinew_rt::thread::Refusal;
use sinew_rt::topology::CoreList;

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, named, seconds, some};
use crate::doctor::CoreProbe;

/// Locked memory that a node with room to grow needs.
const MEMLOCK_NEED_BYTES: u64 = 128 * 1024 * 1024;

/// Tasks shown.
const SHOWN: usize = 4;

const OUTSIDE: &str = "tasks outside this container are not visible";

pub(super) fn throttling(facts: &Facts) -> Check {
    let why =
        "a lane that spins loses its core for the rest of each period; lanes that park do not";
    let throttling = &facts.kernel.throttling;
    let number = |value: Option<i64>| value.map_or("?".to_owned(), |value| value.to_string());
    let setting = format!(
        "sched_rt_runtime_us {} of {}",
        number(throttling.runtime_us),
        number(throttling.period_us)
    );
    let name = "RT throttling";
    if facts.purpose.spins == Some(false) {
        return Check::new(name, format!("{setting}, and no lane spins for good"), Ok, why);
    }
    match throttling.spin_allowed() {
        Result::Ok(()) => Check::new(name, setting, Ok, why),
        Err(refused) => {
            let old = throttling.runtime_us.unwrap_or(950_000);
            let path = "/proc/sys/kernel/sched_rt_runtime_us";
            Check::new(name, refused.reason, Warn, why).set(vec![Write::new(path, -1, old)])
        }
    }
}

pub(super) fn fair_server(facts: &Facts) -> Check {
    let why = "it gives a starved normal task 50 ms of each second on a core where a lane spins";
    let name = "fair server";
    if facts.kernel.throttling.kernel.is_some_and(|kernel| kernel < (6, 12)) {
        return Check::new(name, "kernels before 6.12 have none", NotApplicable, why);
    }
    let Some(servers) = &facts.kernel.fair_servers else {
        return Check::new(name, "not readable", NotApplicable, why);
    };
    let lanes = &facts.purpose.lanes;
    let on: Vec<_> = servers
        .iter()
        .filter(|server| server.runtime_ns > 0 && lanes.contains(server.core))
        .collect();
    let cores: CoreList = on.iter().map(|server| server.core).collect();
    let Some(first) = on.first() else {
        return Check::new(name, "off on the cores for lanes", Ok, why);
    };
    let value = format!("{} of {} ns on {}", first.runtime_ns, first.period_ns, named(&cores));
    if facts.purpose.spins == Some(false) {
        return Check::new(name, format!("{value}, and no lane spins for good"), Ok, why);
    }
    let write = |server: &&sinew_rt::kernel::FairServer| {
        let path = format!("/sys/kernel/debug/sched/fair_server/cpu{}/runtime", server.core);
        Write::new(path, 0, server.runtime_ns)
    };
    Check::new(name, value, Warn, why).set(on.iter().map(write).collect())
}

/// `name 123 (SCHED_FIFO 80)`
fn describe(task: &Task) -> String {
    let Task { name, thread, core, .. } = task;
    let policy = match task.policy {
        TaskPolicy::Normal => String::new(),
        TaskPolicy::RealTime(priority) => format!(", real-time {priority}"),
        TaskPolicy::Deadline => ", deadline".to_owned(),
    };
    format!("{name} {thread} (core {core}{policy})")
}

/// The processes that are not strangers: this one, and nodes, which have lanes.
fn ours(tasks: &Tasks) -> BTreeSet<u32> {
    let of = |wanted: fn(&str) -> bool| -> BTreeSet<u32> {
        tasks.all.iter().filter(|task| wanted(&task.name)).map(|task| task.process).collect()
    };
    let lanes = of(|name| name == "lane" || name.starts_with("lane-"));
    let keepers = of(|name| name == "housekeeping");
    let nodes = lanes.intersection(&keepers).copied();
    nodes.chain([std::process::id()]).collect()
}

/// Whether a task is the interrupt thread of a network device, which lanes wait for: check 21 judges it.
fn queue_thread(facts: &Facts, task: &Task) -> bool {
    let number = || task.name.strip_prefix("irq/")?.split('-').next()?.parse::<u32>().ok();
    let mut queues = facts.nics.iter().flatten().flat_map(|nic| &nic.interrupts);
    number().is_some_and(|number| queues.any(|queue| *queue == number))
}

pub(super) fn strangers(facts: &Facts) -> Check {
    let why = "a task that runs on a lane's core delays the lane, or its caches";
    let name = "strangers";
    let Some(tasks) = &facts.counters.tasks else {
        return Check::new(name, "tasks are not readable", NotApplicable, why);
    };
    let lanes = &facts.purpose.lanes;
    let now = facts.window.as_ref().and_then(|window| window.after.tasks.as_ref());
    let ours = ours(now.unwrap_or(tasks));
    let before = |task: &Task| {
        let mut same = tasks.all.iter().filter(|other| other.thread == task.thread);
        same.find(|other| other.process == task.process).map_or(0, |other| other.cpu_ticks)
    };
    let latest = now.unwrap_or(tasks).all.iter().filter(|task| {
        // A live doctor's own process is not in a captured tree, where its number may be anybody's.
        let mine = facts.live || task.process != std::process::id();
        let other = !task.bound && !queue_thread(facts, task);
        lanes.contains(task.core) && other && !(mine && ours.contains(&task.process))
    });
    let (mut realtime, mut busy) = (Vec::new(), Vec::new());
    for task in latest {
        match task.policy {
            TaskPolicy::RealTime(_) | TaskPolicy::Deadline => realtime.push(describe(task)),
            TaskPolicy::Normal if now.is_some() && task.cpu_ticks > before(task) => {
                busy.push(describe(task));
            }
            TaskPolicy::Normal => {}
        }
    }
    let mut parts = Vec::new();
    if !realtime.is_empty() {
        parts.push(format!("{} real-time: {}", realtime.len(), some(&realtime, SHOWN)));
    }
    if !busy.is_empty() {
        let span = seconds(facts.window.as_ref().map_or(0, |window| window.millis));
        parts.push(format!("{} ran in {span}: {}", busy.len(), some(&busy, SHOWN)));
    }
    if parts.is_empty() {
        let (value, verdict) = match (tasks.whole_machine(), now.is_some(), tasks.more) {
            (false, ..) => (OUTSIDE.to_owned(), NotApplicable),
            (_, _, true) => ("more tasks than the doctor looks at".to_owned(), NotApplicable),
            (_, false, _) => {
                ("none is real-time; one look does not show who runs".to_owned(), NotApplicable)
            }
            _ => (format!("none on {}", named(lanes)), Ok),
        };
        return Check::new(name, value, verdict, why);
    }
    let rest = &facts.purpose.housekeeping;
    let fix = match rest.is_empty() {
        true => "leave a core without lanes for them".to_owned(),
        false => format!(
            "taskset -a -p -c {rest} PID (for good: isolcpus=, or AllowedCPUs={rest} in the unit of the service)"
        ),
    };
    Check::new(name, parts.join("; "), Warn, why).remedy(fix, "taskset -a -p -c <cores before> PID")
}

pub(super) fn priorities(facts: &Facts) -> Check {
    let why = "what has a higher priority than a lane stops it; at 99 a lane stops the kernel's own watchdogs";
    let name = "priorities";
    let ours_at = facts.purpose.priority;
    if ours_at >= 99 {
        return Check::new(name, format!("lanes at {ours_at}"), Fail, why).remedy(
            "set realtime.priority to 98 or less",
            format!("set realtime.priority = {ours_at}"),
        );
    }
    let Some(tasks) = &facts.counters.tasks else {
        let value = format!("lanes at {ours_at}; tasks are not readable");
        return Check::new(name, value, NotApplicable, why);
    };
    let above = |task: &&Task| match task.policy {
        TaskPolicy::Normal => false,
        TaskPolicy::RealTime(priority) => priority >= ours_at,
        TaskPolicy::Deadline => true,
    };
    let nodes = ours(tasks);
    let on_lanes = tasks.all.iter().filter(|task| facts.purpose.lanes.contains(task.core));
    let stop_us: Vec<&Task> = on_lanes
        .filter(|task| !task.bound && !nodes.contains(&task.process) && !queue_thread(facts, task))
        .filter(above)
        .collect();
    let Some(first) = stop_us.first() else {
        return match tasks.whole_machine() {
            true => Check::new(name, format!("lanes at {ours_at}, nothing above them"), Ok, why),
            false => Check::new(name, format!("lanes at {ours_at}; {OUTSIDE}"), NotApplicable, why),
        };
    };
    let shown: Vec<String> = stop_us.iter().map(|task| describe(task)).collect();
    let verdict = if stop_us.iter().all(|task| task.kernel) { Warn } else { Fail };
    let value = format!("lanes at {ours_at}; not below them: {}", some(&shown, SHOWN));
    let below = ours_at.saturating_sub(1).max(1);
    let undo = match first.policy {
        TaskPolicy::RealTime(priority) => format!("chrt -f -p {priority} {}", first.thread),
        _ => "start the program again".to_owned(),
    };
    Check::new(name, value, verdict, why)
        .remedy(format!("chrt -f -p {below} {} (and so on)", first.thread), undo)
}

/// Limits and capabilities, and what the kernel granted when it was asked.
pub(super) fn rights(facts: &Facts) -> Check {
    let mut limits = limits(facts);
    if !facts.live {
        limits.value.push_str("; SCHED_FIFO was not tried");
        return limits;
    }
    let tried = scheduling(facts);
    if tried.verdict == Fail && limits.verdict != Fail {
        return tried;
    }
    limits.value = format!("{}; {}", tried.value, limits.value);
    limits
}

pub(super) fn scheduling(facts: &Facts) -> Check {
    let why = "without SCHED_FIFO any normal task delays the control loop";
    let of = |wanted: fn(&CoreProbe) -> bool| -> Vec<&CoreProbe> {
        facts.probes.iter().filter(|probe| wanted(probe)).collect()
    };
    let granted = of(CoreProbe::granted);
    let refused = of(|probe| probe.refusal.is_some());
    let busy = of(|probe| probe.busy && probe.refusal.is_none());
    let list =
        |probes: &[&CoreProbe]| -> CoreList { probes.iter().map(|probe| probe.core).collect() };
    let name = "rights";
    match refused.first() {
        None if facts.probes.is_empty() => Check::new(name, "no usable core to try on", Fail, why)
            .remedy("give the process a core (taskset, cpuset)", "-"),
        None => {
            let mut found = Vec::new();
            if !granted.is_empty() {
                found.push(format!("SCHED_FIFO read back on {}", named(&list(&granted))));
            }
            if !busy.is_empty() {
                let cores = named(&list(&busy));
                found.push(format!("not tried on {cores}, which real-time threads keep"));
            }
            let verdict = if granted.is_empty() { NotApplicable } else { Ok };
            Check::new(name, found.join("; "), verdict, why)
        }
        Some(first) => {
            let Refusal { what, got, reason, fix, .. } =
                first.refusal.as_ref().expect("partitioned");
            let value = format!("{what} refused on {}: {got}; {reason}", named(&list(&refused)));
            Check::new(name, value, Fail, why)
                .remedy(fix, "remove the limits line or capability again")
        }
    }
}

pub(super) fn limits(facts: &Facts) -> Check {
    let why =
        "threads need SCHED_FIFO at their priority, and locked memory must not run into a limit";
    let name = "rights";
    let rights = &facts.privileges;
    let needed = u64::from(facts.purpose.priority);
    let mut faults = Vec::new();
    let mut lines = Vec::new();
    let shown = |limit: Option<u64>| match limit {
        None => "unknown".to_owned(),
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(limit) => limit.to_string(),
    };
    if rights.user_id.is_none() {
        return Check::new(name, "the process's status is not readable", NotApplicable, why);
    }
    if !rights.has(CAP_SYS_NICE) && rights.rtprio_limit.unwrap_or(0) < needed {
        faults.push(format!("RTPRIO {} < {needed}", shown(rights.rtprio_limit)));
        lines.push("\"* - rtprio 99\"");
    }
    if !rights.has(CAP_IPC_LOCK) && rights.memlock_limit_bytes.unwrap_or(0) < MEMLOCK_NEED_BYTES {
        faults.push(format!("MEMLOCK {} bytes", shown(rights.memlock_limit_bytes)));
        lines.push("\"* - memlock unlimited\"");
    }
    let group = rights.rt_group.as_ref().filter(|group| {
        let throttled = facts.kernel.throttling.runtime_us.is_none_or(|runtime| runtime >= 0);
        group.runtime_us == 0 && throttled
    });
    if group.is_some() {
        faults.push("the CPU cgroup has no real-time runtime".to_owned());
    }
    let rttime = rights.rttime_limit_us.unwrap_or(u64::MAX);
    if !faults.is_empty() {
        let mut fixes = Vec::new();
        if !lines.is_empty() {
            let lines = lines.join(" and ");
            fixes.push(format!("put {lines} into /etc/security/limits.d/99-sinew.conf and log in again (systemd: LimitRTPRIO=99, LimitMEMLOCK=infinity)"));
        }
        let write = |group: &sinew_rt::kernel::RtGroup| {
            Write::new(format!("{}/cpu.rt_runtime_us", group.path), 950_000, group.runtime_us)
        };
        let writes: Vec<Write> = group.map(write).into_iter().collect();
        fixes.extend(writes.iter().map(|write| format!("echo {} > {}", write.value, write.path)));
        return Check::new(name, faults.join(", "), Fail, why)
            .remedy(fixes.join("; "), "remove what was added, and log in again")
            .writes(writes);
    }
    if rttime != u64::MAX {
        let value = format!("RTTIME {rttime} µs: a thread that spins longer is killed");
        return Check::new(name, value, Warn, why).remedy(
            "ulimit -R unlimited (systemd: LimitRTTIME=infinity)",
            format!("ulimit -R {rttime}"),
        );
    }
    let by = |capability, name: &str, limit: Option<u64>, unit: &str| match rights.has(capability) {
        true => format!("{name} by capability"),
        false => {
            format!("{name} {}{}", shown(limit), if limit == Some(u64::MAX) { "" } else { unit })
        }
    };
    let rtprio = by(CAP_SYS_NICE, "RTPRIO", rights.rtprio_limit, "");
    let memlock = by(CAP_IPC_LOCK, "MEMLOCK", rights.memlock_limit_bytes, " bytes");
    Check::new(name, format!("{rtprio}, {memlock}"), Ok, why)
}
