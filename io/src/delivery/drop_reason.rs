//! Every reason for which a frame is dropped, by name: one counter each, in the order of the filters.

use crate::named::named;
use crate::wire::Malformed;

named! {
    /// Why a frame was dropped, in the order in which a frame meets the filters.
    DropReason {
        TooShort "too_short" "Shorter than the fixed parts of the format.",
        TooLong "too_long" "Longer than any frame.",
        BadMagic "bad_magic" "Does not begin with our magic.",
        BadVersion "bad_version" "A version of the format that this release does not speak.",
        BadKind "bad_kind" "A kind of frame that this release does not accept.",
        OtherCluster "other_cluster" "The tag of another cluster.",
        UnknownKey "unknown_key" "The claimed sender is not enrolled.",
        RateLimited "rate_limited" "The sender had no signature check left.",
        Malformed "malformed" "Lengths, flags or reserved bytes contradict the format.",
        NotForUs "not_for_us" "Addressed to another node.",
        NotSigned "not_signed" "No signature, where one is required.",
        UnknownTopic "unknown_topic" "A topic that this node does not subscribe to.",
        NoLife "no_life" "No Hello has yet announced this stream.",
        OldEpoch "old_epoch" "From a life of the sender that has ended.",
        FutureEpoch "future_epoch" "From a life of the sender that no Hello has announced.",
        Replay "replay" "Delivered before.",
        BelowWindow "below_window" "Older than what the replay window can tell apart.",
        TooFarAhead "too_far_ahead" "A jump in the sequence that no outage explains.",
        BadSignature "bad_signature" "The signature is not the sender's over these bytes.",
        NotPermitted "not_permitted" "The sender may not publish on this topic.",
        SchemaMismatch "schema_mismatch" "Not the message type that this node subscribed to.",
        ClassNotServed "class_not_served" "A delivery class that this release does not serve.",
        ClassMismatch "class_mismatch" "Not the delivery class that this node expects of the topic.",
        QosMismatch "qos_mismatch" "A report about a stream of another class or message type.",
        NotSubscribed "not_subscribed" "A report about a topic that this node does not carry reliably.",
        Expired "expired" "Older than its lifespan.",
        Overtaken "overtaken" "A newer value of the stream came first, and only the newest counts.",
        QueueFull "queue_full" "The next stage or the subscriber had no room.",
        PoolEmpty "pool_empty" "No free slot to receive into.",
        ChallengeStale "challenge_stale" "A Challenge that is not newer than the last one of that peer.",
        ChallengeLimited "challenge_limited" "The peer asked more often than it gets answers.",
        HelloUnasked "hello_unasked" "A Hello that echoes no nonce that is outstanding.",
        LifeConflict "life_conflict" "Same epoch, another life: a cloned key or a state that was rolled back.",
        BadTimestamps "bad_timestamps" "Clock samples that contradict each other.",
    }
}

impl DropReason {
    /// The place in [`DropReason::ALL`], for arrays of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::TooShort { .. } => Self::TooShort,
            Malformed::TooLong { .. } => Self::TooLong,
            Malformed::BadMagic { .. } => Self::BadMagic,
            Malformed::BadVersion { .. } => Self::BadVersion,
            Malformed::BadKind { .. } => Self::BadKind,
            Malformed::PayloadTooLong { .. }
            | Malformed::LengthMismatch { .. }
            | Malformed::UnknownFlags { .. }
            | Malformed::UnknownClass { .. }
            | Malformed::SenderMismatch { .. }
            | Malformed::UnknownMessage { .. }
            | Malformed::TooManyStreams { .. }
            | Malformed::Reserved => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page_about_the_message_path() {
        let page = include_str!("../../../docs/message-path.md");
        for reason in DropReason::ALL {
            assert!(page.contains(&format!("`{}`", reason.as_str())), "{reason:?}");
        }
    }

    #[test]
    fn names_are_unique_and_indices_are_places() {
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(reason.description().ends_with('.'));
        }
    }
}
