//! When cycles run, and what is refused.

use sinew_rt::panel::Kind;

use super::*;

#[test]
fn a_loop_in_time_runs_every_period_in_phase() {
    let mut rig = Rig::new();
    rig.run(100, |_, _| {});
    let log = rig.log.borrow();
    assert_eq!(log.len(), 101);
    for (n, (call, tick, now, skipped, state)) in (1..=100).zip(&*log) {
        assert_eq!((*call, *tick, *now), (Call::Cycle, n, ms(n as i64)));
        assert_eq!((*skipped, *state), (0, State::Running));
    }
    assert_eq!(rig.skipped_on_panel(), 0);
}

#[test]
fn missed_periods_are_skipped_counted_and_never_made_up_for() {
    let mut rig = Rig::new();
    rig.ladder = LadderConfig::report_only();
    let clock = rig.clock.clone();
    rig.run(6, move |_, cx| {
        if cx.tick() == 3 {
            clock.advance(MS * 3 + US * 400);
        }
    });
    let times: Vec<_> = rig.log.borrow().iter().map(|entry| (entry.1, entry.2, entry.3)).collect();
    assert_eq!(times[2..6], [(3, ms(3), 0), (4, ms(7), 3), (5, ms(8), 0), (6, ms(9), 0)]);
    assert_eq!(rig.skipped_on_panel(), 3);
}

#[test]
fn a_late_wake_up_runs_once_and_is_recorded() {
    let mut rig = Rig::new();
    rig.late = vec![Nanos::ZERO, MS * 2 + US * 300];
    rig.run(4, |_, _| {});
    let times: Vec<_> = rig.log.borrow().iter().map(|entry| (entry.2, entry.3)).collect();
    let late = ms(2) + MS * 2 + US * 300;
    assert_eq!(times[..4], [(ms(1), 0), (late, 0), (ms(5), 2), (ms(6), 0)]);
    let snapshot = rig.panel.snapshot().unwrap();
    let wake_up = snapshot.histograms.iter().find(|h| h.kind == Kind::WakeUp).unwrap();
    assert_eq!((wake_up.count, wake_up.max), (4, MS * 2 + US * 300));
}

#[test]
fn what_does_not_fit_is_refused_with_its_numbers() {
    let panel = Panel::anonymous(&PanelSpec::new("test")).unwrap();
    let refused = |control_loop: ControlLoop| {
        control_loop.on_safe_stop(|_| {}).run(&panel, |_| {}).unwrap_err().to_string()
    };
    let arm = || ControlLoop::new("arm");
    assert_eq!(refused(arm().rate_hz(0)), "loop arm: 0 Hz; use 1 to 100000 Hz");
    assert_eq!(
        refused(arm().budget(MS * 2)),
        "loop arm: a budget of 2.000 ms does not fit a period of 1.000 ms; lower one"
    );
    assert_eq!(
        refused(arm().wake(Wake::Hybrid { spin: US * 501 })),
        "loop arm: spinning 501.0 µs of each period of 1.000 ms; use 0 to 500.0 µs or Wake::Sleep"
    );
    assert_eq!(
        refused(ControlLoop::new("leg").budget(US * 200).deadline(US * 199)),
        "loop leg: the deadline of 199.0 µs is below the budget of 200.0 µs; raise it"
    );
    assert!(refused(arm().budget(Nanos::ZERO)).contains("budget is 0 ns"));
}
