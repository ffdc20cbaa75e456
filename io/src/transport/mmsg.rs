//! `recvmmsg` and `sendmmsg` on a non-blocking socket, with arrays that are made once.

use super::BATCH;
use super::buffer::{FramePool, FrameSlot, NOWHERE};
use crate::wire::FRAME_MAX;
use sinew_rt::lane::own_call;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A batch of empty slots and the kernel's description of them.
pub(crate) struct ReceiveBatch {
    slots: [Option<FrameSlot>; BATCH],
    headers: Box<[libc::mmsghdr; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    addresses: Box<[libc::sockaddr_in6; BATCH]>,
    /// Where frames go that no slot is free for, so that the socket drains all the same.
    spill: Box<[u8; FRAME_MAX]>,
}

// SAFETY: the raw pointers inside `headers` and `vectors` are only set and used within one call of
// `receive`; between calls they are stale and nobody looks at them.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    pub(crate) fn new() -> Self {
        // SAFETY: all-zero is a valid value of these C structs: null pointers, zero lengths, no
        // address family.
        let (headers, vectors, addresses) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            slots: [const { None }; BATCH],
            headers: Box::new(headers),
            vectors: Box::new(vectors),
            addresses: Box::new(addresses),
            spill: Box::new([0; FRAME_MAX]),
        }
    }

    /// Receives up to `want` datagrams and hands each, with its true length, to `accept`. A
    /// datagram longer than a frame arrives with a length above [`FRAME_MAX`].
    ///
    /// `connected` is the source of a connected socket, which the kernel then need not report.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        connected: Option<SocketAddr>,
        want: usize,
        pool: &FramePool,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> io::Result<usize> {
        let want = want.clamp(1, BATCH);
        if let (1, Some(peer)) = (want, connected) {
            return self.receive_one(socket, peer, pool, accept, starved);
        }
        for i in 0..want {
            if self.slots[i].is_none() {
                self.slots[i] = pool.take();
            }
            let bytes = match &mut self.slots[i] {
                Some(slot) => slot.bytes.as_mut_ptr(),
                // Several headers may share the spill: its content is never read.
                None => self.spill.as_mut_ptr(),
            };
            self.vectors[i] = libc::iovec { iov_base: bytes.cast(), iov_len: FRAME_MAX };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            if connected.is_none() {
                header.msg_name = (&raw mut self.addresses[i]).cast();
                header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        // SAFETY: the first `want` headers point to vectors, buffers and address storage that are
        // owned by `self` or by slots in `self`, are valid for the lengths given, and are not
        // otherwise borrowed during the call. MSG_TRUNC makes the kernel report true lengths.
        let count = own_call(|| unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                want as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        });
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = (count as usize).min(want);
        for i in 0..count {
            let Some(mut slot) = self.slots[i].take() else {
                *starved += 1;
                continue;
            };
            slot.len = u16::try_from(self.headers[i].msg_len).unwrap_or(u16::MAX);
            slot.source = connected.unwrap_or_else(|| address_of(&self.addresses[i]));
            accept(slot);
        }
        Ok(count)
    }
}

impl ReceiveBatch {
    /// The same for one datagram of a connected socket, as paced traffic comes: `recv` has no
    /// headers to copy, and so takes less time than a `recvmmsg` of one.
    fn receive_one(
        &mut self,
        socket: BorrowedFd<'_>,
        peer: SocketAddr,
        pool: &FramePool,
        accept: &mut dyn FnMut(FrameSlot),
        starved: &mut u64,
    ) -> io::Result<usize> {
        if self.slots[0].is_none() {
            self.slots[0] = pool.take();
        }
        let bytes = match &mut self.slots[0] {
            Some(slot) => slot.bytes.as_mut_ptr(),
            None => self.spill.as_mut_ptr(),
        };
        // SAFETY: `bytes` points to FRAME_MAX bytes that are owned by `self` and not otherwise
        // borrowed during the call. MSG_TRUNC makes the kernel report the true length.
        let len = own_call(|| unsafe {
            libc::recv(
                socket.as_raw_fd(),
                bytes.cast(),
                FRAME_MAX,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            )
        });
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        match self.slots[0].take() {
            Some(mut slot) => {
                slot.len = u16::try_from(len).unwrap_or(u16::MAX);
                slot.source = peer;
                accept(slot);
            }
            None => *starved += 1,
        }
        Ok(1)
    }
}

/// Reads the address that the kernel wrote. Other families than IP cannot come from an IP socket.
fn address_of(storage: &libc::sockaddr_in6) -> SocketAddr {
    match i32::from(storage.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, which is no larger and
            // no more aligned than the storage (asserted below).
            let v4 = unsafe { *std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => SocketAddr::V6(SocketAddrV6::new(
            Ipv6Addr::from(storage.sin6_addr.s6_addr),
            u16::from_be(storage.sin6_port),
            storage.sin6_flowinfo,
            storage.sin6_scope_id,
        )),
        _ => NOWHERE,
    }
}

const _: () = assert!(
    size_of::<libc::sockaddr_in>() <= size_of::<libc::sockaddr_in6>()
        && align_of::<libc::sockaddr_in>() <= align_of::<libc::sockaddr_in6>()
);

/// Sends each frame as one datagram on a connected socket, and says how many the kernel took.
/// Never blocks. One frame is one `send`, which costs less than a `sendmmsg` of one.
pub(crate) fn send(socket: BorrowedFd<'_>, frames: &[&[u8]]) -> io::Result<usize> {
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if let [frame] = frames {
        // SAFETY: the pointer and length are those of a live slice, which the kernel only reads.
        let sent = own_call(|| unsafe {
            libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), FLAGS)
        });
        return if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(1) };
    }
    let frames = &frames[..frames.len().min(BATCH)];
    // SAFETY: all-zero is a valid value of both C structs.
    let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    for (i, frame) in frames.iter().enumerate() {
        vectors[i] =
            libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `frames.len()` headers point to vectors on this stack, which point to live
    // slices that the kernel only reads.
    let sent = own_call(|| unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            frames.len() as libc::c_uint,
            FLAGS,
        )
    });
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}
