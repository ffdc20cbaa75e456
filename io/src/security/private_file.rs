//! The edge to the file system: files that only this user may read or change. Start-up only.

#![expect(clippy::disallowed_types, reason = "this module is the edge to the file system")]
#![expect(clippy::disallowed_methods, reason = "this module is the edge to the file system")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// Why a private file was not read or written.
#[derive(Debug, Error)]
pub enum PrivateFileError {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is such a file already, and it is never overwritten.
    #[error("{}: exists already, and is not overwritten; move it away or choose another path", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link could be turned to another file by whoever owns the link.
    #[error("{}: is a symbolic link; name the file that it points to", path.display())]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// A directory, pipe or device.
    #[error("{}: is not a regular file", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// Group or others have permissions on the file.
    #[error("{}: mode {mode:04o} lets others in; run `chmod 600 {}`", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("{}: belongs to user {owner}, but this process is user {us}; run `chown {us} {}`", path.display(), path.display())]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// The effective user id of this process.
        us: u32,
    },
    /// More bytes than a file of this kind has.
    #[error("{}: longer than the {max} bytes that such a file has at most; it is not what it should be", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most bytes.
        max: usize,
    },
    /// The system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PrivateFileError {
    let path = path.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::ELOOP) => PrivateFileError::SymbolicLink { path },
        Some(libc::ENOENT) if action == "open" => PrivateFileError::Missing { path },
        Some(libc::EEXIST) => PrivateFileError::Exists { path },
        _ => PrivateFileError::System { path, action, source },
    }
}

/// Reads the whole of a file that only its owner, this user, may read or write.
///
/// All checks are made on the open file, so nothing can be swapped in between.
pub(super) fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    // Without O_NONBLOCK, opening a pipe would wait for its writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(system(path, "open"))?;
    let facts = file.metadata().map_err(system(path, "stat"))?;
    let path_buf = || path.to_owned();
    if !facts.is_file() {
        return Err(PrivateFileError::NotAFile { path: path_buf() });
    }
    // SAFETY: geteuid(2) takes nothing, touches no memory and cannot fail.
    let us = unsafe { libc::geteuid() };
    if facts.uid() != us {
        return Err(PrivateFileError::WrongOwner { path: path_buf(), owner: facts.uid(), us });
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::OpenToOthers { path: path_buf(), mode });
    }
    // Room for one byte too many, allocated once: growing would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(system(path, "read"))?;
    match bytes.len() <= max {
        true => Ok(bytes),
        false => Err(PrivateFileError::TooLong { path: path_buf(), max }),
    }
}

/// Creates a file of mode 0600 with these bytes, on disk when this returns. Never overwrites.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    let directory = Directory::of(path)?;
    let file = private().create_new(true).open(path).map_err(system(path, "create"))?;
    let written = write_and_sync(file, path, bytes).and_then(|()| directory.sync());
    if written.is_err() {
        // A half-written key must not look like one; the first error is the one to report.
        let _ = fs::remove_file(path);
    }
    written
}

/// Replaces the file as a whole or not at all, on disk when this returns. The caller holds the
/// directory's lock, so the temporary name is its own.
pub(super) fn replace(
    directory: &Directory,
    path: &Path,
    bytes: &[u8],
) -> Result<(), PrivateFileError> {
    let mut name = OsString::from(path);
    name.push(".new");
    let temporary = PathBuf::from(name);
    // What a crash left behind is removed rather than reused: its mode may be another one.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(system(&temporary, "remove")(error));
        }
        _ => {}
    }
    let file = private().create_new(true).open(&temporary);
    write_and_sync(file.map_err(system(&temporary, "create"))?, &temporary, bytes)?;
    fs::rename(&temporary, path).map_err(system(path, "rename into place"))?;
    directory.sync()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

fn write_and_sync(mut file: File, path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    file.write_all(bytes).map_err(system(path, "write"))?;
    file.sync_all().map_err(system(path, "sync"))
}

/// The directory of a file: to lock against other processes, and to sync after a new name.
pub(super) struct Directory {
    file: File,
    path: PathBuf,
}

impl Directory {
    pub(super) fn of(path: &Path) -> Result<Self, PrivateFileError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new(".")).to_owned();
        let file = File::open(&path).map_err(system(&path, "open"))?;
        Ok(Self { file, path })
    }

    /// Waits for the exclusive lock, which ends with this value. Held for milliseconds.
    pub(super) fn lock(&self) -> Result<(), PrivateFileError> {
        self.file.lock().map_err(system(&self.path, "lock"))
    }

    fn sync(&self) -> Result<(), PrivateFileError> {
        self.file.sync_all().map_err(system(&self.path, "sync"))
    }
}
