//! Interrupts of devices, and the kernel's deferred work, on the lanes' cores.

use std::collections::BTreeMap;

use sinew_rt::files;
use sinew_rt::kernel::{Interrupt, InterruptRow};
use sinew_rt::topology::{CoreId, CoreList};

use super::Verdict::{NotApplicable, Ok, Warn};
use super::{Check, Facts, Write, named, seconds, some};

/// Names shown; the fix has all.
const SHOWN: usize = 4;

pub(super) fn affinity(facts: &Facts) -> Check {
    let why = "an interrupt runs before every thread: lanes' cores should see the timer and their network queue only";
    let name = "interrupts";
    let Some(interrupts) = &facts.interrupts else {
        return Check::new(name, "/proc/irq is not readable", NotApplicable, why);
    };
    let lanes = &facts.purpose.lanes;
    let label = |number: u32| match facts.counters.interrupts.as_ref() {
        Some(counts) => match counts.row(&number.to_string()) {
            Some(row) if !row.name.is_empty() => format!("{number} {}", row.name),
            _ => number.to_string(),
        },
        None => number.to_string(),
    };
    let here: Vec<&Interrupt> = interrupts
        .iter()
        .filter(|interrupt| {
            let cores = interrupt.effective.as_ref();
            cores.is_some_and(|cores| !cores.intersection(lanes).is_empty())
        })
        .collect();
    let queues = chosen_queues(facts, &here);
    let strange: Vec<&Interrupt> =
        here.iter().copied().filter(|interrupt| !queues.contains(&interrupt.number)).collect();
    let came = arrivals(facts, lanes, &queues);
    let unknown = interrupts.iter().all(|interrupt| interrupt.effective.is_none());
    if unknown && !interrupts.is_empty() {
        return Check::new(name, "the kernel does not say where they go", NotApplicable, why);
    }
    let mut parts = Vec::new();
    if !strange.is_empty() {
        let names: Vec<String> = strange.iter().map(|interrupt| label(interrupt.number)).collect();
        parts.push(format!("{} go to {}: {}", names.len(), named(lanes), some(&names, SHOWN)));
    }
    if !queues.is_empty() {
        let names: Vec<String> = queues.iter().map(|number| label(*number)).collect();
        parts.push(format!("network queue {}", some(&names, SHOWN)));
    }
    if !came.devices.is_empty() {
        parts.push(format!("in {} came {}", seconds(came.millis), some(&came.devices, SHOWN)));
    }
    if !came.calls.is_empty() {
        parts.push(format!(
            "from other cores in {}: {}",
            seconds(came.millis),
            some(&came.calls, SHOWN)
        ));
    }
    if parts.is_empty() {
        parts.push(format!("no device's go to {}", named(lanes)));
    }
    let found = !strange.is_empty() || !came.devices.is_empty();
    let check = Check::new(name, parts.join("; "), if found { Warn } else { Ok }, why);
    let elsewhere = &facts.purpose.housekeeping;
    if elsewhere.is_empty() || strange.is_empty() {
        return check.remedy(
            format!("keep a core for interrupts, and add irqaffinity=<cores but {lanes}> to the kernel command line"),
            super::REBOOT_UNDO,
        );
    }
    let write = |interrupt: &&Interrupt| {
        let path = format!("/proc/irq/{}/smp_affinity_list", interrupt.number);
        let old = interrupt.allowed.clone().or_else(|| interrupt.effective.clone());
        let old = old.unwrap_or_default();
        Write::new(path, elsewhere, old)
    };
    check.set(strange.iter().map(write).collect())
}

/// One interrupt of a network device on each lane's core is taken to be there on purpose.
fn chosen_queues(facts: &Facts, here: &[&Interrupt]) -> Vec<u32> {
    let of_network =
        |number: u32| facts.nics.iter().flatten().any(|nic| nic.interrupts.contains(&number));
    let mut by_core: BTreeMap<CoreId, Vec<u32>> = BTreeMap::new();
    for interrupt in here.iter().filter(|interrupt| of_network(interrupt.number)) {
        for core in interrupt.effective.iter().flat_map(CoreList::iter) {
            by_core.entry(core).or_default().push(interrupt.number);
        }
    }
    let alone = by_core.into_values().filter(|numbers| numbers.len() == 1);
    alone.flatten().collect()
}

/// What came to the lanes' cores while the doctor looked, with how often.
#[derive(Default)]
struct Arrivals {
    millis: u64,
    /// From devices.
    devices: Vec<String>,
    /// Calls of other cores: for page tables, code, and the like.
    calls: Vec<String>,
}

fn arrivals(facts: &Facts, lanes: &CoreList, queues: &[u32]) -> Arrivals {
    let Some(window) = &facts.window else { return Arrivals::default() };
    let (Some(before), Some(after)) = (&window.before.interrupts, &window.after.interrupts) else {
        return Arrivals::default();
    };
    let mut came: BTreeMap<&str, (&InterruptRow, u64)> = BTreeMap::new();
    for (row, count) in lanes.iter().flat_map(|core| after.since(before, core)) {
        came.entry(&row.label).or_insert((row, 0)).1 += count;
    }
    let timer = |row: &InterruptRow| row.label == "LOC" || row.name.contains("arch_timer");
    let (mut devices, mut calls) = (Vec::new(), Vec::new());
    for (row, count) in came.into_values().filter(|(row, _)| !timer(row)) {
        match row.label.parse::<u32>() {
            Result::Ok(number) if queues.contains(&number) => {}
            Result::Ok(number) => devices.push(format!("{number} {} ×{count}", row.name)),
            // A lane that is woken from another core gets RES; what it set up itself is IWI.
            Err(_) if ["RES", "IWI"].contains(&&*row.label) => {}
            Err(_) => calls.push(format!("{} ×{count}", row.label)),
        }
    }
    Arrivals { millis: window.millis, devices, calls }
}

pub(super) fn irqbalance(facts: &Facts) -> Check {
    let why = "irqbalance moves interrupts back to where they were taken away from";
    let name = "irqbalance";
    let Some(tasks) = &facts.counters.tasks else {
        return Check::new(name, "tasks are not readable", NotApplicable, why);
    };
    let runs = tasks.all.iter().any(|task| task.name == "irqbalance");
    if !runs {
        return match tasks.whole_machine() {
            true => Check::new(name, "does not run", Ok, why),
            false => {
                Check::new(name, "tasks outside this container are not visible", NotApplicable, why)
            }
        };
    }
    // Without a setting it leaves isolated cores alone (irqbalance(1)).
    let spared: CoreList = match &facts.settings.irqbalance_banned {
        Some(banned) => banned.clone(),
        None => facts.topology.isolated.iter().chain(facts.topology.nohz_full.iter()).collect(),
    };
    let lanes = &facts.purpose.lanes;
    if lanes.difference(&spared).is_empty() {
        return Check::new(name, format!("runs, and leaves {} alone", named(&spared)), Ok, why);
    }
    Check::new(name, format!("runs, and may use {}", named(&lanes.difference(&spared))), Warn, why)
        .remedy(
            format!(
                "put IRQBALANCE_BANNED_CPULIST={lanes} into /etc/default/irqbalance; systemctl restart irqbalance"
            ),
            "remove the line; systemctl restart irqbalance",
        )
}

pub(super) fn workqueues(facts: &Facts) -> Check {
    let why = "drivers put their deferred work on any core of the mask";
    let name = "workqueues";
    let all = &facts.settings.workqueues;
    if all.is_empty() {
        return Check::new(name, "no mask readable", NotApplicable, why);
    }
    let lanes = &facts.purpose.lanes;
    let on_lanes: Vec<&(String, CoreList)> =
        all.iter().filter(|(_, mask)| !mask.intersection(lanes).is_empty()).collect();
    if on_lanes.is_empty() {
        return Check::new(name, format!("kept off {}", named(lanes)), Ok, why);
    }
    let short = |path: &str| {
        let dir = path.trim_end_matches("/cpumask");
        match dir.rsplit_once('/') {
            Some((_, "workqueue")) | None => "all unbound".to_owned(),
            Some((_, name)) => name.to_owned(),
        }
    };
    let names: Vec<String> = on_lanes.iter().map(|(path, _)| short(path)).collect();
    let value = format!("{} may run on {}", some(&names, SHOWN), named(lanes));
    let check = Check::new(name, value, Warn, why);
    let write = |(path, mask): &&(String, CoreList)| {
        let rest = mask.difference(lanes);
        let to = if rest.is_empty() { &facts.purpose.housekeeping } else { &rest };
        (!to.is_empty()).then(|| Write::new(path, files::mask_of(to), files::mask_of(mask)))
    };
    let writes: Vec<Write> = on_lanes.iter().filter_map(write).collect();
    match writes.is_empty() {
        true => check.remedy("leave a core without lanes", "use it again"),
        false => check.set(writes),
    }
}
