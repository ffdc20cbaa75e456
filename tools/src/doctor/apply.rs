//! Makes the fixes that consist of writing a value, after asking, and keeps the way back.
//!
//! Only what lasts until the next boot is written; what belongs on the kernel's command line, into
//! limits or into the firmware stays with the person who reads the report.

use std::fs;
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::report::{Check, Write};
use crate::exit::Failure;
use crate::output::cannot_write;

/// What became of the writes.
#[derive(Debug, Serialize)]
pub(super) struct Applied {
    /// What takes it all back.
    pub(super) undo_script: Option<PathBuf>,
    pub(super) writes: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    path: String,
    value: String,
    old: String,
    /// Why it is not in force, if it is not.
    pub(super) refused: Option<String>,
}

impl Applied {
    pub(super) fn refused(&self) -> usize {
        self.writes.iter().filter(|write| write.refused.is_some()).count()
    }
}

/// One write with what is really in the file now.
struct Planned<'a> {
    check: &'a Check,
    write: &'a Write,
    old: Result<String, io::Error>,
}

/// Writes the fixes of `checks` below `root`: shows each, asks unless told `yes`, and keeps a script
/// that undoes them in the directory that the user is in.
pub(super) fn apply(root: &Path, checks: &[Check], yes: bool) -> Result<Applied, Failure> {
    let mut planned: Vec<Planned<'_>> = checks
        .iter()
        .flat_map(|check| check.writes.iter().map(move |write| (check, write)))
        .map(|(check, write)| {
            let text = fs::read_to_string(below(root, &write.path));
            Planned { check, write, old: text.map(|text| current(&text)) }
        })
        .collect();
    if planned.is_empty() {
        eprintln!("nothing to apply: what remains needs more than a write (see the fixes)");
        return Ok(Applied { undo_script: None, writes: Vec::new() });
    }
    // It takes cores away, so it comes last, and its undo first: what is written for a core needs it.
    planned.sort_by_key(|planned| planned.write.path.ends_with("/smt/control"));
    eprintln!("These values would be written; they last until the next boot:");
    for Planned { check, write, old } in &planned {
        let old = match old {
            Ok(old) => old.clone(),
            Err(error) => format!("unreadable: {error}"),
        };
        eprintln!("  {:>2} {}: {} {old} -> {}", check.number, check.name, write.path, write.value);
    }
    if !yes && !agreed()? {
        return Err(Failure::usage("nothing was written"));
    }
    // The way back first: it must be there however this ends.
    let undo_script = keep_undo(root, &planned)?;
    eprintln!("To take it back: sh {}", undo_script.display());
    let writes = planned.iter().map(|planned| write_one(root, planned)).collect();
    Ok(Applied { undo_script: Some(undo_script), writes })
}

fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "--apply asks before it writes, and standard input is no terminal; nothing was written: add --yes if the list above is what you want",
        ));
    }
    eprint!("Write them? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::machine)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn write_one(root: &Path, planned: &Planned<'_>) -> Outcome {
    let Write { path, value, .. } = planned.write;
    let outcome = |old: &str, refused: Option<String>| Outcome {
        path: path.clone(),
        value: value.clone(),
        old: old.to_owned(),
        refused,
    };
    let old = match &planned.old {
        Ok(old) => old,
        // What cannot be read could not be put back.
        Err(error) => return outcome("", Some(format!("not written: {error}"))),
    };
    let file = below(root, path);
    let written = fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&file)
        .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
        .and_then(|()| fs::read_to_string(&file));
    let refused = match written {
        Err(error) => Some(error.to_string()),
        Ok(text) if is_in_force(path, &current(&text), value) => None,
        Ok(text) => Some(format!("read back as {}", current(&text))),
    };
    match &refused {
        None => eprintln!("  wrote {path}"),
        Some(why) => eprintln!("  {path}: {why}"),
    }
    outcome(old, refused)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// What is in force: of a file that lists what it would take, the chosen word.
fn current(text: &str) -> String {
    let text = text.trim();
    let chosen = |open, close| sinew_rt::files::chosen(text, open, close);
    chosen('[', ']').or_else(|| chosen('(', ')')).unwrap_or(text).to_owned()
}

/// Masks are read back with a zero for every four cores that the machine could have.
fn is_in_force(path: &str, now: &str, wanted: &str) -> bool {
    let digits = |mask: &str| mask.trim_start_matches(['0', ',']).to_owned();
    now == wanted || path.ends_with("/cpumask") && digits(now) == digits(wanted)
}

fn keep_undo(root: &Path, planned: &[Planned<'_>]) -> Result<PathBuf, Failure> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::machine)?;
    let name = PathBuf::from(format!("sinew-doctor-undo-{}.sh", stamp(since_1970.as_secs())));
    let root = std::path::absolute(root).map_err(Failure::machine)?;
    let mut script = String::from(
        "#!/bin/sh\n# Puts back what `sinew doctor --apply` changed, last change first. Run it as the same user.\nfailed=0\n",
    );
    for Planned { write, old, .. } in planned.iter().rev() {
        let Ok(old) = old else { continue };
        let path = below(&root, &write.path);
        let (old, path) = (quoted(old), quoted(&path.to_string_lossy()));
        script.push_str(&format!("printf '%s\\n' {old} > {path} || failed=1\n"));
    }
    script.push_str("exit $failed\n");
    let directory = std::env::current_dir().map_err(Failure::machine)?;
    let path = directory.join(name);
    fs::OpenOptions::new()
        .write(true)
        // Nobody else's file, and nobody's link, is written to.
        .create_new(true)
        .mode(0o700)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(script.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| cannot_write(&path, &error))?;
    Ok(path)
}

/// For the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// `20261121-153000`, in UTC, from seconds since 1970 (Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn stamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months are counted from March.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}", era * 400 + year + turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(stamp(0), "19700101-000000");
        assert_eq!(stamp(951_782_399), "20000228-235959");
        assert_eq!(stamp(951_782_400), "20000229-000000");
        assert_eq!(stamp(1_795_275_000), "20261121-153000");
        assert_eq!(stamp(4_102_444_800), "21000101-000000");
    }

    #[test]
    fn the_value_in_force_is_the_chosen_word() {
        assert_eq!(current("always [madvise] never\n"), "madvise");
        assert_eq!(current("none (voluntary) full\n"), "voluntary");
        assert_eq!(current("0-1\n"), "0-1");
    }

    #[test]
    fn a_mask_is_the_same_with_zeros_before_it() {
        let mask = "/sys/devices/virtual/workqueue/cpumask";
        assert!(is_in_force(mask, "03", "3"), "eight cores");
        assert!(is_in_force(mask, "00000001,00000000", "1,00000000"));
        assert!(!is_in_force(mask, "30", "3"));
        assert!(!is_in_force("/sys/kernel/mm/ksm/run", "00", "0"), "only masks");
    }

    #[test]
    fn the_shell_gets_text_as_it_is() {
        assert_eq!(quoted("a'b $c"), "'a'\\''b $c'");
    }
}
