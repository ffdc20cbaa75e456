//! The verdict: what the demo promises, each promise against what happened.

use serde::Serialize;
use sinew_control::safety::StopCause;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Cause, Kind, PanelSnapshot, State};

use super::child::Life;
use super::process::Limits;
use super::report::{Drop, dropped};
use super::scratch::Role;
use super::story::{Events, Script};

/// What came of one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    Pass,
    Fail,
    /// Not kept, in a run in which the machine kept a real-time thread from its core for so long
    /// that no program could have kept it.
    Machine,
    /// The run ended before.
    NotReached,
}

/// One promise. All of them decide the exit code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) finding: Finding,
    pub(crate) detail: String,
}

/// Why frames may be dropped around the start and the restart of a process, before it is known
/// whose life its streams belong to: that is what the handshake is for. What was sent before the
/// Hello that says where a stream begins, and is verified after it, lies below the window.
const EXPECTED_DROPS: [&str; 7] = [
    "no_life",
    "below_window",
    "future_epoch",
    "old_epoch",
    "challenge_stale",
    "challenge_limited",
    "hello_unasked",
];

/// Drops that a stall alone explains: what waited meanwhile comes at once.
const DROPS_AFTER_STALL: [&str; 3] = ["rate_limited", "queue_full", "pool_empty"];

pub(crate) fn all(script: &Script, limits: &Limits, events: &Events, lives: &[Life]) -> Vec<Check> {
    let stalled = stall(limits, lives).is_some();
    let at_mercy = |check: Check| match check.finding {
        Finding::Fail if stalled => Check { finding: Finding::Machine, ..check },
        _ => check,
    };
    let mut checks = Vec::new();
    if script.kill {
        checks.push(at_mercy(balanced_before_kill(events)));
        checks.push(at_mercy(safe_stop(limits, events)));
        checks.push(new_life(events));
        checks.push(at_mercy(rearmed(events)));
    }
    checks.push(at_mercy(balanced_at_end(events)));
    checks.push(at_mercy(no_other_stop(events)));
    checks.push(no_unexpected_drop(lives, stalled));
    checks.push(ended_well(events, lives));
    checks
}

/// The longest time for which the kernel kept a real-time thread of either process from its core, if
/// that was long enough to spoil the run: half the deadline, since a stall of each process adds up.
pub(crate) fn stall(limits: &Limits, lives: &[Life]) -> Option<Nanos> {
    let waits = lives.iter().flat_map(|life| waits(&life.panel));
    waits.max().filter(|longest| *longest > limits.deadline / 2)
}

/// How long the threads of a process waited for their cores, as far as that cannot be their own doing.
fn waits(panel: &PanelSnapshot) -> impl Iterator<Item = Nanos> {
    let longest = |kind, name: Option<&str>| {
        let histograms = panel.histograms.iter();
        let of_kind = histograms.filter(move |histogram| histogram.kind == kind);
        let named = of_kind.filter(move |histogram| name.is_none_or(|name| histogram.name == name));
        named.map(|histogram| histogram.max).max().unwrap_or_default()
    };
    // A loop sleeps until an instant, and is on its own in waking up late.
    let woken = longest(Kind::WakeUp, None);
    // The send stage is called for each millisecond. It may wait for a stage of its lane to end,
    // and for the rest only because its thread does not run.
    let called = longest(Kind::ReleaseLatency, Some("send")) - longest(Kind::Execution, None);
    // In the middle of an execution, the guard tells time on the CPU from time off it.
    let inside = panel.trips.iter().filter(|trip| trip.cause == Cause::NotOnCpu);
    let inside = inside.map(|trip| trip.duration).max().unwrap_or_default();
    [woken, called, inside].into_iter()
}

fn check(name: &'static str, good: Option<bool>, detail: impl Into<String>) -> Check {
    let finding = match good {
        Some(true) => Finding::Pass,
        Some(false) => Finding::Fail,
        None => Finding::NotReached,
    };
    Check { name, finding, detail: detail.into() }
}

fn since(events: &Events, at: Nanos) -> String {
    format!("{:.1} s", (at - events.began_at).as_secs_f64())
}

fn balanced_before_kill(events: &Events) -> Check {
    let detail = match events.balanced_at {
        Some(at) => format!("upright after {}", since(events, at)),
        None => "never upright for a second".to_owned(),
    };
    check("balanced before the kill", events.balanced_before_kill, detail)
}

fn safe_stop(limits: &Limits, events: &Events) -> Check {
    let name = "safe stop within its deadline";
    let Some(stop) = events.stop else {
        // A robot that went on was seen to do so only if the controller was killed.
        let good = events.killed_at.filter(|_| events.broken.is_some()).map(|_| false);
        return check(name, good, "");
    };
    let took = stop.torque_off_at - stop.setpoint_sent_at;
    let limit = limits.deadline + limits.reaction;
    let mut detail = format!("torque off {took} after the last setpoint, limit {limit}");
    // A stop before the kill, for another reason or too soon is not the one that was asked for.
    let caused = events.killed_at.is_some_and(|killed| stop.torque_off_at > killed)
        && events.stop_cause == Some(StopCause::InputLost)
        && took >= limits.deadline;
    if !caused {
        let cause = events.stop_cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        detail.push_str(&format!("; not a stop that the kill caused{cause}"));
    }
    check(name, Some(caused && took <= limit), detail)
}

fn new_life(events: &Events) -> Check {
    let name = "new life of the controller accepted";
    let [old, new] = events.epochs[..] else { return check(name, None, "") };
    let accepted = events.hello_at.is_some();
    let good = (accepted || events.broken.is_some()).then_some(accepted && new > old);
    check(name, good, format!("epoch {old}, then {new}"))
}

fn rearmed(events: &Events) -> Check {
    let name = "re-armed and balanced again";
    let good = match (events.balanced_again_at, events.balanced_at_end) {
        (Some(_), _) => Some(true),
        (None, end) => end.map(|_| false),
    };
    let detail = match (events.rearmed_at, events.balanced_again_at) {
        (Some(armed), Some(at)) => {
            format!("upright {:.1} s after the re-arm", (at - armed).as_secs_f64())
        }
        (Some(armed), None) => format!("re-armed at {}, not upright since", since(events, armed)),
        (None, _) => String::new(),
    };
    check(name, good, detail)
}

fn balanced_at_end(events: &Events) -> Check {
    check("balanced at the end", events.balanced_at_end, "")
}

/// Each cause once, with how often it came.
fn counted(causes: &[StopCause]) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, cause) in causes.iter().enumerate() {
        if !causes[..n].contains(cause) {
            let times = causes.iter().filter(|other| *other == cause).count();
            lines.push(format!("{times} × {cause}"));
        }
    }
    lines
}

fn no_other_stop(events: &Events) -> Check {
    let causes = counted(&events.unplanned);
    check("no other safe stop", Some(causes.is_empty()), causes.join("; "))
}

fn no_unexpected_drop(lives: &[Life], stalled: bool) -> Check {
    let is_unexpected = |drop: &Drop| {
        let reason = drop.reason.as_str();
        let after_stall = stalled && DROPS_AFTER_STALL.contains(&reason);
        !(after_stall || EXPECTED_DROPS.contains(&reason))
    };
    let unexpected: Vec<String> = lives
        .iter()
        .flat_map(|life| dropped(&life.panel).into_iter().map(move |drop| (life.role, drop)))
        .filter(|(_, drop)| is_unexpected(drop))
        .map(|(role, drop)| format!("{} at the {}", drop, role.name()))
        .collect();
    check("no frame dropped unexpectedly", Some(unexpected.is_empty()), unexpected.join("; "))
}

fn ended_well(events: &Events, lives: &[Life]) -> Check {
    let mut problems: Vec<String> = events.broken.iter().cloned().collect();
    for life in lives {
        let name = life.role.name();
        if !life.as_asked {
            problems.push(format!("the {name} ended otherwise: {}", life.ended));
        }
        if life.panel.state == State::Failed {
            problems.push(format!("the {name} failed: a lane or its loop panicked"));
        }
        if !life.errors.trim().is_empty() {
            problems.push(format!("the {name} said: {}", life.errors.trim()));
        }
    }
    let seen = |role| lives.iter().any(|life| life.role == role);
    if !seen(Role::Robot) || !seen(Role::Controller) {
        problems.push("a process left nothing behind".to_owned());
    }
    check("every process ended as asked", Some(problems.is_empty()), problems.join("; "))
}

#[cfg(test)]
mod tests {
    use sinew_rt::panel::{Panel, PanelSpec};

    use super::*;
    use crate::demo::look::Stop;
    use crate::demo::process::Started;

    const SECOND: Nanos = Nanos::from_secs(1);
    const MS: Nanos = Nanos::from_millis(1);

    /// A run as it should be: killed at 10 s, stopped 20.5 ms later.
    fn good() -> (Script, Limits, Events) {
        let script = Script { length: SECOND * 20, kill: true, best_effort: false };
        let stop = Stop {
            setpoint_sent_at: SECOND * 10,
            due_at: SECOND * 10 + MS * 20,
            torque_off_at: SECOND * 10 + Nanos::from_micros(20_500),
        };
        let events = Events {
            ended_at: SECOND * 20,
            balanced_at: Some(SECOND * 3),
            balanced_before_kill: Some(true),
            killed_at: Some(SECOND * 10),
            stop: Some(stop),
            stop_cause: Some(StopCause::InputLost),
            restarted_at: Some(SECOND * 11),
            epochs: vec![1, 2],
            hello_at: Some(SECOND * 11 + MS * 40),
            rearmed_at: Some(SECOND * 11 + MS * 50),
            moving_at: Some(SECOND * 11 + MS * 51),
            balanced_again_at: Some(SECOND * 13),
            balanced_at_end: Some(true),
            ..Events::default()
        };
        (script, Limits::new(false), events)
    }

    /// One life of each process, whose loop was once woken `late`, and whose lane never.
    fn lives(late: Nanos, dropped: &[&str]) -> Vec<Life> {
        let life = |role: Role| {
            let panel = Panel::anonymous(&PanelSpec::new(role.name())).unwrap();
            panel.recorder("loop", Kind::WakeUp).unwrap().record(late, late);
            for reason in dropped {
                panel.counter(&format!("verify.drop.{reason}@peer")).unwrap().increment();
            }
            Life {
                role,
                pid: 1,
                started: Started::default(),
                ended: "exit status: 0".to_owned(),
                as_asked: true,
                errors: String::new(),
                panel: panel.snapshot().unwrap(),
            }
        };
        vec![life(Role::Robot), life(Role::Controller)]
    }

    /// The names of the checks that came to `finding`.
    fn found(finding: Finding, events: &Events, lives: &[Life]) -> Vec<&'static str> {
        let (script, limits, _) = good();
        let checks = all(&script, &limits, events, lives);
        checks.iter().filter(|check| check.finding == finding).map(|check| check.name).collect()
    }

    #[test]
    fn a_run_as_it_should_be_passes_every_check() {
        let (_, _, events) = good();
        assert_eq!(found(Finding::Pass, &events, &lives(MS, &["no_life"])).len(), 8);
    }

    #[test]
    fn a_stop_one_period_and_one_budget_after_the_deadline_is_the_last_that_passes() {
        let (_, limits, mut events) = good();
        let mut stop = events.stop.unwrap();
        stop.torque_off_at = stop.setpoint_sent_at + limits.deadline + limits.reaction;
        events.stop = Some(stop);
        assert_eq!(found(Finding::Fail, &events, &lives(MS, &[])), Vec::<&str>::new());
        stop.torque_off_at += Nanos::new(1);
        events.stop = Some(stop);
        let failed = found(Finding::Fail, &events, &lives(MS, &[]));
        assert_eq!(failed, ["safe stop within its deadline"]);
    }

    #[test]
    fn a_stop_that_the_kill_did_not_cause_does_not_pass() {
        type Break = fn(&mut Events);
        let cases: [Break; 3] = [
            |events| events.killed_at = Some(SECOND * 11),
            |events| events.stop_cause = Some(StopCause::Tripped),
            |events| {
                let stop = events.stop.as_mut().unwrap();
                stop.torque_off_at = stop.setpoint_sent_at + MS * 2;
            },
        ];
        for spoil in cases {
            let (_, _, mut events) = good();
            spoil(&mut events);
            let failed = found(Finding::Fail, &events, &lives(MS, &[]));
            assert_eq!(failed, ["safe stop within its deadline"]);
        }
    }

    #[test]
    fn each_broken_promise_fails_its_own_check() {
        type Break = fn(&mut Events, &mut Vec<Life>);
        let cases: [(&str, Break); 8] = [
            ("balanced before the kill", |events, _| events.balanced_before_kill = Some(false)),
            ("new life of the controller accepted", |events, _| events.epochs = vec![2, 2]),
            ("re-armed and balanced again", |events, _| events.balanced_again_at = None),
            ("no other safe stop", |events, _| events.unplanned.push(StopCause::Hang)),
            ("no frame dropped unexpectedly", |_, all| *all = lives(MS, &["bad_signature"])),
            ("every process ended as asked", |_, all| all[0].as_asked = false),
            ("every process ended as asked", |_, all| all[1].panel.state = State::Failed),
            ("every process ended as asked", |_, all| all[1].errors = "panicked".to_owned()),
        ];
        for (name, spoil) in cases {
            let ((_, _, mut events), mut lives) = (good(), lives(MS, &[]));
            spoil(&mut events, &mut lives);
            assert_eq!(found(Finding::Fail, &events, &lives), [name]);
        }
    }

    #[test]
    fn a_stalled_machine_explains_timing_and_nothing_else() {
        let (_, limits, mut events) = good();
        events.unplanned.push(StopCause::InputLost);
        events.balanced_at_end = Some(false);
        let stalled = limits.deadline / 2 + Nanos::from_millis(1);
        let lives_of = |late| lives(late, &["rate_limited", "bad_signature"]);
        assert_eq!(
            found(Finding::Fail, &events, &lives_of(MS)),
            ["balanced at the end", "no other safe stop", "no frame dropped unexpectedly"]
        );
        let lives = lives_of(stalled);
        assert_eq!(found(Finding::Fail, &events, &lives), ["no frame dropped unexpectedly"]);
        let explained = found(Finding::Machine, &events, &lives);
        assert_eq!(explained, ["balanced at the end", "no other safe stop"]);
        let (script, limits, _) = good();
        let drops = &all(&script, &limits, &events, &lives)[6];
        assert!(!drops.detail.contains("rate_limited"), "{}", drops.detail);
    }

    #[test]
    fn a_lane_that_was_kept_waiting_is_a_stall_and_a_stage_that_took_long_is_none() {
        let (_, limits, _) = good();
        let panel = Panel::anonymous(&PanelSpec::new("lane")).unwrap();
        let called = panel.recorder("send", Kind::ReleaseLatency).unwrap();
        let verify = panel.recorder("verify", Kind::Execution).unwrap();
        let mut lives = lives(MS, &[]);
        let mut stalled = |panel: &Panel| {
            lives[0].panel = panel.snapshot().unwrap();
            stall(&limits, &lives)
        };
        verify.record(MS * 30, SECOND);
        called.record(MS * 31, SECOND);
        assert_eq!(stalled(&panel), None, "the stage before it took as long");
        called.record(MS * 45, SECOND);
        assert_eq!(stalled(&panel), Some(MS * 15));
    }

    #[test]
    fn what_was_not_reached_is_neither_passed_nor_failed() {
        let events = Events { interrupted: true, ..Events::default() };
        let lives = lives(MS, &[]);
        assert_eq!(found(Finding::NotReached, &events, &lives).len(), 5);
        assert_eq!(found(Finding::Fail, &events, &lives), Vec::<&str>::new());
    }
}
