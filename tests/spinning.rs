//! A spinning lane makes no system call besides its own receive and send: the kernel itself ends the
//! process at the first other one.

mod support;

use sinew::io::message::Message;
use sinew::io::node::{
    Auth, Budgets, Layout, Node, Publisher, Queued, RealTimeConfig, TopicClass, TopicConfig,
};
use sinew::rt::clock::{self, Nanos};
use sinew::rt::guard::{Execution, GuardSpec};
use sinew::rt::ladder::LadderConfig;
use sinew::rt::lane::Stage;
use sinew::rt::ring::Consumer;
use sinew::rt::topology::CoreId;
use sinew::rt::wait::Wait;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use support::alone::{Ended, is_alone, pass_on, run, variant};
use support::arena::{CLUSTER, CONTROLLER, EPOCH, LIFE, ROBOT, UNLIMITED, peer};
use support::forge::{Forger, Seen, identity, kind_of};
use support::{Sample, beside, fresh_address, granted, lane_core, skipped, until};
use zerocopy::IntoBytes;

/// Messages that go in and come back.
const ROUNDS: u64 = 2_000;

/// What a spinning lane may call: its own receive and its own send.
const OWN_CALLS: [libc::c_long; 4] =
    [libc::SYS_recvfrom, libc::SYS_recvmmsg, libc::SYS_sendto, libc::SYS_sendmmsg];

/// How the process ends when the burst is over: nothing runs after it.
const AT_THE_END: libc::c_long = libc::SYS_exit_group;

/// Exit code of a process whose burst was over before its work was.
const OUT_OF_TIME: i32 = 75;

/// The lane may spin for so long, by construction: the kernel stops it after 0.95 s.
const BURST: Nanos = Nanos::from_millis(850);

/// Sends back what it gets, on a lane from which, from the second poll on, every other system call
/// ends the process.
struct Jail {
    filter: seccompiler::BpfProgram,
    /// 0 before the first poll, 1 with the filter in force, otherwise 1 + the kernel's refusal.
    installed: Arc<AtomicU64>,
    misbehaves: bool,
    until: Nanos,
    samples: Consumer<Queued<Sample>>,
    echo: Publisher<Sample>,
}

impl Jail {
    fn filter() -> seccompiler::BpfProgram {
        use seccompiler::{SeccompAction, SeccompFilter};
        SeccompFilter::new(
            OWN_CALLS.iter().chain([&AT_THE_END]).map(|call| (*call, Vec::new())).collect(),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            std::env::consts::ARCH.try_into().unwrap(),
        )
        .unwrap()
        .try_into()
        .unwrap()
    }
}

impl Stage for Jail {
    fn poll(&mut self, now: Nanos) -> Execution {
        if self.installed.load(Ordering::Relaxed) == 0 {
            self.until = now + BURST;
            let errno = match seccompiler::apply_filter(&self.filter) {
                Ok(()) => 0,
                Err(_) => {
                    std::io::Error::last_os_error().raw_os_error().unwrap_or(1).unsigned_abs()
                }
            };
            self.installed.store(1 + u64::from(errno), Ordering::Relaxed);
            return Execution::Idle;
        }
        if now > self.until {
            // SAFETY: ends the process without running anything else of it.
            unsafe { libc::_exit(OUT_OF_TIME) };
        }
        let Some(sample) = self.samples.pop() else { return Execution::Idle };
        if self.misbehaves && sample.value.number == 100 {
            // SAFETY: getpid takes nothing and touches no memory.
            unsafe { libc::syscall(libc::SYS_getpid) };
        }
        // The ring cannot be full: the other side waits for each echo.
        self.echo.publish(&sample.value).expect("the send stage runs on this very lane");
        Execution::Worked { released: now }
    }
}

const IN_JAIL: &str = "a_spinning_lane_makes_no_system_call_but_its_own_receive_and_send";

#[test]
fn a_spinning_lane_makes_no_system_call_but_its_own_receive_and_send() {
    if is_alone() {
        return live_in_jail(&variant());
    }
    let well_behaved = in_time("well-behaved");
    pass_on(&well_behaved);
    assert!(well_behaved.status.success(), "{}: {}", well_behaved.status, well_behaved.output);
    if well_behaved.output.contains("SKIPPED") {
        return;
    }
    assert!(well_behaved.output.contains("echoes"), "{}", well_behaved.output);
    let misbehaved = in_time("misbehaved");
    assert_eq!(
        misbehaved.signal(),
        Some(libc::SIGSYS),
        "one call too many must be fatal: {} {}",
        misbehaved.status,
        misbehaved.output
    );
    assert!(!misbehaved.output.contains("echoes"));
}

/// On a busy machine a burst may be over before two thousand messages have gone through: another try.
fn in_time(variant: &str) -> Ended {
    for _ in 0..5 {
        let ended = run(IN_JAIL, variant);
        if ended.status.code() != Some(OUT_OF_TIME) {
            return ended;
        }
    }
    panic!("in five bursts of {BURST} the {variant} lane did not get its work done");
}

/// Ends the process, at once and without asking the lane: it may make no system call to end.
fn live_in_jail(variant: &str) {
    let core = lane_core();
    let misbehaves = variant == "misbehaved";
    beside(core, move || {
        let driven = std::panic::catch_unwind(|| drive_jail(core, misbehaves));
        // SAFETY: ends the process without running anything else of it.
        unsafe { libc::_exit(i32::from(driven.is_err())) }
    });
}

fn drive_jail(core: CoreId, misbehaves: bool) {
    let files = tempfile::tempdir().unwrap();
    let (robot_at, home) = (fresh_address(), fresh_address());
    let wire = UdpSocket::bind(home).unwrap();
    wire.connect(robot_at).unwrap();
    wire.set_read_timeout(Some(std::time::Duration::from_millis(5))).unwrap();
    let open = |name: &str| TopicConfig {
        auth: Auth::Open,
        ..TopicConfig::new(name, Sample::NAME, TopicClass::Queue)
    };
    // Budgets that nothing misses: a miss makes the guard ask the kernel whose fault it was.
    let ample = Nanos::from_secs(1);
    let mut robot = Node::builder("jail")
        .development()
        .cluster(CLUSTER)
        .identity(identity(ROBOT))
        .panel_dir(files.path())
        .admission(UNLIMITED)
        .udp(robot_at)
        .spins_in_bursts()
        .budgets(Budgets { receive: ample, verify: ample, deliver: ample, send: ample })
        .realtime(RealTimeConfig {
            layout: Layout::Fused,
            wait: Wait::Spin,
            cores: vec![core],
            ..RealTimeConfig::default()
        })
        .topic(open("setpoint"))
        .topic(open("state"))
        .peer(peer("controller", CONTROLLER, home, &["setpoint"]));
    let installed = Arc::new(AtomicU64::new(0));
    let samples = robot.queue::<Sample>("setpoint", 64).unwrap();
    let echo = robot.publisher::<Sample>("state").unwrap();
    let jail = Jail {
        filter: Jail::filter(),
        installed: installed.clone(),
        misbehaves,
        until: Nanos::MAX,
        samples,
        echo,
    };
    let guard = GuardSpec {
        budget: ample,
        hard_limit: Nanos::from_secs(10),
        ladder: LadderConfig::report_only(),
    };
    robot.stage("jail", guard, Box::new(jail));
    let robot = robot.start().unwrap();
    let started = clock::now();
    match until("the filter is asked for", || {
        Some(installed.load(Ordering::Relaxed)).filter(|n| *n > 0)
    }) {
        1 => {}
        refused => {
            let error = std::io::Error::from_raw_os_error((refused - 1) as i32);
            skipped(&format!("the kernel refuses seccomp filters: {error}"));
            return;
        }
    }
    let controller = Forger::new(CONTROLLER, CLUSTER);
    let mut bytes = [0; 2_048];
    until("the robot accepts the controller's Hello", || {
        if let Ok(len) = wire.recv(&mut bytes)
            && let Some(hello) = controller.hello(&bytes[..len], EPOCH, LIFE, &["setpoint"])
        {
            wire.send(&hello).unwrap();
        }
        let snapshot = robot.panel().snapshot().unwrap();
        (snapshot.gauge("peer.epoch@controller") == Some(EPOCH as i64)).then_some(())
    });
    // Signed and unsigned ones, each echoed before the next is sent. The lane's own limit ends this
    // if anything hangs.
    let mut echoes = 0;
    for number in 1..=ROUNDS {
        let fields = controller.fields("setpoint", EPOCH, number);
        let sample = Sample::new(number);
        let frame = match number % 8 {
            0 => controller.signed(&fields, sample.as_bytes()),
            _ => controller.unsigned(&fields, sample.as_bytes()),
        };
        wire.send(&frame).unwrap();
        while let Ok(len) = wire.recv(&mut bytes) {
            if kind_of(&bytes[..len]) == Seen::Envelope {
                echoes += 1;
                break;
            }
        }
    }
    let spun = clock::now() - started;
    let lane = &robot.report().lanes[0];
    assert!(echoes > ROUNDS * 9 / 10, "{echoes} of {ROUNDS} came back");
    let executions = robot.panel().snapshot().unwrap().probe("jail").unwrap().executions;
    assert!(executions >= echoes);
    println!("{echoes} echoes");
    granted(&format!(
        "system call filter on a spinning lane ({}), {spun}, {echoes} echoes",
        lane.effective.scheduling
    ));
    // The lane cannot end in an orderly way; the process does.
    std::mem::forget(robot);
}
