//! Reports: what the two ends of reliable streams tell each other about them.
//!
//! A report is the payload of an envelope on a reserved topic ([`REPORTS`], or [`REPORTS_OPEN`] about topics
//! whose envelopes are unsigned), addressed to one peer: one to 16 entries of 64 bytes. It passes the same
//! filters as every envelope, so it is authenticated, of a known life, and never taken twice.
//!
//! Acknowledgement, from a reader:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | kind | u8 | 1 |
//! | 1 | class | u8 | the class that the reader expects |
//! | 2 | flags | u8 | [`WANTED`]: send what is missing again |
//! | 3 | reserved | u8 | 0 |
//! | 4 | held_us | u32 | from the receipt of the message of `echo` to this report, µs |
//! | 8 | topic | u64 | |
//! | 16 | schema | u64 | the type that the reader expects |
//! | 24 | epoch | u64 | the life of the writer that this is about |
//! | 32 | floor | u64 | this and everything before it is done |
//! | 40 | held | u64 | bit `n` set: `floor + 1 + n` was received; bit 0 is never set |
//! | 48 | limit | u64 | the highest sequence that the reader has room for |
//! | 56 | echo | i64 | `sent_at` of the newest message received, as its sender wrote it, ns; 0: none |
//!
//! More held, from a reader, right after an acknowledgement that has not room for all that is held:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | kind | u8 | 4 |
//! | 1 | reserved | u8 | 0 |
//! | 2 | flags | u8 | [`WANTED`]: send what is missing below the highest of these bits again |
//! | 3 | reserved | 5 bytes | 0 |
//! | 8 | topic | u64 | |
//! | 16 | epoch | u64 | the life of the writer that this is about |
//! | 24 | floor | u64 | the floor from which the bits count |
//! | 32 | held | 3 × u64 | bit `n` of word `w` set: `floor + 1 + 64 (w + 1) + n` was received; not all are 0 |
//! | 56 | reserved | 8 bytes | 0 |
//!
//! Either of the two may be lost or late. What this one says stays true when the floor has grown since,
//! and is left aside by a writer that has not heard of its floor.
//!
//! Heartbeat, from a writer (of the life in the envelope's own header):
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | kind | u8 | 2 |
//! | 1 | class | u8 | the class of the topic |
//! | 2 | flags | u8 | [`MANY`]: there are many readers, which shall ask late and acknowledge rarely |
//! | 3 | reserved | 5 bytes | 0 |
//! | 8 | topic | u64 | |
//! | 16 | schema | u64 | |
//! | 24 | first | u64 | the lowest sequence that can still be sent again; `last + 1` when there is none |
//! | 32 | last | u64 | the highest sequence that was sent; 0: none |
//! | 40 | unresolved | u64 | the lowest command whose outcome the writer does not know; 0: none |
//! | 48 | reserved | 16 bytes | 0 |
//!
//! Outcomes, from the reader of commands:
//!
//! | offset | field | type | meaning |
//! |---|---|---|---|
//! | 0 | kind | u8 | 3 |
//! | 1 | count | u8 | 1 to 32 |
//! | 2 | reserved | 6 bytes | 0 |
//! | 8 | topic | u64 | |
//! | 16 | epoch | u64 | the life of the writer |
//! | 24 | base | u64 | the command that the first code is about |
//! | 32 | codes | 32 × u8 | 0 not decided, 1 accepted, 2 expired, 3 never arrived, 16 to 255 rejected for reason `code − 16` |
//!
//! All numbers are little-endian.

use sinew_rt::clock::Nanos;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PAYLOAD_MAX;
use super::envelope::Class;
use super::frame::Malformed;
use super::names::{Epoch, SchemaId, Sequence, TopicId, hash64};

/// The reserved topic of reports about signed topics.
pub const REPORTS: &str = "sinew/report";
/// The reserved topic of reports about open topics.
pub const REPORTS_OPEN: &str = "sinew/report/open";
/// The type of a report.
const SCHEMA: &str = "Report@1";
/// Bytes of an entry.
pub const ENTRY_LEN: usize = 64;
/// The most entries of one report.
pub const ENTRIES_MAX: usize = PAYLOAD_MAX / ENTRY_LEN;
/// Flag of an acknowledgement: what is missing below the highest held shall be sent again.
pub const WANTED: u8 = 0x01;
/// Flag of a heartbeat: more readers than a writer can hear often. They ask for what is missing after a
/// random delay, so that one request can serve many, and acknowledge only when the writer needs room.
pub const MANY: u8 = 0x01;
/// The most outcomes of one entry.
pub const OUTCOMES_MAX: usize = 32;

const ACKNOWLEDGEMENT: u8 = 1;
const HEARTBEAT: u8 = 2;
const OUTCOMES: u8 = 3;
const MORE_HELD: u8 = 4;

/// "This is what I have of your stream."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The topic.
    pub topic: TopicId,
    /// The type that the reader expects.
    pub schema: SchemaId,
    /// The class that the reader expects.
    pub class: Class,
    /// The life of the writer that this is about.
    pub epoch: Epoch,
    /// This and everything before it is done: delivered, or given up as a gap.
    pub floor: Sequence,
    /// Bit `n` set: `floor + 1 + n` was received. Bit 0 is never set.
    pub held: u64,
    /// The highest sequence that the reader has room for.
    pub limit: Sequence,
    /// Whether what is missing below the highest held, or below what a heartbeat named, shall be sent again.
    pub wanted: bool,
    /// `sent_at` of the newest message received, on the writer's clock.
    pub echo: Option<Nanos>,
    /// From its receipt to this report, in µs.
    pub held_us: u32,
}

/// "And this is what I have further on."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoreHeld {
    /// The topic.
    pub topic: TopicId,
    /// The life of the writer that this is about.
    pub epoch: Epoch,
    /// The floor from which the bits count.
    pub floor: Sequence,
    /// Bit `n` of word `w` set: `floor + 1 + 64 (w + 1) + n` was received. Not all are 0.
    pub held: [u64; 3],
    /// Whether what is missing below the highest of these shall be sent again.
    pub wanted: bool,
}

/// "This is what there is of my stream."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The topic.
    pub topic: TopicId,
    /// The type of its messages.
    pub schema: SchemaId,
    /// Its class.
    pub class: Class,
    /// The lowest sequence that can still be sent again; `last + 1` when there is none.
    pub first: Sequence,
    /// The highest sequence that was sent; 0: none.
    pub last: Sequence,
    /// The lowest command whose outcome the writer does not know.
    pub unresolved: Option<Sequence>,
    /// Whether there are many readers: [`MANY`].
    pub many: bool,
}

/// "This is what became of your commands."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcomes {
    /// The topic.
    pub topic: TopicId,
    /// The life of the writer.
    pub epoch: Epoch,
    /// The command that the first code is about.
    pub base: Sequence,
    /// How many codes count, 1 to [`OUTCOMES_MAX`].
    pub count: u8,
    /// The codes; those beyond `count` are 0.
    pub codes: [u8; OUTCOMES_MAX],
}

/// One entry of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From a reader.
    Acknowledgement(Acknowledgement),
    /// From a reader, right after its acknowledgement.
    MoreHeld(MoreHeld),
    /// From a writer.
    Heartbeat(Heartbeat),
    /// From a reader of commands.
    Outcomes(Outcomes),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireAcknowledgement {
    kind: u8,
    class: u8,
    flags: u8,
    reserved: u8,
    held_us: U32,
    topic: U64,
    schema: U64,
    epoch: U64,
    floor: U64,
    held: U64,
    limit: U64,
    echo: I64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireMoreHeld {
    kind: u8,
    before_flags: u8,
    flags: u8,
    reserved: [u8; 5],
    topic: U64,
    epoch: U64,
    floor: U64,
    held: [U64; 3],
    padding: [u8; 8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireHeartbeat {
    kind: u8,
    class: u8,
    flags: u8,
    reserved: [u8; 5],
    topic: U64,
    schema: U64,
    first: U64,
    last: U64,
    unresolved: U64,
    padding: [u8; 16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireOutcomes {
    kind: u8,
    count: u8,
    reserved: [u8; 6],
    topic: U64,
    epoch: U64,
    base: U64,
    codes: [u8; OUTCOMES_MAX],
}

const _: () = assert!(size_of::<WireAcknowledgement>() == ENTRY_LEN);
const _: () = assert!(size_of::<WireMoreHeld>() == ENTRY_LEN);
const _: () = assert!(size_of::<WireHeartbeat>() == ENTRY_LEN);
const _: () = assert!(size_of::<WireOutcomes>() == ENTRY_LEN);

impl Entry {
    /// The topic that it is about.
    #[must_use]
    pub fn topic(&self) -> TopicId {
        match self {
            Self::Acknowledgement(entry) => entry.topic,
            Self::MoreHeld(entry) => entry.topic,
            Self::Heartbeat(entry) => entry.topic,
            Self::Outcomes(entry) => entry.topic,
        }
    }

    /// The entry as it lies in a report.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ENTRY_LEN] {
        match self {
            Self::Acknowledgement(entry) => zerocopy::transmute!(WireAcknowledgement {
                kind: ACKNOWLEDGEMENT,
                class: entry.class as u8,
                flags: if entry.wanted { WANTED } else { 0 },
                reserved: 0,
                held_us: U32::new(entry.held_us),
                topic: U64::new(entry.topic.get()),
                schema: U64::new(entry.schema.get()),
                epoch: U64::new(entry.epoch.get()),
                floor: U64::new(entry.floor.get()),
                held: U64::new(entry.held),
                limit: U64::new(entry.limit.get()),
                echo: I64::new(entry.echo.map_or(0, Nanos::as_nanos)),
            }),
            Self::MoreHeld(entry) => zerocopy::transmute!(WireMoreHeld {
                kind: MORE_HELD,
                before_flags: 0,
                flags: if entry.wanted { WANTED } else { 0 },
                reserved: [0; 5],
                topic: U64::new(entry.topic.get()),
                epoch: U64::new(entry.epoch.get()),
                floor: U64::new(entry.floor.get()),
                held: entry.held.map(U64::new),
                padding: [0; 8],
            }),
            Self::Heartbeat(entry) => zerocopy::transmute!(WireHeartbeat {
                kind: HEARTBEAT,
                class: entry.class as u8,
                flags: if entry.many { MANY } else { 0 },
                reserved: [0; 5],
                topic: U64::new(entry.topic.get()),
                schema: U64::new(entry.schema.get()),
                first: U64::new(entry.first.get()),
                last: U64::new(entry.last.get()),
                unresolved: U64::new(entry.unresolved.map_or(0, Sequence::get)),
                padding: [0; 16],
            }),
            Self::Outcomes(entry) => zerocopy::transmute!(WireOutcomes {
                kind: OUTCOMES,
                count: entry.count,
                reserved: [0; 6],
                topic: U64::new(entry.topic.get()),
                epoch: U64::new(entry.epoch.get()),
                base: U64::new(entry.base.get()),
                codes: entry.codes,
            }),
        }
    }

    /// Reads one entry. Never panics, whatever the bytes are.
    pub fn parse(bytes: &[u8; ENTRY_LEN]) -> Result<Self, Malformed> {
        let class =
            |number| Class::from_wire(number).ok_or(Malformed::UnknownClass { got: number });
        match bytes[0] {
            ACKNOWLEDGEMENT => {
                let wire: WireAcknowledgement = zerocopy::transmute!(*bytes);
                if wire.reserved != 0 || wire.flags & !WANTED != 0 || wire.held.get() & 1 != 0 {
                    return Err(Malformed::Reserved);
                }
                Ok(Self::Acknowledgement(Acknowledgement {
                    topic: TopicId::from_raw(wire.topic.get()),
                    schema: SchemaId::from_raw(wire.schema.get()),
                    class: class(wire.class)?,
                    epoch: Epoch::new(wire.epoch.get()),
                    floor: Sequence::new(wire.floor.get()),
                    held: wire.held.get(),
                    limit: Sequence::new(wire.limit.get()),
                    wanted: wire.flags & WANTED != 0,
                    echo: Some(wire.echo.get()).filter(|ns| *ns != 0).map(Nanos::new),
                    held_us: wire.held_us.get(),
                }))
            }
            MORE_HELD => {
                let wire: WireMoreHeld = zerocopy::transmute!(*bytes);
                let held = wire.held.map(U64::get);
                let reserved = [wire.before_flags, wire.flags & !WANTED];
                if reserved != [0; 2] || wire.reserved != [0; 5] || wire.padding != [0; 8] {
                    return Err(Malformed::Reserved);
                }
                // An acknowledgement says that by itself.
                if held == [0; 3] {
                    return Err(Malformed::Reserved);
                }
                Ok(Self::MoreHeld(MoreHeld {
                    topic: TopicId::from_raw(wire.topic.get()),
                    epoch: Epoch::new(wire.epoch.get()),
                    floor: Sequence::new(wire.floor.get()),
                    held,
                    wanted: wire.flags & WANTED != 0,
                }))
            }
            HEARTBEAT => {
                let wire: WireHeartbeat = zerocopy::transmute!(*bytes);
                if wire.flags & !MANY != 0 || wire.reserved != [0; 5] || wire.padding != [0; 16] {
                    return Err(Malformed::Reserved);
                }
                Ok(Self::Heartbeat(Heartbeat {
                    topic: TopicId::from_raw(wire.topic.get()),
                    schema: SchemaId::from_raw(wire.schema.get()),
                    class: class(wire.class)?,
                    first: Sequence::new(wire.first.get()),
                    last: Sequence::new(wire.last.get()),
                    unresolved: Some(wire.unresolved.get())
                        .filter(|sequence| *sequence != 0)
                        .map(Sequence::new),
                    many: wire.flags & MANY != 0,
                }))
            }
            OUTCOMES => {
                let wire: WireOutcomes = zerocopy::transmute!(*bytes);
                let count = usize::from(wire.count);
                if wire.reserved != [0; 6] || count == 0 {
                    return Err(Malformed::Reserved);
                }
                match wire.codes.get(count..) {
                    Some(unused) if unused.iter().all(|code| *code == 0) => {}
                    _ => return Err(Malformed::Reserved),
                }
                Ok(Self::Outcomes(Outcomes {
                    topic: TopicId::from_raw(wire.topic.get()),
                    epoch: Epoch::new(wire.epoch.get()),
                    base: Sequence::new(wire.base.get()),
                    count: wire.count,
                    codes: wire.codes,
                }))
            }
            got => Err(Malformed::UnknownMessage { got }),
        }
    }
}

/// The identity of the type of reports.
#[must_use]
pub fn schema() -> SchemaId {
    SchemaId::from_raw(hash64(blake3::Hasher::new().update(SCHEMA.as_bytes())))
}

/// The entries of a report; refused as a whole unless its length is one to [`ENTRIES_MAX`] entries.
pub fn entries(
    payload: &[u8],
) -> Result<impl Iterator<Item = Result<Entry, Malformed>> + '_, Malformed> {
    let (entries, rest) = payload.as_chunks::<ENTRY_LEN>();
    if entries.is_empty() || !rest.is_empty() || entries.len() > ENTRIES_MAX {
        let declared = payload.len() / ENTRY_LEN * ENTRY_LEN;
        return Err(Malformed::LengthMismatch { declared, got: payload.len() });
    }
    Ok(entries.iter().map(Entry::parse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    #[test]
    fn the_tables_in_the_documentation_are_the_layouts() {
        assert_eq!(offset_of!(WireAcknowledgement, class), 1);
        assert_eq!(offset_of!(WireAcknowledgement, flags), 2);
        assert_eq!(offset_of!(WireAcknowledgement, held_us), 4);
        assert_eq!(offset_of!(WireAcknowledgement, topic), 8);
        assert_eq!(offset_of!(WireAcknowledgement, schema), 16);
        assert_eq!(offset_of!(WireAcknowledgement, epoch), 24);
        assert_eq!(offset_of!(WireAcknowledgement, floor), 32);
        assert_eq!(offset_of!(WireAcknowledgement, held), 40);
        assert_eq!(offset_of!(WireAcknowledgement, limit), 48);
        assert_eq!(offset_of!(WireAcknowledgement, echo), 56);
        assert_eq!(offset_of!(WireMoreHeld, flags), 2);
        assert_eq!(offset_of!(WireMoreHeld, topic), 8);
        assert_eq!(offset_of!(WireMoreHeld, epoch), 16);
        assert_eq!(offset_of!(WireMoreHeld, floor), 24);
        assert_eq!(offset_of!(WireMoreHeld, held), 32);
        assert_eq!(offset_of!(WireMoreHeld, padding), 56);
        assert_eq!(offset_of!(WireHeartbeat, flags), 2);
        assert_eq!(offset_of!(WireHeartbeat, topic), 8);
        assert_eq!(offset_of!(WireHeartbeat, schema), 16);
        assert_eq!(offset_of!(WireHeartbeat, first), 24);
        assert_eq!(offset_of!(WireHeartbeat, last), 32);
        assert_eq!(offset_of!(WireHeartbeat, unresolved), 40);
        assert_eq!(offset_of!(WireOutcomes, topic), 8);
        assert_eq!(offset_of!(WireOutcomes, epoch), 16);
        assert_eq!(offset_of!(WireOutcomes, base), 24);
        assert_eq!(offset_of!(WireOutcomes, codes), 32);
        assert_eq!(ENTRIES_MAX, 16);
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let class = (1u8..=5).prop_map(|n| Class::from_wire(n).unwrap());
        (any::<[u64; 7]>(), class, any::<(bool, u32)>(), any::<[u8; 32]>(), 0..4).prop_map(
            |(n, class, (wanted, held_us), mut codes, kind)| {
                let (topic, schema) = (TopicId::from_raw(n[0]), SchemaId::from_raw(n[1]));
                let sequence = Sequence::new;
                match kind {
                    0 => Entry::Acknowledgement(Acknowledgement {
                        topic,
                        schema,
                        class,
                        epoch: Epoch::new(n[2]),
                        floor: sequence(n[3]),
                        held: n[4] & !1,
                        limit: sequence(n[5]),
                        wanted,
                        echo: Some(Nanos::new(n[6].cast_signed())).filter(|at| *at != Nanos::ZERO),
                        held_us,
                    }),
                    3 => Entry::MoreHeld(MoreHeld {
                        topic,
                        epoch: Epoch::new(n[2]),
                        floor: sequence(n[3]),
                        held: [n[4], n[5] | 1, n[6]],
                        wanted,
                    }),
                    1 => Entry::Heartbeat(Heartbeat {
                        topic,
                        schema,
                        class,
                        first: sequence(n[2]),
                        last: sequence(n[3]),
                        unresolved: Some(sequence(n[4])).filter(|s| s.get() != 0),
                        many: wanted,
                    }),
                    _ => {
                        let count = (n[4] % 32) as u8 + 1;
                        codes[usize::from(count)..].fill(0);
                        Entry::Outcomes(Outcomes {
                            topic,
                            epoch: Epoch::new(n[2]),
                            base: sequence(n[3]),
                            count,
                            codes,
                        })
                    }
                }
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_survives_the_wire(entry in entry()) {
            prop_assert_eq!(Entry::parse(&entry.to_bytes()), Ok(entry));
        }

        #[test]
        fn any_bytes_are_refused_or_are_exactly_what_would_be_written(mut bytes in any::<[u8; 64]>(), kind in 0u8..6, zeros in any::<bool>()) {
            bytes[0] = kind;
            if zeros {
                // What is reserved is 0, or most would be refused for that alone.
                bytes[1..8].fill(0);
                bytes[1] = u8::from(kind != MORE_HELD);
                bytes[2] = u8::from(kind == MORE_HELD);
                bytes[56..].fill(0);
            }
            if let Ok(entry) = Entry::parse(&bytes) {
                prop_assert_eq!(entry.to_bytes(), bytes);
            }
        }

        #[test]
        fn a_report_of_any_length_is_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..1100)) {
            match entries(&payload) {
                Ok(entries) => prop_assert_eq!(entries.count() * ENTRY_LEN, payload.len()),
                Err(_) => prop_assert!(payload.len() % ENTRY_LEN != 0 || payload.is_empty() || payload.len() > PAYLOAD_MAX),
            }
        }
    }
}
