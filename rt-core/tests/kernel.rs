//! Kernel facts from written trees, the rule for spinning, and this machine's own facts.

mod trees;

use std::io::Write;
use std::path::Path;

use sinew_rt::kernel::{
    DynamicMode, FairServer, KernelFacts, Preemption, Privileges, RtGroup, RtThrottling,
};
use sinew_rt::topology::CoreId;
use trees::tree;

fn facts(changes: &[(&str, &str)]) -> KernelFacts {
    KernelFacts::read_from(tree("written-rt-workstation", changes).path())
}

#[test]
fn a_tuned_workstation_is_read_in_full() {
    let facts = facts(&[]);
    assert_eq!(facts.release, "6.12.8-rt5-custom");
    assert_eq!(facts.preemption, Preemption::RealTime);
    assert_eq!(facts.throttling.kernel, Some((6, 12)));
    assert_eq!(facts.throttling.runtime_us, Some(-1));
    assert_eq!(facts.throttling.group_scheduling, Some(false));
    assert_eq!(facts.throttling.spin_allowed(), Ok(()));
    let server = FairServer { core: CoreId::new(1), runtime_ns: 0, period_ns: 1_000_000_000 };
    assert_eq!(facts.fair_servers.as_ref().unwrap()[1], server);
    assert_eq!(facts.clock_source.as_deref(), Some("tsc"));
    assert_eq!(facts.hypervisor, None);
    assert_eq!(facts.processor.as_deref(), Some("Written CPU @ 3.00GHz"));
    assert_eq!(facts.frequencies[0].governor, "performance");
    assert_eq!(facts.frequencies[0].min_khz, facts.frequencies[0].max_khz);
    let slowest = facts.idle[0].slowest_enabled().unwrap();
    assert_eq!((slowest.name.as_str(), slowest.exit_latency_us), ("C1", 2));
    assert_eq!(facts.smt_active, Some(false));
    assert_eq!(facts.transparent_huge_pages.as_deref(), Some("never"));
    assert_eq!(facts.parameter("rcu_nocbs"), Some("1"));
    assert_eq!(facts.parameter("nohz"), None);
}

#[test]
fn preemption_is_told_by_the_version_and_the_configuration() {
    let version = "proc/sys/kernel/version";
    let config = "boot/config-6.12.8-rt5-custom";
    let model = |version_text: &str, config_text: &str, more: &[(&str, &str)]| {
        facts(&[&[(version, version_text), (config, config_text)], more].concat()).preemption
    };
    let dynamic = |mode| Preemption::Dynamic(mode);
    assert_eq!(model("#1 SMP PREEMPT_RT Thu", "", &[]), Preemption::RealTime);
    assert_eq!(model("#1 SMP PREEMPT_{RT,(full)} Thu", "", &[]), Preemption::RealTime);
    // Kernels with the patch, up to 5.2.
    assert_eq!(model("#1 SMP PREEMPT RT Debian 4.19.208-1", "", &[]), Preemption::RealTime);
    assert_eq!(model("#1 SMP Thu", "CONFIG_PREEMPT_RT_FULL=y\n", &[]), Preemption::RealTime);
    // A vendor kernel whose version says nothing.
    assert_eq!(model("#1 SMP Thu", "CONFIG_PREEMPT_RT=y\n", &[]), Preemption::RealTime);
    // Words that only contain the letters do not count.
    assert_eq!(model("#1 SMP PREEMPT SMART", "", &[]), Preemption::Full);
    assert_eq!(model("#1 SMP", "# CONFIG_PREEMPT_RT is not set\n", &[]), Preemption::Unknown);
    assert_eq!(model("#1 SMP", "CONFIG_PREEMPT_VOLUNTARY=y\n", &[]), Preemption::Voluntary);

    // Dynamic: the running mode, then the command line, then the built-in default.
    let built = "CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_PREEMPT_VOLUNTARY=y\n";
    let name = "#1 SMP PREEMPT_DYNAMIC Thu";
    let running = ("sys/kernel/debug/sched/preempt", "none voluntary (full) lazy\n");
    let given = ("proc/cmdline", "quiet preempt=none\n");
    assert_eq!(model(name, built, &[running, given]), dynamic(DynamicMode::Full));
    assert_eq!(model(name, built, &[given]), dynamic(DynamicMode::None));
    assert_eq!(model(name, built, &[]), dynamic(DynamicMode::Voluntary));
    assert_eq!(model(name, "", &[]), dynamic(DynamicMode::Unknown));
    assert_eq!(dynamic(DynamicMode::Unknown).yields_to_real_time(), None);
}

#[test]
fn a_packed_configuration_is_read_and_a_broken_one_is_not_trusted() {
    let root = tree("written-rt-workstation", &[("proc/sys/kernel/version", "#1 SMP\n")]);
    let path = root.path().join("proc/config.gz");
    let pack = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    std::fs::write(&path, pack("CONFIG_RT_GROUP_SCHED=y\nCONFIG_PREEMPT_NONE=y\n")).unwrap();
    let facts = KernelFacts::read_from(root.path());
    assert_eq!(facts.throttling.group_scheduling, Some(true));
    assert_eq!(facts.preemption, Preemption::None);
    // Truncated: the plain file under /boot is taken instead.
    let packed = pack("CONFIG_RT_GROUP_SCHED=y\n");
    std::fs::write(&path, &packed[..packed.len() / 2]).unwrap();
    assert_eq!(KernelFacts::read_from(root.path()).throttling.group_scheduling, Some(false));
}

#[test]
fn group_scheduling_can_be_switched_at_boot() {
    let config = "boot/config-6.12.8-rt5-custom";
    let read = |built: &str, line: &str| {
        facts(&[(config, built), ("proc/cmdline", line)]).throttling.group_scheduling
    };
    let on = "CONFIG_RT_GROUP_SCHED=y\n# CONFIG_RT_GROUP_SCHED_DEFAULT_DISABLED is not set\n";
    let off = "CONFIG_RT_GROUP_SCHED=y\nCONFIG_RT_GROUP_SCHED_DEFAULT_DISABLED=y\n";
    assert_eq!(read(on, "quiet"), Some(true));
    assert_eq!(read(on, "rt_group_sched=0"), Some(false));
    assert_eq!(read(off, "quiet"), Some(false));
    assert_eq!(read(off, "rt_group_sched=1"), Some(true));
}

fn throttling(runtime_us: i64, group_scheduling: Option<bool>, kernel: (u32, u32)) -> RtThrottling {
    RtThrottling {
        runtime_us: Some(runtime_us),
        period_us: Some(1_000_000),
        group_scheduling,
        group: None,
        kernel: Some(kernel),
    }
}

#[test]
fn a_spinning_lane_is_refused_while_throttling_would_bite() {
    let allowed = |facts: RtThrottling| facts.spin_allowed().is_ok();
    assert!(!allowed(throttling(950_000, Some(false), (6, 11))), "older kernels throttle");
    assert!(!allowed(throttling(950_000, None, (5, 10))));
    assert!(allowed(throttling(950_000, Some(false), (6, 12))), "the deadline server replaced it");
    assert!(!allowed(throttling(950_000, Some(true), (6, 18))), "RT_GROUP_SCHED keeps it");
    assert!(!allowed(throttling(950_000, None, (6, 18))), "not knowing is not a yes");
    for group_scheduling in [None, Some(false), Some(true)] {
        assert!(allowed(throttling(-1, group_scheduling, (5, 10))), "switched off");
    }
    assert!(allowed(throttling(1_000_000, Some(false), (6, 1))));
    assert!(!allowed(throttling(1_000_000, Some(true), (6, 1))), "groups keep their own share");

    let refused = throttling(950_000, Some(true), (6, 18)).spin_allowed().unwrap_err();
    assert!(refused.reason.contains("950000 of every 1000000 µs, and RT_GROUP_SCHED"));
    assert_eq!(refused.fix, "sysctl kernel.sched_rt_runtime_us=-1");
    let unknown = RtThrottling { runtime_us: None, ..throttling(0, None, (6, 18)) };
    assert!(unknown.spin_allowed().unwrap_err().to_string().contains("does not tell"));
}

#[test]
fn the_cgroup_decides_unless_the_sysctl_switches_everything_off() {
    let with_group = |runtime_us, sysctl| RtThrottling {
        group: Some(RtGroup {
            path: "/sys/fs/cgroup/cpu/robot".to_owned(),
            runtime_us,
            period_us: 1_000_000,
        }),
        ..throttling(sysctl, Some(true), (6, 18))
    };
    let refused = with_group(400_000, 950_000).spin_allowed().unwrap_err();
    assert!(refused.reason.contains("/sys/fs/cgroup/cpu/robot may run 400000 of every 1000000 µs"));
    assert!(with_group(0, 950_000).spin_allowed().is_err());
    assert!(with_group(-1, 950_000).spin_allowed().is_ok());
    assert!(with_group(400_000, -1).spin_allowed().is_ok());
}

#[test]
fn the_rights_of_a_process_are_read_from_its_files() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max locked memory         8388608              unlimited            bytes     \n\
                  Max realtime priority     85                   95                             \n\
                  Max realtime timeout      unlimited            unlimited            us        \n";
    let changes = [
        ("proc/self/limits", limits),
        ("proc/self/status", "Uid:\t1000\t1001\t1000\t1000\nCapEff:\t0000000000800000\n"),
        ("proc/self/cgroup", "4:memory:/x\n1:cpu,cpuacct:/robot\n0::/\n"),
        ("sys/fs/cgroup/cpu,cpuacct/robot/cpu.rt_runtime_us", "0\n"),
        ("sys/fs/cgroup/cpu,cpuacct/robot/cpu.rt_period_us", "1000000\n"),
    ];
    let root = tree("written-rt-workstation", &changes);
    let rights = Privileges::read(root.path());
    assert_eq!(rights.user_id, Some(1001), "the effective one");
    assert!(rights.has(sinew_rt::kernel::CAP_SYS_NICE));
    assert!(!rights.has(sinew_rt::kernel::CAP_IPC_LOCK));
    assert!(!rights.has(64));
    assert_eq!(rights.rtprio_limit, Some(85));
    assert_eq!(rights.memlock_limit_bytes, Some(8 * 1024 * 1024));
    assert_eq!(rights.rttime_limit_us, Some(u64::MAX));
    let group = rights.rt_group.unwrap();
    assert_eq!((group.path.as_str(), group.runtime_us), ("/sys/fs/cgroup/cpu,cpuacct/robot", 0));
}

#[test]
fn an_empty_machine_gives_unknowns_and_no_guesses() {
    let root = tempfile::tempdir().unwrap();
    let facts = KernelFacts::read_from(root.path());
    assert_eq!(facts.preemption, Preemption::Unknown);
    assert_eq!(facts.throttling.bites(), None);
    assert_eq!((facts.clock_source, facts.hypervisor, facts.smt_active), (None, None, None));
    assert!(facts.fair_servers.is_none() && facts.idle.is_empty());
    assert_eq!(Privileges::read(root.path()).rtprio_limit, None);
}

#[test]
fn this_machine_agrees_with_uname() {
    let facts = KernelFacts::read();
    let uname = |flag: &str| {
        let output = std::process::Command::new("uname").arg(flag).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(facts.release, uname("-r"));
    assert_eq!(facts.version, uname("-v"));
    assert!(facts.throttling.kernel.is_some());
    assert!(Path::new("/proc/cmdline").exists() && facts.clock_source.is_some());
}
