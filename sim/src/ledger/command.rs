//! `sinew-sim check`: the checker as a command.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::check::{Options, check};
use super::read::read;

/// Compare the ledgers of senders and receivers, and say which promises were broken.
///
/// Give the ledgers of all processes of a run: what was got is looked for in what was sent. Checked is
/// that nothing was got that was not sent as it was sent, that nothing was got twice, that epochs only
/// grow, and for topics that promise it that messages came in order with every loss reported and with
/// outcomes that agree.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew-sim check sender.ledger receiver.ledger
  sinew-sim check --complete --json report.json *.ledger

Exit codes:
  0  every promise was kept
  1  a promise was broken: each breach with its ledger and line
  2  wrong usage
  3  a ledger cannot be read, or the report not be written")]
pub struct CheckArgs {
    /// The ledgers of all processes
    #[arg(value_name = "LEDGER", required = true)]
    ledgers: Vec<PathBuf>,
    /// Every process must have ended in good order, with nothing left to be delivered
    #[arg(long)]
    complete: bool,
    /// A receiver that was there before a sender must be told what it missed of its beginning
    #[arg(long)]
    strict_join: bool,
    /// A message may come once more after its receiver restarted
    #[arg(long)]
    again_after_restart: bool,
    /// Write the report as JSON to a file, or to standard output with `-` (then without the text)
    #[arg(long, value_name = "PATH|-")]
    json: Option<PathBuf>,
}

/// Runs the checker.
#[must_use]
pub fn run(args: &CheckArgs) -> ExitCode {
    match compare(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("sinew-sim: {message}");
            ExitCode::from(3)
        }
    }
}

fn compare(args: &CheckArgs) -> Result<bool, String> {
    let mut ledgers = Vec::with_capacity(args.ledgers.len());
    for path in &args.ledgers {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("cannot read {}: {error}; give the ledger that a peer wrote", path.display())
        })?;
        let ledger = read(&path.display().to_string(), &bytes);
        if ledger.lives.is_empty() {
            let path = path.display();
            return Err(format!("{path} is no ledger: give one that `sinew-sim peer` wrote"));
        }
        ledgers.push(ledger);
    }
    let options = Options {
        strict_join: args.strict_join,
        again_after_restart: args.again_after_restart,
        complete: args.complete,
    };
    let report = check(&ledgers, options);
    let json = || report.json().map_err(|error| error.to_string());
    let mut out = std::io::stdout().lock();
    let printed = match args.json.as_deref() {
        Some(path) if path.as_os_str() == "-" => writeln!(out, "{}", json()?),
        Some(path) => {
            std::fs::write(path, json()? + "\n").map_err(|error| {
                format!("cannot write {}: {error}; give a path that you may write", path.display())
            })?;
            out.write_all(report.text().as_bytes())
        }
        None => out.write_all(report.text().as_bytes()),
    };
    match printed {
        // A reader that went away (`| head`) is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(report.violations == 0),
    }
}
