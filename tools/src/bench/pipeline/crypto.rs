//! What signing and strictly checking one message cost by themselves: at the pace of the messages,
//! and one after the other.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sinew_io::wire::Domain;
use sinew_io::wire::envelope::ENVELOPE_HEADER_LEN;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::stack;
use std::hint::black_box;

use super::bare::wait_until;
use super::load::LOAD_LEN;
use super::mesh::CLUSTER;
use super::order::{Leg, Pace, Role, Waits};
use super::recording::Recording;
use super::schedule::{Ticks, Window};

/// Bytes that the signature of a message of the bench's nodes covers: context (domain and length,
/// name of the cluster), header and payload.
pub(super) const SIGNED_LEN: usize =
    Domain::LEN + 1 + CLUSTER.len() + ENVELOPE_HEADER_LEN + LOAD_LEN;
/// Different messages, so that no cache or predictor learns one by heart.
const MESSAGES: usize = 64;

/// Messages with their signatures.
struct Signed {
    signing: SigningKey,
    verifying: VerifyingKey,
    messages: Vec<([u8; SIGNED_LEN], Signature)>,
}

impl Signed {
    fn new() -> Self {
        let signing = SigningKey::from_bytes(&[11; 32]);
        let messages = (0..MESSAGES).map(|n| {
            let bytes = [n as u8; SIGNED_LEN];
            (bytes, signing.sign(&bytes))
        });
        Self { messages: messages.collect(), verifying: signing.verifying_key(), signing }
    }
}

/// Signs (at the sender) or checks (at the receiver) one message at each scheduled time; the two
/// run half an interval apart.
pub(crate) fn paced(leg: &Leg, role: Role, start: Nanos, recording: &Recording) {
    let signed = Signed::new();
    let Pace::Every(interval) = leg.pace else { return };
    let offset = if role == Role::Sender { Nanos::ZERO } else { Nanos::new(interval / 2) };
    let ticks = Ticks::new(leg.bursts, start, Nanos::new(interval));
    for ((message, signature), due) in signed.messages.iter().cycle().zip(ticks) {
        let due = due + offset;
        wait_until(due, leg.waits == Waits::Spin);
        let begin = clock::now();
        match role {
            Role::Sender => {
                black_box(signed.signing.sign(black_box(message)));
            }
            _ => {
                let good = signed.verifying.verify_strict(black_box(message), signature).is_ok();
                assert!(good, "a signature made a moment ago is good");
            }
        }
        let end = clock::now();
        recording.record(end - begin, end - due, end);
    }
}

/// Positions of the stack over which the loop of checks goes, so that no luck with one is judged.
const POSITIONS: usize = 16;

/// Checks one message after the other during the bursts; a span is the time of `leg.batch` checks, all
/// at one position of the stack, and the next span has the next position.
pub(crate) fn verify_loop(leg: &Leg, start: Nanos, recording: &Recording) {
    let signed = Signed::new();
    let mut messages = signed.messages.iter().cycle();
    let mut positions = (0..POSITIONS).map(|n| n * (stack::PERIOD / POSITIONS)).cycle();
    loop {
        match leg.bursts.window(start, clock::now()) {
            Window::Over => return,
            Window::Pause(next) => clock::sleep_until(next),
            Window::Burst(until) => {
                let mut begin = clock::now();
                while begin < until {
                    stack::at_offset(positions.next().unwrap_or_default(), || {
                        for (message, signature) in messages.by_ref().take(leg.batch as usize) {
                            let good =
                                signed.verifying.verify_strict(black_box(message), signature);
                            assert!(good.is_ok(), "a signature made a moment ago is good");
                            recording.received();
                        }
                    });
                    let end = clock::now();
                    recording.record(end - begin, end - begin, end);
                    begin = end;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sinew_io::message::schema_id;
    use sinew_io::wire::envelope::{append_signature, encode};
    use sinew_io::wire::{
        Class, ClusterName, EnvelopeFields, Epoch, FRAME_MAX, Frame, KeyId, Sequence,
        SigningContext, Slot, TopicId, decode,
    };
    use zerocopy::IntoBytes;

    use super::super::load::Load;
    use super::super::mesh::PING;
    use super::*;

    #[test]
    fn as_many_bytes_are_signed_as_a_node_signs_for_the_same_message() {
        let cluster = ClusterName::new(CLUSTER).unwrap();
        let fields = EnvelopeFields {
            source: KeyId::EVERYONE,
            destination: KeyId::EVERYONE,
            topic: TopicId::of(PING),
            schema: schema_id::<Load>(),
            epoch: Epoch::new(1),
            sequence: Sequence::new(1),
            sent_at: Nanos::ZERO,
            lifespan_us: 0,
            class: Class::Control,
        };
        let load = Load::new(1, Nanos::ZERO, Nanos::ZERO);
        let mut slot: Slot = [0; FRAME_MAX];
        encode(&mut slot, cluster.tag(), &fields, load.as_bytes()).unwrap();
        let len = append_signature(&mut slot, |_| [0; 64]).unwrap();
        let Ok(Frame::Clear(envelope)) = decode(&slot[..len]) else { panic!("an envelope") };
        let context = SigningContext::new(Domain::Envelope, &cluster);
        assert_eq!(SIGNED_LEN, context.as_bytes().len() + envelope.signed_bytes().len());
    }
}
