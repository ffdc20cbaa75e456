//! What one case has found, leg after leg.

use sinew_rt::clock::{self, Nanos};

use super::super::crew::LegFindings;
use super::super::order::{Findings, LateMessage, Leg, Pace, Program};
use super::super::schedule::Ticks;
use super::condition::Case;
use crate::bench::stats::Samples;
use crate::bench::worst::{Event, Worst};

/// What one case has gathered.
pub(super) struct Gathered {
    pub(super) case: Case,
    pub(super) spans: Samples,
    pub(super) from_schedule: Samples,
    /// Signatures at the sender, for the crypto case.
    pub(super) signatures: Samples,
    /// Publishing to the deliver stage, by the panel.
    pub(super) age: Samples,
    /// How late messages left.
    pub(super) lateness: Samples,
    /// Those that waited longer than one period.
    pub(super) waited: Samples,
    pub(super) worst: Worst,
    pub(super) scheduled: u64,
    /// Time of the schedule: its messages times their distance.
    pub(super) schedule_ns: i64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Gathered {
    pub(super) fn new(case: Case) -> Self {
        Self {
            case,
            spans: Samples::new(),
            from_schedule: Samples::new(),
            signatures: Samples::new(),
            age: Samples::new(),
            lateness: Samples::new(),
            waited: Samples::new(),
            worst: Worst::new(),
            scheduled: 0,
            schedule_ns: 0,
            sent: 0,
            received: 0,
        }
    }

    pub(super) fn add(&mut self, leg: &Leg, found: &LegFindings) -> Samples {
        let LegFindings { sender, receiver, .. } = found;
        let spans = samples(receiver);
        self.spans.pool(&spans);
        if let Pace::Every(interval) = leg.pace {
            let due = scheduled(leg, interval);
            self.scheduled += due;
            self.schedule_ns += due as i64 * interval;
            let at = Nanos::new(receiver.max_at_ns);
            for (from_schedule, span) in receiver.from_schedule_ns.iter().zip(&receiver.spans_ns) {
                self.from_schedule.record_n(u64::from(*from_schedule), 1, at);
                self.lateness.record_n(u64::from(from_schedule.saturating_sub(*span)), 1, at);
                if i64::from(*from_schedule) > interval {
                    self.waited.record_n(u64::from(*from_schedule), 1, at);
                }
            }
            for LateMessage { length_ns, at_ns, cause } in &receiver.worst {
                let (length, at) = (Nanos::new(*length_ns), Nanos::new(*at_ns));
                self.worst.add(Event { length, at, cause: *cause, measurement: 0 });
            }
        }
        if self.case.program == Program::Crypto {
            self.signatures.pool(&samples(sender));
        }
        for (ns, count) in &receiver.age_ns {
            self.age.record_n(*ns, *count, clock::now());
        }
        self.sent += sender.sent;
        self.received += receiver.received;
        spans
    }

    /// The rate of `messages` on the time of the schedule.
    pub(super) fn rate_hz(&self, messages: u64) -> f64 {
        messages as f64 * 1e9 / self.schedule_ns.max(1) as f64
    }
}

/// How many send times the schedule of `leg` has.
pub(super) fn scheduled(leg: &Leg, interval: i64) -> u64 {
    Ticks::new(leg.bursts, Nanos::ZERO, Nanos::new(interval)).count() as u64
}

/// The spans that one side kept.
pub(in crate::bench::pipeline) fn samples(findings: &Findings) -> Samples {
    let mut samples = Samples::new();
    for ns in &findings.spans_ns {
        samples.record(Nanos::new((*ns).into()), Nanos::new(findings.max_at_ns));
    }
    samples
}
