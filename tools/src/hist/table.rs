//! Histograms as a table for people.

use std::fmt::Write as _;

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle,
};
use sinew_rt::clock::Nanos;
use sinew_rt::panel::Cause;

use super::report::{self, AroundReport, EvidenceReport, Listing, RanThere, Row, TripReport};
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

fn new_table(terminal: bool) -> Table {
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

fn right(content: impl ToString) -> Cell {
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
    let mut heading = "Last trips:\n";
    for probe in &snapshot.probes {
        let of_probe: Vec<_> = trips.iter().filter(|trip| trip.stage == probe.name).collect();
        for trip in of_probe.iter().rev().take(TRIPS_SHOWN) {
            let after = Nanos::new(trip.after_ns);
            let _ = writeln!(
                text,
                "{heading}  {} #{}: {}, then {}, {after} after the start",
                trip.stage,
                trip.number,
                what(trip),
                trip.level_after,
            );
            if let Some(evidence) = &trip.evidence {
                let _ = writeln!(text, "    {}", seen(evidence));
            }
            if let Some(around) = &trip.around {
                let _ = writeln!(text, "    {}", beside(around));
            }
            heading = "";
        }
        if probe.hangs > 0 {
            let _ = writeln!(text, "  {} hung {} times", probe.name, probe.hangs);
        }
    }
}

fn what(trip: &TripReport) -> String {
    let (took, budget) = (Nanos::new(trip.duration_ns), Nanos::new(trip.budget_ns));
    if trip.cause == Cause::StarvedInput.to_string() {
        return format!("{}, an input is {took} old and may be {budget}", trip.cause);
    }
    let release = Nanos::new(trip.release_latency_ns);
    format!("{}, {took} of {budget}, begun {release} after its release", trip.cause)
}

/// What was counted, in a line.
fn seen(evidence: &EvidenceReport) -> String {
    let EvidenceReport { awake_ns, cpu_time_ns, slack_ns, parks, .. } = *evidence;
    let slack = match slack_ns {
        0 => String::new(),
        ns => format!(" ({parks} sleeps may have used {} of it)", Nanos::new(ns)),
    };
    format!(
        "{} on the CPU of {} awake{slack}; {} involuntary, {} voluntary switches; {} minor, {} \
         major faults",
        Nanos::new(cpu_time_ns),
        Nanos::new(awake_ns),
        evidence.involuntary_switches,
        evidence.voluntary_switches,
        evidence.minor_faults,
        evidence.major_faults,
    )
}

/// What went on on the core, in a line.
fn beside(around: &AroundReport) -> String {
    let ran_there = around.ran_there.as_ref().map_or_else(
        String::new,
        |RanThere { name, thread, rt_priority }| {
            format!("; {name} (thread {thread}, priority {rt_priority}) ran there")
        },
    );
    format!(
        "on its core in {}: {} interrupts, {} stolen{ran_there}",
        Nanos::new(around.window_ns),
        around.interrupts,
        Nanos::new(around.steal_ns),
    )
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
