//! Two network namespaces with a cable between them that is pulled and put back: a real partition, by the
//! kernel's own network.

mod processes;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use processes::{Process, until};
use sinew_io::security::{Identity, keyfile};
use sinew_sim::ledger::check::{Options, check};
use sinew_sim::ledger::read::{Ledger, read};
use sinew_sim::ledger::record::Record;

/// Messages a second on each topic.
const RATE_HZ: &str = "300";

/// For how long the cable is out.
const OUTAGE: Duration = Duration::from_secs(1);

/// Says, past the capture of test output, that a test could not run and why: a gate looks for it.
fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {reason}");
}

/// Runs `ip` with these words; what it said if it failed.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    match output {
        Err(error) => Err(format!("ip cannot be started: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}

/// Two namespaces that only this test knows; they and the cable are gone when it is dropped.
struct Cable {
    names: [String; 2],
}

const ADDRESSES: [&str; 2] = ["10.213.77.1", "10.213.77.2"];

impl Cable {
    fn new() -> Result<Self, String> {
        let pid = std::process::id();
        let cable = Self { names: [format!("sinew-a-{pid}"), format!("sinew-b-{pid}")] };
        let [a, b] = &cable.names;
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("-n {a} link add cable type veth peer name cable netns {b}"))?;
        for (name, address) in cable.names.iter().zip(ADDRESSES) {
            ip(&format!("-n {name} addr add {address}/30 dev cable"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set cable up"))?;
        }
        Ok(cable)
    }

    fn set(&self, state: &str) {
        ip(&format!("-n {} link set cable {state}", self.names[0])).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made is not there, which is as it should be.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

const TOPICS: &str = "
[[topic]]
name = \"stream\"
schema = \"Entry@1\"
class = \"stream\"
auth = \"signed\"
capacity = 1_024
linger_ms = 5_000
gap_timeout_ms = 6_000
[[topic]]
name = \"command\"
schema = \"Entry@1\"
class = \"command\"
auth = \"signed\"
lifespan_ms = 5_000
capacity = 1_024
linger_ms = 5_000
gap_timeout_ms = 6_000
";

struct Site {
    directory: tempfile::TempDir,
    cable: Cable,
}

impl Site {
    fn new(cable: Cable) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), cable };
        let identities = ["sender", "receiver"].map(|name| {
            let identity = Identity::generate().unwrap();
            keyfile::store(&site.path(&format!("{name}.key")), &identity).unwrap();
            identity.public().to_did()
        });
        let [at_sender, at_receiver] = ADDRESSES;
        let [sender, receiver] = &identities;
        for (name, own, peer, identity, at, publishes) in [
            ("sender", at_sender, "receiver", receiver, at_receiver, ""),
            ("receiver", at_receiver, "sender", sender, at_sender, "\"stream\", \"command\""),
        ] {
            let text = format!(
                "[node]\nname = \"{name}\"\ncluster = \"sim\"\nmode = \"development\"\n\
                 key = \"{name}.key\"\nstate_dir = \"{name}.state\"\n\
                 [transport]\nbind = \"{own}:7400\"\n\
                 [admission]\npeer_checks_per_s = 20000\n\
                 [[peer]]\nname = \"{peer}\"\nidentity = \"{identity}\"\naddress = \"{at}:7400\"\n\
                 publishes = [{publishes}]\n{TOPICS}"
            );
            std::fs::create_dir_all(site.path(&format!("{name}.state"))).unwrap();
            std::fs::write(site.path(&format!("{name}.toml")), text).unwrap();
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn peer(&self, place: usize, name: &str, more: &[&str]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.cable.names[place]]);
        command.arg(env!("CARGO_BIN_EXE_sinew-sim")).arg("peer");
        command.arg(self.path(&format!("{name}.toml"))).arg("--stdin");
        command.arg("--ledger").arg(self.path(&format!("{name}.ledger")));
        command.arg("--panel-dir").arg(self.directory.path()).args(more);
        Process::spawn(name, &mut command)
    }

    fn ledger(&self, name: &str) -> Ledger {
        read(name, &std::fs::read(self.path(&format!("{name}.ledger"))).unwrap_or_default())
    }

    /// The last number on each topic that the ledger of `name` has as sent, or as received.
    fn last(&self, name: &str) -> [u64; 2] {
        let ledger = self.ledger(name);
        let mut last = [0; 2];
        for (_, record) in ledger.lives.iter().flat_map(|life| &life.records) {
            if let Record::Sent { topic, sequence, .. } | Record::Got { topic, sequence, .. } =
                record
            {
                last[usize::from(topic == "command")] = *sequence;
            }
        }
        last
    }
}

#[test]
fn a_cable_that_is_pulled_for_a_second_costs_nothing() {
    let cable = match Cable::new() {
        Ok(cable) => cable,
        Err(why) => return skipped(&format!("network namespaces: {why}")),
    };
    let site = Site::new(cable);
    let mut receiver = site.peer(1, "receiver", &[]);
    receiver.line_with("started");
    let publishes =
        ["--publish", "stream", "--publish", "command", "--rate-hz", RATE_HZ, "--quiet"];
    let mut sender = site.peer(0, "sender", &publishes);
    sender.line_with("matched");
    sender.order("go");
    until("a hundred of each came", || {
        site.last("receiver").iter().all(|last| *last > 100).then_some(())
    });

    site.cable.set("down");
    std::thread::sleep(OUTAGE);
    let [before, sent] = [site.last("receiver"), site.last("sender")];
    site.cable.set("up");
    assert!(before[0] < sent[0] && before[1] < sent[1], "something was cut: {before:?}, {sent:?}");
    until("what was sent meanwhile and a hundred more came", || {
        let last = site.last("receiver");
        last.iter().zip(sent).all(|(last, sent)| *last > sent + 100).then_some(())
    });
    sender.order("quiet");
    until("everything came", || {
        let sent = site.last("sender");
        (site.last("receiver") == sent).then_some(())
    });
    sender.end_well();
    receiver.end_well();

    let ledgers = ["sender", "receiver"].map(|name| site.ledger(name));
    let report = check(&ledgers, Options { complete: true, ..Options::default() });
    println!("{}", report.text());
    assert_eq!(report.violations, 0, "{}", report.text());
    assert!(ledgers.iter().all(|ledger| ledger.lives.len() == 1), "each had one life");
    let epoch = ledgers[0].lives[0].epoch;
    for (_, record) in &ledgers[1].lives[0].records {
        let (Record::Got { epoch: heard, .. } | Record::NewLife { epoch: heard, .. }) = record
        else {
            continue;
        };
        assert_eq!(*heard, epoch, "the sender is the same as before");
    }
    for topic in ["stream", "command"] {
        assert_eq!(report.topics[topic].undelivered, 0, "{}", report.text());
    }
}
