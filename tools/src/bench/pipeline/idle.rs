//! What a node costs that has nothing to do: a process of its own, watched from outside.

use sinew_io::node::{Layout, Node, NodeBuilder, PeerConfig, RealTimeConfig};
use sinew_io::security::Identity;
use sinew_rt::clock::{self, Nanos};
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use super::super::report::Run;
use super::super::stats::Limit;
use super::super::{interrupted, progress};
use super::agent::thread_report;
use super::crew::{Agent, Stopped};
use super::order::{Answer, End, Role};
use super::{Cores, PipelineArgs};
use crate::exit::{Exit, Failure, Outcome};

/// For how long the node is watched unless the user says otherwise.
const SECONDS: u32 = 30;
/// What an idle node may take: share of a core, resident bytes, threads.
const CPU_SHARE: f64 = 0.003;
const RESIDENT_BYTES: f64 = 10e6;
const THREADS: f64 = 8.0;

/// Starts, handshakes that nobody answers and first touches are over after this.
const SETTLE: Nanos = Nanos::from_secs(3);

/// The child: a node with two peers that are not there, until the parent closes the pipe.
pub(super) fn serve(panels: &Path) -> Outcome {
    let failed = |error: io::Error| Failure::machine(error);
    let sockets = (0..3).map(|_| UdpSocket::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>();
    let sockets = sockets.map_err(failed)?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(failed)?;
    let identity = Identity::generate().map_err(Failure::machine)?;
    let own = End { identity: identity.public().to_did(), address: addresses[0] };
    let mut builder = Node::builder(format!("bench-idler-{}", std::process::id()))
        .development()
        .identity(identity)
        .udp(own.address)
        .panel_dir(panels)
        .loops(0)
        .layout(Layout::Auto)
        .realtime(RealTimeConfig::default());
    for (n, address) in addresses[1..].iter().enumerate() {
        builder = with_peer(builder, n, *address)?;
    }
    drop(sockets);
    let node = builder.start()?;
    super::agent::answer(&Answer::Hello(own))?;
    let report = node.report();
    super::agent::answer(&Answer::Ready {
        threads: report.lanes.iter().map(thread_report).collect(),
        not_real_time: report.not_real_time.clone(),
        epoch: report.epoch.get(),
    })?;
    // Whatever the parent does, its end closes the pipe.
    io::stdin().read_to_end(&mut Vec::new()).map_err(failed)?;
    node.stop().map_err(|panics| Failure::machine(panics.join("; ")))?;
    Ok(Exit::Done)
}

fn with_peer(builder: NodeBuilder, n: usize, address: SocketAddr) -> Result<NodeBuilder, Failure> {
    let identity = Identity::generate().map_err(Failure::machine)?;
    Ok(builder.peer(PeerConfig {
        name: format!("peer-{n}"),
        identity: identity.public().to_did(),
        address,
        publishes: vec!["state".to_owned()],
    }))
}

/// Watches the child for as long as asked.
pub(super) fn measure(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        run.note("this is no release build: its figures are not those of one");
    }
    match watch(args, cores, run) {
        Ok(()) => Ok(()),
        Err(Stopped::Interrupted) => {
            run.unmeasured();
            Ok(())
        }
        Err(Stopped::Failed(failure)) => Err(failure),
    }
}

fn watch(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Stopped> {
    let mut idler = Agent::start(Role::Idler, &cores.receiver)?;
    idler.ready(run)?;
    let pid = idler.pid();
    pause(SETTLE)?;
    let (began, before) = (clock::now(), Usage::read(pid)?);
    let seconds = args.seconds.unwrap_or(SECONDS);
    let bar = progress("idle", u64::from(seconds));
    for _ in 0..seconds {
        if pause(Nanos::from_secs(1)).is_err() {
            break;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (after, span) = (Usage::read(pid)?, clock::now() - began);
    let used = (after.cpu - before.cpu).as_secs_f64();
    let at_most = |limit| Some(Limit::AtMost(limit));
    run.figure(
        "CPU of the idle node, share of one core",
        used / span.as_secs_f64(),
        "",
        at_most(CPU_SHARE),
    );
    run.figure(
        "resident memory of the idle node",
        after.resident as f64,
        "bytes",
        at_most(RESIDENT_BYTES),
    );
    run.figure("threads of the idle node", after.threads as f64, "", at_most(THREADS));
    run.figure("watched for", span.as_secs_f64(), "s", None);
    run.note(format!("the first {SETTLE} after the node's start are not counted"));
    for (name, cpu) in after.since(&before) {
        let share = cpu.as_secs_f64() / span.as_secs_f64();
        run.figure(&format!("CPU of its thread {name}, share of one core"), share, "", None);
    }
    for (what, bytes) in resident_parts(pid)? {
        run.figure(&format!("resident: {what}"), bytes as f64, "bytes", None);
    }
    Ok(())
}

/// Waits, and says whether Ctrl-C came.
fn pause(span: Nanos) -> Result<(), Stopped> {
    let until = clock::now() + span;
    while clock::now() < until {
        if interrupted() {
            return Err(Stopped::Interrupted);
        }
        clock::sleep_until(until.min(clock::now() + Nanos::from_millis(100)));
    }
    Ok(())
}

/// What the kernel says that a process uses.
struct Usage {
    cpu: Nanos,
    /// By thread: number, name and CPU time.
    by_thread: Vec<(String, String, Nanos)>,
    resident: u64,
    threads: u64,
}

impl Usage {
    fn read(pid: u32) -> Result<Self, Failure> {
        let mut by_thread = Vec::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(Failure::machine)? {
            let path = thread.map_err(Failure::machine)?.path();
            let name = read(&path.join("comm").to_string_lossy())?.trim().to_owned();
            // Time on the CPU in ns: `stat` counts in ticks of 10 ms, a tenth of what is allowed
            // in half a minute.
            let schedstat = read(&path.join("schedstat").to_string_lossy())?;
            let on_cpu = schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok());
            let on_cpu = on_cpu.ok_or_else(|| Failure::machine("schedstat has no first field"))?;
            let number = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            by_thread.push((number, name, Nanos::new(on_cpu)));
        }
        let status = read(&format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            value.ok_or_else(|| Failure::machine(format!("/proc/{pid}/status has no {name}")))
        };
        Ok(Self {
            cpu: by_thread.iter().fold(Nanos::ZERO, |sum, (_, _, cpu)| sum + *cpu),
            by_thread,
            resident: field("VmRSS:")? * 1_024,
            threads: field("Threads:")?,
        })
    }

    /// The CPU time of each thread since `before`.
    fn since(&self, before: &Self) -> Vec<(String, Nanos)> {
        let then = |number: &String| {
            let known = before.by_thread.iter().find(|(known, ..)| known == number);
            known.map_or(Nanos::ZERO, |(.., cpu)| *cpu)
        };
        let threads = self.by_thread.iter();
        threads.map(|(number, name, cpu)| (name.clone(), *cpu - then(number))).collect()
    }
}

/// Where the resident memory is: the program, the C library, heap, stacks, panel.
fn resident_parts(pid: u32) -> Result<Vec<(String, u64)>, Failure> {
    let mut parts: Vec<(String, u64)> = Vec::new();
    let mut current = String::new();
    for line in read(&format!("/proc/{pid}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib = kib.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
            let bytes = kib.unwrap_or(0) * 1_024;
            match parts.iter_mut().find(|(name, _)| *name == current) {
                Some((_, sum)) => *sum += bytes,
                None => parts.push((current.clone(), bytes)),
            }
        } else if first.contains('-') && !first.ends_with(':') {
            let path = words.nth(4).unwrap_or("anonymous: stacks, heap of threads");
            current = path.rsplit('/').next().unwrap_or(path).to_owned();
        }
    }
    parts.retain(|(_, bytes)| *bytes > 0);
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(parts)
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::machine(format!("{path}: {error}")))
}
