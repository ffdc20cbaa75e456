//! `--html`: the report as one page that needs nothing else: no network, and no script for what it
//! shows. A small script adds the values under the pointer.
//!
//! Everything that comes from the host, the command line or a file is escaped, and the page's own
//! policy forbids it to load anything.

mod comparisons;
mod curves;
mod draw;
mod matrix;
mod over_time;

use std::fmt::Write as _;

use super::report::{Measured, Report, date, span, times};
use super::stats::{Summary, Verdict};
use crate::host::HostFingerprint;
use draw::{Escaped, Lines};

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");
/// Nothing may be loaded from anywhere; what the page itself holds may be used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; base-uri 'none'; form-action 'none'";

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let title = title(report);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        Escaped(&title)
    );
    page.push_str(&header(report, &title));
    page.push_str("<main>\n");
    page.push_str(&measured(&report.measured));
    page.push_str(&matrix::matrices(&report.matrix));
    page.push_str(&comparisons::comparisons(&report.compared));
    page.push_str(&comparisons::baseline(report.baseline.as_ref()));
    page.push_str(&figures(report));
    page.push_str(&longest(report));
    page.push_str(&notes(report));
    page.push_str(&machine(report));
    let _ = write!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

fn title(report: &Report) -> String {
    let command = report.parameters.get("command").map(String::as_str);
    let words = || report.command.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
    format!("sinew {}", command.map_or_else(words, str::to_owned))
}

fn header(report: &Report, title: &str) -> String {
    let host = &report.host;
    let mut html = format!(
        "<header>\n<h1>{}</h1>\n<p class=\"when\">{} · {} · Linux {}</p>\n\
         <pre class=\"command\">{}</pre>\n<p class=\"badges\">",
        Escaped(title),
        date(report.started_at_unix_ns),
        Escaped(&host.processor),
        Escaped(&host.kernel_release),
        Escaped(&report.command),
    );
    let judged = !report.compared.is_empty() || !report.added.is_empty();
    if judged || !report.figures.is_empty() || report.baseline.is_some() {
        html.push_str(&badge(report.verdict));
    }
    let doctor = host.doctor;
    for (count, word, class) in [
        (doctor.ok, "ok", "good"),
        (doctor.warn, "warn", "doubt"),
        (doctor.fail, "fail", "bad"),
        (doctor.not_applicable, "n/a", "plain"),
    ] {
        let class = if count > 0 { class } else { "plain" };
        let _ = write!(html, "<span class=\"badge {class}\">doctor: {count} {word}</span> ");
    }
    if report.program.build == "debug" {
        html.push_str("<span class=\"badge bad\">debug build</span>");
    }
    html.push_str("</p>\n");
    if !report.not_real_time.is_empty() {
        html.push_str("<div class=\"brand\"><strong>NOT REAL-TIME</strong><ul>");
        for reason in &report.not_real_time {
            let _ = write!(html, "<li>{}</li>", Escaped(reason));
        }
        html.push_str("</ul></div>\n");
    }
    if report.interrupted {
        html.push_str("<div class=\"brand\"><strong>INTERRUPTED</strong>: the figures are those up to then</div>\n");
    }
    html.push_str("</header>\n");
    html
}

fn badge(verdict: Verdict) -> String {
    let class = match verdict {
        Verdict::Within => "good",
        Verdict::NotJudged => "plain",
        Verdict::NotResolvableHere => "doubt",
        Verdict::Exceeds => "bad",
    };
    format!("<span class=\"badge {class}\">{verdict}</span> ")
}

const COLUMNS: [&str; 8] = ["", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// A table of distributions. The colour in front is that of the curve.
fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a Summary)>) -> String {
    let mut html = "<table class=\"figures\"><thead><tr>".to_owned();
    COLUMNS.iter().for_each(|name| html.push_str(&format!("<th>{name}</th>")));
    html.push_str("<th>at</th></tr></thead><tbody>\n");
    for (index, (name, summary)) in rows.enumerate() {
        let _ = write!(
            html,
            "<tr><th><i class=\"key c{}\"></i>{}</th><td>{}</td>",
            index % draw::COLOURS,
            Escaped(name),
            summary.count
        );
        let Summary { p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns, .. } = summary;
        for ns in [p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns] {
            let _ = write!(html, "<td>{}</td>", span(*ns));
        }
        let at = summary.max_at_s.map_or(String::new(), |at| format!("{at:.2} s"));
        let _ = writeln!(html, "<td>{at}</td></tr>");
    }
    html.push_str("</tbody></table>\n");
    html
}

/// Curves of one plot: more cannot be told apart.
const TOGETHER: usize = draw::COLOURS;

fn measured(all: &[Measured]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>Measured</h2>\n".to_owned();
    for some in all.chunks(TOGETHER) {
        let rows = || some.iter().map(|one| (one.name.as_str(), &one.summary));
        html.push_str(&table(rows()));
        html.push_str(&curves::plot(rows()));
    }
    for (index, one) in all.iter().enumerate() {
        if let Some(series) = &one.summary.series {
            let name = one.name.as_str();
            let colour = index % TOGETHER;
            html.push_str(&over_time::plot(name, &[Lines { name, colour, of: series }]));
        }
    }
    html.push_str("</section>\n");
    html
}

fn figures(report: &Report) -> String {
    if report.figures.is_empty() && report.added.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>Figures</h2>\n<ul>\n".to_owned();
    for figure in &report.figures {
        let _ = writeln!(html, "<li>{}</li>", Escaped(&figure.to_string()));
    }
    for added in &report.added {
        let _ = writeln!(html, "<li>{}</li>", Escaped(&added.to_string()));
    }
    html.push_str("</ul>\n</section>\n");
    html
}

fn longest(report: &Report) -> String {
    if report.longest.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>The worst</h2>\n<table><thead><tr><th>what</th><th>length</th>\
                    <th>at</th><th class=\"text\">cause</th></tr></thead><tbody>\n"
        .to_owned();
    for event in &report.longest {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td>{:.3} s</td><td class=\"text\">{}</td></tr>",
            Escaped(&event.what),
            span(event.length_ns as f64),
            event.at_s,
            Escaped(&event.cause)
        );
    }
    html.push_str("</tbody></table>\n</section>\n");
    html
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>Notes</h2>\n<ul>\n".to_owned();
    for note in &report.notes {
        let _ = writeln!(html, "<li>{}</li>", Escaped(note));
    }
    html.push_str("</ul>\n</section>\n");
    html
}

fn machine(report: &Report) -> String {
    let HostFingerprint {
        processor,
        cores_online,
        cores_usable,
        cores_isolated,
        kernel_release,
        kernel_version,
        preemption,
        command_line,
        governors,
        hypervisor,
        clock_source,
        ..
    } = &report.host;
    let or =
        |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let locked = report.memory_locked_bytes;
    let machine = hypervisor
        .as_ref()
        .map_or("bare metal".to_owned(), |hypervisor| format!("virtual machine ({hypervisor})"));
    let throttling = match (report.host.rt_runtime_us, report.host.rt_period_us) {
        (Some(-1), _) => "off".to_owned(),
        (Some(runtime), Some(period)) => format!("{runtime} µs of each {period} µs"),
        _ => "unknown".to_owned(),
    };
    let facts = [
        ("processor", format!("{processor}, {cores_online} cores online")),
        ("machine", machine),
        ("kernel", format!("{kernel_release} {kernel_version}, {preemption}")),
        ("command line", command_line.clone()),
        ("cores", format!("usable {cores_usable}; isolated {}", or(cores_isolated, "none"))),
        ("governor", or(&governors.join(", "), "none visible")),
        ("clock", clock_source.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("real-time throttling", throttling),
        (
            "memory",
            locked.map_or("not locked by this command".to_owned(), |bytes| {
                format!("{} KiB locked", bytes / 1024)
            }),
        ),
        ("program", format!("sinew {}, {} build", report.program.version, report.program.build)),
    ];
    let mut html = "<section>\n<h2>The machine</h2>\n<dl>\n".to_owned();
    for (name, value) in facts {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", Escaped(&value));
    }
    html.push_str("</dl>\n");
    if !report.threads.is_empty() {
        html.push_str(
            "<table><thead><tr><th>measuring thread</th><th class=\"text\">scheduling, read back</th>\
                       <th class=\"text\">core</th><th class=\"text\">refused</th></tr></thead><tbody>\n",
        );
        for thread in &report.threads {
            let refused = or(&thread.refused.join("; "), "nothing");
            let cells = [&thread.scheduling, &thread.cores, &refused];
            let _ = write!(html, "<tr><th>{}</th>", Escaped(&thread.name));
            for cell in cells {
                let _ = write!(html, "<td class=\"text\">{}</td>", Escaped(cell));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table>\n");
    }
    html.push_str("</section>\n");
    html
}

#[cfg(test)]
mod tests;
