//! The topics of the nodes on this machine, from two looks at their panels.

use serde::Serialize;
use sinew_io::wire::SchemaId;
use sinew_rt::clock::Nanos;
use sinew_rt::panel::{Kind, PanelSnapshot};

use crate::exit::Failure;
use crate::messages::MessageType;
use crate::panels::{OpenPanel, PanelDir};

/// The panels of all nodes that run, and why others could not be read.
pub(super) struct Nodes {
    pub(super) open: Vec<OpenPanel>,
    pub(super) unreadable: Vec<String>,
}

impl Nodes {
    pub(super) fn open(dir: &PanelDir) -> Self {
        let (panels, closed) = dir.list();
        let mut nodes =
            Self { open: Vec::new(), unreadable: closed.into_iter().map(|dir| dir.why).collect() };
        for panel in panels.iter().filter(|panel| !panel.crashed) {
            match OpenPanel::open(&panel.path).and_then(|open| Ok((open.look()?.life.runs(), open)))
            {
                Ok((true, open)) => nodes.open.push(open),
                // Its node is dead, or ended after it was listed.
                Ok((false, _)) => {}
                Err(_) if !panel.path.exists() => {}
                Err(failure) => nodes.unreadable.push(failure.message),
            }
        }
        nodes
    }

    /// What each shows now. One that has ended since shows its last.
    pub(super) fn look(&self) -> Result<Vec<PanelSnapshot>, Failure> {
        self.open.iter().map(|open| Ok(open.look()?.snapshot)).collect()
    }
}

/// What a node does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Publishes,
    Receives,
}

impl Role {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Publishes => "publishes",
            Self::Receives => "receives",
        }
    }

    fn counter(self, topic: &str) -> String {
        match self {
            Self::Publishes => format!("sent/{topic}"),
            Self::Receives => format!("delivered/{topic}"),
        }
    }
}

/// One end of a topic: a node that publishes or receives it.
#[derive(Debug, Serialize)]
pub(super) struct End {
    pub(super) node: String,
    pub(super) pid: u32,
    pub(super) role: Role,
    /// The message type, if this command knows it.
    #[serde(rename = "type")]
    pub(super) type_name: Option<&'static str>,
    pub(super) schema_id: Option<String>,
    /// A type that arrived instead, and was dropped.
    pub(super) foreign_type: Option<String>,
    /// In the time between the two looks.
    pub(super) rate_hz: f64,
    /// Since the node started.
    pub(super) count: u64,
    /// Of a receiver, between the two looks.
    pub(super) age: Option<Age>,
}

/// How old messages were when they were delivered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Age {
    pub(super) p50_ns: i64,
    pub(super) p99_ns: i64,
    pub(super) max_ns: i64,
}

/// The names of the topics that a node publishes or receives.
pub(super) fn topics(snapshot: &PanelSnapshot) -> impl Iterator<Item = (&str, Role)> {
    snapshot.counters.iter().filter_map(|(name, _)| {
        let sent = name.strip_prefix("sent/").map(|topic| (topic, Role::Publishes));
        sent.or_else(|| name.strip_prefix("delivered/").map(|topic| (topic, Role::Receives)))
    })
}

/// What a node did with a topic between two looks at its panel.
pub(super) fn end(before: &PanelSnapshot, after: &PanelSnapshot, topic: &str, role: Role) -> End {
    let counter = role.counter(topic);
    let count = after.counter(&counter).unwrap_or(0);
    let risen = count.saturating_sub(before.counter(&counter).unwrap_or(0));
    let seconds = (after.taken_at - before.taken_at).as_nanos() as f64 / 1e9;
    let gauge = |prefix: &str| {
        let id = after.gauge(&format!("{prefix}/{topic}")).filter(|id| *id != 0)?;
        Some(SchemaId::from_raw(id.cast_unsigned()))
    };
    let named = |id: SchemaId| {
        MessageType::with_schema(id)
            .map_or_else(|| format!("type {id}"), |known| known.name.to_owned())
    };
    let schema = gauge("schema");
    End {
        node: after.name.clone(),
        pid: after.process.pid,
        role,
        type_name: schema.and_then(MessageType::with_schema).map(|known| known.name),
        schema_id: schema.map(|id| id.to_string()),
        foreign_type: gauge("foreign_schema").filter(|_| role == Role::Receives).map(named),
        rate_hz: if seconds > 0.0 { risen as f64 / seconds } else { 0.0 },
        count,
        age: (role == Role::Receives).then(|| age(before, after, topic)).flatten(),
    }
}

fn age(before: &PanelSnapshot, after: &PanelSnapshot, topic: &str) -> Option<Age> {
    let after = after.histogram(topic, Kind::Age)?;
    let mut interval = after.hdr.clone();
    if let Some(before) = before.histogram(topic, Kind::Age) {
        // It only grows in one life of a node; of another life there is nothing to subtract.
        interval.subtract(&before.hdr).ok()?;
    }
    if interval.is_empty() {
        return None;
    }
    // The bucket's upper end may lie above the exact maximum.
    let ns = |value: u64| Nanos::new(value.cast_signed()).min(after.max).as_nanos();
    Some(Age {
        p50_ns: ns(interval.value_at_quantile(0.5)),
        p99_ns: ns(interval.value_at_quantile(0.99)),
        max_ns: ns(interval.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_control::message::JointState;
    use sinew_io::message::schema_id;
    use sinew_rt::panel::{Panel, PanelSpec};

    #[test]
    fn an_end_shows_what_happened_between_two_looks() {
        let panel = Panel::anonymous(&PanelSpec::new("controller")).unwrap();
        let delivered = panel.counter("delivered/arm/state").unwrap();
        let schema = panel.gauge("schema/arm/state").unwrap();
        schema.set(schema_id::<JointState>().get().cast_signed());
        let foreign = panel.gauge("foreign_schema/arm/state").unwrap();
        let age = panel.recorder("arm/state", Kind::Age).unwrap();
        let look = || panel.snapshot().unwrap();
        age.record(Nanos::from_millis(9), Nanos::from_secs(1));
        delivered.add(40);
        let before = look();
        assert_eq!(topics(&before).collect::<Vec<_>>(), [("arm/state", Role::Receives)]);
        delivered.add(500);
        foreign.set(7);
        (0..500).for_each(|_| age.record(Nanos::from_micros(30), Nanos::from_secs(2)));
        let mut after = look();
        after.taken_at = before.taken_at + Nanos::from_millis(500);
        let end = end(&before, &after, "arm/state", Role::Receives);
        assert_eq!((end.rate_hz, end.count), (1_000.0, 540));
        assert_eq!(end.type_name, Some("JointState@1"));
        assert_eq!(end.foreign_type.as_deref(), Some("type 0000000000000007"));
        let age = end.age.unwrap();
        assert!((29_000..=31_000).contains(&age.max_ns), "not of the time before: {age:?}");
    }
}
