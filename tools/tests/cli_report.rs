//! What `sinew bench` hands out: JSON as its schema says, a page, files for HdrHistogram's tools, and
//! the comparison with a stored run.
//!
//! Nothing here spins, and no figure is looked at.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{json, run};

/// A run of half a second: enough for blocks of both quantiles.
const WAKE: [&str; 8] =
    ["bench", "wake", "--loops", "2500", "--interval-us", "200", "--priority", "0"];

fn wake(more: &[&str]) -> support::Ran {
    run(&[&WAKE, more].concat())
}

/// A stored run, and where it is.
fn stored(dir: &Path) -> (Value, PathBuf) {
    let path = dir.join("stored.json");
    wake(&["--json", path.to_str().unwrap()]).good();
    (json(&std::fs::read_to_string(&path).unwrap()), path)
}

fn store(path: &Path, report: &Value) {
    std::fs::write(path, report.to_string()).unwrap();
}

/// What of `value` is not as `schema` says. Knows what docs/report.schema.json uses, and panics at
/// anything else.
fn violations(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        let wrong = || format!("{at}: not {keyword} {rule}: {value:.80}");
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let place = rule.as_str().unwrap().strip_prefix('#').unwrap();
                violations(root, root.pointer(place).unwrap(), value, at, found);
            }
            "const" if rule != value => found.push(wrong()),
            "enum" if !rule.as_array().unwrap().contains(value) => found.push(wrong()),
            "const" | "enum" => {}
            "type" => {
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                let fits = rule.as_array().map_or_else(|| is(rule), |kinds| kinds.iter().any(is));
                if !fits {
                    found.push(wrong());
                }
            }
            "anyOf" => {
                let fits = rule.as_array().unwrap().iter().any(|one| {
                    let mut inside = Vec::new();
                    violations(root, one, value, at, &mut inside);
                    inside.is_empty()
                });
                if !fits {
                    found.push(wrong());
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    violations(root, rule, item, &format!("{at}[{index}]"), found);
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        found.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}.{name}");
                    let known = schema["properties"].get(name);
                    match (keyword.as_str(), known) {
                        ("properties", Some(schema)) => {
                            violations(root, schema, inner, &at, found);
                        }
                        ("additionalProperties", None) if rule == &Value::Bool(false) => {
                            found.push(format!("{at} is not in the schema"));
                        }
                        ("additionalProperties", None) => {
                            violations(root, rule, inner, &at, found);
                        }
                        _ => {}
                    }
                }
            }
            other => panic!("keyword {other}"),
        }
    }
}

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.schema.json");
    json(&std::fs::read_to_string(path).unwrap())
}

fn check(report: &Value) -> Vec<String> {
    let (schema, mut found) = (schema(), Vec::new());
    violations(&schema, &schema, report, "report", &mut found);
    found
}

#[test]
fn real_reports_are_as_the_schema_says_and_the_schema_tells_right_from_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (report, path) = stored(dir.path());
    assert_eq!(check(&report), Vec::<String>::new());
    let compared = wake(&["--baseline", path.to_str().unwrap(), "--json", "-"]);
    let compared = json(&compared.out);
    assert!(compared["baseline"]["figures"][0]["interval"]["low"].is_number(), "{compared}");
    assert_eq!(check(&compared), Vec::<String>::new());
    let guard = run(&["bench", "guard", "--bursts", "1", "--priority", "0", "--json", "-"]);
    let guard = json(&guard.out);
    assert!(guard["added"][0]["limit_ns"].is_number());
    assert_eq!(check(&guard), Vec::<String>::new());

    let wrong = |pointer: &str, with: Value| {
        let mut report = report.clone();
        *report.pointer_mut(pointer).unwrap() = with;
        check(&report).len()
    };
    assert_eq!(wrong("/measured/0/p50_ns", "9 µs".into()), 1);
    assert_eq!(wrong("/verdict", "good".into()), 1);
    assert_eq!(wrong("/measured/0/series", 7.into()), 1);
    assert_eq!(wrong("/version", 2.into()), 1);
    let mut more = report.clone();
    more["undocumented"] = 1.into();
    more.as_object_mut().unwrap().remove("notes");
    assert_eq!(check(&more).len(), 2);
}

#[test]
fn every_field_of_the_schema_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/report.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut names = Vec::new();
    for part in schema()["$defs"].as_object().unwrap().values() {
        names.extend(part["properties"].as_object().into_iter().flatten().map(|one| one.0.clone()));
    }
    assert!(names.len() > 80, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/report.md");
    }
}

#[test]
fn what_plots_need_is_in_the_json() {
    let dir = tempfile::tempdir().unwrap();
    let (report, _) = stored(dir.path());
    let wake = &report["measured"][0];
    let long = |pointer: &str| wake.pointer(pointer).unwrap().as_array().unwrap().len();
    assert!(long("/curve/share") > 30 && long("/curve/share") == long("/curve/value_ns"));
    assert!(long("/series/at_s") > 50 && long("/series/at_s") <= 512);
    assert_eq!(long("/series/p50_ns"), long("/series/at_s"));
    assert!((1..=32).contains(&long("/series/outlier_ns")));
    assert_eq!((long("/blocks/p50_ns"), long("/blocks/p99_ns")), (20, 20));
    assert_eq!(wake.pointer("/series/outlier_ns/0"), wake.get("max_ns"));
    assert_eq!(report["parameters"]["interval-us"], "200");
}

#[test]
fn every_file_that_was_asked_for_is_there_and_holds_all_spans() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let files = ["--html", &path("page.html"), "--svg", &path("curves.svg")];
    let more = ["--hgrm", &path("one.hgrm"), "--hlog", &path("run.hlog"), "--plot"];
    let text = wake(&[&files[..], &more[..]].concat()).good();
    assert!(text.contains("99.9 %") && text.contains("a plain sleep"), "a plot: {text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");
    assert!(read("page.html").contains("Latency by percentile"));
    assert!(read("curves.svg").contains("sinew bench wake: latency by percentile"));
    let hgrm = read("one.hgrm");
    assert!(hgrm.contains("Total count    =         2500"), "{hgrm}");
    assert!(hgrm.contains("SubBuckets     =         2048"), "three digits: {hgrm}");
    let log = read("run.hlog");
    assert!(log.lines().any(|line| line.starts_with("Tag=plain_sleep")), "{log}");
    let directory = path("distributions");
    wake(&["--hgrm", &directory]).good();
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_measured() {
    for option in ["--html", "--svg", "--hlog", "--hgrm"] {
        let line = wake(&[option, "/proc/nowhere/file"]).error(3);
        assert!(line.contains("/proc/nowhere"), "{line}");
    }
}

#[test]
fn a_slower_run_fails_and_a_faster_one_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (report, path) = stored(dir.path());
    // What is compared is a stored run so much faster or slower that no scatter of this machine is in
    // between: on a busy one, blocks may differ by a factor of thousands.
    let with = |factor: f64| {
        let mut report = report.clone();
        for pointer in ["/measured/0/blocks/p50_ns", "/measured/0/blocks/p99_ns"] {
            for ns in report.pointer_mut(pointer).unwrap().as_array_mut().unwrap() {
                *ns = (ns.as_f64().unwrap() * factor).into();
            }
        }
        store(&path, &report);
        wake(&["--baseline", path.to_str().unwrap()])
    };
    let slower = with(1e-9);
    assert_eq!(slower.code, Some(1), "{slower:?}");
    assert!(slower.out.contains("against the baseline") && slower.out.contains("exceeds"));
    let faster = with(1e30);
    assert_eq!(faster.code, Some(0), "{faster:?}");
    assert!(faster.out.contains("is a regression: within"), "{}", faster.out);
}

#[test]
fn another_machine_is_refused_before_measuring_with_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report, path) = stored(dir.path());
    let asked = ["--baseline", path.to_str().unwrap()];
    report["host"]["processor"] = "Cortex-A78".into();
    report["parameters"]["loops"] = "77".into();
    store(&path, &report);
    let line = wake(&asked).error(3);
    for part in ["Cortex-A78", "option loops was \"77\" and is \"2500\"", "same conditions"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    std::fs::write(&path, "{}").unwrap();
    assert!(wake(&asked).error(2).contains("it has no version"));
    assert!(wake(&["--tolerance", "-3"]).code == Some(2));
}
