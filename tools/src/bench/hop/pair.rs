//! Two threads on two cores that start together, and waits that end by themselves.

use std::sync::Barrier;
use std::sync::{Arc, mpsc};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread::{self, Applied, RtThread, ThreadSpec};

use crate::bench::report::Run;
use crate::bench::thread_failure;
use crate::exit::Failure;

/// The longest that a thread may spin without a break. Real-time throttling takes the core away
/// from 0.95 s in a second on.
pub(super) const BURST: Nanos = Nanos::from_millis(600);

/// Where the two threads run.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) near: ThreadSpec,
    pub(super) far: ThreadSpec,
}

impl Pair {
    /// The same with the ends exchanged.
    pub(super) fn reversed(&self) -> Self {
        Self { near: self.far.clone(), far: self.near.clone() }
    }

    /// Runs both closures at once, reports the threads, and gives what they return.
    pub(super) fn run<A: Send + 'static, B: Send + 'static>(
        &self,
        run: &mut Run,
        near: impl FnOnce() -> A + Send + 'static,
        far: impl FnOnce() -> B + Send + 'static,
    ) -> Result<(A, B), Failure> {
        let (ends, applied) = self.both(near, far)?;
        applied.iter().for_each(|applied| run.thread(applied));
        Ok(ends)
    }

    /// Runs both closures at once and gives what they return, and what was granted to near and far.
    /// Neither begins before both threads have made their settings: a new thread could not make
    /// them on a core where the other spins.
    pub(super) fn both<A: Send + 'static, B: Send + 'static>(
        &self,
        near: impl FnOnce() -> A + Send + 'static,
        far: impl FnOnce() -> B + Send + 'static,
    ) -> Result<Both<A, B>, Failure> {
        let together = Arc::new(Barrier::new(2));
        let (near, start_near) = held(self.near.clone(), together.clone(), near)?;
        let (far, start_far) = held(self.far.clone(), together, far)?;
        let applied = [near.applied().clone(), far.applied().clone()];
        // The threads then wait for each other, asleep: whichever runs first must not spin while
        // this thread has yet to start the other. Sending fails when a thread panicked: see join.
        let _ = start_near.send(());
        let _ = start_far.send(());
        let near = near.join().map_err(Failure::machine)?;
        let far = far.join().map_err(Failure::machine)?;
        let (Some(near), Some(far)) = (near, far) else {
            return Err(Failure::machine("a measuring thread never began"));
        };
        Ok(((near, far), applied))
    }
}

/// What both ends returned, and what was granted to them.
type Both<A, B> = ((A, B), [Applied; 2]);

type Held<T> = (RtThread<Option<T>>, mpsc::SyncSender<()>);

/// A thread that begins when it is told to and the other one is there, or ends without having begun
/// when nobody will tell it.
fn held<T: Send + 'static>(
    spec: ThreadSpec,
    together: Arc<Barrier>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<Held<T>, Failure> {
    let (start, started) = mpsc::sync_channel(1);
    let thread = thread::spawn(spec, move || {
        started.recv().ok()?;
        together.wait();
        Some(body())
    });
    Ok((thread.map_err(thread_failure)?, start))
}

/// Polls `ready` until it gives something; `None` at `deadline`.
#[inline]
pub(super) fn spin<T>(deadline: Nanos, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        // The clock is read so rarely that it does not show.
        for _ in 0..4_096 {
            if let Some(value) = ready() {
                return Some(value);
            }
            std::hint::spin_loop();
        }
        if clock::now() >= deadline {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_for_what_never_comes_ends_at_its_deadline() {
        let deadline = clock::now() + Nanos::from_millis(2);
        assert_eq!(spin(deadline, || None::<()>), None);
        assert!(clock::now() >= deadline);
    }

    #[test]
    fn a_thread_that_nobody_starts_ends_without_having_begun() {
        let together = Arc::new(Barrier::new(2));
        let (thread, start) = held(ThreadSpec::new("test"), together, || 1).unwrap();
        drop(start);
        assert_eq!(thread.join().unwrap(), None);
    }

    #[test]
    fn both_ends_run_and_give_their_results() {
        let spec = ThreadSpec::new("test");
        let pair = Pair { near: spec.clone(), far: spec };
        let mut run = Run::elsewhere();
        let (sender, receiver) = mpsc::channel();
        let ends = pair.run(&mut run, move || sender.send(7), move || receiver.recv());
        let (near, far) = ends.unwrap();
        assert_eq!((near, far), (Ok(()), Ok(7)));
    }
}
