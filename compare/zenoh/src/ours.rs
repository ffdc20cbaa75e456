//! Our side: `sinew bench pipeline --reliable`, and what is taken from its report.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::child::Running;
use crate::figures::Quantiles;

/// The comparison of the report that has the throughput.
const THROUGHPUT: &str = "spinning, saturated: time per delivered message";
/// The one that has the latency of ends that sleep, as Zenoh's do.
const LATENCY: &str = "parked, paced: one way";

/// What shares the time of a run: best effort twice and reliable; saturated, paced and parked, paced and
/// spinning.
const PARTS: u32 = 9;
/// How much longer than asked for a run may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The `sinew` that is measured.
pub(crate) struct Sinew {
    path: PathBuf,
    /// As it says itself.
    pub(crate) version: String,
}

/// What one run of it found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ours {
    /// `release` or `debug`.
    pub(crate) build: String,
    /// Delivered per second, while published as fast as possible.
    pub(crate) best_effort_per_s: f64,
    /// The control.
    pub(crate) best_effort_again_per_s: f64,
    pub(crate) reliable_per_s: f64,
    /// One way, at 1 kHz.
    pub(crate) best_effort: Quantiles,
    /// The control.
    pub(crate) best_effort_again: Quantiles,
    pub(crate) reliable: Quantiles,
    /// Why its figures are not real-time figures; empty when they are.
    pub(crate) not_real_time: Vec<String>,
}

impl Sinew {
    /// Asks the program for its version.
    pub(crate) fn find(path: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(path);
        let child = Running::start("sinew", command.arg("--version"), libc::SIGKILL);
        let told = child.and_then(|child| child.end(Duration::from_secs(10)));
        match told {
            Ok((version, Some(0))) => {
                Ok(Self { path: path.to_owned(), version: version.trim().to_owned() })
            }
            Ok(_) => Err(failed(path, "it does not say its version".to_owned())),
            Err(error) => Err(failed(path, error.to_string())),
        }
    }

    /// Measures both of its paths in turn, `seconds` each.
    pub(crate) fn measure(&self, seconds: u32, priority: u8) -> Result<Ours, Failure> {
        let (total, priority) = ((seconds * PARTS).to_string(), priority.to_string());
        let mut command = Command::new(&self.path);
        command.args(["bench", "pipeline", "--reliable", "--seconds", &total]);
        command.args(["--priority", &priority, "--json", "-"]);
        let within = Duration::from_secs((seconds * PARTS * 2).into()) + PATIENCE;
        // Asked to end rather than killed: it ends its own children.
        let child = Running::start("sinew", &mut command, libc::SIGTERM)?;
        let (json, code) = child.end(within)?;
        read(&json).map_err(|why| failed(&self.path, format!("exit code {code:?}: {why}")))
    }
}

fn failed(path: &Path, why: String) -> Failure {
    Failure::Sinew { path: path.to_owned(), why }
}

/// The fields of the report (`docs/report.md`) that are needed here.
#[derive(Debug, Deserialize)]
struct Document {
    version: u32,
    program: Program,
    not_real_time: Vec<String>,
    interrupted: bool,
    compared: Vec<Compared>,
}

#[derive(Debug, Deserialize)]
struct Program {
    build: String,
}

#[derive(Debug, Deserialize)]
struct Compared {
    name: String,
    base: Side,
    subject: Side,
    control: Side,
}

#[derive(Debug, Deserialize)]
struct Side {
    pooled: Pooled,
}

#[derive(Debug, Deserialize)]
struct Pooled {
    /// Per operation, pauses of the host included.
    mean_ns: f64,
    #[serde(flatten)]
    quantiles: Quantiles,
}

impl Side {
    fn per_s(&self) -> f64 {
        1e9 / self.pooled.mean_ns
    }
}

fn read(json: &str) -> Result<Ours, String> {
    let document: Document = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if document.version != 1 || document.interrupted {
        return Err("the report is of another version, or was cut short".to_owned());
    }
    let compared = |name: &str| {
        let found = document.compared.iter().find(|compared| compared.name == name);
        found.ok_or(format!("the report has no comparison `{name}`"))
    };
    let (throughput, latency) = (compared(THROUGHPUT)?, compared(LATENCY)?);
    Ok(Ours {
        best_effort_per_s: throughput.base.per_s(),
        best_effort_again_per_s: throughput.control.per_s(),
        reliable_per_s: throughput.subject.per_s(),
        best_effort: latency.base.pooled.quantiles,
        best_effort_again: latency.control.pooled.quantiles,
        reliable: latency.subject.pooled.quantiles,
        build: document.program.build,
        not_real_time: document.not_real_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rename: &str) -> String {
        let side = |mean: f64, p99: u32| {
            serde_json::json!({ "name": "side", "pooled": { "count": 5, "p50_ns": 1.5, "p99_ns": p99,
                "p999_ns": 3.0, "max_ns": 4.0, "mean_ns": mean } })
        };
        let throughput = serde_json::json!({ "name": THROUGHPUT, "base": side(100.0, 0),
            "subject": side(125.0, 0), "control": side(200.0, 0) });
        let latency = serde_json::json!({ "name": LATENCY, "base": side(0.0, 20),
            "subject": side(0.0, 21), "control": side(0.0, 22) });
        let whole = serde_json::json!({ "version": 1, "interrupted": false, "not_real_time": ["why"],
            "program": { "version": "0.1.0", "build": "debug" }, "host": {},
            "compared": [latency, throughput] });
        whole.to_string().replacen(rename, "another", 1)
    }

    #[test]
    fn rates_and_latencies_are_found_by_their_names() {
        let ours = read(&report("nothing")).unwrap();
        assert_eq!((ours.best_effort_per_s, ours.best_effort_again_per_s), (1e7, 5e6));
        assert_eq!((ours.reliable_per_s, ours.build.as_str()), (8e6, "debug"));
        let p99 = [ours.best_effort, ours.reliable, ours.best_effort_again].map(|side| side.p99_ns);
        assert_eq!(p99, [20.0, 21.0, 22.0]);
    }

    #[test]
    fn a_report_without_one_of_them_is_refused_by_name() {
        for name in [THROUGHPUT, LATENCY] {
            let refused = read(&report(name)).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
        assert!(read(&report("\"interrupted\":false")).is_err());
        assert!(read("{").is_err());
    }
}
