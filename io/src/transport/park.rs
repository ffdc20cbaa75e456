//! Where a lane with sockets sleeps: a mio poll that also hears the lane's doorbell and a timer.

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use sinew_rt::clock::Nanos;
use sinew_rt::lane::Park;
use sinew_rt::wait::Doorbell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Says whether a socket may have something to read. mio reports only changes, so a socket stays
/// ready until a read said that it is empty.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// A socket that is read on every poll, for lanes that spin.
    pub(crate) fn always() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// A lane's poll: sockets, doorbell and timer in one `epoll_wait`.
pub(crate) struct SocketPark {
    poll: Poll,
    events: Events,
    sockets: Vec<Readiness>,
    doorbell: Arc<Doorbell>,
    timer: Timer,
}

impl SocketPark {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.raw()), TIMER, Interest::READABLE)?;
        // A full event counter still wakes the poll, so an error here loses nothing.
        let doorbell = Doorbell::with_waker(move || drop(waker.wake()));
        Ok(Self {
            poll,
            events: Events::with_capacity(64),
            sockets: Vec::new(),
            doorbell: Arc::new(doorbell),
            timer,
        })
    }

    /// The doorbell that ends this lane's sleep.
    pub(crate) fn doorbell(&self) -> Arc<Doorbell> {
        self.doorbell.clone()
    }

    /// Watches a socket. The result starts out ready, so that the first poll reads it.
    pub(crate) fn watch(&mut self, socket: RawFd) -> io::Result<Readiness> {
        let token = Token(self.sockets.len());
        self.poll.registry().register(&mut SourceFd(&socket), token, Interest::READABLE)?;
        let readiness = Readiness::always();
        self.sockets.push(readiness.clone());
        Ok(readiness)
    }
}

impl Park for SocketPark {
    fn before_spin(&mut self) {
        for socket in &self.sockets {
            socket.set(true);
        }
    }

    fn park(&mut self, deadline: Option<Nanos>) {
        self.timer.arm(deadline);
        // An interrupted poll is a wake-up like any other: the lane looks at everything again.
        if self.poll.poll(&mut self.events, None).is_ok() {
            for event in &self.events {
                if event.token() == TIMER {
                    // It reports an expiry once: for the same deadline again it must be set again.
                    self.timer.armed = None;
                }
                if let Some(socket) = self.sockets.get(event.token().0) {
                    socket.set(true);
                }
            }
        }
    }
}

/// A `timerfd` on CLOCK_MONOTONIC, because a poll's own timeout has only whole milliseconds.
struct Timer {
    fd: OwnedFd,
    /// The expiry that is still to be reported.
    armed: Option<Nanos>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, armed: None })
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sets the expiry; setting it also clears an earlier one that was not read.
    fn arm(&mut self, deadline: Option<Nanos>) {
        if self.armed == deadline {
            return;
        }
        self.armed = deadline;
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // A zero expiry disarms, so a deadline at or before the origin becomes the first instant.
        let it_value = deadline.map_or(zero, |at| at.max(Nanos::new(1)).to_timespec());
        let setting = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: `setting` is valid for the call and a null old value is allowed. It fails only
        // for values that `to_timespec` cannot give.
        unsafe {
            libc::timerfd_settime(
                self.raw(),
                libc::TFD_TIMER_ABSTIME,
                &raw const setting,
                std::ptr::null_mut(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::clock;

    /// Without a second wake-up this test hangs.
    #[test]
    fn a_deadline_that_has_passed_ends_every_park() {
        let mut park = SocketPark::new().unwrap();
        let deadline = clock::now() + Nanos::from_millis(1);
        for _ in 0..3 {
            while {
                park.park(Some(deadline));
                clock::now() < deadline
            } {}
        }
        park.park(Some(Nanos::ZERO));
        park.park(Some(Nanos::ZERO));
    }

    #[test]
    fn a_park_without_a_deadline_lasts_until_the_bell() {
        let mut park = SocketPark::new().unwrap();
        park.park(Some(Nanos::ZERO));
        let bell = park.doorbell();
        bell.announce_sleep();
        bell.ring();
        park.park(None);
    }
}
