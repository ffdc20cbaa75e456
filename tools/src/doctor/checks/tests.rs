//! Each check on written facts: one machine where all is well, and one change that spoils it. The
//! written trees of tests/trees, which tests/cli_doctor.rs judges, hold what is read; these hold the
//! fix, the undo, and what only a running machine has.

use std::collections::BTreeSet;

use sinew_rt::kernel::{CAP_IPC_LOCK, CAP_SYS_NICE, DynamicMode, Preemption, RtGroup};
use sinew_rt::thread::Refusal;
use sinew_rt::topology::{CoreId, Topology};

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::cores::{cache_sharing, hardware_threads, isolation};
use super::hardware::virtualisation;
use super::interrupts::{affinity, irqbalance, workqueues};
use super::kernel::{lockup_detectors, preemption as kernel_type};
use super::memory::{huge_pages, locked as memory_lock};
use super::network::devices;
use super::power::{governor, idle_states};
use super::scheduling::{
    fair_server, limits, priorities, rights, scheduling, strangers, throttling,
};
use super::time::clock_source;
use super::*;
use crate::doctor::facts::{CoreProbe, LatencyFacts};
use crate::doctor::purpose::Purpose;
use crate::doctor::report::VerdictCounts;

#[path = "../../../tests/trees/mod.rs"]
mod trees;

fn core_list(text: &str) -> CoreList {
    text.parse().unwrap()
}

/// The machine of all written trees that pass, and what trying would show there.
fn tuned() -> Facts {
    let root = trees::tuned();
    let topology = Topology::read_from(root.path()).unwrap();
    let purpose = Purpose::any(&topology);
    let mut facts = Facts::captured(root.path(), topology, purpose);
    facts.live = true;
    facts.probes = (0..4)
        .map(|core| CoreProbe {
            core: CoreId::new(core),
            effective: "SCHED_FIFO 1".to_owned(),
            refusal: None,
            busy: false,
        })
        .collect();
    facts.latency = LatencyFacts { bound_us: Some(2_000_000_000), may_hold: Some(true) };
    facts.privileges.capabilities = 0;
    facts.privileges.rtprio_limit = Some(99);
    facts.privileges.memlock_limit_bytes = Some(u64::MAX);
    facts.privileges.rttime_limit_us = Some(u64::MAX);
    facts
}

/// Judges for the cores that lanes would be put on after a change of the topology.
fn judge_anew(facts: &mut Facts) {
    facts.purpose = Purpose::any(&facts.topology);
}

/// The verdict of one check after a change to the tuned machine, which was `ok` before.
#[track_caller]
fn expect(check: fn(&Facts) -> Check, verdict: Verdict, change: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = tuned();
    let before = check(&facts);
    assert_eq!(before.verdict, Ok, "{before:?}");
    assert_eq!((&before.fix, &before.undo), (&None, &None));
    change(&mut facts);
    let after = check(&facts);
    assert_eq!(after.verdict, verdict, "{after:?}");
    let finding = matches!(verdict, Warn | Fail);
    assert_eq!(after.fix.is_some() && after.undo.is_some(), finding, "{after:?}");
    after
}

fn refusal(what: &str) -> Refusal {
    Refusal {
        what: what.to_owned(),
        wanted: "this".to_owned(),
        got: "that".to_owned(),
        reason: "because".to_owned(),
        fix: "do it".to_owned(),
    }
}

#[test]
fn a_tuned_machine_passes_every_check() {
    let checks = all(&tuned());
    let counts = VerdictCounts::of(&checks);
    assert_eq!(
        counts,
        VerdictCounts { ok: checks.len(), ..VerdictCounts::default() },
        "{checks:?}"
    );
    let names: BTreeSet<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names.len(), checks.len(), "a name appears twice");
}

#[test]
fn scheduling_fails_when_any_core_refuses() {
    let check = expect(rights, Fail, |facts| facts.probes[2].refusal = Some(refusal("scheduling")));
    assert!(check.value.contains("core 2"), "{check:?}");
    let check =
        expect(scheduling, Fail, |facts| facts.probes[2].refusal = Some(refusal("scheduling")));
    let busy = expect(scheduling, Ok, |facts| facts.probes[1].busy = true);
    assert!(busy.value.contains("not tried on core 1"), "{}", busy.value);
    let all_busy = |facts: &mut Facts| facts.probes.iter_mut().for_each(|probe| probe.busy = true);
    expect(scheduling, NotApplicable, all_busy);
    assert!(check.value.contains("core 2") && check.value.contains("because"), "{check:?}");
    assert_eq!(check.fix.as_deref(), Some("do it"));
    expect(scheduling, Fail, |facts| facts.probes.clear());
}

#[test]
fn limits_fail_when_the_priority_or_the_memory_is_not_allowed() {
    let enough = u64::from(sinew_io::node::DEFAULT_PRIORITY.get());
    expect(limits, Ok, |facts| facts.privileges.rtprio_limit = Some(enough));
    let too_low = |facts: &mut Facts| facts.privileges.rtprio_limit = Some(enough - 1);
    let check = expect(limits, Fail, too_low);
    assert!(check.fix.unwrap().contains("rtprio 99"));
    let check = expect(limits, Fail, |facts| facts.privileges.memlock_limit_bytes = Some(8 << 20));
    assert!(check.fix.unwrap().contains("memlock unlimited"));
    expect(limits, Fail, |facts| facts.privileges.rtprio_limit = None);
    expect(limits, Warn, |facts| facts.privileges.rttime_limit_us = Some(200_000));
    // Capabilities lift both.
    expect(limits, Ok, |facts| {
        facts.privileges.capabilities = 1 << CAP_SYS_NICE | 1 << CAP_IPC_LOCK;
        facts.privileges.rtprio_limit = Some(0);
        facts.privileges.memlock_limit_bytes = Some(0);
    });
}

#[test]
fn a_cgroup_without_runtime_fails_unless_throttling_is_off_altogether() {
    let group = |facts: &mut Facts| {
        facts.privileges.rt_group = Some(RtGroup {
            path: "/sys/fs/cgroup/cpu/robot".to_owned(),
            runtime_us: 0,
            period_us: 1_000_000,
        });
    };
    let check = expect(limits, Fail, |facts| {
        group(facts);
        facts.kernel.throttling.runtime_us = Some(950_000);
    });
    assert!(check.fix.unwrap().contains("/sys/fs/cgroup/cpu/robot/cpu.rt_runtime_us"));
    expect(limits, Ok, group);
}

#[test]
fn memory_fails_unlocked_or_swapped_and_warns_about_the_allocator() {
    expect(memory_lock, Fail, |facts| facts.memory.refused.push(refusal("memory lock")));
    expect(memory_lock, Warn, |facts| facts.memory.refused.push(refusal("heap pre-fault")));
    expect(memory_lock, Fail, |facts| facts.memory.usage.swapped_bytes = 4096);
}

#[test]
fn any_kernel_but_preempt_rt_warns() {
    for other in [Preemption::Full, Preemption::Voluntary, Preemption::Unknown] {
        expect(kernel_type, Warn, |facts| facts.kernel.preemption = other);
    }
    let voluntary = |facts: &mut Facts| {
        facts.kernel.preemption = Preemption::Dynamic(DynamicMode::Voluntary);
    };
    let check = expect(kernel_type, Warn, voluntary);
    assert!(check.writes.is_empty(), "where the switch is not to be seen");
    let check = expect(kernel_type, Warn, |facts| {
        voluntary(facts);
        facts.settings.preemption_switch = true;
    });
    assert_eq!(check.writes[0].value, "full");
    assert!(check.fix.unwrap().contains("echo full > /sys/kernel/debug/sched/preempt"));
    assert!(check.undo.unwrap().contains("echo voluntary"));
}

#[test]
fn throttling_warns_with_the_value_to_go_back_to() {
    let check = expect(throttling, Warn, |facts| {
        facts.kernel.throttling.runtime_us = Some(900_000);
        facts.kernel.throttling.group_scheduling = Some(true);
    });
    assert_eq!(check.undo.as_deref(), Some("sysctl kernel.sched_rt_runtime_us=900000"));
    expect(throttling, Ok, |facts| facts.kernel.throttling.runtime_us = Some(950_000));
}

#[test]
fn the_fair_server_warns_on_cores_for_lanes_only() {
    let check = expect(fair_server, Warn, |facts| {
        for server in facts.kernel.fair_servers.as_mut().unwrap() {
            server.runtime_ns = 50_000_000;
        }
    });
    assert!(check.value.contains("cores 2-3"));
    assert!(check.fix.as_ref().unwrap().contains("cpu3/runtime"));
    assert!(!check.fix.unwrap().contains("cpu0/runtime"));
    assert!(check.undo.unwrap().starts_with("echo 50000000 | tee "));
    expect(fair_server, NotApplicable, |facts| facts.kernel.fair_servers = None);
    expect(fair_server, NotApplicable, |facts| facts.kernel.throttling.kernel = Some((6, 1)));
}

#[test]
fn one_core_is_not_enough() {
    let check = expect(isolation, Warn, |facts| {
        facts.topology.isolated = CoreList::empty();
        facts.topology.allowed = core_list("1");
        judge_anew(facts);
    });
    assert!(check.value.contains("1 usable core"), "{check:?}");
}

#[test]
fn isolation_warns_without_and_fails_when_nothing_is_left() {
    let check = expect(isolation, Warn, |facts| {
        facts.topology.isolated = CoreList::empty();
        facts.topology.allowed = core_list("0-3");
        judge_anew(facts);
    });
    assert!(check.fix.unwrap().contains("isolcpus=managed_irq,domain,1-3"));
    let check = expect(isolation, Fail, |facts| facts.topology.isolated = core_list("0-3"));
    assert!(check.value.contains("none is left for housekeeping"));
}

#[test]
fn a_sibling_of_a_lane_core_warns() {
    expect(hardware_threads, Warn, |facts| {
        facts.kernel.smt_active = Some(true);
        facts.topology.cores[2].siblings = core_list("2-3");
    });
    // The sibling is switched off: no finding, although the mask still names it.
    expect(hardware_threads, Ok, |facts| {
        facts.topology.cores[2].siblings = core_list("2,9");
    });
    expect(hardware_threads, Ok, |facts| facts.topology.cores[0].siblings = core_list("0-1"));
}

#[test]
fn a_moving_frequency_warns_and_a_pinned_one_does_not() {
    let check = expect(governor, Warn, |facts| {
        facts.kernel.frequencies[2].governor = "schedutil".to_owned();
    });
    assert_eq!(check.value, "schedutil on core 2");
    assert!(check.undo.unwrap().starts_with("echo schedutil > /sys/devices/system/cpu/cpu2/"));
    let no_lane = |facts: &mut Facts| facts.kernel.frequencies[1].governor = "powersave".to_owned();
    expect(governor, Ok, no_lane);
    expect(governor, Ok, |facts| {
        facts.kernel.frequencies[2].governor = "userspace".to_owned();
        facts.kernel.frequencies[2].min_khz = Some(3_000_000);
    });
    expect(governor, NotApplicable, |facts| facts.kernel.frequencies.clear());
}

#[test]
fn deep_idle_warns_unless_it_can_be_held_off() {
    let deep = |facts: &mut Facts| facts.kernel.idle[3].states[1].disabled = false;
    expect(idle_states, Ok, deep);
    let check = expect(idle_states, Warn, |facts| {
        deep(facts);
        facts.latency.may_hold = Some(false);
    });
    assert!(check.value.contains("C6, 133 µs"));
    expect(idle_states, Ok, |facts| {
        deep(facts);
        facts.latency = LatencyFacts { bound_us: Some(0), may_hold: Some(false) };
    });
    expect(idle_states, NotApplicable, |facts| facts.kernel.idle.clear());
}

#[test]
fn clock_sources_are_graded_by_what_reading_them_costs() {
    let set = |name: &'static str| {
        move |facts: &mut Facts| facts.kernel.clock_source = Some(name.to_owned())
    };
    expect(clock_source, Ok, set("arch_sys_counter"));
    expect(clock_source, Warn, set("kvm-clock"));
    let check = expect(clock_source, Fail, set("hpet"));
    assert!(check.fix.unwrap().starts_with("echo tsc >"));
    assert!(check.undo.unwrap().starts_with("echo hpet >"));
    let check = expect(clock_source, Fail, |facts| {
        facts.kernel.clock_source = Some("acpi_pm".to_owned());
        facts.kernel.clock_sources_available = vec!["acpi_pm".to_owned()];
    });
    assert!(check.fix.unwrap().contains("tsc=reliable"));
    expect(clock_source, NotApplicable, |facts| facts.kernel.clock_source = None);
}

#[test]
fn a_virtual_machine_warns() {
    let check =
        expect(virtualisation, Warn, |facts| facts.kernel.hypervisor = Some("kvm".to_owned()));
    assert!(check.value.starts_with("hypervisor kvm"), "{check:?}");
}

#[test]
fn huge_pages_warn_on_request_and_fail_always() {
    let set = |mode: &'static str| {
        move |facts: &mut Facts| facts.kernel.transparent_huge_pages = Some(mode.to_owned())
    };
    expect(huge_pages, Warn, set("madvise"));
    let check = expect(huge_pages, Fail, set("always"));
    assert!(check.undo.unwrap().starts_with("echo always >"));
    expect(huge_pages, NotApplicable, |facts| facts.kernel.transparent_huge_pages = None);
}

#[test]
fn the_fixes_of_interrupts_and_workqueues_name_the_cores_that_are_left() {
    let check = expect(affinity, Warn, |facts| {
        for interrupt in facts.interrupts.as_mut().unwrap() {
            interrupt.effective = Some(core_list("2"));
            interrupt.allowed = Some(core_list("0-3"));
        }
        // Two queues on one core: neither is there on purpose.
        facts.nics = None;
    });
    assert!(check.value.contains("2 go to cores 2-3: 9 acpi, 36 eth0-rx-0"), "{check:?}");
    assert_eq!(check.writes[0].value, "0-1");
    assert_eq!(
        (&*check.writes[0].path, &*check.writes[0].old),
        ("/proc/irq/9/smp_affinity_list", "0-3"),
        "all that it was allowed, not only where it went"
    );
    let check = expect(workqueues, Warn, |facts| facts.settings.workqueues[1].1 = core_list("1,3"));
    assert_eq!((&*check.writes[0].value, &*check.writes[0].old), ("2", "a"));
    expect(irqbalance, NotApplicable, |facts| facts.counters.tasks = None);
}

#[test]
fn ethtool_is_told_only_what_the_driver_has_and_the_undo_has_all_of_it() {
    let check = expect(devices, Warn, |facts| {
        let coalescing = facts.nics.as_mut().unwrap()[0].coalescing.as_mut().unwrap();
        (coalescing.rx_us, coalescing.adaptive_tx) = (50, true);
    });
    let commands = (check.fix.as_deref(), check.undo.as_deref());
    assert_eq!(
        commands,
        (
            Some("ethtool -C eth0 adaptive-tx off rx-usecs 0"),
            Some("ethtool -C eth0 adaptive-tx on rx-usecs 50")
        )
    );
}

#[test]
fn what_cannot_be_seen_is_not_called_fine() {
    let container = |facts: &mut Facts| {
        facts.counters.tasks.as_mut().unwrap().all.retain(|task| !task.kernel);
    };
    expect(strangers, NotApplicable, container);
    expect(priorities, NotApplicable, container);
    expect(lockup_detectors, NotApplicable, |facts| {
        (facts.settings.nmi_watchdog, facts.settings.soft_watchdog) = (None, None);
    });
    expect(devices, NotApplicable, |facts| facts.nics = None);
    expect(cache_sharing, NotApplicable, |facts| {
        facts.topology.cores.iter_mut().for_each(|core| core.caches.clear());
    });
}

#[test]
fn lanes_that_never_spin_need_no_unthrottled_core() {
    let throttled = |facts: &mut Facts| {
        facts.kernel.throttling.runtime_us = Some(950_000);
        facts.kernel.throttling.group_scheduling = Some(true);
    };
    expect(throttling, Ok, |facts| {
        throttled(facts);
        facts.purpose.spins = Some(false);
    });
    expect(throttling, Warn, |facts| {
        throttled(facts);
        facts.purpose.spins = Some(true);
    });
}
