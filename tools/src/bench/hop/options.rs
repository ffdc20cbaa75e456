//! What `sinew bench hop` is asked for.

use std::str::FromStr;

use clap::ValueEnum;
use sinew_rt::clock::Nanos;
use sinew_rt::topology::CoreList;

use crate::bench::forms::{Forms, Only};
use crate::bench::load::LoadArgs;
use crate::bench::{Common, Length};

/// What a hand-off between two cores costs.
///
/// From every core to every other one, spinning and parked, back-to-back and paced. Between two of
/// them also: spinning through our ring beside bare rtrb and beside a bare program; parked with ring
/// and doorbell beside a bare futex; one way in both directions at several paces; slot handles beside
/// envelopes by value. Both cores are taken in bursts of less than 0.6 s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench hop                            everything, about 2 minutes
  sinew bench hop --part matrix              every pair of cores, 20 seconds
  sinew bench hop --part matrix --cores 2-5 --rate-hz 500 --seconds 60
  sinew bench hop --part bare                the same as a bare program of two threads, judged
  sinew bench hop --part spin,park           ring and doorbell, judged
  sinew bench hop --rounds 4 --json -        a first look, for a script")]
pub(crate) struct HopArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) load: LoadArgs,
    /// The core of the end that measures, by default the second real-time core or else another one
    #[arg(long)]
    pub(super) near: Option<u16>,
    /// The core of the other end, by default the first real-time core
    #[arg(long)]
    pub(super) far: Option<u16>,
    /// Cores of the matrix: 0-3,6 [default: all that may be used]
    #[arg(long, value_parser = CoreList::from_str)]
    pub(super) cores: Option<CoreList>,
    /// Rounds of each side, for all but the matrix; 40 and more are judged
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..10_000))]
    pub(super) rounds: u32,
    /// Measure for so long instead, in seconds, shared by all parts
    #[arg(short, long, conflicts_with = "rounds", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) seconds: Option<u32>,
    /// From one paced message to the next, in µs, used in turn: a period of exactly 1,000 µs alone
    /// would keep step with ticks of 1 ms elsewhere
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 997, 1_013],
          value_parser = clap::value_parser!(u32).range(100..=10_000))]
    pub(super) paced_us: Vec<u32>,
    /// Paced messages per second, instead of --paced-us
    #[arg(long, conflicts_with = "paced_us", value_parser = clap::value_parser!(u32).range(100..=10_000))]
    pub(super) rate_hz: Option<u32>,
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) part: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Every pair of cores
    Matrix,
    /// Spinning: our ring as measured here, and a bare program of two threads
    Bare,
    /// Spinning: our ring and bare rtrb
    Spin,
    /// Parked: ring and doorbell, and a bare futex
    Park,
    /// One way, in both directions, back-to-back and paced
    Paced,
    /// Slot handles and envelopes by value
    Envelope,
}

impl Forms for HopArgs {
    fn only(&self) -> Vec<Only> {
        vec![
            Only {
                asked: self.wants(Part::Matrix),
                options: &["cores"],
                forms: "the matrix; add `matrix` to --part",
            },
            Only {
                asked: self.wants_a_pair(),
                options: &["near", "far", "rounds"],
                forms: "the parts bare, spin, park, paced, envelope; the matrix has --cores and \
                        --seconds",
            },
            Only {
                asked: self.wants(Part::Matrix) || self.wants(Part::Paced),
                options: &["paced_us", "rate_hz"],
                forms: "the parts matrix, paced",
            },
        ]
    }
}

impl HopArgs {
    pub(super) fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }

    /// Whether anything but the matrix was asked for.
    pub(super) fn wants_a_pair(&self) -> bool {
        self.part.is_empty() || self.part.iter().any(|part| *part != Part::Matrix)
    }

    /// From one paced message to the next, in turn.
    pub(super) fn paces(&self) -> Vec<Nanos> {
        match self.rate_hz {
            Some(rate) => vec![Nanos::new(1_000_000_000 / i64::from(rate))],
            None => self.paced_us.iter().map(|us| Nanos::from_micros((*us).into())).collect(),
        }
    }

    /// How many comparisons and groups of them share the time.
    fn parts(&self) -> u32 {
        let parts = [
            (Part::Matrix, 1),
            (Part::Bare, 1),
            (Part::Spin, 1),
            (Part::Park, 1),
            (Part::Paced, 1),
            (Part::Envelope, 9),
        ];
        parts.iter().filter(|(part, _)| self.wants(*part)).map(|(_, comparisons)| comparisons).sum()
    }

    /// How long one of them is measured, if it would by itself have `rounds` rounds.
    pub(super) fn length(&self, rounds: u32) -> Length {
        Length::new(
            rounds.into(),
            self.seconds.map(|seconds| f64::from(seconds) / f64::from(self.parts())),
        )
    }
}
