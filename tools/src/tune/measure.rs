//! Measures the parts that a placement is made of: hand-offs between cores, what takes a core away,
//! wake-ups, and what keeps them short. Every thread that spins does so for less than 0.6 s.

use std::fs;
use std::path::PathBuf;

use sinew_control::control_loop::{ControlLoop, Cycle, LoopBody, Wake};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::keep_awake::KeepAwake;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Kind, Panel, PanelSpec};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::thread::{Priority, RtThread, Strictness, ThreadSpec, spawn};
use sinew_rt::topology::CoreId;

use super::facts::{CoreMeasured, Hop, IdleCost, IdleMethod};
use super::granted::Granted;
use crate::bench::hop::matrix::measure_pair;
use crate::bench::hop::paced::{Pace, Waiting};
use crate::bench::load::Load;
use crate::bench::stats::Samples;
use crate::bench::{interrupted, thread_failure};
use crate::exit::{Exit, Failure};

/// Above everything of ours and below the kernel's threads at 99, as `sinew bench` measures.
const PRIORITY: u8 = 80;
/// Gaps from here on are what a loop would notice: oslat's threshold.
const GAP: Nanos = Nanos::from_micros(1);
const BUSY_HOPS: u64 = 2_000;

fn thread(name: &str, core: CoreId) -> Result<ThreadSpec, Failure> {
    let priority = Priority::new(PRIORITY).map_err(Failure::usage)?;
    Ok(ThreadSpec::new(name).core(core).fifo(priority).strictness(Strictness::Report))
}

/// Counts its cycles and ends after the last.
struct Counting {
    left: u64,
}

impl LoopBody for Counting {
    fn cycle(&mut self, cx: &mut Cycle) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || interrupted() {
            cx.stop();
        }
    }

    fn safe_stop(&mut self, _cx: &mut Cycle) {}
}

/// How late a loop on `core` wakes from a plain sleep, `count` times.
pub(super) fn wake_ups(
    core: CoreId,
    rate_hz: u32,
    count: u64,
    granted: &mut Granted,
) -> Result<Samples, Failure> {
    let panel = Panel::anonymous(&PanelSpec::new("tune-wake")).map_err(Failure::machine)?;
    let spec = thread("tune-wake", core)?;
    let made = ControlLoop::new(spec.name)
        .core(core)
        .priority(Priority::new(PRIORITY).map_err(Failure::usage)?)
        .strictness(spec.strictness)
        .rate_hz(rate_hz)
        .wake(Wake::Sleep)
        .trip(LadderConfig::report_only());
    let running = made.spawn_body(&panel, Counting { left: count.max(1) });
    let report = running.and_then(|running| running.join()).map_err(Failure::machine)?;
    granted.add(&report.applied);
    let snapshot = panel.snapshot().map_err(Failure::machine)?;
    let wake_up = snapshot.histograms.iter().find(|h| h.kind == Kind::WakeUp);
    let wake_up = wake_up.ok_or_else(|| Failure::machine("the loop left no wake-up times"))?;
    Ok(Samples::from_panel(wake_up))
}

/// What a thread that reads the clock for `span` does not get of `core`: share in ppm, longest gap.
fn gaps(core: CoreId, span: Nanos, granted: &mut Granted) -> Result<(f64, Nanos), Failure> {
    let watch = spawn(thread("tune-noise", core)?, move || {
        let start = clock::now();
        let (mut last, mut lost, mut longest) = (start, Nanos::ZERO, Nanos::ZERO);
        while last - start < span {
            let now = clock::now();
            let gap = now - last;
            if gap >= GAP {
                lost += gap;
                longest = longest.max(gap);
            }
            last = now;
        }
        (lost.as_secs_f64() / (last - start).as_secs_f64() * 1e6, longest)
    });
    joined(watch.map_err(thread_failure)?, granted)
}

fn joined<T>(thread: RtThread<T>, granted: &mut Granted) -> Result<T, Failure> {
    granted.add(thread.applied());
    thread.join().map_err(Failure::machine)
}

/// Noise and wake-ups of one core.
pub(super) fn core(
    core: CoreId,
    rate_hz: u32,
    watch: Nanos,
    wakes: u64,
    granted: &mut Granted,
) -> Result<CoreMeasured, Failure> {
    let (gaps_ppm, longest) = gaps(core, watch, granted)?;
    // What spun rests as long, so that throttling, which counts over a second, stays away.
    clock::sleep_until(clock::now() + watch);
    let wake = wake_ups(core, rate_hz, wakes, granted)?;
    Ok(CoreMeasured {
        core: core.get(),
        gaps_ppm,
        longest_gap_ns: longest.as_nanos() as f64,
        wake_p50_ns: wake.quantile(0.5),
        wake_p99_ns: wake.quantile(0.99),
    })
}

/// One way from core to core through a ring: spinning and one message after the other, and `paced` of
/// them, one a period, between two threads that sleep. What cannot be measured is said in `missing`.
pub(super) fn hop(
    from: CoreId,
    to: CoreId,
    period: Nanos,
    paced: u64,
    granted: &mut Granted,
    missing: &mut Vec<String>,
) -> Result<Hop, Failure> {
    let mut median = |waiting, pace, messages| -> Result<Option<f64>, Failure> {
        let (near, far) = (thread("tune-near", from)?, thread("tune-far", to)?);
        match measure_pair(near, far, waiting, pace, messages) {
            Ok(found) => {
                found.applied.iter().for_each(|applied| granted.add(applied));
                Ok(Some(found.samples.quantile(0.5)))
            }
            // One burst that something else spoiled must not cost the rest.
            Err(failure) if failure.exit == Exit::Machine => {
                let why = failure.message;
                missing.push(format!("hop from core {from} to {to}, {waiting}, {pace}: {why}"));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    };
    let spinning_ns = median(Waiting::Spinning, Pace::BackToBack, BUSY_HOPS)?;
    let parked_ns = median(Waiting::Parked, Pace::Every(period), paced)?;
    Ok(Hop { from: from.get(), to: to.get(), spinning_ns, parked_ns })
}

/// What an [`IdleMethod`] holds while it is measured.
#[expect(dead_code, reason = "held, not read")]
pub(super) struct Held(Option<CpuLatencyHold>, Option<ResumeLatency>, Option<KeepAwake>);

/// Why a method cannot be measured here.
pub(super) fn hold(method: IdleMethod, core: CoreId) -> Result<Held, String> {
    let bound = || CpuLatencyHold::acquire(0).map_err(|error| error.to_string());
    Ok(match method {
        IdleMethod::Plain => Held(None, None, None),
        IdleMethod::LatencyBound => Held(Some(bound()?), None, None),
        IdleMethod::ResumeLatency => Held(None, Some(ResumeLatency::none(core)?), None),
        IdleMethod::KeepAwake => {
            let awake = KeepAwake::on(&[core], Strictness::Require);
            // A node holds the bound as well, where it may.
            Held(bound().ok(), None, Some(awake.map_err(|error| error.to_string())?))
        }
    })
}

/// `pm_qos_resume_latency_us` of one core at `n/a` (no latency is acceptable) while this lives
/// (`ABI/testing/sysfs-devices-power`).
pub(super) struct ResumeLatency {
    path: PathBuf,
    before: String,
}

impl ResumeLatency {
    fn none(core: CoreId) -> Result<Self, String> {
        let path = format!("/sys/devices/system/cpu/cpu{core}/power/pm_qos_resume_latency_us");
        let path = PathBuf::from(path);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let before = fs::read_to_string(&path).map_err(failed)?;
        fs::write(&path, "n/a").map_err(failed)?;
        Ok(Self { path, before })
    }
}

impl Drop for ResumeLatency {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, self.before.trim()) {
            let (path, before) = (self.path.display(), self.before.trim());
            eprintln!("sinew: {path} could not be set back: {error}; fix: echo {before} > {path}");
        }
    }
}

/// Whose wake-ups are measured, and who is busy meanwhile.
pub(super) struct Idle<'a> {
    pub(super) core: CoreId,
    /// Cores that copy memory in the loaded part.
    pub(super) busy: &'a [CoreId],
    pub(super) rate_hz: u32,
}

/// Wake-ups of a core under each method that this machine has, idle and then loaded, in `rounds` of
/// `wakes` that take turns. What cannot be measured is said in `missing`.
pub(super) fn idle_costs(
    idle: Idle<'_>,
    (rounds, wakes): (u32, u64),
    granted: &mut Granted,
    missing: &mut Vec<String>,
    mut step: impl FnMut(),
) -> Result<Vec<IdleCost>, Failure> {
    let Idle { core, busy, rate_hz } = idle;
    let mut pooled: Vec<(IdleMethod, bool, Samples)> = Vec::new();
    for loaded in [false, true].into_iter().filter(|loaded| !loaded || !busy.is_empty()) {
        let load = if loaded { Some(Load::memory_on(busy)?) } else { None };
        for round in 0..rounds as usize {
            for n in 0..IdleMethod::ALL.len() {
                if interrupted() {
                    break;
                }
                step();
                let method = IdleMethod::ALL[(round + n) % IdleMethod::ALL.len()];
                let held = match hold(method, core) {
                    Ok(held) => held,
                    Err(why) => {
                        let why = format!("{}: {why}", method.name());
                        if !missing.contains(&why) {
                            missing.push(why);
                        }
                        continue;
                    }
                };
                let samples = wake_ups(core, rate_hz, wakes, granted)?;
                drop(held);
                match pooled.iter_mut().find(|(m, l, _)| (*m, *l) == (method, loaded)) {
                    Some((_, _, all)) => all.pool(&samples),
                    None => pooled.push((method, loaded, samples)),
                }
            }
        }
        drop(load);
    }
    pooled.sort_by_key(|(method, loaded, _)| (*loaded, *method));
    let cost = |(method, loaded, samples): (IdleMethod, bool, Samples)| IdleCost {
        method,
        loaded,
        count: samples.count(),
        p50_ns: samples.quantile(0.5),
        p99_ns: samples.quantile(0.99),
        max_ns: samples.quantile(1.0),
    };
    Ok(pooled.into_iter().map(cost).collect())
}
