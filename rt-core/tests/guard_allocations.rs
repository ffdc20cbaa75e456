//! What a lane calls on its instruments allocates nothing, overruns included.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{self, Execution, Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::log::{self, RateLimit, Severity, Template};
use sinew_rt::panel::{Kind, Panel, PanelSpec};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system allocator unchanged; counting touches a thread-local of
// plain data, which neither allocates nor is ever destroyed.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TEMPLATE: Template = Template::new(Severity::Warn, "took {} ns");

#[test]
fn a_million_guarded_executions_allocate_nothing() {
    let panel = Panel::anonymous(&PanelSpec::new("test")).expect("memory");
    let spec = GuardSpec {
        budget: Nanos::from_micros(50),
        hard_limit: Nanos::from_millis(1),
        ladder: LadderConfig::standard(),
    };
    let health = Arc::new(Health::new());
    let mut guard = Guard::new(panel.probe("stage", None).expect("room"), spec)
        .expect("valid")
        .with_health(Arc::clone(&health));
    let counter = panel.counter("frames").expect("room");
    let gauge = panel.gauge("depth").expect("room");
    let recorder = panel.recorder("age", Kind::Age).expect("room");
    let (mut sender, reader) = log::channel("lane", 64, RateLimit::default());

    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 2, "the counter counts");

    let before = ALLOCATIONS.get();
    for i in 0..1_000_000 {
        let start = Nanos::from_micros(i * 100);
        guard.enter(start);
        counter.increment();
        gauge.set(i);
        recorder.record(Nanos::new(i * 1_000), start);
        // Every 1,000th execution overruns; the log ring is full most of the time.
        let took = Nanos::from_micros(if i % 1_000 == 0 { 60 } else { 20 });
        guard.exit(start + took, Execution::Worked { released: start });
        sender.send(start, &TEMPLATE, [i, 0, 0, 0]);
        if i % 10_000 == 0 {
            guard::before_park(clock::now());
            guard::after_park(clock::now());
            guard::keep_baseline_fresh(clock::now(), Nanos::ZERO);
            health.rearm(health.seen());
            guard.rearm();
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);

    let shown = panel.snapshot().expect("whole");
    assert_eq!((shown.probes[0].executions, shown.probes[0].overruns), (1_000_000, 1_000));
    drop(reader);
}
