//! Machines as text files: each `== path` line begins a file, the lines up to the next one are its
//! content. `checks/` has a file for each of the doctor's checks, and in it a tree for each verdict,
//! under a line `@@ verdict: what it is`; each of them goes on top of `base.txt`.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")
}

/// One tree of one check.
#[derive(Debug)]
pub(crate) struct Written {
    /// The check's number.
    pub(crate) number: u64,
    /// The verdict that it must get.
    pub(crate) verdict: String,
    /// What it is.
    pub(crate) what: String,
    files: String,
}

/// Every written tree, in the order of the checks.
pub(crate) fn written() -> Vec<Written> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir().join("checks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let number = name.split('-').next().unwrap().parse().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Written from the kernel's documentation: "), "{name}");
        for section in text.split("\n@@ ").skip(1) {
            let (title, files) = section.split_once('\n').unwrap_or((section, ""));
            let (verdict, what) = title.split_once(": ").unwrap();
            let (verdict, what) = (verdict.to_owned(), what.to_owned());
            all.push(Written { number, verdict, what, files: format!("{files}\n") });
        }
    }
    all
}

impl Written {
    /// The tree, on top of the base.
    pub(crate) fn unpack(&self) -> tempfile::TempDir {
        let root = base();
        put(root.path(), &self.files);
        root
    }
}

/// The base with the first tree of every check that passes: a machine on which all is well.
pub(crate) fn tuned() -> tempfile::TempDir {
    let root = base();
    let mut number = 0;
    for tree in written().iter().filter(|tree| tree.verdict == "ok") {
        if tree.number > number {
            number = tree.number;
            put(root.path(), &tree.files);
        }
    }
    management_interrupts(root.path(), "", 3);
    management_interrupts(root.path(), "later", 3);
    root
}

pub(crate) fn base() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &std::fs::read_to_string(dir().join("base.txt")).unwrap());
    root
}

/// Intel's count of system management interrupts (MSR 0x34 of the Software Developer's Manual,
/// volume 4), which is no text.
pub(crate) fn management_interrupts(root: &Path, under: &str, count: u64) {
    let mut content = vec![0; 0x34];
    content.extend(count.to_ne_bytes());
    let path = root.join(under).join("dev/cpu/0/msr");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn put(root: &Path, files: &str) {
    for file in format!("\n{files}").split("\n== ").skip(1) {
        let (path, content) = file.split_once('\n').unwrap_or((file, ""));
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}
