//! From `'drive = effort, effort = [0.5, 0]'` to the bytes of a message.

use sinew_control::message::{Field, FieldKind, Value};

use crate::messages::MessageType;

/// The message of this type with these fields; the others are as in its template. A field that says how
/// many elements are in use follows the longest list, unless it is given.
pub(super) fn message(of: &MessageType, text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = (of.template)();
    let mut given: Vec<(&Field, Value)> = Vec::new();
    for assignment in split(text)? {
        let (name, value) = assignment
            .split_once('=')
            .ok_or_else(|| format!("`{assignment}` is no field; write `field = value`"))?;
        let (name, value) = (name.trim(), value.trim());
        let Some(field) = of.fields.iter().find(|field| field.name == name) else {
            let known = describe(of);
            return Err(format!("{} has no field `{name}`; it has {known}", of.name));
        };
        if given.iter().any(|(other, _)| other.name == name) {
            return Err(format!("`{name}` is given twice"));
        }
        let value = parse(field, value).map_err(|wanted| {
            format!("{name}: `{value}` is not {wanted}{}", in_brackets(field.unit))
        })?;
        field.write(&mut bytes, &value).map_err(|unfit| unfit.to_string())?;
        given.push((field, value));
    }
    let longest = |used: &Field| {
        let lists = given.iter().filter(|(field, _)| field.used == Some(used.name));
        lists
            .filter_map(|(field, value)| Some((field.name, floats(value)?.len())))
            .max_by_key(|l| l.1)
    };
    for used in of.fields {
        let Some((list, length)) = longest(used) else { continue };
        match given.iter().find(|(field, _)| field.name == used.name) {
            Some((_, Value::Unsigned(count))) if *count < length as u64 => {
                return Err(format!("{} is {count}, but {list} has {length} values", used.name));
            }
            Some(_) => {}
            None => used
                .write(&mut bytes, &Value::Unsigned(length as u64))
                .map_err(|unfit| unfit.to_string())?,
        }
    }
    (of.validate)(&bytes)?;
    Ok(bytes)
}

/// `tick (whole number, cycles), drive (release, effort, velocity, position), …`
pub(super) fn describe(of: &MessageType) -> String {
    let field = |field: &Field| {
        let unit = if field.unit.is_empty() { String::new() } else { format!(", {}", field.unit) };
        let kind = match field.kind {
            _ if !field.codes.is_empty() => field.codes.join(" | "),
            FieldKind::U32 | FieldKind::U64 => "whole number".to_owned(),
            FieldKind::I64 => "whole number, also negative".to_owned(),
            FieldKind::F64(1) => "number".to_owned(),
            FieldKind::F64(count) => format!("list of up to {count} numbers"),
            FieldKind::Text(bytes) => format!("text of up to {bytes} bytes"),
        };
        format!("{} ({kind}{unit})", field.name)
    };
    of.fields.iter().map(field).collect::<Vec<_>>().join(", ")
}

fn in_brackets(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" ({unit})") }
}

fn floats(value: &Value) -> Option<&[f64]> {
    match value {
        Value::Floats(values) => Some(values),
        _ => None,
    }
}

/// The assignments, at the commas that are in neither brackets nor quotation marks.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut depth, mut quoted) = (Vec::new(), 0, 0_i32, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth != 0 {
        let what = if quoted { "quotation mark" } else { "bracket" };
        return Err(format!("a {what} in `{text}` has no partner"));
    }
    parts.push(&text[begin..]);
    Ok(parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect())
}

/// The value, or what the field wants.
fn parse(field: &Field, text: &str) -> Result<Value, String> {
    if let Some(code) = field.codes.iter().position(|word| *word == text) {
        return Ok(Value::Unsigned(code as u64));
    }
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    Ok(match field.kind {
        FieldKind::U32 | FieldKind::U64 => {
            let wanted = match field.codes {
                [] => "a whole number from 0 on".to_owned(),
                codes => format!("one of {}, or a number", codes.join(", ")),
            };
            Value::Unsigned(text.parse().map_err(|_| wanted)?)
        }
        FieldKind::I64 => Value::Signed(text.parse().map_err(|_| "a whole number".to_owned())?),
        FieldKind::F64(1) => Value::Floats(vec![number(text).ok_or("a number")?]),
        FieldKind::F64(_) => {
            let wanted = "a list of numbers such as [0.1, 0.2]";
            let items = list.ok_or(wanted)?.split(',').filter(|item| !item.trim().is_empty());
            Value::Floats(items.map(number).collect::<Option<_>>().ok_or(wanted)?)
        }
        FieldKind::Text(_) => Value::Text(
            text.strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'))
                .unwrap_or(text)
                .to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_control::message::{Drive, Fault, Joint, JointSetpoint};
    use zerocopy::FromBytes;

    fn filled(of: &str, text: &str) -> Result<Vec<u8>, String> {
        message(MessageType::named(of).unwrap(), text)
    }

    #[test]
    fn fields_are_filled_by_name_and_the_count_follows_the_longest_list() {
        let text = "tick=7, drive = effort,position = [0.25, -1.5], effort = [ 0.5 ]";
        let bytes = filled("JointSetpoint@1", text).unwrap();
        let setpoint = JointSetpoint::read_from_bytes(&bytes).unwrap();
        assert_eq!((setpoint.tick, setpoint.drive()), (7, Ok(Drive::Effort)));
        let joint = |position, effort| Joint { position, velocity: 0.0, effort };
        assert!(setpoint.joints().eq([joint(0.25, 0.5), joint(-1.5, 0.0)]));
        let bytes = filled("Fault", r#"severity = error, text = "hot, [very] = 9", value = 81.5"#);
        let fault = Fault::read_from_bytes(&bytes.unwrap()).unwrap();
        assert_eq!((fault.text(), fault.value, fault.severity), ("hot, [very] = 9", 81.5, 2));
        assert_eq!(fault.joint, Fault::NO_JOINT, "as in the template");
        assert!(filled("Heartbeat", "").is_ok(), "nothing need be given");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_name_of_the_field() {
        for (of, text, wrong) in [
            (
                "JointSetpoint",
                "positon = [1]",
                "JointSetpoint@1 has no field `positon`; it has tick (",
            ),
            (
                "JointSetpoint",
                "position = 1",
                "position: `1` is not a list of numbers such as [0.1, 0.2] (rad or m)",
            ),
            (
                "JointSetpoint",
                "drive = fast",
                "drive: `fast` is not one of release, effort, velocity, position, or a number",
            ),
            ("JointSetpoint", "drive = 9", "drive has the unknown code 9"),
            ("JointSetpoint", "tick = -1", "tick: `-1` is not a whole number from 0 on (cycles)"),
            ("JointSetpoint", "tick = 1, tick = 2", "`tick` is given twice"),
            ("JointSetpoint", "tick", "`tick` is no field"),
            ("JointSetpoint", "effort = [1, 2", "a bracket in `effort = [1, 2` has no partner"),
            ("JointSetpoint", "count = 1, effort = [1, 2]", "count is 1, but effort has 2 values"),
            (
                "JointSetpoint",
                "effort = [0,0,0,0,0,0,0,0,0]",
                "effort has 9 values, and room for 8",
            ),
            ("JointSetpoint", "effort = [nan]", "effort[0] is not a finite number"),
            ("Twist", "linear = [1, x]", "linear: `[1, x]` is not a list"),
            ("Heartbeat", "period_ns = 0", "period_ns is 0, but must be above zero"),
            ("Fault", "text = \"no end", "a quotation mark in"),
        ] {
            let error = filled(of, text).unwrap_err();
            assert!(error.starts_with(wrong), "{text}: {error}");
        }
    }
}
