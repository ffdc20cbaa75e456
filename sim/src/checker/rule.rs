//! The promises, by name, and the breach of one.

use std::fmt;

use sinew_io::named;
use sinew_rt::clock::Nanos;

named! {
    /// A promise that was broken.
    Rule {
        Duplicate "duplicate" "A message is delivered at most once.",
        Order "order" "Messages of a reliable stream come in their order.",
        SilentLoss "silent-loss" "Every message of a reliable stream that is not delivered is in a gap.",
        FalseGap "false-gap" "A gap names only messages that were sent and not delivered.",
        NeedlessGap "needless-gap" "Without faults nothing is lost.",
        Forged "forged" "What is delivered was sent by that sender, with those bytes.",
        Forbidden "forbidden" "What is delivered was permitted.",
        Backwards "backwards" "A newest value is never older than the one before it.",
        Late "late" "Nothing is delivered after its lifespan.",
        Epoch "epoch" "A node's epochs only grow.",
        Wire "wire" "A node sends in its own life, each number once with the same bytes.",
        SentLate "sent-late" "Nothing of a reliable topic is sent after its lifespan.",
        Unheard "unheard" "After the healing every living node is heard by its peers.",
        Blocked "blocked" "After the healing publishers are not refused for long.",
        LostInside "lost-inside" "What arrives intact from a peer within its contract is delivered.",
        Yesterday "yesterday" "Nothing is heard of a life that had ended before the receiver's life began.",
        Acknowledged "acknowledged" "What a node acknowledges, and has room for, is what its program got, and can take.",
        Beyond "beyond" "Nothing is sent beyond what the receiver has room for.",
        Overwritten "overwritten" "What all readers lack is kept while it may be sent again.",
        Unanswered "unanswered" "What comes a second time is acknowledged.",
        Deadline "deadline" "A program is told when a topic is silent for too long.",
        Impatient "impatient" "A gap is not reported before the message's linger is over.",
        Answers "answers" "A Challenge draws one Hello, and a peer a bounded number.",
        Storm "storm" "What is sent again, and what is reported, stays within its share.",
        Contract "contract" "Nobody gets more in than its contract.",
        Uncounted "uncounted" "What is dropped is counted.",
        Amplified "amplified" "A stranger gets no more bytes than it sent.",
        TooLong "too-long" "No frame is longer than a frame may be.",
        Memory "memory" "A node holds no more memory than after its start.",
        Outcome "outcome" "The outcome of a command is what became of it.",
        EStop "estop" "Without \"all is well\" in time there is a stop.",
        Start "start" "A node starts whatever the crash did to its disk.",
        Restless "restless" "A node that has nothing to do does not ask to be run.",
        Panic "panic" "A node does not panic.",
    }
}

impl Rule {
    /// The promise of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == name)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A broken promise with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: Nanos,
    /// The node at which it showed.
    pub node: u16,
    /// Which.
    pub rule: Rule,
    /// The circumstances, for a person.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, node, rule, text } = self;
        write!(f, "{rule} at {:.6} s on n{node}: {text}", at.as_secs_f64())
    }
}
