//! Our side: `sinew bench pipeline --reliable`, and what is taken from its report.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::child::Running;
use crate::figures::Quantiles;

/// Figures of the report: messages delivered per second.
const BEST_EFFORT: &str = "messages delivered per second: best effort";
const BEST_EFFORT_AGAIN: &str = "messages delivered per second: best effort again";
const RELIABLE: &str = "messages delivered per second: reliable, in order";
/// The comparison of the report that has the latency of ends that sleep, as Zenoh's do.
const LATENCY: &str = "parked, paced: reliable, in order";

/// What the report measures in the time that it is given, of which each has its share: best effort twice
/// and reliable, saturated, spinning and parked.
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
    figures: Vec<Figure>,
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
    pooled: Quantiles,
}

#[derive(Debug, Deserialize)]
struct Figure {
    name: String,
    value: f64,
}

fn read(json: &str) -> Result<Ours, String> {
    let document: Document = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if document.version != 1 || document.interrupted {
        return Err("the report is of another version, or was cut short".to_owned());
    }
    let figure = |name: &str| {
        let found = document.figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.value).ok_or(format!("the report has no figure `{name}`"))
    };
    let compared = document.compared.iter().find(|compared| compared.name == LATENCY);
    let compared = compared.ok_or(format!("the report has no comparison `{LATENCY}`"))?;
    Ok(Ours {
        best_effort_per_s: figure(BEST_EFFORT)?,
        best_effort_again_per_s: figure(BEST_EFFORT_AGAIN)?,
        reliable_per_s: figure(RELIABLE)?,
        best_effort: compared.base.pooled,
        best_effort_again: compared.control.pooled,
        reliable: compared.subject.pooled,
        build: document.program.build,
        not_real_time: document.not_real_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rename: &str) -> String {
        let side = |p99: u32| {
            serde_json::json!({ "name": "side", "pooled": { "count": 5, "p50_ns": 1.5, "p99_ns": p99,
                "p999_ns": 3.0, "max_ns": 4.0, "mean_ns": 0.0 } })
        };
        let figures = [(BEST_EFFORT, 10.0), (BEST_EFFORT_AGAIN, 11.0), (RELIABLE, 9.0)];
        let figures = figures.map(|(name, value)| {
            serde_json::json!({ "name": name, "value": value, "unit": "per second" })
        });
        let whole = serde_json::json!({ "version": 1, "interrupted": false, "not_real_time": ["why"],
            "program": { "version": "0.1.0", "build": "debug" }, "figures": figures, "host": {},
            "compared": [{ "name": LATENCY, "base": side(20), "subject": side(21), "control": side(22) }]
        });
        whole.to_string().replacen(rename, "another", 1)
    }

    #[test]
    fn rates_and_latencies_are_found_by_their_names() {
        let ours = read(&report("nothing")).unwrap();
        assert_eq!((ours.best_effort_per_s, ours.best_effort_again_per_s), (10.0, 11.0));
        assert_eq!((ours.reliable_per_s, ours.build.as_str()), (9.0, "debug"));
        let p99 = [ours.best_effort, ours.reliable, ours.best_effort_again].map(|side| side.p99_ns);
        assert_eq!(p99, [20.0, 21.0, 22.0]);
    }

    #[test]
    fn a_report_without_one_of_them_is_refused_by_name() {
        for name in [BEST_EFFORT_AGAIN, RELIABLE, LATENCY] {
            let refused = read(&report(name)).unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
        assert!(read(&report("\"interrupted\":false")).is_err());
        assert!(read("{").is_err());
    }
}
