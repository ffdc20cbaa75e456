//! Which cores this machine has, what they share, and which of them this process may use.
//!
//! Everything comes from `/sys/devices/system` and `/proc` (kernel documentation:
//! `admin-guide/cputopology.rst`, `ABI/testing/sysfs-devices-system-cpu`), under a root directory
//! of the caller's choice, so that a captured machine reads like the one we run on.
//!
//! Read the topology **before** the main thread is pinned: the allowed mask is the one of the
//! process's main thread, and pinning narrows it.

mod cores;
mod read;

use std::path::Path;

pub use cores::{CoreId, CoreList, CoreListError};
pub use read::TopologyError;

/// The cores of a machine and what this process may do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Every core that could ever exist on this machine.
    pub possible: CoreList,
    /// The cores that are plugged in.
    pub present: CoreList,
    /// The cores that are switched on.
    pub online: CoreList,
    /// The cores that the scheduler leaves alone (`isolcpus=` or an isolated cpuset partition).
    pub isolated: CoreList,
    /// The cores whose tick stops while one task runs (`nohz_full=`).
    pub nohz_full: CoreList,
    /// Affinity mask of the process's main thread when this was read.
    pub allowed: CoreList,
    /// The cores of the process's cpuset; `None` where no cpuset controller is mounted.
    pub cpuset: Option<CoreList>,
    /// Every online core, in ascending order.
    pub cores: Vec<Core>,
    /// Memory nodes with their cores, in ascending order; empty on kernels without NUMA.
    pub nodes: Vec<Node>,
}

/// One online core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its number.
    pub id: CoreId,
    /// The socket it sits in, where the kernel says.
    pub package: Option<i32>,
    /// Its number within the socket, where the kernel says; hardware threads share it.
    pub core_in_package: Option<i32>,
    /// The hardware threads of the same physical core, this one included.
    pub siblings: CoreList,
    /// Relative speed, 1024 for the fastest kind; `None` where the kernel does not say.
    pub capacity: Option<u32>,
    /// The caches it uses, from the nearest.
    pub caches: Vec<Cache>,
    /// Interrupts whose effective affinity includes this core; `None` when `/proc/irq` cannot be
    /// read.
    pub interrupts: Option<usize>,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// One cache of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// The cores that share it.
    pub shared: CoreList,
    /// Size in bytes, where the kernel says.
    pub size_bytes: Option<u64>,
}

/// One memory node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// Its cores.
    pub cores: CoreList,
}

impl Topology {
    /// This machine, for this process.
    pub fn read() -> Result<Self, TopologyError> {
        Self::read_from(Path::new("/"))
    }

    /// The machine whose `proc` and `sys` are under `root`.
    pub fn read_from(root: &Path) -> Result<Self, TopologyError> {
        read::topology(root)
    }

    /// One online core.
    #[must_use]
    pub fn core(&self, id: CoreId) -> Option<&Core> {
        self.cores.iter().find(|core| core.id == id)
    }

    /// The online cores that a thread of this process can be pinned to: those of its mask, and the
    /// isolated ones of its cpuset, which the default mask leaves out.
    #[must_use]
    pub fn usable_cores(&self) -> CoreList {
        let isolated = match &self.cpuset {
            Some(cpuset) => self.isolated.intersection(cpuset),
            None => self.isolated.clone(),
        };
        self.allowed
            .iter()
            .chain(isolated.iter())
            .filter(|core| self.online.contains(*core))
            .collect()
    }

    /// The hardware threads of the same physical core as `id`, without `id` itself.
    #[must_use]
    pub fn siblings_of(&self, id: CoreId) -> CoreList {
        self.core(id).map_or_else(CoreList::empty, |core| {
            core.siblings.iter().filter(|sibling| *sibling != id).collect()
        })
    }

    /// The level of the nearest data cache that two cores share, if they share any.
    #[must_use]
    pub fn nearest_shared_cache(&self, one: CoreId, other: CoreId) -> Option<u8> {
        let caches = &self.core(one)?.caches;
        caches
            .iter()
            .filter(|cache| cache.kind != CacheKind::Instruction && cache.shared.contains(other))
            .map(|cache| cache.level)
            .min()
    }

    /// Cores for normal work, the best first: usable and not isolated, the slowest kind first,
    /// then by number (most devices send their interrupts to core 0). When every usable core is
    /// isolated, the lowest of them: normal work has to run somewhere.
    #[must_use]
    pub fn housekeeping_candidates(&self) -> Vec<CoreId> {
        let usable = self.usable_cores();
        let mut candidates: Vec<CoreId> = usable.difference(&self.isolated).iter().collect();
        candidates.sort_by_key(|id| (self.capacity(*id), *id));
        if candidates.is_empty() {
            candidates.extend(usable.first());
        }
        candidates
    }

    /// Cores for real-time lanes, the best first: the usable isolated ones, or else the usable
    /// ones less one for housekeeping. Never empty while the process may run at all: on a single
    /// core everything shares it.
    ///
    /// Faster kinds come first, then the first hardware thread of each physical core, then by
    /// number, so that taking cores in order shares a physical core only when it must.
    #[must_use]
    pub fn real_time_cores(&self) -> Vec<CoreId> {
        let usable = self.usable_cores();
        let isolated = usable.intersection(&self.isolated);
        let mut cores: Vec<CoreId> = if isolated.is_empty() {
            let housekeeping = self.housekeeping_candidates().first().copied();
            usable.iter().filter(|core| usable.len() == 1 || Some(*core) != housekeeping).collect()
        } else {
            isolated.iter().collect()
        };
        let thread_of_core = |id: CoreId| {
            self.core(id).and_then(|core| core.siblings.iter().position(|sibling| sibling == id))
        };
        cores.sort_by_key(|id| (std::cmp::Reverse(self.capacity(*id)), thread_of_core(*id), *id));
        cores
    }

    fn capacity(&self, id: CoreId) -> u32 {
        self.core(id).and_then(|core| core.capacity).unwrap_or(1024)
    }
}
