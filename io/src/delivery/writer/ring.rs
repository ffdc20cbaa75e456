//! The retransmit ring: the newest frames of a stream, in slots that are allocated once.

use crate::wire::FRAME_MAX;
use sinew_rt::clock::Nanos;

/// Messages that share one date are told apart among so many.
const SAME_DATE_MAX: u64 = 64;

#[derive(Clone)]
struct Slot {
    /// 0: it cannot be sent again.
    len: u16,
    /// As its envelope says: when it was published.
    sent_at: Nanos,
    /// When it first went out, or was given up before that.
    retained_at: Nanos,
    /// Sent again to anyone: an echo of it tells nothing about the round trip (Karn).
    resent: bool,
}

/// The frames `oldest()..next()`; the sequence finds the slot.
pub(super) struct Ring {
    slots: Box<[Slot]>,
    /// The frames by slot, one right after the other: a batch of full ones is one piece of memory, which
    /// the kernel copies in less time than as many pieces.
    frames: Box<[u8]>,
    frame_len: usize,
    next: u64,
    last_sent: u64,
}

impl Ring {
    /// Allocates `capacity` slots for frames of up to `frame_len` bytes.
    pub(super) fn new(capacity: usize, frame_len: usize) -> Self {
        let (capacity, frame_len) = (capacity.max(1), frame_len.min(FRAME_MAX));
        let slot = Slot { len: 0, sent_at: Nanos::ZERO, retained_at: Nanos::ZERO, resent: false };
        // Not zero: zeroed memory may be pages that nobody has touched.
        let frames = vec![1; capacity * frame_len].into();
        Self { slots: vec![slot; capacity].into(), frames, frame_len, next: 1, last_sent: 0 }
    }

    /// The sequence that the next frame gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The last sequence that is used up; 0: none.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// How many frames it keeps.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The lowest sequence whose frame is still here; `next()` when there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.next.saturating_sub(self.slots.len() as u64).max(1)
    }

    /// The sequence whose frame the next one overwrites.
    pub(super) fn overwritten_next(&self) -> Option<u64> {
        self.next.checked_sub(self.slots.len() as u64).filter(|sequence| *sequence > 0)
    }

    /// Where the next frame is made, which [`Ring::push`] then keeps. The one that lay there is not here any
    /// more.
    pub(super) fn room_for_next(&mut self) -> &mut [u8] {
        let at = self.place(self.next);
        self.slots[at].len = 0;
        &mut self.frames[at * self.frame_len..][..self.frame_len]
    }

    /// Keeps the next frame, whose `len` bytes lie in [`Ring::room_for_next`]; an empty one was given up
    /// before it was sent.
    pub(super) fn push(&mut self, now: Nanos, sent_at: Nanos, len: usize) {
        let at = self.place(self.next);
        debug_assert!(len <= self.frame_len, "it was made in the room of one frame");
        self.slots[at] = Slot { len: len as u16, sent_at, retained_at: now, resent: false };
        if len > 0 {
            self.last_sent = self.next;
        }
        self.next = self.next.saturating_add(1);
    }

    /// The frame of `sequence`, while it is here.
    pub(super) fn frame(&self, sequence: u64) -> Option<&[u8]> {
        let len = usize::from(self.slot(sequence)?.len);
        let at = self.place(sequence) * self.frame_len;
        self.frames.get(at..at + len).filter(|frame| !frame.is_empty())
    }

    /// The last sequence that was not given up before it was sent; 0: none.
    pub(super) fn last_sent(&self) -> u64 {
        self.last_sent
    }

    /// When it was published.
    pub(super) fn sent_at(&self, sequence: u64) -> Option<Nanos> {
        self.slot(sequence).map(|slot| slot.sent_at)
    }

    /// When it first went out, or was given up before that.
    pub(super) fn retained_at(&self, sequence: u64) -> Option<Nanos> {
        self.slot(sequence).map(|slot| slot.retained_at)
    }

    /// Notes that `sequence` was sent again.
    pub(super) fn note_resent(&mut self, sequence: u64) {
        if self.holds(sequence) {
            let at = self.place(sequence);
            self.slots[at].resent = true;
        }
    }

    /// The highest sequence that first went out at `until` or before, or the one before `oldest()`.
    pub(super) fn retained_until(&self, until: Nanos) -> u64 {
        self.partition(|slot| slot.retained_at <= until) - 1
    }

    /// The highest sequence that was published at `until` or before, or the one before `oldest()`.
    pub(super) fn sent_until(&self, until: Nanos) -> u64 {
        self.partition(|slot| slot.sent_at <= until) - 1
    }

    /// When the one message that its envelope dates `echo` went out; `None` for a date that we did
    /// not write, and where a retransmission could be what is echoed.
    pub(super) fn echoed(&self, echo: Nanos) -> Option<Nanos> {
        let first = self.partition(|slot| slot.sent_at < echo);
        let mut newest = None;
        for sequence in first..self.next.min(first.saturating_add(SAME_DATE_MAX)) {
            let slot = self.slot(sequence).filter(|slot| slot.sent_at == echo);
            let Some(slot) = slot else { return newest };
            if slot.len == 0 {
                continue;
            }
            if slot.resent {
                return None;
            }
            newest = Some(slot.retained_at);
        }
        newest.filter(|_| self.next - first < SAME_DATE_MAX)
    }

    fn holds(&self, sequence: u64) -> bool {
        (self.oldest()..self.next).contains(&sequence)
    }

    fn slot(&self, sequence: u64) -> Option<&Slot> {
        self.holds(sequence).then(|| &self.slots[self.place(sequence)])
    }

    fn place(&self, sequence: u64) -> usize {
        (sequence % self.slots.len() as u64) as usize
    }

    /// The first sequence for which `before` does not hold, or `next()`. Dates go up with sequences,
    /// so that it takes at most eleven looks; where a publisher's dates go back, the answer is still
    /// one of the sequences here.
    fn partition(&self, before: impl Fn(&Slot) -> bool) -> u64 {
        let (mut low, mut high) = (self.oldest(), self.next);
        while low < high {
            let middle = low + (high - low) / 2;
            match before(&self.slots[self.place(middle)]) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}
