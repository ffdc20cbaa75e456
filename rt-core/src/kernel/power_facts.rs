//! Frequency scaling and idle states of each core.

use std::path::Path;

use crate::files;
use crate::topology::CoreId;

const CPU: &str = "sys/devices/system/cpu";

/// No driver has more idle states (`CPUIDLE_STATE_MAX` is 10).
const MAX_IDLE_STATES: usize = 16;

/// How the frequency of one core is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreFrequency {
    /// The core.
    pub core: CoreId,
    /// The governor: `performance`, `schedutil`, `powersave`, ...
    pub governor: String,
    /// The lowest frequency that it may choose, in kHz.
    pub min_khz: Option<u64>,
    /// The highest frequency that it may choose, in kHz.
    pub max_khz: Option<u64>,
}

/// The idle states of one core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreIdle {
    /// The core.
    pub core: CoreId,
    /// Its states, from the lightest.
    pub states: Vec<IdleState>,
}

/// One idle state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleState {
    /// The driver's name for it.
    pub name: String,
    /// Time to leave it, in microseconds.
    pub exit_latency_us: u64,
    /// Whether it is switched off.
    pub disabled: bool,
}

impl CoreIdle {
    /// The slowest state that is not switched off.
    #[must_use]
    pub fn slowest_enabled(&self) -> Option<&IdleState> {
        let enabled = self.states.iter().filter(|state| !state.disabled);
        enabled.max_by_key(|state| state.exit_latency_us)
    }
}

pub(super) fn frequencies(root: &Path, cores: &[CoreId]) -> Vec<CoreFrequency> {
    cores
        .iter()
        .filter_map(|core| {
            let base = format!("{CPU}/cpu{core}/cpufreq");
            Some(CoreFrequency {
                core: *core,
                governor: files::text(root, &format!("{base}/scaling_governor"))?,
                min_khz: files::number(root, &format!("{base}/scaling_min_freq")),
                max_khz: files::number(root, &format!("{base}/scaling_max_freq")),
            })
        })
        .collect()
}

pub(super) fn idle(root: &Path, cores: &[CoreId]) -> Vec<CoreIdle> {
    let states = |core: CoreId| -> Vec<IdleState> {
        (0..MAX_IDLE_STATES)
            .map_while(|index| {
                let base = format!("{CPU}/cpu{core}/cpuidle/state{index}");
                Some(IdleState {
                    name: files::text(root, &format!("{base}/name"))?,
                    exit_latency_us: files::number(root, &format!("{base}/latency"))?,
                    disabled: files::number::<u64>(root, &format!("{base}/disable"))
                        .is_some_and(|flags| flags != 0),
                })
            })
            .collect()
    };
    cores
        .iter()
        .map(|core| CoreIdle { core: *core, states: states(*core) })
        .filter(|idle| !idle.states.is_empty())
        .collect()
}
