//! `sinew key`: identities in files that only their owner can read.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use sinew_io::security::keyfile::{self, KeyFileError};
use sinew_io::security::{Identity, PublicKey};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::JsonArgs;

/// Make and show the identities that nodes prove with signatures.
#[derive(Args)]
#[command(arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  sinew key new robot.key
  sinew key show robot.key

Exit codes: 0 done · 2 the file cannot be used · 3 no JSON could be written")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a new identity and print its public name
    ///
    /// The file gets mode 0600 and is never overwritten. The public name (did:key:…) is what other
    /// nodes put into their configuration; the file itself never leaves the machine.
    #[command(after_help = "\
Examples:
  sinew key new robot.key            the public name is printed
  sinew key new robot.key --json -   the same for a script

Exit codes: 0 made · 2 the file exists, or its place cannot be used · 3 no JSON could be written")]
    New(FileArgs),
    /// Print the public name of an identity
    ///
    /// Refuses, as a node would, a file that others can read, that belongs to somebody else, or
    /// that is a symbolic link. Never prints the secret.
    #[command(after_help = "\
Examples:
  sinew key show robot.key
  sinew key show robot.key --json - | jq -r .identity

Exit codes: 0 shown · 2 the file cannot be used as a key · 3 no JSON could be written")]
    Show(FileArgs),
}

#[derive(Args)]
struct FileArgs {
    /// The key file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Serialize)]
struct KeyReport<'a> {
    version: u32,
    report: &'static str,
    identity: String,
    file: &'a std::path::Path,
}

pub(crate) fn run(args: KeyArgs) -> Outcome {
    match args.command {
        KeyCommand::New(args) => {
            let parent = args.file.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(missing) = parent.filter(|parent| !parent.exists()) {
                let missing = missing.display();
                return Err(Failure::usage(format!(
                    "{missing}: no such directory; make it with `mkdir -m 700 {missing}`"
                )));
            }
            // Before a key exists that nobody was told of.
            args.json.check_writable()?;
            let identity = Identity::generate().map_err(Failure::machine)?;
            keyfile::store(&args.file, &identity).map_err(unusable)?;
            show(identity.public(), &args)
        }
        KeyCommand::Show(args) => {
            let identity = keyfile::load(&args.file).map_err(unusable)?;
            show(identity.public(), &args)
        }
    }
}

fn unusable(error: KeyFileError) -> Failure {
    Failure::usage(error)
}

fn show(public: &PublicKey, args: &FileArgs) -> Outcome {
    let identity = public.to_did();
    let report = KeyReport { version: 1, report: "key", identity, file: &args.file };
    args.json.hand_out(|| format!("{}\n", report.identity), &report)?;
    Ok(Exit::Done)
}
