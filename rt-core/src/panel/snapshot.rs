//! A panel as plain owned data: what tools show, export and compare.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use hdrhistogram::Histogram;

use super::layout::{
    AROUND_WORDS, CONFIG_WORDS, Geometry, HistogramCell, IDENTITY_WORDS, LAYOUT_WORDS, NONE,
    ProbeCell, REASON_WORDS, TEXT_WORDS, TRIP_WORDS, TripCell, ValueCell, decode,
};
use super::mapping::Mapping;
use super::{Cause, Kind, PanelError, ProcessIdentity, State, Table};
use crate::clock::{self, Nanos};
use crate::histogram;
use crate::ladder::Level;
use crate::sequence_lock;

/// Everything a panel showed at one moment. Each number is exact for some instant during
/// [`taken_at`](Self::taken_at); numbers of different entries may be some microseconds apart.
#[derive(Clone, Debug)]
pub struct PanelSnapshot {
    /// Name of the panel.
    pub name: String,
    /// Who wrote it.
    pub process: ProcessIdentity,
    /// When the panel was created, in CLOCK_MONOTONIC.
    pub started_at: Nanos,
    /// The same, since 1970.
    pub started_at_wall: Nanos,
    /// When this snapshot was taken, in CLOCK_MONOTONIC of the reader.
    pub taken_at: Nanos,
    /// Where the process said it was in its life. A killed process still says `Running`:
    /// see [`is_alive`](Self::is_alive).
    pub state: State,
    /// When housekeeping last showed that it is alive.
    pub heartbeat_at: Option<Nanos>,
    /// Which stages run where.
    pub layout: String,
    /// The node's did:key.
    pub identity: String,
    /// Why results are branded NOT REAL-TIME; empty when they are not.
    pub not_real_time: Vec<String>,
    /// Guarded stages and loops, as registered.
    pub probes: Vec<ProbeSnapshot>,
    /// All histograms, those of the probes included.
    pub histograms: Vec<HistogramSnapshot>,
    /// Counters by name, as registered.
    pub counters: Vec<(String, u64)>,
    /// Gauges by name, as registered.
    pub gauges: Vec<(String, i64)>,
    /// The trip records that are still kept, oldest first.
    pub trips: Vec<TripSnapshot>,
    /// Records and texts that could not be read whole, because their writer was always in the
    /// middle of them or died there.
    pub torn: u32,
}

/// One guarded stage or loop.
#[derive(Clone, Debug)]
pub struct ProbeSnapshot {
    /// Name.
    pub name: String,
    /// Core that it is pinned to.
    pub core: Option<u16>,
    /// Budget of one execution; zero before a guard took the probe.
    pub budget: Nanos,
    /// What the supervisor calls a hang; zero before a guard took the probe.
    pub hard_limit: Nanos,
    /// The least level after a hang.
    pub on_hang: Level,
    /// Since when it is inside an execution, or `None` outside.
    pub entered_at: Option<Nanos>,
    /// Executions that had work.
    pub executions: u64,
    /// Budgets missed, those of idle executions included.
    pub overruns: u64,
    /// Overruns of executions without work.
    pub idle_overruns: u64,
    /// Times that an input was late or absent.
    pub starved: u64,
    /// Hangs found by the supervisor.
    pub hangs: u64,
    /// When the last hang was found.
    pub last_hang_at: Option<Nanos>,
    /// The level; a hang that the guard could not answer yet counts.
    pub level: Level,
    /// How often it was re-armed.
    pub rearms: u32,
    /// Index of its execution times in [`PanelSnapshot::histograms`].
    pub execution_histogram: Option<usize>,
    /// Index of its release latencies in [`PanelSnapshot::histograms`].
    pub release_histogram: Option<usize>,
}

/// One histogram of durations.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// Name.
    pub name: String,
    /// What the durations are.
    pub kind: Kind,
    /// Values recorded: always the sum of all counts and the overflow.
    pub count: u64,
    /// Shortest, exact; zero while empty.
    pub min: Nanos,
    /// Longest, exact, also above 10 s; zero while empty.
    pub max: Nanos,
    /// When the longest was recorded.
    pub max_at: Option<Nanos>,
    /// Sum of all values in ns, exact.
    pub sum_ns: u64,
    /// Values above 10 s.
    pub overflow: u64,
    /// The distribution; overflows stand at 10 s.
    pub hdr: Histogram<u64>,
}

impl HistogramSnapshot {
    /// The value below which the share `quantile` (0 to 1) of all values lies, to two digits but
    /// never beyond the exact extremes; zero while empty.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Nanos {
        if self.count == 0 {
            return Nanos::ZERO;
        }
        // Among overflows the distribution knows nothing but "more than 10 s".
        let value = self.hdr.value_at_quantile(quantile).min(i64::MAX as u64).cast_signed();
        Nanos::new(value).max(self.min).min(self.max)
    }

    /// The exact mean; zero while empty.
    #[must_use]
    pub fn mean(&self) -> Nanos {
        let mean = self.sum_ns.checked_div(self.count).unwrap_or(0);
        Nanos::new(i64::try_from(mean).unwrap_or(i64::MAX))
    }
}

/// One missed budget, deadline or input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TripSnapshot {
    /// Index in [`PanelSnapshot::probes`].
    pub probe: usize,
    /// The how manieth trip of that probe, from 1.
    pub number: u64,
    /// When the execution ended.
    pub at: Nanos,
    /// How long it took; of a starved input, how old it was.
    pub duration: Nanos,
    /// How long it should have taken at most; of a starved input, how old it may be.
    pub budget: Nanos,
    /// How long the work had waited; zero for executions without work.
    pub release_latency: Nanos,
    /// Whose fault it was.
    pub cause: Cause,
    /// The ladder's level afterwards.
    pub level_after: Level,
    /// The thread that tripped, as the kernel numbers it.
    pub thread: u32,
    /// What the kernel had counted since the thread's baseline; `None` when there was none.
    pub evidence: Option<EvidenceSnapshot>,
    /// What went on on its core around it, where a supervisor looked.
    pub around: Option<AroundSnapshot>,
}

/// What was counted on the core of a trip, from a while before it until a supervisor looked: it can
/// support a cause, and makes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AroundSnapshot {
    /// For how long was counted.
    pub window: Nanos,
    /// Interrupts that the core took.
    pub interrupts: u64,
    /// Time that a hypervisor says it took from the core, in ticks of 10 ms.
    pub steal: Nanos,
    /// A thread of higher real-time priority that was on the core since the trip began, if the
    /// kernel tells: looked for when the cause is [`Cause::Preempted`] or [`Cause::LateRelease`], once a
    /// second at most.
    pub thread: Option<RunnerSnapshot>,
}

/// A thread that ran on a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerSnapshot {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its real-time priority, 1 to 99.
    pub rt_priority: u32,
}

/// What the kernel counted for a thread between its baseline and the end of the execution that
/// missed: the evidence for [`TripSnapshot::cause`]. It covers what the thread did before, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceSnapshot {
    /// Time since the baseline, less what the thread slept between its executions.
    pub awake: Nanos,
    /// CPU time of the thread.
    pub cpu_time: Nanos,
    /// Times that something else was put on its core in its place.
    pub involuntary_switches: u64,
    /// Times that the thread gave up its core, parks included.
    pub voluntary_switches: u64,
    /// Times that the thread slept between its executions.
    pub parks: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that waited for a disk or another thread.
    pub major_faults: u64,
    /// How much of the CPU time may belong to the parks, and so hide as much time off the CPU.
    pub slack: Nanos,
}

impl EvidenceSnapshot {
    /// Time awake and not on the CPU, as far as it is seen; the true value may be longer by
    /// [`slack`](Self::slack).
    #[must_use]
    pub fn off_cpu(&self) -> Nanos {
        (self.awake - self.cpu_time).max(Nanos::ZERO)
    }
}

impl PanelSnapshot {
    /// Whether the process that writes the panel still runs. Reads `/proc`.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// The counter `name`.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The gauge `name`.
    #[must_use]
    pub fn gauge(&self, name: &str) -> Option<i64> {
        self.gauges.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The probe `name`.
    #[must_use]
    pub fn probe(&self, name: &str) -> Option<&ProbeSnapshot> {
        self.probes.iter().find(|probe| probe.name == name)
    }

    /// The histogram `name` of kind `kind`.
    #[must_use]
    pub fn histogram(&self, name: &str, kind: Kind) -> Option<&HistogramSnapshot> {
        self.histograms.iter().find(|h| h.name == name && h.kind == kind)
    }

    /// The worst level of all probes.
    #[must_use]
    pub fn level(&self) -> Level {
        self.probes.iter().map(|probe| probe.level).max().unwrap_or_default()
    }
}

#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum ValueKind {
    Counter = 1,
    Gauge = 2,
}

/// Copies everything out of a mapping whose geometry was checked.
pub(super) fn take(mapping: &Mapping, geometry: &Geometry) -> Result<PanelSnapshot, PanelError> {
    let header = geometry.header(mapping);
    let used = |table: Table| {
        let used = header.tables[table as usize].used.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let capacity = geometry.capacity(table);
        if used > capacity {
            return Err(corrupt("entries in use", used, capacity));
        }
        Ok(used as usize)
    };
    let mut torn = 0;

    let mut text = [0; TEXT_WORDS];
    if !sequence_lock::read(&header.text_sequence, &header.text, &mut text) {
        (torn, text) = (1, [0; TEXT_WORDS]);
    }
    let (layout, rest) = text.split_at(LAYOUT_WORDS);
    let (identity, reasons) = rest.split_at(IDENTITY_WORDS);
    let plain = |words: &[u64]| decode(words.iter().copied());

    // Probes before histograms: an entry is published after the histograms that it names.
    let probe_cells = &geometry.probes(mapping)[..used(Table::Probes)?];
    let histogram_cells = &geometry.histograms(mapping)[..used(Table::Histograms)?];
    let mut probes = Vec::with_capacity(probe_cells.len());
    let mut trips = Vec::new();
    for (index, cell) in probe_cells.iter().enumerate() {
        probes.push(probe(cell, histogram_cells.len(), &mut torn)?);
        for record in geometry.trips(mapping, index) {
            trips.extend(trip(record, index, &mut torn)?);
        }
    }
    trips.sort_by_key(|trip| (trip.at, trip.probe, trip.number));
    let histograms = histogram_cells.iter().map(histogram).collect::<Result<_, _>>()?;

    let (mut counters, mut gauges) = (Vec::new(), Vec::new());
    for cell in &geometry.values(mapping)[..used(Table::Values)?] {
        let value = cell.value.load(Ordering::Relaxed);
        match value_kind(cell)? {
            ValueKind::Counter => counters.push((cell.name.load(), value)),
            ValueKind::Gauge => gauges.push((cell.name.load(), value.cast_signed())),
        }
    }

    Ok(PanelSnapshot {
        name: header.name.load(),
        process: header.process(),
        started_at: Nanos::new(header.started_at.load(Ordering::Relaxed)),
        started_at_wall: Nanos::new(header.started_at_wall.load(Ordering::Relaxed)),
        taken_at: clock::now(),
        state: known("state", &header.state, State::Failed as u32, State::from_word)?,
        heartbeat_at: instant(header.heartbeat_at.load(Ordering::Relaxed)),
        layout: plain(layout),
        identity: plain(identity),
        not_real_time: reasons
            .chunks_exact(REASON_WORDS)
            .map(plain)
            .filter(|reason| !reason.is_empty())
            .collect(),
        probes,
        histograms,
        counters,
        gauges,
        trips,
        torn,
    })
}

fn probe(cell: &ProbeCell, histograms: usize, torn: &mut u32) -> Result<ProbeSnapshot, PanelError> {
    let mut config = [0; CONFIG_WORDS];
    if !sequence_lock::read(&cell.config_sequence, &cell.config, &mut config) {
        *torn += 1;
        config = [0; CONFIG_WORDS];
    }
    let [budget, hard_limit, on_hang, _] = config;
    let on_hang = u32::try_from(on_hang).ok().and_then(Level::from_word);
    let on_hang = on_hang.ok_or_else(|| corrupt("level on a hang", u32::MAX, 3))?;
    let core = match cell.core.load(Ordering::Relaxed) {
        NONE => None,
        core => Some(u16::try_from(core).map_err(|_| corrupt("core", core, u32::from(u16::MAX)))?),
    };
    let index = |word: &AtomicU32| match word.load(Ordering::Relaxed) {
        NONE => Ok(None),
        index if (index as usize) < histograms => Ok(Some(index as usize)),
        index => Err(corrupt("histogram of a probe", index, histograms as u32)),
    };
    let shown = known("level", &cell.level, Level::SafeStop as u32, Level::from_word)?;
    let hangs = cell.hangs.load(Ordering::Relaxed);
    let unanswered = hangs != cell.hangs_seen.load(Ordering::Relaxed);
    Ok(ProbeSnapshot {
        name: cell.name.load(),
        core,
        budget: Nanos::new(budget.cast_signed()),
        hard_limit: Nanos::new(hard_limit.cast_signed()),
        on_hang,
        entered_at: instant(cell.entered_at.load(Ordering::Relaxed)),
        executions: cell.executions.load(Ordering::Relaxed),
        overruns: cell.overruns.load(Ordering::Relaxed),
        idle_overruns: cell.idle_overruns.load(Ordering::Relaxed),
        starved: cell.starved.load(Ordering::Relaxed),
        hangs,
        last_hang_at: instant(cell.last_hang_at.load(Ordering::Relaxed)),
        level: if unanswered { shown.max(on_hang) } else { shown },
        rearms: cell.rearms.load(Ordering::Relaxed),
        execution_histogram: index(&cell.execution_histogram)?,
        release_histogram: index(&cell.release_histogram)?,
    })
}

fn histogram(cell: &HistogramCell) -> Result<HistogramSnapshot, PanelError> {
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let counts: Vec<u64> = cell.counts.iter().map(load).collect();
    let overflow = load(&cell.overflow);
    // The extremes after the counts: so at most the one value being recorded at this moment can be
    // among the counts and not yet in the extremes.
    fence(Ordering::Acquire);
    let (recorded, sum_ns) = (load(&cell.count), load(&cell.sum));
    let (min, max) = (load(&cell.min), load(&cell.max));
    let max_at = cell.max_at.load(Ordering::Relaxed);
    let hdr = histogram::to_hdr(&counts, overflow);
    let empty = hdr.is_empty();
    // Widened by that one value; without the race this changes nothing.
    let widest_min = hdr.highest_equivalent(hdr.min());
    let min = if recorded == 0 { widest_min } else { min.min(widest_min) };
    let max = max.max(hdr.lowest_equivalent(hdr.max()));
    let nanos = |ns: u64| Nanos::new(if empty { 0 } else { i64::try_from(ns).unwrap_or(i64::MAX) });
    Ok(HistogramSnapshot {
        name: cell.name.load(),
        kind: known("histogram kind", &cell.kind, Kind::Span as u32, Kind::from_word)?,
        count: hdr.len(),
        min: nanos(min),
        max: nanos(max),
        max_at: instant(max_at).filter(|_| !empty),
        sum_ns,
        overflow,
        hdr,
    })
}

fn trip(cell: &TripCell, probe: usize, torn: &mut u32) -> Result<Option<TripSnapshot>, PanelError> {
    let mut words = [0; TRIP_WORDS];
    if !sequence_lock::read(&cell.sequence, &cell.words, &mut words) {
        *torn += 1;
        return Ok(None);
    }
    let [number, at, duration, budget, release, cause_and_level, evidence @ .., thread] = words;
    if number == 0 {
        return Ok(None);
    }
    let (cause, level) = (cause_and_level as u32, (cause_and_level >> 32) as u32);
    let nanos = |word: u64| Nanos::new(word.cast_signed());
    Ok(Some(TripSnapshot {
        probe,
        number,
        at: nanos(at),
        duration: nanos(duration),
        budget: nanos(budget),
        release_latency: nanos(release),
        cause: Cause::from_word(cause)
            .ok_or_else(|| corrupt("cause of a trip", cause, Cause::ALL.len() as u32))?,
        level_after: Level::from_word(level).ok_or_else(|| corrupt("level of a trip", level, 3))?,
        thread: thread as u32,
        evidence: self::evidence(evidence),
        around: around(cell, number, torn),
    }))
}

fn around(cell: &TripCell, number: u64, torn: &mut u32) -> Option<AroundSnapshot> {
    let mut words = [0; AROUND_WORDS];
    if !sequence_lock::read(&cell.around_sequence, &cell.around, &mut words) {
        *torn += 1;
        return None;
    }
    let [about, window, interrupts, steal, runner, name @ ..] = words;
    let nanos = |word: u64| Nanos::new(word.cast_signed());
    let (id, rt_priority) = (runner as u32, (runner >> 32) as u32);
    (about == number).then(|| AroundSnapshot {
        window: nanos(window),
        interrupts,
        steal: nanos(steal),
        thread: (id != 0).then(|| RunnerSnapshot {
            id,
            name: decode(name.into_iter()),
            rt_priority,
        }),
    })
}

fn evidence(words: [u64; 8]) -> Option<EvidenceSnapshot> {
    let [awake, cpu, involuntary, voluntary, parks, minor, major, slack] = words;
    let nanos = |word: u64| Nanos::new(word.cast_signed());
    (awake != 0).then_some(EvidenceSnapshot {
        awake: nanos(awake),
        cpu_time: nanos(cpu),
        involuntary_switches: involuntary,
        voluntary_switches: voluntary,
        parks,
        minor_faults: minor,
        major_faults: major,
        slack: nanos(slack),
    })
}

fn value_kind(cell: &ValueCell) -> Result<ValueKind, PanelError> {
    known("kind of a value", &cell.kind, ValueKind::Gauge as u32, |word| match word {
        1 => Some(ValueKind::Counter),
        2 => Some(ValueKind::Gauge),
        _ => None,
    })
}

fn instant(word: i64) -> Option<Nanos> {
    (word != 0).then_some(Nanos::new(word))
}

fn known<T>(
    what: &'static str,
    word: &AtomicU32,
    greatest: u32,
    decode: impl Fn(u32) -> Option<T>,
) -> Result<T, PanelError> {
    let word = word.load(Ordering::Relaxed);
    decode(word).ok_or_else(|| corrupt(what, word, greatest))
}

fn corrupt(what: &'static str, found: u32, greatest: u32) -> PanelError {
    PanelError::Corrupt { what, found: u64::from(found), expected: u64::from(greatest) }
}
