//! The reading side: maps a panel read-only and copies it out, whether its writer lives or not.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::files::{io_error, is_panel_name};
use super::layout::{Geometry, Header};
use super::mapping::Mapping;
use super::snapshot::{self, PanelSnapshot};
use super::{PanelError, ProcessIdentity, UnknownVersion};

/// A panel mapped for reading. The writer neither notices nor can be disturbed.
///
/// Everything is checked against the length of the file before it is looked at. What no reader of
/// mapped memory can rule out: whoever may write the file (its owner, since it has mode 0600) could
/// truncate it *during* a snapshot, and the reader would get SIGBUS. Writers never do that, and every
/// snapshot begins by looking at the length again.
#[derive(Debug)]
pub struct PanelReader {
    file: fs::File,
    path: PathBuf,
    mapping: Mapping,
    geometry: Geometry,
}

impl PanelReader {
    /// Maps the panel at `path`. Allocates and makes system calls.
    ///
    /// # Errors
    /// When it cannot be opened, is not a panel, or is truncated or corrupt.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PanelError> {
        let path = path.as_ref();
        let (file, mapping) = Self::map(path)?;
        let geometry = Geometry::check(&mapping)?;
        Ok(Self { file, path: path.to_owned(), mapping, geometry })
    }

    fn map(path: &Path) -> Result<(fs::File, Mapping), PanelError> {
        // Non-blocking, so that a FIFO of that name does not hang the tool.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(io_error("open panel", path))?;
        let got = length(&file, path)?;
        let need = size_of::<Header>() as u64;
        if got < need {
            return Err(PanelError::TooShort { need, got });
        }
        let len = usize::try_from(got).unwrap_or(usize::MAX);
        let mapping = Mapping::read_only(&file, len).map_err(io_error("map panel", path))?;
        Ok((file, mapping))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies out everything that the panel shows now. Allocates.
    ///
    /// # Errors
    /// When the file was truncated since, or holds values that no writer stores.
    pub fn snapshot(&self) -> Result<PanelSnapshot, PanelError> {
        let (need, got) = (self.geometry.file_len as u64, length(&self.file, &self.path)?);
        if got < need {
            return Err(PanelError::TooShort { need, got });
        }
        snapshot::take(&self.mapping, &self.geometry)
    }

    /// The panels in `dir`, by name; none when the directory does not exist.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(dir: impl AsRef<Path>) -> Result<Vec<Listed>, PanelError> {
        let dir = dir.as_ref();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error("list directory", dir))?,
        };
        let mut panels = Vec::new();
        for entry in entries {
            let path = entry.map_err(io_error("list directory", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(crashed) = is_panel_name(&name) {
                let (process, unknown_version) = match identity_of(&path) {
                    Ok((process, unknown_version)) => (Ok(process), unknown_version),
                    Err(error) => (Err(error), None),
                };
                panels.push(Listed { path, crashed, process, unknown_version });
            }
        }
        panels.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(panels)
    }
}

/// One file in a directory of panels.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// Whether it is kept as evidence of a crash.
    pub crashed: bool,
    /// Who wrote it, or why that cannot be said.
    pub process: Result<ProcessIdentity, PanelError>,
    /// Its layout, where this program does not read it: [`PanelReader::open`] will refuse.
    pub unknown_version: Option<UnknownVersion>,
}

impl Listed {
    /// Whether its writer runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.crashed && self.process.as_ref().is_ok_and(ProcessIdentity::is_alive)
    }
}

/// Who wrote the panel at `path`; also where it has a layout of another version, and then which.
pub(super) fn identity_of(
    path: &Path,
) -> Result<(ProcessIdentity, Option<UnknownVersion>), PanelError> {
    let (_file, mapping) = PanelReader::map(path)?;
    let process = Header::of_any_version(&mapping)?.process();
    match Geometry::check(&mapping) {
        Ok(_) => Ok((process, None)),
        Err(PanelError::Version(unknown)) => Ok((process, Some(unknown))),
        Err(error) => Err(error),
    }
}

fn length(file: &fs::File, path: &Path) -> Result<u64, PanelError> {
    let meta = file.metadata().map_err(io_error("look at panel", path))?;
    if !meta.is_file() {
        let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(io_error("read a panel from what is not a regular file", path)(source));
    }
    Ok(meta.len())
}
