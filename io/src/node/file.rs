//! `sinew.toml`: every key is known, has an effect, and keeps its line for later errors.

use super::config::{
    Auth, Budgets, Layout, Mode, NodeConfig, PeerConfig, RealTimeConfig, TopicClass, TopicConfig,
};
use super::ownership;
use super::place::{ConfigError, Places, line_of, readable};
use crate::security::AdmissionLimits;
use serde::Deserialize;
use sinew_rt::clock::Nanos;
use sinew_rt::thread::{Priority, Strictness};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Wait;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: Option<Spanned<Node>>,
    transport: Option<Transport>,
    #[serde(default)]
    realtime: RealTime,
    #[serde(default)]
    budgets: BudgetSection,
    #[serde(default)]
    admission: AdmissionSection,
    #[serde(default)]
    peer: Vec<Spanned<Peer>>,
    #[serde(default)]
    topic: Vec<Spanned<Topic>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    name: Spanned<String>,
    cluster: Option<Spanned<String>>,
    #[serde(default)]
    mode: Mode,
    key: Option<Spanned<PathBuf>>,
    state_dir: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transport {
    bind: Spanned<SocketAddr>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RealTime {
    layout: Option<Spanned<Layout>>,
    cores: Option<Spanned<Vec<u16>>>,
    priority: Option<Spanned<u8>>,
    wait: Option<Spanned<WaitName>>,
    spin_us: Option<Spanned<u32>>,
    strictness: Option<StrictnessName>,
    lock_memory: Option<bool>,
    cpu_latency_us: Option<Latency>,
    keep_awake: Option<Spanned<Vec<u16>>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WaitName {
    Spin,
    SpinThenPark,
    Park,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum StrictnessName {
    Require,
    Report,
}

/// Microseconds, or `"off"` to leave power management alone.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of microseconds or \"off\"")]
enum Latency {
    Micros(u32),
    Off(Off),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Off {
    Off,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetSection {
    receive_us: Option<Spanned<u32>>,
    verify_us: Option<Spanned<u32>>,
    deliver_us: Option<Spanned<u32>>,
    send_us: Option<Spanned<u32>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionSection {
    peer_checks_per_s: Option<Spanned<u32>>,
    peer_burst: Option<Spanned<u32>>,
    strangers_checks_per_s: Option<Spanned<u32>>,
    strangers_burst: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: Spanned<String>,
    identity: Spanned<String>,
    address: Spanned<SocketAddr>,
    #[serde(default)]
    publishes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    name: Spanned<String>,
    schema: Spanned<String>,
    class: TopicClass,
    auth: Option<Spanned<Auth>>,
    lifespan_ms: Option<Spanned<u32>>,
    deadline_ms: Option<Spanned<u32>>,
    capacity: Option<Spanned<u16>>,
    linger_ms: Option<Spanned<u32>>,
    patience_ms: Option<Spanned<u32>>,
    hold: Option<Spanned<u16>>,
    reorder_us: Option<Spanned<u32>>,
    gap_timeout_ms: Option<Spanned<u32>>,
}

/// Reads and checks a configuration file. Relative paths in it are relative to the file.
///
/// # Errors
/// The first problem, with file, line and what to do.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let text = read(path).map_err(|(problem, hint)| ConfigError {
        file: None,
        key: path.display().to_string(),
        problem,
        hint,
    })?;
    parse(&text, path)
}

/// The longest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Reads a file that only this user or root can change: whoever writes it names the peers. The checks
/// are made on the open file. Otherwise says what is wrong and what to do.
fn read(path: &Path) -> Result<String, (String, String)> {
    let failed = |error: std::io::Error| {
        (format!("cannot be read: {error}"), "give the path of a sinew.toml".to_owned())
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    const ROOT: u32 = 0;
    ownership::check(&facts, path, &[ROOT])?;
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err((format!("is longer than {FILE_MAX} bytes"), "give a sinew.toml".to_owned()));
    }
    Ok(text)
}

/// Checks the text of a configuration file that stands, or would stand, at `path`.
///
/// # Errors
/// The first problem, with file, line and what to do.
pub fn parse(text: &str, path: &Path) -> Result<NodeConfig, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| syntax_error(&error, text, path))?;
    let mut lines = Lines { text, places: Places::new(path) };
    let config = convert(file, &mut lines, path.parent().unwrap_or(Path::new("")))?;
    config.validate()?;
    Ok(config)
}

struct Lines<'a> {
    text: &'a str,
    places: Places,
}

impl Lines<'_> {
    /// Takes a value out of its span and remembers its line under `key`.
    fn take<T>(&mut self, key: impl Into<String>, value: Spanned<T>) -> T {
        self.places.set(key, line_of(self.text, value.span().start));
        value.into_inner()
    }
}

fn convert(file: File, lines: &mut Lines<'_>, base: &Path) -> Result<NodeConfig, ConfigError> {
    let Some(node) = file.node else {
        let hint = "begin with [node] and name = \"…\"";
        return Err(lines.places.error("node", "there is no such section", hint));
    };
    let node = lines.take("node", node);
    let mut config = NodeConfig::new(lines.take("node.name", node.name));
    if let Some(cluster) = node.cluster {
        config.cluster = lines.take("node.cluster", cluster);
    }
    config.mode = node.mode;
    config.key = node.key.map(|key| base.join(lines.take("node.key", key)));
    config.state_dir = node.state_dir.map(|dir| base.join(lines.take("node.state_dir", dir)));
    config.bind = file.transport.map(|udp| lines.take("transport.bind", udp.bind));
    config.realtime = realtime(file.realtime, lines)?;
    config.budgets = budgets(file.budgets, lines)?;
    config.admission = admission(file.admission, lines)?;
    for (n, peer) in file.peer.into_iter().enumerate() {
        let peer = lines.take(format!("peer.{n}"), peer);
        config.peers.push(PeerConfig {
            name: lines.take(format!("peer.{n}.name"), peer.name),
            identity: lines.take(format!("peer.{n}.identity"), peer.identity),
            address: lines.take(format!("peer.{n}.address"), peer.address),
            publishes: peer.publishes,
        });
    }
    for (n, topic) in file.topic.into_iter().enumerate() {
        let topic = lines.take(format!("topic.{n}"), topic);
        config.topics.push(self::topic(n, topic, lines)?);
    }
    config.places = lines.places.clone();
    Ok(config)
}

fn topic(n: usize, file: Topic, lines: &mut Lines<'_>) -> Result<TopicConfig, ConfigError> {
    let name = lines.take(format!("topic.{n}.name"), file.name);
    let schema = lines.take(format!("topic.{n}.schema"), file.schema);
    let mut topic = TopicConfig::new(name, schema, file.class);
    if let Some(auth) = file.auth {
        topic.auth = lines.take(format!("topic.{n}.auth"), auth);
    }
    let mut span = |field: &str, value: Option<Spanned<u32>>| {
        value.map(|value| i64::from(lines.take(format!("topic.{n}.{field}"), value)))
    };
    topic.lifespan = span("lifespan_ms", file.lifespan_ms).map(Nanos::from_millis);
    topic.deadline = span("deadline_ms", file.deadline_ms).map(Nanos::from_millis);
    let reliable = [
        ("linger_ms", file.linger_ms.is_some()),
        ("patience_ms", file.patience_ms.is_some()),
        ("reorder_us", file.reorder_us.is_some()),
        ("gap_timeout_ms", file.gap_timeout_ms.is_some()),
        ("capacity", file.capacity.is_some()),
        ("hold", file.hold.is_some()),
    ];
    let reliability = &mut topic.reliability;
    if let Some(ms) = span("linger_ms", file.linger_ms) {
        reliability.linger = Nanos::from_millis(ms);
    }
    if let Some(ms) = span("patience_ms", file.patience_ms) {
        reliability.patience = Nanos::from_millis(ms);
    }
    if let Some(us) = span("reorder_us", file.reorder_us) {
        reliability.reorder = Nanos::from_micros(us);
    }
    if let Some(ms) = span("gap_timeout_ms", file.gap_timeout_ms) {
        reliability.gap_timeout = Nanos::from_millis(ms);
    }
    if let Some(capacity) = file.capacity {
        reliability.capacity = lines.take(format!("topic.{n}.capacity"), capacity);
    }
    if let Some(hold) = file.hold {
        reliability.hold = lines.take(format!("topic.{n}.hold"), hold);
    }
    // A setting without an effect is a misunderstanding.
    if let Some((field, _)) = reliable.iter().find(|(_, given)| *given)
        && !file.class.is_reliable()
    {
        let problem = format!(
            "`{}` is a {} topic, which sends nothing again",
            topic.name,
            file.class.as_str()
        );
        let hint = "use class = \"command\" or \"stream\", or remove it";
        return Err(lines.places.error(&format!("topic.{n}.{field}"), problem, hint));
    }
    Ok(topic)
}

fn realtime(file: RealTime, lines: &mut Lines<'_>) -> Result<RealTimeConfig, ConfigError> {
    let mut config = RealTimeConfig::default();
    if let Some(layout) = file.layout {
        config.layout = lines.take("realtime.layout", layout);
    }
    if let Some(cores) = file.cores {
        let cores = lines.take("realtime.cores", cores);
        config.cores = cores.into_iter().map(CoreId::new).collect();
    }
    if let Some(priority) = file.priority {
        let priority = lines.take("realtime.priority", priority);
        config.priority = Priority::new(priority)
            .map_err(|error| lines.places.error("realtime.priority", error.to_string(), ""))?;
    }
    let wait = file.wait.map(|wait| lines.take("realtime.wait", wait));
    let spin = file.spin_us.map(|spin| lines.take("realtime.spin_us", spin));
    config.wait = match (wait, spin) {
        (None | Some(WaitName::Park), None) => Wait::Park,
        (Some(WaitName::Spin), None) => Wait::Spin,
        (Some(WaitName::SpinThenPark), spin) => {
            Wait::SpinThenPark { spin: Nanos::from_micros(i64::from(spin.unwrap_or(50))) }
        }
        (None | Some(WaitName::Spin | WaitName::Park), Some(_)) => {
            return Err(lines.places.error(
                "realtime.spin_us",
                "only the wait `spin-then-park` has a time to spin",
                "set wait = \"spin-then-park\", or remove spin_us",
            ));
        }
    };
    config.strictness = file.strictness.map(|name| match name {
        StrictnessName::Require => Strictness::Require,
        StrictnessName::Report => Strictness::Report,
    });
    config.lock_memory = file.lock_memory.unwrap_or(config.lock_memory);
    match file.cpu_latency_us {
        None => {}
        Some(Latency::Micros(us)) => config.cpu_latency_us = Some(us),
        Some(Latency::Off(Off::Off)) => config.cpu_latency_us = None,
    }
    if let Some(cores) = file.keep_awake {
        let cores = lines.take("realtime.keep_awake", cores);
        config.keep_awake = cores.into_iter().map(CoreId::new).collect();
    }
    Ok(config)
}

fn budgets(file: BudgetSection, lines: &mut Lines<'_>) -> Result<Budgets, ConfigError> {
    let mut config = Budgets::default();
    let fields = [
        ("budgets.receive_us", file.receive_us, &mut config.receive),
        ("budgets.verify_us", file.verify_us, &mut config.verify),
        ("budgets.deliver_us", file.deliver_us, &mut config.deliver),
        ("budgets.send_us", file.send_us, &mut config.send),
    ];
    for (key, value, budget) in fields {
        let Some(value) = value else { continue };
        match lines.take(key, value) {
            0 => return Err(lines.places.error(key, "a budget of 0 µs", "use at least 1")),
            us => *budget = Nanos::from_micros(i64::from(us)),
        }
    }
    Ok(config)
}

fn admission(
    file: AdmissionSection,
    lines: &mut Lines<'_>,
) -> Result<AdmissionLimits, ConfigError> {
    let mut config = AdmissionLimits::default();
    let fields = [
        ("admission.peer_checks_per_s", file.peer_checks_per_s, &mut config.peer_per_s),
        ("admission.peer_burst", file.peer_burst, &mut config.peer_burst),
        (
            "admission.strangers_checks_per_s",
            file.strangers_checks_per_s,
            &mut config.strangers_per_s,
        ),
        ("admission.strangers_burst", file.strangers_burst, &mut config.strangers_burst),
    ];
    for (key, value, limit) in fields {
        let Some(value) = value else { continue };
        match lines.take(key, value) {
            0 => {
                return Err(lines.places.error(
                    key,
                    "nobody would ever be heard",
                    "use at least 1",
                ));
            }
            count => *limit = count,
        }
    }
    Ok(config)
}

/// How the reader's message about a key begins that nobody knows.
const UNKNOWN: &str = "unknown field";

/// What the TOML reader says, in one line with its place and, for a misspelt key, the likely one.
fn syntax_error(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
    let message = error.message().replace('\n', " ");
    let at = error.span().map_or(0, |span| span.start);
    // An unknown key is named in the message.
    let key = match message.starts_with(UNKNOWN) {
        true => String::new(),
        false => key_at(text, at),
    };
    let hint = likely_key(&message).or_else(|| in_words(&message)).unwrap_or_default();
    ConfigError {
        file: Some((path.to_owned(), line_of(text, at))),
        key: readable(&key),
        problem: message,
        hint,
    }
}

/// The setting whose value begins at byte `at`; empty where there is none, and in a text that is
/// not TOML at all.
fn key_at(text: &str, at: usize) -> String {
    fn find(value: &DeValue<'_>, at: usize, path: &mut Vec<String>) -> bool {
        let entries: Vec<(String, &Spanned<DeValue<'_>>)> = match value {
            DeValue::Table(table) => {
                table.iter().map(|(key, value)| (key.get_ref().to_string(), value)).collect()
            }
            DeValue::Array(array) => {
                array.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect()
            }
            _ => return false,
        };
        for (key, value) in entries {
            path.push(key);
            // The span of a table is that of its heading alone, so look inside first.
            if find(value.get_ref(), at, path) || value.span().contains(&at) {
                return true;
            }
            path.pop();
        }
        false
    }
    let mut path = Vec::new();
    if let Ok(root) = DeTable::parse(text) {
        find(&DeValue::Table(root.into_inner()), at, &mut path);
    }
    path.join(".")
}

/// What the reader's terse words for a wrong value ask for.
fn in_words(message: &str) -> Option<String> {
    let hints = [
        ("socket address", "use an IP address and a port, such as \"127.0.0.1:7401\""),
        ("expected u8", "use a whole number from 0 to 255"),
        ("expected u16", "use a whole number from 0 to 65535"),
        ("expected u32", "use a whole number from 0 to 4294967295"),
    ];
    let hint = hints.iter().find(|(words, _)| message.contains(words))?;
    Some(hint.1.to_owned())
}

/// From "unknown field `a`, expected one of `b`, `c`" the expected key nearest to the unknown one.
fn likely_key(message: &str) -> Option<String> {
    if !message.starts_with(UNKNOWN) {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3 + 1)
        .map(|(_, name)| format!("did you mean `{name}`?"))
}
