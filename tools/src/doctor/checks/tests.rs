//! Each check on written facts: one machine where all is well, and one change that spoils it.

use sinew_rt::kernel::{
    CoreFrequency, CoreIdle, FairServer, IdleState, KernelFacts, Privileges, RtGroup, RtThrottling,
};
use sinew_rt::memory::MemoryUsage;
use sinew_rt::topology::{Core, CoreId, Topology};

use super::*;
use crate::doctor::facts::{CoreProbe, LatencyFacts, MemoryFacts};
use crate::doctor::report::{Verdict, VerdictCounts};

fn core_list(text: &str) -> CoreList {
    text.parse().unwrap()
}

/// A tuned four-core PREEMPT_RT machine with cores 2 and 3 isolated.
fn tuned() -> Facts {
    let ids = || (0..4).map(CoreId::new);
    Facts {
        kernel: KernelFacts {
            release: "6.12.8-rt5".to_owned(),
            version: "#1 SMP PREEMPT_RT".to_owned(),
            command_line: "isolcpus=2-3".to_owned(),
            preemption: Preemption::RealTime,
            throttling: RtThrottling {
                runtime_us: Some(-1),
                period_us: Some(1_000_000),
                group_scheduling: Some(false),
                group: None,
                kernel: Some((6, 12)),
            },
            fair_servers: Some(
                ids()
                    .map(|core| FairServer {
                        core,
                        // On for the housekeeping cores: that is no finding.
                        runtime_ns: if core.get() < 2 { 50_000_000 } else { 0 },
                        period_ns: 1_000_000_000,
                    })
                    .collect(),
            ),
            clock_source: Some("tsc".to_owned()),
            clock_sources_available: vec!["tsc".to_owned(), "hpet".to_owned()],
            hypervisor: None,
            processor: Some("Written CPU".to_owned()),
            frequencies: ids()
                .map(|core| CoreFrequency {
                    core,
                    governor: "performance".to_owned(),
                    min_khz: Some(800_000),
                    max_khz: Some(3_000_000),
                })
                .collect(),
            idle: ids()
                .map(|core| CoreIdle {
                    core,
                    states: vec![
                        IdleState { name: "C1".to_owned(), exit_latency_us: 2, disabled: false },
                        IdleState { name: "C6".to_owned(), exit_latency_us: 133, disabled: true },
                    ],
                })
                .collect(),
            smt_active: Some(false),
            transparent_huge_pages: Some("never".to_owned()),
        },
        topology: Topology {
            possible: core_list("0-3"),
            present: core_list("0-3"),
            online: core_list("0-3"),
            isolated: core_list("2-3"),
            nohz_full: CoreList::empty(),
            allowed: core_list("0-1"),
            cpuset: Some(core_list("0-3")),
            cores: ids()
                .map(|id| Core {
                    id,
                    package: Some(0),
                    core_in_package: Some(i32::from(id.get())),
                    siblings: CoreList::from_iter([id]),
                    capacity: None,
                    caches: Vec::new(),
                    interrupts: Some(0),
                })
                .collect(),
            nodes: Vec::new(),
        },
        privileges: Privileges {
            user_id: Some(1000),
            capabilities: 0,
            rtprio_limit: Some(99),
            memlock_limit_bytes: Some(u64::MAX),
            rttime_limit_us: Some(u64::MAX),
            rt_group: None,
        },
        probes: ids()
            .map(|core| CoreProbe { core, effective: "SCHED_FIFO 1".to_owned(), refusal: None })
            .collect(),
        memory: MemoryFacts {
            usage: MemoryUsage {
                virtual_bytes: 8 << 20,
                locked_bytes: 8 << 20,
                resident_bytes: 6 << 20,
                swapped_bytes: 0,
            },
            refused: Vec::new(),
        },
        latency: LatencyFacts { bound_us: Some(2_000_000_000), may_hold: true },
    }
}

/// The verdict of one check after a change to the tuned machine, which was `ok` before.
#[track_caller]
fn expect(check: fn(&Facts) -> Check, verdict: Verdict, change: impl FnOnce(&mut Facts)) -> Check {
    let mut facts = tuned();
    let before = check(&facts);
    assert_eq!(before.verdict, Ok, "{before:?}");
    assert_eq!((before.fix, before.undo), (None, None));
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
    let check =
        expect(scheduling, Fail, |facts| facts.probes[2].refusal = Some(refusal("scheduling")));
    assert!(check.value.contains("cores 2") && check.value.contains("because"), "{check:?}");
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
    let check = expect(kernel_type, Warn, |facts| {
        facts.kernel.preemption = Preemption::Dynamic(DynamicMode::Voluntary);
    });
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
    assert!(check.undo.unwrap().starts_with("echo 50000000 >"));
    expect(fair_server, NotApplicable, |facts| facts.kernel.fair_servers = None);
    expect(fair_server, NotApplicable, |facts| facts.kernel.throttling.kernel = Some((6, 1)));
}

#[test]
fn one_core_is_not_enough() {
    let single = |facts: &mut Facts| {
        facts.topology.isolated = CoreList::empty();
        facts.topology.allowed = core_list("1");
    };
    expect(cores, Warn, single);
    expect(isolation, NotApplicable, single);
}

#[test]
fn isolation_warns_without_and_fails_when_nothing_is_left() {
    let check = expect(isolation, Warn, |facts| {
        facts.topology.isolated = CoreList::empty();
        facts.topology.allowed = core_list("0-3");
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
        facts.kernel.frequencies[1].governor = "schedutil".to_owned();
    });
    assert_eq!(check.value, "schedutil on cores 1");
    assert!(check.undo.unwrap().starts_with("echo schedutil |"));
    expect(governor, Ok, |facts| {
        facts.kernel.frequencies[1].governor = "userspace".to_owned();
        facts.kernel.frequencies[1].min_khz = Some(3_000_000);
    });
    expect(governor, NotApplicable, |facts| facts.kernel.frequencies.clear());
}

#[test]
fn deep_idle_warns_unless_it_can_be_held_off() {
    let deep = |facts: &mut Facts| facts.kernel.idle[3].states[1].disabled = false;
    expect(idle_states, Ok, deep);
    let check = expect(idle_states, Warn, |facts| {
        deep(facts);
        facts.latency.may_hold = false;
    });
    assert!(check.value.contains("C6, 133 µs"));
    expect(idle_states, Ok, |facts| {
        deep(facts);
        facts.latency = LatencyFacts { bound_us: Some(0), may_hold: false };
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
    assert_eq!(check.value, "hypervisor kvm");
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
