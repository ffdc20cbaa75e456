//! The lanes' cores: what else the scheduler and the kernel do there, and what they share.

use sinew_rt::topology::{CacheKind, CoreId, CoreList};

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, REBOOT_UNDO, named};

pub(super) fn hardware_threads(facts: &Facts) -> Check {
    const PATH: &str = "/sys/devices/system/cpu/smt/control";
    let why = "the other hardware thread of a core takes its execution units at any moment";
    let name = "hardware threads";
    let topology = &facts.topology;
    let busy_sibling = |core: &CoreId| {
        topology.siblings_of(*core).iter().any(|sibling| topology.online.contains(sibling))
    };
    let shared: CoreList = facts.purpose.lanes.iter().filter(busy_sibling).collect();
    if shared.is_empty() {
        // Without the kernel's word every core looks as if it were alone.
        let unnumbered =
            |core: CoreId| topology.core(core).is_none_or(|c| c.core_in_package.is_none());
        if facts.kernel.smt_active.is_none() && facts.purpose.lanes.iter().any(unnumbered) {
            return Check::new(name, "the kernel does not show them", NotApplicable, why);
        }
        return Check::new(name, "no core for lanes has a sibling online", Ok, why);
    }
    let with = format!("{} with siblings", named(&shared));
    match facts.kernel.smt_active {
        Some(true) => Check::new(name, format!("SMT is on; {with}"), Warn, why)
            .set(vec![super::Write::new(PATH, "off", "on")]),
        // A kernel that does not say has no switch either.
        _ => Check::new(name, format!("SMT state unreadable; {with}"), Warn, why)
            .remedy("switch SMT off in the firmware's set-up", "switch it on again"),
    }
}

pub(super) fn isolation(facts: &Facts) -> Check {
    let why =
        "on an isolated core the scheduler places no other task; everything else needs a core too";
    let name = "isolation";
    let usable = facts.topology.usable_cores();
    let lanes = &facts.purpose.lanes;
    if usable.len() < 2 {
        let value = format!("{} usable core: lanes and everything else share it", usable.len());
        return Check::new(name, value, Warn, why).remedy(
            "give the process more cores (taskset -c 0-N, cpuset.cpus, docker --cpuset-cpus)",
            "take them away again",
        );
    }
    let isolated: CoreList = facts
        .topology
        .isolated
        .iter()
        .chain(facts.settings.isolated_by_cpuset.iter())
        .filter(|core| usable.contains(*core))
        .collect();
    if isolated.len() == usable.len() {
        let fix = "leave at least one core out of isolcpus= on the kernel command line, and reboot";
        let value =
            format!("all usable cores ({isolated}) are isolated: none is left for housekeeping");
        return Check::new(name, value, Fail, why).remedy(fix, "put it back, and reboot");
    }
    let missing = lanes.difference(&isolated);
    if missing.is_empty() {
        return Check::new(name, named(&isolated), Ok, why);
    }
    let value = match isolated.is_empty() {
        true => format!("no usable core is isolated; lanes run on {}", named(lanes)),
        false => format!("{} isolated, but lanes run on {}", named(&isolated), named(lanes)),
    };
    let fix =
        format!("add isolcpus=managed_irq,domain,{lanes} to the kernel command line, and reboot");
    Check::new(name, value, Warn, why).remedy(fix, REBOOT_UNDO)
}

pub(super) fn tick(facts: &Facts) -> Check {
    let why = "a lane that spins loses some microseconds at every tick; without one, each sleep and wake-up costs more";
    let name = "tick";
    let lanes = &facts.purpose.lanes;
    let stopped = lanes.intersection(&facts.topology.nohz_full);
    let ticking = lanes.difference(&facts.topology.nohz_full);
    let built = facts.settings.nohz_full_built != Some(false);
    match facts.purpose.spins {
        Some(true) if !ticking.is_empty() => {
            let fix = match built {
                true => format!("add nohz_full={lanes} to the kernel command line, and reboot"),
                false => {
                    format!("boot a kernel with CONFIG_NO_HZ_FULL and nohz_full={lanes}")
                }
            };
            Check::new(name, format!("on for {}, where lanes spin", named(&ticking)), Warn, why)
                .remedy(fix, REBOOT_UNDO)
        }
        Some(false) if !stopped.is_empty() => {
            let value = format!("stopped on {}, where lanes sleep", named(&stopped));
            Check::new(name, value, Warn, why).remedy(
                "remove nohz_full= from the kernel command line, and reboot",
                "put it back, and reboot",
            )
        }
        None if stopped.is_empty() => {
            Check::new(name, "on: right for lanes that sleep (judge with --for)", Ok, why)
        }
        None => {
            let value = format!(
                "stopped on {}: right for lanes that spin (judge with --for)",
                named(&stopped)
            );
            Check::new(name, value, Ok, why)
        }
        Some(true) => Check::new(name, format!("stopped on {}", named(lanes)), Ok, why),
        Some(false) => Check::new(name, "on, and lanes sleep", Ok, why),
    }
}

pub(super) fn rcu_callbacks(facts: &Facts) -> Check {
    let why = "the kernel frees its memory in batches on the core that gave it up, between two runs of a lane";
    let name = "RCU callbacks";
    let lanes = &facts.purpose.lanes;
    // `nohz_full=` implies it (kernel-per-CPU-kthreads.rst).
    let moved: CoreList = match facts.kernel.parameter("rcu_nocbs") {
        // A kernel without the option takes no notice; one with it makes ready for changes at run time
        // by the bare word, and moves nothing (kernel/rcu/tree_nocb.h, rcu_nocb_setup).
        _ if facts.settings.rcu_nocb_built == Some(false) => CoreList::empty(),
        Some("all") => facts.topology.online.clone(),
        Some(list) => list_up_to(list, &facts.topology.possible),
        None => CoreList::empty(),
    };
    let moved: CoreList = moved.iter().chain(facts.topology.nohz_full.iter()).collect();
    let left = lanes.difference(&moved);
    if left.is_empty() {
        return Check::new(name, format!("moved away from {}", named(lanes)), Ok, why);
    }
    let value = format!("run on {}", named(&left));
    if facts.purpose.spins == Some(false) {
        return Check::new(name, format!("{value}, where lanes sleep in between"), Ok, why);
    }
    let fix = match facts.settings.rcu_nocb_built {
        Some(false) => format!("boot a kernel with CONFIG_RCU_NOCB_CPU and rcu_nocbs={lanes}"),
        _ => format!("add rcu_nocbs={lanes} to the kernel command line, and reboot"),
    };
    Check::new(name, value, Warn, why).remedy(fix, REBOOT_UNDO)
}

/// A core list of the command line, where `N` stands for the last core.
fn list_up_to(list: &str, possible: &CoreList) -> CoreList {
    let last = possible.iter().next_back().map_or(0, CoreId::get);
    list.replace('N', &last.to_string()).parse().unwrap_or_default()
}

pub(super) fn cache_sharing(facts: &Facts) -> Check {
    let why = "what runs on the other cores of a cache pushes the lanes' data out of it";
    let name = "cache sharing";
    let lanes = &facts.purpose.lanes;
    let mut shared: Vec<(u8, CoreId, CoreList)> = Vec::new();
    let mut any = false;
    let mut last = 0;
    for core in lanes.iter().filter_map(|core| facts.topology.core(core)) {
        let data = core.caches.iter().filter(|cache| cache.kind != CacheKind::Instruction);
        for cache in data {
            any = true;
            last = last.max(cache.level);
            let others = cache.shared.difference(lanes).difference(&core.siblings);
            if !others.is_empty() {
                shared.push((cache.level, core.id, others));
            }
        }
    }
    if !any {
        return Check::new(name, "the kernel shows no caches", NotApplicable, why);
    }
    // A cache that only some cores share is there to choose cores by; the last level is everybody's.
    let near = shared.iter().filter(|(level, ..)| *level < last).min_by_key(|(level, ..)| *level);
    if let Some((level, core, others)) = near {
        let value = format!("core {core} shares its level {level} with {}", named(others));
        return Check::new(name, value, Warn, why).remedy(
            "set realtime.cores to cores that share no near cache with others, or isolate those too",
            "set realtime.cores back",
        );
    }
    let divided = match facts.settings.resctrl {
        true => "resctrl is mounted and can divide it",
        false => "resctrl is not mounted",
    };
    let value = match shared.first() {
        None => "lanes share no cache with others".to_owned(),
        Some((level, _, others)) => {
            format!("only the last level ({level}), with {}; {divided}", named(others))
        }
    };
    Check::new(name, value, Ok, why)
}
