//! Frames: whatever the bytes, decoding neither panics nor accepts a frame that it would not write.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sinew_io::delivery::DropReason;
use sinew_io::wire::envelope::append_signature;
use sinew_io::wire::{EnvelopeFields, FRAME_MAX, Frame, RawFrame, decode, envelope};

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Err(malformed) => {
            let _ = DropReason::from(malformed).as_str();
        }
        Ok(Frame::Handshake(frame)) => assert_eq!(frame.signed_bytes().len(), bytes.len() - 80),
        Ok(Frame::Clear(read)) => {
            let header = read.header;
            let fields = EnvelopeFields {
                source: header.source(),
                destination: header.destination(),
                topic: header.topic(),
                schema: header.schema(),
                epoch: header.epoch(),
                sequence: header.sequence(),
                sent_at: header.sent_at(),
                lifespan_us: header.lifespan().map_or(0, |span| (span / 1_000).as_nanos() as u32),
                class: header.class().expect("decoded"),
            };
            let cluster = RawFrame::parse(bytes).expect("decoded").header.cluster();
            let mut slot = [0; FRAME_MAX];
            let mut len =
                envelope::encode(&mut slot, cluster, &fields, read.payload).expect("fits");
            if let Some(signature) = read.signature {
                len = append_signature(&mut slot, |_| *signature).expect("fits");
            }
            assert_eq!(&slot[..len], bytes, "accepted a frame that we would not write");
        }
    }
});
