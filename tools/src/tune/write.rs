//! The `sinew.toml` that is written: each setting with its reason above it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sinew_io::node::DEFAULT_PRIORITY;
use sinew_rt::wait::Wait;

use super::candidates::Candidate;
use super::decide::{Choice, LOOP_PRIORITY};
use super::facts::Demands;
use crate::exit::Failure;
use crate::output::cannot_write;

/// Columns of a comment.
const WIDTH: usize = 96;

/// Signature checks a second that a node allows each peer unless it is told otherwise.
const CHECKS_BY_DEFAULT: u32 = 4_000;

/// Everything that the file says beside the settings.
pub(crate) struct Page<'a> {
    pub(crate) command: &'a str,
    pub(crate) host: &'a str,
    pub(crate) not_real_time: &'a [String],
    /// How it did, and whether the budget was met.
    pub(crate) results: &'a [String],
    pub(crate) choices: &'a [Choice],
    /// The cores of the control loops, as a list.
    pub(crate) loops: &'a str,
}

/// The `[realtime]` section, and `[admission]` where the rate needs one: what is tried and what is
/// written. `about` gives the comment above a setting.
pub(crate) fn settings(
    candidate: &Candidate,
    demands: &Demands,
    about: impl Fn(&str) -> String,
) -> String {
    let cores = |cores: &[sinew_rt::topology::CoreId]| {
        let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
        cores.join(", ")
    };
    let mut text = "[realtime]\n".to_owned();
    let mut set = |what: &str, line: &str| {
        text.push_str(&about(what));
        text.push_str(line);
        text.push('\n');
    };
    set("layout", &format!("layout = \"{}\"", candidate.layout));
    set("lane cores", &format!("cores = [{}]", cores(&candidate.cores)));
    set("priority", &format!("priority = {DEFAULT_PRIORITY}"));
    match candidate.wait {
        Wait::Park => set("wait", "wait = \"park\""),
        Wait::Spin => set("wait", "wait = \"spin\""),
        Wait::SpinThenPark { spin } => {
            let us = spin.as_nanos() / 1_000;
            set("wait", &format!("wait = \"spin-then-park\"\nspin_us = {us}"));
        }
    }
    set("keep-awake", &format!("keep_awake = [{}]", cores(&candidate.keep_awake)));
    text.push_str(&admission(demands));
    text
}

/// Room for a peer that sends at the rate, where the default has none.
pub(crate) fn admission(demands: &Demands) -> String {
    let needed = demands.rate_hz.saturating_mul(2);
    match needed > CHECKS_BY_DEFAULT {
        true => format!("\n[admission]\npeer_checks_per_s = {needed}\n"),
        false => String::new(),
    }
}

/// The whole file.
pub(crate) fn page(candidate: &Candidate, demands: &Demands, page: &Page<'_>) -> String {
    let about = |what: &str| {
        let choice = page.choices.iter().find(|choice| choice.what == what);
        choice.map(reason).unwrap_or_default()
    };
    let Demands { rate_hz, budget_us, .. } = demands;
    let mut text = comment(&format!("Written by `{}`.", page.command));
    text.push_str(&comment(page.host));
    text.push_str(&comment(&format!("For {rate_hz} messages a second and {budget_us} µs each.")));
    for reason in page.not_real_time {
        let what = "NOT REAL-TIME, so no ground to choose on: run it again with the rights";
        text.push_str(&comment(&format!("{what}: {reason}")));
    }
    text.push_str("#\n");
    page.results.iter().for_each(|result| text.push_str(&comment(result)));
    text.push_str(
        "\n[node]\nname = \"robot\"                 # yours\nmode = \"production\"\n\
         key = \"robot.key\"              # made by `sinew key new robot.key`\n\
         state_dir = \"state\"            # of this node alone\n\n\
         [transport]\nbind = \"127.0.0.1:7401\"        # yours\n\n",
    );
    text.push_str(&settings(candidate, demands, about));
    text.push('\n');
    text.push_str(&about("housekeeping core"));
    if !page.loops.is_empty() {
        text.push_str(&about("control loop cores"));
        let core = page.loops.split([',', '-']).next().unwrap_or_default();
        let line = format!(
            "In the program: ControlLoop::new(\"arm\").core(CoreId::new({core})).priority({LOOP_PRIORITY}); \
             cores of loops: {}.",
            page.loops
        );
        text.push_str(&comment(&line));
    }
    text.push_str(&about("kernel command line"));
    text.push_str(
        "\n# Whom it knows and what they say: see docs/configuration.md.\n# [[peer]]\n# name = \
         \"controller\"\n# identity = \"did:key:z6Mk…\"   # `sinew key show controller.key`\n# \
         address = \"127.0.0.1:7402\"\n# publishes = [\"arm/setpoint\"]\n",
    );
    text
}

/// A choice as a comment.
fn reason(choice: &Choice) -> String {
    let Choice { what, value, why, runner_up } = choice;
    let mut text = comment(&format!("{what}: {value}: {why}."));
    if let Some(other) = runner_up {
        text.push_str(&comment(&format!("  runner-up {}: {}.", other.value, other.cost)));
    }
    text
}

/// Lines of comment with `text`, broken at spaces.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let indent = &text[..text.len() - text.trim_start().len()];
    let mut line = format!("#{indent}");
    let empty = line.len();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > empty {
            let _ = writeln!(lines, "{line}");
            line.truncate(empty);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(lines, "{line}");
    lines
}

/// Finds out before a long run whether the file may be made, and leaves nothing.
pub(crate) fn check(path: &Path, force: bool) -> Result<(), Failure> {
    if path.exists() && !force {
        return Err(Failure::usage(format!(
            "{} exists already; give another --out, or --force to replace it",
            path.display()
        )));
    }
    let dir = directory(path);
    tempfile::tempfile_in(dir).map(drop).map_err(|error| cannot_write(path, &error))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the file as a whole or not at all.
pub(crate) fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| cannot_write(path, &error);
    let mut file = tempfile::Builder::new()
        .prefix(".sinew-tune-")
        // Only this user writes it: whoever can, names the peers. A node refuses other files.
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(directory(path))
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|error| cannot_write(path, &error.error))
}

#[cfg(test)]
mod tests {
    use sinew_io::node::{Layout, parse};
    use sinew_rt::clock::Nanos;
    use sinew_rt::topology::CoreId;

    use super::*;
    use crate::tune::tests::DEMANDS;

    fn page_of(candidate: &Candidate, demands: &Demands) -> String {
        let long = "because ".repeat(40);
        let choices = [Choice {
            what: "layout",
            value: "fused".to_owned(),
            why: format!("{long}\nof a line break"),
            runner_up: None,
        }];
        let page = super::Page {
            command: "sinew tune",
            host: "a host",
            not_real_time: &["no\nrights".to_owned()],
            results: &["it beats the default".to_owned()],
            choices: &choices,
            loops: "1-2",
        };
        super::page(candidate, demands, &page)
    }

    #[test]
    fn a_node_reads_back_every_setting_that_is_written() {
        let waits = [Wait::Park, Wait::SpinThenPark { spin: Nanos::from_micros(50) }, Wait::Spin];
        for wait in waits {
            for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
                let keep_awake = if wait.holds_core() {
                    Vec::new()
                } else {
                    vec![CoreId::new(3), CoreId::new(1)]
                };
                let cores = vec![CoreId::new(3), CoreId::new(2)];
                let candidate = Candidate { layout, wait, cores, keep_awake };
                let demands = Demands { rate_hz: 5_000, ..DEMANDS };
                let text = page_of(&candidate, &demands);
                let config = parse(&text, Path::new("/etc/sinew.toml"))
                    .unwrap_or_else(|error| panic!("{error} in\n{text}"));
                assert_eq!(config.realtime, candidate.realtime());
                assert_eq!(config.admission.peer_per_s, 10_000);
                assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
                assert!(text.contains("NOT REAL-TIME"), "{text}");
            }
        }
    }

    #[test]
    fn an_existing_file_is_replaced_only_by_force_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sinew.toml");
        check(&path, false).unwrap();
        assert!(!path.exists(), "checking makes nothing");
        write(&path, "one", false).unwrap();
        let refused = check(&path, false).unwrap_err();
        assert_eq!(refused.exit, crate::exit::Exit::Usage);
        assert!(refused.message.contains("--force"), "{}", refused.message);
        write(&path, "two", false).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        check(&path, true).unwrap();
        write(&path, "two", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(check(&dir.path().join("none/sinew.toml"), false).is_err());
    }
}
