//! Looks while the node runs whether the machine is still as it was: the governors of the lanes' cores,
//! devices' interrupts that come to them, other tasks on them, and the throttling of real-time threads.
//!
//! One file is read every 80 ms, so that an idle node stays idle. A round goes through governors,
//! throttling and interrupts first; with some hundred tasks it takes longer than the ten seconds from one
//! round to the next, which then waits. What changes is told once, with what it was.

use super::plan::Plan;
use sinew_rt::clock::Nanos;
use sinew_rt::files;
use sinew_rt::kernel::{TaskPolicy, effective_affinity, parse_stat};
use sinew_rt::log::{Line, Severity};
use sinew_rt::panel::Counter;
use sinew_rt::topology::{CoreId, CoreList};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// From the beginning of one round to that of the next.
pub(super) const ROUND: Nanos = Nanos::from_secs(10);

/// From one look to the next: each takes some ten microseconds.
const LOOK: Nanos = Nanos::from_millis(80);

/// Facts that are kept, and tasks whose CPU time is; a machine with more on the lanes' cores has been
/// told of enough.
const MAX_FACTS: usize = 1024;

/// Lines of a round; the counter has all.
const LINES: u32 = 8;

/// Share of a round that a normal task must run on a lane's core to be a stranger, as one part of this:
/// a hundredth.
const BUSY_PART: i64 = 100;

/// What the lines come from.
const SOURCE: &str = "machine";

/// A tick of the CPU time in `/proc` (`USER_HZ`).
const TICK: Nanos = Nanos::from_millis(10);

const RUNTIME: &str = "proc/sys/kernel/sched_rt_runtime_us";

/// What a round goes through, one after the other.
#[derive(Debug)]
enum Look {
    Governor(CoreId),
    Throttling,
    Interrupt(u32),
    /// All threads of a process are found by one look, and each is looked at by another.
    Process(u32),
    Thread(u32, u32),
}

/// What is known, by what it is about: `the governor of core 1`.
type Facts = BTreeMap<String, String>;

/// A normal task on a lane's core, as it was seen in a round.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Nanos,
    cpu_ticks: u64,
}

/// The facts of the last round, and how far this one has come.
#[derive(Debug)]
pub(super) struct Recheck {
    root: PathBuf,
    lanes: CoreList,
    own_process: u32,
    round: Nanos,
    /// What is still to be looked at, the next last.
    todo: Vec<Look>,
    next_round: Nanos,
    next_look: Nanos,
    /// `None` until the first round is over: what it finds was so before the node.
    known: Option<Facts>,
    found: Facts,
    /// By thread, in the last round and in this one.
    seen: BTreeMap<u32, Seen>,
    seeing: BTreeMap<u32, Seen>,
    changes: Counter,
}

impl Recheck {
    /// Looks at the machine under `root` for the lanes of `plan`, and counts in `changes`.
    pub(super) fn new(root: PathBuf, round: Nanos, plan: &Plan, changes: Counter) -> Self {
        Self {
            root,
            lanes: plan.lanes.iter().map(|lane| lane.core).collect(),
            own_process: std::process::id(),
            round,
            todo: Vec::new(),
            next_round: Nanos::ZERO,
            next_look: Nanos::ZERO,
            known: None,
            found: Facts::new(),
            seen: BTreeMap::new(),
            seeing: BTreeMap::new(),
            changes,
        }
    }

    /// Looks at one thing more, if a round is due; at the end of the round tells what has changed.
    pub(super) fn turn(&mut self, now: Nanos, emit: &mut dyn FnMut(Line)) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        if self.todo.is_empty() {
            if now < self.next_round {
                return;
            }
            self.next_round = now + self.round;
            self.begin();
        }
        if let Some(look) = self.todo.pop() {
            self.look(look, now);
        }
        if self.todo.is_empty() {
            self.finish(now, emit);
        }
    }

    fn begin(&mut self) {
        let processes = files::numbered(&self.root, "proc").unwrap_or_default();
        let others = processes.into_iter().filter(|process| *process != self.own_process);
        self.todo.extend(others.map(Look::Process));
        let interrupts = files::numbered(&self.root, "proc/irq").unwrap_or_default();
        self.todo.extend(interrupts.into_iter().map(Look::Interrupt));
        self.todo.push(Look::Throttling);
        self.todo.extend(self.lanes.iter().map(Look::Governor));
    }

    fn look(&mut self, look: Look, now: Nanos) {
        match look {
            Look::Governor(core) => {
                let path = format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
                if let Some(governor) = files::text(&self.root, &path) {
                    self.fact(format!("the governor of core {core}"), governor);
                }
            }
            Look::Throttling => {
                if let Some(runtime_us) = files::text(&self.root, RUNTIME) {
                    self.fact("sched_rt_runtime_us".to_owned(), runtime_us);
                }
            }
            Look::Interrupt(number) => {
                let cores = effective_affinity(&self.root, number).unwrap_or_default();
                let here = cores.intersection(&self.lanes);
                if !here.is_empty() {
                    self.fact(format!("interrupt {number}"), format!("on the lanes' core {here}"));
                }
            }
            Look::Process(process) => {
                // It may have ended meanwhile.
                let path = format!("proc/{process}/task");
                let threads = files::numbered(&self.root, &path).unwrap_or_default();
                self.todo.extend(threads.into_iter().map(|thread| Look::Thread(process, thread)));
            }
            Look::Thread(process, thread) => self.thread(process, thread, now),
        }
    }

    fn thread(&mut self, process: u32, thread: u32, now: Nanos) {
        let path = format!("proc/{process}/task/{thread}/stat");
        let stat = files::text(&self.root, &path);
        let Some(task) = stat.and_then(|stat| parse_stat(process, &stat)) else { return };
        if task.bound || !self.lanes.contains(task.core) {
            return;
        }
        let how = match task.policy {
            TaskPolicy::RealTime(priority) => format!("real-time {priority}"),
            TaskPolicy::Deadline => "deadline".to_owned(),
            TaskPolicy::Normal => {
                let seen = Seen { at: now, cpu_ticks: task.cpu_ticks };
                if self.seeing.len() < MAX_FACTS {
                    self.seeing.insert(thread, seen);
                }
                let Some(before) = self.seen.get(&thread) else { return };
                let ticks = task.cpu_ticks.saturating_sub(before.cpu_ticks);
                let ran = TICK * i64::try_from(ticks).unwrap_or(i64::MAX / TICK.as_nanos());
                if ran <= (now - before.at) / BUSY_PART {
                    return;
                }
                "busy".to_owned()
            }
        };
        let what = format!("{} {thread}", task.name);
        self.fact(what, format!("{how} on the lanes' core {}", task.core));
    }

    fn fact(&mut self, what: String, is: String) {
        if self.found.len() < MAX_FACTS {
            self.found.insert(what, is);
        }
    }

    fn finish(&mut self, now: Nanos, emit: &mut dyn FnMut(Line)) {
        let found = std::mem::take(&mut self.found);
        self.seen = std::mem::take(&mut self.seeing);
        let mut told = 0;
        for (what, was, is) in self.known.iter().flat_map(|known| differences(known, &found)) {
            self.changes.increment();
            told += 1;
            if told <= LINES {
                let text = match (was, is) {
                    (Some(was), Some(is)) => format!("{what} is now {is}, and was {was}"),
                    (None, Some(is)) => format!("{what} is now {is}"),
                    (_, None) => format!("{what} is gone: it was {}", was.unwrap_or("there")),
                };
                let severity = if is.is_some() { Severity::Warn } else { Severity::Info };
                emit(line(now, severity, text));
            }
        }
        if told > LINES {
            let more = told - LINES;
            emit(line(now, Severity::Warn, format!("{more} more changes; see sinew doctor")));
        }
        self.known = Some(found);
    }
}

fn line(at: Nanos, severity: Severity, text: String) -> Line {
    Line { at, severity, source: SOURCE.to_owned(), text }
}

/// What was and what is, of everything that is not as it was.
fn differences<'a>(
    known: &'a Facts,
    found: &'a Facts,
) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
    let gone = known.iter().filter(|(what, _)| !found.contains_key(*what));
    let gone = gone.map(|(what, was)| (what.as_str(), Some(was.as_str()), None));
    let other = found.iter().filter_map(|(what, is)| match known.get(what) {
        Some(was) if was == is => None,
        was => Some((what.as_str(), was.map(String::as_str), Some(is.as_str()))),
    });
    gone.chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Layout;
    use crate::node::plan::{LanePlan, StageName};
    use sinew_rt::panel::{Panel, PanelSpec};
    use std::path::Path;

    fn plan() -> Plan {
        let stages: &[StageName] = &[StageName::Receive];
        let lanes = vec![LanePlan { name: "lane", stages, core: CoreId::new(2) }];
        Plan { layout: Layout::Fused, reason: String::new(), lanes }
    }

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn task(root: &Path, thread: u32, core: u16, ticks: u64, priority: u8) {
        let policy = u8::from(priority > 0);
        let zeros = "0 ".repeat(15);
        let text = format!(
            "{thread} (task) S 0 1 1 0 -1 4194560 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1 {zeros}17 {core} {priority} {policy} 0"
        );
        write(root, &format!("proc/{thread}/task/{thread}/stat"), &text);
    }

    struct Machine {
        root: tempfile::TempDir,
        recheck: Recheck,
        panel: Panel,
        now: Nanos,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), RUNTIME, "950000\n");
            let governor = "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor";
            write(root.path(), governor, "performance\n");
            write(root.path(), "proc/irq/9/effective_affinity_list", "0\n");
            task(root.path(), 4_000_007, 2, 5, 0);
            let mut spec = PanelSpec::new("recheck");
            spec.values = 4;
            let panel = Panel::anonymous(&spec).unwrap();
            let changes = panel.counter("machine.changes").unwrap();
            let recheck = Recheck::new(root.path().to_owned(), ROUND, &plan(), changes);
            Self { root, recheck, panel, now: Nanos::from_secs(100) }
        }

        /// One round, and the lines of it.
        fn round(&mut self) -> Vec<String> {
            let mut lines = Vec::new();
            self.now = self.recheck.next_round.max(self.now);
            for _ in 0..450 {
                self.recheck.turn(self.now, &mut |line| lines.push(line.to_string()));
                self.now += Nanos::from_millis(20);
            }
            lines.into_iter().map(|line| line.split_once("] ").unwrap().1.to_owned()).collect()
        }

        fn changes(&self) -> u64 {
            self.panel.snapshot().unwrap().counter("machine.changes").unwrap()
        }
    }

    #[test]
    fn what_changes_is_told_once_and_what_stays_is_not() {
        let mut machine = Machine::new();
        assert_eq!(machine.round(), [""; 0], "the first round has nothing to compare with");
        assert_eq!(machine.round(), [""; 0]);
        let root = machine.root.path().to_owned();
        write(&root, "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave\n");
        write(&root, "proc/irq/9/effective_affinity_list", "2\n");
        assert_eq!(
            machine.round(),
            [
                "warn machine: interrupt 9 is now on the lanes' core 2",
                "warn machine: the governor of core 2 is now powersave, and was performance",
            ]
        );
        assert_eq!(machine.round(), [""; 0]);
        write(&root, RUNTIME, "-1\n");
        write(&root, "proc/irq/9/effective_affinity_list", "1\n");
        assert_eq!(
            machine.round(),
            [
                "info machine: interrupt 9 is gone: it was on the lanes' core 2",
                "warn machine: sched_rt_runtime_us is now -1, and was 950000",
            ]
        );
        assert_eq!(machine.changes(), 4);
    }

    #[test]
    fn a_stranger_is_real_time_or_busy_on_a_core_with_a_lane() {
        let mut machine = Machine::new();
        let root = machine.root.path().to_owned();
        machine.round();
        // A tenth of a second of CPU time in ten seconds is a hundredth, and no more than that.
        task(&root, 4_000_007, 2, 15, 0);
        assert_eq!(machine.round(), [""; 0]);
        task(&root, 4_000_007, 2, 35, 0);
        task(&root, 4_000_008, 2, 0, 60);
        task(&root, 4_000_009, 1, 900, 60);
        assert_eq!(
            machine.round(),
            [
                "warn machine: task 4000007 is now busy on the lanes' core 2",
                "warn machine: task 4000008 is now real-time 60 on the lanes' core 2",
            ]
        );
        std::fs::remove_dir_all(root.join("proc/4000008")).unwrap();
        let gone = machine.round();
        assert_eq!(gone.len(), 2, "{gone:?}");
        assert!(gone.iter().all(|line| line.starts_with("info ")), "{gone:?}");
    }

    #[test]
    fn a_turn_looks_at_one_thing_and_a_round_has_a_bounded_number_of_lines() {
        let mut machine = Machine::new();
        machine.round();
        let root = machine.root.path().to_owned();
        for thread in 0..20 {
            task(&root, 4_000_100 + thread, 2, 0, 50);
        }
        let lines = machine.round();
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert_eq!(lines[8], "warn machine: 12 more changes; see sinew doctor");
        machine.now = machine.recheck.next_round;
        machine.recheck.turn(machine.now, &mut |_| {});
        let left = machine.recheck.todo.len();
        machine.recheck.turn(machine.now, &mut |_| {});
        assert_eq!(machine.recheck.todo.len(), left, "not so soon");
        machine.recheck.turn(machine.now + LOOK, &mut |_| {});
        assert_eq!(machine.recheck.todo.len(), left - 1);
    }
}
