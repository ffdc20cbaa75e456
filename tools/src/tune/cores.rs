//! Which core does what: a pure function of the topology, the measurements and the demands.
//!
//! The rules are those of the node's own plan ([`Topology::real_time_cores`] and
//! [`Topology::housekeeping_candidates`]); measurements decide where the topology leaves a choice.

use sinew_rt::topology::{CoreId, CoreList, Topology};

use super::facts::{Demands, Measurements};

/// Lanes of the layout that has the most.
pub(crate) const LANES_MAX: usize = 4;

/// A core keeps house instead of the one that the topology names when it loses so many times as
/// much of its time, and at least so much: below that it is the noise of a short measurement.
const NOISIER_TIMES: f64 = 4.0;
const NOISY_PPM: f64 = 100.0;

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// For everything that is not real-time; `None` where one core does everything.
    pub(crate) housekeeping: Option<CoreId>,
    /// One for each control loop; loops share cores when there are too few.
    pub(crate) loops: Vec<CoreId>,
    /// For the node's lanes, the best first.
    pub(crate) lanes: Vec<CoreId>,
    /// Hardware threads that share a physical core with one of the above and must stay idle.
    pub(crate) left_idle: CoreList,
    /// Every real-time core in the order of preference; those that are not used come last.
    pub(crate) ranked: Vec<CoreId>,
    /// Whether a measurement, not the topology's rule, chose the housekeeping core.
    pub(crate) housekeeping_by_noise: bool,
}

impl Cores {
    /// Whether loops and lanes have to share a core.
    pub(crate) fn shared(&self) -> bool {
        self.loops.iter().any(|core| self.lanes.contains(core))
    }

    /// The cores on which real-time threads run.
    pub(crate) fn real_time(&self) -> CoreList {
        self.loops.iter().chain(&self.lanes).copied().collect()
    }
}

/// Chooses cores. `None` when the process may use none.
pub(crate) fn choose(
    topology: &Topology,
    measured: &Measurements,
    demands: &Demands,
) -> Option<Cores> {
    let usable = topology.usable_cores();
    let rule = topology.housekeeping_candidates().first().copied();
    let housekeeper = noisiest(topology, measured, rule);
    let mut pool = topology.real_time_cores();
    if housekeeper != rule
        && let (Some(noisy), Some(quiet)) = (housekeeper, rule)
        && let Some(place) = pool.iter().position(|core| *core == noisy)
    {
        pool[place] = quiet;
    }
    if pool.len() > 1 {
        pool.retain(|core| Some(*core) != housekeeper);
    }
    let first = *pool.first()?;
    // The housekeeping core is apart, or else everything is on one core.
    let housekeeping = housekeeper.filter(|core| usable.len() > 1 && !pool.contains(core));

    // One thread of each physical core, none of the housekeeper's: a sibling that works takes half
    // of the core away. Where that leaves nothing, the first core has to do.
    let siblings = |core: CoreId| topology.siblings_of(core);
    let mut alone: Vec<CoreId> = Vec::new();
    for core in &pool {
        let with = siblings(*core);
        let taken = |other: CoreId| alone.contains(&other) || Some(other) == housekeeping;
        if !with.iter().any(taken) {
            alone.push(*core);
        }
    }
    if alone.is_empty() {
        alone.push(first);
    }
    let order = |core: &CoreId| pool.iter().position(|other| other == core);
    alone
        .sort_by_key(|core| (slowness(topology, *core), disturbance(measured, *core), order(core)));
    let wanted = usize::from(demands.loops.max(1)) + LANES_MAX;
    let ranked = one_node_first(topology, &alone, wanted);
    let (loops, lanes) = roles(topology, measured, &ranked, usize::from(demands.loops));
    let used: CoreList = loops.iter().chain(&lanes).copied().collect();
    let left_idle = used
        .iter()
        .flat_map(|core| siblings(core).iter().collect::<Vec<_>>())
        .filter(|sibling| usable.contains(*sibling) && Some(*sibling) != housekeeping)
        .filter(|sibling| !used.contains(*sibling))
        .collect();
    let housekeeping_by_noise = housekeeping.is_some() && housekeeper != rule;
    Some(Cores { housekeeping, loops, lanes, left_idle, ranked, housekeeping_by_noise })
}

/// The core that keeps house: the one of the topology's rule, unless another of its kind is so much
/// noisier that normal work belongs there.
fn noisiest(topology: &Topology, measured: &Measurements, rule: Option<CoreId>) -> Option<CoreId> {
    let quiet = rule?;
    let ppm = |core: CoreId| measured.core(core).map(|core| core.gaps_ppm);
    let Some(least) = ppm(quiet).map(|ppm| (ppm * NOISIER_TIMES).max(NOISY_PPM)) else {
        return rule;
    };
    let same_kind = |core: &CoreId| slowness(topology, *core) == slowness(topology, quiet);
    let noisier = topology.housekeeping_candidates().into_iter().filter(same_kind);
    let noisier = noisier.filter_map(|core| Some((ppm(core)?, core)));
    let worst = noisier.filter(|(ppm, _)| *ppm > least).max_by(|one, other| {
        // Of equals the lower number, so that the choice does not depend on the order.
        one.0.total_cmp(&other.0).then(other.1.cmp(&one.1))
    });
    worst.map_or(rule, |(_, core)| Some(core))
}

/// Orders the fastest kind first.
fn slowness(topology: &Topology, core: CoreId) -> u32 {
    u32::MAX - topology.core(core).and_then(|core| core.capacity).unwrap_or(1024)
}

/// Orders by what was measured of a core, in factors of two: less is not a difference between cores
/// but between two seconds.
fn disturbance(measured: &Measurements, core: CoreId) -> (u32, u32) {
    let factor_of_two = |value: f64| value.max(1.0).log2() as u32;
    measured.core(core).map_or((0, 0), |core| {
        // 64 ppm is a tick of some microseconds each 100 ms: quieter is all the same.
        (factor_of_two(core.gaps_ppm / 64.0), factor_of_two(core.wake_p99_ns / 1e3))
    })
}

/// The cores of the best memory node first: a hand-off to another node costs several times as much,
/// and memory that one side faulted in stays there.
fn one_node_first(topology: &Topology, cores: &[CoreId], wanted: usize) -> Vec<CoreId> {
    let node = |core: CoreId| topology.nodes.iter().position(|node| node.cores.contains(core));
    let enough =
        |of: Option<usize>| cores.iter().filter(|core| node(**core) == of).count().min(wanted);
    // The first of those that offer the most: `cores` has the best first.
    let most = cores.iter().map(|core| enough(node(*core))).max();
    let best = cores.iter().find(|core| Some(enough(node(**core))) == most).map(|core| node(*core));
    let (mut here, there): (Vec<_>, Vec<_>) =
        cores.iter().copied().partition(|core| best == Some(node(*core)));
    here.extend(there);
    here
}

/// Loops take the best cores, one each as long as one is left for lanes; then come the lanes, each on
/// the core that is nearest to the one before.
fn roles(
    topology: &Topology,
    measured: &Measurements,
    ranked: &[CoreId],
    loops: usize,
) -> (Vec<CoreId>, Vec<CoreId>) {
    let own = loops.min(ranked.len().saturating_sub(1));
    let of_loops: Vec<CoreId> = match own {
        // A single core, which everything shares.
        0 => ranked.iter().copied().cycle().take(loops).collect(),
        own => ranked[..own].iter().copied().cycle().take(loops).collect(),
    };
    let mut free = ranked[own..].to_vec();
    let mut lanes: Vec<CoreId> = Vec::new();
    while !free.is_empty() && lanes.len() < LANES_MAX {
        let from = lanes.last().or_else(|| of_loops.first()).copied();
        let nearest = free
            .iter()
            .enumerate()
            .min_by_key(|(place, core)| {
                (from.map(|from| distance(topology, measured, from, **core)), *place)
            })
            .map_or(0, |(place, _)| place);
        lanes.push(free.remove(nearest));
    }
    (of_loops, lanes)
}

/// Orders cores by what a hand-off to them costs: measured, in steps of a quarter of a factor of two,
/// or else by the nearest cache that both use and the memory node.
fn distance(topology: &Topology, measured: &Measurements, from: CoreId, to: CoreId) -> (bool, u32) {
    let node = |core: CoreId| topology.nodes.iter().position(|node| node.cores.contains(core));
    let elsewhere = node(from) != node(to);
    match measured.spinning_hop_ns(from, to) {
        Some(ns) => (elsewhere, (ns.max(1.0).log2() * 4.0) as u32),
        None => (elsewhere, topology.nearest_shared_cache(from, to).map_or(99, u32::from)),
    }
}
