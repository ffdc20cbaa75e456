//! Gathers what the checks judge: the kernel's files, the rights of this process, what the kernel
//! grants when it is really asked, and what happens while the doctor looks.

mod counters;
mod network;
mod probe;
mod settings;

use std::path::Path;
use std::time::Duration;

use sinew_rt::files;
use sinew_rt::kernel::{DynamicMode, Interrupt, KernelFacts, Preemption, Privileges};
use sinew_rt::memory::{self, MemoryPlan, MemoryUsage};
use sinew_rt::power;
use sinew_rt::thread::Refusal;
use sinew_rt::topology::{Topology, TopologyError};

pub(crate) use counters::{Counters, Window};
pub(crate) use network::{
    CAPTURED as CAPTURED_ETHTOOL, Coalescing, Nic, devices as network_devices,
};
pub(crate) use probe::CoreProbe;
pub(crate) use settings::{ADJTIMEX, DEBUG_OPTIONS, Discipline, Settings};

use super::purpose::Purpose;

/// Where a captured tree keeps the second reading of the counters, and how long after the first.
pub(crate) const LATER: &str = "later";
pub(crate) const WINDOW_FILE: &str = "probed/window_ms";

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
    /// Whether this is the running machine, so that more could be tried than read.
    pub(crate) live: bool,
    pub(crate) purpose: Purpose,
    pub(crate) kernel: KernelFacts,
    pub(crate) topology: Topology,
    pub(crate) privileges: Privileges,
    /// One for each usable core; none of a captured tree.
    pub(crate) probes: Vec<CoreProbe>,
    pub(crate) memory: MemoryFacts,
    pub(crate) latency: LatencyFacts,
    /// Devices' interrupts; `None` when `/proc/irq` cannot be read.
    pub(crate) interrupts: Option<Vec<Interrupt>>,
    /// Devices on the network; `None` when sysfs does not show them.
    pub(crate) nics: Option<Vec<Nic>>,
    pub(crate) settings: Settings,
    /// The counters at the beginning, or the only reading.
    pub(crate) counters: Counters,
    /// What happened while the doctor looked; `None` when it looked once.
    pub(crate) window: Option<Window>,
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
    /// Whether this user may hold one; `None` where that cannot be tried.
    pub(crate) may_hold: Option<bool>,
}

impl Facts {
    /// What one look at this machine shows, judged for any node. Takes no time to watch.
    pub(crate) fn at_a_glance(lock: Lock) -> Result<Self, TopologyError> {
        let topology = Topology::read()?;
        let purpose = Purpose::any(&topology);
        Ok(Self::live(topology, purpose, lock))
    }

    /// This machine.
    pub(crate) fn live(topology: Topology, purpose: Purpose, lock: Lock) -> Self {
        let root = Path::new("/");
        let privileges = Privileges::read(root);
        let memory = match lock {
            Lock::Try => {
                let report = memory::prepare(&MemoryPlan::default());
                MemoryFacts { usage: MemoryUsage::read(root), refused: report.refused }
            }
            Lock::Look => look_at_memory(root, &privileges),
        };
        let latency = LatencyFacts {
            bound_us: power::latency_bound_us(root),
            may_hold: Some(power::may_hold(root)),
        };
        let probes = probe::all(topology.usable_cores().iter());
        Self::read(root, true, topology, purpose, privileges, memory, latency, probes)
    }

    /// The machine whose `proc` and `sys` were captured under `root`.
    pub(crate) fn captured(root: &Path, topology: Topology, purpose: Purpose) -> Self {
        let privileges = Privileges::read(root);
        let memory = look_at_memory(root, &privileges);
        let latency = LatencyFacts { bound_us: power::latency_bound_us(root), may_hold: None };
        let mut facts =
            Self::read(root, false, topology, purpose, privileges, memory, latency, Vec::new());
        let later = root.join(LATER);
        if let Some(millis) = files::number(root, WINDOW_FILE) {
            let after = Counters::read(&later, &facts.topology.online);
            facts.window = Some(Window { before: facts.counters.clone(), after, millis });
        }
        facts
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field that its caller knows")]
    fn read(
        root: &Path,
        live: bool,
        topology: Topology,
        purpose: Purpose,
        privileges: Privileges,
        memory: MemoryFacts,
        latency: LatencyFacts,
        probes: Vec<CoreProbe>,
    ) -> Self {
        let kernel = KernelFacts::read_from(root);
        Self {
            live,
            purpose,
            interrupts: Interrupt::read_all(root),
            nics: network::devices(root, live),
            settings: Settings::read(root, &kernel.release, live),
            counters: Counters::read_last(root, &topology.online),
            window: None,
            kernel,
            topology,
            privileges,
            probes,
            memory,
            latency,
        }
    }

    /// Watches for `span` what happens on this machine.
    pub(crate) fn watch(&mut self, span: Duration) {
        let root = Path::new("/");
        let begin = std::time::Instant::now();
        let before = Counters::read_last(root, &self.topology.online);
        std::thread::sleep(span);
        let after = Counters::read(root, &self.topology.online);
        let millis = begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.counters = before.clone();
        self.window = Some(Window { before, after, millis });
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
            !self.live,
            "what only trying shows (SCHED_FIFO on each core, locking memory): run on the machine itself",
        );
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
        note(self.interrupts.is_none(), "where interrupts go (/proc/irq)");
        note(
            self.counters.interrupts.is_none(),
            "how often interrupts come (/proc/interrupts): root, or a kernel that shows it",
        );
        let machine = self.counters.tasks.as_ref().is_some_and(|tasks| tasks.whole_machine());
        note(
            !machine,
            "the machine's tasks (/proc/*/task/*/stat): outside a container, and without hidepid=",
        );
        note(
            self.settings.tracer.is_none(),
            "the tracer in use (/sys/kernel/tracing/current_tracer): root, and tracefs mounted",
        );
        let physical = kernel.hypervisor.is_none();
        note(
            physical && self.counters.management.is_empty(),
            "system management interrupts (MSR 0x34): an Intel processor, root, and modprobe msr",
        );
        unread
    }
}

fn look_at_memory(root: &Path, privileges: &Privileges) -> MemoryFacts {
    let usage = MemoryUsage::read(root);
    let refused = match usage.locked_bytes {
        0 => memory::foreseen_refusal(privileges, &usage).into_iter().collect(),
        _ => Vec::new(),
    };
    MemoryFacts { usage, refused }
}
