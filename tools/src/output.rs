//! Where a subcommand's output goes: text for people on standard output, JSON where a script asked
//! for it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::exit::Failure;

/// Explains `--json` the same way in every subcommand.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct JsonArgs {
    /// Write the report as JSON to a file, or to standard output with `-` (then without the text)
    #[arg(id = "json", long, value_name = "PATH|-")]
    path: Option<PathBuf>,
}

impl JsonArgs {
    /// Whether a script asked for JSON.
    pub(crate) fn is_asked(&self) -> bool {
        self.path.is_some()
    }

    /// Whether standard output belongs to the JSON, so that no other text may go there.
    pub(crate) fn to_stdout(&self) -> bool {
        self.path.as_deref() == Some(Path::new("-"))
    }

    /// Finds out before a long run whether its report can be written.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        match &self.path {
            Some(path) if !self.to_stdout() => check_writable(path),
            _ => Ok(()),
        }
    }

    /// Hands out what a command found: `text` on standard output unless that belongs to the JSON,
    /// and `report` as JSON, indented, if it was asked for. The text comes first: it is there even
    /// when the file cannot be written.
    pub(crate) fn hand_out(
        &self,
        text: impl FnOnce() -> String,
        report: &impl Serialize,
    ) -> Result<(), Failure> {
        if !self.to_stdout() {
            print(&text())?;
        }
        let Some(path) = &self.path else { return Ok(()) };
        let mut json = serde_json::to_string_pretty(report).map_err(Failure::machine)?;
        json.push('\n');
        if self.to_stdout() { print(&json) } else { write_file(path, json.as_bytes()) }
    }

    /// The same for a run that has more than one report, each a line of JSON.
    pub(crate) fn lines(&self) -> Result<Lines, Failure> {
        let to = match &self.path {
            None => LinesTo::Nowhere,
            Some(_) if self.to_stdout() => LinesTo::Stdout,
            Some(path) => {
                let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
                LinesTo::File(file, path.clone())
            }
        };
        Ok(Lines { to })
    }
}

/// Where the reports of a run go that has more than one.
pub(crate) struct Lines {
    to: LinesTo,
}

enum LinesTo {
    Nowhere,
    Stdout,
    File(File, PathBuf),
}

impl Lines {
    /// Hands out one report as [`JsonArgs::hand_out`] does it, with its JSON on one line.
    pub(crate) fn hand_out(
        &mut self,
        text: impl FnOnce() -> String,
        report: &impl Serialize,
    ) -> Result<(), Failure> {
        let mut line = serde_json::to_string(report).map_err(Failure::machine)?;
        line.push('\n');
        match &mut self.to {
            LinesTo::Stdout => print(&line),
            LinesTo::Nowhere => print(&text()),
            LinesTo::File(file, path) => {
                print(&text())?;
                file.write_all(line.as_bytes()).map_err(|error| cannot_write(path, &error))
            }
        }
    }
}

static UNREAD: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output went away: a run that only prints may then end.
pub(crate) fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Prints `text` as it is. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Failure::machine(format!(
            "cannot write to standard output: {error}; send it to a file or pipe that takes it"
        ))),
        Ok(()) => Ok(()),
    }
}

/// Finds out before a long run whether a file can be written; leaves what is there as it is.
pub(crate) fn check_writable(path: &Path) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| cannot_write(path, &error))
}

/// Writes a file that the user named, replacing what was there.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| cannot_write(path, &error))
}

/// Why a file that the user named cannot be written, and what to do.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot write {}: {error}", path.display());
    Failure::machine(format!("{what}; give a file in a directory in which you may write"))
}
