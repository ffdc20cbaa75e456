//! Where measuring threads leave their figures: memory that was touched before, one writer each.

use sinew_rt::clock::Nanos;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::super::evidence::Keeps;
use super::super::worst::{Event, Watcher, Worst};
use super::order::{Findings, LateMessage, Waits};

/// What one thread measured. Written by that thread alone, read when it is over.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Span and span from schedule, 32 bits each, in ns.
    cells: Box<[AtomicU64]>,
    len: AtomicUsize,
    max_ns: AtomicU64,
    max_at_ns: AtomicI64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Spans that are still left out.
    warm_up: AtomicU64,
    /// Left here by the one who measured, when it changed.
    worst: Mutex<Worst>,
}

impl Recording {
    /// Room for `spans`, after `warm_up` that are left out. Allocates and touches it.
    pub(crate) fn new(spans: usize, warm_up: u64) -> Arc<Self> {
        Arc::new(Self {
            cells: (0..spans).map(|_| AtomicU64::new(u64::MAX)).collect(),
            len: AtomicUsize::new(0),
            max_ns: AtomicU64::new(0),
            max_at_ns: AtomicI64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            warm_up: AtomicU64::new(warm_up),
            worst: Mutex::new(Worst::new()),
        })
    }

    /// Keeps a span that ended at `at`, and the same counted from the schedule. What finds no room
    /// is left out.
    #[inline]
    pub(crate) fn record(&self, span: Nanos, from_schedule: Nanos, at: Nanos) {
        let warm_up = self.warm_up.load(Relaxed);
        if warm_up > 0 {
            self.warm_up.store(warm_up - 1, Relaxed);
            return;
        }
        let narrow = |span: Nanos| span.as_unsigned().min(u64::from(u32::MAX));
        let len = self.len.load(Relaxed);
        let Some(cell) = self.cells.get(len) else { return };
        cell.store(narrow(span) << 32 | narrow(from_schedule), Relaxed);
        self.len.store(len + 1, Relaxed);
        if span.as_unsigned() > self.max_ns.load(Relaxed) {
            self.max_ns.store(span.as_unsigned(), Relaxed);
            self.max_at_ns.store(at.as_nanos(), Relaxed);
        }
    }

    /// Whether there is no more room.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len.load(Relaxed) >= self.cells.len()
    }

    /// Counts a message that left.
    #[inline]
    pub(crate) fn sent(&self) {
        self.sent.store(self.sent.load(Relaxed) + 1, Relaxed);
    }

    /// Counts a message that came.
    #[inline]
    pub(crate) fn received(&self) {
        self.received.store(self.received.load(Relaxed) + 1, Relaxed);
    }

    fn worst(&self) -> Vec<LateMessage> {
        // A writer that panicked left the events that it had seen.
        let worst = self.worst.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let late = |event: &Event| {
            let Event { length, at, cause, .. } = *event;
            LateMessage { length_ns: length.as_nanos(), at_ns: at.as_nanos(), cause }
        };
        worst.events().iter().map(late).collect()
    }

    /// Everything, for the parent.
    pub(crate) fn findings(&self) -> Findings {
        let cells = &self.cells[..self.len.load(Relaxed)];
        let half = |shift: u32| {
            cells.iter().map(|cell| (cell.load(Relaxed) >> shift) as u32).collect::<Vec<_>>()
        };
        Findings {
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            spans_ns: half(32),
            from_schedule_ns: half(0),
            max_at_ns: self.max_at_ns.load(Relaxed),
            worst: self.worst(),
            ..Findings::default()
        }
    }
}

/// Sees every message of a schedule, and leaves the worst in the recording. Lives on the thread that
/// receives, and begins when that thread does.
pub(crate) struct Late {
    watcher: Option<Watcher>,
    keeps: Keeps,
    enabled: bool,
}

impl Late {
    /// For a receiver that waits so; `enabled` where messages have a schedule.
    pub(crate) fn new(waits: Waits, enabled: bool) -> Self {
        let keeps = if waits == Waits::Spin { Keeps::Core } else { Keeps::Asleep };
        Self { watcher: None, keeps, enabled }
    }

    /// Sees a message that came at `at`, `from_schedule` after it was due.
    #[inline]
    pub(crate) fn see(&mut self, recording: &Recording, from_schedule: Nanos, at: Nanos) {
        if !self.enabled {
            return;
        }
        let Some(watcher) = &mut self.watcher else {
            // With the first message, which is one of the warm-up.
            let mut watcher = Watcher::new(self.keeps);
            watcher.mark(at);
            self.watcher = Some(watcher);
            return;
        };
        if recording.warm_up.load(Relaxed) > 0 {
            watcher.mark(at);
        } else if watcher.see(from_schedule, at) {
            // Nobody else holds it before the measurement is over.
            if let Ok(mut worst) = recording.worst.try_lock() {
                worst.clone_from(watcher.worst());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_keeps_both_spans_the_maximum_and_no_more_than_fits() {
        let recording = Recording::new(2, 1);
        for (n, span) in [99, 7, 9, 8].into_iter().enumerate() {
            recording.record(Nanos::new(span), Nanos::new(-1), Nanos::new(100 + n as i64));
        }
        recording.sent();
        let findings = recording.findings();
        assert_eq!(findings.spans_ns, [7, 9]);
        assert_eq!(findings.from_schedule_ns, [0, 0]);
        assert_eq!((findings.sent, findings.received, findings.max_at_ns), (1, 0, 102));
        assert!(recording.is_full());
    }
}
