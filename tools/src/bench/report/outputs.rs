//! Where a report goes: the options of every benchmark, and the files that they ask for.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::{Plotted, Report, files};
use crate::bench::html;
use crate::exit::Failure;
use crate::output::{self, JsonArgs};
use crate::plot::{self, Curve, Style};

/// Lines of a plot in the terminal without its labels.
const PLOT_HEIGHT: usize = 12;
/// Columns where there is no terminal to ask.
const PLOT_WIDTH: usize = 100;
/// Curves of one plot in the terminal: as many as it has colours.
const CURVES: usize = 7;

/// The options that every benchmark has.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct OutputArgs {
    #[command(flatten)]
    json: JsonArgs,
    /// Write one page with tables and plots, which needs nothing else
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Write the percentile curves as a picture
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// Write HdrHistogram percentile distributions into this directory, or one into PATH.hgrm
    #[arg(long, value_name = "DIR|PATH.hgrm")]
    hgrm: Option<PathBuf>,
    /// Write an HdrHistogram interval log, with a tag for each distribution
    #[arg(long, value_name = "PATH")]
    hlog: Option<PathBuf>,
    /// Draw percentile curves below the tables, as it is done on a terminal anyway
    #[arg(long)]
    plot: bool,
    /// Compare with the JSON report of an earlier run on this machine; exit with code 1 when slower
    #[arg(long, value_name = "PATH")]
    pub(crate) baseline: Option<PathBuf>,
    /// How much slower than the baseline is no regression yet, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10", requires = "baseline",
          value_parser = percent)]
    pub(crate) tolerance: Percent,
    /// Exit with code 3 unless the kernel grants everything asked for
    #[arg(long)]
    pub(crate) require: bool,
}

/// A share of 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub(crate) f64);

impl Default for Percent {
    fn default() -> Self {
        Self(10.0)
    }
}

fn percent(text: &str) -> Result<Percent, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(number) if (0.0..=1_000.0).contains(&number) => Ok(Percent(number)),
        _ => Err("a percentage from 0 to 1000 is needed, such as 10".to_owned()),
    }
}

impl OutputArgs {
    /// Finds out before a long run whether everything that was asked for can be handed out.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.plot && self.json.to_stdout() {
            return Err(Failure::usage(
                "--plot draws below the tables, and --json - leaves those out; write the JSON to a file, \
                 or a picture with --svg",
            ));
        }
        self.json.check_writable()?;
        let files = [&self.html, &self.svg, &self.hlog];
        files.into_iter().flatten().try_for_each(|path| output::check_writable(path))?;
        self.hgrm.as_deref().map_or(Ok(()), files::check_writable)
    }

    /// Hands out `report` in every form that was asked for. The text comes first: it is there even
    /// when a file cannot be written.
    pub(super) fn hand_out(&self, report: &Report, plotted: &[Plotted]) -> Result<(), Failure> {
        let terminal = std::io::stdout().is_terminal();
        let text = || match self.plot || terminal {
            true => report.text(&|index| in_terminal(&plotted[index], terminal)),
            false => report.to_string(),
        };
        self.json.hand_out(text, report)?;
        if let Some(path) = &self.html {
            output::write_file(path, html::page(report).as_bytes())?;
        }
        if let Some(path) = &self.svg {
            output::write_file(path, svg(report, plotted)?.as_bytes())?;
        }
        if let Some(path) = &self.hgrm {
            files::hgrm(path, plotted)?;
        }
        self.hlog.as_deref().map_or(Ok(()), |path: &Path| files::hlog(path, report, plotted))
    }
}

fn curves(plotted: &Plotted) -> Vec<Curve<'_>> {
    let curves = plotted.curves.iter();
    let curves = curves.map(|kept| Curve {
        max: Some(kept.max),
        ..Curve::new(kept.name.as_str(), &kept.histogram)
    });
    curves.collect()
}

fn in_terminal(plotted: &Plotted, terminal: bool) -> String {
    let style = match terminal && std::env::var_os("NO_COLOR").is_none() {
        true => Style::Colour,
        false => Style::Plain,
    };
    let width = terminal.then(|| comfy_table::Table::new().width()).flatten();
    let width = width.map_or(PLOT_WIDTH, usize::from);
    let curves = curves(plotted);
    let plots =
        curves.chunks(CURVES).map(|some| plot::in_terminal(some, width, PLOT_HEIGHT, style));
    plots.collect::<Vec<_>>().join("\n")
}

fn svg(report: &Report, plotted: &[Plotted]) -> Result<String, Failure> {
    let several = plotted.iter().filter(|plotted| !plotted.curves.is_empty()).count() > 1;
    let all = plotted.iter().flat_map(|plotted| {
        let title = if several && !plotted.title.is_empty() { &plotted.title } else { "" };
        let separator = if title.is_empty() { "" } else { ": " };
        let named = move |curve: Curve<'_>| format!("{title}{separator}{}", curve.name);
        curves(plotted).into_iter().map(move |curve| Curve { name: named(curve.clone()), ..curve })
    });
    let title = report.parameters.get("command");
    let title = title.map_or("sinew".to_owned(), |command| format!("sinew {command}"));
    let reasons = &report.not_real_time;
    plot::percentiles(&all.collect::<Vec<_>>(), &format!("{title}: latency by percentile"), reasons)
        .map_err(Failure::machine)
}
