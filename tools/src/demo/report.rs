//! What a run leaves: the verdict, what happened when, what was measured and what was granted.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::Serialize;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::PanelSnapshot;

use super::checks::{self, Check, Finding};
use super::child::Life;
use super::gauges;
use super::process::{Limits, Started};
use super::story::{Events, Script};
use super::table::{self, Nanoseconds, Row};
use crate::exit::Exit;
use crate::host::HostFingerprint;

/// The version of the JSON below; raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// The whole report; in JSON as it stands.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    /// Of the demo itself, which its panels carry in their names.
    pid: u32,
    verdict: Verdict,
    /// Why these are not real-time figures; empty when they are.
    pub(crate) not_real_time: Vec<String>,
    seconds_asked: f64,
    seconds_run: f64,
    layout: String,
    limits: LimitsShown,
    checks: Vec<Check>,
    /// For how long the kernel kept a real-time thread from its core, when that spoils a run.
    longest_stall_ns: Option<Nanoseconds>,
    timeline: Timeline,
    processes: Vec<Process>,
    host: HostFingerprint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Pass,
    Fail,
    /// Nothing failed that the machine does not explain.
    Machine,
    /// Ended by the user before its end; nothing failed until then.
    Interrupted,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct LimitsShown {
    period_ns: Nanoseconds,
    setpoint_max_age_ns: Nanoseconds,
    setpoint_deadline_ns: Nanoseconds,
    safe_stop_limit_ns: Nanoseconds,
}

/// Spans between what happened; `None` for what was not reached.
#[derive(Clone, Debug, Serialize)]
struct Timeline {
    start_to_balanced_ns: Option<Nanoseconds>,
    start_to_kill_ns: Option<Nanoseconds>,
    last_setpoint_to_safe_stop_ns: Option<Nanoseconds>,
    kill_to_safe_stop_ns: Option<Nanoseconds>,
    /// Of the cycle that entered safe stop, from the instant at which it was due.
    cycle_due_to_safe_stop_ns: Option<Nanoseconds>,
    stop_cause: Option<String>,
    restart_to_hello_ns: Option<Nanoseconds>,
    rearm_to_motion_ns: Option<Nanoseconds>,
    rearm_to_balanced_ns: Option<Nanoseconds>,
    controller_epochs: Vec<u64>,
    unplanned_safe_stops: Vec<String>,
}

/// One life of one process.
#[derive(Clone, Debug, Serialize)]
struct Process {
    role: &'static str,
    pid: u32,
    #[serde(flatten)]
    started: Started,
    ended: String,
    rows: Vec<Row>,
    periods_skipped: u64,
    hangs: u64,
    messages_not_sent: i64,
    end_stops_hit: i64,
    drops: Vec<Drop>,
}

/// Frames that were not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Drop {
    pub(crate) stage: String,
    pub(crate) reason: String,
    pub(crate) source: String,
    pub(crate) frames: u64,
}

impl fmt::Display for Drop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, reason, source, frames } = self;
        write!(f, "{frames} {reason} from {source} in {stage}")
    }
}

/// What a process dropped: every counter `STAGE.drop.REASON@SOURCE` that is not zero.
pub(crate) fn dropped(panel: &PanelSnapshot) -> Vec<Drop> {
    let split = |name: &str| {
        let (stage, rest) = name.split_once(".drop.")?;
        let (reason, source) = rest.split_once('@')?;
        Some((stage.to_owned(), reason.to_owned(), source.to_owned()))
    };
    panel
        .counters
        .iter()
        .filter(|(_, frames)| *frames > 0)
        .filter_map(|(name, frames)| {
            let (stage, reason, source) = split(name)?;
            Some(Drop { stage, reason, source, frames: *frames })
        })
        .collect()
}

impl Report {
    pub(crate) fn new(
        script: &Script,
        layout: String,
        events: &Events,
        lives: &[Life],
        host: HostFingerprint,
    ) -> Self {
        let limits = Limits::new(script.best_effort);
        let checks = checks::all(script, &limits, events, lives);
        let any = |finding| checks.iter().any(|check| check.finding == finding);
        let verdict = if any(Finding::Fail) {
            Verdict::Fail
        } else if events.interrupted {
            Verdict::Interrupted
        } else if any(Finding::NotReached) {
            Verdict::Fail
        } else if any(Finding::Machine) {
            Verdict::Machine
        } else {
            Verdict::Pass
        };
        let mut not_real_time: Vec<String> = Vec::new();
        for reason in lives.iter().flat_map(|life| &life.started.not_real_time) {
            if !not_real_time.contains(reason) {
                not_real_time.push(reason.clone());
            }
        }
        Self {
            version: JSON_VERSION,
            pid: std::process::id(),
            verdict,
            not_real_time,
            seconds_asked: script.length.as_secs_f64(),
            seconds_run: (events.ended_at - events.began_at).as_secs_f64(),
            layout,
            limits: LimitsShown {
                period_ns: super::pilot::PERIOD.into(),
                setpoint_max_age_ns: limits.max_age.into(),
                setpoint_deadline_ns: limits.deadline.into(),
                safe_stop_limit_ns: (limits.deadline + limits.reaction).into(),
            },
            checks,
            longest_stall_ns: checks::longest_stall(lives).map(Nanoseconds::from),
            timeline: Timeline::of(events),
            processes: lives.iter().map(Process::of).collect(),
            host,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self.verdict {
            Verdict::Pass => Exit::Done,
            Verdict::Fail | Verdict::Interrupted => Exit::Failed,
            Verdict::Machine => Exit::Machine,
        }
    }
}

impl Timeline {
    fn of(events: &Events) -> Self {
        let span = |from: Option<Nanos>, to: Option<Nanos>| Some((to? - from?).into());
        let stop = events.stop;
        let off = stop.map(|stop| stop.torque_off_at);
        Self {
            start_to_balanced_ns: span(Some(events.began_at), events.balanced_at),
            start_to_kill_ns: span(Some(events.began_at), events.killed_at),
            last_setpoint_to_safe_stop_ns: span(stop.map(|stop| stop.setpoint_sent_at), off),
            kill_to_safe_stop_ns: span(events.killed_at, off),
            cycle_due_to_safe_stop_ns: span(stop.map(|stop| stop.due_at), off),
            stop_cause: events.stop_cause.map(|cause| cause.to_string()),
            restart_to_hello_ns: span(events.restarted_at, events.hello_at),
            rearm_to_motion_ns: span(events.rearmed_at, events.moving_at),
            rearm_to_balanced_ns: span(events.rearmed_at, events.balanced_again_at),
            controller_epochs: events.epochs.clone(),
            unplanned_safe_stops: events
                .unplanned
                .iter()
                .map(|stop| format!("{}: {}", stop.role.name(), stop.cause))
                .collect(),
        }
    }

    /// In the order in which it happens.
    fn lines(&self) -> Vec<(&'static str, Option<Nanoseconds>)> {
        vec![
            ("start to balanced", self.start_to_balanced_ns),
            ("start to kill", self.start_to_kill_ns),
            ("last setpoint to safe stop", self.last_setpoint_to_safe_stop_ns),
            ("kill to safe stop", self.kill_to_safe_stop_ns),
            ("  of it, within the cycle that noticed", self.cycle_due_to_safe_stop_ns),
            ("restart to Hello accepted", self.restart_to_hello_ns),
            ("re-arm to motion", self.rearm_to_motion_ns),
            ("re-arm to balanced", self.rearm_to_balanced_ns),
        ]
    }
}

impl Process {
    fn of(life: &Life) -> Self {
        let panel = &life.panel;
        let (shown, besides) = (table::measured(panel), table::measured_besides(panel));
        let rows = shown.iter().chain(&besides);
        let skipped = [gauges::CART, gauges::PILOT]
            .iter()
            .filter_map(|name| panel.counter(&format!("{name} skipped")))
            .sum();
        Self {
            role: life.role.name(),
            pid: life.pid,
            started: life.started.clone(),
            ended: life.ended.clone(),
            rows: rows.map(Row::from).collect(),
            periods_skipped: skipped,
            hangs: panel.counter("supervisor.hangs").unwrap_or(0),
            messages_not_sent: panel.gauge(gauges::NOT_SENT).unwrap_or(0),
            end_stops_hit: panel.gauge(gauges::BUMPS).unwrap_or(0),
            drops: dropped(panel),
        }
    }

    /// `told` holds the refusals that were explained already.
    fn text<'a>(&'a self, text: &mut String, told: &mut BTreeSet<&'a str>) -> fmt::Result {
        let Self { role, pid, started, ended, .. } = self;
        writeln!(text, "\n{role}, pid {pid}, epoch {}, {ended}", started.epoch)?;
        writeln!(text, "  {}", started.identity)?;
        writeln!(text, "  {}", started.layout)?;
        for thread in &started.threads {
            let mark = if thread.refused.is_empty() { "granted" } else { "REFUSED" };
            writeln!(
                text,
                "  thread {:<14} wanted {:<24} {mark}: {} on cores {}",
                thread.name, thread.wanted, thread.granted, thread.cores
            )?;
            for refusal in thread.refused.iter().filter(|refusal| told.insert(refusal)) {
                writeln!(text, "    {refusal}")?;
            }
        }
        let memory = started.memory_locked_bytes.map_or_else(
            || "not locked".to_owned(),
            |bytes| format!("{:.1} MB locked", bytes as f64 / 1e6),
        );
        let power = started.cpu_latency_us.map_or_else(
            || "idle states not held".to_owned(),
            |us| format!("idle states held at {us} µs"),
        );
        writeln!(text, "  {memory}, {power}")?;
        writeln!(text, "{}", table::HEADING)?;
        for row in &self.rows {
            writeln!(text, "{}", row.line())?;
        }
        let Self { periods_skipped, hangs, messages_not_sent, end_stops_hit, .. } = self;
        write!(text, "  {periods_skipped} periods skipped, {hangs} hangs, ")?;
        write!(text, "{messages_not_sent} messages not sent")?;
        if *end_stops_hit > 0 {
            write!(text, ", {end_stops_hit} end stops hit")?;
        }
        let drops: Vec<String> = self.drops.iter().map(ToString::to_string).collect();
        let drops = if drops.is_empty() { "none".to_owned() } else { drops.join(", ") };
        writeln!(text, "\n  frames dropped: {drops}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.text(&mut text)?;
        f.write_str(&text)
    }
}

impl Report {
    fn text(&self, text: &mut String) -> fmt::Result {
        for reason in &self.not_real_time {
            writeln!(text, "NOT REAL-TIME: {reason}")?;
        }
        let host = &self.host;
        write!(text, "{}, Linux {}, {}", host.processor, host.kernel_release, host.preemption)?;
        match &host.hypervisor {
            Some(hypervisor) => writeln!(text, ", virtual machine ({hypervisor})")?,
            None => writeln!(text)?,
        }
        let mut told = BTreeSet::new();
        for process in &self.processes {
            process.text(text, &mut told)?;
        }
        let happened = self.timeline.lines();
        if happened.iter().any(|(_, span)| span.is_some()) {
            writeln!(text, "\nwhat happened")?;
        }
        for (what, span) in happened {
            if let Some(span) = span {
                writeln!(text, "  {what:<40} {:>10}", table::short(span.into()))?;
            }
        }
        if let Some(cause) = &self.timeline.stop_cause {
            writeln!(text, "  why the robot stopped: {cause}")?;
        }
        writeln!(text, "\nverdict, by these checks alone (overruns are reported, not judged)")?;
        for Check { name, finding, detail } in &self.checks {
            let word = match finding {
                Finding::Pass => "pass",
                Finding::Fail => "FAIL",
                Finding::Machine => "STALL",
                Finding::NotReached => "not reached",
            };
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            writeln!(text, "  {word:<5} {name}{detail}")?;
        }
        let verdict = match self.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Interrupted => "INTERRUPTED",
            Verdict::Machine => "THIS MACHINE COULD NOT DO IT",
        };
        if let Some(stall) = self.longest_stall_ns {
            writeln!(
                text,
                "  The kernel kept a real-time thread from its core for {}: another process, \
                 throttling, or the\n  hypervisor. `sinew doctor` looks for all three.",
                table::short(stall.into())
            )?;
        }
        let brand = if self.not_real_time.is_empty() { "" } else { ", NOT REAL-TIME" };
        writeln!(text, "{verdict} after {:.1} s{brand}", self.seconds_run)
    }
}
