//! `sinew topic`: look into running traffic by name, as ROS users expect.
//!
//! `list`, and `hz` without a configuration, only read the panels of nodes on this machine. To see or
//! send messages takes an identity of one's own, which must be enrolled at the other end like any peer.

mod assign;
mod diagnosis;
mod echo;
mod hz;
mod list;
mod observer;
mod panels;
mod publish;
mod show;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use clap::{Args, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Failure, Outcome};

/// Look into running traffic by name.
///
/// `list` and `hz` read the panels of the nodes on this machine, need no identity, and no node
/// notices. `echo` and `pub` (and `hz --config`) take part as an observer: a node with an identity of its
/// own, at ordinary priority, which the other end must have enrolled like any peer. docs/topic.md
/// has the lines for both configurations.
#[derive(Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sinew topic list
  sinew topic hz arm/state
  sinew topic echo arm/state --config observer.toml
  sinew topic pub arm/setpoint JointSetpoint 'drive = effort, effort = [0.5]' --config observer.toml

Exit codes: 0 done · 1 nothing arrived · 2 wrong usage or configuration · 3 this machine cannot, and why")]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand)]
enum TopicCommand {
    #[command(
        about = "Show every topic of the nodes on this machine: type, ends, rate, age, drops"
    )]
    List(list::ListArgs),
    #[command(about = "Show the messages of a topic, decoded")]
    Echo(echo::EchoArgs),
    #[command(about = "Measure the rate of a topic, the age of its messages, and its jitter")]
    Hz(hz::HzArgs),
    #[command(about = "Publish messages of a known type, for tests")]
    Pub(publish::PubArgs),
}

pub(crate) fn run(args: TopicArgs) -> Outcome {
    // From here on an interrupt ends the run in good order, with what was seen so far.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, INTERRUPTED.clone()).map_err(Failure::machine)?;
    }
    match args.command {
        TopicCommand::List(args) => list::run(&args),
        TopicCommand::Echo(args) => echo::run(&args),
        TopicCommand::Hz(args) => hz::run(&args),
        TopicCommand::Pub(args) => publish::run(&args),
    }
}

/// How many messages of a stream were left out before the one with this number, when the last one had
/// the number `last`. One that was overtaken by its successor leaves out none.
fn missed(last: u64, number: u64) -> u64 {
    number.saturating_sub(last.saturating_add(1))
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether Ctrl-C was pressed, the end asked for, or nobody reads what we print (`| head`).
fn is_over() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) || crate::output::is_unread()
}

#[cfg(test)]
mod tests {
    use super::missed;

    #[test]
    fn what_is_left_out_is_counted_and_what_comes_late_is_not_counted_again() {
        assert_eq!([missed(4, 5), missed(4, 8), missed(5, 4), missed(4, 4)], [0, 3, 0, 0]);
        assert_eq!(missed(u64::MAX, 1), 0, "nobody makes us count to the end");
    }
}
