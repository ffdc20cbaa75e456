//! Which stage runs on which lane, and which lane on which core: a pure function of what was asked
//! for and what the machine has.

use super::config::{Layout, NodeConfig};
use super::place::ConfigError;
use sinew_rt::topology::{CoreId, Topology};
use std::fmt;

/// The four stages of a node, in the order in which a message meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageName {
    /// From the socket through the cheap filters.
    Receive,
    /// Window, signature, permission.
    Verify,
    /// To the subscribers.
    Deliver,
    /// From the publishers to the socket.
    Send,
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receive => "receive",
            Self::Verify => "verify",
            Self::Deliver => "deliver",
            Self::Send => "send",
        })
    }
}

use StageName::{Deliver, Receive, Send, Verify};

/// One thread of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePlan {
    /// The name of the thread.
    pub name: &'static str,
    /// Its stages in order.
    pub stages: &'static [StageName],
    /// Where it runs.
    pub core: CoreId,
}

/// The lanes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The layout, never `Auto`.
    pub layout: Layout,
    /// Why it is this one.
    pub reason: String,
    /// Its lanes.
    pub lanes: Vec<LanePlan>,
}

impl Plan {
    /// The lanes that a node with this configuration would have on this machine.
    ///
    /// # Errors
    /// What its start would refuse about them.
    pub fn of(config: &NodeConfig, topology: &Topology) -> Result<Self, ConfigError> {
        plan(config, topology, false)
    }
}

type Shape = &'static [(&'static str, &'static [StageName])];

const FUSED: Shape = &[("lane", &[Receive, Verify, Deliver, Send])];
const SPLIT: Shape =
    &[("lane-receive", &[Receive]), ("lane-verify", &[Verify, Deliver]), ("lane-send", &[Send])];
const PIPELINED: Shape = &[
    ("lane-receive", &[Receive]),
    ("lane-verify", &[Verify]),
    ("lane-deliver", &[Deliver]),
    ("lane-send", &[Send]),
];

/// Cores from which the automatic choice gives each stage a lane.
const CORES_FOR_PIPELINED: usize = 5;
/// Cores from which the automatic choice gives receive and send lanes of their own.
const CORES_FOR_SPLIT: usize = 4;

impl NodeConfig {
    /// Which lanes a node of this configuration would have on a machine with that topology. Pure.
    ///
    /// # Errors
    /// A core that does not exist or may not be used, two spinning lanes on one core, or spinning
    /// lanes on every core.
    pub fn plan(&self, topology: &Topology) -> Result<Plan, ConfigError> {
        plan(self, topology, false)
    }
}

/// Lays the stages out.
///
/// # Errors
/// A core that does not exist or may not be used, two spinning lanes on one core, or spinning lanes
/// on every core, unless the node promises that it `spins_in_bursts`.
pub(super) fn plan(
    config: &NodeConfig,
    topology: &Topology,
    spins_in_bursts: bool,
) -> Result<Plan, ConfigError> {
    let asked = &config.realtime;
    let usable = topology.usable_cores();
    let lanes = asked.cores.iter().map(|core| ("realtime.cores", core));
    let awake = asked.keep_awake.iter().map(|core| ("realtime.keep_awake", core));
    for (key, core) in lanes.chain(awake) {
        if !topology.online.contains(*core) {
            return Err(config.error(
                key,
                format!("core {core} does not exist or is offline"),
                format!("this machine has {}", topology.online),
            ));
        }
        if !usable.contains(*core) {
            return Err(config.error(
                key,
                format!("this process may not use core {core}"),
                format!("it may use {usable}: change the cores, or its cpuset or taskset"),
            ));
        }
    }
    let cores = match asked.cores.as_slice() {
        [] => topology.real_time_cores(),
        cores => cores.to_vec(),
    };
    if cores.is_empty() {
        return Err(config.error("realtime.cores", "no core is usable", "check the cpuset"));
    }
    let (layout, reason) = match asked.layout {
        Layout::Auto => choose(cores.len()),
        layout => (layout, "as configured".to_owned()),
    };
    let shape = match layout {
        Layout::Pipelined => PIPELINED,
        Layout::Split => SPLIT,
        Layout::Fused | Layout::Auto => FUSED,
    };
    if asked.wait.holds_core() && shape.len() > cores.len() {
        return Err(config.error(
            "realtime.cores",
            format!(
                "{layout} has {} spinning lanes and {} to put them on, and two spinning lanes on \
                 one core would stop each other",
                shape.len(),
                count(cores.len(), "core"),
            ),
            "give it more cores, or set layout = \"fused\" or wait = \"park\"",
        ));
    }
    let mut lanes: Vec<LanePlan> = Vec::new();
    for (n, (name, stages)) in shape.iter().enumerate() {
        let core = cores[n % cores.len()];
        if let Some(other) = lanes.iter().find(|lane| lane.core == core)
            && asked.wait.holds_core()
        {
            return Err(config.error(
                "realtime.cores",
                format!("two spinning lanes on core {core}: {} and {name}", other.name),
                "list each core once, or set wait = \"park\"",
            ));
        }
        lanes.push(LanePlan { name, stages, core });
    }
    // A spinning lane never lets anything else run, so on the last core it would hang the machine.
    let left = |core: CoreId| !lanes.iter().any(|lane| lane.core == core);
    if asked.wait.holds_core() && !spins_in_bursts && !usable.iter().any(left) {
        return Err(config.error(
            "realtime.cores",
            format!(
                "{layout} would spin on {}, and nothing else could run any more",
                match usable.iter().count() {
                    1 => "the only core".to_owned(),
                    n => format!("all {n} cores"),
                },
            ),
            "leave one core for normal work, or set wait = \"spin-then-park\" or \"park\"",
        ));
    }
    Ok(Plan { layout, reason, lanes })
}

fn choose(cores: usize) -> (Layout, String) {
    let available = count(cores, "real-time core");
    match cores {
        CORES_FOR_PIPELINED.. => {
            (Layout::Pipelined, format!("{available}: each stage has a core of its own"))
        }
        CORES_FOR_SPLIT.. => {
            (Layout::Split, format!("{available}: the socket drains beside signature checks"))
        }
        _ => (Layout::Fused, format!("{available}: a hand-off would cost more than it gains")),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl fmt::Display for Plan {
    /// `fused on core 1 (1 real-time core: …)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.layout)?;
        for (n, lane) in self.lanes.iter().enumerate() {
            let separator = if n == 0 { "" } else { " · " };
            let stages: Vec<_> = lane.stages.iter().map(ToString::to_string).collect();
            write!(f, "{separator}{} on core {}", stages.join("+"), lane.core)?;
        }
        write!(f, " ({})", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sinew_rt::wait::Wait;

    fn machine(cores: u16, isolated: &str) -> Topology {
        let all = format!("0-{}", cores - 1);
        let list = |text: &str| text.parse().unwrap();
        Topology {
            possible: list(&all),
            present: list(&all),
            online: list(&all),
            isolated: list(isolated),
            nohz_full: list(""),
            allowed: list(&all),
            cpuset: None,
            cores: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn config(layout: Layout, wait: Wait, cores: &[u16]) -> NodeConfig {
        let mut config = NodeConfig::new("test");
        config.realtime.layout = layout;
        config.realtime.wait = wait;
        config.realtime.cores = cores.iter().copied().map(CoreId::new).collect();
        config
    }

    #[test]
    fn the_automatic_layout_follows_the_number_of_real_time_cores() {
        let layout = |cores, isolated| {
            plan(&config(Layout::Auto, Wait::Park, &[]), &machine(cores, isolated), false)
                .unwrap()
                .layout
        };
        assert_eq!(layout(1, ""), Layout::Fused);
        assert_eq!(layout(2, ""), Layout::Fused);
        assert_eq!(layout(4, ""), Layout::Fused);
        assert_eq!(layout(5, ""), Layout::Split);
        assert_eq!(layout(8, ""), Layout::Pipelined);
        assert_eq!(
            layout(16, "14-15"),
            Layout::Fused,
            "only isolated cores count, if there are any"
        );
    }

    #[test]
    fn every_layout_runs_every_stage_once_and_in_order() {
        for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
            let plan = plan(&config(layout, Wait::Park, &[]), &machine(8, ""), false).unwrap();
            let stages: Vec<_> = plan.lanes.iter().flat_map(|lane| lane.stages).copied().collect();
            assert_eq!(stages, [Receive, Verify, Deliver, Send]);
        }
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused_by_number() {
        let error =
            plan(&config(Layout::Fused, Wait::Park, &[9]), &machine(2, ""), false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "realtime.cores: core 9 does not exist or is offline; this machine has 0-1"
        );
    }

    #[test]
    fn two_spinning_lanes_on_one_core_are_refused_and_parked_ones_are_not() {
        let machine = machine(2, "");
        for cores in [&[1][..], &[0, 1], &[0, 1, 0]] {
            let error =
                plan(&config(Layout::Split, Wait::Spin, cores), &machine, false).unwrap_err();
            assert!(error.to_string().contains("two spinning lanes"), "{error}");
            assert!(plan(&config(Layout::Split, Wait::Park, cores), &machine, false).is_ok());
        }
        assert!(plan(&config(Layout::Fused, Wait::Spin, &[1]), &machine, false).is_ok());
    }

    #[test]
    fn spinning_lanes_leave_one_core_for_normal_work() {
        let refused = |layout, cores: &[u16], count| {
            let (config, machine) = (config(layout, Wait::Spin, cores), machine(count, ""));
            assert!(plan(&config, &machine, true).is_ok(), "bursts always end");
            plan(&config, &machine, false).unwrap_err().to_string()
        };
        assert_eq!(
            refused(Layout::Fused, &[], 1),
            "realtime.cores: fused would spin on the only core, and nothing else could run any \
             more; leave one core for normal work, or set wait = \"spin-then-park\" or \"park\""
        );
        let error = refused(Layout::Pipelined, &[0, 1, 2, 3], 4);
        assert!(error.contains("pipelined would spin on all 4 cores"), "{error}");
        let pipelined = config(Layout::Pipelined, Wait::Spin, &[0, 1, 2, 3]);
        assert!(plan(&pipelined, &machine(5, ""), false).is_ok());
        let parked = config(Layout::Fused, Wait::Park, &[]);
        assert!(plan(&parked, &machine(1, ""), false).is_ok());
    }
}
