//! `sinew sim`: hands over to the simulator, a program of its own.
//!
//! The simulator's build of the protocol can be told to cheat (cheap signatures, planted faults), which
//! no program that runs robots may contain. So it is another binary, found beside this one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::exit::{Failure, Outcome};

/// Whole nodes in virtual time: faults from a seed, and invariants checked after every event.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "\
Examples:
  sinew sim run --seeds 500              500 runs of a minute with faults of all kinds
  sinew sim run --first 17 --seeds 1     the run of seed 17 again, event by event the same
  sinew sim --help                       everything that the simulator can do

The simulator is a binary of its own, `sinew-sim`, beside this one:
  cargo build --release -p sinew-sim

Exit codes: 0 no promise was broken, 1 one was, 2 usage, 3 there is no simulator or a report could not be
written.",
    disable_help_flag = true
)]
pub(crate) struct SimArgs {
    /// What to hand over; see `sinew sim --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The simulator's name.
const PROGRAM: &str = "sinew-sim";

pub(crate) fn run(args: &SimArgs) -> Outcome {
    let own = std::env::current_exe().map_err(Failure::machine)?;
    hand_over(&own.with_file_name(PROGRAM), &args.arguments)
}

/// Becomes `program`; comes back only when that fails.
fn hand_over(program: &Path, arguments: &[OsString]) -> Outcome {
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::machine(format!(
        "{}: {error}; build the simulator with `cargo build --release -p sinew-sim`",
        program.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_simulator_it_says_how_to_build_it() {
        let failure = hand_over(Path::new("/nowhere/sinew-sim"), &[]).unwrap_err();
        assert!(failure.message.contains("cargo build --release -p sinew-sim"), "{failure:?}");
    }
}
