//! Gathers what the checks judge: the kernel's files, the rights of this process, and what the
//! kernel grants when it is really asked.

use std::path::Path;

use sinew_rt::kernel::{DynamicMode, KernelFacts, Preemption, Privileges};
use sinew_rt::memory::{self, MemoryPlan, MemoryUsage};
use sinew_rt::power;
use sinew_rt::thread::{Priority, Refusal, Strictness, ThreadSpec, spawn};
use sinew_rt::topology::{CoreId, Topology, TopologyError};

/// Whether gathering may lock this process's memory to see if that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Lock and read back.
    Try,
    /// Only look at the limits and at what is locked already.
    Look,
}

/// Everything that a check may look at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) kernel: KernelFacts,
    pub(crate) topology: Topology,
    pub(crate) privileges: Privileges,
    /// One for each usable core.
    pub(crate) probes: Vec<CoreProbe>,
    pub(crate) memory: MemoryFacts,
    pub(crate) latency: LatencyFacts,
}

/// What a real-time thread was granted on one core.
#[derive(Clone, Debug)]
pub(crate) struct CoreProbe {
    pub(crate) core: CoreId,
    /// The scheduling read back, or `none` when no thread could be started.
    pub(crate) effective: String,
    /// Why it is not what was asked for, with the fix.
    pub(crate) refusal: Option<Refusal>,
}

#[derive(Clone, Debug)]
pub(crate) struct MemoryFacts {
    pub(crate) usage: MemoryUsage,
    /// What was refused, or would be.
    pub(crate) refused: Vec<Refusal>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LatencyFacts {
    /// The bound on idle wake-up latency that somebody holds; `None` when unreadable.
    pub(crate) bound_us: Option<u32>,
    /// Whether this user may hold one.
    pub(crate) may_hold: bool,
}

impl Facts {
    pub(crate) fn gather(lock: Lock) -> Result<Self, TopologyError> {
        let root = Path::new("/");
        let topology = Topology::read()?;
        let privileges = Privileges::read(root);
        let memory = match lock {
            Lock::Try => {
                let report = memory::prepare(&MemoryPlan::default());
                MemoryFacts { usage: MemoryUsage::read(root), refused: report.refused }
            }
            Lock::Look => {
                let usage = MemoryUsage::read(root);
                let refused = match usage.locked_bytes {
                    0 => memory::foreseen_refusal(&privileges, &usage).into_iter().collect(),
                    _ => Vec::new(),
                };
                MemoryFacts { usage, refused }
            }
        };
        Ok(Self {
            kernel: KernelFacts::read(),
            probes: topology.usable_cores().iter().map(probe).collect(),
            topology,
            privileges,
            memory,
            latency: LatencyFacts {
                bound_us: power::latency_bound_us(root),
                may_hold: power::may_hold(root),
            },
        })
    }

    /// What could not be read by this user, and what would make it readable.
    pub(crate) fn unread(&self) -> Vec<String> {
        let mut unread = Vec::new();
        let mut note = |missing: bool, text: &str| {
            if missing {
                unread.push(text.to_owned());
            }
        };
        let kernel = &self.kernel;
        let dynamic = matches!(kernel.preemption, Preemption::Dynamic(DynamicMode::Unknown));
        let has_fair_server = kernel.throttling.kernel >= Some((6, 12));
        note(
            dynamic,
            "the running preemption mode (/sys/kernel/debug/sched/preempt): root, and debugfs mounted",
        );
        note(
            has_fair_server && kernel.fair_servers.is_none(),
            "the fair server (/sys/kernel/debug/sched/fair_server): root, and debugfs mounted",
        );
        note(
            self.latency.bound_us.is_none(),
            "the idle latency bound in force (/dev/cpu_dma_latency): root, or group read access",
        );
        note(
            kernel.throttling.group_scheduling.is_none(),
            "whether RT_GROUP_SCHED is built in: /proc/config.gz or /boot/config-<release>",
        );
        let no_interrupts = self.topology.cores.iter().any(|core| core.interrupts.is_none());
        note(no_interrupts, "where interrupts go (/proc/irq)");
        unread
    }
}

/// Runs a real-time thread on `core` for as long as it takes to read back where and how it runs.
/// Lowest priority: on a live robot, every real-time thread there goes first.
fn probe(core: CoreId) -> CoreProbe {
    let spec = ThreadSpec::new("sinew-doctor")
        .core(core)
        .fifo(Priority::MIN)
        .strictness(Strictness::Report);
    let wanted = spec.policy.to_string();
    let failed = |reason: String| CoreProbe {
        core,
        effective: "none".to_owned(),
        refusal: Some(Refusal {
            what: "thread".to_owned(),
            wanted: wanted.clone(),
            got: "no thread".to_owned(),
            reason,
            fix:
                "free the core of spinning real-time threads; raise the limit on tasks (ulimit -u)"
                    .to_owned(),
        }),
    };
    // SAFETY: sched_getcpu has no arguments and touches no memory of ours.
    let thread = match spawn(spec, || unsafe { libc::sched_getcpu() }) {
        Ok(thread) => thread,
        Err(error) => return failed(error.to_string()),
    };
    let applied = thread.applied().clone();
    let ran_on = match thread.join() {
        Ok(ran_on) => ran_on,
        Err(error) => return failed(error.to_string()),
    };
    let elsewhere = (ran_on != i32::from(core.get())).then(|| Refusal {
        what: "affinity".to_owned(),
        wanted: format!("core {core}"),
        got: format!("ran on core {ran_on}"),
        reason: "the pinned thread ran elsewhere".to_owned(),
        fix: "stop the tool that moves threads (tuned, taskset -p, a container manager)".to_owned(),
    });
    CoreProbe {
        core,
        effective: applied.effective.scheduling.to_string(),
        refusal: applied.refused.into_iter().next().or(elsewhere),
    }
}
