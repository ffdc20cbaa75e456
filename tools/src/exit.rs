//! How every subcommand ends: an exit code that scripts can rely on, and one line that says what to
//! do about a failure.

use std::fmt::Display;
use std::process::{ExitCode, Termination};

/// The exit codes of `sinew`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, and within budget.
    Done = 0,
    /// Ran, and the verdict is a failure.
    Failed = 1,
    /// Usage or configuration error.
    Usage = 2,
    /// This machine cannot do what was asked.
    Machine = 3,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// A subcommand that could not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    /// The user asked for something that makes no sense.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// The machine or the kernel will not do it.
    pub(crate) fn machine(message: impl Display) -> Self {
        Self { exit: Exit::Machine, message: message.to_string() }
    }
}

impl From<sinew_io::node::NodeError> for Failure {
    fn from(error: sinew_io::node::NodeError) -> Self {
        if error.is_config() { Self::usage(error) } else { Self::machine(error) }
    }
}

/// What a subcommand gives back.
pub(crate) type Outcome = Result<Exit, Failure>;
