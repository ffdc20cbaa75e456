//! The `sinew` command: demo, doctor, bench, histograms, keys and the node daemon.

mod bench;
mod completions;
mod demo;
mod doctor;
mod exit;
mod hist;
mod host;
mod key;
mod man;
mod mathematics;
mod messages;
mod node;
mod output;
mod panels;
mod plot;
mod sim;
mod top;
mod topic;
mod tune;

use clap::{Parser, Subcommand};
use exit::{Exit, Outcome};

/// Hard-latency robot control: run, measure and look inside.
#[derive(Parser)]
#[command(name = "sinew", version, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sinew demo                     see it run
  sinew doctor                   is this machine set up for real-time work?
  sinew bench wake               how late a periodic loop wakes up here
  sinew hist robot               which microsecond went where in the node `robot`
  sinew topic list               what the nodes on this machine say to each other
  sinew COMMAND --help           more, with examples

Exit codes of every subcommand:
  0  done, and within budget
  1  ran, and the verdict is a failure
  2  wrong usage or configuration
  3  this machine cannot do what was asked, or does not have it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// `about` and no doc comments, which would take the place of what the arguments of each say at length.
#[derive(Subcommand)]
enum Command {
    #[command(about = "Measure this machine and this program on it")]
    Bench(bench::BenchArgs),
    #[command(
        about = "Balance a pole over the wire: a robot and its controller, killed and restarted"
    )]
    Demo(demo::DemoArgs),
    #[command(
        about = "Say what this machine grants to real-time threads, and how to fix what it does not"
    )]
    Doctor(doctor::DoctorArgs),
    #[command(
        about = "Show how long every stage took, from the panel of a running or dead process"
    )]
    Hist(hist::HistArgs),
    #[command(about = "Make and show identities")]
    Key(key::KeyArgs),
    #[command(about = "Run a node from its configuration, or ask how one is")]
    Node(node::NodeArgs),
    #[command(about = "Run whole nodes in virtual time, with faults from a seed")]
    Sim(sim::SimArgs),
    #[command(about = "Watch every node on this machine: stages, loops, messages, trips")]
    Top(top::TopArgs),
    #[command(about = "Look into running traffic by name")]
    Topic(topic::TopicArgs),
    #[command(about = "Measure which settings suit this machine, and write them with the reasons")]
    Tune(tune::TuneArgs),
    #[command(about = "Print the completion script of a shell")]
    Completions(completions::CompletionsArgs),
    #[command(about = "Print a manual page, or write those of all commands")]
    Man(man::ManArgs),
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
        Command::Bench(args) => bench::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Hist(args) => hist::run(args),
        Command::Key(args) => key::run(args),
        Command::Node(args) => node::run(args),
        Command::Sim(args) => sim::run(&args),
        Command::Top(args) => top::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn options(command: &clap::Command, found: &mut Vec<(String, String)>) {
        for option in command.get_arguments() {
            if let Some(name) = option.get_long() {
                let help = option.get_help().map(ToString::to_string).unwrap_or_default();
                found.push((format!("{} --{name}", command.get_name()), help));
            }
        }
        command.get_subcommands().for_each(|command| options(command, found));
    }

    #[test]
    fn an_option_that_is_a_time_has_its_unit_in_its_name_and_in_its_help() {
        let mut found = Vec::new();
        options(&Cli::command(), &mut found);
        let mut times = 0;
        for (name, help) in &found {
            for (unit, ending) in [("µs", "-us"), ("in seconds", "seconds")] {
                assert_eq!(help.contains(unit), name.ends_with(ending), "{name}: {help}");
                times += u32::from(name.ends_with(ending));
            }
        }
        assert!(times >= 5, "{found:?}");
    }
}
