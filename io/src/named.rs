//! Lists of things that have a name and a sentence each: reasons, branches, faults. The simulator has its own
//! made by it, too.

/// An enumeration with `ALL`, `COUNT`, `as_str` and `description`. The sentence of a value documents it, too.
#[doc(hidden)]
#[cfg_attr(feature = "simulation", macro_export)]
macro_rules! named {
    ($(#[$doc:meta])* $Name:ident { $($value:ident $text:literal $what:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $Name {
            $(#[doc = $what] $value,)*
        }

        impl $Name {
            /// All of them; each has the place of its number.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in panels, reports and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$value => $what,)*
                }
            }
        }
    };
}

pub(crate) use named;
