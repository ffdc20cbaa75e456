//! What the machine is judged for: the cores and priorities of the lanes.

use std::path::{Path, PathBuf};

use sinew_io::node::{self, DEFAULT_PRIORITY, Plan};
use sinew_rt::topology::{CoreList, Topology};

use crate::exit::Failure;

/// Which cores and priorities the checks judge.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    /// The configuration that they come from, if one was given.
    pub(crate) config: Option<PathBuf>,
    /// The cores of the lanes.
    pub(crate) lanes: CoreList,
    /// The usable cores without a lane that the scheduler uses.
    pub(crate) housekeeping: CoreList,
    /// SCHED_FIFO priority of the lanes.
    pub(crate) priority: u8,
    /// Whether lanes spin for good; `None` without a configuration.
    pub(crate) spins: Option<bool>,
    /// Which stage runs where; of a configuration.
    pub(crate) layout: Option<String>,
}

impl Purpose {
    /// Any node: every core that lanes would be put on, at the priority that they have unless told
    /// otherwise.
    pub(crate) fn any(topology: &Topology) -> Self {
        let lanes: CoreList = topology.real_time_cores().into_iter().collect();
        Self {
            config: None,
            housekeeping: housekeeping(topology, &lanes),
            lanes,
            priority: DEFAULT_PRIORITY.get(),
            spins: None,
            layout: None,
        }
    }

    /// The node that `config` describes.
    pub(crate) fn of(path: &Path, topology: &Topology) -> Result<Self, Failure> {
        let config = node::load(path).map_err(Failure::usage)?;
        let plan = Plan::of(&config, topology).map_err(Failure::usage)?;
        let lanes: CoreList = plan.lanes.iter().map(|lane| lane.core).collect();
        Ok(Self {
            config: Some(path.to_owned()),
            housekeeping: housekeeping(topology, &lanes),
            lanes,
            priority: config.realtime.priority.get(),
            spins: Some(config.realtime.wait.holds_core()),
            layout: Some(plan.to_string()),
        })
    }
}

fn housekeeping(topology: &Topology, lanes: &CoreList) -> CoreList {
    topology.usable_cores().difference(lanes).difference(&topology.isolated)
}
