//! Ratios with their control and limit, and those to a stored run.

use std::fmt::Write as _;

use super::super::baseline::BaselineReport;
use super::super::stats::{ComparisonReport, Limit, Verdict};
use super::draw::{Escaped, Lines};
use super::{badge, curves, over_time, span, table, times};

pub(super) fn comparisons(all: &[ComparisonReport]) -> String {
    let mut html = String::new();
    for comparison in all {
        let _ = write!(html, "<section>\n<h2>{}</h2>\n", Escaped(&comparison.name));
        let sides = [&comparison.base, &comparison.control, &comparison.subject];
        let rows = || sides.into_iter().map(|side| (side.name.as_str(), &side.pooled));
        html.push_str(&table(rows()));
        html.push_str(&ratios(comparison));
        html.push_str(&curves::plot(rows()));
        let series: Vec<_> = rows()
            .enumerate()
            .filter_map(|(colour, (name, summary))| {
                summary.series.as_ref().map(|of| Lines { name, colour, of })
            })
            .collect();
        html.push_str(&over_time::plot(&comparison.name, &series));
        html.push_str("</section>\n");
    }
    html
}

fn ratios(comparison: &ComparisonReport) -> String {
    let ComparisonReport { ratio, control_ratio, limits, .. } = comparison;
    let mut html = "<table class=\"ratios\"><thead><tr><th></th><th>ratio</th><th>control</th>\
                    <th>limit</th><th>verdict</th></tr></thead><tbody>\n"
        .to_owned();
    let rows = [
        ("p50", ratio.p50, control_ratio.p50, limits.p50, comparison.verdict_p50),
        ("p99", ratio.p99, control_ratio.p99, limits.p99, comparison.verdict_p99),
    ];
    for (quantile, ratio, control, limit, verdict) in rows {
        let _ = writeln!(
            html,
            "<tr><th>{quantile}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            times(ratio),
            times(control),
            limit.map_or("none".to_owned(), |limit: Limit| limit.to_string()),
            shown(limit.is_some(), verdict)
        );
    }
    html.push_str("</tbody></table>\n");
    let added = comparison.added_to_base_ns;
    if added.p50 != 0.0 || added.p99 != 0.0 {
        let (p50, p99) = (span(added.p50), span(added.p99));
        let _ = writeln!(html, "<p>Added to the base: p50 {p50}, p99 {p99}.</p>");
    }
    html
}

fn shown(has_limit: bool, verdict: Verdict) -> String {
    if has_limit { badge(verdict) } else { "shown only".to_owned() }
}

pub(super) fn baseline(baseline: Option<&BaselineReport>) -> String {
    let Some(baseline) = baseline else { return String::new() };
    let mut html = format!(
        "<section>\n<h2>Against the baseline</h2>\n<p>{}</p>\n<table><thead><tr><th></th><th></th>\
         <th>then</th><th>now</th><th>ratio</th><th>interval</th><th>verdict</th></tr></thead><tbody>\n",
        Escaped(&baseline.headline())
    );
    for figure in &baseline.figures {
        let interval = figure.interval.map_or("too few samples".to_owned(), |interval| {
            format!("{}–{}", times(interval.low), times(interval.high))
        });
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{interval}</td><td>{}</td></tr>",
            Escaped(&figure.name),
            Escaped(&figure.quantile),
            span(figure.baseline_ns),
            span(figure.now_ns),
            times(figure.ratio),
            badge(figure.verdict)
        );
    }
    html.push_str("</tbody></table>\n");
    for name in &baseline.missing {
        let _ = writeln!(html, "<p>In one of the two runs only: {}.</p>", Escaped(name));
    }
    html.push_str("</section>\n");
    html
}
