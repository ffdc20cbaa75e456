//! What this process may do: resource limits, capabilities, and the real-time share of its cgroup.

use std::path::Path;

use crate::files;

/// The capability that lifts `RLIMIT_RTPRIO` (linux/capability.h).
pub const CAP_SYS_NICE: u8 = 23;
/// The capability that lifts `RLIMIT_MEMLOCK`.
pub const CAP_IPC_LOCK: u8 = 14;

/// The rights of the calling thread and its process that real-time work needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Effective user id; `None` when the status file could not be read.
    pub user_id: Option<u32>,
    /// Effective capabilities as a bit set.
    pub capabilities: u64,
    /// Soft `RLIMIT_RTPRIO`: the highest real-time priority without `CAP_SYS_NICE`; `u64::MAX`
    /// means unlimited.
    pub rtprio_limit: Option<u64>,
    /// Soft `RLIMIT_MEMLOCK` in bytes; `u64::MAX` means unlimited.
    pub memlock_limit_bytes: Option<u64>,
    /// Soft `RLIMIT_RTTIME` in microseconds: real-time CPU time without a wait before the kernel
    /// sends SIGXCPU; `u64::MAX` means unlimited.
    pub rttime_limit_us: Option<u64>,
    /// The CPU cgroup's real-time share, where the kernel keeps one (`RT_GROUP_SCHED`, cgroup v1).
    pub rt_group: Option<RtGroup>,
}

/// The real-time share of a CPU cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtGroup {
    /// The cgroup's directory.
    pub path: String,
    /// Microseconds of each period that its real-time threads may run; -1 means all.
    pub runtime_us: i64,
    /// The period in microseconds.
    pub period_us: i64,
}

impl Privileges {
    /// Reads the rights of the calling thread from `proc/thread-self`, `proc/self` and `sys/fs/cgroup` under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        // Capabilities belong to the thread; proc/self is the main one.
        let status = files::text(root, "proc/thread-self/status")
            .or_else(|| files::text(root, "proc/self/status"))
            .unwrap_or_default();
        let limits = files::text(root, "proc/self/limits").unwrap_or_default();
        let user_id = files::field(&status, "Uid")
            .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        let capabilities = files::field(&status, "CapEff")
            .and_then(|bits| u64::from_str_radix(bits, 16).ok())
            .unwrap_or(0);
        Self {
            user_id,
            capabilities,
            rtprio_limit: soft_limit(&limits, "Max realtime priority"),
            memlock_limit_bytes: soft_limit(&limits, "Max locked memory"),
            rttime_limit_us: soft_limit(&limits, "Max realtime timeout"),
            rt_group: RtGroup::read(root),
        }
    }

    /// Whether the process has a capability.
    #[must_use]
    pub fn has(&self, capability: u8) -> bool {
        capability < 64 && self.capabilities & (1 << capability) != 0
    }

    /// How a line of limits.conf(5) names exactly this user.
    pub(crate) fn limits_domain(&self) -> String {
        self.user_id.map_or_else(|| "<user>".to_owned(), |id| format!(":{id}"))
    }
}

/// The soft value of one line of `/proc/self/limits`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let value =
        limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
    if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
}

impl RtGroup {
    /// The cgroup that bounds this process, on a v1 hierarchy. Version 2 has no real-time
    /// runtime, and without `RT_GROUP_SCHED` the file does not exist.
    pub(super) fn read(root: &Path) -> Option<Self> {
        let groups = files::text(root, "proc/self/cgroup")?;
        let (controllers, group) = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, group) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == "cpu").then_some((controllers, group))
        })?;
        // The mount is named after the controllers (cpu,cpuacct) or after the one (cpu).
        [controllers, "cpu"].iter().find_map(|mount| {
            let path = format!("sys/fs/cgroup/{mount}{}", group.trim_end_matches('/'));
            let runtime_us = files::number(root, &format!("{path}/cpu.rt_runtime_us"))?;
            let period_us = files::number(root, &format!("{path}/cpu.rt_period_us"))?;
            Some(Self { path: format!("/{path}"), runtime_us, period_us })
        })
    }
}
