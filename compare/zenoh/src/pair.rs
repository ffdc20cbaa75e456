//! Both processes of Zenoh, for one measurement.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::child::Running;
use crate::placement::Placement;
use crate::subscribe::{Latency, Line, Throughput};
use crate::{Failure, What};

/// How long a process may take beyond its measurement; less than after which it gives up itself.
const PATIENCE: Duration = Duration::from_secs(18);

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    pub(crate) what: What,
    pub(crate) seconds: u32,
    pub(crate) period_us: u32,
    pub(crate) placement: Placement,
    pub(crate) priority: u8,
    pub(crate) batched: bool,
}

/// Messages delivered, and in which time.
pub(crate) fn throughput(leg: &Leg) -> Result<Throughput, Failure> {
    match measure(leg)? {
        Line::Throughput(found) => Ok(found),
        other => Err(confused(&other)),
    }
}

/// One way, message by message.
pub(crate) fn latency(leg: &Leg) -> Result<Latency, Failure> {
    match measure(leg)? {
        Line::Latency(found) => Ok(found),
        other => Err(confused(&other)),
    }
}

fn confused(line: &Line) -> Failure {
    let mut answer = format!("{line:?}");
    answer.truncate(200);
    Failure::Confused { who: "subscriber", answer }
}

fn measure(leg: &Leg) -> Result<Line, Failure> {
    let endpoint = format!("tcp/127.0.0.1:{}", free_port()?);
    let subscriber = start("subscriber", "subscribe", leg, &endpoint, 1)?;
    let ready = subscriber.line(PATIENCE)?;
    if !matches!(parse(&ready)?, Line::Ready { .. }) {
        return Err(Failure::Confused { who: "subscriber", answer: ready });
    }
    let _publisher = start("publisher", "publish", leg, &endpoint, 0)?;
    let found = subscriber.line(PATIENCE + Duration::from_secs(leg.seconds.into()))?;
    parse(&found)
}

fn parse(line: &str) -> Result<Line, Failure> {
    serde_json::from_str(line).map_err(|error| Failure::Confused {
        who: "subscriber",
        answer: format!("{line}: {error}"),
    })
}

fn start(
    who: &'static str,
    role: &str,
    leg: &Leg,
    endpoint: &str,
    core: usize,
) -> Result<Running, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|source| Failure::System { what: "this program", source })?;
    let mut command = Command::new(program);
    let what = match leg.what {
        What::Throughput => "throughput",
        What::Latency => "latency",
    };
    let (seconds, period_us) = (leg.seconds.to_string(), leg.period_us.to_string());
    command.args([role, what, "--endpoint", endpoint, "--seconds", &seconds]);
    command.args(["--period-us", &period_us]);
    if leg.placement.is_fifo() {
        command.args(["--fifo", &leg.priority.to_string()]);
    }
    if leg.placement.is_pinned() {
        command.args(["--core", &core.to_string()]);
    }
    if leg.batched {
        command.arg("--batched");
    }
    Running::start(who, &mut command, libc::SIGKILL)
}

/// A loopback port that was free a moment ago.
fn free_port() -> Result<u16, Failure> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = bound.map_err(|source| Failure::System { what: "a port", source })?;
    Ok(address.port())
}
