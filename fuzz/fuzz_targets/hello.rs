//! Handshakes: whatever the bytes, they neither panic nor count as anything without a signature.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sinew_io::security::{
    Enrolment, Handshake, Identity, OwnLife, Peer, PeerIndex, Publishes, Received,
};
use sinew_io::wire::hello::{HANDSHAKE_FRAME_LEN, STREAMS_MAX};
use sinew_io::wire::{
    BootId, ClusterName, Epoch, Frame, HandshakeMessage, LifeId, Sequence, StreamStart, TopicId,
    decode,
};
use sinew_rt::clock::Nanos;
use zeroize::Zeroizing;

fn identity(seed: u8) -> Identity {
    Identity::from_secret(&Zeroizing::new([seed; 32])).expect("a good key")
}

/// The node of the seeds (key 2), whose peer (key 1) has sent the recorded challenge in them.
fn node() -> Handshake {
    let key = *identity(1).public();
    let peer = Peer { name: "peer".into(), key, publishes: Publishes::Anything };
    let own = OwnLife { epoch: Epoch::new(1), life: LifeId([1; 16]), boot: BootId([1; 16]) };
    let enrolment = Arc::new(Enrolment::new(vec![peer]).expect("one peer"));
    let cluster = ClusterName::new("plant").expect("a good name");
    let mut node = Handshake::new(Arc::new(identity(2)), enrolment, &cluster, own, Nanos::ZERO);
    node.poll(Nanos::ZERO, &mut |room| room.fill(7)).expect("a challenge is due");
    node
}

thread_local! {
    static NODE: RefCell<Handshake> = RefCell::new(node());
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Frame::Handshake(frame)) = decode(bytes) {
        assert_eq!(bytes.len(), HANDSHAKE_FRAME_LEN);
        if let HandshakeMessage::Hello(hello) = frame.message {
            assert!(hello.streams().count() <= STREAMS_MAX);
        }
    }
    NODE.with_borrow_mut(|node| {
        let streams = [StreamStart { topic: TopicId::of("a"), next: Sequence::FIRST }];
        let received = Received { bytes, at: Nanos::ZERO };
        // The recorded challenge is good once; nothing that was mutated ever is.
        let _ = node.handle(Nanos::ZERO, received, &streams);
        let status = node.status(PeerIndex::new(0)).expect("the peer");
        assert_eq!(status.epoch, Epoch::NONE, "an unsigned hello was believed");
    });
});
