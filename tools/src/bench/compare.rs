//! `sinew bench compare`: judges rounds that were measured by different programs, such as
//! cyclictest, from their histogram files.

use std::path::{Path, PathBuf};

use sinew_rt::clock::Nanos;

use super::report::{OutputArgs, Run, ThreadReport};
use super::stats::{Comparison, Limit, Limits, Samples};
use crate::exit::{Failure, Outcome};

/// Judges rounds of two programs, and of one of them once more as the control.
///
/// Each file is a round in the form of cyclictest -N -h: lines of `NANOSECONDS COUNT`, comments
/// with `#`. Comments of the forms `# Max Latencies: NS`, `# Histogram Overflows: COUNT`,
/// `# Read back: NAME, SCHEDULING, core CORES` and `# NOT REAL-TIME: REASON` are understood.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sinew bench compare --name idle --limit-p50 1.1 --limit-p99 1.1 \\
      --base cyclictest-*.hist --control again-*.hist --subject plain-*.hist")]
pub(crate) struct CompareArgs {
    /// What is compared
    #[arg(long, default_value = "rounds")]
    name: String,
    /// The rounds of what is compared with
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    base: Vec<PathBuf>,
    /// The rounds of the same again
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    control: Vec<PathBuf>,
    /// The rounds of what is judged
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    subject: Vec<PathBuf>,
    /// What to call the base
    #[arg(long, default_value = "base")]
    base_name: String,
    /// What to call the subject
    #[arg(long, default_value = "subject")]
    subject_name: String,
    /// The median of the subject may be at most this many times that of the base
    #[arg(long, value_parser = positive)]
    limit_p50: Option<f64>,
    /// The same for the 99th percentile
    #[arg(long, value_parser = positive)]
    limit_p99: Option<f64>,
    #[command(flatten)]
    output: OutputArgs,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above 0 is needed, such as 1.1".to_owned()),
    }
}

pub(crate) fn run(args: &CompareArgs) -> Outcome {
    args.output.check()?;
    let rounds = args.base.len();
    if args.control.len() != rounds || args.subject.len() != rounds {
        return Err(Failure::usage(format!(
            "{rounds} rounds of the base, {} of the control and {} of the subject: give as many \
             files of each",
            args.control.len(),
            args.subject.len()
        )));
    }
    let mut run = Run::elsewhere();
    let limits =
        Limits { p50: args.limit_p50.map(Limit::AtMost), p99: args.limit_p99.map(Limit::AtMost) };
    let mut comparison = Comparison::new(&args.name, &args.base_name, &args.subject_name, limits);
    for ((base, control), subject) in args.base.iter().zip(&args.control).zip(&args.subject) {
        let [base, control, subject] = [base, control, subject].map(|path| read(path));
        let (base, control, subject) = (base?, control?, subject?);
        comparison.add(&base.samples, &subject.samples, &control.samples);
        for round in [base, control, subject] {
            round.threads.into_iter().for_each(|thread| run.add_thread(thread));
            round.not_real_time.into_iter().for_each(|reason| run.brand(reason));
        }
    }
    run.compared(&comparison);
    run.require(args.output.require);
    run.finish(&args.output)
}

fn read(path: &Path) -> Result<Round, Failure> {
    let cannot = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
    let mut round = parse(&text).map_err(cannot)?;
    if round.threads.is_empty() {
        let reason = format!("{}: nobody read the scheduling back", path.display());
        round.not_real_time.push(reason);
    }
    Ok(round)
}

/// One histogram file.
#[derive(Debug)]
struct Round {
    samples: Samples,
    threads: Vec<ThreadReport>,
    not_real_time: Vec<String>,
}

fn parse(text: &str) -> Result<Round, String> {
    let mut round =
        Round { samples: Samples::new(), threads: Vec::new(), not_real_time: Vec::new() };
    let (mut overflows, mut max_ns, mut last_ns) = (0, None, 0);
    let mut longest_ns = 0;
    for (number, line) in text.lines().enumerate() {
        let bad = |what: &str| format!("line {}: {what}: `{line}`", number + 1);
        let digits = |text: &str| text.trim().parse::<u64>().map_err(|_| bad("not a number"));
        if let Some(comment) = line.strip_prefix('#') {
            let comment = comment.trim();
            if let Some(count) = comment.strip_prefix("Histogram Overflows:") {
                overflows = digits(count)?;
            } else if let Some(max) = comment.strip_prefix("Max Latencies:") {
                max_ns = Some(digits(max)?);
            } else if let Some(thread) = comment.strip_prefix("Read back:") {
                round.threads.push(read_back(thread).ok_or_else(|| bad("not a thread"))?);
            } else if let Some(reason) = comment.strip_prefix("NOT REAL-TIME:") {
                round.not_real_time.push(reason.trim().to_owned());
            }
        } else if !line.trim().is_empty() {
            let (ns, count) = line.trim().split_once(' ').ok_or_else(|| bad("not two numbers"))?;
            last_ns = digits(ns)?;
            let count = digits(count)?;
            round.samples.record_n(last_ns, count, Nanos::ZERO);
            longest_ns = if count > 0 { last_ns } else { longest_ns };
        }
    }
    // What lies beyond the histogram is known to be at least as long as its end.
    round.samples.record_n(last_ns.max(1), overflows, Nanos::ZERO);
    round.samples.set_max(max_ns.unwrap_or(longest_ns), None);
    match round.samples.count() {
        0 => Err("there are no samples in it".to_owned()),
        _ => Ok(round),
    }
}

fn read_back(text: &str) -> Option<ThreadReport> {
    let mut parts = text.split(',').map(str::trim);
    let (name, scheduling) = (parts.next()?, parts.next()?);
    let cores = parts.collect::<Vec<_>>().join(",");
    Some(ThreadReport {
        name: name.to_owned(),
        scheduling: scheduling.to_owned(),
        cores: cores.strip_prefix("core ")?.to_owned(),
        refused: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of cyclictest 2.40 with -N -h 5, and the lines that the script adds.
    const ROUND: &str = "\
# /dev/cpu_dma_latency set to 0us
# Histogram
000000 000000
000003 000010
000004 000002
# Total: 000000012
# Min Latencies: 00003
# Avg Latencies: 00003
# Max Latencies: 2256816
# Histogram Overflows: 00001
# Histogram Overflow at cycle number:
# Thread 0: 00131
# Read back: cyclictest, SCHED_FIFO 80, core 0,2
";

    #[test]
    fn a_round_of_cyclictest_is_understood() {
        let round = parse(ROUND).unwrap();
        assert_eq!(round.samples.count(), 13);
        assert_eq!(round.samples.quantile(0.5), 3.0);
        assert_eq!(round.samples.summary(Nanos::ZERO).max_ns, 2_256_816.0);
        let thread = &round.threads[0];
        assert_eq!(
            (&*thread.name, &*thread.scheduling, &*thread.cores),
            ("cyclictest", "SCHED_FIFO 80", "0,2")
        );
    }

    #[test]
    fn what_is_no_histogram_is_refused_with_the_line() {
        assert!(parse("000001 x\n").unwrap_err().contains("line 1: not a number"));
        assert!(parse("7\n").unwrap_err().contains("line 1: not two numbers"));
        assert!(parse("# Histogram\n").unwrap_err().contains("no samples"));
    }

    #[test]
    fn a_round_that_nobody_read_back_is_branded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("round.hist");
        std::fs::write(&path, "000003 000010\n").unwrap();
        let round = read(&path).unwrap();
        assert!(round.not_real_time[0].contains("nobody read the scheduling back"));
    }
}
