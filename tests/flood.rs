//! Random and mutated frames, by the million, through the receive and verify path of a running node:
//! no panic, no allocation on a lane, and every single one is counted under what became of it.
//!
//! The frames go over the memory network, which says when it is full, so that none is lost on the way.
//! One million by default, half of them in each of two layouts; `SINEW_LONG=1` makes it ten million:
//!
//! ```text
//! SINEW_LONG=1 cargo test --release --test flood -- --nocapture
//! ```
//!
//! A failure prints its seed; `SINEW_SEED=N` runs that one again.

#[path = "support/allocations.rs"]
mod allocations;
mod support;

use allocations::on_lanes;
use sinew::io::delivery::window::JUMP_MAX;
use sinew::io::node::Layout;
use sinew::io::wire::FRAME_MAX;
use sinew::rt::clock;
use support::arena::{Arena, Counts, From, ROBOT, Rules, accounted, since};
use support::forge::{Forger, identity};
use support::{PATIENCE, Sample};
use zerocopy::IntoBytes;

/// Frames for each of the two layouts.
const DEFAULT_FRAMES: u64 = 500_000;
const LONG_FRAMES: u64 = 5_000_000;
const DEFAULT_SEED: u64 = 0x5eed;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seeded, and good enough to be annoying.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// What frames are made from.
struct Mill {
    random: Random,
    controller: Forger,
    epoch: u64,
    /// Signed, of the wrong topic, of the wrong cluster, and of the handshake.
    genuine: Vec<Vec<u8>>,
    /// An unsigned one on an open topic, which gets a new number each time.
    open: Vec<u8>,
    sequence: u64,
}

/// Where the sequence of an envelope lies in its frame.
const SEQUENCE_AT: usize = 16 + 40;

impl Mill {
    fn new(seed: u64, epoch: u64) -> Self {
        let controller = Forger::new(support::arena::CONTROLLER, support::arena::CLUSTER);
        let robot = identity(ROBOT).public().id();
        let challenge = controller.challenge(robot, [1; 16], epoch, clock::now());
        let asked = Forger::new(ROBOT, support::arena::CLUSTER);
        let ask = asked.challenge(controller.key(), [2; 16], 1, clock::now());
        let genuine = vec![
            controller.sample("setpoint", epoch, 1),
            controller.sample("limits", epoch, 1),
            controller.hello(&ask, epoch, [3; 16], &["setpoint"]).unwrap(),
            challenge,
            Forger::new(support::arena::CONTROLLER, "elsewhere").sample("setpoint", epoch, 1),
            Forger::new(99, support::arena::CLUSTER).sample("setpoint", epoch, 1),
        ];
        let fields = controller.fields("notes", epoch, 1);
        let open = controller.unsigned(&fields, Sample::new(1).as_bytes());
        Self { random: Random(seed), controller, epoch, genuine, open, sequence: 0 }
    }

    /// The next frame, into `frame`, which keeps its memory.
    fn next(&mut self, frame: &mut Vec<u8>) {
        frame.clear();
        match self.random.below(100) {
            0..10 => {
                frame.resize(self.random.below(FRAME_MAX + 100), 0);
                self.random.fill(frame);
            }
            10..25 => {
                // Noise behind a header that the cheap filters let through.
                frame.resize(16 + self.random.below(FRAME_MAX - 16), 0);
                self.random.fill(frame);
                frame[..16].copy_from_slice(&self.open[..16]);
                frame[3] = [1, 4][self.random.below(2)];
            }
            25..35 => {
                let genuine = &self.genuine[self.random.below(self.genuine.len())];
                frame.extend_from_slice(genuine);
                self.mutate(frame);
            }
            kind => {
                // In leaps, so that a mutated number does not make all later ones old: an open topic
                // has to believe it.
                self.sequence += JUMP_MAX / 256;
                frame.extend_from_slice(&self.open);
                frame[SEQUENCE_AT..][..8].copy_from_slice(&self.sequence.to_le_bytes());
                if kind < 85 {
                    self.mutate(frame);
                }
            }
        }
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        const EDGES: [u64; 8] = [0, 1, 2, u64::MAX, 1 << 63, u32::MAX as u64, 1 << 32, 0xff];
        let random = &mut self.random;
        for _ in 0..=random.below(3) {
            if frame.is_empty() {
                return;
            }
            let at = random.below(frame.len());
            match random.below(7) {
                0 | 1 => frame[at] ^= 1 << random.below(8),
                2 => frame[at] = random.next() as u8,
                // Headers are full of 64-bit fields: their edges are more telling than noise.
                3 => {
                    let field = random.below(11) * 8;
                    let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                    if let Some(bytes) = frame.get_mut(field..field + 8) {
                        bytes.copy_from_slice(&edge);
                    }
                }
                4 => frame.truncate(at),
                5 => frame.resize(frame.len() + random.below(64), at as u8),
                _ => {
                    let other = &self.genuine[random.below(self.genuine.len())];
                    let end = at + random.below(64);
                    if let (Some(to), Some(from)) = (frame.get_mut(at..end), other.get(at..end)) {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    }
}

fn flood(layout: Layout) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let frames = if number("SINEW_LONG") == Some(1) { LONG_FRAMES } else { DEFAULT_FRAMES };
    let seed = number("SINEW_SEED").unwrap_or(DEFAULT_SEED);
    println!("{layout}: {frames} frames, SINEW_SEED={seed}");

    let mut arena = Arena::memory(&format!("flood-{layout}"), Rules { layout, ..Rules::default() });
    let mut mill = Mill::new(seed, arena.epoch);
    assert_eq!(mill.controller.key(), arena.controller.key());
    assert_eq!(mill.epoch, arena.epoch);
    // What is genuine has been delivered before, so that none of it may be again.
    arena.send(From::Home, &mill.genuine[0]);
    arena.expect(1, &[]);
    let (home, elsewhere) = (arena.injector(From::Home), arena.injector(From::Elsewhere));
    let before = arena.counts();
    let allocations = on_lanes();
    let mut frame = Vec::with_capacity(2 * FRAME_MAX);
    let mut popped = 0;
    for n in 0..frames {
        mill.next(&mut frame);
        let send = if n % 8 == 0 { &elsewhere } else { &home };
        let give_up = clock::now() + PATIENCE;
        while !send(&frame) {
            assert!(clock::now() < give_up, "the node takes nothing in any more");
            assert!(!arena.robot.is_broken(), "a lane panicked");
            std::thread::yield_now();
        }
        if n % 64 == 0 {
            while arena.notes.pop().is_some() {
                popped += 1;
            }
        }
    }
    let counted = settle(&arena, &before, frames);
    while arena.notes.pop().is_some() {
        popped += 1;
    }
    assert_eq!(on_lanes(), allocations, "a lane allocated");
    assert!(!arena.robot.is_broken(), "a lane panicked");
    println!("{layout}: {counted:#?}");

    // None of it passed for a genuine message on a topic that demands a signature.
    assert_eq!(counted.get("delivered/setpoint"), None);
    assert_eq!(counted.get("delivered/limits"), None);
    assert_eq!(counted.get("delivered/notes"), Some(&popped));
    // The flood went everywhere, not into one early filter.
    for reason in [
        "receive.drop.too_short@stranger",
        "receive.drop.too_long@stranger",
        "receive.drop.bad_magic@stranger",
        "receive.drop.bad_version@stranger",
        "receive.drop.bad_kind@stranger",
        "receive.drop.other_cluster@stranger",
        "receive.drop.unknown_key@stranger",
        "verify.drop.malformed@controller",
        "verify.drop.not_for_us@controller",
        "verify.drop.class_not_served@controller",
        "verify.drop.class_mismatch@controller",
        "verify.drop.unknown_topic@controller",
        "verify.drop.old_epoch@controller",
        "verify.drop.future_epoch@controller",
        "verify.drop.too_far_ahead@controller",
        "verify.drop.bad_signature@controller",
        "verify.drop.bad_signature@stranger",
        "deliver.drop.schema_mismatch@controller",
        "handshake.drop.malformed@controller",
        "handshake.drop.hello_unasked@controller",
    ] {
        assert!(counted.contains_key(reason), "none was dropped as {reason}: {counted:#?}");
    }
    arena.robot.stop().unwrap();
}

/// Waits until the panel accounts for `frames` more than `before`, and gives the difference.
fn settle(arena: &Arena, before: &Counts, frames: u64) -> Counts {
    let give_up = clock::now() + PATIENCE;
    loop {
        let mut counted = since(before, &arena.counts());
        let received = counted.remove("receive.frames").unwrap_or(0);
        if received == frames && accounted(&counted) == frames {
            return counted;
        }
        assert!(
            clock::now() < give_up,
            "{frames} went in, {received} were received, {} accounted for: {counted:#?}",
            accounted(&counted)
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_flood_of_random_and_mutated_frames_is_counted_to_the_last_one_on_a_fused_lane() {
    flood(Layout::Fused);
}

#[test]
fn a_flood_of_random_and_mutated_frames_is_counted_to_the_last_one_on_split_lanes() {
    flood(Layout::Split);
}
