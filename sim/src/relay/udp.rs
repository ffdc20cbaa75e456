//! The relay's UDP sockets: one for each direction.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::UdpSocket;
use sinew_rt::clock::Nanos;
use socket2::{Domain, Protocol, Socket, Type};

use crate::scenario::NodeIndex;
use crate::scenario::network::Network;

/// Datagrams that one turn takes from one socket.
const BATCH: usize = 64;

/// The longest datagram that there is.
pub(super) const DATAGRAM_MAX: usize = 65_535;

/// Asked for on each socket, so that a stall of the relay itself loses nothing; the kernel caps it.
const BUFFER_BYTES: usize = 4 << 20;

/// Where one node sends what it means for another.
pub(super) struct Port {
    pub(super) from: NodeIndex,
    pub(super) to: NodeIndex,
    pub(super) address: SocketAddr,
    /// Where `from` is: nobody else is listened to.
    source: SocketAddr,
    pub(super) socket: UdpSocket,
    pub(super) ready: bool,
    pub(super) counts: PortCounts,
}

/// What a socket saw beside what the link's model counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortCounts {
    /// Datagrams from somewhere else than the node.
    pub strangers: u64,
    /// Datagrams that the kernel did not take, because its buffer was full or nobody is there.
    pub not_sent: u64,
}

impl Port {
    pub(super) fn bind(
        from: NodeIndex,
        to: NodeIndex,
        address: SocketAddr,
        source: SocketAddr,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        socket.set_send_buffer_size(BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into());
        let address = socket.local_addr()?;
        Ok(Self { from, to, address, source, socket, ready: true, counts: PortCounts::default() })
    }

    /// Takes what came, up to a batch, and offers it to the link.
    pub(super) fn receive(&mut self, now: Nanos, network: &mut Network, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.socket.recv_from(buffer) {
                Ok((len, source)) if source == self.source => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    network.offer(now, self.from, self.to, bytes);
                }
                Ok(_) => self.counts.strangers += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready = false;
                    return;
                }
                // An answer to what was sent earlier: the node is not there just now.
                Err(_) => {}
            }
        }
    }

    /// Sends to the node whose face this port is not: to `from`, which takes it as coming from `to`.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let mut sent = self.socket.send_to(bytes, self.source);
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            // That was the answer to an earlier one; this one has not been sent yet.
            sent = self.socket.send_to(bytes, self.source);
        }
        if sent.is_err() {
            self.counts.not_sent += 1;
        }
    }
}
