//! The relay's loop: one thread, one poll, and bounded work in each turn.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sinew_rt::clock::{self, Nanos};

use crate::scenario::network::{Network, Turn};
use crate::scenario::{FaultKind, NodeIndex, Path, Scenario, Transport};

use super::children::Children;
use super::report::{LinkReport, RelayReport};
use super::tcp::{CONNECTIONS_MAX, Connection, Gate, GateCounts, Life};
use super::timer::Timer;
use super::udp::{DATAGRAM_MAX, Port, PortCounts};

/// Datagrams that one turn hands on.
const SENT_PER_TURN: usize = 1_024;

/// Events that one poll tells of; the next poll tells of the rest.
const EVENTS: usize = 256;

/// How often nodes are looked after.
const LOOK: Nanos = Nanos::from_millis(100);

const TIMER: Token = Token(usize::MAX - 1);
const END: Token = Token(usize::MAX - 2);
/// Connections have two tokens each, from here on.
const FIRST_CONNECTION: usize = 1 << 16;

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// There is nothing between which to stand.
    #[error(
        "the scenario has no paths; add for each direction [[path]] with from = \"…\", to = \"…\" and \
         listen = \"127.0.0.1:7411\""
    )]
    NoPaths,
    /// A path leads to or from a node whose address nobody said.
    #[error(
        "nobody said where the node {name} is; add address = \"127.0.0.1:7401\" to its [[node]], or \
         --node {name}=127.0.0.1:7401"
    )]
    NoAddress {
        /// The node.
        name: String,
    },
    /// The relay does not know where to listen.
    #[error(
        "nobody said where {from} finds {to}; add listen = \"127.0.0.1:7411\" to the [[path]], or \
         --listen {from}:{to}=127.0.0.1:7411"
    )]
    NoListen {
        /// Who sends.
        from: String,
        /// For whom.
        to: String,
    },
    /// A datagram could not leave.
    #[error(
        "there is a path from {from} to {to} and none back; add [[path]] with from = \"{to}\", to = \
         \"{from}\": what {from} sends leaves from where {to} sends its own"
    )]
    NoWayBack {
        /// Who sends.
        from: String,
        /// For whom.
        to: String,
    },
    /// An address is not to be had.
    #[error("cannot listen on {address}: {error}; give a free address of this host")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
    /// The system refused something else.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> RelayError {
    move |error| RelayError::System { action, error }
}

/// A relay that is bound to its addresses.
pub struct Relay {
    scenario: Scenario,
    network: Network,
    poll: Poll,
    events: Events,
    timer: Timer,
    ports: Vec<Port>,
    gates: Vec<Gate>,
    connections: Vec<Option<Connection>>,
    children: Option<Children>,
    ends: bool,
    started_at: Nanos,
    not_ours: u64,
    ended_by_themselves: Vec<String>,
    buffer: Vec<u8>,
}

impl Relay {
    /// Binds every path of the scenario. Nothing is carried, and no fault begins, before
    /// [`Relay::run`].
    ///
    /// # Errors
    /// What the scenario lacks, and addresses that are taken.
    pub fn bind(scenario: Scenario) -> Result<Self, RelayError> {
        if scenario.paths.is_empty() {
            return Err(RelayError::NoPaths);
        }
        let poll = Poll::new().map_err(failed("make a poll"))?;
        let timer = Timer::new().map_err(failed("make a timer"))?;
        let mut source = SourceFd(&timer.raw());
        let registry = poll.registry();
        registry
            .register(&mut source, TIMER, Interest::READABLE)
            .map_err(failed("watch the timer"))?;
        let (mut ports, mut gates) = (Vec::<Port>::new(), Vec::new());
        for path in &scenario.paths {
            let Path { from, to, transport, .. } = *path;
            let listen = path.listen.ok_or_else(|| RelayError::NoListen {
                from: scenario.name(from).to_owned(),
                to: scenario.name(to).to_owned(),
            })?;
            let unheard = |error| RelayError::Listen { address: listen, error };
            let token = Token(ports.len() + gates.len());
            match transport {
                Transport::Udp => {
                    let mut port =
                        Port::bind(from, to, listen, address(&scenario, from)?).map_err(unheard)?;
                    registry
                        .register(&mut port.socket, token, Interest::READABLE)
                        .map_err(failed("watch a socket"))?;
                    ports.push(port);
                }
                Transport::Tcp => {
                    let mut gate =
                        Gate::bind(from, to, listen, address(&scenario, to)?).map_err(unheard)?;
                    registry
                        .register(&mut gate.listener, token, Interest::READABLE)
                        .map_err(failed("watch a socket"))?;
                    gates.push(gate);
                }
            }
        }
        for port in &ports {
            if !ports.iter().any(|back| back.from == port.to && back.to == port.from) {
                return Err(RelayError::NoWayBack {
                    from: scenario.name(port.from).to_owned(),
                    to: scenario.name(port.to).to_owned(),
                });
            }
        }
        Ok(Self {
            network: Network::new(&scenario, Nanos::ZERO),
            scenario,
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            ports,
            gates,
            connections: Vec::new(),
            children: None,
            ends: false,
            started_at: Nanos::ZERO,
            not_ours: 0,
            ended_by_themselves: Vec::new(),
            buffer: vec![0; DATAGRAM_MAX],
        })
    }

    /// Where each path listens: what its sender is told of its receiver.
    pub fn listens(&self) -> impl Iterator<Item = (&str, &str, SocketAddr)> {
        let ports = self.ports.iter().map(|port| (port.from, port.to, port.address));
        let gates = self.gates.iter().map(|gate| (gate.from, gate.to, gate.address));
        ports
            .chain(gates)
            .map(|(from, to, address)| (self.scenario.name(from), self.scenario.name(to), address))
    }

    /// Ends the run when `descriptor` can be read, or ends itself.
    ///
    /// # Errors
    /// The system's answer for a descriptor that cannot be waited for, such as a file.
    pub fn end_on(&self, descriptor: RawFd) -> Result<(), RelayError> {
        self.poll
            .registry()
            .register(&mut SourceFd(&descriptor), END, Interest::READABLE)
            .map_err(failed("wait for the end of the run"))
    }

    /// Starts the scenario's nodes, carries what comes and does what goes wrong, until the scenario's
    /// time is over or its end was asked for.
    ///
    /// # Errors
    /// When a node cannot be started, or the poll fails.
    pub fn run(&mut self) -> Result<RelayReport, RelayError> {
        self.started_at = clock::now();
        self.network = Network::new(&self.scenario, self.started_at);
        self.children = Some(Children::start(&self.scenario).map_err(failed("run the scenario"))?);
        let end = self.scenario.duration.map(|duration| self.started_at + duration);
        let mut look_at = self.started_at;
        while !self.ends && end.is_none_or(|end| clock::now() < end) {
            let now = clock::now();
            let busy = self.turn(now)?;
            if now >= look_at {
                let children = self.children.iter_mut();
                self.ended_by_themselves.extend(children.flat_map(Children::gone));
                look_at = now + LOOK;
            }
            let connections = self.connections.iter().flatten();
            let deadline = connections
                .filter_map(Connection::next_deadline)
                .chain(self.network.next_deadline())
                .chain(end)
                .chain(Some(look_at))
                .min();
            self.sleep(if busy { None } else { Some(deadline) })?;
        }
        // Nodes end before the report is made, while nobody needs the relay any more.
        self.children = None;
        Ok(self.report())
    }

    /// One turn: faults, then what came, then what is due. Whether there is more to do at once.
    fn turn(&mut self, now: Nanos) -> Result<bool, RelayError> {
        while let Some(turn) = self.network.advance(now) {
            self.apply(turn)?;
        }
        let mut busy = false;
        for port in self.ports.iter_mut().filter(|port| port.ready) {
            port.receive(now, &mut self.network, &mut self.buffer);
            busy |= port.ready;
        }
        let mut sent = 0;
        while sent < SENT_PER_TURN
            && let Some((from, to, datagram)) = self.network.poll(now)
        {
            let back = self.ports.iter_mut().find(|port| port.from == to && port.to == from);
            if let Some(back) = back {
                back.send(&datagram.bytes);
            }
            sent += 1;
        }
        busy |= sent == SENT_PER_TURN;
        self.accept()?;
        for slot in &mut self.connections {
            let Some(connection) = slot else { continue };
            let gate = &mut self.gates[connection.gate];
            match connection.turn(now, gate, &self.network) {
                Life::Busy => busy = true,
                Life::Quiet => {}
                Life::Over => *slot = None,
                Life::Failed => {
                    gate.counts.failed += 1;
                    slot.take().into_iter().for_each(Connection::reset);
                }
            }
        }
        Ok(busy)
    }

    fn apply(&mut self, turn: Turn) -> Result<(), RelayError> {
        let begins = matches!(turn, Turn::Begins(..));
        if let FaultKind::Reset { from, to } = turn.kind() {
            for slot in &mut self.connections {
                let Some(connection) = slot else { continue };
                let gate = &mut self.gates[connection.gate];
                if gate.is_meant(from, to) {
                    gate.counts.reset += 1;
                    slot.take().into_iter().for_each(Connection::reset);
                }
            }
        }
        if let Some(children) = &mut self.children {
            let done = children.apply(turn.kind(), begins).map_err(failed("restart a node"))?;
            self.not_ours += u64::from(begins && !done);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), RelayError> {
        for (place, gate) in self.gates.iter_mut().enumerate() {
            while gate.ready {
                let Some(mut connection) = gate.accept(place, &self.network) else { continue };
                let free = self.connections.iter().position(Option::is_none);
                let n = free.unwrap_or(self.connections.len());
                if n >= CONNECTIONS_MAX {
                    gate.counts.failed += 1;
                    connection.reset();
                    continue;
                }
                let token = |side| Token(FIRST_CONNECTION + n * 2 + side);
                connection
                    .register(self.poll.registry(), [token(0), token(1)])
                    .map_err(failed("watch a connection"))?;
                match self.connections.get_mut(n) {
                    Some(slot) => *slot = Some(connection),
                    None => self.connections.push(Some(connection)),
                }
            }
        }
        Ok(())
    }

    /// Waits for an event or the deadline; `None` only asks for events.
    fn sleep(&mut self, until: Option<Option<Nanos>>) -> Result<(), RelayError> {
        let timeout = match until {
            None => Some(Duration::ZERO),
            Some(deadline) => {
                self.timer.arm(deadline);
                None
            }
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(failed("wait for traffic")(error));
            }
            // An interruption is a wake-up like any other.
            _ => {}
        }
        for event in &self.events {
            match event.token() {
                TIMER => {}
                END => self.ends = true,
                Token(n) if n >= FIRST_CONNECTION => {
                    let n = n - FIRST_CONNECTION;
                    if let Some(Some(connection)) = self.connections.get_mut(n / 2) {
                        connection.wake(n % 2 == 1);
                    }
                }
                Token(n) => {
                    // Sockets and gates share the numbers, in the order of the scenario's paths.
                    let Some(path) = self.scenario.paths.get(n) else { continue };
                    let (from, to) = (path.from, path.to);
                    let ports = self.ports.iter_mut().filter(|p| p.from == from && p.to == to);
                    ports.for_each(|port| port.ready = true);
                    let gates = self.gates.iter_mut().filter(|g| g.from == from && g.to == to);
                    gates.for_each(|gate| gate.ready = true);
                }
            }
        }
        Ok(())
    }

    fn report(&self) -> RelayReport {
        let link = |path: &Path| {
            let (from, to) = (path.from, path.to);
            let port = self.ports.iter().find(|port| port.from == from && port.to == to);
            let gate = self.gates.iter().find(|gate| gate.from == from && gate.to == to);
            let listen = port.map(|port| port.address).or(gate.map(|gate| gate.address));
            Some(LinkReport {
                from: self.scenario.name(from).to_owned(),
                to: self.scenario.name(to).to_owned(),
                transport: path.transport,
                listen: listen?,
                datagrams: self.network.counts(from, to),
                port: port.map_or_else(PortCounts::default, |port| port.counts),
                connections: gate.map_or_else(GateCounts::default, |gate| gate.counts),
            })
        };
        RelayReport {
            version: 1,
            report: "relay".to_owned(),
            seed: self.scenario.seed,
            seconds: (clock::now() - self.started_at).as_secs_f64(),
            links: self.scenario.paths.iter().filter_map(link).collect(),
            faults: self.network.applied(),
            not_ours: self.not_ours,
            ended_by_themselves: self.ended_by_themselves.clone(),
        }
    }
}

fn address(scenario: &Scenario, node: NodeIndex) -> Result<SocketAddr, RelayError> {
    let known = scenario.nodes.get(node.get()).and_then(|node| node.address);
    known.ok_or_else(|| RelayError::NoAddress { name: scenario.name(node).to_owned() })
}
