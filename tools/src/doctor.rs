//! `sinew doctor`: is this machine set up for real-time work, and if not, which command fixes it?
//!
//! Facts are gathered first, verdicts are pure functions of the facts, output comes last. Nothing
//! on the machine is changed: the commands are printed, never run.

mod checks;
mod facts;
mod report;

use std::io::IsTerminal;

pub(crate) use facts::{CoreProbe, Facts, Lock};
pub(crate) use report::{Check, VerdictCounts};

pub(crate) use checks::all as check_all;

use crate::exit::{Exit, Failure, Outcome};
use crate::host::HostFingerprint;
use crate::output::JsonArgs;

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
    #[command(flatten)]
    json: JsonArgs,
}

pub(crate) fn run(args: DoctorArgs) -> Outcome {
    let facts = Facts::gather(Lock::Try).map_err(Failure::machine)?;
    let checks = check_all(&facts);
    let host = HostFingerprint::new(&facts, VerdictCounts::of(&checks));
    let unread = facts.unread();
    let table = || {
        let width = (!std::io::stdout().is_terminal()).then_some(report::WIDTH);
        report::table(width, &host, &checks, &unread)
    };
    args.json.hand_out(table, &report::json(&host, &checks, &unread))?;
    Ok(if host.doctor.fail > 0 { Exit::Failed } else { Exit::Done })
}
