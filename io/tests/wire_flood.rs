//! Ten million random and mutated frames: no panic, no allocation, each accepted or named.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sinew_io::delivery::DropReason;
use sinew_io::wire::frame::{Frame, decode};
use sinew_io::wire::hello::{HelloFields, STREAMS_MAX, encode_challenge, encode_hello};
use sinew_io::wire::{
    BootId, Challenge, Class, ClusterName, EnvelopeFields, Epoch, FRAME_MAX, Hello, KeyId, LifeId,
    Nonce, SchemaId, Sequence, StreamStart, TopicId, envelope,
};
use sinew_rt::clock::Nanos;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged; the counter is a plain
// thread-local cell without a destructor, so touching it neither allocates nor re-enters.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises about `at` and `layout` are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// xorshift64* (Vigna 2016): quick, seeded, and good enough to pick bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize * bound) >> 32
    }
}

fn envelope_frame(payload: usize, signed: bool) -> Vec<u8> {
    let mut slot = [0; FRAME_MAX];
    let fields = EnvelopeFields {
        source: KeyId::from_raw(11),
        destination: KeyId::EVERYONE,
        topic: TopicId::of("a"),
        schema: SchemaId::from_raw(4),
        epoch: Epoch::new(1),
        sequence: Sequence::FIRST,
        sent_at: Nanos::ZERO,
        lifespan_us: 0,
        class: Class::Control,
    };
    let tag = ClusterName::new("plant").unwrap().tag();
    let mut len = envelope::encode(&mut slot, tag, &fields, &vec![9; payload]).unwrap();
    if signed {
        len = envelope::append_signature(&mut slot, |_| [1; 64]).unwrap();
    }
    slot[..len].to_vec()
}

fn handshake_frames() -> [Vec<u8>; 2] {
    let tag = ClusterName::new("plant").unwrap().tag();
    let id = KeyId::from_raw(11);
    let challenge = Challenge::new(id, id, Nonce([1; 16]), Epoch::new(1), Nanos::ZERO);
    let streams = [StreamStart { topic: TopicId::of("a"), next: Sequence::FIRST }; STREAMS_MAX];
    let fields = HelloFields {
        from: id,
        epoch: Epoch::new(1),
        life: LifeId([1; 16]),
        boot: BootId([1; 16]),
        received_at: Nanos::ZERO,
        sent_at: Nanos::ZERO,
        streams: &streams,
    };
    let hello = Hello::answer(&challenge, &fields);
    [encode_challenge(tag, &challenge, |_| [1; 64]), encode_hello(tag, &hello, |_| [1; 64])]
        .map(|frame| frame.to_vec())
}

#[test]
fn ten_million_random_and_mutated_frames_are_each_accepted_or_named() {
    const FRAMES: u64 = 10_000_000;
    let mut seeds = vec![
        envelope_frame(0, false),
        envelope_frame(64, true),
        envelope_frame(256, true),
        envelope_frame(1_024, true),
    ];
    seeds.extend(handshake_frames());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut buffer = [0; FRAME_MAX + 8];
    let mut reasons = [0u64; DropReason::COUNT];
    let (mut accepted, mut touched) = (0u64, 0u64);
    ALLOCATIONS.set(0);
    for _ in 0..FRAMES {
        let seed = &seeds[random.below(seeds.len())];
        let mut len = seed.len();
        buffer[..len].copy_from_slice(seed);
        match random.below(8) {
            0 => {
                // Random bytes behind a plausible beginning, of a random length.
                len = random.below(FRAME_MAX + 9);
                let keep = random.below(24);
                for chunk in buffer[keep..].chunks_mut(8) {
                    chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
                }
            }
            1 => len = random.below(len + 9),
            _ => {
                for _ in 0..=random.below(3) {
                    // Half of the edits hit the headers, where the decisions are.
                    let region = if random.next() & 1 == 0 { 80.min(len) } else { len };
                    let at = random.below(region);
                    buffer[at] = random.next() as u8;
                }
            }
        }
        match decode(&buffer[..len]) {
            Ok(Frame::Clear(envelope)) => {
                accepted += 1;
                touched += envelope.payload.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                touched += envelope.signed_bytes().len() as u64;
            }
            Ok(Frame::Handshake(handshake)) => {
                accepted += 1;
                touched ^= handshake.signed_bytes().len() as u64 ^ handshake.message.from().get();
            }
            Err(malformed) => reasons[DropReason::from(malformed).index()] += 1,
        }
    }
    assert_eq!(ALLOCATIONS.get(), 0, "decoding allocated");
    assert_eq!(accepted + reasons.iter().sum::<u64>(), FRAMES);
    assert!(touched > 0);
    for reason in [
        DropReason::TooShort,
        DropReason::TooLong,
        DropReason::BadMagic,
        DropReason::BadVersion,
        DropReason::BadKind,
        DropReason::Malformed,
    ] {
        assert!(reasons[reason.index()] > 1_000, "{reason:?} was hardly reached: {reasons:?}");
    }
    assert!(accepted > 100_000, "hardly any mutant was well formed: {accepted}");
}
