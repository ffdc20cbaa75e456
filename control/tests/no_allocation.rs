//! No allocation on the loop's thread from the first cycle to the last: running, degraded, in safe
//! stop and through a re-arm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sinew_control::control_loop::{ControlLoop, Cycle, LoopBody};
use sinew_control::input::{Input, Reading};
use sinew_control::message::{Drive, Joint, JointSetpoint};
use sinew_control::safety::{RearmToken, State};
use sinew_rt::clock::Nanos;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::latest::{self, LatestReader, LatestWriter};
use sinew_rt::panel::{Kind, Panel, PanelSpec};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only an atomic and
// a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if COUNTED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Arm {
    input: Input<LatestReader<JointSetpoint>>,
    output: LatestWriter<JointSetpoint>,
    setpoint: JointSetpoint,
    handle: sinew_control::control_loop::LoopHandle,
    states: [u64; 6],
}

impl LoopBody for Arm {
    fn cycle(&mut self, cx: &mut Cycle) {
        COUNTED.set(true);
        self.states[cx.state() as usize] += 1;
        // Silence in the second hundred cycles: stale, then lost.
        if !(100..200).contains(&cx.tick()) {
            self.output.publish(self.setpoint, cx.now());
        }
        match cx.read(&mut self.input) {
            Reading::Fresh(setpoint, _) => assert_eq!(setpoint.check(), Ok(())),
            Reading::Stale(..) | Reading::Never => {}
        }
        if cx.tick() >= 400 {
            cx.stop();
        }
    }

    fn safe_stop(&mut self, cx: &mut Cycle) {
        self.states[cx.state() as usize] += 1;
        if cx.tick() >= 200 {
            self.output.publish(self.setpoint, cx.now());
            self.handle.rearm(RearmToken::authorise(self.handle.status().stops));
        }
        if cx.tick() >= 400 {
            COUNTED.set(false);
        }
    }
}

#[test]
fn a_loop_does_not_allocate_from_its_first_cycle_to_its_last() {
    let panel = Panel::anonymous(&PanelSpec::new("test")).unwrap();
    let control_loop = ControlLoop::new("arm").trip(LadderConfig::report_only());
    let (output, reader) = latest::channel();
    let ages = panel.recorder("arm/setpoint", Kind::Age).unwrap();
    let joint = Joint { position: 0.5, velocity: 0.0, effort: 0.0 };
    let states = Arc::new(std::sync::Mutex::new([0; 6]));
    let arm = Arm {
        input: Input::new(reader, Nanos::from_millis(5))
            .deadline(Nanos::from_millis(20))
            .record_ages(ages),
        output,
        setpoint: JointSetpoint::new(0, Drive::Position, &[joint; 3]).unwrap(),
        handle: control_loop.handle(),
        states: [0; 6],
    };

    struct Keep(Arm, Arc<std::sync::Mutex<[u64; 6]>>);
    impl LoopBody for Keep {
        fn cycle(&mut self, cx: &mut Cycle) {
            self.0.cycle(cx);
        }
        fn safe_stop(&mut self, cx: &mut Cycle) {
            self.0.safe_stop(cx);
            if !COUNTED.get() {
                *self.1.lock().unwrap() = self.0.states;
            }
        }
    }
    let running = control_loop.spawn_body(&panel, Keep(arm, states.clone())).unwrap();
    let report = running.join().unwrap();
    let states = *states.lock().unwrap();
    assert!(report.cycles >= 400 && report.status.stops >= 1, "{report}");
    for state in [State::Running, State::DegradedInput, State::SafeStop] {
        assert!(states[state as usize] > 0, "{state} was never visited: {states:?}");
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0);
    COUNTED.set(true);
    drop(std::hint::black_box(Box::new(report.cycles)));
    COUNTED.set(false);
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 2, "the counter counts");
}
