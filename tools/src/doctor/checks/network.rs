//! What delays a datagram between the wire and a lane.

use sinew_rt::kernel::TaskPolicy;

use super::Verdict::{NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, seconds};
use crate::doctor::facts::{Coalescing, Nic};

/// A receive buffer that holds what comes while a lane is late by some milliseconds.
const RECEIVE_BUFFER_GOAL: u64 = 4 * 1024 * 1024;

pub(super) fn devices(facts: &Facts) -> Check {
    let why =
        "a network device that gathers frames, sleeps, or hangs on USB adds up to milliseconds";
    let name = "network devices";
    let Some(nics) = &facts.nics else {
        return Check::new(name, "/sys/class/net is not readable", NotApplicable, why);
    };
    // One that is down carries no messages; when all are, all count.
    let up: Vec<&Nic> = nics.iter().filter(|nic| nic.up).collect();
    let judged = if up.is_empty() { nics.iter().collect() } else { up };
    if judged.is_empty() {
        return Check::new(name, "no device with hardware behind it", NotApplicable, why);
    }
    let (mut faults, mut fixes, mut undos, mut shown) = (vec![], vec![], vec![], vec![]);
    for nic in &judged {
        let name = &nic.name;
        let mut fault = |what: String, fix: String, undo: String| {
            faults.push(format!("{name}: {what}"));
            fixes.push(fix);
            undos.push(undo);
        };
        match nic.coalescing {
            Some(c) if c != Coalescing::default() => {
                let adaptive = if c.adaptive_rx || c.adaptive_tx { ", adaptive" } else { "" };
                let (fix, undo) = gather_nothing(c);
                fault(
                    format!("gathers frames for {} µs (tx {} µs{adaptive})", c.rx_us, c.tx_us),
                    format!("ethtool -C {name}{fix}"),
                    format!("ethtool -C {name}{undo}"),
                );
            }
            _ => {}
        }
        if nic.saves_energy == Some(true) {
            fault(
                "saves energy (EEE)".to_owned(),
                format!("ethtool --set-eee {name} eee off"),
                format!("ethtool --set-eee {name} eee on"),
            );
        }
        if nic.bus.as_deref() == Some("usb") || nic.wireless {
            let what = if nic.wireless { "wireless" } else { "hangs on USB" };
            fault(
                what.to_owned(),
                format!("use a wired device on PCIe instead of {name}"),
                format!("use {name} again"),
            );
        }
        for (thread, priority) in slow_threads(facts, nic) {
            fault(
                format!(
                    "its interrupt thread {thread} has priority {priority}, not above the lanes' {}",
                    facts.purpose.priority
                ),
                format!("chrt -f -p {} {thread}", facts.purpose.priority + 1),
                format!("chrt -f -p {priority} {thread}"),
            );
        }
        let known = |known: bool, yes: &'static str, no: &'static str| if known { yes } else { no };
        shown.push(format!(
            "{name} ({}, {}, {})",
            nic.bus.as_deref().unwrap_or("bus unknown"),
            known(nic.coalescing.is_some(), "no coalescing", "coalescing unknown"),
            known(nic.saves_energy.is_some(), "no EEE", "EEE unknown"),
        ));
    }
    if !faults.is_empty() {
        return Check::new(name, faults.join("; "), Warn, why)
            .remedy(fixes.join("; "), undos.join("; "));
    }
    let known = judged.iter().all(|nic| nic.coalescing.is_some());
    Check::new(name, shown.join("; "), if known { Ok } else { NotApplicable }, why)
}

/// What ethtool(8) is told, and what puts it back. Only of what is on: it refuses the whole command
/// for one parameter that a driver does not have.
fn gather_nothing(now: Coalescing) -> (String, String) {
    let (mut fix, mut undo) = (String::new(), String::new());
    for (on, parameter) in [(now.adaptive_rx, "adaptive-rx"), (now.adaptive_tx, "adaptive-tx")] {
        if on {
            fix.push_str(&format!(" {parameter} off"));
            undo.push_str(&format!(" {parameter} on"));
        }
    }
    for (us, parameter) in [(now.rx_us, "rx-usecs"), (now.tx_us, "tx-usecs")] {
        if us > 0 {
            fix.push_str(&format!(" {parameter} 0"));
            undo.push_str(&format!(" {parameter} {us}"));
        }
    }
    (fix, undo)
}

/// The interrupt threads of a device that a lane which receives would starve.
fn slow_threads(facts: &Facts, nic: &Nic) -> Vec<(u32, u8)> {
    if facts.purpose.priority >= 98 {
        return Vec::new();
    }
    let tasks = facts.counters.tasks.iter().flat_map(|tasks| &tasks.all);
    tasks
        .filter_map(|task| {
            let number = task.name.strip_prefix("irq/")?.split('-').next()?.parse().ok()?;
            let TaskPolicy::RealTime(priority) = task.policy else { return None };
            let slow = nic.interrupts.contains(&number) && priority <= facts.purpose.priority;
            slow.then_some((task.thread, priority))
        })
        .collect()
}

pub(super) fn socket_buffers(facts: &Facts) -> Check {
    const PATH: &str = "/proc/sys/net/core/rmem_max";
    let why = "a datagram that finds the buffer full is lost, and nobody is told";
    let name = "socket buffers";
    let max = facts.settings.receive_buffer_max;
    let limit = max.map_or("rmem_max unreadable".to_owned(), |max| format!("rmem_max {max}"));
    let since_boot = match facts.counters.udp_dropped {
        Some(dropped) => format!("{dropped} dropped since boot"),
        None => "drops unreadable".to_owned(),
    };
    let grown = facts.window.as_ref().and_then(|window| {
        let udp = window.after.udp_dropped?.saturating_sub(window.before.udp_dropped?);
        let (before, after) = (window.before.backlog_dropped, window.after.backlog_dropped);
        let backlog = after.unwrap_or(0).saturating_sub(before.unwrap_or(0));
        Some((udp, backlog, window.millis))
    });
    let Some((udp, backlog, millis)) = grown else {
        let value = format!("{limit}; {since_boot}; one look does not show new ones");
        return Check::new(name, value, NotApplicable, why);
    };
    if udp == 0 && backlog == 0 {
        let value = format!("{limit}; none dropped in {}, {since_boot}", seconds(millis));
        return Check::new(name, value, Ok, why);
    }
    let value = format!(
        "{udp} dropped by full buffers and {backlog} by the kernel's backlog in {}; {limit}",
        seconds(millis)
    );
    let check = Check::new(name, value, Warn, why);
    match max {
        Some(max) if max < RECEIVE_BUFFER_GOAL => {
            check.set(vec![Write::new(PATH, RECEIVE_BUFFER_GOAL, max)])
        }
        _ => check.remedy(
            "find the socket that is full (ss -uamn), and give its reader more time",
            "take it away again",
        ),
    }
}
