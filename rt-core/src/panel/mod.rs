//! The instrument panel: every counter, histogram, guard state and the last trips of a process in one
//! memory-mapped file, written without waiting and read without asking.
//!
//! A process creates one [`Panel`] (`/dev/shm/sinew/<name>.panel`, mode 0600) and registers what it
//! wants to show; real-time threads then write through handles ([`Probe`], [`Recorder`],
//! [`Counter`], [`Gauge`]) that cost a load, an add and a store. Tools map the file read-only with
//! [`PanelReader`]: they cannot disturb the process, and they can read it after a crash.
//!
//! | call | real-time safety |
//! |---|---|
//! | [`Panel::create`], [`Panel::probe`], [`Panel::recorder`], … | lock, allocate, system calls: before lanes start, or on housekeeping |
//! | [`Recorder::record`], [`Counter::add`], [`Gauge::set`] | wait-free, no system call |
//! | [`Panel::heartbeat`], [`Panel::set_state`] | wait-free, no system call |
//! | [`PanelReader`], [`PanelSnapshot`] | allocate: never on a lane |
//! | dropping the last handle | unmaps and removes the file: keep a [`Panel`] on housekeeping until lanes have ended |
//!
//! # Life of the file
//!
//! A panel that was [`State::Stopped`] (or never left [`State::Starting`]) when its last handle is
//! dropped removes its file. Any other end leaves the evidence: after SIGKILL the file stays, and
//! the next process of that name renames it to `<name>.crashed.panel` before it creates its own;
//! a panel dropped while running becomes [`State::Failed`] under that name at once. A panel whose
//! writer is alive is never replaced: [`PanelError::InUse`]. That holds for a writer of another
//! version, too: offsets 0 to 55 of the header are the same in all of them.
//!
//! # Layout, version 2
//!
//! Native byte order (the magic tells), tables and entries aligned to 64 bytes, text zero-padded
//! UTF-8. Every number is one atomic word with one writer at a time. `used` of a table is stored with
//! release after an entry is complete. Words that belong together stand behind a sequence word
//! (`sequence_lock.rs`).
//!
//! Header, 2,176 bytes at offset 0:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | magic | u64 | `SINEWPNL`; stored last |
//! | 8 | version | u32 | 2 |
//! | 12 | header_len | u32 | 2,176 |
//! | 16 | file_len | u64 | header and all tables |
//! | 24 | pid | u32 | writer |
//! | 28 | state | u32 | [`State`] |
//! | 32 | process_start | u64 | clock ticks since boot, field 22 of `/proc/<pid>/stat` |
//! | 40 | boot_id | 2 × u64 | low half first |
//! | 56 | started_at | i64 | ns of CLOCK_MONOTONIC |
//! | 64 | started_at_wall | i64 | ns since 1970 |
//! | 72 | heartbeat_at | i64 | ns of CLOCK_MONOTONIC, 0 = never |
//! | 80 | name | text 48 | |
//! | 128 | tables | 4 × 24 | offset u64, entry_len u32, capacity u32, used u32, reserved u32: probes, histograms, values, trips |
//! | 224 | trips_per_probe | u32 | |
//! | 232 | text_sequence | u64 | around the texts below |
//! | 240 | layout | text 200 | which stages run where |
//! | 440 | identity | text 128 | the node's did:key |
//! | 568 | reasons | 8 × text 200 | why the process is NOT REAL-TIME |
//!
//! Probe, 256 bytes, a line per writer:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | name | text 40 | |
//! | 40 | core | u32 | `u32::MAX` = not pinned |
//! | 44, 48 | execution_histogram, release_histogram | u32 | index in the table |
//! | 64 | entered_at | i64 | ns of CLOCK_MONOTONIC, 0 = outside |
//! | 72 | executions | u64 | with work |
//! | 80 | overruns | u64 | missed budgets and deadlines, idle ones included |
//! | 88 | idle_overruns | u64 | overruns of executions without work |
//! | 96 | hangs_seen | u64 | hangs that the guard has answered |
//! | 104 | level | u32 | [`Level`](crate::ladder::Level) |
//! | 108 | rearms | u32 | |
//! | 112 | starved | u64 | times that an input was late or absent |
//! | 128 | config_sequence | u64 | around the next four |
//! | 136 | budget_ns, hard_limit_ns, on_hang, – | 4 × u64 | |
//! | 192 | hangs | u64 | written by the supervisor |
//! | 200 | last_hang_at | i64 | written by the supervisor |
//!
//! Histogram, 28,800 bytes:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | name | text 48 | |
//! | 48 | kind | u32 | [`Kind`] |
//! | 64, 72, 80, 88 | count, sum, min, max | u64 | ns, exact; min and max mean nothing while count is 0 |
//! | 96 | max_at | i64 | when the maximum was recorded |
//! | 104 | overflow | u64 | values above 10 s |
//! | 128 | counts | 3,584 × u64 | [`crate::histogram`] |
//!
//! Value, 64 bytes: 0 name (text 48), 48 kind u32 (1 = counter u64, 2 = gauge i64), 56 value.
//!
//! Trip, 256 bytes:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | sequence | u64 | around all that follow |
//! | 8 | number | u64 | from 1, per probe: overruns and starved inputs together |
//! | 16 | at | i64 | ns of CLOCK_MONOTONIC |
//! | 24, 32 | duration, budget | i64 | ns; of a starved input its age, and the age that it may have |
//! | 40 | release_latency | i64 | ns |
//! | 48, 52 | cause, level_after | u32 | [`Cause`], [`Level`](crate::ladder::Level) |
//! | 56 | awake | i64 | ns between baseline and `at` less sleeps; 0 = there was no baseline |
//! | 64 | cpu_time | i64 | ns since the baseline |
//! | 72, 80 | involuntary_switches, voluntary_switches | u64 | since the baseline |
//! | 88 | parks | u64 | sleeps since the baseline |
//! | 96, 104 | minor_faults, major_faults | u64 | since the baseline |
//! | 112 | slack | i64 | ns of `cpu_time` that the parks may have used |
//! | 120 | thread | u64 | id of the thread that tripped |
//! | 128 | around_sequence | u64 | around all that follow, which the supervisor writes |
//! | 136 | around_number | u64 | the trip that the rest is about; stale unless equal to `number` |
//! | 144 | window | i64 | ns that the following were counted for |
//! | 152 | interrupts | u64 | on the core |
//! | 160 | steal | i64 | ns that a hypervisor took from the core, in ticks of 10 ms |
//! | 168, 172 | thread, rt_priority | u32 | who could take the core and ran there; 0 = not known |
//! | 176 | thread_name | text 16 | |
//!
//! Record `n` of probe `p` lies at index `p × trips_per_probe + (n − 1) mod trips_per_probe`.

mod error;
mod files;
mod handles;
mod layout;
mod mapping;
mod process;
mod reader;
mod snapshot;
mod writer;

use std::fmt;
use std::path::PathBuf;

pub use error::{PanelError, UnknownVersion};
pub use files::{default_dir, path_of};
pub use handles::{Counter, Gauge, Probe, Recorder};
pub use process::ProcessIdentity;
pub use reader::{Listed, PanelReader};
pub use snapshot::{
    AroundSnapshot, EvidenceSnapshot, HistogramSnapshot, PanelSnapshot, ProbeSnapshot,
    RunnerSnapshot, TripSnapshot,
};
pub use writer::Panel;

pub(crate) use handles::{Change, Trip};
pub(crate) use layout::{
    AROUND_WORDS, CONFIG_WORDS, THREAD_NAME_WORDS, TRIP_WORDS, TripCell, encode,
};

/// What a new panel is called, where its file goes and how much fits.
///
/// The default capacities take about 1.2 MB: 24 probes with 8 trips each, 40 histograms, 192
/// counters and gauges.
#[derive(Clone, Debug)]
pub struct PanelSpec {
    /// 1 to 48 of `A–Z a–z 0–9 . _ -`, not starting with a dot.
    pub name: String,
    /// Directory of the file; made with mode 0700 when missing. It must belong to this user or to
    /// root, and nobody else may write to it.
    pub dir: PathBuf,
    /// Guarded stages and loops, at most 4,096.
    pub probes: u32,
    /// Histograms (a probe takes two), at most 4,096 of 28,800 bytes.
    pub histograms: u32,
    /// Counters and gauges together, at most 4,096.
    pub values: u32,
    /// Trip records kept per probe, at most 64.
    pub trips_per_probe: u32,
}

impl PanelSpec {
    /// A panel `name` in [`default_dir`] with the default capacities.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dir: default_dir(),
            probes: 24,
            histograms: 40,
            values: 192,
            trips_per_probe: 8,
        }
    }

    /// The same in another directory.
    #[must_use]
    pub fn in_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..self }
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Setting up; nothing runs yet.
    Starting = 1,
    /// Lanes run.
    Running = 2,
    /// Asked to stop; finishing what is in flight.
    Draining = 3,
    /// Ended as asked.
    Stopped = 4,
    /// Ended otherwise.
    Failed = 5,
}

impl State {
    const ALL: [Self; 5] =
        [Self::Starting, Self::Running, Self::Draining, Self::Stopped, Self::Failed];

    pub(crate) fn from_word(word: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// What the durations of a histogram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// End − start of an execution.
    Execution = 1,
    /// Start − release: how long work waited.
    ReleaseLatency = 2,
    /// Release − planned: how late a periodic thread woke.
    WakeUp = 3,
    /// Age of a message when it was used.
    Age = 4,
    /// Any other span.
    Span = 5,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Execution, Self::ReleaseLatency, Self::WakeUp, Self::Age, Self::Span];

    pub(crate) fn from_word(word: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Execution => "execution",
            Self::ReleaseLatency => "release latency",
            Self::WakeUp => "wake-up",
            Self::Age => "age",
            Self::Span => "span",
        })
    }
}

/// Whose fault a trip was, as far as the evidence goes: see [`crate::guard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    /// The evidence does not decide.
    Unknown = 1,
    /// The code itself took too long on the CPU.
    OwnOverrun = 2,
    /// Something else ran on this core meanwhile: another thread, or interrupts.
    Preempted = 3,
    /// It kept its budget and missed its deadline: it began too late.
    LateRelease = 4,
    /// Memory was not resident: the time went into page faults.
    PageFault = 5,
    /// A hypervisor took the CPU.
    Stolen = 6,
    /// An input arrived late, or not at all.
    StarvedInput = 7,
    /// The code itself waited: for a lock, a timer, a file.
    Blocked = 8,
}

impl Cause {
    /// Every cause, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::OwnOverrun,
        Self::Preempted,
        Self::LateRelease,
        Self::PageFault,
        Self::Stolen,
        Self::StarvedInput,
        Self::Blocked,
    ];

    pub(crate) fn from_word(word: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u32 == word)
    }

    /// Whether the thread was kept from its core in the middle of its work, by others or by itself.
    #[must_use]
    pub const fn is_off_cpu(self) -> bool {
        matches!(self, Self::Preempted | Self::Stolen | Self::Blocked)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::OwnOverrun => "own overrun",
            Self::Preempted => "preempted",
            Self::LateRelease => "late release",
            Self::PageFault => "page fault",
            Self::Stolen => "stolen",
            Self::StarvedInput => "starved input",
            Self::Blocked => "blocked",
        })
    }
}

/// The tables of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Guarded stages and loops.
    Probes = 0,
    /// Histograms.
    Histograms = 1,
    /// Counters and gauges.
    Values = 2,
    /// Trip records.
    Trips = 3,
}

impl Table {
    pub(crate) const ALL: [Self; 4] = [Self::Probes, Self::Histograms, Self::Values, Self::Trips];
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Probes => "probes",
            Self::Histograms => "histograms",
            Self::Values => "values",
            Self::Trips => "trips",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::layout::*;
    use super::*;
    use std::mem::offset_of;

    /// The tables in this module's documentation, as assertions.
    #[test]
    fn the_documented_layout_is_the_real_one() {
        let header = [
            (offset_of!(Header, magic), 0),
            (offset_of!(Header, version), 8),
            (offset_of!(Header, header_len), 12),
            (offset_of!(Header, file_len), 16),
            (offset_of!(Header, pid), 24),
            (offset_of!(Header, state), 28),
            (offset_of!(Header, process_start), 32),
            (offset_of!(Header, boot_id), 40),
            (offset_of!(Header, started_at), 56),
            (offset_of!(Header, started_at_wall), 64),
            (offset_of!(Header, heartbeat_at), 72),
            (offset_of!(Header, name), 80),
            (offset_of!(Header, tables), 128),
            (size_of::<TableEntry>(), 24),
            (offset_of!(TableEntry, offset), 0),
            (offset_of!(TableEntry, entry_len), 8),
            (offset_of!(TableEntry, capacity), 12),
            (offset_of!(TableEntry, used), 16),
            (offset_of!(Header, trips_per_probe), 224),
            (offset_of!(Header, text_sequence), 232),
            (offset_of!(Header, text), 240),
            (240 + LAYOUT_WORDS * 8, 440),
            (440 + IDENTITY_WORDS * 8, 568),
            (REASONS * REASON_WORDS * 8, 8 * 200),
            (size_of::<Header>(), 2_176),
        ];
        let probe = [
            (offset_of!(ProbeCell, name), 0),
            (offset_of!(ProbeCell, core), 40),
            (offset_of!(ProbeCell, execution_histogram), 44),
            (offset_of!(ProbeCell, release_histogram), 48),
            (offset_of!(ProbeCell, entered_at), 64),
            (offset_of!(ProbeCell, executions), 72),
            (offset_of!(ProbeCell, overruns), 80),
            (offset_of!(ProbeCell, idle_overruns), 88),
            (offset_of!(ProbeCell, hangs_seen), 96),
            (offset_of!(ProbeCell, level), 104),
            (offset_of!(ProbeCell, rearms), 108),
            (offset_of!(ProbeCell, starved), 112),
            (offset_of!(ProbeCell, config_sequence), 128),
            (offset_of!(ProbeCell, config), 136),
            (offset_of!(ProbeCell, hangs), 192),
            (offset_of!(ProbeCell, last_hang_at), 200),
            (size_of::<ProbeCell>(), 256),
        ];
        let histogram = [
            (offset_of!(HistogramCell, name), 0),
            (offset_of!(HistogramCell, kind), 48),
            (offset_of!(HistogramCell, count), 64),
            (offset_of!(HistogramCell, sum), 72),
            (offset_of!(HistogramCell, min), 80),
            (offset_of!(HistogramCell, max), 88),
            (offset_of!(HistogramCell, max_at), 96),
            (offset_of!(HistogramCell, overflow), 104),
            (offset_of!(HistogramCell, counts), 128),
            (size_of::<HistogramCell>(), 28_800),
        ];
        let rest = [
            (offset_of!(ValueCell, kind), 48),
            (offset_of!(ValueCell, value), 56),
            (size_of::<ValueCell>(), 64),
            (offset_of!(TripCell, sequence), 0),
            (offset_of!(TripCell, words), 8),
            (offset_of!(TripCell, around_sequence), 128),
            (offset_of!(TripCell, around), 136),
            (size_of::<TripCell>(), 256),
        ];
        for (row, (real, documented)) in
            header.into_iter().chain(probe).chain(histogram).chain(rest).enumerate()
        {
            assert_eq!(real, documented, "row {row}");
        }
        assert_eq!(&MAGIC.to_le_bytes(), b"SINEWPNL");
        assert_eq!(VERSION, 2);
    }

    #[test]
    fn default_capacities_stay_small() {
        let spec = PanelSpec::new("x");
        let len =
            Geometry::new(spec.probes, spec.histograms, spec.values, spec.trips_per_probe).file_len;
        assert!(len < 1_300_000, "{len} bytes");
    }
}
