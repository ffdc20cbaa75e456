//! The loop in virtual time: every claim about skipping, tripping and re-arming, to the nanosecond.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use sinew_rt::clock::{Clock, Nanos, VirtualClock};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::{LadderConfig, Level};
use sinew_rt::latest::{self, LatestReader};
use sinew_rt::panel::{Kind, Panel, PanelSpec};

use super::engine::{Engine, Timer};
use super::*;
use crate::input::{Input, Reading};
use crate::safety::{RearmToken, State, StopCause};

const MS: Nanos = Nanos::from_millis(1);
const US: Nanos = Nanos::from_micros(1);

/// A clock that jumps to the instant it is asked to wait for, or a scripted span beyond it.
struct Virtual {
    clock: Arc<VirtualClock>,
    /// How late the wake-up of each cycle is; on time when the script has ended.
    late: RefCell<std::vec::IntoIter<Nanos>>,
}

impl Clock for Virtual {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Timer for Virtual {
    fn sleep_towards(&self, _due: Nanos) {}

    fn arrive(&self, due: Nanos) -> Nanos {
        self.clock.advance_to(due + self.late.borrow_mut().next().unwrap_or(Nanos::ZERO));
        self.clock.now()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Cycle,
    Degraded,
    SafeStop,
}

type Script = Box<dyn FnMut(Call, &mut Cycle)>;

/// A body that does what the test says and remembers how it was called.
struct Scripted<'a> {
    script: Script,
    log: &'a RefCell<Vec<(Call, u64, Nanos, u64, State)>>,
}

impl Scripted<'_> {
    fn call(&mut self, call: Call, cx: &mut Cycle) {
        let entry = (call, cx.tick(), cx.now(), cx.skipped(), cx.state());
        self.log.borrow_mut().push(entry);
        (self.script)(call, cx);
    }
}

impl LoopBody for Scripted<'_> {
    fn cycle(&mut self, cx: &mut Cycle) {
        self.call(Call::Cycle, cx);
    }

    fn degraded(&mut self, cx: &mut Cycle) {
        self.call(Call::Degraded, cx);
    }

    fn safe_stop(&mut self, cx: &mut Cycle) {
        self.call(Call::SafeStop, cx);
    }
}

/// A loop at 1 kHz with a budget of 100 µs and a hard limit of 20 ms on a virtual clock that
/// starts at 10 s, so that cycle `n` is due at 10 s + `n` ms.
struct Rig {
    clock: Arc<VirtualClock>,
    panel: Panel,
    health: Arc<Health>,
    ladder: LadderConfig,
    late: Vec<Nanos>,
    handle: Option<LoopHandle>,
    log: RefCell<Vec<(Call, u64, Nanos, u64, State)>>,
    status: Cell<Option<Status>>,
}

const START: Nanos = Nanos::from_secs(10);

impl Rig {
    fn new() -> Self {
        Self {
            clock: Arc::new(VirtualClock::new(START)),
            panel: Panel::anonymous(&PanelSpec::new("test")).unwrap(),
            health: Arc::default(),
            ladder: LadderConfig::standard(),
            late: Vec::new(),
            handle: None,
            log: RefCell::default(),
            status: Cell::new(None),
        }
    }

    /// Runs cycles 1 to `ticks` with a script; each call may let time pass on the clock.
    fn run(&mut self, ticks: u64, script: impl FnMut(Call, &mut Cycle) + 'static) {
        let control_loop =
            ControlLoop::new("arm").budget(US * 100).trip(self.ladder).health(self.health.clone());
        self.run_loop(control_loop, ticks, script);
    }

    fn run_loop(
        &mut self,
        control_loop: ControlLoop,
        ticks: u64,
        mut script: impl FnMut(Call, &mut Cycle) + 'static,
    ) {
        let handle = control_loop.handle();
        self.handle = Some(handle.clone());
        let script: Script = Box::new(move |call, cx| {
            if cx.tick() == ticks {
                cx.stop();
            }
            script(call, cx);
        });
        let late = RefCell::new(std::mem::take(&mut self.late).into_iter());
        let timer = Virtual { clock: self.clock.clone(), late };
        let body = Scripted { script, log: &self.log };
        let mut engine: Engine<_> = control_loop.prepare(&self.panel, body).unwrap().engine;
        engine.run(&timer);
        self.status.set(Some(handle.status()));
    }

    /// The ticks in which `call` was made; the last safe stop, made when the loop ends, not counted.
    fn ticks_of(&self, call: Call) -> Vec<u64> {
        let log = self.log.borrow();
        let (last, rest) = log.split_last().unwrap();
        assert_eq!(last.0, Call::SafeStop, "a loop ends with outputs made safe");
        rest.iter().filter(|entry| entry.0 == call).map(|entry| entry.1).collect()
    }

    fn skipped_on_panel(&self) -> u64 {
        self.panel.snapshot().unwrap().counter("arm skipped").unwrap()
    }
}

fn ms(n: i64) -> Nanos {
    START + MS * n
}

fn range(ticks: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    ticks.collect()
}

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

/// A script that reads an input whose last value was published in cycle `last`.
fn reading(last: u64) -> (impl FnMut(Call, &mut Cycle), Arc<std::sync::Mutex<Vec<String>>>) {
    let (mut writer, reader): (_, LatestReader<u64>) = latest::channel();
    let mut input = Input::new(reader, MS * 2).deadline(MS * 5);
    let readings = Arc::new(std::sync::Mutex::new(Vec::new()));
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
    assert!(refused(arm().budget(Nanos::ZERO)).contains("budget is 0 ns"));
}
