//! Small reads from `/proc` and `/sys`, under any root.

use std::path::Path;

use crate::topology::CoreList;

/// The text of a small file without the trailing white space; `None` when it cannot be read.
pub(crate) fn text(root: &Path, path: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(path)).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A number that is alone in its file.
pub(crate) fn number<N: std::str::FromStr>(root: &Path, path: &str) -> Option<N> {
    text(root, path)?.trim().parse().ok()
}

/// A core list that is alone in its file.
pub(crate) fn core_list(root: &Path, path: &str) -> Option<CoreList> {
    text(root, path)?.parse().ok()
}

/// The value of `Key:` in a `/proc/*/status`-like text.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// The chosen word of a list such as `always [madvise] never`.
pub(crate) fn chosen(words: &str, open: char, close: char) -> Option<&str> {
    words.split_whitespace().find_map(|word| word.strip_prefix(open)?.strip_suffix(close))
}
