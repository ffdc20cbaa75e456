//! What whole-system tests share: small networks of nodes, and waiting for what must happen.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod alone;
pub(crate) mod arena;
pub(crate) mod forge;
pub(crate) mod inventory;

use sinew::io::message::Message;
use sinew::io::node::{Node, NodeBuilder, PeerConfig};
use sinew::io::security::Identity;
use sinew::rt::clock::{self, Nanos};
use sinew::rt::thread::{Priority, Strictness, ThreadSpec, spawn};
use sinew::rt::topology::{CoreId, Topology};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message for tests: a number and room to make it 256 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Sample {
    pub(crate) number: u64,
    pub(crate) padding: [u8; 248],
}

impl Sample {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, padding: [number as u8; 248] }
    }
}

impl Message for Sample {
    const NAME: &'static str = "Sample@1";
}

/// A watchdog, not a measurement: how long anything that must happen may take before the test is
/// given up as hung.
pub(crate) const PATIENCE: Nanos = Nanos::from_secs(20);

/// Polls `ready` until it gives something; panics with `what` when the patience is over.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let give_up = clock::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(clock::now() < give_up, "gave up waiting until {what}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// An address that no other test uses, whether it runs in this process or beside it: all of
/// 127.0.0.0/8 is this host, so the process id makes the network and a counter the rest.
pub(crate) fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high, low, 1 + (n % 250) as u8);
    SocketAddr::from((host, 7_400 + n / 250))
}

/// Two identities that know each other's names and addresses.
pub(crate) struct Pair {
    pub(crate) robot: Side,
    pub(crate) controller: Side,
}

pub(crate) struct Side {
    pub(crate) identity: Identity,
    pub(crate) address: SocketAddr,
}

impl Pair {
    /// On loopback addresses that nobody else uses.
    pub(crate) fn on_loopback() -> Self {
        let side = || Side { identity: Identity::generate().unwrap(), address: fresh_address() };
        Self { robot: side(), controller: side() }
    }

    /// Builders of the two nodes, each enrolled with the other, with names that no other test uses.
    pub(crate) fn builders(self, test: &str) -> (NodeBuilder, NodeBuilder) {
        let peer = |name: &str, side: &Side, publishes: &[&str]| PeerConfig {
            name: name.to_owned(),
            identity: side.identity.public().to_did(),
            address: side.address,
            publishes: publishes.iter().map(|topic| (*topic).to_owned()).collect(),
        };
        let controller = peer("controller", &self.controller, &["setpoint"]);
        let robot = peer("robot", &self.robot, &["state"]);
        let node = |name: &str, side: Side, peer: PeerConfig| {
            Node::builder(format!("{test}-{name}-{}", std::process::id()))
                .development()
                .cluster("test")
                .identity(side.identity)
                .udp(side.address)
                .peer(peer)
        };
        (node("robot", self.robot, controller), node("controller", self.controller, robot))
    }
}

/// The value of a panel's counter.
pub(crate) fn counter(node: &Node, name: &str) -> u64 {
    let snapshot = node.panel().snapshot().unwrap();
    snapshot.counter(name).unwrap_or_else(|| panic!("the panel has no counter {name}"))
}

/// Says, past the capture of test output, that a test could not run and why: a gate looks for it.
pub(crate) fn skipped(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {reason}");
}

/// Says, past the capture of test output, on what a result rests that depends on the machine.
pub(crate) fn granted(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "\nGRANTED: {what}");
}

/// Sets a flag when dropped, also by a failed assertion: threads that run until then end.
pub(crate) struct AtTheEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `body` on a thread that the lanes on `core` cannot keep from running, or says why not.
pub(crate) fn beside<T: Send + 'static>(
    core: CoreId,
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let cores = Topology::read().unwrap().usable_cores();
    let Some(other) = cores.iter().find(|other| *other != core) else {
        skipped("a lane that holds its core needs another core beside it");
        return None;
    };
    let spec = ThreadSpec::new("driver").core(other).fifo(Priority::MIN);
    let driver = spawn(spec.strictness(Strictness::Report), body).unwrap();
    Some(driver.join().unwrap())
}

/// The core on which a node with one lane puts it, if it is not told otherwise.
pub(crate) fn lane_core() -> CoreId {
    Topology::read().unwrap().real_time_cores()[0]
}
