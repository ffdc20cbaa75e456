//! The nodes that the relay itself started, so that a scenario may kill and stall them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sinew_rt::clock::{self, Nanos};

use crate::scenario::{FaultKind, Node, NodeIndex, Scenario};

/// How long a node may take to end in good order.
const PATIENCE: Nanos = Nanos::from_secs(3);

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// One for each node of the scenario.
pub(super) struct Children(Vec<Slot>);

struct Slot {
    name: String,
    run: Vec<String>,
    child: Option<Child>,
}

impl Children {
    /// Starts every node that has something to run.
    pub(super) fn start(scenario: &Scenario) -> io::Result<Self> {
        let slot =
            |node: &Node| Slot { name: node.name.clone(), run: node.run.clone(), child: None };
        let mut children = Self(scenario.nodes.iter().map(slot).collect());
        children.0.iter_mut().try_for_each(Slot::start)?;
        Ok(children)
    }

    /// Does to a node what a fault says. Whether that was possible: nobody else's process is touched.
    pub(super) fn apply(&mut self, kind: FaultKind, begins: bool) -> io::Result<bool> {
        let (FaultKind::Kill { node, .. } | FaultKind::Stall { node, .. }) = kind else {
            return Ok(true);
        };
        let Some(slot) = self.slot(node).filter(|slot| !slot.run.is_empty()) else {
            return Ok(false);
        };
        match (kind, begins) {
            (FaultKind::Kill { .. }, true) => slot.kill(),
            (FaultKind::Kill { .. }, false) => slot.start()?,
            (_, true) => slot.signal(libc::SIGSTOP),
            (_, false) => slot.signal(libc::SIGCONT),
        }
        Ok(true)
    }

    fn slot(&mut self, node: NodeIndex) -> Option<&mut Slot> {
        self.0.get_mut(node.get())
    }

    /// The names of nodes that ended although nobody asked them to.
    pub(super) fn gone(&mut self) -> Vec<String> {
        self.0.iter_mut().filter_map(Slot::gone).collect()
    }
}

impl Slot {
    fn start(&mut self) -> io::Result<()> {
        let (Some((program, arguments)), None) = (self.run.split_first(), &self.child) else {
            return Ok(());
        };
        let spawned = Command::new(program)
            .args(arguments)
            // Ctrl-C on the terminal is for the relay, which ends its nodes in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let child = spawned.map_err(|error| {
            let what = format!("cannot start {program} for the node {}: {error}", self.name);
            io::Error::new(error.kind(), what)
        })?;
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has been waited for, and this one has not.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: libc::c_int) {
        let Some(pid) = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) else {
            return;
        };
        // SAFETY: no pointers. The process is our child and has not been waited for, so the number
        // is still its own.
        let _ = unsafe { libc::kill(pid, signal) };
    }

    fn gone(&mut self) -> Option<String> {
        let ended = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(format!("{} ({ended})", self.name))
    }

    /// Ends the node in good order, or else by force.
    fn end(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGTERM);
        let give_up = clock::now() + PATIENCE;
        while let Some(child) = &mut self.child
            && clock::now() < give_up
        {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => self.child = None,
            }
        }
        self.kill();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Slot::end);
    }
}
