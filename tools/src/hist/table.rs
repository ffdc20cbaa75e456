//! Histograms as a table for people.

use std::fmt::Write as _;

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle,
};
use sinew_rt::clock::Nanos;

use super::report::{self, Listing, Row};
use crate::panels::{Look, coarse};

/// Trips that are shown of each stage; the JSON has all that the panel keeps.
const TRIPS_SHOWN: usize = 3;

/// A rule around the whole and one below the heading.
const RULED: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// Columns of the terminal; `None` where there is none, and lines are as long as they need to be.
pub(crate) fn width(terminal: bool) -> Option<u16> {
    terminal.then(|| Table::new().width()).flatten()
}

/// An empty table, as wide as the terminal or as it needs to be.
pub(crate) fn new_table(terminal: bool) -> Table {
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_content_arrangement(match terminal {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    table
}

/// One panel: what brands it, who wrote it, its histograms and its last trips.
pub(crate) fn panel(look: &Look, stages: &[String], terminal: bool) -> String {
    let snapshot = &look.snapshot;
    let mut text = String::new();
    brand(&mut text, &snapshot.not_real_time, terminal);
    let _ = writeln!(text, "{}", look.headline());
    if !snapshot.layout.is_empty() {
        let _ = writeln!(text, "{}", snapshot.layout);
    }
    let mut table = new_table(terminal);
    table.set_header(
        [
            "stage", "kind", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max", "budget",
            "overruns",
        ]
        .iter()
        .enumerate()
        .map(|(n, name)| if n < 2 { Cell::new(name) } else { right(name) }),
    );
    for row in report::rows(snapshot, stages) {
        add(&mut table, &row);
    }
    let _ = writeln!(text, "{}", table.trim_fmt());
    trips(&mut text, look, stages);
    if snapshot.torn > 0 {
        let _ = writeln!(
            text,
            "{} records are left out: their writer was, or died, in the middle of them",
            snapshot.torn
        );
    }
    text
}

/// The reasons why these figures are no real-time figures, on top of everything.
pub(crate) fn brand(text: &mut String, reasons: &[String], terminal: bool) {
    let (red, plain) = if terminal { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    for reason in reasons {
        let _ = writeln!(text, "{red}NOT REAL-TIME:{plain} {reason}");
    }
}

/// A cell with a number.
pub(crate) fn right(content: impl ToString) -> Cell {
    Cell::new(content.to_string()).set_alignment(CellAlignment::Right)
}

fn add(table: &mut Table, row: &Row) {
    let span = |ns: Option<i64>| ns.map_or_else(|| "–".to_owned(), |ns| Nanos::new(ns).to_string());
    let over = |ns: Option<i64>| ns.zip(row.budget_ns).is_some_and(|(ns, budget)| ns > budget);
    let value = |ns| match over(ns) {
        true => right(span(ns)).fg(Color::Red),
        false => right(span(ns)),
    };
    let overruns = match row.overruns {
        None => right("–"),
        Some(0) => right("0"),
        Some(n) => right(n).fg(Color::Red).add_attribute(Attribute::Bold),
    };
    table.add_row([
        Cell::new(&row.name),
        Cell::new(&row.kind),
        right(row.count),
        value(row.p50_ns),
        value(row.p90_ns),
        value(row.p99_ns),
        value(row.p99_9_ns),
        value(row.p99_99_ns),
        value(row.max_ns),
        right(span(row.budget_ns)),
        overruns,
    ]);
}

fn trips(text: &mut String, look: &Look, stages: &[String]) {
    let snapshot = &look.snapshot;
    let trips = report::trips(snapshot, stages);
    let mut heading = "Last overruns:\n";
    for probe in &snapshot.probes {
        let of_probe: Vec<_> = trips.iter().filter(|trip| trip.stage == probe.name).collect();
        for trip in of_probe.iter().rev().take(TRIPS_SHOWN) {
            let _ = writeln!(
                text,
                "{heading}  {} #{}: {} of {}, begun {} after its release, {}, then {}, {} after the start",
                trip.stage,
                trip.number,
                Nanos::new(trip.duration_ns),
                Nanos::new(trip.budget_ns),
                Nanos::new(trip.release_latency_ns),
                trip.cause,
                trip.level_after,
                Nanos::new(trip.after_ns),
            );
            heading = "";
        }
        if probe.hangs > 0 {
            let _ = writeln!(text, "  {} hung {} times", probe.name, probe.hangs);
        }
    }
}

fn up(ns: i64) -> String {
    coarse(Nanos::new(ns))
}

/// The panels on this machine.
pub(crate) fn listing(listing: &Listing) -> String {
    let mut text = String::new();
    if listing.panels.is_empty() {
        text.push_str(
            "There are no panels. A running node makes one: `sinew node run CONFIG`, `sinew demo`.\n",
        );
    } else {
        let mut table = new_table(false);
        table.set_header(["node", "state", "process", "up", "real-time", "panel"]);
        for panel in &listing.panels {
            let brand = if panel.not_real_time.is_empty() { "yes" } else { "NOT REAL-TIME" };
            let number = |n: Option<u32>| n.map_or_else(String::new, |n| n.to_string());
            table.add_row([
                panel.name.clone(),
                panel.state.clone().unwrap_or_else(|| "unreadable".to_owned()),
                number(panel.pid),
                panel.uptime_ns.filter(|ns| *ns > 0).map_or_else(String::new, up),
                panel.state.as_ref().map_or("", |_| brand).to_owned(),
                panel.error.clone().unwrap_or_else(|| panel.path.clone()),
            ]);
        }
        let _ = writeln!(text, "{}", table.trim_fmt());
    }
    for closed in &listing.unreadable {
        let _ = writeln!(text, "{closed}");
    }
    text
}
