//! Signs of life, and of trouble.

use sinew_io::message::Message;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fields::{Described, Field, fields};
use super::{Invalid, SAFETY};

/// "All is well here, and the next of these follows within the period." Its absence is the signal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Heartbeat {
    /// Rises by one with each heartbeat of one life of the sender.
    pub count: u64,
    /// The promised interval to the next one, in ns.
    pub period_ns: i64,
    /// The sender's safety state, as in [`crate::safety::State::code`].
    pub safety: u32,
    /// Zero; room for a later version.
    pub reserved: u32,
}

impl Message for Heartbeat {
    const NAME: &'static str = "Heartbeat@1";
}

impl Described for Heartbeat {
    const FIELDS: &'static [Field] = fields!(Heartbeat {
        count: "heartbeats";
        period_ns: "ns";
        safety: "" codes SAFETY;
        reserved: "";
    });

    /// One a second.
    fn template() -> Self {
        Self { period_ns: 1_000_000_000, ..Self::default() }
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.check()
    }
}

impl Heartbeat {
    /// Whether the promise can be kept: a period above zero. Wait-free.
    ///
    /// # Errors
    /// [`Invalid::NotPositive`].
    pub fn check(&self) -> Result<(), Invalid> {
        if self.period_ns > 0 {
            return Ok(());
        }
        Err(Invalid::NotPositive { field: "period_ns", value: self.period_ns })
    }
}

/// What a fault asks of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Severity {
    /// Worth recording.
    Info = 0,
    /// Still within limits, but heading out of them.
    Warning = 1,
    /// A function was lost; motion may go on degraded.
    Error = 2,
    /// Motion must stop.
    Critical = 3,
}

/// Something went wrong, with the numbers that show it.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fault {
    /// When it was noticed: ns of the sender's `CLOCK_MONOTONIC`. Comparable only on its host.
    pub noticed_at_ns: i64,
    /// The sender's own code for it; 0 when it has none.
    pub code: u32,
    /// The code of a [`Severity`]; read it with [`severity`](Self::severity).
    pub severity: u32,
    /// The joint concerned, or [`Fault::NO_JOINT`].
    pub joint: u32,
    /// Zero; room for a later version.
    pub reserved: u32,
    /// The value that was seen, in the SI unit of the quantity. May be NaN: that can be the fault.
    pub value: f64,
    /// The limit that it crossed, in the same unit.
    pub limit: f64,
    /// What happened, in UTF-8, filled up with zeros; read it with [`text`](Self::text).
    pub text: [u8; 64],
}

impl Message for Fault {
    const NAME: &'static str = "Fault@1";
}

impl Described for Fault {
    const FIELDS: &'static [Field] = fields!(Fault {
        noticed_at_ns: "ns";
        code: "";
        severity: "" codes &["info", "warning", "error", "critical"];
        joint: "";
        reserved: "";
        value: "SI unit of the quantity";
        limit: "SI unit of the quantity";
        text: "";
    });

    /// Of no particular joint.
    fn template() -> Self {
        Self::new(0, Severity::Info, 0, "")
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.severity().map(drop)
    }
}

impl Fault {
    /// [`Fault::joint`] of a fault that concerns no particular joint.
    pub const NO_JOINT: u32 = u32::MAX;

    /// A fault without joint, value and limit. Text beyond 64 bytes is cut at a character. Does
    /// not allocate, so that a real-time loop can report.
    #[must_use]
    pub fn new(noticed_at_ns: i64, severity: Severity, code: u32, text: &str) -> Self {
        let mut fault = Self {
            noticed_at_ns,
            code,
            severity: severity as u32,
            joint: Self::NO_JOINT,
            reserved: 0,
            value: 0.0,
            limit: 0.0,
            text: [0; 64],
        };
        let end = text.floor_char_boundary(fault.text.len());
        fault.text[..end].copy_from_slice(&text.as_bytes()[..end]);
        fault
    }

    /// What the fault asks of the receiver.
    ///
    /// # Errors
    /// [`Invalid::UnknownCode`] for a code of another version. Treat it as
    /// [`Severity::Critical`].
    pub fn severity(&self) -> Result<Severity, Invalid> {
        match self.severity {
            0 => Ok(Severity::Info),
            1 => Ok(Severity::Warning),
            2 => Ok(Severity::Error),
            3 => Ok(Severity::Critical),
            code => Err(Invalid::UnknownCode { field: "severity", code }),
        }
    }

    /// What happened, up to the first zero or the first byte that is not UTF-8. It comes from
    /// another machine: escape it before it goes to a terminal.
    #[must_use]
    pub fn text(&self) -> &str {
        let end = self.text.iter().position(|&b| b == 0).unwrap_or(self.text.len());
        let text = &self.text[..end];
        match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layouts_on_the_wire_are_fixed() {
        assert_eq!((size_of::<Heartbeat>(), align_of::<Heartbeat>()), (24, 8));
        assert_eq!(offset_of!(Heartbeat, count), 0);
        assert_eq!(offset_of!(Heartbeat, period_ns), 8);
        assert_eq!(offset_of!(Heartbeat, safety), 16);
        assert_eq!((size_of::<Fault>(), align_of::<Fault>()), (104, 8));
        assert_eq!(offset_of!(Fault, noticed_at_ns), 0);
        assert_eq!(offset_of!(Fault, code), 8);
        assert_eq!(offset_of!(Fault, severity), 12);
        assert_eq!(offset_of!(Fault, joint), 16);
        assert_eq!(offset_of!(Fault, value), 24);
        assert_eq!(offset_of!(Fault, limit), 32);
        assert_eq!(offset_of!(Fault, text), 40);
    }

    #[test]
    fn a_heartbeat_that_promises_nothing_is_refused() {
        let mut heartbeat = Heartbeat { period_ns: 1, ..Heartbeat::default() };
        assert_eq!(heartbeat.check(), Ok(()));
        heartbeat.period_ns = 0;
        let refused = Err(Invalid::NotPositive { field: "period_ns", value: 0 });
        assert_eq!(heartbeat.check(), refused);
    }

    #[test]
    fn a_fault_survives_the_wire_and_long_text_is_cut_at_a_character() {
        let fault = Fault::new(5, Severity::Critical, 17, "cart hit the end stop");
        let fault = Fault::read_from_bytes(fault.as_bytes()).unwrap();
        assert_eq!(fault.text(), "cart hit the end stop");
        assert_eq!(fault.severity(), Ok(Severity::Critical));
        assert_eq!((fault.noticed_at_ns, fault.code, fault.joint), (5, 17, Fault::NO_JOINT));
        let long = format!("{}é", "x".repeat(63));
        assert_eq!(Fault::new(0, Severity::Info, 0, &long).text(), "x".repeat(63));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_text_that_is_a_prefix_of_them(
            bytes in prop::collection::vec(any::<u8>(), size_of::<Fault>()),
        ) {
            let fault = Fault::read_from_bytes(&bytes).unwrap();
            prop_assert!(bytes[40..].starts_with(fault.text().as_bytes()));
            prop_assert!(!fault.text().contains('\0'));
        }
    }
}
