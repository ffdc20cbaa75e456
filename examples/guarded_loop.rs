//! The primitives alone, without messages: a pinned 1 kHz thread whose work is guarded by a budget.
//!
//! ```sh
//! cargo run --release --example guarded_loop          # 5 s, then a report
//! cargo run --release --bin sinew -- hist guarded     # meanwhile, in another terminal
//! ```

use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, Guard, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::panel::{Panel, PanelSpec, State};
use sinew::rt::thread::{Priority, Strictness, ThreadSpec, spawn};
use sinew::rt::topology::Topology;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let period = Nanos::from_millis(1);
    let core = Topology::read()?.real_time_cores()[0];
    let panel = Panel::create(&PanelSpec::new("guarded"))?;
    let spec = GuardSpec {
        budget: Nanos::from_micros(50),
        hard_limit: Nanos::from_millis(5),
        ladder: LadderConfig::standard(),
    };
    let mut guard = Guard::new(panel.probe("work", Some(core.get()))?, spec)?;

    let thread = ThreadSpec::new("guarded")
        .core(core)
        .fifo(Priority::new(80)?)
        .strictness(Strictness::Report);
    let thread = spawn(thread, move || {
        let mut release = clock::now() + period;
        let mut missed = 0;
        for _ in 0..5_000 {
            clock::sleep_until(release);
            guard.enter(clock::now());
            std::hint::black_box((0..1_000_u64).sum::<u64>()); // your work
            guard.exit(clock::now(), Execution::Worked { released: release });
            release += period;
            // A period that was missed is skipped: catching up in a burst would surprise a robot.
            while release <= clock::now() {
                release += period;
                missed += 1;
            }
        }
        missed
    })?;
    panel.set_state(State::Running);
    // A run that the kernel did not grant is not a real-time run, and says so.
    if let Some(reason) = thread.applied().not_real_time() {
        panel.set_not_real_time(&[&reason]);
        eprintln!("NOT REAL-TIME: {reason}");
    }
    println!("{} periods missed", thread.join()?);

    let snapshot = panel.snapshot()?;
    let work = snapshot.probe("work").ok_or("the probe is registered")?;
    println!("{work:#?}");
    Ok(())
}
