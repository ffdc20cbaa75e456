//! Core numbers, and the kernel's list format for them (`0-3,8`).

use std::fmt;
use std::str::FromStr;

/// The number of a core (logical CPU) as the kernel counts them.
///
/// The number alone does not promise that the core exists: [`crate::thread::spawn`] checks that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CoreId(u16);

impl CoreId {
    /// Core number `number`.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The kernel's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of cores, kept sorted, read from and written as the kernel's list format: `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CoreList(Vec<CoreId>);

impl CoreList {
    /// The set without a core.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// How many cores are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no core is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `core` is in the set.
    #[must_use]
    pub fn contains(&self, core: CoreId) -> bool {
        self.0.binary_search(&core).is_ok()
    }

    /// The cores in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = CoreId> + '_ {
        self.0.iter().copied()
    }

    /// The lowest core.
    #[must_use]
    pub fn first(&self) -> Option<CoreId> {
        self.0.first().copied()
    }

    /// The cores that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|core| other.contains(*core)).collect()
    }

    /// The cores of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|core| !other.contains(*core)).collect()
    }
}

impl FromIterator<CoreId> for CoreList {
    fn from_iter<I: IntoIterator<Item = CoreId>>(cores: I) -> Self {
        let mut cores: Vec<CoreId> = cores.into_iter().collect();
        cores.sort_unstable();
        cores.dedup();
        Self(cores)
    }
}

/// Why a text is not a list of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreListError {
    /// A part between commas is neither a number nor a range.
    #[error(
        "\"{part}\" is not a core number below 65536 or a range of them; write a list such as 0-3,8"
    )]
    NotANumber {
        /// The offending part.
        part: String,
    },
    /// A range runs backwards.
    #[error("the range {first}-{last} runs backwards; write {last}-{first}")]
    Backwards {
        /// Number before the dash.
        first: u16,
        /// Number after the dash.
        last: u16,
    },
}

impl FromStr for CoreList {
    type Err = CoreListError;

    /// Reads the kernel's list format. An empty text is the empty set. The result is bounded by
    /// the 65,536 numbers that a [`CoreId`] can have, whatever the text says.
    fn from_str(text: &str) -> Result<Self, CoreListError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::empty());
        }
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim) {
            let number = |digits: &str| -> Result<u16, CoreListError> {
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(CoreListError::NotANumber { part: part.to_owned() });
                }
                digits.parse().map_err(|_| CoreListError::NotANumber { part: part.to_owned() })
            };
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(CoreListError::Backwards { first, last });
            }
            ranges.push((first, last));
        }
        // Merge before expanding: a text that repeats 0-65535 must not multiply the memory.
        ranges.sort_unstable();
        let mut cores: Vec<CoreId> = Vec::new();
        for (first, last) in ranges {
            let from = match cores.last() {
                Some(highest) if highest.get() >= last => continue,
                Some(highest) => first.max(highest.get() + 1),
                None => first,
            };
            cores.extend((from..=last).map(CoreId::new));
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for run in self.0.chunk_by(|core, next| core.index() + 1 == next.index()) {
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                _ => write!(f, "{comma}{}", run[0])?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_shown_the_way_the_kernel_writes_them() {
        for text in ["", "0", "0-3", "0-3,8", "0-1,3,5-9,65535"] {
            assert_eq!(text.parse::<CoreList>().unwrap().to_string(), text);
        }
        assert_eq!("3,1,2,1-2\n".parse::<CoreList>().unwrap().to_string(), "1-3");
    }

    #[test]
    fn nonsense_is_named_in_the_error() {
        let fails = |text: &str| text.parse::<CoreList>().unwrap_err().to_string();
        assert!(fails("0,x").contains("\"x\""));
        assert!(fails("3-1").contains("3-1 runs backwards"));
        for text in
            ["-", "1-", "-1", "+1", ",", "0,,1", "65536", "0-99999999999", "(null)", "0-3:1/2"]
        {
            assert!(text.parse::<CoreList>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_range_iterator_survives_the_highest_number() {
        assert_eq!("65534-65535".parse::<CoreList>().unwrap().len(), 2);
        assert_eq!("0-65535,0-65535,7".parse::<CoreList>().unwrap().len(), 65536);
    }
}
