//! From a specification to a loop that can run: everything that may fail before the first cycle.

use sinew_rt::clock::Nanos;
use sinew_rt::guard::{Guard, GuardSpec};
use sinew_rt::ladder::{LadderConfig, Level};
use sinew_rt::panel::{Kind, Panel, PanelError};
use sinew_rt::thread::{Applied, Strictness, ThreadSpec};
use sinew_rt::topology::CoreId;

use super::engine::{Engine, Instruments, KernelTimer, Parts};
use super::running::Report;
use super::{ControlLoop, LoopBody, LoopError, LoopHandle, RATE_MAX_HZ, Wake};

impl ControlLoop {
    /// Checks every number and registers the loop's instruments.
    pub(super) fn prepare<B: LoopBody>(
        self,
        panel: &Panel,
        body: B,
    ) -> Result<Prepared<B>, LoopError> {
        let name = self.thread.name.clone();
        if !(1..=RATE_MAX_HZ).contains(&self.rate_hz) {
            return Err(LoopError::Rate { name, rate_hz: self.rate_hz });
        }
        let rate = i64::from(self.rate_hz);
        let period = (Nanos::from_secs(1) + Nanos::new(rate / 2)) / rate;
        let budget = self.budget.unwrap_or(period / 2);
        if budget > period {
            return Err(LoopError::Budget { name, budget, period });
        }
        let spin = self.wake.unwrap_or(Wake::standard(period)).spin();
        if spin < Nanos::ZERO || spin > period / 2 {
            return Err(LoopError::Spin { name, spin, period });
        }
        let hard_limit = self.hard_limit.unwrap_or(period * 20);
        let safe_stop_budget = self.safe_stop_budget.unwrap_or(budget);
        let health = self.health.unwrap_or_default();
        let core = self.thread.core.map(CoreId::get);

        if let (Some((node, held)), Some(core)) = (self.held, self.thread.core)
            && held.contains(&core)
        {
            return Err(LoopError::CoreHeld { name, node, core });
        }
        let spec = GuardSpec { budget, hard_limit, ladder: self.ladder };
        // The safe-stop path is the last resort: when it overruns, nothing is left to fall back to.
        let stop_spec = GuardSpec {
            budget: safe_stop_budget,
            hard_limit: hard_limit.max(safe_stop_budget),
            ladder: LadderConfig::report_only(),
        };
        let build = || -> Result<_, PanelError> {
            let label = |what: &str| format!("{name} {what}");
            let instruments = Instruments {
                wake_up: panel.recorder(&name, Kind::WakeUp)?,
                skipped: panel.counter(&label("skipped"))?,
                safe_stops: panel.counter(&label("safe stops"))?,
                safe_stop_panics: panel.counter(&label("safe stop panics"))?,
                safety: panel.gauge(&label("safety"))?,
                stop_cause: panel.gauge(&label("stop cause"))?,
            };
            Ok((panel.probe(&name, core)?, panel.probe(&label("stop"), core)?, instruments))
        };
        let (probe, stop_probe, instruments) =
            build().map_err(|source| LoopError::Panel { name: name.clone(), source })?;
        let refused = |source| LoopError::Guard { name: name.clone(), source };
        let engine = Engine::new(Parts {
            body,
            period,
            hard_limit,
            stop_on_hang: self.ladder.on_hang == Level::SafeStop,
            guard: Guard::new(probe, spec)
                .and_then(|guard| guard.with_deadline(self.deadline.unwrap_or(period)))
                .map_err(refused)?
                .with_health(health.clone()),
            stop_guard: Guard::new(stop_probe, stop_spec).map_err(refused)?,
            health,
            instruments,
            shared: self.shared,
        });
        Ok(Prepared {
            name,
            thread: self.thread,
            timer: KernelTimer { spin },
            safe_stop_budget,
            self_test: Nanos::ZERO,
            engine,
        })
    }
}

/// A loop with everything that may fail behind it, on whichever thread it is to run.
pub(super) struct Prepared<B> {
    pub(super) name: String,
    pub(super) thread: ThreadSpec,
    timer: KernelTimer,
    safe_stop_budget: Nanos,
    self_test: Nanos,
    pub(super) engine: Engine<B>,
}

impl<B: LoopBody> Prepared<B> {
    pub(super) fn self_test(&mut self) -> Result<(), LoopError> {
        let name = || self.name.clone();
        let took = self
            .engine
            .self_test(&self.timer)
            .map_err(|_panicked| LoopError::SelfTestPanicked { name: name() })?;
        let budget = self.safe_stop_budget;
        if took > budget && self.thread.strictness == Strictness::Require {
            return Err(LoopError::SelfTestTooSlow { name: name(), took, budget });
        }
        self.self_test = took;
        Ok(())
    }

    /// Runs the loop to its end, and gives a report that lacks what the kernel granted.
    pub(super) fn run(mut self) -> impl FnOnce(Applied) -> Report {
        self.engine.run(&self.timer);
        let Self { name, self_test, safe_stop_budget, engine, .. } = self;
        let Parts { instruments, shared, .. } = engine.parts;
        let cycles = engine.tick;
        let status = LoopHandle { shared }.status();
        move |applied| Report {
            name,
            cycles,
            skipped: instruments.skipped.value(),
            safe_stop_panics: instruments.safe_stop_panics.value(),
            wake_up_max: instruments.wake_up.max(),
            self_test,
            safe_stop_budget,
            status,
            applied,
        }
    }
}
