//! What lies where in a panel file, as structs made of atomics only.
//!
//! zerocopy's derives prove that the structs have no padding and that every bit pattern is valid,
//! so that the bytes of a corrupt file are wrong values and never undefined behaviour. The tables in
//! the documentation of [`super`] are held against these structs by a test.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::mapping::{Cell, Mapping};
use super::{PanelError, ProcessIdentity, Table, UnknownVersion};
use crate::histogram::COUNTS_LEN;

/// First eight bytes of a panel: `SINEWPNL` on a little-endian host. Stored last at creation, so a
/// reader that finds it finds a complete header.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"SINEWPNL");

/// Version of this layout. A reader refuses every other.
pub(crate) const VERSION: u32 = 2;

/// Every table and every entry starts at a multiple of a cache line.
pub(crate) const LINE: usize = 64;

/// More probes, histograms or values than this are refused, by writers and by readers.
pub(crate) const MAX_CAPACITY: u32 = 4_096;

/// More trip records of each probe likewise.
pub(crate) const MAX_TRIPS_PER_PROBE: u32 = 64;

/// "No such entry" where a cell names another.
pub(crate) const NONE: u32 = u32::MAX;

/// UTF-8 text in whole words, filled up with zeros.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Text<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Text<WORDS> {
    pub(crate) const BYTES: usize = WORDS * 8;

    pub(crate) fn store(&self, text: &str) {
        for (word, value) in self.0.iter().zip(encode::<WORDS>(text)) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Whether this is exactly `text`, without making a string: a panel with thousands of entries compares
    /// each new name with all of them.
    pub(crate) fn is(&self, text: &[u64; WORDS]) -> bool {
        self.0.iter().zip(text).all(|(word, wanted)| word.load(Ordering::Relaxed) == *wanted)
    }

    pub(crate) fn load(&self) -> String {
        decode(self.0.iter().map(|word| word.load(Ordering::Relaxed)))
    }
}

/// `text` as words, cut at a character boundary where it does not fit.
pub(crate) fn encode<const WORDS: usize>(text: &str) -> [u64; WORDS] {
    let fits = &text.as_bytes()[..text.floor_char_boundary(WORDS * 8)];
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(fits.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(padded);
    }
    words
}

/// The text up to the first zero byte; bytes that are not UTF-8, and control characters, which would
/// tell a terminal what to do, become replacement characters.
pub(crate) fn decode(words: impl Iterator<Item = u64>) -> String {
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).replace(char::is_control, "\u{fffd}")
}

/// Words of [`Header::text`], one after the other.
pub(crate) const LAYOUT_WORDS: usize = 25;
pub(crate) const IDENTITY_WORDS: usize = 16;
pub(crate) const REASON_WORDS: usize = 25;
pub(crate) const REASONS: usize = 8;
pub(crate) const TEXT_WORDS: usize = LAYOUT_WORDS + IDENTITY_WORDS + REASONS * REASON_WORDS;

/// Where a table lies.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct TableEntry {
    pub(crate) offset: AtomicU64,
    pub(crate) entry_len: AtomicU32,
    pub(crate) capacity: AtomicU32,
    /// Entries in use; stored with release after the entry is complete.
    pub(crate) used: AtomicU32,
    pub(crate) reserved: AtomicU32,
}

/// The fields up to `boot_id` lie and mean the same in every version, so that whoever cannot read a
/// panel can still say who writes it.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) header_len: AtomicU32,
    pub(crate) file_len: AtomicU64,
    pub(crate) pid: AtomicU32,
    pub(crate) state: AtomicU32,
    pub(crate) process_start: AtomicU64,
    pub(crate) boot_id: [AtomicU64; 2],
    pub(crate) started_at: AtomicI64,
    pub(crate) started_at_wall: AtomicI64,
    pub(crate) heartbeat_at: AtomicI64,
    pub(crate) name: Text<6>,
    pub(crate) tables: [TableEntry; 4],
    pub(crate) trips_per_probe: AtomicU32,
    pub(crate) reserved: AtomicU32,
    pub(crate) text_sequence: AtomicU64,
    pub(crate) text: [AtomicU64; TEXT_WORDS],
    pub(crate) reserved_end: [AtomicU64; 1],
}

impl Header {
    /// The header of a panel, of which only the fields up to `boot_id` may be relied on.
    pub(crate) fn of_any_version(mapping: &Mapping) -> Result<&Self, PanelError> {
        let too_short =
            || PanelError::TooShort { need: size_of::<Self>() as u64, got: mapping.len() as u64 };
        let header = mapping.at::<Self>(0).ok_or_else(too_short)?;
        let magic = header.magic.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if magic != MAGIC {
            return Err(PanelError::NotAPanel { found: magic });
        }
        Ok(header)
    }

    /// Who wrote the panel.
    pub(crate) fn process(&self) -> ProcessIdentity {
        let half = |index: usize| u128::from(self.boot_id[index].load(Ordering::Relaxed));
        ProcessIdentity {
            pid: self.pid.load(Ordering::Relaxed),
            start_ticks: self.process_start.load(Ordering::Relaxed),
            boot_id: half(0) | half(1) << 64,
        }
    }
}

/// Words of [`ProbeCell::config`].
pub(crate) const CONFIG_WORDS: usize = 4;

/// One guarded stage or loop: a line of identity, a line that its own thread writes, a line of
/// configuration and one that the supervisor writes.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct ProbeCell {
    pub(crate) name: Text<5>,
    pub(crate) core: AtomicU32,
    pub(crate) execution_histogram: AtomicU32,
    pub(crate) release_histogram: AtomicU32,
    pub(crate) reserved_identity: [AtomicU32; 3],

    pub(crate) entered_at: AtomicI64,
    pub(crate) executions: AtomicU64,
    pub(crate) overruns: AtomicU64,
    pub(crate) idle_overruns: AtomicU64,
    pub(crate) hangs_seen: AtomicU64,
    pub(crate) level: AtomicU32,
    pub(crate) rearms: AtomicU32,
    pub(crate) starved: AtomicU64,
    pub(crate) reserved_lane: [AtomicU64; 1],

    pub(crate) config_sequence: AtomicU64,
    /// Budget, hard limit, level on a hang, zero.
    pub(crate) config: [AtomicU64; CONFIG_WORDS],
    pub(crate) reserved_config: [AtomicU64; 3],

    pub(crate) hangs: AtomicU64,
    pub(crate) last_hang_at: AtomicI64,
    pub(crate) reserved_supervisor: [AtomicU64; 6],
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct HistogramCell {
    pub(crate) name: Text<6>,
    pub(crate) kind: AtomicU32,
    pub(crate) reserved: [AtomicU32; 3],

    pub(crate) count: AtomicU64,
    pub(crate) sum: AtomicU64,
    pub(crate) min: AtomicU64,
    pub(crate) max: AtomicU64,
    pub(crate) max_at: AtomicI64,
    pub(crate) overflow: AtomicU64,
    pub(crate) reserved_line: [AtomicU64; 2],

    pub(crate) counts: [AtomicU64; COUNTS_LEN],
}

/// A counter or a gauge, alone on its cache line.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct ValueCell {
    pub(crate) name: Text<6>,
    pub(crate) kind: AtomicU32,
    pub(crate) reserved: AtomicU32,
    pub(crate) value: AtomicU64,
}

/// Words of [`TripCell::words`].
pub(crate) const TRIP_WORDS: usize = 15;
/// Words of [`TripCell::around`].
pub(crate) const AROUND_WORDS: usize = 5 + THREAD_NAME_WORDS;
pub(crate) const THREAD_NAME_WORDS: usize = 2;

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct TripCell {
    pub(crate) sequence: AtomicU64,
    /// Number from 1, at, duration, budget, release latency, cause and level; then what changed since
    /// the baseline: time awake, CPU time, involuntary switches, voluntary switches, parks, minor
    /// faults, major faults, CPU time that the parks may have used; and the thread's id.
    pub(crate) words: [AtomicU64; TRIP_WORDS],

    pub(crate) around_sequence: AtomicU64,
    /// Written by the supervisor. Number of the trip that the rest is about, window, interrupts,
    /// stolen time, thread id and real-time priority, and the thread's name.
    pub(crate) around: [AtomicU64; AROUND_WORDS],
    pub(crate) reserved_around: [AtomicU64; 8],
}

/// Where the tables of one panel lie: computed by its writer, or checked by a reader. Whoever holds
/// one may rely on it; the header is not looked at again, since another process could change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    offsets: [usize; 4],
    capacities: [u32; 4],
    pub(crate) trips_per_probe: u32,
    pub(crate) file_len: usize,
}

const ENTRY_LENS: [usize; 4] = [
    size_of::<ProbeCell>(),
    size_of::<HistogramCell>(),
    size_of::<ValueCell>(),
    size_of::<TripCell>(),
];

impl Geometry {
    /// Tables one after the other behind the header. Capacities were checked by the caller.
    pub(crate) fn new(probes: u32, histograms: u32, values: u32, trips_per_probe: u32) -> Self {
        let capacities = [probes, histograms, values, probes * trips_per_probe];
        let mut end = size_of::<Header>();
        let mut offsets = [0; 4];
        for ((offset, capacity), entry_len) in offsets.iter_mut().zip(capacities).zip(ENTRY_LENS) {
            *offset = end;
            end += capacity as usize * entry_len;
        }
        Self { offsets, capacities, trips_per_probe, file_len: end }
    }

    /// Writes where everything lies into an empty header.
    pub(crate) fn store(&self, header: &Header) {
        for (index, entry) in header.tables.iter().enumerate() {
            entry.offset.store(self.offsets[index] as u64, Ordering::Relaxed);
            entry.entry_len.store(ENTRY_LENS[index] as u32, Ordering::Relaxed);
            entry.capacity.store(self.capacities[index], Ordering::Relaxed);
        }
        header.trips_per_probe.store(self.trips_per_probe, Ordering::Relaxed);
        header.header_len.store(size_of::<Header>() as u32, Ordering::Relaxed);
        header.file_len.store(self.file_len as u64, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
    }

    /// Checks everything that a header says against the length of the mapping.
    pub(crate) fn check(mapping: &Mapping) -> Result<Self, PanelError> {
        let header = Header::of_any_version(mapping)?;
        let version = header.version.load(Ordering::Relaxed);
        if version != VERSION {
            let version = UnknownVersion { found: version, supported: VERSION };
            return Err(PanelError::Version(version));
        }
        let header_len = u64::from(header.header_len.load(Ordering::Relaxed));
        expect("header length", header_len, size_of::<Header>() as u64)?;
        let file_len = header.file_len.load(Ordering::Relaxed);
        if file_len > mapping.len() as u64 {
            return Err(PanelError::TooShort { need: file_len, got: mapping.len() as u64 });
        }
        let mut offsets = [0; 4];
        let mut capacities = [0; 4];
        for (index, entry) in header.tables.iter().enumerate() {
            let table = Table::ALL[index];
            let entry_len = u64::from(entry.entry_len.load(Ordering::Relaxed));
            expect("entry length", entry_len, ENTRY_LENS[index] as u64)?;
            let capacity = entry.capacity.load(Ordering::Relaxed);
            let offset = entry.offset.load(Ordering::Relaxed);
            let end = offset.checked_add(u64::from(capacity) * entry_len);
            let fits = end.is_some_and(|end| end <= file_len);
            if !fits || offset % LINE as u64 != 0 {
                return Err(PanelError::Table { table, offset, capacity, file_len });
            }
            // In range of usize: at most `file_len`, which is at most the length of the mapping.
            offsets[index] = offset as usize;
            capacities[index] = capacity;
        }
        // A sparse file may be as long as these say, and a reader's memory is not.
        for (table, capacity) in Table::ALL.into_iter().zip(capacities) {
            if table != Table::Trips && capacity > MAX_CAPACITY {
                let (found, expected) = (u64::from(capacity), u64::from(MAX_CAPACITY));
                return Err(PanelError::Corrupt { what: "capacity of a table", found, expected });
            }
        }
        let trips_per_probe = header.trips_per_probe.load(Ordering::Relaxed);
        if trips_per_probe > MAX_TRIPS_PER_PROBE {
            let (found, expected) = (u64::from(trips_per_probe), u64::from(MAX_TRIPS_PER_PROBE));
            return Err(PanelError::Corrupt { what: "trips per probe", found, expected });
        }
        let trips = u64::from(capacities[0]) * u64::from(trips_per_probe);
        expect("trip capacity", u64::from(capacities[3]), trips)?;
        Ok(Self { offsets, capacities, trips_per_probe, file_len: file_len as usize })
    }

    pub(crate) fn capacity(&self, table: Table) -> u32 {
        self.capacities[table as usize]
    }

    pub(crate) fn header<'m>(&self, mapping: &'m Mapping) -> &'m Header {
        mapping.at(0).unwrap_or_else(|| {
            unreachable!("a geometry exists only for mappings that hold a header")
        })
    }

    pub(crate) fn probes<'m>(&self, mapping: &'m Mapping) -> &'m [ProbeCell] {
        self.entries(mapping, Table::Probes)
    }

    pub(crate) fn histograms<'m>(&self, mapping: &'m Mapping) -> &'m [HistogramCell] {
        self.entries(mapping, Table::Histograms)
    }

    pub(crate) fn values<'m>(&self, mapping: &'m Mapping) -> &'m [ValueCell] {
        self.entries(mapping, Table::Values)
    }

    /// The ring of trip records of one probe; empty for a probe that does not exist.
    pub(crate) fn trips<'m>(&self, mapping: &'m Mapping, probe: usize) -> &'m [TripCell] {
        let per_probe = self.trips_per_probe as usize;
        let all: &[TripCell] = self.entries(mapping, Table::Trips);
        all.chunks_exact(per_probe.max(1)).nth(probe).unwrap_or(&[])
    }

    fn entries<'m, T: Cell>(&self, mapping: &'m Mapping, table: Table) -> &'m [T] {
        let index = table as usize;
        mapping.slice(self.offsets[index], self.capacities[index] as usize).unwrap_or(&[])
    }
}

fn expect(what: &'static str, found: u64, expected: u64) -> Result<(), PanelError> {
    if found == expected { Ok(()) } else { Err(PanelError::Corrupt { what, found, expected }) }
}
