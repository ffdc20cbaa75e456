//! What real-time threads write through: one handle per cell, one writer per handle.

use std::cell::Cell as NotSync;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Cause;
use super::layout::{CONFIG_WORDS, HistogramCell, ProbeCell, TRIP_WORDS, TripCell, ValueCell};
use super::mapping::Cell;
use super::writer::Shared;
use crate::clock::Nanos;
use crate::histogram;
use crate::ladder::Level;
use crate::sequence_lock;

/// A cell of the panel together with what keeps it mapped. `Send`, but neither `Clone` nor `Sync`:
/// the cell has one writer at a time.
pub(super) struct Owned<T: Cell> {
    cell: NonNull<T>,
    panel: Arc<Shared>,
    one_writer: PhantomData<NotSync<()>>,
}

// SAFETY: the cell consists of atomics in memory that belongs to no thread, and `Shared` is Send and
// Sync.
unsafe impl<T: Cell> Send for Owned<T> {}

impl<T: Cell> Owned<T> {
    /// `find` picks the cell out of the panel's own mapping; a fresh one per handle.
    pub(super) fn new(panel: &Arc<Shared>, find: impl FnOnce(&Shared) -> &T) -> Self {
        let panel = Arc::clone(panel);
        let cell = NonNull::from(find(&panel));
        Self { cell, panel, one_writer: PhantomData }
    }
}

impl<T: Cell> fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cell at {:p} of panel `{}`", self.cell, self.panel.name())
    }
}

impl<T: Cell> Deref for Owned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` took the address from a reference into the mapping of `panel`, which stays
        // mapped at the same place for as long as this `Arc` lives.
        unsafe { self.cell.as_ref() }
    }
}

/// Adds to a word that only this thread writes: cheaper than an atomic read-modify-write.
#[inline]
fn bump(word: &AtomicU64, by: u64) {
    word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
}

/// A number that only grows.
///
/// Its cell has one writer, so the handle can be handed on and neither doubled nor shared:
///
/// ```
/// fn can_be_sent<T: Send>() {}
/// can_be_sent::<sinew_rt::panel::Counter>();
/// ```
///
/// ```compile_fail,E0277
/// fn can_be_cloned<T: Clone>() {}
/// can_be_cloned::<sinew_rt::panel::Counter>();
/// ```
///
/// ```compile_fail,E0277
/// fn can_be_shared<T: Sync>() {}
/// can_be_shared::<sinew_rt::panel::Counter>();
/// ```
#[derive(Debug)]
pub struct Counter(pub(super) Owned<ValueCell>);

impl Counter {
    /// Adds one. Wait-free.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`, wrapping at 2^64. Wait-free.
    #[inline]
    pub fn add(&self, n: u64) {
        bump(&self.0.value, n);
    }

    /// The present value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.value.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge(pub(super) Owned<ValueCell>);

impl Gauge {
    /// Shows `value` from now on. Wait-free.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.value.store(value.cast_unsigned(), Relaxed);
    }

    /// The value shown.
    #[inline]
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.value.load(Relaxed).cast_signed()
    }
}

/// A histogram of durations.
#[derive(Debug)]
pub struct Recorder(pub(super) Owned<HistogramCell>);

impl Recorder {
    /// Records `span`, seen at instant `at`. Negative spans count as 0, spans above 10 s as
    /// overflow; minimum, maximum and sum stay exact. Wait-free, no system call.
    #[inline]
    pub fn record(&self, span: Nanos, at: Nanos) {
        let cell = &*self.0;
        let value = span.as_unsigned();
        match histogram::index_of(value).and_then(|index| cell.counts.get(index)) {
            Some(count) => bump(count, 1),
            None => bump(&cell.overflow, 1),
        }
        let count = cell.count.load(Relaxed);
        bump(&cell.sum, value);
        // An empty histogram has min 0 and max 0 in its zeroed cell; `count` tells.
        if value < cell.min.load(Relaxed) || count == 0 {
            cell.min.store(value, Relaxed);
        }
        if value > cell.max.load(Relaxed) || count == 0 {
            cell.max.store(value, Relaxed);
            cell.max_at.store(at.as_nanos(), Relaxed);
        }
        cell.count.store(count + 1, Relaxed);
    }

    /// Spans recorded so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// The longest span so far; zero before the first.
    #[must_use]
    pub fn max(&self) -> Nanos {
        Nanos::new(self.0.max.load(Relaxed).cast_signed())
    }
}

/// A guarded stage or loop: what [`Guard`](crate::guard::Guard) writes to.
///
/// Holds the cell with the state, the histograms of execution time and of release latency, and the
/// ring of trip records. Registered with [`Panel::probe`](super::Panel::probe).
#[derive(Debug)]
pub struct Probe {
    pub(super) cell: Owned<ProbeCell>,
    pub(super) index: usize,
    pub(super) execution: Recorder,
    pub(super) release: Recorder,
}

/// One missed budget, deadline or input, as it is written to the panel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trip {
    pub(crate) at: Nanos,
    pub(crate) duration: Nanos,
    pub(crate) budget: Nanos,
    pub(crate) release_latency: Nanos,
    pub(crate) cause: Cause,
    pub(crate) level_after: Level,
    pub(crate) change: Change,
    pub(crate) thread: u32,
}

/// What the kernel counted for a thread between two looks. All zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) awake: Nanos,
    pub(crate) cpu_time: Nanos,
    pub(crate) involuntary_switches: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) parks: u64,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    pub(crate) slack: Nanos,
}

impl Probe {
    /// Shows budget, hard limit and what a hang means. Waits for nobody; done once, by the guard.
    pub(crate) fn configure(&self, budget: Nanos, hard_limit: Nanos, on_hang: Level) {
        let words: [u64; CONFIG_WORDS] = [
            budget.as_nanos().cast_unsigned(),
            hard_limit.as_nanos().cast_unsigned(),
            u64::from(on_hang as u32),
            0,
        ];
        sequence_lock::write(&self.cell.config_sequence, &self.cell.config, &words);
    }

    /// Publishes that an execution began. 0 means "outside", so instant 0 is shown as 1 ns.
    #[inline]
    pub(crate) fn enter(&self, now: Nanos) {
        let at = if now == Nanos::ZERO { 1 } else { now.as_nanos() };
        self.cell.entered_at.store(at, Relaxed);
    }

    /// Publishes that the execution ended.
    #[inline]
    pub(crate) fn leave(&self) {
        self.cell.entered_at.store(0, Relaxed);
    }

    /// Records an execution that had work to do.
    #[inline]
    pub(crate) fn worked(&self, duration: Nanos, release_latency: Nanos, now: Nanos) {
        self.execution.record(duration, now);
        self.release.record(release_latency, now);
        bump(&self.cell.executions, 1);
    }

    pub(crate) fn show_level(&self, level: Level) {
        self.cell.level.store(level as u32, Relaxed);
    }

    pub(crate) fn rearmed(&self) {
        let rearms = self.cell.rearms.load(Relaxed);
        self.cell.rearms.store(rearms.wrapping_add(1), Relaxed);
    }

    pub(crate) fn idle_overran(&self) {
        bump(&self.cell.idle_overruns, 1);
    }

    /// Counts an overrun and keeps its record in place of the oldest one.
    pub(crate) fn tripped(&self, trip: &Trip) {
        bump(&self.cell.overruns, 1);
        self.keep(trip);
    }

    /// The same for an input that was late or absent, which is not an overrun.
    pub(crate) fn starved(&self, trip: &Trip) {
        bump(&self.cell.starved, 1);
        self.keep(trip);
    }

    fn keep(&self, trip: &Trip) {
        let number = self.cell.overruns.load(Relaxed).wrapping_add(self.cell.starved.load(Relaxed));
        let ring: &[TripCell] = self.cell.panel.trips(self.index);
        let Some(slot) = number.wrapping_sub(1).checked_rem(ring.len() as u64) else { return };
        let Some(record) = ring.get(slot as usize) else { return };
        let nanos = |span: Nanos| span.as_nanos().cast_unsigned();
        let Change { awake, cpu_time, .. } = trip.change;
        let words: [u64; TRIP_WORDS] = [
            number,
            nanos(trip.at),
            nanos(trip.duration),
            nanos(trip.budget),
            nanos(trip.release_latency),
            u64::from(trip.cause as u32) | u64::from(trip.level_after as u32) << 32,
            nanos(awake),
            nanos(cpu_time),
            trip.change.involuntary_switches,
            trip.change.voluntary_switches,
            trip.change.parks,
            trip.change.minor_faults,
            trip.change.major_faults,
            nanos(trip.change.slack),
            u64::from(trip.thread),
        ];
        sequence_lock::write(&record.sequence, &record.words, &words);
    }

    /// How many hangs the supervisor has found here.
    #[inline]
    pub(crate) fn hangs(&self) -> u64 {
        self.cell.hangs.load(Relaxed)
    }

    pub(crate) fn answered_hangs(&self, hangs: u64) {
        self.cell.hangs_seen.store(hangs, Relaxed);
    }
}
