//! Measures the parts that a placement is made of: hand-offs between cores, what takes a core away,
//! wake-ups, and what keeps them short. Every thread that spins does so for less than 0.5 s.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use sinew_control::control_loop::{ControlLoop, Cycle, LoopBody, Wake};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::keep_awake::KeepAwake;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Kind, Panel, PanelSpec};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::ring;
use sinew_rt::thread::{Priority, RtThread, Strictness, ThreadSpec, spawn};
use sinew_rt::topology::CoreId;
use sinew_rt::wait::Doorbell;

use super::facts::{CoreMeasured, Hop, IdleCost, IdleMethod};
use super::granted::Granted;
use crate::bench::stats::Samples;
use crate::bench::{interrupted, thread_failure};
use crate::exit::Failure;

/// Above everything of ours and below the kernel's threads at 99, as `sinew bench` measures.
const PRIORITY: u8 = 80;
/// Gaps from here on are what a loop would notice: oslat's threshold.
const GAP: Nanos = Nanos::from_micros(1);
/// The longest that two threads wait for each other.
const HOP_LIMIT: Nanos = Nanos::from_millis(450);
const BUSY_HOPS: u64 = 2_000;
/// Bytes that each load thread copies over and over: more than a second-level cache.
const LOAD_BYTES: usize = 8 << 20;

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

/// One message way after the other from core to core through a ring: spinning and one after the
/// other, and `paced` of them, one a period, to a receiver that sleeps.
pub(super) fn hop(
    from: CoreId,
    to: CoreId,
    period: Nanos,
    paced: u64,
    granted: &mut Granted,
) -> Result<Hop, Failure> {
    let busy = one_way(from, to, None, BUSY_HOPS, granted)?;
    let parked = one_way(from, to, Some(period), paced, granted)?;
    let median = |samples: &Samples| (samples.count() > 0).then(|| samples.quantile(0.5));
    let (spinning_ns, parked_ns) = (median(&busy), median(&parked));
    Ok(Hop { from: from.get(), to: to.get(), spinning_ns, parked_ns })
}

/// 256 bytes, the first eight of which are the time of sending.
type Message = [i64; 32];

fn one_way(
    from: CoreId,
    to: CoreId,
    paced: Option<Nanos>,
    messages: u64,
    granted: &mut Granted,
) -> Result<Samples, Failure> {
    let bell = Arc::new(Doorbell::new());
    let (mut producer, mut consumer) = match paced {
        None => ring::channel::<Message>(8),
        Some(_) => ring::channel_with_doorbell(8, bell.clone()),
    };
    let arrived = Arc::new(AtomicU64::new(0));
    let acknowledged = arrived.clone();
    // Neither begins before both have made their settings: on a core where the other spins, a new
    // thread could not.
    let together = Arc::new(Barrier::new(2));
    let other = together.clone();
    let near = spawn(thread("tune-near", from)?, move || {
        other.wait();
        let start = clock::now();
        let deadline = start + HOP_LIMIT;
        for sent in 0..messages {
            while acknowledged.load(Ordering::Acquire) != sent {
                if clock::now() >= deadline {
                    return;
                }
            }
            if let Some(period) = paced {
                clock::sleep_until(start + period * (sent as i64 + 1));
            }
            if producer.push([clock::now().as_nanos(); 32]).is_err() {
                return;
            }
        }
    });
    let near = near.map_err(thread_failure)?;
    let far = spawn(thread("tune-far", to)?, move || {
        together.wait();
        let deadline = clock::now() + HOP_LIMIT;
        let mut samples = Samples::new();
        while samples.count() < messages && clock::now() < deadline {
            let message = consumer.pop().or_else(|| {
                paced?;
                bell.announce_sleep();
                let late = consumer.pop();
                match late {
                    Some(_) => bell.awake(),
                    None => bell.sleep(Some(deadline)),
                }
                late.or_else(|| consumer.pop())
            });
            if let Some(message) = message {
                let now = clock::now();
                samples.record(now - Nanos::new(message[0]), now);
                arrived.fetch_add(1, Ordering::Release);
            }
        }
        samples
    });
    let far = match far {
        Ok(far) => far,
        Err(error) => return Err(thread_failure(error)),
    };
    joined(near, granted)?;
    joined(far, granted)
}

/// Copies memory at normal priority on some cores while it lives.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<RtThread<()>>,
}

impl Load {
    /// One thread on each of `cores`.
    pub(super) fn on(cores: &[CoreId]) -> Result<Self, Failure> {
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        for core in cores {
            let stop = load.stop.clone();
            let spec = ThreadSpec::new("tune-load").core(*core);
            let thread = spawn(spec, move || {
                let (from, mut to) = (vec![1u8; LOAD_BYTES], vec![0u8; LOAD_BYTES]);
                while !stop.load(Ordering::Relaxed) {
                    to.copy_from_slice(&from);
                    std::hint::black_box(&mut to);
                }
            });
            load.threads.push(thread.map_err(thread_failure)?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It copies memory and looks at a flag: there is nothing to panic with.
            let _ = thread.join();
        }
    }
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
        let load = if loaded { Some(Load::on(busy)?) } else { None };
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
