//! Why the kernel refused a setting, and the command that removes the cause.

use std::io;
use std::path::Path;

use super::{Effective, Policy, Refusal, Scheduling, ThreadSpec};
use crate::kernel::{CAP_SYS_NICE, Privileges};
use crate::topology::{CoreId, CoreList};

/// What differs between the specification and the read-back, each with its reason and fix.
pub(super) fn differences(
    spec: &ThreadSpec,
    effective: &Effective,
    policy_error: Option<io::Error>,
    affinity_error: Option<io::Error>,
) -> Vec<Refusal> {
    let mut refused = Vec::new();
    if effective.scheduling != Scheduling::from(spec.policy) {
        let privileges = Privileges::read(Path::new("/"));
        let (reason, fix) = scheduling_refused(spec.policy, policy_error.as_ref(), &privileges);
        refused.push(Refusal {
            what: "scheduling".to_owned(),
            wanted: spec.policy.to_string(),
            got: effective.scheduling.to_string(),
            reason,
            fix,
        });
    }
    if let Some(core) = spec.core
        && effective.affinity != CoreList::from_iter([core])
    {
        let (reason, fix) = affinity_refused(core, affinity_error.as_ref());
        refused.push(Refusal {
            what: "affinity".to_owned(),
            wanted: format!("core {core}"),
            got: format!("cores {}", effective.affinity),
            reason,
            fix,
        });
    }
    // Newer kernels give a real-time thread a slack of 0 and ignore the request: better still.
    if effective.timer_slack_ns > super::setup::TIMER_SLACK_NS {
        refused.push(Refusal {
            what: "timer slack".to_owned(),
            wanted: format!("{} ns", super::setup::TIMER_SLACK_NS),
            got: format!("{} ns", effective.timer_slack_ns),
            reason: "PR_SET_TIMERSLACK had no effect (a seccomp filter?)".to_owned(),
            fix: "allow prctl(PR_SET_TIMERSLACK) in the container's seccomp profile".to_owned(),
        });
    }
    refused
}

/// Reason and fix for a policy that is not in force; pure, so that each case has a test.
fn scheduling_refused(
    wanted: Policy,
    error: Option<&io::Error>,
    privileges: &Privileges,
) -> (String, String) {
    let said = error.map_or_else(|| "the kernel reported success".to_owned(), io::Error::to_string);
    let Policy::Fifo(priority) = wanted else {
        return (
            format!("leaving a real-time policy was refused: {said}"),
            "start the process with SCHED_OTHER (chrt -o 0 <command>)".to_owned(),
        );
    };
    let allowed = privileges.rtprio_limit.is_some_and(|limit| limit >= u64::from(priority.get()));
    if !privileges.has(CAP_SYS_NICE) && !allowed {
        let limit = privileges.rtprio_limit.map_or("unknown".to_owned(), |limit| limit.to_string());
        return (
            format!("no CAP_SYS_NICE, and RLIMIT_RTPRIO is {limit} ({said})"),
            format!(
                "ulimit -r {priority}; or for good, in /etc/security/limits.d/99-sinew.conf: \"{} - rtprio 99\"; or setcap cap_sys_nice+ep <binary>",
                privileges.user_name_or_id()
            ),
        );
    }
    if let Some(group) = &privileges.rt_group
        && group.runtime_us == 0
    {
        return (
            format!(
                "the process is in the CPU cgroup {}, whose real-time runtime is 0 ({said})",
                group.path
            ),
            format!("echo 950000 > {}/cpu.rt_runtime_us", group.path),
        );
    }
    (
        format!("{said}, although the limits of this process allow it"),
        "look for a seccomp filter or container profile that blocks sched_setscheduler; with docker: --cap-add=SYS_NICE --ulimit rtprio=99".to_owned(),
    )
}

fn affinity_refused(core: CoreId, error: Option<&io::Error>) -> (String, String) {
    match error {
        Some(error) if error.raw_os_error() == Some(libc::EINVAL) => (
            format!("core {core} is outside the cpuset of this process, or went offline"),
            format!(
                "choose a core of `grep Cpus_allowed_list /proc/self/status`, or add {core} to the cgroup's cpuset.cpus (docker: --cpuset-cpus)"
            ),
        ),
        Some(error) => (
            format!("sched_setaffinity failed: {error}"),
            "allow sched_setaffinity in the container's seccomp profile".to_owned(),
        ),
        None => (
            "the kernel reported success and the mask differs: something else set it since"
                .to_owned(),
            "stop the tool that moves threads (tuned, taskset -p, a container manager)".to_owned(),
        ),
    }
}
