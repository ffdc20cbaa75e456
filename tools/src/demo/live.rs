//! What is shown while the demo runs, on standard error: a table that is redrawn on a terminal, a
//! line each second elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sinew_control::safety::State;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::PanelSnapshot;

use super::look::{Look, LoopSafety};
use super::picture;
use super::plant::Body;
use super::table;

/// How often a table is drawn, and a line written.
const REDRAW: Nanos = Nanos::from_millis(100);
const LINE: Nanos = Nanos::from_secs(1);

/// Columns of the table.
const WIDTH: usize = 79;

/// Events kept on the table.
const NOTES: usize = 3;

/// Where the run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) elapsed: Nanos,
    pub(crate) length: Nanos,
    pub(crate) phase: &'static str,
}

/// The view of a run.
pub(crate) struct Live {
    /// The table; `None` where there is no terminal.
    table: Option<ProgressBar>,
    brand: Option<String>,
    notes: Vec<String>,
    drawn_at: Option<Nanos>,
}

impl Live {
    /// `brand` says why this run is not a real-time one, if it is not.
    pub(crate) fn new(brand: Option<String>) -> Self {
        let table = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The only template that could fail is one that does not parse.
            bar.with_style(
                ProgressStyle::with_template("{msg}").unwrap_or(ProgressStyle::default_bar()),
            )
        });
        Self { table, brand, notes: Vec::new(), drawn_at: None }
    }

    /// Shows the state of affairs, if it is time to.
    pub(crate) fn show(&mut self, look: &Look, scene: &Scene) {
        let every = if self.table.is_some() { REDRAW } else { LINE };
        if self.drawn_at.is_some_and(|at| look.at() - at < every) {
            return;
        }
        self.drawn_at = Some(look.at());
        match &self.table {
            Some(table) => table.set_message(self.text(look, scene)),
            None => eprintln!("{}", line(look, scene)),
        }
    }

    /// Something happened.
    pub(crate) fn note(&mut self, at: Nanos, text: String) {
        let text = format!("{:5.1} s  {text}", at.as_secs_f64());
        if self.table.is_none() {
            eprintln!("{text}");
        }
        self.notes.push(text);
    }

    /// Removes the table.
    pub(crate) fn clear(&mut self) {
        if let Some(table) = &self.table {
            table.finish_and_clear();
        }
    }

    /// 23 lines of at most 79 columns, so that they fit 24 times 80.
    fn text(&self, look: &Look, scene: &Scene) -> String {
        let mut lines = vec![title(scene, self.brand.as_deref())];
        lines.push(table::HEADING.to_owned());
        lines.extend(process("robot", Some(&look.robot)));
        lines.extend(process("controller", look.controller.as_ref()));
        let body = Body::default();
        let drawing = picture::picture(look.cart(), look.angle(), body.rail_m, body.pole_m);
        let skip = self.notes.len().saturating_sub(NOTES);
        let mut beside = vec![machine(look), safety(look)];
        beside.extend(self.notes[skip..].iter().cloned());
        beside.resize(drawing.len(), String::new());
        for (drawing, text) in drawing.iter().zip(beside) {
            lines.push(format!("{drawing} {text}"));
        }
        lines.iter().map(|line| cut(line)).collect::<Vec<_>>().join("\n")
    }
}

fn title(scene: &Scene, brand: Option<&str>) -> String {
    let Scene { elapsed, length, phase } = scene;
    let time = format!("{:.1} s of {:.0} s", elapsed.as_secs_f64(), length.as_secs_f64());
    let title = format!("sinew demo   {time}   {phase}");
    match brand {
        Some(reason) => format!("{title}   NOT REAL-TIME: {reason}"),
        None => title,
    }
}

/// What fits a line of an ordinary terminal.
fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH - 1) {
        Some((end, last)) if end + last.len_utf8() < line.len() => format!("{}…", &line[..end]),
        _ => line.to_owned(),
    }
}

/// Always the same number of lines, so that the table stands still.
fn process(name: &str, panel: Option<&PanelSnapshot>) -> Vec<String> {
    const ROWS: usize = 7;
    let mut lines = match panel {
        None => vec![format!("{name}   not running")],
        Some(panel) => {
            // Without the reason for the layout, which the report gives.
            let layout = panel.layout.split(" (").next().unwrap_or_default();
            let layout = match layout.split_once(": ") {
                Some((layout, stages)) if stages.len() > 48 => layout,
                _ => layout,
            };
            let title = format!("{name}   pid {}, {}, {layout}", panel.process.pid, panel.state);
            let mut lines = vec![title];
            lines.extend(table::measured(panel).iter().map(|row| table::Row::from(row).line()));
            lines
        }
    };
    lines.resize(1 + ROWS, String::new());
    lines
}

fn machine(look: &Look) -> String {
    let torque = look.torque() * 1e3;
    format!(
        "pole {:+6.1}°   cart {:+5.2} m   torque {torque:+4.0} mN·m",
        look.angle().to_degrees(),
        look.cart()
    )
}

fn safety(look: &Look) -> String {
    let LoopSafety { state, cause, .. } = look.robot_safety();
    let controller = look.controller_safety();
    let (epoch, _) = look.controller_epoch();
    match (state, cause, controller) {
        (State::SafeStop, Some(cause), _) => format!("SAFE STOP: {cause}"),
        (_, _, Some(LoopSafety { state: State::SafeStop, cause: Some(cause), .. })) => {
            format!("robot {state}; controller in SAFE STOP: {cause}")
        }
        _ => format!("robot {state}; controller in epoch {epoch}"),
    }
}

/// The state of affairs in one line.
fn line(look: &Look, scene: &Scene) -> String {
    let age = look.setpoint_sent_at().map_or_else(
        || "none".to_owned(),
        |sent_at| table::short((look.at() - sent_at).max(Nanos::ZERO)),
    );
    format!(
        "{:5.1} s  {}; robot {}; pole {:+.1}°, cart {:+.2} m; setpoint age {age}",
        scene.elapsed.as_secs_f64(),
        scene.phase,
        look.safety(),
        look.angle().to_degrees(),
        look.cart(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_a_character_and_only_when_it_is_too_long() {
        let exact = "µ".repeat(WIDTH);
        assert_eq!(cut(&exact), exact);
        let long = cut(&"µ".repeat(WIDTH + 1));
        assert_eq!(long.chars().count(), WIDTH);
        assert!(long.ends_with("µ…"));
        assert_eq!(cut(""), "");
    }

    /// The robot in the middle of a swing, without a controller.
    fn robot() -> PanelSnapshot {
        use super::super::gauges;
        use sinew_rt::guard::{Execution, Guard, GuardSpec};
        use sinew_rt::panel::{Kind, Panel, PanelSpec};

        let panel = Panel::anonymous(&PanelSpec::new("robot")).unwrap();
        panel.set_layout("fused: receive+verify+deliver+send on core 1 (as configured)");
        panel.set_state(sinew_rt::panel::State::Running);
        let mut guards = ["receive", "verify", "deliver", gauges::CART, "send"].map(|name| {
            let spec = GuardSpec {
                budget: Nanos::from_micros(250),
                hard_limit: Nanos::from_secs(1),
                ladder: sinew_rt::ladder::LadderConfig::report_only(),
            };
            Guard::new(panel.probe(name, Some(1)).unwrap(), spec).unwrap()
        });
        let wake_up = panel.recorder(gauges::CART, Kind::WakeUp).unwrap();
        let age = panel.recorder(gauges::AGE, Kind::Age).unwrap();
        for n in 0..100 {
            let at = Nanos::from_millis(1_000 + n);
            for (place, guard) in guards.iter_mut().enumerate() {
                guard.enter(at);
                let took = Nanos::from_micros(10 * (1 + place as i64) + n / 10);
                guard.exit(at + took, Execution::Worked { released: at });
            }
            wake_up.record(Nanos::new(900 + n), at);
            age.record(Nanos::from_micros(500), at);
        }
        let gauge = |name: &str, value| panel.gauge(name).unwrap().set(value);
        gauge(&format!("{} safety", gauges::CART), State::SafeStop.code().into());
        let cause = sinew_control::safety::StopCause::InputLost;
        gauge(&format!("{} stop cause", gauges::CART), cause.code().into());
        gauge(gauges::ANGLE, -400_000);
        gauge(gauges::CART_POSITION, 120_000);
        gauge(gauges::TORQUE, -35_000);
        let mut snapshot = panel.snapshot().unwrap();
        snapshot.process.pid = 4_711;
        snapshot
    }

    #[test]
    fn the_table_fits_an_ordinary_terminal() {
        let live = Live {
            table: None,
            brand: Some("SCHED_FIFO 80 was refused".to_owned()),
            notes: vec!["  5.0 s  controller killed".to_owned()],
            drawn_at: None,
        };
        let look = Look { robot: robot(), controller: None };
        let scene = Scene {
            elapsed: Nanos::from_millis(5_100),
            length: Nanos::from_secs(20),
            phase: "safe stop",
        };
        let text = live.text(&look, &scene);
        assert!(
            text.lines().count() <= 23 && text.lines().all(|line| line.chars().count() <= WIDTH)
        );
        insta::assert_snapshot!(text);
    }
}
