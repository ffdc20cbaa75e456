//! A copy of a panel as it is at one moment: to compare with a later one, or to send to somebody.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::exit::Failure;
use crate::output::cannot_write;
use crate::panels::{Look, OpenPanel};

/// Copies one panel to a file, or each into a directory.
pub(super) fn save(path: &Path, looks: &[Look]) -> Result<(), Failure> {
    match looks {
        [one] if !path.is_dir() => copy(one, path),
        several => {
            fs::create_dir_all(path).map_err(|error| cannot_write(path, &error))?;
            let copy =
                |look: &Look| copy(look, &path.join(format!("{}.panel", look.snapshot.name)));
            several.iter().try_for_each(copy)
        }
    }
}

fn copy(look: &Look, path: &Path) -> Result<(), Failure> {
    let bytes = fs::read(&look.path)
        .map_err(|error| Failure::machine(format!("{}: {error}", look.path.display())))?;
    // Never over a file: it could be a panel that a process is writing at this moment.
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut new = new.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} exists, and a saved panel replaces nothing; give another name",
            path.display()
        )),
        _ => cannot_write(path, &error),
    })?;
    new.write_all(&bytes).map_err(|error| cannot_write(path, &error))?;
    OpenPanel::open(path)?.look().map(drop)
}
