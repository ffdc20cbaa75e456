//! Which files a capture has, and how much of each.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use sinew_rt::files;
use sinew_rt::kernel::{KernelConfig, TaskPolicy, parse_stat};

use super::super::checks::CLOCK_KEEPERS;
use super::super::facts::{
    ADJTIMEX, CAPTURED_ETHTOOL, DEBUG_OPTIONS, Discipline, LATER, WINDOW_FILE, network_devices,
};
use super::Files;

/// Files are read up to here; none that the doctor reads is larger.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A part of a path that is `*` stands for any name there.
const WHOLE: [&str; 62] = [
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/version",
    "proc/sys/kernel/sched_rt_runtime_us",
    "proc/sys/kernel/sched_rt_period_us",
    "proc/sys/kernel/nmi_watchdog",
    "proc/sys/kernel/soft_watchdog",
    "proc/sys/kernel/watchdog_cpumask",
    "proc/sys/kernel/timer_migration",
    "proc/sys/kernel/numa_balancing",
    "proc/sys/vm/stat_interval",
    "proc/sys/net/core/rmem_max",
    "proc/self/limits",
    "proc/irq/*/effective_affinity_list",
    "proc/irq/*/smp_affinity_list",
    "proc/device-tree/hypervisor/compatible",
    "sys/hypervisor/type",
    "sys/class/dmi/id/sys_vendor",
    "sys/class/dmi/id/product_name",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/possible",
    "sys/devices/system/cpu/present",
    "sys/devices/system/cpu/isolated",
    "sys/devices/system/cpu/nohz_full",
    "sys/devices/system/cpu/smt/active",
    "sys/devices/system/cpu/smt/control",
    "sys/devices/system/cpu/*/cpufreq/scaling_governor",
    "sys/devices/system/cpu/*/cpufreq/scaling_min_freq",
    "sys/devices/system/cpu/*/cpufreq/scaling_max_freq",
    "sys/devices/system/cpu/*/cpuidle/*/name",
    "sys/devices/system/cpu/*/cpuidle/*/latency",
    "sys/devices/system/cpu/*/cpuidle/*/disable",
    "sys/devices/system/cpu/*/topology/physical_package_id",
    "sys/devices/system/cpu/*/topology/core_id",
    "sys/devices/system/cpu/*/topology/thread_siblings_list",
    "sys/devices/system/cpu/*/cpu_capacity",
    "sys/devices/system/cpu/*/cache/*/type",
    "sys/devices/system/cpu/*/cache/*/level",
    "sys/devices/system/cpu/*/cache/*/shared_cpu_list",
    "sys/devices/system/cpu/*/cache/*/size",
    "sys/devices/system/node/online",
    "sys/devices/system/node/*/cpulist",
    "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "sys/devices/system/clocksource/clocksource0/available_clocksource",
    "sys/devices/system/machinecheck/*/ignore_ce",
    "sys/devices/system/machinecheck/*/check_interval",
    "sys/devices/virtual/workqueue/cpumask",
    "sys/devices/virtual/workqueue/*/cpumask",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/ksm/run",
    "sys/kernel/debug/sched/preempt",
    "sys/kernel/debug/sched/fair_server/*/runtime",
    "sys/kernel/debug/sched/fair_server/*/period",
    "sys/kernel/tracing/current_tracer",
    "sys/kernel/debug/tracing/current_tracer",
    "sys/module/pcie_aspm/parameters/policy",
    // Only its being there counts.
    "sys/firmware/efi/fw_platform_size",
    "sys/fs/resctrl/schemata",
    "sys/fs/cgroup/cpuset.cpus.isolated",
    "sys/fs/cgroup/unified/cpuset.cpus.isolated",
    // That there is such a directory.
    "sys/class/net/lo/operstate",
    "sys/class/net/*/device/irq",
    "sys/class/net/*/device/modalias",
];

/// Read twice.
const COUNTERS: [&str; 3] = [
    "proc/interrupts",
    "proc/net/softnet_stat",
    "sys/devices/system/cpu/*/thermal_throttle/*_throttle_count",
];

/// Parameters of the kernel's command line that are kept; the others may say anything about anybody.
const PARAMETERS: [&str; 25] = [
    "clocksource",
    "cpuidle.off",
    "efi",
    "idle",
    "intel_idle.max_cstate",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "kthread_cpus",
    "mce",
    "mitigations",
    "nmi_watchdog",
    "noefi",
    "nohz",
    "nohz_full",
    "nosmt",
    "nosoftlockup",
    "pcie_aspm",
    "preempt",
    "processor.max_cstate",
    "rcu_nocb_poll",
    "rcu_nocbs",
    "rt_group_sched",
    "skew_tick",
    "tsc",
];

/// Lines that are kept of files with a `key:` on each.
const STATUS: [&str; 7] =
    ["Uid", "CapEff", "Cpus_allowed_list", "VmSize", "VmLck", "VmRSS", "VmSwap"];
const CPU_INFO: [&str; 6] = ["processor", "vendor_id", "model name", "Model", "Hardware", "flags"];

/// What the other programs are called.
const PROGRAM: &str = "program";

/// Kernel options that are kept beside the doctor's [`DEBUG_OPTIONS`].
const OPTIONS: [&str; 4] =
    ["CONFIG_PREEMPT", "CONFIG_RT_GROUP_SCHED", "CONFIG_RCU_NOCB_CPU", "CONFIG_NO_HZ"];
const OPTION_EFI: &str = "CONFIG_EFI_DISABLE_RUNTIME";

/// All files of the machine under `root`, with the counters read `span` apart.
pub(super) fn collect(root: &Path, span: Duration) -> Files {
    let mut all = Files::new();
    for pattern in WHOLE {
        add(&mut all, root, pattern, |bytes| bytes);
    }
    add_lines(&mut all, root, "proc/self/status", keyed(&STATUS));
    add_lines(&mut all, root, "proc/thread-self/status", keyed(&STATUS));
    add_lines(&mut all, root, "proc/cpuinfo", keyed(&CPU_INFO));
    for path in ["etc/default/irqbalance", "etc/sysconfig/irqbalance"] {
        add_lines(&mut all, root, path, |line| line.starts_with("IRQBALANCE_BANNED_CPU"));
    }
    add_lines(&mut all, root, "sys/class/net/*/device/uevent", is_kept_of_a_device);
    add(&mut all, root, "proc/cmdline", |bytes| command_line(&bytes));
    cgroups(&mut all, root);
    configuration(&mut all, root);
    devices(&mut all, root);
    counters(&mut all, root, "");
    // Between these two nothing is kept: the page faults are those of waiting, not of this program.
    let own = || std::fs::read(root.join("proc/self/stat")).unwrap_or_default();
    drop((own(), own()));
    let (begin, before) = (std::time::Instant::now(), own());
    std::thread::sleep(span);
    let after = own();
    all.push(("proc/self/stat".to_owned(), stat(&before)));
    all.push((format!("{LATER}/proc/self/stat"), stat(&after)));
    counters(&mut all, root, &format!("{LATER}/"));
    all.push((WINDOW_FILE.to_owned(), begin.elapsed().as_millis().to_string().into_bytes()));
    // Of files that were read more than once, the last reading.
    all.reverse();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

fn counters(all: &mut Files, root: &Path, under: &str) {
    let mut some = Files::new();
    for pattern in COUNTERS {
        add(&mut some, root, pattern, |bytes| bytes);
    }
    add_lines(&mut some, root, "proc/net/snmp", |line| line.starts_with("Udp:"));
    add_lines(&mut some, root, "proc/stat", |line| line.starts_with("cpu "));
    add(&mut some, root, "proc/#/task/#/stat", |bytes| stat(&bytes));
    for core in files::numbered(root, "dev/cpu").unwrap_or_default() {
        let path = format!("dev/cpu/{core}/msr");
        let mut content = vec![0; 0x34 + 8];
        let read = std::fs::File::open(root.join(&path))
            .and_then(|file| file.read_exact_at(&mut content[0x34..], 0x34));
        if read.is_ok() {
            some.push((path, content));
        }
    }
    all.extend(some.into_iter().map(|(path, content)| (format!("{under}{path}"), content)));
}

/// Adds the files that `pattern` names as far as they can be read, each through `keep`.
fn add(all: &mut Files, root: &Path, pattern: &str, keep: impl Fn(Vec<u8>) -> Vec<u8>) {
    for path in matching(root, pattern) {
        let mut content = Vec::new();
        let read = std::fs::File::open(root.join(&path))
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut content));
        if read.is_ok() {
            all.push((path, keep(content)));
        }
    }
}

fn add_lines(all: &mut Files, root: &Path, pattern: &str, keep: impl Fn(&str) -> bool) {
    add(all, root, pattern, |bytes| {
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| keep(line)).map(|line| format!("{line}\n"));
        lines.collect::<String>().into_bytes()
    });
}

fn keyed(keys: &'static [&'static str]) -> impl Fn(&str) -> bool {
    move |line| line.split_once(':').is_some_and(|(key, _)| keys.contains(&key.trim_end()))
}

/// The paths that a pattern stands for: `*` any part of a name, `#` a name that is a number.
fn matching(root: &Path, pattern: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for path in paths {
            let join = |name: &str| match path.as_str() {
                "" => name.to_owned(),
                path => format!("{path}/{name}"),
            };
            match part.split_once('*') {
                None if part == "#" => {
                    let numbers = files::numbered(root, &path).unwrap_or_default();
                    next.extend(numbers.iter().map(|number| join(&number.to_string())));
                }
                None => next.push(join(part)),
                Some((begin, end)) => {
                    let names = files::names(root, &path).unwrap_or_default();
                    let fits = |name: &&String| name.starts_with(begin) && name.ends_with(end);
                    next.extend(names.iter().filter(fits).map(|name| join(name)));
                }
            }
        }
        paths = next;
    }
    paths
}

/// A task's line with those of its numbers that the doctor reads: addresses and the like are 0. The
/// kernel's tasks, real-time ones and those that the checks know keep their names.
fn stat(bytes: &[u8]) -> Vec<u8> {
    const KEPT: [usize; 9] = [3, 9, 10, 12, 14, 15, 39, 40, 41];
    let text = String::from_utf8_lossy(bytes);
    let (Some(task), Some((head, rest))) = (parse_stat(0, &text), text.rsplit_once(") ")) else {
        return Vec::new();
    };
    let known = ["irqbalance", "housekeeping"].contains(&&*task.name)
        || CLOCK_KEEPERS.contains(&&*task.name);
    let head = match known || task.kernel || task.policy != TaskPolicy::Normal {
        true => head.to_owned(),
        false => format!("{} ({PROGRAM}", task.thread),
    };
    let field = |(n, value): (usize, &str)| match KEPT.contains(&(n + 3)) {
        true => value.to_owned(),
        false => "0".to_owned(),
    };
    let fields: Vec<String> = rest.split_ascii_whitespace().enumerate().map(field).collect();
    format!("{head}) {}\n", fields.join(" ")).into_bytes()
}

fn command_line(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let kernel = text.split(" -- ").next().unwrap_or_default();
    let known = |word: &&str| PARAMETERS.contains(&word.split('=').next().unwrap_or_default());
    kernel.split_whitespace().filter(known).collect::<Vec<_>>().join(" ").into_bytes()
}

fn is_kept_of_a_device(line: &str) -> bool {
    ["DRIVER=", "DEVTYPE=", "MODALIAS="].iter().any(|key| line.starts_with(key))
}

/// A path of groups without their names, which are those of users, services and containers.
fn unnamed(group: &str) -> String {
    let parts = group.split('/').filter(|part| !part.is_empty());
    parts.zip(1..).map(|(_, depth)| format!("/group{depth}")).collect()
}

/// The groups of this process, and what they and their parents say about its cores.
fn cgroups(all: &mut Files, root: &Path) {
    let Some(text) = files::text(root, "proc/self/cgroup") else { return };
    let mut kept = String::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let has = |wanted| controllers.split(',').any(|name| name == wanted);
        if !(controllers.is_empty() || has("cpu") || has("cpuset")) {
            continue;
        }
        let number = line.split(':').next().unwrap_or_default();
        let shown = if group == "/" { "/".to_owned() } else { unnamed(group) };
        kept.push_str(&format!("{number}:{controllers}:{shown}\n"));
        for parent in Path::new(group).ancestors() {
            let parent = parent.to_string_lossy();
            let parent = parent.trim_end_matches('/');
            let shown = unnamed(parent);
            for (mount, file) in [
                (String::new(), "cpuset.cpus.effective"),
                ("/cpuset".to_owned(), "cpuset.effective_cpus"),
                ("/cpu".to_owned(), "cpu.rt_runtime_us"),
                ("/cpu".to_owned(), "cpu.rt_period_us"),
                (format!("/{controllers}"), "cpu.rt_runtime_us"),
                (format!("/{controllers}"), "cpu.rt_period_us"),
            ] {
                let mut found = Files::new();
                add(&mut found, root, &format!("sys/fs/cgroup{mount}{parent}/{file}"), |bytes| {
                    bytes
                });
                let path = format!("sys/fs/cgroup{mount}{shown}/{file}");
                all.extend(found.into_iter().map(|(_, content)| (path.clone(), content)));
            }
        }
    }
    all.push(("proc/self/cgroup".to_owned(), kept.into_bytes()));
}

fn configuration(all: &mut Files, root: &Path) {
    let release = files::text(root, "proc/sys/kernel/osrelease").unwrap_or_default();
    let Some(config) = KernelConfig::read(root, &release) else { return };
    let kept = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default();
        OPTIONS.iter().any(|option| line.starts_with(option))
            || name == OPTION_EFI
            || DEBUG_OPTIONS.contains(&name)
    };
    let lines = config.text().lines().filter(kept).map(|line| format!("{line}\n"));
    all.push((format!("boot/config-{release}"), lines.collect::<String>().into_bytes()));
}

/// What drivers and system calls say, and what only a link leads to.
fn devices(all: &mut Files, root: &Path) {
    let live = root == Path::new("/");
    for nic in network_devices(root, live).unwrap_or_default() {
        let base = format!("sys/class/net/{}", nic.name);
        // Of these only: bridges and tunnels are called after what they lead to.
        add(all, root, &format!("{base}/operstate"), |bytes| bytes);
        add_lines(all, root, &format!("{base}/uevent"), is_kept_of_a_device);
        for number in &nic.interrupts {
            all.push((format!("{base}/device/msi_irqs/{number}"), Vec::new()));
        }
        if nic.wireless {
            all.push((format!("{base}/wireless"), Vec::new()));
        }
        let mut said = |what: &str, value: u32| {
            let path = format!("{CAPTURED_ETHTOOL}/{}/{what}", nic.name);
            all.push((path, format!("{value}\n").into_bytes()));
        };
        if let Some(coalescing) = nic.coalescing {
            said("rx_us", coalescing.rx_us);
            said("tx_us", coalescing.tx_us);
            said("adaptive_rx", u32::from(coalescing.adaptive_rx));
            said("adaptive_tx", u32::from(coalescing.adaptive_tx));
        }
        if let Some(on) = nic.saves_energy {
            said("eee", u32::from(on));
        }
    }
    let clock = if live { Discipline::ask() } else { Discipline::read(root) };
    all.extend(clock.map(|clock| (ADJTIMEX.to_owned(), clock.to_text().into_bytes())));
    // A device without an end: four bytes are the bound.
    if let Some(bound_us) = sinew_rt::power::latency_bound_us(root) {
        all.push(("dev/cpu_dma_latency".to_owned(), bound_us.to_ne_bytes().to_vec()));
    }
}
