//! The doctor's output: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::Facts;
use super::apply::Applied;
use crate::host::HostFingerprint;

/// The version of the JSON below; raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Width of the table where there is no terminal to ask.
pub(crate) const WIDTH: u16 = 100;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with higher latency or less certainty.
    Warn,
    /// Real-time work cannot be relied on.
    Fail,
    /// Does not apply here, or cannot be read.
    #[serde(rename = "n/a")]
    NotApplicable,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::NotApplicable => "n/a",
        }
    }

    fn color(self) -> Color {
        match self {
            Self::Ok => Color::Green,
            Self::Warn => Color::Yellow,
            Self::Fail => Color::Red,
            Self::NotApplicable => Color::DarkGrey,
        }
    }
}

/// A value to write into a file of the kernel's: a fix that `--apply` can make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    /// The file.
    pub(crate) path: String,
    /// What to write.
    pub(crate) value: String,
    /// What is there now, to write back.
    pub(crate) old: String,
}

impl Write {
    pub(crate) fn new(path: impl Into<String>, value: impl ToString, old: impl ToString) -> Self {
        Self { path: path.into(), value: value.to_string(), old: old.to_string() }
    }
}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Its number in docs/doctor.md.
    pub(crate) number: u8,
    /// What was looked at.
    pub(crate) name: String,
    /// What was found.
    pub(crate) value: String,
    /// The judgement.
    pub(crate) verdict: Verdict,
    /// Why it matters, in one line.
    pub(crate) why: String,
    /// The command that fixes it, when the verdict is not `ok` and there is one.
    pub(crate) fix: Option<String>,
    /// How to undo the fix.
    pub(crate) undo: Option<String>,
    /// The parts of the fix that `--apply` makes: they last until the next boot.
    pub(crate) writes: Vec<Write>,
}

impl Check {
    pub(crate) fn new(name: &str, value: impl Into<String>, verdict: Verdict, why: &str) -> Self {
        Self {
            number: 0,
            name: name.to_owned(),
            value: printable(&value.into()),
            verdict,
            why: why.to_owned(),
            fix: None,
            undo: None,
            writes: Vec::new(),
        }
    }

    /// Whether there is something to fix.
    pub(crate) fn is_finding(&self) -> bool {
        matches!(self.verdict, Verdict::Warn | Verdict::Fail)
    }

    /// Adds the remedy, which only a check with a finding keeps.
    pub(crate) fn remedy(mut self, fix: impl Into<String>, undo: impl Into<String>) -> Self {
        if self.is_finding() {
            self.fix = Some(printable(&fix.into()));
            self.undo = Some(printable(&undo.into()));
        }
        self
    }

    /// Adds what `--apply` may write.
    pub(crate) fn writes(mut self, writes: Vec<Write>) -> Self {
        if self.is_finding() {
            self.writes = writes;
        }
        self
    }

    /// A remedy that consists of writing these values.
    pub(crate) fn set(self, writes: Vec<Write>) -> Self {
        let fix = commands(writes.iter().map(|write| (&*write.path, &*write.value)));
        let undo = commands(writes.iter().map(|write| (&*write.path, &*write.old)));
        self.remedy(fix, undo).writes(writes)
    }
}

/// Any program may give itself a name, and any archive may say anything, that a terminal would obey.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The shell commands that write each value into its file; files that get the same value together.
fn commands<'a>(writes: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut commands = Vec::new();
    for (path, value) in writes {
        if let Some(name) = path.strip_prefix("/proc/sys/") {
            commands.push(format!("sysctl {}={value}", name.replace('/', ".")));
        } else if let Some((_, paths)) = groups.iter_mut().find(|(other, _)| *other == value) {
            paths.push(path);
        } else {
            groups.push((value, vec![path]));
        }
    }
    commands.extend(groups.into_iter().map(|(value, paths)| match paths.as_slice() {
        [path] => format!("echo {value} > {path}"),
        paths => format!("echo {value} | tee {}", paths.join(" ")),
    }));
    commands.join("; ")
}

/// How many checks came to which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerdictCounts {
    pub(crate) ok: usize,
    pub(crate) warn: usize,
    pub(crate) fail: usize,
    pub(crate) not_applicable: usize,
}

impl VerdictCounts {
    pub(crate) fn of(checks: &[Check]) -> Self {
        let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        Self {
            ok: count(Verdict::Ok),
            warn: count(Verdict::Warn),
            fail: count(Verdict::Fail),
            not_applicable: count(Verdict::NotApplicable),
        }
    }
}

/// What a person should know first: how much is wrong, and what to do first about it.
pub(super) fn summary(counts: VerdictCounts, checks: &[Check]) -> String {
    let VerdictCounts { ok, warn, fail, not_applicable } = counts;
    let counted = format!("{fail} fail, {warn} warn, {ok} ok, {not_applicable} n/a");
    let worst = if fail > 0 { Verdict::Fail } else { Verdict::Warn };
    match checks.iter().find(|check| check.verdict == worst) {
        None => format!("{counted}: nothing to fix"),
        Some(Check { number, name, fix, .. }) => {
            let fix = fix.as_deref().unwrap_or("see docs/doctor.md");
            format!("{counted}: first fix {number} {name}: {fix}")
        }
    }
}

/// What the checks were made for, and on what.
#[derive(Serialize)]
pub(super) struct Judged {
    /// The captured machine; `null` for this one.
    root: Option<PathBuf>,
    /// The configuration; `null` for any node.
    config: Option<PathBuf>,
    /// Which stage runs where, with a configuration.
    layout: Option<String>,
    /// The cores of the lanes, as `0-3,8`.
    cores: String,
    priority: u8,
    /// Whether lanes spin for good; `null` where nobody said.
    spins: Option<bool>,
    /// How long growing counters were watched; `null` for a single look.
    window_ms: Option<u64>,
}

impl Judged {
    pub(super) fn new(facts: &Facts, root: Option<&Path>) -> Self {
        let purpose = &facts.purpose;
        Self {
            root: root.map(Path::to_owned),
            config: purpose.config.clone(),
            layout: purpose.layout.clone(),
            cores: purpose.lanes.to_string(),
            priority: purpose.priority,
            spins: purpose.spins,
            window_ms: facts.window.as_ref().map(|window| window.millis),
        }
    }
}

/// All that the doctor found.
pub(super) struct Report {
    pub(super) host: HostFingerprint,
    pub(super) judged: Judged,
    pub(super) checks: Vec<Check>,
    pub(super) unread: Vec<String>,
    pub(super) applied: Option<Applied>,
    pub(super) took_ms: u64,
    pub(super) summary: String,
}

#[derive(Serialize)]
pub(super) struct JsonReport<'a> {
    version: u32,
    report: &'static str,
    summary: &'a str,
    host: &'a HostFingerprint,
    judged: &'a Judged,
    checks: &'a [Check],
    unread: &'a [String],
    /// Of `--apply`.
    applied: Option<&'a Applied>,
    took_ms: u64,
}

impl Report {
    /// For a program.
    pub(super) fn to_json(&self) -> JsonReport<'_> {
        let Self { host, judged, checks, unread, applied, took_ms, summary } = self;
        let (version, took_ms) = (JSON_VERSION, *took_ms);
        let applied = applied.as_ref();
        let report = "doctor";
        JsonReport { version, report, summary, host, judged, checks, unread, applied, took_ms }
    }

    /// For people: a table `width` columns wide, or as wide as the terminal.
    pub(super) fn to_text(&self, width: Option<u16>) -> String {
        let Self { host, judged, checks, unread, summary, .. } = self;
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["", "check", "found", "verdict", "why it matters"]);
        if let Some(width) = width {
            table.set_width(width);
        }
        for check in checks {
            let verdict = Cell::new(check.verdict.word())
                .fg(check.verdict.color())
                .add_attribute(Attribute::Bold);
            table.add_row([
                Cell::new(check.number),
                Cell::new(&check.name),
                Cell::new(&check.value),
                verdict,
                Cell::new(&check.why),
            ]);
        }
        let mut out = String::new();
        let machine = format!("{} · {} · {}", host.processor, host.kernel_release, host.preemption);
        let _ = writeln!(out, "{}", printable(&machine));
        let Judged { root, config, layout, cores, priority, .. } = judged;
        if let Some(root) = root {
            let _ = writeln!(out, "captured: {}", root.display());
        }
        let whose = match (config, layout) {
            (Some(config), Some(layout)) => format!("{} ({layout})", config.display()),
            _ => "any node".to_owned(),
        };
        let _ = writeln!(out, "judged for {whose}: lanes on cores {cores} at priority {priority}");
        let _ = writeln!(out, "{table}");
        let mut heading = "\nTo fix (commands need root unless they say otherwise; * can be written by --apply):\n";
        for check in checks {
            let Some(fix) = &check.fix else { continue };
            let _ = write!(out, "{heading}");
            heading = "";
            let star = if check.writes.is_empty() { "" } else { " *" };
            let (number, name) = (check.number, &check.name);
            let _ = writeln!(out, "  {number} {name} [{}]{star}", check.verdict.word());
            let _ = writeln!(out, "    fix   {fix}");
            if let Some(undo) = &check.undo {
                let _ = writeln!(out, "    undo  {undo}");
            }
        }
        if !unread.is_empty() {
            let _ = writeln!(out, "\nNot readable here, and needed to read it:");
            for line in unread {
                let _ = writeln!(out, "  {line}");
            }
        }
        if let Some(script) = self.applied.as_ref().and_then(|done| done.undo_script.as_ref()) {
            let _ = writeln!(out, "\nWhat was applied is taken back by: sh {}", script.display());
        }
        let _ = writeln!(out, "\n{summary}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Report {
        let writes = vec![Write::new("/proc/sys/kernel/x", 0, 1), Write::new("/sys/a", 2, 3)];
        let checks = vec![
            Check::new("one", "fine", Verdict::Ok, "matters").remedy("never shown", "never shown"),
            Check::new("two", "bad", Verdict::Fail, "matters more").remedy("fix it", "break it"),
            Check::new("three", "-", Verdict::NotApplicable, "would matter"),
            Check::new("four", "so so", Verdict::Warn, "might matter").set(writes),
        ];
        let numbered = |(check, number)| Check { number, ..check };
        let checks: Vec<Check> = checks.into_iter().zip(1..).map(numbered).collect();
        let counts = VerdictCounts::of(&checks);
        Report {
            host: HostFingerprint { doctor: counts, ..Default::default() },
            judged: Judged {
                root: None,
                config: None,
                layout: None,
                cores: "2-3".to_owned(),
                priority: 75,
                spins: None,
                window_ms: Some(500),
            },
            summary: summary(counts, &checks),
            checks,
            unread: vec!["something: root".to_owned()],
            applied: None,
            took_ms: 612,
        }
    }

    #[test]
    fn the_json_reads_back_with_its_version_and_every_check() {
        let report = example();
        let value = serde_json::to_value(report.to_json()).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["report"], "doctor");
        assert_eq!(value["took_ms"], 612);
        assert_eq!(value["judged"]["cores"], "2-3");
        assert_eq!(value["checks"][2]["verdict"], "n/a");
        assert_eq!(value["checks"][3]["number"], 4);
        assert_eq!(value["unread"][0], "something: root");
        let read: Vec<Check> = serde_json::from_value(value["checks"].clone()).unwrap();
        assert_eq!(read, report.checks);
        let read: HostFingerprint = serde_json::from_value(value["host"].clone()).unwrap();
        assert_eq!(read, report.host);
        assert_eq!((read.doctor.ok, read.doctor.fail, read.doctor.not_applicable), (1, 1, 1));
    }

    #[test]
    fn the_table_fits_a_hundred_columns_and_lists_only_the_fixes_that_are_needed() {
        let mut report = example();
        report.checks[1].value = "a long story ".repeat(20);
        let text = report.to_text(Some(WIDTH));
        let rows = text.lines().take_while(|line| !line.starts_with("To fix"));
        assert!(rows.map(|row| row.chars().count()).max().unwrap() <= usize::from(WIDTH));
        assert!(text.contains("fix   fix it\n    undo  break it"), "{text}");
        assert!(!text.contains("never shown"));
        assert!(text.contains("4 four [warn] *\n    fix   sysctl kernel.x=0; echo 2 > /sys/a\n"));
        assert!(text.contains("    undo  sysctl kernel.x=1; echo 3 > /sys/a\n"), "{text}");
        assert!(text.ends_with("1 fail, 1 warn, 1 ok, 1 n/a: first fix 2 two: fix it\n"), "{text}");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let check =
            Check::new("x", "3 ran: \u{1b}[2Jsh", Verdict::Warn, "y").remedy("a\rb", "c\nd");
        assert_eq!(check.value, "3 ran: \u{fffd}[2Jsh");
        assert_eq!(
            (check.fix.as_deref(), check.undo.as_deref()),
            (Some("a\u{fffd}b"), Some("c\u{fffd}d"))
        );
    }

    #[test]
    fn files_that_get_the_same_value_get_it_from_one_command() {
        let writes = [("/sys/a", "1"), ("/sys/b", "1"), ("/sys/c", "2")];
        assert_eq!(commands(writes.into_iter()), "echo 1 | tee /sys/a /sys/b; echo 2 > /sys/c");
    }

    #[test]
    fn the_summary_names_the_worst_and_says_when_there_is_nothing() {
        let check = |verdict| Check::new("x", "y", verdict, "z").remedy("do", "undo");
        let of = |checks: &[Check]| summary(VerdictCounts::of(checks), checks);
        assert!(of(&[check(Verdict::Ok)]).ends_with(": nothing to fix"));
        let checks = [check(Verdict::Warn), Check { number: 9, ..check(Verdict::Fail) }];
        assert!(of(&checks).ends_with("first fix 9 x: do"));
    }
}
