//! Where a subcommand's output goes: text for people on standard output, JSON where a script asked
//! for it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

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

    /// Writes `report`, indented, if it was asked for.
    pub(crate) fn write(&self, report: &impl Serialize) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(report).map_err(Failure::machine)?;
        text.push('\n');
        if self.to_stdout() { print(&text) } else { write_file(path, text.as_bytes()) }
    }

    /// Where reports of a run go that has more than one, a line each.
    pub(crate) fn lines(&self) -> Result<Option<JsonLines>, Failure> {
        match &self.path {
            None => Ok(None),
            Some(_) if self.to_stdout() => Ok(Some(JsonLines { out: Box::new(io::stdout()) })),
            Some(path) => {
                let file = std::fs::File::create(path).map_err(|e| cannot_write(path, &e))?;
                Ok(Some(JsonLines { out: Box::new(file) }))
            }
        }
    }
}

/// JSON reports, one on each line.
pub(crate) struct JsonLines {
    out: Box<dyn Write>,
}

impl JsonLines {
    pub(crate) fn write(&mut self, report: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_string(report).map_err(Failure::machine)?;
        line.push('\n');
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Failure::machine(format!("cannot write the JSON: {error}")))
    }
}

/// Prints `text` as it is. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::machine(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
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

pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::machine(format!("cannot write {}: {error}", path.display()))
}
