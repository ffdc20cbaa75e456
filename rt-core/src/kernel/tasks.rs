//! Every task of the machine: how it is scheduled, where it ran last, how long it has run.

use std::path::Path;

use crate::files;
use crate::topology::CoreId;

/// A robot has some hundred tasks; the walk stops here, and says so.
const MAX_TASKS: usize = 16_384;

/// A kernel thread (`PF_KTHREAD`, include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;
/// A kernel thread that nobody may move (`PF_NO_SETAFFINITY`): one per core, such as `migration/1`.
const BOUND: u64 = 0x0400_0000;

/// How a task is scheduled (include/uapi/linux/sched.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskPolicy {
    /// `SCHED_OTHER`, `SCHED_BATCH`, `SCHED_IDLE`, or an extension: not real-time.
    Normal,
    /// `SCHED_FIFO` or `SCHED_RR` with a priority from 1 to 99.
    RealTime(u8),
    /// `SCHED_DEADLINE`: before every real-time task.
    Deadline,
}

/// One thread, as `/proc/PID/task/TID/stat` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its process.
    pub process: u32,
    /// Its own number.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// Whether it belongs to the kernel.
    pub kernel: bool,
    /// Whether it is one of the kernel's that nobody can move to another core.
    pub bound: bool,
    /// CPU time so far, in ticks of `USER_HZ` (10 ms).
    pub cpu_ticks: u64,
    /// Where it ran last.
    pub core: CoreId,
    /// How it is scheduled.
    pub policy: TaskPolicy,
}

/// The tasks that this user can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// By process and thread.
    pub all: Vec<Task>,
    /// Whether there are more than were read.
    pub more: bool,
}

impl Tasks {
    /// Reads `/proc/*/task/*/stat` under `root`; `None` when there is no such thing.
    #[must_use]
    pub fn read(root: &Path) -> Option<Self> {
        let mut tasks = Self::default();
        for process in files::numbered(root, "proc")? {
            // It may have ended meanwhile.
            let threads = files::numbered(root, &format!("proc/{process}/task"));
            for thread in threads.unwrap_or_default() {
                if tasks.all.len() == MAX_TASKS {
                    tasks.more = true;
                    return Some(tasks);
                }
                let stat = files::text(root, &format!("proc/{process}/task/{thread}/stat"));
                tasks.all.extend(stat.and_then(|stat| parse_stat(process, &stat)));
            }
        }
        Some(tasks)
    }

    /// Whether the kernel's own threads are among them. In a container they are not, and then the
    /// tasks of the rest of the machine are invisible too.
    #[must_use]
    pub fn whole_machine(&self) -> bool {
        self.all.iter().any(|task| task.kernel)
    }
}

/// One line of `/proc/PID/task/TID/stat` (proc_pid_stat(5)); `None` when it is not one.
#[must_use]
pub fn parse_stat(process: u32, stat: &str) -> Option<Task> {
    let (thread, rest) = stat.split_once(" (")?;
    // A name may hold parentheses and blanks itself.
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The manual counts from 1, and the first of these is its third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let flags = field(9)?;
    let priority = u8::try_from(field(40)?).ok()?;
    Some(Task {
        process,
        thread: thread.trim().parse().ok()?,
        // A program gives itself any name, and the kernel escapes only line ends in it.
        name: name.replace(char::is_control, "?"),
        kernel: flags & KERNEL_THREAD != 0,
        bound: flags & KERNEL_THREAD != 0 && flags & BOUND != 0,
        cpu_ticks: field(14)?.saturating_add(field(15)?),
        core: CoreId::new(u16::try_from(field(39)?).ok()?),
        policy: match field(41)? {
            1 | 2 => TaskPolicy::RealTime(priority),
            6 => TaskPolicy::Deadline,
            _ => TaskPolicy::Normal,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let stat = "77 (a) (b c) S 1 1 1 0 -1 4194560 1 0 0 0 5 7 0 0 -76 0 1 0 25 52 1 0 1 1 0 0 0 \
                    0 0 0 0 0 0 0 17 3 75 1 0 0 0";
        let task = parse_stat(70, stat).unwrap();
        assert_eq!((task.process, task.thread, &*task.name), (70, 77, "a) (b c"));
        assert_eq!((task.cpu_ticks, task.core.get()), (12, 3));
        assert_eq!((task.policy, task.kernel), (TaskPolicy::RealTime(75), false));
        let hostile = parse_stat(70, &stat.replace("b c", "\u{1b}[2J")).unwrap();
        assert_eq!(hostile.name, "a) (?[2J", "for logs and terminals");
        assert_eq!(parse_stat(70, "77 (short) S 1"), None);
        assert_eq!(parse_stat(70, ""), None);
    }

    #[test]
    fn this_thread_is_among_the_tasks_of_this_machine() {
        let tasks = Tasks::read(Path::new("/")).unwrap();
        // SAFETY: gettid has no arguments and cannot fail.
        let me = unsafe { libc::gettid() }.cast_unsigned();
        let task = tasks.all.iter().find(|task| task.thread == me).unwrap();
        assert_eq!(task.process, std::process::id());
        assert!(!task.kernel);
    }
}
