//! What the kernel granted to the threads that measured.

use sinew_rt::thread::Applied;

use crate::bench::report::ThreadReport;

/// Every thread once, and why the figures are not real-time figures, if they are not.
#[derive(Debug, Default)]
pub(super) struct Granted {
    pub(super) threads: Vec<ThreadReport>,
    pub(super) not_real_time: Vec<String>,
}

impl Granted {
    pub(super) fn add(&mut self, applied: &Applied) {
        let effective = &applied.effective;
        let thread = ThreadReport {
            name: effective.name.clone(),
            scheduling: effective.scheduling.to_string(),
            cores: effective.affinity.to_string(),
            refused: applied.refused.iter().map(ToString::to_string).collect(),
        };
        if !self.threads.contains(&thread) {
            self.threads.push(thread);
        }
        if let Some(reason) = applied.not_real_time() {
            self.brand(reason);
        }
    }

    pub(super) fn brand(&mut self, reason: String) {
        if !self.not_real_time.contains(&reason) {
            self.not_real_time.push(reason);
        }
    }
}
