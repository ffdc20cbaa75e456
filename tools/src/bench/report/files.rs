//! Files for HdrHistogram's own tools.

use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use sinew_rt::clock;

use super::{Plotted, Report};
use crate::exit::Failure;
use crate::hist::export;
use crate::output;

/// What `--hgrm` and `--hlog` call each distribution: the comparison's name, and the side's.
fn named(plotted: &[Plotted]) -> Vec<(String, &Histogram<u64>)> {
    let with_title = |plotted: &Plotted, name: &str| match plotted.title.as_str() {
        "" => export::plain(name),
        title => export::plain(&format!("{title}-{name}")),
    };
    let all = plotted.iter().flat_map(|plotted| {
        let curves = plotted.curves.iter();
        curves.map(move |kept| (with_title(plotted, &kept.name), &kept.histogram))
    });
    all.collect()
}

/// Finds out before a long run whether `--hgrm` can be written.
pub(super) fn check_writable(path: &Path) -> Result<(), Failure> {
    match export::is_one_file(path) {
        true => output::check_writable(path),
        false => std::fs::create_dir_all(path).map_err(|error| output::cannot_write(path, &error)),
    }
}

/// Percentile distributions, in ns.
pub(super) fn hgrm(path: &Path, plotted: &[Plotted]) -> Result<(), Failure> {
    export::distributions(path, &named(plotted), "give a directory")
}

/// An interval log whose intervals all last from the start of the run to now, one for each
/// distribution, in ns.
pub(super) fn hlog(path: &Path, report: &Report, plotted: &[Plotted]) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| output::cannot_write(path, &error);
    let mut file = LineWriter::new(File::create(path).map_err(cannot)?);
    let started = Duration::from_nanos(report.started_at_unix_ns.unsigned_abs());
    let now = Duration::from_nanos(clock::wall().as_unsigned());
    let mut serializer = V2DeflateSerializer::new();
    let mut head = IntervalLogWriterBuilder::new();
    head.add_comment("[Histogram log format version 1.3]");
    head.add_comment(&report.command);
    for reason in &report.not_real_time {
        head.add_comment(&format!("NOT REAL-TIME: {reason}"));
    }
    head.add_comment(export::LOG_UNITS);
    let wall = UNIX_EPOCH + started;
    head.with_start_time(wall).with_base_time(wall);
    head.begin_log_with(&mut file, &mut serializer).map_err(cannot)?;
    file.write_all(export::LOG_LEGEND.as_bytes()).map_err(cannot)?;
    for (name, histogram) in named(plotted) {
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut file, &mut serializer)
            .map_err(cannot)?
            .write_histogram(
                histogram,
                Duration::ZERO,
                now.saturating_sub(started),
                Tag::new(&name),
            )
            .map_err(|error| cannot(std::io::Error::other(error.to_string())))?;
    }
    file.flush().map_err(cannot)
}
