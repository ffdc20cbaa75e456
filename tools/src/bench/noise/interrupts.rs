//! The interrupts that came on a core while it was watched.

use std::collections::BTreeMap;
use std::fmt;
use std::{fs, io};

use sinew_rt::topology::CoreId;

/// How often each interrupt came on each core, by `/proc/interrupts`.
pub(super) struct Interrupts {
    cores: Vec<CoreId>,
    /// By label and description; one count for each core.
    lines: BTreeMap<String, Vec<u64>>,
}

impl Interrupts {
    pub(super) fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/interrupts").map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let cores: Vec<_> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|name| name.strip_prefix("CPU")?.parse().ok().map(CoreId::new))
            .collect();
        let line = |line: &str| {
            let (label, rest) = line.trim_start().split_once(':')?;
            let mut words = rest.split_whitespace();
            let counts: Option<Vec<_>> =
                (0..cores.len()).map(|_| words.next()?.parse().ok()).collect();
            let words: Vec<_> = words.collect();
            // A device's name comes last, after its controller and line; an architecture's own
            // interrupts have a description of several words.
            let name = match label.parse::<u32>() {
                Ok(_) => words.last().copied().unwrap_or_default().to_owned(),
                Err(_) => words.join(" "),
            };
            // `ERR` and `MIS` have one count for all cores.
            Some((format!("{label} ({name})"), counts?))
        };
        let lines = lines.filter_map(line).collect();
        Self { cores, lines }
    }

    /// What came on `core` since `earlier`, the most frequent first.
    pub(super) fn since(&self, earlier: &Self, core: CoreId) -> Arrived {
        let Some(column) = self.cores.iter().position(|other| *other == core) else {
            return Arrived(Vec::new());
        };
        let before = |name| earlier.lines.get(name).map_or(0, |counts| counts[column]);
        let counts = self.lines.iter().map(|(name, counts)| (name, counts[column]));
        let mut arrived: Vec<_> = counts
            .map(|(name, count)| (name.clone(), count.saturating_sub(before(name))))
            .filter(|(_, count)| *count > 0)
            .collect();
        arrived.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Arrived(arrived)
    }
}

/// Interrupts by name, with how often they came.
pub(super) struct Arrived(Vec<(String, u64)>);

impl Arrived {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
           CPU0       CPU3
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
LOC:    8239656    6761472   Local timer interrupts
ERR:          0
";
    const AFTER: &str = "\
           CPU0       CPU3
 24:          1          7  IO-APIC   5-edge      ACPI:Ged
 25:          0          1  IO-APIC   6-edge      eth0-rx
LOC:    8239999    6762472   Local timer interrupts
ERR:          3
";

    #[test]
    fn interrupts_are_counted_for_the_core_that_had_them() {
        let (before, after) = (Interrupts::parse(BEFORE), Interrupts::parse(AFTER));
        let on = |core| after.since(&before, CoreId::new(core)).to_string();
        assert_eq!(on(3), "1000 LOC (Local timer interrupts), 7 24 (ACPI:Ged), 1 25 (eth0-rx)");
        assert_eq!(on(0), "343 LOC (Local timer interrupts)");
        assert_eq!(on(1), "", "a core that is not in the table");
    }
}
