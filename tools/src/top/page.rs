//! A page of tables as plain data, and how it becomes lines of a given width. Knows nothing of
//! nodes, and nothing of the terminal.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// What a text means; colours follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Heading,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Tone {
    pub(crate) fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().add_modifier(Modifier::BOLD),
            Self::Dim => Style::new().add_modifier(Modifier::DIM),
            Self::Good => Style::new().fg(Color::Green),
            Self::Warn => Style::new().fg(Color::Yellow),
            Self::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String, Tone),
    /// A share of a budget: the p99 filled, up to the maximum shaded.
    Bar {
        share: f64,
        share_max: f64,
    },
    /// The last figures, oldest first; `None` is a time without any.
    Spark(Vec<Option<f64>>),
}

impl Cell {
    pub(crate) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string(), Tone::Plain)
    }

    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self::Text(text.to_string(), tone)
    }

    pub(crate) fn dash() -> Self {
        Self::Text("–".to_owned(), Tone::Dim)
    }

    /// Columns that it would like to have.
    fn natural(&self) -> usize {
        match self {
            Self::Text(text, _) => columns(text),
            Self::Bar { .. } => BAR + PERCENT,
            Self::Spark(values) => values.len(),
        }
    }

    fn span(&self, width: usize) -> Span<'static> {
        match self {
            Self::Text(text, tone) => Span::styled(cut(text, width), tone.style()),
            Self::Bar { share, share_max } => {
                Span::styled(bar(*share, *share_max), share_tone(*share_max).style())
            }
            Self::Spark(values) => Span::styled(spark(values, width), Tone::Good.style()),
        }
    }
}

/// Columns of a bar, and of the number behind it.
const BAR: usize = 6;
const PERCENT: usize = 6;

/// How a share of a budget is meant.
pub(crate) fn share_tone(share: f64) -> Tone {
    match share {
        share if share > 1.0 => Tone::Bad,
        share if share > 0.8 => Tone::Warn,
        _ => Tone::Good,
    }
}

fn bar(share: f64, share_max: f64) -> String {
    let filled = |share: f64| (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let (p99, max) = (filled(share), filled(share_max).max(filled(share)));
    let text = "█".repeat(p99) + &"▒".repeat(max - p99) + &"·".repeat(BAR - max);
    let percent = match (share * 100.0).round() {
        percent if percent <= 999.0 => format!("{percent} %"),
        _ => ">999 %".to_owned(),
    };
    format!("{text}{percent:>PERCENT$}")
}

/// The newest values that fit, scaled to the greatest of them.
fn spark(values: &[Option<f64>], width: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let greatest = shown.iter().flatten().copied().fold(0.0, f64::max);
    let step = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if greatest > 0.0 => {
            let step = (value / greatest * STEPS.len() as f64).ceil() as usize;
            STEPS[step.clamp(1, STEPS.len()) - 1]
        }
        Some(_) => STEPS[0],
    };
    shown.iter().map(step).collect()
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) head: &'static str,
    /// Numbers stand at the right.
    pub(crate) right: bool,
    /// Where there is not enough room, the columns of the least rank go first; 0 never goes.
    pub(crate) rank: u8,
}

impl Column {
    pub(crate) const fn left(head: &'static str, rank: u8) -> Self {
        Self { head, right: false, rank }
    }

    pub(crate) const fn right(head: &'static str, rank: u8) -> Self {
        Self { head, right: true, rank }
    }
}

/// A line of a table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What is selected when this line is: stays the same when the order changes.
    pub(crate) key: String,
    /// The panel that it is about.
    pub(crate) node: String,
    pub(crate) cells: Vec<Cell>,
}

/// A table, or some lines of text, under a title.
#[derive(Clone, Debug)]
pub(crate) enum Section {
    Table { title: String, columns: &'static [Column], rows: Vec<Row> },
    Text { lines: Vec<(String, Tone)> },
}

/// Everything of one view, of any length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) sections: Vec<Section>,
}

/// A line that is ready to be drawn.
pub(crate) struct Drawn {
    pub(crate) line: Line<'static>,
    /// The key of its row.
    pub(crate) key: Option<String>,
}

impl Page {
    pub(crate) fn table(
        &mut self,
        title: impl ToString,
        columns: &'static [Column],
        rows: Vec<Row>,
    ) {
        if !rows.is_empty() {
            self.sections.push(Section::Table { title: title.to_string(), columns, rows });
        }
    }

    pub(crate) fn text(&mut self, lines: Vec<(String, Tone)>) {
        if !lines.is_empty() {
            self.sections.push(Section::Text { lines });
        }
    }

    /// The rows that can be selected, from above.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| match section {
            Section::Table { rows, .. } => rows.as_slice(),
            Section::Text { .. } => &[],
        })
    }

    /// The lines; `width` is `None` where they may be as long as they need.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<Drawn> {
        let mut lines = Vec::new();
        let plain = |line| Drawn { line, key: None };
        for section in &self.sections {
            if !lines.is_empty() {
                lines.push(plain(Line::default()));
            }
            match section {
                Section::Text { lines: texts } => {
                    for (text, tone) in texts {
                        let text = cut(text, width.unwrap_or(usize::MAX));
                        lines.push(plain(Line::styled(text, tone.style())));
                    }
                }
                Section::Table { title, columns, rows } => {
                    if !title.is_empty() {
                        lines.push(plain(Line::styled(title.clone(), Tone::Heading.style())));
                    }
                    table(columns, rows, width, &mut lines);
                }
            }
        }
        lines
    }
}

/// Columns between columns, and where there is little room.
const GAP: usize = 2;
const GAP_MIN: usize = 1;

fn table(columns: &'static [Column], rows: &[Row], width: Option<usize>, lines: &mut Vec<Drawn>) {
    let natural = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.cells.get(index));
        let widest = cells.map(Cell::natural).max().unwrap_or(0);
        if widest == 0 { 0 } else { widest.max(self::columns(columns[index].head)) }
    };
    // A column without anything in it is left out.
    let mut shown: Vec<_> =
        (0..columns.len()).map(|n| (n, natural(n))).filter(|(_, width)| *width > 0).collect();
    let gap = width.map_or(GAP, |width| fit(columns, rows, &mut shown, width));
    let line = |cell: &dyn Fn(usize, usize) -> Span<'static>| {
        let mut spans = Vec::new();
        for (n, (index, width)) in shown.iter().enumerate() {
            if n > 0 {
                spans.push(Span::raw(" ".repeat(gap)));
            }
            let text = cell(*index, *width);
            let space = Span::raw(" ".repeat(width.saturating_sub(text.width())));
            spans.extend(if columns[*index].right { [space, text] } else { [text, space] });
        }
        Line::from(spans)
    };
    let underlined = Style::new().add_modifier(Modifier::UNDERLINED);
    let heads = line(&|index, width| Span::styled(cut(columns[index].head, width), underlined));
    lines.push(Drawn { line: heads, key: None });
    for row in rows {
        let cells = |index: usize, width| {
            row.cells.get(index).map_or_else(Span::default, |cell| cell.span(width))
        };
        lines.push(Drawn { line: line(&cells), key: Some(row.key.clone()) });
    }
}

/// The least width of a sparkline that still says something, and of a name that is cut.
const SPARK_MIN: usize = 6;
const NAME_MIN: usize = 12;

/// Makes the columns fit and gives the gap between them: first the gaps and sparklines shrink, then
/// names are cut, then columns go by their rank.
fn fit(columns: &[Column], rows: &[Row], shown: &mut Vec<(usize, usize)>, width: usize) -> usize {
    let over = |shown: &[(usize, usize)], gap: usize| {
        let total = shown.iter().map(|(_, width)| width + gap).sum::<usize>();
        total.saturating_sub(gap).saturating_sub(width)
    };
    if over(shown, GAP) == 0 {
        return GAP;
    }
    let is_spark =
        |index: usize| rows.iter().any(|row| matches!(row.cells.get(index), Some(Cell::Spark(_))));
    let shrink = |shown: &mut [(usize, usize)], which: &dyn Fn(usize) -> bool, least: usize| {
        for n in 0..shown.len() {
            let over = over(shown, GAP_MIN);
            let (index, width) = &mut shown[n];
            if which(*index) {
                *width = width.saturating_sub(over).max(least.min(*width));
            }
        }
    };
    loop {
        shrink(shown, &is_spark, SPARK_MIN);
        shrink(shown, &|index| columns[index].rank == 0, NAME_MIN);
        if over(shown, GAP_MIN) == 0 {
            return GAP_MIN;
        }
        let least = shown.iter().map(|(index, _)| columns[*index].rank).filter(|rank| *rank > 0);
        match least.min() {
            Some(rank) => shown.retain(|(index, _)| columns[*index].rank != rank),
            // Only names are left: what does not fit is cut off at the edge.
            None => return GAP_MIN,
        }
    }
}

/// Columns of a text on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// What fits, with a mark where something was cut off.
fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if columns(&kept) >= width {
            kept.pop();
            break;
        }
    }
    if width > 0 { kept + "…" } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_budget_and_says_how_far_it_is_over() {
        assert_eq!(bar(0.5, 0.7), "███▒··  50 %");
        assert_eq!(bar(1.0, 3.0), "██████ 100 %");
        assert_eq!(bar(20.0, 30.0), "██████>999 %");
        assert_eq!(bar(0.0, 0.0), "······   0 %");
    }

    #[test]
    fn a_sparkline_is_scaled_to_what_it_shows_and_has_holes_where_nothing_was() {
        assert_eq!(spark(&[Some(100.0), Some(1.0), None, Some(8.0)], 3), "▁ █");
        assert_eq!(spark(&[Some(0.0), Some(0.0)], 9), "▁▁");
        assert_eq!(spark(&[Some(50.0), Some(100.0)], 2), "▄█");
        assert_eq!(spark(&[], 5), "");
    }

    #[test]
    fn a_text_is_cut_at_a_column_of_the_terminal() {
        assert_eq!(cut("µµµµ", 4), "µµµµ");
        assert_eq!(cut("µµµµµ", 4), "µµµ…");
        assert_eq!(cut("関節関節", 5), "関節…", "two columns each");
        assert_eq!((cut("x", 0), cut("xy", 1)), (String::new(), "…".to_owned()));
    }
}
