//! Where in a configuration something stands, and errors that say so in one line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file and line, when the setting came from a file.
    pub file: Option<(PathBuf, usize)>,
    /// The setting, such as `realtime.cores`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    /// `robot.toml:14: realtime.cores: core 9 does not exist; use 0 or 1`, always one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((path, line)) = &self.file {
            write!(f, "{}:{line}: ", path.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// The lines on which settings stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    file: PathBuf,
    lines: BTreeMap<String, usize>,
}

impl Places {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), lines: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, key: impl Into<String>, line: usize) {
        self.lines.insert(key.into(), line);
    }

    /// An error at `key`, or at the nearest enclosing section that has a line; at the beginning of
    /// the file where there is none, for what is missing altogether.
    pub(crate) fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ConfigError {
        let mut place = key;
        let line = loop {
            if let Some(line) = self.lines.get(place) {
                break Some(*line);
            }
            match place.rsplit_once('.') {
                Some((section, _)) => place = section,
                None => break None,
            }
        };
        let from_file = !self.file.as_os_str().is_empty();
        ConfigError {
            file: from_file.then(|| (self.file.clone(), line.unwrap_or(1))),
            key: readable(key),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

/// `peer.0.name` as `peer[0].name`: how people write an entry of an array.
pub(crate) fn readable(key: &str) -> String {
    let mut parts = Vec::<String>::new();
    for part in key.split('.') {
        match (part.parse::<usize>(), parts.last_mut()) {
            (Ok(n), Some(last)) => last.push_str(&format!("[{n}]")),
            _ => parts.push(part.to_owned()),
        }
    }
    parts.join(".")
}

/// The line, from 1, on which byte `offset` of `text` stands.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
