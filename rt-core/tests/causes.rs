//! Every cause that can be provoked on purpose, a hundred times each, and how often it is named.
//!
//! ```sh
//! cargo test -p sinew-rt --test causes -- --nocapture
//! ```
//!
//! prints the table. A name that is wrong weighs more than `unknown`. Where an execution that was
//! not named right shows by other evidence (its own CPU time, switches and faults, looked at right
//! before and after it) that something else happened than what was provoked, it counts as disturbed.

mod provoke;

use std::io::Write as _;
use std::sync::{Arc, mpsc};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{self, Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Cause, Panel, PanelSpec, TripSnapshot};
use sinew_rt::supervisor::Supervisor;
use sinew_rt::thread::{self, Priority, Strictness, ThreadSpec};
use sinew_rt::topology::{CoreId, Topology};

use provoke::{AbsentPages, CoreHog, FilePage, Truth};

const PROVOCATIONS: u32 = 100;
/// At least so many of a hundred that were not disturbed must be named right, ...
const RIGHT_MIN: u32 = 95;
/// ... at most so many may get a wrong name, ...
const WRONG_MAX: u32 = 2;
/// ... and with more disturbances than this the machine is too busy for a statement.
const DISTURBED_MAX: u32 = 20;

const BUDGET: Nanos = Nanos::from_micros(200);
/// The work of an execution that has nothing wrong with it.
const WORK: Nanos = Nanos::from_micros(30);
/// What is provoked takes this long, as opposed to the budget.
const LONG: Nanos = Nanos::from_millis(2);
/// Rest between provocations, so that real-time threads have the core for half of the time at most.
const REST: Nanos = Nanos::from_millis(4);

/// What came of a hundred provocations.
#[derive(Clone, Debug, Default)]
struct Tally {
    right: u32,
    unknown: u32,
    disturbed: u32,
    wrong: Vec<TripSnapshot>,
    example: Option<TripSnapshot>,
}

impl Tally {
    fn count(&mut self, trip: TripSnapshot, provoked: Cause, disturbed: bool) {
        match trip.cause {
            cause if cause == provoked => {
                self.right += 1;
                self.example = Some(trip);
            }
            _ if disturbed => self.disturbed += 1,
            Cause::Unknown => self.unknown += 1,
            _ => self.wrong.push(trip),
        }
    }
}

fn panel() -> Panel {
    let spec = PanelSpec { probes: 1, histograms: 2, values: 0, ..PanelSpec::new("causes") };
    Panel::anonymous(&spec).unwrap()
}

/// One way to make an execution miss.
struct Provocation {
    name: &'static str,
    cause: Cause,
    /// Beyond the work, what the execution does; gets the guard's thread off or keeps it on its core.
    body: Box<dyn FnMut() + Send>,
    /// What comes before the release, such as making memory absent. Gets the instant of the release.
    prepare: Box<dyn FnMut(Nanos) + Send>,
    /// Whether the truth shows something else than what was provoked.
    disturbed: fn(&Truth) -> bool,
    deadline: Nanos,
    budget: Nanos,
    /// Whether it has to be named; otherwise only a wrong name counts.
    judged: bool,
}

impl Provocation {
    fn new(name: &'static str, cause: Cause, disturbed: fn(&Truth) -> bool) -> Self {
        let (body, prepare) = (Box::new(|| ()), Box::new(|_| ()));
        Self {
            name,
            cause,
            body,
            prepare,
            disturbed,
            deadline: Nanos::MAX,
            budget: BUDGET,
            judged: true,
        }
    }

    fn body(mut self, body: impl FnMut() + Send + 'static) -> Self {
        self.body = Box::new(body);
        self
    }

    fn prepare(mut self, prepare: impl FnMut(Nanos) + Send + 'static) -> Self {
        self.prepare = Box::new(prepare);
        self
    }

    /// Provokes a hundred times on the calling thread, as a loop or lane with a guard would run.
    fn run(&mut self) -> Tally {
        self.times(PROVOCATIONS, &panel(), None)
    }

    fn times(&mut self, times: u32, panel: &Panel, core: Option<u16>) -> Tally {
        let hard_limit = Nanos::from_secs(10);
        let ladder = LadderConfig::report_only();
        let guard = GuardSpec { budget: self.budget, hard_limit, ladder };
        let guard = Guard::new(panel.probe("provoked", core).unwrap(), guard).unwrap();
        let mut guard = guard.with_deadline(self.deadline).unwrap();
        let mut tally = Tally::default();
        for _ in 0..times {
            let release = clock::now() + REST;
            (self.prepare)(release);
            guard::before_park(clock::now());
            clock::sleep_until(release);
            guard::after_park(clock::now());
            let before = Truth::now();
            let start = clock::now();
            guard.enter(start);
            provoke::burn(WORK);
            (self.body)();
            guard.exit(clock::now(), Execution::Worked { released: release });
            let truth = Truth::now().since(&before);
            let shown = panel.snapshot().unwrap();
            let trip = shown.trips.into_iter().next_back().expect("every provocation is a miss");
            tally.count(trip, self.cause, (self.disturbed)(&truth));
        }
        assert_eq!(panel.snapshot().unwrap().probes[0].overruns, u64::from(times));
        tally
    }
}

/// More CPU time than the body asks for: a hypervisor that does not report what it steals, or an
/// interrupt that counts as the thread's.
fn worked_too_long(truth: &Truth) -> bool {
    truth.cpu_time > WORK * 4
}

fn was_kept_off(truth: &Truth) -> bool {
    truth.off_cpu() > BUDGET / 4 || truth.involuntary > 0
}

fn busy_thread(hog: Arc<CoreHog>) -> Provocation {
    Provocation::new("a busy thread above us", Cause::Preempted, worked_too_long)
        .body(move || hog.take(clock::now(), clock::now() + LONG))
}

fn provocations(core: CoreId) -> Vec<Provocation> {
    let hog = Arc::new(CoreHog::start(core, Priority::new(91).unwrap()));
    let late = hog.clone();
    let busy = busy_thread(hog);
    let mut timer = Provocation::new("a late timer", Cause::LateRelease, worked_too_long)
        .prepare(move |release| late.take(release - Nanos::from_micros(200), release + LONG));
    timer.deadline = Nanos::from_millis(1);

    let few = Arc::new(AbsentPages::worth(BUDGET * 2));
    let absent = few.clone();
    let few = Provocation::new("some pages absent", Cause::PageFault, was_kept_off)
        .prepare(move |_| absent.discard())
        .body(move || few.touch());
    let many = Arc::new(AbsentPages::worth(LONG));
    let absent = many.clone();
    let many = Provocation::new("many pages absent", Cause::PageFault, was_kept_off)
        .prepare(move |_| absent.discard())
        .body(move || many.touch());
    let mut all = vec![
        Provocation::new("a slow callback", Cause::OwnOverrun, was_kept_off)
            .body(|| provoke::burn(LONG)),
        busy,
        timer,
        few,
        many,
        Provocation::new("a callback that waits", Cause::Blocked, |truth| {
            worked_too_long(truth) || truth.involuntary > 0
        })
        .body(|| clock::sleep_until(clock::now() + LONG)),
    ];
    match FilePage::new() {
        Ok(page) => {
            let page = Arc::new(page);
            let absent = page.clone();
            let disturbed = |truth: &Truth| truth.major_faults == 0 || truth.involuntary > 0;
            let mut disk = Provocation::new("a page on disk", Cause::PageFault, disturbed)
                .prepare(move |_| absent.discard())
                .body(move || page.touch());
            disk.budget = WORK + Nanos::from_micros(20);
            // How much of the way to a disk is waiting, and so can be told from work, is its own.
            disk.judged = false;
            all.push(disk);
        }
        Err(why) => say(&format!("SKIPPED: a page on disk: {why}")),
    }
    all
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn provoked_causes_are_named() {
    let core = *Topology::read().unwrap().real_time_cores().last().unwrap();
    let spec = ThreadSpec::new("causes").core(core).fifo(Priority::new(90).unwrap());
    let victim = thread::spawn(spec.strictness(Strictness::Require), move || {
        let run = |mut provocation: Provocation| {
            let tally = provocation.run();
            (provocation.name, provocation.cause, provocation.judged, tally)
        };
        provocations(core).into_iter().map(run).collect::<Vec<_>>()
    });
    let victim = match victim {
        Ok(victim) => victim,
        Err(why) => return say(&format!("\nSKIPPED: provoked causes: {why}")),
    };
    let rows = victim.join().unwrap();
    say(&format!(
        "\n{:<24} {:<14} {:>5} {:>8} {:>6} {:>10}",
        "provoked", "cause", "right", "unknown", "wrong", "disturbed"
    ));
    for (name, cause, _, tally) in &rows {
        let wrong = tally.wrong.len();
        let Tally { right, unknown, disturbed, .. } = tally;
        say(&format!(
            "{name:<24} {:<14} {right:>5} {unknown:>8} {wrong:>6} {disturbed:>10}",
            cause.to_string()
        ));
    }
    for (name, _, _, tally) in &rows {
        if let Some(TripSnapshot { duration, evidence: Some(seen), .. }) = &tally.example {
            say(&format!(
                "{name}: {duration}; {} on the CPU of {} awake, {} involuntary and {} voluntary \
                 switches, {} parks, {} minor and {} major faults",
                seen.cpu_time,
                seen.awake,
                seen.involuntary_switches,
                seen.voluntary_switches,
                seen.parks,
                seen.minor_faults,
                seen.major_faults
            ));
        }
    }
    for (name, _, judged, tally) in rows {
        if tally.disturbed > DISTURBED_MAX {
            say(&format!("SKIPPED: {name}: disturbed {} times", tally.disturbed));
            continue;
        }
        let calm = PROVOCATIONS - tally.disturbed;
        assert!(tally.wrong.len() as u32 <= WRONG_MAX, "{name}: wrong names {:?}", tally.wrong);
        assert!(!judged || tally.right * 100 >= calm * RIGHT_MIN, "{name}: {tally:?}");
    }
}

#[test]
fn the_supervisor_adds_what_went_on_on_the_core_and_who_ran_there() {
    let core = *Topology::read().unwrap().real_time_cores().last().unwrap();
    let spec = ThreadSpec::new("preempted").core(core).fifo(Priority::new(90).unwrap());
    let panel = panel();
    let mut supervisor = Supervisor::new(&panel).unwrap();
    supervisor.look_around(clock::now());
    let shown = panel.clone();
    let (done, provoked) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let victim = thread::spawn(spec.strictness(Strictness::Require), move || {
        let hog = Arc::new(CoreHog::start(core, Priority::new(91).unwrap()));
        busy_thread(hog.clone()).times(3, &shown, Some(core.get()));
        done.send(()).unwrap();
        // Threads that have ended cannot be found.
        gone.recv().unwrap_err();
    });
    let victim = match victim {
        Ok(victim) => victim,
        Err(why) => return say(&format!("\nSKIPPED: who ran there: {why}")),
    };
    let tid = u32::try_from(victim.id()).unwrap();
    provoked.recv().unwrap();
    let before = panel.snapshot().unwrap().trips;
    assert!(before.iter().all(|trip| trip.around.is_none() && trip.thread == tid), "{before:?}");
    supervisor.look_around(clock::now());
    drop(go);
    victim.join().unwrap();
    let trips = panel.snapshot().unwrap().trips;
    let (last, earlier) = trips.split_last().unwrap();
    assert!(earlier.iter().all(|trip| trip.around.is_none()), "housekeeping saw only the last");
    let around = last.around.as_ref().unwrap();
    assert!(around.window > LONG * 3 && around.interrupts > 0, "{around:?}");
    if last.cause != Cause::Preempted {
        return say(&format!("\nSKIPPED: who ran there: the last trip was {}", last.cause));
    }
    match &around.thread {
        Some(thread) => assert_eq!((thread.name.as_str(), thread.rt_priority), ("hog", 91)),
        None if std::fs::exists("/proc/thread-self/sched").unwrap() => panic!("{around:?}"),
        None => say("\nSKIPPED: who ran there: the kernel has no /proc/PID/sched"),
    }
}
