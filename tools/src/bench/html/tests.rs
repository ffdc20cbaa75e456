use sinew_rt::clock::Nanos;

use super::super::report::{MatrixCell, Run};
use super::super::stats::{Comparison, Limits, Samples};
use super::*;

const EVIL: &str = "<script>alert(1)</script>\"'&";

fn samples() -> Samples {
    let mut samples = Samples::new();
    for n in 0..5_000 {
        samples.record(Nanos::new(9_000 + n * 7_919 % 4_001), Nanos::from_millis(n));
    }
    samples
}

fn report() -> Report {
    let mut run = Run::elsewhere();
    run.measured(format!("wake {EVIL}"), &samples());
    let mut comparison = Comparison::new(EVIL, "bare", EVIL, Limits::at_most(1.1, 1.2));
    comparison.add(&samples(), &samples(), &samples());
    run.compared(&comparison);
    run.brand(format!("refused {EVIL}"));
    run.note(EVIL);
    run.longest(EVIL, Nanos::from_micros(12), Nanos::ZERO, EVIL.to_owned());
    run.figure(EVIL, 1.0, "%", None);
    let mut report = run.into_report();
    report.matrix.push(MatrixCell {
        from_core: 0,
        to_core: 1,
        wait: EVIL.to_owned(),
        pace: "back-to-back".to_owned(),
        p50_ns: 120.0,
        p99_ns: 130.0,
        count: 10,
    });
    report.command = EVIL.to_owned();
    report.host.processor = EVIL.to_owned();
    report.host.command_line = EVIL.to_owned();
    report
}

#[test]
fn the_page_shows_every_part_of_the_report() {
    let page = page(&report());
    for part in [
        "NOT REAL-TIME",
        "limit",
        "not judged",
        "From core to core",
        "Notes",
        "The worst",
        "The machine",
        "doctor: ",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert_eq!(page.matches("<svg ").count(), 4, "two curves and two courses");
    let curves = page.matches("class=\"curve").count();
    assert_eq!(curves, 8, "one and three curves, one and three medians");
    assert!(page.matches("class=\"outlier").count() >= 32);
    assert!(!page.contains("NaN") && !page.contains("inf "));
}

#[test]
fn nothing_from_elsewhere_becomes_markup_and_nothing_is_loaded() {
    let page = page(&report());
    assert!(!page.contains("<script>alert"), "injected");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
    assert!(page.contains("default-src 'none'"));
    for word in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    // Each script that is opened is closed, and nothing else closes one.
    assert_eq!(page.matches("<script").count(), page.matches("</script>").count());
}

#[test]
fn an_empty_report_is_a_page_too() {
    let page = page(&Run::elsewhere().into_report());
    assert!(page.contains("The machine") && page.ends_with("</html>\n"));
    assert!(!page.contains("<svg"));
}
