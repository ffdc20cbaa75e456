//! Which panels are on this machine, which one the user means, and what became of its writer.

mod difference;

use std::fmt;
use std::path::{Path, PathBuf};

use sinew_rt::clock::{self, Nanos};
use sinew_rt::panel::{Listed, PanelReader, PanelSnapshot, State, default_dir};

use crate::exit::Failure;

pub(crate) use difference::{NoDifference, difference};

/// Explains `--panel-dir` the same way in every subcommand.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct PanelDir {
    /// Directory of the panels [default: /dev/shm/sinew for root, /dev/shm/sinew-UID for others]
    #[arg(long, value_name = "DIR")]
    panel_dir: Option<PathBuf>,
}

/// Housekeeping shows itself fifty times a second; silent for this long, it hangs or is starved.
pub(crate) const SILENCE: Nanos = Nanos::from_secs(2);

const SHARED_MEMORY: &str = "/dev/shm";
const CRASHED: &str = ".crashed.panel";

impl PanelDir {
    /// The directory that was asked for.
    pub(crate) fn given(&self) -> Option<&Path> {
        self.panel_dir.as_deref()
    }

    /// The directories to look in: this user's first, then those of other users.
    fn all(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.panel_dir {
            return vec![dir.clone()];
        }
        let own = default_dir();
        let named_like_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_dir() && (name == "sinew" || name.starts_with("sinew-")) && *path != own
        };
        let others = std::fs::read_dir(SHARED_MEMORY).into_iter().flatten();
        let mut others: Vec<_> =
            others.flatten().map(|entry| entry.path()).filter(named_like_ours).collect();
        others.sort();
        others.insert(0, own);
        others
    }

    /// All panels, and the directories that this user may not list.
    pub(crate) fn list(&self) -> (Vec<Listed>, Vec<Closed>) {
        let (mut panels, mut closed) = (Vec::new(), Vec::new());
        for dir in self.all() {
            match PanelReader::list(&dir) {
                Ok(listed) => panels.extend(listed),
                Err(error) => {
                    closed.push(Closed { why: in_one_line(&dir, &error.to_string()), dir })
                }
            }
        }
        (panels, closed)
    }

    /// Whether `path` is where this user's panels are, or where they were said to be; otherwise it
    /// is another user's.
    pub(crate) fn is_own(&self, path: &Path) -> bool {
        self.panel_dir.is_some() || path.starts_with(default_dir())
    }

    /// The panel that `wanted` names: a path, or the name of a node whose panel may be one of a
    /// crash.
    pub(crate) fn find(&self, wanted: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(wanted);
        if is_path(wanted) {
            return Ok(path.to_owned());
        }
        let (panels, closed) = self.list();
        for suffix in [".panel", CRASHED] {
            let file_name = format!("{wanted}{suffix}");
            let named = |panel: &&Listed| panel.path.file_name() == Some(file_name.as_ref());
            if let Some(panel) = panels.iter().find(named) {
                return Ok(panel.path.clone());
            }
        }
        // A copy may have any name.
        if path.is_file() {
            return Ok(path.to_owned());
        }
        let mut names: Vec<_> = panels.iter().map(|panel| name_of(&panel.path)).collect();
        names.sort();
        names.dedup();
        let dirs: Vec<_> = self.all().iter().map(|dir| dir.display().to_string()).collect();
        let there = match names.as_slice() {
            [] => "there is none".to_owned(),
            names => format!("there is {}", names.join(", ")),
        };
        let more = closed.first().map_or_else(String::new, |closed| format!(" ({})", closed.why));
        Err(Failure::machine(format!(
            "no panel of `{wanted}` in {}: {there}{more}; give one of them or the path of a panel",
            dirs.join(", ")
        )))
    }
}

/// Whether what the user wants is a file, and no node's name.
pub(crate) fn is_path(wanted: &str) -> bool {
    wanted.contains('/') || (wanted.ends_with(".panel") && Path::new(wanted).exists())
}

/// A directory that this user may not list.
pub(crate) struct Closed {
    pub(crate) dir: PathBuf,
    /// With the directory's path.
    pub(crate) why: String,
}

/// The node's name in the path of its panel.
pub(crate) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(CRASHED).or_else(|| name.strip_suffix(".panel"));
    name.map_or_else(|| path.display().to_string(), str::to_owned)
}

/// A panel that is open for reading; nothing in it, and nothing about its writer, is changed.
pub(crate) struct OpenPanel {
    reader: PanelReader,
}

/// What one look at a panel showed.
pub(crate) struct Look {
    pub(crate) path: PathBuf,
    pub(crate) snapshot: PanelSnapshot,
    pub(crate) life: Life,
    /// What the counts and distributions cover, where that is not the whole life.
    pub(crate) interval: Option<Interval>,
}

/// A part of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// In CLOCK_MONOTONIC.
    pub(crate) from: Nanos,
    pub(crate) length: Nanos,
}

impl OpenPanel {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let reader = PanelReader::open(path)
            .map_err(|error| Failure::machine(in_one_line(path, &error.to_string())))?;
        Ok(Self { reader })
    }

    pub(crate) fn look(&self) -> Result<Look, Failure> {
        let path = self.reader.path();
        let snapshot = self
            .reader
            .snapshot()
            .map_err(|error| Failure::machine(in_one_line(path, &error.to_string())))?;
        let crashed = path.to_string_lossy().ends_with(CRASHED);
        let life = Life::of(crashed, snapshot.is_alive(), snapshot.state);
        Ok(Look { path: path.to_owned(), snapshot, life, interval: None })
    }
}

/// The panel's errors name the file only where the system refused.
pub(crate) fn in_one_line(path: &Path, error: &str) -> String {
    let path = path.display().to_string();
    if error.contains(&path) { error.to_owned() } else { format!("{path}: {error}") }
}

impl Look {
    /// For how long the process has run; of one that is gone, and of a copy, until its last sign of
    /// life.
    pub(crate) fn uptime(&self) -> Nanos {
        let until = match self.life {
            Life::Runs(_) if self.silence().is_none() => self.snapshot.taken_at,
            _ => self.last_sign(),
        };
        (until - self.snapshot.started_at).max(Nanos::ZERO)
    }

    /// The newest instant that anything on the panel names.
    pub(crate) fn last_sign(&self) -> Nanos {
        let snapshot = &self.snapshot;
        let signs = snapshot.heartbeat_at.into_iter();
        let signs = signs.chain(snapshot.histograms.iter().filter_map(|h| h.max_at));
        let signs = signs.chain(snapshot.trips.iter().map(|trip| trip.at));
        let signs = signs.chain(snapshot.probes.iter().filter_map(|p| p.entered_at));
        signs.max().unwrap_or(snapshot.started_at)
    }

    /// For how long housekeeping of a process that runs has not shown itself, where that is long.
    pub(crate) fn silence(&self) -> Option<Nanos> {
        let since = self.snapshot.heartbeat_at.filter(|_| self.life.runs())?;
        Some(self.snapshot.taken_at - since).filter(|silence| *silence > SILENCE)
    }

    /// What came since `before`, an earlier look at the same panel.
    pub(crate) fn watched_since(&self, before: &Self) -> Result<Self, Failure> {
        let (from, until) = (before.snapshot.taken_at, self.snapshot.taken_at);
        self.since(before, from, until).map_err(Failure::machine)
    }

    /// What came between two recordings of one process. When they were made is known by what they
    /// show: to 20 ms where housekeeping runs.
    pub(crate) fn recorded_since(&self, before: &Self) -> Result<Self, Failure> {
        self.since(before, before.last_sign(), self.last_sign()).map_err(|error| {
            let (a, b) = (before.path.display(), self.path.display());
            Failure::usage(format!("{a} and {b} have no difference: {error}"))
        })
    }

    fn since(&self, before: &Self, from: Nanos, until: Nanos) -> Result<Self, NoDifference> {
        let snapshot = difference(&before.snapshot, &self.snapshot)?;
        let interval = Some(Interval { from, length: (until - from).max(Nanos::ZERO) });
        Ok(Self { path: self.path.clone(), snapshot, life: self.life, interval })
    }

    /// `robot · running (process 1234, up 12.3 s)`
    pub(crate) fn headline(&self) -> String {
        let process = self.snapshot.process.pid;
        let life = self.life;
        let since = match life {
            Life::Runs(_) => format!("process {process}, up {}", self.uptime()),
            _ => format!("process {process}, started {}", self.age()),
        };
        let silent = self.silence().map_or_else(String::new, |silence| {
            format!(", silent for {}: it hangs, or this is a copy", coarse(silence))
        });
        let interval = self.interval.map_or_else(String::new, |Interval { from, length }| {
            let after = (from - self.snapshot.started_at).max(Nanos::ZERO);
            format!(" · {length} from {after} after the start")
        });
        format!("{} · {life} ({since}{silent}){interval}", self.snapshot.name)
    }

    fn age(&self) -> String {
        let ago = clock::wall() - self.snapshot.started_at_wall;
        format!("{} ago", coarse(ago))
    }
}

/// A span of more than a second without its fractions.
pub(crate) fn coarse(span: Nanos) -> String {
    let seconds = span.as_nanos() / 1_000_000_000;
    match seconds {
        ..1 => span.to_string(),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// What became of the process that writes a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs, and says this.
    Runs(State),
    /// It ended as asked.
    Ended,
    /// It ended otherwise, or said that it failed.
    Failed,
    /// It is gone without having said so: killed, or crashed.
    Killed,
}

impl Life {
    fn of(crashed: bool, alive: bool, state: State) -> Self {
        match (alive, state) {
            (_, State::Failed) => Self::Failed,
            (_, State::Stopped) => Self::Ended,
            (true, state) if !crashed => Self::Runs(state),
            _ => Self::Killed,
        }
    }

    pub(crate) fn runs(self) -> bool {
        matches!(self, Self::Runs(_))
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(state) => state.fmt(f),
            Self::Ended => f.write_str("stopped"),
            Self::Failed => f.write_str("failed"),
            Self::Killed => f.write_str("killed or crashed, these are its last figures"),
        }
    }
}

impl Life {
    /// The word in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Runs(State::Starting) => "starting",
            Self::Runs(State::Draining) => "draining",
            Self::Runs(_) => "running",
            Self::Ended => "stopped",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_gone_is_not_running_whatever_its_panel_says() {
        use State::{Draining, Failed, Running, Starting, Stopped};
        for state in [Starting, Running, Draining] {
            assert_eq!(Life::of(false, true, state), Life::Runs(state));
            assert_eq!(Life::of(false, false, state), Life::Killed);
            assert_eq!(Life::of(true, true, state), Life::Killed, "kept as evidence");
        }
        for alive in [false, true] {
            assert_eq!(Life::of(false, alive, Failed), Life::Failed);
            assert_eq!(Life::of(false, alive, Stopped), Life::Ended);
        }
    }

    #[test]
    fn the_name_of_a_node_is_in_its_panels_path() {
        assert_eq!(name_of(Path::new("/dev/shm/sinew/robot.panel")), "robot");
        assert_eq!(name_of(Path::new("robot.crashed.panel")), "robot");
        assert_eq!(name_of(Path::new("/tmp/kept")), "/tmp/kept");
    }
}
