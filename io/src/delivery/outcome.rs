//! What became of a command: the codes of the wire, and the one answer that only time gives.

/// What became of a command, as its sender hears it: exactly once for each command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Delivered in time, and the receiving application accepted it.
    Accepted,
    /// Delivered in time, and the receiving application refused it for this reason, 0 to 239.
    Rejected(u8),
    /// Its lifespan had passed when it arrived, or before the receiver had room for it; it was not delivered.
    Expired,
    /// The receiver gave up waiting for it, and will not deliver it.
    NeverArrived,
    /// No word came in time, or the receiver was lost or restarted: it may have been executed or not.
    Unknown,
}

/// The highest reason of a rejection that has a code.
pub const REASON_MAX: u8 = u8::MAX - REJECTED;

const UNDECIDED: u8 = 0;
const ACCEPTED: u8 = 1;
const EXPIRED: u8 = 2;
const NEVER_ARRIVED: u8 = 3;
const REJECTED: u8 = 16;

impl Outcome {
    /// The outcome that this code on the wire means; `None` for "not decided" and for codes that have
    /// no meaning. Never [`Outcome::Unknown`], which nobody can say of another's command.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            ACCEPTED => Some(Self::Accepted),
            EXPIRED => Some(Self::Expired),
            NEVER_ARRIVED => Some(Self::NeverArrived),
            REJECTED.. => Some(Self::Rejected(code - REJECTED)),
            _ => None,
        }
    }

    /// The code on the wire. A reason above [`REASON_MAX`] is written as [`REASON_MAX`];
    /// [`Outcome::Unknown`] is written as "not decided".
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Accepted => ACCEPTED,
            Self::Rejected(reason) => REJECTED.saturating_add(reason),
            Self::Expired => EXPIRED,
            Self::NeverArrived => NEVER_ARRIVED,
            Self::Unknown => UNDECIDED,
        }
    }

    /// Whether the receiving application itself has spoken.
    #[must_use]
    pub const fn is_decided_by_application(self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_has_a_meaning_is_written_as_it_was_read() {
        for code in 0..=u8::MAX {
            match Outcome::from_code(code) {
                Some(outcome) => assert_eq!(outcome.code(), code),
                None => assert!(code == UNDECIDED || (4..16).contains(&code), "{code}"),
            }
        }
    }

    #[test]
    fn nobody_can_say_unknown() {
        assert_eq!(Outcome::from_code(Outcome::Unknown.code()), None);
        assert_eq!(Outcome::Rejected(255).code(), Outcome::Rejected(REASON_MAX).code());
    }
}
