//! One run as a page that a person can read and that needs nothing else: nodes as rows, faults as bars,
//! deliveries as bands, gaps and broken promises as marks.

use std::fmt::Write as _;

use sinew_rt::clock::Nanos;

use crate::fault::{Fault, FaultKind};
use crate::plan::TOPICS;
use crate::timeline::{Mark, STEPS, Timeline};
use crate::world::Outcome;

const STYLE: &str = include_str!("page.css");
/// Nothing may be loaded from anywhere; what the page itself holds may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                      form-action 'none'";
const WIDTH: f64 = 1_160.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 1_150.0;
const TOP: f64 = 26.0;
/// The band of deliveries of one node.
const BAND: f64 = 16.0;
/// One bar of a fault.
const BAR: f64 = 5.0;
/// Bars of one node beside each other; more share the last.
const BARS_MAX: usize = 6;
/// Gaps that the list below the picture names.
const LISTED: usize = 400;

/// Text from elsewhere as text of a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The colour of a kind of fault: links, deaths, time, programs, malice.
const fn family(kind: FaultKind) -> (&'static str, &'static str) {
    match kind {
        FaultKind::Partition | FaultKind::OneWay => ("cut", "partitions"),
        kind if kind.is_of_link() => ("link", "bad links"),
        FaultKind::Crash | FaultKind::Torn | FaultKind::Rollback | FaultKind::Reboot => {
            ("death", "crashes")
        }
        FaultKind::Stall | FaultKind::Clock | FaultKind::SlowReader => {
            ("time", "stalls, clocks, slow readers")
        }
        _ => ("malice", "liars, floods, strangers"),
    }
}

struct Row {
    node: u16,
    y: f64,
    bars: Vec<(usize, Fault)>,
    height: f64,
}

/// Puts the faults of each node into as few lines as they fit without covering each other.
fn rows(timeline: &Timeline) -> Vec<Row> {
    let mut y = TOP;
    let present = (0..timeline.nodes as u16).filter(|node| !timeline.absent.contains(node));
    present
        .map(|node| {
            let mut free = [Nanos::MIN; BARS_MAX];
            let mut bars = Vec::new();
            for fault in timeline.faults.iter().filter(|fault| fault.node == node) {
                let line =
                    free.iter().position(|until| *until <= fault.from).unwrap_or(BARS_MAX - 1);
                free[line] = free[line].max(fault.until);
                bars.push((line, *fault));
            }
            let lines = bars.iter().map(|(line, _)| line + 1).max().unwrap_or(0);
            let height = BAND + lines as f64 * (BAR + 1.0) + 12.0;
            let row = Row { node, y, bars, height };
            y += height;
            row
        })
        .collect()
}

fn x(timeline: &Timeline, at: Nanos) -> f64 {
    LEFT + at.as_secs_f64() / timeline.end.as_secs_f64().max(1e-9) * (RIGHT - LEFT)
}

/// The page about `outcome`, which must have a timeline; `command` repeats the run.
#[must_use]
pub fn page(outcome: &Outcome, command: &str) -> String {
    let Some(timeline) = &outcome.timeline else { return String::new() };
    let title = format!("sinew sim, seed {}", outcome.seed);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n<pre class=\"command\">{}</pre>\n",
        escaped(command)
    );
    let _ = match &outcome.violation {
        Some(violation) => write!(
            page,
            "<p class=\"verdict bad\"><strong>A promise was broken.</strong> {} {}</p>",
            violation.rule.description(),
            escaped(&violation.to_string())
        ),
        None => write!(page, "<p class=\"verdict good\">No promise was broken.</p>"),
    };
    let c = &outcome.counts;
    let _ = write!(
        page,
        "<p>{} nodes · {} events in {:.3} virtual seconds · {} messages published, {} delivered, {} in {} gaps, \
         {} refused · trace {:016x}</p>\n</header>\n<main>\n",
        outcome.nodes,
        outcome.events,
        outcome.reached.as_secs_f64(),
        c.published,
        c.delivered,
        c.missing,
        c.gaps,
        c.refused,
        outcome.trace
    );
    page.push_str(&picture(timeline));
    page.push_str(&legend());
    page.push_str(&faults(timeline));
    page.push_str(&marks(timeline));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn picture(timeline: &Timeline) -> String {
    let rows = rows(timeline);
    let bottom = rows.last().map_or(TOP, |row| row.y + row.height);
    let height = bottom + 24.0;
    let mut svg = format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Nodes over time\">\n"
    );
    axis(&mut svg, timeline, bottom);
    let most = timeline.delivered.iter().flatten().copied().max().unwrap_or(1).max(1);
    for row in &rows {
        node(&mut svg, timeline, row, most);
    }
    for (at, node, mark) in &timeline.marks {
        let Some(row) = rows.iter().find(|row| row.node == *node) else { continue };
        draw_mark(&mut svg, x(timeline, *at), row, *at, mark);
    }
    svg.push_str("</svg></figure>\n");
    svg
}

fn axis(svg: &mut String, timeline: &Timeline, bottom: f64) {
    let seconds = timeline.end.as_secs_f64();
    let step = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0]
        .into_iter()
        .find(|step| seconds / step <= 16.0);
    let step = step.unwrap_or(3_600.0);
    svg.push_str("<g class=\"grid\">");
    let mut second = 0.0;
    while second <= seconds {
        let x = LEFT + second / seconds * (RIGHT - LEFT);
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {TOP}V{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\">{second:.0} s</text>",
            bottom + 16.0
        );
        second += step;
    }
    svg.push_str("</g>\n");
    for (at, words) in [(timeline.healed, "faults end"), (timeline.quiet, "publishing ends")] {
        let x = x(timeline, at);
        let _ = writeln!(
            svg,
            "<g class=\"phase\"><path d=\"M{x:.1} {:.1}V{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\">{words}</text></g>",
            TOP - 8.0,
            TOP - 11.0
        );
    }
}

fn node(svg: &mut String, timeline: &Timeline, row: &Row, most: u32) {
    let liar = if timeline.liar == Some(row.node) { " ✗" } else { "" };
    let base = row.y + BAND;
    let _ = write!(
        svg,
        "<g class=\"node\"><text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">n{}{liar}</text>\
         <path class=\"base\" d=\"M{LEFT} {base:.1}H{RIGHT}\"/><path class=\"heard\" d=\"M{LEFT} {base:.1}",
        LEFT - 8.0,
        base - 3.0,
        row.node
    );
    let width = (RIGHT - LEFT) / STEPS as f64;
    for (step, count) in timeline.delivered[usize::from(row.node)].iter().enumerate() {
        let top = base - f64::from(*count) / f64::from(most) * (BAND - 2.0);
        let _ = write!(svg, "V{top:.1}H{:.1}", LEFT + (step + 1) as f64 * width);
    }
    let _ = write!(svg, "V{base:.1}Z\"/>");
    for (line, fault) in &row.bars {
        let (from, until) = (x(timeline, fault.from), x(timeline, fault.until));
        let y = base + 2.0 + *line as f64 * (BAR + 1.0);
        let _ = write!(
            svg,
            "<rect class=\"{}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{}</title></rect>",
            family(fault.kind).0,
            (until - from).max(1.5),
            escaped(&fault.to_string())
        );
    }
    svg.push_str("</g>\n");
}

fn draw_mark(svg: &mut String, x: f64, row: &Row, at: Nanos, mark: &Mark) {
    let base = row.y + BAND;
    let title = format!("{:.6} s, n{}: {}", at.as_secs_f64(), row.node, escaped(&words(mark)));
    let _ = match mark {
        Mark::Start => {
            write!(svg, "<path class=\"start\" d=\"M{x:.1} {:.1}l5 4l-5 4z\">", base - 11.0)
        }
        Mark::Kill => write!(
            svg,
            "<path class=\"kill\" d=\"M{:.1} {:.1}l6 6m0 -6l-6 6\">",
            x - 3.0,
            base - 10.0
        ),
        Mark::Gap { .. } => write!(svg, "<path class=\"gap\" d=\"M{x:.1} {:.1}v-6\">", base - 0.5),
        Mark::NewLife { .. } => return,
        Mark::Violation(_) => write!(
            svg,
            "<path class=\"violation\" d=\"M{x:.1} {TOP}V{:.1}M{:.1} {:.1}l10 10m0 -10l-10 10\">",
            row.y + row.height,
            x - 5.0,
            base - 12.0
        ),
    };
    let _ = write!(svg, "<title>{title}</title></path>");
    svg.push('\n');
}

fn words(mark: &Mark) -> String {
    match mark {
        Mark::Start => "starts".to_owned(),
        Mark::Kill => "is killed".to_owned(),
        Mark::Gap { from, topic, first, last } => {
            let name = TOPICS.get(usize::from(*topic)).map_or("?", |topic| topic.name);
            format!("gap {first} to {last} in {name} of n{from}")
        }
        Mark::NewLife { from } => format!("hears of a new life of n{from}"),
        Mark::Violation(text) => text.clone(),
    }
}

fn legend() -> String {
    let mut html = "<p class=\"legend\"><span><i class=\"heard\"></i>deliveries</span>".to_owned();
    let mut named: Vec<&str> = Vec::new();
    for kind in FaultKind::ALL {
        let (class, name) = family(*kind);
        if !named.contains(&class) {
            named.push(class);
            let _ = write!(html, "<span><i class=\"{class}\"></i>{name}</span>");
        }
    }
    html.push_str(
        "<span><i class=\"gap\"></i>gap reported</span><span>▸ start</span><span>× killed, or a broken promise</span>\
         <span>✗ the member that lies</span></p>\n",
    );
    html
}

fn faults(timeline: &Timeline) -> String {
    let mut html = "<h2>Faults</h2>\n<table><thead><tr><th>fault</th><th class=\"text\">what</th><th>node</th>\
                    <th>to</th><th>from</th><th>until</th><th>strength</th></tr></thead><tbody>\n"
        .to_owned();
    for fault in &timeline.faults {
        let to = match fault.other {
            Some(other) => format!("n{other}"),
            None if fault.kind.is_of_link() => "all".to_owned(),
            None => String::new(),
        };
        let _ = writeln!(
            html,
            "<tr><td>#{}</td><td class=\"text\"><b>{}</b> {}</td><td>n{}</td><td>{to}</td><td>{:.3} s</td>\
             <td>{:.3} s</td><td>{:.1} %</td></tr>",
            fault.number,
            fault.kind,
            fault.kind.description(),
            fault.node,
            fault.from.as_secs_f64(),
            fault.until.as_secs_f64(),
            f64::from(fault.strength) / 1e4
        );
    }
    html.push_str("</tbody></table>\n");
    html
}

fn marks(timeline: &Timeline) -> String {
    let mut html = "<h2>What happened</h2>\n<table><thead><tr><th>when</th><th>node</th><th class=\"text\">what</th>\
                    </tr></thead><tbody>\n"
        .to_owned();
    // The end is what a person wants to see.
    let skipped = timeline.marks.len().saturating_sub(LISTED);
    for (at, node, mark) in timeline.marks.iter().skip(skipped) {
        let class = if matches!(mark, Mark::Violation(_)) { " class=\"bad\"" } else { "" };
        let _ = writeln!(
            html,
            "<tr{class}><td>{:.6} s</td><td>n{node}</td><td class=\"text\">{}</td></tr>",
            at.as_secs_f64(),
            escaped(&words(mark))
        );
    }
    html.push_str("</tbody></table>\n");
    let left_out = skipped as u64 + timeline.left_out;
    if left_out > 0 {
        let _ = writeln!(html, "<p>{left_out} earlier lines are left out.</p>");
    }
    html
}
