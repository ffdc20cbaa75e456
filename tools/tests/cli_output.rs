//! Results: every command hands them out in the same way, to people and to scripts.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Process, Ran, json, run, sinew};

/// Commands with a result that need nothing but files in a directory of their own.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("round.hist"), "000003 000010\n").unwrap();
        run(&["key", "new", dir.path().join("old.key").to_str().unwrap()]).good();
        Self(dir)
    }

    fn commands(&self) -> Vec<Vec<String>> {
        let path = |name: &str| self.0.path().join(name).to_str().unwrap().to_owned();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (round, old, new) = (path("round.hist"), path("old.key"), path("new.key"));
        let panels = path("panels");
        vec![
            words(&["doctor"]),
            words(&["hist", "--panel-dir", &panels]),
            words(&["key", "show", &old]),
            words(&["key", "new", &new]),
            words(&[
                "bench",
                "compare",
                "--base",
                &round,
                "--control",
                &round,
                "--subject",
                &round,
            ]),
        ]
    }
}

/// Runs `words` in an empty directory: what it leaves there is known.
fn ran(words: &[String], more: &[&str], dir: &Path) -> Ran {
    Ran::of(sinew().args(words).args(more).current_dir(dir).output().unwrap())
}

#[test]
fn json_on_standard_output_has_it_for_itself_and_in_a_file_leaves_it_to_the_text() {
    for n in 0..Site::new().commands().len() {
        let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
        let words = &site.commands()[n];
        let alone = ran(words, &["--json", "-"], dir.path());
        // What the machine is like decides the doctor's verdict.
        assert!(matches!(alone.code, Some(0 | 1)), "{words:?}: {alone:?}");
        assert_eq!(alone.err, "", "{words:?}: nothing but the JSON");
        let alone = json(&alone.out);

        let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
        let words = &site.commands()[n];
        let both = ran(words, &["--json", "report.json"], dir.path());
        assert!(matches!(both.code, Some(0 | 1)), "{words:?}: {both:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&both.out).is_err(), "the text");
        assert!(both.out.ends_with('\n'), "{words:?}: {both:?}");
        let file = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
        assert!(file.starts_with("{\n") && file.ends_with("}\n"), "indented: {file}");
        let (file, keys) = (json(&file), |value: &serde_json::Value| {
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        });
        assert_eq!(keys(&alone), keys(&file), "{words:?}: the same report");
        assert_eq!(file["version"], 1, "{words:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_with_what_to_do() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    for words in site.commands() {
        let error = ran(&words, &["--json", "none/report.json"], dir.path()).error(3);
        assert!(error.starts_with("sinew: cannot write none/report.json: "), "{words:?}: {error}");
        assert!(error.contains("give a file in a directory"), "{words:?}: {error}");
    }
    assert!(!site.0.path().join("new.key").exists(), "no key that nobody was told of");
}

/// What takes long is not measured in vain.
#[test]
fn a_benchmark_and_the_demo_find_out_before_they_run() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["bench", "guard", "--bursts", "9999"][..],
        &["bench", "hop", "--rounds", "9999"],
        &["bench", "wake", "--loops", "1000000000"],
        &["bench", "pipeline"],
        &["demo", "--seconds", "86400"],
    ] {
        let mut command = sinew();
        command.args(words).args(["--json", "none/report.json"]).current_dir(dir.path());
        let error = Process::start(&mut command).end().error(3);
        assert!(error.contains("cannot write none/report.json: "), "{words:?}: {error}");
    }
    let mut command = sinew();
    command.args(["bench", "wake", "--loops", "1000000000", "--histogram", "none/wake.hist"]);
    let error = Process::start(command.current_dir(dir.path())).end().error(3);
    assert!(error.contains("cannot write none/wake.hist: "), "{error}");
}

#[test]
fn standard_output_that_takes_nothing_is_an_error_and_a_reader_that_left_is_none() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let words = &site.commands()[4];
    let command = |more: &[&str]| {
        let mut command: Command = sinew();
        command.args(words).args(more).current_dir(dir.path());
        command
    };
    for more in [&[][..], &["--json", "-"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(command(more).stdout(full).output().unwrap());
        assert!(ran.error(3).contains("cannot write to standard output: "));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = Ran::of(command(more).stdout(writer).output().unwrap());
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{more:?}");
    }
}

#[test]
fn every_command_explains_its_json_in_the_same_words() {
    let explained = |words: &[&str]| {
        let help = run(&[words, &["--help"]].concat()).good();
        let from = help.find("      --json").unwrap_or_else(|| panic!("{words:?}: {help}"));
        let lines = help[from..].lines().map(str::trim).take_while(|line| !line.is_empty());
        // One option is all on one line where no explanation is longer.
        lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let expected = "--json <PATH|-> Write the report as JSON to a file, or to standard output with \
                    `-` (then without the text)";
    for words in [
        &["doctor"][..],
        &["demo"],
        &["hist"],
        &["key", "new"],
        &["key", "show"],
        &["node", "run"],
        &["node", "status"],
        &["bench", "compare"],
        &["bench", "guard"],
        &["bench", "hop"],
        &["bench", "pipeline"],
        &["bench", "wake"],
    ] {
        assert!(explained(words).starts_with(expected), "{words:?}: {}", explained(words));
    }
}

#[test]
fn bash_accepts_the_completion_script_and_knows_the_commands() {
    let script = run(&["completions", "bash"]).good();
    let check = |arguments: &[&str], text: &str| {
        let mut bash = std::process::Command::new("bash");
        bash.args(arguments).stdin(std::process::Stdio::piped());
        bash.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut bash = bash.spawn().expect("bash is there");
        std::io::Write::write_all(&mut bash.stdin.take().unwrap(), text.as_bytes()).unwrap();
        Ran::of(bash.wait_with_output().unwrap())
    };
    let checked = check(&["-n"], &script);
    assert_eq!((checked.code, &*checked.err), (Some(0), ""));
    // As bash does it for `sinew topic ec` and the tabulator.
    let line =
        "COMP_WORDS=(sinew topic ec) COMP_CWORD=2; _sinew sinew ec topic; echo \"${COMPREPLY[@]}\"";
    let completed = check(&["--norc"], &format!("{script}\n{line}\n"));
    assert_eq!(completed.out.trim_end(), "echo", "{}", completed.err);
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).good();
        assert!(script.contains("topic") && script.contains("wait-seconds"), "{shell}: {script}");
    }
    let error = run(&["completions", "csh"]);
    assert_eq!(error.code, Some(2));
}

#[test]
fn manual_pages_are_written_for_every_command_that_help_lists() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man1");
    run(&["man", "--out", out.to_str().unwrap()]).good();
    let help = run(&["--help"]).good();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = commands.map_while(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut count = 0;
    for name in names.filter(|name| !name.is_empty() && *name != "help") {
        let page = std::fs::read_to_string(out.join(format!("sinew-{name}.1"))).unwrap();
        assert!(page.contains("\n.SH EXAMPLES\n"), "{name}");
        count += 1;
    }
    assert!(count >= 8, "{help}");
    let page = run(&["man", "topic", "echo"]).good();
    assert_eq!(page, std::fs::read_to_string(out.join("sinew-topic-echo.1")).unwrap());
    assert!(run(&["man", "topic", "ecco"]).error(2).contains("sinew topic echo"));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(run(&["man", "--out", file.to_str().unwrap()]).error(3).contains("cannot write"));
}
