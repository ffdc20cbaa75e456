//! Real processes for tests: a relay, and peers on both sides of it. Every process is a child that ends
//! with its standard input, and none is touched that was not started here.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use sinew_io::security::{Identity, keyfile};
use sinew_sim::ledger::check::{Options, check};
use sinew_sim::ledger::read::{Ledger, read};
use sinew_sim::ledger::record::Record;
use sinew_sim::ledger::report::Report;
use sinew_sim::relay::RelayReport;

/// A watchdog, not a measurement: how long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The command under test.
pub(crate) fn sinew_sim() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sinew-sim"))
}

/// Polls `ready` until it gives something; panics with `what` when the patience is over.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < give_up, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that no other test uses: all of 127.0.0.0/8 is this host, so the process id makes the
/// network and a counter the rest.
pub(crate) fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high, low, 1 + (n % 250) as u8);
    SocketAddr::from((host, 7_400 + n / 250))
}

/// A child that gives lines on standard output.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Process {
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines() {
                let Ok(line) = line else { return };
                // Nobody may be listening any more.
                let _ = told.send(line);
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, lines, errors: Some(errors) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that contains `words`; panics with what the process said when it ends before.
    pub(crate) fn line_with(&mut self, words: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(words) => return line,
                Ok(_) => {}
                Err(error) => {
                    let _ = self.child.kill();
                    let said = self.errors.take().unwrap().join().unwrap();
                    panic!("{} did not say {words:?} ({error}): {said}", self.name);
                }
            }
        }
    }

    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: no pointers. The process is our child and has not been waited for.
        let sent = unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    /// kill -9. It must have been alive until then.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        let said = self.errors.take().unwrap().join().unwrap();
        let name = &self.name;
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{name} ended by itself: {status} {said}");
    }

    /// Ends it in good order by the end of its standard input.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > give_up {
                self.child.kill().unwrap();
                panic!("{} did not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        (status, self.errors.take().unwrap().join().unwrap())
    }

    /// The same for a peer, with its counters.
    pub(crate) fn end_with_counters(mut self) -> BTreeMap<String, u64> {
        drop(self.stdin.take());
        let line = self.line_with("\"ended\"");
        self.end_well();
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        serde_json::from_value(report["counters"].clone()).unwrap()
    }

    pub(crate) fn end_well(self) {
        let name = self.name.clone();
        let (status, said) = self.end();
        assert!(status.success(), "{name}: {status} {said}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After an orderly end both do nothing; in a test that fails nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A topic of both nodes.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) class: &'static str,
    pub(crate) auth: &'static str,
    /// More lines of its declaration.
    pub(crate) more: &'static str,
}

/// A sender and a receiver with a relay between them.
pub(crate) struct World {
    directory: tempfile::TempDir,
    /// Where each of them really is, and where it finds the other.
    sender: (SocketAddr, SocketAddr),
    receiver: (SocketAddr, SocketAddr),
    topics: Vec<&'static str>,
}

impl World {
    /// Makes keys and configurations.
    pub(crate) fn new(topics: &[Topic]) -> Self {
        let mut directory = tempfile::tempdir().unwrap();
        // For a look at what happened.
        if std::env::var_os("SINEW_KEEP").is_some() {
            directory.disable_cleanup(true);
            println!("ledgers are kept in {}", directory.path().display());
        }
        let world = Self {
            directory,
            sender: (fresh_address(), fresh_address()),
            receiver: (fresh_address(), fresh_address()),
            topics: topics.iter().map(|topic| topic.name).collect(),
        };
        let identities = ["sender", "receiver"].map(|name| {
            let identity = Identity::generate().unwrap();
            keyfile::store(&world.path(&format!("{name}.key")), &identity).unwrap();
            identity.public().to_did()
        });
        let publishes = world.topics.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
        let publishes = publishes.join(", ");
        let [sender, receiver] = &identities;
        world.configure("sender", world.sender, ("receiver", receiver), "", topics);
        world.configure("receiver", world.receiver, ("sender", sender), &publishes, topics);
        world
    }

    fn configure(
        &self,
        name: &str,
        (own, other): (SocketAddr, SocketAddr),
        (peer, identity): (&str, &str),
        publishes: &str,
        topics: &[Topic],
    ) {
        let mut text = format!(
            "[node]\nname = \"{name}\"\ncluster = \"sim\"\nmode = \"development\"\n\
             key = \"{name}.key\"\nstate_dir = \"{name}.state\"\n\
             [transport]\nbind = \"{own}\"\n\
             [admission]\npeer_checks_per_s = 20000\n\
             [[peer]]\nname = \"{peer}\"\nidentity = \"{identity}\"\naddress = \"{other}\"\n\
             publishes = [{publishes}]\n"
        );
        for Topic { name, class, auth, more } in topics {
            let schema = if *class == "estop" { "AllWell@1" } else { "Entry@1" };
            text += &format!(
                "[[topic]]\nname = \"{name}\"\nschema = \"{schema}\"\nclass = \"{class}\"\n\
                 auth = \"{auth}\"\n{more}\n"
            );
        }
        std::fs::create_dir_all(self.path(&format!("{name}.state"))).unwrap();
        std::fs::write(self.path(&format!("{name}.toml")), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The head of a scenario: the two nodes and the paths between them. `run` is put into each node.
    pub(crate) fn nodes(&self, run: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for (name, (own, other), peer) in
            [("sender", self.sender, "receiver"), ("receiver", self.receiver, "sender")]
        {
            text += &format!("[[node]]\nname = \"{name}\"\naddress = \"{own}\"\n{}\n", run(name));
            text +=
                &format!("[[path]]\nfrom = \"{name}\"\nto = \"{peer}\"\nlisten = \"{other}\"\n");
        }
        text
    }

    /// Starts the relay with what `scenario` says beside the nodes.
    pub(crate) fn relay(&self, scenario: &str) -> Process {
        self.relay_with(&format!("{}\n{scenario}", self.nodes(|_| String::new())))
    }

    /// Starts the relay with a whole scenario.
    pub(crate) fn relay_with(&self, scenario: &str) -> Process {
        let path = self.path("scenario.toml");
        std::fs::write(&path, scenario).unwrap();
        self.start_relay(sinew_sim().arg("relay").arg(path))
    }

    /// Starts the relay with one of the scenarios in `sim/scenarios`, at this world's addresses.
    pub(crate) fn relay_of(&self, file: &str) -> Process {
        let mut command = sinew_sim();
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        command.arg("relay").arg(scenarios.join(file));
        for (name, (own, other), peer) in
            [("sender", self.sender, "receiver"), ("receiver", self.receiver, "sender")]
        {
            command.arg(format!("--node={name}={own}"));
            command.arg(format!("--listen={name}:{peer}={other}"));
        }
        self.start_relay(&mut command)
    }

    fn start_relay(&self, command: &mut Command) -> Process {
        command.arg("--stdin").arg("--json").arg(self.path("relay.json"));
        let mut relay = Process::spawn("relay", command);
        relay.line_with("running");
        relay
    }

    /// Ends the relay and gives its report.
    pub(crate) fn end_relay(&self, relay: Process) -> RelayReport {
        relay.end_well();
        serde_json::from_slice(&std::fs::read(self.path("relay.json")).unwrap()).unwrap()
    }

    /// The arguments of a peer.
    pub(crate) fn peer_arguments(&self, name: &str, rate_hz: u32) -> Vec<String> {
        let path = |name: String| self.path(&name).to_str().unwrap().to_owned();
        let mut arguments = vec!["peer".to_owned(), path(format!("{name}.toml"))];
        arguments.extend(["--ledger".to_owned(), path(format!("{name}.ledger"))]);
        arguments.extend(["--panel-dir".to_owned(), path(String::new())]);
        arguments.push("--stdin".to_owned());
        if name == "sender" {
            arguments.extend(["--rate-hz".to_owned(), rate_hz.to_string()]);
            for topic in &self.topics {
                arguments.extend(["--publish".to_owned(), (*topic).to_owned()]);
            }
        }
        arguments
    }

    /// Starts a peer that publishes nothing before the order to go.
    pub(crate) fn quiet_peer(&self, name: &str, rate_hz: u32) -> Process {
        let arguments = self.peer_arguments(name, rate_hz);
        Process::spawn(name, sinew_sim().args(arguments).arg("--quiet"))
    }

    /// Starts a peer and does not wait for it.
    pub(crate) fn peer(&self, name: &str, rate_hz: u32) -> Process {
        Process::spawn(name, sinew_sim().args(self.peer_arguments(name, rate_hz)))
    }

    /// What a peer wrote so far.
    pub(crate) fn ledger(&self, name: &str) -> Ledger {
        let path = self.path(&format!("{name}.ledger"));
        read(name, &std::fs::read(path).unwrap_or_default())
    }

    /// Compares what both wrote so far.
    pub(crate) fn check(&self, options: Options) -> Report {
        check(&[self.ledger("sender"), self.ledger("receiver")], options)
    }

    /// Lines of the receiver's ledger.
    pub(crate) fn received(&self) -> usize {
        self.ledger("receiver").lives.iter().map(|life| life.records.len()).sum()
    }

    /// The number of the last message of a topic that the receiver got.
    pub(crate) fn last_got(&self, topic: &str) -> Option<u64> {
        let ledger = self.ledger("receiver");
        let records = ledger.lives.iter().flat_map(|life| &life.records);
        let mut got = records.filter_map(|(_, record)| match record {
            Record::Got { topic: of, sequence, .. } if of == topic => Some(*sequence),
            _ => None,
        });
        got.next_back()
    }

    /// Whether everything that the sender's last life sent on these topics came or was reported missing.
    pub(crate) fn is_settled(&self, topics: &[&str]) -> bool {
        let sender = self.ledger("sender");
        let Some(life) = sender.lives.last() else { return false };
        let receiver = self.ledger("receiver");
        let heard = receiver.lives.last().map(|life| life.records.as_slice()).unwrap_or_default();
        topics.iter().all(|topic| {
            let sent = life.records.iter().rev().find_map(|(_, record)| match record {
                Record::Sent { topic: of, sequence, .. } if of == topic => Some(*sequence),
                _ => None,
            });
            let done = heard.iter().rev().find_map(|(_, record)| match record {
                Record::Got { topic: of, sequence: last, epoch, .. }
                | Record::Gap { topic: of, last, epoch, .. }
                    if of == topic =>
                {
                    (*epoch == life.epoch).then_some(*last)
                }
                Record::NewLife { topic: of, first, epoch, .. } if of == topic => {
                    (*epoch == life.epoch).then_some(first - 1)
                }
                _ => None,
            });
            sent == done
        })
    }

    /// How long each message took that something was wrong with: that came later than any delay of the
    /// link explains, and did not just wait for one before it. From before its sending to after its
    /// receipt, sorted, in nanoseconds.
    pub(crate) fn recoveries(&self, topic: &str, longest_delay_ns: i64) -> Vec<i64> {
        let (sender, receiver) = (self.ledger("sender"), self.ledger("receiver"));
        let records = |ledger: Ledger| ledger.lives.into_iter().flat_map(|life| life.records);
        let sent: BTreeMap<u64, i64> = records(sender)
            .filter_map(|(_, record)| match record {
                Record::Sent { topic: of, sequence, at, .. } if of == topic => Some((sequence, at)),
                _ => None,
            })
            .collect();
        let mut before = 0;
        let mut recoveries = Vec::new();
        for (_, record) in records(receiver) {
            let Record::Got { topic: of, sequence, at, .. } = record else { continue };
            if of != topic {
                continue;
            }
            let latency = at - sent[&sequence];
            // What one message held up comes in one go with it.
            if latency > longest_delay_ns && at - before > 500_000 {
                recoveries.push(latency);
            }
            before = at;
        }
        recoveries.sort_unstable();
        recoveries
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}
