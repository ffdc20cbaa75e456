//! The `sinew` command: demo, doctor, bench, histograms, keys and the node daemon.

mod doctor;

mod demo;

mod exit;
mod host;

use clap::{Parser, Subcommand};
use exit::{Exit, Outcome};

/// Hard-latency robot control: run, measure and look inside.
#[derive(Parser)]
#[command(name = "sinew", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    /// Say what this machine grants to real-time threads, and how to fix what it does not
    Doctor(doctor::DoctorArgs),
}

fn main() -> Exit {
    match run(Cli::parse().command) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("sinew: {}", failure.message);
            failure.exit
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(args),
    }
}
