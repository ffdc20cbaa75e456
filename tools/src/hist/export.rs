//! Files for HdrHistogram's own tools: percentile distributions and interval logs, in nanoseconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use sinew_rt::clock::{self, Nanos};
use sinew_rt::panel::PanelSnapshot;

use super::Series;
use super::report::slug;
use crate::exit::Failure;
use crate::output::{cannot_write, write_file};
use crate::panels::{Interval, Look};

/// Lines for each halving of the distance to 100 %, as HdrHistogram's own tools write them.
const TICKS_PER_HALF: u32 = 5;

/// What a log says of its numbers, and the heading of its columns.
pub(crate) const LOG_UNITS: &str = "[Values and Interval_Max are nanoseconds]";
pub(crate) const LOG_LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Writes percentile distributions: one into a file that ends in `.hgrm`, otherwise one for each
/// histogram into a directory.
pub(super) fn hgrm(path: &Path, series: &[Series<'_>]) -> Result<(), Failure> {
    let name = |one: &Series<'_>| plain(&format!("{}-{}-{}", one.panel, one.name, slug(one.kind)));
    let named: Vec<_> = series.iter().map(|one| (name(one), one.histogram)).collect();
    distributions(path, &named, "give a directory, or choose with --stage")
}

/// Whether `path` asks for one file, and not for a directory.
pub(crate) fn is_one_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "hgrm")
}

/// The same for histograms with the names of their files; `instead` says what to do about a file
/// that would have to hold several.
pub(crate) fn distributions(
    path: &Path,
    named: &[(String, &Histogram<u64>)],
    instead: &str,
) -> Result<(), Failure> {
    if is_one_file(path) {
        return match named {
            [(_, one)] => write_file(path, distribution(one).as_bytes()),
            several => Err(Failure::usage(format!(
                "{} would have to hold {} histograms; {instead}",
                path.display(),
                several.len()
            ))),
        };
    }
    std::fs::create_dir_all(path).map_err(|error| cannot_write(path, &error))?;
    let mut taken = BTreeMap::<PathBuf, u32>::new();
    for (name, histogram) in named {
        // Names that differ only in characters that a file cannot have are numbered.
        let times = taken.entry(path.join(name)).or_insert(0);
        *times += 1;
        let name = if *times > 1 { format!("{name}~{times}") } else { name.clone() };
        let file = path.join(format!("{name}.hgrm"));
        write_file(&file, distribution(histogram).as_bytes())?;
    }
    Ok(())
}

/// A name that can be a file's, and a tag's.
pub(crate) fn plain(name: &str) -> String {
    name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "_")
}

/// The text of a `.hgrm`, as HdrHistogram's `outputPercentileDistribution` writes it with a scale
/// of 1: values in nanoseconds.
fn distribution(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to(), step.quantile_iterated_to());
        let _ = write!(text, "{value:>12} {quantile:>14.12} {total:>10} ");
        let _ = match quantile < 1.0 {
            true => writeln!(text, "{:>14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text, "{:>14}", "inf"),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.2}, StdDeviation   = {:>12.2}]",
        histogram.mean(),
        histogram.stdev()
    );
    let _ = writeln!(
        text,
        "#[Max     = {:>12}, Total count    = {:>12}]",
        histogram.max(),
        histogram.len()
    );
    // As many values as 2 · 10^digits needs, as a power of two.
    let halves = (2 * 10_u64.pow(histogram.sigfig().into())).next_power_of_two();
    let _ =
        writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), halves);
    text
}

/// An interval log that is being written.
pub(super) struct IntervalLog {
    file: LineWriter<File>,
    path: PathBuf,
    base: Nanos,
    several: bool,
}

impl IntervalLog {
    /// Begins the log with the start of the oldest of these processes.
    pub(super) fn create(path: &Path, looks: &[Look]) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        let starts = looks.iter().map(|look| look.snapshot.started_at_wall);
        let base = starts.min().unwrap_or_else(clock::wall).max(Nanos::ZERO);
        let mut log = Self {
            file: LineWriter::new(file),
            path: path.to_owned(),
            base,
            several: looks.len() > 1,
        };
        let wall = std::time::UNIX_EPOCH + duration(base);
        let mut serializer = V2DeflateSerializer::new();
        let mut head = IntervalLogWriterBuilder::new();
        head.add_comment("[Histogram log format version 1.3]");
        for look in looks {
            let snapshot = &look.snapshot;
            head.add_comment(&format!("{}: {}", snapshot.name, look.path.display()));
            for reason in &snapshot.not_real_time {
                head.add_comment(&format!("{}: NOT REAL-TIME: {reason}", snapshot.name));
            }
        }
        head.add_comment(LOG_UNITS);
        head.with_start_time(wall).with_base_time(wall);
        let begun = head.begin_log_with(&mut log.file, &mut serializer).map(drop);
        let begun = begun.and_then(|()| log.file.write_all(LOG_LEGEND.as_bytes()));
        begun.map_err(|error| cannot_write(path, &error))?;
        Ok(log)
    }

    /// Each histogram as one interval: what the look covers, or the whole life of its process until
    /// now or its last sign.
    pub(super) fn add(
        &mut self,
        looks: &[Look],
        chosen: impl Fn(&Look) -> Vec<usize>,
    ) -> Result<(), Failure> {
        for look in looks {
            let snapshot = &look.snapshot;
            let (from, length) = match look.interval {
                Some(Interval { from, length }) => (from, length),
                None => (snapshot.started_at, look.uptime()),
            };
            let from = snapshot.started_at_wall + (from - snapshot.started_at);
            for index in chosen(look) {
                self.write(snapshot, index, &snapshot.histograms[index].hdr, from, length)?;
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        snapshot: &PanelSnapshot,
        index: usize,
        histogram: &Histogram<u64>,
        from: Nanos,
        length: Nanos,
    ) -> Result<(), Failure> {
        let named = &snapshot.histograms[index];
        let panel = if self.several { format!("{}-", snapshot.name) } else { String::new() };
        let tag = plain(&format!("{panel}{}-{}", named.name, slug(named.kind)));
        let mut serializer = V2DeflateSerializer::new();
        let written = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.file, &mut serializer)
            .map_err(|error| error.to_string())
            .and_then(|mut log| {
                let (from, length) = (duration(from - self.base), duration(length));
                log.write_histogram(histogram, from, length, Tag::new(&tag))
                    .map_err(|error| error.to_string())
            });
        written.map_err(|error| cannot_write(&self.path, &std::io::Error::other(error)))
    }
}

fn duration(span: Nanos) -> Duration {
    Duration::from_nanos(span.as_unsigned())
}
