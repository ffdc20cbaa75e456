//! Lanes as real threads that share a core.

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::{Gate, Lane, Stage};
use sinew_rt::panel::{Panel, PanelSpec};
use sinew_rt::thread::{Priority, Strictness, ThreadSpec};
use sinew_rt::topology::Topology;
use sinew_rt::wait::Wait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long the lanes run: below what the kernel lets a real-time thread have at a time.
const BURST: Nanos = Nanos::from_millis(300);

/// Has work at every poll, and counts them.
struct AlwaysBusy(Arc<AtomicU64>);

impl Stage for AlwaysBusy {
    fn poll(&mut self, now: Nanos) -> Execution {
        self.0.fetch_add(1, Ordering::Relaxed);
        Execution::Worked { released: now }
    }
}

#[test]
fn lanes_of_one_priority_on_one_core_take_turns() {
    let core = *Topology::read().unwrap().real_time_cores().last().unwrap();
    let panel = Panel::anonymous(&PanelSpec::new("turns")).unwrap();
    let gate = Gate::new();
    let second = Nanos::from_secs(1);
    let guard =
        GuardSpec { budget: second, hard_limit: second, ladder: LadderConfig::report_only() };
    let mut polls = Vec::new();
    let lanes: Vec<_> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let spec = ThreadSpec::new(name).core(core).fifo(Priority::MIN);
            let mut lane = Lane::new(spec.strictness(Strictness::Report), Wait::Park);
            let count = Arc::new(AtomicU64::new(0));
            polls.push(count.clone());
            let probe = panel.probe(name, None).unwrap();
            lane.push(Box::new(AlwaysBusy(count)), Guard::new(probe, guard).unwrap());
            lane.spawn(&gate, &Arc::default()).unwrap()
        })
        .collect();
    if let Some(why) = lanes[0].applied().not_real_time() {
        // A fair scheduler would share the core without the lanes' help.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: lanes that take turns: {why}");
    }
    let limit = clock::now() + BURST;
    gate.open();
    // Both are told at once to end by the limit, and neither runs out of work before.
    gate.stop(limit);
    lanes.into_iter().for_each(|lane| lane.join().unwrap());
    let counts: Vec<_> = polls.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let (fewer, more) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
    assert!(fewer > more / 2, "one lane kept the core from the other: {counts:?} polls");
}
