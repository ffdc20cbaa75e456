//! A legitimate signed stream under a flood from another address: forged frames against an
//! equal flood of plain garbage.

use sinew_rt::clock::Nanos;

use super::super::length::Length;
use super::super::report::Run;
use super::super::stats::{Comparison, Limit, Limits, Side};
use super::crew::{Agent, Crew, LegFindings};
use super::latency::samples;
use super::mesh::PING;
use super::order::{End, Flood, FloodKind, Lanes, Leg, Pace, Program, Protection, Role, Waits};
use super::schedule::{Bursts, SPIN_MAX, WARM_UP};
use super::turns::compare;
use super::{Cores, PipelineArgs};
use crate::exit::Failure;

/// How much later the stream may be under forged frames than under garbage, at p99.
const LATER: f64 = 1.5;
/// Time under flood in one leg.
const LEG: Nanos = Nanos::from_millis(4_000);

/// Measures garbage, forged frames and garbage again, round after round.
pub(super) fn measure(args: &PipelineArgs, cores: &Cores, run: &mut Run) -> Result<(), Failure> {
    let limits = Limits { p50: None, p99: Some(Limit::AtMost(LATER)) };
    let stream = match args.period_ns(0) {
        1_000_000 => "1 kHz".to_owned(),
        period => format!("{:.1} Hz", 1e9 / period as f64),
    };
    let name = format!("a {stream} signed stream under a flood from another address");
    let comparison = Comparison::new(&name, "under garbage", "under forged frames", limits);
    let total = if args.quick { LEG / 4 } else { LEG };
    // The flood keeps the receiving lane busy without a pause, so it comes in bursts too.
    let bursts = Bursts::spinning(SPIN_MAX, total);
    let per_leg = (total.as_nanos() / args.period_ns(0)).max(1);
    let rounds: u64 =
        if args.quick { 1 } else { args.samples.div_ceil(per_leg.unsigned_abs()) + 1 };
    let start = || {
        let crew = Crew::start(&cores.sender, &cores.receiver)?;
        Ok((crew, Agent::start(Role::Flooder, &cores.sender)?))
    };
    let mut tally = Tally::default();
    let outcome = compare(
        run,
        "flood",
        Length::new(rounds, args.seconds()),
        comparison,
        start,
        |crew, run, round, side| {
            let (crew, flooder) = crew;
            let kind = match side {
                Side::Base => FloodKind::Garbage,
                Side::Subject => FloodKind::Forged,
            };
            let period = args.period_ns(round as usize);
            let leg = Leg {
                program: Program::Node(Lanes::Fused, Protection::Signed),
                waits: Waits::Park,
                pace: Pace::Every(period),
                bursts,
                samples_max: (bursts.span().as_nanos() / period) as usize + 16,
                warm_up: WARM_UP,
                batch: 1,
                stall: None,
                priority: args.priority,
            };
            let flood = |victim: &End, victim_epoch, target: &End| Flood {
                kind,
                bursts,
                victim: victim.clone(),
                victim_epoch,
                target: target.address,
            };
            let found = crew.leg_under(&leg, run, Some((flooder, &flood)))?;
            tally.add(kind, &found, bursts);
            Ok(samples(&found.receiver))
        },
    );
    tally.report(run);
    run.note(format!(
        "the first {WARM_UP} messages of the stream in each leg warm up and are not counted"
    ));
    outcome
}

/// What became of both kinds of frames, by the panels.
#[derive(Default)]
struct Tally {
    /// Of the stream: published, and delivered.
    sent: u64,
    delivered: u64,
    /// By kind, garbage first: floods sent, time under flood, frames that reached the receiver,
    /// signatures checked for strangers.
    floods: [FloodTally; 2],
}

#[derive(Default)]
struct FloodTally {
    sent: u64,
    span: Nanos,
    dropped: u64,
    bad_signatures: u64,
}

impl Tally {
    fn add(&mut self, kind: FloodKind, found: &LegFindings, bursts: Bursts) {
        self.sent += found.sender.counter(&format!("sent/{PING}")).unwrap_or(0);
        self.delivered += found.receiver.counter(&format!("delivered/{PING}")).unwrap_or(0);
        let tally = &mut self.floods[usize::from(kind == FloodKind::Forged)];
        tally.sent += found.flooder.sent;
        tally.span += Nanos::new(bursts.count * bursts.on_ns);
        let strangers =
            |(name, _): &&(String, u64)| name.ends_with("@stranger") && name.contains(".drop.");
        let dropped = found.receiver.counters.iter().filter(strangers).map(|(_, count)| count);
        tally.dropped += dropped.sum::<u64>();
        tally.bad_signatures +=
            found.receiver.counter("verify.drop.bad_signature@stranger").unwrap_or(0);
    }

    fn report(&self, run: &mut Run) {
        let lost = self.sent.saturating_sub(self.delivered) as f64;
        run.figure(
            "messages of the stream sent, by the sender's panel",
            self.sent as f64,
            "",
            None,
        );
        let delivered = self.delivered as f64;
        run.figure(
            "messages of the stream delivered, by the receiver's panel",
            delivered,
            "",
            None,
        );
        run.figure("messages of the stream lost", lost, "", Some(Limit::AtMost(0.0)));
        for (kind, tally) in ["garbage", "forged frames"].iter().zip(&self.floods) {
            let FloodTally { sent, span, dropped, bad_signatures } = tally;
            let rate = *sent as f64 / span.as_secs_f64().max(1e-9);
            run.figure(&format!("{kind} sent"), rate.round(), "per second", None);
            let dropped = *dropped as f64;
            run.figure(&format!("{kind} read and dropped by the receiver"), dropped, "", None);
            let checks = *bad_signatures as f64;
            run.figure(&format!("{kind} that cost a signature check"), checks, "", None);
        }
    }
}
