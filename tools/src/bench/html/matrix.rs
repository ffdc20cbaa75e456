//! What a hand-off takes between each two cores, as a table whose colours show the distances.

use std::fmt::Write as _;

use super::super::report::MatrixCell;
use super::draw::Escaped;
use super::span;

/// More cores than this have no room for a number in each cell; the colours and the values under
/// the pointer remain.
const NUMBERED: usize = 12;

/// One table for each way of waiting and pace.
pub(super) fn matrices(cells: &[MatrixCell]) -> String {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for cell in cells {
        let kind = (cell.wait.as_str(), cell.pace.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>From core to core</h2>\n<div class=\"matrices\">\n".to_owned();
    for (wait, pace) in kinds {
        let of_kind: Vec<_> =
            cells.iter().filter(|cell| cell.wait == wait && cell.pace == pace).collect();
        html.push_str(&matrix(&format!("{wait}, {pace}: median (99th percentile)"), &of_kind));
    }
    html.push_str("</div>\n</section>\n");
    html
}

fn matrix(caption: &str, cells: &[&MatrixCell]) -> String {
    let sorted = |core: fn(&MatrixCell) -> u16| {
        let mut cores: Vec<_> = cells.iter().map(|cell| core(cell)).collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    };
    let (from, to) = (sorted(|cell| cell.from_core), sorted(|cell| cell.to_core));
    let log = |cell: &&MatrixCell| cell.p50_ns.max(1.0).ln();
    let lowest = cells.iter().map(log).fold(f64::INFINITY, f64::min);
    let highest = cells.iter().map(log).fold(f64::NEG_INFINITY, f64::max);
    let numbered = to.len() <= NUMBERED;
    let mut html = format!(
        "<table class=\"matrix\"><caption>{}</caption><thead><tr><th>from \\ to</th>",
        Escaped(caption)
    );
    to.iter().for_each(|core| html.push_str(&format!("<th>{core}</th>")));
    html.push_str("</tr></thead><tbody>\n");
    for from in from {
        let _ = write!(html, "<tr><th>{from}</th>");
        for to in &to {
            let cell = cells.iter().find(|cell| cell.from_core == from && cell.to_core == *to);
            let Some(cell) = cell else {
                html.push_str("<td></td>");
                continue;
            };
            let width = highest - lowest;
            let share = if width > 0.0 { (log(cell) - lowest) / width } else { 0.0 };
            let [p50, p99] = [cell.p50_ns, cell.p99_ns].map(span);
            let text = if numbered { format!("{p50}<small>{p99}</small>") } else { String::new() };
            let _ = write!(
                html,
                "<td style=\"{}\" title=\"{from} → {to}: p50 {p50}, p99 {p99}, n = {}\">{text}</td>",
                colour(share),
                cell.count
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table>\n");
    html
}

/// From light for the shortest to dark for the longest, which also a grey print shows.
fn colour(share: f64) -> String {
    let (light, dark) = ([235.0, 244.0, 250.0], [8.0, 69.0, 120.0]);
    let mixed = [0, 1, 2].map(|n: usize| (light[n] + (dark[n] - light[n]) * share).round());
    let ink = if share > 0.45 { "#fff" } else { "#10202c" };
    format!("background:rgb({},{},{});color:{ink}", mixed[0], mixed[1], mixed[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_matrix_and_the_diagonal_stays_empty() {
        let cell = |from_core, to_core, wait: &str, p50_ns| MatrixCell {
            from_core,
            to_core,
            wait: wait.to_owned(),
            pace: "every <1 ms>".to_owned(),
            p50_ns,
            p99_ns: 2.0 * p50_ns,
            count: 1_000,
        };
        let html = matrices(&[
            cell(0, 1, "spinning", 120.0),
            cell(1, 0, "spinning", 240.0),
            cell(0, 1, "parked", 5_000.0),
        ]);
        assert_eq!(html.matches("<table").count(), 2);
        assert_eq!(html.matches("<td></td>").count(), 2, "{html}");
        assert!(html.contains("every &lt;1 ms&gt;"));
        assert!(html.contains("0 → 1: p50 120 ns, p99 240 ns, n = 1000"));
        assert!(html.contains(&colour(0.0)) && html.contains(&colour(1.0)));
        assert_eq!(matrices(&[]), "");
    }
}
