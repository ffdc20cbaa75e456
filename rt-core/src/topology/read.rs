//! Reads the topology from the kernel's files.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cache, CacheKind, Core, CoreId, CoreList, Node, Topology};
use crate::files;

const CPU: &str = "sys/devices/system/cpu";
const NODE: &str = "sys/devices/system/node";

/// More cache levels than any machine has: bounds the walk over `cache/index*`.
const MAX_CACHES: usize = 16;

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file that every Linux has is missing.
    #[error("/{path} cannot be read; is sysfs or procfs not mounted? (mount -t sysfs sysfs /sys)")]
    Missing {
        /// The file, relative to the root.
        path: String,
    },
    /// A file does not have the form that the kernel documents.
    #[error("/{path} holds {text:?}, which is not a list of cores")]
    Malformed {
        /// The file, relative to the root.
        path: String,
        /// Its content.
        text: String,
    },
}

pub(super) fn topology(root: &Path) -> Result<Topology, TopologyError> {
    let online = required(root, &format!("{CPU}/online"))?;
    let status_path = "proc/self/status";
    let status = files::text(root, status_path)
        .ok_or_else(|| TopologyError::Missing { path: status_path.to_owned() })?;
    let allowed = files::field(&status, "Cpus_allowed_list").unwrap_or_default();
    let allowed = allowed.parse().map_err(|_| TopologyError::Malformed {
        path: status_path.to_owned(),
        text: allowed.to_owned(),
    })?;
    let interrupts = interrupts_per_core(root);
    Ok(Topology {
        possible: required(root, &format!("{CPU}/possible"))?,
        present: required(root, &format!("{CPU}/present"))?,
        isolated: optional(root, &format!("{CPU}/isolated"))?,
        nohz_full: optional(root, &format!("{CPU}/nohz_full"))?,
        allowed,
        cpuset: cpuset(root),
        cores: online.iter().map(|id| core(root, id, interrupts.as_ref())).collect(),
        nodes: nodes(root)?,
        online,
    })
}

fn required(root: &Path, path: &str) -> Result<CoreList, TopologyError> {
    let text =
        files::text(root, path).ok_or_else(|| TopologyError::Missing { path: path.to_owned() })?;
    text.parse().map_err(|_| TopologyError::Malformed { path: path.to_owned(), text })
}

/// A list that only some kernels have. `(null)` is how several releases print a `nohz_full` that
/// was not given on the command line.
fn optional(root: &Path, path: &str) -> Result<CoreList, TopologyError> {
    match files::text(root, path).as_deref().map(str::trim) {
        None | Some("(null)") => Ok(CoreList::empty()),
        Some(_) => required(root, path),
    }
}

fn core(root: &Path, id: CoreId, interrupts: Option<&BTreeMap<CoreId, usize>>) -> Core {
    let base = format!("{CPU}/cpu{id}");
    let alone = || CoreList::from_iter([id]);
    let mut caches: Vec<Cache> = (0..MAX_CACHES)
        .map_while(|index| cache(root, &format!("{base}/cache/index{index}")))
        .collect();
    caches.sort_by_key(|cache| cache.level);
    Core {
        id,
        // The kernel writes -1 where the platform does not say.
        package: files::number(root, &format!("{base}/topology/physical_package_id"))
            .filter(|number: &i32| *number >= 0),
        core_in_package: files::number(root, &format!("{base}/topology/core_id"))
            .filter(|number: &i32| *number >= 0),
        siblings: files::core_list(root, &format!("{base}/topology/thread_siblings_list"))
            .unwrap_or_else(alone),
        capacity: files::number(root, &format!("{base}/cpu_capacity")),
        caches,
        interrupts: interrupts.map(|counts| counts.get(&id).copied().unwrap_or(0)),
    }
}

fn cache(root: &Path, base: &str) -> Option<Cache> {
    let kind = match files::text(root, &format!("{base}/type"))?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        _ => CacheKind::Unified,
    };
    Some(Cache {
        level: files::number(root, &format!("{base}/level"))?,
        kind,
        shared: files::core_list(root, &format!("{base}/shared_cpu_list"))?,
        size_bytes: files::text(root, &format!("{base}/size")).and_then(|text| size_bytes(&text)),
    })
}

/// `48K`, `2M`: the kernel writes sizes in kibibytes.
fn size_bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix('M')?, 1024 * 1024),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn nodes(root: &Path) -> Result<Vec<Node>, TopologyError> {
    // The list format is the same as for cores.
    let online = optional(root, &format!("{NODE}/online"))?;
    online
        .iter()
        .map(|node| {
            let cores = required(root, &format!("{NODE}/node{node}/cpulist"))?;
            Ok(Node { id: node.get(), cores })
        })
        .collect()
}

/// Counts, for each core, the interrupts that the hardware really sends there.
fn interrupts_per_core(root: &Path) -> Option<BTreeMap<CoreId, usize>> {
    let mut counts = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("proc/irq")).ok()? {
        let name = entry.ok()?.file_name();
        let path = format!("proc/irq/{}/effective_affinity_list", name.to_string_lossy());
        for core in files::core_list(root, &path).unwrap_or_default().iter() {
            *counts.entry(core).or_default() += 1;
        }
    }
    Some(counts)
}

/// The cores of the process's cpuset: cgroup version 2, then 1. A group without the file takes its
/// parent's, so the walk goes up, at most as many steps as the path has parts.
fn cpuset(root: &Path) -> Option<CoreList> {
    let groups = files::text(root, "proc/self/cgroup")?;
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "cpuset.cpus.effective"),
            _ if controllers.split(',').any(|name| name == "cpuset") => {
                ("sys/fs/cgroup/cpuset", "cpuset.effective_cpus")
            }
            _ => return None,
        };
        Path::new(group).ancestors().find_map(|group| {
            let group = group.to_string_lossy();
            let path = format!("{mount}{}/{file}", group.trim_end_matches('/'));
            files::core_list(root, &path)
        })
    })
}
