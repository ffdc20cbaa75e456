//! What a guard adds to a stage execution: `cargo bench -p sinew-rt --bench guard`.
//!
//! Every variant runs the same small piece of work. Variants take turns in short batches, so that
//! drift and noise of the machine meet all of them alike; the result is the median over all rounds,
//! and the difference to the unguarded work. `empty again` is the A/A control: what it shows is the
//! resolution of the measurement.

use std::hint::black_box;
use std::sync::Arc;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Kind, Panel, PanelSpec};

const ROUNDS: usize = 401;
const BATCH: u32 = 2_000;

type Variant<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() {
    let panel = Panel::anonymous(&PanelSpec::new("bench")).expect("memory for a panel");
    let spec = GuardSpec {
        budget: Nanos::from_secs(1),
        hard_limit: Nanos::from_secs(2),
        ladder: LadderConfig::standard(),
    };
    let guard =
        |name: &str| Guard::new(panel.probe(name, None).expect("room"), spec).expect("valid");
    let (mut given, mut boundary, mut idle, mut run) =
        (guard("given"), guard("boundary"), guard("idle"), guard("run"));
    // As a node runs it: the guard also follows a shared health word.
    boundary = boundary.with_health(Arc::new(Health::new()));
    let tight = GuardSpec { budget: Nanos::new(1), ladder: LadderConfig::report_only(), ..spec };
    let mut missed = Guard::new(panel.probe("missed", None).expect("room"), tight).expect("valid");
    let recorder = panel.recorder("recorder", Kind::Span).expect("room");
    let mut now = Nanos::from_secs(1);
    let mut last = clock::now();
    let mut last_idle = clock::now();
    let mut last_missed = clock::now();

    let mut variants: Vec<Variant> = vec![
        ("empty", Box::new(work)),
        ("empty again (A/A control)", Box::new(work)),
        (
            "one clock read",
            Box::new(|| {
                work();
                black_box(clock::now());
            }),
        ),
        (
            "recorder alone, instants given",
            Box::new(|| {
                work();
                recorder.record(Nanos::new(black_box(1_234)), black_box(Nanos::from_secs(1)));
            }),
        ),
        (
            "guard, instants given",
            Box::new(|| {
                given.enter(now);
                work();
                let released = now;
                now += Nanos::new(black_box(1_234));
                black_box(given.exit(now, Execution::Worked { released }));
            }),
        ),
        (
            "guard, one clock read per boundary",
            Box::new(|| {
                boundary.enter(last);
                work();
                let end = clock::now();
                black_box(boundary.exit(end, Execution::Worked { released: last }));
                last = end;
            }),
        ),
        (
            "guard, one clock read, idle",
            Box::new(|| {
                idle.enter(last_idle);
                work();
                last_idle = clock::now();
                black_box(idle.exit(last_idle, Execution::Idle));
            }),
        ),
        (
            "guard, every budget missed",
            Box::new(|| {
                missed.enter(last_missed);
                work();
                let end = clock::now();
                black_box(missed.exit(end, Execution::Worked { released: last_missed }));
                last_missed = end;
            }),
        ),
        (
            "guard.run, two clock reads",
            Box::new(|| {
                black_box(run.run(work));
            }),
        ),
    ];

    let mut samples = vec![Vec::with_capacity(ROUNDS); variants.len()];
    for _ in 0..ROUNDS {
        for ((_, execute), samples) in variants.iter_mut().zip(&mut samples) {
            let start = clock::now();
            for _ in 0..BATCH {
                execute();
            }
            let took = clock::now() - start;
            samples.push(took.as_nanos() as f64 / f64::from(BATCH));
        }
    }
    let median = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let medians: Vec<f64> = samples.iter_mut().map(median).collect();
    println!("{:<38} {:>12} {:>12}", "variant", "median ns", "added ns");
    for ((name, _), ns) in variants.iter().zip(&medians) {
        println!("{name:<38} {ns:>12.1} {:>12.1}", ns - medians[0]);
    }
}

/// Something for a stage to do that the compiler cannot remove.
#[inline]
fn work() {
    black_box(black_box(3_u64).wrapping_mul(7));
}
