//! `sinew node`: a node as a daemon, and how one is, from its panel alone.

pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod topics;

use clap::{Args, Subcommand};

use crate::exit::Outcome;

/// Run a node from its configuration, or ask how one is.
#[derive(Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sinew node run sinew.toml
  sinew node status robot

Exit codes:
  0  done, or all is well
  1  a node failed or is not healthy
  2  wrong usage or configuration
  3  this machine refused, or there is no such node")]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Subcommand)]
enum NodeCommand {
    #[command(about = "Start the node of a sinew.toml and run it until SIGTERM or Ctrl-C")]
    Run(run::RunArgs),
    #[command(about = "Say how a node is, from its panel alone")]
    Status(status::StatusArgs),
}

pub(crate) fn run(args: NodeArgs) -> Outcome {
    match args.command {
        NodeCommand::Run(args) => run::run(args),
        NodeCommand::Status(args) => status::run(args),
    }
}
