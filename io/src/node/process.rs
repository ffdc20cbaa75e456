//! What a start prepares for the whole process: locked and pre-faulted memory, idle states that wake
//! in time, and no spinning where the kernel would stop it.

use super::NodeError;
use super::config::NodeConfig;
use sinew_rt::kernel::{RtThrottling, SpinRefused};
use sinew_rt::memory::{self, MemoryPlan, MemoryReport};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::thread::Refusal;

/// What was prepared for the whole process.
pub(super) struct Process {
    pub(super) memory: Option<MemoryReport>,
    pub(super) power: Option<CpuLatencyHold>,
    pub(super) refused: Vec<Refusal>,
}

impl Process {
    /// Whatever the strictness, a lane may not spin for good where the kernel would stop it for a
    /// part of each second.
    pub(super) fn prepare(config: &NodeConfig, spins_in_bursts: bool) -> Result<Self, NodeError> {
        if config.realtime.wait.holds_core()
            && !spins_in_bursts
            && let Err(SpinRefused { reason, fix }) = RtThrottling::current().spin_allowed()
        {
            return Err(NodeError::Refused(vec![Refusal {
                what: "realtime.wait".to_owned(),
                wanted: "spin".to_owned(),
                got: "throttled".to_owned(),
                reason,
                fix: format!("{fix}, or set realtime.wait = \"spin-then-park\""),
            }]));
        }
        let memory = config.realtime.lock_memory.then(|| memory::prepare(&MemoryPlan::default()));
        let mut refused: Vec<_> =
            memory.iter().flat_map(|report| report.refused.iter().cloned()).collect();
        let power = config.realtime.cpu_latency_us.and_then(|us| {
            CpuLatencyHold::acquire(us)
                .map_err(|error| {
                    refused.push(Refusal {
                        what: "idle states".to_owned(),
                        wanted: format!("wake-up latency of {us} µs"),
                        got: "the system's default".to_owned(),
                        reason: error.to_string(),
                        fix: "run as root, or set realtime.cpu_latency_us = \"off\"".to_owned(),
                    });
                })
                .ok()
        });
        Ok(Self { memory, power, refused })
    }
}
