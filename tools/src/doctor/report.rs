//! The doctor's output: a table for people, JSON for programs.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

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

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
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
}

impl Check {
    pub(crate) fn new(name: &str, value: impl Into<String>, verdict: Verdict, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
            verdict,
            why: why.to_owned(),
            fix: None,
            undo: None,
        }
    }

    /// Adds the remedy, which only a check with a finding keeps.
    pub(crate) fn remedy(mut self, fix: impl Into<String>, undo: impl Into<String>) -> Self {
        if matches!(self.verdict, Verdict::Warn | Verdict::Fail) {
            self.fix = Some(fix.into());
            self.undo = Some(undo.into());
        }
        self
    }
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

#[derive(Serialize)]
pub(crate) struct JsonReport<'a> {
    version: u32,
    report: &'static str,
    host: &'a HostFingerprint,
    checks: &'a [Check],
    unread: &'a [String],
}

/// All that the doctor found, for a program.
pub(crate) fn json<'a>(
    host: &'a HostFingerprint,
    checks: &'a [Check],
    unread: &'a [String],
) -> JsonReport<'a> {
    JsonReport { version: JSON_VERSION, report: "doctor", host, checks, unread }
}

/// The table, `width` columns wide, or as wide as the terminal.
pub(crate) fn table(
    width: Option<u16>,
    host: &HostFingerprint,
    checks: &[Check],
    unread: &[String],
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["check", "found", "verdict", "why it matters"]);
    if let Some(width) = width {
        table.set_width(width);
    }
    for check in checks {
        let verdict = Cell::new(check.verdict.word())
            .fg(check.verdict.color())
            .add_attribute(Attribute::Bold);
        table.add_row([
            Cell::new(&check.name),
            Cell::new(&check.value),
            verdict,
            Cell::new(&check.why),
        ]);
    }
    let mut out = String::new();
    let _ = writeln!(out, "{} · {} · {}", host.processor, host.kernel_release, host.preemption);
    let _ = writeln!(out, "{table}");
    let mut heading =
        "\nTo fix (nothing was changed; commands need root unless they say otherwise):\n";
    for check in checks {
        let Some(fix) = &check.fix else { continue };
        let _ = write!(out, "{heading}");
        heading = "";
        let _ = writeln!(out, "  {} [{}]", check.name, check.verdict.word());
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
    let VerdictCounts { ok, warn, fail, not_applicable } = host.doctor;
    let _ = writeln!(out, "\n{ok} ok, {warn} warn, {fail} fail, {not_applicable} n/a");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (HostFingerprint, Vec<Check>, Vec<String>) {
        let checks = vec![
            Check::new("one", "fine", Verdict::Ok, "matters").remedy("never shown", "never shown"),
            Check::new("two", "bad", Verdict::Fail, "matters more").remedy("fix it", "break it"),
            Check::new("three", "-", Verdict::NotApplicable, "would matter"),
        ];
        let host = HostFingerprint { doctor: VerdictCounts::of(&checks), ..Default::default() };
        (host, checks, vec!["something: root".to_owned()])
    }

    #[test]
    fn the_json_reads_back_with_its_version_and_every_check() {
        let (host, checks, unread) = example();
        let value = serde_json::to_value(json(&host, &checks, &unread)).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["report"], "doctor");
        assert_eq!(value["checks"][2]["verdict"], "n/a");
        assert_eq!(value["unread"][0], "something: root");
        assert_eq!(serde_json::from_value::<Vec<Check>>(value["checks"].clone()).unwrap(), checks);
        let read: HostFingerprint = serde_json::from_value(value["host"].clone()).unwrap();
        assert_eq!(read, host);
        assert_eq!((read.doctor.ok, read.doctor.fail, read.doctor.not_applicable), (1, 1, 1));
    }

    #[test]
    fn the_table_fits_a_hundred_columns_and_lists_only_the_fixes_that_are_needed() {
        let (host, mut checks, unread) = example();
        checks[1].value = "a long story ".repeat(20);
        let text = table(Some(WIDTH), &host, &checks, &unread);
        let rows = text.lines().take_while(|line| !line.starts_with("To fix"));
        assert!(rows.map(|row| row.chars().count()).max().unwrap() <= usize::from(WIDTH));
        assert!(text.contains("fix   fix it\n    undo  break it"), "{text}");
        assert!(!text.contains("never shown"));
        assert!(text.ends_with("1 ok, 0 warn, 1 fail, 1 n/a\n"), "{text}");
    }
}
