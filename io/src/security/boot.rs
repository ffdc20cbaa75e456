//! The boot counter: a number on disk that grows with every life of a node, so that no two lives
//! share an epoch.
//!
//! ```text
//! sinew-boot 1
//! epoch 17
//! check 16 hexadecimal digits: the first 64 bits of BLAKE3 over the two lines above
//! ```
//!
//! The check tells a damaged file from a good one. It is no protection against someone who edits
//! the file: whoever can do that has the key as well.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::private_file::{self, Directory, PrivateFileError};
use crate::simulation::{Fault, planted};
use crate::wire::Epoch;

/// The longest boot counter file, in bytes.
pub const BOOT_FILE_MAX: usize = 128;

const HEADER: &str = "sinew-boot 1\n";

/// Why the boot counter was not advanced.
#[derive(Debug, Error)]
pub enum BootError {
    /// The file is not acceptable: link, mode, owner, length, or an error of the system.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file is not a boot counter, or was damaged.
    #[error(
        "{}: the boot counter is damaged, and guessing it could reuse an epoch; restore the file \
         from a backup, or remove it *and* give this node a new key",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The counter has no next value.
    #[error("{}: the boot counter is at its end; remove it and give this node a new key", path.display())]
    Exhausted {
        /// The file.
        path: PathBuf,
    },
}

/// The persisted counter of lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootCounter(u64);

impl BootCounter {
    /// The counter that stands at `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch) -> Self {
        Self(epoch.get())
    }

    /// The life that it stands for.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch::new(self.0)
    }

    /// The counter of the next life, or `None` at the end of the numbers.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let step = if planted(Fault::EpochReused) { 0 } else { 1 };
        self.0.checked_add(step).map(Self)
    }

    /// The text of the file.
    #[must_use]
    pub fn format(self) -> String {
        let lines = format!("{HEADER}epoch {}\n", self.0);
        let check = blake3::hash(lines.as_bytes()).to_hex();
        format!("{lines}check {}\n", &check[..16])
    }

    /// Reads the text of the file: exactly what [`BootCounter::format`] writes, or `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(text).ok()?.strip_prefix(HEADER)?;
        let number = lines.strip_prefix("epoch ")?.split('\n').next()?;
        let counter = Self(number.parse().ok()?);
        (counter.format().as_bytes() == text).then_some(counter)
    }

    /// Advances the counter in the file at `path`, and returns the epoch of the life that begins:
    /// 1 when there is no file yet. The new value is on disk (file and directory synced) when this
    /// returns, so send nothing before. An edge, for start-up: it blocks on the disk.
    ///
    /// Two processes that start at once take turns, so they get different epochs.
    pub fn advance(path: &Path) -> Result<Epoch, BootError> {
        let directory = Directory::of(path)?;
        directory.lock()?;
        let current = match private_file::read(path, BOOT_FILE_MAX) {
            Ok(text) => Self::parse(&text).ok_or(BootError::Corrupt { path: path.to_owned() })?,
            Err(PrivateFileError::Missing { .. }) => Self(0),
            Err(error) => return Err(error.into()),
        };
        let next = current.next().ok_or(BootError::Exhausted { path: path.to_owned() })?;
        private_file::replace(&directory, path, next.format().as_bytes())?;
        Ok(next.epoch())
    }
}
