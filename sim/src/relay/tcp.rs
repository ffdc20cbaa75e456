//! The relay's TCP connections: bytes that are late, slow, stalled or cut, and never lost in between.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use sinew_rt::clock::Nanos;
use socket2::SockRef;

use crate::random::split_mix;
use crate::scenario::network::Network;
use crate::scenario::stream::Stream;
use crate::scenario::{NodeIndex, Who};

/// Connections at once; what comes beyond is reset.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Bytes that one turn moves from one socket.
const PIECE: usize = 16 * 1024;

/// Where one node opens connections that it means for another.
pub(super) struct Gate {
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
    pub(super) address: SocketAddr,
    target: SocketAddr,
    pub(super) listener: TcpListener,
    pub(super) ready: bool,
    pub(super) counts: GateCounts,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCounts {
    /// Accepted and opened to the other side.
    pub opened: u64,
    /// Reset by a fault.
    pub reset: u64,
    /// Ended by an error of either side, or for want of room.
    pub failed: u64,
    /// Bytes handed on from who opened.
    pub bytes_out: u64,
    /// Bytes handed on to who opened.
    pub bytes_back: u64,
}

/// One connection: two sockets and two directions.
pub(super) struct Connection {
    /// The place of the gate that accepted it.
    pub(super) gate: usize,
    near: End,
    far: End,
    out: Stream,
    back: Stream,
}

struct End {
    socket: TcpStream,
    readable: bool,
    writable: bool,
    /// It sends no more.
    ended: bool,
    /// It has been told that nothing more comes.
    told: bool,
}

impl Gate {
    pub(super) fn bind(
        from: NodeIndex,
        to: NodeIndex,
        address: SocketAddr,
        target: SocketAddr,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let counts = GateCounts::default();
        Ok(Self { from, to, address, target, listener, ready: true, counts })
    }

    /// Takes one connection that waits, if there is one, and opens its other half.
    pub(super) fn accept(&mut self, place: usize, network: &Network) -> Option<Connection> {
        let near = match self.listener.accept() {
            Ok((near, _)) => near,
            Err(error) => {
                self.ready = error.kind() != ErrorKind::WouldBlock;
                return None;
            }
        };
        let Ok(far) = TcpStream::connect(self.target) else {
            self.counts.failed += 1;
            reset(&near);
            return None;
        };
        self.counts.opened += 1;
        let stream = |from, to| {
            let seed = split_mix(network.seed(from, to) ^ self.counts.opened);
            Stream::new(seed, network.condition(from, to).0)
        };
        Some(Connection {
            gate: place,
            near: End::new(near),
            far: End::new(far),
            out: stream(self.from, self.to),
            back: stream(self.to, self.from),
        })
    }

    /// Whether a fault between `from` and `to` means this gate.
    pub(super) fn is_meant(&self, from: Who, to: Who) -> bool {
        from.is(self.from) && to.is(self.to)
    }
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It does, and something moved.
    Busy,
    /// It does, and waits.
    Quiet,
    /// Both sides have said all.
    Over,
    /// A side failed.
    Failed,
}

impl Connection {
    pub(super) fn register(&mut self, registry: &Registry, tokens: [Token; 2]) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.near.socket, tokens[0], both)?;
        registry.register(&mut self.far.socket, tokens[1], both)
    }

    /// Takes note that a side may be read or written again.
    pub(super) fn wake(&mut self, far: bool) {
        let end = if far { &mut self.far } else { &mut self.near };
        end.readable = true;
        end.writable = true;
    }

    /// Moves what can be moved, up to a piece for each side and direction.
    pub(super) fn turn(&mut self, now: Nanos, gate: &mut Gate, network: &Network) -> Life {
        for (stream, from, to) in
            [(&mut self.out, gate.from, gate.to), (&mut self.back, gate.to, gate.from)]
        {
            let (shape, cuts) = network.condition(from, to);
            stream.set_shape(shape);
            stream.stall(cuts > 0);
        }
        let moved = (|| {
            let mut moved = self.near.read(now, &mut self.out)?;
            moved += self.far.read(now, &mut self.back)?;
            let out = self.far.write(now, &mut self.out, self.near.ended)?;
            let back = self.near.write(now, &mut self.back, self.far.ended)?;
            gate.counts.bytes_out += out;
            gate.counts.bytes_back += back;
            Ok::<u64, io::Error>(moved + out + back)
        })();
        match moved {
            Err(_) => Life::Failed,
            Ok(_) if self.near.told && self.far.told => Life::Over,
            Ok(0) => Life::Quiet,
            Ok(_) => Life::Busy,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        // A side that takes nothing wakes the relay by itself when it does again.
        let out = self.out.next_deadline().filter(|_| self.far.writable);
        let back = self.back.next_deadline().filter(|_| self.near.writable);
        out.into_iter().chain(back).min()
    }

    /// Cuts both halves, so that both sides see a reset.
    pub(super) fn reset(self) {
        reset(&self.near.socket);
        reset(&self.far.socket);
    }
}

/// Makes the close that follows a reset.
fn reset(socket: &TcpStream) {
    // Without it the close is an ordinary one, which ends the connection as well.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

impl End {
    fn new(socket: TcpStream) -> Self {
        // Small pieces go out at once: the delay is the scenario's business.
        let _ = socket.set_nodelay(true);
        Self { socket, readable: true, writable: true, ended: false, told: false }
    }

    fn read(&mut self, now: Nanos, stream: &mut Stream) -> io::Result<u64> {
        let room = stream.room().min(PIECE);
        if !self.readable || self.ended || room == 0 {
            return Ok(0);
        }
        let mut buffer = [0; PIECE];
        match self.socket.read(&mut buffer[..room]) {
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(len) => Ok(stream.offer(now, &buffer[..len]) as u64),
            Err(error) if is_later(&error) => {
                self.readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, now: Nanos, stream: &mut Stream, no_more: bool) -> io::Result<u64> {
        let mut moved = 0;
        while self.writable
            && moved < PIECE as u64
            && let Some(bytes) = stream.due(now)
        {
            match self.socket.write(bytes) {
                Ok(len) => {
                    stream.take(len);
                    moved += len as u64;
                }
                Err(error) if is_later(&error) => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        if no_more && stream.is_empty() && !self.told {
            self.told = true;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(moved)
    }
}

/// Not an end: the socket is full or empty, or still being connected.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
