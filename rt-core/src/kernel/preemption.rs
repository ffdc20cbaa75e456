//! How readily kernel code yields to a real-time thread.

use std::fmt;
use std::path::Path;

use super::KernelConfig;
use crate::files;

/// The kernel's preemption model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preemption {
    /// `PREEMPT_RT`: nearly everything in the kernel can be preempted.
    RealTime,
    /// `PREEMPT_DYNAMIC`: chosen at boot or later.
    Dynamic(DynamicMode),
    /// `PREEMPT`: kernel code can be preempted outside its critical sections.
    Full,
    /// `PREEMPT_LAZY`: as full for real-time threads, at the next tick for normal ones.
    Lazy,
    /// `PREEMPT_VOLUNTARY`: at chosen points only.
    Voluntary,
    /// `PREEMPT_NONE`: not at all.
    None,
    /// The kernel does not say.
    Unknown,
}

/// The mode of a dynamic kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynamicMode {
    /// Behaves as [`Preemption::Full`].
    Full,
    /// Behaves as [`Preemption::Lazy`].
    Lazy,
    /// Behaves as [`Preemption::Voluntary`].
    Voluntary,
    /// Behaves as [`Preemption::None`].
    None,
    /// Readable by root only, and not given on the command line.
    Unknown,
}

impl DynamicMode {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "full" => Some(Self::Full),
            "lazy" => Some(Self::Lazy),
            "voluntary" => Some(Self::Voluntary),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl Preemption {
    /// `/sys/kernel/realtime` is not asked: many real `PREEMPT_RT` kernels do not have it.
    pub(super) fn read(
        root: &Path,
        version: &str,
        command_line: &str,
        config: Option<&KernelConfig>,
    ) -> Self {
        let built = |option| config.is_some_and(|config| config.has(option));
        let mut words = version.split_whitespace().skip_while(|word| !word.starts_with("PREEMPT"));
        let word = words.next();
        // Kernels with the patch, up to 5.2, write two words (scripts/mkcompile_h).
        let patched = word == Some("PREEMPT") && words.next() == Some("RT");
        // Some releases write PREEMPT_{RT,(full)} and the like.
        let says = |part: &str| {
            word.is_some_and(|word| {
                word.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|w| w == part)
            })
        };
        if says("RT") || patched || built("CONFIG_PREEMPT_RT") || built("CONFIG_PREEMPT_RT_FULL") {
            return Self::RealTime;
        }
        if says("DYNAMIC") || built("CONFIG_PREEMPT_DYNAMIC") {
            let chosen = files::text(root, "sys/kernel/debug/sched/preempt")
                .and_then(|modes| files::chosen(&modes, '(', ')').and_then(DynamicMode::parse));
            let given = || super::parameter(command_line, "preempt").and_then(DynamicMode::parse);
            let default = || {
                [
                    ("CONFIG_PREEMPT_NONE", DynamicMode::None),
                    ("CONFIG_PREEMPT_VOLUNTARY", DynamicMode::Voluntary),
                    ("CONFIG_PREEMPT_LAZY", DynamicMode::Lazy),
                    ("CONFIG_PREEMPT", DynamicMode::Full),
                ]
                .into_iter()
                .find_map(|(option, mode)| built(option).then_some(mode))
            };
            let mode = chosen.or_else(given).or_else(default).unwrap_or(DynamicMode::Unknown);
            return Self::Dynamic(mode);
        }
        if says("LAZY") || built("CONFIG_PREEMPT_LAZY") {
            Self::Lazy
        } else if word.is_some() || built("CONFIG_PREEMPT") {
            Self::Full
        } else if built("CONFIG_PREEMPT_VOLUNTARY") {
            Self::Voluntary
        } else if built("CONFIG_PREEMPT_NONE") {
            Self::None
        } else {
            Self::Unknown
        }
    }

    /// Whether kernel code yields to a real-time thread outside critical sections; `None` when
    /// the mode is not known.
    #[must_use]
    pub fn yields_to_real_time(self) -> Option<bool> {
        match self {
            Self::RealTime | Self::Full | Self::Lazy => Some(true),
            Self::Dynamic(DynamicMode::Full | DynamicMode::Lazy) => Some(true),
            Self::Voluntary | Self::None => Some(false),
            Self::Dynamic(DynamicMode::Voluntary | DynamicMode::None) => Some(false),
            Self::Dynamic(DynamicMode::Unknown) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "PREEMPT_RT",
            Self::Dynamic(DynamicMode::Full) => "PREEMPT_DYNAMIC (full)",
            Self::Dynamic(DynamicMode::Lazy) => "PREEMPT_DYNAMIC (lazy)",
            Self::Dynamic(DynamicMode::Voluntary) => "PREEMPT_DYNAMIC (voluntary)",
            Self::Dynamic(DynamicMode::None) => "PREEMPT_DYNAMIC (none)",
            Self::Dynamic(DynamicMode::Unknown) => "PREEMPT_DYNAMIC (mode unreadable)",
            Self::Full => "PREEMPT",
            Self::Lazy => "PREEMPT_LAZY",
            Self::Voluntary => "PREEMPT_VOLUNTARY",
            Self::None => "PREEMPT_NONE",
            Self::Unknown => "unknown",
        })
    }
}
