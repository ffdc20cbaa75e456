//! Takes names out of a capture that say whose machine it is.

use super::Files;

/// How the names of network devices begin that end with their hardware address, twelve digits
/// (systemd.net-naming-scheme(7)): wired, wireless, mobile.
const KINDS: [&str; 3] = ["enx", "wlx", "wwx"];

/// Hardware addresses in the names of network devices become `enx0`, everywhere alike.
pub(super) fn without_names(mut files: Files) -> Files {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut hide = |found: &str, kind: &str| {
        if !names.iter().any(|(name, _)| name == found) {
            names.push((found.to_owned(), format!("{kind}{}", names.len())));
        }
    };
    for (path, _) in &files {
        for part in path.split('/') {
            for kind in KINDS {
                let digits = part.strip_prefix(kind);
                if digits.is_some_and(|digits| digits.len() == 12 && is_hex(digits)) {
                    hide(part, kind);
                }
            }
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
