//! Seeds that failed once: a file of them, one a line, which is always run.
//!
//! ```text
//! # what was wrong, in words
//! 1234 nodes=8..16 seconds=60 faults=all
//! ```

use sinew_rt::clock::Nanos;

use crate::campaign::Campaign;
use crate::fault::FaultKind;
use crate::plan::Settings;

/// The file that belongs to this release.
pub const FILE: &str = include_str!("../failed-seeds.txt");

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; write `SEED nodes=A..B seconds=N faults=all|KIND,…`")]
pub struct PastError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// The runs that `text` lists, each as a campaign of one seed.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Campaign>, PastError> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| case(line).map_err(|problem| PastError { line: number, problem }))
        .collect()
}

fn case(line: &str) -> Result<Campaign, String> {
    let mut words = line.split_whitespace();
    let seed = words.next().unwrap_or_default();
    let first = seed.parse().map_err(|_| format!("`{seed}` is no seed"))?;
    let mut settings = Settings::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or(format!("`{word}` is no setting"))?;
        match key {
            "nodes" => (settings.nodes_min, settings.nodes_max) = nodes(value)?,
            "seconds" => {
                let seconds = value.parse().map_err(|_| format!("`{value}` is no number"))?;
                settings.length = Nanos::from_secs(seconds);
            }
            "faults" => settings.kinds = kinds(value)?,
            _ => return Err(format!("`{key}` is no setting")),
        }
    }
    Ok(Campaign { first, seeds: 1, settings, jobs: 1, ..Campaign::default() })
}

/// Reads `8..16`, or `8`.
///
/// # Errors
/// What is wrong with it.
pub fn nodes(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let most = most.trim_start_matches('=');
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no number of nodes"));
    let (least, most) = (number(least)?, number(most)?);
    let known = 2..=crate::plan::NODES_MAX;
    match known.contains(&least) && known.contains(&most) && least <= most {
        true => Ok((least, most)),
        false => {
            Err(format!("{least}..{most} nodes; 2 to {} are possible", crate::plan::NODES_MAX))
        }
    }
}

/// Reads `all`, `none`, or names of kinds with commas between.
///
/// # Errors
/// The name that is none, with those that are.
pub fn kinds(text: &str) -> Result<Vec<FaultKind>, String> {
    match text {
        "all" => return Ok(FaultKind::ALL.to_vec()),
        "none" => return Ok(Vec::new()),
        _ => {}
    }
    let kind = |name: &str| {
        FaultKind::from_name(name).ok_or_else(|| {
            let all: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("`{name}` is no kind of fault; there are all, none, {}", all.join(", "))
        })
    };
    text.split(',').map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_comments_are_not() {
        let text = "# words\n\n7 nodes=8..9 seconds=20 faults=loss,crash\n8\n";
        let cases = parse(text).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!((cases[0].first, cases[0].settings.nodes_max), (7, 9));
        assert_eq!(cases[0].settings.kinds, [FaultKind::Loss, FaultKind::Crash]);
        assert_eq!(cases[1].settings.length, Nanos::from_secs(60));
        assert_eq!(parse("x").unwrap_err().line, 1);
        assert!(parse("1 faults=rain").unwrap_err().to_string().contains("loss"));
        assert!(parse("1 nodes=9..8").is_err());
    }

    #[test]
    fn the_file_of_this_release_can_be_read() {
        parse(FILE).unwrap();
    }
}
