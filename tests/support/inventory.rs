//! What a process holds: threads, descriptors, mappings, and the files in its directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything by name, with how many there are of it. Two of them that are equal mean that nothing
/// was left behind in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory {
    pub(crate) threads: BTreeMap<String, usize>,
    pub(crate) descriptors: BTreeMap<String, usize>,
    /// Mappings of files, shared memory and devices.
    pub(crate) mappings: BTreeMap<String, usize>,
    pub(crate) files: BTreeMap<String, usize>,
}

impl Inventory {
    /// Of this process, and of the files below `dir`.
    pub(crate) fn take(dir: &Path) -> Self {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task").unwrap() {
            // A thread may end between the listing and the look.
            if let Ok(name) = fs::read_to_string(task.unwrap().path().join("comm")) {
                *threads.entry(name.trim().to_owned()).or_default() += 1;
            }
        }
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").unwrap() {
            // The descriptor of this listing itself is gone by now, and has no name any more.
            if let Ok(target) = fs::read_link(entry.unwrap().path()) {
                let target = target.to_string_lossy();
                // Sockets and pipes are numbered; their kind is what counts.
                let kind = target.split(":[").next().unwrap_or_default().to_owned();
                // A node that runs looks at the machine now and then, and at this moment perhaps.
                if kind.starts_with("/proc") || kind.starts_with("/sys") {
                    continue;
                }
                *descriptors.entry(kind).or_default() += 1;
            }
        }
        let mut mappings = BTreeMap::new();
        for map in maps().filter(|map| map.name.starts_with('/')) {
            *mappings.entry(map.name).or_default() += 1;
        }
        let mut files = BTreeMap::new();
        list(dir, dir, &mut files);
        Self { threads, descriptors, mappings, files }
    }
}

/// Bytes of memory that can be written and are no file: heap, stacks and what allocators keep. What
/// they only reserve is not memory yet.
pub(crate) fn anonymous_bytes() -> u64 {
    maps()
        .filter(|map| !map.name.starts_with('/') && map.access.starts_with("rw"))
        .map(|map| map.bytes)
        .sum()
}

struct Map {
    name: String,
    access: String,
    bytes: u64,
}

fn maps() -> impl Iterator<Item = Map> {
    let text = fs::read_to_string("/proc/self/maps").unwrap();
    let lines: Vec<_> = text
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (from, to) = words.next().unwrap().split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let bytes = address(to) - address(from);
            let access = words.next().unwrap().to_owned();
            Map { name: words.nth(3).unwrap_or("").to_owned(), access, bytes }
        })
        .collect();
    lines.into_iter()
}

fn list(root: &Path, dir: &Path, files: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            *files.entry(name).or_default() += 1;
        }
    }
}
