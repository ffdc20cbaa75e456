//! What the hardware takes for itself: firmware, error checks, heat, a hypervisor.

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, named, seconds};

pub(super) fn management_interrupts(facts: &Facts) -> Check {
    let why = "the firmware stops all cores in a system management interrupt, unseen by the kernel";
    let name = "management interrupts";
    if facts.counters.management.is_empty() {
        let value = match facts.kernel.hypervisor {
            Some(_) => "a virtual machine does not see the host's",
            None => "not readable (Intel: root, and modprobe msr; others keep no count)",
        };
        return Check::new(name, value, NotApplicable, why);
    }
    let since_boot = facts.counters.management.values().max().copied().unwrap_or(0);
    let Some(window) = &facts.window else {
        let value = format!("{since_boot} since boot; one look does not show new ones");
        return Check::new(name, value, NotApplicable, why);
    };
    let after = &window.after.management;
    let grown = after.iter().map(|(core, count)| {
        count.saturating_sub(window.before.management.get(core).copied().unwrap_or(*count))
    });
    let grown = grown.max().unwrap_or(0);
    let value = format!("{grown} in {}, {since_boot} since boot", seconds(window.millis));
    let verdict = if grown == 0 { Ok } else { Fail };
    Check::new(name, value, verdict, why).remedy(
        "in the firmware's set-up: switch off legacy USB support, and what monitors or logs in the background",
        "switch it on again",
    )
}

pub(super) fn machine_checks(facts: &Facts) -> Check {
    let why = "looking for corrected memory errors interrupts every core each few minutes";
    let name = "machine checks";
    let all = &facts.settings.machine_checks;
    if all.is_empty() {
        return Check::new(name, "the kernel shows none", NotApplicable, why);
    }
    let polls = |(_, ignore, interval): &&(String, Option<u64>, Option<u64>)| {
        *ignore != Some(1) && *interval != Some(0)
    };
    match all.iter().find(polls) {
        None => Check::new(name, "corrected errors are not looked for", Ok, why),
        Some((first, ignore, interval)) => {
            let interval = interval.map_or("some".to_owned(), |interval| interval.to_string());
            let path = format!("/sys/devices/system/machinecheck/{first}/ignore_ce");
            // One switch, shown under every core. It also hides the errors, so somebody should
            // look at the memory now and then.
            Check::new(name, format!("looked for every {interval} s"), Warn, why)
                .set(vec![Write::new(path, 1, ignore.unwrap_or(0))])
        }
    }
}

pub(super) fn heat(facts: &Facts) -> Check {
    let why = "a core that is too hot runs slower, and no scheduler can help";
    let name = "thermal throttling";
    if facts.counters.throttled.is_empty() {
        return Check::new(name, "the processor keeps no count", NotApplicable, why);
    }
    let since_boot: u64 = facts.counters.throttled.values().sum();
    let Some(window) = &facts.window else {
        let value = format!("{since_boot} times since boot; one look does not show new ones");
        return Check::new(name, value, NotApplicable, why);
    };
    let hot = |core: &sinew_rt::topology::CoreId| {
        window.after.throttled.get(core) > window.before.throttled.get(core)
    };
    let hot: sinew_rt::topology::CoreList =
        window.after.throttled.keys().copied().filter(hot).collect();
    if hot.is_empty() {
        let value = format!("none in {}, {since_boot} since boot", seconds(window.millis));
        return Check::new(name, value, Ok, why);
    }
    let value = format!("{} slowed down in {}", named(&hot), seconds(window.millis));
    Check::new(name, value, Fail, why)
        .remedy("cool it, or lower scaling_max_freq until it stays cool", "raise it again")
}

pub(super) fn virtualisation(facts: &Facts) -> Check {
    let why = "a hypervisor can take a core away at any time: results say so, and prove nothing for bare metal";
    let name = "virtualisation";
    let stolen = facts.window.as_ref().and_then(|window| {
        let ticks = window.after.stolen_ticks?.checked_sub(window.before.stolen_ticks?)?;
        Some((ticks * 10, window.millis))
    });
    if facts.kernel.hypervisor.is_none() && facts.kernel.processor.is_none() && stolen.is_none() {
        return Check::new(
            name,
            "neither the processor nor stolen time is readable",
            NotApplicable,
            why,
        );
    }
    match (&facts.kernel.hypervisor, stolen) {
        (None, None | Some((0, _))) => Check::new(name, "no hypervisor reported", Ok, why),
        (make, stolen) => {
            let make = match make {
                Some(make) => format!("hypervisor {make}"),
                None => "a hypervisor that does not say so".to_owned(),
            };
            let value = match stolen {
                Some((stolen_ms, millis)) => {
                    format!("{make}; it took {stolen_ms} ms in {}", seconds(millis))
                }
                None => make,
            };
            Check::new(name, value, Warn, why).remedy("measure and run on the target hardware", "-")
        }
    }
}
