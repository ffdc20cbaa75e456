//! What saves power and costs latency.

use std::collections::BTreeSet;

use sinew_rt::kernel::CoreFrequency;
use sinew_rt::topology::CoreList;

use super::Verdict::{NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, named};

/// Exit latency of an idle state that is harmless: a tenth of a 100 µs budget.
const EXIT_LATENCY_LIMIT_US: u64 = 10;

pub(super) fn governor(facts: &Facts) -> Check {
    let why = "a core that changes its frequency stalls, and runs the same code at another speed";
    let name = "frequency governor";
    let lanes = &facts.purpose.lanes;
    let all: Vec<&CoreFrequency> =
        facts.kernel.frequencies.iter().filter(|core| lanes.contains(core.core)).collect();
    if all.is_empty() {
        return Check::new(name, "no frequency scaling visible", NotApplicable, why);
    }
    let names = |cores: &[&CoreFrequency]| {
        let names: BTreeSet<&str> = cores.iter().map(|core| core.governor.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let fixed = |core: &CoreFrequency| {
        core.governor == "performance" || (core.min_khz.is_some() && core.min_khz == core.max_khz)
    };
    let moving: Vec<&CoreFrequency> = all.iter().copied().filter(|core| !fixed(core)).collect();
    if moving.is_empty() {
        return Check::new(name, names(&all), Ok, why);
    }
    let cores: CoreList = moving.iter().map(|core| core.core).collect();
    let write = |core: &&CoreFrequency| {
        let path = format!("/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor", core.core);
        Write::new(path, "performance", &core.governor)
    };
    Check::new(name, format!("{} on {}", names(&moving), named(&cores)), Warn, why)
        .set(moving.iter().map(write).collect())
}

pub(super) fn idle_states(facts: &Facts) -> Check {
    let why = "waking from a deep idle state adds its exit latency to every wake-up";
    let name = "idle states";
    let lanes = facts.kernel.idle.iter().filter(|core| facts.purpose.lanes.contains(core.core));
    let slowest = lanes.filter_map(|core| core.slowest_enabled());
    let Some(slowest) = slowest.max_by_key(|state| state.exit_latency_us) else {
        return Check::new(name, "the kernel offers none", NotApplicable, why);
    };
    let value = format!("slowest: {}, {} µs", slowest.name, slowest.exit_latency_us);
    let held = facts.latency.bound_us.filter(|bound| u64::from(*bound) <= EXIT_LATENCY_LIMIT_US);
    if slowest.exit_latency_us <= EXIT_LATENCY_LIMIT_US {
        return Check::new(name, value, Ok, why);
    }
    if let Some(bound) = held {
        return Check::new(name, format!("{value}; held at {bound} µs now"), Ok, why);
    }
    let value = match facts.latency.may_hold {
        Some(true) => {
            let value = format!("{value}; lanes hold /dev/cpu_dma_latency at 0");
            return Check::new(name, value, Ok, why);
        }
        Some(false) => format!("{value}, and this user may not hold /dev/cpu_dma_latency"),
        None => format!("{value}; whether lanes may hold /dev/cpu_dma_latency was not tried"),
    };
    Check::new(name, value, Warn, why).remedy(
        "groupadd -f realtime && usermod -a -G realtime USER && chgrp realtime /dev/cpu_dma_latency && chmod 660 /dev/cpu_dma_latency (for good: udev rule KERNEL==\"cpu_dma_latency\", GROUP=\"realtime\", MODE=\"0660\")",
        "chgrp root /dev/cpu_dma_latency && chmod 600 /dev/cpu_dma_latency; gpasswd -d USER realtime",
    )
}

pub(super) fn pcie(facts: &Facts) -> Check {
    const PATH: &str = "/sys/module/pcie_aspm/parameters/policy";
    let why = "a PCIe link that sleeps adds microseconds to the first access of a device";
    let name = "PCIe power";
    match facts.settings.pcie_policy.as_deref() {
        None => Check::new(name, "the kernel does not manage it", NotApplicable, why),
        Some("performance") => Check::new(name, "performance", Ok, why),
        Some(policy) => Check::new(name, format!("policy {policy}"), Warn, why)
            .set(vec![Write::new(PATH, "performance", policy)]),
    }
}
