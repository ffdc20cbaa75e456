//! Real nodes in the simulator: no promise is broken, one seed is one run, and what is broken on purpose is
//! found.

use sinew_rt::clock::Nanos;
use sinew_sim::campaign::{self, Campaign, run_one};
use sinew_sim::host::Host;
use sinew_sim::host::real::Real;
use sinew_sim::memory::CountingAllocator;
use sinew_sim::past;
use sinew_sim::plan::{Cut, Settings};
use std::sync::atomic::AtomicBool;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn run(campaign: &Campaign) -> campaign::Summary {
    campaign::run::<Real>(campaign, &AtomicBool::new(false), &|_| {}).unwrap()
}

/// Short runs, so that a debug build does many.
fn short(first: u64, seeds: u64) -> Campaign {
    let settings = Settings { length: Nanos::from_secs(20), ..Settings::default() };
    Campaign { first, seeds, settings, jobs: 2, ..Campaign::default() }
}

fn trace(seed: u64) -> u64 {
    Real::prepare(None).unwrap();
    run_one::<Real>(&short(seed, 1), &Cut::default(), seed, false).trace
}

#[test]
fn no_promise_is_broken() {
    let summary = run(&short(1, 20));
    assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for case in past::parse(past::FILE).unwrap() {
        let summary = run(&case);
        assert!(summary.failures.is_empty(), "{:#?}", summary.failures);
    }
}

#[test]
fn one_seed_is_one_run() {
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
    let other_thread = std::thread::spawn(|| trace(5)).join().unwrap();
    assert_eq!(trace(5), other_thread);
}
