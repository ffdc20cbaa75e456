//! What each view shows, as tables.

use sinew_rt::clock::Nanos;

use super::figures::{Figures, Loop, Spread, Stage, Topic};
use super::page::{Cell, Column, Page, Row, Tone};
use super::state::{Node, Shown, Sort, Top, View};
use crate::demo::short;
use crate::hist::TripReport;
use crate::panels::coarse;

pub(crate) fn stage_key(name: &str) -> String {
    format!("stage {name}")
}

pub(crate) fn loop_key(name: &str) -> String {
    format!("loop {name}")
}

pub(crate) fn topic_key(direction: &str, name: &str) -> String {
    format!("{direction} {name}")
}

/// A row before it is sorted: how bad it is, and how busy.
struct Ranked {
    row: Row,
    badness: f64,
    rate: f64,
}

fn sorted(sort: Sort, mut rows: Vec<Ranked>) -> Vec<Row> {
    match sort {
        Sort::Panel => {}
        Sort::Worst => rows.sort_by(|a, b| b.badness.total_cmp(&a.badness)),
        Sort::Busiest => rows.sort_by(|a, b| b.rate.total_cmp(&a.rate)),
    }
    rows.into_iter().map(|ranked| ranked.row).collect()
}

fn span(ns: Option<i64>) -> Cell {
    ns.map_or_else(Cell::dash, |ns| Cell::text(short(Nanos::new(ns))))
}

/// A span that is red where it is over the budget.
fn span_of(ns: Option<i64>, budget_ns: Option<i64>) -> Cell {
    match ns.zip(budget_ns) {
        Some((ns, budget)) if ns > budget => Cell::toned(short(Nanos::new(ns)), Tone::Bad),
        _ => span(ns),
    }
}

fn rate(rate_hz: Option<f64>) -> Cell {
    rate_hz.map_or_else(Cell::dash, |hz| Cell::text(per_second(hz)))
}

/// A rate in at most seven columns and without a unit: `0.5`, `1000`, `12.3k`.
fn per_second(hz: f64) -> String {
    match hz {
        hz if hz <= 0.0 => "0".to_owned(),
        hz if hz < 10.0 => format!("{hz:.1}"),
        hz if hz < 10_000.0 => format!("{hz:.0}"),
        hz if hz < 1e6 => format!("{:.1}k", hz / 1e3),
        hz => format!("{:.1}M", hz / 1e6),
    }
}

/// How often something bad happened, and how often of that in the interval: `12 +3`.
fn bad_count(total: u64, new: u64, interval: bool) -> Cell {
    match (total, new) {
        (0, _) => Cell::text(0),
        (total, new) if interval && new > 0 => Cell::toned(format!("{total} +{new}"), Tone::Bad),
        (total, _) => Cell::toned(total, Tone::Warn),
    }
}

fn level(level: &str) -> Cell {
    let tone = match level {
        "ok" => Tone::Good,
        "late" | "degraded" => Tone::Warn,
        _ => Tone::Bad,
    };
    Cell::toned(level, tone)
}

pub(crate) fn view(top: &Top, view: View) -> Page {
    let mut page = Page::default();
    match view {
        View::Nodes => nodes(top, &mut page),
        View::Stages => page.table("", &STAGES, stages(top, |_| true)),
        View::Loops => page.table("", &LOOPS, loops(top, |_| true)),
        View::Traffic => traffic(top, &mut page, |_| true),
        View::Trips => page.table("", &TRIPS, trips(top, |_| true)),
    }
    if page.sections.is_empty() {
        page.text(nothing(top, view));
    }
    page
}

/// Every view at once, for a text that is printed.
pub(crate) fn everything(top: &Top) -> Page {
    let mut page = Page::default();
    nodes(top, &mut page);
    page.table("Stages", &STAGES, stages(top, |_| true));
    page.table("Loops", &LOOPS, loops(top, |_| true));
    traffic(top, &mut page, |_| true);
    page.table("Trips, newest first", &TRIPS, trips(top, |_| true));
    if page.sections.is_empty() {
        page.text(nothing(top, View::Nodes));
    }
    page
}

fn nothing(top: &Top, view: View) -> Vec<(String, Tone)> {
    let text = match (&top.wanted, top.nodes.is_empty(), view) {
        (Some(wanted), true, _) => format!("There is no panel of `{wanted}` yet; waiting for it."),
        (None, true, _) => {
            "There are no panels. A running node makes one: `sinew node run CONFIG`, `sinew demo`."
                .to_owned()
        }
        (_, _, View::Nodes | View::Stages) => "No guarded stages.".to_owned(),
        (_, _, View::Loops) => "No control loops on these panels.".to_owned(),
        (_, _, View::Traffic) => "No topics on these panels.".to_owned(),
        (_, _, View::Trips) => "No budget has been missed.".to_owned(),
    };
    vec![(text, Tone::Dim)]
}

const NODES: [Column; 11] = [
    Column::left("node", 0),
    Column::left("state", 10),
    Column::left("level", 7),
    Column::left("safety", 8),
    Column::left("p99 of budget", 6),
    Column::left("in", 3),
    Column::right("trips", 9),
    Column::right("drops", 5),
    Column::right("up", 4),
    Column::right("pid", 1),
    Column::left("real-time", 2),
];

fn nodes(top: &Top, page: &mut Page) {
    let rows = top.nodes.iter().map(|node| match &node.shown {
        Ok(shown) => node_row(node, top.figures(shown)),
        Err(_) => Ranked {
            row: row(node, "", [Cell::text(&node.name), Cell::toned("unreadable", Tone::Bad)]),
            badness: f64::INFINITY,
            rate: 0.0,
        },
    });
    page.table("", &NODES, sorted(top.sort, rows.collect()));
    let unreadable = top.nodes.iter().filter_map(|node| node.shown.as_ref().err());
    let lines = unreadable.chain(&top.closed);
    page.text(lines.map(|why| (format!("not readable: {why}"), Tone::Dim)).collect());
}

fn node_row(node: &Node, figures: &Figures) -> Ranked {
    let state = match (figures.alive, figures.silent_ns, figures.state.as_str()) {
        (true, Some(ns), _) => Cell::toned(format!("silent {}", coarse(Nanos::new(ns))), Tone::Bad),
        (true, None, state) => Cell::toned(state, Tone::Good),
        (false, _, "stopped") => Cell::toned("stopped", Tone::Dim),
        (false, _, state) => Cell::toned(format!("dead: {state}"), Tone::Bad),
    };
    let worst = figures.worst_share();
    let stage = worst.and_then(|(name, _)| figures.stages.iter().find(|stage| stage.name == name));
    let (overruns, new_overruns) = figures.overruns();
    let (drops, new_drops) = figures.drops();
    let interval = figures.interval_ns.is_some();
    let brand = match figures.not_real_time.is_empty() {
        true => Cell::text("yes"),
        false => Cell::toned("NOT REAL-TIME", Tone::Bad),
    };
    let cells = [
        Cell::text(&node.name),
        state,
        level(&figures.level),
        safety(worst_safety(&figures.loops)),
        stage.and_then(bar).unwrap_or_else(Cell::dash),
        Cell::text(worst.map_or("", |(name, _)| name)),
        bad_count(overruns, new_overruns, interval),
        bad_count(drops, new_drops, interval),
        Cell::text(coarse(Nanos::new(figures.uptime_ns))),
        Cell::text(figures.pid),
        brand,
    ];
    let rate = figures.stages.iter().filter_map(|stage| stage.execution.rate_hz).sum();
    Ranked { row: row(node, "", cells), badness: worst.map_or(0.0, |(_, share)| share), rate }
}

fn row(node: &Node, what: &str, cells: impl IntoIterator<Item = Cell>) -> Row {
    Row {
        key: format!("{} {what}", node.path),
        node: node.path.clone(),
        cells: cells.into_iter().collect(),
    }
}

/// Who a row is about; on the page of one node it need not be said, and the column goes.
fn name(top: &Top, node: &Node) -> Cell {
    let dead = node.shown.as_ref().is_ok_and(|shown| !shown.total.alive);
    match (&top.detail, dead) {
        (Some(_), _) => Cell::text(""),
        (None, true) => Cell::toned(format!("{} (dead)", node.name), Tone::Dim),
        (None, false) => Cell::text(&node.name),
    }
}

/// The loop that needs looking at first.
fn worst_safety(loops: &[Loop]) -> Option<&Loop> {
    let guarded = loops.iter().filter(|one| one.safety.is_some());
    guarded.max_by_key(|one| match (one.may_move, one.safety.as_deref()) {
        (Some(false), Some("idle")) => 1,
        (Some(false), _) => 3,
        (_, Some("running")) => 0,
        _ => 2,
    })
}

fn safety(of: Option<&Loop>) -> Cell {
    let Some((one, state)) = of.and_then(|one| Some((one, one.safety.as_deref()?))) else {
        return Cell::dash();
    };
    match (one.may_move, state) {
        (Some(true), "running") => Cell::toned(state, Tone::Good),
        (Some(true), _) => Cell::toned(state, Tone::Warn),
        (_, "idle") => Cell::toned(state, Tone::Dim),
        _ => Cell::toned(state, Tone::Bad),
    }
}

fn bar(stage: &Stage) -> Option<Cell> {
    Some(Cell::Bar { share: stage.share()?, share_max: stage.share_max()? })
}

const STAGES: [Column; 14] = [
    Column::left("node", 0),
    Column::left("stage", 0),
    Column::left("core", 2),
    Column::right("count", 8),
    Column::right("rate/s", 3),
    Column::right("p50", 9),
    Column::right("p99", 13),
    Column::right("max", 11),
    Column::right("budget", 4),
    Column::left("p99 of it", 12),
    Column::right("trips", 10),
    Column::right("recent", 7),
    Column::left("level", 5),
    Column::left("last cause", 6),
];

fn stages(top: &Top, which: impl Fn(&str) -> bool) -> Vec<Row> {
    let readable = top.readable().filter(|(node, ..)| which(&node.path));
    let rows = readable.flat_map(|(node, shown, figures)| {
        figures.stages.iter().map(move |stage| stage_row(top, node, shown, figures, stage))
    });
    sorted(top.sort, rows.collect())
}

fn stage_row(top: &Top, node: &Node, shown: &Shown, figures: &Figures, stage: &Stage) -> Ranked {
    let Stage { execution, budget_ns, .. } = stage;
    let last = figures.trips.iter().rev().find(|trip| trip.stage == stage.name);
    let key = stage_key(&stage.name);
    let level = match stage.hangs_total {
        0 => level(&stage.level),
        hangs => Cell::toned(format!("{}, hung {hangs}", stage.level), Tone::Bad),
    };
    let cells = [
        name(top, node),
        Cell::text(&stage.name),
        stage.core.map_or_else(|| Cell::text(""), Cell::text),
        Cell::text(execution.count),
        rate(execution.rate_hz),
        span(execution.p50_ns),
        span_of(execution.p99_ns, *budget_ns),
        span_of(execution.max_ns, *budget_ns),
        span(*budget_ns),
        bar(stage).unwrap_or_else(Cell::dash),
        bad_count(stage.overruns_total, stage.overruns, figures.interval_ns.is_some()),
        Cell::Spark(shown.history(&key)),
        level,
        last.map_or_else(|| Cell::text(""), |trip| Cell::text(&trip.cause)),
    ];
    Ranked {
        row: row(node, &key, cells),
        badness: stage.share().unwrap_or(0.0),
        rate: execution.rate_hz.unwrap_or(0.0),
    }
}

const LOOPS: [Column; 13] = [
    Column::left("node", 0),
    Column::left("loop", 0),
    Column::left("safety", 12),
    Column::right("rate/s", 10),
    Column::right("late p50", 6),
    Column::right("late p99", 11),
    Column::right("late max", 8),
    Column::right("jitter", 7),
    Column::right("skipped", 9),
    Column::right("recent", 5),
    Column::right("run p99", 3),
    Column::right("stops", 4),
    Column::left("stopped because", 2),
];

fn loops(top: &Top, which: impl Fn(&str) -> bool) -> Vec<Row> {
    let readable = top.readable().filter(|(node, ..)| which(&node.path));
    let rows = readable.flat_map(|(node, shown, figures)| {
        figures.loops.iter().map(move |one| loop_row(top, node, shown, figures, one))
    });
    sorted(top.sort, rows.collect())
}

fn loop_row(top: &Top, node: &Node, shown: &Shown, figures: &Figures, one: &Loop) -> Ranked {
    let key = loop_key(&one.name);
    let late = &one.lateness;
    let cells = [
        name(top, node),
        Cell::text(&one.name),
        safety(Some(one)),
        rate(late.rate_hz),
        span(late.p50_ns),
        span(late.p99_ns),
        span(late.max_ns),
        span(one.jitter_ns),
        bad_count(one.skipped_total, one.skipped, figures.interval_ns.is_some()),
        Cell::Spark(shown.history(&key)),
        span(one.execution_p99_ns),
        Cell::text(one.safe_stops_total),
        Cell::text(one.stop_cause.as_deref().unwrap_or("")),
    ];
    Ranked {
        row: row(node, &key, cells),
        badness: late.p99_ns.unwrap_or(0) as f64,
        rate: late.rate_hz.unwrap_or(0.0),
    }
}

const TOPICS: [Column; 10] = [
    Column::left("node", 0),
    Column::left("topic", 0),
    Column::left("", 12),
    Column::right("rate/s", 11),
    Column::right("total", 6),
    Column::right("age p50", 7),
    Column::right("age p99", 9),
    Column::right("age max", 8),
    Column::right("recent", 5),
    Column::left("note", 10),
];

const SPANS: [Column; 7] = [
    Column::left("node", 0),
    Column::left("measured", 0),
    Column::left("kind", 2),
    Column::right("count", 3),
    Column::right("p50", 4),
    Column::right("p99", 6),
    Column::right("max", 5),
];

const DROPS: [Column; 6] = [
    Column::left("node", 0),
    Column::left("dropped as", 0),
    Column::left("from", 5),
    Column::left("stage", 3),
    Column::right("rate/s", 4),
    Column::right("total", 6),
];

const PEERS: [Column; 2] = [Column::left("node", 0), Column::left("peer", 1)];

fn traffic(top: &Top, page: &mut Page, which: impl Fn(&str) -> bool) {
    let readable = || top.readable().filter(|(node, ..)| which(&node.path));
    let topics = readable().flat_map(|(node, shown, figures)| {
        figures.topics.iter().map(move |topic| topic_row(top, node, shown, topic))
    });
    page.table("Topics", &TOPICS, sorted(top.sort, topics.collect()));
    let spans = readable().flat_map(|(node, _, figures)| {
        figures.spans.iter().map(move |one| {
            let Spread { count, rate_hz, p50_ns, p99_ns, max_ns } = one.spread;
            let name = name(top, node);
            let spans = [span(p50_ns), span(p99_ns), span(max_ns)];
            let about = [name, Cell::text(&one.name), Cell::text(&one.kind), Cell::text(count)];
            Ranked {
                row: row(
                    node,
                    &format!("span {} {}", one.kind, one.name),
                    about.into_iter().chain(spans),
                ),
                badness: p99_ns.unwrap_or(0) as f64,
                rate: rate_hz.unwrap_or(0.0),
            }
        })
    });
    page.table("Other measurements", &SPANS, sorted(top.sort, spans.collect()));
    let drops = readable().flat_map(|(node, _, figures)| {
        figures.drops.iter().map(move |dropped| {
            let drop = &dropped.drop;
            let new = figures.interval_ns.is_some();
            let cells = [
                name(top, node),
                Cell::text(&drop.reason),
                Cell::text(&drop.source),
                Cell::text(&drop.stage),
                rate(dropped.rate_hz),
                bad_count(dropped.count_total, drop.count, new),
            ];
            let what = format!("drop {} {} {}", drop.stage, drop.reason, drop.source);
            let rate = dropped.rate_hz.unwrap_or(0.0);
            Ranked { row: row(node, &what, cells), badness: rate, rate }
        })
    });
    page.table("Drops", &DROPS, sorted(top.sort, drops.collect()));
    let peers = readable().flat_map(|(node, _, figures)| {
        figures.peers.iter().map(move |peer| {
            let cells = [name(top, node), Cell::text(peer.text())];
            row(node, &format!("peer {}", peer.name), cells)
        })
    });
    page.table("Peers", &PEERS, peers.collect());
}

fn topic_row(top: &Top, node: &Node, shown: &Shown, topic: &Topic) -> Ranked {
    let key = topic_key(topic.direction, &topic.name);
    let age = topic.age.clone().unwrap_or_default();
    let note = if topic.foreign_schema { "another schema comes" } else { "" };
    let cells = [
        name(top, node),
        Cell::text(&topic.name),
        Cell::toned(topic.direction, Tone::Dim),
        rate(topic.rate_hz),
        Cell::text(topic.count_total),
        span(age.p50_ns),
        span(age.p99_ns),
        span(age.max_ns),
        Cell::Spark(shown.history(&key)),
        Cell::toned(note, Tone::Bad),
    ];
    Ranked {
        row: row(node, &key, cells),
        badness: age.p99_ns.unwrap_or(0) as f64,
        rate: topic.rate_hz.unwrap_or(0.0),
    }
}

const TRIPS: [Column; 9] = [
    Column::right("ago", 5),
    Column::left("node", 0),
    Column::left("stage", 0),
    Column::right("#", 1),
    Column::right("took", 7),
    Column::right("budget", 4),
    Column::right("began late", 2),
    Column::left("cause", 8),
    Column::left("then", 3),
];

/// The trips that the panels still keep, the newest first.
fn trips(top: &Top, which: impl Fn(&str) -> bool) -> Vec<Row> {
    let readable = top.readable().filter(|(node, ..)| which(&node.path));
    let mut rows: Vec<_> = readable
        .flat_map(|(node, _, figures)| {
            figures.trips.iter().map(move |trip| {
                let ago = (figures.uptime_ns - trip.after_ns).max(0);
                (ago, trip_row(top, node, ago, trip))
            })
        })
        .collect();
    rows.sort_by_key(|(ago, _)| *ago);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn trip_row(top: &Top, node: &Node, ago: i64, trip: &TripReport) -> Row {
    let over = trip.duration_ns > trip.budget_ns;
    let cells = [
        Cell::text(match ago / 1_000_000 {
            ms @ ..1_000 => format!("{ms} ms"),
            _ => coarse(Nanos::new(ago)),
        }),
        name(top, node),
        Cell::text(&trip.stage),
        Cell::text(trip.number),
        Cell::toned(
            short(Nanos::new(trip.duration_ns)),
            if over { Tone::Bad } else { Tone::Plain },
        ),
        Cell::text(short(Nanos::new(trip.budget_ns))),
        Cell::text(short(Nanos::new(trip.release_latency_ns))),
        Cell::toned(&trip.cause, Tone::Warn),
        level(&trip.level_after),
    ];
    row(node, &format!("trip {} {}", trip.stage, trip.number), cells)
}

/// Everything of one node.
pub(crate) fn detail(top: &Top, path: &str) -> Page {
    let mut page = Page::default();
    let Some(node) = top.nodes.iter().find(|node| node.path == path) else {
        page.text(vec![(format!("{path} is gone: its process ended as asked."), Tone::Dim)]);
        return page;
    };
    let shown = match &node.shown {
        Ok(shown) => shown,
        Err(why) => {
            page.text(vec![(node.name.clone(), Tone::Heading), (why.clone(), Tone::Bad)]);
            return page;
        }
    };
    page.text(about(node, top.figures(shown)));
    let this = |path: &str| path == node.path;
    page.table("Stages", &STAGES, stages(top, this));
    page.table("Loops", &LOOPS, loops(top, this));
    traffic(top, &mut page, this);
    page.table("Trips, newest first", &TRIPS, trips(top, this));
    page
}

fn about(node: &Node, figures: &Figures) -> Vec<(String, Tone)> {
    let up = coarse(Nanos::new(figures.uptime_ns));
    let covers = match figures.interval_ns {
        Some(ns) => format!("figures of the last {}", short(Nanos::new(ns))),
        None => "figures since its start".to_owned(),
    };
    let Figures { state, pid, .. } = figures;
    let state = match figures.alive {
        true => format!("{}: {state}, process {pid}, up {up}; {covers}", node.name),
        false => {
            format!("{}: dead ({state}), was process {pid}, ran {up}; its last figures", node.name)
        }
    };
    let mut lines = vec![(state, if figures.alive { Tone::Heading } else { Tone::Bad })];
    if let Some(ns) = figures.silent_ns {
        let silent = coarse(Nanos::new(ns));
        let text = format!("housekeeping is silent for {silent}: it hangs or gets no CPU");
        lines.push((text, Tone::Bad));
    }
    for reason in &figures.not_real_time {
        lines.push((format!("NOT REAL-TIME: {reason}"), Tone::Bad));
    }
    for stopped in figures.loops.iter().filter(|one| one.may_move == Some(false)) {
        if let Some(cause) = &stopped.stop_cause {
            lines.push((format!("{} is in safe stop: {cause}", stopped.name), Tone::Bad));
        }
    }
    let plain =
        [("layout", &figures.layout), ("identity", &figures.identity), ("panel", &figures.path)];
    let plain = plain.into_iter().filter(|(_, text)| !text.is_empty());
    lines.extend(plain.map(|(what, text)| (format!("{what:<9}{text}"), Tone::Dim)));
    lines
}

pub(crate) fn help() -> Page {
    let mut page = Page::default();
    let lines = [
        "1 2 3 4 5, tab    nodes, stages, loops, traffic, trips",
        "↑ ↓, j k          select a row; page up and down, home, end",
        "enter             everything of that node; esc goes back",
        "t                 figures of the last interval, or since the start",
        "s                 order: by node, worst first, busiest first",
        "p, space          pause: the figures stand still",
        "+ -               look twice as often, half as often",
        "q, ctrl-c         quit",
        "",
        "████▒▒··          p99 as a share of the budget, shaded up to the maximum",
        "12 +3             12 since the start, 3 of them in the last interval",
        "recent            p99 (topics: rate) of each interval, scaled to its greatest",
        "late, jitter      wake-up after the planned release; latest minus earliest",
        "",
        "Panels are only read: no process notices that it is watched.",
    ];
    page.text(lines.into_iter().map(|line| (line.to_owned(), Tone::Plain)).collect());
    page
}

/// Why the figures of a page are no real-time figures, above every view.
pub(crate) fn brand(top: &Top) -> Option<String> {
    let branded: Vec<_> = top
        .readable()
        .filter(|(node, ..)| top.detail.as_ref().is_none_or(|detail| *detail == node.path))
        .filter_map(|(node, _, figures)| Some((&node.name, figures.not_real_time.first()?)))
        .collect();
    let (name, reason) = branded.first()?;
    let more = match branded.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("NOT REAL-TIME  {name}{more}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_at_every_size() {
        let rates = [0.0, 0.5, 1_000.0, 12_345.0, 2.5e6].map(per_second);
        assert_eq!(rates, ["0", "0.5", "1000", "12.3k", "2.5M"]);
    }
}
