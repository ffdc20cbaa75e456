//! A peer that falls silent a hundred times, and how often the loop's trip says so.
//!
//! ```sh
//! cargo test -p sinew-control --test causes -- --nocapture
//! ```

use std::io::Write as _;

use sinew_control::control_loop::ControlLoop;
use sinew_control::input::Input;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::latest::{self, LatestWriter};
use sinew_rt::panel::{Cause, Kind, Panel, PanelSnapshot, PanelSpec, TripSnapshot};
use sinew_rt::thread::{self, Priority, Strictness, ThreadSpec};
use sinew_rt::topology::{CoreId, Topology};

const SILENCES: u32 = 100;
const MAX_AGE: Nanos = Nanos::from_millis(5);
const SILENCE: Nanos = Nanos::from_millis(12);
const TALK: Nanos = Nanos::from_millis(10);
const PERIOD: Nanos = Nanos::from_millis(1);
/// A loop with fewer cycles in a silence was kept from its core, and could not see that its peer was
/// silent.
const CYCLES_MIN: u64 = 9;
/// With more of these the machine is too busy for a statement.
const DISTURBED_MAX: u32 = 20;

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Publishes every millisecond until `until`, and says when it last did.
fn talk(writer: &mut LatestWriter<u64>, until: Nanos) -> Nanos {
    let mut now = clock::now();
    while now < until {
        writer.publish(0, now);
        clock::sleep_until(now + PERIOD);
        now = clock::now();
    }
    writer.publish(0, now);
    now
}

/// A silence of the peer, and what the panel says of it.
struct Silence {
    began: Nanos,
    /// Of the loop.
    cycles: u64,
    trips: Vec<TripSnapshot>,
}

fn cycles(shown: &PanelSnapshot) -> u64 {
    shown.histogram("arm", Kind::WakeUp).map_or(0, |wake_up| wake_up.count)
}

/// The trips in which a peer that talks and falls silent in turns finds an input starved.
fn silences(panel: &Panel, mut writer: LatestWriter<u64>) -> Vec<Silence> {
    let mut known = 0;
    let mut silences = Vec::new();
    for _ in 0..SILENCES {
        let began = talk(&mut writer, clock::now() + TALK);
        let before = cycles(&panel.snapshot().unwrap());
        clock::sleep_until(began + SILENCE);
        let shown = panel.snapshot().unwrap();
        let cycles = cycles(&shown) - before;
        let trips: Vec<_> = shown.trips.into_iter().filter(|trip| trip.number > known).collect();
        known = trips.iter().map(|trip| trip.number).max().unwrap_or(known);
        silences.push(Silence { began, cycles, trips });
    }
    silences
}

#[test]
fn a_silent_peer_is_named() {
    let core: CoreId = *Topology::read().unwrap().real_time_cores().last().unwrap();
    let panel = Panel::anonymous(&PanelSpec { trips_per_probe: 64, ..PanelSpec::new("silent") });
    let panel = panel.unwrap();
    let (writer, reader) = latest::channel::<u64>();
    let mut input = Input::new(reader, MAX_AGE);
    let running = ControlLoop::new("arm")
        .core(core)
        .priority(Priority::new(90).unwrap())
        .strictness(Strictness::Require)
        .trip(LadderConfig::report_only())
        .on_safe_stop(|_| {})
        .spawn(&panel, move |cx| {
            let _reading = cx.read(&mut input);
        });
    let running = match running {
        Ok(running) => running,
        Err(why) => return say(&format!("\nSKIPPED: a silent peer: {why}")),
    };
    // Above the normal threads, so that the peer is silent when it shall be, and otherwise not.
    let spec = ThreadSpec::new("peer").fifo(Priority::new(40).unwrap());
    let shown = panel.clone();
    let peer = thread::spawn(spec, move || silences(&shown, writer)).unwrap();
    let silences = peer.join().unwrap();
    running.stop().unwrap();

    let (mut right, mut unknown, mut missed, mut disturbed) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    let mut others = 0;
    let mut example = None;
    for Silence { began, cycles, trips } in silences {
        // The trip of this silence is the one that ends in it; before it the peer talked.
        let (within, before): (Vec<_>, Vec<_>) = trips.into_iter().partition(|t| t.at > began);
        // While the peer talks, the machine may still keep it or the loop from doing so.
        others += before.len();
        match within.as_slice() {
            trips if trips.iter().any(|trip| trip.cause == Cause::StarvedInput) => {
                right += 1;
                example = trips.iter().find(|trip| trip.cause == Cause::StarvedInput).cloned();
            }
            _ if cycles < CYCLES_MIN => disturbed += 1,
            [] => missed += 1,
            [trip, ..] if trip.cause == Cause::Unknown => unknown += 1,
            [trip, ..] => wrong.push(trip.clone()),
        }
    }
    say(&format!(
        "\n{:<24} {:<14} {:>5} {:>8} {:>6} {:>9} {:>10}",
        "provoked", "cause", "right", "unknown", "wrong", "not seen", "disturbed"
    ));
    say(&format!(
        "{:<24} {:<14} {right:>5} {unknown:>8} {:>6} {missed:>9} {disturbed:>10}",
        "a silent peer",
        Cause::StarvedInput.to_string(),
        wrong.len()
    ));
    if let Some(TripSnapshot { duration, budget, .. }) = example {
        say(&format!("a silent peer: an input is {duration} old and may be {budget}"));
    }
    say(&format!("{others} further trips while the peer talked"));
    if disturbed > DISTURBED_MAX {
        return say(&format!("SKIPPED: a silent peer: disturbed {disturbed} times"));
    }
    let calm = SILENCES - disturbed;
    assert!(wrong.len() <= 2, "{wrong:?}");
    assert!(right * 100 >= calm * 95, "{right} right, {unknown} unknown, {missed} not seen");
}
