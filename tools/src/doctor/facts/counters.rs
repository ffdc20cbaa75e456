//! Counters that must not grow: read twice, with a window between.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sinew_rt::files;
use sinew_rt::kernel::{InterruptCounts, Tasks};
use sinew_rt::topology::{CoreId, CoreList};

/// Where Intel counts system management interrupts (`MSR_SMI_COUNT`, asm/msr-index.h).
const MSR_SMI_COUNT: u64 = 0x34;

/// One reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Page faults of this process, with and without disk access.
    pub(crate) faults: Option<u64>,
    pub(crate) interrupts: Option<InterruptCounts>,
    pub(crate) tasks: Option<Tasks>,
    /// By core: how often it was slowed down for heat, and its socket.
    pub(crate) throttled: BTreeMap<CoreId, u64>,
    /// By core: system management interrupts.
    pub(crate) management: BTreeMap<CoreId, u64>,
    /// Datagrams dropped because a socket's receive buffer was full.
    pub(crate) udp_dropped: Option<u64>,
    /// Frames dropped because the kernel's backlog was full.
    pub(crate) backlog_dropped: Option<u64>,
    /// Time that a hypervisor took, in ticks of 10 ms.
    pub(crate) stolen_ticks: Option<u64>,
}

/// Two readings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) before: Counters,
    pub(crate) after: Counters,
    pub(crate) millis: u64,
}

impl Counters {
    /// The counters under `root`. Page faults come first or last, so that those of this walk do not
    /// count: [`Counters::read_last`].
    pub(crate) fn read(root: &Path, cores: &CoreList) -> Self {
        let faults = faults(root);
        Self { faults, ..Self::read_rest(root, cores) }
    }

    /// The same with the page faults read at the end.
    pub(crate) fn read_last(root: &Path, cores: &CoreList) -> Self {
        let rest = Self::read_rest(root, cores);
        // Once for the memory that the reading itself takes.
        faults(root);
        Self { faults: faults(root), ..rest }
    }

    fn read_rest(root: &Path, cores: &CoreList) -> Self {
        let throttled = |core: CoreId| {
            let base = format!("sys/devices/system/cpu/cpu{core}/thermal_throttle");
            let count = |name: &str| files::number::<u64>(root, &format!("{base}/{name}"));
            let counts = [count("core_throttle_count"), count("package_throttle_count")];
            counts.iter().any(Option::is_some).then(|| (core, counts.iter().flatten().sum()))
        };
        let management = |core: CoreId| {
            let file = std::fs::File::open(root.join(format!("dev/cpu/{core}/msr"))).ok()?;
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, MSR_SMI_COUNT).ok()?;
            Some((core, u64::from_ne_bytes(bytes)))
        };
        Self {
            faults: None,
            interrupts: InterruptCounts::read(root),
            tasks: Tasks::read(root),
            throttled: cores.iter().filter_map(throttled).collect(),
            management: cores.iter().filter_map(management).collect(),
            udp_dropped: files::text(root, "proc/net/snmp").and_then(|text| udp_dropped(&text)),
            backlog_dropped: files::text(root, "proc/net/softnet_stat")
                .map(|text| backlog_dropped(&text)),
            stolen_ticks: files::text(root, "proc/stat").and_then(|text| stolen(&text)),
        }
    }
}

/// Fields 10 and 12 of proc_pid_stat(5).
fn faults(root: &Path) -> Option<u64> {
    let stat = files::text(root, "proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(field(10)? + field(12)?)
}

/// `RcvbufErrors` of the table `Udp`, whose first line has the names.
fn udp_dropped(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|name| name == "RcvbufErrors")?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// The second column, hexadecimal, of every core's line (networking/scaling.rst).
fn backlog_dropped(softnet: &str) -> u64 {
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    softnet.lines().filter_map(column).sum()
}

/// The eighth number of the first line (filesystems/proc.rst).
fn stolen(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    line.split_whitespace().nth(7)?.parse().ok()
}
