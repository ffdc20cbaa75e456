//! `sinew.toml` in running nodes: what its keys do to messages, and what a start refuses.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use sinew_io::message::Message;
use sinew_io::node::{MAX_PEER_NAME, MAX_TOPIC_NAME, Node, NodeError, RealTimeConfig};
use sinew_io::security::{Identity, keyfile};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::kernel::RtThrottling;
use sinew_rt::topology::{CoreId, Topology};
use sinew_rt::wait::Wait;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const TOPIC: &str = "\
[[topic]]
name = \"arm/setpoint\"
schema = \"Sample@1\"
class = \"control\"
";

/// A message for the nodes below.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sample {
    number: u64,
}

impl Message for Sample {
    const NAME: &'static str = "Sample@1";
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Other {
    number: u64,
}

impl Message for Other {
    const NAME: &'static str = "Other@1";
}

/// A robot that listens and a controller that publishes, each from a file of its own in `dir`.
struct Files {
    dir: tempfile::TempDir,
    robot: String,
    controller: String,
}

/// An address that no other test uses, whether it runs in this process or beside it: all of
/// 127.0.0.0/8 is this host, so the process id makes the network and a counter the port.
fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(7_400);
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, high, low, 1), NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

impl Files {
    fn new(test: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = [fresh_address(), fresh_address()];
        let address = |n: usize| addresses[n];
        let did = |name: &str| {
            let identity = Identity::generate().unwrap();
            keyfile::store(&dir.path().join(format!("{name}.key")), &identity).unwrap();
            identity.public().to_did()
        };
        let (robot, controller) = (did("robot"), did("controller"));
        let file = |own: (&str, usize), peer: (&str, usize, &str), publishes: &str| {
            format!(
                "[node]\nname = \"{test}-{}-{}\"\nmode = \"development\"\ncluster = \"c\"\n\
                 key = \"{0}.key\"\n[transport]\nbind = \"{}\"\n[realtime]\nlock_memory = false\n\
                 cpu_latency_us = \"off\"\n[[peer]]\nname = \"{}\"\nidentity = \"{}\"\n\
                 address = \"{}\"\npublishes = [{publishes}]\n{TOPIC}",
                own.0,
                std::process::id(),
                address(own.1),
                peer.0,
                peer.2,
                address(peer.1),
            )
        };
        Self {
            robot: file(("robot", 0), ("controller", 1, &controller), "\"arm/setpoint\""),
            controller: file(("controller", 1), ("robot", 0, &robot), ""),
            dir,
        }
    }

    /// Starts both, publishes until `counter` of the robot's panel has counted, and gives the
    /// robot's panel then.
    fn until_counted(&self, counter: &str, age: Nanos) -> sinew_rt::panel::PanelSnapshot {
        let load = |name: &str, text: &str| {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Node::from_config(path).unwrap().panel_dir(self.dir.path())
        };
        let mut robot = load("robot.toml", &self.robot);
        let mut controller = load("controller.toml", &self.controller);
        let _setpoint = robot.latest::<Sample>("arm/setpoint").unwrap();
        let mut publisher = controller.publisher::<Sample>("arm/setpoint").unwrap();
        let (robot, controller) = (robot.start().unwrap(), controller.start().unwrap());
        let give_up = clock::now() + Nanos::from_secs(30);
        let snapshot = loop {
            // A full ring is as good as a message.
            let _ = publisher.publish_at(&Sample { number: 1 }, clock::now() - age);
            std::thread::sleep(std::time::Duration::from_millis(2));
            let snapshot = robot.panel().snapshot().unwrap();
            if snapshot.counter(counter).is_some_and(|count| count > 2) {
                break snapshot;
            }
            assert!(clock::now() < give_up, "{counter} never counted: {:?}", snapshot.counters);
        };
        controller.stop().unwrap();
        robot.stop().unwrap();
        snapshot
    }
}

const DELIVERED: &str = "delivered/arm/setpoint";

#[test]
fn auth_decides_whether_envelopes_carry_signatures() {
    let mut files = Files::new("auth");
    let signed = files.until_counted(DELIVERED, Nanos::ZERO);
    assert!(signed.counter("verify.signatures_checked") >= signed.counter(DELIVERED));
    files.controller += "auth = \"open\"\n";
    // The robot still wants signatures.
    files.until_counted("verify.drop.not_signed@controller", Nanos::ZERO);
    files.robot += "auth = \"open\"\n";
    let open = files.until_counted(DELIVERED, Nanos::ZERO);
    assert_eq!(open.counter("verify.signatures_checked"), Some(0));
}

#[test]
fn lifespan_decides_whether_an_old_message_is_delivered() {
    let mut files = Files::new("lifespan");
    let old = Nanos::from_secs(1);
    files.until_counted(DELIVERED, old);
    files.controller += "lifespan_ms = 500\n";
    let snapshot = files.until_counted("verify.drop.expired@controller", old);
    assert_eq!(snapshot.counter(DELIVERED), Some(0));
    // A subscriber may want it shorter than the publisher.
    files.controller = files.controller.replace("lifespan_ms = 500\n", "");
    files.robot += "lifespan_ms = 500\n";
    let snapshot = files.until_counted("verify.drop.expired@controller", old);
    assert_eq!(snapshot.counter(DELIVERED), Some(0));
}

#[test]
fn publishes_and_cluster_decide_who_is_heard() {
    let mut files = Files::new("publishes");
    let robot = files.robot.clone();
    files.robot = robot.replace("publishes = [\"arm/setpoint\"]", "publishes = [\"else\"]");
    let snapshot = files.until_counted("verify.drop.not_permitted@controller", Nanos::ZERO);
    assert_eq!(snapshot.counter(DELIVERED), Some(0));
    files.robot = robot.replace("cluster = \"c\"", "cluster = \"d\"");
    let snapshot = files.until_counted("receive.drop.other_cluster@stranger", Nanos::ZERO);
    assert_eq!(snapshot.counter(DELIVERED), Some(0));
}

#[test]
fn what_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new("private");
    let (path, state) = (files.dir.path().join("robot.toml"), files.dir.path().join("state"));
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let start = |text: &str| -> Result<(), String> {
        std::fs::write(&path, text).unwrap();
        let node = Node::from_config(&path).map_err(|error| error.to_string())?;
        let node = node.panel_dir(files.dir.path()).start();
        node.map_err(|error| error.to_string())?.stop().map_err(|panics| panics.join(" "))
    };
    let text = files.robot.replace("[transport]", "state_dir = \"state\"\n[transport]");
    start(&text).unwrap();
    mode(&state, 0o770);
    let error = start(&text).unwrap_err();
    let line = 1 + text.split("state_dir").next().unwrap().matches('\n').count();
    assert!(error.contains(&format!("robot.toml:{line}: node.state_dir: ")), "{error}");
    assert!(error.contains("state: mode 0770 lets others write; run `chmod go-w "), "{error}");
    mode(&state, 0o700);
    mode(&path, 0o666);
    let error = start(&text).unwrap_err();
    assert!(error.contains("robot.toml: mode 0666 lets others write; run `chmod go-w "), "{error}");
    mode(&path, 0o644);
    let error = start(&text.replace("\"state\"", "\"robot.key/state\"")).unwrap_err();
    assert!(error.contains("node.state_dir: ") && error.contains("cannot be used"), "{error}");
    let error = start(&"#".repeat((1 << 20) + 1)).unwrap_err();
    assert!(error.contains("is longer than 1048576 bytes"), "{error}");
}

#[test]
fn schema_and_class_bind_the_program() {
    let files = Files::new("schema");
    let path = files.dir.path().join("robot.toml");
    std::fs::write(&path, &files.robot).unwrap();
    let error = |result: Result<(), NodeError>| result.unwrap_err().to_string();
    let mut node = Node::from_config(&path).unwrap();
    let wrong = error(node.latest::<Other>("arm/setpoint").map(drop));
    assert!(
        wrong.contains(
            ":18: topic[0].schema: topic `arm/setpoint` is Sample@1 here and Other@1 in the program"
        ),
        "{wrong}"
    );
    let wrong = error(node.queue::<Sample>("arm/setpoint", 4).map(drop));
    assert!(
        wrong.contains(
            ":16: topic[0]: topic `arm/setpoint` is control here and queue in the program"
        ),
        "{wrong}"
    );
    node.latest::<Sample>("arm/setpoint").unwrap();
    let wrong = error(node.latest::<Sample>("arm/setpoint").map(drop));
    assert!(wrong.contains(":16: topic[0]: `arm/setpoint` is subscribed twice"), "{wrong}");
    std::fs::write(&path, files.robot.replace("\"control\"", "\"queue\"")).unwrap();
    Node::from_config(&path).unwrap().queue::<Sample>("arm/setpoint", 4).unwrap();
}

#[test]
fn the_longest_names_fit_the_panel() {
    let mut files = Files::new("longest");
    let (peer, topic) = ("p".repeat(MAX_PEER_NAME), "t".repeat(MAX_TOPIC_NAME));
    files.robot = files
        .robot
        .replace("\"controller\"", &format!("\"{peer}\""))
        .replace("arm/setpoint", &topic);
    let path = files.dir.path().join("robot.toml");
    std::fs::write(&path, &files.robot).unwrap();
    let mut node = Node::from_config(&path).unwrap().panel_dir(files.dir.path());
    let _reader = node.latest::<Sample>(&topic).unwrap();
    let _publisher = node.publisher::<Sample>(&topic).unwrap();
    node.start().unwrap().stop().unwrap();
}

#[test]
fn a_lane_may_not_spin_for_good_where_the_kernel_throttles_it_whatever_the_mode() {
    if RtThrottling::current().spin_allowed().is_ok() {
        println!("SKIPPED: this kernel does not throttle real-time threads");
        return;
    }
    let mut files = Files::new("throttled");
    files.robot =
        files.robot.replace("[realtime]\n", "[realtime]\nwait = \"spin\"\nlayout = \"fused\"\n");
    let path = files.dir.path().join("robot.toml");
    std::fs::write(&path, &files.robot).unwrap();
    let node = Node::from_config(&path).unwrap().panel_dir(files.dir.path());
    let error = node.start().unwrap_err();
    let NodeError::Refused(refused) = &error else { panic!("{error}") };
    assert_eq!(refused[0].what, "realtime.wait");
}

#[test]
fn a_lane_that_shall_spin_holds_its_core() {
    let mut files = Files::new("spin");
    let cores = |files: &Files| {
        let path = files.dir.path().join("robot.toml");
        std::fs::write(&path, &files.robot).unwrap();
        let node = Node::from_config(&path).unwrap().panel_dir(files.dir.path());
        // Stopped at once: a spin of some milliseconds.
        let node = node.spins_in_bursts().start().unwrap();
        let held = node.held_cores().len();
        node.stop().unwrap();
        held
    };
    assert_eq!(cores(&files), 0);
    files.robot =
        files.robot.replace("[realtime]\n", "[realtime]\nwait = \"spin\"\nlayout = \"fused\"\n");
    assert_eq!(cores(&files), 1);
}

/// Every thread of this process with that name, with its scheduling policy, as the kernel shows them.
fn policies(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let stats: Vec<_> = stats.filter(|stat| stat.contains(&format!("({name})"))).collect();
    // proc_pid_stat(5): the policy is field 41, and the name was field 2.
    let policy = |stat: &String| stat.rsplit_once(')')?.1.split_whitespace().nth(38)?.parse().ok();
    stats.iter().filter_map(policy).collect()
}

#[test]
fn keep_awake_puts_a_spinner_below_everything_on_its_core_for_as_long_as_the_node_lives() {
    const SCHED_IDLE: i32 = 5;
    let mut files = Files::new("awake");
    let core = Topology::read().unwrap().usable_cores().first().unwrap();
    let name = format!("awake-{core}");
    let line = format!("[realtime]\nkeep_awake = [{core}]\n");
    files.robot = files.robot.replace("[realtime]\n", &line);
    let path = files.dir.path().join("robot.toml");
    std::fs::write(&path, &files.robot).unwrap();
    let node = Node::from_config(&path).unwrap().panel_dir(files.dir.path()).start().unwrap();
    let awake = &node.report().keep_awake;
    assert_eq!(awake.len(), 1);
    assert_eq!(awake[0].effective.scheduling.to_string(), "SCHED_IDLE");
    assert_eq!(awake[0].effective.affinity.to_string(), core.to_string());
    assert_eq!(policies(&name), [SCHED_IDLE]);
    node.stop().unwrap();
    let give_up = clock::now() + Nanos::from_secs(20);
    while !policies(&name).is_empty() {
        assert!(clock::now() < give_up, "the spinner outlived its node");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn cores_to_keep_awake_must_exist_and_must_not_belong_to_a_lane_that_spins() {
    let refused = |wait: Wait, core: u16| {
        let realtime = RealTimeConfig { wait, ..RealTimeConfig::default() };
        let node = Node::builder("awake").development().realtime(realtime);
        let node = node.identity(Identity::generate().unwrap()).udp(fresh_address());
        node.keep_awake([CoreId::new(core)]).start().unwrap_err().to_string()
    };
    let error = refused(Wait::Park, 9_999);
    assert!(error.starts_with("realtime.keep_awake: core 9999 does not exist"), "{error}");
    let error = refused(Wait::Spin, 0);
    assert!(error.starts_with("realtime.keep_awake: a core with a lane that spins"), "{error}");
}
