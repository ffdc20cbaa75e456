//! Guards, the supervisor and the health word together, as an embedder would use them.

use std::sync::Arc;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{self, Execution, Guard, GuardError, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::{LadderConfig, LadderError, Level, Rung};
use sinew_rt::panel::{Cause, Kind, Panel, PanelSnapshot, PanelSpec};
use sinew_rt::supervisor::{Hang, Supervisor};

fn us(us: i64) -> Nanos {
    Nanos::from_micros(us)
}

fn panel() -> Panel {
    Panel::anonymous(&PanelSpec::new("test")).expect("memory")
}

fn snapshot(panel: &Panel) -> PanelSnapshot {
    panel.snapshot().expect("a whole panel")
}

/// Budget 50 µs, hard limit 1 ms; late at once, degraded at 2 in 10, safe stop at 4 in 10.
fn spec() -> GuardSpec {
    let rung = |overruns, window| Some(Rung { overruns, window });
    let ladder = LadderConfig {
        late: rung(1, 1),
        degrade: rung(2, 10),
        stop: rung(4, 10),
        recovery: 5,
        on_hang: Level::SafeStop,
    };
    GuardSpec { budget: us(50), hard_limit: us(1_000), ladder }
}

fn guard(panel: &Panel, name: &str) -> Guard {
    Guard::new(panel.probe(name, Some(1)).expect("room"), spec()).expect("valid")
}

/// One execution from `start` that takes `took`, of work released `waited` before.
fn execute(guard: &mut Guard, start: Nanos, waited: Nanos, took: Nanos) -> Level {
    guard.enter(start);
    guard.exit(start + took, Execution::Worked { released: start - waited })
}

#[test]
fn the_panel_shows_every_execution_exactly() {
    let panel = panel();
    let mut guard = guard(&panel, "verify");
    for i in 1..=40 {
        assert_eq!(execute(&mut guard, us(i * 100), us(i), us(10 + i)), Level::Ok);
    }
    guard.enter(us(9_000));
    assert_eq!(guard.exit(us(9_010), Execution::Idle), Level::Ok);

    let shown = snapshot(&panel);
    let probe = shown.probe("verify").expect("registered");
    assert_eq!((probe.core, probe.budget, probe.hard_limit), (Some(1), us(50), us(1_000)));
    assert_eq!((probe.executions, probe.overruns, probe.entered_at), (40, 0, None));
    let execution = &shown.histograms[probe.execution_histogram.expect("has one")];
    assert_eq!((execution.name.as_str(), execution.kind), ("verify", Kind::Execution));
    assert_eq!((execution.count, execution.min, execution.max), (40, us(11), us(50)));
    assert_eq!(execution.max_at, Some(us(4_050)));
    assert_eq!(execution.sum_ns, (11..=50).sum::<u64>() * 1_000);
    let release = &shown.histograms[probe.release_histogram.expect("has one")];
    assert_eq!(release.kind, Kind::ReleaseLatency);
    assert_eq!((release.count, release.min, release.max), (40, us(1), us(40)));
    assert!(shown.trips.is_empty());
}

#[test]
fn being_inside_is_visible_even_at_instant_zero() {
    let panel = panel();
    let mut guard = guard(&panel, "deliver");
    guard.enter(Nanos::ZERO);
    assert_eq!(snapshot(&panel).probes[0].entered_at, Some(Nanos::new(1)));
    guard.exit(us(1), Execution::Idle);
    assert_eq!(snapshot(&panel).probes[0].entered_at, None);
}

#[test]
fn overruns_climb_the_ladder_and_leave_a_record_each() {
    let panel = panel();
    let mut guard = guard(&panel, "verify");
    let levels: Vec<Level> =
        (0..4).map(|i| execute(&mut guard, us(1_000 * i), us(3), us(51))).collect();
    assert_eq!(levels, [Level::Late, Level::Degraded, Level::Degraded, Level::SafeStop]);
    for i in 4..100 {
        assert_eq!(execute(&mut guard, us(1_000 * i), us(3), us(1)), Level::SafeStop, "latched");
    }
    let shown = snapshot(&panel);
    assert_eq!((shown.probes[0].level, shown.probes[0].overruns), (Level::SafeStop, 4));
    let trips: Vec<_> = shown.trips.iter().map(|t| (t.number, t.at, t.level_after)).collect();
    let expected: Vec<_> =
        (1..=4).zip(levels).map(|(n, level)| (n, us(1_000 * (n as i64 - 1) + 51), level)).collect();
    assert_eq!(trips, expected);
    let trip = &shown.trips[3];
    assert_eq!((trip.duration, trip.budget, trip.release_latency), (us(51), us(50), us(3)));

    guard.rearm();
    assert_eq!(guard.level(), Level::Ok);
    let shown = snapshot(&panel);
    assert_eq!((shown.probes[0].level, shown.probes[0].rearms), (Level::Ok, 1));
    assert_eq!(execute(&mut guard, us(200_000), us(3), us(51)), Level::Late, "history is gone");
}

#[test]
fn a_deadline_below_the_budget_is_refused() {
    let error = guard(&panel(), "arm").with_deadline(us(49)).expect_err("nobody could meet both");
    assert_eq!(error, GuardError::Deadline { deadline: us(49), budget: us(50) });
}

#[test]
fn exactly_the_budget_is_within_it() {
    let panel = panel();
    let mut guard = guard(&panel, "verify");
    assert_eq!(execute(&mut guard, us(0), us(0), us(50)), Level::Ok);
    assert_eq!(execute(&mut guard, us(100), us(0), us(50) + Nanos::new(1)), Level::Late);
}

#[test]
fn with_a_deadline_work_that_begins_too_late_is_an_overrun_of_its_own_cause() {
    let panel = panel();
    let mut guard = guard(&panel, "arm").with_deadline(us(200)).expect("above the budget");
    assert_eq!(execute(&mut guard, us(1_000), us(150), us(50)), Level::Ok, "exactly in time");
    assert_eq!(execute(&mut guard, us(2_000), us(151), us(50)), Level::Late);
    assert_eq!(execute(&mut guard, us(3_000), us(201), us(0)), Level::Degraded);
    guard.enter(us(4_000));
    assert_eq!(guard.exit(us(4_050), Execution::Idle), Level::Degraded, "nothing was due");
    let shown = snapshot(&panel);
    let trips: Vec<_> =
        shown.trips.iter().map(|t| (t.cause, t.duration, t.release_latency)).collect();
    let late = Cause::LateRelease;
    assert_eq!(trips, [(late, us(50), us(151)), (late, us(0), us(201))]);
    assert_eq!((shown.probes[0].executions, shown.probes[0].overruns), (3, 2));
}

#[test]
fn only_the_last_trips_are_kept_and_their_numbers_say_how_many_there_were() {
    let panel = Panel::anonymous(&PanelSpec { trips_per_probe: 3, ..PanelSpec::new("test") })
        .expect("memory");
    let (mut first, mut second) = (guard(&panel, "first"), guard(&panel, "second"));
    for i in 0..8 {
        execute(&mut first, us(i * 1_000), us(0), us(60 + i));
    }
    execute(&mut second, us(5_500), us(0), us(99));
    let shown = snapshot(&panel);
    let trips: Vec<_> = shown.trips.iter().map(|t| (t.probe, t.number, t.duration)).collect();
    // Oldest first, over all probes.
    assert_eq!(trips, [(0, 6, us(65)), (1, 1, us(99)), (0, 7, us(66)), (0, 8, us(67))]);
    assert_eq!(shown.torn, 0);
}

#[test]
fn a_panel_without_room_for_trips_still_counts_them() {
    let panel = Panel::anonymous(&PanelSpec { trips_per_probe: 0, ..PanelSpec::new("test") })
        .expect("memory");
    execute(&mut guard(&panel, "verify"), us(0), us(0), us(60));
    let shown = snapshot(&panel);
    assert_eq!((shown.probes[0].overruns, shown.trips.len()), (1, 0));
}

#[test]
fn idle_polls_count_only_when_they_overran() {
    let panel = panel();
    let mut guard = guard(&panel, "receive");
    execute(&mut guard, us(0), us(0), us(60));
    for i in 1..100 {
        guard.enter(us(i * 100));
        assert_eq!(
            guard.exit(us(i * 100 + 1), Execution::Idle),
            Level::Late,
            "no recovery by idling"
        );
    }
    guard.enter(us(20_000));
    assert_eq!(guard.exit(us(20_051), Execution::Idle), Level::Degraded, "2 in the last 2 counted");
    let probe = &snapshot(&panel).probes[0];
    assert_eq!((probe.executions, probe.overruns, probe.idle_overruns), (1, 2, 1));
}

#[test]
fn impossible_specs_are_refused() {
    let panel = panel();
    let refuse = |name: &str, spec: GuardSpec| {
        Guard::new(panel.probe(name, None).expect("room"), spec).expect_err("impossible")
    };
    let budget = Nanos::ZERO;
    assert_eq!(refuse("a", GuardSpec { budget, ..spec() }), GuardError::Budget { budget });
    let hard_limit = us(49);
    assert_eq!(
        refuse("b", GuardSpec { hard_limit, ..spec() }),
        GuardError::HardLimit { hard_limit, budget: us(50) }
    );
    let ladder = LadderConfig { recovery: 0, ..LadderConfig::standard() };
    assert_eq!(
        refuse("c", GuardSpec { ladder, ..spec() }),
        GuardError::Ladder(LadderError::Recovery)
    );
}

#[test]
fn health_shows_the_worst_guard_and_rearms_them_all() {
    let panel = panel();
    let health = Arc::new(Health::new());
    let mut guards: Vec<Guard> =
        ["a", "b"].map(|n| guard(&panel, n).with_health(Arc::clone(&health))).into();
    execute(&mut guards[0], us(0), us(0), us(60));
    assert_eq!(health.level(), Level::Late);
    for i in 0..4 {
        execute(&mut guards[1], us(i * 100), us(0), us(60));
    }
    assert_eq!(health.level(), Level::SafeStop);

    health.rearm(health.seen());
    assert_eq!(health.level(), Level::SafeStop, "until the guards followed");
    for guard in &mut guards {
        guard.enter(us(9_000));
        assert_eq!(guard.exit(us(9_001), Execution::Idle), Level::Ok);
    }
    assert_eq!(health.level(), Level::Ok);

    // A late guard that goes away takes its lateness along; a stopped one does not.
    execute(&mut guards[0], us(20_000), us(0), us(60));
    assert_eq!(health.level(), Level::Late);
    drop(guards.remove(0));
    assert_eq!(health.level(), Level::Ok);
    for i in 0..4 {
        execute(&mut guards[0], us(i * 100), us(0), us(60));
    }
    drop(guards);
    assert_eq!(health.level(), Level::SafeStop);
}

#[test]
fn a_hang_is_found_once_and_answered_when_the_stage_comes_back() {
    let panel = panel();
    let health = Arc::new(Health::new());
    let mut guard = guard(&panel, "verify").with_health(Arc::clone(&health));
    let mut supervisor =
        Supervisor::new(&panel).expect("the first").with_health(Arc::clone(&health));

    guard.enter(us(10_000));
    assert_eq!(supervisor.check(us(11_000)), [], "exactly the hard limit");
    let hang = Hang {
        probe: "verify".into(),
        inside_for: us(1_001),
        hard_limit: us(1_000),
        level: Level::SafeStop,
    };
    assert_eq!(supervisor.check(us(11_001)), [hang]);
    assert_eq!(supervisor.check(us(12_000)), [], "reported already");
    assert_eq!(health.level(), Level::SafeStop);
    let probe = snapshot(&panel).probes.remove(0);
    assert_eq!((probe.level, probe.hangs), (Level::SafeStop, 1));
    assert_eq!(probe.last_hang_at, Some(us(11_001)));

    assert_eq!(guard.exit(us(13_000), Execution::Idle), Level::SafeStop);
    assert_eq!(supervisor.check(us(20_000)), [], "outside");
    guard.enter(us(21_000));
    assert_eq!(supervisor.check(us(23_000)).len(), 1, "a second hang");

    // A re-arm that comes while it still hangs does not outlive the hang.
    health.rearm(health.seen());
    assert_eq!(guard.exit(us(24_000), Execution::Idle), Level::SafeStop);
    assert_eq!(health.level(), Level::SafeStop);
    health.rearm(health.seen());
    guard.enter(us(30_000));
    assert_eq!(guard.exit(us(30_001), Execution::Idle), Level::Ok);
    assert_eq!((health.level(), snapshot(&panel).probes[0].hangs), (Level::Ok, 2));
}

#[test]
fn a_hang_of_a_report_only_stage_degrades_and_does_not_stop_the_node() {
    let panel = panel();
    let health = Arc::new(Health::new());
    let spec = GuardSpec { ladder: LadderConfig::report_only(), ..spec() };
    let mut guard = Guard::new(panel.probe("log", None).expect("room"), spec)
        .expect("valid")
        .with_health(Arc::clone(&health));
    let mut supervisor =
        Supervisor::new(&panel).expect("the first").with_health(Arc::clone(&health));
    guard.enter(us(1));
    assert_eq!(supervisor.check(us(5_000))[0].level, Level::Degraded);
    assert_eq!(health.level(), Level::Ok, "not latched; the guard answers when it is back");
    assert_eq!(snapshot(&panel).probes[0].level, Level::Degraded);
    assert_eq!(guard.exit(us(6_000), Execution::Idle), Level::Degraded);
    assert_eq!(health.level(), Level::Degraded);
}

#[test]
fn a_panel_has_one_supervisor_and_probes_without_a_guard_have_no_limit() {
    let panel = panel();
    let _unguarded = panel.probe("bare", None).expect("room");
    let mut supervisor = Supervisor::new(&panel).expect("the first");
    let error = Supervisor::new(&panel).expect_err("the second");
    assert_eq!(error.to_string(), "panel `test` already has a supervisor; use that one");
    assert_eq!(supervisor.check(Nanos::MAX), []);
    drop(supervisor);
    assert!(Supervisor::new(&panel).is_ok());
}

/// Runs an execution up to five times, for the machine may interfere with any single one, and gives
/// the causes that were found.
fn causes(budget: Nanos, prepare: impl Fn(), work: impl Fn()) -> Vec<Cause> {
    let panel = panel();
    let spec = GuardSpec { budget, hard_limit: Nanos::from_secs(60), ..spec() };
    let mut guard = Guard::new(panel.probe("p", None).expect("room"), spec).expect("valid");
    for _ in 0..5 {
        prepare();
        let (_, level) = guard.run(&work);
        assert!(level > Level::Ok, "an overrun");
    }
    snapshot(&panel).trips.iter().map(|trip| trip.cause).collect()
}

fn burn(cpu: Nanos) {
    let end = clock::thread_cpu_time() + cpu;
    while clock::thread_cpu_time() < end {}
}

fn sleep(span: Nanos) {
    clock::sleep_until(clock::now() + span);
}

/// As a lane does it: a long sleep that must not be mistaken for pre-emption.
fn park() {
    guard::before_park(clock::now());
    sleep(Nanos::from_millis(5));
    guard::after_park(clock::now());
}

#[test]
fn burning_the_cpu_is_an_own_overrun() {
    let found = causes(Nanos::from_millis(1), park, || burn(Nanos::from_millis(4)));
    assert!(found.contains(&Cause::OwnOverrun), "{found:?}");
    assert!(!found.contains(&Cause::Blocked), "{found:?}");
}

#[test]
fn waiting_in_the_middle_of_the_work_is_being_blocked() {
    let found = causes(Nanos::from_millis(5), park, || sleep(Nanos::from_millis(20)));
    assert!(found.contains(&Cause::Blocked), "{found:?}");
    assert!(!found.contains(&Cause::OwnOverrun), "{found:?}");
}

#[test]
fn without_a_baseline_the_cause_is_unknown() {
    let forget = || guard::after_park(clock::now());
    let found = causes(us(1), forget, || burn(us(100)));
    assert_eq!(found, [Cause::Unknown; 5]);
}
