//! `sinew.toml`: every key has an effect, and whatever is wrong is said in one line with its place
//! and what to do.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use sinew_io::node::{
    Auth, ConfigError, Layout, MAX_PEER_NAME, MAX_TOPIC_NAME, Mode, NodeConfig, TopicClass, parse,
};
use sinew_io::security::Identity;
use sinew_rt::clock::Nanos;
use sinew_rt::thread::Strictness;
use sinew_rt::wait::Wait;

/// A configuration with nothing in it but what must be there; `[SECTION]` is where more goes.
const LEAST: &str = "\
[node]
name = \"robot\"
mode = \"development\"
[SECTION]
";

fn read(text: &str) -> Result<NodeConfig, ConfigError> {
    parse(text, Path::new("/etc/sinew/robot.toml"))
}

/// One more line for a section.
fn with(section: &str, line: &str) -> NodeConfig {
    let text = match section {
        "node" => LEAST.replace("[SECTION]", line),
        "peer" => LEAST.replace("[SECTION]", &format!("{PEER}{line}")),
        "topic" => LEAST.replace("[SECTION]", &format!("{TOPIC}{line}")),
        "stream" => {
            let topic = TOPIC.replace("control", "stream");
            LEAST.replace("[SECTION]", &format!("{topic}{line}"))
        }
        _ if line.is_empty() => LEAST.replace("[SECTION]", ""),
        section => LEAST.replace("[SECTION]", &format!("[{section}]\n{line}")),
    };
    read(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

const PEER: &str = "\
[[peer]]
name = \"controller\"
identity = \"did:key:z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd\"
address = \"127.0.0.1:7402\"
";
const TOPIC: &str = "\
[[topic]]
name = \"arm/setpoint\"
schema = \"Sample@1\"
class = \"control\"
";

type Holds = fn(&NodeConfig) -> bool;

/// Every key with a line that sets it to something that is not the default, and what must hold
/// then and must not hold without it. "stream" is a topic of that class.
const KEYS: &[(&str, &str, &str, Holds)] = &[
    ("node", "cluster", "cluster = \"cell\"", |c| c.cluster == "cell"),
    ("node", "key", "key = \"a.key\"", |c| c.key.as_deref() == Some(Path::new("/etc/sinew/a.key"))),
    ("node", "state_dir", "state_dir = \"/var/lib/robot\"", |c| {
        c.state_dir.as_deref() == Some(Path::new("/var/lib/robot"))
    }),
    ("transport", "bind", "bind = \"[::1]:7401\"", |c| c.bind == "[::1]:7401".parse().ok()),
    ("realtime", "layout", "layout = \"pipelined\"", |c| c.realtime.layout == Layout::Pipelined),
    ("realtime", "cores", "cores = [3, 1]", |c| {
        c.realtime.cores.iter().map(|core| core.get()).eq([3, 1])
    }),
    ("realtime", "priority", "priority = 42", |c| c.realtime.priority.get() == 42),
    ("realtime", "wait", "wait = \"spin\"", |c| c.realtime.wait == Wait::Spin),
    ("realtime", "spin_us", "wait = \"spin-then-park\"\nspin_us = 7", |c| {
        c.realtime.wait == Wait::SpinThenPark { spin: Nanos::from_micros(7) }
    }),
    ("realtime", "strictness", "strictness = \"require\"", |c| {
        c.strictness() == Strictness::Require
    }),
    ("realtime", "lock_memory", "lock_memory = false", |c| !c.realtime.lock_memory),
    ("realtime", "cpu_latency_us", "cpu_latency_us = 30", |c| {
        c.realtime.cpu_latency_us == Some(30)
    }),
    ("realtime", "keep_awake", "keep_awake = [2, 0]", |c| {
        c.realtime.keep_awake.iter().map(|core| core.get()).eq([2, 0])
    }),
    ("budgets", "receive_us", "receive_us = 7", |c| c.budgets.receive == Nanos::from_micros(7)),
    ("budgets", "verify_us", "verify_us = 7", |c| c.budgets.verify == Nanos::from_micros(7)),
    ("budgets", "deliver_us", "deliver_us = 7", |c| c.budgets.deliver == Nanos::from_micros(7)),
    ("budgets", "send_us", "send_us = 7", |c| c.budgets.send == Nanos::from_micros(7)),
    ("admission", "peer_checks_per_s", "peer_checks_per_s = 7", |c| c.admission.peer_per_s == 7),
    ("admission", "peer_burst", "peer_burst = 7", |c| c.admission.peer_burst == 7),
    ("admission", "strangers_checks_per_s", "strangers_checks_per_s = 7", |c| {
        c.admission.strangers_per_s == 7
    }),
    ("admission", "strangers_burst", "strangers_burst = 7", |c| c.admission.strangers_burst == 7),
    ("peer", "publishes", "publishes = [\"a\", \"b\"]", |c| {
        c.peers.iter().any(|peer| peer.publishes == ["a", "b"])
    }),
    ("topic", "auth", "auth = \"open\"", |c| c.topics.iter().any(|t| t.auth == Auth::Open)),
    ("topic", "lifespan_ms", "lifespan_ms = 20", |c| {
        c.topics.iter().any(|topic| topic.lifespan == Some(Nanos::from_millis(20)))
    }),
    ("topic", "deadline_ms", "deadline_ms = 20", |c| {
        c.topics.iter().any(|topic| topic.deadline == Some(Nanos::from_millis(20)))
    }),
    ("stream", "capacity", "capacity = 7", |c| {
        c.topics.iter().any(|topic| topic.reliability.capacity == 7)
    }),
    ("stream", "linger_ms", "linger_ms = 7", |c| {
        c.topics.iter().any(|topic| topic.reliability.linger == Nanos::from_millis(7))
    }),
    ("stream", "patience_ms", "patience_ms = 7", |c| {
        c.topics.iter().any(|topic| topic.reliability.patience == Nanos::from_millis(7))
    }),
    ("stream", "hold", "hold = 256", |c| c.topics.iter().any(|t| t.reliability.hold == 256)),
    ("stream", "reorder_us", "reorder_us = 7", |c| {
        c.topics.iter().any(|topic| topic.reliability.reorder == Nanos::from_micros(7))
    }),
    ("stream", "gap_timeout_ms", "gap_timeout_ms = 7", |c| {
        c.topics.iter().any(|topic| topic.reliability.gap_timeout == Nanos::from_millis(7))
    }),
];

#[test]
fn every_optional_key_changes_what_it_names() {
    for (section, key, line, holds) in KEYS {
        assert!(!holds(&with(section, "")), "{section}.{key} by default");
        assert!(holds(&with(section, line)), "{section}.{key} after `{line}`");
    }
    assert_eq!(with("realtime", "cpu_latency_us = \"off\"").realtime.cpu_latency_us, None);
    assert_eq!(with("realtime", "cpu_latency_us = 0").realtime.cpu_latency_us, Some(0));
    assert_eq!(with("realtime", "strictness = \"report\"").strictness(), Strictness::Report);
    for (word, layout) in
        [("auto", Layout::Auto), ("fused", Layout::Fused), ("split", Layout::Split)]
    {
        let line = format!("layout = \"{word}\"");
        assert_eq!(with("realtime", &line).realtime.layout, layout);
    }
}

#[test]
fn every_required_key_is_read() {
    let config = with("node", &format!("{PEER}{TOPIC}"));
    assert_eq!((config.name.as_str(), config.mode), ("robot", Mode::Development));
    let [peer] = &config.peers[..] else { panic!("{config:?}") };
    assert_eq!((peer.name.as_str(), peer.address.port()), ("controller", 7402));
    assert!(PEER.contains(&peer.identity));
    let [topic] = &config.topics[..] else { panic!("{config:?}") };
    assert_eq!((topic.name.as_str(), topic.schema.as_str()), ("arm/setpoint", "Sample@1"));
    assert_eq!((topic.class, topic.auth), (TopicClass::Control, Auth::Signed));
    let queue = with("node", &TOPIC.replace("control", "queue"));
    assert_eq!(queue.topics[0].class, TopicClass::Queue);
    // Production is what a file without a mode means.
    let error = read("[node]\nname = \"robot\"\n").unwrap_err();
    assert!(error.to_string().contains("a production node needs"), "{error}");
}

/// What the reader says that a section may hold.
fn keys_of(section: &str) -> BTreeSet<String> {
    let head = if ["peer", "topic"].contains(&section) {
        format!("[[{section}]]")
    } else {
        format!("[{section}]")
    };
    let text = if section.is_empty() { "zzz = 1".to_owned() } else { format!("{head}\nzzz = 1") };
    let message = read(&text).unwrap_err().to_string();
    assert!(message.contains("unknown field `zzz`"), "{message}");
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn no_key_is_without_a_test() {
    let required = [
        ("node", "name"),
        ("node", "mode"),
        ("peer", "name"),
        ("peer", "identity"),
        ("peer", "address"),
        ("topic", "name"),
        ("topic", "schema"),
        ("topic", "class"),
    ];
    for section in keys_of("") {
        let tested = KEYS.iter().map(|(section, key, ..)| (*section, *key)).chain(required);
        let of = |key: &str| key == section || (key == "stream" && section == "topic");
        let tested: BTreeSet<_> =
            tested.filter(|key| of(key.0)).map(|key| key.1.to_owned()).collect();
        assert_eq!(keys_of(&section), tested, "of [{section}]");
    }
}

/// Whatever is wrong, what is said about it.
const WRONG: &[(&str, &str)] = &[
    ("", "robot.toml:1: node: there is no such section; begin with [node] and name = \"…\""),
    (
        "[node]\nname = \"a\"\n[realtime]\nprioriti = 3",
        "robot.toml:4: unknown field `prioriti`, expected one of `layout`, `cores`, `priority`, `wait`, `spin_us`, `strictness`, `lock_memory`, `cpu_latency_us`, `keep_awake`; did you mean `priority`?",
    ),
    (
        "[nod]\nname = \"a\"",
        "robot.toml:1: unknown field `nod`, expected one of `node`, `transport`, `realtime`, `budgets`, `admission`, `peer`, `topic`; did you mean `node`?",
    ),
    (
        "[node]\nname = \"a\"\n[transport]\ntcp = 3",
        "robot.toml:4: unknown field `tcp`, expected `bind`",
    ),
    ("[node]\nname = 3", "robot.toml:2: node.name: invalid type: integer `3`, expected a string"),
    ("\n[node]\nmode = \"production\"", "robot.toml:2: node: missing field `name`"),
    (
        "[node]\nname = \"a\"\nmode = \"prod\"",
        "robot.toml:3: node.mode: unknown variant `prod`, expected `production` or `development`",
    ),
    (
        "[node]\nname = \"a\"\n[transport]\nbind = \"localhost:7401\"",
        "robot.toml:4: transport.bind: invalid socket address syntax; use an IP address and a port, such as \"127.0.0.1:7401\"",
    ),
    (
        "[node]\nname = \"a\"\n[realtime]\ncores = [\n  0,\n  -1,\n]",
        "robot.toml:6: realtime.cores[1]: invalid value: integer `-1`, expected u16; use a whole number from 0 to 65535",
    ),
    (
        "[node]\nname = \"a\"\n[realtime]\npriority = 100",
        "robot.toml:4: realtime.priority: 100 is not a real-time priority; give a number from 1 (lowest) to 99 (highest)",
    ),
    (
        "[node]\nname = \"a\"\n[realtime]\nwait = \"park\"\nspin_us = 9",
        "robot.toml:5: realtime.spin_us: only the wait `spin-then-park` has a time to spin; set wait = \"spin-then-park\", or remove spin_us",
    ),
    (
        "[node]\nname = \"a\"\n[realtime]\ncpu_latency_us = \"on\"",
        "robot.toml:4: realtime.cpu_latency_us: expected a number of microseconds or \"off\"",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[realtime]\nwait = \"spin\"\nkeep_awake = [1]",
        "robot.toml:6: realtime.keep_awake: a core with a lane that spins does not halt, and nothing below the lane would run; remove keep_awake, or set realtime.wait = \"park\" or \"spin-then-park\"",
    ),
    (
        "[node]\nname = \"a\"\n[budgets]\n\nsend_us = 0",
        "robot.toml:5: budgets.send_us: a budget of 0 µs; use at least 1",
    ),
    (
        "[node]\nname = \"a b\"\nmode = \"development\"",
        "robot.toml:2: node.name: `a b` cannot be a node's name; use 1 to 48 letters, digits, `-`, `_` or `.`",
    ),
    (
        "[node]\nname = \"a\"\ncluster = \"\"\nmode = \"development\"",
        "robot.toml:3: node.cluster: a cluster's name of 0 bytes; use 1 to 64 bytes",
    ),
    (
        "[node]\nname = \"a\"",
        "robot.toml:1: node.state_dir: a production node needs a place for its boot counter; set node.state_dir to a directory that only this node uses",
    ),
    (
        "[node]\nname = \"a\"\n[admission]\npeer_burst = 0",
        "robot.toml:4: admission.peer_burst: nobody would ever be heard; use at least 1",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"stream\"\nhold = 257",
        "robot.toml:8: topic[0].hold: `t` would hold 257 messages; use 64 to 256",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"command\"\nlifespan_ms = 9\nhold = 63",
        "robot.toml:9: topic[0].hold: `t` would hold 63 messages; use 64 to 256",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"control\"\nhold = 64",
        "robot.toml:8: topic[0].hold: `t` is a control topic, which sends nothing again; use class = \"command\" or \"stream\", or remove it",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"command\"\nlifespan_ms = 9\nauth = \"open\"",
        "robot.toml:9: topic[0].auth: `t` is open, and every command is signed; remove auth, or use another class",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"estop\"\ndeadline_ms = 9\nauth = \"open\"",
        "robot.toml:9: topic[0].auth: `t` is open, and every estop is signed; remove auth, or use another class",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"command\"",
        "robot.toml:4: topic[0].lifespan_ms: `t` is a command and would live for ever; set lifespan_ms: an older command is never executed",
    ),
    (
        "[node]\nname = \"a\"\nmode = \"development\"\n[[topic]]\nname = \"t\"\nschema = \"s\"\nclass = \"estop\"",
        "robot.toml:4: topic[0].deadline_ms: `t` is an estop, and its absence would mean nothing; set deadline_ms: after so long without a message the stop is in force",
    ),
    ("[node]\nname = \"a\"\nname = \"b\"", "robot.toml:3: duplicate key"),
    ("[node\nname = \"a\"", "robot.toml:1: unclosed table, expected `]`"),
];

#[test]
fn what_cannot_be_read_is_said_with_its_line_and_key() {
    for (text, expected) in WRONG {
        let error = read(text).expect_err(text).to_string();
        assert_eq!(error.replace("/etc/sinew/", ""), *expected, "for\n{text}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn what_contradicts_itself_is_said_at_the_second_place() {
    let node = "[node]\nname = \"robot\"\nmode = \"development\"\n";
    let other_did = Identity::generate().unwrap().public().to_did();
    let did = "did:key:z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd";
    let peer = |name: &str, identity: &str, port: u16| {
        format!(
            "[[peer]]\nname = \"{name}\"\nidentity = \"{identity}\"\naddress = \"127.0.0.1:{port}\"\n"
        )
    };
    let topic = |name: &str, schema: &str| {
        format!("[[topic]]\nname = \"{name}\"\nschema = \"{schema}\"\nclass = \"control\"\n")
    };
    let first = peer("one", did, 1);
    let long = "x".repeat(MAX_TOPIC_NAME + 1);
    let cases = [
        (
            topic("a", "A@1") + &topic("a", "B@1"),
            ":10: topic[1].schema: topic `a` is declared twice, as A@1 and as B@1; a topic has one schema",
        ),
        (
            topic("a", "A@1") + "lifespan_ms = 0\n",
            ":8: topic[0].lifespan_ms: `a` would live for 0 ns; use 1.0 µs to ",
        ),
        (
            topic("a", "A@1") + "lifespan_ms = 4294968\n",
            ":8: topic[0].lifespan_ms: `a` would live for 4294.968 s; use",
        ),
        (topic("", "A@1"), ":5: topic[0].name: a topic's name of 0 bytes; use 1 to 32 bytes"),
        (topic(&long, "A@1"), ":5: topic[0].name: a topic's name of 33 bytes; use 1 to 32 bytes"),
        (topic("a\\u0007", "A@1"), ":5: topic[0].name: \"a\\u{7}\" has control characters"),
        (
            first.clone() + &peer("one", &other_did, 2),
            ":9: peer[1].name: two peers have the name one; remove one",
        ),
        (
            first.clone() + &peer("two", did, 2),
            ":10: peer[1].identity: two peers have the identity did:key",
        ),
        (
            first.clone() + &peer("two", &other_did, 1),
            ":11: peer[1].address: two peers have the address 127.0.0.1:1;",
        ),
        (
            peer("stranger", did, 1),
            ":5: peer[0].name: `stranger` cannot be a peer's name; use 1 to 15 letters",
        ),
        (peer("a@b", did, 1), ":5: peer[0].name: `a@b` cannot be a peer's name"),
        (peer(&"x".repeat(MAX_PEER_NAME + 1), did, 1), "cannot be a peer's name"),
    ];
    for (text, expected) in cases {
        let error = read(&format!("{node}{text}")).expect_err(&text).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}\nfor {expected}");
    }
    let production =
        node.replace("development", "production").replace("\nmode", "\nstate_dir = \"s\"\nmode");
    let open = topic("a", "A@1") + "auth = \"open\"\n";
    let error = read(&format!("{production}{open}")).unwrap_err().to_string();
    assert!(
        error.contains(":9: topic[0].auth: `a` is open, and this node is in production mode"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_panics_the_reader(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_mutation_of_a_good_file_panics_the_reader_or_makes_an_error_of_several_lines(
        cut in 0..1_200_usize,
        length in 0..40_usize,
        insert in "[\\PC\\n]{0,12}",
    ) {
        let good = format!("{LEAST}{PEER}publishes = [\"arm/setpoint\"]\n{TOPIC}lifespan_ms = 9\n")
            .replace("[SECTION]", "[realtime]\ncores = [0, 1]\nwait = \"spin-then-park\"");
        let mut bytes = good.into_bytes();
        let begin = cut.min(bytes.len());
        let end = (begin + length).min(bytes.len());
        bytes.splice(begin..end, insert.bytes());
        if let Err(error) = read(&String::from_utf8_lossy(&bytes)) {
            let error = error.to_string();
            prop_assert!(!error.contains('\n'), "{error}");
            prop_assert!(error.starts_with("/etc/sinew/robot.toml:"), "{error}");
        }
    }
}
