//! What can go wrong with a panel, with the numbers and what to do about it.

use std::io;
use std::path::PathBuf;

use super::Table;

/// A layout that this program does not read. It can still say who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("layout version {found}; this program reads version {supported}")]
pub struct UnknownVersion {
    /// Version of the file.
    pub found: u32,
    /// Version that is understood.
    pub supported: u32,
}

/// Why a panel could not be created, filled or read.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// The name cannot be a file name or a label.
    #[error("`{name}` cannot name a {what}: use 1 to {max_len} bytes {allowed}")]
    Name {
        /// What was to be named.
        what: &'static str,
        /// The name.
        name: String,
        /// The greatest length in bytes.
        max_len: usize,
        /// Which characters.
        allowed: &'static str,
    },
    /// A capacity beyond the limits.
    #[error("a panel with room for {wanted} {what} was asked for; the limit is {limit}")]
    Capacity {
        /// Of what.
        what: &'static str,
        /// Asked for.
        wanted: u32,
        /// Limit.
        limit: u32,
    },
    /// A live process has a panel of this name.
    #[error("panel `{}` belongs to running process {pid}; stop it or use another name", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// Its writer.
        pid: u32,
    },
    /// A live process has a panel of this name, in a layout of another version.
    #[error(
        "panel `{}` belongs to running process {pid} and has {version}; stop that process or use \
         another name",
        path.display()
    )]
    InUseByOther {
        /// The file.
        path: PathBuf,
        /// Its writer.
        pid: u32,
        /// What it writes.
        version: UnknownVersion,
    },
    /// The directory could be changed by others.
    #[error(
        "directory `{}` (owner {owner}, mode {mode:03o}) is not safe for panels: it must be a \
         directory of this user or root that nobody else can write to (chmod go-w), or pass another",
        path.display()
    )]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No room for one more entry.
    #[error("panel `{panel}` is full: `{name}` would be entry {} of {capacity} {table}; raise `PanelSpec`'s capacity, or tell `NodeBuilder::loops` of the loop", capacity + 1)]
    Full {
        /// The panel.
        panel: String,
        /// What was to be registered.
        name: String,
        /// Where.
        table: Table,
        /// How many fit.
        capacity: u32,
    },
    /// Each cell has one writer, so each name can be registered once.
    #[error("panel `{panel}` already has an entry `{name}` in {table}; names are registered once")]
    NameTaken {
        /// The panel.
        panel: String,
        /// The name.
        name: String,
        /// Where.
        table: Table,
    },
    /// Less than the header says, or no room for a header.
    #[error("the panel is {got} bytes long and should be {need}: truncated")]
    TooShort {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are there.
        got: u64,
    },
    /// Other first bytes.
    #[error("not a panel, or one that is not complete yet: it starts with {found:#018x}")]
    NotAPanel {
        /// The first eight bytes.
        found: u64,
    },
    /// A layout of another version.
    #[error("the panel has {0}")]
    Version(UnknownVersion),
    /// A table that does not lie within the file.
    #[error(
        "corrupt panel: table of {capacity} {table} at offset {offset} does not fit its {file_len} bytes, or is not aligned"
    )]
    Table {
        /// Which table.
        table: Table,
        /// Where the header says it is.
        offset: u64,
        /// How many entries the header says it has.
        capacity: u32,
        /// Length of the file.
        file_len: u64,
    },
    /// A value that no writer stores.
    #[error("corrupt panel: {what} is {found}, expected {expected}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// What is there.
        found: u64,
        /// What should be there, or the greatest value that could.
        expected: u64,
    },
}
