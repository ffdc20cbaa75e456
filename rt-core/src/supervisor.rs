//! Finds stages that went in and did not come back: a guard that measures at the end of an execution
//! cannot see one that has no end.
//!
//! Housekeeping calls [`Supervisor::check`] every few milliseconds. It reads from the panel since
//! when each probe is inside, and compares that with the probe's hard limit.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::Nanos;
use crate::health::Health;
use crate::ladder::Level;
use crate::log::{Line, LogReader, Severity, Template};
use crate::panel::{self, AROUND_WORDS, Cause, Panel, THREAD_NAME_WORDS, TRIP_WORDS, TripCell};
use crate::sequence_lock;
use crate::surroundings::{About, Around, Runner, Surroundings};

/// A stage that has been inside for longer than its hard limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hang {
    /// Name of the probe.
    pub probe: String,
    /// How long it has been inside.
    pub inside_for: Nanos,
    /// How long it may be.
    pub hard_limit: Nanos,
    /// The level that its guard is forced to, as soon as it comes back.
    pub level: Level,
}

static HANGS: Template =
    Template::new(Severity::Error, "hangs: inside for {ns}, since {ns}, and may be for {ns}");

impl Hang {
    /// Tells of the hang that was found at `now` as a line of the stage's own, which `log` names;
    /// since when is on the monotonic clock, as the time before each line.
    pub fn note(&self, now: Nanos, log: &mut LogReader, emit: impl FnMut(Line)) {
        let spans = [self.inside_for, now - self.inside_for, self.hard_limit, Nanos::ZERO];
        log.note(now, &HANGS, spans.map(Nanos::as_nanos), emit);
    }
}

/// The panel has a supervisor already; each of its cells has one writer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panel `{panel}` already has a supervisor; use that one")]
pub struct AlreadySupervised {
    /// The panel.
    pub panel: String,
}

/// Watches all probes of one panel. Lives on housekeeping.
#[derive(Debug)]
pub struct Supervisor {
    panel: Panel,
    health: Option<Arc<Health>>,
    /// Per probe, the entry that was reported as a hang; 0 for none.
    reported: Vec<i64>,
    surroundings: Surroundings,
    /// Per probe, its trips when last looked at.
    trips: Vec<u64>,
}

impl Supervisor {
    /// The supervisor of `panel`; the only one at a time.
    ///
    /// # Errors
    /// When the panel has one already.
    pub fn new(panel: &Panel) -> Result<Self, AlreadySupervised> {
        if !panel.claim_supervision() {
            return Err(AlreadySupervised { panel: panel.name().to_owned() });
        }
        Ok(Self {
            panel: panel.clone(),
            health: None,
            reported: Vec::new(),
            surroundings: Surroundings::default(),
            trips: Vec::new(),
        })
    }

    /// Latches hangs in `health` too, where the probe's ladder says that a hang is a safe stop: the
    /// stage that hangs cannot do it.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        self.health = Some(health);
        self
    }

    /// How many probes the last check saw.
    #[must_use]
    pub fn probes(&self) -> usize {
        self.reported.len()
    }

    /// The hangs that began since the last check: each is reported once, counted in the panel, and
    /// answered by its guard when the stage comes back. Allocates only for hangs and new probes;
    /// bounded by the number of probes.
    pub fn check(&mut self, now: Nanos) -> Vec<Hang> {
        let probes = self.panel.probes();
        self.reported.resize(probes.len(), 0);
        let mut hangs = Vec::new();
        for (cell, reported) in probes.iter().zip(&mut self.reported) {
            let entered_at = cell.entered_at.load(Relaxed);
            if entered_at == 0 || entered_at == *reported {
                continue;
            }
            let mut config = [0; crate::panel::CONFIG_WORDS];
            if !sequence_lock::read(&cell.config_sequence, &cell.config, &mut config) {
                // Being configured this very moment: nothing runs under it yet.
                continue;
            }
            let [_, hard_limit, on_hang, _] = config;
            let hard_limit = Nanos::new(hard_limit.cast_signed());
            let inside_for = now - Nanos::new(entered_at);
            // A probe without a guard has no limit.
            if hard_limit <= Nanos::ZERO || inside_for <= hard_limit {
                continue;
            }
            *reported = entered_at;
            // Only guards write this word, from a `Level`; another writer's garbage stops.
            let level = Level::from_word(on_hang as u32).unwrap_or(Level::SafeStop);
            cell.last_hang_at.store(now.as_nanos(), Relaxed);
            cell.hangs.store(cell.hangs.load(Relaxed).wrapping_add(1), Relaxed);
            if let Some(health) = self.health.as_ref().filter(|_| level == Level::SafeStop) {
                health.set_hung();
            }
            hangs.push(Hang { probe: cell.name.load(), inside_for, hard_limit, level });
        }
        hangs
    }

    /// Adds to the last trip of each probe that had new ones what went on on its core: interrupts,
    /// stolen time, and after a pre-emption or a late release who may have run there. Reads `/proc`
    /// once a second, and at a look that finds trips: some tens of microseconds, or milliseconds where
    /// a thread is looked for (once a second at most). Call it often, for the window of a trip ends
    /// with the look that finds it. Allocates.
    pub fn look_around(&mut self, now: Nanos) {
        let probes = self.panel.probes();
        self.trips.resize(probes.len(), 0);
        for (index, (cell, known)) in probes.iter().zip(&mut self.trips).enumerate() {
            let trips = cell.overruns.load(Relaxed).wrapping_add(cell.starved.load(Relaxed));
            if *known == trips {
                continue;
            }
            let core = u16::try_from(cell.core.load(Relaxed));
            let (Ok(core), Some(record)) = (core, last_trip(self.panel.trips(index), trips)) else {
                *known = trips;
                continue;
            };
            let mut words = [0; TRIP_WORDS];
            let whole = sequence_lock::read(&record.sequence, &record.words, &mut words);
            // The lane counts first and writes then, and may be at the next one already: the next look
            // finds it done.
            if !whole || words[0] != trips {
                continue;
            }
            *known = trips;
            let [number, at, duration, _, release, cause, .., thread] = words;
            let nanos = |word: u64| Nanos::new(word.cast_signed());
            let (end, begun) = (nanos(at), nanos(at) - nanos(duration));
            // From when on something may have run in its place.
            let (start, thread) = match Cause::from_word(cause as u32) {
                Some(Cause::Preempted) => (begun, Some(thread as u32)),
                Some(Cause::LateRelease) => (begun - nanos(release), Some(thread as u32)),
                _ => (begun, None),
            };
            if let Some(around) =
                self.surroundings.of(About { start, end, core, instead_of: thread }, now)
            {
                write_around(record, number, &around);
            }
        }
        self.surroundings.keep_fresh(now);
    }
}

fn last_trip(ring: &[TripCell], number: u64) -> Option<&TripCell> {
    let slot = number.checked_sub(1)?.checked_rem(ring.len() as u64)?;
    ring.get(usize::try_from(slot).ok()?)
}

fn write_around(record: &TripCell, number: u64, around: &Around) {
    let Around { window, interrupts, steal, thread } = around;
    let mut words = [0; AROUND_WORDS];
    words[..4].copy_from_slice(&[
        number,
        window.as_nanos().cast_unsigned(),
        *interrupts,
        steal.as_nanos().cast_unsigned(),
    ]);
    if let Some(Runner { id, name, rt_priority }) = thread {
        words[4] = u64::from(*id) | u64::from(*rt_priority) << 32;
        words[5..].copy_from_slice(&panel::encode::<THREAD_NAME_WORDS>(name));
    }
    sequence_lock::write(&record.around_sequence, &record.around, &words);
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.panel.release_supervision();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::guard::{Execution, Guard, GuardSpec};
    use crate::ladder::LadderConfig;
    use crate::panel::PanelSpec;

    #[test]
    fn a_trip_that_is_counted_and_not_yet_written_is_looked_at_again() {
        let panel = Panel::anonymous(&PanelSpec::new("half")).expect("memory");
        let mut supervisor = Supervisor::new(&panel).expect("the first");
        let probe = panel.probe("stage", Some(0)).expect("room");
        let spec = GuardSpec {
            budget: Nanos::from_micros(1),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let mut guard = Guard::new(probe, spec).expect("a guard");
        supervisor.look_around(clock::now());
        // Between the lane's two steps.
        panel.probes()[0].overruns.store(1, Relaxed);
        supervisor.look_around(clock::now());
        panel.probes()[0].overruns.store(0, Relaxed);
        let now = clock::now();
        guard.enter(now);
        guard.exit(now + Nanos::from_millis(1), Execution::Worked { released: now });
        supervisor.look_around(clock::now());
        let trips = panel.snapshot().expect("ours").trips;
        assert_eq!((trips.len(), trips[0].number), (1, 1));
        assert!(trips[0].around.is_some(), "{trips:?}");
    }
}
