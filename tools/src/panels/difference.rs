//! What a panel recorded between two moments, as a snapshot of its own: whatever shows, exports or
//! compares a snapshot does the same with an interval.

use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, PanelSnapshot};

/// Why two snapshots have no difference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoDifference {
    /// Counts of one process say nothing about another's.
    #[error(
        "process {before} wrote the earlier one and process {after} the later one; two moments of \
         one process can be compared, and two processes side by side: `sinew hist A B`"
    )]
    OtherProcess { before: u32, after: u32 },
    #[error("`{what}` counts {after}, and {before} before: give the earlier moment first")]
    WentBack { what: String, before: u64, after: u64 },
    #[error("`{before}` became `{after}`: one of the two is not a panel's snapshot as it was")]
    Renamed { before: String, after: String },
}

/// What `after` has beyond `before`, two moments of one process.
///
/// Counts, counters and distributions are differences. States, levels, texts and gauges are those
/// of `after`; trips are those that `before` did not have. The extremes of an interval are exact
/// where they are new extremes of the whole, and else known to a bucket's width.
pub(crate) fn difference(
    before: &PanelSnapshot,
    after: &PanelSnapshot,
) -> Result<PanelSnapshot, NoDifference> {
    if (before.process, before.started_at) != (after.process, after.started_at) {
        let (before, after) = (before.process.pid, after.process.pid);
        return Err(NoDifference::OtherProcess { before, after });
    }
    let mut interval = after.clone();
    // Entries are only ever added, behind those that were there.
    for (new, old) in interval.histograms.iter_mut().zip(&before.histograms) {
        *new = histogram(old, new)?;
    }
    for ((name, new), (old_name, old)) in interval.counters.iter_mut().zip(&before.counters) {
        same_name(old_name, name)?;
        *new = less(name, *new, *old)?;
    }
    for (new, old) in interval.probes.iter_mut().zip(&before.probes) {
        same_name(&old.name, &new.name)?;
        for (count, old) in [
            (&mut new.executions, old.executions),
            (&mut new.overruns, old.overruns),
            (&mut new.idle_overruns, old.idle_overruns),
            (&mut new.starved, old.starved),
            (&mut new.hangs, old.hangs),
        ] {
            *count = less(&new.name, *count, old)?;
        }
    }
    interval.trips.retain(|trip| {
        let known = before.trips.iter().filter(|old| old.probe == trip.probe).map(|old| old.number);
        let counted = before.probes.get(trip.probe);
        let counted = counted.map(|probe| probe.overruns.saturating_add(probe.starved));
        trip.number > known.chain(counted).max().unwrap_or(0)
    });
    Ok(interval)
}

fn less(what: &str, after: u64, before: u64) -> Result<u64, NoDifference> {
    let what = || what.to_owned();
    after.checked_sub(before).ok_or_else(|| NoDifference::WentBack { what: what(), before, after })
}

fn same_name(before: &str, after: &str) -> Result<(), NoDifference> {
    if before == after {
        return Ok(());
    }
    Err(NoDifference::Renamed { before: before.to_owned(), after: after.to_owned() })
}

fn histogram(
    before: &HistogramSnapshot,
    after: &HistogramSnapshot,
) -> Result<HistogramSnapshot, NoDifference> {
    same_name(&before.name, &after.name)?;
    let count = less(&after.name, after.count, before.count)?;
    let mut hdr = after.hdr.clone();
    // Refuses where any bucket counts less than before.
    hdr.subtract(&before.hdr).map_err(|_| NoDifference::WentBack {
        what: after.name.clone(),
        before: before.count,
        after: after.count,
    })?;
    let nanos = |ns: u64| Nanos::new(i64::try_from(ns).unwrap_or(i64::MAX));
    let new_max = after.max > before.max || before.count == 0;
    let new_min = after.min < before.min || before.count == 0;
    let (min, max) = match (count > 0, new_min, new_max) {
        (false, ..) => (Nanos::ZERO, Nanos::ZERO),
        (true, new_min, new_max) => (
            if new_min { after.min } else { nanos(hdr.min()).max(after.min) },
            if new_max { after.max } else { nanos(hdr.max()).min(after.max) },
        ),
    };
    Ok(HistogramSnapshot {
        count,
        min,
        max,
        max_at: after.max_at.filter(|_| count > 0 && new_max),
        sum_ns: after.sum_ns.wrapping_sub(before.sum_ns),
        overflow: after.overflow.saturating_sub(before.overflow),
        hdr,
        ..after.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::guard::{Execution, Guard, GuardSpec};
    use sinew_rt::ladder::LadderConfig;
    use sinew_rt::panel::{Kind, Panel, PanelSpec};

    /// Two moments of one panel, with `first` and then `second` recorded, in µs, over a budget of
    /// 100 µs.
    fn moments(first: &[i64], second: &[i64]) -> [PanelSnapshot; 2] {
        let panel = Panel::anonymous(&PanelSpec::new("example")).unwrap();
        let spec = GuardSpec {
            budget: Nanos::from_micros(100),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let mut guard = Guard::new(panel.probe("work", None).unwrap(), spec).unwrap();
        let sent = panel.counter("sent/x").unwrap();
        let mut record = |micros: &[i64]| {
            for micros in micros {
                let enter = Nanos::from_secs(1_000);
                guard.enter(enter);
                guard.exit(
                    enter + Nanos::from_micros(*micros),
                    Execution::Worked { released: enter },
                );
                sent.increment();
            }
            panel.snapshot().unwrap()
        };
        [record(first), record(second)]
    }

    fn work(snapshot: &PanelSnapshot) -> &HistogramSnapshot {
        snapshot.histogram("work", Kind::Execution).unwrap()
    }

    #[test]
    fn an_interval_has_only_what_came_between() {
        let [before, after] = moments(&[1, 900, 900], &[10, 10, 150]);
        let interval = difference(&before, &after).unwrap();
        let execution = work(&interval);
        assert_eq!((execution.count, execution.hdr.len()), (3, 3));
        assert_eq!(execution.mean(), Nanos::new(170_000 / 3));
        assert!((10_000..10_100).contains(&execution.quantile(0.5).as_nanos()));
        assert!((150_000..151_200).contains(&execution.max.as_nanos()), "{}", execution.max);
        assert!((9_900..10_100).contains(&execution.min.as_nanos()), "{}", execution.min);
        assert_eq!(execution.max_at, None, "the whole's maximum is older");
        assert_eq!((interval.probes[0].executions, interval.probes[0].overruns), (3, 1));
        assert_eq!(interval.counter("sent/x"), Some(3));
        assert_eq!(interval.trips.iter().map(|trip| trip.number).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn starved_inputs_are_those_of_the_interval_and_have_trips_of_their_own() {
        let panel = Panel::anonymous(&PanelSpec::new("example")).unwrap();
        let spec = GuardSpec {
            budget: Nanos::from_micros(100),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let mut guard = Guard::new(panel.probe("loop", None).unwrap(), spec).unwrap();
        let mut silence = |times: i64| {
            let ms = Nanos::from_millis(1);
            (0..times).for_each(|n| guard.starved(Nanos::from_secs(1) + ms * n, ms * 6, ms * 5));
            panel.snapshot().unwrap()
        };
        let (mut before, after) = (silence(3), silence(2));
        // As where the writer was in the middle of each record: what was counted still tells.
        before.trips.clear();
        let interval = difference(&before, &after).unwrap();
        assert_eq!((interval.probes[0].starved, interval.probes[0].overruns), (2, 0));
        assert_eq!(interval.trips.iter().map(|trip| trip.number).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn new_extremes_are_exact() {
        let [before, after] = moments(&[5], &[1, 777]);
        let interval = difference(&before, &after).unwrap();
        let execution = work(&interval);
        assert_eq!(execution.max, Nanos::from_micros(777));
        assert_eq!(execution.min, Nanos::from_micros(1));
        assert!(execution.max_at.is_some());
    }

    #[test]
    fn nothing_came_and_nothing_is_shown() {
        let [before, after] = moments(&[5, 200], &[]);
        let interval = difference(&before, &after).unwrap();
        let execution = work(&interval);
        assert_eq!((execution.count, execution.max, execution.max_at), (0, Nanos::ZERO, None));
        assert!(interval.trips.is_empty());
    }

    #[test]
    fn moments_of_two_processes_or_in_the_wrong_order_have_no_difference() {
        let [before, after] = moments(&[5], &[6]);
        let error = difference(&after, &before).unwrap_err();
        assert!(matches!(error, NoDifference::WentBack { before: 2, after: 1, .. }), "{error}");
        let [mut other, _] = moments(&[5], &[]);
        other.process.start_ticks += 1;
        let error = difference(&other, &after).unwrap_err();
        assert!(matches!(error, NoDifference::OtherProcess { .. }), "{error}");
    }
}
