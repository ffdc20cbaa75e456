//! The verdict: what the demo promises, each promise against what happened.

use serde::Serialize;
use sinew_control::safety::StopCause;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Kind, State};

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
    /// Not kept, in a run in which the machine kept a loop from its core for so long that no
    /// program could have kept it.
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
/// whose life its streams belong to: that is what the handshake is for.
const EXPECTED_DROPS: [&str; 6] = [
    "no_life",
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

/// The longest time for which the kernel kept a loop of either process from its core, if that was
/// long enough to spoil the run: half the deadline, since a stall of each process adds up.
pub(crate) fn stall(limits: &Limits, lives: &[Life]) -> Option<Nanos> {
    let histograms = lives.iter().flat_map(|life| &life.panel.histograms);
    let wake_ups = histograms.filter(|histogram| histogram.kind == Kind::WakeUp);
    wake_ups.map(|wake_up| wake_up.max).max().filter(|latest| *latest > limits.deadline / 2)
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
    let detail = format!("torque off {took} after the last setpoint, limit {limit}");
    check(name, Some(took <= limit), detail)
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
        (None, end) => end,
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
        !EXPECTED_DROPS.contains(&reason) && !(stalled && DROPS_AFTER_STALL.contains(&reason))
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
