//! Small reads from `/proc` and `/sys`, under any root. They allocate: never on a lane.

use std::path::Path;

use crate::topology::{CoreId, CoreList};

/// The text of a small file without the trailing white space; `None` when it cannot be read.
#[must_use]
pub fn text(root: &Path, path: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(path)).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A number that is alone in its file.
#[must_use]
pub fn number<N: std::str::FromStr>(root: &Path, path: &str) -> Option<N> {
    text(root, path)?.trim().parse().ok()
}

/// A core list that is alone in its file.
#[must_use]
pub fn core_list(root: &Path, path: &str) -> Option<CoreList> {
    text(root, path)?.parse().ok()
}

/// A set of cores that is alone in its file, as a mask: `f`, `ffffffff,0000000f`.
#[must_use]
pub fn core_mask(root: &Path, path: &str) -> Option<CoreList> {
    parse_mask(&text(root, path)?)
}

/// Reads the kernel's mask format: hexadecimal words of 32 bits, the highest first.
fn parse_mask(mask: &str) -> Option<CoreList> {
    let words: Vec<&str> = mask.trim().split(',').collect();
    let mut cores = Vec::new();
    // As many words as core numbers below 65,536 can fill.
    for (n, word) in words.iter().rev().enumerate().take(2048) {
        let bits = u32::from_str_radix(word, 16).ok()?;
        let set = (0..32).filter(|bit| bits & (1 << bit) != 0);
        cores.extend(set.map(|bit| CoreId::new((n * 32) as u16 + bit)));
    }
    Some(cores.into_iter().collect())
}

/// A set of cores in the kernel's mask format.
#[must_use]
pub fn mask_of(cores: &CoreList) -> String {
    let highest = cores.iter().next_back().map_or(0, CoreId::index);
    let word = |n: usize| {
        let bits = cores.iter().filter(|core| core.index() / 32 == n);
        bits.fold(0_u32, |word, core| word | 1 << (core.index() % 32))
    };
    let words: Vec<u32> = (0..=highest / 32).rev().map(word).collect();
    let rest = words[1..].iter().map(|word| format!(",{word:08x}"));
    format!("{:x}", words[0]) + &rest.collect::<String>()
}

/// The names in a directory, sorted; `None` when it cannot be read.
#[must_use]
pub fn names(root: &Path, path: &str) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(root.join(path)).ok()?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Some(names)
}

/// The numbers that name entries of a directory, such as processes in `/proc`, sorted; `None` when it
/// cannot be read.
#[must_use]
pub fn numbered(root: &Path, path: &str) -> Option<Vec<u32>> {
    let entries = std::fs::read_dir(root.join(path)).ok()?;
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let mut numbers: Vec<u32> = entries.flatten().filter_map(number).collect();
    numbers.sort_unstable();
    Some(numbers)
}

/// The value of `Key:` in a `/proc/*/status`-like text.
#[must_use]
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// The chosen word of a list such as `always [madvise] never`.
#[must_use]
pub fn chosen(words: &str, open: char, close: char) -> Option<&str> {
    words.split_whitespace().find_map(|word| word.strip_prefix(open)?.strip_suffix(close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written_the_way_the_kernel_writes_them() {
        for (mask, list) in [("3", "0-1"), ("c", "2-3"), ("1,00000000", "32"), ("0", "")] {
            let cores: CoreList = list.parse().unwrap();
            assert_eq!(parse_mask(mask), Some(cores.clone()), "{mask}");
            assert_eq!(mask_of(&cores), mask);
        }
        assert_eq!(parse_mask("ffffffff,0000000f\n").unwrap().to_string(), "0-3,32-63");
        assert_eq!(parse_mask("xyz"), None);
    }
}
