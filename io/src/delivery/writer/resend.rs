//! What is sent again next, and whether the share admits it.

use super::Writer;
use super::share::READER_FLOOR_BYTES;
use crate::security::PeerIndex;
use crate::simulation::{Branch, Fault, planted, reached};
use crate::wire::Sequence;
use sinew_rt::clock::Nanos;

impl Writer {
    /// The next message that is to be sent again, to whom; call it until `None`, or until the poll has
    /// done enough. What it gives counts as sent at `now`.
    pub(crate) fn resend(&mut self, now: Nanos) -> Option<(PeerIndex, Sequence, &[u8])> {
        self.attend(now);
        self.blocked_until = None;
        let count = self.readers.len();
        for n in 0..count {
            let place = (self.turn + n) % count;
            let Some((sequence, unasked)) = self.candidate(place, now) else { continue };
            // What was never sent to this reader, because it was not there yet, is not sent again.
            let again = !self.readers[place].is_first(sequence);
            let bytes = match again {
                true => self.ring.frame(sequence).map_or(0, <[u8]>::len) as u64,
                false => 0,
            };
            if !self.admits(place, bytes, now) {
                continue;
            }
            let copies = self.share.is_ample(now);
            let reader = &mut self.readers[place];
            reached(if unasked { Branch::ResentUnasked } else { Branch::ResentAsked });
            if unasked {
                reader.probes = reader.probes.saturating_add(1);
            }
            // Whatever was sent, the reader now has something to acknowledge.
            reader.probe_at = reader.probe_at.map(|_| now + reader.trip.timeout(reader.probes));
            reader.resent(sequence, bytes, copies, now);
            self.share.resent(bytes, now);
            self.ring.note_resent(sequence);
            self.turn = (place + 1) % count;
            let peer = PeerIndex::new(u16::try_from(place).ok()?);
            let other = planted(Fault::ResendWrongSlot).then(|| self.ring.frame(sequence + 1));
            let frame = other.flatten().or(self.ring.frame(sequence))?;
            return Some((peer, Sequence::new(sequence), frame));
        }
        None
    }

    /// What this reader should get next, and whether it did not ask for it.
    fn candidate(&mut self, place: usize, now: Nanos) -> Option<(u64, bool)> {
        let reader = &mut self.readers[place];
        if reader.matched {
            reader.repeat(now);
        }
        let probing = reader.probe_at.is_some_and(|at| at <= now);
        if !reader.matched || (reader.asked.is_empty() && !probing) {
            return None;
        }
        let first = self.first_for(place, now);
        let reader = &mut self.readers[place];
        if !reader.lagging && reader.asks_in_vain(first) {
            reader.tell_soon(now, self.spec.heartbeat);
        }
        while let Some(sequence) = self.readers[place].next_asked(first) {
            if self.can_be_sent(sequence, now) {
                return Some((sequence, false));
            }
            reached(Branch::ExpiredInRing);
            self.readers[place].withdraw(sequence);
        }
        if planted(Fault::ResendNever) {
            self.readers[place].probe_at = None;
            return None;
        }
        if !probing {
            return None;
        }
        let reader = &mut self.readers[place];
        let last = self.ring.last();
        let lowest = reader.lacks().max(first);
        // Beyond what it can hold the reader would throw the last one away.
        let probe = match last <= reader.reach() && !reader.has(last) {
            true => last.max(first),
            false => lowest,
        };
        if probe > last || !self.can_be_sent(probe, now) {
            self.readers[place].probe_at = None;
            return None;
        }
        Some((probe, true))
    }

    fn can_be_sent(&self, sequence: u64, now: Nanos) -> bool {
        self.ring.frame(sequence).is_some() && !self.is_expired(sequence, now)
    }

    /// Whether the share of all, and this reader's part of it, has room for so many bytes.
    fn admits(&mut self, place: usize, bytes: u64, now: Nanos) -> bool {
        if planted(Fault::ResendUnbounded) {
            return true;
        }
        let part = self.share.allowed(now) / self.matched.max(1) as u64;
        let resent = &mut self.readers[place].resent;
        let until = if resent.bytes(now).saturating_add(bytes) > part.max(READER_FLOOR_BYTES) {
            resent.rolls_at()
        } else if !self.share.admits(bytes, now) {
            self.share.rolls_at()
        } else {
            return true;
        };
        reached(Branch::ResendShareSpent);
        self.blocked_until = Some(self.blocked_until.map_or(until, |other| other.min(until)));
        false
    }
}
