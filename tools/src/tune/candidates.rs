//! The configurations worth trying on the chosen cores, and what each should cost by the measured
//! parts: pure.

use sinew_io::node::Layout;
use sinew_rt::clock::Nanos;
use sinew_rt::topology::{CoreId, CoreList};
use sinew_rt::wait::Wait;

use super::cores::Cores;
use super::facts::{
    Demands, Machine, Measurements, PARKED_HOP_ASSUMED_NS, SPINNING_HOP_ASSUMED_NS, StageWork,
    WAKE_ASSUMED_NS,
};

/// How long a lane that spins before it parks does so: the time in which an answer comes.
const SPIN_BEFORE_PARK: Nanos = Nanos::from_micros(50);

/// The largest share of its core that a lane may spin away before it parks: above it the lane as good
/// as spins for good.
const SPIN_SHARE_MAX: f64 = 0.5;

/// One way to run the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) layout: Layout,
    pub(crate) wait: Wait,
    /// Of the lanes, in the order in which they take them.
    pub(crate) cores: Vec<CoreId>,
    pub(crate) keep_awake: Vec<CoreId>,
}

impl Candidate {
    /// What a node must have read from the file that is written.
    #[cfg(test)]
    pub(crate) fn realtime(&self) -> sinew_io::node::RealTimeConfig {
        sinew_io::node::RealTimeConfig {
            layout: self.layout,
            cores: self.cores.clone(),
            wait: self.wait,
            keep_awake: self.keep_awake.clone(),
            ..sinew_io::node::RealTimeConfig::default()
        }
    }

    /// How much there is to it: of equals the simplest is chosen.
    pub(crate) fn complexity(&self) -> (bool, usize, u8) {
        let wait = match self.wait {
            Wait::Park => 0,
            Wait::SpinThenPark { .. } => 1,
            Wait::Spin => 2,
        };
        (!self.keep_awake.is_empty(), lanes(self.layout), wait)
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cores: CoreList = self.cores.iter().copied().collect();
        write!(f, "{} on core {cores}, {}", self.layout, self.wait)?;
        if !self.keep_awake.is_empty() { write!(f, ", keep-awake") } else { Ok(()) }
    }
}

/// How many lanes a layout has.
pub(crate) fn lanes(layout: Layout) -> usize {
    match layout {
        Layout::Pipelined => 4,
        Layout::Split => 3,
        Layout::Fused | Layout::Auto => 1,
    }
}

/// Why lanes may not spin on these cores, if they may not.
pub(crate) fn spin_refused(machine: &Machine, cores: &Cores, layout: Layout) -> Option<String> {
    let need = lanes(layout);
    if let Err(refused) = &machine.spin {
        return Some(format!("{}; fix: {}", refused.reason, refused.fix));
    }
    if cores.lanes.len() < need {
        return Some(format!("{layout} would need {need} cores of its own for lanes"));
    }
    if cores.shared() {
        return Some("the control loop has to share the lane's core".to_owned());
    }
    let lanes = &cores.lanes[..need];
    let sibling = |core: &CoreId| {
        machine.topology.siblings_of(*core).iter().find(|sibling| {
            Some(*sibling) == cores.housekeeping
                || cores.loops.contains(sibling)
                || lanes.contains(sibling)
        })
    };
    if let Some(sibling) = lanes.iter().find_map(sibling) {
        return Some(format!("core {sibling} works on the same physical core"));
    }
    let free = |core: CoreId| !lanes.contains(&core);
    (!machine.topology.usable_cores().iter().any(free))
        .then(|| "nothing else could run any more".to_owned())
}

/// Everything worth trying, without what the machine refuses or the node would.
pub(crate) fn all(machine: &Machine, cores: &Cores, demands: &Demands) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
        // Lanes may share a core when they park, but four threads on one have nothing to overlap.
        if lanes(layout) > 3 * cores.lanes.len() {
            continue;
        }
        let used = &cores.lanes[..lanes(layout).min(cores.lanes.len())];
        let mut waits = vec![Wait::Park];
        let spun_away = SPIN_BEFORE_PARK.as_nanos() as f64 / demands.period_ns();
        if spun_away <= SPIN_SHARE_MAX {
            waits.push(Wait::SpinThenPark { spin: SPIN_BEFORE_PARK });
        }
        if spin_refused(machine, cores, layout).is_none() {
            waits.push(Wait::Spin);
        }
        let awake: CoreList = used.iter().chain(&cores.loops).copied().collect();
        for wait in waits {
            let candidate =
                |keep_awake| Candidate { layout, wait, cores: used.to_vec(), keep_awake };
            candidates.push(candidate(Vec::new()));
            if !wait.holds_core() {
                candidates.push(candidate(awake.iter().collect()));
            }
        }
    }
    candidates
}

/// The p99 that the measured parts add up to: the wake-up of the lane that receives, the stages of
/// the way in, the hand-offs between their lanes, and the wait behind other messages. Infinite when a
/// core would have more to do than it can.
pub(crate) fn predicted_ns(
    candidate: &Candidate,
    measured: &Measurements,
    demands: &Demands,
) -> f64 {
    let StageWork { receive_ns, verify_ns, deliver_ns, send_ns } = measured.work();
    // What each lane does for one message in and one out, in the order of the layouts.
    let (way_in, out): (Vec<f64>, Vec<f64>) = match candidate.layout {
        Layout::Pipelined => (vec![receive_ns, verify_ns, deliver_ns], vec![send_ns]),
        Layout::Split => (vec![receive_ns, verify_ns + deliver_ns], vec![send_ns]),
        Layout::Fused | Layout::Auto => (vec![receive_ns + verify_ns + deliver_ns], vec![]),
    };
    let core = |lane: usize| candidate.cores[lane % candidate.cores.len()];
    let mut busy_ns = vec![0.0; candidate.cores.len()];
    for (lane, work) in way_in.iter().chain(&out).enumerate() {
        busy_ns[lane % candidate.cores.len()] += work;
    }
    if out.is_empty() {
        busy_ns[0] += send_ns;
    }
    let share = busy_ns.iter().fold(0.0, |most: f64, busy| most.max(busy / demands.period_ns()));
    if share >= 1.0 {
        return f64::INFINITY;
    }
    let spins = candidate.wait.holds_core();
    let factor = match candidate.keep_awake.is_empty() {
        true => 1.0,
        false => measured.keep_awake_factor().unwrap_or(1.0),
    };
    let wake_ns = match spins {
        true => SPINNING_HOP_ASSUMED_NS,
        false => factor * measured.core(core(0)).map_or(WAKE_ASSUMED_NS, |core| core.wake_p99_ns),
    };
    let hops = (1..way_in.len()).map(|lane| {
        let (from, to) = (core(lane - 1), core(lane));
        match spins {
            true => measured.spinning_hop_ns(from, to).unwrap_or(SPINNING_HOP_ASSUMED_NS),
            false => factor * measured.parked_hop_ns(from, to).unwrap_or(PARKED_HOP_ASSUMED_NS),
        }
    });
    // The mean wait in a queue with equal services and random arrivals (Pollaczek-Khinchine).
    let busiest = busy_ns.iter().fold(0.0, |most: f64, busy| most.max(*busy));
    let queued_ns = busiest * share / (2.0 * (1.0 - share));
    wake_ns + way_in.iter().sum::<f64>() + hops.sum::<f64>() + queued_ns
}
