//! `sinew bench pipeline`: what a message costs from one process to another over real sockets, beside
//! plain programs that do the same.
//!
//! Two children of this program, each on its own core, take turns in being a plain UDP program and a
//! node. Everything that spins does so in bursts.

mod agent;
mod bare;
mod batch;
mod crew;
mod crypto;
mod flood;
mod flooder;
mod idle;
mod latency;
mod load;
mod mesh;
mod order;
mod recording;
mod reliable;
mod saturated;
mod schedule;
mod throughput;
mod turns;

use sinew_rt::topology::{CoreId, Topology};

use std::path::PathBuf;

use super::forms::{Forms, Only};
use super::load::LoadArgs;
use super::report::{OutputArgs, Run};
use crate::exit::{Failure, Outcome};
use order::Role;
use schedule::Stall;

/// One-way latency between two processes over loopback UDP, against plain programs
///
/// Paced: one message a period, whatever became of earlier ones (an open loop); latency is counted
/// from just before the send, and shown from the scheduled time too. Back-to-back: a ping-pong, of
/// which the way there is counted. The plain programs and the nodes run on the same cores at the
/// same priority, in alternation; the plain program also runs against itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench pipeline --quick                 a look at everything in half a minute; judges nothing
  sinew bench pipeline --park --paced          100,000 messages a side at 1 kHz, both ends parked
  sinew bench pipeline --spin --back-to-back   ping-pong between two spinning cores, in bursts
  sinew bench pipeline --park --paced --open --rate-hz 500 --seconds 20
  sinew bench pipeline --park --paced --open --quick --stall-ms 50     who waits behind a stall
  sinew bench pipeline --throughput            signatures checked per second by one lane
  sinew bench pipeline --reliable              what a reliable topic costs beside best effort
  sinew bench pipeline --flood                 a 1 kHz signed stream under forged frames
  sinew bench pipeline --idle --seconds 30     what a node costs that has nothing to do")]
pub(crate) struct PipelineArgs {
    /// Only spinning waits
    #[arg(long)]
    pub(crate) spin: bool,
    /// Only parked waits
    #[arg(long)]
    pub(crate) park: bool,
    /// Only messages at scheduled times
    #[arg(long)]
    pub(crate) paced: bool,
    /// Only the ping-pong
    #[arg(long)]
    pub(crate) back_to_back: bool,
    /// Only messages without signatures
    #[arg(long)]
    pub(crate) open: bool,
    /// Distances between scheduled messages in µs, used in turn: a period of exactly 1,000 µs alone
    /// would beat with a host's own tick. Of paced messages, --reliable and --flood
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 997, 1_013],
          value_parser = clap::value_parser!(i64).range(1..=100_000))]
    pub(crate) period_us: Vec<i64>,
    /// Scheduled messages per second, instead of --period-us; says so when they do not get away
    #[arg(long, conflicts_with = "period_us",
          value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    rate_hz: Option<u32>,
    /// Messages to pool on each judged side; fewer than 100,000 are shown and not judged
    #[arg(long, default_value_t = 100_000)]
    pub(crate) samples: u64,
    /// One short round of everything: judges nothing
    #[arg(long, conflicts_with_all = ["samples", "seconds"])]
    pub(crate) quick: bool,
    /// Measure for so long instead, in seconds, shared by all waits and paces; with --idle 30 of
    /// them are the default
    #[arg(short, long, conflicts_with = "samples",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// Let the receiver do nothing for so many ms, once a leg: the report shows every message that
    /// waited meanwhile, and for how long
    #[arg(long, conflicts_with_all = ["back_to_back", "throughput", "reliable", "flood", "idle"],
          value_parser = clap::value_parser!(u32).range(1..=200))]
    stall_ms: Option<u32>,
    /// When the stall begins, in ms after the start of a leg
    #[arg(long, default_value_t = 100, requires = "stall_ms",
          value_parser = clap::value_parser!(u32).range(30..=300))]
    stall_at_ms: u32,
    /// Cores of the sending process, by default the first real-time core
    #[arg(long, value_delimiter = ',', value_parser = core)]
    pub(crate) sender_cores: Vec<CoreId>,
    /// Cores of the receiving process, by default the second real-time core
    #[arg(long, value_delimiter = ',', value_parser = core)]
    pub(crate) receiver_cores: Vec<CoreId>,
    /// SCHED_FIFO priority of all measuring threads
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    pub(crate) priority: u8,
    /// Signed messages per second of one verify lane, against a bare loop of strict checks
    #[arg(long, conflicts_with_all = ["reliable", "flood", "idle"])]
    throughput: bool,
    /// A stream, reliable and in order, beside a best-effort queue: messages as fast as the sender
    /// can, and paced
    #[arg(long, conflicts_with_all = ["flood", "idle"])]
    reliable: bool,
    /// A signed 1 kHz stream while frames with the sender's name and a forged signature flood the
    /// receiver from another address, against an equal flood of plain garbage
    #[arg(long, conflicts_with = "idle")]
    flood: bool,
    /// What a node costs that has nothing to do
    #[arg(long)]
    idle: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[arg(long, hide = true)]
    agent: Option<Role>,
    #[arg(long, hide = true, requires = "agent", value_delimiter = ',', value_parser = core)]
    agent_cores: Vec<CoreId>,
    #[arg(long, hide = true, requires = "agent")]
    panel_dir: Option<PathBuf>,
}

impl Forms for PipelineArgs {
    fn only(&self) -> Vec<Only> {
        let latency = !(self.throughput || self.reliable || self.flood || self.idle);
        let paced = latency && (self.paced || !self.back_to_back);
        vec![
            Only {
                asked: latency,
                options: &["spin", "park", "paced", "back_to_back", "open"],
                forms: "one-way latency, the form without --throughput, --reliable, --flood and --idle",
            },
            Only {
                asked: paced || self.reliable || self.flood,
                options: &["period_us", "rate_hz"],
                forms: "paced messages, --reliable and --flood",
            },
            Only {
                asked: !self.idle,
                options: &["samples", "quick", "priority", "sender_cores"],
                forms: "every form but --idle, which has --seconds and --receiver-cores",
            },
        ]
    }
}

impl PipelineArgs {
    /// Whether this process was started by another one to take part in its measurement.
    pub(crate) fn is_child(&self) -> bool {
        self.agent.is_some()
    }

    /// From one scheduled message to the next in round `round`.
    fn period_ns(&self, round: usize) -> i64 {
        match self.rate_hz {
            Some(rate) => 1_000_000_000 / i64::from(rate),
            None => self.period_us[round % self.period_us.len()] * 1_000,
        }
    }

    /// How long to measure, if that was said.
    fn seconds(&self) -> Option<f64> {
        self.seconds.map(f64::from)
    }

    fn stall(&self) -> Option<Stall> {
        let ns = |ms: u32| i64::from(ms) * 1_000_000;
        self.stall_ms.map(|ms| Stall { after_ns: ns(self.stall_at_ms), for_ns: ns(ms) })
    }

    /// Whether something in the run spins.
    fn spins(&self) -> bool {
        let only_parks = self.park && !self.spin;
        !self.idle && (self.throughput || self.reliable || self.flood || !only_parks)
    }
}

fn core(text: &str) -> Result<CoreId, String> {
    text.parse::<u16>().map(CoreId::new).map_err(|_| format!("`{text}` is not a core's number"))
}

/// Runs the benchmark, or one of its children.
pub(crate) fn run(args: &PipelineArgs) -> Outcome {
    if let Some(role) = args.agent {
        let Some(panels) = &args.panel_dir else {
            return Err(Failure::usage("--agent needs --panel-dir"));
        };
        return agent::run(role, &args.agent_cores, panels);
    }
    Cores::choose(args)?;
    let mut run = Run::start(&args.output)?;
    measure(args, &mut run)?;
    run.finish(&args.output)
}

/// Measures what was asked for and adds it to the report.
pub(crate) fn measure(args: &PipelineArgs, run: &mut Run) -> Result<(), Failure> {
    let cores = Cores::choose(args)?;
    args.load.idle_and_loaded(run, |run| match args {
        PipelineArgs { idle: true, .. } => idle::measure(args, &cores, run),
        PipelineArgs { throughput: true, .. } => throughput::measure(args, &cores, run),
        PipelineArgs { reliable: true, .. } => reliable::measure(args, &cores, run),
        PipelineArgs { flood: true, .. } => flood::measure(args, &cores, run),
        _ => latency::measure(args, &cores, run),
    })
}

/// Where the two processes run.
#[derive(Clone, Debug)]
struct Cores {
    sender: Vec<CoreId>,
    receiver: Vec<CoreId>,
}

impl Cores {
    /// Two different cores, unless the user says otherwise or there is only one.
    fn choose(args: &PipelineArgs) -> Result<Self, Failure> {
        let topology = Topology::read().map_err(Failure::machine)?;
        let cores = super::measuring_cores(&topology);
        let Some(receiver) = cores.first() else {
            return Err(Failure::machine("this process may use no core"));
        };
        let sender = cores.get(1).unwrap_or(receiver);
        let asked = |asked: &[CoreId], default: CoreId| match asked {
            [] => vec![default],
            cores => cores.to_vec(),
        };
        let cores = Self {
            sender: asked(&args.sender_cores, *sender),
            receiver: asked(&args.receiver_cores, *receiver),
        };
        let usable = topology.usable_cores();
        if let Some(core) =
            cores.sender.iter().chain(&cores.receiver).find(|core| !usable.contains(**core))
        {
            return Err(Failure::usage(format!(
                "core {core} does not exist, or this process may not use it; it may use {usable}"
            )));
        }
        let shared = cores.sender.iter().find(|core| cores.receiver.contains(core));
        if let (Some(core), true) = (shared, args.spins()) {
            return Err(Failure::usage(format!(
                "sender and receiver are both on core {core}, where one would spin while the other \
                 waits for it; give each its own with --sender-cores and --receiver-cores"
            )));
        }
        Ok(cores)
    }
}
