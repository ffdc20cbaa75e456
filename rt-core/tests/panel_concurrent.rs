//! Writers and readers at the same time, on real threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sinew_rt::clock::Nanos;
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Panel, PanelError, PanelReader, PanelSpec, State};

#[test]
fn records_and_counts_read_while_they_are_written_are_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let panel = Panel::create(&PanelSpec::new("busy").in_dir(dir.path())).expect("created");
    let spec = GuardSpec {
        budget: Nanos::new(1),
        hard_limit: Nanos::from_secs(1),
        ladder: LadderConfig::report_only(),
    };
    let probe = panel.probe("stage", None).expect("room");
    let mut guard = Guard::new(probe, spec).expect("valid");
    let reader = PanelReader::open(panel.path().expect("a file")).expect("a panel");
    let done = AtomicBool::new(false);
    let rounds = 30_000;

    thread::scope(|scope| {
        scope.spawn(|| {
            // All fields of record n are functions of n.
            for n in 1..=rounds {
                let start = Nanos::from_micros(n);
                guard.enter(start);
                let released = start - Nanos::new(7 * n);
                guard.exit(start + Nanos::new(3 * n), Execution::Worked { released });
                if n % 100 == 0 {
                    panel.set_layout(&"ab".repeat((n % 90) as usize));
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        loop {
            let finished = done.load(Ordering::Acquire);
            let shown = reader.snapshot().expect("whole");
            for trip in &shown.trips {
                let n = i64::try_from(trip.number).expect("small");
                assert_eq!(trip.duration, Nanos::new(3 * n), "record {n}");
                assert_eq!(trip.release_latency, Nanos::new(7 * n), "record {n}");
                assert_eq!(trip.at, Nanos::from_micros(n) + Nanos::new(3 * n), "record {n}");
            }
            let layout = &shown.layout;
            assert_eq!(*layout, "ab".repeat(layout.len() / 2), "texts change as a whole");
            let histogram = &shown.histograms[0];
            assert!(histogram.count >= last, "counts only grow");
            last = histogram.count;
            if last > 0 {
                assert_eq!(histogram.min, Nanos::new(3));
                let highest = histogram.hdr.max().cast_signed();
                let lowest = histogram.hdr.lowest_equivalent(histogram.hdr.max()).cast_signed();
                let max = histogram.max.as_nanos();
                // Exact when nobody writes; while somebody does, never beside the distribution.
                assert!(max >= lowest, "{max} below the greatest count of {lowest}..={highest}");
            }
            if finished {
                assert_eq!(last, rounds.cast_unsigned());
                assert_eq!((shown.probes[0].overruns, shown.torn), (last, 0));
                break;
            }
        }
    });
    panel.set_state(State::Stopped);
}

#[test]
fn of_those_that_start_at_once_one_gets_the_name() {
    const CONTENDERS: usize = 8;
    for _ in 0..20 {
        let dir = tempfile::tempdir().expect("a directory");
        // Something dead to be moved aside, which is where a race would hurt.
        std::fs::write(dir.path().join("robot.panel"), "left behind").expect("written");
        let (all_ready, all_tried) = (Barrier::new(CONTENDERS), Barrier::new(CONTENDERS));
        let winners: usize = thread::scope(|scope| {
            let contenders: Vec<_> = (0..CONTENDERS)
                .map(|_| {
                    scope.spawn(|| {
                        let spec = PanelSpec::new("robot").in_dir(dir.path());
                        all_ready.wait();
                        let created = Panel::create(&spec);
                        all_tried.wait();
                        match created {
                            Ok(_) => 1,
                            Err(PanelError::InUse { .. }) => 0,
                            Err(error) => panic!("{error}"),
                        }
                    })
                })
                .collect();
            contenders.into_iter().map(|c| c.join().expect("no panic")).sum()
        });
        assert_eq!(winners, 1);
        let kept = std::fs::read(dir.path().join("robot.crashed.panel")).expect("kept");
        assert_eq!(kept, b"left behind");
    }
}
