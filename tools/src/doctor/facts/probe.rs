//! Asks the kernel for a real-time thread on a core, and reads back what it gave.

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
}

/// Runs a real-time thread on `core` for as long as it takes to read back where and how it runs.
/// Lowest priority: on a live robot, every real-time thread there goes first.
pub(super) fn probe(core: CoreId) -> CoreProbe {
    let spec = ThreadSpec::new("sinew-doctor")
        .core(core)
        .fifo(Priority::MIN)
        .strictness(Strictness::Report);
    let wanted = spec.policy.to_string();
    let failed = |reason: String| CoreProbe {
        core,
        effective: "none".to_owned(),
        refusal: Some(Refusal {
            what: "thread".to_owned(),
            wanted: wanted.clone(),
            got: "no thread".to_owned(),
            reason,
            fix:
                "free the core of spinning real-time threads; raise the limit on tasks (ulimit -u)"
                    .to_owned(),
        }),
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
    }
}
