//! Captured machines: what the doctor reads, in an archive that somebody else can judge.
//!
//! The archive has the very files under the names that they have on the machine, cut down to what
//! the checks use, the counters a second time under `later/`, and under `probed/` what was asked
//! rather than read.

mod contents;
mod private;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sinew_rt::memory::{self, MemoryPlan};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::{cannot_write, print};

/// An archive that somebody sends is not trusted: this many files, and bytes in all.
const MAX_FILES: usize = 100_000;
const MAX_BYTES: u64 = 256 * 1024 * 1024;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Writes what the doctor reads of this machine to `path`, watching counters for `span`.
pub(super) fn write(path: &Path, span: Duration) -> Outcome {
    crate::output::check_writable(path)?;
    // So that the captured process is one that tried to lock its memory.
    let _ = memory::prepare(&MemoryPlan::default());
    let files = private::without_names(contents::collect(Path::new("/"), span));
    let failed = |error: io::Error| cannot_write(path, &error);
    let file = File::create(path).map_err(failed)?;
    let packed = path.extension().is_some_and(|ending| ending == "gz" || ending == "tgz");
    let written = match packed {
        true => GzEncoder::new(file, Compression::default()).and_finish(&files),
        false => pack(&files, file).map(drop),
    };
    written.map_err(failed)?;
    let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
    let path = path.display();
    print(&format!(
        "{path}: {} files, {bytes} bytes before packing; look into it before you give it away, and judge it with\n  sinew doctor --root {path}\n",
        files.len()
    ))?;
    Ok(Exit::Done)
}

/// The files of a captured machine: their paths from the root, and what is in them.
type Files = Vec<(String, Vec<u8>)>;

trait Finish {
    fn and_finish(self, files: &Files) -> io::Result<()>;
}

impl Finish for GzEncoder<File> {
    fn and_finish(self, files: &Files) -> io::Result<()> {
        pack(files, self)?.finish().map(drop)
    }
}

fn pack<W: Write>(files: &Files, to: W) -> io::Result<W> {
    let mut archive = tar::Builder::new(to);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    archive.into_inner()
}

/// A captured machine to read from.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) root: PathBuf,
    /// Where an archive was unpacked to; goes when this does.
    pub(super) unpacked: Option<tempfile::TempDir>,
}

/// Opens a captured machine: a directory, or an archive that is unpacked to a place of its own.
pub(super) fn open(path: &Path) -> Result<Captured, Failure> {
    if path.is_dir() {
        return Ok(Captured { root: path.to_owned(), unpacked: None });
    }
    let failed = |error: io::Error| {
        Failure::usage(format!(
            "cannot read {}: {error}; give a directory with proc/ and sys/ of a machine, or the file that sinew doctor --capture wrote",
            path.display()
        ))
    };
    let dir = tempfile::tempdir().map_err(Failure::machine)?;
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = [0; 2];
    file.read_exact(&mut magic).map_err(failed)?;
    let whole = io::Cursor::new(magic).chain(file);
    let unpacked = match magic == GZIP_MAGIC {
        true => unpack(GzDecoder::new(whole), dir.path()),
        false => unpack(whole, dir.path()),
    };
    unpacked.map_err(failed)?;
    Ok(Captured { root: dir.path().to_owned(), unpacked: Some(dir) })
}

fn unpack(from: impl Read, to: &Path) -> io::Result<()> {
    let too_much = || io::Error::other("it holds more than a captured machine does");
    let mut archive = tar::Archive::new(from.take(MAX_BYTES));
    let mut bytes = 0_u64;
    for (n, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if n >= MAX_FILES || bytes > MAX_BYTES {
            return Err(too_much());
        }
        // Links could point out of the directory, and a capture has none.
        if entry.header().entry_type().is_file() && !entry.unpack_in(to)? {
            return Err(io::Error::other("a path in it leads out of it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
