//! What is asked for, what the machine allows, and what was measured of it: all that the placement
//! may look at.

use serde::Serialize;
use sinew_rt::kernel::SpinRefused;
use sinew_rt::topology::{CoreId, Topology};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Demands {
    /// Messages a second from each peer, and cycles of each control loop.
    pub(crate) rate_hz: u32,
    /// From publishing in another process to the subscriber of this one, at p99.
    pub(crate) budget_us: u32,
    /// Control loops of the program, which need cores beside the node's lanes.
    pub(crate) loops: u16,
}

impl Demands {
    pub(crate) fn period_ns(self) -> f64 {
        1e9 / f64::from(self.rate_hz.max(1))
    }

    pub(crate) fn budget_ns(self) -> f64 {
        f64::from(self.budget_us) * 1e3
    }
}

/// What the machine is and allows.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) topology: Topology,
    /// Whether a real-time thread may spin for good, and if not, why.
    pub(crate) spin: Result<(), SpinRefused>,
    /// The kernel's command line.
    pub(crate) command_line: String,
}

/// What was measured; what could not be is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Measurements {
    pub(crate) hops: Vec<Hop>,
    pub(crate) cores: Vec<CoreMeasured>,
    pub(crate) idle: Vec<IdleCost>,
    /// Of the default configuration, by its panel.
    pub(crate) work: Option<StageWork>,
}

/// One way from core to core through a ring, the median.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Hop {
    pub(crate) from: u16,
    pub(crate) to: u16,
    /// Both ends spinning, one message after the other.
    pub(crate) spinning_ns: Option<f64>,
    /// The receiver asleep, one message a period.
    pub(crate) parked_ns: Option<f64>,
}

/// One core while nothing of ours ran beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CoreMeasured {
    pub(crate) core: u16,
    /// Share of the time in which a thread that never sleeps did not run.
    pub(crate) gaps_ppm: f64,
    pub(crate) longest_gap_ns: f64,
    /// From the instant of a timer to the thread that waits for it, core free to idle.
    pub(crate) wake_p50_ns: f64,
    pub(crate) wake_p99_ns: f64,
}

/// What keeps a core from sleeping deeply, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IdleMethod {
    /// Whatever the system does by itself.
    Plain,
    /// `/dev/cpu_dma_latency` held at 0, for all cores.
    LatencyBound,
    /// `pm_qos_resume_latency_us` of the one core.
    ResumeLatency,
    /// The bound held and a SCHED_IDLE thread that spins on the one core.
    KeepAwake,
}

impl IdleMethod {
    pub(crate) const ALL: [Self; 4] =
        [Self::Plain, Self::LatencyBound, Self::ResumeLatency, Self::KeepAwake];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain idling",
            Self::LatencyBound => "cpu_dma_latency at 0",
            Self::ResumeLatency => "pm_qos_resume_latency_us of the core",
            Self::KeepAwake => "cpu_dma_latency at 0 and keep-awake",
        }
    }
}

/// Wake-ups under one method, in rounds that took turns with the other methods.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IdleCost {
    pub(crate) method: IdleMethod,
    /// Whether another core copied memory meanwhile.
    pub(crate) loaded: bool,
    pub(crate) count: u64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) max_ns: f64,
}

/// Execution time of one message in each stage, the median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct StageWork {
    pub(crate) receive_ns: f64,
    pub(crate) verify_ns: f64,
    pub(crate) deliver_ns: f64,
    pub(crate) send_ns: f64,
}

impl StageWork {
    pub(crate) fn sum_ns(self) -> f64 {
        self.receive_ns + self.verify_ns + self.deliver_ns + self.send_ns
    }
}

/// Where nothing was measured: a small message, signed, on a slow core (docs/bench.md).
pub(crate) const WORK_ASSUMED: StageWork =
    StageWork { receive_ns: 3e3, verify_ns: 80e3, deliver_ns: 1e3, send_ns: 40e3 };
/// The same for the wake-up of a halted core at p99, and for a hop to a thread that sleeps.
pub(crate) const WAKE_ASSUMED_NS: f64 = 50e3;
pub(crate) const PARKED_HOP_ASSUMED_NS: f64 = 10e3;
pub(crate) const SPINNING_HOP_ASSUMED_NS: f64 = 300.0;

impl Measurements {
    pub(crate) fn core(&self, core: CoreId) -> Option<&CoreMeasured> {
        self.cores.iter().find(|measured| measured.core == core.get())
    }

    fn hop(&self, from: CoreId, to: CoreId) -> Option<&Hop> {
        self.hops.iter().find(|hop| (hop.from, hop.to) == (from.get(), to.get()))
    }

    pub(crate) fn spinning_hop_ns(&self, from: CoreId, to: CoreId) -> Option<f64> {
        self.hop(from, to)?.spinning_ns
    }

    pub(crate) fn parked_hop_ns(&self, from: CoreId, to: CoreId) -> Option<f64> {
        self.hop(from, to)?.parked_ns
    }

    pub(crate) fn idle(&self, method: IdleMethod, loaded: bool) -> Option<&IdleCost> {
        self.idle.iter().find(|cost| (cost.method, cost.loaded) == (method, loaded))
    }

    /// By which factor keep-awake changes the p99 of a wake-up against the bound alone, which nodes
    /// hold anyhow: the worse of idle and loaded. `None` when it was not measured.
    pub(crate) fn keep_awake_factor(&self) -> Option<f64> {
        let factor = |loaded| {
            let bound = self.idle(IdleMethod::LatencyBound, loaded)?.p99_ns;
            let awake = self.idle(IdleMethod::KeepAwake, loaded)?.p99_ns;
            (bound > 0.0).then_some(awake / bound)
        };
        match (factor(false), factor(true)) {
            (Some(idle), Some(loaded)) => Some(idle.max(loaded)),
            (one, other) => one.or(other),
        }
    }

    pub(crate) fn work(&self) -> StageWork {
        self.work.unwrap_or(WORK_ASSUMED)
    }
}
