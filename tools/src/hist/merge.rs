//! Several panels as one: the same stage of a fleet, or of two lives, in one distribution.

use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, PanelSnapshot};

use crate::exit::Failure;
use crate::panels::Look;

/// All panels' histograms, those of one name and kind added up, and what their guards counted.
///
/// A budget or core that is not the same everywhere is left out. Trips, counters and gauges stay
/// with their panels: a sum of them says nothing.
pub(super) fn merge(looks: &[Look]) -> Result<Look, Failure> {
    let Some((first, rest)) = looks.split_first() else {
        return Err(Failure::usage("--merge needs panels"));
    };
    let mut all = first.snapshot.clone();
    (all.trips, all.counters, all.gauges) = (Vec::new(), Vec::new(), Vec::new());
    for look in rest {
        add(&mut all, &look.snapshot)?;
    }
    for histogram in &mut all.histograms {
        // The panels' clocks began at different times.
        histogram.max_at = None;
    }
    // What runs may still add something: the whole runs as long as any of them does.
    let life = looks.iter().map(|look| look.life).find(|life| life.runs());
    let paths: Vec<_> = looks.iter().map(|look| look.path.display().to_string()).collect();
    Ok(Look {
        path: paths.join(" + ").into(),
        snapshot: all,
        life: life.unwrap_or(first.life),
        interval: first.interval,
    })
}

fn add(all: &mut PanelSnapshot, panel: &PanelSnapshot) -> Result<(), Failure> {
    all.name = format!("{}+{}", all.name, panel.name);
    all.started_at = all.started_at.min(panel.started_at);
    all.started_at_wall = all.started_at_wall.min(panel.started_at_wall);
    all.heartbeat_at = all.heartbeat_at.max(panel.heartbeat_at);
    all.taken_at = all.taken_at.max(panel.taken_at);
    all.torn += panel.torn;
    for reason in &panel.not_real_time {
        if !all.not_real_time.contains(reason) {
            all.not_real_time.push(reason.clone());
        }
    }
    // Where each of the panel's histograms went.
    let mut places = Vec::with_capacity(panel.histograms.len());
    for histogram in &panel.histograms {
        let same = |known: &HistogramSnapshot| {
            (known.kind, &known.name) == (histogram.kind, &histogram.name)
        };
        let place = all.histograms.iter().position(same);
        places.push(place.unwrap_or(all.histograms.len()));
        match place {
            Some(place) => grow(&mut all.histograms[place], histogram)?,
            None => all.histograms.push(histogram.clone()),
        }
    }
    for probe in &panel.probes {
        let Some(known) = all.probes.iter_mut().find(|known| known.name == probe.name) else {
            let mut probe = probe.clone();
            for index in [&mut probe.execution_histogram, &mut probe.release_histogram] {
                *index = index.and_then(|index| places.get(index).copied());
            }
            all.probes.push(probe);
            continue;
        };
        // Counts that do not fit come from a panel that something else has overwritten.
        for (known, count) in [
            (&mut known.executions, probe.executions),
            (&mut known.overruns, probe.overruns),
            (&mut known.idle_overruns, probe.idle_overruns),
            (&mut known.starved, probe.starved),
            (&mut known.hangs, probe.hangs),
        ] {
            *known = known.saturating_add(count);
        }
        known.level = known.level.max(probe.level);
        if known.budget != probe.budget {
            known.budget = Nanos::ZERO;
        }
        known.core = known.core.filter(|core| Some(*core) == probe.core);
    }
    Ok(())
}

fn grow(into: &mut HistogramSnapshot, from: &HistogramSnapshot) -> Result<(), Failure> {
    into.hdr.add(&from.hdr).map_err(|error| Failure::machine(format!("{}: {error}", from.name)))?;
    (into.min, into.max) = match (into.count, from.count) {
        (_, 0) => (into.min, into.max),
        (0, _) => (from.min, from.max),
        _ => (into.min.min(from.min), into.max.max(from.max)),
    };
    into.count = into.count.saturating_add(from.count);
    into.sum_ns = into.sum_ns.wrapping_add(from.sum_ns);
    into.overflow = into.overflow.saturating_add(from.overflow);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::Life;
    use sinew_rt::panel::{Kind, Panel, PanelSpec};

    /// A node with `shared`, and a span of its own name, each with these values in µs.
    fn look(name: &str, budget: i64, micros: &[i64]) -> Look {
        let panel = Panel::anonymous(&PanelSpec::new(name)).unwrap();
        let own = panel.recorder(&format!("own {name}"), Kind::Span).unwrap();
        let probe = panel.probe("shared", Some(1)).unwrap();
        let spec = sinew_rt::guard::GuardSpec {
            budget: Nanos::from_micros(budget),
            hard_limit: Nanos::from_secs(1),
            ladder: sinew_rt::ladder::LadderConfig::report_only(),
        };
        let mut guard = sinew_rt::guard::Guard::new(probe, spec).unwrap();
        for micros in micros {
            let released = Nanos::from_secs(1_000);
            guard.enter(released);
            let worked = sinew_rt::guard::Execution::Worked { released };
            guard.exit(released + Nanos::from_micros(*micros), worked);
            own.record(Nanos::from_micros(*micros), released);
            guard.starved(released, Nanos::from_millis(6), Nanos::from_millis(5));
        }
        let snapshot = panel.snapshot().unwrap();
        Look { path: name.into(), snapshot, life: Life::Killed, interval: None }
    }

    #[test]
    fn what_has_one_name_is_added_up_and_the_rest_stands_beside() {
        let merged = merge(&[look("a", 100, &[10, 300]), look("b", 100, &[1, 20, 500])]).unwrap();
        let snapshot = &merged.snapshot;
        assert_eq!(snapshot.name, "a+b");
        let shared = snapshot.histogram("shared", Kind::Execution).unwrap();
        assert_eq!((shared.count, shared.hdr.len(), shared.sum_ns), (5, 5, 831_000));
        assert_eq!((shared.min, shared.max), (Nanos::from_micros(1), Nanos::from_micros(500)));
        assert!((20_000..20_200).contains(&shared.quantile(0.5).as_nanos()));
        let probe = snapshot.probe("shared").unwrap();
        assert_eq!((probe.executions, probe.overruns, probe.core), (5, 2, Some(1)));
        assert_eq!((probe.budget, probe.starved), (Nanos::from_micros(100), 5));
        assert_eq!(snapshot.histogram("own a", Kind::Span).unwrap().count, 2);
        assert_eq!(snapshot.histogram("own b", Kind::Span).unwrap().count, 3);
    }

    #[test]
    fn budgets_that_differ_are_no_budget_and_an_empty_panel_changes_nothing() {
        let merged = merge(&[look("a", 100, &[]), look("b", 200, &[7])]).unwrap();
        assert_eq!(merged.snapshot.probe("shared").unwrap().budget, Nanos::ZERO);
        let shared = merged.snapshot.histogram("shared", Kind::Execution).unwrap();
        assert_eq!((shared.min, shared.max), (Nanos::from_micros(7), Nanos::from_micros(7)));
    }
}
