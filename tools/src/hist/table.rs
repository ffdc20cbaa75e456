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

/// Panels: what brands them, who wrote them, their histograms and their last trips. Several stand
/// in one table, each stage of all of them together; or merged, as one.
pub(crate) fn panels(
    looks: &[Look],
    merged: Option<&Look>,
    stages: &[String],
    terminal: bool,
) -> String {
    let several = looks.len() > 1;
    let mut text = String::new();
    for Look { snapshot, .. } in looks {
        let name = if several { format!("{}: ", snapshot.name) } else { String::new() };
        let reasons = snapshot.not_real_time.iter().map(|reason| format!("{name}{reason}"));
        brand(&mut text, &reasons.collect::<Vec<_>>(), terminal);
    }
    for look in looks {
        let _ = writeln!(text, "{}", look.headline());
        if !look.snapshot.layout.is_empty() {
            let indent = if several { "  " } else { "" };
            let _ = writeln!(text, "{indent}{}", look.snapshot.layout);
        }
    }
    let _ = writeln!(text, "{}", histograms(looks, merged, stages, terminal).trim_fmt());
    trips(&mut text, looks, stages);
    let torn: u32 = looks.iter().map(|look| look.snapshot.torn).sum();
    if torn > 0 {
        let _ = writeln!(
            text,
            "{torn} records are left out: their writer was, or died, in the middle of them"
        );
    }
    text
}

fn histograms(looks: &[Look], merged: Option<&Look>, stages: &[String], terminal: bool) -> Table {
    let looks = merged.map_or(looks, std::slice::from_ref);
    let several = looks.len() > 1;
    let mut table = new_table(terminal);
    let names = ["stage", "kind", "node"];
    let names = names.into_iter().take(if several { 3 } else { 2 }).map(Cell::new);
    let figures = ["count", "p50", "p90", "p99", "p99.9", "p99.99", "max", "budget", "overruns"];
    table.set_header(names.chain(figures.map(right)));
    let mut rows: Vec<_> = looks
        .iter()
        .flat_map(|look| {
            let node = several.then_some(look.snapshot.name.as_str());
            report::rows(&look.snapshot, stages).into_iter().map(move |row| (node, row))
        })
        .collect();
    // The same of every node together, in the order in which the first of them has it.
    let names: Vec<_> = rows.iter().map(|(_, row)| (row.name.clone(), row.kind.clone())).collect();
    rows.sort_by_cached_key(|(_, row)| {
        names.iter().position(|(name, kind)| (name, kind) == (&row.name, &row.kind))
    });
    for (node, row) in &rows {
        add(&mut table, *node, row);
    }
    table
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

fn add(table: &mut Table, node: Option<&str>, row: &Row) {
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
    let names = [Some(row.name.as_str()), Some(row.kind.as_str()), node];
    let figures = [
        right(row.count),
        value(row.p50_ns),
        value(row.p90_ns),
        value(row.p99_ns),
        value(row.p99_9_ns),
        value(row.p99_99_ns),
        value(row.max_ns),
        right(span(row.budget_ns)),
        overruns,
    ];
    table.add_row(names.into_iter().flatten().map(Cell::new).chain(figures));
}

fn trips(text: &mut String, looks: &[Look], stages: &[String]) {
    let mut heading = "Last trips:\n";
    for look in looks {
        let node = if looks.len() > 1 { format!("{} ", look.snapshot.name) } else { String::new() };
        let trips = report::trips(&look.snapshot, stages);
        for probe in &look.snapshot.probes {
            let of_probe: Vec<_> = trips.iter().filter(|trip| trip.stage == probe.name).collect();
            for trip in of_probe.iter().rev().take(TRIPS_SHOWN) {
                let after = Nanos::new(trip.after_ns);
                let _ = writeln!(
                    text,
                    "{heading}  {node}{} #{}: {}, then {}, {after} after the start",
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
                let _ = writeln!(text, "  {node}{} hung {} times", probe.name, probe.hangs);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::{Interval, Life};
    use sinew_rt::guard::{Execution, Guard, GuardSpec};
    use sinew_rt::ladder::LadderConfig;
    use sinew_rt::panel::{Cause, EvidenceSnapshot, Kind, Panel, PanelSpec, State};

    const START: Nanos = Nanos::from_secs(1_000);

    /// Ten seconds of a node with a stage that overran once, and a topic without messages.
    fn look(name: &str, micros: i64, reasons: &[&str]) -> Look {
        let panel = Panel::anonymous(&PanelSpec::new(name)).unwrap();
        panel.set_layout("fused: receive+verify+deliver+send on core 1 (as configured)");
        panel.set_not_real_time(reasons);
        let spec = GuardSpec {
            budget: Nanos::from_micros(250),
            hard_limit: Nanos::from_secs(1),
            ladder: LadderConfig::report_only(),
        };
        let mut guard = Guard::new(panel.probe("verify", Some(1)).unwrap(), spec).unwrap();
        panel.recorder("arm/setpoint", Kind::Age).unwrap();
        for n in 0..1_000 {
            let at = START + Nanos::from_millis(10 * n);
            guard.enter(at);
            let took = Nanos::from_micros(if n == 700 { 310 } else { micros + n / 100 });
            guard.exit(at + took, Execution::Worked { released: at - Nanos::from_micros(3) });
        }
        let mut snapshot = panel.snapshot().unwrap();
        (snapshot.started_at, snapshot.taken_at) = (START, START + Nanos::from_secs(10));
        snapshot.process.pid = 4_711;
        for trip in &mut snapshot.trips {
            // The evidence of made-up instants says nothing; this would.
            trip.cause = Cause::OwnOverrun;
            trip.evidence = Some(EvidenceSnapshot {
                awake: Nanos::from_micros(940),
                cpu_time: Nanos::from_micros(935),
                involuntary_switches: 0,
                voluntary_switches: 3,
                parks: 3,
                minor_faults: 1,
                major_faults: 0,
                slack: Nanos::from_micros(30),
            });
        }
        let life = Life::Runs(State::Running);
        Look { path: name.into(), snapshot, life, interval: None }
    }

    #[test]
    fn one_node_is_a_table() {
        let text = panels(&[look("robot", 40, &["SCHED_FIFO 80 was refused"])], None, &[], false);
        insta::assert_snapshot!("one", text);
    }

    #[test]
    fn several_nodes_are_one_table_and_merged_ones_one_row() {
        let mut looks = [look("robot", 40, &[]), look("controller", 90, &["a test"])];
        looks[1].interval = Some(Interval { from: START, length: Nanos::from_secs(10) });
        insta::assert_snapshot!("several", panels(&looks, None, &[], false));
        let merged = super::super::merge::merge(&looks).unwrap();
        let text = panels(&looks, Some(&merged), &["verify".to_owned()], false);
        insta::assert_snapshot!("merged", text);
    }
}
