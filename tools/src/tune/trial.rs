//! Two nodes of this process that talk over loopback UDP: the one under trial runs exactly the
//! `[realtime]` section that would be written, the other is the same in every trial.
//!
//! Each publishes one signed message a period, half a period apart, from a stage on its lane. What
//! counts is the age of a message when the node under trial delivers it, from its panel: the only
//! place that all layouts pass alike. Idle first, then while the other core copies memory.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hdrhistogram::Histogram;
use sinew_io::message::Message;
use sinew_io::node::{Layout, Node, NodeBuilder, PeerConfig, Publisher, RealTimeConfig};
use sinew_io::security::Identity;
use sinew_rt::clock::{self, Nanos};
use sinew_rt::guard::{Execution, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::lane::Stage;
use sinew_rt::panel::{Kind, PanelSnapshot};
use sinew_rt::topology::CoreId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::facts::StageWork;
use super::granted::Granted;
use crate::bench::load::Load;
use crate::bench::stats::Samples;
use crate::exit::Failure;

/// To the node under trial, and back.
const SETPOINT: &str = "tune/setpoint";
const STATE: &str = "tune/state";
/// Periods before the first that counts.
const WARM_UP: Nanos = Nanos::from_millis(40);
/// After each part: what was sent has arrived, and the panel is read.
const SETTLE: Nanos = Nanos::from_millis(20);
/// Nodes of one process know each other within this, or something is wrong.
const HANDSHAKE_LIMIT: Nanos = Nanos::from_secs(10);

/// 256 bytes with the time of sending.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sample {
    sent_at_ns: i64,
    padding: [u8; 248],
}

impl Message for Sample {
    const NAME: &'static str = "TuneSample@1";
}

/// Everything that stays the same from one trial to the next.
pub(super) struct Ground {
    pub(super) rate_hz: u32,
    /// Of the other node's lane.
    pub(super) peer_core: CoreId,
    /// Where memory is copied in the loaded part.
    pub(super) busy: Vec<CoreId>,
    /// Length of each of the two parts; a lane under trial may spin for both.
    pub(super) part: Nanos,
}

/// What one trial gave.
pub(super) struct Leg {
    pub(super) idle: Samples,
    pub(super) loaded: Samples,
    pub(super) work: Option<StageWork>,
    /// Messages to the node that were not delivered within the trial. Each counts in the loaded part,
    /// as old as that part was long: what never arrives must not look fast.
    pub(super) lost: u64,
}

/// When a node's stage sends: in three parts, with time between them to read the panel.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    period: Nanos,
    /// Messages before those that count, and in each of the two parts.
    counts: [i64; 3],
}

impl Schedule {
    fn new(ground: &Ground) -> Self {
        let period = Nanos::from_secs(1) / i64::from(ground.rate_hz);
        let count = |span: Nanos| (span.as_nanos() / period.as_nanos()).max(1);
        Self { period, counts: [count(WARM_UP), count(ground.part), count(ground.part)] }
    }

    fn total(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// When the part begins and ends, counted from the start.
    fn part(&self, part: usize) -> (Nanos, Nanos) {
        let before: i64 = self.counts[..part].iter().sum();
        let begin = self.period * before + SETTLE * (2 * part as i64);
        (begin, begin + self.period * self.counts[part])
    }

    /// When message `number` is due; `None` after the last.
    fn due(&self, number: i64) -> Option<Nanos> {
        let mut first = 0;
        for (part, count) in self.counts.iter().enumerate() {
            if number < first + count {
                return Some(self.part(part).0 + self.period * (number - first));
            }
            first += count;
        }
        None
    }
}

/// Publishes on schedule.
struct Sender {
    publisher: Publisher<Sample>,
    schedule: Schedule,
    /// Zero until it is known.
    start: Arc<AtomicI64>,
    offset: Nanos,
    number: i64,
}

impl Sender {
    fn due(&self) -> Option<Nanos> {
        match self.start.load(Ordering::Relaxed) {
            0 => None,
            start => Some(Nanos::new(start) + self.offset + self.schedule.due(self.number)?),
        }
    }
}

impl Stage for Sender {
    fn poll(&mut self, now: Nanos) -> Execution {
        let Some(due) = self.due().filter(|due| now >= *due) else { return Execution::Idle };
        let sent_at = clock::now();
        let sample = Sample { sent_at_ns: sent_at.as_nanos(), padding: [7; 248] };
        // A full ring loses this one: the missing message is counted at the other end.
        let _ = self.publisher.publish_at(&sample, sent_at);
        self.number += 1;
        Execution::Worked { released: due }
    }

    fn next_deadline(&self) -> Option<Nanos> {
        match self.start.load(Ordering::Relaxed) {
            // The start is near when the lanes run, and nobody rings.
            0 => Some(clock::now() + Nanos::from_millis(1)),
            _ => self.due(),
        }
    }
}

/// Runs both nodes once. `realtime` is the `[realtime]` section (and what goes with it) to be tried.
pub(super) fn run(realtime: &str, ground: &Ground, granted: &mut Granted) -> Result<Leg, Failure> {
    let dir = tempfile::Builder::new().prefix("sinew-tune-").tempdir().map_err(Failure::machine)?;
    let schedule = Schedule::new(ground);
    let identities = [identity()?, identity()?];
    let addresses = free_addresses()?;
    let did = |n: usize| identities[n].public().to_did();
    let peer = |n: usize, publishes: &str| PeerConfig {
        name: "other".to_owned(),
        identity: did(n),
        address: addresses[n],
        publishes: vec![publishes.to_owned()],
    };
    let path = dir.path().join("trial.toml");
    let text = format!(
        "[node]\nname = \"tune-{}\"\nmode = \"development\"\ncluster = \"tune\"\n\n[transport]\n\
         bind = \"{}\"\n\n{realtime}",
        std::process::id(),
        addresses[0],
    );
    std::fs::write(&path, text).map_err(Failure::machine)?;
    let tried = Node::from_config(&path)?.peer(peer(1, SETPOINT));
    let other = Node::builder(format!("tune-peer-{}", std::process::id()))
        .development()
        .cluster("tune")
        .udp(addresses[1])
        .peer(peer(0, STATE))
        .realtime(RealTimeConfig {
            layout: Layout::Fused,
            cores: vec![ground.peer_core],
            ..RealTimeConfig::default()
        });
    let [identity_tried, identity_other] = identities;
    let start = Arc::new(AtomicI64::new(0));
    let seat = |node: NodeBuilder, identity, offset, publishes: &str| {
        let mut node = node.identity(identity).panel_dir(dir.path()).log(|_| ()).spins_in_bursts();
        let publisher = node.publisher::<Sample>(publishes)?;
        let sender = Sender { publisher, schedule, start: start.clone(), offset, number: 0 };
        node.stage("tune", patient_guard(), Box::new(sender));
        Ok::<_, Failure>(node)
    };
    let mut tried = seat(tried, identity_tried, schedule.period / 2, STATE)?;
    let mut other = seat(other, identity_other, Nanos::ZERO, SETPOINT)?;
    let total = schedule.total();
    let mut arrived = tried.queue::<Sample>(SETPOINT, total as usize + 64)?;
    let _state = other.latest::<Sample>(STATE)?;
    let (tried, other) = (tried.start()?, other.start()?);
    for node in [&tried, &other] {
        node.report().lanes.iter().for_each(|lane| granted.add(lane));
        node.report().not_real_time.iter().for_each(|reason| granted.brand(reason.clone()));
    }
    await_handshakes(&[&tried, &other])?;

    let begin = clock::now() + Nanos::from_millis(5);
    start.store(begin.as_nanos(), Ordering::Relaxed);
    let snapshot_after = |part: usize| -> Result<PanelSnapshot, Failure> {
        clock::sleep_until(begin + schedule.part(part).1 + SETTLE);
        tried.panel().snapshot().map_err(Failure::machine)
    };
    let warm = snapshot_after(0)?;
    let idle = snapshot_after(1)?;
    let load = Load::memory_on(&ground.busy)?;
    let loaded = snapshot_after(2)?;
    drop(load);

    // The age is by this node's estimate of the other's clock, which is off by up to half a round
    // trip; here both have the same clock, so each message tells by how much.
    let mut errors: Vec<i64> = Vec::with_capacity(total as usize);
    while let Some(message) = arrived.pop() {
        errors.push(message.sent_at.as_nanos() - message.value.sent_at_ns);
    }
    let lost = (total - errors.len() as i64).max(0).unsigned_abs();
    errors.sort_unstable();
    let shift = errors.get(errors.len() / 2).copied().unwrap_or(0);
    let mut aged = ages(&idle, &loaded, shift)?;
    aged.record_n(ground.part.as_unsigned(), lost, clock::now());
    let leg = Leg { idle: ages(&warm, &idle, shift)?, loaded: aged, work: work(&loaded), lost };
    drop(other);
    tried.stop().map_err(|panics| Failure::machine(panics.join("; ")))?;
    dir.close().map_err(Failure::machine)?;
    Ok(leg)
}

fn identity() -> Result<Identity, Failure> {
    Identity::generate().map_err(|error| Failure::machine(format!("no randomness: {error}")))
}

/// Two loopback ports that were free a moment ago.
fn free_addresses() -> Result<[SocketAddr; 2], Failure> {
    let socket = || UdpSocket::bind(("127.0.0.1", 0)).map_err(Failure::machine);
    let sockets = [socket()?, socket()?];
    let address = |socket: &UdpSocket| socket.local_addr().map_err(Failure::machine);
    Ok([address(&sockets[0])?, address(&sockets[1])?])
}

/// A stage that waits for its schedule is never late.
fn patient_guard() -> GuardSpec {
    GuardSpec {
        budget: Nanos::from_secs(10),
        hard_limit: Nanos::from_secs(1_000),
        ladder: LadderConfig::report_only(),
    }
}

fn await_handshakes(nodes: &[&Node]) -> Result<(), Failure> {
    let give_up = clock::now() + HANDSHAKE_LIMIT;
    for node in nodes {
        loop {
            let snapshot = node.panel().snapshot().map_err(Failure::machine)?;
            if snapshot.gauge("peer.epoch@other").is_some_and(|epoch| epoch != 0) {
                break;
            }
            if node.is_broken() || clock::now() >= give_up {
                return Err(Failure::machine(format!(
                    "the two nodes of a trial did not come to know each other within \
                     {HANDSHAKE_LIMIT}; does a firewall stop UDP on the loopback interface?"
                )));
            }
            clock::sleep_until(clock::now() + Nanos::from_millis(2));
        }
    }
    Ok(())
}

fn age(snapshot: &PanelSnapshot) -> Result<Histogram<u64>, Failure> {
    let histogram = snapshot.histogram(SETPOINT, Kind::Age);
    let missing = || Failure::machine(format!("the panel has no age of {SETPOINT}"));
    Ok(histogram.ok_or_else(missing)?.hdr.clone())
}

/// The ages between two looks, moved by what the estimate of the other's clock was wrong by.
fn ages(before: &PanelSnapshot, after: &PanelSnapshot, shift: i64) -> Result<Samples, Failure> {
    let mut between = age(after)?;
    between.subtract(&age(before)?).map_err(Failure::machine)?;
    let mut samples = Samples::new();
    for step in between.iter_recorded() {
        let ns = between.median_equivalent(step.value_iterated_to());
        let ns = i64::try_from(ns).unwrap_or(i64::MAX).saturating_add(shift).max(0);
        samples.record_n(ns.unsigned_abs(), step.count_at_value(), clock::now());
    }
    Ok(samples)
}

/// What each stage took for a message, at the median.
fn work(snapshot: &PanelSnapshot) -> Option<StageWork> {
    let median = |stage: &str| {
        let histogram = snapshot.histogram(stage, Kind::Execution)?;
        (histogram.count > 0).then(|| histogram.hdr.value_at_quantile(0.5) as f64)
    };
    Some(StageWork {
        receive_ns: median("receive")?,
        verify_ns: median("verify")?,
        deliver_ns: median("deliver")?,
        send_ns: median("send")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        let topology = sinew_rt::topology::Topology::read().unwrap();
        let core = topology.housekeeping_candidates()[0];
        Ground { rate_hz: 500, peer_core: core, busy: vec![core], part: Nanos::from_millis(60) }
    }

    #[test]
    fn messages_are_due_at_their_distance_in_three_parts() {
        let schedule = Schedule::new(&ground());
        assert_eq!(schedule.counts, [20, 30, 30]);
        let due: Vec<_> = (0..).map_while(|number| schedule.due(number)).collect();
        assert_eq!(due.len() as i64, schedule.total());
        for (n, pair) in due.windows(2).enumerate() {
            let between_parts = [19, 49].contains(&n);
            let expected = schedule.period + if between_parts { SETTLE * 2 } else { Nanos::ZERO };
            assert_eq!(pair[1] - pair[0], expected, "after message {n}");
        }
        assert_eq!(schedule.part(1), (due[20], due[49] + schedule.period));
    }

    #[test]
    fn a_trial_measures_every_message_of_both_parts_and_what_the_stages_took() {
        let mut granted = Granted::default();
        let leg = run("[realtime]\nlayout = \"fused\"\n", &ground(), &mut granted).unwrap();
        assert_eq!(leg.lost, 0);
        // A message on the border of two looks may count to either side.
        let counted = leg.idle.count() + leg.loaded.count();
        assert!((58..=62).contains(&counted), "{counted}");
        assert!(leg.idle.quantile(0.5) > 1_000.0, "{}", leg.idle.quantile(0.5));
        let work = leg.work.unwrap();
        assert!(work.verify_ns > work.deliver_ns, "{work:?}");
        assert!(granted.threads.iter().any(|thread| thread.name == "lane"), "{granted:?}");
    }

    #[test]
    fn a_section_that_the_node_refuses_is_a_usage_error_with_its_place() {
        let mut granted = Granted::default();
        let refused = run("[realtime]\ncores = [9999]\n", &ground(), &mut granted);
        let Err(failure) = refused else { panic!("it ran") };
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.message.contains("realtime.cores: core 9999"), "{}", failure.message);
    }
}
