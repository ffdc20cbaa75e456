//! `sinew bench crypto`: what identities cost on this processor.
//!
//! Twice: one operation right after the other, as most benchmarks show it, and one operation a
//! period, as a control loop meets it. Between two periods caches and the processor's vector units go
//! cold, and the same signature can take half as long again: the second figure is the one to plan with.

use std::hint::black_box;

use sinew_io::security::{self, Identity};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::thread;

use super::report::Run;
use super::stats::Samples;
use super::{Common, Length};
use crate::exit::{Failure, Outcome};

/// The length of a message with a payload of 256 bytes as it is signed: header, names and payload.
const MESSAGE_BYTES: usize = 384;

/// Operations of each kind in one uninterrupted burst: some 0.3 s on the core together.
const BURST: u64 = 2_000;

/// Operations of each kind that have a period to themselves, in one round.
const PACED: u64 = 250;

/// Operations of each kind that are not counted.
const WARM_UP: u64 = 100;

/// How long the core is left to others between bursts.
const REST: Nanos = Nanos::from_millis(100);

/// What signing and checking signatures cost on this processor, at once and once a period.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench crypto                        8 rounds, about 10 s
  sinew bench crypto --period-us 5000       as a loop of 200 Hz meets it

A node signs each message that it sends and checks each that it receives: plan with the rows that
have a period, for a loop is never hot.")]
pub(crate) struct CryptoArgs {
    #[command(flatten)]
    common: Common,
    /// The core to measure on [default: the first real-time core]
    #[arg(short = 'a', long)]
    core: Option<u16>,
    /// From one paced operation to the next, in µs
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(200..=1_000_000))]
    period_us: u32,
    /// Paced operations a second, instead of --period-us
    #[arg(long, conflicts_with = "period_us", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate_hz: Option<u32>,
    /// Rounds of 2,000 operations of each kind at once and 250 paced
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Measure for so long instead, in seconds
    #[arg(short, long, conflicts_with = "rounds",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
}

pub(crate) fn run(args: &CryptoArgs) -> Outcome {
    let mut run = Run::start(&args.common.output)?;
    measure(args, &mut run)?;
    run.finish(&args.common.output)
}

/// Measures and adds it to the report.
pub(crate) fn measure(args: &CryptoArgs, run: &mut Run) -> Result<(), Failure> {
    let spec = args.common.thread("bench-crypto", super::core_or_default(args.core)?)?;
    let identity = Identity::generate().map_err(Failure::machine)?;
    let period = match args.rate_hz {
        Some(rate) => Nanos::new(1_000_000_000 / i64::from(rate)),
        None => Nanos::from_micros(args.period_us.into()),
    };
    let mut length = Length::new(args.rounds.into(), args.seconds.map(f64::from));
    let bar = length.progress("crypto");
    let ticks = bar.clone();
    let worker = thread::spawn(spec, move || {
        let mut bench = Bench::new(identity);
        bench.warm_up();
        while length.goes_on(&ticks) {
            bench.burst();
            clock::sleep_until(clock::now() + REST);
            bench.paced(period);
        }
        bench
    });
    let worker = worker.map_err(super::thread_failure)?;
    run.thread(worker.applied());
    let bench = worker.join().map_err(Failure::machine)?;
    bar.finish_and_clear();
    run.measured("sign, one after the other", &bench.sign);
    run.measured(format!("sign, one each {period}"), &bench.sign_paced);
    run.measured("verify strictly, one after the other", &bench.verify);
    run.measured(format!("verify strictly, one each {period}"), &bench.verify_paced);
    run.note(format!("Ed25519 over {MESSAGE_BYTES} bytes, as an envelope of 256 bytes is signed"));
    run.note(format!("{WARM_UP} operations of each kind warm up before and are not counted"));
    Ok(())
}

struct Bench {
    identity: Identity,
    message: [u8; MESSAGE_BYTES],
    sign: Samples,
    verify: Samples,
    sign_paced: Samples,
    verify_paced: Samples,
}

impl Bench {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            message: [0; MESSAGE_BYTES],
            sign: Samples::new(),
            verify: Samples::new(),
            sign_paced: Samples::new(),
            verify_paced: Samples::new(),
        }
    }

    fn warm_up(&mut self) {
        for _ in 0..WARM_UP {
            self.once();
        }
    }

    fn burst(&mut self) {
        for _ in 0..BURST {
            let (sign, verify, end) = self.once();
            self.sign.record(sign, end);
            self.verify.record(verify, end);
        }
    }

    /// A signature in one period, its check in the next: neither finds what the other left in caches.
    fn paced(&mut self, period: Nanos) {
        let mut due = clock::now();
        for _ in 0..PACED {
            if super::interrupted() {
                return;
            }
            due += period;
            clock::sleep_until(due);
            let begun = clock::now();
            let signature = self.signature();
            let signed = clock::now();
            self.sign_paced.record(signed - begun, signed);
            due += period;
            clock::sleep_until(due);
            let begun = clock::now();
            self.check(&signature);
            let checked = clock::now();
            self.verify_paced.record(checked - begun, checked);
        }
    }

    fn once(&mut self) -> (Nanos, Nanos, Nanos) {
        let begun = clock::now();
        let signature = self.signature();
        let signed = clock::now();
        self.check(&signature);
        let checked = clock::now();
        (signed - begun, checked - signed, checked)
    }

    /// Of a message that differs from the last.
    fn signature(&mut self) -> [u8; 64] {
        self.message[0] = self.message[0].wrapping_add(1);
        black_box(self.identity.sign(&[black_box(&self.message)]))
    }

    fn check(&self, signature: &[u8; 64]) {
        let good = security::verify(self.identity.public(), &[&self.message], signature);
        assert!(good.is_ok(), "a signature of our own does not verify");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_counted_under_its_own_kind() {
        let mut bench = Bench::new(Identity::generate().unwrap());
        bench.warm_up();
        bench.burst();
        assert_eq!([&bench.sign, &bench.verify].map(Samples::count), [BURST; 2]);
        assert_eq!([&bench.sign_paced, &bench.verify_paced].map(Samples::count), [0; 2]);
        bench.paced(Nanos::from_micros(200));
        assert_eq!([&bench.sign_paced, &bench.verify_paced].map(Samples::count), [PACED; 2]);
    }
}
