//! UDP: one socket for everybody, and one connected socket for each enrolled peer.
//!
//! The kernel gives a datagram to the most specific socket, so a peer's frames have a receive
//! buffer of their own: a flood from any other address cannot push them out.

use super::buffer::{FramePool, FrameSlot};
use super::mmsg::{self, ReceiveBatch};
use super::park::{Readiness, SocketPark};
use super::segments::{self, Coalesced};
use super::{BATCH, BURST, BURST_OF_OLD, Endpoint, Receive, Received, Transmit, TransportError};
use crate::security::PeerIndex;
use sinew_rt::clock::Nanos;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// Receive buffer asked for on each socket; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A spinning lane reads the strangers' socket on every eighth poll only: nothing that comes there
/// is urgent, and an empty read costs a system call.
const STRANGERS_EVERY: u32 = 8;

/// Frames of strangers that one poll takes at most: they may cost 100 checks a second in all.
pub(crate) const STRANGERS_BATCH: usize = 8;

/// Of a poll's frames, those that only the strangers' socket may give, so that peers that flood
/// do not shut it out.
const FOR_STRANGERS: usize = 1;

/// Frames of peers that one poll takes at most.
pub(crate) const PEERS_BATCH: usize = BATCH - FOR_STRANGERS;

/// Whether frames of a peer that arrive together are taken in one system call. Costs 64 KiB a peer and
/// some 0.1 µs for a frame that comes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coalescing {
    Off,
    On,
}

/// Binds `address` and connects one more socket on the same port to each peer.
pub(crate) fn bind(
    address: SocketAddr,
    peers: &[SocketAddr],
    coalescing: Coalescing,
) -> Result<Endpoint, TransportError> {
    let failed = |action| move |error| TransportError::System { address, action, error };
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        Ok(socket)
    };
    let strangers = open().map_err(failed("open a UDP socket"))?;
    // Bound before SO_REUSEADDR is set: a port that another program holds is an error, while our
    // own connected sockets may share it afterwards.
    strangers.bind(&address.into()).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => TransportError::InUse { address },
        _ => TransportError::System { address, action: "bind", error },
    })?;
    strangers.set_reuse_address(true).map_err(failed("share the port"))?;
    let local = strangers.local_addr().map_err(failed("read back the address"))?;
    let local = local.as_socket().unwrap_or(address);

    let mut sockets = Vec::with_capacity(peers.len());
    for peer in peers {
        let connect = || -> io::Result<Socket> {
            let socket = open()?;
            socket.set_reuse_address(true)?;
            socket.bind(&local.into())?;
            socket.connect(&(*peer).into())?;
            // Between bind and connect anybody's frames came here; none of them may pass as the
            // peer's.
            let mut byte = [std::mem::MaybeUninit::uninit()];
            while socket.recv(&mut byte).is_ok() {}
            Ok(socket)
        };
        let socket = connect().map_err(|error| TransportError::System {
            address: *peer,
            action: "connect to the peer",
            error,
        })?;
        sockets.push(socket);
    }

    // From here on nobody else may share the port, or a program that connects a socket to the same
    // peer would take its frames away.
    for socket in sockets.iter().chain([&strangers]) {
        socket.set_reuse_address(false).map_err(failed("keep the port"))?;
    }

    let sockets: Arc<[Socket]> = sockets.into();
    let mut receiver = UdpReceiver::new(strangers, sockets.clone(), peers);
    if coalescing == Coalescing::On {
        for (source, socket) in receiver.sources[1..].iter_mut().zip(sockets.iter()) {
            // Without it each frame is a call of its own, which is all that changes.
            source.coalesced = segments::coalesce(socket.as_fd()).then(Coalesced::new);
        }
    }
    let transmitter = || {
        let together = vec![BURST; sockets.len()].into();
        Box::new(UdpTransmitter { peers: sockets.clone(), together })
    };
    Ok(Endpoint {
        local,
        receiver: Box::new(receiver),
        lane_transmitter: transmitter(),
        housekeeping_transmitter: transmitter(),
    })
}

/// One socket as the receiver sees it.
struct Source {
    /// The peer, for a connected socket.
    connected: Option<SocketAddr>,
    readiness: Readiness,
    batch: ReceiveBatch,
    /// Takes the place of `batch` for a peer whose frames come together.
    coalesced: Option<Coalesced>,
    /// How many datagrams to ask for: one while traffic is paced, which is the cheapest call, and
    /// up to a whole batch while calls come back full.
    want: usize,
}

struct UdpReceiver {
    /// The strangers' socket first, then one for each peer, as in `peers`.
    sources: Vec<Source>,
    strangers: Socket,
    peers: Arc<[Socket]>,
    parks: bool,
    polls: u32,
}

impl UdpReceiver {
    fn new(strangers: Socket, sockets: Arc<[Socket]>, peers: &[SocketAddr]) -> Self {
        let source = |connected| Source {
            connected,
            readiness: Readiness::always(),
            batch: ReceiveBatch::new(),
            coalesced: None,
            want: 1,
        };
        Self {
            sources: std::iter::once(None)
                .chain(peers.iter().copied().map(Some))
                .map(source)
                .collect(),
            strangers,
            peers: sockets,
            parks: false,
            polls: 0,
        }
    }
}

impl Receive for UdpReceiver {
    fn receive(
        &mut self,
        pool: &FramePool,
        now: Nanos,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> Received {
        self.polls = self.polls.wrapping_add(1);
        let skip_strangers = !self.parks && !self.polls.is_multiple_of(STRANGERS_EVERY);
        let mut accept = |mut slot: FrameSlot| {
            slot.received_at = now;
            accept(slot);
        };
        let mut result = Received::default();
        // Peers before strangers: what waits in a peer's buffer is the more urgent. Each poll
        // begins with the next peer, so that none is starved when the others use up the batch.
        let peers = self.peers.len();
        let first = self.polls as usize;
        let turns = (0..peers).map(|turn| (first.wrapping_add(turn)) % peers + 1);
        for n in turns.chain((!skip_strangers).then_some(0)) {
            let source = &mut self.sources[n];
            if !source.readiness.get() {
                continue;
            }
            let kept_back = if n == 0 { 0 } else { FOR_STRANGERS };
            let most = if n == 0 { STRANGERS_BATCH } else { BATCH };
            let want = source.want.min(most).min(BATCH - kept_back - result.frames);
            if want == 0 {
                result.more = true;
                continue;
            }
            let socket = if n == 0 { &self.strangers } else { &self.peers[n - 1] };
            let received = match (&mut source.coalesced, source.connected) {
                (Some(coalesced), Some(peer)) => {
                    let want = BATCH - kept_back - result.frames;
                    let fd = socket.as_fd();
                    let count = coalesced.receive(fd, peer, want, pool, &mut accept, starved);
                    let more = coalesced.is_waiting();
                    count.map(|count| (count, more || self.parks))
                }
                (_, connected) => {
                    let fd = socket.as_fd();
                    let batch = &mut source.batch;
                    let count = batch.receive(fd, connected, want, pool, &mut accept, starved);
                    count.map(|count| (count, count == want))
                }
            };
            match received {
                Ok((count, full)) => {
                    result.frames += count;
                    source.want = if count == want { (source.want * 2).min(BATCH) } else { 1 };
                    result.more |= full;
                    source.readiness.set(full || !self.parks);
                }
                Err(error) => {
                    source.want = 1;
                    let again = is_old_answer(error.kind());
                    result.more |= again;
                    result.unreachable += u64::from(again);
                    result.errors += u64::from(!again && error.kind() != ErrorKind::WouldBlock);
                    source.readiness.set(again || !self.parks);
                }
            }
        }
        result
    }

    fn attach(&mut self, park: &mut SocketPark) -> io::Result<()> {
        self.parks = true;
        self.sources[0].readiness = park.watch(self.strangers.as_raw_fd())?;
        for (source, socket) in self.sources[1..].iter_mut().zip(self.peers.iter()) {
            source.readiness = park.watch(socket.as_raw_fd())?;
        }
        Ok(())
    }
}

/// Whether an error is an ICMP answer to something that we sent earlier (a peer that is not up yet),
/// which the call that reported it has cleared. Any other one would come again at once.
fn is_old_answer(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
    )
}

/// Whether an error means that this kernel, route or device does not take several frames at once.
fn cannot_segment(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

struct UdpTransmitter {
    peers: Arc<[Socket]>,
    /// For each peer, whose route may be another one: how many frames leave as one buffer, which the kernel or
    /// the network card cuts (`UDP_SEGMENT`).
    together: Box<[usize]>,
}

impl Transmit for UdpTransmitter {
    fn send(&mut self, peer: PeerIndex, frames: &[&[u8]]) -> usize {
        let (Some(socket), Some(most)) =
            (self.peers.get(peer.get()), self.together.get_mut(peer.get()))
        else {
            return 0;
        };
        let mut sent = 0;
        let mut refused = false;
        while sent < frames.len() {
            let together = segments::of_one_length(&frames[sent..], *most);
            if together > 1 {
                match segments::send(socket.as_fd(), &frames[sent..sent + together]) {
                    Ok(()) => {
                        sent += together;
                        continue;
                    }
                    // What a kernel, route or device says that cannot do it (udp(7)).
                    Err(error) if cannot_segment(&error) => {
                        *most = if together > BURST_OF_OLD { BURST_OF_OLD } else { 1 };
                        continue;
                    }
                    // The rest is reported, or mended, by the plain call.
                    Err(_) => {}
                }
            }
            match mmsg::send(socket.as_fd(), &frames[sent..]) {
                Ok(count) => sent += count,
                // The answer to an earlier datagram (ICMP port unreachable) is reported by the
                // next call, which then sends nothing: ask once more.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && !refused => {
                    refused = true;
                }
                Err(_) => break,
            }
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::buffer::FrameBuffer;
    use std::net::UdpSocket;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Polls until `wanted` frames came (loopback delivers before `send` returns, so a bounded
    /// number of polls is enough).
    fn receive(endpoint: &mut Endpoint, pool: &FramePool, wanted: usize) -> Vec<FrameSlot> {
        let mut frames = Vec::new();
        for _ in 0..10_000 {
            let mut starved = 0;
            let mut accept = |slot| frames.push(slot);
            endpoint.receiver.receive(pool, Nanos::new(7), &mut accept, &mut starved);
            if frames.len() >= wanted {
                break;
            }
        }
        frames
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let first = bind(loopback(), &[], Coalescing::Off).unwrap();
        let error = bind(first.local, &[], Coalescing::Off).err().unwrap();
        assert!(matches!(error, TransportError::InUse { address } if address == first.local));
        assert!(error.to_string().contains(&first.local.to_string()));
    }

    #[test]
    fn frames_from_a_peer_and_from_a_stranger_arrive_with_their_source() {
        let peer = UdpSocket::bind(loopback()).unwrap();
        let stranger = UdpSocket::bind(loopback()).unwrap();
        let mut endpoint =
            bind(loopback(), &[peer.local_addr().unwrap()], Coalescing::Off).unwrap();
        let pool = FramePool::new(64, FrameBuffer::new);
        peer.send_to(b"from the peer", endpoint.local).unwrap();
        stranger.send_to(b"from a stranger", endpoint.local).unwrap();
        let frames = receive(&mut endpoint, &pool, 2);
        let seen: Vec<_> = frames.iter().map(|f| (f.source, f.frame().to_vec())).collect();
        assert!(seen.contains(&(peer.local_addr().unwrap(), b"from the peer".to_vec())));
        assert!(seen.contains(&(stranger.local_addr().unwrap(), b"from a stranger".to_vec())));
    }

    #[test]
    fn a_full_batch_is_sent_and_received_in_order() {
        let peer = UdpSocket::bind(loopback()).unwrap();
        let mut endpoint =
            bind(loopback(), &[peer.local_addr().unwrap()], Coalescing::Off).unwrap();
        let frames: Vec<Vec<u8>> = (0..BATCH as u8).map(|n| vec![n; 100]).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        assert_eq!(endpoint.lane_transmitter.send(PeerIndex::new(0), &frames), BATCH);
        let mut bytes = [0; 200];
        for n in 0..BATCH as u8 {
            assert_eq!(peer.recv(&mut bytes).unwrap(), 100);
            assert_eq!(bytes[0], n);
            peer.send_to(&bytes[..100], endpoint.local).unwrap();
        }
        let pool = FramePool::new(64, FrameBuffer::new);
        let back = receive(&mut endpoint, &pool, BATCH);
        assert!(back.iter().map(|slot| slot.bytes[0]).eq(0..BATCH as u8));
    }

    #[test]
    fn where_frames_cannot_leave_together_they_leave_one_by_one_and_to_others_as_before() {
        let receivers = [(); 2].map(|()| UdpSocket::bind(loopback()).unwrap());
        let senders = [(); 2].map(|()| UdpSocket::bind(loopback()).unwrap());
        for (from, to) in senders.iter().zip(&receivers) {
            from.connect(to.local_addr().unwrap()).unwrap();
        }
        let on: libc::c_int = 1;
        // The kernel does not cut buffers for a socket without checksums (udp_send_skb in net/ipv4/udp.c).
        // SAFETY: the option's value is a live int of the length that is given.
        let code = unsafe {
            let len = size_of::<libc::c_int>() as libc::socklen_t;
            let socket = senders[0].as_raw_fd();
            libc::setsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const on).cast(),
                len,
            )
        };
        assert_eq!(code, 0);
        let peers = senders.into_iter().map(Socket::from).collect();
        let mut transmitter = UdpTransmitter { peers, together: [BURST; 2].into() };
        let frames: Vec<[u8; 90]> = (0..100).map(|n| [n; 90]).collect();
        let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
        for (peer, receiver) in receivers.iter().enumerate() {
            assert_eq!(transmitter.send(PeerIndex::new(peer as u16), &frames), 100);
            let mut bytes = [0; 200];
            for frame in &frames {
                let len = receiver.recv(&mut bytes).unwrap();
                assert_eq!(&bytes[..len], *frame);
            }
        }
        assert_eq!(*transmitter.together, [1, BURST]);
    }

    #[test]
    fn nobody_can_share_the_port_of_a_node() {
        let peer = UdpSocket::bind(loopback()).unwrap();
        let peers = [peer.local_addr().unwrap()];
        let endpoint = bind(loopback(), &peers, Coalescing::Off).unwrap();
        let thief = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        thief.set_reuse_address(true).unwrap();
        let error = thief.bind(&endpoint.local.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let error = bind(endpoint.local, &peers, Coalescing::Off).err().unwrap();
        assert!(matches!(error, TransportError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_poll_takes_one_batch_over_all_sockets_and_starves_none() {
        const PEERS: usize = 3;
        let senders: Vec<_> = (0..=PEERS).map(|_| UdpSocket::bind(loopback()).unwrap()).collect();
        let addresses: Vec<_> = senders.iter().map(|s| s.local_addr().unwrap()).collect();
        let mut endpoint = bind(loopback(), &addresses[..PEERS], Coalescing::Off).unwrap();
        let pool = FramePool::new((PEERS + 2) * BATCH, FrameBuffer::new);
        let mut taken = [0; PEERS + 1];
        for _ in 0..60 {
            for _ in 0..BATCH {
                for sender in &senders {
                    sender.send_to(b"flood", endpoint.local).unwrap();
                }
            }
            let (mut frames, mut starved) = (0, 0);
            let mut accept = |slot: FrameSlot| {
                frames += 1;
                taken[addresses.iter().position(|address| *address == slot.source).unwrap()] += 1;
            };
            let received = endpoint.receiver.receive(&pool, Nanos::ZERO, &mut accept, &mut starved);
            assert_eq!((received.frames, starved), (frames, 0));
            assert!(frames <= BATCH && received.more, "{received:?}");
        }
        let [peers @ .., strangers] = taken;
        assert!(peers.iter().all(|count| *count > 300), "{taken:?}");
        assert!(strangers > 0, "{taken:?}");
    }

    #[test]
    fn a_socket_that_is_broken_is_counted_and_does_not_keep_the_lane_busy() {
        let pipe = |socket| Socket::from(std::os::fd::OwnedFd::from(socket));
        let (broken, _other_end) = std::io::pipe().unwrap();
        let strangers = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        strangers.bind(&loopback().into()).unwrap();
        let mut receiver = UdpReceiver::new(strangers, [pipe(broken)].into(), &[loopback()]);
        let pool = FramePool::new(4, FrameBuffer::new);
        let mut poll = |parks| {
            receiver.parks = parks;
            receiver.receive(&pool, Nanos::ZERO, &mut |_| (), &mut 0)
        };
        let failed = Received { errors: 1, ..Received::default() };
        assert_eq!((poll(false), poll(true)), (failed, failed));
        assert_eq!(poll(true), Received::default(), "only a new event makes it be read again");
    }

    #[test]
    fn a_peer_that_is_not_up_yet_is_no_error() {
        let gone = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
        let mut endpoint = bind(loopback(), &[gone], Coalescing::Off).unwrap();
        assert_eq!(endpoint.lane_transmitter.send(PeerIndex::new(0), &[b"hello"]), 1);
        let pool = FramePool::new(4, FrameBuffer::new);
        let mut poll = || endpoint.receiver.receive(&pool, Nanos::ZERO, &mut |_| (), &mut 0);
        assert_eq!(poll(), Received { more: true, unreachable: 1, ..Received::default() });
        assert_eq!(poll(), Received::default());
    }

    #[test]
    fn a_datagram_longer_than_a_frame_keeps_its_true_length() {
        let peer = UdpSocket::bind(loopback()).unwrap();
        let mut endpoint = bind(loopback(), &[], Coalescing::Off).unwrap();
        let pool = FramePool::new(4, FrameBuffer::new);
        peer.send_to(&[1; 4_000], endpoint.local).unwrap();
        let frames = receive(&mut endpoint, &pool, 1);
        assert_eq!(frames[0].len, 4_000);
        assert_eq!(frames[0].frame().len(), crate::wire::FRAME_MAX);
    }

    #[test]
    fn an_empty_pool_drains_the_socket_and_counts() {
        let peer = UdpSocket::bind(loopback()).unwrap();
        let mut endpoint = bind(loopback(), &[], Coalescing::Off).unwrap();
        let pool = FramePool::new(1, FrameBuffer::new);
        let kept = pool.take();
        for _ in 0..3 {
            peer.send_to(b"lost", endpoint.local).unwrap();
        }
        let mut starved = 0;
        for _ in 0..10_000 {
            let mut accept = |_| panic!("there was no slot");
            endpoint.receiver.receive(&pool, Nanos::ZERO, &mut accept, &mut starved);
            if starved == 3 {
                break;
            }
        }
        assert_eq!(starved, 3);
        drop(kept);
        peer.send_to(b"kept", endpoint.local).unwrap();
        assert_eq!(receive(&mut endpoint, &pool, 1).len(), 1);
    }
}
