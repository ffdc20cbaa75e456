//! When the next acknowledgement is due.
//!
//! Whatever happens can only bring it nearer; sending it puts it off by the refresh interval.

use sinew_rt::clock::Nanos;

use crate::simulation::{Fault, planted};

/// Acknowledgements that duplicates ask for: at most one in this time.
const DUPLICATE_SPACING: Nanos = Nanos::from_millis(1);

/// A reader of whom its writer may not have heard says that it is there after this time, then after twice
/// as long, and so on up to the refresh interval.
const ANNOUNCED_AGAIN: Nanos = Nanos::from_millis(20);

#[derive(Debug)]
pub(super) struct Acknowledging {
    every: u32,
    within: Nanos,
    refresh: Nanos,
    /// Whether new messages make acknowledgements due; with very many readers they do not.
    routine: bool,
    due_at: Nanos,
    sent_at: Nanos,
    /// New messages since the last acknowledgement.
    fresh: u32,
    /// Until the writer answers: when to say again that there is a reader.
    announce_after: Option<Nanos>,
}

impl Acknowledging {
    pub(super) fn new(every: u32, within: Nanos, refresh: Nanos) -> Self {
        Self {
            every: every.max(1),
            within,
            // Two acknowledgements at one instant would have no end.
            refresh: refresh.max(DUPLICATE_SPACING),
            routine: true,
            due_at: Nanos::MAX,
            sent_at: Nanos::MIN,
            fresh: 0,
            announce_after: None,
        }
    }

    /// Whether new messages make acknowledgements due.
    pub(super) const fn set_routine(&mut self, routine: bool) {
        self.routine = routine;
    }

    pub(super) const fn due_at(&self) -> Nanos {
        self.due_at
    }

    /// A life begins: the first acknowledgement announces the reader.
    pub(super) const fn restart(&mut self, now: Nanos) {
        self.due_at = now;
        self.sent_at = Nanos::MIN;
        self.fresh = 0;
        self.announce_after = Some(ANNOUNCED_AGAIN);
    }

    /// The writer knows of the reader: it sent something.
    pub(super) const fn heard(&mut self) {
        self.announce_after = None;
    }

    /// A new message came.
    pub(super) fn message(&mut self, now: Nanos) {
        self.fresh = self.fresh.saturating_add(1);
        if self.routine && self.fresh >= self.every {
            self.at_once(now);
        } else {
            self.soon(now);
        }
    }

    /// Something changed that can wait a little.
    pub(super) fn soon(&mut self, now: Nanos) {
        if self.routine {
            self.due_at = self.due_at.min(now + self.within);
        }
    }

    pub(super) fn at_once(&mut self, now: Nanos) {
        self.due_at = self.due_at.min(now);
    }

    /// A message came again: the acknowledgement of it was lost, or is still under way.
    pub(super) fn duplicate(&mut self, now: Nanos) {
        if !planted(Fault::DuplicateNotAcknowledged) {
            self.at_once(now.max(self.sent_at + DUPLICATE_SPACING));
        }
    }

    /// A report goes out anyway: what waits goes with it.
    pub(super) fn ride_along(&mut self, now: Nanos) {
        if self.fresh > 0 {
            self.at_once(now);
        }
    }

    pub(super) fn sent(&mut self, now: Nanos) {
        let after = self.announce_after.map_or(self.refresh, |after| after.min(self.refresh));
        self.announce_after = self.announce_after.map(|_| (after * 2).min(self.refresh));
        self.due_at = now + after;
        self.sent_at = now;
        self.fresh = 0;
    }
}
