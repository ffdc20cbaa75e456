//! The verdict: what the demo promises, each promise against what happened.

use serde::Serialize;
use sinew_control::safety::StopCause;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::State;

use super::SECONDS_MIN_NO_KILL;
use super::child::Life;
use super::process::Limits;
use super::report::{Drop, dropped};
use super::scratch::Role;
use super::story::{Events, GRACE, Script, Unplanned};

/// What came of one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    Pass,
    Fail,
    /// Not kept, and when it mattered the machine kept a real-time thread from its core for so long
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

/// How far back the cause of an unbalanced pole may lie: whatever happened earlier was over, and the
/// pole could have been swung up again and been waited for.
const RECOVERY: Nanos = Nanos::new(SECONDS_MIN_NO_KILL as i64 * 1_000_000_000 + GRACE.as_nanos());

pub(crate) fn all(script: &Script, limits: &Limits, events: &Events, lives: &[Life]) -> Vec<Check> {
    let stalled =
        |(from, until)| lives.iter().flat_map(|life| &life.stalls).any(|s| s.touches(from, until));
    // A check that failed, and the time in which a stall may have been the reason.
    let at_mercy = |check: Check, windows: &[(Nanos, Nanos)]| match check.finding {
        Finding::Fail if windows.iter().copied().all(stalled) => {
            Check { finding: Finding::Machine, ..check }
        }
        _ => check,
    };
    let (began, ended) = (events.began_at, events.ended_at);
    let killed = events.killed_at.unwrap_or(ended);
    let mut checks = Vec::new();
    if script.kill {
        let until_kill = (began.max(killed - RECOVERY), killed);
        checks.push(at_mercy(balanced_before_kill(events), &[until_kill]));
        let stop = match events.stop {
            Some(stop) => (stop.setpoint_sent_at.min(killed), stop.torque_off_at.max(killed)),
            None => (killed, ended),
        };
        checks.push(at_mercy(safe_stop(limits, events), &[stop]));
        checks.push(new_life(events));
        let again = events.balanced_again_at.unwrap_or(ended);
        checks.push(at_mercy(rearmed(events), &[(events.restarted_at.unwrap_or(killed), again)]));
    }
    let until_end = (began.max(ended - RECOVERY), ended);
    checks.push(at_mercy(balanced_at_end(events), &[until_end]));
    // Input is lost a deadline after it was sent, and each process may have been kept for as long.
    let before = |stop: &Unplanned| (stop.from - limits.deadline * 2, stop.until);
    let stops: Vec<_> = events.unplanned.iter().map(before).collect();
    checks.push(at_mercy(no_other_stop(events), &stops));
    // Counters do not say when: any stall of the run may have let these wait.
    checks.push(no_unexpected_drop(lives, longest_stall(lives).is_some()));
    checks.push(ended_well(events, lives));
    checks
}

/// The longest time for which the kernel kept a real-time thread of either process from its core, if
/// that was long enough to spoil a run.
pub(crate) fn longest_stall(lives: &[Life]) -> Option<Nanos> {
    lives.iter().flat_map(|life| &life.stalls).map(|stall| stall.length).max()
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

/// Each cause once, with whose it was and how often it came.
fn counted(stops: &[Unplanned]) -> Vec<String> {
    let kinds: Vec<_> = stops.iter().map(|stop| (stop.role, stop.cause)).collect();
    let mut lines = Vec::new();
    for (n, (role, cause)) in kinds.iter().enumerate() {
        if !kinds[..n].contains(&(*role, *cause)) {
            let times = kinds.iter().filter(|other| **other == (*role, *cause)).count();
            lines.push(format!("{times} × {cause} ({})", role.name()));
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
    use crate::demo::stall::Stall;

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

    /// One life of each process, without a stall.
    fn lives(dropped: &[&str]) -> Vec<Life> {
        let life = |role: Role| {
            let panel = Panel::anonymous(&PanelSpec::new(role.name())).unwrap();
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
                stalls: Vec::new(),
            }
        };
        vec![life(Role::Robot), life(Role::Controller)]
    }

    /// The same, with the controller kept from its core until `at`.
    fn lives_stalled(at: Nanos, dropped: &[&str]) -> Vec<Life> {
        let mut lives = lives(dropped);
        lives[1].stalls.push(Stall { from: at - MS * 15, until: at, length: MS * 15 });
        lives
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
        assert_eq!(found(Finding::Pass, &events, &lives(&["no_life"])).len(), 8);
    }

    #[test]
    fn a_stop_one_period_and_one_budget_after_the_deadline_is_the_last_that_passes() {
        let (_, limits, mut events) = good();
        let mut stop = events.stop.unwrap();
        stop.torque_off_at = stop.setpoint_sent_at + limits.deadline + limits.reaction;
        events.stop = Some(stop);
        assert_eq!(found(Finding::Fail, &events, &lives(&[])), Vec::<&str>::new());
        stop.torque_off_at += Nanos::new(1);
        events.stop = Some(stop);
        let failed = found(Finding::Fail, &events, &lives(&[]));
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
            let failed = found(Finding::Fail, &events, &lives(&[]));
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
            ("no other safe stop", |events, _| events.unplanned.push(unplanned(SECOND * 5))),
            ("no frame dropped unexpectedly", |_, all| *all = lives(&["bad_signature"])),
            ("every process ended as asked", |_, all| all[0].as_asked = false),
            ("every process ended as asked", |_, all| all[1].panel.state = State::Failed),
            ("every process ended as asked", |_, all| all[1].errors = "panicked".to_owned()),
        ];
        for (name, spoil) in cases {
            let ((_, _, mut events), mut lives) = (good(), lives(&[]));
            spoil(&mut events, &mut lives);
            assert_eq!(found(Finding::Fail, &events, &lives), [name]);
        }
    }

    fn unplanned(at: Nanos) -> Unplanned {
        Unplanned { role: Role::Robot, cause: StopCause::InputLost, from: at, until: at }
    }

    #[test]
    fn a_stalled_machine_explains_timing_and_nothing_else() {
        let (_, _, mut events) = good();
        events.unplanned.push(unplanned(SECOND * 18));
        events.balanced_at_end = Some(false);
        let dropped = ["rate_limited", "bad_signature"];
        assert_eq!(
            found(Finding::Fail, &events, &lives(&dropped)),
            ["balanced at the end", "no other safe stop", "no frame dropped unexpectedly"]
        );
        let lives = lives_stalled(SECOND * 18 - MS, &dropped);
        assert_eq!(found(Finding::Fail, &events, &lives), ["no frame dropped unexpectedly"]);
        let explained = found(Finding::Machine, &events, &lives);
        assert_eq!(explained, ["balanced at the end", "no other safe stop"]);
        let (script, limits, _) = good();
        let drops = &all(&script, &limits, &events, &lives)[6];
        assert!(!drops.detail.contains("rate_limited"), "{}", drops.detail);
    }

    #[test]
    fn a_stall_excuses_only_what_failed_in_its_time() {
        type Break = fn(&mut Events);
        let late: Break = |events| {
            let stop = events.stop.as_mut().unwrap();
            stop.torque_off_at = stop.setpoint_sent_at + MS * 40;
        };
        // What fails, a stall that explains it, and stalls that do not.
        let cases: [(&str, Break, Nanos, [Nanos; 2]); 5] = [
            (
                "balanced before the kill",
                |events| events.balanced_before_kill = Some(false),
                SECOND * 9,
                [SECOND * 11, SECOND - MS],
            ),
            (
                "safe stop within its deadline",
                late,
                SECOND * 10 + MS * 30,
                [SECOND * 9, SECOND * 11],
            ),
            (
                "re-armed and balanced again",
                |events| events.balanced_again_at = None,
                SECOND * 12,
                [SECOND * 9, SECOND * 21],
            ),
            (
                "balanced at the end",
                |events| events.balanced_at_end = Some(false),
                SECOND * 19,
                [SECOND * 10, SECOND * 21],
            ),
            (
                "no other safe stop",
                |events| events.unplanned.push(unplanned(SECOND * 15)),
                SECOND * 15 - MS,
                [SECOND * 14, SECOND * 16],
            ),
        ];
        for (name, spoil, within, outside) in cases {
            let (_, _, mut events) = good();
            spoil(&mut events);
            assert_eq!(found(Finding::Fail, &events, &lives(&[])), [name]);
            let stalled = lives_stalled(within, &[]);
            assert_eq!(found(Finding::Machine, &events, &stalled), [name]);
            for at in outside {
                let stalled = lives_stalled(at, &[]);
                assert_eq!(found(Finding::Fail, &events, &stalled), [name], "a stall at {at}");
            }
        }
        // Each stop needs a stall of its own.
        let (_, _, mut events) = good();
        events.unplanned = vec![unplanned(SECOND * 15), unplanned(SECOND * 17)];
        let stalled = lives_stalled(SECOND * 15, &[]);
        assert_eq!(found(Finding::Fail, &events, &stalled), ["no other safe stop"]);
    }

    #[test]
    fn what_was_not_reached_is_neither_passed_nor_failed() {
        let events = Events { interrupted: true, ..Events::default() };
        let lives = lives(&[]);
        assert_eq!(found(Finding::NotReached, &events, &lives).len(), 5);
        assert_eq!(found(Finding::Fail, &events, &lives), Vec::<&str>::new());
    }
}
