//! What can go wrong in a run: kinds of faults, and one fault with its time and place.

use std::fmt;

use sinew_io::named;
use sinew_rt::clock::Nanos;

named! {
    /// A kind of fault.
    FaultKind {
        Loss "loss" "A link loses frames at random.",
        Delay "delay" "A link takes longer.",
        Reorder "reorder" "A link lets frames overtake each other.",
        Duplicate "duplicate" "A link delivers frames twice, the second time later.",
        Corrupt "corrupt" "A link changes bits.",
        Partition "partition" "Nothing passes between two nodes, or between one and all others.",
        OneWay "one-way" "Nothing passes from one node to another, or from one to all others.",
        Clamp "clamp" "A link is slow, and drops what its queue does not hold.",
        Crash "crash" "A node is killed, and starts again later with nothing but its disk.",
        Torn "torn" "A node is killed while it writes to its disk, once or more, before it starts again.",
        Rollback "rollback" "An old disk is put into a node, which begins lives that were before; later the right one.",
        Reboot "reboot" "A machine and all its nodes go down; its clock starts anew.",
        Stall "stall" "A node is not run for a while.",
        Clock "clock" "A machine's clock changes its rate, and its wall clock jumps.",
        SlowReader "slow-reader" "A program does not read what its node received.",
        Lie "lie" "A member lies: forged, replayed, changed and contradictory frames.",
        Flood "flood" "A member sends ten times what it may.",
        Stranger "stranger" "Somebody who is no member sends to a node.",
    }
}

impl FaultKind {
    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Whether it is a link that suffers.
    #[must_use]
    pub const fn is_of_link(self) -> bool {
        matches!(
            self,
            Self::Loss
                | Self::Delay
                | Self::Reorder
                | Self::Duplicate
                | Self::Corrupt
                | Self::Partition
                | Self::OneWay
                | Self::Clamp
        )
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place in the run as it was drawn, which stays its name while a failing run is shrunk.
    pub number: u16,
    /// What happens.
    pub kind: FaultKind,
    /// When it begins.
    pub from: Nanos,
    /// When it ends.
    pub until: Nanos,
    /// The node that suffers or, of a link, that sends.
    pub node: u16,
    /// Of a link, the node that receives: `None` is everyone.
    pub other: Option<u16>,
    /// How bad it is, of a million: a share of frames, or a share of the worst that the kind knows.
    pub strength: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} of n{}", self.number, self.kind, self.node)?;
        match self.other {
            Some(other) => write!(f, " to n{other}")?,
            None if self.kind.is_of_link() => f.write_str(" to all")?,
            None => {}
        }
        let percent = f64::from(self.strength) / 1e4;
        write!(f, " from {:.3} s to {:.3} s", self.from.as_secs_f64(), self.until.as_secs_f64())?;
        write!(f, ", strength {percent:.1} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_finds_it() {
        for (place, kind) in FaultKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            assert_eq!(FaultKind::from_name(kind.as_str()), Some(*kind));
            assert!(kind.description().ends_with('.'));
        }
        assert_eq!(FaultKind::from_name("none"), None);
    }
}
