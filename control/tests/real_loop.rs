//! Control loops on real threads and the kernel's clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sinew_control::control_loop::{ControlLoop, Cycle, LoopError, RunningLoop, Wake};
use sinew_control::input::{Input, Reading};
use sinew_control::safety::{RearmToken, State, StopCause};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::latest;
use sinew_rt::panel::{Panel, PanelSpec};
use sinew_rt::thread::{Policy, Priority, Strictness};

/// A test that waits longer than this for another thread has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn panel() -> Panel {
    Panel::anonymous(&PanelSpec::new("test")).unwrap()
}

/// A loop that a busy test machine cannot trip.
fn tolerant() -> ControlLoop {
    ControlLoop::new("arm").trip(LadderConfig::report_only())
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn stop_after(ticks: u64) -> impl FnMut(&mut Cycle) {
    move |cx| {
        if cx.tick() == ticks {
            cx.stop();
        }
    }
}

#[test]
fn a_spawned_loop_runs_its_cycles_and_reports_them() {
    let panel = panel();
    let made_safe = Arc::new(AtomicU64::new(0));
    let count = made_safe.clone();
    let running = tolerant()
        .on_safe_stop(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .spawn(&panel, stop_after(50))
        .unwrap();
    let report = running.join().unwrap();
    assert_eq!((report.cycles, report.status.state), (50, State::Idle));
    assert_eq!(made_safe.load(Ordering::Relaxed), 2, "once in the self-test, once at the end");
    let snapshot = panel.snapshot().unwrap();
    assert_eq!(snapshot.probes[0].executions, 50);
    assert_eq!(snapshot.counter("arm skipped"), Some(report.skipped));
    let expected = format!(
        "loop arm: 50 cycles, {} skipped, latest wake-up {}, 0 safe stops, ended in state idle",
        report.skipped, report.wake_up_max
    );
    assert!(report.to_string().starts_with(&expected), "{report}");
}

#[test]
fn cycles_never_begin_before_they_are_due_and_stay_in_phase() {
    for wake in [Wake::Sleep, Wake::Hybrid { spin: Nanos::from_micros(100) }] {
        let mut first = None;
        let mut cycles = 0;
        let report = tolerant()
            .rate_hz(997)
            .wake(wake)
            .on_safe_stop(|_| {})
            .run(&panel(), |cx| {
                let period = cx.period();
                assert_eq!(period, Nanos::new(1_003_009));
                let first = *first.get_or_insert(cx.due());
                assert!(cx.now() >= cx.due());
                assert_eq!((cx.due() - first).as_nanos() % period.as_nanos(), 0);
                cycles += 1;
                if cycles == 100 {
                    cx.stop();
                }
            })
            .unwrap();
        assert_eq!((report.status.stops, cycles), (0, 100), "{report}");
    }
}

#[test]
fn a_real_time_loop_has_what_it_asked_for_or_says_that_it_has_not() {
    let priority = Priority::new(40).unwrap();
    let running =
        tolerant().priority(priority).on_safe_stop(|_| {}).spawn(&panel(), |_| {}).unwrap();
    let applied = running.applied().unwrap().clone();
    let report = running.stop().unwrap();
    if applied.refused.is_empty() {
        assert_eq!(applied.requested.policy, Policy::Fifo(priority));
        assert!(applied.effective.scheduling.is_real_time());
        assert!(!report.to_string().contains("NOT REAL-TIME"));
    } else {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("\nSKIPPED: no SCHED_FIFO here: {}\n", applied.refused[0]).as_bytes(),
        );
        assert!(report.to_string().contains("NOT REAL-TIME"));
    }
}

#[test]
fn dropping_a_running_loop_leaves_no_thread() {
    let running = tolerant().on_safe_stop(|_| {}).spawn(&panel(), |_| {}).unwrap();
    let tid = running.applied().unwrap().effective.tid;
    let task = format!("/proc/self/task/{tid}");
    assert!(Path::new(&task).exists());
    drop(running);
    // The kernel takes the entry away just after the thread can be joined.
    wait_for("the end of the thread", || !Path::new(&task).exists());
}

#[test]
fn a_safe_stop_path_that_panics_or_dawdles_in_its_self_test_starts_nothing() {
    let started = Arc::new(AtomicBool::new(false));
    let started_too = started.clone();
    let body = move |_: &mut Cycle| started_too.store(true, Ordering::Relaxed);
    let error = tolerant()
        .on_safe_stop(|_| panic!("on purpose"))
        .spawn(&panel(), body.clone())
        .unwrap_err();
    assert!(matches!(error, LoopError::SelfTestPanicked { .. }), "{error}");

    let dawdle = |_: &mut Cycle| {
        let end = clock::now() + Nanos::from_millis(3);
        while clock::now() < end {}
    };
    let slow = |strictness| {
        tolerant()
            .strictness(strictness)
            .safe_stop_budget(Nanos::from_millis(2))
            .on_safe_stop(dawdle)
    };
    let error = slow(Strictness::Require).run(&panel(), body).unwrap_err();
    assert!(matches!(error, LoopError::SelfTestTooSlow { .. }), "{error}");
    assert!(!started.load(Ordering::Relaxed));
    let report = slow(Strictness::Report).run(&panel(), stop_after(1)).unwrap();
    assert!(report.to_string().contains("self-test took"), "{report}");
}

/// Publishes every half millisecond until told to stop: a controller that can be killed.
struct Controller {
    alive: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<latest::LatestWriter<u64>>,
}

impl Controller {
    fn start(mut writer: latest::LatestWriter<u64>) -> Self {
        let alive = Arc::new(AtomicBool::new(true));
        let still = alive.clone();
        let published = Arc::new(AtomicU64::new(0));
        let published_so_far = published.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while still.load(Ordering::Relaxed) {
                count += 1;
                let now = clock::now();
                writer.publish(count, now);
                published_so_far.store(count, Ordering::Release);
                clock::sleep_until(now + Nanos::from_micros(500));
            }
            writer
        });
        Self { alive, published, thread }
    }

    fn kill(self) -> latest::LatestWriter<u64> {
        self.alive.store(false, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_dead_controller_means_safe_stop_and_a_new_one_with_a_rearm_motion() {
    // Generous ages: the machine that runs the tests is busy, and this is about the sequence.
    let (max_age, deadline) = (Nanos::from_millis(500), Nanos::from_secs(2));
    let (writer, reader) = latest::channel::<u64>();
    let mut input = Input::new(reader, max_age).deadline(deadline);
    let fresh = Arc::new(AtomicU64::new(0));
    let seen = fresh.clone();
    let made_safe = Arc::new(AtomicU64::new(0));
    let safe_stops = made_safe.clone();
    let running: RunningLoop = tolerant()
        .on_safe_stop(move |_| {
            safe_stops.fetch_add(1, Ordering::Release);
        })
        .spawn(&panel(), move |cx| {
            if let Reading::Fresh(..) = cx.read(&mut input) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
    let moved = |what| {
        let before = fresh.load(Ordering::Relaxed);
        wait_for(what, || fresh.load(Ordering::Relaxed) >= before + 20);
    };
    let controller = Controller::start(writer);
    moved("motion");
    assert_eq!(running.status().state, State::Running);

    let writer = controller.kill();
    wait_for("safe stop", || running.status().state == State::SafeStop);
    let status = running.status();
    assert_eq!((status.cause, status.stops), (Some(StopCause::InputLost), 1));

    let controller = Controller::start(writer);
    wait_for("fresh input", || controller.published.load(Ordering::Acquire) > 0);
    let (frozen, stood) = (fresh.load(Ordering::Relaxed), made_safe.load(Ordering::Acquire));
    wait_for("cycles in safe stop", || made_safe.load(Ordering::Acquire) >= stood + 20);
    assert_eq!(fresh.load(Ordering::Relaxed), frozen, "fresh input does not unlatch");

    running.rearm(RearmToken::authorise(status.stops));
    moved("motion after the re-arm");
    controller.kill();
    assert_eq!(running.stop().unwrap().status.stops, 1);
}
