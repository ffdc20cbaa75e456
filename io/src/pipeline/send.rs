//! Send: numbers, dates, signs and sends what publishers put into their rings.
//!
//! A poll makes at most one signature, so that a burst on one topic cannot keep the lane from its
//! other stages; unsigned envelopes go out in batches. Reliable topics come after the others and have a
//! part of the stage to themselves ([`super::resend`]).

use super::FRAMES_PER_POLL;
use super::resend::{ReliableSend, Way};
use crate::message::Message;
use crate::security::{Identity, PeerIndex};
use crate::transport::{BATCH, Transmit};
use crate::wire::envelope::{encode_in_place, payload_mut};
use crate::wire::{ClusterTag, EnvelopeFields, Sequence, SigningContext, Slot};
use sinew_rt::clock::Nanos;
use sinew_rt::guard::Execution;
use sinew_rt::lane::Stage;
use sinew_rt::panel::Counter;
use sinew_rt::ring::Consumer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A message on its way to the send stage.
#[derive(Debug)]
pub(crate) struct Outgoing<T> {
    pub(crate) value: T,
    pub(crate) at: Nanos,
}

/// The ring of one publisher, without its type.
pub(crate) trait Source: Send {
    /// Writes the next payload, if there is one, and says its length and when it was published.
    fn next(&mut self, payload: &mut [u8]) -> Option<(usize, Nanos)>;
    /// When the next was published.
    fn published_at(&self) -> Option<Nanos>;
    /// Gives up the next.
    fn skip(&mut self);
    /// Whether there is none.
    fn is_empty(&self) -> bool;
    /// The length of every payload.
    fn payload_len(&self) -> usize;
}

impl<T: Message> Source for Consumer<Outgoing<T>> {
    fn next(&mut self, payload: &mut [u8]) -> Option<(usize, Nanos)> {
        self.pop_with(|message| {
            let bytes = message.value.as_bytes();
            payload.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((bytes.len(), message.at))
        })?
    }

    fn published_at(&self) -> Option<Nanos> {
        self.peek().map(|message| message.at)
    }

    fn skip(&mut self) {
        self.pop_with(|_| ());
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }

    fn payload_len(&self) -> usize {
        size_of::<T>()
    }
}

/// One published topic.
pub(crate) struct Outlet {
    pub(crate) source: Box<dyn Source>,
    /// The header of every envelope of this topic, but for number and date.
    pub(crate) fields: EnvelopeFields,
    pub(crate) signed: bool,
    /// The number of the next envelope, which a Hello tells the receivers.
    pub(crate) next_sequence: Arc<AtomicU64>,
    pub(crate) sent: Counter,
}

impl Outlet {
    /// Writes the next envelope into `room`, which has room for it, and gives the frame's length and the
    /// publishing time.
    pub(super) fn fill(
        &mut self,
        room: &mut [u8],
        cluster: ClusterTag,
        signer: (&Identity, &SigningContext),
    ) -> Option<(usize, Nanos)> {
        let (payload_len, at) = self.source.next(payload_mut(room))?;
        self.fields.sequence = self.number();
        self.fields.sent_at = at;
        let mut len = encode_in_place(room, cluster, &self.fields, payload_len).ok()?;
        if self.signed {
            let (identity, context) = signer;
            len = identity.sign_envelope(context, room).ok()?;
        }
        self.sent.increment();
        Some((len, at))
    }

    /// Gives up the next message, whose number stays unused.
    pub(super) fn skip(&mut self) {
        self.source.skip();
        self.number();
    }

    /// The next number. Only this stage writes the word, so load and store are enough.
    fn number(&self) -> Sequence {
        let sequence = self.next_sequence.load(Ordering::Relaxed);
        self.next_sequence.store(sequence + 1, Ordering::Relaxed);
        Sequence::new(sequence)
    }
}

/// Plain topics, reliable ones, and reports.
const PARTS: usize = 3;

/// The fourth stage.
pub(crate) struct SendStage {
    pub(crate) outlets: Vec<Outlet>,
    pub(crate) transport: Box<dyn Transmit>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) cluster: ClusterTag,
    pub(crate) context: SigningContext,
    /// For each peer the frames that the transport did not take.
    pub(crate) lost: Vec<Counter>,
    /// Frames of one poll; none if there are no outlets.
    pub(crate) frames: Box<[Slot]>,
    /// Their lengths.
    pub(crate) lens: [usize; BATCH],
    /// The outlet to look at first, so that each gets its turn.
    pub(crate) turn: usize,
    /// Reliable topics and what is reported about them, if there are any.
    pub(crate) reliable: Option<Box<ReliableSend>>,
    /// Which of plain topics, reliable ones and reports may sign first in the next poll.
    pub(crate) first_part: usize,
}

/// Sends `frames` to every peer and counts what the transport did not take.
fn send_to_all(transport: &mut dyn Transmit, lost: &[Counter], frames: &[&[u8]]) {
    for (peer, lost) in lost.iter().enumerate() {
        let sent = transport.send(PeerIndex::new(peer as u16), frames);
        if sent < frames.len() {
            lost.add((frames.len() - sent) as u64);
        }
    }
}

impl Stage for SendStage {
    fn poll(&mut self, now: Nanos) -> Execution {
        let Some(mut reliable) = self.reliable.take() else {
            let (released, _) = self.send_plain(false);
            return released.map_or(Execution::Idle, |released| Execution::Worked { released });
        };
        let mut released = reliable.prepare(now, &mut *self.transport, &self.lost).then_some(now);
        let mut signed = false;
        // Each part gets its turn to sign, so that none that always has something keeps the others from
        // sending.
        for part in 0..PARTS {
            let (worked, signs) = match (self.first_part + part) % PARTS {
                0 => self.send_plain(signed),
                part => {
                    let mut way = Way {
                        now,
                        transport: &mut *self.transport,
                        cluster: self.cluster,
                        signer: (&*self.identity, &self.context),
                        lost: &self.lost,
                        signed,
                    };
                    match part {
                        1 => reliable.send_new(&mut way),
                        _ => reliable.send_report(&mut way),
                    }
                }
            };
            released = [released, worked].into_iter().flatten().min();
            signed |= signs;
        }
        if signed {
            self.first_part = (self.first_part + 1) % PARTS;
        }
        self.reliable = Some(reliable);
        released.map_or(Execution::Idle, |released| Execution::Worked { released })
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.reliable.as_ref()?.next_deadline()
    }
}

impl SendStage {
    /// Sends a batch of what is not sent again; without a signature if this poll has made one. Says when
    /// the first of it was published, and whether it took a signature.
    fn send_plain(&mut self, has_signed: bool) -> (Option<Nanos>, bool) {
        let mut count = 0;
        let mut released = None;
        let mut signed = false;
        let signer = (&*self.identity, &self.context);
        let outlets = self.outlets.len();
        let first = self.turn;
        'outlets: for n in 0..outlets {
            let outlet = &mut self.outlets[(first + n) % outlets];
            if outlet.signed && has_signed {
                continue;
            }
            while count < BATCH {
                let slot = &mut self.frames[count];
                let Some((len, at)) = outlet.fill(slot, self.cluster, signer) else { break };
                self.lens[count] = len;
                count += 1;
                released.get_or_insert(at);
                // The next poll begins with the outlet after the last that sent, so that one that
                // is never empty cannot keep the others from sending.
                self.turn = (first + n + 1) % outlets;
                if outlet.signed {
                    signed = true;
                    break 'outlets;
                }
            }
        }
        let transport = &mut *self.transport;
        match count {
            0 => {}
            // One message a period is the common case, and need not prepare a batch.
            1 => send_to_all(transport, &self.lost, &[&self.frames[0][..self.lens[0]]]),
            _ => {
                let frames: [&[u8]; BATCH] =
                    std::array::from_fn(|n| &self.frames[n][..self.lens[n]]);
                send_to_all(transport, &self.lost, &frames[..count]);
            }
        }
        (released, signed)
    }
}

const _: () = assert!(BATCH <= FRAMES_PER_POLL);
