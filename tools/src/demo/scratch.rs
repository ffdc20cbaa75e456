//! What a run of the demo needs on disk: a private directory with keys, boot counters and two
//! `sinew.toml`, gone when the run ends; and the panels that its processes leave behind.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sinew_io::node::Layout;
use sinew_io::security::{Identity, keyfile};
use sinew_rt::panel;
use sinew_rt::topology::CoreId;

use super::place::Place;
use super::{SETPOINT, STATE};
use crate::exit::Failure;

/// The two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Robot,
    Controller,
}

impl Role {
    /// Its name in configurations, and of the hidden subcommand that runs it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Robot => "robot",
            Self::Controller => "controller",
        }
    }
}

/// The files of one run. Dropping it removes them: end the processes first.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
    places: [Place; 2],
}

impl Scratch {
    /// Makes a directory of mode 0700, two identities and the configurations that introduce them to
    /// each other, on loopback ports that are free now.
    pub(crate) fn new(layout: Layout, places: [Place; 2]) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("sinew-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| cannot("make a temporary directory", &error))?;
        let scratch = Self { directory, places };
        let sockets = [loopback()?, loopback()?];
        let mut ends = Vec::with_capacity(2);
        for (role, socket) in [Role::Robot, Role::Controller].into_iter().zip(&sockets) {
            let identity = Identity::generate().map_err(Failure::machine)?;
            let key = scratch.directory.path().join(format!("{}.key", role.name()));
            keyfile::store(&key, &identity).map_err(Failure::machine)?;
            let address = socket.local_addr().map_err(|error| cannot("bind a port", &error))?;
            ends.push(End { role, did: identity.public().to_did(), address });
        }
        for (own, peer) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            let lanes = &scratch.place(own.role).lanes;
            let text = configuration(&scratch.panel_name(own.role), layout, lanes, own, peer);
            let path = scratch.config(own.role);
            std::fs::write(path, text).map_err(|error| cannot("write sinew.toml", &error))?;
        }
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn place(&self, role: Role) -> &Place {
        &self.places[role as usize]
    }

    pub(crate) fn config(&self, role: Role) -> PathBuf {
        self.path().join(format!("{}.toml", role.name()))
    }

    /// The name of a process's panel: with this process's number, so that two demos run side by
    /// side.
    pub(crate) fn panel_name(&self, role: Role) -> String {
        format!("demo-{}-{}", role.name(), std::process::id())
    }

    pub(crate) fn panel(&self, role: Role) -> PathBuf {
        panel::path_of(&panel::default_dir(), &self.panel_name(role))
    }

    /// Where the next life of a process moves the panel of a life that was killed.
    fn crashed_panel(&self, role: Role) -> PathBuf {
        panel::path_of(&panel::default_dir(), &format!("{}.crashed", self.panel_name(role)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for role in [Role::Robot, Role::Controller] {
            for path in [self.panel(role), self.crashed_panel(role)] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        eprintln!("sinew: cannot remove {}: {error}", path.display());
                    }
                    _ => {}
                }
            }
        }
    }
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::machine(format!("cannot {what}: {error}"))
}

/// A free port on loopback. Both are bound before either is released, so that they differ.
fn loopback() -> Result<UdpSocket, Failure> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| cannot("bind to loopback", &error))
}

/// One end of the connection.
struct End {
    role: Role,
    did: String,
    address: SocketAddr,
}

fn publishes(role: Role) -> &'static str {
    match role {
        Role::Robot => STATE,
        Role::Controller => SETPOINT,
    }
}

/// A `sinew.toml` as a user would write it.
fn configuration(
    panel_name: &str,
    layout: Layout,
    lanes: &[CoreId],
    own: &End,
    peer: &End,
) -> String {
    let name = own.role.name();
    let lanes: Vec<String> = lanes.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"# The {name} of `sinew demo`.

[node]
name = "{panel_name}"
cluster = "demo"
mode = "production"
key = "{name}.key"
state_dir = "{name}-state"

[transport]
bind = "{}"

[realtime]
layout = "{layout}"
cores = [{}]
priority = 75              # below the control loop's 80, with which lanes may share a core
wait = "park"
strictness = "report"      # start anyway, and brand every output

[[peer]]
name = "{}"
identity = "{}"
address = "{}"
publishes = ["{}"]
"#,
        own.address,
        lanes.join(", "),
        peer.role.name(),
        peer.did,
        peer.address,
        publishes(peer.role),
    );
    for (topic, schema) in [(SETPOINT, "JointSetpoint@1"), (STATE, "JointState@1")] {
        let _ = write!(
            text,
            r#"
[[topic]]
name = "{topic}"
schema = "{schema}"
class = "control"
auth = "signed"
"#
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_are_valid_introduce_each_other_and_vanish() {
        let place = Place { control: CoreId::new(0), lanes: vec![CoreId::new(0)] };
        let scratch = Scratch::new(Layout::Split, [place.clone(), place]).unwrap();
        let path = scratch.path().to_owned();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        let load = |role| sinew_io::node::load(&scratch.config(role)).unwrap();
        let (robot, controller) = (load(Role::Robot), load(Role::Controller));
        assert_eq!(robot.realtime.layout, Layout::Split);
        for (own, peer) in [(&robot, &controller), (&controller, &robot)] {
            assert_eq!(Some(own.peers[0].address), peer.bind);
            let key = keyfile::load(peer.key.as_ref().unwrap()).unwrap();
            assert_eq!(own.peers[0].identity, key.public().to_did());
        }
        assert_eq!(robot.peers[0].publishes, [SETPOINT]);
        assert_eq!(controller.peers[0].publishes, [STATE]);
        drop(scratch);
        assert!(!path.exists());
    }
}
