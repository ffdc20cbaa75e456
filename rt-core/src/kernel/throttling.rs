//! When the kernel takes a core away from a real-time thread that does not wait.
//!
//! Up to Linux 6.11, and on later kernels with `RT_GROUP_SCHED`, real-time threads together may run
//! only `sched_rt_runtime_us` of every `sched_rt_period_us` (`scheduler/sched-rt-group.rst`). Later
//! kernels without it have a deadline server instead, which takes a turn only when a normal task
//! starves on the core.

use std::path::Path;

use super::{KernelConfig, RtGroup, parameter, release_numbers};
use crate::files;
use crate::topology::CoreId;

/// The first release in which the deadline server replaced throttling.
const FAIR_SERVER_SINCE: (u32, u32) = (6, 12);

/// The facts that decide whether real-time threads are throttled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtThrottling {
    /// `sched_rt_runtime_us`: microseconds of each period for real-time threads; -1 means all.
    pub runtime_us: Option<i64>,
    /// `sched_rt_period_us`.
    pub period_us: Option<i64>,
    /// Whether the kernel has `RT_GROUP_SCHED` switched on; `None` when it does not tell.
    pub group_scheduling: Option<bool>,
    /// The share of this process's CPU cgroup, where the kernel keeps one.
    pub group: Option<RtGroup>,
    /// Major and minor number of the kernel's release.
    pub kernel: Option<(u32, u32)>,
}

/// Why a thread may not spin for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lane may not spin for good here: {reason}; fix: {fix}, or use the spin-then-park wait")]
pub struct SpinRefused {
    /// What the kernel would do, with the numbers.
    pub reason: String,
    /// The command that removes the cause.
    pub fix: String,
}

impl RtThrottling {
    /// The facts of the running kernel.
    #[must_use]
    pub fn current() -> Self {
        let root = Path::new("/");
        let release = files::text(root, "proc/sys/kernel/osrelease").unwrap_or_default();
        let command_line = super::command_line(root);
        let config = KernelConfig::read(root, &release);
        Self::read(root, &release, &command_line, config.as_ref())
    }

    pub(super) fn read(
        root: &Path,
        release: &str,
        command_line: &str,
        config: Option<&KernelConfig>,
    ) -> Self {
        let group = RtGroup::read(root);
        let built_in = config.map(|config| {
            let on_by_default = !config.has("CONFIG_RT_GROUP_SCHED_DEFAULT_DISABLED");
            config.has("CONFIG_RT_GROUP_SCHED")
                && match parameter(command_line, "rt_group_sched") {
                    Some("1" | "on" | "y") => true,
                    Some("0" | "off" | "n") => false,
                    _ => on_by_default,
                }
        });
        Self {
            runtime_us: files::number(root, "proc/sys/kernel/sched_rt_runtime_us"),
            period_us: files::number(root, "proc/sys/kernel/sched_rt_period_us"),
            // Only kernels with the option have the cgroup file.
            group_scheduling: if group.is_some() { Some(true) } else { built_in },
            group,
            kernel: release_numbers(release),
        }
    }

    /// Whether the real-time threads of a core lose it when they never wait; `None` when the facts
    /// do not decide.
    ///
    /// A negative sysctl switches all of it off, whatever the cgroups say (`rt_bandwidth_enabled`
    /// in the kernel's `sched/sched.h`). Otherwise a kernel with `RT_GROUP_SCHED` goes by the
    /// groups, which do not follow the sysctl after boot.
    #[must_use]
    pub fn bites(&self) -> Option<bool> {
        let runtime_us = self.runtime_us?;
        if runtime_us < 0 {
            return Some(false);
        }
        if let Some(group) = &self.group {
            return Some((0..group.period_us).contains(&group.runtime_us));
        }
        if self.group_scheduling == Some(true) {
            return Some(true);
        }
        if runtime_us >= self.period_us? {
            return self.group_scheduling.map(|_| false);
        }
        match self.kernel? < FAIR_SERVER_SINCE {
            true => Some(true),
            false => self.group_scheduling,
        }
    }

    /// The rule for a lane that spins for good at a real-time priority: refused while throttling
    /// would take its core away, and also when that cannot be told. Pure.
    pub fn spin_allowed(&self) -> Result<(), SpinRefused> {
        let bites = self.bites();
        if bites == Some(false) {
            return Ok(());
        }
        let number = |value: Option<i64>| value.map_or("?".to_owned(), |value| value.to_string());
        let share = match &self.group {
            Some(RtGroup { path, runtime_us, period_us }) if self.runtime_us.is_some() => {
                format!(
                    "real-time threads of its CPU cgroup {path} may run {runtime_us} of every {period_us} µs"
                )
            }
            _ => format!(
                "real-time threads may run {} of every {} µs",
                number(self.runtime_us),
                number(self.period_us)
            ),
        };
        let why = match (bites, self.group_scheduling) {
            (None, _) => "this kernel does not tell whether it enforces that",
            (_, Some(true)) => "RT_GROUP_SCHED takes the core away for the rest",
            _ => "this kernel (before 6.12) takes the core away for the rest",
        };
        Err(SpinRefused {
            reason: format!("{share}, and {why}"),
            fix: "sysctl kernel.sched_rt_runtime_us=-1".to_owned(),
        })
    }
}

/// The deadline server of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FairServer {
    /// The core.
    pub core: CoreId,
    /// What starved normal tasks get of each period, in nanoseconds; 0 means switched off.
    pub runtime_ns: u64,
    /// The period in nanoseconds.
    pub period_ns: u64,
}

pub(super) fn fair_servers(root: &Path, cores: &[CoreId]) -> Option<Vec<FairServer>> {
    let servers: Vec<FairServer> = cores
        .iter()
        .filter_map(|core| {
            let base = format!("sys/kernel/debug/sched/fair_server/cpu{core}");
            Some(FairServer {
                core: *core,
                runtime_ns: files::number(root, &format!("{base}/runtime"))?,
                period_ns: files::number(root, &format!("{base}/period"))?,
            })
        })
        .collect();
    (!servers.is_empty()).then_some(servers)
}
