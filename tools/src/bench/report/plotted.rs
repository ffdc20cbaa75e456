//! Distributions as plots and files of other tools need them.

use hdrhistogram::Histogram;
use sinew_rt::clock::Nanos;

use crate::bench::stats::Samples;

/// Distributions that are plotted together.
#[derive(Debug)]
pub(super) struct Plotted {
    /// Of a comparison; empty for what is shown by itself.
    pub(super) title: String,
    pub(super) curves: Vec<Kept>,
}

/// A distribution in whole ns per operation.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) histogram: Histogram<u64>,
    pub(super) max: Nanos,
}

impl Kept {
    pub(super) fn new(name: &str, samples: &Samples) -> Self {
        let max = Nanos::new(samples.max_ns().round() as i64);
        Self { name: name.to_owned(), histogram: samples.histogram(), max }
    }
}
