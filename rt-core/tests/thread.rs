//! Threads on the real kernel: what is asked for, what is granted, and what is said when it is not.
//!
//! Real-time scheduling needs a privilege: those tests skip visibly where it is missing, and then
//! the refusal itself is what is checked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sinew_rt::kernel::{CAP_SYS_NICE, Privileges};
use sinew_rt::thread::{
    MIN_STACK_BYTES, Policy, Priority, Scheduling, Strictness, ThreadError, ThreadSpec,
    apply_to_current, scheduling_of_current, spawn,
};
use sinew_rt::topology::CoreId;

fn priority(value: u8) -> Priority {
    Priority::new(value).unwrap()
}

/// A core that this process may use.
fn some_core() -> CoreId {
    let applied = apply_to_current(&ThreadSpec::new("probe")).unwrap();
    applied.effective.affinity.first().unwrap()
}

fn may_use_fifo() -> bool {
    let privileges = Privileges::read(Path::new("/"));
    let blocked = privileges.rt_group.as_ref().is_some_and(|group| group.runtime_us == 0);
    let allowed = privileges.has(CAP_SYS_NICE) || privileges.rtprio_limit.unwrap_or(0) >= 10;
    allowed && !blocked
}

#[test]
fn a_normal_thread_gets_its_name_and_runs_its_closure() {
    let spec = ThreadSpec::new("sinew-a-long-name").strictness(Strictness::Require);
    let thread =
        spawn(spec, || std::fs::read_to_string("/proc/thread-self/comm").unwrap()).unwrap();
    assert_eq!(thread.applied().effective.name, "sinew-a-long-na");
    assert!(thread.applied().refused.is_empty());
    assert!(thread.applied().not_real_time().unwrap().contains("SCHED_OTHER"));
    assert!(thread.id() > 0);
    assert_eq!(thread.join().unwrap().trim(), "sinew-a-long-na");
}

#[test]
fn a_pinned_thread_runs_on_its_core_only() {
    let core = some_core();
    let spec = ThreadSpec::new("pinned").core(core).strictness(Strictness::Require);
    let status = spawn(spec, || std::fs::read_to_string("/proc/thread-self/status").unwrap())
        .unwrap()
        .join()
        .unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(mask.trim(), core.to_string());
}

#[test]
fn a_fifo_thread_is_fifo_before_its_closure_runs() {
    if !may_use_fifo() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: neither CAP_SYS_NICE nor RLIMIT_RTPRIO >= 10\n",
        );
        return;
    }
    let wanted = Policy::Fifo(priority(10));
    let spec =
        ThreadSpec::new("fifo").core(some_core()).policy(wanted).strictness(Strictness::Require);
    let thread = spawn(spec, || scheduling_of_current().unwrap()).unwrap();
    assert_eq!(thread.applied().effective.scheduling, Scheduling::from(wanted));
    assert!(thread.applied().effective.timer_slack_ns <= 1);
    assert_eq!(thread.applied().not_real_time(), None);
    assert_eq!(thread.join().unwrap(), Scheduling::from(wanted));
}

#[test]
fn a_normal_thread_made_by_a_fifo_thread_does_not_inherit_its_scheduling() {
    if !may_use_fifo() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\nSKIPPED: neither CAP_SYS_NICE nor RLIMIT_RTPRIO >= 10\n",
        );
        return;
    }
    let inner = spawn(ThreadSpec::new("outer").fifo(priority(5)), || {
        assert!(scheduling_of_current().unwrap().is_real_time());
        spawn(ThreadSpec::new("inner"), || scheduling_of_current().unwrap())
            .unwrap()
            .join()
            .unwrap()
    });
    assert_eq!(inner.unwrap().join().unwrap(), Scheduling::from(Policy::Other));
}

/// Runs `body` on a thread without CAP_SYS_NICE, which the threads that it starts then lack too.
fn without_the_privilege<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_NICE).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

#[test]
fn without_the_privilege_require_fails_with_the_fix_and_report_runs() {
    if Privileges::read(Path::new("/")).rtprio_limit.unwrap_or(0) >= 80 {
        println!("not applicable: RLIMIT_RTPRIO lets this user have any priority");
        return;
    }
    without_the_privilege(|| {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let spec = ThreadSpec::new("fifo").fifo(priority(80));
        let error = spawn(spec.clone().strictness(Strictness::Require), move || {
            seen.store(true, Ordering::SeqCst);
        })
        .unwrap_err();
        let ThreadError::Refused { refused, .. } = &error else { panic!("{error}") };
        let [refusal] = refused.as_slice() else { panic!("{error}") };
        assert_eq!((&*refusal.wanted, &*refusal.got), ("SCHED_FIFO 80", "SCHED_OTHER"));
        assert!(refusal.fix.contains("ulimit -r 80"), "{refusal}");
        assert!(!ran.load(Ordering::SeqCst), "the closure of a refused thread ran");
        // spawn has joined it: what the closure held is gone.
        assert_eq!(Arc::strong_count(&ran), 1);

        let thread = spawn(spec.clone(), || 7).unwrap();
        assert_eq!(thread.applied().refused, *refused);
        assert!(thread.applied().not_real_time().unwrap().contains("wanted SCHED_FIFO 80"));
        assert_eq!(thread.join().unwrap(), 7);

        let strict = spec.strictness(Strictness::Require);
        assert!(matches!(apply_to_current(&strict), Err(ThreadError::Refused { .. })));
    });
}

#[test]
fn a_core_that_does_not_exist_is_an_error_before_a_thread_is_made() {
    for strictness in [Strictness::Require, Strictness::Report] {
        let spec = ThreadSpec::new("nowhere").core(CoreId::new(4000)).strictness(strictness);
        let error = spawn(spec, || ()).unwrap_err();
        assert!(matches!(&error, ThreadError::NoSuchCore { core, .. } if core.get() == 4000));
        assert!(error.to_string().contains("core 4000 does not exist; this machine has cores 0"));
    }
}

#[test]
fn a_panic_comes_back_with_its_message() {
    let message = |error: ThreadError| match error {
        ThreadError::Panicked { name, message } => format!("{name}: {message}"),
        other => panic!("{other}"),
    };
    let formatted = spawn(ThreadSpec::new("p1"), || panic!("torque is {}", 3)).unwrap();
    assert_eq!(message(formatted.join().unwrap_err()), "p1: torque is 3");
    let literal = spawn(ThreadSpec::new("p2"), || panic!("no torque")).unwrap();
    assert_eq!(message(literal.join().unwrap_err()), "p2: no torque");
    let other = spawn(ThreadSpec::new("p3"), || std::panic::panic_any(17_u8)).unwrap();
    assert_eq!(message(other.join().unwrap_err()), "p3: a panic without a message");
}

#[test]
fn names_and_stacks_that_cannot_be_are_refused() {
    assert!(matches!(spawn(ThreadSpec::new(""), || ()), Err(ThreadError::BadName { .. })));
    assert!(matches!(spawn(ThreadSpec::new("a\0b"), || ()), Err(ThreadError::BadName { .. })));
    let small = ThreadSpec::new("small").stack_bytes(MIN_STACK_BYTES - 1);
    assert!(matches!(spawn(small, || ()), Err(ThreadError::StackTooSmall { .. })));
    // Multi-byte characters are cut whole.
    let thread = spawn(ThreadSpec::new("ÄÖÜÄÖÜÄÖ"), || ()).unwrap();
    assert_eq!(thread.applied().effective.name, "ÄÖÜÄÖÜÄ");
    thread.join().unwrap();
}

#[test]
fn signals_reach_the_main_thread_and_not_a_spawned_one() {
    let status = spawn(ThreadSpec::new("deaf"), || {
        std::fs::read_to_string("/proc/thread-self/status").unwrap()
    })
    .unwrap()
    .join()
    .unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1] {
        assert_ne!(blocked & (1 << (signal - 1)), 0, "signal {signal} is not blocked");
    }
    assert_eq!(blocked & (1 << (libc::SIGSEGV - 1)), 0, "a fault must keep its message");
}

/// Uses about `bytes` of stack and returns the minor page faults that it cost this thread.
fn faults_of_depth(bytes: usize) -> i64 {
    #[inline(never)]
    fn descend(bytes: usize) -> usize {
        let mut frame = [1u8; 1024];
        std::hint::black_box(&mut frame);
        let below = if bytes > 1024 { descend(bytes - 1024) } else { 0 };
        below + usize::from(std::hint::black_box(&mut frame)[0])
    }
    let before = minor_faults();
    std::hint::black_box(descend(bytes));
    minor_faults() - before
}

fn minor_faults() -> i64 {
    // SAFETY: getrusage fills the whole structure that it is given.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_minflt
    }
}

#[test]
fn a_spawned_thread_takes_no_page_fault_on_its_stack() {
    const DEPTH: usize = 160 * 1024;
    let spec = ThreadSpec::new("deep").stack_bytes(256 * 1024);
    let thread = spawn(spec, || {
        minor_faults(); // its own first call
        faults_of_depth(DEPTH)
    })
    .unwrap();
    assert!(thread.applied().effective.stack_prefaulted_bytes >= DEPTH);
    let ours = thread.join().unwrap();
    let plain = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(|| {
            minor_faults();
            faults_of_depth(DEPTH)
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(ours <= 2, "{ours} faults on a stack that should be resident");
    assert!(plain > 10, "the comparison took {plain} faults: the test measures nothing");
}
