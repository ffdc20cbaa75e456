//! The views as they are drawn, key by key, from panels with made-up instants.

use std::path::PathBuf;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use sinew_control::safety::{State as Safety, StopCause};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Cause, Counter, Gauge, Kind, Panel, PanelSpec, Recorder, State};

use super::draw;
use super::state::{Key, Top, View};
use super::watch::{Seen, Sight};
use crate::panels::{Life, Look};

const START: Nanos = Nanos::from_secs(1_000);

/// A node that works by hand: each [`work`](Self::work) is a second of its life.
struct Example {
    name: &'static str,
    panel: Panel,
    verify: Guard,
    cart: Guard,
    wake_up: Recorder,
    age: Recorder,
    skipped: Counter,
    delivered: Counter,
    sent: Counter,
    forged: Counter,
    safety: Gauge,
    stop_cause: Gauge,
    seconds: i64,
    _others: Vec<Gauge>,
}

impl Example {
    fn new(name: &'static str, branded: bool) -> Self {
        let panel = Panel::anonymous(&PanelSpec::new(name)).unwrap();
        panel.set_layout("fused: receive+verify+deliver+send on core 1 (as configured)");
        panel.set_state(State::Running);
        if branded {
            panel.set_not_real_time(&["SCHED_FIFO 80 was refused"]);
        }
        let spec = |micros| GuardSpec {
            budget: Nanos::from_micros(micros),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let guard =
            |name, micros| Guard::new(panel.probe(name, Some(1)).unwrap(), spec(micros)).unwrap();
        let gauge = |name: &str, value| {
            let gauge = panel.gauge(name).unwrap();
            gauge.set(value);
            gauge
        };
        Self {
            name,
            verify: guard("verify", 250),
            cart: guard("cart", 400),
            wake_up: panel.recorder("cart", Kind::WakeUp).unwrap(),
            age: panel.recorder("arm/setpoint", Kind::Age).unwrap(),
            skipped: panel.counter("cart skipped").unwrap(),
            delivered: panel.counter("delivered/arm/setpoint").unwrap(),
            sent: panel.counter("sent/arm/state").unwrap(),
            forged: panel.counter("verify.drop.bad_signature@stranger").unwrap(),
            safety: gauge("cart safety", i64::from(Safety::Running.code())),
            stop_cause: gauge("cart stop cause", 0),
            _others: vec![
                gauge("peer.epoch@controller", 3),
                gauge("peer.heard_at_ns@controller", START.as_nanos()),
                gauge("peer.round_trip_ns@controller", 40_000),
            ],
            seconds: 0,
            panel,
        }
    }

    /// A second with 100 messages that took `micros` and longer each, and a loop beside.
    fn work(&mut self, micros: i64) {
        let begin = START + Nanos::from_secs(self.seconds);
        self.seconds += 1;
        for n in 0..100 {
            let at = begin + Nanos::from_millis(10 * n);
            let released = at - Nanos::from_micros(2);
            self.verify.enter(at);
            let took = Nanos::from_micros(micros + n / 2);
            self.verify.exit(at + took, Execution::Worked { released });
            self.cart.enter(at);
            self.cart.exit(at + took / 2, Execution::Worked { released });
            self.wake_up.record(Nanos::new(900 + 10 * n), at);
            self.age.record(Nanos::from_micros(150 + n), at);
            self.delivered.increment();
            self.sent.add(2);
        }
    }

    /// What a reader sees, at the end of the last second.
    fn seen(&self, life: Life) -> Seen {
        let mut snapshot = self.panel.snapshot().unwrap();
        snapshot.process.pid = 4_711;
        snapshot.started_at = START;
        snapshot.started_at_wall = Nanos::from_secs(1_700_000_000);
        snapshot.taken_at = START + Nanos::from_secs(self.seconds);
        snapshot.heartbeat_at = Some(snapshot.taken_at);
        for trip in &mut snapshot.trips {
            // The evidence of made-up instants says nothing.
            trip.cause = Cause::OwnOverrun;
            trip.evidence = None;
        }
        let path = PathBuf::from(format!("/dev/shm/sinew/{}.panel", self.name));
        Seen { path: path.clone(), look: Ok(Look { path, snapshot, life, interval: None }) }
    }
}

fn sight(panels: Vec<Seen>) -> Sight {
    Sight { panels, closed: Vec::new() }
}

const RUNS: Life = Life::Runs(State::Running);

/// A robot with an overrun and a forger, a controller without the right to be real-time, one that
/// was killed, and one that nobody can read; three seconds of them.
fn busy() -> Top {
    let mut top = Top::new(None, Nanos::from_secs(1), false);
    let mut robot = Example::new("robot", false);
    let mut controller = Example::new("controller", true);
    let mut killed = Example::new("killed", false);
    killed.work(30);
    killed.safety.set(i64::from(Safety::SafeStop.code()));
    killed.stop_cause.set(i64::from(StopCause::InputLost.code()));
    robot.forged.add(4);
    for micros in [40, 100, 210] {
        robot.work(micros);
        controller.work(micros / 3);
        let foreign = Seen {
            path: PathBuf::from("/dev/shm/sinew/future.panel"),
            look: Err("/dev/shm/sinew/future.panel: the panel has layout version 9".to_owned()),
        };
        let panels =
            vec![controller.seen(RUNS), foreign, killed.seen(Life::Killed), robot.seen(RUNS)];
        top.see(sight(panels));
        robot.forged.increment();
        robot.skipped.add(2);
    }
    top
}

fn screen(top: &Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(top, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().to_string()
}

fn press(top: &mut Top, keys: &[Key]) {
    for key in keys {
        assert!(top.press(*key));
    }
}

/// The key of the selected row.
fn selected(top: &Top) -> String {
    let page = top.page();
    page.rows().nth(top.selected_row(&page).unwrap()).unwrap().key.clone()
}

#[test]
fn every_view_fits_an_ordinary_terminal() {
    let mut top = busy();
    for view in View::ALL {
        press(&mut top, &[Key::View(view)]);
        insta::assert_snapshot!(view.name(), screen(&top, 80, 24));
    }
}

#[test]
fn a_wide_terminal_shows_every_column() {
    let mut top = busy();
    press(&mut top, &[Key::View(View::Stages)]);
    insta::assert_snapshot!("stages_wide", screen(&top, 150, 16));
    press(&mut top, &[Key::View(View::Nodes)]);
    insta::assert_snapshot!("nodes_wide", screen(&top, 150, 12));
}

#[test]
fn everything_of_one_node_is_a_page_and_so_is_the_help() {
    let mut top = busy();
    press(&mut top, &[Key::End, Key::Enter]);
    insta::assert_snapshot!("detail", screen(&top, 80, 40));
    press(&mut top, &[Key::Back, Key::Up, Key::Enter]);
    let killed = screen(&top, 80, 12);
    assert!(killed.contains("killed: dead (killed), was process 4711"), "{killed}");
    assert!(killed.contains("cart is in safe stop: an input is older than its"), "{killed}");
    press(&mut top, &[Key::Help]);
    insta::assert_snapshot!("help", screen(&top, 80, 24));
}

#[test]
fn the_printed_text_has_everything() {
    insta::assert_snapshot!("once", super::text(&busy(), false));
}

#[test]
fn an_empty_machine_says_what_makes_a_panel() {
    let mut top = Top::new(None, Nanos::from_secs(1), false);
    top.see(sight(Vec::new()));
    assert!(screen(&top, 80, 24).contains("There are no panels. A running node makes one"));
    let mut top = Top::new(Some("robot".to_owned()), Nanos::from_secs(1), false);
    top.see(sight(Vec::new()));
    assert!(screen(&top, 80, 24).contains("There is no panel of `robot` yet; waiting for it."));
}

#[test]
fn t_toggles_between_the_last_interval_and_everything() {
    let mut top = busy();
    press(&mut top, &[Key::View(View::Stages)]);
    let count = |top: &Top| {
        let (_, _, robot) = top.readable().find(|(node, ..)| node.name == "robot").unwrap();
        (robot.stages[0].execution.count, robot.stages[0].execution.p50_ns.unwrap())
    };
    let (interval, p50) = count(&top);
    assert_eq!(interval, 100, "the last second of three");
    assert!(p50 > 230_000, "{p50}");
    press(&mut top, &[Key::Total]);
    let (total, p50) = count(&top);
    assert_eq!(total, 300);
    assert!(p50 < 150_000, "{p50}");
    assert!(screen(&top, 80, 24).contains("since the start"));
}

#[test]
fn a_dead_node_shows_its_last_figures() {
    let top = busy();
    let (_, shown, figures) = top.readable().find(|(node, ..)| node.name == "killed").unwrap();
    assert!(shown.interval.is_none() && !figures.alive);
    assert_eq!(figures.stages[0].execution.count, 100);
    assert_eq!(figures.loops[0].safety.as_deref(), Some("safe stop"));
}

#[test]
fn nodes_come_and_go_and_a_successor_starts_a_history_of_its_own() {
    let mut top = Top::new(None, Nanos::from_secs(1), false);
    let mut robot = Example::new("robot", false);
    robot.work(10);
    top.see(sight(vec![]));
    top.see(sight(vec![robot.seen(RUNS)]));
    assert_eq!(top.notes[0], "robot came: running");
    robot.work(10);
    top.see(sight(vec![robot.seen(RUNS)]));
    let history = |top: &Top| {
        let (_, shown, _) = top.readable().next().unwrap();
        (shown.interval.is_some(), shown.history("stage verify").len())
    };
    assert_eq!(history(&top), (true, 1));
    let mut next = robot.seen(RUNS);
    if let Ok(look) = &mut next.look {
        look.snapshot.process.pid = 4_712;
    }
    top.see(sight(vec![next]));
    assert_eq!(history(&top), (false, 0), "counts of another process are no interval");
    top.see(sight(vec![robot.seen(Life::Killed)]));
    assert!(top.notes[0].starts_with("robot: killed or crashed"), "{:?}", top.notes);
    press(&mut top, &[Key::Enter]);
    top.see(sight(vec![]));
    assert_eq!(top.notes[0], "robot ended, its panel is gone");
    assert!(screen(&top, 80, 24).contains("robot.panel is gone"));
}

#[test]
fn the_selection_stays_with_its_row_when_the_order_changes() {
    let mut top = busy();
    press(&mut top, &[Key::View(View::Stages), Key::End, Key::Up]);
    let key = selected(&top);
    assert_eq!(key, "/dev/shm/sinew/robot.panel stage verify");
    press(&mut top, &[Key::Sort]);
    assert_eq!(selected(&top), key);
    let page = top.page();
    let first = &page.rows().next().unwrap().key;
    assert_eq!((first, top.selected_row(&page)), (&key, Some(0)), "the worst stands above");
    press(&mut top, &[Key::Sort, Key::Sort, Key::Down, Key::Down, Key::Down]);
    assert_eq!(selected(&top), "/dev/shm/sinew/robot.panel stage cart", "the last row");
}

#[test]
fn the_page_scrolls_with_the_selection_and_where_there_is_none() {
    let mut top = busy();
    press(&mut top, &[Key::View(View::Stages), Key::End]);
    let small = screen(&top, 80, 8);
    assert!(small.contains("robot") && !small.contains("controller "), "{small}");
    press(&mut top, &[Key::View(View::Nodes), Key::End, Key::Enter]);
    top.height = 4;
    press(&mut top, &[Key::End]);
    let end = top.scroll;
    assert!(end > 10);
    press(&mut top, &[Key::Down, Key::PageDown]);
    assert_eq!(top.scroll, end, "not beyond the end");
    press(&mut top, &[Key::PageUp]);
    assert_eq!(top.scroll, end - 4);
}

#[test]
fn the_interval_has_bounds_and_only_q_ends() {
    let mut top = busy();
    for _ in 0..40 {
        press(&mut top, &[Key::Faster]);
    }
    assert_eq!(top.period, Top::PERIOD_MIN);
    for _ in 0..40 {
        press(&mut top, &[Key::Slower]);
    }
    assert_eq!(top.period, Top::PERIOD_MAX);
    press(&mut top, &[Key::Back, Key::Help, Key::Back, Key::Pause]);
    assert!(screen(&top, 80, 24).contains("PAUSED"));
    assert!(!top.press(Key::Quit));
}

#[test]
fn json_is_read_back_with_units_in_its_names() {
    let top = busy();
    let json = serde_json::to_value(super::Report::of(&top)).unwrap();
    assert_eq!((&json["version"], &json["report"]), (&1.into(), &"top".into()));
    let robot = &json["nodes"][2];
    assert_eq!((&robot["name"], &robot["state"]), (&"robot".into(), &"running".into()));
    assert_eq!(robot["interval_ns"], 1_000_000_000);
    let verify = &robot["stages"][0];
    assert_eq!((&verify["count"], &verify["budget_ns"]), (&100.into(), &250_000.into()));
    assert_eq!(verify["rate_hz"], 100.0);
    assert!(verify["p99_ns"].as_i64().unwrap() > 250_000);
    let cart = &robot["loops"][0];
    assert_eq!((&cart["skipped"], &cart["skipped_total"]), (&2.into(), &4.into()));
    assert_eq!(cart["safety"], "running");
    let topics = robot["topics"].as_array().unwrap();
    assert_eq!((&topics[0]["direction"], &topics[0]["rate_hz"]), (&"in".into(), &100.0.into()));
    assert_eq!((&topics[1]["name"], &topics[1]["rate_hz"]), (&"arm/state".into(), &200.0.into()));
    assert_eq!(robot["drops"][0]["reason"], "bad_signature");
    assert_eq!(
        (&robot["drops"][0]["count"], &robot["drops"][0]["count_total"]),
        (&1.into(), &6.into())
    );
    assert_eq!(json["nodes"][1]["interval_ns"], serde_json::Value::Null, "dead");
    assert!(json["unreadable"][0].as_str().unwrap().contains("layout version 9"));
}

fn key() -> impl Strategy<Value = Key> {
    use Key::{
        Back, Down, End, Enter, Help, Home, LastView, NextView, PageDown, PageUp, Pause, Sort,
        Total, Up,
    };
    proptest::sample::select(vec![
        Back, Down, End, Enter, Help, Home, LastView, NextView, PageDown, PageUp, Pause, Sort,
        Total, Up, Down, NextView,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_keys_make_a_frame_panic_or_write_outside_of_it(
        width in 0_u16..=200,
        height in 0_u16..=200,
        keys in proptest::collection::vec(key(), 0..12),
        total: bool,
    ) {
        let mut top = busy();
        top.total = total;
        for key in keys {
            prop_assert!(top.press(key));
            top.height = draw::body_height(&top, height);
        }
        // Larger than the frame by a margin, which must stay as it is.
        let mut buffer = Buffer::empty(Rect::new(0, 0, width + 2, height + 2));
        let area = Rect::new(1, 1, width, height);
        draw::draw(&top, area, &mut buffer);
        for position in buffer.area.positions() {
            if !area.contains(position) {
                prop_assert_eq!(buffer[position].symbol(), " ");
            }
        }
        if height > 0 && width > 8 {
            prop_assert_eq!(buffer[(1, 1)].symbol(), "s");
        }
    }
}

#[test]
fn the_smallest_sizes_do_not_panic() {
    let top = busy();
    for (width, height) in (0..12).flat_map(|w| (0..12).map(move |h| (w, h))) {
        let area = Rect::new(0, 0, width, height);
        draw::draw(&top, area, &mut Buffer::empty(area));
    }
}
