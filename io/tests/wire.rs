//! Frames on the wire: what is written is read back, and nothing else is accepted or panics.

use std::cell::Cell;

use proptest::prelude::*;
use sinew_io::delivery::DropReason;
use sinew_io::security::{Identity, Trust, verify_envelope};
use sinew_io::wire::envelope::{self, ENVELOPE_HEADER_LEN};
use sinew_io::wire::frame::{FRAME_HEADER_LEN, Frame, Malformed, Slot, decode};
use sinew_io::wire::hello::{
    HANDSHAKE_FRAME_LEN, HandshakeMessage, HelloFields, STREAMS_MAX, encode_challenge, encode_hello,
};
use sinew_io::wire::{
    BootId, Challenge, Class, ClusterName, ClusterTag, Domain, EnvelopeFields, Epoch, FRAME_MAX,
    FrameTooLong, Hello, KeyId, LifeId, Nonce, PAYLOAD_MAX, SIGNATURE_LEN, SchemaId, Sequence,
    SigningContext, StreamStart, TopicId,
};
use sinew_rt::clock::Nanos;
use zeroize::Zeroizing;

const HEADERS: usize = FRAME_HEADER_LEN + ENVELOPE_HEADER_LEN;

fn identity() -> Identity {
    Identity::from_secret(&Zeroizing::new([7; 32])).unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("plant").unwrap()
}

fn fields(source: KeyId) -> EnvelopeFields {
    EnvelopeFields {
        source,
        destination: KeyId::EVERYONE,
        topic: TopicId::of("arm/setpoint"),
        schema: SchemaId::from_raw(0xe37b_5ec0_e505_d26d),
        epoch: Epoch::new(3),
        sequence: Sequence::new(9),
        sent_at: Nanos::new(-5),
        lifespan_us: 20_000,
        class: Class::Control,
    }
}

fn unsigned(payload: &[u8]) -> Vec<u8> {
    let mut slot: Slot = [0xaa; FRAME_MAX];
    let len =
        envelope::encode(&mut slot, cluster().tag(), &fields(identity().public().id()), payload);
    slot[..len.unwrap()].to_vec()
}

fn signed(payload: &[u8]) -> Vec<u8> {
    let (identity, mut slot) = (identity(), [0xaa; FRAME_MAX]);
    let context = SigningContext::new(Domain::Envelope, &cluster());
    envelope::encode(&mut slot, cluster().tag(), &fields(identity.public().id()), payload).unwrap();
    let len = identity.sign_envelope(&context, &mut slot).unwrap();
    slot[..len].to_vec()
}

fn clear(bytes: &[u8]) -> sinew_io::wire::Envelope<'_> {
    match decode(bytes) {
        Ok(Frame::Clear(envelope)) => envelope,
        other => panic!("not a clear frame: {other:?}"),
    }
}

fn challenge() -> Challenge {
    let to = KeyId::from_raw(99);
    Challenge::new(identity().public().id(), to, Nonce([1; 16]), Epoch::new(4), Nanos::new(77))
}

fn challenge_frame() -> Vec<u8> {
    encode_challenge(cluster().tag(), &challenge(), |body| identity().sign(&[body])).to_vec()
}

fn hello_frame(streams: usize) -> Vec<u8> {
    let streams: Vec<_> = (0..streams as u64)
        .map(|n| StreamStart { topic: TopicId::from_raw(n + 1), next: Sequence::new(n + 10) })
        .collect();
    let hello = Hello::answer(
        &challenge(),
        &HelloFields {
            from: identity().public().id(),
            epoch: Epoch::new(5),
            life: LifeId([2; 16]),
            boot: BootId([3; 16]),
            received_at: Nanos::new(78),
            sent_at: Nanos::new(79),
            streams: &streams,
        },
    );
    encode_hello(cluster().tag(), &hello, |body| identity().sign(&[body])).to_vec()
}

/// The frame with one byte replaced.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

#[track_caller]
fn refused(bytes: &[u8], want: Malformed, reason: DropReason) {
    let got = decode(bytes).expect_err("accepted");
    assert_eq!(got, want);
    assert_eq!(DropReason::from(got), reason);
}

#[test]
fn every_fault_of_a_frame_has_its_name_and_numbers() {
    let good = signed(b"abc");
    refused(&[], Malformed::TooShort { need: 16, got: 0 }, DropReason::TooShort);
    refused(&good[..15], Malformed::TooShort { need: 16, got: 15 }, DropReason::TooShort);
    refused(&good[..79], Malformed::TooShort { need: 64, got: 63 }, DropReason::TooShort);
    refused(&[0; 1_233], Malformed::TooLong { got: 1_233 }, DropReason::TooLong);
    refused(&with(good.clone(), 0, 0), Malformed::BadMagic { got: 0x5300 }, DropReason::BadMagic);
    refused(&with(good.clone(), 2, 2), Malformed::BadVersion { got: 2 }, DropReason::BadVersion);
    for kind in [0, 2, 3, 5, 255] {
        refused(
            &with(good.clone(), 3, kind),
            Malformed::BadKind { got: kind },
            DropReason::BadKind,
        );
    }
    let short = &good[..good.len() - 1];
    refused(short, Malformed::LengthMismatch { declared: 67, got: 66 }, DropReason::Malformed);
    let long = [&good[..], &[0]].concat();
    refused(&long, Malformed::LengthMismatch { declared: 67, got: 68 }, DropReason::Malformed);
    let unknown = with(good.clone(), 16 + 61, 0x03);
    refused(&unknown, Malformed::UnknownFlags { got: 3 }, DropReason::Malformed);
    for class in [0, 6, 255] {
        let frame = with(good.clone(), 16 + 60, class);
        refused(&frame, Malformed::UnknownClass { got: class }, DropReason::Malformed);
    }
    let source = clear(&good).header.source();
    let other = with(good.clone(), 8, good[8] ^ 1);
    let frame = KeyId::from_raw(source.get() ^ 1);
    refused(&other, Malformed::SenderMismatch { frame, content: source }, DropReason::Malformed);
}

#[test]
fn a_lying_payload_length_is_refused_whatever_it_claims() {
    let good = signed(&[5; 100]);
    for declared in 0..=u16::MAX {
        let mut frame = good.clone();
        frame[16 + 62..16 + 64].copy_from_slice(&declared.to_le_bytes());
        match decode(&frame) {
            Ok(_) => assert_eq!(declared, 100),
            Err(Malformed::PayloadTooLong { .. }) => assert!(usize::from(declared) > PAYLOAD_MAX),
            Err(other) => {
                let want = usize::from(declared) + SIGNATURE_LEN;
                assert_eq!(other, Malformed::LengthMismatch { declared: want, got: 164 });
            }
        }
    }
}

#[test]
fn the_signed_flag_cannot_be_dropped_without_the_signature_being_left_over() {
    let frame = with(signed(b"stop"), 16 + 61, 0);
    refused(&frame, Malformed::LengthMismatch { declared: 4, got: 68 }, DropReason::Malformed);
}

#[test]
fn every_fault_of_a_handshake_has_its_name_and_numbers() {
    let good = hello_frame(3);
    let body = HANDSHAKE_FRAME_LEN - 16;
    let mismatch = |got| Malformed::LengthMismatch { declared: body, got };
    refused(&good[..good.len() - 1], mismatch(body - 1), DropReason::Malformed);
    refused(&[&good[..], &[0]].concat(), mismatch(body + 1), DropReason::Malformed);
    refused(&good[..16], mismatch(0), DropReason::Malformed);
    for message in [0, 3, 255] {
        let frame = with(good.clone(), 16, message);
        refused(&frame, Malformed::UnknownMessage { got: message }, DropReason::Malformed);
    }
    let full = hello_frame(STREAMS_MAX);
    assert!(decode(&full).is_ok());
    let frame = with(full.clone(), 17, 17);
    refused(&frame, Malformed::TooManyStreams { got: 17, max: 16 }, DropReason::Malformed);
    refused(&with(full, 17, 15), Malformed::Reserved, DropReason::Malformed);
    refused(&with(good, 18, 1), Malformed::Reserved, DropReason::Malformed);
    for at in [17, 23, 16 + 56, 16 + 359] {
        refused(&with(challenge_frame(), at, 1), Malformed::Reserved, DropReason::Malformed);
    }
}

#[test]
fn an_answer_is_exactly_as_long_as_its_question() {
    assert_eq!(challenge_frame().len(), HANDSHAKE_FRAME_LEN);
    assert_eq!(hello_frame(0).len(), HANDSHAKE_FRAME_LEN);
    assert_eq!(hello_frame(STREAMS_MAX).len(), HANDSHAKE_FRAME_LEN);
}

#[test]
fn a_hello_is_read_back_as_it_was_written() {
    let bytes = hello_frame(3);
    let Ok(Frame::Handshake(frame)) = decode(&bytes) else { panic!("refused") };
    let HandshakeMessage::Hello(hello) = frame.message else { panic!("not a hello") };
    assert_eq!((hello.from(), hello.to()), (identity().public().id(), identity().public().id()));
    assert_eq!((hello.nonce(), hello.epoch()), (Nonce([1; 16]), Epoch::new(5)));
    assert_eq!((hello.life(), hello.boot()), (LifeId([2; 16]), BootId([3; 16])));
    assert_eq!(hello.challenge_sent_at(), Nanos::new(77));
    assert_eq!((hello.received_at(), hello.sent_at()), (Nanos::new(78), Nanos::new(79)));
    let streams: Vec<_> = hello.streams().map(|s| (s.topic.get(), s.next.get())).collect();
    assert_eq!(streams, [(1, 10), (2, 11), (3, 12)]);
    assert_eq!(frame.signed_bytes(), &bytes[16..16 + 360]);
}

#[test]
fn a_payload_that_is_too_long_is_not_written() {
    let mut slot = [0; FRAME_MAX];
    let write = |slot: &mut Slot, len| {
        envelope::encode(slot, cluster().tag(), &fields(KeyId::from_raw(1)), &vec![1; len])
    };
    assert_eq!(write(&mut slot, 1_025), Err(FrameTooLong { need: 1_105, room: 1_104 }));
    assert_eq!(write(&mut slot, 70_000), Err(FrameTooLong { need: 70_080, room: 1_104 }));
    assert_eq!(slot, [0; FRAME_MAX], "a refused write touched the slot");
    assert_eq!(write(&mut slot, PAYLOAD_MAX), Ok(HEADERS + PAYLOAD_MAX));
    // A slot that no encoder filled cannot make the signer read past the payload.
    let mut garbage = [0xff; FRAME_MAX];
    let signing = envelope::append_signature(&mut garbage, |_| [0; SIGNATURE_LEN]);
    assert_eq!(signing, Err(FrameTooLong { need: 65_679, room: 1_168 }));
}

#[test]
fn a_frame_is_written_into_room_that_is_just_enough_and_not_into_less() {
    for payload in [&[][..], &[1], &[1; 3], &[1; PAYLOAD_MAX]] {
        let unsigned = HEADERS + payload.len();
        let signed = unsigned + SIGNATURE_LEN;
        let mut room = vec![0; signed];
        let write = |room: &mut [u8]| {
            envelope::encode(room, cluster().tag(), &fields(KeyId::from_raw(1)), payload)
        };
        for short in 0..unsigned {
            let refused = Err(FrameTooLong { need: unsigned, room: short });
            assert_eq!(write(&mut room[..short]), refused);
        }
        assert!(room.iter().all(|byte| *byte == 0), "a refused write touched the room");
        assert_eq!(write(&mut room[..unsigned]), Ok(unsigned));
        let before = room.clone();
        let sign = |_: &[u8]| [2; SIGNATURE_LEN];
        for short in 0..signed {
            // Where not even the headers fit, nobody knows how long the payload is.
            let need =
                if short < HEADERS + SIGNATURE_LEN { HEADERS + SIGNATURE_LEN } else { signed };
            let refused = Err(FrameTooLong { need, room: short });
            assert_eq!(envelope::append_signature(&mut room[..short], sign), refused);
        }
        assert_eq!(room, before, "a refused signature touched the room");
        assert_eq!(envelope::append_signature(&mut room, sign), Ok(signed));
        assert_eq!(clear(&room).signature, Some(&[2; SIGNATURE_LEN]));
    }
}

#[test]
fn a_payload_can_be_written_where_it_is_signed() {
    let (identity, mut slot) = (identity(), [0; FRAME_MAX]);
    assert_eq!(envelope::payload_mut(&mut slot).len(), PAYLOAD_MAX);
    envelope::payload_mut(&mut slot)[..3].copy_from_slice(b"xyz");
    let fields = fields(identity.public().id());
    envelope::encode_in_place(&mut slot, cluster().tag(), &fields, 3).unwrap();
    let context = SigningContext::new(Domain::Envelope, &cluster());
    let len = identity.sign_envelope(&context, &mut slot).unwrap();
    let envelope = clear(&slot[..len]);
    let verified = verify_envelope(Trust::Signed, &context, identity.public(), envelope).unwrap();
    assert_eq!(verified.payload(), b"xyz");
}

#[test]
fn signatures_do_not_travel_between_clusters_kinds_or_keys() {
    let identity = identity();
    let frame = signed(b"go");
    let envelope = clear(&frame);
    let check =
        |context, key: &_| verify_envelope(Trust::Signed, &context, key, envelope).map(drop);
    let context = |domain, name| SigningContext::new(domain, &ClusterName::new(name).unwrap());
    let key = identity.public();
    assert_eq!(check(context(Domain::Envelope, "plant"), key), Ok(()));
    assert_eq!(check(context(Domain::Envelope, "plank"), key), Err(DropReason::BadSignature));
    assert_eq!(check(context(Domain::Envelope, "plant2"), key), Err(DropReason::BadSignature));
    assert_eq!(check(context(Domain::Envelope, "plan"), key), Err(DropReason::BadSignature));
    assert_eq!(check(context(Domain::Hello, "plant"), key), Err(DropReason::BadSignature));
    let other = Identity::from_secret(&Zeroizing::new([8; 32])).unwrap();
    assert_eq!(
        check(context(Domain::Envelope, "plant"), other.public()),
        Err(DropReason::UnknownKey)
    );
}

#[test]
fn unsigned_envelopes_pass_only_where_trust_is_open_and_forged_ones_not_even_there() {
    let (identity, context) = (identity(), SigningContext::new(Domain::Envelope, &cluster()));
    let frame = unsigned(b"x");
    let check = |trust, bytes| verify_envelope(trust, &context, identity.public(), clear(bytes));
    assert_eq!(check(Trust::Signed, &frame).unwrap_err(), DropReason::NotSigned);
    assert!(!check(Trust::Open, &frame).unwrap().was_signed());
    let good = signed(b"x");
    assert!(check(Trust::Open, &good).unwrap().was_signed());
    let forged = with(good.clone(), good.len() - 70, 0x55);
    let forged = clear(&forged);
    for trust in [Trust::Signed, Trust::Open] {
        let result = verify_envelope(trust, &context, identity.public(), forged);
        assert_eq!(result.unwrap_err(), DropReason::BadSignature);
    }
}

/// A frame and its cluster filter and signature: what stands between the wire and a subscriber.
fn passes(bytes: &[u8]) -> bool {
    let context = SigningContext::new(Domain::Envelope, &cluster());
    let Ok(raw) = sinew_io::wire::RawFrame::parse(bytes) else { return false };
    if raw.header.cluster() != cluster().tag() {
        return false;
    }
    match raw.contents() {
        Ok(Frame::Clear(envelope)) => {
            verify_envelope(Trust::Signed, &context, identity().public(), envelope).is_ok()
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_envelope_is_read_back_as_it_was_written(
        ids in any::<[u64; 6]>(), sent_at in any::<i64>(), lifespan_us in any::<u32>(),
        class in 1u8..=5, tag in any::<u32>(),
        payload in proptest::collection::vec(any::<u8>(), 0..=PAYLOAD_MAX),
        sign in any::<bool>(),
    ) {
        let fields = EnvelopeFields {
            source: KeyId::from_raw(ids[0]), destination: KeyId::from_raw(ids[1]),
            topic: TopicId::from_raw(ids[2]), schema: SchemaId::from_raw(ids[3]),
            epoch: Epoch::new(ids[4]), sequence: Sequence::new(ids[5]),
            sent_at: Nanos::new(sent_at), lifespan_us, class: Class::from_wire(class).unwrap(),
        };
        let mut slot = [0; FRAME_MAX];
        let tag = ClusterTag::from_raw(tag);
        let mut len = envelope::encode(&mut slot, tag, &fields, &payload).unwrap();
        let covered = Cell::new((0, 0));
        if sign {
            len = envelope::append_signature(&mut slot, |bytes| {
                covered.set((bytes.as_ptr() as usize, bytes.len()));
                [0x5a; SIGNATURE_LEN]
            }).unwrap();
        }
        let bytes = &slot[..len];
        prop_assert_eq!(sinew_io::wire::RawFrame::parse(bytes).unwrap().header.cluster(), tag);
        let envelope = clear(bytes);
        let header = envelope.header;
        prop_assert_eq!([header.source().get(), header.destination().get(), header.topic().get(),
            header.schema().get(), header.epoch().get(), header.sequence().get()], ids);
        prop_assert_eq!(header.sent_at(), Nanos::new(sent_at));
        prop_assert_eq!(header.class(), Some(fields.class));
        let lifespan = (lifespan_us != 0).then(|| Nanos::from_micros(i64::from(lifespan_us)));
        prop_assert_eq!(header.lifespan(), lifespan);
        prop_assert_eq!(envelope.payload, &payload[..]);
        prop_assert_eq!(header.is_signed(), sign);
        prop_assert_eq!(envelope.signature, sign.then_some(&[0x5a; SIGNATURE_LEN]));
        prop_assert_eq!(envelope.signed_bytes(), &bytes[16..HEADERS + payload.len()]);
        if sign {
            let signed = envelope.signed_bytes();
            prop_assert_eq!(covered.get(), (signed.as_ptr() as usize, signed.len()));
        }
    }

    #[test]
    fn a_mutated_signed_frame_is_refused_unless_it_is_the_same_frame(
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in 0usize..8, extra in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        let good = signed(&payload);
        let mut frame = good.clone();
        for (at, byte) in edits {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if cut > 5 {
            frame.truncate(good.len() - cut + 5);
        }
        frame.extend(extra);
        prop_assert_eq!(passes(&frame), frame == good);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_300)) {
        prop_assert!(decode(&bytes).is_err());
    }
}

/// The inputs that the fuzz targets start from, by target and name.
fn fuzz_seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    // As `fuzz/fuzz_targets/hello.rs` has it: key 1 challenges key 2.
    let [from, to] = [1, 2].map(|seed| Identity::from_secret(&Zeroizing::new([seed; 32])).unwrap());
    let ids = [from.public().id(), to.public().id()];
    let context = SigningContext::new(Domain::Challenge, &cluster());
    let asked = Challenge::new(ids[0], ids[1], Nonce([1; 16]), Epoch::new(4), Nanos::new(77));
    let sign = |body: &[u8]| from.sign(&[context.as_bytes(), body]);
    let handshake = encode_challenge(cluster().tag(), &asked, sign).to_vec();
    let key = sinew_io::security::keyfile::format(&from);
    let counter = sinew_io::security::BootCounter::new(Epoch::new(17)).format();
    vec![
        ("frame", "unsigned", unsigned(b"abc")),
        ("frame", "signed", signed(&[7; 32])),
        ("frame", "challenge", challenge_frame()),
        ("frame", "hello", hello_frame(3)),
        ("hello", "challenge", handshake),
        ("hello", "hello", hello_frame(STREAMS_MAX)),
        ("keyfile", "key", key.as_bytes().to_vec()),
        ("keyfile", "did", from.public().to_did().into_bytes()),
        ("keyfile", "boot", counter.into_bytes()),
    ]
}

fn fuzz_seed_path(target: &str, name: &str) -> std::path::PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
    [root, target, name].iter().collect()
}

#[test]
#[ignore = "writes fuzz/seeds: run it after the format changed"]
fn write_the_fuzz_seeds() {
    for (target, name, bytes) in fuzz_seeds() {
        let path = fuzz_seed_path(target, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_fuzz_seeds_are_what_this_format_writes() {
    for (target, name, bytes) in fuzz_seeds() {
        let stored = std::fs::read(fuzz_seed_path(target, name)).unwrap();
        assert_eq!(
            stored, bytes,
            "{target}/{name}: run `cargo test -- --ignored write_the_fuzz_seeds`"
        );
    }
}
