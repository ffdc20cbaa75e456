//! `sinew demo`: a robot and its controller as two processes, driven by signed messages over
//! loopback UDP, with the controller killed halfway.

mod checks;
mod child;
mod controller;
mod gauges;
mod live;
mod look;
mod lqr;
mod picture;
pub(crate) mod pilot;
mod place;
pub(crate) mod plant;
mod process;
mod report;
mod robot;
mod scratch;
mod stall;
mod story;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sinew_io::node::Layout;
use sinew_rt::clock::Nanos;
use sinew_rt::thread::{Priority, Strictness, ThreadSpec, spawn};
use sinew_rt::topology::{CoreId, Topology};

use crate::exit::{Failure, Outcome};
use crate::output::{self, JsonArgs};
use crate::plot;
use child::Life;
use live::Live;
use report::Report;
use scratch::{Role, Scratch};
use story::{Script, Story};

pub(crate) use table::short;

/// What the controller publishes.
const SETPOINT: &str = "cart/setpoint";
/// What the robot publishes.
const STATE: &str = "cart/state";

/// The shortest run in which the pole can be swung up (3 s), shown to balance (1 s), and all that
/// again after the controller's death and restart.
const SECONDS_MIN: u32 = 8;
/// The same without the second half.
const SECONDS_MIN_NO_KILL: u32 = 4;
const SECONDS_MAX: u32 = 86_400;

/// Balance a pole over the wire: a robot and its controller, killed and restarted
///
/// Two processes on loopback UDP, each with a 1 kHz loop. The robot is a pole on a cart, driven by
/// torque. It publishes its signed state; the controller swings the pole up and balances it by
/// signed setpoints. Halfway the controller is killed: the
/// robot notices by the age of its setpoint and goes to safe stop (torque off, brake on). Then the
/// controller is started again, the robot is re-armed, and the pole is swung up once more.
///
/// While it runs, a table shows every stage of both processes, read from their instrument panels.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  sinew demo                               20 seconds, then the report
  sinew demo --seconds 60 --layout split   receive, verify and send on lanes of their own
  sinew demo --json demo.json --svg demo.svg
  sinew demo --no-kill --seconds 600       only balance

Exit codes:
  0  every check of the report passed: balanced before the kill; safe stop within the setpoint's
     deadline, one period and one cycle's budget; the new life accepted; balanced again, and at the
     end; no other safe stop; no frame dropped for an unexpected reason; processes ended as asked
  1  a check failed, or Ctrl-C came first. Missed budgets and NOT REAL-TIME are reported and do not
     decide
  2  wrong usage
  3  this machine cannot run it, and why; or it ran, and all that failed is explained by threads
     that the kernel kept from their cores for half the deadline or longer, when it mattered

Each half is extended by up to 5 s while the pole does not balance yet."
)]
pub(crate) struct DemoArgs {
    /// How long to run, in seconds: 8 to 86400 (from 4 with --no-kill)
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// How the stages of each process are spread over threads
    #[arg(long, value_enum, default_value_t = LayoutArg::Fused)]
    layout: LayoutArg,
    /// Leave the controller alone
    #[arg(long)]
    no_kill: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Write percentile curves of the robot's stages, wake-up and message age as SVG
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    #[command(subcommand)]
    process: Option<ProcessCommand>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LayoutArg {
    /// All stages on one thread
    Fused,
    /// Receive; verify and deliver; send
    Split,
    /// A thread for each stage
    Pipelined,
    /// Chosen from the cores
    Auto,
}

impl From<LayoutArg> for Layout {
    fn from(layout: LayoutArg) -> Self {
        match layout {
            LayoutArg::Fused => Self::Fused,
            LayoutArg::Split => Self::Split,
            LayoutArg::Pipelined => Self::Pipelined,
            LayoutArg::Auto => Self::Auto,
        }
    }
}

/// What the demo starts itself as.
#[derive(Debug, clap::Subcommand)]
enum ProcessCommand {
    #[command(hide = true)]
    Robot(process::ProcessArgs),
    #[command(hide = true)]
    Controller(process::ProcessArgs),
}

pub(crate) fn run(args: DemoArgs) -> Outcome {
    match &args.process {
        Some(ProcessCommand::Robot(process)) => return robot::run(process),
        Some(ProcessCommand::Controller(process)) => return controller::run(process),
        None => {}
    }
    let least = if args.no_kill { SECONDS_MIN_NO_KILL } else { SECONDS_MIN };
    if !(least..=SECONDS_MAX).contains(&args.seconds) {
        return Err(Failure::usage(format!(
            "--seconds {}: the swing-up alone takes 3 s{}; give {least} to {SECONDS_MAX}",
            args.seconds,
            if args.no_kill { "" } else { ", twice" },
        )));
    }
    args.json.check_writable()?;
    args.svg.as_deref().map_or(Ok(()), output::check_writable)?;
    // From here on an interrupt ends the run in good order.
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register(signal, interrupt.clone()).map_err(Failure::machine)?;
    }
    let topology = Topology::read().map_err(Failure::machine)?;
    let places = place::places(&topology.real_time_cores(), &topology.housekeeping_candidates())
        .ok_or_else(|| Failure::machine("no core is usable; check the cpuset"))?;
    let host = crate::host::fingerprint();
    let brand = refused_real_time(places[0].control)?;
    let script = Script {
        length: Nanos::from_secs(i64::from(args.seconds)),
        kill: !args.no_kill,
        best_effort: brand.is_some(),
    };
    let layout = Layout::from(args.layout);
    let scratch = Scratch::new(layout, places)?;
    let story = Story::begin(script, scratch, Live::new(brand), interrupt)?;
    let (events, lives) = story.play()?;
    let report = Report::new(&script, layout.to_string(), &events, &lives, host);
    hand_out(&args, &report, &lives)?;
    Ok(report.exit())
}

fn hand_out(args: &DemoArgs, report: &Report, lives: &[Life]) -> Result<(), Failure> {
    args.json.hand_out(|| report.to_string(), report)?;
    let robot = lives.iter().find(|life| life.role == Role::Robot);
    let (Some(path), Some(robot)) = (&args.svg, robot) else { return Ok(()) };
    let curves: Vec<_> = table::measured(&robot.panel)
        .into_iter()
        .map(|row| plot::Curve {
            max: Some(row.histogram.max),
            ..plot::Curve::new(row.name, &row.histogram.hdr)
        })
        .collect();
    let title = "A 1 kHz robot driven by signed messages";
    let svg = plot::percentiles(&curves, title, &report.not_real_time).map_err(Failure::machine)?;
    output::write_file(path, svg.as_bytes())
}

/// Why a real-time thread is not one on `core`, if it is not: asked of the kernel by trying.
fn refused_real_time(core: CoreId) -> Result<Option<String>, Failure> {
    let spec =
        ThreadSpec::new("trial").core(core).fifo(Priority::MIN).strictness(Strictness::Report);
    let trial = spawn(spec, || ()).map_err(Failure::machine)?;
    let refused = trial.applied().not_real_time();
    trial.join().map_err(Failure::machine)?;
    Ok(refused)
}
