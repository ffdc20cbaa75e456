//! Who may have written what a node trusts on the disk.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Checks that what has these `facts` belongs to this user, or to one of `others`, and that nobody else
/// can write to it; otherwise says what is wrong and what to do.
pub(super) fn check(facts: &Metadata, path: &Path, others: &[u32]) -> Result<(), (String, String)> {
    // SAFETY: geteuid(2) takes nothing, touches no memory and cannot fail.
    let us = unsafe { libc::geteuid() };
    if facts.uid() != us && !others.contains(&facts.uid()) {
        let problem = format!("belongs to user {}, and this process is user {us}", facts.uid());
        return Err((problem, format!("run `chown {us} {}`", path.display())));
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let problem = format!("mode {mode:04o} lets others write");
        return Err((problem, format!("run `chmod go-w {}`", path.display())));
    }
    Ok(())
}
