//! The loop in virtual time: every claim about skipping, tripping and re-arming, to the nanosecond.

mod rearm;
mod timing;
mod trips;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use sinew_rt::clock::{Clock, Nanos, VirtualClock};
use sinew_rt::health::Health;
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Panel, PanelSpec};

use super::engine::{Engine, Timer};
use super::*;
use crate::safety::State;

const MS: Nanos = Nanos::from_millis(1);
const US: Nanos = Nanos::from_micros(1);

/// A clock that jumps to the instant it is asked to wait for, or a scripted span beyond it.
struct Virtual {
    clock: Arc<VirtualClock>,
    /// How late the wake-up of each cycle is; on time when the script has ended.
    late: RefCell<std::vec::IntoIter<Nanos>>,
}

impl Clock for Virtual {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Timer for Virtual {
    fn sleep_towards(&self, _due: Nanos) {}

    fn arrive(&self, due: Nanos) -> Nanos {
        self.clock.advance_to(due + self.late.borrow_mut().next().unwrap_or(Nanos::ZERO));
        self.clock.now()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Cycle,
    Degraded,
    SafeStop,
}

/// What was called, in which cycle, when, after how many skipped, in which state.
type Entry = (Call, u64, Nanos, u64, State);

type Script = Box<dyn FnMut(Call, &mut Cycle)>;

/// A body that does what the test says and remembers how it was called.
struct Scripted<'a> {
    script: Script,
    log: &'a RefCell<Vec<Entry>>,
}

impl Scripted<'_> {
    fn call(&mut self, call: Call, cx: &mut Cycle) {
        let entry = (call, cx.tick(), cx.now(), cx.skipped(), cx.state());
        self.log.borrow_mut().push(entry);
        (self.script)(call, cx);
    }
}

impl LoopBody for Scripted<'_> {
    fn cycle(&mut self, cx: &mut Cycle) {
        self.call(Call::Cycle, cx);
    }

    fn degraded(&mut self, cx: &mut Cycle) {
        self.call(Call::Degraded, cx);
    }

    fn safe_stop(&mut self, cx: &mut Cycle) {
        self.call(Call::SafeStop, cx);
    }
}

/// A loop at 1 kHz with a budget of 100 µs and a hard limit of 20 ms on a virtual clock that
/// starts at 10 s, so that cycle `n` is due at 10 s + `n` ms.
struct Rig {
    clock: Arc<VirtualClock>,
    panel: Panel,
    health: Arc<Health>,
    ladder: LadderConfig,
    late: Vec<Nanos>,
    handle: Option<LoopHandle>,
    log: RefCell<Vec<Entry>>,
    status: Cell<Option<Status>>,
}

const START: Nanos = Nanos::from_secs(10);

impl Rig {
    fn new() -> Self {
        Self {
            clock: Arc::new(VirtualClock::new(START)),
            panel: Panel::anonymous(&PanelSpec::new("test")).unwrap(),
            health: Arc::default(),
            ladder: LadderConfig::standard(),
            late: Vec::new(),
            handle: None,
            log: RefCell::default(),
            status: Cell::new(None),
        }
    }

    /// Runs cycles 1 to `ticks` with a script; each call may let time pass on the clock.
    fn run(&mut self, ticks: u64, script: impl FnMut(Call, &mut Cycle) + 'static) {
        let control_loop =
            ControlLoop::new("arm").budget(US * 100).trip(self.ladder).health(self.health.clone());
        self.run_loop(control_loop, ticks, script);
    }

    fn run_loop(
        &mut self,
        control_loop: ControlLoop,
        ticks: u64,
        mut script: impl FnMut(Call, &mut Cycle) + 'static,
    ) {
        let handle = control_loop.handle();
        self.handle = Some(handle.clone());
        let script: Script = Box::new(move |call, cx| {
            if cx.tick() == ticks {
                cx.stop();
            }
            script(call, cx);
        });
        let late = RefCell::new(std::mem::take(&mut self.late).into_iter());
        let timer = Virtual { clock: self.clock.clone(), late };
        let body = Scripted { script, log: &self.log };
        let mut engine: Engine<_> = control_loop.prepare(&self.panel, body).unwrap().engine;
        engine.run(&timer);
        self.status.set(Some(handle.status()));
    }

    /// The ticks in which `call` was made; the last safe stop, made when the loop ends, not counted.
    fn ticks_of(&self, call: Call) -> Vec<u64> {
        let log = self.log.borrow();
        let (last, rest) = log.split_last().unwrap();
        assert_eq!(last.0, Call::SafeStop, "a loop ends with outputs made safe");
        rest.iter().filter(|entry| entry.0 == call).map(|entry| entry.1).collect()
    }

    fn skipped_on_panel(&self) -> u64 {
        self.panel.snapshot().unwrap().counter("arm skipped").unwrap()
    }
}

fn ms(n: i64) -> Nanos {
    START + MS * n
}

fn range(ticks: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    ticks.collect()
}
