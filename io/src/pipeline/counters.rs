//! What became of frames that were not delivered, by reason and source, in the panel.

use crate::delivery::DropReason;
use crate::security::PeerIndex;
use sinew_rt::panel::{Counter, Panel, PanelError};

/// The drop counters of one stage: one for each reason that the stage can have and each source.
#[derive(Debug)]
pub(crate) struct Drops {
    reasons: &'static [DropReason],
    /// For each source (the strangers first, then the peers) one counter for each reason.
    counters: Vec<Vec<Counter>>,
}

impl Drops {
    /// Registers `STAGE.drop.REASON@SOURCE` for every reason and source.
    pub(crate) fn register(
        panel: &Panel,
        stage: &str,
        reasons: &'static [DropReason],
        peers: &[String],
    ) -> Result<Self, PanelError> {
        let sources = std::iter::once(STRANGER).chain(peers.iter().map(String::as_str));
        let counters = sources
            .map(|source| {
                let name =
                    |reason: &DropReason| format!("{stage}.drop.{}@{source}", reason.as_str());
                reasons.iter().map(|reason| panel.counter(&name(reason))).collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { reasons, counters })
    }

    /// Counts one dropped frame. Wait-free.
    pub(crate) fn count(&self, source: Option<PeerIndex>, reason: DropReason) {
        self.add(source, reason, 1);
    }

    /// Counts several frames dropped for one reason.
    pub(crate) fn add(&self, source: Option<PeerIndex>, reason: DropReason, frames: u64) {
        let row = source.map_or(0, |peer| peer.get() + 1);
        let column = self.reasons.iter().position(|known| *known == reason);
        debug_assert!(column.is_some(), "{reason:?} is missing from the stage's list of reasons");
        let counter = column.and_then(|column| self.counters.get(row)?.get(column));
        if let Some(counter) = counter {
            counter.add(frames);
        }
    }
}

/// What frames are counted under that did not come from an enrolled peer's own address.
pub(crate) const STRANGER: &str = "stranger";
