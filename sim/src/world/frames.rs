//! Frames on their way: kept in places that are used again, for an event should be small.

use sinew_rt::clock::Nanos;

use super::Event;
use crate::host::{Address, STRANGERS};
use crate::network::{Network, corrupt};
use crate::queue::EventQueue;

/// A frame on its way.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) from: Address,
    /// Who really sent it: another than `from` when somebody lies about that.
    pub(super) by: Address,
    pub(super) to: u16,
    pub(super) intact: bool,
    pub(super) bytes: Vec<u8>,
}

/// Frames on their way, in places that are used again.
#[derive(Debug, Default)]
pub(super) struct Frames {
    places: Vec<Frame>,
    free: Vec<u32>,
}

impl Frames {
    pub(super) fn put(&mut self, from: Address, by: Address, to: u16, bytes: &[u8]) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Frame::default());
            self.places.len() as u32 - 1
        });
        let frame = &mut self.places[place as usize];
        (frame.from, frame.by, frame.to, frame.intact) = (from, by, to, true);
        frame.bytes.clear();
        frame.bytes.extend_from_slice(bytes);
        place
    }

    pub(super) fn take(&mut self, place: u32) -> Frame {
        self.free.push(place);
        std::mem::take(&mut self.places[place as usize])
    }

    /// Gives the bytes of a taken frame back, to be used again.
    pub(super) fn give_back(&mut self, place: u32, frame: Frame) {
        self.places[place as usize] = frame;
    }
}

/// Puts a frame on its way.
pub(super) fn carry(
    network: &mut Network,
    frames: &mut Frames,
    queue: &mut EventQueue<Event>,
    now: Nanos,
    (from, by, to): (Address, Address, Address),
    bytes: &[u8],
) {
    if to >= STRANGERS {
        return;
    }
    if network.is_of_scenario() {
        for passage in network.pass(now, by, to, bytes).into_iter().flatten() {
            let frame = frames.put(from, by, to, bytes);
            let copy = &mut frames.places[frame as usize];
            passage.damage(&mut copy.bytes);
            copy.intact = copy.bytes == bytes;
            queue.push(passage.due, Event::Arrive { frame });
        }
        return;
    }
    let fate = network.send(now, if from >= STRANGERS { from } else { by }, to, bytes.len());
    for arrival in [fate.arrival, fate.copy].into_iter().flatten() {
        let frame = frames.put(from, by, to, bytes);
        if let Some(draw) = fate.corruption {
            let frame = &mut frames.places[frame as usize];
            corrupt(&mut frame.bytes, draw);
            frame.intact = frame.bytes == bytes;
        }
        queue.push(arrival, Event::Arrive { frame });
    }
}
