//! One frame: the state of affairs as cells of a buffer of any size. Pure.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::page::{Drawn, Tone, columns};
use super::pages;
use super::state::{Top, View};
use crate::demo::short;

/// Lines of a page that fit a terminal of this height.
pub(crate) fn body_height(top: &Top, height: u16) -> usize {
    usize::from(height).saturating_sub(heading(top, 0).len() + 1)
}

pub(crate) fn draw(top: &Top, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(*buffer.area());
    if area.is_empty() {
        return;
    }
    let width = usize::from(area.width);
    let mut put = |row: usize, line: &Line<'_>| {
        if let Ok(row) = u16::try_from(row)
            && row < area.height
        {
            buffer.set_line(area.x, area.y + row, line, area.width);
        }
    };
    let mut row = 0;
    for line in heading(top, width) {
        put(row, &line);
        row += 1;
    }
    let page = top.page();
    let mut lines = page.lines(Some(width));
    let selected = top.selected_row(&page).and_then(|place| page.rows().nth(place));
    let selected = selected.map(|row| row.key.clone());
    let body = body_height(top, area.height);
    let skip = scroll(top, &lines, selected.as_deref(), body);
    let more_below = lines.len().saturating_sub(skip + body);
    for drawn in lines.iter_mut().skip(skip).take(body) {
        if drawn.key.is_some() && drawn.key == selected {
            fill(&mut drawn.line, width);
        }
        put(row, &drawn.line);
        row += 1;
    }
    // The last line of the terminal, however few the rows; not over the only one there is.
    if area.height > 1 {
        put(usize::from(area.height) - 1, &footer(top, width, more_below));
    }
}

/// The first line that is shown, so that the selected one is too.
fn scroll(top: &Top, lines: &[Drawn], selected: Option<&str>, body: usize) -> usize {
    let last = lines.len().saturating_sub(body);
    let Some(key) = selected else { return top.scroll.min(last) };
    let at = lines.iter().position(|drawn| drawn.key.as_deref() == Some(key)).unwrap_or(0);
    (at + 1).saturating_sub(body).min(last)
}

/// The selected line, over the whole width.
fn fill(line: &mut Line<'static>, width: usize) {
    let rest = width.saturating_sub(line.width());
    line.spans.push(Span::raw(" ".repeat(rest)));
    line.style = Style::new().add_modifier(Modifier::REVERSED);
}

fn heading(top: &Top, width: usize) -> Vec<Line<'static>> {
    let covers = match top.total {
        true => "since the start".to_owned(),
        false => format!("last {}", short(top.period)),
    };
    let nodes = match top.nodes.len() {
        1 => "1 node".to_owned(),
        nodes => format!("{nodes} nodes"),
    };
    let mut title = vec![
        Span::styled("sinew top", Tone::Heading.style()),
        Span::raw(format!("  {nodes}  {covers}  {}", top.sort.name())),
    ];
    if top.paused {
        title.push(Span::styled("  PAUSED", Tone::Warn.style()));
    }
    let mut tabs = Vec::new();
    for (n, view) in View::ALL.into_iter().enumerate() {
        let here = view == top.view && top.detail.is_none() && !top.help;
        let style = Style::new();
        let style = if here { style.add_modifier(Modifier::REVERSED) } else { style };
        tabs.push(Span::styled(format!(" {} {} ", n + 1, view.name()), style));
    }
    let place = match (&top.detail, top.help) {
        (_, true) => "  keys and signs".to_owned(),
        (Some(_), false) => "  one node (esc: back)".to_owned(),
        _ => String::new(),
    };
    tabs.push(Span::styled(place, Tone::Heading.style()));
    let mut lines = vec![Line::from(title), Line::from(tabs)];
    if let Some(brand) = pages::brand(top) {
        let rest = " ".repeat(width.saturating_sub(columns(&brand)));
        let style = Tone::Bad.style().add_modifier(Modifier::REVERSED);
        lines.push(Line::styled(brand + &rest, style));
    }
    lines
}

fn footer(top: &Top, width: usize, more_below: usize) -> Line<'static> {
    let more = if more_below > 0 { format!("{more_below} more below · ") } else { String::new() };
    let keys = "? help · q quit · enter node · t total · s sort · p pause";
    let left = match top.notes.front() {
        Some(note) => note.clone(),
        None => String::new(),
    };
    let right = format!("{more}{keys}");
    let room = width.saturating_sub(columns(&left));
    // News before keys, where both do not fit.
    let right = [right.as_str(), "? help · q quit", "? help", ""]
        .into_iter()
        .find(|text| text.is_empty() || columns(text) < room)
        .unwrap_or_default()
        .to_owned();
    let gap = " ".repeat(room.saturating_sub(columns(&right)));
    let left = Span::styled(left, Tone::Warn.style());
    Line::from(vec![left, Span::raw(gap), Span::styled(right, Tone::Dim.style())])
}
