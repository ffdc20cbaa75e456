//! The verdicts: each check is a pure function of the facts.
//!
//! `fail` means that real-time work cannot be relied on, `warn` that it works with higher latency
//! or less certainty, `n/a` that the machine has no such thing or does not show it, and then which.
//! What each one is for, and where the kernel documents it, is in docs/doctor.md.

mod cores;
mod hardware;
mod interrupts;
mod kernel;
mod memory;
mod network;
mod power;
mod scheduling;
mod time;

use sinew_rt::topology::CoreList;

pub(super) use time::KEEPERS as CLOCK_KEEPERS;

use super::Facts;
use super::report::{Check, Verdict, Write};

type Judge = fn(&Facts) -> Check;

/// Every check, under the number that it has in docs/doctor.md.
const CHECKS: [Judge; 31] = [
    kernel::preemption,
    power::governor,
    power::idle_states,
    cores::hardware_threads,
    cores::isolation,
    cores::tick,
    cores::rcu_callbacks,
    interrupts::affinity,
    interrupts::irqbalance,
    scheduling::throttling,
    scheduling::fair_server,
    scheduling::strangers,
    interrupts::workqueues,
    kernel::lockup_detectors,
    memory::background_work,
    memory::huge_pages,
    time::clock_source,
    scheduling::rights,
    memory::locked,
    hardware::management_interrupts,
    network::devices,
    network::socket_buffers,
    power::pcie,
    kernel::efi_runtime,
    kernel::debugging,
    hardware::machine_checks,
    hardware::heat,
    hardware::virtualisation,
    scheduling::priorities,
    cores::cache_sharing,
    time::clock_sync,
];

/// All checks, in the order of their numbers.
pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    let numbered = |(judge, number): (&Judge, u8)| Check { number, ..judge(facts) };
    CHECKS.iter().zip(1..).map(numbered).collect()
}

/// At most `limit` of `items`, and how many more there are.
fn some<T: ToString>(items: &[T], limit: usize) -> String {
    let shown: Vec<String> = items.iter().take(limit).map(ToString::to_string).collect();
    match items.len().saturating_sub(limit) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `0.5 s`
fn seconds(millis: u64) -> String {
    format!("{:.1} s", millis as f64 / 1000.0)
}

/// How a change of the kernel's command line is undone.
const REBOOT_UNDO: &str = "remove it from the command line, and reboot";

/// `core 1`, `cores 1-3`
fn named(cores: &CoreList) -> String {
    format!("core{} {cores}", if cores.len() == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
