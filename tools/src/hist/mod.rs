//! `sinew hist`: how long every stage took, from the panel alone.
//!
//! The panel is mapped read-only; the process that writes it is never asked, and may be dead.

mod export;
mod report;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use hdrhistogram::Histogram;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::Kind;

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, JsonArgs};
use crate::panels::{Look, OpenPanel, PanelDir};
use crate::plot::{self, Curve, Style};
use report::Report;

pub(crate) use table::{brand, new_table, right};

/// Show how long every stage took, from the panel of a running or dead process.
///
/// Each guarded stage has two histograms: `execution` (end − start) and `release latency` (start −
/// release, how long work waited). Control loops add `wake-up`, topics add `age`. The panel is
/// mapped read-only: the process does not notice, and may have been killed. Without NODE, the
/// panels on this machine are listed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sinew hist                          which panels there are
  sinew hist robot                    a table of the node `robot`
  sinew hist robot --plot             and the percentile curves in the terminal
  sinew hist robot --stage verify --svg verify.svg
  sinew hist robot --follow           redrawn every second, until Ctrl-C
  sinew hist robot --hgrm out/        a file for each histogram, for HdrHistogram's plotter
  sinew hist robot --hlog robot.hlog  one interval log (with --follow: an interval a second)
  sinew hist robot.crashed.panel      after a crash

Exit codes: 0 shown · 2 wrong usage · 3 there is no such panel, or a file cannot be written")]
pub(crate) struct HistArgs {
    /// Names of nodes, or paths of panels
    #[arg(value_name = "NODE|FILE")]
    panels: Vec<String>,
    /// Only this stage, loop or topic (may be repeated)
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// Draw the percentile curves below the table
    #[arg(long)]
    plot: bool,
    /// Write the percentile curves as an SVG
    #[arg(long, value_name = "PATH", conflicts_with = "follow")]
    svg: Option<PathBuf>,
    /// Write HdrHistogram's percentile distributions: to PATH.hgrm, or one a histogram into DIR
    #[arg(long, value_name = "DIR|PATH", conflicts_with = "follow")]
    hgrm: Option<PathBuf>,
    /// Write HdrHistogram's interval log, in nanoseconds, with one tag a histogram
    #[arg(long, value_name = "PATH")]
    hlog: Option<PathBuf>,
    /// Redraw every second until Ctrl-C, or until the process ends
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

/// How often `--follow` looks.
const PERIOD: Duration = Duration::from_secs(1);

pub(crate) fn run(args: HistArgs) -> Outcome {
    if args.panels.is_empty() {
        return list(&args);
    }
    let open = args
        .panels
        .iter()
        .map(|wanted| OpenPanel::open(&args.dir.find(wanted)?))
        .collect::<Result<Vec<_>, _>>()?;
    if args.follow { follow(&args, &open) } else { once(&args, &open) }
}

fn list(args: &HistArgs) -> Outcome {
    let asked = [
        ("--stage", !args.stage.is_empty()),
        ("--plot", args.plot),
        ("--svg", args.svg.is_some()),
        ("--hgrm", args.hgrm.is_some()),
        ("--hlog", args.hlog.is_some()),
        ("--follow", args.follow),
    ];
    if let Some((option, _)) = asked.iter().find(|(_, asked)| *asked) {
        let problem = format!("{option} needs a panel: give the name of a node or a path");
        return Err(Failure::usage(format!("{problem} (`sinew hist` alone lists them)")));
    }
    let (panels, closed) = args.dir.list();
    let closed: Vec<_> = closed.into_iter().map(|closed| closed.why).collect();
    let listed = report::Listing::of(&panels, &closed);
    args.json.hand_out(|| table::listing(&listed), &listed)?;
    Ok(Exit::Done)
}

fn once(args: &HistArgs, open: &[OpenPanel]) -> Outcome {
    let looks = look(args, open)?;
    args.json.hand_out(|| text(args, &looks), &Report::of(&looks, &args.stage))?;
    if let Some(path) = &args.svg {
        let svg = svg(args, &looks).map_err(Failure::machine)?;
        output::write_file(path, svg.as_bytes())?;
    }
    if let Some(path) = &args.hgrm {
        export::hgrm(path, &series(args, &looks))?;
    }
    if let Some(path) = &args.hlog {
        let mut log = export::IntervalLog::create(path, &looks)?;
        log.lives(&looks, |look| chosen(args, look))?;
    }
    Ok(Exit::Done)
}

fn follow(args: &HistArgs, open: &[OpenPanel]) -> Outcome {
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody is left to tell when the loop below has ended by itself.
        let _ = stop.send(());
    })
    .map_err(|error| Failure::machine(format!("cannot wait for Ctrl-C: {error}")))?;
    let mut looks = look(args, open)?;
    let mut log = match &args.hlog {
        Some(path) => Some(export::IntervalLog::create(path, &looks)?),
        None => None,
    };
    loop {
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        output::print(&format!("{clear}{}", text(args, &looks)))?;
        if !looks.iter().any(|look| look.life.runs()) {
            return Ok(Exit::Done);
        }
        match stopped.recv_timeout(PERIOD) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            _ => return Ok(Exit::Done),
        }
        let before = std::mem::replace(&mut looks, look(args, open)?);
        if let Some(log) = &mut log {
            log.intervals(&before, &looks, |look| chosen(args, look))?;
        }
    }
}

/// Looks at all panels, each of which must have every stage that was asked for.
fn look(args: &HistArgs, open: &[OpenPanel]) -> Result<Vec<Look>, Failure> {
    let looks = open.iter().map(OpenPanel::look).collect::<Result<Vec<_>, _>>()?;
    let known = |name: &String| {
        looks.iter().any(|look| look.snapshot.histograms.iter().any(|h| h.name == *name))
    };
    if let Some(unknown) = args.stage.iter().find(|name| !known(name)) {
        let mut names: Vec<_> = looks
            .iter()
            .flat_map(|look| look.snapshot.histograms.iter().map(|h| h.name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        return Err(Failure::usage(format!(
            "no stage `{unknown}` in {}; there is {}",
            args.panels.join(", "),
            names.join(", ")
        )));
    }
    Ok(looks)
}

/// The histograms of a panel that were asked for, by their place in it.
fn chosen(args: &HistArgs, look: &Look) -> Vec<usize> {
    report::chosen(&look.snapshot, &args.stage)
}

/// One histogram of one panel, with the name that tells it from all others.
struct Series<'a> {
    panel: &'a str,
    name: &'a str,
    kind: Kind,
    histogram: &'a Histogram<u64>,
    max: Nanos,
}

fn series<'a>(args: &HistArgs, looks: &'a [Look]) -> Vec<Series<'a>> {
    let of_panel = |look: &'a Look| {
        chosen(args, look).into_iter().map(|index| {
            let histogram = &look.snapshot.histograms[index];
            Series {
                panel: &look.snapshot.name,
                name: &histogram.name,
                kind: histogram.kind,
                histogram: &histogram.hdr,
                max: histogram.max,
            }
        })
    };
    looks.iter().flat_map(of_panel).collect()
}

/// The curves with values, named as shortly as they can be told apart.
fn curves<'a>(looks: &[Look], series: &[Series<'a>]) -> Vec<Curve<'a>> {
    let filled = series.iter().filter(|series| !series.histogram.is_empty());
    let curve = |series: &Series<'a>| {
        let panel = if looks.len() > 1 { format!("{} ", series.panel) } else { String::new() };
        let name = format!("{panel}{} {}", series.name, series.kind);
        Curve { name, histogram: series.histogram, max: Some(series.max) }
    };
    filled.map(curve).collect()
}

fn svg(args: &HistArgs, looks: &[Look]) -> Result<String, String> {
    let names: Vec<_> = looks.iter().map(|look| look.snapshot.name.as_str()).collect();
    let reasons: Vec<_> =
        looks.iter().flat_map(|look| look.snapshot.not_real_time.iter().cloned()).collect();
    let title = format!("{}: latency by percentile", names.join(", "));
    plot::percentiles(&curves(looks, &series(args, looks)), &title, &reasons)
}

/// Lines of the plot without its labels.
const PLOT_HEIGHT: usize = 16;
/// Columns where there is no terminal to ask.
const PLOT_WIDTH: usize = 100;

fn text(args: &HistArgs, looks: &[Look]) -> String {
    let terminal = std::io::stdout().is_terminal();
    let mut text = String::new();
    for look in looks {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table::panel(look, &args.stage, terminal));
    }
    if args.plot {
        let style = match terminal && std::env::var_os("NO_COLOR").is_none() {
            true => Style::Colour,
            false => Style::Plain,
        };
        let width = table::width(terminal).map_or(PLOT_WIDTH, usize::from);
        let series = series(args, looks);
        text.push('\n');
        text.push_str(&plot::in_terminal(&curves(looks, &series), width, PLOT_HEIGHT, style));
    }
    text
}
