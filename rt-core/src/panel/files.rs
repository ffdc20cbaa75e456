//! The panel's file: where it may lie, who may take a name, and what happens to the dead.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PanelError;
use super::layout::{Geometry, Header, Text};
use super::mapping::Mapping;
use super::reader::identity_of;

const SUFFIX: &str = ".panel";
const CRASHED_SUFFIX: &str = ".crashed.panel";

/// Where panels go unless told otherwise: `/dev/shm/sinew` for root and `/dev/shm/sinew-<uid>` for
/// everybody else, so that a run with `sudo` does not lock the user out afterwards.
#[must_use]
pub fn default_dir() -> PathBuf {
    match effective_uid() {
        0 => PathBuf::from("/dev/shm/sinew"),
        uid => PathBuf::from(format!("/dev/shm/sinew-{uid}")),
    }
}

fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing, cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PanelError {
    move |source| PanelError::Io { action, path: path.to_owned(), source }
}

/// Checks a label of the panel or of one of its entries.
pub(super) fn check_label(
    what: &'static str,
    name: &str,
    max_len: usize,
) -> Result<(), PanelError> {
    let fits = (1..=max_len).contains(&name.len());
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let allowed = "without control characters";
    Err(PanelError::Name { what, name: name.to_owned(), max_len, allowed })
}

/// Checks that `name` is a plain file name, and cannot be mistaken for a crashed panel's.
pub(super) fn check_panel_name(name: &str) -> Result<(), PanelError> {
    let max_len = Text::<6>::BYTES;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=max_len).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with('.')
        && !name.ends_with(".crashed")
    {
        return Ok(());
    }
    let allowed = "of A-Z a-z 0-9 . _ -, not starting with a dot, not ending in .crashed";
    Err(PanelError::Name { what: "panel", name: name.to_owned(), max_len, allowed })
}

pub(super) fn check_capacity(
    what: &'static str,
    wanted: u32,
    limit: u32,
) -> Result<(), PanelError> {
    if wanted > limit { Err(PanelError::Capacity { what, wanted, limit }) } else { Ok(()) }
}

/// The file of the panel `name` in `dir`.
#[must_use]
pub fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{SUFFIX}"))
}

/// Whether a file name is that of a panel, and if so, whether of a crashed one. No panel's has control
/// characters, and whoever lists panels prints their names.
pub(super) fn is_panel_name(file_name: &str) -> Option<bool> {
    let is_panel = file_name.ends_with(SUFFIX)
        && !file_name.starts_with('.')
        && !file_name.chars().any(char::is_control);
    is_panel.then(|| file_name.ends_with(CRASHED_SUFFIX))
}

/// A new panel file and its mapping, with nothing in it yet.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) mapping: Mapping,
    pub(super) place: Place,
}

/// Where the file is and which one it is, so that nobody else's is removed.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn is_still_ours(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (self.device, self.inode))
    }

    /// Removes the file, if it is still this one.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.is_still_ours() { fs::remove_file(&self.path) } else { Ok(()) }
    }

    /// Keeps the file as evidence under the name of a crashed panel.
    pub(super) fn keep_as_crashed(&self) -> io::Result<()> {
        if self.is_still_ours() { fs::rename(&self.path, crashed_path(&self.path)) } else { Ok(()) }
    }
}

fn crashed_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{CRASHED_SUFFIX}", name.trim_end_matches(SUFFIX)))
}

/// Creates the file of panel `name` in `dir`, moving a dead process's file of that name aside.
///
/// Runs under a lock on the directory, so that two processes that start at once cannot both decide
/// that the old file is dead and move each other's new one. `fill` completes the header under it.
pub(super) fn create(
    dir: &Path,
    name: &str,
    geometry: &Geometry,
    fill: impl FnOnce(&Header),
) -> Result<NewFile, PanelError> {
    let lock = open_directory(dir)?;
    lock.lock().map_err(io_error("lock directory", dir))?;
    let path = path_of(dir, name);
    move_dead_aside(&path)?;

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)
        .map_err(io_error("create panel", &path))?;
    let created = prepare(&file, &path, geometry, fill);
    if created.is_err() {
        // The first error is the one to report; a file that stays behind has no magic and is moved
        // aside by the next start.
        let _ = fs::remove_file(&path);
    }
    created
}

fn prepare(
    file: &File,
    path: &Path,
    geometry: &Geometry,
    fill: impl FnOnce(&Header),
) -> Result<NewFile, PanelError> {
    // Reserves the pages now: on a full tmpfs a sparse file would fault at the first store instead.
    reserve(file, geometry.file_len).map_err(io_error("reserve space for panel", path))?;
    let meta = file.metadata().map_err(io_error("look at panel", path))?;
    let mapping =
        Mapping::read_write(file, geometry.file_len).map_err(io_error("map panel", path))?;
    fill(geometry.header(&mapping));
    let place = Place { path: path.to_owned(), device: meta.dev(), inode: meta.ino() };
    Ok(NewFile { mapping, place })
}

fn reserve(file: &File, len: usize) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: plain system call on a descriptor that `file` keeps open; no memory is passed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Opens the directory, making it where it is missing, and refuses one that others can write to:
/// they could swap files under us.
fn open_directory(dir: &Path) -> Result<File, PanelError> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(dir)
        .map_err(io_error("create directory", dir))?;
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(dir)
        .map_err(io_error("open directory", dir))?;
    let meta = open.metadata().map_err(io_error("look at directory", dir))?;
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    if (owner != effective_uid() && owner != 0) || mode & 0o022 != 0 {
        return Err(PanelError::UnsafeDirectory { path: dir.to_owned(), owner, mode });
    }
    Ok(open)
}

/// Renames a file that no live process writes; what cannot be read was never completed and counts
/// as dead. Refuses where the writer is alive.
fn move_dead_aside(path: &Path) -> Result<(), PanelError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at panel", path)(error)),
        Ok(_) => {}
    }
    if let Ok((process, unknown_version)) = identity_of(path)
        && process.is_alive()
    {
        let (path, pid) = (path.to_owned(), process.pid);
        return Err(match unknown_version {
            None => PanelError::InUse { path, pid },
            Some(version) => PanelError::InUseByOther { path, pid, version },
        });
    }
    fs::rename(path, crashed_path(path)).map_err(io_error("move aside dead panel", path))
}
