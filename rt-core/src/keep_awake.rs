//! Keeps a core from halting while its real-time thread sleeps: a thread below every other one that
//! spins there.
//!
//! A core that has nothing to do halts, and waking it takes from some microseconds up to what its
//! idle states say (on a virtual machine also the hypervisor's part). A `SCHED_IDLE` thread that
//! never waits leaves it nothing to halt for, and gives way to every other thread at once
//! (sched(7): `SCHED_IDLE` runs below nice 19). It needs no boot parameter and no privilege, and
//! costs what it says: the core burns power as under full load, and the sibling of a hardware thread
//! has less of the physical core. So it is off unless asked for, and worth measuring first
//! (`sinew tune` does).
//!
//! Never on the core of a lane that spins: that core does not halt, and this thread could not run,
//! nor end. `sinew.toml` and the node's builder refuse the two together.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{self, Nanos};
use crate::thread::{
    Applied, MIN_STACK_BYTES, Policy, RtThread, Strictness, ThreadError, ThreadSpec, setup, spawn,
};
use crate::topology::CoreId;

/// Turns of the loop between two looks at the order to stop: well below a microsecond.
const TURNS_PER_LOOK: u32 = 16;

/// How long the end of [`KeepAwake`] waits for its threads. Only a real-time thread that does not
/// give up the core can keep one from ending by then.
const END_LIMIT: Nanos = Nanos::from_secs(1);

/// How often the end looks whether a thread has ended.
const LOOK: Duration = Duration::from_micros(200);

/// One spinning `SCHED_IDLE` thread on each of some cores, for as long as this value lives.
#[derive(Debug)]
#[must_use = "the cores may halt again as soon as this is dropped"]
pub struct KeepAwake {
    stop: Arc<AtomicBool>,
    threads: Vec<RtThread<()>>,
}

impl KeepAwake {
    /// Starts a spinner on each core of `cores`, once however often it is named, and reads back that
    /// each runs there and under `SCHED_IDLE`. Allocates; call before lanes run, and not while
    /// real-time threads spin on these cores: a spinner could not make its settings there.
    ///
    /// ```
    /// use sinew_rt::keep_awake::KeepAwake;
    /// use sinew_rt::thread::Strictness;
    /// use sinew_rt::topology::Topology;
    ///
    /// let cores = Topology::read()?.real_time_cores();
    /// let awake = KeepAwake::on(&cores[..1], Strictness::Require)?;
    /// assert_eq!(awake.applied().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A core that does not exist or is offline, and what the kernel refused where `strictness`
    /// requires it; no spinner is left then.
    pub fn on(cores: &[CoreId], strictness: Strictness) -> Result<Self, ThreadError> {
        let mut awake = Self { stop: Arc::default(), threads: Vec::with_capacity(cores.len()) };
        for (n, core) in cores.iter().enumerate() {
            if cores[..n].contains(core) {
                continue;
            }
            let spec = ThreadSpec::new(format!("awake-{core}"))
                .core(*core)
                .policy(Policy::Idle)
                .stack_bytes(MIN_STACK_BYTES)
                .strictness(strictness);
            let stop = awake.stop.clone();
            awake.threads.push(spawn(spec, move || spin_until(&stop))?);
        }
        Ok(awake)
    }

    /// For each spinner what was asked for and what is in force.
    pub fn applied(&self) -> impl Iterator<Item = &Applied> {
        self.threads.iter().map(RtThread::applied)
    }
}

fn spin_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..TURNS_PER_LOOK {
            hint::spin_loop();
        }
    }
}

impl Drop for KeepAwake {
    /// Ends the spinners, usually within a scheduling turn. One that never gets to run, behind a
    /// real-time thread that spins, is left behind after a second and ends by itself when it does.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            // On a busy core a SCHED_IDLE thread has next to no turn in which to see the order.
            // Where the kernel refuses (it asks for nothing that a normal thread has not), or the
            // thread has ended already, waiting is all there is to do.
            let _ = setup::set_normal_policy(thread.id(), libc::SCHED_OTHER);
        }
        let limit = clock::now() + END_LIMIT;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && clock::now() < limit {
                std::thread::sleep(LOOK);
            }
            if thread.is_finished() {
                // A loop over an atomic has nothing to panic with.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::topology::Topology;

    fn a_core() -> CoreId {
        Topology::read().unwrap().real_time_cores()[0]
    }

    /// Policy, and user time in ticks, of a thread of this process, as the kernel shows them.
    fn stat(tid: i32) -> Option<(i32, u64)> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // proc_pid_stat(5): utime is field 14 and policy field 41; the name was field 2.
        Some((fields[41 - 3].parse().ok()?, fields[14 - 3].parse().ok()?))
    }

    fn until(what: &str, mut ready: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !ready() {
            assert!(begin.elapsed() < Duration::from_secs(20), "gave up waiting until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_spinner_is_idle_class_on_its_core_and_really_spins() {
        let core = a_core();
        let awake = KeepAwake::on(&[core, core], Strictness::Require).unwrap();
        let applied: Vec<_> = awake.applied().collect();
        assert_eq!(applied.len(), 1, "one spinner a core is enough");
        let effective = &applied[0].effective;
        assert_eq!(effective.scheduling.to_string(), "SCHED_IDLE");
        assert_eq!(effective.affinity.to_string(), core.to_string());
        let tid = effective.tid;
        assert_eq!(stat(tid).unwrap().0, libc::SCHED_IDLE);
        until("it has used CPU time", || stat(tid).unwrap().1 >= 2);
    }

    #[test]
    fn the_end_of_the_value_is_the_end_of_its_threads() {
        let awake = KeepAwake::on(&[a_core()], Strictness::Require).unwrap();
        let task = format!("/proc/self/task/{}", awake.applied().next().unwrap().effective.tid);
        assert!(Path::new(&task).exists());
        drop(awake);
        // A joined thread has left user space; the kernel takes its entry away a moment later.
        until("the thread is gone", || !Path::new(&task).exists());
    }

    #[test]
    fn it_gives_way_to_a_normal_thread_and_ends_although_that_one_keeps_the_core_busy() {
        let core = a_core();
        let stop = Arc::new(AtomicBool::new(false));
        let awake = KeepAwake::on(&[core], Strictness::Require).unwrap();
        let tid = awake.applied().next().unwrap().effective.tid;
        let until_told = stop.clone();
        let busy = spawn(ThreadSpec::new("busy").core(core), move || spin_until(&until_told));
        let busy = busy.unwrap();
        let (spinner, normal) = (stat(tid).unwrap().1, stat(busy.id()).unwrap().1);
        until("the normal thread has had the core for a while", || {
            stat(busy.id()).unwrap().1 - normal >= 50
        });
        let (spinner, normal) =
            (stat(tid).unwrap().1 - spinner, stat(busy.id()).unwrap().1 - normal);
        // The kernel gives SCHED_IDLE a weight of 3 against 1024; with equals it would be half.
        assert!(spinner * 4 < normal, "the spinner had {spinner} ticks, the normal one {normal}");
        drop(awake);
        until("the spinner has ended", || stat(tid).is_none());
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    }

    #[test]
    fn a_core_that_does_not_exist_leaves_no_spinner_on_the_others() {
        let error = KeepAwake::on(&[a_core(), CoreId::new(65_535)], Strictness::Require);
        assert!(matches!(error.unwrap_err(), ThreadError::NoSuchCore { .. }));
        // Other tests have spinners too, which end.
        until("no spinner is left", || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let names =
                tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            names.filter(|name| name.starts_with("awake-")).count() == 0
        });
    }
}
