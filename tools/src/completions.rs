//! `sinew completions`: what a shell needs to complete this command.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Print the completion script of a shell.
///
/// The shell then completes subcommands, options and their values. Make it anew after an update.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sinew completions bash > ~/.local/share/bash-completion/completions/sinew
  sinew completions zsh > ~/.zfunc/_sinew      with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  sinew completions fish > ~/.config/fish/completions/sinew.fish
  sinew completions elvish >> ~/.config/elvish/rc.elv
  sinew completions powershell >> $PROFILE
  eval \"$(sinew completions bash)\"      for this shell only

Exit codes: 0 printed · 2 wrong usage · 3 standard output does not take it")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "sinew", &mut script);
    output::print(&String::from_utf8(script).map_err(Failure::machine)?)?;
    Ok(Exit::Done)
}
