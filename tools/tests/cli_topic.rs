//! `sinew topic`: what is published is what is shown, an observer takes part only where it is enrolled,
//! and when nothing arrives the reason is said.

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use sinew_io::message::Message;
use sinew_io::node::{Node, PeerConfig, Publisher};
use sinew_io::security::keyfile;
use support::{Process, Ran, fresh_address, json, run, sinew, until};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A directory with the keys and configurations of some nodes.
struct Site {
    dir: tempfile::TempDir,
    ends: Vec<End>,
}

struct End {
    name: String,
    did: String,
    address: SocketAddr,
}

impl Site {
    /// Nodes with keys and addresses of their own, which know nobody yet.
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let end = |name: &&str| {
            let key = dir.path().join(format!("{name}.key"));
            let did = run(&["key", "new", key.to_str().unwrap()]).good().trim_end().to_owned();
            End { name: (*name).to_owned(), did, address: fresh_address() }
        };
        let ends = names.iter().map(end).collect();
        Self { dir, ends }
    }

    fn end(&self, name: &str) -> &End {
        self.ends.iter().find(|end| end.name == name).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn panels(&self) -> String {
        self.path("panels")
    }

    /// Writes `name.toml`: it knows these peers, each of which may publish these topics to it.
    fn write(&self, name: &str, peers: &[(&str, &[&str])], more: &str) -> String {
        let own = self.end(name);
        let mut text = format!(
            "[node]\nname = \"{name}\"\nmode = \"development\"\nkey = \"{name}.key\"\n\n\
             [transport]\nbind = \"{}\"\n",
            own.address
        );
        for (peer, publishes) in peers {
            let End { name, did, address } = self.end(peer);
            text += &format!(
                "\n[[peer]]\nname = \"{name}\"\nidentity = \"{did}\"\naddress = \"{address}\"\n\
                 publishes = {publishes:?}\n"
            );
        }
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, text + more).unwrap();
        file
    }

    fn topic(&self, args: &[&str]) -> std::process::Command {
        let mut command = sinew();
        command.arg("topic").args(args).args(["--panel-dir", &self.panels()]);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.topic(args).output().unwrap())
    }

    /// Starts `sinew node run` and waits until it runs.
    fn node(&self, config: &str) -> Process {
        let mut command = sinew();
        command.args(["node", "run", config, "--json", "-", "--panel-dir", &self.panels()]);
        let mut process = Process::start(&mut command);
        process.line("{");
        process
    }
}

/// A sender and an observer that know each other.
fn pair() -> (Site, String, String) {
    let site = Site::new(&["sender", "observer"]);
    let sender = site.write("sender", &[("observer", &[])], "");
    let observer = site.write("observer", &[("sender", &["arm/setpoint"])], "");
    (site, sender, observer)
}

const SETPOINT: [&str; 3] =
    ["arm/setpoint", "JointSetpoint", "tick = 7, drive = effort, effort = [0.5, -2]"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

#[test]
fn echo_shows_the_values_that_pub_sent() {
    let (site, sender, observer) = pair();
    let echo = ["echo", "arm/setpoint", "--config", &observer, "--count", "3", "--json", "-"];
    let echo = Process::start(&mut site.topic(&echo));
    let sent = [&["pub"], &SETPOINT[..], &["--config", &sender, "--count", "3"]].concat();
    let sent = site.run(&[&sent[..], &["--rate-hz", "20", "--json", "-"]].concat());
    let sent = json(&sent.good());
    assert_eq!((&sent["published"], &sent["to"][0]), (&3.into(), &"observer".into()));
    let messages = lines(&echo.end().good());
    assert_eq!(messages.len(), 3);
    for (sequence, message) in (1..).zip(&messages) {
        assert_eq!(message["sequence"], sequence);
        assert_eq!((&message["sender"], &message["missed"]), (&"sender".into(), &0.into()));
        assert_eq!(message["sender_did"], site.end("sender").did.as_str());
        assert_eq!(message["type"], "JointSetpoint@1");
        assert!(message["age_ns"].as_i64().unwrap() >= 0, "{message}");
        let fields = &message["fields"];
        assert_eq!((&fields["tick"], &fields["count"]), (&7.into(), &2.into()));
        assert_eq!(fields["drive"], "effort");
        assert_eq!(fields["effort"], serde_json::json!([0.5, -2.0]));
    }
}

#[test]
fn echo_as_text_has_units_and_ends_with_its_reader_or_at_ctrl_c() {
    let (site, sender, observer) = pair();
    let sent = [&["pub"], &SETPOINT[..], &["--config", &sender, "--rate-hz", "50"]].concat();
    let sent = Process::start(&mut site.topic(&sent));
    // The time is a watchdog.
    let echo = ["echo", "arm/setpoint", "--config", &observer, "--seconds", "60"];
    let mut first = Process::start(&mut site.topic(&echo));
    first.line("sender #");
    first.line("  drive     effort");
    first.line("  effort    [0.5, -2] N·m or N");
    first.signal("INT");
    assert_eq!(first.end().code, Some(0), "it has shown messages");

    let mut unread = Process::start(&mut site.topic(&echo));
    unread.line("sender #");
    unread.close();
    assert_eq!(unread.end().code, Some(0), "nobody reads any more");

    sent.signal("INT");
    let report = sent.end().good();
    assert!(report.contains("JointSetpoint@1 on arm/setpoint to observer in"), "{report}");
}

#[test]
fn a_wrong_field_is_a_usage_error_that_names_it() {
    let (site, sender, observer) = pair();
    let publish = |what: &[&str]| {
        let args =
            [&["pub", "arm/setpoint"], what, &["--config", &sender, "--count", "1"]].concat();
        site.run(&args).error(2)
    };
    let error = publish(&["JointSetpoint", "positon = [0.1]"]);
    assert!(error.contains("no field `positon`; it has tick (whole number, cycles)"), "{error}");
    let error = publish(&["JointSetpoint", "position = [high]"]);
    assert!(error.contains("position: `[high]` is not a list of numbers"), "{error}");
    assert!(error.contains("(rad or m)"), "{error}");
    let error = publish(&["JointSetpoint@2", ""]);
    assert!(error.contains("use one of Fault@1, Heartbeat@1"), "{error}");
    assert!(publish(&["Twist", "help"]).contains("linear (list of up to 3 numbers, m/s)"));
    assert!(publish(&["Twist", "", "--rate-hz", "0"]).contains("--rate-hz 0: give more than 0"));
    let error = site.run(&["echo", "arm/state", "--config", &observer]).error(2);
    assert!(error.contains("observer.toml:9: peer[0]: `arm/state` is in no peer's"), "{error}");
    let error = site.run(&["echo", "arm/state", "--config", "none.toml"]).error(2);
    assert!(error.contains("none.toml: cannot be read"), "{error}");
}

#[test]
fn an_observer_that_is_not_enrolled_is_told_so_with_the_lines_to_add() {
    let site = Site::new(&["robot", "observer"]);
    let robot = site.node(&site.write("robot", &[], ""));
    let observer = site.write("observer", &[("robot", &["arm/state"])], "");
    let ran = site.run(&["echo", "arm/state", "--config", &observer, "--seconds", "3"]);
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{ran:?}");
    let End { did, address, .. } = site.end("observer");
    assert!(ran.err.contains("robot: `robot` runs here, and does not know this observer's key"));
    for line in [format!("  identity = \"{did}\"\n"), format!("  address = \"{address}\"\n")] {
        assert!(ran.err.contains(&line), "{}", ran.err);
    }
    assert!(ran.err.contains("nothing arrived on `arm/state` within"), "{}", ran.err);
    let args = ["pub", "arm/state", "Twist", "--config", &observer, "--wait-seconds", "1"];
    let ran = site.run(&args);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("nothing was published"), "{}", ran.err);
    assert!(ran.err.contains("does not know this observer's key"), "{}", ran.err);

    // With the lines added it hears that the robot publishes no such thing.
    robot.signal("TERM");
    robot.end();
    let _robot = site.node(&site.write("robot", &[("observer", &[])], ""));
    let ran = site.run(&["echo", "arm/state", "--config", &observer, "--seconds", "3"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("does not publish `arm/state`; it publishes nothing"), "{}", ran.err);
}

#[test]
fn where_nothing_listens_is_said() {
    let (site, _, observer) = pair();
    let ran = site.run(&["hz", "arm/setpoint", "--config", &observer, "--seconds", "1"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let address = site.end("sender").address;
    assert!(ran.err.contains(&format!("sender: nothing listens at {address}")), "{}", ran.err);
}

#[test]
fn a_subscriber_that_does_not_permit_the_topic_is_named() {
    let site = Site::new(&["robot", "sender"]);
    let setpoint =
        "\n[[topic]]\nname = \"arm/setpoint\"\nschema = \"JointSetpoint@1\"\nclass = \"control\"\n";
    // Somebody else may publish it, so that the robot subscribes.
    let twist = setpoint.replace("arm/setpoint", "base/twist").replace("JointSetpoint", "Twist");
    let topics = format!("{setpoint}{twist}");
    let robot = site.node(&site.write("robot", &[("sender", &["base/twist"])], &topics));
    let sender = site.write("sender", &[("robot", &[])], "");
    let publish = |topic: &str, of: &str| {
        site.run(&["pub", topic, of, "--config", &sender, "--count", "4", "--rate-hz", "50"])
    };
    let text = publish("base/twist", "Twist").good();
    assert!(text.contains("node `robot` on this machine) delivered 4"), "{text}");
    let ran = publish("arm/setpoint", "JointSetpoint");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("delivered 0"), "{}", ran.out);
    assert!(
        ran.out.contains("it dropped 4 meanwhile: verify.drop.unknown_topic@sender"),
        "{}",
        ran.out
    );
    robot.signal("TERM");
    robot.end();
}

#[test]
fn hz_and_list_see_the_rate_that_is_published() {
    let (site, sender, observer) = pair();
    let sent = [&["pub"], &SETPOINT[..], &["--config", &sender, "--rate-hz", "100"]].concat();
    let sent = Process::start(&mut site.topic(&sent));
    let measured = ["hz", "arm/setpoint", "--config", &observer, "--seconds", "4", "--json", "-"];
    let reports = lines(&site.run(&measured).good());
    let summary = reports.last().unwrap();
    assert_eq!((&summary["event"], &reports[0]["event"]), (&"summary".into(), &"window".into()));
    // The sender keeps to its schedule on average, however late a single message is.
    let rate = |value: &Value| value.as_f64().unwrap();
    assert!((80.0..120.0).contains(&rate(&summary["rate_hz"])), "{summary}");
    let interval = summary["sent"]["mean_ns"].as_i64().unwrap();
    assert!((8_000_000..12_500_000).contains(&interval), "{summary}");
    assert!(summary["age"]["max_ns"].as_i64() >= summary["age"]["p50_ns"].as_i64(), "{summary}");

    // The observer is gone; the publisher's panel shows what it sends.
    let reports = lines(&site.run(&["hz", "arm/setpoint", "--seconds", "2", "--json", "-"]).good());
    let end = &reports.last().unwrap()["ends"][0];
    assert_eq!((&end["node"], &end["role"]), (&"sender".into(), &"publishes".into()));
    assert!((50.0..150.0).contains(&rate(&end["rate_hz"])), "{end}");
    let list = json(&site.run(&["list", "--json", "-"]).good());
    let topic = &list["topics"][0];
    assert_eq!(
        (&topic["name"], topic["ends"].as_array().unwrap().len()),
        (&"arm/setpoint".into(), 1)
    );
    assert_eq!(topic["ends"][0]["type"], "JointSetpoint@1");
    assert!(rate(&topic["ends"][0]["rate_hz"]) > 0.0, "{list}");
    let text = site.run(&["list"]).good();
    assert!(text.contains("JointSetpoint@1   sender   publishes"), "{text}");
    let error = site.run(&["hz", "arm/state"]).error(3);
    assert!(error.contains("topics here: arm/setpoint"), "{error}");
    sent.signal("TERM");
    sent.end();
    let error = site.run(&["list"]).error(3);
    assert!(error.contains("no node runs here"), "{error}");
}

/// A type that the command does not know.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Gripper([u8; 12]);

impl Message for Gripper {
    const NAME: &'static str = "Gripper@1";
}

#[test]
fn a_type_that_is_not_known_is_shown_as_bytes() {
    let (site, _, observer) = pair();
    let (own, peer) = (site.end("sender"), site.end("observer"));
    let mut node = Node::builder("sender")
        .development()
        .observer()
        .panel_dir(site.panels())
        .identity(keyfile::load(site.path("sender.key").as_ref()).unwrap())
        .udp(own.address)
        .peer(PeerConfig {
            name: "observer".to_owned(),
            identity: peer.did.clone(),
            address: peer.address,
            publishes: Vec::new(),
        });
    let mut publisher: Publisher<Gripper> = node.publisher("arm/setpoint").unwrap();
    let node = node.start().unwrap();
    let echo = ["echo", "arm/setpoint", "--config", &observer, "--count", "1", "--json", "-"];
    let mut echo = Process::start(&mut site.topic(&echo));
    let shown = until("a message is shown", || {
        publisher.publish(&Gripper(*b"twelve bytes")).unwrap();
        echo.child.try_wait().unwrap().is_some().then(|| json(&echo.line("{")))
    });
    assert_eq!((&shown["type"], &shown["size_bytes"]), (&Value::Null, &12.into()));
    assert_eq!(shown["hex"], "7477656c7665206279746573");
    assert_eq!(shown["schema_id"], sinew_io::message::schema_id::<Gripper>().to_string());
    assert!(shown.get("fields").is_none(), "{shown}");
    node.stop().unwrap();
}
