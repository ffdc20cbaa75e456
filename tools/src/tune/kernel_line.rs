//! What to add to the kernel's command line for a placement: pure.
//!
//! From the kernel's documentation: `admin-guide/kernel-parameters.rst` (isolcpus, irqaffinity,
//! rcu_nocbs, nohz_full) and `admin-guide/kernel-per-CPU-kthreads.rst`.

use sinew_rt::topology::CoreList;

use super::cores::Cores;
use super::facts::Machine;

/// The parameters that are missing; none where one core does everything, for nobody would be left to
/// do what they move away.
pub(crate) fn missing(machine: &Machine, cores: &Cores, spins: bool) -> Vec<String> {
    if cores.housekeeping.is_none() {
        return Vec::new();
    }
    let topology = &machine.topology;
    // Idle siblings too: whatever the scheduler puts there takes half of the physical core.
    let real_time: CoreList = cores.real_time().iter().chain(cores.left_idle.iter()).collect();
    let others = topology.online.difference(&real_time);
    let covered = |list: &CoreList| real_time.difference(list).is_empty();
    let given = |name: &str| {
        let words = machine.command_line.split_whitespace();
        let value = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next_back();
        value.and_then(|list| list.parse::<CoreList>().ok()).unwrap_or_default()
    };
    let mut missing = Vec::new();
    if !covered(&topology.isolated) {
        missing.push(format!("isolcpus=managed_irq,domain,{real_time}"));
    }
    if given("irqaffinity").is_empty() || !given("irqaffinity").intersection(&real_time).is_empty()
    {
        missing.push(format!("irqaffinity={others}"));
    }
    if !covered(&given("rcu_nocbs")) {
        missing.push(format!("rcu_nocbs={real_time}"));
    }
    // A stopped tick costs each entry into the kernel: only for threads that hardly ever enter it.
    if spins && !covered(&topology.nohz_full) {
        missing.push(format!("nohz_full={real_time}"));
    }
    missing
}
