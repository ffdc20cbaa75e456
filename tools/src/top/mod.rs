//! `sinew top`: every node on this machine, live, from the panels alone.
//!
//! `watch` reads panels, `figures` makes numbers of them, `state` holds what is shown and answers
//! keys, `pages` and `page` lay it out, `draw` makes a frame and `terminal` shows it.

mod draw;
mod figures;
mod page;
mod pages;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;
use sinew_rt::clock::Nanos;

use crate::exit::{Exit, Outcome};
use crate::output::JsonArgs;
use crate::panels::PanelDir;
use state::Top;
use watch::Watch;

/// Watch every node on this machine: stages and their budgets, control loops, messages, trips.
///
/// Figures are those of the last interval (one second), or since the start of each process. The
/// panels are mapped read-only: no process notices, and one that was killed shows its last
/// figures. `?` explains the keys and signs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew top                        every node, until q
  sinew top robot                  one node; waits for it where it does not run yet
  sinew top --once                 one second's figures as text, for scripts
  sinew top --once --total         those since the start, at once
  sinew top --json -               the same for programs
  sinew top --interval-ms 250      look four times a second

Keys: 1-5 or tab nodes, stages, loops, traffic, trips · arrows or j k · enter a node · t interval or
total · s order · p pause · + - how often · ? help · q quit

Exit codes: 0 shown · 2 wrong usage, or no terminal to draw on · 3 there is no such panel, or the
terminal or file refuses")]
pub(crate) struct TopArgs {
    /// Name of a node, or path of its panel
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Print one interval's figures as text and end
    #[arg(long)]
    once: bool,
    /// Show figures since the start of each process instead of the last interval's
    #[arg(long)]
    total: bool,
    /// How often to look, in milliseconds: 100 to 60000
    #[arg(long, value_name = "MS", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(100..=60_000))]
    interval_ms: u32,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

pub(crate) fn run(args: TopArgs) -> Outcome {
    let period = Nanos::from_millis(i64::from(args.interval_ms));
    let mut top = Top::new(args.node.clone(), period, args.total);
    if args.once || args.json.is_asked() {
        if let Some(wanted) = &args.node {
            args.dir.find(wanted)?;
        }
        let mut watch = Watch::new(args.dir, args.node);
        top.see(watch.look());
        if !args.total {
            std::thread::sleep(Duration::from(period));
            top.see(watch.look());
        }
        return once(&top, &args.json);
    }
    terminal::check()?;
    let watch = Watch::new(args.dir, args.node);
    terminal::run(top, watch)
}

fn once(top: &Top, json: &JsonArgs) -> Outcome {
    json.hand_out(|| text(top, std::io::stdout().is_terminal()), &Report::of(top))?;
    Ok(Exit::Done)
}

/// Everything at once, each line as long as it needs to be.
fn text(top: &Top, terminal: bool) -> String {
    let mut text = String::new();
    for (_, _, figures) in top.readable() {
        let reasons = figures.not_real_time.iter();
        let reasons: Vec<_> = reasons.map(|reason| format!("{}: {reason}", figures.name)).collect();
        crate::hist::brand(&mut text, &reasons, terminal);
    }
    for drawn in pages::everything(top).lines(None) {
        let line: String = drawn.line.spans.iter().map(|span| span.content.as_ref()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What `--json` says. `docs/top.md` describes the fields.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    report: &'static str,
    nodes: Vec<&'a figures::Figures>,
    unreadable: Vec<&'a str>,
}

impl<'a> Report<'a> {
    fn of(top: &'a Top) -> Self {
        let panels = top.nodes.iter().filter_map(|node| node.shown.as_ref().err());
        Self {
            version: 1,
            report: "top",
            nodes: top.readable().map(|(_, _, figures)| figures).collect(),
            unreadable: panels.chain(&top.closed).map(String::as_str).collect(),
        }
    }
}
