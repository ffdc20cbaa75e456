//! The yardstick: plain UDP programs, one connected socket on each side, written as anybody would.

use ed25519_dalek::{Signature, SignatureError, Signer, SigningKey, VerifyingKey};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sinew_rt::clock::{self, Nanos};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

use super::crypto::SIGNED_LEN;
use super::load::{LOAD_LEN, Load};
use super::order::{Leg, Pace, Protection, Role, Sleep, Waits};
use super::recording::{Late, Recording};
use super::schedule::{Bursts, Stall, Ticks, Volleys, Window};

const SIGNATURE_LEN: usize = 64;
/// The key of the plain programs that sign: a measurement needs no secret.
const SECRET: [u8; 32] = [7; 32];
/// Empty reads of a spinning program between two looks at the clock.
const READS_PER_LOOK: u32 = 64;

/// One side of a plain program.
pub(crate) struct Bare {
    socket: UdpSocket,
    wait: Wait,
    keys: Option<Keys>,
    pace: Pace,
    bursts: Bursts,
    stall: Option<Stall>,
    late: Late,
    recording: Arc<Recording>,
    buffer: [u8; 2_048],
}

/// Signs and checks as many bytes as a node does for the same message: a longer message is one more
/// or less block to hash on both sides, which is not what the two are compared for. Beside the load,
/// that is a header that never changes, so both ends know it and it does not travel.
struct Keys {
    signing: SigningKey,
    verifying: VerifyingKey,
    message: [u8; SIGNED_LEN],
}

impl Keys {
    fn new() -> Self {
        let signing = SigningKey::from_bytes(&SECRET);
        Self { verifying: signing.verifying_key(), signing, message: [0x5a; SIGNED_LEN] }
    }

    #[inline]
    fn sign(&mut self, load: &[u8]) -> Signature {
        self.message[SIGNED_LEN - LOAD_LEN..].copy_from_slice(load);
        self.signing.sign(&self.message)
    }

    #[inline]
    fn verify(&mut self, load: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        self.message[SIGNED_LEN - LOAD_LEN..].copy_from_slice(load);
        self.verifying.verify_strict(&self.message, signature)
    }
}

enum Wait {
    Spin,
    Recv,
    Poll(Box<(Poll, Events)>),
}

/// Ends a program that sleeps, from another thread.
pub(crate) struct Stop(Socket);

impl Stop {
    pub(crate) fn stop(&self) {
        // A socket that is not connected any more has nobody to wake.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Bare {
    /// Binds and connects.
    pub(crate) fn new(
        leg: &Leg,
        sleep: Sleep,
        protection: Protection,
        own: SocketAddr,
        peer: SocketAddr,
        recording: Arc<Recording>,
    ) -> io::Result<(Self, Stop)> {
        let socket = Socket::new(Domain::for_address(own), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(1 << 20)?;
        socket.bind(&own.into())?;
        socket.connect(&peer.into())?;
        let wait = match (leg.waits, sleep) {
            (Waits::Spin, _) => Wait::Spin,
            (Waits::Park, Sleep::Recv) => Wait::Recv,
            (Waits::Park, Sleep::Poll) => {
                let poll = Poll::new()?;
                let mut source = SourceFd(&socket.as_raw_fd());
                poll.registry().register(&mut source, Token(0), Interest::READABLE)?;
                Wait::Poll(Box::new((poll, Events::with_capacity(4))))
            }
        };
        socket.set_nonblocking(!matches!(wait, Wait::Recv))?;
        let keys = (protection == Protection::Signed).then(Keys::new);
        let stop = Stop(socket.try_clone()?);
        let bare = Self {
            socket: socket.into(),
            wait,
            keys,
            pace: leg.pace,
            bursts: leg.bursts,
            stall: leg.stall,
            late: Late::new(leg.waits, matches!(leg.pace, Pace::Every(_))),
            recording,
            buffer: [0; 2_048],
        };
        Ok((bare, stop))
    }

    /// Does the role's part until the bursts are over, or the socket is shut down.
    pub(crate) fn run(mut self, role: Role, start: Nanos) {
        match (role, self.pace) {
            (Role::Sender, Pace::Every(interval)) => self.send_on_schedule(start, interval),
            (Role::Sender, _) => self.serve(start),
            (_, pace) => self.receive_all(start, pace == Pace::PingPong),
        }
    }

    fn send_on_schedule(&mut self, start: Nanos, interval: i64) {
        let ticks = Ticks::new(self.bursts, start, Nanos::new(interval));
        for (number, due) in ticks.enumerate() {
            if due > clock::now() {
                wait_until(due, matches!(self.wait, Wait::Spin));
            }
            // What is too late even for its burst does not leave: a rate that cannot be achieved
            // must not keep the core for good.
            match self.bursts.window(start, clock::now()) {
                Window::Burst(_) => self.send(number as u64, due),
                Window::Pause(_) => {}
                Window::Over => return,
            }
        }
    }

    /// The side of a ping-pong that begins.
    fn serve(&mut self, start: Nanos) {
        let mut number = 0;
        for (from, until) in Volleys::new(self.bursts, start) {
            wait_until(from, matches!(self.wait, Wait::Spin));
            let mut due = clock::now();
            while due < until && !self.recording.is_full() {
                self.send(number, due);
                number += 1;
                match self.receive(until) {
                    Some((now, answer)) => {
                        self.recording.record(now - answer.sent_at(), now - answer.due_at(), now);
                        due = now;
                    }
                    None => break,
                }
            }
        }
    }

    fn receive_all(&mut self, start: Nanos, answers: bool) {
        loop {
            let now = clock::now();
            Stall::pause(&mut self.stall, start, now);
            let until = match (&self.wait, self.bursts.window(start, now)) {
                (Wait::Spin, Window::Over) => return,
                (Wait::Spin, Window::Pause(next)) => {
                    clock::sleep_until(next);
                    continue;
                }
                (Wait::Spin, Window::Burst(until)) => until,
                // Sleeps until the socket is shut down.
                _ => Nanos::MAX,
            };
            match self.receive(until) {
                Some((now, load)) => {
                    self.recording.record(now - load.sent_at(), now - load.due_at(), now);
                    if answers {
                        self.send(0, now);
                    }
                    self.late.see(&self.recording, now - load.due_at(), now);
                }
                None if until == Nanos::MAX => return,
                None => {}
            }
        }
    }

    #[inline]
    fn send(&mut self, number: u64, due: Nanos) {
        let load = Load::new(number, due, clock::now());
        let sent = match &mut self.keys {
            None => self.socket.send(load.as_bytes()),
            Some(keys) => {
                let mut bytes = [0; LOAD_LEN + SIGNATURE_LEN];
                bytes[..LOAD_LEN].copy_from_slice(load.as_bytes());
                bytes[LOAD_LEN..].copy_from_slice(&keys.sign(load.as_bytes()).to_bytes());
                self.socket.send(&bytes)
            }
        };
        if sent.is_ok() {
            self.recording.sent();
        }
    }

    /// The next message and when it was there; `None` at `until` (spinning) or when the socket was
    /// shut down (sleeping).
    #[inline]
    fn receive(&mut self, until: Nanos) -> Option<(Nanos, Load)> {
        loop {
            let len = match &mut self.wait {
                Wait::Spin => spin(&self.socket, &mut self.buffer, until)?,
                Wait::Recv => self.socket.recv(&mut self.buffer).unwrap_or(0),
                Wait::Poll(poll) => {
                    let (poll, events) = &mut **poll;
                    match self.socket.recv(&mut self.buffer) {
                        Ok(len) => len,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            // Interrupted or not: the next read says what there is.
                            let _ = poll.poll(events, None);
                            if events.iter().any(mio::event::Event::is_read_closed) {
                                return None;
                            }
                            continue;
                        }
                        Err(_) => 0,
                    }
                }
            };
            if len == 0 {
                return None;
            }
            if let Some(load) = self.open(len) {
                let now = clock::now();
                self.recording.received();
                return Some((now, load));
            }
        }
    }

    /// The message in the first `len` bytes, if it is one and genuine.
    #[inline]
    fn open(&mut self, len: usize) -> Option<Load> {
        let (load, signature) = self.buffer.get(..len)?.split_at_checked(LOAD_LEN)?;
        if let Some(keys) = &mut self.keys {
            let signature = Signature::from_bytes(signature.try_into().ok()?);
            keys.verify(load, &signature).ok()?;
        }
        Load::read_from_bytes(load).ok()
    }
}

/// Reads until something comes. A plain program would not look at the clock; this one must end.
#[inline]
fn spin(socket: &UdpSocket, buffer: &mut [u8], until: Nanos) -> Option<usize> {
    loop {
        for _ in 0..READS_PER_LOOK {
            if let Ok(len) = socket.recv(buffer) {
                return Some(len);
            }
            std::hint::spin_loop();
        }
        if clock::now() >= until {
            return None;
        }
    }
}

/// Waits for an instant: spinning for the last 2 ms, or asleep all the time.
#[inline]
pub(crate) fn wait_until(due: Nanos, spins: bool) {
    const NEAR: Nanos = Nanos::from_millis(2);
    if !spins {
        clock::sleep_until(due);
        return;
    }
    if due - clock::now() > NEAR {
        clock::sleep_until(due - NEAR);
    }
    while clock::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Program;
    use super::*;

    #[test]
    fn a_plain_program_signs_and_checks_as_many_bytes_as_a_node() {
        let mut keys = Keys::new();
        let load = [3; LOAD_LEN];
        let signature = keys.sign(&load);
        let mut message = [0x5a; SIGNED_LEN];
        message[SIGNED_LEN - LOAD_LEN..].copy_from_slice(&load);
        keys.verifying.verify_strict(&message, &signature).unwrap();
        keys.verifying.verify_strict(&load, &signature).unwrap_err();
        keys.verify(&load, &signature).unwrap();
        keys.verify(&[4; LOAD_LEN], &signature).unwrap_err();
    }

    const PERIOD: Nanos = Nanos::from_millis(1);
    const STALL: Nanos = Nanos::from_millis(50);

    /// A sender and a receiver that stalls once, on loopback: the receiver's spans from the schedule.
    fn stalled(pace: Pace) -> Vec<u32> {
        let bursts = Bursts::single(Nanos::from_millis(300));
        let stall = Stall { after_ns: 100_000_000, for_ns: STALL.as_nanos() };
        let leg = Leg {
            program: Program::Bare(Sleep::Poll, Protection::Open),
            waits: Waits::Park,
            pace,
            bursts,
            samples_max: 100_000,
            warm_up: 10,
            batch: 1,
            stall: Some(stall),
            priority: 0,
        };
        let address = || UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let (from, to) = (address(), address());
        let recordings = [(); 2].map(|()| Recording::new(leg.samples_max, leg.warm_up));
        let [sent, received] = recordings.clone();
        let side = |own, peer, recording| {
            Bare::new(&leg, Sleep::Poll, Protection::Open, own, peer, recording).unwrap()
        };
        let (receiver, stop) = side(to, from, received);
        let (sender, _) = side(from, to, sent);
        let start = clock::now() + Nanos::from_millis(20);
        std::thread::scope(|scope| {
            scope.spawn(move || receiver.run(Role::Receiver, start));
            scope.spawn(move || sender.run(Role::Sender, start)).join().unwrap();
            clock::sleep_until(start + bursts.span() + Nanos::from_millis(60));
            stop.stop();
        });
        recordings[1].findings().from_schedule_ns
    }

    #[test]
    fn a_stalled_receiver_shows_in_every_message_that_waited_and_in_a_closed_loop_in_one() {
        let open = stalled(Pace::Every(PERIOD.as_nanos()));
        let longest = open.iter().position(|ns| Some(ns) == open.iter().max()).unwrap();
        let ms = |ns: u32| f64::from(ns) / 1e6;
        let first = ms(open[longest]);
        assert!(first > 45.0, "the first message behind the stall waited {first} ms");
        // Each that follows was due one period later and is read in the same moment.
        for (n, ns) in open[longest..].iter().take(40).enumerate() {
            let expected = first - n as f64;
            assert!((ms(*ns) - expected).abs() < 10.0, "message {n}: {} ms", ms(*ns));
        }
        let waited = |spans: &[u32]| spans.iter().filter(|ns| ms(**ns) > 5.0).count();
        assert!(waited(&open) >= 40, "{} waited", waited(&open));
        // A machine that is busy with something else makes some wait besides, but not in each run.
        let closed: Vec<usize> = (0..3).map(|_| waited(&stalled(Pace::PingPong))).collect();
        let fewest = closed.iter().min().unwrap();
        assert!(
            (1..10).contains(fewest),
            "a closed loop sends nothing while it waits: {closed:?} waited"
        );
    }
}
