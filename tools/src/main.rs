//! The `sinew` command: demo, doctor, bench, histograms, keys and the node daemon.

mod bench;
mod doctor;
mod exit;
mod host;

use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand};

/// Hard-latency robot control: run, measure and look inside.
#[derive(Parser)]
#[command(name = "sinew", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => return doctor::run(args),
    };
    match outcome {
        Ok(exit) => exit.report(),
        Err(failure) => {
            eprintln!("sinew: {}", failure.message);
            failure.exit.report()
        }
    }
}
