//! Takes names out of a capture that say whose machine it is.

use super::Files;

/// Hexadecimal digits from which a part of a cgroup's path is a container's or session's number.
const LONG_HEX: usize = 12;

/// Hardware addresses in the names of network devices (`enx`, `wlx` and twelve digits), and the
/// numbers of containers and sessions in cgroups, become `enx0`, `group0`, everywhere alike.
pub(super) fn without_names(mut files: Files) -> Files {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut hide = |found: &str, kind: &str| {
        if !names.iter().any(|(name, _)| name == found) {
            names.push((found.to_owned(), format!("{kind}{}", names.len())));
        }
    };
    for (path, content) in &files {
        for part in path.split('/') {
            for kind in ["enx", "wlx"] {
                let digits = part.strip_prefix(kind);
                if digits.is_some_and(|digits| digits.len() == 12 && is_hex(digits)) {
                    hide(part, kind);
                }
            }
        }
        if path == "proc/self/cgroup" {
            let text = String::from_utf8_lossy(content);
            let parts = text.split(|letter: char| !letter.is_ascii_hexdigit());
            parts.filter(|part| part.len() >= LONG_HEX).for_each(|part| hide(part, "group"));
        }
    }
    for (path, content) in &mut files {
        for (name, shown) in &names {
            *path = path.replace(name, shown);
            // What is not text has none.
            if let Ok(text) = std::str::from_utf8(content)
                && text.contains(name.as_str())
            {
                *content = text.replace(name, shown).into_bytes();
            }
        }
    }
    files
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
