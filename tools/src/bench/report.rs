//! What a benchmark hands out: where it ran, what the kernel granted, what was measured, the verdict.
//!
//! No figure leaves without the scheduling that was read back from the threads that made it. The
//! JSON has a version; names end in their unit, and every span is in nanoseconds per operation.

mod date;
mod document;
mod files;
mod matrix;
mod outputs;
mod parameters;
mod plotted;
mod sections;
mod text;

use sinew_rt::clock::{self, Nanos};
use sinew_rt::memory::{self, MemoryPlan};
use sinew_rt::power::CpuLatencyHold;
use sinew_rt::thread::Applied;

use super::baseline::Baseline;
use super::stats::{Comparison, Limit, Limits, Samples, Verdict};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::{self, HostFingerprint};
pub(crate) use date::date;
pub(crate) use document::{
    Added, Figure, Longest, Measured, Program, Report, ThreadReport, VERSION,
};
pub(crate) use matrix::MatrixCell;
pub(crate) use outputs::OutputArgs;
pub(crate) use parameters::command_line;
use plotted::{Kept, Plotted};
pub(crate) use text::{span, times};

/// A report in the making, and what must be held while it is measured.
#[derive(Debug)]
pub(crate) struct Run {
    report: Report,
    /// What is shown by itself comes first.
    plotted: Vec<Plotted>,
    baseline: Option<Baseline>,
    started: Nanos,
    require: bool,
    /// Something that has a limit was never measured.
    unmeasured: bool,
    /// Kept until the end: dropping it lets the cores sleep deeply again.
    awake: Option<CpuLatencyHold>,
}

impl Run {
    /// Sees whether the report can be written, locks memory, keeps the cores from deep sleep, and
    /// takes the host's fingerprint. With `--require`, what the kernel refuses ends the run.
    pub(crate) fn start(output: &OutputArgs) -> Result<Self, Failure> {
        output.check()?;
        let mut run = Self::elsewhere();
        run.baseline = Baseline::asked_for(output)?;
        if let Some(baseline) = &run.baseline {
            // Before anything is measured; what the threads are granted is compared at the end.
            baseline.accept(&run.report)?;
        }
        let memory = memory::prepare(&MemoryPlan::default());
        run.require = output.require;
        run.report.memory_locked_bytes = Some(memory.locked_bytes);
        for refusal in &memory.refused {
            run.brand(refusal.to_string());
        }
        match CpuLatencyHold::acquire(0) {
            Ok(awake) => {
                run.report.cpu_latency_bound_us = Some(awake.effective_us());
                run.awake = Some(awake);
            }
            Err(error) => run.brand(error.to_string()),
        }
        if let (true, Some(refused)) = (output.require, run.report.not_real_time.first()) {
            return Err(Failure::machine(refused));
        }
        Ok(run)
    }

    /// A report about what other processes measured: only the host's fingerprint is taken.
    pub(crate) fn elsewhere() -> Self {
        Self::on(host::fingerprint())
    }

    /// A report about measurements on this host.
    pub(crate) fn on(host: HostFingerprint) -> Self {
        let virtual_machine = host.hypervisor.clone();
        let incomplete = host.incomplete.clone();
        let report = Report {
            version: VERSION,
            command: parameters::command_line(),
            parameters: parameters::parameters(),
            program: Program::this(),
            started_at_unix_ns: clock::wall().as_nanos(),
            host,
            threads: Vec::new(),
            memory_locked_bytes: None,
            cpu_latency_bound_us: None,
            not_real_time: Vec::new(),
            interrupted: false,
            measured: Vec::new(),
            compared: Vec::new(),
            added: Vec::new(),
            figures: Vec::new(),
            matrix: Vec::new(),
            longest: Vec::new(),
            baseline: None,
            notes: Vec::new(),
            verdict: Verdict::NotJudged,
        };
        let mut run = Self {
            report,
            plotted: vec![Plotted { title: String::new(), curves: Vec::new() }],
            baseline: None,
            started: clock::now(),
            require: false,
            unmeasured: false,
            awake: None,
        };
        if let Some(hypervisor) = virtual_machine {
            run.note(format!("virtual machine ({hypervisor}): the host adds pauses of its own"));
        }
        if let Some(incomplete) = incomplete {
            run.brand(format!("the host could not be examined: {incomplete}"));
        }
        run
    }

    /// Whether a report that is not real-time ends with exit code 3.
    pub(crate) fn require(&mut self, require: bool) {
        self.require = require;
    }

    /// The host that is measured.
    pub(crate) fn host(&self) -> &HostFingerprint {
        &self.report.host
    }

    /// The threads so far.
    pub(crate) fn threads(&self) -> &[ThreadReport] {
        &self.report.threads
    }

    /// Why the figures so far are not real-time figures.
    pub(crate) fn not_real_time(&self) -> &[String] {
        &self.report.not_real_time
    }

    /// Adds a thread to the report; the same thread of a later round changes nothing unless the
    /// kernel granted something else.
    pub(crate) fn thread(&mut self, applied: &Applied) {
        let effective = &applied.effective;
        self.add_thread(ThreadReport {
            name: effective.name.clone(),
            scheduling: effective.scheduling.to_string(),
            cores: effective.affinity.to_string(),
            refused: applied.refused.iter().map(ToString::to_string).collect(),
        });
        if let Some(reason) = applied.not_real_time() {
            self.brand(reason);
        }
    }

    /// Adds a thread of another process, which read its settings back itself.
    pub(crate) fn add_thread(&mut self, thread: ThreadReport) {
        if !self.report.threads.contains(&thread) {
            self.report.threads.push(thread);
        }
    }

    /// Says why the figures are not real-time figures.
    pub(crate) fn brand(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.report.not_real_time.contains(&reason) {
            self.report.not_real_time.push(reason);
        }
    }

    /// Adds a distribution that is only shown.
    pub(crate) fn measured(&mut self, name: impl Into<String>, samples: &Samples) {
        // Nothing, when Ctrl-C came first.
        if samples.count() == 0 {
            return;
        }
        let (name, summary) = (name.into(), samples.summary(self.started));
        self.plotted[0].curves.push(Kept::new(&name, samples));
        self.report.measured.push(Measured { name, summary });
    }

    /// Adds a comparison.
    pub(crate) fn compared(&mut self, comparison: &Comparison) {
        let report = comparison.clone().started_at(self.started).report();
        if report.base.rounds > 0 {
            let sides = [&report.base, &report.control, &report.subject].map(|side| &side.name);
            let curves = sides.into_iter().zip(comparison.pooled());
            let curves = curves.map(|(name, samples)| Kept::new(name, samples)).collect();
            self.plotted.push(Plotted { title: report.name.clone(), curves });
            self.report.compared.push(report);
        } else if report.limits != Limits::default() {
            self.unmeasured = true;
        }
    }

    /// Says that Ctrl-C came before something that has a limit.
    pub(crate) fn unmeasured(&mut self) {
        self.unmeasured = true;
    }

    /// Adds a difference of two medians.
    pub(crate) fn added(&mut self, added: Added) {
        self.report.added.push(added);
    }

    /// Adds a figure, and judges it if there is a limit.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, limit: Option<Limit>) {
        let verdict = match limit {
            None => Verdict::NotJudged,
            Some(limit) if limit.holds(value) => Verdict::Within,
            Some(_) => Verdict::Exceeds,
        };
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.report.figures.push(Figure { name, value, unit, limit, verdict });
    }

    /// Adds one of the longest events, which began at `at`.
    pub(crate) fn longest(&mut self, what: &str, length: Nanos, at: Nanos, cause: String) {
        self.report.longest.push(Longest {
            what: what.to_owned(),
            length_ns: length.as_nanos(),
            at_s: (at - self.started).as_secs_f64(),
            cause,
        });
    }

    /// Adds a sentence that the reader needs.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.report.notes.push(note.into());
    }

    /// Prints the report, writes the files that were asked for, and says how the command ends: 1 when
    /// a limit was exceeded, 3 when one could not be judged on this machine or before Ctrl-C or, with
    /// `require`, something real-time was refused.
    pub(crate) fn finish(mut self, output: &OutputArgs) -> Outcome {
        drop(self.awake.take());
        if self.baseline.is_none() {
            self.baseline = Baseline::asked_for(output)?;
        }
        let mut refused = None;
        if let Some(baseline) = &self.baseline {
            match baseline.accept_measured(&self.report) {
                Ok(()) => self.report.baseline = Some(baseline.compare(&self.report)),
                Err(failure) => refused = Some(failure),
            }
        }
        let exit = self.conclude(super::interrupted());
        output.hand_out(&self.report, &self.plotted)?;
        refused.map_or(Ok(exit), Err)
    }

    /// What was found so far.
    #[cfg(test)]
    pub(crate) fn into_report(self) -> Report {
        self.report
    }

    /// Forms the verdict and the exit code.
    fn conclude(&mut self, interrupted: bool) -> Exit {
        self.report.interrupted = interrupted;
        let judged = self.report.compared.iter().filter(|c| {
            let limits = c.limits;
            limits.p50.is_some() || limits.p99.is_some()
        });
        let judged = judged.map(|comparison| comparison.verdict);
        let added = self.report.added.iter().filter(|added| added.limit_ns.is_some());
        let judged = judged.chain(added.map(|added| added.verdict));
        let figures = self.report.figures.iter().filter(|figure| figure.limit.is_some());
        let judged = judged.chain(figures.map(|figure| figure.verdict));
        // A baseline that decides nothing is no failure of this run; a regression is.
        let slower = self.report.baseline.as_ref().map(|baseline| baseline.verdict);
        let judged = judged.chain(slower.filter(|verdict| *verdict == Verdict::Exceeds));
        let judged: Vec<_> = judged.chain(self.unmeasured.then_some(Verdict::NotJudged)).collect();
        let cut_off = interrupted && judged.contains(&Verdict::NotJudged);
        self.report.verdict = judged.into_iter().max().unwrap_or(Verdict::NotJudged);
        match self.report.verdict {
            _ if self.require && !self.report.not_real_time.is_empty() => Exit::Machine,
            Verdict::Exceeds => Exit::Failed,
            Verdict::NotResolvableHere => Exit::Machine,
            Verdict::Within | Verdict::NotJudged if cut_off => Exit::Machine,
            Verdict::Within | Verdict::NotJudged => Exit::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut run = Run::start(&OutputArgs::default()).unwrap();
        let mut samples = Samples::new();
        samples.record_n(1_234, 7, run.started + Nanos::from_secs(2));
        run.measured("alone", &samples);
        let mut comparison = Comparison::new("pair", "a", "b", Limits::at_most(1.1, 1.2));
        comparison.add(&samples, &samples, &samples);
        run.compared(&comparison);
        let mut comparison = Comparison::new("match", "a", "b", Limits::within_factor(1.1));
        comparison.add(&samples, &samples, &samples);
        run.compared(&comparison);
        run.brand("this is a test");
        run.report
    }

    #[test]
    fn the_json_reads_back_as_what_was_written() {
        let report = report();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["measured"][0]["count"], 7);
        assert_eq!(value["measured"][0]["max_ns"], 1_234.0);
        assert_eq!(value["measured"][0]["max_at_s"], 2.0);
        assert_eq!(value["compared"][0]["ratio"]["p50"], 1.0);
        assert_eq!(value["compared"][0]["verdict"], "not_judged");
        assert_eq!(value["compared"][0]["limits"]["p99"]["at_most"], 1.2);
        assert_eq!(value["compared"][1]["limits"]["p50"]["within_factor"], 1.1);
    }

    #[test]
    fn people_see_the_brand_the_ratio_and_its_limit() {
        let text = report().to_string();
        assert!(text.contains("NOT REAL-TIME: this is a test"), "{text}");
        assert!(text.contains("p50 ratio 1.000 (control 1.000; rounds"), "{text}");
        assert!(text.contains("limit ≤ 1.20: not judged"), "{text}");
        assert!(text.contains("limit 0.91–1.10: not judged"), "{text}");
    }

    #[test]
    fn what_ctrl_c_came_before_is_not_reported_as_zero() {
        let mut run = Run::start(&OutputArgs::default()).unwrap();
        run.measured("nothing", &Samples::new());
        run.compared(&Comparison::new("nothing", "a", "b", Limits::at_most(1.1, 1.2)));
        assert_eq!((run.report.measured.len(), run.report.compared.len()), (0, 0));
    }

    #[test]
    fn what_ctrl_c_came_before_is_not_within_its_limit() {
        let concluded = |unmeasured: Option<Limits>, interrupted| {
            let mut run = Run::elsewhere();
            run.figure("kept", 1.0, "", Some(Limit::AtMost(2.0)));
            if let Some(limits) = unmeasured {
                run.compared(&Comparison::new("never begun", "a", "b", limits));
            }
            let exit = run.conclude(interrupted);
            (run.report.verdict, exit)
        };
        assert_eq!(concluded(None, false), (Verdict::Within, Exit::Done));
        assert_eq!(concluded(None, true), (Verdict::Within, Exit::Done));
        assert_eq!(concluded(Some(Limits::default()), true), (Verdict::Within, Exit::Done));
        let limits = Some(Limits::at_most(1.1, 1.2));
        assert_eq!(concluded(limits, true), (Verdict::NotJudged, Exit::Machine));
    }
}
