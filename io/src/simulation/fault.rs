//! Faults that can be planted, by name: one line each at the place that they break.

use crate::named::named;

named! {
    /// A way in which this crate can be broken on purpose, so that a simulator can prove its sight.
    Fault {
        // Who may speak.
        SignatureNotChecked "signature_not_checked" "Whatever stands in the place of an envelope's signature is good.",
        UnsignedAccepted "unsigned_accepted" "An envelope without a signature passes on a signed topic.",
        HelloNotChecked "hello_not_checked" "A Hello counts without a look at its signature.",
        NonceNotChecked "nonce_not_checked" "A Hello counts whatever nonce it echoes.",
        LifeConflictAccepted "life_conflict_accepted" "Another life of the same epoch is taken for the known one.",
        OldEpochAccepted "old_epoch_accepted" "A Hello of an earlier life brings that life back.",
        EpochNotChecked "epoch_not_checked" "Envelopes of any epoch count as of the present one.",
        StaleChallengeAnswered "stale_challenge_answered" "A Challenge is answered each time that it comes.",
        AnswersUnlimited "answers_unlimited" "A peer draws as many Hellos as it asks for.",
        PermissionNotChecked "permission_not_checked" "Every enrolled peer may publish every topic.",
        DestinationNotChecked "destination_not_checked" "What is addressed to another node is taken.",
        SchemaNotChecked "schema_not_checked" "Bytes of another message type are read as ours.",
        AdmissionOff "admission_off" "No sender runs out of signature checks.",
        // Once, and in its own life.
        WindowOffByOne "window_off_by_one" "The newest sequence counts as not yet done.",
        WindowBeforeAuthentication "window_before_authentication" "The window moves before the signature was checked.",
        WindowWithoutSender "window_without_sender" "All senders of a topic share one window.",
        LifeNotReset "life_not_reset" "A new life of a sender goes on with the window of its last one.",
        EpochReused "epoch_reused" "The boot counter does not grow from one life to the next.",
        WallClockLifetime "wall_clock_lifetime" "Ages are read off the wall clock, which jumps.",
        LifespanIgnored "lifespan_ignored" "A message is delivered however old it is.",
        ForeignClockBelieved "foreign_clock_believed" "The sender's clock is read as if it were ours.",
        // The way through the stages.
        PeersTurnsOff "peers_turns_off" "The first peer with frames waiting is always verified first.",
        SlotsLeaked "slots_leaked" "Slots of dropped frames do not come back to the pool.",
        DropsNotCounted "drops_not_counted" "Frames vanish without a count.",
        // Reading a reliable stream.
        AcknowledgedUnheard "acknowledged_unheard" "The floor that is acknowledged runs ahead of what was delivered.",
        DuplicateNotAcknowledged "duplicate_not_acknowledged" "An authenticated duplicate draws no acknowledgement.",
        GapNotReported "gap_not_reported" "What never came is passed over in silence.",
        GapReportedTwice "gap_reported_twice" "A gap is told a second time.",
        OrderLostAfterGap "order_lost_after_gap" "Of two messages that wait behind a hole, the later comes out first.",
        GapBufferShared "gap_buffer_shared" "Messages of all senders of a topic wait in one buffer.",
        NakStorm "nak_storm" "What is missing is asked for twenty thousand times a second.",
        HeartbeatIgnored "heartbeat_ignored" "Heartbeats are not listened to, so a lost tail is never missed.",
        ExpiredCommandDelivered "expired_command_delivered" "A command is delivered though it grew older than its lifespan behind a hole, or in the queue.",
        RejectionLost "rejection_lost" "A command that was rejected is reported as accepted.",
        OutcomeLost "outcome_lost" "What became of commands is never reported.",
        SubscriberOverrun "subscriber_overrun" "Messages are taken from the buffer though the subscriber has no room.",
        PossibleDuplicateUnmarked "possible_duplicate_unmarked" "What an earlier life of the subscriber may have had comes again unmarked.",
        ReaderKeepsOldLife "reader_keeps_old_life" "A new life of a writer goes on at the floor of its last one.",
        // Writing one.
        LimitIgnored "limit_ignored" "The writer sends beyond what its readers have room for.",
        RingOverwritten "ring_overwritten" "The writer overwrites what a reader still lacks.",
        ResendAfterExpiry "resend_after_expiry" "A message is sent again after its lifespan.",
        ResendWrongSlot "resend_wrong_slot" "Another message is sent again than the one that lacks.",
        ResendUnbounded "resend_unbounded" "Resends take as much of the network as they like.",
        ResendNever "resend_never" "What lacks is never sent again.",
        LaggingReaderHoldsRing "lagging_reader_holds_ring" "A reader that fell behind stops the writer for good.",
        OutlivedKept "outlived_kept" "What outlived its lifespan while readers had no room goes on waiting.",
        UnresolvedForever "unresolved_forever" "A command whose outcome never comes stays open for ever.",
        RestartedReaderKept "restarted_reader_kept" "A reader that began a new life is taken for the one of its last life.",
        AcknowledgementOfAnyLife "acknowledgement_of_any_life" "What is acknowledged of an earlier life of the writer counts for this one.",
        // Safe state.
        DeadlineNotTold "deadline_not_told" "Nobody is told that a topic's deadline was missed.",
        EStopNotLatched "estop_not_latched" "An emergency stop ends by itself with the next word.",
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No fault has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no fault is called `{name}`")]
pub struct NoSuchFault {
    /// The name.
    pub name: String,
}

impl std::str::FromStr for Fault {
    type Err = NoSuchFault;

    fn from_str(name: &str) -> Result<Self, NoSuchFault> {
        let found = Self::ALL.iter().copied().find(|fault| fault.as_str() == name);
        found.ok_or_else(|| NoSuchFault { name: name.to_owned() })
    }
}
