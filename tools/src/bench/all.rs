//! `sinew bench all`: every measurement one after the other, in one report.

use sinew_rt::topology::Topology;

use super::load::LoadArgs;
use super::report::{OutputArgs, Run};
use super::{crypto, guard, hop, interrupted, noise, pipeline, progress, wake};
use crate::exit::{Exit, Failure, Outcome};

/// How long everything takes together, in seconds, unless the user says otherwise.
const SECONDS: u32 = 300;
const QUICK_SECONDS: u32 = 60;

/// Every measurement one after the other, in one report: wake, noise, hop, crypto, guard, pipeline.
///
/// Each part is the command that its note names, so that one can be repeated for longer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench all                              5 minutes
  sinew bench all --quick --json -             a look in about 1 minute, for a script
  sinew bench all --load cpu,memory,net,disk   idle and under load, twice as long")]
pub(crate) struct AllArgs {
    #[command(flatten)]
    output: OutputArgs,
    /// SCHED_FIFO priority of the measuring threads
    #[arg(short, long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    priority: u8,
    /// One minute instead of five
    #[arg(long, conflicts_with = "seconds")]
    quick: bool,
    /// How long everything takes together, about and without load, in seconds
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(20..=86_400))]
    seconds: Option<u32>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &AllArgs) -> Outcome {
    let mut run = Run::start(&args.output)?;
    let topology = Topology::read().map_err(Failure::machine)?;
    let parts = args.parts(topology.usable_cores().len());
    let mut not_measured = 0;
    for (n, part) in parts.iter().enumerate() {
        let line = format!("sinew bench {} {}", part.name, part.arguments.join(" "));
        if interrupted() {
            run.note(format!("{}: not measured", part.name));
            continue;
        }
        progress("all", 0).println(format!("{} of {}: {line}", n + 1, parts.len()));
        let outcome = run.section(part.name, |run| {
            run.note(format!("measured by {line}"));
            (part.measure)(&part.arguments, run)
        });
        match outcome {
            // What this machine cannot do must not cost what it can.
            Err(failure) if failure.exit == Exit::Machine => {
                run.note(format!("{}: not complete: {}", part.name, failure.message));
                not_measured += 1;
            }
            outcome => outcome?,
        }
    }
    if not_measured == parts.len() {
        run.brand("no part could be measured; the notes say why");
    }
    run.finish(&args.output)
}

/// One of the measurements, as a command line and what runs it.
struct Part {
    name: &'static str,
    arguments: Vec<String>,
    measure: fn(&[String], &mut Run) -> Result<(), Failure>,
}

impl AllArgs {
    /// The parts, with their shares of the time, on a machine with so many cores.
    fn parts(&self, cores: usize) -> Vec<Part> {
        let total = self.seconds.unwrap_or(if self.quick { QUICK_SECONDS } else { SECONDS });
        let seconds = |share: f64| (f64::from(total) * share).max(1.0) as u32;
        // A core is watched 4 s of 5, one core after the other.
        let noise = seconds(0.15 * 0.8 / cores.max(1) as f64);
        let loaded = true;
        let part = |name, options: String, can_load, measure| {
            let mut arguments: Vec<String> =
                options.split_whitespace().map(ToOwned::to_owned).collect();
            arguments.push(format!("--priority={}", self.priority));
            if self.output.require {
                arguments.push("--require".to_owned());
            }
            if can_load && !self.load.is_empty() {
                arguments.push(format!("--load={}", self.load));
            }
            Part { name, arguments, measure }
        };
        vec![
            part("wake", format!("--seconds={}", seconds(0.15)), loaded, |line, run| {
                wake::measure(&parse(line)?, run)
            }),
            part("noise", format!("--seconds={noise}"), loaded, |line, run| {
                noise::measure(&parse(line)?, run)
            }),
            part(
                "hop",
                format!("--part=matrix,bare --seconds={}", seconds(0.2)),
                loaded,
                |line, run| hop::measure(&parse(line)?, run),
            ),
            part("crypto", format!("--seconds={}", seconds(0.1)), !loaded, |line, run| {
                crypto::measure(&parse(line)?, run)
            }),
            part("guard", format!("--seconds={}", seconds(0.1)), !loaded, |line, run| {
                guard::measure(&parse(line)?, run)
            }),
            part(
                "pipeline",
                format!("--park --paced --seconds={}", seconds(0.25)),
                loaded,
                |line, run| pipeline::measure(&parse(line)?, run),
            ),
        ]
    }
}

/// Reads a part's options as its own command would.
fn parse<A: clap::Args>(line: &[String]) -> Result<A, Failure> {
    let command = A::augment_args(clap::Command::new("sinew bench")).no_binary_name(true);
    let matches = command.try_get_matches_from(line).map_err(Failure::usage)?;
    A::from_arg_matches(&matches).map_err(Failure::usage)
}

#[cfg(test)]
mod tests {
    use super::super::forms::Checked;
    use super::*;

    fn parsed(line: &[&str]) -> AllArgs {
        let line: Vec<_> = line.iter().map(ToString::to_string).collect();
        parse(&line).unwrap()
    }

    #[test]
    fn every_part_is_a_command_line_that_its_command_understands() {
        for line in [&[][..], &["--quick"], &["--load=cpu,disk", "--require", "--seconds=20"]] {
            for cores in [1, 2, 64] {
                for part in parsed(line).parts(cores) {
                    let all = &part.arguments;
                    let understood = match part.name {
                        "wake" => parse::<wake::WakeArgs>(all).err(),
                        "noise" => parse::<noise::NoiseArgs>(all).err(),
                        "hop" => parse::<Checked<hop::HopArgs>>(all).err(),
                        "crypto" => parse::<crypto::CryptoArgs>(all).err(),
                        "guard" => parse::<guard::GuardArgs>(all).err(),
                        _ => parse::<Checked<pipeline::PipelineArgs>>(all).err(),
                    };
                    assert!(understood.is_none(), "{}: {all:?}: {understood:?}", part.name);
                }
            }
        }
    }

    #[test]
    fn the_parts_share_the_time() {
        let seconds = |args: &AllArgs| -> f64 {
            let parts = args.parts(2);
            let of = |part: &Part| {
                let text = part.arguments.iter().find_map(|a| a.strip_prefix("--seconds="));
                let seconds: f64 = text.unwrap().parse().unwrap();
                if part.name == "noise" { seconds * 2.0 / 0.8 } else { seconds }
            };
            parts.iter().map(of).sum()
        };
        for (line, total) in [(&[][..], 300.0), (&["--quick"], 60.0), (&["--seconds=40"], 40.0)] {
            let shared = seconds(&parsed(line));
            assert!(shared > total * 0.85 && shared < total * 1.02, "{shared} of {total}");
        }
    }
}
