//! What kernel this is, how it schedules, and what it lets this process do.
//!
//! Facts only, read from `proc` and `sys` under a root directory of the caller's choice; what
//! cannot be read is `None`, never a guess. Verdicts on them are the doctor's.

mod config;
mod interrupts;
mod power_facts;
mod preemption;
mod privileges;
mod tasks;
mod throttling;

use std::path::Path;

pub use config::KernelConfig;
pub use interrupts::{Interrupt, InterruptCounts, InterruptRow, effective_affinity};
pub use power_facts::{CoreFrequency, CoreIdle, IdleState};
pub use preemption::{DynamicMode, Preemption};
pub use privileges::{CAP_IPC_LOCK, CAP_SYS_NICE, Privileges, RtGroup};
pub use tasks::{Task, TaskPolicy, Tasks, parse_stat};
pub use throttling::{FairServer, RtThrottling, SpinRefused};

use crate::files;
use crate::topology::CoreId;

/// The kernel's facts that matter to real-time threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// `uname -r`; empty when unreadable.
    pub release: String,
    /// `uname -v`; empty when unreadable.
    pub version: String,
    /// The kernel's command line, without what follows `--`: that is for init.
    pub command_line: String,
    /// How readily kernel code yields to a real-time thread.
    pub preemption: Preemption,
    /// The share of each period that real-time threads may run.
    pub throttling: RtThrottling,
    /// The deadline server that gives starved normal tasks their turn, for each core; newer kernels,
    /// readable by root where debugfs is mounted.
    pub fair_servers: Option<Vec<FairServer>>,
    /// The clock source in use.
    pub clock_source: Option<String>,
    /// The clock sources that the kernel would accept.
    pub clock_sources_available: Vec<String>,
    /// What kind of virtual machine this is, if it is one.
    pub hypervisor: Option<String>,
    /// Model of the processor.
    pub processor: Option<String>,
    /// Frequency scaling of each core; empty where there is none.
    pub frequencies: Vec<CoreFrequency>,
    /// Idle states of each core; empty where there are none.
    pub idle: Vec<CoreIdle>,
    /// Whether hardware threads are in use; `None` where the kernel does not say.
    pub smt_active: Option<bool>,
    /// The chosen mode of transparent huge pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
}

impl KernelFacts {
    /// The facts of the running kernel.
    #[must_use]
    pub fn read() -> Self {
        Self::read_from(Path::new("/"))
    }

    /// The facts of the kernel whose `proc` and `sys` are under `root`.
    #[must_use]
    pub fn read_from(root: &Path) -> Self {
        let text = |path: &str| files::text(root, path).unwrap_or_default();
        let release = text("proc/sys/kernel/osrelease");
        let version = text("proc/sys/kernel/version");
        let command_line = command_line(root);
        let config = KernelConfig::read(root, &release);
        let cpu_info = text("proc/cpuinfo");
        let cores = core_numbers(root);
        Self {
            preemption: Preemption::read(root, &version, &command_line, config.as_ref()),
            throttling: RtThrottling::read(root, &release, &command_line, config.as_ref()),
            fair_servers: throttling::fair_servers(root, &cores),
            clock_source: files::text(root, &format!("{CLOCK}/current_clocksource")),
            clock_sources_available: text(&format!("{CLOCK}/available_clocksource"))
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            hypervisor: hypervisor(root, &cpu_info),
            processor: ["model name", "Model", "Hardware"].iter().find_map(|key| {
                let line = cpu_info.lines().find(|line| line.starts_with(key))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            }),
            frequencies: power_facts::frequencies(root, &cores),
            idle: power_facts::idle(root, &cores),
            smt_active: files::number::<u8>(root, "sys/devices/system/cpu/smt/active")
                .map(|active| active != 0),
            transparent_huge_pages: files::text(root, "sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|modes| files::chosen(&modes, '[', ']').map(str::to_owned)),
            release,
            version,
            command_line,
        }
    }

    /// The value of a parameter on the kernel's command line: `Some("")` for a bare word, the last
    /// one where it is given several times.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        parameter(&self.command_line, name)
    }
}

const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";

fn command_line(root: &Path) -> String {
    let line = files::text(root, "proc/cmdline").unwrap_or_default();
    match line.split_once(" -- ") {
        Some((kernel, _)) => kernel.trim_end().to_owned(),
        None => line,
    }
}

fn parameter<'a>(command_line: &'a str, name: &str) -> Option<&'a str> {
    command_line.split_whitespace().rev().find_map(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key == name).then_some(value)
    })
}

/// Major and minor number of a release such as `6.12.3-rt5`.
fn release_numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn core_numbers(root: &Path) -> Vec<CoreId> {
    let online = files::core_list(root, "sys/devices/system/cpu/online").unwrap_or_default();
    online.iter().collect()
}

/// What the hardware or firmware says about a hypervisor.
pub(crate) fn hypervisor(root: &Path, cpu_info: &str) -> Option<String> {
    let flagged = cpu_info
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    let named = ["sys/hypervisor/type", "proc/device-tree/hypervisor/compatible"]
        .iter()
        .find_map(|path| files::text(root, path))
        .map(|name| name.trim_end_matches('\0').to_owned());
    if !flagged {
        return named;
    }
    let product = || {
        let vendor = files::text(root, "sys/class/dmi/id/sys_vendor")?;
        let product = files::text(root, "sys/class/dmi/id/product_name").unwrap_or_default();
        Some(format!("{vendor} {product}").trim_end().to_owned())
    };
    Some(named.or_else(product).unwrap_or_else(|| "of unknown make".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_parameters_are_read() {
        assert_eq!(release_numbers("6.12.3-rt5"), Some((6, 12)));
        assert_eq!(release_numbers("5.10-tegra"), Some((5, 10)));
        assert_eq!(release_numbers("next"), None);
        let line = "quiet isolcpus=2-3 isolcpus=3 rcu_nocbs=3\n";
        assert_eq!(parameter(line, "isolcpus"), Some("3"));
        assert_eq!(parameter(line, "quiet"), Some(""));
        assert_eq!(parameter(line, "iso"), None);
    }
}
