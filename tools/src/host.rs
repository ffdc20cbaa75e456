//! The host's fingerprint: what every report starts with, so that figures are not compared across
//! machines that differ.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::doctor::{Facts, Lock, VerdictCounts, check_all};

/// What decides the latencies of a machine, and what its kernel granted to this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostFingerprint {
    /// Model of the processor.
    pub(crate) processor: String,
    /// How many cores are online.
    pub(crate) cores_online: usize,
    /// The cores that this process may use, as `0-3,8`.
    pub(crate) cores_usable: String,
    /// The isolated ones among them.
    pub(crate) cores_isolated: String,
    /// `uname -r`.
    pub(crate) kernel_release: String,
    /// `uname -v`.
    pub(crate) kernel_version: String,
    /// Preemption model.
    pub(crate) preemption: String,
    /// The kernel's command line.
    pub(crate) command_line: String,
    /// The governors in use; empty where no frequency scaling is visible.
    pub(crate) governors: Vec<String>,
    /// The hypervisor, in a virtual machine.
    pub(crate) hypervisor: Option<String>,
    /// The clock source in use.
    pub(crate) clock_source: Option<String>,
    /// `sched_rt_runtime_us`; -1 means no throttling.
    pub(crate) rt_runtime_us: Option<i64>,
    /// `sched_rt_period_us`.
    pub(crate) rt_period_us: Option<i64>,
    /// Whether a real-time thread that never waits loses its core; `None` when that cannot be told.
    pub(crate) rt_throttled: Option<bool>,
    /// The scheduling read back from a real-time thread on each usable core.
    pub(crate) scheduling: Vec<CoreScheduling>,
    /// The doctor's verdicts.
    pub(crate) doctor: VerdictCounts,
    /// Why the fingerprint is not complete, if it is not.
    pub(crate) incomplete: Option<String>,
}

/// What a real-time thread was granted on one core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoreScheduling {
    /// The core.
    pub(crate) core: u16,
    /// Whether `SCHED_FIFO` and the pinning were read back as asked for.
    pub(crate) granted: bool,
    /// The scheduling read back.
    pub(crate) effective: String,
}

impl HostFingerprint {
    pub(crate) fn new(facts: &Facts, doctor: VerdictCounts) -> Self {
        let (kernel, topology) = (&facts.kernel, &facts.topology);
        let usable = topology.usable_cores();
        let governors: BTreeSet<&String> =
            kernel.frequencies.iter().map(|core| &core.governor).collect();
        let scheduling = facts.probes.iter().map(|probe| CoreScheduling {
            core: probe.core.get(),
            granted: probe.granted(),
            effective: probe.effective.clone(),
        });
        Self {
            processor: kernel.processor.clone().unwrap_or_else(|| "unknown processor".to_owned()),
            cores_online: topology.online.len(),
            cores_usable: usable.to_string(),
            cores_isolated: usable.intersection(&topology.isolated).to_string(),
            kernel_release: kernel.release.clone(),
            kernel_version: kernel.version.clone(),
            preemption: kernel.preemption.to_string(),
            command_line: kernel.command_line.clone(),
            governors: governors.into_iter().cloned().collect(),
            hypervisor: kernel.hypervisor.clone(),
            clock_source: kernel.clock_source.clone(),
            rt_runtime_us: kernel.throttling.runtime_us,
            rt_period_us: kernel.throttling.period_us,
            rt_throttled: kernel.throttling.bites(),
            scheduling: scheduling.collect(),
            doctor,
            incomplete: None,
        }
    }
}

/// The fingerprint of this host, for this process. Starts a short real-time thread of the lowest
/// priority on each usable core; changes nothing, and locks no memory.
pub(crate) fn fingerprint() -> HostFingerprint {
    match Facts::at_a_glance(Lock::Look) {
        Ok(facts) => {
            let counts = VerdictCounts::of(&check_all(&facts));
            HostFingerprint::new(&facts, counts)
        }
        Err(error) => {
            HostFingerprint { incomplete: Some(error.to_string()), ..HostFingerprint::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_this_machine_is_complete_and_survives_json() {
        let host = fingerprint();
        assert_eq!(host.incomplete, None);
        assert!(host.cores_online > 0 && !host.kernel_release.is_empty());
        // One thread was really tried on each usable core.
        let tried: Vec<String> = host.scheduling.iter().map(|core| core.core.to_string()).collect();
        let usable: sinew_rt::topology::CoreList = host.cores_usable.parse().unwrap();
        assert_eq!(tried, usable.iter().map(|core| core.to_string()).collect::<Vec<_>>());
        for core in &host.scheduling {
            assert_eq!(core.granted, core.effective == "SCHED_FIFO 1", "{core:?}");
        }
        let json = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<HostFingerprint>(&json).unwrap(), host);
    }
}
