//! What became of frames that were not delivered, by reason and source, in the panel; the first of
//! each kind also in the log.

use crate::delivery::DropReason;
use crate::security::PeerIndex;
use crate::simulation::{Fault, planted};
use sinew_rt::clock::Nanos;
use sinew_rt::log::{self, LogReader, LogSender, RateLimit, Severity, Template};
use sinew_rt::panel::{Counter, Panel, PanelError};

/// The drop counters of one stage: one for each reason that the stage can have and each source.
#[derive(Debug)]
pub(crate) struct Drops {
    reasons: &'static [DropReason],
    /// For each source (the strangers first, then the peers) one counter for each reason.
    counters: Vec<Vec<Counter>>,
    log: Option<LogSender>,
}

static FIRST: Template =
    Template::new(Severity::Warn, "first frame of {name} dropped as {name}; the panel counts them");

/// First drops that may wait for housekeeping.
const LOG: usize = 32;

impl Drops {
    /// Registers `STAGE.drop.REASON@SOURCE` for every reason and source.
    pub(crate) fn register(
        panel: &Panel,
        stage: &str,
        reasons: &'static [DropReason],
        peers: &[String],
    ) -> Result<Self, PanelError> {
        let counters = sources(peers)
            .map(|source| {
                let name =
                    |reason: &DropReason| format!("{stage}.drop.{}@{source}", reason.as_str());
                reasons.iter().map(|reason| panel.counter(&name(reason))).collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { reasons, counters, log: None })
    }

    /// Tells the first drop for each reason and source through `log`, from [`Drops::log`].
    pub(crate) fn log_to(&mut self, log: LogSender) {
        self.log = Some(log);
    }

    /// The ends through which first drops are told off the lane. `source` names lane and stage.
    pub(crate) fn log(
        source: &str,
        limit: RateLimit,
        reasons: &[DropReason],
        peers: &[String],
    ) -> (LogSender, LogReader) {
        let (sender, reader) = log::channel(source, LOG, limit);
        // The rows of the counters, then their columns.
        let names = sources(peers).chain(reasons.iter().map(|reason| reason.as_str()));
        (sender, reader.with_names(names.map(str::to_owned).collect()))
    }

    /// Counts one dropped frame. Wait-free.
    pub(crate) fn count(&mut self, source: Option<PeerIndex>, reason: DropReason, now: Nanos) {
        self.add(source, reason, 1, now);
    }

    /// Counts several frames dropped for one reason.
    pub(crate) fn add(
        &mut self,
        source: Option<PeerIndex>,
        reason: DropReason,
        frames: u64,
        now: Nanos,
    ) {
        if planted(Fault::DropsNotCounted) {
            return;
        }
        let row = source.map_or(0, |peer| peer.get() + 1);
        let column = self.reasons.iter().position(|known| *known == reason);
        debug_assert!(column.is_some(), "{reason:?} is missing from the stage's list of reasons");
        let Some(column) = column else { return };
        // A node that counts by reason only has the first row.
        let counters = self.counters.get(row).or(self.counters.first());
        let Some(counter) = counters.and_then(|row| row.get(column)) else { return };
        if counter.value() == 0
            && let Some(log) = &mut self.log
        {
            log.send(now, &FIRST, [row as i64, (self.counters.len() + column) as i64, 0, 0]);
        }
        counter.add(frames);
    }
}

#[cfg(feature = "simulation")]
impl Drops {
    /// How many frames were dropped for each reason, whoever sent them.
    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> {
        self.counters
            .iter()
            .flat_map(|row| self.reasons.iter().copied().zip(row.iter().map(Counter::value)))
    }
}

/// What frames are counted under that did not come from an enrolled peer's own address.
pub(crate) const STRANGER: &str = "stranger";

/// The rows of the table.
fn sources(peers: &[String]) -> impl Iterator<Item = &str> {
    std::iter::once(STRANGER).chain(peers.iter().map(String::as_str))
}
