//! How a thread waits for work, and the doorbell that wakes it.
//!
//! The price of sleeping is paid by the sleeper: a producer looks at one word, and only when the
//! consumer said that it sleeps does it make a system call.

use crate::clock::Nanos;
use crate::sync::{AtomicU32, Ordering, fence};
use std::fmt;

/// What a lane does when no stage has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Polls without pause. Needs a core of its own, and a kernel that does not throttle it.
    Spin,
    /// Polls for `spin` after the last work, then parks.
    SpinThenPark {
        /// How long to poll before parking.
        spin: Nanos,
    },
    /// Parks at once: the least CPU time, and one wake-up more on each message.
    Park,
}

impl Wait {
    /// Whether a thread that waits like this never gives up its core.
    #[must_use]
    pub const fn holds_core(self) -> bool {
        matches!(self, Self::Spin)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spin => f.write_str("spin"),
            Self::SpinThenPark { spin } => write!(f, "spin {spin} then park"),
            Self::Park => f.write_str("park"),
        }
    }
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One word on which one thread sleeps and which any number of producers may ring.
///
/// The order on each side is what makes a wake-up impossible to lose (Dekker's pattern): the
/// sleeper says `ASLEEP`, *then* looks at its inputs once more; the producer puts its value in,
/// *then* looks at the word. With a full fence between the two steps on both sides, at least one
/// of them sees the other.
pub struct Doorbell {
    state: AtomicU32,
    /// For threads that sleep in something other than a futex, such as a socket poll.
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("futex", &self.wake.is_none()).finish_non_exhaustive()
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

impl Doorbell {
    /// A doorbell for a thread that sleeps in [`Doorbell::sleep`].
    #[must_use]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(AWAKE), wake: None }
    }

    /// A doorbell for a thread that sleeps elsewhere; `wake` ends that sleep, also one that begins
    /// a moment later. It is called by producers on real-time threads: it must neither block nor
    /// allocate.
    #[must_use]
    pub fn with_waker(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: AtomicU32::new(AWAKE), wake: Some(Box::new(wake)) }
    }

    /// Wakes the owner if it sleeps or is about to. Call after the work was made visible.
    ///
    /// A fence and a load when the owner is awake; one system call by one of the producers when it
    /// sleeps.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == ASLEEP {
            self.wake_owner();
        }
    }

    #[cold]
    fn wake_owner(&self) {
        if self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP {
            crate::lane::own_call(|| match &self.wake {
                Some(wake) => wake(),
                None => futex_wake(&self.state),
            });
        }
    }

    /// Says that the owner is about to sleep. After this it must look at every input once more,
    /// and then call either [`Doorbell::sleep`] (or its own form of it) or [`Doorbell::awake`].
    #[inline]
    pub fn announce_sleep(&self) {
        self.state.store(ASLEEP, Ordering::Relaxed);
        // The known-broken variant, without the fence, is what the loom test must catch.
        #[cfg(not(sinew_broken))]
        fence(Ordering::SeqCst);
    }

    /// Says that the owner is awake again.
    #[inline]
    pub fn awake(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Whether the owner's announcement still stands, so that sleeping is right.
    #[inline]
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.state.load(Ordering::Acquire) == ASLEEP
    }

    /// Sleeps until somebody rings or `deadline` of `CLOCK_MONOTONIC` passes. Returns at once if
    /// somebody rang since [`Doorbell::announce_sleep`]. The owner is awake afterwards.
    pub fn sleep(&self, deadline: Option<Nanos>) {
        futex_wait(&self.state, ASLEEP, deadline);
        self.awake();
    }
}

#[cfg(not(loom))]
fn futex_wake(word: &AtomicU32) {
    // SAFETY: `word` is a valid, aligned u32 for the whole call; FUTEX_WAKE only uses its address
    // (futex(2)). The result, the number of threads woken, is of no interest.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            std::ptr::from_ref(word),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

/// Sleeps while `word` holds `value`: until a wake, the deadline, or a signal. Every cause is fine
/// for the caller, which looks at its inputs again, so the result needs no reading.
#[cfg(not(loom))]
fn futex_wait(word: &AtomicU32, value: u32, deadline: Option<Nanos>) {
    let until = deadline.map(Nanos::to_timespec);
    let until = until.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a valid, aligned u32 and `until` null or a valid timespec for the whole
    // call. FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time (futex(2)).
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            std::ptr::from_ref(word),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            value,
            until,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        );
    }
}

// loom cannot follow a system call: there, doorbells are made with a waker of loom's own.
#[cfg(loom)]
fn futex_wake(_word: &AtomicU32) {
    unreachable!("under loom a doorbell has a waker")
}

#[cfg(loom)]
fn futex_wait(_word: &AtomicU32, _value: u32, _deadline: Option<Nanos>) {
    unreachable!("under loom a thread sleeps in loom's park")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_ring_before_the_sleep_is_not_lost() {
        let bell = Doorbell::new();
        bell.announce_sleep();
        bell.ring();
        assert!(!bell.is_asleep());
        bell.sleep(None); // would hang the test if the ring were lost
    }

    #[test]
    fn a_deadline_ends_the_sleep_and_until_then_the_thread_sleeps() {
        let bell = Doorbell::new();
        let deadline = clock::now() + Nanos::from_millis(20);
        let before = clock::thread_cpu_time();
        while clock::now() < deadline {
            bell.announce_sleep();
            bell.sleep(Some(deadline));
        }
        let used = clock::thread_cpu_time() - before;
        assert!(used < Nanos::from_millis(10), "{used} of CPU time: that was no sleep");
    }

    #[test]
    fn a_waker_is_called_once_for_each_announced_sleep() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let bell = Doorbell::with_waker(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        bell.ring();
        assert_eq!(calls.load(Ordering::Relaxed), 0, "the owner was awake");
        bell.announce_sleep();
        bell.ring();
        bell.ring();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_parked_consumer_gets_every_value() {
        const VALUES: u32 = 50_000;
        let bell = Arc::new(Doorbell::new());
        let (mut producer, mut consumer) = crate::ring::channel_with_doorbell(8, bell.clone());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..VALUES {
                    while producer.push(n).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            for expected in 0..VALUES {
                let value = loop {
                    if let Some(value) = consumer.pop() {
                        break value;
                    }
                    bell.announce_sleep();
                    match consumer.pop() {
                        Some(value) => {
                            bell.awake();
                            break value;
                        }
                        None => bell.sleep(None),
                    }
                };
                assert_eq!(value, expected);
            }
        });
    }
}
