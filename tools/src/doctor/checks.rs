//! The verdicts: each check is a pure function of the facts.
//!
//! `fail` means that real-time work cannot be relied on, `warn` that it works with higher latency
//! or less certainty. The table in the design's page on real time says what each one is for.

use std::collections::BTreeSet;

use sinew_rt::kernel::{CAP_IPC_LOCK, CAP_SYS_NICE, DynamicMode, Preemption};
use sinew_rt::thread::Refusal;
use sinew_rt::topology::CoreList;

use super::report::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts};

/// The priority that lanes have unless told otherwise: the limits must allow it.
const LANE_PRIORITY: u64 = sinew_io::node::DEFAULT_PRIORITY.get() as u64;

/// Exit latency of an idle state that is harmless: a tenth of a 100 µs budget.
const EXIT_LATENCY_LIMIT_US: u64 = 10;

/// Locked memory that a node with room to grow needs.
const MEMLOCK_NEED_BYTES: u64 = 128 * 1024 * 1024;

/// Every check, in the order in which a person would fix them.
pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    vec![
        scheduling(facts),
        limits(facts),
        memory_lock(facts),
        kernel_type(facts),
        throttling(facts),
        fair_server(facts),
        cores(facts),
        isolation(facts),
        hardware_threads(facts),
        governor(facts),
        idle_states(facts),
        clock_source(facts),
        virtualisation(facts),
        huge_pages(facts),
    ]
}

fn scheduling(facts: &Facts) -> Check {
    let why = "without SCHED_FIFO any normal task delays the control loop";
    let (granted, refused): (Vec<_>, Vec<_>) =
        facts.probes.iter().partition(|probe| probe.refusal.is_none());
    let list = |probes: &[&super::CoreProbe]| -> CoreList {
        probes.iter().map(|probe| probe.core).collect()
    };
    let name = "scheduling";
    match refused.first() {
        None if granted.is_empty() => Check::new(name, "no usable core to try on", Fail, why)
            .remedy("give the process a core (taskset, cpuset)", "-"),
        None => {
            let value = format!("SCHED_FIFO read back on cores {}", list(&granted));
            Check::new(name, value, Ok, why)
        }
        Some(first) => {
            let Refusal { what, got, reason, fix, .. } =
                first.refusal.as_ref().expect("partitioned");
            let value = format!("{what} refused on cores {}: {got}; {reason}", list(&refused));
            Check::new(name, value, Fail, why)
                .remedy(fix, "remove the limits line or capability again")
        }
    }
}

fn limits(facts: &Facts) -> Check {
    let why = "threads need their priority, and locked memory must not run into a limit";
    let rights = &facts.privileges;
    let mut faults = Vec::new();
    let mut lines = Vec::new();
    let shown = |limit: Option<u64>| match limit {
        None => "unknown".to_owned(),
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(limit) => limit.to_string(),
    };
    if !rights.has(CAP_SYS_NICE) && rights.rtprio_limit.unwrap_or(0) < LANE_PRIORITY {
        faults.push(format!("RTPRIO {} < {LANE_PRIORITY}", shown(rights.rtprio_limit)));
        lines.push("\"* - rtprio 99\"");
    }
    if !rights.has(CAP_IPC_LOCK) && rights.memlock_limit_bytes.unwrap_or(0) < MEMLOCK_NEED_BYTES {
        faults.push(format!("MEMLOCK {} bytes", shown(rights.memlock_limit_bytes)));
        lines.push("\"* - memlock unlimited\"");
    }
    if rights.rt_group.as_ref().is_some_and(|group| group.runtime_us == 0)
        && facts.kernel.throttling.runtime_us.is_none_or(|runtime| runtime >= 0)
    {
        faults.push("the CPU cgroup has no real-time runtime".to_owned());
    }
    let rttime = rights.rttime_limit_us.unwrap_or(u64::MAX);
    if !faults.is_empty() {
        let mut fixes = Vec::new();
        if !lines.is_empty() {
            let lines = lines.join(" and ");
            fixes.push(format!("put {lines} into /etc/security/limits.d/99-sinew.conf and log in again (systemd: LimitRTPRIO=99, LimitMEMLOCK=infinity)"));
        }
        if let Some(group) = rights.rt_group.as_ref().filter(|group| group.runtime_us == 0) {
            fixes.push(format!("echo 950000 > {}/cpu.rt_runtime_us", group.path));
        }
        return Check::new("limits", faults.join(", "), Fail, why)
            .remedy(fixes.join("; "), "remove what was added, and log in again");
    }
    if rttime != u64::MAX {
        let value = format!("RTTIME {rttime} µs: a thread that spins longer is killed");
        return Check::new("limits", value, Warn, why).remedy(
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
    Check::new("limits", format!("{rtprio}, {memlock}"), Ok, why)
}

fn memory_lock(facts: &Facts) -> Check {
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
    let value = match memory.usage.locked_bytes {
        0 => "not locked yet; the limits allow it".to_owned(),
        bytes => format!("{} KiB locked, read back", bytes / 1024),
    };
    Check::new(name, value, Ok, why)
}

fn kernel_type(facts: &Facts) -> Check {
    let why = "only PREEMPT_RT bounds how long kernel code can hold up a real-time thread";
    let preemption = facts.kernel.preemption;
    let value = format!("{preemption}, {}", facts.kernel.release);
    let verdict = if preemption == Preemption::RealTime { Ok } else { Warn };
    let check = Check::new("kernel type", value, verdict, why);
    let install = "install a PREEMPT_RT kernel (Debian: apt install linux-image-rt-amd64; Ubuntu: pro enable realtime-kernel)";
    match preemption {
        Preemption::Dynamic(mode @ (DynamicMode::None | DynamicMode::Voluntary)) => {
            let mode = if mode == DynamicMode::None { "none" } else { "voluntary" };
            check.remedy(
                format!("{install}; until then: echo full > /sys/kernel/debug/sched/preempt"),
                format!("boot the other kernel; echo {mode} > /sys/kernel/debug/sched/preempt"),
            )
        }
        _ => check.remedy(install, "boot the other kernel"),
    }
}

fn throttling(facts: &Facts) -> Check {
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
    match throttling.spin_allowed() {
        Result::Ok(()) => Check::new(name, setting, Ok, why),
        Err(refused) => {
            let undo = match throttling.runtime_us {
                Some(runtime) => format!("sysctl kernel.sched_rt_runtime_us={runtime}"),
                None => "sysctl kernel.sched_rt_runtime_us=950000".to_owned(),
            };
            Check::new(name, refused.reason, Warn, why).remedy(refused.fix, undo)
        }
    }
}

fn fair_server(facts: &Facts) -> Check {
    let why = "it gives a starved normal task 50 ms of each second on a core where a lane spins";
    let name = "fair server";
    if facts.kernel.throttling.kernel.is_some_and(|kernel| kernel < (6, 12)) {
        return Check::new(name, "kernels before 6.12 have none", NotApplicable, why);
    }
    let Some(servers) = &facts.kernel.fair_servers else {
        return Check::new(name, "not readable", NotApplicable, why);
    };
    let lanes = facts.topology.real_time_cores();
    let on: Vec<_> = servers
        .iter()
        .filter(|server| server.runtime_ns > 0 && lanes.contains(&server.core))
        .collect();
    let cores: CoreList = on.iter().map(|server| server.core).collect();
    let Some(first) = on.first() else {
        return Check::new(name, "off on the cores for lanes", Ok, why);
    };
    let each = |value: u64| {
        let write =
            |core| format!("echo {value} > /sys/kernel/debug/sched/fair_server/cpu{core}/runtime");
        cores.iter().map(write).collect::<Vec<_>>().join("; ")
    };
    let value = format!("{} of {} ns on cores {cores}", first.runtime_ns, first.period_ns);
    Check::new(name, value, Warn, why).remedy(each(0), each(first.runtime_ns))
}

fn cores(facts: &Facts) -> Check {
    let why = "lanes and everything else need at least a core each";
    let usable = facts.topology.usable_cores();
    let lanes: CoreList = facts.topology.real_time_cores().into_iter().collect();
    let value = format!("{usable} usable; {lanes} for lanes");
    match usable.len() {
        0 | 1 => Check::new("cores", value, Warn, why).remedy(
            "give the process more cores (taskset -c 0-N, cpuset.cpus, docker --cpuset-cpus)",
            "-",
        ),
        _ => Check::new("cores", value, Ok, why),
    }
}

fn isolation(facts: &Facts) -> Check {
    let why = "on an isolated core the scheduler places no other task";
    let name = "isolation";
    let usable = facts.topology.usable_cores();
    if usable.len() < 2 {
        return Check::new(name, "one usable core", NotApplicable, why);
    }
    let isolated = usable.intersection(&facts.topology.isolated);
    let lanes: CoreList = facts.topology.real_time_cores().into_iter().collect();
    let undo = "remove it from the command line, and reboot";
    if isolated.is_empty() {
        let fix = format!(
            "add isolcpus=managed_irq,domain,{lanes} to the kernel command line, and reboot"
        );
        return Check::new(name, "no usable core is isolated", Warn, why).remedy(fix, undo);
    }
    if isolated.len() == usable.len() {
        let fix = "leave at least one core out of isolcpus= on the kernel command line, and reboot";
        let value =
            format!("all usable cores ({isolated}) are isolated: none is left for housekeeping");
        return Check::new(name, value, Fail, why).remedy(fix, "put it back, and reboot");
    }
    Check::new(name, format!("cores {isolated}"), Ok, why)
}

fn hardware_threads(facts: &Facts) -> Check {
    let why = "the other hardware thread of a core takes its execution units at any moment";
    let name = "hardware threads";
    let topology = &facts.topology;
    let shared: CoreList = topology
        .real_time_cores()
        .into_iter()
        .filter(|core| {
            topology.siblings_of(*core).iter().any(|sibling| topology.online.contains(sibling))
        })
        .collect();
    match (facts.kernel.smt_active, shared.is_empty()) {
        (_, true) => Check::new(name, "no core for lanes has a sibling online", Ok, why),
        (active, false) => {
            let state = if active == Some(true) { "SMT is on" } else { "SMT state unreadable" };
            Check::new(name, format!("{state}; cores {shared} have siblings"), Warn, why).remedy(
                "echo off > /sys/devices/system/cpu/smt/control",
                "echo on > /sys/devices/system/cpu/smt/control",
            )
        }
    }
}

fn governor(facts: &Facts) -> Check {
    let why = "a core that changes its frequency stalls, and runs the same code at another speed";
    let name = "frequency governor";
    let all = &facts.kernel.frequencies;
    if all.is_empty() {
        return Check::new(name, "no frequency scaling visible", NotApplicable, why);
    }
    let names = |cores: &mut dyn Iterator<Item = &sinew_rt::kernel::CoreFrequency>| {
        let names: BTreeSet<&str> = cores.map(|core| core.governor.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let fixed = |core: &&sinew_rt::kernel::CoreFrequency| {
        core.governor == "performance" || (core.min_khz.is_some() && core.min_khz == core.max_khz)
    };
    let moving: Vec<_> = all.iter().filter(|core| !fixed(core)).collect();
    let Some(first) = moving.first() else {
        return Check::new(name, names(&mut all.iter()), Ok, why);
    };
    let cores: CoreList = moving.iter().map(|core| core.core).collect();
    let value = format!("{} on cores {cores}", names(&mut moving.iter().copied()));
    let set = |governor: &str| {
        format!("echo {governor} | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
    };
    Check::new(name, value, Warn, why).remedy(set("performance"), set(&first.governor))
}

fn idle_states(facts: &Facts) -> Check {
    let why = "waking from a deep idle state adds its exit latency to every wake-up";
    let name = "idle states";
    let slowest = facts.kernel.idle.iter().filter_map(|core| core.slowest_enabled());
    let Some(slowest) = slowest.max_by_key(|state| state.exit_latency_us) else {
        return Check::new(name, "the kernel offers none", NotApplicable, why);
    };
    let value = format!("slowest: {}, {} µs", slowest.name, slowest.exit_latency_us);
    let held = facts.latency.bound_us.filter(|bound| u64::from(*bound) <= EXIT_LATENCY_LIMIT_US);
    if slowest.exit_latency_us <= EXIT_LATENCY_LIMIT_US {
        Check::new(name, value, Ok, why)
    } else if let Some(bound) = held {
        Check::new(name, format!("{value}; held at {bound} µs now"), Ok, why)
    } else if facts.latency.may_hold {
        Check::new(name, format!("{value}; lanes hold /dev/cpu_dma_latency at 0"), Ok, why)
    } else {
        let value = format!("{value}, and this user may not hold /dev/cpu_dma_latency");
        Check::new(name, value, Warn, why).remedy(
            "chgrp realtime /dev/cpu_dma_latency && chmod 660 /dev/cpu_dma_latency (for good: udev rule KERNEL==\"cpu_dma_latency\", GROUP=\"realtime\", MODE=\"0660\")",
            "chgrp root /dev/cpu_dma_latency && chmod 600 /dev/cpu_dma_latency",
        )
    }
}

fn clock_source(facts: &Facts) -> Check {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let why = "every probe reads the clock: 20 ns from a counter, microseconds from a device";
    let name = "clock source";
    let Some(current) = facts.kernel.clock_source.as_deref() else {
        return Check::new(name, "not readable", NotApplicable, why);
    };
    let verdict = match current {
        "tsc" | "arch_sys_counter" | "riscv_clocksource" => Ok,
        // Virtual counters: no device access, but the hypervisor adjusts them.
        "kvm-clock" | "hyperv_clocksource_tsc_page" | "xen" => Warn,
        _ => Fail,
    };
    let counters = ["tsc", "arch_sys_counter"];
    let better = counters
        .iter()
        .find(|counter| facts.kernel.clock_sources_available.iter().any(|name| name == *counter));
    let fix = match better {
        Some(better) => format!("echo {better} > {PATH}"),
        None => "add tsc=reliable to the kernel command line, and reboot (only where the firmware keeps the counters in step)".to_owned(),
    };
    let undo = match better {
        Some(_) => format!("echo {current} > {PATH}"),
        None => "remove it from the command line, and reboot".to_owned(),
    };
    Check::new(name, current, verdict, why).remedy(fix, undo)
}

fn virtualisation(facts: &Facts) -> Check {
    let why = "a hypervisor can take a core away at any time: results say so, and prove nothing for bare metal";
    let name = "virtualisation";
    match &facts.kernel.hypervisor {
        None => Check::new(name, "no hypervisor reported", Ok, why),
        Some(make) => Check::new(name, format!("hypervisor {make}"), Warn, why)
            .remedy("measure and run on the target hardware", "-"),
    }
}

fn huge_pages(facts: &Facts) -> Check {
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
    Check::new(name, mode, verdict, why)
        .remedy(format!("echo never > {PATH}"), format!("echo {mode} > {PATH}"))
}

#[cfg(test)]
mod tests;
