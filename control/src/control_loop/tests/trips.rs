//! What degrades and stops a loop.

use std::sync::Mutex;

use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::Level;
use sinew_rt::latest::{self, LatestReader};
use sinew_rt::panel::Cause;

use super::*;
use crate::input::{Input, Reading};
use crate::safety::StopCause;

#[test]
fn overruns_climb_the_ladder_and_safe_stop_comes_in_the_same_cycle() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig {
        degrade: Some((2, 10).into()),
        stop: Some((4, 10).into()),
        ..LadderConfig::standard()
    };
    let clock = rig.clock.clone();
    rig.run(12, move |call, cx| {
        if call == Call::Cycle && cx.tick() > 3 {
            clock.advance(US * 101);
        }
    });
    assert_eq!(rig.ticks_of(Call::Cycle), range(1..=7));
    assert_eq!(rig.ticks_of(Call::Degraded), [6], "told once, in the cycle after the second");
    assert_eq!(rig.ticks_of(Call::SafeStop), range(7..=12), "from the fourth overrun on");
    let status = rig.status.get().unwrap();
    assert_eq!(
        (status.state, status.stops),
        (State::SafeStop, 1),
        "a stop request unlatches nothing"
    );
    assert_eq!(status.cause, Some(StopCause::Timing));
    let snapshot = rig.panel.snapshot().unwrap();
    assert_eq!(snapshot.counter("arm safe stops"), Some(1));
    assert_eq!(snapshot.gauge("arm safety"), Some(i64::from(State::SafeStop.code())));
    assert_eq!(snapshot.gauge("arm stop cause"), Some(i64::from(StopCause::Timing.code())));
    assert_eq!(snapshot.probes[0].overruns, 4);
    assert_eq!(snapshot.probes[0].executions, 7, "cycles without the body are not executions");
}

#[test]
fn late_wake_ups_climb_the_ladder_like_long_cycles() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig {
        degrade: Some((2, 10).into()),
        stop: Some((4, 10).into()),
        ..LadderConfig::standard()
    };
    // Exactly a period late is in time for a body that takes none; a nanosecond more is not.
    rig.late = [vec![MS; 3], vec![MS + Nanos::new(1); 9]].concat();
    rig.run(12, |_, _| {});
    assert_eq!(rig.ticks_of(Call::Cycle), range(1..=7));
    assert_eq!(rig.ticks_of(Call::Degraded), [6], "told once, in the cycle after the second");
    assert_eq!(rig.ticks_of(Call::SafeStop), range(7..=12), "from the fourth miss on");
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Timing));
    let snapshot = rig.panel.snapshot().unwrap();
    assert_eq!(snapshot.probes[0].overruns, 4);
    assert!(snapshot.trips.iter().all(|trip| trip.cause == Cause::LateRelease));
}

#[test]
fn a_deadline_counts_from_the_instant_at_which_the_cycle_was_due() {
    let mut rig = Rig::new();
    let clock = rig.clock.clone();
    rig.late = vec![US * 200, US * 200 + Nanos::new(1), US * 299, US * 301];
    let control_loop = ControlLoop::new("arm").budget(US * 100).deadline(US * 300);
    rig.run_loop(control_loop, 5, move |call, cx| {
        if call == Call::Cycle && cx.tick() <= 2 {
            clock.advance(US * 100);
        }
    });
    let snapshot = rig.panel.snapshot().unwrap();
    let late: Vec<_> = snapshot.trips.iter().map(|trip| trip.release_latency).collect();
    assert_eq!(late, [US * 200 + Nanos::new(1), US * 301]);
}

#[test]
fn a_loop_that_recovers_is_told_again_when_it_degrades_again() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig {
        degrade: Some((1, 1).into()),
        stop: None,
        recovery: 2,
        ..LadderConfig::standard()
    };
    let clock = rig.clock.clone();
    rig.run(20, move |call, cx| {
        if call == Call::Cycle && [3, 12].contains(&cx.tick()) {
            clock.advance(US * 101);
        }
    });
    assert_eq!(rig.ticks_of(Call::Degraded), [4, 13]);
    let log = rig.log.borrow();
    let degraded = |tick: u64| {
        log.iter().any(|entry| entry.0 == Call::Cycle && entry.1 == tick && entry.4.is_degraded())
    };
    assert!(!degraded(3) && degraded(4) && degraded(5) && !degraded(8) && degraded(13));
}

#[test]
fn a_panic_is_a_safe_stop_and_the_thread_lives_on() {
    let mut rig = Rig::new();
    rig.run(10, |call, cx| {
        assert!(call != Call::Cycle || cx.tick() != 4, "on purpose");
    });
    assert_eq!(rig.ticks_of(Call::Cycle), range(1..=4));
    assert_eq!(rig.ticks_of(Call::SafeStop), range(4..=10));
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Panic));
    assert!(rig.health.panicked(), "the rest of the node sees it");
}

#[test]
fn a_panic_in_the_safe_stop_path_is_counted_and_the_path_tried_again() {
    let mut rig = Rig::new();
    rig.run(6, |call, cx| match call {
        Call::SafeStop if cx.tick() == 4 => panic!("on purpose"),
        _ if cx.tick() == 3 => cx.trip(),
        _ => {}
    });
    assert_eq!(rig.ticks_of(Call::SafeStop), [3, 4, 5, 6]);
    assert_eq!(rig.panel.snapshot().unwrap().counter("arm safe stop panics"), Some(1));
}

#[test]
fn a_body_that_trips_is_made_safe_within_the_cycle() {
    let mut rig = Rig::new();
    rig.run(5, |call, cx| {
        if call == Call::Cycle && cx.tick() == 2 {
            cx.trip();
        }
    });
    let log = rig.log.borrow();
    assert_eq!((log[1].0, log[1].1, log[1].4), (Call::Cycle, 2, State::Running));
    assert_eq!((log[2].0, log[2].1, log[2].4), (Call::SafeStop, 2, State::SafeStop));
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Tripped));
}

type Readings = Arc<Mutex<Vec<String>>>;

/// A script that reads an input whose last value was published in cycle `last`.
fn reading(last: u64) -> (impl FnMut(Call, &mut Cycle), Readings) {
    let (mut writer, reader): (_, LatestReader<u64>) = latest::channel();
    let mut input = Input::new(reader, MS * 2).deadline(MS * 5);
    let readings = Arc::new(Mutex::new(Vec::new()));
    let log = readings.clone();
    let script = move |call, cx: &mut Cycle| {
        if call != Call::Cycle {
            return;
        }
        if (2..=last).contains(&cx.tick()) {
            writer.publish(cx.tick(), cx.now());
        }
        log.lock().unwrap().push(match cx.read(&mut input) {
            Reading::Fresh(value, age) => format!("fresh {value} {age}"),
            Reading::Stale(value, age) => format!("stale {value} {age}"),
            Reading::Never => "never".to_owned(),
        });
    };
    (script, readings)
}

#[test]
fn a_silent_input_degrades_and_then_stops_at_its_deadline() {
    let mut rig = Rig::new();
    let (script, readings) = reading(3);
    rig.run(12, script);
    let expected = [
        "never",
        "fresh 2 0 ns",
        "fresh 3 0 ns",
        "fresh 3 1.000 ms",
        "fresh 3 2.000 ms",
        "stale 3 3.000 ms",
        "stale 3 4.000 ms",
        "stale 3 5.000 ms",
        "stale 3 6.000 ms",
    ];
    assert_eq!(*readings.lock().unwrap(), expected);
    assert_eq!(
        rig.ticks_of(Call::Degraded),
        [2, 7],
        "after `never`, and after the first stale one"
    );
    assert_eq!(rig.ticks_of(Call::SafeStop), range(9..=12), "in the cycle that saw 6 ms");
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::InputLost));
    let snapshot = rig.panel.snapshot().unwrap();
    let starved: Vec<_> = snapshot
        .trips
        .iter()
        .map(|trip| (trip.cause, trip.at, trip.duration, trip.budget))
        .collect();
    let cause = Cause::StarvedInput;
    assert_eq!(starved, [(cause, ms(6), MS * 3, MS * 2), (cause, ms(9), MS * 6, MS * 5)]);
    assert_eq!((snapshot.probes[0].starved, snapshot.probes[0].overruns), (2, 0));
    assert_eq!(snapshot.probes[0].level, Level::Ok, "the ladder is for time");
}

#[test]
fn each_silence_of_an_input_is_told_once() {
    let mut rig = Rig::new();
    let (mut writer, reader) = latest::channel();
    let mut input = Input::new(reader, MS * 2);
    rig.run(60, move |call, cx| {
        if call == Call::Cycle {
            if cx.tick() % 10 >= 5 {
                writer.publish((), cx.now());
            }
            let _reading = cx.read(&mut input);
        }
    });
    let snapshot = rig.panel.snapshot().unwrap();
    let told: Vec<_> = snapshot.trips.iter().map(|trip| (trip.number, trip.at)).collect();
    // The first silence began with the first reading, the others with what came at 9, 19, … ms.
    assert_eq!(
        told,
        [(1, 4), (2, 12), (3, 22), (4, 32), (5, 42), (6, 52)].map(|(n, at)| (n, ms(at)))
    );
}

#[test]
fn an_input_that_never_came_degrades_but_does_not_stop() {
    let mut rig = Rig::new();
    let (script, _) = reading(0);
    rig.run(5_000, script);
    assert_eq!(rig.ticks_of(Call::SafeStop), []);
    let last = rig.log.borrow().iter().rev().nth(1).unwrap().4;
    assert_eq!(last, State::DegradedInput);
    assert_eq!(rig.status.get().unwrap().state, State::Idle);
}

#[test]
fn a_cycle_beyond_the_hard_limit_stops_at_its_end() {
    let mut rig = Rig::new();
    let clock = rig.clock.clone();
    rig.run(6, move |_, cx| {
        if cx.tick() == 3 {
            clock.advance(MS * 20 + Nanos::new(1));
        }
    });
    assert_eq!(rig.ticks_of(Call::SafeStop), [3, 4, 5, 6]);
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Hang));
}

#[test]
fn a_wake_up_beyond_the_hard_limit_stops_before_the_body_runs() {
    let mut rig = Rig::new();
    rig.late = vec![Nanos::ZERO, MS * 20 + Nanos::new(1)];
    rig.run(4, |_, _| {});
    assert_eq!(rig.ticks_of(Call::Cycle), [1]);
    assert_eq!(rig.ticks_of(Call::SafeStop), [2, 3, 4]);
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Hang));
}

#[test]
fn a_ladder_that_does_not_stop_on_a_hang_is_obeyed() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig::report_only();
    rig.late = vec![MS * 30];
    rig.run(6, |_, _| {});
    assert_eq!(rig.ticks_of(Call::Cycle), range(1..=6));
}

#[test]
fn the_loop_degrades_and_stops_with_the_lanes_that_share_its_health() {
    let mut rig = Rig::new();
    let ladder = LadderConfig {
        degrade: Some((1, 1).into()),
        stop: Some((2, 2).into()),
        recovery: 1,
        ..LadderConfig::standard()
    };
    let spec = GuardSpec { budget: US, hard_limit: MS, ladder };
    let probe = rig.panel.probe("verify", None).unwrap();
    let mut lane = Guard::new(probe, spec).unwrap().with_health(rig.health.clone());
    rig.run(30, move |_, cx| {
        let late = [3, 10, 11].contains(&cx.tick());
        let end = cx.now() + if late { US * 2 } else { Nanos::ZERO };
        lane.enter(cx.now());
        let level = lane.exit(end, Execution::Worked { released: cx.now() });
        assert!(level != Level::SafeStop || cx.tick() >= 11);
    });
    assert_eq!(rig.ticks_of(Call::Degraded), [4, 11]);
    assert_eq!(rig.ticks_of(Call::SafeStop), range(11..=30));
    assert_eq!(rig.status.get().unwrap().cause, Some(StopCause::Timing));
}
