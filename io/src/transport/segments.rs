//! Many datagrams in one system call: UDP segmentation offload (`UDP_SEGMENT`) on the way out, and its
//! reverse (`UDP_GRO`) on the way in, as udp(7) describes them.
//!
//! A batch of frames of one length leaves as one buffer, which the kernel or the network card cuts; frames
//! of one flow that arrive together come as one buffer with the length of its pieces. What travels are the
//! same datagrams, so either end may do without.

use super::BURST;
use super::buffer::{FramePool, FrameSlot};
use sinew_rt::lane::own_call;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The longest buffer that the kernel puts together: what an IP packet can say of its length.
const BUFFER_BYTES: usize = 1 << 16;

/// The most bytes that leave as one buffer: what an IPv4 packet carries beyond its header and UDP's (IPv6 carries
/// 20 more).
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Room for one control message of an int, aligned as the kernel's macros demand.
#[repr(C, align(8))]
struct Control([u8; 64]);

// SAFETY: CMSG_SPACE is arithmetic on its argument.
const _: () = assert!(unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize <= 64);

/// Asks the kernel to hand over datagrams of one flow together. Kernels before 5.0 do not know it.
pub(crate) fn coalesce(socket: BorrowedFd<'_>) -> bool {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a live int of the length that is given.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    code == 0
}

/// What one system call brought and `receive` has not yet given out.
pub(crate) struct Coalesced {
    bytes: Box<[u8; BUFFER_BYTES]>,
    /// The part that is still to be given out.
    from: usize,
    to: usize,
    /// The length of each piece but the last, which may be shorter.
    segment: usize,
    /// What the system said when the last call had frames to give all the same.
    failed: Option<io::Error>,
}

impl Coalesced {
    /// Allocates 64 KiB, all of them written.
    pub(crate) fn new() -> Self {
        // Not zero: zeroed memory may be pages that nobody has touched.
        let bytes = vec![1; BUFFER_BYTES].into_boxed_slice();
        let bytes = bytes.try_into().unwrap_or_else(|_| unreachable!("it has that length"));
        Self { bytes, from: 0, to: 0, segment: 0, failed: None }
    }

    /// Whether frames wait here that the socket need not be asked for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.from < self.to
    }

    /// Hands up to `want` datagrams of a connected socket to `accept`, each with its true length; says
    /// how many. Frames for which `pool` has no slot are thrown away and counted as `starved`.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        peer: SocketAddr,
        want: usize,
        pool: &FramePool,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> io::Result<usize> {
        // One system call at most: what waits from the last one is given first, and if that was not all
        // that is wanted, there may be more.
        let mut asked = false;
        for given in 0..want {
            if !self.is_waiting() {
                if asked {
                    return Ok(given);
                }
                asked = true;
                // An empty datagram is a frame that is too short, and is given as one.
                match self.fill(socket) {
                    Ok(()) => {}
                    Err(error) if given == 0 => return Err(error),
                    Err(error) => {
                        let is_told_later = error.kind() != io::ErrorKind::WouldBlock;
                        self.failed = is_told_later.then_some(error);
                        return Ok(given);
                    }
                }
            }
            let rest = self.to - self.from;
            let len = self.segment.min(rest);
            let piece = &self.bytes[self.from..self.from + len];
            self.from += len;
            match pool.take() {
                Some(mut slot) => {
                    slot.take_in(peer, piece, len);
                    accept(slot);
                }
                None => *starved += 1,
            }
        }
        Ok(want)
    }

    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut control = Control([0; 64]);
        let mut vector =
            libc::iovec { iov_base: self.bytes.as_mut_ptr().cast(), iov_len: BUFFER_BYTES };
        // SAFETY: all-zero is a valid value of the C struct.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        // SAFETY: the header points to one vector over our buffer and to the control room, both live
        // and with the lengths given.
        let len = own_call(|| unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT)
        });
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        self.from = 0;
        self.to = (len as usize).min(BUFFER_BYTES);
        self.segment = segment_of(&header).unwrap_or(self.to).max(1);
        Ok(())
    }
}

/// The length of the pieces, if the kernel put several together.
fn segment_of(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the header is as recvmsg(2) left it, so the first control message, if there is one, lies
    // wholly in the control room; its data is an int, which may be unaligned.
    let (level, kind, value) = unsafe {
        let message = libc::CMSG_FIRSTHDR(header).as_ref()?;
        let value = libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned();
        (message.cmsg_level, message.cmsg_type, value)
    };
    let is_ours = (level, kind) == (libc::SOL_UDP, libc::UDP_GRO);
    usize::try_from(value).ok().filter(|segment| is_ours && *segment > 0)
}

/// How many of `frames`, from the first on, can leave as one buffer: those of one length, and one
/// shorter after them.
pub(crate) fn of_one_length(frames: &[&[u8]], most: usize) -> usize {
    let Some(segment) = frames.first().map(|frame| frame.len()).filter(|len| *len > 0) else {
        return 0;
    };
    let most = frames.len().min(most).min(DATAGRAM_BYTES_MAX / segment);
    let same = frames[..most].iter().take_while(|frame| frame.len() == segment).count();
    let shorter = frames[..most].get(same).is_some_and(|frame| (1..segment).contains(&frame.len()));
    same + usize::from(shorter)
}

/// Sends `frames`, as many as [`of_one_length`] says and at least two, in one buffer on a connected
/// socket. Never blocks; an error means that none of them left.
pub(crate) fn send(socket: BorrowedFd<'_>, frames: &[&[u8]]) -> io::Result<()> {
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let segment = u16::try_from(frames[0].len()).unwrap_or(u16::MAX);
    // SAFETY: all-zero is a valid value of both C structs.
    let (mut vectors, mut header): ([libc::iovec; BURST], libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    debug_assert!(frames.len() <= BURST);
    let mut count = 0;
    let mut end = std::ptr::null();
    for frame in frames.iter().take(BURST) {
        let begin = frame.as_ptr();
        // Frames that lie one after the other are one piece.
        if begin == end {
            vectors[count - 1].iov_len += frame.len();
        } else {
            vectors[count] =
                libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: frame.len() };
            count += 1;
        }
        end = begin.wrapping_add(frame.len());
    }
    let mut control = Control([0; 64]);
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = count;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the control room is larger than one message of a u16 (asserted for an int above), so the
    // first header and its data lie in it; each vector covers one or more live slices that lie one right
    // after the other, which the kernel only reads.
    let sent = own_call(|| unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
        libc::sendmsg(socket.as_raw_fd(), &raw const header, FLAGS)
    });
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::buffer::FrameBuffer;
    use crate::wire::FRAME_MAX;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        pair_at("127.0.0.1:0")
    }

    fn pair_at(address: &str) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind(address).unwrap();
        let (from, to) = (bind(), bind());
        from.connect(to.local_addr().unwrap()).unwrap();
        to.connect(from.local_addr().unwrap()).unwrap();
        to.set_nonblocking(true).unwrap();
        (from, to)
    }

    #[test]
    fn frames_of_one_length_and_a_shorter_one_go_together() {
        let frame = |len: usize| vec![0; len];
        let of = |lens: &[usize]| {
            let frames: Vec<_> = lens.iter().map(|len| frame(*len)).collect();
            of_one_length(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), BURST)
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[0, 0]), 0);
        assert_eq!(of(&[9]), 1);
        assert_eq!(of(&[9, 9, 9]), 3);
        assert_eq!(of(&[9, 9, 4, 9]), 3);
        assert_eq!(of(&[9, 10, 9]), 1);
        assert_eq!(of(&[9; BURST + 1]), BURST);
        assert_eq!(of_one_length(&[&[9; 9][..]; 9], 4), 4);
        assert!(of(&[FRAME_MAX; BURST]) * FRAME_MAX <= DATAGRAM_BYTES_MAX);
    }

    #[test]
    fn what_left_as_one_buffer_arrives_as_the_same_frames_in_whatever_portions() {
        for (coalesced, want) in [(true, 32), (true, 3), (false, 1)] {
            let (from, to) = pair();
            assert!(!coalesced || coalesce(to.as_fd()), "this kernel does not know UDP_GRO");
            let mut frames: Vec<Vec<u8>> = (0..9).map(|n| vec![n; 300]).collect();
            frames.push(vec![9; 120]);
            let slices: Vec<_> = frames.iter().map(Vec::as_slice).collect();
            assert_eq!(of_one_length(&slices, BURST), 10);
            send(from.as_fd(), &slices).unwrap();
            let pool = FramePool::new(64, FrameBuffer::new);
            let (mut buffer, mut got, mut calls) = (Coalesced::new(), Vec::new(), 0);
            let source = from.local_addr().unwrap();
            while got.len() < 10 {
                let mut accept = |slot: FrameSlot| got.push(slot.frame().to_vec());
                let count =
                    buffer.receive(to.as_fd(), source, want, &pool, &mut accept, &mut 0).unwrap();
                assert!((1..=want).contains(&count));
                calls += 1;
            }
            assert_eq!(got, frames, "coalesced: {coalesced}");
            if coalesced && want == 32 {
                assert_eq!(calls, 1, "they came in one call");
            }
            let mut nothing = |_| panic!("there was nothing");
            let error = buffer.receive(to.as_fd(), source, want, &pool, &mut nothing, &mut 0);
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn frames_that_lie_one_after_the_other_leave_as_they_are_told_apart() {
        let (from, to) = pair();
        assert!(coalesce(to.as_fd()), "this kernel does not know UDP_GRO");
        let memory: Vec<u8> = (0..BURST * 100).map(|n| (n / 100) as u8).collect();
        // Two pieces: the second begins where a ring begins anew.
        let (second, first) = memory.as_chunks::<100>().0.split_at(40);
        let frames: Vec<&[u8]> = first.iter().chain(second).map(|frame| &frame[..]).collect();
        assert_eq!(of_one_length(&frames, BURST), BURST);
        send(from.as_fd(), &frames).unwrap();
        let pool = FramePool::new(BURST, FrameBuffer::new);
        let (mut buffer, mut got) = (Coalesced::new(), Vec::new());
        let mut accept = |slot: FrameSlot| got.push(slot.frame().to_vec());
        let source = from.local_addr().unwrap();
        assert_eq!(
            buffer.receive(to.as_fd(), source, BURST, &pool, &mut accept, &mut 0).unwrap(),
            BURST
        );
        assert_eq!(got, frames);
    }

    #[test]
    fn the_longest_buffer_leaves_over_both_protocols() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair_at(address);
            assert!(coalesce(to.as_fd()));
            let frames = [[7; FRAME_MAX]; BURST];
            let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            let most = of_one_length(&frames, BURST);
            assert_eq!(most, 53);
            send(from.as_fd(), &frames[..most]).unwrap();
            let (pool, mut buffer) = (FramePool::new(BURST, FrameBuffer::new), Coalesced::new());
            let (source, mut got) = (from.local_addr().unwrap(), 0);
            let mut accept = |slot: FrameSlot| got += usize::from(slot.frame() == frames[0]);
            buffer.receive(to.as_fd(), source, BURST, &pool, &mut accept, &mut 0).unwrap();
            assert_eq!(got, most, "{address}");
        }
    }

    #[test]
    fn an_error_after_frames_is_told_by_the_next_call() {
        let (from, to) = pair();
        assert!(coalesce(to.as_fd()));
        let (pool, frame) = (FramePool::new(8, FrameBuffer::new), [3; 50]);
        send(from.as_fd(), &[&frame, &frame, &frame]).unwrap();
        let (mut buffer, source) = (Coalesced::new(), from.local_addr().unwrap());
        let (broken, _other_end) = std::io::pipe().unwrap();
        let mut receive = |socket, want| {
            buffer.receive(socket, source, want, &pool, &mut |_| (), &mut 0).map_err(|e| e.kind())
        };
        assert_eq!(receive(to.as_fd(), 1), Ok(1));
        // Two wait; the pipe, which is no socket, is asked for the third.
        assert_eq!(receive(broken.as_fd(), 3), Ok(2));
        let not_a_socket = io::Error::from_raw_os_error(libc::ENOTSOCK).kind();
        assert_eq!(receive(to.as_fd(), 1), Err(not_a_socket));
        assert_eq!(receive(to.as_fd(), 1), Err(io::ErrorKind::WouldBlock), "it is told once");
    }

    #[test]
    fn empty_and_overlong_datagrams_keep_their_lengths_and_a_full_pool_is_counted() {
        let (from, to) = pair();
        assert!(coalesce(to.as_fd()));
        let pool = FramePool::new(1, FrameBuffer::new);
        let (mut buffer, source) = (Coalesced::new(), from.local_addr().unwrap());
        let mut lens = Vec::new();
        for datagram in [&[][..], &[1; 4_000]] {
            from.send(datagram).unwrap();
            let mut accept = |slot: FrameSlot| lens.push(slot.len);
            assert_eq!(
                buffer.receive(to.as_fd(), source, 8, &pool, &mut accept, &mut 0).unwrap(),
                1
            );
        }
        assert_eq!(lens, [0, 4_000]);
        let kept = pool.take();
        let frame = [7; 50];
        send(from.as_fd(), &[&frame, &frame]).unwrap();
        let (mut starved, mut none) = (0, |_| panic!("there was no slot"));
        assert_eq!(
            buffer.receive(to.as_fd(), source, 8, &pool, &mut none, &mut starved).unwrap(),
            2
        );
        assert_eq!(starved, 2);
        drop(kept);
    }
}
