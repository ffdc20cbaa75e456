//! The `sinew-sim` command.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Put Sinew through faults: simulated, or real processes behind a relay.
#[derive(Parser)]
#[command(name = "sinew-sim", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(about = "Stand between real processes and treat their traffic as a scenario says")]
    Relay(sinew_sim::relay::command::RelayArgs),
    #[command(about = "Compare the ledgers of senders and receivers")]
    Check(sinew_sim::ledger::command::CheckArgs),
    #[command(about = "Run a node that publishes and keeps a ledger")]
    Peer(sinew_sim::relay::peer::PeerArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Relay(args) => sinew_sim::relay::command::run(&args),
        Command::Check(args) => sinew_sim::ledger::command::run(&args),
        Command::Peer(args) => sinew_sim::relay::peer::run(&args),
    }
}
