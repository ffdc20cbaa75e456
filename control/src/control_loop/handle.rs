//! Watching and steering a loop from outside its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::safety::{RearmToken, Safety, State, StopCause};

/// Where a loop stands, all of it from the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The safety state.
    pub state: State,
    /// Why it stands in safe stop; `None` in every other state.
    pub cause: Option<StopCause>,
    /// How often it entered safe stop: the number of the last one, for
    /// [`RearmToken::authorise`].
    pub stops: u64,
}

/// What a loop and its handles share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    /// Number of the stop for which a re-arm was authorised; 0 when none waits.
    rearm: AtomicU64,
    /// State in the low byte, cause in the next, number of stops above.
    status: AtomicU64,
}

impl Shared {
    pub(super) fn show(&self, safety: &Safety) {
        let cause = safety.cause().map_or(0, StopCause::code);
        let word = u64::from(safety.state().code() & 0xff)
            | u64::from(cause & 0xff) << 8
            | safety.stops() << 16;
        self.status.store(word, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The re-arm that waits, at most once.
    pub(super) fn take_rearm(&self) -> Option<RearmToken> {
        // The common case costs a load.
        if self.rearm.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match self.rearm.swap(0, Ordering::AcqRel) {
            0 => None,
            stop => Some(RearmToken::authorise(stop)),
        }
    }
}

/// Steers one loop from any thread; clones steer the same loop. Every method is wait-free.
#[derive(Clone, Debug)]
pub struct LoopHandle {
    pub(super) shared: Arc<Shared>,
}

impl LoopHandle {
    /// Asks the loop to end, with outputs made safe. It does so within one period.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Hands the loop the permission to leave a safe stop.
    ///
    /// The loop takes it when it stands in the stop that the token names, its safe-stop path
    /// reports nothing that forbids motion, and everything that shares its
    /// [`Health`](sinew_rt::health::Health) has recovered; otherwise the permission lapses within a
    /// second, and [`status`](Self::status) still shows safe stop.
    pub fn rearm(&self, token: RearmToken) {
        self.shared.rearm.store(token.stop(), Ordering::Release);
    }

    /// Where the loop stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let word = self.shared.status.load(Ordering::Acquire);
        Status {
            state: State::from_code((word & 0xff) as u32).unwrap_or(State::SafeStop),
            cause: StopCause::from_code((word >> 8 & 0xff) as u32),
            stops: word >> 16,
        }
    }
}
