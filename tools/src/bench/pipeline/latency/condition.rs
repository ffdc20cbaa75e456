//! What is measured in turns under one wait and one pace, and the legs of it.

use sinew_rt::clock::Nanos;

use super::super::order::Protection::{Open, Signed};
use super::super::order::{Lanes, Leg, Pace, Program, Sleep, Waits};
use super::super::schedule::{Bursts, SPIN_MAX, WARM_UP};
use super::super::{Cores, PipelineArgs};

/// Spans of one ping-pong leg.
const VOLLEY: usize = 5_000;
/// Spans that one leg keeps, at most, and the parent receives as text. One leg alone judges nothing.
const SPANS_MAX: usize = 50_000;
/// Parked threads that wake more often than this hardly park: they get bursts like those that spin.
const PARKS_ABOVE: i64 = 100_000;
/// The shortest leg at scheduled times.
const PACED_LEG_MIN: Nanos = Nanos::from_millis(400);
/// One leg at scheduled times, at most.
const PACED_LEG: Nanos = Nanos::from_secs(4);
/// The pace of signatures beside a ping-pong of signed messages: about that of the ping-pong.
const CRYPTO_BESIDE_PING_PONG: i64 = 200_000;

/// The part that a case plays in the comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Base,
    BaseAgain,
    Open,
    Signed,
    PlainSigned,
    PlainSignedAgain,
    Crypto,
    Blocking,
    BlockingAgain,
    /// None: it is only shown.
    Shown,
}

/// What runs alternately under one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) part: Part,
    pub(super) name: &'static str,
    pub(super) program: Program,
}

/// One wait at one pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    waits: Waits,
    pub(super) ping_pong: bool,
    /// How long it is measured, if not for a number of samples.
    pub(super) seconds: Option<f64>,
}

impl Condition {
    pub(super) fn name(self) -> String {
        let waits = match self.waits {
            Waits::Spin => "spinning",
            Waits::Park => "parked",
        };
        let pace = if self.ping_pong { "back-to-back" } else { "paced" };
        format!("{waits}, {pace}")
    }

    pub(super) fn cases(self, args: &PipelineArgs, cores: &Cores) -> Vec<Case> {
        let node = Program::Node;
        let base = |protection| Program::Bare(Sleep::Poll, protection);
        let bare = match self.waits {
            Waits::Spin => "bare UDP, spinning recv",
            Waits::Park => "bare UDP, mio poll + recv",
        };
        let case = |part, name, program| Case { part, name, program };
        let mut cases = vec![
            case(Part::Base, bare, base(Open)),
            case(Part::BaseAgain, "bare UDP again", base(Open)),
            case(Part::Open, "open, fused", node(Lanes::Fused, Open)),
        ];
        if self.waits == Waits::Park {
            let recv = Program::Bare(Sleep::Recv, Open);
            cases.push(case(Part::Blocking, "bare UDP, blocking recv", recv));
            cases.push(case(Part::BlockingAgain, "bare UDP, blocking recv again", recv));
        }
        if !args.open {
            cases.extend([
                case(Part::Signed, "signed, fused", node(Lanes::Fused, Signed)),
                case(Part::PlainSigned, "bare UDP, signing and checking", base(Signed)),
                case(Part::PlainSignedAgain, "the same again", base(Signed)),
                case(Part::Crypto, "crypto", Program::Crypto),
            ]);
        }
        let cores = cores.sender.len().min(cores.receiver.len());
        for (lanes, need, open, signed) in [
            (Lanes::Split, 3, "open, split", "signed, split"),
            (Lanes::Pipelined, 4, "open, pipelined", "signed, pipelined"),
        ] {
            // A parked stage beside the lane that delivers is woken by nobody, so there the panel
            // measures, and nothing can be answered.
            if cores >= need || (self.waits == Waits::Park && !self.ping_pong) {
                cases.push(case(Part::Shown, open, node(lanes, Open)));
                if !args.open {
                    cases.push(case(Part::Shown, signed, node(lanes, Signed)));
                }
            }
        }
        cases
    }

    /// The leg of `case` in round `round`.
    pub(super) fn leg(self, case: &Case, round: usize, args: &PipelineArgs) -> Leg {
        let protected = matches!(
            case.program,
            Program::Bare(_, Signed) | Program::Node(_, Signed) | Program::Crypto
        );
        let period = args.period_ns(round);
        let spins = self.waits == Waits::Spin || period < PARKS_ABOVE;
        let (pace, bursts) = match self.ping_pong {
            false => {
                let total = match self.seconds {
                    _ if args.quick => PACED_LEG_MIN,
                    // Some legs of each of the cases.
                    Some(seconds) => Nanos::new((seconds * 1e9) as i64 / 24),
                    None => PACED_LEG,
                };
                let total = total.clamp(PACED_LEG_MIN, PACED_LEG);
                let bursts =
                    if spins { Bursts::spinning(SPIN_MAX, total) } else { Bursts::single(total) };
                (Pace::Every(period), bursts)
            }
            true => {
                // About twice what the exchanges take; the sender stops at the last one.
                let exchange = match (protected, self.waits) {
                    (true, _) => Nanos::from_micros(400),
                    (false, Waits::Spin) => Nanos::from_micros(20),
                    (false, Waits::Park) => Nanos::from_micros(60),
                };
                let volley = if args.quick { VOLLEY / 10 } else { VOLLEY };
                let total = exchange * volley as i64;
                let pace = match case.program {
                    Program::Crypto => Pace::Every(CRYPTO_BESIDE_PING_PONG),
                    _ => Pace::PingPong,
                };
                (pace, Bursts::spinning(SPIN_MAX, total))
            }
        };
        let samples_max = match pace {
            Pace::Every(interval) => {
                ((bursts.span().as_nanos() / interval) as usize + 16).min(SPANS_MAX)
            }
            _ if args.quick => VOLLEY / 10,
            _ => VOLLEY,
        };
        let (waits, priority) = (self.waits, args.priority);
        let (program, warm_up, stall) = (case.program, WARM_UP, args.stall());
        Leg { program, waits, pace, bursts, samples_max, warm_up, batch: 1, stall, priority }
    }
}

/// The waits and paces that were asked for.
pub(super) fn conditions(args: &PipelineArgs) -> Vec<Condition> {
    let (all_waits, all_paces) = (!(args.spin || args.park), !(args.paced || args.back_to_back));
    let waits = [(args.spin, Waits::Spin), (args.park, Waits::Park)];
    let paces = [(args.paced, false), (args.back_to_back, true)];
    let waits = waits.into_iter().filter(|(asked, _)| *asked || all_waits);
    let pace = |waits| {
        let paces = paces.into_iter().filter(|(asked, _)| *asked || all_paces);
        // What has a stall has a schedule.
        let paces = paces.filter(|(_, ping_pong)| !ping_pong || args.stall().is_none());
        paces.map(move |(_, ping_pong)| Condition { waits, ping_pong, seconds: None })
    };
    let mut conditions: Vec<_> = waits.flat_map(|(_, waits)| pace(waits)).collect();
    let share = args.seconds().map(|seconds| seconds / conditions.len() as f64);
    conditions.iter_mut().for_each(|condition| condition.seconds = share);
    conditions
}
