//! Which cores the demo's two processes use: a pure function of what the machine has.

use sinew_rt::topology::CoreId;

/// The cores of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of its control loop.
    pub(crate) control: CoreId,
    /// Of its node's lanes, in the order in which lanes take them.
    pub(crate) lanes: Vec<CoreId>,
}

/// Robot and controller, in this order, on `real_time` cores (the best first), with
/// `housekeeping` as the second where there is only one.
///
/// Each process keeps to cores of its own as long as there are two, and its loop is alone on a core
/// as long as there are enough. Where they share, the loop's priority is above the lanes'.
pub(crate) fn places(real_time: &[CoreId], housekeeping: &[CoreId]) -> Option<[Place; 2]> {
    let mut cores = real_time.to_vec();
    if cores.len() < 2 {
        cores.extend(housekeeping.iter().find(|core| !real_time.contains(core)));
    }
    let place = |cores: &[CoreId]| {
        let (control, rest) = cores.split_first()?;
        let lanes = if rest.is_empty() { vec![*control] } else { rest.to_vec() };
        Some(Place { control: *control, lanes })
    };
    let (robot, controller) = cores.split_at(cores.len().div_ceil(2));
    let robot = place(robot)?;
    let controller = place(controller).unwrap_or_else(|| robot.clone());
    Some([robot, controller])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(real_time: &[u16], housekeeping: &[u16]) -> Option<[(u16, Vec<u16>); 2]> {
        let ids = |cores: &[u16]| cores.iter().copied().map(CoreId::new).collect::<Vec<_>>();
        let plain = |place: Place| {
            (place.control.get(), place.lanes.iter().map(|core| core.get()).collect())
        };
        Some(places(&ids(real_time), &ids(housekeeping))?.map(plain))
    }

    #[test]
    fn two_processes_share_as_few_cores_as_the_machine_allows() {
        assert_eq!(placed(&[], &[]), None);
        assert_eq!(placed(&[0], &[0]), Some([(0, vec![0]), (0, vec![0])]));
        assert_eq!(placed(&[1], &[0]), Some([(1, vec![1]), (0, vec![0])]));
        assert_eq!(placed(&[2, 3], &[0, 1]), Some([(2, vec![2]), (3, vec![3])]));
        assert_eq!(placed(&[1, 2, 3], &[0]), Some([(1, vec![2]), (3, vec![3])]));
        let eight = placed(&[8, 9, 10, 11, 12, 13, 14, 15], &[0]);
        assert_eq!(eight, Some([(8, vec![9, 10, 11]), (12, vec![13, 14, 15])]));
    }
}
