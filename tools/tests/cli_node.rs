//! `sinew node`: what is wrong is said in one line before anything runs, what runs is reported as
//! it was granted, and how a node is can be seen from outside, also after its death.

mod support;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Process, Ran, fresh_address, json, run, sinew, until};

/// Two enrolled nodes with keys and addresses of their own, and a directory for all of their files.
struct Site {
    dir: tempfile::TempDir,
    robot: String,
    controller: String,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = [fresh_address(), fresh_address()];
        let key = |name: &str| {
            let file = dir.path().join(format!("{name}.key"));
            run(&["key", "new", file.to_str().unwrap()]).good().trim_end().to_owned()
        };
        let (robot, controller) = (key("robot"), key("controller"));
        let file = |name: &str, own: usize, peer: &str, did: &str, hears: &str| {
            format!(
                "\
[node]
name = \"{name}\"
mode = \"development\"
key = \"{name}.key\"

[transport]
bind = \"{}\"

[[peer]]
name = \"{peer}\"
identity = \"{did}\"
address = \"{}\"
publishes = [\"{hears}\"]

[[topic]]
name = \"arm/setpoint\"
schema = \"JointSetpoint@1\"
class = \"control\"

[[topic]]
name = \"arm/state\"
schema = \"JointState@1\"
class = \"queue\"
",
                addresses[own],
                addresses[1 - own],
            )
        };
        Self {
            robot: file("robot", 0, "controller", &controller, "arm/setpoint"),
            controller: file("controller", 1, "robot", &robot, "arm/state"),
            dir,
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn panels(&self) -> String {
        self.path("panels")
    }

    fn command(&self, name: &str, text: &str) -> Command {
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let mut command = sinew();
        command.args(["node", "run", &file, "--panel-dir", &self.panels()]);
        command
    }

    /// Starts a node; gives it and its report once its lanes run.
    fn start(&self, name: &str, text: &str) -> (Process, Value) {
        let mut process = Process::start(self.command(name, text).args(["--json", "-"]));
        let started = json(&process.line("{"));
        assert_eq!((&started["event"], &started["version"]), (&"started".into(), &1.into()));
        (process, started)
    }

    fn status(&self, args: &[&str]) -> Ran {
        run(&[&["node", "status", "--panel-dir", &self.panels()], args].concat())
    }

    fn fail(&self, text: &str, code: i32) -> String {
        let ran = Ran::of(self.command("robot", text).output().unwrap());
        assert_eq!(ran.out, "", "nothing ran");
        let panels = self.dir.path().join("panels");
        assert!(!panels.exists() || support::files(&panels).is_empty(), "no panel is left");
        ran.error(code).replace(&format!("{}/", self.path("")).replace("//", "/"), "")
    }
}

fn stop(process: Process, signal: &str) -> Value {
    process.signal(signal);
    json(&process.end().good())
}

#[test]
fn bad_input_is_one_line_with_place_and_fix_before_anything_runs() {
    let site = Site::new();
    let realtime = |lines: &str| {
        site.robot.replace("\n[transport]", &format!("[realtime]\n{lines}\n\n[transport]"))
    };
    let spinning = "layout = \"split\"\nwait = \"spin\"\ncores = [0, 0, 0]";
    let cases = [
        (
            site.robot.replace("mode =", "mood ="),
            "robot.toml:3: unknown field `mood`",
            "did you mean `mode`?",
        ),
        (
            site.robot.replace("\"robot\"", "7"),
            "robot.toml:2: node.name: invalid type: integer `7`",
            "expected a string",
        ),
        (
            site.robot.replace("\"development\"", "\"lax\""),
            "robot.toml:3: node.mode: unknown variant `lax`",
            "expected `production` or `development`",
        ),
        (
            site.robot.replace("bind = \"127.", "bind = \"here"),
            "robot.toml:7: transport.bind: invalid socket address",
            "such as \"127.0.0.1:7401\"",
        ),
        (
            site.robot.replace("[transport]\nbind", "#"),
            "robot.toml:1: transport: the node has no address",
            "set transport.bind",
        ),
        (
            site.robot.replace("key =", "#"),
            "robot.toml:1: node.key: the node has no identity",
            "make one with `sinew key new FILE`",
        ),
        (
            site.robot.replace("arm/state", "arm/setpoint"),
            "robot.toml:22: topic[1].schema: topic `arm/setpoint` is declared twice, as JointSetpoint@1 and as JointState@1",
            "remove one",
        ),
        (
            site.robot.replace("JointState@1", "Pose@1"),
            "robot.toml:22: topic[1].schema: `sinew node run` does not know the message `Pose@1`",
            "use one of Fault@1, Heartbeat@1, JointSetpoint@1, JointState@1, Twist@1",
        ),
        (
            site.robot.replace("[\"arm/setpoint\"]", "[\"arm/pose\"]"),
            "robot.toml:9: peer[0].publishes: `controller` publishes `arm/pose`, which is no topic here",
            "add a [[topic]]",
        ),
        (
            site.robot.replace("did:key:", "did:web:"),
            "robot.toml:11: peer[0].identity:",
            "`sinew key show FILE` prints an identity",
        ),
        (
            realtime("cores = [4095]"),
            "robot.toml:6: realtime.cores: core 4095 does not exist or is offline",
            "this machine has 0",
        ),
        (
            realtime(spinning),
            "robot.toml:8: realtime.cores: two spinning lanes on core 0: lane-receive and lane-verify",
            "wait = \"park\"",
        ),
        (
            site.robot.replace("mode = \"development\"\n", ""),
            "robot.toml:1: node.state_dir: a production node needs a place",
            "set node.state_dir",
        ),
        (
            site.robot.replace("robot.key", "none.key"),
            "robot.toml:4: node.key: none.key: no such file",
            "make a key with `sinew key new",
        ),
    ];
    for (text, place, fix) in cases {
        assert_ne!(text, site.robot, "the case for `{place}` changes nothing");
        let error = site.fail(&text, 2);
        assert!(error.starts_with(&format!("sinew: {place}")), "{error}\nnot\n{place}");
        assert!(error.contains(fix), "{error}\nhas no\n{fix}");
    }
    let missing = run(&["node", "run", &site.path("none.toml")]).error(2);
    assert!(
        missing.contains("cannot be read") && missing.contains("give the path of a sinew.toml")
    );
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let site = Site::new();
    std::fs::set_permissions(site.path("robot.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let error = site.fail(&site.robot, 2);
    assert!(error.starts_with("sinew: robot.toml:4: node.key: robot.key: mode 0644"), "{error}");
    assert!(error.contains("run `chmod 600"), "{error}");
}

#[test]
fn a_port_in_use_is_the_machines_fault() {
    let site = Site::new();
    let bind = site.robot.lines().find_map(|line| line.strip_prefix("bind = ")).unwrap();
    let address = bind.trim_matches('"');
    let _taken = UdpSocket::bind(address).unwrap();
    let error = site.fail(&site.robot, 3);
    let place = format!("sinew: robot.toml:7: transport.bind: {address} is in use: choose another");
    assert!(error.starts_with(&place), "{error}");
}

#[test]
fn a_node_runs_as_configured_and_stops_when_told() {
    let site = Site::new();
    for signal in ["TERM", "INT"] {
        let (process, started) = site.start("robot", &site.robot);
        assert_eq!(started["node"], "robot");
        assert_eq!(started["pid"], process.id());
        assert_eq!(started["topics"], serde_json::json!(["arm/setpoint"]));
        assert_eq!(started["topics_without_publisher"], serde_json::json!(["arm/state"]));
        assert!(site.robot.contains(started["address"].as_str().unwrap()));
        assert!(Path::new(started["panel"].as_str().unwrap()).exists());
        let stopped = stop(process, signal);
        assert_eq!(stopped["signal"], format!("SIG{signal}"));
        assert_eq!((&stopped["event"], &stopped["failed"]), (&"stopped".into(), &false.into()));
        assert_eq!(stopped["delivered"]["arm/setpoint"], 0);
        assert!(support::files(Path::new(&site.panels())).is_empty(), "the panel is gone");
    }
}

#[test]
fn what_is_configured_is_what_is_asked_of_the_machine() {
    let site = Site::new();
    let more = "layout = \"split\"\ncores = [0]\npriority = 33\nlock_memory = false\ncpu_latency_us = \"off\"\nstrictness = \"report\"\n\n[budgets]\nverify_us = 777\n\n[transport]";
    let text =
        site.robot.replace("\n[transport]", &format!("state_dir = \"state\"\n[realtime]\n{more}"));
    let (process, started) = site.start("robot", &text);
    assert_eq!(started["layout"], "split");
    assert_eq!(started["layout_reason"], "as configured");
    let lanes = started["lanes"].as_array().unwrap();
    let names: Vec<_> = lanes.iter().map(|lane| lane["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["lane-receive", "lane-verify", "lane-send"]);
    for lane in lanes {
        assert_eq!((&lane["core"], &lane["requested"]), (&0.into(), &"SCHED_FIFO 33".into()));
        let granted = lane["refused"].as_array().unwrap().is_empty();
        assert_eq!(granted, lane["effective"] == "SCHED_FIFO 33" && lane["effective_cores"] == "0");
    }
    assert_eq!((&started["memory"], &started["cpu_latency_us"]), (&Value::Null, &Value::Null));
    assert_eq!(started["epoch"], 1, "the first life by the counter on disk");
    let status = json(&site.status(&["robot", "--json", "-"]).good());
    let stages = status["nodes"][0]["stages"].as_array().unwrap();
    let verify = stages.iter().find(|stage| stage["name"] == "verify").unwrap();
    assert_eq!((&verify["budget_ns"], &verify["core"]), (&777_000.into(), &0.into()));
    stop(process, "TERM");
    let (process, started) = site.start("robot", &text);
    assert_eq!(started["epoch"], 2);
    stop(process, "TERM");

    // The defaults are otherwise.
    let (process, started) = site.start("robot", &site.robot);
    assert_eq!(started["lanes"][0]["requested"], "SCHED_FIFO 75");
    assert!(started["memory"].is_object());
    stop(process, "TERM");
}

#[test]
fn status_shows_peers_that_hear_each_other_and_a_node_that_was_killed() {
    let site = Site::new();
    let (robot, _) = site.start("robot", &site.robot);
    let (controller, _) = site.start("controller", &site.controller);
    let status = until("the nodes have heard each other", || {
        let status = json(&site.status(&["--json", "-"]).good());
        let nodes = status["nodes"].as_array().unwrap().clone();
        assert_eq!(nodes.len(), 2);
        nodes.iter().all(|node| node["peers"][0]["epoch"].is_u64()).then_some(nodes)
    });
    let [first, second] = &status[..] else { unreachable!() };
    assert_eq!((&first["name"], &second["name"]), (&"controller".into(), &"robot".into()));
    assert_eq!((&second["state"], &second["healthy"]), (&"running".into(), &true.into()));
    assert_eq!(second["pid"], robot.id());
    let peer = &second["peers"][0];
    assert_eq!(peer["name"], "controller");
    assert!(peer["heard_ago_ns"].as_i64().unwrap() >= 0);
    assert!(peer["round_trip_ns"].as_i64().unwrap() > 0);
    let text = site.status(&["robot"]).good();
    assert!(text.contains("robot · running") && text.contains("round trip"), "{text}");
    assert!(text.contains("fused: receive+verify+deliver+send"), "{text}");

    controller.signal("KILL");
    assert_eq!(controller.end().code, None);
    let dead = site.status(&["controller", "--json", "-"]);
    assert_eq!(dead.code, Some(1), "{dead:?}");
    let node = &json(&dead.out)["nodes"][0];
    assert_eq!((&node["state"], &node["alive"]), (&"killed".into(), &false.into()));
    assert_eq!(site.status(&[]).code, Some(1), "one of the two is dead");
    assert_eq!(site.status(&["robot"]).code, Some(0));

    // The next life moves the evidence aside, and what is kept of a crash is no node.
    let (controller, _) = site.start("controller", &site.controller);
    assert_eq!(site.status(&[]).code, Some(0));
    let crashed = format!("{}/controller.crashed.panel", site.panels());
    assert_eq!(site.status(&[&crashed]).code, Some(1));
    stop(controller, "TERM");
    stop(robot, "TERM");
    let none = site.status(&[]).error(3);
    assert!(none.contains("no panel of a node"), "{none}");
    let none = site.status(&["robot"]).error(3);
    assert!(none.contains("no panel of `robot`"), "{none}");
}

#[test]
fn a_panel_that_cannot_be_read_hides_no_other() {
    let site = Site::new();
    let (robot, _) = site.start("robot", &site.robot);
    let foreign = Path::new(&site.panels()).join("foreign.panel");
    std::fs::write(&foreign, "another program's").unwrap();
    let ran = site.status(&["--json", "-"]);
    assert_eq!((ran.code, &*ran.err), (Some(3), ""), "{ran:?}");
    let status = json(&ran.out);
    let nodes = status["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["name"]), (1, &"robot".into()));
    assert_eq!(nodes[0]["healthy"], true);
    let unreadable = status["unreadable"].as_array().unwrap();
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0]["path"], foreign.to_str().unwrap());
    assert!(unreadable[0]["error"].as_str().unwrap().contains("17 bytes"), "{status}");
    let text = site.status(&[]);
    assert_eq!(text.code, Some(3));
    assert!(text.out.contains("robot · running"), "{text:?}");
    let listed = format!("NOT READABLE: {}: ", foreign.display());
    assert!(text.out.contains(&listed), "{text:?}");
    // Asked about by name, it is an error, and the other one is as it was.
    let error = site.status(&["foreign"]).error(3);
    assert!(error.contains("foreign.panel: "), "{error}");
    site.status(&["robot"]).good();

    // What is known to be wrong weighs more than what is not known.
    robot.signal("KILL");
    robot.end();
    assert_eq!(site.status(&[]).code, Some(1));
}

#[test]
fn a_stopped_process_is_not_healthy() {
    let site = Site::new();
    let (process, _) = site.start("robot", &site.robot);
    process.signal("STOP");
    until("its silence is noticed", || {
        let ran = site.status(&["robot", "--json", "-"]);
        (ran.code == Some(1)).then(|| {
            let node = json(&ran.out)["nodes"][0].clone();
            assert_eq!((&node["state"], &node["healthy"]), (&"running".into(), &false.into()));
            assert!(node["problems"][0].as_str().unwrap().contains("housekeeping is silent"));
        })
    });
    process.signal("CONT");
    stop(process, "TERM");
}

#[test]
fn text_for_people_names_what_was_granted() {
    let site = Site::new();
    let mut process = Process::start(&mut site.command("robot", &site.robot));
    process.line("identity  did:key:z6Mk");
    process.line("lane      lane: SCHED_FIFO 75 on core");
    process.line("memory    ");
    process.line("unused    arm/state: in no peer's `publishes`");
    process.line("running");
    process.signal("TERM");
    let out = process.end().good();
    assert!(out.starts_with("stopped by SIGTERM after"), "{out}");
    assert!(out.contains("delivered arm/setpoint 0"), "{out}");
}

#[test]
fn without_rights_development_is_branded_and_production_refuses() {
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if me != 0 {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: only root can become a user without rights\n",
        );
        return;
    }
    let site = Site::new();
    let nobody = 65_534;
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(nobody), Some(nobody)).unwrap();
    own(site.dir.path());
    support::files(site.dir.path()).iter().for_each(|file| own(file));
    let binary = site.dir.path().join("sinew");
    std::fs::copy(env!("CARGO_BIN_EXE_sinew"), &binary).unwrap();
    let unprivileged = |text: &str| {
        let file = site.path("robot.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.args(["--bounding-set=-all", "prlimit", "--rtprio=0", "--memlock=65536"]);
        command.arg(&binary).args(["node", "run", &file, "--json", "-"]);
        command.args(["--panel-dir", &site.panels()]);
        command
    };
    let mut process = Process::start(&mut unprivileged(&site.robot));
    let started = json(&process.line("{"));
    let reasons = started["not_real_time"].as_array().unwrap();
    assert!(!reasons.is_empty(), "{started}");
    assert_eq!(started["lanes"][0]["effective"], "SCHED_OTHER");
    let text = site.status(&["robot"]).good();
    assert!(text.starts_with("NOT REAL-TIME: "), "{text}");
    let stopped = stop(process, "TERM");
    assert_eq!(&stopped["not_real_time"], &started["not_real_time"], "also in the summary");

    let production = site.robot.replace("\"development\"", "\"production\"\nstate_dir = \"state\"");
    let ran = Ran::of(unprivileged(&production).output().unwrap());
    assert_eq!(ran.out, "");
    let error = ran.error(3);
    assert!(error.contains("fix: "), "{error}");
}
