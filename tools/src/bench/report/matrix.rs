//! What a message costs from core to core.

use comfy_table::Table;
use serde::{Deserialize, Serialize};

use super::super::stats::Summary;
use super::text::{new_table, span};
use super::{Report, Run};

/// A hand-off from one core to another (or the same) in one way of waiting, at one pace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MatrixCell {
    pub(crate) from_core: u16,
    pub(crate) to_core: u16,
    /// How the receiver waits: `spinning` or `parked`.
    pub(crate) wait: String,
    /// When the next message leaves: `back-to-back` or `paced`.
    pub(crate) pace: String,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) count: u64,
}

/// The columns of the matrix as people read it: wait and pace.
const KINDS: [(&str, &str); 4] = [
    ("spinning", "back-to-back"),
    ("spinning", "paced"),
    ("parked", "back-to-back"),
    ("parked", "paced"),
];
/// More pairs of cores than this do not fit on a screen: then the fastest and the slowest are shown.
const ROWS: usize = 32;
const SHOWN_AT_EACH_END: usize = 10;

impl Run {
    /// Adds a cell to the matrix.
    pub(crate) fn cell(&mut self, cell: MatrixCell) {
        self.report.matrix.push(cell);
    }
}

impl MatrixCell {
    pub(crate) fn new(
        (from_core, to_core): (u16, u16),
        wait: &str,
        pace: &str,
        figures: &Summary,
    ) -> Self {
        let Summary { p50_ns, p99_ns, count, .. } = *figures;
        let (wait, pace) = (wait.to_owned(), pace.to_owned());
        Self { from_core, to_core, wait, pace, p50_ns, p99_ns, count }
    }
}

/// One row for each pair of cores: p50 and p99 in each column.
pub(super) fn matrix_table(report: &Report) -> Table {
    let matrix = &report.matrix;
    let header = KINDS.map(|(wait, pace)| format!("{wait}, {pace}"));
    let columns: Vec<&str> =
        ["cores (p50 · p99)"].into_iter().chain(header.iter().map(String::as_str)).collect();
    let mut table = new_table(&columns);
    let mut pairs: Vec<(u16, u16)> = Vec::new();
    for cell in matrix {
        let pair = (cell.from_core, cell.to_core);
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let find = |pair: (u16, u16), (wait, pace): (&str, &str)| {
        let of_pair = |cell: &&MatrixCell| (cell.from_core, cell.to_core) == pair;
        matrix.iter().filter(of_pair).find(|cell| cell.wait == wait && cell.pace == pace)
    };
    let row = |table: &mut Table, pair: (u16, u16)| {
        let cells = KINDS.map(|kind| match find(pair, kind) {
            Some(cell) => format!("{} · {}", span(cell.p50_ns), span(cell.p99_ns)),
            None => "–".to_owned(),
        });
        table.add_row([format!("{} → {}", pair.0, pair.1)].into_iter().chain(cells));
    };
    if pairs.len() <= ROWS {
        pairs.iter().for_each(|pair| row(&mut table, *pair));
        return table;
    }
    // By the first figure that a pair has: spinning, or parked where both share a core.
    let rank = |pair: &(u16, u16)| {
        KINDS.iter().find_map(|kind| find(*pair, *kind)).map_or(f64::MAX, |cell| cell.p50_ns)
    };
    pairs.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let slowest = pairs.len() - SHOWN_AT_EACH_END;
    pairs[..SHOWN_AT_EACH_END].iter().for_each(|pair| row(&mut table, *pair));
    let hidden = slowest - SHOWN_AT_EACH_END;
    table.add_row([format!("… {hidden} more between, in the JSON (`matrix`)")]);
    pairs[slowest..].iter().for_each(|pair| row(&mut table, *pair));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cores: u16) -> Report {
        let mut run = Run::elsewhere();
        for from_core in 0..cores {
            for to_core in (0..cores).filter(|to| *to != from_core) {
                run.cell(MatrixCell {
                    from_core,
                    to_core,
                    wait: "parked".to_owned(),
                    pace: "paced".to_owned(),
                    p50_ns: f64::from(1_000 + 10 * from_core + to_core),
                    p99_ns: 50_000.0,
                    count: 9,
                });
            }
        }
        run.report
    }

    #[test]
    fn each_pair_has_a_row_and_what_was_not_measured_is_no_zero() {
        let table = matrix_table(&report(2)).to_string();
        assert_eq!(table.lines().count(), 3, "{table}");
        let row = table.lines().find(|line| line.contains("1 → 0")).unwrap();
        assert!(row.trim_end().ends_with("1010 ns · 50.0 µs") && row.contains('–'), "{row}");
    }

    #[test]
    fn of_many_pairs_the_fastest_and_the_slowest_are_shown() {
        let table = matrix_table(&report(8)).to_string();
        assert_eq!(table.lines().count(), 1 + 10 + 1 + 10, "{table}");
        assert!(table.contains("… 36 more between"), "{table}");
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].contains("0 → 1") && lines[21].contains("7 → 6"), "{table}");
    }

    #[test]
    fn a_report_of_an_older_program_has_no_matrix_and_still_reads() {
        let report = report(2);
        let mut value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["matrix"][0]["p50_ns"], 1_001.0);
        assert_eq!(serde_json::from_value::<Report>(value.clone()).unwrap(), report);
        value.as_object_mut().unwrap().remove("matrix");
        assert!(serde_json::from_value::<Report>(value).unwrap().matrix.is_empty());
    }
}
