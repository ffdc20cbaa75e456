//! The topology of written and captured machines, and of the one that runs the tests.

mod trees;

use proptest::prelude::*;
use sinew_rt::topology::{CacheKind, CoreId, CoreList, Topology, TopologyError};
use trees::tree;

fn read(name: &str) -> Topology {
    Topology::read_from(tree(name, &[]).path()).unwrap()
}

fn cores(list: &str) -> Vec<CoreId> {
    list.split_whitespace().map(|core| CoreId::new(core.parse().unwrap())).collect()
}

#[test]
fn isolated_cores_are_usable_although_the_default_mask_leaves_them_out() {
    let topology = read("written-smt-isolated");
    assert_eq!(topology.allowed.to_string(), "0-1,4-5");
    assert_eq!(topology.usable_cores().to_string(), "0-7");
    // One hardware thread of each physical core before the second of any.
    assert_eq!(topology.real_time_cores(), cores("2 3 6 7"));
    assert_eq!(topology.housekeeping_candidates(), cores("0 1 4 5"));
    assert_eq!(topology.nohz_full.to_string(), "2-3,6-7");
    assert_eq!(topology.nodes[0].cores.to_string(), "0-7");
}

#[test]
fn siblings_caches_and_interrupts_are_told_apart() {
    let topology = read("written-smt-isolated");
    let core = |number| CoreId::new(number);
    assert_eq!(topology.siblings_of(core(2)).to_string(), "6");
    assert_eq!(topology.nearest_shared_cache(core(2), core(6)), Some(1));
    assert_eq!(topology.nearest_shared_cache(core(2), core(3)), Some(3));
    let caches = &topology.core(core(0)).unwrap().caches;
    assert_eq!(caches.len(), 4);
    assert_eq!((caches[3].level, caches[3].kind), (3, CacheKind::Unified));
    assert_eq!(caches[0].size_bytes, Some(48 * 1024));
    assert_eq!(caches[3].size_bytes, Some(24 * 1024 * 1024));
    assert_eq!(topology.core(core(0)).unwrap().interrupts, Some(2));
    assert_eq!(topology.core(core(2)).unwrap().interrupts, Some(0));
}

#[test]
fn fast_cores_come_first_and_the_slowest_keeps_house() {
    let topology = read("written-big-little");
    assert_eq!(topology.real_time_cores(), cores("4 1 2 3"));
    assert_eq!(topology.housekeeping_candidates(), cores("0 1 2 3 4"));
    assert_eq!(topology.usable_cores().to_string(), "0-4", "core 5 is offline");
    assert!(topology.core(CoreId::new(5)).is_none());
    assert!(topology.nohz_full.is_empty() && topology.nodes.is_empty());
    assert_eq!(topology.cores[0].package, None);
    assert_eq!(topology.nearest_shared_cache(CoreId::new(0), CoreId::new(1)), None);
}

#[test]
fn cores_isolated_for_somebody_else_are_not_ours() {
    let topology = read("written-container");
    assert_eq!(topology.cpuset.as_ref().unwrap().to_string(), "2-3");
    assert_eq!(topology.usable_cores().to_string(), "2-3");
    assert_eq!(topology.real_time_cores(), cores("3"));
    assert_eq!(topology.housekeeping_candidates(), cores("2 3"));
}

#[test]
fn a_two_core_machine_has_one_core_for_lanes_and_a_single_core_shares_it() {
    let topology = read("captured-2-core-vm");
    assert_eq!(topology.real_time_cores(), cores("1"));
    assert_eq!(topology.housekeeping_candidates(), cores("0 1"));
    assert_eq!(topology.nearest_shared_cache(CoreId::new(0), CoreId::new(1)), Some(3));

    let changes = [("proc/self/status", "Cpus_allowed_list:\t1\n")];
    let topology = Topology::read_from(tree("captured-2-core-vm", &changes).path()).unwrap();
    assert_eq!(topology.real_time_cores(), cores("1"));
    assert_eq!(topology.housekeeping_candidates(), cores("1"));
}

#[test]
fn missing_and_malformed_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Topology::read_from(empty.path()).unwrap_err();
    assert!(error.to_string().starts_with("/sys/devices/system/cpu/online cannot be read"));

    let changes = [("sys/devices/system/cpu/isolated", "none\n")];
    let error = Topology::read_from(tree("captured-2-core-vm", &changes).path()).unwrap_err();
    assert!(matches!(&error, TopologyError::Malformed { text, .. } if text == "none"), "{error}");
}

#[test]
fn this_machine_is_consistent_with_itself() {
    let topology = Topology::read().unwrap();
    assert!(!topology.usable_cores().is_empty());
    assert_eq!(topology.cores.len(), topology.online.len());
    assert!(topology.online.difference(&topology.possible).is_empty());
    for core in &topology.cores {
        assert!(core.siblings.contains(core.id));
    }
    assert!(!topology.real_time_cores().is_empty());
    assert!(!topology.housekeeping_candidates().is_empty());
}

proptest! {
    #[test]
    fn every_core_list_reads_back_as_it_was_written(
        numbers in prop::collection::vec(any::<u16>(), 0..64),
        runs in prop::collection::vec((any::<u16>(), 0_u16..40), 0..8),
    ) {
        let runs = runs.into_iter().flat_map(|(first, length)| first..=first.saturating_add(length));
        let list: CoreList = numbers.into_iter().chain(runs).map(CoreId::new).collect();
        prop_assert_eq!(list.to_string().parse::<CoreList>().unwrap(), list);
    }

    #[test]
    fn whatever_is_accepted_as_a_core_list_means_what_it_says(text in "[0-9]{1,4}(-[0-9]{1,4})?(, ?[0-9]{1,5}(-[0-9]{1,4})?){0,3}") {
        if let Ok(list) = text.parse::<CoreList>() {
            // An independent reading: every number is in exactly when some part covers it.
            let covers = |part: &str, number: u32| {
                let mut ends = part.trim().split('-').map(|end| end.parse::<u32>().unwrap());
                let first = ends.next().unwrap();
                (first..=ends.next().unwrap_or(first)).contains(&number)
            };
            for number in (0..65_536).step_by(7).chain(0..200) {
                let expected = !text.trim().is_empty() && text.split(',').any(|part| covers(part, number));
                prop_assert_eq!(list.contains(CoreId::new(number as u16)), expected);
            }
        }
    }

    #[test]
    fn no_text_panics_the_core_list_reader(text in ".{0,64}") {
        let _ = text.parse::<CoreList>();
    }
}
