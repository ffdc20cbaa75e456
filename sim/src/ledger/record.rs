//! One line of a ledger.

use std::fmt;
use std::str::SplitAsciiWhitespace;

/// What a topic promises, as far as a checker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// At most once, and nothing more: losses are silent.
    BestEffort,
    /// At most once, in order, and every loss is reported.
    Reliable,
}

/// How a command ended, as its sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// The receiver did it.
    Accepted,
    /// The receiver had it and refused.
    Rejected,
    /// The receiver never did it: it was too old.
    Expired,
    /// The receiver never had it.
    NeverArrived,
    /// Nobody knows.
    Unknown,
}

/// Something that happened in a process. Times are nanoseconds of the host's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The process began a life, before it sent or got anything.
    Life {
        /// The process's name.
        owner: String,
        /// Who it is on the wire.
        key: u64,
        /// Which of its lives this is.
        epoch: u64,
        /// When.
        at: i64,
    },
    /// It may send this topic.
    Writes {
        /// What it promises.
        promise: Promise,
        /// The topic.
        topic: String,
    },
    /// It may get this topic.
    Reads {
        /// What it promises.
        promise: Promise,
        /// The topic.
        topic: String,
    },
    /// It is about to send a message.
    Sent {
        /// The topic.
        topic: String,
        /// From 1 in each life.
        sequence: u64,
        /// A digest of the payload.
        digest: u64,
        /// When.
        at: i64,
    },
    /// The last message was not taken after all, and its number will not be used.
    Refused {
        /// The topic.
        topic: String,
        /// The message.
        sequence: u64,
    },
    /// It heard how a command ended.
    Outcome {
        /// The topic.
        topic: String,
        /// The message.
        sequence: u64,
        /// How.
        told: Told,
    },
    /// It got a message, and has not acted on it yet.
    Got {
        /// Who sent it.
        from: u64,
        /// In which life.
        epoch: u64,
        /// The topic.
        topic: String,
        /// The number in that life.
        sequence: u64,
        /// A digest of the payload.
        digest: u64,
        /// When.
        at: i64,
    },
    /// It was told that messages will not come.
    Gap {
        /// Who sent them.
        from: u64,
        /// In which life.
        epoch: u64,
        /// The topic.
        topic: String,
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
    /// It is about to tell a sender what it decided about a command that it got.
    Decided {
        /// Who sent it.
        from: u64,
        /// In which life.
        epoch: u64,
        /// The topic.
        topic: String,
        /// The message.
        sequence: u64,
        /// What it decided.
        told: Told,
    },
    /// It was told that a life of a sender begins for it.
    NewLife {
        /// Who.
        from: u64,
        /// Which life.
        epoch: u64,
        /// The topic.
        topic: String,
        /// The first message that it will get.
        first: u64,
    },
    /// It ended in good order: everything that it had was written down.
    End {
        /// When.
        at: i64,
    },
}

/// The digest of a payload.
#[must_use]
pub fn digest(payload: &[u8]) -> u64 {
    first_bytes(payload)
}

fn first_bytes(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The check at the end of a line.
fn check(line: &str) -> u32 {
    (first_bytes(line.as_bytes()) >> 32) as u32
}

/// A topic's name as one word.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '%' | '#' => write!(f, "%{:02x}", c as u32)?,
                c if c.is_whitespace() || c.is_control() => write!(f, "%{:02x}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

fn unword(word: &str) -> Option<String> {
    let mut parts = word.split('%');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        name.push_str(rest);
    }
    Some(name)
}

impl Promise {
    fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Reliable => "reliable",
        }
    }
}

impl Told {
    const ALL: [(Self, &str); 5] = [
        (Self::Accepted, "accepted"),
        (Self::Rejected, "rejected"),
        (Self::Expired, "expired"),
        (Self::NeverArrived, "never-arrived"),
        (Self::Unknown, "unknown"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(told, _)| *told == self).map_or("unknown", |(_, name)| name)
    }
}

impl Record {
    /// The line of the record numbered `number` in its life, with its end.
    #[must_use]
    pub fn line(&self, number: u64) -> String {
        let line = format!("{number} {self}");
        format!("{line} #{:08x}\n", check(&line))
    }

    /// Reads a line without its end: the record's number and what it says, or `None` for a line that
    /// no writer wrote.
    #[must_use]
    pub fn parse(line: &str) -> Option<(u64, Self)> {
        let (content, sum) = line.rsplit_once(" #")?;
        if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != check(content) {
            return None;
        }
        let mut fields = Fields(content.split_ascii_whitespace());
        let number = fields.number()?;
        let record = fields.record()?;
        fields.0.next().is_none().then_some((number, record))
    }
}

/// The words of a line that are still to be read.
struct Fields<'a>(SplitAsciiWhitespace<'a>);

impl Fields<'_> {
    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }

    fn hex(&mut self) -> Option<u64> {
        u64::from_str_radix(self.0.next()?, 16).ok()
    }

    fn word(&mut self) -> Option<String> {
        unword(self.0.next()?)
    }

    fn promise(&mut self) -> Option<Promise> {
        let name = self.0.next()?;
        [Promise::BestEffort, Promise::Reliable].into_iter().find(|known| known.name() == name)
    }

    fn told(&mut self) -> Option<Told> {
        let name = self.0.next()?;
        Told::ALL.iter().find(|(_, known)| *known == name).map(|(told, _)| *told)
    }

    fn record(&mut self) -> Option<Record> {
        Some(match self.0.next()? {
            "life" => Record::Life {
                owner: self.word()?,
                key: self.hex()?,
                epoch: self.number()?,
                at: self.number()?,
            },
            "writes" => Record::Writes { promise: self.promise()?, topic: self.word()? },
            "reads" => Record::Reads { promise: self.promise()?, topic: self.word()? },
            "sent" => Record::Sent {
                topic: self.word()?,
                sequence: self.number()?,
                digest: self.hex()?,
                at: self.number()?,
            },
            "refused" => Record::Refused { topic: self.word()?, sequence: self.number()? },
            "outcome" => Record::Outcome {
                topic: self.word()?,
                sequence: self.number()?,
                told: self.told()?,
            },
            "got" => Record::Got {
                from: self.hex()?,
                epoch: self.number()?,
                topic: self.word()?,
                sequence: self.number()?,
                digest: self.hex()?,
                at: self.number()?,
            },
            "gap" => Record::Gap {
                from: self.hex()?,
                epoch: self.number()?,
                topic: self.word()?,
                first: self.number()?,
                last: self.number()?,
            },
            "new-life" => Record::NewLife {
                from: self.hex()?,
                epoch: self.number()?,
                topic: self.word()?,
                first: self.number()?,
            },
            "decided" => Record::Decided {
                from: self.hex()?,
                epoch: self.number()?,
                topic: self.word()?,
                sequence: self.number()?,
                told: self.told()?,
            },
            "end" => Record::End { at: self.number()? },
            _ => return None,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Life { owner, key, epoch, at } => {
                write!(f, "life {} {key:016x} {epoch} {at}", Word(owner))
            }
            Self::Writes { promise, topic } => {
                write!(f, "writes {} {}", promise.name(), Word(topic))
            }
            Self::Reads { promise, topic } => write!(f, "reads {} {}", promise.name(), Word(topic)),
            Self::Sent { topic, sequence, digest, at } => {
                write!(f, "sent {} {sequence} {digest:016x} {at}", Word(topic))
            }
            Self::Refused { topic, sequence } => write!(f, "refused {} {sequence}", Word(topic)),
            Self::Outcome { topic, sequence, told } => {
                write!(f, "outcome {} {sequence} {}", Word(topic), told.name())
            }
            Self::Got { from, epoch, topic, sequence, digest, at } => {
                write!(f, "got {from:016x} {epoch} {} {sequence} {digest:016x} {at}", Word(topic))
            }
            Self::Gap { from, epoch, topic, first, last } => {
                write!(f, "gap {from:016x} {epoch} {} {first} {last}", Word(topic))
            }
            Self::NewLife { from, epoch, topic, first } => {
                write!(f, "new-life {from:016x} {epoch} {} {first}", Word(topic))
            }
            Self::Decided { from, epoch, topic, sequence, told } => {
                let (topic, told) = (Word(topic), told.name());
                write!(f, "decided {from:016x} {epoch} {topic} {sequence} {told}")
            }
            Self::End { at } => write!(f, "end {at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Record> {
        let topic = "a topic/100% #1".to_owned();
        let (from, epoch, sequence, digest) = (u64::MAX, 3, 17, 0xc0ff_ee00);
        let promise = Promise::Reliable;
        let mut all = vec![
            Record::Life { owner: "arm".to_owned(), key: 9, epoch, at: -5 },
            Record::Writes { promise, topic: topic.clone() },
            Record::Reads { promise: Promise::BestEffort, topic: topic.clone() },
            Record::Sent { topic: topic.clone(), sequence, digest, at: 12 },
            Record::Refused { topic: topic.clone(), sequence },
            Record::Got { from, epoch, topic: topic.clone(), sequence, digest, at: 13 },
            Record::Gap { from, epoch, topic: topic.clone(), first: 4, last: 9 },
            Record::NewLife { from, epoch, topic: topic.clone(), first: 3 },
            Record::Decided { from, epoch, topic: topic.clone(), sequence, told: Told::Rejected },
            Record::End { at: 20 },
        ];
        all.extend(Told::ALL.map(|(told, _)| Record::Outcome {
            topic: topic.clone(),
            sequence,
            told,
        }));
        all
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (n, record) in (0..).zip(every_kind()) {
            let line = record.line(n);
            let read = Record::parse(line.strip_suffix('\n').unwrap());
            assert_eq!(read, Some((n, record)), "{line}");
        }
    }

    #[test]
    fn a_line_with_any_byte_changed_or_cut_off_is_not_read() {
        for record in every_kind() {
            let line = record.line(1);
            let line = line.trim_end();
            for n in 0..line.len() {
                let mut changed = line.as_bytes().to_vec();
                changed[n] ^= 1;
                assert_eq!(Record::parse(&String::from_utf8_lossy(&changed)), None, "{line} {n}");
                assert_eq!(Record::parse(&line[..n]), None, "{line} {n}");
            }
        }
    }
}
