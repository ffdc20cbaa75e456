//! What kernel this is, and which of its duties it does on the lanes' cores.

use sinew_rt::kernel::{DynamicMode, Preemption};

use super::Verdict::{Fail, NotApplicable, Ok, Warn};
use super::{Check, Facts, REBOOT_UNDO, Write, named};

pub(super) fn preemption(facts: &Facts) -> Check {
    const PATH: &str = "/sys/kernel/debug/sched/preempt";
    let why = "only PREEMPT_RT bounds how long kernel code can hold up a real-time thread";
    let preemption = facts.kernel.preemption;
    let release = match facts.kernel.release.as_str() {
        "" => "release unreadable",
        release => release,
    };
    let value = format!("{preemption}, {release}");
    let verdict = match preemption {
        Preemption::RealTime => Ok,
        Preemption::Unknown if facts.kernel.version.is_empty() => NotApplicable,
        _ => Warn,
    };
    let check = Check::new("kernel type", value, verdict, why);
    let install = "install a PREEMPT_RT kernel (Debian: apt install linux-image-rt-amd64; Ubuntu: pro enable realtime-kernel)";
    match preemption {
        Preemption::Dynamic(mode @ (DynamicMode::None | DynamicMode::Voluntary)) => {
            let mode = if mode == DynamicMode::None { "none" } else { "voluntary" };
            let check = check.remedy(
                format!("{install}; until then: echo full > {PATH}"),
                format!("boot the other kernel; echo {mode} > {PATH}"),
            );
            match facts.settings.preemption_switch {
                true => check.writes(vec![Write::new(PATH, "full", mode)]),
                false => check,
            }
        }
        _ => check.remedy(install, "boot the other kernel"),
    }
}

pub(super) fn lockup_detectors(facts: &Facts) -> Check {
    let why = "the detectors interrupt every core they watch, some seconds apart";
    let name = "lockup detectors";
    let settings = &facts.settings;
    if settings.nmi_watchdog.is_none() && settings.soft_watchdog.is_none() {
        return Check::new(name, "the kernel has none, or does not say", NotApplicable, why);
    }
    let all = [("nmi_watchdog", settings.nmi_watchdog), ("soft_watchdog", settings.soft_watchdog)];
    let on: Vec<_> = all.iter().filter(|(_, value)| value.is_some_and(|on| on != 0)).collect();
    if on.is_empty() {
        return Check::new(name, "off", Ok, why);
    }
    let names: Vec<&str> = on.iter().map(|(name, _)| *name).collect();
    if let Some(watched) = &settings.watchdog_cores
        && watched.intersection(&facts.purpose.lanes).is_empty()
    {
        let value = format!("{} watch {} only", names.join(" and "), named(watched));
        return Check::new(name, value, Ok, why);
    }
    let write = |(name, value): &&(&str, Option<u64>)| {
        Write::new(format!("/proc/sys/kernel/{name}"), 0, value.unwrap_or(1))
    };
    Check::new(name, format!("{} on", names.join(" and ")), Warn, why)
        .set(on.iter().map(write).collect())
}

pub(super) fn efi_runtime(facts: &Facts) -> Check {
    let why = "a call into the firmware keeps its core for milliseconds, with interrupts off";
    let name = "EFI runtime";
    if !facts.settings.efi {
        return Check::new(name, "the firmware is not UEFI", NotApplicable, why);
    }
    let options: Vec<&str> = facts.kernel.parameter("efi").unwrap_or_default().split(',').collect();
    if options.contains(&"noruntime") || facts.kernel.parameter("noefi").is_some() {
        return Check::new(name, "switched off (efi=noruntime)", Ok, why);
    }
    let asked_for = options.contains(&"runtime");
    if !asked_for && facts.settings.efi_runtime_off_built == Some(true) {
        return Check::new(name, "switched off by the kernel's configuration", Ok, why);
    }
    let queue = facts.settings.workqueues.iter().find(|(path, _)| path.contains("/efi_"));
    if let Some((_, cores)) = queue
        && cores.intersection(&facts.purpose.lanes).is_empty()
    {
        return Check::new(name, format!("called on {} only", named(cores)), Ok, why);
    }
    Check::new(name, "may be called on any core", Warn, why).remedy(
        "add efi=noruntime to the kernel command line, and reboot (boot entries can then not be changed from Linux)",
        REBOOT_UNDO,
    )
}

pub(super) fn debugging(facts: &Facts) -> Check {
    let why = "lock proving and memory checkers make every kernel path slower, without a bound";
    let name = "debug kernel";
    let settings = &facts.settings;
    if let Some(found) = settings.debug_options.as_ref().filter(|found| !found.is_empty()) {
        let names: Vec<&str> =
            found.iter().map(|option| option.trim_start_matches("CONFIG_")).collect();
        return Check::new(name, format!("built with {}", names.join(", ")), Fail, why)
            .remedy("boot a kernel that is built without them", "boot the other kernel");
    }
    let built = match settings.debug_options {
        Some(_) => "no debug options built in",
        None => "build configuration not readable",
    };
    match &settings.tracer {
        Some((tracer, path)) if tracer != "nop" => {
            Check::new(name, format!("tracer {tracer} is on; {built}"), Warn, why)
                .set(vec![Write::new(path, "nop", tracer)])
        }
        tracer => {
            let (tracer, seen) = match tracer {
                Some(_) => ("no tracer is on", true),
                None => ("tracer not readable", false),
            };
            let verdict = match settings.debug_options.is_some() || seen {
                true => Ok,
                false => NotApplicable,
            };
            Check::new(name, format!("{built}; {tracer}"), verdict, why)
        }
    }
}
