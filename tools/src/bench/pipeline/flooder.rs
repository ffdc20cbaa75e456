//! The attacker: datagrams from an address of its own, as fast as one core at normal priority gives.

use ed25519_dalek::{Signer, SigningKey};
use sinew_io::message::schema_id;
use sinew_io::security::PublicKey;
use sinew_io::wire::envelope::{append_signature, encode};
use sinew_io::wire::{
    Class, ClusterName, EnvelopeFields, Epoch, FRAME_MAX, KeyId, Sequence, Slot, TopicId,
};
use sinew_rt::clock::{self, Nanos};
use std::net::{SocketAddr, UdpSocket};
use zerocopy::IntoBytes;

use super::load::Load;
use super::mesh::{CLUSTER, PING};
use super::order::{Flood, FloodKind};
use super::recording::Recording;
use super::schedule::Window;

/// Datagrams between two looks at the clock.
const PER_LOOK: u32 = 32;
/// Datagrams that differ, so that the receiver cannot take them for repetitions.
const DATAGRAMS: u64 = 64;

/// A flood that is ready to begin.
pub(crate) struct Flooder {
    socket: UdpSocket,
    datagrams: Vec<Vec<u8>>,
    flood: Flood,
}

impl Flooder {
    /// Binds an address that is nobody's and makes the datagrams.
    pub(crate) fn new(flood: Flood) -> Result<Self, String> {
        // Another loopback address: as far as the receiver can tell, another host.
        let from = SocketAddr::from(([127, 0, 0, 2], 0));
        let socket = UdpSocket::bind(from).map_err(|error| format!("bind {from}: {error}"))?;
        socket.connect(flood.target).map_err(|error| format!("{}: {error}", flood.target))?;
        let datagrams = (0..DATAGRAMS).map(|n| forged(&flood, n)).collect::<Result<Vec<_>, _>>()?;
        let datagrams = match flood.kind {
            FloodKind::Forged => datagrams,
            // Of the same length, so that the two floods differ in nothing else.
            FloodKind::Garbage => {
                datagrams.into_iter().map(|frame| vec![0x5a; frame.len()]).collect()
            }
        };
        Ok(Self { socket, datagrams, flood })
    }

    /// Sends during the bursts.
    pub(crate) fn run(&self, start: Nanos, recording: &Recording) {
        let mut datagrams = self.datagrams.iter().cycle();
        loop {
            match self.flood.bursts.window(start, clock::now()) {
                Window::Over => return,
                Window::Pause(next) => clock::sleep_until(next),
                Window::Burst(_) => {
                    for datagram in datagrams.by_ref().take(PER_LOOK as usize) {
                        if self.socket.send(datagram).is_ok() {
                            recording.sent();
                        }
                    }
                }
            }
        }
    }
}

/// A frame as the victim would send it in its present life, new to the receiver's window, whose
/// signature is not the victim's.
fn forged(flood: &Flood, n: u64) -> Result<Vec<u8>, String> {
    let victim = PublicKey::from_did(&flood.victim.identity).map_err(|error| error.to_string())?;
    let cluster = ClusterName::new(CLUSTER).map_err(|error| error.to_string())?;
    let fields = EnvelopeFields {
        source: victim.id(),
        destination: KeyId::EVERYONE,
        topic: TopicId::of(PING),
        schema: schema_id::<Load>(),
        epoch: Epoch::new(flood.victim_epoch),
        // Ahead of the genuine stream, so that each one gets as far as the signature.
        sequence: Sequence::new(30_000 + n),
        sent_at: clock::now(),
        lifespan_us: 0,
        class: Class::Control,
    };
    let load = Load::new(n, clock::now(), clock::now());
    let mut slot: Slot = [0; FRAME_MAX];
    let too_long = |error: sinew_io::wire::FrameTooLong| error.to_string();
    encode(&mut slot, cluster.tag(), &fields, load.as_bytes()).map_err(too_long)?;
    // A whole signature, of another key: nothing about it is wrong before the curve has spoken.
    let forger = SigningKey::from_bytes(&[13; 32]);
    let len = append_signature(&mut slot, |signed| forger.sign(signed).to_bytes());
    let len = len.map_err(too_long)?;
    Ok(slot[..len].to_vec())
}
