//! Machines as text files: each `== path` line begins a file, the lines up to the next one are its
//! content. Unpacked into a temporary directory, they are the root that the readers take.

use std::path::Path;

/// Unpacks `tests/trees/<name>.txt`, with some files replaced or added.
pub(crate) fn tree(name: &str, changes: &[(&str, &str)]) -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees").join(name);
    let text = std::fs::read_to_string(fixture.with_extension("txt")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let files = text.split("== ").skip(1).map(|file| file.split_once('\n').unwrap());
    for (path, content) in files.chain(changes.iter().copied()) {
        let path = root.path().join(path.trim_end());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    root
}
