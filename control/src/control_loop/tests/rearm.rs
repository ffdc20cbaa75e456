//! What leaves a safe stop, and what does not.

use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::latest;

use super::*;
use crate::input::Input;
use crate::safety::{Event, RearmToken, StopCause};

/// Trips in cycle 3, and lets the test do something to the handle in a later one.
fn trip_then(
    mut later: impl FnMut(u64, &LoopHandle) + 'static,
    handle: LoopHandle,
) -> impl FnMut(Call, &mut Cycle) {
    move |call, cx| {
        if call == Call::Cycle && cx.tick() == 3 {
            cx.trip();
        }
        if call == Call::SafeStop {
            later(cx.tick(), &handle);
        }
    }
}

#[test]
fn an_authorised_rearm_of_the_present_stop_lets_the_loop_move_again() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100);
    let script = trip_then(
        |tick, handle| {
            let status = handle.status();
            assert_eq!((status.state, status.stops), (State::SafeStop, 1));
            if tick == 5 {
                handle.rearm(RearmToken::authorise(status.stops));
            }
        },
        control_loop.handle(),
    );
    rig.run_loop(control_loop, 9, script);
    assert_eq!(rig.ticks_of(Call::SafeStop), [3, 4, 5]);
    assert_eq!(rig.ticks_of(Call::Cycle), [1, 2, 3, 6, 7, 8, 9]);
    assert_eq!(rig.status.get().unwrap(), Status { state: State::Idle, cause: None, stops: 1 });
}

#[test]
fn a_permission_given_before_the_stop_or_for_another_one_opens_nothing() {
    for stop in [0, 2, u64::MAX] {
        let mut rig = Rig::new();
        let control_loop = ControlLoop::new("arm").budget(US * 100);
        // Before the start: stop 1 has not happened yet, so nobody can have looked at it.
        control_loop.handle().rearm(RearmToken::authorise(1));
        let script = trip_then(
            move |_, handle| handle.rearm(RearmToken::authorise(stop)),
            control_loop.handle(),
        );
        rig.run_loop(control_loop, 3_000, script);
        assert_eq!(rig.ticks_of(Call::SafeStop), range(3..=3_000), "stop {stop}");
    }
}

#[test]
fn a_rearm_after_overruns_waits_for_the_guards_and_starts_with_a_clean_ladder() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig { stop: Some((2, 1_000).into()), ..LadderConfig::standard() };
    let clock = rig.clock.clone();
    let control_loop =
        ControlLoop::new("arm").budget(US * 100).trip(rig.ladder).health(rig.health.clone());
    let handle = control_loop.handle();
    rig.run_loop(control_loop, 20, move |call, cx| {
        if call == Call::Cycle && [2, 3, 12].contains(&cx.tick()) {
            clock.advance(US * 101);
        }
        if call == Call::SafeStop && cx.tick() == 5 {
            handle.rearm(RearmToken::authorise(1));
        }
    });
    // Asked for in 5, taken in 6, in which the guard follows; the loop moves from 7 on.
    assert_eq!(rig.ticks_of(Call::SafeStop), [3, 4, 5, 6]);
    assert_eq!(rig.ticks_of(Call::Cycle), [range(1..=3), range(7..=20)].concat());
    assert_eq!(rig.status.get().unwrap().state, State::Idle, "one overrun since is not two");
}

#[test]
fn a_rearm_after_a_panic_clears_the_panic() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100).health(rig.health.clone());
    let handle = control_loop.handle();
    rig.run_loop(control_loop, 9, move |call, cx| {
        assert!(call != Call::Cycle || cx.tick() != 3, "on purpose");
        if call == Call::SafeStop && cx.tick() == 5 {
            handle.rearm(RearmToken::authorise(1));
        }
    });
    // Taken in 6, at whose end the latch is seen open.
    assert_eq!(rig.ticks_of(Call::Cycle), [1, 2, 3, 7, 8, 9]);
    assert!(!rig.health.panicked());
}

#[test]
fn the_safe_stop_path_can_hold_off_a_rearm_and_the_permission_lapses_after_a_second() {
    // Blocked until cycle 500: the permission still counts. Until 1,200: it has lapsed.
    for (blocked_until, moves_from) in [(500, Some(500)), (1_200, None)] {
        let mut rig = Rig::new();
        let control_loop = ControlLoop::new("arm").budget(US * 100);
        let handle = control_loop.handle();
        rig.run_loop(control_loop, 2_000, move |call, cx| {
            if cx.tick() == 3 || (call == Call::SafeStop && cx.tick() < blocked_until - 1) {
                cx.trip();
            }
            if call == Call::SafeStop && cx.tick() == 5 {
                handle.rearm(RearmToken::authorise(1));
            }
        });
        let moved = rig.ticks_of(Call::Cycle).into_iter().find(|tick| *tick > 3);
        assert_eq!(moved, moves_from, "blocked until {blocked_until}");
    }
}

#[test]
fn a_rearm_waits_while_the_safe_stop_path_panics() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100);
    let handle = control_loop.handle();
    rig.run_loop(control_loop, 20, move |call, cx| {
        if cx.tick() == 3 {
            cx.trip();
        }
        if call == Call::SafeStop && cx.tick() == 5 {
            handle.rearm(RearmToken::authorise(1));
        }
        assert!(call != Call::SafeStop || !(5..10).contains(&cx.tick()), "on purpose");
    });
    assert_eq!(rig.ticks_of(Call::SafeStop), range(3..=10));
}

#[test]
fn a_rearm_waits_while_the_safe_stop_path_reads_a_lost_input() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100);
    let handle = control_loop.handle();
    let (mut writer, reader) = latest::channel();
    let mut input = Input::new(reader, MS * 2).deadline(MS * 5);
    rig.run_loop(control_loop, 100, move |call, cx| {
        // Silence from cycle 4 to 59.
        if !(4..60).contains(&cx.tick()) {
            writer.publish((), cx.now());
        }
        let _seen = cx.read(&mut input);
        if call == Call::SafeStop && cx.tick() == 20 {
            handle.rearm(RearmToken::authorise(1));
        }
    });
    assert_eq!(rig.ticks_of(Call::SafeStop), range(9..=60));
    assert_eq!(rig.status.get().unwrap().stops, 1, "it did not start to move only to stop again");
}

#[test]
fn a_permission_for_what_was_seen_does_not_cover_a_panic_elsewhere_since() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100).health(rig.health.clone());
    let (handle, health) = (control_loop.handle(), rig.health.clone());
    rig.run_loop(control_loop, 12, move |call, cx| {
        if call == Call::Cycle && cx.tick() == 3 {
            cx.trip();
        }
        if call != Call::SafeStop {
            return;
        }
        match cx.tick() {
            // Another lane panics while the operator's permission for stop 1 is under way.
            5 => {
                health.set_panicked();
                handle.rearm(RearmToken::authorise(1));
            }
            8 => {
                let Status { state, cause, stops } = handle.status();
                assert_eq!((state, cause), (State::SafeStop, Some(StopCause::Panic)));
                assert_eq!(stops, 2);
                assert!(health.panicked(), "nobody cleared what nobody saw");
                handle.rearm(RearmToken::authorise(2));
            }
            _ => {}
        }
    });
    assert_eq!(rig.ticks_of(Call::Cycle), [1, 2, 3, 10, 11, 12]);
    let snapshot = rig.panel.snapshot().unwrap();
    assert_eq!(snapshot.counter("arm safe stops"), Some(2), "the number that a re-arm names");
}

#[test]
fn a_permission_for_another_stop_does_not_clear_the_node_either() {
    let mut rig = Rig::new();
    let control_loop = ControlLoop::new("arm").budget(US * 100).health(rig.health.clone());
    let handle = control_loop.handle();
    rig.run_loop(control_loop, 9, move |call, cx| {
        assert!(call != Call::Cycle || cx.tick() != 3, "on purpose");
        handle.rearm(RearmToken::authorise(2));
    });
    assert_eq!(rig.ticks_of(Call::SafeStop), range(3..=9));
    assert!(rig.health.panicked());
}

#[test]
fn a_loop_rearmed_while_a_lane_is_still_degraded_starts_degraded() {
    let mut rig = Rig::new();
    let ladder = LadderConfig { degrade: Some((1, 1).into()), ..LadderConfig::standard() };
    let spec = GuardSpec { budget: US, hard_limit: MS, ladder };
    let probe = rig.panel.probe("verify", None).unwrap();
    // Degraded before the start, and then without an execution in which to recover.
    let mut lane = Guard::new(probe, spec).unwrap().with_health(rig.health.clone());
    lane.enter(START);
    lane.exit(START + US * 2, Execution::Worked { released: START });
    let control_loop = ControlLoop::new("arm").budget(US * 100).health(rig.health.clone());
    let script = trip_then(
        |tick, handle| {
            if tick == 5 {
                handle.rearm(RearmToken::authorise(1));
            }
        },
        control_loop.handle(),
    );
    rig.run_loop(control_loop, 8, script);
    let log = rig.log.borrow();
    let states: Vec<_> =
        log.iter().filter(|entry| entry.0 == Call::Cycle).map(|entry| (entry.1, entry.4)).collect();
    let degraded = State::DegradedTiming;
    assert_eq!(states, [1, 2, 3, 6, 7, 8].map(|tick| (tick, degraded)));
}

#[test]
fn a_panic_or_hang_between_the_look_and_the_rearm_is_not_lost() {
    for (since, cause) in [
        (Health::set_panicked as fn(&Health), StopCause::Panic),
        (Health::set_hung, StopCause::Hang),
        (Health::set_dead, StopCause::Panic),
    ] {
        let rig = Rig::new();
        let control_loop = ControlLoop::new("arm").health(rig.health.clone());
        let handle = control_loop.handle();
        let body = Scripted { script: Box::new(|_, _| {}), log: &rig.log };
        let mut engine = control_loop.prepare(&rig.panel, body).unwrap().engine;
        engine.safety.apply(Event::InputLost);
        handle.rearm(RearmToken::authorise(1));

        engine.follow_health();
        since(&rig.health);
        engine.follow_rearm(START);
        engine.follow_health();
        engine.follow_rearm(START + MS);
        let Status { state, cause: found, stops } = handle.status();
        assert_eq!((state, found, stops), (State::SafeStop, Some(cause), 2));
    }
}
