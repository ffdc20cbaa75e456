//! The writing side: creating a panel, registering what it shows, and its life-cycle words.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{self, NewFile, Place};
use super::handles::Owned;
use super::layout::{
    self, Geometry, Header, HistogramCell, IDENTITY_WORDS, LAYOUT_WORDS, MAGIC, MAX_CAPACITY,
    MAX_TRIPS_PER_PROBE, NONE, ProbeCell, REASON_WORDS, REASONS, TEXT_WORDS, Text, TripCell,
    ValueCell,
};
use super::mapping::Mapping;
use super::snapshot::{self, PanelSnapshot, ValueKind};
use super::{
    Counter, Gauge, Kind, PanelError, PanelSpec, Probe, ProcessIdentity, Recorder, State, Table,
};
use crate::clock::{self, Nanos};
use crate::ladder::Level;
use crate::sequence_lock;

/// A panel being written; cheap to clone, and every handle keeps it alive.
#[derive(Clone, Debug)]
pub struct Panel {
    shared: Arc<Shared>,
}

/// What all handles of a panel share.
#[derive(Debug)]
pub(crate) struct Shared {
    mapping: Mapping,
    geometry: Geometry,
    name: String,
    /// Held while an entry is registered or a text is changed.
    registering: Mutex<()>,
    supervised: AtomicBool,
    place: Option<Place>,
}

impl Panel {
    /// Creates the panel's file and maps it. Allocates and makes system calls: call before start.
    ///
    /// # Errors
    /// [`PanelError::InUse`] while a live process has a panel of this name; otherwise when the spec
    /// is out of range, the directory is not safe, or the system refuses.
    pub fn create(spec: &PanelSpec) -> Result<Self, PanelError> {
        files::check_panel_name(&spec.name)?;
        let geometry = geometry(spec)?;
        let NewFile { mapping, place } =
            files::create(&spec.dir, &spec.name, &geometry, |header| {
                fill(header, &geometry, &spec.name);
            })?;
        Ok(Self::over(mapping, geometry, &spec.name, Some(place)))
    }

    /// A panel in memory alone, for tests and for programs that want the instruments but no file;
    /// `spec.dir` is not used. Allocates: call before start.
    ///
    /// # Errors
    /// When the spec is out of range or memory is short.
    pub fn anonymous(spec: &PanelSpec) -> Result<Self, PanelError> {
        files::check_panel_name(&spec.name)?;
        let geometry = geometry(spec)?;
        let mapping = Mapping::anonymous(geometry.file_len)
            .map_err(files::io_error("map memory for panel", Path::new(&spec.name)))?;
        fill(geometry.header(&mapping), &geometry, &spec.name);
        Ok(Self::over(mapping, geometry, &spec.name, None))
    }

    fn over(mapping: Mapping, geometry: Geometry, name: &str, place: Option<Place>) -> Self {
        let name = name.to_owned();
        let (registering, supervised) = (Mutex::new(()), AtomicBool::new(false));
        let shared = Shared { mapping, geometry, name, registering, supervised, place };
        Self { shared: Arc::new(shared) }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The file, unless the panel is anonymous.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.shared.place.as_ref().map(Place::path)
    }

    /// Registers a guarded stage or loop `name` that runs on `core`, with its histograms of
    /// execution time and of release latency. Locks: before lanes start, or on housekeeping.
    ///
    /// # Errors
    /// When the name is longer than 40 bytes or taken, or a table is full.
    pub fn probe(&self, name: &str, core: Option<u16>) -> Result<Probe, PanelError> {
        files::check_label("probe", name, Text::<5>::BYTES)?;
        let _registering = self.lock();
        let shared = &*self.shared;
        let probes = shared.geometry.probes(&shared.mapping);
        let text = layout::encode(name);
        let index = self.free(Table::Probes, name, |i| probes[i].name.is(&text))?;
        let execution = self.add_recorder(name, Kind::Execution)?;
        let release = self.add_recorder(name, Kind::ReleaseLatency)?;
        let cell = &probes[index];
        cell.name.store(name);
        cell.core.store(core.map_or(NONE, u32::from), Ordering::Relaxed);
        cell.execution_histogram.store(execution.0, Ordering::Relaxed);
        cell.release_histogram.store(release.0, Ordering::Relaxed);
        self.publish(Table::Probes, index);
        let cell =
            Owned::new(&self.shared, |shared| &shared.geometry.probes(&shared.mapping)[index]);
        Ok(Probe { cell, index, execution: execution.1, release: release.1 })
    }

    /// Registers a histogram of durations. Locks: before lanes start, or on housekeeping.
    ///
    /// # Errors
    /// When the name is longer than 48 bytes, taken for this kind, or the table is full.
    pub fn recorder(&self, name: &str, kind: Kind) -> Result<Recorder, PanelError> {
        files::check_label("histogram", name, Text::<6>::BYTES)?;
        let _registering = self.lock();
        self.add_recorder(name, kind).map(|(_, recorder)| recorder)
    }

    /// Registers a counter. Locks: before lanes start, or on housekeeping.
    ///
    /// # Errors
    /// When the name is longer than 48 bytes or taken, or the table is full.
    pub fn counter(&self, name: &str) -> Result<Counter, PanelError> {
        self.add_value(name, ValueKind::Counter).map(Counter)
    }

    /// Registers a gauge. Locks: before lanes start, or on housekeeping.
    ///
    /// # Errors
    /// When the name is longer than 48 bytes or taken, or the table is full.
    pub fn gauge(&self, name: &str) -> Result<Gauge, PanelError> {
        self.add_value(name, ValueKind::Gauge).map(Gauge)
    }

    /// Says where the process is in its life. Wait-free.
    pub fn set_state(&self, state: State) {
        self.header().state.store(state as u32, Ordering::Relaxed);
    }

    /// Where the process says it is in its life. Wait-free.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// Shows that housekeeping is alive. Wait-free.
    pub fn heartbeat(&self, now: Nanos) {
        self.header().heartbeat_at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Shows which stages run where, cut at 200 bytes. Locks: not on a lane.
    pub fn set_layout(&self, layout: &str) {
        self.set_text(0, &layout::encode::<LAYOUT_WORDS>(layout));
    }

    /// Shows the node's public name, cut at 128 bytes. Locks: not on a lane.
    pub fn set_identity(&self, did: &str) {
        self.set_text(LAYOUT_WORDS, &layout::encode::<IDENTITY_WORDS>(did));
    }

    /// Brands the process `NOT REAL-TIME` for these reasons (none takes the brand away), each cut at
    /// 200 bytes. Eight fit; the eighth line then says how many more there are. Locks: not on a lane.
    pub fn set_not_real_time<S: AsRef<str>>(&self, reasons: &[S]) {
        let mut words = [0; REASONS * REASON_WORDS];
        let shown = if reasons.len() > REASONS { REASONS - 1 } else { reasons.len() };
        let mut lines = words.chunks_exact_mut(REASON_WORDS);
        for (reason, line) in reasons[..shown].iter().zip(&mut lines) {
            line.copy_from_slice(&layout::encode::<REASON_WORDS>(reason.as_ref()));
        }
        if let Some(line) = lines.next().filter(|_| reasons.len() > shown) {
            let more = format!("and {} more reasons", reasons.len() - shown);
            line.copy_from_slice(&layout::encode::<REASON_WORDS>(&more));
        }
        self.set_text(LAYOUT_WORDS + IDENTITY_WORDS, &words);
    }

    /// Adds a reason to those of [`set_not_real_time`](Self::set_not_real_time). Allocates.
    pub fn add_not_real_time(&self, reason: &str) {
        // A panel that something else has overwritten shows at least this reason.
        let mut reasons = self.snapshot().map(|panel| panel.not_real_time).unwrap_or_default();
        reasons.push(reason.to_owned());
        self.set_not_real_time(&reasons);
    }

    /// What the panel shows now, as a reader in another process would see it. Allocates.
    ///
    /// # Errors
    /// When something else overwrote the panel.
    pub fn snapshot(&self) -> Result<PanelSnapshot, PanelError> {
        snapshot::take(&self.shared.mapping, &self.shared.geometry)
    }

    /// The probes in use, for the supervisor.
    pub(crate) fn probes(&self) -> &[ProbeCell] {
        let used = self.entry(Table::Probes).used.load(Ordering::Acquire);
        &self.shared.geometry.probes(&self.shared.mapping)[..used as usize]
    }

    /// The trip records of the probe at `index`.
    pub(crate) fn trips(&self, index: usize) -> &[TripCell] {
        self.shared.trips(index)
    }

    /// Claims the right to write the supervisor's words; `false` when somebody has it.
    pub(crate) fn claim_supervision(&self) -> bool {
        !self.shared.supervised.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn release_supervision(&self) {
        self.shared.supervised.store(false, Ordering::Release);
    }

    fn header(&self) -> &Header {
        self.shared.geometry.header(&self.shared.mapping)
    }

    fn entry(&self, table: Table) -> &layout::TableEntry {
        &self.header().tables[table as usize]
    }

    fn lock(&self) -> impl Drop + '_ {
        // A panic while registering leaves an unpublished entry at worst.
        self.shared.registering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index of the next free entry, unless one that `is_same` is there already.
    fn free(
        &self,
        table: Table,
        name: &str,
        is_same: impl Fn(usize) -> bool,
    ) -> Result<usize, PanelError> {
        let used = self.entry(table).used.load(Ordering::Relaxed) as usize;
        let (panel, name) = (|| self.shared.name.clone(), || name.to_owned());
        if (0..used).any(is_same) {
            return Err(PanelError::NameTaken { panel: panel(), name: name(), table });
        }
        let capacity = self.shared.geometry.capacity(table);
        if used >= capacity as usize {
            return Err(PanelError::Full { panel: panel(), name: name(), table, capacity });
        }
        Ok(used)
    }

    /// Makes the entry at `index`, complete by now, visible to readers.
    fn publish(&self, table: Table, index: usize) {
        let used: &AtomicU32 = &self.entry(table).used;
        used.store(index as u32 + 1, Ordering::Release);
    }

    fn add_recorder(&self, name: &str, kind: Kind) -> Result<(u32, Recorder), PanelError> {
        fn cells(shared: &Shared) -> &[HistogramCell] {
            shared.geometry.histograms(&shared.mapping)
        }
        let text = layout::encode(name);
        let index = self.free(Table::Histograms, name, |i| {
            let cell = &cells(&self.shared)[i];
            cell.kind.load(Ordering::Relaxed) == kind as u32 && cell.name.is(&text)
        })?;
        let cell = &cells(&self.shared)[index];
        cell.name.store(name);
        cell.kind.store(kind as u32, Ordering::Relaxed);
        self.publish(Table::Histograms, index);
        Ok((index as u32, Recorder(Owned::new(&self.shared, |shared| &cells(shared)[index]))))
    }

    fn add_value(&self, name: &str, kind: ValueKind) -> Result<Owned<ValueCell>, PanelError> {
        fn cells(shared: &Shared) -> &[ValueCell] {
            shared.geometry.values(&shared.mapping)
        }
        files::check_label("counter or gauge", name, Text::<6>::BYTES)?;
        let _registering = self.lock();
        let text = layout::encode(name);
        let index = self.free(Table::Values, name, |i| cells(&self.shared)[i].name.is(&text))?;
        let cell = &cells(&self.shared)[index];
        cell.name.store(name);
        cell.kind.store(kind as u32, Ordering::Relaxed);
        self.publish(Table::Values, index);
        Ok(Owned::new(&self.shared, |shared| &cells(shared)[index]))
    }

    fn set_text(&self, first: usize, words: &[u64]) {
        let _one_writer = self.lock();
        let header = self.header();
        let text: &[_; TEXT_WORDS] = &header.text;
        sequence_lock::write(&header.text_sequence, &text[first..][..words.len()], words);
    }
}

impl Shared {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The trip ring of one probe.
    pub(super) fn trips(&self, probe: usize) -> &[TripCell] {
        self.geometry.trips(&self.mapping, probe)
    }

    fn state(&self) -> State {
        let word = self.geometry.header(&self.mapping).state.load(Ordering::Relaxed);
        State::from_word(word).unwrap_or(State::Failed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(place) = &self.place else { return };
        let ended = match self.state() {
            State::Starting | State::Stopped => place.remove(),
            State::Running | State::Draining | State::Failed => {
                let header = self.geometry.header(&self.mapping);
                header.state.store(State::Failed as u32, Ordering::Relaxed);
                place.keep_as_crashed()
            }
        };
        // Nobody is left to tell. A file that could not be removed names its writer, and the next
        // process of that name moves it aside.
        drop(ended);
    }
}

fn geometry(spec: &PanelSpec) -> Result<Geometry, PanelError> {
    files::check_capacity("probes", spec.probes, MAX_CAPACITY)?;
    files::check_capacity("histograms", spec.histograms, MAX_CAPACITY)?;
    files::check_capacity("counters and gauges", spec.values, MAX_CAPACITY)?;
    files::check_capacity("trips per probe", spec.trips_per_probe, MAX_TRIPS_PER_PROBE)?;
    Ok(Geometry::new(spec.probes, spec.histograms, spec.values, spec.trips_per_probe))
}

fn fill(header: &Header, geometry: &Geometry, name: &str) {
    let process = ProcessIdentity::current();
    geometry.store(header);
    header.name.store(name);
    header.pid.store(process.pid, Ordering::Relaxed);
    header.process_start.store(process.start_ticks, Ordering::Relaxed);
    header.boot_id[0].store(process.boot_id as u64, Ordering::Relaxed);
    header.boot_id[1].store((process.boot_id >> 64) as u64, Ordering::Relaxed);
    header.state.store(State::Starting as u32, Ordering::Relaxed);
    header.started_at.store(clock::now().as_nanos(), Ordering::Relaxed);
    header.started_at_wall.store(clock::wall().as_nanos(), Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Release);
}

/// The level of a fresh cell is zero, which must mean [`Level::Ok`].
const _: () = assert!(Level::Ok as u32 == 0);
