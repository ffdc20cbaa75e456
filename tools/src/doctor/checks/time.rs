//! The clocks: what a reading costs, and whether machines agree.

use std::collections::BTreeSet;

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, REBOOT_UNDO, Write};

/// How wrong the wall clock may be before messages' ages between machines mean little.
const CLOCK_ERROR_LIMIT_US: i64 = 1_000;

/// What keeps a wall clock; names as the kernel cuts them.
pub(in crate::doctor) const KEEPERS: [&str; 6] =
    ["ptp4l", "phc2sys", "chronyd", "ntpd", "ntpd-rs", "systemd-timesyn"];

pub(super) fn clock_source(facts: &Facts) -> Check {
    const PATH: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let why = "every probe reads the clock: 20 ns from a counter, microseconds from a device";
    let name = "clock source";
    let Some(current) = facts.kernel.clock_source.as_deref() else {
        return Check::new(name, "not readable", NotApplicable, why);
    };
    let verdict = match current {
        "tsc" | "arch_sys_counter" | "riscv_clocksource" => Ok,
        // Virtual counters: no device access, but the hypervisor adjusts them.
        "kvm-clock" | "hyperv_clocksource_tsc_page" | "xen" => Warn,
        _ => Fail,
    };
    let counters = ["tsc", "arch_sys_counter"];
    let better = counters
        .iter()
        .find(|counter| facts.kernel.clock_sources_available.iter().any(|name| name == *counter));
    let check = Check::new(name, current, verdict, why);
    match better {
        Some(better) => check.set(vec![Write::new(PATH, better, current)]),
        None => check.remedy(
            "add tsc=reliable to the kernel command line, and reboot (only where the firmware keeps the counters in step)",
            REBOOT_UNDO,
        ),
    }
}

pub(super) fn clock_sync(facts: &Facts) -> Check {
    let why = "times of several machines can be compared only as well as their clocks agree";
    let name = "clock sync";
    let tasks = facts.counters.tasks.as_ref();
    let keepers: BTreeSet<&str> = tasks
        .iter()
        .flat_map(|tasks| &tasks.all)
        .map(|task| task.name.as_str())
        .filter(|name| KEEPERS.contains(name))
        .collect();
    let who = match (keepers.is_empty(), tasks.is_some_and(|tasks| tasks.whole_machine())) {
        (false, _) => keepers.into_iter().collect::<Vec<_>>().join(" and "),
        (true, true) => "no clock daemon runs".to_owned(),
        (true, false) => "clock daemons are not visible".to_owned(),
    };
    let Some(clock) = facts.settings.clock else {
        return Check::new(
            name,
            format!("{who}; the kernel's account is not readable"),
            NotApplicable,
            why,
        );
    };
    let install = "apt install chrony (or linuxptp, with ptp4l and phc2sys, for less than a microsecond); look with chronyc tracking, pmc -u -b 0 'GET TIME_STATUS_NP'";
    let undo = "apt remove chrony";
    if !clock.synchronised {
        return Check::new(
            name,
            format!("{who}; the kernel's clock is not synchronised"),
            Warn,
            why,
        )
        .remedy(install, undo);
    }
    let error_us = clock.estimated_error_us;
    let value = format!(
        "{who}; the kernel estimates an error of {error_us} µs, {} µs at most",
        clock.maximum_error_us
    );
    let verdict = if error_us <= CLOCK_ERROR_LIMIT_US { Ok } else { Warn };
    Check::new(name, value, verdict, why).remedy(install, undo)
}
