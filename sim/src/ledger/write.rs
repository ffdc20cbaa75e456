//! Writing a ledger.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::record::Record;

/// A ledger that is open for this life of the process. Each record is handed to the kernel before the
/// call returns, so it outlives a kill of the process (not a loss of power).
#[derive(Debug)]
pub struct LedgerWriter {
    file: File,
    next: u64,
}

impl LedgerWriter {
    /// Opens the ledger at `path` for appending, and makes it if there is none. The first record should
    /// be a [`Record::Life`].
    ///
    /// # Errors
    /// What the system answered.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // What a kill tore off stays a line of its own.
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { file, next: 0 })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// What the system answered; the process should end then, for what it does next cannot be shown.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.file.write_all(record.line(self.next).as_bytes())?;
        self.next += 1;
        Ok(())
    }
}
