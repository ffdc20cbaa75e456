//! Percentile curves as characters: braille dots in colour on a terminal, letters elsewhere.

use std::fmt::Write as _;

use super::{Curve, Frame, steps};

/// How a plot may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Braille, and each curve in a colour of its own.
    Colour,
    /// A letter for each curve, without any escape sequence: for files and pipes.
    Plain,
}

/// Width of the latency labels with their axis.
const MARGIN: usize = 9;
/// ANSI colours, the readable ones on dark and on light ground first.
const COLOURS: [u8; 7] = [36, 33, 32, 35, 34, 31, 37];
/// The bits of a braille character by column and row of its dots (Unicode 2800).
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// The plot in lines, `width` columns wide and `height` lines high without its labels and legend.
pub(crate) fn in_terminal(
    curves: &[Curve<'_>],
    width: usize,
    height: usize,
    style: Style,
) -> String {
    let frame = Frame::around(curves);
    let (columns, rows) = (width.saturating_sub(MARGIN + 1).max(20), height.max(4));
    let mut canvas = Canvas::new(columns, rows);
    for (index, curve) in curves.iter().enumerate() {
        canvas.draw(index, &steps(curve.histogram), &frame);
    }
    let mut text = String::new();
    let latencies = frame.latencies();
    for row in 0..rows {
        let mark = latencies.iter().find(|(log, _)| canvas.row_of(*log, &frame) == row);
        let (label, axis) = mark.map_or(("", '│'), |(_, label)| (label.as_str(), '┤'));
        let _ = writeln!(text, "{label:>MARGIN$}{axis}{}", canvas.row(row, style));
    }
    let mut axis = vec!['─'; columns];
    let mut labels = String::new();
    for (nines, label) in frame.percentiles() {
        let column = ((nines / frame.nines) * (columns - 1) as f64).round() as usize;
        // A label that would run into the one before it is left out, and its tick with it.
        let begin = column.saturating_sub(label.chars().count() / 2);
        let used = labels.chars().count();
        if (begin > used || used == 0) && begin + label.chars().count() <= columns {
            let _ = write!(labels, "{}{label}", " ".repeat(begin - used));
            axis[column] = '┴';
        }
    }
    let _ = writeln!(text, "{}└{}", " ".repeat(MARGIN), axis.iter().collect::<String>());
    let _ = writeln!(text, "{} {labels}", " ".repeat(MARGIN));
    for (index, curve) in curves.iter().enumerate() {
        let sample = match style {
            Style::Colour => paint(index, "──"),
            Style::Plain => letter(index).to_string(),
        };
        let empty = if curve.histogram.is_empty() { " (no values)" } else { "" };
        let _ = writeln!(text, "{} {sample} {}{empty}", " ".repeat(MARGIN), curve.name);
    }
    text
}

fn letter(index: usize) -> char {
    char::from(b'a' + (index % 26) as u8)
}

fn paint(index: usize, text: &str) -> String {
    format!("\x1b[{}m{text}\x1b[0m", COLOURS[index % COLOURS.len()])
}

/// Characters with the dots that are set in them, and whose curve set the last.
struct Canvas {
    columns: usize,
    rows: usize,
    cells: Vec<(u8, usize)>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, cells: vec![(0, 0); columns * rows] }
    }

    fn draw(&mut self, curve: usize, line: &[(f64, f64)], frame: &Frame) {
        let mut before = None;
        for &(nines, log) in line {
            let at = (self.dot_of(nines, frame), self.height_of(log, frame));
            for (x, y) in between(before.unwrap_or(at), at) {
                self.set(x, y, curve);
            }
            before = Some(at);
        }
    }

    fn dot_of(&self, nines: f64, frame: &Frame) -> usize {
        let dots = (2 * self.columns - 1) as f64;
        (nines / frame.nines * dots).round().clamp(0.0, dots) as usize
    }

    /// Dots from the top.
    fn height_of(&self, log: f64, frame: &Frame) -> usize {
        let dots = (4 * self.rows - 1) as f64;
        let share = (frame.highest - log) / (frame.highest - frame.lowest);
        (share * dots).round().clamp(0.0, dots) as usize
    }

    fn row_of(&self, log: f64, frame: &Frame) -> usize {
        self.height_of(log, frame) / 4
    }

    fn set(&mut self, x: usize, y: usize, curve: usize) {
        let cell = &mut self.cells[y / 4 * self.columns + x / 2];
        *cell = (cell.0 | DOTS[x % 2][y % 4], curve);
    }

    fn row(&self, row: usize, style: Style) -> String {
        let cells = &self.cells[row * self.columns..][..self.columns];
        let mut text = String::new();
        for &(dots, curve) in cells {
            match (dots, style) {
                (0, _) => text.push(' '),
                (_, Style::Plain) => text.push(letter(curve)),
                (dots, Style::Colour) => {
                    let braille = char::from_u32(0x2800 + u32::from(dots)).unwrap_or('*');
                    text.push_str(&paint(curve, braille.encode_utf8(&mut [0; 4])));
                }
            }
        }
        text.trim_end().to_owned()
    }
}

/// The dots on a horizontal or vertical stroke; all strokes of steps are.
fn between(from: (usize, usize), to: (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    let horizontal = (from.0.min(to.0)..=from.0.max(to.0)).map(move |x| (x, from.1));
    let vertical = (from.1.min(to.1)..=from.1.max(to.1)).map(move |y| (to.0, y));
    horizontal.chain(vertical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::example;

    #[test]
    fn a_plain_plot_shows_where_each_curve_runs() {
        let (low, high) = (example([(2_000, 10_000)]), example([(50_000, 9_990), (900_000, 10)]));
        let curves = [Curve::new("receive", &low), Curve::new("verify", &high)];
        let text = in_terminal(&curves, 60, 9, Style::Plain);
        let expected = [
            "     1 ms┤                                  bbbbbbbbbbbbbbbb",
            "         │                                  b",
            "         │                                  b",
            "   100 µs┤                                  b",
            "         │bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "         │",
            "    10 µs┤",
            "         │",
            "         │aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "         └┴──────────┴───────────┴──────────┴───────────┴───",
            "          0 %      90 %        99 %      99.9 %      99.99 %",
            "          a receive",
            "          b verify",
        ];
        assert!(text.lines().eq(expected), "\n{text}");
    }

    #[test]
    fn a_coloured_plot_has_a_colour_for_each_curve() {
        let (low, high) = (example([(2_000, 10_000)]), example([(50_000, 9_990), (900_000, 10)]));
        let curves = [Curve::new("receive", &low), Curve::new("verify", &high)];
        // Escape sequences as text, so that the page can be read.
        let text = in_terminal(&curves, 60, 9, Style::Colour).replace('\x1b', "ESC");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn no_line_is_wider_than_asked_for_and_only_colour_has_escapes() {
        let histogram = example((1..200).map(|n| (n * 997, 200 - n)));
        let curves = [Curve::new("loop", &histogram)];
        let plain = in_terminal(&curves, 72, 12, Style::Plain);
        assert!(plain.lines().all(|line| line.chars().count() <= 72));
        assert!(!plain.contains('\x1b'));
        let colour = in_terminal(&curves, 72, 12, Style::Colour);
        assert!(
            colour.contains('\x1b')
                && colour.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
        );
    }

    #[test]
    fn tiny_terminals_and_empty_histograms_are_drawn_too() {
        let histogram = example([]);
        let curves = [Curve::new("idle", &histogram)];
        assert!(in_terminal(&curves, 0, 0, Style::Plain).contains("idle (no values)"));
        assert!(!in_terminal(&[], 80, 10, Style::Colour).is_empty());
    }
}
