//! The kernel's settings that only the doctor reads. What cannot be read is `None`.

use std::path::Path;

use sinew_rt::files;
use sinew_rt::kernel::KernelConfig;
use sinew_rt::topology::{CoreId, CoreList};

/// Directories below `sys/devices/virtual/workqueue` and `sys/devices/system/machinecheck` looked at.
const MAX_ENTRIES: usize = 4096;

/// Options of kernels made to find bugs, each of which costs time in every lock or allocation.
pub(crate) const DEBUG_OPTIONS: [&str; 10] = [
    "CONFIG_PROVE_LOCKING",
    "CONFIG_DEBUG_LOCK_ALLOC",
    "CONFIG_DEBUG_ATOMIC_SLEEP",
    "CONFIG_KASAN",
    "CONFIG_KCSAN",
    "CONFIG_DEBUG_KMEMLEAK",
    "CONFIG_DEBUG_OBJECTS",
    "CONFIG_SLUB_DEBUG_ON",
    "CONFIG_IRQSOFF_TRACER",
    "CONFIG_PREEMPT_TRACER",
];

const TRACERS: [&str; 2] =
    ["sys/kernel/tracing/current_tracer", "sys/kernel/debug/tracing/current_tracer"];
const WORKQUEUES: &str = "sys/devices/virtual/workqueue";
const MACHINE_CHECKS: &str = "sys/devices/system/machinecheck";
/// Where distributions keep the settings of irqbalance(1).
const IRQBALANCE: [&str; 2] = ["etc/default/irqbalance", "etc/sysconfig/irqbalance"];
/// In a captured tree, what adjtimex(2) said.
pub(crate) const ADJTIMEX: &str = "probed/adjtimex";

#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) nmi_watchdog: Option<u64>,
    pub(crate) soft_watchdog: Option<u64>,
    /// The cores that the detectors watch.
    pub(crate) watchdog_cores: Option<CoreList>,
    pub(crate) timer_migration: Option<u64>,
    /// Seconds between two collections of the memory statistics.
    pub(crate) stat_interval_s: Option<u64>,
    pub(crate) numa_balancing: Option<u64>,
    /// Merging of equal pages: 1 is on.
    pub(crate) ksm_run: Option<u64>,
    /// The file of each workqueue's mask, and the mask.
    pub(crate) workqueues: Vec<(String, CoreList)>,
    /// The chosen policy of PCIe's active state power management.
    pub(crate) pcie_policy: Option<String>,
    /// By name: `ignore_ce`, and `check_interval` in seconds.
    pub(crate) machine_checks: Vec<(String, Option<u64>, Option<u64>)>,
    /// Whether the preemption mode can be switched (root, debugfs, and a dynamic kernel).
    pub(crate) preemption_switch: bool,
    /// Whether the firmware is UEFI.
    pub(crate) efi: bool,
    /// The tracer in use, and the file that says so.
    pub(crate) tracer: Option<(String, String)>,
    /// Those of [`DEBUG_OPTIONS`] that are built in; `None` when the kernel keeps no configuration.
    pub(crate) debug_options: Option<Vec<&'static str>>,
    /// Whether the kernel can offload RCU callbacks, and stop the tick.
    pub(crate) rcu_nocb_built: Option<bool>,
    pub(crate) nohz_full_built: Option<bool>,
    /// Whether it keeps EFI's runtime services switched off unless told otherwise.
    pub(crate) efi_runtime_off_built: Option<bool>,
    /// The cores that irqbalance is told to leave alone; `None` when no file says.
    pub(crate) irqbalance_banned: Option<CoreList>,
    /// The largest receive buffer that a program may ask for, in bytes.
    pub(crate) receive_buffer_max: Option<u64>,
    /// Cores isolated by cgroup partitions rather than at boot.
    pub(crate) isolated_by_cpuset: CoreList,
    /// Whether resctrl is mounted, with which caches and memory bandwidth can be divided.
    pub(crate) resctrl: bool,
    /// How well the wall clock is kept, by the kernel's own account.
    pub(crate) clock: Option<Discipline>,
}

/// What adjtimex(2) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Discipline {
    pub(crate) synchronised: bool,
    pub(crate) estimated_error_us: i64,
    pub(crate) maximum_error_us: i64,
}

impl Settings {
    pub(super) fn read(root: &Path, release: &str, live: bool) -> Self {
        let sysctl = |name: &str| files::number(root, &format!("proc/sys/{name}"));
        let config = KernelConfig::read(root, release);
        let built = |option: &str| config.as_ref().map(|config| config.has(option));
        let chosen = |path: &str, open, close| {
            let words = files::text(root, path)?;
            files::chosen(&words, open, close).map(str::to_owned)
        };
        Self {
            nmi_watchdog: sysctl("kernel/nmi_watchdog"),
            soft_watchdog: sysctl("kernel/soft_watchdog"),
            watchdog_cores: files::core_list(root, "proc/sys/kernel/watchdog_cpumask"),
            timer_migration: sysctl("kernel/timer_migration"),
            stat_interval_s: sysctl("vm/stat_interval"),
            numa_balancing: sysctl("kernel/numa_balancing"),
            ksm_run: files::number(root, "sys/kernel/mm/ksm/run"),
            workqueues: workqueues(root),
            pcie_policy: chosen("sys/module/pcie_aspm/parameters/policy", '[', ']'),
            machine_checks: machine_checks(root),
            preemption_switch: root.join("sys/kernel/debug/sched/preempt").exists(),
            efi: root.join("sys/firmware/efi").is_dir(),
            tracer: TRACERS
                .iter()
                .find_map(|path| Some((files::text(root, path)?, format!("/{path}")))),
            debug_options: config.as_ref().map(|config| {
                DEBUG_OPTIONS.into_iter().filter(|option| config.has(option)).collect()
            }),
            rcu_nocb_built: built("CONFIG_RCU_NOCB_CPU"),
            nohz_full_built: built("CONFIG_NO_HZ_FULL"),
            efi_runtime_off_built: built("CONFIG_EFI_DISABLE_RUNTIME"),
            irqbalance_banned: IRQBALANCE.iter().find_map(|path| banned(&files::text(root, path)?)),
            receive_buffer_max: sysctl("net/core/rmem_max"),
            isolated_by_cpuset: ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
                .iter()
                .find_map(|mount| files::core_list(root, &format!("{mount}/cpuset.cpus.isolated")))
                .unwrap_or_default(),
            resctrl: root.join("sys/fs/resctrl/schemata").exists(),
            clock: if live { Discipline::ask() } else { Discipline::read(root) },
        }
    }
}

fn workqueues(root: &Path) -> Vec<(String, CoreList)> {
    let own = files::names(root, WORKQUEUES).unwrap_or_default();
    let own = own.into_iter().take(MAX_ENTRIES).map(|name| format!("{WORKQUEUES}/{name}/cpumask"));
    std::iter::once(format!("{WORKQUEUES}/cpumask"))
        .chain(own)
        .filter_map(|path| Some((format!("/{path}"), files::core_mask(root, &path)?)))
        .collect()
}

fn machine_checks(root: &Path) -> Vec<(String, Option<u64>, Option<u64>)> {
    let names = files::names(root, MACHINE_CHECKS).unwrap_or_default();
    let number = |name: &str, file| files::number(root, &format!("{MACHINE_CHECKS}/{name}/{file}"));
    names
        .into_iter()
        .filter(|name| {
            name.strip_prefix("machinecheck").is_some_and(|core| core.parse::<u16>().is_ok())
        })
        .take(MAX_ENTRIES)
        .map(|name| (name.clone(), number(&name, "ignore_ce"), number(&name, "check_interval")))
        .collect()
}

/// `IRQBALANCE_BANNED_CPULIST=2-3`, or the older mask, in a file of shell variables.
fn banned(file: &str) -> Option<CoreList> {
    let value = |key: &str| {
        let line = file.lines().rev().find_map(|line| line.trim().strip_prefix(key))?;
        Some(line.strip_prefix('=')?.trim_matches(['"', '\'']).to_owned())
    };
    if let Some(list) = value("IRQBALANCE_BANNED_CPULIST") {
        return list.parse().ok();
    }
    let mask = u64::from_str_radix(&value("IRQBALANCE_BANNED_CPUS")?.replace(',', ""), 16).ok()?;
    Some((0..64).filter(|bit| mask & (1 << bit) != 0).map(CoreId::new).collect())
}

impl Discipline {
    pub(crate) fn ask() -> Option<Self> {
        // SAFETY: all zeros is a `timex` that asks for no change.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: adjtimex(2) fills the structure; without a mode it changes nothing.
        let state = unsafe { libc::adjtimex(&raw mut timex) };
        // A program in a sandbox may not ask.
        (state >= 0).then_some(Self {
            synchronised: timex.status & libc::STA_UNSYNC == 0,
            estimated_error_us: timex.esterror,
            maximum_error_us: timex.maxerror,
        })
    }

    pub(crate) fn read(root: &Path) -> Option<Self> {
        let text = files::text(root, ADJTIMEX)?;
        let field = |key| files::field(&text, key)?.parse::<i64>().ok();
        Some(Self {
            synchronised: field("synchronised")? != 0,
            estimated_error_us: field("estimated_error_us")?,
            maximum_error_us: field("maximum_error_us")?,
        })
    }

    /// The form in which a captured tree keeps it.
    pub(crate) fn to_text(self) -> String {
        format!(
            "synchronised: {}\nestimated_error_us: {}\nmaximum_error_us: {}\n",
            u8::from(self.synchronised),
            self.estimated_error_us,
            self.maximum_error_us
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irqbalance_s_file_is_read_in_both_forms() {
        let list = |text: &str| banned(text).map(|cores| cores.to_string());
        assert_eq!(list("# x\nIRQBALANCE_BANNED_CPULIST=\"2-3\"\n"), Some("2-3".to_owned()));
        assert_eq!(list("IRQBALANCE_BANNED_CPUS=0000000c"), Some("2-3".to_owned()));
        assert_eq!(list("#IRQBALANCE_BANNED_CPULIST=2\n"), None);
    }
}
