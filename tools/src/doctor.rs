//! `sinew doctor`: is this machine set up for real-time work, and if not, which command fixes it?
//!
//! Facts are gathered first, verdicts are pure functions of the facts, output comes last. Nothing
//! on the machine is changed: the commands are printed, never run.

mod checks;
mod facts;
mod report;

use std::io::IsTerminal;
use std::path::PathBuf;

pub(crate) use facts::{CoreProbe, Facts, Lock};
pub(crate) use report::{Check, VerdictCounts};

pub(crate) use checks::all as check_all;

use crate::exit::{Exit, Failure, Outcome};
use crate::host::HostFingerprint;

/// Checks whether this machine can run real-time control, and prints the fix for what is wrong.
///
/// Tries a SCHED_FIFO thread on every core it may use (at the lowest priority, for some
/// microseconds, so that nothing real-time is disturbed), locks its own memory, and reads back
/// what the kernel granted. Changes nothing. Run it as the user that will run the robot.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew doctor                    a table, and the commands that fix what is wrong
  sinew doctor --json -           the same for a script, on standard output
  sudo -u robot sinew doctor      as the user that matters

Exit codes:
  0  no check failed (warnings may remain)
  1  at least one check failed
  2  wrong usage
  3  the machine could not be examined, or the report not written")]
pub(crate) struct DoctorArgs {
    /// Write the report as JSON to a file, or to standard output with `-` (then without the table)
    #[arg(long, value_name = "PATH|-")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: DoctorArgs) -> Outcome {
    let facts = Facts::gather(Lock::Try).map_err(Failure::machine)?;
    let checks = check_all(&facts);
    let host = HostFingerprint::new(&facts, VerdictCounts::of(&checks));
    let unread = facts.unread();
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let written = match &args.json {
        None => Ok(()),
        Some(_) if to_stdout => {
            report::write_json(std::io::stdout().lock(), &host, &checks, &unread)
        }
        Some(path) => std::fs::File::create(path)
            .and_then(|file| report::write_json(file, &host, &checks, &unread)),
    };
    written.map_err(|error| {
        let place = args.json.as_deref().unwrap_or(std::path::Path::new("-")).display();
        Failure::machine(format!("the report could not be written to {place}: {error}"))
    })?;
    if !to_stdout {
        let out = std::io::stdout();
        let width = (!out.is_terminal()).then_some(report::WIDTH);
        report::write_table(out.lock(), width, &host, &checks, &unread).map_err(|error| {
            Failure::machine(format!("the table could not be written: {error}"))
        })?;
    }
    Ok(if host.doctor.fail > 0 { Exit::Failed } else { Exit::Done })
}
