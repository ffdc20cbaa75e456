//! What `sinew hist` found, in the words of its JSON. `docs/hist.md` describes the fields.

use serde::{Deserialize, Serialize};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{
    AroundSnapshot, EvidenceSnapshot, HistogramSnapshot, Kind, Listed, PanelSnapshot,
};

use crate::panels::{Look, OpenPanel, name_of};

/// Raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// The report on the panels that were asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    version: u32,
    report: String,
    panels: Vec<PanelReport>,
    /// The histograms of all panels added up, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    merged: Option<Vec<Row>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PanelReport {
    name: String,
    path: String,
    state: String,
    alive: bool,
    pid: u32,
    started_at_unix_ns: i64,
    uptime_ns: i64,
    /// For how long housekeeping has not shown itself, where that is long: it hangs, or the panel
    /// is a copy.
    silent_ns: Option<i64>,
    /// What counts and distributions cover, where that is not the whole life: from how long after
    /// the start, and for how long.
    interval_after_ns: Option<i64>,
    interval_ns: Option<i64>,
    layout: String,
    identity: String,
    not_real_time: Vec<String>,
    histograms: Vec<Row>,
    trips: Vec<TripReport>,
    /// Records that could not be read whole because their writer was, or died, in the middle.
    torn: u32,
}

/// One histogram with what its guard says about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) core: Option<u16>,
    pub(crate) count: u64,
    pub(crate) min_ns: Option<i64>,
    pub(crate) mean_ns: Option<i64>,
    pub(crate) p50_ns: Option<i64>,
    pub(crate) p90_ns: Option<i64>,
    pub(crate) p99_ns: Option<i64>,
    pub(crate) p99_9_ns: Option<i64>,
    pub(crate) p99_99_ns: Option<i64>,
    pub(crate) max_ns: Option<i64>,
    /// How long after the start of the process the greatest value was recorded.
    pub(crate) max_after_ns: Option<i64>,
    /// Values above 10 s, which stand at 10 s in the distribution.
    pub(crate) overflow: u64,
    /// Only of execution times.
    pub(crate) budget_ns: Option<i64>,
    pub(crate) overruns: Option<u64>,
    /// Times that an input was late or absent.
    pub(crate) starved: Option<u64>,
    pub(crate) hangs: Option<u64>,
    pub(crate) level: Option<String>,
}

/// A budget that was missed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TripReport {
    pub(crate) stage: String,
    pub(crate) number: u64,
    /// How long after the start of the process the execution ended.
    pub(crate) after_ns: i64,
    pub(crate) duration_ns: i64,
    pub(crate) budget_ns: i64,
    pub(crate) release_latency_ns: i64,
    pub(crate) cause: String,
    pub(crate) level_after: String,
    /// What the kernel had counted since the thread's baseline, if it had one.
    pub(crate) evidence: Option<EvidenceReport>,
    /// The kernel's number of the thread that tripped.
    pub(crate) thread: u32,
    /// What went on on its core around it, where housekeeping looked.
    pub(crate) around: Option<AroundReport>,
}

/// What was counted on the core of a trip until housekeeping looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AroundReport {
    pub(crate) window_ns: i64,
    pub(crate) interrupts: u64,
    pub(crate) steal_ns: i64,
    /// A thread that could take the core and ran there since the trip began, if the kernel tells.
    pub(crate) ran_there: Option<RanThere>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RanThere {
    pub(crate) name: String,
    pub(crate) thread: u32,
    pub(crate) rt_priority: u32,
}

impl From<&AroundSnapshot> for AroundReport {
    fn from(around: &AroundSnapshot) -> Self {
        let AroundSnapshot { window, interrupts, steal, thread } = around;
        let ran_there = thread.as_ref().map(|thread| RanThere {
            name: thread.name.clone(),
            thread: thread.id,
            rt_priority: thread.rt_priority,
        });
        let (window_ns, steal_ns) = (window.as_nanos(), steal.as_nanos());
        Self { window_ns, interrupts: *interrupts, steal_ns, ran_there }
    }
}

/// The evidence for the cause of a trip; durations are sums since the thread's baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EvidenceReport {
    pub(crate) awake_ns: i64,
    pub(crate) cpu_time_ns: i64,
    /// Time awake and not on the CPU, as far as it is seen: `slack_ns` may be missing.
    pub(crate) off_cpu_ns: i64,
    pub(crate) slack_ns: i64,
    pub(crate) involuntary_switches: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) parks: u64,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
}

impl From<&EvidenceSnapshot> for EvidenceReport {
    fn from(evidence: &EvidenceSnapshot) -> Self {
        Self {
            awake_ns: evidence.awake.as_nanos(),
            cpu_time_ns: evidence.cpu_time.as_nanos(),
            off_cpu_ns: evidence.off_cpu().as_nanos(),
            slack_ns: evidence.slack.as_nanos(),
            involuntary_switches: evidence.involuntary_switches,
            voluntary_switches: evidence.voluntary_switches,
            parks: evidence.parks,
            minor_faults: evidence.minor_faults,
            major_faults: evidence.major_faults,
        }
    }
}

impl Report {
    pub(crate) fn of(looks: &[Look], merged: Option<&Look>, stages: &[String]) -> Self {
        let panels = looks.iter().map(|look| PanelReport::of(look, stages)).collect();
        let merged = merged.map(|look| rows(&look.snapshot, stages));
        Self { version: VERSION, report: "hist".to_owned(), panels, merged }
    }
}

impl PanelReport {
    fn of(look: &Look, stages: &[String]) -> Self {
        let snapshot = &look.snapshot;
        Self {
            name: snapshot.name.clone(),
            path: look.path.display().to_string(),
            state: look.life.word().to_owned(),
            alive: look.life.runs(),
            pid: snapshot.process.pid,
            started_at_unix_ns: snapshot.started_at_wall.as_nanos(),
            uptime_ns: look.uptime().as_nanos(),
            silent_ns: look.silence().map(Nanos::as_nanos),
            interval_after_ns: look
                .interval
                .map(|interval| (interval.from - snapshot.started_at).as_nanos()),
            interval_ns: look.interval.map(|interval| interval.length.as_nanos()),
            layout: snapshot.layout.clone(),
            identity: snapshot.identity.clone(),
            not_real_time: snapshot.not_real_time.clone(),
            histograms: rows(snapshot, stages),
            trips: trips(snapshot, stages),
            torn: snapshot.torn,
        }
    }
}

/// The places of the histograms with one of these names; of all, when there are no names.
pub(crate) fn chosen(snapshot: &PanelSnapshot, stages: &[String]) -> Vec<usize> {
    let wanted = |name: &String| stages.is_empty() || stages.contains(name);
    let all = snapshot.histograms.iter().enumerate();
    all.filter(|(_, histogram)| wanted(&histogram.name)).map(|(index, _)| index).collect()
}

pub(crate) fn rows(snapshot: &PanelSnapshot, stages: &[String]) -> Vec<Row> {
    chosen(snapshot, stages).into_iter().map(|index| row(snapshot, index)).collect()
}

fn row(snapshot: &PanelSnapshot, index: usize) -> Row {
    let histogram = &snapshot.histograms[index];
    let of = |list: fn(&sinew_rt::panel::ProbeSnapshot) -> Option<usize>| {
        snapshot.probes.iter().find(|probe| list(probe) == Some(index))
    };
    let executes = of(|probe| probe.execution_histogram);
    let probe = executes.or_else(|| of(|probe| probe.release_histogram));
    let value = |nanos: Nanos| (histogram.count > 0).then_some(nanos.as_nanos());
    let quantile = |q| value(histogram.quantile(q));
    Row {
        name: histogram.name.clone(),
        kind: histogram.kind.to_string(),
        core: probe.and_then(|probe| probe.core),
        count: histogram.count,
        min_ns: value(histogram.min),
        mean_ns: value(mean(histogram)),
        p50_ns: quantile(0.5),
        p90_ns: quantile(0.9),
        p99_ns: quantile(0.99),
        p99_9_ns: quantile(0.999),
        p99_99_ns: quantile(0.9999),
        max_ns: value(histogram.max),
        max_after_ns: histogram.max_at.map(|at| (at - snapshot.started_at).as_nanos()),
        overflow: histogram.overflow,
        budget_ns: executes.map(|probe| probe.budget.as_nanos()).filter(|budget| *budget > 0),
        overruns: executes.map(|probe| probe.overruns),
        starved: executes.map(|probe| probe.starved),
        hangs: executes.map(|probe| probe.hangs),
        level: executes.map(|probe| probe.level.to_string()),
    }
}

fn mean(histogram: &HistogramSnapshot) -> Nanos {
    histogram.mean()
}

/// The trips that are still kept, oldest first.
pub(crate) fn trips(snapshot: &PanelSnapshot, stages: &[String]) -> Vec<TripReport> {
    let stage = |probe: usize| snapshot.probes.get(probe).map_or("", |probe| probe.name.as_str());
    let wanted = |probe| stages.is_empty() || stages.iter().any(|name| name == stage(probe));
    let trips = snapshot.trips.iter().filter(|trip| wanted(trip.probe));
    trips
        .map(|trip| TripReport {
            stage: stage(trip.probe).to_owned(),
            number: trip.number,
            after_ns: (trip.at - snapshot.started_at).as_nanos(),
            duration_ns: trip.duration.as_nanos(),
            budget_ns: trip.budget.as_nanos(),
            release_latency_ns: trip.release_latency.as_nanos(),
            cause: trip.cause.to_string(),
            level_after: trip.level_after.to_string(),
            evidence: trip.evidence.as_ref().map(EvidenceReport::from),
            thread: trip.thread,
            around: trip.around.as_ref().map(AroundReport::from),
        })
        .collect()
}

/// The panels on this machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listing {
    version: u32,
    report: String,
    pub(crate) panels: Vec<ListedPanel>,
    /// Directories that this user may not list, and why.
    pub(crate) unreadable: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListedPanel {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) state: Option<String>,
    pub(crate) alive: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) uptime_ns: Option<i64>,
    pub(crate) not_real_time: Vec<String>,
    pub(crate) layout: String,
    /// Why the panel cannot be read.
    pub(crate) error: Option<String>,
}

impl Listing {
    pub(crate) fn of(panels: &[Listed], unreadable: &[String]) -> Self {
        let panels = panels.iter().map(|listed| ListedPanel::of(&listed.path)).collect();
        let report = "panels".to_owned();
        Self { version: VERSION, report, panels, unreadable: unreadable.to_vec() }
    }
}

impl ListedPanel {
    fn of(path: &std::path::Path) -> Self {
        let look = OpenPanel::open(path).and_then(|open| open.look());
        let (look, error) = match look {
            Ok(look) => (Some(look), None),
            Err(failure) => (None, Some(failure.message)),
        };
        let of = look.as_ref();
        Self {
            name: name_of(path),
            path: path.display().to_string(),
            state: of.map(|look| look.life.word().to_owned()),
            alive: of.is_some_and(|look| look.life.runs()),
            pid: of.map(|look| look.snapshot.process.pid),
            uptime_ns: of.map(|look| look.uptime().as_nanos()),
            not_real_time: of.map_or_else(Vec::new, |look| look.snapshot.not_real_time.clone()),
            layout: of.map_or_else(String::new, |look| look.snapshot.layout.clone()),
            error,
        }
    }
}

/// What a kind is called in the name of a file or tag.
pub(crate) fn slug(kind: Kind) -> &'static str {
    match kind {
        Kind::Execution => "execution",
        Kind::ReleaseLatency => "release",
        Kind::WakeUp => "wake-up",
        Kind::Age => "age",
        Kind::Span => "span",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::guard::{Execution, Guard, GuardSpec};
    use sinew_rt::ladder::LadderConfig;
    use sinew_rt::panel::{Panel, PanelSpec};

    /// A stage with 99 executions of 1 µs and one of 1 ms, over a budget of 100 µs.
    fn snapshot() -> PanelSnapshot {
        let panel = Panel::anonymous(&PanelSpec::new("example")).unwrap();
        let spec = GuardSpec {
            budget: Nanos::from_micros(100),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let mut guard = Guard::new(panel.probe("work", Some(3)).unwrap(), spec).unwrap();
        let start = panel.snapshot().unwrap().started_at;
        for n in 0..100 {
            let enter = start + Nanos::from_millis(10 * n);
            let duration = if n == 99 { Nanos::from_millis(1) } else { Nanos::from_micros(1) };
            guard.enter(enter);
            guard.exit(enter + duration, Execution::Worked { released: enter - Nanos::new(500) });
        }
        panel.recorder("topic", Kind::Age).unwrap();
        panel.snapshot().unwrap()
    }

    #[test]
    fn an_execution_row_has_quantiles_in_nanoseconds_and_its_guards_verdict() {
        let rows = rows(&snapshot(), &["work".to_owned()]);
        assert_eq!(rows.len(), 2);
        let row = &rows[0];
        assert_eq!((row.kind.as_str(), row.core, row.count), ("execution", Some(3), 100));
        assert_eq!((row.min_ns, row.max_ns), (Some(1_000), Some(1_000_000)));
        assert!((1_000..1_008).contains(&row.p50_ns.unwrap()), "{:?}", row.p50_ns);
        assert_eq!(row.p99_9_ns, Some(1_000_000), "never beyond the exact maximum");
        assert_eq!(row.mean_ns, Some((99 * 1_000 + 1_000_000) / 100));
        assert_eq!(row.max_after_ns, Some(991_000_000));
        assert_eq!((row.budget_ns, row.overruns), (Some(100_000), Some(1)));
        let release = &rows[1];
        assert_eq!((release.kind.as_str(), release.core), ("release latency", Some(3)));
        assert_eq!((release.max_ns, release.budget_ns, release.overruns), (Some(500), None, None));
    }

    #[test]
    fn an_empty_histogram_has_no_figures_instead_of_zeros() {
        let rows = rows(&snapshot(), &["topic".to_owned()]);
        assert_eq!((rows[0].count, rows[0].p50_ns, rows[0].max_ns), (0, None, None));
    }

    #[test]
    fn trips_name_their_stage_and_follow_the_choice() {
        let snapshot = snapshot();
        let trips_of = |stages: &[&str]| {
            trips(&snapshot, &stages.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
        };
        let all = trips_of(&[]);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].stage.as_str(), all[0].duration_ns), ("work", 1_000_000));
        assert_eq!((all[0].budget_ns, all[0].after_ns), (100_000, 991_000_000));
        assert!(trips_of(&["topic"]).is_empty());
    }
}
