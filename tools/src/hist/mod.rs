//! `sinew hist`: how long every stage took, from the panel alone.
//!
//! The panel is mapped read-only; the process that writes it is never asked, and may be dead.

pub(crate) mod export;
mod merge;
mod report;
mod save;
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

pub(crate) use report::{TripReport, trips};
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
  sinew hist robot controller         side by side in one table
  sinew hist arm1 arm2 arm3 --merge   all three as one
  sinew hist robot --during-seconds 10      only what the next ten seconds bring
  sinew hist robot --save before.panel      a copy to compare with, or to send
  sinew hist --diff before.panel robot      only what came since

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
    /// Redraw until Ctrl-C, or until the process ends
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
    /// How often --follow redraws and logs an interval, in seconds
    #[arg(long, value_name = "N", requires = "follow", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    interval_seconds: u32,
    /// Only what is recorded from now on for so long, in seconds; Ctrl-C ends it early
    #[arg(long, value_name = "N", conflicts_with = "follow",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    during_seconds: Option<u32>,
    /// Only what the second of two panels has beyond the first: two moments of one process
    #[arg(long, conflicts_with_all = ["follow", "during_seconds", "merge"])]
    diff: bool,
    /// Add up what several panels have under one name
    #[arg(long)]
    merge: bool,
    /// Copy the panel to a new file, or several into a directory, to read or compare later
    #[arg(long, value_name = "PATH|DIR", conflicts_with_all = ["follow", "during_seconds", "diff"])]
    save: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    dir: PanelDir,
}

pub(crate) fn run(args: HistArgs) -> Outcome {
    if args.panels.is_empty() {
        return list(&args);
    }
    let several = args.panels.len();
    if args.diff && several != 2 {
        return Err(Failure::usage(format!(
            "--diff compares two moments, and {several} panels are given: first the earlier, as \
             `--save` copied it, then the later or the node itself"
        )));
    }
    if args.merge && several < 2 {
        return Err(Failure::usage("--merge adds up several panels, and one is given"));
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
        ("--during-seconds", args.during_seconds.is_some()),
        ("--diff", args.diff),
        ("--merge", args.merge),
        ("--save", args.save.is_some()),
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
    let mut looks = look(args, open)?;
    if let Some(seconds) = args.during_seconds {
        let ctrl_c = ctrl_c()?;
        if std::io::stderr().is_terminal() {
            eprintln!("recording for {seconds} s; Ctrl-C ends it and shows what came so far");
        }
        // Either way it is over.
        let _ = ctrl_c.recv_timeout(Duration::from_secs(seconds.into()));
        looks = since(&looks, &look(args, open)?)?;
    }
    if args.diff {
        looks = vec![looks[1].recorded_since(&looks[0])?];
    }
    let merged = if args.merge { Some(merge::merge(&looks)?) } else { None };
    // What curves and files are of.
    let shown = merged.as_ref().map_or(looks.as_slice(), std::slice::from_ref);
    let report = Report::of(&looks, merged.as_ref(), &args.stage);
    args.json.hand_out(|| text(args, &looks, merged.as_ref()), &report)?;
    if let Some(path) = &args.svg {
        let svg = svg(args, shown).map_err(Failure::machine)?;
        output::write_file(path, svg.as_bytes())?;
    }
    if let Some(path) = &args.hgrm {
        export::hgrm(path, &series(args, shown))?;
    }
    if let Some(path) = &args.hlog {
        export::IntervalLog::create(path, shown)?.add(shown, |look| chosen(args, look))?;
    }
    if let Some(path) = &args.save {
        save::save(path, &looks)?;
    }
    Ok(Exit::Done)
}

/// What came between two looks at the same panels.
fn since(before: &[Look], after: &[Look]) -> Result<Vec<Look>, Failure> {
    before.iter().zip(after).map(|(before, after)| after.watched_since(before)).collect()
}

/// Receives once, when Ctrl-C was pressed.
fn ctrl_c() -> Result<mpsc::Receiver<()>, Failure> {
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // Nobody is left to tell when the command has ended by itself.
        let _ = stop.send(());
    })
    .map_err(|error| Failure::machine(format!("cannot wait for Ctrl-C: {error}")))?;
    Ok(stopped)
}

fn follow(args: &HistArgs, open: &[OpenPanel]) -> Outcome {
    let stopped = ctrl_c()?;
    let merged = |looks: &[Look]| match args.merge {
        true => merge::merge(looks).map(Some),
        false => Ok(None),
    };
    let mut looks = look(args, open)?;
    let mut log = match &args.hlog {
        Some(path) => {
            let merged = merged(&looks)?;
            let shown = merged.as_ref().map_or(looks.as_slice(), std::slice::from_ref);
            Some(export::IntervalLog::create(path, shown)?)
        }
        None => None,
    };
    loop {
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        let text = text(args, &looks, merged(&looks)?.as_ref());
        output::print(&format!("{clear}{text}"))?;
        // Whoever reads a log as well goes on.
        let unread = log.is_none() && output::is_unread();
        if unread || !looks.iter().any(|look| look.life.runs()) {
            return Ok(Exit::Done);
        }
        let waited = stopped.recv_timeout(Duration::from_secs(args.interval_seconds.into()));
        let before = std::mem::replace(&mut looks, look(args, open)?);
        if let Some(log) = &mut log {
            let intervals = since(&before, &looks)?;
            let merged = merged(&intervals)?;
            let shown = merged.as_ref().map_or(intervals.as_slice(), std::slice::from_ref);
            log.add(shown, |look| chosen(args, look))?;
        }
        // Ctrl-C: the log has what came until now.
        if waited != Err(mpsc::RecvTimeoutError::Timeout) {
            return Ok(Exit::Done);
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

fn text(args: &HistArgs, looks: &[Look], merged: Option<&Look>) -> String {
    let terminal = std::io::stdout().is_terminal();
    let mut text = table::panels(looks, merged, &args.stage, terminal);
    if args.plot {
        let style = match terminal && std::env::var_os("NO_COLOR").is_none() {
            true => Style::Colour,
            false => Style::Plain,
        };
        let width = table::width(terminal).map_or(PLOT_WIDTH, usize::from);
        let looks = merged.map_or(looks, std::slice::from_ref);
        let series = series(args, looks);
        text.push('\n');
        text.push_str(&plot::in_terminal(&curves(looks, &series), width, PLOT_HEIGHT, style));
    }
    text
}
