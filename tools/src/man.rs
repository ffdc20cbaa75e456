//! `sinew man`: manual pages, made from the same text as `--help`.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Print a manual page, or write those of all commands.
///
/// The text is that of `--help`: a page for `sinew` and one for each subcommand, such as
/// sinew-topic-echo(1).
#[derive(Args)]
#[command(after_help = "\
Examples:
  sinew man topic echo | man -l -
  sinew man --out ~/.local/share/man/man1      then `man sinew-topic-echo`
  sudo sinew man --out /usr/local/share/man/man1

Exit codes: 0 written · 2 no such command · 3 the directory or a page cannot be written")]
pub(crate) struct ManArgs {
    /// Whose page is printed, such as `topic echo`; of `sinew` itself when none is named
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory, which is made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Outcome {
    let pages = pages(crate::Cli::command()).map_err(Failure::machine)?;
    let Some(dir) = &args.out else {
        let wanted = [&["sinew".to_owned()], &args.command[..]].concat().join("-");
        let Some(page) = pages.iter().find(|page| page.name == wanted) else {
            let names: Vec<_> = pages.iter().map(|page| page.name.replace('-', " ")).collect();
            let wanted = wanted.replace('-', " ");
            return Err(Failure::usage(format!(
                "no command `{wanted}`; there is {}",
                names.join(", ")
            )));
        };
        output::print(&page.text)?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(dir).map_err(|error| output::cannot_write(dir, &error))?;
    for page in &pages {
        output::write_file(&dir.join(format!("{}.1", page.name)), page.text.as_bytes())?;
    }
    output::print(&format!("{} pages in {}\n", pages.len(), dir.display()))?;
    Ok(Exit::Done)
}

struct Page {
    /// Such as `sinew-topic-echo`.
    name: String,
    text: String,
}

/// The pages of a command and of everything below it that is not hidden.
fn pages(mut command: Command) -> Result<Vec<Page>, String> {
    command.build();
    let mut pages = Vec::new();
    add(&command, None, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, above: Option<&str>, pages: &mut Vec<Page>) -> Result<(), String> {
    let own = command.get_name();
    let name = above.map_or_else(|| own.to_owned(), |above| format!("{above}-{own}"));
    let text = page(command, &name).map_err(|error| format!("{name}: {error}"))?;
    pages.push(Page { name: name.clone(), text });
    let shown = |below: &&Command| !below.is_hide_set() && below.get_name() != "help";
    command.get_subcommands().filter(shown).try_for_each(|below| add(below, Some(&name), pages))
}

fn page(command: &Command, name: &str) -> Result<String, String> {
    // Its subcommands are referred to as `sinew-topic-echo(1)`, so the name has to be the whole one.
    let long_name: &'static str = name.to_owned().leak();
    let version = env!("CARGO_PKG_VERSION");
    let titled = command.clone().name(long_name).display_name(long_name).version(version);
    let man = Man::new(titled).title(name).source(format!("sinew {version}")).manual("Sinew");
    let mut bytes = Vec::new();
    let mut render = || {
        man.render_title(&mut bytes)?;
        man.render_name_section(&mut bytes)?;
        man.render_synopsis_section(&mut bytes)?;
        man.render_description_section(&mut bytes)?;
        man.render_options_section(&mut bytes)?;
        if command.get_subcommands().any(|below| !below.is_hide_set()) {
            man.render_subcommands_section(&mut bytes)?;
        }
        sections(command).to_writer(&mut bytes)
    };
    render().map_err(|error: std::io::Error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// What stands below the options: each `Heading:` is a section, with its lines as they are.
fn sections(command: &Command) -> Roff {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = text.map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    let mut within = false;
    for line in text.lines() {
        match heading(line) {
            Some((title, rest)) => {
                if within {
                    roff.control("fi", []);
                }
                roff.control("SH", [title.to_uppercase().as_str()]);
                roff.control("nf", []);
                within = true;
                if !rest.is_empty() {
                    roff.text([roman(rest)]);
                }
            }
            None if within => {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            None if line.is_empty() => {}
            None => {
                roff.control("PP", []);
                roff.text([roman(line)]);
            }
        }
    }
    if within {
        roff.control("fi", []);
    }
    roff
}

/// `Examples:` alone, or `Exit codes: 0 done` with what follows.
fn heading(line: &str) -> Option<(&str, &str)> {
    let (title, rest) = line.split_once(':')?;
    let words = title.chars().all(|c| c.is_ascii_alphabetic() || c == ' ' || c == ',');
    let named = title.starts_with(|c: char| c.is_ascii_uppercase()) && title.len() <= 40;
    (words && named).then_some((title, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that people can see, as `sinew topic echo`.
    fn commands() -> Vec<(String, Command)> {
        fn add(command: &Command, above: &str, all: &mut Vec<(String, Command)>) {
            let name = format!("{above} {}", command.get_name()).trim_start().to_owned();
            all.push((name.clone(), command.clone()));
            let shown = |below: &&Command| !below.is_hide_set() && below.get_name() != "help";
            command.get_subcommands().filter(shown).for_each(|below| add(below, &name, all));
        }
        let mut all = Vec::new();
        let mut command = crate::Cli::command();
        command.build();
        add(&command, "", &mut all);
        assert!(all.len() > 15, "{}", all.len());
        all
    }

    #[test]
    fn every_command_says_what_it_is_for_and_shows_examples_and_exit_codes() {
        for (name, command) in commands() {
            assert!(command.get_about().is_some(), "`{name}` has no line that says what it is for");
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("\nExamples:\n"), "`{name} --help` has no `Examples:`\n{help}");
            // Those of a group hold for what is in it.
            let group = name.split(' ').count() <= 2;
            let exit_codes = !group || help.contains("\nExit codes");
            assert!(exit_codes, "`{name} --help` has no `Exit codes`\n{help}");
            for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
                let (has, id) = (option.get_help().is_some(), option.get_id());
                assert!(has, "`{name}`: nothing says what {id} is");
            }
        }
    }

    #[test]
    fn every_command_has_a_manual_page_with_its_examples() {
        let pages = pages(crate::Cli::command()).unwrap();
        let commands = commands();
        assert_eq!(pages.len(), commands.len());
        for (page, (name, _)) in pages.iter().zip(&commands) {
            assert_eq!(page.name, name.replace(' ', "-"));
            for section in ["NAME", "SYNOPSIS", "EXAMPLES"] {
                let heading = format!("\n.SH {section}\n");
                assert!(page.text.contains(&heading), "{name} has no {section}\n{}", page.text);
            }
        }
        let echo = pages.iter().find(|page| page.name == "sinew-topic-echo").unwrap();
        assert!(echo.text.contains("\nsinew topic echo arm/state \\-\\-config"), "{}", echo.text);
        assert!(echo.text.contains("\\fB\\-\\-count\\fR"), "{}", echo.text);
        // A doc comment on the variant of the enum would hide what the arguments say at length.
        assert!(echo.text.contains("\nTakes part as an observer"), "{}", echo.text);
    }
}
