//! What is in a message, for tools that show or fill one without knowing its type.
//!
//! Each type lists its fields once, with units; name, type and place are the compiler's. Nothing here
//! is for lanes: it allocates.

use sinew_io::message::Message;

use super::Invalid;

/// A message whose fields can be listed.
pub trait Described: Message {
    /// Its fields, in the order in which they lie in memory, without gaps.
    const FIELDS: &'static [Field];

    /// What a tool starts from when only some fields are given.
    #[must_use]
    fn template() -> Self {
        Self::new_zeroed()
    }

    /// Whether a receiver could act on it.
    ///
    /// # Errors
    /// The first [`Invalid`] found.
    fn validate(&self) -> Result<(), Invalid>;
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its unit, such as `"rad or m"`; empty for a number without.
    pub unit: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// What its numbers mean, from 0 on; empty for a quantity.
    pub codes: &'static [&'static str],
    /// The field that says how many elements of this array are in use; the others mean nothing.
    pub used: Option<&'static str>,
    /// Where it begins in the message, in bytes.
    pub offset: usize,
}

/// What a field holds. Little-endian, as everything on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A `u32`.
    U32,
    /// A `u64`.
    U64,
    /// An `i64`.
    I64,
    /// So many `f64`; a scalar is one, a list of one does not occur.
    F64(usize),
    /// UTF-8 of at most so many bytes, filled up with zeros.
    Text(usize),
}

impl FieldKind {
    /// Its bytes in the message.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::U32 => 4,
            Self::U64 | Self::I64 => 8,
            Self::F64(count) => 8 * count,
            Self::Text(bytes) => bytes,
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a [`FieldKind::U32`] or [`FieldKind::U64`].
    Unsigned(u64),
    /// Of a [`FieldKind::I64`].
    Signed(i64),
    /// Of a [`FieldKind::F64`].
    Floats(Vec<f64>),
    /// Of a [`FieldKind::Text`]: up to the first zero, and what is not UTF-8 replaced.
    Text(String),
}

/// A value that a field cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Unfit {
    /// The field's name.
    pub field: &'static str,
    /// Why it cannot.
    pub problem: String,
}

impl Field {
    /// The field's value in the bytes of a message; `None` when they are too few.
    #[must_use]
    pub fn read(&self, message: &[u8]) -> Option<Value> {
        let bytes = message.get(self.offset..self.offset + self.kind.size())?;
        let eight = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).ok();
        Some(match self.kind {
            FieldKind::U32 => {
                Value::Unsigned(u64::from(u32::from_le_bytes(bytes.try_into().ok()?)))
            }
            FieldKind::U64 => Value::Unsigned(u64::from_le_bytes(eight(bytes)?)),
            FieldKind::I64 => Value::Signed(i64::from_le_bytes(eight(bytes)?)),
            FieldKind::F64(_) => {
                Value::Floats(bytes.chunks(8).filter_map(eight).map(f64::from_le_bytes).collect())
            }
            FieldKind::Text(_) => {
                let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                Value::Text(String::from_utf8_lossy(text).into_owned())
            }
        })
    }

    /// Puts a value into the bytes of a message. A list that is shorter than the field leaves the rest
    /// as it is.
    ///
    /// # Errors
    /// [`Unfit`] when the value is of another kind, or too large.
    pub fn write(&self, message: &mut [u8], value: &Value) -> Result<(), Unfit> {
        let unfit = |problem: String| Unfit { field: self.name, problem };
        let bytes = match (self.kind, value) {
            (FieldKind::U32, Value::Unsigned(value)) => u32::try_from(*value)
                .map_err(|_| unfit(format!("is {value}, and holds at most {}", u32::MAX)))?
                .to_le_bytes()
                .to_vec(),
            (FieldKind::U64, Value::Unsigned(value)) => value.to_le_bytes().to_vec(),
            (FieldKind::I64, Value::Signed(value)) => value.to_le_bytes().to_vec(),
            (FieldKind::F64(room), Value::Floats(values)) if values.len() <= room => {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            (FieldKind::F64(room), Value::Floats(values)) => {
                return Err(unfit(format!("has {} values, and room for {room}", values.len())));
            }
            (FieldKind::Text(room), Value::Text(text)) if text.len() <= room => {
                let mut bytes = text.clone().into_bytes();
                bytes.resize(room, 0);
                bytes
            }
            (FieldKind::Text(room), Value::Text(text)) => {
                return Err(unfit(format!("has {} bytes, and room for {room}", text.len())));
            }
            (kind, _) => return Err(unfit(format!("is a {kind:?}, and the value is {value:?}"))),
        };
        message
            .get_mut(self.offset..self.offset + bytes.len())
            .ok_or_else(|| unfit("is not within the message".to_owned()))?
            .copy_from_slice(&bytes);
        Ok(())
    }
}

/// The kind of the field that `get` borrows.
pub(super) const fn kind_of<M, T: FieldType>(_get: fn(&M) -> &T) -> FieldKind {
    T::KIND
}

/// A type that a field may have.
pub(super) trait FieldType {
    const KIND: FieldKind;
}

impl FieldType for u32 {
    const KIND: FieldKind = FieldKind::U32;
}

impl FieldType for u64 {
    const KIND: FieldKind = FieldKind::U64;
}

impl FieldType for i64 {
    const KIND: FieldKind = FieldKind::I64;
}

impl FieldType for f64 {
    const KIND: FieldKind = FieldKind::F64(1);
}

impl<const N: usize> FieldType for [f64; N] {
    const KIND: FieldKind = FieldKind::F64(N);
}

impl<const N: usize> FieldType for [u8; N] {
    const KIND: FieldKind = FieldKind::Text(N);
}

/// The fields of a message: each by its name, with its unit and what its numbers mean, or which field
/// says how many of its elements are in use.
macro_rules! fields {
    ($message:ty { $($name:ident: $unit:literal $(codes $codes:expr)? $(, used $used:ident)?;)* }) => {
        &[$({
            #[allow(unused_mut, reason = "only some fields have more")]
            let mut field = $crate::message::fields::Field {
                name: stringify!($name),
                unit: $unit,
                kind: $crate::message::fields::kind_of(|message: &$message| &message.$name),
                codes: &[],
                used: None,
                offset: ::core::mem::offset_of!($message, $name),
            };
            $(field.codes = $codes;)?
            $(field.used = Some(stringify!($used));)?
            field
        }),*]
    };
}
pub(super) use fields;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Drive, Fault, Heartbeat, JointSetpoint, JointState, Severity, Twist};
    use crate::safety::State;

    fn covers<M: Described>() {
        let mut end = 0;
        for field in M::FIELDS {
            assert_eq!(field.offset, end, "{}.{} does not follow", M::NAME, field.name);
            end += field.kind.size();
            let known = |name: &&str| M::FIELDS.iter().any(|other| other.name == *name);
            assert!(field.used.as_ref().is_none_or(known), "{}.{}", M::NAME, field.name);
        }
        assert_eq!(end, size_of::<M>(), "{} has a field that is not listed", M::NAME);
        assert_eq!(M::template().validate(), Ok(()), "{}", M::NAME);
    }

    #[test]
    fn every_byte_of_every_message_belongs_to_one_listed_field() {
        covers::<Fault>();
        covers::<Heartbeat>();
        covers::<JointSetpoint>();
        covers::<JointState>();
        covers::<Twist>();
    }

    fn field<M: Described>(name: &str) -> &'static Field {
        M::FIELDS.iter().find(|field| field.name == name).unwrap()
    }

    #[test]
    fn the_words_for_codes_stand_at_their_numbers() {
        let drive = field::<JointSetpoint>("drive").codes;
        for (mode, word) in [
            (Drive::Release, "release"),
            (Drive::Effort, "effort"),
            (Drive::Velocity, "velocity"),
            (Drive::Position, "position"),
        ] {
            assert_eq!(drive[mode as usize], word);
        }
        let severity = field::<Fault>("severity").codes;
        for (level, word) in [
            (Severity::Info, "info"),
            (Severity::Warning, "warning"),
            (Severity::Error, "error"),
            (Severity::Critical, "critical"),
        ] {
            assert_eq!(severity[level as usize], word);
        }
        for safety in [field::<JointState>("safety"), field::<Heartbeat>("safety")] {
            for (code, word) in (0..).zip(safety.codes) {
                let state = State::from_code(code).unwrap().to_string();
                let letters = |text: &str| text.replace(|c: char| !c.is_alphanumeric(), "");
                assert_eq!(letters(&state), letters(word));
            }
            assert_eq!(State::from_code(safety.codes.len() as u32), None);
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_does_not_fit_is_refused_by_name() {
        let mut bytes = [0; size_of::<Fault>()];
        for (name, value) in [
            ("noticed_at_ns", Value::Signed(-5)),
            ("code", Value::Unsigned(17)),
            ("value", Value::Floats(vec![f64::MAX])),
            ("text", Value::Text("end stop".to_owned())),
        ] {
            field::<Fault>(name).write(&mut bytes, &value).unwrap();
            assert_eq!(field::<Fault>(name).read(&bytes), Some(value));
        }
        let fault = zerocopy::FromBytes::read_from_bytes(&bytes);
        let fault: Fault = fault.unwrap();
        assert_eq!((fault.noticed_at_ns, fault.code, fault.text()), (-5, 17, "end stop"));
        for (name, value, problem) in [
            ("code", Value::Unsigned(1 << 32), "code is 4294967296, and holds at most 4294967295"),
            ("value", Value::Floats(vec![0.0; 2]), "value has 2 values, and room for 1"),
            ("text", Value::Text("x".repeat(65)), "text has 65 bytes, and room for 64"),
        ] {
            let error = field::<Fault>(name).write(&mut bytes, &value).unwrap_err();
            assert_eq!(error.to_string(), problem);
        }
        assert_eq!(field::<Fault>("text").read(&bytes[..100]), None, "cut short");
    }
}
