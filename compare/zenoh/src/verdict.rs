//! Whether a limit holds, as far as this machine can tell.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Sinew delivers at least as many messages a second as Zenoh.
pub(crate) const THROUGHPUT: Limit = Limit::AtLeast(1.0);
/// Sinew's p99 is at most half of Zenoh's.
pub(crate) const LATENCY: Limit = Limit::AtMost(0.5);

/// How a ratio must lie, Sinew to Zenoh.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "≥ {limit:.2}"),
            Self::AtMost(limit) => write!(f, "≤ {limit:.2}"),
        }
    }
}

/// What became of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Within,
    /// The ratio is nearer to the limit than equals are to each other.
    NotResolvableHere,
    Exceeds,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Within => "within",
            Self::NotResolvableHere => "not resolvable here",
            Self::Exceeds => "exceeds",
        })
    }
}

/// Judges a ratio by its limit, where `control` is the ratio of one side to itself.
pub(crate) fn judge(limit: Limit, ratio: f64, control: f64) -> Verdict {
    if !(ratio.is_finite() && ratio > 0.0 && control.is_finite() && control > 0.0) {
        return Verdict::NotResolvableHere;
    }
    // Above 1 when the limit holds.
    let room = match limit {
        Limit::AtLeast(limit) => ratio / limit,
        Limit::AtMost(limit) => limit / ratio,
    };
    let noise = control.max(1.0 / control);
    if room >= noise {
        Verdict::Within
    } else if room * noise < 1.0 {
        Verdict::Exceeds
    } else {
        Verdict::NotResolvableHere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_nearer_to_the_limit_than_the_control_to_one_is_not_resolvable() {
        for control in [1.1, 1.0 / 1.1] {
            assert_eq!(judge(THROUGHPUT, 1.2, control), Verdict::Within);
            assert_eq!(judge(THROUGHPUT, 1.05, control), Verdict::NotResolvableHere);
            assert_eq!(judge(THROUGHPUT, 0.95, control), Verdict::NotResolvableHere);
            assert_eq!(judge(THROUGHPUT, 0.8, control), Verdict::Exceeds);
            assert_eq!(judge(LATENCY, 0.4, control), Verdict::Within);
            assert_eq!(judge(LATENCY, 0.48, control), Verdict::NotResolvableHere);
            assert_eq!(judge(LATENCY, 0.6, control), Verdict::Exceeds);
        }
        assert_eq!(judge(LATENCY, 0.5, 1.0), Verdict::Within);
        assert_eq!(judge(LATENCY, f64::NAN, 1.0), Verdict::NotResolvableHere);
        assert_eq!(judge(LATENCY, 0.4, 0.0), Verdict::NotResolvableHere);
    }
}
