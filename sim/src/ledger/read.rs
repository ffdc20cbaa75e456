//! Reading a ledger back, whatever a kill did to its end.

use super::record::Record;

/// What one process said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Where it came from, for people.
    pub name: String,
    /// In the order in which they were written.
    pub lives: Vec<Life>,
    /// Lines that no writer wrote, or that stand where they do not belong.
    pub damaged: Vec<usize>,
}

/// One life of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The process's name.
    pub owner: String,
    /// Who it was on the wire.
    pub key: u64,
    /// Which of its lives this is.
    pub epoch: u64,
    /// When it began.
    pub at: i64,
    /// The line on which it begins.
    pub line: usize,
    /// What happened, with the lines.
    pub records: Vec<(usize, Record)>,
    /// Whether its last line was torn off.
    pub torn: bool,
    /// Whether it ended in good order.
    pub ended: bool,
}

/// Reads the bytes of a ledger.
#[must_use]
pub fn read(name: &str, bytes: &[u8]) -> Ledger {
    let mut ledger = Ledger { name: name.to_owned(), ..Ledger::default() };
    // The line that could not be read, until it is known whether a life ended there.
    let mut unread = None;
    let mut next = 0;
    for (line, text) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        // A last line that lacks no more than its end is whole: its check says so.
        let whole = text.strip_suffix(b"\n").unwrap_or(text);
        let parsed = std::str::from_utf8(whole).ok().and_then(Record::parse);
        let Some((number, record)) = parsed else {
            if is_torn_birth(text) {
                ledger.tear(unread.take());
                continue;
            }
            ledger.damaged.extend(unread.replace(line));
            // Its number counts, so that one bad line is one line of the report.
            next += 1;
            continue;
        };
        if let (0, Record::Life { owner, key, epoch, at }) = (number, &record) {
            ledger.tear(unread.take());
            let (owner, key, epoch, at) = (owner.clone(), *key, *epoch, *at);
            ledger.lives.push(Life { owner, key, epoch, at, line, ..Life::default() });
            next = 1;
            continue;
        }
        ledger.damaged.extend(unread.take());
        match ledger.lives.last_mut() {
            Some(life) if number == next && !life.ended => {
                life.ended = matches!(record, Record::End { .. });
                life.records.push((line, record));
                next += 1;
            }
            _ => {
                ledger.damaged.push(line);
                // What follows a hole is read on, so that one hole is one line of the report.
                next = number.saturating_add(1);
            }
        }
    }
    ledger.tear(unread);
    ledger
}

impl Ledger {
    /// Takes a line that could not be read as the torn end of the last life; a life that had ended has
    /// no such line, and neither has a ledger before its first life.
    fn tear(&mut self, unread: Option<usize>) {
        match (unread, self.lives.last_mut()) {
            (None, _) => {}
            (Some(_), Some(life)) if !life.ended => life.torn = true,
            (Some(line), _) => self.damaged.push(line),
        }
    }
}

/// Whether a line that could not be read is the beginning of a life that was killed while it wrote just
/// that. Where it was more than that, the numbers of the records after it give it away.
fn is_torn_birth(text: &[u8]) -> bool {
    let birth = b"0 life ";
    text.starts_with(birth) || birth.starts_with(text.strip_suffix(b"\n").unwrap_or(text))
}
