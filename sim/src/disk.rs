//! The disk of a node: what was written, what was synced, and what a crash leaves of the difference.
//!
//! It holds the boot counter the way the node keeps it: a new file is written beside the old one, synced,
//! renamed over it, and the directory is synced. A crash may come between any two of these steps. What is not
//! synced then is there, or is not, or is there in part.

use sinew_io::security::boot::BootCounter;

use crate::random::Random;

/// One file with what may still become of it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The file as a crash leaves it for certain; empty before the first write.
    durable: Vec<u8>,
    /// A new file beside it, and whether its bytes are synced.
    beside: Option<(Vec<u8>, bool)>,
    /// Whether the new file was renamed over the old one without a sync of the directory since.
    renamed: bool,
}

/// A step of replacing the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Write the new file beside the old one.
    Write,
    /// Sync it.
    Sync,
    /// Rename it over the old one.
    Rename,
    /// Sync the directory.
    SyncDirectory,
}

/// The steps in their order.
pub const STEPS: &[Step] = &[Step::Write, Step::Sync, Step::Rename, Step::SyncDirectory];

/// Why a node could not take its next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The file is not a boot counter.
    #[error("the boot counter on the disk is damaged")]
    Corrupt,
    /// The node was killed on the way.
    #[error("killed while the boot counter was written")]
    Killed,
}

impl Disk {
    /// Raises the boot counter: the epoch of the life that begins. `killed_after` so many steps the node dies;
    /// the caller then lets the disk [`crash`](Self::crash). Without `syncs` the node forgets to.
    ///
    /// # Errors
    /// A damaged file, or the death of the node.
    pub fn advance(&mut self, killed_after: Option<usize>, syncs: bool) -> Result<u64, DiskError> {
        let current = match self.read() {
            [] => BootCounter::new(sinew_io::wire::Epoch::new(0)),
            text => BootCounter::parse(text).ok_or(DiskError::Corrupt)?,
        };
        let next = current.next().ok_or(DiskError::Corrupt)?;
        for (done, step) in STEPS.iter().enumerate() {
            if killed_after == Some(done) {
                return Err(DiskError::Killed);
            }
            match step {
                Step::Write => self.beside = Some((next.format().into_bytes(), false)),
                Step::Sync if syncs => {
                    if let Some((_, synced)) = &mut self.beside {
                        *synced = true;
                    }
                }
                Step::Rename => self.renamed = true,
                Step::SyncDirectory if syncs => self.settle(),
                Step::Sync | Step::SyncDirectory => {}
            }
        }
        Ok(next.epoch().get())
    }

    /// What a program that runs sees.
    fn read(&self) -> &[u8] {
        match &self.beside {
            Some((bytes, _)) if self.renamed => bytes,
            _ => &self.durable,
        }
    }

    fn settle(&mut self) {
        if let (Some((bytes, _)), true) = (self.beside.take(), self.renamed) {
            self.durable = bytes;
        }
        self.renamed = false;
    }

    /// Somebody puts a disk into the node on which the next epoch is `epoch`.
    pub fn replace(&mut self, epoch: u64) {
        let counter = BootCounter::new(sinew_io::wire::Epoch::new(epoch.saturating_sub(1)));
        *self = Self::default();
        if epoch > 1 {
            self.durable = counter.format().into_bytes();
        }
    }

    /// The power fails: what was not synced is lost, torn, or there after all.
    pub fn crash(&mut self, random: &mut Random) {
        let Some((mut bytes, synced)) = self.beside.take() else { return };
        let reached = self.renamed && random.chance(500_000);
        self.renamed = false;
        if reached {
            if !synced {
                let left = random.index(bytes.len() + 1);
                bytes.truncate(left);
            }
            self.durable = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow_whatever_step_a_crash_comes_after() {
        let mut random = Random::new(1, 1);
        let mut disk = Disk::default();
        let mut last = 0;
        for round in 0..5_000 {
            let killed_after = (round % 3 != 0).then(|| random.index(STEPS.len()));
            match disk.advance(killed_after, true) {
                Ok(epoch) => {
                    assert!(epoch > last, "{epoch} after {last}");
                    last = epoch;
                }
                Err(error) => assert_eq!(error, DiskError::Killed),
            }
            disk.crash(&mut random);
        }
        assert!(last > 1_000);
    }

    #[test]
    fn without_syncs_a_crash_brings_an_epoch_back_or_damages_the_file() {
        let mut random = Random::new(2, 2);
        let (mut again, mut damaged) = (0, 0);
        for _ in 0..200 {
            let mut disk = Disk::default();
            let first = disk.advance(None, false).unwrap();
            disk.crash(&mut random);
            match disk.advance(None, false) {
                Ok(epoch) if epoch <= first => again += 1,
                Ok(_) => {}
                Err(_) => damaged += 1,
            }
        }
        assert!(again > 20 && damaged > 20, "{again} {damaged}");
    }
}
