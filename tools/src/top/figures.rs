//! One node's figures, read from its panel alone: what the views show and what the JSON says.

use serde::Serialize;
use sinew_control::safety::{State, StopCause};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{HistogramSnapshot, Kind, PanelSnapshot};

use crate::hist::{self, TripReport};
use crate::node::status::{Drop, PeerStatus, peers};
use crate::panels::{Look, difference};

/// A node with everything that its panel shows, over an interval or since its start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) state: String,
    pub(crate) alive: bool,
    pub(crate) pid: u32,
    pub(crate) uptime_ns: i64,
    /// For how long housekeeping has not shown itself, where that is suspiciously long.
    pub(crate) silent_ns: Option<i64>,
    /// What counts and distributions cover; `None` is everything since the start.
    pub(crate) interval_ns: Option<i64>,
    pub(crate) level: String,
    pub(crate) not_real_time: Vec<String>,
    pub(crate) layout: String,
    pub(crate) identity: String,
    pub(crate) stages: Vec<Stage>,
    pub(crate) loops: Vec<Loop>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) spans: Vec<Span>,
    pub(crate) drops: Vec<Dropped>,
    pub(crate) peers: Vec<PeerStatus>,
    /// The trips that the panel still keeps, oldest first, whatever the interval.
    pub(crate) trips: Vec<TripReport>,
}

/// A distribution in the figures that fit a line; times are `None` while it is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) rate_hz: Option<f64>,
    pub(crate) p50_ns: Option<i64>,
    pub(crate) p99_ns: Option<i64>,
    pub(crate) max_ns: Option<i64>,
}

/// A guarded stage, loop or stop function.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) core: Option<u16>,
    pub(crate) level: String,
    /// Of its executions.
    #[serde(flatten)]
    pub(crate) execution: Spread,
    pub(crate) release_latency_p99_ns: Option<i64>,
    pub(crate) budget_ns: Option<i64>,
    /// Budgets missed in the interval.
    pub(crate) overruns: u64,
    pub(crate) overruns_total: u64,
    pub(crate) hangs_total: u64,
}

/// A control loop: when it woke, and what it is allowed to do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Loop {
    pub(crate) name: String,
    /// `None` of a periodic thread without a safety state.
    pub(crate) safety: Option<String>,
    pub(crate) may_move: Option<bool>,
    pub(crate) stop_cause: Option<String>,
    /// How late it woke after its planned release.
    #[serde(flatten)]
    pub(crate) lateness: Spread,
    /// Latest minus earliest wake-up, relative to the plan: peak to peak.
    pub(crate) jitter_ns: Option<i64>,
    pub(crate) execution_p99_ns: Option<i64>,
    /// Periods skipped in the interval.
    pub(crate) skipped: u64,
    pub(crate) skipped_total: u64,
    pub(crate) safe_stops_total: u64,
}

/// A topic in one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// `in` or `out`.
    pub(crate) direction: &'static str,
    pub(crate) count: u64,
    pub(crate) count_total: u64,
    pub(crate) rate_hz: Option<f64>,
    /// Age of its messages when they were delivered; only of what comes in.
    pub(crate) age: Option<Spread>,
    /// Messages of another schema came, and were not delivered.
    pub(crate) foreign_schema: bool,
}

/// Anything else that a program measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: String,
    #[serde(flatten)]
    pub(crate) spread: Spread,
}

/// Frames that were dropped, by stage, reason and source, at least one since the start.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Dropped {
    #[serde(flatten)]
    pub(crate) drop: Drop,
    pub(crate) count_total: u64,
    pub(crate) rate_hz: Option<f64>,
}

impl Figures {
    /// Since the start of the process.
    pub(crate) fn total(look: &Look) -> Self {
        Self::of(look, &look.snapshot, None)
    }

    /// Of the time since `before`; `None` where that was another process, or the process is gone
    /// and nothing can have come.
    pub(crate) fn interval(before: &Look, look: &Look) -> Option<Self> {
        let length = look.snapshot.taken_at - before.snapshot.taken_at;
        if !look.life.runs() || length <= Nanos::ZERO {
            return None;
        }
        let interval = difference(&before.snapshot, &look.snapshot).ok()?;
        Some(Self::of(look, &interval, Some(length)))
    }

    fn of(look: &Look, recorded: &PanelSnapshot, interval: Option<Nanos>) -> Self {
        let total = &look.snapshot;
        let scope = Scope { total, recorded, seconds: interval.unwrap_or(look.uptime()) };
        Self {
            name: total.name.clone(),
            path: look.path.display().to_string(),
            state: look.life.word().to_owned(),
            alive: look.life.runs(),
            pid: total.process.pid,
            uptime_ns: look.uptime().as_nanos(),
            silent_ns: look.silence().map(Nanos::as_nanos),
            interval_ns: interval.map(Nanos::as_nanos),
            level: total.level().to_string(),
            not_real_time: total.not_real_time.clone(),
            layout: total.layout.clone(),
            identity: total.identity.clone(),
            stages: scope.stages(),
            loops: scope.loops(),
            topics: scope.topics(),
            spans: scope.spans(),
            drops: scope.drops(),
            peers: peers(total),
            trips: hist::trips(total, &[]),
        }
    }

    /// The greatest share of its budget that any stage's p99 takes.
    pub(crate) fn worst_share(&self) -> Option<(&str, f64)> {
        let shares =
            self.stages.iter().filter_map(|stage| Some((stage.name.as_str(), stage.share()?)));
        shares.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    pub(crate) fn overruns(&self) -> (u64, u64) {
        sums(self.stages.iter().map(|stage| (stage.overruns_total, stage.overruns)))
    }

    pub(crate) fn drops(&self) -> (u64, u64) {
        sums(self.drops.iter().map(|dropped| (dropped.count_total, dropped.drop.count)))
    }
}

/// Since the start, and of the interval. A panel that something else has overwritten counts anything.
fn sums(counts: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    counts.fold((0, 0), |(all, new), (total, count)| {
        (u64::saturating_add(all, total), u64::saturating_add(new, count))
    })
}

impl Stage {
    /// The p99's share of the budget.
    pub(crate) fn share(&self) -> Option<f64> {
        Some(self.execution.p99_ns? as f64 / self.budget_ns? as f64)
    }

    /// The maximum's share of the budget.
    pub(crate) fn share_max(&self) -> Option<f64> {
        Some(self.execution.max_ns? as f64 / self.budget_ns? as f64)
    }
}

/// A panel, and the part of it that is shown.
struct Scope<'a> {
    total: &'a PanelSnapshot,
    recorded: &'a PanelSnapshot,
    seconds: Nanos,
}

impl Scope<'_> {
    fn rate(&self, count: u64) -> Option<f64> {
        (self.seconds > Nanos::ZERO).then(|| count as f64 / self.seconds.as_secs_f64())
    }

    fn spread(&self, histogram: &HistogramSnapshot) -> Spread {
        let value = |nanos: Nanos| (histogram.count > 0).then_some(nanos.as_nanos());
        Spread {
            count: histogram.count,
            rate_hz: self.rate(histogram.count),
            p50_ns: value(histogram.quantile(0.5)),
            p99_ns: value(histogram.quantile(0.99)),
            max_ns: value(histogram.max),
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let both = self.recorded.probes.iter().zip(&self.total.probes);
        let spread = |index: Option<usize>| {
            let histogram = index.and_then(|index| self.recorded.histograms.get(index));
            histogram.map(|histogram| self.spread(histogram)).unwrap_or_default()
        };
        let stage = |(recorded, total): (
            &sinew_rt::panel::ProbeSnapshot,
            &sinew_rt::panel::ProbeSnapshot,
        )| Stage {
            name: total.name.clone(),
            core: total.core,
            level: total.level.to_string(),
            execution: spread(total.execution_histogram),
            release_latency_p99_ns: spread(total.release_histogram).p99_ns,
            budget_ns: Some(total.budget.as_nanos()).filter(|budget| *budget > 0),
            overruns: recorded.overruns,
            overruns_total: total.overruns,
            hangs_total: total.hangs,
        };
        both.map(stage).collect()
    }

    fn loops(&self) -> Vec<Loop> {
        let wakes = self.recorded.histograms.iter().filter(|h| h.kind == Kind::WakeUp);
        let code = |name: &str| self.total.gauge(name).and_then(|code| u32::try_from(code).ok());
        let one = |wake: &HistogramSnapshot| {
            let name = &wake.name;
            let counter = |panel: &PanelSnapshot, what: &str| {
                panel.counter(&format!("{name} {what}")).unwrap_or(0)
            };
            let safety = code(&format!("{name} safety"));
            let state = safety.and_then(State::from_code);
            let cause = code(&format!("{name} stop cause")).and_then(StopCause::from_code);
            let execution = self.recorded.histogram(name, Kind::Execution);
            Loop {
                name: name.clone(),
                // A state of another version is shown as its number.
                safety: safety.map(|code| state.map_or(format!("state {code}"), |s| s.to_string())),
                may_move: safety.map(|_| state.is_some_and(State::may_move)),
                stop_cause: cause.map(|cause| cause.to_string()),
                lateness: self.spread(wake),
                jitter_ns: (wake.count > 0).then(|| (wake.max - wake.min).as_nanos()),
                execution_p99_ns: execution.and_then(|execution| self.spread(execution).p99_ns),
                skipped: counter(self.recorded, "skipped"),
                skipped_total: counter(self.total, "skipped"),
                safe_stops_total: counter(self.total, "safe stops"),
            }
        };
        wakes.map(one).collect()
    }

    fn topics(&self) -> Vec<Topic> {
        let both = self.recorded.counters.iter().zip(&self.total.counters);
        let topic = |((name, count), (_, count_total)): (&(String, u64), &(String, u64))| {
            let (direction, name) =
                match (name.strip_prefix("delivered/"), name.strip_prefix("sent/")) {
                    (Some(name), _) => ("in", name),
                    (_, Some(name)) => ("out", name),
                    _ => return None,
                };
            let age = self.recorded.histogram(name, Kind::Age).filter(|_| direction == "in");
            let foreign = self.total.gauge(&format!("foreign_schema/{name}"));
            Some(Topic {
                name: name.to_owned(),
                direction,
                count: *count,
                count_total: *count_total,
                rate_hz: self.rate(*count),
                age: age.map(|age| self.spread(age)),
                foreign_schema: direction == "in" && foreign.is_some_and(|schema| schema != 0),
            })
        };
        both.filter_map(topic).collect()
    }

    /// What is neither of a probe, nor of a loop's wake-up, nor a topic's age.
    fn spans(&self) -> Vec<Span> {
        let topic = |name: &str| self.total.counter(&format!("delivered/{name}")).is_some();
        let other = |h: &&HistogramSnapshot| match h.kind {
            Kind::Execution | Kind::ReleaseLatency | Kind::WakeUp => false,
            Kind::Age => !topic(&h.name),
            Kind::Span => true,
        };
        let span = |h: &HistogramSnapshot| Span {
            name: h.name.clone(),
            kind: h.kind.to_string(),
            spread: self.spread(h),
        };
        self.recorded.histograms.iter().filter(other).map(span).collect()
    }

    fn drops(&self) -> Vec<Dropped> {
        let both = self.recorded.counters.iter().zip(&self.total.counters);
        let of = |((name, count), (_, count_total)): (&(String, u64), &(String, u64))| {
            let lost = name.strip_prefix("send.lost@").map(|peer| Drop {
                stage: "send".to_owned(),
                reason: "lost".to_owned(),
                source: peer.to_owned(),
                count: *count,
            });
            let drop = lost.or_else(|| Drop::of(name, *count))?;
            let rate_hz = self.rate(*count);
            (*count_total > 0).then_some(Dropped { drop, count_total: *count_total, rate_hz })
        };
        both.filter_map(of).collect()
    }
}
