//! What happened when on which node: what the page about one run is drawn from.

use sinew_rt::clock::Nanos;

use crate::checker::Violation;
use crate::fault::Fault;
use crate::host::Heard;
use crate::plan::Plan;

/// Deliveries are counted in so many steps over the length of a run.
pub const STEPS: usize = 240;
/// The most marks that are kept.
const MARKS_MAX: usize = 20_000;

/// Something that happened at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The node started.
    Start,
    /// The node was killed.
    Kill,
    /// It was told of messages that will not come.
    Gap {
        /// Whose.
        from: u16,
        /// Of which topic.
        topic: u8,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// It was told of a new life.
    NewLife {
        /// Whose.
        from: u16,
    },
    /// A promise was broken.
    Violation(String),
}

/// One run, as far as a picture shows it.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The number of nodes.
    pub nodes: usize,
    /// Nodes that took no part.
    pub absent: Vec<u16>,
    /// The member that lies.
    pub liar: Option<u16>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// When all faults were over.
    pub healed: Nanos,
    /// When nobody published any more.
    pub quiet: Nanos,
    /// When the run ends.
    pub end: Nanos,
    /// Marks in their order.
    pub marks: Vec<(Nanos, u16, Mark)>,
    /// Marks that were too many.
    pub left_out: u64,
    /// By node and step: messages delivered.
    pub delivered: Vec<Vec<u32>>,
}

impl Timeline {
    /// An empty timeline of the run that `plan` describes.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            nodes: plan.nodes,
            absent: plan.absent.clone(),
            liar: plan.liar,
            faults: plan.faults.clone(),
            healed: plan.healed,
            quiet: plan.quiet,
            end: plan.end,
            marks: Vec::new(),
            left_out: 0,
            delivered: vec![vec![0; STEPS]; plan.nodes],
        }
    }

    /// Notes something.
    pub fn mark(&mut self, now: Nanos, node: u16, mark: Mark) {
        match self.marks.len() < MARKS_MAX {
            true => self.marks.push((now, node, mark)),
            false => self.left_out += 1,
        }
    }

    /// Notes what a program heard.
    pub fn heard(&mut self, now: Nanos, node: u16, heard: &Heard) {
        match *heard {
            Heard::Gap { topic, from, first, last, .. } => {
                self.mark(now, node, Mark::Gap { from, topic, first, last });
            }
            Heard::NewLife { from, .. } => self.mark(now, node, Mark::NewLife { from }),
            Heard::Value { .. } | Heard::Queued { .. } | Heard::Message { .. } => {
                let length = self.end.as_nanos().max(1);
                let step =
                    (i128::from(now.as_nanos()) * STEPS as i128 / i128::from(length)) as usize;
                if let Some(count) = self.delivered[usize::from(node)].get_mut(step) {
                    *count += 1;
                }
            }
            Heard::Outcome { .. }
            | Heard::Well { .. }
            | Heard::Forbidden { .. }
            | Heard::Silence { .. }
            | Heard::Unlatched => {}
        }
    }

    /// Notes the broken promise that ended the run.
    pub fn violation(&mut self, violation: &Violation) {
        self.marks.push((violation.at, violation.node, Mark::Violation(violation.to_string())));
    }
}
