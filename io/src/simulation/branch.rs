//! Branches of the protocol, by name: a simulator says which of them its runs have reached.

use crate::named::named;

named! {
    /// A place in the protocol that is worth reaching.
    Branch {
        // Handshake.
        ChallengeSent "challenge_sent" "A Challenge was sent.",
        ChallengeAnswered "challenge_answered" "A Challenge drew a Hello.",
        ChallengeStale "challenge_stale" "A Challenge was no newer than the last.",
        ChallengeLimited "challenge_limited" "A peer asked more often than it gets answers.",
        ChallengeForged "challenge_forged" "A Challenge with a bad signature.",
        ChallengeOfOldLife "challenge_of_old_life" "A Challenge from a life that has ended.",
        UnknownLifeSeen "unknown_life_seen" "A Challenge showed a life that no Hello had announced.",
        HelloUnasked "hello_unasked" "A Hello that echoed no outstanding nonce.",
        HelloForged "hello_forged" "A Hello with a bad signature.",
        HelloOfOldLife "hello_of_old_life" "A Hello of an earlier epoch.",
        HelloOfNewLife "hello_of_new_life" "A Hello began a life.",
        HelloOfSameLife "hello_of_same_life" "A Hello said more about the present life.",
        LifeConflict "life_conflict" "The same epoch with another life.",
        TimestampsRefused "timestamps_refused" "Clock samples that contradict each other.",
        LivesRingFull "lives_ring_full" "A life did not fit into the ring to the verify stage.",
        // Receive.
        RateLimitedPeer "rate_limited_peer" "A peer had no signature check left.",
        RateLimitedStranger "rate_limited_stranger" "Strangers had no signature check left.",
        FromElsewhere "from_elsewhere" "A frame in a peer's name from another address.",
        ReceiveRingFull "receive_ring_full" "A frame did not fit into its ring to the next stage.",
        PoolEmpty "pool_empty" "No slot was free to receive into.",
        // Verify.
        NotForUs "not_for_us" "An envelope for another node.",
        NotSigned "not_signed" "An unsigned envelope on a signed topic.",
        BadSignature "bad_signature" "An envelope with a bad signature.",
        NotPermitted "not_permitted" "A peer published what it may not.",
        Expired "expired" "A message was older than its lifespan when it was verified.",
        VerifiedRingFull "verified_ring_full" "The deliver stage was behind.",
        // Windows.
        NoLife "no_life" "An envelope before the Hello.",
        OldEpoch "old_epoch" "An envelope of a life that has ended.",
        FutureEpoch "future_epoch" "An envelope of a life that no Hello had announced.",
        Replay "replay" "A sequence that was done.",
        BelowWindow "below_window" "A sequence that the window no longer tells apart.",
        TooFarAhead "too_far_ahead" "A jump that no outage explains.",
        OutOfOrder "out_of_order" "A sequence below the highest that was still fresh.",
        WindowJumped "window_jumped" "A jump over the whole window.",
        StreamReopened "stream_reopened" "A Hello moved a stream on that had been unheard for long.",
        DuplicateChecked "duplicate_checked" "A duplicate of a reliable message passed, to be acknowledged again.",
        DuplicateUnchecked "duplicate_unchecked" "A duplicate of a reliable message too soon after the last.",
        // Deliver.
        SchemaMismatch "schema_mismatch" "A message of another type.",
        SubscriberFull "subscriber_full" "A subscriber of newest values or of a queue had no room.",
        DeadlineMissed "deadline_missed" "A topic was silent for longer than its deadline.",
        DeadlineRecovered "deadline_recovered" "A message ended that silence.",
        StreamStarted "stream_started" "A reader began with a life of its writer.",
        StreamResumed "stream_resumed" "A reader went on where an earlier life of the subscriber had stopped.",
        HeldBehindHole "held_behind_hole" "A message waits for one before it.",
        DuplicateInReader "duplicate_in_reader" "A reader had the message.",
        BeyondBuffer "beyond_buffer" "A message too far above the floor to be held.",
        HoleAskedFor "hole_asked_for" "A reader asked for what is missing.",
        GapGivenUp "gap_given_up" "A reader went on without what never came.",
        GapWhileHolding "gap_while_holding" "The same with later messages waiting.",
        HeartbeatRefused "heartbeat_refused" "A heartbeat contradicted itself or the subscriber.",
        TailMissing "tail_missing" "A heartbeat told of a message that had not come.",
        NoRoomToDeliver "no_room_to_deliver" "A subscriber of a reliable topic had no room.",
        ExpiredInOrder "expired_in_order" "A message grew too old before its turn came.",
        ExpiredInQueue "expired_in_queue" "A command grew too old in the subscriber's queue.",
        OutcomesAsked "outcomes_asked" "A writer asked again what became of commands.",
        OutcomesReported "outcomes_reported" "A reader reported what became of commands.",
        // Send.
        ReaderMatched "reader_matched" "A writer met a reader.",
        ReaderLost "reader_lost" "A reader was silent for its lease, or began a new life.",
        ReaderLagging "reader_lagging" "A reader lacked a message for longer than the writer lingers.",
        PatienceSpent "patience_spent" "One reader of several held the others up for longer than it may.",
        ReaderCaughtUp "reader_caught_up" "A lagging reader was taken up again.",
        ReaderMismatched "reader_mismatched" "A reader expected another class or message type.",
        AcknowledgementOvertaken "acknowledgement_overtaken" "An acknowledgement came after a later one.",
        AcknowledgementOfOldLife "acknowledgement_of_old_life" "An acknowledgement about another life of the writer.",
        AcknowledgementOverclaims "acknowledgement_overclaims" "An acknowledgement of what was never sent.",
        WriterWithoutRoom "writer_without_room" "A reader had no room for the next message.",
        WriterRingHeld "writer_ring_held" "A reader lacked what the next message would overwrite.",
        CommandsFull "commands_full" "As many commands waited for a word as can.",
        ResentAsked "resent_asked" "A message was sent again because it was asked for.",
        ResentUnasked "resent_unasked" "A message was sent again because nobody acknowledged.",
        ResendShareSpent "resend_share_spent" "Messages waited to be sent again for want of bandwidth.",
        ExpiredInRing "expired_in_ring" "A message that lacked was too old to be sent again.",
        OutlivedUnsent "outlived_unsent" "A message outlived its lifespan before readers had room for it.",
        OutcomeUnknown "outcome_unknown" "A command ended without a word.",
        OutcomeDoubted "outcome_doubted" "A word about a command was not enough, for a reader was lost.",
        ReportFull "report_full" "An entry found no room in its report.",
    }
}

impl std::fmt::Display for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
