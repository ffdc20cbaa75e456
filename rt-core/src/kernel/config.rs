//! The options that the kernel was built with, where it tells them.

use std::io::Read;
use std::path::Path;

use crate::files;

/// A kernel configuration is about 300 KB; a file that unpacks to more is not one.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// The kernel's build configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig(String);

impl KernelConfig {
    /// The configuration from `/proc/config.gz`, or else from `/boot/config-<release>`; `None`
    /// where the kernel keeps neither.
    #[must_use]
    pub fn read(root: &Path, release: &str) -> Option<Self> {
        let packed = std::fs::File::open(root.join("proc/config.gz")).ok().and_then(|file| {
            let mut text = String::new();
            let unpacked = flate2::read::GzDecoder::new(file);
            unpacked.take(MAX_BYTES).read_to_string(&mut text).ok()?;
            Some(text)
        });
        packed
            .or_else(|| {
                files::text(root, &format!("boot/config-{release}"))
                    .or_else(|| files::text(root, &format!("lib/modules/{release}/config")))
            })
            .map(Self)
    }

    /// Whether an option (`CONFIG_PREEMPT_RT`) is built in.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.0.lines().any(|line| line.strip_prefix(option) == Some("=y"))
    }

    /// All of it, one option a line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}
