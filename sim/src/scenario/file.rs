//! The text of a scenario file: every key is known, and an error names its line and says what to do.

use serde::Deserialize;
use sinew_rt::clock::Nanos;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use toml::Spanned;

use super::{
    Chance, Delay, FAULTS_MAX, Fault, FaultKind, LINKS_MAX, LinkRule, NODES_MAX, Node, NodeIndex,
    Path, Rate, Scenario, Shape, Transport, Who,
};

/// A scenario that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; {hint}")]
pub struct ScenarioError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default)]
    seed: u64,
    seconds: Option<Spanned<f64>>,
    #[serde(default)]
    node: Vec<RawNode>,
    #[serde(default)]
    shape: BTreeMap<String, RawShape>,
    #[serde(default)]
    link: Vec<RawLink>,
    #[serde(default)]
    path: Vec<RawPath>,
    #[serde(default)]
    fault: Vec<RawFault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: Spanned<String>,
    address: Option<SocketAddr>,
    #[serde(default)]
    run: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShape {
    loss_percent: Option<Spanned<f64>>,
    duplicate_percent: Option<Spanned<f64>>,
    corrupt_percent: Option<Spanned<f64>>,
    reorder_percent: Option<Spanned<f64>>,
    reorder_ms: Option<Spanned<f64>>,
    delay: Option<Spanned<RawDelay>>,
    rate: Option<RawRate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDelay {
    fixed_ms: Option<Spanned<f64>>,
    uniform_ms: Option<[Spanned<f64>; 2]>,
    normal_ms: Option<[Spanned<f64>; 2]>,
    bounds_ms: Option<[Spanned<f64>; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    bytes_per_s: Spanned<u64>,
    queue_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    from: Spanned<String>,
    to: Spanned<String>,
    shape: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPath {
    from: Spanned<String>,
    to: Spanned<String>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    transport: Transport,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    kind: Spanned<RawKind>,
    at_ms: Spanned<f64>,
    for_ms: Option<Spanned<f64>>,
    from: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    shape: Option<Spanned<String>>,
    node: Option<Spanned<String>>,
    restart_after_ms: Option<Spanned<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Partition,
    Shape,
    Reset,
    Kill,
    Stall,
}

/// Reads a scenario from the text of its file.
///
/// # Errors
/// The first problem, with its line and what to do.
pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario = toml::from_str(text).map_err(|error| ScenarioError {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        problem: error.message().replace('\n', " "),
        hint: "`sinew-sim relay --help` shows every key".to_owned(),
    })?;
    let reader = Reader { text, nodes: names(text, &raw.node)? };
    bounded(&raw.link, LINKS_MAX, "link", |link| link.from.span().start, text)?;
    bounded(&raw.fault, FAULTS_MAX, "fault", |fault| fault.kind.span().start, text)?;

    let mut shapes = BTreeMap::new();
    for (name, shape) in &raw.shape {
        shapes.insert(name.as_str(), reader.shape(shape)?);
    }
    let shape = |name: &Spanned<String>| {
        let hint = || match shapes.is_empty() {
            true => format!("write [shape.{}] with what it does", name.get_ref()),
            false => {
                let known = shapes.keys().copied().collect::<Vec<_>>().join(", ");
                format!("use one of: {known}; or write [shape.{}]", name.get_ref())
            }
        };
        shapes.get(name.get_ref().as_str()).copied().ok_or_else(|| {
            reader.error(name, format!("there is no shape `{}`", name.get_ref()), hint())
        })
    };

    let mut scenario = Scenario { seed: raw.seed, ..Scenario::default() };
    scenario.duration = raw.seconds.map(|s| reader.span(&s, 1e9, "a run")).transpose()?;
    for link in &raw.link {
        scenario.links.push(LinkRule {
            from: reader.who(&link.from)?,
            to: reader.who(&link.to)?,
            shape: link.shape.as_ref().map(shape).transpose()?.unwrap_or_default(),
        });
    }
    for path in &raw.path {
        let (from, to) = (reader.node(&path.from)?, reader.node(&path.to)?);
        let twice = |known: &Path| known.from == from && known.to == to;
        if from == to || scenario.paths.iter().any(twice) {
            let problem = format!(
                "a second path from {} to {}, or one to itself",
                path.from.get_ref(),
                path.to.get_ref()
            );
            return Err(reader.error(&path.to, problem, "write one for each direction"));
        }
        scenario.paths.push(Path { from, to, listen: path.listen, transport: path.transport });
    }
    for fault in &raw.fault {
        scenario.faults.push(reader.fault(fault, shape)?);
    }
    scenario.nodes = raw
        .node
        .into_iter()
        .map(|node| Node { name: node.name.into_inner(), address: node.address, run: node.run })
        .collect();
    Ok(scenario)
}

/// The names of the nodes, each of which stands for one.
fn names<'a>(text: &str, nodes: &'a [RawNode]) -> Result<Vec<&'a str>, ScenarioError> {
    bounded(nodes, NODES_MAX, "node", |node| node.name.span().start, text)?;
    let mut names = Vec::<&str>::with_capacity(nodes.len());
    for node in nodes {
        let name = node.name.get_ref().as_str();
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let problem = if name.is_empty() || !name.chars().all(word) {
            Some((
                format!("`{name}` cannot be a node's name"),
                "use letters, digits, `-`, `_`, `.`",
            ))
        } else if names.contains(&name) {
            Some((format!("a second node `{name}`"), "give it another name"))
        } else {
            None
        };
        if let Some((problem, hint)) = problem {
            let line = line_of(text, node.name.span().start);
            return Err(ScenarioError { line, problem, hint: hint.to_owned() });
        }
        names.push(name);
    }
    Ok(names)
}

fn bounded<T>(
    entries: &[T],
    most: usize,
    what: &str,
    at: impl Fn(&T) -> usize,
    text: &str,
) -> Result<(), ScenarioError> {
    match entries.get(most) {
        None => Ok(()),
        Some(first_beyond) => Err(ScenarioError {
            line: line_of(text, at(first_beyond)),
            problem: format!("{} [[{what}]], and {most} are allowed", entries.len()),
            hint: "split the scenario".to_owned(),
        }),
    }
}

/// What is needed to convert values and to say where one stands.
struct Reader<'a> {
    text: &'a str,
    nodes: Vec<&'a str>,
}

impl Reader<'_> {
    fn error<T>(
        &self,
        at: &Spanned<T>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> ScenarioError {
        let line = line_of(self.text, at.span().start);
        ScenarioError { line, problem: problem.into(), hint: hint.into() }
    }

    fn node(&self, name: &Spanned<String>) -> Result<NodeIndex, ScenarioError> {
        let place = self.nodes.iter().position(|node| node == name.get_ref());
        place.map(NodeIndex::new).ok_or_else(|| {
            let hint = match self.nodes.as_slice() {
                [] => "begin with [[node]] and name = \"…\" for each".to_owned(),
                nodes => format!("use one of: {}", nodes.join(", ")),
            };
            self.error(name, format!("there is no node `{}`", name.get_ref()), hint)
        })
    }

    fn who(&self, name: &Spanned<String>) -> Result<Who, ScenarioError> {
        match name.get_ref().as_str() {
            "*" => Ok(Who::Anyone),
            _ => self.node(name).map(Who::Node),
        }
    }

    /// A length of time, not negative and not beyond 10 days.
    fn span(&self, value: &Spanned<f64>, unit_ns: f64, what: &str) -> Result<Nanos, ScenarioError> {
        const LONGEST_NS: f64 = 864e12;
        let ns = value.get_ref() * unit_ns;
        if !(0.0..=LONGEST_NS).contains(&ns) {
            let problem = format!("{what} of {}", value.get_ref());
            return Err(self.error(value, problem, "use a number from 0 to ten days"));
        }
        Ok(Nanos::new(ns.round() as i64))
    }

    fn ms(&self, value: &Spanned<f64>) -> Result<Nanos, ScenarioError> {
        self.span(value, 1e6, "a time in milliseconds")
    }

    fn pair(&self, [least, most]: &[Spanned<f64>; 2]) -> Result<(Nanos, Nanos), ScenarioError> {
        let pair = (self.ms(least)?, self.ms(most)?);
        if pair.0 > pair.1 {
            let problem = format!("from {} to {} ms is no range", least.get_ref(), most.get_ref());
            return Err(self.error(least, problem, "give the smaller number first"));
        }
        Ok(pair)
    }

    fn chance(&self, value: Option<&Spanned<f64>>) -> Result<Chance, ScenarioError> {
        let Some(value) = value else { return Ok(Chance::NEVER) };
        if !(0.0..=100.0).contains(value.get_ref()) {
            let problem = format!("{} percent", value.get_ref());
            return Err(self.error(value, problem, "use a number from 0 to 100"));
        }
        Ok(Chance::percent(*value.get_ref()))
    }

    fn shape(&self, raw: &RawShape) -> Result<Shape, ScenarioError> {
        match (&raw.reorder_percent, &raw.reorder_ms) {
            (Some(alone), None) => {
                let hint = "say with reorder_ms for how long at most datagrams are held back";
                return Err(self.error(alone, "reorder_percent without reorder_ms", hint));
            }
            (None, Some(alone)) => {
                let hint = "say with reorder_percent how many datagrams are held back";
                return Err(self.error(alone, "reorder_ms without reorder_percent", hint));
            }
            _ => {}
        }
        let rate = match &raw.rate {
            Some(rate) if *rate.bytes_per_s.get_ref() == 0 => {
                let hint = "use at least 1; a fault of kind \"partition\" lets nothing pass";
                return Err(self.error(&rate.bytes_per_s, "a rate of 0", hint));
            }
            Some(rate) => Some(Rate {
                bytes_per_s: *rate.bytes_per_s.get_ref(),
                queue_bytes: rate.queue_bytes,
            }),
            None => None,
        };
        Ok(Shape {
            loss: self.chance(raw.loss_percent.as_ref())?,
            duplicate: self.chance(raw.duplicate_percent.as_ref())?,
            corrupt: self.chance(raw.corrupt_percent.as_ref())?,
            reorder: self.chance(raw.reorder_percent.as_ref())?,
            reorder_within: raw.reorder_ms.as_ref().map_or(Ok(Nanos::ZERO), |ms| self.ms(ms))?,
            delay: raw.delay.as_ref().map_or(Ok(Delay::default()), |delay| self.delay(delay))?,
            rate,
        })
    }

    fn delay(&self, raw: &Spanned<RawDelay>) -> Result<Delay, ScenarioError> {
        let delay = raw.get_ref();
        match (&delay.fixed_ms, &delay.uniform_ms, &delay.normal_ms, &delay.bounds_ms) {
            (Some(fixed), None, None, None) => Ok(Delay::Fixed(self.ms(fixed)?)),
            (None, Some(range), None, None) => {
                let (least, most) = self.pair(range)?;
                Ok(Delay::Uniform { least, most })
            }
            (None, None, Some([mean, deviation]), Some(bounds)) => {
                let (mean, deviation) = (self.ms(mean)?, self.ms(deviation)?);
                let (least, most) = self.pair(bounds)?;
                Ok(Delay::Normal { mean, deviation, least, most })
            }
            _ => Err(self.error(
                raw,
                "a delay is one of three",
                "write { fixed_ms = 5 }, { uniform_ms = [1, 20] } or \
                 { normal_ms = [10, 3], bounds_ms = [0, 30] } (mean and deviation)",
            )),
        }
    }

    fn fault(
        &self,
        raw: &RawFault,
        shape: impl Fn(&Spanned<String>) -> Result<Shape, ScenarioError>,
    ) -> Result<Fault, ScenarioError> {
        let kind = *raw.kind.get_ref();
        // What each kind needs, and what it must not have: a key without an effect is a mistake.
        let (between, lasts, shaped, node, restarts) = match kind {
            RawKind::Partition => (true, true, false, false, false),
            RawKind::Shape => (true, true, true, false, false),
            RawKind::Reset => (true, false, false, false, false),
            RawKind::Kill => (false, false, false, true, true),
            RawKind::Stall => (false, true, false, true, false),
        };
        let given = [
            ("from", raw.from.as_ref().map(Spanned::span), between, between),
            ("to", raw.to.as_ref().map(Spanned::span), between, between),
            ("for_ms", raw.for_ms.as_ref().map(Spanned::span), lasts, lasts),
            ("shape", raw.shape.as_ref().map(Spanned::span), shaped, shaped),
            ("node", raw.node.as_ref().map(Spanned::span), node, node),
            ("restart_after_ms", raw.restart_after_ms.as_ref().map(Spanned::span), false, restarts),
        ];
        let name = format!("{kind:?}").to_lowercase();
        for (key, span, needed, allowed) in given {
            match span {
                Some(span) if !allowed => {
                    return Err(ScenarioError {
                        line: line_of(self.text, span.start),
                        problem: format!("a fault of kind \"{name}\" has no `{key}`"),
                        hint: "remove it".to_owned(),
                    });
                }
                None if needed => {
                    let problem = format!("a fault of kind \"{name}\" needs `{key}`");
                    return Err(self.error(&raw.kind, problem, format!("add {key} = …")));
                }
                _ => {}
            }
        }
        let who = |name: &Option<Spanned<String>>| {
            name.as_ref().map_or(Ok(Who::Anyone), |name| self.who(name))
        };
        let (from, to) = (who(&raw.from)?, who(&raw.to)?);
        let lasts = raw.for_ms.as_ref().map_or(Ok(Nanos::ZERO), |ms| self.ms(ms))?;
        let node = raw.node.as_ref().map_or(Ok(NodeIndex::new(0)), |name| self.node(name))?;
        let kind = match kind {
            RawKind::Partition => FaultKind::Partition { from, to, lasts },
            RawKind::Shape => {
                let shape = raw.shape.as_ref().map_or(Ok(Shape::default()), shape)?;
                FaultKind::Shape { from, to, shape, lasts }
            }
            RawKind::Reset => FaultKind::Reset { from, to },
            RawKind::Kill => {
                let restart_after =
                    raw.restart_after_ms.as_ref().map(|ms| self.ms(ms)).transpose()?;
                FaultKind::Kill { node, restart_after }
            }
            RawKind::Stall => FaultKind::Stall { node, lasts },
        };
        Ok(Fault { at: self.ms(&raw.at_ms)?, kind })
    }
}

/// The line, from 1, on which byte `offset` of `text` stands.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
seed = 7
seconds = 30

[[node]]
name = "sender"
address = "127.0.0.1:7401"
run = ["sinew-sim", "peer", "sender.toml"]
[[node]]
name = "receiver"

[shape.lossy]
loss_percent = 20
duplicate_percent = 10.5
corrupt_percent = 0.1
reorder_percent = 25
reorder_ms = 20
delay = { normal_ms = [10, 3], bounds_ms = [0.5, 30] }
rate = { bytes_per_s = 1_000_000, queue_bytes = 65_536 }
[shape.slow]
delay = { uniform_ms = [1, 20] }

[[link]]
from = "*"
to = "*"
shape = "slow"
[[link]]
from = "sender"
to = "receiver"
shape = "lossy"

[[path]]
from = "sender"
to = "receiver"
listen = "127.0.0.1:7411"
[[path]]
from = "receiver"
to = "sender"
transport = "tcp"

[[fault]]
kind = "partition"
at_ms = 1_000
for_ms = 500
from = "sender"
to = "*"
[[fault]]
kind = "kill"
at_ms = 2_000
node = "receiver"
restart_after_ms = 250
[[fault]]
kind = "shape"
at_ms = 0
for_ms = 5
from = "*"
to = "*"
shape = "slow"
[[fault]]
kind = "reset"
at_ms = 1
from = "*"
to = "*"
[[fault]]
kind = "stall"
at_ms = 1
for_ms = 2.5
node = "sender"
"#;

    #[test]
    fn every_key_ends_where_it_belongs() {
        let ms = Nanos::from_millis;
        let (sender, receiver) = (NodeIndex::new(0), NodeIndex::new(1));
        let scenario = parse(GOOD).unwrap();
        assert_eq!((scenario.seed, scenario.duration), (7, Some(Nanos::from_secs(30))));
        assert_eq!(scenario.nodes[0].address, Some("127.0.0.1:7401".parse().unwrap()));
        assert_eq!(scenario.nodes[0].run.len(), 3);
        assert_eq!(scenario.node("receiver"), Some(receiver));
        let slow =
            Shape { delay: Delay::Uniform { least: ms(1), most: ms(20) }, ..Shape::default() };
        assert_eq!(scenario.shape(receiver, sender), slow);
        let lossy = scenario.shape(sender, receiver);
        assert_eq!(lossy.loss, Chance::percent(20.0));
        assert_eq!((lossy.reorder, lossy.reorder_within), (Chance::percent(25.0), ms(20)));
        let least = Nanos::from_micros(500);
        let delay = Delay::Normal { mean: ms(10), deviation: ms(3), least, most: ms(30) };
        assert_eq!(lossy.delay, delay);
        assert_eq!(lossy.rate, Some(Rate { bytes_per_s: 1_000_000, queue_bytes: 65_536 }));
        assert_eq!(scenario.paths[0].listen, Some("127.0.0.1:7411".parse().unwrap()));
        assert_eq!(scenario.paths[1].transport, Transport::Tcp);
        let kinds: Vec<_> = scenario.faults.iter().map(|fault| fault.kind).collect();
        let (from, anyone) = (Who::Node(sender), Who::Anyone);
        assert_eq!(
            kinds,
            [
                FaultKind::Partition { from, to: anyone, lasts: ms(500) },
                FaultKind::Kill { node: receiver, restart_after: Some(ms(250)) },
                FaultKind::Shape { from: anyone, to: anyone, shape: slow, lasts: ms(5) },
                FaultKind::Reset { from: anyone, to: anyone },
                FaultKind::Stall { node: sender, lasts: Nanos::from_micros(2_500) },
            ]
        );
    }

    /// The error of the good text with one line replaced, which must be the line that it names.
    fn error_with(line: &str, instead: &str) -> String {
        let at = GOOD.lines().position(|good| good == line).unwrap();
        let text: Vec<&str> =
            GOOD.lines().enumerate().map(|(n, old)| if n == at { instead } else { old }).collect();
        let error = parse(&text.join("\n")).unwrap_err();
        assert_eq!(error.line, at + 1, "{error}");
        error.to_string()
    }

    #[test]
    fn an_error_names_its_line_and_says_what_to_do() {
        for (line, instead, words) in [
            ("seed = 7", "sead = 7", "unknown field `sead`"),
            ("seconds = 30", "seconds = -1", "use a number from 0 to ten days"),
            ("name = \"receiver\"", "name = \"sender\"", "a second node `sender`"),
            ("name = \"receiver\"", "name = \"a b\"", "use letters, digits"),
            ("loss_percent = 20", "loss_percent = 120", "use a number from 0 to 100"),
            ("loss_percent = 20", "loss_percent = nan", "use a number from 0 to 100"),
            ("reorder_ms = 20", "", "say with reorder_ms"),
            ("delay = { uniform_ms = [1, 20] }", "delay = { uniform_ms = [20, 1] }", "smaller"),
            ("delay = { uniform_ms = [1, 20] }", "delay = {}", "fixed_ms = 5"),
            (
                "rate = { bytes_per_s = 1_000_000, queue_bytes = 65_536 }",
                "rate = { bytes_per_s = 0, queue_bytes = 65_536 }",
                "a rate of 0",
            ),
            ("shape = \"lossy\"", "shape = \"loss\"", "use one of: lossy, slow"),
            ("node = \"receiver\"", "node = \"reciever\"", "use one of: sender, receiver"),
            ("restart_after_ms = 250", "for_ms = 250", "has no `for_ms`; remove it"),
            ("kind = \"stall\"", "kind = \"halt\"", "unknown variant `halt`"),
        ] {
            let found = match instead {
                // The line that is left names what is missing.
                "" => parse(&GOOD.replace(line, "")).unwrap_err().to_string(),
                _ => error_with(line, instead),
            };
            assert!(found.contains(words), "{instead}: {found}");
        }
        let error = parse(&GOOD.replace("for_ms = 500", "")).unwrap_err();
        assert!(error.problem.contains("needs `for_ms`"), "{error}");
    }

    #[test]
    fn an_empty_scenario_is_a_perfect_network_without_nodes() {
        assert_eq!(parse("").unwrap(), Scenario::default());
    }
}
