//! Which process wrote a panel, and whether it is still the same one.

use std::fs;

/// What tells one life of a process from every other: its number may be reused, the triple not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Process number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`; 0 when it could not be read.
    pub boot_id: u128,
}

impl ProcessIdentity {
    /// Of the calling process. Reads `/proc`; where that is missing, the start time is 0.
    #[must_use]
    pub fn current() -> Self {
        let pid = std::process::id();
        let start_ticks = stat(pid).map_or(0, |stat| stat.start_ticks);
        Self { pid, start_ticks, boot_id: boot_id() }
    }

    /// Whether this very process still runs on this host: same boot, same number, same start time,
    /// and not a zombie. Processes of another PID namespace count as dead.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id()
            && stat(self.pid)
                .is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.is_over)
    }
}

struct Stat {
    start_ticks: u64,
    is_over: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command name is in parentheses and may itself hold spaces and parentheses.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let is_over = matches!(fields.next()?, "Z" | "X" | "x");
    // `state` is field 3, so field 22 is the 19th after it (proc_pid_stat(5)).
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { start_ticks, is_over })
}

fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_other_lives_are_not() {
        let me = ProcessIdentity::current();
        assert!(me.start_ticks > 0 && me.boot_id > 0);
        assert!(me.is_alive());
        assert!(!ProcessIdentity { start_ticks: me.start_ticks + 1, ..me }.is_alive());
        assert!(!ProcessIdentity { boot_id: me.boot_id + 1, ..me }.is_alive());
        assert!(!ProcessIdentity { pid: u32::MAX, ..me }.is_alive());
    }

    #[test]
    fn a_command_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) c) R 1 7 7 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 987 6 5 4";
        let stat = parse_stat(line).expect("parses");
        assert_eq!((stat.start_ticks, stat.is_over), (987, false));
        assert!(parse_stat(&line.replace(" R ", " Z ")).expect("parses").is_over);
        assert!(parse_stat("7 (x) R 1").is_none());
        assert!(parse_stat("").is_none());
    }
}
