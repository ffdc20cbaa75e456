//! Asks the kernel for a real-time thread on a core, and reads back what it gave.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use sinew_rt::thread::{Priority, Refusal, Strictness, ThreadSpec, spawn};
use sinew_rt::topology::CoreId;

/// What a real-time thread was granted on one core.
#[derive(Clone, Debug)]
pub(crate) struct CoreProbe {
    pub(crate) core: CoreId,
    /// The scheduling read back, or `none` when no thread could be started.
    pub(crate) effective: String,
    /// Why it is not what was asked for, with the fix.
    pub(crate) refusal: Option<Refusal>,
    /// The thread did not get to run within [`PATIENCE`]: real-time threads keep the core.
    pub(crate) busy: bool,
}

impl CoreProbe {
    /// Whether a real-time thread ran there.
    pub(crate) fn granted(&self) -> bool {
        self.refusal.is_none() && !self.busy
    }
}

/// How long a thread of the lowest priority is waited for: a lane that spins never lets it run.
const PATIENCE: Duration = Duration::from_millis(400);

/// Tries all `cores` at once.
pub(super) fn all(cores: impl Iterator<Item = CoreId>) -> Vec<CoreProbe> {
    let (to_us, answers) = mpsc::channel();
    let mut probes: Vec<CoreProbe> = Vec::new();
    for core in cores {
        let to_us = to_us.clone();
        let trying = std::thread::Builder::new().spawn(move || {
            // Nobody listens any more when the patience was over before.
            let _ = to_us.send(probe(core));
        });
        let effective = "none".to_owned();
        let refusal = trying.err().map(|error| no_thread(core, &error.to_string()));
        probes.push(CoreProbe { core, effective, refusal, busy: true });
    }
    // The channel ends with the last thread that tries.
    drop(to_us);
    let give_up = Instant::now() + PATIENCE;
    while let Ok(answer) = answers.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
        if let Some(probe) = probes.iter_mut().find(|probe| probe.core == answer.core) {
            *probe = answer;
        }
    }
    probes
}

fn no_thread(core: CoreId, reason: &str) -> Refusal {
    Refusal {
        what: "thread".to_owned(),
        wanted: format!("SCHED_FIFO 1 on core {core}"),
        got: "no thread".to_owned(),
        reason: reason.to_owned(),
        fix: "raise the limit on tasks (ulimit -u)".to_owned(),
    }
}

/// Runs a real-time thread on `core` for as long as it takes to read back where and how it runs.
/// Lowest priority: on a live robot, every real-time thread there goes first.
fn probe(core: CoreId) -> CoreProbe {
    let spec = ThreadSpec::new("sinew-doctor")
        .core(core)
        .fifo(Priority::MIN)
        .strictness(Strictness::Report);
    let failed = |reason: String| CoreProbe {
        core,
        effective: "none".to_owned(),
        refusal: Some(no_thread(core, &reason)),
        busy: false,
    };
    // SAFETY: sched_getcpu has no arguments and touches no memory of ours.
    let thread = match spawn(spec, || unsafe { libc::sched_getcpu() }) {
        Ok(thread) => thread,
        Err(error) => return failed(error.to_string()),
    };
    let applied = thread.applied().clone();
    let ran_on = match thread.join() {
        Ok(ran_on) => ran_on,
        Err(error) => return failed(error.to_string()),
    };
    let elsewhere = (ran_on != i32::from(core.get())).then(|| Refusal {
        what: "affinity".to_owned(),
        wanted: format!("core {core}"),
        got: format!("ran on core {ran_on}"),
        reason: "the pinned thread ran elsewhere".to_owned(),
        fix: "stop the tool that moves threads (tuned, taskset -p, a container manager)".to_owned(),
    });
    CoreProbe {
        core,
        effective: applied.effective.scheduling.to_string(),
        refusal: applied.refused.into_iter().next().or(elsewhere),
        busy: false,
    }
}
