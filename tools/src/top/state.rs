//! What is shown and how: the nodes with their history, and what the keys have chosen. Changed by
//! sights of the panels and by keys only; knows no terminal and no clock.

use std::collections::{BTreeMap, VecDeque};

use sinew_rt::clock::Nanos;

use super::figures::Figures;
use super::page::Page;
use super::pages;
use super::watch::{Seen, Sight};
use crate::panels::{Look, name_of};

/// Sights that a sparkline can show.
pub(crate) const HISTORY: usize = 60;

/// Notes on nodes that came and went; the newest is shown.
const NOTES: usize = 8;

/// The pages that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Nodes,
    Stages,
    Loops,
    Traffic,
    Trips,
}

impl View {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nodes, Self::Stages, Self::Loops, Self::Traffic, Self::Trips];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Stages => "stages",
            Self::Loops => "loops",
            Self::Traffic => "traffic",
            Self::Trips => "trips",
        }
    }

    fn beside(self, step: usize) -> Self {
        let here = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL[(here + step) % Self::ALL.len()]
    }
}

/// In which order rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// By node, as the panel has it.
    Panel,
    /// The nearest to its budget first; without budgets, the slowest.
    Worst,
    /// The most per second first.
    Busiest,
}

impl Sort {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Panel => "by node",
            Self::Worst => "worst first",
            Self::Busiest => "busiest first",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Panel => Self::Worst,
            Self::Worst => Self::Busiest,
            Self::Busiest => Self::Panel,
        }
    }
}

/// What the user pressed, as far as it means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    Back,
    Help,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    NextView,
    LastView,
    View(View),
    Pause,
    Total,
    Sort,
    Faster,
    Slower,
}

/// A panel of the last sight.
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) shown: Result<Shown, String>,
}

/// A panel that could be read.
pub(crate) struct Shown {
    look: Look,
    pub(crate) total: Figures,
    /// `None` at the first sight of a process, and of one that is gone.
    pub(crate) interval: Option<Figures>,
    /// The last figures of the intervals, by what they are of.
    history: BTreeMap<String, VecDeque<Option<f64>>>,
}

impl Shown {
    fn new(look: Look, before: Option<Self>) -> Self {
        let interval = before.as_ref().and_then(|before| Figures::interval(&before.look, &look));
        let same = |before: &Self| before.look.snapshot.process == look.snapshot.process;
        let mut history = before.filter(same).map(|before| before.history).unwrap_or_default();
        if let Some(figures) = &interval {
            remember(&mut history, figures);
        }
        Self { total: Figures::total(&look), interval, look, history }
    }

    /// The last figures of what `key` names, oldest first.
    pub(crate) fn history(&self, key: &str) -> Vec<Option<f64>> {
        self.history.get(key).map(|values| values.iter().copied().collect()).unwrap_or_default()
    }
}

fn remember(history: &mut BTreeMap<String, VecDeque<Option<f64>>>, figures: &Figures) {
    let mut add = |key: String, value: Option<f64>| {
        let values = history.entry(key).or_default();
        values.push_back(value);
        if values.len() > HISTORY {
            values.pop_front();
        }
    };
    for stage in &figures.stages {
        add(pages::stage_key(&stage.name), stage.execution.p99_ns.map(|ns| ns as f64));
    }
    for one in &figures.loops {
        add(pages::loop_key(&one.name), one.lateness.p99_ns.map(|ns| ns as f64));
    }
    for topic in &figures.topics {
        add(pages::topic_key(topic.direction, &topic.name), topic.rate_hz);
    }
}

/// Everything that a frame is drawn from.
pub(crate) struct Top {
    pub(crate) nodes: Vec<Node>,
    /// Directories that this user may not list, and why.
    pub(crate) closed: Vec<String>,
    pub(crate) wanted: Option<String>,
    pub(crate) view: View,
    /// The path of the panel of which everything is shown.
    pub(crate) detail: Option<String>,
    /// Lines that are scrolled past, where no row is selected.
    pub(crate) scroll: usize,
    pub(crate) help: bool,
    pub(crate) paused: bool,
    /// Figures since the start instead of those of the last interval.
    pub(crate) total: bool,
    pub(crate) sort: Sort,
    pub(crate) period: Nanos,
    /// Key and place of the selected row.
    pub(crate) selected: Option<(String, usize)>,
    pub(crate) notes: VecDeque<String>,
    /// Lines of the page that fit the terminal.
    pub(crate) height: usize,
    seen_before: bool,
}

impl Top {
    pub(crate) const PERIOD_MIN: Nanos = Nanos::from_millis(100);
    pub(crate) const PERIOD_MAX: Nanos = Nanos::from_secs(60);

    pub(crate) fn new(wanted: Option<String>, period: Nanos, total: bool) -> Self {
        Self {
            nodes: Vec::new(),
            closed: Vec::new(),
            wanted,
            view: View::Nodes,
            detail: None,
            scroll: 0,
            help: false,
            paused: false,
            total,
            sort: Sort::Panel,
            period,
            selected: None,
            notes: VecDeque::new(),
            height: 20,
            seen_before: false,
        }
    }

    /// Takes in what was seen; intervals are since the last time.
    pub(crate) fn see(&mut self, sight: Sight) {
        let mut before: BTreeMap<String, Node> = std::mem::take(&mut self.nodes)
            .into_iter()
            .map(|node| (node.path.clone(), node))
            .collect();
        for Seen { path, look } in sight.panels {
            let (name, path) = (name_of(&path), path.display().to_string());
            let old = before.remove(&path);
            let old_shown = old.and_then(|old| old.shown.ok());
            let state = old_shown.as_ref().map(|old| old.look.life);
            let shown = look.map(|look| Shown::new(look, old_shown));
            if let Ok(shown) = &shown {
                let life = shown.look.life;
                match state {
                    Some(old) if old != life => self.note(format!("{name}: {life}")),
                    None if self.seen_before => self.note(format!("{name} came: {life}")),
                    _ => {}
                }
            }
            self.nodes.push(Node { path, name, shown });
        }
        for gone in before.into_values() {
            self.note(format!("{} ended, its panel is gone", gone.name));
        }
        self.closed = sight.closed;
        self.seen_before = true;
    }

    fn note(&mut self, note: String) {
        self.notes.push_front(note);
        self.notes.truncate(NOTES);
    }

    /// The figures of a node that the user wants to see: of the last interval where there is one.
    pub(crate) fn figures<'a>(&self, shown: &'a Shown) -> &'a Figures {
        match &shown.interval {
            Some(interval) if !self.total => interval,
            _ => &shown.total,
        }
    }

    /// The nodes that can be read, with what is to be shown of them.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (&Node, &Shown, &Figures)> {
        self.nodes.iter().filter_map(|node| {
            let shown = node.shown.as_ref().ok()?;
            Some((node, shown, self.figures(shown)))
        })
    }

    pub(crate) fn page(&self) -> Page {
        if self.help {
            return pages::help();
        }
        match &self.detail {
            Some(path) => pages::detail(self, path),
            None => pages::view(self, self.view),
        }
    }

    /// The place of the selected row among the rows of this page; a row that went leaves its place
    /// to its successor.
    pub(crate) fn selected_row(&self, page: &Page) -> Option<usize> {
        if self.help || self.detail.is_some() {
            return None;
        }
        let rows = page.rows().count();
        let (key, place) = self.selected.as_ref().map_or(("", 0), |(key, n)| (key.as_str(), *n));
        let found = page.rows().position(|row| row.key == key);
        found.or_else(|| rows.checked_sub(1).map(|last| place.min(last)))
    }

    /// Answers a key; `false` when it was the last.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit => return false,
            Key::Back if self.help => self.help = false,
            Key::Back if self.detail.is_some() => self.detail = None,
            Key::Back => {}
            Key::Help => (self.help, self.scroll) = (!self.help, 0),
            Key::Pause => self.paused = !self.paused,
            Key::Total => self.total = !self.total,
            Key::Sort => self.sort = self.sort.next(),
            Key::Faster => self.period = (self.period / 2).max(Self::PERIOD_MIN),
            Key::Slower => self.period = (self.period * 2).min(Self::PERIOD_MAX),
            Key::NextView => self.show(self.view.beside(1)),
            Key::LastView => self.show(self.view.beside(View::ALL.len() - 1)),
            Key::View(view) => self.show(view),
            Key::Enter => self.enter(),
            Key::Up => self.go(|at, _| at.saturating_sub(1)),
            Key::Down => self.go(|at, _| at + 1),
            Key::PageUp => self.go(|at, height| at.saturating_sub(height)),
            Key::PageDown => self.go(|at, height| at + height),
            Key::Home => self.go(|_, _| 0),
            Key::End => self.go(|_, _| usize::MAX),
        }
        true
    }

    fn show(&mut self, view: View) {
        self.view = view;
        (self.help, self.detail, self.selected, self.scroll) = (false, None, None, 0);
    }

    fn enter(&mut self) {
        let page = self.page();
        if let Some(row) = self.selected_row(&page).and_then(|place| page.rows().nth(place)) {
            self.detail = Some(row.node.clone());
            self.scroll = 0;
        }
    }

    /// Moves the selection, or the page where nothing is selected.
    fn go(&mut self, to: impl Fn(usize, usize) -> usize) {
        let page = self.page();
        let height = self.height.max(1);
        match self.selected_row(&page) {
            Some(place) => {
                let rows: Vec<_> = page.rows().collect();
                let place = to(place, height).min(rows.len() - 1);
                self.selected = Some((rows[place].key.clone(), place));
            }
            None => {
                let last = page.lines(None).len().saturating_sub(height);
                self.scroll = to(self.scroll.min(last), height).min(last);
            }
        }
    }
}
