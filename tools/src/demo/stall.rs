//! When the kernel kept a real-time thread from its core for so long that no program could have kept
//! its promises, as successive looks at a panel show it.
//!
//! A histogram says when its longest value was recorded and not when the others were; but what a
//! look finds more of than the look before it lies between the two.

use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, Kind, PanelSnapshot};

/// A time for which a thread was kept from its core, at most from `from` until `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) from: Nanos,
    pub(crate) until: Nanos,
    /// How long it was, or at least was where only the distribution knows of it.
    pub(crate) length: Nanos,
}

impl Stall {
    fn ended(at: Nanos, length: Nanos) -> Self {
        Self { from: at - length, until: at, length }
    }

    /// Whether some of it may lie within these instants.
    pub(crate) fn touches(&self, from: Nanos, until: Nanos) -> bool {
        self.from <= until && self.until >= from
    }
}

/// Looks at one process's panel again and again for stalls longer than its limit.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    limit: Nanos,
    looked_at: Option<Nanos>,
    /// How many values of each source were above the limit.
    known: [u64; 2],
    stalls: Vec<Stall>,
}

/// Stalls that are kept; nobody needs more to see that a machine is busy.
const STALLS_MAX: usize = 10_000;

impl Watch {
    pub(crate) fn new(limit: Nanos) -> Self {
        Self { limit, looked_at: None, known: [0; 2], stalls: Vec::new() }
    }

    /// All stalls so far.
    pub(crate) fn stalls(self) -> Vec<Stall> {
        self.stalls
    }

    /// Takes note of what is new on `panel`.
    pub(crate) fn look(&mut self, panel: &PanelSnapshot) {
        let since = self.looked_at.unwrap_or(panel.started_at);
        self.looked_at = Some(panel.taken_at);
        // A loop sleeps until an instant, and is on its own in waking up late.
        let woken = of_kind(panel, Kind::WakeUp, None);
        // The send stage is called for each millisecond. It may wait for a stage of its lane to end,
        // and for the rest only because its thread does not run.
        let called = of_kind(panel, Kind::ReleaseLatency, Some("send"));
        let own = of_kind(panel, Kind::Execution, None).iter().map(|h| h.max).max();
        let own = own.unwrap_or_default();
        for (n, (histograms, own)) in [(woken, Nanos::ZERO), (called, own)].iter().enumerate() {
            let above = histograms.iter().map(|h| above(h, self.limit + *own)).sum();
            // Fewer than before, when an execution has since been longer than all until then.
            let new = u64::saturating_sub(above, self.known[n]);
            self.known[n] = above;
            self.add(histograms, *own, new, since, panel.taken_at);
        }
        // In the middle of an execution, the guard tells time on the CPU from time off it.
        let trips = panel.trips.iter().filter(|trip| trip.cause.is_off_cpu());
        let inside = trips.filter(|trip| trip.at > since && trip.duration > self.limit);
        self.stalls.extend(inside.map(|trip| Stall::ended(trip.at, trip.duration)));
        self.stalls.truncate(STALLS_MAX);
    }

    fn add(
        &mut self,
        histograms: &[&HistogramSnapshot],
        own: Nanos,
        new: u64,
        since: Nanos,
        now: Nanos,
    ) {
        let longest = histograms.iter().filter_map(|h| {
            let at = h.max_at.filter(|at| *at > since)?;
            Some(Stall::ended(at, h.max - own)).filter(|stall| stall.length > self.limit)
        });
        let exact: Vec<_> = longest.collect();
        if new > exact.len() as u64 {
            let from = since - self.limit;
            self.stalls.push(Stall { from, until: now, length: self.limit });
        }
        self.stalls.extend(exact);
    }
}

fn of_kind<'a>(
    panel: &'a PanelSnapshot,
    kind: Kind,
    name: Option<&str>,
) -> Vec<&'a HistogramSnapshot> {
    let of_kind = panel.histograms.iter().filter(|histogram| histogram.kind == kind);
    of_kind.filter(|histogram| name.is_none_or(|name| histogram.name == name)).collect()
}

/// How many values were longer than `limit`, to the histogram's two digits.
fn above(histogram: &HistogramSnapshot, limit: Nanos) -> u64 {
    let hdr = &histogram.hdr;
    hdr.len() - hdr.count_between(0, limit.as_unsigned())
}

#[cfg(test)]
mod tests {
    use sinew_rt::panel::{Panel, PanelSpec};

    use super::*;

    const MS: Nanos = Nanos::from_millis(1);
    const LIMIT: Nanos = Nanos::from_millis(10);

    #[test]
    fn a_lane_that_was_kept_waiting_is_a_stall_and_a_stage_that_took_long_is_none() {
        let panel = Panel::anonymous(&PanelSpec::new("lane")).unwrap();
        let called = panel.recorder("send", Kind::ReleaseLatency).unwrap();
        let verify = panel.recorder("verify", Kind::Execution).unwrap();
        let mut watch = Watch::new(LIMIT);
        let mut stalls = |at| {
            watch.look(&panel.snapshot().unwrap());
            watch.stalls.iter().filter(|stall| stall.until == at).copied().collect::<Vec<_>>()
        };
        let at = |ms: i64| panel.snapshot().unwrap().taken_at + MS * ms;
        let (first, second) = (at(1_000), at(2_000));
        verify.record(MS * 30, first);
        called.record(MS * 31, first);
        assert_eq!(stalls(first), [], "the stage before it took as long");
        called.record(MS * 45, second);
        assert_eq!(stalls(second), [Stall::ended(second, MS * 15)]);
    }

    #[test]
    fn a_stall_shorter_than_an_earlier_one_lies_between_the_looks_that_tell_them_apart() {
        let panel = Panel::anonymous(&PanelSpec::new("loop")).unwrap();
        let woken = panel.recorder("loop", Kind::WakeUp).unwrap();
        let mut watch = Watch::new(LIMIT);
        let mut look = || {
            let snapshot = panel.snapshot().unwrap();
            watch.look(&snapshot);
            (snapshot.taken_at, watch.stalls.clone())
        };
        woken.record(MS * 200, panel.snapshot().unwrap().taken_at);
        let (first, stalls) = look();
        assert_eq!(stalls.len(), 1);
        assert_eq!(stalls[0].length, MS * 200);
        let (before, stalls) = look();
        assert_eq!(stalls.len(), 1, "nothing new");
        woken.record(MS * 20, before + MS);
        woken.record(MS, before + MS);
        let (after, stalls) = look();
        assert_eq!(stalls.len(), 2);
        assert_eq!((stalls[1].from, stalls[1].until), (before - LIMIT, after));
        assert!(first <= before && !stalls[0].touches(before, after));
    }
}
