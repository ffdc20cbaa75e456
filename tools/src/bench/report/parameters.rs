//! The command line: as a person repeats it, and as what decides the figures.

use std::collections::BTreeMap;

use clap::{Args, Command, CommandFactory};

use super::OutputArgs;

/// Options that only say where something goes, beside those of [`OutputArgs`].
const FILES: [&str; 1] = ["histogram"];

/// The command line that reproduces the run.
pub(crate) fn command_line() -> String {
    let quoted = |argument: String| match argument.contains(char::is_whitespace) {
        true => format!("'{argument}'"),
        false => argument,
    };
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|argument| quoted(argument.to_string_lossy().into_owned()));
    std::iter::once("sinew".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Every option of this run that decides figures, with its value, defaults included. Empty where
/// something else than this command's `main` measures, as in a test.
pub(super) fn parameters() -> BTreeMap<String, String> {
    of(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}

fn of(arguments: impl IntoIterator<Item = String>) -> BTreeMap<String, String> {
    let mut command = crate::Cli::command();
    let Ok(matches) = command.try_get_matches_from_mut(arguments) else { return BTreeMap::new() };
    let (mut command, mut matches) = (&command, &matches);
    let mut path = Vec::new();
    while let Some((name, inner)) = matches.subcommand() {
        let Some(next) = command.find_subcommand(name) else { break };
        (command, matches) = (next, inner);
        path.push(name);
    }
    let outputs = OutputArgs::augment_args(Command::new("outputs"));
    let mut parameters = BTreeMap::from([("command".to_owned(), path.join(" "))]);
    for argument in command.get_arguments() {
        let id = argument.get_id();
        if outputs.get_arguments().any(|output| output.get_id() == id)
            || FILES.contains(&id.as_str())
        {
            continue;
        }
        let Ok(Some(values)) = matches.try_get_raw(id.as_str()) else { continue };
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        parameters.insert(id.to_string().replace('_', "-"), values.join(","));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> BTreeMap<String, String> {
        of(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn parameters_are_the_same_however_they_are_written_and_wherever_the_report_goes() {
        let long =
            parsed("sinew bench wake --interval-us 250 --core 0 --json x.json --html x.html");
        let short = parsed("sinew bench wake -a 0 -i 250 -p 80 --baseline x.json --histogram x");
        assert_eq!(long, short);
        let wanted = [("command", "bench wake"), ("interval-us", "250"), ("loops", "10000")];
        for (name, value) in wanted {
            assert_eq!(long[name], value, "{long:?}");
        }
        assert_ne!(long, parsed("sinew bench wake -a 0 -i 251"));
    }

    #[test]
    fn a_command_line_of_another_program_has_no_parameters() {
        assert!(parsed("sinew --such-an-option").is_empty());
    }
}
