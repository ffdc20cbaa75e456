//! `sinew doctor`: is this machine set up for real-time work, and if not, which command fixes it?
//!
//! Facts are gathered first, verdicts are pure functions of the facts, output comes last. Nothing
//! on the machine is changed unless `--apply` is given.

mod apply;
mod capture;
mod checks;
mod facts;
mod purpose;
mod report;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sinew_rt::topology::Topology;

pub(crate) use checks::all as check_all;
pub(crate) use facts::{CoreProbe, Facts, Lock};
pub(crate) use report::VerdictCounts;

use crate::exit::{Exit, Failure, Outcome};
use crate::host::HostFingerprint;
use crate::output::JsonArgs;
use purpose::Purpose;
use report::Report;

/// Longest look.
const MAX_WATCH_S: f64 = 3600.0;

/// Checks whether this machine can run real-time control, and prints the fix for what is wrong.
///
/// Tries a SCHED_FIFO thread on every core it may use (at the lowest priority, for some
/// microseconds, so that nothing real-time is disturbed), locks its own memory, reads back what the
/// kernel granted, and watches for half a second what interrupts and tasks do. Changes nothing
/// without --apply. Run it as the user that will run the robot.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew doctor                         a table, and the commands that fix what is wrong
  sinew doctor --for sinew.toml        exactly the cores and priorities of that node
  sinew doctor --watch 60              look longer for interrupts, throttling, dropped datagrams
  sudo sinew doctor --apply            write the fixes that last until the next boot, after asking
  sinew doctor --json -                the report for a script, on standard output
  sudo -u robot sinew doctor           as the user that matters
  sinew doctor --capture robot.tar.gz  what the doctor reads of this machine, to judge elsewhere
  sinew doctor --root robot.tar.gz     the same checks on that machine

What a capture has: kernel release and version, settings of the scheduler, memory, power, interrupts and
network devices, scheduling of all tasks, names of those that are real-time or the kernel's, capabilities
and limits. What it has not: names of other programs, of cgroups, and of bridges and tunnels; arguments, the
host's name, hardware and network addresses, serial numbers, and parameters of the kernel's command line that
the doctor does not judge.

Every check is explained in docs/doctor.md.

Exit codes:
  0  no check failed (warnings may remain)
  1  at least one check failed
  2  wrong usage or configuration, or nothing was to be written
  3  the machine could not be examined, a fix was refused, or the report not written")]
pub(crate) struct DoctorArgs {
    /// Judge the cores, priorities and waits of this configuration
    #[arg(long = "for", value_name = "sinew.toml")]
    config: Option<PathBuf>,
    /// Look for this many seconds at what must not grow
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = watch)]
    watch: Duration,
    /// Read a captured machine: a directory with its proc and sys, or a file made with --capture
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "watch")]
    root: Option<PathBuf>,
    /// Write what the doctor reads of this machine into an archive (.tar.gz or .tar), and judge nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "config", "json", "apply"])]
    capture: Option<PathBuf>,
    /// Write the fixes that last until the next boot: shows each, asks, and keeps an undo script here
    #[arg(long)]
    apply: bool,
    /// Do not ask before writing
    #[arg(long, requires = "apply")]
    yes: bool,
    #[command(flatten)]
    json: JsonArgs,
}

fn watch(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    match (0.0..=MAX_WATCH_S).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("give 0 to {MAX_WATCH_S} seconds")),
    }
}

pub(crate) fn run(args: DoctorArgs) -> Outcome {
    if let Some(path) = &args.capture {
        return capture::write(path, args.watch);
    }
    args.json.check_writable()?;
    let captured = args.root.as_deref().map(capture::open).transpose()?;
    if args.apply && captured.as_ref().is_some_and(|captured| captured.unpacked.is_some()) {
        return Err(Failure::usage(
            "--apply cannot change the machine in an archive; unpack it, or run on the machine",
        ));
    }
    let root = captured.as_ref().map(|captured| captured.root.as_path());
    let mut begin = Instant::now();
    let mut facts = gather(root, &args)?;
    let mut checks = check_all(&facts);
    let mut applied = None;
    if args.apply {
        let done = apply::apply(root.unwrap_or(Path::new("/")), &checks, args.yes)?;
        if !done.writes.is_empty() {
            begin = Instant::now();
            facts = gather(root, &args)?;
            checks = check_all(&facts);
        }
        applied = Some(done);
    }
    let counts = VerdictCounts::of(&checks);
    let report = Report {
        host: HostFingerprint::new(&facts, counts),
        judged: report::Judged::new(&facts, args.root.as_deref()),
        summary: report::summary(counts, &checks),
        took_ms: begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        unread: facts.unread(),
        applied,
        checks,
    };
    let width = (!std::io::stdout().is_terminal()).then_some(report::WIDTH);
    args.json.hand_out(|| report.to_text(width), &report.to_json())?;
    let refused = report.applied.as_ref().map_or(0, apply::Applied::refused);
    match (refused, counts.fail) {
        (1.., _) => Err(Failure::machine(format!(
            "{refused} of the fixes were refused; run as root, and see the reasons above"
        ))),
        (_, 1..) => Ok(Exit::Failed),
        _ => Ok(Exit::Done),
    }
}

fn gather(root: Option<&Path>, args: &DoctorArgs) -> Result<Facts, Failure> {
    let topology = match root {
        Some(root) => Topology::read_from(root),
        None => Topology::read(),
    };
    let topology = topology.map_err(Failure::machine)?;
    let purpose = match &args.config {
        Some(config) => Purpose::of(config, &topology)?,
        None => Purpose::any(&topology),
    };
    let Some(root) = root else {
        let mut facts = Facts::live(topology, purpose, Lock::Try);
        if !args.watch.is_zero() {
            facts.watch(args.watch);
        }
        return Ok(facts);
    };
    Ok(Facts::captured(root, topology, purpose))
}
