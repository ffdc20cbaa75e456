//! The placement on written machines of 1 to 64 cores, and on any machine that proptest thinks of.

use proptest::prelude::*;
use sinew_io::node::{Layout, NodeConfig};
use sinew_rt::kernel::SpinRefused;
use sinew_rt::topology::{Core, CoreId, CoreList, Node, Topology};
use sinew_rt::wait::Wait;

use super::candidates::{self, Candidate, lanes, predicted_ns, spin_refused};
use super::cores::{self, Cores};
use super::facts::{CoreMeasured, Demands, Hop, Machine, Measurements, StageWork};
use super::kernel_line;

pub(super) const DEMANDS: Demands = Demands { rate_hz: 1_000, budget_us: 150, loops: 1 };

/// A machine to be written down. Hardware threads are numbered as most machines do it: the first of
/// every physical core, then the second of every one.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) cores: u16,
    pub(super) threads: u16,
    pub(super) nodes: u16,
    /// So many of the first cores are half as fast.
    pub(super) little: u16,
    pub(super) isolated: &'static str,
    pub(super) allowed: Option<CoreList>,
}

pub(super) const PLAIN: Written =
    Written { cores: 2, threads: 1, nodes: 1, little: 0, isolated: "", allowed: None };

fn list(text: &str) -> CoreList {
    text.parse().unwrap()
}

impl Written {
    pub(super) fn machine(&self) -> Machine {
        Machine { topology: self.topology(), spin: Ok(()), command_line: String::new() }
    }

    fn topology(&self) -> Topology {
        let physical = (self.cores / self.threads).max(1);
        let all: CoreList = (0..self.cores).map(CoreId::new).collect();
        let node_of = |core: u16| (core % physical) * self.nodes / physical;
        let core = |number: u16| Core {
            id: CoreId::new(number),
            package: None,
            core_in_package: None,
            siblings: all
                .iter()
                .filter(|core| core.get() % physical == number % physical)
                .collect(),
            capacity: (self.little > 0).then_some(if number % physical < self.little {
                512
            } else {
                1024
            }),
            caches: Vec::new(),
            interrupts: None,
        };
        let node = |id: u16| Node {
            id,
            cores: all.iter().filter(|core| node_of(core.get()) == id).collect(),
        };
        let isolated = list(self.isolated).intersection(&all);
        Topology {
            possible: all.clone(),
            present: all.clone(),
            online: all.clone(),
            nohz_full: CoreList::empty(),
            allowed: self.allowed.clone().unwrap_or_else(|| all.difference(&isolated)),
            isolated,
            cpuset: None,
            cores: (0..self.cores).map(core).collect(),
            nodes: (0..self.nodes).map(node).collect(),
        }
    }

    fn place(&self) -> Cores {
        cores::choose(&self.topology(), &Measurements::default(), &DEMANDS).unwrap()
    }
}

fn ids(numbers: &[u16]) -> Vec<CoreId> {
    numbers.iter().copied().map(CoreId::new).collect()
}

pub(super) fn measured(core: u16, gaps_ppm: f64, wake_p99_ns: f64) -> CoreMeasured {
    let wake_p50_ns = wake_p99_ns / 3.0;
    CoreMeasured { core, gaps_ppm, longest_gap_ns: 1e4, wake_p50_ns, wake_p99_ns }
}

#[test]
fn one_core_does_everything_and_nothing_is_isolated() {
    let written = Written { cores: 1, ..PLAIN };
    let cores = written.place();
    assert_eq!((cores.housekeeping, &cores.loops, &cores.lanes), (None, &ids(&[0]), &ids(&[0])));
    assert!(cores.shared());
    assert!(kernel_line::missing(&written.machine(), &cores, false).is_empty());
    let candidates = candidates::all(&written.machine(), &cores, &DEMANDS);
    assert!(candidates.iter().all(|candidate| !candidate.wait.holds_core()), "{candidates:?}");
}

#[test]
fn of_two_cores_one_keeps_house_and_the_other_has_loop_and_lane() {
    let cores = PLAIN.place();
    assert_eq!(cores.housekeeping, Some(CoreId::new(0)));
    assert_eq!((&cores.loops, &cores.lanes), (&ids(&[1]), &ids(&[1])));
    let line = kernel_line::missing(&PLAIN.machine(), &cores, false);
    assert_eq!(line, ["isolcpus=managed_irq,domain,1", "irqaffinity=0", "rcu_nocbs=1"]);
    let line = kernel_line::missing(&PLAIN.machine(), &cores, true);
    assert_eq!(line.last().unwrap(), "nohz_full=1");
}

#[test]
fn what_the_command_line_has_already_is_not_asked_for_again() {
    let mut machine = Written { isolated: "1", ..PLAIN }.machine();
    machine.command_line = "quiet irqaffinity=0 rcu_nocbs=1 isolcpus=1".to_owned();
    let cores = cores::choose(&machine.topology, &Measurements::default(), &DEMANDS).unwrap();
    assert!(kernel_line::missing(&machine, &cores, false).is_empty());
    machine.command_line = "irqaffinity=0-1 rcu_nocbs=0".to_owned();
    assert_eq!(kernel_line::missing(&machine, &cores, false), ["irqaffinity=0", "rcu_nocbs=1"]);
}

#[test]
fn with_more_cores_the_loop_has_one_of_its_own_and_each_lane_too() {
    let cores = Written { cores: 8, ..PLAIN }.place();
    assert_eq!(cores.housekeeping, Some(CoreId::new(0)));
    assert_eq!((&cores.loops, &cores.lanes), (&ids(&[1]), &ids(&[2, 3, 4, 5])));
    assert!(!cores.shared());
}

#[test]
fn hardware_threads_of_a_core_in_use_stay_idle_and_are_isolated_with_it() {
    let written = Written { cores: 8, threads: 2, ..PLAIN };
    let cores = written.place();
    // 0 and 4 are one physical core: 4 beside the housekeeper is no place for a real-time thread.
    assert_eq!((&cores.loops, &cores.lanes), (&ids(&[1]), &ids(&[2, 3])));
    assert_eq!(cores.left_idle.to_string(), "5-7");
    let line = kernel_line::missing(&written.machine(), &cores, false);
    assert_eq!(line[..2], ["isolcpus=managed_irq,domain,1-3,5-7", "irqaffinity=0,4"]);
}

#[test]
fn one_physical_core_with_two_threads_never_spins() {
    let written = Written { cores: 2, threads: 2, ..PLAIN };
    let cores = written.place();
    assert_eq!((cores.housekeeping, &cores.lanes), (Some(CoreId::new(0)), &ids(&[1])));
    let demands = Demands { loops: 0, ..DEMANDS };
    let cores = cores::choose(&written.topology(), &Measurements::default(), &demands).unwrap();
    let refused = spin_refused(&written.machine(), &cores, Layout::Fused).unwrap();
    assert_eq!(refused, "core 0 works on the same physical core");
}

#[test]
fn of_two_memory_nodes_everything_is_on_the_one_that_has_enough() {
    let written = Written { cores: 16, nodes: 2, ..PLAIN };
    let cores = written.place();
    let node = list("0-7");
    assert!(cores.real_time().difference(&node).is_empty(), "{cores:?}");
    // Where the nearer node offers fewer cores than are wanted, the other one is better.
    let allowed = Some(list("0,6-15"));
    let cores = Written { allowed, ..written }.place();
    assert!(cores.real_time().difference(&list("8-15")).is_empty(), "{cores:?}");
}

#[test]
fn fast_cores_run_real_time_threads_and_a_slow_one_keeps_house() {
    let cores = Written { cores: 8, little: 4, ..PLAIN }.place();
    assert_eq!(cores.housekeeping, Some(CoreId::new(0)));
    assert_eq!((&cores.loops, &cores.lanes), (&ids(&[4]), &ids(&[5, 6, 7, 1])));
}

#[test]
fn only_isolated_cores_are_real_time_cores_where_there_are_any() {
    let cores = Written { cores: 8, isolated: "6-7", ..PLAIN }.place();
    assert_eq!(cores.housekeeping, Some(CoreId::new(0)));
    assert_eq!((&cores.loops, &cores.lanes), (&ids(&[6]), &ids(&[7])));
    // Everything isolated: somebody has to keep house all the same.
    let cores = Written { cores: 4, isolated: "0-3", ..PLAIN }.place();
    assert_eq!((cores.housekeeping, &cores.loops), (Some(CoreId::new(0)), &ids(&[1])));
}

#[test]
fn sixty_four_cores_leave_what_nobody_asked_for() {
    let cores = Written { cores: 64, threads: 2, nodes: 2, ..PLAIN }.place();
    assert_eq!(cores.real_time().len(), 5);
    assert_eq!(cores.left_idle.len(), 5);
    let loops = Demands { loops: 6, ..DEMANDS };
    let written = Written { cores: 64, ..PLAIN };
    let cores = cores::choose(&written.topology(), &Measurements::default(), &loops).unwrap();
    assert_eq!((cores.loops.len(), cores.real_time().len()), (6, 10));
}

#[test]
fn a_core_that_loses_its_time_keeps_house_and_a_quiet_one_works() {
    let topology = Written { cores: 4, ..PLAIN }.topology();
    let mut figures = Measurements::default();
    figures.cores.extend(
        [(0, 10.0), (1, 12.0), (2, 4_000.0), (3, 11.0)]
            .map(|(core, ppm)| measured(core, ppm, 20e3)),
    );
    let cores = cores::choose(&topology, &figures, &DEMANDS).unwrap();
    assert_eq!(cores.housekeeping, Some(CoreId::new(2)));
    assert!(cores.housekeeping_by_noise);
    assert_eq!(cores.real_time().to_string(), "0-1,3");
    // What a short measurement cannot tell apart changes nothing.
    figures.cores[2].gaps_ppm = 90.0;
    let cores = cores::choose(&topology, &figures, &DEMANDS).unwrap();
    assert_eq!((cores.housekeeping, cores.housekeeping_by_noise), (Some(CoreId::new(0)), false));
}

#[test]
fn the_quieter_core_is_the_loop_s_and_the_next_lane_is_where_the_hop_is_short() {
    let topology = Written { cores: 5, ..PLAIN }.topology();
    let mut figures = Measurements::default();
    figures.cores.extend(
        [(0, 20e3), (1, 90e3), (2, 20e3), (3, 20e3), (4, 20e3)]
            .map(|(core, wake)| measured(core, 10.0, wake)),
    );
    let hop = |from, to, ns| Hop { from, to, spinning_ns: Some(ns), parked_ns: None };
    figures.hops = vec![hop(2, 3, 400.0), hop(2, 4, 100.0), hop(2, 1, 90.0), hop(4, 3, 100.0)];
    let cores = cores::choose(&topology, &figures, &DEMANDS).unwrap();
    assert_eq!((&cores.loops, cores.lanes[0]), (&ids(&[2]), CoreId::new(1)), "{cores:?}");
    figures.hops[2] = hop(2, 1, 900.0);
    let cores = cores::choose(&topology, &figures, &DEMANDS).unwrap();
    assert_eq!(cores.lanes[..2], ids(&[4, 3]), "{cores:?}");
}

fn candidate(layout: Layout, wait: Wait, cores: &[u16], awake: &[u16]) -> Candidate {
    Candidate { layout, wait, cores: ids(cores), keep_awake: ids(awake) }
}

#[test]
fn hand_offs_cost_at_a_low_rate_and_pay_when_one_core_has_too_much_to_do() {
    let work = StageWork { receive_ns: 5e3, verify_ns: 60e3, deliver_ns: 1e3, send_ns: 30e3 };
    let figures = Measurements { work: Some(work), ..Measurements::default() };
    let cost = |layout, rate_hz| {
        let demands = Demands { rate_hz, ..DEMANDS };
        predicted_ns(&candidate(layout, Wait::Park, &[1, 2, 3, 4], &[]), &figures, &demands)
    };
    assert!(cost(Layout::Fused, 1_000) < cost(Layout::Split, 1_000));
    assert!(cost(Layout::Split, 1_000) < cost(Layout::Pipelined, 1_000));
    assert!(cost(Layout::Fused, 10_000) > cost(Layout::Split, 10_000), "96 of 100 µs on one core");
    assert_eq!(cost(Layout::Fused, 20_000), f64::INFINITY);
    // Sharing one core, split has nothing to gain.
    let shared = |layout| {
        let demands = Demands { rate_hz: 10_000, ..DEMANDS };
        predicted_ns(&candidate(layout, Wait::Park, &[1], &[]), &figures, &demands)
    };
    assert!(shared(Layout::Fused) < shared(Layout::Split));
}

#[test]
fn keep_awake_is_predicted_by_the_worse_of_idle_and_loaded() {
    use super::facts::{IdleCost, IdleMethod::*};
    let cost = |method, loaded, p99_ns| IdleCost {
        method,
        loaded,
        count: 1_000,
        p50_ns: p99_ns / 2.0,
        p99_ns,
        max_ns: p99_ns,
    };
    let mut figures = Measurements {
        idle: vec![cost(LatencyBound, false, 50e3), cost(KeepAwake, false, 10e3)],
        ..Measurements::default()
    };
    assert_eq!(figures.keep_awake_factor(), Some(0.2));
    figures.idle.extend([cost(LatencyBound, true, 40e3), cost(KeepAwake, true, 80e3)]);
    assert_eq!(figures.keep_awake_factor(), Some(2.0));
    let cost = |awake: &[u16]| {
        predicted_ns(&candidate(Layout::Fused, Wait::Park, &[1], awake), &figures, &DEMANDS)
    };
    assert!(cost(&[1]) > cost(&[]));
}

#[test]
fn spinning_is_refused_while_the_kernel_throttles_it() {
    let mut machine = Written { cores: 8, ..PLAIN }.machine();
    let cores = Written { cores: 8, ..PLAIN }.place();
    let spins = |machine: &Machine| {
        let all = candidates::all(machine, &cores, &DEMANDS);
        all.iter().filter(|candidate| candidate.wait.holds_core()).count()
    };
    assert_eq!(spins(&machine), 3, "one for each layout");
    machine.spin = Err(SpinRefused { reason: "throttled".to_owned(), fix: "sysctl".to_owned() });
    assert_eq!(spins(&machine), 0);
    let why = spin_refused(&machine, &cores, Layout::Fused);
    assert_eq!(why.as_deref(), Some("throttled; fix: sysctl"));
}

/// Any machine, with any measurements of it.
fn any_machine() -> impl Strategy<Value = (Written, Measurements, Demands)> {
    let isolated = prop_oneof![Just(""), Just("1"), Just("2-5"), Just("0-63"), Just("8-15,40-47")];
    let shape = (1u16..=64, 1u16..=2, 1u16..=2, 0u16..8, isolated);
    let figures = prop::collection::vec((0.0..1e4f64, 1e3..1e6f64), 0..64);
    let hops = prop::collection::vec((0u16..64, 0u16..64, 50.0..1e4f64), 0..40);
    let demands = (1u32..20_000, 0u16..8);
    (shape, any::<u64>(), figures, hops, demands).prop_map(
        |(shape, mask, figures, hops, demands)| {
            let (cores, threads, nodes, little, isolated) = shape;
            let cores = (cores / threads).max(1) * threads;
            let allowed: CoreList =
                (0..cores).filter(|core| mask >> core & 1 == 1).map(CoreId::new).collect();
            // A process may always run somewhere.
            let allowed = if allowed.is_empty() { list("0") } else { allowed };
            let written =
                Written { cores, threads, nodes, little, isolated, allowed: Some(allowed) };
            let core = |(n, (ppm, wake)): (usize, (f64, f64))| measured(n as u16, ppm, wake);
            let hop =
                |(from, to, ns)| Hop { from, to, spinning_ns: Some(ns), parked_ns: Some(ns * 9.0) };
            let measurements = Measurements {
                cores: figures.into_iter().enumerate().map(core).collect(),
                hops: hops.into_iter().map(hop).collect(),
                ..Measurements::default()
            };
            (
                written,
                measurements,
                Demands { rate_hz: demands.0, budget_us: 150, loops: demands.1 },
            )
        },
    )
}

proptest! {
    #[test]
    fn whatever_the_machine_the_placement_keeps_the_rules((written, figures, demands) in any_machine()) {
        let machine = written.machine();
        let topology = &machine.topology;
        let usable = topology.usable_cores();
        let cores = cores::choose(topology, &figures, &demands).unwrap();
        let real_time = cores.real_time();
        // Nothing is placed where this process may not run.
        prop_assert!(real_time.difference(&usable).is_empty());
        prop_assert!(cores.left_idle.difference(&usable).is_empty());
        prop_assert!(!cores.lanes.is_empty());
        prop_assert_eq!(cores.loops.len(), usize::from(demands.loops));
        // One core is left for everything else, as soon as there are two.
        prop_assert_eq!(cores.housekeeping.is_some(), usable.len() >= 2);
        if let Some(core) = cores.housekeeping {
            prop_assert!(usable.contains(core) && !real_time.contains(core));
            prop_assert!(!cores.left_idle.contains(core));
        }
        for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
            // Beside a lane that spins, its physical core is idle.
            if spin_refused(&machine, &cores, layout).is_none() {
                for lane in &cores.lanes[..lanes(layout)] {
                    for sibling in topology.siblings_of(*lane).iter() {
                        prop_assert!(!real_time.contains(sibling));
                        prop_assert!(cores.housekeeping != Some(sibling));
                    }
                }
            }
        }
        // The node itself takes every candidate.
        let candidates = candidates::all(&machine, &cores, &demands);
        prop_assert!(!candidates.is_empty());
        for candidate in &candidates {
            let mut config = NodeConfig::new("test");
            config.mode = sinew_io::node::Mode::Development;
            config.realtime = candidate.realtime();
            prop_assert!(config.validate().is_ok(), "{candidate}");
            let plan = config.plan(topology);
            prop_assert!(plan.is_ok(), "{candidate}: {plan:?}");
            prop_assert!(predicted_ns(candidate, &figures, &demands) > 0.0);
        }
        // Isolation never takes the last core.
        let line = kernel_line::missing(&machine, &cores, true);
        for word in &line {
            if let Some(list) = word.strip_prefix("isolcpus=managed_irq,domain,") {
                let left = topology.online.difference(&list.parse().unwrap());
                prop_assert!(left.iter().any(|core| usable.contains(core)), "{word}");
            }
        }
        // The same again is the same, in whatever order the measurements stand.
        let mut other = figures.clone();
        other.cores.reverse();
        prop_assert_eq!(&cores::choose(topology, &other, &demands).unwrap(), &cores);
        prop_assert_eq!(candidates::all(&machine, &cores, &demands), candidates);
    }
}
