//! Whatever is in the file: a reader gives data or an error with a reason, and never a fault or panic.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sinew_rt::clock::Nanos;
use sinew_rt::guard::{Execution, Guard, GuardSpec};
use sinew_rt::ladder::LadderConfig;
use sinew_rt::panel::{Panel, PanelError, PanelReader, PanelSnapshot, PanelSpec, Table};
use tempfile::TempDir;

/// The bytes of a small panel with something in every table.
fn bytes() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let spec = PanelSpec {
        probes: 2,
        histograms: 4,
        values: 3,
        trips_per_probe: 2,
        ..PanelSpec::new("victim").in_dir(dir.path())
    };
    let panel = Panel::create(&spec).expect("created");
    let _counter = panel.counter("frames").expect("room");
    let _gauge = panel.gauge("depth").expect("room");
    let spec = GuardSpec {
        budget: Nanos::from_micros(5),
        hard_limit: Nanos::from_millis(1),
        ladder: LadderConfig::standard(),
    };
    let mut guard = Guard::new(panel.probe("stage", Some(1)).expect("room"), spec).expect("valid");
    for i in 0..5 {
        let start = Nanos::from_micros(i * 100);
        guard.enter(start);
        guard.exit(start + Nanos::from_micros(i * 3), Execution::Worked { released: start });
    }
    fs::read(panel.path().expect("a file")).expect("readable")
}

struct File {
    _dir: TempDir,
    path: PathBuf,
}

fn file(bytes: &[u8]) -> File {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.panel");
    fs::write(&path, bytes).expect("written");
    File { _dir: dir, path }
}

fn read(path: &Path) -> Result<PanelSnapshot, PanelError> {
    PanelReader::open(path)?.snapshot()
}

fn read_bytes(bytes: &[u8]) -> Result<PanelSnapshot, PanelError> {
    read(&file(bytes).path)
}

fn patched(offset: usize, value: &[u8]) -> Result<PanelSnapshot, PanelError> {
    let mut bytes = bytes();
    bytes[offset..offset + value.len()].copy_from_slice(value);
    read_bytes(&bytes)
}

#[test]
fn the_unharmed_panel_is_readable() {
    let shown = read_bytes(&bytes()).expect("whole");
    assert_eq!((shown.probes[0].executions, shown.probes[0].overruns), (5, 3));
    assert_eq!(shown.trips.len(), 2);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = bytes();
    let lengths = (0..bytes.len()).step_by(997).chain([1, 7, 8, 2_175, 2_176, bytes.len() - 1]);
    for len in lengths {
        let error = read_bytes(&bytes[..len]).expect_err("truncated");
        assert!(matches!(error, PanelError::TooShort { got, .. } if got == len as u64), "{error}");
    }
}

#[test]
fn a_panel_truncated_while_it_is_mapped_is_an_error() {
    let file = file(&bytes());
    let reader = PanelReader::open(&file.path).expect("whole");
    reader.snapshot().expect("whole");
    let writer = fs::OpenOptions::new().write(true).open(&file.path).expect("writable");
    writer.set_len(4_096).expect("truncated");
    let error = reader.snapshot().expect_err("truncated");
    assert!(matches!(error, PanelError::TooShort { got: 4_096, .. }), "{error}");
}

#[test]
fn headers_that_lie_are_errors_that_name_the_lie() {
    let error = patched(0, b"SINEWPNM").expect_err("magic");
    assert!(matches!(error, PanelError::NotAPanel { .. }), "{error}");
    let error = patched(0, &[0; 8]).expect_err("incomplete");
    assert!(matches!(error, PanelError::NotAPanel { found: 0 }), "{error}");
    let error = patched(8, &3_u32.to_ne_bytes()).expect_err("version");
    assert_eq!(error.to_string(), "the panel has layout version 3; this program reads version 2");
    let error = patched(12, &64_u32.to_ne_bytes()).expect_err("header length");
    assert_eq!(error.to_string(), "corrupt panel: header length is 64, expected 2176");
    let error = patched(16, &u64::MAX.to_ne_bytes()).expect_err("file length");
    assert!(matches!(error, PanelError::TooShort { need: u64::MAX, .. }), "{error}");
    let error = patched(28, &9_u32.to_ne_bytes()).expect_err("state");
    assert_eq!(error.to_string(), "corrupt panel: state is 9, expected 5");

    for (index, table) in
        [Table::Probes, Table::Histograms, Table::Values, Table::Trips].into_iter().enumerate()
    {
        let entry = 128 + index * 24;
        // Beyond the file, wrapping around the address space, and misaligned.
        for offset in [1_u64 << 40, u64::MAX - 63, 2_177] {
            let error = patched(entry, &offset.to_ne_bytes()).expect_err("offset");
            assert!(
                matches!(error, PanelError::Table { table: t, offset: o, .. } if (t, o) == (table, offset)),
                "{error}"
            );
        }
        let error = patched(entry + 8, &0_u32.to_ne_bytes()).expect_err("entry length");
        assert!(matches!(error, PanelError::Corrupt { what: "entry length", .. }), "{error}");
        let error = patched(entry + 12, &u32::MAX.to_ne_bytes()).expect_err("capacity");
        assert!(matches!(error, PanelError::Table { table: t, .. } if t == table), "{error}");
    }
    for (index, used) in [(0, 3_u32), (1, 5), (2, 4)] {
        let error = patched(128 + index * 24 + 16, &used.to_ne_bytes()).expect_err("used");
        assert!(matches!(error, PanelError::Corrupt { what: "entries in use", .. }), "{error}");
    }
    let error = patched(224, &7_u32.to_ne_bytes()).expect_err("trips per probe");
    assert!(matches!(error, PanelError::Corrupt { what: "trip capacity", .. }), "{error}");
}

#[test]
fn a_sparse_file_of_any_length_is_not_read_into_memory() {
    let grown = |table: usize, capacity: u32, entry_len: u64| {
        let mut bytes = bytes();
        let offset = bytes.len().next_multiple_of(64) as u64;
        let len = offset + u64::from(capacity) * entry_len;
        let entry = 128 + table * 24;
        bytes[entry..entry + 8].copy_from_slice(&offset.to_ne_bytes());
        bytes[entry + 12..entry + 16].copy_from_slice(&capacity.to_ne_bytes());
        bytes[entry + 16..entry + 20].fill(0);
        bytes[16..24].copy_from_slice(&len.to_ne_bytes());
        let file = file(&bytes);
        let sparse = fs::OpenOptions::new().write(true).open(&file.path).expect("writable");
        sparse.set_len(len).expect("sparse");
        read(&file.path)
    };
    for (table, entry_len) in [(0, 256), (1, 28_800), (2, 64)] {
        let error = grown(table, 4_097, entry_len).expect_err("beyond what a writer makes");
        assert!(
            matches!(error, PanelError::Corrupt { what: "capacity of a table", found: 4_097, .. }),
            "{error}"
        );
    }
    assert_eq!(grown(2, 4_096, 64).expect("the most there may be").probes.len(), 1);
    let error = patched(224, &65_u32.to_ne_bytes()).expect_err("trips per probe");
    assert!(matches!(error, PanelError::Corrupt { what: "trips per probe", .. }), "{error}");
}

#[test]
fn what_would_tell_a_terminal_what_to_do_is_no_text() {
    // The first probe's name, behind the header; the node's layout in the header; a value's name.
    let values = 2_176 + 2 * 256 + 4 * 28_800;
    for offset in [2_176, 240, values] {
        let shown = patched(offset, b"a\x1b[2J\n\x07b\0").expect("readable");
        let texts = [&shown.probes[0].name, &shown.layout, &shown.counters[0].0];
        assert_eq!(
            texts.iter().filter(|text| **text == "a\u{fffd}[2J\u{fffd}\u{fffd}b").count(),
            1
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("evil\x1b[2J.panel"), bytes()).expect("written");
    fs::write(dir.path().join("good.panel"), bytes()).expect("written");
    let listed = PanelReader::list(dir.path()).expect("readable");
    assert_eq!(
        listed.iter().map(|one| &one.path).collect::<Vec<_>>(),
        [&dir.path().join("good.panel")]
    );
}

#[test]
fn a_trip_whose_writer_died_half_way_is_left_out_and_counted() {
    // Header, two probes of 256, four histograms of 28,800, three values of 64: the first trip.
    let trips = 2_176 + 2 * 256 + 4 * 28_800 + 3 * 64;
    let shown = patched(trips, &3_u64.to_ne_bytes()).expect("readable");
    assert_eq!((shown.trips.len(), shown.torn), (1, 1));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(read(dir.path()), Err(PanelError::Io { .. })));
    assert!(matches!(read(&dir.path().join("none")), Err(PanelError::Io { .. })));
    assert!(matches!(read(Path::new("/dev/null")), Err(PanelError::Io { .. })));
}

#[test]
fn a_corrupt_panel_is_listed_with_the_reason_and_moved_aside_by_the_next_start() {
    let file = file(b"garbage");
    let dir = file.path.parent().expect("a parent");
    let listed = PanelReader::list(dir).expect("readable");
    assert!(matches!(listed[0].process, Err(PanelError::TooShort { got: 7, .. })));
    assert!(!listed[0].is_alive());
    let _panel = Panel::create(&PanelSpec::new("x").in_dir(dir)).expect("created");
    assert_eq!(fs::read(dir.join("x.crashed.panel")).expect("kept"), b"garbage");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any bytes behind a plausible start: data or an error, and looking at the data is safe too.
    #[test]
    fn damaged_bytes_never_fault(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
        in_header in prop::collection::vec((8..240_usize, any::<u8>()), 0..4),
        in_tables in prop::collection::vec((0..14_000_usize, any::<u8>()), 0..20),
    ) {
        let mut bytes = bytes();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in in_header {
            bytes[at] = value;
        }
        for (at, value) in in_tables {
            bytes[at * 8] = value;
        }
        if let Ok(shown) = read_bytes(&bytes) {
            let _ = (format!("{shown:?}"), shown.is_alive(), shown.level());
            for histogram in &shown.histograms {
                for quantile in [0.0, 0.5, 0.999, 1.0] {
                    let _ = histogram.quantile(quantile);
                }
                let _ = (histogram.mean(), histogram.hdr.stdev());
            }
        }
    }

    #[test]
    fn random_files_never_fault(noise in prop::collection::vec(any::<u8>(), 0..5_000)) {
        prop_assert!(read_bytes(&noise).is_err());
        let mut behind_magic = b"SINEWPNL\x01\0\0\0".to_vec();
        behind_magic.extend(noise);
        let _ = read_bytes(&behind_magic);
    }
}
