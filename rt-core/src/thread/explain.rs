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
            format!("{wanted} was refused: {said}"),
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
                privileges.limits_domain()
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
            format!(
                "echo 950000 > {}/cpu.rt_runtime_us; or sysctl kernel.sched_rt_runtime_us=-1",
                group.path
            ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::RtGroup;
    use crate::thread::Priority;

    fn privileges(capabilities: u64, rtprio: u64, group_runtime_us: Option<i64>) -> Privileges {
        Privileges {
            user_id: Some(1000),
            capabilities,
            rtprio_limit: Some(rtprio),
            memlock_limit_bytes: None,
            rttime_limit_us: None,
            rt_group: group_runtime_us.map(|runtime_us| RtGroup {
                path: "/sys/fs/cgroup/cpu/robot".to_owned(),
                runtime_us,
                period_us: 1_000_000,
            }),
        }
    }

    fn explained(privileges: &Privileges) -> (String, String) {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let wanted = Policy::Fifo(Priority::new(80).unwrap());
        scheduling_refused(wanted, Some(&denied), privileges)
    }

    #[test]
    fn a_missing_right_and_a_low_limit_are_told_apart_from_a_cgroup_without_runtime() {
        let (reason, fix) = explained(&privileges(0, 0, Some(950_000)));
        assert!(reason.contains("RLIMIT_RTPRIO is 0"), "{reason}");
        assert!(
            fix.contains("ulimit -r 80")
                && fix.contains("\":1000 - rtprio 99\"")
                && fix.contains("setcap cap_sys_nice+ep"),
            "{fix}"
        );
        let (reason, _) = explained(&privileges(0, 79, None));
        assert!(reason.contains("RLIMIT_RTPRIO is 79"), "{reason}");

        for may in [privileges(1 << CAP_SYS_NICE, 0, Some(0)), privileges(0, 80, Some(0))] {
            let (reason, fix) = explained(&may);
            assert!(reason.contains("/sys/fs/cgroup/cpu/robot, whose real-time runtime is 0"));
            assert!(fix.starts_with("echo 950000 > /sys/fs/cgroup/cpu/robot/cpu.rt_runtime_us"));
        }
        let (reason, fix) = explained(&privileges(1 << CAP_SYS_NICE, 0, None));
        assert!(reason.contains("although the limits"), "{reason}");
        assert!(fix.contains("seccomp"), "{fix}");
    }

    #[test]
    fn every_setting_that_differs_is_a_refusal_of_its_own() {
        let spec = ThreadSpec::new("x").core(CoreId::new(3)).fifo(Priority::MIN);
        let mut effective = Effective {
            tid: 1,
            name: "x".to_owned(),
            scheduling: Scheduling::from(spec.policy),
            affinity: CoreList::from_iter([CoreId::new(3)]),
            timer_slack_ns: 0,
            stack_prefaulted_bytes: 0,
        };
        assert_eq!(differences(&spec, &effective, None, None), []);
        effective.scheduling = Scheduling::from(Policy::Other);
        effective.affinity = "0-3".parse().unwrap();
        effective.timer_slack_ns = 50_000;
        let outside = io::Error::from_raw_os_error(libc::EINVAL);
        let refused = differences(&spec, &effective, None, Some(outside));
        let what: Vec<&str> = refused.iter().map(|refusal| refusal.what.as_str()).collect();
        assert_eq!(what, ["scheduling", "affinity", "timer slack"]);
        assert_eq!((&*refused[1].wanted, &*refused[1].got), ("core 3", "cores 0-3"));
        assert!(refused[1].reason.contains("outside the cpuset"));
        assert!(refused.iter().all(|refusal| !refusal.fix.is_empty()));
    }
}
