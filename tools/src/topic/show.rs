//! A message as people and scripts read it.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};
use sinew_control::message::{Field, Value};

use crate::messages::MessageType;

/// The fields of a message with their values; of arrays only what is in use.
pub(super) fn fields(of: &MessageType, message: &[u8]) -> Vec<(&'static Field, Value)> {
    let read = |field: &Field| field.read(message);
    let value = |field: &'static Field| {
        let mut value = read(field)?;
        let used = field.used.and_then(|name| of.fields.iter().find(|field| field.name == name));
        if let (Value::Floats(values), Some(Value::Unsigned(used))) =
            (&mut value, used.and_then(read))
        {
            values.truncate(usize::try_from(used).unwrap_or(usize::MAX));
        }
        Some((field, value))
    };
    of.fields.iter().filter_map(value).collect()
}

/// A line for each field: name, value, unit.
pub(super) fn text(of: &MessageType, message: &[u8]) -> String {
    let width = of.fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (field, value) in fields(of, message) {
        let shown = match &value {
            Value::Unsigned(number) => match word(field, *number) {
                Some(word) => word.to_owned(),
                None => number.to_string(),
            },
            Value::Signed(number) => number.to_string(),
            Value::Floats(values) => match (field.used, values.as_slice()) {
                (None, [number]) => number.to_string(),
                (_, values) => {
                    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                    format!("[{}]", values.join(", "))
                }
            },
            // It comes from another machine: escaped before it goes to a terminal.
            Value::Text(text) => format!("{text:?}"),
        };
        let _ = writeln!(
            text,
            "{}",
            format!("  {:width$}  {shown} {}", field.name, field.unit).trim_end()
        );
    }
    text
}

/// The fields as JSON. Words for codes that have one; text for numbers that JSON has not (NaN, inf).
pub(super) fn json(of: &MessageType, message: &[u8]) -> Json {
    let float = |number: f64| match number.is_finite() {
        true => json!(number),
        false => json!(number.to_string()),
    };
    let value = |field: &Field, value: Value| match value {
        Value::Unsigned(number) => word(field, number).map_or_else(|| json!(number), Json::from),
        Value::Signed(number) => json!(number),
        Value::Floats(values) => match (field.used, values.as_slice()) {
            (None, [number]) => float(*number),
            (_, values) => values.iter().copied().map(float).collect(),
        },
        Value::Text(text) => Json::from(text),
    };
    let entries = fields(of, message).into_iter();
    Json::Object(entries.map(|(f, v)| (f.name.to_owned(), value(f, v))).collect::<Map<_, _>>())
}

fn word(field: &Field, number: u64) -> Option<&'static str> {
    field.codes.get(usize::try_from(number).ok()?).copied()
}

/// Bytes of an unknown type.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_control::message::{Fault, Joint, JointState, Severity};
    use zerocopy::IntoBytes;

    #[test]
    fn only_joints_in_use_are_shown_with_words_and_units() {
        let joints = [Joint { position: 0.25, ..Joint::default() }; 2];
        let mut state = JointState::new(7, -3, &joints).unwrap();
        state.safety = 5;
        let of = MessageType::named("JointState").unwrap();
        let text = text(of, state.as_bytes());
        assert!(text.contains("  position       [0.25, 0.25] rad or m\n"), "{text}");
        assert!(text.contains("  safety         safe-stop\n"), "{text}");
        assert!(text.contains("  sampled_at_ns  -3 ns\n"), "{text}");
        state.position[1] = f64::NAN;
        (state.safety, state.count) = (9, 200);
        let json = json(of, state.as_bytes());
        assert_eq!(json["position"].as_array().unwrap().len(), 8, "no more than there are");
        assert_eq!((&json["position"][1], &json["safety"]), (&"NaN".into(), &9.into()));
    }

    #[test]
    fn text_from_elsewhere_is_escaped_and_numbers_alone_are_no_lists() {
        let mut fault = Fault::new(1, Severity::Error, 3, "hot\x1b[2J");
        fault.limit = f64::INFINITY;
        let of = MessageType::named("Fault").unwrap();
        let text = text(of, fault.as_bytes());
        assert!(text.contains(r#"  text           "hot\u{1b}[2J""#), "{text}");
        assert!(text.contains("  severity       error\n"), "{text}");
        let json = json(of, fault.as_bytes());
        assert_eq!((&json["value"], &json["limit"]), (&0.0.into(), &"inf".into()));
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }
}
