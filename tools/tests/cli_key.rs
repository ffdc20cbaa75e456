//! `sinew key`: identities are made once, shown by their public name, and kept from others.

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use support::{json, run};

#[test]
fn a_new_key_is_private_and_shows_the_name_that_was_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("robot.key");
    let path = file.to_str().unwrap();
    let printed = run(&["key", "new", path]).good();
    assert!(printed.starts_with("did:key:z6Mk") && printed.ends_with('\n'), "{printed}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run(&["key", "show", path]).good(), printed);

    let report = json(&run(&["key", "show", path, "--json", "-"]).good());
    assert_eq!(report["version"], 1);
    assert_eq!(report["report"], "key");
    assert_eq!(report["identity"], printed.trim_end());
    let secret = std::fs::read_to_string(&file).unwrap();
    let secret = secret.lines().last().unwrap().split(' ').nth(1).unwrap().to_owned();
    assert!(!report.to_string().contains(&secret), "the secret is never shown");
}

#[test]
fn json_into_a_file_leaves_the_text_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let (file, report) = (dir.path().join("robot.key"), dir.path().join("key.json"));
    let out = run(&["key", "new", file.to_str().unwrap(), "--json", report.to_str().unwrap()]);
    let printed = out.good();
    let report = json(&std::fs::read_to_string(report).unwrap());
    assert_eq!(report["identity"], printed.trim_end());
}

#[test]
fn what_cannot_be_a_key_file_is_refused_in_one_line_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let key = path("robot.key");
    let first = run(&["key", "new", &key]).good();

    let error = run(&["key", "new", &key]).error(2);
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(run(&["key", "show", &key]).good(), first, "and is as it was");

    let error = run(&["key", "new", &path("missing/robot.key")]).error(2);
    assert!(error.contains("no such directory; make it with"), "{error}");
    let error = run(&["key", "show", &path("none.key")]).error(2);
    assert!(error.contains("make a key with `sinew key new"), "{error}");

    symlink(&key, path("link.key")).unwrap();
    let error = run(&["key", "show", &path("link.key")]).error(2);
    assert!(error.contains("symbolic link"), "{error}");
    let error = run(&["key", "new", &path("link.key")]).error(2);
    assert!(error.contains("exists already"), "{error}");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let error = run(&["key", "show", &key]).error(2);
    assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");

    std::fs::write(path("text"), "hello").unwrap();
    std::fs::set_permissions(path("text"), PermissionsExt::from_mode(0o600)).unwrap();
    let error = run(&["key", "show", &path("text")]).error(2);
    assert!(error.contains("not a key file"), "{error}");
}

#[test]
fn a_report_that_cannot_be_written_is_the_machines_fault() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("robot.key").to_str().unwrap().to_owned();
    run(&["key", "new", &key]).good();
    let error = run(&["key", "show", &key, "--json", "/dev/null/report"]).error(3);
    assert!(error.contains("cannot write /dev/null/report"), "{error}");
}

#[test]
fn usage_errors_end_with_two_and_every_subcommand_has_examples() {
    assert_eq!(run(&[]).code, Some(2));
    assert_eq!(run(&["key", "show"]).code, Some(2));
    assert_eq!(run(&["hist", "--no-such-option"]).code, Some(2));
    assert_eq!(run(&["no-such-command"]).code, Some(2));
    for command in [
        &["key", "new"][..],
        &["key", "show"],
        &["hist"],
        &["node", "run"],
        &["node", "status"],
        &["doctor"],
    ] {
        let help = run(&[command, &["--help"]].concat()).good();
        for part in ["Examples:", "Exit codes"] {
            assert!(help.contains(part), "{command:?} has no {part}");
        }
    }
}
