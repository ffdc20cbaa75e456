//! Interrupts: where each goes, and how often each came on which core.

use std::path::Path;

use crate::files;
use crate::topology::{CoreId, CoreList};

/// More lines than any machine has.
const MAX_ROWS: usize = 8192;

/// An interrupt of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// Where it may go, which is what can be set; `None` when the kernel does not say.
    pub allowed: Option<CoreList>,
    /// Where the hardware really sends it; `None` when the kernel does not say.
    pub effective: Option<CoreList>,
}

impl Interrupt {
    /// The interrupts in `/proc/irq` under `root`; `None` when that cannot be read.
    #[must_use]
    pub fn read_all(root: &Path) -> Option<Vec<Self>> {
        let numbers = files::numbered(root, "proc/irq")?;
        let one = |number| Self {
            number,
            allowed: files::core_list(root, &format!("proc/irq/{number}/smp_affinity_list")),
            effective: effective_affinity(root, number),
        };
        Some(numbers.into_iter().map(one).collect())
    }
}

/// The cores to which the hardware sends interrupt `number` (core-api/irq/irq-affinity.rst).
#[must_use]
pub fn effective_affinity(root: &Path, number: u32) -> Option<CoreList> {
    files::core_list(root, &format!("proc/irq/{number}/effective_affinity_list"))
}

/// How often each interrupt came on each core, by `/proc/interrupts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterruptCounts {
    /// The columns.
    pub cores: Vec<CoreId>,
    /// The lines.
    pub rows: Vec<InterruptRow>,
}

/// One line of `/proc/interrupts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterruptRow {
    /// A number for a device, letters for one of the processor's own (`LOC`, `TLB`).
    pub label: String,
    /// The device, or what the processor's own is for.
    pub name: String,
    /// One count for each core.
    pub counts: Vec<u64>,
}

impl InterruptCounts {
    /// Reads `/proc/interrupts` under `root`; `None` when that cannot be read.
    #[must_use]
    pub fn read(root: &Path) -> Option<Self> {
        files::text(root, "proc/interrupts").map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default().split_whitespace();
        let core = |name: &str| Some(CoreId::new(name.strip_prefix("CPU")?.parse().ok()?));
        let cores: Vec<CoreId> = header.filter_map(core).collect();
        let row = |line: &str| {
            let (label, rest) = line.split_once(':')?;
            let mut words = rest.split_whitespace();
            // `ERR` and `MIS` have one count for all cores: they are left out.
            let counts: Option<Vec<u64>> =
                (0..cores.len()).map(|_| words.next()?.parse().ok()).collect();
            let words: Vec<&str> = words.collect();
            let label = label.trim().to_owned();
            let name = match label.parse::<u32>() {
                // The device comes after its controller and line, of which the last says how it
                // is triggered.
                Ok(_) => {
                    let triggered = |word: &&str| {
                        ["edge", "level", "fasteoi"]
                            .iter()
                            .any(|how| word.to_lowercase().ends_with(how))
                    };
                    let after = words.iter().position(triggered).map_or(0, |at| at + 1);
                    words[after..].join(" ")
                }
                Err(_) => words.join(" "),
            };
            Some(InterruptRow { label, name, counts: counts? })
        };
        let rows = lines.take(MAX_ROWS).filter_map(row).collect();
        Self { cores, rows }
    }

    /// The line of interrupt `number`.
    #[must_use]
    pub fn row(&self, label: &str) -> Option<&InterruptRow> {
        self.rows.iter().find(|row| row.label == label)
    }

    /// What came on `core` since `earlier`: the line, and how often.
    #[must_use]
    pub fn since(&self, earlier: &Self, core: CoreId) -> Vec<(&InterruptRow, u64)> {
        let Some(column) = self.cores.iter().position(|other| *other == core) else {
            return Vec::new();
        };
        let grown = |row: &InterruptRow| {
            let before = earlier.row(&row.label).and_then(|row| row.counts.get(column));
            row.counts[column].saturating_sub(before.copied().unwrap_or(0))
        };
        self.rows.iter().map(|row| (row, grown(row))).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "           CPU0       CPU1
  8:          0          3   IO-APIC   8-edge      rtc0
 16:         40          0   IO-APIC  16-fasteoi   ehci_hcd:usb1, snd_hda
 36:         10         20   PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
LOC:        100        200   Local timer interrupts
ERR:          0
";

    #[test]
    fn lines_have_a_count_for_each_core_and_the_name_of_the_device() {
        let counts = InterruptCounts::parse(TEXT);
        assert_eq!(counts.rows.len(), 4, "{counts:?}");
        assert_eq!(counts.row("8").unwrap().name, "rtc0");
        assert_eq!(counts.row("16").unwrap().name, "ehci_hcd:usb1, snd_hda");
        assert_eq!(counts.row("36").unwrap().counts, [10, 20]);
        assert_eq!(counts.row("LOC").unwrap().name, "Local timer interrupts");
        assert_eq!(InterruptCounts::parse(""), InterruptCounts::default());
    }

    #[test]
    fn growth_is_by_core() {
        let before = InterruptCounts::parse(TEXT);
        let later = InterruptCounts::parse(&TEXT.replace("20   PCI", "25   PCI"));
        let grown = later.since(&before, CoreId::new(1));
        assert_eq!(grown.iter().map(|(row, n)| (&*row.label, *n)).collect::<Vec<_>>(), [("36", 5)]);
        assert!(later.since(&before, CoreId::new(0)).is_empty());
        assert!(later.since(&before, CoreId::new(7)).is_empty());
    }
}
