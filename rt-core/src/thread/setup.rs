//! Makes the settings of one thread, and reads each of them back from the kernel.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::mem::{self, MaybeUninit};
use std::path::Path;

use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

use super::{MIN_STACK_BYTES, Policy, Refusal, ThreadError, ThreadSpec, explain};
use crate::files;
use crate::topology::{CoreId, CoreList};

/// The kernel keeps 15 bytes of a thread's name (`TASK_COMM_LEN` less the terminator).
const NAME_BYTES: usize = 15;

/// Asked of `PR_SET_TIMERSLACK`: with the default of 50 µs a normal thread wakes that much late.
pub(super) const TIMER_SLACK_NS: u64 = 1;

/// What was asked of a thread, what the kernel says is in force, and the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The specification.
    pub requested: ThreadSpec,
    /// What is in force, read back from the kernel.
    pub effective: Effective,
    /// Every difference; empty when all was granted.
    pub refused: Vec<Refusal>,
}

impl Applied {
    /// Why a result measured on this thread is not a real-time result, if it is not: its policy in
    /// force is not real-time, or something was refused. For branding reports.
    #[must_use]
    pub fn not_real_time(&self) -> Option<String> {
        if let Some(refusal) = self.refused.first() {
            let Refusal { what, wanted, got, .. } = refusal;
            return Some(format!(
                "thread {}: {what} wanted {wanted}, got {got}",
                self.requested.name
            ));
        }
        if !self.effective.scheduling.is_real_time() {
            let (name, scheduling) = (&self.requested.name, self.effective.scheduling);
            return Some(format!("thread {name} runs as {scheduling}"));
        }
        None
    }
}

/// The state of a thread as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The kernel's thread id.
    pub tid: i32,
    /// The name, at most 15 bytes.
    pub name: String,
    /// Policy and priority.
    pub scheduling: Scheduling,
    /// The cores that the thread may run on.
    pub affinity: CoreList,
    /// Timer slack in nanoseconds; newer kernels report 0 for a real-time thread.
    pub timer_slack_ns: u64,
    /// Bytes of stack that are resident below the point where the thread's work begins.
    pub stack_prefaulted_bytes: usize,
}

/// A policy and priority as the kernel reports them; wider than [`Policy`], which is what can be
/// asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scheduling {
    /// The `SCHED_*` number.
    pub policy: i32,
    /// The static priority: 1..=99 for the real-time policies, else 0.
    pub priority: i32,
}

impl Scheduling {
    /// Whether the thread runs before every normal one.
    #[must_use]
    pub fn is_real_time(self) -> bool {
        matches!(self.policy, libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE)
    }
}

impl From<Policy> for Scheduling {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Other => Self { policy: libc::SCHED_OTHER, priority: 0 },
            Policy::Idle => Self { policy: libc::SCHED_IDLE, priority: 0 },
            Policy::Fifo(priority) => {
                Self { policy: libc::SCHED_FIFO, priority: i32::from(priority.get()) }
            }
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            libc::SCHED_OTHER => write!(f, "SCHED_OTHER"),
            libc::SCHED_FIFO => write!(f, "SCHED_FIFO {}", self.priority),
            libc::SCHED_RR => write!(f, "SCHED_RR {}", self.priority),
            libc::SCHED_BATCH => write!(f, "SCHED_BATCH"),
            libc::SCHED_IDLE => write!(f, "SCHED_IDLE"),
            libc::SCHED_DEADLINE => write!(f, "SCHED_DEADLINE"),
            other => write!(f, "policy {other} priority {}", self.priority),
        }
    }
}

/// Refuses what can be known to be impossible before a thread is made.
pub(super) fn check(spec: &ThreadSpec) -> Result<(), ThreadError> {
    let name = || spec.name.clone();
    if spec.name.is_empty() || spec.name.contains('\0') {
        return Err(ThreadError::BadName { name: name() });
    }
    if spec.stack_bytes < MIN_STACK_BYTES {
        let (got, need) = (spec.stack_bytes, MIN_STACK_BYTES);
        return Err(ThreadError::StackTooSmall { name: name(), got, need });
    }
    let Some(core) = spec.core else { return Ok(()) };
    // Without /sys there is nothing to check against; the read-back then tells.
    let root = Path::new("/");
    if let Some(possible) = files::core_list(root, "sys/devices/system/cpu/possible")
        && !possible.contains(core)
    {
        return Err(ThreadError::NoSuchCore { name: name(), core, possible });
    }
    if let Some(online) = files::core_list(root, "sys/devices/system/cpu/online")
        && !online.contains(core)
    {
        return Err(ThreadError::CoreOffline { name: name(), core, online });
    }
    Ok(())
}

/// The part of a name that the kernel keeps, cut at a character.
pub(super) fn kernel_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES)]
}

pub(super) fn set_name(name: &str) {
    let mut bytes = [0u8; NAME_BYTES + 1];
    let name = kernel_name(name).as_bytes();
    bytes[..name.len()].copy_from_slice(name);
    // SAFETY: PR_SET_NAME reads up to 16 bytes from a valid, NUL-terminated buffer of 16. It cannot
    // fail with a valid pointer, and the name in force is read back.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Makes and reads back everything on the calling thread.
pub(super) fn apply(spec: ThreadSpec) -> Result<Applied, ThreadError> {
    let read_back = |what: &'static str| {
        let name = spec.name.clone();
        move |source: io::Error| ThreadError::ReadBack { name, what, source }
    };
    block_signals().map_err(read_back("the signal mask"))?;
    let stack_prefaulted_bytes =
        prefault_stack(spec.stack_bytes).map_err(read_back("the stack"))?;
    // Policy before affinity: a normal thread that moves onto a core where a real-time thread
    // spins would never run again to raise itself.
    let policy_error = set_policy(spec.policy).err();
    let affinity_error = spec.core.and_then(|core| set_core(core).err());
    // After the policy: leaving a real-time policy resets the slack to the default.
    set_timer_slack(TIMER_SLACK_NS);

    let effective = Effective {
        // SAFETY: gettid has no arguments and cannot fail.
        tid: unsafe { libc::gettid() },
        name: name_of_current(),
        scheduling: scheduling_of_current()
            .map_err(|error| read_back("the scheduling")(error.0))?,
        affinity: affinity_of_current().map_err(read_back("the affinity"))?,
        timer_slack_ns: timer_slack().map_err(read_back("the timer slack"))?,
        stack_prefaulted_bytes,
    };
    let refused = explain::differences(&spec, &effective, policy_error, affinity_error);
    Ok(Applied { requested: spec, effective, refused })
}

/// Blocks every signal but those that the thread raises itself by a fault: blocked, they would
/// kill the process without the runtime's message.
fn block_signals() -> io::Result<()> {
    const FAULTS: [libc::c_int; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
    ];
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the whole set; sigdelset and pthread_sigmask then take a valid
    // set, and a null old set is allowed.
    let code = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Touches up to `bytes` of the stack below this frame, so that no later call takes a page fault
/// there. Returns how many bytes were covered.
fn prefault_stack(bytes: usize) -> io::Result<usize> {
    let lowest = stack_bottom()?;
    let marker = 0u8;
    let here = (&raw const marker).addr();
    // The bottom may include the guard page, and the last frames need room to return.
    let reserve = page_size() + 16 * 1024;
    let target = (lowest + reserve).max(here.saturating_sub(bytes));
    if here > target {
        touch_down_to(target);
    }
    Ok(here.saturating_sub(target))
}

/// One frame of at least a page, then the next: safe code that really moves the stack pointer, so
/// it also works on a main thread's stack, which grows only near its pointer. The depth is
/// bounded by `target`, whatever a frame costs in this build.
#[inline(never)]
fn touch_down_to(target: usize) {
    let mut page = [0u8; 4096];
    black_box(&mut page);
    if (&raw const page).addr() > target {
        touch_down_to(target);
    }
    // Keeps the frame alive across the call: no tail call may reuse it.
    black_box(&mut page);
}

fn stack_bottom() -> io::Result<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut bottom = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: pthread_getattr_np initialises the attributes when it returns 0, and only then are
    // they read and destroyed; all other pointers are to live locals.
    let code = unsafe {
        match libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) {
            0 => {
                let code = libc::pthread_attr_getstack(
                    attributes.as_ptr(),
                    &raw mut bottom,
                    &raw mut size,
                );
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                code
            }
            code => code,
        }
    };
    if code == 0 { Ok(bottom.addr()) } else { Err(io::Error::from_raw_os_error(code)) }
}

pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf has no memory arguments.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Sets the policy. The error is the kernel's, or what `thread-priority` made of it.
fn set_policy(policy: Policy) -> Result<(), io::Error> {
    match policy {
        // Not through thread-priority: for a normal thread it would change the nice value too.
        Policy::Other => set_normal_policy(CALLING_THREAD, libc::SCHED_OTHER),
        Policy::Idle => set_normal_policy(CALLING_THREAD, libc::SCHED_IDLE),
        Policy::Fifo(priority) => {
            let priority =
                ThreadPriorityValue::try_from(priority.get()).map_err(io::Error::other)?;
            set_thread_priority_and_policy(
                thread_native_id(),
                ThreadPriority::Crossplatform(priority),
                ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
            )
            .map_err(|error| match error {
                thread_priority::Error::OS(code) => io::Error::from_raw_os_error(code),
                other => io::Error::other(other.to_string()),
            })
        }
    }
}

/// What `sched_setscheduler` takes for the thread that calls it.
const CALLING_THREAD: i32 = 0;

/// Gives a thread one of the policies that have no priority.
pub(crate) fn set_normal_policy(tid: i32, policy: i32) -> io::Result<()> {
    // SAFETY: a zeroed sched_param is what the policies without a priority demand; the call reads it
    // and keeps nothing.
    let code = unsafe {
        let parameters: libc::sched_param = mem::zeroed();
        libc::sched_setscheduler(tid, policy, &raw const parameters)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_core(core: CoreId) -> Result<(), io::Error> {
    // The crate's set has CPU_SETSIZE bits and panics beyond them.
    if core.index() >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if core_affinity::set_for_current(core_affinity::CoreId { id: core.index() }) {
        Ok(())
    } else {
        // The crate gives only a bool; its last system call is the one that failed.
        Err(io::Error::last_os_error())
    }
}

fn set_timer_slack(ns: u64) {
    // SAFETY: PR_SET_TIMERSLACK takes a number; what came of it is read back.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns as libc::c_ulong, 0, 0, 0) };
}

fn timer_slack() -> io::Result<u64> {
    // SAFETY: PR_GET_TIMERSLACK has no memory arguments and returns the value.
    let slack = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
    u64::try_from(slack).map_err(|_| io::Error::last_os_error())
}

fn name_of_current() -> String {
    let mut bytes = [0u8; NAME_BYTES + 1];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, NUL included, into a buffer of 16.
    unsafe { libc::prctl(libc::PR_GET_NAME, bytes.as_mut_ptr()) };
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The scheduling could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the scheduling of this thread could not be read: {0}")]
pub struct SchedulingError(#[source] pub io::Error);

/// Policy and priority of the calling thread, as the kernel reports them.
pub fn scheduling_of_current() -> Result<Scheduling, SchedulingError> {
    // SAFETY: 0 is the calling thread; the parameter block is a live local that the call fills.
    let (policy, code, priority) = unsafe {
        let mut parameters: libc::sched_param = mem::zeroed();
        let policy = libc::sched_getscheduler(0);
        let code = libc::sched_getparam(0, &raw mut parameters);
        (policy, code, parameters.sched_priority)
    };
    if policy < 0 || code < 0 {
        return Err(SchedulingError(io::Error::last_os_error()));
    }
    Ok(Scheduling { policy: policy & !libc::SCHED_RESET_ON_FORK, priority })
}

fn affinity_of_current() -> io::Result<CoreList> {
    // SAFETY: the set is a live local of the size that is passed; zero is a valid set.
    let (code, set) = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        let code = libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut set);
        (code, set)
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below CPU_SETSIZE, the number of bits in the set.
    let in_set = |core: u16| unsafe { libc::CPU_ISSET(usize::from(core), &set) };
    Ok((0..libc::CPU_SETSIZE as u16).filter(|core| in_set(*core)).map(CoreId::new).collect())
}
