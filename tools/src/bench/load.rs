//! Load of our own beside a measurement: processor, memory, network and disk, at normal priority,
//! bounded in every resource, and counted, so that a load that did not run is seen.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::ValueEnum;
use sinew_rt::clock;
use sinew_rt::thread::{Policy, RtThread, ThreadSpec, spawn};
use sinew_rt::topology::CoreId;

use super::report::Run;
use crate::exit::Failure;

/// Bytes that the memory load walks through: more than caches hold.
const MEMORY_BYTES: usize = 32 << 20;
/// Bytes of the disk load's file, which is written again and again.
const FILE_BYTES: u64 = 32 << 20;
/// Bytes of one write, one datagram, and one step through memory.
const BLOCK: usize = 64 << 10;
const DATAGRAM: usize = 1_400;
/// Turns of the processor load between two looks whether it is over: some 0.1 ms.
const TURNS: u64 = 50_000;
/// How long the network load waits for a datagram that was lost.
const NETWORK_PATIENCE: Duration = Duration::from_millis(20);

/// What can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A thread that computes, on any core
    Cpu,
    /// A copy through 32 MiB of memory
    Memory,
    /// Datagrams over loopback
    Net,
    /// A file of 32 MiB, written and synced in the directory for temporary files
    Disk,
}

/// The option of every benchmark that can run under load.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct LoadArgs {
    /// Load the machine at normal priority; a kind that is named twice is loaded twice. Measures idle
    /// first and then under load, hop under load only
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    load: Vec<Kind>,
}

impl std::fmt::Display for LoadArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.load.iter().map(|kind| kind.name()).collect();
        f.write_str(&names.join(","))
    }
}

impl LoadArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.load.is_empty()
    }

    /// Measures; if there is a load, once more under it.
    pub(crate) fn idle_and_loaded(
        &self,
        run: &mut Run,
        mut measure: impl FnMut(&mut Run) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.is_empty() {
            return measure(run);
        }
        run.section("idle", &mut measure)?;
        match super::interrupted() {
            true => Ok(()),
            false => self.loaded(run, measure),
        }
    }

    /// Measures, under the load if there is one.
    pub(crate) fn loaded(
        &self,
        run: &mut Run,
        measure: impl FnOnce(&mut Run) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.is_empty() {
            return measure(run);
        }
        run.section(&format!("under load ({self})"), |run| {
            let load = Load::start(&self.load)?;
            let outcome = measure(run);
            load.finish(run).and(outcome)
        })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Net => "net",
            Self::Disk => "disk",
        }
    }
}

/// Load that runs until this is dropped.
pub(crate) struct Load {
    started: sinew_rt::clock::Nanos,
    stop: Arc<AtomicBool>,
    workers: Vec<Worker>,
}

/// One kind of load. Threads of this process: they end with it, however it ends.
struct Worker {
    kind: Kind,
    /// Units done: turns or bytes.
    done: Arc<AtomicU64>,
    thread: Option<RtThread<io::Result<()>>>,
}

impl Load {
    fn start(kinds: &[Kind]) -> Result<Self, Failure> {
        // The same kind twice is twice the load.
        Self::of(kinds.iter().map(|kind| (*kind, None)))
    }

    /// A copy through memory on each of `cores`.
    pub(crate) fn memory_on(cores: &[CoreId]) -> Result<Self, Failure> {
        Self::of(cores.iter().map(|core| (Kind::Memory, Some(*core))))
    }

    fn of(workers: impl Iterator<Item = (Kind, Option<CoreId>)>) -> Result<Self, Failure> {
        let (started, stop) = (clock::now(), Arc::new(AtomicBool::new(false)));
        let mut load = Self { started, stop, workers: Vec::new() };
        for (kind, core) in workers {
            load.add(kind, core)?;
        }
        Ok(load)
    }

    fn add(&mut self, kind: Kind, core: Option<CoreId>) -> Result<(), Failure> {
        let cannot = |error: io::Error| {
            Failure::machine(format!("the {} load does not start: {error}", kind.name()))
        };
        let (stop, done) = (self.stop.clone(), Arc::new(AtomicU64::new(0)));
        let count = done.clone();
        let spec = ThreadSpec::new(format!("load-{}", kind.name())).policy(Policy::Other);
        let spec = match core {
            Some(core) => spec.core(core),
            None => spec,
        };
        // What can fail does so here, before anything is measured.
        let thread = match kind {
            Kind::Cpu => spawn(spec, move || {
                cpu(&stop, &count);
                Ok(())
            }),
            Kind::Memory => spawn(spec, move || {
                memory(&stop, &count);
                Ok(())
            }),
            Kind::Net => {
                let ends = loopback().map_err(cannot)?;
                spawn(spec, move || network(&ends, &stop, &count))
            }
            Kind::Disk => {
                // Has no name: it is gone with the process, however that ends.
                let file = tempfile::tempfile().map_err(cannot)?;
                spawn(spec, move || disk(file, &stop, &count))
            }
        };
        let thread = Some(thread.map_err(super::thread_failure)?);
        self.workers.push(Worker { kind, done, thread });
        Ok(())
    }

    /// Ends the load and says in the report what it did.
    pub(crate) fn finish(mut self, run: &mut Run) -> Result<(), Failure> {
        self.stop.store(true, Relaxed);
        let seconds = (clock::now() - self.started).as_secs_f64().max(1e-9);
        for worker in &mut self.workers {
            let kind = worker.kind;
            if let Some(thread) = worker.thread.take() {
                thread.join().map_err(Failure::machine)?.map_err(|error| {
                    let name = kind.name();
                    Failure::machine(format!("the {name} load failed: {error}; run without it"))
                })?;
            }
            let done = worker.done.load(Relaxed) as f64 / seconds;
            let (unit, rate) = match kind {
                Kind::Cpu => ("million turns per second", done / 1e6),
                _ => ("MB/s", done / 1e6),
            };
            run.figure(&format!("load {}", kind.name()), rate, unit, None);
            if done == 0.0 {
                run.note(format!("the {} load did nothing: it never got a core", kind.name()));
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for worker in &mut self.workers {
            // Already on the way out: what became of the load does not matter any more.
            let _ = worker.thread.take().map(RtThread::join);
        }
    }
}

fn cpu(stop: &AtomicBool, turns: &AtomicU64) {
    let mut state = 1u64;
    while !stop.load(Relaxed) {
        for _ in 0..TURNS {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        turns.fetch_add(TURNS, Relaxed);
    }
}

fn memory(stop: &AtomicBool, bytes: &AtomicU64) {
    let mut buffer = vec![1u8; MEMORY_BYTES];
    while !stop.load(Relaxed) {
        for block in (0..MEMORY_BYTES / 2).step_by(BLOCK) {
            let (from, to) = buffer.split_at_mut(MEMORY_BYTES / 2);
            to[block..block + BLOCK].copy_from_slice(black_box(&from[block..block + BLOCK]));
            bytes.fetch_add(BLOCK as u64, Relaxed);
            if stop.load(Relaxed) {
                return;
            }
        }
        black_box(&buffer);
    }
}

fn loopback() -> io::Result<[UdpSocket; 2]> {
    let [from, to] = [UdpSocket::bind(("127.0.0.1", 0))?, UdpSocket::bind(("127.0.0.1", 0))?];
    from.connect(to.local_addr()?)?;
    to.set_read_timeout(Some(NETWORK_PATIENCE))?;
    Ok([from, to])
}

fn network([from, to]: &[UdpSocket; 2], stop: &AtomicBool, bytes: &AtomicU64) -> io::Result<()> {
    let (sent, mut received) = ([7; DATAGRAM], [0; DATAGRAM]);
    while !stop.load(Relaxed) {
        from.send(&sent)?;
        match to.recv(&mut received) {
            Ok(length) => {
                bytes.fetch_add(length as u64, Relaxed);
            }
            Err(error) if lost(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A datagram did not come in time, or a signal came first.
fn lost(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn disk(mut file: File, stop: &AtomicBool, bytes: &AtomicU64) -> io::Result<()> {
    let mut block = vec![7; BLOCK];
    while !stop.load(Relaxed) {
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..FILE_BYTES / BLOCK as u64 {
            file.write_all(&block)?;
            bytes.fetch_add(BLOCK as u64, Relaxed);
            if stop.load(Relaxed) {
                return Ok(());
            }
        }
        file.sync_data()?;
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_load_does_something_and_ends_when_told() {
        for kind in Kind::value_variants() {
            let mut run = Run::elsewhere();
            let load = Load::start(&[*kind]).unwrap();
            let give_up = clock::now() + sinew_rt::clock::Nanos::from_secs(20);
            while load.workers[0].done.load(Relaxed) == 0 && clock::now() < give_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            load.finish(&mut run).unwrap();
            let figure = &run.figures()[0];
            assert!(figure.name.ends_with(kind.name()) && figure.value > 0.0, "{figure:?}");
        }
    }

    #[test]
    fn idle_comes_first_and_what_is_under_load_says_so() {
        let mut run = Run::elsewhere();
        let args = LoadArgs { load: vec![Kind::Cpu, Kind::Net] };
        let measure = |run: &mut Run| {
            run.figure("it", 1.0, "", None);
            Ok(())
        };
        args.idle_and_loaded(&mut run, measure).unwrap();
        let names: Vec<_> = run.figures().iter().map(|figure| figure.name.as_str()).collect();
        let loaded =
            ["it", "load cpu", "load net"].map(|what| format!("under load (cpu,net): {what}"));
        assert_eq!(names, [&["idle: it"], &loaded.each_ref().map(String::as_str)[..]].concat());
        LoadArgs::default().idle_and_loaded(&mut run, measure).unwrap();
        assert_eq!(run.figures().last().unwrap().name, "it");
    }

    #[test]
    fn load_runs_at_normal_priority_and_a_drop_ends_it() {
        let load = Load::start(&[Kind::Cpu, Kind::Net]).unwrap();
        let stop = load.stop.clone();
        for worker in &load.workers {
            let applied = worker.thread.as_ref().unwrap().applied();
            assert!(!applied.effective.scheduling.is_real_time(), "{applied:?}");
        }
        let counts: Vec<_> = load.workers.iter().map(|worker| worker.done.clone()).collect();
        drop(load);
        assert!(stop.load(Relaxed));
        let done = |count: &Arc<AtomicU64>| count.load(Relaxed);
        let before: Vec<_> = counts.iter().map(done).collect();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(counts.iter().map(done).collect::<Vec<_>>(), before, "a thread still runs");
    }

    #[test]
    fn a_memory_load_on_a_core_stays_on_it() {
        let topology = sinew_rt::topology::Topology::read().unwrap();
        let core = topology.usable_cores().iter().next().unwrap();
        let load = Load::memory_on(&[core]).unwrap();
        let applied = load.workers[0].thread.as_ref().unwrap().applied();
        assert_eq!(applied.effective.affinity.to_string(), core.to_string());
    }

    #[test]
    fn the_disk_load_stays_within_its_file() {
        let file = tempfile::tempfile().unwrap();
        let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let looked_at = file.try_clone().unwrap();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| disk(file, &stop, &bytes));
            let give_up = clock::now() + sinew_rt::clock::Nanos::from_secs(20);
            while bytes.load(Relaxed) < FILE_BYTES + BLOCK as u64 && clock::now() < give_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Relaxed);
            worker.join().unwrap().unwrap();
        });
        assert!(looked_at.metadata().unwrap().len() <= FILE_BYTES);
        assert!(bytes.load(Relaxed) > FILE_BYTES, "it went round at least once");
    }
}
